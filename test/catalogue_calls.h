/*
 * Rows 51 to 59: the calls of the system and the clock.
 */

/* ---- 51 ----------------------------------------------------------------- */

static int row_51_posts;

static void row_51_post(rt_loop *l, void *arg)
{
    (void)l, (void)arg;
    row_51_posts++;
}

static void row_51_echo(rt_loop *l, rt_session s)
{
    CHECK(rt_send(l, s, stage.kind, stage.data, stage.len) >= 0);
}

/* A client and a server come, speak and go, while the nth of those calls is
   interrupted: nobody notices. */
static void row_51_interrupted(enum sim_call call, int nth)
{
    static uint8_t data[40000];
    ws_peer *w, *server;

    sim_start(NULL);
    sim_fail(call, nth, EINTR);
    stage_open_on("ws://127.0.0.1:9000", NULL, sim_realloc);
    stage.also_message = row_51_echo;
    row_51_posts = 0;
    w = peer_open();
    EQUAL(rt_post(stage.loop, row_51_post, NULL), 0);
    ws_send(w, WS_TEXT, "hello", 5);
    ws_send(w, WS_BINARY, data, sizeof data);
    ws_send(w, WS_TEXT, "and on", 6);
    run(10);
    EQUAL(stage.messages, 3);
    EQUAL(row_51_posts, 1);
    server = peer_of(1);
    ws_send(server, WS_TEXT, "hello", 5);
    run(10);
    EQUAL(stage.messages, 4);
    EQUAL(stage.closes, 0);
    ws_close(w, 1000);
    ws_close(server, 1000);
    run(10);
    EQUAL(stage.closes, 2);
    EQUAL(stage.end.code, 1000);
    stage_end();
}

/* libuv.  connect goes on by itself, a descriptor is gone with the first
   close: a second one is a fault of the world. */
static void row_51_an_interrupted_call_changes_nothing(void)
{
    static const enum sim_call calls[] = {
        SIM_epoll_wait, SIM_select,  SIM_kevent,  SIM_accept4,
        SIM_recv,       SIM_send,    SIM_sendmsg, SIM_read,
        SIM_write,      SIM_connect, SIM_close,   SIM_getrandom};
    size_t i;
    int nth;

    for (i = 0; i < COUNT(calls); i++) {
        for (nth = 1; nth <= 15 && !test_bad; nth++)
            row_51_interrupted(calls[i], nth);
    }
}

/* ---- 52 ----------------------------------------------------------------- */

static const char *const library_files[] = {
    "rtnet.c", "ws.c",        "session.c",       "group.c",
    "rtnet.h", "ratelimit.c", "rtnet_internal.h"};

static int library_has(const char *word)
{
    size_t i;
    int n = 0;

    for (i = 0; i < COUNT(library_files); i++)
        n += source_has(library_files[i], word);
    return n;
}

/* A RST behind a FIN is what makes a send answer EPIPE, with its signal; alone
   it would be ECONNRESET. */
static void row_52_reset(int fd, int behind_fin)
{
    struct linger now = {1, 0};

    if (behind_fin)
        shutdown(fd, SHUT_WR);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

/* mongoose, libuv, uSockets.  SIGPIPE kills this process as any other: it
   must not be raised, and how it is handled is the host's. */
static void row_52_a_reset_peer_raises_no_signal(void)
{
    static char bytes[50000];
    struct sigaction now;
    int fd, i, k;

    if (!net_there())
        return;
    EQUAL(library_has("signal("), 0);
    EQUAL(library_has("sigaction"), 0);
    signal(SIGPIPE, SIG_DFL);
    net_open(NULL);
    for (i = 0; i < 8; i++) {
        fd = net_connect();
        net_send(fd, ws_request("/"));
        net_until(&stage.opens, i + 1, 3000);
        row_52_reset(fd, i & 1);
        for (k = 0; k < 4; k++) {
            rt_send(stage.loop, stage.last, RT_TEXT, "lost", 4);
            if (i & 4) /* more pieces: by sendmsg */
                rt_send(stage.loop, stage.last, RT_BINARY, bytes, 50000);
            rt_flush(stage.loop);
            if (i & 2)
                rt_poll(stage.loop, 0);
        }
        net_until(&stage.closes, i + 1, 3000);
        EQUAL(stage.end.code, 1006);
    }
    EQUAL(sigaction(SIGPIPE, NULL, &now), 0);
    CHECK(now.sa_handler == SIG_DFL);
    net_end();
}

/* ---- 53 ----------------------------------------------------------------- */

/* What accept says of one who is gone already: the next is served at once. */
static void row_53_accept(void)
{
    static const int errors[] = {
        ECONNABORTED, ECONNRESET, EPROTO,       ENETDOWN,    ENOPROTOOPT,
        EHOSTDOWN,    ENONET,     EHOSTUNREACH, EOPNOTSUPP,  ENETUNREACH,
        EINTR,        EPERM,      ETIMEDOUT,    ECONNREFUSED};
    ws_peer *w;
    size_t i;

    stage_open(NULL, NULL);
    for (i = 0; i < COUNT(errors); i++) {
        sim_fail(SIM_accept4, 1, errors[i]);
        w = peer_add(ws_connect(PORT, "/"));
        rt_poll(stage.loop, 0);
        EQUAL(sim_streams(), i + 1); /* in the same turn */
        settle();
        EQUAL(w->open, 1);
    }
    stage_end();
}

/* What ends one connection, and only that one. */
static void row_53_line(enum sim_call call, int error)
{
    ws_peer *w = peer_open(), *other;
    rt_session s = stage.last;
    int opens = stage.opens;

    other = peer_open();
    sim_fail(call, 1, error);
    if (call == SIM_recv)
        ws_send(w, WS_TEXT, "x", 1);
    else
        CHECK(rt_send(stage.loop, s, RT_TEXT, "x", 1) >= 0);
    settle();
    EQUAL(rt_state(stage.loop, s), RT_EGONE);
    EQUAL(stage.end.code, 1006);
    EQUAL(stage.end.cause,
          error == ECONNRESET || (error == EPIPE && call == SIM_send)
              ? RT_BY_PEER
              : RT_BY_ERROR);
    ws_send(other, WS_TEXT, "x", 1);
    settle();
    EQUAL(rt_state(stage.loop, stage.last), RT_OPEN);
    EQUAL(stage.opens, opens + 1);
    peers_free();
    settle();
}

/* A dial whose nth such call fails ends with an error, now or in on_close. */
static void row_53_dial(enum sim_call call, int error)
{
    int closes = stage.closes, i;
    rt_session s;

    sim_fail(call, 1, error);
    s = rt_dial(stage.loop, "ws://127.0.0.1:7000/", &stage.dial);
    for (i = 0; i < 6; i++)
        step(1);
    if (s.id)
        EQUAL(stage.closes, closes + 1);
    else
        CHECK(rt_error(stage.loop, NULL) < 0);
    stage.unopened += s.id != 0;
    sim_fail(call, 1, 0);
    EQUAL(sim_streams(), 0);
}

static void row_53_the_network_s_errors_end_what_they_are_about(void)
{
    static const int line[] = {ECONNRESET,   EPIPE,    ETIMEDOUT,
                               EHOSTUNREACH, ENETDOWN, ENOTCONN,
                               EIO,          ENOBUFS,  ENOMEM};
    static const int dial[] = {ECONNREFUSED,  ENETUNREACH,  EACCES,
                               EADDRNOTAVAIL, EHOSTUNREACH, EMFILE};
    size_t i;

    row_53_accept();
    stage_open(NULL, NULL);
    for (i = 0; i < COUNT(line); i++) {
        row_53_line(SIM_recv, line[i]);
        row_53_line(SIM_send, line[i]);
    }
    for (i = 0; i < COUNT(dial); i++) {
        row_53_dial(SIM_connect, dial[i]);
        row_53_dial(SIM_socket, dial[i]);
        row_53_dial(SIM_getsockopt, dial[i]);
        if (stage.backend == RT_EPOLL)
            row_53_dial(SIM_epoll_ctl, dial[i]);
    }
    stage_end();
}

/* ---- 54 ----------------------------------------------------------------- */

/* That a connect was refused is known from SO_ERROR, which is read once, for
   reading clears it.  (That select shows it as an exception alone is Windows,
   which is not built here.) */
static void row_54_a_refused_connect_is_told_by_so_error(void)
{
    uint64_t asked;
    int i;

    stage_open(NULL, NULL);
    for (i = 0; i < 20; i++) {
        asked = sim_calls(SIM_getsockopt);
        CHECK(rt_dial(stage.loop, "ws://127.0.0.1:7001/", &stage.dial).id != 0);
        until_closes(i + 1, 1000);
        EQUAL(stage.closes, i + 1);
        EQUAL(stage.end.code, 1006);
        EQUAL(stage.end.cause, RT_BY_ERROR);
        CHECK(strcmp(stage.reason, strerror(ECONNREFUSED)) == 0);
        EQUAL(sim_calls(SIM_getsockopt) - asked, 1);
    }
    EQUAL(sim_streams(), 0);
    stage.unopened = 20;
    stage_end();
}

/* ---- 55 ----------------------------------------------------------------- */

static int row_55_told;

static void row_55_watch(rt_loop *l, rt_watch w, int events, void *arg)
{
    (void)l, (void)w, (void)events, (void)arg;
    row_55_told++;
}

/* A watch and a connection whose numbers have no bit in an fd_set. */
static void row_55_high(int high)
{
    rt_watch w;
    int fd[2], peer;

    EQUAL(pipe2(fd, O_CLOEXEC | O_NONBLOCK), 0);
    EQUAL(dup2(fd[0], high), high);
    EQUAL(write(fd[1], "x", 1), 1);
    w = rt_watch_start(stage.loop, high, RT_READ, row_55_watch, NULL);
    EQUAL(w.id != 0, stage.backend == RT_EPOLL || high < FD_SETSIZE);
    row_55_told = 0;
    rt_poll(stage.loop, 20);
    EQUAL(row_55_told, w.id != 0);
    rt_watch_stop(stage.loop, w);
    close(high);
    close(fd[0]);
    close(fd[1]);
    peer = net_connect(); /* the loop still works */
    net_send(peer, ws_request("/"));
    net_until(&stage.opens, stage.opens + 1, 3000);
    EQUAL(stage.opens, stage.closes + 1);
    close(peer);
    net_until(&stage.closes, stage.opens, 3000);
}

/* All lower numbers are taken, so that accept gives one above. */
static void row_55_accepted(void)
{
    static int taken[FD_SETSIZE];
    int i, peer, n = 0, opens = stage.opens;

    peer = net_connect();
    net_send(peer, ws_request("/"));
    do
        taken[n] = dup(0);
    while (taken[n] >= 0 && taken[n++] < FD_SETSIZE - 1);
    for (i = 0; i < 50; i++)
        rt_poll(stage.loop, 1);
    EQUAL(stage.opens - opens, stage.backend == RT_EPOLL);
    while (n > 0)
        close(taken[--n]);
    close(peer);
    for (i = 0; i < 200 && stage.loop->conn_count; i++)
        rt_poll(stage.loop, 1);
    EQUAL(stage.loop->conn_count, 0);
}

/* mongoose. */
static void row_55_no_descriptor_is_written_behind_an_fd_set(void)
{
    if (!net_there() || !net_descriptors(FD_SETSIZE + 100))
        return;
    net_open(NULL);
    row_55_high(FD_SETSIZE - 1);
    row_55_high(FD_SETSIZE);
    row_55_high(FD_SETSIZE + 63);
    row_55_accepted();
    row_55_high(FD_SETSIZE);
    net_end();
}

/* ---- 56 ----------------------------------------------------------------- */

static int row_56_ran;

static void row_56_timer(rt_loop *l, void *arg)
{
    uint64_t *due = arg;

    row_56_ran++;
    CHECK(rt_now(l) >= *due);
    *due += 1000; /* each second, as it was due: it must not catch up by */
    if (*due < rt_now(l)) /* 43,000 runs, which is the host's to say */
        *due = rt_now(l) + 1000;
    CHECK(rt_timer_start(l, (rt_session){0}, *due, row_56_timer, due).id != 0);
}

/* The monotonic clock goes back by an hour, then ahead by twelve; the wall
   clock by days.  All who answer pings stay, a timer goes on. */
static void row_56_jumps(void)
{
    rt_listen_opts o = {.ping_ms = 15000};
    uint64_t due;
    ws_peer *w[8];
    int i, ran;

    stage_open(&o, NULL);
    due = rt_now(stage.loop) + 1000;
    row_56_ran = 0;
    rt_timer_start(stage.loop, (rt_session){0}, due, row_56_timer, &due);
    for (i = 0; i < 8; i++)
        w[i] = peer_open();
    ws_frame(w[7], WS_BINARY, "begun", 5); /* a message under way */
    run(20500);
    EQUAL(row_56_ran, 20);
    sim_wall_jump(-86400 * INT64_C(1000));
    sim_jump(-3600 * INT64_C(1000));
    run(5000);
    between((uint64_t)row_56_ran, 24, 26);
    ws_frame(w[7], 0x80, "over", 4);
    run(1000);
    EQUAL(stage.messages, 1);
    ran = row_56_ran;
    sim_wall_jump(30 * 86400 * INT64_C(1000));
    sim_jump(12 * 3600 * INT64_C(1000) + 3600 * INT64_C(1000));
    run(60000);
    between((uint64_t)(row_56_ran - ran), 59, 62);
    EQUAL(stage.closes, 0);
    for (i = 0; i < 8; i++)
        CHECK(w[i]->pings_got > 1);
    w[0]->pongs = 0; /* and death is still noticed */
    until_closes(1, 60000);
    EQUAL(stage.end.code, RT_CLOSE_DEAD);
    stage_end();
}

/* lws, mongoose, mosquitto, whatsapp-rust, libuv. */
static void row_56_no_jump_of_a_clock_kills_anybody(void)
{
    EQUAL(library_has("gettimeofday"), 0);
    EQUAL(library_has("CLOCK_REALTIME"), 0);
    EQUAL(library_has(" time("), 0);
    EQUAL(library_has("(time("), 0);
    row_56_jumps();
}

/* ---- 57, 58 ------------------------------------------------------------- */

static int row_57_ran;

static void row_57_again(rt_loop *l, void *arg)
{
    row_57_ran++;
    rt_timer_start(l, (rt_session){0}, 0, row_57_again, arg);
    rt_timer_start(l, (rt_session){0}, rt_now(l) + 1, row_57_again, arg);
    if (row_57_ran > 100000)
        sim_fault("a turn that does not end");
}

/* libuv.  What is started in a timer's callback, due at once or even before,
   runs in the next turn; sockets have theirs between. */
static void row_57_a_timer_due_at_once_leaves_the_turn(void)
{
    ws_peer *w;
    int i, before;

    stage_open(NULL, NULL);
    w = peer_open();
    rt_timer_start(stage.loop, (rt_session){0}, 0, row_57_again, NULL);
    for (i = 0; i < 12 && well(); i++) {
        before = row_57_ran;
        ws_send(w, WS_TEXT, "x", 1);
        ws_pump(w);
        rt_poll(stage.loop, 0);
        CHECK(row_57_ran - before <= 1 << i);
        EQUAL(stage.messages, i + 1);
    }
    stage_end();
    row_57_ran = 0;
}

enum { ROW_58_TIMERS = 64 };

/*
 * A model: those that are set, in the order in which they run.  A callback
 * stops itself, others, starts others, also in its own place.
 */
static struct row_58_timer {
    rt_timer handle;
    int set;
    uint64_t due, order, turn; /* when it was started */
} row_58[ROW_58_TIMERS];
static uint64_t row_58_turn, row_58_order, row_58_runs, row_58_state;
static uint64_t row_58_last_due, row_58_last_order;

static uint32_t row_58_draw(uint32_t n)
{
    row_58_state =
        row_58_state * UINT64_C(6364136223846793005) + 1442695040888963407U;
    return (uint32_t)((row_58_state >> 33) % n);
}

static void row_58_ran(rt_loop *l, void *arg);

/* Dues in the past, now, soon, and so late that a difference overflows. */
static uint64_t row_58_due(rt_loop *l)
{
    uint64_t now = rt_now(l);

    switch (row_58_draw(8)) {
    case 0:
        return row_58_draw(2) ? 0 : now - row_58_draw(100);
    case 1:
        return row_58_draw(2) ? UINT64_MAX : UINT64_MAX / 2 + row_58_draw(9);
    case 2:
        return now;
    }
    return now + row_58_draw(30);
}

static void row_58_start(rt_loop *l, struct row_58_timer *t)
{
    rt_timer stale = t->handle;

    if (t->set)
        EQUAL(rt_timer_stop(l, t->handle), 0);
    t->set = 1;
    t->due = row_58_due(l);
    t->due = t->due < rt_now(l) ? rt_now(l) : t->due; /* it comes too late */
    t->order = ++row_58_order;
    t->turn = row_58_turn;
    t->handle = rt_timer_start(l, (rt_session){0}, t->due, row_58_ran, t);
    CHECK(t->handle.id != 0);
    if (stale.id)
        EQUAL(rt_timer_stop(l, stale), RT_EGONE);
}

static void row_58_act(rt_loop *l)
{
    struct row_58_timer *t = &row_58[row_58_draw(ROW_58_TIMERS)];

    if (row_58_draw(3)) {
        row_58_start(l, t);
        return;
    }
    EQUAL(rt_timer_stop(l, t->handle), t->set ? 0 : RT_EGONE);
    t->set = 0;
}

static void row_58_ran(rt_loop *l, void *arg)
{
    struct row_58_timer *t = arg;
    uint32_t n = row_58_draw(4);

    CHECK(t->set && t->due <= rt_now(l) && t->turn < row_58_turn);
    CHECK(t->due > row_58_last_due ||
          (t->due == row_58_last_due && t->order > row_58_last_order));
    row_58_last_due = t->due;
    row_58_last_order = t->order;
    t->set = 0;
    row_58_runs++;
    EQUAL(rt_timer_stop(l, t->handle), RT_EGONE);
    while (n--)
        row_58_act(l);
}

static void row_58_run_turn(void)
{
    int i;

    row_58_turn++;
    row_58_last_due = row_58_last_order = 0;
    rt_poll(stage.loop, 0);
    for (i = 0; i < ROW_58_TIMERS; i++) {
        if (row_58[i].set && row_58[i].turn < row_58_turn)
            CHECK(row_58[i].due > rt_now(stage.loop));
    }
}

/* lws.  A million steps. */
static void row_58_timers_agree_with_a_model(void)
{
    int i, steps = 1000000;

    memset(row_58, 0, sizeof row_58);
    row_58_turn = row_58_order = row_58_runs = 0;
    row_58_state = 58;
    stage_open(NULL, NULL);
    for (i = 0; i < steps && well(); i++) {
        if (i % 8 == 0) {
            sim_pass(row_58_draw(4));
            row_58_run_turn();
        }
        row_58_act(stage.loop);
    }
    CHECK(row_58_runs > 100000);
    stage_end();
}

/* ---- 59 ----------------------------------------------------------------- */

/* Lengths above 2^32 through what has no buffer: they are 64 bits wide also
   where a size_t is not.  (The builds for 32 bits and other processors are
   made elsewhere; there this very test runs.) */
static void row_59_heads(void)
{
    static struct bytes b;
    uint64_t len;
    rt__frame f;
    int bit, masked;

    for (bit = 17; bit < 63; bit++) {
        for (masked = 0; masked < 2; masked++) {
            len = (UINT64_C(1) << bit) + 5;
            b.len = 0;
            put_head(&b, 0x82, len, masked);
            EQUAL(rt__frame_read(b.at, b.len, masked, &f), b.len);
            EQUAL(f.len, len);
        }
    }
}

/* A bucket and a window at the ends of their numbers. */
static void row_59_rates(void)
{
    uint64_t now = UINT64_C(1) << 40, wait;
    rt__bucket b = {0, 0};

    EQUAL(rt__bucket_wait(&b, UINT32_MAX, UINT32_MAX, UINT64_C(1) << 40, now),
          0); /* an empty one takes one of any size */
    rt__bucket_take(&b, UINT32_MAX, UINT64_C(1) << 40, now);
    wait = rt__bucket_wait(&b, UINT32_MAX, 1, 1, now);
    between(wait, 255000, 257000); /* 2^40 / 2^32 s */
    EQUAL(rt__bucket_wait(&b, UINT32_MAX, 1, 1, now + wait), 0);
}

/* Addresses are read into a sockaddr_storage: those of IPv6 and of local
   sockets are longer than a sockaddr_in.  ASan watches. */
static char row_59_address[64];

static int row_59_request(rt_loop *l, rt_session s, const rt_request *r)
{
    (void)l, (void)s;
    snprintf(row_59_address, sizeof row_59_address, "%s", r->address);
    return 0;
}

static void row_59_from(int port, const char *address)
{
    ws_peer *w = peer_add(ws_connect_from(port, address));

    ws_raw(w, ws_request("/"), strlen(ws_request("/")));
    peer_opened(w);
    CHECK(strcmp(row_59_address, address) == 0);
}

static void row_59_addresses(void)
{
    stage_open(NULL, NULL);
    stage.also_request = row_59_request;
    stage_listen("ws://[::1]:9001", NULL);
    row_59_from(PORT, "10.1.2.3");
    row_59_from(9001, "2001:db8:1111:2222:3333:4444:5555:6666");
    stage_end();
}

static void row_59_lengths_are_64_bits_wide(void)
{
    rt__frame f;

    EQUAL(sizeof f.len, 8);
    EQUAL(sizeof((rt__in *)NULL)->left, 8);
    EQUAL(sizeof((rt__out *)NULL)->bytes, 8);
    row_59_heads();
    row_59_rates();
    row_59_addresses();
}
