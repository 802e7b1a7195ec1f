#!/bin/sh
# The root of an unpacked image as a peer of `python -m interop run`, which has made /www and the rest.
# Usage: image.sh ROOT WORKDIR ENTRYPOINT VARIABLE=VALUE...; the variables are those of the image.
set -e
root=$1 workdir=$2 entrypoint=$3
shift 3
for name in www downloads certs logs proc dev; do
    mkdir -p "$root/$name"
    mount --rbind "/$name" "$root/$name"
done
mount --bind /etc/hosts "$root/etc/hosts"
# As in a container: nothing of this machine's environment.
exec env -i "$@" ROLE="${ROLE:-}" TESTCASE="${TESTCASE:-}" REQUESTS="${REQUESTS:-}" \
    SSLKEYLOGFILE="${SSLKEYLOGFILE:-}" QLOGDIR="${QLOGDIR:-}" SERVER_PARAMS= CLIENT_PARAMS= \
    chroot "$root" sh -c "cd '$workdir' && exec '$entrypoint'"
