/* Windows, buckets, when to try again, the sketch. */
#include "ratelimit.c"

#include "any.h"

enum { SLOTS = 4 };

typedef struct {
    rt__window w;
    uint64_t slots[SLOTS];
} any_window;

/* As messages leave it: `used` of `limit` slots hold any times. */
static rt__window *window_any(any_window *w, uint32_t limit, uint32_t used,
                              uint32_t next)
{
    uint32_t i;
    /*@ loop unroll 4; */
    for (i = 0; i < SLOTS; i++)
        w->slots[i] = any_64;
    w->w.used = used;
    w->w.next = used < limit ? used : next;
    return &w->w;
}

static void window_each(uint32_t limit, uint32_t used, uint32_t next)
{
    any_window w, to;
    uint64_t interval = any_64;
    rt__window *p = window_any(&w, limit, used, next);
    rt__window_wait(p, limit, interval, any_64);
    rt__window_age(p, limit, any_64);
    rt__window_credit(p, limit, any_32, any_64, any_64, any_64);
    rt__window_take(p, limit, any_64);
    //@ assert p->used <= limit && (limit == 0 || p->next < limit);
    if (limit == 0)
        return;
    rt__window_move(&to.w, p, limit);
    //@ assert to.w.used == p->used;
}

/* rt__window_*: 0 to 4 slots, any of them taken, at any times, any interval */
void prove_window(void)
{
    size_t limit, used, next;
    limit = any_size_to(SLOTS);
    //@ split limit;
    used = any_size_to(limit);
    //@ split used;
    next = any_size_to(limit ? limit - 1 : 0);
    //@ split next;
    window_each((uint32_t)limit, (uint32_t)used, (uint32_t)next);
}

/* rt__bucket_*: any level, rate, burst, cost and times */
void prove_bucket(void)
{
    rt__bucket b;
    b.level = any_64;
    b.at = any_64;
    rt__bucket_wait(&b, any_32, any_32, any_64, any_64);
    rt__bucket_credit(&b, any_32, any_64, any_64);
    rt__bucket_take(&b, any_32, any_64, any_64);
}

/* rt__retry_draw: any backlog, rate, time and chance */
void prove_retry_draw(void)
{
    rt__bucket b;
    uint32_t ms;
    b.level = any_64;
    b.at = any_64;
    ms = rt__retry_draw(&b, any_32, any_64, any_64);
    //@ assert ms >= 1;
}

/* rt__sketch_*: any counters, any hash */
void prove_sketch(void)
{
    static rt__sketch s;
    rt__sketch_add(&s, any_64);
    rt__sketch_count(&s, any_64);
    rt__sketch_add(&s, any_64);
    rt__sketch_remove(&s, any_64);
}
