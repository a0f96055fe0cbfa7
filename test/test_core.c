/*
 * The tools of the loop, each on a real one: memory, handles, timers, hash
 * tables, chance, buffers.  The allocator moves every block, poisons what it
 * gives and what it takes back, checks the sizes it is told and fails when it
 * is asked to; chance comes from a seed; the clock stands still until moved.
 */
#include "rtnet_internal.h"

#include "clock.h"
#include "descriptors.h"
#include "test.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint64_t seed;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)((next_random() >> 20) % n);
}

/* ---- the host: its allocator and its chance ------------------------------ */

enum { BLOCK_MAGIC = 0x600d, FRESH = 0xa5, STALE = 0xdb };

/* Stands before each block; keeps the alignment of malloc. */
typedef union {
    struct {
        size_t size, magic;
    } is;
    long double align;
} block;

typedef struct {
    size_t live;     /* bytes handed out */
    long calls;      /* that asked for memory */
    long fail_at;    /* this one of them gets none; 0: never */
    long fail_from;  /* this and all later ones; 0: never */
    long wrong;      /* calls with a size that is not the block's */
    uint64_t chance; /* state of the random hook */
    size_t drawn;    /* bytes it was asked for */
    int chance_fails;
} host;

static host h;

static void *block_new(size_t size)
{
    block *b = (block *)malloc(sizeof *b + size);
    if (!b)
        return NULL;
    b->is.size = size;
    b->is.magic = BLOCK_MAGIC;
    return memset(b + 1, FRESH, size);
}

/* Takes back a block that must be whole and of that size. */
static void block_end(host *at, void *p, size_t size)
{
    block *b = (block *)p - 1;
    if (b->is.magic != BLOCK_MAGIC || b->is.size != size) {
        at->wrong++;
        return;
    }
    at->live -= size;
    memset(b, STALE, sizeof *b + size);
    free(b);
}

static int host_fails(host *at)
{
    at->calls++;
    return at->calls == at->fail_at ||
           (at->fail_from && at->calls >= at->fail_from);
}

static void *host_realloc(void *user, void *p, size_t old, size_t now)
{
    host *at = (host *)user;
    void *q = NULL;
    if ((!p && (old || !now)) || (now && host_fails(at))) {
        at->wrong += !p && (old || !now);
        return NULL;
    }
    if (now && !(q = block_new(now)))
        return NULL;
    at->live += now;
    if (p && now)
        memcpy(q, p, old < now ? old : now);
    if (p)
        block_end(at, p, old);
    return q;
}

static int host_random(void *user, void *out, size_t n)
{
    host *at = (host *)user;
    uint8_t *p = (uint8_t *)out;
    size_t i;
    at->drawn += n;
    for (i = 0; i < n; i++) {
        at->chance = at->chance * 6364136223846793005u + 1442695040888963407u;
        p[i] = (uint8_t)(at->chance >> 56);
    }
    return at->chance_fails ? RT_ERANDOM : 0;
}

static rt_loop_opts host_opts(uint64_t chance, int backend)
{
    rt_loop_opts o;
    memset(&h, 0, sizeof h);
    memset(&o, 0, sizeof o);
    h.chance = chance;
    o.user = &h;
    o.realloc = host_realloc;
    o.random = host_random;
    o.backend = backend;
    return o;
}

/* ---- a loop to try things on --------------------------------------------- */

static rt_loop *loop_open(uint64_t chance)
{
    rt_loop_opts o = host_opts(chance, RT_AUTO);
    rt_loop *loop = rt_loop_new(&o);
    seed = chance * 2 + 1;
    if (loop)
        return loop;
    printf("there is no loop, so nothing can be tried\n");
    exit(1);
}

/* Every byte came back, and every size that was told is right. */
static void loop_close(rt_loop *loop)
{
    EQUAL(loop->heap, h.live);
    rt_loop_free(loop);
    EQUAL(h.live, 0);
    EQUAL(h.wrong, 0);
    clock_goes();
}

static void memory_ends(void)
{
    h.fail_from = h.calls + 1;
}

static void memory_is_back(void)
{
    h.fail_from = 0;
}

/* One hour from now it stands still, until a test moves it. */
static void clock_hold(rt_loop *loop)
{
    still_us = loop->last_micros + (uint64_t)3600 * 1000 * 1000;
    rt_now(loop);
}

static void clock_move(uint64_t ms)
{
    still_us += ms * 1000;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* How many of n numbers were there before; sorts them. */
static size_t doubles(uint64_t *number, size_t n)
{
    size_t i, twice = 0;
    qsort(number, n, sizeof *number, by_number);
    for (i = 1; i < n; i++)
        twice += number[i] == number[i - 1];
    return twice;
}

static uint64_t numbers[100000];

/* ---- memory -------------------------------------------------------------- */

static int is_filled(const void *p, size_t n, int with)
{
    const uint8_t *b = (const uint8_t *)p;
    size_t i;
    for (i = 0; i < n; i++)
        if (b[i] != with)
            return 0;
    return 1;
}

static void memory_is_counted_and_survives_a_move(void)
{
    rt_loop *loop = loop_open(1);
    size_t before = loop->heap;
    uint8_t *p = (uint8_t *)rt__alloc(loop, 1000), *q;
    CHECK(p && is_filled(p, 1000, 0));
    EQUAL(loop->heap, before + 1000);
    memset(p, 7, 1000);
    q = (uint8_t *)rt__realloc(loop, p, 1000, 3000);
    CHECK(q && q != p && is_filled(q, 1000, 7));
    EQUAL(loop->heap, before + 3000);
    p = (uint8_t *)rt__realloc(loop, q, 3000, 10);
    CHECK(p && p != q && is_filled(p, 10, 7));
    EQUAL(loop->heap, before + 10);
    memory_ends();
    CHECK(!rt__realloc(loop, p, 10, 20));
    CHECK(!rt__alloc(loop, 1));
    CHECK(is_filled(p, 10, 7));
    EQUAL(loop->heap, before + 10);
    rt__free(loop, p, 10);
    rt__free(loop, NULL, 10);
    EQUAL(loop->heap, before);
    loop_close(loop);
}

static void texts_are_copied(void)
{
    rt_loop *loop = loop_open(2);
    size_t before = loop->heap;
    char text[] = "hall", *copy = rt__strdup(loop, text), *empty;
    text[0] = 'b';
    CHECK(copy && strcmp(copy, "hall") == 0);
    EQUAL(loop->heap, before + 5);
    empty = rt__strdup(loop, "");
    CHECK(empty && !*empty);
    memory_ends();
    CHECK(!rt__strdup(loop, "more"));
    EQUAL(loop->heap, before + 6);
    rt__strfree(loop, copy);
    rt__strfree(loop, empty);
    rt__strfree(loop, NULL);
    EQUAL(loop->heap, before);
    loop_close(loop);
}

/* By a quarter: what is there stays, and n elements cost some 5 n moves. */
static void arrays_grow_by_a_quarter(void)
{
    rt_loop *loop = loop_open(3);
    void *array = NULL;
    size_t cap = 0, n, moved = 0;
    for (n = 0; n < 10000; n++) {
        if (n == cap) {
            moved += cap;
            EQUAL(rt__grow(loop, &array, &cap, sizeof n), 0);
            CHECK(cap > n && cap <= n + n / 4 + 1);
        }
        ((size_t *)array)[n] = n;
    }
    CHECK(moved < 5 * n);
    for (n = 0; n < 10000; n++)
        EQUAL(((size_t *)array)[n], n);
    memory_ends();
    n = cap;
    EQUAL(rt__grow(loop, &array, &cap, sizeof n), RT_ENOMEM);
    EQUAL(cap, n);
    EQUAL(((size_t *)array)[9999], 9999);
    rt__free(loop, array, cap * sizeof n);
    loop_close(loop);
}

/* ---- making and ending a loop -------------------------------------------- */

static const int backends[] = {RT_EPOLL, RT_SELECT};

/* Select is everywhere. */
static int has_backend(int backend)
{
    rt_loop_opts o = host_opts(5, backend);
    rt_loop *loop = rt_loop_new(&o);
    rt_loop_free(loop);
    return loop || backend == RT_SELECT;
}

/* Fails allocations from the n-th on, or it alone; 1 while a loop needs it. */
static int loop_without(long n, int only, int backend)
{
    rt_loop_opts o = host_opts(5, backend);
    int before = descriptors(1024);
    rt_loop *loop;
    h.fail_at = only ? n : 0;
    h.fail_from = only ? 0 : n;
    loop = rt_loop_new(&o);
    h.fail_at = h.fail_from = 0;
    if (h.calls >= n)
        CHECK(!loop);
    if (loop)
        EQUAL(loop->heap, h.live);
    rt_loop_free(loop);
    EQUAL(h.live, 0);
    EQUAL(h.wrong, 0);
    EQUAL(descriptors(1024), before);
    return !loop;
}

/* Until there were enough: as many as a loop asks for by itself. */
static void loop_new_on(int backend, int only)
{
    rt_loop_opts o = host_opts(5, backend);
    rt_loop *loop = rt_loop_new(&o);
    long n = 1, all = h.calls;
    CHECK(loop && all >= 4);
    rt_loop_free(loop);
    while (n < 100 && loop_without(n, only, backend))
        n++;
    EQUAL(n, all + 1);
}

static void loop_new_when_any_allocation_fails(void)
{
    size_t i;
    for (i = 0; i < COUNT(backends); i++) {
        if (!has_backend(backends[i]))
            continue;
        loop_new_on(backends[i], 0);
        loop_new_on(backends[i], 1);
    }
}

static void loop_new_when_there_is_no_chance(void)
{
    size_t i;
    for (i = 0; i < COUNT(backends); i++) {
        int before = descriptors(1024), has = has_backend(backends[i]);
        rt_loop_opts o = host_opts(6, backends[i]);
        h.chance_fails = 1;
        CHECK(!rt_loop_new(&o));
        CHECK(!has || h.drawn >= 32); /* it was asked for the keys */
        EQUAL(h.live, 0);
        EQUAL(h.wrong, 0);
        EQUAL(descriptors(1024), before);
    }
}

static void loop_new_with_an_unknown_backend(void)
{
    static const int unknown[] = {-1, RT_SELECT + 1, 1000};
    size_t i;
    for (i = 0; i < COUNT(unknown); i++) {
        rt_loop_opts o = host_opts(7, unknown[i]);
        CHECK(!rt_loop_new(&o));
        EQUAL(h.live, 0);
    }
    rt_loop_free(NULL);
}

/* ---- opening something without memory ------------------------------------ */

static const rt_session nobody = {0};

static void watched(rt_loop *loop, rt_watch w, int events, void *arg)
{
    (void)arg;
    (void)events;
    rt_watch_stop(loop, w);
}

/* Each opens one thing, tells whether it did, and ends it. */
static int open_watch(rt_loop *loop)
{
    int fd = fcntl(STDOUT_FILENO, F_DUPFD, 150);
    rt_watch w = rt_watch_start(loop, fd, 0, watched, NULL);
    if (w.id)
        EQUAL(rt_watch_stop(loop, w), 0);
    close(fd);
    return w.id != 0;
}

static int open_listener(rt_loop *loop)
{
    rt_listener l = rt_listen(loop, "ws://127.0.0.1:0", NULL);
    if (l.id)
        EQUAL(rt_unlisten(loop, l), 0);
    return l.id != 0;
}

static int open_local_listener(rt_loop *loop)
{
    char path[60], url[70];
    rt_listener l;
    snprintf(path, sizeof path, "/tmp/rtnet-%ld.sock", (long)getpid());
    snprintf(url, sizeof url, "unix:%s", path);
    l = rt_listen(loop, url, NULL);
    if (l.id)
        EQUAL(rt_unlisten(loop, l), 0);
    EQUAL(access(path, F_OK), -1); /* it leaves no file behind */
    unlink(path);
    return l.id != 0;
}

static int open_session(rt_loop *loop)
{
    rt_session s = rt_dial(loop, "ws://127.0.0.1:1/", NULL);
    if (s.id)
        EQUAL(rt_close(loop, s, 1000, NULL), 0);
    return s.id != 0;
}

static int open_group(rt_loop *loop)
{
    rt_group g = rt_group_open(loop, "room", NULL);
    if (g.id)
        EQUAL(rt_group_close(loop, g), 0);
    return g.id != 0;
}

/* Fails the n-th allocation of one opening; 1 while it needs that many. */
static int open_without(int (*open_it)(rt_loop *), long n)
{
    int before = descriptors(1024), opened;
    rt_loop *loop = loop_open(8);
    int own = descriptors(1024);
    h.fail_at = h.calls + n;
    opened = open_it(loop);
    if (!opened)
        EQUAL(rt_error(loop, NULL), RT_ENOMEM);
    EQUAL(opened, h.calls < h.fail_at);
    h.fail_at = 0;
    rt_poll(loop, 0); /* a dead connection is freed by the turn */
    EQUAL(descriptors(1024), own);
    CHECK(open_it(loop)); /* and now it can be had */
    loop_close(loop);
    EQUAL(descriptors(1024), before);
    return !opened;
}

static void opening_when_any_allocation_fails(void)
{
    static int (*const opening[])(rt_loop *) = {open_watch, open_listener,
                                                open_local_listener,
                                                open_session, open_group};
    static const char *const names[] = {"watch", "listener", "local listener",
                                        "session", "group"};
    size_t i;
    long n;
    for (i = 0; i < COUNT(opening); i++) {
        test_begin("opening a %s when any allocation fails", names[i]);
        for (n = 1; n < 100 && open_without(opening[i], n); n++)
            ;
        CHECK(n > 2 && n < 100);
        test_end();
    }
}

/* ---- handles ------------------------------------------------------------- */

/* Pointers to hang into slots; nothing looks at them. */
static char things[512];

static uint64_t slot_new(rt_loop *loop, enum rt__slot_kind kind, size_t thing)
{
    uint64_t id = rt__slot_new(loop, kind, &things[thing]);
    CHECK(id != 0);
    return id;
}

static int is_stale(rt_loop *loop, uint64_t id)
{
    int kind;
    for (kind = RT__SHAKE; kind <= RT__WATCH; kind++)
        if (rt__slot_get(loop, id, (enum rt__slot_kind)kind))
            return 0;
    return rt__slot_kind(loop, id) == RT__FREE;
}

static uint32_t index_of(uint64_t id)
{
    return (uint32_t)(id & 0xffffff);
}

static void handle_answers_to_its_own_kind_alone(void)
{
    rt_loop *loop = loop_open(10);
    int kind, asked;
    for (kind = RT__SHAKE; kind <= RT__WATCH; kind++) {
        uint64_t id = slot_new(loop, (enum rt__slot_kind)kind, 1);
        for (asked = RT__SHAKE; asked <= RT__WATCH; asked++)
            CHECK(rt__slot_get(loop, id, (enum rt__slot_kind)asked) ==
                  (asked == kind ? &things[1] : NULL));
        EQUAL(rt__slot_kind(loop, id), kind);
        CHECK(rt__slot_at(loop, index_of(id)) == &things[1]);
        rt__slot_free(loop, id);
        CHECK(is_stale(loop, id));
    }
    loop_close(loop);
}

static void handle_of_nothing_is_stale(void)
{
    rt_loop *loop = loop_open(11);
    uint64_t id;
    int i;
    CHECK(is_stale(loop, 0));
    id = slot_new(loop, RT__GROUP, 0);
    CHECK(is_stale(loop, 0));
    CHECK(is_stale(loop, id ^ (uint64_t)1 << 63));
    CHECK(is_stale(loop, id ^ (uint64_t)1 << 24));
    CHECK(is_stale(loop, id + 1)); /* there is no such slot */
    CHECK(is_stale(loop, id | 0xffffff));
    for (i = 0; i < 100000; i++)
        CHECK(is_stale(loop, next_random()));
    rt__slot_free(loop, id);
    CHECK(is_stale(loop, 0));
    loop_close(loop);
}

static void handle_of_a_slot_used_again_is_another(void)
{
    enum { TIMES = 20000 };
    rt_loop *loop = loop_open(12);
    uint64_t keep = slot_new(loop, RT__GROUP, 9);
    size_t i, before = 0;
    for (i = 0; i < TIMES; i++) {
        numbers[i] = slot_new(loop, RT__SESSION, i % 8);
        CHECK(rt__slot_get(loop, numbers[i], RT__SESSION) == &things[i % 8]);
        EQUAL(index_of(numbers[i]), index_of(numbers[0]));
        rt__slot_free(loop, numbers[i]);
        if (i == 0)
            before = loop->heap;
    }
    EQUAL(loop->heap, before); /* one slot did for all */
    for (i = 0; i < TIMES; i++)
        CHECK(is_stale(loop, numbers[i]));
    EQUAL(doubles(numbers, TIMES), 0);
    CHECK(rt__slot_get(loop, keep, RT__GROUP) == &things[9]);
    rt__slot_free(loop, keep);
    loop_close(loop);
}

static void handle_stays_when_its_object_becomes_another(void)
{
    rt_loop *loop = loop_open(13);
    uint64_t id = slot_new(loop, RT__SHAKE, 1);
    rt__slot_become(loop, id, RT__SESSION, &things[2]);
    CHECK(!rt__slot_get(loop, id, RT__SHAKE));
    CHECK(rt__slot_get(loop, id, RT__SESSION) == &things[2]);
    EQUAL(rt__slot_kind(loop, id), RT__SESSION);
    rt__slot_become(loop, id, RT__SHAKE, &things[3]);
    CHECK(rt__slot_get(loop, id, RT__SHAKE) == &things[3]);
    rt__slot_free(loop, id);
    CHECK(is_stale(loop, id));
    loop_close(loop);
}

/* Also of a loop with the same number of objects, made in the same order. */
static void handles_of_another_loop_are_stale(void)
{
    enum { EACH = 500 };
    rt_loop *one = loop_open(14), *two;
    rt_loop_opts o = {0};
    size_t i;
    two = rt_loop_new(&o); /* with chance from the system */
    CHECK(two != NULL);
    if (!two)
        return;
    for (i = 0; i < EACH; i++) {
        numbers[i] = slot_new(one, RT__GROUP, 1);
        numbers[EACH + i] = slot_new(two, RT__GROUP, 2);
    }
    for (i = 0; i < EACH; i++) {
        CHECK(is_stale(two, numbers[i]));
        CHECK(is_stale(one, numbers[EACH + i]));
        rt__slot_free(one, numbers[i]);
        rt__slot_free(two, numbers[EACH + i]);
    }
    rt_loop_free(two);
    loop_close(one);
}

static void generations_start_at_random(void)
{
    enum { SLOTS = 1000 };
    rt_loop *loop = loop_open(15);
    size_t i;
    uint64_t together = ~(uint64_t)0, any = 0;
    for (i = 0; i < SLOTS; i++)
        numbers[i] = slot_new(loop, RT__GROUP, 0);
    for (i = 0; i < SLOTS; i++) {
        rt__slot_free(loop, numbers[i]);
        numbers[i] >>= 24;
        together &= numbers[i] >> 1;
        any |= numbers[i] >> 1;
    }
    EQUAL(doubles(numbers, SLOTS), 0);
    EQUAL(together, 0); /* no bit but the lowest is always the same */
    CHECK(any >= (uint64_t)1 << 37);
    CHECK(any < (uint64_t)1 << 38); /* half of them are left to count up */
    loop_close(loop);
}

/* The layout of rtnet.c, looked at here to age a slot by 2^40 uses. */
struct rt__slot {
    union {
        void *object;
        uintptr_t next_free;
    } is;
    uint64_t tag;
};

static void slot_without_generations_is_retired(void)
{
    rt_loop *loop = loop_open(16);
    uint64_t id = slot_new(loop, RT__GROUP, 1), last, next;
    uint64_t i = index_of(id);
    struct rt__slot *slot = &loop->slots[i / RT__SLOTS][i % RT__SLOTS];
    CHECK(slot->is.object == &things[1]);
    EQUAL(slot->tag, id >> 24 << 8 | RT__GROUP);
    slot->tag = (((uint64_t)1 << 40) - 1) << 8 | RT__GROUP;
    last = (((uint64_t)1 << 40) - 1) << 24 | index_of(id);
    CHECK(rt__slot_get(loop, last, RT__GROUP) == &things[1]);
    rt__slot_free(loop, last);
    CHECK(is_stale(loop, last));
    CHECK(is_stale(loop, index_of(id))); /* generation 0 is nobody's */
    next = slot_new(loop, RT__GROUP, 2);
    CHECK(index_of(next) != index_of(id));
    rt__slot_free(loop, next);
    loop_close(loop);
}

/* What is in use, as the test knows it. */
typedef struct {
    uint64_t id;
    int kind; /* RT__FREE: id is stale */
} known_slot;

static known_slot known[COUNT(things)];

static long known_of(int kind)
{
    long n = 0;
    size_t i;
    for (i = 0; i < COUNT(known); i++)
        n += known[i].kind == kind;
    return n;
}

/* Each object of a kind is seen once. */
static void compare_next(rt_loop *loop)
{
    int kind;
    for (kind = RT__SHAKE; kind <= RT__WATCH; kind++) {
        uint64_t at = 0;
        long n = 0;
        void *p;
        while ((p = rt__slot_next(loop, &at, (enum rt__slot_kind)kind))) {
            size_t i = (size_t)((char *)p - things);
            n += known[i].id == at && known[i].kind == kind;
        }
        EQUAL(n, known_of(kind));
    }
}

static void slot_step(rt_loop *loop)
{
    size_t i = below(COUNT(known));
    enum rt__slot_kind kind = (enum rt__slot_kind)(1 + below(RT__WATCH));
    known_slot *k = &known[i];
    if (k->kind == RT__FREE) {
        CHECK(is_stale(loop, k->id));
        k->id = slot_new(loop, kind, i);
        k->kind = (int)kind;
    } else if (below(4) == 0) {
        rt__slot_become(loop, k->id, kind, &things[i]);
        k->kind = (int)kind;
    } else {
        CHECK(rt__slot_get(loop, k->id, (enum rt__slot_kind)k->kind) ==
              &things[i]);
        rt__slot_free(loop, k->id);
        k->kind = RT__FREE;
    }
}

static void handles_against_a_model(void)
{
    rt_loop *loop = loop_open(17);
    size_t i;
    memset(known, 0, sizeof known);
    for (i = 0; i < 100000; i++) {
        slot_step(loop);
        if (i % 1000 == 0)
            compare_next(loop);
    }
    EQUAL(loop->heap, h.live);
    for (i = 0; i < COUNT(known); i++)
        if (known[i].kind != RT__FREE)
            rt__slot_free(loop, known[i].id);
    loop_close(loop);
}

/* The one just given, one before it and one after it may go meanwhile. */
static void iteration_survives_what_is_freed_meanwhile(void)
{
    enum { SLOTS = 60 };
    rt_loop *loop = loop_open(18);
    uint64_t id[SLOTS], at = 0;
    char *p;
    long seen = 0;
    size_t i;
    for (i = 0; i < SLOTS; i++)
        id[i] = slot_new(loop, RT__SESSION, i);
    while ((p = (char *)rt__slot_next(loop, &at, RT__SESSION)) != NULL) {
        i = (size_t)(p - things);
        EQUAL(i % 3, 0);
        EQUAL(at, id[i]);
        seen++;
        for (; i < (size_t)(p - things) + 3; i++)
            rt__slot_free(loop, id[i]);
    }
    EQUAL(seen, SLOTS / 3);
    loop_close(loop);
}

static void handle_without_memory(void)
{
    rt_loop *loop = loop_open(19);
    uint64_t first = slot_new(loop, RT__GROUP, 0), last = 0;
    long n = 0;
    memory_ends();
    while (n < 100 && (last = rt__slot_new(loop, RT__GROUP, &things[1])) != 0)
        numbers[n++] = last;
    EQUAL(last, 0);
    EQUAL(loop->slot_count, n + 1);
    EQUAL(loop->heap, h.live);
    CHECK(rt__slot_get(loop, first, RT__GROUP) == &things[0]);
    rt__slot_free(loop, first); /* what is free can be used without memory */
    first = slot_new(loop, RT__GROUP, 2);
    memory_is_back();
    last = slot_new(loop, RT__GROUP, 3);
    CHECK(rt__slot_get(loop, first, RT__GROUP) == &things[2]);
    rt__slot_free(loop, first);
    rt__slot_free(loop, last);
    while (n > 0)
        rt__slot_free(loop, numbers[--n]);
    loop_close(loop);
}

/* ---- timers: the heap ---------------------------------------------------- */

static int is_before(const rt_loop *loop, uint32_t a, uint32_t b)
{
    if (loop->timers[a].due != loop->timers[b].due)
        return loop->timers[a].due < loop->timers[b].due;
    return (int32_t)(loop->timer_seqs[a] - loop->timer_seqs[b]) < 0;
}

/* Everybody knows its place and stands behind the one above it. */
static int is_heap(rt_loop *loop)
{
    uint32_t i;
    for (i = 0; i < loop->timer_count; i++) {
        if (loop->timers[i].timer->at != i + 1)
            return 0;
        if (i > 0 && is_before(loop, i, (i - 1) / 2))
            return 0;
    }
    return loop->timer_count <= loop->timer_users &&
           loop->timer_users <= loop->timer_cap &&
           loop->timer_users <= loop->seq_cap;
}

static void heap_step(rt_loop *loop, rt__timer *t, int *set)
{
    if (below(3) == 0) {
        rt__timer_clear(loop, t);
        *set = 0;
    } else { /* also when it is set: then it moves */
        uint64_t due = rt_now(loop) - 20 + below(1000);
        rt__timer_set(loop, t, due);
        EQUAL(rt__timer_due(loop, t), due < rt_now(loop) ? rt_now(loop) : due);
        *set = 1;
    }
    EQUAL(t->at != 0, *set);
}

static void heap_of_timers_set_moved_and_cleared(void)
{
    enum { TIMERS = 300 };
    static rt__timer timer[TIMERS];
    static int set[TIMERS];
    rt_loop *loop = loop_open(20);
    uint32_t i, count = 0;
    clock_hold(loop);
    for (i = 0; i < TIMERS; i++)
        EQUAL(rt__timer_adopt(loop, &timer[i], RT__OF_CONN), 0);
    for (i = 0; i < 20000; i++) {
        uint32_t k = below(TIMERS);
        heap_step(loop, &timer[k], &set[k]);
        CHECK(i % 4 || is_heap(loop));
    }
    for (i = 0; i < TIMERS; i++)
        count += set[i] != 0;
    EQUAL(loop->timer_count, count);
    EQUAL(timer[0].kind, RT__OF_CONN);
    for (i = 0; i < TIMERS; i++)
        rt__timer_disown(loop, &timer[i]);
    EQUAL(loop->timer_count, 0);
    EQUAL(loop->timer_users, 1);
    loop_close(loop);
}

/* Setting one that was adopted needs no memory. */
static void timer_has_its_place_reserved(void)
{
    enum { TIMERS = 50 };
    rt__timer timer[TIMERS], more;
    rt_loop *loop = loop_open(21);
    uint32_t i;
    clock_hold(loop);
    for (i = 0; i < TIMERS; i++)
        EQUAL(rt__timer_adopt(loop, &timer[i], RT__OF_CONN), 0);
    memory_ends();
    for (i = 0; i < TIMERS; i++)
        rt__timer_set(loop, &timer[i], rt_now(loop) + i);
    CHECK(is_heap(loop));
    EQUAL(loop->timer_count, TIMERS);
    while (loop->timer_users < loop->timer_cap)
        EQUAL(rt__timer_adopt(loop, &more, RT__OF_CONN), 0);
    EQUAL(rt__timer_adopt(loop, &more, RT__OF_CONN), RT_ENOMEM);
    EQUAL(loop->timer_users, loop->timer_cap);
    loop->timer_users = TIMERS + 1; /* those were one and the same */
    for (i = 0; i < TIMERS; i++)
        rt__timer_disown(loop, &timer[i]);
    loop_close(loop);
}

/* ---- timers: the model --------------------------------------------------- */

typedef struct {
    rt_timer handle;
    uint64_t due;
    long order; /* of the start */
    int live;
} known_timer;

static struct {
    known_timer timer[300];
    long started, stopped, fired;
    long wrong; /* ran when stopped, too early, or before another's turn */
} model;

static known_timer *model_first(void)
{
    known_timer *first = NULL, *t;
    for (t = model.timer; t < model.timer + COUNT(model.timer); t++) {
        if (!t->live || (first && t->due > first->due))
            continue;
        if (!first || t->due < first->due || t->order < first->order)
            first = t;
    }
    return first;
}

static void model_stop(rt_loop *loop)
{
    known_timer *t = &model.timer[below(COUNT(model.timer))];
    EQUAL(rt_timer_stop(loop, t->handle), t->live ? 0 : RT_EGONE);
    model.stopped += t->live;
    t->live = 0;
}

static void model_fired(rt_loop *loop, void *arg);

/* Most are due soon, some at once or earlier, some at the end of time. */
static void model_start(rt_loop *loop)
{
    known_timer *t = &model.timer[below(COUNT(model.timer))];
    uint64_t now = rt_now(loop), due = now - 3 + below(60);
    if (t->live)
        return;
    if (below(20) == 0)
        due = UINT64_MAX - below(3);
    t->handle = rt_timer_start(loop, nobody, due, model_fired, t);
    CHECK(t->handle.id != 0);
    t->due = due < now ? now : due; /* what has passed counts as now */
    t->order = ++model.started;
    t->live = 1;
}

static void model_fired(rt_loop *loop, void *arg)
{
    known_timer *t = (known_timer *)arg;
    model.wrong += !t->live || t->due > rt_now(loop) || model_first() != t;
    t->live = 0;
    model.fired++;
    EQUAL(rt_timer_stop(loop, t->handle), RT_EGONE);
    if (below(3) == 0)
        model_start(loop);
    if (below(6) == 0)
        model_stop(loop);
}

/* One turn runs all that were due when it began, and none that was not. */
static void model_turn(rt_loop *loop)
{
    long fired = model.fired, before = model.started;
    known_timer *t;
    uint32_t live = 0;
    int n = rt_poll(loop, 0);
    EQUAL(n, model.fired - fired);
    for (t = model.timer; t < model.timer + COUNT(model.timer); t++) {
        live += t->live != 0;
        if (t->live && t->order <= before)
            CHECK(t->due > rt_now(loop));
    }
    EQUAL(loop->timer_count, live);
    CHECK(is_heap(loop));
}

static void model_step(rt_loop *loop)
{
    uint32_t what = below(16);
    if (what < 9)
        model_start(loop);
    else if (what < 11)
        model_stop(loop);
    else if (what < 14)
        clock_move(1);
    else
        model_turn(loop);
}

static void timers_against_a_model(void)
{
    rt_loop *loop = loop_open(22);
    size_t i;
    memset(&model, 0, sizeof model);
    clock_hold(loop);
    for (i = 0; i < 100000; i++)
        model_step(loop);
    EQUAL(model.wrong, 0);
    CHECK(model.fired > 20000 && model.stopped > 2000);
    for (i = 0; i < COUNT(model.timer); i++) {
        int live = model.timer[i].live;
        EQUAL(rt_timer_stop(loop, model.timer[i].handle), live ? 0 : RT_EGONE);
        model.stopped += live;
    }
    EQUAL(model.started, model.fired + model.stopped);
    EQUAL(loop->timer_count, 0);
    EQUAL(loop->timer_users, 1);
    loop_close(loop);
}

/* ---- timers: sentences of the header ------------------------------------- */

static int ran[400], ran_count;

static void note(rt_loop *loop, void *arg)
{
    (void)loop;
    if (ran_count < (int)COUNT(ran))
        ran[ran_count++] = (int)((char *)arg - things);
}

static rt_timer note_at(rt_loop *loop, uint64_t due, int number)
{
    rt_timer t = rt_timer_start(loop, nobody, due, note, &things[number]);
    CHECK(t.id != 0);
    return t;
}

static void check_order_from(rt_loop *loop, uint32_t seq)
{
    uint64_t now;
    int i;
    ran_count = 0;
    loop->timer_seq = seq;
    now = rt_now(loop);
    for (i = 0; i < 100; i++)
        note_at(loop, now + 5, 100 + i);
    for (i = 0; i < 100; i++) /* those of the past count as now */
        note_at(loop, now - (uint64_t)(i % 7), i);
    EQUAL(rt_poll(loop, 0), 100);
    clock_move(5);
    EQUAL(rt_poll(loop, 0), 100);
    EQUAL(ran_count, 200);
    for (i = 0; i < ran_count; i++)
        EQUAL(ran[i], i);
}

static void timers_of_one_time_run_in_the_order_of_their_start(void)
{
    rt_loop *loop = loop_open(23);
    clock_hold(loop);
    check_order_from(loop, 0);
    check_order_from(loop, UINT32_MAX - 150); /* the count of starts wraps */
    check_order_from(loop, UINT32_MAX / 2 - 50);
    loop_close(loop);
}

/* Whoever leaves has the last one of the heap take its place. */
static void timers_of_one_time_stay_in_order_when_others_leave(void)
{
    rt_loop *loop = loop_open(24);
    rt_timer all[200];
    uint64_t now;
    int i, kept = 0;
    clock_hold(loop);
    now = rt_now(loop);
    for (i = 0; i < 200; i++)
        all[i] = note_at(loop, now + (i % 5 ? 5 : 6), i);
    for (i = 0; i < 200; i++) /* 7 is no part of 200: all over the heap */
        if (i * 7 % 200 % 3)
            EQUAL(rt_timer_stop(loop, all[i * 7 % 200]), 0);
    ran_count = 0;
    clock_move(5);
    rt_poll(loop, 0);
    clock_move(1);
    rt_poll(loop, 0);
    for (i = 0; i < 200; i++)
        if (i % 5 && i % 3 == 0)
            EQUAL(ran[kept++], i);
    for (i = 0; i < 200; i += 15)
        EQUAL(ran[kept++], i);
    EQUAL(ran_count, kept);
    loop_close(loop);
}

static void again(rt_loop *loop, void *arg)
{
    if (++*(int *)arg < 1000) /* so that a starved loop fails, not hangs */
        rt_timer_start(loop, nobody, rt_now(loop) - 1, again, arg);
}

static void timer_due_at_once_starves_nobody(void)
{
    rt_loop *loop = loop_open(24);
    int times = 0, turn;
    clock_hold(loop);
    rt_timer_start(loop, nobody, 0, again, &times);
    for (turn = 1; turn <= 10; turn++) {
        ran_count = 0;
        note_at(loop, rt_now(loop), 1);
        EQUAL(rt_loop_timeout(loop), 0);
        EQUAL(rt_poll(loop, -1), 2);
        EQUAL(times, turn);
        EQUAL(ran_count, 1);
    }
    loop_close(loop); /* the one that waits is freed with the loop */
}

static rt_timer victim;

static void stop_victim(rt_loop *loop, void *arg)
{
    *(int *)arg = rt_timer_stop(loop, victim);
}

static void timer_stopped_in_its_own_turn_does_not_run(void)
{
    rt_loop *loop = loop_open(25);
    uint64_t now;
    int answer = 1;
    clock_hold(loop);
    now = rt_now(loop);
    ran_count = 0;
    rt_timer_start(loop, nobody, now, stop_victim, &answer);
    victim = note_at(loop, now, 1);
    note_at(loop, now, 2);
    EQUAL(rt_poll(loop, 0), 2);
    EQUAL(answer, 0);
    EQUAL(ran_count, 1);
    EQUAL(ran[0], 2);
    EQUAL(rt_timer_stop(loop, victim), RT_EGONE);
    victim.id = 0;
    EQUAL(rt_timer_stop(loop, victim), RT_EGONE);
    loop_close(loop);
}

static void timeout_is_that_of_the_next_timer(void)
{
    rt_loop *loop = loop_open(26);
    rt_timer far, near;
    clock_hold(loop);
    EQUAL(rt_loop_timeout(loop), -1);
    far = note_at(loop, UINT64_MAX, 1);
    EQUAL(rt_loop_timeout(loop), INT32_MAX);
    near = note_at(loop, rt_now(loop) + 70, 2);
    EQUAL(rt_loop_timeout(loop), 70);
    clock_move(69);
    EQUAL(rt_loop_timeout(loop), 1);
    EQUAL(rt_poll(loop, 0), 0);
    clock_move(100);
    EQUAL(rt_loop_timeout(loop), 0);
    EQUAL(rt_timer_stop(loop, near), 0);
    EQUAL(rt_loop_timeout(loop), INT32_MAX);
    EQUAL(rt_timer_stop(loop, far), 0);
    EQUAL(rt_loop_timeout(loop), -1);
    loop_close(loop);
}

/* With the real clock: not a moment early, and rt_poll waits by itself. */
static void timer_waits_for_its_time(void)
{
    rt_loop *loop = loop_open(27);
    uint64_t due = rt_now(loop) + 20;
    int turns = 0;
    ran_count = 0;
    note_at(loop, due, 1);
    EQUAL(rt_poll(loop, 0), 0);
    while (!ran_count && turns++ < 10) {
        rt_poll(loop, -1);
        EQUAL(ran_count, rt_now(loop) >= due);
    }
    EQUAL(ran_count, 1);
    loop_close(loop);
}

/* What the backend was asked, and what it does: time passes, an event comes. */
static struct {
    int looks, blocked, ms, event_at, takes_ms;
} waits;

static int counted_wait(rt_loop *loop, int ms)
{
    if (ms == 0) {
        waits.looks++;
    } else {
        waits.blocked++;
        waits.ms = ms;
    }
    if (waits.takes_ms)
        clock_move((uint64_t)waits.takes_ms);
    loop->ready[0].key = UINT64_MAX; /* nobody's */
    loop->ready[0].events = RT_READ;
    return waits.looks == waits.event_at;
}

/* One turn of at most timeout ms; says how often it looked. */
static int spin_turn(int spin_us, int timeout, int event_at, int takes_ms)
{
    rt_loop *loop = loop_open(29);
    clock_hold(loop);
    loop->opts.spin_us = spin_us;
    loop->backend.wait = counted_wait;
    memset(&waits, 0, sizeof waits);
    waits.event_at = event_at;
    waits.takes_ms = takes_ms;
    EQUAL(rt_poll(loop, timeout), event_at > 0);
    loop_close(loop);
    return waits.looks;
}

static void spins_before_it_blocks(void)
{
    EQUAL(spin_turn(0, -1, -1, 0), 0); /* off */
    EQUAL(waits.blocked, 1);
    EQUAL(waits.ms, -1);
    EQUAL(spin_turn(RT_OFF, 70, -1, 0), 0);
    EQUAL(waits.ms, 70);
    EQUAL(spin_turn(3000, -1, -1, 1), 3);
    EQUAL(waits.blocked, 1);
    EQUAL(waits.ms, -1);
    EQUAL(spin_turn(3000, -1, 2, 1), 2); /* an event */
    EQUAL(waits.blocked, 0);
    EQUAL(spin_turn(3000, 0, -1, 1), 1); /* not to wait is not to spin */
    EQUAL(waits.blocked, 0);
    EQUAL(spin_turn(3000, 10, -1, 1), 3); /* part of the time-out */
    EQUAL(waits.ms, 7);
    EQUAL(spin_turn(30000, 5, -1, 1), 5); /* not beyond it */
    EQUAL(waits.blocked, 0);
    EQUAL(spin_turn(50, -1, -1, 0), 50); /* a clock that stands still */
    EQUAL(waits.blocked, 1);
}

static void timer_that_cannot_be_started(void)
{
    rt_session stale = {12345};
    rt_loop *loop = loop_open(28);
    size_t before = loop->heap;
    long n;
    CHECK(rt_timer_start(loop, nobody, 0, NULL, NULL).id == 0);
    EQUAL(rt_error(loop, NULL), RT_EINVAL);
    CHECK(rt_timer_start(loop, stale, 0, note, NULL).id == 0);
    EQUAL(rt_error(loop, NULL), RT_EGONE);
    for (n = 1; n < 10; n++) { /* itself, a slot, a place in the heap */
        h.fail_at = h.calls + n;
        if (rt_timer_start(loop, nobody, 0, note, things).id)
            break;
        EQUAL(rt_error(loop, NULL), RT_ENOMEM);
        EQUAL(loop->timer_users, 1);
        EQUAL(loop->timer_count, 0);
    }
    h.fail_at = 0;
    CHECK(n > 1 && n <= 4);
    CHECK(loop->heap > before);
    EQUAL(rt_poll(loop, 0), 1);
    loop_close(loop);
}

/* ---- hash tables --------------------------------------------------------- */

typedef struct {
    rt__node node; /* first: a node is cast to this */
    int live;
} member;

static member members[2000];

/* How often the table has the member among those of its hash; all of them are
   of that hash and in the table. */
static int times_found(const rt__table *table, const member *m)
{
    rt__node *n = rt__table_find(table, m->node.hash);
    int found = 0;
    for (; n; n = rt__table_more(n)) {
        CHECK(n->hash == m->node.hash);
        CHECK(((member *)n)->live);
        found += n == &m->node;
    }
    return found;
}

static void table_step(rt_loop *loop, rt__table *table, size_t *count)
{
    member *m = &members[below(COUNT(members))];
    EQUAL(times_found(table, m), m->live);
    if (m->live) {
        rt__table_remove(table, &m->node);
        m->live = 0;
        --*count;
    } else {
        EQUAL(rt__table_add(loop, table, &m->node), 0);
        m->live = 1;
        ++*count;
    }
    EQUAL(table->count, *count);
}

/* spread says which hashes there are: few of them, or alike in the low bits
   by which the heads are chosen. */
static void compare_table(uint64_t hashes, int shift)
{
    rt_loop *loop = loop_open(30);
    rt__table table;
    size_t i, count = 0;
    memset(&table, 0, sizeof table);
    memset(members, 0, sizeof members);
    for (i = 0; i < COUNT(members); i++)
        members[i].node.hash = next_random() % hashes << shift | 5;
    for (i = 0; i < 30000; i++)
        table_step(loop, &table, &count);
    EQUAL(loop->heap, h.live);
    for (i = 0; i < COUNT(members); i++) {
        EQUAL(times_found(&table, &members[i]), members[i].live);
        if (members[i].live)
            rt__table_remove(&table, &members[i].node);
        members[i].live = 0;
    }
    EQUAL(table.count, 0);
    CHECK(!rt__table_find(&table, members[0].node.hash));
    rt__table_free(loop, &table);
    EQUAL(table.size, 0);
    loop_close(loop);
}

static void table_with_hashes_of_its_own_for_each(void)
{
    compare_table(UINT64_MAX, 0);
}

static void table_with_many_of_the_same_hash(void)
{
    compare_table(100, 0);
}

static void table_with_hashes_alike_in_the_low_bits(void)
{
    compare_table((uint64_t)1 << 40, 20);
}

static void table_grows_with_its_members(void)
{
    rt_loop *loop = loop_open(31);
    rt__table table;
    size_t i;
    memset(&table, 0, sizeof table);
    memset(members, 0, sizeof members);
    CHECK(!rt__table_find(&table, 0));
    for (i = 0; i < COUNT(members); i++) {
        members[i].node.hash = rt__hash(loop, &i, sizeof i);
        members[i].live = 1;
        EQUAL(rt__table_add(loop, &table, &members[i].node), 0);
        CHECK(table.size * 2 >= table.count);
        CHECK((table.size & (table.size - 1)) == 0);
    }
    CHECK(table.size <= 2 * COUNT(members));
    for (i = 0; i < COUNT(members); i++)
        EQUAL(times_found(&table, &members[i]), 1);
    rt__table_free(loop, &table);
    loop_close(loop);
}

static void table_without_memory(void)
{
    rt_loop *loop = loop_open(32);
    rt__table table;
    size_t i, size;
    memset(&table, 0, sizeof table);
    memset(members, 0, sizeof members);
    memory_ends();
    EQUAL(rt__table_add(loop, &table, &members[0].node), RT_ENOMEM);
    EQUAL(table.count, 0);
    EQUAL(table.size, 0);
    memory_is_back();
    for (i = 0; i < 500; i++) { /* grown once, it takes any number */
        members[i].node.hash = next_random();
        members[i].live = 1;
        EQUAL(rt__table_add(loop, &table, &members[i].node), 0);
        memory_ends();
    }
    size = table.size;
    memory_is_back();
    for (i = 0; i < 500; i++)
        EQUAL(times_found(&table, &members[i]), 1);
    members[500].live = 1;
    EQUAL(rt__table_add(loop, &table, &members[500].node), 0);
    CHECK(table.size > size);
    EQUAL(table.count, 501);
    rt__table_free(loop, &table);
    loop_close(loop);
}

/* ---- hashes and chance --------------------------------------------------- */

/* SipHash-2-4 of 0, 1, .. n - 1 under the key 0, 1, .. 15: the vectors that
   its authors published, n = 0 to 15; and all up to 300 in a chain. */
static void hash_is_siphash(void)
{
    static const uint64_t published[] = {
        0x726fdb47dd0e0e31u, 0x74f839c593dc67fdu, 0x0d6c8009d9a94f5au,
        0x85676696d7fb7e2du, 0xcf2794e0277187b7u, 0x18765564cd99a68du,
        0xcbc9466e58fee3ceu, 0xab0200f58b01d137u, 0x93f5f5799a932462u,
        0x9e0082df0ba9e4b0u, 0x7a5dbbc594ddb9f3u, 0xf4b32f46226bada7u,
        0x751e8fbc860ee5fbu, 0x14ea5627c0843d90u, 0xf723ca908e7af2eeu,
        0xa129ca6149be45e5u};
    rt_loop *loop = loop_open(40);
    uint8_t text[8 + 300];
    uint64_t link = 0;
    size_t n, i;
    loop->secret[0] = 0x0706050403020100u;
    loop->secret[1] = 0x0f0e0d0c0b0a0908u;
    for (n = 0; n < 300; n++)
        text[8 + n] = (uint8_t)n;
    for (n = 0; n < COUNT(published); n++)
        CHECK(rt__hash(loop, text + 8, n) == published[n]);
    for (n = 0; n <= 300; n++) {
        for (i = 0; i < 8; i++)
            text[i] = (uint8_t)(link >> 8 * i);
        link = rt__hash(loop, text, 8 + n);
    }
    CHECK(link == 0x4860c5933471b4a9u);
    loop_close(loop);
}

static int count_up(void *user, void *out, size_t n)
{
    uint8_t *p = (uint8_t *)out;
    size_t i;
    (void)user;
    for (i = 0; i < n; i++)
        p[i] = (uint8_t)i;
    return 0;
}

/* A regression: the words of the key, and what is drawn, were read as the
   machine reads them.  The bytes 0, 1, .. 31 are two keys: of the published
   vector, and of the hash of the number 1 as 8 bytes, the first one first. */
static void chance_is_the_same_whatever_the_order_of_bytes(void)
{
    rt_loop_opts o = {.random = count_up};
    rt_loop *loop = rt_loop_new(&o);
    uint8_t text[15];
    CHECK(loop);
    if (!loop)
        return;
    count_up(NULL, text, sizeof text);
    CHECK(rt__hash(loop, text, sizeof text) == 0xa129ca6149be45e5u);
    loop->drawn = 0;
    CHECK(rt__random(loop) == 0x4ddffbce351967a3u);
    rt_loop_free(loop);
}

/* Two loops that were given other keys, and two that were given the same. */
static void hash_and_chance_differ_between_loops(void)
{
    static const uint64_t chance[] = {41, 42, 41};
    uint64_t hash[3], drawn[3], alike;
    size_t i;
    for (i = 0; i < 3; i++) {
        rt_loop *loop = loop_open(chance[i]);
        hash[i] = rt__hash(loop, "lobby", 5);
        drawn[i] = rt__random(loop);
        /* what peers see of chance says nothing about the tables */
        alike = rt__hash(loop, &loop->drawn, sizeof loop->drawn);
        CHECK(alike != drawn[i]);
        loop_close(loop);
    }
    CHECK(hash[0] != hash[1] && drawn[0] != drawn[1]);
    CHECK(hash[0] == hash[2] && drawn[0] == drawn[2]);
}

static void hash_of_names_does_not_collide(void)
{
    static uint8_t load[1 << 17];
    rt_loop *loop = loop_open(43);
    char name[32];
    size_t i, worst = 0;
    for (i = 0; i < COUNT(numbers); i++) {
        int n = snprintf(name, sizeof name, "room-%lu", (unsigned long)i);
        uint64_t hash = rt__hash(loop, name, (size_t)n);
        numbers[i] = hash;
        load[hash % COUNT(load)]++;
    }
    for (i = 0; i < COUNT(load); i++)
        worst = load[i] > worst ? load[i] : worst;
    EQUAL(doubles(numbers, COUNT(numbers)), 0);
    CHECK(worst <= 10); /* at random, more happens once in 10^6 runs */
    loop_close(loop);
}

static uint32_t turned(uint32_t x, int by)
{
    return x << by | x >> (32 - by);
}

/* MurmurHash3 (32 bit) of whole words, which are mixed already. */
static uint32_t murmur(const uint32_t *mixed, size_t n, uint32_t key)
{
    size_t i;
    for (i = 0; i < n; i++)
        key = turned(key ^ mixed[i], 13) * 5 + 0xe6546b64u;
    return key ^ (uint32_t)(4 * n);
}

/* y with x * y == 1 (mod 2^32), for odd x: Newton's way. */
static uint32_t inverse(uint32_t x)
{
    uint32_t y = x;
    int i;
    for (i = 0; i < 5; i++)
        y *= 2 - x * y;
    return y;
}

/* The word that murmur mixes to that one. */
static uint32_t unmixed(uint32_t mixed)
{
    uint32_t x = mixed * inverse(0x1b873593u);
    return turned(x, 17) * inverse(0xcc9e2d51u);
}

/* A flip of bit 18 in one mixed word becomes one of bit 31, which the next
   word takes back: so each pair of words has two forms, under every key. */
static void murmur_name(const uint32_t *base, unsigned int form,
                        uint32_t mixed[20])
{
    size_t i;
    for (i = 0; i < 20; i += 2, form >>= 1) {
        mixed[i] = base[i] ^ (form & 1 ? (uint32_t)1 << 18 : 0);
        mixed[i + 1] = base[i + 1] ^ (form & 1 ? (uint32_t)1 << 31 : 0);
    }
}

static void hash_of_names_that_collide_under_any_key_elsewhere(void)
{
    rt_loop *loop = loop_open(44);
    uint32_t base[20], mixed[20], name[20], key, form, same = 0;
    size_t i;
    for (i = 0; i < 20; i++)
        base[i] = (uint32_t)next_random();
    for (form = 0; form < 1024; form++) {
        murmur_name(base, form, mixed);
        for (key = 0; key < 3; key++)
            same += murmur(mixed, 20, key * 0xdeadbeef) ==
                    murmur(base, 20, key * 0xdeadbeef);
        for (i = 0; i < 20; i++)
            name[i] = unmixed(mixed[i]);
        numbers[form] = rt__hash(loop, name, sizeof name);
    }
    EQUAL(same, 3 * 1024); /* those names are what they are said to be */
    for (i = 0; i < 1024; i++)
        numbers[1024 + i] = numbers[i] % (1 << 24);
    EQUAL(doubles(numbers, 1024), 0);
    CHECK(doubles(numbers + 1024, 1024) <= 1); /* nor do parts of them */
    loop_close(loop);
}

/* All distinct, and each bit is set half of the time. */
static void chance_does_not_repeat(void)
{
    rt_loop *loop = loop_open(45);
    long set[64] = {0};
    size_t i, bit;
    for (i = 0; i < COUNT(numbers); i++) {
        numbers[i] = rt__random(loop);
        for (bit = 0; bit < 64; bit++)
            set[bit] += (long)(numbers[i] >> bit & 1);
    }
    for (bit = 0; bit < 64; bit++)
        CHECK(set[bit] > 49000 && set[bit] < 51000);
    EQUAL(doubles(numbers, COUNT(numbers)), 0);
    loop_close(loop);
}

/* ---- buffers ------------------------------------------------------------- */

enum { POOL_LARGEST = 64 * 1024, POOL_KEEPS = 1024 * 1024 };

/* What is in the pool, counted. */
static size_t pool_bytes(rt_loop *loop)
{
    size_t c, bytes = 0;
    for (c = 0; c < COUNT(loop->pool); c++) {
        rt__buf *b = loop->pool[c];
        while (b) {
            CHECK(b->size_class == c && b->refs == 0);
            bytes += b->cap;
            memcpy(&b, rt__buf_data(b), sizeof b);
        }
    }
    return bytes;
}

static size_t class_size(size_t cap)
{
    size_t size = 64;
    while (size < cap)
        size *= 2;
    return size;
}

static void try_class(rt_loop *loop, size_t cap)
{
    size_t before = loop->heap, pooled = loop->pooled;
    rt__buf *b = rt__buf_new(loop, cap);
    CHECK(b != NULL);
    if (!b)
        return;
    EQUAL(b->cap, cap > POOL_LARGEST ? cap : class_size(cap));
    EQUAL(b->refs, 1);
    EQUAL(b->len, 0);
    EQUAL(b->arena, 0);
    memset(rt__buf_data(b), 1, b->cap);
    b->arena = 1;
    b->len = 9;
    EQUAL(loop->heap, before + sizeof *b + b->cap);
    rt__buf_release(loop, b);
    if (cap > POOL_LARGEST)
        EQUAL(loop->large_kept, b->cap);
    CHECK(rt__buf_new(loop, cap) == b); /* it comes back from the pool */
    EQUAL(loop->large_kept, 0);
    EQUAL(b->refs + b->len + b->arena, 1);
    EQUAL(loop->pooled, pooled);
    rt__free(loop, b, sizeof *b + b->cap); /* for the next row */
}

static void buffer_of_every_class(void)
{
    static const size_t odd[] = {0, 1, 63, 100, 40000, 65000, 70000, 1000000};
    rt_loop *loop = loop_open(50);
    size_t i, size;
    for (i = 0; i < COUNT(odd); i++)
        try_class(loop, odd[i]);
    for (size = 64; size <= 4 * POOL_LARGEST; size *= 2) {
        try_class(loop, size - 1);
        try_class(loop, size);
        try_class(loop, size + 1);
    }
    loop_close(loop);
}

/* Large ones are for who needs them again and again. */
static void large_buffers_are_kept_for_a_second(void)
{
    rt_loop *loop = rt_loop_new(NULL);
    size_t before = loop->heap;
    rt__buf *b[20];
    int i;
    for (i = 0; i < 20; i++)
        b[i] = rt__buf_new(loop, 1 << 20);
    for (i = 0; i < 20; i++)
        rt__buf_release(loop, b[i]);
    EQUAL(loop->large_kept, 16 << 20);
    CHECK(rt__buf_kept(loop, (1 << 19) - 1) == NULL); /* not twice too large */
    CHECK(rt__buf_kept(loop, (1 << 20) + 1) == NULL);
    b[0] = rt__buf_kept(loop, 1 << 19);
    CHECK(b[0] != NULL);
    if (b[0])
        rt__buf_release(loop, b[0]);
    loop->large_used = rt_now(loop) - 900;
    rt_poll(loop, 0);
    EQUAL(loop->large_kept, 16 << 20);
    loop->large_used = rt_now(loop) - 1001;
    rt_poll(loop, 0);
    EQUAL(loop->large_kept, 0);
    EQUAL(loop->heap, before);
    rt_loop_free(loop);
}

static void buffer_stays_until_its_last_holder_lets_go(void)
{
    rt_loop *loop = loop_open(51);
    rt__buf *b = rt__buf_new(loop, 100), *c;
    b->refs = 3;
    rt__buf_release(loop, b);
    rt__buf_release(loop, b);
    EQUAL(b->refs, 1);
    EQUAL(loop->pooled, 0);
    c = rt__buf_new(loop, 100);
    CHECK(c != b);
    rt__buf_release(loop, b);
    EQUAL(loop->pooled, 128);
    EQUAL(pool_bytes(loop), 128);
    rt__buf_release(loop, NULL);
    rt__buf_release(loop, c);
    EQUAL(loop->pooled, 256);
    loop_close(loop);
}

static void pool_keeps_at_most_its_cap(void)
{
    enum { MANY = 40 };
    rt_loop *loop = loop_open(52);
    rt__buf *b[MANY];
    size_t before = loop->heap, i, size;
    for (size = 64; size <= POOL_LARGEST; size *= 32) {
        for (i = 0; i < MANY; i++)
            b[i] = rt__buf_new(loop, POOL_LARGEST);
        for (i = 0; i < MANY; i++)
            rt__buf_release(loop, b[i]);
        EQUAL(loop->pooled, POOL_KEEPS);
        EQUAL(pool_bytes(loop), POOL_KEEPS);
        EQUAL(loop->heap,
              before + POOL_KEEPS + POOL_KEEPS / POOL_LARGEST * sizeof **b);
        b[0] = rt__buf_new(loop, size); /* one more goes to the system */
        i = loop->heap - (size == POOL_LARGEST ? 0 : size + sizeof **b);
        rt__buf_release(loop, b[0]);
        EQUAL(loop->heap, i);
    }
    loop_close(loop);
}

static void buffer_without_memory(void)
{
    rt_loop *loop = loop_open(53);
    rt__buf *b = rt__buf_new(loop, 64);
    size_t before = loop->heap;
    rt__buf_release(loop, b);
    memory_ends();
    CHECK(!rt__buf_new(loop, 65));
    CHECK(!rt__buf_new(loop, 1000000));
    CHECK(rt__buf_new(loop, 64) == b); /* the pool needs none */
    CHECK(!rt__buf_new(loop, 64));
    EQUAL(loop->heap, before);
    EQUAL(loop->pooled, 0);
    rt__buf_release(loop, b);
    loop_close(loop);
}

/* Nobody else has written into a buffer while it was held. */
static void buffer_step(rt_loop *loop, rt__buf **held, int mark)
{
    rt__buf *b = *held;
    if (b) {
        CHECK(is_filled(rt__buf_data(b), b->cap, mark));
        rt__buf_release(loop, b);
        *held = NULL;
        return;
    }
    b = *held = rt__buf_new(loop, (size_t)1 << below(15));
    CHECK(b != NULL);
    if (b)
        memset(rt__buf_data(b), mark, b->cap);
}

static void buffers_against_a_model(void)
{
    static rt__buf *held[200];
    rt_loop *loop = loop_open(54);
    size_t before = loop->heap, i, bytes = 0;
    for (i = 0; i < 10000; i++) {
        uint32_t k = below(COUNT(held));
        buffer_step(loop, &held[k], (int)k);
        EQUAL(loop->heap, h.live);
        CHECK(loop->pooled <= POOL_KEEPS);
        if (i % 100 == 0)
            EQUAL(pool_bytes(loop), loop->pooled);
    }
    for (i = 0; i < COUNT(held); i++)
        if (held[i])
            buffer_step(loop, &held[i], (int)i);
    for (i = 0; i < COUNT(loop->pool); i++) {
        rt__buf *b = loop->pool[i];
        for (; b; memcpy(&b, rt__buf_data(b), sizeof b))
            bytes += sizeof *b + b->cap;
    }
    EQUAL(loop->heap, before + bytes);
    loop_close(loop);
}

/* ---- a day's work under the moving allocator ----------------------------- */

enum { CLIENTS = 6, ROUNDS = 24, LARGEST = 200000 };
static const size_t sizes[ROUNDS] = {0,     1,      2,    7,    8,     63,
                                     64,    125,    126,  127,  128,   1000,
                                     65535, 4095,   4096, 4097, 65536, 65537,
                                     70000, 130000, 0,    5,    16,    LARGEST};

static struct {
    uint8_t out[LARGEST];
    rt_group room;
    int round[CLIENTS], opened, closed, echoes, wrong;
} work;

static void work_send(rt_loop *loop, rt_session s, int who)
{
    int round = work.round[who];
    size_t i, n = sizes[round];
    for (i = 0; i < n; i++)
        work.out[i] = (uint8_t)(i * 31 + (size_t)(round * 7 + who));
    work.wrong += rt_send(loop, s, RT_BINARY, work.out, n) < 0;
}

static void tick(rt_loop *loop, void *arg)
{
    rt_timer_start(loop, nobody, rt_now(loop) + 1, tick, arg);
}

static void served_open(rt_loop *loop, rt_session s)
{
    char name[20];
    rt_group own;
    snprintf(name, sizeof name, "own-%d", work.opened++);
    own = rt_group_open(loop, name, NULL);
    work.wrong += rt_group_join(loop, work.room, s) != 0;
    work.wrong += rt_group_join(loop, own, s) != 0;
    work.wrong += rt_timer_start(loop, s, rt_now(loop), tick, NULL).id == 0;
}

static void served_message(rt_loop *loop, rt_session s, int kind,
                           const void *data, size_t len)
{
    work.wrong += rt_send(loop, s, kind, data, len) < 0;
    work.wrong += rt_group_send_but(loop, work.room, s, RT_TEXT, "x", 1) < 0;
}

static int who_is(rt_loop *loop, rt_session s)
{
    return (int)((char *)rt_context(loop, s) - things);
}

static void client_open(rt_loop *loop, rt_session s)
{
    work_send(loop, s, who_is(loop, s));
}

static int is_echo(const uint8_t *p, size_t n, int who)
{
    size_t i;
    if (n != sizes[work.round[who]])
        return 0;
    for (i = 0; i < n; i++)
        if (p[i] != (uint8_t)(i * 31 + (size_t)(work.round[who] * 7 + who)))
            return 0;
    return p[n] == 0;
}

static void client_message(rt_loop *loop, rt_session s, int kind,
                           const void *data, size_t len)
{
    int who = who_is(loop, s);
    if (kind == RT_TEXT) {
        work.wrong += len != 1 || *(const char *)data != 'x';
        return;
    }
    work.wrong += !is_echo((const uint8_t *)data, len, who);
    work.echoes++;
    if (++work.round[who] == ROUNDS)
        rt_close(loop, s, 1000, "enough");
    else
        work_send(loop, s, who);
}

static void client_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    work.closed++;
    work.wrong += why->code != 1000;
}

static int work_begin(rt_loop *loop)
{
    rt_listen_opts served;
    rt_dial_opts client;
    rt_listener listener;
    char url[40];
    int i;
    memset(&served, 0, sizeof served);
    memset(&client, 0, sizeof client);
    served.on.open = served_open;
    served.on.message = served_message;
    served.max_message = client.max_message = LARGEST;
    client.on.open = client_open;
    client.on.message = client_message;
    client.on.close = client_close;
    listener = rt_listen(loop, "ws://127.0.0.1:0", &served);
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/",
             rt_listener_port(loop, listener));
    work.room = rt_group_open(loop, "room", NULL);
    for (i = 0; i < CLIENTS; i++) {
        client.user = &things[i];
        if (!rt_dial(loop, url, &client).id)
            return 0;
    }
    return 1;
}

static void work_on(int backend)
{
    rt_loop_opts o = host_opts(60, backend);
    int before = descriptors(1024), turns = 0, uncounted = 0;
    rt_loop *loop = rt_loop_new(&o);
    memset(&work, 0, sizeof work);
    CHECK(loop && work_begin(loop));
    while (loop && work.closed < CLIENTS && turns++ < 20000) {
        rt_poll(loop, 100);
        uncounted += loop->heap != h.live;
    }
    EQUAL(work.closed, CLIENTS);
    EQUAL(work.echoes, CLIENTS * ROUNDS);
    EQUAL(work.wrong, 0);
    EQUAL(uncounted, 0);
    rt_loop_free(loop);
    EQUAL(h.live, 0);
    EQUAL(h.wrong, 0);
    EQUAL(descriptors(1024), before);
}

static void all_of_it_under_the_moving_allocator(void)
{
    size_t i;
    for (i = 0; i < COUNT(backends); i++)
        if (has_backend(backends[i]))
            work_on(backends[i]);
}

/* ---- masks, as a server sees them ---------------------------------------- */

enum { FRAMES = 1000, WIRE = 1024 * 1024 };

/* A server that speaks by hand, and the client that dialled it. */
static struct {
    rt_loop *loop;
    rt_session client;
    int listening, fd, opened, closed;
    uint8_t in[WIRE];
    size_t len;
    char key[25];
} raw;

static void raw_opened(rt_loop *loop, rt_session s)
{
    (void)loop;
    (void)s;
    raw.opened++;
}

static void raw_closed(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    raw.closed += why->code == 1000 ? 1 : 100;
}

static int raw_listen(void)
{
    struct sockaddr_in a;
    socklen_t size = sizeof a;
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    raw.listening = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(raw.listening, (struct sockaddr *)&a, size) < 0 ||
        listen(raw.listening, 1) < 0 ||
        getsockname(raw.listening, (struct sockaddr *)&a, &size) < 0)
        return -1;
    return ntohs(a.sin_port);
}

/* A turn of the client, then what it wrote; waits a moment for more. */
static void raw_step(void)
{
    struct pollfd p = {raw.fd, POLLIN, 0};
    ssize_t n;
    rt_poll(raw.loop, 0);
    if (poll(&p, 1, 1) < 1 || raw.len == sizeof raw.in)
        return;
    n = recv(raw.fd, raw.in + raw.len, sizeof raw.in - raw.len, 0);
    raw.len += n > 0 ? (size_t)n : 0;
}

static int raw_connect(uint64_t chance)
{
    rt_dial_opts o;
    struct pollfd p;
    char url[40];
    memset(&raw, 0, sizeof raw);
    memset(&o, 0, sizeof o);
    raw.loop = loop_open(chance);
    o.on.open = raw_opened;
    o.on.close = raw_closed;
    o.ping_ms = RT_OFF;
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/masks", raw_listen());
    raw.client = rt_dial(raw.loop, url, &o);
    p.fd = raw.listening;
    p.events = POLLIN;
    if (!raw.client.id || poll(&p, 1, 5000) < 1)
        return 0;
    raw.fd = accept(raw.listening, NULL, NULL);
    return raw.fd >= 0;
}

/* Reads the request and answers it; what came is cleared. */
static int raw_shake(void)
{
    static const char name[] = "\r\nSec-WebSocket-Key: ";
    char answer[200], accept_key[29], *at;
    int i, n;
    for (i = 0; i < 5000 && !strstr((char *)raw.in, "\r\n\r\n"); i++)
        raw_step();
    at = strstr((char *)raw.in, name);
    if (!at || strspn(at + sizeof name - 1 + 24, "\r") != 1)
        return 0;
    memcpy(raw.key, at + sizeof name - 1, 24);
    rt__accept_key(raw.key, accept_key);
    n = snprintf(answer, sizeof answer,
                 "HTTP/1.1 101 Switching Protocols\r\n"
                 "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Accept: %s\r\n\r\n",
                 accept_key);
    memset(raw.in, 0, raw.len);
    raw.len = 0;
    if (send(raw.fd, answer, (size_t)n, 0) != n)
        return 0;
    for (i = 0; i < 5000 && !raw.opened; i++)
        raw_step();
    return raw.opened;
}

/* Sends the frames and a farewell, waits for all of them, answers it. */
static void raw_talk(void)
{
    static const uint8_t bye[] = {0x88, 2, 0x03, 0xe8};
    uint8_t data[FRAMES];
    size_t i, all = 0;
    memset(data, 'm', sizeof data);
    for (i = 0; i < FRAMES; i++) {
        all += (i % 300 > 125 ? 8u : 6u) + i % 300;
        CHECK(rt_send(raw.loop, raw.client, RT_TEXT, data, i % 300) >= 0);
        if (i % 50 == 0)
            raw_step();
    }
    EQUAL(rt_close(raw.loop, raw.client, 1000, NULL), 0);
    for (i = 0; i < 5000 && raw.len < all + 8; i++)
        raw_step();
    EQUAL(raw.len, all + 8);
    EQUAL(send(raw.fd, bye, sizeof bye, 0), sizeof bye);
    for (i = 0; i < 5000 && !raw.closed; i++)
        raw_step();
    EQUAL(raw.closed, 1);
}

/* One frame at *at; its mask, or UINT64_MAX when it is not the right one. */
static uint64_t raw_frame(size_t *at, size_t number)
{
    uint8_t payload[FRAMES];
    rt__frame f;
    int n = rt__frame_read(raw.in + *at, raw.len - *at, 1, &f);
    size_t want = number < FRAMES ? number % 300 : 2;
    if (n <= 0 || f.len != want || raw.len - *at - (size_t)n < want)
        return UINT64_MAX;
    rt__mask(payload, raw.in + *at + n, want, f.mask, 0);
    *at += (size_t)n + want;
    if (number == FRAMES)
        CHECK(f.op == 8 && payload[0] == 3 && payload[1] == 0xe8);
    else
        CHECK(f.op == RT_TEXT && is_filled(payload, want, 'm'));
    return (uint64_t)f.mask[0] << 24 | (uint64_t)f.mask[1] << 16 |
           (uint64_t)f.mask[2] << 8 | f.mask[3];
}

static void raw_compare(void)
{
    long set[32] = {0};
    size_t i, at = 0, bit;
    for (i = 0; i <= FRAMES; i++) {
        numbers[i] = raw_frame(&at, i);
        for (bit = 0; bit < 32; bit++)
            set[bit] += (long)(numbers[i] >> bit & 1);
    }
    EQUAL(at, raw.len);
    EQUAL(doubles(numbers, FRAMES + 1), 0);
    CHECK(numbers[FRAMES] != UINT64_MAX);
    CHECK(numbers[0] != 0);
    for (bit = 0; bit < 32; bit++) /* no bit of theirs is foreseeable */
        CHECK(set[bit] > 400 && set[bit] < 600);
}

static void raw_end(void)
{
    if (raw.fd > 0)
        close(raw.fd);
    close(raw.listening);
    loop_close(raw.loop);
}

/* The chance of the loop has a fixed seed, so that they are the same masks in
   every run: at random, one of 8,000 runs would have two alike. */
static void every_client_frame_has_a_mask_of_its_own(void)
{
    int open = raw_connect(70) && raw_shake();
    CHECK(open);
    if (open) {
        raw_talk();
        raw_compare();
    }
    raw_end();
}

/* RFC 6455, 4.1: 16 random bytes, new for each connection. */
static void every_dial_has_a_key_of_its_own(void)
{
    char key[2][25];
    int i;
    for (i = 0; i < 2; i++) {
        int open = raw_connect(71 + (uint64_t)i) && raw_shake();
        CHECK(open);
        memcpy(key[i], raw.key, 25);
        EQUAL(strlen(key[i]), 24);
        CHECK(strcmp(key[i] + 22, "==") == 0);
        raw_end();
    }
    CHECK(memcmp(key[0], key[1], 10) != 0); /* in either half */
    CHECK(memcmp(key[0] + 12, key[1] + 12, 10) != 0);
}

/* ---- the descriptor 0 -----------------------------------------------------
 */

/* A daemon closes it, and the next thing opened gets it. */
static int opens_there;

static void open_there(rt_loop *l, rt_session s)
{
    (void)l;
    (void)s;
    opens_there++;
}

static void stage(int now, int wanted)
{
    if (now == wanted)
        close(0);
}

/* One of the four steps finds 0 free. */
static void with_0_free(int backend, int step)
{
    rt_loop_opts o = {.backend = backend};
    rt_listen_opts served = {.on = {.open = open_there}};
    rt_dial_opts client = {.on = {.open = open_there}};
    char url[40];
    rt_loop *l;
    int n;

    opens_there = 0;
    stage(0, step);
    l = rt_loop_new(&o);
    stage(1, step);
    n = rt_listener_port(l, rt_listen(l, "tcp://127.0.0.1:0", &served));
    stage(2, step);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", n);
    CHECK(rt_dial(l, url, &client).id != 0);
    stage(3, step);
    for (n = 0; n < 100 && opens_there < 2; n++)
        rt_poll(l, 10);
    EQUAL(opens_there, 2);
    CHECK(fcntl(0, F_GETFD) >= 0);
    rt_loop_free(l);
}

static void descriptor_0_is_one_like_any_other(void)
{
    int saved = fcntl(0, F_DUPFD, 100), before = descriptors(64), i;

    for (i = 0; i < 8; i++) {
        with_0_free(i < 4 ? RT_AUTO : RT_SELECT, i % 4);
        EQUAL(fcntl(0, F_GETFD), -1);
        EQUAL(dup2(saved, 0), 0);
        EQUAL(descriptors(64), before);
    }
    close(saved);
}

/* ---- all ----------------------------------------------------------------- */

static void run_handles(void)
{
    RUN(handle_answers_to_its_own_kind_alone);
    RUN(handle_of_nothing_is_stale);
    RUN(handle_of_a_slot_used_again_is_another);
    RUN(handle_stays_when_its_object_becomes_another);
    RUN(handles_of_another_loop_are_stale);
    RUN(generations_start_at_random);
    RUN(slot_without_generations_is_retired);
    RUN(handles_against_a_model);
    RUN(iteration_survives_what_is_freed_meanwhile);
    RUN(handle_without_memory);
}

static void run_timers(void)
{
    RUN(heap_of_timers_set_moved_and_cleared);
    RUN(timer_has_its_place_reserved);
    RUN(timers_against_a_model);
    RUN(timers_of_one_time_run_in_the_order_of_their_start);
    RUN(timers_of_one_time_stay_in_order_when_others_leave);
    RUN(timer_due_at_once_starves_nobody);
    RUN(timer_stopped_in_its_own_turn_does_not_run);
    RUN(timeout_is_that_of_the_next_timer);
    RUN(timer_waits_for_its_time);
    RUN(spins_before_it_blocks);
    RUN(timer_that_cannot_be_started);
}

static void run_tables(void)
{
    RUN(table_with_hashes_of_its_own_for_each);
    RUN(table_with_many_of_the_same_hash);
    RUN(table_with_hashes_alike_in_the_low_bits);
    RUN(table_grows_with_its_members);
    RUN(table_without_memory);
    RUN(hash_is_siphash);
    RUN(chance_is_the_same_whatever_the_order_of_bytes);
    RUN(hash_and_chance_differ_between_loops);
    RUN(hash_of_names_does_not_collide);
    RUN(hash_of_names_that_collide_under_any_key_elsewhere);
    RUN(chance_does_not_repeat);
}

static void run_buffers(void)
{
    RUN(buffer_of_every_class);
    RUN(large_buffers_are_kept_for_a_second);
    RUN(buffer_stays_until_its_last_holder_lets_go);
    RUN(pool_keeps_at_most_its_cap);
    RUN(buffer_without_memory);
    RUN(buffers_against_a_model);
}

int main(void)
{
    RUN(memory_is_counted_and_survives_a_move);
    RUN(texts_are_copied);
    RUN(arrays_grow_by_a_quarter);
    RUN(loop_new_when_any_allocation_fails);
    RUN(loop_new_when_there_is_no_chance);
    RUN(loop_new_with_an_unknown_backend);
    opening_when_any_allocation_fails();
    run_handles();
    run_timers();
    run_tables();
    run_buffers();
    RUN(all_of_it_under_the_moving_allocator);
    RUN(every_client_frame_has_a_mask_of_its_own);
    RUN(every_dial_has_a_key_of_its_own);
    RUN(descriptor_0_is_one_like_any_other);
    return test_done();
}
