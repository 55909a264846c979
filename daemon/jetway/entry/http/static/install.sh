#!/bin/sh
# Joins this host to a Jetway gateway: redeems a one-time token and unpacks what the service needs.
#
#   curl -fsS <gateway>/install.sh | sh -s -- --dir /etc/jetway-edge/<id>
#
# Asks for the token without showing it, or takes it from JETWAY_JOIN_TOKEN or from standard input. The token is
# never on a command line or in a URL, so neither the process list nor a proxy's log has it.
set -eu

gateway=@{gateway}
# The hash of the key of the gateway's own authority; empty where the system's trust decides.
pin=@{pin}

say() { printf 'jetway: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

usage() {
    cat >&2 <<'END'
usage: install.sh --dir DIR
Redeems a Jetway token and unpacks the package into DIR. The token is asked for, or taken from the environment
variable JETWAY_JOIN_TOKEN, or from standard input.
END
}

have() { command -v "$1" >/dev/null 2>&1; }

parse_arguments() {
    dir=
    while [ $# -gt 0 ]; do
        case $1 in
        --dir)
            [ $# -ge 2 ] || { usage; exit 2; }
            dir=$2
            shift 2
            ;;
        --dir=*)
            dir=${1#--dir=}
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage
            exit 2
            ;;
        esac
    done
    [ -n "$dir" ] || { usage; exit 2; }
    # A name that begins with a dash would be taken for an option by what is called below.
    case $dir in
    /*) ;;
    *) dir=./$dir ;;
    esac
}

# Everything that could go wrong here is tried before the token is spent.
prepare() {
    have tar || die "tar is needed"
    have gzip || die "gzip is needed"
    have curl || have wget || die "curl or wget is needed"
    if [ -n "$pin" ]; then
        have curl && have openssl || die "the gateway has an authority of its own: to know it takes curl and openssl"
    fi
    [ ! -e "$dir/service.json" ] || die "$dir already holds a joined service: move it away, or choose another --dir"
    mkdir -p "$dir" || die "cannot create $dir"
    chmod 700 "$dir" || die "cannot make $dir private"
    work=$(mktemp -d "$dir/.join.XXXXXX") || die "cannot write into $dir"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
}

# The root is asked for without trusting whoever answers, and without telling anything. It is trusted if its key
# has the hash, and then it alone; the token goes to a server for which it vouches.
trust_gateway() {
    [ -n "$pin" ] || return 0
    mkdir "$work/trust"
    curl -sSk --max-time 60 -o "$work/shown" "$gateway/api/edge/ca.pem" ||
        die "no answer from $gateway; the token was not sent"
    # Only the first certificate, of whose key the hash is made: curl trusts all that a file holds.
    openssl x509 -in "$work/shown" -out "$work/trust/root.pem" 2>/dev/null || stranger
    openssl x509 -in "$work/trust/root.pem" -noout -pubkey >"$work/key" || stranger
    openssl pkey -pubin -in "$work/key" -outform DER -out "$work/key.der" 2>/dev/null || stranger
    found=$(openssl dgst -sha256 -binary "$work/key.der" | openssl base64 -A | tr '+/' '-_' | tr -d '=')
    [ "sha256:$found" = "$pin" ] || stranger
}

stranger() {
    die "$gateway is not the gateway that this script is from, or somebody is in between; the token was not sent"
}

ask_for_token() {
    ( : </dev/tty ) 2>/dev/null || die "no terminal to ask for the token: set JETWAY_JOIN_TOKEN"
    printf 'Token: ' >/dev/tty
    settings=$(stty -g </dev/tty)
    trap 'stty "$settings" </dev/tty; exit 1' HUP INT TERM
    stty -echo </dev/tty
    IFS= read -r token </dev/tty || :
    stty "$settings" </dev/tty
    trap 'exit 1' HUP INT TERM
    printf '\n' >/dev/tty
}

read_token() {
    token=${JETWAY_JOIN_TOKEN:-}
    unset JETWAY_JOIN_TOKEN
    # With `curl | sh` standard input is this script, read to its end by now: nothing comes, and we ask.
    if [ -z "$token" ] && [ ! -t 0 ]; then
        IFS= read -r token || :
    fi
    [ -n "$token" ] || ask_for_token
    token=$(printf '%s' "$token" | tr -d ' \t\r')
    case $token in
    *[!A-Za-z0-9._-]*) die "this is not a Jetway token: copy it whole" ;;
    jw1.*) ;;
    *) die "this is not a Jetway token: it begins with jw1." ;;
    esac
}

plain() { tr -cd 'A-Za-z0-9._-' | cut -c 1-200; }

write_body() {
    hostname=$(uname -n | plain)
    os=$(uname -s | plain)
    arch=$(uname -m | plain)
    # A here-document: the token is in no argument, whatever shell this is.
    cat >"$work/body" <<END
{"token": "$token", "host": {"hostname": "$hostname", "os": "$os", "arch": "$arch"}}
END
    token=
}

redeem() {
    url=$gateway/api/edge/redeem
    if have curl; then
        set --
        # The folder holds nothing else: many a curl looks into the system's as well, if it is given none.
        [ -z "$pin" ] || set -- --cacert "$work/trust/root.pem" --capath "$work/trust"
        status=$(curl "$@" -sS --max-time 60 -o "$work/answer" -w '%{http_code}' -X POST \
            -H 'Content-Type: application/json' -H 'Accept: application/gzip' \
            --data-binary @- "$url" <"$work/body") || lost
    else
        status=$(by_wget) || lost
    fi
    rm -f "$work/body"
    [ "$status" = 200 ] || die "refused ($status): $(reason)"
}

by_wget() {
    set -- -q -T 60 -O "$work/answer" --header 'Content-Type: application/json' \
        --header 'Accept: application/gzip' --post-file "$work/body"
    # Not every wget can show why it was refused, and not every one has --tries. A second try would find the token
    # spent by the first.
    if wget --help 2>&1 | grep -q -e --content-on-error; then
        set -- --content-on-error --tries=1 --max-redirect=0 "$@"
    fi
    if wget "$@" "$url"; then
        echo 200
    elif [ -s "$work/answer" ]; then
        echo error
    else
        return 1
    fi
}

lost() {
    die "no answer from $gateway; if it was the answer that got lost, the token is spent: ask for a reissue"
}

# The sentence of a problem document, made safe for a terminal.
reason() {
    sentence=$(sed -n 's/.*"detail" *: *"\([^"]*\)".*/\1/p' "$work/answer" 2>/dev/null | tr -d '\000-\037' | cut -c 1-500)
    printf '%s' "${sentence:-no reason was given}"
}

unpack() {
    mkdir "$work/files"
    gzip -dc "$work/answer" | tar -xf - -C "$work/files" || die "the answer is no archive: ask for a reissue"
    [ -f "$work/files/service.json" ] || die "the archive is not whole: ask for a reissue"
    # service.json last: where it stands, everything stands.
    mv "$work/files/service.json" "$work/service.json"
    for file in "$work/files"/*; do
        mv "$file" "$dir/" || die "cannot write into $dir: ask for a reissue"
    done
    mv "$work/service.json" "$dir/service.json"
}

main() {
    umask 077
    parse_arguments "$@"
    prepare
    trust_gateway
    read_token
    write_body
    redeem
    unpack
    say "joined; the files are in $dir"
    say "start it: $dir/start.sh"
    say "$dir/README.txt tells what is what"
}

main "$@"
