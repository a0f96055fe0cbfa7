/*
 * Hosts with a protocol of their own: rt_keep, rt_find_token, rt_acked and
 * rt_adopt, over a codec's packets, raw bytes and plain messages.
 */
#ifndef RESUME_HOST_H
#define RESUME_HOST_H

#include "resume_hard.h"

/* How the host's messages stand on the wire. */
enum { CODEC_TCP, CODEC_WS, RAW, PLAIN_TCP, PLAIN_WS, HOSTS };
static const char *const host_names[HOSTS] = {
    "codec over tcp", "codec over ws", "raw bytes", "lengths", "plain ws"};

static struct {
    int flavour;
    int adopted; /* what rt_adopt returned last */
    char token[23];
    char said[256]; /* what the peer heard */
} host;

/* ---- the codec: a kind, three bytes of length, the message --------------- */

static ptrdiff_t packet_decode(void *ctx, const uint8_t *in, size_t n,
                               size_t *at, size_t *len, int *kind)
{
    (void)ctx;
    if (n >= 1 && (in[0] < 1 || in[0] > 5))
        return -1;
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

static size_t packet_beat(void *ctx, uint8_t out[64])
{
    return packet_head(ctx, out, 3, 0);
}

static size_t packet_bye(void *ctx, uint8_t out[256], int code,
                         const char *reason)
{
    size_t n = strlen(reason);
    (void)code;
    memcpy(out + packet_head(ctx, out, 5, n), reason, n);
    return 4 + n;
}

static const rt_codec packets = {packet_decode, packet_head, packet_beat,
                                 packet_bye, NULL};

/* ---- the host ------------------------------------------------------------ */

/* "RTOKEN N" asks to go on with that session, of which N messages came; "RTOKEN
   -" cannot tell.  All else is told. */
static void host_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    char text[128], token[23];
    (void)kind;
    snprintf(text, sizeof text, "%.*s", (int)len, (const char *)data);
    if (text[0] != 'R' || strlen(text) < 25) {
        tell(s, "m%s", text);
        act("message", s);
        return;
    }
    memcpy(token, text + 1, 22);
    token[22] = 0;
    host.adopted =
        rt_adopt(loop, rt_find_token(loop, token), s,
                 text[24] == '-' ? RT_UNCOUNTED : (uint64_t)atoi(text + 24));
}

static void host_stage(void)
{
    int codec = host.flavour <= CODEC_WS;
    st.wire = host.flavour == CODEC_WS || host.flavour == PLAIN_WS ? WS : TCP;
    st.opts.on.message = host_message;
    st.opts.codec = codec ? &packets : NULL;
    st.opts.resume_ms = 0;
    st.opts.framing = host.flavour == RAW         ? RT_RAW
                      : host.flavour == CODEC_TCP ? RT_CODEC
                                                  : RT_LENGTH;
    st.loop = rt_loop_new(&st.loop_opts);
    st.listener = rt_listen(
        st.loop, st.wire == TCP ? "tcp://127.0.0.1:0" : "ws://127.0.0.1:0",
        &st.opts);
    CHECK(st.listener.id != 0);
    st.port = rt_listener_port(st.loop, st.listener);
}

/* ---- its peer ------------------------------------------------------------ */

static void host_line(line *l)
{
    CHECK(line_connect(l, st.wire, st.port));
    if (st.wire == WS)
        CHECK(peer_upgrade(&l->p, "/"));
    calm();
}

static void host_say(line *l, const char *text)
{
    uint8_t out[256];
    size_t n = strlen(text), head = packet_head(NULL, out, 1, n);
    memcpy(out + head, text, n);
    if (host.flavour == CODEC_TCP)
        peer_put(&l->p, out, head + n);
    else if (host.flavour == CODEC_WS)
        line_frame(l, 2, out, head + n);
    else if (host.flavour == RAW)
        peer_say(&l->p, text);
    else
        line_frame(l, 1, text, n);
}

/* Takes one message off; 0 when there is none. */
static int host_next(line *l, const char **text, size_t *n)
{
    peer *p = &l->p;
    if (st.wire == WS) {
        if (!line_ws_next(l))
            return 0;
        *text = l->msg + (host.flavour == CODEC_WS ? 4 : 0);
        *n = l->len - (host.flavour == CODEC_WS ? 4 : 0);
        if (l->msg[0] == 'c' || l->msg[0] == 'p')
            *n = 0; /* a close, or a ping */
        return 1;
    }
    if (host.flavour == RAW) {
        *text = (const char *)p->in + p->at;
        *n = p->len - p->at;
        p->at = p->len;
        return *n > 0;
    }
    if (p->len - p->at < 4)
        return 0;
    *n = (size_t)peer_number(p->in + p->at + 1, 3); /* behind a kind, or a 0 */
    *text = (const char *)p->in + p->at + 4;
    if (p->len - p->at < 4 + *n)
        return 0;
    p->at += 4 + *n;
    return 1;
}

/* All that comes, one behind the other. */
static const char *host_hear(line *l, const char *want)
{
    uint64_t end = peer_clock() + PEER_WAIT;
    const char *text;
    size_t n, used = 0;
    host.said[0] = 0;
    do {
        calm();
        while (peer_take(&l->p))
            ;
        while (host_next(l, &text, &n))
            used += (size_t)snprintf(host.said + used, sizeof host.said - used,
                                     "%.*s", (int)n, text);
    } while (used < strlen(want) && !l->p.gone && peer_clock() < end);
    return host.said;
}

#define HOST_HEARS(l, want)                                                    \
    same_text(host_hear(l, want), want, __FILE__, __LINE__, #l)

/* The first session is kept; its peer has "hi". */
static void host_keep(int window)
{
    host_stage();
    host_line(&st.a);
    TOLD("open");
    EQUAL(rt_keep(st.loop, st.s[1], window, host.token), 0);
    CHECK(token_valid(host.token));
    token_given(host.token);
    EQUAL(send_text(1, "hi"), 0);
    HOST_HEARS(&st.a, "hi");
}

static void host_lose(void)
{
    host_keep(2000);
    line_cut(&st.a);
    TOLD("away");
}

/* A fresh connection asks for the first session. */
static void host_return(line *l, const char *token, const char *has)
{
    char text[64];
    snprintf(text, sizeof text, "R%s %s", token, has);
    host.adopted = 1;
    host_line(l);
    host_say(l, text);
    calm();
}

/* ---- cases --------------------------------------------------------------- */

static void a_kept_session_is_adopted(void)
{
    host_lose();
    EQUAL(send_text(1, "one"), 0);
    EQUAL(send_text(1, "two"), 0);
    host_return(&st.b, host.token, "1");
    EQUAL(host.adopted, 0);
    TOLD("2.open back:0 2.close:1000:0");
    EQUAL(st.end.cause, RT_BY_ADOPT);
    HOST_HEARS(&st.b, "onetwo");
    EQUAL(rt_state(st.loop, st.s[2]), RT_EGONE);
    EQUAL(send_text(1, "three"), 0);
    HOST_HEARS(&st.b, "three");
    host_say(&st.b, "yes");
    TOLD("myes");
}

static void what_the_peer_lacks_is_sent_again(void)
{
    host_lose();
    EQUAL(send_text(1, "one"), 0);
    host_return(&st.b, host.token, "0");
    HOST_HEARS(&st.b, "hione");
    EQUAL(rt_acked(st.loop, st.s[1], 2), 0);
    line_cut(&st.b);
    calm();
    script_clear(&st.told);
    EQUAL(send_text(1, "three"), 0);
    host_return(&st.c, host.token, "2");
    EQUAL(host.adopted, 0);
    HOST_HEARS(&st.c, "three");
}

static void what_was_acknowledged_is_not_kept(void)
{
    host_keep(2000);
    EQUAL(rt_acked(st.loop, st.s[1], 2), RT_EINVAL);
    EQUAL(rt_acked(st.loop, st.s[1], 1), 0);
    EQUAL(rt_acked(st.loop, st.s[1], 0), 0); /* late, no matter */
    EQUAL(send_text(1, "x"), 0);
    HOST_HEARS(&st.a, "x");
    line_cut(&st.a);
    TOLD("away");
    host_return(&st.b, host.token, "0");
    EQUAL(host.adopted, 0);
    TOLD("2.open back:2 2.close:1000:0"); /* the first is forgotten: a gap */
    HOST_HEARS(&st.b, "");
    EQUAL(send_text(1, "on"), 0);
    HOST_HEARS(&st.b, "on");
}

static void a_peer_that_cannot_count_gets_a_gap(void)
{
    host_lose();
    EQUAL(send_text(1, "one"), 0);
    host_return(&st.b, host.token, "-");
    EQUAL(host.adopted, 0);
    TOLD("2.open back:2 2.close:1000:0");
    HOST_HEARS(&st.b, "");
    host_say(&st.b, "yes");
    TOLD("myes");
}

static void a_peer_that_lies_is_not_adopted(void)
{
    host_lose();
    EQUAL(send_text(1, "one"), 0);
    host_return(&st.b, host.token, "2");
    EQUAL(host.adopted, RT_EINVAL);
    TOLD("2.open");
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    host_return(&st.c, host.token, "1");
    EQUAL(host.adopted, 0);
    HOST_HEARS(&st.c, "one");
}

static void adoption_takes_over(void)
{
    host_keep(2000);
    host_return(&st.b, host.token, "1");
    EQUAL(host.adopted, 0);
    TOLD("2.open away back:0 2.close:1000:0");
    host_say(&st.a, "late");
    TOLD("");
    CHECK(peer_ended(&st.a.p));
    EQUAL(send_text(1, "x"), 0);
    HOST_HEARS(&st.b, "x");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

/* Both in one read: what follows belongs to the old session. */
static void what_follows_the_adoption_is_the_old_ones(void)
{
    char text[64];
    if (host.flavour == RAW)
        return; /* it has no messages that could follow */
    host_lose();
    host_line(&st.b);
    snprintf(text, sizeof text, "R%s 1", host.token);
    host_say(&st.b, text);
    host_say(&st.b, "next");
    told_all("2.open back:0 mnext 2.close:1000:0");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
    host_say(&st.b, "more");
    TOLD("mmore");
}

static void adoption_refuses(void)
{
    rt_session none = {0};
    host_keep(2000);
    host_line(&st.b);
    TOLD("2.open");
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[1], 0), RT_EINVAL);
    EQUAL(rt_adopt(st.loop, none, st.s[2], 0), RT_EGONE);
    EQUAL(rt_adopt(st.loop, st.s[1], none, 0), RT_EGONE);
    EQUAL(rt_adopt(st.loop, st.s[2], st.s[1], 0), RT_ESTATE);
    EQUAL(rt_acked(st.loop, st.s[2], 0), RT_ESTATE);
    EQUAL(rt_close(st.loop, st.s[1], 3999, NULL), 0);
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[2], 0), RT_EGONE);
    EQUAL(rt_acked(st.loop, st.s[1], 0), RT_EGONE);
    EQUAL(rt_keep(st.loop, st.s[1], 1, host.token), RT_EGONE);
    TOLD("close:3999:1");
}

static void tokens_are_found_whole(void)
{
    char token[23], again[23];
    int i;
    host_keep(2000);
    memcpy(token, host.token, 23);
    CHECK(rt_same(rt_find_token(st.loop, token), st.s[1]));
    EQUAL(rt_find_token(st.loop, "").id, 0);
    EQUAL(rt_find_token(st.loop, "-").id, 0);
    for (i = 0; i < 22; i++) {
        token[i] = token[i] == 'A' ? 'Q' : 'A';
        EQUAL(rt_find_token(st.loop, token).id, 0);
        token[i] = 0;
        EQUAL(rt_find_token(st.loop, token).id, 0);
        token[i] = host.token[i];
    }
    EQUAL(rt_keep(st.loop, st.s[1], 2000, again), 0);
    CHECK(strcmp(again, token) != 0);
    CHECK(rt_same(rt_find_token(st.loop, again), st.s[1]));
    EQUAL(rt_find_token(st.loop, token).id, 0); /* a newer one voids it */
    EQUAL(rt_close(st.loop, st.s[1], 0, NULL), 0);
    EQUAL(rt_find_token(st.loop, again).id, 0); /* at once */
    TOLD("close:1000:1");
}

static void a_kept_session_ends_with_its_window(void)
{
    host_lose();
    EQUAL(send_text(1, "x"), 0);
    skip(1900);
    TOLD_NOW("");
    CHECK(rt_same(rt_find_token(st.loop, host.token), st.s[1]));
    skip(101);
    TOLD_NOW("close:4503:2");
    EQUAL(st.end.cause, RT_BY_TIMEOUT);
    EQUAL(rt_find_token(st.loop, host.token).id, 0);
}

static void without_rt_keep_it_ends_with_its_line(void)
{
    host_stage();
    host_line(&st.a);
    TOLD("open");
    line_cut(&st.a);
    TOLD("close:1006:0");
}

static void no_random_bytes_no_token(void)
{
    host_stage();
    host_line(&st.a);
    TOLD("open");
    st.no_random = 1;
    EQUAL(rt_keep(st.loop, st.s[1], 2000, host.token), RT_ERANDOM);
    SAME(host.token, "");
    EQUAL(rt_keep(st.loop, st.s[1], 0, host.token), RT_EINVAL);
    EQUAL(rt_keep(st.loop, st.s[1], -1, host.token), RT_EINVAL);
    line_cut(&st.a);
    TOLD("close:1006:0");
}

/* A session that rt_keep had no memory for ends with its line, and its messages
   are not kept, so none is lost that the system took. */
static void rt_keep_without_memory_changes_nothing(void)
{
    int n, took = RT_ENOMEM, failures = 0;
    st.loop_opts.realloc = failing_realloc;
    host_stage();
    host_line(&st.a);
    TOLD("open");
    for (n = 1; took != 0 && n < 20; n++, failures++) {
        fail_at = n;
        took = rt_keep(st.loop, st.s[1], 2000, host.token);
        fail_at = 0;
        EQUAL(rt_acked(st.loop, st.s[1], 0), took ? RT_ESTATE : 0);
        CHECK(took == 0 || took == RT_ENOMEM);
        CHECK((host.token[0] != 0) == (took == 0));
    }
    CHECK(failures > 3);
    token_given(host.token);
    host_line(&st.b);
    TOLD("2.open");
    fail_at = 3;
    EQUAL(rt_keep(st.loop, st.s[2], 2000, host.token), RT_ENOMEM);
    EQUAL(send_text(2, "hi"), 0);
    HOST_HEARS(&st.b, "hi");
    line_cut(&st.b);
    TOLD("2.close:1006:0");
}

/* While on_open runs the handshake is still there, and goes with it, whoever
   has the connection then. */
static void adopts_it(const char *what, rt_session s)
{
    uint32_t rtt;
    if (strcmp(what, "open") != 0)
        return;
    EQUAL(rt_rtt(st.loop, s, &rtt, NULL), RT_ESTATE);
    host.adopted = rt_adopt(st.loop, rt_find_token(st.loop, host.token), s, 1);
    EQUAL(rt_rtt(st.loop, st.s[1], &rtt, NULL), RT_ESTATE);
    EQUAL(rt_rtt(st.loop, s, &rtt, NULL), RT_ESTATE);
}

static void adopted_in_on_open(void)
{
    uint32_t rtt;
    host_lose();
    EQUAL(send_text(1, "one"), 0);
    host.adopted = 1;
    st.deed = adopts_it;
    host_line(&st.b);
    EQUAL(host.adopted, 0);
    TOLD("2.open back:0 2.close:1000:0");
    HOST_HEARS(&st.b, "one");
    EQUAL(rt_rtt(st.loop, st.s[1], &rtt, NULL), RT_ESTATE);
    CHECK(!rt_request_of(st.loop, st.s[1]));
    st.deed = NULL;
    line_cut(&st.b);
    TOLD("away");
    host_return(&st.c, host.token, "2");
    EQUAL(host.adopted, 0);
    TOLD("3.open back:0 3.close:1000:0");
}

/* The fresh one was paused; that its connection be read again cannot be asked
   for. */
static void adopted_without_events_it_is_away(void)
{
    st.opts.message_rate = 1;
    st.opts.rate_over = RT_OVER_PAUSE;
    host_lose();
    EQUAL(send_text(1, "one"), 0);
    host_line(&st.b);
    host_say(&st.b, "x");
    TOLD("2.open 2.mx");
    host_say(&st.b, "y");
    calm();
    watch_no_more();
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[2], 1), 0);
    watch_again();
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    TOLD("2.close:1000:0");
    line_free(&st.b);
    skip(1001); /* for the message that asks */
    host_return(&st.c, host.token, "1");
    EQUAL(host.adopted, 0);
    HOST_HEARS(&st.c, "one");
    calm();
    script_clear(&st.told);
}

/* Three lines, one session: it goes on in the block it began in, and each of
   the other two begin and end with their lines. */
static void adopted_again_and_again(void)
{
    line *lines[2];
    char want[64];
    int i;
    lines[0] = &st.b;
    lines[1] = &st.c;
    host_keep(2000);
    for (i = 0; i < 4; i++) {
        host_return(lines[i % 2], host.token, "1");
        EQUAL(host.adopted, 0);
        snprintf(want, sizeof want, "%d.open away back:0 %d.close:1000:0",
                 i + 2, i + 2);
        TOLD(want);
        line_free(i ? lines[(i + 1) % 2] : &st.a);
        calm();
    }
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
    EQUAL(rt_close(st.loop, st.s[1], 0, NULL), 0);
    TOLD("close:1000:0");
}

static void rt_drop_makes_a_kept_one_away(void)
{
    host_keep(2000);
    EQUAL(rt_drop(st.loop, st.s[1], 4000, NULL), 0);
    TOLD("away");
    host_return(&st.b, host.token, "1");
    EQUAL(host.adopted, 0);
    TOLD("2.open back:0 2.close:1000:0");
}

/* Without rtnet.1 a close of the peer's is no loss of the line. */
static void a_kept_session_ends_with_1000(void)
{
    if (host.flavour != CODEC_WS && host.flavour != PLAIN_WS)
        return;
    host_keep(2000);
    say(&st.a, "c1000");
    TOLD("close:1000:1");
}

/* ---- the codec itself ---------------------------------------------------- */

static void packets_may_be_split_anywhere(void)
{
    static const uint8_t two[] = {4, 0, 0, 3, 'o', 'n', 'e', 2,
                                  0, 0, 0, 1, 0,   0,   1,   'x'};
    size_t i;
    if (host.flavour != CODEC_TCP)
        return;
    host_stage();
    host_line(&st.a);
    TOLD("open");
    for (i = 0; i <= sizeof two; i++) {
        peer_put(&st.a.p, two, i);
        calm();
        peer_put(&st.a.p, two + i, sizeof two - i);
        TOLD("mone m mx");
    }
    for (i = 0; i < sizeof two; i++) {
        peer_put(&st.a.p, two + i, 1);
        calm();
    }
    TOLD("mone m mx");
}

static void garbage_ends_it(void)
{
    static const uint8_t garbage[] = {9, 0, 0, 1, 'x'};
    if (host.flavour > CODEC_WS)
        return;
    host_keep(2000);
    line_frame(&st.a, 2, garbage, sizeof garbage);
    if (host.flavour == CODEC_TCP) /* as it is: its length is no packet */
        peer_put(&st.a.p, garbage, sizeof garbage);
    TOLD("close:1002:1");
    EQUAL(rt_find_token(st.loop, host.token).id, 0);
}

static void a_frame_is_one_packet(void)
{
    static const uint8_t half[] = {4, 0, 0, 3, 'o', 'n'};
    static const uint8_t two[] = {4, 0, 0, 0, 4, 0, 0, 0};
    if (host.flavour != CODEC_WS)
        return;
    host_stage();
    host_line(&st.a);
    host_line(&st.b);
    TOLD("open 2.open");
    line_frame(&st.a, 2, half, sizeof half);
    TOLD("close:1002:0");
    line_frame(&st.b, 2, two, sizeof two);
    TOLD("2.close:1002:0");
}

static void a_packet_has_a_greatest_size(void)
{
    static const uint8_t large[] = {4, 0, 1, 0};
    static const uint8_t fits[] = {4, 0, 0, 3, 'o', 'n', 'e'};
    static const uint8_t over[] = {4, 0, 0, 4, 'f', 'o', 'u', 'r'};
    if (host.flavour != CODEC_TCP)
        return;
    st.opts.max_message = 3;
    host_stage();
    host_line(&st.a);
    host_line(&st.b);
    TOLD("open 2.open");
    peer_put(&st.a.p, large, sizeof large); /* known before it has come */
    TOLD("close:1009:0");
    peer_put(&st.b.p, fits, sizeof fits);
    TOLD("2.mone");
    peer_put(&st.b.p, over, sizeof over);
    TOLD("2.close:1009:0");
}

static void a_codec_has_kinds_and_a_farewell(void)
{
    static const uint8_t bytes[] = {4, 0, 0, 1, 'x', 5, 0, 0, 3, 'o', 'u', 't'};
    if (host.flavour != CODEC_TCP)
        return;
    host_stage();
    host_line(&st.a);
    TOLD("open");
    EQUAL(send_kind(4, "x"), 0);
    EQUAL(rt_close(st.loop, st.s[1], 4000, "out"), 0);
    TOLD("close:4000:0");
    CHECK(peer_fill(&st.a.p, sizeof bytes));
    EQUAL(st.a.p.len - st.a.p.at, sizeof bytes);
    CHECK(memcmp(st.a.p.in + st.a.p.at, bytes, sizeof bytes) == 0);
    CHECK(peer_ended(&st.a.p));
}

static void a_codec_has_a_heartbeat(void)
{
    static const uint8_t beat[] = {3, 0, 0, 0};
    if (host.flavour != CODEC_TCP)
        return;
    st.opts.ping_ms = 1000;
    host_stage();
    host_line(&st.a);
    TOLD("open");
    skip(1001);
    CHECK(peer_fill(&st.a.p, 4));
    CHECK(memcmp(st.a.p.in + st.a.p.at, beat, 4) == 0);
    TOLD("");
}

/* Hosts keep what rtnet.1 does not keep already. */
static void rtnet1_keeps_itself(void)
{
    char token[23];
    stage();
    open_first();
    EQUAL(rt_keep(st.loop, st.s[1], 1000, token), RT_ESTATE);
    EQUAL(rt_acked(st.loop, st.s[1], 0), RT_ESTATE);
}

static void host_case(void (*test)(void), int backend)
{
    stage_begin(backend, TCP);
    test();
    if (!st.loop) /* not about this one */
        st.loop = rt_loop_new(&st.loop_opts);
    stage_end();
}

static void host_run(const char *name, void (*test)(void))
{
    size_t i;
    for (i = 0; i < sizeof peer_backends / sizeof *peer_backends; i++)
        for (host.flavour = 0; host.flavour < HOSTS; host.flavour++) {
            test_begin("%s, %s, %s", name, host_names[host.flavour],
                       peer_backends[i].name);
            if (!test_lacks)
                host_case(test, peer_backends[i].which);
            test_end();
        }
}

#define RUN_HOSTS(name) host_run(#name, name)

static void host_cases(void)
{
    RUN_HOSTS(a_kept_session_is_adopted);
    RUN_HOSTS(what_the_peer_lacks_is_sent_again);
    RUN_HOSTS(what_was_acknowledged_is_not_kept);
    RUN_HOSTS(a_peer_that_cannot_count_gets_a_gap);
    RUN_HOSTS(a_peer_that_lies_is_not_adopted);
    RUN_HOSTS(adoption_takes_over);
    RUN_HOSTS(what_follows_the_adoption_is_the_old_ones);
    RUN_HOSTS(adoption_refuses);
    RUN_HOSTS(tokens_are_found_whole);
    RUN_HOSTS(a_kept_session_ends_with_its_window);
    RUN_HOSTS(without_rt_keep_it_ends_with_its_line);
    RUN_HOSTS(no_random_bytes_no_token);
    RUN_HOSTS(rt_keep_without_memory_changes_nothing);
    RUN_HOSTS(adopted_in_on_open);
    RUN_HOSTS(adopted_without_events_it_is_away);
    RUN_HOSTS(adopted_again_and_again);
    RUN_HOSTS(rt_drop_makes_a_kept_one_away);
    RUN_HOSTS(a_kept_session_ends_with_1000);
    RUN_HOSTS(packets_may_be_split_anywhere);
    RUN_HOSTS(garbage_ends_it);
    RUN_HOSTS(a_frame_is_one_packet);
    RUN_HOSTS(a_packet_has_a_greatest_size);
    RUN_HOSTS(a_codec_has_kinds_and_a_farewell);
    RUN_HOSTS(a_codec_has_a_heartbeat);
    RUN_WIRES(rtnet1_keeps_itself);
}

#endif
