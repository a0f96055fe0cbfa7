#!/bin/sh
# How large the library is: bytes of each FILE.c at -Os, and their sum; then the
# sum with TLS, where mbedTLS is installed.  Usage:
#   CC=gcc sh test/size.sh FILE.c...
# code is what runs (.text), constants are tables and texts (.rodata), unwinding
# is what a debugger and C++ need to walk through it (.eh_frame; it is not there
# with -fno-asynchronous-unwind-tables).  The text of size(1) is all three.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

row() # name: of size -A, on stdin
{
    awk -v name="$1" '
        /^\.text/ { code += $2 }
        /^\.rodata/ { constants += $2 }
        /^\.eh_frame/ { unwinding += $2 }
        END { printf "%-12s %9d %9d %9d %9d\n", name, code, constants,
                  unwinding, code + constants + unwinding }'
}

compile() # file options...
{
    object=$work/$(basename "$1" .c).o
    ${CC:-cc} -std=c99 -Os -c "$@" -o "$object" || exit 1
}

printf '%-12s %9s %9s %9s %9s\n' file code constants unwinding all
for file in "$@"; do
    compile "$file"
    size -A "$object" | row "$file"
done
size -A "$work"/*.o | row sum

echo '#include <mbedtls/ssl.h>' | ${CC:-cc} -E -x c - >/dev/null 2>&1 || exit 0
for file in "$@"; do
    compile "$file" -DRT_TLS_MBEDTLS
done
size -A "$work"/*.o | row 'TLS=mbedtls'
