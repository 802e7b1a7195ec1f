#!/bin/bash
# ngtcp2's example endpoints on GnuTLS (Debian: ngtcp2-client, ngtcp2-server). HTTP/3 only.
# Its version 2 is a draft of another number (0x709a50c4), so it does not know case v2.
set -u
case "$ROLE.$TESTCASE" in
    *.handshake | *.transfer | *.chacha20 | *.retry | *.resumption | *.zerortt | *.http3) ;;
    *.multiconnect | *.ecn | client.keyupdate | server.connectionmigration) ;;
    server.versionnegotiation) ;;
    *) exit 127 ;;
esac
quiet=(-q --no-quic-dump --no-http-dump)
log=(--qlog-dir "${QLOGDIR:-/logs/qlog/}")
mkdir -p "${QLOGDIR:-/logs/qlog/}"
port=${PORT:-443}
chacha20='NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305'

if [ "$ROLE" = server ]; then
    options=("${quiet[@]}" "${log[@]}" -d "${WWW:-/www}")
    case "$TESTCASE" in
        chacha20) options+=(--ciphers "$chacha20") ;;
        retry) options+=(-V) ;;
        # As for the client below: by default it gives up after ten seconds.
        multiconnect) options+=(--handshake-timeout 60s) ;;
        connectionmigration)
            options+=(--preferred-ipv4-addr 193.167.100.100:4433)
            options+=(--preferred-ipv6-addr '[fd00:cafe:cafe:100::100]:4433')
            ;;
    esac
    exec gtlsserver "${options[@]}" '*' "$port" "${CERTS:-/certs}/priv.key" "${CERTS:-/certs}/cert.pem"
fi

read -r -a urls <<<"$REQUESTS"
[ ${#urls[@]} -gt 0 ] || exit 1
authority=${urls[0]#https://}
authority=${authority%%/*}
host=${authority%%:*}
options=("${quiet[@]}" "${log[@]}" --exit-on-all-streams-close --download "${DOWNLOADS:-/downloads}")

get() {
    gtlsclient "${options[@]}" "$host" "$port" "$@"
}

case "$TESTCASE" in
    chacha20) options+=(--ciphers "$chacha20") ;;
    keyupdate) options+=(--key-update 100ms) ;;
    multiconnect)
        options+=(--handshake-timeout 60s)
        for url in "${urls[@]}"; do get "$url" || exit 1; done
        exit 0
        ;;
    resumption | zerortt)
        state=$(mktemp -d)
        trap 'rm -rf "$state"' EXIT
        options+=(--session-file "$state/session")
        if [ "$TESTCASE" = zerortt ]; then options+=(--tp-file "$state/tp"); else options+=(--disable-early-data); fi
        get "${urls[0]}" || exit 1
        [ -s "$state/session" ] || { echo 'no session ticket' && exit 1; }
        get "${urls[@]:1}" || exit 1
        exit 0
        ;;
esac
get "${urls[@]}"
