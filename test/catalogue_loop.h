/*
 * Rows 41 to 50: the loop, descriptors, and what is written.
 */

/* ---- 41 ----------------------------------------------------------------- */

/*
 * joyent/libuv, creytiv/re, moonbit, boringtun.  In one batch: a watch whose
 * callback closes the descriptor of another one that is ready, too, and opens
 * a new one, which has the same number.  The event of the old one is stale.
 */
static struct {
    int first[2], second[2], third[2]; /* pipes */
    rt_watch watch[3];
    int told[3];
} row_41;

static void row_41_told(rt_loop *l, rt_watch w, int events, void *arg)
{
    int which = (int)((int *)arg - row_41.told), other = which ^ 1;
    int *pipe_of = other ? row_41.second : row_41.first;

    (void)l, (void)w, (void)events;
    row_41.told[which]++;
    if (which == 2 || row_41.watch[2].id)
        return;
    EQUAL(rt_watch_stop(l, row_41.watch[other]), 0);
    close(pipe_of[0]);
    close(pipe_of[1]);
    EQUAL(pipe2(row_41.third, O_CLOEXEC | O_NONBLOCK), 0);
    EQUAL(row_41.third[0], pipe_of[0]);
    pipe_of[0] = -1;
    row_41.watch[2] = rt_watch_start(l, row_41.third[0], RT_READ, row_41_told,
                                     &row_41.told[2]);
    CHECK(row_41.watch[2].id != 0);
}

static void row_41_pipe(int fd[2], int which)
{
    EQUAL(pipe2(fd, O_CLOEXEC | O_NONBLOCK), 0);
    EQUAL(write(fd[1], "x", 1), 1);
    row_41.watch[which] = rt_watch_start(stage.loop, fd[0], RT_READ,
                                         row_41_told, &row_41.told[which]);
    CHECK(row_41.watch[which].id != 0);
}

static void row_41_pipe_end(int fd[2], int which)
{
    rt_watch_stop(stage.loop, row_41.watch[which]);
    if (fd[0] < 0)
        return;
    close(fd[0]);
    close(fd[1]);
}

static void row_41_watches(void)
{
    memset(&row_41, 0, sizeof row_41);
    row_41_pipe(row_41.first, 0);
    row_41_pipe(row_41.second, 1);
    EQUAL(rt_poll(stage.loop, 10), 2);
    EQUAL(row_41.told[0] + row_41.told[1], 1);
    rt_poll(stage.loop, 0);
    EQUAL(row_41.told[2], 0);
    EQUAL(write(row_41.third[1], "x", 1), 1);
    rt_poll(stage.loop, 10);
    EQUAL(row_41.told[2], 1);
    row_41_pipe_end(row_41.first, 0);
    row_41_pipe_end(row_41.second, 1);
    row_41_pipe_end(row_41.third, 2);
}

static rt_session row_41_old[3];

/* The first one that speaks ends the two others, and dials. */
static void row_41_message(rt_loop *l, rt_session s)
{
    int i;

    if (stage.messages > 1)
        return;
    for (i = 0; i < 3; i++) {
        if (!rt_same(row_41_old[i], s))
            EQUAL(rt_drop(l, row_41_old[i], 4000, NULL), 0);
    }
    CHECK(rt_dial(l, "ws://127.0.0.1:7000/", &stage.dial).id != 0);
}

/* Three who speak and one who connects, in one batch in any order: nobody is
   told of bytes of another, and the two who are new live. */
static void row_41_lines(uint64_t seed)
{
    sim_opts weather = {.seed = seed, .shuffle = 1000, .spin = 100000};
    ws_peer *w[3], *fresh, *dialled = NULL;
    int i;

    stage_open(NULL, &weather);
    stage.also_message = row_41_message;
    for (i = 0; i < 3; i++) {
        w[i] = peer_open();
        row_41_old[i] = stage.last;
    }
    for (i = 0; i < 3; i++)
        ws_send(w[i], WS_TEXT, "hello", 5);
    fresh = peer_add(ws_connect(PORT, "/"));
    for (i = 0; i < 60 && !dialled; i++) {
        step(1);
        dialled = ws_accept(SERVER_PORT);
    }
    peer_opened(peer_add(dialled));
    peer_opened(fresh);
    EQUAL(stage.messages, 1);
    EQUAL(stage.opens, 5);
    EQUAL(stage.closes, 2);
    EQUAL(sim_streams(), 3);
    ws_send(fresh, WS_TEXT, "fresh", 5);
    ws_send(dialled, WS_TEXT, "dialled", 7);
    for (i = 0; i < 30; i++)
        step(0);
    EQUAL(stage.messages, 3);
    stage_end();
}

static void row_41_a_stale_event_finds_nobody(void)
{
    uint64_t seed;

    for (seed = 1; seed <= 50 && !test_bad; seed++)
        row_41_lines(seed);
    stage_open(NULL, NULL);
    row_41_watches();
    stage_end();
    if (!net_there())
        return;
    net_open(NULL);
    row_41_watches();
    net_end();
}

/* ---- 42 ----------------------------------------------------------------- */

/* A child that holds every descriptor that is open now. */
static pid_t row_42_fork(void)
{
    pid_t child = fork();

    if (child == 0) {
        alarm(20);
        for (;;)
            pause();
    }
    CHECK(child > 0);
    return child;
}

static void row_42_over(pid_t child)
{
    int status;

    kill(child, SIGKILL);
    EQUAL(waitpid(child, &status, 0), child);
}

/* How often the loop wakes in 300 ms; with nothing to do that is 6 times. */
static int row_42_turns(void)
{
    uint64_t end = real_ms() + 300;
    int n = 0;

    for (; real_ms() < end; n++)
        rt_poll(stage.loop, 50);
    return n;
}

/* Which descriptors below 64 are open; and whether those that were not in
   `before` are closed on exec. */
static uint64_t row_42_open(uint64_t before)
{
    uint64_t all = 0;
    int fd, flags;

    for (fd = 0; fd < 64; fd++) {
        flags = fcntl(fd, F_GETFD);
        if (flags < 0)
            continue;
        all |= UINT64_C(1) << fd;
        CHECK(flags & FD_CLOEXEC || before >> fd & 1);
    }
    return all;
}

/* libuv.  The child keeps the socket open, so that close alone would leave it
   in epoll, and what the peer does then would wake the loop for ever. */
static void row_42_a_child_that_holds_a_socket_wakes_nobody(void)
{
    uint64_t before = row_42_open(UINT64_MAX);
    pid_t child;
    int peer;

    if (!net_there())
        return;
    net_open(NULL);
    peer = net_connect();
    net_send(peer, ws_request("/"));
    net_until(&stage.opens, 1, 3000);
    CHECK(row_42_open(before) != before);
    child = row_42_fork();
    net_send(peer, "\x88\x80\1\2\3\4"); /* a close: both are done */
    net_until(&stage.closes, 1, 3000);
    net_run(20);
    EQUAL(stage.loop->conn_count, 0);
    EQUAL(send(peer, "more", 4, MSG_NOSIGNAL), 4); /* the child holds it */
    CHECK(row_42_turns() < 40);
    shutdown(peer, SHUT_WR);
    CHECK(row_42_turns() < 40);
    close(peer);
    CHECK(row_42_turns() < 40);
    row_42_over(child);
    net_end();
}

/* ---- 43 ----------------------------------------------------------------- */

/* Each accept fails: the listener is looked at ten times a second, twice each
   time, with the spare descriptor and without; and when that is over, the one
   who waited is in. */
static void row_43_fails(int error)
{
    uint64_t tries;
    ws_peer *w;
    int turns = 0;

    stage_open(NULL, NULL);
    sim_fail_ever(SIM_accept4, 1, error);
    w = peer_add(ws_connect(PORT, "/"));
    settle();
    tries = sim_calls(SIM_accept4);
    for (; sim_now() < 100010000 && well(); turns++) {
        pump_all();
        rt_poll(stage.loop, 1000);
    }
    CHECK(turns <= 210); /* in 10 s: it rests, it is back */
    CHECK(sim_calls(SIM_accept4) - tries <= 210);
    sim_fail(SIM_accept4, 0, 0);
    run(300);
    EQUAL(w->open, 1);
    stage_end();
}

/* 20 real ones wait, and there is no descriptor left but the spare one: each
   learns of it, one after the other, while the loop sleeps between. */
static void row_43_real(void)
{
    struct rlimit old, low;
    int fd[20], i, gone = 0, turns = 0, top;
    uint64_t end;
    char byte;

    net_open(NULL);
    for (i = 0; i < 20; i++) {
        fd[i] = net_connect();
        fcntl(fd[i], F_SETFL, O_NONBLOCK);
    }
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    top = dup(0);
    close(top);
    low.rlim_cur = (rlim_t)top; /* the lowest that is free */
    EQUAL(setrlimit(RLIMIT_NOFILE, &low), 0);
    end = real_ms() + 1000;
    for (; real_ms() < end; turns++)
        rt_poll(stage.loop, 200);
    for (i = 0; i < 20; i++)
        gone += recv(fd[i], &byte, 1, 0) == 0;
    between((uint64_t)gone, 3, 12);
    CHECK(turns < 60);
    EQUAL(setrlimit(RLIMIT_NOFILE, &old), 0);
    for (i = 0; i < 100 && (int)stage.loop->conn_count < 20 - gone; i++)
        net_run(10);
    EQUAL(stage.loop->conn_count, 20 - gone);
    for (i = 0; i < 20; i++)
        close(fd[i]);
    net_end();
}

/* libuv, node, ranch, bun, uSockets. */
static void row_43_without_descriptors_the_listener_rests(void)
{
    row_43_fails(EMFILE);
    row_43_fails(ENFILE);
    row_43_fails(ENOBUFS);
    row_43_fails(ENOMEM);
    if (net_there())
        row_43_real();
}

/* ---- 44 ----------------------------------------------------------------- */

/* uSockets, libuv.  One who sends without an end, one who reads without an end
   of a long queue, and a storm of newcomers: another's message is answered in
   the next turn, in one. */
static void row_44_echo(rt_loop *l, rt_session s)
{
    if (stage.len == 5)
        CHECK(rt_send(l, s, RT_TEXT, stage.data, stage.len) >= 0);
}

static void row_44_answered_at_once(ws_peer *modest)
{
    ws_send(modest, WS_TEXT, "quick", 5);
    ws_pump(modest);
    rt_poll(stage.loop, 0);
    EQUAL(sim_peer_waiting(modest->line), 7);
    ws_pump(modest);
}

static void row_44_nobody_takes_the_loop_for_himself(void)
{
    rt_listen_opts o = {.max_message = 1 << 20, .hard_mark = 64 << 20};
    sim_opts weather = {.window = 1 << 20};
    static uint8_t zeros[1 << 20];
    ws_peer *sender, *reader, *modest;
    int i, k;

    stage_open(&o, &weather);
    stage.also_message = row_44_echo;
    sender = peer_open();
    reader = peer_open();
    for (i = 0; i < 32; i++)
        CHECK(rt_send(stage.loop, stage.last, RT_BINARY, zeros, 1 << 20) >= 0);
    modest = peer_open();
    for (i = 0; i < 40 && well(); i++) {
        size_t before = sim_peer_waiting(reader->line);
        ws_send(sender, WS_BINARY, zeros, 1 << 20);
        ws_pump(sender);
        for (k = 0; k < 16; k++)
            sim_connect(PORT);
        row_44_answered_at_once(modest);
        CHECK(sim_peer_waiting(reader->line) - before <= 256 * 1024);
        ws_pump(reader);
    }
    EQUAL(stage.closes, 0);
    stage_end();
}

/* ---- 45, 46 ------------------------------------------------------------- */

enum row_45_line { ROW_45_UP, ROW_45_FIN, ROW_45_RST };

/* A line in that state, of which epoll tells those bits alone, whatever they
   are.  With ERR, HUP or IN it is read until it ends; other bits may tell it
   nothing, and then the true ones do. */
static void row_45_mask(uint32_t mask, enum row_45_line line)
{
    ws_peer *w = peer_open();
    int messages = stage.messages, closes = stage.closes, i;

    ws_send(w, WS_TEXT, "unread", 6);
    ws_pump(w);
    w->closes = 0;
    if (line == ROW_45_FIN)
        sim_peer_shut(w->line);
    else if (line == ROW_45_RST)
        sim_peer_reset(w->line);
    sim_events(mask);
    for (i = 0; i < 6; i++)
        rt_poll(stage.loop, 0);
    if (mask & (0x001 | 0x008 | 0x010)) {
        EQUAL(stage.messages - messages, 1);
        EQUAL(stage.closes - closes, line != ROW_45_UP);
    }
    sim_events(0);
    for (i = 0; i < 3; i++)
        rt_poll(stage.loop, 0);
    EQUAL(stage.messages - messages, 1);
    EQUAL(stage.closes - closes, line != ROW_45_UP);
    peers_free();
    settle();
    EQUAL(sim_streams(), 0);
}

/* libuv.  IN, PRI, OUT, ERR, HUP, RDHUP in all combinations.  select has no
   bits: there it is the three lines alone. */
static void row_45_every_set_of_events_ends_in_a_close(void)
{
    static const uint32_t bit[] = {0x001, 0x002, 0x004, 0x008, 0x010, 0x2000};
    uint32_t set, mask;
    int i, line;

    stage_open(NULL, &(sim_opts){.spin = 100000});
    for (set = stage.backend == RT_EPOLL ? 1 : 63; set < 64; set++) {
        for (mask = 0, i = 0; i < 6; i++)
            mask |= set >> i & 1 ? bit[i] : 0;
        for (line = ROW_45_UP; line <= ROW_45_RST; line++)
            row_45_mask(mask, (enum row_45_line)line);
    }
    stage_end();
}

/* 300,000 bytes and a FIN lie in the socket: more than one read.  kind 0: ws,
   1: a stream, 2: the server of a dial. */
static void row_46_end(int kind, int weather)
{
    sim_opts bad = {.shorts = 500,
                    .again = 200,
                    .shuffle = 500,
                    .window = 1 << 20,
                    .spin = 100000};
    sim_opts good = {.window = 1 << 20};
    static uint8_t data[60004];
    ws_peer *w;
    int i;

    stage_open(NULL, weather ? &bad : &good);
    stage_listen("tcp://127.0.0.1:9001", NULL);
    if (kind == 1) {
        w = peer_add(ws_connect_silent(9001));
        for (i = 0; i < 20; i++)
            rt_poll(stage.loop, 1);
    } else {
        w = peer_of(kind == 2);
    }
    data[2] = 60000 >> 8, data[3] = 60000 & 255;
    for (i = 0; i < 5; i++) {
        if (kind == 1)
            ws_raw(w, data, sizeof data);
        else
            ws_send(w, WS_BINARY, data, 60000);
    }
    ws_pump(w);
    EQUAL(w->out.len, 0);
    sim_peer_shut(w->line);
    for (i = 0; i < 200 && !stage.closes; i++)
        rt_poll(stage.loop, 1);
    EQUAL(stage.messages, 5);
    EQUAL(stage.len, 60000);
    EQUAL(stage.closes, 1);
    EQUAL(stage.end.code, kind == 1 ? 1005 : 1006);
    EQUAL(stage.end.cause, RT_BY_PEER);
    stage_end();
}

/* libuv. */
static void row_46_what_came_before_the_end_is_delivered(void)
{
    int i;

    for (i = 0; i < 6; i++)
        row_46_end(i % 3, i / 3);
}

/* ---- 47 ----------------------------------------------------------------- */

static uint8_t row_47_bytes[200000];

static void row_47_answer(rt_loop *l, rt_session s)
{
    CHECK(rt_send(l, s, RT_BINARY, row_47_bytes, sizeof row_47_bytes) >= 0);
}

/* A peer asks, shuts its half and reads on: a stream owes it all that was
   sent; for WebSocket an end without a close is 1006. */
static void row_47_stream(void)
{
    sim_opts weather = {.window = 5000};
    static uint8_t got[sizeof row_47_bytes + 4];
    size_t n = 0;
    sim_peer *p;
    int i;

    stage_open(NULL, &weather);
    stage.also_message = row_47_answer;
    stage_listen("tcp://127.0.0.1:9001", NULL);
    p = sim_connect(9001);
    sim_peer_send(p, "\0\0\0\1?", 5);
    sim_peer_shut(p);
    for (i = 0; i < 1000 && sim_peer_state(p) == SIM_UP; i++) {
        rt_poll(stage.loop, 0);
        n += sim_peer_recv(p, got + n, sizeof got - n);
    }
    n += sim_peer_recv(p, got + n, sizeof got - n);
    EQUAL(n, sizeof got);
    EQUAL(sim_peer_state(p), SIM_FIN);
    CHECK(memcmp(got + 4, row_47_bytes, sizeof row_47_bytes) == 0);
    EQUAL(stage.end.code, 1005);
    sim_peer_close(p);
    stage_end();
}

static void row_47_websocket(void)
{
    ws_peer *w;

    stage_open(NULL, NULL);
    w = peer_open();
    ws_send(w, WS_TEXT, "?", 1);
    ws_pump(w);
    sim_peer_shut(w->line);
    settle();
    EQUAL(stage.messages, 1);
    EQUAL(stage.end.code, 1006);
    EQUAL(stage.end.cause, RT_BY_PEER);
    EQUAL(sim_streams(), 0);
    stage_end();
}

static void row_47_real(void)
{
    static char got[sizeof row_47_bytes + 4];
    size_t n = 0;
    ssize_t some = 1;
    int fd, i;

    net_open(NULL);
    stage.also_message = row_47_answer;
    stage_listen("tcp://127.0.0.1:0", NULL);
    net_port = rt_listener_port(stage.loop, stage.listener);
    fd = net_connect();
    EQUAL(send(fd, "\0\0\0\1?", 5, MSG_NOSIGNAL), 5);
    shutdown(fd, SHUT_WR);
    net_until(&stage.closes, 1, 3000);
    EQUAL(stage.end.code, 1005);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (i = 0; i < 3000 && some != 0; i++) {
        some = recv(fd, got + n, sizeof got - n, 0);
        n += some > 0 ? (size_t)some : 0;
        rt_poll(stage.loop, 1);
    }
    EQUAL(n, sizeof got);
    EQUAL(some, 0);
    close(fd);
    net_end();
}

static void row_47_who_shuts_its_half_still_gets_the_answer(void)
{
    size_t i;

    for (i = 0; i < sizeof row_47_bytes; i++)
        row_47_bytes[i] = (uint8_t)(i * 13 + i / 251);
    row_47_stream();
    row_47_websocket();
    if (net_there())
        row_47_real();
}

/* ---- 48 ----------------------------------------------------------------- */

static void row_48_hold(rt_loop *l, rt_session s)
{
    EQUAL(rt_read(l, s, 0), 0);
}

/* lws.  Bytes that the socket has given already: while nobody may have them
   the loop sleeps, and when they are wanted no event is needed to tell. */
static void row_48_what_is_kept_inside_neither_spins_nor_waits(void)
{
    sim_opts weather = {.spin = 20};
    uint64_t waits;
    ws_peer *w;
    int i;

    stage_open(NULL, &weather);
    stage.also_message = row_48_hold;
    w = peer_open();
    for (i = 0; i < 5; i++)
        ws_send(w, WS_TEXT, "kept", 4);
    for (i = 1; i <= 5; i++) {
        step(0);
        EQUAL(stage.messages, i);
        waits = sim_waits();
        run(1000);
        CHECK(sim_waits() - waits <= 40);
        EQUAL(stage.messages, i);
        EQUAL(rt_read(stage.loop, stage.last, 1), 0);
    }
    ws_send(w, WS_TEXT, "new", 3);
    step(0);
    EQUAL(stage.messages, 6);
    stage_end();
}

/* ---- 49, 50 ------------------------------------------------------------- */

/*
 * uWS, Java-WebSocket, ESPAsync, http4s, curl, libuv.  Frames of several
 * kinds, in one buffer and in several, written in two parts, with the cut at
 * each byte; EAGAIN at each call.  The peer must get the model's bytes.
 */
static struct bytes row_49_model;

static void row_49_send(const void *data, size_t n)
{
    CHECK(rt_send(stage.loop, stage.last, RT_BINARY, data, n) >= 0);
    put_frame(&row_49_model, 0x82, data, n, 0);
}

static void row_49_queue(void)
{
    static uint8_t data[40000];
    size_t i;

    for (i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 11 + i / 253);
    row_49_model.len = 0;
    row_49_send(data, 0);
    row_49_send(data, 5);
    row_49_send(data + 5, 125);
    row_49_send(data + 9, 126);
    row_49_send(data, 40000); /* in a buffer alone: sendmsg */
    row_49_send(data + 1, 7);
}

/* What came is the model's, all of it. */
static void row_49_compare(sim_peer *p, size_t cut)
{
    static uint8_t got[70000];
    size_t n = 0;
    int i;

    n += sim_peer_recv(p, got, sizeof got);
    EQUAL(n, cut < row_49_model.len ? cut : row_49_model.len);
    for (i = 0; i < 100 && n < row_49_model.len; i++) {
        sim_peer_window(p, 65536);
        rt_poll(stage.loop, 0);
        n += sim_peer_recv(p, got + n, sizeof got - n);
    }
    EQUAL(n, row_49_model.len);
    CHECK(memcmp(got, row_49_model.at, n) == 0);
}

static void row_49_cut(ws_peer *w, size_t cut)
{
    sim_peer_window(w->line, cut);
    row_49_queue();
    rt_poll(stage.loop, 0);
    row_49_compare(w->line, cut);
}

/* The nth write finds no room although there is some. */
static void row_49_again(ws_peer *w, int nth)
{
    static uint8_t got[70000];
    size_t n = 0;
    int i;

    sim_peer_window(w->line, 1000);
    row_49_queue();
    sim_fail(SIM_send, nth, EAGAIN);
    sim_fail(SIM_sendmsg, nth, EAGAIN);
    for (i = 0; i < 400 && n < row_49_model.len; i++) {
        rt_poll(stage.loop, 0);
        n += sim_peer_recv(w->line, got + n, sizeof got - n);
    }
    EQUAL(n, row_49_model.len);
    CHECK(memcmp(got, row_49_model.at, n) == 0);
    sim_fail(SIM_send, 1, 0);
    sim_fail(SIM_sendmsg, 1, 0);
}

static void row_49_a_partial_write_goes_on_where_it_ended(void)
{
    ws_peer *w;
    size_t cut;
    int nth;

    stage_open(NULL, NULL);
    w = peer_open();
    for (cut = 1; cut < 300 && well(); cut++)
        row_49_cut(w, cut);
    for (; cut < row_49_model.len + 2 && well(); cut += cut < 40200 ? 397 : 1)
        row_49_cut(w, cut);
    for (nth = 1; nth <= 45 && well(); nth++)
        row_49_again(w, nth);
    stage_end();
}

/* What is counted or told with a write is so once, in however many parts. */
static void row_50_a_partial_write_has_its_effects_once(void)
{
    rt_listen_opts o = {.soft_mark = 20000};
    uint64_t out, messages;
    ws_peer *w;
    size_t cut, head = 0;

    stage_open(&o, NULL);
    w = peer_open();
    head = (size_t)stage.loop->stats.bytes_out;
    for (cut = 1; cut < 600 && well(); cut += 7) {
        out = stage.loop->stats.bytes_out;
        messages = stage.loop->stats.messages_out;
        stage.writables = 0;
        row_49_cut(w, cut);
        rt_poll(stage.loop, 0);
        EQUAL(stage.loop->stats.bytes_out - out, row_49_model.len);
        EQUAL(stage.loop->stats.messages_out - messages, 6);
        EQUAL(stage.writables, 1);
        EQUAL(rt_unsent(stage.loop, stage.last), 0);
    }
    CHECK(head > 0);
    EQUAL(rt_close(stage.loop, stage.last, 0, NULL), 0);
    settle();
    EQUAL(stage.end.lost, 0);
    stage_end();
}
