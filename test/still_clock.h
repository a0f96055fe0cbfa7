/*
 * A clock that can be held, for tests of deadlines: the library's of this
 * process stands where it was set, until clock_goes.  Include it before peer.h,
 * which then reads another one: who waits in vain is to notice.
 */
#ifndef STILL_CLOCK_H
#define STILL_CLOCK_H

#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(CLOCK_MONOTONIC_RAW)
#define PEER_CLOCK CLOCK_MONOTONIC_RAW
#endif

static uint64_t still_us; /* where it stands; 0: it goes */

static inline void clock_goes(void)
{
    still_us = 0;
}

#if defined(__linux__) && defined(SYS_clock_gettime)
int clock_gettime(clockid_t which, struct timespec *out)
{
    struct timespec now = {0, 0}; /* a sanitizer does not know this call */

    if (syscall(SYS_clock_gettime, which, &now) != 0)
        return -1;
    if (still_us && which == CLOCK_MONOTONIC) {
        now.tv_sec = (time_t)(still_us / 1000000);
        now.tv_nsec = (long)(still_us % 1000000) * 1000;
    }
    *out = now;
    return 0;
}
#endif

#endif
