/*
 * The window and the bucket of ratelimit.c, on values alone, and against slow
 * models of them that are written another way.
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

static void limit_0_lets_nothing_pass(void)
{
    rt__window *w = window_new(1);
    EQUAL(rt__window_wait(w, 0, 1000, 5), UINT64_MAX);
    rt__window_take(w, 0, 5);
    EQUAL(w->used, 0);
    EQUAL(rt__window_wait(w, 0, 0, 5), UINT64_MAX);
    free(w);
}

static void the_age_of_a_window_is_that_of_its_last_one(void)
{
    rt__window *w = window_new(2);
    CHECK(rt__window_age(w, 2, 500) == UINT64_MAX); /* nothing passed yet */
    rt__window_take(w, 2, 500);
    EQUAL(rt__window_age(w, 2, 500), 0);
    EQUAL(rt__window_age(w, 2, 700), 200);
    rt__window_take(w, 2, 600); /* the next place is the first again */
    EQUAL(rt__window_age(w, 2, 700), 100);
    rt__window_take(w, 2, 650);
    EQUAL(rt__window_age(w, 2, 700), 50);
    free(w);
}

static void a_full_window_moves_from_its_oldest_on(void)
{
    rt__window *small = window_new(2), *large = window_new(4);
    rt__window_take(small, 2, 100);
    rt__window_take(small, 2, 200);
    rt__window_take(small, 2, 300); /* 200 is the oldest, in the middle */
    rt__window_move(large, small, 2);
    EQUAL(rt__window_age(large, 4, 350), 50);
    CHECK(passes(large, 4, 1000, 350));
    CHECK(passes(large, 4, 1000, 360));
    EQUAL(rt__window_wait(large, 4, 1000, 1199), 1);
    CHECK(passes(large, 4, 1000, 1200));
    EQUAL(rt__window_wait(large, 4, 1000, 1299), 1);
    free(small);
    free(large);
}

static void the_credit_of_an_interval_without_end(void)
{
    /* limit passes in an interval; of one beyond 2^31 nothing is divided. */
    EQUAL(rt__window_credit(NULL, 0, 5, (uint64_t)INT32_MAX + 1, 0, 1000), 0);
    EQUAL(rt__window_credit(NULL, 0, 5, (uint64_t)INT32_MAX + 1, 0,
                            (uint64_t)INT32_MAX + 1),
          5);
    EQUAL(rt__window_credit(NULL, 0, 5, 1000, 0, 1200), 6);
}

static void interval_0_lets_all_pass(void)
{
    rt__window *w = window_new(2);
    int i;
    for (i = 0; i < 10; i++)
        CHECK(passes(w, 2, 0, 7));
    free(w);
}

static void the_longest_interval(void)
{
    rt__window *w = window_new(1);
    CHECK(passes(w, 1, UINT64_MAX, 1));
    EQUAL(rt__window_wait(w, 1, UINT64_MAX, 1), UINT64_MAX);
    EQUAL(rt__window_wait(w, 1, UINT64_MAX, UINT64_MAX), 1);
    free(w);
}

static void a_window_that_grew_goes_on_where_it_was(void)
{
    rt__window *a = window_new(3), *b = window_new(5);
    int i;
    for (i = 1; i <= 4; i++)
        rt__window_take(a, 3, (uint64_t)i * 100); /* 200, 300, 400 */
    rt__window_move(b, a, 3);
    EQUAL(b->used, 3);
    EQUAL(rt__window_age(b, 5, 400), 0);
    CHECK(passes(b, 5, 1000, 500));
    CHECK(passes(b, 5, 1000, 600));
    EQUAL(rt__window_wait(b, 5, 1000, 600), 600); /* the one of 200 */
    CHECK(passes(b, 5, 1000, 1200));
    EQUAL(rt__window_wait(b, 5, 1000, 1200), 100);
    free(a);
    free(b);
}

/* ---- credits ------------------------------------------------------------ */

/* 5 a second: what could not be sent while away, less what came free. */
static void the_credit_of_a_window(void)
{
    rt__window *w = window_new(5);
    int i;
    EQUAL(rt__window_credit(NULL, 0, 5, 1000, 100, 2100), 10);
    for (i = 0; i < 5; i++)
        rt__window_take(w, 5, 100);
    EQUAL(rt__window_credit(w, 5, 5, 1000, 100, 100), 0);
    EQUAL(rt__window_credit(w, 5, 5, 1000, 100, 1099), 4);
    EQUAL(rt__window_credit(w, 5, 5, 1000, 100, 1100), 0);
    EQUAL(rt__window_credit(w, 5, 5, 1000, 100, 4100), 15);
    EQUAL(rt__window_credit(w, 5, 5, 1000, 5000, 9000), 20);
    EQUAL(rt__window_credit(w, 5, 5, 1000, 9000, 5000), 0);
    EQUAL(rt__window_credit(w, 5, 5, 0, 100, 9000), 0);
    CHECK(rt__window_credit(w, 5, INT32_MAX, INT32_MAX, 0, UINT64_MAX) > 128);
    EQUAL(rt__window_credit(NULL, 0, INT32_MAX, INT32_MAX, 7, 8), 1);
    free(w);
}

static void the_credit_of_a_bucket(void)
{
    rt__bucket b = {0, 0};
    EQUAL(rt__bucket_credit(&b, 5, 100, 2100), 10);
    rt__bucket_take(&b, 5, 5, 100);
    EQUAL(rt__bucket_credit(&b, 5, 100, 100), 0);
    EQUAL(rt__bucket_credit(&b, 5, 100, 1100), 0);
    EQUAL(rt__bucket_credit(&b, 5, 100, 4100), 15);
    EQUAL(rt__bucket_credit(&b, 5, 4100, 100), 0);
    EQUAL(rt__bucket_credit(&b, 0, 100, 4100), 0);
    CHECK(rt__bucket_credit(&b, INT32_MAX, 0, UINT64_MAX) > 65536);
}

/* ---- the bucket --------------------------------------------------------- */

/* Takes that much if it may pass at that time. */
static int flows(rt__bucket *b, uint32_t rate, uint32_t burst, uint64_t cost,
                 uint64_t now)
{
    if (rt__bucket_wait(b, rate, burst, cost, now) > 0)
        return 0;
    rt__bucket_take(b, rate, cost, now);
    return 1;
}

static void a_bucket_of_one_passes_again_exactly_a_second_later(void)
{
    rt__bucket b = {0, 0};
    CHECK(flows(&b, 1, 1, 1, 200));
    CHECK(!flows(&b, 1, 1, 1, 1190));
    EQUAL(rt__bucket_wait(&b, 1, 1, 1, 1199), 1);
    CHECK(flows(&b, 1, 1, 1, 1200));
}

static void a_refused_cost_takes_nothing(void)
{
    rt__bucket b = {0, 0}, was;
    uint64_t t;
    CHECK(flows(&b, 10, 10, 10, 0));
    was = b;
    for (t = 0; t < 100; t++)
        CHECK(!flows(&b, 10, 10, 1, t));
    EQUAL(b.level, was.level);
    EQUAL(b.at, was.at);
    CHECK(flows(&b, 10, 10, 1, 100));
}

static void a_burst_passes_at_once_and_then_the_rate(void)
{
    rt__bucket b = {0, 0};
    uint64_t t;
    int n = 0;
    while (flows(&b, 10, 25, 1, 0))
        n++;
    EQUAL(n, 25);
    for (t = 0; t < 10000; t++)
        n += flows(&b, 10, 25, 1, t);
    EQUAL(n, 25 + 99);
}

static void an_empty_bucket_takes_any_cost(void)
{
    rt__bucket b = {0, 0};
    CHECK(flows(&b, 10, 10, 50, 0));
    EQUAL(rt__bucket_wait(&b, 10, 10, 1, 0), 4100);
    EQUAL(rt__bucket_wait(&b, 10, 10, 10, 0), 5000);
    EQUAL(rt__bucket_wait(&b, 10, 10, 11, 0), 5000);
    EQUAL(rt__bucket_wait(&b, 10, 10, 0, 0), 4000);
    CHECK(flows(&b, 10, 10, UINT64_MAX, 5000));
    EQUAL(b.level, UINT64_MAX);
    CHECK(!flows(&b, INT32_MAX, 10, 1, 6000));
}

static void rate_0_and_burst_0(void)
{
    rt__bucket b = {0, 0};
    EQUAL(rt__bucket_wait(&b, 0, 2, 5, 0), 0);
    CHECK(flows(&b, 0, 2, 1, 0));
    CHECK(flows(&b, 0, 2, 1, 0));
    EQUAL(rt__bucket_wait(&b, 0, 2, 1, UINT64_MAX), UINT64_MAX);
    memset(&b, 0, sizeof b);
    CHECK(flows(&b, 1, 0, 1, 0)); /* it is empty */
    EQUAL(rt__bucket_wait(&b, 1, 0, 1, 0), 1000);
    CHECK(flows(&b, 1, 0, 1, 1000));
}

static void the_greatest_rate_and_burst(void)
{
    rt__bucket b = {0, 0};
    CHECK(flows(&b, INT32_MAX, INT32_MAX, INT32_MAX, 0));
    EQUAL(rt__bucket_wait(&b, INT32_MAX, INT32_MAX, INT32_MAX, 0), 1000);
    EQUAL(rt__bucket_wait(&b, INT32_MAX, INT32_MAX, 1, 0), 1);
    EQUAL(rt__bucket_wait(&b, 1, UINT32_MAX, UINT64_MAX, 0),
          (uint64_t)INT32_MAX * 1000);
    CHECK(flows(&b, INT32_MAX, INT32_MAX, INT32_MAX, 1000));
}

static void a_bucket_at_the_ends_of_the_clock(void)
{
    rt__bucket b = {0, 0};
    CHECK(flows(&b, 1, 1, 1, 0));
    CHECK(flows(&b, 1, 1, 1, UINT64_MAX));
    EQUAL(rt__bucket_wait(&b, 1, 1, 1, UINT64_MAX), 1000);
    EQUAL(rt__bucket_wait(&b, 1, 1, 1, 0), 1000);
}

/* It went back, and what had leaked already does not leak again. */
static void a_bucket_whose_clock_goes_back_stands_still(void)
{
    rt__bucket b = {0, 0};
    CHECK(flows(&b, 1, 2, 2, 5000));
    EQUAL(rt__bucket_wait(&b, 1, 2, 1, 10), 1000);
    CHECK(flows(&b, 1, 2, 1, 6000));
    CHECK(!flows(&b, 1, 2, 1, 10));
    CHECK(!flows(&b, 1, 2, 1, 6999));
    CHECK(flows(&b, 1, 2, 1, 7000));
    CHECK(!flows(&b, 1, 9, 8, 10));
    CHECK(flows(&b, 1, 9, 7, 10)); /* takes, and time is still 7000 */
    CHECK(!flows(&b, 1, 9, 1, 7999));
    CHECK(flows(&b, 1, 9, 1, 8000));
}

/* ---- slow models -------------------------------------------------------- */

enum { STEPS_EACH = 20000, ROUNDS = 25 }; /* of each: 1,000,000 in all */

static uint64_t chance_state = 1;

static uint64_t chance(uint64_t below)
{
    chance_state ^= chance_state << 13;
    chance_state ^= chance_state >> 7;
    chance_state ^= chance_state << 17;
    return chance_state % below;
}

/* The next time of a clock that mostly goes on, and sometimes back. */
static uint64_t tick(uint64_t now, uint64_t step)
{
    if (chance(50) == 0)
        return now - chance(now < 2 * step ? now + 1 : 2 * step);
    now += chance(step);
    return now;
}

/* All that passed, ever; the clock of the model never goes back. */
typedef struct {
    uint64_t passed[STEPS_EACH], cost[STEPS_EACH];
    int n;
} log_of_all;

/* How long until the limit-th last one is an interval old. */
static uint64_t window_model(const log_of_all *l, uint32_t limit,
                             uint64_t interval, uint64_t now)
{
    uint64_t then, age;
    if (l->n < (int)limit)
        return 0;
    then = l->passed[l->n - (int)limit];
    age = now < then ? 0 : now - then;
    return age < interval ? interval - age : 0;
}

/* As a session does: a window that grows when it must. */
static rt__window *window_fitted(rt__window *w, uint32_t *slots, uint32_t limit,
                                 uint64_t interval, uint64_t now)
{
    rt__window *more;
    uint32_t n = *slots * 2 < limit ? *slots * 2 : limit;
    if (*slots == limit || rt__window_wait(w, *slots, interval, now) == 0)
        return w;
    more = window_new(n);
    rt__window_move(more, w, *slots);
    free(w);
    *slots = n;
    return more;
}

static void window_round(log_of_all *l, int fixed)
{
    uint32_t limit = 1 + (uint32_t)chance(40), slots = fixed ? limit : 1;
    uint64_t interval = chance(2000), now = chance(3000), wait;
    rt__window *w = window_new(slots);
    int i;
    l->n = 0;
    for (i = 0; i < STEPS_EACH; i++) {
        /* a smaller window forgets what is over: its clock may not go back */
        now = fixed ? tick(now, 100) : now + chance(100);
        w = window_fitted(w, &slots, limit, interval, now);
        wait = slots < limit ? 0 : rt__window_wait(w, limit, interval, now);
        EQUAL(wait, window_model(l, limit, interval, now));
        if (wait > 0)
            continue;
        rt__window_take(w, slots, now);
        l->passed[l->n++] = now;
    }
    free(w);
}

static void a_window_does_as_a_list_of_all_that_passed(void)
{
    static log_of_all l;
    int i;
    for (i = 0; i < ROUNDS; i++)
        window_round(&l, i % 2);
}

/* The level by its definition, a millisecond at a time. */
typedef struct {
    uint64_t level, at;
} slow_bucket;

static void slow_run(slow_bucket *b, uint32_t rate, uint64_t now)
{
    for (; b->at < now && b->level > 0; b->at++)
        b->level = b->level > rate ? b->level - rate : 0;
    if (now > b->at)
        b->at = now;
}

static int slow_passes(const slow_bucket *b, uint32_t burst, uint64_t cost)
{
    return b->level == 0 || b->level + cost * 1000 <= (uint64_t)burst * 1000;
}

/* Exactly wait ms from its time on it passes, and not a ms before. */
static void wait_is_right(const slow_bucket *b, uint32_t rate, uint32_t burst,
                          uint64_t cost, uint64_t now, uint64_t wait)
{
    slow_bucket later = *b;
    uint64_t from = now > b->at ? now : b->at;
    slow_run(&later, rate, from + wait - 1);
    CHECK(!slow_passes(&later, burst, cost));
    slow_run(&later, rate, from + wait);
    CHECK(slow_passes(&later, burst, cost));
}

static void bucket_round(void)
{
    uint32_t rate = 1 + (uint32_t)chance(100), burst = (uint32_t)chance(200);
    uint64_t now = chance(1000), cost, wait;
    rt__bucket b = {0, 0};
    slow_bucket slow = {0, 0}, then;
    int i;
    for (i = 0; i < STEPS_EACH; i++) {
        now = tick(now, 1000 * (uint64_t)(burst + 1) / rate / 8 + 2);
        cost = chance(8) == 0 ? chance(300) : chance(burst / 8 + 2);
        wait = rt__bucket_wait(&b, rate, burst, cost, now);
        then = slow;
        slow_run(&then, rate, now);
        EQUAL(wait == 0, slow_passes(&then, burst, cost));
        if (wait > 0 && i % 16 == 0)
            wait_is_right(&slow, rate, burst, cost, now, wait);
        if (wait > 0)
            continue;
        rt__bucket_take(&b, rate, cost, now);
        slow = then;
        slow.level += cost * 1000;
    }
}

static void a_bucket_does_as_one_that_leaks_each_millisecond(void)
{
    int i;
    for (i = 0; i < ROUNDS; i++)
        bucket_round();
}

int main(void)
{
    RUN(one_a_second_passes_again_exactly_a_second_later);
    RUN(a_refused_one_takes_no_slot);
    RUN(never_more_than_the_limit_in_any_interval);
    RUN(a_clock_that_goes_back_stands_still);
    RUN(the_ends_of_the_clock);
    RUN(limit_0_lets_nothing_pass);
    RUN(the_age_of_a_window_is_that_of_its_last_one);
    RUN(a_full_window_moves_from_its_oldest_on);
    RUN(the_credit_of_an_interval_without_end);
    RUN(interval_0_lets_all_pass);
    RUN(the_longest_interval);
    RUN(a_window_that_grew_goes_on_where_it_was);
    RUN(the_credit_of_a_window);
    RUN(the_credit_of_a_bucket);
    RUN(a_bucket_of_one_passes_again_exactly_a_second_later);
    RUN(a_refused_cost_takes_nothing);
    RUN(a_burst_passes_at_once_and_then_the_rate);
    RUN(an_empty_bucket_takes_any_cost);
    RUN(rate_0_and_burst_0);
    RUN(the_greatest_rate_and_burst);
    RUN(a_bucket_at_the_ends_of_the_clock);
    RUN(a_bucket_whose_clock_goes_back_stands_still);
    RUN(a_window_does_as_a_list_of_all_that_passed);
    RUN(a_bucket_does_as_one_that_leaks_each_millisecond);
    return test_done();
}
