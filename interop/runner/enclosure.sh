#!/bin/sh
# Run an endpoint as its container would: /www, /downloads, /certs, /logs and the two helper
# scripts at their fixed places, the names of the servers in /etc/hosts, all else as it is here.
# Usage, inside a mount namespace of its own: enclosure.sh DIRECTORY COMMAND...
# DIRECTORY holds www, downloads, certs, logs, hosts and an empty root.
set -e
dir=$1
shift
root=$dir/root
mount -t tmpfs -o size=1m tmpfs "$root"
mount --make-unbindable "$root"
for entry in /* /.[!.]*; do
    name=${entry#/}
    case $name in www | downloads | certs | logs) continue ;; esac
    if [ -L "$entry" ]; then
        cp -P "$entry" "$root/$name"
    elif [ -d "$entry" ]; then
        mkdir "$root/$name"
        mount --rbind "$entry" "$root/$name"
    fi
done
for name in www downloads certs logs; do
    mkdir "$root/$name"
    mount --bind "$dir/$name" "$root/$name"
done
mount -o remount,bind,ro "$root/www"
mount -o remount,bind,ro "$root/certs"
mount --bind "$dir/hosts" "$root/etc/hosts"
# The routes are there and the link is up before a client starts: nothing to set up or wait for.
for name in setup.sh wait-for-it.sh; do
    printf '#!/bin/sh\nexit 0\n' >"$root/$name"
    chmod +x "$root/$name"
done
exec chroot "$root" "$@"
