#!/bin/sh
# Runs each command given (one argument each), shows what it says and prints,
# last, the sum of their last lines "N passed, N failed, N skipped".  One that
# ends badly, or without such a line, counts as a failure.
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for command in "$@"; do
    echo "== $command"
    { sh -c "$command" 2>&1; echo "status $?"; } | tee "$log" |
        grep -v '^status [0-9]*$'
    status=$(sed -n '$s/^status //p' "$log")
    sum=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' \
        "$log" | tail -n 1)
    set -- $sum
    passed=$((passed + ${1:-0}))
    failed=$((failed + ${2:-1}))
    skipped=$((skipped + ${3:-0}))
    if [ "$status" != 0 ] && [ "${2:-1}" = 0 ]; then
        echo "FAIL $command: ended with status $status"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
