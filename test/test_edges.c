/*
 * What is asked for seldom: options and arguments at their bounds, requests
 * that are nearly right, calls in an unusual order or state.  Each case is a
 * world of its own on the simulated kernel, once with each backend.
 */
#include "rtnet_internal.h"
#include "args.h"
#include "sim.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PORT = 9000 };

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

    while (sim_now() < end)
        rt_poll(host.loop, (int)(end - sim_now()));
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
    EQUAL(rt_watch_start(host.loop, (rt_fd)INT32_MAX + 1, RT_READ, no_event,
                         NULL)
              .id,
          0);
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
};

#undef CASE
#undef EPOLL_CASE

static void case_run(const struct test_case *c, int backend)
{
    if (c->backend && c->backend != backend)
        return;
    test_begin("%s, %s", c->name, backend == RT_EPOLL ? "epoll" : "select");
    host.backend = backend;
    c->run();
    test_end();
}

int main(int argc, char **argv)
{
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (argc > 1 && !strstr(cases[i].name, argv[1]))
            continue;
        case_run(&cases[i], RT_EPOLL);
        case_run(&cases[i], RT_SELECT);
    }
    return test_done();
}
