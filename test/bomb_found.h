/*
 * What the bomb found, each as small as it gets: named for what is right now.
 * A stage is one loop on the simulated kernel, with what a case needs.
 */
#ifndef BOMB_FOUND_H
#define BOMB_FOUND_H

static struct {
    rt_loop *loop;
    rt_session s, client;
    int closes;
    rt_end end;
    int packets; /* of the codec that a scripted end got */
    int ran, aways, backs;
    int known; /* rt_request_of answered for the client that is away */
} found;

static void found_open(rt_loop *loop, rt_session s)
{
    (void)loop;
    found.s = s;
}

static void found_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    found.closes++;
    found.end = *why;
}

static const rt_handler found_handler = {.open = found_open,
                                         .close = found_close};

static size_t found_bye(void *ctx, uint8_t out[256], int code,
                        const char *reason)
{
    (void)code;
    (void)reason;
    return codec_head(ctx, out, 0, 0);
}

static const rt_codec found_codec = {.decode = codec_decode,
                                     .head = codec_head,
                                     .beat = codec_beat,
                                     .bye = found_bye};

static void found_begin(void)
{
    rt_loop_opts o = {.realloc = sim_realloc, .backend = RT_EPOLL};

    memset(&found, 0, sizeof found);
    sim_start(NULL);
    found.loop = rt_loop_new(&o);
    CHECK(found.loop);
}

static void found_end(void)
{
    rt_loop_free(found.loop);
    EQUAL(sim_end(), 0);
    if (sim_faults())
        printf("%s\n", sim_fault_text());
}

static void found_listen(const char *url, int framing, const rt_codec *codec)
{
    rt_listen_opts o = {.on = found_handler,
                        .framing = framing,
                        .codec = codec,
                        .ping_ms = 100,
                        .soft_mark = 1 << 20};

    CHECK(rt_listen(found.loop, url, &o).id);
}

static void found_turns(int n, int ms, ws_peer *ws)
{
    while (n-- > 0) {
        rt_poll(found.loop, ms);
        if (ws)
            ws_pump(ws);
    }
}

static void found_hears(ws_peer *ws, int op, const uint8_t *data, size_t len)
{
    (void)ws;
    found.packets += op == WS_BINARY && len == 3 && data[0] == 'C';
}

/* The scripted end takes what is no frame for a fault. */
static void a_codec_on_a_websocket_beats_and_leaves_in_frames(void)
{
    ws_peer *ws;
    int beats;

    found_begin();
    found_listen("ws://127.0.0.1:9000", RT_CODEC, &found_codec);
    ws = ws_connect(9000, "/");
    ws->on = found_hears;
    found_turns(9, 0, ws);
    found_turns(2, 150, ws);
    CHECK(found.packets > 0);
    beats = found.packets;
    EQUAL(rt_close(found.loop, found.s, 4000, "bye"), 0);
    found_turns(9, 0, ws);
    EQUAL(found.packets, beats + 1);
    EQUAL(ws->close_code, 4000);
    ws_free(ws);
    found_end();
}

static void a_dialled_codec_beats_and_leaves_in_masked_frames(void)
{
    rt_dial_opts o = {.on = found_handler,
                      .framing = RT_CODEC,
                      .codec = &found_codec,
                      .ping_ms = 100};
    ws_peer *ws;
    int beats;

    found_begin();
    sim_serve(9100);
    CHECK(rt_dial(found.loop, "ws://127.0.0.1:9100/", &o).id);
    found_turns(9, 2, NULL);
    ws = ws_accept(9100);
    CHECK(ws);
    if (ws) {
        ws->on = found_hears;
        found_turns(9, 0, ws);
        found_turns(2, 150, ws);
        CHECK(found.packets > 0);
        beats = found.packets;
        rt_close(found.loop, found.s, 4000, "bye");
        found_turns(9, 0, ws);
        EQUAL(found.packets, beats + 1);
        EQUAL(ws->close_code, 4000);
        ws_free(ws);
    }
    found_end();
}

/* A stream whose window lets so many bytes through, and no more yet. */
static sim_peer *found_stream(int framing, const rt_codec *codec, size_t window)
{
    sim_peer *line;

    found_begin();
    found_listen("tcp://127.0.0.1:9000", framing, codec);
    line = sim_connect(9000);
    found_turns(5, 0, NULL);
    CHECK(found.s.id);
    sim_peer_window(line, window);
    return line;
}

/* What was loose is no message when its rest goes. */
static void the_rest_of_a_loose_raw_message_counts_for_none(void)
{
    static uint8_t bytes[3000];
    sim_peer *line = found_stream(RT_RAW, NULL, 1000);

    EQUAL(rt_send(found.loop, found.s, RT_BINARY | RT_DROPPABLE, bytes, 2000),
          0);
    found_turns(3, 0, NULL);
    EQUAL(rt_send(found.loop, found.s, RT_BINARY, bytes, 500), 0);
    EQUAL(sim_peer_recv(line, bytes, 1000), 1000);
    found_turns(3, 0, NULL); /* the rest of it, and nothing of the next */
    EQUAL(rt_unsent(found.loop, found.s), 500);
    sim_peer_reset(line);
    found_turns(3, 0, NULL);
    EQUAL(found.closes, 1);
    EQUAL(found.end.lost, 1);
    sim_peer_close(line);
    found_end();
}

/* The library read behind the end of what it keeps. */
static void a_kept_raw_session_outlives_a_loose_message_in_parts(void)
{
    static uint8_t bytes[3000];
    sim_peer *line = found_stream(RT_RAW, NULL, 1000);
    char token[23];
    int i;

    EQUAL(rt_keep(found.loop, found.s, 1000, token), 0);
    for (i = 0; i < 8; i++) /* so that what is kept fills its room */
        rt_send(found.loop, found.s, RT_BINARY, bytes, 10);
    found_turns(2, 0, NULL);
    rt_send(found.loop, found.s, RT_BINARY | RT_DROPPABLE, bytes, 2000);
    found_turns(3, 0, NULL);
    EQUAL(sim_peer_recv(line, bytes, 500), 500);
    found_turns(3, 0, NULL); /* more of it, but not all */
    EQUAL(rt_acked(found.loop, found.s, 8), 0);
    sim_peer_close(line);
    found_turns(3, 0, NULL);
    EQUAL(rt_state(found.loop, found.s), RT_AWAY);
    found_end();
}

/* It is in front of the message, and goes alone. */
static void a_beat_of_a_codec_counts_for_no_message(void)
{
    static uint8_t bytes[3000];
    sim_peer *line = found_stream(RT_CODEC, &found_codec, 2);

    found_turns(2, 150, NULL); /* two of its three bytes */
    EQUAL(rt_send(found.loop, found.s, RT_BINARY, bytes, 500), 0);
    EQUAL(sim_peer_recv(line, bytes, 2), 2);
    found_turns(1, 0, NULL); /* the third, and a byte of the message */
    EQUAL(rt_unsent(found.loop, found.s), 502);
    sim_peer_reset(line);
    found_turns(3, 0, NULL);
    EQUAL(found.end.lost, 1);
    sim_peer_close(line);
    found_end();
}

/* One for whom the socket has no room is put into the buffer of what waits
   before it, where that has some: not into a beat's. */
static void a_message_behind_a_beat_that_waits_counts(void)
{
    static uint8_t bytes[3000];
    sim_peer *line = found_stream(RT_CODEC, &found_codec, 2);

    found_turns(2, 150, NULL); /* two of its three bytes */
    EQUAL(rt_send(found.loop, found.s, RT_BINARY, bytes, 20), 0);
    EQUAL(rt_send(found.loop, found.s, RT_BINARY, bytes, 500), 0);
    EQUAL(sim_peer_recv(line, bytes, 2), 2);
    sim_peer_window(line, 1 + 23 + 10);
    found_turns(3, 0, NULL); /* the beat, the first, and of the second ten */
    EQUAL(rt_unsent(found.loop, found.s), 503 - 10);
    sim_peer_reset(line);
    found_turns(3, 0, NULL);
    EQUAL(found.end.lost, 1);
    sim_peer_close(line);
    found_end();
}

static void found_post(rt_loop *loop, void *arg)
{
    (void)loop;
    EQUAL((intptr_t)arg, ++found.ran);
}

static void posts_outlive_a_read_that_ends_inside_one(void)
{
    intptr_t i;
    int cut;

    for (cut = 1; cut < 40; cut++) {
        found_begin();
        for (i = 1; i <= 5; i++)
            EQUAL(rt_post(found.loop, found_post, (void *)i), 0);
        sim_short(SIM_read, 1, (size_t)cut);
        found_turns(3, 0, NULL);
        EQUAL(found.ran, 5);
        found_end();
    }
}

/* Nobody there would make sense of what is kept. */
static void a_session_of_a_codec_is_not_adopted_by_a_connection_without(void)
{
    sim_peer *line = found_stream(RT_CODEC, &found_codec, 1000), *other;
    rt_session old = found.s;
    char token[23];

    EQUAL(rt_keep(found.loop, old, 1000, token), 0);
    found_listen("tcp://127.0.0.1:9001", RT_LENGTH, NULL);
    other = sim_connect(9001);
    found_turns(5, 0, NULL);
    CHECK(!rt_same(found.s, old));
    EQUAL(rt_adopt(found.loop, old, found.s, 0), RT_ESTATE);
    EQUAL(rt_adopt(found.loop, old, found.s, RT_UNCOUNTED), RT_ESTATE);
    EQUAL(rt_state(found.loop, found.s), RT_OPEN);
    sim_peer_close(line);
    sim_peer_close(other);
    found_end();
}

static void the_request_of_one_who_tries_again_is_not_the_hosts(void)
{
    rt_listen_opts o = {.on = {.open = NULL}, .resume_ms = 60000};
    rt_dial_opts d = {.on = {.open = found_open}, .resume = 1};
    int i;

    found_begin();
    CHECK(rt_listen(found.loop, "ws://127.0.0.1:9000", &o).id);
    found.client = rt_dial(found.loop, "ws://127.0.0.1:9000/", &d);
    found_turns(20, 2, NULL);
    CHECK(rt_same(found.s, found.client));
    CHECK(!rt_request_of(found.loop, found.client));
    EQUAL(rt_drop(found.loop, found.client, 4000, NULL), 0);
    for (i = 0; i < 200 && rt_state(found.loop, found.s) == RT_AWAY; i++) {
        found.known += rt_request_of(found.loop, found.client) != NULL;
        found_turns(1, 20, NULL);
    }
    EQUAL(rt_state(found.loop, found.client), RT_OPEN);
    EQUAL(found.known, 0);
    found_end();
}

/* It has no connection yet that could be put under another session. */
static void one_who_tries_again_is_not_adopted(void)
{
    rt_listen_opts o = {.on = {.open = found_open}, .resume_ms = 60000};
    rt_dial_opts d = {.on = {.open = found_open}, .resume = 1};
    rt_session old;
    ws_peer *ws;
    char token[23];
    int i;

    found_begin();
    CHECK(rt_listen(found.loop, "ws://127.0.0.1:9000", &o).id);
    ws = ws_connect(9000, "/");
    found_turns(9, 0, ws);
    old = found.s;
    EQUAL(rt_keep(found.loop, old, 60000, token), 0);
    found.client = rt_dial(found.loop, "ws://127.0.0.1:9000/", &d);
    found_turns(20, 2, ws);
    EQUAL(rt_drop(found.loop, found.client, 4000, NULL), 0);
    for (i = 0; i < 200 && rt_state(found.loop, found.client) == RT_AWAY; i++) {
        CHECK(rt_adopt(found.loop, old, found.client, 0) < 0);
        found_turns(1, 20, ws);
    }
    EQUAL(rt_state(found.loop, found.client), RT_OPEN);
    ws_free(ws);
    found_end();
}

static void found_away(rt_loop *loop, rt_session s)
{
    found.aways++;
    EQUAL(rt_drop(loop, s, 4000, NULL), 0);
}

static void found_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop;
    (void)s;
    (void)lost;
    found.backs++;
}

/* A connection of the listener with a handler for both. */
static sim_peer *found_comes(void)
{
    sim_peer *line = sim_connect(9000);

    found_turns(5, 0, NULL);
    return line;
}

/* on_away found it back, and dropped it: it never came back. */
static void one_dropped_in_its_on_away_is_told_away_once(void)
{
    rt_listen_opts o = {
        .on = {.open = found_open, .away = found_away, .back = found_back},
        .framing = RT_RAW};
    sim_peer *line[3];
    char token[23];
    rt_session old;
    int i;

    found_begin();
    CHECK(rt_listen(found.loop, "tcp://127.0.0.1:9000", &o).id);
    line[0] = found_comes();
    old = found.s;
    EQUAL(rt_keep(found.loop, old, 60000, token), 0);
    line[1] = found_comes();
    EQUAL(rt_adopt(found.loop, old, found.s, 0), 0);
    found_turns(5, 0, NULL);
    EQUAL(found.aways, 1);
    EQUAL(found.backs, 0);
    EQUAL(rt_state(found.loop, old), RT_AWAY);
    line[2] = found_comes();
    EQUAL(rt_adopt(found.loop, old, found.s, 0), 0);
    found_turns(5, 0, NULL);
    EQUAL(found.aways, 1);
    EQUAL(found.backs, 1);
    for (i = 0; i < 3; i++)
        sim_peer_close(line[i]);
    found_end();
}

static void found_run(void)
{
    RUN(one_dropped_in_its_on_away_is_told_away_once);
    RUN(a_codec_on_a_websocket_beats_and_leaves_in_frames);
    RUN(a_dialled_codec_beats_and_leaves_in_masked_frames);
    RUN(the_rest_of_a_loose_raw_message_counts_for_none);
    RUN(a_kept_raw_session_outlives_a_loose_message_in_parts);
    RUN(a_beat_of_a_codec_counts_for_no_message);
    RUN(a_message_behind_a_beat_that_waits_counts);
    RUN(posts_outlive_a_read_that_ends_inside_one);
    RUN(a_session_of_a_codec_is_not_adopted_by_a_connection_without);
    RUN(the_request_of_one_who_tries_again_is_not_the_hosts);
    RUN(one_who_tries_again_is_not_adopted);
}

#endif
