/*
 * The window of ratelimit.c, on values alone.
 */
#include "../rtnet_internal.h"
#include "test.h"

#include <stdlib.h>

/* Takes a slot if one is free at that time. */
static int passes(rt__window *w, uint32_t limit, uint64_t interval,
                  uint64_t now)
{
    if (rt__window_wait(w, limit, interval, now) > 0)
        return 0;
    rt__window_take(w, limit, now);
    return 1;
}

static rt__window *window_new(uint32_t limit)
{
    return (rt__window *)calloc(1, rt__window_size(limit));
}

static void one_a_second_passes_again_exactly_a_second_later(void)
{
    rt__window *w = window_new(1);
    CHECK(passes(w, 1, 1000, 200));
    CHECK(!passes(w, 1, 1000, 1190));
    EQUAL(rt__window_wait(w, 1, 1000, 1199), 1);
    CHECK(passes(w, 1, 1000, 1200));
    free(w);
}

static void a_refused_one_takes_no_slot(void)
{
    rt__window *w = window_new(2);
    uint64_t t;
    CHECK(passes(w, 2, 1000, 0));
    CHECK(passes(w, 2, 1000, 500));
    for (t = 501; t < 1000; t++)
        CHECK(!passes(w, 2, 1000, t));
    CHECK(passes(w, 2, 1000, 1000));
    CHECK(!passes(w, 2, 1000, 1499));
    CHECK(passes(w, 2, 1000, 1500));
    free(w);
}

static void never_more_than_the_limit_in_any_interval(void)
{
    enum { LIMIT = 20, INTERVAL = 1000, STEPS = 20000 };
    static uint64_t passed[STEPS];
    rt__window *w = window_new(LIMIT);
    uint64_t now = 0;
    int i, n = 0;
    srand(7);
    for (i = 0; i < STEPS; i++) {
        now += (uint64_t)(rand() % 60);
        if (!passes(w, LIMIT, INTERVAL, now))
            continue;
        passed[n++] = now;
        if (n > LIMIT)
            CHECK(now - passed[n - 1 - LIMIT] >= INTERVAL);
    }
    CHECK(n > LIMIT * 10);
    free(w);
}

static void a_clock_that_goes_back_stands_still(void)
{
    rt__window *w = window_new(1);
    CHECK(passes(w, 1, 1000, 5000));
    EQUAL(rt__window_wait(w, 1, 1000, 10), 1000);
    CHECK(passes(w, 1, 1000, 6000));
    CHECK(!passes(w, 1, 1000, 6999));
    free(w);
}

static void the_ends_of_the_clock(void)
{
    rt__window *w = window_new(1);
    CHECK(passes(w, 1, 1000, 0));
    CHECK(passes(w, 1, 1000, UINT64_MAX));
    CHECK(!passes(w, 1, 1000, UINT64_MAX));
    CHECK(!passes(w, 1, UINT64_MAX, UINT64_MAX));
    free(w);
}

int main(void)
{
    RUN(one_a_second_passes_again_exactly_a_second_later);
    RUN(a_refused_one_takes_no_slot);
    RUN(never_more_than_the_limit_in_any_interval);
    RUN(a_clock_that_goes_back_stands_still);
    RUN(the_ends_of_the_clock);
    return test_done();
}
