/*
 * Sessions: what the application holds, the one gate through which the library
 * calls it, and the protocol rtnet.1 by which a session outlives its socket.
 *
 * States: opening (dialled, not yet connected) -> open -> closing, and, where
 * a session can resume, open <-> away.  A session that ends leaves its groups,
 * its user id and its timers at once and its token is void, its connection
 * lingers without it, on_close comes in the closing phase of the turn, then
 * the handle is stale and the memory goes with the turn.
 *
 * rtnet.1, what a server does (c: a connection without a session yet):
 *
 *   event            c greeting     open              away          closing
 *   h, no/old token  a new session  violation         -             -
 *   h naming it      -              takes over        comes back    void: new
 *   first not `a`    -              violation         -             ignored
 *   m                1002           counted, told     -             ignored
 *   u                1002           told              -             ignored
 *   a n              1002           frees 1..n        -             ignored
 *   line lost        gone           away (or closed)  -             closed
 *   peer closes 1000 gone           closed            -             closed
 *   peer closes else gone           away              -             closed
 *   rt_send          RT_ESTATE      numbered, queued  numbered,kept RT_EGONE
 *   no room          -              away (4001), kept forgets first -
 *   droppable        RT_ESTATE      waits, skipped    skipped       RT_EGONE
 *   keyed            RT_ESTATE      waits, replaces   held          RT_EGONE
 *   rt_close, kick   gone           closing           closing       RT_EGONE
 *   window over      -              -                 closed (4503) -
 *
 * Numbers: `n` was given to the last message out; the peer has acknowledged
 * `acked`; the ring keeps the last `count` of them, so `n - count` is the first
 * that could not be sent again.  What of the ring this connection has begun to
 * write is known from its queue, not counted.
 *
 * Pointers: s->conn and c->session are set together and cut together, so that
 * the late teardown of an old connection never reaches the session that has a
 * new one.  rt__keep_of(s) is there from rt__keep_open until the session is
 * freed; rt__keep_of(s)->flow comes with the first thing under way and goes
 * when all is known to have arrived, so that an idle session costs neither ring
 * nor timer.  A piece in the ring, in the queue or among the held values has a
 * reference of its own to its buffer.
 *
 * Every upcall is a rt__tell_ function below; its answer says whether the
 * session may still be told of what follows.  One that was told of is freed by
 * the last phase of a turn alone, so a pointer to it is good until then,
 * whatever a callback did: only its state and conn are asked again.
 */
#include "rtnet_internal.h"

#include <stdio.h>

enum { RESUMES = 20, RESUMES_MS = 10000 }; /* of one session, at most */

/* The greatest number of rtnet.1: what a JavaScript number holds exactly. */
#define RT__NUMBER_MOST ((uint64_t)9007199254740991)

static uint64_t keep_unacked(const rt__session *s);
static void keep_void(rt_loop *loop, rt__session *s);
static void keep_events(rt_loop *loop, rt__session *s, int todo);
static void heir_opens(rt_loop *loop, rt__session *s);
static void away_unlist(rt_loop *loop, rt__flow *f);
static void unbind(rt_loop *loop, rt__session *s);
static void session_unheld(rt_loop *loop, rt__session *s);

/* ---- the gate ----------------------------------------------------------- */

int rt__tell_request(rt_loop *loop, rt__conn *c, rt_session handle,
                     const rt_request *request)
{
    return c->ep->on.request(loop, handle, request);
}

static rt__limits *limits_of(const rt__session *s)
{
    if (s->has == RT__HAS_LIMITS)
        return s->is.limits;
    return s->has == RT__HAS_MORE ? s->is.more->limits : NULL;
}

static rt__user *bound_of(const rt__session *s)
{
    return rt__more_of(s) ? s->is.more->bound : NULL;
}

static const char *uid_of(const rt__session *s)
{
    return rt__more_of(s) ? s->is.more->uid : NULL;
}

/* How long it may be away: as the host said, or else its listener. */
static uint64_t window_of(const rt__session *s)
{
    uint64_t own = rt__more_of(s) ? s->is.more->window_ms : 0;
    return own ? own : rt__ep_of(s)->resume_ms;
}

/* Open, with or without a connection just now. */
static int alive(const rt__session *s)
{
    return s->state == RT_OPEN || s->state == RT_AWAY;
}

/* Its connection, if that carries messages now; a client that is away may have
   one that is still connecting. */
static rt__conn *online(const rt__session *s)
{
    return s->conn && s->conn->state == RT__LIVE ? s->conn : NULL;
}

static rt_session handle_of(const rt__session *s)
{
    rt_session handle;
    handle.id = s->id;
    return handle;
}

/* The time to bind a user id is over. */
static void unbound_over(rt_loop *loop, void *arg)
{
    rt__session_end(loop, (rt__session *)arg, 1008, RT_BY_TIMEOUT,
                    "no user id in time");
}

int rt__tell_open(rt_loop *loop, rt__session *s)
{
    s->state = RT_OPEN;
    if (rt__ep_of(s)->on.open)
        rt__ep_of(s)->on.open(loop, handle_of(s));
    if (rt__ep_of(s)->bind_ms && !bound_of(s) && alive(s) &&
        !rt_timer_start(loop, handle_of(s),
                        rt_now(loop) + rt__ep_of(s)->bind_ms, unbound_over, s)
             .id)
        rt__session_end(loop, s, 1011, RT_BY_ERROR, "out of memory");
    return alive(s);
}

/* ---- limits of what a session sends -------------------------------------- */

/* The state is the session's, not the connection's: reconnecting refills
   nothing.  They hold before any user id is bound, and a message that a limit
   drops was still received: with rtnet.1 it is counted and acknowledged, else
   the peer would send it again after each resume. */

/* Room for one more in the window, which grows to as many slots as messages
   come in an interval, at most rate_limit: thousands of quiet sessions do not
   pay for the slots of a loud one.  While it is smaller than the limit it grows
   instead of refusing. */
static int window_room(rt_loop *loop, rt__limits *l, const rt__ep *ep)
{
    uint32_t slots = l->slots ? l->slots : 4;
    rt__window *w;
    if (l->slots == ep->rate_limit ||
        (l->slots &&
         rt__window_wait(l->window, l->slots, ep->rate_ms, loop->now) == 0))
        return 0;
    slots = slots < ep->rate_limit / 2 ? slots * 2 : ep->rate_limit;
    w = (rt__window *)rt__alloc(loop, rt__window_size(slots));
    if (!w)
        return RT_ENOMEM;
    if (l->slots)
        rt__window_move(w, l->window, l->slots);
    rt__free(loop, l->window, l->slots ? rt__window_size(l->slots) : 0);
    l->window = w;
    l->slots = slots;
    return 0;
}

static rt__limits *limits_new(rt_loop *loop, rt__session *s)
{
    rt__limits *l = (rt__limits *)rt__alloc(loop, sizeof *l);
    if (!l)
        return NULL;
    if (s->has == RT__HAS_MORE) {
        s->is.more->limits = l;
        return l;
    }
    l->keep = s->is.keep;
    s->is.limits = l;
    s->has = RT__HAS_LIMITS;
    return l;
}

static int limits_open(rt_loop *loop, rt__session *s)
{
    rt__limits *l = limits_of(s);
    if (!l)
        l = limits_new(loop, s);
    return l ? window_room(loop, l, rt__ep_of(s)) : RT_ENOMEM;
}

static void limits_free(rt_loop *loop, rt__limits *l)
{
    if (!l)
        return;
    if (l->slots)
        rt__free(loop, l->window, rt__window_size(l->slots));
    rt__buf_release(loop, l->late);
    rt__free(loop, l, sizeof *l);
}

/* Milliseconds until a message of len bytes may pass that one limit. */
static uint64_t limit_wait(const rt__limits *l, const rt__ep *ep, int which,
                           size_t len, uint64_t now)
{
    if (which == RT_LIMIT_MESSAGES)
        return ep->message_rate
                   ? rt__bucket_wait(&l->messages, ep->message_rate,
                                     ep->message_burst, 1, now)
                   : 0;
    if (which == RT_LIMIT_BYTES)
        return ep->byte_rate ? rt__bucket_wait(&l->bytes, ep->byte_rate,
                                               ep->byte_burst, len, now)
                             : 0;
    return l->slots && l->slots == ep->rate_limit
               ? rt__window_wait(l->window, l->slots, ep->rate_ms, now)
               : 0;
}

static uint64_t limit_cost(int which, size_t len)
{
    return which == RT_LIMIT_BYTES ? len : 1;
}

/* How long until it may pass all of them; *what: the first that refuses. */
static uint64_t limits_wait(const rt__limits *l, const rt__ep *ep, size_t len,
                            uint64_t now, int *what)
{
    uint64_t wait, latest = 0;
    int which;
    for (which = RT_LIMIT_RATE; which <= RT_LIMIT_BYTES; which++) {
        wait = limit_wait(l, ep, which, len, now);
        if (wait == 0 || l->credit[which - 1] >= limit_cost(which, len))
            continue;
        if (latest == 0)
            *what = which;
        if (wait > latest)
            latest = wait;
    }
    return latest;
}

/* It passes.  Where it would not have, it was kept while the line was lost. */
static void limits_take(rt__limits *l, const rt__ep *ep, size_t len,
                        uint64_t now)
{
    int which;
    for (which = RT_LIMIT_RATE; which <= RT_LIMIT_BYTES; which++) {
        /* limits_wait said that the credit suffices. */
        if (limit_wait(l, ep, which, len, now) > 0)
            l->credit[which - 1] -= (uint32_t)limit_cost(which, len);
        else if (which == RT_LIMIT_RATE && ep->rate_limit)
            rt__window_take(l->window, l->slots, now);
        else if (which == RT_LIMIT_MESSAGES && ep->message_rate)
            rt__bucket_take(&l->messages, ep->message_rate, 1, now);
        else if (which == RT_LIMIT_BYTES && ep->byte_rate)
            rt__bucket_take(&l->bytes, ep->byte_rate, len, now);
    }
}

/* Until what comes next may pass: the message that waits, or any of at least a
   byte.  Only that one's size is known. */
static uint64_t next_wait(rt_loop *loop, const rt__session *s)
{
    const rt__limits *l = limits_of(s);
    int what;
    return l ? limits_wait(l, rt__ep_of(s), l->late ? l->late->len : 1,
                           rt_now(loop), &what)
             : 0;
}

/* Reads nothing more until the limits allow it. */
void rt__session_pause(rt_loop *loop, rt__session *s)
{
    rt__conn *c = online(s);
    uint64_t wait;
    if (!c || !limits_of(s) ||
        (rt__ep_of(s)->rate_over != RT_OVER_PAUSE && !limits_of(s)->late))
        return;
    wait = next_wait(loop, s);
    /* A message that waits is only looked at from the loop, so even one that
       may pass by now keeps the hold until the timer has run. */
    if (wait == 0 && !limits_of(s)->late)
        return;
    c->hold |= RT__HOLD_RATE;
    rt__conn_due(loop, c, rt_now(loop) + wait);
    rt__conn_interest(loop, c);
}

/* A pause of ours is over: the peer's silence in it, and the time that its
   message took, are not held against it. */
static void pause_over(rt_loop *loop, rt__conn *c)
{
    if (c->in && c->in->since)
        c->in->since = rt_now(loop);
    rt__conn_lives(loop, c);
}

/* Is the pause of the limits over?  < 0: the connection is. */
int rt__session_released(rt_loop *loop, rt__session *s)
{
    rt__conn *c = s->conn;
    if (next_wait(loop, s) > 0)
        return 0;
    c->hold &= (uint8_t)~RT__HOLD_RATE;
    pause_over(loop, c);
    rt__conn_interest(loop, c);
    /* Asking for events may fail, and that loses the connection. */
    if (s->conn != c)
        return RT_EGONE;
    session_unheld(loop, s);
    return s->conn == c ? 0 : RT_EGONE;
}

/* What was read and not looked at is looked at in the next turn. */
static void session_unheld(rt_loop *loop, rt__session *s)
{
    if ((limits_of(s) && limits_of(s)->late) ||
        (s->conn->in && s->conn->in->kept) || rt__tls_ended(s->conn))
        rt__conn_wake(loop, s->conn);
}

/* It cannot be unread, so it waits apart; reading pauses behind it. */
static void late_keep(rt_loop *loop, rt__session *s, int kind,
                      const uint8_t *data, size_t len)
{
    limits_of(s)->late = rt__buf_copy(loop, data, len);
    if (!limits_of(s)->late) {
        rt__session_end(loop, s, 1011, RT_BY_ERROR, "out of memory");
        return;
    }
    limits_of(s)->late_kind = kind;
    rt__session_pause(loop, s);
}

/* Above a limit: what the options say is done. */
static void limits_over(rt_loop *loop, rt__session *s, int what,
                        const rt_message *m)
{
    loop->stats.limited_by[what - 1] +=
        rt__ep_of(s)->rate_over != RT_OVER_PAUSE;
    switch ((enum rt_over)rt__ep_of(s)->rate_over) {
    case RT_OVER_CLOSE:
        rt__conn_violation(loop, s->conn, 1008, RT_BY_LIMIT,
                           what == RT_LIMIT_BYTES ? "too much" : "too many");
        return;
    case RT_OVER_DROP:
        if (rt__ep_of(s)->on.limit)
            rt__ep_of(s)->on.limit(loop, handle_of(s), what);
        return;
    case RT_OVER_PAUSE:
        late_keep(loop, s, m->kind, m->data, m->len);
        return;
    }
}

/* May the message pass?  Then it is counted. */
static int limits_admit(rt_loop *loop, rt__session *s, const rt_message *m)
{
    int what = 0;
    if (limits_open(loop, s) < 0) {
        rt__session_end(loop, s, 1011, RT_BY_ERROR, "out of memory");
        return 0;
    }
    if (limits_wait(limits_of(s), rt__ep_of(s), m->len, loop->now, &what) > 0) {
        limits_over(loop, s, what, m);
        return 0;
    }
    limits_take(limits_of(s), rt__ep_of(s), m->len, loop->now);
    rt__session_pause(loop, s);
    return 1;
}

static uint32_t credit_sum(uint32_t had, uint64_t more, uint32_t most)
{
    return more < most - had ? had + (uint32_t)more : most;
}

/* What was sent while away comes all at once: so much of it as the rate would
   have let pass in that time is not held against the peer, up to what a replay
   brings. */
static void credit_give(rt_loop *loop, rt__session *s)
{
    uint64_t then, now = loop->now;
    const rt__ep *ep = rt__ep_of(s);
    rt__limits *l;
    if (!ep->limited || s->state != RT_AWAY || limits_open(loop, s) < 0)
        return;
    l = limits_of(s);
    /* The window's timer was set when the line was lost; it must not have been
       cleared before. */
    then = rt__timer_due(loop, &rt__keep_of(s)->flow->timer) - window_of(s);
    l->credit[0] =
        credit_sum(l->credit[0],
                   rt__window_credit(l->window, l->slots, ep->rate_limit,
                                     ep->rate_ms, then, now),
                   RT__RING_COUNT);
    l->credit[1] =
        credit_sum(l->credit[1],
                   rt__bucket_credit(&l->messages, ep->message_rate, then, now),
                   RT__RING_COUNT);
    l->credit[2] = credit_sum(
        l->credit[2], rt__bucket_credit(&l->bytes, ep->byte_rate, then, now),
        RT__RING_BYTES);
}

/* ---- messages: limits, filters, on_message ------------------------------- */

/* Here a message is the application's: after each of its functions the session
   is asked again, because that may have closed it. */

/* The byte behind a message, which is lent to it as a NUL. */
typedef struct {
    uint8_t *at, was;
} lent;

/* The byte may be the next frame's first one in the same receive buffer, which
   is why it is put back before anything more is decoded. */
static lent lend(uint8_t *at)
{
    lent l;
    l.at = at;
    l.was = *at;
    *at = 0;
    return l;
}

/* Is what a filter left a message?  One that still begins where it came in must
   also end there. */
static int message_fits(const rt_message *m, const rt_message *came)
{
    uintptr_t at = (uintptr_t)m->data, first = (uintptr_t)came->data;
    if (!m->data)
        return 0;
    return at < first || at > first + came->len ||
           m->len <= came->len - (at - first);
}

/* The byte goes back, unless the message, where that may grow, covers it. */
static void filter_done(const rt_message *m, const rt_message *came, lent nul)
{
    if (message_fits(m, came) &&
        (uintptr_t)nul.at - (uintptr_t)m->data < m->len)
        return;
    *nul.at = nul.was;
}

/* A filter stopped the message: 1, or the code to close with. */
static void filter_stops(rt_loop *loop, rt__session *s, int answer)
{
    if (answer == 1)
        return;
    if (answer >= 1000 && answer <= 4999 && rt__close_code_valid(answer))
        rt__session_end(loop, s, answer, RT_BY_APP, "");
    else
        rt__session_end(loop, s, 1011, RT_BY_ERROR, "impossible filter");
}

/* Goes through the chain; 0: the message goes no further. */
static int filters_pass(rt_loop *loop, rt__session *s, rt_message *m)
{
    const rt_message came = *m;
    const rt_filter *f = rt__ep_of(s)->filter, *end = f + 8;
    for (; f < end && *f; f++) {
        lent nul = lend(m->data + m->len);
        int answer = (*f)(loop, handle_of(s), m);
        filter_done(m, &came, nul);
        if (!alive(s))
            return 0;
        if (answer == 0 && message_fits(m, &came))
            continue;
        filter_stops(loop, s, answer ? answer : -1);
        return 0;
    }
    return 1;
}

/* What a filter sends is copied: this one or the next may yet write to it. */
static int filters_pass_unlent(rt_loop *loop, rt__session *s, rt_message *m)
{
    const rt__lent held = loop->lent;
    int pass;
    rt__lend_over(loop);
    pass = filters_pass(loop, s, m);
    loop->lent = held;
    return pass;
}

static void message_pass(rt_loop *loop, rt__session *s, rt_message *m)
{
    lent nul;
    if (rt__ep_of(s)->limited && (!limits_admit(loop, s, m) || !alive(s)))
        return;
    if (rt__ep_of(s)->filter[0] && !filters_pass_unlent(loop, s, m))
        return;
    if (!rt__ep_of(s)->on.message)
        return;
    nul = lend(m->data + m->len);
    rt__ep_of(s)->on.message(loop, handle_of(s), m->kind, m->data, m->len);
    *nul.at = nul.was;
}

/* One whole message.  The byte behind it must be writable. */
int rt__tell_message(rt_loop *loop, rt__session *s, int kind, uint8_t *data,
                     size_t len)
{
    rt_message m;
    if (s->state != RT_OPEN)
        return 0;
    loop->stats.messages_in++;
    rt__conn_lives(loop, s->conn);
    m.kind = kind;
    m.data = data;
    m.len = len;
    message_pass(loop, s, &m);
    return alive(s);
}

/* The message that waited, if there is one: its pause is over.  On a connection
   that has just come back, first comes the `a`, then the rest of the pause. */
void rt__session_late(rt_loop *loop, rt__session *s)
{
    rt__buf *b = limits_of(s) ? limits_of(s)->late : NULL;
    rt_message m;
    if (!b || s->state != RT_OPEN || (s->conn->typed && !s->conn->confirmed))
        return;
    /* Detached before it is told: it may be refused once more and then waits in
       a buffer anew. */
    limits_of(s)->late = NULL;
    m.kind = limits_of(s)->late_kind;
    m.data = rt__buf_data(b);
    m.len = b->len;
    message_pass(loop, s, &m);
    rt__buf_release(loop, b);
}

static void tell_writable(rt_loop *loop, rt__session *s)
{
    if (rt__ep_of(s)->on.writable)
        rt__ep_of(s)->on.writable(loop, handle_of(s));
}

static void tell_away(rt_loop *loop, rt__session *s)
{
    if (rt__ep_of(s)->on.away)
        rt__ep_of(s)->on.away(loop, handle_of(s));
}

static void tell_back(rt_loop *loop, rt__session *s, uint64_t lost)
{
    if (rt__ep_of(s)->on.back)
        rt__ep_of(s)->on.back(loop, handle_of(s), lost);
}

/* May fresh resume the session?  Afterwards it may be closing. */
static int tell_resume(rt_loop *loop, rt__session *s, uint64_t fresh)
{
    rt_session handle;
    handle.id = fresh;
    return rt__ep_of(s)->on.resume
               ? rt__ep_of(s)->on.resume(loop, handle_of(s), handle)
               : 0;
}

static void tell_close(rt_loop *loop, rt__session *s)
{
    rt_end end;
    end.code = s->code;
    end.cause = s->cause;
    end.reason = rt__more_of(s) && s->is.more->reason ? s->is.more->reason : "";
    end.lost = rt__keep_of(s) ? keep_unacked(s) : s->of.lost;
    if (rt__ep_of(s)->on.close)
        rt__ep_of(s)->on.close(loop, handle_of(s), &end);
}

static void tell_resolve(rt_loop *loop, rt__session *s)
{
    if (!s->conn || s->conn->state != RT__RESOLVING)
        return;
    if (loop->opts.resolve(loop, rt__ep_of(s)->dial->host, handle_of(s)) < 0 &&
        s->conn)
        rt__conn_lost(loop, s->conn, 1006, RT_BY_ERROR, "name not found");
}

/* Asked within a handshake: nobody knows of that connection yet, so that no
   call can end it. */
int rt__tell_sni(int (*sni)(void *, const char *), void *user, const char *host)
{
    return sni(user, host);
}

/* No session and no connection is left of those that rt_shutdown ended. */
void rt__tell_drained(rt_loop *loop)
{
    if (loop->opts.drained)
        loop->opts.drained(loop);
}

void rt__tell_timer(rt_loop *loop, void (*fn)(rt_loop *, void *), void *arg)
{
    fn(loop, arg);
}

void rt__tell_watch(rt_loop *loop,
                    void (*fn)(rt_loop *, rt_watch, int events, void *),
                    rt_watch handle, int events, void *arg)
{
    fn(loop, handle, events, arg);
}

void rt__tell_presence(rt_loop *loop,
                       void (*fn)(rt_loop *, rt_group, rt_session, int),
                       rt_group group, rt_session who, int what)
{
    fn(loop, group, who, what);
}

/* Something for a hook of the loop's options, which no call may run: the name
   and the data are copies, for the caller's are gone when the hook is told. */
struct rt__note {
    struct rt__note *next;
    enum rt__hook hook;
    int kind;
    rt_position at;        /* of what falls out of a group's history */
    size_t name_size, len; /* name with its NUL, then data, stand behind */
};

static void tell_hook(rt_loop *loop, const struct rt__note *note)
{
    const rt_loop_opts *o = &loop->opts;
    const char *name = (const char *)(note + 1);
    const void *data = name + note->name_size;
    switch (note->hook) {
    case RT__GROUP_FIRST:
        o->group_first(loop, name);
        return;
    case RT__GROUP_LAST:
        o->group_last(loop, name);
        return;
    case RT__GROUP_OUT:
        o->group_out(loop, name, note->kind, data, note->len);
        return;
    case RT__PUSH_MISS:
        o->push_miss(loop, name, note->kind, data, note->len);
        return;
    case RT__GROUP_EVICT:
        o->group_evict(loop, name, note->at, note->kind, data, note->len);
        return;
    }
}

static int hook_set(const rt_loop_opts *o, enum rt__hook hook)
{
    switch (hook) {
    case RT__GROUP_FIRST:
        return o->group_first != NULL;
    case RT__GROUP_LAST:
        return o->group_last != NULL;
    case RT__GROUP_OUT:
        return o->group_out != NULL;
    case RT__PUSH_MISS:
        return o->push_miss != NULL;
    case RT__GROUP_EVICT:
        break;
    }
    return o->group_evict != NULL;
}

static size_t note_size(const struct rt__note *note)
{
    return sizeof *note + note->name_size + note->len;
}

/* With a copy of the message; nobody is told yet.  NULL: no memory. */
static struct rt__note *note_new(rt_loop *loop, enum rt__hook hook,
                                 const char *name, const void *data, size_t len)
{
    size_t name_size = strlen(name) + 1;
    struct rt__note *note = (struct rt__note *)rt__realloc(
        loop, NULL, 0, sizeof *note + name_size + len);
    if (!note)
        return NULL;
    memset(note, 0, sizeof *note);
    note->hook = hook;
    note->name_size = name_size;
    note->len = len;
    memcpy(note + 1, name, name_size);
    if (len)
        memcpy((char *)(note + 1) + name_size, data, len);
    return note;
}

static void note_queue(rt_loop *loop, struct rt__note *note)
{
    if (loop->notes_last)
        loop->notes_last->next = note;
    else
        loop->notes_first = note;
    loop->notes_last = note;
}

/* Notes it for the events phase.  RT_ENOMEM: the hook will not be told. */
int rt__note_at(rt_loop *loop, enum rt__hook hook, const char *name,
                rt_position at, int kind, const void *data, size_t len)
{
    struct rt__note *note;
    if (!hook_set(&loop->opts, hook) || loop->freeing)
        return 0;
    note = note_new(loop, hook, name, data, len);
    if (!note) {
        rt__log(loop, RT_LOG_ERROR, "hook not told", rt_strerror(RT_ENOMEM));
        return RT_ENOMEM;
    }
    note->kind = kind;
    note->at = at;
    note_queue(loop, note);
    return 0;
}

/* A note for later, which then cannot fail; none where there is no such
   hook. */
int rt__note_keep(rt_loop *loop, enum rt__hook hook, const char *name,
                  struct rt__note **kept)
{
    if (*kept || !hook_set(&loop->opts, hook))
        return 0;
    *kept = note_new(loop, hook, name, NULL, 0);
    return *kept ? 0 : RT_ENOMEM;
}

void rt__note_forget(rt_loop *loop, struct rt__note *note)
{
    if (note)
        rt__free(loop, note, note_size(note));
}

void rt__note_kept(rt_loop *loop, struct rt__note **kept)
{
    struct rt__note *note = *kept;
    *kept = NULL;
    if (loop->freeing)
        rt__note_forget(loop, note);
    else if (note)
        note_queue(loop, note);
}

int rt__note(rt_loop *loop, enum rt__hook hook, const char *name, int kind,
             const void *data, size_t len)
{
    rt_position nowhere = {0, 0};
    return rt__note_at(loop, hook, name, nowhere, kind, data, len);
}

void rt__notes_tell(rt_loop *loop)
{
    /* What a hook causes is noted for the next turn: two that answer each other
       cannot hold this one. */
    struct rt__note *note = loop->notes_first, *next;
    loop->notes_first = loop->notes_last = NULL;
    for (; note; note = next) {
        next = note->next;
        tell_hook(loop, note);
        rt__note_forget(loop, note);
    }
}

/* ---- what few sessions have --------------------------------------------- */

/* Its keep is found in whatever it has of these. */
static void keep_set(rt__session *s, rt__keep *keep)
{
    if (s->has == RT__HAS_MORE)
        s->is.more->keep = keep;
    else if (s->has == RT__HAS_LIMITS)
        s->is.limits->keep = keep;
    else
        s->is.keep = keep;
}

rt__more *rt__more_open(rt_loop *loop, rt__session *s)
{
    rt__more *more;
    if (s->has == RT__HAS_MORE)
        return s->is.more;
    more = (rt__more *)rt__alloc(loop, sizeof *more);
    if (!more)
        return NULL;
    more->keep = rt__keep_of(s);
    more->limits = limits_of(s);
    s->is.more = more;
    s->has = RT__HAS_MORE;
    return more;
}

/* Gives it back when nothing of its own is in it. */
void rt__more_settle(rt_loop *loop, rt__session *s)
{
    rt__more nothing, *more = rt__more_of(s);
    if (!more)
        return;
    memset(&nothing, 0, sizeof nothing);
    nothing.keep = more->keep;
    nothing.limits = more->limits;
    if (memcmp(more, &nothing, sizeof nothing) != 0)
        return;
    s->has = more->limits ? RT__HAS_LIMITS : RT__KEEP_ONLY;
    if (more->limits)
        s->is.limits = more->limits;
    keep_set(s, more->keep);
    rt__free(loop, more, sizeof *more);
}

/* ---- lists -------------------------------------------------------------- */

/* A session has one `next`, so it stands in one list at most: todo, closing or
   closed; `queued` says that it does. */

static void queue_push(rt__queue *q, rt__session *s)
{
    s->next = NULL;
    s->queued = 1;
    if (q->last)
        q->last->next = s;
    else
        q->first = s;
    q->last = s;
}

static rt__session *queue_pop(rt__queue *q)
{
    rt__session *s = q->first;
    if (!s)
        return NULL;
    q->first = s->next;
    if (!q->first)
        q->last = NULL;
    s->queued = 0;
    return s;
}

/* What is in the list now; what comes later waits for the next turn. */
static rt__queue queue_detach(rt__queue *q)
{
    rt__queue all = *q;
    q->first = q->last = NULL;
    return all;
}

/* ---- beginning and end -------------------------------------------------- */

/* The order of an end: state, so that every later call finds it closing;
   timers, groups, user id and tokens, so that nobody finds it; the close frame,
   behind what was sent before; then, from the loop, on_close, the handle's
   slot, and at the end of the turn the memory. */

/* A session that begins on that connection, which has its endpoint, or before
   it has one (NULL); under the handle id, which named its handshake, or a new
   one (0).  NULL: no memory. */
rt__session *rt__session_new(rt_loop *loop, rt__ep *ep, rt__conn *c,
                             uint64_t id)
{
    rt__session *s;
    if ((!c || c->own.id) && !(c = rt__block_new(loop, ep)))
        return NULL;
    s = &c->own;
    s->id = id ? id : rt__slot_new(loop, RT__SESSION, s);
    if (!s->id) {
        rt__block_settle(loop, c);
        return NULL;
    }
    if (id)
        rt__slot_become(loop, id, RT__SESSION, s);
    s->state = RT_OPENING;
    loop->session_count++;
    loop->accepted_count += !ep->dial;
    return s;
}

int rt__sessions_full(const rt_loop *loop)
{
    return loop->accepted_count >= (uint32_t)loop->opts.max_sessions;
}

static void more_free(rt_loop *loop, rt__more *more)
{
    if (!more)
        return;
    rt__strfree(loop, more->uid);
    rt__strfree(loop, more->reason);
    rt__free(loop, more, sizeof *more);
}

static void session_free(rt_loop *loop, rt__session *s)
{
    rt__keep_close(loop, s);
    limits_free(loop, limits_of(s));
    more_free(loop, rt__more_of(s));
    memset(s, 0, sizeof *s);
    rt__block_settle(loop, rt__block_of(s));
}

static void session_uncount(rt_loop *loop, const rt__session *s)
{
    loop->session_count--;
    loop->accepted_count -= !rt__ep_of(s)->dial;
}

/* Undoes rt__session_new for one that the application never heard of. */
void rt__session_forget(rt_loop *loop, rt__session *s)
{
    unbind(loop, s);
    keep_void(loop, s);
    rt__slot_free(loop, s->id);
    session_uncount(loop, s);
    session_free(loop, s);
}

static void count_close(rt_loop *loop, int code)
{
    if (code >= 1000 && code <= 1015)
        loop->stats.closes[code - 1000]++;
    else if (code >= RT_CLOSE_SLOW && code <= RT_CLOSE_STALE)
        loop->stats.closes[16 + code - RT_CLOSE_SLOW]++;
    else if (code >= RT_CLOSE_REPLACED && code <= RT_CLOSE_SUPERSEDED)
        loop->stats.closes[19 + code - RT_CLOSE_REPLACED]++;
    else
        loop->stats.closes_app++;
}

/* Ends a session, whatever the reason: the only way.  RT_EGONE when it is
   ending already; the first code stays. */
int rt__session_end(rt_loop *loop, rt__session *s, int code, int cause,
                    const char *reason)
{
    if (s->state == RT_CLOSING)
        return RT_EGONE;
    s->state = RT_CLOSING;
    s->code = (uint16_t)code;
    s->cause = (unsigned int)cause & 15;
    if (*reason && rt__more_open(loop, s))
        s->is.more->reason = rt__strdup(loop, reason);
    count_close(loop, code);
    rt__timers_stop(loop, s);
    rt__groups_leave(loop, s);
    unbind(loop, s);
    keep_void(loop, s);
    /* A connection that is saying goodbye already has been told a code. */
    if (s->conn && s->conn->state <= RT__LIVE)
        rt__conn_bye(loop, s->conn, code, reason);
    if (!s->queued) /* else the events phase hands it on */
        queue_push(&loop->closing, s);
    return 0;
}

/* What is owed to a session, told in the events phase. */
void rt__session_todo(rt_loop *loop, rt__session *s, int what)
{
    if (s->state == RT_CLOSING)
        return;
    s->todo = (s->todo | (unsigned int)what) & 15;
    if (!s->queued)
        queue_push(&loop->todo, s);
}

/* Away, back and writable, as far as they still hold. */
static void session_events(rt_loop *loop, rt__session *s, int todo)
{
    if (todo & RT__TODO_RESOLVE)
        tell_resolve(loop, s);
    if (todo & (RT__TODO_AWAY | RT__TODO_BACK) && alive(s))
        keep_events(loop, s, todo);
    if (todo & RT__TODO_WRITABLE && alive(s))
        tell_writable(loop, s);
}

void rt__sessions_events(rt_loop *loop)
{
    rt__queue all = queue_detach(&loop->todo);
    rt__session *s;
    while ((s = queue_pop(&all)) != NULL) {
        int todo = (int)s->todo;
        s->todo = 0;
        /* Ended while it was in this list: on_close, and nothing before it. */
        if (s->state == RT_CLOSING)
            queue_push(&loop->closing, s);
        else
            session_events(loop, s, todo);
    }
}

/* The connection goes on without its session.  What the system has taken of
   the queue by now is not lost, as far as can be known. */
static void part(rt_loop *loop, rt__session *s)
{
    if (s->conn)
        rt__conn_flush(loop, s->conn);
    /* The flush may have found the line gone; then that cut the pointers, and
       counted. */
    if (!s->conn)
        return;
    if (!rt__keep_of(s))
        s->of.lost += rt__out_unsent(s->conn->out);
    s->conn->session = NULL;
    s->conn = NULL;
}

/* Those that ended after something was owed to them are closing, too. */
static void todo_sort(rt_loop *loop)
{
    rt__queue all = queue_detach(&loop->todo);
    rt__session *s;
    while ((s = queue_pop(&all)) != NULL)
        queue_push(s->state == RT_CLOSING ? &loop->closing : &loop->todo, s);
}

/* The closing phase.  One that an on_close ends is told in the next turn; the
   list was detached, so that a chain of them cannot hold this one. */
void rt__sessions_close(rt_loop *loop)
{
    rt__queue all;
    rt__session *s;
    todo_sort(loop);
    all = queue_detach(&loop->closing);
    if (all.first)
        rt__groups_events(loop); /* RT_LEFT comes before on_close */
    while ((s = queue_pop(&all)) != NULL) {
        part(loop, s);
        tell_close(loop, s);
        /* Only now is the handle stale: on_close still asks rt_user, rt_uid. */
        rt__slot_free(loop, s->id);
        queue_push(&loop->closed, s);
        session_uncount(loop, s);
        heir_opens(loop, s);
    }
}

/* The free phase: nobody further up the stack holds one any more. */
void rt__sessions_reap(rt_loop *loop)
{
    rt__session *s;
    while ((s = queue_pop(&loop->closed)) != NULL)
        session_free(loop, s);
}

/* ---- handles ------------------------------------------------------------ */

/* The edge: an id becomes a pointer once for each call.  A generation that does
   not fit finds nobody, so a handle kept for too long can never reach the
   player who has the slot now. */

/* Also one that is closing: its on_close still asks. */
static rt__session *session_any(rt_loop *loop, rt_session handle)
{
    return (rt__session *)rt__slot_get(loop, handle.id, RT__SESSION);
}

/* One that is open or away, or NULL and why not. */
rt__session *rt__session_get(rt_loop *loop, uint64_t id, int *error)
{
    rt__session *s = (rt__session *)rt__slot_get(loop, id, RT__SESSION);
    if (s && alive(s))
        return s;
    *error = RT_EGONE;
    if (s ? s->state == RT_OPENING : rt__slot_kind(loop, id) == RT__SHAKE)
        *error = RT_ESTATE;
    return NULL;
}

/* What a call says that wants a session and got no handle of one: in on_request
   the handle names a handshake, and there is no session yet. */
static int handshake_or_gone(rt_loop *loop, rt_session handle)
{
    if (rt__slot_kind(loop, handle.id) == RT__SHAKE)
        return RT_ESTATE;
    return RT_EGONE;
}

void *rt_context(rt_loop *loop, rt_session handle)
{
    rt__session *s = session_any(loop, handle);
    rt__shake *k = (rt__shake *)rt__slot_get(loop, handle.id, RT__SHAKE);
    if (k)
        return rt__shake_conn(k)->ep->user;
    return s ? rt__ep_of(s)->user : NULL;
}

void *rt_user(rt_loop *loop, rt_session handle)
{
    rt__session *s = session_any(loop, handle);
    return s ? s->user : NULL;
}

void rt_set_user(rt_loop *loop, rt_session handle, void *user)
{
    rt__session *s = session_any(loop, handle);
    if (s)
        s->user = user;
}

int rt_state(rt_loop *loop, rt_session handle)
{
    rt__session *s = session_any(loop, handle);
    if (s)
        return s->state;
    if (rt__slot_kind(loop, handle.id) == RT__SHAKE)
        return RT_OPENING;
    return RT_EGONE;
}

/* Of the time when a byte last came 40 bits are kept, so it is counted back
   from now: POSIX says nothing of when the clock began. */
static uint64_t heard_at(const rt_loop *loop, const rt__conn *c)
{
    uint64_t low = (uint64_t)c->heard_high << 32 | c->heard;
    return loop->now - ((loop->now - low) & 0xffffffffff);
}

uint64_t rt_heard(rt_loop *loop, rt_session handle)
{
    rt__session *s = session_any(loop, handle);
    return s && s->conn ? heard_at(loop, s->conn) : 0;
}

int rt_rtt(rt_loop *loop, rt_session handle, uint32_t *rtt_us,
           uint32_t *jitter_us)
{
    rt__session *s = session_any(loop, handle);
    if (!s)
        return handshake_or_gone(loop, handle);
    if (!s->conn || s->conn->shaking || !s->conn->is.trip.rtt_us)
        return RT_ESTATE;
    if (rtt_us)
        *rtt_us = s->conn->is.trip.rtt_us;
    if (jitter_us)
        *jitter_us = s->conn->is.trip.jitter_us;
    return 0;
}

uint64_t rt_unsent(rt_loop *loop, rt_session handle)
{
    rt__session *s = session_any(loop, handle);
    rt__conn *c = s ? s->conn : NULL;
    if (c && c->crowd)
        return rt__crowd_unsent(loop, c);
    if (c && rt__tls_rest(c))
        return c->out->bytes + rt__tls_of(c)->rest->len -
               rt__tls_of(c)->rest_off;
    return c && c->out ? c->out->bytes : 0;
}

rt_session rt_next_session(rt_loop *loop, rt_session after)
{
    rt_session next = {0};
    rt__session *s;
    do
        s = (rt__session *)rt__slot_next(loop, &after.id, RT__SESSION);
    while (s && !alive(s));
    if (s)
        next.id = s->id;
    return next;
}

int rt_read(rt_loop *loop, rt_session handle, int on)
{
    int error;
    rt__session *s = rt__session_get(loop, handle.id, &error);
    if (!s || !online(s))
        return s ? RT_ESTATE : error;
    if (!on) {
        s->conn->hold |= RT__HOLD_APP;
        rt__conn_interest(loop, s->conn);
        return 0;
    }
    if (s->conn->hold & RT__HOLD_APP)
        pause_over(loop, s->conn);
    s->conn->hold &= (uint8_t)~RT__HOLD_APP;
    rt__conn_interest(loop, s->conn);
    if (s->conn)
        session_unheld(loop, s);
    return 0;
}

/* ---- closing ------------------------------------------------------------ */

/* A reason must fit a control frame, which carries 125 bytes of payload, two of
   them the code (RFC 6455, 5.5 and 5.5.1), and be UTF-8. */
static int close_check(int code, const char *reason)
{
    size_t n = reason ? strlen(reason) : 0;
    if (!rt__close_code_valid(code) || n > RT__REASON ||
        (n && !rt__utf8_valid(reason, n)))
        return RT_EINVAL;
    return 0;
}

int rt_close(rt_loop *loop, rt_session handle, int code, const char *reason)
{
    rt__session *s = session_any(loop, handle);
    rt__shake *k = (rt__shake *)rt__slot_get(loop, handle.id, RT__SHAKE);
    if (!s && !k)
        return RT_EGONE;
    if (!code)
        code = 1000;
    if (close_check(code, reason) < 0)
        return RT_EINVAL;
    if (s)
        return rt__session_end(loop, s, code, RT_BY_APP, reason ? reason : "");
    rt__conn_kill(loop, rt__shake_conn(k));
    return 0;
}

int rt_drop(rt_loop *loop, rt_session handle, int code, const char *reason)
{
    rt__session *s = session_any(loop, handle);
    if (!s || s->state == RT_CLOSING)
        return s ? RT_EGONE : handshake_or_gone(loop, handle);
    if (!code)
        code = 1000;
    if (close_check(code, reason) < 0)
        return RT_EINVAL;
    if (s->state == RT_AWAY)
        return RT_ESTATE; /* it has none to lose */
    if (s->state == RT_OPENING)
        return rt_close(loop, handle, code, reason);
    rt__session_drop(loop, s, code, RT_BY_APP, reason ? reason : "");
    return 0;
}

/* ---- what is kept until it is acknowledged ------------------------------ */

/* The ring holds the numbers up to n without a hole: one that cannot be kept
   empties it, and the peer that lacks it is told a gap (RESUME, A6).  `taken`
   of them, from the oldest on, this connection has begun to write, and only
   those may be acknowledged on it and fall to the caps. */

/* Can it lose its connection and live on?  A server's by its token, a client's
   by the token it was given, or as long as it has not been welcomed. */
static int resumable(const rt__session *s)
{
    const rt__dial *d = rt__ep_of(s)->dial;
    if (!rt__keep_of(s) || s->state == RT_CLOSING)
        return 0;
    if (d && d->resume)
        return s->state == RT_OPENING || d->token[0];
    return rt__keep_of(s)->token.session != NULL;
}

/* The object for what is under way; it exists only while something is.  It
   starts as if all up to n were acknowledged, which is why there was none. */
static rt__flow *flow_open(rt_loop *loop, rt__session *s)
{
    rt__flow *f = rt__keep_of(s)->flow;
    if (f)
        return f;
    f = (rt__flow *)rt__alloc(loop, sizeof *f);
    if (!f)
        return NULL;
    if (rt__timer_adopt(loop, &f->timer, RT__OF_FLOW) < 0) {
        rt__free(loop, f, sizeof *f);
        return NULL;
    }
    f->session = s;
    f->acked = f->top = rt__keep_of(s)->n;
    if (s->conn) {
        f->wire = (enum rt__wire)s->conn->wire;
        f->typed = s->conn->typed;
    }
    return rt__keep_of(s)->flow = f;
}

/* Payload bytes of a framed piece: what the cap of the ring counts.  The size
   alone tells how long the length field is (RFC 6455, 5.2: 7 bits, 16 or 64),
   for each form begins above the longest frame of the one before. */
static uint64_t payload_of(const rt__flow *f, uint32_t size)
{
    uint64_t head = f->wire == RT__WS_CLIENT ? 6 : 2;
    if (f->wire == RT__RAW)
        return size;
    if (f->wire == RT__STREAM)
        head = 4;
    else if (size - head > 65535 + 2)
        head += 8;
    else if (size - head > 125)
        head += 2;
    return size - head - f->typed;
}

/* The oldest leaves the ring: acknowledged, or forgotten. */
static void ring_shift(rt_loop *loop, rt__flow *f)
{
    rt__piece *piece = &f->ring[f->head];
    uint64_t n = payload_of(f, piece->len);
    f->bytes -= n;
    loop->replay_bytes -= n;
    if (f->taken > 0) {
        f->taken--;
        f->taken_bytes -= n;
    }
    rt__buf_release(loop, piece->buf);
    f->count--;
    f->head = f->count ? f->head + 1 : 0;
}

static void ring_clear(rt_loop *loop, rt__flow *f)
{
    uint32_t i;
    for (i = 0; i < f->count; i++)
        rt__buf_release(loop, f->ring[f->head + i].buf);
    loop->replay_bytes -= f->bytes;
    f->bytes = f->taken_bytes = 0;
    f->head = f->count = f->taken = 0;
}

static int ring_grow(rt_loop *loop, rt__flow *f)
{
    uint32_t cap = f->cap ? f->cap * 2 : 4;
    rt__piece *ring;
    /* The array is not circular: it slides down when half of it is free at the
       front, so that all the sliding costs no more than the shifts did. */
    if (f->head > 0 && f->head >= f->cap / 2) {
        memmove(f->ring, f->ring + f->head, f->count * sizeof *ring);
        f->head = 0;
        return 0;
    }
    ring = (rt__piece *)rt__realloc(loop, NULL, 0, cap * sizeof *ring);
    if (!ring)
        return RT_ENOMEM;
    if (f->count)
        memcpy(ring, f->ring + f->head, f->count * sizeof *ring);
    rt__free(loop, f->ring, f->cap * sizeof *ring);
    f->ring = ring;
    f->cap = cap;
    f->head = 0;
    return 0;
}

static int ring_room(rt_loop *loop, rt__flow *f)
{
    return f->head + f->count == f->cap ? ring_grow(loop, f) : 0;
}

/* Keeps the newest number's frame; without memory it, and so all before it, is
   forgotten, and a loss of the line will be a gap. */
static void ring_push(rt_loop *loop, rt__flow *f, rt__piece piece)
{
    if (ring_room(loop, f) < 0) {
        ring_clear(loop, f);
        return;
    }
    piece.buf->refs++;
    f->ring[f->head + f->count++] = piece;
    f->bytes += payload_of(f, piece.len);
    loop->replay_bytes += payload_of(f, piece.len);
}

/* The caps hold for what the present connection has taken; without one, for
   all.  What still waits to be written is bounded by the queue's mark. */
static void ring_trim(rt_loop *loop, rt__flow *f, int all)
{
    if (rt__ep_of(f->session)->dial)
        return; /* a client forgets nothing: it refuses */
    while (f->count > 0 && ((all ? f->count : f->taken) > RT__RING_COUNT ||
                            (all ? f->bytes : f->taken_bytes) > RT__RING_BYTES))
        ring_shift(loop, f);
}

/* The last number whose first byte went out on the present connection. */
static uint64_t taken_now(const rt__session *s)
{
    rt__conn *c = online(s);
    return rt__keep_of(s)->n - (c ? rt__out_unbegun(c->out) : 0);
}

static void held_release(rt_loop *loop, rt__flow *f, uint32_t i)
{
    rt__buf_release(loop, f->held[i].piece.buf);
    f->held[i] = f->held[--f->held_count];
}

/* The peer has all up to number a. */
static void ack_apply(rt_loop *loop, rt__session *s, uint64_t a)
{
    rt__flow *f = rt__keep_of(s)->flow;
    uint32_t i;
    if (a > f->acked)
        f->acked = a;
    if (a == rt__keep_of(s)->n) /* nearly always */
        ring_clear(loop, f);
    while (f->count > 0 && rt__keep_of(s)->n - f->count < a)
        ring_shift(loop, f);
    /* A later number has come, so the value that was written before it has,
       too.  From the end on, because a release moves the last one to its
       place. */
    for (i = f->held_count; i-- > 0;)
        if (f->held[i].written && f->held[i].after < a)
            held_release(loop, f, i);
    if (f->was_full && f->count <= RT__RING_COUNT / 2 &&
        f->bytes <= RT__RING_BYTES / 2) {
        f->was_full = 0;
        rt__session_todo(loop, s, RT__TODO_WRITABLE);
    }
}

static void flow_free(rt_loop *loop, rt__flow *f)
{
    ring_clear(loop, f);
    while (f->held_count > 0)
        held_release(loop, f, 0);
    rt__free(loop, f->ring, f->cap * sizeof *f->ring);
    rt__free(loop, f->held, f->held_cap * sizeof *f->held);
    if (f->resumes)
        rt__free(loop, f->resumes, rt__window_size(RESUMES));
    rt__buf_release(loop, f->chunk);
    rt__timer_disown(loop, &f->timer);
    rt__free(loop, f, sizeof *f);
}

/* Gives the object back when all is known to have arrived and nothing else has
   to be remembered: a second token, an event to tell, or resumes of late, which
   quick acknowledgements would else make forgotten. */
static void flow_settle(rt_loop *loop, rt__session *s)
{
    rt__flow *f = rt__keep_of(s)->flow;
    if (!f || f->count || f->held_count || f->unacked || f->ack_owed ||
        f->previous.session || f->is_away || f->told_away || f->was_full ||
        f->lost || f->acked != rt__keep_of(s)->n || s->state != RT_OPEN ||
        (f->resumes &&
         rt__window_age(f->resumes, RESUMES, loop->now) < RESUMES_MS))
        return;
    rt__keep_of(s)->flow = NULL;
    flow_free(loop, f);
}

/* Frames stand one behind the other in a buffer of the session's own, for one
   that is kept in the turn's arena would hold everybody's block.  When none of
   them is needed any more it is used again. */
static uint8_t *keep_reserve(rt_loop *loop, rt__flow *f, size_t size,
                             rt__piece *piece)
{
    rt__buf *b = f->chunk;
    size_t cap = b && b->cap < 8192 ? b->cap * (size_t)2 : 512;
    if (b && b->refs == 1)
        b->len = 0;
    if (!b || b->cap - b->len < size) {
        /* The old one lives on by the references of its pieces. */
        b = rt__buf_new(loop, size > cap ? size : cap);
        if (!b)
            return NULL;
        rt__buf_release(loop, f->chunk);
        f->chunk = b;
    }
    b->refs++;
    piece->buf = b;
    piece->off = b->len;
    piece->len = (uint32_t)size;
    b->len += (uint32_t)size;
    return rt__buf_data(b) + piece->off;
}

static rt__held *held_find(rt__flow *f, uint32_t key)
{
    uint32_t i;
    for (i = 0; i < f->held_count; i++)
        if (f->held[i].key == key)
            return &f->held[i];
    return NULL;
}

/* Room with what is kept.  A client never forgets, so it refuses; a key needs
   a place among the held ones; nobody waits for a droppable one. */
static int keep_room(rt_loop *loop, rt__session *s, enum rt__lane lane,
                     uint32_t key, size_t len)
{
    rt__flow *f = rt__keep_of(s)->flow;
    (void)loop;
    if (lane == RT__DROPPABLE)
        return online(s) ? 0 : RT__SKIPPED;
    if (lane == RT__KEYED)
        return f->held_count >= RT__KEYS && !held_find(f, key) ? RT_EFULL : 0;
    if (!rt__ep_of(s)->dial || !rt__ep_of(s)->dial->resume)
        return 0;
    if (f->count < RT__RING_COUNT && f->bytes + len <= RT__RING_BYTES)
        return 0;
    f->was_full = 1;
    return RT_EFULL;
}

/* Holds the newest value of a key until it is known to have arrived. */
static int held_put(rt_loop *loop, rt__flow *f, rt__piece piece, uint32_t key)
{
    rt__held *held = held_find(f, key);
    uint32_t cap = f->held_cap ? f->held_cap * 2 : 1;
    void *p;
    if (!held && f->held_count == f->held_cap) {
        p = rt__realloc(loop, f->held, f->held_cap * sizeof *held,
                        cap * sizeof *held);
        if (!p)
            return RT_ENOMEM;
        f->held = (rt__held *)p;
        f->held_cap = cap;
    }
    if (held)
        rt__buf_release(loop, held->piece.buf);
    else
        held = &f->held[f->held_count++];
    /* Not written means: a number that was sent after the old value says
       nothing of this one. */
    piece.buf->refs++;
    held->piece = piece;
    held->key = key;
    held->written = 0;
    return 0;
}

/* A framed message gets its number and is kept, then queued if there is a
   connection.  Takes over the piece's reference.  A client, which forgets
   nothing, refuses what it cannot keep. */
static int keep_put(rt_loop *loop, rt__session *s, rt__piece piece,
                    enum rt__lane lane, uint32_t key)
{
    rt__flow *f = rt__keep_of(s)->flow;
    if ((lane == RT__KEYED && held_put(loop, f, piece, key) < 0) ||
        (lane == RT__RELIABLE && rt__ep_of(s)->dial &&
         ring_room(loop, f) < 0)) {
        rt__buf_release(loop, piece.buf);
        return RT_ENOMEM;
    }
    if (lane == RT__RELIABLE) {
        rt__keep_of(s)->n++;
        ring_push(loop, f, piece);
    }
    if (!online(s)) {
        rt__buf_release(loop, piece.buf);
        ring_trim(loop, f, 1);
        return 0;
    }
    if (rt__out_put(loop, s->conn, piece, lane, key) < 0)
        rt__conn_lost(loop, s->conn, 1006, RT_BY_ERROR, "out of memory");
    /* A peer in JavaScript could not tell the next two numbers apart. */
    else if (rt__keep_of(s)->n >= RT__NUMBER_MOST)
        rt__session_end(loop, s, 1000, RT_BY_LIMIT, "count");
    return 0; /* numbered and kept, whatever became of the line */
}

/* The timer looks whether all has arrived: where the object was given back at
   once, the next message would only take it again. */
static void settle_later(rt_loop *loop, rt__conn *c)
{
    rt__conn_due(loop, c, loop->now + 500);
}

/* "a" and the number; returns the length. */
static size_t ack_text(uint64_t n, char out[24])
{
    char digits[20];
    size_t count = 0, len = 1;
    do
        digits[count++] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    out[0] = 'a';
    while (count > 0)
        out[len++] = digits[--count];
    return len;
}

/* Stands behind the messages in the session's own buffer, if it has one, so
   that both leave in one piece. */
static int ack_send(rt_loop *loop, rt__conn *c, rt__flow *f, const char *text,
                    size_t n)
{
    rt__piece piece;
    uint8_t *to;
    if (c->wire != RT__WS_SERVER || !f->chunk)
        return rt__ws_control(loop, c, RT_TEXT, text, n);
    if (rt__out_open(loop, c) < 0 ||
        !(to = keep_reserve(loop, f, n + 2, &piece)))
        return RT_ENOMEM;
    to += rt__frame_write(to, RT_TEXT, n, NULL);
    memcpy(to, text, n);
    return rt__out_aside(loop, c, piece);
}

/* The acknowledgement that is owed goes with this flush.  It is made here and
   not earlier, and a blocked queue is not flushed, so those that wait do not
   grow in number, however much a peer sends that does not read. */
void rt__flush_begins(rt_loop *loop, rt__conn *c)
{
    rt__session *s = c->session;
    rt__flow *f = s && rt__keep_of(s) ? rt__keep_of(s)->flow : NULL;
    char text[24];
    if (!f || !f->ack_owed || c->state != RT__LIVE)
        return;
    if (ack_send(loop, c, f, text, ack_text(rt__keep_of(s)->received, text)) <
        0)
        return; /* it is still owed */
    s->of.said = (uint32_t)loop->now;
    f->ack_owed = 0;
    f->unacked = f->unacked_bytes = 0;
    f->ack_due = 0;
    settle_later(loop, c);
}

/* A flush is done: what it began to write counts as taken. */
void rt__flushed(rt_loop *loop, rt__conn *c)
{
    rt__session *s = c->session;
    rt__flow *f = rt__keep_of(s)->flow;
    uint32_t unbegun = rt__out_unbegun(c->out), i;
    if (!f)
        return;
    if (unbegun == 0) { /* nearly always: no need to count */
        f->taken = f->count;
        f->taken_bytes = f->bytes;
    }
    /* The last `unbegun` of the ring wait; all before them were begun. */
    while (f->taken + unbegun < f->count)
        f->taken_bytes += payload_of(f, f->ring[f->head + f->taken++].len);
    ring_trim(loop, f, 0);
    for (i = 0; i < f->held_count; i++) {
        if (f->held[i].written ||
            (c->out->bytes > 0 && rt__out_has_key(c->out, f->held[i].key)))
            continue;
        f->held[i].written = 1;
        f->held[i].after = rt__keep_of(s)->n - unbegun;
    }
}

/* The peer is told in another way what has come. */
static void acked_now(rt__flow *f)
{
    f->ack_owed = 0;
    f->unacked = f->unacked_bytes = 0;
    f->ack_due = 0;
}

static void ack_owe(rt_loop *loop, rt__session *s, rt__flow *f)
{
    f->ack_owed = 1;
    rt__out_dirty(loop, s->conn);
}

/* One counted message came: it is acknowledged after 16 of them, 16 KiB, or
   500 ms, by one timer for all.  It is counted just before it is told: where
   there is no memory for that, it is neither, and the connection goes. */
static int count_in(rt_loop *loop, rt__session *s, size_t len)
{
    rt__flow *f = flow_open(loop, s);
    if (!f)
        return -1011;
    rt__keep_of(s)->received++;
    f->unacked_bytes += (uint32_t)len;
    if (f->unacked++ == 0) {
        f->ack_due = rt_now(loop) + 500;
        rt__conn_due(loop, s->conn, f->ack_due);
    }
    if (f->unacked >= 16 || f->unacked_bytes >= 16384)
        ack_owe(loop, s, f);
    return 0;
}

/* For a client any byte counts: of an idle server it hears pings and `a`s.
   `life` has 32 bits, so that difference is taken in 32 bits, too. */
static uint64_t silence_of(rt_loop *loop, const rt__conn *c)
{
    uint64_t life = (uint32_t)loop->now - c->life,
             byte = loop->now - heard_at(loop, c);
    return life < byte ? life : byte;
}

/* How long we have said nothing, in 32 bits as well. */
static uint32_t unsaid(const rt_loop *loop, const rt__session *s)
{
    return (uint32_t)loop->now - s->of.said;
}

/* What an open connection of rtnet.1 owes by the clock.  Whoever has said
   nothing for ping_ms says `a`, because a page cannot see the pings of the
   WebSocket.  While we do not read, the silence is ours, and with pause_over
   the peer's begins anew. */
void rt__typed_due(rt_loop *loop, rt__conn *c)
{
    rt__session *s = c->session;
    rt__flow *f = rt__keep_of(s)->flow;
    uint64_t ping = rt__ep_of(s)->dial ? rt__ep_of(s)->dial->ping_ms
                                       : rt__ep_of(s)->ping_ms;
    uint64_t silent = c->hold ? 0 : silence_of(loop, c);
    if (ping < INT32_MAX && unsaid(loop, s) >= ping)
        f = flow_open(loop, s);
    if (f && ((f->ack_due && f->ack_due <= loop->now) ||
              (ping < INT32_MAX && unsaid(loop, s) >= ping))) {
        ack_owe(loop, s, f);
        s->of.said = (uint32_t)loop->now;
        f->ack_due = 0;
    }
    if (rt__ep_of(s)->dial && ping < INT32_MAX && silent > 2 * ping + 5000) {
        rt__conn_lost(loop, c, 1006, RT_BY_TIMEOUT, "silence");
        return;
    }
    if (f && f->ack_due)
        rt__conn_due(loop, c, f->ack_due);
    if (ping < INT32_MAX)
        rt__conn_due(loop, c, loop->now - unsaid(loop, s) + ping);
    if (rt__ep_of(s)->dial && ping < INT32_MAX)
        rt__conn_due(loop, c, loop->now - silent + 2 * ping + 5001);
    flow_settle(loop, s);
}

/* ---- sending ------------------------------------------------------------ */

/* A message is checked, framed, given room and put, in this order.  No byte is
   written here and nobody is called: a queue goes out at the end of the turn.
   What rt_send refuses has no number and is not kept. */

/* How messages to one session stand on the wire: its connection's way, or,
   while it is away, that of the last one. */
typedef struct {
    enum rt__wire wire;
    int typed;
    const rt_codec *codec;
} line;

static line line_of(const rt__session *s)
{
    line l;
    const rt__flow *flow = rt__keep_of(s) ? rt__keep_of(s)->flow : NULL;
    const rt__conn *c = online(s);
    l.wire = c ? (enum rt__wire)c->wire : flow->wire;
    l.typed = c ? c->typed : flow->typed;
    l.codec = rt__ep_of(s)->codec;
    return l;
}

/* What stands before a message; the mask goes over its payload, too. */
typedef struct {
    uint8_t bytes[14 + RT__CODEC_HEAD];
    size_t len;
    uint8_t mask[4];
    size_t phase; /* where in the mask the payload begins */
    int masked;
} frame_head;

/* The part of the head that counts as payload: rtnet.1's type, a codec's. */
static size_t inner_head(const line *l, uint8_t out[RT__CODEC_HEAD], int kind,
                         size_t len)
{
    int counted = !(kind & (RT_DROPPABLE | 0x400));
    if (l->codec)
        return l->codec->head(l->codec->ctx, out, kind & 0xff, len);
    if (!l->typed)
        return 0;
    out[0] = counted ? 'm' : 'u';
    if (l->wire == RT__STREAM && (kind & 0xff) == RT_BINARY)
        out[0] = counted ? 'M' : 'U';
    return 1;
}

static size_t outer_head(const line *l, uint8_t out[14], int op, size_t len,
                         const uint8_t *mask)
{
    int i;
    if (l->wire == RT__RAW)
        return 0;
    if (l->wire != RT__STREAM)
        return rt__frame_write(out, op, len, mask);
    for (i = 0; i < 4; i++)
        out[i] = (uint8_t)(len >> 8 * (3 - i));
    return 4;
}

/* Every frame of a client has a mask of its own that nobody can foresee (RFC
   6455, 5.3 and 10.3): whoever could would choose the bytes that a proxy
   sees. */
static frame_head head_make(rt_loop *loop, const line *l, int kind, size_t len)
{
    frame_head h;
    uint8_t inner[RT__CODEC_HEAD];
    uint64_t chance;
    size_t n = inner_head(l, inner, kind, len);
    h.masked = l->wire == RT__WS_CLIENT;
    chance = h.masked ? rt__random(loop) : 0;
    memcpy(h.mask, &chance, sizeof h.mask);
    h.len = outer_head(l, h.bytes, l->codec ? RT_BINARY : kind & 0xff, n + len,
                       h.masked ? h.mask : NULL);
    if (h.masked)
        rt__mask(h.bytes + h.len, inner, n, h.mask, 0);
    else
        memcpy(h.bytes + h.len, inner, n);
    h.len += n;
    h.phase = n;
    return h;
}

static void frame_copy(uint8_t *to, const frame_head *h, const void *data,
                       size_t len)
{
    memcpy(to, h->bytes, h->len);
    if (h->masked)
        rt__mask(to + h->len, (const uint8_t *)data, len, h->mask, h->phase);
    else if (len)
        memcpy(to + h->len, data, len);
}

/* May this be sent at all?  0 or an error.  RT__SEND_MAX keeps the sizes of
   pieces in 32 bits; text that is not UTF-8 would make the peer fail the
   connection with 1007 (RFC 6455, 8.1). */
int rt__send_check(int kind, const void *data, size_t len)
{
    int op = kind & 0xff;
    int flags = RT_DROPPABLE | RT_NO_HISTORY | rt_latest(0x7fff);
    if (op == 0 || kind & ~(0xff | flags) || (len && !data) ||
        len > RT__SEND_MAX)
        return RT_EINVAL;
    return op == RT_TEXT && len && !rt__utf8_valid(data, len) ? RT_EUTF8 : 0;
}

/* A codec has kinds of its own, and its text is no business of ours. */
static int kind_check(const rt__session *s, int kind, const void *data,
                      size_t len)
{
    int op = kind & 0xff;
    if (rt__ep_of(s)->codec)
        return rt__send_check(op == RT_TEXT ? kind + 1 : kind, data, len);
    if (op != RT_TEXT && op != RT_BINARY)
        return RT_EINVAL;
    return rt__send_check(kind, data, len);
}

static enum rt__lane lane_of(int kind, uint32_t *key)
{
    *key = 0;
    if (kind & 0x400) {
        *key = ((uint32_t)kind >> 16 & 0x7fff) + 1;
        return RT__KEYED;
    }
    return kind & RT_DROPPABLE ? RT__DROPPABLE : RT__RELIABLE;
}

/* Is there room?  A reliable message that finds none costs the connection, and
   the session if it cannot resume, so that a stream never has a silent hole. */
static int room(rt_loop *loop, rt__session *s, enum rt__lane lane, uint32_t key,
                size_t size, size_t len)
{
    int error = rt__keep_of(s) ? keep_room(loop, s, lane, key, len) : 0;
    if (error != 0 || !online(s))
        return error;
    error = rt__out_room(s->conn, lane, key, size);
    if (error == 1) {
        s->conn->out->was_high = 1;
        return RT__SKIPPED;
    }
    if (error == 0 || lane != RT__RELIABLE)
        return error;
    /* First the connection goes, then the message is accepted as one to
       somebody away, and so is among what the next connection replays. */
    rt__session_drop(loop, s, RT_CLOSE_SLOW, RT_BY_LIMIT, "send queue full");
    return s->state == RT_AWAY ? 0 : RT_EFULL;
}

/* Queues a framed piece, whose reference it takes over. */
static int put(rt_loop *loop, rt__session *s, rt__piece piece,
               enum rt__lane lane, uint32_t key)
{
    int error;
    if (rt__keep_of(s) && lane != RT__DROPPABLE)
        error = keep_put(loop, s, piece, lane, key);
    else
        error = rt__out_put(loop, s->conn, piece, lane, key);
    if (error < 0)
        return error;
    loop->stats.messages_out++;
    if (online(s) && s->conn->typed)
        s->of.said = (uint32_t)loop->now;
    return online(s) ? rt__out_status(s->conn) : error;
}

/* A place for a frame: of a session that can resume in its own buffer, where
   it may stay until it is acknowledged, else in the turn's arena. */
static uint8_t *reserve(rt_loop *loop, rt__session *s, size_t size,
                        enum rt__lane lane, rt__piece *piece)
{
    if (rt__keep_of(s) && lane != RT__DROPPABLE)
        return keep_reserve(loop, rt__keep_of(s)->flow, size, piece);
    return rt__out_reserve(loop, s->conn, size, piece);
}

/* Whatever is queued for one of a crowd comes behind what that waits for. */
static int stand_alone(rt_loop *loop, rt__session *s)
{
    return s->conn && s->conn->crowd ? rt__crowd_part(loop, s->conn) : 0;
}

/* Can the message that is being told be sent on as it lies?  What is kept, or
   waits for a slow peer, has a copy. */
static int borrows(rt_loop *loop, const rt__session *s, enum rt__lane lane,
                   const frame_head *h, const void *data, size_t len,
                   rt__piece *piece)
{
    return loop->lent.buf && lane == RT__RELIABLE && !rt__keep_of(s) &&
           !h->masked && !s->conn->out->blocked &&
           rt__borrow(loop, s->conn, data, len, h->bytes, h->len, piece);
}

/* All that has to be there before a message is framed for it. */
static int send_begin(rt_loop *loop, rt__session *s)
{
    if (rt__keep_of(s))
        return flow_open(loop, s) ? 0 : RT_ENOMEM;
    return stand_alone(loop, s);
}

/* There was no memory for its message.  Where it can resume, the message is
   numbered and forgotten, so that coming back tells of it: to a client, for
   nobody tells a server that there is a gap. */
static void missed(rt_loop *loop, rt__session *s)
{
    if (!resumable(s) || !rt__keep_of(s)->flow || rt__ep_of(s)->dial) {
        rt__session_end(loop, s, 1011, RT_BY_ERROR, "out of memory");
        return;
    }
    rt__keep_of(s)->n++;
    ring_clear(loop, rt__keep_of(s)->flow);
    if (online(s))
        rt__session_drop(loop, s, RT_CLOSE_SLOW, RT_BY_ERROR, "out of memory");
}

/* Frames a message for one session alone. */
static int send_one(rt_loop *loop, rt__session *s, int kind, const void *data,
                    size_t len)
{
    line l;
    frame_head h;
    rt__piece piece;
    uint32_t key;
    enum rt__lane lane = lane_of(kind, &key);
    const rt__conn *was = online(s);
    uint8_t *to;
    int away = s->state == RT_AWAY, error;
    if ((error = send_begin(loop, s)) < 0)
        return error;
    l = line_of(s);
    h = head_make(loop, &l, kind, len);
    /* The head stays right if this costs the connection: what is kept is framed
       as on the last one. */
    if ((error = room(loop, s, lane, key, h.len + len, len)) != 0)
        return error;
    if (online(s) && rt__out_open(loop, s->conn) < 0)
        return RT_ENOMEM;
    if (borrows(loop, s, lane, &h, data, len, &piece))
        return put(loop, s, piece, lane, key);
    to = reserve(loop, s, h.len + len, lane, &piece);
    if (!to && (online(s) == was || rt__ep_of(s)->dial))
        return RT_ENOMEM;
    if (!to) { /* it has cost the connection, so it was accepted */
        missed(loop, s);
        return RT__HIGH;
    }
    frame_copy(to, &h, data, len);
    error = put(loop, s, piece, lane, key);
    return error == 0 && s->state == RT_AWAY && !away ? RT__HIGH : error;
}

/* A short reliable message to a plain WebSocket, behind another one: nearly all
   of them.  1: it is queued. */
static int send_short(rt_loop *loop, rt__session *s, int kind, const void *data,
                      size_t len)
{
    rt__conn *c = s->conn;
    size_t head = len < 126 ? 2 : 4;
    uint8_t *to;
    if (kind > RT_BINARY || len > 1024 || rt__keep_of(s) || !c ||
        c->state != RT__LIVE || c->wire != RT__WS_SERVER ||
        rt__ep_of(s)->codec || !(to = rt__out_append(loop, c, head + len)))
        return 0;
    rt__frame_write(to, kind, len, NULL);
    if (len)
        memcpy(to + head, data, len);
    loop->stats.messages_out++;
    return 1;
}

int rt_send(rt_loop *loop, rt_session to, int kind, const void *data,
            size_t len)
{
    int error;
    rt__session *s = rt__session_get(loop, to.id, &error);
    if (!s || (error = kind_check(s, kind, data, len)) < 0)
        return error;
    if (send_short(loop, s, kind, data, len))
        return 0;
    error = send_one(loop, s, kind, data, len);
    return error == RT__SKIPPED ? RT__HIGH : error;
}

void rt__cast_open(rt__cast *cast, uint64_t owner, int kind, const void *data,
                   size_t len)
{
    memset(cast, 0, sizeof *cast);
    cast->owner = owner;
    cast->kind = kind;
    cast->data = data;
    cast->len = len;
}

/* Room for a frame in the buffer that the owner's messages share, so that
   those of a turn leave in one piece.  Others' stay out: a slow member should
   hold no more than what it waits for. */
static rt__buf *cast_room(rt_loop *loop, uint64_t owner, size_t size)
{
    rt__buf *b = loop->cast;
    size_t cap = size;
    if (b && b->refs == 1)
        b->len = 0;
    else if (b && owner != loop->cast_owner)
        b = NULL;
    loop->cast_owner = owner;
    if (b && b->cap - b->len >= size)
        return b;
    if (b && b->cap < 16384 && b->cap * (size_t)2 > size)
        cap = b->cap * (size_t)2;
    b = rt__buf_new(loop, cap);
    if (!b)
        return NULL;
    rt__buf_release(loop, loop->cast);
    return loop->cast = b;
}

/* Client frames have masks of their own, a codec's heads may differ. */
static int shareable(const line *l)
{
    return !l->codec && l->wire != RT__WS_CLIENT && l->wire != RT__RAW;
}

static rt__piece *cast_form(rt_loop *loop, rt__cast *cast, const line *l)
{
    rt__piece *form = &cast->form[(l->wire == RT__STREAM) + 2 * l->typed];
    frame_head h;
    rt__buf *b;
    if (form->buf)
        return form;
    h = head_make(loop, l, cast->kind, cast->len);
    b = cast_room(loop, cast->owner, h.len + cast->len);
    if (!b)
        return NULL;
    form->buf = b;
    form->off = b->len;
    form->len = (uint32_t)(h.len + cast->len);
    frame_copy(rt__buf_data(b) + b->len, &h, cast->data, cast->len);
    b->len += form->len;
    b->refs++;
    return form;
}

static int cast_one(rt_loop *loop, rt__cast *cast, rt__session *s)
{
    rt__piece *form;
    uint32_t key;
    enum rt__lane lane = lane_of(cast->kind, &key);
    line l;
    int error;
    if (!rt__ep_of(s)->codec && (cast->kind & 0xff) > RT_BINARY)
        return RT_EINVAL;
    if ((error = send_begin(loop, s)) < 0)
        return error;
    l = line_of(s);
    if (!shareable(&l))
        return send_one(loop, s, cast->kind, cast->data, cast->len);
    if (!(form = cast_form(loop, cast, &l)))
        return RT_ENOMEM;
    if ((error = room(loop, s, lane, key, form->len, cast->len)) != 0)
        return error;
    if (online(s) && rt__out_open(loop, s->conn) < 0)
        return RT_ENOMEM;
    form->buf->refs++;
    return put(loop, s, *form, lane, key);
}

/* As rt_send to one of many.  One for whom there is no memory ends: the sender
   gets a number alone, and a stream never has a silent hole. */
int rt__cast_to(rt_loop *loop, rt__cast *cast, rt__session *s)
{
    uint32_t key;
    int error = alive(s) ? cast_one(loop, cast, s) : RT_EGONE;
    if (error == RT_ENOMEM && lane_of(cast->kind, &key) == RT__RELIABLE)
        missed(loop, s);
    return error;
}

void rt__cast_close(rt_loop *loop, rt__cast *cast)
{
    size_t i;
    for (i = 0; i < sizeof cast->form / sizeof *cast->form; i++)
        rt__buf_release(loop, cast->form[i].buf);
}

/* Is a value of that key still on its way to the session? */
int rt__key_waits(const rt__session *s, int key)
{
    const rt__conn *c = online(s);
    uint32_t number = (uint32_t)key + 1; /* as lane_of says */
    if (rt__keep_of(s) && rt__keep_of(s)->flow &&
        held_find(rt__keep_of(s)->flow, number))
        return 1;
    return c && c->out && rt__out_has_key(c->out, number);
}

/* It has a newer one already: none of that key is sent any more. */
void rt__key_forget(rt_loop *loop, rt__session *s, int key)
{
    rt__flow *f = rt__keep_of(s) ? rt__keep_of(s)->flow : NULL;
    rt__held *held = f ? held_find(f, (uint32_t)key + 1) : NULL;
    if (held)
        held_release(loop, f, (uint32_t)(held - f->held));
    if (online(s))
        rt__out_forget(loop, s->conn->out, (uint32_t)key + 1);
}

static int took(int error)
{
    return error == RT__TAKEN || error == RT__HIGH;
}

int rt_send_many(rt_loop *loop, const rt_session *to, size_t n, int kind,
                 const void *data, size_t len)
{
    rt__cast cast;
    int count = 0, error = rt__send_check(kind, data, len);
    size_t i;
    if (error < 0)
        return error;
    rt__cast_open(&cast, 0, kind, data, len);
    for (i = 0; i < n; i++) {
        rt__session *s = rt__session_get(loop, to[i].id, &error);
        if (s)
            count += took(rt__cast_to(loop, &cast, s));
    }
    rt__cast_close(loop, &cast);
    return count;
}

/* ---- user ids ----------------------------------------------------------- */

/* A user id in the table has at least one session, and none that is closing:
   one that ends unbinds itself at once.  Policy counts sessions, not
   connections, so a resume is never a second login. */

static rt__user *user_find(rt_loop *loop, const char *uid, uint64_t *hash)
{
    rt__node *n;
    *hash = rt__hash(loop, uid, strlen(uid));
    n = rt__table_find(&loop->users, *hash);
    while (n && strcmp(((rt__user *)n)->uid, uid) != 0)
        n = rt__table_more(n);
    return (rt__user *)n;
}

static int uid_valid(const char *uid)
{
    size_t n = uid ? strlen(uid) : 0;
    return n > 0 && n <= RT__NAME;
}

/* The holder that has been away longest; NULL: all are here. */
static rt__session *longest_away(const rt_loop *loop, const rt__user *u,
                                 const rt__session *but)
{
    rt__session *s, *found = NULL;
    uint64_t since, oldest = UINT64_MAX;
    for (s = u->first; s; s = s->is.more->next_bound) {
        if (s == but || s->state != RT_AWAY || !rt__keep_of(s)->flow)
            continue;
        /* The timer of the window tells when it began. */
        since =
            rt__timer_due(loop, &rt__keep_of(s)->flow->timer) - window_of(s);
        if (since >= oldest)
            continue;
        oldest = since;
        found = s;
    }
    return found;
}

static int most_bound(const rt_loop *loop)
{
    return loop->opts.bind_policy == RT_BIND_MANY ? loop->opts.bind_max : 1;
}

/* Would binding to it be refused now?  One who is away blocks nobody: a player
   whose line broke may log in again before the window is over. */
int rt__uid_check(rt_loop *loop, const char *uid)
{
    uint64_t hash;
    rt__user *u = uid_valid(uid) ? user_find(loop, uid, &hash) : NULL;
    if (!uid_valid(uid))
        return RT_EINVAL;
    if (!u || loop->opts.bind_policy == RT_BIND_NEWEST ||
        u->count < most_bound(loop) || longest_away(loop, u, NULL))
        return 0;
    return RT_EREFUSED;
}

/* A newer login than the policy has room for: who goes? */
static void bound_too_many(rt_loop *loop, rt__user *u, rt__session *newest)
{
    rt__session *goes;
    if (u->count <= most_bound(loop))
        return;
    goes = loop->opts.bind_policy == RT_BIND_NEWEST
               ? newest->is.more->next_bound
               : longest_away(loop, u, newest);
    if (goes)
        rt__session_end(loop, goes, RT_CLOSE_REPLACED, RT_BY_REPLACE,
                        "a newer login");
}

static void user_free(rt_loop *loop, rt__user *u)
{
    rt__strfree(loop, u->uid);
    rt__free(loop, u, sizeof *u);
}

static rt__user *user_new(rt_loop *loop, const char *uid, uint64_t hash)
{
    rt__user *u = (rt__user *)rt__alloc(loop, sizeof *u);
    if (!u)
        return NULL;
    u->uid = rt__strdup(loop, uid);
    u->node.hash = hash;
    if (u->uid && rt__table_add(loop, &loop->users, &u->node) == 0)
        return u;
    user_free(loop, u);
    return NULL;
}

/* A session that ended can never take a newer one's place out of the table:
   only itself is looked for. */
static void unbind(rt_loop *loop, rt__session *s)
{
    rt__user *u = bound_of(s);
    rt__session **p;
    if (!u)
        return;
    s->is.more->bound = NULL;
    for (p = &u->first; *p != s; p = &(*p)->is.more->next_bound)
        ;
    *p = s->is.more->next_bound;
    s->is.more->next_bound = NULL;
    u->count--;
    if (u->first)
        return;
    rt__table_remove(&loop->users, &u->node);
    user_free(loop, u);
}

/* Its copy of the user id, in the place for it. */
static int uid_note(rt_loop *loop, rt__session *s, const char *uid)
{
    if (rt__more_open(loop, s) && (s->is.more->uid = rt__strdup(loop, uid)))
        return 0;
    rt__more_settle(loop, s);
    return RT_ENOMEM;
}

int rt__bind(rt_loop *loop, rt__session *s, const char *uid)
{
    uint64_t hash;
    rt__user *u;
    int error = rt__uid_check(loop, uid);
    if (error < 0)
        return error;
    /* All that can fail comes before anything is bound. */
    if (uid_note(loop, s, uid) < 0)
        return RT_ENOMEM;
    u = user_find(loop, uid, &hash);
    if (!u && !(u = user_new(loop, uid, hash))) {
        rt__strfree(loop, s->is.more->uid);
        s->is.more->uid = NULL;
        rt__more_settle(loop, s);
        return RT_ENOMEM;
    }
    if (rt__keep_of(s) && rt__keep_of(s)->flow)
        away_unlist(loop,
                    rt__keep_of(s)->flow); /* it gives way to nobody now */
    if (rt__ep_of(s)->bind_ms)
        rt__timers_stop_fn(loop, s, unbound_over);
    s->is.more->bound = u;
    s->is.more->next_bound = u->first;
    u->first = s;
    u->count++;
    bound_too_many(loop, u, s);
    return 0;
}

int rt_bind(rt_loop *loop, rt_session handle, const char *uid)
{
    int error;
    rt__session *s = rt__session_get(loop, handle.id, &error);
    if (!s)
        return error;
    return bound_of(s) ? RT_EBOUND : rt__bind(loop, s, uid);
}

rt_session rt_find(rt_loop *loop, const char *uid)
{
    rt_session handle = {0};
    uint64_t hash;
    rt__user *u = uid_valid(uid) ? user_find(loop, uid, &hash) : NULL;
    if (u)
        handle.id = u->first->id;
    return handle;
}

const char *rt_uid(rt_loop *loop, rt_session handle)
{
    rt__session *s = session_any(loop, handle);
    return s ? uid_of(s) : NULL;
}

/* Only s itself can leave the list while it is walked: whoever gives way to it
   when too many are away has no user id.  With the last one u is freed, and
   only whether there was one is asked behind the loop. */
int rt_push(rt_loop *loop, const char *uid, int kind, const void *data,
            size_t len)
{
    uint64_t hash;
    rt__user *u;
    rt__session *s, *next;
    rt__cast cast;
    int count = 0, error = rt__send_check(kind, data, len);
    if (error < 0 || !uid_valid(uid))
        return error < 0 ? error : RT_EINVAL;
    rt__cast_open(&cast, 0, kind, data, len);
    u = user_find(loop, uid, &hash);
    for (s = u ? u->first : NULL; s; s = next) {
        next =
            s->is.more->next_bound; /* a full queue ends s, which unbinds it */
        count += took(rt__cast_to(loop, &cast, s));
    }
    rt__cast_close(loop, &cast);
    if (!u)
        rt__note(loop, RT__PUSH_MISS, uid, kind, data, len);
    return count;
}

int rt_kick(rt_loop *loop, const char *uid, int code, const char *reason)
{
    uint64_t hash;
    rt__user *u;
    rt__session *s, *next;
    int count = 0;
    if (!code)
        code = RT_CLOSE_KICKED;
    if (!uid_valid(uid) || close_check(code, reason) < 0)
        return RT_EINVAL;
    u = user_find(loop, uid, &hash);
    for (s = u ? u->first : NULL; s; s = next) {
        next = s->is.more->next_bound;
        rt__session_end(loop, s, code, RT_BY_APP, reason ? reason : "");
        count++;
    }
    return count;
}

/* ---- tokens ------------------------------------------------------------- */

/* Whoever has the token has the session, so: 16 bytes of opts.random, by
   default the system's, and no fallback; found by a keyed hash and compared in
   constant time, so that the time of an answer tells nothing; wiped when void;
   in no log and no close reason. */

/* 16 bytes as 22 characters of base64url (RFC 4648, 5). */
static void token_text(const uint8_t bytes[16], char out[23])
{
    char text[25];
    int i;
    rt__base64(bytes, 16, text);
    for (i = 0; i < 22; i++)
        out[i] = (char)(text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i]);
    out[22] = 0;
}

static int digit64(int c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* The only spelling of 16 bytes: exactly 22 characters, the last of them with
   4 bits of 0. */
static int token_read(const char *text, uint8_t out[16])
{
    uint32_t bits = 0;
    int i, have = 0, n = 0;
    if (strlen(text) != 22 || !strchr("AQgw", text[21]))
        return 0;
    for (i = 0; i < 22; i++) {
        int d = digit64((uint8_t)text[i]);
        if (d < 0)
            return 0;
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have >= 8 && n < 16) {
            have -= 8;
            out[n++] = (uint8_t)(bits >> have);
        }
    }
    return 1;
}

/* Takes the same time wherever the two differ. */
static int same_secret(const uint8_t *a, const uint8_t *b)
{
    uint8_t differ = 0;
    int i;
    for (i = 0; i < 16; i++)
        differ |= (uint8_t)(a[i] ^ b[i]);
    return differ == 0;
}

static rt__token *token_find(rt_loop *loop, const uint8_t bytes[16])
{
    uint64_t hash = rt__hash(loop, bytes, 16);
    rt__node *n = rt__table_find(&loop->tokens, hash);
    while (n && !same_secret(((rt__token *)n)->bytes, bytes))
        n = rt__table_more(n);
    return (rt__token *)n;
}

/* Makes the bytes a name of the session. */
static int token_set(rt_loop *loop, rt__token *t, rt__session *s,
                     const uint8_t bytes[16], uint64_t attempt)
{
    memcpy(t->bytes, bytes, 16);
    t->node.hash = rt__hash(loop, bytes, 16);
    if (rt__table_add(loop, &loop->tokens, &t->node) < 0)
        return RT_ENOMEM;
    t->session = s;
    t->attempt = attempt;
    return 0;
}

static void token_void(rt_loop *loop, rt__token *t)
{
    if (!t->session)
        return;
    rt__table_remove(&loop->tokens, &t->node);
    t->session = NULL;
    memset(t->bytes, 0, sizeof t->bytes);
}

static int token_draw(rt_loop *loop, uint8_t bytes[16])
{
    return loop->opts.random(loop->opts.user, bytes, 16) < 0 ? RT_ERANDOM : 0;
}

/* Shown to others: says nothing of the token, nor of the handle, whose keyed
   hash it is.  64 bits are 11 characters. */
static void public_id(rt_loop *loop, const rt__session *s, char out[23])
{
    uint8_t bytes[16] = {0};
    uint64_t hash = rt__hash(loop, &s->id, sizeof s->id);
    memcpy(bytes, &hash, sizeof hash);
    token_text(bytes, out);
    out[11] = 0;
}

/* ---- sessions that can resume: their life ------------------------------- */

int rt__keep_open(rt_loop *loop, rt__session *s)
{
    if (!rt__keep_of(s))
        keep_set(s, (rt__keep *)rt__alloc(loop, sizeof(rt__keep)));
    return rt__keep_of(s) ? 0 : RT_ENOMEM;
}

/* It cannot resume any more: what it counts from now on begins with what is
   not known to have arrived. */
void rt__keep_close(rt_loop *loop, rt__session *s)
{
    rt__keep *keep = s ? rt__keep_of(s) : NULL;
    if (!keep)
        return;
    s->of.lost = (uint32_t)keep_unacked(s);
    keep_void(loop, s);
    if (keep->flow)
        flow_free(loop, keep->flow);
    rt__free(loop, keep, sizeof *keep);
    keep_set(s, NULL);
}

/* How many messages are not known to have arrived. */
static uint64_t keep_unacked(const rt__session *s)
{
    const rt__keep *k = rt__keep_of(s);
    const rt__flow *f = k->flow;
    uint64_t most, lost;
    if (!f || rt__ep_of(s)->dial) /* a client's f->lost is the server's loss */
        return f ? k->n - f->acked : 0;
    lost = f->lost + (k->n - f->acked);
    most = k->n - f->known; /* a peer may have forgotten what it had */
    return f->lost > 0 && lost > most ? most : lost;
}

static void away_unlist(rt_loop *loop, rt__flow *f)
{
    if (!f->away_listed)
        return;
    f->away_listed = 0;
    if (f->away_prev)
        f->away_prev->away_next = f->away_next;
    else
        loop->away_first = f->away_next;
    if (f->away_next)
        f->away_next->away_prev = f->away_prev;
    else
        loop->away_last = f->away_prev;
}

static void away_list(rt_loop *loop, rt__flow *f)
{
    f->away_listed = 1;
    f->away_next = NULL;
    f->away_prev = loop->away_last;
    if (f->away_prev)
        f->away_prev->away_next = f;
    else
        loop->away_first = f;
    loop->away_last = f;
}

static void away_over(rt_loop *loop, rt__flow *f)
{
    if (!f->is_away)
        return;
    f->is_away = 0;
    loop->away_count--;
    rt__timer_clear(loop, &f->timer);
    away_unlist(loop, f);
}

/* From the instant a session ends its tokens are void. */
static void keep_void(rt_loop *loop, rt__session *s)
{
    if (!rt__keep_of(s))
        return;
    token_void(loop, &rt__keep_of(s)->token);
    if (!rt__keep_of(s)->flow)
        return;
    token_void(loop, &rt__keep_of(s)->flow->previous);
    away_over(loop, rt__keep_of(s)->flow);
    rt__timer_clear(loop, &rt__keep_of(s)->flow->timer);
}

/* Cuts both pointers.  What the connection has taken is noted, because a peer
   may claim no more than that; it is read from the queue, so whoever discards
   that does so afterwards. */
static void detach(rt__session *s)
{
    rt__flow *f = rt__keep_of(s)->flow;
    uint64_t taken = online(s) ? taken_now(s) : 0;
    if (taken > f->top)
        f->top = taken;
    f->taken = 0;
    f->taken_bytes = 0;
    s->conn->session = NULL;
    s->conn = NULL;
}

/* When a client tries again: full jitter over a doubling span (0.5 s to 20 s),
   or what the server asked for.  All clients of a server that fell lose it in
   the same instant, and must not come back in one. */
static void retry_schedule(rt_loop *loop, rt__session *s)
{
    rt__dial *d = rt__ep_of(s)->dial;
    uint64_t span = (uint64_t)500 << (d->tries < 6 ? d->tries : 6);
    uint64_t wait;
    if (span > 20000)
        span = 20000;
    wait = d->retry_ms ? d->retry_ms - 1 : rt__random(loop) % (span + 1);
    d->retry_ms = 0;
    d->tries++;
    rt__timer_set(loop, &rt__keep_of(s)->flow->timer, rt_now(loop) + wait);
}

/* Too many are away: an unbound one gives way to a bound one, the longest away
   first; an unbound one that comes when all is full ends itself.  They hold no
   descriptor, so without this bound whoever opens sessions and leaves them
   would fill the memory for a whole window. */
static void away_most(rt_loop *loop, rt__session *s)
{
    rt__session *goes = s;
    if (loop->away_count <= RT__AWAY_MOST)
        return;
    if (bound_of(s) && loop->away_first)
        goes = loop->away_first->session;
    rt__session_end(loop, goes, RT_CLOSE_EXPIRED, RT_BY_LIMIT,
                    "too many are away");
}

/* It has no connection any more, and a window of time to get another. */
static void session_away(rt_loop *loop, rt__session *s)
{
    rt__flow *f = rt__keep_of(s)->flow;
    f->ack_owed = 0;
    ring_trim(loop, f, 1);
    if (s->state == RT_OPENING) { /* dialled, never opened: from the start */
        rt__ep_of(s)->dial->token[0] = 0;
        retry_schedule(loop, s);
        return;
    }
    if (s->state != RT_AWAY) /* a client's further tries are not told */
        rt__session_todo(loop, s, RT__TODO_AWAY);
    s->state = RT_AWAY;
    if (rt__ep_of(s)->dial && rt__ep_of(s)->dial->resume) {
        if (!f->timer.at)
            retry_schedule(loop, s);
        return;
    }
    f->is_away = 1;
    loop->away_count++;
    if (!bound_of(s))
        away_list(loop, f);
    rt__timer_set(loop, &f->timer, rt_now(loop) + window_of(s));
    away_most(loop, s);
}

/* The connection is gone or going: 1 when its session lives on without. */
int rt__session_lost(rt_loop *loop, rt__conn *c)
{
    rt__session *s = c->session;
    if (!s || !resumable(s) || !flow_open(loop, s))
        return 0;
    detach(s);
    rt__out_discard(loop, c); /* it is kept: nobody must get it twice */
    session_away(loop, s);
    return 1;
}

static int comes_back(int code)
{
    return code == 1001 || code == 1005 || code == 1006 || code == 1011 ||
           (code >= 1013 && code <= 1015) || (code >= 3000 && code <= 3499) ||
           (code >= 4000 && code <= 4499);
}

/* "retry=<ms>", at most an hour, and 1; 0 when it says nothing of the kind.
   The bound stands inside the loop, too: digits without end cannot overflow. */
static uint32_t retry_read(const char *reason)
{
    uint32_t ms = 0;
    const char *p = strstr(reason, "retry=");
    if (!p)
        return 0;
    for (p += 6; *p >= '0' && *p <= '9' && ms < 3600000; p++)
        ms = ms * 10 + (uint32_t)(*p - '0');
    return (ms < 3600000 ? ms : 3600000) + 1;
}

/* The server drains: this session is over, and another one is asked for when
   it said. */
static void dial_anew(rt_loop *loop, rt__session *old, const char *reason)
{
    rt__dial *d = rt__ep_of(old)->dial;
    rt__session *s = NULL;
    if (loop->draining)
        return; /* so do we */
    s = rt__session_new(loop, rt__ep_of(old), NULL, 0);
    if (!s || rt__keep_open(loop, s) < 0 || !flow_open(loop, s)) {
        if (s)
            rt__session_forget(loop, s);
        rt__log(loop, RT_LOG_ERROR, "not dialled anew", rt_strerror(RT_ENOMEM));
        return;
    }
    d->token[0] = 0;
    d->attempt = 0;
    d->retry_ms = retry_read(reason);
    retry_schedule(loop, s);
}

/* The peer closed: 1 when its session lives on (RESUME, the table of codes). */
int rt__session_left(rt_loop *loop, rt__conn *c, int code, const char *reason)
{
    rt__session *s = c->session;
    rt__dial *d = rt__ep_of(s)->dial;
    if (d && d->resume) {
        if (code == 1012)
            dial_anew(loop, s, reason);
        if (!comes_back(code))
            return 0;
        d->retry_ms = retry_read(reason);
    } else if (code == 1000) {
        return 0;
    }
    return rt__session_lost(loop, c);
}

/* Loses the connection, with a code for the peer; a session that cannot resume
   ends.  0. */
int rt__session_drop(rt_loop *loop, rt__session *s, int code, int cause,
                     const char *reason)
{
    rt__conn *c = s->conn;
    if (!c || !resumable(s) || !flow_open(loop, s)) {
        /* One that does not read would not take the close frame behind a full
           queue. */
        if (c && code == RT_CLOSE_SLOW)
            rt__out_discard(loop, c);
        return rt__session_end(loop, s, code, cause, reason);
    }
    detach(s);
    rt__out_discard(loop, c); /* it is kept, and will be sent again */
    if (rt__ws_close(loop, c, code, reason) < 0)
        rt__conn_kill(loop, c);
    else
        rt__conn_finish_soon(loop, c);
    session_away(loop, s);
    return 0;
}

/* The window is over, or a client's wait. */
void rt__flow_due(rt_loop *loop, rt__flow *f)
{
    rt__session *s = f->session;
    if (!rt__ep_of(s)->dial || !rt__ep_of(s)->dial->resume) {
        rt__session_end(loop, s, RT_CLOSE_EXPIRED, RT_BY_TIMEOUT, "");
        return;
    }
    if (rt__dial_again(loop, s) < 0)
        retry_schedule(loop, s);
}

/* Its groups were told that it went away, and will be that it is back. */
int rt__told_away(const rt__session *s)
{
    return rt__keep_of(s) && rt__keep_of(s)->flow &&
           rt__keep_of(s)->flow->told_away;
}

/* See rt__out_lift. */
void rt__session_lift(rt_loop *loop, rt__session *s, int on)
{
    if (online(s))
        rt__out_lift(loop, s->conn, on);
}

/* What is lost is told once, here or in on_close; snapshots make up for it. */
static void back_now(rt_loop *loop, rt__session *s)
{
    rt__flow *f = rt__keep_of(s)->flow;
    int told = rt__told_away(s);
    uint64_t lost = f ? f->lost : 0;
    if (f)
        f->lost = f->told_away = 0;
    if (told)
        rt__groups_presence(loop, s, RT_CAME_BACK);
    tell_back(loop, s, lost);
    rt__groups_repay(loop, s);
}

/* What is told from now on is that it comes back. */
static void away_lasts(rt_loop *loop, rt__session *s)
{
    if (s->state != RT_AWAY || !rt__keep_of(s)->flow || rt__told_away(s))
        return;
    rt__keep_of(s)->flow->told_away = 1;
    rt__groups_presence(loop, s, RT_WENT_AWAY);
}

/* Away, and perhaps back already; groups hear of it only if it lasted.  One
   that was away, and back for less than a turn, never came back: also one that
   on_away found back, and dropped again. */
static void keep_events(rt_loop *loop, rt__session *s, int todo)
{
    if (todo & RT__TODO_AWAY && !rt__told_away(s)) {
        away_lasts(loop, s);
        tell_away(loop, s);
        away_lasts(loop, s);
    }
    if (todo & RT__TODO_BACK && s->state == RT_OPEN)
        back_now(loop, s);
}

/* ---- rtnet.1: the messages ---------------------------------------------- */

/* The grammar is RESUME, A2: one spelling for each value and one space between
   fields, so two implementations cannot read a text differently. */

/* One of the numbers of a greeting, at *p, which moves behind it. */
static int number_read(const char **p, uint64_t *out)
{
    const char *begin = *p;
    *out = 0;
    /* 16 digits cannot overflow 64 bits, and 2^53 - 1 has 16. */
    while (**p >= '0' && **p <= '9' && *p - begin < 16)
        *out = *out * 10 + (uint64_t)(*(*p)++ - '0');
    if (*p == begin || (*begin == '0' && *p - begin > 1))
        return 0;
    return *out <= RT__NUMBER_MOST;
}

/* A word of letters, digits, '-' and '_' of at most cap - 1 characters. */
static int word_read(const char **p, char *out, size_t cap)
{
    size_t n = 0;
    while (digit64((uint8_t) * *p) >= 0 && n + 1 < cap)
        out[n++] = *(*p)++;
    out[n] = 0;
    return n > 0;
}

static int space_read(const char **p)
{
    return *(*p)++ == ' ';
}

typedef struct {
    int named; /* it has a token */
    uint8_t token[16];
    uint64_t received, attempt;
} hello;

static int hello_read(const char *p, hello *h)
{
    char word[24];
    memset(h, 0, sizeof *h);
    if (!*p)
        return 1;
    h->named = 1;
    return word_read(&p, word, sizeof word) && token_read(word, h->token) &&
           space_read(&p) && number_read(&p, &h->received) && space_read(&p) &&
           number_read(&p, &h->attempt) && !*p;
}

typedef struct {
    char token[24], who[24], status[8];
    uint64_t received, base, ping;
} welcome;

static int welcome_read(const char *p, welcome *w)
{
    uint8_t bytes[16];
    return word_read(&p, w->token, sizeof w->token) &&
           (!strcmp(w->token, "-") || token_read(w->token, bytes)) &&
           space_read(&p) && word_read(&p, w->who, sizeof w->who) &&
           strlen(w->who) <= 22 && space_read(&p) &&
           number_read(&p, &w->received) && space_read(&p) &&
           number_read(&p, &w->base) && space_read(&p) &&
           word_read(&p, w->status, sizeof w->status) && space_read(&p) &&
           number_read(&p, &w->ping) && !*p;
}

/* `w`: the server's answer to `h`. */
static int welcome_send(rt_loop *loop, rt__conn *c, uint64_t base,
                        const char *status)
{
    rt__session *s = c->session;
    char text[131], token[23] = "-", who[23];
    int n;
    if (rt__keep_of(s)->token.session)
        token_text(rt__keep_of(s)->token.bytes, token);
    public_id(loop, s, who);
    n = snprintf(text, sizeof text, "w%s %s %llu %llu %s %lu", token, who,
                 (unsigned long long)rt__keep_of(s)->received,
                 (unsigned long long)base, status,
                 (unsigned long)rt__ep_of(s)->ping_ms);
    memset(token, 0, sizeof token);
    return rt__ws_control(loop, c, RT_TEXT, text, (size_t)n);
}

/* The connection carries the session from here on.  Asking for events can fail,
   and that loses it again: < 0. */
static int attach(rt_loop *loop, rt__conn *c, rt__session *s)
{
    c->session = s;
    s->conn = c;
    if (rt__keep_of(s) && rt__keep_of(s)->flow) {
        rt__keep_of(s)->flow->wire = (enum rt__wire)c->wire;
        rt__keep_of(s)->flow->typed = c->typed;
    }
    rt__conn_opened(loop, c);
    rt__conn_interest(loop, c);
    if (c->typed && c->confirmed && s->conn == c)
        rt__typed_due(loop, c);
    return s->conn == c ? 0 : RT_EGONE;
}

/* The kind and the head of a frame that is kept, its payload as it is.  What a
   codec put in front is payload here. */
static size_t frame_open(const uint8_t *p, size_t size, const line *from,
                         int *kind, rt__frame *f)
{
    size_t head = from->wire == RT__STREAM ? 4 : 0;
    int type;
    *kind = RT_BINARY;
    f->masked = 0;
    if (from->wire <= RT__WS_CLIENT) {
        head = (size_t)rt__frame_read(p, size, from->wire == RT__WS_CLIENT, f);
        *kind = f->op;
    }
    if (!from->typed)
        return head;
    type = f->masked ? p[head] ^ f->mask[0] : p[head];
    if (from->wire == RT__STREAM && type >= 'a')
        *kind = RT_TEXT;
    if (type == 'u' || type == 'U')
        *kind |= RT_DROPPABLE;
    return head + 1;
}

/* Frames a kept message anew, for another wire or with another mask; the old
   frame stays as it is. */
static int ring_reframe(rt_loop *loop, rt__session *s, const rt__piece *piece,
                        rt__piece *fresh, const line *from, const line *to)
{
    uint8_t *p = rt__buf_data(piece->buf) + piece->off, *out;
    frame_head h;
    rt__frame f;
    int kind;
    size_t head = frame_open(p, piece->len, from, &kind, &f);
    size_t len = piece->len - head;
    h = head_make(loop, to, kind, len);
    out = keep_reserve(loop, rt__keep_of(s)->flow, h.len + len, fresh);
    if (!out)
        return RT_ENOMEM;
    if (f.masked) /* unmasked for the copy, and masked again */
        rt__mask(p + head, p + head, len, f.mask, (size_t)from->typed);
    frame_copy(out, &h, p + head, len);
    if (f.masked)
        rt__mask(p + head, p + head, len, f.mask, (size_t)from->typed);
    return 0;
}

/* The i-th of what is kept, the held values behind the ring. */
static rt__piece *kept_nth(rt__flow *f, uint32_t i)
{
    return i < f->count ? &f->ring[f->head + i] : &f->held[i - f->count].piece;
}

/* All that is kept is framed for the new connection, or nothing is: a ring with
   frames of two kinds could not be read again.  A client frames anew even for
   the same wire, because no frame goes out twice with one mask. */
static int ring_adapt(rt_loop *loop, rt__session *s, const line *from)
{
    line to = line_of(s);
    rt__flow *f = rt__keep_of(s)->flow;
    uint32_t i, n = f->count + f->held_count;
    rt__piece *fresh;
    to.codec = NULL; /* its heads are in the frames already */
    if (n == 0 || (to.wire == from->wire && to.wire != RT__WS_CLIENT))
        return 0;
    fresh = (rt__piece *)rt__realloc(loop, NULL, 0, n * sizeof *fresh);
    for (i = 0; fresh && i < n; i++)
        if (ring_reframe(loop, s, kept_nth(f, i), &fresh[i], from, &to) < 0)
            break;
    if (!fresh || i < n) {
        while (fresh && i-- > 0)
            rt__buf_release(loop, fresh[i].buf);
        rt__free(loop, fresh, n * sizeof *fresh);
        f->wire = from->wire;
        f->typed = (uint8_t)from->typed;
        return RT_ENOMEM;
    }
    for (i = 0; i < n; i++) {
        rt__buf_release(loop, kept_nth(f, i)->buf);
        *kept_nth(f, i) = fresh[i];
    }
    rt__free(loop, fresh, n * sizeof *fresh);
    return 0;
}

/* Queues what is kept again, in order, and the held values behind it.  No room
   is asked for: the caps of the ring, and for what was never written the mark
   under which it was accepted, bound it. */
static int replay(rt_loop *loop, rt__session *s)
{
    rt__flow *f = rt__keep_of(s)->flow;
    rt__conn *c = s->conn;
    uint32_t i;
    if (f->count + f->held_count > 0 && rt__out_open(loop, c) < 0)
        return RT_ENOMEM;
    for (i = 0; i < f->count; i++) {
        f->ring[f->head + i].buf->refs++;
        if (rt__out_put(loop, c, f->ring[f->head + i], RT__RELIABLE, 0) < 0)
            return RT_ENOMEM;
    }
    for (i = 0; i < f->held_count; i++) {
        f->held[i].written = 0;
        f->held[i].piece.buf->refs++;
        if (rt__out_put(loop, c, f->held[i].piece, RT__KEYED, f->held[i].key) <
            0)
            return RT_ENOMEM;
    }
    return 0;
}

/* ---- rtnet.1: the server's side ----------------------------------------- */

/* An unknown token, a void one and one that the host refuses get the same
   answer, a new session: guessing teaches nothing, and no peer can choose the
   token of a session to come. */

/* The connection is sent away, the session it named is as it was. */
static int greeting_refuse(rt_loop *loop, rt__conn *c, int code,
                           const char *reason)
{
    if (rt__ws_close(loop, c, code, reason) < 0)
        rt__conn_kill(loop, c);
    else
        rt__conn_finish_soon(loop, c);
    return 0;
}

/* It may come again, when there is less to do. */
static int greeting_shed(rt_loop *loop, rt__conn *c, enum rt__refusal why)
{
    char reason[24];
    rt__refused(loop, why);
    snprintf(reason, sizeof reason, "retry=%lu",
             (unsigned long)rt__retry_ms(loop, c->ep));
    return greeting_refuse(loop, c, 1013, reason);
}

/* h without a token, or with one that nobody knows. */
static int session_begin(rt_loop *loop, rt__conn *c)
{
    rt__session *s = rt__shake_session(loop, rt__shake_of(c));
    uint8_t bytes[16];
    if (!s)
        return greeting_shed(loop, c, rt__shake_lack(rt__shake_of(c)));
    /* Without random bytes there is no token, `w` says "-", and the session
       ends with its connection. */
    if (rt__keep_open(loop, s) < 0 ||
        (c->ep->resume_ms && token_draw(loop, bytes) == 0 &&
         token_set(loop, &rt__keep_of(s)->token, s, bytes, 0) < 0)) {
        rt__session_forget(loop, s);
        return greeting_shed(loop, c, RT__REFUSED_MEMORY);
    }
    attach(loop, c, s);
    if (welcome_send(loop, c, 0, "new") < 0) {
        c->session = NULL; /* it was never told of */
        rt__session_forget(loop, s);
        rt__conn_kill(loop, c);
        return 0;
    }
    rt__tell_open(loop, s);
    /* Only now: rt_request_of answers until on_open has returned. */
    rt__shake_strip(loop, c);
    return 0;
}

/* May this connection have that session?  The host may say no; < 0: it could
   not be asked. */
static int resume_allowed(rt_loop *loop, rt__conn *c, rt__session *s)
{
    /* A user id that the host gave at the upgrade is compared, not bound: bound
       now, it would be a newer login and replace the very session that comes
       back. */
    const char *uid = rt__shake_uid(rt__shake_of(c));
    uint64_t fresh;
    if (memcmp(&rt__ep_of(s)->on, &c->ep->on, sizeof rt__ep_of(s)->on) != 0 ||
        (uid && (!uid_of(s) || strcmp(uid, uid_of(s)) != 0)))
        return 0;
    if (!rt__ep_of(s)->on.resume)
        return 1;
    fresh = rt__shake_id(loop, rt__shake_of(c));
    if (!fresh)
        return RT_ENOMEM;
    return tell_resume(loop, s, fresh) == 0 && alive(s);
}

/* More than 20 in 10 s would be an amplifier: each brings up to the whole ring
   for a few bytes, and may tell every group of the session. */
static int resumes_too_often(rt_loop *loop, rt__flow *f)
{
    if (!f->resumes)
        f->resumes = (rt__window *)rt__alloc(loop, rt__window_size(RESUMES));
    return !f->resumes ||
           rt__window_wait(f->resumes, RESUMES, RESUMES_MS, loop->now) > 0;
}

/* Another connection takes the session over from this one. */
static void supersede(rt_loop *loop, rt__session *s)
{
    rt__conn *c = s->conn;
    int midway = c->out && c->out->frame_left > 0;
    detach(s);
    rt__out_discard(loop, c);
    if (midway) /* nothing can be said inside a frame */
        rt__out_abandon(loop, c);
    else if (rt__ws_close(loop, c, RT_CLOSE_SUPERSEDED, "") < 0) {
        rt__conn_kill(loop, c);
        return;
    }
    rt__conn_finish_soon(loop, c);
}

/* The peer has `received`: says what is lost to it, and lets the rest be sent
   again.  *base: the number before the next. */
static uint64_t ring_rebase(rt_loop *loop, rt__session *s, uint64_t received,
                            uint64_t *base)
{
    rt__flow *f = rt__keep_of(s)->flow;
    ack_apply(loop, s, received);
    *base = received;
    if (received >= rt__keep_of(s)->n - f->count)
        return 0;
    ring_clear(loop, f);
    f->acked = *base = rt__keep_of(s)->n;
    return *base - received;
}

/* The token that was presented stays good until the first `a`; any third one
   is void. */
static int tokens_turn(rt_loop *loop, rt__session *s, const hello *h,
                       const uint8_t fresh[16])
{
    rt__token *previous = &rt__keep_of(s)->flow->previous;
    /* h has a copy: the token that it names is one of these two. */
    token_void(loop, &rt__keep_of(s)->token);
    token_void(loop, previous);
    if (token_set(loop, previous, s, h->token, h->attempt) < 0)
        return RT_ENOMEM;
    return token_set(loop, &rt__keep_of(s)->token, s, fresh, 0);
}

/* It has a connection again: the callbacks, after all else is done. */
static void come_back(rt_loop *loop, rt__session *s, int was_open)
{
    int owed = s->todo & RT__TODO_AWAY;
    s->todo &= ~(unsigned int)RT__TODO_AWAY & 15;
    if (was_open || owed)
        tell_away(loop, s);
    if (s->state == RT_OPEN)
        back_now(loop, s);
    else if (s->todo & RT__TODO_AWAY) { /* on_away lost it again: once told */
        s->todo &= ~(unsigned int)RT__TODO_AWAY & 15;
        rt__keep_of(s)->flow->told_away = 1;
        rt__groups_presence(loop, s, RT_WENT_AWAY);
    }
}

/* Everything that may refuse comes first; S is untouched by a refusal.  An
   attempt that is not greater is one that was overtaken by a later one of the
   same client, and would throw that out. */
static int resume_check(rt_loop *loop, rt__conn *c, rt__session *s,
                        rt__token *t, const hello *h, uint8_t fresh[16])
{
    rt__flow *f = flow_open(loop, s);
    uint64_t top = 0;
    if (h->attempt <= t->attempt)
        return greeting_refuse(loop, c, RT_CLOSE_STALE, "");
    if (f && online(s))
        top = taken_now(s);
    if (f && f->top > top)
        top = f->top;
    /* It claims messages that were never written to it. */
    if (f && h->received > top)
        return -1002;
    if (f && resumes_too_often(loop, f))
        return greeting_shed(loop, c, RT__REFUSED_REQUEST);
    if (!f || token_draw(loop, fresh) < 0)
        return greeting_shed(loop, c, RT__REFUSED_MEMORY);
    return 1;
}

/* A gap that was not told yet, and of which the peer never heard, is counted
   again in the next one. */
static void gap_untold(rt__session *s, uint64_t received)
{
    rt__flow *f = rt__keep_of(s)->flow;
    if (f->lost == 0)
        f->known = f->acked;
    else if (received < f->acked)
        f->lost = 0;
}

static int session_resume(rt_loop *loop, rt__conn *c, rt__session *s,
                          rt__token *t, const hello *h)
{
    uint8_t fresh[16];
    uint64_t base, lost;
    int was_open = s->state == RT_OPEN;
    int verdict = resume_check(loop, c, s, t, h, fresh);
    line from;
    if (verdict <= 0)
        return verdict;
    /* How the kept frames stand; attach() notes the new way. */
    from = line_of(s);
    if (s->conn)
        supersede(loop, s);
    /* Before away_over(), which stops the timer that says for how long. */
    credit_give(loop, s);
    gap_untold(s, h->received);
    lost = ring_rebase(loop, s, h->received, &base);
    rt__keep_of(s)->flow->lost +=
        lost; /* told by on_back, or, if that never comes, on_close */
    if (lost > 0)
        rt__groups_owe(s);
    rt__window_take(rt__keep_of(s)->flow->resumes, RESUMES, loop->now);
    acked_now(rt__keep_of(s)->flow); /* `w` says how many came */
    away_over(loop, rt__keep_of(s)->flow);
    s->state = RT_OPEN;
    rt__shake_strip(loop, c);
    attach(loop, c, s);
    if (tokens_turn(loop, s, h, fresh) < 0 ||
        welcome_send(loop, c, base, lost ? "gap" : "resumed") < 0 ||
        ring_adapt(loop, s, &from) < 0 || replay(loop, s) < 0) {
        if (!was_open)
            s->state = RT_AWAY; /* as the application knows it */
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, "out of memory");
        return 0;
    }
    /* Queued by now: `w`, then what is kept; what on_back sends comes
       behind. */
    loop->stats.resumed++;
    loop->stats.gaps += lost > 0;
    come_back(loop, s, was_open);
    return 0;
}

static int hello_in(rt_loop *loop, rt__conn *c, const char *text)
{
    hello h;
    rt__token *t;
    char reason[32];
    int allowed = 0;
    if (!hello_read(text, &h))
        return -1002;
    if (loop->draining) {
        rt__refused(loop, RT__REFUSED_SESSIONS);
        rt__drain_reason(loop, reason);
        return greeting_refuse(loop, c, 1012, reason);
    }
    t = h.named ? token_find(loop, h.token) : NULL;
    if (t)
        allowed = resume_allowed(loop, c, t->session);
    /* Asking for events may fail: here it has no session that would have to be
       told, and attach finds nothing to ask for. */
    rt__conn_interest(loop, c);
    if (c->state != RT__GREETING)
        return 0; /* or the host closed it meanwhile */
    if (allowed < 0)
        return greeting_shed(loop, c, RT__REFUSED_MEMORY);
    if (allowed)
        t = token_find(loop, h.token); /* the host may have ended it */
    return allowed && t ? session_resume(loop, c, t->session, t, &h)
                        : session_begin(loop, c);
}

/* ---- rtnet.1: the client's side ----------------------------------------- */

/* `h`, the first thing said on a connection. */
void rt__greet(rt_loop *loop, rt__conn *c)
{
    rt__session *s = c->session;
    rt__dial *d = rt__ep_of(s)->dial;
    char text[131] = "h";
    int n = 1;
    c->state = RT__GREETING;
    /* It is the server that waits for an `a`. */
    c->confirmed = 1;
    rt__timer_set(loop, &c->timer, rt_now(loop) + c->ep->handshake_ms);
    d->attempt++;
    if (d->token[0])
        n = snprintf(text, sizeof text, "h%s %llu %llu", d->token,
                     (unsigned long long)rt__keep_of(s)->received,
                     (unsigned long long)d->attempt);
    rt__conn_interest(loop, c);
    if (rt__ws_control(loop, c, RT_TEXT, text, (size_t)n) < 0)
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, "out of memory");
    memset(text, 0, sizeof text);
}

/* h or w did not come in time.  A server does not call that a violation: an
   honest client on a stalled line must be free to come back. */
void rt__greeting_over(rt_loop *loop, rt__conn *c)
{
    if (c->ep->dial)
        rt__conn_lost(loop, c, 1006, RT_BY_TIMEOUT, "no welcome");
    else
        greeting_refuse(loop, c, 1013, "retry=0");
}

static void welcome_note(rt__dial *d, const welcome *w)
{
    snprintf(d->token, sizeof d->token, "%.22s",
             strcmp(w->token, "-") ? w->token : "");
    snprintf(d->who, sizeof d->who, "%.22s", w->who);
    d->ping_ms = w->ping < INT32_MAX ? (uint32_t)w->ping : INT32_MAX;
    if (d->ping_ms < 20)
        d->ping_ms = 20; /* whatever the server says, the loop rests */
    d->attempt = 0;
    d->tries = 0;
}

/* `a` goes at once, before anything else. */
static int first_ack(rt_loop *loop, rt__conn *c)
{
    char text[24];
    int n = snprintf(text, sizeof text, "a%llu",
                     (unsigned long long)rt__keep_of(c->session)->received);
    if (rt__keep_of(c->session)->flow)
        acked_now(rt__keep_of(c->session)->flow);
    return rt__ws_control(loop, c, RT_TEXT, text, (size_t)n);
}

/* A new session on this connection. */
static int client_open(rt_loop *loop, rt__conn *c, rt__session *s)
{
    if (attach(loop, c, s) < 0)
        return 0;
    if (first_ack(loop, c) < 0) {
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, "out of memory");
        return 0;
    }
    rt__tell_open(loop, s);
    rt__shake_free(loop, c);
    return 0;
}

/* The server does not know the old session: it ends, and a new one with a new
   handle opens once that is told. */
static int client_anew(rt_loop *loop, rt__conn *c, const welcome *w)
{
    rt__session *old = c->session;
    rt__session *heir = rt__session_new(loop, c->ep, c, 0);
    /* With its flow, so that it can always lose its line and dial again: it
       must not end before it opens, for nobody knows its handle yet. */
    if (!heir || rt__keep_open(loop, heir) < 0 || !flow_open(loop, heir)) {
        if (heir)
            rt__session_forget(loop, heir);
        return -1011;
    }
    /* Not before there is an heir, for without one the old token is still the
       good one; and before the line can be lost, for who loses it before it
       opens forgets. */
    welcome_note(c->ep->dial, w);
    old->conn = NULL;
    heir->conn = c;
    c->session = heir;
    /* Nothing more is read until the heir has opened: its first message must
       not come before on_open. */
    c->hold |= RT__HOLD_HTTP;
    rt__conn_interest(loop, c);
    c->ep->dial->heir = heir;
    rt__session_end(loop, old, RT_CLOSE_EXPIRED, RT_BY_PEER, "");
    return 0;
}

/* Called behind the on_close of s, so the application never has both. */
static void heir_opens(rt_loop *loop, rt__session *s)
{
    rt__session *heir = rt__ep_of(s)->dial ? rt__ep_of(s)->dial->heir : NULL;
    rt__conn *c;
    if (!heir || heir == s)
        return;
    rt__ep_of(s)->dial->heir = NULL;
    c = heir->conn;
    if (heir->state != RT_OPENING || !c)
        return;
    c->hold &= (uint8_t)~RT__HOLD_HTTP;
    client_open(loop, c, heir);
    if (heir->conn && heir->conn->in && heir->conn->in->kept)
        rt__conn_wake(loop, heir->conn);
}

/* A server that claims what was never written to it, or goes back behind what
   it has acknowledged, would make the ring forget or repeat messages.  `top`
   suffices: on this connection a client has written none yet. */
static int welcome_fits(const rt__session *s, const welcome *w)
{
    const rt__flow *f = rt__keep_of(s)->flow;
    int gap = !strcmp(w->status, "gap");
    if (!gap && strcmp(w->status, "resumed") != 0)
        return 0;
    if (strcmp(rt__ep_of(s)->dial->who, w->who) != 0 ||
        !strcmp(w->token, "-") || w->received < f->acked ||
        w->received > f->top)
        return 0;
    return gap ? w->base > rt__keep_of(s)->received
               : w->base == rt__keep_of(s)->received;
}

static int client_back(rt_loop *loop, rt__conn *c, const welcome *w)
{
    rt__session *s = c->session;
    line from;
    from.wire = rt__keep_of(s)->flow->wire;
    from.typed = 1;
    from.codec = NULL;
    ack_apply(loop, s, w->received);
    rt__keep_of(s)->flow->lost += w->base - rt__keep_of(s)->received;
    rt__keep_of(s)->received = w->base;
    welcome_note(rt__ep_of(s)->dial, w);
    if (attach(loop, c, s) < 0)
        return 0;
    s->state = RT_OPEN;
    if (first_ack(loop, c) < 0 || ring_adapt(loop, s, &from) < 0 ||
        replay(loop, s) < 0) {
        s->state = RT_AWAY; /* as the application knows it */
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, "out of memory");
        return 0;
    }
    come_back(loop, s, 0);
    rt__shake_free(loop, c);
    return 0;
}

static int welcome_in(rt_loop *loop, rt__conn *c, const char *text)
{
    rt__session *s = c->session;
    rt__dial *d = rt__ep_of(s)->dial;
    welcome w;
    int known = d->token[0] != 0;
    if (!welcome_read(text, &w))
        return -1002;
    if (strcmp(w.status, "new") != 0) {
        if (!known || !flow_open(loop, s) || !welcome_fits(s, &w))
            return -1002;
        return client_back(loop, c, &w);
    }
    if (w.received || w.base)
        return -1002;
    if (known)
        return client_anew(loop, c, &w);
    welcome_note(d, &w);
    return client_open(loop, c, s);
}

/* ---- rtnet.1: input ------------------------------------------------------ */

/* One that says nothing new is counted as control; one that frees is a sign of
   life.  0 or a fault. */
static int ack_counted(rt_loop *loop, rt__conn *c, int idle)
{
    if (idle)
        return rt__control_in(loop, c);
    rt__conn_lives(loop, c);
    return 0;
}

/* The peer acknowledges; the first time it also confirms the connection, which
   voids the token before the present one: only now is it sure that the peer has
   the newer.  A number that was not written yet would free what nobody has. */
static int ack_in(rt_loop *loop, rt__conn *c, const char *text)
{
    rt__session *s = c->session;
    rt__flow *f = rt__keep_of(s)->flow;
    uint64_t a;
    if (!number_read(&text, &a) || *text || a > taken_now(s) ||
        a < (f ? f->acked : rt__keep_of(s)->n))
        return -1002;
    if (c->confirmed &&
        ack_counted(loop, c, a == (f ? f->acked : rt__keep_of(s)->n)) < 0)
        return -1008;
    if (!c->confirmed) {
        c->confirmed = 1;
        rt__shake_free(loop, c);
        rt__conn_opened(loop, c);
        rt__typed_due(loop, c);
        rt__session_pause(loop, s); /* it refills nothing to come back */
        f = rt__keep_of(s)->flow;
    }
    if (!f)
        return 0;
    token_void(loop, &f->previous);
    ack_apply(loop, s, a);
    settle_later(loop, c);
    return 0;
}

/* A control message as text with a NUL; NULL when it is too long. */
static const char *control_text(const uint8_t *data, size_t n, char out[131])
{
    if (n > 130 || memchr(data, 0, n))
        return NULL;
    memcpy(out, data, n);
    out[n] = 0;
    return out + 1; /* behind the letter */
}

/* The session is ending, but on_close may still tell better what arrived. */
static int late_ack(rt__session *s, const uint8_t *data, size_t n)
{
    char copy[131];
    const char *text =
        n > 0 && *data == 'a' ? control_text(data, n, copy) : NULL;
    uint64_t a;
    if (text && number_read(&text, &a) && !*text && rt__keep_of(s)->flow &&
        a > rt__keep_of(s)->flow->acked && a <= rt__keep_of(s)->n)
        rt__keep_of(s)->flow->acked = a;
    return 0;
}

static int counted_in(rt_loop *loop, rt__session *s, int op, uint8_t *data,
                      size_t n)
{
    int fault = count_in(loop, s, n);
    if (fault < 0)
        return fault;
    rt__tell_message(loop, s, op, data, n);
    return 0;
}

/* A message of rtnet.1, its type in front.  0 or a fault. */
int rt__typed_in(rt_loop *loop, rt__conn *c, int op, uint8_t *data, size_t n)
{
    rt__session *s = c->session;
    const char *text = NULL;
    char copy[131];
    uint8_t type = n > 0 ? data[0] : 0;
    /* Before any check: what comes behind the end is no violation any more. */
    if (s && s->state == RT_CLOSING)
        return late_ack(s, data, n);
    if (type != 'm' && type != 'u' &&
        (op != RT_TEXT || !(text = control_text(data, n, copy))))
        return -1002;
    if (c->state == RT__GREETING && !c->ep->dial)
        return type == 'h' ? hello_in(loop, c, text) : -1002;
    if (c->state == RT__GREETING)
        return type == 'w' ? welcome_in(loop, c, text) : -1002;
    if (!s)
        return -1002;
    if (type == 'a')
        return ack_in(loop, c, text);
    if (!c->confirmed || (type != 'm' && type != 'u'))
        return -1002;
    if (type == 'm')
        return counted_in(loop, s, op, data + 1, n - 1);
    rt__tell_message(loop, s, op, data + 1, n - 1);
    return 0;
}

/* "c" code [SP reason] */
static int stream_closed(rt_loop *loop, rt__conn *c, const char *text)
{
    rt__session *s = c->session;
    const char *reason;
    uint64_t code;
    if (!number_read(&text, &code) || code > 4999 ||
        !rt__close_code_valid((int)code) || (*text && *text != ' '))
        return -1002;
    reason = *text ? text + 1 : "";
    if (strlen(reason) > RT__REASON || !rt__utf8_valid(reason, strlen(reason)))
        return -1002;
    c->peer_closed = 1;
    if (s && rt__session_left(loop, c, (int)code, reason))
        s = NULL;
    rt__conn_bye(loop, c, (int)code, "");
    if (s)
        rt__session_end(loop, s, (int)code, RT_BY_PEER, reason);
    return 0;
}

/* The same on a stream, where letters also stand for what frames do. */
int rt__typed_stream(rt_loop *loop, rt__conn *c, uint8_t *data, size_t n)
{
    uint8_t type = n > 0 ? data[0] : 0;
    int binary = type == 'M' || type == 'U';
    char copy[131];
    const char *text;
    if (n == 0)
        return -1009; /* RESUME, A1: shorter than any message */
    if (type == 'q')
        return n > 17 ? -1002 : rt__pong_in(loop, c, data + 1, n - 1);
    if (type == 'p')
        return n > 17 ? -1002 : rt__ping_in(loop, c, data + 1, n - 1);
    if (type == 'c')
        return (text = control_text(data, n, copy)) != NULL
                   ? stream_closed(loop, c, text)
                   : -1002;
    if (!binary && !rt__utf8_valid(data, n))
        return -1007;
    if (binary)
        data[0] = type == 'M' ? 'm' : 'u';
    return rt__typed_in(loop, c, binary ? RT_BINARY : RT_TEXT, data, n);
}

/* One packet of a codec in one binary frame.  The codec is the host's, the
   bytes are a stranger's: where it says the message stands is checked. */
int rt__codec_in(rt_loop *loop, rt__conn *c, uint8_t *data, size_t n)
{
    const rt_codec *codec = c->ep->codec;
    size_t at = 0, len = 0;
    int kind = 0;
    ptrdiff_t size = codec->decode(codec->ctx, data, n, &at, &len, &kind);
    if (size != (ptrdiff_t)n || at > n || len > n - at)
        return -1002;
    if (len > c->ep->max_message)
        return -1009;
    rt__tell_message(loop, c->session, kind, data + at, len);
    return 0;
}

/* ---- hosts with their own protocol -------------------------------------- */

/* The same ring without the wire format: the host's protocol carries the token
   and the counts.  These are calls, so they run no callback: on_away and
   on_back are owed, and told by the loop. */

static int keep_begin(rt_loop *loop, rt__session *s, const uint8_t bytes[16])
{
    if (!rt__more_open(loop, s) || rt__keep_open(loop, s) < 0 ||
        !flow_open(loop, s))
        return RT_ENOMEM;
    token_void(loop, &rt__keep_of(s)->token);
    return token_set(loop, &rt__keep_of(s)->token, s, bytes, 0);
}

int rt_keep(rt_loop *loop, rt_session handle, int window_ms, char token[23])
{
    int error = 0, kept;
    rt__session *s = rt__session_get(loop, handle.id, &error);
    uint8_t bytes[16];
    token[0] = 0;
    if (!s)
        return error;
    if (window_ms <= 0)
        return RT_EINVAL;
    if (!s->conn || s->conn->typed || rt__ep_of(s)->dial)
        return RT_ESTATE; /* its peer speaks rtnet.1, which sees to it */
    if (token_draw(loop, bytes) < 0)
        return RT_ERANDOM;
    if (stand_alone(loop, s) < 0)
        return RT_ENOMEM;
    kept = rt__keep_of(s) != NULL;
    if (keep_begin(loop, s, bytes) < 0) {
        if (!kept) /* it ends with its connection, as before */
            rt__keep_close(loop, s);
        rt__more_settle(loop, s);
        return RT_ENOMEM;
    }
    s->is.more->window_ms = (uint64_t)window_ms;
    token_text(bytes, token);
    return 0;
}

rt_session rt_find_token(rt_loop *loop, const char *token)
{
    rt_session handle = {0};
    uint8_t bytes[16];
    char text[23] = "";
    rt__token *t;
    size_t i;
    for (i = 0; i < 22 && token[i]; i++)
        text[i] = token[i]; /* what follows it may be the host's */
    text[i] = 0;
    t = token_read(text, bytes) ? token_find(loop, bytes) : NULL;
    if (t)
        handle.id = t->session->id;
    return handle;
}

int rt_acked(rt_loop *loop, rt_session handle, uint64_t count)
{
    int error = 0;
    rt__session *s = rt__session_get(loop, handle.id, &error);
    if (!s)
        return error;
    if (!rt__keep_of(s) || (s->conn && s->conn->typed))
        return RT_ESTATE;
    if (count > rt__keep_of(s)->n)
        return RT_EINVAL;
    if (rt__keep_of(s)->flow && count > rt__keep_of(s)->flow->acked)
        ack_apply(loop, s, count);
    flow_settle(loop, s);
    return 0;
}

/* What rt_adopt refuses; 0 when it may go on. */
static int adopt_check(const rt__session *old, const rt__session *fresh,
                       uint64_t peer_has)
{
    uint64_t top;
    if (old == fresh || !online(fresh) || fresh->conn->typed)
        return RT_EINVAL;
    if (!rt__keep_of(old) || !rt__keep_of(old)->flow || rt__ep_of(old)->dial ||
        rt__keep_of(old)->flow->typed ||
        rt__ep_of(old)->codec != rt__ep_of(fresh)->codec ||
        memcmp(&rt__ep_of(old)->on, &rt__ep_of(fresh)->on,
               sizeof rt__ep_of(old)->on) != 0)
        return RT_ESTATE;
    top = online(old) ? taken_now(old) : 0;
    if (rt__keep_of(old)->flow->top > top)
        top = rt__keep_of(old)->flow->top;
    return peer_has != RT_UNCOUNTED && peer_has > top ? RT_EINVAL : 0;
}

/* A message that waits is part of what comes on its connection: fresh's goes
   with that, and one of the connection before is as lost as what was not read
   of it, for the host says what it has by what it was told. */
static int adopt_late(rt_loop *loop, rt__session *s, rt__session *fresh)
{
    rt__limits *from = limits_of(fresh);
    int late = from && from->late;
    if (late && limits_open(loop, s) < 0)
        return RT_ENOMEM;
    if (limits_of(s)) {
        rt__buf_release(loop, limits_of(s)->late);
        limits_of(s)->late = NULL;
    }
    if (!late)
        return 0;
    limits_of(s)->late = from->late;
    limits_of(s)->late_kind = from->late_kind;
    from->late = NULL;
    return 0;
}

/* The limits that hold now are those of the session, not of the one that had
   the connection before. */
static void adopt_reading(rt_loop *loop, rt__session *s, rt__conn *c)
{
    if (c->hold & RT__HOLD_RATE) {
        c->hold &= (uint8_t)~RT__HOLD_RATE;
        rt__conn_interest(loop, c);
        if (c->in && c->in->kept)
            rt__conn_wake(loop, c);
    }
    rt__session_pause(loop, s);
}

int rt_adopt(rt_loop *loop, rt_session old_handle, rt_session fresh_handle,
             uint64_t peer_has)
{
    int error = 0, was_open;
    rt__session *s = rt__session_get(loop, old_handle.id, &error);
    rt__session *fresh = rt__session_get(loop, fresh_handle.id, &error);
    rt__conn *c;
    uint64_t base;
    line from;
    if (!s || !fresh)
        return error;
    if ((rt__keep_of(s) && !flow_open(loop, s)) || stand_alone(loop, fresh) < 0)
        return RT_ENOMEM;
    if ((error = adopt_check(s, fresh, peer_has)) < 0 ||
        (error = adopt_late(loop, s, fresh)) < 0)
        return error;
    was_open = s->state == RT_OPEN;
    if (s->conn)
        supersede(loop, s);
    if (peer_has == RT_UNCOUNTED) {
        rt__keep_of(s)->flow->lost +=
            rt__keep_of(s)->n - rt__keep_of(s)->flow->acked;
        ring_clear(loop, rt__keep_of(s)->flow);
        rt__keep_of(s)->flow->acked = rt__keep_of(s)->n;
    } else {
        rt__keep_of(s)->flow->lost += ring_rebase(loop, s, peer_has, &base);
    }
    if (rt__keep_of(s)->flow->lost > 0)
        rt__groups_owe(s);
    credit_give(loop, s);
    away_over(loop, rt__keep_of(s)->flow);
    from = line_of(s);
    c = fresh->conn;
    /* Taken from it first: its end must not say goodbye on this connection. */
    fresh->conn = NULL;
    rt__session_end(loop, fresh, 1000, RT_BY_ADOPT, "");
    s->state = RT_OPEN;
    attach(loop, c, s);
    adopt_reading(loop, s, c);
    rt__session_todo(loop, s, RT__TODO_BACK | (was_open ? RT__TODO_AWAY : 0));
    /* Where it lost that again, what is kept stays in its new frames. */
    if (ring_adapt(loop, s, &from) < 0 || (s->conn && replay(loop, s) < 0))
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, "out of memory");
    return 0;
}
