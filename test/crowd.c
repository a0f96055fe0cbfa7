/*
 * crowd: a hundred hostile clients beside two thousand good ones.
 *
 * Four processes.  The server has one loop: it echoes, and sends on to a room
 * what is for the room.  The good clients, in one loop, play in a hundred rooms
 * and measure the time from when a message was due until its echo: first by
 * themselves, then beside the hostile ones, which do all that a peer can do
 * wrong, and come back when they are thrown out; and so for some rounds.  The
 * conductor judges: each good client got all that was for it, nearly as fast as
 * before; each kind of hostile one was dealt with; the server's heap stayed
 * below what its limits add up to; and when all are gone no descriptor and no
 * byte is left.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* MAP_ANONYMOUS, SOCK_NONBLOCK */
#endif
#include "rtnet.h"
#include "descriptors.h"

#include "../bench/histogram.h"
#include "../bench/options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    ROOM = 20,        /* good clients in a room */
    ROOMS_MOST = 500, /* of them */
    GOOD_MOST = ROOM * ROOMS_MOST,
    ROOM_EACH = 10, /* of so many messages one is for the room */
    TICK_MS = 2,
    ADDRESSES = 8, /* each has ports of its own */
    ROUNDS_MOST = 99,
    PROCESSES = 3
};

/* The server's limits, which its heap is judged by. */
enum {
    HARD_MARK = 262144,
    MAX_MESSAGE = 65536,
    MAX_HEADER = 8192,
    HANDSHAKE_MS = 1000,
    CLOSE_MS = 1000,
    WINDOW_MS = 1000
};

enum phase { PHASE_RAMP, PHASE_QUIET, PHASE_HOSTILE, PHASE_DRAIN, PHASE_END };

enum kind {
    SLOWLORIS,  /* a request byte by byte */
    DEAF,       /* asks for echoes and never reads */
    PINGER,     /* nothing but pings */
    FRAGMENTER, /* a message that never ends */
    GARBAGE,    /* anything at all, instead of a request or behind it */
    RESETTER,   /* resets what it has just opened */
    STORMER,    /* connects and leaves, over and over */
    OVERSIZED,  /* a frame of 1 GiB */
    HEADERS,    /* a request that does not end */
    GUESSER,    /* resumes other people's sessions */
    SILENT,     /* connects and says nothing */
    KINDS
};

static const char *const kind_names[KINDS] = {
    "slowloris", "deaf",      "pinger",  "fragmenter", "garbage", "resetter",
    "stormer",   "oversized", "headers", "guesser",    "silent"};

static struct {
    long good, hostile, pace, rounds;
    double seconds, max_ratio, slack_ms;
} set;

/* In memory that all map; each field has one writer. */
static struct stage {
    int phase, round, port, opened, drained, server_done; /* atomic */
    struct {
        uint64_t heap_most, heap_idle, heap_left;
        long files, files_left, backs, groups_left, away_most;
        uint32_t room_sent[ROOMS_MOST];
    } server;
    struct {
        uint64_t sent, echoed, cast, wrong, ended, missing, refused;
        histogram quiet[ROUNDS_MOST], hostile[ROUNDS_MOST];
    } good;
    struct {
        uint64_t begun[KINDS], ended[KINDS]; /* by the server, of the latter */
    } hostile;
} * at;

static const rt_session nobody = {0};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int phase(void)
{
    return __atomic_load_n(&at->phase, __ATOMIC_ACQUIRE);
}

static void store(int *what, int value)
{
    __atomic_store_n(what, value, __ATOMIC_RELEASE);
}

static void fail(const char *what)
{
    fprintf(stderr, "crowd: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static long rooms(void)
{
    return (set.good + ROOM - 1) / ROOM;
}

/* ---- messages ------------------------------------------------------------ */

enum { TO_SELF = 1, TO_ROOM = 2 };

/* Zeros may follow. */
typedef struct {
    uint32_t what, number;
    uint64_t due;
} message;

/* ---- the server ---------------------------------------------------------- */

static struct {
    rt_loop *loop;
    uint64_t heap;
    rt_group room[ROOMS_MOST];
    char page[65536];
} host;

static void *host_realloc(void *user, void *p, size_t old, size_t size)
{
    void *q = NULL;
    (void)user;
    if (size == 0)
        free(p);
    else if (!(q = realloc(p, size)))
        return NULL;
    host.heap += size - old;
    if (host.heap > at->server.heap_most)
        at->server.heap_most = host.heap;
    return q;
}

static long host_metric(const char *name)
{
    const char *p;
    rt_metrics(host.loop, host.page, sizeof host.page);
    p = strstr(host.page, name);
    return p ? strtol(p + strlen(name), NULL, 10) : -1;
}

/* The path "/N" is room N, and leads to no other one. */
static void host_open(rt_loop *loop, rt_session s)
{
    const rt_request *request = rt_request_of(loop, s);
    long room = request ? atol(request->path + 1) : 0;
    if (room < 1 || room > rooms())
        return;
    rt_set_user(loop, s, &host.room[room - 1]);
    rt_group_join(loop, host.room[room - 1], s);
}

static void host_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    rt_group *room = rt_user(loop, s);
    message m;
    if (len < sizeof m)
        return;
    memcpy(&m, data, sizeof m);
    if (m.what != TO_ROOM || !room) {
        rt_send(loop, s, kind, data, len);
        return;
    }
    m.number = ++at->server.room_sent[room - host.room];
    rt_group_send(loop, *room, RT_BINARY, &m, sizeof m);
}

static void host_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop;
    (void)s;
    (void)lost;
    at->server.backs++;
}

static int host_is_alone(void)
{
    return host_metric("\nrtnet_connections ") == 0 &&
           host_metric("\nrtnet_sessions ") == 0;
}

/* At the end it stays until the last one is gone. */
static void host_tick(rt_loop *loop, void *arg)
{
    long away = host_metric("\nrtnet_sessions_away ");
    if (away > at->server.away_most)
        at->server.away_most = away;
    if (phase() == PHASE_QUIET && at->round == 0 &&
        at->server.heap_idle < host.heap)
        at->server.heap_idle = host.heap;
    if (getppid() == 1 || (phase() == PHASE_END && host_is_alone()))
        rt_stop(loop);
    rt_timer_start(loop, nobody, rt_now(loop) + 50, host_tick, arg);
}

static void host_listen(void)
{
    const rt_listen_opts opts = {
        .on = {.open = host_open, .message = host_message, .back = host_back},
        .hard_mark = HARD_MARK,
        .max_message = MAX_MESSAGE,
        .max_header = MAX_HEADER,
        .handshake_ms = HANDSHAKE_MS,
        .close_ms = CLOSE_MS,
        .resume_ms = WINDOW_MS,
    };
    rt_listener l = rt_listen(host.loop, "ws://0.0.0.0:0", &opts);
    const char *why = "";
    if (!l.id) {
        rt_error(host.loop, &why);
        fprintf(stderr, "crowd: %s\n", why);
        _exit(1);
    }
    at->server.files = descriptors(65536);
    store(&at->port, rt_listener_port(host.loop, l));
}

static void host_run(void)
{
    const rt_loop_opts opts = {.realloc = host_realloc};
    char name[32];
    long i;
    host.loop = rt_loop_new(&opts);
    if (!host.loop)
        fail("server");
    for (i = 0; i < rooms(); i++) {
        snprintf(name, sizeof name, "room %ld", i);
        host.room[i] = rt_group_open(host.loop, name, NULL);
    }
    host_listen();
    host_tick(host.loop, NULL);
    rt_run(host.loop);
    at->server.files_left = descriptors(65536);
    at->server.groups_left = host_metric("\nrtnet_group_members ");
    rt_loop_free(host.loop);
    at->server.heap_left = host.heap;
    store(&at->server_done, 1);
}

/* ---- the good ------------------------------------------------------------ */

typedef struct {
    rt_session s;
    uint32_t sent, got; /* echoes */
    uint32_t cast;      /* the last one for its room */
} player;

static struct {
    rt_loop *loop;
    player *players;
    long dialled, opened;
    uint64_t asked, began, ticks, drain_ns;
} good;

static void good_open(rt_loop *loop, rt_session s)
{
    player *p = rt_context(loop, s);
    p->s = s;
    good.opened++;
    store(&at->opened, (int)good.opened);
}

static void good_measure(uint64_t due)
{
    uint64_t took = (now_ns() - due) / 1000;
    int round = __atomic_load_n(&at->round, __ATOMIC_ACQUIRE);
    if (phase() == PHASE_QUIET)
        hist_add(&at->good.quiet[round], took);
    else if (phase() == PHASE_HOSTILE)
        hist_add(&at->good.hostile[round], took);
}

/* Numbers of a room begin wherever it was when the player came in. */
static void good_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    player *p = rt_context(loop, s);
    message m = {0, 0, 0};
    if (len == sizeof m)
        memcpy(&m, data, sizeof m);
    at->good.wrong += kind != RT_BINARY;
    if (m.what == TO_SELF) {
        at->good.wrong += m.number != ++p->got;
        at->good.echoed++;
        good_measure(m.due);
    } else {
        at->good.wrong += m.what != TO_ROOM || m.number != p->cast + 1;
        at->good.cast++;
        p->cast = m.number;
    }
}

static void good_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    if (phase() == PHASE_END)
        return;
    if (at->good.ended++ == 0)
        fprintf(stderr, "crowd: a good one ended: %d %s\n", why->code,
                why->reason);
}

static void good_dial(rt_loop *loop)
{
    rt_dial_opts o = {.on = {.open = good_open,
                             .message = good_message,
                             .close = good_close}};
    char url[64];
    int n;
    for (n = 0; n < 10 && good.dialled < set.good; n++, good.dialled++) {
        snprintf(url, sizeof url, "ws://127.0.0.%ld:%d/%ld",
                 1 + good.dialled % ADDRESSES, at->port,
                 good.dialled / ROOM + 1);
        o.user = &good.players[good.dialled];
        if (!rt_dial(loop, url, &o).id)
            fail("dial");
    }
}

static void good_say(rt_loop *loop, uint64_t turn, uint64_t due)
{
    player *p = &good.players[turn % (uint64_t)set.good];
    message m = {TO_SELF, 0, due};
    if (turn / (uint64_t)set.good % ROOM_EACH == turn % ROOM_EACH)
        m.what = TO_ROOM;
    else
        m.number = ++p->sent;
    at->good.sent++;
    at->good.refused += rt_send(loop, p->s, RT_BINARY, &m, sizeof m) != 0;
}

/* What is due by now, evenly over all players. */
static void good_talk(rt_loop *loop)
{
    uint64_t each = 1000000000u / (uint64_t)(set.good * set.pace);
    if (!good.began)
        good.began = now_ns();
    for (; good.began + good.asked * each <= now_ns(); good.asked++)
        good_say(loop, good.asked, good.began + good.asked * each);
}

/* Has everybody got all that was for it?  Counts what is missing. */
static uint64_t good_missing(void)
{
    uint64_t n = 0;
    long i;
    for (i = 0; i < set.good; i++) {
        const player *p = &good.players[i];
        n += p->sent - p->got;
        n += at->server.room_sent[i / ROOM] - p->cast;
    }
    return n;
}

static void good_drain(void)
{
    if (!good.drain_ns)
        good.drain_ns = now_ns();
    at->good.missing = good_missing();
    if (!at->good.missing || now_ns() - good.drain_ns > 10000000000u)
        store(&at->drained, 1);
}

static void good_tick(rt_loop *loop, void *arg)
{
    if (phase() == PHASE_RAMP)
        good_dial(loop);
    else if (phase() < PHASE_DRAIN)
        good_talk(loop);
    else if (phase() == PHASE_DRAIN)
        good_drain();
    if (phase() == PHASE_END || getppid() == 1)
        rt_stop(loop);
    rt_timer_start(loop, nobody, rt_now(loop) + TICK_MS, good_tick, arg);
}

static void good_run(void)
{
    good.loop = rt_loop_new(NULL);
    good.players = (player *)calloc((size_t)set.good, sizeof(player));
    if (!good.loop || !good.players)
        fail("the good");
    good_tick(good.loop, NULL);
    rt_run(good.loop);
    rt_loop_free(good.loop);
}

/* ---- the hostile --------------------------------------------------------- */

enum { REST = 10 /* ticks between two lives */ };

typedef struct {
    int kind, fd, wait;
    int open;   /* the upgrade was answered */
    int ticks;  /* of this life */
    size_t got; /* bytes */
} villain;

static uint64_t chance = 88172645463325252u;

static uint32_t draw(void)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (uint32_t)(chance >> 16);
}

static const char ask_head[] =
    "GET /1 HTTP/1.1\r\nHost: crowd\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/* With a reset, or in good order. */
static void villain_leave(villain *v, int reset)
{
    struct linger now = {1, 0};
    if (reset)
        setsockopt(v->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(v->fd);
    v->fd = -1;
    v->wait = v->kind == STORMER || v->kind == RESETTER ? 1 : REST;
}

/* Thrown out by the server. */
static void villain_end(villain *v)
{
    at->hostile.ended[v->kind]++;
    villain_leave(v, 1);
}

/* As much of it as the socket takes: who cares for the rest. */
static void villain_put(villain *v, const void *data, size_t n)
{
    if (v->fd >= 0 && send(v->fd, data, n, MSG_NOSIGNAL) < 0 &&
        errno != EAGAIN && errno != ENOTCONN)
        villain_end(v);
}

static void villain_frame(villain *v, int first, const void *data, size_t n)
{
    uint8_t out[8 + 4096];
    out[0] = (uint8_t)first;
    out[1] = (uint8_t)(0x80 | (n < 126 ? n : 126u));
    out[2] = (uint8_t)(n >> 8);
    out[3] = (uint8_t)n;
    memset(out + (n < 126 ? 2 : 4), 0, 4); /* a mask that changes nothing */
    memcpy(out + (n < 126 ? 6 : 8), data, n);
    villain_put(v, out, n + (n < 126 ? 6 : 8));
}

static void villain_come(villain *v)
{
    struct sockaddr_in to;
    int small = 4096;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)at->port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK + draw() % ADDRESSES);
    v->open = v->ticks = 0;
    v->got = 0;
    v->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (v->fd < 0)
        fail("socket");
    if (v->kind == DEAF)
        setsockopt(v->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    at->hostile.begun[v->kind]++;
    if (connect(v->fd, (struct sockaddr *)&to, sizeof to) < 0 &&
        errno != EINPROGRESS)
        villain_leave(v, 0);
}

/* Reads what came; the deaf no more than the answer to their request. */
static void villain_hear(villain *v)
{
    char into[4096];
    ssize_t n;
    if (v->kind == DEAF && v->open)
        return;
    n = recv(v->fd, into, v->kind == DEAF ? 16 : sizeof into, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != ENOTCONN)) {
        villain_end(v);
        return;
    }
    v->got += n > 0 ? (size_t)n : 0;
    v->open |= v->got >= 12;
}

static void ask(villain *v, const char *more)
{
    char text[512];
    int n = snprintf(text, sizeof text, "%s%s\r\n", ask_head, more);
    villain_put(v, text, (size_t)n);
}

static void be_slow(villain *v)
{
    size_t i = (size_t)v->ticks / 10;
    if (v->ticks % 10 == 0 && i < sizeof ask_head - 1)
        villain_put(v, ask_head + i, 1);
}

static void be_deaf(villain *v)
{
    static uint8_t large[4096] = {TO_SELF};
    int i;
    for (i = 0; v->open && v->fd >= 0 && i < 3; i++)
        villain_frame(v, 0x82, large, sizeof large);
}

static void be_pinging(villain *v)
{
    int i;
    for (i = 0; v->open && v->fd >= 0 && i < 5; i++)
        villain_frame(v, 0x89, "are you there?", 14);
}

/* Sometimes of one byte each, sometimes of none. */
static void be_endless(villain *v)
{
    int i, n = v->ticks & 1;
    if (v->open)
        for (i = 0; v->fd >= 0 && i < 40; i++)
            villain_frame(v, v->ticks + i == 2 ? 0x01 : 0x00, "x", (size_t)n);
}

static void be_garbage(villain *v)
{
    uint8_t any[256];
    size_t i;
    for (i = 0; i < sizeof any; i++)
        any[i] = (uint8_t)draw();
    if (v->ticks > 1)
        villain_put(v, any, 1 + draw() % sizeof any);
}

static void be_huge(villain *v)
{
    static const uint8_t head[14] = {0x82, 0xff, 0, 0, 0, 0, 0x40};
    static const uint8_t rest[4096];
    if (v->open && v->ticks % 2)
        villain_put(v, head, sizeof head);
    else if (v->open)
        villain_put(v, rest, sizeof rest);
}

static void be_wordy(villain *v)
{
    char line[512];
    memset(line, 'w', sizeof line);
    memcpy(line, "Word: ", 6);
    memcpy(line + sizeof line - 2, "\r\n", 2);
    if (v->ticks > 1)
        villain_put(v, line, sizeof line);
}

static void be_guessing(villain *v)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnop";
    char text[64] = "h";
    int i;
    if (!v->open)
        return;
    for (i = 1; i < 22; i++)
        text[i] = digits[draw() % (sizeof digits - 1)];
    memcpy(text + 22, "A 0 1", 6);
    villain_frame(v, 0x81, text, strlen(text));
    if (v->fd >= 0 && v->got > 160) /* it was welcomed as somebody new */
        villain_leave(v, draw() % 2);
}

static void be_gone(villain *v)
{
    if (v->kind == RESETTER ? v->open || v->ticks > 50 : v->ticks > 1)
        villain_leave(v, v->kind == RESETTER || draw() % 2);
}

static void be_silent(villain *v)
{
    (void)v;
}

static void (*const deeds[KINDS])(villain *) = {
    be_slow, be_deaf, be_pinging, be_endless,  be_garbage, be_gone,
    be_gone, be_huge, be_wordy,   be_guessing, be_silent};

/* Who begins with a whole request. */
static int asks(const villain *v)
{
    return v->kind != SLOWLORIS && v->kind != SILENT &&
           (v->kind != GARBAGE || v->fd % 2);
}

static void villain_step(villain *v)
{
    if (v->fd < 0) {
        if (v->wait-- <= 0)
            villain_come(v);
        return;
    }
    v->ticks++;
    villain_hear(v);
    if (v->fd < 0)
        return;
    if (v->ticks == 1 && v->kind == HEADERS)
        villain_put(v, ask_head, sizeof ask_head - 1);
    else if (v->ticks == 1 && asks(v))
        ask(v, v->kind == GUESSER ? "Sec-WebSocket-Protocol: rtnet.1\r\n" : "");
    if (v->fd >= 0)
        deeds[v->kind](v);
}

/* They stand for other machines, so they give way. */
static void hostile_run(void)
{
    const struct timespec nap = {0, TICK_MS * 1000000};
    villain *all = (villain *)calloc((size_t)set.hostile, sizeof *all);
    long i;
    if (!all || (nice(19) == -1 && errno))
        fail("the hostile");
    for (i = 0; i < set.hostile; i++) {
        all[i].kind = (int)(i % KINDS);
        all[i].fd = -1;
    }
    while (phase() < PHASE_DRAIN && getppid() != 1) {
        for (i = 0; phase() == PHASE_HOSTILE && i < set.hostile; i++)
            villain_step(&all[i]);
        nanosleep(&nap, NULL);
    }
    _exit(0);
}

/* ---- the conductor ------------------------------------------------------- */

static pid_t children[PROCESSES];

static void give_up(const char *what)
{
    int i;
    fprintf(stderr, "crowd: %s\n", what);
    for (i = 0; i < PROCESSES; i++)
        if (children[i] > 0)
            kill(children[i], SIGKILL);
    printf("0 passed, 1 failed, 0 skipped\n");
    exit(1);
}

static void child_start(int which, void (*run)(void))
{
    fflush(NULL);
    children[which] = fork();
    if (children[which] < 0)
        fail("fork");
    if (children[which] > 0)
        return;
    run();
    _exit(0);
}

/* Until *what is at least so much; 0 when the time is over. */
static int wait_for(const int *what, long least, double seconds)
{
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    const struct timespec nap = {0, 5000000};
    while (__atomic_load_n(what, __ATOMIC_ACQUIRE) < least) {
        if (now_ns() > end)
            return 0;
        nanosleep(&nap, NULL);
    }
    return 1;
}

static void pass(double seconds)
{
    const int never = 0;
    wait_for(&never, 1, seconds);
}

static void stage_open(void)
{
    at = (struct stage *)mmap(NULL, sizeof *at, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        fail("mmap");
}

static long hostile_of(int kind)
{
    return set.hostile / KINDS + (kind < set.hostile % KINDS);
}

/* Some just go; of the others, half have been thrown out by the server. */
static int dealt_with(int kind)
{
    uint64_t n = (uint64_t)hostile_of(kind);
    if (kind == RESETTER || kind == STORMER || kind == GUESSER)
        return at->hostile.begun[kind] > n;
    return at->hostile.ended[kind] * 2 >= n;
}

/* On a slow machine it takes longer until each kind has been dealt with. */
static void pass_until_dealt_with(void)
{
    int i, k = 0;
    for (i = 0; i < 200 && k < KINDS; i++) {
        for (k = 0; k < KINDS && dealt_with(k);)
            k++;
        pass(k < KINDS ? 0.1 : 0);
    }
}

static void play(void)
{
    int i;
    child_start(0, host_run);
    if (!wait_for(&at->port, 1, 10))
        give_up("the server does not listen");
    child_start(1, good_run);
    child_start(2, hostile_run);
    if (!wait_for(&at->opened, set.good, 60))
        give_up("not everybody could connect");
    for (i = 0; i < set.rounds; i++) {
        store(&at->round, i);
        store(&at->phase, PHASE_QUIET);
        pass(set.seconds / 3 / (double)set.rounds);
        store(&at->phase, PHASE_HOSTILE);
        pass(set.seconds / (double)set.rounds);
    }
    pass_until_dealt_with();
    store(&at->phase, PHASE_DRAIN);
    if (!wait_for(&at->drained, 1, 20))
        give_up("the good clients hang");
    store(&at->phase, PHASE_END);
    if (!wait_for(&at->server_done, 1, 30))
        give_up("the server keeps somebody who has gone");
    for (i = 0; i < PROCESSES; i++)
        waitpid(children[i], NULL, 0);
}

/* ---- the verdict --------------------------------------------------------- */

static int passed, failed;

static void judge(const char *what, int good_so)
{
    passed += good_so;
    failed += !good_so;
    if (!good_so)
        printf("FAIL %s\n", what);
}

/*
 * What the heap may come to: what the good ones took by themselves; of each
 * hostile one what its kind can fill, the queue to it or a message of it, or
 * the head of its request, twice, as its next life may begin before its last
 * one is over; a little for each connection and for each session that is away;
 * and 3 MiB of buffers that are kept for whoever needs one next.
 */
static uint64_t heap_allowed(void)
{
    uint64_t sum = at->server.heap_idle + 3 * 1048576;
    int k;
    for (k = 0; k < KINDS; k++) {
        uint64_t each = k == DEAF ? HARD_MARK + 2 * MAX_MESSAGE
                        : k == FRAGMENTER || k == OVERSIZED ? MAX_MESSAGE
                                                            : MAX_HEADER;
        sum += 2 * (uint64_t)hostile_of(k) * (each + 4096);
    }
    return sum + (uint64_t)at->server.away_most * 1024;
}

static double p99(const histogram *h)
{
    return (double)hist_at(h, 99) / 1000;
}

/* Of all rounds, in ms. */
static void print_phase(const char *name, const histogram *rounds)
{
    static histogram h;
    long i;
    hist_reset(&h);
    for (i = 0; i < set.rounds; i++)
        hist_merge(&h, &rounds[i]);
    printf("%-8s %9llu echoes, p50 %8.2f ms, p99 %8.2f ms, max %8.2f ms\n",
           name, (unsigned long long)h.count, (double)hist_at(&h, 50) / 1000,
           p99(&h), (double)h.max / 1000);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of what each round has beyond what is allowed, as others may use the machine
   during one of them.  Negative or 0: it is well. */
static double median_excess(void)
{
    double excess[ROUNDS_MOST];
    long i;
    for (i = 0; i < set.rounds; i++) {
        double quiet = p99(&at->good.quiet[i]);
        double hostile = p99(&at->good.hostile[i]);
        printf("round %ld: p99 %.2f ms, then %.2f ms beside the hostile: %.2f "
               "times\n",
               i + 1, quiet, hostile, hostile / quiet);
        excess[i] = hostile - set.max_ratio * quiet - set.slack_ms;
        if (!at->good.quiet[i].count || !at->good.hostile[i].count)
            excess[i] = 1e9;
    }
    qsort(excess, (size_t)set.rounds, sizeof *excess, by_size);
    return excess[set.rounds / 2];
}

static void judge_hostile(void)
{
    char what[64];
    int k;
    for (k = 0; k < KINDS; k++) {
        printf("  %-10s %6llu lives, %6llu ended by the server\n",
               kind_names[k], (unsigned long long)at->hostile.begun[k],
               (unsigned long long)at->hostile.ended[k]);
        snprintf(what, sizeof what, "the server ends each %s", kind_names[k]);
        judge(what, dealt_with(k));
    }
    judge("nobody guesses a token", at->server.backs == 0);
}

static void judge_good(void)
{
    printf("good: %llu sent, %llu echoed, %llu from rooms, %llu missing\n",
           (unsigned long long)at->good.sent,
           (unsigned long long)at->good.echoed,
           (unsigned long long)at->good.cast,
           (unsigned long long)at->good.missing);
    judge("the good ones are served nearly as fast as before",
          median_excess() <= 0);
    judge("no good one was thrown out or refused",
          at->good.ended == 0 && at->good.refused == 0);
    judge("each good one got all that was for it, in order",
          at->good.missing == 0 && at->good.wrong == 0);
}

static void judge_server(void)
{
    printf("heap: %llu at most, %llu when quiet, %llu allowed; away %ld\n",
           (unsigned long long)at->server.heap_most,
           (unsigned long long)at->server.heap_idle,
           (unsigned long long)heap_allowed(), at->server.away_most);
    judge("the heap stays below what the limits add up to",
          at->server.heap_most <= heap_allowed());
    printf("descriptors: %ld, of %ld before\n", at->server.files_left,
           at->server.files);
    judge("no descriptor is left when all are gone",
          at->server.files_left == at->server.files);
    judge("nobody is left in a room", at->server.groups_left == 0);
    judge("no memory is left", at->server.heap_left == 0);
}

static void settings_read(int argc, char **argv)
{
    const option table[] = {
        {"good", OPTION_INT, &set.good, 1, GOOD_MOST, "good clients (2000)"},
        {"hostile", OPTION_INT, &set.hostile, KINDS, 1000,
         "hostile clients (100)"},
        {"pace", OPTION_INT, &set.pace, 1, 100,
         "messages each good one sends a second (1)"},
        {"seconds", OPTION_REAL, &set.seconds, 3, 86400,
         "beside the hostile, and a third of it without them (60)"},
        {"rounds", OPTION_INT, &set.rounds, 1, ROUNDS_MOST,
         "into which both are divided (5)"},
        {"max-ratio", OPTION_REAL, &set.max_ratio, 0, 1e9,
         "of the p99 to the quiet one, median of the rounds (2)"},
        {"slack-ms", OPTION_REAL, &set.slack_ms, 0, 1e9,
         "that it may be above that (0)"},
    };
    option_set all = {"crowd", "crowd [options]", table,
                      sizeof table / sizeof *table, NULL};
    set.good = 2000;
    set.hostile = 100;
    set.pace = 1;
    set.seconds = 60;
    set.rounds = 5;
    set.max_ratio = 2;
    options_parse(&all, argc, argv);
}

static void files_raise(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_max < (rlim_t)(set.good + 2 * set.hostile + 100))
        give_up("too few files may be open, see ulimit -Hn");
}

int main(int argc, char **argv)
{
    settings_read(argc, argv);
    files_raise();
    stage_open();
    play();
    print_phase("quiet", at->good.quiet);
    print_phase("hostile", at->good.hostile);
    judge_good();
    judge_hostile();
    judge_server();
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
