#!/bin/bash
# Measures what operations cost and prints it as options of scale_sim:
#   bench/costs.sh >build/costs && build/scale_sim $(cat build/costs)
# With names, only these parts: messages doors memory crossing broker.
# What was run, and the values of which the median counts, is told on stderr.
# One processor for the server, the next one for the load; RUNS=5, DURATION=2.
cd "$(dirname "$0")/.." || exit 1
runs=${RUNS:-5} duration=${DURATION:-2} build=${BUILD:-build}
work=$(mktemp -d) server= load=
ticks=$(getconf CLK_TCK)
trap 'kill $server $load 2>/dev/null; rm -rf "$work"' EXIT

die()
{
    echo "costs.sh: $*" >&2
    exit 1
}

median() # numbers, one a line
{
    sort -g | awk '{ v[NR] = $1 }
        END { print (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2 }'
}

# Runs a command so often, which prints one number; the median.
often() # command...
{
    local i said=
    for ((i = 0; i < runs; i++)); do
        said+="$("$@") " || exit 1
    done
    echo "# $*: $said" >&2
    tr ' ' '\n' <<<"$said" | grep . | median
}

calc() # expression
{
    awk "BEGIN { printf \"%.3f\n\", ($1) }"
}

say() # option value
{
    echo "--$1 $2"
}

serve() # server with its options: sets server, port
{
    taskset -c 0 "$build"/$1 --port 0 >"$work/port" &
    server=$!
    until grep -q listening "$work/port"; do
        kill -0 $server || die "$1 does not start"
        sleep 0.05
    done
    port=$(sed 's/.* //' "$work/port")
}

stop()
{
    kill $server
    wait $server
    server=
}

cpu() # pid: ticks
{
    sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

# us of the server's processor for each message that rtload received.
each() # "server" "rtload's options"
{
    local before received
    serve "$1"
    before=$(cpu $server)
    taskset -c 1 "$build"/rtload "ws://127.0.0.1:$port/" --quiet --json \
        --duration "$duration" --warmup 0.5 $2 >"$work/json" || die "rtload $2"
    received=$(grep -o '"received": *[0-9]*' "$work/json" | tr -dc 0-9)
    calc "($(cpu $server) - $before) * 1e6 / $ticks / $received"
    stop
}

# ---- parts ------------------------------------------------------------------

# Which part of an echo is its send: what lies below it in a profile.
send_part()
{
    serve echo_server
    taskset -c 1 "$build"/rtload "ws://127.0.0.1:$port/" --quiet \
        --connections 100 --duration 3 >/dev/null &
    load=$!
    sleep 1.5
    perf record -q -g -e cpu-clock -F 2000 -p $server -o "$work/perf" \
        -- sleep 2 >/dev/null 2>&1
    wait $load
    load=
    stop
    perf report -i "$work/perf" --children -g none 2>/dev/null |
        awk '/ _*send(to)?$/ && $1 + 0 > most { most = $1 + 0 }
             END { print most / 100 }'
}

messages()
{
    local echo fanout ten part=0.77
    echo=$(often each echo_server "--connections 100")
    fanout=$(often each fanout_server "--scenario fanout --connections 1000")
    ten=$(often each fanout_server \
        "--scenario fanout --connections 1000 --depth 10")
    # Two differences of large numbers that drift would be no measurement.
    command -v perf >/dev/null && part=$(often send_part)
    say recv-us "$(calc "$echo * (1 - $part)")"
    say send-us "$(calc "$echo * $part")"
    say fanout-us "$fanout"
    # Ten messages are one write and nine more.
    say more-us "$(calc "(10 * $ten - $fanout) / 9")"
}

# Of build/storm: the server's processor time by least squares; the last column
# is the median of the runs.
storm_line() # words
{
    awk "/^ *$1, us/ { print \$NF }" "$work/storm"
}

doors()
{
    say handshake-us \
        "$(often each echo_server "--scenario storm --connections 50")"
    "$build"/storm --clients 5000 --quiet 2 --runs 3 --max-ratio 100 \
        >"$work/storm" || die "storm"
    echo "# storm --clients 5000 --quiet 2 --runs 3:" \
        "$(grep 'per \(admitted\|refused\)' "$work/storm" |
            tr -s ' \n' ' ')" >&2
    say resume-us "$(storm_line 'per admitted')"
    say refuse-us "$(storm_line 'per refused')"
}

anonymous() # pid: bytes
{
    awk '/^Anonymous:/ { print $2 * 1024 }' "/proc/$1/smaps_rollup"
}

kernel() # bytes of its objects
{
    awk '/^Slab:/ { print $2 * 1024 }' /proc/meminfo
}

connections=10000

# Bytes of the server, and of the kernel, for each connection.
held() # "server" "rtload's options"
{
    local before slab
    serve "$1"
    before=$(anonymous $server) slab=$(kernel)
    taskset -c 1 "$build"/rtload "ws://127.0.0.1:$port/" --warmup 0 \
        --duration 4 --connections $connections $2 >/dev/null 2>"$work/log" &
    load=$!
    until grep -q 'are alive\|so far' "$work/log"; do
        kill -0 $load || die "rtload $2"
        sleep 0.1
    done
    sleep 1
    # Both ends of a connection are here.
    calc "($(anonymous $server) - $before) / $connections"
    calc "($(kernel) - $slab) / 2 / $connections" >"$work/kernel"
    wait $load || die "rtload $2"
    load=
    stop
}

held_kernel()
{
    held echo_server "--scenario idle" >/dev/null
    cat "$work/kernel"
}

memory()
{
    local idle group runs=3
    idle=$(often held echo_server "--scenario idle")
    say idle-bytes "$idle"
    group=$(often held fanout_server "--scenario idle")
    say member-bytes "$(calc "$group - $idle")"
    # Two messages a second of each session: some wait for their
    # acknowledgement at any time.
    say ring-bytes "$(often held 'echo_server --resume 15000' \
        "--resume --rate $((2 * connections))")"
    say socket-bytes "$(often held_kernel)"
}

crossing_end() # which number, mode
{
    "$build"/crossing "$2" | cut -d ' ' -f "$1"
}

crossing()
{
    say turn-us "$(often crossing_end 3 post)"
    say post-us "$(often crossing_end 1 post)"
    say posted-us "$(often crossing_end 2 post)"
    say publish-us "$(often crossing_end 1 line)"
    say deliver-us "$(often crossing_end 2 line)"
}

# us of Redis for each PUBLISH, with so many who listen.
redis() # subscribers
{
    local i before n=200000 port=$((20000 + RANDOM % 10000)) listeners=()
    taskset -c 0 redis-server --port $port --bind 127.0.0.1 --save '' \
        --appendonly no --dir "$work" >"$work/redis" &
    server=$!
    until redis-cli -p $port ping >/dev/null 2>&1; do
        kill -0 $server || die "redis-server does not start"
        sleep 0.05
    done
    for ((i = 0; i < $1; i++)); do
        taskset -c 1 redis-cli -p $port subscribe room >/dev/null &
        listeners+=($!)
    done
    sleep 0.3
    before=$(cpu $server)
    taskset -c 1 redis-benchmark -p $port -n $n -P 10 -c 8 -q \
        publish room "$(printf '%064d' 0)" >/dev/null
    calc "($(cpu $server) - $before) * 1e6 / $ticks / $n"
    [ ${#listeners[@]} = 0 ] || kill "${listeners[@]}"
    stop
}

broker()
{
    local none eight
    command -v redis-server >/dev/null || die "broker: there is no redis-server"
    none=$(often redis 0)
    eight=$(often redis 8)
    say broker-in-us "$none"
    say broker-out-us "$(calc "($eight - $none) / 8")"
}

# ---- all --------------------------------------------------------------------

make -s all "$build/crossing" BUILD="$build" || die "make"
[ $# -gt 0 ] || set -- messages doors memory crossing broker
for part in "$@"; do
    case $part in
    messages | doors | memory | crossing | broker) $part ;;
    *) die "what is '$part'?" ;;
    esac
done
