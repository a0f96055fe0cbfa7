/*
 * Long messages: they are received where they stay, sent on from where they
 * lie, and nothing refers to the loop's inbox once a turn is over.  Real
 * sockets on loopback; what the loop holds is looked at from inside.
 *
 * One application serves all cases: each message is compared with what its
 * peer said, then the case does with it what it is about.
 */
#include "rtnet_internal.h"

#include "peer.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { PEERS = 12, MOST = 1 << 20, MIDDLE = 20000, LONG = 200000 };
enum { WHOLE, SPLIT, FRAGMENTS }; /* how a message comes */

static uint8_t body[MOST + 16]; /* letters, so that it is text, too */

/* The application of the present case. */
static struct {
    rt_loop_opts loop_opts;
    rt_listen_opts opts;
    rt_loop *loop;
    char path[108];
    int port, opens, messages, closes, code, cause;
    rt_session s[PEERS];
    size_t len;         /* of the last message */
    const uint8_t *due; /* what each message begins with */
    int result;
    rt_session after; /* of the session that a case tells of the next one */
    uint64_t unsent;
    long fails;  /* allocations until one fails; < 0: none does */
    int large;   /* allocations above 64 KiB */
    int changes; /* of interest, told to the backend */
    void (*act)(rt_session s, int kind, const uint8_t *data, size_t len);
    peer p[PEERS];
} app;

/* ---- the application ---------------------------------------------------- */

static void on_open(rt_loop *loop, rt_session s)
{
    (void)loop;
    CHECK(app.opens < PEERS);
    app.s[app.opens++] = s;
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    (void)loop;
    app.messages++;
    app.len = len;
    CHECK(memcmp(data, app.due, len) == 0);
    EQUAL(((const uint8_t *)data)[len], 0);
    if (app.act)
        app.act(s, kind, data, len);
}

static void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    app.closes++;
    app.code = why->code;
    app.cause = why->cause;
}

static const rt_handler handler = {
    .open = on_open, .message = on_message, .close = on_close};

static void *counting_realloc(void *user, void *p, size_t old, size_t now)
{
    if (!now && p)
        memset(p, 0xdb, old); /* who still looks at it goes astray */
    if (now && app.fails >= 0 && app.fails-- == 0)
        return NULL;
    app.large += now > 70000;
    return peer_realloc(user, p, old, now);
}

static void app_reset(void)
{
    size_t i;
    memset(&app, 0, sizeof app);
    for (i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)('a' + (i * i / 7 + i / 251) % 26);
    app.due = body;
    app.loop_opts.realloc = counting_realloc;
    app.opts.on = handler;
    app.opts.ping_ms = RT_OFF;
    app.opts.max_message = MOST;
    app.opts.hard_mark = 4 * MOST;
    app.fails = -1;
    peer_heap = 0;
    peer_heap_lies = 0;
    for (i = 0; i < PEERS; i++)
        app.p[i].fd = -1;
}

static int app_listen(const char *url)
{
    rt_listener n = rt_listen(app.loop, url, &app.opts);
    CHECK(n.id != 0);
    return rt_listener_port(app.loop, n);
}

/* Peers come by a local socket: what they say in one piece is read so. */
static void app_start(void)
{
    char url[128];
    app.loop = rt_loop_new(&app.loop_opts);
    CHECK(app.loop != NULL);
    app.port = app_listen("ws://127.0.0.1:0");
    peer_path(app.path);
    snprintf(url, sizeof url, "unix:%s", app.path);
    app_listen(url);
}

static void app_peers(int n)
{
    int i;
    for (i = app.opens; i < n; i++)
        CHECK(peer_ws_local(&app.p[i], app.loop, app.path));
    EQUAL(app.opens, n);
}

static void app_open(int peers)
{
    app_reset();
    app_start();
    app_peers(peers);
}

/* What must be true after each turn: the inbox is the loop's alone. */
static void held_by_nobody(void)
{
    EQUAL(app.loop->inbox->refs, 1);
    EQUAL(app.loop->borrower_count, 0);
    CHECK(app.loop->lent.buf == NULL);
}

static void app_end(void)
{
    size_t i;
    app.fails = -1;
    held_by_nobody();
    rt_loop_free(app.loop);
    EQUAL(app.opens, app.closes);
    EQUAL(peer_heap, 0);
    EQUAL(peer_heap_lies, 0);
    for (i = 0; i < PEERS; i++)
        peer_end(&app.p[i]);
}

/* One turn with what is there by now. */
static void turn(void)
{
    peer_turn(app.loop, 20);
    held_by_nobody();
}

static rt__conn *conn_of(int i)
{
    int error;
    rt__session *s = rt__session_get(app.loop, app.s[i].id, &error);
    return s ? s->conn : NULL;
}

/* ---- what peers say and get ---------------------------------------------- */

static void say_whole(peer *p, int op, size_t len)
{
    peer_frame_put(p, 0x80 | op, body, len);
}

/* In pieces, each read by itself. */
static void say_split(peer *p, int op, size_t len, size_t first, size_t piece)
{
    uint8_t *out = malloc(len + 14);
    size_t n = peer_frame_build(out, 0x80 | op, body, len), at = 0;
    while (at < n) {
        size_t step = at == 0 ? first : piece;
        step = step < n - at ? step : n - at;
        peer_put(p, out + at, step);
        at += step;
        turn();
    }
    free(out);
}

static void say_fragments(peer *p, int op, size_t len)
{
    peer_frame_put(p, op, body, len / 3);
    peer_frame_put(p, 0x89, "between", 7);
    peer_frame_put(p, 0x00, body + len / 3, len / 3);
    turn();
    peer_frame_put(p, 0x80, body + len / 3 * 2, len - len / 3 * 2);
}

static void say(peer *p, int op, size_t len, int how)
{
    if (how == WHOLE)
        say_whole(p, op, len);
    else if (how == SPLIT)
        say_split(p, op, len, 17000, 30001);
    else
        say_fragments(p, op, len);
}

/* Turns until all that was said is told. */
static void turn_until_whole(void)
{
    int before = app.messages;
    while (app.messages == before && app.closes == 0)
        turn();
}

/* The next message, pongs left out, is this. */
static int got_that(peer *p, int op, const uint8_t *data, size_t len)
{
    peer_frame f;
    do
        if (!peer_next(p, &f))
            return 0;
    while (f.op == 10);
    return f.fin && f.op == op && f.len == len &&
           memcmp(f.data, data, len) == 0;
}

static int got(peer *p, int op, size_t len)
{
    return got_that(p, op, body, len);
}

/* ---- there and back ------------------------------------------------------ */

static void echo(rt_session s, int kind, const uint8_t *data, size_t len)
{
    app.result = rt_send(app.loop, s, kind, data, len);
    CHECK(app.result >= 0);
}

static void a_long_message_comes_back_as_it_was_said(void)
{
    static const size_t sizes[] = {16383, 16384, 40000,  65535,
                                   65536, 65537, 200000, MOST};
    size_t i;
    int how, op;
    app_open(1);
    app.act = echo;
    for (i = 0; i < COUNT(sizes); i++)
        for (how = WHOLE; how <= FRAGMENTS; how++) {
            op = (i + (size_t)how) % 2 ? RT_TEXT : RT_BINARY;
            say(&app.p[0], op, sizes[i], how);
            CHECK(got(&app.p[0], op, sizes[i]));
            EQUAL(app.len, sizes[i]);
            held_by_nobody();
        }
    app_end();
}

/* Echoes; is what waits then the message where it lies? */
static int echo_stays(rt_session s, int kind, const uint8_t *data, size_t len)
{
    rt__conn *c;
    rt__piece *last;
    echo(s, kind, data, len);
    c = conn_of(0);
    CHECK(c && c->out && c->out->count == 1);
    if (!c || !c->out || !c->out->count)
        return -1;
    last = &c->out->q[c->out->head];
    return rt__buf_data(last->buf) + last->off + last->len == data + len;
}

static void echo_lies(rt_session s, int kind, const uint8_t *data, size_t len)
{
    EQUAL(echo_stays(s, kind, data, len), 1);
}

static void echo_copied(rt_session s, int kind, const uint8_t *data, size_t len)
{
    EQUAL(echo_stays(s, kind, data, len), 0);
}

static void it_is_not_copied_on_its_way(void)
{
    int how;
    app_open(1);
    app.act = echo_lies;
    for (how = WHOLE; how <= FRAGMENTS; how++) {
        say(&app.p[0], RT_TEXT, 60000, how);
        CHECK(got(&app.p[0], RT_TEXT, 60000));
    }
    app_end();
}

/* A slow peer would hold three times what it waits for. */
static void a_buffer_that_is_half_empty_is_not_lent(void)
{
    app_open(1);
    app.act = echo_copied;
    peer_frame_put(&app.p[0], RT_BINARY, body, 16380);
    turn();
    peer_frame_put(&app.p[0], 0x00, body + 16380, 16370);
    turn(); /* 32 KiB are nearly full */
    peer_frame_put(&app.p[0], 0x80, body + 32750, 4);
    CHECK(got(&app.p[0], RT_BINARY, 32754));
    app_end();
}

/* A lot of messages in one piece of input, sent on among others. */
static void echo_and_say(rt_session s, int kind, const uint8_t *data,
                         size_t len)
{
    CHECK(rt_send(app.loop, s, RT_TEXT, "before", 6) >= 0);
    echo(s, kind, data, len);
    CHECK(rt_send(app.loop, s, RT_TEXT, "after", 5) >= 0);
}

static void many_long_ones_in_one_piece_keep_their_order(void)
{
    static uint8_t all[10 * (MIDDLE + 114)];
    size_t n = 0, i;
    app_open(1);
    app.act = echo_and_say;
    for (i = 0; i < 10; i++)
        n += peer_frame_build(all + n, 0x80 | RT_BINARY, body, MIDDLE + i * 10);
    peer_put(&app.p[0], all, n);
    for (i = 0; i < 10; i++) {
        CHECK(peer_got(&app.p[0], RT_TEXT, "before"));
        CHECK(got(&app.p[0], RT_BINARY, MIDDLE + i * 10));
        CHECK(peer_got(&app.p[0], RT_TEXT, "after"));
    }
    app_end();
}

/* ---- to others ----------------------------------------------------------- */

static void to_all_and_twice(rt_session s, int kind, const uint8_t *data,
                             size_t len)
{
    int i;
    for (i = 0; i < PEERS; i++)
        echo(app.s[i], kind, data, len);
    echo(s, kind, data, len);
    CHECK(app.loop->inbox->refs <= 1 + RT__BORROWERS);
}

static void one_message_goes_to_many_and_twice_to_one(void)
{
    int i, how;
    app_open(PEERS);
    app.act = to_all_and_twice;
    for (how = WHOLE; how <= FRAGMENTS; how++) {
        say(&app.p[3], RT_TEXT, 30000, how);
        for (i = 0; i < PEERS; i++)
            CHECK(got(&app.p[i], RT_TEXT, 30000));
        CHECK(got(&app.p[3], RT_TEXT, 30000));
        held_by_nobody();
    }
    app_end();
}

/* Each in its own way; the loose ones come last. */
static void in_all_ways(rt_session s, int kind, const uint8_t *data, size_t len)
{
    int other = kind == RT_TEXT ? RT_BINARY : RT_TEXT;
    echo(s, kind | RT_DROPPABLE, data, len);
    echo(s, other, body + 9, len); /* as long, but not the one */
    echo(s, other, data, len);
    echo(s, kind, data, len);
    echo(s, kind, data + 4, len - 4);
    echo(s, kind, data, len - 1);
    echo(s, other, data, len);
    echo(s, other | rt_latest(7), data, len);
}

static void another_kind_or_a_part_has_a_head_of_its_own(void)
{
    int how;
    peer *p = &app.p[0];
    app_reset();
    app.opts.soft_mark = MOST;
    app_start();
    app_peers(1);
    app.act = in_all_ways;
    for (how = WHOLE; how <= FRAGMENTS; how++) {
        say(p, RT_TEXT, MIDDLE, how);
        CHECK(got_that(p, RT_BINARY, body + 9, MIDDLE));
        CHECK(got(p, RT_BINARY, MIDDLE));
        CHECK(got(p, RT_TEXT, MIDDLE));
        CHECK(got_that(p, RT_TEXT, body + 4, MIDDLE - 4));
        CHECK(got(p, RT_TEXT, MIDDLE - 1));
        CHECK(got(p, RT_BINARY, MIDDLE));
        CHECK(got(p, RT_TEXT, MIDDLE)); /* droppable */
        CHECK(got(p, RT_BINARY, MIDDLE));
    }
    app_end();
}

/* A codec: a kind and three bytes of length. */
static ptrdiff_t packet_decode(void *ctx, const uint8_t *in, size_t n,
                               size_t *at, size_t *len, int *kind)
{
    (void)ctx;
    if (n < 4)
        return 0;
    *kind = in[0];
    *at = 4;
    *len = (size_t)in[1] << 16 | (size_t)in[2] << 8 | in[3];
    return (ptrdiff_t)(4 + *len);
}

static size_t packet_head(void *ctx, uint8_t out[16], int kind, size_t len)
{
    (void)ctx;
    out[0] = (uint8_t)kind;
    out[1] = (uint8_t)(len >> 16);
    out[2] = (uint8_t)(len >> 8);
    out[3] = (uint8_t)len;
    return 4;
}

static const rt_codec packets = {packet_decode, packet_head, NULL, NULL, NULL};

static void stream_peer(int i, int framing)
{
    app.opts.framing = framing;
    app.opts.codec = framing == RT_CODEC ? &packets : NULL;
    CHECK(peer_tcp(&app.p[i], app.loop, app_listen("tcp://127.0.0.1:0")));
    CHECK(peer_until(app.loop, &app.opens, i + 1));
}

/* n bytes of head, then the message. */
static int got_behind(peer *p, size_t n, const void *head, size_t len)
{
    if (!peer_fill(p, n + len))
        return 0;
    p->at += n + len;
    return memcmp(p->in + p->at - len - n, head, n) == 0 &&
           memcmp(p->in + p->at - len, body, len) == 0;
}

/* 0 says it; from there it goes to the others, in that order and back. */
static void there_and_back(rt_session s, int kind, const uint8_t *data,
                           size_t len)
{
    int i;
    (void)s;
    for (i = 1; i < app.opens; i++)
        echo(app.s[i], kind, data, len);
    for (i = app.opens - 1; i > 0; i--)
        echo(app.s[i], kind, data, len);
}

static void check_wires(size_t n)
{
    uint8_t length[16], head[16];
    int i;
    packet_head(NULL, length, 0, n);
    packet_head(NULL, head, RT_BINARY, n);
    for (i = 0; i < 2; i++) {
        CHECK(got_behind(&app.p[1], 4, length, n));
        CHECK(got_behind(&app.p[2], 0, "", n));
        CHECK(got(&app.p[3], RT_BINARY, n));
        CHECK(got_behind(&app.p[4], 4, head, n));
        CHECK(got_behind(&app.p[5], 0, "", n));
    }
}

static void each_wire_gets_its_own_head(void)
{
    int how;
    app_open(1);
    stream_peer(1, RT_LENGTH);
    stream_peer(2, RT_RAW);
    app.opts.framing = 0;
    CHECK(peer_ws(&app.p[3], app.loop, app.port, "/"));
    stream_peer(4, RT_CODEC);
    stream_peer(5, RT_RAW);
    app.act = there_and_back;
    for (how = WHOLE; how <= FRAGMENTS; how++) {
        say(&app.p[0], RT_BINARY, 50000, how);
        check_wires(50000);
        held_by_nobody();
    }
    app_end();
}

static void to_the_other(rt_session s, int kind, const uint8_t *data,
                         size_t len)
{
    (void)s;
    echo(app.s[1], kind, data, len);
}

/* A client masks what it sends, and its messages come unmasked. */
static void a_client_masks_its_copy(void)
{
    char url[64];
    rt_dial_opts o = {.on = handler, .max_message = MOST, .ping_ms = RT_OFF};
    int i;
    app_open(1);
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", app.port);
    CHECK(rt_dial(app.loop, url, &o).id != 0);
    CHECK(peer_until(app.loop, &app.opens, 3)); /* both of its ends */
    app.act = NULL;
    EQUAL(rt_send(app.loop, app.s[1], RT_TEXT, body, 60000) < 0, 0);
    CHECK(peer_until(app.loop, &app.messages, 1));
    EQUAL(rt_send(app.loop, app.s[2], RT_TEXT, body, LONG) < 0, 0);
    CHECK(peer_until(app.loop, &app.messages, 2));
    app.act = there_and_back; /* to both ends, whichever is the client */
    say_whole(&app.p[0], RT_TEXT, 60000);
    CHECK(peer_until(app.loop, &app.messages, 3));
    app.act = NULL;
    CHECK(peer_until(app.loop, &app.messages, 7));
    for (i = 0; i < 2; i++) { /* each end as the only one */
        app.act = to_the_other;
        say_whole(&app.p[0], RT_TEXT, 60000);
        CHECK(peer_until(app.loop, &app.messages, 8 + 2 * i));
        app.act = NULL;
        CHECK(peer_until(app.loop, &app.messages, 9 + 2 * i));
        app.s[1] = app.s[2];
    }
    app_end();
}

static void to_a_group(rt_session s, int kind, const uint8_t *data, size_t len)
{
    rt_group g = rt_group_open(app.loop, "all", NULL);
    echo(s, kind, data, len);
    EQUAL(rt_group_send(app.loop, g, kind, data, len), 3);
    echo(app.s[1], kind, data, len);
    EQUAL(rt_send_many(app.loop, app.s, 3, kind, data, len), 3);
}

static void a_group_gets_it_in_its_order(void)
{
    static const int count[] = {3, 3, 2};
    rt_group g;
    int i, k;
    app_open(3);
    app.act = to_a_group;
    g = rt_group_open(app.loop, "all", NULL);
    for (i = 0; i < 3; i++)
        EQUAL(rt_group_join(app.loop, g, app.s[i]), 0);
    say_whole(&app.p[0], RT_TEXT, MIDDLE);
    for (i = 0; i < 3; i++)
        for (k = 0; k < count[i]; k++)
            CHECK(got(&app.p[i], RT_TEXT, MIDDLE));
    app_end();
}

/* The head of the second does not fit where its own stood: the first one's end
   is there. */
static void to_itself_or_the_other(rt_session s, int kind, const uint8_t *data,
                                   size_t len)
{
    echo(app.messages % 2 ? s : app.s[1], kind, data, len);
}

static void a_head_that_has_no_room_spoils_nothing(void)
{
    enum { N = 65534 }; /* with the codec's head more than 65,535 */
    static uint8_t all[MIDDLE + N + 28];
    uint8_t head[16];
    size_t n = peer_frame_build(all, 0x82, body, MIDDLE);
    app_open(1);
    app.opts.codec = &packets;
    n += peer_frame_build(all + n, 0x82, body, N);
    CHECK(peer_ws(&app.p[1], app.loop, app_listen("ws://127.0.0.1:0"), "/"));
    app.act = to_itself_or_the_other;
    peer_put(&app.p[0], all, n);
    CHECK(got(&app.p[0], RT_BINARY, MIDDLE));
    packet_head(NULL, head, RT_BINARY, N);
    CHECK(peer_fill(&app.p[1], 14 + N));
    app.p[1].at += 10; /* of the frame */
    CHECK(got_behind(&app.p[1], 4, head, N));
    app_end();
}

/* ---- filters ------------------------------------------------------------- */

/* Sends it on, then writes to it. */
static int send_and_change(rt_loop *loop, rt_session s, rt_message *m)
{
    (void)s;
    CHECK(rt_send(loop, app.s[1], m->kind, m->data, m->len) >= 0);
    memset(m->data, 'X', m->len);
    m->data[m->len - 1] = 'Y';
    return 0;
}

static uint8_t changed[LONG];

static void what_a_filter_sent_stays_as_it_was(void)
{
    int how;
    app_reset();
    memset(changed, 'X', sizeof changed);
    changed[MIDDLE - 1] = 'Y';
    app.due = changed;
    app.opts.filter[0] = send_and_change;
    app_start();
    app_peers(2);
    app.act = echo_lies;
    for (how = WHOLE; how <= FRAGMENTS; how++) {
        say(&app.p[0], RT_TEXT, MIDDLE, how);
        CHECK(got(&app.p[1], RT_TEXT, MIDDLE));
        CHECK(got_that(&app.p[0], RT_TEXT, changed, MIDDLE));
    }
    app_end();
}

/* ---- what callbacks do besides ------------------------------------------- */

enum {
    DROP_OTHER,
    CLOSE_OTHER,
    DROP_SELF,
    CLOSE_SELF,
    PAUSE,
    FLUSH,
    KEEP,
    DEEDS
};

static int deed;

static void send_and_do(rt_session s, int kind, const uint8_t *data, size_t len)
{
    char token[23];
    echo(app.s[1], kind, data, len);
    echo(s, kind, data, len);
    if (deed == DROP_OTHER || deed == DROP_SELF)
        EQUAL(rt_drop(app.loop, app.s[deed == DROP_OTHER], 4000, ""), 0);
    if (deed == CLOSE_OTHER || deed == CLOSE_SELF)
        EQUAL(rt_close(app.loop, app.s[deed == CLOSE_OTHER], 4000, ""), 0);
    if (deed == PAUSE)
        EQUAL(rt_read(app.loop, s, 0), 0);
    if (deed == FLUSH)
        rt_flush(app.loop);
    if (deed == KEEP)
        EQUAL(rt_keep(app.loop, app.s[1], 1000, token), 0);
    rt_send(app.loop, app.s[1], kind, data, len);
    if (deed == KEEP) /* what is kept is a copy, the first one is not kept */
        CHECK(conn_of(1)->out->count >= 2);
}

static void check_deed(int how)
{
    app_open(2);
    app.act = send_and_do;
    say(&app.p[0], RT_TEXT, MIDDLE, how);
    CHECK(peer_until(app.loop, &app.messages, 1));
    CHECK(got(&app.p[1], RT_TEXT, MIDDLE));
    if (deed != DROP_OTHER && deed != CLOSE_OTHER)
        CHECK(got(&app.p[1], RT_TEXT, MIDDLE));
    if (deed != DROP_SELF)
        CHECK(got(&app.p[0], RT_TEXT, MIDDLE));
    if (deed == DROP_SELF || deed == CLOSE_SELF)
        EQUAL(peer_closed_at_last(&app.p[0]), 4000);
    if (deed == DROP_OTHER || deed == CLOSE_OTHER)
        EQUAL(peer_closed(&app.p[1]), 4000);
    app_end();
}

static void a_callback_may_do_anything_after_sending_it_on(void)
{
    int how;
    for (deed = 0; deed < DEEDS; deed++)
        for (how = WHOLE; how <= FRAGMENTS; how++)
            check_deed(how);
}

/* ---- slow peers ---------------------------------------------------------- */

/* Little is under way to this one. */
static void small_pipe(int i)
{
    int bytes = 8192;
    setsockopt(conn_of(i)->source.fd, SOL_SOCKET, SO_SNDBUF, &bytes,
               sizeof bytes);
}

static void a_full_socket_gets_the_rest_of_it_later(void)
{
    int i;
    app_open(2);
    small_pipe(1);
    app.act = to_the_other;
    for (i = 0; i < 8; i++) {
        say(&app.p[0], RT_TEXT, 100000, i % 3);
        CHECK(peer_until(app.loop, &app.messages, i + 1));
        held_by_nobody();
    }
    CHECK(conn_of(1)->out && conn_of(1)->out->blocked);
    for (i = 0; i < 8; i++)
        CHECK(got(&app.p[1], RT_TEXT, 100000));
    app_end();
}

static int taken; /* by rt_send */

/* One call writes 64 pieces: the long one stays for the next turn. */
static void behind_many_pieces(rt_session s, int kind, const uint8_t *data,
                               size_t len)
{
    int i;
    for (i = 0; i < 70; i++) { /* in turns, so that they do not adjoin */
        rt_send(app.loop, app.s[1], RT_TEXT, "x", 1);
        taken += rt_send(app.loop, s, RT_TEXT, "x", 1) >= 0;
    }
    taken += rt_send(app.loop, s, kind, data, len) >= 0;
}

static void what_is_above_a_portion(long fails)
{
    int i;
    taken = 0;
    app_open(2);
    app.act = behind_many_pieces;
    app.fails = fails;
    say_whole(&app.p[0], RT_BINARY, MIDDLE);
    turn_until_whole();
    for (i = 0; i < 70 && taken == 71 && !app.closes; i++)
        CHECK(peer_got(&app.p[0], RT_TEXT, "x"));
    if (taken == 71 && !app.closes)
        CHECK(got(&app.p[0], RT_BINARY, MIDDLE));
    if (app.closes)
        EQUAL(app.code, 1006);
}

static void what_is_above_a_portion_moves_out(void)
{
    long n;
    int spare = 0;
    for (n = 0; !spare && n < 200; n++) {
        what_is_above_a_portion(n);
        spare = app.fails >= 0;
        EQUAL(spare && (taken != 71 || app.closes), 0);
        app_end();
    }
    CHECK(spare && n > 3);
}

/* The first one is sent on behind more than a portion; the second one sees
   where it lies by then, in the same turn. */
static void behind_a_portion_and_look(rt_session s, int kind,
                                      const uint8_t *data, size_t len)
{
    (void)s;
    if (app.messages == 1) {
        EQUAL(rt_send(app.loop, app.s[2], kind, body, 200000), 1);
        EQUAL(rt_send(app.loop, app.s[2], kind, body, 200000), 1);
        echo(app.s[2], kind, data, len);
        CHECK(app.loop->inbox->refs > 1); /* it is borrowed */
        return;
    }
    CHECK(conn_of(2)->out && !conn_of(2)->out->blocked);
    EQUAL(app.loop->inbox->refs, 1);
}

static void behind_a_portion_it_leaves_the_inbox(void)
{
    int bytes = 1 << 20;
    app_open(3);
    setsockopt(conn_of(2)->source.fd, SOL_SOCKET, SO_SNDBUF, &bytes,
               sizeof bytes);
    app.act = behind_a_portion_and_look;
    say_whole(&app.p[0], RT_BINARY, MIDDLE);
    say_whole(&app.p[1], RT_BINARY, MIDDLE);
    turn();
    EQUAL(app.messages, 2);
    app_end();
}

static void who_goes_behind_it_takes_nothing_along(void)
{
    app_open(2);
    small_pipe(1);
    app.act = to_the_other;
    say_whole(&app.p[0], RT_TEXT, 100000);
    CHECK(peer_until(app.loop, &app.messages, 1));
    peer_end(&app.p[1]);
    say_whole(&app.p[0], RT_TEXT, 100000);
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(app.code, 1006);
    app_end();
}

/* ---- early and late ------------------------------------------------------ */

static size_t answer;

/* Answers; the second one sees what the first's answer waits for. */
static void answer_and_look(rt_session s, int kind, const uint8_t *data,
                            size_t len)
{
    (void)data;
    (void)len;
    if (app.messages == 1) {
        app.after = s;
        CHECK(rt_send(app.loop, s, kind, body, answer) >= 0);
    } else {
        app.unsent = rt_unsent(app.loop, app.after);
    }
}

static uint64_t unsent_after(size_t n, int keep)
{
    char token[23];
    int i;
    app_open(2);
    answer = n;
    app.act = answer_and_look;
    for (i = 0; keep && i < 2; i++)
        EQUAL(rt_keep(app.loop, app.s[i], 1000, token), 0);
    peer_frame_put(&app.p[0], 0x82, body, 5);
    peer_frame_put(&app.p[1], 0x82, body, 5);
    CHECK(peer_until(app.loop, &app.messages, 2));
    app_end();
    return app.unsent;
}

static void a_long_answer_does_not_wait_for_others(void)
{
    EQUAL(unsent_after(RT__EARLY - 5, 0), RT__EARLY - 1);
    EQUAL(unsent_after(RT__EARLY - 4, 0), 0);
    CHECK(unsent_after(RT__EARLY, 1) > RT__EARLY);
}

static void to_the_last_and_look(rt_session s, int kind, const uint8_t *data,
                                 size_t len)
{
    (void)s;
    if (app.messages == 1)
        echo(app.s[2], kind, data, len);
    else
        app.unsent = rt_unsent(app.loop, app.s[2]);
}

static void what_lies_in_the_inbox_does_not_wait_either(void)
{
    app_open(3);
    app.act = to_the_last_and_look;
    app.unsent = 1;
    say_whole(&app.p[0], RT_TEXT, MIDDLE);
    say_whole(&app.p[1], RT_TEXT, MIDDLE);
    turn();
    EQUAL(app.messages, 2);
    EQUAL(app.unsent, 0);
    app_end();
}

static int (*real_set)(rt_loop *, rt__source *, int);

static int counted_set(rt_loop *loop, rt__source *s, int interest)
{
    app.changes++;
    return real_set(loop, s, interest);
}

static void a_pause_is_told_when_something_comes(void)
{
    app_open(1);
    real_set = app.loop->backend.set;
    app.loop->backend.set = counted_set;
    EQUAL(rt_read(app.loop, app.s[0], 0), 0);
    turn();
    EQUAL(rt_read(app.loop, app.s[0], 1), 0);
    EQUAL(app.changes, 0);
    EQUAL(rt_read(app.loop, app.s[0], 0), 0);
    say_whole(&app.p[0], RT_TEXT, 5);
    turn();
    EQUAL(app.changes, 1);
    EQUAL(rt_poll(app.loop, 5), 0); /* no spin */
    EQUAL(app.messages, 0);
    EQUAL(rt_read(app.loop, app.s[0], 1), 0);
    EQUAL(app.changes, 2);
    CHECK(peer_until(app.loop, &app.messages, 1));
    app_end();
}

/* ---- received where it stays --------------------------------------------- */

/* Does the next turn write to the inbox? */
static int turn_is_direct(void)
{
    uint8_t *at = rt__buf_data(app.loop->inbox);
    uint64_t before = app.loop->stats.bytes_in;
    memset(at, 0x5a, 64);
    turn();
    CHECK(app.loop->stats.bytes_in > before);
    return at[0] == 0x5a && at[1] == 0x5a && at[63] == 0x5a;
}

/* A frame of LONG bytes, of which n came. */
static uint8_t *begin_long(peer *p, size_t n, size_t *at)
{
    uint8_t *out = malloc(LONG + 14);
    CHECK(peer_frame_build(out, 0x80 | RT_TEXT, body, LONG) == LONG + 14);
    *at = 14 + n;
    peer_put(p, out, *at);
    while (conn_of(0)->in == NULL || LONG - conn_of(0)->in->left < n)
        turn();
    return out;
}

static void a_long_frame_is_received_where_it_stays(void)
{
    static const size_t pieces[] = {1, 2, 3, 5, 1, 1, 4, 7, 6};
    size_t at, i, n = LONG + 14;
    uint8_t *out;
    app_open(1);
    app.act = echo;
    out = begin_long(&app.p[0], RT__DIRECT_FROM - 1, &at);
    peer_put(&app.p[0], out + at++, 1);
    CHECK(!turn_is_direct()); /* so little came */
    for (i = 0; i < COUNT(pieces); i++) {
        peer_put(&app.p[0], out + at, pieces[i]);
        at += pieces[i];
        CHECK(turn_is_direct());
    }
    peer_put(&app.p[0], out + at, n - RT__DIRECT + 1 - at);
    at = n - RT__DIRECT + 1;
    while (conn_of(0)->in->left > RT__DIRECT - 1)
        turn();
    peer_put(&app.p[0], out + at, 70);
    CHECK(!turn_is_direct()); /* so little is left */
    peer_put(&app.p[0], out + at + 70, n - at - 70);
    CHECK(got(&app.p[0], RT_TEXT, LONG));
    free(out);
    app_end();
}

static void a_stream_is_not_received_so(void)
{
    uint8_t *out = malloc(LONG + 4);
    size_t at, step;
    app_open(0);
    stream_peer(0, RT_LENGTH);
    app.act = echo;
    packet_head(NULL, out, 0, LONG);
    memcpy(out + 4, body, LONG);
    for (at = 0; at < LONG + 4; at += step) {
        step = LONG + 4 - at < 40000 ? LONG + 4 - at : 40000;
        peer_put(&app.p[0], out + at, step);
        CHECK(!turn_is_direct());
    }
    CHECK(got_behind(&app.p[0], 4, out, LONG));
    free(out);
    app_end();
}

/* The last byte of the frame is received directly, and what follows is not
   taken with it. */
static void a_frame_may_end_where_it_is_received(void)
{
    size_t at;
    uint8_t *out;
    app_open(1);
    app.act = echo;
    out = begin_long(&app.p[0], LONG / 2, &at);
    peer_put(&app.p[0], out + at, LONG + 14 - at);
    say_whole(&app.p[0], RT_TEXT, 3);
    CHECK(turn_is_direct());
    while (conn_of(0)->in)
        turn();
    EQUAL(app.messages, 1);
    CHECK(got(&app.p[0], RT_TEXT, LONG));
    CHECK(got(&app.p[0], RT_TEXT, 3));
    free(out);
    app_end();
}

static void wrong_text_is_refused_before_its_end(void)
{
    size_t at;
    uint8_t *out;
    app_open(1);
    out = begin_long(&app.p[0], 40000, &at);
    out[at + 5000] ^= body[at + 5000 - 14] ^ 0xff; /* never in UTF-8 */
    out[at + 5001] ^= body[at + 5001 - 14] ^ 0xff;
    peer_put(&app.p[0], out + at, 5000);
    CHECK(turn_is_direct());
    EQUAL(app.closes, 0);
    peer_put(&app.p[0], out + at + 5000, 1);
    CHECK(turn_is_direct());
    EQUAL(app.closes, 1);
    EQUAL(peer_closed(&app.p[0]), 1007);
    EQUAL(app.code, 1007);
    peer_put(&app.p[0], out + at + 5001, 1); /* nobody wants it any more */
    peer_quiet(app.loop);
    EQUAL(app.loop->conn_count, 1);
    free(out);
    app_end();
}

/* Characters of three bytes, over all borders; the last one lacks a byte. */
static void text_is_checked_over_all_borders(size_t len, int code)
{
    static uint8_t euro[LONG];
    uint8_t *out = malloc(LONG + 14);
    size_t i, n, at;
    for (i = 0; i < LONG; i++)
        euro[i] = (uint8_t) "\xe2\x82\xac"[i % 3];
    app_open(1);
    app.due = euro;
    n = peer_frame_build(out, 0x80 | RT_TEXT, euro, len);
    for (at = 0; at < n; at += i) {
        i = at == 0 ? 20000 : 20011;
        i = i < n - at ? i : n - at;
        peer_put(&app.p[0], out + at, i);
        turn();
    }
    EQUAL(app.messages, code == 0);
    if (code)
        EQUAL(peer_closed(&app.p[0]), code);
    free(out);
    app_end();
}

static void characters_may_stand_across_pieces(void)
{
    text_is_checked_over_all_borders(LONG / 3 * 3, 0);
    text_is_checked_over_all_borders(LONG / 3 * 3 - 1, 1007);
}

static void a_message_of_exactly_the_limit_passes(void)
{
    app_open(1);
    app.act = echo;
    peer_frame_put(&app.p[0], RT_TEXT, body, MOST / 2);
    peer_frame_put(&app.p[0], 0x80, body + MOST / 2, MOST / 2);
    CHECK(got(&app.p[0], RT_TEXT, MOST));
    peer_frame_put(&app.p[0], RT_TEXT, body, MOST / 2);
    peer_frame_put(&app.p[0], 0x80, body + MOST / 2, MOST / 2 + 1);
    EQUAL(peer_closed(&app.p[0]), 1009);
    app_end();
}

/* ---- what it costs ------------------------------------------------------- */

/* What the loop holds but for what it keeps to use again. */
static size_t held(void)
{
    return peer_heap - app.loop->pooled - app.loop->large_kept;
}

/* Never above twice what came, and what a pool's class is larger. */
static void who_announces_much_costs_what_came(void)
{
    static const size_t steps[] = {1,     10,    2000,  14000, 373,   1,
                                   10000, 10000, 20000, 50000, 90000, 90000};
    uint8_t *out = malloc(MOST + 14);
    size_t i, before, came = 0, most;
    peer_frame_build(out, 0x80 | RT_BINARY, body, MOST);
    app_open(1);
    turn();
    before = held();
    peer_put(&app.p[0], out, 14);
    turn();
    for (i = 0; i < COUNT(steps); i++) {
        peer_put(&app.p[0], out + 14 + came, steps[i]);
        came += steps[i];
        turn();
        most = came <= 8192 ? 16384 : came <= 32768 ? 4 * came : 2 * came;
        CHECK(held() - before <= most + 1000);
    }
    free(out);
    app_end();
}

static void a_large_buffer_is_used_again_for_a_second(void)
{
    int large;
    app_open(1);
    say_split(&app.p[0], RT_TEXT, 300000, 20000, 40000);
    CHECK(peer_until(app.loop, &app.messages, 1));
    CHECK(app.loop->large_kept > 300000);
    large = app.large;
    CHECK(large > 0);
    say_split(&app.p[0], RT_TEXT, 300000, 20000, 40000);
    CHECK(peer_until(app.loop, &app.messages, 2));
    EQUAL(app.large, large);
    app.loop->large_used -= 1000;
    peer_turn(app.loop, 0);
    EQUAL(app.loop->large_kept, 0);
    app_end();
}

/* ---- ends in the middle -------------------------------------------------- */

static void a_pause_in_the_middle_leaves_the_rest_unread(void)
{
    size_t at;
    uint64_t before;
    uint8_t *out;
    app_open(1);
    app.act = echo;
    out = begin_long(&app.p[0], 50000, &at);
    EQUAL(rt_read(app.loop, app.s[0], 0), 0);
    before = app.loop->stats.bytes_in;
    peer_put(&app.p[0], out + at, LONG + 14 - at);
    turn();
    turn();
    EQUAL(app.loop->stats.bytes_in, before);
    EQUAL(rt_read(app.loop, app.s[0], 1), 0);
    CHECK(got(&app.p[0], RT_TEXT, LONG));
    free(out);
    app_end();
}

static void echo_and_pause(rt_session s, int kind, const uint8_t *data,
                           size_t len)
{
    echo(s, kind, data, len);
    EQUAL(rt_read(app.loop, s, 0), 0);
}

/* What was read behind a pause lies elsewhere, and is copied. */
static void long_ones_behind_a_pause_are_told_later(void)
{
    static uint8_t all[3 * (MIDDLE + 14)];
    size_t n = 0;
    int i;
    app_open(1);
    app.act = echo_and_pause;
    for (i = 0; i < 3; i++)
        n += peer_frame_build(all + n, 0x81, body, MIDDLE);
    peer_put(&app.p[0], all, n);
    for (i = 0; i < 3; i++) {
        CHECK(peer_until(app.loop, &app.messages, i + 1));
        CHECK(got(&app.p[0], RT_TEXT, MIDDLE));
        EQUAL(app.messages, i + 1);
        EQUAL(rt_read(app.loop, app.s[0], 1), 0);
    }
    app_end();
}

static void the_line_may_end_in_the_middle(void)
{
    int i;
    size_t at;
    uint8_t *out;
    for (i = 0; i < 3; i++) {
        app_open(1);
        out = begin_long(&app.p[0], 50000, &at);
        peer_put(&app.p[0], out + at, i == 2 ? 100 : 0);
        if (i == 0)
            peer_end(&app.p[0]);
        else
            peer_reset(&app.p[0]);
        CHECK(peer_until(app.loop, &app.closes, 1));
        EQUAL(app.code, 1006);
        EQUAL(app.messages, 0);
        free(out);
        app_end();
    }
}

/* Our close is said in the middle of a frame: its rest goes nowhere. */
static void a_close_of_ours_in_the_middle_ends_it(void)
{
    size_t at;
    uint8_t *out;
    app_open(1);
    out = begin_long(&app.p[0], 50000, &at);
    EQUAL(rt_close(app.loop, app.s[0], 4000, ""), 0);
    EQUAL(peer_closed(&app.p[0]), 4000);
    peer_put(&app.p[0], out + at, LONG + 14 - at);
    peer_bye(&app.p[0], 4000);
    EQUAL(peer_ended(&app.p[0]), PEER_EOF);
    EQUAL(app.messages, 0);
    free(out);
    app_end();
}

static void bytes_in_place_do_not_move_the_deadline(void)
{
    size_t at;
    uint8_t *out;
    uint64_t began = peer_clock();
    app_reset();
    app.opts.assembly_ms = 60;
    app_start();
    app_peers(1);
    out = begin_long(&app.p[0], 50000, &at);
    while (!app.closes && peer_clock() - began < PEER_WAIT) {
        peer_put(&app.p[0], out + at++, 1);
        peer_turn(app.loop, 5);
    }
    EQUAL(app.code, 1008);
    CHECK(peer_clock() - began < 300);
    free(out);
    app_end();
}

/* ---- without memory ------------------------------------------------------ */

static int lean_send; /* how often rt_send said that there is no memory */

static void send_lean(rt_session s, int kind, const uint8_t *data, size_t len)
{
    int i;
    (void)s;
    for (i = 2; i >= 0; i--) {
        int answer_of = rt_send(app.loop, app.s[i], kind, data, len);
        CHECK(answer_of >= 0 || answer_of == RT_ENOMEM ||
              answer_of == RT_EGONE);
        lean_send += answer_of < 0;
    }
}

/* Nobody gets less than a whole message or a close. */
static void check_lean(int how, long fails)
{
    peer_frame f;
    int i;
    app_open(3);
    small_pipe(1);
    app.act = send_lean;
    lean_send = 0;
    app.fails = fails;
    say(&app.p[0], RT_BINARY, 90000, how);
    peer_quiet(app.loop);
    held_by_nobody();
    app.fails = app.fails >= 0 ? 1000000 : -1; /* none is left to fail */
    for (i = 0; i < 3 && app.closes + lean_send == 0 && app.messages; i++) {
        do
            CHECK(peer_next(&app.p[i], &f));
        while (f.op == 10);
        CHECK(f.len == 90000 && memcmp(f.data, body, f.len) == 0);
    }
}

static void memory_may_fail_anywhere(void)
{
    long n;
    int how, spare;
    for (how = WHOLE; how <= FRAGMENTS; how++) {
        spare = 0;
        for (n = 0; !spare && n < 100; n++) {
            check_lean(how, n);
            spare = app.fails >= 0;
            app_end();
        }
        CHECK(spare && n > 3);
    }
}

int main(void)
{
    RUN(a_long_message_comes_back_as_it_was_said);
    RUN(it_is_not_copied_on_its_way);
    RUN(a_buffer_that_is_half_empty_is_not_lent);
    RUN(many_long_ones_in_one_piece_keep_their_order);
    RUN(one_message_goes_to_many_and_twice_to_one);
    RUN(another_kind_or_a_part_has_a_head_of_its_own);
    RUN(each_wire_gets_its_own_head);
    RUN(a_client_masks_its_copy);
    RUN(a_group_gets_it_in_its_order);
    RUN(a_head_that_has_no_room_spoils_nothing);
    RUN(what_a_filter_sent_stays_as_it_was);
    RUN(a_callback_may_do_anything_after_sending_it_on);
    RUN(a_full_socket_gets_the_rest_of_it_later);
    RUN(who_goes_behind_it_takes_nothing_along);
    RUN(what_is_above_a_portion_moves_out);
    RUN(behind_a_portion_it_leaves_the_inbox);
    RUN(a_long_answer_does_not_wait_for_others);
    RUN(what_lies_in_the_inbox_does_not_wait_either);
    RUN(a_pause_is_told_when_something_comes);
    RUN(a_long_frame_is_received_where_it_stays);
    RUN(a_stream_is_not_received_so);
    RUN(a_frame_may_end_where_it_is_received);
    RUN(wrong_text_is_refused_before_its_end);
    RUN(characters_may_stand_across_pieces);
    RUN(a_message_of_exactly_the_limit_passes);
    RUN(who_announces_much_costs_what_came);
    RUN(a_large_buffer_is_used_again_for_a_second);
    RUN(a_pause_in_the_middle_leaves_the_rest_unread);
    RUN(long_ones_behind_a_pause_are_told_later);
    RUN(the_line_may_end_in_the_middle);
    RUN(a_close_of_ours_in_the_middle_ends_it);
    RUN(bytes_in_place_do_not_move_the_deadline);
    RUN(memory_may_fail_anywhere);
    return test_done();
}
