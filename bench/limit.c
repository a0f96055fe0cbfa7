/*
 * The physical limit: the least that a server must do for the work that is
 * measured, written for rtload alone, with none of the care a real server
 * needs.  No deadline, no limit, no check of anything; the answer to the
 * upgrade fits one nonce.  What a library adds is seen against it.
 *
 *   echo     returns bytes, parses nothing (rtload --raw)
 *   wsecho   the smallest parse of WebSocket frames; one send for each recv
 *   fanout   each message to all, one send for each socket and message
 *   fanoutc  each message to all, one send for each socket and recv; messages
 *            of one sender only (both fanouts)
 */
#define _GNU_SOURCE
#include "options.h"
#include "socket.h"
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/resource.h>

enum { IN_MAX = 262144, EVENTS = 512, HEAD_MAX = 14, MESSAGES_MAX = 65536 };
enum mode { MODE_ECHO, MODE_WSECHO, MODE_FANOUT, MODE_FANOUTC };

typedef struct conn conn;
struct conn {
    int fd, open, ended; /* ended: its close frame came */
    long slot;           /* in members */
    uint64_t left;       /* payload of the frame still to come */
    uint8_t mask[4];     /* turned so that the next byte meets mask[0] */
    uint8_t head[HEAD_MAX];
    size_t head_len;
    uint8_t *rest; /* what a send did not take */
    size_t rest_len, rest_at;
    conn *next; /* of those that are closed */
};

static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\n"
                             "Upgrade: websocket\r\n"
                             "Connection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: "
                             "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static int mode, poller;
static conn **members;
static long count, room;
/* Closed ones: an event may still be waiting for those of this turn. */
static conn *gone, *spare;
/* The bytes of one recv, made into a server's frames in place. */
static uint8_t in[HEAD_MAX + IN_MAX];
static size_t ends[MESSAGES_MAX]; /* where in them messages end */
static size_t messages;

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

/* ---- frames */

static void unmask(uint8_t *to, const uint8_t *from, size_t n, uint8_t key[4])
{
    uint64_t word, wide;
    uint8_t turned[4];
    size_t i = 0;
    memcpy(&wide, key, 4);
    memcpy((uint8_t *)&wide + 4, key, 4);
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, from + i, 8);
        word ^= wide;
        memcpy(to + i, &word, 8);
    }
    for (; i < n; i++)
        to[i] = from[i] ^ key[i & 3];
    for (i = 0; i < 4; i++)
        turned[i] = key[(n + i) & 3];
    memcpy(key, turned, 4);
}

/* Reads the header at p of n bytes; 0 when it is not whole. */
static size_t head_read(conn *c, const uint8_t *p, size_t n)
{
    size_t bytes, i;
    if (n < 2)
        return 0;
    bytes = (p[1] & 127) == 127 ? 8 : (p[1] & 127) == 126 ? 2 : 0;
    if (n < bytes + 6)
        return 0;
    c->left = bytes ? 0 : p[1] & 127;
    for (i = 0; i < bytes; i++)
        c->left = c->left << 8 | p[2 + i];
    memcpy(c->mask, p + 2 + bytes, 4);
    return bytes + 6;
}

/* Turns n bytes at p into what goes out, at in.  Returns how many that is.  A
   close frame goes back, too, and ends it all. */
static size_t frames_turn(conn *c, uint8_t *p, size_t n)
{
    uint8_t *to = in, *end = p + n;
    messages = 0;
    while (p < end) {
        size_t head = 0, take;
        if (c->left == 0) {
            head = head_read(c, p, (size_t)(end - p));
            if (head == 0)
                break;
            c->ended = (p[0] & 15) == 8;
            memmove(to, p, head - 4);
            to[1] &= 127;
            to += head - 4;
            p += head;
        }
        take =
            (uint64_t)(end - p) < c->left ? (size_t)(end - p) : (size_t)c->left;
        unmask(to, p, take, c->mask);
        c->left -= take;
        to += take;
        p += take;
        if (c->ended)
            break;
        if (c->left == 0 && messages < MESSAGES_MAX)
            ends[messages++] = (size_t)(to - in);
    }
    c->head_len = c->ended ? 0 : (size_t)(end - p);
    memcpy(c->head, p, c->head_len);
    return (size_t)(to - in);
}

/* ---- connections */

static void conn_close(conn *c)
{
    if (c->open) {
        members[c->slot] = members[--count];
        members[c->slot]->slot = c->slot;
    }
    close(c->fd);
    free(c->rest);
    memset(c, 0, sizeof *c);
    c->fd = -1;
    c->next = gone;
    gone = c;
}

static void conn_open(conn *c)
{
    if (count == room) {
        room = room * 2 + 64;
        members = need(realloc(members, (size_t)room * sizeof *members));
    }
    c->open = 1;
    c->slot = count;
    members[count++] = c;
}

static void rest_send(conn *c)
{
    ssize_t n = send(c->fd, c->rest + c->rest_at, c->rest_len - c->rest_at,
                     MSG_NOSIGNAL);
    if (n > 0)
        c->rest_at += (size_t)n;
    if (c->rest_at < c->rest_len)
        return;
    free(c->rest);
    c->rest = NULL;
    c->rest_at = c->rest_len = 0;
}

static void conn_send(conn *c, const uint8_t *p, size_t len)
{
    ssize_t n = 0;
    if (!c->rest)
        n = send(c->fd, p, len, MSG_NOSIGNAL);
    if (n < 0)
        n = 0;
    if ((size_t)n == len)
        return;
    len -= (size_t)n;
    c->rest = need(realloc(c->rest, c->rest_len + len));
    memcpy(c->rest + c->rest_len, p + n, len);
    c->rest_len += len;
}

static void fan_out(const uint8_t *p, size_t len)
{
    for (long i = 0; i < count; i++)
        conn_send(members[i], p, len);
}

static void fan_each(void)
{
    size_t at = 0;
    for (size_t i = 0; i < messages; i++) {
        fan_out(in + at, ends[i] - at);
        at = ends[i];
    }
}

static void conn_work(conn *c, size_t n)
{
    size_t len = frames_turn(c, in + HEAD_MAX - c->head_len, n + c->head_len);
    size_t whole = messages ? ends[messages - 1] : 0;
    /* From here on it goes back to the sender, and nobody else. */
    size_t own = mode == MODE_WSECHO ? 0 : c->ended ? whole : len;
    if (mode == MODE_FANOUTC && own > 0)
        fan_out(in, own);
    else if (mode == MODE_FANOUT)
        fan_each();
    if (own < len)
        conn_send(c, in + own, len - own);
    if (c->ended && c->left == 0)
        conn_close(c);
}

/* Returns 0 when there was nothing more to read. */
static int conn_read(conn *c)
{
    ssize_t n;
    memcpy(in + HEAD_MAX - c->head_len, c->head, c->head_len);
    n = recv(c->fd, in + HEAD_MAX, IN_MAX, 0);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0) {
        conn_close(c);
        return 0;
    }
    if (mode == MODE_ECHO) {
        conn_send(c, in + HEAD_MAX, (size_t)n);
    } else if (c->open) {
        conn_work(c, (size_t)n);
    } else {
        conn_open(c); /* the request of rtload comes whole */
        conn_send(c, (const uint8_t *)answer, sizeof answer - 1);
    }
    return n == IN_MAX;
}

static void conn_event(conn *c, uint32_t events)
{
    int more = 1;
    if (c->fd >= 0 && c->rest)
        rest_send(c);
    /* One that does not take its replies is not read from. */
    while (more && c->fd >= 0 && (!c->rest || mode >= MODE_FANOUT))
        more = conn_read(c) || (c->fd >= 0 && (events & EPOLLRDHUP));
}

/* ---- the loop */

static void watch(int fd, void *p, uint32_t events)
{
    struct epoll_event event = {.events = events};
    event.data.ptr = p;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static void accept_all(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        conn *c = spare ? spare : need(calloc(1, sizeof *c));
        spare = c->next;
        c->next = NULL;
        c->fd = fd;
        watch(fd, c, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    }
}

/* No event of this turn is left that could mean them. */
static void recycle(void)
{
    while (gone) {
        conn *c = gone;
        gone = c->next;
        c->next = spare;
        spare = c;
    }
}

static int listen_on(long port, const char *congestion)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof a;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    a.sin_port = htons((uint16_t)port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* inherited */
    if (socket_congestion(fd, congestion) < 0 ||
        bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 1024) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        die("listen");
    printf("listening on %d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

static void serve(int listener)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                conn_event(events[i].data.ptr, events[i].events);
            else
                accept_all(listener);
        }
        recycle();
    }
}

static int mode_read(const option_set *set, const char *name)
{
    static const char *const names[] = {"echo", "wsecho", "fanout", "fanoutc"};
    for (int i = 0; name && i < 4; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    options_fail(set, "which mode: echo, wsecho, fanout or fanoutc?");
}

int main(int argc, char **argv)
{
    long port = 9002;
    const char *name = NULL, *congestion = NULL;
    const option table[] = {
        {"port", OPTION_INT, &port, 0, 65535, "0 for any free one (9002)"},
        {"congestion", OPTION_TEXT, &congestion, 0, 0,
         "TCP's congestion control, like cubic (the system's)"},
    };
    option_set set = {"limit", "limit echo|wsecho|fanout|fanoutc [options]",
                      table, 2, &name};
    struct rlimit files;
    int listener;
    options_parse(&set, argc, argv);
    mode = mode_read(&set, name);
    socket_judge(&set, congestion);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(0);
    listener = listen_on(port, congestion);
    watch(listener, NULL, EPOLLIN);
    serve(listener);
    return 0;
}
