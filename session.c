/*
 * Sessions: what the application holds, and the one gate through which the
 * library calls it.
 *
 * States: opening (dialled, not yet connected) -> open -> closing.  A session
 * that ends leaves its groups, its user id and its timers at once, its
 * connection lingers without it, on_close comes in the closing phase of the
 * turn, then the handle is stale and the memory goes with the turn.
 *
 * Every upcall is a rt__tell_ function below; its answer says whether the
 * session may still be told of what follows.
 */
#include "rtnet_internal.h"

/* ---- the gate ----------------------------------------------------------- */

int rt__tell_request(rt_loop *loop, rt__conn *c, rt_session handle,
                     const rt_request *request)
{
    return c->ep->on.request(loop, handle, request);
}

static int alive(const rt__session *s)
{
    return s->state == RT_OPEN;
}

static rt_session handle_of(const rt__session *s)
{
    rt_session handle;
    handle.id = s->id;
    return handle;
}

int rt__tell_open(rt_loop *loop, rt__session *s)
{
    s->state = RT_OPEN;
    if (s->ep->on.open)
        s->ep->on.open(loop, handle_of(s));
    return alive(s);
}

/* Above the rate: 0, and done what the options say; else the message is
   counted. */
static int rate_over(rt_loop *loop, rt__session *s)
{
    switch (s->ep->rate_over) {
    case RT_OVER_CLOSE:
        rt__conn_violation(loop, s->conn, 1008, RT_BY_LIMIT, "too many");
        return 0;
    case RT_OVER_DROP:
        loop->stats.limited++;
        if (s->ep->on.limit)
            s->ep->on.limit(loop, handle_of(s), RT_LIMIT_RATE);
        return 0;
    }
    return 1; /* it was read before the pause began */
}

/* Reads nothing more until the rate allows it. */
static void rate_pause(rt_loop *loop, rt__session *s, uint64_t wait)
{
    if (s->ep->rate_over != RT_OVER_PAUSE || wait == 0)
        return;
    s->conn->hold |= RT__HOLD_RATE;
    rt__conn_due(loop, s->conn, loop->now + wait);
    rt__conn_interest(loop, s->conn);
}

static int rate_admits(rt_loop *loop, rt__session *s)
{
    uint32_t limit = s->ep->rate_limit;
    if (!limit)
        return 1;
    if (!s->window)
        s->window = (rt__window *)rt__alloc(loop, rt__window_size(limit));
    if (!s->window) {
        rt__conn_violation(loop, s->conn, 1011, RT_BY_ERROR, "out of memory");
        return 0;
    }
    if (rt__window_wait(s->window, limit, s->ep->rate_ms, loop->now) > 0)
        return rate_over(loop, s);
    rt__window_take(s->window, limit, loop->now);
    rate_pause(loop, s,
               rt__window_wait(s->window, limit, s->ep->rate_ms, loop->now));
    return 1;
}

/* The pause of the rate limit is over?  If not, its end is set. */
int rt__session_released(rt_loop *loop, rt__session *s)
{
    uint64_t wait = rt__window_wait(s->window, s->ep->rate_limit,
                                    s->ep->rate_ms, loop->now);
    if (wait > 0) {
        rt__conn_due(loop, s->conn, loop->now + wait);
        return 0;
    }
    s->conn->hold &= (uint8_t)~RT__HOLD_RATE;
    s->conn->heard = loop->now; /* its silence was ours */
    rt__conn_interest(loop, s->conn);
    if (s->conn && s->conn->in && s->conn->in->kept)
        rt__conn_wake(loop, s->conn);
    return s->conn != NULL;
}

/* The byte behind the message is lent to it as a NUL. */
int rt__tell_message(rt_loop *loop, rt__session *s, int kind, uint8_t *data,
                     size_t len)
{
    uint8_t behind = data[len];
    if (!alive(s))
        return 0;
    loop->stats.messages_in++;
    if (!rate_admits(loop, s) || !alive(s))
        return alive(s);
    if (!s->ep->on.message)
        return 1;
    data[len] = 0;
    s->ep->on.message(loop, handle_of(s), kind, data, len);
    data[len] = behind;
    return alive(s);
}

static void tell_writable(rt_loop *loop, rt__session *s)
{
    if (s->ep->on.writable)
        s->ep->on.writable(loop, handle_of(s));
}

static void tell_close(rt_loop *loop, rt__session *s)
{
    rt_end end;
    end.code = s->code;
    end.cause = s->cause;
    end.reason = s->reason ? s->reason : "";
    end.lost = s->lost;
    if (s->ep->on.close)
        s->ep->on.close(loop, handle_of(s), &end);
}

static void tell_resolve(rt_loop *loop, rt__session *s)
{
    if (!s->conn || s->conn->state != RT__RESOLVING)
        return;
    if (loop->opts.resolve(loop, s->ep->dial->host, handle_of(s)) < 0 &&
        s->conn)
        rt__conn_lost(loop, s->conn, 1006, RT_BY_ERROR, "name not found");
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

/* ---- lists -------------------------------------------------------------- */

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

/* A session under the handle id, which named its handshake; 0: a new one.
   NULL: no memory. */
rt__session *rt__session_new(rt_loop *loop, rt__ep *ep, uint64_t id)
{
    rt__session *s = (rt__session *)rt__alloc(loop, sizeof *s);
    if (!s)
        return NULL;
    s->id = id ? id : rt__slot_new(loop, RT__SESSION, s);
    if (!s->id) {
        rt__free(loop, s, sizeof *s);
        return NULL;
    }
    if (id)
        rt__slot_become(loop, id, RT__SESSION, s);
    s->ep = ep;
    s->state = RT_OPENING;
    ep->refs++;
    loop->session_count++;
    return s;
}

static void session_free(rt_loop *loop, rt__session *s)
{
    rt__free(loop, s->seats, s->seat_cap * sizeof *s->seats);
    rt__strfree(loop, s->uid);
    rt__strfree(loop, s->reason);
    if (s->window)
        rt__free(loop, s->window, rt__window_size(s->ep->rate_limit));
    rt__ep_release(loop, s->ep);
    rt__free(loop, s, sizeof *s);
}

static void unbind(rt_loop *loop, rt__session *s);

/* Undoes rt__session_new for one that the application never heard of. */
void rt__session_forget(rt_loop *loop, rt__session *s)
{
    unbind(loop, s);
    rt__slot_free(loop, s->id);
    loop->session_count--;
    session_free(loop, s);
}

static void count_close(rt_loop *loop, int code)
{
    if (code >= 1000 && code <= 1015)
        loop->stats.closes[code - 1000]++;
    else if (code >= 3000)
        loop->stats.closes_app++;
    else
        loop->stats.closes[16]++;
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
    s->cause = (uint8_t)cause;
    s->reason = *reason ? rt__strdup(loop, reason) : NULL;
    count_close(loop, code);
    rt__timers_stop(loop, s);
    rt__groups_leave(loop, s);
    unbind(loop, s);
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
    s->todo |= (uint8_t)what;
    if (!s->queued)
        queue_push(&loop->todo, s);
}

void rt__sessions_events(rt_loop *loop)
{
    rt__queue all = queue_detach(&loop->todo);
    rt__session *s;
    while ((s = queue_pop(&all)) != NULL) {
        int todo = s->todo;
        s->todo = 0;
        if (s->state == RT_CLOSING)
            queue_push(&loop->closing, s);
        else if (todo & RT__TODO_RESOLVE)
            tell_resolve(loop, s);
        else if (todo & RT__TODO_WRITABLE)
            tell_writable(loop, s);
    }
}

/* The connection goes on without its session.  What the system has taken of
   the queue by now is not lost, as far as can be known. */
static void part(rt_loop *loop, rt__session *s)
{
    if (s->conn)
        rt__conn_flush(loop, s->conn);
    if (!s->conn)
        return;
    s->lost += rt__out_unsent(s->conn->out);
    s->conn->session = NULL;
    s->conn = NULL;
}

/* The closing phase. */
void rt__sessions_close(rt_loop *loop)
{
    rt__queue all = queue_detach(&loop->closing);
    rt__session *s;
    if (all.first)
        rt__groups_events(loop); /* RT_LEFT comes before on_close */
    while ((s = queue_pop(&all)) != NULL) {
        part(loop, s);
        tell_close(loop, s);
        rt__slot_free(loop, s->id);
        queue_push(&loop->closed, s);
        loop->session_count--;
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

/* Also one that is closing: its on_close still asks. */
static rt__session *session_any(rt_loop *loop, rt_session handle)
{
    return (rt__session *)rt__slot_get(loop, handle.id, RT__SESSION);
}

/* One that is open, or NULL and why not. */
rt__session *rt__session_get(rt_loop *loop, uint64_t id, int *error)
{
    rt__session *s = (rt__session *)rt__slot_get(loop, id, RT__SESSION);
    if (s && s->state == RT_OPEN)
        return s;
    *error = RT_EGONE;
    if (s ? s->state == RT_OPENING : rt__slot_kind(loop, id) == RT__SHAKE)
        *error = RT_ESTATE;
    return NULL;
}

/* What a call says that wants a session and got no handle of one. */
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
    return s ? s->ep->user : NULL;
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

uint64_t rt_heard(rt_loop *loop, rt_session handle)
{
    rt__session *s = session_any(loop, handle);
    return s && s->conn ? s->conn->heard : 0;
}

int rt_rtt(rt_loop *loop, rt_session handle, uint32_t *rtt_us,
           uint32_t *jitter_us)
{
    rt__session *s = session_any(loop, handle);
    if (!s)
        return handshake_or_gone(loop, handle);
    if (!s->conn || !s->conn->rtt_us)
        return RT_ESTATE;
    if (rtt_us)
        *rtt_us = s->conn->rtt_us;
    if (jitter_us)
        *jitter_us = s->conn->jitter_us;
    return 0;
}

uint64_t rt_unsent(rt_loop *loop, rt_session handle)
{
    rt__session *s = session_any(loop, handle);
    return s && s->conn && s->conn->out ? s->conn->out->bytes : 0;
}

rt_session rt_next_session(rt_loop *loop, rt_session after)
{
    rt_session next = {0};
    rt__session *s;
    do
        s = (rt__session *)rt__slot_next(loop, &after.id, RT__SESSION);
    while (s && s->state != RT_OPEN);
    if (s)
        next.id = s->id;
    return next;
}

int rt_read(rt_loop *loop, rt_session handle, int on)
{
    int error;
    rt__session *s = rt__session_get(loop, handle.id, &error);
    if (!s)
        return error;
    if (on)
        s->conn->hold &= (uint8_t)~RT__HOLD_APP;
    else
        s->conn->hold |= RT__HOLD_APP;
    rt__conn_interest(loop, s->conn);
    if (on && s->conn && s->conn->in && s->conn->in->kept)
        rt__conn_wake(loop, s->conn);
    return 0;
}

/* ---- closing ------------------------------------------------------------ */

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

/* Without resume a session ends with its connection. */
int rt_drop(rt_loop *loop, rt_session handle, int code, const char *reason)
{
    if (!session_any(loop, handle))
        return handshake_or_gone(loop, handle);
    return rt_close(loop, handle, code, reason);
}

/* ---- sending ------------------------------------------------------------ */

/* Frames for one wire: the head, in at most 14 bytes; its size. */
static size_t wire_head(enum rt__wire wire, uint8_t out[14], int op, size_t len,
                        const uint8_t *mask)
{
    if (wire != RT__STREAM)
        return rt__frame_write(out, op, len, mask);
    out[0] = (uint8_t)(len >> 24);
    out[1] = (uint8_t)(len >> 16);
    out[2] = (uint8_t)(len >> 8);
    out[3] = (uint8_t)len;
    return 4;
}

/* May this be sent at all?  0 or an error. */
int rt__send_check(int kind, const void *data, size_t len)
{
    int op = kind & 0xff;
    int flags = RT_DROPPABLE | RT_NO_HISTORY | rt_latest(0x7fff);
    if ((op != RT_TEXT && op != RT_BINARY) || kind & ~(0xff | flags) ||
        (len && !data) || len > RT__SEND_MAX - 14)
        return RT_EINVAL;
    return op == RT_TEXT && len && !rt__utf8_valid(data, len) ? RT_EUTF8 : 0;
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

/* Is there room?  A reliable message that finds none ends the session, so that
   a stream never has a silent hole. */
static int room(rt_loop *loop, rt__session *s, enum rt__lane lane, uint32_t key,
                size_t size)
{
    int error = rt__out_room(s->conn, lane, key, size);
    if (error == 1) {
        rt__out_status(s->conn);
        return RT__SKIPPED;
    }
    if (error < 0 && lane == RT__RELIABLE) {
        rt__out_discard(loop, s->conn);
        rt__session_end(loop, s, RT_CLOSE_SLOW, RT_BY_LIMIT, "send queue full");
    }
    return error;
}

/* Queues a framed piece, whose reference it takes over. */
static int put(rt_loop *loop, rt__session *s, rt__piece piece,
               enum rt__lane lane, uint32_t key)
{
    int error = rt__out_put(loop, s->conn, piece, lane, key);
    if (error < 0)
        return error;
    loop->stats.messages_out++;
    return rt__out_status(s->conn);
}

/* Frames a message for one session alone. */
static int send_one(rt_loop *loop, rt__session *s, int kind, const void *data,
                    size_t len)
{
    rt__conn *c = s->conn;
    enum rt__wire wire = (enum rt__wire)c->wire;
    uint8_t head[14], mask[8], *to;
    uint64_t chance = wire == RT__WS_CLIENT ? rt__random(loop) : 0;
    rt__piece piece;
    uint32_t key;
    enum rt__lane lane = lane_of(kind, &key);
    size_t n;
    int error;
    memcpy(mask, &chance, sizeof mask);
    n = wire_head(wire, head, kind & 0xff, len,
                  wire == RT__WS_CLIENT ? mask : NULL);
    if ((error = room(loop, s, lane, key, n + len)) != 0)
        return error;
    if (rt__out_open(loop, c) < 0 ||
        !(to = rt__out_reserve(loop, c, n + len, &piece)))
        return RT_ENOMEM;
    memcpy(to, head, n);
    if (wire == RT__WS_CLIENT)
        rt__mask(to + n, (const uint8_t *)data, len, mask, 0);
    else if (len)
        memcpy(to + n, data, len);
    return put(loop, s, piece, lane, key);
}

int rt_send(rt_loop *loop, rt_session to, int kind, const void *data,
            size_t len)
{
    int error;
    rt__session *s = rt__session_get(loop, to.id, &error);
    if (!s || (error = rt__send_check(kind, data, len)) < 0)
        return error;
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

static rt__piece *cast_form(rt_loop *loop, rt__cast *cast, enum rt__wire wire)
{
    rt__piece *form = &cast->form[wire];
    uint8_t head[14];
    size_t n;
    rt__buf *b;
    if (form->buf)
        return form;
    n = wire_head(wire, head, cast->kind & 0xff, cast->len, NULL);
    b = cast_room(loop, cast->owner, n + cast->len);
    if (!b)
        return NULL;
    form->buf = b;
    form->off = b->len;
    form->len = (uint32_t)(n + cast->len);
    memcpy(rt__buf_data(b) + b->len, head, n);
    if (cast->len)
        memcpy(rt__buf_data(b) + b->len + n, cast->data, cast->len);
    b->len += form->len;
    b->refs++;
    return form;
}

/* As rt_send to one of many. */
int rt__cast_to(rt_loop *loop, rt__cast *cast, rt__session *s)
{
    rt__piece *form;
    uint32_t key;
    enum rt__lane lane = lane_of(cast->kind, &key);
    int error;
    if (!alive(s))
        return RT_EGONE;
    if (s->conn->wire == RT__WS_CLIENT) /* each frame has a mask of its own */
        return send_one(loop, s, cast->kind, cast->data, cast->len);
    form = cast_form(loop, cast, (enum rt__wire)s->conn->wire);
    if (!form)
        return RT_ENOMEM;
    if ((error = room(loop, s, lane, key, form->len)) != 0)
        return error;
    if (rt__out_open(loop, s->conn) < 0)
        return RT_ENOMEM;
    form->buf->refs++;
    return put(loop, s, *form, lane, key);
}

void rt__cast_close(rt_loop *loop, rt__cast *cast)
{
    int i;
    for (i = 0; i < RT__WIRES; i++)
        rt__buf_release(loop, cast->form[i].buf);
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

/* Would binding to it be refused now? */
int rt__uid_check(rt_loop *loop, const char *uid)
{
    uint64_t hash;
    rt__user *u = uid_valid(uid) ? user_find(loop, uid, &hash) : NULL;
    if (!uid_valid(uid))
        return RT_EINVAL;
    if (!u || loop->opts.bind_policy == RT_BIND_NEWEST)
        return 0;
    if (loop->opts.bind_policy == RT_BIND_REFUSE ||
        u->count >= loop->opts.bind_max)
        return RT_EREFUSED;
    return 0;
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
    rt__user *u = s->bound;
    rt__session **p;
    if (!u)
        return;
    s->bound = NULL;
    for (p = &u->first; *p != s; p = &(*p)->next_bound)
        ;
    *p = s->next_bound;
    u->count--;
    if (u->first)
        return;
    rt__table_remove(&loop->users, &u->node);
    user_free(loop, u);
}

int rt__bind(rt_loop *loop, rt__session *s, const char *uid)
{
    uint64_t hash;
    rt__user *u;
    int error = rt__uid_check(loop, uid);
    if (error < 0)
        return error;
    s->uid = rt__strdup(loop, uid);
    u = user_find(loop, uid, &hash);
    if (!u && s->uid)
        u = user_new(loop, uid, hash);
    if (!u || !s->uid) {
        rt__strfree(loop, s->uid);
        s->uid = NULL;
        return RT_ENOMEM;
    }
    s->bound = u;
    s->next_bound = u->first;
    u->first = s;
    u->count++;
    if (loop->opts.bind_policy == RT_BIND_NEWEST && s->next_bound)
        rt__session_end(loop, s->next_bound, RT_CLOSE_REPLACED, RT_BY_REPLACE,
                        "a newer login");
    return 0;
}

int rt_bind(rt_loop *loop, rt_session handle, const char *uid)
{
    int error;
    rt__session *s = rt__session_get(loop, handle.id, &error);
    if (!s)
        return error;
    return s->bound ? RT_EBOUND : rt__bind(loop, s, uid);
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
    return s ? s->uid : NULL;
}

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
        next = s->next_bound; /* a full queue ends s, which unbinds it */
        count += took(rt__cast_to(loop, &cast, s));
    }
    rt__cast_close(loop, &cast);
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
        next = s->next_bound;
        rt__session_end(loop, s, code, RT_BY_APP, reason ? reason : "");
        count++;
    }
    return count;
}

/* ---- hosts with their own protocol: what this version has not ----------- */

int rt_keep(rt_loop *loop, rt_session s, int window_ms, char token[23])
{
    int error = 0;
    (void)window_ms;
    token[0] = 0;
    return rt__session_get(loop, s.id, &error) ? RT_ESTATE : error;
}

rt_session rt_find_token(rt_loop *loop, const char *token)
{
    rt_session none = {0};
    (void)loop;
    (void)token;
    return none;
}

int rt_acked(rt_loop *loop, rt_session s, uint64_t count)
{
    int error = 0;
    (void)count;
    return rt__session_get(loop, s.id, &error) ? RT_ESTATE : error;
}

int rt_adopt(rt_loop *loop, rt_session old, rt_session fresh, uint64_t peer_has)
{
    int error = 0;
    (void)fresh;
    (void)peer_has;
    return rt__session_get(loop, old.id, &error) ? RT_ESTATE : error;
}
