/*
 * The calls of rtnet.h, each with arguments drawn, and what it may answer.
 * Answers are held against the model where that knows better than "no crash":
 * a handle of nothing gets RT_EGONE, a bad argument RT_EINVAL, and neither has
 * any effect.
 */
#ifndef BOMB_CALLS_H
#define BOMB_CALLS_H

/* A call was made as it stands in the table, or there was nothing to make it
   with (no request to read): then it does not count. */
static int bomb_made;

static int made_in(enum bomb_place place)
{
    return w.place == place;
}

/* In the closing phase what ends waits for the next turn: an on_close, an event
   before it, the on_open of who follows one that its server had forgotten. */
static unsigned end_is_due(void)
{
    int late = made_in(AT_close) || made_in(AT_dialled_close) ||
               made_in(AT_close_in_free) || made_in(AT_event) ||
               made_in(AT_dialled_open);

    return w.turn + (w.turning && !late ? 0U : 1U);
}

static void ended(rt_session s)
{
    struct who *p = who_find(s);

    sim_note("%d ends", (int)(p - w.whos));
    if (p && (p->opened || p->dialled) && !p->ended)
        p->ended = end_is_due();
}

/* ---- arguments ---------------------------------------------------------- */

enum { GOOD, BAD, UNSURE };

/* What is sent; fit says whether it may be. */
struct load {
    int kind, fit;
    size_t len;
    const void *data;
};

static uint8_t bomb_bytes[70000];

static size_t length_draw(void)
{
    switch (sim_choose(10)) {
    case 0:
        return 0;
    case 1:
        return 120 + sim_choose(12); /* about the 7-bit limit of lengths */
    case 2:
        return sim_choose(6000);
    case 3:
        return sim_choose(8) ? 1
                             : 17000 + sim_choose(sizeof bomb_bytes - 17000);
    default:
        return sim_choose(40);
    }
}

static int kind_draw(void)
{
    int kind = sim_choose(2) ? RT_TEXT : RT_BINARY;

    switch (sim_choose(8)) {
    case 0:
        return kind | RT_DROPPABLE;
    case 1:
        return kind | rt_latest((uint16_t)sim_choose(5));
    case 2:
        return kind | RT_NO_HISTORY;
    case 3:
        return kind | rt_latest((uint16_t)sim_choose(65536)) | RT_DROPPABLE;
    default:
        return kind;
    }
}

static void load_spoil(struct load *m)
{
    static const int kinds[] = {0, RT_DROPPABLE, -1, 0x1001, 0x800 | RT_TEXT};

    switch (sim_choose(4)) {
    case 0:
        m->kind = CHOSEN(kinds);
        m->fit = BAD;
        break;
    case 1:
        m->data = NULL;
        m->len = 1 + sim_choose(9);
        m->fit = BAD;
        break;
    case 2:
        m->kind = RT_TEXT; /* but a codec's text is its own business */
        m->data = "\xed\xa0\x80\xff\xc0\x80\xf5";
        m->len = 1 + sim_choose(7);
        m->fit = UNSURE;
        break;
    default:
        m->kind = 3 + (int)sim_choose(253); /* a codec may know it */
        m->fit = UNSURE;
    }
}

static struct load load_draw(void)
{
    struct load m = {0};

    m.kind = kind_draw();
    m.len = length_draw();
    m.data = bomb_bytes;
    message_fill(bomb_bytes, m.len);
    if (w.data && !sim_choose(3)) { /* what just came, from where it lies */
        m.kind = w.data_kind;
        m.data = w.data;
        m.len = w.data_len;
    } else if (!sim_choose(7)) {
        load_spoil(&m);
    }
    if (!m.len && sim_choose(2))
        m.data = NULL;
    w.sent += m.len;
    return m;
}

#define UNFIT (E(RT_EINVAL) | E(RT_EUTF8))

static unsigned load_errors(const struct load *m)
{
    return m->fit == GOOD ? 0 : UNFIT;
}

/* Good until the fourth one after it. */
static const char *long_text(size_t len)
{
    static char texts[4][400];
    char *text = texts[++w.serial % 4];

    memset(text, 'x', len);
    text[len] = 0;
    return text;
}

/* Of a user, a group, a key. */
static const char *name_draw(int *fit)
{
    static char text[4];

    *fit = GOOD;
    switch (sim_choose(12)) {
    case 0:
        *fit = BAD;
        return sim_choose(2) ? "" : NULL;
    case 1:
        *fit = BAD;
        return long_text(256);
    case 2:
        return long_text(255);
    default:
        text[0] = 'n';
        text[1] = (char)('0' + sim_choose(NAMES));
        return text;
    }
}

struct farewell {
    int code, fit;
    const char *reason;
};

static struct farewell farewell_draw(void)
{
    static const int good[] = {0, 1000, 1001, 1011, 1012, 3000, 4000, 4999};
    static const int bad[] = {1, 999, 1004, 1005, 1006, 1015, 2999, 5000, -1};
    static const char *const reasons[] = {NULL, "", "bye", "\xc3\xbc"};
    struct farewell f;

    f.fit = GOOD;
    f.code = CHOSEN(good);
    f.reason = sim_choose(6) ? CHOSEN(reasons) : long_text(123);
    if (sim_choose(6))
        return f;
    f.fit = BAD;
    if (sim_choose(2))
        f.code = CHOSEN(bad);
    else
        f.reason = sim_choose(2) ? "\xff" : long_text(124);
    return f;
}

/* ---- the loop ----------------------------------------------------------- */

static void do_rt_strerror(void)
{
    static const int far[] = {INT32_MIN, INT32_MAX, -1000};
    int n = sim_choose(5) ? (int)sim_choose(20) - 15 : CHOSEN(far);

    if (!rt_strerror(n) || !*rt_strerror(n))
        sim_fault("rt_strerror(%d) says nothing", n);
}

static void do_rt_version(void)
{
    if (strcmp(rt_version(), "0.1.0") != 0)
        sim_fault("rt_version says %s", rt_version());
}

static void do_rt_loop_new(void)
{
    static const int backends[] = {RT_AUTO, RT_EPOLL, RT_SELECT, 99, -1};
    rt_loop_opts o = {.realloc = sim_realloc};
    rt_session none = {0};
    size_t heap = sim_heap();
    rt_loop *loop;

    o.backend = CHOSEN(backends);
    loop = rt_loop_new(&o);
    if (!loop != (o.backend == 99 || o.backend == -1) && !w.dry)
        sim_fault("rt_loop_new with backend %d: %p", o.backend, (void *)loop);
    if (loop && rt_state(loop, w.self) != RT_EGONE)
        sim_fault("a session is known to another loop");
    if (loop && rt_group_open(loop, "n0", NULL).id)
        rt_timer_start(loop, none, 0, NULL, NULL);
    rt_loop_free(loop);
    if (sim_heap() != heap)
        sim_fault("a loop left %zu bytes", sim_heap() - heap);
}

/* Inside a callback it is refused; between turns the world still wants it. */
static void do_rt_loop_free(void)
{
    rt_loop_free(made_in(AT_between) ? NULL : w.loop);
    w.no_effect = 1;
}

static void bomb_turn(int ms);

static void do_rt_poll(void)
{
    if (!made_in(AT_between))
        answered(rt_poll(w.loop, sim_choose(2) ? 0 : -1), 0, E(RT_ESTATE));
    else
        bomb_turn((int)sim_choose(3));
}

/* Between turns with a stop before it: it returns without a turn. */
static void do_rt_run(void)
{
    if (made_in(AT_between))
        rt_stop(w.loop);
    answered(rt_run(w.loop), made_in(AT_between), E(RT_ESTATE));
}

static void do_rt_stop(void)
{
    rt_stop(w.loop);
    w.no_effect = 1;
}

static void bomb_post(rt_loop *loop, void *arg);

static void do_rt_post(void)
{
    int n;

    if (!sim_choose(8)) {
        answered(rt_post(w.loop, NULL, NULL), 0, E(RT_EINVAL));
        return;
    }
    n = rt_post(w.loop, bomb_post, (void *)(w.posted + 1));
    answered(n, 1, E(RT_EFULL));
    w.posted += n == 0;
}

static void do_rt_flush(void)
{
    rt_flush(w.loop);
}

static void do_rt_now(void)
{
    uint64_t a = rt_now(w.loop), b = rt_now(w.loop);

    if (a > b || a < w.now || (!made_in(AT_between) && a != b))
        sim_fault("rt_now: %d after %d", (int)b, (int)a);
    w.no_effect = 1;
}

static void do_rt_loop_fd(void)
{
    int fd = rt_loop_fd(w.loop);

    if (w.backend == RT_SELECT ? fd != RT_ESTATE : fd < 0)
        sim_fault("rt_loop_fd: %d", fd);
    w.no_effect = 1;
}

static void do_rt_loop_timeout(void)
{
    if (rt_loop_timeout(w.loop) < -1)
        sim_fault("rt_loop_timeout: %d", rt_loop_timeout(w.loop));
    w.no_effect = 1;
}

static void do_rt_loop_user(void)
{
    if (rt_loop_user(w.loop) != &w)
        sim_fault("rt_loop_user is not opts.user");
}

static void do_rt_error(void)
{
    const char *text = NULL;
    int error = rt_error(w.loop, sim_choose(4) ? &text : NULL);

    if (error > 0 || error < -12 || (text && strlen(text) > 4000))
        sim_fault("rt_error: %d", error);
    w.no_effect = 1;
}

/* A call that gives {0} says why. */
static void refused_handle(uint64_t id, int ok, unsigned errors)
{
    answered(id ? 0 : rt_error(w.loop, NULL), ok, errors);
    if (id)
        return;
    w.no_effect = 1;
}

/* ---- listeners ---------------------------------------------------------- */

static struct door *door_any(int open)
{
    uint32_t at = sim_choose(DOORS);
    int i;

    for (i = 0; i < DOORS; i++, at++) {
        struct door *d = &w.doors[at % DOORS];
        if (d->l.id && d->open == open)
            return d;
    }
    return NULL;
}

static struct door *door_of(rt_listener l)
{
    int i;

    for (i = 0; i < DOORS; i++) {
        if (l.id && w.doors[i].l.id == l.id)
            return &w.doors[i];
    }
    return NULL;
}

static rt_listener aim_listener(void)
{
    enum aim aim = aim_draw();
    struct door *d = door_any(aim != STALE);
    rt_listener l = {0};

    if (d)
        l = d->l;
    if (aim == ANY)
        l.id = id_strange(w.self.id, w.other.l.id);
    return l;
}

static void door_shut(rt_listener l)
{
    struct door *d = door_of(l);
    int known = d && d->open;

    answered(rt_unlisten(w.loop, l), known, known ? 0 : E(RT_EGONE));
    if (known)
        d->open = 0;
}

static void door_note(rt_listener l)
{
    struct door *d = door_any(0);
    int i;

    for (i = 0; i < DOORS; i++)
        if (!w.doors[i].l.id)
            d = &w.doors[i];
    if (!d) { /* all are in use: one makes room */
        d = &w.doors[DOORS - 1];
        door_shut(d->l);
    }
    d->l = l;
    d->open = 1;
    d->port = rt_listener_port(w.loop, l);
}

static rt_handler bomb_server, bomb_client;
static rt_codec bomb_codec;

static void listen_opts_spoil(rt_listen_opts *o)
{
    switch (sim_choose(4)) {
    case 0:
        o->soft_mark = 2000;
        o->hard_mark = 1000;
        break;
    case 1:
        o->proxies = "not an address";
        break;
    case 2:
        o->framing = RT_CODEC; /* without one */
        break;
    default:
        o->proxy_protocol = 1;
    }
}

static void do_rt_listen(void)
{
    static const char *const good[] = {"ws://127.0.0.1:0", "ws://:0",
                                       "tcp://127.0.0.1:0", "ws://localhost:0"};
    static const char *const bad[] = {"ftp://127.0.0.1:0", "ws://elsewhere:0",
                                      "", "ws://127.0.0.1:99999"};
    rt_listen_opts o = {.on = bomb_server, .user = &w.context};
    int fit = sim_choose(3) ? GOOD : BAD;
    const char *url = fit == GOOD || sim_choose(2) ? CHOSEN(good) : CHOSEN(bad);
    rt_listener l;

    o.resume_ms = (int)sim_choose(3) - 1;
    o.max_handshakes = (int)sim_choose(4);
    if (fit == BAD)
        listen_opts_spoil(&o);
    if (fit == BAD && !sim_choose(4))
        url = NULL;
    l = rt_listen(w.loop, url, fit == GOOD && !sim_choose(8) ? NULL : &o);
    refused_handle(l.id, fit == GOOD && !w.draining && !w.freeing,
                   (w.draining || w.freeing ? E(RT_ESTATE) : 0) |
                       (fit == GOOD ? 0 : E(RT_EINVAL)));
    if (l.id)
        door_note(l);
}

static void do_rt_listener_port(void)
{
    rt_listener l = aim_listener();
    const struct door *d = door_of(l);
    int port = rt_listener_port(w.loop, l);

    if (port != (d && d->open ? d->port : RT_EGONE))
        sim_fault("rt_listener_port: %d", port);
}

static void do_rt_listener_fd(void)
{
    rt_listener l = aim_listener();
    const struct door *d = door_of(l);
    rt_fd fd = rt_listener_fd(w.loop, l);

    if (d && d->open ? fd < 0 : fd != RT_EGONE)
        sim_fault("rt_listener_fd: %d", (int)fd);
    w.no_effect = 1;
}

static void do_rt_unlisten(void)
{
    door_shut(aim_listener());
}

/* This build has no TLS, and no listener here would have. */
static void do_rt_tls_reload(void)
{
    rt_listener l = aim_listener();
    const struct door *d = door_of(l);
    rt_tls_opts o = {.cert = "none", .key = "none"};
    int open = d && d->open;

    answered(rt_tls_reload(w.loop, l, sim_choose(2) ? &o : NULL), 0,
             open ? E(RT_EINVAL) : E(RT_EGONE));
}

/* ---- dialled sessions --------------------------------------------------- */

enum {
    PORT_RESUME = 9000,
    PORT_PLAIN,
    PORT_LENGTH,
    PORT_RTNET1,
    PORT_RAW,
    PORT_CODEC,
    PORT_SCRIPT = 9100,
    PORT_NOBODY = 9200,
    PORT_SILENT = 9300
};

struct dial {
    const char *url;
    int framing, resume, codec;
};

static const struct dial dials[] = {
    {"ws://127.0.0.1:9000/r", 0, 1, 0},
    {"ws://127.0.0.1:9001/p?q=1", 0, 0, 0},
    {"tcp://127.0.0.1:9002", RT_LENGTH, 0, 0},
    {"tcp://127.0.0.1:9003", RT_RTNET1, 1, 0},
    {"tcp://127.0.0.1:9004", RT_RAW, 0, 0},
    {"tcp://127.0.0.1:9005", RT_CODEC, 0, 1},
    {"ws://elsewhere:9000/", 0, 1, 0},
    {"ws://127.0.0.1:9100/", 0, 0, 0},
    {"ws://127.0.0.1:9200/", 0, 0, 0},
    {"tcp://127.0.0.1:9300", RT_LENGTH, 0, 0},
    {"tcp://elsewhere:9003", RT_RTNET1, 1, 0},
};
enum { DIALS = sizeof dials / sizeof *dials, DIAL_NAME = 6 };

static void dial_spoil(rt_dial_opts *o, const char **url)
{
    switch (sim_choose(5)) {
    case 0:
        *url = NULL;
        break;
    case 1:
        *url = "ws://127.0.0.1:0/";
        break;
    case 2:
        *url = "ws://127.0.0.1:9000/ bad";
        break;
    case 3:
        o->headers = "X: a\r\n\r\nGET";
        break;
    default:
        o->protocols = "a,,b c";
    }
}

static void bomb_dial(const struct dial *d, int fit)
{
    rt_dial_opts o = {.on = bomb_client,
                      .user = &w.context,
                      .framing = d->framing,
                      .resume = d->resume,
                      .soft_mark = 600,
                      .hard_mark = 20000,
                      .close_ms = 300};
    const char *url = d->url;
    int off = w.draining || w.freeing;
    struct who *p;
    rt_session s;

    if (d->codec)
        o.codec = &bomb_codec;
    if (fit == BAD)
        dial_spoil(&o, &url);
    s = rt_dial(w.loop, url, &o);
    refused_handle(s.id, fit == GOOD && !off,
                   (off ? E(RT_ESTATE) : 0) | E(RT_ESYS) |
                       (fit == BAD ? E(RT_EINVAL) : 0));
    if (!s.id)
        return;
    if (who_find(s))
        sim_fault("rt_dial gives a handle that is in use");
    p = who_of(s);
    p->dialled = 1;
}

static void do_rt_dial(void)
{
    int full = sessions_here() > 60;
    const struct dial *d = &dials[sim_choose(DIALS)];

    bomb_dial(d, full || !sim_choose(5) ? BAD : GOOD);
}

static void do_rt_resolved(void)
{
    static const char *const texts[] = {"127.0.0.1", "127.0.0.1", "",
                                        "elsewhere", NULL};
    rt_session s = aim_session();
    int state = state_of(s), n;
    const char *text = CHOSEN(texts);

    n = rt_resolved(w.loop, s, text);
    answered(n, state == RT_OPENING || state == RT_AWAY,
             state == RT_EGONE || state == RT_CLOSING ? E(RT_EGONE)
             : state == RT_OPENING || state == RT_AWAY
                 ? E(RT_ESTATE) | E(RT_EINVAL)
                 : E(RT_ESTATE));
    if (n == 0 && state_of(s) == RT_CLOSING)
        ended(s); /* one that can resume tries again */
}

/* ---- requests ----------------------------------------------------------- */

static void do_rt_accept(void)
{
    static const char *const lines[] = {NULL, "X-A: b\r\n", "A: b\r\n\r\n",
                                        "no colon", "A: b\nB: c\n"};
    static const char *const protocols[] = {NULL, NULL, "chat", "rtnet.1", ""};
    rt_session s = aim_session();
    int state = state_of(s), fit = GOOD;
    rt_accept_opts o = {0};

    o.headers = CHOSEN(lines);
    o.protocol = CHOSEN(protocols);
    if (!sim_choose(3))
        o.uid = name_draw(&fit);
    answered(rt_accept(w.loop, s, sim_choose(3) ? &o : NULL),
             state == HANDSHAKE,
             state == HANDSHAKE  ? E(RT_EINVAL) | E(RT_EREFUSED) | E(RT_ESTATE)
             : state == RT_EGONE ? E(RT_EGONE)
                                 : E(RT_ESTATE));
}

static void do_rt_reply(void)
{
    static const int statuses[] = {200, 204, 404, 503, 599, 199, 600, 0, -1};
    static const char *const types[] = {"", "text/plain", NULL, "a\r\nb: c"};
    rt_session s = aim_session();
    int state = state_of(s);
    size_t len = length_draw();
    int status = CHOSEN(statuses);
    const char *type = CHOSEN(types);

    message_fill(bomb_bytes, len);
    answered(rt_reply(w.loop, s, status, type,
                      sim_choose(9) ? bomb_bytes : NULL, len),
             state == HANDSHAKE,
             state == HANDSHAKE  ? E(RT_EINVAL) | E(RT_ESTATE)
             : state == RT_EGONE ? E(RT_EGONE)
                                 : E(RT_ESTATE));
}

/* All of its texts can be read. */
static void request_read(const rt_request *r)
{
    size_t n;

    if (!r)
        return;
    n = strlen(r->method) + strlen(r->path) + strlen(r->query) +
        strlen(r->address);
    if (n > 10000 || (r->body_len && !r->body))
        sim_fault("a request cannot be read");
    if (r->body_len)
        message_check(r->body, r->body_len);
}

static void do_rt_request_of(void)
{
    rt_session s = aim_session();
    const rt_request *r = rt_request_of(w.loop, s);
    int state = state_of(s);

    request_read(r);
    if (r && (state == RT_EGONE || state == RT_AWAY))
        sim_fault("rt_request_of answers for state %d", state);
    if (w.request && rt_same(s, w.self) && state == HANDSHAKE && r != w.request)
        sim_fault("rt_request_of is not what on_request got");
    w.no_effect = 1;
}

/* One that can be read just now. */
static const rt_request *request_any(void)
{
    const rt_request *r = rt_request_of(w.loop, aim_session());
    int i;

    for (i = 0; i < WHOS && !r; i++)
        r = rt_request_of(w.loop, w.whos[i].s);
    bomb_made = r != NULL;
    return r;
}

static void do_rt_header(void)
{
    static const char *const names[] = {"host", "Upgrade", "x", "", "cookie"};
    const rt_request *r = request_any();
    const char *value = r ? rt_header(r, CHOSEN(names)) : NULL;

    if (value && strlen(value) > 9000)
        sim_fault("a header cannot be read");
    w.no_effect = 1;
}

static void do_rt_query(void)
{
    static const char *const names[] = {"q", "missing", "", "bad"};
    const rt_request *r = request_any();
    const char *name = CHOSEN(names);
    char out[16] = "";
    int n = r ? rt_query(r, name, out, sim_choose(17)) : RT_EINVAL;

    if (n >= 0 ? strlen(out) != (size_t)n : n != RT_EINVAL)
        sim_fault("rt_query: %d", n);
    w.no_effect = 1;
}

/* ---- sessions ----------------------------------------------------------- */

static void do_rt_context(void)
{
    rt_session s = aim_session();
    int state = state_of(s);

    if (rt_context(w.loop, s) != (state == RT_EGONE ? NULL : &w.context))
        sim_fault("rt_context in state %d is wrong", state);
    w.no_effect = 1;
}

static void do_rt_user(void)
{
    rt_session s = aim_session();
    const struct who *p = who_find(s);
    int state = state_of(s);
    void *want = p && state != RT_EGONE && state != HANDSHAKE ? p->user : NULL;

    if (rt_user(w.loop, s) != want)
        sim_fault("rt_user in state %d is wrong", state);
    w.no_effect = 1;
}

static void do_rt_set_user(void)
{
    rt_session s = aim_session();
    struct who *p = who_find(s);
    void *user = sim_choose(4) ? &w.whos[sim_choose(WHOS)] : NULL;
    int state = state_of(s);

    rt_set_user(w.loop, s, user);
    if (p && state != RT_EGONE && state != HANDSHAKE)
        p->user = user;
    else
        w.no_effect = 1;
}

/* The answers of rt_send: an open one may be full, and ends then. */
static void do_rt_send(void)
{
    rt_session s = aim_session();
    int state = state_of(s), n;
    struct load m = load_draw();

    n = rt_send(w.loop, s, m.kind, m.data, m.len);
    answered(n, !unfit(state) && m.fit != BAD,
             unfit(state) ? unfit(state) | load_errors(&m)
                          : load_errors(&m) | (m.fit == BAD ? 0 : E(RT_EFULL)));
    if (n > 1)
        sim_fault("rt_send answered %d", n);
}

static void do_rt_send_many(void)
{
    rt_session list[6];
    size_t i, n = sim_choose(7);
    struct load m = load_draw();
    int took;

    for (i = 0; i < n; i++)
        list[i] = aim_session();
    took = rt_send_many(w.loop, n ? list : NULL, n, m.kind, m.data, m.len);
    answered(took, m.fit != BAD, load_errors(&m));
    if (took > (int)n)
        sim_fault("rt_send_many: %d of %zu", took, n);
}

static void do_rt_push(void)
{
    int fit;
    const char *uid = name_draw(&fit);
    struct load m = load_draw();

    answered(rt_push(w.loop, uid, m.kind, m.data, m.len),
             fit == GOOD && m.fit != BAD,
             load_errors(&m) | (fit == BAD ? E(RT_EINVAL) : 0));
}

static void do_rt_read(void)
{
    rt_session s = aim_session();
    int state = state_of(s);

    answered(rt_read(w.loop, s, (int)sim_choose(4)), state == RT_OPEN,
             state == RT_AWAY ? E(RT_ESTATE) : unfit(state));
}

static void do_rt_close(void)
{
    rt_session s = aim_session();
    int state = state_of(s), n;
    struct farewell f = farewell_draw();

    n = rt_close(w.loop, s, f.code, f.reason);
    answered(n, state != RT_EGONE && state != RT_CLOSING && f.fit == GOOD,
             state == RT_EGONE || state == RT_CLOSING
                 ? E(RT_EGONE) | (f.fit == BAD ? E(RT_EINVAL) : 0)
             : f.fit == BAD ? E(RT_EINVAL)
                            : 0);
    if (n == 0 && state != HANDSHAKE)
        ended(s);
}

static void do_rt_drop(void)
{
    rt_session s = aim_session();
    int state = state_of(s), n;
    struct farewell f = farewell_draw();

    n = rt_drop(w.loop, s, f.code, f.reason);
    answered(n, f.fit == GOOD && (state == RT_OPEN || state == RT_OPENING),
             (f.fit == BAD ? E(RT_EINVAL) : 0) |
                 (state == RT_AWAY || state == HANDSHAKE     ? E(RT_ESTATE)
                  : state == RT_EGONE || state == RT_CLOSING ? E(RT_EGONE)
                                                             : 0));
    if (n == 0 && state == RT_OPENING)
        ended(s);
}

static void do_rt_kick(void)
{
    int fit;
    const char *uid = name_draw(&fit);
    struct farewell f = farewell_draw();
    rt_session s = rt_find(w.loop, uid);
    int n = rt_kick(w.loop, uid, f.code, f.reason);

    if (fit == BAD)
        f.fit = BAD;
    answered(n, f.fit == GOOD, f.fit == BAD ? E(RT_EINVAL) : 0);
    if (n >= 0 && (n > 0) != (s.id != 0))
        sim_fault("rt_kick ended %d, rt_find found %d", n, s.id != 0);
    if (n > 0)
        ended(s);
    if (n >= 0 && rt_find(w.loop, uid).id)
        sim_fault("one who was kicked is still found");
}

static void do_rt_bind(void)
{
    rt_session s = aim_session();
    int fit, state = state_of(s), n;
    const char *uid = name_draw(&fit);
    const char *has = rt_uid(w.loop, s);

    n = rt_bind(w.loop, s, uid);
    answered(n, !unfit(state) && fit == GOOD && !has,
             unfit(state) | (fit == BAD ? E(RT_EINVAL) : 0) |
                 (has ? E(RT_EBOUND) : E(RT_EREFUSED)));
    if (n < 0)
        w.no_effect = 1;
    else if (!rt_uid(w.loop, s) || strcmp(rt_uid(w.loop, s), uid) != 0)
        sim_fault("rt_bind to %s: rt_uid says otherwise", uid);
    if (n >= 0 && strlen(uid) < 8)
        snprintf(who_of(s)->uid, 8, "%s", uid);
}

static void do_rt_find(void)
{
    int fit;
    const char *uid = name_draw(&fit);
    rt_session s = rt_find(w.loop, uid);

    if (s.id && (fit == BAD || unfit(state_of(s)) || !rt_uid(w.loop, s) ||
                 strcmp(rt_uid(w.loop, s), uid) != 0))
        sim_fault("rt_find gives one that is not bound to that");
    w.no_effect = 1;
}

static void do_rt_uid(void)
{
    rt_session s = aim_session();
    const char *uid = rt_uid(w.loop, s);
    int state = state_of(s);

    if (uid &&
        (state == RT_EGONE || state == HANDSHAKE || !*uid || strlen(uid) > 255))
        sim_fault("rt_uid in state %d", state);
    w.no_effect = 1;
}

static void do_rt_next_session(void)
{
    rt_session s = sim_choose(2) ? aim_session() : who_strange();
    int n;

    for (n = 0; n <= WHOS && (n == 0 || s.id); n++) {
        s = rt_next_session(w.loop, s);
        if (s.id && unfit(state_of(s)))
            sim_fault("rt_next_session gives one that is not open");
    }
    if (n > WHOS)
        sim_fault("rt_next_session does not end");
    w.no_effect = 1;
}

static void do_rt_state(void)
{
    state_of(aim_session());
    w.no_effect = 1;
}

static void do_rt_heard(void)
{
    rt_session s = aim_session();
    uint64_t at = rt_heard(w.loop, s);

    if (state_of(s) == RT_EGONE ? at != 0 : at > rt_now(w.loop))
        sim_fault("rt_heard: %d", (int)at);
    w.no_effect = 1;
}

static void do_rt_rtt(void)
{
    rt_session s = aim_session();
    int state = state_of(s);
    uint32_t rtt, jitter;
    int wants = (int)sim_choose(4);

    answered(
        rt_rtt(w.loop, s, wants & 1 ? &rtt : NULL, wants & 2 ? &jitter : NULL),
        state == RT_OPEN || state == RT_CLOSING,
        state == RT_EGONE ? E(RT_EGONE) : E(RT_ESTATE));
    w.no_effect = 1;
}

static void do_rt_unsent(void)
{
    rt_session s = aim_session();
    uint64_t n = rt_unsent(w.loop, s);
    int state = state_of(s);

    if (n && (state == RT_EGONE || state == HANDSHAKE))
        sim_fault("%d bytes are queued in state %d", (int)n, state);
    w.no_effect = 1;
}

/* ---- hosts with their own protocol -------------------------------------- */

static void do_rt_keep(void)
{
    static const int windows[] = {50, 1000, INT32_MAX, 0, -1, INT32_MIN};
    rt_session s = aim_session();
    int state = state_of(s), window = CHOSEN(windows), n;
    char token[23];

    n = rt_keep(w.loop, s, window, token);
    answered(n, !unfit(state) && window > 0,
             unfit(state) | (window <= 0 ? E(RT_EINVAL) : 0) | E(RT_ESTATE));
    if (n == 0 && strlen(token) != 22)
        sim_fault("rt_keep gives a token of %zu", strlen(token));
    if (n == 0 && !rt_same(rt_find_token(w.loop, token), s))
        sim_fault("a token does not find its session");
    if (n < 0 && *token)
        sim_fault("rt_keep gives a token and an error");
    if (n == 0)
        memcpy(w.tokens[w.tokens_made++ % TOKENS], token, 23);
}

static void do_rt_find_token(void)
{
    static const char *const bad[] = {"", "short", "AAAAAAAAAAAAAAAAAAAAAA",
                                      "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!"};
    int known = (int)sim_choose(3);
    const char *token = known ? w.tokens[sim_choose(TOKENS)] : CHOSEN(bad);
    rt_session s = rt_find_token(w.loop, token);

    if (s.id && (!known || unfit(state_of(s))))
        sim_fault("rt_find_token finds one in state %d", state_of(s));
    w.no_effect = 1;
}

static void do_rt_acked(void)
{
    static const uint64_t counts[] = {0, 1, 2, 1000000, UINT64_MAX};
    rt_session s = aim_session();
    int state = state_of(s);

    answered(rt_acked(w.loop, s, CHOSEN(counts)), !unfit(state),
             unfit(state) ? unfit(state) : E(RT_ESTATE) | E(RT_EINVAL));
}

static void do_rt_adopt(void)
{
    static const uint64_t counts[] = {0, 1, RT_UNCOUNTED, UINT64_MAX - 1};
    rt_session old = aim_session(), fresh = aim_session();
    int a, b, n;

    if (sim_choose(2)) /* one that can be adopted */
        old = rt_find_token(w.loop, w.tokens[sim_choose(TOKENS)]);
    a = state_of(old);
    b = state_of(fresh);
    n = rt_adopt(w.loop, old, fresh, CHOSEN(counts));
    answered(n, !unfit(a) && !unfit(b),
             unfit(a) || unfit(b) ? unfit(a) | unfit(b)
                                  : E(RT_ESTATE) | E(RT_EINVAL));
    if (n == 0)
        ended(fresh);
}

/* ---- groups ------------------------------------------------------------- */

static void bomb_event(rt_loop *loop, rt_group g, rt_session s, int what);

static void group_opts_draw(rt_group_opts *o)
{
    memset(o, 0, sizeof *o);
    o->event = sim_choose(4) ? bomb_event : NULL;
    o->user = &w.rooms;
    o->history = (int)sim_choose(4);
    o->snapshot = (int)sim_choose(3);
    o->once_max = (int)sim_choose(3);
    o->ttl_ms = sim_choose(3) ? 0 : 1 + (int)sim_choose(60);
    o->max_members = sim_choose(4) ? 0 : 2;
    o->upstream = !sim_choose(5);
    if (!sim_choose(5))
        o->message_rate = 3;
    if (!sim_choose(5))
        o->rate_limit = 2;
    if (!sim_choose(8))
        o->history_ms = 30;
    if (!sim_choose(8))
        o->history_bytes = 100;
}

static struct room *room_named(const char *name)
{
    rt_group g = rt_group_find(w.loop, name);
    struct room *r = room_find(g);

    if (g.id && (!r || !r->open || strcmp(r->name, name) != 0))
        sim_fault("rt_group_find gives a group that is not of that name");
    return r;
}

/* A group of that name, found or made. */
static struct room *bomb_room(const char *name, const rt_group_opts *o)
{
    rt_group g = rt_group_open(w.loop, name, o);
    struct room *r = room_find(g);

    if (!g.id)
        return NULL;
    if (r)
        return r;
    r = room_new(g, name);
    r->ttl = o && o->ttl_ms > 0;
    r->rated = o && (o->message_rate > 0 || o->rate_limit > 0);
    return r;
}

static void do_rt_group_open(void)
{
    rt_group_opts o;
    int fit, was;
    const char *name = name_draw(&fit);
    struct room *r;

    group_opts_draw(&o);
    if (!sim_choose(8)) {
        o.history_ms = -2;
        fit = BAD;
    }
    if (fit == GOOD && strlen(name) > 8)
        name = "n0"; /* the model has short ones */
    was = fit == GOOD && rt_group_find(w.loop, name).id != 0;
    r = bomb_room(name, &o);
    if (r && (fit == BAD || strcmp(r->name, name) != 0))
        sim_fault("rt_group_open gives a group of another name");
    if (!r && (was || fit == BAD))
        answered(rt_error(w.loop, NULL), 0, fit == BAD ? E(RT_EINVAL) : 0);
    else if (!r)
        answered(rt_error(w.loop, NULL), 0,
                 E(RT_EFULL) | (w.freeing ? E(RT_ESTATE) : 0));
}

static void do_rt_group_find(void)
{
    int fit;
    const char *name = name_draw(&fit);

    if (fit == GOOD && strlen(name) < 9)
        room_named(name);
    else if (rt_group_find(w.loop, name).id)
        sim_fault("rt_group_find finds a name that nobody gave");
    w.no_effect = 1;
}

static void do_rt_group_close(void)
{
    rt_group g = aim_group();
    int lives = group_lives(g);

    answered(rt_group_close(w.loop, g), lives, lives ? 0 : E(RT_EGONE));
    if (lives)
        room_over(room_find(g));
}

static void do_rt_group_name(void)
{
    rt_group g = aim_group();
    const char *name = rt_group_name(w.loop, g);

    if (group_lives(g) ? !name || strcmp(name, room_find(g)->name) != 0
                       : name != NULL)
        sim_fault("rt_group_name is wrong");
    w.no_effect = 1;
}

static void do_rt_group_user(void)
{
    rt_group g = aim_group();
    const void *user = rt_group_user(w.loop, g);

    if (group_lives(g) ? user && user != &w.rooms : user != NULL)
        sim_fault("rt_group_user is wrong");
    w.no_effect = 1;
}

/* Joined, or not, for one of the reasons that there are. */
static void joined(rt_group g, rt_session s, int state, int n)
{
    struct room *r = room_find(g);
    struct who *p = who_find(s);
    int lives = group_lives(g), here = p && !unfit(state);
    int in = lives && here && r->in[p - w.whos];

    answered(n, lives && here && !in,
             !lives  ? E(RT_EGONE) | unfit(state)
             : !here ? unfit(state)
             : in    ? E(RT_EEXIST)
                     : E(RT_EFULL) | E(RT_EREFUSED) |
                        (unfit(state_of(s)) ? E(RT_EGONE) : 0));
    if (n == RT_EEXIST || (n < 0 && n != RT_EREFUSED))
        return;
    r->in[p - w.whos] = 1;
}

static void do_rt_group_join(void)
{
    rt_group g = aim_group();
    rt_session s = aim_session();
    int state = state_of(s), n = rt_group_join(w.loop, g, s);

    joined(g, s, state, n);
    if (n > 0 || n == RT_EREFUSED)
        sim_fault("rt_group_join answered %d", n);
}

static void do_rt_group_join_from(void)
{
    rt_group g = aim_group();
    rt_session s = aim_session();
    rt_position at = rt_group_position(w.loop, g);
    int state = state_of(s);

    switch (sim_choose(4)) {
    case 0:
        at.offset = sim_choose(2) ? UINT64_MAX : 0;
        break;
    case 1:
        at.epoch++;
        break;
    case 2:
        at.offset -= sim_choose(4);
    }
    joined(g, s, state,
           rt_group_join_from(w.loop, g, s, sim_choose(3) ? &at : NULL));
}

static void do_rt_group_leave(void)
{
    rt_group g = aim_group();
    rt_session s = aim_session();
    int state = state_of(s), lives = group_lives(g);
    struct room *r = room_find(g);
    struct who *p = who_find(s);
    int in = lives && p && !unfit(state) && r->in[p - w.whos], n;

    n = rt_group_leave(w.loop, g, s);
    answered(n, in,
             !lives         ? E(RT_EGONE) | unfit(state)
             : unfit(state) ? unfit(state)
             : in           ? 0
                            : E(RT_ESTATE));
    if (n == 0 && in)
        r->in[p - w.whos] = 0;
}

/* What a group's send says. */
static void group_sent(rt_group g, const struct load *m, int n, unsigned more)
{
    const struct room *r = room_find(g);
    int lives = group_lives(g);

    answered(n, lives && m->fit != BAD,
             (lives ? 0 : E(RT_EGONE)) | load_errors(m) | more |
                 (r && r->rated ? E(RT_EREFUSED) : 0));
    if (n >= 0 && (n > WHOS || !lives))
        sim_fault("a group of stale handle took it");
}

static void do_rt_group_send(void)
{
    rt_group g = aim_group();
    struct load m = load_draw();
    int most = (int)rt_group_count(w.loop, g);
    int n = rt_group_send(w.loop, g, m.kind, m.data, m.len);

    group_sent(g, &m, n, 0);
    if (n > most)
        sim_fault("%d of %d took it", n, most);
}

static void do_rt_group_send_but(void)
{
    rt_group g = aim_group();
    rt_session s = aim_session();
    struct load m = load_draw();

    group_sent(g, &m, rt_group_send_but(w.loop, g, s, m.kind, m.data, m.len),
               0);
}

static void do_rt_group_send_once(void)
{
    rt_group g = aim_group();
    int fit;
    const char *key = name_draw(&fit);
    struct load m = load_draw();
    rt_position at = {7, 7};

    group_sent(g, &m,
               rt_group_send_once(w.loop, g, key, m.kind, m.data, m.len,
                                  sim_choose(3) ? &at : NULL),
               E(RT_EEXIST) | (fit == BAD ? E(RT_EINVAL) : 0));
}

static void do_rt_group_count(void)
{
    rt_group g = aim_group();
    size_t want = group_lives(g) ? room_count(room_find(g)) : 0;

    if (rt_group_count(w.loop, g) != want)
        sim_fault("rt_group_count: %zu, not %zu", rt_group_count(w.loop, g),
                  want);
    w.no_effect = 1;
}

static void do_rt_group_members(void)
{
    rt_group g = aim_group();
    rt_session list[8];
    size_t i, cap = sim_choose(9), n;

    n = rt_group_members(w.loop, g, cap ? list : NULL, cap);
    if (n != (group_lives(g) ? room_count(room_find(g)) : 0))
        sim_fault("rt_group_members: %zu", n);
    for (i = 0; i < n && i < cap; i++)
        if (unfit(state_of(list[i])))
            sim_fault("a member is not open");
    w.no_effect = 1;
}

static void do_rt_group_position(void)
{
    rt_group g = aim_group();
    rt_position at = rt_group_position(w.loop, g);

    if (!group_lives(g) != !at.epoch || (!at.epoch && at.offset))
        sim_fault("rt_group_position is wrong");
    w.no_effect = 1;
}

static void do_rt_group_deliver(void)
{
    int fit;
    const char *name = name_draw(&fit);
    struct load m = load_draw();
    int lives = rt_group_find(w.loop, name).id != 0;

    answered(rt_group_deliver(w.loop, name, m.kind, m.data, m.len),
             lives && m.fit != BAD, lives ? load_errors(&m) : E(RT_EGONE));
}

/* ---- timers and watches ------------------------------------------------- */

static void bomb_timer(rt_loop *loop, void *arg);
static void bomb_watch(rt_loop *loop, rt_watch e, int events, void *arg);

static struct clock *clock_any(int runs)
{
    uint32_t at = sim_choose(CLOCKS);
    int i;

    for (i = 0; i < CLOCKS; i++, at++) {
        struct clock *c = &w.clocks[at % CLOCKS];
        if (c->runs == runs)
            return c;
    }
    return NULL;
}

static uint64_t due_draw(void)
{
    uint64_t now = rt_now(w.loop);

    switch (sim_choose(8)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return now;
    default:
        return now + sim_choose(60);
    }
}

static void bomb_clock(rt_session owner, int state, uint64_t due, int fit)
{
    struct clock *c = clock_any(0);
    rt_timer t;

    if (!c)
        return;
    t = rt_timer_start(w.loop, owner, due, fit == GOOD ? bomb_timer : NULL, c);
    refused_handle(t.id, fit == GOOD && (!owner.id || !unfit(state)),
                   (owner.id ? unfit(state) : 0) |
                       (fit == BAD ? E(RT_EINVAL) : 0));
    if (!t.id)
        return;
    c->t = t;
    c->owner = owner;
    c->due = due;
    c->runs = 1;
    c->started = w.turn;
}

static void do_rt_timer_start(void)
{
    rt_session none = {0}, owner = sim_choose(2) ? aim_session() : none;
    uint64_t due = due_draw();

    bomb_clock(owner, state_of(owner), due, sim_choose(6) ? GOOD : BAD);
}

static void do_rt_timer_stop(void)
{
    enum aim aim = aim_draw();
    struct clock *c = clock_any(aim != STALE);
    struct who *p = c ? who_find(c->owner) : NULL;
    int stopped = c && c->owner.id && (!p || !living(p));
    rt_timer t = {0};

    if (c)
        t = c->t;
    if (aim == ANY) {
        t.id = id_strange(w.self.id, w.other.t.id);
        if (rt_timer_stop(w.loop, t) == 0)
            for (c = w.clocks; c < w.clocks + CLOCKS; c++)
                if (c->t.id == t.id)
                    c->runs = 0;
        return;
    }
    answered(rt_timer_stop(w.loop, t), c && c->runs && !stopped,
             c && c->runs && !stopped ? 0 : E(RT_EGONE));
    if (c)
        c->runs = 0;
}

static struct eye *eye_any(int on)
{
    uint32_t at = sim_choose(EYES);
    int i;

    for (i = 0; i < EYES; i++, at++) {
        struct eye *e = &w.eyes[at % EYES];
        if (e->on == on)
            return e;
    }
    return NULL;
}

static void bomb_eye(rt_fd fd, int events, int fn)
{
    struct eye *e = eye_any(0);
    rt_watch at;

    if (!e)
        return;
    at = rt_watch_start(w.loop, fd, events, fn ? bomb_watch : NULL, e);
    refused_handle(at.id, fn && fd >= 0 && !(events & ~3), E(RT_EINVAL));
    if (!at.id)
        return;
    e->watch = at;
    e->on = 1;
    e->fd = (int)fd;
    e->events = events;
}

/* Mostly an end of a pipe; one that is watched already is refused. */
static void do_rt_watch_start(void)
{
    static const int bits[] = {1, 1, 2, 3, 0, 4, -1};
    const int *ends = w.pipes[sim_choose(PIPES)];
    rt_fd fd = ends[sim_choose(2)];
    int events = CHOSEN(bits);

    if (!sim_choose(8))
        fd = sim_choose(2) ? -1 : rt_listener_fd(w.loop, aim_listener());
    bomb_eye(fd, events, sim_choose(8) != 0);
}

static struct eye *aim_eye(rt_watch *at)
{
    enum aim aim = aim_draw();
    struct eye *e = eye_any(aim != STALE);

    at->id = e ? e->watch.id : 0;
    if (aim != ANY)
        return e;
    at->id = w.other.t.id;
    return NULL;
}

static void do_rt_watch_set(void)
{
    static const int bits[] = {0, 1, 2, 3, 4, -1, 1 << 30};
    int events = CHOSEN(bits), n;
    rt_watch at;
    struct eye *e = aim_eye(&at);

    n = rt_watch_set(w.loop, at, events);
    answered(n, e && e->on && !(events & ~3),
             !e || !e->on    ? E(RT_EGONE)
             : (events & ~3) ? E(RT_EINVAL)
                             : 0);
    if (n == 0)
        e->events = events;
}

static void do_rt_watch_stop(void)
{
    rt_watch at;
    struct eye *e = aim_eye(&at);

    answered(rt_watch_stop(w.loop, at), e && e->on,
             e && e->on ? 0 : E(RT_EGONE));
    if (e)
        e->on = 0;
}

/* ---- the whole ---------------------------------------------------------- */

static void do_rt_metrics(void)
{
    static char text[200000];
    size_t need = rt_metrics(w.loop, NULL, 0), n;
    size_t cap = sim_choose(2) ? need : sim_choose((uint32_t)need + 2);

    if (!need || need > sizeof text) {
        sim_fault("rt_metrics wants %zu bytes", need);
        return;
    }
    memset(text, 1, sizeof text);
    n = rt_metrics(w.loop, cap ? text : NULL, cap);
    if (cap && (n >= cap || text[n] || (n && text[n - 1] != '\n')))
        sim_fault("rt_metrics wrote %zu of %zu", n, cap);
    if (cap && strlen(text) != n)
        sim_fault("rt_metrics wrote a NUL");
    w.no_effect = 1;
}

static void do_rt_observe(void)
{
    static const char *const good[] = {"a", "b\n", "\xc3\xbc{}\"\\"};
    static const char *const bad[] = {"", NULL, "\xff", "a\tb", "\x7f"};
    int fit = sim_choose(3) ? GOOD : BAD;
    const char *route = fit == GOOD     ? CHOSEN(good)
                        : sim_choose(6) ? CHOSEN(bad)
                                        : long_text(65);
    uint64_t took = sim_choose(3) ? sim_choose(100000) : UINT64_MAX;

    answered(rt_observe(w.loop, route, took), fit == GOOD,
             fit == BAD ? E(RT_EINVAL) : 0);
}

static void bomb_shutdown(int window)
{
    int i, n = rt_shutdown(w.loop, window);

    answered(n, window >= 0, window < 0 ? E(RT_EINVAL) : 0);
    if (n < 0)
        return;
    w.draining = 1;
    for (i = 0; i < DOORS; i++)
        w.doors[i].open = 0;
}

/* Rarely, for not much comes after it. */
static void do_rt_shutdown(void)
{
    bomb_shutdown(w.forced || !sim_choose(20) ? (int)sim_choose(80) : -1);
}

/* ---- the table ---------------------------------------------------------- */

#define BOMB_ROW(name) do_##name,
static void (*const bomb_calls[])(void) = {BOMB_CALLS(BOMB_ROW)};
#undef BOMB_ROW

/* Makes a call where we are, and sees that it ran no callback. */
static void bomb_call(enum bomb_call call)
{
    uint64_t before = seen(), upcalls = w.upcalls;
    int turns = made_in(AT_between) && call == BOMB_rt_poll;

    sim_note("%s in %s", bomb_names[call], bomb_places[w.place]);
    w.call = call;
    w.no_effect = 0;
    bomb_made = 1;
    bomb_calls[call]();
    w.call = call;
    bomb_matrix[w.place][call] += (uint64_t)bomb_made;
    mix(call);
    if (turns)
        return;
    if (w.upcalls != upcalls)
        sim_fault("%s ran a callback", bomb_names[call]);
    if (w.no_effect && seen() != before)
        sim_fault("%s in %s failed, but had an effect", bomb_names[call],
                  bomb_places[w.place]);
}

/* Any of them, where the callback is not the one that is asked for. */
static void bomb_drop(void)
{
    uint32_t n;

    if (w.forced) {
        if (w.done || w.place != w.at)
            return;
        bomb_call(w.call_wanted);
        w.done = bomb_made;
        return;
    }
    if (w.left <= 0 || sim_choose(100) >= (uint32_t)w.rate)
        return;
    for (n = 1 + sim_choose(4); n > 0 && w.left-- > 0; n--)
        bomb_call((enum bomb_call)sim_choose(BOMB_COUNT));
}

#endif
