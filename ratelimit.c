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

/* ---- the bucket of constant size ---------------------------------------- */

/* Its level counts thousandths, so that it leaks a whole number a ms. */
enum { PER = 1000 };

/* What is still in it now.  A clock that went back counts as standing still. */
static uint64_t bucket_level(const rt__bucket *b, uint32_t rate, uint64_t now)
{
    uint64_t ms = now > b->at ? now - b->at : 0;
    if (rate && ms >= b->level / rate + 1)
        return 0;
    return b->level > ms * rate ? b->level - ms * rate : 0;
}

static uint64_t thousands(uint64_t n)
{
    return n < UINT64_MAX / PER ? n * PER : UINT64_MAX;
}

/*
 * How long until cost may pass, in ms; 0: now; UINT64_MAX: never.  The bucket
 * leaks `rate` a second and holds `burst`; an empty one takes any cost.
 */
uint64_t rt__bucket_wait(const rt__bucket *b, uint32_t rate, uint32_t burst,
                         uint64_t cost, uint64_t now)
{
    uint64_t level = bucket_level(b, rate, now);
    uint64_t size = thousands(burst), more = thousands(cost), over;
    if (level == 0 || (more <= size && level <= size - more))
        return 0;
    if (rate == 0)
        return UINT64_MAX;
    over = more >= size ? level : level - (size - more);
    return over / rate + (over % rate != 0);
}

/* cost passes now. */
void rt__bucket_take(rt__bucket *b, uint32_t rate, uint64_t cost, uint64_t now)
{
    uint64_t level = bucket_level(b, rate, now), more = thousands(cost);
    b->level = level < UINT64_MAX - more ? level + more : UINT64_MAX;
    b->at = now;
}
