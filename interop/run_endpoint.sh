#!/bin/bash
# quicedge in the QUIC interop runner: environment in, one command out. The same script serves the
# runner's container and `python -m interop run`, which names the directories and the port.
set -u

# Before anything else: a case that is not listed here is refused (exit code 127).
case "${ROLE:-}.${TESTCASE:-}" in
    *.handshake | *.transfer | *.chacha20 | *.retry | *.resumption | *.zerortt | *.http3) ;;
    *.multiconnect | *.v2 | *.ecn | *.keyupdate | *.connectionmigration | *.versionnegotiation) ;;
    *) exit 127 ;;
esac
case "$ROLE" in server | client) ;; *) exit 127 ;; esac

# The package `interop` lies around this script; pip does not install it.
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

# Routes, checksum offload and /logs/qlog, by the runner's base image.
if [ -x /setup.sh ]; then /setup.sh; fi

export PORT=${PORT:-443} WWW=${WWW:-/www} DOWNLOADS=${DOWNLOADS:-/downloads} CERTS=${CERTS:-/certs}

params=${SERVER_PARAMS:-}
if [ "$ROLE" = client ]; then
    if [ -x /wait-for-it.sh ]; then /wait-for-it.sh sim:57832 -s -t 30; fi
    params=${CLIENT_PARAMS:-}
fi
# Word by word: the runner hands over free-form options.
read -r -a options <<<"$params"
exec "${PYTHON:-python3}" -m interop "$ROLE" "${options[@]}"
