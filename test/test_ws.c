/*
 * The pure half of ws.c: bytes in, values out.  Exhaustive where the input is
 * small enough, else against a slow reference that was written from the RFC
 * in another way than the code; the input lies against forbidden pages.
 */
#include "rtnet_internal.h"

#include "guard.h"
#include "test.h"

#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static guard page, other; /* most tests read in one and write in the other */
static uint64_t seed;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* ---- the guard pages themselves ------------------------------------------ */

/* Does a child that reads there die of it? */
static int is_forbidden(const uint8_t *where)
{
    static const struct rlimit none = {0, 0};
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL); /* a sanitizer would write a report */
        signal(SIGBUS, SIG_DFL);
        _exit(*(const volatile uint8_t *)where != 0);
    }
    return child > 0 && waitpid(child, &status, 0) == child &&
           WIFSIGNALED(status);
}

static void the_pages_around_the_input_are_forbidden(void)
{
    CHECK(is_forbidden(guard_first(&page) - 1));
    CHECK(!is_forbidden(guard_first(&page)));
    CHECK(!is_forbidden(guard_last(&page, 1)));
    CHECK(is_forbidden(guard_last(&page, 0)));
}

/* ---- UTF-8: the reference ------------------------------------------------ */

/* What a few bytes are: made by encoding every code point there is, so that
   no rule about single bytes is needed. */
enum { DEAD = 0, PART, WHOLE };
static uint8_t of_one[1 << 8], of_two[1 << 16], of_three[1 << 24];

/* RFC 3629, section 3: the table. */
static size_t encode(uint32_t point, uint8_t out[4])
{
    static const uint8_t lead[] = {0, 0x00, 0xc0, 0xe0, 0xf0};
    size_t i, n = point < 0x80      ? 1
                  : point < 0x800   ? 2
                  : point < 0x10000 ? 3
                                    : 4;
    for (i = n - 1; i > 0; i--) {
        out[i] = (uint8_t)(0x80 + point % 64);
        point /= 64;
    }
    out[0] = (uint8_t)(lead[n] + point);
    return n;
}

static int is_scalar(uint32_t point)
{
    return point < 0xd800 || (point > 0xdfff && point <= 0x10ffff);
}

static void reference_make(void)
{
    uint32_t point;
    for (point = 0; point <= 0x10ffff; point++) {
        uint8_t b[4];
        size_t n = encode(point, b);
        if (!is_scalar(point))
            continue;
        of_one[b[0]] = n == 1 ? WHOLE : PART;
        if (n > 1)
            of_two[b[0] << 8 | b[1]] = n == 2 ? WHOLE : PART;
        if (n > 2)
            of_three[b[0] << 16 | b[1] << 8 | b[2]] = n == 3 ? WHOLE : PART;
    }
}

static int of_four(uint32_t bytes)
{
    uint32_t point = (bytes >> 24 & 7) << 18 | (bytes >> 16 & 63) << 12 |
                     (bytes >> 8 & 63) << 6 | (bytes & 63);
    uint8_t b[4];
    if (!is_scalar(point) || encode(point, b) != 4)
        return DEAD;
    return bytes == ((uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 |
                     (uint32_t)b[2] << 8 | b[3])
               ? WHOLE
               : DEAD;
}

/* The reference's place in a text: the bytes of a character under way. */
typedef struct {
    uint32_t bytes;
    int count, dead;
} walker;

static void walk(walker *w, uint8_t b)
{
    int is;
    w->bytes = w->bytes << 8 | b;
    w->count++;
    is = w->count == 1   ? of_one[w->bytes]
         : w->count == 2 ? of_two[w->bytes]
         : w->count == 3 ? of_three[w->bytes]
                         : of_four(w->bytes);
    if (is == DEAD)
        w->dead = 1;
    if (is != WHOLE)
        return;
    w->bytes = 0;
    w->count = 0;
}

/* Where the text dies; n when it does not.  *ends: it may end there. */
static size_t dies_at(const uint8_t *p, size_t n, int *ends)
{
    walker w = {0, 0, 0};
    size_t i;
    for (i = 0; i < n; i++) {
        walk(&w, p[i]);
        if (w.dead)
            break;
    }
    *ends = !w.dead && w.count == 0;
    return i;
}

/* ---- UTF-8: the code against it ------------------------------------------ */

/* How often the two differ over one text, fed byte by byte and whole. */
static long differs(const uint8_t *p, size_t n)
{
    rt__utf8 u = {0};
    walker w = {0, 0, 0};
    long bad = 0;
    size_t i;
    for (i = 0; i < n && !w.dead; i++) {
        int alive = rt__utf8_feed(&u, p + i, 1);
        walk(&w, p[i]);
        bad += alive != !w.dead;
        bad += alive && (u.need == 0) != (w.count == 0);
    }
    return bad + (rt__utf8_valid(p, n) != (!w.dead && w.count == 0));
}

static void compare_all_sequences_of(size_t n)
{
    uint8_t *p = guard_last(&page, n);
    uint32_t x, end = (uint32_t)1 << 8 * n;
    long bad = 0;
    size_t i;
    for (x = 0; x < end; x++) {
        for (i = 0; i < n; i++)
            p[i] = (uint8_t)(x >> 8 * (n - 1 - i));
        bad += differs(p, n);
    }
    EQUAL(bad, 0);
}

static void utf8_all_sequences_of_one_byte(void)
{
    compare_all_sequences_of(1);
}

static void utf8_all_sequences_of_two_bytes(void)
{
    compare_all_sequences_of(2);
}

static void utf8_all_sequences_of_three_bytes(void)
{
    compare_all_sequences_of(3);
}

/* Mostly near the rules: a lead of four bytes, continuations behind it. */
static void utf8_many_sequences_of_four_bytes(void)
{
    uint8_t *p = guard_last(&page, 4);
    long i, bad = 0, whole = 0;
    seed = 4;
    for (i = 0; i < 1000000; i++) {
        uint64_t r = next_random();
        p[0] = (uint8_t)(r & 7 ? 0xf0 + (r >> 8) % 6 : r >> 8);
        p[1] = (uint8_t)(r & 0x30 ? 0x80 | (r >> 16 & 63) : r >> 16);
        p[2] = (uint8_t)(r & 0x38 ? 0x80 | (r >> 24 & 63) : r >> 24);
        p[3] = (uint8_t)(r & 0xc0 ? 0x80 | (r >> 32 & 63) : r >> 32);
        bad += differs(p, 4);
        whole += rt__utf8_valid(p, 4);
    }
    EQUAL(bad, 0);
    CHECK(whole > 100000 && whole < 900000); /* both sides were tried */
}

static void utf8_every_code_point(void)
{
    uint32_t point;
    long bad = 0;
    for (point = 0; point <= 0x10ffff; point++) {
        uint8_t b[4];
        size_t n = encode(point, b);
        bad += rt__utf8_valid(guard_copy(&page, b, n), n) != is_scalar(point);
    }
    EQUAL(bad, 0);
}

static const char *const texts[] = {
    "",
    "plain",
    "\xc3\xa9t\xc3\xa9",
    "a\xe2\x82\xac"
    "b\xf0\x9f\x98\x80"
    "c\xc2\x80",
    "\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf",
    "sixteen letters \xce\xba\xe1\xbd\xb9 and more",
    "cut \xe2\x82",
    "cut \xf0\x9f\x98",
    "over \xc0\x80 long",
    "over \xe0\x9f\xbf long",
    "over \xf0\x8f\xbf\xbf long",
    "half \xed\xa0\x80 pair",
    "beyond \xf4\x90\x80\x80 all",
    "never \xff byte",
    "lone \x80 tail",
    "\xe2\x82x\xf0\x9f\x98\x80 its third byte is missing",
    "\xf0\x9f\x98\x80\x80 one too many"};

/* What the machine is good at, and the same on every machine. */
typedef struct {
    size_t (*mask)(uint8_t *out, const uint8_t *in, size_t n,
                   const uint8_t mask[4], size_t phase);
    int (*feed)(rt__utf8 *u, const uint8_t *p, size_t n);
} twin;

static const twin twins[] = {{rt__mask, rt__utf8_feed},
                             {rt__mask_words, rt__utf8_feed_words}};

/* One part of a text, flush against the forbidden page. */
static int feed_part(rt__utf8 *u, const char *text, size_t from, size_t to)
{
    return rt__utf8_feed(u, guard_copy(&page, text + from, to - from),
                         to - from);
}

/* Each part says 1 until the one with the byte that kills the text. */
static void compare_split(const char *text, size_t a, size_t b)
{
    size_t cut[4], i, dead;
    rt__utf8 u = {0};
    int ends;
    cut[0] = 0;
    cut[1] = a;
    cut[2] = b;
    cut[3] = strlen(text);
    dead = dies_at((const uint8_t *)text, cut[3], &ends);
    for (i = 0; i < 3; i++) {
        int alive = feed_part(&u, text, cut[i], cut[i + 1]);
        EQUAL(alive, dead >= cut[i + 1]);
        if (!alive)
            return;
    }
    EQUAL(u.need == 0, ends);
}

static void utf8_every_split_of_mixed_texts(void)
{
    size_t i, a, b;
    for (i = 0; i < COUNT(texts); i++)
        for (b = 0; b <= strlen(texts[i]); b++)
            for (a = 0; a <= b; a++)
                compare_split(texts[i], a, b);
}

static const char *const odd[] = {
    "",     "\x80",     "\xc3\xa9",         "\xe2\x82\xac",
    "\xff", "\xc3\xc3", "\xf0\x9f\x98\x80", "\xe2\x82"};

/* ASCII with something else at one place; 0 when it does not fit. */
static int ascii_but(uint8_t *p, size_t n, size_t at, const char *but)
{
    size_t size = strlen(but);
    if (at + size > n)
        return 0;
    memset(p, 'a', n);
    memcpy(p + at, but, size);
    return 1;
}

/* A text as one part, to its last byte; *ends: it may end there. */
static int feed_whole(const twin *t, const uint8_t *p, size_t n, int *ends)
{
    rt__utf8 u = {0};
    int alive = t->feed(&u, p, n);
    *ends = alive && u.need == 0;
    return alive;
}

/* The code skips ASCII in blocks and words: what ends the run stands at every
   place. */
static void compare_in_ascii(size_t n, size_t at, const char *but)
{
    uint8_t *p = guard_last(&page, n);
    size_t i, dead;
    int ends, ended;
    if (!ascii_but(p, n, at, but))
        return;
    dead = dies_at(p, n, &ends);
    EQUAL(rt__utf8_valid(p, n), ends);
    for (i = 0; i < COUNT(twins); i++) {
        EQUAL(feed_whole(&twins[i], p, n, &ended), dead == n);
        EQUAL(ended, ends);
    }
    memmove(guard_first(&page), p, n);
    EQUAL(rt__utf8_valid(guard_first(&page), n), ends);
}

static void utf8_after_ascii_of_every_length(void)
{
    size_t n, at, i;
    for (n = 0; n <= 300; n += n < 150 ? 1 : 13)
        for (at = 0; at <= n; at++)
            for (i = 0; i < COUNT(odd); i++)
                compare_in_ascii(n, at, odd[i]);
}

/* ---- masks --------------------------------------------------------------- */

static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};

/* Byte by byte, as RFC 6455, 5.3 has it. */
static int is_masked(const uint8_t *out, const uint8_t *in, size_t n,
                     size_t phase)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (out[i] != (in[i] ^ key[(phase + i) % 4]))
            return 0;
    return 1;
}

static int is_filled(const uint8_t *p, size_t n, uint8_t with)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (p[i] != with)
            return 0;
    return 1;
}

/* Each alignment to 32 from either end; n bytes always fit. */
enum { PLACES = 64, LONGEST = 300 };

static uint8_t *place_of(const guard *g, size_t place, size_t n)
{
    return place < 32 ? guard_first(g) + place
                      : guard_last(g, n) - (place - 32);
}

static void fill(uint8_t *p, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        p[i] = (uint8_t)(i * 29 + 5);
}

/* What stands beside out and may not change: up to 32 bytes on each side. */
typedef struct {
    uint8_t *from, *out, *end;
    size_t n;
} beside;

static beside beside_fill(const guard *g, uint8_t *out, size_t n)
{
    beside b;
    size_t before = (size_t)(out - guard_first(g));
    size_t after = (size_t)(guard_last(g, 0) - (out + n));
    b.from = out - (before < 32 ? before : 32);
    b.end = out + n + (after < 32 ? after : 32);
    b.out = out;
    b.n = n;
    memset(b.from, 0xee, (size_t)(b.end - b.from));
    return b;
}

static int is_beside_whole(const beside *b)
{
    return is_filled(b->from, (size_t)(b->out - b->from), 0xee) &&
           is_filled(b->out + b->n, (size_t)(b->end - b->out) - b->n, 0xee);
}

/* Is what a mask function said about ASCII true, and not too little?  The 64
   bytes behind it are not all ASCII. */
static int is_ascii_run(const uint8_t *out, size_t n, size_t said)
{
    size_t run = 0;
    while (run < n && out[run] < 0x80)
        run++;
    return said == n ? run == n : said <= run && run < n && run - said < 64;
}

static void mask_copies(const twin *t, size_t n, size_t phase, size_t from,
                        size_t to)
{
    uint8_t *in = place_of(&page, from, n), *out = place_of(&other, to, n);
    beside around = beside_fill(&other, out, n);
    uint8_t before[LONGEST];
    fill(in, n);
    memcpy(before, in, n);
    CHECK(is_ascii_run(out, n, t->mask(out, in, n, key, phase)));
    CHECK(is_masked(out, in, n, phase));
    CHECK(is_beside_whole(&around));
    CHECK(memcmp(before, in, n) == 0);
}

static void mask_where_it_stands(const twin *t, size_t n, size_t phase,
                                 size_t place)
{
    uint8_t *p = place_of(&page, place, n), before[LONGEST];
    beside around = beside_fill(&page, p, n);
    fill(p, n);
    memcpy(before, p, n);
    CHECK(is_ascii_run(p, n, t->mask(p, p, n, key, phase)));
    CHECK(is_masked(p, before, n, phase));
    CHECK(is_beside_whole(&around));
    t->mask(p, p, n, key, phase);
    CHECK(memcmp(p, before, n) == 0);
}

/* Every place of the input, and every one of the output: not every pair. */
static void mask_of_every_length_phase_and_place(void)
{
    size_t i, n, phase, place;
    for (i = 0; i < COUNT(twins); i++)
        for (n = 0; n <= LONGEST; n++)
            for (phase = 0; phase < 4; phase++)
                for (place = 0; place < PLACES; place++)
                    mask_copies(&twins[i], n, phase, place,
                                (place * 5 + n) % PLACES);
}

static void mask_in_place(void)
{
    size_t i, n, phase, place;
    for (i = 0; i < COUNT(twins); i++)
        for (n = 0; n <= LONGEST; n++)
            for (phase = 0; phase < 4; phase++)
                for (place = 0; place < PLACES; place++)
                    mask_where_it_stands(&twins[i], n, phase, place);
}

/* A phase is a place in a payload, which may be far from its begin. */
static void mask_in_parts_is_the_mask_of_the_whole(void)
{
    static const size_t far[] = {4, 7, 65535, 1u << 31, SIZE_MAX / 2};
    uint8_t *in = guard_last(&page, 70), *out = guard_last(&other, 70);
    size_t cut, i;
    fill(in, 70);
    for (cut = 0; cut <= 70; cut++) {
        memset(out, 0, 70);
        rt__mask(out, in, cut, key, 0);
        rt__mask(out + cut, in + cut, 70 - cut, key, cut);
        CHECK(is_masked(out, in, 70, 0));
    }
    for (i = 0; i < COUNT(far); i++) {
        rt__mask(out, in, 70, key, far[i]);
        CHECK(is_masked(out, in, 70, far[i]));
    }
}

/* ---- unmasking and UTF-8 in one pass ------------------------------------- */

/* Unmasks a part of a text where it stands, and checks what is not known to
   be ASCII; in the midst of a character nothing is. */
static int unmask_part(const twin *t, rt__utf8 *u, uint8_t *p, size_t from,
                       size_t to)
{
    size_t ascii = t->mask(p + from, p + from, to - from, key, from);
    CHECK(is_ascii_run(p + from, to - from, ascii));
    if (u->need)
        ascii = 0;
    return t->feed(u, p + from + ascii, to - from - ascii);
}

/* A text is masked, and unmasked in two parts. */
static void unmask_in_parts(const twin *t, const uint8_t *text, size_t n,
                            size_t cut)
{
    uint8_t *p = guard_copy(&page, text, n);
    rt__utf8 u = {0};
    int ends, alive;
    size_t i, dead = dies_at(text, n, &ends);
    for (i = 0; i < n; i++)
        p[i] ^= key[i % 4];
    alive = unmask_part(t, &u, p, 0, cut);
    EQUAL(alive, dead >= cut);
    if (!alive)
        return;
    EQUAL(unmask_part(t, &u, p, cut, n), dead == n);
    EQUAL(dead == n && u.need == 0, ends);
    CHECK(memcmp(p, text, n) == 0);
}

static void unmask_in_every_two_parts(size_t n, size_t at, const char *but)
{
    uint8_t text[LONGEST];
    size_t i, cut;
    if (!ascii_but(text, n, at, but))
        return;
    for (i = 0; i < COUNT(twins); i++)
        for (cut = 0; cut <= n; cut++)
            unmask_in_parts(&twins[i], text, n, cut);
}

static void unmasked_text_is_checked_at_every_place_and_split(void)
{
    static const size_t lengths[] = {5, 64, 71, 150};
    size_t l, at, i;
    for (l = 0; l < COUNT(lengths); l++)
        for (at = 0; at <= lengths[l]; at++)
            for (i = 0; i < COUNT(odd); i++)
                unmask_in_every_two_parts(lengths[l], at, odd[i]);
}

/* Characters of one byte, of one and two, or of more kinds. */
static size_t random_text(uint8_t text[LONGEST])
{
    static const uint32_t below[] = {0x80, 0x80, 0x800, 0x10000, 0x110000};
    size_t n = 0, want = (size_t)(next_random() % (LONGEST - 4));
    uint64_t kinds = 1 + next_random() % COUNT(below);
    while (n < want) {
        uint64_t r = next_random();
        uint32_t point = (uint32_t)(r >> 32) % below[r % kinds];
        n += is_scalar(point) ? encode(point, text + n) : 0;
    }
    return n;
}

/* Every other text has one bit changed, and mostly is wrong then. */
static void unmasked_text_of_any_characters(void)
{
    uint8_t text[LONGEST];
    long round, whole = 0;
    seed = 5;
    for (round = 0; round < 20000; round++) {
        size_t i, n = random_text(text);
        int ends;
        if (n > 0 && round % 2)
            text[next_random() % n] ^= (uint8_t)(1 << next_random() % 8);
        dies_at(text, n, &ends);
        whole += ends;
        for (i = 0; i < COUNT(twins); i++)
            unmask_in_parts(&twins[i], text, n,
                            (size_t)(next_random() % (n + 1)));
    }
    CHECK(whole > 10000 && whole < 19000); /* both sides were tried */
}

/* ---- frames -------------------------------------------------------------- */

/* The first bytes that RFC 6455 (5.2, 5.4, 5.5) lets stand without an
   extension: no RSV, a known opcode, no control frame in fragments. */
static int first_is_legal(unsigned int b)
{
    static const uint8_t legal[] = {0x00, 0x01, 0x02, 0x80, 0x81,
                                    0x82, 0x88, 0x89, 0x8a};
    return memchr(legal, (int)b, sizeof legal) != NULL;
}

/* What the first two bytes say: the size of the head, or -1. */
static int head_size(unsigned int b0, unsigned int b1, int masked)
{
    unsigned int len = b1 % 128;
    if (!first_is_legal(b0) || (b1 >= 128) != masked)
        return -1;
    if (b0 >= 0x88 && len > 125)
        return -1;
    return 2 + (len == 126 ? 2 : len == 127 ? 8 : 0) + (masked ? 4 : 0);
}

/* Whole heads behind these two bytes: with the least length of that width. */
static void head_write(uint8_t head[14], unsigned int b0, unsigned int b1)
{
    memset(head, 0, 14);
    head[0] = (uint8_t)b0;
    head[1] = (uint8_t)b1;
    if (b1 % 128 == 126)
        head[3] = 126;
    if (b1 % 128 == 127)
        head[7] = 1; /* 65,536 */
}

static void compare_head(unsigned int b0, unsigned int b1, int masked)
{
    uint8_t head[14];
    rt__frame f;
    int size = head_size(b0, b1, masked);
    size_t whole = size < 0 ? 14 : (size_t)size;
    unsigned int len = b1 % 128;
    head_write(head, b0, b1);
    if (size > 0 && masked)
        memcpy(head + whole - 4, key, 4);
    memset(&f, 0xee, sizeof f);
    EQUAL(rt__frame_read(guard_copy(&page, head, 2), 2, masked, &f),
          size > 2 ? 0 : size);
    EQUAL(rt__frame_read(guard_copy(&page, head, whole), whole, masked, &f),
          size);
    if (size < 0)
        return;
    EQUAL(f.fin, b0 >= 128);
    EQUAL(f.op, b0 % 16);
    EQUAL(f.masked, masked);
    EQUAL(f.len, len == 127 ? 65536 : len);
    CHECK(!masked || memcmp(f.mask, key, 4) == 0);
}

static void frame_heads_of_every_two_bytes(void)
{
    unsigned int b0, b1;
    for (b0 = 0; b0 < 256; b0++) {
        for (b1 = 0; b1 < 256; b1++) {
            compare_head(b0, b1, 0);
            compare_head(b0, b1, 1);
        }
    }
}

static void frame_of_less_than_two_bytes(void)
{
    unsigned int b;
    rt__frame f;
    EQUAL(rt__frame_read(guard_last(&page, 0), 0, 0, &f), 0);
    EQUAL(rt__frame_read(guard_last(&page, 0), 0, 1, &f), 0);
    for (b = 0; b < 256; b++) {
        uint8_t *p = guard_last(&page, 1);
        *p = (uint8_t)b;
        EQUAL(rt__frame_read(p, 1, 0, &f), first_is_legal(b) ? 0 : -1);
        EQUAL(rt__frame_read(p, 1, 1, &f), first_is_legal(b) ? 0 : -1);
    }
}

/* Where sums of lengths wrap, where signs turn, where widths change. */
static const uint64_t lengths[] = {0,
                                   1,
                                   124,
                                   125,
                                   126,
                                   127,
                                   128,
                                   255,
                                   256,
                                   65534,
                                   65535,
                                   65536,
                                   65537,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   0x100000000,
                                   (uint64_t)1 << 62,
                                   ((uint64_t)1 << 63) - 1,
                                   (uint64_t)1 << 63,
                                   UINT64_MAX - 3,
                                   UINT64_MAX};

/* A head with that length in wide bytes (0: in the second), by hand. */
static size_t head_build(uint8_t head[14], uint64_t len, size_t wide,
                         int masked)
{
    size_t i, n = 2;
    head[0] = 0x82;
    head[1] = (uint8_t)(wide == 0 ? len : wide == 2 ? 126 : 127);
    for (i = wide; i > 0; i--)
        head[n++] = (uint8_t)(len >> 8 * (i - 1));
    if (!masked)
        return n;
    head[1] = (uint8_t)(head[1] + 128);
    memcpy(head + n, key, 4);
    return n + 4;
}

/* RFC 6455, 5.2: the least width, and the most significant bit is 0. */
static int is_least(uint64_t len, size_t wide)
{
    if (wide == 0)
        return len <= 125;
    if (wide == 2)
        return len >= 126 && len <= 65535;
    return len >= 65536 && len <= INT64_MAX;
}

/* A good head wants all of its bytes; a bad one is never taken for good. */
static void compare_cuts(const uint8_t *head, size_t size, int masked, int good)
{
    size_t n;
    for (n = 0; n < size; n++) {
        rt__frame f;
        int is = rt__frame_read(guard_copy(&page, head, n), n, masked, &f);
        CHECK(is == 0 || (!good && is < 0));
    }
}

static void compare_length(uint64_t len, size_t wide, int masked)
{
    uint8_t head[14], longer[16] = {0};
    size_t size = head_build(head, len, wide, masked);
    int good = is_least(len, wide);
    rt__frame f;
    int is = rt__frame_read(guard_copy(&page, head, size), size, masked, &f);
    EQUAL(is, good ? (int)size : -1);
    CHECK(!good || f.len == len);
    CHECK(!good || !masked || memcmp(f.mask, key, 4) == 0);
    compare_cuts(head, size, masked, good);
    memcpy(longer, head, size);
    EQUAL(rt__frame_read(longer, sizeof longer, masked, &f), is);
    EQUAL(rt__frame_read(head, size, !masked, &f), -1);
}

static void frame_lengths_in_every_width(void)
{
    static const struct {
        size_t wide;
        uint64_t most;
    } form[] = {{0, 125}, {2, 65535}, {8, UINT64_MAX}};
    size_t i, j;
    for (i = 0; i < COUNT(lengths); i++) {
        for (j = 0; j < COUNT(form); j++) {
            if (lengths[i] > form[j].most)
                continue; /* it has no such form */
            compare_length(lengths[i], form[j].wide, 0);
            compare_length(lengths[i], form[j].wide, 1);
        }
    }
}

/* The whole range of the 16 bit form: below 126 it is not the least. */
static void frame_every_length_of_two_bytes(void)
{
    uint8_t head[14];
    uint64_t len;
    rt__frame f;
    for (len = 0; len < 65536; len++) {
        size_t size = head_build(head, len, 2, 0);
        int is = rt__frame_read(head, size, 0, &f);
        EQUAL(is, len < 126 ? -1 : 4);
        CHECK(is < 0 || f.len == len);
    }
}

static void compare_written(int op, size_t len, const uint8_t *mask)
{
    uint8_t head[14], *out;
    size_t wide = len <= 125 ? 0 : len <= 65535 ? 2 : 8;
    size_t size = head_build(head, len, wide, mask != NULL);
    rt__frame f;
    head[0] = (uint8_t)(0x80 + op);
    out = guard_last(&other, size);
    EQUAL(rt__frame_write(out, op, len, mask), size);
    CHECK(memcmp(out, head, size) == 0);
    if (op >= 8 && len > 125)
        return; /* nobody writes those; nobody reads them */
    EQUAL(rt__frame_read(out, size, mask != NULL, &f), size);
    EQUAL(f.op, op);
    EQUAL(f.fin, 1);
    CHECK(f.len == len);
    CHECK(!mask || memcmp(f.mask, mask, 4) == 0);
}

static void frame_written_is_the_frame_read(void)
{
    static const int ops[] = {0, 1, 2, 8, 9, 10};
    size_t i, j;
    for (i = 0; i < COUNT(lengths); i++) {
        size_t len = (size_t)lengths[i];
        if (len != lengths[i] || lengths[i] > INT64_MAX)
            continue;
        for (j = 0; j < COUNT(ops); j++) {
            compare_written(ops[j], len, NULL);
            compare_written(ops[j], len, key);
        }
    }
}

/* ---- close codes --------------------------------------------------------- */

/* RFC 6455, 7.4.1 and 7.4.2, and what IANA registered since (1012..1014):
   1004, 1005, 1006 and 1015 are never on the wire, the rest is unassigned. */
static void every_close_code(void)
{
    static const uint16_t sendable[][2] = {
        {1000, 1003}, {1007, 1011}, {1012, 1014}, {3000, 3999}, {4000, 4999}};
    static uint8_t may[1 << 16];
    int code;
    size_t i;
    for (i = 0; i < COUNT(sendable); i++)
        for (code = sendable[i][0]; code <= sendable[i][1]; code++)
            may[code] = 1;
    for (code = 0; code < 1 << 16; code++)
        EQUAL(!!rt__close_code_valid(code), may[code]);
    for (code = 1; code <= 5000; code++)
        CHECK(!rt__close_code_valid(-code));
    CHECK(!rt__close_code_valid(INT_MIN));
    CHECK(!rt__close_code_valid(INT_MAX));
    CHECK(!rt__close_code_valid(1000 + (1 << 16)));
}

/* ---- SHA-1 --------------------------------------------------------------- */

static void hex_of(const uint8_t *p, size_t n, char *out)
{
    size_t i;
    for (i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", (unsigned int)p[i]);
}

static int sha1_is(const void *data, size_t n, const char *want)
{
    uint8_t *sum = guard_last(&other, 20);
    char hex[41];
    rt__sha1(data, n, sum);
    hex_of(sum, 20, hex);
    return strcmp(hex, want) == 0;
}

/* FIPS 180-4, the examples; and the empty message. */
static void sha1_of_the_published_messages(void)
{
    static const char *const known[][2] = {
        {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
         "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
         "a49b2446a02c645bf419f995b67091253a04a259"}};
    guard million = guard_open(1000000);
    uint8_t *a = guard_last(&million, 1000000);
    size_t i, n;
    for (i = 0; i < COUNT(known); i++) {
        n = strlen(known[i][0]);
        CHECK(sha1_is(guard_copy(&page, known[i][0], n), n, known[i][1]));
    }
    memset(a, 'a', 1000000);
    CHECK(sha1_is(a, 1000000, "34aa973cd4c4daa4f61eeb2bdbad27316534016f"));
    guard_close(&million);
}

/* n bytes of a pattern that the sums below were made of, elsewhere. */
static const uint8_t *pattern(size_t n)
{
    uint8_t *p = guard_last(&page, n);
    size_t i;
    for (i = 0; i < n; i++)
        p[i] = (uint8_t)(i * 167 + (i >> 3) * 31 + 13);
    return p;
}

/* The first word of the sum, for lengths around the ends of one block and of
   two, and of the room for the length in them. */
static void sha1_around_the_ends_of_blocks(void)
{
    static const struct {
        size_t n;
        uint32_t word;
    } known[] = {{0, 0xda39a3eeu},   {1, 0x11f4de6bu},   {2, 0x19dff668u},
                 {3, 0x02326a7cu},   {53, 0x6251ba54u},  {54, 0x3ad5b390u},
                 {55, 0xaa00c216u},  {56, 0x97d61e27u},  {57, 0x728ae912u},
                 {58, 0xb73d93a1u},  {59, 0xe8d3d35du},  {60, 0xf46e46edu},
                 {61, 0xf9287fc6u},  {62, 0x75db44cau},  {63, 0x159f6fb7u},
                 {64, 0xf416104bu},  {65, 0x10636c49u},  {66, 0xd9f2c01au},
                 {67, 0xb64778edu},  {117, 0xf745c282u}, {118, 0xae8c1c23u},
                 {119, 0x104e579cu}, {120, 0xb00d6ba0u}, {121, 0xa4a3908au},
                 {122, 0x0a899516u}, {123, 0x2315f1f7u}, {124, 0x4c95831bu},
                 {125, 0xe880c304u}, {126, 0x3739797du}, {127, 0x2952969du},
                 {128, 0xa2c5ee70u}, {129, 0xce095777u}, {130, 0x85d1aadcu},
                 {131, 0x6dd49884u}};
    uint8_t sum[20];
    size_t i;
    for (i = 0; i < COUNT(known); i++) {
        rt__sha1(pattern(known[i].n), known[i].n, sum);
        EQUAL((uint32_t)sum[0] << 24 | (uint32_t)sum[1] << 16 |
                  (uint32_t)sum[2] << 8 | sum[3],
              known[i].word);
    }
}

/* All bits of the sums of 0..300 bytes, in a chain. */
static void sha1_of_every_length(void)
{
    uint8_t link[40] = {0};
    char hex[41];
    size_t n;
    for (n = 0; n <= 300; n++) {
        rt__sha1(pattern(n), n, link + 20);
        rt__sha1(link, sizeof link, link);
    }
    hex_of(link, 20, hex);
    CHECK(strcmp(hex, "34d47e60fec3ee57ffd01d28d1533fe00b6a18e1") == 0);
}

/* ---- base64 and the accept key ------------------------------------------- */

/* Encodes n bytes, with exactly the room that is promised to be enough. */
static const char *base64_of(const void *in, size_t n)
{
    char *out = (char *)guard_last(&other, (n + 2) / 3 * 4 + 1);
    rt__base64(guard_copy(&page, in, n), n, out);
    return out;
}

/* RFC 4648, section 10; and all digits in their order (table 1). */
static void base64_of_the_published_texts(void)
{
    static const char *const known[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\x14\xfb\x9c\x03\xd9\x7e", "FPucA9l+"},
        {"\xff\xff\xfe", "///+"}};
    size_t i;
    for (i = 0; i < COUNT(known); i++)
        CHECK(strcmp(base64_of(known[i][0], strlen(known[i][0])),
                     known[i][1]) == 0);
}

/* The value of a digit; '=' counts 0. */
static uint32_t digit(char c)
{
    static const char all[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c == '=' ? all : strchr(all, c);
    CHECK(at && *at);
    return at ? (uint32_t)(at - all) : 0;
}

static size_t decode(const char *text, uint8_t *out)
{
    size_t n = 0;
    for (; *text; text += 4) {
        uint32_t x = digit(text[0]) << 18 | digit(text[1]) << 12 |
                     digit(text[2]) << 6 | digit(text[3]);
        out[n++] = (uint8_t)(x >> 16);
        out[n++] = (uint8_t)(x >> 8);
        out[n++] = (uint8_t)x;
        n -= text[2] == '=' ? 2 : text[3] == '=' ? 1 : 0;
    }
    return n;
}

static void base64_of_every_length_comes_back(void)
{
    uint8_t in[100], back[104];
    size_t n, i;
    seed = 64;
    for (n = 0; n <= sizeof in; n++) {
        const char *text;
        for (i = 0; i < n; i++)
            in[i] = (uint8_t)next_random();
        text = base64_of(in, n);
        EQUAL(strlen(text), (n + 2) / 3 * 4);
        if (strlen(text) != (n + 2) / 3 * 4)
            return;
        EQUAL(decode(text, back), n);
        CHECK(memcmp(in, back, n) == 0);
    }
}

/* RFC 6455, 1.3 and 4.2.2; the key is 24 characters, a NUL need not follow. */
static void accept_key_of_the_rfc(void)
{
    char *out = (char *)guard_last(&other, 29);
    rt__accept_key(
        (const char *)guard_copy(&page, "dGhlIHNhbXBsZSBub25jZQ==", 24), out);
    CHECK(strcmp(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == 0);
    rt__accept_key("x3JJHMbDL1EzLkh9GBhXDw==", out);
    CHECK(strcmp(out, "HSmrc0sMlYUkAGmm5OPpG2HaGWk=") == 0);
}

/* ---- texts of HTTP ------------------------------------------------------- */

static int visible(const char *text)
{
    return rt__visible(guard_text(&page, text)) != 0;
}

static int token_list(const char *text)
{
    return rt__token_list(guard_text(&page, text)) != 0;
}

static int header_lines(const char *text)
{
    return rt__header_lines(guard_text(&page, text)) != 0;
}

static void visible_is_every_byte_from_21_to_7e(void)
{
    int b;
    CHECK(visible(""));
    for (b = 1; b < 256; b++) {
        char alone[2] = {0}, among[4] = "a-z";
        alone[0] = among[1] = (char)b;
        EQUAL(visible(alone), b >= 0x21 && b <= 0x7e);
        EQUAL(visible(among), b >= 0x21 && b <= 0x7e);
    }
}

/* RFC 9110, 5.6.2. */
static int is_token_byte(int b)
{
    static const char all[] = "!#$%&'*+-.^_`|~0123456789"
                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "abcdefghijklmnopqrstuvwxyz";
    return strchr(all, b) != NULL;
}

static void token_list_takes_the_bytes_of_tokens_alone(void)
{
    int b;
    for (b = 1; b < 256; b++) {
        char alone[2] = {0}, last[] = "one, t?", among[] = "t?wo";
        alone[0] = last[6] = among[1] = (char)b;
        if (b != ' ' && b != '\t') { /* blanks around tokens are no matter */
            EQUAL(token_list(alone), is_token_byte(b));
            EQUAL(token_list(last), is_token_byte(b));
        }
        EQUAL(token_list(among), is_token_byte(b) || b == ',');
    }
}

static void token_list_of_all_forms(void)
{
    static const struct {
        const char *text;
        int good;
    } row[] = {{"", 1},           {"chat", 1},      {"chat.v2", 1},
               {"a,b", 1},        {"a, b", 1},      {"a ,b", 1},
               {"a \t,\t b", 1},  {"  a", 1},       {"a  ", 1},
               {"a, b, c, d", 1}, {",", 0},         {",a", 0},
               {"a,", 0},         {"a, ", 0},       {"a,,b", 0},
               {"a, ,b", 0},      {"a b", 0},       {"a;b", 0},
               {"\"a\"", 0},      {"a\r\nX: y", 0}, {"a, b\r\n", 0},
               {"a\n", 0},        {"a, \r\n b", 0}, {"a\x7f", 0},
               {"caf\xc3\xa9", 0}};
    size_t i;
    for (i = 0; i < COUNT(row); i++) {
        test_begin("token_list %s", row[i].text);
        EQUAL(token_list(row[i].text), row[i].good);
        test_end();
    }
}

static void header_lines_of_all_forms(void)
{
    static const struct {
        const char *text;
        int good;
    } row[] = {{"", 1},
               {"A: b\r\n", 1},
               {"A: b", 1},
               {"A:b", 1},
               {"A:", 1},
               {"A:\r\n", 1},
               {"A: \tb c\t \r\n", 1},
               {"A: b\r\nC: d\r\n", 1},
               {"A: b\r\nC: d", 1},
               {"Set-Cookie: a=b; c\r\nSet-Cookie: d=e\r\n", 1},
               {"X: caf\xc3\xa9\r\n", 1},
               {"A: b: c:\r\n", 1},
               {"Hosts: a\r\nUpgrades: b\r\nConnection2: c\r\n", 1},
               {"Sec-WebSocket-Protocols: a\r\n", 1},
               {"X-Host: a", 1},
               {"A", 0},
               {"A b\r\n", 0},
               {":", 0},
               {": b\r\n", 0},
               {" A: b\r\n", 0},
               {"A : b\r\n", 0},
               {"A\t: b\r\n", 0},
               {"A b: c\r\n", 0},
               {"(A): b\r\n", 0},
               {"A: b\r\n\r\n", 0},
               {"\r\n", 0},
               {"\r\nA: b\r\n", 0},
               {"A: b\r\n C: d\r\n", 0},
               {"A: b\r\n\tC: d\r\n", 0},
               {"A: b\r\nC\r\n", 0},
               {"A: b\r\r\n", 0},
               {"A: b\n", 0},
               {"A: b\nC: d\r\n", 0},
               {"A: b\r", 0},
               {"A: b\rC: d\r\n", 0},
               {"A: b\r\n\n", 0},
               {"A: b\r\n\r", 0},
               {"A\r\n: b\r\n", 0},
               {"A: b\r\n\r\nGET / HTTP/1.1\r\nA: b", 0},
               {"caf\xc3\xa9: b\r\n", 0}};
    size_t i;
    for (i = 0; i < COUNT(row); i++) {
        test_begin("header_lines row %d", (int)i);
        EQUAL(header_lines(row[i].text), row[i].good);
        test_end();
    }
}

/* A NUL ends the text: what stands behind it is neither looked at nor sent. */
static void header_lines_end_at_the_first_nul(void)
{
    static const char text[] = "A: b\0\r\n\r\nevil";
    CHECK(header_lines(text));
    EQUAL(strlen(guard_text(&page, text)), 4);
    CHECK(!header_lines("A: b\r\nC\0: d\r\n"));
}

static void header_lines_with_every_byte(void)
{
    int b;
    for (b = 1; b < 256; b++) {
        char name[] = "X-?: y\r\n", value[] = "X: a?c\r\nY: z";
        int control = (b < 0x20 && b != '\t') || b == 0x7f;
        name[2] = value[4] = (char)b;
        EQUAL(header_lines(name), is_token_byte(b) || b == ':');
        EQUAL(header_lines(value), !control);
    }
}

/* Writes name with the case of the letters that bits chooses turned. */
static void turn_case(char *name, unsigned int bits)
{
    for (; *name; name++, bits = bits >> 1 | bits << 31)
        if ((bits & 1) && ((*name | 32) >= 'a' && (*name | 32) <= 'z'))
            *name = (char)(*name ^ 32);
}

static void reserved_in_any_case_and_place(const char *name)
{
    static const unsigned int cases[] = {0,          0xffffffff, 1,
                                         0x55555555, 0x80000400, 0x10};
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        char turned[40], line[100];
        snprintf(turned, sizeof turned, "%s", name);
        turn_case(turned, cases[i]);
        snprintf(line, sizeof line, "%s: x\r\n", turned);
        CHECK(!header_lines(line));
        snprintf(line, sizeof line, "A: b\r\n%s:x", turned);
        CHECK(!header_lines(line));
        snprintf(line, sizeof line, "A: b\r\nX%s:x", turned);
        CHECK(header_lines(line));
        snprintf(line, sizeof line, "A: b\r\n%.*s:x", (int)strlen(turned) - 1,
                 turned);
        CHECK(header_lines(line));
    }
}

static void header_lines_leave_the_handshake_alone(void)
{
    static const char *const names[] = {"Connection",
                                        "Upgrade",
                                        "Host",
                                        "Content-Length",
                                        "Transfer-Encoding",
                                        "Sec-WebSocket-Accept",
                                        "Sec-WebSocket-Key",
                                        "Sec-WebSocket-Extensions",
                                        "Sec-WebSocket-Version",
                                        "Sec-WebSocket-Protocol"};
    size_t i;
    for (i = 0; i < COUNT(names); i++) {
        test_begin("reserved: %s", names[i]);
        reserved_in_any_case_and_place(names[i]);
        test_end();
    }
}

/* ---- all ----------------------------------------------------------------- */

static void run_utf8(void)
{
    reference_make();
    RUN(utf8_all_sequences_of_one_byte);
    RUN(utf8_all_sequences_of_two_bytes);
    RUN(utf8_all_sequences_of_three_bytes);
    RUN(utf8_many_sequences_of_four_bytes);
    RUN(utf8_every_code_point);
    RUN(utf8_every_split_of_mixed_texts);
    RUN(utf8_after_ascii_of_every_length);
}

static void run_frames(void)
{
    RUN(mask_of_every_length_phase_and_place);
    RUN(mask_in_place);
    RUN(mask_in_parts_is_the_mask_of_the_whole);
    RUN(unmasked_text_is_checked_at_every_place_and_split);
    RUN(unmasked_text_of_any_characters);
    RUN(frame_of_less_than_two_bytes);
    RUN(frame_heads_of_every_two_bytes);
    RUN(frame_lengths_in_every_width);
    RUN(frame_every_length_of_two_bytes);
    RUN(frame_written_is_the_frame_read);
    RUN(every_close_code);
}

static void run_texts(void)
{
    RUN(sha1_of_the_published_messages);
    RUN(sha1_around_the_ends_of_blocks);
    RUN(sha1_of_every_length);
    RUN(base64_of_the_published_texts);
    RUN(base64_of_every_length_comes_back);
    RUN(accept_key_of_the_rfc);
    RUN(visible_is_every_byte_from_21_to_7e);
    RUN(token_list_takes_the_bytes_of_tokens_alone);
    token_list_of_all_forms();
    header_lines_of_all_forms();
    RUN(header_lines_end_at_the_first_nul);
    RUN(header_lines_with_every_byte);
    header_lines_leave_the_handshake_alone();
}

int main(void)
{
    page = guard_open(4096);
    other = guard_open(4096);
    RUN(the_pages_around_the_input_are_forbidden);
    run_utf8();
    run_frames();
    run_texts();
    guard_close(&page);
    guard_close(&other);
    return test_done();
}
