/* What the fuzz targets share; see fuzz.h. */
#include "fuzz.h"
#include "test/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A turn makes about five calls, and takes some hundred steps. */
enum { CALLS_OF_PIECE = 7, CALLS_FREE = 100 };
enum { STEPS_OF_BYTE = 60, STEPS_OF_PIECE = 400, STEPS_FREE = 10000 };
enum { HEAP_OF_BYTE = 4 };
enum { MOST_PIECES = 600 };

int fuzz_mild, fuzz_once;
uint64_t fuzz_steps;

struct text {
    char *at;
    size_t len, cap;
};

static struct {
    struct text told[FUZZ_CHANNELS], first[FUZZ_CHANNELS], events;
    int faults;
    char fault[1024];
} f;

/* ---- texts --------------------------------------------------------------- */

static char *text_room(struct text *t, size_t n)
{
    if (t->len + n + 1 > t->cap) {
        t->cap = 2 * (t->len + n + 1);
        t->at = realloc(t->at, t->cap);
        if (!t->at)
            exit(2);
    }
    return t->at + t->len;
}

static void text_add(struct text *t, const char *data, size_t n)
{
    memcpy(text_room(t, n), data, n);
    t->len += n;
    t->at[t->len] = 0;
}

static void text_hex(struct text *t, const uint8_t *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    char *out = text_room(t, 2 * n);
    size_t i;

    for (i = 0; i < n; i++) {
        *out++ = digits[p[i] >> 4];
        *out++ = digits[p[i] & 15];
    }
    *out = 0;
    t->len += 2 * n;
}

static const char *text_of(const struct text *t)
{
    return t->len ? t->at : "";
}

void fuzz_tell(enum fuzz_channel c, const char *format, ...)
{
    char line[1024];
    va_list list;

    va_start(list, format);
    vsnprintf(line, sizeof line - 1, format, list);
    va_end(list);
    strcat(line, "\n");
    text_add(&f.told[c], line, strlen(line));
}

void fuzz_tell_bytes(enum fuzz_channel c, const char *word, const void *data,
                     size_t len)
{
    struct text *t = &f.told[c];

    text_add(t, word, strlen(word));
    text_add(t, " ", 1);
    text_hex(t, data, len);
    text_add(t, "\n", 1);
}

static void events_add(const char *channel, const struct text *t)
{
    const char *p = text_of(t), *end;

    for (; *p; p = end + 1) {
        end = strchr(p, '\n');
        text_add(&f.events, channel, strlen(channel));
        text_add(&f.events, p, (size_t)(end + 1 - p));
    }
}

const char *fuzz_events(void)
{
    f.events.len = 0;
    events_add("app ", &f.first[FUZZ_APP]);
    events_add("data ", &f.first[FUZZ_DATA]);
    events_add("control ", &f.first[FUZZ_CONTROL]);
    return text_of(&f.events);
}

/* ---- faults -------------------------------------------------------------- */

void fuzz_wrong(const char *format, ...)
{
    va_list list;

    if (f.faults++)
        return;
    va_start(list, format);
    vsnprintf(f.fault, sizeof f.fault, format, list);
    va_end(list);
}

const char *fuzz_fault(void)
{
    return f.fault;
}

static void tales_forget(void)
{
    int c;

    for (c = 0; c < FUZZ_CHANNELS; c++)
        f.told[c].len = 0;
}

static void first_keep(void)
{
    int c;

    for (c = 0; c < FUZZ_CHANNELS; c++) {
        f.first[c].len = 0;
        text_add(&f.first[c], text_of(&f.told[c]), f.told[c].len);
    }
}

void fuzz_begin(void)
{
    f.faults = 0;
    f.fault[0] = 0;
    tales_forget();
    first_keep();
}

int fuzz_end(void)
{
    if (!f.faults)
        return 0;
    if (fuzz_mild)
        return 1;
    fprintf(stderr, "ORACLE: %s\n%s", f.fault, fuzz_events());
    abort();
}

/* ---- cutting ------------------------------------------------------------- */

/* Long inputs in pieces of more than a byte: there are only so many turns. */
static size_t piece_small(const struct fuzz_cut *cut)
{
    return 1 + cut->size / MOST_PIECES;
}

static size_t piece_any(struct fuzz_cut *cut, size_t left)
{
    uint32_t x;

    cut->state = cut->state * UINT64_C(6364136223846793005) + 1;
    x = (uint32_t)(cut->state >> 40);
    if (x & 1)
        return piece_small(cut);
    return 1 + (x >> 1) % (x & 2 ? 16 : left);
}

size_t fuzz_piece(struct fuzz_cut *cut, size_t left)
{
    size_t n = left;

    cut->pieces++;
    if (cut->way == FUZZ_BYTES)
        n = piece_small(cut);
    if (cut->way == FUZZ_SPLIT)
        n = piece_any(cut, left);
    return n < left ? n : left;
}

/* Where two tales part. */
static void tales_compare(enum fuzz_way way, int c)
{
    static const char *const ways[] = {"whole", "byte by byte", "split"};
    const char *a = text_of(&f.first[c]), *b = text_of(&f.told[c]);
    size_t i = 0;

    if (strcmp(a, b) == 0)
        return;
    while (a[i] == b[i])
        i++;
    while (i && a[i - 1] != '\n')
        i--;
    fuzz_wrong("channel %d, %s: %.200s\nbut whole: %.200s", c, ways[way], b + i,
               a + i);
}

int fuzz_three_ways(fuzz_play *play, const uint8_t *data, size_t size)
{
    int way, c;

    fuzz_begin();
    for (way = 0; size >= 2 && way < (fuzz_once ? 1 : FUZZ_WAYS); way++) {
        struct fuzz_cut cut = {(enum fuzz_way)way, data[1], size, 0};
        tales_forget();
        play(data, size, &cut);
        if (way == FUZZ_WHOLE)
            first_keep();
        for (c = 0; c < FUZZ_CHANNELS; c++)
            tales_compare((enum fuzz_way)way, c);
    }
    return fuzz_end();
}

/* ---- how much it may cost ------------------------------------------------ */

static uint64_t calls_all(void)
{
    uint64_t n = 0;
    int i;

    for (i = 0; i < SIM_CALL_COUNT; i++)
        n += sim_calls((enum sim_call)i);
    return n;
}

void fuzz_cost_begin(struct fuzz_cost *c)
{
    c->calls = calls_all();
    c->heap = sim_heap();
    c->steps = fuzz_steps;
}

void fuzz_cost_end(const struct fuzz_cost *c, size_t bytes, size_t pieces,
                   size_t heap)
{
    uint64_t calls = calls_all() - c->calls, steps = fuzz_steps - c->steps;

    if (getenv("FUZZ_COST"))
        fprintf(stderr, "%zu bytes, %zu pieces: %zu calls, %zu steps, +%zu\n",
                bytes, pieces, (size_t)calls, (size_t)steps,
                sim_heap_peak() - c->heap);
    if (calls > CALLS_OF_PIECE * pieces + CALLS_FREE)
        fuzz_wrong("%zu system calls for %zu pieces", (size_t)calls, pieces);
    if (steps > STEPS_OF_BYTE * bytes + STEPS_OF_PIECE * pieces + STEPS_FREE)
        fuzz_wrong("%zu steps for %zu bytes in %zu pieces", (size_t)steps,
                   bytes, pieces);
    heap += HEAP_OF_BYTE * bytes;
    if (sim_heap_peak() > c->heap + heap)
        fuzz_wrong("the heap grew by %zu, not at most %zu",
                   sim_heap_peak() - c->heap, heap);
}

/* ---- UTF-8 --------------------------------------------------------------- */

/* The size of a character by RFC 3629, its table in section 4; 0: none. */
static size_t character(const uint8_t *p, size_t n)
{
    size_t size = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4, i;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t c = p[0];

    if (size == 1)
        return 1;
    if (p[0] < 0xc0 || p[0] > 0xf7 || size > n)
        return 0;
    c &= 0x7fU >> size;
    for (i = 1; i < size; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fU);
    }
    if (c < least[size] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    return size;
}

int fuzz_utf8(const uint8_t *p, size_t n)
{
    size_t size;

    for (; n; p += size, n -= size) {
        size = character(p, n);
        if (!size)
            return 0;
    }
    return 1;
}
