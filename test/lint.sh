#!/bin/bash
# What can be said about the sources without running them: form, warnings of
# two compilers in C99, C11 and C++17, two static analysers, the symbols of the
# objects, the comments of the header, the programs in the texts.
# Prints "N passed, N failed, N skipped" as its last line.
cd "$(dirname "$0")/.." || exit 1
shopt -s nullglob
library=(*.c)
headers=(*.h)
programs=(bench/*.c examples/*.c test/*.c test/peers/*.c test/builds/*.c)
every=("${library[@]}" "${headers[@]}" "${programs[@]}" bench/*.h examples/*.h
       test/*.h test/windows/*.[ch] test/prove/*.[ch] examples/*.[ch]pp
       test/builds/*.cpp)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

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

have() # tool name: else a skip
{
    command -v "$1" >/dev/null 2>&1 && return 0
    skipped=$((skipped + 1))
    echo "SKIP $2: there is no $1, run test/install-deps.sh"
    return 1
}

# ---- form -------------------------------------------------------------------

long_lines()
{
    LC_ALL=C.UTF-8 awk 'length > 80 { print FILENAME ":" FNR }
                        /\t| $/ { print FILENAME ":" FNR ": blank" }' "$1"
}

long_functions()
{
    awk '/^{/ { from = FNR }
         /^}/ && from && FNR - from > 60 {
             print FILENAME ":" from ": " FNR - from " lines"
         }
         /^}/ { from = 0 }' "$1"
}

form()
{
    local file
    for file in "${library[@]}"; do
        check "no function above 60 lines: $file" long_functions "$file"
    done
    for file in "${every[@]}"; do
        check "no long line, tab or blank end: $file" long_lines "$file"
    done
    have clang-format 'form' || return
    for file in "${every[@]}"; do
        check "clang-format: $file" \
            clang-format --dry-run -Werror --style=file "$file"
    done
}

# ---- compilers --------------------------------------------------------------

warnings=(-Wall -Wextra -pedantic -Wconversion -Wshadow -Werror)
strict=("${warnings[@]}" -Wstrict-prototypes -Wmissing-prototypes)

compile_library() # compiler
{
    local file
    for file in "${library[@]}"; do
        # Optimised once: some warnings need the flow of data.
        check "$1 -std=c99 -O2: $file" \
            "$1" -std=c99 -O2 "${strict[@]}" -c -o "$work/warn.o" "$file"
        check "$1 -std=c11: $file" \
            "$1" -std=c11 "${strict[@]}" -fsyntax-only "$file"
        check "$1 without flags: $file" \
            "$1" -c -o "$work/$1-${file%.c}.o" "$file"
    done
}

has_header() # compiler header
{
    "$1" -E -include "$2" -x c /dev/null >/dev/null 2>&1
}

# The header of a library that the program needs and that is not there.
lacks() # compiler file
{
    if grep -q '<hiredis/' "$2" && ! has_header "$1" hiredis/async.h; then
        echo 'no hiredis'
    elif grep -q 'tls_certs.h\|<mbedtls/' "$2" &&
        ! has_header "$1" mbedtls/ssl.h; then
        echo 'no mbedTLS'
    fi
}

compile_programs() # compiler
{
    local file what
    for file in "${programs[@]}"; do
        what=$(lacks "$1" "$file")
        if [ -n "$what" ]; then
            skipped=$((skipped + 1))
            echo "SKIP $1: $file: $what, run test/install-deps.sh"
            continue
        fi
        check "$1: $file" "$1" -std=c99 "${warnings[@]}" -I. -Itest -Ibench \
            -fsyntax-only "$file"
    done
}

# C++ knows neither C's implicit pointer casts nor its compound literals, so
# the sources have to do without the former; the header has to be spotless.
compile_cpp() # compiler
{
    local file
    for file in "${library[@]}"; do
        check "$1 -std=c++17: $file" \
            "$1" -x c++ -std=c++17 -fsyntax-only "$file"
    done
    printf '#include "rtnet.h"\nint main() { return rt_latest(1) == 0; }\n' \
        >"$work/includer.cpp"
    check "$1 -std=c++17: rtnet.h" \
        "$1" -std=c++17 "${warnings[@]}" -I. -fsyntax-only \
        "$work/includer.cpp"
    printf '#include "rtnet.h"\nint rt_user_file = rt_version() != 0;\n' \
        >"$work/second.cpp"
    check "$1 -std=c++17: rtnet.h in two files" \
        "$1" -std=c++17 -I. -r -nostdlib -o "$work/both.o" \
        "$work/includer.cpp" "$work/second.cpp"
}

# ---- analysers --------------------------------------------------------------

# Left out of bugprone-*, clang-analyzer-* and cert-*, each for its reason:
tidy_checks='-*,bugprone-*,clang-analyzer-*,cert-*'
# (data, len) and (loop, session) stand side by side in the whole interface.
tidy_checks+=',-bugprone-easily-swappable-parameters'
# rt__name is reserved in C++ alone, _GNU_SOURCE is there to be defined.
tidy_checks+=',-bugprone-reserved-identifier,-cert-dcl37-c,-cert-dcl51-cpp'
# Asks for memcpy_s of C11's annex K, which no libc here has.
tidy_checks+=',-clang-analyzer-security.insecureAPI'
tidy_checks+='.DeprecatedOrUnsafeBufferHandling'
# Wants each snprintf's answer used: a text that is cut is still a text.  What
# must not be ignored in the libc is left to bugprone-unused-return-value.
tidy_checks+=',-cert-err33-c'
# Takes the size of a pointer for a mistake; arrays of pointers grow by it.
tidy_checks+=',-bugprone-sizeof-expression'
# -Wconversion says the same, and is satisfied by the casts that this is not.
tidy_checks+=',-bugprone-narrowing-conversions'

# They do not see what always holds (a queue has a place, one who can resume
# has what is under way), so all they name is false; the sanitizers watch that.
tidy_checks+=',-clang-analyzer-core.NullDereference'
tidy_checks+=',-clang-analyzer-core.NonNullParamChecker'

# clang-tidy counts the warnings of system headers on stderr.
tidy() # file
{
    clang-tidy --quiet --checks="$tidy_checks" --warnings-as-errors='*' \
        "$1" -- -std=c99 2>"$work/tidy" && return 0
    grep -v 'warnings generated' "$work/tidy"
    return 1
}

# The system's headers are left out: cppcheck knows the libc by itself.  It
# takes the hook named realloc for the function; leaks are the sanitizer's.
cpp_check() # file
{
    cppcheck --quiet --std=c99 --enable=warning,performance,portability \
        --suppress=missingIncludeSystem --suppress=memleak \
        --error-exitcode=1 \
        -D__linux__ -U_WIN32 -U__APPLE__ -U__FreeBSD__ --max-configs=1 "$1"
}

# gcc's own, path by path.  Of a pointer that is NULL on one path it takes the
# test of it, somewhere, for a hint that it may be so here: as with clang, all
# that it names is where there always is one (a live handle's slot, what a
# session has by its tag); the sanitizers watch that.
gcc_analyse() # file
{
    gcc -std=c99 -O2 -fanalyzer -Wno-analyzer-null-dereference -Werror \
        -c -o "$work/analysed.o" "$1"
}

analyse()
{
    local file
    if have gcc 'gcc -fanalyzer'; then
        for file in "${library[@]}"; do
            check "gcc -fanalyzer: $file" gcc_analyse "$file"
        done
    fi
    if have clang-tidy 'clang-tidy'; then
        for file in "${library[@]}"; do
            check "clang-tidy: $file" tidy "$file"
        done
    fi
    if have cppcheck 'cppcheck'; then
        for file in "${library[@]}"; do
            check "cppcheck: $file" cpp_check "$file"
        done
    fi
}

# ---- the objects ------------------------------------------------------------

foreign_symbols()
{
    nm -g --defined-only "$1" | awk '$3 !~ /^rt_/ { print $3 }'
}

writable_symbols()
{
    nm --defined-only "$1" | awk '$2 ~ /^[bBdDcCsSgG]$/ { print $2, $3 }'
}

# The process is the host's: no exit, signal, environment, stdout or locale.
process_symbols()
{
    nm -u "$1" | awk '{ print $NF }' | sed 's/@.*//' |
        grep -E -x '_?_?(abort|exit|_exit|_Exit|atexit|assert_fail|printf|'`
        `'printf_chk|vprintf|puts|putchar|stdout|stderr|perror|signal|'`
        `'sigaction|raise|kill|getenv|setenv|putenv|setlocale|rand|srand|'`
        `'random|strtok|localtime|gmtime|system|fork|pthread_.*)'
    return 0
}

objects() # compiler
{
    local file object
    for file in "${library[@]}"; do
        object=$work/$1-${file%.c}.o
        [ -e "$object" ] || continue # told already
        check "$1: only rt_ is global: $file" foreign_symbols "$object"
        check "$1: nothing writable: $file" writable_symbols "$object"
        check "$1: no effect on the process: $file" process_symbols "$object"
    done
}

# ---- with TLS ---------------------------------------------------------------

tls_tidy()
{
    clang-tidy --quiet --checks="$tidy_checks" --warnings-as-errors='*' \
        tls.c -- -std=c99 -DRT_TLS_MBEDTLS 2>"$work/tidy" && return 0
    grep -v 'warnings generated' "$work/tidy"
    return 1
}

# What is nothing in the other checks.
secured()
{
    local file compiler object=$work/tls.o
    if ! has_header cc mbedtls/ssl.h; then
        skipped=$((skipped + 1))
        echo 'SKIP with TLS: no mbedTLS, run test/install-deps.sh'
        return
    fi
    for compiler in gcc clang; do
        have "$compiler" "$compiler with TLS" || continue
        for file in "${library[@]}"; do
            check "$compiler with TLS: $file" "$compiler" -std=c99 -O2 \
                -DRT_TLS_MBEDTLS "${strict[@]}" -c -o "$object" "$file"
        done
    done
    check 'g++ with TLS: tls.c' \
        g++ -x c++ -std=c++17 -DRT_TLS_MBEDTLS -fsyntax-only tls.c
    check 'gcc -fanalyzer with TLS: tls.c' \
        gcc -std=c99 -O2 -DRT_TLS_MBEDTLS -fanalyzer \
        -Wno-analyzer-null-dereference -Werror -c -o "$object" tls.c
    check 'with TLS, only rt_ is global' foreign_symbols "$object"
    check 'with TLS, nothing writable' writable_symbols "$object"
    check 'with TLS, no effect on the process' process_symbols "$object"
    have clang-tidy 'clang-tidy with TLS' && check 'clang-tidy: TLS' tls_tidy
}

# ---- the header and the texts -----------------------------------------------

# A prototype starts in the first column and ends in ");"; the line before it
# ends its comment.
uncommented_prototypes()
{
    awk '/^[a-z].*[ *]rt_[a-z0-9_]+\(/ && !/^(typedef|static|return)/ {
             count++
             if (before !~ /\*\/$/)
                 print "rtnet.h:" FNR ": " $0
         }
         { before = $0 }
         END { if (count < 60) print count " prototypes only: misread?" }
        ' rtnet.h
}

# Between two blank lines stand a declaration and what is said about it.
uncommented_types()
{
    awk 'BEGIN { RS = "" }
         /RTNET_H|#define RT_ERROR_ENUM/ { next }
         /(^|\n)(typedef|enum|struct|#define RT_)/ && !/\/\*/ {
             print "rtnet.h: " $0
         }' rtnet.h
}

# The programs of the header's first comment and of README.md, as files.
programs_in_texts()
{
    awk '/^ \*   #include/ { on = 1 }
         on && !/^ \*   / { exit }
         on { print substr($0, 6) }' rtnet.h >"$work/header.c"
    [ -e README.md ] || return 0
    awk -v to="$work/readme" '
        /^```/ { if (!on && $0 == "```c") { on = 1; n++; next } on = 0 }
        on { print > (to n ".c") }' README.md
}

texts()
{
    local file count=0
    check 'each prototype in rtnet.h has a comment' uncommented_prototypes
    check 'each type in rtnet.h has a comment' uncommented_types
    programs_in_texts
    check 'rtnet.h has a program' grep -q 'int main' "$work/header.c"
    check 'the program in rtnet.h' cc -std=c99 -Wall -Wextra -Werror \
        -Wno-unused-parameter -I. -fsyntax-only "$work/header.c"
    for file in "$work"/readme*.c; do
        grep -q 'int main' "$file" || continue
        count=$((count + 1))
        check "program $count in README.md" cc -std=c99 -Wall -Wextra \
            -Werror -Wno-unused-parameter -I. -fsyntax-only "$file"
    done
    check 'README.md has a program' test "$count" -gt 0
}

# ---- all --------------------------------------------------------------------

check 'there is a library' test "${#library[@]}" -ge 5
form
for compiler in gcc clang; do
    have "$compiler" "$compiler" || continue
    compile_library "$compiler"
    compile_programs "$compiler"
    objects "$compiler"
done
for compiler in g++ clang++; do
    have "$compiler" "$compiler" && compile_cpp "$compiler"
done
analyse
secured
texts
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
