/*
 * Limits of rates: values and integer arithmetic, the time is passed in.
 *
 * The window is a leaky bucket of `limit` slots, each with the time at which a
 * message took it: one may pass when the oldest slot was taken at least
 * `interval` ago, and takes that slot.  One that is refused takes none, so
 * that a peer who goes on trying is not locked out.
 */
#include "rtnet_internal.h"

size_t rt__window_size(uint32_t limit)
{
    return sizeof(rt__window) + (size_t)limit * sizeof(uint64_t);
}

static uint64_t *oldest(rt__window *w)
{
    return (uint64_t *)(w + 1) + w->next;
}

/* How long until a message may pass; 0: now.  A clock that went back counts as
   standing still. */
uint64_t rt__window_wait(rt__window *w, uint32_t limit, uint64_t interval,
                         uint64_t now)
{
    uint64_t age = now > *oldest(w) ? now - *oldest(w) : 0;
    if (w->used < limit || age >= interval)
        return 0;
    return interval - age;
}

/* A message passes now. */
void rt__window_take(rt__window *w, uint32_t limit, uint64_t now)
{
    *oldest(w) = now;
    if (w->used < limit)
        w->used++;
    w->next = w->next + 1 == limit ? 0 : w->next + 1;
}

/* How long ago the last one passed; UINT64_MAX: none did. */
uint64_t rt__window_age(rt__window *w, uint32_t limit, uint64_t now)
{
    uint64_t last;
    if (w->used == 0)
        return UINT64_MAX;
    last = ((uint64_t *)(w + 1))[(w->next ? w->next : limit) - 1];
    return now > last ? now - last : 0;
}
