#!/bin/bash
# The programs of bench/, for a moment each: every scenario passes against the
# server that is made for it, and is failed by one that is not; each server ends
# well when it is told to.  BUILD: where the programs are; TLS_BUILD: where those
# with TLS are, if there are any.
# Prints "N passed, N failed, N skipped" as its last line.
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build} scheme=ws
work=$(mktemp -d)
passed=0 failed=0
port=0 server=0 program=

judge() # good name file: what it has said
{
    if [ "$1" = 0 ]; then
        passed=$((passed + 1))
        return
    fi
    failed=$((failed + 1))
    echo "FAIL $2"
    head -n 20 "$3" | sed 's/^/    /'
}

# limit does not care how it ends.
stop()
{
    local status
    [ "$server" = 0 ] && return
    kill "$server"
    wait "$server" 2>/dev/null
    status=$?
    server=0
    [ "$status" = 143 ] && [ "$program" = limit ]
    judge $((status && $?)) "$program: ended with $status" "$work/server"
}
trap '[ "$server" = 0 ] || kill "$server"; rm -rf "$work"' EXIT

# Starts a server on any free port.
serve() # program options...
{
    stop
    program=$1
    shift
    "$build/$program" --port 0 "$@" >"$work/server" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        port=$(sed -n 's/^listening on //p' "$work/server")
        [ -z "$port" ] || return 0
        sleep 0.02
    done
    judge 1 "$program $*: does not listen" "$work/server"
}

# Runs rtload against the present server; it must end with status, and what it
# says must have the expression in it.
load() # status expression scenario options...
{
    local status=$1 expression=$2 scenario=$3 got
    shift 3
    timeout 20 "$build/rtload" "$scheme://127.0.0.1:$port/" --quiet --json \
        --duration 0.3 --warmup 0.05 --timeout 2 --scenario "$scenario" "$@" \
        >"$work/said" 2>&1
    got=$?
    [ "$got" = "$status" ] && grep -qE "$expression" "$work/said"
    judge $? "$scenario $*: ends with $got, not $status and $expression" \
        "$work/said"
}

good() # scenario options...
{
    load 0 '"measured": [1-9]' "$@"
}

# ---- what is right ----------------------------------------------------------

serve echo_server --congestion reno
good echo --connections 10 --depth 4
good echo --connections 4 --size 16K --text --rate 400 --processes 2
good sparse --connections 40 --active 3 --processes 2
good storm --connections 10
good storm --connections 10 --processes 2 --rate 400
load 0 '"anonymous_each": [1-9]' idle --connections 200 --pid "$server"
load 0 '"alive": 200,' idle --connections 200 --processes 3

serve echo_server --loops 3
good echo --connections 20 --depth 4

serve echo_server --resume 15000
load 0 '"acks_sent": [1-9]' echo --connections 20 --depth 4 --resume

serve fanout_server --hard-mark 64M --sndbuf 4608
load 0 '"anonymous_each_slow": [1-9][0-9]{4}' slow --connections 40 \
    --slow 10 --size 4K --depth 5 --rcvbuf 2304 --pid "$server"
load 0 '"slow_dropped": 0,' slow --connections 40 --slow 10 --size 4K \
    --depth 5 --rcvbuf 2304
good fanout --connections 20 --senders 3 --depth 5

serve rooms_server
good rooms --connections 30 --room 3
good rooms --connections 40 --rate 2000 --processes 3

serve rooms_server --tick 100 --snapshot 100
load 0 '"snapshots": [1-9]' mixed --connections 20 --processes 2
load 0 '"snapshot_size": 100,' mixed --connections 20 --room 5

serve limit wsecho
good echo --connections 10
good storm --connections 50
load 0 '"errors": 0,' rooms --connections 3 --room 1

# ---- what is right, through TLS ---------------------------------------------

through_tls()
{
    local build=$TLS_BUILD scheme=wss
    local pair=(--cert "$work/cert" --key "$work/key")
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -subj /CN=localhost -keyout "$work/key" -out "$work/cert" 2>/dev/null
    serve echo_server "${pair[@]}"
    good echo --connections 10 --depth 4
    good echo --connections 4 --size 16K --text --rate 100 --processes 2
    good storm --connections 4
    load 0 '"alive": 20,' idle --connections 20
    serve fanout_server "${pair[@]}" --hard-mark 64M --sndbuf 4608
    good fanout --connections 20 --senders 3 --depth 5
    load 0 '"slow_dropped": 0,' slow --connections 20 --slow 5 --size 4K \
        --depth 5 --rcvbuf 2304
    stop
}
[ -z "$TLS_BUILD" ] || through_tls

# ---- what is wrong ----------------------------------------------------------

# A server that returns messages, and has no rooms or snapshots.
serve limit wsecho
load 1 'have not received its message' rooms --connections 8 --room 4
load 1 'have not received its message' fanout --connections 4
load 1 'contents are not those sent' mixed --connections 8
load 1 'does not speak rtnet.1' echo --resume --connections 4 --processes 2

# A server that sends to all, and to too many.
serve limit fanout
load 1 'not the next one|before its message' echo --connections 4
load 1 'nobody here has sent' rooms --connections 8 --room 4

# One that drops whoever lags, which is told, and one with fewer ticks.
serve fanout_server --hard-mark 20000 --sndbuf 4608
load 0 '"slow_dropped": 4,' slow --connections 10 --slow 4 --size 4K \
    --depth 2 --rcvbuf 2304
serve rooms_server
load 1 'contents are not those sent' mixed --connections 8 --room 4
stop
load 1 'Connection refused' echo --processes 2 --connections 2

# A command line that makes no sense.
load 2 'only 3 connections' sparse --connections 3 --active 4
load 2 'make no rooms' rooms --connections 6 --room 4
load 2 'not in this scenario' echo --room 4
load 2 'only 2 rooms' rooms --connections 8 --room 4 --processes 3
load 2 'only one process' fanout --connections 8 --processes 2
load 2 'send' slow --connections 4 --slow 4
load 2 'does not offer' echo --congestion nonsense
load 2 'smaps_rollup' idle --pid 1073741824
load 2 'is not echo' nonsense

stop
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
