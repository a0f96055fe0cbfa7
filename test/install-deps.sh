#!/bin/sh
# Installs on Debian what `make check` needs beyond a C compiler and make:
# clang with its sanitizers, valgrind, the linters, cmake and meson, cross
# compilers and qemu for other machines, mingw-w64 and Wine, tools for network
# namespaces, Node with the packages of test/peers, Python's websockets,
# lowdown, Chromium, openssl, mbedTLS, Redis, hiredis and promtool.  Run as
# root; what is there already is left alone, so a second run takes a second.
set -eu
cd "$(dirname "$0")"

absent() # package: true when dpkg does not know it as installed
{
    ! dpkg-query -W -f '${db:Status-Abbrev}\n' "$1" 2>/dev/null |
        grep -q '^ii'
}

wanted=''
want() # package [command]: asks for it unless it or the command is there
{
    if [ -n "${2:-}" ] && command -v "$2" >/dev/null 2>&1; then
        return 0
    fi
    if absent "$1"; then
        wanted="$wanted $1"
    fi
}

# Debian starts a server when it installs one (Redis, Prometheus), unless this
# says no.
policy=/usr/sbin/policy-rc.d
start_nothing()
{
    [ ! -e "$policy" ] || return 0
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

install_wanted()
{
    [ -n "$wanted" ] || return 0
    start_nothing
    echo "installing:$wanted"
    export DEBIAN_FRONTEND=noninteractive
    if [ -z "${updated:-}" ]; then
        apt-get -q -o Acquire::Retries=3 update
        updated=1
    fi
    # shellcheck disable=SC2086 # a list of names
    apt-get -q -y -o Acquire::Retries=3 install --no-install-recommends \
        $wanted
    wanted=''
}

want gcc gcc
want g++ g++
want make make
want libc6-dev
want libc6-dev-i386
want lib32gcc-12-dev
want clang clang
want afl++ afl-fuzz
want clang-format clang-format
want lcov lcov
want clang-tidy clang-tidy
want cppcheck cppcheck
want valgrind valgrind
want pkg-config pkg-config
want cmake cmake
want meson meson
want qemu-user-static qemu-s390x-static
want gcc-arm-linux-gnueabihf arm-linux-gnueabihf-gcc
want libc6-dev-armhf-cross
want gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc
want libc6-dev-arm64-cross
want gcc-s390x-linux-gnu s390x-linux-gnu-gcc
want libc6-dev-s390x-cross
want musl-tools musl-gcc
want iproute2 ip
want nftables nft
want curl curl
want openssl openssl
want nodejs node
want npm npm
want python3
want python3-websockets
want lowdown lowdown
want chromium chromium
want libnss3-tools certutil
want fonts-dejavu-core
want redis-server redis-server
want libhiredis-dev
want libmbedtls-dev
want prometheus promtool
want gcc-mingw-w64-x86-64 x86_64-w64-mingw32-gcc
want wine64
install_wanted

# The sanitizers' libraries are a package of their own, named after clang.
want "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
install_wanted

# npm ci starts from nothing each time: skip it where the same lock was used.
cd peers
if ! cmp -s package-lock.json node_modules/.installed; then
    PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund </dev/null
    cp package-lock.json node_modules/.installed
fi
echo 'all is there'
