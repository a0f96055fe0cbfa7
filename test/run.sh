#!/bin/sh
# Runs each command given (one argument each), shows what it says and prints,
# last, the sum of their last lines "N passed, N failed, N skipped".  One that
# ends badly, or without such a line, counts as a failure.  With JOBS=2, so many
# run at a time, and what each says is shown when it has ended.  With
# RESULTS=file the last words of each are added to it, for test/report.py.
passed=0 failed=0 skipped=0 started=0 ended=0
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# What it says, and its status as the last line.
say() # command
{
    sh -c "$1" 2>&1
    echo "status $?"
}

start() # command
{
    started=$((started + 1))
    printf '%s\n' "$1" >"$logs/$started.command"
    if [ "${JOBS:-1}" = 1 ]; then
        echo "== $1"
        say "$1" | tee "$logs/$started" | grep -v '^status [0-9]*$'
        return
    fi
    say "$1" >"$logs/$started" &
    echo $! >"$logs/$started.pid"
}

# The oldest of those that run, or the one that has just run.
end()
{
    ended=$((ended + 1))
    command=$(cat "$logs/$ended.command")
    if [ -e "$logs/$ended.pid" ]; then
        wait "$(cat "$logs/$ended.pid")"
        echo "== $command"
        grep -v '^status [0-9]*$' "$logs/$ended"
    fi
    status=$(sed -n '$s/^status //p' "$logs/$ended")
    if [ -n "${RESULTS:-}" ]; then
        { echo "== $command"; grep -v '^== ' "$logs/$ended" | tail -n 6; } \
            >>"$RESULTS"
    fi
    sum=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' \
        "$logs/$ended" | tail -n 1)
    set -- $sum
    passed=$((passed + ${1:-0}))
    failed=$((failed + ${2:-1}))
    skipped=$((skipped + ${3:-0}))
    if [ "$status" != 0 ] && [ "${2:-1}" = 0 ]; then
        echo "FAIL $command: ended with status $status"
        failed=$((failed + 1))
    fi
}

for command in "$@"; do
    start "$command"
    [ $((started - ended)) -lt "${JOBS:-1}" ] || end
done
while [ "$ended" -lt "$started" ]; do
    end
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
