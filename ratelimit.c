/*
 * Limits of rates and of numbers: values and integer arithmetic, the time is
 * passed in.
 *
 * The window is a leaky bucket of `limit` slots, each with the time at which a
 * message took it: one may pass when the oldest slot was taken at least
 * `interval` ago, and takes that slot.  The bucket is the form of constant
 * size: it leaks `rate` a second and holds `burst`.  What is refused takes
 * nothing of either, so that a peer who goes on trying is not locked out.
 *
 * Every value is defined.  A window with limit 0 lets nothing pass, one with
 * interval 0 all.  A bucket with rate 0 never empties; an empty one takes any
 * cost, also with burst 0, and then refuses all until it is back at its burst
 * less the next cost, or empty where the cost is above the burst.  Time is any
 * uint64_t; a clock that goes back counts as standing still.  What is too large
 * to count stays at UINT64_MAX.
 */
#include "rtnet_internal.h"

/* The bytes of a window with so many slots, which must begin as zeros. */
size_t rt__window_size(uint32_t limit)
{
    return sizeof(rt__window) + (size_t)limit * sizeof(uint64_t);
}

static const uint64_t *times(const rt__window *w)
{
    return (const uint64_t *)(w + 1);
}

static uint64_t since(uint64_t then, uint64_t now)
{
    return now > then ? now - then : 0;
}

/* How long until a message may pass; 0: now. */
uint64_t rt__window_wait(rt__window *w, uint32_t limit, uint64_t interval,
                         uint64_t now)
{
    uint64_t age;
    if (limit == 0)
        return UINT64_MAX;
    if (w->used < limit)
        return 0;
    age = since(times(w)[w->next], now);
    return age >= interval ? 0 : interval - age;
}

/* A message passes now. */
void rt__window_take(rt__window *w, uint32_t limit, uint64_t now)
{
    uint64_t *slot = (uint64_t *)(w + 1) + w->next;
    if (limit == 0)
        return;
    *slot = now;
    if (w->used < limit)
        w->used++;
    w->next = w->next + 1 == limit ? 0 : w->next + 1;
}

/* How long ago the last one passed; UINT64_MAX: none did. */
uint64_t rt__window_age(rt__window *w, uint32_t limit, uint64_t now)
{
    if (w->used == 0)
        return UINT64_MAX;
    return since(times(w)[(w->next ? w->next : limit) - 1], now);
}

/* to, which is empty and has more slots, becomes what from is, so that a large
   window needs only as many as messages come in an interval. */
void rt__window_move(rt__window *to, const rt__window *from, uint32_t limit)
{
    uint32_t i, first = from->used < limit ? 0 : from->next;
    uint64_t *slots = (uint64_t *)(to + 1);
    for (i = 0; i < from->used; i++)
        slots[i] = times(from)[(first + i) % limit];
    to->used = to->next = from->used;
}

/* How many slots were taken less than interval ago. */
static uint32_t window_taken(const rt__window *w, uint32_t limit,
                             uint64_t interval, uint64_t now)
{
    uint32_t n = 0;
    while (n < w->used &&
           since(times(w)[(w->next + limit - 1 - n) % limit], now) < interval)
        n++;
    return n;
}

/*
 * How many more would have passed from `then` to now than the window now lets
 * pass at once: the credit of one who could not send in that time.  limit
 * passes in an interval; the window has `slots`, of which 0 is none at all.
 */
uint64_t rt__window_credit(const rt__window *w, uint32_t slots, uint32_t limit,
                           uint64_t interval, uint64_t then, uint64_t now)
{
    uint64_t away = since(then, now), whole, passed, freed = 0;
    if (interval == 0)
        return 0; /* it never refuses */
    whole = away / interval;
    if (whole > 1 << 20)
        whole = 1 << 20; /* more than any credit */
    passed = whole * limit;
    if (interval <= INT32_MAX)
        passed += away % interval * limit / interval;
    if (slots)
        freed = window_taken(w, slots, interval, then) -
                (uint64_t)window_taken(w, slots, interval, now);
    return passed > freed ? passed - freed : 0;
}

/* ---- the bucket of constant size ---------------------------------------- */

/* Its level counts thousandths, so that it leaks a whole number a ms. */
enum { PER = 1000 };

/* What is still in it now. */
static uint64_t bucket_level(const rt__bucket *b, uint32_t rate, uint64_t now)
{
    uint64_t ms = since(b->at, now);
    if (rate && ms >= b->level / rate + 1)
        return 0;
    return b->level > ms * rate ? b->level - ms * rate : 0;
}

static uint64_t thousands(uint64_t n)
{
    return n < UINT64_MAX / PER ? n * PER : UINT64_MAX;
}

/* How long until cost may pass, in ms; 0: now; UINT64_MAX: never. */
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
    if (now > b->at)
        b->at = now;
}

/* As rt__window_credit: what leaked from then to now beside what was in it. */
uint64_t rt__bucket_credit(const rt__bucket *b, uint32_t rate, uint64_t then,
                           uint64_t now)
{
    uint64_t away = since(then, now), leaked, had;
    if (away > (uint64_t)1 << 32)
        away = (uint64_t)1 << 32; /* more than any credit */
    leaked = away * rate;
    had = bucket_level(b, rate, then) - bucket_level(b, rate, now);
    return leaked > had ? (leaked - had) / PER : 0;
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
