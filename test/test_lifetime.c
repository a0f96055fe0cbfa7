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
#include "peer.h"

#if defined(__linux__)
#include <linux/tcp.h>
#endif

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
    FROMS
};
static const char *const from_names[FROMS] = {
    "request", "open", "message", "writable",    "close",
    "timer",   "post", "watch",   "group event", "resolve"};

/* What the callbacks of one session were told. */
typedef struct {
    rt_session s;
    int requests, opens, messages, writables, closes;
    unsigned opened_in, closed_in; /* the turn of it */
    int dialled;
    int code, cause;
    uint64_t lost;
    void *user;      /* rt_user in on_close */
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
    rt_session a, b, self, last; /* last: whose on_open came last */
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

/* ---- the handler ---------------------------------------------------------- */

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
    who->code = why->code;
    who->cause = why->cause;
    who->lost = why->lost;
    snprintf(who->reason, sizeof who->reason, "%s", why->reason);
    who->closed_in = peer_turns;
    leave(CLOSE, s);
    who->closes++;
}

static const rt_handler handler = {.request = on_request,
                                   .open = on_open,
                                   .message = on_message,
                                   .writable = on_writable,
                                   .close = on_close};

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
             what == RT_JOINED ? '+' : what == RT_LEFT ? '-' : '?');
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

/* ---- the stage --------------------------------------------------------------- */

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

/* The url of a port of this machine. */
static const char *stage_url(const char *scheme, int port)
{
    static char url[64];
    snprintf(url, sizeof url, "%s://127.0.0.1:%d", scheme, port);
    return url;
}

/* ---- deeds in every callback ---------------------------------------------------- */

/* Makes the callback happen. */
static void provoke(int from)
{
    static const char big[2000];
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
    peer_text(p, "alive?");
    CHECK(peer_until(st.loop, &seen_of(s)->messages, before + 1));
    EQUAL(rt_send(st.loop, s, RT_TEXT, "alive", 5), 0);
    CHECK(got_at_last(p, "alive"));
}

static void close_self(rt_session self)
{
    int gone = st.from == CLOSE;
    EQUAL(rt_close(st.loop, self, 4000, "done"), gone ? RT_EGONE : 0);
    EQUAL(rt_close(st.loop, self, 4001, "twice"), RT_EGONE);
    EQUAL(rt_send(st.loop, self, RT_TEXT, "late", 4), RT_EGONE);
    EQUAL(rt_state(st.loop, self),
          st.from == REQUEST ? RT_EGONE : RT_CLOSING);
}

static void closed_self(void)
{
    peer *p = peer_of_self();
    if (st.from == REQUEST) {
        CHECK(peer_ended(p));
        EQUAL(seen_of(st.self)->opens, 0);
        EQUAL(rt_context(st.loop, st.self), 0);
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
    EQUAL(rt_group_send_but(st.loop, st.members, st.b, RT_TEXT, "5", 1),
          n - 1);
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
    {"stop the timer, watch and listener", stop_everything,
     stopped_everything},
    {"turn the loop", turn_the_loop, turned_nothing},
    {"send", send_everywhere, sent_everywhere},
    {"flush", flush_now, flushed},
    {"start things", start_everything, started_everything},
    {"set users", set_users, had_users},
    {"stop reading", stop_reading, stopped_reading},
};

static void deed_run(const deed *d, int from, size_t backend)
{
    test_begin("%s in %s, %s", d->name, from_names[from],
               peer_backends[backend].name);
    stage_open(peer_backends[backend].which);
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

/* ---- rule 1: on_close once and last ------------------------------------------------ */

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
    peer_frame_put(&st.pa, 0x88, "\x0f\xa0" "enough", 8);
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
    peer_frame f;
    CHECK(peer_frame_raw(&st.pa, &f));
    EQUAL(f.op, 9);
}

static void end_by_full_queue(void)
{
    static const char much[1500];
    EQUAL(rt_send(st.loop, st.a, RT_BINARY, much, sizeof much), 1);
    EQUAL(rt_send(st.loop, st.a, RT_BINARY, much, sizeof much), RT_EFULL);
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
    {"a close without code", end_by_peers_bare_close, 1005, RT_BY_PEER, "",
     0},
    {"the line's end", end_by_fin, 1006, RT_BY_PEER, NULL, 0},
    {"a reset", end_by_reset, 1006, RT_BY_PEER, NULL, 0},
    {"an unmasked frame", end_by_unmasked_frame, 1002, RT_BY_ERROR, NULL, 0},
    {"bad text", end_by_bad_text, 1007, RT_BY_ERROR, NULL, 0},
    {"a large message", end_by_large_message, 1009, RT_BY_LIMIT, NULL, 0},
    {"a slow message", end_by_slow_message, 1008, RT_BY_TIMEOUT, NULL, 0},
    {"silence", end_by_silence, RT_CLOSE_DEAD, RT_BY_TIMEOUT, NULL, 4},
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
    st.b = stage_join(&st.pb);
    EQUAL(rt_bind(st.loop, st.a, "only"), 0);
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

/* ---- rule 1: a dialled session that never opened ---------------------------------- */

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
    int port, fd = peer_listen(&port);
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

/* ---- rule 2: rt_close ---------------------------------------------------------------- */

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

/* Bytes that were received while reading was paused. */
static void no_message_after_close_of_what_was_held(int backend)
{
    stage_open(backend);
    st.from = MESSAGE;
    st.act = stop_reading;
    st.b = st.a;
    peer_put(&st.pa, three, sizeof three - 1);
    CHECK(peer_until(st.loop, &st.acted, 1));
    EQUAL(rt_read(st.loop, st.a, 1), 0);
    EQUAL(rt_close(st.loop, st.a, 4000, ""), 0);
    peer_turn(st.loop, 1000);
    EQUAL(seen_of(st.a)->closes, 1);
    peer_quiet(st.loop);
    CHECK(strcmp(seen_of(st.a)->text, "one|") == 0);
    st.b = seen_of(st.a)->s;
    stage_close();
}

static rt_session stream_join(peer *p)
{
    rt_listener n = rt_listen(st.loop, "tcp://127.0.0.1:0", &st.opts);
    CHECK(peer_tcp(p, st.loop, rt_listener_port(st.loop, n)));
    CHECK(peer_until(st.loop, &st.calls[OPEN], 1));
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

/* ---- rule 2: the connection lingers ------------------------------------------------------ */

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
    peer_frame f;
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

/* Turns until no connection is left; how long that took. */
static uint64_t time_to_no_connection(void)
{
    uint64_t began = peer_clock(), end = began + PEER_WAIT;
    while (peer_metric(st.loop, "rtnet_connections") > 0 &&
           peer_clock() < end)
        peer_turn(st.loop, 1);
    EQUAL(peer_metric(st.loop, "rtnet_connections"), 0);
    return peer_clock() - began;
}

static void a_close_that_is_not_read_lingers_close_ms(int backend)
{
    char path[108];
    stage_slow(backend, 20, path);
    EQUAL(rt_close(st.loop, st.a, 4000, "bye"), 0);
    peer_turn(st.loop, 0);
    EQUAL(seen_of(st.a)->closes, 1);
    EQUAL(peer_metric(st.loop, "rtnet_connections"), 1);
    CHECK(time_to_no_connection() >= 10);
    CHECK(peer_ended(&st.pa));
    stage_close();
}

static void a_close_that_is_not_answered_lingers_close_ms(int backend)
{
    stage_reset(backend);
    st.opts.close_ms = 20;
    stage_start();
    st.a = stage_join(&st.pa);
    EQUAL(rt_close(st.loop, st.a, 4000, "bye"), 0);
    EQUAL(peer_closed(&st.pa), 4000);
    EQUAL(peer_metric(st.loop, "rtnet_connections"), 1);
    CHECK(time_to_no_connection() >= 10);
    CHECK(peer_ended(&st.pa));
    stage_close();
}

/* ---- rule 3: no call runs a callback -------------------------------------------------------- */

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

int main(void)
{
    deeds_run();
    endings_run();
    RUN_EACH(stream_endings);
    failures_run();
    RUN_EACH(no_message_after_close_in_the_same_packet);
    RUN_EACH(no_message_after_close_in_fragments);
    RUN_EACH(no_message_after_close_in_on_open);
    RUN_EACH(no_message_after_close_of_what_was_held);
    RUN_EACH(no_message_after_close_on_a_stream);
    RUN_EACH(on_close_comes_without_a_wait);
    RUN_EACH(a_close_lingers_until_flushed_and_answered);
    RUN_EACH(a_close_that_is_not_read_lingers_close_ms);
    RUN_EACH(a_close_that_is_not_answered_lingers_close_ms);
    RUN_EACH(no_call_runs_a_callback);
    return test_done();
}
