/*
 * Who is let in: the rate of new connections, how many there may be of one
 * address, proxies that speak for others, listening sockets that are handed
 * over, and what those are told who are refused.  First values alone, then
 * loops with real sockets.
 *
 * The clock stands, and time passes here as a test wants it.
 */
#include "../rtnet_internal.h"
#include "clock.h"
#include "descriptors.h"
#include "guard.h"

#if defined(CLOCK_MONOTONIC_RAW) /* who waits in vain is to notice */
#define PEER_CLOCK CLOCK_MONOTONIC_RAW
#endif
#include "peer.h"

#include <regex.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- chance ------------------------------------------------------------- */

static uint64_t dice_state = 88172645463325252u;

static uint64_t dice(void)
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return dice_state * 0x2545F4914F6CDD1Du >> 11;
}

/* The same secrets on each run. */
static int dice_bytes(void *user, void *out, size_t n)
{
    uint8_t *p = out;
    (void)user;
    while (n-- > 0)
        *p++ = (uint8_t)dice();
    return 0;
}

/* ---- the sketch --------------------------------------------------------- */

enum { ADDRESSES = 1000000, LIVE = 20000, LIMIT = 10 };

static struct {
    rt__sketch s;
    uint8_t real[ADDRESSES];
    uint32_t who[LIVE];
    uint32_t low, false_refusals;
} model;

static uint64_t key_of(rt_loop *loop, uint32_t who)
{
    return rt__hash(loop, &who, sizeof who);
}

static rt_loop *dice_loop(void)
{
    rt_loop_opts o;
    memset(&o, 0, sizeof o);
    o.random = dice_bytes;
    o.realloc = peer_realloc;
    return rt_loop_new(&o);
}

/* One connection ends, another comes, where it is let in. */
static void model_step(rt_loop *loop, uint32_t slot, uint32_t who)
{
    uint64_t key = key_of(loop, who);
    uint32_t n;
    if (model.who[slot] < ADDRESSES) {
        model.real[model.who[slot]]--;
        rt__sketch_remove(&model.s, key_of(loop, model.who[slot]));
        model.who[slot] = ADDRESSES;
    }
    n = rt__sketch_count(&model.s, key);
    model.low += n < model.real[who];
    model.false_refusals += n >= LIMIT && model.real[who] < LIMIT;
    if (n >= LIMIT)
        return;
    rt__sketch_add(&model.s, key);
    model.real[who]++;
    model.who[slot] = who;
}

static void model_begin(void)
{
    size_t i;
    memset(&model, 0, sizeof model);
    for (i = 0; i < LIVE; i++)
        model.who[i] = ADDRESSES;
}

/* All go; what is left in the table. */
static uint32_t model_end(rt_loop *loop)
{
    static const rt__sketch empty;
    uint32_t i;
    for (i = 0; i < LIVE; i++)
        if (model.who[i] < ADDRESSES)
            rt__sketch_remove(&model.s, key_of(loop, model.who[i]));
    return memcmp(&model.s, &empty, sizeof empty) != 0;
}

static void a_million_addresses_come_and_go(void)
{
    rt_loop *loop = dice_loop();
    uint32_t i;
    model_begin();
    for (i = 0; i < ADDRESSES; i++) {
        model_step(loop, (uint32_t)(dice() % LIVE), i);
        if (i % 4 == 0) /* some come more than once */
            model_step(loop, (uint32_t)(dice() % LIVE), i - i % 16);
    }
    EQUAL(model.low, 0);
    EQUAL(model.false_refusals, 0);
    EQUAL(model_end(loop), 0);
    rt_loop_free(loop);
}

/* The worst that 20,000 connections can do: 2,000 addresses at their limit. */
static void full_addresses_hide_hardly_anybody(void)
{
    rt_loop *loop = dice_loop();
    uint32_t i;
    model_begin();
    for (i = 0; i < LIVE; i++)
        model_step(loop, i, i / LIMIT);
    EQUAL(model.s.live, LIVE);
    for (i = LIVE / LIMIT; i < ADDRESSES; i++)
        model.false_refusals +=
            rt__sketch_count(&model.s, key_of(loop, i)) >= LIMIT;
    CHECK(model.false_refusals <= 60); /* 12 are expected of a million */
    for (i = 0; i < LIVE / LIMIT; i++) /* and each of them is really full */
        EQUAL(rt__sketch_count(&model.s, key_of(loop, i)) >= LIMIT, 1);
    EQUAL(model_end(loop), 0);
    rt_loop_free(loop);
}

static void a_counter_at_its_end_never_counts_too_low(void)
{
    uint64_t key = 0x123456789abcdefu, other = ~key;
    int i;
    memset(&model, 0, sizeof model);
    rt__sketch_add(&model.s, other);
    for (i = 0; i < 70000; i++)
        rt__sketch_add(&model.s, key);
    EQUAL(rt__sketch_count(&model.s, key), 65535);
    for (i = 70000; i-- > 1;) {
        rt__sketch_remove(&model.s, key);
        CHECK(rt__sketch_count(&model.s, key) >=
              (uint32_t)(i < 65535 ? i : 65535));
    }
    rt__sketch_remove(&model.s, key);
    EQUAL(rt__sketch_count(&model.s, other), 1);
    rt__sketch_remove(&model.s, other); /* empty: it starts again */
    EQUAL(rt__sketch_count(&model.s, key), 0);
    rt__sketch_add(&model.s, key);
    EQUAL(rt__sketch_count(&model.s, key), 1);
}

/* ---- when to try again -------------------------------------------------- */

enum { STORM = 10000, STORM_MS = 200000 };

static struct {
    int first[STORM_MS], next[STORM], refused[STORM];
    int in, last, most, refusals;
} storm;

/* All of them come within 100 ms and obey the hint, in whole seconds with a
   jitter within the last one, as dialled sessions do. */
static void storm_run(uint32_t rate, uint32_t burst)
{
    rt__bucket door = {0, 0}, backlog = {0, 0};
    int t, k, next;
    memset(&storm, 0, sizeof storm);
    memset(storm.first, -1, sizeof storm.first);
    for (k = 0; k < STORM; k++) {
        t = (int)(dice() % 100);
        storm.next[k] = storm.first[t];
        storm.first[t] = k;
    }
    for (t = 0; t < STORM_MS; t++)
        for (k = storm.first[t]; k >= 0; k = next) {
            uint64_t now = (uint64_t)t + 1;
            int then;
            next = storm.next[k];
            if (rt__bucket_wait(&door, rate, burst, 1, now) == 0) {
                rt__bucket_take(&door, rate, 1, now);
                storm.in++;
                storm.last = t;
                continue;
            }
            then = (int)rt__retry_draw(&backlog, rate, now, dice());
            CHECK(then >= 1 && then <= 60000);
            then = t + (then + 999) / 1000 * 1000 - (int)(dice() % 1000);
            storm.refusals++;
            if (++storm.refused[k] > storm.most)
                storm.most = storm.refused[k];
            if (then >= STORM_MS)
                continue;
            storm.next[k] = storm.first[then];
            storm.first[then] = k;
        }
}

static void a_storm_is_in_as_fast_as_the_rate_lets_it(void)
{
    static const uint32_t rates[] = {200, 500, 1000, 2000};
    size_t i;
    for (i = 0; i < 4; i++) {
        storm_run(rates[i], rates[i]);
        EQUAL(storm.in, STORM);
        CHECK(storm.last <= (int)(STORM / rates[i]) * 1300 + 2000);
        CHECK(storm.refusals <= STORM * 11 / 10);
        CHECK(storm.most <= 4);
    }
}

static void a_flood_does_not_postpone_anybody_for_ever(void)
{
    rt__bucket backlog = {0, 0};
    uint32_t i, ms = 0, least = 60000, most = 0;
    for (i = 0; i < 1000000; i++) {
        ms = rt__retry_draw(&backlog, 100, 1000, dice());
        if (i < 100000)
            continue;
        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
    }
    CHECK(least >= 40000 && least < 41000 && most <= 60000 && most > 59000);
    for (i = 0; i < 1000; i++) /* a minute later it is forgotten */
        CHECK(rt__retry_draw(&backlog, 100, 61100 + i * 10, dice()) <= 1000);
}

static void the_first_who_is_refused_waits_a_second_at_most(void)
{
    uint32_t i, late = 0;
    for (i = 0; i < 1000; i++) {
        rt__bucket backlog = {0, 0};
        uint32_t ms = rt__retry_draw(&backlog, 1000, 5, dice());
        CHECK(ms >= 1 && ms <= 1000);
        late += ms > 500;
    }
    CHECK(late > 400 && late < 600);
}

/* ---- addresses and networks --------------------------------------------- */

static const char *shown(const char *text)
{
    static char out[46];
    rt__addr a;
    if (rt__addr_read(text, strlen(text), &a) < 0)
        return "-";
    rt__addr_text(&a, out);
    return out;
}

static void addresses_are_read_as_they_are_written(void)
{
    static const char *const table[][2] = {
        {"1.2.3.4", "1.2.3.4"},
        {"::ffff:1.2.3.4", "1.2.3.4"},
        {"::FFFF:102:304", "1.2.3.4"},
        {"2001:DB8::1", "2001:db8::1"},
        {"::", "::"},
        {"", "-"},
        {"1.2.3", "-"},
        {"1.2.3.256", "-"},
        {"01.2.3.4", "-"},
        {" 1.2.3.4", "-"},
        {"1.2.3.4 ", "-"},
        {"1.2.3.4:80", "-"},
        {"[::1]", "-"},
        {"fe80::1%eth0", "-"},
        {"unknown", "-"},
        {"1111:2222:3333:4444:5555:6666:7777:8888:9", "-"},
        {"0000000000000000000000000000000000000000000000001", "-"},
    };
    const char *old = shown("::1.2.3.4"); /* libcs write it in two ways */
    size_t i;
    CHECK(strcmp(old, "::1.2.3.4") == 0 || strcmp(old, "::102:304") == 0);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        test_name[0] = 0;
        snprintf(test_name, sizeof test_name, "the address '%s'", table[i][0]);
        CHECK(strcmp(shown(table[i][0]), table[i][1]) == 0);
    }
}

static int in_net(const char *net, const char *text)
{
    guard g = guard_open(64);
    rt__net n;
    rt__addr a;
    int has = -1;
    size_t len = strlen(net);
    memset(&a, 0, sizeof a);
    a.family = RT__LOCAL;
    if (*text)
        EQUAL(rt__addr_read(text, strlen(text), &a), 0);
    if (rt__net_read((char *)guard_copy(&g, net, len), len, &n) == 0)
        has = rt__net_has(&n, &a);
    guard_close(&g);
    return has;
}

static void networks_hold_what_agrees_in_their_bits(void)
{
    static const struct {
        const char *net, *addr;
        int has;
    } table[] = {
        {"10.0.0.0/8", "10.255.0.1", 1},
        {"10.0.0.0/8", "11.0.0.1", 0},
        {"10.1.2.3/8", "10.9.9.9", 1},
        {"10.0.0.0/8", "::ffff:10.0.0.1", 1},
        {"10.0.0.1", "10.0.0.1", 1},
        {"10.0.0.1", "10.0.0.2", 0},
        {"10.0.0.1/32", "10.0.0.1", 1},
        {"192.168.1.128/25", "192.168.1.200", 1},
        {"192.168.1.128/25", "192.168.1.100", 0},
        {"192.168.1.4/31", "192.168.1.5", 1},
        {"192.168.1.4/31", "192.168.1.6", 0},
        {"0.0.0.0/0", "9.9.9.9", 1},
        {"0.0.0.0/0", "::1", 0},
        {"::/0", "::1", 1},
        {"::/0", "9.9.9.9", 0},
        {"fd00::/8", "fdff::1", 1},
        {"fd00::/8", "fc00::1", 0},
        {"2001:db8::/33", "2001:db8:7fff::", 1},
        {"2001:db8::/33", "2001:db8:8000::", 0},
        {"::1", "::1", 1},
        {"::1/128", "::2", 0},
        {"::ffff:10.0.0.0/104", "10.3.0.1", 1},
        {"::ffff:10.0.0.0/104", "11.3.0.1", 0},
        {"::ffff:10.0.0.0/90", "10.3.0.1", -1},
        {"unix", "", 1},
        {"unix", "127.0.0.1", 0},
        {"127.0.0.1", "", 0},
        {"0.0.0.0/0", "", 0},
        {"unix/8", "", -1},
        {"10.0.0.0/33", "10.0.0.1", -1},
        {"10.0.0.0/", "10.0.0.1", -1},
        {"10.0.0.0/08", "10.0.0.1", -1},
        {"10.0.0.0/-1", "10.0.0.1", -1},
        {"10.0.0.0/8x", "10.0.0.1", -1},
        {"10.0.0.0/8/8", "10.0.0.1", -1},
        {"::/129", "::1", -1},
        {"::/1000", "::1", -1},
        {"/8", "::1", -1},
        {"", "::1", -1},
        {"localhost", "127.0.0.1", -1},
        {"10.0.0", "10.0.0.1", -1},
    };
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        snprintf(test_name, sizeof test_name, "network '%s', address '%s'",
                 table[i].net, table[i].addr);
        EQUAL(in_net(table[i].net, table[i].addr), table[i].has);
    }
}

/* ---- the PROXY protocol: its codec -------------------------------------- */

static guard page;

/* The verdict on n bytes that lie flush against a forbidden page, on either
   side; where it is > 0, *a is whom they name. */
static ptrdiff_t verdict(const void *data, size_t n, rt__addr *a)
{
    ptrdiff_t said = rt__proxy_read(guard_copy(&page, data, n), n, a);
    rt__addr again;
    memcpy(guard_first(&page), data, n);
    EQUAL(rt__proxy_read(guard_first(&page), n, &again), said);
    if (said > 0)
        EQUAL(memcmp(a, &again, sizeof again), 0);
    return said;
}

/* A header is seen when its last byte is there, not before, and what follows
   does not matter. */
static void header_good(const void *data, size_t n, const char *source)
{
    uint8_t more[RT__PROXY_MOST + 64];
    char text[46];
    rt__addr a;
    size_t i;
    for (i = 0; i < n; i++)
        EQUAL(verdict(data, i, &a), 0);
    memcpy(more, data, n);
    for (i = 0; i < 64; i++) {
        more[n + i] = (uint8_t)(i * 37 + '\n');
        EQUAL(verdict(more, n + i, &a), n);
        rt__addr_text(&a, text);
        CHECK(strcmp(text, source) == 0);
    }
}

/* Wrong, and said to be so when all of it is there: before that it may only be
   wrong or unfinished, and once wrong it stays wrong. */
static void header_bad(const void *data, size_t n)
{
    rt__addr a;
    size_t i;
    int wrong = 0;
    for (i = 0; i <= n; i++) {
        ptrdiff_t said = verdict(data, i, &a);
        CHECK(said <= 0 && (said < 0 || !wrong));
        wrong = said < 0;
    }
    CHECK(wrong);
}

#define UNKNOWN_LONG                                                           \
    "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "                   \
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"

static void a_line_of_text_names_the_source(void)
{
    static const char *const table[][2] = {
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 65535\r\n", "1.2.3.4"},
        {"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
         "255.255.255.255"},
        {"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0"},
        {"PROXY TCP6 2001:db8::7 ::1 80 443\r\n", "2001:db8::7"},
        {"PROXY TCP6 ::ffff:9.8.7.6 ::1 80 443\r\n", "9.8.7.6"},
        {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"PROXY UNKNOWN\r\n", ""},
        {"PROXY UNKNOWN whatever it says\r\n", ""},
        {UNKNOWN_LONG, ""}, /* 107 bytes, the longest */
    };
    size_t i;
    EQUAL(strlen(UNKNOWN_LONG), 107);
    for (i = 0; i < sizeof table / sizeof *table; i++)
        header_good(table[i][0], strlen(table[i][0]), table[i][1]);
}

static void a_line_that_is_not_exactly_so_is_wrong(void)
{
    static const char *const table[] = {
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXYTCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP44 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY UNKNOW\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 \r\n",
        "PROXY TCP4 1.2.3.4\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 00\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 100000\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 4294967297\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.08 1 2\r\n",
        "PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 ::1 1 2\r\n",
        "PROXY TCP6 ::1 1.2.3.4 1 2\r\n",
        "PROXY TCP6 ::1::2 ::1 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN\rx",
        "PROXY UNKNOWN a\nb\r\n",
        "PROXY UNKNOWN a\rb\r\n",
    };
    char text[200] = "PROXY UNKNOWN ";
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        snprintf(test_name, sizeof test_name, "the line '%.*s'",
                 (int)strlen(table[i]) - 2, table[i]);
        header_bad(table[i], strlen(table[i]));
    }
    memset(text + 14, 'x', 92); /* one byte too many, with its end or without */
    strcpy(text + 106, "\r\n");
    header_bad(text, 108);
    memset(text + 106, 'x', 20);
    header_bad(text, 126);
}

#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define FOUR OCTET "[.]" OCTET "[.]" OCTET "[.]" OCTET
#define PORT                                                                   \
    "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9][0-9]|6[0-4][0-9][0-9][0-9]|"        \
    "[1-5][0-9][0-9][0-9][0-9]|[1-9][0-9]?[0-9]?[0-9]?|0)"

/* Each byte of a line replaced by each other one: as the grammar says, written
   down a second time. */
static void each_wrong_byte_of_a_line_is_seen(void)
{
    static const char line[] = "PROXY TCP4 1.20.255.4 5.6.7.8 1 65535\r\n";
    char text[sizeof line];
    regex_t good;
    size_t i;
    int byte, wrong = 0, right = 0;
    EQUAL(regcomp(&good, "^PROXY TCP4 " FOUR " " FOUR " " PORT " " PORT "\r\n$",
                  REG_EXTENDED | REG_NOSUB),
          0);
    for (i = 0; i < sizeof line - 1; i++)
        for (byte = 0; byte < 256; byte++) {
            rt__addr a;
            ptrdiff_t said;
            int is;
            memcpy(text, line, sizeof line);
            text[i] = (char)byte;
            is = byte && regexec(&good, text, 0, NULL, 0) == 0;
            said = verdict(text, sizeof line - 1, &a);
            wrong += (said == (ptrdiff_t)sizeof line - 1) != is;
            right += is;
        }
    EQUAL(wrong, 0);
    CHECK(right > 100); /* other digits */
    regfree(&good);
}

static void each_port_is_read(void)
{
    char line[64];
    rt__addr a;
    int port, wrong = 0;
    for (port = 0; port < 100000; port++) {
        int n = snprintf(line, sizeof line,
                         "PROXY TCP4 1.2.3.4 5.6.7.8 1 %d\r\n", port);
        ptrdiff_t said = rt__proxy_read((uint8_t *)line, (size_t)n, &a);
        wrong += said != (port < 65536 ? n : -1);
    }
    EQUAL(wrong, 0);
}

/* A binary header; its size. */
static size_t binary(uint8_t *out, int command, int family, size_t len)
{
    size_t i;
    memcpy(out, "\r\n\r\n\0\r\nQUIT\n", 12);
    out[12] = (uint8_t)command;
    out[13] = (uint8_t)family;
    out[14] = (uint8_t)(len >> 8);
    out[15] = (uint8_t)len;
    for (i = 0; i < len && i < 1000; i++)
        out[16 + i] = (uint8_t)(i + 1);
    return 16 + len;
}

static void a_binary_header_names_the_source(void)
{
    static const struct {
        int command, family;
        size_t len;
        const char *source;
    } table[] = {
        {0x21, 0x11, 12, "1.2.3.4"},
        {0x21, 0x11, 13, "1.2.3.4"},  /* and a part of something */
        {0x21, 0x11, 520, "1.2.3.4"}, /* the longest */
        {0x21, 0x21, 36, "102:304:506:708:90a:b0c:d0e:f10"},
        {0x21, 0x21, 520, "102:304:506:708:90a:b0c:d0e:f10"},
        {0x21, 0x00, 0, ""},
        {0x21, 0x00, 100, ""},
        {0x21, 0x31, 216, ""},
        {0x21, 0x32, 216, ""},
        {0x21, 0x12, 12, ""},
        {0x21, 0x22, 36, ""},
        {0x20, 0x00, 0, ""},
        {0x20, 0x11, 12, ""},
        {0x20, 0xff, 3, ""}, /* LOCAL: nothing behind it matters */
    };
    uint8_t out[1200];
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++)
        header_good(
            out, binary(out, table[i].command, table[i].family, table[i].len),
            table[i].source);
    binary(out, 0x21, 0x21, 36); /* IPv4 inside IPv6 */
    memset(out + 16, 0, 10);
    memset(out + 26, 255, 2);
    header_good(out, 52, "13.14.15.16");
}

static int family_known(int family)
{
    return family == 0 || ((family >> 4) >= 1 && (family >> 4) <= 3 &&
                           (family & 15) >= 1 && (family & 15) <= 2);
}

static void each_command_and_family_of_a_binary_header(void)
{
    uint8_t out[1200];
    rt__addr a;
    int i, wrong = 0;
    for (i = 0; i < 65536; i++) {
        size_t n = binary(out, i >> 8, i & 255, 216);
        int good = i >> 8 == 0x20 || (i >> 8 == 0x21 && family_known(i & 255));
        ptrdiff_t early = verdict(out, 14, &a);
        wrong += verdict(out, n, &a) != (good ? (ptrdiff_t)n : -1);
        wrong += early != (good ? 0 : -1); /* as soon as it can be known */
    }
    EQUAL(wrong, 0);
}

static void each_length_of_a_binary_header(void)
{
    static const struct {
        int command, family;
        size_t least;
    } table[] = {{0x21, 0x11, 12}, {0x21, 0x12, 12},  {0x21, 0x21, 36},
                 {0x21, 0x22, 36}, {0x21, 0x31, 216}, {0x21, 0x32, 216},
                 {0x21, 0x00, 0},  {0x20, 0x21, 0}};
    uint8_t out[1200];
    rt__addr a;
    size_t i, len;
    int wrong = 0;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        binary(out, table[i].command, table[i].family, 0);
        for (len = 0; len < 65536; len++) {
            int good = len >= table[i].least && len <= RT__PROXY_MOST - 16;
            out[14] = (uint8_t)(len >> 8);
            out[15] = (uint8_t)len;
            wrong += rt__proxy_read(out, 16, &a) != (!good ? -1 : len ? 0 : 16);
        }
    }
    EQUAL(wrong, 0);
}

static void each_wrong_byte_of_the_signature_is_seen(void)
{
    uint8_t out[1200];
    size_t i;
    binary(out, 0x21, 0x11, 12);
    for (i = 0; i < 12; i++) {
        out[i] ^= 1;
        header_bad(out, i + 1);
        out[i] ^= 1;
    }
}

static void proxy_codec(void)
{
    page = guard_open(RT__PROXY_MOST + 64);
    RUN(a_line_of_text_names_the_source);
    RUN(a_line_that_is_not_exactly_so_is_wrong);
    RUN(each_wrong_byte_of_a_line_is_seen);
    RUN(each_port_is_read);
    RUN(a_binary_header_names_the_source);
    RUN(each_command_and_family_of_a_binary_header);
    RUN(each_length_of_a_binary_header);
    RUN(each_wrong_byte_of_the_signature_is_seen);
    guard_close(&page);
}

#include "admission_stage.h"

int main(void)
{
    RUN(a_million_addresses_come_and_go);
    RUN(full_addresses_hide_hardly_anybody);
    RUN(a_counter_at_its_end_never_counts_too_low);
    RUN(a_storm_is_in_as_fast_as_the_rate_lets_it);
    RUN(a_flood_does_not_postpone_anybody_for_ever);
    RUN(the_first_who_is_refused_waits_a_second_at_most);
    RUN(addresses_are_read_as_they_are_written);
    RUN(networks_hold_what_agrees_in_their_bits);
    proxy_codec();
    admission_run();
    return test_done();
}
