/*
 * What a session costs in memory, by the allocator hook of its loop: idle, as
 * a member of a group, and after a burst.  Limits and resume are off, every
 * other option has its default.
 *
 * A child process makes the connections, on plain sockets, and does as it is
 * told over a pair of them: 'o' opens a tenth of the connections, 'O' the rest,
 * 'b' sends 100 KB on each of a tenth and takes the replies, 'B' on all.  A
 * request arrives whole.  The server runs meanwhile, and its heap is read when
 * it has nothing more to do.
 *
 * Costs of the loop itself must not hide in what is told of one session: the
 * figures named _each are the growth from a tenth of the connections to all,
 * those named _whole everything since the loop began, divided by them all.
 */
#define _GNU_SOURCE
#include "../rtnet.h"
#include "options.h"
#include <netinet/in.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TENTHS = 10, WAVE = 50, MESSAGE = 50000, MESSAGES = 2, SETTLE_MS = 300 };
enum { OUT_HEAD = 8, IN_HEAD = 4 }; /* of a frame of that size */

/* The clients, and the last order they have carried out. */
typedef struct {
    int line;
    char done;
} crew;

static long connections = 10000;
static long heap, sessions;
static rt_session *handles;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *need(void *p)
{
    if (!p)
        die("memory");
    return p;
}

/* ---- the clients: a process of their own */

static const char request[] = "GET / HTTP/1.1\r\n"
                              "Host: 127.0.0.1\r\n"
                              "Upgrade: websocket\r\n"
                              "Connection: Upgrade\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                              "Sec-WebSocket-Version: 13\r\n\r\n";

static void send_all(int fd, const void *p, size_t len)
{
    if (send(fd, p, len, MSG_NOSIGNAL) != (ssize_t)len)
        die("client: send");
}

static int client_open(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    char answer[512];
    ssize_t n;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_port = htons((uint16_t)port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        die("client: connect");
    send_all(fd, request, sizeof request - 1);
    n = recv(fd, answer, sizeof answer, 0);
    if (n < 12 || memcmp(answer + 9, "101", 3) != 0)
        die("client: upgrade");
    return fd;
}

/* A binary frame; a key of zeros masks nothing. */
static uint8_t *frame_new(void)
{
    static const uint8_t head[OUT_HEAD] = {0x82, 0x80 | 126, MESSAGE >> 8,
                                           MESSAGE & 255};
    uint8_t *frame = need(calloc(1, OUT_HEAD + MESSAGE));
    memcpy(frame, head, sizeof head);
    return frame;
}

/* Many at a time, so that what is pooled for one is not enough for all. */
static void clients_burst(const int *fds, long count)
{
    static const size_t back = MESSAGES * (IN_HEAD + MESSAGE);
    uint8_t *frame = frame_new(), *in = need(malloc(back));
    for (long from = 0; from < count; from += WAVE) {
        long to = from + WAVE < count ? from + WAVE : count;
        for (int i = 0; i < MESSAGES; i++)
            for (long k = from; k < to; k++)
                send_all(fds[k], frame, OUT_HEAD + MESSAGE);
        for (long k = from; k < to; k++)
            if (recv(fds[k], in, back, MSG_WAITALL) != (ssize_t)back)
                die("client: recv");
    }
    free(frame);
    free(in);
}

static void clients_obey(char order, int *fds, long *count, int port)
{
    int some = order == 'o' || order == 'b';
    long to = some ? connections / TENTHS : connections;
    while ((order == 'o' || order == 'O') && *count < to)
        fds[(*count)++] = client_open(port);
    if (order == 'b' || order == 'B')
        clients_burst(fds, to);
}

/* Ends when the server does: the other end of the line is gone. */
static void clients_run(int line, int port)
{
    int *fds = need(malloc((size_t)connections * sizeof *fds));
    long count = 0;
    char order;
    while (read(line, &order, 1) == 1) {
        clients_obey(order, fds, &count, port);
        if (write(line, &order, 1) != 1)
            die("client: write");
    }
    free(fds);
    exit(0);
}

/* ---- the server */

static void *hook(void *user, void *p, size_t old, size_t now)
{
    void *q = NULL;
    (void)user;
    if (now == 0)
        free(p);
    else if (!(q = realloc(p, now)))
        return NULL;
    heap += (long)now - (long)old;
    return q;
}

static void on_open(rt_loop *loop, rt_session s)
{
    (void)loop;
    handles[sessions++] = s;
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    rt_send(loop, s, kind, data, len);
}

static void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    fprintf(stderr, "memory: a session ended: %d %s\n", why->code, why->reason);
    exit(1);
}

/* The clients' answer to an order is an event like any other. */
static void on_line(rt_loop *loop, rt_watch w, int events, void *user)
{
    crew *to = user;
    (void)loop;
    (void)w;
    (void)events;
    if (read(to->line, &to->done, 1) != 1)
        die("the clients");
}

/* Turns for a while: what is left to do is done then, and of the deadlines
   none is near. */
static long settled(rt_loop *loop)
{
    uint64_t until = rt_now(loop) + SETTLE_MS;
    while (rt_now(loop) < until)
        if (rt_poll(loop, 10) < 0)
            die("rt_poll");
    return heap;
}

/* Has the clients do something. */
static long ordered(rt_loop *loop, crew *to, char order)
{
    to->done = 0;
    if (write(to->line, &order, 1) != 1)
        die("write");
    while (to->done != order)
        if (rt_poll(loop, -1) < 0)
            die("rt_poll");
    return settled(loop);
}

static long joined(rt_loop *loop, rt_group group, long from, long to)
{
    for (long i = from; i < to; i++)
        if (rt_group_join(loop, group, handles[i]) < 0)
            die("rt_group_join");
    return settled(loop);
}

static void told(const char *name, long bytes, long over, const char *end)
{
    printf("\"%s\": %.2f%s", name, (double)bytes / (double)over, end);
}

static void measure(rt_loop *loop, crew *to)
{
    long tenth = connections / TENTHS, rest = connections - tenth;
    long start = heap, few = ordered(loop, to, 'o');
    long all = ordered(loop, to, 'O');
    long burst_few = ordered(loop, to, 'b'), burst = ordered(loop, to, 'B');
    rt_group group = rt_group_open(loop, "all", NULL);
    long joined_few = joined(loop, group, 0, tenth);
    long joined_all = joined(loop, group, tenth, connections);
    if (sessions != connections)
        die("sessions");
    printf("{\"connections\": %ld, \"loop\": %ld, \"loop_after_burst\": %ld, ",
           connections, start, start + burst - all);
    told("idle_each", all - few, rest, ", ");
    told("idle_whole", all - start, connections, ", ");
    told("burst_kept_each", burst - burst_few, rest, ", ");
    told("after_burst_each", all - few + burst - burst_few, rest, ", ");
    told("membership_each", joined_all - joined_few, rest, ", ");
    told("membership_whole", joined_all - burst, connections, "}\n");
}

static void options_read(int argc, char **argv)
{
    const option table[] = {
        {"connections", OPTION_INT, &connections, TENTHS, 1000000,
         "how many, a multiple of 10 (10000)"},
    };
    option_set set = {"memory", "memory [options]", table, 1, NULL};
    options_parse(&set, argc, argv);
    if (connections % TENTHS)
        options_fail(&set, "--connections: not a multiple of %d", TENTHS);
}

static void raise_limit(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv)
{
    const rt_handler on = {
        .open = on_open, .message = on_message, .close = on_close};
    rt_loop_opts loop_opts = {.realloc = hook};
    rt_listen_opts opts = {.on = on};
    rt_loop *loop;
    rt_listener listener;
    crew clients;
    int line[2];
    options_read(argc, argv);
    raise_limit();
    handles = need(calloc((size_t)connections, sizeof *handles));
    loop = need(rt_loop_new(&loop_opts));
    listener = rt_listen(loop, "ws://127.0.0.1:0", &opts);
    if (listener.id == 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, line) < 0)
        die("listen");
    switch (fork()) {
    case -1:
        die("fork");
        break;
    case 0:
        close(line[0]);
        clients_run(line[1], rt_listener_port(loop, listener));
    }
    close(line[1]);
    clients.line = line[0];
    if (rt_watch_start(loop, line[0], RT_READ, on_line, &clients).id == 0)
        die("rt_watch_start");
    measure(loop, &clients);
    free(handles);
    fflush(stdout);
    _exit(0); /* the sessions are not closed one by one; the child sees it */
}
