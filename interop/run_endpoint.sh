#!/bin/bash
# quicedge in the QUIC interop runner: environment in, one command out. The same script serves the
# runner's container and `quicedge interop`, which gives the directories and the port by name.
set -u

# Before anything else: a case that is not listed here is refused (exit code 127).
case "${ROLE:-}.${TESTCASE:-}" in
    *.handshake | *.transfer | *.chacha20 | *.retry | *.resumption | *.zerortt | *.http3) ;;
    *.multiconnect | *.v2 | *.ecn | *.keyupdate | *.connectionmigration | *.versionnegotiation) ;;
    *) exit 127 ;;
esac
case "$ROLE" in server | client) ;; *) exit 127 ;; esac

# The names of the two commands, here and nowhere else.
read -r -a quicedge <<<"${QUICEDGE:-quicedge}"
server=(interop-server)
client=(interop-client)

# Routes, checksum offload and /logs/qlog, by the runner's base image.
if [ -x /setup.sh ]; then /setup.sh; fi

export PORT=${PORT:-443} WWW=${WWW:-/www} DOWNLOADS=${DOWNLOADS:-/downloads} CERTS=${CERTS:-/certs}

if [ "$ROLE" = client ]; then
    if [ -x /wait-for-it.sh ]; then /wait-for-it.sh sim:57832 -s -t 30; fi
    # Word by word: the runner hands over free-form options.
    read -r -a options <<<"${CLIENT_PARAMS:-}"
    exec "${quicedge[@]}" "${client[@]}" "${options[@]}"
fi
read -r -a options <<<"${SERVER_PARAMS:-}"
exec "${quicedge[@]}" "${server[@]}" "${options[@]}"
