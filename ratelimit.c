/*
 * Limits of rates and of numbers: values and integer arithmetic, the time is
 * passed in.
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

/* ---- when to try again -------------------------------------------------- */

/*
 * How many ms one who is refused now should wait.  backlog leaks `rate` a
 * second, so it stands for those who were refused and have not been served
 * yet, and the time until it is empty for the place in the queue.  The answer
 * is drawn from 4/5 to 13/10 of that time: so many come back in any second
 * then as can be served in it, ln(1.3 / 0.8) / (1.3 - 0.8) = 0.97 of the rate.
 * Nobody waits for more than a minute; what is beyond need not be counted.
 */
uint32_t rt__retry_draw(rt__bucket *backlog, uint32_t rate, uint64_t now,
                        uint64_t chance)
{
    enum { MOST = 60000, LATEST_FROM = 40000, LEAST_SPAN = 1000 };
    uint64_t turn = rt__bucket_wait(backlog, rate, 0, 1, now), from, to;
    if (turn < MOST)
        rt__bucket_take(backlog, rate, 1, now);
    from = turn * 4 / 5;
    to = turn * 13 / 10;
    if (from > LATEST_FROM)
        from = LATEST_FROM;
    if (to < from + LEAST_SPAN)
        to = from + LEAST_SPAN;
    if (to > MOST)
        to = MOST;
    return (uint32_t)(from + 1 + chance % (to - from));
}

/* ---- counting in a table of fixed size ---------------------------------- */

/*
 * Each row has its own 15 bits of the hash; the least of its four counters
 * tells how often a key is there: never too low, too high only where others
 * share all four.  A counter that has come to its end stays there, because it
 * is not known any more how many are in it, until the table is empty.
 */
static uint16_t *sketch_cell(rt__sketch *s, int row, uint64_t hash)
{
    return &s->cell[row][hash >> 15 * row & (RT__SKETCH_SIZE - 1)];
}

uint32_t rt__sketch_count(const rt__sketch *s, uint64_t hash)
{
    uint32_t least = UINT16_MAX;
    int row;
    for (row = 0; row < RT__SKETCH_ROWS; row++) {
        uint16_t n = s->cell[row][hash >> 15 * row & (RT__SKETCH_SIZE - 1)];
        if (n < least)
            least = n;
    }
    return least;
}

void rt__sketch_add(rt__sketch *s, uint64_t hash)
{
    int row;
    s->live++;
    for (row = 0; row < RT__SKETCH_ROWS; row++) {
        uint16_t *n = sketch_cell(s, row, hash);
        if (*n < UINT16_MAX)
            ++*n;
        if (*n == UINT16_MAX)
            s->stuck = 1;
    }
}

/* What is removed has been added before. */
void rt__sketch_remove(rt__sketch *s, uint64_t hash)
{
    int row;
    s->live--;
    for (row = 0; row < RT__SKETCH_ROWS; row++) {
        uint16_t *n = sketch_cell(s, row, hash);
        if (*n < UINT16_MAX)
            --*n;
    }
    if (s->live == 0 && s->stuck)
        memset(s, 0, sizeof *s);
}
