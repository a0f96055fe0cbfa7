/*
 * The states of a connection (enum rt__conn_state), each with all that can
 * happen to it: where it leads, what the application is told, what the peer
 * hears.  On the simulated kernel.
 *
 * The other tables are walked elsewhere: session x event of rtnet.1, for the
 * server and for the client, in test_resume.c (resume_server.h,
 * resume_client.h: RT_OPENING, RT_OPEN, RT_AWAY, RT_CLOSING and gone, on
 * WebSocket and TCP); frames x state in test_exhaustive.c.  RT__SECURING is
 * there only with TLS: test_tls.c has what can happen to it.
 *
 *   test_states           every cell
 *   test_states --print   what comes of each, as the table below has it
 */
#include "rtnet_internal.h"
#include "args.h"
#include "sim.h"
#include "test.h"

enum { PORT = 9000, THEIRS = 7000, HOLE = 7001, NOBODY = 7002 };

/* ---- the table ----------------------------------------------------------- */

/* Of the states that both roles have, each role is a row; of a handshake, each
   of its stages. */
enum {
    RESOLVING,
    CONNECTING,
    PROXIED,
    READING,  /* SHAKING: half of a request is there */
    THINKING, /* SHAKING: on_request said RT_DEFER */
    ASKING,   /* SHAKING: a client awaits the answer */
    GREETING,
    LIVE,
    LIVE_CLIENT,
    FAREWELL,
    FAREWELL_CLIENT,
    FINISHING, /* a violation; our close waits, as the peer takes nothing */
    FINISHING_CLIENT,
    DRAINING, /* a violation; our close is written */
    DRAINING_CLIENT,
    STATES
};
static const char *const state_names[STATES] = {
    "resolving",        "connecting", "proxied",         "reading",
    "thinking",         "asking",     "greeting",        "live",
    "live client",      "farewell",   "farewell client", "finishing",
    "finishing client", "draining",   "draining client"};

enum {
    NEXT,     /* what it waits for */
    WRONG,    /* what it cannot bear */
    END,      /* the peer shuts its half */
    RESET,    /* the line breaks */
    TIME,     /* a minute passes, and the peer says nothing */
    ROOM,     /* the peer takes bytes again */
    CLOSE,    /* rt_close, 4000 */
    DROP,     /* rt_drop, 4000 */
    SEND,     /* rt_send */
    STOP,     /* rt_read, 0, and then the peer says what is awaited */
    UNLISTEN, /* rt_unlisten */
    FREE,     /* rt_loop_free */
    EVENTS
};
static const char *const event_names[EVENTS] = {"what it waits for",
                                                "what it cannot bear",
                                                "the end of the peer's half",
                                                "a reset",
                                                "a minute",
                                                "room for more",
                                                "rt_close",
                                                "rt_drop",
                                                "rt_send",
                                                "rt_read 0",
                                                "rt_unlisten",
                                                "rt_loop_free"};

/*
 * What comes of it: what the call returned; the state of the connection
 * afterwards, or gone; what the application was told; what the peer heard
 * (numbers of HTTP, c and a code, m and a message) and how its line is.
 * A dash and a reason: the cell cannot be.
 */
#include "states_table.h"

/* ---- what happens -------------------------------------------------------- */

static struct {
    rt_loop *loop;
    rt_listener listener;
    rt_session session; /* or the handle of its handshake */
    ws_peer *peer;
    rt_handler on;
    int port;
    char told[128], heard[128];
} st;

static void tell(const char *format, ...)
{
    size_t n = strlen(st.told);
    va_list list;
    va_start(list, format);
    vsnprintf(st.told + n, sizeof st.told - n, format, list);
    va_end(list);
}

static int on_request(rt_loop *l, rt_session s, const rt_request *r)
{
    (void)l;
    st.session = s;
    if (strcmp(r->path, "/later") != 0)
        return 0;
    return RT_DEFER;
}

static void on_open(rt_loop *l, rt_session s)
{
    (void)l;
    st.session = s;
    tell(" open");
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    (void)l;
    (void)s;
    (void)kind;
    tell(" %.*s", (int)len, (const char *)data);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    static const char *const causes[] = {"",        "app",     "peer",
                                         "limit",   "timeout", "error",
                                         "replace", "adopt",   "loop"};
    (void)l;
    (void)s;
    tell(" close %d %s", why->code, causes[why->cause]);
}

static int on_resolve(rt_loop *l, const char *host, rt_session s)
{
    (void)l;
    (void)host;
    (void)s;
    return 0;
}

static void hears(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    size_t n = strlen(st.heard);
    char *to = st.heard + n;
    if (op == WS_CLOSE)
        snprintf(to, sizeof st.heard - n, " c%d", w->close_code);
    else if (op != WS_PING)
        snprintf(to, sizeof st.heard - n, " m%.*s", (int)(len < 9 ? len : 1),
                 (const char *)data);
}

/* ---- turns --------------------------------------------------------------- */

/* Four turns, each of so many ms. */
static void turns(int ms)
{
    int i;
    for (i = 0; i < 4 && st.loop; i++) {
        if (st.peer)
            ws_pump(st.peer);
        rt_poll(st.loop, ms);
    }
    if (st.peer)
        ws_pump(st.peer);
}

static void minute(void)
{
    uint64_t end = sim_now() + 60000;
    while (sim_now() < end)
        turns(500);
}

/* There is one connection at most; a name that is resolved has no descriptor
   yet. */
static int conn_state(void)
{
    rt__session *s =
        (rt__session *)rt__slot_get(st.loop, st.session.id, RT__SESSION);
    size_t i;
    for (i = 0; i < st.loop->by_fd_cap; i++) {
        const rt__source *source = st.loop->by_fd[i];
        if (source && source->kind == RT__CONN_SOURCE)
            return ((const rt__conn *)source)->state;
    }
    return s && s->conn ? s->conn->state : 0;
}

/* ---- reaching a state ---------------------------------------------------- */

static void stage_begin(int state)
{
    sim_opts world = {0};
    rt_loop_opts lo = {.realloc = sim_realloc, .resolve = on_resolve};
    rt_listen_opts o = {.resume_ms = state == GREETING ? 60000 : 0};
    sim_start(&world);
    memset(&st, 0, sizeof st);
    st.on.request = on_request;
    st.on.open = on_open;
    st.on.message = on_message;
    st.on.close = on_close;
    o.on = st.on;
    if (state == PROXIED) {
        o.proxies = "127.0.0.1";
        o.proxy_protocol = 1;
    }
    st.loop = rt_loop_new(&lo);
    st.listener = rt_listen(st.loop, "ws://127.0.0.1:9000", &o);
    sim_serve(THEIRS);
    sim_blackhole(HOLE);
}

static void listen_to(ws_peer *w)
{
    st.peer = w;
    w->on = hears;
    w->closes = w->pongs = 0;
}

static void dial(const char *url)
{
    rt_dial_opts o = {.on = st.on};
    st.session = rt_dial(st.loop, url, &o);
    CHECK(st.session.id != 0);
}

/* Up to where the request of a client has come. */
static void dial_and_ask(void)
{
    ws_peer *w = NULL;
    int i;
    dial("ws://127.0.0.1:7000/");
    for (i = 0; i < 4 && !w; i++) {
        rt_poll(st.loop, 1);
        w = ws_accept(THEIRS);
    }
    listen_to(w);
    w->reads = 0; /* it would be answered */
    turns(0);
}

static void say(const char *text)
{
    ws_raw(st.peer, text, strlen(text));
    turns(0);
}

static const char half[] = "GET / HTTP/1.1\r\nHost: game\r\n";
static const char rest[] = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                           "Sec-WebSocket-Version: 13\r\n";

static void connect_and_ask(int state)
{
    listen_to(ws_connect_silent(PORT));
    turns(0);
    if (state == PROXIED)
        return;
    say(half);
    if (state == READING)
        return;
    if (state == GREETING)
        say("Sec-WebSocket-Protocol: rtnet.1\r\n");
    say(rest);
    say("\r\n");
}

/* A frame with a reserved bit. */
static void say_wrong(void)
{
    static const uint8_t wrong[2] = {0xf0, 0};
    ws_raw(st.peer, wrong, 2);
    turns(0);
}

static int is_client(int state)
{
    return state == ASKING || state == LIVE_CLIENT ||
           state == FAREWELL_CLIENT || state == FINISHING_CLIENT ||
           state == DRAINING_CLIENT;
}

/* The last step, from LIVE on. */
static void leave_live(int state)
{
    if (state == FAREWELL || state == FAREWELL_CLIENT)
        CHECK(rt_close(st.loop, st.session, 4001, NULL) == 0);
    if (state == FINISHING || state == FINISHING_CLIENT)
        sim_peer_window(st.peer->line, 0);
    if (state >= FINISHING)
        say_wrong();
    turns(0);
}

static void reach_dial(int state, int event)
{
    if (state == RESOLVING)
        dial("ws://game.example:7000/");
    else if (event == NEXT)
        dial("ws://127.0.0.1:7000/");
    else if (event == WRONG)
        dial("ws://127.0.0.1:7002/");
    else
        dial("ws://127.0.0.1:7001/");
    if (state == RESOLVING)
        turns(0);
}

static void reach(int state, int event)
{
    if (state <= CONNECTING) {
        reach_dial(state, event);
        return;
    }
    if (is_client(state)) {
        dial_and_ask();
        st.peer->reads = state != ASKING;
        turns(0);
    } else if (state == THINKING) {
        listen_to(ws_connect(PORT, "/later"));
        turns(0);
    } else {
        connect_and_ask(state);
    }
    leave_live(state);
}

/* What the state must be for a cell to begin. */
static int reached(int state)
{
    static const int of[STATES] = {RT__RESOLVING, RT__CONNECTING, RT__PROXIED,
                                   RT__SHAKING,   RT__SHAKING,    RT__SHAKING,
                                   RT__GREETING,  RT__LIVE,       RT__LIVE,
                                   RT__FAREWELL,  RT__FAREWELL,   RT__FINISHING,
                                   RT__FINISHING, RT__DRAINING,   RT__DRAINING};
    return conn_state() == of[state];
}

/* ---- the events ---------------------------------------------------------- */

static int next_comes(int state)
{
    int rc = 0;
    if (state == RESOLVING)
        rc = rt_resolved(st.loop, st.session, "127.0.0.1");
    if (state == PROXIED)
        say("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    if (state == READING)
        say(rest), say("\r\n");
    if (state == THINKING)
        rc = rt_accept(st.loop, st.session, NULL);
    if (state == ASKING)
        st.peer->reads = 1;
    if (state == GREETING)
        ws_send(st.peer, WS_TEXT, "h", 1);
    if (state == FAREWELL || state == FAREWELL_CLIENT)
        ws_close(st.peer, 4001);
    else if (state >= LIVE)
        ws_send(st.peer, WS_TEXT, "x", 1);
    return rc;
}

static int wrong_comes(int state)
{
    if (state == RESOLVING)
        return rt_resolved(st.loop, st.session, NULL);
    if (state == PROXIED)
        say("GET / HTTP/1.1\r\n");
    else if (state == READING || state == THINKING)
        say("\n\n");
    else if (state == ASKING)
        say("HTTP/1.1 500 No\r\n\r\n");
    else if (state > ASKING)
        say_wrong();
    return 0;
}

static int line_ends(int event)
{
    if (event == END)
        sim_peer_shut(st.peer->line);
    else
        sim_peer_reset(st.peer->line);
    return 0;
}

static int called(int event)
{
    switch (event) {
    case CLOSE:
        return rt_close(st.loop, st.session, 4000, NULL);
    case DROP:
        return rt_drop(st.loop, st.session, 4000, NULL);
    case SEND:
        return rt_send(st.loop, st.session, RT_TEXT, "y", 1);
    case STOP:
        return rt_read(st.loop, st.session, 0);
    case UNLISTEN:
        return rt_unlisten(st.loop, st.listener);
    }
    rt_loop_free(st.loop);
    st.loop = NULL;
    return 0;
}

static int happen(int state, int event)
{
    int rc;
    if (event == NEXT)
        return next_comes(state);
    if (event == WRONG)
        return wrong_comes(state);
    if (event == END || event == RESET)
        return line_ends(event);
    if (event == TIME)
        minute();
    if (event == ROOM)
        sim_peer_window(st.peer->line, 65536);
    if (event < CLOSE)
        return 0;
    rc = called(event);
    if (event == STOP)
        next_comes(state);
    return rc;
}

/* ---- what comes of it ---------------------------------------------------- */

static const char *line_text(void)
{
    static const char *const texts[] = {"up", "fin", "rst"};
    if (!st.peer)
        return "none";
    return texts[st.peer->line ? sim_peer_state(st.peer->line) : st.peer->last];
}

static void result(int rc, char text[256])
{
    static const char *const names[] = {"gone",      "resolving", "connecting",
                                        "proxied",   "securing",  "shaking",
                                        "greeting",  "live",      "farewell",
                                        "finishing", "draining"};
    int status = st.peer ? st.peer->status : 0;
    int n = snprintf(text, 256, "%d %s,%s;", rc,
                     st.loop ? names[conn_state()] : "freed", st.told);
    if (status)
        n += snprintf(text + n, 256 - (size_t)n, " %d", status);
    snprintf(text + n, 256 - (size_t)n, "%s %s", st.heard, line_text());
}

static void cell(int state, int event, char text[256])
{
    int rc;
    stage_begin(state);
    reach(state, event);
    CHECK(reached(state));
    st.told[0] = st.heard[0] = 0;
    if (st.peer && state >= LIVE)
        st.peer->status = 0;
    rc = happen(state, event);
    if (state <= CONNECTING && st.loop)
        turns(1);
    turns(0);
    result(rc, text);
    if (st.peer)
        ws_free(st.peer);
    rt_loop_free(st.loop);
    EQUAL(sim_end(), 0);
}

static void walk(int print)
{
    int state, event, walked = 0, never = 0;
    char text[256];
    for (state = 0; state < STATES; state++)
        for (event = 0; event < EVENTS; event++) {
            const char *want = table[state][event];
            test_begin("%s x %s", state_names[state], event_names[event]);
            if (strncmp(want, "- ", 2) == 0) {
                never++;
                continue;
            }
            walked++;
            cell(state, event, text);
            if (print)
                printf("%s x %s: %s\n", state_names[state], event_names[event],
                       text);
            else if (strcmp(text, want) != 0 && test_bad++ < 5)
                printf("%s: \"%s\", not \"%s\"\n", test_name, text, want);
            test_end();
        }
    test_begin("every cell is walked or cannot be");
    EQUAL(walked + never, STATES * EVENTS);
    EQUAL(walked, WALKED);
    test_end();
}

int main(int argc, char **argv)
{
    walk(flag(argc, argv, "--print"));
    return test_done();
}
