#!/bin/bash
# Does the simulation of bench/scale_sim.c keep its word?  On worlds that are
# small enough to be computed by hand.  Prints "N passed, N failed, N skipped"
# as its last line.
cd "$(dirname "$0")/.." || exit 1
sim=${BUILD:-build}/scale_sim
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

check() # sentence command...
{
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        return
    fi
    failed=$((failed + 1))
    echo "FAIL $name"
}

# Does an awk expression hold in every row, and is there one?  c: its columns.
rows() # expression options...
{
    local holds=$1
    shift
    "$sim" --json "$@" | sed -n 's/^{\("[^[}]*\)}.*/\1/p' | tr -d '"' |
        awk -F , '{ for (i = 1; i <= NF; i++) {
                        split($i, kv, ":")
                        c[kv[1]] = kv[2]
                    }
                    if (!('"$holds"')) { print; bad = 1 } }
                  END { exit bad || NR == 0 }'
}

value() # column options...
{
    local column=$1
    shift
    "$sim" --json "$@" | tr ',}' '\n\n' | sed -n "s|^\"$column\":||p"
}

holds() # awk expression
{
    awk "BEGIN { exit !($1) }"
}

ratio() # of two numbers, and how near to 2
{
    holds "$1 > 0 && $2 / $1 > 2 - $3 && $2 / $1 < 2 + $3"
}

small=(--players 20000 --seconds 0.3)
"$sim" "${small[@]}" --seed 7 >"$work/a"
"$sim" "${small[@]}" --seed 7 >"$work/b"
"$sim" "${small[@]}" --seed 8 >"$work/c"
check 'something is said' test -s "$work/a"
check 'the same seed gives the same bytes' cmp -s "$work/a" "$work/b"
check 'another seed gives others' eval '! cmp -s "$work/a" "$work/c"'

for table in rooms hot; do
    check "$table: as many deliveries as messages times members" \
        rows 'c["delivered"] == c["expected"] &&
              (c["delivered"] > 0 || c["profile"] == "crowd")' \
        --table $table "${small[@]}"
    check "$table: what is above 100 % is told" \
        rows '(c["worst_percent"] > 100) == (c["above"] > 0) &&
              c["stuck"] <= c["above"] && c["busiest_percent"] <= 100 &&
              (c["stuck"] > 0) == (c["worst_p99"] == "null")' \
        --table $table "${small[@]}"
done
check 'a loop that is asked for too much is above and stuck' \
    rows 'c["above"] == 1 && c["stuck"] == 1 && c["busiest_percent"] == 100' \
    --table rooms --players 100000 --loops 1 --profile game
check 'a loop that is not is neither' \
    rows 'c["above"] == 0 && c["stuck"] == 0 && c["busiest_percent"] < 50' \
    --table rooms --players 400 --loops 1 --profile game --room 4
check 'a turn that is long is not yet one too many' \
    rows 'c["above"] == 0 && c["stuck"] == 0 && c["p99_ms"] > 60' \
    --table rooms --players 100000 --loops 8 --profile crowd --room 10000
check 'the choice of two loops is fairer than one' \
    rows 'c["of_two"] < c["imbalance"]' \
    --table rooms --players 50000 --loops 16 --profile crowd --room 100

game=(--table rooms --profile game --room 4 --loops 4 --seconds 1)
for column in mean_percent in/s out/s; do
    check "$column grows as the players do" ratio \
        "$(value $column "${game[@]}" --players 2000)" \
        "$(value $column "${game[@]}" --players 4000)" 0.05
done
check '1,000 players get 30 snapshots a second' \
    rows 'c["out/s"] > 29700 && c["out/s"] < 30300' \
    "${game[@]}" --players 1000
check 'a room of 5 hears each message 5 times' \
    rows 'c["out/s"] - 5 * c["in/s"] <= 5 && 5 * c["in/s"] - c["out/s"] <= 5' \
    --table rooms --profile chat --room 5 --players 1000 --loops 1
check 'load is cost times number: 400 x 20 x 10 us' \
    rows 'c["mean_percent"] == 8.0' --table rooms --profile game --room 4 \
    --players 400 --loops 1 --recv-us 10 --fanout-us 0 --send-us 0
# A wake-up of 5 ms, 10 to receive, 20 to send; 0.1 a second do not queue.
check 'a lone message waits for its own work' \
    rows 'c["p50_ms"] >= 35 && c["p50_ms"] < 35.4' --table rooms --profile \
    chat --room 1 --players 1 --loops 1 --rate 0.1 --seconds 60 \
    --turn-us 5000 --recv-us 10000 --send-us 20000

storm=(--table storm --players 100000 --loops 8)
check 'after a storm all are back, and no loop did more than it can' \
    rows 'c["all_s"] > 0 && c["peak_percent"] <= 100 &&
          c["p99_storm"] >= c["p99_quiet"]' "${storm[@]}"
check 'nobody is let in above the rate and its burst' \
    rows 'c["accept/s"] == "off" ||
          c["all_s"] >= c["to_each"] / c["accept/s"] - 1.01' "${storm[@]}"
check 'without a rate nobody is refused' \
    rows 'c["accept/s"] != "off" || c["refused"] == 0' "${storm[@]}"
"$sim" "${small[@]}" --json >"$work/json"
if command -v python3 >/dev/null; then
    check 'the object is JSON' python3 -c \
        'import json, sys; json.load(sys.stdin)["hot"][0]["p50_ms"]' \
        <"$work/json" 2>"$work/said"
else
    echo 'SKIP the object is JSON: there is no python3'
    skipped=1
fi
"$sim" --fanout-us -1 2>"$work/said"
check 'a wrong option ends with 2' test $? = 2

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
