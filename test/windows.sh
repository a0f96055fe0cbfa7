#!/bin/bash
# rtnet for Windows: cross built by mingw-w64 as a host would, and its tests
# under Wine, each program one process.  Usage:
#   bash test/windows.sh [NAME...]       test_NAME and no others
# No words of a program go to a pipe: what Wine starts in the background would
# hold it open.  Prints "N passed, N failed, N skipped" as its last line.
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}/windows
cc=x86_64-w64-mingw32-gcc
library=(rtnet ws session group ratelimit tls)
five=(rtnet.c ws.c session.c group.c ratelimit.c) # do, without TLS
# What is beside test_windows: the rest wants more of POSIX than there is.
tests=(windows ws ratelimit histogram core lifetime limits metrics api
       regressions threads conformance resume)
[ $# -eq 0 ] || tests=("$@")
strict=(-Wall -Wextra -pedantic -Wshadow -Wconversion -Wstrict-prototypes
        -Wmissing-prototypes -Werror)
passed=0 failed=0 skipped=0
wine=$(command -v wine64 || echo /usr/lib/wine/wine64)
server=$(command -v wineserver64 || echo /usr/lib/wine/wineserver64)
work=$(mktemp -d)
export WINEPREFIX=$work/wine WINEDEBUG=-all

clean()
{
    [ ! -d "$WINEPREFIX" ] || "$server" -k >/dev/null 2>&1
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

# A case passes when its command succeeds and says nothing.
check() # name command...
{
    local name=$1
    shift
    if "$@" >"$work/said" 2>&1 </dev/null && [ ! -s "$work/said" ]; then
        passed=$((passed + 1))
        return 0
    fi
    failed=$((failed + 1))
    echo "FAIL $name"
    head -n 40 "$work/said" | sed 's/^/    /'
    return 1
}

have() # command package
{
    command -v "$1" >/dev/null 2>&1 && return 0
    skipped=$((skipped + 1))
    echo "SKIP windows: there is no $2, run test/install-deps.sh"
    return 1
}

# ---- what leaks into an includer --------------------------------------------

# Headers of the compiler alone: nothing that rtnet.h says is a name of a libc.
freestanding() # compiler
{
    printf '#include "rtnet.h"\nint used(void) { return RT_EGONE; }\n' |
        "$1" -std=c99 -Wall -Wextra -pedantic-errors -ffreestanding -nostdinc \
            -isystem "$("$1" -print-file-name=include)" -I. -x c \
            -fsyntax-only -
}

# The only macros that it adds to those of its two includes are its own.
macros() # compiler
{
    printf '#include <stddef.h>\n#include <stdint.h>\n' |
        "$1" -E -dM -x c - | sort >"$work/without"
    printf '#include "rtnet.h"\n' | "$1" -I. -E -dM -x c - | sort |
        comm -13 "$work/without" - | grep -v '^#define RT_\|^#define RTNET_H'
    return 0
}

# ---- building ---------------------------------------------------------------

# As little as can be said, and as strict as can be.
hosts()
{
    local file
    for file in "${library[@]/%/.c}"; do
        check "mingw, c99: $file" "$cc" -std=c99 -O2 "${strict[@]}" -c "$file" \
            -o "$work/c99.o"
        check "mingw, c11: $file" "$cc" -std=c11 "${strict[@]}" -c "$file" \
            -o "$work/c11.o"
    done
    for file in echo chat arena; do
        check "mingw, no flags: $file" "$cc" -I. "examples/$file.c" \
            "${five[@]}" -lws2_32 -o "$work/$file.exe"
    done
    check 'nothing but the libraries of the system' foreign_dlls
}

foreign_dlls()
{
    x86_64-w64-mingw32-objdump -p "$work/chat.exe" |
        sed -n 's/^.*DLL Name: //p' |
        grep -v -i -x 'kernel32.dll\|msvcrt.dll\|advapi32.dll\|ws2_32.dll'
    return 0
}

compile() # arguments...
{
    "$cc-posix" -std=c99 -Wall -Wextra -O1 -g -I. "$@"
}

# Both threads and the clock are winpthreads' here; the library needs neither.
objects()
{
    local name
    mkdir -p "$build"
    for name in "${library[@]}"; do
        compile -c "$name.c" -o "$build/$name.o" || return
    done
    for name in chat arena; do
        compile "-Dmain=${name}_main" -c "examples/$name.c" \
            -o "$build/$name.o" || return
    done
}

program() # name
{
    local source=test/test_$1.c parts=("${library[@]}")
    if [ "$1" = windows ]; then
        source=test/windows/test_windows.c
        parts+=(chat arena)
    fi
    parts=("${parts[@]/#/$build/}")
    compile -Wno-unused-variable -include test/windows/lacks.h \
        -Itest/windows -Itest "$source" "${parts[@]/%/.o}" \
        -o "$build/test_$1.exe" -static -lws2_32 -lpthread
}

# ---- running ----------------------------------------------------------------

# All of Wine that stays in the background is started here.
prefix()
{
    timeout -k 5 120 "$wine" wineboot -i </dev/null >"$work/boot" 2>&1
    "$server" -p60 >/dev/null 2>&1
    [ -d "$WINEPREFIX/drive_c/windows" ]
}

run() # name
{
    timeout -k 5 400 "$wine" "$build/test_$1.exe" </dev/null \
        >"$work/$1.out" 2>&1
}

sum='s/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p'
count() # name
{
    tr -d '\r' <"$work/$1.out" | tail -n 1 | sed -n "$sum"
}

# Deadlines are hard to keep beside others, under Wine: what failed is tried
# once more, alone, and what is said then counts.
tell() # name
{
    local name=$1
    case $(count "$name") in
    *' 0 '*) ;;
    *)
        echo "test_$name failed, or did not come to its end: once more"
        grep -a '^FAIL' "$work/$name.out" | tr -d '\r'
        run "$name"
        ;;
    esac
    echo "== test_$name"
    tr -d '\r' <"$work/$name.out" | tail -n 40 | cut -c 1-200
    # shellcheck disable=SC2046 # three numbers
    set -- $(count "$name")
    [ $# -eq 3 ] || echo "FAIL test_$name: it did not come to its end"
    passed=$((passed + ${1:-0}))
    failed=$((failed + ${2:-1}))
    skipped=$((skipped + ${3:-0}))
}

# Two at a time: they wait for each other's wake-ups more than they work.
run_all()
{
    local name built=()
    check 'a place for Wine' prefix || return
    for name in "${tests[@]}"; do
        check "mingw: test_$name" program "$name" && built+=("$name")
    done
    for name in "${built[@]}"; do
        run "$name" &
        [ "$(jobs -pr | wc -l)" -lt 2 ] || wait -n
    done
    wait
    for name in "${built[@]}"; do
        tell "$name"
    done
}

# ---- all --------------------------------------------------------------------

for compiler in gcc clang "$cc"; do
    command -v "$compiler" >/dev/null 2>&1 || continue
    check "$compiler: rtnet.h defines its own names" macros "$compiler"
    [ "$compiler" != "$cc" ] || continue # its own headers need the libc
    check "$compiler: rtnet.h needs no libc" freestanding "$compiler"
done
if have "$cc-posix" mingw-w64; then
    hosts
    check 'mingw: the library and the examples' objects &&
        have "$wine" wine64 && run_all
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
