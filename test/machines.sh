#!/bin/bash
# The library on other machines: static programs for 32-bit ARM, 64-bit ARM and
# big-endian s390x under qemu's user mode, for i386, and with musl.  Usage:
#   BUILD=build bash test/machines.sh [MACHINE...]
# Each runs the unit and conformance tests, those of the simulated kernel with
# fewer random worlds than at home (WORLDS of each kind, 60), and DIGEST (20)
# calm worlds of each kind, whose digest must be that of the machine we are on
# (promise 15).  Prints "N passed, N failed, N skipped" as its last line.
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}
worlds=${WORLDS:-60}
seeds=${DIGEST:-20}
machines=(armhf aarch64 s390x i386 musl)
units=(ws core ratelimit lifetime api conformance regressions resume histogram
       group admission limits metrics memory bulk edges states)
# The library is what is tested, so that alone is worth the time of -O2.
options=(-static -DVERY_MANY=2000)
emulator=''

# Sets compiler, options and emulator.
describe() # machine
{
    case $1 in
    armhf) compiler=arm-linux-gnueabihf-gcc emulator=qemu-arm-static ;;
    aarch64) compiler=aarch64-linux-gnu-gcc emulator=qemu-aarch64-static ;;
    s390x) compiler=s390x-linux-gnu-gcc emulator=qemu-s390x-static ;;
    musl) compiler=musl-gcc options=(-static) ;;
    i386) # asm/ lies with the headers of the machine itself
        compiler=gcc
        options=(-static -m32 -idirafter /usr/include/x86_64-linux-gnu) ;;
    *) echo "no such machine: $1"; return 1 ;;
    esac
}

can_compile()
{
    echo 'int main(void) { return 0; }' |
        "$compiler" "${options[@]}" -x c - -o "$to/can" 2>/dev/null &&
        $emulator "$to/can"
}

# libc's macros are not clean everywhere, so fewer warnings are asked for.
compile() # options, goals...
{
    local level=$1
    shift
    make -s -f test/Makefile BUILD="$to" CC="$compiler" \
        WARN='-Wall -Wextra -Werror' CFLAGS="$level ${options[*]}" "$@"
}

compile_all()
{
    local objects=(rtnet ws session group ratelimit) programs
    objects=("${objects[@]/#/$to/t/}")
    programs=("${units[@]/#/$to/t/test_}" "$to/t/test_sim" "$to/t/sim")
    compile -O2 "${objects[@]/%/.o}" && compile -O0 "${programs[@]}"
}

verdict() # status what
{
    if [ "$1" = 0 ]; then
        echo '1 passed, 0 failed, 0 skipped'
    else
        echo "FAIL $2"
        echo '0 passed, 1 failed, 0 skipped'
    fi
}

# The upcalls of calm worlds here and there.
same_digests() # machine
{
    local here there
    here=$("$build/t/sim" --digest "$seeds" | grep ^digest)
    there=$($emulator "$to/t/sim" --digest "$seeds" | grep ^digest)
    echo "$there"
    [ -n "$here" ] && [ "$here" = "$there" ]
    verdict $? "$1 differs in its upcalls, here they are: $here"
}

run() # machine
{
    local name commands=() sim="timeout 300 $emulator $to/t/sim --seeds $worlds"
    for name in "${units[@]}"; do
        commands+=("timeout 300 $emulator $to/t/test_$name")
    done
    commands+=("timeout 300 $emulator $to/t/test_sim `
        `--addresses 10000 --worlds $worlds"
               "$sim --world resume" "$sim --world group"
               "BUILD=$build bash test/machines.sh digest $1")
    sh test/run.sh "${commands[@]}"
}

machine() # name
{
    to=$build/machines/$1
    mkdir -p "$to/t"
    describe "$1" || { verdict 1 "$1"; return 1; }
    if ! can_compile; then
        echo "SKIP $1: no compiler or emulator, run test/install-deps.sh"
        echo '0 passed, 0 failed, 1 skipped'
    elif ! compile_all; then
        verdict 1 "$1: it does not compile"
        return 1
    else
        run "$1"
    fi
}

case ${1:-all} in
all) # the simulator of the machine we are on
    make -s -f test/Makefile BUILD="$build" "$build/t/sim" &&
        JOBS=${JOBS:-2} BUILD=$build sh test/run.sh \
            "${machines[@]/#/bash test/machines.sh }" ;;
digest)
    to=$build/machines/$2
    describe "$2" && same_digests "$2" ;;
*) machine "$1" ;;
esac
