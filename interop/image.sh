#!/bin/bash
# Build both images (interop/Dockerfile, deploy/Dockerfile) without a Docker engine, and try them:
# `python -m interop run` runs the endpoint from its image's root, in both roles.
#
#   sudo KEYRING=... interop/image.sh [DIRECTORY]      five minutes, 3 GB below DIRECTORY
#
# Needs root, buildah, debootstrap, and what `python -m interop run` needs (docs/interop.md). The base
# images' names stand for Ubuntu 24.04, which is the base of the simulator's endpoint and whose
# Python is 3.12, bootstrapped here; /setup.sh and /wait-for-it.sh return at once, for there is no
# simulator. KEYRING: Ubuntu's archive keys, by default where the package ubuntu-keyring puts them.
set -euo pipefail

cd "$(dirname "$0")/.."
directory=$(realpath "${1:-/var/tmp/quicedge-image}")
keyring=${KEYRING:-/usr/share/keyrings/ubuntu-archive-keyring.gpg}
python=${PYTHON:-python3}
for program in buildah debootstrap; do
    command -v "$program" >/dev/null || { echo "$0: $program is not installed" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "$0: needs root" >&2; exit 1; }
[ -r "$keyring" ] || { echo "$0: no keyring at $keyring: set KEYRING" >&2; exit 1; }

mkdir -p "$directory"
export CONTAINERS_STORAGE_CONF=$directory/storage.conf BUILDAH_ISOLATION=chroot LC_ALL=C
cat >"$directory/storage.conf" <<CONF
[storage]
driver = "vfs"
graphroot = "$directory/graph"
runroot = "$directory/run"
CONF

# What pip needs to know of this machine: its index and the certificates it trusts.
mounts=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
[ ! -e /etc/pip.conf ] || mounts+=(--volume /etc/pip.conf:/etc/pip.conf:ro)

stand_in() { # NAME PROGRAM: Ubuntu under another name, changed by a shell program
    local container
    container=$(buildah from --pull-never ubuntu-stand-in)
    buildah run "$container" -- sh -ec "$2"
    buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah commit --quiet --rm "$container" "$1"
}

if ! buildah inspect --type image ubuntu-stand-in >/dev/null 2>&1; then
    script=/usr/share/debootstrap/scripts/noble
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/gutsy # all of Ubuntu's are this one
    debootstrap --variant=minbase --components=main,universe --keyring="$keyring" \
        --include=ca-certificates,iproute2,ethtool \
        noble "$directory/noble" http://archive.ubuntu.com/ubuntu "$script"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$directory/noble" /
    buildah commit --quiet --rm "$container" ubuntu-stand-in
    rm -rf "$directory/noble"
    stand_in docker.io/martenseemann/quic-network-simulator-endpoint:latest '
        for name in setup wait-for-it; do
            printf "#!/bin/sh\n" >/$name.sh
            chmod +x /$name.sh
        done'
    stand_in docker.io/library/python:3.12-slim '
        apt-get update && apt-get install -y --no-install-recommends python3 python3-venv
        ln -s /usr/bin/python3 /usr/local/bin/python'
fi

buildah bud --pull-never "${mounts[@]}" -f interop/Dockerfile -t quicedge-interop .
buildah bud --pull-never "${mounts[@]}" -f deploy/Dockerfile -t quicedge .

container=$(buildah from --pull-never quicedge)
buildah run "$container" -- /opt/quicedge/bin/quicedge --version
buildah rm "$container" >/dev/null

container=$(buildah from --pull-never quicedge-interop)
trap 'buildah rm "$container" >/dev/null' EXIT
root=$(buildah mount "$container")
said() { buildah inspect --type image --format "$1" quicedge-interop; }
workdir=$(said '{{.OCIv1.Config.WorkingDir}}')
entrypoint=$(said '{{index .OCIv1.Config.Entrypoint 0}}')
variables=$(said '{{range .OCIv1.Config.Env}}{{.}} {{end}}')
peer="$PWD/interop/peers/image.sh $root $workdir $entrypoint $variables"
cases=(-t handshake -t transfer -t retry -t zerortt -t http3 -t v2 -t ipv6)
# The harness itself wants exit code 127 for a case that does not exist, before anything else.
"$python" -m interop run -o "$directory/server" --peer image="$peer" "${cases[@]}" --server image --client aioquic
"$python" -m interop run -o "$directory/client" --peer image="$peer" "${cases[@]}" --client image --server aioquic
