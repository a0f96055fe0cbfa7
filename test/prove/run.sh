#!/bin/bash
# What Frama-C's Eva proves of the pure code, for all inputs up to the sizes
# that are printed: no read or write out of bounds, none of what was not
# initialised, no overflow of signed numbers, no division by 0, no shift too
# far, no wrong use of the libc; and the assertions in the drivers.  (For a
# machine of 64 bits, without SSE2: what is wider is compared with it by
# test_ws.)  Any alarm is a failure; there is no list of allowed ones.
#   run.sh            all
#   run.sh NAME...    those whose names hold one of these
# Prints "N passed, N failed, N skipped" as its last line.
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# Each value that a driver asks for is followed apart (split), and each way
# through the code, up to slevel; the relations between two numbers only where
# they are needed (octagon), as they cost most.
options=(-machdep gcc_x86_64 -eva -eva-slevel 3000 -eva-split-limit 400
         -eva-auto-loop-unroll 256 -eva-split-return full -eva-ilevel 256
         -eva-plevel 300 -eva-no-print -eva-msg-key=-final-states,-progress
         -cpp-extra-args="-I. -Itest/prove -U__SSE2__")

domains() # driver
{
    case $1 in
    prove_retry_draw) echo symbolic-locations,octagon ;;
    *) echo symbolic-locations ;;
    esac
}

# The drivers of a file, each with the comment before it.
drivers() # file
{
    awk '/^\/\*/ { about = "" }
         /^\/\*/, /\*\// { text = $0; gsub(/^ *\/?\*? *| *\*\/$/, "", text)
                           about = about (about ? " " : "") text }
         /^void prove_/ { sub(/\(.*/, "", $2); print $2 "\t" about }' "$1"
}

# Eva ends well and says nothing, and came to the end of the driver.
sound() # file driver
{
    local fewer=()
    # Where ways differ in each of many bytes alone, they need not be apart.
    [ "$2" != prove_key_valid ] ||
        fewer=(-eva-slevel 300 -eva-split-return auto)
    frama-c "${options[@]}" "${fewer[@]}" -eva-domains "$(domains "$2")" -main "$2" "$1" \
        >"$work/said" 2>&1 &&
        grep -aq '^ *0 alarms generated' "$work/said" &&
        grep -aq "done for function $2" "$work/said" &&
        ! grep -aqE 'got status (unknown|invalid)|NON TERMINATING' \
            "$work/said"
}

wanted() # driver names...
{
    local driver=$1 name
    shift
    [ $# -eq 0 ] && return 0
    for name; do
        [[ $driver == *$name* ]] && return 0
    done
    return 1
}

if ! command -v frama-c >/dev/null; then
    echo 'SKIP there is no frama-c: apt-get install frama-c-base'
    echo '0 passed, 0 failed, 1 skipped'
    exit 0
fi
for file in test/prove/*.c; do
    while IFS=$'\t' read -r driver about; do
        wanted "$driver" "$@" || continue
        if sound "$file" "$driver"; then
            passed=$((passed + 1))
            echo "proved $about"
        else
            failed=$((failed + 1))
            echo "FAIL $driver: $about"
            grep -aE -A2 'alarm\]|got status (unk|inv)|rror' "$work/said" |
                head -n 20 | sed 's/^/    /'
        fi
    done < <(drivers "$file")
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
