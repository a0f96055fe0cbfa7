#!/bin/bash
# Sessions over lines that are lossy, narrow, cut and reset: three network
# namespaces of our own, a server in one and clients in the others.
#
#   near (10.77.1.2) ---- server (10.77.1.1, 10.77.2.1) ---- far (10.77.2.2)
#
# Whatever the line does, every reliable message of either end arrives once and
# in order, and what is done to far's line does not stop near.  Prints "N
# passed, N failed, N skipped" as its last line.
cd "$(dirname "$0")/.." || exit 1
courier=${BUILD:-build}/courier
id=rtnet$$
work=$(mktemp -d)
passed=0 failed=0 skipped=0
server_pid=''

# ---- the namespaces ---------------------------------------------------------

clean()
{
    local name
    for name in near server far; do
        # shellcheck disable=SC2046 # a list of numbers
        kill -KILL $(ip netns pids "$id-$name" 2>/dev/null) 2>/dev/null
        ip netns del "$id-$name" 2>/dev/null
    done
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

at() # near|server|far command...
{
    local name=$1
    shift
    ip netns exec "$id-$name" "$@"
}

link() # near|far network
{
    ip -n "$id-server" link add "$1" type veth \
        peer name line netns "$id-$1" &&
        ip -n "$id-server" addr add "10.77.$2.1/24" dev "$1" &&
        ip -n "$id-$1" addr add "10.77.$2.2/24" dev line &&
        ip -n "$id-server" link set "$1" up &&
        ip -n "$id-$1" link set line up
}

# ---- what is done to far's line ---------------------------------------------

# Both ends drop what they are to receive.
lose() # percent
{
    local name
    for name in server far; do
        at "$name" nft -f - <<END || return 1
table inet bad {
    chain in {
        type filter hook input priority 0;
        ip saddr 10.77.2.0/24 numgen random mod 100 < $1 drop
    }
}
END
    done
}

# The server answers far with resets.
reset()
{
    at server nft -f - <<END
table inet bad {
    chain in {
        type filter hook input priority 0;
        ip saddr 10.77.2.0/24 reject with tcp reset
    }
}
END
}

heal()
{
    at server nft delete table inet bad 2>/dev/null
    at far nft delete table inet bad 2>/dev/null
    return 0
}

narrow() # rate
{
    at server tc qdisc replace dev far root tbf rate "$1" burst 4kb \
        latency 300ms &&
        at far tc qdisc replace dev line root tbf rate "$1" burst 4kb \
            latency 300ms
}

widen()
{
    at server tc qdisc del dev far root
    at far tc qdisc del dev line root
}

cut() # seconds
{
    at far ip link set line down
    sleep "$1"
    at far ip link set line up
}

# Also whether this kernel can do to a line what is to be done.
build()
{
    local name
    for name in near server far; do
        ip netns add "$id-$name" || return 1
    done
    link near 1 && link far 2 && lose 1 && heal && narrow 1mbit && widen
}

# ---- the cases --------------------------------------------------------------

fail() # what happened
{
    echo "    $*"
    bad=1
}

begin() # name
{
    name=$1
    bad=0
}

end()
{
    if [ "$bad" = 0 ]; then
        passed=$((passed + 1))
    else
        echo "FAIL $name"
        failed=$((failed + 1))
    fi
}

# A client in the background; its result in $work/WHERE.
run_at() # near|far command...
{
    local where=$1
    shift
    ip netns exec "$id-$where" timeout 60 "$@" >"$work/$where" 2>&1 &
    eval "${where}_pid=$!"
}

go() # near|far network flags...
{
    local where=$1 url=ws://10.77.$2.1:9000/
    shift 2
    run_at "$where" "$courier" client "$url" "$@"
}

value() # near|far|server name
{
    tail -n 1 "$work/$1" | sed -n "s/.*\<$2=\([0-9]*\).*/\1/p"
}

# It has ended well.
done_by() # near|far
{
    local pid=${1}_pid
    wait "${!pid}" || fail "$1: ended with $?"
    echo "$name: $1: $(cat "$work/$1")"
}

least() # near|far|server name number
{
    [ "$(value "$1" "$2")" -ge "$3" ] || fail "$1: $2 is below $3"
}

most() # near|far|server name number
{
    [ "$(value "$1" "$2")" -le "$3" ] || fail "$1: $2 is above $3"
}

# Someone whose line is good is not held up: 50 messages a second, 4 sessions.
near_talks() # seconds
{
    go near 1 --sessions 4 --every-ms 20 --messages $((50 * $1))
}

near_was_well()
{
    done_by near
    most near longest "${RTNET_LONGEST:-400}"
    most near away 0
}

serve()
{
    local i
    ip netns exec "$id-server" "$courier" server 9000 >"$work/server" 2>&1 &
    server_pid=$!
    for i in $(seq 50); do
        grep -q listening "$work/server" && return 0
        sleep 0.1
    done
    return 1
}

a_good_line()
{
    begin 'a good line'
    go far 2 --sessions 20 --messages 500
    done_by far
    most far away 0
    end
}

a_line_that_loses_5_percent()
{
    begin 'a line that loses 5 %'
    lose 5 || fail 'nft does not do it'
    near_talks 3
    go far 2 --sessions 20 --messages 300
    done_by far
    near_was_well
    heal
    end
}

a_narrow_line()
{
    begin 'a narrow line'
    narrow 512kbit || fail 'tc does not do it'
    near_talks 4
    go far 2 --sessions 4 --messages 50 --size 2000
    done_by far
    least far took 2000
    near_was_well
    widen
    end
}

a_line_that_is_cut()
{
    begin 'a line that is cut'
    near_talks 6
    go far 2 --sessions 10 --messages 200 --every-ms 25
    sleep 1
    cut 3
    done_by far
    least far back 10
    near_was_well
    end
}

a_line_that_is_reset()
{
    begin 'a line that is reset again and again'
    go far 2 --sessions 10 --messages 100 --every-ms 25
    for _ in 1 2; do
        sleep 0.7
        reset || fail 'nft does not do it'
        sleep 0.2
        heal
    done
    done_by far
    least far back 10
    end
}

a_bad_line_in_every_way()
{
    begin 'a line that is all of that'
    lose 3 && narrow 1mbit || fail 'the line is too good'
    near_talks 4
    go far 2 --sessions 8 --messages 100 --every-ms 25
    sleep 1
    cut 2
    done_by far
    near_was_well
    heal
    widen
    end
}

# The client of the browsers, in Node.
another_client_on_a_bad_line()
{
    begin 'rtnet.js on a line that is lossy and reset'
    if [ ! -d test/peers/node_modules/ws ]; then
        echo "SKIP $name: no node_modules, run test/install-deps.sh"
        skipped=$((skipped + 1))
        return
    fi
    lose 3 || fail 'nft does not do it'
    run_at far node test/peers/courier.mjs ws://10.77.2.1:9000/ 5 100 25
    for _ in 1 2; do
        sleep 1
        reset || fail 'nft does not do it'
        sleep 0.2
        heal
    done
    done_by far
    least far back 5
    end
}

# No byte tells the server: the line is cut before its kernel could say so.
a_client_that_vanishes()
{
    begin 'a client that vanishes without a word'
    go far 2 --sessions 10 --every-ms 25 --messages 100000
    sleep 1
    at far ip link set line down
    # shellcheck disable=SC2046 # a list of numbers
    kill -KILL $(ip netns pids "$id-far")
    wait "$far_pid" 2>/dev/null
    sleep 4
    kill -USR1 "$server_pid"
    sleep 0.3
    tail -n 1 "$work/server"
    most server connections 0
    least server sessions_away 10
    at far ip link set line up
    end
}

the_server_agrees()
{
    begin 'the server got each message once and in order, too'
    kill -TERM "$server_pid"
    wait "$server_pid" || fail "server: ended with $?"
    server_pid=''
    tail -n 1 "$work/server"
    least server away 20
    end
}

if ! build 2>"$work/why"; then
    sed 's/^/    /' "$work/why"
    echo 'SKIP namespaces: no network namespaces here'
    echo '0 passed, 0 failed, 1 skipped'
    exit 0
fi
if serve; then
    a_good_line
    a_line_that_loses_5_percent
    a_narrow_line
    a_line_that_is_cut
    a_line_that_is_reset
    a_bad_line_in_every_way
    another_client_on_a_bad_line
    a_client_that_vanishes
    the_server_agrees
else
    echo 'FAIL namespaces: the server does not start'
    failed=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
