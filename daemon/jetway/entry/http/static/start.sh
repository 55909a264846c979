#!/bin/sh
# Says regularly that this service lives. Needs jetway, or the nats command, or nc.
set -eu

subject=@{subject}
interval=@{interval}
urls=@{urls}
host=@{host}
port=@{port}

dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

if command -v jetway >/dev/null 2>&1; then
    exec jetway run --dir "$dir"
fi

beat_by_nats() {
    set -- pub "$subject" ''
    [ ! -f "$dir/nats.creds" ] || set -- --creds "$dir/nats.creds" "$@"
    [ ! -f "$dir/ca.pem" ] || set -- --tlsca "$dir/ca.pem" "$@"
    nats --server "$urls" "$@" >/dev/null 2>&1
}

beat_by_nc() {
    # The pause keeps the connection open until the server's PONG is there: only then was it heard.
    {
        printf 'CONNECT {"verbose":false,"pedantic":false,"tls_required":false,"name":"start.sh"}\r\n'
        printf 'PUB %s 0\r\n\r\nPING\r\n' "$subject"
        sleep 1
    } | nc -w 3 "$host" "$port" 2>/dev/null | grep -q PONG
}

if command -v nats >/dev/null 2>&1; then
    beat=beat_by_nats
elif [ -f "$dir/nats.creds" ] || [ -z "$host" ]; then
    echo "start.sh: install jetway or the nats command: the server asks for credentials or for TLS" >&2
    exit 1
elif command -v nc >/dev/null 2>&1; then
    beat=beat_by_nc
else
    echo "start.sh: install jetway, the nats command or nc" >&2
    exit 1
fi

[ ! -f "$dir/nats.creds" ] || echo "start.sh: nats.creds is not renewed by this script: it ends some day, and then" \
    "nobody hears this service; jetway run renews it" >&2
echo "start.sh: a heartbeat on $subject every $interval s" >&2
silent=
while :; do
    if "$beat"; then
        [ -z "$silent" ] || echo "start.sh: heard again" >&2
        silent=
    else
        [ -n "$silent" ] || echo "start.sh: not heard by $urls; trying on" >&2
        silent=yes
    fi
    sleep "$interval"
done
