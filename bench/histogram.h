/*
 * A histogram of 64-bit values in the manner of HdrHistogram: each power of
 * two is divided into 128 equal buckets, so a value is known to within 0.8 %
 * and recording one costs a few instructions.  Values below 256 are exact, and
 * so are the count, the sum, the least and the greatest.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    HIST_BITS = 7, /* 2^7 buckets for each power of two */
    HIST_HALF = 1 << HIST_BITS,
    HIST_BUCKETS = (64 - HIST_BITS + 1) * HIST_HALF
};

typedef struct {
    uint64_t count, min, max;
    double sum;
    uint64_t bucket[HIST_BUCKETS];
} histogram;

static inline void hist_reset(histogram *h)
{
    memset(h, 0, sizeof *h);
}

/* By how many bits a value is shortened: 0 for those that are kept exactly. */
static inline int hist_shift(uint64_t value)
{
    int bits = 64 - __builtin_clzll(value | 1);
    return bits > HIST_BITS + 1 ? bits - HIST_BITS - 1 : 0;
}

static inline size_t hist_index(uint64_t value)
{
    int shift = hist_shift(value);
    return ((size_t)shift << HIST_BITS) + (size_t)(value >> shift);
}

/* The greatest value that falls into a bucket. */
static inline uint64_t hist_top(size_t index)
{
    size_t shift = index < 2 * HIST_HALF ? 0 : (index >> HIST_BITS) - 1;
    uint64_t head = index - (shift << HIST_BITS);
    return (head << shift) + (((uint64_t)1 << shift) - 1);
}

static inline void hist_add(histogram *h, uint64_t value)
{
    if (h->count++ == 0 || value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
    h->sum += (double)value;
    h->bucket[hist_index(value)]++;
}

/* How many of the values must be at or below the p-th percentile. */
static inline uint64_t hist_rank(const histogram *h, double p)
{
    double exact = (double)h->count * p / 100;
    uint64_t rank = (uint64_t)exact;
    /* 99.9 % of 1,000 is 999, though the product may be a hair above. */
    if (exact - (double)rank > 1e-6)
        rank++;
    if (rank < 1)
        rank = 1;
    return rank < h->count ? rank : h->count;
}

/*
 * The p-th percentile, 0 < p <= 100: at least p % of the values are at or
 * below it.  Never less than the true one, and at most 0.8 % more; 0 when
 * nothing was recorded.
 */
static inline uint64_t hist_at(const histogram *h, double p)
{
    uint64_t rank = hist_rank(h, p), seen = 0;
    if (h->count == 0)
        return 0;
    for (size_t i = 0; i < HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen >= rank)
            return hist_top(i) < h->max ? hist_top(i) : h->max;
    }
    return h->max;
}

/* What was recorded in from was recorded in h, too. */
static inline void hist_merge(histogram *h, const histogram *from)
{
    if (from->count == 0)
        return;
    if (h->count == 0 || from->min < h->min)
        h->min = from->min;
    if (from->max > h->max)
        h->max = from->max;
    h->count += from->count;
    h->sum += from->sum;
    for (size_t i = 0; i < HIST_BUCKETS; i++)
        h->bucket[i] += from->bucket[i];
}

static inline double hist_mean(const histogram *h)
{
    return h->count ? h->sum / (double)h->count : 0;
}

#endif
