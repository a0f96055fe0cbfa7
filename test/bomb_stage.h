/*
 * What a bombed world consists of: callbacks that check and may be bombed, the
 * strangers at the other ends, and the steps that bring each callback about.
 */
#ifndef BOMB_STAGE_H
#define BOMB_STAGE_H

/* ---- each callback begins and ends with these --------------------------- */

static void enter(enum bomb_place place, rt_session s)
{
    if (w.depth++)
        sim_fault("%s inside another callback", bomb_places[place]);
    if (!w.turning && !w.freeing)
        sim_fault("%s outside a turn", bomb_places[place]);
    w.upcalls++;
    w.place = place;
    w.self = s;
    mix(place);
    mix(s.id ? (uint64_t)(who_of(s) - w.whos) : WHOS);
    sim_note("-> %s", bomb_places[place]);
    if (s.id && who_of(s)->closed)
        sim_fault("%s after on_close", bomb_places[place]);
}

static void leave(void)
{
    bomb_drop();
    w.depth--;
}

/* A text that was given to a callback is good until it returns. */
static void leave_text(const char *text)
{
    char copy[300];

    snprintf(copy, sizeof copy, "%s", text);
    leave();
    if (strncmp(copy, text, sizeof copy - 1) != 0)
        sim_fault("%s: its text changed", bomb_places[w.place]);
}

/* ---- of sessions -------------------------------------------------------- */

static int request_answer(const char *path)
{
    static const int answers[] = {0, 0, 0, 0, 404, 503, RT_DEFER};

    if (strncmp(path, "/defer", 6) == 0)
        return RT_DEFER;
    return w.forced ? 0 : CHOSEN(answers);
}

static int bomb_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    char path[64];
    int answer = request_answer(r->path);

    enter(AT_request, s);
    who_of(s)->asked = 1;
    if (rt_request_of(loop, s) != r || rt_context(loop, s) != &w.context)
        sim_fault("on_request: not its request, or not its context");
    w.request = r;
    request_read(r);
    snprintf(path, sizeof path, "%s", r->path);
    leave();
    if (strcmp(path, r->path) != 0)
        sim_fault("the request changed while on_request ran");
    request_read(r);
    w.request = NULL;
    return answer;
}

static void opened(enum bomb_place place, rt_session s)
{
    struct who *p = who_of(s);

    enter(place, s);
    if (p->opened++)
        sim_fault("on_open twice");
    if (rt_state(w.loop, s) != RT_OPEN)
        sim_fault("on_open in state %d", rt_state(w.loop, s));
    if (rt_context(w.loop, s) != &w.context)
        sim_fault("on_open: rt_context is wrong");
}

/* Its request, or the answer to it, is there until on_open returns. */
static void opened_leave(rt_session s)
{
    const rt_request *r = rt_request_of(w.loop, s);
    char path[64];

    if (r)
        snprintf(path, sizeof path, "%s", r->path);
    leave();
    request_read(r);
    if (r && strncmp(path, r->path, sizeof path - 1) != 0)
        sim_fault("the request changed while on_open ran");
}

/* Each joins two of the rooms. */
static void bomb_open(rt_loop *loop, rt_session s)
{
    char name[4] = "n0";
    struct room *r;
    int i;

    opened(AT_open, s);
    for (i = 0; i < 2; i++) {
        name[1] = (char)('0' + (int)(who_of(s) - w.whos + i) % 3);
        r = room_find(rt_group_find(loop, name));
        if (r)
            joined(r->g, s, RT_OPEN, rt_group_join(loop, r->g, s));
    }
    opened_leave(s);
}

static void bomb_dialled_open(rt_loop *loop, rt_session s)
{
    struct who *p = who_of(s);

    (void)loop;
    p->dialled = 1; /* also the heir of one that the server had forgotten */
    opened(AT_dialled_open, s);
    opened_leave(s);
}

static void heard(enum bomb_place place, rt_session s, int kind,
                  const void *data, size_t len, int whole)
{
    uint8_t *copy = malloc(len + 1);

    enter(place, s);
    if (unfit(rt_state(w.loop, s))) /* away: a filter dropped it */
        sim_fault("on_message in state %d", rt_state(w.loop, s));
    if (!copy)
        exit(2);
    if (whole)
        message_check(data, len);
    memcpy(copy, data, len + 1);
    if (copy[len])
        sim_fault("no 0 behind a message");
    w.data = whole ? data : NULL;
    w.data_len = len;
    w.data_kind = kind;
    leave();
    w.data = NULL;
    if (memcmp(copy, data, len + 1) != 0)
        sim_fault("a message changed while on_message ran");
    free(copy);
}

static void bomb_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    heard(AT_message, s, kind, data, len, 1);
    if (len % 2 && len < 200 && kind <= RT_BINARY)
        rt_send(loop, s, kind, data, len);
}

/* A stream has no messages, and a codec's may be anything. */
static void bomb_bytes_came(rt_loop *loop, rt_session s, int kind,
                            const void *data, size_t len)
{
    (void)loop;
    heard(AT_message, s, kind, data, len, 0);
}

static void bomb_dialled_message(rt_loop *loop, rt_session s, int kind,
                                 const void *data, size_t len)
{
    (void)loop;
    heard(AT_dialled_message, s, kind, data, len, 0);
}

/* Where it has just lost its connection, too. */
static void told(enum bomb_place place, rt_session s)
{
    enter(place, s);
    if (!who_of(s)->opened || unfit(rt_state(w.loop, s)))
        sim_fault("%s in state %d", bomb_places[place], rt_state(w.loop, s));
    leave();
}

static void bomb_writable(rt_loop *loop, rt_session s)
{
    (void)loop;
    told(AT_writable, s);
}

static void bomb_dialled_writable(rt_loop *loop, rt_session s)
{
    (void)loop;
    told(AT_dialled_writable, s);
}

/* It may be back already, and is told of both. */
static void went_away(enum bomb_place place, rt_session s)
{
    struct who *p = who_of(s);

    enter(place, s);
    if (p->away++ || !p->opened || unfit(rt_state(w.loop, s)))
        sim_fault("on_away of one that is away, or not open");
    leave();
}

static void bomb_away(rt_loop *loop, rt_session s)
{
    (void)loop;
    went_away(AT_away, s);
}

static void bomb_dialled_away(rt_loop *loop, rt_session s)
{
    (void)loop;
    went_away(AT_dialled_away, s);
}

static void came_back(enum bomb_place place, rt_session s)
{
    struct who *p = who_of(s);

    enter(place, s);
    if (!p->away || rt_state(w.loop, s) != RT_OPEN)
        sim_fault("on_back of one that is not away");
    p->away = 0;
    leave();
}

static void bomb_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop;
    (void)lost;
    came_back(AT_back, s);
}

static void bomb_dialled_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop;
    (void)lost;
    came_back(AT_dialled_back, s);
}

static void closed(enum bomb_place place, rt_session s, const rt_end *why)
{
    struct who *p = who_of(s);
    int i;

    enter(place, s);
    if (!p->opened && !p->dialled)
        sim_fault("on_close of one that never opened");
    if (rt_state(w.loop, s) != RT_CLOSING)
        sim_fault("on_close in state %d", rt_state(w.loop, s));
    if (why->code < 1000 || why->code > 4999 || why->cause < RT_BY_APP ||
        why->cause > RT_BY_LOOP)
        sim_fault("on_close: code %d, cause %d", why->code, why->cause);
    if (rt_user(w.loop, s) != p->user)
        sim_fault("on_close: rt_user is not what was set");
    for (i = 0; i < ROOMS; i++)
        w.rooms[i].in[p - w.whos] = 0;
    leave_text(why->reason);
    p->closed = 1;
}

static void bomb_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    closed(w.freeing ? AT_close_in_free : AT_close, s, why);
}

static void bomb_dialled_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    who_of(s)->dialled = 1;
    closed(w.freeing ? AT_close_in_free : AT_dialled_close, s, why);
}

static void bomb_limit(rt_loop *loop, rt_session s, int what)
{
    (void)loop;
    if (what < RT_LIMIT_RATE || what > RT_LIMIT_BYTES)
        sim_fault("on_limit: %d", what);
    told(AT_limit, s);
}

static int bomb_resume(rt_loop *loop, rt_session s, rt_session fresh)
{
    int answer = !w.forced && !sim_choose(6);

    (void)loop;
    who_of(fresh)->asked = 1;
    enter(AT_resume, s);
    leave();
    return answer;
}

static int filter_answer(rt_message *m)
{
    static uint8_t copy[6000];

    switch (w.forced ? 99 : (int)sim_choose(60)) {
    case 0:
        return 1;
    case 1:
        return 4005;
    case 2:
        return 99;
    case 3: /* beyond its end */
        m->len += m->data == copy ? 0 : 70000;
        return 0;
    case 4:
        m->len /= 2;
        message_fill(m->data, m->len);
        return 0;
    case 5: /* a copy of its own, which stays */
        m->len = m->len < sizeof copy ? m->len : 0;
        m->data = memcpy(copy, m->data, m->len);
        return 0;
    default:
        return 0;
    }
}

static void filter_looks(rt_session s)
{
    enter(AT_filter, s);
    if (unfit(rt_state(w.loop, s)))
        sim_fault("a filter in state %d", rt_state(w.loop, s));
    leave();
}

static int bomb_filter(rt_loop *loop, rt_session s, rt_message *m)
{
    (void)loop;
    message_check(m->data, m->len);
    filter_looks(s);
    message_check(m->data, m->len);
    return filter_answer(m);
}

static int bomb_bytes_filter(rt_loop *loop, rt_session s, rt_message *m)
{
    (void)loop;
    filter_looks(s);
    return filter_answer(m);
}

static rt_handler bomb_server = {.request = bomb_request,
                                 .open = bomb_open,
                                 .message = bomb_message,
                                 .writable = bomb_writable,
                                 .away = bomb_away,
                                 .back = bomb_back,
                                 .close = bomb_close,
                                 .limit = bomb_limit,
                                 .resume = bomb_resume};
static rt_handler bomb_client = {.open = bomb_dialled_open,
                                 .message = bomb_dialled_message,
                                 .writable = bomb_dialled_writable,
                                 .away = bomb_dialled_away,
                                 .back = bomb_dialled_back,
                                 .close = bomb_dialled_close};

/* ---- a codec: 'C', two bytes of length ---------------------------------- */

static ptrdiff_t codec_decode(void *ctx, const uint8_t *in, size_t n,
                              size_t *at, size_t *len, int *kind)
{
    (void)ctx;
    if (n < 3)
        return 0;
    *at = 3;
    *len = (size_t)in[1] << 8 | in[2];
    *kind = RT_BINARY;
    return in[0] == 'C' ? (ptrdiff_t)(3 + *len) : -1;
}

static size_t codec_head(void *ctx, uint8_t out[16], int kind, size_t len)
{
    (void)ctx;
    (void)kind;
    out[0] = 'C';
    out[1] = (uint8_t)(len >> 8);
    out[2] = (uint8_t)len;
    return 3;
}

static size_t codec_beat(void *ctx, uint8_t out[64])
{
    return codec_head(ctx, out, 0, 0);
}

static rt_codec bomb_codec = {
    .decode = codec_decode, .head = codec_head, .beat = codec_beat};

/* ---- of the loop -------------------------------------------------------- */

/* A member joined only once, leaves only then, and nobody is told of a group
   that is closed. */
static void presence_check(struct room *r, struct who *p, int what)
{
    uint8_t *here = &r->present[p - w.whos];

    if (w.dry) /* an event that finds no memory is not told */
        return;
    if (!r->open)
        sim_fault("an event of a group that is closed");
    if (*here != (what != RT_JOINED))
        sim_fault("event %d of one who is %s", what, *here ? "in" : "out");
    *here = what != RT_LEFT;
}

static void bomb_event(rt_loop *loop, rt_group g, rt_session s, int what)
{
    struct room *r = room_find(g);

    enter(AT_event, s);
    if (!r || rt_group_user(loop, g) != &w.rooms)
        sim_fault("an event of a group that is not");
    else
        presence_check(r, who_of(s), what);
    leave();
}

static void hook(enum bomb_place place, const char *name)
{
    rt_session none = {0};

    enter(place, none);
    w.self = who_any(0);
    leave_text(name);
}

static int bomb_resolve(rt_loop *loop, const char *host, rt_session s)
{
    enter(AT_resolve, s);
    if (strcmp(host, "elsewhere") != 0 ||
        (rt_state(loop, s) != RT_OPENING && rt_state(loop, s) != RT_AWAY))
        sim_fault("resolve: %s, state %d", host, rt_state(loop, s));
    leave();
    return w.forced || sim_choose(6) ? 0 : -1;
}

static void bomb_first(rt_loop *loop, const char *name)
{
    (void)loop;
    hook(AT_group_first, name);
}

static void bomb_last(rt_loop *loop, const char *name)
{
    (void)loop;
    hook(AT_group_last, name);
}

static void noted(enum bomb_place place, const char *name, const void *data,
                  size_t len)
{
    message_check(data, len);
    hook(place, name);
    message_check(data, len);
}

/* Upstream says it again to all who have the group. */
static void bomb_out(rt_loop *loop, const char *name, int kind,
                     const void *data, size_t len)
{
    noted(AT_group_out, name, data, len);
    rt_group_deliver(loop, name, kind, data, len);
}

static void bomb_miss(rt_loop *loop, const char *uid, int kind,
                      const void *data, size_t len)
{
    (void)loop;
    (void)kind;
    noted(AT_push_miss, uid, data, len);
}

static void bomb_evict(rt_loop *loop, const char *name, rt_position at,
                       int kind, const void *data, size_t len)
{
    (void)loop;
    (void)kind;
    if (!at.epoch || !at.offset)
        sim_fault("group_evict without a position");
    noted(AT_group_evict, name, data, len);
}

static void bomb_drained(rt_loop *loop)
{
    rt_session s = {0};

    enter(AT_drained, s);
    if (!w.draining || rt_next_session(loop, s).id)
        sim_fault("drained, but a session is left");
    w.drained++;
    leave();
}

static void bomb_log(void *user, int level, const char *text)
{
    if (user != &w || level < RT_LOG_ERROR || level > RT_LOG_INFO ||
        strchr(text, '\n'))
        sim_fault("a bad line of the log: %s", text);
}

static size_t bomb_more(void *user, char *out, size_t cap)
{
    (void)user;
    return (size_t)snprintf(out, cap, "bomb_calls 1\n");
}

static void bomb_post(rt_loop *loop, void *arg)
{
    rt_session none = {0};

    (void)loop;
    enter(AT_post, none);
    if ((uintptr_t)arg != ++w.ran)
        sim_fault("post %d instead of %d", (int)(uintptr_t)arg, (int)w.ran);
    w.self = who_any(0);
    leave();
}

static void bomb_timer(rt_loop *loop, void *arg)
{
    struct clock *c = arg;

    enter(c->owner.id ? AT_owned_timer : AT_timer, c->owner);
    if (!c->runs || c->due > rt_now(loop))
        sim_fault("a timer that was stopped, or is early");
    if (c->owner.id && unfit(rt_state(loop, c->owner)))
        sim_fault("a timer whose owner ended");
    c->runs = 0;
    if (!c->owner.id)
        w.self = who_any(0);
    leave();
}

/* What makes it ready is taken away, or the loop would spin. */
static void watch_serve(struct eye *e, int events)
{
    char bytes[64];

    if (events == RT_READ)
        while (read(e->fd, bytes, sizeof bytes) > 0)
            continue;
    else if (e->on && rt_watch_set(w.loop, e->watch, e->events & RT_READ) == 0)
        e->events &= RT_READ;
}

static void bomb_watch(rt_loop *loop, rt_watch at, int events, void *arg)
{
    rt_session none = {0};
    struct eye *e = arg;

    (void)loop;
    enter(AT_watch, none);
    if (!e->on || e->watch.id != at.id || !(events & e->events) ||
        (events != RT_READ && events != RT_WRITE))
        sim_fault("a watch that was stopped, or did not ask for %d", events);
    w.self = who_any(0);
    leave();
    watch_serve(e, events);
}

/* ---- strangers ---------------------------------------------------------- */

enum { STRANGERS = 24 };

static struct stranger {
    ws_peer *ws;
    sim_peer *line;     /* of a stream, or of a plain request */
    int framed;         /* the stream has lengths */
    struct ws_bytes in; /* what is not a whole message yet */
} strangers[STRANGERS];

static int close_code_fits(int code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 &&
            code != 1006) ||
           (code >= 3000 && code <= 4999);
}

static void stranger_hears(ws_peer *p, int op, const uint8_t *data, size_t len)
{
    (void)p;
    if (op == WS_TEXT || op == WS_BINARY)
        message_check(data, len);
    if (op == WS_CLOSE && len &&
        (len < 2 || !close_code_fits(data[0] << 8 | data[1])))
        sim_fault("a close with a code that may not be sent");
}

/* 4 bytes of length, and the message. */
static void stream_read(struct stranger *p)
{
    size_t n = 0;

    while (p->framed && p->in.len >= 4) {
        n = (size_t)p->in.at[0] << 24 | (size_t)p->in.at[1] << 16 |
            (size_t)p->in.at[2] << 8 | p->in.at[3];
        if (n > 80000)
            sim_fault("a length of %zu on a stream", n);
        if (p->in.len < 4 + n)
            return;
        message_check(p->in.at + 4, n);
        p->in.len -= 4 + n;
        memmove(p->in.at, p->in.at + 4 + n, p->in.len);
    }
    if (!p->framed)
        p->in.len = 0;
}

static void stream_pump(struct stranger *p)
{
    size_t n = sim_peer_waiting(p->line);

    if (p->in.cap < p->in.len + n) {
        p->in.cap = p->in.len + n;
        p->in.at = realloc(p->in.at, p->in.cap);
        if (!p->in.at)
            exit(2);
    }
    if (n)
        p->in.len += sim_peer_recv(p->line, p->in.at + p->in.len, n);
    stream_read(p);
    if (sim_peer_state(p->line) == SIM_UP || sim_peer_waiting(p->line))
        return;
    sim_peer_close(p->line);
    p->line = NULL;
}

static void stranger_free(struct stranger *p)
{
    if (p->ws)
        ws_free(p->ws);
    if (p->line)
        sim_peer_close(p->line);
    free(p->in.at);
    memset(p, 0, sizeof *p);
}

static void strangers_pump(void)
{
    struct stranger *p;

    for (p = strangers; p < strangers + STRANGERS; p++) {
        if (p->ws)
            ws_pump(p->ws);
        else if (p->line)
            stream_pump(p);
        if (p->ws && !p->ws->line)
            stranger_free(p);
    }
}

/* One who is through makes room, else the first. */
static struct stranger *stranger_new(void)
{
    struct stranger *p;

    for (p = strangers; p < strangers + STRANGERS; p++)
        if (!p->ws && !p->line)
            break;
    if (p == strangers + STRANGERS)
        p = &strangers[sim_choose(STRANGERS)];
    stranger_free(p);
    return p;
}

static void stranger_ws(int port, const char *path)
{
    struct stranger *p = stranger_new();

    p->ws = ws_connect(port, path);
    if (p->ws)
        p->ws->on = stranger_hears;
}

static void stranger_stream(int port, const char *says)
{
    struct stranger *p = stranger_new();

    p->line = sim_connect(port);
    p->framed = port == PORT_LENGTH;
    if (p->line)
        sim_peer_send(p->line, says, strlen(says));
}

static struct stranger *stranger_any(int ws)
{
    uint32_t at = sim_choose(STRANGERS);
    int i;

    for (i = 0; i < STRANGERS; i++, at++) {
        struct stranger *p = &strangers[at % STRANGERS];
        if (ws ? p->ws && p->ws->open : p->line != NULL)
            return p;
    }
    return NULL;
}

/* ---- steps -------------------------------------------------------------- */

static void step_strangers(void)
{
    stranger_ws(PORT_PLAIN, "/a?q=a%20b&bad=%zz");
    stranger_ws(PORT_PLAIN, "/defer?q=1");
    stranger_ws(PORT_RESUME, "/b");
    stranger_stream(PORT_LENGTH, "");
    stranger_stream(PORT_RAW, "bytes");
    stranger_stream(PORT_PLAIN, "GET /page?q=1 HTTP/1.1\r\nHost: a\r\n\r\n");
}

static void step_dials(void)
{
    int i;

    for (i = 0; i < DIALS && sessions_here() < 60; i++)
        bomb_dial(&dials[i], GOOD);
}

static void step_names(void)
{
    int i;

    for (i = 0; i < WHOS; i++) {
        if (w.whos[i].dialled && !w.whos[i].closed)
            rt_resolved(w.loop, w.whos[i].s, "127.0.0.1");
    }
}

static void step_script(void)
{
    ws_peer *ws = ws_accept(PORT_SCRIPT);
    struct stranger *p = ws ? stranger_new() : NULL;

    if (!ws)
        return;
    p->ws = ws;
    ws->on = stranger_hears;
}

/* All say something, dialled or not; whoever is in between may be, too. */
static void step_talk(void)
{
    int i;

    for (i = 0; i < WHOS; i++) {
        size_t len = length_draw() % 300;
        if (!w.whos[i].opened || w.whos[i].closed)
            continue;
        message_fill(bomb_bytes, len);
        w.sent += len;
        rt_send(w.loop, w.whos[i].s, sim_choose(2) ? RT_TEXT : RT_BINARY,
                bomb_bytes, len);
    }
}

/* More than the soft marks, so that on_writable is owed. */
static void step_much(void)
{
    int i, k;

    message_fill(bomb_bytes, 1000);
    for (i = 0; i < WHOS; i++)
        for (k = 0; k < 2 && w.whos[i].opened && !w.whos[i].closed; k++) {
            rt_send(w.loop, w.whos[i].s, RT_BINARY, bomb_bytes, 1000);
            w.sent += 1000;
        }
}

static void step_hear(void)
{
    struct stranger *p = stranger_any(1);
    size_t len = length_draw() % 4000;
    int i, n = sim_choose(3) ? 1 : 6; /* six pass no limit */

    message_fill(bomb_bytes, len);
    for (i = 0; p && i < n; i++)
        ws_send(p->ws, WS_BINARY, bomb_bytes, len);
}

/* Those of the listener with a limit hear of it. */
static void step_limit(void)
{
    int i, k;

    message_fill(bomb_bytes, 4);
    for (i = 0; i < STRANGERS; i++)
        for (k = 0; k < 6 && strangers[i].ws && strangers[i].ws->open &&
                    !strangers[i].ws->server;
             k++)
            ws_send(strangers[i].ws, WS_TEXT, bomb_bytes, 4);
}

static void step_stream(void)
{
    static const uint8_t frame[] = {0, 0, 0, 2, 'o', 'r'};
    struct stranger *p = stranger_any(0);

    if (p && p->framed)
        sim_peer_send(p->line, frame, sizeof frame);
    else if (p)
        sim_peer_send(p->line, "more", 4);
}

static void step_leave(void)
{
    struct stranger *p = stranger_any(sim_choose(2) != 0);

    if (!p)
        return;
    if (p->ws && sim_choose(2))
        ws_close(p->ws, sim_choose(2) ? 1000 : 4100);
    else if (sim_choose(2))
        sim_peer_reset(p->ws ? p->ws->line : p->line);
    else
        stranger_free(p);
}

static void step_rooms(void)
{
    rt_group_opts o = {.history = 2, .event = bomb_event, .user = &w.rooms};

    bomb_room("n0", &o);
    o.snapshot = 2;
    o.history = 0;
    bomb_room("n1", &o);
    o.upstream = 1;
    bomb_room("n2", &o);
}

static void step_cast(void)
{
    int i, k;

    for (i = 0; i < ROOMS; i++)
        for (k = 0; k < 3 && w.rooms[i].open; k++) {
            size_t len = sim_choose(60);
            message_fill(bomb_bytes, len);
            w.sent += len;
            rt_group_send(w.loop, w.rooms[i].g,
                          RT_TEXT | (k == 2 ? rt_latest(1) : 0), bomb_bytes,
                          len);
        }
    rt_push(w.loop, "nobody", RT_TEXT, bomb_bytes, 0);
}

static void step_clocks(void)
{
    rt_session none = {0}, s = who_open();

    bomb_clock(none, RT_EGONE, rt_now(w.loop) + sim_choose(60), GOOD);
    bomb_clock(s, state_of(s), rt_now(w.loop) + sim_choose(60), GOOD);
}

static void step_post(void)
{
    if (rt_post(w.loop, bomb_post, (void *)(w.posted + 1)) == 0)
        w.posted++;
}

static void step_watch(void)
{
    int i = (int)sim_choose(PIPES);

    bomb_eye(w.pipes[i][0], RT_READ, 1);
    bomb_eye(w.pipes[i][1], RT_WRITE, 1);
    if (write(w.pipes[i][1], "x", 1) < 0)
        sim_note("a pipe takes nothing");
}

/* Those that can come back lose their connection, from either end. */
static void step_drop(void)
{
    int i;

    for (i = 0; i < WHOS; i++) {
        const struct who *p = &w.whos[i];
        if (p->dialled && p->opened && !p->closed)
            rt_drop(w.loop, p->s, 4000, "again");
    }
}

static void step_keep(void)
{
    struct who *p;
    char token[23];

    for (p = w.whos; p < w.whos + WHOS; p++) {
        if (p->dialled || !living(p) || rt_keep(w.loop, p->s, 300, token) != 0)
            continue;
        memcpy(w.tokens[w.tokens_made++ % TOKENS], token, 23);
    }
}

static void step_part(void)
{
    uint32_t n;
    struct room *r = room_any(1);

    for (n = 0; r && n < WHOS; n++) {
        if (r->in[n] && rt_group_leave(w.loop, r->g, w.whos[n].s) == 0)
            r->in[n] = 0;
    }
}

/* One of each end. */
static void step_close(void)
{
    int dialled, i, from = (int)sim_choose(WHOS);

    for (dialled = 0; dialled < 2; dialled++)
        for (i = 0; i < WHOS; i++) {
            const struct who *p = &w.whos[(i + from) % WHOS];
            if (!living(p) || p->dialled != dialled ||
                rt_close(w.loop, p->s, 0, "enough") != 0)
                continue;
            ended(p->s);
            break;
        }
}

static void step_memory(void)
{
    int nth;

    if (!w.may_dry || sim_choose(3))
        return;
    w.dry = 1;
    nth = 1 + (int)sim_choose(200);
    sim_fail_memory(nth, !sim_choose(20));
}

static void step_turns(void);

/* ---- turns -------------------------------------------------------------- */

static void bomb_turn(int ms)
{
    int answer;

    strangers_pump();
    w.turn++;
    w.turning = 1;
    w.depth = 0;
    w.now = sim_now();
    sim_note("---- turn %u", w.turn);
    answer = rt_poll(w.loop, ms);
    if (answer < 0 && !w.dry)
        sim_fault("rt_poll: %d", answer);
    w.turning = 0;
    w.place = AT_between;
    w.depth = 1; /* no call runs a callback */
    w.self = who_any(0);
    world_check();
}

static void between(void)
{
    if (w.left > 0 || w.forced)
        bomb_drop();
}

static void step_turns(void)
{
    int i;

    for (i = 0; i < 3 && !sim_faults(); i++)
        bomb_turn(40);
}

/* ---- a world ------------------------------------------------------------ */

static void world_hooks(rt_loop_opts *o)
{
    o->user = &w;
    o->log = bomb_log;
    o->realloc = sim_realloc;
    o->resolve = bomb_resolve;
    o->group_first = bomb_first;
    o->group_last = bomb_last;
    o->group_out = bomb_out;
    o->group_evict = bomb_evict;
    o->push_miss = bomb_miss;
    o->drained = bomb_drained;
    o->metrics = bomb_more;
}

static void door_open(const char *url, int framing, int resume)
{
    rt_listen_opts o = {.on = bomb_server,
                        .user = &w.context,
                        .framing = framing,
                        .resume_ms = resume ? 3000 : RT_OFF,
                        .soft_mark = 600,
                        .hard_mark = 20000,
                        .close_ms = 300,
                        .rate_limit = 5,
                        .rate_ms = 30,
                        .rate_over = RT_OVER_DROP,
                        .filter = {bomb_filter, bomb_filter}};
    rt_listener l;

    if (framing >= RT_RAW) {
        o.filter[0] = o.filter[1] = bomb_bytes_filter;
        o.on.message = bomb_bytes_came;
    }
    if (framing == RT_CODEC)
        o.codec = &bomb_codec;
    l = rt_listen(w.loop, url, &o);
    if (!l.id)
        sim_fault("no listener on %s", url);
    door_note(l);
}

static void doors_open(void)
{
    door_open("ws://127.0.0.1:9000", 0, 1);
    door_open("ws://127.0.0.1:9001", 0, 0);
    door_open("tcp://127.0.0.1:9002", RT_LENGTH, 0);
    door_open("tcp://127.0.0.1:9003", RT_RTNET1, 1);
    door_open("tcp://127.0.0.1:9004", RT_RAW, 0);
    door_open("tcp://127.0.0.1:9005", RT_CODEC, 0);
    sim_serve(PORT_SCRIPT);
    sim_blackhole(PORT_SILENT);
}

static int nowhere(rt_loop *loop, const char *host, rt_session s)
{
    (void)loop;
    (void)host;
    (void)s;
    return 0;
}

static void never(rt_loop *loop, void *arg)
{
    (void)loop;
    (void)arg;
    sim_fault("a timer of the loop that does not turn");
}

static void abroad_open(void)
{
    rt_loop_opts o = {.realloc = sim_realloc, .resolve = nowhere};
    rt_session none = {0};

    w.other.loop = rt_loop_new(&o);
    w.other.s = rt_dial(w.other.loop, "ws://elsewhere:1/", NULL);
    w.other.g = rt_group_open(w.other.loop, "n0", NULL);
    w.other.l = rt_listen(w.other.loop, "ws://127.0.0.1:0", NULL);
    w.other.t = rt_timer_start(w.other.loop, none, 0, never, NULL);
    if (!w.other.s.id || !w.other.g.id || !w.other.l.id || !w.other.t.id)
        sim_fault("the other loop has no objects");
}

static void world_open(void)
{
    rt_loop_opts o = {.backend = w.backend,
                      .max_groups = 6,
                      .groups_per_session = 4,
                      .defer_ms = 2000};
    int i;

    o.bind_policy = (int)sim_choose(3);
    o.bind_max = 2;
    world_hooks(&o);
    w.loop = rt_loop_new(&o);
    abroad_open();
    for (i = 0; i < PIPES; i++)
        if (pipe2(w.pipes[i], O_NONBLOCK | O_CLOEXEC) < 0)
            sim_fault("no pipe");
    doors_open();
    w.place = AT_between;
    w.depth = 1;
    step_rooms();
}

static void world_close(void)
{
    const struct who *p;
    int i;

    w.freeing = 1;
    w.depth = 0;
    rt_loop_free(w.loop);
    for (p = w.whos; p < w.whos + WHOS; p++)
        if ((p->opened || p->dialled) && !p->closed)
            sim_fault("a session without its on_close");
    rt_loop_free(w.other.loop);
    for (i = 0; i < STRANGERS; i++)
        stranger_free(&strangers[i]);
    for (i = 0; i < PIPES; i++) {
        close(w.pipes[i][0]);
        close(w.pipes[i][1]);
    }
}

/* Until those who were dropped are back; they try again by chance. */
static void step_back(void)
{
    const struct who *p;
    int i, away = 1;

    for (i = 0; i < 60 && away && !sim_faults(); i++) {
        bomb_turn(50);
        for (away = 0, p = w.whos; p < w.whos + WHOS; p++)
            away += living(p) && rt_state(w.loop, p->s) == RT_AWAY;
    }
}

/* Each callback comes about in these, in this order. */
static void (*const tour[])(void) = {
    step_strangers, step_dials, step_turns,  step_script,    step_names,
    step_turns,     step_talk,  step_hear,   step_limit,     step_turns,
    step_clocks,    step_post,  step_watch,  step_turns,     step_much,
    step_turns,     step_cast,  step_stream, step_turns,     step_keep,
    step_drop,      step_back,  step_talk,   step_strangers, step_turns,
    step_part,      step_leave, step_close,  step_turns,     step_dials,
    step_turns,     step_rooms, step_cast,   step_turns};

static void (*const steps[])(void) = {
    step_strangers, step_dials, step_names,  step_script, step_talk,
    step_much,      step_hear,  step_limit,  step_stream, step_leave,
    step_rooms,     step_cast,  step_clocks, step_post,   step_watch,
    step_drop,      step_keep,  step_part,   step_close,  step_memory,
    step_turns};

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static void tour_run(void)
{
    size_t i;

    for (i = 0; i < LENGTH(tour) && !sim_faults(); i++) {
        tour[i]();
        bomb_turn((int)sim_choose(3));
        if (i == 20)
            between();
    }
    if (w.at != AT_drained || sim_faults())
        return;
    bomb_shutdown(50);
    for (i = 0; i < 60 && !w.drained && !sim_faults(); i++)
        bomb_turn(20);
}

static void step_any(void)
{
    static const int waits[] = {0, 0, 1, 5, 40, 300};

    steps[sim_choose(LENGTH(steps))]();
    bomb_turn(CHOSEN(waits));
    between();
}

static void world_begin(const sim_opts *o, int backend)
{
    memset(&w, 0, sizeof w);
    w.backend = backend;
    sim_start(o);
    world_open();
}

static int world_end(const char *what, uint64_t *digest)
{
    int faults;

    sim_fail_memory(0, 0);
    world_close();
    faults = sim_end();
    if (faults)
        printf("%s: %s\n", what, sim_fault_text());
    if (digest)
        *digest = w.digest;
    return faults;
}

static void bomb_weather(uint64_t seed, sim_opts *o)
{
    memset(o, 0, sizeof *o);
    o->seed = seed;
    o->spin = 400;
    if (seed % 4 == 0)
        return;
    sim_weather(seed, o);
    o->tick_ns = 300;
}

/* A world in which anything is called anywhere. */
static inline int bomb_run(uint64_t seed, int backend, int trace,
                           uint64_t *digest)
{
    char what[80];
    sim_opts o;
    int i;

    bomb_weather(seed, &o);
    o.trace = trace;
    snprintf(what, sizeof what, "--seed %llu --backend %d",
             (unsigned long long)seed, backend);
    world_begin(&o, backend);
    w.may_dry = seed % 3 == 0;
    w.rate = 10 + (int)sim_choose(60);
    w.left = 600;
    step_strangers();
    step_dials();
    for (i = 20 + (int)sim_choose(60); i > 0 && !sim_faults(); i--)
        step_any();
    return world_end(what, digest);
}

/* One in which the first of one callback makes one call, on its own object
   (enum aim) or another; else nothing happens that need not. */
static inline int bomb_pair(enum bomb_place at, enum bomb_call call,
                            int variant, int backend, int trace)
{
    sim_opts o = {.spin = 400};
    char what[160];

    o.seed = (uint64_t)at << 16 | (uint64_t)call << 4 | (uint64_t)variant;
    o.trace = trace;
    snprintf(what, sizeof what, "--pair %s:%s:%d --backend %d", bomb_places[at],
             bomb_names[call], variant, backend);
    world_begin(&o, backend);
    w.forced = 1;
    w.at = at;
    w.call_wanted = call;
    w.variant = variant;
    tour_run();
    if (!w.done && at != AT_close_in_free)
        sim_fault("%s did not come", bomb_places[at]);
    return world_end(what, NULL);
}

/* The same engine, out of bytes. */
static inline int bomb_run_bytes(const uint8_t *data, size_t len, int trace,
                                 uint64_t *digest)
{
    sim_opts o = {.seed = 1, .spin = 2000};

    o.choices = data;
    o.choices_len = len;
    o.trace = trace;
    if (len > 0 && data[0] & 1) {
        o.eintr = 50;
        o.again = 80;
        o.shorts = 300;
        o.shuffle = 300;
    }
    world_begin(&o, len > 0 && data[0] & 2 ? RT_SELECT : RT_EPOLL);
    w.may_dry = len > 0 && data[0] & 4;
    w.rate = 50;
    w.left = 400;
    step_strangers();
    step_dials();
    while (sim_choices_left() > 0 && w.turn < 100 && !sim_faults())
        step_any();
    return world_end("bytes", digest);
}

#endif
