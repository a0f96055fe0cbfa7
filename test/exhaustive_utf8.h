/*
 * UTF-8, tried whole against a slow decoder: the grammar of RFC 3629, section
 * 4, row by row.  Each sequence is given in two parts, cut at every place, to
 * both of the library's checks, and must be refused at the very byte with
 * which no row can hold any more.
 */
#ifndef EXHAUSTIVE_UTF8_H
#define EXHAUSTIVE_UTF8_H

#include "rtnet_internal.h"
#include "test.h"

/* ---- the grammar --------------------------------------------------------- */

/*
 *   UTF8-1 = %x00-7F
 *   UTF8-2 = %xC2-DF UTF8-tail
 *   UTF8-3 = %xE0 %xA0-BF UTF8-tail / %xE1-EC 2( UTF8-tail ) /
 *            %xED %x80-9F UTF8-tail / %xEE-EF 2( UTF8-tail )
 *   UTF8-4 = %xF0 %x90-BF 2( UTF8-tail ) / %xF1-F3 3( UTF8-tail ) /
 *            %xF4 %x80-8F 2( UTF8-tail )
 */
#define UTF8_TAIL                                                              \
    {                                                                          \
        0x80, 0xbf                                                             \
    }
static const struct grammar_row {
    size_t bytes;
    uint8_t range[4][2];
} grammar[] = {
    {1, {{0x00, 0x7f}}},
    {2, {{0xc2, 0xdf}, UTF8_TAIL}},
    {3, {{0xe0, 0xe0}, {0xa0, 0xbf}, UTF8_TAIL}},
    {3, {{0xe1, 0xec}, UTF8_TAIL, UTF8_TAIL}},
    {3, {{0xed, 0xed}, {0x80, 0x9f}, UTF8_TAIL}},
    {3, {{0xee, 0xef}, UTF8_TAIL, UTF8_TAIL}},
    {4, {{0xf0, 0xf0}, {0x90, 0xbf}, UTF8_TAIL, UTF8_TAIL}},
    {4, {{0xf1, 0xf3}, UTF8_TAIL, UTF8_TAIL, UTF8_TAIL}},
    {4, {{0xf4, 0xf4}, {0x80, 0x8f}, UTF8_TAIL, UTF8_TAIL}},
};

enum fate { REFUSED = 0, UNFINISHED, COMPLETE };

/* Does the row hold the bytes, as far as they go? */
static int row_holds(const struct grammar_row *r, const uint8_t *p, size_t n)
{
    size_t i;
    for (i = 0; i < n && i < r->bytes; i++)
        if (p[i] < r->range[i][0] || p[i] > r->range[i][1])
            return 0;
    return 1;
}

/* The row of the character that begins here; NULL: none can. */
static const struct grammar_row *row_of(const uint8_t *p, size_t n)
{
    size_t i;
    for (i = 0; i < sizeof grammar / sizeof *grammar; i++)
        if (row_holds(&grammar[i], p, n))
            return &grammar[i];
    return NULL;
}

/* What n bytes are: a text, the beginning of one, or neither. */
static enum fate fate_of(const uint8_t *p, size_t n)
{
    while (n > 0) {
        const struct grammar_row *r = row_of(p, n);
        if (!r)
            return REFUSED;
        if (n < r->bytes)
            return UNFINISHED;
        p += r->bytes;
        n -= r->bytes;
    }
    return COMPLETE;
}

/* ---- the library against it ---------------------------------------------- */

static struct {
    uint64_t sequences, complete, bad;
} utf8;

typedef int (*utf8_feeder)(rt__utf8 *, const uint8_t *, size_t);
static const utf8_feeder feeders[] = {rt__utf8_feed, rt__utf8_feed_words};

static int agrees(int alive, const rt__utf8 *u, enum fate fate)
{
    if (fate == REFUSED)
        return !alive;
    return alive && (u->need == 0) == (fate == COMPLETE);
}

/* In two parts.  What was refused once stays so. */
static int cut_agrees(utf8_feeder feed, const uint8_t *p, size_t cut, size_t n,
                      const enum fate *fates)
{
    rt__utf8 u = {0};
    int alive = feed(&u, p, cut);
    if (!agrees(alive, &u, fates[cut]))
        return 0;
    if (!alive)
        return 1;
    return agrees(feed(&u, p + cut, n - cut), &u, fates[n]);
}

/* fates[i]: of the first i bytes. */
static void compare_sequence(const uint8_t *p, size_t n, const enum fate *fates)
{
    size_t i, cut;
    int good = !!rt__utf8_valid(p, n) == (fates[n] == COMPLETE);
    for (i = 0; i < 2; i++)
        for (cut = 0; cut <= n; cut++)
            good &= cut_agrees(feeders[i], p, cut, n, fates);
    utf8.sequences++;
    utf8.complete += fates[n] == COMPLETE;
    if (!good && utf8.bad++ == 0)
        printf("%zu bytes: %02x %02x %02x %02x\n", n, p[0], p[n > 1],
               p[n > 2 ? 2 : 0], p[n > 3 ? 3 : 0]);
}

/* All ways to go on behind the first `at` of n bytes. */
static void compare_from(uint8_t *p, size_t at, size_t n, enum fate *fates)
{
    unsigned int b;
    if (at == n) {
        compare_sequence(p, n, fates);
        return;
    }
    for (b = 0; b < 256; b++) {
        p[at] = (uint8_t)b;
        fates[at + 1] = fate_of(p, at + 1);
        compare_from(p, at + 1, n, fates);
    }
}

static void compare_all(size_t n, uint64_t complete)
{
    uint8_t p[4] = {0};
    enum fate fates[5] = {COMPLETE};
    memset(&utf8, 0, sizeof utf8);
    compare_from(p, 0, n, fates);
    EQUAL(utf8.sequences, (uint64_t)1 << 8 * n);
    EQUAL(utf8.complete, complete);
    EQUAL(utf8.bad, 0);
}

/* How many code points have so many bytes; two texts behind each other are a
   text. */
enum { OF_1 = 128, OF_2 = 1920, OF_3 = 61440 };

static void utf8_every_sequence_of_one_byte(void)
{
    compare_all(1, OF_1);
}

static void utf8_every_sequence_of_two_bytes(void)
{
    compare_all(2, OF_1 * OF_1 + OF_2);
}

static void utf8_every_sequence_of_three_bytes(void)
{
    compare_all(3, OF_1 * OF_1 * OF_1 + 2 * OF_1 * OF_2 + OF_3);
}

/* With that first byte; 256: with any. */
static void utf8_every_sequence_of_four_bytes(uint64_t lead)
{
    uint8_t p[4] = {0};
    enum fate fates[5] = {COMPLETE};
    memset(&utf8, 0, sizeof utf8);
    if (lead < 256) {
        p[0] = (uint8_t)lead;
        fates[1] = fate_of(p, 1);
        compare_from(p, 1, 4, fates);
    } else {
        compare_from(p, 0, 4, fates);
    }
    EQUAL(utf8.sequences, (uint64_t)1 << (lead < 256 ? 24 : 32));
    EQUAL(utf8.bad, 0);
}

/* First and last bytes of the grammar's ranges, and their neighbours. */
static const uint8_t edges[] = {0x00, 0x01, 0x7f, 0x80, 0x81, 0x8f, 0x90,
                                0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
                                0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff};

static void compare_edges(uint8_t *p, size_t at, enum fate *fates)
{
    size_t i;
    if (at == 4) {
        compare_sequence(p, 4, fates);
        return;
    }
    for (i = 0; i < sizeof edges; i++) {
        p[at] = edges[i];
        fates[at + 1] = fate_of(p, at + 1);
        compare_edges(p, at + 1, fates);
    }
}

static void utf8_four_bytes_from_the_edges_of_the_ranges(void)
{
    uint8_t p[4];
    enum fate fates[5] = {COMPLETE};
    unsigned int b;
    memset(&utf8, 0, sizeof utf8);
    for (b = 0; b < 256; b++) {
        p[0] = (uint8_t)b;
        fates[1] = fate_of(p, 1);
        compare_edges(p, 1, fates);
    }
    EQUAL(utf8.sequences, 256 * 21 * 21 * 21);
    EQUAL(utf8.bad, 0);
}

/* ASCII is looked for in blocks of 64 and words of 8: all pairs of bytes, at
   all places around such an end, in ASCII and with more of it behind. */
static void utf8_two_bytes_at_every_place_of_a_block(void)
{
    uint8_t text[80];
    uint32_t pair;
    size_t at, i;
    uint64_t bad = 0;
    for (at = 54; at <= 72; at++) {
        memset(text, 'x', sizeof text);
        for (pair = 0; pair < 1 << 16; pair++) {
            enum fate fate;
            text[at] = (uint8_t)(pair >> 8);
            text[at + 1] = (uint8_t)pair;
            fate = fate_of(text + at, sizeof text - at);
            for (i = 0; i < 2; i++) {
                rt__utf8 u = {0};
                bad += !agrees(feeders[i](&u, text, sizeof text), &u, fate);
            }
        }
    }
    EQUAL(bad, 0);
}

#endif
