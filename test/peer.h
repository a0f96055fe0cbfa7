/*
 * A raw peer for tests: a plain socket in the process of the loop under test,
 * never blocking; while the peer waits for something, the loop turns.  It
 * knows the wire, nothing of the library's inside.
 *
 *   peer p;
 *   peer_ws(&p, loop, port, "/");           connect, ask, read the 101
 *   peer_text(&p, "hello");                 a masked frame
 *   CHECK(peer_got(&p, RT_TEXT, "hello"));  the next one that comes back
 *   peer_end(&p);
 *
 * Each wait ends after PEER_WAIT ms in vain, so a broken library fails and
 * does not hang.  The counting allocator at the end is for rt_loop_opts.
 */
#ifndef PEER_H
#define PEER_H

#include "rtnet.h"
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#ifndef TCP_NODELAY /* a test may have a richer header than this */
#include <netinet/tcp.h>
#endif
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(memory_sanitizer)
#include <sanitizer/msan_interface.h>
#define PEER_MSAN 1
#endif
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

enum { PEER_WAIT = 1000, PEER_CHUNK = 65536 };
enum { PEER_HERE = 0, PEER_EOF, PEER_RESET };

typedef struct {
    rt_loop *loop; /* turns while the peer waits */
    int fd;
    int gone; /* PEER_EOF, PEER_RESET: how the other side ended */
    uint8_t *in;
    size_t at, len, cap; /* what came and is not looked at: in[at..len) */
    char head[1024];     /* of the last HTTP answer */
} peer;

/* data points into the peer's buffer: until its next call. */
typedef struct {
    int fin, op;
    const uint8_t *data;
    size_t len;
} peer_frame;

static unsigned peer_turns; /* how many turns were made, in all */

/* ---- time and turns ----------------------------------------------------- */

#ifndef PEER_CLOCK
#define PEER_CLOCK CLOCK_MONOTONIC
#endif

static inline uint64_t peer_clock(void)
{
    struct timespec t = {0, 0};
    clock_gettime(PEER_CLOCK, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static inline int peer_turn(rt_loop *loop, int ms)
{
    peer_turns++;
    if (!loop) /* somebody else turns it, or it is gone */
        return poll(NULL, 0, ms);
    return rt_poll(loop, ms);
}

/* Turns until *what is at least that much; false when that never comes. */
static inline int peer_until(rt_loop *loop, const int *what, int least)
{
    uint64_t end = peer_clock() + PEER_WAIT;
    while (*what < least && peer_clock() < end)
        peer_turn(loop, 1);
    return *what >= least;
}

/* Turns until nothing is left to do: for tests that something is not done. */
static inline void peer_quiet(rt_loop *loop)
{
    int idle = 0, i;
    for (i = 0; idle < 3 && i < 1000; i++)
        idle = peer_turn(loop, 0) == 0 ? idle + 1 : 0;
}

/* ---- sockets ------------------------------------------------------------ */

static inline void peer_init(peer *p, rt_loop *loop, int fd)
{
    memset(p, 0, sizeof *p);
    p->loop = loop;
    p->fd = fd;
    if (fd >= 0)
        fcntl(fd, F_SETFL, O_NONBLOCK);
}

static inline int peer_connect(peer *p, rt_loop *loop,
                               const struct sockaddr *to, socklen_t len)
{
    struct pollfd ready;
    int error = 0;
    socklen_t size = sizeof error;
    int now = 1;
    peer_init(p, loop, socket(to->sa_family, SOCK_STREAM, 0));
    if (p->fd < 0)
        return 0;
    if (to->sa_family != AF_UNIX) /* each write is a packet */
        setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &now, sizeof now);
    if (connect(p->fd, to, len) == 0)
        return 1;
    ready.fd = p->fd;
    ready.events = POLLOUT;
    return errno == EINPROGRESS && poll(&ready, 1, PEER_WAIT) == 1 &&
           getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 &&
           error == 0;
}

static inline int peer_tcp(peer *p, rt_loop *loop, int port)
{
    struct sockaddr_in to;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return peer_connect(p, loop, (struct sockaddr *)&to, sizeof to);
}

static inline int peer_tcp6(peer *p, rt_loop *loop, int port)
{
    struct sockaddr_in6 to;
    memset(&to, 0, sizeof to);
    to.sin6_family = AF_INET6;
    to.sin6_port = htons((uint16_t)port);
    to.sin6_addr.s6_addr[15] = 1;
    return peer_connect(p, loop, (struct sockaddr *)&to, sizeof to);
}

static inline int peer_local(peer *p, rt_loop *loop, const char *path)
{
    struct sockaddr_un to;
    memset(&to, 0, sizeof to);
    to.sun_family = AF_UNIX;
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    return peer_connect(p, loop, (struct sockaddr *)&to, sizeof to);
}

/* A listening socket of 127.0.0.1; *port is its port. */
static inline int peer_listen(int *port)
{
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        listen(fd, 16) < 0 || getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        return -1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    *port = ntohs(a.sin_port);
    return fd;
}

static inline int peer_accept(peer *p, rt_loop *loop, int listener)
{
    uint64_t end = peer_clock() + PEER_WAIT;
    int fd = -1;
    while (fd < 0 && peer_clock() < end)
        if ((fd = accept(listener, NULL, NULL)) < 0)
            peer_turn(loop, 1);
    peer_init(p, loop, fd);
    return fd >= 0;
}

static inline void peer_end(peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    free(p->in);
    peer_init(p, NULL, -1);
}

/* Goes away with a reset. */
static inline void peer_reset(peer *p)
{
    struct linger now;
    now.l_onoff = 1;
    now.l_linger = 0;
    setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    peer_end(p);
}

/* ---- bytes -------------------------------------------------------------- */

/* Reads once; how many bytes came. */
static inline size_t peer_take(peer *p)
{
    ssize_t n;
    if (p->gone)
        return 0;
    if (p->cap - p->len < PEER_CHUNK) {
        p->cap = p->cap * 2 + PEER_CHUNK;
        p->in = realloc(p->in, p->cap);
    }
    n = recv(p->fd, p->in + p->len, PEER_CHUNK, 0);
    if (n == 0)
        p->gone = PEER_EOF;
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        p->gone = PEER_RESET;
    if (n > 0)
        p->len += (size_t)n;
    return n > 0 ? (size_t)n : 0;
}

/* Waits until n bytes are there. */
static inline int peer_fill(peer *p, size_t n)
{
    uint64_t end = peer_clock() + PEER_WAIT;
    while (p->len - p->at < n) {
        if (peer_take(p))
            continue;
        if (p->gone || peer_clock() > end)
            return 0;
        peer_turn(p->loop, 1);
    }
    return 1;
}

/* Waits for the other side's end; what comes before it stays readable. */
static inline int peer_ended(peer *p)
{
    uint64_t end = peer_clock() + PEER_WAIT;
    while (!p->gone && peer_clock() < end)
        if (!peer_take(p))
            peer_turn(p->loop, 1);
    return p->gone;
}

/* One write where the socket has room for all: then it is one packet. */
static inline void peer_put(peer *p, const void *data, size_t n)
{
    const uint8_t *from = data;
    uint64_t end = peer_clock() + PEER_WAIT;
    while (n > 0 && peer_clock() < end) {
        ssize_t done = send(p->fd, from, n, MSG_NOSIGNAL);
        if (done > 0) {
            from += done;
            n -= (size_t)done;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            peer_turn(p->loop, 1);
        } else {
            return;
        }
    }
}

static inline void peer_say(peer *p, const char *text)
{
    peer_put(p, text, strlen(text));
}

/* ---- frames ------------------------------------------------------------- */

/* Builds a masked frame in out, which has room; first: FIN, RSV and opcode as
   they stand in the first byte.  Returns its size. */
static inline size_t peer_frame_build(uint8_t *out, int first, const void *data,
                                      size_t len)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    const uint8_t *from = data;
    size_t n = 2, i;
    int bytes = len < 126 ? 0 : len < 65536 ? 2 : 8;
    out[0] = (uint8_t)first;
    out[1] = (uint8_t)(0x80 | (bytes == 0 ? len : bytes == 2 ? 126u : 127u));
    while (bytes > 0)
        out[n++] = (uint8_t)((uint64_t)len >> 8 * --bytes);
    memcpy(out + n, mask, 4);
    n += 4;
    for (i = 0; i < len; i++)
        out[n++] = from[i] ^ mask[i & 3];
    return n;
}

static inline void peer_frame_put(peer *p, int first, const void *data,
                                  size_t len)
{
    uint8_t *out = malloc(len + 14);
    peer_put(p, out, peer_frame_build(out, first, data, len));
    free(out);
}

static inline void peer_text(peer *p, const char *text)
{
    peer_frame_put(p, 0x80 | RT_TEXT, text, strlen(text));
}

/* A close with that code; 0: without one. */
static inline void peer_bye(peer *p, int code)
{
    uint8_t body[2];
    body[0] = (uint8_t)(code >> 8);
    body[1] = (uint8_t)code;
    peer_frame_put(p, 0x88, body, code ? 2 : 0);
}

static inline uint64_t peer_number(const uint8_t *p, int bytes)
{
    uint64_t n = 0;
    while (bytes-- > 0)
        n = n << 8 | *p++;
    return n;
}

static inline int peer_frame_raw(peer *p, peer_frame *f)
{
    const uint8_t *b;
    size_t head = 2;
    memset(f, 0, sizeof *f);
    if (!peer_fill(p, 2))
        return 0;
    b = p->in + p->at;
    f->len = b[1] & 0x7f; /* a server's mask bit is 0, or this is nonsense */
    head += f->len == 126 ? 2 : f->len == 127 ? 8 : 0;
    if (b[1] & 0x80 || !peer_fill(p, head))
        return 0;
    b = p->in + p->at;
    f->fin = b[0] >> 7;
    f->op = b[0] & 0x0f;
    if (head > 2)
        f->len = (size_t)peer_number(b + 2, (int)head - 2);
    if (!peer_fill(p, head + f->len))
        return 0;
    f->data = p->in + p->at + head;
    p->at += head + f->len;
    return 1;
}

/* The next frame, but for pings, which are answered. */
static inline int peer_next(peer *p, peer_frame *f)
{
    while (peer_frame_raw(p, f)) {
        if (f->op != 9)
            return 1;
        peer_frame_put(p, 0x8a, f->data, f->len);
    }
    return 0;
}

/* The next frame is that message. */
static inline int peer_got(peer *p, int op, const char *text)
{
    peer_frame f;
    return peer_next(p, &f) && f.fin && f.op == op && f.len == strlen(text) &&
           memcmp(f.data, text, f.len) == 0;
}

/* The code of the close that comes next: 1005 without one, 0 when something
   else comes, -1 when nothing does. */
static inline int peer_closed(peer *p)
{
    peer_frame f;
    if (!peer_next(p, &f))
        return -1;
    if (f.op != 8)
        return 0;
    return f.len < 2 ? 1005 : (int)peer_number(f.data, 2);
}

/* Reads and throws away messages until the close; its code, or -1. */
static inline int peer_closed_at_last(peer *p)
{
    int code;
    do
        code = peer_closed(p);
    while (code == 0);
    return code;
}

/* Nothing comes, not even after the loop has done all it has to do. */
static inline int peer_silent(peer *p)
{
    peer_quiet(p->loop);
    peer_take(p);
    return p->len == p->at && !p->gone;
}

/* ---- streams: 4 bytes of length, then the message ----------------------- */

static inline void peer_stream_put(peer *p, const void *data, size_t len)
{
    uint8_t *out = malloc(len + 4);
    out[0] = (uint8_t)(len >> 24);
    out[1] = (uint8_t)(len >> 16);
    out[2] = (uint8_t)(len >> 8);
    out[3] = (uint8_t)len;
    if (len)
        memcpy(out + 4, data, len);
    peer_put(p, out, len + 4);
    free(out);
}

static inline int peer_stream_got(peer *p, const char *text)
{
    size_t len;
    if (!peer_fill(p, 4))
        return 0;
    len = (size_t)peer_number(p->in + p->at, 4);
    if (len != strlen(text) || !peer_fill(p, 4 + len))
        return 0;
    p->at += 4 + len;
    return memcmp(p->in + p->at - len, text, len) == 0;
}

/* ---- HTTP --------------------------------------------------------------- */

/* Asks for an upgrade; more: further lines, each with its CR and LF. */
static inline void peer_ask(peer *p, const char *path, const char *more)
{
    char text[2048];
    snprintf(text, sizeof text,
             "GET %s HTTP/1.1\r\nHost: peer\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
             path, more);
    peer_say(p, text);
}

/* The head of the answer goes to p->head; its status, or -1. */
static inline int peer_status(peer *p)
{
    size_t n = 0;
    do {
        if (n + 1 >= sizeof p->head || !peer_fill(p, n + 1))
            return -1;
        p->head[n] = (char)p->in[p->at + n];
        p->head[++n] = 0;
    } while (n < 4 || memcmp(p->head + n - 4, "\r\n\r\n", 4) != 0);
    p->at += n;
    if (strncmp(p->head, "HTTP/1.1 ", 9) != 0)
        return -1;
    return atoi(p->head + 9);
}

/* The body that follows is that text. */
static inline int peer_body(peer *p, const char *text)
{
    const char *size = strstr(p->head, "\r\nContent-Length: ");
    size_t n = strlen(text);
    if (!size || (size_t)atoi(size + 18) != n || !peer_fill(p, n))
        return 0;
    p->at += n;
    return memcmp(p->in + p->at - n, text, n) == 0;
}

static inline int peer_upgrade(peer *p, const char *path)
{
    peer_ask(p, path, "");
    return peer_status(p) == 101 &&
           strstr(p->head, "Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") != NULL;
}

/* An open WebSocket over TCP, or over a local socket. */
static inline int peer_ws(peer *p, rt_loop *loop, int port, const char *path)
{
    return peer_tcp(p, loop, port) && peer_upgrade(p, path);
}

static inline int peer_ws_local(peer *p, rt_loop *loop, const char *path)
{
    return peer_local(p, loop, path) && peer_upgrade(p, "/");
}

/* ---- what a test needs besides ------------------------------------------ */

/* A path for a local socket that nobody else uses. */
static inline void peer_path(char out[108])
{
    static int count;
    snprintf(out, 108, "%s/rtnet-%ld-%d", P_tmpdir, (long)getpid(), ++count);
}

/* The value of one line of rt_metrics, or, of a name without its labels, the
   sum of all of that name; -1: there is none. */
static inline long long peer_metric(rt_loop *loop, const char *name)
{
    size_t n = strlen(name), cap = rt_metrics(loop, NULL, 0);
    char *page = malloc(cap), *line;
    long long value = -1;
    rt_metrics(loop, page, cap);
    for (line = page; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, n) != 0 || (line[n] != ' ' && line[n] != '{'))
            continue;
        value = (value < 0 ? 0 : value) +
                atoll(line + n + (line[n] == '{' ? strcspn(line + n, " ") : 0));
    }
    free(page);
    return value;
}

/* The backends that this system has. */
static const struct {
    int which;
    const char *name;
} peer_backends[] = {
#if defined(__linux__)
    {RT_EPOLL, "epoll"},
#elif defined(__APPLE__) || defined(__FreeBSD__)
    {RT_KQUEUE, "kqueue"},
#endif
    {RT_SELECT, "select"},
};

/* One case for each backend. */
static inline void peer_run(const char *name, void (*test)(int backend))
{
    size_t i;
    for (i = 0; i < sizeof peer_backends / sizeof *peer_backends; i++) {
        test_begin("%s, %s", name, peer_backends[i].name);
        if (!test_lacks)
            test(peer_backends[i].which);
        test_end();
    }
}

#define RUN_EACH(name) peer_run(#name, name)

/* ---- the counting allocator --------------------------------------------- */

/* Bytes in use, and blocks of which the old size was not told rightly. */
static size_t peer_heap;
static int peer_heap_lies;

typedef union {
    size_t size;
    long double aligned;
} peer_block;

/* New memory holds what nobody may rely on; the memory sanitizer, which would
   take the filling for a value, is told so. */
static inline void peer_unset(void *p, size_t n)
{
    memset(p, 0xa5, n);
#if defined(PEER_MSAN)
    __msan_allocated_memory(p, n);
#endif
}

/* As rt_loop_opts.realloc; a block always moves. */
static inline void *peer_realloc(void *user, void *p, size_t old, size_t now)
{
    peer_block *from = p ? (peer_block *)p - 1 : NULL, *to = NULL;
    size_t had = from ? from->size : 0;
    (void)user;
    peer_heap_lies += had != old;
    if (now) {
        to = malloc(sizeof *to + now);
        if (!to)
            return NULL;
        to->size = now;
        peer_unset(to + 1, now);
        if (from)
            memcpy(to + 1, p, had < now ? had : now);
    }
    free(from);
    peer_heap += now - had;
    return to ? to + 1 : NULL;
}

#endif
