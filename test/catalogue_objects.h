/*
 * Rows 60 to 64: callbacks, and the objects they are about.
 */

/* ---- a ledger of sessions ----------------------------------------------- */

/* What each handle was told, so that a second on_close, one that never comes
   and anything behind it are seen. */
enum { LEDGER = 8192 };

static struct {
    uint64_t id[LEDGER];
    uint8_t opened[LEDGER], closed[LEDGER], dialled[LEDGER];
    int count, depth;
} ledger;

static int ledger_at(uint64_t id)
{
    int i;

    for (i = ledger.count - 1; i >= 0; i--) {
        if (ledger.id[i] == id)
            return i;
    }
    if (ledger.count == LEDGER)
        exit(2);
    ledger.id[ledger.count] = id;
    ledger.opened[ledger.count] = ledger.closed[ledger.count] = 0;
    ledger.dialled[ledger.count] = 0;
    return ledger.count++;
}

static void ledger_begin(void)
{
    ledger.count = ledger.depth = 0;
}

static void ledger_open(rt_session s)
{
    int i = ledger_at(s.id);

    CHECK(!ledger.opened[i] && !ledger.closed[i]);
    ledger.opened[i] = 1;
}

static void ledger_told(rt_session s)
{
    int i = ledger_at(s.id);

    CHECK(ledger.opened[i] && !ledger.closed[i]);
}

static void ledger_close(rt_session s)
{
    int i = ledger_at(s.id);

    CHECK((ledger.opened[i] || ledger.dialled[i]) && !ledger.closed[i]);
    ledger.closed[i] = 1;
}

static void ledger_dial(rt_session s)
{
    if (s.id)
        ledger.dialled[ledger_at(s.id)] = 1;
}

/* The loop is gone: each one was closed, and each of them once. */
static void ledger_end(void)
{
    int i;

    for (i = 0; i < ledger.count; i++)
        CHECK(ledger.closed[i]);
    EQUAL(ledger.depth, 0);
}

/* Any session there ever was, mostly one of the last. */
static rt_session ledger_any(void)
{
    rt_session s = {0};
    uint32_t n = (uint32_t)ledger.count;

    if (!n)
        return s;
    if (sim_choose(4) && n > 16)
        s.id = ledger.id[n - 1 - sim_choose(16)];
    else
        s.id = ledger.id[sim_choose(n)];
    return s;
}

/* ---- 60 ----------------------------------------------------------------- */

/*
 * libuv, uWS, nng, tlsuv, Crow, lws, AWS.  Every callback makes any call on
 * anything.  Callbacks never nest; a session is told of nothing before its
 * on_open and behind its on_close; who is gone is answered with RT_EGONE.
 */
enum { ROW_60_GROUPS = 4, ROW_60_LINES = 10 };

static rt_group row_60_group[ROW_60_GROUPS];

static void row_60_acts(rt_loop *l, rt_session s);

static void row_60_timer(rt_loop *l, void *arg)
{
    (void)arg;
    row_60_acts(l, (rt_session){0});
}

static void row_60_event(rt_loop *l, rt_group g, rt_session s, int what)
{
    (void)g;
    CHECK(what >= RT_JOINED && what <= RT_CAME_BACK);
    row_60_acts(l, s);
}

static void row_60_group_call(rt_loop *l, rt_session s)
{
    rt_group *g = &row_60_group[sim_choose(ROW_60_GROUPS)];
    rt_group_opts o = {.event = row_60_event, .history = 5, .snapshot = 3};
    rt_session all[8];

    switch (sim_choose(6)) {
    case 0:
        rt_group_close(l, *g);
        break;
    case 1:
        *g = rt_group_open(l, g == row_60_group ? "a" : "b", &o);
        break;
    case 2:
        rt_group_leave(l, *g, s);
        break;
    case 3:
        rt_group_send(l, *g, RT_TEXT, "all", 3);
        break;
    case 4:
        rt_group_members(l, *g, all, 8);
        rt_group_send_but(l, *g, s, rt_latest(1), "newest", 6);
        break;
    default:
        rt_group_join(l, *g, s);
    }
}

static void row_60_session_call(rt_loop *l, rt_session s)
{
    static char bytes[3000];
    rt_session other = ledger_any();

    switch (sim_choose(24)) {
    case 0:
        rt_close(l, s, 4000 + (int)sim_choose(9), "bomb");
        break;
    case 1:
        rt_drop(l, s, 0, NULL);
        break;
    case 2:
        rt_bind(l, s, sim_choose(2) ? "anna" : "bert");
        break;
    case 3:
        rt_kick(l, sim_choose(2) ? "anna" : "bert", 0, NULL);
        break;
    case 4:
        rt_read(l, s, (int)sim_choose(2));
        break;
    case 5:
        rt_send_many(l, &other, 1, RT_TEXT | RT_DROPPABLE, "many", 4);
        break;
    default:
        rt_send(l, s, RT_BINARY, bytes, sim_choose(sizeof bytes));
    }
}

/* Another listener in its place.  While the loop ends there is none. */
static void row_60_listen(rt_loop *l)
{
    rt_listen_opts o = {.on = handler, .ping_ms = RT_OFF};

    rt_unlisten(l, stage.listener);
    stage.listener = rt_listen(l, "ws://127.0.0.1:9000", &o);
    if (!stage.listener.id)
        EQUAL(rt_error(l, NULL), RT_ESTATE);
}

static void row_60_loop_call(rt_loop *l, rt_session s)
{
    EQUAL(rt_poll(l, 0), RT_ESTATE);
    EQUAL(rt_run(l), RT_ESTATE);
    rt_loop_free(l); /* not here: nothing happens */
    switch (sim_choose(6)) {
    case 0:
        row_60_listen(l);
        break;
    case 1:
        ledger_dial(rt_dial(l, "ws://127.0.0.1:7000/", &stage.dial));
        break;
    case 2:
        rt_flush(l);
        break;
    default:
        rt_timer_start(l, sim_choose(2) ? s : (rt_session){0},
                       rt_now(l) + sim_choose(20), row_60_timer, NULL);
    }
}

/* One who is closed stays so. */
static void row_60_stale(rt_loop *l, rt_session s)
{
    int i = s.id ? ledger_at(s.id) : -1;

    if (i < 0 || !ledger.closed[i] || ledger.depth > 1)
        return;
    EQUAL(rt_state(l, s), RT_EGONE);
    EQUAL(rt_send(l, s, RT_TEXT, "", 0), RT_EGONE);
    EQUAL(rt_close(l, s, 0, NULL), RT_EGONE);
    EQUAL(rt_group_join(l, row_60_group[0], s), RT_EGONE);
    CHECK(rt_user(l, s) == NULL);
}

static void row_60_acts(rt_loop *l, rt_session s)
{
    uint32_t n = sim_choose(4);

    EQUAL(++ledger.depth, 1);
    while (n--) {
        rt_session to = sim_choose(3) ? s : ledger_any();
        switch (sim_choose(7)) {
        case 0:
        case 1:
            row_60_group_call(l, to);
            break;
        case 2:
            row_60_loop_call(l, to);
            break;
        default:
            row_60_session_call(l, to);
        }
    }
    ledger.depth--;
}

static void row_60_open(rt_loop *l, rt_session s)
{
    ledger_open(s);
    rt_set_user(l, s, malloc(10)); /* freed in on_close */
    rt_group_join(l, row_60_group[sim_choose(ROW_60_GROUPS)], s);
    row_60_acts(l, s);
}

static void row_60_message(rt_loop *l, rt_session s)
{
    ledger_told(s);
    row_60_acts(l, s);
}

static void row_60_close(rt_loop *l, rt_session s)
{
    ledger_close(s);
    free(rt_user(l, s));
    rt_set_user(l, s, NULL);
    row_60_acts(l, s);
}

static int row_60_request(rt_loop *l, rt_session s, const rt_request *r)
{
    (void)r;
    if (sim_choose(20) == 0)
        return rt_close(l, s, 0, NULL);
    return sim_choose(10) ? 0 : 403;
}

static void row_60_line(ws_peer **w)
{
    if (!*w) {
        *w = sim_choose(4) ? ws_connect(PORT, "/") : ws_accept(SERVER_PORT);
        return;
    }
    switch (sim_choose(30)) {
    case 0:
        ws_close(*w, 1000);
        break;
    case 1:
        if ((*w)->line)
            sim_peer_reset((*w)->line);
        break;
    case 2:
        ws_free(*w);
        *w = NULL;
        return;
    default:
        if ((*w)->open && !(*w)->close_sent)
            ws_send(*w, WS_TEXT, "message", 7);
    }
    ws_pump(*w);
}

static void row_60_world(uint64_t seed)
{
    sim_opts weather = {.seed = seed,
                        .shorts = 300,
                        .shuffle = 300,
                        .again = 50,
                        .window = 3000,
                        .spin = 100000};
    rt_listen_opts o = {.soft_mark = 2000};
    ws_peer *w[ROW_60_LINES] = {0};
    int i;

    stage_open(&o, &weather);
    stage.also_open = row_60_open;
    stage.also_message = stage.also_writable = row_60_message;
    stage.also_close = row_60_close;
    stage.also_request = row_60_request;
    ledger_begin();
    memset(row_60_group, 0, sizeof row_60_group);
    for (i = 0; i < 1000 && well(); i++) {
        row_60_line(&w[sim_choose(ROW_60_LINES)]);
        row_60_stale(stage.loop, ledger_any());
        rt_poll(stage.loop, (int)sim_choose(3));
    }
    rt_loop_free(stage.loop);
    ledger_end();
    for (i = 0; i < ROW_60_LINES; i++) {
        if (w[i])
            ws_free(w[i]);
    }
    EQUAL(sim_end(), 0);
    if (sim_faults())
        printf("seed %d: %s\n", (int)seed, sim_fault_text());
    stage_reset();
}

static void row_60_any_call_in_any_callback(void)
{
    uint64_t seed;

    for (seed = 1; seed <= (long_run ? 5000 : 60) && !test_bad; seed++)
        row_60_world(seed);
}

/* ---- 61 ----------------------------------------------------------------- */

/*
 * uWS, restbed.  Members close, leave, join and send while a group is gone
 * over and while it is sent to.  The model knows who was in when; each peer
 * must hear exactly that, in that order.
 */
enum { ROW_61_PEERS = 12, ROW_61_MOST = 4000 };

static struct {
    rt_group group;
    struct row_61_peer {
        rt_session s;
        int in, alive;
        int want[ROW_61_MOST], wanted, heard;
    } peer[ROW_61_PEERS];
    int sent, wrong, nested;
} row_61;

static void row_61_send(rt_loop *l, int but)
{
    char text[16];
    int i, n = 0, seq = ++row_61.sent;
    size_t len = (size_t)sprintf(text, "%d", seq);
    struct row_61_peer *p;

    if (seq >= ROW_61_MOST)
        return;
    for (i = 0; i < ROW_61_PEERS; i++) {
        p = &row_61.peer[i];
        if (!p->in || !p->alive || i == but)
            continue;
        p->want[p->wanted++] = seq;
        n++;
    }
    if (but < 0)
        EQUAL(rt_group_send(l, row_61.group, RT_TEXT, text, len), n);
    else
        EQUAL(rt_group_send_but(l, row_61.group, row_61.peer[but].s, RT_TEXT,
                                text, len),
              n);
}

static void row_61_change(rt_loop *l, struct row_61_peer *p)
{
    switch (sim_choose(8)) {
    case 0:
        EQUAL(rt_close(l, p->s, 0, NULL), p->alive ? 0 : RT_EGONE);
        p->alive = p->in = 0;
        break;
    case 1:
    case 2:
        EQUAL(rt_group_leave(l, row_61.group, p->s), !p->alive ? RT_EGONE
                                                     : p->in   ? 0
                                                               : RT_ESTATE);
        p->in = 0;
        break;
    case 3:
    case 4:
    case 5:
        EQUAL(rt_group_join(l, row_61.group, p->s), !p->alive ? RT_EGONE
                                                    : p->in   ? RT_EEXIST
                                                              : 0);
        p->in = p->alive;
        break;
    default:
        row_61_send(l, -1);
    }
}

/* Goes over the members and changes them meanwhile. */
static void row_61_go_over(rt_loop *l)
{
    rt_session all[ROW_61_PEERS];
    size_t i, n = rt_group_members(l, row_61.group, all, ROW_61_PEERS);

    for (i = 0; i < n; i++) {
        if (sim_choose(3) == 0)
            row_61_send(l, (int)sim_choose(ROW_61_PEERS));
        if (sim_choose(3) == 0)
            row_61_change(l, &row_61.peer[sim_choose(ROW_61_PEERS)]);
    }
}

static void row_61_event(rt_loop *l, rt_group g, rt_session s, int what)
{
    (void)g, (void)s, (void)what;
    EQUAL(++row_61.nested, 1);
    if (sim_choose(4) == 0)
        row_61_go_over(l);
    row_61.nested--;
}

static void row_61_message(rt_loop *l, rt_session s)
{
    (void)s;
    row_61_go_over(l);
}

static void row_61_heard(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    struct row_61_peer *p = w->user;
    char text[16] = {0};

    if (op != WS_TEXT || len >= sizeof text)
        return;
    memcpy(text, data, len);
    if (p->heard >= p->wanted || p->want[p->heard++] != atoi(text))
        row_61.wrong++;
}

static void row_61_world(uint64_t seed)
{
    sim_opts weather = {.seed = seed, .shorts = 200, .window = 2000};
    rt_group_opts o = {.event = row_61_event};
    ws_peer *w;
    int i, k;

    memset(&row_61, 0, sizeof row_61);
    stage_open(NULL, &weather);
    stage.also_message = row_61_message;
    row_61.group = rt_group_open(stage.loop, "all", &o);
    for (i = 0; i < ROW_61_PEERS; i++) {
        w = peer_open();
        w->on = row_61_heard;
        w->user = &row_61.peer[i];
        row_61.peer[i].s = stage.last;
        row_61.peer[i].alive = 1;
    }
    for (k = 0; k < 60 && well(); k++) {
        w = stage.peers[sim_choose(ROW_61_PEERS)];
        if (w->line && !w->close_sent)
            ws_send(w, WS_TEXT, "go", 2);
        row_61_change(stage.loop, &row_61.peer[sim_choose(ROW_61_PEERS)]);
        step(0);
    }
    run(200);
    EQUAL(row_61.wrong, 0);
    for (i = 0; i < ROW_61_PEERS; i++)
        EQUAL(row_61.peer[i].heard, row_61.peer[i].wanted);
    stage_end();
}

static void row_61_a_group_may_change_while_it_is_gone_over(void)
{
    uint64_t seed;

    for (seed = 1; seed <= (long_run ? 5000 : 60) && !test_bad; seed++)
        row_61_world(seed);
}

/* ---- 62 ----------------------------------------------------------------- */

static int row_62_heard;

static void row_62_count(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    (void)w, (void)data, (void)len;
    row_62_heard += op == WS_TEXT;
}

/* One is in as many groups as may be, and all are sent to in one turn: more
   than any fixed array would have had room for. */
static void row_62_many_groups(void)
{
    rt_group g[130];
    char name[32];
    ws_peer *w;
    int i, k;

    stage_open(NULL, NULL);
    w = peer_open();
    w->on = row_62_count;
    row_62_heard = 0;
    for (i = 0; i < 130; i++) {
        snprintf(name, sizeof name, "group %d", i);
        g[i] = rt_group_open(stage.loop, name, NULL);
        EQUAL(rt_group_join(stage.loop, g[i], stage.last),
              i < 128 ? 0 : RT_EFULL);
    }
    for (k = 0; k < 3; k++) {
        for (i = 0; i < 130; i++)
            EQUAL(rt_group_send(stage.loop, g[i], RT_TEXT, "x", 1), i < 128);
    }
    settle();
    EQUAL(row_62_heard, 3 * 128);
    stage_end();
}

enum { ROW_62_GROUPS = 100, ROW_62_PEERS = 8 };

static struct {
    rt_group g[ROW_62_GROUPS];
    rt_session s[ROW_62_PEERS];
    uint8_t in[ROW_62_GROUPS][ROW_62_PEERS];
    int want; /* messages that all have to hear */
} row_62;

static void row_62_open(uint32_t at)
{
    char name[32];

    snprintf(name, sizeof name, "group %u", (unsigned)at);
    row_62.g[at] = rt_group_open(stage.loop, name, NULL);
    CHECK(rt_group_find(stage.loop, name).id == row_62.g[at].id);
}

static void row_62_close(uint32_t at)
{
    EQUAL(rt_group_close(stage.loop, row_62.g[at]), 0);
    EQUAL(rt_group_close(stage.loop, row_62.g[at]), RT_EGONE);
    memset(row_62.in[at], 0, sizeof row_62.in[at]);
    row_62.g[at].id = 0;
}

static void row_62_send(uint32_t at)
{
    int i, n = 0;

    for (i = 0; i < ROW_62_PEERS; i++)
        n += row_62.in[at][i];
    EQUAL(rt_group_send(stage.loop, row_62.g[at], RT_TEXT, "x", 1), n);
    EQUAL(rt_group_count(stage.loop, row_62.g[at]), n);
    row_62.want += n;
}

static void row_62_act(uint32_t at, uint32_t who)
{
    uint8_t *in = &row_62.in[at][who];

    switch (row_62.g[at].id ? sim_choose(8) : 0) {
    case 0:
        row_62_open(at);
        break;
    case 1:
        row_62_close(at);
        break;
    case 2:
    case 3:
        EQUAL(rt_group_leave(stage.loop, row_62.g[at], row_62.s[who]),
              *in ? 0 : RT_ESTATE);
        *in = 0;
        break;
    case 4:
        row_62_send(at);
        break;
    default:
        EQUAL(rt_group_join(stage.loop, row_62.g[at], row_62.s[who]),
              *in ? RT_EEXIST : 0);
        *in = 1;
    }
}

/* A program of random group calls, against a table of who is where. */
static void row_62_program(uint64_t seed)
{
    sim_opts weather = {.seed = seed};
    rt_listen_opts o = {.hard_mark = 1 << 24};
    uint32_t at;
    int i;

    stage_open(&o, &weather);
    memset(&row_62, 0, sizeof row_62);
    row_62_heard = 0;
    for (i = 0; i < ROW_62_PEERS; i++) {
        peer_open()->on = row_62_count;
        row_62.s[i] = stage.last;
    }
    for (i = 0; i < 20000 && well(); i++) {
        at = sim_choose(ROW_62_GROUPS);
        row_62_act(at, sim_choose(ROW_62_PEERS));
        if (i % 64 == 0)
            step(0);
    }
    settle();
    EQUAL(row_62_heard, row_62.want);
    stage_end();
}

/* uWS. */
static void row_62_nothing_is_bounded_by_an_array(void)
{
    uint64_t seed;

    row_62_many_groups();
    for (seed = 1; seed <= 4; seed++)
        row_62_program(seed);
}

/* ---- 63 ----------------------------------------------------------------- */

static int row_63_depth, row_63_deepest;

static void row_63_send(rt_loop *l, rt_session s)
{
    static char bytes[3000];

    if (++row_63_depth > row_63_deepest)
        row_63_deepest = row_63_depth;
    EQUAL(rt_send(l, s, RT_BINARY, bytes, sizeof bytes), 1);
    rt_flush(l); /* all of it goes, and that tells nobody here */
    row_63_depth--;
}

/* uWS.  on_writable sends what makes it due again: the next turn, not the next
   frame of the stack. */
static void row_63_on_writable_does_not_nest(void)
{
    rt_listen_opts o = {.soft_mark = 1000};
    char bytes[3000] = {0};
    int i;

    row_63_depth = row_63_deepest = 0;
    stage_open(&o, NULL);
    stage.also_writable = row_63_send;
    peer_open();
    EQUAL(rt_send(stage.loop, stage.last, RT_BINARY, bytes, sizeof bytes), 1);
    EQUAL(stage.writables, 0);
    for (i = 0; i < 200; i++) {
        int before = stage.writables;
        step(0);
        CHECK(stage.writables - before <= 1);
    }
    EQUAL(row_63_deepest, 1);
    CHECK(stage.writables > 100);
    stage_end();
}

/* ---- 64 ----------------------------------------------------------------- */

static struct {
    uint64_t count, fail_at; /* allocations so far; the one that fails */
    int forever, failed;
} row_64;

static void *row_64_realloc(void *user, void *p, size_t old, size_t now)
{
    if (now > old || (now && !p)) {
        row_64.count++;
        if (row_64.count == row_64.fail_at ||
            (row_64.forever && row_64.fail_at &&
             row_64.count > row_64.fail_at)) {
            row_64.failed = 1;
            return NULL;
        }
    }
    return sim_realloc(user, p, old, now);
}

static void row_64_open(rt_loop *l, rt_session s)
{
    rt_group_opts o = {.history = 4, .snapshot = 2};

    ledger_open(s);
    rt_group_join(l, rt_group_open(l, "room", &o), s);
    rt_timer_start(l, s, rt_now(l) + 1, row_60_timer, NULL);
    rt_bind(l, s, "anna");
}

static void row_64_message(rt_loop *l, rt_session s)
{
    ledger_told(s);
    rt_send(l, s, stage.kind, stage.data, stage.len);
    rt_group_send(l, rt_group_find(l, "room"), rt_latest(7), "newest", 6);
    rt_group_send(l, rt_group_find(l, "room"), RT_TEXT, stage.data, stage.len);
    rt_push(l, "anna", RT_TEXT, "pushed", 6);
}

static void row_64_close(rt_loop *l, rt_session s)
{
    (void)l;
    ledger_close(s);
}

/* Everything that takes memory: handshakes, messages in parts, timers, groups
   with a history and a snapshot, user ids, a dial. */
static void row_64_play(void)
{
    static uint8_t data[20000];
    ws_peer *w[3], *server;
    int i;

    for (i = 0; i < 3; i++)
        w[i] = peer_add(ws_connect(PORT, "/"));
    for (i = 0; i < 4; i++)
        step(0);
    for (i = 0; i < 3; i++) {
        if (!w[i]->open)
            continue;
        ws_frame(w[i], WS_BINARY, data, 10000);
        ws_send(w[i], WS_PING, "ping", 4);
        ws_frame(w[i], 0x80, data, 9000);
        ws_send(w[i], WS_TEXT, "text", 4);
    }
    settle();
    ledger_dial(rt_dial(stage.loop, "ws://127.0.0.1:7000/", &stage.dial));
    for (i = 0; i < 4; i++)
        step(1);
    server = ws_accept(SERVER_PORT);
    if (server)
        peer_add(server);
    settle();
    rt_kick(stage.loop, "anna", 0, NULL);
    run(20);
}

/* With the nth allocation failing, once or from then on.  Whoever was in need
   of it may go; nobody is told twice, nothing is lost or kept; and when there
   is memory again, so is service.  Returns 0 when there are fewer than n. */
static int row_64_fails(uint64_t nth, int forever)
{
    rt_listen_opts o = {.message_rate = 100, .max_per_address = 9};
    ws_peer *w;
    int i;

    sim_start(NULL);
    memset(&row_64, 0, sizeof row_64);
    stage_open_on("ws://127.0.0.1:9000", &o, row_64_realloc);
    row_64.count = 0;
    row_64.fail_at = nth;
    row_64.forever = forever;
    ledger_begin();
    stage.also_open = row_64_open;
    stage.also_message = row_64_message;
    stage.also_close = row_64_close;
    row_64_play();
    row_64.fail_at = 0;
    w = peer_add(ws_connect_from(PORT, "10.0.0.1"));
    ws_raw(w, ws_request("/"), strlen(ws_request("/")));
    for (i = 0; i < 20 && !w->open; i++)
        run(20);
    EQUAL(w->open, 1);
    rt_loop_free(stage.loop);
    ledger_end();
    peers_free();
    EQUAL(sim_end(), 0);
    if (test_bad)
        printf("allocation %d, %s: %s\n", (int)nth,
               forever ? "for ever" : "once", sim_fault_text());
    stage_reset();
    return row_64.failed;
}

/* The loop itself cannot be made: NULL, and nothing is left. */
static void row_64_new(void)
{
    uint64_t n = 0;

    do {
        sim_start(NULL);
        stage_reset();
        memset(&row_64, 0, sizeof row_64);
        row_64.fail_at = ++n;
        stage.loop = stage_loop(row_64_realloc);
        EQUAL(stage.loop == NULL, row_64.failed);
        rt_loop_free(stage.loop);
        EQUAL(sim_end(), 0);
    } while (row_64.failed && !test_bad);
    CHECK(n > 3);
}

/* mongoose, wslay, lws. */
static void row_64_any_allocation_may_fail(void)
{
    uint64_t n;
    int forever;

    row_64_new();
    for (forever = 0; forever < 2; forever++) {
        for (n = 1; row_64_fails(n, forever) && !test_bad; n++)
            ;
        CHECK(n > 50);
    }
}
