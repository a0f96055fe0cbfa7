#!/bin/bash
# Other people's builds: the sources in their compilers and languages, the
# header under their warnings, the library through their tools.  Usage:
#   bash test/builds.sh [PART...]
# Prints "N passed, N failed, N skipped" as its last line.  What is built is
# thrown away.
cd "$(dirname "$0")/.." || exit 1
library=(rtnet.c ws.c session.c group.c ratelimit.c)
warnings=(-Wall -Wextra -Werror)
includer_warnings=("${warnings[@]}" -Wpedantic -Wconversion -Wsign-conversion
                   -Wshadow -Wcast-qual -Wundef -Wredundant-decls
                   -Wwrite-strings -Wformat=2)
code_limit=$((96 * 1024)) # bytes, at -Os
work=$(mktemp -d)
passed=0 failed=0 skipped=0
server=0
trap '[ "$server" = 0 ] || kill "$server"; rm -rf "$work"' EXIT

# A case passes when its command does; what it said is shown when it does not.
check() # name command...
{
    local name=$1
    shift
    if "$@" >"$work/said" 2>&1 </dev/null; then
        passed=$((passed + 1))
        return 0
    fi
    failed=$((failed + 1))
    echo "FAIL $name"
    head -n 30 "$work/said" | sed 's/^/    /'
    return 1
}

have() # tool name: else a skip
{
    command -v "$1" >/dev/null 2>&1 && return 0
    skipped=$((skipped + 1))
    echo "SKIP $2: there is no $1, run test/install-deps.sh"
    return 1
}

equal() # got wanted
{
    [ "$1" = "$2" ] || { echo "'$1', not '$2'"; return 1; }
}

said() # wanted command...: its output, within a minute
{
    local wanted=$1
    shift
    equal "$(timeout 60 "$@" 2>&1)" "$wanted"
}

has_mbedtls() # name: else a skip
{
    echo '#include <mbedtls/ssl.h>' | cc -E -x c - >/dev/null 2>&1 && return 0
    skipped=$((skipped + 1))
    echo "SKIP $1: there is no mbedTLS, run test/install-deps.sh"
    return 1
}

version=$(sed -n 's/^.define RT_VERSION_[A-Z]* //p' rtnet.h | paste -sd. -)
soname=librtnet.so.${version%.*}

# ---- the sources, as C and as C++ -------------------------------------------

link_and_run() # compiler: the objects, which are an echo and its client
{
    "$1" "$work"/*.o -o "$work/consumer" && said "$version" "$work/consumer"
}

sources_as() # compiler standard options...
{
    local compiler=$1 standard=$2 file
    shift 2
    rm -f "$work"/*.o
    for file in "${library[@]}" test/builds/consumer.c; do
        check "$compiler -std=$standard: $file" \
            "$compiler" "$@" -std="$standard" "${warnings[@]}" -O1 -I. \
            -c "$file" -o "$work/$(basename "$file" .c).o"
    done
    check "$compiler -std=$standard: an echo" link_and_run "$compiler"
}

sources()
{
    local compiler
    for compiler in gcc clang; do
        have "$compiler" "$compiler" || continue
        sources_as "$compiler" c99
        sources_as "$compiler" c11
    done
    for compiler in g++ clang++; do
        have "$compiler" "$compiler" || continue
        sources_as "$compiler" c++17 -x c++
    done
}

# ---- the header and programs of others --------------------------------------

# Whoever includes it may ask for what they like: all that clang has, even,
# but for hints about the layout and about what older languages lacked.
includer()
{
    local compiler standard everything=(-Weverything -Werror -Wno-padded)
    printf '#include "rtnet.h"\nint main(void) %s\n' \
        '{ return rt_latest(1) == RT_TEXT; }' >"$work/includer.c"
    cp "$work/includer.c" "$work/includer.cpp"
    for compiler in gcc clang; do
        have "$compiler" "$compiler" || continue
        for standard in c99 c11 c17; do
            check "includer: $compiler -std=$standard" "$compiler" \
                -std=$standard "${includer_warnings[@]}" -Wstrict-prototypes \
                -Wmissing-prototypes -I. -fsyntax-only "$work/includer.c"
        done
    done
    for compiler in g++ clang++; do
        have "$compiler" "$compiler" || continue
        for standard in c++11 c++17 c++20; do
            check "includer: $compiler -std=$standard" "$compiler" \
                -std=$standard "${includer_warnings[@]}" -Wold-style-cast \
                -Wzero-as-null-pointer-constant -I. -fsyntax-only \
                "$work/includer.cpp"
        done
    done
    have clang 'clang -Weverything' || return
    check 'includer: clang -Weverything' clang -std=c99 "${everything[@]}" \
        -I. -fsyntax-only "$work/includer.c"
    check 'includer: clang++ -Weverything' clang++ -std=c++17 \
        "${everything[@]}" -Wno-c++98-compat-pedantic -I. -fsyntax-only \
        "$work/includer.cpp"
}

make_library()
{
    make -s "$work/make/librtnet.a" BUILD="$work/make" CFLAGS=-O1
}

# An engine's loop, a protocol of one's own, a crowd of bots: each is short,
# and ends by itself.
programs()
{
    local compiler name
    check 'make librtnet.a' make_library || return
    for compiler in gcc clang; do
        have "$compiler" "$compiler" || continue
        for name in embed codec bots; do
            check "$compiler: $name.c" "$compiler" -std=c99 \
                "${includer_warnings[@]}" -I. "test/builds/$name.c" \
                "$work/make/librtnet.a" -o "$work/$name" &&
                check "$compiler: $name runs" timeout 60 "$work/$name"
        done
    done
}

# The program in the first comment of rt.hpp.
wrapper_comment()
{
    printf '#include "rt.hpp"\nint main()\n{\n'
    awk '/^ \*   / { print substr($0, 6) }' examples/rt.hpp
    echo '}'
}

# Serves on a port that is free, which a client asks for an echo.
use_answers()
{
    local port=''
    "$work/use" 0 >"$work/port" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        port=$(sed -n 's/^use: listening on port //p' "$work/port")
        [ -z "$port" ] || break
        sleep 0.05
    done
    said "$version" "$work/consumer" "ws://127.0.0.1:$port/"
    set -- $?
    kill "$server"
    server=0
    return "$1"
}

wrapper()
{
    local compiler options=(-std=c++17 "${includer_warnings[@]}" -I. -Iexamples)
    wrapper_comment >"$work/comment.cpp"
    check 'make librtnet.a' make_library || return
    check 'consumer.c' cc -I. test/builds/consumer.c "$work/make/librtnet.a" \
        -o "$work/consumer"
    for compiler in g++ clang++; do
        have "$compiler" "$compiler" || continue
        check "$compiler: the program in rt.hpp" "$compiler" "${options[@]}" \
            -Wold-style-cast -fsyntax-only "$work/comment.cpp"
        check "$compiler: use.cpp" "$compiler" "${options[@]}" \
            -Wold-style-cast examples/use.cpp "$work/make/librtnet.a" \
            -o "$work/use" && check "$compiler: use answers" use_answers
        check "$compiler: wrapper.cpp" "$compiler" "${options[@]}" -Itest \
            -Wno-format-nonliteral \
            -g -fsanitize=address,undefined -fno-sanitize-recover=undefined \
            test/builds/wrapper.cpp "$work/make/librtnet.a" \
            -o "$work/wrapper" && check "$compiler: what rt.hpp adds" \
            timeout 60 "$work/wrapper"
    done
}

# ---- make install -----------------------------------------------------------

files_in() # directory
{
    (cd "$1" && find . ! -type d | sort | paste -sd' ' -)
}

# The names that the header promises, and those that can be linked with.
promised()
{
    tr '\n' ' ' <rtnet.h | sed 's|/\*[^*]*\*\+\([^/*][^*]*\*\+\)*/||g' |
        grep -o '\brt_[a-z_]*(' | tr -d '(' | sort -u |
        grep -v -x 'rt_latest\|rt_same' # static inline
}

exported() # shared library
{
    nm -D --defined-only "$1" | awk '{ print $3 }' | sort
}

# Compiles the consumer as pkg-config says; by default the shared one is taken.
consume() # [-static]
{
    local flags
    flags=$(pkg-config --cflags --libs ${1:+-$1} rtnet) || return 1
    # shellcheck disable=SC2086 # a list of flags
    cc -std=c99 test/builds/consumer.c ${1:+"$1"} $flags -o "$work/consumer"
}

speaks_tls() # program
{
    nm "$1" | grep 'mbedtls_ssl_handshake$'
}

# With TLS whoever links statically has to be told of mbedTLS.
install_tls()
{
    has_mbedtls 'make install TLS=mbedtls' || return
    check 'make install TLS=mbedtls' make_install install TLS=mbedtls \
        PREFIX="$work/tls" || return
    export PKG_CONFIG_PATH=$work/tls/lib/pkgconfig
    check 'pkg-config -static, TLS: consumer.c' consume -static &&
        check 'pkg-config -static, TLS: an echo' said "$version" \
            "$work/consumer" &&
        check 'pkg-config -static, TLS: it is there' \
            speaks_tls "$work/consumer"
}

make_install() # make's words...
{
    make -s "$@" BUILD="$work/make" CFLAGS=-O1
}

install_staged()
{
    local lib=./usr/lib/librtnet
    check 'make install DESTDIR' make_install install DESTDIR="$work/stage" \
        PREFIX=/usr
    check 'what is installed' equal "$(files_in "$work/stage")" \
        "./usr/include/rtnet.h $lib.a $lib.so $lib.so.${version%.*} `
        `$lib.so.$version ./usr/lib/pkgconfig/rtnet.pc"
    check 'DESTDIR stays outside' equal \
        "$(grep -c "$work" "$work/stage/usr/lib/pkgconfig/rtnet.pc")" 0
    check 'make uninstall DESTDIR' make_install uninstall \
        DESTDIR="$work/stage" PREFIX=/usr
    check 'nothing is left' equal "$(files_in "$work/stage")" ''
}

installed()
{
    local kind to=$work/prefix
    install_staged
    check 'make install' make_install install PREFIX="$to" || return
    check 'the soname' equal "$(readelf -d "$to/lib/librtnet.so" |
        sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')" "$soname"
    check 'the header promises much' test "$(promised | wc -l)" -gt 60
    check 'what is exported' equal "$(exported "$to/lib/librtnet.so")" \
        "$(promised)"
    have pkg-config 'pkg-config' || return
    export PKG_CONFIG_PATH=$to/lib/pkgconfig
    check 'the version of rtnet.pc' equal \
        "$(pkg-config --modversion rtnet)" "$version"
    for kind in '' -static; do
        check "pkg-config $kind: consumer.c" consume $kind &&
            check "pkg-config $kind: an echo" said "$version" \
                env LD_LIBRARY_PATH="$to/lib" "$work/consumer"
    done
    meson_consumer
    check 'make uninstall' make_install uninstall PREFIX="$to"
    check 'nothing is left behind' equal "$(files_in "$to")" ''
    install_tls
}

# ---- meson and CMake --------------------------------------------------------

meson_consumer()
{
    have meson 'meson' || return
    cp test/builds/meson.build test/builds/consumer.c "$work"
    check 'meson setup' meson setup "$work/meson" "$work" &&
        check 'meson compile' ninja -C "$work/meson" &&
        check 'meson: an echo' said "$version" \
            env LD_LIBRARY_PATH="$work/prefix/lib" "$work/meson/consumer"
}

cmake_build() # directory source options...
{
    local to=$1 from=$2
    shift 2
    cmake -S "$from" -B "$to" "$@" &&
        cmake --build "$to"
}

cmake_consumer() # name source options...
{
    local name=$1 from=$2
    shift 2
    check "cmake, $name" cmake_build "$work/$name" "test/builds/$from" "$@" &&
        check "cmake, $name: an echo" said "$version" "$work/$name/consumer"
}

cmake_installed() # static|shared option
{
    local to=$work/cmake-$1
    check "cmake, $1" cmake_build "$work/lib-$1" . "$2" \
        -DCMAKE_INSTALL_PREFIX="$to" || return
    check "cmake --install, $1" cmake --install "$work/lib-$1"
    cmake_consumer "find_package-$1" find_package -DCMAKE_PREFIX_PATH="$to"
}

another_version_is_refused()
{
    mkdir "$work/next"
    sed "s/find_package(rtnet [0-9.]*/find_package(rtnet 0.99/" \
        test/builds/find_package/CMakeLists.txt >"$work/next/CMakeLists.txt"
    cmake -S "$work/next" -B "$work/next/build" \
        -DCMAKE_PREFIX_PATH="$work/cmake-static" >"$work/refusal" 2>&1 &&
        return 1
    grep "rtnetConfig.cmake, version: $version" "$work/refusal"
}

with_cmake()
{
    have cmake 'cmake' || return
    check 'CMakeLists.txt has at most 25 lines' test \
        "$(wc -l <CMakeLists.txt)" -le 25
    cmake_consumer add_subdirectory add_subdirectory -DRTNET="$PWD"
    cmake_installed static -DBUILD_SHARED_LIBS=OFF
    cmake_installed shared -DBUILD_SHARED_LIBS=ON
    check 'cmake: another version is refused' another_version_is_refused
    check 'cmake: the soname' equal "$(readelf -d \
        "$work/cmake-shared/lib/librtnet.so" |
        sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')" "$soname"
    have x86_64-w64-mingw32-gcc 'cmake for Windows' &&
        check 'cmake for Windows' cmake_build "$work/windows" \
            test/builds/add_subdirectory -DRTNET="$PWD" \
            -DCMAKE_SYSTEM_NAME=Windows \
            -DCMAKE_C_COMPILER=x86_64-w64-mingw32-gcc &&
        check 'cmake for Windows: a program' test -e \
            "$work/windows/consumer.exe"
    has_mbedtls 'cmake, RTNET_TLS' &&
        cmake_consumer add_subdirectory-tls add_subdirectory \
            -DRTNET="$PWD" -DRTNET_TLS=ON &&
        check 'cmake: RTNET_TLS is TLS' \
            speaks_tls "$work/add_subdirectory-tls/consumer"
}

# ---- make dist --------------------------------------------------------------

# In a directory where nothing else is.
alone() # compiler options...
{
    (cd "$work/make/dist" && "$@" "${warnings[@]}" -c rtnet_all.c \
        -o "$work/all.o")
}

foreign_symbols()
{
    nm -g --defined-only "$work/all.o" | awk '$3 !~ /^rt_/ { print $3 }'
}

can_m32()
{
    echo 'int main(void) { return 0; }' |
        gcc -m32 -x c - -o "$work/m32" 2>/dev/null
}

amalgamated()
{
    local compiler headers=$PWD/test/kqueue
    check 'make dist' make_install dist
    check 'what it makes' equal "$(files_in "$work/make/dist")" \
        './rtnet.h ./rtnet_all.c'
    for compiler in gcc clang; do
        have "$compiler" "$compiler" || continue
        check "$compiler: with select alone" alone "$compiler" -DRT__NO_EPOLL
        check "$compiler: with kqueue" alone "$compiler" -DRT__KQUEUE \
            -I"$headers"
        check "$compiler -std=c11" alone "$compiler" -std=c11
        check "$compiler -std=c99" alone "$compiler" -std=c99 -pedantic \
            -Wshadow -Wconversion -O1
        check "$compiler: only rt_ is global" equal "$(foreign_symbols)" ''
        check "$compiler: consumer.c" "$compiler" -I"$work/make/dist" \
            test/builds/consumer.c "$work/all.o" -o "$work/consumer" &&
            check "$compiler: an echo" said "$version" "$work/consumer"
    done
    for compiler in g++ clang++; do
        have "$compiler" "$compiler" &&
            check "$compiler -std=c++17" alone "$compiler" -std=c++17 -x c++
    done
    can_m32 && check 'gcc -m32' alone gcc -std=c99 -m32 -O1 \
        -idirafter /usr/include/x86_64-linux-gnu
    have x86_64-w64-mingw32-gcc 'rtnet_all.c for Windows' &&
        check 'rtnet_all.c for Windows' alone x86_64-w64-mingw32-gcc -std=c99
    has_mbedtls 'rtnet_all.c with TLS' && check 'rtnet_all.c with TLS' \
        alone gcc -std=c99 -DRT_TLS_MBEDTLS
}

# ---- make size --------------------------------------------------------------

# As it is built by default, which is without TLS.
code()
{
    awk '$1 == "sum" { print $2 }' "$work/size"
}

sizes()
{
    [ "$(uname -m)" = x86_64 ] || return
    make -s size CC=gcc >"$work/size"
    check 'make size tells of each file' test \
        "$(grep -c '^[a-z]*\.c ' "$work/size")" -ge "${#library[@]}"
    cat "$work/size"
    check "the code is larger than nothing" test "$(code)" -gt 50000
    check "code at -Os: $(code) bytes, at most $code_limit" test "$(code)" \
        -le "$code_limit"
}

# ---- all --------------------------------------------------------------------

parts=(sources includer programs wrapper installed with_cmake amalgamated sizes)
if [ $# -eq 0 ]; then
    JOBS=${JOBS:-2} sh test/run.sh "${parts[@]/#/bash test/builds.sh }"
    exit
fi
for part in "$@"; do
    "$part"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
