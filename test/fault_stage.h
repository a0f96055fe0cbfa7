/*
 * The stage of test_faults.c: a world of the simulated kernel with one loop, a
 * bystander that is served before and after and says nothing in between, and
 * peers that a scenario scripts.  Every helper copes with what an earlier
 * fault left out: no loop, no listener, no peer.
 *
 * What the callbacks are told is checked here, whatever the scenario: one
 * on_close for each on_open, and nothing after it; no callback inside another.
 * The calls with an x before their name are those of rtnet.h; if they fail for
 * want of memory, they look whether all is as it was.
 */
#ifndef FAULT_STAGE_H
#define FAULT_STAGE_H

#include "rtnet_internal.h"

#include "sim.h"
#include "test.h"

#include <errno.h>
#include <stdlib.h>

enum { PORT = 9000, BASE = 9001, FRESH = 9002, SERVER = 9100 };
enum { SEEN = 64, PEERS = 16, LINES = 8, HEARD = 4096 };

/* A session, as the callbacks tell it. */
struct seen {
    rt_session s;
    int opened, closed, dialled;
};

/* A peer without WebSocket, and what it has heard. */
struct line {
    sim_peer *p;
    char heard[HEARD];
    size_t len;
    char token[23]; /* of the last w that it heard */
};

/* What the last welcome over WebSocket said, and the last message. */
struct mail {
    char last[256];
    size_t len;
    int count, acks;
    char token[23];
};

static struct stage {
    int backend;
    rt_loop_opts loop_opts;
    rt_listen_opts o; /* of the door; the scenario's to change */
    rt_dial_opts d;
    rt_loop *loop;
    rt_listener base, door;
    int door_echoes; /* a fresh client must be served there, too */
    int drained;
    int calm; /* nothing fails: all that is scripted must come to pass */
    struct seen seen[SEEN];
    int seen_count, depth;
    ws_peer *by, *peers[PEERS];
    struct mail mail[PEERS], by_mail;
    ws_peer *talker; /* a bystander that says something in each turn; NULL */
    struct mail talk;
    int said, talker_fd;
    uint64_t talk_at, talk_every; /* ms; not before then */
    struct line lines[LINES];
    int peer_count, line_count;
    rt_session asked, last; /* of the last on_request, on_open */
    rt_session s[8];        /* all that opened at the door, in order */
    int opened, messages, writables, aways, backs, limits;
    int answer; /* of on_request */
    int silent; /* on_message does not echo */
    rt_end end;
    int presence[5]; /* of enum rt_presence */
    int hooks[8];    /* told: first, last, out, push_miss, evict, metrics */
    int ticks, events;
    void (*on_request)(rt_session s, const rt_request *r);
    void (*on_open)(rt_session s);
    void (*on_message)(rt_session s, int kind, const void *data, size_t len);
    void (*on_back)(rt_session s);
    void (*on_close)(rt_session s);
    int resume_answer;
    uint64_t lost;         /* of the last on_back */
    void (*finally)(void); /* what must be once all goes well again */
} st;

/* What a scenario is for: so it must be where nothing fails. */
#define REACHED(what)                                                          \
    do {                                                                       \
        if (st.calm && !(what))                                                \
            sim_fault("%s:%d: not so: %s", __func__, __LINE__, #what);         \
    } while (0)

/* ---- what the callbacks are told ------------------------------------------
 */

static struct seen *seen_find(rt_session s)
{
    int i;

    for (i = 0; i < st.seen_count; i++)
        if (rt_same(st.seen[i].s, s))
            return &st.seen[i];
    return NULL;
}

static struct seen *seen_add(rt_session s)
{
    struct seen *x = seen_find(s);

    if (x)
        return x;
    if (st.seen_count == SEEN)
        sim_fault("the test counts no more than %d sessions", SEEN);
    x = &st.seen[st.seen_count < SEEN ? st.seen_count++ : 0];
    memset(x, 0, sizeof *x);
    x->s = s;
    return x;
}

static void enter(void)
{
    if (st.depth++)
        sim_fault("a callback inside a callback");
}

static void leave(void)
{
    st.depth--;
}

/* Only a session that is open is told anything. */
static void enter_session(rt_session s, const char *what)
{
    struct seen *x = seen_find(s);

    enter();
    if (!x || !x->opened || x->closed)
        sim_fault("%s of a session that is not open", what);
}

static int told_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    (void)loop;
    enter();
    st.asked = s;
    if (st.on_request)
        st.on_request(s, r);
    leave();
    return st.answer;
}

static void told_open(rt_loop *loop, rt_session s)
{
    struct seen *x = seen_add(s);

    (void)loop;
    enter();
    if (x->opened++ || x->closed)
        sim_fault("on_open again");
    st.last = s;
    if (st.opened < 8)
        st.s[st.opened] = s;
    st.opened++;
    if (st.on_open)
        st.on_open(s);
    leave();
}

static void told_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    enter_session(s, "on_message");
    st.messages++;
    if (((const char *)data)[len] != 0)
        sim_fault("no 0 behind a message");
    if (st.on_message)
        st.on_message(s, kind, data, len);
    else if (!st.silent)
        rt_send(loop, s, kind, data, len);
    leave();
}

static void told_writable(rt_loop *loop, rt_session s)
{
    (void)loop;
    enter_session(s, "on_writable");
    st.writables++;
    leave();
}

static void told_away(rt_loop *loop, rt_session s)
{
    (void)loop;
    enter_session(s, "on_away");
    st.aways++;
    leave();
}

static void told_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop;
    enter_session(s, "on_back");
    st.lost = lost;
    st.backs++;
    if (st.on_back)
        st.on_back(s);
    leave();
}

static void told_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    struct seen *x = seen_find(s);

    (void)loop;
    enter();
    if (!x && st.d.resume) { /* the heir of one that its server forgot */
        x = seen_add(s);
        x->dialled = 1;
    }
    if (!x || !(x->opened || x->dialled) || x->closed++)
        sim_fault("on_close of a session that is not open");
    if (!why->reason || why->code < 1000)
        sim_fault("on_close without a code or a reason");
    st.end = *why;
    if (st.on_close)
        st.on_close(s);
    leave();
}

static void told_limit(rt_loop *loop, rt_session s, int what)
{
    (void)loop;
    enter_session(s, "on_limit");
    st.limits += what > 0;
    leave();
}

static int told_resume(rt_loop *loop, rt_session s, rt_session fresh)
{
    (void)loop;
    (void)fresh;
    enter_session(s, "resume");
    leave();
    return st.resume_answer;
}

static rt_handler handler(void)
{
    rt_handler h = {told_request,  told_open,  told_message,
                    told_writable, told_away,  told_back,
                    told_close,    told_limit, told_resume};

    return h;
}

/* ---- the bystander's own handler: an echo ----------------------------------
 */

static void base_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    enter_session(s, "on_message");
    rt_send(loop, s, kind, data, len);
    leave();
}

static void base_open(rt_loop *loop, rt_session s)
{
    rt__session *of = rt__slot_get(loop, s.id, RT__SESSION);

    enter();
    seen_add(s)->opened++;
    st.talker_fd = st.talker_fd ? st.talker_fd : of->conn->source.fd;
    leave();
}

/* ---- peers ------------------------------------------------------------------
 */

static void mail_came(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    struct mail *m = w->user;
    size_t n = len < sizeof m->last ? len : sizeof m->last - 1;

    if (op != WS_TEXT && op != WS_BINARY)
        return;
    memcpy(m->last, data, n);
    m->last[n] = 0;
    m->len = len;
    m->count++;
    if (m->last[0] == 'w' && strlen(m->last) > 23)
        snprintf(m->token, sizeof m->token, "%.22s", m->last + 1);
}

/* A place for one more peer; NULL: there is no line. */
static ws_peer *peer_add(ws_peer *w)
{
    if (!w)
        return NULL;
    if (st.peer_count == PEERS) {
        sim_fault("the test has no more than %d peers", PEERS);
        ws_free(w);
        return NULL;
    }
    w->on = mail_came;
    w->user = &st.mail[st.peer_count];
    st.peers[st.peer_count++] = w;
    return w;
}

static struct mail *mail_of(ws_peer *w)
{
    static struct mail none;

    return w ? w->user : &none;
}

/* One that has connected and said nothing yet. */
static ws_peer *silent(void)
{
    return peer_add(ws_connect_silent(PORT));
}

/* One that asks for path; with more header lines, if not NULL. */
static ws_peer *client_with(const char *path, const char *more)
{
    const char *request = ws_request(path);
    ws_peer *w = silent();

    if (!w)
        return NULL;
    ws_raw(w, request, strlen(request) - 2);
    if (more)
        ws_raw(w, more, strlen(more));
    ws_raw(w, "\r\n", 2);
    return w;
}

static ws_peer *client(void)
{
    return client_with("/", NULL);
}

static void say(ws_peer *w, const char *text)
{
    if (w && w->line)
        ws_send(w, WS_TEXT, text, strlen(text));
}

static void says(ws_peer *w, int op, size_t len)
{
    char *data = calloc(1, len + 1);

    memset(data, 'x', len);
    if (w && w->line)
        ws_send(w, op, data, len);
    free(data);
}

static void raw(ws_peer *w, const char *text)
{
    if (w && w->line)
        ws_raw(w, text, strlen(text));
}

/* Its line breaks. */
static void reset(ws_peer *w)
{
    if (w && w->line)
        sim_peer_reset(w->line);
}

/* ---- peers without WebSocket --------------------------------------------- */

static struct line *line_add(sim_peer *p)
{
    struct line *l = &st.lines[st.line_count];

    if (!p)
        return NULL;
    if (st.line_count + 1 == LINES)
        sim_fault("the test has no more than %d lines", LINES);
    else
        st.line_count++;
    l->p = p;
    return l;
}

static struct line *line_open(void)
{
    return line_add(sim_connect(PORT));
}

static void line_raw(struct line *l, const void *data, size_t len)
{
    if (l && l->p)
        sim_peer_send(l->p, data, len);
}

/* One message behind its length. */
static void line_say(struct line *l, const char *text)
{
    uint8_t head[4] = {0, 0, 0, (uint8_t)strlen(text)};

    line_raw(l, head, 4);
    line_raw(l, text, strlen(text));
}

static void line_token(struct line *l)
{
    size_t i;

    for (i = 4; i + 23 < l->len; i++)
        if (l->heard[i] == 'w' && l->heard[i - 4] == 0 &&
            l->heard[i + 23] == ' ')
            snprintf(l->token, sizeof l->token, "%.22s", l->heard + i + 1);
}

static void line_pump(struct line *l)
{
    if (!l->p)
        return;
    if (l->len == HEARD)
        l->len = 0;
    l->len += sim_peer_recv(l->p, l->heard + l->len, HEARD - l->len);
    line_token(l);
    if (sim_peer_state(l->p) == SIM_UP || sim_peer_waiting(l->p))
        return;
    sim_peer_close(l->p);
    l->p = NULL;
}

static void line_reset(struct line *l)
{
    if (l && l->p)
        sim_peer_reset(l->p);
}

/* ---- turns --------------------------------------------------------------- */

/* It waits for no answer, but for room. */
static void talk(ws_peer *w)
{
    if (w->open && w->line && !w->out.len && sim_now() >= st.talk_at) {
        ws_send(w, WS_TEXT, "and so on", 9);
        st.said++;
        st.talk_at = sim_now() + st.talk_every;
    }
    ws_pump(w);
}

static void pump(void)
{
    int i;

    if (st.talker)
        talk(st.talker);

    for (i = 0; i < st.peer_count; i++)
        ws_pump(st.peers[i]);
    for (i = 0; i < st.line_count; i++)
        line_pump(&st.lines[i]);
    if (st.by)
        ws_pump(st.by);
}

/* A wait that was interrupted or failed is no reason to stop. */
static void turn(int ms)
{
    pump();
    if (st.loop)
        rt_poll(st.loop, ms);
    else
        sim_pass(1);
    pump();
}

static void turns(int n)
{
    while (n-- > 0)
        turn(1);
}

/* Lets time pass, however often the wait ends early. */
static void pass(uint64_t ms)
{
    uint64_t end = sim_now() + ms;
    int n;

    st.talk_every = ms / 20;
    for (n = 0; sim_now() < end && n < 2000; n++)
        turn((int)(end - sim_now()));
    st.talk_every = 1;
    if (sim_now() < end)
        sim_fault("time does not pass: the loop does not wait");
}

/* ---- calls that must change nothing when there is no memory -------------- */

struct counts {
    uint32_t in_use[RT__WATCH + 1], conns, sessions, routes;
    uint64_t seats;
};

static struct counts counted(void)
{
    struct counts c;
    rt_loop *l = st.loop;

    memset(&c, 0, sizeof c);
    memcpy(c.in_use, l->in_use, sizeof c.in_use);
    c.conns = l->conn_count;
    c.sessions = l->session_count;
    c.routes = (uint32_t)l->routes.count;
    c.seats = l->seats;
    return c;
}

static void same_counts(const struct counts *before, const char *call)
{
    struct counts after = counted();

    if (memcmp(before, &after, sizeof after) != 0)
        sim_fault("%s failed and had an effect", call);
}

/* Why a call that returns a handle gave none. */
static int handle_error(uint64_t id)
{
    const char *text = NULL;
    int error = rt_error(st.loop, &text);

    if (!id && (error >= 0 || !text || !*text))
        sim_fault("no handle, and no reason");
    return id ? 0 : error;
}

/* The same connection, queue and state: what a session shows. */
struct face {
    int state;
    uint64_t unsent;
    const char *uid;
};

static struct face face_of(rt_session s)
{
    struct face f;

    memset(&f, 0, sizeof f);
    f.state = rt_state(st.loop, s);
    f.unsent = rt_unsent(st.loop, s);
    f.uid = rt_uid(st.loop, s);
    return f;
}

#define UNCHANGED(call, s)                                                     \
    do {                                                                       \
        struct counts counts_before = counted();                               \
        struct face face_before = face_of(s), face_after;                      \
        got = (call);                                                          \
        face_after = face_of(s);                                               \
        if (got != RT_ENOMEM)                                                  \
            break;                                                             \
        same_counts(&counts_before, #call);                                    \
        if (memcmp(&face_before, &face_after, sizeof face_after) != 0)         \
            sim_fault("%s failed and changed the session", #call);             \
    } while (0)

static int xsend(rt_session s, int kind, const void *data, size_t len)
{
    int got;

    if (!st.loop)
        return RT_EGONE;
    UNCHANGED(rt_send(st.loop, s, kind, data, len), s);
    return got;
}

static int xtext(rt_session s, const char *text)
{
    return xsend(s, RT_TEXT, text, strlen(text));
}

static int xbind(rt_session s, const char *uid)
{
    int got;

    UNCHANGED(rt_bind(st.loop, s, uid), s);
    return got;
}

static int xclose(rt_session s, int code, const char *reason)
{
    int got;

    UNCHANGED(rt_close(st.loop, s, code, reason), s);
    return got;
}

static int xdrop(rt_session s, int code, const char *reason)
{
    int got;

    UNCHANGED(rt_drop(st.loop, s, code, reason), s);
    return got;
}

static int xkeep(rt_session s, int ms, char token[23])
{
    int got;

    UNCHANGED(rt_keep(st.loop, s, ms, token), s);
    return got;
}

static int xadopt(rt_session old, rt_session fresh, uint64_t has)
{
    struct face before = face_of(fresh), after;
    int got;

    UNCHANGED(rt_adopt(st.loop, old, fresh, has), old);
    after = face_of(fresh);
    if (got == RT_ENOMEM && memcmp(&before, &after, sizeof after) != 0)
        sim_fault("rt_adopt failed and changed the fresh session");
    return got;
}

static int xaccept(rt_session s, const rt_accept_opts *o)
{
    struct counts before = counted();
    int got = rt_accept(st.loop, s, o);

    if (got == RT_ENOMEM)
        same_counts(&before, "rt_accept");
    if (got == RT_ENOMEM && !rt_request_of(st.loop, s))
        sim_fault("rt_accept failed and the request is gone");
    return got;
}

/* Without memory it ends the connection, and there is nothing to ask. */
static int xreply(rt_session s, int status, const char *body)
{
    int got = rt_reply(st.loop, s, status, "text/plain", body, strlen(body));

    if (got == RT_ENOMEM && rt_reply(st.loop, s, status, NULL, NULL, 0) >= 0)
        sim_fault("rt_reply failed and the connection lives");
    return got;
}

static rt_group xgroup(const char *name, const rt_group_opts *o)
{
    struct counts before = counted();
    rt_group g = rt_group_open(st.loop, name, o);

    if (handle_error(g.id) < 0)
        same_counts(&before, "rt_group_open");
    return g;
}

/* A join that has begun to send ends the session when it cannot go on. */
static void join_failed(rt_group g, rt_session s, size_t n,
                        const struct face *before)
{
    struct face after = face_of(s);

    if (after.state == RT_EGONE || after.state == RT_CLOSING)
        return;
    if (rt_group_count(st.loop, g) != n)
        sim_fault("a join failed, and there are more members");
    if (memcmp(before, &after, sizeof after) != 0)
        sim_fault("a join failed and changed the session");
}

static int xjoin_from(rt_group g, rt_session s, const rt_position *since)
{
    size_t n = rt_group_count(st.loop, g);
    struct face before = face_of(s);
    int got = rt_group_join_from(st.loop, g, s, since);

    if (got == RT_ENOMEM)
        join_failed(g, s, n, &before);
    return got;
}

static int xjoin(rt_group g, rt_session s)
{
    size_t n = rt_group_count(st.loop, g);
    struct face before = face_of(s);
    int got = rt_group_join(st.loop, g, s);

    if (got == RT_ENOMEM)
        join_failed(g, s, n, &before);
    return got;
}

static int xleave(rt_group g, rt_session s)
{
    size_t n = rt_group_count(st.loop, g);
    int got;

    UNCHANGED(rt_group_leave(st.loop, g, s), s);
    if (got == RT_ENOMEM && rt_group_count(st.loop, g) != n)
        sim_fault("rt_group_leave failed, and there are fewer members");
    return got;
}

static int xgroup_send(rt_group g, int kind, const char *text)
{
    rt_position p = rt_group_position(st.loop, g), q;
    struct counts before = counted();
    int got = rt_group_send(st.loop, g, kind, text, strlen(text));

    q = rt_group_position(st.loop, g);
    if (got != RT_ENOMEM)
        return got;
    same_counts(&before, "rt_group_send");
    if (p.offset != q.offset || p.epoch != q.epoch)
        sim_fault("rt_group_send failed and moved the position");
    return got;
}

static rt_session xdial(const char *url)
{
    struct counts before = counted();
    rt_session s = rt_dial(st.loop, url, &st.d);

    if (handle_error(s.id) < 0)
        same_counts(&before, "rt_dial");
    else
        seen_add(s)->dialled = 1;
    return s;
}

static rt_listener xlisten(const char *url, const rt_listen_opts *o)
{
    struct counts before = counted();
    rt_listener l = rt_listen(st.loop, url, o);

    if (handle_error(l.id) < 0)
        same_counts(&before, "rt_listen");
    return l;
}

static rt_timer xtimer(rt_session owner, int ms, void (*fn)(rt_loop *, void *),
                       void *arg)
{
    struct counts before = counted();
    rt_timer t =
        rt_timer_start(st.loop, owner, rt_now(st.loop) + (uint64_t)ms, fn, arg);

    if (handle_error(t.id) < 0)
        same_counts(&before, "rt_timer_start");
    return t;
}

static rt_watch xwatch(int fd, int events,
                       void (*fn)(rt_loop *, rt_watch, int, void *), void *arg)
{
    struct counts before = counted();
    rt_watch w = rt_watch_start(st.loop, fd, events, fn, arg);

    if (handle_error(w.id) < 0)
        same_counts(&before, "rt_watch_start");
    return w;
}

static int xobserve(const char *route, uint64_t us)
{
    struct counts before = counted();
    int got = rt_observe(st.loop, route, us);

    if (got == RT_ENOMEM)
        same_counts(&before, "rt_observe");
    return got;
}

/* ---- doors --------------------------------------------------------------- */

/* The scenario's listener, with st.o; ws on PORT unless url says other. */
static int door(const char *url)
{
    st.door = xlisten(url, &st.o);
    return st.door.id != 0;
}

static int ws_door(void)
{
    st.door_echoes = 1;
    return door("ws://127.0.0.1:9000");
}

static int tcp_door(void)
{
    return door("tcp://127.0.0.1:9000");
}

/* A client that is open, after some turns; perhaps it is not. */
static ws_peer *entered(void)
{
    ws_peer *w = client();

    turns(3);
    return w;
}

#endif
