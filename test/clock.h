/*
 * The clocks of this process are a test's: ahead, so that hours pass in no
 * time, or the library's held where it was set, until clock_goes.  Who waits by
 * peer.h while it is held defines PEER_CLOCK as another one.
 */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

static uint64_t clock_ahead; /* all of them, in ms */
static uint64_t still_us;    /* where the monotonic one stands; 0: it goes */

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
    now.tv_sec += (time_t)(clock_ahead / 1000);
    now.tv_nsec += (long)(clock_ahead % 1000) * 1000000;
    if (now.tv_nsec >= 1000000000) {
        now.tv_nsec -= 1000000000;
        now.tv_sec++;
    }
    if (still_us && which == CLOCK_MONOTONIC) {
        now.tv_sec = (time_t)(still_us / 1000000);
        now.tv_nsec = (long)(still_us % 1000000) * 1000;
    }
    *out = now;
    return 0;
}
#elif defined(_WIN32)
#include "ticks.h"
#endif

#endif
