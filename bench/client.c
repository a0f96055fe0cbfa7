/*
 * The connections: sockets, the upgrade, reading, writing.  Events are
 * edge-triggered, so nothing is changed in the epoll set during a run; a read
 * that fills less than its buffer has emptied the socket, unless the peer has
 * closed, which the event tells.
 */
#include "rtload.h"
#include "socket.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <strings.h>
#include <sys/epoll.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* The nonce of RFC 6455, 1.3, and the answer to it: servers may not care that
   it is always the same, and no SHA-1 is needed here. */
#define NONCE "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum { OP_CLOSE = 8 };

/* ---- the target */

static int address_set(load *l, const char *host, unsigned port)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&l->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&l->address;
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        l->address_len = sizeof *v4;
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        l->address_len = sizeof *v6;
    }
    return l->address_len > 0 ? 0 : -1;
}

static int request_make(load *l, const char *path)
{
    static const char format[] = "GET %s%s HTTP/1.1\r\n"
                                 "Host: %s\r\n"
                                 "Upgrade: websocket\r\n"
                                 "Connection: Upgrade\r\n"
                                 "Sec-WebSocket-Key: " NONCE "\r\n"
                                 "%s"
                                 "Sec-WebSocket-Version: 13\r\n\r\n";
    static const char offer[] = "Sec-WebSocket-Protocol: rtnet.1\r\n";
    size_t cap = sizeof format + strlen(path) + sizeof l->target + sizeof offer;
    int n;
    l->request = malloc(cap);
    if (!l->request)
        return -1;
    n = snprintf(l->request, cap, format, *path == '/' ? "" : "/", path,
                 l->target, l->set.resume ? offer : "");
    l->request_len = (size_t)n;
    l->request_path =
        (size_t)(strstr(l->request, " HTTP/1.1\r\n") - l->request);
    return 0;
}

/* Splits "[::1]:9000" or "127.0.0.1:9000" or "localhost". */
static const char *authority_read(load *l, const char *text, size_t len)
{
    char host[64];
    const char *end = text + len, *stop;
    unsigned long port = 80;
    char *rest = NULL;
    int bracket = *text == '[';
    stop = memchr(text, bracket ? ']' : ':', len);
    if (!stop)
        stop = bracket ? text : end;
    if ((size_t)(stop - text) >= sizeof host || stop == text)
        return "the host is missing or too long";
    snprintf(host, sizeof host, "%.*s", (int)(stop - text) - bracket,
             text + bracket);
    stop += bracket;
    if (stop < end && *stop == ':')
        port = strtoul(stop + 1, &rest, 10);
    if ((rest ? rest : stop) != end || port < 1 || port > 65535)
        return "the port is not a number from 1 to 65535";
    if (address_set(l, host, (unsigned)port) < 0)
        return "the host is not a literal address nor localhost";
    snprintf(l->target, sizeof l->target, bracket ? "[%s]:%lu" : "%s:%lu", host,
             port);
    return NULL;
}

const char *client_target(load *l)
{
    const char *url = l->set.url, *bad;
    size_t len;
    if (strncmp(url, "wss://", 6) == 0 && line_ready(l) < 0)
        return "there is no TLS here: ws:// only";
    if (!l->secure && strncmp(url, "ws://", 5) != 0)
        return "it does not begin with ws://";
    url += 5 + l->secure;
    len = strcspn(url, "/?#");
    bad = authority_read(l, url, len);
    if (bad)
        return bad;
    if (strpbrk(url + len, "# \r\n"))
        return "the path has a character that may not be there";
    return request_make(l, url + len) < 0 ? "out of memory" : NULL;
}

/* ---- the end of a connection */

static void conn_shut(load *l, conn *c)
{
    if (c->state >= CONN_CONNECTING && c->state < CONN_OPEN)
        l->opening--;
    wire_ack_drop(l, c);
    line_end(c);
    if (c->fd >= 0) {
        close(c->fd);
        l->alive--;
    }
    free(c->answer);
    c->answer = NULL;
    c->fd = -1;
}

void conn_end(load *l, conn *c)
{
    conn_shut(l, c);
    c->state = CONN_NONE;
    drive_ended(l, c);
}

int conn_fail(load *l, conn *c, const char *format, ...)
{
    char text[256];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    conn_shut(l, c);
    c->state = CONN_DEAD;
    if (l->phase == PHASE_CLOSING)
        return -1; /* everything has been counted by then */
    if (l->phase <= PHASE_READY || is_fan(l))
        l->fatal = 1; /* it is not the test that was asked for any more */
    load_error(l, "connection %ld: %s", l->base + (long)c->id, text);
    return -1;
}

int conn_lost(load *l, conn *c, const char *format, ...)
{
    char text[256];
    va_list list;
    if (c->slow && l->phase == PHASE_CATCHUP) {
        conn_shut(l, c);
        c->state = CONN_DEAD;
        l->behind--;
        l->dropped++;
        return -1;
    }
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return conn_fail(l, c, "%s", text);
}

/* ---- the upgrade */

static void hint_files(load *l, conn *c)
{
    l->fatal = 1;
    conn_fail(l, c,
              "no file descriptor is left after %ld: raise the limit "
              "(ulimit -n) or use several processes",
              l->alive);
}

static void connect_failed(load *l, conn *c, int error)
{
    l->fatal = 1;
    if (error == EADDRNOTAVAIL)
        conn_fail(l, c,
                  "no free port is left for %s: wait a minute, widen "
                  "net.ipv4.ip_local_port_range, or test 127.0.0.1, where "
                  "several source addresses are used",
                  l->target);
    else
        conn_fail(l, c, "cannot connect to %s: %s%s", l->target,
                  strerror(error),
                  error == ECONNREFUSED ? " (is the server running?)" : "");
}

static int is_loopback4(const load *l)
{
    const struct sockaddr_in *to = (const struct sockaddr_in *)&l->address;
    return to->sin_family == AF_INET && ntohl(to->sin_addr.s_addr) >> 24 == 127;
}

/* Connects from 127.0.0.n: each has ports of its own. */
static void source_bind(const load *l, int fd)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    int on = 1;
    if (l->source == 0 || !is_loopback4(l))
        return;
    from.sin_addr.s_addr = htonl(0x7f000000u + (uint32_t)l->source);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    /* If it fails, connect chooses an address, or says why not. */
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0)
        return;
}

static int connect_once(load *l, conn *c)
{
    source_bind(l, c->fd);
    if (connect(c->fd, (struct sockaddr *)&l->address, l->address_len) == 0)
        return 0;
    return errno == EINPROGRESS ? 0 : errno;
}

static int socket_open(load *l, conn *c)
{
    c->fd = socket(l->address.ss_family,
                   SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return -1;
    l->alive++;
    if (socket_congestion(c->fd, l->set.congestion) < 0 ||
        socket_buffer(c->fd, SO_RCVBUF, l->set.rcvbuf) < 0)
        return -1;
    return 0;
}

/* Connects; where the ports are used up, from the next loopback address. */
static int conn_connect(load *l, conn *c)
{
    int error = connect_once(l, c);
    for (int i = 0; error == EADDRNOTAVAIL && is_loopback4(l) && i < SOURCES;
         i++) {
        close(c->fd);
        l->alive--;
        if (socket_open(l, c) < 0)
            return errno;
        l->source = l->source % SOURCES + 1;
        error = connect_once(l, c);
    }
    return error;
}

void conn_opened(load *l, conn *c)
{
    l->opening--;
    c->state = CONN_OPEN;
    drive_opened(l, c);
}

/* The request of c, in *text: in rooms its path ends with the room's number.
   Returns how long it is. */
static size_t request_of(const load *l, const conn *c, const char **text)
{
    long room = (l->base + (long)c->id) / l->members;
    int head = (int)l->request_path;
    *text = l->request;
    if (!in_rooms(l))
        return l->request_len;
    *text = (char *)l->out;
    return (size_t)snprintf((char *)l->out, OUT_MAX, "%.*s%ld%s", head,
                            l->request, room, l->request + head);
}

/* Sends the request as soon as the socket is connected. */
static void conn_request(load *l, conn *c)
{
    const char *text;
    int ready = line_shake(l, c);
    struct iovec v;
    size_t len;
    ssize_t n = ready;
    if (ready == 0)
        return;
    len = request_of(l, c, &text);
    v = (struct iovec){.iov_base = (void *)(uintptr_t)text, .iov_len = len};
    if (ready > 0)
        n = line_send(c, &v, 1);
    if (n == (ssize_t)len)
        c->state = CONN_UPGRADING;
    else if (n >= 0)
        conn_fail(l, c, "the request did not fit into an empty socket");
    else if (errno != EAGAIN && errno != ENOTCONN)
        connect_failed(l, c, errno);
}

static void conn_reset(load *l, conn *c)
{
    *c = (conn){.fd = -1,
                .state = CONN_CONNECTING,
                .slow = c->slow,
                .id = c->id,
                .seat = c->seat,
                .since = c->since,
                .started = l->now,
                .active = l->now};
}

/* Where much is written, or the connect is not complete, an event tells when
   the socket takes more. */
static int conn_watch(load *l, conn *c)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
    if (c->state == CONN_CONNECTING || is_talking(l))
        event.events |= EPOLLOUT;
    event.data.ptr = c;
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
        return conn_fail(l, c, "epoll_ctl: %s", strerror(errno));
    return 0;
}

void conn_mute(load *l, conn *c)
{
    if (epoll_ctl(l->epoll, EPOLL_CTL_DEL, c->fd, NULL) < 0)
        conn_fail(l, c, "epoll_ctl: %s", strerror(errno));
}

int conn_unmute(load *l, conn *c)
{
    return conn_watch(l, c);
}

void conn_start(load *l, conn *c)
{
    int on = 1, error;
    conn_reset(l, c);
    l->opening++;
    error = socket_open(l, c) < 0 ? errno : conn_connect(l, c);
    if (c->fd < 0 && (error == EMFILE || error == ENFILE)) {
        hint_files(l, c);
        return;
    }
    if (error) {
        connect_failed(l, c, error);
        return;
    }
    if (l->set.scenario != SCENE_STORM)
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* On loopback it is connected by now; else an event tells. */
    if (!l->set.raw)
        conn_request(l, c);
    if (c->fd >= 0)
        conn_watch(l, c);
}

/* The value of a header, up to the line's end, or NULL.  text begins with the
   line end before the first header. */
static const char *header_find(const char *text, const char *name)
{
    size_t len = strlen(name);
    for (; (text = strstr(text, "\r\n")) != NULL;) {
        text += 2;
        if (strncasecmp(text, name, len) == 0 && text[len] == ':')
            return text + len + 1 + strspn(text + len + 1, " \t");
    }
    return NULL;
}

/* The value is exactly that, blanks aside. */
static int header_is(const char *text, const char *name, const char *want,
                     int (*compare)(const char *, const char *, size_t))
{
    const char *value = header_find(text, name);
    size_t len = strlen(want);
    if (!value || compare(value, want, len) != 0)
        return 0;
    value += len;
    return value[strspn(value, " \t")] == '\r';
}

static const char *protocol_judge(const load *l, const char *headers)
{
    if (header_find(headers, "Sec-WebSocket-Extensions"))
        return "it chose an extension that was not offered";
    if (!header_find(headers, "Sec-WebSocket-Protocol"))
        return l->set.resume ? "it does not speak rtnet.1 (is its resume on?)"
                             : NULL;
    if (!l->set.resume ||
        !header_is(headers, "Sec-WebSocket-Protocol", "rtnet.1", strncmp))
        return "it chose a protocol that was not offered";
    return NULL;
}

/* What is wrong with an answer to the upgrade, or NULL. */
static const char *answer_judge(const load *l, const char *text)
{
    const char *headers = strstr(text, "\r\n"), *found;
    if (!header_is(headers, "Upgrade", "websocket", strncasecmp))
        return "its Upgrade is not websocket";
    found = header_find(headers, "Connection");
    found = found ? strcasestr(found, "upgrade") : NULL;
    /* Found in that line, not in one behind it. */
    if (!found || found > strchr(header_find(headers, "Connection"), '\r'))
        return "its Connection is not Upgrade";
    if (!header_is(headers, "Sec-WebSocket-Accept", ACCEPT, strncmp))
        return "its Sec-WebSocket-Accept is wrong";
    return protocol_judge(l, headers);
}

/* text is the whole answer, ended by a NUL. */
static int answer_read(load *l, conn *c, char *text)
{
    const char *bad;
    if (strncmp(text, "HTTP/1.1 101", 12) != 0)
        return conn_fail(l, c, "the server refused the upgrade: %.*s",
                         (int)strcspn(text, "\r\n"), text);
    bad = answer_judge(l, text);
    if (bad)
        return conn_fail(l, c, "a bad answer to the upgrade: %s", bad);
    if (l->set.resume)
        wire_greet(c);
    else
        conn_opened(l, c);
    return c->fd < 0 ? -1 : 0;
}

/* Keeps n bytes of an answer that has not come whole. */
static int answer_keep(load *l, conn *c, const char *p, size_t n)
{
    if (!c->answer)
        c->answer = malloc(ANSWER_MAX + 1);
    if (!c->answer || c->answer_len + n > ANSWER_MAX)
        return conn_fail(l, c, "the answer to the upgrade has no end");
    memcpy(c->answer + c->answer_len, p, n);
    c->answer_len += n;
    c->answer[c->answer_len] = 0;
    return 0;
}

/*
 * Takes bytes of the answer and what follows it.  They are gathered with those
 * that came before; what lies behind the blank line are frames already.
 */
static int answer_feed(load *l, conn *c, const uint8_t *p, size_t n)
{
    size_t room = ANSWER_MAX - c->answer_len, before = c->answer_len, size;
    size_t take = n < room ? n : room;
    char *end;
    if (answer_keep(l, c, (const char *)p, take) < 0)
        return -1;
    end = strstr(c->answer, "\r\n\r\n");
    if (!end && strlen(c->answer) == c->answer_len &&
        c->answer_len < ANSWER_MAX)
        return 0;
    if (!end)
        return conn_fail(l, c, "the answer to the upgrade is no HTTP");
    size = (size_t)(end + 4 - c->answer);
    end[2] = 0;
    if (answer_read(l, c, c->answer) < 0)
        return -1;
    free(c->answer);
    c->answer = NULL;
    return wire_feed(l, c, p + size - before, n - (size - before));
}

/* ---- reading */

static int conn_eof(load *l, conn *c)
{
    if (c->state == CONN_CLOSING && c->end_seen) {
        conn_end(l, c);
        return -1;
    }
    if (c->state == CONN_CLOSING)
        return conn_fail(l, c, "the server did not answer the close");
    if (c->state == CONN_UPGRADING)
        return conn_fail(l, c,
                         "the server went away instead of answering "
                         "the upgrade");
    return conn_lost(l, c, "the server went away after %llu messages",
                     (unsigned long long)c->got);
}

static int conn_broken(load *l, conn *c)
{
    if (errno == EAGAIN || errno == EINTR)
        return 2;
    if (c->state == CONN_CONNECTING) {
        connect_failed(l, c, errno);
        return -1;
    }
    return conn_lost(l, c, "%s after %llu messages", strerror(errno),
                     (unsigned long long)c->got);
}

/*
 * Receives once.  Long replies that need not be looked at are counted by the
 * kernel (tcp(7), MSG_TRUNC), not copied.  Returns 2 when there was nothing, 1
 * when the socket is empty now, 0 when it may not be, -1 when the connection
 * is gone.
 */
static int conn_receive(load *l, conn *c)
{
    size_t want = wire_want(l, c);
    size_t skip = l->secure ? 0 : (size_t)wire_skippable(l, c);
    int flags = 0, bad;
    ssize_t n;
    if (skip >= SKIP_MIN) {
        want = skip < IN_MAX ? skip : IN_MAX;
        flags = MSG_TRUNC;
    }
    n = line_recv(c, l->in, want, flags);
    if (n < 0)
        return conn_broken(l, c);
    if (n == 0)
        return conn_eof(l, c);
    l->now = c->active = clock_ns();
    if (flags)
        bad = wire_skip(l, c, (size_t)n);
    else if (c->state == CONN_UPGRADING)
        bad = answer_feed(l, c, l->in, (size_t)n);
    else
        bad = wire_feed(l, c, l->in, (size_t)n);
    if (bad < 0 || c->secure) /* which may have more */
        return bad < 0 ? -1 : 0;
    return (size_t)n < want;
}

static void conn_read(load *l, conn *c, int ended)
{
    for (;;) {
        int empty = conn_receive(l, c);
        if (empty < 0)
            return;
        if (ended && c->end_seen) { /* the end follows, need not be read */
            conn_end(l, c);
            return;
        }
        if (empty > ended)
            break;
    }
    conn_pump(l, c);
}

/* ---- writing */

static ssize_t send_control(conn *c)
{
    size_t len = (size_t)c->control_len - c->control_at;
    struct iovec v = {.iov_base = c->control + c->control_at, .iov_len = len};
    ssize_t n = line_send(c, &v, 1);
    if (n <= 0)
        return n;
    c->control_at = (uint8_t)(c->control_at + n);
    if (c->control_at == c->control_len)
        c->control_at = c->control_len = 0;
    return (size_t)n == len;
}

/* As send_control: 1 all of it went, 0 a part, -1 see errno. */
static ssize_t send_messages(load *l, conn *c)
{
    struct iovec iov[IOV_COUNT];
    size_t len = 0;
    ssize_t n;
    int count = wire_gather(l, c, iov);
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    n = line_send(c, iov, count);
    if (n < 0)
        return n;
    wire_written(l, c, (size_t)n);
    return (size_t)n == len;
}

static void conn_write(load *l, conn *c)
{
    while (c->sent < c->begun || c->control_len > 0 || c->ack_owed) {
        int control = c->control_len > 0 && c->out_at == 0 && !c->ack_owed;
        ssize_t n = control ? send_control(c) : send_messages(l, c);
        if (n < 0 && errno == EINTR)
            continue;
        c->blocked = n == 0 || (n < 0 && errno == EAGAIN);
        if (n < 0 && !c->blocked) {
            conn_fail(l, c, "%s after %llu messages", strerror(errno),
                      (unsigned long long)c->got);
            return;
        }
        if (n >= 0)
            c->active = c->said = l->now;
        if (c->blocked)
            return;
    }
}

static void message_start(load *l, conn *c)
{
    uint64_t depth = (uint64_t)l->set.depth, i = c->begun % depth;
    uint64_t number = c->begun++ * (uint64_t)l->senders + c->seat;
    l->times[c->seat * depth + i] = l->period ? drive_due(l, number) : l->now;
    if (l->missing)
        l->missing[c->seat * depth + i] = (uint32_t)(l->members - l->set.slow);
}

void conn_pump(load *l, conn *c)
{
    uint64_t most, depth = (uint64_t)l->set.depth;
    if (c->state == CONN_OPEN && c->seat != NO_SEAT) {
        most = drive_allowed(l, c);
        if (most > c->done + depth && l->set.scenario != SCENE_MIXED)
            most = c->done + depth;
        while (c->begun < most)
            message_start(l, c);
    }
    if (c->fd >= 0 && !c->blocked && c->state >= CONN_GREETING)
        conn_write(l, c);
}

void conn_finish(load *l, conn *c)
{
    static const uint8_t normal[2] = {1000 >> 8, 1000 & 255};
    if (l->set.raw) {
        conn_end(l, c);
        return;
    }
    wire_control(c, OP_CLOSE, normal, 2);
    c->state = CONN_CLOSING;
    conn_pump(l, c);
}

/* ---- events */

static void conn_connected(load *l, conn *c, uint32_t events)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (events & (EPOLLERR | EPOLLHUP)) {
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        connect_failed(l, c, error ? error : ECONNRESET);
    } else if (events & EPOLLOUT && l->set.raw) {
        conn_opened(l, c);
    } else if (events & EPOLLOUT || l->secure) {
        conn_request(l, c);
    }
}

void conn_event(load *l, conn *c, uint32_t events)
{
    uint32_t readable = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR;
    if (c->fd < 0)
        return;
    if (c->state == CONN_CONNECTING) {
        conn_connected(l, c, events);
        return;
    }
    if (events & EPOLLOUT) {
        c->blocked = 0;
        line_flush(c);
    }
    if (events & readable)
        conn_read(l, c, (events & (EPOLLRDHUP | EPOLLHUP)) != 0);
    else if (c->state >= CONN_GREETING)
        conn_pump(l, c);
}
