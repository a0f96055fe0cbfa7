/*
 * Rows 70 to 73: what one may take from all.
 */

/* ---- 70 ----------------------------------------------------------------- */

enum { ROW_70_NAMES = 4096, ROW_70_PAIRS = 12 };

/* MurmurHash2's mixing of a block, and back: both multiply and shift. */
static uint32_t row_70_unmix(uint32_t k)
{
    uint32_t inverse = 0xe59b19bd; /* of 0x5bd1e995, modulo 2^32 */

    k *= inverse;
    k ^= k >> 24;
    return k * inverse;
}

static uint32_t row_70_murmur(const char *text, size_t n, uint32_t seed)
{
    uint32_t m = 0x5bd1e995, h = seed ^ (uint32_t)n, k;

    for (; n >= 4; n -= 4, text += 4) {
        memcpy(&k, text, 4);
        k *= m;
        k ^= k >> 24;
        h = h * m ^ k * m;
    }
    h ^= h >> 13;
    h *= m;
    return h ^ h >> 15;
}

static int row_70_has_nul(uint32_t k)
{
    return !(k & 0xff) || !(k >> 8 & 0xff) || !(k >> 16 & 0xff) || !(k >> 24);
}

/* Two blocks whose mixtures differ in the top bit alone.  In the hash that bit
   stays alone when it is multiplied by an odd number, whatever else is there:
   two such pairs, one behind the other, cancel for every seed. */
static void row_70_blocks(uint32_t out[2])
{
    uint32_t mixed = 1;

    do {
        mixed += 0x9e3779b9;
        out[0] = row_70_unmix(mixed);
        out[1] = row_70_unmix(mixed ^ 0x80000000);
    } while (row_70_has_nul(out[0]) || row_70_has_nul(out[1]));
}

/* The n-th of 4,096 names of 96 bytes that have the same hash with any seed. */
static void row_70_name(int n, char out[97])
{
    uint32_t block[2];
    int i;

    row_70_blocks(block);
    for (i = 0; i < ROW_70_PAIRS; i++) {
        memcpy(out + 8 * i, &block[n >> i & 1], 4);
        memcpy(out + 8 * i + 4, &block[n >> i & 1], 4);
    }
    out[96] = 0;
}

static uint32_t row_70_fnv(const char *text)
{
    uint32_t h = 2166136261u;

    for (; *text; text++)
        h = (h ^ (uint8_t)*text) * 16777619u;
    return h;
}

static size_t row_70_longest(const rt__table *t)
{
    size_t i, n, most = 0;
    const rt__node *node;

    for (i = 0; i < t->size; i++) {
        for (n = 0, node = t->heads[i]; node; node = node->next)
            n++;
        most = n > most ? n : most;
    }
    return most;
}

/* Names that share a Murmur hash, and names whose FNV-1a ends in 12 zeros, as
   groups and as user ids: no chain of any table is long. */
static void row_70_names(int fnv)
{
    char name[128];
    uint32_t i, n = 0;

    for (i = 0; n < ROW_70_NAMES; i++) {
        if (fnv)
            snprintf(name, sizeof name, "room %u", (unsigned)i);
        else
            row_70_name((int)i, name);
        if (fnv && row_70_fnv(name) & 0xfff)
            continue;
        CHECK(rt_group_open(stage.loop, name, NULL).id != 0);
        n++;
    }
    EQUAL(stage.loop->groups.count, ROW_70_NAMES);
    CHECK(row_70_longest(&stage.loop->groups) < 12);
}

/* Redis, Tor, facil.io. */
static void row_70_names_do_not_collide_as_they_are_chosen(void)
{
    char a[97], b[97], name[257];
    uint32_t seed;
    int fnv;

    row_70_name(0, a);
    row_70_name(4095, b);
    CHECK(memcmp(a, b, 96) != 0);
    for (seed = 0; seed < 10; seed++) /* they are what they are said to be */
        EQUAL(row_70_murmur(a, 96, seed), row_70_murmur(b, 96, seed));
    for (fnv = 0; fnv < 2; fnv++) {
        stage_open(NULL, NULL);
        row_70_names(fnv);
        memset(name, 'n', 256);
        name[256] = 0;
        EQUAL(rt_group_open(stage.loop, name, NULL).id, 0);
        name[255] = 0;
        CHECK(rt_group_open(stage.loop, name, NULL).id != 0);
        stage_end();
    }
}

/* ---- 71 ----------------------------------------------------------------- */

/* What a queue of one message takes, without the message. */
enum { ROW_71_QUEUE = sizeof(rt__out) + 4 * sizeof(rt__loose) };

/* 1,000 subscribers, one of whom never reads; 4,000 bytes to all, 300 times.
   What waits is bounded by the one hard mark and shared by all; droppable
   messages never wait above the soft one.  (Within a turn each of the others
   may have a queue, whose bytes they share.) */
static void row_71_flood(int kind)
{
    enum { SUBSCRIBERS = 1000, SIZE = 4000, TIMES = 300 };
    sim_opts weather = {.max_fds = 2000};
    static char bytes[SIZE];
    char sink[8192];
    size_t before, most = 0;
    rt_group g;
    int i, k;

    stage_open(NULL, &weather);
    g = rt_group_open(stage.loop, "all", NULL);
    for (i = 0; i < SUBSCRIBERS; i++) {
        stage.peer_count = 0; /* they do not talk, once they are in */
        stage.peers[i + 1] = peer_open();
        EQUAL(rt_group_join(stage.loop, g, stage.last), 0);
    }
    sim_peer_window(stage.peers[1]->line, 0);
    before = sim_heap();
    for (k = 0; k < TIMES && well(); k++) {
        rt_group_send(stage.loop, g, kind, bytes, SIZE);
        most = grown(before) > most ? grown(before) : most;
        rt_poll(stage.loop, 0);
        for (i = 2; i <= SUBSCRIBERS; i++) {
            if (sim_peer_recv(stage.peers[i]->line, sink, sizeof sink) !=
                SIZE + 4)
                sim_fault("peer %d waits for message %d", i, k);
        }
    }
    if (kind & RT_DROPPABLE) {
        EQUAL(stage.closes, 0);
        CHECK(most <= 65536 + 32768 + SUBSCRIBERS * ROW_71_QUEUE);
    } else {
        EQUAL(stage.closes, 1);
        EQUAL(stage.end.code, RT_CLOSE_SLOW);
        CHECK(most <= 1048576 + 32768 + SUBSCRIBERS * ROW_71_QUEUE);
    }
    memmove(stage.peers, stage.peers + 1, SUBSCRIBERS * sizeof *stage.peers);
    stage.peer_count = SUBSCRIBERS;
    stage_end();
}

/* A group's memory is bounded by its number of messages and by their bytes. */
static void row_71_history(void)
{
    rt_group_opts o = {.history = 100, .history_bytes = 20000};
    static char bytes[4000];
    size_t before;
    rt_group g;
    int i;

    stage_open(NULL, NULL);
    before = sim_heap();
    g = rt_group_open(stage.loop, "log", &o);
    for (i = 0; i < 2000; i++)
        rt_group_send(stage.loop, g, RT_BINARY, bytes,
                      (size_t)(i < 1000 ? 4000 : 10));
    CHECK(grown(before) < 120000);
    EQUAL(rt_group_position(stage.loop, g).offset, 2000);
    stage_end();
}

/* uWS, Centrifugo, python-websockets, HTTP/2. */
static void row_71_one_who_does_not_read_costs_one_queue(void)
{
    row_71_flood(RT_BINARY);
    row_71_flood(RT_BINARY | RT_DROPPABLE);
    row_71_history();
}

/* ---- 72 ----------------------------------------------------------------- */

/* A stream's length is a number without a sign. */
static void row_72_length(uint32_t len)
{
    uint8_t head[32] = {0};
    sim_peer *p = sim_connect(9001);
    int closes = stage.closes;

    head[0] = (uint8_t)(len >> 24), head[1] = (uint8_t)(len >> 16);
    head[2] = (uint8_t)(len >> 8), head[3] = (uint8_t)len;
    sim_peer_send(p, head, sizeof head);
    settle();
    EQUAL(stage.closes - closes, len > 65536);
    if (len > 65536)
        EQUAL(stage.end.code, 1009);
    sim_peer_close(p);
    settle();
}

/* Garbage of all kinds: nobody gets more than may be, nothing piles up. */
static void row_72_garbage(int port, size_t least)
{
    uint8_t bytes[64];
    size_t before, i;
    sim_peer *p;
    int k, n;

    settle();
    before = sim_heap();
    for (k = 0; k < 2000 && well(); k++) {
        p = sim_connect(port);
        for (n = 0; n < 4; n++) {
            for (i = 0; i < sizeof bytes; i++)
                bytes[i] = (uint8_t)(sim_choose(3) ? sim_choose(256)
                                                   : sim_choose(2) * 255);
            sim_peer_send(p, bytes, 1 + sim_choose(sizeof bytes));
            rt_poll(stage.loop, 0);
        }
        sim_peer_close(p);
        rt_poll(stage.loop, 0);
    }
    settle();
    CHECK(grown(before) < least);
    CHECK(stage.len <= 65536);
}

/* ENet. */
static void row_72_negative(void)
{
    static const size_t at[] = {offsetof(rt_listen_opts, max_message),
                                offsetof(rt_listen_opts, resume_ms),
                                offsetof(rt_listen_opts, max_fragments),
                                offsetof(rt_listen_opts, max_body),
                                offsetof(rt_listen_opts, max_header),
                                offsetof(rt_listen_opts, max_handshakes),
                                offsetof(rt_listen_opts, handshake_ms),
                                offsetof(rt_listen_opts, assembly_ms),
                                offsetof(rt_listen_opts, ping_ms),
                                offsetof(rt_listen_opts, dead_pings),
                                offsetof(rt_listen_opts, close_ms),
                                offsetof(rt_listen_opts, soft_mark),
                                offsetof(rt_listen_opts, hard_mark),
                                offsetof(rt_listen_opts, backlog)};
    static const size_t dialled[] = {offsetof(rt_dial_opts, connect_ms),
                                     offsetof(rt_dial_opts, max_message),
                                     offsetof(rt_dial_opts, max_fragments),
                                     offsetof(rt_dial_opts, max_header),
                                     offsetof(rt_dial_opts, handshake_ms),
                                     offsetof(rt_dial_opts, assembly_ms),
                                     offsetof(rt_dial_opts, ping_ms),
                                     offsetof(rt_dial_opts, dead_pings),
                                     offsetof(rt_dial_opts, close_ms),
                                     offsetof(rt_dial_opts, soft_mark),
                                     offsetof(rt_dial_opts, hard_mark)};
    static const int values[] = {-2, INT32_MIN};
    size_t i;

    for (i = 0; i < 2 * COUNT(at); i++) {
        rt_listen_opts o = {.framing = RT_LENGTH};
        memcpy((char *)&o + at[i / 2], &values[i & 1], sizeof(int));
        EQUAL(rt_listen(stage.loop, "tcp://127.0.0.1:9005", &o).id, 0);
        EQUAL(rt_error(stage.loop, NULL), RT_EINVAL);
    }
    for (i = 0; i < 2 * COUNT(dialled); i++) {
        rt_dial_opts o = {.resume = 0};
        memcpy((char *)&o + dialled[i / 2], &values[i & 1], sizeof(int));
        EQUAL(rt_dial(stage.loop, "ws://127.0.0.1:7000/", &o).id, 0);
        EQUAL(rt_error(stage.loop, NULL), RT_EINVAL);
    }
}

/* RT_OFF itself is good for each of them. */
static void row_72_off(void)
{
    rt_listen_opts o = {.max_message = RT_OFF,
                        .resume_ms = RT_OFF,
                        .max_fragments = RT_OFF,
                        .max_body = RT_OFF,
                        .max_header = RT_OFF,
                        .max_handshakes = RT_OFF,
                        .handshake_ms = RT_OFF,
                        .assembly_ms = RT_OFF,
                        .ping_ms = RT_OFF,
                        .dead_pings = RT_OFF,
                        .close_ms = RT_OFF,
                        .soft_mark = RT_OFF,
                        .hard_mark = RT_OFF,
                        .backlog = RT_OFF};
    rt_dial_opts d = {.connect_ms = RT_OFF,
                      .max_message = RT_OFF,
                      .max_fragments = RT_OFF,
                      .max_header = RT_OFF,
                      .handshake_ms = RT_OFF,
                      .assembly_ms = RT_OFF,
                      .ping_ms = RT_OFF,
                      .dead_pings = RT_OFF,
                      .close_ms = RT_OFF,
                      .soft_mark = RT_OFF,
                      .hard_mark = RT_OFF};
    rt_session s;

    CHECK(rt_listen(stage.loop, "ws://127.0.0.1:9006", &o).id != 0);
    s = rt_dial(stage.loop, "ws://127.0.0.1:9006/", &d);
    settle();
    EQUAL(rt_state(stage.loop, s), RT_OPEN);
    EQUAL(rt_send(stage.loop, s, RT_TEXT, "x", 1), 0);
    settle();
    EQUAL(rt_close(stage.loop, s, 1000, NULL), 0);
    settle();
}

static void row_72_sizes_have_no_sign_and_a_limit(void)
{
    static const uint32_t lengths[] = {
        0,          1,          28,         65536,      65537,
        0x7fffffff, 0x80000000, 0x80000001, 0xfffffffc, 0xffffffff};
    size_t i;

    stage_open(NULL, NULL);
    stage_listen("tcp://127.0.0.1:9001", NULL);
    for (i = 0; i < COUNT(lengths); i++)
        row_72_length(lengths[i]);
    row_72_garbage(9001, 100000);
    row_72_garbage(PORT, 100000);
    row_72_negative();
    row_72_off();
    stage_end();
}

/* ---- 73 ----------------------------------------------------------------- */

/* A bucket against one in wide floating point, with a clock that jumps and
   numbers at their ends.  They may differ by the rounding of one ms. */
static void row_73_bucket(uint64_t seed)
{
    static const uint32_t rates[] = {1, 3, 1000, 1000000, UINT32_MAX};
    rt__bucket b = {0, 0};
    uint64_t now = seed * 1000, cost, wait;
    uint32_t rate = rates[seed % 5], burst = rates[seed / 5 % 5];
    long double level = 0, want;
    uint64_t at = 0;
    int i;

    for (i = 0; i < 2000; i++) {
        now += sim_choose(3) ? sim_choose(1000) : 0;
        if (sim_choose(50) == 0)
            now += UINT64_C(1) << sim_choose(45);
        cost = sim_choose(2) ? sim_choose(10) : (uint64_t)sim_choose(1u << 31);
        level -= (long double)(now - at) * rate;
        level = level < 0 ? 0 : level;
        at = now;
        want = level == 0 || level + (long double)cost * 1000 <=
                                 (long double)burst * 1000
                   ? 0
                   : (level + (long double)cost * 1000 -
                      (long double)burst * 1000) /
                         rate;
        if (want > level / rate) /* an empty one takes any */
            want = level / rate;
        wait = rt__bucket_wait(&b, rate, burst, cost, now);
        CHECK((long double)wait >= want - 1 && (long double)wait <= want + 1);
        if (wait == 0) {
            rt__bucket_take(&b, rate, cost, now);
            level += (long double)cost * 1000;
        }
    }
    /* Back in time it gives nothing away, at the end of time it is empty. */
    wait = rt__bucket_wait(&b, rate, burst, 1, 0);
    CHECK(wait >= rt__bucket_wait(&b, rate, burst, 1, now));
    EQUAL(rt__bucket_wait(&b, rate, burst, UINT64_MAX, UINT64_MAX), 0);
}

/* A million addresses, 64 at a time: what is counted has a fixed size, never
   too low, and comes back to nothing. */
static void row_73_sketch(void)
{
    static rt__sketch s;
    static const rt__sketch empty;
    uint32_t i, low = 0, high = 0;

    memset(&s, 0, sizeof s);
    for (i = 0; i < 1000000; i++) {
        uint64_t hash = rt__hash(stage.loop, &i, sizeof i);
        rt__sketch_add(&s, hash);
        low += rt__sketch_count(&s, hash) < 1;
        high += rt__sketch_count(&s, hash) > 1;
        if (i < 64)
            continue;
        i -= 64;
        hash = rt__hash(stage.loop, &i, sizeof i);
        i += 64;
        rt__sketch_remove(&s, hash);
    }
    EQUAL(low, 0);
    CHECK(high < 10);
    for (i = 1000000 - 64; i < 1000000; i++)
        rt__sketch_remove(&s, rt__hash(stage.loop, &i, sizeof i));
    CHECK(memcmp(&s, &empty, sizeof s) == 0);
}

/* The same through the door: 10,000 of IPv4 and IPv6 (a million with --long),
   of which no memory stays; and a /64 counts as one. */
static void row_73_door(void)
{
    rt_listen_opts o = {.max_per_address = 2};
    sim_peer *p[16] = {0};
    char from[64];
    size_t heap = 0;
    uint32_t i, most = long_run ? 1000000 : 10000;

    stage_open(NULL, NULL);
    stage_listen("ws://127.0.0.1:9001", &o);
    stage_listen("ws://[::1]:9002", &o);
    for (i = 0; i < most && well(); i++) {
        snprintf(from, sizeof from, i & 1 ? "10.%u.%u.%u" : "2001:db8:%x:%x::1",
                 (unsigned)(i >> 16 & 255), (unsigned)(i >> 8 & 255),
                 (unsigned)(i & 255));
        if (p[i % 16])
            sim_peer_close(p[i % 16]);
        p[i % 16] = sim_connect_from(i & 1 ? 9001 : 9002, from);
        rt_poll(stage.loop, 0);
        if (i == 1000)
            heap = sim_heap_peak();
    }
    CHECK(sim_heap_peak() <= heap + 1024);
    for (i = 0; i < 16; i++)
        sim_peer_close(p[i]);
    settle();
    for (i = 0; i < 4; i++) {
        ws_peer *w;
        snprintf(from, sizeof from, "2001:db8:1:2:%x::%x", (unsigned)i * 77,
                 (unsigned)i);
        w = peer_add(ws_connect_from(9002, from));
        ws_raw(w, ws_request("/"), strlen(ws_request("/")));
        settle();
        EQUAL(w->status, i < 2 ? 101 : 503);
    }
    stage_end();
}

/* A session pays for messages and for bytes: either ends it. */
static void row_73_both(int by_bytes)
{
    rt_listen_opts o = {
        .message_rate = 10, .byte_rate = 10000, .rate_over = RT_OVER_CLOSE};
    static char bytes[6000];
    ws_peer *w;
    int i;

    stage_open(&o, NULL);
    w = peer_open();
    for (i = 0; i < (by_bytes ? 2 : 11); i++)
        ws_send(w, WS_BINARY, bytes, by_bytes ? sizeof bytes : 1);
    settle();
    EQUAL(stage.messages, by_bytes ? 1 : 10);
    EQUAL(stage.end.code, 1008);
    EQUAL(stage.end.cause, RT_BY_LIMIT);
    stage_end();
}

static void row_73_rates_are_exact_and_of_constant_size(void)
{
    uint64_t seed;

    stage_open(NULL, NULL);
    for (seed = 0; seed < 25; seed++)
        row_73_bucket(seed);
    row_73_sketch();
    stage_end();
    row_73_door();
    row_73_both(0);
    row_73_both(1);
}
