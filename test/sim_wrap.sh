#!/bin/sh
# Does anything of the library escape the simulated kernel?  Usage:
#   sh test/sim_wrap.sh OBJECT...
# Every name that the objects leave undefined must be the library's own, one
# of test/sim.wrap, or a function of libc that makes no system call.  What a
# sanitizer puts in is left out, and mbedTLS, which is only called (without
# files) where its allocations alone touch the system.
pure='_GLOBAL_OFFSET_TABLE_ __errno_location __stack_chk_fail free inet_ntop
inet_pton memchr memcmp memcpy memmove memset realloc snprintf strchr strcmp
strcspn strerror strlen strncmp strrchr strspn strstr vsnprintf'
here=$(dirname "$0")
bad=$(nm -u "$@" | sed -n 's/^ *U //p' | sed 's/@.*//' | sort -u |
    grep -v '^rt_\|^__asan_\|^__ubsan_\|^mbedtls_' | grep -vxFf "$here/sim.wrap" |
    grep -vxF "$(echo $pure | tr ' ' '\n')")
for name in $bad; do
    echo "not simulated, and not known to be pure: $name"
done
if [ -n "$bad" ]; then
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
echo "1 passed, 0 failed, 0 skipped"
