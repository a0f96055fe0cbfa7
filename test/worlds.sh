#!/bin/sh
# Random worlds by the hundred thousand, and promise 15 across builds.  Usage:
#   BUILD=build sh test/worlds.sh
# The programs are there: sim in $BUILD/t (gcc), $BUILD/san/t and
# $BUILD/clang/t (sanitizers), $BUILD/kq/t (with kqueue).  A world of at least
# 50 events (upcalls, system calls without waits and looks at the clock, acts
# of peers) is a scenario; there must be 200,000 of them.
build=${BUILD:-build}
least=${LEAST:-200000}
here=$(dirname "$0")
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT

# Says it as a test program does: 0: it passed.
verdict() # status what
{
    if [ "$1" = 0 ]; then
        echo "1 passed, 0 failed, 0 skipped"
    else
        echo "FAIL $2"
        echo "0 passed, 1 failed, 0 skipped"
    fi
}

# The same seeds have the same upcalls, whatever compiler, options, backend
# and size of a pointer.
same_digests()
{
    for sim in "$build/t/sim" "$build/kq/t/sim" "$build/san/t/sim" \
        "$build/clang/t/sim" "$build/m32/t/sim"; do
        [ -e "$sim" ] || continue
        "$sim" --digest "${SEEDS:-60}" >"$log/one" 2>&1
        sed "s|^|$sim: |" "$log/one"
        grep '^digest' "$log/one" | tr '\n' ' ' >>"$log/digests"
        echo >>"$log/digests"
    done
    [ "$(sort -u "$log/digests" | wc -l)" = 1 ]
    verdict $? "builds differ in their upcalls"
}

enough()
{
    awk '/^[0-9]+ worlds, / { n += $3; e += $11 }
         END {
             printf "scenarios of 50 events or more: %d, events: %d\n", n, e
             exit n < '"$least"' }' "$1"
    verdict $? "fewer than $least scenarios"
}

run()
{
    JOBS=2 sh "$here/run.sh" \
        "$build/t/sim --world resume --seeds 50000 --count" \
        "$build/kq/t/sim --world resume --seeds 50000 --from 50001" \
        "$build/t/sim --world group --seeds 50000 --count" \
        "$build/kq/t/sim --world group --seeds 50000 --from 50001" \
        "$build/t/sim --world model --seeds 2500" \
        "$build/san/t/sim --world model --seeds 1000 --from 2501" \
        "BUILD=$build sh $0 digests"
}

case ${1:-all} in
digests) same_digests ;;
enough) enough "$2" ;;
run) run | tee "$2" ;;
all) sh "$here/run.sh" "BUILD=$build sh $0 run $log/all" \
    "sh $0 enough $log/all" ;;
esac
