/*
 * What is asked for seldom: options and arguments at their bounds, requests
 * that are nearly right, calls in an unusual order or state.  Each case is a
 * world of its own on the simulated kernel, once with each backend.
 */
#include "rtnet_internal.h"
#include "args.h"
#include "backends.h"
#include "sim.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PORT = 9000 };

/* More than a descriptor can be; negative where an intptr_t cannot hold it. */
#define NO_FD ((rt_fd)(uint32_t)INT32_MIN)

/* The host of a world. */
static struct {
    rt_loop *loop;
    int backend;
    char log[256]; /* the last line of it */
    char got[256]; /* what came, one message behind the other */
    rt_session last;
    int opens, closes, limits;
    rt_end end;
    int request_calls, answer;
    int accepted;
    rt_accept_opts accept;
} host;

static void on_log(void *user, int level, const char *text)
{
    (void)user;
    (void)level;
    snprintf(host.log, sizeof host.log, "%s", text);
}

static int on_request(rt_loop *l, rt_session s, const rt_request *r)
{
    (void)r;
    host.last = s;
    host.request_calls++;
    if (host.accept.uid || host.accept.protocol || host.accept.headers)
        host.accepted = rt_accept(l, s, &host.accept);
    return host.answer;
}

static void on_open(rt_loop *l, rt_session s)
{
    (void)l;
    host.opens++;
    host.last = s;
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    size_t n = strlen(host.got);

    (void)l;
    (void)s;
    (void)kind;
    snprintf(host.got + n, sizeof host.got - n, "%.*s|", (int)len,
             (const char *)data);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *end)
{
    (void)l;
    (void)s;
    host.closes++;
    host.end = *end;
    host.end.reason = NULL;
}

static const rt_handler handler = {.request = on_request,
                                   .open = on_open,
                                   .message = on_message,
                                   .close = on_close};

static void world_with(const rt_loop_opts *opts, const sim_opts *kernel)
{
    rt_loop_opts o = {0};
    int backend = host.backend;

    if (opts)
        o = *opts;
    memset(&host, 0, sizeof host);
    host.backend = o.backend = backend;
    if (!o.realloc)
        o.realloc = sim_realloc;
    o.log = on_log;
    sim_start(kernel);
    host.loop = rt_loop_new(&o);
    CHECK(host.loop != NULL);
}

static void world(void)
{
    world_with(NULL, NULL);
}

static void world_end(void)
{
    rt_loop_free(host.loop);
    EQUAL(sim_end(), 0);
    if (sim_faults())
        printf("%s: %s\n", test_name, sim_fault_text());
}

static rt_listener listen_on(const char *url, const rt_listen_opts *opts)
{
    rt_listen_opts o = {0};

    if (opts)
        o = *opts;
    o.on = handler;
    return rt_listen(host.loop, url, &o);
}

static rt_listener serve(const rt_listen_opts *opts)
{
    rt_listener l = listen_on("ws://127.0.0.1:9000", opts);

    CHECK(l.id != 0);
    return l;
}

/* So many turns, none of which waits. */
static void turns(int n)
{
    while (n-- > 0)
        rt_poll(host.loop, 0);
}

/* Turns until so much time has gone by. */
static void pass(uint64_t ms)
{
    uint64_t end = sim_now() + ms;
    int n = 0; /* of turns, in most of which time goes by */

    while (sim_now() < end && n++ < 100000)
        rt_poll(host.loop, (int)(end - sim_now()));
    CHECK(sim_now() >= end);
}

/* Why the last handle was {0}. */
static const char *why(int *error)
{
    const char *text = "";

    *error = rt_error(host.loop, &text);
    return text;
}

/* ---- options ------------------------------------------------------------ */

static void refuses_to_listen(const char *url, rt_listen_opts o,
                              const char *text)
{
    int error;

    EQUAL(listen_on(url, &o).id, 0);
    CHECK(strstr(why(&error), text) != NULL);
    EQUAL(error, RT_EINVAL);
}

static ptrdiff_t any_decode(void *ctx, const uint8_t *in, size_t n, size_t *at,
                            size_t *len, int *kind)
{
    (void)ctx;
    (void)in;
    (void)n;
    (void)at;
    (void)len;
    (void)kind;
    return 0;
}

static size_t any_head(void *ctx, uint8_t out[16], int kind, size_t len)
{
    (void)ctx;
    (void)out;
    (void)kind;
    (void)len;
    return 0;
}

static void a_framing_that_cannot_be_is_refused(void)
{
    const rt_codec headless = {.decode = any_decode}, mute = {.head = any_head};
    const char *tcp = "tcp://127.0.0.1:0", *ws = "ws://127.0.0.1:0";

    world();
    refuses_to_listen(tcp, (rt_listen_opts){.framing = -1}, "framing");
    refuses_to_listen(tcp, (rt_listen_opts){.framing = RT_CODEC + 1},
                      "framing");
    refuses_to_listen(tcp, (rt_listen_opts){.framing = RT_CODEC}, "codec");
    refuses_to_listen(tcp, (rt_listen_opts){.codec = &headless}, "codec");
    refuses_to_listen(tcp, (rt_listen_opts){.codec = &mute}, "codec");
    refuses_to_listen(ws, (rt_listen_opts){.framing = RT_RTNET1}, "tcp");
    refuses_to_listen(ws, (rt_listen_opts){.framing = RT_RAW}, "tcp");
    world_end();
}

static void what_a_listener_cannot_keep_is_refused(void)
{
    const char *ws = "ws://127.0.0.1:0";

    world();
    refuses_to_listen(ws, (rt_listen_opts){.soft_mark = 10, .hard_mark = 9},
                      "soft mark");
    refuses_to_listen(ws, (rt_listen_opts){.rate_over = -1}, "rate_over");
    refuses_to_listen(ws, (rt_listen_opts){.rate_over = RT_OVER_CLOSE + 1},
                      "rate_over");
    refuses_to_listen(ws, (rt_listen_opts){.fd = NO_FD}, "fd");
    refuses_to_listen("ws://127.0.0.1:0/game", (rt_listen_opts){0}, "path");
    CHECK(listen_on("ws://127.0.0.1:0/", NULL).id != 0);
    CHECK(listen_on(ws, &(rt_listen_opts){.soft_mark = 9, .hard_mark = 9}).id);
    CHECK(listen_on(ws, &(rt_listen_opts){.soft_mark = 1 << 30}).id != 0);
    world_end();
}

static void refuses_to_dial(const char *url, rt_dial_opts o, const char *text)
{
    int error;

    EQUAL(rt_dial(host.loop, url, &o).id, 0);
    CHECK(strstr(why(&error), text) != NULL);
    EQUAL(error, RT_EINVAL);
}

static void a_dial_that_cannot_be_is_refused(void)
{
    const rt_codec mute = {.head = any_head};
    const rt_codec whole = {.decode = any_decode, .head = any_head};
    const char *tcp = "tcp://127.0.0.1:9", *ws = "ws://127.0.0.1:9";

    world();
    refuses_to_dial(tcp, (rt_dial_opts){.codec = &mute}, "codec");
    refuses_to_dial(ws, (rt_dial_opts){.framing = RT_RAW}, "tcp");
    refuses_to_dial(tcp, (rt_dial_opts){.resume = 1}, "rtnet.1");
    refuses_to_dial(ws, (rt_dial_opts){.resume = 1, .codec = &whole},
                    "rtnet.1");
    world_end();
}

static void a_host_name_has_at_most_255_characters(void)
{
    char name[400], url[500];

    world();
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = 0;
    snprintf(url, sizeof url, "ws://%s:80", name);
    refuses_to_dial(url, (rt_dial_opts){0}, "not an address");
    EQUAL(rt_listen(host.loop, url, NULL).id, 0);
    world_end();
}

static void a_long_head_is_cut_at_60_kib(void)
{
    rt_listen_opts o = {.max_header = 1 << 20};
    rt_listener l;
    sim_peer *p;
    char *head, answer[64] = "";
    const char *end = "\r\n\r\n";
    size_t sent = 0, size = 62 * 1024;

    world();
    l = serve(&o);
    CHECK(rt_listener_port(host.loop, l) == PORT);
    head = (char *)malloc(size);
    memset(head, 'x', size);
    memcpy(head, "GET / HTTP/1.1\r\nHost: a\r\nY: ", 28);
    memcpy(head + size - 4, end, 4);
    p = sim_connect(PORT);
    while (sent < size && sim_peer_state(p) == SIM_UP) {
        ptrdiff_t n = sim_peer_send(p, head + sent, size - sent);
        sent += n > 0 ? (size_t)n : 0;
        turns(2);
    }
    sim_peer_recv(p, answer, sizeof answer - 1);
    CHECK(strncmp(answer, "HTTP/1.1 431", 12) == 0);
    free(head);
    sim_peer_close(p);
    world_end();
}

/* ---- watches, posts, timers --------------------------------------------- */

static void no_event(rt_loop *l, rt_watch w, int events, void *arg)
{
    (void)l;
    (void)w;
    (void)events;
    (void)arg;
}

static void a_watch_survives_that_its_descriptor_is_used_again(void)
{
    int fd[2];
    rt_watch w;
    sim_peer *p;

    world();
    serve(NULL);
    CHECK(pipe2(fd, O_NONBLOCK | O_CLOEXEC) == 0);
    w = rt_watch_start(host.loop, fd[0], RT_READ, no_event, NULL);
    CHECK(w.id != 0);
    close(fd[0]);
    p = sim_connect(PORT); /* it gets the lowest number: that of the pipe */
    turns(2);
    CHECK(strcmp(host.log, "a watched descriptor was closed") == 0);
    EQUAL(rt_watch_set(host.loop, w, RT_WRITE), RT_ESTATE);
    EQUAL(rt_watch_stop(host.loop, w), 0);
    EQUAL(rt_watch_set(host.loop, w, RT_WRITE), RT_EGONE);
    close(fd[1]);
    sim_peer_close(p);
    world_end();
}

static void a_loop_ends_with_a_watch_that_lost_its_descriptor(void)
{
    int fd[2];
    sim_peer *p;

    world();
    serve(NULL);
    CHECK(pipe2(fd, O_NONBLOCK | O_CLOEXEC) == 0);
    CHECK(rt_watch_start(host.loop, fd[0], RT_READ, no_event, NULL).id != 0);
    close(fd[0]);
    p = sim_connect(PORT);
    turns(2);
    close(fd[1]);
    world_end();
    (void)p;
}

static void no_more_than_a_watch_for_each_descriptor(void)
{
    int fd[2], error;
    rt_watch w;

    world();
    CHECK(pipe2(fd, O_NONBLOCK | O_CLOEXEC) == 0);
    EQUAL(rt_watch_start(host.loop, -1, RT_READ, no_event, NULL).id, 0);
    EQUAL(rt_watch_start(host.loop, NO_FD, RT_READ, no_event, NULL).id, 0);
    EQUAL(rt_watch_start(host.loop, fd[0], 4, no_event, NULL).id, 0);
    EQUAL(rt_watch_start(host.loop, fd[0], RT_READ, NULL, NULL).id, 0);
    w = rt_watch_start(host.loop, fd[0], RT_READ, no_event, NULL);
    CHECK(w.id != 0);
    EQUAL(rt_watch_start(host.loop, fd[0], RT_READ, no_event, NULL).id, 0);
    why(&error);
    EQUAL(error, RT_EINVAL);
    EQUAL(rt_watch_set(host.loop, w, 4), RT_EINVAL);
    EQUAL(rt_watch_stop(host.loop, w), 0);
    close(fd[0]);
    close(fd[1]);
    world_end();
}

static void a_stale_listener_has_neither_port_nor_socket(void)
{
    rt_listener l;

    world();
    l = serve(NULL);
    CHECK(rt_listener_fd(host.loop, l) >= 0);
    EQUAL(rt_unlisten(host.loop, l), 0);
    EQUAL(rt_listener_fd(host.loop, l), RT_EGONE);
    EQUAL(rt_listener_port(host.loop, l), RT_EGONE);
    world_end();
}

static void post_nothing(rt_loop *l, void *arg)
{
    (void)l;
    (void)arg;
}

static void a_post_is_written_again_when_interrupted(void)
{
    world();
    sim_fail(SIM_write, 1, EINTR);
    EQUAL(rt_post(host.loop, post_nothing, NULL), 0);
    sim_fail(SIM_write, 1, EPIPE);
    EQUAL(rt_post(host.loop, post_nothing, NULL), RT_ESYS);
    sim_fail(SIM_write, 1, EAGAIN);
    EQUAL(rt_post(host.loop, post_nothing, NULL), RT_EFULL);
    turns(1);
    world_end();
}

static void a_stop_leaves_errno_alone(void)
{
    world();
    sim_fail(SIM_write, 1, EAGAIN); /* the pipe is full of posts */
    errno = 77;
    rt_stop(host.loop);
    EQUAL(errno, 77);
    EQUAL(rt_run(host.loop), 0);
    world_end();
}

/* ---- requests ------------------------------------------------------------ */

/* The status of the answer to a request; 0: none. */
static int status_of(const char *request)
{
    char answer[512] = "";
    sim_peer *p = sim_connect(PORT);

    CHECK(p != NULL);
    if (!p)
        return 0;
    sim_peer_send(p, request, strlen(request));
    turns(4);
    answer[sim_peer_recv(p, answer, sizeof answer - 1)] = 0;
    sim_peer_close(p);
    turns(3);
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : 0;
}

#define GET "GET / HTTP/1.1\r\nHost: a\r\n"
#define UP "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

static void only_what_is_written_in_full_is_a_version(void)
{
    static const char *wrong[] = {"HTTP/.1.1", "HTTP/:.1", "HTTP/1:1",
                                  "HTTP/1./",  "HTTP/1.:", "HTTP/1.1x"};
    char text[128];
    size_t i;

    world();
    serve(NULL);
    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(text, sizeof text, "GET / %s\r\nHost: a\r\n\r\n", wrong[i]);
        EQUAL(status_of(text), 400);
    }
    EQUAL(status_of("GET / HTTP/1.2\r\nHost: a\r\n\r\n"), 505);
    EQUAL(status_of(GET "\r\n"), 404);
    EQUAL(host.request_calls, 1);
    world_end();
}

static void a_host_is_one_and_names_somebody(void)
{
    world();
    serve(NULL);
    EQUAL(status_of("GET / HTTP/1.1\r\nHost:\r\n\r\n"), 400);
    EQUAL(status_of("GET / HTTP/1.1\r\nHost: :80\r\n\r\n"), 400);
    EQUAL(status_of("GET / HTTP/1.1\r\nHost: a%z4\r\n\r\n"), 400);
    EQUAL(status_of("GET / HTTP/1.1\r\nHost: a%4z\r\n\r\n"), 400);
    EQUAL(status_of("GET / HTTP/1.1\r\nHost: a%41\r\n\r\n"), 404);
    EQUAL(status_of("GET / HTTP/1.1\r\n\r\n"), 400);
    EQUAL(status_of("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
    EQUAL(status_of("GET / HTTP/1.0\r\n\r\n"), 404);
    world_end();
}

static void connection_is_a_list_of_words(void)
{
    world();
    serve(NULL);
    EQUAL(status_of(GET UP KEY "Connection: keep-alive\t, Upgrade\r\n\r\n"),
          101);
    EQUAL(status_of(GET UP KEY "Connection: Upgrade\t\r\n\r\n"), 101);
    EQUAL(status_of(GET UP KEY "Connection: Upgrade now\r\n\r\n"), 400);
    EQUAL(status_of(GET UP KEY "Connection: Upgrades\r\n\r\n"), 400);
    world_end();
}

static int status_with_key(const char *key)
{
    char text[512];

    snprintf(text, sizeof text,
             GET UP "Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\n\r\n",
             key);
    return status_of(text);
}

static void a_key_is_16_bytes_in_base64(void)
{
    world();
    serve(NULL);
    EQUAL(status_with_key("ab/+IHNhbXBsZSBub25jZQ=="), 101);
    EQUAL(status_with_key("dGhlIHNhbXBsZSBub25jZQ=a"), 400);
    EQUAL(status_with_key("dGhlIHNhbXBsZSBub25jZQa="), 400);
    EQUAL(status_with_key("dGhl.HNhbXBsZSBub25jZQ=="), 400);
    EQUAL(status_with_key("dGhl{HNhbXBsZSBub25jZQ=="), 400);
    EQUAL(status_with_key("dGhlIHNhbXBsZSBub25jZR=="), 400);
    world_end();
}

static int status_from(const char *origin)
{
    char text[512];

    snprintf(text, sizeof text,
             GET UP KEY "Connection: Upgrade\r\nOrigin: %s\r\n\r\n", origin);
    return status_of(text);
}

static void a_listed_origin_is_compared_whole(void)
{
    rt_listen_opts o = {.origins = "* http://b"};

    world();
    serve(&o);
    EQUAL(status_from("http://c"), 101);
    world_end();
    o.origins = "x http://b";
    world();
    serve(&o);
    EQUAL(status_from("http://b"), 101);
    EQUAL(status_from("http://B"), 101);
    EQUAL(status_from("http://c"), 403);
    EQUAL(status_from("*"), 403);
    world_end();
    world();
    serve(NULL);
    EQUAL(status_from("http://"), 403);
    EQUAL(status_from("http://a:80"), 101);
    EQUAL(status_from("https://a:80"), 403);
    EQUAL(status_of("GET / HTTP/1.0\r\nOrigin: http://a\r\n\r\n"), 404);
    world_end();
}

static void accepting_rtnet_1_needs_sessions_that_resume(void)
{
    world();
    serve(NULL);
    host.accept.protocol = "rtnet.1";
    host.answer = 418;
    EQUAL(status_of(GET UP KEY "Connection: Upgrade\r\n"
                               "Sec-WebSocket-Protocol: rtnet.1\r\n\r\n"),
          418);
    EQUAL(host.accepted, RT_EINVAL);
    world_end();
}

static void what_on_request_returns_beyond_its_range_is_500(void)
{
    world();
    serve(NULL);
    host.answer = 399;
    EQUAL(status_of(GET "\r\n"), 500);
    host.answer = 600;
    EQUAL(status_of(GET "\r\n"), 500);
    host.answer = 599;
    EQUAL(status_of(GET "\r\n"), 599);
    world_end();
}

static const char *reply_type;
static const void *reply_body;
static size_t reply_len;
static int reply_status, reply_result;

static int on_request_reply(rt_loop *l, rt_session s, const rt_request *r)
{
    (void)r;
    reply_result =
        rt_reply(l, s, reply_status, reply_type, reply_body, reply_len);
    return 404;
}

/* What the peer reads of such an answer. */
static const char *replied(int status, const char *type, const void *body,
                           size_t len)
{
    static char answer[1024];
    sim_peer *p = sim_connect(PORT);

    reply_status = status;
    reply_type = type;
    reply_body = body;
    reply_len = len;
    sim_peer_send(p, GET "\r\n", sizeof GET "\r\n" - 1);
    turns(4);
    answer[sim_peer_recv(p, answer, sizeof answer - 1)] = 0;
    sim_peer_close(p);
    turns(3);
    return answer;
}

static void an_answer_is_looked_at_before_it_is_sent(void)
{
    rt_listen_opts o = {.on = {.request = on_request_reply}};

    world();
    CHECK(rt_listen(host.loop, "ws://127.0.0.1:9000", &o).id != 0);
    replied(200, "text/\x7f", "x", 1);
    EQUAL(reply_result, RT_EINVAL);
    replied(200, "a\r\nb", "x", 1);
    EQUAL(reply_result, RT_EINVAL);
    replied(200, "", NULL, 1);
    EQUAL(reply_result, RT_EINVAL);
    replied(200, "", "x", (size_t)RT__SEND_MAX + 1);
    EQUAL(reply_result, RT_EINVAL);
    replied(199, "", "", 0);
    EQUAL(reply_result, RT_EINVAL);
    replied(600, "", "", 0);
    EQUAL(reply_result, RT_EINVAL);
    world_end();
}

static void neither_204_nor_304_has_a_body_or_its_length(void)
{
    rt_listen_opts o = {.on = {.request = on_request_reply}};

    world();
    CHECK(rt_listen(host.loop, "ws://127.0.0.1:9000", &o).id != 0);
    CHECK(strstr(replied(204, NULL, "body", 4), "Content-Length") == NULL);
    EQUAL(reply_result, 0);
    CHECK(strstr(replied(304, NULL, "body", 4), "body") == NULL);
    EQUAL(reply_result, 0);
    CHECK(strstr(replied(200, NULL, "body", 4), "Content-Length: 4\r\n"));
    world_end();
}

/* ---- streams ------------------------------------------------------------- */

/* Sends a message of a stream: 4 bytes of length in front. */
static void put(sim_peer *p, const char *text)
{
    uint8_t frame[300];
    size_t n = strlen(text);

    memset(frame, 0, 4);
    frame[3] = (uint8_t)n;
    memcpy(frame + 4, text, n);
    EQUAL(sim_peer_send(p, frame, n + 4), n + 4);
}

/* The next message that came, up to so many turns later; "" without. */
static const char *take(sim_peer *p)
{
    static char text[300];
    uint8_t head[4];

    turns(4);
    text[0] = 0;
    if (sim_peer_waiting(p) < 4)
        return text;
    sim_peer_recv(p, head, 4);
    text[sim_peer_recv(p, text, head[3])] = 0;
    return text;
}

static void a_length_that_comes_in_parts_is_held_against_the_limit(void)
{
    rt_listen_opts o = {.max_message = 1000};
    const uint8_t head[] = {0, 0, 3, 233};
    sim_peer *p;
    int i;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    for (i = 0; i < 4; i++) {
        sim_peer_send(p, head + i, 1);
        turns(2);
    }
    EQUAL(host.closes, 1);
    EQUAL(host.end.code, 1009);
    sim_peer_close(p);
    world_end();
}

static void a_packet_whose_size_is_never_known_is_too_large(void)
{
    static const rt_codec endless = {.decode = any_decode, .head = any_head};
    rt_listen_opts o = {.codec = &endless, .max_message = 100};
    char packet[100 + RT__CODEC_HEAD] = "";
    size_t parts, i, size = sizeof packet;
    sim_peer *p;

    for (parts = 1; parts <= 2; parts++) {
        world();
        CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
        p = sim_connect(PORT);
        for (i = 0; i < parts; i++) {
            EQUAL(host.closes, 0);
            EQUAL(sim_peer_send(p, packet, size / parts), size / parts);
            turns(2);
        }
        EQUAL(host.closes, 1);
        EQUAL(host.end.code, 1009);
        sim_peer_close(p);
        world_end();
    }
}

static int on_resume_yes(rt_loop *l, rt_session s, rt_session fresh)
{
    (void)l;
    (void)s;
    (void)fresh;
    return 0;
}

/* A client of rtnet.1 over a stream: the token of its session. */
static const char *typed_client(sim_peer **p)
{
    static char token[23];
    const char *said;

    *p = sim_connect(PORT);
    put(*p, "h");
    said = take(*p);
    CHECK(said[0] == 'w');
    snprintf(token, sizeof token, "%.22s", said + 1);
    put(*p, "a0");
    turns(2);
    return token;
}

static void typed_world(void)
{
    rt_listen_opts o = {.on = {.open = on_open,
                               .message = on_message,
                               .close = on_close,
                               .resume = on_resume_yes},
                        .framing = RT_RTNET1,
                        .resume_ms = 60000};

    world();
    CHECK(rt_listen(host.loop, "tcp://127.0.0.1:9000", &o).id != 0);
}

static void raw_bytes_that_were_not_written_are_counted_as_lost(void)
{
    rt_listen_opts o = {.framing = RT_RAW};
    char *big = (char *)calloc(1, 300000);
    sim_peer *p;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    turns(2);
    EQUAL(host.opens, 1);
    EQUAL(rt_send(host.loop, host.last, RT_BINARY, big, 300000), 1);
    EQUAL(rt_send(host.loop, host.last, RT_BINARY, big, 300000), 1);
    turns(2);
    sim_peer_recv(p, big, 300000);
    turns(2);
    CHECK(rt_unsent(host.loop, host.last) > 300000);
    EQUAL(rt_drop(host.loop, host.last, 0, NULL), 0);
    turns(2);
    EQUAL(host.closes, 1);
    EQUAL(host.end.lost, 2);
    sim_peer_close(p);
    free(big);
    world_end();
}

static void raw_bytes_all_written_are_not_lost(void)
{
    rt_listen_opts o = {.framing = RT_RAW};
    char *big = (char *)calloc(1, 300000);
    sim_peer *p;
    size_t got = 0;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    turns(2);
    CHECK(rt_send(host.loop, host.last, RT_BINARY, big, 100000) >= 0);
    CHECK(rt_send(host.loop, host.last, RT_BINARY, big, 10) >= 0);
    while (got < 100010 && host.closes == 0) {
        turns(2);
        got += sim_peer_recv(p, big, 300000);
    }
    CHECK(rt_send(host.loop, host.last, RT_BINARY, big, 200000) >= 0);
    turns(2);
    sim_peer_reset(p);
    turns(3);
    EQUAL(host.end.lost, 1);
    world_end();
    free(big);
}

static void without_on_message_messages_are_read_and_dropped(void)
{
    rt_listen_opts o = {.on = {.open = on_open, .close = on_close}};
    sim_peer *p;

    world();
    CHECK(rt_listen(host.loop, "tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    put(p, "nobody");
    turns(3);
    EQUAL(host.opens, 1);
    EQUAL(host.closes, 0);
    sim_peer_close(p);
    world_end();
}

/* ---- WebSocket sessions ---------------------------------------------------
 */

static ws_peer *peer(void)
{
    ws_peer *w = ws_connect(PORT, "/");

    ws_pump(w);
    turns(3);
    ws_pump(w);
    EQUAL(w->status, 101);
    return w;
}

static void who_is_not_read_may_take_longer_for_its_message(void)
{
    ws_peer *w;

    world();
    serve(NULL);
    w = peer();
    ws_frame(w, WS_TEXT, "long ", 5);
    ws_pump(w);
    turns(2);
    EQUAL(rt_read(host.loop, host.last, 0), 0);
    pass(70000); /* the message has 30 s */
    EQUAL(host.closes, 0);
    EQUAL(rt_read(host.loop, host.last, 1), 0);
    ws_frame(w, 0x80, "ago", 3);
    ws_pump(w);
    turns(3);
    CHECK(strcmp(host.got, "long ago|") == 0);
    ws_free(w);
    world_end();
}

static void more_than_65535_pings_may_be_unanswered(void)
{
    rt_listen_opts o = {.dead_pings = 100000, .ping_ms = 1};
    ws_peer *w;

    world();
    serve(&o);
    w = peer();
    w->pongs = 0;
    while (host.closes == 0 && sim_now() && w->pings_got < 70000) {
        pass(100);
        ws_pump(w);
    }
    EQUAL(host.closes, 1);
    EQUAL(host.end.code, RT_CLOSE_DEAD);
    CHECK(w->pings_got > 65000);
    ws_free(w);
    world_end();
}

static void without_a_limit_pings_are_counted_no_further(void)
{
    rt_listen_opts o = {.dead_pings = RT_OFF, .ping_ms = 1};
    ws_peer *w;

    world();
    serve(&o);
    w = peer();
    w->pongs = 0;
    while (host.closes == 0 && sim_now() && w->pings_got < 66000) {
        pass(100);
        ws_pump(w);
    }
    EQUAL(host.closes, 0);
    ws_free(w);
    world_end();
}

static void a_stream_may_be_probed_more_than_100_times(void)
{
    rt_listen_opts o = {.dead_pings = 200};
    sim_peer *p;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    turns(2);
    EQUAL(host.opens, 1);
    sim_peer_close(p);
    world_end();
}

/* Its goodbye has to ask for events again, and cannot. */
static void a_goodbye_that_cannot_read_on_is_the_end_at_once(void)
{
    ws_peer *w;

    world();
    serve(NULL);
    w = peer();
    EQUAL(rt_read(host.loop, host.last, 0), 0);
    ws_frame(w, WS_TEXT, "unread", 6);
    ws_pump(w);
    turns(2);
    sim_fail(SIM_epoll_ctl, 1, ENOMEM);
    EQUAL(rt_close(host.loop, host.last, 0, NULL), 0);
    turns(2);
    EQUAL(host.closes, 1);
    EQUAL(host.end.code, 1000);
    EQUAL(sim_streams(), 0);
    ws_free(w);
    world_end();
}

static int timer_fired;

static void on_timer(rt_loop *l, void *arg)
{
    (void)l;
    (void)arg;
    timer_fired++;
}

static void on_open_timer(rt_loop *l, rt_session s)
{
    on_open(l, s);
    CHECK(rt_timer_start(l, s, rt_now(l) + 200, on_timer, NULL).id != 0);
}

static void on_open_close(rt_loop *l, rt_session s)
{
    on_open(l, s);
    EQUAL(rt_close(l, s, 0, NULL), 0);
}

static void binding_stops_no_timer_of_the_hosts(void)
{
    rt_listen_opts o = {.bind_ms = 100,
                        .on = {.open = on_open_timer, .close = on_close}};

    world();
    CHECK(rt_listen(host.loop, "tcp://127.0.0.1:9000", &o).id != 0);
    CHECK(sim_connect(PORT) != NULL);
    turns(2);
    timer_fired = 0;
    EQUAL(rt_bind(host.loop, host.last, "ann"), 0);
    pass(300);
    EQUAL(timer_fired, 1);
    EQUAL(host.closes, 0);
    world_end();
}

static void who_closes_in_on_open_need_not_bind(void)
{
    rt_listen_opts o = {.bind_ms = 100,
                        .on = {.open = on_open_close, .close = on_close}};

    world();
    CHECK(rt_listen(host.loop, "tcp://127.0.0.1:9000", &o).id != 0);
    CHECK(sim_connect(PORT) != NULL);
    pass(300);
    EQUAL(host.opens, 1);
    EQUAL(host.closes, 1);
    EQUAL(host.end.code, 1000);
    world_end();
}

/* ---- a host with its own packets on ws ------------------------------------
 */

static size_t codec_at, codec_len;

static ptrdiff_t wrong_decode(void *ctx, const uint8_t *in, size_t n,
                              size_t *at, size_t *len, int *kind)
{
    (void)ctx;
    (void)in;
    *at = codec_at;
    *len = codec_len;
    *kind = RT_BINARY;
    return (ptrdiff_t)n;
}

static const rt_codec wrong_codec = {.decode = wrong_decode, .head = any_head};

static int closed_by_packet(const char *url, size_t at, size_t len)
{
    rt_listen_opts o = {.codec = &wrong_codec, .max_message = 100};
    ws_peer *w = NULL;
    sim_peer *p = NULL;
    char packet[120] = "";

    world();
    CHECK(listen_on(url, &o).id != 0);
    codec_at = at;
    codec_len = len;
    if (*url == 'w') {
        w = peer();
        ws_send(w, WS_BINARY, packet, 110);
        ws_pump(w);
    } else {
        p = sim_connect(PORT);
        sim_peer_send(p, packet, 110);
    }
    turns(3);
    if (w)
        ws_free(w);
    if (p)
        sim_peer_close(p);
    world_end();
    return host.end.code;
}

static void a_codec_that_points_beyond_its_packet_ends_the_session(void)
{
    static const char *urls[] = {"ws://127.0.0.1:9000", "tcp://127.0.0.1:9000"};
    int i;

    for (i = 0; i < 2; i++) {
        EQUAL(closed_by_packet(urls[i], 111, 0), 1002);
        EQUAL(closed_by_packet(urls[i], 110, 1), 1002);
        EQUAL(closed_by_packet(urls[i], 11, 100), 1002);
        EQUAL(closed_by_packet(urls[i], 0, 101), 1009);
        EQUAL(closed_by_packet(urls[i], 10, 100), 1001); /* by the loop */
    }
}

/* ---- dials -----------------------------------------------------------------
 */

static rt_session dial(const char *url, rt_dial_opts o)
{
    o.on = handler;
    return rt_dial(host.loop, url, &o);
}

static void a_path_too_long_for_a_local_socket_is_an_error_at_once(void)
{
    char url[200];
    int error;

    world();
    memset(url, 'x', sizeof url - 1);
    memcpy(url, "unix:/", 6);
    url[sizeof url - 1] = 0;
    EQUAL(dial(url, (rt_dial_opts){0}).id, 0);
    why(&error);
    EQUAL(error, RT_ESYS);
    EQUAL(rt_listen(host.loop, url, NULL).id, 0);
    pass(50);
    EQUAL(host.closes, 0);
    world_end();
}

static void a_name_needs_somebody_who_looks_it_up(void)
{
    int error;

    world();
    EQUAL(dial("tcp://name:7", (rt_dial_opts){0}).id, 0);
    why(&error);
    CHECK(error == RT_ESYS || error == RT_EINVAL);
    EQUAL(dial("tcp://:7", (rt_dial_opts){0}).id, 0);
    why(&error);
    CHECK(error == RT_ESYS || error == RT_EINVAL);
    world_end();
}

/* What a server gets that a client with such options dials. */
static const char *dialled(rt_dial_opts o, const char *answer)
{
    static char request[1024];
    sim_peer *p;

    world();
    sim_serve(7);
    CHECK(dial("ws://127.0.0.1:7", o).id != 0);
    pass(50);
    p = sim_accept(7);
    CHECK(p != NULL);
    request[sim_peer_recv(p, request, sizeof request - 1)] = 0;
    sim_peer_send(p, answer, strlen(answer));
    pass(50);
    sim_peer_close(p);
    world_end();
    return request;
}

static void rtnet_1_is_offered_before_the_hosts_own_protocols(void)
{
    rt_dial_opts o = {.resume = 1, .protocols = "a, b"};
    const char *own = "Sec-WebSocket-Protocol: rtnet.1, a, b\r\n";

    CHECK(strstr(dialled(o, ""), own) != NULL);
    o.protocols = NULL;
    own = "Sec-WebSocket-Protocol: rtnet.1\r\n";
    CHECK(strstr(dialled(o, ""), own) != NULL);
}

/* With 503 a client tries again, until its loop ends; else it is over. */
static void a_status_needs_no_reason_but_three_digits(void)
{
    const rt_dial_opts o = {.resume = 1};

    dialled(o, "HTTP/1.1 503\r\n\r\n");
    EQUAL(host.closes, 1);
    EQUAL(host.end.cause, RT_BY_LOOP);
    dialled(o, "HTTP/1.1 5033\r\n\r\n");
    EQUAL(host.closes, 1);
    EQUAL(host.end.cause, RT_BY_PEER);
    EQUAL(host.end.code, 1006);
}

static int resolves;

static int on_resolve(rt_loop *l, const char *name, rt_session s)
{
    (void)l;
    (void)name;
    (void)s;
    resolves++;
    return 0;
}

static int on_resolve_close(rt_loop *l, const char *name, rt_session s)
{
    (void)name;
    EQUAL(rt_close(l, s, 0, NULL), 0);
    return -1;
}

static void an_address_given_before_the_hook_is_asked_suffices(void)
{
    rt_loop_opts lo = {.resolve = on_resolve};
    rt_session s;
    sim_peer *p;

    world_with(&lo, NULL);
    sim_serve(7);
    resolves = 0;
    s = dial("tcp://name:7", (rt_dial_opts){0});
    CHECK(s.id != 0);
    EQUAL(rt_resolved(host.loop, s, "127.0.0.1"), 0);
    EQUAL(rt_resolved(host.loop, s, "127.0.0.1"), RT_ESTATE);
    pass(50);
    EQUAL(resolves, 0);
    EQUAL(host.opens, 1);
    p = sim_accept(7);
    CHECK(p != NULL);
    EQUAL(rt_resolved(host.loop, s, "127.0.0.1"), RT_ESTATE);
    sim_peer_close(p);
    world_end();
    EQUAL(host.closes, 1);
}

static void a_resolve_hook_may_close_what_it_is_asked_for(void)
{
    rt_loop_opts lo = {.resolve = on_resolve_close};

    world_with(&lo, NULL);
    CHECK(dial("tcp://name:7", (rt_dial_opts){0}).id != 0);
    pass(50);
    EQUAL(host.closes, 1);
    EQUAL(host.opens, 0);
    EQUAL(host.end.cause, RT_BY_APP);
    world_end();
}

static void an_address_without_a_socket_for_it_ends_the_session(void)
{
    rt_loop_opts lo = {.resolve = on_resolve};
    rt_session s;

    world_with(&lo, NULL);
    s = dial("tcp://name:7", (rt_dial_opts){0});
    pass(50);
    EQUAL(resolves > 0, 1);
    sim_fail(SIM_socket, 1, EMFILE);
    EQUAL(rt_resolved(host.loop, s, "127.0.0.1"), 0);
    pass(50);
    EQUAL(host.closes, 1);
    EQUAL(host.end.code, 1006);
    EQUAL(rt_resolved(host.loop, s, "127.0.0.1"), RT_EGONE);
    world_end();
}

/* What a server of rtnet.1 over a stream says to a client that came first. */
static sim_peer *welcomed(const char *welcome)
{
    sim_peer *p = sim_accept(7);

    CHECK(p != NULL);
    EQUAL(take(p)[0], 'h');
    put(p, welcome);
    pass(50);
    return p;
}

#define TOKEN "AAAAAAAAAAAAAAAAAAAAAA"

static void the_silence_while_a_client_reads_nothing_is_its_own(void)
{
    rt_dial_opts o = {.resume = 1, .framing = RT_RTNET1};
    rt_session s;
    sim_peer *p;

    world();
    sim_serve(7);
    s = dial("tcp://127.0.0.1:7", o);
    pass(50);
    p = welcomed("w" TOKEN " who 0 0 new 15000");
    EQUAL(rt_read(host.loop, s, 0), 0);
    pass(100000);
    EQUAL(rt_state(host.loop, s), RT_OPEN);
    EQUAL(sim_peer_state(p), SIM_UP);
    EQUAL(rt_read(host.loop, s, 1), 0);
    pass(100000);
    EQUAL(rt_state(host.loop, s), RT_AWAY);
    sim_peer_close(p);
    world_end();
}

/* How long a client waits that is sent away so; 0: it does not come again. */
static uint64_t waits_behind(const char *farewell)
{
    rt_dial_opts o = {.resume = 1, .framing = RT_RTNET1};
    uint64_t began, waited = 0;
    sim_peer *p;

    world();
    sim_serve(7);
    CHECK(dial("tcp://127.0.0.1:7", o).id != 0);
    pass(50);
    p = welcomed("w" TOKEN " who 0 0 new 15000");
    began = sim_now();
    put(p, farewell);
    while (waited == 0 && sim_now() - began < 4000000) {
        pass(1000);
        if (sim_accept(7))
            waited = sim_now() - began;
    }
    world_end();
    return waited;
}

static void a_server_may_ask_for_at_most_an_hour(void)
{
    uint64_t waited = waits_behind("c1013 retry=99999999999999");

    CHECK(waited >= 3600000 && waited < 3700000);
    waited = waits_behind("c1013 retry=9000x");
    CHECK(waited >= 9000 && waited < 12000);
}

/* How the host closes one who says so, having greeted. */
static int closed_for(const char *text)
{
    sim_peer *p;

    typed_world();
    typed_client(&p);
    EQUAL(host.opens, 1);
    put(p, text);
    turns(3);
    sim_peer_close(p);
    turns(3);
    EQUAL(host.closes + (rt_state(host.loop, host.last) == RT_AWAY), 1);
    world_end();
    return host.end.code;
}

static void a_goodbye_is_short_and_its_reason_utf_8(void)
{
    char text[150];

    EQUAL(closed_for("c1000 well"), 1000);
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    memcpy(text, "c1000 ", 6);
    CHECK(closed_for(text) != 1000);
    text[6 + RT__REASON + 1] = 0;
    CHECK(closed_for(text) != 1000);
    CHECK(closed_for("c1000 \xff") != 1000);
}

static void a_token_of_more_than_23_characters_is_none(void)
{
    sim_peer *p;

    typed_world();
    p = sim_connect(PORT);
    put(p, "hAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA 0 1");
    CHECK(strncmp(take(p), "c1002", 5) == 0);
    EQUAL(host.opens, 0);
    sim_peer_close(p);
    world_end();
}

static void a_session_that_cannot_resume_gets_no_token(void)
{
    rt_listen_opts o = {.framing = RT_RTNET1};
    sim_peer *p;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    put(p, "h");
    CHECK(strncmp(take(p), "w- ", 3) == 0);
    sim_peer_close(p);
    world_end();
}

static void a_client_tries_again_when_there_was_no_socket(void)
{
    rt_dial_opts o = {.resume = 1, .framing = RT_RTNET1};
    sim_peer *p;
    uint64_t before;

    world();
    sim_serve(7);
    CHECK(dial("tcp://127.0.0.1:7", o).id != 0);
    pass(50);
    p = welcomed("w" TOKEN " who 0 0 new 15000");
    EQUAL(host.opens, 1);
    CHECK(strcmp(take(p), "a0") == 0);
    sim_peer_reset(p);
    pass(50);
    before = sim_calls(SIM_socket);
    sim_fail(SIM_socket, 1, EMFILE);
    pass(60000);
    CHECK(sim_calls(SIM_socket) > before + 1);
    EQUAL(host.closes, 0);
    p = sim_accept(7);
    CHECK(p != NULL);
    CHECK(strncmp(take(p), "h" TOKEN " 0 ", 26) == 0);
    sim_peer_close(p);
    world_end();
}

/* How a session ends whose server answers a resume so. */
static int end_of_welcome(const char *welcome)
{
    rt_dial_opts o = {.resume = 1, .framing = RT_RTNET1};
    sim_peer *p;

    world();
    sim_serve(7);
    CHECK(dial("tcp://127.0.0.1:7", o).id != 0);
    pass(50);
    p = welcomed("w" TOKEN " who 0 0 new 15000");
    put(p, "mone");
    pass(50);
    sim_peer_reset(p);
    pass(5000);
    p = welcomed(welcome);
    pass(50);
    EQUAL(host.opens, 1);
    sim_peer_close(p);
    pass(50);
    world_end();
    return host.end.code;
}

static void a_welcome_that_does_not_fit_is_a_violation(void)
{
    /* It ends with its loop where it is well. */
    int well = end_of_welcome("w" TOKEN " who 0 1 resumed 15000");

    CHECK(well != 1002);
    EQUAL(end_of_welcome("w" TOKEN " who 0 1 renewed 15000"), 1002);
    EQUAL(end_of_welcome("w" TOKEN " who 0 2 resumed 15000"), 1002);
    EQUAL(end_of_welcome("w" TOKEN " who 0 1 gap 15000"), 1002);
    EQUAL(end_of_welcome("w- who 0 1 resumed 15000"), 1002);
    EQUAL(end_of_welcome("w" TOKEN " you 0 1 resumed 15000"), 1002);
    EQUAL(end_of_welcome("w" TOKEN " who 1 1 resumed 15000"), 1002);
    EQUAL(end_of_welcome("w" TOKEN " who 0 1 resumed"), 1002);
    EQUAL(end_of_welcome("w" TOKEN " who x 1 resumed 15000"), 1002);
    EQUAL(end_of_welcome("w" TOKEN " who 0 x resumed 15000"), 1002);
    EQUAL(end_of_welcome("w" TOKEN " who 0  resumed 15000"), 1002);
    CHECK(end_of_welcome("w" TOKEN " who 0 3 gap 15000") == well);
}

static void the_session_that_follows_may_lose_its_line_before_it_opens(void)
{
    rt_dial_opts o = {.resume = 1, .framing = RT_RTNET1};
    sim_peer *p;

    world();
    sim_serve(7);
    CHECK(dial("tcp://127.0.0.1:7", o).id != 0);
    pass(50);
    p = welcomed("w" TOKEN " who 0 0 new 15000");
    EQUAL(host.opens, 1);
    sim_peer_reset(p);
    pass(5000);
    p = sim_accept(7);
    CHECK(take(p)[0] == 'h');
    put(p, "w" TOKEN " new 0 0 new 15000");
    sim_fail(SIM_epoll_ctl, 1, ENOMEM); /* of the pause until on_close */
    pass(10);
    EQUAL(host.closes, 1);
    EQUAL(host.end.code, RT_CLOSE_EXPIRED);
    EQUAL(host.opens, 1);
    pass(600);
    p = sim_accept(7);
    CHECK(strcmp(take(p), "h") == 0); /* not by a token it never opened with */
    put(p, "w" TOKEN " new 0 0 new 15000");
    pass(50);
    EQUAL(host.opens, 2);
    EQUAL(host.closes, 1);
    sim_peer_close(p);
    world_end();
}

/* ---- handshakes the host thinks about --------------------------------------
 */

static rt_session asked[4];
static int asked_count;

static int on_request_defer(rt_loop *l, rt_session s, const rt_request *r)
{
    (void)l;
    (void)r;
    asked[asked_count++ & 3] = s;
    return RT_DEFER;
}

static const rt_handler thinking = {.request = on_request_defer,
                                    .open = on_open,
                                    .message = on_message,
                                    .close = on_close};

static void of_two_accepted_for_one_user_the_second_is_refused(void)
{
    rt_loop_opts lo = {.bind_policy = RT_BIND_REFUSE};
    rt_listen_opts o = {.on = thinking};
    rt_accept_opts who = {.uid = "ann"};
    ws_peer *a, *b;

    world_with(&lo, NULL);
    asked_count = 0;
    CHECK(rt_listen(host.loop, "ws://127.0.0.1:9000", &o).id != 0);
    a = ws_connect(PORT, "/");
    b = ws_connect(PORT, "/");
    ws_pump(a);
    ws_pump(b);
    turns(3);
    EQUAL(asked_count, 2);
    EQUAL(rt_accept(host.loop, asked[0], &who), 0);
    EQUAL(rt_accept(host.loop, asked[1], &who), 0); /* nobody is bound yet */
    turns(3);
    ws_pump(a);
    ws_pump(b);
    EQUAL(host.opens, 1);
    EQUAL(a->status, 101);
    EQUAL(b->status, 503);
    ws_free(a);
    ws_free(b);
    world_end();
}

static void the_time_the_host_thinks_is_not_the_clients(void)
{
    rt_listen_opts o = {.on = thinking, .resume_ms = 1000};
    sim_peer *p;
    char answer[512];

    world();
    asked_count = 0;
    CHECK(rt_listen(host.loop, "ws://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    sim_peer_send(p,
                  GET UP KEY "Connection: Upgrade\r\n"
                             "Sec-WebSocket-Protocol: rtnet.1\r\n\r\n",
                  strlen(GET UP KEY "Connection: Upgrade\r\n"
                                    "Sec-WebSocket-Protocol: rtnet.1\r\n\r\n"));
    turns(3);
    pass(12000);
    EQUAL(rt_accept(host.loop, asked[0], NULL), 0);
    pass(4900); /* of the 5 s that the client has for its first message */
    answer[sim_peer_recv(p, answer, sizeof answer - 1)] = 0;
    CHECK(strncmp(answer, "HTTP/1.1 101", 12) == 0);
    EQUAL(sim_peer_state(p), SIM_UP);
    pass(200);
    CHECK(sim_peer_waiting(p) > 0 || sim_peer_state(p) != SIM_UP);
    sim_peer_close(p);
    world_end();
}

static int on_request_big(rt_loop *l, rt_session s, const rt_request *r)
{
    static char body[600000];

    (void)r;
    EQUAL(rt_reply(l, s, 200, "", body, sizeof body), 0);
    return 0;
}

static void an_answer_nobody_reads_ends_with_the_handshakes_time(void)
{
    rt_listen_opts o = {.on = {.request = on_request_big}};
    sim_peer *p;

    world();
    CHECK(rt_listen(host.loop, "ws://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    sim_peer_send(p, GET "\r\n", sizeof GET "\r\n" - 1);
    turns(3);
    EQUAL(sim_streams(), 1);
    pass(5100);
    EQUAL(sim_streams(), 0);
    sim_peer_close(p);
    world_end();
}

static void a_shutdown_waits_for_an_answer_on_its_way(void)
{
    rt_listen_opts o = {.on = {.request = on_request_big}};
    sim_peer *p;
    char buffer[100000];
    size_t got = 0, n;

    world();
    CHECK(rt_listen(host.loop, "ws://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    sim_peer_send(p, GET "\r\n", sizeof GET "\r\n" - 1);
    turns(3);
    EQUAL(rt_shutdown(host.loop, 0), 0);
    turns(3);
    do {
        turns(3);
        n = sim_peer_recv(p, buffer, sizeof buffer);
        got += n;
    } while (n > 0);
    CHECK(got > 600000);
    sim_peer_close(p);
    pass(100);
    EQUAL(sim_streams(), 0);
    world_end();
}

/* ---- groups, pushes, the end of a loop -------------------------------------
 */

static int pushes;

static void on_miss(rt_loop *l, const char *uid, int kind, const void *data,
                    size_t len)
{
    (void)l;
    (void)uid;
    (void)kind;
    (void)data;
    (void)len;
    pushes++;
}

static void on_close_push(rt_loop *l, rt_session s, const rt_end *end)
{
    on_close(l, s, end);
    EQUAL(rt_push(l, "nobody", RT_TEXT, "who hears?", 10), 0);
}

static void what_hooks_would_be_told_behind_the_end_is_forgotten(void)
{
    rt_loop_opts lo = {.push_miss = on_miss};
    rt_listen_opts o = {.on = {.open = on_open, .close = on_close_push}};

    pushes = 0;
    world_with(&lo, NULL);
    CHECK(rt_listen(host.loop, "tcp://127.0.0.1:9000", &o).id != 0);
    CHECK(sim_connect(PORT) != NULL);
    turns(2);
    EQUAL(rt_push(host.loop, "nobody", RT_TEXT, "one", 3), 0);
    turns(2);
    EQUAL(pushes, 1);
    EQUAL(rt_push(host.loop, "nobody", RT_TEXT, "two", 3), 0);
    world_end();
    EQUAL(host.closes, 1);
    EQUAL(pushes, 2);
}

static int lasts;

static void on_last(rt_loop *l, const char *name)
{
    (void)l;
    (void)name;
    lasts++;
}

/* Who ends the loop unsubscribes from all of them at once. */
static void the_end_of_a_loop_empties_no_group(void)
{
    rt_loop_opts lo = {.group_last = on_last};
    rt_group g;
    int i;

    for (i = 0; i < 2; i++) {
        lasts = 0;
        world_with(&lo, NULL);
        CHECK(listen_on("tcp://127.0.0.1:9000", NULL).id != 0);
        CHECK(sim_connect(PORT) != NULL);
        turns(2);
        g = rt_group_open(host.loop, "group", NULL);
        EQUAL(rt_group_join(host.loop, g, host.last), 0);
        if (i)
            rt_close(host.loop, host.last, 1000, NULL), turns(2);
        world_end();
        EQUAL(lasts, i);
    }
}

static int error_at_end;

static void on_close_group(rt_loop *l, rt_session s, const rt_end *end)
{
    on_close(l, s, end);
    EQUAL(rt_group_open(l, "late", NULL).id, 0);
    error_at_end = rt_error(l, NULL);
}

static void no_group_is_made_while_the_loop_ends(void)
{
    rt_listen_opts o = {.on = {.open = on_open, .close = on_close_group}};
    sim_peer *p;

    world();
    CHECK(rt_listen(host.loop, "tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    turns(2);
    EQUAL(host.opens, 1);
    error_at_end = 0;
    world_end();
    EQUAL(host.closes, 1);
    EQUAL(error_at_end, RT_ESTATE);
    (void)p;
}

static void a_text_that_is_no_token_finds_nobody(void)
{
    world();
    EQUAL(rt_find_token(host.loop, "AAAAAAAAAA.AAAAAAAAAAA").id, 0);
    EQUAL(rt_find_token(host.loop, "AAAAAAAAAAAAAAAAAAAAAB").id, 0);
    EQUAL(rt_find_token(host.loop, "AAAAAAAAAA").id, 0);
    EQUAL(rt_find_token(host.loop, "AAAAAAAAAA{AAAAAAAAAAA").id, 0);
    world_end();
}

static void beyond_2_24_handles_there_is_none(void)
{
    uint32_t count, next_free;
    int error;

    world();
    count = host.loop->slot_count;
    next_free = host.loop->slot_free;
    host.loop->slot_count = 1 << 24;
    host.loop->slot_free = 0;
    EQUAL(rt_group_open(host.loop, "one too many", NULL).id, 0);
    why(&error);
    EQUAL(error, RT_ENOMEM);
    host.loop->slot_count = count;
    host.loop->slot_free = next_free;
    CHECK(rt_group_open(host.loop, "one too many", NULL).id != 0);
    world_end();
}

static void a_query_is_cut_at_its_ampersands(void)
{
    rt_request r = {.query = "ab&a&b=2&c=%41+&d"};
    char out[8];

    EQUAL(rt_query(&r, "a", out, sizeof out), 0);
    EQUAL(rt_query(&r, "b", out, sizeof out), 1);
    CHECK(strcmp(out, "2") == 0);
    EQUAL(rt_query(&r, "c", out, sizeof out), 2);
    CHECK(strcmp(out, "A ") == 0);
    EQUAL(rt_query(&r, "d", out, sizeof out), 0);
    EQUAL(rt_query(&r, "d", out, 0), RT_EINVAL);
    EQUAL(rt_query(&r, "c", out, 2), RT_EINVAL);
    EQUAL(rt_query(&r, "e", out, sizeof out), RT_EINVAL);
}

/* ---- want of memory and handles -------------------------------------------
 */

static struct {
    int nth;          /* the allocation that fails, from starve() on */
    uint64_t counted; /* of all allocations, at starve() */
    rt__out *pool;    /* the loop's spare queues are no way out */
    uint32_t pooled;
} hunger;

/* What follows in this scene is what may fail. */
static void starve(void)
{
    hunger.counted = sim_allocations();
    hunger.pool = host.loop->out_pool;
    hunger.pooled = host.loop->out_pooled;
    host.loop->out_pool = NULL;
    host.loop->out_pooled = 0;
    sim_fail_memory(hunger.nth, 0);
}

/* All goes well again; true when nothing has failed. */
static int fed(void)
{
    rt__out **end = &host.loop->out_pool;

    while (*end)
        end = &(*end)->next;
    *end = hunger.pool;
    host.loop->out_pooled += hunger.pooled;
    sim_fail_memory(0, 0);
    return sim_allocations() - hunger.counted < (uint64_t)hunger.nth;
}

/* Plays a scene with each of its allocations failing in turn.  It returns what
   fed() said. */
static void each_allocation(int (*scene)(int), int variant)
{
    hunger.nth = 1;
    while (!scene(variant) && hunger.nth < 100)
        hunger.nth++;
    CHECK(hunger.nth < 100);
}

/* As if each of the 2^24 handles were taken. */
static struct {
    uint32_t count, next_free;
} handles;

static void handles_out(void)
{
    handles.count = host.loop->slot_count;
    handles.next_free = host.loop->slot_free;
    host.loop->slot_count = 1 << 24;
    host.loop->slot_free = 0;
}

static void handles_back(void)
{
    host.loop->slot_count = handles.count;
    host.loop->slot_free = handles.next_free;
}

static void without_a_handle_nobody_is_let_in(void)
{
    sim_peer *p;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9001", NULL).id != 0);
    serve(NULL);
    handles_out();
    p = sim_connect(9001);
    turns(3);
    EQUAL(host.opens, 0);
    EQUAL(sim_peer_state(p), SIM_FIN);
    sim_peer_close(p);
    EQUAL(status_of(GET UP KEY "Connection: Upgrade\r\n\r\n"), 503);
    EQUAL(host.request_calls, 0);
    handles_back();
    EQUAL(status_of(GET UP KEY "Connection: Upgrade\r\n\r\n"), 101);
    world_end();
}

static void without_a_handle_no_session_opens(void)
{
    rt_listen_opts o = {.on = {.open = on_open, .close = on_close}};

    world();
    CHECK(rt_listen(host.loop, "ws://127.0.0.1:9000", &o).id != 0);
    handles_out();
    EQUAL(status_of(GET UP KEY "Connection: Upgrade\r\n\r\n"), 503);
    EQUAL(host.opens, 0);
    handles_back();
    world_end();
}

/* Says that it comes back with a token, having so many messages. */
static void come_again(sim_peer *p, const char *token, int received, int again)
{
    char text[80];

    snprintf(text, sizeof text, "h%s %d %d", token, received, again);
    put(p, text);
}

static void without_a_handle_a_resume_is_put_off(void)
{
    char token[23];
    sim_peer *p;

    typed_world();
    snprintf(token, sizeof token, "%s", typed_client(&p));
    sim_peer_reset(p);
    turns(3);
    p = sim_connect(PORT);
    turns(1);
    handles_out();
    come_again(p, token, 0, 1);
    CHECK(strncmp(take(p), "c1013 retry=", 12) == 0);
    handles_back();
    sim_peer_close(p);
    turns(3);
    p = sim_connect(PORT);
    come_again(p, token, 0, 1);
    CHECK(strstr(take(p), " resumed ") != NULL);
    EQUAL(host.opens, 1);
    sim_peer_close(p);
    world_end();
}

/* others: how many sessions there are beside; then one comes back, with a
   message to be sent again, and takes over from a line that is still up where
   that number is odd. */
static int resume_scene(int others)
{
    char token[23];
    sim_peer *p, *q, *other[40];
    int i, well;

    typed_world();
    for (i = 0; i < others; i++)
        typed_client(&other[i]);
    snprintf(token, sizeof token, "%s", typed_client(&p));
    EQUAL(rt_send(host.loop, host.last, RT_TEXT, "kept", 4), 0);
    if (others % 2 == 0)
        sim_peer_reset(p);
    turns(3);
    for (i = 0; others == 8 && i < 130; i++) /* more than are kept */
        EQUAL(rt_send(host.loop, host.last, RT_TEXT, "lost", 4), 0);
    q = sim_connect(PORT);
    turns(1);
    starve();
    come_again(q, token, 0, 1);
    turns(3);
    well = fed();
    sim_peer_close(q);
    turns(3);
    q = sim_connect(PORT);
    come_again(q, token, 0, 2);
    CHECK(take(q)[0] == 'w' || host.closes > 0);
    EQUAL(host.opens, others + 1 + host.closes);
    world_end();
    return well;
}

static void a_resume_that_lacks_memory_leaves_the_session_away(void)
{
    int others;

    for (others = 0; others < 34; others++)
        each_allocation(resume_scene, others);
}

static int drain_scene(int variant)
{
    rt_dial_opts o = {.resume = 1, .framing = RT_RTNET1};
    sim_peer *p;
    int well;

    (void)variant;
    world();
    sim_serve(7);
    CHECK(dial("tcp://127.0.0.1:7", o).id != 0);
    pass(50);
    p = welcomed("w" TOKEN " who 0 0 new 15000");
    starve();
    put(p, "c1012 retry=1");
    pass(50);
    well = fed();
    pass(3000);
    EQUAL(host.closes, 1);
    EQUAL(host.end.code, 1012);
    EQUAL(sim_accept(7) != NULL,
          well || strcmp(host.log, "not dialled anew: out of memory") != 0);
    world_end();
    return well;
}

static void a_drained_client_comes_anew_or_says_that_it_cannot(void)
{
    each_allocation(drain_scene, 0);
}

static int dial_again_scene(int variant)
{
    rt_dial_opts o = {.resume = 1, .framing = RT_RTNET1};
    sim_peer *p;
    int well;

    (void)variant;
    world();
    sim_serve(7);
    CHECK(dial("tcp://127.0.0.1:7", o).id != 0);
    pass(50);
    p = welcomed("w" TOKEN " who 0 0 new 15000");
    sim_peer_reset(p);
    pass(1);
    starve();
    pass(5000);
    well = fed();
    pass(60000);
    EQUAL(host.closes, 0);
    CHECK(sim_accept(7) != NULL);
    world_end();
    return well;
}

static void a_client_that_lacks_memory_tries_again(void)
{
    each_allocation(dial_again_scene, 0);
}

#define OTHER "BBBBBBBBBBBBBBBBBBBBBQ"

/* A server that has forgotten the session begins another one, and says a
   message and a half behind that. */
static void put_stranger(sim_peer *p)
{
    char text[100];

    memset(text, 0, sizeof text);
    text[3] = (char)snprintf(text + 4, 60, "w" OTHER " new 0 0 new 15000");
    memcpy(text + 4 + text[3], "\0\0\0\4mone\0\0\0\4mt", 14);
    EQUAL(sim_peer_send(p, text, 18 + (size_t)text[3]), 18 + text[3]);
}

/* How it greets: with the token of the one that is told open, without when
   that one closed and the next has not opened. */
static const char *greeting_due(void)
{
    if (host.opens == 2)
        return "h" OTHER " ";
    return host.closes ? "h" : "h" TOKEN " 0 ";
}

/* The server plays until there is another session, or the line holds.  A line
   that was made while memory lacked may end without a word. */
static void until_it_opens(void)
{
    const char *due, *said;
    sim_peer *p;

    pass(5000);
    while ((p = sim_accept(7)) != NULL) {
        due = greeting_due();
        said = take(p);
        if (!*said && sim_peer_state(p) == SIM_FIN)
            continue;
        EQUAL(strncmp(said, due, strlen(due)), 0);
        if (host.opens < 2)
            put_stranger(p);
        pass(5000);
    }
}

/* A client with a message that is on no line finds that the server has
   forgotten it.  for_ever: the allocations behind the first fail, too. */
static int stranger_scene(int for_ever)
{
    rt_dial_opts o = {.resume = 1, .framing = RT_RTNET1};
    rt_session s;
    sim_peer *p;
    int well;

    world();
    sim_serve(7);
    s = dial("tcp://127.0.0.1:7", o);
    pass(50);
    p = welcomed("w" TOKEN " who 0 0 new 15000");
    sim_peer_reset(p);
    pass(1);
    EQUAL(rt_send(host.loop, s, RT_TEXT, "a", 1), 0);
    pass(5000);
    p = sim_accept(7);
    CHECK(strncmp(take(p), "h" TOKEN " 0 ", 26) == 0);
    starve();
    sim_fail_memory(hunger.nth, for_ever);
    put_stranger(p);
    turns(4); /* not so long that it would dial without memory */
    well = fed();
    until_it_opens();
    EQUAL(host.opens, 2);
    EQUAL(host.closes, 1);
    EQUAL(host.end.code, RT_CLOSE_EXPIRED);
    EQUAL(host.end.lost, 1);
    world_end();
    return well;
}

static void a_client_that_lacks_memory_for_the_next_session_tries_again(void)
{
    each_allocation(stranger_scene, 0);
    each_allocation(stranger_scene, 1);
}

static int expect_scene(int variant)
{
    static const char request[] =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
        "Expect: 100-continue\r\n\r\n";
    char answer[64] = "";
    sim_peer *p;
    int well;

    (void)variant;
    world();
    serve(NULL);
    p = sim_connect(PORT);
    turns(2);
    starve();
    sim_peer_send(p, request, sizeof request - 1);
    turns(3);
    well = fed();
    answer[sim_peer_recv(p, answer, sizeof answer - 1)] = 0;
    CHECK(strncmp(answer, "HTTP/1.1 100", 12) == 0 || !well);
    sim_peer_close(p);
    world_end();
    return well;
}

static void a_body_that_cannot_be_asked_for_ends_its_connection(void)
{
    each_allocation(expect_scene, 0);
}

/* Three messages a second are too many: the second waits for its time, and the
   third with it; then another session gets the line.  kind & 1: it has one that
   is up; kind & 2: it is for its size that the second waits, and so, being
   read, apart. */
static int adopt_scene(int kind)
{
    rt_listen_opts o = {.rate_over = RT_OVER_PAUSE};
    int up = kind & 1, bytes = kind & 2;
    rt_session old;
    char token[23];
    sim_peer *p, *q;
    int well, took;

    *(bytes ? &o.byte_rate : &o.rate_limit) = bytes ? 4 : 1;
    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    turns(2);
    old = host.last;
    EQUAL(rt_keep(host.loop, old, 60000, token), 0);
    EQUAL(rt_send(host.loop, old, RT_TEXT, "kept", 4), 0);
    turns(2);
    if (!up)
        sim_peer_reset(p);
    turns(2);
    q = sim_connect(PORT);
    turns(2);
    put(q, "one");
    put(q, "two");
    put(q, "three");
    turns(3);
    CHECK(strcmp(host.got, "one|") == 0);
    starve();
    took = rt_adopt(host.loop, old, host.last, 0);
    well = fed();
    CHECK(took == 0 || took == RT_ENOMEM);
    CHECK(took == 0 || !well);
    pass(5000);
    if (took == 0 && rt_state(host.loop, old) == RT_OPEN) {
        CHECK(strcmp(host.got, "one|two|three|") == 0);
        CHECK(strcmp(take(q), "kept") == 0);
    }
    world_end();
    return well;
}

static void an_adopted_line_brings_what_waits_on_it(void)
{
    int kind;

    for (kind = 0; kind < 4; kind++)
        each_allocation(adopt_scene, kind);
}

/* What is behind so many large messages goes last. */
static void send_large(int count)
{
    static char large[20000];

    for (; count > 0; count--)
        CHECK(rt_send(host.loop, host.last, RT_BINARY, large, sizeof large) >=
              0);
}

static int acknowledged;

static void note_16(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    (void)w;
    acknowledged |= op == WS_TEXT && len == 3 && memcmp(data, "a16", 3) == 0;
}

/* A client of rtnet.1 over WebSocket; kept: so many messages wait for it, 18
   and above a longer one. */
static int ack_scene(int kept)
{
    static const char filling[600];
    rt_listen_opts o = {.resume_ms = 60000};
    static const char request[] =
        GET UP KEY "Connection: Upgrade\r\n"
                   "Sec-WebSocket-Protocol: rtnet.1\r\n\r\n";
    ws_peer *w;
    int i, well;

    world();
    serve(&o);
    w = ws_connect_silent(PORT);
    ws_raw(w, request, sizeof request - 1);
    ws_pump(w);
    turns(3);
    ws_pump(w);
    ws_send(w, WS_TEXT, "h", 1);
    ws_pump(w);
    turns(3);
    ws_pump(w);
    ws_send(w, WS_TEXT, "a0", 2);
    ws_pump(w);
    turns(3);
    EQUAL(host.opens, 1);
    w->on = note_16;
    acknowledged = 0;
    for (i = 0; i < 16; i++)
        ws_send(w, WS_TEXT, "m", 1);
    for (i = 0; i < kept && kept < 18; i++)
        CHECK(rt_send(host.loop, host.last, RT_TEXT, "kept", 4) >= 0);
    if (kept >= 18) /* at some length its buffer is just full */
        EQUAL(rt_send(host.loop, host.last, RT_BINARY, filling,
                      400 + 4 * ((size_t)kept - 18)),
              0);
    ws_pump(w);
    starve();
    turns(4);
    well = fed();
    pass(1000);
    ws_pump(w);
    EQUAL(acknowledged, rt_state(host.loop, host.last) == RT_OPEN);
    ws_free(w);
    world_end();
    return well;
}

static void an_acknowledgement_that_lacks_memory_is_still_owed(void)
{
    int kept;

    for (kept = 0; kept < 50; kept++)
        each_allocation(ack_scene, kept);
}

/* One comes back while its line is up and nothing is kept for it. */
static int settled_scene(int variant)
{
    char token[23];
    sim_peer *p, *q;
    int well;

    (void)variant;
    typed_world();
    snprintf(token, sizeof token, "%s", typed_client(&p));
    pass(2000);
    EQUAL(host.opens, 1);
    q = sim_connect(PORT);
    turns(1);
    starve();
    come_again(q, token, 0, 1);
    turns(3);
    well = fed();
    EQUAL(host.opens, 1);
    CHECK(strstr(take(q), " resumed ") != NULL || !well);
    world_end();
    return well;
}

static void who_comes_back_without_memory_for_it_is_put_off(void)
{
    each_allocation(settled_scene, 0);
}

static int pong_scene(int before)
{
    static const rt_listen_opts o = {.soft_mark = 1 << 20,
                                     .hard_mark = 1 << 20};
    ws_peer *w;
    int i, well;

    world();
    serve(&o);
    w = peer();
    sim_peer_window(w->line, 0);
    send_large(before);
    turns(2);
    w->reads = 0;
    ws_frame(w, 0x80 | WS_PING, "p", 1);
    ws_pump(w);
    turns(2); /* the pong waits for a place in the queue */
    starve();
    sim_peer_window(w->line, 65536);
    turns(2);
    well = fed();
    w->reads = 1;
    for (i = 0; i < 20; i++) {
        ws_pump(w);
        turns(1);
    }
    CHECK(w->pongs_got == 1 || !well);
    CHECK(host.closes == 0 || !well);
    ws_free(w);
    world_end();
    return well;
}

static void a_pong_that_lacks_memory_is_left_out(void)
{
    int before;

    for (before = 0; before < 10; before++)
        each_allocation(pong_scene, before);
}

static size_t large_bye(void *ctx, uint8_t out[256], int code,
                        const char *reason)
{
    (void)ctx;
    (void)code;
    (void)reason;
    memset(out, 'b', 256);
    return 256;
}

static int bye_scene(int before)
{
    static const rt_codec codec = {
        .decode = any_decode, .head = any_head, .bye = large_bye};
    static const rt_listen_opts o = {
        .codec = &codec, .soft_mark = 1 << 20, .hard_mark = 1 << 20};
    static char got[200000];
    sim_peer *p;
    size_t n;
    int well;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    turns(3);
    send_large(before);
    starve();
    EQUAL(rt_close(host.loop, host.last, 0, NULL), 0);
    well = fed();
    turns(3);
    n = sim_peer_recv(p, got, sizeof got);
    turns(3);
    n += sim_peer_recv(p, got, sizeof got);
    EQUAL(n, 20000u * (unsigned)before + (well ? 256 : 0));
    sim_peer_close(p);
    world_end();
    return well;
}

static void a_codecs_goodbye_that_lacks_memory_is_left_out(void)
{
    int before;

    for (before = 0; before < 5; before++)
        each_allocation(bye_scene, before);
}

/* What a turn sends is more than one block holds; the next one is wanting. */
static int arena_scene(int others)
{
    static const rt_listen_opts o = {.soft_mark = 1 << 20,
                                     .hard_mark = 1 << 20};
    static char message[1000];
    ws_peer *a, *b;
    rt_session one;
    int i, well;

    world();
    serve(&o);
    a = peer();
    one = host.last;
    b = peer();
    for (i = 0; i < 65; i++)
        EQUAL(rt_send(host.loop, one, RT_BINARY, message, 1000), 0);
    starve();
    sim_fail_memory(hunger.nth, 1);
    i = rt_send(host.loop, others ? host.last : one, RT_BINARY, message, 1000);
    well = fed();
    EQUAL(i, well ? 0 : RT_ENOMEM);
    EQUAL(rt_send(host.loop, one, RT_BINARY, message, 1000), 0);
    turns(3);
    ws_pump(a);
    ws_pump(b);
    ws_free(a);
    ws_free(b);
    world_end();
    return well;
}

static void a_message_that_finds_no_block_is_refused(void)
{
    each_allocation(arena_scene, 0);
    each_allocation(arena_scene, 1);
}

/* Beside so many timers of the host's. */
static void timers(int count)
{
    while (count-- > 0)
        CHECK(rt_timer_start(host.loop, (rt_session){0}, sim_now() + 60000,
                             on_timer, NULL)
                  .id != 0);
}

static int listen_scene(int beside)
{
    int error, made, well;

    world();
    timers(beside);
    starve();
    made = listen_on("ws://127.0.0.1:9000", NULL).id != 0;
    well = fed();
    EQUAL(made, well);
    why(&error);
    CHECK(well || error == RT_ENOMEM);
    if (!well)
        serve(NULL);
    world_end();
    return well;
}

static int new_dial_scene(int beside)
{
    int made, well;

    world();
    timers(beside);
    sim_serve(7);
    starve();
    made = dial("ws://127.0.0.1:7", (rt_dial_opts){.resume = 1}).id != 0;
    well = fed();
    EQUAL(made, well);
    world_end();
    return well;
}

static void what_lacks_memory_is_neither_listened_for_nor_dialled(void)
{
    int beside;

    for (beside = 0; beside < 36; beside++) {
        each_allocation(listen_scene, beside);
        each_allocation(new_dial_scene, beside);
    }
}

static int keep_again_scene(int variant)
{
    sim_peer *p;
    char first[23], token[23];
    int error, well;

    (void)variant;
    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", NULL).id != 0);
    p = sim_connect(PORT);
    turns(2);
    EQUAL(rt_keep(host.loop, host.last, 60000, first), 0);
    pass(2000);
    EQUAL(rt_acked(host.loop, host.last, 0), 0); /* nothing is kept */
    starve();
    error = rt_keep(host.loop, host.last, 60000, token);
    well = fed();
    EQUAL(error, well ? 0 : RT_ENOMEM);
    EQUAL(rt_find_token(host.loop, well ? token : first).id, host.last.id);
    sim_peer_close(p);
    world_end();
    return well;
}

static void a_session_keeps_its_token_where_memory_lacks_for_another(void)
{
    each_allocation(keep_again_scene, 0);
}

/* Both lines are up; the old one has nothing kept for it, or with 1 another
   wire and something. */
static int adopt_up_scene(int other_wire)
{
    rt_session old;
    char token[23];
    sim_peer *p;
    ws_peer *w;
    int error, well;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9001", NULL).id != 0);
    serve(NULL);
    p = sim_connect(9001);
    turns(2);
    old = host.last;
    EQUAL(rt_keep(host.loop, old, 60000, token), 0);
    EQUAL(rt_acked(host.loop, old, 0), 0);
    if (other_wire)
        EQUAL(rt_send(host.loop, old, RT_BINARY, "kept", 4), 0);
    turns(3);
    w = peer();
    starve();
    error = rt_adopt(host.loop, old, host.last, 0);
    well = fed();
    CHECK(error == 0 || (error == RT_ENOMEM && !well));
    turns(3);
    EQUAL(rt_state(host.loop, old), error || well ? RT_OPEN : RT_AWAY);
    sim_peer_close(p);
    ws_free(w);
    world_end();
    return well;
}

static void adopting_without_memory_leaves_both_or_loses_the_line(void)
{
    each_allocation(adopt_up_scene, 0);
    each_allocation(adopt_up_scene, 1);
}

/* What a session lost on its way is made up for by a group's newest values. */
static int repay_scene(int variant)
{
    rt_group_opts g = {.snapshot = 4};
    rt_group group;
    rt_session old;
    char token[23];
    sim_peer *p, *q;
    int well;

    (void)variant;
    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", NULL).id != 0);
    group = rt_group_open(host.loop, "g", &g);
    p = sim_connect(PORT);
    turns(2);
    old = host.last;
    EQUAL(rt_keep(host.loop, old, 60000, token), 0);
    EQUAL(rt_group_join(host.loop, group, old), 0);
    EQUAL(rt_group_send(host.loop, group, RT_TEXT | rt_latest(1), "new", 3), 1);
    turns(2);
    sim_peer_reset(p);
    turns(2);
    EQUAL(rt_send(host.loop, old, RT_TEXT, "lost", 4), 0);
    q = sim_connect(PORT);
    turns(2);
    EQUAL(rt_adopt(host.loop, old, host.last, RT_UNCOUNTED), 0);
    starve();
    turns(1);
    well = fed();
    CHECK(strcmp(take(q), "new") == 0 || !well);
    sim_peer_close(q);
    world_end();
    return well;
}

static void a_snapshot_that_lacks_memory_ends_nothing_else(void)
{
    each_allocation(repay_scene, 0);
}

/* A client is welcomed back and has to acknowledge that. */
static int back_scene(int variant)
{
    rt_dial_opts o = {.resume = 1, .framing = RT_RTNET1};
    rt_session s;
    sim_peer *p;
    int well;

    (void)variant;
    world();
    sim_serve(7);
    s = dial("tcp://127.0.0.1:7", o);
    pass(50);
    p = welcomed("w" TOKEN " who 0 0 new 15000");
    EQUAL(rt_send(host.loop, s, RT_TEXT, "kept", 4), 0);
    turns(2);
    sim_peer_reset(p);
    pass(5000);
    p = sim_accept(7);
    CHECK(p != NULL);
    EQUAL(take(p)[0], 'h');
    put(p, "w" TOKEN " who 0 0 resumed 15000");
    starve();
    turns(3);
    well = fed();
    EQUAL(host.closes, 0);
    if (well)
        EQUAL(rt_state(host.loop, s), RT_OPEN);
    world_end();
    return well;
}

static void a_client_welcomed_without_memory_stays_away(void)
{
    each_allocation(back_scene, 0);
}

/* ---- whatever else ---------------------------------------------------------
 */

static size_t largest;

static void *largest_realloc(void *user, void *p, size_t old, size_t now)
{
    if (now > largest)
        largest = now;
    return sim_realloc(user, p, old, now);
}

/* So large that its buffer is no power of two. */
static void a_message_under_way_takes_no_more_than_is_announced(void)
{
    enum { ALL = 140000 };
    static const char zeros[ALL];
    uint8_t head[4] = {ALL >> 24, ALL >> 16 & 255, ALL >> 8 & 255, ALL & 255};
    rt_listen_opts o = {.framing = RT_LENGTH, .max_message = ALL};
    rt_loop_opts loop = {.realloc = largest_realloc};
    sim_peer *p;
    int i;

    world_with(&loop, NULL);
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    turns(3);
    largest = 0;
    sim_peer_send(p, head, sizeof head);
    for (i = 0; i < ALL - 1000; i += 1000) {
        sim_peer_send(p, zeros, 1000);
        turns(1);
    }
    CHECK(largest >= ALL);
    CHECK(largest < ALL + 100);
    sim_peer_close(p);
    world_end();
}

static void a_clock_that_fails_stands_still(void)
{
    uint64_t now;

    world();
    now = rt_now(host.loop);
    sim_pass(1000);
    sim_fail(SIM_clock_gettime, 1, EINVAL);
    EQUAL(rt_now(host.loop), now);
    EQUAL(rt_now(host.loop), now + 1000);
    world_end();
}

/* Two processors whose clocks differ a little: who is asked in turn makes no
   time. */
static void a_clock_that_sways_makes_no_time(void)
{
    uint64_t now;
    int i;

    world();
    now = rt_now(host.loop);
    for (i = 0; i < 1000; i++) {
        sim_jump(i & 1 ? 5 : -5);
        rt_now(host.loop);
    }
    EQUAL(rt_now(host.loop), now);
    sim_pass(1000);
    EQUAL(rt_now(host.loop), now + 1000);
    world_end();
}

static void blanks_around_a_forwarded_address_do_not_matter(void)
{
    rt_listen_opts o = {.proxies = "127.0.0.1, 10.0.0.0/8",
                        .max_per_address = 1};

    world();
    serve(&o);
    EQUAL(status_of(GET "X-Forwarded-For: 1.2.3.4 \t, \t10.1.1.1 \t\r\n\r\n"),
          404);
    EQUAL(status_of(GET "X-Forwarded-For: , 10.1.1.1\t\r\n\r\n"), 404);
    EQUAL(status_of(GET "X-Forwarded-For: \t,\t\r\n\r\n"), 404);
    world_end();
}

static const char proxied_line[] = "PROXY TCP4 9.9.9.9 127.0.0.1 5 9000\r\n";

/* A second after a, of which the proxy has said nothing yet, two come from the
   address it will name: c is refused, as soon as it asks. */
static void proxied_and_two(sim_peer **a, sim_peer **b, sim_peer **c)
{
    rt_listen_opts o = {
        .proxies = "127.0.0.1", .proxy_protocol = 1, .max_per_address = 1};

    world();
    serve(&o);
    *a = sim_connect(PORT);
    turns(2);
    pass(1000);
    *b = sim_connect_from(PORT, "9.9.9.9");
    turns(2);
    *c = sim_connect_from(PORT, "9.9.9.9");
    turns(2);
}

static void who_is_refused_behind_a_proxy_has_only_the_rest_of_its_time(void)
{
    sim_peer *a, *b, *c;

    proxied_and_two(&a, &b, &c);
    pass(1000);
    sim_peer_send(a, proxied_line, sizeof proxied_line - 1); /* refused, too */
    turns(3);
    EQUAL(sim_streams(), 3);
    pass(2990); /* 5 s for a */
    EQUAL(sim_streams(), 3);
    pass(20);
    EQUAL(sim_streams(), 2);
    pass(1000); /* and for the two others */
    EQUAL(sim_streams(), 0);
    sim_peer_close(a);
    sim_peer_close(b);
    sim_peer_close(c);
    world_end();
}

/* A deadline of an earlier arrival goes into the middle of the list; who leaves
   behind it must not take it along. */
static void who_is_refused_late_is_still_found_when_others_have_gone(void)
{
    sim_peer *a, *b, *c;

    proxied_and_two(&a, &b, &c);
    sim_peer_send(a, proxied_line, sizeof proxied_line - 1); /* in front of c */
    turns(3);
    sim_peer_close(c);
    turns(2);
    EQUAL(sim_streams(), 2);
    pass(3990);
    EQUAL(sim_streams(), 2);
    pass(20);
    EQUAL(sim_streams(), 1); /* b has its own time */
    sim_peer_close(a);
    sim_peer_close(b);
    world_end();
}

static size_t mute_bye(void *ctx, uint8_t out[256], int code,
                       const char *reason)
{
    (void)ctx;
    (void)out;
    (void)code;
    (void)reason;
    return 0;
}

static void who_is_refused_by_a_codec_without_words_hears_nothing(void)
{
    static const rt_codec codec = {
        .decode = any_decode, .head = any_head, .bye = mute_bye};
    rt_listen_opts o = {.codec = &codec, .max_per_address = 1};
    sim_peer *a, *b;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    a = sim_connect(PORT);
    b = sim_connect(PORT);
    turns(3);
    EQUAL(host.opens, 1);
    EQUAL(sim_peer_state(b), SIM_FIN);
    EQUAL(sim_peer_waiting(b), 0);
    sim_peer_close(a);
    sim_peer_close(b);
    world_end();
}

/* The connection's one timer runs each millisecond, for its pings. */
static void a_pause_ends_in_its_millisecond_and_not_before(void)
{
    rt_listen_opts o = {.rate_limit = 1,
                        .rate_ms = 100,
                        .rate_over = RT_OVER_PAUSE,
                        .ping_ms = 1,
                        .dead_pings = RT_OFF};
    ws_peer *w;
    uint64_t then;

    world();
    serve(&o);
    w = peer();
    then = sim_now();
    ws_send(w, WS_TEXT, "one", 3);
    ws_send(w, WS_TEXT, "two", 3);
    ws_pump(w);
    turns(3);
    CHECK(strcmp(host.got, "one|") == 0);
    EQUAL(sim_now(), then);
    pass(99);
    CHECK(strcmp(host.got, "one|") == 0);
    pass(1);
    turns(2);
    CHECK(strcmp(host.got, "one|two|") == 0);
    ws_free(w);
    world_end();
}

/* Two wait and one goes, again and again: the queue is no longer for it. */
static void a_short_queue_that_moves_on_does_not_grow(void)
{
    static const char text[40000]; /* a buffer for each */
    rt__session *s;
    ws_peer *w;
    int i;

    world();
    serve(NULL);
    w = peer();
    s = (rt__session *)rt__slot_get(host.loop, host.last.id, RT__SESSION);
    sim_peer_window(w->line, 0);
    for (i = 0; i < 40; i++) {
        EQUAL(rt_send(host.loop, host.last, RT_BINARY, text, sizeof text),
              i > 0);
        turns(2);
        CHECK(s->conn->out->cap <= 4);
        if (i < 2)
            continue;
        sim_peer_window(w->line, 40004); /* one frame */
        turns(2);
        ws_pump(w);
        sim_peer_window(w->line, 0);
        EQUAL(rt_unsent(host.loop, host.last), 2 * 40004);
    }
    ws_free(w);
    world_end();
}

/* Of 300,000 bytes. */
static void a_buffer_that_was_kept_takes_a_long_message_from_its_eighth_on(void)
{
    static const uint8_t text[300000];
    static const uint8_t head[14] = {0x82, 0xff, 0, 0, 0, 0, 0, 4, 0x93, 0xe0};
    rt_listen_opts o = {.max_message = 1 << 20};
    rt__session *s;
    ws_peer *w;
    int i;

    world();
    serve(&o);
    w = peer();
    ws_send(w, WS_BINARY, text, sizeof text);
    for (i = 0; i < 20; i++) {
        ws_pump(w);
        turns(1);
    }
    CHECK(strcmp(host.got, "|") == 0);
    CHECK(host.loop->large_kept >= sizeof text);
    s = (rt__session *)rt__slot_get(host.loop, host.last.id, RT__SESSION);
    ws_raw(w, head, sizeof head);
    ws_raw(w, text, 30000);
    ws_pump(w);
    turns(2);
    CHECK(s->conn->in->data->cap < 100000); /* who only announces gets none */
    ws_raw(w, text, 10000);
    ws_pump(w);
    turns(2);
    CHECK(s->conn->in->data->cap >= sizeof text);
    ws_free(w);
    world_end();
}

/* They were bound in another order than they went. */
static void for_a_new_login_the_one_away_for_longest_makes_room(void)
{
    static const int order[] = {0, 2, 1};
    rt_loop_opts o = {.bind_policy = RT_BIND_MANY, .bind_max = 3};
    rt_session s[3];
    ws_peer *w[4];
    char token[23];
    int i;

    world_with(&o, NULL);
    serve(NULL);
    for (i = 0; i < 3; i++) {
        w[i] = peer();
        s[i] = host.last;
        EQUAL(rt_keep(host.loop, s[i], 60000, token), 0);
        EQUAL(rt_bind(host.loop, s[i], "anna"), 0);
    }
    for (i = 0; i < 3; i++) {
        sim_peer_reset(w[order[i]]->line);
        pass(10);
    }
    w[3] = peer();
    EQUAL(rt_bind(host.loop, host.last, "anna"), 0);
    turns(2);
    EQUAL(rt_state(host.loop, s[0]), RT_EGONE);
    EQUAL(rt_state(host.loop, s[1]), RT_AWAY);
    EQUAL(rt_state(host.loop, s[2]), RT_AWAY);
    for (i = 0; i < 4; i++)
        ws_free(w[i]);
    world_end();
}

/* Of bytes there is no frame to be taken off. */
static void what_is_kept_of_raw_bytes_is_bounded_by_their_number(void)
{
    static const char text[2000];
    rt_listen_opts o = {.framing = RT_RAW};
    char token[23];
    sim_peer *p;
    int i;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    turns(3);
    EQUAL(rt_keep(host.loop, host.last, 60000, token), 0);
    sim_peer_reset(p);
    turns(2);
    for (i = 0; i < 40; i++)
        CHECK(rt_send(host.loop, host.last, RT_BINARY, text, sizeof text) >= 0);
    EQUAL(host.loop->replay_bytes, 65536 / 2000 * 2000);
    sim_peer_close(p);
    world_end();
}

static uint8_t pinged[4];

static void ping_kept(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    (void)w;
    if (op == WS_PING && len == sizeof pinged)
        memcpy(pinged, data, len);
}

/* Of the same length, or the beginning of the right one. */
static void a_pong_that_repeats_another_ping_is_no_answer(void)
{
    rt_listen_opts o = {.ping_ms = 1000};
    uint8_t other[4];
    ws_peer *w;

    world();
    serve(&o);
    w = peer();
    w->pongs = 0;
    w->on = ping_kept;
    pass(1100);
    ws_pump(w);
    EQUAL(w->pings_got, 1);
    memcpy(other, pinged, 4);
    other[3] ^= 1;
    ws_frame(w, 0x80 | WS_PONG, other, 4);
    ws_frame(w, 0x80 | WS_PONG, pinged, 3);
    ws_pump(w);
    turns(2);
    EQUAL(rt_rtt(host.loop, host.last, NULL, NULL), RT_ESTATE);
    ws_frame(w, 0x80 | WS_PONG, pinged, 4);
    ws_pump(w);
    turns(2);
    EQUAL(rt_rtt(host.loop, host.last, NULL, NULL), 0);
    ws_free(w);
    world_end();
}

static void an_answer_that_waited_behind_a_pause_ends_a_farewell_at_once(void)
{
    rt_listen_opts o = {.rate_limit = 1, .rate_over = RT_OVER_PAUSE};
    ws_peer *w;

    world();
    serve(&o);
    w = peer();
    ws_send(w, WS_TEXT, "one", 3);
    ws_send(w, WS_TEXT, "two", 3);
    ws_close(w, 1000);
    ws_pump(w);
    turns(2);
    CHECK(strcmp(host.got, "one|") == 0);
    EQUAL(sim_streams(), 1);
    EQUAL(rt_close(host.loop, host.last, 4000, NULL), 0);
    turns(3);
    EQUAL(sim_streams(), 0);
    CHECK(strcmp(host.got, "one|") == 0);
    ws_free(w);
    world_end();
}

/* Offers rtnet.1 and says nothing more; returns the ms it was borne from now
   on, up to 20 s. */
static int borne(sim_peer *p)
{
    char answer[512];
    int ms = 0;

    turns(3);
    CHECK(sim_peer_recv(p, answer, sizeof answer) > 12);
    CHECK(memcmp(answer + 9, "101", 3) == 0);
    while (ms < 20000 && sim_peer_state(p) == SIM_UP && !sim_peer_waiting(p)) {
        pass(100);
        ms += 100;
    }
    sim_peer_close(p);
    return ms;
}

/* Whoever was thought about has the time of a handshake again, once it is
   accepted; nobody else wins any by asking late. */
static void
a_greeting_has_the_rest_of_its_time_or_all_of_it_after_a_thought(void)
{
    static const char request[] = GET UP KEY
        "Connection: Upgrade\r\nSec-WebSocket-Protocol: rtnet.1\r\n\r\n";
    rt_listen_opts o = {.resume_ms = 10000};
    sim_peer *p;
    int ms;

    world();
    serve(&o);
    p = sim_connect(PORT);
    turns(2);
    pass(4000);
    sim_peer_send(p, request, sizeof request - 1);
    ms = borne(p);
    CHECK(ms >= 900 && ms <= 1100);
    host.answer = RT_DEFER;
    p = sim_connect(PORT);
    sim_peer_send(p, request, sizeof request - 1);
    turns(3);
    pass(7000);
    EQUAL(rt_accept(host.loop, host.last, NULL), 0);
    ms = borne(p);
    CHECK(ms >= 4900 && ms <= 5100);
    world_end();
}

static void only_a_local_address_is_looked_for_in_the_file_system(void)
{
    uint64_t looks;
    int error;

    world();
    serve(NULL);
    looks = sim_calls(SIM_lstat) + sim_calls(SIM_stat);
    EQUAL(listen_on("ws://127.0.0.1:9000", NULL).id, 0);
    CHECK(strstr(why(&error), strerror(EADDRINUSE)) != NULL);
    EQUAL(error, RT_ESYS);
    EQUAL(sim_calls(SIM_lstat) + sim_calls(SIM_stat), looks);
    world_end();
}

static void a_length_alone_gets_no_buffer(void)
{
    static const uint8_t head[4] = {0, 0, 3, 0};
    rt__session *s;
    sim_peer *p;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", NULL).id != 0);
    p = sim_connect(PORT);
    turns(3);
    sim_peer_send(p, head, 4);
    turns(2);
    s = (rt__session *)rt__slot_get(host.loop, host.last.id, RT__SESSION);
    CHECK(s->conn->in->in_frame);
    CHECK(s->conn->in->data == NULL);
    sim_peer_send(p, head, 1);
    turns(2);
    CHECK(s->conn->in->data != NULL);
    sim_peer_close(p);
    world_end();
}

static void an_interrupted_wait_tells_of_no_event(void)
{
    static const enum sim_call waits[] = {
        [RT_EPOLL] = SIM_epoll_wait,
        [RT_KQUEUE] = SIM_kevent,
        [RT_SELECT] = SIM_select,
    };

    world();
    sim_fail(waits[host.backend], 1, EINTR);
    EQUAL(rt_poll(host.loop, 0), 0);
    world_end();
}

/* at: when descriptors run short, of the 5 s that who is refused may wait. */
static void rests_with_one_refused(uint64_t at)
{
    rt_listen_opts o = {.max_per_address = 1};
    sim_peer *a, *b, *c, *d;

    world();
    serve(&o);
    a = sim_connect(PORT);
    b = sim_connect(PORT);
    d = sim_connect(PORT);
    turns(3);
    EQUAL(sim_streams(), 3);
    pass(at);
    sim_fail_ever(SIM_accept4, 1, EMFILE);
    c = sim_connect_from(PORT, "9.9.9.9");
    turns(2);
    sim_fail(SIM_accept4, 0, 0);
    pass(60);
    EQUAL(sim_streams(), at < 1000 ? 2 : 0); /* it rests for 100 ms */
    pass(1000);
    EQUAL(sim_peer_state(c), SIM_UP);
    EQUAL(sim_streams(), at < 1000 ? 3 : 1); /* one made room for c */
    sim_peer_close(d);
    sim_peer_close(a);
    sim_peer_close(b);
    sim_peer_close(c);
    world_end();
}

static void a_listener_that_rests_still_ends_whom_it_refused(void)
{
    rests_with_one_refused(100);
    rests_with_one_refused(4950);
    rests_with_one_refused(4990);
}

/* One listener's handshakes are none of the other's. */
static void too_many_handshakes_are_one_listeners_affair(void)
{
    rt_listen_opts o = {.max_handshakes = 1};
    sim_peer *a, *b, *c;

    world();
    CHECK(listen_on("ws://127.0.0.1:9001", NULL).id != 0);
    serve(&o);
    a = sim_connect(9001);
    turns(2);
    b = sim_connect(PORT);
    turns(2);
    c = sim_connect(PORT);
    turns(2);
    EQUAL(sim_peer_state(a), SIM_UP);
    CHECK(sim_peer_state(b) != SIM_UP);
    EQUAL(sim_peer_state(c), SIM_UP);
    sim_peer_close(a);
    sim_peer_close(b);
    sim_peer_close(c);
    world_end();
}

static char *filter_text;

static int on_filter(rt_loop *l, rt_session s, rt_message *m)
{
    (void)l;
    (void)s;
    m->data = (uint8_t *)filter_text;
    m->len = strlen(filter_text);
    return 0;
}

static void a_filter_may_answer_with_memory_of_its_own(void)
{
    static char low[] = "below";
    rt_listen_opts o = {.filter = {on_filter}};
    char high[] = "above";
    sim_peer *p;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    filter_text = low;
    put(p, "one");
    turns(3);
    filter_text = high;
    put(p, "two");
    turns(3);
    CHECK(strcmp(host.got, "below|above|") == 0);
    filter_text = NULL;
    sim_peer_close(p);
    world_end();
}

/* The status of a client that offers rtnet.1. */
static int status_offering_rtnet_1(rt_listen_opts o)
{
    int status;

    world();
    CHECK(rt_listen(host.loop, "ws://127.0.0.1:9000", &o).id != 0);
    status = status_of(GET UP KEY "Connection: Upgrade\r\n"
                                  "Sec-WebSocket-Protocol: rtnet.1\r\n\r\n");
    world_end();
    return status;
}

static void rtnet_1_needs_no_on_request(void)
{
    rt_listen_opts o = {.resume_ms = 1000, .on = {.open = on_open}};

    EQUAL(status_offering_rtnet_1(o), 101);
    EQUAL(host.opens, 0); /* it has not greeted */
    o.resume_ms = 0;
    EQUAL(status_offering_rtnet_1(o), 101);
    EQUAL(host.opens, 1);
}

static int on_request_second(rt_loop *l, rt_session s, const rt_request *r)
{
    static char body[300000];

    (void)r;
    if (host.request_calls++ == 0)
        EQUAL(rt_reply(l, s, 200, "", body, sizeof body), 0);
    else
        EQUAL(rt_close(l, s, 0, NULL), 0);
    return 0;
}

static void a_request_that_waited_may_be_closed(void)
{
    rt_listen_opts o = {.on = {.request = on_request_second}};
    static const char two[] = GET "\r\n" GET "\r\n";
    static char buffer[400000];
    sim_peer *p;
    int i;

    world();
    CHECK(rt_listen(host.loop, "ws://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    sim_peer_send(p, two, sizeof two - 1);
    turns(3);
    EQUAL(host.request_calls, 1);
    for (i = 0; i < 10 && host.request_calls == 1; i++) {
        sim_peer_recv(p, buffer, sizeof buffer);
        turns(1);
        sim_peer_send(p, "GET", 3);
    }
    turns(3);
    EQUAL(host.request_calls, 2);
    EQUAL(sim_streams(), 0);
    sim_peer_close(p);
    world_end();
}

/* One more member with a snapshot of a key, an older value of which is still on
   its way to it.  read: the peer has taken that. */
static void snapshot_in_a_narrow_queue(int read)
{
    static char big[700];
    rt_listen_opts o = {.hard_mark = 1500, .soft_mark = 1400};
    rt_group_opts g = {.snapshot = 4};
    rt_group group;
    char token[23], buffer[2000];
    sim_peer *p;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &o).id != 0);
    p = sim_connect(PORT);
    turns(2);
    EQUAL(rt_keep(host.loop, host.last, 60000, token), 0);
    group = rt_group_open(host.loop, "g", &g);
    EQUAL(rt_group_send(host.loop, group, RT_BINARY | rt_latest(1), big, 700),
          0);
    if (!read)
        sim_peer_window(p, 0);
    CHECK(rt_send(host.loop, host.last, RT_BINARY | rt_latest(1), "old", 3) >=
          0);
    turns(3);
    if (read)
        CHECK(sim_peer_recv(p, buffer, sizeof buffer) == 7);
    sim_peer_window(p, 0);
    EQUAL(rt_group_join(host.loop, group, host.last), 0);
    EQUAL(host.closes, 0);
    sim_peer_window(p, 65536);
    turns(5);
    EQUAL(sim_peer_recv(p, buffer, sizeof buffer), 704); /* once */
    sim_peer_close(p);
    world_end();
}

static void a_snapshot_makes_an_older_value_of_its_key_vanish(void)
{
    snapshot_in_a_narrow_queue(0);
    snapshot_in_a_narrow_queue(1);
}

static size_t no_beat(void *ctx, uint8_t out[64])
{
    (void)ctx;
    out[0] = 0;
    return 0;
}

static size_t one_bye(void *ctx, uint8_t out[256], int code, const char *reason)
{
    (void)ctx;
    (void)code;
    (void)reason;
    out[0] = 'b';
    return 1;
}

static void a_codec_may_have_no_beat_and_clients_say_bye(void)
{
    static const rt_codec quiet = {.decode = any_decode,
                                   .head = any_head,
                                   .beat = no_beat,
                                   .bye = one_bye};
    rt_listen_opts lo = {.codec = &quiet, .ping_ms = 10, .dead_pings = 3};
    rt_dial_opts o = {.codec = &quiet, .ping_ms = 10};
    rt_session s;
    ws_peer *w;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9000", &lo).id != 0);
    CHECK(sim_connect(PORT) != NULL);
    pass(15);
    sim_serve(7);
    s = dial("ws://127.0.0.1:7", o);
    pass(50);
    w = ws_accept(7);
    CHECK(w != NULL);
    ws_pump(w);
    pass(20);
    ws_pump(w);
    EQUAL(rt_close(host.loop, s, 0, NULL), 0);
    turns(3);
    ws_pump(w);
    EQUAL(w->close_code, 1000);
    ws_free(w);
    world_end();
}

static size_t heard[4]; /* lengths of the messages that a peer got */
static int heard_count;

static void note_length(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    (void)w;
    (void)op;
    (void)data;
    heard[heard_count++ & 3] = len;
}

static void a_crowd_gets_more_than_its_log_holds(void)
{
    static char big[20000];
    enum { CROWD = 2 * RT__CROWD_LEAST };
    /* With the longest head just what a crowd may wait for. */
    const size_t rest = RT__CROWD_BYTES - (sizeof big + 4) - 10;
    ws_peer *w[CROWD];
    rt_group group;
    int i;

    world();
    serve(NULL);
    group = rt_group_open(host.loop, "g", NULL);
    for (i = 0; i < CROWD; i++) {
        w[i] = peer();
        w[i]->on = note_length;
        EQUAL(rt_group_join(host.loop, group, host.last), 0);
    }
    EQUAL(rt_group_send(host.loop, group, RT_BINARY, big, sizeof big), CROWD);
    EQUAL(rt_group_send(host.loop, group, RT_BINARY, big, rest), CROWD);
    EQUAL(rt_group_send(host.loop, group, RT_BINARY, big, 3), CROWD);
    turns(2);
    for (i = 0; i < CROWD; i++) {
        heard_count = 0;
        ws_pump(w[i]);
        EQUAL(heard_count, 3);
        EQUAL(heard[0], sizeof big);
        EQUAL(heard[1], rest);
        EQUAL(heard[2], 3);
        ws_free(w[i]);
    }
    world_end();
}

/* So much to each of them. */
static void cast(rt_group group, size_t size)
{
    static const char message[20000];

    CHECK(rt_group_send(host.loop, group, RT_BINARY, message, size) > 0);
}

static void a_crowd_gets_all_though_one_lags_and_the_log_is_full(void)
{
    enum { CROWD = 2 * RT__CROWD_LEAST };
    ws_peer *w[CROWD];
    rt_group group;
    int i, turn;

    world();
    serve(NULL);
    group = rt_group_open(host.loop, "g", NULL);
    for (i = 0; i < CROWD; i++) {
        w[i] = peer();
        w[i]->on = note_length;
        EQUAL(rt_group_join(host.loop, group, host.last), 0);
    }
    heard_count = 0;
    for (turn = 0; turn < 3; turn++) {
        if (turn == 1)
            sim_peer_window(w[0]->line, 100); /* it lags, so the log goes on */
        cast(group, turn < 2 ? 9000 : 20000);
        if (turn != 1)
            cast(group, turn ? 10000 : 9000);
        turns(1);
        for (i = turn > 0; i < CROWD; i++)
            ws_pump(w[i]);
    }
    sim_peer_window(w[0]->line, 65536);
    for (i = 0; i < 4; i++) {
        turns(1);
        ws_pump(w[0]);
    }
    EQUAL(heard_count, 5 * CROWD);
    EQUAL(host.closes, 0);
    for (i = 0; i < CROWD; i++)
        ws_free(w[i]);
    world_end();
}

/* Both listeners have the same handlers, each a wire of its own. */
static void a_line_of_another_wire_brings_what_was_kept_in_new_frames(void)
{
    rt_session old;
    char token[23];
    sim_peer *p;
    ws_peer *w;

    world();
    CHECK(listen_on("tcp://127.0.0.1:9001", NULL).id != 0);
    serve(NULL);
    p = sim_connect(9001);
    turns(2);
    old = host.last;
    EQUAL(rt_keep(host.loop, old, 60000, token), 0);
    EQUAL(rt_send(host.loop, old, RT_BINARY, "kept", 4), 0);
    sim_peer_reset(p);
    turns(3);
    w = peer();
    w->on = note_length;
    heard_count = 0;
    EQUAL(rt_adopt(host.loop, old, host.last, 0), 0);
    turns(3);
    ws_pump(w);
    EQUAL(heard_count, 1);
    EQUAL(heard[0], 4);
    EQUAL(rt_state(host.loop, old), RT_OPEN);
    ws_free(w);
    world_end();
}

/* ---- all of it ----------------------------------------------------------- */

/* backend: the only one; 0: each. */
struct test_case {
    const char *name;
    void (*run)(void);
    int backend;
};

#define CASE(name)                                                             \
    {                                                                          \
#name, name, 0                                                         \
    }
#define EPOLL_CASE(name)                                                       \
    {                                                                          \
#name, name, RT_EPOLL                                                  \
    }

static const struct test_case cases[] = {
    CASE(a_framing_that_cannot_be_is_refused),
    CASE(what_a_listener_cannot_keep_is_refused),
    CASE(a_dial_that_cannot_be_is_refused),
    CASE(a_host_name_has_at_most_255_characters),
    CASE(a_long_head_is_cut_at_60_kib),
    /* select is not asked for a descriptor that is closed */
    EPOLL_CASE(a_watch_survives_that_its_descriptor_is_used_again),
    EPOLL_CASE(a_loop_ends_with_a_watch_that_lost_its_descriptor),
    CASE(no_more_than_a_watch_for_each_descriptor),
    CASE(a_stale_listener_has_neither_port_nor_socket),
    CASE(a_post_is_written_again_when_interrupted),
    CASE(a_stop_leaves_errno_alone),
    CASE(only_what_is_written_in_full_is_a_version),
    CASE(a_host_is_one_and_names_somebody),
    CASE(connection_is_a_list_of_words),
    CASE(a_key_is_16_bytes_in_base64),
    CASE(a_listed_origin_is_compared_whole),
    CASE(accepting_rtnet_1_needs_sessions_that_resume),
    CASE(what_on_request_returns_beyond_its_range_is_500),
    CASE(an_answer_is_looked_at_before_it_is_sent),
    CASE(neither_204_nor_304_has_a_body_or_its_length),
    CASE(a_length_that_comes_in_parts_is_held_against_the_limit),
    CASE(raw_bytes_that_were_not_written_are_counted_as_lost),
    CASE(raw_bytes_all_written_are_not_lost),
    CASE(without_on_message_messages_are_read_and_dropped),
    CASE(who_is_not_read_may_take_longer_for_its_message),
    CASE(more_than_65535_pings_may_be_unanswered),
    CASE(a_codec_that_points_beyond_its_packet_ends_the_session),
    CASE(a_path_too_long_for_a_local_socket_is_an_error_at_once),
    CASE(an_address_given_before_the_hook_is_asked_suffices),
    CASE(a_resolve_hook_may_close_what_it_is_asked_for),
    CASE(an_address_without_a_socket_for_it_ends_the_session),
    CASE(a_client_tries_again_when_there_was_no_socket),
    CASE(a_welcome_that_does_not_fit_is_a_violation),
    EPOLL_CASE(the_session_that_follows_may_lose_its_line_before_it_opens),
    CASE(of_two_accepted_for_one_user_the_second_is_refused),
    CASE(the_time_the_host_thinks_is_not_the_clients),
    CASE(an_answer_nobody_reads_ends_with_the_handshakes_time),
    CASE(a_shutdown_waits_for_an_answer_on_its_way),
    CASE(what_hooks_would_be_told_behind_the_end_is_forgotten),
    CASE(the_end_of_a_loop_empties_no_group),
    CASE(no_group_is_made_while_the_loop_ends),
    CASE(a_text_that_is_no_token_finds_nobody),
    CASE(beyond_2_24_handles_there_is_none),
    CASE(a_query_is_cut_at_its_ampersands),
    CASE(without_a_handle_nobody_is_let_in),
    CASE(without_a_handle_no_session_opens),
    CASE(without_a_handle_a_resume_is_put_off),
    CASE(a_resume_that_lacks_memory_leaves_the_session_away),
    CASE(a_drained_client_comes_anew_or_says_that_it_cannot),
    CASE(a_client_that_lacks_memory_tries_again),
    CASE(a_client_that_lacks_memory_for_the_next_session_tries_again),
    CASE(a_body_that_cannot_be_asked_for_ends_its_connection),
    CASE(an_adopted_line_brings_what_waits_on_it),
    CASE(an_acknowledgement_that_lacks_memory_is_still_owed),
    CASE(a_clock_that_fails_stands_still),
    CASE(a_clock_that_sways_makes_no_time),
    CASE(a_message_under_way_takes_no_more_than_is_announced),
    CASE(blanks_around_a_forwarded_address_do_not_matter),
    CASE(who_is_refused_behind_a_proxy_has_only_the_rest_of_its_time),
    CASE(a_request_that_waited_may_be_closed),
    CASE(a_snapshot_makes_an_older_value_of_its_key_vanish),
    CASE(a_codec_may_have_no_beat_and_clients_say_bye),
    CASE(a_crowd_gets_more_than_its_log_holds),
    CASE(a_crowd_gets_all_though_one_lags_and_the_log_is_full),
    CASE(a_line_of_another_wire_brings_what_was_kept_in_new_frames),
    CASE(a_packet_whose_size_is_never_known_is_too_large),
    CASE(without_a_limit_pings_are_counted_no_further),
    CASE(a_stream_may_be_probed_more_than_100_times),
    EPOLL_CASE(a_goodbye_that_cannot_read_on_is_the_end_at_once),
    CASE(binding_stops_no_timer_of_the_hosts),
    CASE(who_closes_in_on_open_need_not_bind),
    CASE(a_name_needs_somebody_who_looks_it_up),
    CASE(rtnet_1_is_offered_before_the_hosts_own_protocols),
    CASE(a_status_needs_no_reason_but_three_digits),
    CASE(the_silence_while_a_client_reads_nothing_is_its_own),
    CASE(a_server_may_ask_for_at_most_an_hour),
    CASE(a_goodbye_is_short_and_its_reason_utf_8),
    CASE(a_token_of_more_than_23_characters_is_none),
    CASE(a_session_that_cannot_resume_gets_no_token),
    CASE(who_comes_back_without_memory_for_it_is_put_off),
    CASE(a_pong_that_lacks_memory_is_left_out),
    CASE(a_codecs_goodbye_that_lacks_memory_is_left_out),
    CASE(a_message_that_finds_no_block_is_refused),
    CASE(what_lacks_memory_is_neither_listened_for_nor_dialled),
    CASE(a_session_keeps_its_token_where_memory_lacks_for_another),
    CASE(adopting_without_memory_leaves_both_or_loses_the_line),
    CASE(a_client_welcomed_without_memory_stays_away),
    CASE(a_snapshot_that_lacks_memory_ends_nothing_else),
    CASE(who_is_refused_by_a_codec_without_words_hears_nothing),
    CASE(who_is_refused_late_is_still_found_when_others_have_gone),
    CASE(a_pause_ends_in_its_millisecond_and_not_before),
    CASE(a_short_queue_that_moves_on_does_not_grow),
    CASE(a_buffer_that_was_kept_takes_a_long_message_from_its_eighth_on),
    CASE(for_a_new_login_the_one_away_for_longest_makes_room),
    CASE(what_is_kept_of_raw_bytes_is_bounded_by_their_number),
    CASE(a_pong_that_repeats_another_ping_is_no_answer),
    CASE(an_answer_that_waited_behind_a_pause_ends_a_farewell_at_once),
    CASE(a_greeting_has_the_rest_of_its_time_or_all_of_it_after_a_thought),
    CASE(only_a_local_address_is_looked_for_in_the_file_system),
    CASE(a_length_alone_gets_no_buffer),
    CASE(an_interrupted_wait_tells_of_no_event),
    CASE(a_listener_that_rests_still_ends_whom_it_refused),
    CASE(too_many_handshakes_are_one_listeners_affair),
    CASE(a_filter_may_answer_with_memory_of_its_own),
    CASE(rtnet_1_needs_no_on_request),
};

#undef CASE
#undef EPOLL_CASE

static void case_run(const struct test_case *c, int backend)
{
    if (c->backend && c->backend != backend)
        return;
    test_begin("%s, %s", c->name, backend_names[backend]);
    host.backend = backend;
    c->run();
    test_end();
}

int main(int argc, char **argv)
{
    size_t i;
    int backend;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (argc > 1 && !strstr(cases[i].name, argv[1]))
            continue;
        for (backend = 0; (backend = backend_next(backend)) != 0;)
            case_run(&cases[i], backend);
    }
    return test_done();
}
