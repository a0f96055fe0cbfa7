/*
 * The load generator's histogram against the truth: the same samples, sorted.
 */
#include "../bench/histogram.h"
#include "test.h"
#include <stdlib.h>

enum { SAMPLES = 20000 };

static histogram hist;
static uint64_t sample[SAMPLES];
static uint64_t seed = 88172645463325252u;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* got is not below the truth and at most 1 % above it. */
static int is_close(uint64_t got, uint64_t truth)
{
    return got >= truth && got - truth <= truth / 100;
}

/* The nearest-rank percentile by integers: tenths is ten times p. */
static uint64_t true_percentile(size_t count, size_t tenths)
{
    size_t rank = (count * tenths + 999) / 1000;
    return sample[rank ? rank - 1 : 0];
}

static void compare(size_t count)
{
    static const size_t tenths[] = {1, 10, 500, 900, 990, 999, 1000};
    double sum = 0;
    hist_reset(&hist);
    for (size_t i = 0; i < count; i++) {
        hist_add(&hist, sample[i]);
        sum += (double)sample[i];
    }
    qsort(sample, count, sizeof *sample, by_value);
    for (size_t i = 0; i < sizeof tenths / sizeof *tenths; i++)
        CHECK(is_close(hist_at(&hist, (double)tenths[i] / 10),
                       true_percentile(count, tenths[i])));
    EQUAL(hist.count, count);
    EQUAL(hist.min, sample[0]);
    EQUAL(hist.max, sample[count - 1]);
    EQUAL(hist_at(&hist, 100), sample[count - 1]);
    CHECK(hist_mean(&hist) >= sum / (double)count * 0.999999);
    CHECK(hist_mean(&hist) <= sum / (double)count * 1.000001);
}

static void uniform_samples(void)
{
    for (size_t i = 0; i < SAMPLES; i++)
        sample[i] = next_random() % 5000000;
    compare(SAMPLES);
}

/* Every magnitude from 1 to 2^64. */
static void samples_of_all_sizes(void)
{
    for (size_t i = 0; i < SAMPLES; i++)
        sample[i] = next_random() >> next_random() % 64;
    compare(SAMPLES);
}

static void small_samples_are_exact(void)
{
    for (size_t i = 0; i < SAMPLES; i++)
        sample[i] = next_random() % 256;
    compare(SAMPLES);
    for (size_t tenths = 1; tenths <= 1000; tenths++)
        EQUAL(hist_at(&hist, (double)tenths / 10),
              true_percentile(SAMPLES, tenths));
}

static void a_long_tail(void)
{
    for (size_t i = 0; i < SAMPLES; i++)
        sample[i] = 50000 + next_random() % 1000;
    for (size_t i = 0; i < SAMPLES / 500; i++)
        sample[i * 7] = 900000000 + i * 1000000;
    compare(SAMPLES);
}

static void few_samples(void)
{
    for (size_t count = 1; count <= 300; count++) {
        for (size_t i = 0; i < count; i++)
            sample[i] = next_random() % 10000000;
        compare(count);
    }
}

static void equal_samples_give_that_value(void)
{
    for (size_t i = 0; i < 1000; i++)
        sample[i] = 123456789;
    compare(1000);
    EQUAL(hist_at(&hist, 50), 123456789);
}

static void an_empty_one_gives_zero(void)
{
    hist_reset(&hist);
    EQUAL(hist_at(&hist, 50), 0);
    EQUAL(hist_at(&hist, 100), 0);
    EQUAL(hist.max, 0);
    CHECK(hist_mean(&hist) < 1e-9);
}

static void check_bucket(uint64_t value)
{
    size_t index = hist_index(value);
    CHECK(index < HIST_BUCKETS);
    CHECK(is_close(hist_top(index), value));
    EQUAL(hist_index(hist_top(index)), index);
    if (hist_top(index) < UINT64_MAX)
        EQUAL(hist_index(hist_top(index) + 1), index + 1);
}

static void every_value_has_a_narrow_bucket(void)
{
    for (uint64_t value = 0; value < 200000; value++)
        check_bucket(value);
    for (int bit = 1; bit < 64; bit++) {
        check_bucket(((uint64_t)1 << bit) - 1);
        check_bucket((uint64_t)1 << bit);
        check_bucket(((uint64_t)1 << bit) + 1);
    }
    check_bucket(UINT64_MAX);
    EQUAL(hist_index(UINT64_MAX), HIST_BUCKETS - 1);
}

/* Two parts, and the first of them into an empty one before. */
static void merging_is_recording_in_one(void)
{
    static histogram part[2], sum;
    hist_reset(&hist);
    for (int i = 0; i < 20000; i++) {
        uint64_t value = next_random() >> (next_random() & 63);
        hist_add(&hist, value);
        hist_add(&part[i % 3 == 0], value);
    }
    hist_merge(&sum, &part[0]);
    hist_merge(&sum, &part[1]);
    EQUAL(sum.count, hist.count);
    EQUAL(sum.min, hist.min);
    EQUAL(sum.max, hist.max);
    CHECK(memcmp(sum.bucket, hist.bucket, sizeof sum.bucket) == 0);
    CHECK(hist_mean(&sum) > hist_mean(&hist) * 0.999 &&
          hist_mean(&sum) < hist_mean(&hist) * 1.001);
    hist_reset(&part[0]);
    hist_merge(&sum, &part[0]);
    EQUAL(sum.min, hist.min);
}

int main(void)
{
    RUN(uniform_samples);
    RUN(samples_of_all_sizes);
    RUN(small_samples_are_exact);
    RUN(a_long_tail);
    RUN(few_samples);
    RUN(equal_samples_give_that_value);
    RUN(an_empty_one_gives_zero);
    RUN(every_value_has_a_narrow_bucket);
    RUN(merging_is_recording_in_one);
    return test_done();
}
