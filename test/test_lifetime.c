/*
 * The rules of lifetime at the top of rtnet.h, sentence by sentence, and from
 * every callback.
 *
 * Most cases stand on one stage: a loop with a listener, two open sessions a
 * and b in a group, a pipe that is watched, and a handler that checks what
 * must be true in every callback whatever the case is about: callbacks are one
 * deep, none follows on_close, messages come only to open sessions, the byte
 * behind a message is a 0, its bytes stay what they are.  A deed is done once,
 * in the callback that the case is about.  The end of each case frees the loop
 * and checks that every session had exactly one on_close and that all memory
 * came back.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#if defined(__linux__)
#include <features.h>
#endif
#if defined(__GLIBC__)
#include <linux/tcp.h> /* counts packets, which glibc's does not know */
#endif
#include "peer.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Which callback. */
enum {
    REQUEST,
    OPEN,
    MESSAGE,
    WRITABLE,
    CLOSE,
    TIMER,
    POST,
    WATCH,
    EVENT,
    RESOLVE,
    LIMIT,
    FROMS
};
static const char *const from_names[FROMS] = {
    "request", "open",  "message",     "writable", "close", "timer",
    "post",    "watch", "group event", "resolve",  "limit"};

/* What the callbacks of one session were told. */
typedef struct {
    rt_session s;
    int requests, opens, messages, writables, closes;
    unsigned opened_in, closed_in, event_in; /* the turn of it */
    int dialled;
    int code, cause;
    uint64_t lost;
    void *user; /* rt_user in on_close */
    int bound;  /* rt_uid answered there */
    char reason[128];
    char text[512]; /* the messages, each with a '|' behind */
    size_t len;
} seen;

/* The stage of the present case. */
static struct {
    rt_loop_opts loop_opts;
    rt_listen_opts opts;
    rt_loop *loop;
    rt_listener listener;
    int port;
    rt_group members, watched;
    rt_session a, b, gone, self, last; /* last: whose on_open came last */
    peer pa, pb, pc;
    int pipe[2];
    rt_watch watch;
    rt_timer timer;
    seen seen[64];
    int count, sessions; /* sessions: how many opened or were dialled */
    int calls[FROMS];
    char events[256]; /* of the group, like "+1 -1 " */
    int answer;       /* of on_request */
    int resolved;     /* of the resolve hook */
    int from, acted;
    unsigned act_turn;
    void (*act)(rt_session self);
} st;

static int depth, upcalls;

/* ---- the handler -------------------------------------------------------- */

static seen *seen_of(rt_session s)
{
    static seen nowhere;
    int i;
    for (i = 0; i < st.count; i++)
        if (rt_same(st.seen[i].s, s))
            return &st.seen[i];
    CHECK(st.count < (int)COUNT(st.seen));
    if (st.count == (int)COUNT(st.seen))
        return &nowhere;
    st.seen[st.count].s = s;
    return &st.seen[st.count++];
}

/* Each callback begins and ends with these two. */
static void enter(rt_session s)
{
    EQUAL(depth, 0); /* no call runs a callback */
    depth++;
    upcalls++;
    if (s.id)
        EQUAL(seen_of(s)->closes, 0); /* on_close is the last call */
}

static void leave(int from, rt_session s)
{
    st.calls[from]++;
    if (st.act && from == st.from && !st.acted) {
        st.acted = 1;
        st.act_turn = peer_turns;
        st.self = s;
        st.act(s);
    }
    depth--;
}

static int on_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    enter(s);
    seen_of(s)->requests++;
    CHECK(rt_request_of(loop, s) == r);
    CHECK(rt_context(loop, s) == &st);
    leave(REQUEST, s);
    return st.answer;
}

static void on_open(rt_loop *loop, rt_session s)
{
    seen *who = seen_of(s);
    enter(s);
    if (!who->dialled)
        st.sessions++;
    who->opens++;
    who->opened_in = peer_turns;
    st.last = s;
    EQUAL(who->opens, 1);
    EQUAL(rt_state(loop, s), RT_OPEN);
    CHECK(rt_context(loop, s) == &st);
    leave(OPEN, s);
}

/* Remembers a message, or its length when that is long. */
static void take_message(seen *who, const char *data, size_t len)
{
    int n = snprintf(who->text + who->len, sizeof who->text - who->len,
                     len < 64 ? "%.*s|" : "%d|", (int)len, data);
    CHECK(n > 0 && (size_t)n < sizeof who->text - who->len);
    if (n > 0 && (size_t)n < sizeof who->text - who->len)
        who->len += (size_t)n;
    who->messages++;
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    char *copy = malloc(len + 1);
    enter(s);
    EQUAL(seen_of(s)->opens, 1);
    EQUAL(rt_state(loop, s), RT_OPEN); /* none comes after rt_close */
    CHECK(kind == RT_TEXT || kind == RT_BINARY);
    memcpy(copy, data, len + 1);
    EQUAL(copy[len], 0);
    take_message(seen_of(s), data, len);
    leave(MESSAGE, s);
    CHECK(memcmp(copy, data, len + 1) == 0); /* valid until we return */
    free(copy);
}

static void on_writable(rt_loop *loop, rt_session s)
{
    enter(s);
    EQUAL(rt_state(loop, s), RT_OPEN);
    seen_of(s)->writables++;
    leave(WRITABLE, s);
}

static void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    seen *who = seen_of(s);
    enter(s);
    EQUAL(rt_state(loop, s), RT_CLOSING);
    EQUAL(who->opens + who->dialled > 0, 1);
    CHECK(rt_context(loop, s) == &st);
    CHECK(why->reason != NULL);
    who->user = rt_user(loop, s);
    who->bound = rt_uid(loop, s) != NULL;
    who->code = why->code;
    who->cause = why->cause;
    who->lost = why->lost;
    snprintf(who->reason, sizeof who->reason, "%s", why->reason);
    who->closed_in = peer_turns;
    leave(CLOSE, s);
    who->closes++;
}

static void on_limit(rt_loop *loop, rt_session s, int what)
{
    enter(s);
    EQUAL(rt_state(loop, s), RT_OPEN);
    EQUAL(what, RT_LIMIT_RATE);
    leave(LIMIT, s);
}

static const rt_handler handler = {.request = on_request,
                                   .open = on_open,
                                   .message = on_message,
                                   .writable = on_writable,
                                   .close = on_close,
                                   .limit = on_limit};

/* arg: its owner. */
static void on_timer(rt_loop *loop, void *arg)
{
    const rt_session *owner = arg;
    (void)loop;
    enter(*owner);
    leave(TIMER, *owner);
}

static void on_post(rt_loop *loop, void *arg)
{
    rt_session nobody = {0};
    (void)loop;
    (void)arg;
    enter(nobody);
    leave(POST, st.a);
}

static void on_watch(rt_loop *loop, rt_watch w, int events, void *arg)
{
    rt_session nobody = {0};
    char byte;
    enter(nobody);
    CHECK(w.id == st.watch.id);
    CHECK(arg == &st);
    EQUAL(events, RT_READ);
    leave(WATCH, st.a);
    if (rt_watch_set(loop, w, RT_READ) == 0) /* else it was stopped */
        EQUAL(read(st.pipe[0], &byte, 1), 1);
}

/* RT_LEFT comes before on_close: enter() knows. */
static void on_event(rt_loop *loop, rt_group g, rt_session s, int what)
{
    size_t n = strlen(st.events);
    enter(s);
    CHECK(g.id == st.watched.id);
    CHECK(rt_group_user(loop, g) == &st);
    snprintf(st.events + n, sizeof st.events - n, "%c",
             what == RT_JOINED ? '+'
             : what == RT_LEFT ? '-'
                               : '?');
    seen_of(s)->event_in = peer_turns;
    leave(EVENT, s);
}

static int on_resolve(rt_loop *loop, const char *host, rt_session s)
{
    enter(s);
    CHECK(strcmp(host, "elsewhere") == 0);
    EQUAL(rt_state(loop, s), RT_OPENING);
    leave(RESOLVE, s);
    return st.resolved;
}

/* ---- the stage ---------------------------------------------------------- */

/* A stage that is not built yet: its options may still be changed. */
static void stage_reset(int backend)
{
    memset(&st, 0, sizeof st);
    st.loop_opts.backend = backend;
    st.loop_opts.realloc = peer_realloc;
    st.loop_opts.resolve = on_resolve;
    st.loop_opts.bind_policy = RT_BIND_MANY;
    st.loop_opts.bind_max = 8;
    st.opts.on = handler;
    st.opts.user = &st;
    st.opts.ping_ms = RT_OFF;
    st.opts.close_ms = 200;
    st.opts.soft_mark = 1024;
    st.pa.fd = st.pb.fd = st.pc.fd = -1;
    st.pipe[0] = st.pipe[1] = -1;
    peer_heap = 0;
    peer_heap_lies = depth = 0;
}

static void stage_start(void)
{
    st.loop = rt_loop_new(&st.loop_opts);
    CHECK(st.loop != NULL);
    st.listener = rt_listen(st.loop, "ws://127.0.0.1:0", &st.opts);
    CHECK(st.listener.id != 0);
    st.port = rt_listener_port(st.loop, st.listener);
}

/* Opens one more session; {0} when it does not. */
static rt_session stage_join(peer *p)
{
    rt_session none = {0};
    st.last = none;
    CHECK(peer_ws(p, st.loop, st.port, "/"));
    CHECK(st.last.id != 0);
    return st.last;
}

static rt_session stage_dial(const char *url, const rt_dial_opts *more)
{
    rt_dial_opts opts = {0};
    rt_session s;
    if (more)
        opts = *more;
    opts.on = handler;
    opts.user = &st;
    opts.ping_ms = RT_OFF;
    s = rt_dial(st.loop, url, &opts);
    if (s.id) {
        seen_of(s)->dialled = 1;
        st.sessions++;
    }
    return s;
}

/* Two sessions in a group, under one user id; a pipe that is watched. */
static void stage_fill(void)
{
    rt_group_opts watched = {.event = on_event, .user = &st};
    st.a = stage_join(&st.pa);
    st.b = stage_join(&st.pb);
    st.members = rt_group_open(st.loop, "members", NULL);
    st.watched = rt_group_open(st.loop, "watched", &watched);
    EQUAL(rt_group_join(st.loop, st.members, st.a), 0);
    EQUAL(rt_group_join(st.loop, st.members, st.b), 0);
    EQUAL(rt_bind(st.loop, st.a, "user"), 0);
    EQUAL(rt_bind(st.loop, st.b, "user"), 0);
    st.gone = stage_dial("ws://elsewhere:9/", NULL);
    EQUAL(rt_close(st.loop, st.gone, 0, NULL), 0);
    peer_turn(st.loop, 0);
    EQUAL(pipe(st.pipe), 0);
    st.watch = rt_watch_start(st.loop, st.pipe[0], RT_READ, on_watch, &st);
    CHECK(st.watch.id != 0);
}

static void stage_open(int backend)
{
    stage_reset(backend);
    stage_start();
    stage_fill();
}

/* What opened has closed, once, and the loop took all its memory with it. */
static void stage_close(void)
{
    int i, closes = 0;
    rt_loop_free(st.loop);
    for (i = 0; i < st.count; i++) {
        EQUAL(st.seen[i].closes, st.seen[i].opens || st.seen[i].dialled);
        closes += st.seen[i].closes;
    }
    EQUAL(closes, st.sessions);
    EQUAL(peer_heap, 0);
    EQUAL(peer_heap_lies, 0);
    peer_end(&st.pa);
    peer_end(&st.pb);
    peer_end(&st.pc);
    for (i = 0; i < 2; i++)
        if (st.pipe[i] >= 0)
            close(st.pipe[i]);
}

/* The url of a port of this machine. */
static const char *stage_url(const char *scheme, int port)
{
    static char url[64];
    snprintf(url, sizeof url, "%s://127.0.0.1:%d", scheme, port);
    return url;
}

/* ---- deeds in every callback -------------------------------------------- */

enum { RATE = 4, RATE_MS = 5 };

/* Makes the callback happen. */
static void provoke(int from)
{
    static const char big[2000];
    static const char many[] = "\x81\x80\0\0\0\0\x81\x80\0\0\0\0"
                               "\x81\x80\0\0\0\0\x81\x80\0\0\0\0"
                               "\x81\x80\0\0\0\0";
    switch (from) {
    case REQUEST:
    case OPEN:
        CHECK(peer_tcp(&st.pc, st.loop, st.port));
        peer_ask(&st.pc, "/", "");
        break;
    case MESSAGE:
        peer_text(&st.pa, "go");
        break;
    case WRITABLE:
        EQUAL(rt_send(st.loop, st.a, RT_BINARY, big, sizeof big), 1);
        break;
    case CLOSE:
        peer_end(&st.pa);
        break;
    case TIMER:
        st.timer = rt_timer_start(st.loop, st.a, 0, on_timer, &st.a);
        break;
    case POST:
        EQUAL(rt_post(st.loop, on_post, NULL), 0);
        break;
    case WATCH:
        EQUAL(write(st.pipe[1], "x", 1), 1);
        break;
    case EVENT:
        EQUAL(rt_group_join(st.loop, st.watched, st.a), 0);
        break;
    case RESOLVE:
        CHECK(stage_dial("ws://elsewhere:9/", NULL).id != 0);
        break;
    case LIMIT:
        peer_put(&st.pa, many, sizeof many - 1);
        break;
    }
}

/* The peer of the session whose callback it is; NULL: it has none. */
static peer *peer_of_self(void)
{
    if (st.from == REQUEST || st.from == OPEN)
        return &st.pc;
    return st.from == CLOSE || st.from == RESOLVE ? NULL : &st.pa;
}

/* on_close came in the same turn.  Only when that is in its closing phase
   already does it come in the next one, which does not wait. */
static void check_closed(rt_session s, int code, const char *reason)
{
    seen *who = seen_of(s);
    if (st.from == CLOSE && !who->closes) {
        EQUAL(rt_loop_timeout(st.loop), 0);
        peer_turn(st.loop, 1000);
        EQUAL(who->closed_in, st.act_turn + 1);
    } else {
        EQUAL(who->closed_in, st.act_turn);
    }
    EQUAL(who->closes, 1);
    EQUAL(who->cause, RT_BY_APP);
    EQUAL(who->code, code);
    CHECK(strcmp(who->reason, reason) == 0);
    EQUAL(rt_state(st.loop, s), RT_EGONE);
}

/* Reads what came before, up to that text. */
static int got_at_last(peer *p, const char *text)
{
    peer_frame f;
    while (peer_next(p, &f))
        if (f.len == strlen(text) && memcmp(f.data, text, f.len) == 0)
            return 1;
    return 0;
}

static void check_alive(rt_session s, peer *p)
{
    int before = seen_of(s)->messages;
    EQUAL(rt_state(st.loop, s), RT_OPEN);
    if (st.from == LIMIT)
        poll(NULL, 0, RATE_MS + 1);
    peer_text(p, "alive?");
    CHECK(peer_until(st.loop, &seen_of(s)->messages, before + 1));
    EQUAL(rt_send(st.loop, s, RT_TEXT, "alive", 5), 0);
    CHECK(got_at_last(p, "alive"));
}

/* ---- stale handles ------------------------------------------------------ */

/* What a session that is closing answers, too. */
static void check_refused(rt_session s)
{
    EQUAL(rt_send(st.loop, s, RT_TEXT, "x", 1), RT_EGONE);
    EQUAL(rt_send_many(st.loop, &s, 1, RT_TEXT, "x", 1), 0);
    EQUAL(rt_read(st.loop, s, 0), RT_EGONE);
    EQUAL(rt_read(st.loop, s, 1), RT_EGONE);
    EQUAL(rt_close(st.loop, s, 4000, "x"), RT_EGONE);
    EQUAL(rt_drop(st.loop, s, 4000, "x"), RT_EGONE);
    EQUAL(rt_bind(st.loop, s, "stale"), RT_EGONE);
    EQUAL(rt_find(st.loop, "stale").id, 0);
    EQUAL(rt_resolved(st.loop, s, "127.0.0.1"), RT_EGONE);
    EQUAL(rt_group_join(st.loop, st.watched, s), RT_EGONE);
    EQUAL(rt_group_leave(st.loop, st.watched, s), RT_EGONE);
    if (!s.id)
        return; /* a timer without an owner */
    EQUAL(rt_timer_start(st.loop, s, 0, on_timer, &st.a).id, 0);
    EQUAL(rt_error(st.loop, NULL), RT_EGONE);
}

static void check_stale_session(rt_session s)
{
    uint32_t rtt, jitter;
    check_refused(s);
    rt_set_user(st.loop, s, &st);
    CHECK(rt_user(st.loop, s) == NULL);
    CHECK(rt_context(st.loop, s) == NULL);
    CHECK(rt_request_of(st.loop, s) == NULL);
    CHECK(rt_uid(st.loop, s) == NULL);
    EQUAL(rt_state(st.loop, s), RT_EGONE);
    EQUAL(rt_heard(st.loop, s), 0);
    EQUAL(rt_rtt(st.loop, s, &rtt, &jitter), RT_EGONE);
    EQUAL(rt_unsent(st.loop, s), 0);
    EQUAL(rt_accept(st.loop, s, NULL), RT_EGONE);
    EQUAL(rt_reply(st.loop, s, 200, "", NULL, 0), RT_EGONE);
}

static void check_stale_group(rt_group g)
{
    rt_session out[1];
    CHECK(rt_group_name(st.loop, g) == NULL);
    CHECK(rt_group_user(st.loop, g) == NULL);
    EQUAL(rt_group_join(st.loop, g, st.b), RT_EGONE);
    EQUAL(rt_group_leave(st.loop, g, st.b), RT_EGONE);
    EQUAL(rt_group_send(st.loop, g, RT_TEXT, "x", 1), RT_EGONE);
    EQUAL(rt_group_send_but(st.loop, g, st.b, RT_TEXT, "x", 1), RT_EGONE);
    EQUAL(rt_group_count(st.loop, g), 0);
    EQUAL(rt_group_members(st.loop, g, out, 1), 0);
    EQUAL(rt_group_close(st.loop, g), RT_EGONE);
}

/* An id that names nothing of any of the five types. */
static void check_stale(uint64_t id)
{
    rt_session s = {id};
    rt_group g = {id};
    rt_listener n = {id};
    rt_timer t = {id};
    rt_watch w = {id};
    check_stale_session(s);
    check_stale_group(g);
    EQUAL(rt_listener_port(st.loop, n), RT_EGONE);
    EQUAL(rt_unlisten(st.loop, n), RT_EGONE);
    EQUAL(rt_timer_stop(st.loop, t), RT_EGONE);
    EQUAL(rt_watch_set(st.loop, w, RT_READ), RT_EGONE);
    EQUAL(rt_watch_stop(st.loop, w), RT_EGONE);
}

/* One of each type, made and ended. */
static void make_stale(uint64_t ids[5])
{
    rt_group g = rt_group_open(st.loop, "gone", NULL);
    rt_listener n = rt_listen(st.loop, "ws://127.0.0.1:0", &st.opts);
    rt_timer t = rt_timer_start(st.loop, st.b, 0, on_timer, &st.b);
    rt_watch w = rt_watch_start(st.loop, st.pipe[1], RT_READ, on_watch, NULL);
    CHECK(g.id && n.id && t.id && w.id && st.gone.id);
    EQUAL(rt_group_close(st.loop, g), 0);
    EQUAL(rt_unlisten(st.loop, n), 0);
    EQUAL(rt_timer_stop(st.loop, t), 0);
    EQUAL(rt_watch_stop(st.loop, w), 0);
    ids[0] = st.gone.id;
    ids[1] = g.id;
    ids[2] = n.id;
    ids[3] = t.id;
    ids[4] = w.id;
}

static void use_stale(rt_session self)
{
    uint64_t ids[5];
    size_t i, heap;
    (void)self;
    make_stale(ids);
    heap = peer_heap;
    for (i = 0; i < COUNT(ids); i++)
        check_stale(ids[i]);
    EQUAL(peer_heap, heap);
}

static void used_stale(void)
{
    char events[sizeof st.events];
    int timers = st.calls[TIMER];
    memcpy(events, st.events, sizeof events);
    peer_quiet(st.loop);
    EQUAL(st.calls[TIMER], timers);
    CHECK(strcmp(events, st.events) == 0);
    EQUAL(rt_group_count(st.loop, st.members), st.from == CLOSE ? 1 : 2);
    CHECK(peer_silent(&st.pb));
    check_alive(st.b, &st.pb);
}

/* ---- deeds -------------------------------------------------------------- */

static void close_self(rt_session self)
{
    int gone = st.from == CLOSE;
    EQUAL(rt_close(st.loop, self, 4000, "done"), gone ? RT_EGONE : 0);
    EQUAL(rt_close(st.loop, self, 4001, "twice"), RT_EGONE);
    check_refused(self);
    EQUAL(rt_state(st.loop, self), st.from == REQUEST ? RT_EGONE : RT_CLOSING);
}

static void closed_self(void)
{
    peer *p = peer_of_self();
    if (st.from == REQUEST) {
        CHECK(peer_ended(p));
        EQUAL(seen_of(st.self)->opens, 0);
        CHECK(rt_context(st.loop, st.self) == NULL);
        return;
    }
    if (st.from == CLOSE) {
        EQUAL(seen_of(st.self)->cause, RT_BY_PEER);
        EQUAL(seen_of(st.self)->code, 1006);
        return;
    }
    check_closed(st.self, 4000, "done");
    if (st.from == OPEN)
        EQUAL(peer_status(p), 101);
    if (p)
        EQUAL(peer_closed_at_last(p), 4000);
}

static void close_other(rt_session self)
{
    (void)self;
    EQUAL(rt_close(st.loop, st.b, 4000, "other"), 0);
    EQUAL(rt_close(st.loop, st.b, 0, NULL), RT_EGONE);
    EQUAL(rt_group_count(st.loop, st.members), st.from == CLOSE ? 0 : 1);
}

static void closed_other(void)
{
    check_closed(st.b, 4000, "other");
    EQUAL(peer_closed_at_last(&st.pb), 4000);
}

/* What it has sent by then was received, but is not told any more. */
static void close_other_with_mail(rt_session self)
{
    static const char mail[] = "\x81\x84\0\0\0\0late\x81\x84\0\0\0\0mail";
    peer_put(&st.pb, mail, sizeof mail - 1);
    close_other(self);
}

static void closed_other_with_mail(void)
{
    closed_other();
    peer_quiet(st.loop);
    EQUAL(seen_of(st.b)->messages, 0);
}

/* While going over the group, whose members leave meanwhile. */
static void close_members(rt_session self)
{
    rt_session all[8];
    size_t i, n = rt_group_members(st.loop, st.members, all, COUNT(all));
    (void)self;
    EQUAL(n, st.from == CLOSE ? 1 : 2);
    for (i = 0; i < n; i++) {
        rt_group_send(st.loop, st.members, RT_TEXT, "bye", 3);
        EQUAL(rt_close(st.loop, all[i], 4000, "all"), 0);
        EQUAL(rt_group_count(st.loop, st.members), n - i - 1);
    }
}

static void closed_members(void)
{
    check_closed(st.b, 4000, "all");
    CHECK(got_at_last(&st.pb, "bye"));
    EQUAL(peer_closed_at_last(&st.pb), 4000);
    if (st.from != CLOSE) {
        check_closed(st.a, 4000, "all");
        EQUAL(peer_closed_at_last(&st.pa), 4000);
    }
}

static void close_sessions(rt_session self)
{
    rt_session s = {0};
    int n = 0;
    (void)self;
    while ((s = rt_next_session(st.loop, s)).id) {
        EQUAL(rt_close(st.loop, s, 4000, "all"), 0);
        n++;
    }
    EQUAL(n, st.from == OPEN ? 3 : st.from == CLOSE ? 1 : 2);
}

static void drop_other(rt_session self)
{
    (void)self;
    EQUAL(rt_drop(st.loop, st.b, 4000, "other"), 0);
    EQUAL(rt_drop(st.loop, st.b, 4000, "other"), RT_EGONE);
}

static void kick_all(rt_session self)
{
    (void)self;
    EQUAL(rt_kick(st.loop, "user", 4000, "all"), st.from == CLOSE ? 1 : 2);
    EQUAL(rt_kick(st.loop, "user", 4000, "all"), 0);
    EQUAL(rt_find(st.loop, "user").id, 0);
}

static void kicked_all(void)
{
    check_closed(st.b, 4000, "all");
    if (st.from != CLOSE)
        check_closed(st.a, 4000, "all");
}

/* Leaves, joins and sends while going over the members. */
static void shuffle_members(rt_session self)
{
    rt_session all[8];
    size_t i, n = rt_group_members(st.loop, st.members, all, COUNT(all));
    (void)self;
    for (i = 0; i < n; i++) {
        EQUAL(rt_group_leave(st.loop, st.members, all[i]), 0);
        EQUAL(rt_group_leave(st.loop, st.members, all[i]), RT_ESTATE);
        EQUAL(rt_group_count(st.loop, st.members), n - 1);
        EQUAL(rt_group_send(st.loop, st.members, RT_TEXT, "x", 1), n - 1);
        EQUAL(rt_group_join(st.loop, st.members, all[i]), 0);
        EQUAL(rt_group_join(st.loop, st.members, all[i]), RT_EEXIST);
        EQUAL(rt_group_send(st.loop, st.members, RT_TEXT, "y", 1), n);
    }
    rt_group_join(st.loop, st.watched, st.b);
}

static void shuffled_members(void)
{
    CHECK(got_at_last(&st.pb, st.from == CLOSE ? "y" : "x"));
    check_alive(st.b, &st.pb);
    if (st.from != CLOSE)
        CHECK(got_at_last(&st.pa, "y"));
    CHECK(strchr(st.events, '+') != NULL);
}

/* Also the group whose event it is. */
static void close_groups(rt_session self)
{
    (void)self;
    EQUAL(rt_group_close(st.loop, st.members), 0);
    EQUAL(rt_group_close(st.loop, st.members), RT_EGONE);
    EQUAL(rt_group_close(st.loop, st.watched), 0);
    EQUAL(rt_group_send(st.loop, st.members, RT_TEXT, "x", 1), RT_EGONE);
    EQUAL(rt_group_open(st.loop, "members", NULL).id == st.members.id, 0);
}

static void closed_groups(void)
{
    size_t events = strlen(st.events);
    check_alive(st.b, &st.pb);
    if (st.from != CLOSE)
        check_alive(st.a, &st.pa);
    EQUAL(strlen(st.events), events);
}

/* The timer, the watch and the listener that are at work just now. */
static void stop_everything(rt_session self)
{
    rt_timer tick = rt_timer_start(st.loop, st.b, 0, on_timer, &st.b);
    (void)self;
    EQUAL(rt_timer_stop(st.loop, tick), 0);
    EQUAL(rt_timer_stop(st.loop, tick), RT_EGONE);
    if (st.from == TIMER)
        EQUAL(rt_timer_stop(st.loop, st.timer), RT_EGONE);
    EQUAL(rt_watch_stop(st.loop, st.watch), 0);
    EQUAL(rt_watch_stop(st.loop, st.watch), RT_EGONE);
    EQUAL(rt_unlisten(st.loop, st.listener), 0);
    EQUAL(rt_unlisten(st.loop, st.listener), RT_EGONE);
}

static void stopped_everything(void)
{
    peer late;
    int timers = st.calls[TIMER], watches = st.calls[WATCH];
    if (st.from == REQUEST) {
        EQUAL(peer_status(&st.pc), 101); /* it came in before */
        check_alive(st.last, &st.pc);
    }
    EQUAL(write(st.pipe[1], "x", 1), 1);
    check_alive(st.b, &st.pb);
    peer_quiet(st.loop);
    EQUAL(st.calls[TIMER], timers);
    EQUAL(st.calls[WATCH], watches);
    CHECK(!peer_tcp(&late, st.loop, st.port) || peer_ended(&late));
    peer_end(&late);
}

static void turn_the_loop(rt_session self)
{
    (void)self;
    EQUAL(rt_poll(st.loop, 0), RT_ESTATE);
    EQUAL(rt_poll(st.loop, -1), RT_ESTATE);
    EQUAL(rt_run(st.loop), RT_ESTATE);
    rt_loop_free(st.loop);
    EQUAL(rt_state(st.loop, st.b), RT_OPEN);
}

static void turned_nothing(void)
{
    check_alive(st.b, &st.pb);
}

static void send_everywhere(rt_session self)
{
    int n = st.from == CLOSE ? 1 : 2;
    rt_session both[2];
    both[0] = st.a;
    both[1] = st.b;
    (void)self;
    EQUAL(rt_send(st.loop, st.b, RT_TEXT, "1", 1), 0);
    EQUAL(rt_send_many(st.loop, both, 2, RT_TEXT, "2", 1), n);
    EQUAL(rt_push(st.loop, "user", RT_TEXT, "3", 1), n);
    EQUAL(rt_group_send(st.loop, st.members, RT_TEXT, "4", 1), n);
    EQUAL(rt_group_send_but(st.loop, st.members, st.b, RT_TEXT, "5", 1), n - 1);
    EQUAL(rt_send(st.loop, st.b, RT_TEXT, "6", 1), 0);
}

static void sent_everywhere(void)
{
    static const char *const texts[] = {"1", "2", "3", "4", "6"};
    size_t i;
    for (i = 0; i < COUNT(texts); i++)
        CHECK(peer_got(&st.pb, RT_TEXT, texts[i]));
    CHECK(peer_silent(&st.pb));
    if (st.from != CLOSE)
        CHECK(got_at_last(&st.pa, "5"));
}

/* What the flush wrote is with the peer before the callback returns. */
static void flush_now(rt_session self)
{
    int before = upcalls, i;
    (void)self;
    EQUAL(rt_send(st.loop, st.b, RT_TEXT, "now", 3), 0);
    rt_flush(st.loop);
    EQUAL(upcalls, before);
    EQUAL(rt_unsent(st.loop, st.b), 0);
    for (i = 0; i < 100 && !peer_take(&st.pb); i++)
        poll(NULL, 0, 1);
    EQUAL(st.pb.len - st.pb.at, 5);
}

static void flushed(void)
{
    CHECK(peer_got(&st.pb, RT_TEXT, "now"));
    CHECK(peer_silent(&st.pb));
}

/* They come later, each with a stack of its own. */
static void start_everything(rt_session self)
{
    int timers = st.calls[TIMER], posts = st.calls[POST];
    (void)self;
    CHECK(rt_timer_start(st.loop, st.b, 0, on_timer, &st.b).id != 0);
    EQUAL(rt_post(st.loop, on_post, NULL), 0);
    EQUAL(rt_group_join(st.loop, st.watched, st.b), 0);
    CHECK(rt_listen(st.loop, "ws://127.0.0.1:0", &st.opts).id != 0);
    CHECK(stage_dial(stage_url("ws", st.port), NULL).id != 0);
    CHECK(stage_dial("ws://elsewhere:9/", NULL).id != 0);
    EQUAL(st.calls[TIMER], timers);
    EQUAL(st.calls[POST], posts);
}

static void started_everything(void)
{
    int wanted = st.from == OPEN ? 2 : st.from == REQUEST ? 3 : 2;
    CHECK(peer_until(st.loop, &st.calls[TIMER], 1 + (st.from == TIMER)));
    CHECK(peer_until(st.loop, &st.calls[POST], 1 + (st.from == POST)));
    CHECK(peer_until(st.loop, &st.calls[OPEN], 2 + wanted));
    CHECK(peer_until(st.loop, &st.calls[RESOLVE], 1 + (st.from == RESOLVE)));
    CHECK(strchr(st.events, '+') != NULL);
}

static void set_users(rt_session self)
{
    static int of_self, of_other;
    rt_set_user(st.loop, self, &of_self);
    rt_set_user(st.loop, st.b, &of_other);
    CHECK(rt_user(st.loop, self) == (st.from == REQUEST ? NULL : &of_self));
    CHECK(rt_user(st.loop, st.b) == &of_other);
    rt_close(st.loop, st.b, 4000, "other");
    CHECK(rt_user(st.loop, st.b) == &of_other);
}

static void had_users(void)
{
    seen *who = seen_of(st.b);
    check_closed(st.b, 4000, "other");
    CHECK(who->user != NULL);
    CHECK(rt_user(st.loop, st.b) == NULL);
    rt_set_user(st.loop, st.b, &st);
    CHECK(rt_user(st.loop, st.b) == NULL);
}

static void stop_reading(rt_session self)
{
    (void)self;
    EQUAL(rt_read(st.loop, st.b, 0), 0);
    peer_text(&st.pb, "held");
}

static void stopped_reading(void)
{
    peer_quiet(st.loop);
    EQUAL(seen_of(st.b)->messages, 0);
    EQUAL(rt_read(st.loop, st.b, 1), 0);
    CHECK(peer_until(st.loop, &seen_of(st.b)->messages, 1));
}

typedef struct {
    const char *name;
    void (*act)(rt_session self);
    void (*verify)(void);
} deed;

static const deed deeds[] = {
    {"close itself, twice", close_self, closed_self},
    {"close another", close_other, closed_other},
    {"close another that has sent", close_other_with_mail,
     closed_other_with_mail},
    {"close all members of a group", close_members, closed_members},
    {"close all sessions", close_sessions, kicked_all},
    {"drop another", drop_other, closed_other},
    {"kick all", kick_all, kicked_all},
    {"leave and join", shuffle_members, shuffled_members},
    {"close groups", close_groups, closed_groups},
    {"stop the timer, watch and listener", stop_everything, stopped_everything},
    {"turn the loop", turn_the_loop, turned_nothing},
    {"send", send_everywhere, sent_everywhere},
    {"flush", flush_now, flushed},
    {"start things", start_everything, started_everything},
    {"set users", set_users, had_users},
    {"stop reading", stop_reading, stopped_reading},
    {"use stale handles", use_stale, used_stale},
};

static void deed_run(const deed *d, int from, size_t backend)
{
    test_begin("%s in %s, %s", d->name, from_names[from],
               peer_backends[backend].name);
    stage_reset(peer_backends[backend].which);
    st.opts.rate_limit = from == LIMIT ? RATE : 0;
    st.opts.rate_ms = RATE_MS;
    stage_start();
    stage_fill();
    st.from = from;
    st.act = d->act;
    provoke(from);
    CHECK(peer_until(st.loop, &st.acted, 1));
    d->verify();
    stage_close();
    test_end();
}

static void deeds_run(void)
{
    size_t i, backend;
    int from;
    for (i = 0; i < COUNT(deeds); i++)
        for (from = 0; from < FROMS; from++)
            for (backend = 0; backend < COUNT(peer_backends); backend++)
                deed_run(&deeds[i], from, backend);
}

/* ---- rule 1: on_close once and last ------------------------------------- */

/* Ways in which an open session ends. */
static void end_by_rt_close(void)
{
    EQUAL(rt_close(st.loop, st.a, 4000, "enough"), 0);
}

static void end_by_rt_close_plain(void)
{
    EQUAL(rt_close(st.loop, st.a, 0, NULL), 0);
}

static void end_by_rt_drop(void)
{
    EQUAL(rt_drop(st.loop, st.a, 4000, "enough"), 0);
}

static void end_by_rt_kick(void)
{
    EQUAL(rt_kick(st.loop, "only", 0, NULL), 1);
}

static void end_by_peers_close(void)
{
    peer_frame_put(&st.pa, 0x88,
                   "\x0f\xa0"
                   "enough",
                   8);
}

static void end_by_peers_bare_close(void)
{
    peer_bye(&st.pa, 0);
}

static void end_by_fin(void)
{
    shutdown(st.pa.fd, SHUT_WR);
}

static void end_by_reset(void)
{
    peer_reset(&st.pa);
}

static void end_by_unmasked_frame(void)
{
    peer_put(&st.pa, "\x81\x02hi", 4);
}

static void end_by_bad_text(void)
{
    peer_text(&st.pa, "\xff");
}

static void end_by_large_message(void)
{
    static const char large[1001];
    peer_frame_put(&st.pa, 0x82, large, sizeof large);
}

static void end_by_slow_message(void)
{
    peer_frame_put(&st.pa, 0x01, "half", 4);
}

static void end_by_silence(void)
{
    peer_frame f = {0};
    CHECK(peer_frame_raw(&st.pa, &f));
    EQUAL(f.op, 9);
}

static void end_by_full_queue(void)
{
    static const char much[1500];
    EQUAL(rt_send(st.loop, st.a, RT_BINARY, much, sizeof much), 1);
    EQUAL(rt_send(st.loop, st.a, RT_BINARY, much, sizeof much), RT_EFULL);
    EQUAL(seen_of(st.a)->closes, 0);
}

static void end_by_newer_login(void)
{
    EQUAL(rt_bind(st.loop, st.b, "only"), 0);
}

typedef struct {
    const char *name;
    void (*act)(void);
    int code, cause;
    const char *reason;
    int ping_ms;
} ending;

static const ending endings[] = {
    {"rt_close", end_by_rt_close, 4000, RT_BY_APP, "enough", 0},
    {"rt_close with code 0", end_by_rt_close_plain, 1000, RT_BY_APP, "", 0},
    {"rt_drop", end_by_rt_drop, 4000, RT_BY_APP, "enough", 0},
    {"rt_kick", end_by_rt_kick, 4502, RT_BY_APP, NULL, 0},
    {"the peer's close", end_by_peers_close, 4000, RT_BY_PEER, "enough", 0},
    {"a close without code", end_by_peers_bare_close, 1005, RT_BY_PEER, "", 0},
    {"the line's end", end_by_fin, 1006, RT_BY_PEER, NULL, 0},
    {"a reset", end_by_reset, 1006, RT_BY_PEER, NULL, 0},
    {"an unmasked frame", end_by_unmasked_frame, 1002, RT_BY_ERROR, NULL, 0},
    {"bad text", end_by_bad_text, 1007, RT_BY_ERROR, NULL, 0},
    {"a large message", end_by_large_message, 1009, RT_BY_LIMIT, NULL, 0},
    {"a slow message", end_by_slow_message, 1008, RT_BY_TIMEOUT, NULL, 0},
    {"silence", end_by_silence, RT_CLOSE_DEAD, RT_BY_TIMEOUT, NULL, 10},
    {"a full queue", end_by_full_queue, RT_CLOSE_SLOW, RT_BY_LIMIT, NULL, 0},
    {"a newer login", end_by_newer_login, RT_CLOSE_REPLACED, RT_BY_REPLACE,
     NULL, 0},
};

static void ending_stage(const ending *e, int backend)
{
    stage_reset(backend);
    st.loop_opts.bind_policy = RT_BIND_NEWEST;
    st.opts.max_message = 1000;
    st.opts.hard_mark = 2000;
    st.opts.assembly_ms = 8;
    st.opts.ping_ms = e->ping_ms ? e->ping_ms : RT_OFF;
    st.opts.dead_pings = 1;
    stage_start();
    st.a = stage_join(&st.pa);
    EQUAL(rt_bind(st.loop, st.a, "only"), 0);
    st.b = stage_join(&st.pb);
}

/* The peer goes on talking, and nobody is told. */
static void ending_checked(const ending *e)
{
    seen *who = seen_of(st.a);
    CHECK(peer_until(st.loop, &who->closes, 1));
    EQUAL(who->code, e->code);
    EQUAL(who->cause, e->cause);
    if (e->reason)
        CHECK(strcmp(who->reason, e->reason) == 0);
    if (st.pa.fd >= 0)
        peer_text(&st.pa, "anybody there?");
    peer_quiet(st.loop);
    EQUAL(who->closes, 1);
    EQUAL(who->messages, 0);
}

static void endings_run(void)
{
    size_t i, backend;
    for (i = 0; i < COUNT(endings); i++)
        for (backend = 0; backend < COUNT(peer_backends); backend++) {
            test_begin("on_close once and last after %s, %s", endings[i].name,
                       peer_backends[backend].name);
            ending_stage(&endings[i], peer_backends[backend].which);
            endings[i].act();
            ending_checked(&endings[i]);
            stage_close();
            test_end();
        }
}

static void stream_endings(int backend)
{
    rt_listener n;
    seen *who;
    peer p;
    stage_reset(backend);
    stage_start();
    n = rt_listen(st.loop, "tcp://127.0.0.1:0", &st.opts);
    CHECK(peer_tcp(&p, st.loop, rt_listener_port(st.loop, n)));
    CHECK(peer_until(st.loop, &st.calls[OPEN], 1));
    who = seen_of(st.last);
    peer_stream_put(&p, "hello", 5);
    CHECK(peer_until(st.loop, &who->messages, 1));
    shutdown(p.fd, SHUT_WR);
    CHECK(peer_until(st.loop, &who->closes, 1));
    EQUAL(who->code, 1005);
    EQUAL(who->cause, RT_BY_PEER);
    peer_end(&p);
    stage_close();
}

/* ---- rule 1: a dialled session that never opened ------------------------ */

static int raw = -1; /* a listening socket of the test's own */

static const char *raw_url(void)
{
    int port = 0;
    raw = peer_listen(&port);
    CHECK(raw >= 0);
    return stage_url("ws", port);
}

static rt_session dial_refused(void)
{
    const char *url = raw_url();
    close(raw);
    raw = -1;
    return stage_dial(url, NULL);
}

static rt_session dial_unanswered(void)
{
    rt_dial_opts o = {.connect_ms = 10, .handshake_ms = 10};
    return stage_dial(raw_url(), &o);
}

static rt_session dial_unresolved(void)
{
    rt_dial_opts o = {.connect_ms = 10};
    return stage_dial("ws://elsewhere:9/", &o);
}

static rt_session dial_answered(const char *answer)
{
    rt_session s = stage_dial(raw_url(), NULL);
    peer p;
    CHECK(peer_accept(&p, st.loop, raw));
    CHECK(peer_fill(&p, 20));
    peer_say(&p, answer);
    peer_end(&p);
    return s;
}

static rt_session dial_hung_up(void)
{
    return dial_answered("");
}

static rt_session dial_not_upgraded(void)
{
    return dial_answered("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

static rt_session dial_misunderstood(void)
{
    return dial_answered("220 mail.example ESMTP\r\n\r\n");
}

static rt_session dial_wrong_key(void)
{
    return dial_answered("HTTP/1.1 101 Switching Protocols\r\n"
                         "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                         "Sec-WebSocket-Accept: "
                         "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
}

static rt_session dial_closed(void)
{
    rt_session s = stage_dial(stage_url("ws", st.port), NULL);
    EQUAL(rt_close(st.loop, s, 4000, "no"), 0);
    EQUAL(rt_close(st.loop, s, 4000, "no"), RT_EGONE);
    EQUAL(seen_of(s)->closes, 0); /* the call itself tells nobody */
    return s;
}

static rt_session dial_closed_in_shake(void)
{
    rt_session s = stage_dial(raw_url(), NULL);
    peer p;
    CHECK(peer_accept(&p, st.loop, raw));
    CHECK(peer_fill(&p, 20));
    EQUAL(rt_close(st.loop, s, 4000, "no"), 0);
    CHECK(peer_ended(&p));
    peer_end(&p);
    return s;
}

static rt_session dial_dropped(void)
{
    rt_session s = stage_dial(stage_url("ws", st.port), NULL);
    EQUAL(rt_drop(st.loop, s, 4000, "no"), 0);
    return s;
}

static rt_session dial_not_found(void)
{
    st.resolved = -1;
    return stage_dial("ws://elsewhere:9/", NULL);
}

static rt_session dial_resolved_to_nothing(void)
{
    rt_session s = stage_dial("ws://elsewhere:9/", NULL);
    CHECK(peer_until(st.loop, &st.calls[RESOLVE], 1));
    EQUAL(rt_resolved(st.loop, s, NULL), 0);
    EQUAL(rt_resolved(st.loop, s, "127.0.0.1"), RT_EGONE);
    return s;
}

static rt_session dial_stream_refused(void)
{
    int port = 0, fd = peer_listen(&port);
    close(fd);
    return stage_dial(stage_url("tcp", port), NULL);
}

static rt_session dial_forgotten(void)
{
    return stage_dial(raw_url(), NULL);
}

typedef struct {
    const char *name;
    rt_session (*dial)(void);
    int code, cause;
} failure;

static const failure failures[] = {
    {"refused", dial_refused, 1006, RT_BY_ERROR},
    {"refused, tcp", dial_stream_refused, 1006, RT_BY_ERROR},
    {"not answered", dial_unanswered, 1006, RT_BY_TIMEOUT},
    {"not resolved", dial_unresolved, 1006, RT_BY_TIMEOUT},
    {"hung up", dial_hung_up, 1006, RT_BY_PEER},
    {"not upgraded", dial_not_upgraded, 1006, RT_BY_PEER},
    {"misunderstood", dial_misunderstood, 1006, RT_BY_PEER},
    {"answered with a wrong key", dial_wrong_key, 1006, RT_BY_PEER},
    {"closed at once", dial_closed, 4000, RT_BY_APP},
    {"closed in the handshake", dial_closed_in_shake, 4000, RT_BY_APP},
    {"dropped at once", dial_dropped, 4000, RT_BY_APP},
    {"refused by the resolver", dial_not_found, 1006, RT_BY_ERROR},
    {"resolved to nothing", dial_resolved_to_nothing, 1006, RT_BY_ERROR},
    {"forgotten until the loop ends", dial_forgotten, 1001, RT_BY_LOOP},
};

/* A refusal may also be known at once: then there is no session. */
static void failure_checked(const failure *f, rt_session s)
{
    const char *text = NULL;
    if (!s.id) {
        EQUAL(rt_error(st.loop, &text), RT_ESYS);
        CHECK(f->dial == dial_refused || f->dial == dial_stream_refused);
        return;
    }
    EQUAL(seen_of(s)->opens, 0);
    if (f->cause != RT_BY_LOOP)
        CHECK(peer_until(st.loop, &seen_of(s)->closes, 1));
    else
        EQUAL(rt_state(st.loop, s), RT_OPENING);
    if (f->cause != RT_BY_LOOP)
        EQUAL(rt_state(st.loop, s), RT_EGONE);
}

static void failure_run(const failure *f, size_t backend)
{
    rt_session s;
    test_begin("one on_close for a dial that was %s, %s", f->name,
               peer_backends[backend].name);
    stage_reset(peer_backends[backend].which);
    stage_start();
    s = f->dial();
    failure_checked(f, s);
    peer_quiet(st.loop);
    stage_close();
    if (s.id) {
        EQUAL(seen_of(s)->opens, 0);
        EQUAL(seen_of(s)->closes, 1);
        EQUAL(seen_of(s)->code, f->code);
        EQUAL(seen_of(s)->cause, f->cause);
    }
    if (raw >= 0)
        close(raw);
    raw = -1;
    test_end();
}

static void failures_run(void)
{
    size_t i, backend;
    for (i = 0; i < COUNT(failures); i++)
        for (backend = 0; backend < COUNT(peer_backends); backend++)
            failure_run(&failures[i], backend);
}

/* ---- rule 2: rt_close --------------------------------------------------- */

static void close_quietly(rt_session self)
{
    EQUAL(rt_close(st.loop, self, 4000, ""), 0);
}

static const char three[] = "\x81\x83\0\0\0\0one"
                            "\x81\x83\0\0\0\0two"
                            "\x88\x80\0\0\0\0";

static void no_message_after_close_in_the_same_packet(int backend)
{
    stage_open(backend);
    st.from = MESSAGE;
    st.act = close_quietly;
    peer_put(&st.pa, three, sizeof three - 1);
    CHECK(peer_until(st.loop, &st.acted, 1));
    EQUAL(seen_of(st.a)->closes, 1);
    peer_quiet(st.loop);
    CHECK(strcmp(seen_of(st.a)->text, "one|") == 0);
    EQUAL(peer_closed(&st.pa), 4000);
    EQUAL(peer_ended(&st.pa), PEER_EOF);
    stage_close();
}

static void no_message_after_close_in_fragments(int backend)
{
    static const char parts[] = "\x01\x81\0\0\0\0o"
                                "\x89\x80\0\0\0\0"
                                "\x80\x81\0\0\0\0k"
                                "\x01\x81\0\0\0\0n"
                                "\x80\x81\0\0\0\0o";
    stage_open(backend);
    st.from = MESSAGE;
    st.act = close_quietly;
    peer_put(&st.pa, parts, sizeof parts - 1);
    CHECK(peer_until(st.loop, &st.acted, 1));
    peer_quiet(st.loop);
    CHECK(strcmp(seen_of(st.a)->text, "ok|") == 0);
    stage_close();
}

static void no_message_after_close_in_on_open(int backend)
{
    char text[512];
    size_t n;
    stage_reset(backend);
    stage_start();
    st.from = OPEN;
    st.act = close_quietly;
    CHECK(peer_tcp(&st.pa, st.loop, st.port));
    n = (size_t)snprintf(text, sizeof text, "%s",
                         "GET / HTTP/1.1\r\nHost: peer\r\n"
                         "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
                         "dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    memcpy(text + n, three, sizeof three - 1);
    peer_put(&st.pa, text, n + sizeof three - 1);
    CHECK(peer_until(st.loop, &st.acted, 1));
    EQUAL(seen_of(st.self)->closes, 1);
    peer_quiet(st.loop);
    EQUAL(seen_of(st.self)->messages, 0);
    EQUAL(peer_status(&st.pa), 101);
    EQUAL(peer_closed(&st.pa), 4000);
    stage_close();
}

static void hold_self(rt_session self)
{
    EQUAL(rt_read(st.loop, self, 0), 0);
}

/* Bytes that were received while reading was paused. */
static void no_message_after_close_of_what_was_held(int backend)
{
    stage_open(backend);
    st.from = MESSAGE;
    st.act = hold_self;
    peer_put(&st.pa, three, sizeof three - 1);
    CHECK(peer_until(st.loop, &st.acted, 1));
    EQUAL(rt_read(st.loop, st.a, 1), 0);
    EQUAL(rt_close(st.loop, st.a, 4000, ""), 0);
    peer_turn(st.loop, 1000);
    EQUAL(seen_of(st.a)->closes, 1);
    peer_quiet(st.loop);
    CHECK(strcmp(seen_of(st.a)->text, "one|") == 0);
    stage_close();
}

static rt_session stream_join(peer *p)
{
    rt_listener n = rt_listen(st.loop, "tcp://127.0.0.1:0", &st.opts);
    int opens = st.calls[OPEN];
    CHECK(peer_tcp(p, st.loop, rt_listener_port(st.loop, n)));
    CHECK(peer_until(st.loop, &st.calls[OPEN], opens + 1));
    return st.last;
}

static void no_message_after_close_on_a_stream(int backend)
{
    static const char two[] = "\0\0\0\003one\0\0\0\003two";
    stage_reset(backend);
    stage_start();
    st.a = stream_join(&st.pa);
    st.from = MESSAGE;
    st.act = close_quietly;
    peer_put(&st.pa, two, sizeof two - 1);
    CHECK(peer_until(st.loop, &st.acted, 1));
    EQUAL(seen_of(st.a)->closes, 1);
    peer_quiet(st.loop);
    CHECK(strcmp(seen_of(st.a)->text, "one|") == 0);
    EQUAL(peer_ended(&st.pa), PEER_EOF);
    stage_close();
}

/* It was owed, then the session ended. */
static void no_writable_comes_after_close(int backend)
{
    stage_open(backend);
    provoke(WRITABLE);
    peer_turn(st.loop, 0); /* its flush makes the event of the next */
    EQUAL(rt_unsent(st.loop, st.a), 0);
    EQUAL(rt_loop_timeout(st.loop), 0);
    EQUAL(rt_close(st.loop, st.a, 4000, ""), 0);
    peer_turn(st.loop, 1000);
    EQUAL(seen_of(st.a)->closes, 1);
    EQUAL(seen_of(st.a)->writables, 0);
    stage_close();
}

/* From outside of a turn: the next one does not wait. */
static void on_close_comes_without_a_wait(int backend)
{
    uint64_t began;
    stage_open(backend);
    EQUAL(rt_close(st.loop, st.a, 4000, ""), 0);
    EQUAL(seen_of(st.a)->closes, 0);
    EQUAL(rt_loop_timeout(st.loop), 0);
    began = peer_clock();
    peer_turn(st.loop, 10000);
    CHECK(peer_clock() - began < 1000);
    EQUAL(seen_of(st.a)->closes, 1);
    stage_close();
}

/* ---- rule 2: the connection lingers ------------------------------------- */

enum { MUCH = 600 * 1024 }; /* more than a local socket takes at once */

static char much[MUCH + 1];

/* A session over a local socket, to which too much was sent. */
static void stage_slow(int backend, int close_ms, char path[108])
{
    char url[128];
    stage_reset(backend);
    st.opts.close_ms = close_ms;
    stage_start();
    peer_path(path);
    snprintf(url, sizeof url, "unix:%s", path);
    CHECK(rt_listen(st.loop, url, &st.opts).id != 0);
    CHECK(peer_ws_local(&st.pa, st.loop, path));
    st.a = st.last;
    memset(much, 'm', MUCH);
    EQUAL(rt_send(st.loop, st.a, RT_TEXT, much, MUCH), 1);
}

static void a_close_lingers_until_flushed_and_answered(int backend)
{
    char path[108];
    peer_frame f = {0};
    stage_slow(backend, 2000, path);
    EQUAL(rt_close(st.loop, st.a, 4000, "bye"), 0);
    peer_turn(st.loop, 0);
    EQUAL(seen_of(st.a)->closes, 1);
    EQUAL(seen_of(st.a)->lost, 1);
    EQUAL(rt_state(st.loop, st.a), RT_EGONE);
    EQUAL(peer_metric(st.loop, "rtnet_sessions"), 0);
    EQUAL(peer_metric(st.loop, "rtnet_connections"), 1);
    CHECK(peer_next(&st.pa, &f) && f.len == MUCH);
    CHECK(f.len == MUCH && memcmp(f.data, much, MUCH) == 0);
    EQUAL(peer_closed(&st.pa), 4000);
    peer_quiet(st.loop);
    CHECK(!st.pa.gone); /* the answer is awaited */
    EQUAL(peer_metric(st.loop, "rtnet_connections"), 1);
    peer_bye(&st.pa, 4000);
    EQUAL(peer_ended(&st.pa), PEER_EOF);
    EQUAL(peer_metric(st.loop, "rtnet_connections"), 0);
    stage_close();
}

/* Turns until no connection is left, which takes close_ms from then on. */
static void check_lingered(uint64_t began, uint64_t close_ms)
{
    uint64_t end = peer_clock() + PEER_WAIT;
    while (peer_metric(st.loop, "rtnet_connections") > 0 && peer_clock() < end)
        peer_turn(st.loop, 1);
    EQUAL(peer_metric(st.loop, "rtnet_connections"), 0);
    CHECK(peer_clock() >= began + close_ms);
    CHECK(peer_ended(&st.pa));
}

static void a_close_that_is_not_read_lingers_close_ms(int backend)
{
    char path[108];
    uint64_t began;
    stage_slow(backend, 15, path);
    began = rt_now(st.loop);
    EQUAL(rt_close(st.loop, st.a, 4000, "bye"), 0);
    peer_turn(st.loop, 0);
    EQUAL(seen_of(st.a)->closes, 1);
    check_lingered(began, 15);
    stage_close();
}

static void a_close_that_is_not_answered_lingers_close_ms(int backend)
{
    uint64_t began;
    stage_reset(backend);
    st.opts.close_ms = 15;
    stage_start();
    st.a = stage_join(&st.pa);
    began = rt_now(st.loop);
    EQUAL(rt_close(st.loop, st.a, 4000, "bye"), 0);
    EQUAL(peer_closed(&st.pa), 4000);
    check_lingered(began, 15);
    stage_close();
}

/* The time counts from rt_close, not from the turn before it. */
static void a_close_long_after_a_turn_is_flushed(int backend)
{
    stage_reset(backend);
    st.opts.close_ms = 10;
    stage_start();
    st.a = stage_join(&st.pa);
    poll(NULL, 0, 12); /* the host is busy, then says goodbye */
    EQUAL(rt_send(st.loop, st.a, RT_TEXT, "last", 4), 0);
    EQUAL(rt_close(st.loop, st.a, 4000, "bye"), 0);
    CHECK(peer_got(&st.pa, RT_TEXT, "last"));
    EQUAL(peer_closed(&st.pa), 4000);
    stage_close();
}

/* ---- rule 3: no call runs a callback ------------------------------------ */

/* The deeds again, outside of any callback; enter() would find depth 1. */
static void no_call_runs_a_callback(int backend)
{
    size_t i;
    for (i = 0; i < COUNT(deeds); i++) {
        int before;
        if (deeds[i].act == turn_the_loop)
            continue; /* those three calls do, outside of a callback */
        stage_open(backend);
        st.from = POST;
        before = upcalls;
        depth = 1;
        deeds[i].act(st.a);
        depth = 0;
        EQUAL(upcalls, before);
        stage_close();
    }
}

/* ---- rule 4: what goes on while a callback does all that ---------------- */

/* Also a handle of another type, another loop's, one that never was. */
static void handles_of_nothing_are_stale(int backend)
{
    uint64_t ids[4];
    int bit;
    stage_open(backend);
    check_stale(0);
    check_stale(UINT64_MAX);
    ids[0] = st.a.id;
    ids[1] = st.members.id;
    ids[2] = st.listener.id;
    ids[3] = st.watch.id;
    for (bit = 0; bit < 64; bit++) {
        check_stale(ids[0] ^ (uint64_t)1 << bit);
        check_stale(ids[1] ^ (uint64_t)1 << bit);
        check_stale(ids[2] ^ (uint64_t)1 << bit);
        check_stale(ids[3] ^ (uint64_t)1 << bit);
    }
    check_alive(st.a, &st.pa);
    stage_close();
}

static void a_handle_of_another_type_is_stale(int backend)
{
    rt_session s;
    rt_group g;
    rt_listener n;
    rt_timer t;
    rt_watch w;
    stage_open(backend);
    s.id = st.members.id;
    check_stale_session(s);
    s.id = st.watch.id;
    check_stale_session(s);
    g.id = st.a.id;
    check_stale_group(g);
    n.id = t.id = w.id = st.a.id;
    EQUAL(rt_unlisten(st.loop, n), RT_EGONE);
    EQUAL(rt_timer_stop(st.loop, t), RT_EGONE);
    EQUAL(rt_watch_stop(st.loop, w), RT_EGONE);
    t.id = st.watch.id;
    w.id = st.listener.id;
    n.id = st.members.id;
    EQUAL(rt_unlisten(st.loop, n), RT_EGONE);
    EQUAL(rt_timer_stop(st.loop, t), RT_EGONE);
    EQUAL(rt_watch_stop(st.loop, w), RT_EGONE);
    check_alive(st.a, &st.pa);
    stage_close();
}

static void handles_of_another_loop_are_stale(int backend)
{
    rt_loop_opts opts = {.backend = backend, .resolve = on_resolve};
    rt_session nobody = {0};
    rt_loop *other = rt_loop_new(&opts);
    rt_group g = rt_group_open(other, "there", NULL);
    rt_listener n = rt_listen(other, "ws://127.0.0.1:0", NULL);
    rt_timer t = rt_timer_start(other, nobody, 0, on_timer, NULL);
    rt_session s = rt_dial(other, "ws://elsewhere:9/", NULL);
    rt_watch w;
    stage_open(backend);
    w = rt_watch_start(other, st.pipe[1], RT_READ, on_watch, NULL);
    CHECK(g.id && n.id && t.id && s.id && w.id);
    check_stale(g.id);
    check_stale(n.id);
    check_stale(t.id);
    check_stale(s.id);
    check_stale(w.id);
    EQUAL(rt_state(other, s), RT_OPENING);
    CHECK(rt_group_name(other, g) != NULL);
    EQUAL(rt_timer_stop(other, t), 0);
    EQUAL(rt_watch_stop(other, w), 0);
    EQUAL(rt_unlisten(other, n), 0);
    rt_loop_free(other);
    stage_close();
}

enum { AGAIN = 20 };

/* Whatever takes the place of something in the loop, the old handle does not
   come to name it. */
static void old_handles_stay_stale_when_places_are_used_again(int backend)
{
    uint64_t old[AGAIN][5];
    int i, j, k;
    stage_open(backend);
    for (i = 0; i < AGAIN; i++) {
        make_stale(old[i]);
        st.gone = stage_dial("ws://elsewhere:9/", NULL);
        EQUAL(rt_close(st.loop, st.gone, 0, NULL), 0);
        peer_turn(st.loop, 0);
        for (j = 0; j < i; j++)
            for (k = 0; k < 5; k++)
                CHECK(old[j][k] != old[i][k]);
    }
    for (i = 0; i < 3; i++) { /* and now they are in use */
        rt_group_open(st.loop, i ? i > 1 ? "2" : "1" : "0", NULL);
        rt_timer_start(st.loop, st.b, rt_now(st.loop) + 60000, on_timer, &st.b);
        stage_dial("ws://elsewhere:9/", NULL);
    }
    for (i = 0; i < AGAIN; i++)
        for (k = 0; k < 5; k++)
            check_stale(old[i][k]);
    stage_close();
}

static void join_other(rt_session self)
{
    (void)self;
    EQUAL(rt_group_join(st.loop, st.watched, st.b), 0);
}

static void an_event_made_by_an_event_waits_for_the_next_turn(int backend)
{
    stage_open(backend);
    st.from = EVENT;
    st.act = join_other;
    provoke(EVENT);
    CHECK(peer_until(st.loop, &st.acted, 1));
    CHECK(strcmp(st.events, "+") == 0);
    EQUAL(rt_loop_timeout(st.loop), 0);
    peer_turn(st.loop, 10000);
    CHECK(strcmp(st.events, "++") == 0);
    EQUAL(seen_of(st.b)->event_in, st.act_turn + 1);
    stage_close();
}

static void fill_self(rt_session self)
{
    EQUAL(rt_send(st.loop, self, RT_BINARY, much, 2000), 1);
}

static void a_writable_made_by_a_writable_waits_for_the_next_turn(int backend)
{
    stage_open(backend);
    st.from = WRITABLE;
    st.act = fill_self;
    provoke(WRITABLE);
    CHECK(peer_until(st.loop, &st.acted, 1));
    EQUAL(seen_of(st.a)->writables, 1);
    EQUAL(rt_loop_timeout(st.loop), 0);
    peer_turn(st.loop, 10000);
    EQUAL(seen_of(st.a)->writables, 2);
    stage_close();
}

static void a_post_made_by_a_post_waits_for_the_next_turn(int backend)
{
    stage_open(backend);
    st.from = POST;
    st.act = start_everything;
    provoke(POST);
    CHECK(peer_until(st.loop, &st.acted, 1));
    EQUAL(st.calls[POST], 1);
    peer_turn(st.loop, 10000);
    EQUAL(st.calls[POST], 2);
    stage_close();
}

/* Whatever ends a session, the group hears of it before on_close. */
static void a_session_has_left_its_groups_in_on_close(int backend)
{
    stage_open(backend);
    EQUAL(rt_group_join(st.loop, st.watched, st.a), 0);
    EQUAL(rt_group_join(st.loop, st.watched, st.b), 0);
    peer_end(&st.pa);
    CHECK(peer_until(st.loop, &seen_of(st.a)->closes, 1));
    CHECK(strcmp(st.events, "++-") == 0);
    EQUAL(seen_of(st.a)->event_in, seen_of(st.a)->closed_in);
    EQUAL(rt_group_count(st.loop, st.watched), 1);
    EQUAL(rt_close(st.loop, st.b, 0, NULL), 0);
    EQUAL(rt_group_count(st.loop, st.watched), 0);
    peer_turn(st.loop, 0);
    CHECK(strcmp(st.events, "++--") == 0);
    EQUAL(seen_of(st.b)->closes, 1);
    stage_close();
}

/* Timers stop before the on_close of their owner. */
static void a_timer_ends_with_its_owner(int backend)
{
    rt_timer t;
    stage_open(backend);
    t = rt_timer_start(st.loop, st.a, 0, on_timer, &st.a);
    EQUAL(rt_close(st.loop, st.a, 0, NULL), 0);
    EQUAL(rt_timer_stop(st.loop, t), RT_EGONE);
    peer_quiet(st.loop);
    EQUAL(st.calls[TIMER], 0);
    stage_close();
}

/* ---- rule 5: data ------------------------------------------------------- */

/* Sizes at which the head of a frame changes, and none. */
static const size_t sizes[] = {0, 1, 5, 125, 126, 127, 300, 65535, 65536};

/* All in one packet, each followed by the next: the 0 behind a message must
   not damage it.  piece: how the bytes are cut; 0: not at all. */
static void send_sizes(peer *p, int stream, size_t piece)
{
    uint8_t *all = malloc(300000);
    size_t i, n = 0, at;
    for (i = 0; i < COUNT(sizes); i++) {
        memset(much, (int)('a' + i), sizes[i]);
        if (stream) {
            uint32_t len = htonl((uint32_t)sizes[i]);
            memcpy(all + n, &len, 4);
            memcpy(all + n + 4, much, sizes[i]);
            n += 4 + sizes[i];
        } else {
            n += peer_frame_build(all + n, 0x82, much, sizes[i]);
        }
    }
    for (at = 0; at < n; at += piece) {
        if (!piece || piece > n - at)
            piece = n - at;
        peer_put(p, all + at, piece);
        if (piece < n)
            peer_turn(st.loop, 0);
    }
    free(all);
}

static void check_sizes(rt_session s)
{
    char want[512];
    size_t i, n = 0;
    CHECK(peer_until(st.loop, &seen_of(s)->messages, COUNT(sizes)));
    for (i = 0; i < COUNT(sizes); i++) {
        memset(much, (int)('a' + i), sizes[i]);
        n += (size_t)snprintf(want + n, sizeof want - n,
                              sizes[i] < 64 ? "%.*s|" : "%d|", (int)sizes[i],
                              much);
    }
    CHECK(strcmp(seen_of(s)->text, want) == 0);
}

static void a_zero_stands_behind_each_message(int backend)
{
    static const size_t pieces[] = {0, 1000, 77, 4096};
    size_t i;
    for (i = 0; i < COUNT(pieces); i++) {
        stage_open(backend);
        send_sizes(&st.pa, 0, pieces[i]);
        check_sizes(st.a);
        stage_close();
    }
}

static void a_zero_stands_behind_each_message_of_a_stream(int backend)
{
    static const size_t pieces[] = {0, 1000, 77, 4096};
    size_t i;
    for (i = 0; i < COUNT(pieces); i++) {
        stage_reset(backend);
        st.opts.max_message = 65536;
        stage_start();
        st.a = stream_join(&st.pa);
        send_sizes(&st.pa, 1, pieces[i]);
        check_sizes(st.a);
        stage_close();
    }
}

/* What was received stays what it is while reading is paused. */
static void a_zero_stands_behind_what_was_held(int backend)
{
    stage_open(backend);
    st.from = MESSAGE;
    st.act = hold_self;
    send_sizes(&st.pa, 0, 0);
    CHECK(peer_until(st.loop, &st.acted, 1));
    EQUAL(seen_of(st.a)->messages, 1);
    EQUAL(rt_read(st.loop, st.a, 1), 0);
    check_sizes(st.a);
    stage_close();
}

static void a_user_pointer_answers_up_to_on_close(int backend)
{
    stage_open(backend);
    CHECK(rt_user(st.loop, st.a) == NULL);
    rt_set_user(st.loop, st.a, &st.pa);
    rt_set_user(st.loop, st.b, &st.pb);
    CHECK(rt_user(st.loop, st.a) == &st.pa);
    peer_end(&st.pa);
    CHECK(peer_until(st.loop, &seen_of(st.a)->closes, 1));
    CHECK(seen_of(st.a)->user == &st.pa);
    CHECK(rt_user(st.loop, st.a) == NULL);
    EQUAL(seen_of(st.a)->bound, 1); /* the user id does, too */
    CHECK(rt_uid(st.loop, st.a) == NULL);
    rt_loop_free(st.loop);
    st.loop = NULL;
    CHECK(seen_of(st.b)->user == &st.pb);
    stage_close();
}

/* ---- the end of a loop -------------------------------------------------- */

static void try_everything(rt_session self)
{
    rt_session nobody = {0};
    (void)self;
    EQUAL(rt_poll(st.loop, 0), RT_ESTATE);
    EQUAL(rt_run(st.loop), RT_ESTATE);
    rt_loop_free(st.loop);
    EQUAL(rt_listen(st.loop, "ws://127.0.0.1:0", &st.opts).id, 0);
    EQUAL(rt_dial(st.loop, stage_url("ws", st.port), NULL).id, 0);
    rt_timer_start(st.loop, nobody, 0, on_timer, &st.a);
    rt_post(st.loop, on_post, NULL);
    rt_group_send(st.loop, st.members, RT_TEXT, "x", 1);
    rt_watch_stop(st.loop, st.watch);
    rt_flush(st.loop);
}

/* Open, closing, dialled, lingering and not yet a session. */
static void rt_loop_free_ends_every_session(int backend)
{
    rt_session d, closing;
    peer stream;
    stage_open(backend);
    d = stage_dial("ws://elsewhere:9/", NULL);
    closing = stream_join(&stream);
    EQUAL(rt_close(st.loop, closing, 4000, ""), 0);
    st.answer = RT_DEFER;
    CHECK(peer_tcp(&st.pc, st.loop, st.port));
    peer_ask(&st.pc, "/", "");
    CHECK(peer_until(st.loop, &st.calls[REQUEST], 3));
    st.from = CLOSE;
    st.act = try_everything;
    rt_timer_start(st.loop, st.a, 0, on_timer, &st.a);
    rt_post(st.loop, on_post, NULL);
    st.acted = st.calls[CLOSE] = 0;
    peer_end(&stream);
    stage_close();
    EQUAL(st.acted, 1);
    EQUAL(seen_of(st.a)->cause, RT_BY_LOOP);
    EQUAL(seen_of(st.b)->cause, RT_BY_LOOP);
    EQUAL(seen_of(d)->cause, RT_BY_LOOP);
    EQUAL(seen_of(closing)->cause, RT_BY_APP);
    EQUAL(st.calls[TIMER], 0);
}

static void rt_loop_free_closes_every_socket(int backend)
{
    stage_open(backend);
    rt_loop_free(st.loop);
    st.loop = NULL;
    EQUAL(seen_of(st.a)->closes, 1);
    EQUAL(seen_of(st.b)->closes, 1);
    while (peer_take(&st.pa))
        ;
    CHECK(st.pa.gone);
    CHECK(!peer_tcp(&st.pc, NULL, st.port));
    stage_close();
}

/* ---- sends of one turn leave in one write ------------------------------- */

#if defined(__linux__)

/* How many packets with data came to a peer. */
static unsigned packets(const peer *p)
{
    struct tcp_info info;
    socklen_t len = sizeof info;
    memset(&info, 0, sizeof info);
    EQUAL(getsockopt(p->fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
    if (len < offsetof(struct tcp_info, tcpi_data_segs_in) + 4)
        SKIP("qemu does not count segments");
    return info.tcpi_data_segs_in;
}

static void one_packet_since(const peer *p, unsigned before)
{
    unsigned now = packets(p);
    if (!test_skip)
        EQUAL(now - before, 1);
}

static void send_much(rt_session self)
{
    int i;
    for (i = 0; i < 20; i++) {
        EQUAL(rt_send(st.loop, self, RT_TEXT, "one", 3), 0);
        EQUAL(rt_group_send(st.loop, st.members, RT_TEXT, "all", 3), 2);
        EQUAL(rt_send(st.loop, self, RT_TEXT | RT_DROPPABLE, "any", 3), 0);
    }
    EQUAL(rt_send(st.loop, st.b, RT_TEXT, "other", 5), 0);
}

static void sends_of_one_turn_leave_in_one_write(int backend)
{
    unsigned a, b;
    int i;
    stage_reset(backend);
    st.opts.soft_mark = 65536;
    stage_start();
    stage_fill();
    a = packets(&st.pa);
    b = packets(&st.pb);
    st.from = MESSAGE;
    st.act = send_much;
    provoke(MESSAGE);
    for (i = 0; i < 20; i++)
        CHECK(got_at_last(&st.pa, "all"));
    CHECK(got_at_last(&st.pa, "any"));
    CHECK(got_at_last(&st.pb, "other"));
    peer_quiet(st.loop);
    one_packet_since(&st.pa, a);
    one_packet_since(&st.pb, b);
    stage_close();
}

static void say_hello(rt_session self)
{
    EQUAL(rt_send(st.loop, self, RT_TEXT, "hello", 5), 0);
}

/* The answer to the handshake and what on_open sends. */
static void an_opening_is_one_write(int backend)
{
    stage_reset(backend);
    stage_start();
    st.from = OPEN;
    st.act = say_hello;
    CHECK(peer_ws(&st.pa, st.loop, st.port, "/"));
    CHECK(peer_got(&st.pa, RT_TEXT, "hello"));
    one_packet_since(&st.pa, 0);
    stage_close();
}

#endif

/* Not even when it finds that the line is broken. */
static void rt_flush_runs_no_callback(int backend)
{
    int before, i;
    stage_open(backend);
    peer_reset(&st.pa);
    before = upcalls;
    for (i = 0; i < 3; i++) {
        rt_send(st.loop, st.a, RT_TEXT, "x", 1);
        rt_flush(st.loop);
    }
    EQUAL(upcalls, before);
    EQUAL(rt_state(st.loop, st.a), RT_CLOSING);
    EQUAL(rt_loop_timeout(st.loop), 0);
    peer_turn(st.loop, 10000);
    EQUAL(seen_of(st.a)->closes, 1);
    EQUAL(seen_of(st.a)->cause, RT_BY_PEER);
    stage_close();
}

/* ---- handshakes --------------------------------------------------------- */

/* Only these calls work on one: rt_accept, rt_reply, rt_close, rt_context,
   rt_request_of. */
static void check_handshake(rt_session s)
{
    CHECK(rt_context(st.loop, s) == &st);
    CHECK(rt_request_of(st.loop, s) != NULL);
    EQUAL(rt_send(st.loop, s, RT_TEXT, "x", 1), RT_ESTATE);
    EQUAL(rt_send_many(st.loop, &s, 1, RT_TEXT, "x", 1), 0);
    EQUAL(rt_read(st.loop, s, 0), RT_ESTATE);
    EQUAL(rt_bind(st.loop, s, "early"), RT_ESTATE);
    EQUAL(rt_group_join(st.loop, st.members, s), RT_ESTATE);
    EQUAL(rt_group_leave(st.loop, st.members, s), RT_ESTATE);
    EQUAL(rt_timer_start(st.loop, s, 0, on_timer, &st.a).id, 0);
    EQUAL(rt_error(st.loop, NULL), RT_ESTATE);
    rt_set_user(st.loop, s, &st);
    CHECK(rt_user(st.loop, s) == NULL);
    CHECK(rt_uid(st.loop, s) == NULL);
    EQUAL(rt_unsent(st.loop, s), 0);
}

static void use_handshake(rt_session self)
{
    check_handshake(self);
    EQUAL(rt_accept(st.loop, self, NULL), 0);
    EQUAL(rt_accept(st.loop, self, NULL), RT_ESTATE);
    EQUAL(rt_reply(st.loop, self, 200, "", NULL, 0), RT_ESTATE);
}

static void a_handshake_is_no_session_yet(int backend)
{
    stage_open(backend);
    st.from = REQUEST;
    st.act = use_handshake;
    CHECK(peer_ws(&st.pc, st.loop, st.port, "/"));
    CHECK(rt_same(st.last, st.self)); /* the same handle now */
    EQUAL(rt_accept(st.loop, st.last, NULL), RT_ESTATE);
    EQUAL(rt_reply(st.loop, st.last, 200, "", NULL, 0), RT_ESTATE);
    CHECK(rt_request_of(st.loop, st.last) == NULL);
    CHECK(rt_user(st.loop, st.last) == NULL);
    check_alive(st.last, &st.pc);
    stage_close();
}

static void a_dial_is_no_open_session_yet(int backend)
{
    rt_session s;
    stage_open(backend);
    s = stage_dial("ws://elsewhere:9/", NULL);
    EQUAL(rt_state(st.loop, s), RT_OPENING);
    EQUAL(rt_send(st.loop, s, RT_TEXT, "x", 1), RT_ESTATE);
    EQUAL(rt_bind(st.loop, s, "early"), RT_ESTATE);
    EQUAL(rt_group_join(st.loop, st.members, s), RT_ESTATE);
    EQUAL(rt_accept(st.loop, s, NULL), RT_ESTATE);
    CHECK(rt_context(st.loop, s) == &st);
    rt_set_user(st.loop, s, &st.pa);
    CHECK(rt_user(st.loop, s) == &st.pa);
    stage_close();
    CHECK(seen_of(s)->user == &st.pa);
}

/* ---- deferral ----------------------------------------------------------- */

/* A request that waits for its answer; behind: bytes that follow it. */
static rt_session stage_defer(int backend, const char *behind, size_t n)
{
    stage_reset(backend);
    st.loop_opts.defer_ms = 1000;
    st.answer = RT_DEFER;
    stage_start();
    CHECK(peer_tcp(&st.pc, st.loop, st.port));
    peer_ask(&st.pc, "/", "");
    if (n)
        peer_put(&st.pc, behind, n);
    CHECK(peer_until(st.loop, &st.calls[REQUEST], 1));
    CHECK(peer_silent(&st.pc));
    EQUAL(st.calls[OPEN], 0);
    st.self = st.seen[0].s;
    return st.self;
}

static void accept_later(rt_loop *loop, void *arg)
{
    rt_accept_opts o = {.uid = "later", .headers = "X-Later: yes\r\n"};
    (void)arg;
    EQUAL(rt_accept(loop, st.self, &o), 0);
    EQUAL(rt_accept(loop, st.self, &o), RT_ESTATE);
    EQUAL(rt_send(loop, st.self, RT_TEXT, "x", 1), RT_ESTATE);
}

/* What followed the request is told when the session is open, not before. */
static void rt_accept_may_come_later(int backend)
{
    rt_session s = stage_defer(backend, three, 18);
    peer_text(&st.pc, "3");
    peer_quiet(st.loop);
    EQUAL(seen_of(s)->messages, 0);
    EQUAL(rt_post(st.loop, accept_later, NULL), 0);
    CHECK(peer_until(st.loop, &seen_of(s)->messages, 3));
    EQUAL(peer_status(&st.pc), 101);
    CHECK(strstr(st.pc.head, "\r\nX-Later: yes\r\n") != NULL);
    CHECK(strcmp(seen_of(s)->text, "one|two|3|") == 0);
    CHECK(rt_same(rt_find(st.loop, "later"), s));
    stage_close();
}

/* A turn has its events, among them this on_open, behind posts and timers. */
static void on_open_comes_in_the_turn_of_a_late_rt_accept(int backend)
{
    rt_session s = stage_defer(backend, NULL, 0), nobody = {0};
    EQUAL(rt_post(st.loop, accept_later, NULL), 0);
    peer_turn(st.loop, 1000);
    EQUAL(seen_of(s)->opens, 1);
    stage_close();
    s = stage_defer(backend, NULL, 0);
    rt_timer_start(st.loop, nobody, 0, accept_later, NULL);
    peer_turn(st.loop, 1000);
    EQUAL(seen_of(s)->opens, 1);
    stage_close();
}

/* Answered, the handle is good for nothing, and stale once the peer left. */
static void check_answered(rt_session s)
{
    EQUAL(rt_accept(st.loop, s, NULL), RT_ESTATE);
    EQUAL(rt_reply(st.loop, s, 200, "", NULL, 0), RT_ESTATE);
    peer_end(&st.pc);
    peer_quiet(st.loop);
    EQUAL(rt_accept(st.loop, s, NULL), RT_EGONE);
    EQUAL(rt_reply(st.loop, s, 200, "", NULL, 0), RT_EGONE);
    CHECK(rt_request_of(st.loop, s) == NULL);
    EQUAL(st.calls[OPEN], 0);
}

static void rt_reply_may_come_later(int backend)
{
    rt_session s = stage_defer(backend, NULL, 0);
    CHECK(rt_request_of(st.loop, s) != NULL);
    EQUAL(rt_reply(st.loop, s, 402, "text/plain", "pay", 3), 0);
    EQUAL(rt_reply(st.loop, s, 402, "text/plain", "pay", 3), RT_ESTATE);
    EQUAL(peer_status(&st.pc), 402);
    CHECK(peer_body(&st.pc, "pay"));
    CHECK(peer_ended(&st.pc));
    check_answered(s);
    stage_close();
}

/* The other calls that give an error number. */
static void a_handshake_has_no_round_trip_time(int backend)
{
    rt_session s = stage_defer(backend, NULL, 0);
    uint32_t rtt, jitter;
    EQUAL(rt_rtt(st.loop, s, &rtt, &jitter), RT_ESTATE);
    stage_close();
}

static void a_handshake_is_not_resolved(int backend)
{
    rt_session s = stage_defer(backend, NULL, 0);
    EQUAL(rt_resolved(st.loop, s, "127.0.0.1"), RT_ESTATE);
    stage_close();
}

static void a_handshake_is_not_dropped(int backend)
{
    rt_session s = stage_defer(backend, NULL, 0);
    EQUAL(rt_drop(st.loop, s, 0, NULL), RT_ESTATE);
    EQUAL(rt_accept(st.loop, s, NULL), 0);
    CHECK(peer_until(st.loop, &st.calls[OPEN], 1));
    stage_close();
}

static void a_deferred_handle_is_still_a_handshake(int backend)
{
    rt_session s = stage_defer(backend, NULL, 0);
    st.members = rt_group_open(st.loop, "members", NULL);
    check_handshake(s);
    stage_close();
}

static void a_deferral_ends_with_503(int backend)
{
    rt_session s;
    stage_reset(backend);
    st.loop_opts.defer_ms = 10;
    st.answer = RT_DEFER;
    stage_start();
    CHECK(peer_tcp(&st.pc, st.loop, st.port));
    peer_ask(&st.pc, "/", "");
    EQUAL(peer_status(&st.pc), 503);
    s = st.seen[0].s;
    CHECK(peer_ended(&st.pc));
    check_answered(s);
    stage_close();
}

static void rt_close_ends_a_deferral(int backend)
{
    rt_session s = stage_defer(backend, NULL, 0);
    EQUAL(rt_close(st.loop, s, 0, NULL), 0);
    EQUAL(rt_close(st.loop, s, 0, NULL), RT_EGONE);
    EQUAL(rt_accept(st.loop, s, NULL), RT_EGONE);
    CHECK(peer_ended(&st.pc));
    EQUAL(st.calls[OPEN], 0);
    stage_close();
}

static void a_deferral_whose_peer_is_gone_is_stale(int backend)
{
    rt_session s = stage_defer(backend, NULL, 0);
    peer_reset(&st.pc);
    peer_quiet(st.loop);
    EQUAL(rt_accept(st.loop, s, NULL), RT_EGONE);
    peer_quiet(st.loop);
    EQUAL(st.calls[OPEN], 0);
    stage_close();
}

/* Whether or not the loop has learnt of it, no session is left hanging. */
static void an_accept_of_a_peer_that_left_hangs_nowhere(int backend)
{
    rt_session s = stage_defer(backend, NULL, 0);
    peer_end(&st.pc);
    if (rt_accept(st.loop, s, NULL) == 0)
        CHECK(peer_until(st.loop, &seen_of(s)->closes, 1));
    peer_quiet(st.loop);
    EQUAL(rt_state(st.loop, s), RT_EGONE);
    EQUAL(peer_metric(st.loop, "rtnet_connections"), 0);
    stage_close();
}

static void the_oldest_deferral_gives_way(int backend)
{
    rt_session s;
    peer late;
    stage_reset(backend);
    st.opts.max_handshakes = 1;
    st.answer = RT_DEFER;
    stage_start();
    CHECK(peer_tcp(&st.pc, st.loop, st.port));
    peer_ask(&st.pc, "/", "");
    CHECK(peer_until(st.loop, &st.calls[REQUEST], 1));
    s = st.seen[0].s;
    CHECK(peer_tcp(&late, st.loop, st.port));
    CHECK(peer_ended(&st.pc));
    EQUAL(rt_accept(st.loop, s, NULL), RT_EGONE);
    peer_end(&late);
    stage_close();
}

static void rules_1_to_3(void)
{
    endings_run();
    RUN_EACH(stream_endings);
    failures_run();
    RUN_EACH(no_message_after_close_in_the_same_packet);
    RUN_EACH(no_message_after_close_in_fragments);
    RUN_EACH(no_message_after_close_in_on_open);
    RUN_EACH(no_message_after_close_of_what_was_held);
    RUN_EACH(no_message_after_close_on_a_stream);
    RUN_EACH(no_writable_comes_after_close);
    RUN_EACH(on_close_comes_without_a_wait);
    RUN_EACH(a_close_lingers_until_flushed_and_answered);
    RUN_EACH(a_close_that_is_not_read_lingers_close_ms);
    RUN_EACH(a_close_that_is_not_answered_lingers_close_ms);
    RUN_EACH(a_close_long_after_a_turn_is_flushed);
    RUN_EACH(no_call_runs_a_callback);
    RUN_EACH(rt_flush_runs_no_callback);
}

static void handles_and_turns(void)
{
    RUN_EACH(handles_of_nothing_are_stale);
    RUN_EACH(a_handle_of_another_type_is_stale);
    RUN_EACH(handles_of_another_loop_are_stale);
    RUN_EACH(old_handles_stay_stale_when_places_are_used_again);
    RUN_EACH(an_event_made_by_an_event_waits_for_the_next_turn);
    RUN_EACH(a_writable_made_by_a_writable_waits_for_the_next_turn);
    RUN_EACH(a_post_made_by_a_post_waits_for_the_next_turn);
    RUN_EACH(a_session_has_left_its_groups_in_on_close);
    RUN_EACH(a_timer_ends_with_its_owner);
#if defined(__linux__)
    RUN_EACH(sends_of_one_turn_leave_in_one_write);
    RUN_EACH(an_opening_is_one_write);
#endif
}

static void data_and_the_end(void)
{
    RUN_EACH(a_zero_stands_behind_each_message);
    RUN_EACH(a_zero_stands_behind_each_message_of_a_stream);
    RUN_EACH(a_zero_stands_behind_what_was_held);
    RUN_EACH(a_user_pointer_answers_up_to_on_close);
    RUN_EACH(rt_loop_free_ends_every_session);
    RUN_EACH(rt_loop_free_closes_every_socket);
}

static void handshakes(void)
{
    RUN_EACH(a_handshake_is_no_session_yet);
    RUN_EACH(a_handshake_has_no_round_trip_time);
    RUN_EACH(a_handshake_is_not_resolved);
    RUN_EACH(a_handshake_is_not_dropped);
    RUN_EACH(a_dial_is_no_open_session_yet);
    RUN_EACH(rt_accept_may_come_later);
    RUN_EACH(on_open_comes_in_the_turn_of_a_late_rt_accept);
    RUN_EACH(rt_reply_may_come_later);
    RUN_EACH(a_deferred_handle_is_still_a_handshake);
    RUN_EACH(a_deferral_ends_with_503);
    RUN_EACH(rt_close_ends_a_deferral);
    RUN_EACH(a_deferral_whose_peer_is_gone_is_stale);
    RUN_EACH(an_accept_of_a_peer_that_left_hangs_nowhere);
    RUN_EACH(the_oldest_deferral_gives_way);
}

int main(void)
{
    deeds_run();
    rules_1_to_3();
    handles_and_turns();
    data_and_the_end();
    handshakes();
    return test_done();
}
