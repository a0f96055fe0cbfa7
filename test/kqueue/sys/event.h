/*
 * kqueue(2) for the simulated kernel (sim.c): what rtnet.c and its tests use
 * of it, with the numbers and the layout of FreeBSD.  It is no part of the
 * library and serves no system: a real one brings its own.
 */
#ifndef SIM_SYS_EVENT_H
#define SIM_SYS_EVENT_H

#include <stdint.h>
#include <time.h>

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)

/* What to do, */
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008
/* how, */
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_DISPATCH 0x0080
/* and what came of it. */
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned int fflags;
    int64_t data;
    void *udata;
    uint64_t ext[4];
};

#define EV_SET(kevp, i, f, fl, ff, d, u)                                       \
    do {                                                                       \
        struct kevent *kevp__ = (kevp);                                        \
        kevp__->ident = (i);                                                   \
        kevp__->filter = (short)(f);                                           \
        kevp__->flags = (unsigned short)(fl);                                  \
        kevp__->fflags = (ff);                                                 \
        kevp__->data = (d);                                                    \
        kevp__->udata = (u);                                                   \
        kevp__->ext[0] = kevp__->ext[1] = kevp__->ext[2] = 0;                  \
        kevp__->ext[3] = 0;                                                    \
    } while (0)

int kqueue(void);
int kevent(int kq, const struct kevent *changes, int change_count,
           struct kevent *events, int event_count,
           const struct timespec *timeout);

#endif
