/*
 * The reactor: memory, handles, timers, the backends, listeners, sockets,
 * buffers and the turn.  It knows bytes and deadlines, nothing of messages:
 * what comes in goes up to ws.c, or to session.c where a stream has the short
 * framing at the end of the connection section.
 *
 * Invariants: a connection is killed at once (no event finds it any more) and
 * freed, its descriptor closed, at the end of the turn; by_fd holds exactly
 * the living sources; every timer that may be set has a reserved place.
 */
#include "rtnet_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#if defined(RT__WINSOCK)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0600 /* Vista: inet_pton, locks without an init */
#endif
#ifndef FD_SETSIZE
#define FD_SETSIZE 4096 /* how many, there; no bound of their numbers */
#endif
#include <winsock2.h>
#include <ws2tcpip.h>
/* It needs winsock2.h before it. */
#include <ntsecapi.h>
#else
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>
#endif
#if defined(RT__EPOLL)
#include <sys/epoll.h>
#include <sys/random.h>
#endif
#if defined(RT__KQUEUE)
#include <sys/event.h>
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* the BSDs say it once a socket: SO_NOSIGPIPE */
#endif

#if defined(RT__WINSOCK)
/* ---- Windows ------------------------------------------------------------ */

/* What the rest of this file calls, under the names and with the meaning that
   it has on POSIX: errno says why a call failed.  A socket is a handle of the
   kernel there, whose numbers fit an int by far (24 bits): one that does not
   is refused.  Nothing else is a descriptor here. */

typedef SSIZE_T ssize_t;

struct iovec {
    void *iov_base;
    size_t iov_len;
};

struct msghdr {
    struct iovec *msg_iov;
    size_t msg_iovlen;
};

/* So that the addresses above it have a place; see win_socket. */
struct sockaddr_un {
    unsigned short sun_family;
    char sun_path[108];
};

/* There REUSEADDR would let anybody bind a port that is in use, and a server
   binds again beside TIME_WAIT anyway.  This is SO_EXCLUSIVEADDRUSE, which is
   written with that name, and keeps others from the port. */
#undef SO_REUSEADDR
#define SO_REUSEADDR (~4)
#undef TEXT          /* of its headers */
#ifndef TCP_KEEPIDLE /* Windows 10 knows these, older headers do not */
#define TCP_KEEPIDLE 3
#define TCP_KEEPCNT 16
#define TCP_KEEPINTVL 17
#endif
#ifndef WSA_FLAG_NO_HANDLE_INHERIT
#define WSA_FLAG_NO_HANDLE_INHERIT 0x80
#endif
enum { SHUT_WR = SD_SEND, WIN_PIECES = 64 };
enum { F_GETFD = 1, F_SETFD, F_GETFL, F_SETFL, FD_CLOEXEC, O_NONBLOCK = 1 };
enum { O_RDONLY = 0, O_CLOEXEC = 0 };

/* What it calls an error, and we; the texts of its libc end below these. */
static const struct win_error {
    int code, number;
    const char *text;
} win_errors[] = {
    {WSAEWOULDBLOCK, EAGAIN, "it would block"},
    {WSAEINTR, EINTR, "interrupted"},
    {WSAECONNRESET, ECONNRESET, "connection reset by peer"},
    /* Of an open line: its peer is silent, or it wrote behind a reset. */
    {WSAECONNABORTED, ECONNRESET, "connection reset by peer"},
    {WSAESHUTDOWN, EPIPE, "broken pipe"},
    {WSAECONNREFUSED, ECONNREFUSED, "connection refused"},
    {WSAETIMEDOUT, ETIMEDOUT, "connection timed out"},
    {WSAENETRESET, ETIMEDOUT, "connection timed out"}, /* keep-alive */
    {WSAENOTCONN, ENOTCONN, "not connected"},
    {WSAEADDRINUSE, EADDRINUSE, "address already in use"},
    /* Also of a port that somebody else keeps for himself. */
    {WSAEACCES, EACCES, "permission denied, or address in use"},
    {WSAEADDRNOTAVAIL, EADDRNOTAVAIL, "address not available"},
    {WSAEAFNOSUPPORT, EAFNOSUPPORT, "address family not supported"},
    {WSAENETDOWN, ENETDOWN, "network is down"},
    {WSAENETUNREACH, ENETUNREACH, "network is unreachable"},
    {WSAEHOSTUNREACH, EHOSTUNREACH, "host is unreachable"},
    {WSAEMFILE, EMFILE, "too many open sockets"},
    {WSAENOBUFS, ENOBUFS, "no buffer space"},
    {WSA_NOT_ENOUGH_MEMORY, ENOMEM, "out of memory"},
    {WSAEINVAL, EINVAL, "invalid argument"},
    {WSAEBADF, EBADF, "not an open socket"},
    {WSAENOTSOCK, EBADF, "not an open socket"},
    {WSAEOPNOTSUPP, EOPNOTSUPP, "not supported"},
    {-1, EPROTONOSUPPORT, "there are no local sockets here"},
};

enum { WIN_ERRORS = sizeof win_errors / sizeof *win_errors };

static int win_errno(int code)
{
    int i;
    for (i = 0; i < WIN_ERRORS; i++)
        if (win_errors[i].code == code)
            return win_errors[i].number;
    return EIO;
}

static const char *win_strerror(int number)
{
    int i;
    for (i = 0; i < WIN_ERRORS; i++)
        if (win_errors[i].number == number)
            return win_errors[i].text;
    return strerror(number);
}

static int win_failed(void)
{
    errno = win_errno(WSAGetLastError());
    return -1;
}

static int win_answer(int n)
{
    return n == SOCKET_ERROR ? win_failed() : n;
}

static int win_size(size_t n)
{
    return n < INT_MAX ? (int)n : INT_MAX;
}

/* Urgent bytes stay where they are in the stream: as something exceptional,
   that nobody asks for, they would wake a select again and again. */
static int win_fd(SOCKET s)
{
    BOOL on = TRUE;
    if (s == INVALID_SOCKET)
        return win_failed();
    if (s > INT_MAX) {
        closesocket(s);
        errno = EMFILE;
        return -1;
    }
    setsockopt(s, SOL_SOCKET, SO_OOBINLINE, (const char *)&on, sizeof on);
    return (int)s;
}

static int win_socket(int family, int type)
{
    if (family != AF_UNIX)
        return win_fd(
            WSASocketW(family, type, 0, NULL, 0,
                       WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT));
    errno = EPROTONOSUPPORT;
    return -1;
}

static int win_accept(int fd, struct sockaddr *from, int *len)
{
    return win_fd(accept((SOCKET)fd, from, len));
}

static int win_connect(int fd, const struct sockaddr *to, int len)
{
    if (connect((SOCKET)fd, to, len) == 0)
        return 0;
    win_failed();
    if (errno == EAGAIN)
        errno = EINPROGRESS;
    return -1;
}

static ssize_t win_recv(int fd, void *to, size_t n, int flags)
{
    return win_answer(recv((SOCKET)fd, (char *)to, win_size(n), flags));
}

static ssize_t win_send(int fd, const void *from, size_t n, int flags)
{
    return win_answer(send((SOCKET)fd, (const char *)from, win_size(n), flags));
}

/* Written from a copy of the list, whose members stand the other way round
   there. */
static ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    WSABUF v[WIN_PIECES];
    DWORD sent = 0;
    size_t i;
    for (i = 0; i < m->msg_iovlen && i < WIN_PIECES; i++) {
        v[i].buf = (char *)m->msg_iov[i].iov_base;
        v[i].len = (ULONG)win_size(m->msg_iov[i].iov_len);
    }
    if (WSASend((SOCKET)fd, v, (DWORD)i, &sent, (DWORD)flags, NULL, NULL) != 0)
        return win_failed();
    return (ssize_t)sent;
}

static int close(int fd)
{
    return win_answer(closesocket((SOCKET)fd));
}

/* Without the spare descriptor: nobody runs out of files here, and that sockets
   are short is told by no number of them. */
static int open(const char *path, int flags)
{
    (void)path;
    (void)flags;
    errno = ENOENT;
    return -1;
}

static int win_setsockopt(int fd, int level, int name, const void *value,
                          size_t size)
{
    return win_answer(setsockopt((SOCKET)fd, level, name, (const char *)value,
                                 win_size(size)));
}

static int win_getsockopt(int fd, int level, int name, int *value, int *size)
{
    int n = getsockopt((SOCKET)fd, level, name, (char *)value, size);
    if (n == 0 && name == SO_ERROR && *value)
        *value = win_errno(*value);
    return win_answer(n);
}

/* The last argument is asked for by F_SETFL alone. */
static int fcntl(int fd, int what, ...)
{
    int type, size = sizeof type;
    u_long on = 1;
    switch (what) {
    case F_SETFL:
        return win_answer(ioctlsocket((SOCKET)fd, (long)FIONBIO, &on));
    case F_SETFD:
        SetHandleInformation((HANDLE)(SOCKET)fd, HANDLE_FLAG_INHERIT, 0);
        return 0;
    default: /* is it an open one? */
        return win_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
    }
}

static ssize_t getrandom(void *out, size_t n, unsigned flags)
{
    (void)flags;
    n = (size_t)win_size(n);
    errno = EIO;
    return RtlGenRandom(out, (ULONG)n) ? (ssize_t)n : -1;
}

/* Its frequency is of some MHz, so that nothing overflows. */
static int win_clock(struct timespec *t)
{
    LARGE_INTEGER now, per_second;
    if (!QueryPerformanceFrequency(&per_second) ||
        !QueryPerformanceCounter(&now))
        return -1;
    t->tv_sec = (time_t)(now.QuadPart / per_second.QuadPart);
    t->tv_nsec = (long)(now.QuadPart % per_second.QuadPart * 1000000000 /
                        per_second.QuadPart);
    return 0;
}

/* From here on the names are ours. */
#define strerror(number) win_strerror(number)
#define socket(family, type, protocol) win_socket(family, type)
#define accept(fd, from, len) win_accept(fd, from, len)
#define connect(fd, to, len) win_connect(fd, to, len)
#define bind(fd, to, len) win_answer(bind((SOCKET)(fd), to, len))
#define listen(fd, backlog) win_answer(listen((SOCKET)(fd), backlog))
#define shutdown(fd, how) win_answer(shutdown((SOCKET)(fd), how))
#define getsockname(fd, name, len)                                             \
    win_answer(getsockname((SOCKET)(fd), name, len))
#define setsockopt(fd, level, name, value, size)                               \
    win_setsockopt(fd, level, name, value, size)
#define getsockopt(fd, level, name, value, size)                               \
    win_getsockopt(fd, level, name, value, size)
#define recv(fd, to, n, flags) win_recv(fd, to, n, flags)
#define send(fd, from, n, flags) win_send(fd, from, n, flags)
#define clock_gettime(id, t) win_clock(t)
#define unlink(path) remove(path)

static int pair_listen(struct sockaddr_in *a)
{
    int len = sizeof *a, fd = socket(AF_INET, SOCK_STREAM, 0);
    const int alone = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &alone, sizeof alone);
    memset(a, 0, sizeof *a);
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)a, len) == 0 && listen(fd, 8) == 0 &&
        getsockname(fd, (struct sockaddr *)a, &len) == 0)
        return fd;
    close(fd);
    return -1;
}

/* The other end of ours, and no stranger who came to that port, too. */
static int pair_accept(int listener, int ours)
{
    struct sockaddr_in us, from;
    int i, fd, len = sizeof us;
    if (getsockname(ours, (struct sockaddr *)&us, &len) < 0)
        return -1;
    for (i = 0; i < 100; i++) {
        len = sizeof from;
        fd = accept(listener, (struct sockaddr *)&from, &len);
        if (fd < 0)
            return -1;
        if (from.sin_port == us.sin_port &&
            from.sin_addr.s_addr == us.sin_addr.s_addr)
            return fd;
        close(fd);
    }
    errno = ECONNREFUSED;
    return -1;
}

/* A pipe that select knows: two sockets, connected over the loopback. */
static int pipe(int fd[2])
{
    struct sockaddr_in a;
    const int on = 1;
    int listener = pair_listen(&a), ours, theirs = -1;
    if (listener < 0)
        return -1;
    ours = socket(AF_INET, SOCK_STREAM, 0);
    if (ours >= 0 && connect(ours, (struct sockaddr *)&a, sizeof a) == 0)
        theirs = pair_accept(listener, ours);
    close(listener);
    if (theirs < 0) {
        if (ours >= 0)
            close(ours);
        return -1;
    }
    setsockopt(ours, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fd[0] = theirs;
    fd[1] = ours;
    return 0;
}

#endif
/* ---- errors ------------------------------------------------------------- */

const char *rt_strerror(int error)
{
#define TEXT(name, value, text)                                                \
    if (error == (value))                                                      \
        return text;
    RT_ERRORS(TEXT)
#undef TEXT
    return error >= 0 ? "success" : "unknown error";
}

#define TEXT_OF(x) #x
#define VERSION(a, b, c) TEXT_OF(a) "." TEXT_OF(b) "." TEXT_OF(c)

const char *rt_version(void)
{
    return VERSION(RT_VERSION_MAJOR, RT_VERSION_MINOR, RT_VERSION_PATCH);
}

/* The line is made on the stack and cut at its end: a log must not fail for
   want of memory, which may be what it tells of. */
void rt__log(rt_loop *loop, int level, const char *what, const char *detail)
{
    char line[256];
    if (!loop->opts.log)
        return;
    snprintf(line, sizeof line, "%s%s%s", what, *detail ? ": " : "", detail);
    loop->opts.log(loop->opts.user, level, line);
}

/* Remembers for rt_error why a handle is {0}; returns that 0.  The text is
   copied, because that of strerror may be overwritten by its next call. */
uint64_t rt__fail(rt_loop *loop, int error, const char *what,
                  const char *detail)
{
    loop->error = error;
    snprintf(loop->error_text, sizeof loop->error_text, "%s: %s", what,
             detail ? detail : rt_strerror(error));
    return 0;
}

/* Reads errno: it comes before any cleaning up, where close and unlink would
   write over it. */
static uint64_t fail_errno(rt_loop *loop, const char *what)
{
    if (errno == ENOMEM)
        return rt__fail(loop, RT_ENOMEM, what, NULL);
    return rt__fail(loop, RT_ESYS, what, strerror(errno));
}

int rt_error(rt_loop *loop, const char **text)
{
    if (text)
        *text = loop->error_text;
    return loop->error;
}

/* ---- memory ------------------------------------------------------------- */

/* Every block goes through the one hook, with its old size: whoever owns a
   block knows how large it is, so the host's allocator needs no headers and
   loop->heap is exact at any time. */

/* realloc to a size of 0 may free or may allocate (C99, 7.20.3): free is
   called by its name. */
static void *libc_realloc(void *user, void *p, size_t old, size_t now)
{
    (void)user;
    (void)old;
    if (now)
        return realloc(p, now);
    free(p);
    return NULL;
}

/* NULL leaves the old block as it was.  The difference is unsigned: for a block
   that shrinks it wraps, and the sum wraps back to the right value. */
void *rt__realloc(rt_loop *loop, void *p, size_t old, size_t now)
{
    void *q = loop->opts.realloc(loop->opts.user, p, old, now);
    if (q || !now)
        loop->heap += now - old;
    return q;
}

void *rt__alloc(rt_loop *loop, size_t size)
{
    void *p = rt__realloc(loop, NULL, 0, size);
    if (p)
        memset(p, 0, size);
    return p;
}

void rt__free(rt_loop *loop, void *p, size_t size)
{
    if (p)
        rt__realloc(loop, p, size, 0);
}

char *rt__strdup(rt_loop *loop, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = (char *)rt__realloc(loop, NULL, 0, size);
    return copy ? (char *)memcpy(copy, text, size) : NULL;
}

/* The size is found in the text again, so nobody may shorten it in place. */
void rt__strfree(rt_loop *loop, char *text)
{
    if (text)
        rt__free(loop, text, strlen(text) + 1);
}

/* Makes room for one more element of size bytes; grows by a quarter, so that
   not more than a fifth of an array is idle and adding stays cheap on average.
   When it fails the array and its cap are as before. */
int rt__grow(rt_loop *loop, void **array, size_t *cap, size_t size)
{
    size_t more = *cap + *cap / 4 + 1;
    void *p = rt__realloc(loop, *array, *cap * size, more * size);
    if (!p)
        return RT_ENOMEM;
    *array = p;
    *cap = more;
    return 0;
}

/* ---- time and chance ---------------------------------------------------- */

/* Microseconds of the monotonic clock, never less than before: deadlines and
   limits subtract older times without asking.  One that goes back, as it must
   not, is held until it has caught up; but by a second or more, and it goes on
   from where it was, else all would stand still for as long.  (Were that done
   for less, too, one that sways would run ahead by each sway.)  Nobody in the
   library reads the wall clock, so that setting it moves no deadline. */
uint64_t rt__micros(rt_loop *loop)
{
    struct timespec t;
    uint64_t now;
    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        return loop->last_micros;
    now = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000 +
          loop->went_back;
    if (now >= loop->last_micros)
        return loop->last_micros = now;
    if (loop->last_micros - now >= 1000000)
        loop->went_back += loop->last_micros - now;
    return loop->last_micros;
}

/* Within a turn the time stands still: all its callbacks see the same one. */
uint64_t rt_now(rt_loop *loop)
{
    if (!loop->in_turn)
        loop->now = rt__micros(loop) / 1000;
    return loop->now;
}

/* The system's source, or nothing: there is no weaker one to fall back on.
   getrandom may be cut short or interrupted, a device may give less. */
static int os_random(void *user, void *out, size_t n)
{
    uint8_t *p = (uint8_t *)out;
    (void)user;
    while (n > 0) {
#if defined(RT__EPOLL) || defined(RT__WINSOCK)
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno != EINTR)
            return RT_ERANDOM;
#else
        int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, p, n);
        if (fd >= 0)
            close(fd);
        if (got <= 0)
            return RT_ERANDOM;
#endif
        if (got > (ssize_t)n)
            return RT_ERANDOM;
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        }
    }
    return 0;
}

/* by is never 0: a shift by all 64 bits is undefined. */
static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t m)
{
    v[3] ^= m;
    sip_round(v);
    sip_round(v);
    v[0] ^= m;
}

/* SipHash-2-4 (Aumasson and Bernstein, 2012), a keyed pseudo-random function:
   peers cannot make names collide, nor foresee what is drawn from it.  Reads
   single bytes, so that the hash is the same whatever the byte order. */
static uint64_t siphash(const uint64_t key[2], const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    uint64_t v[4], m = 0;
    size_t i, whole = len & ~(size_t)7;
    v[0] = key[0] ^ 0x736f6d6570736575u;
    v[1] = key[1] ^ 0x646f72616e646f6du;
    v[2] = key[0] ^ 0x6c7967656e657261u;
    v[3] = key[1] ^ 0x7465646279746573u;
    for (i = 0; i < len; i++) {
        m |= (uint64_t)p[i] << (i & 7) * 8;
        if (i < whole && (i & 7) == 7) {
            sip_word(v, m);
            m = 0;
        }
    }
    sip_word(v, m | (uint64_t)len << 56);
    v[2] ^= 0xff;
    for (i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t rt__hash(rt_loop *loop, const void *data, size_t len)
{
    return siphash(loop->secret, data, len);
}

/* Bytes as numbers, the first byte being the lowest: so the same bytes give the
   same numbers everywhere. */
static void words_read(uint64_t *word, size_t n)
{
    const uint8_t *p;
    uint64_t x;
    size_t i;
    for (; n > 0; n--, word++) {
        p = (const uint8_t *)word;
        for (x = 0, i = sizeof x; i > 0; i--)
            x = x << 8 | p[i - 1];
        *word = x;
    }
}

/* A stream seeded by the system's source: for masks (unpredictable by RFC 6455,
   10.3), jitter, generations.  Its key is not that of the hash tables, where
   peers choose what is hashed.  Tokens do not come from here. */
uint64_t rt__random(rt_loop *loop)
{
    uint64_t drawn = ++loop->drawn;
    words_read(&drawn, 1);
    return siphash(loop->secret + 2, &drawn, sizeof drawn);
}

/* ---- hash tables -------------------------------------------------------- */

/* Chains of nodes that their owners allocate and free: a table never owns what
   is in it.  The number of heads is a power of two and never falls. */

/* The first node of that hash; the caller compares its key. */
rt__node *rt__table_find(const rt__table *table, uint64_t hash)
{
    rt__node *n = table->size ? table->heads[hash & (table->size - 1)] : NULL;
    while (n && n->hash != hash)
        n = n->next;
    return n;
}

/* The next node of the same hash. */
rt__node *rt__table_more(const rt__node *node)
{
    rt__node *n = node->next;
    while (n && n->hash != node->hash)
        n = n->next;
    return n;
}

static void table_link(rt__table *table, rt__node *node)
{
    rt__node **head = &table->heads[node->hash & (table->size - 1)];
    node->next = *head;
    *head = node;
}

/* The nodes keep their whole hash, so no key is looked at.  Done when there are
   two for each head, it costs each node a constant on average. */
static int table_grow(rt_loop *loop, rt__table *table)
{
    rt__table now;
    size_t i;
    now.size = table->size ? table->size * 2 : 16;
    now.count = table->count;
    now.heads = (rt__node **)rt__alloc(loop, now.size * sizeof(rt__node *));
    if (!now.heads)
        return table->size ? 0 : RT_ENOMEM; /* longer chains will do */
    for (i = 0; i < table->size; i++) {
        rt__node *n = table->heads[i], *next;
        for (; n; n = next) {
            next = n->next;
            table_link(&now, n);
        }
    }
    rt__table_free(loop, table);
    *table = now;
    return 0;
}

int rt__table_add(rt_loop *loop, rt__table *table, rt__node *node)
{
    if (table->count >= table->size * 2 && table_grow(loop, table) < 0)
        return RT_ENOMEM;
    table_link(table, node);
    table->count++;
    return 0;
}

/* The node has to be in it: the chain is not asked whether it ends. */
void rt__table_remove(rt__table *table, rt__node *node)
{
    rt__node **p = &table->heads[node->hash & (table->size - 1)];
    while (*p != node)
        p = &(*p)->next;
    *p = node->next;
    table->count--;
}

void rt__table_free(rt_loop *loop, rt__table *table)
{
    rt__free(loop, table->heads, table->size * sizeof(rt__node *));
    memset(table, 0, sizeof *table);
}

/* ---- histograms --------------------------------------------------------- */

/* The bounds are 2^first and doubles of it; micro: what is counted are
   microseconds, shown as seconds. */
typedef struct {
    uint8_t first, micro;
} scale;

static const scale turn_scale = {4, 1};    /* 16 us .. 0.5 s */
static const scale queue_scale = {6, 0};   /* 64 bytes .. 2 MiB */
static const scale request_scale = {8, 1}; /* 256 us .. 8.4 s */

/* A bound itself still counts below it, hence value - 1; clz of 0 is undefined.
   The sum stays at its end instead of wrapping: a host may report anything. */
static void histogram_add(rt__histogram *h, scale s, uint64_t value)
{
    unsigned bits = value > 1 ? 64 - (unsigned)__builtin_clzll(value - 1) : 0;
    unsigned i = bits > s.first ? bits - s.first : 0;
    if (i > RT__BUCKETS)
        i = RT__BUCKETS;
    h->count[i]++;
    h->sum = value > UINT64_MAX - h->sum ? UINT64_MAX : h->sum + value;
}

/* ---- handles ------------------------------------------------------------ */

/* A handle is generation << 24 | slot.  Generations have 40 bits and start at
   a random value, so that another loop's handles are stale in this one.  A
   handle is never 0.  Slots stand in blocks, so that none of them moves and
   none is copied when there are more, and what they leave unused is one block.
 */
struct rt__slot {
    union {
        void *object;
        uintptr_t next_free; /* index + 1 */
    } is;
    uint64_t tag; /* generation << 8 | kind */
};

#define SLOT_BITS 24
#define SLOT_MASK ((1u << SLOT_BITS) - 1)
#define GENERATIONS (((uint64_t)1 << 40) - 1)

static struct rt__slot *slot_at(const rt_loop *loop, uint32_t i)
{
    return &loop->slots[i / RT__SLOTS][i % RT__SLOTS];
}

static struct rt__slot *slot_of(rt_loop *loop, uint64_t id)
{
    uint32_t i = (uint32_t)(id & SLOT_MASK);
    if (i >= loop->slot_count || slot_at(loop, i)->tag >> 8 != id >> SLOT_BITS)
        return NULL;
    return slot_at(loop, i);
}

enum rt__slot_kind rt__slot_kind(rt_loop *loop, uint64_t id)
{
    struct rt__slot *slot = slot_of(loop, id);
    return slot ? (enum rt__slot_kind)(slot->tag & 0xff) : RT__FREE;
}

/* The kind is compared too: a timer's handle cast to a session's is stale. */
void *rt__slot_get(rt_loop *loop, uint64_t id, enum rt__slot_kind kind)
{
    struct rt__slot *slot = slot_of(loop, id);
    return slot && (slot->tag & 0xff) == kind ? slot->is.object : NULL;
}

/* One more block of them. */
static int slots_grow(rt_loop *loop)
{
    void *blocks = loop->slots;
    size_t n = loop->slot_count / RT__SLOTS;
    if (n == loop->slot_blocks &&
        rt__grow(loop, &blocks, &loop->slot_blocks, sizeof *loop->slots) < 0)
        return RT_ENOMEM;
    loop->slots = (struct rt__slot **)blocks;
    loop->slots[n] = (struct rt__slot *)rt__realloc(
        loop, NULL, 0, RT__SLOTS * sizeof(struct rt__slot));
    if (!loop->slots[n])
        return RT_ENOMEM;
    loop->slot_cap += RT__SLOTS;
    return 0;
}

static int slot_add(rt_loop *loop)
{
    struct rt__slot *slot;
    if (loop->slot_count > SLOT_MASK)
        return RT_EFULL;
    if (loop->slot_count == loop->slot_cap && slots_grow(loop) < 0)
        return RT_ENOMEM;
    slot = slot_at(loop, loop->slot_count);
    /* Odd, so never 0, and in the lower half: 2^39 uses are left at least. */
    slot->tag = (rt__random(loop) & (GENERATIONS >> 1)) << 8 | 1 << 8;
    slot->is.next_free = loop->slot_free;
    loop->slot_free = ++loop->slot_count; /* index + 1 */
    return 0;
}

static void slots_free(rt_loop *loop)
{
    uint32_t i;
    for (i = 0; i < loop->slot_cap; i += RT__SLOTS)
        rt__free(loop, loop->slots[i / RT__SLOTS],
                 RT__SLOTS * sizeof(struct rt__slot));
    rt__free(loop, loop->slots, loop->slot_blocks * sizeof *loop->slots);
}

/* A new handle for object; 0 when there is no memory. */
uint64_t rt__slot_new(rt_loop *loop, enum rt__slot_kind kind, void *object)
{
    struct rt__slot *slot;
    uint32_t i;
    if (!loop->slot_free && slot_add(loop) < 0)
        return 0;
    i = loop->slot_free - 1;
    slot = slot_at(loop, i);
    loop->slot_free = (uint32_t)slot->is.next_free;
    slot->is.object = object;
    slot->tag = (slot->tag & ~(uint64_t)0xff) | (uint64_t)kind;
    loop->in_use[kind]++;
    return slot->tag >> 8 << SLOT_BITS | i;
}

/* The object in a slot that is known to be in use. */
void *rt__slot_at(rt_loop *loop, uint32_t index)
{
    return slot_at(loop, index)->is.object;
}

/* The same handle, now of something else: a handshake became a session. */
void rt__slot_become(rt_loop *loop, uint64_t id, enum rt__slot_kind kind,
                     void *object)
{
    struct rt__slot *slot = slot_of(loop, id);
    loop->in_use[slot->tag & 0xff]--;
    loop->in_use[kind]++;
    slot->is.object = object;
    slot->tag = (slot->tag & ~(uint64_t)0xff) | (uint64_t)kind;
}

/* Makes the handle stale, and the slot the next to be used: its generation is
   another one by then.  A slot whose generations are used up is retired. */
void rt__slot_free(rt_loop *loop, uint64_t id)
{
    struct rt__slot *slot = slot_of(loop, id);
    uint64_t generation = ((slot->tag >> 8) + 1) & GENERATIONS;
    loop->in_use[slot->tag & 0xff]--;
    slot->is.object = NULL;
    slot->tag = generation << 8;
    if (generation == 0)
        return;
    slot->is.next_free = loop->slot_free;
    loop->slot_free = (uint32_t)(id & SLOT_MASK) + 1;
}

/* Goes over all objects of a kind; *after is 0 at first.  Of that handle only
   the slot counts, so the object that was returned may be gone by now. */
void *rt__slot_next(rt_loop *loop, uint64_t *after, enum rt__slot_kind kind)
{
    uint32_t i = *after ? (uint32_t)(*after & SLOT_MASK) + 1 : 0;
    for (; i < loop->slot_count; i++) {
        struct rt__slot *slot = slot_at(loop, i);
        if ((slot->tag & 0xff) != (uint64_t)kind)
            continue;
        *after = slot->tag >> 8 << SLOT_BITS | i;
        return slot->is.object;
    }
    return NULL;
}

/* ---- timers ------------------------------------------------------------- */

/* One binary heap for all: deadlines of connections are set seldom (they are
   looked at when they come, not at each message), ticks are few.  Each timer is
   part of what it belongs to and knows its place, so that it can leave from the
   middle; when it is due stands in the heap.  timer_count <= timer_users <=
   timer_cap, seq_cap: whoever may set a timer adopted it before, and from then
   on no memory is needed. */

/* An entry on its way through the heap. */
typedef struct {
    rt__due due;
    uint32_t seq;
} moving;

static moving timer_at(const rt_loop *loop, uint32_t i)
{
    moving m;
    m.due = loop->timers[i];
    m.seq = loop->timer_seqs[i];
    return m;
}

/* Does the i-th come before that?  Equal times: the one set first.  seq wraps,
   hence the signed difference. */
static int timer_before(const rt_loop *loop, uint32_t i, const moving *m)
{
    if (loop->timers[i].due != m->due.due)
        return loop->timers[i].due < m->due.due;
    return (int32_t)(loop->timer_seqs[i] - m->seq) < 0;
}

static void timer_put(rt_loop *loop, uint32_t i, const moving *m)
{
    loop->timers[i] = m->due;
    loop->timer_seqs[i] = m->seq;
    m->due.timer->at = (i + 1) & 0x1fffffff;
}

/* i is a hole: m goes there, or further up. */
static void timer_up(rt_loop *loop, uint32_t i, const moving *m)
{
    while (i > 0 && !timer_before(loop, (i - 1) / 2, m)) {
        moving above = timer_at(loop, (i - 1) / 2);
        timer_put(loop, i, &above);
        i = (i - 1) / 2;
    }
    timer_put(loop, i, m);
}

static void timer_down(rt_loop *loop, uint32_t i, const moving *m)
{
    uint32_t child;
    while ((child = 2 * i + 1) < loop->timer_count) {
        moving below = timer_at(loop, child);
        if (child + 1 < loop->timer_count &&
            timer_before(loop, child + 1, &below))
            below = timer_at(loop, ++child);
        if (!timer_before(loop, child, m))
            break;
        timer_put(loop, i, &below);
        i = child;
    }
    timer_put(loop, i, m);
}

void rt__timer_clear(rt_loop *loop, rt__timer *t)
{
    uint32_t i;
    moving last;
    if (!t->at)
        return;
    i = t->at - 1;
    t->at = 0;
    last = timer_at(loop, --loop->timer_count);
    if (last.due.timer == t)
        return;
    /* The last one fills the hole.  It may come from another branch: it can
       have to go up as well as down. */
    timer_up(loop, i, &last);
    timer_down(loop, last.due.timer->at - 1, &last);
}

/* A time that has passed counts as now, so that one who starts a timer due at
   once again and again still stands behind those that waited. */
void rt__timer_set(rt_loop *loop, rt__timer *t, uint64_t due)
{
    moving m;
    rt__timer_clear(loop, t);
    m.due.due = due > loop->now ? due : loop->now;
    m.due.timer = t;
    m.seq = loop->timer_seq++;
    timer_up(loop, loop->timer_count++, &m);
}

/* UINT64_MAX: it is not set. */
uint64_t rt__timer_due(const rt_loop *loop, const rt__timer *t)
{
    return t->at ? loop->timers[t->at - 1].due : UINT64_MAX;
}

/* Room for one more in both arrays; where only the first finds it, the second
   is behind and asks again. */
static int timers_grow(rt_loop *loop)
{
    size_t cap = loop->timer_cap, seq_cap = loop->seq_cap;
    void *timers = loop->timers, *seqs = loop->timer_seqs;
    if (loop->timer_users == cap &&
        rt__grow(loop, &timers, &cap, sizeof *loop->timers) < 0)
        return RT_ENOMEM;
    loop->timers = (rt__due *)timers;
    loop->timer_cap = (uint32_t)cap;
    if (loop->timer_users == seq_cap &&
        rt__grow(loop, &seqs, &seq_cap, sizeof *loop->timer_seqs) < 0)
        return RT_ENOMEM;
    loop->timer_seqs = (uint32_t *)seqs;
    loop->seq_cap = (uint32_t)seq_cap;
    return 0;
}

/* Reserves a place for one more timer, so that setting it cannot fail. */
int rt__timer_adopt(rt_loop *loop, rt__timer *t, unsigned int kind)
{
    if (timers_grow(loop) < 0)
        return RT_ENOMEM;
    loop->timer_users++;
    t->at = 0;
    t->kind = kind & 7;
    return 0;
}

void rt__timer_disown(rt_loop *loop, rt__timer *t)
{
    rt__timer_clear(loop, t);
    loop->timer_users--;
}

/* A timer of the application. */
struct rt__apptimer {
    rt__timer timer;
    uint64_t id;
    rt__session *owner;
    rt__apptimer *next, **link; /* among those of the owner */
    void (*fn)(rt_loop *, void *);
    void *arg;
};

static void apptimer_own(rt__apptimer *t, rt__session *owner)
{
    t->owner = owner;
    if (!owner)
        return;
    t->next = owner->is.more->timers;
    t->link = &owner->is.more->timers;
    if (t->next)
        t->next->link = &t->next;
    owner->is.more->timers = t;
}

/* The only place where a started one is freed: when it fires, when it is
   stopped, with its owner, and with the loop. */
static void apptimer_free(rt_loop *loop, rt__apptimer *t)
{
    rt__timer_disown(loop, &t->timer);
    if (t->owner) {
        *t->link = t->next;
        if (t->next)
            t->next->link = t->link;
        rt__more_settle(loop, t->owner);
    }
    rt__slot_free(loop, t->id);
    rt__free(loop, t, sizeof *t);
}

void rt__timers_stop(rt_loop *loop, rt__session *owner)
{
    while (rt__more_of(owner) && owner->is.more->timers)
        apptimer_free(loop, owner->is.more->timers);
}

/* Stops those that would run fn. */
void rt__timers_stop_fn(rt_loop *loop, rt__session *owner,
                        void (*fn)(rt_loop *, void *))
{
    rt__apptimer *t = rt__more_of(owner) ? owner->is.more->timers : NULL, *next;
    for (; t; t = next) {
        next = t->next;
        if (t->fn == fn)
            apptimer_free(loop, t);
    }
}

/* A handle, a place in the heap and one with the owner, or nothing of them. */
static rt__apptimer *apptimer_new(rt_loop *loop, rt__session *owner)
{
    rt__apptimer *t = (rt__apptimer *)rt__alloc(loop, sizeof *t);
    if (!t)
        return NULL;
    t->id = rt__slot_new(loop, RT__TIMER, t);
    if (t->id && (!owner || rt__more_open(loop, owner)) &&
        rt__timer_adopt(loop, &t->timer, RT__OF_APP) == 0) {
        apptimer_own(t, owner);
        return t;
    }
    if (owner)
        rt__more_settle(loop, owner);
    if (t->id)
        rt__slot_free(loop, t->id);
    rt__free(loop, t, sizeof *t);
    return NULL;
}

rt_timer rt_timer_start(rt_loop *loop, rt_session owner, uint64_t due,
                        void (*fn)(rt_loop *, void *), void *arg)
{
    rt_timer handle = {0};
    rt__session *s = NULL;
    rt__apptimer *t;
    int error = 0;
    if (owner.id && !(s = rt__session_get(loop, owner.id, &error))) {
        rt__fail(loop, error, "timer", NULL);
        return handle;
    }
    if (!fn || !(t = apptimer_new(loop, s))) {
        rt__fail(loop, fn ? RT_ENOMEM : RT_EINVAL, "timer", NULL);
        return handle;
    }
    t->fn = fn;
    t->arg = arg;
    /* Between turns loop->now is old, and due would be held against that. */
    rt_now(loop);
    rt__timer_set(loop, &t->timer, due);
    handle.id = t->id;
    return handle;
}

int rt_timer_stop(rt_loop *loop, rt_timer timer)
{
    rt__apptimer *t = (rt__apptimer *)rt__slot_get(loop, timer.id, RT__TIMER);
    if (!t)
        return RT_EGONE;
    apptimer_free(loop, t);
    return 0;
}

/* It is gone before fn runs: its own handle is stale there, and fn may end the
   owner or start the next tick. */
static void apptimer_fire(rt_loop *loop, rt__apptimer *t)
{
    void (*fn)(rt_loop *, void *) = t->fn;
    void *arg = t->arg;
    apptimer_free(loop, t);
    rt__tell_timer(loop, fn, arg);
}

/* ---- backends ----------------------------------------------------------- */

/* Four functions each; they know sources, nothing of what is behind them.  All
   are level-triggered: what is not read now is told again.  An event is a hint,
   the system call that follows has the truth. */

/* What an event carries, instead of a pointer: within one batch a descriptor
   can be closed and its number be used again, and gen tells the two apart. */
static uint64_t source_key(const rt__source *s)
{
    return (uint64_t)s->gen << 32 | (uint32_t)s->fd;
}

#if defined(RT__EPOLL)

static int ep_open(rt_loop *loop)
{
    loop->backend_fd = epoll_create1(EPOLL_CLOEXEC);
    return loop->backend_fd < 0 ? -1 : 0;
}

static void ep_close(rt_loop *loop)
{
    close(loop->backend_fd);
}

/* source_set calls it for changes only, so what was there before tells whether
   to add, to change or to remove. */
static int ep_set(rt_loop *loop, rt__source *s, int interest)
{
    struct epoll_event e;
    int how = !s->interest ? EPOLL_CTL_ADD
              : interest   ? EPOLL_CTL_MOD
                           : EPOLL_CTL_DEL;
    memset(&e, 0, sizeof e);
    e.events = (interest & RT_READ ? (uint32_t)EPOLLIN : 0) |
               (interest & RT_WRITE ? (uint32_t)EPOLLOUT : 0);
    e.data.u64 = source_key(s);
    return epoll_ctl(loop->backend_fd, how, s->fd, &e);
}

/* A signal is the host's affair and no error: the turn goes on without events.
   Where more are ready than fit, the kernel puts those it told at the end of
   its list, so the others come with the next wait. */
static int ep_wait(rt_loop *loop, int timeout_ms)
{
    struct epoll_event e[RT__BATCH];
    int i, n = epoll_wait(loop->backend_fd, e, RT__BATCH, timeout_ms);
    if (n < 0)
        return errno == EINTR ? 0 : -1;
    for (i = 0; i < n; i++) {
        /* These come unasked, and alone as well.  Told as both, they lead to
           the system call: recv gives what is still unread before the error. */
        int broken = (e[i].events & (EPOLLERR | EPOLLHUP)) != 0;
        loop->ready[i].key = e[i].data.u64;
        loop->ready[i].events =
            broken ? RT_READ | RT_WRITE
                   : (e[i].events & EPOLLIN ? RT_READ : 0) |
                         (e[i].events & EPOLLOUT ? RT_WRITE : 0);
    }
    return n;
}

#endif

#if defined(RT__KQUEUE)

enum { KQ_BATCH = RT__BATCH / 4 }; /* of 64 bytes each, on the stack */

/* No fork inherits a queue, but an exec would without the flag. */
static int kq_open(rt_loop *loop)
{
    loop->backend_fd = kqueue();
    if (loop->backend_fd < 0)
        return -1;
    if (fcntl(loop->backend_fd, F_SETFD, FD_CLOEXEC) == 0)
        return 0;
    close(loop->backend_fd);
    return -1;
}

static void kq_close(rt_loop *loop)
{
    close(loop->backend_fd);
}

/* One filter for each bit; both changes go in one call, which has no room for
   events and so says by errno which one failed, and does not wait. */
static int kq_change(rt_loop *loop, const rt__source *s, int bits, int how)
{
    struct kevent change[2];
    int n = 0;
    /* The number stands in ident: with gen it is the key, in 32 bits too. */
    void *udata = (void *)(uintptr_t)s->gen;
    if (bits & RT_READ) {
        EV_SET(&change[n], (uintptr_t)s->fd, EVFILT_READ, how, 0, 0, udata);
        n++;
    }
    if (bits & RT_WRITE) {
        EV_SET(&change[n], (uintptr_t)s->fd, EVFILT_WRITE, how, 0, 0, udata);
        n++;
    }
    if (n == 0 || kevent(loop->backend_fd, change, n, NULL, 0, NULL) == 0)
        return 0;
    return errno == EINTR ? 0 : -1; /* interrupted, it is done all the same */
}

/* What cannot be added leaves no half of it behind, which would be told to
   nobody again and again. */
static int kq_set(rt_loop *loop, rt__source *s, int interest)
{
    int was = s->interest, more = interest & ~was, error;
    if (kq_change(loop, s, more, EV_ADD) == 0)
        return kq_change(loop, s, was & ~interest, EV_DELETE);
    error = errno;
    kq_change(loop, s, more & RT_READ, EV_DELETE);
    kq_change(loop, s, more & RT_WRITE, EV_DELETE);
    errno = error;
    return -1;
}

/* Reading and writing are events of their own here: who is ready for both
   stands in the batch twice, and the second finds nobody if the first ended it.
   As with epoll the end of what a peer sends is something to read, and what
   broke is both. */
static int kq_wait(rt_loop *loop, int timeout_ms)
{
    struct kevent e[KQ_BATCH];
    struct timespec t;
    int i, n;
    t.tv_sec = timeout_ms / 1000;
    t.tv_nsec = timeout_ms % 1000 * 1000000L;
    n = kevent(loop->backend_fd, NULL, 0, e, KQ_BATCH,
               timeout_ms < 0 ? NULL : &t);
    if (n < 0)
        return errno == EINTR ? 0 : -1;
    for (i = 0; i < n; i++) {
        int broken = e[i].flags & EV_ERROR ||
                     (e[i].flags & EV_EOF &&
                      (e[i].fflags || e[i].filter != EVFILT_READ));
        loop->ready[i].key =
            (uint64_t)(uintptr_t)e[i].udata << 32 | (uint32_t)e[i].ident;
        loop->ready[i].events = broken ? RT_READ | RT_WRITE
                                : e[i].filter == EVFILT_READ ? RT_READ
                                                             : RT_WRITE;
    }
    return n;
}

#endif

#if !defined(RT__WINSOCK)

/* select: the sets are kept up to date, each wait works on copies.  What is in
   a set has its source in by_fd.  A broken socket is readable here by itself,
   so no third set is needed. */
typedef struct {
    fd_set read, write;
    int top; /* greatest descriptor that was ever in */
} select_data;

static int select_open(rt_loop *loop)
{
    loop->backend_fd = -1;
    loop->backend_data = rt__alloc(loop, sizeof(select_data));
    return loop->backend_data ? 0 : -1;
}

static void select_close(rt_loop *loop)
{
    rt__free(loop, loop->backend_data, sizeof(select_data));
}

/* An fd_set has FD_SETSIZE bits and FD_SET does not look: a greater descriptor
   would write behind it. */
static int select_set(rt_loop *loop, rt__source *s, int interest)
{
    select_data *d = (select_data *)loop->backend_data;
    if (s->fd >= FD_SETSIZE) {
        errno = EMFILE; /* one more descriptor than this backend can take */
        return -1;
    }
    FD_CLR(s->fd, &d->read);
    FD_CLR(s->fd, &d->write);
    if (interest & RT_READ)
        FD_SET(s->fd, &d->read);
    if (interest & RT_WRITE)
        FD_SET(s->fd, &d->write);
    if (s->fd > d->top)
        d->top = s->fd;
    return 0;
}

/* A watched descriptor was closed under its watch: epoll forgets such a one by
   itself, here each wait would fail for all.  fcntl wrote errno, and the caller
   still asks it. */
static void select_prune(rt_loop *loop)
{
    int fd;
    select_data *d = (select_data *)loop->backend_data;
    for (fd = 0; fd <= d->top; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        FD_CLR(fd, &d->read);
        FD_CLR(fd, &d->write);
    }
    errno = EBADF;
}

/* After an error the sets mean nothing: no event is told then.  The time-out is
   a local, because some systems write into it what is left. */
static int select_wait(rt_loop *loop, int timeout_ms)
{
    select_data *d = (select_data *)loop->backend_data;
    fd_set r = d->read, w = d->write;
    struct timeval t;
    int fd, n = 0;
    t.tv_sec = timeout_ms / 1000;
    t.tv_usec = timeout_ms % 1000 * 1000L;
    if (select(d->top + 1, &r, &w, NULL, timeout_ms < 0 ? NULL : &t) < 0) {
        if (errno == EBADF)
            select_prune(loop);
        return errno == EINTR || errno == EBADF ? 0 : -1;
    }
    for (fd = 0; fd <= d->top && n < RT__BATCH; fd++) {
        int events = (FD_ISSET(fd, &r) ? RT_READ : 0) |
                     (FD_ISSET(fd, &w) ? RT_WRITE : 0);
        if (!events)
            continue;
        loop->ready[n].key = source_key(loop->by_fd[fd]);
        loop->ready[n++].events = events;
    }
    return n;
}

#else

/* select as Windows has it: a set is a list, as long as FD_SETSIZE, and the
   numbers in it are of any size.  The lists are written anew for each wait,
   which looks at all of them anyway; what is wanted stands in the sources. */
typedef struct {
    fd_set read, write, broken;
    uint8_t *marks; /* of each number: the events that a wait brought */
    size_t cap;
    int top;   /* greatest descriptor that was ever in */
    int from;  /* with whom the next wait begins */
    int count; /* who wants something */
} select_data;

static int select_open(rt_loop *loop)
{
    WSADATA data;
    loop->backend_fd = -1;
    if (WSAStartup(MAKEWORD(2, 2), &data) != 0)
        return -1;
    loop->backend_data = rt__alloc(loop, sizeof(select_data));
    if (loop->backend_data)
        return 0;
    WSACleanup();
    return -1;
}

/* The system counts those who started it. */
static void select_close(rt_loop *loop)
{
    select_data *d = (select_data *)loop->backend_data;
    rt__free(loop, d->marks, d->cap);
    rt__free(loop, d, sizeof *d);
    WSACleanup();
}

/* by_fd reaches so far already. */
static int select_reach(rt_loop *loop, select_data *d, int fd)
{
    size_t cap = loop->by_fd_cap;
    uint8_t *p;
    if (fd > d->top)
        d->top = fd;
    if ((size_t)fd < d->cap)
        return 0;
    p = (uint8_t *)rt__realloc(loop, d->marks, d->cap, cap);
    if (!p)
        return -1;
    memset(p + d->cap, 0, cap - d->cap);
    d->marks = p;
    d->cap = cap;
    return 0;
}

static int select_set(rt_loop *loop, rt__source *s, int interest)
{
    select_data *d = (select_data *)loop->backend_data;
    int count = d->count + (interest != 0) - (s->interest != 0);
    if (count > FD_SETSIZE) {
        errno = EMFILE;
        return -1;
    }
    if (select_reach(loop, d, s->fd) < 0) {
        errno = ENOMEM;
        return -1;
    }
    d->count = count;
    return 0;
}

/* A watched socket was closed under its watch: each wait would fail for all. */
static void select_prune(rt_loop *loop)
{
    int fd;
    select_data *d = (select_data *)loop->backend_data;
    for (fd = 0; fd <= d->top; fd++) {
        rt__source *s = loop->by_fd[fd];
        if (!s || !s->interest || fcntl(fd, F_GETFD) >= 0)
            continue;
        s->interest = 0;
        d->count--;
    }
    errno = EBADF; /* fcntl wrote it, and the caller still asks it */
}

/* That connect failed is told as an exception, and as nothing else. */
static void select_ask(rt_loop *loop, select_data *d)
{
    int fd;
    d->read.fd_count = d->write.fd_count = d->broken.fd_count = 0;
    for (fd = 0; fd <= d->top; fd++) {
        const rt__source *s = loop->by_fd[fd];
        if (s && s->interest & RT_READ)
            d->read.fd_array[d->read.fd_count++] = (SOCKET)fd;
        if (!s || !(s->interest & RT_WRITE))
            continue;
        d->write.fd_array[d->write.fd_count++] = (SOCKET)fd;
        d->broken.fd_array[d->broken.fd_count++] = (SOCKET)fd;
    }
}

static void select_mark(select_data *d, const fd_set *set, int events)
{
    u_int i;
    for (i = 0; i < set->fd_count; i++)
        d->marks[set->fd_array[i]] |= (uint8_t)events;
}

/* Where the batch has no room for all, the next one begins with the first that
   was left out. */
static int select_tell(rt_loop *loop, select_data *d)
{
    int i, n = 0, fd = d->from, next = -1;
    for (i = 0; i <= d->top; i++, fd = fd < d->top ? fd + 1 : 0) {
        if (!d->marks[fd])
            continue;
        if (n < RT__BATCH) {
            loop->ready[n].key = source_key(loop->by_fd[fd]);
            loop->ready[n++].events = d->marks[fd];
        } else if (next < 0) {
            next = fd;
        }
        d->marks[fd] = 0;
    }
    d->from = next < 0 ? 0 : next;
    return n;
}

static int select_wait(rt_loop *loop, int timeout_ms)
{
    select_data *d = (select_data *)loop->backend_data;
    struct timeval t;
    t.tv_sec = timeout_ms / 1000;
    t.tv_usec = timeout_ms % 1000 * 1000L;
    select_ask(loop, d);
    if (select(0, &d->read, &d->write, &d->broken,
               timeout_ms < 0 ? NULL : &t) == SOCKET_ERROR) {
        win_failed();
        if (errno == EBADF)
            select_prune(loop);
        return errno == EINTR || errno == EBADF ? 0 : -1;
    }
    select_mark(d, &d->read, RT_READ);
    select_mark(d, &d->write, RT_WRITE);
    select_mark(d, &d->broken, RT_READ | RT_WRITE);
    return select_tell(loop, d);
}

#endif

static void backend_fill(rt__backend *b, int (*open_it)(rt_loop *),
                         void (*close_it)(rt_loop *),
                         int (*set)(rt_loop *, rt__source *, int),
                         int (*wait_for)(rt_loop *, int))
{
    b->open = open_it;
    b->close = close_it;
    b->set = set;
    b->wait = wait_for;
}

/* 0, or -1 when this system has no such backend. */
static int backend_choose(rt__backend *b, int which)
{
#if defined(RT__EPOLL)
    if (which == RT_AUTO || which == RT_EPOLL) {
        backend_fill(b, ep_open, ep_close, ep_set, ep_wait);
        return 0;
    }
#endif
#if defined(RT__KQUEUE)
    if (which == RT_AUTO || which == RT_KQUEUE) {
        backend_fill(b, kq_open, kq_close, kq_set, kq_wait);
        return 0;
    }
#endif
    if (which != RT_AUTO && which != RT_SELECT)
        return -1;
    backend_fill(b, select_open, select_close, select_set, select_wait);
    return 0;
}

/* ---- sources ------------------------------------------------------------ */

/* Whatever has a descriptor in the backend.  by_fd is as long as the greatest
   number asks for, which is about how many are open: the system gives the
   lowest free one.  Closing that is up to whoever has the source. */

static void source_remove(rt_loop *loop, rt__source *s);

/* An interest of 0 leaves the backend altogether, so that a hang-up of one
   that nobody wants to hear does not wake the loop again and again. */
static int source_set(rt_loop *loop, rt__source *s, int interest)
{
    if ((int)s->interest == interest)
        return 0;
    if (loop->backend.set(loop, s, interest) < 0)
        return -1;
    s->interest = (unsigned int)interest & 15;
    return 0;
}

/* Each step is the loop's at once: when a later one fails, the array of the
   one before it is the only one there is. */
static int by_fd_reach(rt_loop *loop, int fd)
{
    size_t old = loop->by_fd_cap, cap = old;
    void *table = loop->by_fd;
    while ((size_t)fd >= cap) {
        if (rt__grow(loop, &table, &cap, sizeof *loop->by_fd) < 0) {
            errno = ENOMEM;
            return -1;
        }
        loop->by_fd = (rt__source **)table;
        memset(loop->by_fd + old, 0, (cap - old) * sizeof *loop->by_fd);
        loop->by_fd_cap = old = cap;
    }
    return 0;
}

/* -1 with errno: it is in no table, and closing fd is up to the caller. */
static int source_add(rt_loop *loop, rt__source *s, int fd, int kind,
                      int interest)
{
    s->fd = fd;
    s->kind = (unsigned int)kind & 15;
    s->interest = 0;
    s->gen = ++loop->next_gen & 0xffffff;
    if (by_fd_reach(loop, fd) < 0)
        return -1;
    if (loop->by_fd[fd]) { /* a watch whose descriptor was closed under it */
        rt__log(loop, RT_LOG_WARN, "a watched descriptor was closed", "");
        source_remove(loop, loop->by_fd[fd]);
    }
    loop->by_fd[fd] = s;
    if (source_set(loop, s, interest) == 0)
        return 0;
    loop->by_fd[fd] = NULL;
    return -1;
}

/* Does nothing for one that is not in.  Comes before its close: epoll holds the
   open file rather than the number, and where a forked child has a copy it
   would go on telling events of it. */
static void source_remove(rt_loop *loop, rt__source *s)
{
    if (s->fd < 0 || (size_t)s->fd >= loop->by_fd_cap ||
        loop->by_fd[s->fd] != s)
        return;
    source_set(loop, s, 0);
    s->interest = 0;
    loop->by_fd[s->fd] = NULL;
}

static rt__source *source_of(rt_loop *loop, uint64_t key)
{
    uint32_t fd = (uint32_t)key;
    rt__source *s = fd < loop->by_fd_cap ? loop->by_fd[fd] : NULL;
    return s && s->gen == key >> 32 ? s : NULL;
}

/* ---- watches ------------------------------------------------------------ */

/* The descriptor is the host's: it is never read, written or closed here. */
typedef struct {
    rt__source source; /* first: a watch source is cast to this */
    uint64_t id;
    void (*fn)(rt_loop *, rt_watch, int events, void *);
    void *arg;
    int wants;
} watch;

/* -1 with errno: epoll says EPERM for a regular file, which is always ready and
   cannot be waited for. */
static int watch_start(rt_loop *loop, watch *w, int fd)
{
    w->id = rt__slot_new(loop, RT__WATCH, w);
    if (!w->id) {
        errno = ENOMEM;
        return -1;
    }
    if (source_add(loop, &w->source, fd, RT__WATCH_SOURCE, w->wants) == 0)
        return 0;
    rt__slot_free(loop, w->id);
    return -1;
}

rt_watch rt_watch_start(rt_loop *loop, rt_fd fd, int events,
                        void (*fn)(rt_loop *, rt_watch, int events, void *),
                        void *arg)
{
    rt_watch handle = {0};
    watch *w;
    if (fd < 0 || fd > INT32_MAX || !fn || events & ~(RT_READ | RT_WRITE) ||
        fcntl((int)fd, F_GETFD) < 0 || /* before a table reaches so far */
        ((size_t)fd < loop->by_fd_cap && loop->by_fd[fd])) {
        rt__fail(loop, RT_EINVAL, "watch", NULL);
        return handle;
    }
    w = (watch *)rt__alloc(loop, sizeof *w);
    if (!w) {
        rt__fail(loop, RT_ENOMEM, "watch", NULL);
        return handle;
    }
    w->fn = fn;
    w->arg = arg;
    w->wants = events;
    if (watch_start(loop, w, (int)fd) < 0) {
        fail_errno(loop, "watch");
        rt__free(loop, w, sizeof *w);
        return handle;
    }
    handle.id = w->id;
    return handle;
}

int rt_watch_set(rt_loop *loop, rt_watch handle, int events)
{
    watch *w = (watch *)rt__slot_get(loop, handle.id, RT__WATCH);
    if (!w)
        return RT_EGONE;
    if (events & ~(RT_READ | RT_WRITE))
        return RT_EINVAL;
    if (loop->by_fd[w->source.fd] != &w->source)
        return RT_ESTATE; /* its descriptor was closed and used again */
    w->wants = events;
    return source_set(loop, &w->source, events) < 0 ? RT_ESYS : 0;
}

/* No event finds it from here on, so it can be freed at once, even inside its
   own callback: watch_ready holds the handle only. */
int rt_watch_stop(rt_loop *loop, rt_watch handle)
{
    watch *w = (watch *)rt__slot_get(loop, handle.id, RT__WATCH);
    if (!w)
        return RT_EGONE;
    source_remove(loop, &w->source);
    rt__slot_free(loop, w->id);
    rt__free(loop, w, sizeof *w);
    return 0;
}

/* One call for each bit.  The first may stop the watch or change what it wants,
   so both are asked again before the second. */
static void watch_ready(rt_loop *loop, uint64_t id, int events)
{
    int bit;
    for (bit = RT_READ; bit <= RT_WRITE; bit <<= 1) {
        watch *w = (watch *)rt__slot_get(loop, id, RT__WATCH);
        rt_watch handle;
        if (!w)
            return;
        if (!(events & w->wants & bit))
            continue;
        handle.id = id;
        rt__tell_watch(loop, w->fn, handle, bit, w->arg);
    }
}

/* ---- posts -------------------------------------------------------------- */

/* Both ends are non-blocking: a full pipe is an answer, not a wait.  Where
   pointers are small a post is as large, so that as many fill the pipe. */
typedef union {
    struct {
        void (*fn)(rt_loop *, void *);
        void *arg;
    } is;
    uint64_t size[2];
} post;

#if !defined(RT__WINSOCK)

/* One write of at most PIPE_BUF bytes is whole, so a pipe is a queue that
   needs neither lock nor memory of ours (POSIX: PIPE_BUF is 512 at least). */
static ssize_t post_write(rt_loop *loop, const post *p)
{
    return write(loop->pipe[1], p, sizeof *p);
}

static ssize_t post_read(rt_loop *loop, void *to, size_t room)
{
    return read(loop->pipe[0], to, room);
}

#else

/* A pair of sockets holds any number of posts: what waits in it is counted, for
   the bound that a pipe has by itself. */
enum { POSTS_BYTES = 64 * 1024 };

/* A socket may take a part of a post.  The rest of it goes before all others,
   so a post is whole, whichever thread it is from.  1: that is done; else 0,
   and errno says why not. */
static int post_complete(rt_loop *loop)
{
    const uint8_t *end = loop->post_rest + sizeof loop->post_rest;
    ssize_t n = 0;
    if (loop->post_left > 0)
        n = send(loop->pipe[1], end - loop->post_left, loop->post_left, 0);
    if (n > 0)
        loop->post_left -= (size_t)n;
    if (n >= 0 && loop->post_left > 0)
        errno = EAGAIN;
    return loop->post_left == 0;
}

static ssize_t post_write(rt_loop *loop, const post *p)
{
    SRWLOCK *lock = (SRWLOCK *)&loop->post_lock;
    ssize_t n = -1;
    AcquireSRWLockExclusive(lock);
    if (loop->post_bytes >= POSTS_BYTES)
        errno = EAGAIN;
    else if (post_complete(loop))
        n = send(loop->pipe[1], p, sizeof *p, 0);
    if (n > 0) {
        memcpy(loop->post_rest, p, sizeof *p);
        loop->post_left = sizeof *p - (size_t)n;
        loop->post_bytes += sizeof *p;
        n = sizeof *p;
    }
    ReleaseSRWLockExclusive(lock);
    return n;
}

/* What was read made room for that rest. */
static ssize_t post_read(rt_loop *loop, void *to, size_t room)
{
    SRWLOCK *lock = (SRWLOCK *)&loop->post_lock;
    ssize_t n = recv(loop->pipe[0], to, room, 0);
    AcquireSRWLockExclusive(lock);
    if (n > 0)
        loop->post_bytes -= (size_t)n;
    post_complete(loop);
    ReleaseSRWLockExclusive(lock);
    return n;
}

#endif

int rt_post(rt_loop *loop, void (*fn)(rt_loop *, void *), void *arg)
{
    post p;
    ssize_t n;
    if (!fn)
        return RT_EINVAL;
    memset(&p, 0, sizeof p);
    p.is.fn = fn;
    p.is.arg = arg;
    do
        n = post_write(loop, &p);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)sizeof p)
        return 0;
    return errno == EAGAIN ? RT_EFULL : RT_ESYS;
}

/* May run in a signal handler: an atomic store, a write, and errno as it was
   (on Windows a lock, too: its handlers have a thread of their own).  The flag
   comes before the byte that wakes, so whoever wakes sees it. */
void rt_stop(rt_loop *loop)
{
    int saved = errno;
    post p = {{NULL, NULL}};
    __atomic_store_n(&loop->stop, 1, __ATOMIC_RELEASE);
    /* If the pipe is full the loop is about to wake anyway. */
    post_write(loop, &p);
    errno = saved;
}

/* One read, so a turn runs at most 256 of them; the rest is still readable.
   Whole posts are in the pipe, but a read may be short, and end inside one:
   then the rest of that comes first in the next. */
static void posts_run(rt_loop *loop)
{
    post batch[256];
    size_t i, have = loop->post_have, room = sizeof batch - have;
    ssize_t n;
    memcpy(batch, loop->post_part, have);
    n = post_read(loop, (char *)batch + have, room);
    if (n <= 0 || n > (ssize_t)room)
        return;
    have += (size_t)n;
    loop->post_have = have % sizeof(post);
    memcpy(loop->post_part, (char *)batch + have - loop->post_have,
           loop->post_have);
    for (i = 0; i < have / sizeof(post); i++)
        if (batch[i].is.fn) {
            loop->stats.posts++;
            rt__tell_timer(loop, batch[i].is.fn, batch[i].is.arg);
        }
}

/* ---- addresses ---------------------------------------------------------- */

/* path points into the text that was read and lives as long as that. */
typedef struct {
    int stream; /* tcp: rather than ws: */
    int tls;    /* wss: or tls: */
    int local;  /* a path in the file system */
    char host[256];
    int port;
    const char *path; /* "/..." behind the host, or of the local socket */
} url;

typedef struct {
    struct sockaddr_storage storage;
    socklen_t len;
} address;

static int starts_with(const char *text, const char *prefix, const char **rest)
{
    size_t n = strlen(prefix);
    if (strncmp(text, prefix, n) != 0)
        return 0;
    *rest = text + n;
    return 1;
}

/* Reads ":port" and what follows; NULL when it is wrong.  The bound is looked
   at after each digit, so no number of them overflows. */
static const char *url_port(const char *p, url *u)
{
    long port = 0;
    if (*p++ != ':' || *p < '0' || *p > '9')
        return NULL;
    for (; *p >= '0' && *p <= '9'; p++) {
        port = port * 10 + (*p - '0');
        if (port > 65535)
            return NULL;
    }
    u->port = (int)port;
    u->path = *p ? p : "/";
    return *p == 0 || *p == '/' || *p == '?' ? p : NULL;
}

/* 0, or -1 when text is not of the forms that rt_listen names.  IPv6 stands in
   brackets (RFC 3986, 3.2.2), since it has colons of its own. */
static int url_read(const char *text, url *u)
{
    const char *p, *end;
    memset(u, 0, sizeof *u);
    if (starts_with(text, "unix:", &u->path) ||
        starts_with(text, "tcp+unix:", &u->path)) {
        u->local = 1;
        u->stream = text[0] == 't';
        return *u->path ? 0 : -1;
    }
    u->tls = starts_with(text, "tls://", &p) || starts_with(text, "wss://", &p);
    u->stream = text[0] == 't';
    if (!u->tls && !starts_with(text, "tcp://", &p) &&
        !starts_with(text, "ws://", &p))
        return -1;
    end = *p == '[' ? strchr(p, ']') : p + strcspn(p, ":/?");
    if (!end)
        return -1;
    p += *p == '[';
    if ((size_t)(end - p) >= sizeof u->host)
        return -1;
    memcpy(u->host, p, (size_t)(end - p));
    return url_port(end + (*end == ']'), u) ? 0 : -1;
}

/* A literal address; "" is all of IPv6, and IPv4 with it.  Nothing is looked
   up, because that can block: "localhost" is 127.0.0.1 here. */
static int address_read(const char *host, int port, address *a)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&a->storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a->storage;
    memset(a, 0, sizeof *a);
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        a->len = sizeof *v4;
        return 0;
    }
    memset(a, 0, sizeof *a);
    if (*host && inet_pton(AF_INET6, host, &v6->sin6_addr) != 1)
        return -1;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)port);
    a->len = sizeof *v6;
    return 0;
}

/* One that does not fit (108 bytes on Linux, with the 0) is refused: cut short
   it would name another file. */
static int address_local(const char *path, address *a)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&a->storage;
    memset(a, 0, sizeof *a);
    if (strlen(path) >= sizeof un->sun_path)
        return -1;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, strlen(path) + 1);
    a->len = sizeof *un;
    return 0;
}

/* ---- who is at the other end -------------------------------------------- */

static void addr_v4(rt__addr *a, const void *bytes)
{
    memset(a, 0, sizeof *a);
    a->family = RT__IPV4;
    memcpy(a->bytes, bytes, 4);
}

/* IPv4 inside IPv6 (RFC 4291, 2.5.5.2), as a socket of both families shows it,
   is the same peer as IPv4: it is counted and trusted as that. */
static void addr_v6(rt__addr *a, const void *bytes)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255};
    if (memcmp(bytes, mapped, sizeof mapped) == 0) {
        addr_v4(a, (const uint8_t *)bytes + sizeof mapped);
        return;
    }
    a->family = RT__IPV6;
    memcpy(a->bytes, bytes, 16);
}

static void addr_of(const address *from, rt__addr *a)
{
    const struct sockaddr *any = (const struct sockaddr *)&from->storage;
    memset(a, 0, sizeof *a);
    if (any->sa_family == AF_INET)
        addr_v4(a, &((const struct sockaddr_in *)any)->sin_addr);
    else if (any->sa_family == AF_INET6)
        addr_v6(a, &((const struct sockaddr_in6 *)any)->sin6_addr);
    else if (any->sa_family == AF_UNIX)
        a->family = RT__LOCAL;
}

/* n characters that are a literal address and nothing else; 0 or -1.  A 0 among
   them is refused: inet_pton would stop there and believe the first part. */
int rt__addr_read(const char *text, size_t n, rt__addr *a)
{
    char copy[INET6_ADDRSTRLEN + 1];
    uint8_t bytes[16];
    if (n >= sizeof copy || memchr(text, 0, n))
        return -1;
    memcpy(copy, text, n);
    copy[n] = 0;
    if (inet_pton(AF_INET, copy, bytes) == 1)
        addr_v4(a, bytes);
    else if (inet_pton(AF_INET6, copy, bytes) == 1)
        addr_v6(a, bytes);
    else
        return -1;
    return 0;
}

/* "" for one that has none. */
void rt__addr_text(const rt__addr *a, char out[46])
{
    *out = 0;
    if (a->family == RT__IPV4)
        inet_ntop(AF_INET, a->bytes, out, 46);
    else if (a->family == RT__IPV6)
        inet_ntop(AF_INET6, a->bytes, out, 46);
}

/* "unix", an address, or a network "address/bits"; 0 or -1. */
int rt__net_read(const char *text, size_t n, rt__net *net)
{
    const char *slash = (const char *)memchr(text, '/', n);
    size_t host = slash ? (size_t)(slash - text) : n, i;
    unsigned bits = 0, most, v6 = memchr(text, ':', host) != NULL;
    memset(net, 0, sizeof *net);
    net->addr.family = RT__LOCAL;
    if (n == 4 && memcmp(text, "unix", 4) == 0)
        return 0;
    if (rt__addr_read(text, host, &net->addr) < 0)
        return -1;
    most = net->addr.family == RT__IPV4 ? 32 : 128;
    net->bits = (uint8_t)most;
    if (!slash)
        return 0;
    for (i = host + 1; i < n && i < host + 4; i++) {
        if (text[i] < '0' || text[i] > '9' ||
            (i > host + 1 && text[host + 1] == '0'))
            return -1;
        bits = bits * 10 + (unsigned)(text[i] - '0');
    }
    /* Of IPv4, written as IPv6: below 96 it would hold more than IPv4. */
    if (v6 && most == 32)
        bits = bits < 96 ? 129 : bits - 96;
    net->bits = (uint8_t)(bits < 129 ? bits : 0);
    return i < n || i == host + 1 || bits > most ? -1 : 0;
}

/* With all bits there is no rest, so the byte behind the last is not read. */
int rt__net_has(const rt__net *net, const rt__addr *a)
{
    size_t whole = net->bits / 8;
    int rest = net->bits % 8;
    if (net->addr.family != a->family)
        return 0;
    if (memcmp(net->addr.bytes, a->bytes, whole) != 0)
        return 0;
    return !rest || !((net->addr.bytes[whole] ^ a->bytes[whole]) >> (8 - rest));
}

/* May this one say whom it speaks for? */
int rt__trusted(const rt__ep *ep, const rt__addr *a)
{
    uint32_t i;
    for (i = 0; i < ep->proxy_count; i++)
        if (rt__net_has(&ep->proxies[i], a))
            return 1;
    return 0;
}

/* Takes the next of a list divided by commas and blanks; how long it is, 0 at
   the end. */
static size_t list_next(const char **p)
{
    *p += strspn(*p, ", \t");
    return strcspn(*p, ", \t");
}

/* ---- the PROXY protocol, versions 1 and 2 ------------------------------- */

/* Bytes in, an address out: no connection in here.  It is asked only for peers
   that the listener trusts, who must send a header: believed from anybody, it
   would let a peer choose its address, and with it its limits.  A wrong
   beginning is refused at its first wrong byte, and the length is bounded, so
   that little is kept of one who sends no end. */

/* Does p begin as that text does, as far as both go? */
static int begins(const uint8_t *p, size_t n, const char *text)
{
    size_t all = strlen(text);
    return memcmp(p, text, n < all ? n : all) == 0;
}

/* A field that ends before that character; its length, 0 when it does not. */
static size_t field(const char *p, const char *end, char stop)
{
    const char *at = (const char *)memchr(p, stop, (size_t)(end - p));
    return at ? (size_t)(at - p) : 0;
}

/* The ports are used for nothing, but a header that is wrong in them is wrong.
   No zero stands in front, nor is there a sixth digit. */
static int port_valid(const char *p, size_t n)
{
    unsigned port = 0;
    size_t i;
    for (i = 0; i < n && i < 5; i++) {
        if (p[i] < '0' || p[i] > '9')
            return 0;
        port = port * 10 + (unsigned)(p[i] - '0');
    }
    return i == n && n > 0 && port < 65536 && (*p != '0' || n == 1);
}

/* "source destination port port" CR: 0 or -1.  Single blanks; end is behind the
   CR, which is the first one, so that it ends the last field only. */
static int proxy_fields(const char *p, const char *end, int v6, rt__addr *from)
{
    rt__addr to;
    int i;
    for (i = 0; i < 4; i++) {
        size_t n = field(p, end, i < 3 ? ' ' : '\r');
        int wrong = i < 2 ? rt__addr_read(p, n, i ? &to : from) < 0 ||
                                (memchr(p, ':', n) != NULL) != v6
                          : !port_valid(p, n);
        if (wrong)
            return -1;
        p += n + 1;
    }
    return p == end ? 0 : -1;
}

/* Version 1 is a line of text of at most 107 bytes (its section 2.1).  A part
   of it passes the first test as far as it goes.  What stands behind UNKNOWN is
   not looked at: the connection's own address counts then. */
static ptrdiff_t proxy_text(const uint8_t *p, size_t n, rt__addr *from)
{
    enum { LONGEST = 107, HEAD = 11 };
    const char *line = (const char *)p;
    const uint8_t *cr;
    int unknown = begins(p, n, "PROXY UNKNOWN");
    if (!unknown && !begins(p, n, "PROXY TCP4 ") &&
        !begins(p, n, "PROXY TCP6 "))
        return -1;
    cr = (const uint8_t *)memchr(p, '\r', n);
    if (memchr(p, '\n', cr ? (size_t)(cr - p) : n) ||
        (cr ? cr - p : (ptrdiff_t)n) > LONGEST - 2)
        return -1;
    if (unknown && n > 13 && p[13] != ' ' && p[13] != '\r')
        return -1;
    if (!cr || cr + 1 == p + n)
        return 0;
    if (cr[1] != '\n')
        return -1;
    if (!unknown && proxy_fields(line + HEAD, (const char *)cr + 1,
                                 line[9] == '6', from) < 0)
        return -1;
    return cr - p + 2;
}

/* How many bytes of addresses that family word announces; -1: no such one.  Two
   addresses and, but for local ones (108 each), two ports. */
static int proxy_family(uint8_t word)
{
    switch (word) {
    case 0x00:
        return 0;
    case 0x11: /* IPv4: stream, datagram */
    case 0x12:
        return 12;
    case 0x21: /* IPv6 */
    case 0x22:
        return 36;
    case 0x31: /* local */
    case 0x32:
        return 216;
    }
    return -1;
}

/* Version 2 is binary (its section 2.2); what follows the addresses is passed
   over.  LOCAL is the proxy itself, asking whether we live: nothing is taken
   from it.  The family was proved good before its size is compared. */
static ptrdiff_t proxy_binary(const uint8_t *p, size_t n, rt__addr *from)
{
    enum { HEAD = 16, LOCAL = 0x20, SPOKEN_FOR = 0x21 };
    size_t len;
    if (n > 12 && p[12] != LOCAL && p[12] != SPOKEN_FOR)
        return -1;
    if (n > 13 && p[12] == SPOKEN_FOR && proxy_family(p[13]) < 0)
        return -1;
    if (n < HEAD)
        return 0;
    len = (size_t)p[14] << 8 | p[15];
    if (len > RT__PROXY_MOST - HEAD ||
        (p[12] == SPOKEN_FOR && len < (size_t)proxy_family(p[13])))
        return -1;
    if (n < HEAD + len)
        return 0;
    if (p[12] == SPOKEN_FOR && p[13] == 0x11)
        addr_v4(from, p + HEAD);
    if (p[12] == SPOKEN_FOR && p[13] == 0x21)
        addr_v6(from, p + HEAD);
    return (ptrdiff_t)(HEAD + len);
}

/*
 * Reads the header with which a proxy says whom it speaks for.  > 0: its size,
 * and *source is that one, of family RT__NOBODY where the header names none;
 * 0: more is needed; < 0: this is no such header.
 */
ptrdiff_t rt__proxy_read(const uint8_t *p, size_t n, rt__addr *source)
{
    /* Version 2 begins with CR and version 1 with P: one byte decides. */
    static const char sign[] = "\r\n\r\n\0\r\nQUIT\n";
    size_t m = n < sizeof sign - 1 ? n : sizeof sign - 1;
    memset(source, 0, sizeof *source);
    if (n == 0)
        return 0;
    if (memcmp(p, sign, m) == 0)
        return proxy_binary(p, n, source);
    return proxy_text(p, n, source);
}

/* ---- descriptors -------------------------------------------------------- */

/* Every socket is non-blocking and closed on exec.  Where the system can, it is
   so from the start: between two calls another thread may fork and exec. */

#if !defined(RT__EPOLL)
static int fd_prepare(int fd)
{
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}
#endif

/* What fails is not told: a socket without the option still serves. */
static void fd_option(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof value);
}

/* Streams without a ping of their own have the system ask whether the peer is
   still there.  What is set on a listener is inherited.  Linux refuses more
   than 32,767 seconds or 127 probes, hence the bounds. */
static void fd_keepalive(int fd, const rt__ep *ep)
{
    int s = (int)(ep->ping_ms / 1000);
    if (ep->wire < RT__STREAM || ep->ping_ms == INT32_MAX)
        return;
    fd_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#if defined(TCP_KEEPIDLE)
    s = s < 1 ? 1 : s > 32767 ? 32767 : s;
    fd_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, s);
    fd_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, s);
    fd_option(fd, IPPROTO_TCP, TCP_KEEPCNT,
              ep->dead_pings < 100 ? (int)ep->dead_pings : 100);
#else
    (void)s;
#endif
}

/* A non-blocking socket.  NODELAY is inherited by what a listener accepts; all
   of a turn leaves in one write, so Nagle's algorithm could only delay it. */
static int socket_open(int family)
{
#if defined(RT__EPOLL)
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
#else
    int fd = socket(family, SOCK_STREAM, 0);
    if (fd >= 0)
        fd = fd_prepare(fd);
#endif
    if (fd < 0)
        return -1;
    if (family != AF_UNIX)
        fd_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
#if defined(SO_NOSIGPIPE)
    fd_option(fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
    return fd;
}

/* The flags of the listener are not inherited on Linux: they are asked for. */
static int socket_accept(int listener, address *from)
{
    from->len = sizeof from->storage;
    from->storage.ss_family = AF_UNSPEC; /* where the system leaves it out */
#if defined(RT__EPOLL)
    return accept4(listener, (struct sockaddr *)&from->storage, &from->len,
                   SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    {
        int fd =
            accept(listener, (struct sockaddr *)&from->storage, &from->len);
        return fd < 0 ? -1 : fd_prepare(fd);
    }
#endif
}

/* ---- endpoints ---------------------------------------------------------- */

/* The listener, each connection and each session hold a reference: an endpoint
   outlives its listener until the last of those who came through it is gone. */

/* 0 is the standard, RT_OFF the greatest value: a comparison with it needs no
   special case, and added to a time of 64 bits it cannot overflow. */
static uint32_t limit(int value, uint32_t standard)
{
    if (value == 0)
        return standard;
    return value < 0 ? INT32_MAX : (uint32_t)value;
}

/* Of what is off unless it is asked for: 0 is off, and so is RT_OFF. */
static uint32_t off_limit(int value)
{
    return value > 0 ? (uint32_t)value : 0;
}

static void ep_rates(rt__ep *ep, const rt_listen_opts *o)
{
    ep->rate_limit = off_limit(o->rate_limit);
    ep->rate_ms = limit(o->rate_ms, 1000);
    ep->message_rate = off_limit(o->message_rate);
    ep->message_burst = limit(o->message_burst, ep->message_rate);
    ep->byte_rate = off_limit(o->byte_rate);
    ep->byte_burst = limit(o->byte_burst, ep->byte_rate);
    ep->limited = ep->rate_limit || ep->message_rate || ep->byte_rate;
    ep->rate_over = (uint8_t)o->rate_over;
    if (!o->rate_over)
        ep->rate_over = o->resume_ms > 0 ? RT_OVER_PAUSE : RT_OVER_DROP;
    ep->control_rate = limit(o->control_rate, 20);
    ep->bind_ms = off_limit(o->bind_ms);
}

static void ep_limits(rt__ep *ep, const rt_listen_opts *o)
{
    ep->max_message = limit(o->max_message, 64 * 1024);
    ep->max_fragments = limit(o->max_fragments, 1024);
    ep->max_body = limit(o->max_body, 64 * 1024);
    ep->max_header = limit(o->max_header, 8 * 1024);
    if (ep->max_header > 60 * 1024)
        ep->max_header = 60 * 1024; /* places in it have 16 bits */
    ep->max_handshakes = limit(o->max_handshakes, 1024);
    ep->handshake_ms = limit(o->handshake_ms, 5000);
    ep->assembly_ms = limit(o->assembly_ms, 30000);
    ep->ping_ms = limit(o->ping_ms, 15000);
    ep->dead_pings = limit(o->dead_pings, 2);
    if (ep->dead_pings > UINT16_MAX && ep->dead_pings < INT32_MAX)
        ep->dead_pings = UINT16_MAX; /* as far as a connection counts */
    ep->close_ms = limit(o->close_ms, 5000);
    ep->soft_mark = limit(o->soft_mark, 64 * 1024);
    ep->hard_mark = limit(o->hard_mark, 1024 * 1024);
    ep_rates(ep, o);
}

static void ep_admission(rt__ep *ep, const rt_listen_opts *o)
{
    ep->accept_rate = off_limit(o->accept_rate);
    ep->accept_burst = limit(o->accept_burst, ep->accept_rate);
    ep->max_per_address = off_limit(o->max_per_address);
    ep->proxy_protocol = o->proxy_protocol > 0;
}

/* The list was looked at before: all of it can be read. */
static int ep_proxies(rt_loop *loop, rt__ep *ep, const char *list)
{
    const char *p = list ? list : "";
    uint32_t count = 0;
    size_t n;
    for (; (n = list_next(&p)) > 0; p += n)
        count++;
    if (count == 0)
        return 0;
    ep->proxies = (rt__net *)rt__alloc(loop, count * sizeof *ep->proxies);
    if (!ep->proxies)
        return RT_ENOMEM;
    for (p = list; (n = list_next(&p)) > 0; p += n)
        rt__net_read(p, n, &ep->proxies[ep->proxy_count++]);
    return 0;
}

/* Copies the options, so that the caller's may go; the codec is the host's and
   has to stay.  NULL: no memory. */
static rt__ep *ep_new(rt_loop *loop, const rt_listen_opts *o,
                      enum rt__wire wire)
{
    rt__ep *ep = (rt__ep *)rt__alloc(loop, sizeof *ep);
    if (!ep)
        return NULL;
    ep->refs = 1;
    ep->wire = wire;
    ep->codec = o->codec;
    ep->resume_ms = o->resume_ms > 0 ? (uint32_t)o->resume_ms : 0;
    if (wire == RT__STREAM && (o->codec || o->framing == RT_RAW))
        ep->wire = RT__RAW;
    ep->typed = ep->wire == RT__STREAM && o->framing == RT_RTNET1;
    ep->on = o->on;
    ep->user = o->user;
    memcpy(ep->filter, o->filter, sizeof ep->filter);
    ep_limits(ep, o);
    ep_admission(ep, o);
    if ((o->origins && !(ep->origins = rt__strdup(loop, o->origins))) ||
        ep_proxies(loop, ep, o->proxies) < 0) {
        rt__ep_release(loop, ep);
        return NULL;
    }
    return ep;
}

/* Copes with one that was made only half. */
void rt__ep_release(rt_loop *loop, rt__ep *ep)
{
    if (--ep->refs > 0)
        return;
    if (ep->dial) {
        rt__strfree(loop, ep->dial->host);
        rt__strfree(loop, ep->dial->authority);
        rt__strfree(loop, ep->dial->path);
        rt__strfree(loop, ep->dial->protocols);
        rt__strfree(loop, ep->dial->headers);
        rt__free(loop, ep->dial, sizeof *ep->dial);
    }
    rt__tls_conf_release(loop, ep->tls);
    rt__strfree(loop, ep->origins);
    rt__free(loop, ep->proxies, ep->proxy_count * sizeof *ep->proxies);
    rt__free(loop, ep, sizeof *ep);
}

/* ---- listeners ---------------------------------------------------------- */

/* A listener shares its endpoint, the options, with those that it let in.  They
   hold it by reference, so stopping a listener frees it at once and ends none
   of them: ep->listener is NULL from then on.  Those whose refusal is not told
   yet go with it. */

typedef struct refusal refusal;

struct rt__listener {
    rt__source source; /* first: a listening source is cast to this */
    uint64_t id;
    rt__ep *ep;
    rt__timer timer;     /* for the nearest of what follows */
    uint64_t rest_until; /* while descriptors are short; 0: it accepts */
    refusal *refused_first, *refused_last; /* not told yet, the oldest first */
    uint32_t refused_count;
    int port;
    char *path; /* of a local socket: removed with the listener */
};

static void refusal_end(rt_loop *loop, refusal *r);

#if !defined(RT__WINSOCK)
/* A local socket file that nobody answers on is left over: removes it.  Only
   ECONNREFUSED proves that: one whose backlog is full answers EAGAIN.  lstat
   does not follow a link to somebody else's socket. */
static int local_reclaim(const address *a)
{
    const char *path = ((const struct sockaddr_un *)&a->storage)->sun_path;
    struct stat is;
    int fd, dead;
    if (lstat(path, &is) < 0 || !S_ISSOCK(is.st_mode)) {
        errno = EADDRINUSE; /* somebody's file: not ours to remove */
        return -1;
    }
    fd = socket_open(AF_UNIX);
    if (fd < 0)
        return -1;
    dead = connect(fd, (const struct sockaddr *)&a->storage, a->len) < 0 &&
           errno == ECONNREFUSED;
    close(fd);
    if (dead && unlink(path) == 0)
        return 0;
    errno = EADDRINUSE;
    return -1;
}
#else
/* None can be opened there. */
static int local_reclaim(const address *a)
{
    (void)a;
    return -1;
}
#endif

static int socket_bind(int fd, const address *a)
{
    const struct sockaddr *to = (const struct sockaddr *)&a->storage;
    if (bind(fd, to, a->len) == 0)
        return 0;
    if (a->storage.ss_family != AF_UNIX || errno != EADDRINUSE ||
        local_reclaim(a) < 0)
        return -1;
    return bind(fd, to, a->len);
}

/* REUSEADDR lets a server that starts again bind while old connections are in
   TIME_WAIT.  V6ONLY is always said, because its default differs by system. */
static int listen_on(const address *a, const rt_listen_opts *o, int dual)
{
    int saved, fd = socket_open(a->storage.ss_family);
    if (fd < 0)
        return -1;
    if (a->storage.ss_family != AF_UNIX)
        fd_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (a->storage.ss_family == AF_INET6)
        fd_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, !dual);
#if defined(SO_REUSEPORT)
    if (o->reuse_port > 0)
        fd_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
#endif
    if (socket_bind(fd, a) == 0 &&
        listen(fd, (int)limit(o->backlog, 1024)) == 0)
        return fd;
    saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* A listening descriptor for the url, or -1 with errno.  For all addresses a
   kernel without IPv6 gets a socket of IPv4. */
static int listen_open(const url *u, const rt_listen_opts *o)
{
    address a;
    int fd;
    errno = EINVAL;
    if (u->local)
        return address_local(u->path, &a) < 0 ? -1 : listen_on(&a, o, 0);
    if (address_read(u->host, u->port, &a) < 0)
        return -1;
    fd = listen_on(&a, o, !*u->host);
    if (fd >= 0 || *u->host || errno != EAFNOSUPPORT)
        return fd;
    return address_read("0.0.0.0", u->port, &a) < 0 ? -1 : listen_on(&a, o, 0);
}

static int fd_local(int fd)
{
    address a;
    memset(&a, 0, sizeof a);
    a.len = sizeof a.storage;
    return getsockname(fd, (struct sockaddr *)&a.storage, &a.len) == 0 &&
           a.storage.ss_family == AF_UNIX;
}

/* Why that descriptor cannot be taken over as a listener; NULL: it can.  It is
   not changed before all of this is known. */
static const char *fd_unfit(const rt_loop *loop, rt_fd given)
{
    int fd = (int)given, listening = 0, type = 0;
    socklen_t len = sizeof listening;
    if (fd != given ||
        (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 &&
         errno == EBADF))
        return "fd is no open descriptor";
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
        return "fd is not a socket";
    if (!listening || type != SOCK_STREAM)
        return "fd is not a listening socket of streams";
    if ((size_t)fd < loop->by_fd_cap && loop->by_fd[fd])
        return "fd is in this loop already";
    return NULL;
}

/* A listening socket that somebody else opened, with what a socket of our own
   would have; -1 with errno.  It must not block: where two have it, both wake
   for one connection, and the slower would hang in its accept. */
static int listen_inherit(int fd, rt__ep *ep)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -1;
    if (!fd_local(fd)) {
        fd_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        fd_keepalive(fd, ep);
    }
    return fd;
}

static int port_of(int fd)
{
    address a;
    a.len = sizeof a.storage;
    if (getsockname(fd, (struct sockaddr *)&a.storage, &a.len) < 0)
        return 0;
    if (a.storage.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)&a.storage)->sin_port);
    if (a.storage.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&a.storage)->sin6_port);
    return 0;
}

/* Copes with one that was made only half: kind is 0 until a timer is adopted.
   Those who came through it stay, and their endpoint with them. */
static void listener_free(rt_loop *loop, rt__listener *l)
{
    if (l->id)
        rt__slot_free(loop, l->id);
    if (l->source.fd >= 0) {
        source_remove(loop, &l->source);
        close(l->source.fd);
    }
    while (l->refused_first)
        refusal_end(loop, l->refused_first);
    if (l->path)
        unlink(l->path);
    rt__strfree(loop, l->path);
    if (l->timer.kind)
        rt__timer_disown(loop, &l->timer);
    if (l->ep) {
        l->ep->listener = NULL;
        rt__ep_release(loop, l->ep);
    }
    rt__free(loop, l, sizeof *l);
}

/* The first listener that counts addresses makes the table (256 KiB); it stays,
   because connections of a listener that is gone are still counted in it. */
static int sketch_open(rt_loop *loop, const rt__ep *ep)
{
    if (!ep->max_per_address || loop->sketch)
        return 0;
    loop->sketch = (rt__sketch *)rt__alloc(loop, sizeof *loop->sketch);
    return loop->sketch ? 0 : RT_ENOMEM;
}

/* Everything of a listener but its descriptor; NULL: no memory. */
static rt__listener *listener_new(rt_loop *loop, const url *u,
                                  const rt_listen_opts *o)
{
    rt__listener *l = (rt__listener *)rt__alloc(loop, sizeof *l);
    if (!l)
        return NULL;
    l->source.fd = -1;
    l->ep = ep_new(loop, o, u->stream ? RT__STREAM : RT__WS_SERVER);
    if (l->ep)
        l->ep->listener = l;
    if (l->ep && sketch_open(loop, l->ep) == 0 &&
        rt__timer_adopt(loop, &l->timer, RT__OF_LISTENER) == 0 &&
        (l->ep->id = l->id = rt__slot_new(loop, RT__LISTENER, l)) != 0)
        return l;
    listener_free(loop, l);
    return NULL;
}

/* 0, or -1 with errno.  Only what was bound is removed again: the path becomes
   the listener's after the bind, and is copied before it, so that no file stays
   for want of memory. */
static int listener_start(rt_loop *loop, rt__listener *l, const url *u,
                          const rt_listen_opts *o)
{
    char *path = u->local && !o->fd ? rt__strdup(loop, u->path) : NULL;
    int fd = -1, saved;
    errno = ENOMEM;
    if (o->fd)
        fd = listen_inherit((int)o->fd, l->ep);
    else if (!u->local || path)
        fd = listen_open(u, o);
    if (fd < 0) {
        saved = errno;
        rt__strfree(loop, path);
        errno = saved;
        return -1;
    }
    /* From here on listener_free removes the file and closes fd, which stands
       in the source even when source_add fails. */
    l->path = path;
    l->port = port_of(fd);
    if (!u->local && !o->fd)
        fd_keepalive(fd, l->ep);
    if (source_add(loop, &l->source, fd, RT__LISTEN_SOURCE, RT_READ) == 0)
        return 0;
    if (o->fd)
        l->source.fd = -1; /* it stays the caller's */
    return -1;
}

static const char *framing_unfit(int framing, const rt_codec *codec,
                                 const url *u)
{
    if (framing < RT_LENGTH || framing > RT_CODEC)
        return "no such framing";
    if (framing == RT_CODEC && !codec)
        return "no codec";
    if (codec && (!codec->decode || !codec->head))
        return "a codec needs decode and head";
    if (!u->stream && (framing == RT_RTNET1 || framing == RT_RAW))
        return "this framing is for tcp";
    return NULL;
}

static const char *rates_unfit(const rt_listen_opts *o)
{
    const int least = RT_OFF;
    if (o->rate_over < 0 || o->rate_over > RT_OVER_CLOSE)
        return "no such rate_over";
    if (o->rate_limit < least || o->rate_ms < least)
        return "a negative rate_limit or rate_ms";
    if (o->message_rate < least || o->message_burst < least)
        return "a negative message_rate or message_burst";
    if (o->byte_rate < least || o->byte_burst < least)
        return "a negative byte_rate or byte_burst";
    if (o->control_rate < least || o->bind_ms < least)
        return "a negative control_rate or bind_ms";
    if (o->accept_rate < least || o->accept_burst < least)
        return "a negative accept_rate or accept_burst";
    if (o->max_per_address < least || o->proxy_protocol < least)
        return "a negative max_per_address or proxy_protocol";
    return NULL;
}

/* The chain ends at the first NULL: one behind it would silently not run. */
static const char *filters_unfit(const rt_filter filter[8])
{
    int i;
    for (i = 1; i < 8; i++)
        if (filter[i] && !filter[i - 1])
            return "a filter behind the end of the chain";
    return NULL;
}

/* The counters of addresses have 16 bits.  A header is taken from proxies that
   are named, from nobody else: without names it would never be read. */
static const char *proxies_unfit(const rt_listen_opts *o)
{
    const char *p = o->proxies ? o->proxies : "";
    size_t n;
    rt__net net;
    if (o->max_per_address >= UINT16_MAX)
        return "max_per_address is above 65534";
    if (o->proxy_protocol > 0 && list_next(&p) == 0)
        return "proxy_protocol needs proxies";
    for (; (n = list_next(&p)) > 0; p += n)
        if (rt__net_read(p, n, &net) < 0)
            return "proxies: not an address, a network or \"unix\"";
    return NULL;
}

/* A negative size would be no limit at all, as RT_OFF is, which alone says so;
   one that a calculation of the host's ran over is not meant. */
int rt__negative(const int *numbers, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (numbers[i] < RT_OFF)
            return 1;
    return 0;
}

static const char *limits_unfit(const rt_listen_opts *o)
{
    const int numbers[] = {o->max_message,    o->max_fragments, o->max_body,
                           o->max_handshakes, o->max_header,    o->handshake_ms,
                           o->assembly_ms,    o->resume_ms,     o->ping_ms,
                           o->dead_pings,     o->close_ms,      o->soft_mark,
                           o->hard_mark,      o->backlog};
    return rt__negative(numbers, sizeof numbers / sizeof *numbers)
               ? "a negative limit or time"
               : NULL;
}

/* What cannot be served is refused, rather than ignored. */
static const char *listen_unfit(const rt_loop *loop, const rt_listen_opts *o,
                                const url *u)
{
    if (framing_unfit(o->framing, o->codec, u))
        return framing_unfit(o->framing, o->codec, u);
    if (o->resume_ms > 0 && o->reuse_port > 0)
        return "a token is known to one loop: resume wants a port of its own";
    if (o->soft_mark > 0 && o->hard_mark > 0 && o->soft_mark > o->hard_mark)
        return "the soft mark is above the hard mark";
    if (limits_unfit(o))
        return limits_unfit(o);
    if (rates_unfit(o))
        return rates_unfit(o);
    if (filters_unfit(o->filter))
        return filters_unfit(o->filter);
    if (proxies_unfit(o))
        return proxies_unfit(o);
    if (o->fd && fd_unfit(loop, o->fd))
        return fd_unfit(loop, o->fd);
    if (!u->local && *u->path && strcmp(u->path, "/") != 0)
        return "a listener has no path";
    if (o->tls && !u->tls)
        return "tls is for wss and tls";
    return NULL;
}

/* What a listener does by TLS; -1: see rt_error. */
static int listener_secure(rt_loop *loop, rt__ep *ep, const char *what,
                           const rt_tls_opts *o)
{
    int of = RT__TLS_SERVER | (ep->wire < RT__STREAM ? RT__TLS_HTTP : 0);
    rt__tls_conf *conf = rt__tls_conf_new(loop, what, o, of, NULL, ep->user);
    if (!conf)
        return -1;
    rt__tls_conf_release(loop, ep->tls);
    ep->tls = conf;
    return 0;
}

/* All options are looked at before anything is made or opened. */
rt_listener rt_listen(rt_loop *loop, const char *where,
                      const rt_listen_opts *opts)
{
    rt_listen_opts o;
    rt_listener handle = {0};
    const char *unfit;
    char what[120];
    rt__listener *l;
    address a;
    url u;
    memset(&o, 0, sizeof o);
    if (opts)
        o = *opts;
    snprintf(what, sizeof what, "listen %s", where ? where : "(null)");
    if (loop->freeing || loop->draining)
        return rt__fail(loop, RT_ESTATE, what, NULL), handle;
    if (!where || url_read(where, &u) < 0)
        return rt__fail(loop, RT_EINVAL, what, "not an address"), handle;
    if (!u.local && address_read(u.host, u.port, &a) < 0)
        return rt__fail(loop, RT_EINVAL, what, "not a literal address"), handle;
    if ((unfit = listen_unfit(loop, &o, &u)) != NULL)
        return rt__fail(loop, RT_EINVAL, what, unfit), handle;
    if (!(l = listener_new(loop, &u, &o)))
        return rt__fail(loop, RT_ENOMEM, what, NULL), handle;
    if (u.tls && listener_secure(loop, l->ep, what, o.tls) < 0) {
        listener_free(loop, l);
        return handle;
    }
    if (listener_start(loop, l, &u, &o) < 0) {
        fail_errno(loop, what);
        listener_free(loop, l);
        return handle;
    }
    handle.id = l->id;
    return handle;
}

int rt_listener_port(rt_loop *loop, rt_listener handle)
{
    rt__listener *l =
        (rt__listener *)rt__slot_get(loop, handle.id, RT__LISTENER);
    return l ? l->port : RT_EGONE;
}

rt_fd rt_listener_fd(rt_loop *loop, rt_listener handle)
{
    rt__listener *l =
        (rt__listener *)rt__slot_get(loop, handle.id, RT__LISTENER);
    if (!l)
        return RT_EGONE;
    rt__strfree(loop, l->path); /* whoever takes over needs the file */
    l->path = NULL;
    return l->source.fd;
}

/* Legal in a callback of a connection that it accepts just now, and freed at
   once: listener_ready asks the handle before each accept. */
int rt_unlisten(rt_loop *loop, rt_listener handle)
{
    rt__listener *l =
        (rt__listener *)rt__slot_get(loop, handle.id, RT__LISTENER);
    if (!l)
        return RT_EGONE;
    listener_free(loop, l);
    return 0;
}

int rt_tls_reload(rt_loop *loop, rt_listener handle, const rt_tls_opts *opts)
{
    rt__listener *l =
        (rt__listener *)rt__slot_get(loop, handle.id, RT__LISTENER);
    if (!l)
        return RT_EGONE;
    if (!RT__TLS || l->ep->tls)
        return listener_secure(loop, l->ep, "reload", opts) < 0 ? loop->error
                                                                : 0;
    rt__fail(loop, RT_EINVAL, "reload", "the listener is a plain one");
    return RT_EINVAL;
}

static void flush_all(rt_loop *loop);

/* ---- buffers ------------------------------------------------------------ */

/* Each holder of a buffer has one of its references, and the last to release it
   gives it back.  A free one keeps the pointer to the next of its class in its
   first bytes.  What the pools keep is bounded, so that the heap shrinks again
   after a burst. */

enum {
    POOL_CLASSES = 11,
    POOL_SMALLEST = 64,
    POOL_KEPT = 1024 * 1024,
    LARGE_KEPT = 16 * 1024 * 1024,
    LARGE_MS = 1000,
    OUTS_KEPT = 1024
};

static void buf_list_free(rt_loop *loop, rt__buf *b)
{
    rt__buf *next;
    for (; b; b = next) {
        memcpy(&next, rt__buf_data(b), sizeof next);
        rt__free(loop, b, sizeof *b + b->cap);
    }
}

/* A free large one that is not much too large, or NULL.  One was needed in any
   case: what is released next is worth keeping. */
static rt__buf *large_take(rt_loop *loop, size_t cap)
{
    rt__buf *before = NULL, *b = loop->large, *next;
    loop->large_used = loop->now;
    while (b && (b->cap < cap || b->cap / 2 > cap)) {
        before = b;
        memcpy(&b, rt__buf_data(b), sizeof b);
    }
    if (!b)
        return NULL;
    memcpy(&next, rt__buf_data(b), sizeof next);
    if (before)
        memcpy(rt__buf_data(before), &next, sizeof next);
    else
        loop->large = next;
    loop->large_kept -= b->cap;
    return b;
}

/* Where no large one was needed for a while those that are kept go. */
static void large_trim(rt_loop *loop)
{
    if (!loop->large || loop->now - loop->large_used < LARGE_MS)
        return;
    buf_list_free(loop, loop->large);
    loop->large = NULL;
    loop->large_kept = 0;
}

static void buf_init(rt__buf *b)
{
    b->refs = 1;
    b->len = 0;
    b->arena = b->headroom = b->aside = 0;
}

/* As rt__buf_new, but only a large one that was kept; else NULL. */
rt__buf *rt__buf_kept(rt_loop *loop, size_t cap)
{
    rt__buf *b = large_take(loop, cap);
    if (b)
        buf_init(b);
    return b;
}

/* A buffer of at least cap bytes.  Those up to 64 KiB come from a pool with a
   class for each power of two; the pool keeps at most POOL_KEPT bytes.  A
   larger one is exact; LARGE_KEPT bytes of those are kept for as long as they
   are in use again and again, because memory that is new from the system costs
   more than the copying of a message. */
rt__buf *rt__buf_new(rt_loop *loop, size_t cap)
{
    size_t size = POOL_SMALLEST, c = 0;
    rt__buf *b;
    for (; size < cap && c < POOL_CLASSES; c++)
        size *= 2;
    if (c == POOL_CLASSES)
        size = cap;
    b = c < POOL_CLASSES ? loop->pool[c] : large_take(loop, cap);
    if (b && c < POOL_CLASSES) {
        memcpy(&loop->pool[c], rt__buf_data(b), sizeof b);
        loop->pooled -= b->cap;
    } else if (!b) {
        b = (rt__buf *)rt__realloc(loop, NULL, 0, sizeof *b + size);
        if (!b)
            return NULL;
        b->cap = (uint32_t)size;
        b->size_class = (uint8_t)c;
        b->headroom = 0;
    }
    buf_init(b);
    return b;
}

/* One of those bytes, with room for a 0 behind them. */
rt__buf *rt__buf_copy(rt_loop *loop, const void *data, size_t len)
{
    rt__buf *b = rt__buf_new(loop, len + 1);
    if (!b)
        return NULL;
    if (len)
        memcpy(rt__buf_data(b), data, len);
    b->len = (uint32_t)len;
    return b;
}

void rt__buf_release(rt_loop *loop, rt__buf *b)
{
    int large;
    rt__buf **free;
    size_t *kept;
    if (!b || --b->refs > 0)
        return;
    large = b->size_class == POOL_CLASSES;
    free = large ? &loop->large : &loop->pool[b->size_class];
    kept = large ? &loop->large_kept : &loop->pooled;
    if (*kept + b->cap > (large ? LARGE_KEPT : POOL_KEPT)) {
        rt__free(loop, b, sizeof *b + b->cap);
        return;
    }
    b->headroom = 0;
    memcpy(rt__buf_data(b), free, sizeof b);
    *free = b;
    *kept += b->cap;
}

static void pools_free(rt_loop *loop)
{
    int c;
    flush_all(loop); /* recycles what the dead left in the list */
    for (c = 0; c < POOL_CLASSES; c++)
        buf_list_free(loop, loop->pool[c]);
    buf_list_free(loop, loop->large);
    while (loop->out_pool) {
        rt__out *o = loop->out_pool;
        loop->out_pool = o->next;
        rt__free(loop, o, sizeof *o);
    }
}

/* ---- output ------------------------------------------------------------- */

/* Frames of a turn stand one behind the other in the loop's arena, and a
   connection holds a piece of it: no buffer of its own, unless its socket is
   full; then what is left moves to one (settle), so that a slow peer does not
   hold the arena.  Broadcast frames are in shared buffers and stay there.  The
   queue in order (q) is written before the loose ones.  A frame never stands in
   two pieces, and one that was begun is the first of q: what is dropped or
   replaced is always whole, so the peer's stream stays readable.  bytes is the
   sum of all pieces but the pong. */

/* The queue object of a connection; it exists while something waits.  Two
   pieces fit in the object itself, and frames of the arena that adjoin become
   one, so an ordinary reply allocates nothing here. */
int rt__out_open(rt_loop *loop, rt__conn *c)
{
    rt__out *o = loop->out_pool;
    if (c->out)
        return 0;
    if (c->crowd)
        return rt__crowd_part(loop, c);
    if (o) {
        loop->out_pool = o->next;
        loop->out_pooled--;
        memset(o, 0, sizeof *o);
    } else if (!(o = (rt__out *)rt__alloc(loop, sizeof *o))) {
        return RT_ENOMEM;
    }
    o->q = o->own;
    o->cap = 2;
    o->conn = c;
    c->out = o;
    return 0;
}

static void out_clear(rt_loop *loop, rt__out *o)
{
    uint32_t i;
    for (i = 0; i < o->count; i++)
        rt__buf_release(loop, o->q[o->head + i].buf);
    for (i = 0; i < o->loose_count; i++)
        rt__buf_release(loop, o->loose[i].piece.buf);
    rt__buf_release(loop, o->pong);
    if (o->q != o->own)
        rt__free(loop, o->q, o->cap * sizeof *o->q);
    rt__free(loop, o->loose, o->loose_cap * sizeof *o->loose);
}

static void out_recycle(rt_loop *loop, rt__out *o)
{
    if (loop->out_pooled >= OUTS_KEPT) {
        rt__free(loop, o, sizeof *o);
        return;
    }
    o->next = loop->out_pool;
    loop->out_pool = o;
    loop->out_pooled++;
}

/* One that stands in the list of what to flush is recycled from there. */
static void out_free(rt_loop *loop, rt__conn *c)
{
    rt__out *o = c->out;
    if (!o)
        return;
    c->out = NULL;
    out_clear(loop, o);
    if (o->dirty)
        o->conn = NULL;
    else
        out_recycle(loop, o);
}

/* What the queue costs: its bytes, and for each entry what it and the rest of
   the smallest buffer take.  Else a peer that does not read could be owed a
   million empty messages that cost heap and count nothing. */
static uint64_t out_cost(const rt__out *o)
{
    if (!o)
        return 0;
    return o->bytes +
           (uint64_t)RT__PIECE_COST * ((uint64_t)o->count + o->loose_count);
}

static rt__loose *out_keyed(rt__out *o, uint32_t key)
{
    uint32_t i;
    for (i = 0; o && i < o->loose_count; i++)
        if (o->loose[i].key == key)
            return &o->loose[i];
    return NULL;
}

/* No message waits, at most HTTP or control frames. */
static int out_idle(const rt__out *o)
{
    return !o || (o->messages == 0 && o->loose_count == 0);
}

/* 0: a frame of that size may be queued; 1: a droppable one is skipped;
   RT_EFULL: there is no room for it. */
int rt__out_room(rt__conn *c, enum rt__lane lane, uint32_t key, size_t size)
{
    uint64_t cost = out_cost(c->out);
    rt__loose *old = lane == RT__KEYED ? out_keyed(c->out, key) : NULL;
    if (lane == RT__DROPPABLE && cost > c->ep->soft_mark)
        return 1;
    if (lane == RT__KEYED && !old && c->out && c->out->loose_count >= RT__KEYS)
        return RT_EFULL;
    if (old)
        cost -= old->piece.len;
    /* One that finds nothing waiting goes whatever its size: a message may be
       larger than the hard mark. */
    if (out_idle(c->out) || cost + size <= c->ep->hard_mark + c->out->lifted)
        return 0;
    return lane == RT__DROPPABLE ? 1 : RT_EFULL;
}

/* What is queued between 1 and 0 has room whatever its size, and the hard mark
   counts from there on.  Half of the range is no limit, and adding a mark to it
   cannot overflow.  What is lifted sinks with the queue (out_taken) and never
   rises by itself. */
void rt__out_lift(rt_loop *loop, rt__conn *c, int on)
{
    if (rt__out_open(loop, c) == 0)
        c->out->lifted = on ? UINT64_MAX / 2 : out_cost(c->out);
}

/* 1 above the soft mark: on_writable is owed from now on. */
int rt__out_status(rt__conn *c)
{
    if (out_cost(c->out) <= c->ep->soft_mark)
        return 0;
    c->out->was_high = 1;
    return 1;
}

/* The loop holds the present arena; a former one lives until the last piece in
   it is written, moved out or dropped. */
static rt__buf *arena_room(rt_loop *loop, size_t size)
{
    rt__buf *b = loop->arena;
    if (b && b->refs == 1)
        b->len = 0; /* all that was in it is written */
    if (b && b->cap - b->len >= size)
        return b;
    b = rt__buf_new(loop, RT__ARENA);
    if (!b)
        return NULL;
    b->arena = 1;
    rt__buf_release(loop, loop->arena);
    return loop->arena = b;
}

static rt__piece *out_last(rt__out *o)
{
    return o->count ? &o->q[o->head + o->count - 1] : NULL;
}

/* For a blocked peer: the end of its own last buffer, or a new, larger one.
   Only where that last piece is the one holder, and a message: the free end of
   a shared buffer belongs to others. */
static rt__buf *own_room(rt_loop *loop, rt__out *o, size_t size)
{
    rt__piece *last = out_last(o);
    rt__buf *b = last ? last->buf : NULL;
    size_t cap = 512;
    if (b && b->refs == 1 && !b->arena && !b->aside &&
        last->off + last->len == b->len && b->cap - b->len >= size) {
        b->refs++; /* as the piece to come holds it */
        return b;
    }
    if (b && b->refs == 1)
        cap = b->cap < 8192 ? b->cap * (size_t)2 : 16384;
    return rt__buf_new(loop, size > cap ? size : cap);
}

/* A place for a frame of exactly size bytes, held by *piece: hand that to
   rt__out_put.  NULL: no memory. */
uint8_t *rt__out_reserve(rt_loop *loop, rt__conn *c, size_t size,
                         rt__piece *piece)
{
    rt__buf *b;
    if (c->out && c->out->blocked) {
        b = own_room(loop, c->out, size);
    } else if (size > RT__ARENA_FRAME) {
        b = rt__buf_new(loop, size);
    } else {
        b = arena_room(loop, size);
        if (b)
            b->refs++;
    }
    if (!b)
        return NULL;
    piece->buf = b;
    piece->off = b->len;
    piece->len = (uint32_t)size;
    b->len += (uint32_t)size;
    return rt__buf_data(b) + piece->off;
}

/* A blocked one is not listed: writing to a full socket is a wasted call, and
   its writable event lists it again. */
static void out_dirty(rt_loop *loop, rt__out *o)
{
    if (o->dirty || o->blocked)
        return; /* its turn comes anyway */
    o->dirty = 1;
    o->next = loop->dirty;
    loop->dirty = o;
}

/* The first piece of an empty queue, at the arena's end. */
static uint8_t *out_begin(rt_loop *loop, rt__conn *c, size_t size)
{
    rt__buf *b = arena_room(loop, size);
    rt__out *o;
    if (!b || rt__out_open(loop, c) < 0)
        return NULL;
    o = c->out;
    o->q[0].buf = b;
    o->q[0].off = b->len;
    o->q[0].len = (uint32_t)size;
    o->count = 1;
    b->refs++;
    b->len += (uint32_t)size;
    o->bytes = size;
    o->messages = 1;
    out_dirty(loop, o);
    return rt__buf_data(b) + b->len - size;
}

/* The main line: a short reliable frame finds an empty queue, or grows the last
   piece in place, where that stands at the arena's end and the soft mark is
   far.  NULL: it goes the long way. */
uint8_t *rt__out_append(rt_loop *loop, rt__conn *c, size_t size)
{
    rt__out *o = c->out;
    rt__buf *b = loop->arena;
    rt__piece *last;
    if (!o)
        return c->crowd || size + RT__PIECE_COST > c->ep->soft_mark
                   ? NULL
                   : out_begin(loop, c, size);
    if (o->count == 0 || o->blocked || b->cap - b->len < size)
        return NULL;
    last = &o->q[o->head + o->count - 1];
    if (last->buf != b || last->off + last->len != b->len ||
        out_cost(o) + size > c->ep->soft_mark)
        return NULL;
    last->len += (uint32_t)size;
    b->len += (uint32_t)size;
    o->bytes += size;
    o->messages++;
    return rt__buf_data(b) + b->len - size;
}

/* Moving down only when half is used up keeps the copies linear in what is
   queued. */
static int q_grow(rt_loop *loop, rt__out *o)
{
    uint32_t cap = o->cap * 2;
    rt__piece *q;
    if (o->head > 0 &&
        o->head >= o->cap / 2) { /* half is used up: move down instead */
        memmove(o->q, o->q + o->head, o->count * sizeof *q);
        o->head = 0;
        return 0;
    }
    q = (rt__piece *)rt__realloc(loop, NULL, 0, cap * sizeof *q);
    if (!q)
        return RT_ENOMEM;
    memcpy(q, o->q + o->head, o->count * sizeof *q);
    if (o->q != o->own)
        rt__free(loop, o->q, o->cap * sizeof *q);
    o->q = q;
    o->cap = cap;
    o->head = 0;
    return 0;
}

/* Queues a piece behind the others; takes over its reference.  One that adjoins
   the last grows that instead, to be one iovec; raw bytes do not, because there
   the piece is the message (raw_taken). */
static int q_push(rt_loop *loop, rt__out *o, rt__piece piece)
{
    rt__piece *last = out_last(o);
    if (last && last->buf == piece.buf && o->conn->wire != RT__RAW &&
        last->off + last->len == piece.off) {
        last->len += piece.len;
        rt__buf_release(loop, piece.buf);
        return 0;
    }
    if (o->head + o->count == o->cap && q_grow(loop, o) < 0) {
        rt__buf_release(loop, piece.buf);
        return RT_ENOMEM;
    }
    o->q[o->head + o->count++] = piece;
    return 0;
}

static int loose_grow(rt_loop *loop, rt__out *o)
{
    uint32_t cap = o->loose_cap ? o->loose_cap * 2 : 2;
    void *p = rt__realloc(loop, o->loose, o->loose_cap * sizeof *o->loose,
                          cap * sizeof *o->loose);
    if (!p)
        return RT_ENOMEM;
    o->loose = (rt__loose *)p;
    o->loose_cap = cap;
    return 0;
}

/* A new value takes the place of the waiting one, so that keys take turns. */
static int loose_push(rt_loop *loop, rt__out *o, rt__piece piece, uint32_t key)
{
    rt__loose *old = key ? out_keyed(o, key) : NULL;
    if (!old && o->loose_count == o->loose_cap && loose_grow(loop, o) < 0) {
        rt__buf_release(loop, piece.buf);
        return RT_ENOMEM;
    }
    if (old) {
        o->bytes -= old->piece.len;
        rt__buf_release(loop, old->piece.buf);
    } else {
        old = &o->loose[o->loose_count++];
    }
    old->piece = piece;
    old->key = key;
    return 0;
}

/* Has something to say at the next flush, even if nothing is queued. */
void rt__out_dirty(rt_loop *loop, rt__conn *c)
{
    if (rt__out_open(loop, c) == 0)
        out_dirty(loop, c->out);
}

/* Queues a framed message; takes over the reference of piece, also when there
   is no memory for it.  The queue is open: rt__out_open comes first. */
int rt__out_put(rt_loop *loop, rt__conn *c, rt__piece piece, enum rt__lane lane,
                uint32_t key)
{
    rt__out *o = c->out;
    int error = lane == RT__RELIABLE ? q_push(loop, o, piece)
                                     : loose_push(loop, o, piece, key);
    if (error < 0)
        return error;
    o->bytes += piece.len;
    o->messages += lane == RT__RELIABLE;
    out_dirty(loop, o);
    return 0;
}

/* Queues a framed control message; takes over the piece's reference. */
int rt__out_aside(rt_loop *loop, rt__conn *c, rt__piece piece)
{
    if (q_push(loop, c->out, piece) < 0)
        return RT_ENOMEM;
    c->out->bytes += piece.len;
    out_dirty(loop, c->out);
    return 0;
}

/* Queues what a codec says by itself.  Nothing tells it from a message but its
   buffer, which it has for itself. */
int rt__out_packet(rt_loop *loop, rt__conn *c, const void *data, size_t len)
{
    rt__piece piece;
    if (rt__out_open(loop, c) < 0 || !(piece.buf = rt__buf_new(loop, len)))
        return RT_ENOMEM;
    memcpy(rt__buf_data(piece.buf), data, len);
    piece.buf->len = piece.len = (uint32_t)len;
    piece.buf->aside = 1;
    piece.off = 0;
    return rt__out_aside(loop, c, piece);
}

/* Queues bytes that are no message: a control frame, or HTTP. */
int rt__out_control(rt_loop *loop, rt__conn *c, const void *data, size_t len)
{
    rt__piece piece;
    uint8_t *p;
    if (rt__out_open(loop, c) < 0 ||
        !(p = rt__out_reserve(loop, c, len, &piece)))
        return RT_ENOMEM;
    memcpy(p, data, len);
    if (q_push(loop, c->out, piece) < 0)
        return RT_ENOMEM;
    c->out->bytes += len;
    if (c->state == RT__SHAKING) /* HTTP in front of frames: one long one */
        c->out->frame_left += (uint32_t)len;
    out_dirty(loop, c->out);
    return 0;
}

/* Without memory the pong is not sent: a peer that pings again gets that
   one. */
static void pong_unfold(rt_loop *loop, rt__out *o)
{
    rt__piece piece;
    piece.buf = o->pong;
    if (!o->pong)
        return;
    o->pong = NULL;
    piece.off = 0;
    piece.len = piece.buf->len;
    if (q_push(loop, o, piece) == 0)
        o->bytes += piece.len;
}

/* Our close comes next and nothing after it, so what is loose goes before.
   (RFC 6455, 5.5.1: no data follows a close.)  A pong folded until now goes
   before it, too. */
void rt__out_tighten(rt_loop *loop, rt__conn *c)
{
    rt__out *o = c->out;
    uint32_t i;
    if (!o)
        return;
    pong_unfold(loop, o);
    for (i = 0; i < o->loose_count; i++) {
        rt__piece piece = o->loose[i].piece;
        if (q_push(loop, o, piece) < 0) {
            o->bytes -= piece.len;
            continue;
        }
        o->messages++;
        o->tightened++;
    }
    o->loose_count = 0;
}

/* How many reliable messages wait; those that were loose stand behind. */
uint32_t rt__out_unsent(const rt__out *o)
{
    const rt__tls *t = o ? rt__tls_of(o->conn) : NULL;
    uint32_t sealed = t ? t->messages : 0; /* in a record that did not go */
    return o && o->messages > o->tightened ? o->messages - o->tightened + sealed
                                           : sealed;
}

/* How many of them have no byte sent yet. */
uint32_t rt__out_unbegun(const rt__out *o)
{
    return o ? o->messages - (o->frame_left > 0 && o->frame_counts) : 0;
}

/* A pong goes out like any frame, but for one who does not read only the
   latest is kept (RFC 6455, 5.5.3). */
int rt__out_pong(rt_loop *loop, rt__conn *c, const void *data, size_t len)
{
    rt__buf *b;
    if (!c->out || !c->out->blocked)
        return rt__out_control(loop, c, data, len);
    b = rt__buf_new(loop, len);
    if (!b)
        return RT_ENOMEM;
    memcpy(rt__buf_data(b), data, len);
    b->len = (uint32_t)len;
    rt__buf_release(loop, c->out->pong);
    c->out->pong = b;
    return 0;
}

/* Is the frame that begins at p a message, and how long is it? */
static uint32_t frame_span(const rt__conn *c, const uint8_t *p, uint8_t *counts)
{
    rt__frame f;
    int head;
    *counts = 1;
    if (c->wire == RT__STREAM) {
        *counts = !c->typed || p[4] == 'm' || p[4] == 'M';
        return ((uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
                (uint32_t)p[2] << 8 | p[3]) +
               4;
    }
    /* 14 is the longest head; no more is read than this frame's own has, and a
       frame that we framed ourselves has no fault. */
    head = rt__frame_read(p, 14, c->wire == RT__WS_CLIENT, &f);
    *counts = !(f.op & 8);
    if (*counts && c->typed)
        *counts = (f.masked ? p[head] ^ f.mask[0] : p[head]) == 'm';
    return (uint32_t)head + (uint32_t)f.len;
}

/* Counts the messages whose last byte is among the n bytes taken.  A frame
   never stands in two pieces, so its head is whole where it begins.  HTTP has
   no heads: rt__out_control puts its length into frame_left. */
static void frames_taken(const rt__conn *c, rt__out *o, const rt__piece *piece,
                         size_t n)
{
    const uint8_t *p = rt__buf_data(piece->buf) + piece->off;
    while (n > 0) {
        size_t step;
        if (o->frame_left == 0) {
            o->frame_left = frame_span(c, p, &o->frame_counts);
            o->frame_counts &= !piece->buf->aside;
        }
        step = n < o->frame_left ? n : o->frame_left;
        o->frame_left -= (uint32_t)step;
        if (o->frame_left == 0 && o->frame_counts)
            o->messages--;
        p += step;
        n -= step;
    }
}

/* Bytes without frames: each piece is a message (see q_push), but for what a
   codec says by itself, and the rest of what was loose. */
static void raw_taken(rt__out *o, const rt__piece *piece, size_t n)
{
    if (o->frame_left == 0)
        o->frame_counts = !piece->buf->aside;
    o->frame_left = piece->len - (uint32_t)n;
    if (o->frame_left == 0 && o->frame_counts)
        o->messages--;
}

/* What is left of a slow peer's queue moves out of the arena.  Else one byte of
   it would hold 64 KiB for as long as its peer likes. */
static int settle_piece(rt_loop *loop, rt__piece *piece)
{
    rt__buf *b;
    if (!piece->buf->arena)
        return 0;
    b = rt__buf_new(loop, piece->len);
    if (!b)
        return RT_ENOMEM;
    memcpy(rt__buf_data(b), rt__buf_data(piece->buf) + piece->off, piece->len);
    b->len = piece->len;
    rt__buf_release(loop, piece->buf);
    piece->buf = b;
    piece->off = 0;
    return 0;
}

static int out_settle(rt_loop *loop, rt__out *o)
{
    uint32_t i;
    for (i = 0; i < o->count; i++)
        if (settle_piece(loop, &o->q[o->head + i]) < 0)
            return RT_ENOMEM;
    for (i = 0; i < o->loose_count; i++)
        if (settle_piece(loop, &o->loose[i].piece) < 0)
            return RT_ENOMEM;
    return 0;
}

static void q_taken(rt_loop *loop, rt__conn *c, size_t *n)
{
    rt__out *o = c->out;
    while (*n > 0 && o->count > 0) {
        rt__piece *piece = &o->q[o->head];
        size_t step = *n < piece->len ? *n : piece->len;
        if (c->wire == RT__RAW)
            raw_taken(o, piece, step);
        else
            frames_taken(c, o, piece, step);
        piece->off += (uint32_t)step;
        piece->len -= (uint32_t)step;
        *n -= step;
        if (piece->len > 0)
            return;
        rt__buf_release(loop, piece->buf);
        o->count--;
        o->head = o->count ? o->head + 1 : 0;
    }
}

/* A loose message that was begun has to be finished first of all: what is left
   of it moves to the queue, which is empty then. */
static void loose_taken(rt_loop *loop, rt__out *o, size_t n)
{
    uint32_t gone = 0;
    while (n > 0) {
        rt__piece *piece = &o->loose[gone++].piece;
        if (n >= piece->len) {
            n -= piece->len;
            rt__buf_release(loop, piece->buf);
            continue;
        }
        piece->off += (uint32_t)n;
        piece->len -= (uint32_t)n;
        o->frame_left = piece->len;
        o->frame_counts = 0;
        o->q[0] = *piece;
        o->count = 1;
        n = 0;
    }
    o->loose_count -= gone;
    memmove(o->loose, o->loose + gone, o->loose_count * sizeof *o->loose);
}

static void out_taken(rt_loop *loop, rt__conn *c, size_t n)
{
    c->out->bytes -= n;
    q_taken(loop, c, &n);
    if (n > 0)
        loose_taken(loop, c->out, n);
    if (c->out->lifted > out_cost(c->out))
        c->out->lifted = out_cost(c->out);
}

/* Forgets what waits, but for a frame that was begun; says how many messages
   that are.  The rest of a begun frame stays, because half a frame would make
   all that follows unreadable. */
static uint32_t out_drop(rt_loop *loop, rt__out *o)
{
    uint32_t i, kept = 0, left = o->frame_left, lost = o->messages;
    while (left > 0) { /* a frame is one piece, HTTP may be several */
        rt__piece *piece = &o->q[o->head + kept++];
        piece->len = piece->len < left ? piece->len : left;
        left -= piece->len;
    }
    lost -= kept && o->frame_counts;
    for (i = kept; i < o->count; i++)
        rt__buf_release(loop, o->q[o->head + i].buf);
    for (i = 0; i < o->loose_count; i++)
        rt__buf_release(loop, o->loose[i].piece.buf);
    o->count = kept;
    o->loose_count = 0;
    o->messages -= lost;
    o->bytes = o->frame_left;
    return lost;
}

/* Forgets even what was begun: nobody reads it any more. */
void rt__out_abandon(rt_loop *loop, rt__conn *c)
{
    out_free(loop, c);
}

int rt__out_has_key(const rt__out *o, uint32_t key)
{
    uint32_t i;
    for (i = 0; o && i < o->loose_count; i++)
        if (o->loose[i].key == key)
            return 1;
    return 0;
}

/* A value of that key that waits is not sent any more. */
void rt__out_forget(rt_loop *loop, rt__out *o, uint32_t key)
{
    rt__loose *old = out_keyed(o, key);
    if (!old)
        return;
    o->bytes -= old->piece.len;
    rt__buf_release(loop, old->piece.buf);
    o->loose_count--;
    memmove(old, old + 1,
            (size_t)(o->loose + o->loose_count - old) * sizeof *old);
}

void rt__out_discard(rt_loop *loop, rt__conn *c)
{
    uint32_t lost = c->out ? out_drop(loop, c->out) : 0;
    if (c->crowd)
        rt__crowd_drop(loop, c);
    /* Where there is a keep its ring counts what has not arrived. */
    if (c->session && !rt__keep_of(c->session))
        c->session->of.lost += lost;
}

/* The portion of one peer in one turn, so that a fast reader of a long queue
   delays nobody.  POSIX lets IOV_MAX be as low as 16; it is 1024 on Linux and
   the BSDs. */
enum { IOVECS = 64, FLUSH_MOST = 256 * 1024 };

static int gather(rt__out *o, struct iovec *v, size_t *total)
{
    uint32_t i, n = o->count + o->loose_count;
    *total = 0;
    for (i = 0; i < n && i < IOVECS && *total < FLUSH_MOST; i++) {
        rt__piece *piece =
            i < o->count ? &o->q[o->head + i] : &o->loose[i - o->count].piece;
        size_t room = FLUSH_MOST - *total;
        v[i].iov_base = rt__buf_data(piece->buf) + piece->off;
        v[i].iov_len = piece->len < room ? piece->len : room;
        *total += v[i].iov_len;
    }
    return (int)i;
}

/* MSG_NOSIGNAL, because the handling of SIGPIPE is the host's.  One piece goes
   with send, which spares the kernel the copying of a msghdr.  Who says that
   more went than the total cannot be believed: then the line is broken. */
static ssize_t send_some(int fd, struct iovec *v, int count, size_t total)
{
    struct msghdr m;
    ssize_t n;
    do {
        if (count == 1) {
            n = send(fd, v->iov_base, v->iov_len, MSG_NOSIGNAL);
            continue;
        }
        memset(&m, 0, sizeof m);
        m.msg_iov = v;
        m.msg_iovlen = (size_t)count;
        n = sendmsg(fd, &m, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n <= (ssize_t)total)
        return n;
    errno = EPROTO;
    return -1;
}

/* As send(2), of what TLS makes; 0 when the socket is full. */
ptrdiff_t rt__conn_send(rt_loop *loop, rt__conn *c, const void *data, size_t n)
{
    struct iovec v;
    ssize_t done;
    v.iov_base = (void *)(uintptr_t)data;
    v.iov_len = n;
    done = send_some(c->source.fd, &v, 1, n);
    if (done < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    loop->stats.bytes_out += (uint64_t)done;
    return (ptrdiff_t)done;
}

/* What the next record holds: of pieces that lie apart as many as fit, copied
   together where there is a buffer for that. */
static size_t record_gather(rt__out *o, rt__buf *together, const uint8_t **from)
{
    const rt__piece *first = o->count ? &o->q[o->head] : &o->loose[0].piece;
    size_t total, step, n = RT__RECORD;
    struct iovec v[IOVECS];
    int i, count;
    if (first->len < n)
        n = first->len;
    *from = rt__buf_data(first->buf) + first->off;
    if (o->count + o->loose_count == 1 || n == RT__RECORD || !together)
        return n;
    count = gather(o, v, &total);
    for (i = 0, n = 0; i < count && n < RT__RECORD; i++, n += step) {
        step = RT__RECORD - n < v[i].iov_len ? RT__RECORD - n : v[i].iov_len;
        memcpy(rt__buf_data(together) + n, v[i].iov_base, step);
    }
    *from = rt__buf_data(together);
    return n;
}

/* As out_write, through TLS, a record at a time.  One that the socket did not
   take wholly waits, and nothing more is sealed before it is gone; what ended
   in it is neither queued nor sent.  Each counts in the portion for what it
   costs: a peer may ask for records of 512 bytes. */
static int out_seal(rt_loop *loop, rt__conn *c)
{
    rt__out *o = c->out;
    rt__tls *t = rt__tls_of(c);
    rt__buf *together = rt__buf_new(loop, RT__RECORD);
    enum { RECORD_COST = 4096 };
    size_t portion = 0;
    ptrdiff_t n = 0;
    int saved;
    histogram_add(&loop->stats.queues, queue_scale, o->bytes);
    while (n >= 0 && o->bytes > 0 && portion < FLUSH_MOST && !t->rest) {
        const uint8_t *from;
        uint32_t before = rt__out_unsent(o);
        size_t len = record_gather(o, together, &from);
        n = rt__tls_write(loop, c, from, len);
        if (n < 0)
            break;
        out_taken(loop, c, (size_t)n);
        portion += n > RECORD_COST ? (size_t)n : (size_t)RECORD_COST;
        if (t->rest)
            t->messages = before - rt__out_unsent(o);
    }
    saved = errno;
    rt__buf_release(loop, together);
    errno = saved;
    return n < 0 ? -1 : t->rest != NULL;
}

/* One write of what waits.  0: all or a full portion went; 1: the socket is
   full; < 0: it is broken, see errno.  When all of it went the pieces are not
   walked: conn_drained frees the queue with them. */
static int out_write(rt_loop *loop, rt__conn *c)
{
    struct iovec v[IOVECS];
    size_t total;
    int count;
    ssize_t n;
    if (rt__tls_of(c))
        return out_seal(loop, c);
    count = gather(c->out, v, &total);
    n = send_some(c->source.fd, v, count, total);
    histogram_add(&loop->stats.queues, queue_scale, c->out->bytes);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        n = 0;
    else if (n < 0)
        return -1;
    loop->stats.bytes_out += (uint64_t)n;
    if ((uint64_t)n == c->out->bytes) { /* nearly always: no need to count */
        c->out->bytes = 0;
        c->out->messages = 0;
        c->out->frame_left = 0;
        return 0;
    }
    out_taken(loop, c, (size_t)n);
    return (size_t)n < total;
}

/* The queue is empty: what the connection waited for happens now.  A farewell
   is over when both closes are said: ours was in the queue. */
static void conn_drained(rt_loop *loop, rt__conn *c)
{
    int was_high = c->out->was_high;
    out_free(loop, c);
    if (was_high && c->session)
        rt__session_todo(loop, c->session, RT__TODO_WRITABLE);
    if (c->state == RT__FINISHING ||
        (c->state == RT__FAREWELL && c->peer_closed))
        rt__conn_finish(loop, c);
    else if (c->hold & RT__HOLD_HTTP && c->state == RT__SHAKING)
        rt__shake_drained(loop, c);
}

static void conn_unsendable(rt_loop *loop, rt__conn *c)
{
    int peer = errno == EPIPE || errno == ECONNRESET;
    rt__conn_lost(loop, c, 1006, peer ? RT_BY_PEER : RT_BY_ERROR,
                  strerror(errno));
}

/* The socket takes no more: its writable event will tell. */
static void conn_block(rt_loop *loop, rt__conn *c)
{
    c->out->blocked = 1;
    if (out_settle(loop, c->out) < 0)
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, rt_strerror(RT_ENOMEM));
    else
        rt__conn_interest(loop, c);
}

/* Queues a piece of several messages, one frame behind the other, in which it
   takes a reference of its own. */
int rt__conn_queue(rt_loop *loop, rt__conn *c, rt__piece piece,
                   uint32_t messages)
{
    if (rt__out_open(loop, c) < 0)
        return RT_ENOMEM;
    piece.buf->refs++;
    if (q_push(loop, c->out, piece) < 0)
        return RT_ENOMEM;
    c->out->bytes += piece.len;
    c->out->messages += messages;
    out_dirty(loop, c->out);
    return 0;
}

/* The rest of such a piece, of which n bytes are written, finds no memory. */
static void conn_unqueued(rt_loop *loop, rt__conn *c, rt__piece piece,
                          uint32_t messages, size_t n)
{
    rt__out o;
    memset(&o, 0, sizeof o);
    o.messages = messages;
    frames_taken(c, &o, &piece, n);
    c->session->of.lost += o.messages;
    rt__conn_lost(loop, c, 1006, RT_BY_ERROR, rt_strerror(RT_ENOMEM));
}

/* Writes such a piece to one who has no queue; only what the socket does not
   take is queued. */
void rt__conn_write(rt_loop *loop, rt__conn *c, rt__piece piece,
                    uint32_t messages)
{
    struct iovec v;
    ssize_t n;
    if (rt__tls_of(c)) { /* sealed with what else there is, in this flush */
        if (rt__conn_queue(loop, c, piece, messages) < 0)
            conn_unqueued(loop, c, piece, messages, 0);
        return;
    }
    v.iov_base = rt__buf_data(piece.buf) + piece.off;
    v.iov_len = piece.len;
    n = send_some(c->source.fd, &v, 1, v.iov_len);
    histogram_add(&loop->stats.queues, queue_scale, piece.len);
    if (n > 0)
        loop->stats.bytes_out += (uint64_t)n;
    if (n == (ssize_t)piece.len)
        return;
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
        c->session->of.lost += messages;
        conn_unsendable(loop, c);
        return;
    }
    if (n < 0)
        n = 0;
    if (rt__conn_queue(loop, c, piece, messages) < 0) {
        conn_unqueued(loop, c, piece, messages, (size_t)n);
        return;
    }
    out_taken(loop, c, (size_t)n);
    conn_block(loop, c);
}

/* What TLS made and the socket did not take goes first.  0: it is gone, and
   what is queued may follow, if anything is to. */
static int rest_flush(rt_loop *loop, rt__conn *c)
{
    int left = rt__tls_flush(loop, c);
    if (left < 0)
        conn_unsendable(loop, c);
    else if (left > 0)
        conn_block(loop, c);
    if (left || c->state != RT__SECURING)
        return left;
    out_free(loop, c); /* nobody has anything to say yet */
    rt__conn_interest(loop, c);
    return 1;
}

/* What TLS says by itself found the socket full: that is waited for. */
static void rest_await(rt_loop *loop, rt__conn *c)
{
    if (!rt__tls_rest(c) || c->state == RT__DEAD)
        return;
    if (rt__out_open(loop, c) < 0)
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, rt_strerror(RT_ENOMEM));
    else if (!c->out->blocked)
        conn_block(loop, c);
}

/* Writes what waits for one peer: one system call.  Runs no callback.  One that
   is not connected yet, or whose socket is full, waits. */
void rt__conn_flush(rt_loop *loop, rt__conn *c)
{
    rt__out *o = c->out;
    uint8_t listed;
    int full;
    if (!o || o->blocked || c->state <= RT__CONNECTING)
        return;
    if (rt__tls_rest(c) && rest_flush(loop, c))
        return;
    listed = o->dirty;
    o->dirty = 1; /* what is added now goes with the rest */
    pong_unfold(loop, o);
    if (c->typed)
        rt__flush_begins(loop, c);
    o->dirty = listed;
    full = o->bytes > 0 ? out_write(loop, c) : 0;
    if (full < 0) {
        conn_unsendable(loop, c);
        return;
    }
    if (c->session && rt__keep_of(c->session))
        rt__flushed(loop, c);
    if (o->bytes == 0 && !rt__tls_rest(c)) {
        conn_drained(loop, c);
        rt__conn_interest(loop, c);
        return;
    }
    /* At half the mark, not at the mark, where a steady sender would be told of
       each message. */
    if (o->was_high && c->session && out_cost(o) <= c->ep->soft_mark / 2) {
        o->was_high = 0;
        rt__session_todo(loop, c->session, RT__TODO_WRITABLE);
    }
    if (!full) { /* its portion of this turn went; more in the next one */
        out_dirty(loop, o);
        return;
    }
    conn_block(loop, c);
}

/* Each queue leaves the list before it is written, so that what is not done
   stands in the list of the next turn.  No callback runs in it, so it is never
   inside itself. */
static void flush_all(rt_loop *loop)
{
    rt__out *list, *o;
    rt__crowds_flush(loop);
    list = loop->dirty;
    loop->dirty = NULL;
    while ((o = list) != NULL) {
        list = o->next;
        if (list)
            RT__PREFETCH(list->conn);
        o->dirty = 0;
        if (o->conn)
            rt__conn_flush(loop, o->conn);
        else
            out_recycle(loop, o);
    }
}

void rt_flush(rt_loop *loop)
{
    flush_all(loop);
}

/* ---- messages that are sent on ------------------------------------------ */

/* A long message is sent on from the buffer it was read to: the head of its
   next frame is written before it, where its own stood or headroom was left,
   and the copy is spared.  (It is the host's to read only: on_message gets it
   const.)  The inbox is needed again for the next recv, so whoever borrows from
   it is flushed when the input is dealt with. */

void rt__lend(rt_loop *loop, rt__buf *buf, uint8_t *data, size_t len,
              size_t room)
{
    rt__lent *l = &loop->lent;
    if (len < RT__LEND)
        return;
    l->buf = buf;
    l->data = data;
    l->len = len;
    l->room = room;
    l->head_len = 0;
}

void rt__lend_over(rt_loop *loop)
{
    loop->lent.buf = NULL;
}

/* One that borrows from the inbox has to be found again.  0: too many do. */
static int borrower_add(rt_loop *loop, rt__conn *c)
{
    uint32_t n = loop->borrower_count;
    if (loop->lent.buf != loop->inbox || (n && loop->borrowers[n - 1] == c))
        return 1;
    if (n == RT__BORROWERS)
        return 0;
    loop->borrowers[loop->borrower_count++] = c;
    return 1;
}

/* While a message is lent: makes a frame of that head and the message as it
   lies, 1.  0: it has to be copied.  A second frame of it can only be the same.
 */
int rt__borrow(rt_loop *loop, rt__conn *c, const void *data, size_t len,
               const uint8_t *head, size_t head_len, rt__piece *piece)
{
    rt__lent *l = &loop->lent;
    uint8_t *at;
    if (data != l->data || len != l->len || head_len > l->room)
        return 0;
    at = l->data - head_len;
    if (l->head_len &&
        (l->head_len != head_len || memcmp(at, head, head_len) != 0))
        return 0;
    if (!borrower_add(loop, c))
        return 0;
    memcpy(at, head, head_len);
    l->head_len = head_len;
    l->buf->headroom = 0; /* the piece counts from the buffer's very begin */
    l->buf->refs++;
    piece->buf = l->buf;
    piece->off = (uint32_t)(at - rt__buf_data(l->buf));
    piece->len = (uint32_t)(head_len + len);
    return 1;
}

/* What is not written by now moves out.  (One that ended has no queue.) */
static void inbox_return(rt_loop *loop)
{
    uint32_t i;
    for (i = 0; i < loop->borrower_count; i++) {
        rt__conn *c = loop->borrowers[i];
        rt__conn_flush(loop, c);
        if (c->out && out_settle(loop, c->out) < 0)
            rt__conn_lost(loop, c, 1006, RT_BY_ERROR, rt_strerror(RT_ENOMEM));
    }
    loop->borrower_count = 0;
}

/* ---- unfinished input --------------------------------------------------- */

/* Input is decoded where it was received, in the loop's own buffer; an idle
   connection has no rt__in and no buffer.  What stands here is the rest of a
   frame or message that is not whole yet, and bytes that were read behind a
   pause.  Of a connection that ends both stay until the end of the turn, since
   the callback that ended it may still look at its data. */

rt__in *rt__in_open(rt_loop *loop, rt__conn *c)
{
    if (!c->in)
        c->in = (rt__in *)rt__alloc(loop, sizeof *c->in);
    return c->in;
}

/* Gives the object back when nothing is unfinished. */
void rt__in_settle(rt_loop *loop, rt__conn *c)
{
    rt__in *in = c->in;
    if (!in || in->head_len || in->in_frame || in->message || in->kept)
        return;
    rt__buf_release(loop, in->data);
    rt__free(loop, in, sizeof *in);
    c->in = NULL;
}

static void in_free(rt_loop *loop, rt__conn *c)
{
    rt__in *in = c->in;
    if (!in)
        return;
    rt__buf_release(loop, in->data);
    rt__free(loop, in->kept, in->kept_cap);
    rt__free(loop, in, sizeof *in);
    c->in = NULL;
}

/* Keeps n bytes that were read but not looked at.  While kept bytes are looked
   at again, their rest stays where it is.  conn_readable looks at them before
   it receives more, so they are those of about one recv.  The byte more is for
   the 0 behind a message. */
int rt__in_keep(rt_loop *loop, rt__conn *c, const uint8_t *p, size_t n)
{
    rt__in *in = rt__in_open(loop, c);
    uint8_t *kept;
    if (!in)
        return RT_ENOMEM;
    if (in->kept && p >= in->kept && p < in->kept + in->kept_cap) {
        in->kept_off = (size_t)(p - in->kept);
        in->kept_len = n;
        return 0;
    }
    kept = (uint8_t *)rt__realloc(loop, NULL, 0, n + 1);
    if (!kept) {
        rt__in_settle(loop, c);
        return RT_ENOMEM;
    }
    memcpy(kept, p, n);
    rt__free(loop, in->kept, in->kept_cap);
    in->kept = kept;
    in->kept_off = 0;
    in->kept_len = n;
    in->kept_cap = n + 1;
    return 0;
}

/* A buffer for the message under way, with room for n more bytes and a 0.  It
   grows with what has come, not with what was announced.  (Else ten bytes that
   announce a long message cost us its length; doubling keeps the copies
   linear.) */
static int data_room(rt_loop *loop, rt__in *in, size_t n, uint64_t expected)
{
    uint64_t have = in->data ? in->data->len : 0;
    uint64_t least = 16383 - RT__HEADROOM; /* with both a pool's 16 KiB */
    uint64_t cap = have * 2 > least ? have * 2 : least;
    uint64_t all = have + expected;
    rt__buf *b = NULL;
    if (in->data && in->data->cap > have + n + RT__HEADROOM)
        return 0;
    /* One that is kept anyway costs nothing: take it for the whole message,
       once an eighth has come, for else who only announces would empty the
       store. */
    if (all > RT__ARENA && have + n >= all / 8)
        b = rt__buf_kept(loop, (size_t)all + 1 + RT__HEADROOM);
    if (cap > all)
        cap = all;
    if (cap < have + n)
        cap = have + n;
    if (!b && !(b = rt__buf_new(loop, (size_t)cap + 1 + RT__HEADROOM)))
        return RT_ENOMEM;
    b->headroom = RT__HEADROOM;
    if (have)
        memcpy(rt__buf_data(b), rt__buf_data(in->data), (size_t)have);
    b->len = (uint32_t)have;
    rt__buf_release(loop, in->data);
    in->data = b;
    return 0;
}

/* A place for n more bytes of the message under way; expected: how many are
   announced, those n included.  NULL: no memory. */
uint8_t *rt__in_room(rt_loop *loop, rt__conn *c, size_t n, uint64_t expected)
{
    rt__in *in = c->in;
    if (data_room(loop, in, n, expected) < 0)
        return NULL;
    in->data->len += (uint32_t)n;
    return rt__buf_data(in->data) + in->data->len - n;
}

/* The message under way is for the caller, who releases it. */
rt__buf *rt__in_take(rt_loop *loop, rt__conn *c)
{
    rt__buf *b = c->in->data;
    c->in->data = NULL;
    c->in->message = 0;
    c->in->fragments = 0;
    c->in->since = 0;
    rt__in_settle(loop, c);
    return b;
}

/* A message is under way from its first byte on: its deadline runs.  Later
   bytes do not move it, so one byte a second wins no time. */
void rt__in_began(rt_loop *loop, rt__conn *c)
{
    if (c->in->since)
        return;
    c->in->since = loop->now;
    rt__conn_due(loop, c, rt_now(loop) + c->ep->assembly_ms);
}

/* Its deadlines are looked at by then, or earlier.  One that was lost a moment
   ago, because its events could not be asked for, has no timer any more. */
void rt__conn_due(rt_loop *loop, rt__conn *c, uint64_t due)
{
    if (c->state != RT__DEAD && due < rt__timer_due(loop, &c->timer))
        rt__timer_set(loop, &c->timer, due);
}

/* ---- connections -------------------------------------------------------- */

static size_t block_size(const rt__ep *ep)
{
    return sizeof(rt__conn) + (ep->max_per_address ? sizeof(uint64_t) : 0) +
           (rt__tls_on(ep) ? sizeof(rt__tls *) : 0);
}

/* Room for a connection and a session; neither is there yet. */
rt__conn *rt__block_new(rt_loop *loop, rt__ep *ep)
{
    rt__conn *c = (rt__conn *)rt__alloc(loop, block_size(ep));
    if (!c)
        return NULL;
    c->ep = ep;
    ep->refs++;
    return c;
}

/* Goes when nobody uses it. */
void rt__block_settle(rt_loop *loop, rt__conn *c)
{
    rt__ep *ep = c->ep;
    if (c->used || c->own.id)
        return;
    rt__free(loop, c, block_size(ep));
    rt__ep_release(loop, ep);
}

/* Its connection is gone: the place is as new, the session stays. */
static void block_clear(rt__conn *c)
{
    rt__session own = c->own;
    rt__ep *ep = c->ep;
    memset(c, 0, sizeof *c);
    c->own = own;
    c->ep = ep;
}

static void conn_heard(rt_loop *loop, rt__conn *c)
{
    c->heard = (uint32_t)loop->now;
    c->heard_high = (unsigned int)(loop->now >> 32) & 0xff;
}

/* A connection in that block; fd < 0: it has none yet.  Where it fails fd stays
   the caller's, and the block goes if it was only for that. */
static rt__conn *conn_new(rt_loop *loop, rt__conn *c, int fd, int interest)
{
    if (!c)
        return NULL;
    /* Its place in the heap is reserved here, so no later deadline can fail. */
    c->source.fd = -1;
    if (rt__timer_adopt(loop, &c->timer, RT__OF_CONN) < 0) {
        rt__block_settle(loop, c);
        return NULL;
    }
    if (fd >= 0 &&
        source_add(loop, &c->source, fd, RT__CONN_SOURCE, interest) < 0) {
        rt__timer_disown(loop, &c->timer);
        rt__block_settle(loop, c);
        return NULL;
    }
    c->used = 1;
    c->wire = (unsigned int)c->ep->wire & 3;
    c->typed = c->ep->typed != 0;
    conn_heard(loop, c);
    loop->conn_count++;
    return c;
}

static void conn_want(rt_loop *loop, rt__conn *c, int want)
{
    if (c->state == RT__DEAD || c->source.fd < 0)
        return;
    if (c->out && c->out->blocked)
        want |= RT_WRITE;
    if (source_set(loop, &c->source, want) < 0)
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, strerror(errno));
}

/* What the connection waits for, from its state.  One whose request the host
   thinks about is read, for its hang-up (conn_peek).  Who pauses reading does
   it for a moment, nearly always: the backend hears of that when something
   comes that is not read (conn_readable). */
void rt__conn_interest(rt_loop *loop, rt__conn *c)
{
    int reads = !(c->hold & ~RT__HOLD_HOST) ||
                (c->hold == RT__HOLD_APP && c->source.interest & RT_READ);
    conn_want(loop, c, reads ? RT_READ : 0);
}

/* ---- how many there are of one address ---------------------------------- */

/* The table has a fixed size, so that a flood from many addresses cannot make
   it grow.  It may count an address too high, where others share its cells,
   never too low; the keyed hash leaves nobody to choose whose.  A connection
   takes back exactly the key that it put in (counted). */

/* The key under which an address is counted, of this listener: the whole of
   IPv4, the /64 of IPv6, which is what one customer has.  0: not counted.  No
   hash is 0, for its top bit is set. */
static uint64_t addr_key(rt_loop *loop, const rt__ep *ep, const rt__addr *a)
{
    uint8_t key[1 + 8 + sizeof ep->id];
    if (!ep->max_per_address || a->family < RT__IPV4)
        return 0;
    key[0] = a->family;
    memcpy(key + 1, a->bytes, 8); /* those of IPv4 end in zeros */
    memcpy(key + 9, &ep->id, sizeof ep->id);
    return rt__hash(loop, key, sizeof key) | (uint64_t)1 << 63;
}

/* Of a proxy that is trusted the request may yet say whom it speaks for. */
static int addr_final(const rt__ep *ep, const rt__addr *a)
{
    return ep->wire >= RT__STREAM || !rt__trusted(ep, a);
}

static int addr_full(rt_loop *loop, const rt__ep *ep, uint64_t key)
{
    return key && rt__sketch_count(loop->sketch, key) >= ep->max_per_address;
}

/* The key that the connection put in, where addresses are counted. */
static uint64_t *conn_counted(rt__conn *c)
{
    return c->ep->max_per_address ? (uint64_t *)(c + 1) : NULL;
}

static void conn_uncount(rt_loop *loop, rt__conn *c)
{
    uint64_t *counted = conn_counted(c);
    if (!counted || !*counted)
        return;
    rt__sketch_remove(loop->sketch, *counted);
    *counted = 0;
}

/* The connection counts as one of that address; -1: there are too many. */
int rt__conn_from(rt_loop *loop, rt__conn *c, const rt__addr *a)
{
    uint64_t key = addr_key(loop, c->ep, a), *counted = conn_counted(c);
    if (!counted || key == *counted)
        return 0;
    conn_uncount(loop, c);
    if (addr_full(loop, c->ep, key))
        return -1;
    if (key)
        rt__sketch_add(loop->sketch, key);
    *counted = key;
    return 0;
}

/* ---- connections: their end --------------------------------------------- */

/* No event finds it any more; the rest goes at the end of the turn, because a
   callback further up may still look at its input.  The descriptor leaves the
   backend now, since a close would not take it out of epoll where a child holds
   it, too; and as it is closed only at the end of the turn, no new socket gets
   its number while events of the old one are in the batch. */
void rt__conn_kill(rt_loop *loop, rt__conn *c)
{
    if (c->state == RT__DEAD)
        return;
    c->state = RT__DEAD;
    if (c->crowd)
        rt__crowd_drop(loop, c);
    if (c->session) {
        if (!rt__keep_of(c->session)) /* else it is known what has arrived */
            c->session->of.lost += rt__out_unsent(c->out);
        c->session->conn = NULL;
        c->session = NULL;
    }
    out_free(loop, c);
    conn_uncount(loop, c);
    rt__shake_detach(loop, c);
    if (c->source.fd >= 0)
        source_remove(loop, &c->source);
    rt__timer_disown(loop, &c->timer);
    c->of.next = loop->dead;
    loop->dead = c;
    loop->conn_count--;
}

static void dead_free(rt_loop *loop)
{
    while (loop->dead) {
        rt__conn *c = loop->dead;
        loop->dead = c->of.next;
        if (c->source.fd >= 0)
            close(c->source.fd);
        in_free(loop, c);
        rt__shake_free(loop, c);
        rt__tls_free(loop, c);
        block_clear(c);
        rt__block_settle(loop, c);
    }
}

/* The line is gone, and with it a session that cannot resume.  The connection
   goes first: else the end would say a goodbye on it. */
void rt__conn_lost(rt_loop *loop, rt__conn *c, int code, int cause,
                   const char *reason)
{
    rt__session *s = c->session;
    if (rt__session_lost(loop, c))
        s = NULL;
    rt__conn_kill(loop, c);
    if (s)
        rt__session_end(loop, s, code, cause, reason);
}

static void conn_deadline_in(rt_loop *loop, rt__conn *c, uint32_t ms)
{
    rt__timer_set(loop, &c->timer, rt_now(loop) + ms);
}

/* Everything is said and written: our half is shut, and what still comes is
   thrown away, because closing with unread input would send a reset that can
   overtake our last bytes.  A peer that never shuts its half is cut off at the
   deadline. */
void rt__conn_finish(rt_loop *loop, rt__conn *c)
{
    rt__tls_bye(loop, c);
    if (c->peer_closed && c->wire == RT__WS_SERVER) {
        rt__conn_kill(loop, c); /* RFC 6455, 7.1.1: the server closes first */
        return;
    }
    if (c->hold & RT__HOLD_END) {
        rt__conn_kill(loop, c); /* nothing more can come: no reset either */
        return;
    }
    c->state = RT__DRAINING; /* within the deadline that runs already */
    /* A client whose close is answered leaves the first FIN, and with it
       TIME_WAIT, to the server (RFC 6455, 7.1.1). */
    if (c->wire != RT__WS_CLIENT || !c->peer_closed)
        shutdown(c->source.fd, SHUT_WR);
}

/* Flushes what is queued, then closes; nothing more is read for anybody. */
void rt__conn_finish_soon(rt_loop *loop, rt__conn *c)
{
    if (c->state == RT__GREETING || c->state == RT__LIVE)
        rt__shake_detach(loop, c); /* no handshake in progress any more */
    /* One deadline for the whole farewell, set when it begins. */
    if (c->state < RT__FAREWELL)
        conn_deadline_in(loop, c, c->ep->close_ms);
    c->state = RT__FINISHING;
    c->hold = 0;
    if (!c->out)
        rt__conn_finish(loop, c);
    rt__conn_interest(loop, c);
}

/* Queues our close; the peer's answer is awaited.  Says goodbye only for a
   connection that carries a session. */
void rt__conn_bye(rt_loop *loop, rt__conn *c, int code, const char *reason)
{
    if (c->state != RT__LIVE && c->state != RT__GREETING) {
        rt__conn_kill(loop, c);
        return;
    }
    if (rt__ws_close(loop, c, code, reason) < 0) {
        rt__conn_kill(loop, c);
        return;
    }
    if (c->wire >= RT__STREAM) {
        rt__conn_finish_soon(loop, c);
        return;
    }
    rt__shake_detach(loop, c);
    c->state = RT__FAREWELL;
    c->hold = 0;
    conn_deadline_in(loop, c, c->ep->close_ms);
    rt__conn_interest(loop, c);
    if (c->state != RT__DEAD && c->in && c->in->kept)
        rt__conn_wake(loop, c); /* its answer may be among it */
}

/* The peer broke the protocol or a limit: its session ends, the code is told,
   and no answer is awaited from such a one.  (RFC 6455, 7.1.7: fail the
   connection.) */
void rt__conn_violation(rt_loop *loop, rt__conn *c, int code, int cause,
                        const char *reason)
{
    rt__session *s = c->session;
    if (c->state == RT__FAREWELL) { /* what we said before still goes out */
        rt__conn_finish_soon(loop, c);
        return;
    }
    if (c->state < RT__GREETING || c->state > RT__LIVE) {
        rt__conn_lost(loop, c, code, cause, reason);
        return;
    }
    if (code == 1011 && rt__session_lost(loop, c))
        s = NULL; /* our trouble, not the peer's fault: it may come back */
    if (rt__ws_close(loop, c, code, reason) < 0)
        rt__conn_kill(loop, c);
    else
        rt__conn_finish_soon(loop, c);
    if (s)
        rt__session_end(loop, s, code, cause, reason);
}

/* Streams have no ping, but for rtnet.1 and the codecs. */
static int pings(const rt__conn *c)
{
    return c->ep->ping_ms < INT32_MAX &&
           (c->wire < RT__STREAM || c->typed || c->ep->codec);
}

/* A message, or part of one, or the answer to our ping came.  Other control
   frames are no sign of life: a flood of them would hide that nobody reads.
   Differences of 32-bit milliseconds stay right when those wrap, each 49
   days. */
void rt__conn_lives(rt_loop *loop, rt__conn *c)
{
    c->life = (uint32_t)loop->now;
    c->pings = 0;
}

/* A control frame that nobody asked for: so many a second are borne, from the
   first on.  0 or a fault.  Each ping has us write a pong: without a bound the
   peer sets our work. */
int rt__control_in(rt_loop *loop, rt__conn *c)
{
    if (c->ep->control_rate == INT32_MAX)
        return 0;
    if ((uint32_t)loop->now - c->of.control.since >= 1000) {
        c->of.control.since = (uint32_t)loop->now;
        c->of.control.count = 0;
    }
    return ++c->of.control.count > c->ep->control_rate ? -1008 : 0;
}

/* The handshake is over.  The first ping goes at a random point, so that those
   who came together are not pinged together. */
void rt__conn_opened(rt_loop *loop, rt__conn *c)
{
    c->state = RT__LIVE;
    conn_heard(loop, c);
    rt__conn_lives(loop, c);
    if (c->typed && !c->confirmed)
        return; /* the deadline of the handshake still runs */
    rt__timer_clear(loop, &c->timer);
    if (c->session && c->typed)
        c->session->of.said = (uint32_t)loop->now;
    if (pings(c))
        conn_deadline_in(loop, c,
                         (uint32_t)(rt__random(loop) % c->ep->ping_ms));
}

/* ---- streams: 4 bytes of length, then the message ----------------------- */

/* A step returns how many bytes it took or, negative, the close code of a
   fault, which stream_input tells.  The length is held against the limit before
   anything is added to it or allocated for it.  A callback inside a step may
   end or pause the connection: each step asks again; c itself lives until the
   end of the turn. */

static int stream_head(const uint8_t *p, uint64_t *len)
{
    *len = (uint64_t)p[0] << 24 | (uint64_t)p[1] << 16 | (uint64_t)p[2] << 8 |
           p[3];
    return 4;
}

static int stream_deliver(rt_loop *loop, rt__conn *c, uint8_t *data, size_t n)
{
    if (c->typed)
        return rt__typed_stream(loop, c, data, n);
    rt__tell_message(loop, c->session, RT_BINARY, data, n);
    return 0;
}

/* A message that came in parts is whole.  It leaves the connection before the
   callback, which may end that. */
static int stream_whole(rt_loop *loop, rt__conn *c)
{
    rt__buf *b;
    uint8_t none[1] = {0};
    int fault;
    c->in->in_frame = 0;
    b = rt__in_take(loop, c);
    fault = stream_deliver(loop, c, b ? rt__buf_data(b) : none, b ? b->len : 0);
    rt__buf_release(loop, b);
    return fault;
}

/* Of rtnet.1, messages alone are a sign of life before they are whole. */
static int letter_lives(const rt__conn *c, const uint8_t *letter)
{
    int small = *letter | 0x20;
    return !c->typed || small == 'm' || small == 'u';
}

/* Takes bytes of a message whose beginning came before; how many, or < 0. */
static ptrdiff_t stream_more(rt_loop *loop, rt__conn *c, const uint8_t *p,
                             size_t n)
{
    rt__in *in = c->in;
    size_t used = 0;
    uint8_t *to;
    int fault;
    while (!in->in_frame && used < n && in->head_len < 4)
        in->head[in->head_len++] = p[used++];
    if (!in->in_frame && in->head_len < 4)
        return (ptrdiff_t)used;
    if (!in->in_frame) {
        stream_head(in->head, &in->left);
        in->head_len = 0;
        in->in_frame = 1;
    }
    if (in->left > (uint64_t)c->ep->max_message + c->typed)
        return -1009;
    n = n - used < in->left ? n - used : (size_t)in->left;
    to = n > 0 ? rt__in_room(loop, c, n, in->left) : NULL;
    if (n > 0 && !to)
        return -1011;
    if (n > 0)
        memcpy(to, p + used, n);
    if (n > 0 && letter_lives(c, rt__buf_data(in->data)))
        rt__conn_lives(loop, c);
    in->left -= n;
    if (in->left == 0 && (fault = stream_whole(loop, c)) < 0)
        return fault;
    return (ptrdiff_t)(used + n);
}

/* One step: how many bytes it took, or < 0.  A message that is whole is told
   where it was received, without a copy; only parts are gathered. */
static ptrdiff_t stream_step(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n)
{
    uint64_t len = 0;
    int fault;
    if (c->in && (c->in->head_len || c->in->in_frame))
        return stream_more(loop, c, p, n);
    if (n >= 4)
        stream_head(p, &len);
    if (len > (uint64_t)c->ep->max_message + c->typed)
        return -1009;
    if (n >= 4 && n - 4 >= len) {
        fault = stream_deliver(loop, c, p + 4, (size_t)len);
        return fault < 0 ? fault : (ptrdiff_t)(4 + len);
    }
    if (!rt__in_open(loop, c))
        return -1011;
    rt__in_began(loop, c);
    return stream_more(loop, c, p, n);
}

/* A packet of the codec at p: > 0 its size, told of; 0: *need bytes are (0: one
   more is); < 0 a fault.  A codec is the host's, but works on a peer's bytes:
   what it says is held against the packet and the limits. */
static ptrdiff_t codec_whole(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n,
                             size_t *need)
{
    const rt_codec *codec = c->ep->codec;
    size_t at = 0, len = 0, most = (size_t)c->ep->max_message + RT__CODEC_HEAD;
    int kind = 0;
    ptrdiff_t size = codec->decode(codec->ctx, p, n, &at, &len, &kind);
    *need = size > 0 ? (size_t)size : 0;
    if (size < 0)
        return -1002;
    if (*need > most || (*need == 0 && n >= most) || len > c->ep->max_message)
        return -1009;
    if (*need == 0 || *need > n)
        return 0;
    if (at > *need || len > *need - at)
        return -1002;
    rt__tell_message(loop, c->session, kind, p + at, len);
    return size;
}

/* How much of the packet may still come: what it needs, or, where that is not
   known, as much again as there is, so that it is copied seldom. */
static uint64_t packet_left(const rt__conn *c)
{
    uint64_t have = c->in->data ? c->in->data->len : 0;
    uint64_t most = (uint64_t)c->ep->max_message + RT__CODEC_HEAD;
    if (c->in->left)
        return c->in->left;
    return have < most - have ? have : most - have;
}

/* A packet that came in parts: takes what it needs, and no more.  While its
   size is not known that is one byte, for the next may be of another packet. */
static ptrdiff_t codec_more(rt_loop *loop, rt__conn *c, const uint8_t *p,
                            size_t n)
{
    rt__in *in = c->in;
    size_t need = (size_t)in->left;
    uint8_t *to;
    rt__buf *b;
    ptrdiff_t used;
    if (n > (need ? need : 1))
        n = need ? need : 1;
    to = rt__in_room(loop, c, n, packet_left(c));
    if (!to)
        return -1011;
    memcpy(to, p, n);
    rt__conn_lives(loop, c);
    b = in->data;
    b->refs++; /* a callback may end the connection */
    used = codec_whole(loop, c, rt__buf_data(b), b->len, &need);
    in->left = need > b->len ? need - b->len : 0;
    if (used > 0)
        rt__buf_release(loop, rt__in_take(loop, c));
    rt__buf_release(loop, b);
    return used < 0 ? used : (ptrdiff_t)n;
}

static ptrdiff_t codec_step(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n)
{
    ptrdiff_t used;
    size_t need;
    if (c->in && c->in->message)
        return codec_more(loop, c, p, n);
    used = codec_whole(loop, c, p, n, &need);
    if (used != 0)
        return used;
    if (!rt__in_open(loop, c))
        return -1011;
    c->in->message = RT_BINARY;
    c->in->left = need;
    rt__in_began(loop, c);
    return codec_more(loop, c, p, n);
}

/* Bytes without frames: the host makes sense of them, or its codec. */
static ptrdiff_t raw_step(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n)
{
    if (c->ep->codec)
        return codec_step(loop, c, p, n);
    rt__tell_message(loop, c->session, RT_BINARY, p, n);
    return (ptrdiff_t)n;
}

static const char *stream_fault(int code)
{
    if (code == 1009)
        return "too large";
    if (code == 1008)
        return "too many control frames";
    return code == 1011 ? "out of memory" : "protocol error";
}

/* A session that is ending still learns what its peer has. */
static int stream_wants(const rt__conn *c)
{
    return c->state == RT__LIVE || c->state == RT__GREETING ||
           (c->typed && c->session && c->state == RT__FINISHING);
}

static void stream_input(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n)
{
    ptrdiff_t used = 0;
    int code;
    while (n > 0 && used >= 0 && !c->hold && stream_wants(c)) {
        used = c->wire == RT__RAW ? raw_step(loop, c, p, n)
                                  : stream_step(loop, c, p, n);
        p += used > 0 ? used : 0;
        n -= used > 0 ? (size_t)used : 0;
    }
    if (used >= 0 && n > 0 && c->hold)
        used = rt__in_keep(loop, c, p, n) < 0 ? -1011 : 0;
    code = (int)-used;
    if (used < 0)
        rt__conn_violation(loop, c, code,
                           code == 1009 || code == 1008 ? RT_BY_LIMIT
                                                        : RT_BY_ERROR,
                           stream_fault(code));
}

/* ---- sockets ------------------------------------------------------------ */

static void proxy_input(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n);
static void secure_input(rt_loop *loop, rt__conn *c, const uint8_t *p,
                         size_t n);

void rt__conn_input(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n)
{
    if (c->state == RT__PROXIED)
        proxy_input(loop, c, p, n);
    else if (RT__TLS && c->state == RT__SECURING)
        secure_input(loop, c, p, n);
    else if (c->state == RT__SHAKING)
        rt__shake_input(loop, c, p, n);
    else if (c->state != RT__FAREWELL && !stream_wants(c))
        return; /* nobody wants it */
    else if (c->wire >= RT__STREAM)
        stream_input(loop, c, p, n);
    else
        rt__ws_input(loop, c, p, n);
}

/* The peer's half is shut.  What we still owe it, it can read.  A stream that
   ends between two messages ends cleanly (1005); WebSocket ends with a close,
   so here it was 1006 (RFC 6455, 7.1.5).  So is an end that TLS did not
   announce: anybody on the way can make one.  HOLD_END asks for no more reads:
   a shut half stays readable for ever. */
static void conn_eof(rt_loop *loop, rt__conn *c)
{
    int stream = c->wire >= RT__STREAM;
    int clean =
        stream && (!rt__tls_of(c) || rt__tls_ended(c)) &&
        !(c->in && (c->in->head_len || c->in->message || c->in->in_frame));
    rt__session *s = c->session;
    if (s && rt__session_lost(loop, c))
        s = NULL;
    if (c->out && c->state != RT__DRAINING &&
        (stream || c->state == RT__SHAKING || c->state == RT__FINISHING)) {
        rt__conn_finish_soon(loop, c);
        c->hold = RT__HOLD_END;
        rt__conn_interest(loop, c);
    } else {
        rt__tls_bye(loop, c);
        rt__conn_kill(loop, c);
    }
    if (s)
        rt__session_end(loop, s, clean ? 1005 : 1006, RT_BY_PEER, "");
}

/* The end that TLS announced is as the peer's FIN, behind all that came before
   it, also what is kept. */
static void secure_ended(rt_loop *loop, rt__conn *c)
{
    if (rt__tls_ended(c) && c->state < RT__DRAINING && !c->hold &&
        !(c->in && c->in->kept))
        conn_eof(loop, c);
}

/* Goes on with bytes that were kept while nothing was to be read. */
static void kept_replay(rt_loop *loop, rt__conn *c)
{
    rt__in *in;
    size_t n;
    if (c->session && !c->hold)
        rt__session_late(loop, c->session);
    in = c->in;
    if (!in || !in->kept || c->hold)
        return;
    /* What is not taken this time, rt__in_keep puts back in place. */
    n = in->kept_len;
    in->kept_len = 0;
    rt__conn_input(loop, c, in->kept + in->kept_off, n);
    if (c->in != in || in->kept_len)
        return;
    rt__free(loop, in->kept, in->kept_cap);
    in->kept = NULL;
    in->kept_off = in->kept_cap = 0;
    rt__in_settle(loop, c);
}

static void conn_replay(rt_loop *loop, rt__conn *c)
{
    kept_replay(loop, c);
    secure_ended(loop, c);
}

/* Also interrupted: what is ready is told again by the next wait. */
static int would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* While the host thinks about a request nothing is read, but one who hangs up
   is not thought about any longer. */
static void conn_peek(rt_loop *loop, rt__conn *c)
{
    char byte;
    ssize_t n = recv(c->source.fd, &byte, 1, MSG_PEEK);
    if (n < 0 && would_block())
        return;
    if (n <= 0) {
        rt__conn_kill(loop, c);
        return;
    }
    /* Bytes that stay in the socket would wake a level-triggered wait again and
       again. */
    c->hold |= RT__HOLD_HTTP; /* it has more to say: that can wait */
    rt__conn_interest(loop, c);
}

/* To the end of the inbox: it is opened to its begin.  What comes after our
   last word is not opened any more. */
static ssize_t secure_receive(rt_loop *loop, rt__conn *c)
{
    uint8_t *to = rt__buf_data(loop->inbox) + RT__CIPHER_AT;
    size_t room = RT__RECEIVE - RT__CIPHER_AT;
    ssize_t n = recv(c->source.fd, to, room, 0);
    if (n > (ssize_t)room)
        return RT__RECEIVE + 1;
    if (n <= 0)
        return n;
    conn_heard(loop, c);
    loop->stats.bytes_in += (uint64_t)n;
    if (c->state == RT__PROXIED)
        rt__conn_input(loop, c, to, (size_t)n);
    else if (c->state < RT__DRAINING && !rt__tls_muted(c))
        secure_input(loop, c, to, (size_t)n);
    return n;
}

/* The payload of a long frame is received where it stays, anything else to the
   inbox. */
static ssize_t conn_receive(rt_loop *loop, rt__conn *c)
{
    size_t room = RT__RECEIVE;
    uint8_t *own, *to;
    ssize_t n;
    if (rt__tls_on(c->ep))
        return secure_receive(loop, c);
    own = rt__ws_room(loop, c, &room);
    to = own ? own : rt__buf_data(loop->inbox);
    n = recv(c->source.fd, to, room, 0);
    if (n > (ssize_t)room)
        return RT__RECEIVE + 1;
    if (n > 0) {
        conn_heard(loop, c);
        loop->stats.bytes_in += (uint64_t)n;
    }
    if (own)
        rt__ws_filled(loop, c, room, n > 0 ? (size_t)n : 0);
    else if (n > 0)
        rt__conn_input(loop, c, to, (size_t)n);
    return n;
}

/* A long answer goes while it is in the cache, up to four portions of it: what
   one message can be.  (Who can resume is told in one piece what it missed, and
   what follows.) */
static void answer_early(rt_loop *loop, rt__conn *c)
{
    int i;
    for (i = 0; i < 4; i++) {
        if (!c->out || c->out->blocked || c->out->bytes < RT__EARLY ||
            !c->session || rt__keep_of(c->session))
            return;
        rt__conn_flush(loop, c);
    }
}

/* One recv for an event; the wait is level-triggered and tells of the rest in
   the next turn, after the others had theirs.  An event is a hint, the call is
   the truth: after a hang-up, too, it is read until 0 or an error. */
static void conn_readable(rt_loop *loop, rt__conn *c)
{
    ssize_t n;
    if (c->hold == RT__HOLD_HOST) {
        conn_peek(loop, c);
        return;
    }
    conn_replay(loop, c); /* what was read before comes first */
    if (c->hold) {
        conn_want(loop, c, 0);
        return;
    }
    if (c->state == RT__DEAD)
        return;
    n = conn_receive(loop, c);
    if (n < 0 && would_block())
        return;
    if (n < 0 || n > RT__RECEIVE) {
        rt__conn_lost(loop, c, 1006,
                      errno == ECONNRESET ? RT_BY_PEER : RT_BY_ERROR,
                      n < 0 ? strerror(errno) : "impossible read");
        return;
    }
    if (n == 0) {
        conn_eof(loop, c);
        return;
    }
    inbox_return(loop);
    answer_early(loop, c);
}

/* The line is there, and safe if it is to be.  A dialled session without a
   handshake of its own is open now. */
static void conn_begin(rt_loop *loop, rt__conn *c)
{
    if (c->wire < RT__STREAM) {
        c->state = RT__SHAKING;
        rt__conn_interest(loop, c);
        rt__shake_ask(loop, c);
        return;
    }
    if (c->typed) {
        rt__greet(loop, c);
        return;
    }
    rt__conn_opened(loop, c);
    rt__conn_interest(loop, c);
    if (c->session)
        rt__tell_open(loop, c->session);
}

static void secure_begin(rt_loop *loop, rt__conn *c);

static void conn_connected(rt_loop *loop, rt__conn *c)
{
    /* How connect ended is said once: reading SO_ERROR clears it. */
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(c->source.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error) {
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, strerror(error));
        return;
    }
    conn_deadline_in(loop, c, c->ep->handshake_ms);
    if (rt__tls_on(c->ep))
        secure_begin(loop, c);
    else
        conn_begin(loop, c);
}

static void conn_ready(rt_loop *loop, rt__conn *c, int events)
{
    uint64_t key = source_key(&c->source);
    if (c->state == RT__CONNECTING) {
        conn_connected(loop, c);
        return;
    }
    /* Only marked here: it is written with the others, at the end of the
       turn. */
    if (events & RT_WRITE && c->out && c->out->blocked) {
        c->pings = 0; /* it took something: a slow peer is a living one */
        c->out->blocked = 0;
        out_dirty(loop, c->out);
        if (c->state == RT__SHAKING && c->hold == RT__HOLD_HTTP)
            conn_deadline_in(loop, c, c->ep->handshake_ms);
    }
    if (events & RT_READ && source_of(loop, key))
        conn_readable(loop, c);
}

/* Looks at the connection in the next turn, which does not wait.  By its key,
   because it may be dead by then, and its number another's. */
void rt__conn_wake(rt_loop *loop, rt__conn *c)
{
    void *wakes = loop->wakes;
    if (loop->wake_count == loop->wake_cap) {
        if (rt__grow(loop, &wakes, &loop->wake_cap, sizeof *loop->wakes) < 0) {
            rt__conn_lost(loop, c, 1006, RT_BY_ERROR, rt_strerror(RT_ENOMEM));
            return;
        }
        loop->wakes = (uint64_t *)wakes;
    }
    loop->wakes[loop->wake_count++] = source_key(&c->source);
}

static void conn_woken(rt_loop *loop, rt__conn *c)
{
    if (c->state == RT__SHAKING)
        rt__shake_woken(loop, c);
    if (c->state != RT__DEAD)
        conn_replay(loop, c);
}

/* Only those that were woken before: what wakes now waits for the next. */
static void wakes_run(rt_loop *loop)
{
    size_t i, n = loop->wake_count;
    if (n == 0)
        return;
    for (i = 0; i < n; i++) {
        rt__source *s = source_of(loop, loop->wakes[i]);
        if (s && s->kind == RT__CONN_SOURCE)
            conn_woken(loop, (rt__conn *)s);
    }
    loop->wake_count -= n;
    memmove(loop->wakes, loop->wakes + n,
            loop->wake_count * sizeof *loop->wakes);
}

/* ---- deadlines ---------------------------------------------------------- */

/* The payload is the time, so the pong tells the round trip; never 0, which
   means that none went.  To a full socket none is queued, but it counts: who
   reads nothing for so long is as good as dead. */
static void conn_ping(rt_loop *loop, rt__conn *c)
{
    if (c->pings < UINT16_MAX)
        c->pings++;
    if (!(c->out && c->out->blocked)) {
        if (!c->asked) /* else it is said again, for a late answer fits, too */
            c->ping_us = (uint32_t)rt__micros(loop) | 1;
        c->asked = 1;
        rt__ws_control(loop, c, 9, &c->ping_us, sizeof c->ping_us);
    }
    conn_deadline_in(loop, c, c->ep->ping_ms);
}

/* Silence is counted in unanswered pings, not in time, so that a jump of the
   clock (a laptop's sleep) kills nobody who answers. */
static void conn_silence(rt_loop *loop, rt__conn *c)
{
    uint32_t silent = (uint32_t)loop->now - c->life;
    if (!pings(c))
        return;
    if (c->hold)
        conn_deadline_in(loop, c, c->ep->ping_ms);
    else if (c->ping_us && silent < c->ep->ping_ms)
        conn_deadline_in(loop, c, c->ep->ping_ms - silent);
    else if (c->pings < c->ep->dead_pings)
        conn_ping(loop, c);
    else
        rt__session_drop(loop, c->session, RT_CLOSE_DEAD, RT_BY_TIMEOUT,
                         "pings unanswered");
}

/* The message under way has taken too long?  While nothing is read its time
   stands still. */
static int assembly_over(rt_loop *loop, rt__conn *c)
{
    if (!c->in || !c->in->since)
        return 0;
    if (c->hold)
        c->in->since = loop->now;
    return loop->now - c->in->since >= c->ep->assembly_ms;
}

/* One timer serves all deadlines of an open connection: the nearest is set.
   Each step may end the connection, so the state is asked again. */
static void live_deadline(rt_loop *loop, rt__conn *c)
{
    if (c->typed && !c->confirmed) { /* the first `a` did not come */
        rt__session_drop(loop, c->session, 1013, RT_BY_TIMEOUT, "retry=0");
        return;
    }
    if (c->hold & RT__HOLD_RATE && rt__session_released(loop, c->session) < 0)
        return;
    if (assembly_over(loop, c)) {
        rt__conn_violation(loop, c, 1008, RT_BY_TIMEOUT,
                           "message took too long");
        return;
    }
    conn_silence(loop, c);
    if (c->state == RT__LIVE && c->typed)
        rt__typed_due(loop, c);
    if (c->state == RT__LIVE && c->in && c->in->since)
        rt__conn_due(loop, c, c->in->since + c->ep->assembly_ms);
    if (c->state == RT__LIVE && c->hold & RT__HOLD_RATE)
        rt__session_pause(loop, c->session); /* sets its end again */
}

/* The peer took its whole time and is gone with a reset: what the system still
   holds for it is given up, too.  A close alone would leave the kernel with the
   unsent bytes of a peer that holds its window at zero. */
static void conn_abort(rt_loop *loop, rt__conn *c)
{
    struct linger now;
    now.l_onoff = 1;
    now.l_linger = 0;
    setsockopt(c->source.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    rt__conn_kill(loop, c);
}

static void secure_deadline(rt_loop *loop, rt__conn *c)
{
    if (c->ep->dial) {
        rt__conn_lost(loop, c, 1006, RT_BY_TIMEOUT, "handshake timed out");
        return;
    }
    rt__refused(loop, RT__REFUSED_TLS);
    conn_abort(loop, c);
}

static void conn_deadline(rt_loop *loop, rt__conn *c)
{
    switch ((enum rt__conn_state)c->state) {
    case RT__RESOLVING:
    case RT__CONNECTING:
        rt__conn_lost(loop, c, 1006, RT_BY_TIMEOUT, "connect timed out");
        return;
    case RT__PROXIED:
        rt__refused(loop, RT__REFUSED_PROXY);
        conn_abort(loop, c);
        return;
    case RT__SECURING:
        secure_deadline(loop, c);
        return;
    case RT__SHAKING:
        rt__shake_deadline(loop, c);
        return;
    case RT__GREETING:
        rt__greeting_over(loop, c);
        return;
    case RT__LIVE:
        live_deadline(loop, c);
        return;
    case RT__FAREWELL:
    case RT__FINISHING:
    case RT__DRAINING:
        conn_abort(loop, c);
        return;
    case RT__DEAD:
        return;
    }
}

/* ---- refusing ----------------------------------------------------------- */

void rt__refused(rt_loop *loop, enum rt__refusal why)
{
    loop->stats.refused_by[why]++;
}

/* Without a rate, so many a second are content to be refused. */
enum { RETRY_RATE = 200 };

/* When one who is refused for load should come back; it is counted among those
   who will. */
uint32_t rt__retry_ms(rt_loop *loop, rt__ep *ep)
{
    uint32_t rate = ep->accept_rate ? ep->accept_rate : (uint32_t)RETRY_RATE;
    return rt__retry_draw(&ep->backlog, rate, loop->now, rt__random(loop));
}

/*
 * One who is refused at the door.  No connection is made of it: it is answered
 * at once where its request is there already, else it waits here, in its
 * listener's list, until the request has come.  There are at most
 * max_handshakes of them beside the handshakes, and none outlives the deadline
 * of a handshake, so that a flood of them can neither grow nor push others out.
 */
struct refusal {
    rt__source source; /* first: a source of that kind is cast to this */
    uint8_t seen;      /* of the empty line that ends a head */
    uint8_t bare;      /* a GET: nothing follows its head */
    uint8_t said;      /* it has its answer: what it says is thrown away */
    uint32_t heard;    /* bytes of its head */
    uint32_t retry_ms;
    rt__listener *listener;
    refusal *prev, *next;
    uint64_t due;
};

/* Writes what such a one is told; its size, 0: there is no way to tell it. */
static size_t refusal_text(const refusal *r, uint8_t out[256])
{
    const rt__ep *ep = r->listener->ep;
    char *text = (char *)out, reason[24];
    size_t n;
    snprintf(reason, sizeof reason, "retry=%lu", (unsigned long)r->retry_ms);
    /* Retry-After is in seconds, rounded up (RFC 9110, 10.2.3). */
    if (ep->wire == RT__WS_SERVER)
        return (size_t)snprintf(text, 256,
                                "HTTP/1.1 503 Service Unavailable\r\n"
                                "Retry-After: %lu\r\nContent-Length: 0\r\n"
                                "Connection: close\r\n\r\n",
                                ((unsigned long)r->retry_ms + 999) / 1000);
    if (ep->codec && ep->codec->bye)
        return ep->codec->bye(ep->codec->ctx, out, 1013, reason);
    n = (size_t)snprintf(text + 4, 252, "c1013 %s", reason);
    memset(out, 0, 4);
    out[3] = (uint8_t)n;
    return 4 + n;
}

/* Nobody waits for room in an empty socket: what does not fit is not said. */
static void refusal_say(rt_loop *loop, refusal *r)
{
    uint8_t text[256];
    size_t n = refusal_text(r, text);
    struct iovec v;
    ssize_t done = 0;
    v.iov_base = text;
    v.iov_len = n;
    r->said = 1;
    if (n > 0)
        done = send_some(r->source.fd, &v, 1, n);
    if (done > 0)
        loop->stats.bytes_out += (uint64_t)done;
}

/* Looks for the end of the head.  1: it is answered, and nothing else can come,
   so that closing resets nothing that is on its way. */
static int refusal_feed(rt_loop *loop, refusal *r, const uint8_t *p, size_t n)
{
    static const uint8_t end[4] = {'\r', '\n', '\r', '\n'};
    size_t i;
    if (r->said)
        return 0;
    if (r->heard == 0)
        r->bare = *p == 'G';
    for (i = 0; i < n && r->seen < 4; i++)
        r->seen = (uint8_t)(p[i] == end[r->seen] ? r->seen + 1 : p[i] == '\r');
    r->heard += (uint32_t)i;
    /* A head beyond all bounds is not waited for, and gets no answer. */
    if (r->seen < 4)
        return r->heard >= r->listener->ep->max_header;
    refusal_say(loop, r);
    if (r->bare && i == n)
        return 1;
    /* More may come, a body or what was pipelined: it is read and thrown away,
       else the close would reset our answer. */
    shutdown(r->source.fd, SHUT_WR);
    return 0;
}

/* Reads once; 1: it is over. */
static int refusal_read(rt_loop *loop, refusal *r)
{
    ssize_t n = recv(r->source.fd, rt__buf_data(loop->inbox), RT__RECEIVE, 0);
    if (n < 0 && would_block())
        return 0;
    if (n <= 0 || n > RT__RECEIVE)
        return 1;
    loop->stats.bytes_in += (uint64_t)n;
    return refusal_feed(loop, r, rt__buf_data(loop->inbox), (size_t)n);
}

/* What can be done at once, with the n bytes that were read before.  1: that
   was all. */
static int refusal_begin(rt_loop *loop, refusal *r, const uint8_t *p, size_t n)
{
    const rt__ep *ep = r->listener->ep;
    if (rt__tls_on(ep)) /* it is told nothing before it has shaken hands */
        return 1;
    if (ep->wire == RT__WS_SERVER)
        return n > 0 ? refusal_feed(loop, r, p, n) : refusal_read(loop, r);
    if (!ep->typed && !(ep->codec && ep->codec->bye))
        return 1;
    refusal_say(loop, r);
    shutdown(r->source.fd, SHUT_WR); /* its greeting may be under way */
    return 0;
}

static void listener_timer(rt_loop *loop, rt__listener *l)
{
    uint64_t due = l->rest_until;
    if (l->refused_first && (!due || l->refused_first->due < due))
        due = l->refused_first->due;
    if (due)
        rt__timer_set(loop, &l->timer, due);
    else
        rt__timer_clear(loop, &l->timer);
}

static void refusal_end(rt_loop *loop, refusal *r)
{
    rt__listener *l = r->listener;
    l->refused_count--;
    if (r->prev)
        r->prev->next = r->next;
    else
        l->refused_first = r->next;
    if (r->next)
        r->next->prev = r->prev;
    else
        l->refused_last = r->prev;
    source_remove(loop, &r->source);
    close(r->source.fd);
    rt__free(loop, r, sizeof *r);
}

/* By their deadlines: nearly always that is at the end. */
static void refusal_list(rt__listener *l, refusal *r)
{
    refusal *before = l->refused_last;
    while (before && before->due > r->due)
        before = before->prev;
    r->prev = before;
    r->next = before ? before->next : l->refused_first;
    if (r->prev)
        r->prev->next = r;
    else
        l->refused_first = r;
    if (r->next)
        r->next->prev = r;
    else
        l->refused_last = r;
    l->refused_count++;
}

/* It cannot wait for its request any longer.  It has its answer all the same,
   before it has asked: who is not told when to come back comes back too soon,
   and is one more in the count of those who will. */
static void refusal_hurry(rt_loop *loop, refusal *r)
{
    if (!r->said)
        refusal_say(loop, r);
    refusal_end(loop, r);
}

/* It has to wait for its request.  -1: it cannot.  The descriptor is the
   caller's then.  Where there are too many the oldest gives way. */
static int refusal_keep(rt_loop *loop, const refusal *like)
{
    rt__listener *l = like->listener;
    refusal *r;
    if (l->refused_first && l->refused_count >= l->ep->max_handshakes)
        refusal_hurry(loop, l->refused_first);
    r = (refusal *)rt__alloc(loop, sizeof *r);
    if (!r)
        return -1;
    *r = *like;
    if (source_add(loop, &r->source, like->source.fd, RT__REFUSED_SOURCE,
                   RT_READ) < 0) {
        rt__free(loop, r, sizeof *r);
        return -1;
    }
    refusal_list(l, r);
    if (rt__timer_due(loop, &l->timer) > r->due)
        rt__timer_set(loop, &l->timer, r->due);
    return 0;
}

/* By value: only one that has to wait is allocated, so that refusing for want
   of memory needs none. */
static refusal refusal_of(rt_loop *loop, rt__listener *l, int fd,
                          enum rt__refusal why)
{
    refusal r;
    memset(&r, 0, sizeof r);
    rt__refused(loop, why);
    r.source.fd = fd;
    r.listener = l;
    r.retry_ms = rt__retry_ms(loop, l->ep);
    return r;
}

/* Its descriptor is needed: it is told only if it has asked already. */
static void refuse_at_once(rt_loop *loop, rt__listener *l, int fd,
                           enum rt__refusal why)
{
    refusal r = refusal_of(loop, l, fd, why);
    refusal_begin(loop, &r, NULL, 0);
    close(fd);
}

/* Refuses the owner of that descriptor, who has until `due`; p: what it has
   said so far. */
static void refuse(rt_loop *loop, rt__listener *l, int fd, enum rt__refusal why,
                   uint64_t due, const uint8_t *p, size_t n)
{
    refusal r = refusal_of(loop, l, fd, why);
    r.due = due;
    if (refusal_begin(loop, &r, p, n) || refusal_keep(loop, &r) < 0)
        close(fd);
}

static void refusal_ready(rt_loop *loop, refusal *r)
{
    if (refusal_read(loop, r))
        refusal_end(loop, r);
}

/* ---- accepting ---------------------------------------------------------- */

/* A connection of which nobody was told is turned away after all.  Its
   descriptor outlives it, and so does its deadline: being refused wins no
   time. */
static void conn_refuse(rt_loop *loop, rt__conn *c, enum rt__refusal why,
                        const uint8_t *p, size_t n)
{
    rt__listener *l = c->ep->listener;
    uint64_t due = rt__timer_due(loop, &c->timer);
    int fd = c->source.fd;
    source_remove(loop, &c->source);
    c->source.fd = -1;
    rt__conn_kill(loop, c);
    if (l) {
        refuse(loop, l, fd, why, due, p, n);
        return;
    }
    rt__refused(loop, why);
    close(fd);
}

static void stream_accepted(rt_loop *loop, rt__conn *c)
{
    rt__session *s = rt__session_new(loop, c->ep, c, 0);
    if (!s) {
        conn_refuse(loop, c, RT__REFUSED_MEMORY, NULL, 0);
        return;
    }
    rt__shake_free(loop, c);
    s->conn = c;
    c->session = s;
    rt__conn_opened(loop, c);
    rt__tell_open(loop, s);
}

/* Why one of that address may not come in; RT__REFUSALS: it may. */
static enum rt__refusal entry_check(rt_loop *loop, const rt__ep *ep,
                                    const rt__addr *a)
{
    if (addr_final(ep, a) && addr_full(loop, ep, addr_key(loop, ep, a)))
        return RT__REFUSED_ADDRESS;
    /* Others become a session after a handshake, and are asked then. */
    if (ep->wire >= RT__STREAM && !ep->typed && rt__sessions_full(loop))
        return RT__REFUSED_SESSIONS;
    return RT__REFUSALS;
}

/* It may come in, and it is known who it is, unless the request says more. */
static void conn_enter(rt_loop *loop, rt__conn *c, const rt__addr *a)
{
    if (addr_final(c->ep, a))
        rt__conn_from(loop, c, a);
    if (rt__tls_on(c->ep)) {
        rt__shake_from(rt__shake_of(c), a);
        c->state = RT__SECURING;
        return;
    }
    if (c->wire >= RT__STREAM && !c->typed) {
        stream_accepted(loop, c);
        return;
    }
    rt__shake_from(rt__shake_of(c), a);
    c->state = c->typed ? RT__GREETING : RT__SHAKING;
}

/* The header is read, or wrong; n bytes follow it. */
static void proxy_whole(rt_loop *loop, rt__conn *c, const rt__addr *source,
                        uint8_t *p, size_t n)
{
    rt__addr a = source->family ? *source : *rt__shake_peer(rt__shake_of(c));
    enum rt__refusal why = entry_check(loop, c->ep, &a);
    if (why != RT__REFUSALS) {
        conn_refuse(loop, c, why, p, n);
        return;
    }
    conn_enter(loop, c, &a);
    if (n > 0)
        rt__conn_input(loop, c, p, n);
}

/* Keeps a part of the header; it has room, because less than the longest one
   has come. */
static int proxy_keep(rt_loop *loop, rt__conn *c, const uint8_t *p, size_t n)
{
    rt__in *in = rt__in_open(loop, c);
    uint8_t *to = in ? rt__in_room(loop, c, n, RT__PROXY_MOST) : NULL;
    if (!to)
        return RT_ENOMEM;
    memcpy(to, p, n);
    in->message = 1; /* so that it is not given back */
    return 0;
}

/* The header of a proxy, or a part of it. */
static void proxy_input(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n)
{
    size_t have = c->in ? c->in->data->len : 0;
    size_t some = n < RT__PROXY_MOST - have ? n : RT__PROXY_MOST - have;
    rt__addr source;
    ptrdiff_t used = 0;
    if (!have)
        used = rt__proxy_read(p, some, &source);
    if (used == 0 && proxy_keep(loop, c, p, some) < 0) {
        conn_refuse(loop, c, RT__REFUSED_MEMORY, p, n);
        return;
    }
    if (have)
        used = rt__proxy_read(rt__buf_data(c->in->data), have + some, &source);
    if (used == 0)
        return;
    if (used > 0 && have)
        rt__buf_release(loop, rt__in_take(loop, c));
    /* It ends in what has come now, for what was kept was too short. */
    if (used > 0) {
        used -= (ptrdiff_t)have;
        proxy_whole(loop, c, &source, p + used, n - (size_t)used);
        return;
    }
    rt__refused(loop, RT__REFUSED_PROXY);
    rt__conn_kill(loop, c);
}

/* Makes it a handshake in progress; the oldest gives way.  So a thousand that
   say nothing cannot keep out one that does. */
static int shake_begin(rt_loop *loop, rt__conn *c, const rt__addr *peer)
{
    if (c->ep->shake_count >= c->ep->max_handshakes)
        rt__shake_evict(loop, c->ep);
    if (!rt__shake_new(loop, c))
        return RT_ENOMEM;
    rt__shake_from(rt__shake_of(c), peer);
    return 0;
}

/* It is let in, unless memory or descriptors fail. */
static void conn_accepted(rt_loop *loop, rt__listener *l, int fd,
                          const rt__addr *peer, int proxied)
{
    rt__ep *ep = l->ep;
    uint64_t due = loop->now + ep->handshake_ms;
    rt__conn *c;
    errno = ENOMEM;
    c = conn_new(loop, rt__block_new(loop, ep), fd, RT_READ);
    if (!c) {
        refuse(loop, l, fd,
               errno == EMFILE ? RT__REFUSED_DESCRIPTORS : RT__REFUSED_MEMORY,
               due, NULL, 0);
        return;
    }
    loop->stats.accepted++;
    rt__timer_set(loop, &c->timer, due);
    if ((proxied || ep->wire < RT__STREAM || ep->typed || rt__tls_on(ep)) &&
        shake_begin(loop, c, peer) < 0) {
        conn_refuse(loop, c, RT__REFUSED_MEMORY, NULL, 0);
        return;
    }
    if (proxied)
        c->state = RT__PROXIED;
    else
        conn_enter(loop, c, peer);
}

/* Somebody is at the door.  Only those let in fill the bucket: a flood of
   refused ones leaves it to the others.  Behind a proxy the address is the
   proxy's until its header is read. */
static void arrival(rt_loop *loop, rt__listener *l, int fd, const address *from)
{
    rt__ep *ep = l->ep;
    enum rt__refusal why = RT__REFUSALS;
    rt__addr peer;
    int proxied;
    addr_of(from, &peer);
    proxied = ep->proxy_protocol && rt__trusted(ep, &peer);
    if (ep->accept_rate && rt__bucket_wait(&ep->arrivals, ep->accept_rate,
                                           ep->accept_burst, 1, loop->now) > 0)
        why = RT__REFUSED_RATE;
    else if (!proxied)
        why = entry_check(loop, ep, &peer);
    if (why != RT__REFUSALS) {
        refuse(loop, l, fd, why, loop->now + ep->handshake_ms, NULL, 0);
        return;
    }
    if (ep->accept_rate)
        rt__bucket_take(&ep->arrivals, ep->accept_rate, 1, loop->now);
    conn_accepted(loop, l, fd, &peer, proxied);
}

enum { REST_MS = 100 };

/* Out of descriptors: the oldest of those who wait to be refused, or else the
   spare one, is given up for the connection that waits, so that its peer learns
   of it; then the listener rests.  Linux says that none is left even where
   nobody waits.  Without the rest a level-triggered wait would spin: the one
   that cannot be accepted stays ready. */
static void listener_starved(rt_loop *loop, rt__listener *l)
{
    int fd, saved = errno, spare = !l->refused_first && loop->spare >= 0;
    address from;
    if (l->refused_first)
        refusal_hurry(loop, l->refused_first);
    else if (spare)
        close(loop->spare);
    fd = socket_accept(l->source.fd, &from);
    if (fd >= 0 && !spare) {
        arrival(loop, l, fd, &from);
        return;
    }
    if (fd >= 0)
        refuse_at_once(loop, l, fd, RT__REFUSED_DESCRIPTORS);
    if (spare)
        loop->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0 && would_block())
        return;
    rt__log(loop, RT_LOG_ERROR, "accept", strerror(saved));
    if (fd < 0)
        rt__refused(loop, RT__REFUSED_DESCRIPTORS);
    source_set(loop, &l->source, 0);
    l->rest_until = rt_now(loop) + REST_MS;
    listener_timer(loop, l);
}

static void listener_rested(rt_loop *loop, rt__listener *l)
{
    if (loop->spare < 0)
        loop->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    l->rest_until = 0;
    if (source_set(loop, &l->source, RT_READ) < 0)
        l->rest_until = rt_now(loop) + REST_MS;
}

/* Its rest is over, or the time of those that it refused. */
static void listener_due(rt_loop *loop, rt__listener *l)
{
    if (l->rest_until && l->rest_until <= loop->now)
        listener_rested(loop, l);
    while (l->refused_first && l->refused_first->due <= loop->now)
        refusal_end(loop, l->refused_first);
    listener_timer(loop, l);
}

/* 1: try again; 0: not now. */
static int accept_failed(rt_loop *loop, rt__listener *l)
{
    switch (errno) {
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return 0;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        listener_starved(loop, l);
        return 0;
    /* EINTR, ECONNABORTED, EPROTO, and errors of the network that Linux hands
       on from the new socket (accept(2)); RT__ACCEPTS bounds the tries. */
    default: /* the client's fault, and that client is gone: the next */
        return 1;
    }
}

/* A bounded number for an event: a storm of newcomers takes turns with those
   who are in. */
static void listener_ready(rt_loop *loop, uint64_t id)
{
    int i;
    for (i = 0; i < RT__ACCEPTS; i++) {
        rt__listener *l = (rt__listener *)rt__slot_get(loop, id, RT__LISTENER);
        address from;
        int fd;
        if (!l) /* a callback stopped it */
            return;
        fd = socket_accept(l->source.fd, &from);
        if (fd >= 0)
            arrival(loop, l, fd, &from);
        else if (!accept_failed(loop, l))
            return;
    }
}

/* ---- dialling ----------------------------------------------------------- */

/* A dial has an endpoint of its own, whose options are those of a listener as
   far as they apply; the session holds it over all its tries, each of which is
   a new connection.  A name goes to the host's hook, never to the system: that
   would block. */

static int dial_connect(rt_loop *loop, rt__conn *c, const address *a)
{
    int fd = socket_open(a->storage.ss_family);
    if (fd < 0)
        return -1;
    if (a->storage.ss_family != AF_UNIX)
        fd_keepalive(fd, c->ep);
    /* A connect that is interrupted goes on by itself; one that is done at once
       is told by the same writable event. */
    if (connect(fd, (const struct sockaddr *)&a->storage, a->len) < 0 &&
        errno != EINPROGRESS && errno != EINTR) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    c->state = RT__CONNECTING;
    if (source_add(loop, &c->source, fd, RT__CONN_SOURCE, RT_WRITE) == 0)
        return 0;
    c->source.fd = -1;
    close(fd);
    return -1;
}

/* What is offered: rtnet.1 first, where the session is to resume.  Allocated as
   long as its text, which is what rt__strfree gives back. */
static char *dial_protocols(rt_loop *loop, const rt_dial_opts *o)
{
    const char *own = o->protocols ? o->protocols : "";
    size_t size = strlen(own) + sizeof "rtnet.1, ";
    char *all;
    if (o->resume <= 0)
        return rt__strdup(loop, own);
    all = (char *)rt__realloc(loop, NULL, 0, *own ? size : 8);
    if (all)
        snprintf(all, size, "rtnet.1%s%s", *own ? ", " : "", own);
    return all;
}

static rt__dial *dial_new(rt_loop *loop, const url *u, const char *where,
                          const rt_dial_opts *o)
{
    rt__dial *d = (rt__dial *)rt__alloc(loop, sizeof *d);
    char authority[300];
    const char *p = u->local ? "localhost" : strstr(where, "//") + 2;
    if (!d)
        return NULL;
    snprintf(authority, sizeof authority, "%.*s", (int)strcspn(p, "/?"), p);
    d->port = u->port;
    d->local = u->local;
    d->stream = u->stream;
    d->resume = o->resume > 0;
    d->connect_ms = limit(o->connect_ms, 5000);
    d->host = rt__strdup(loop, u->host);
    d->authority = rt__strdup(loop, authority);
    d->path = rt__strdup(loop, u->path);
    d->protocols = dial_protocols(loop, o);
    d->headers = rt__strdup(loop, o->headers ? o->headers : "");
    return d;
}

static rt__ep *dial_ep(rt_loop *loop, const url *u, const char *where,
                       const rt_dial_opts *o)
{
    rt_listen_opts like;
    rt__ep *ep;
    rt__dial *d;
    memset(&like, 0, sizeof like);
    like.on = o->on;
    like.user = o->user;
    like.max_message = o->max_message;
    like.max_fragments = o->max_fragments;
    like.max_header = o->max_header;
    like.handshake_ms = o->handshake_ms;
    like.assembly_ms = o->assembly_ms;
    like.ping_ms = o->ping_ms;
    like.dead_pings = o->dead_pings;
    like.close_ms = o->close_ms;
    like.soft_mark = o->soft_mark;
    like.hard_mark = o->hard_mark;
    like.framing = o->framing;
    like.codec = o->codec;
    ep = ep_new(loop, &like, u->stream ? RT__STREAM : RT__WS_CLIENT);
    if (!ep)
        return NULL;
    d = ep->dial = dial_new(loop, u, where, o);
    if (d && d->host && d->authority && d->path && d->protocols && d->headers)
        return ep;
    rt__ep_release(loop, ep);
    return NULL;
}

/* A connection for a dialled session, without a socket yet.  Its own block has
   room for one, unless the one before is not quite gone. */
static int dial_conn(rt_loop *loop, rt__session *s)
{
    rt__conn *own = rt__block_of(s), *c;
    c = conn_new(loop, own->used ? rt__block_new(loop, own->ep) : own, -1, 0);
    if (!c) {
        errno = ENOMEM;
        return -1;
    }
    s->conn = c;
    c->session = s;
    c->state = RT__RESOLVING;
    rt_now(loop);
    conn_deadline_in(loop, c, rt__ep_of(s)->dial->connect_ms);
    return 0;
}

/* Connects, or has the host look the name up; 0, or -1 with errno. */
static int dial_start(rt_loop *loop, rt__session *s, const url *u)
{
    address a;
    if (u->local ? address_local(u->path, &a) == 0
                 : *u->host && address_read(u->host, u->port, &a) == 0)
        return dial_connect(loop, s->conn, &a);
    if (u->local || !*u->host || !loop->opts.resolve) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    rt__session_todo(loop, s, RT__TODO_RESOLVE);
    return 0;
}

/* Who speaks rtnet.1 counts messages, also one that is not to come back. */
static int dial_first(rt_loop *loop, rt__session *s, const url *u)
{
    int counts = rt__ep_of(s)->dial->resume || rt__ep_of(s)->typed;
    if (counts && rt__keep_open(loop, s) < 0) {
        errno = ENOMEM;
        return -1;
    }
    return dial_conn(loop, s) < 0 ? -1 : dial_start(loop, s, u);
}

/* Another try for a session that lost its connection; -1: no socket. */
int rt__dial_again(rt_loop *loop, rt__session *s)
{
    const rt__dial *d = rt__ep_of(s)->dial;
    url u;
    memset(&u, 0, sizeof u);
    u.local = d->local;
    u.stream = d->stream;
    u.port = d->port;
    u.path = d->path;
    snprintf(u.host, sizeof u.host, "%s", d->host);
    if (dial_conn(loop, s) < 0)
        return -1;
    if (dial_start(loop, s, &u) == 0)
        return 0;
    s->conn->session = NULL;
    rt__conn_kill(loop, s->conn);
    s->conn = NULL;
    return -1;
}

static const char *dial_unfit(const rt_dial_opts *o, const url *u)
{
    const int numbers[] = {o->max_message,  o->max_fragments, o->max_header,
                           o->handshake_ms, o->assembly_ms,   o->ping_ms,
                           o->dead_pings,   o->close_ms,      o->soft_mark,
                           o->hard_mark,    o->connect_ms};
    if (framing_unfit(o->framing, o->codec, u))
        return framing_unfit(o->framing, o->codec, u);
    if (o->resume > 0 && (o->codec || (u->stream && o->framing != RT_RTNET1)))
        return "only rtnet.1 can resume";
    if (!u->local && !u->port)
        return "no port";
    if (!rt__token_list(o->protocols ? o->protocols : ""))
        return "bad list of sub-protocols";
    if (!rt__header_lines(o->headers ? o->headers : ""))
        return "bad header lines";
    if (o->tls && !u->tls)
        return "tls is for wss and tls";
    return rt__negative(numbers, sizeof numbers / sizeof *numbers)
               ? "a negative limit or time"
               : NULL;
}

/* What a dial does by TLS; -1: see rt_error. */
static int dial_secure(rt_loop *loop, rt__ep *ep, const char *what,
                       const rt_tls_opts *o)
{
    int of = ep->wire < RT__STREAM ? RT__TLS_HTTP : 0;
    if (ep->dial->resume)
        of |= RT__TLS_AGAIN;
    ep->tls = rt__tls_conf_new(loop, what, o, of, ep->dial->host, ep->user);
    return ep->tls ? 0 : -1;
}

rt_session rt_dial(rt_loop *loop, const char *where, const rt_dial_opts *opts)
{
    rt_dial_opts o;
    rt_session handle = {0};
    const char *unfit;
    char what[120];
    rt__session *s;
    rt__ep *ep;
    address a;
    url u;
    memset(&o, 0, sizeof o);
    if (opts)
        o = *opts;
    snprintf(what, sizeof what, "dial %s", where ? where : "(null)");
    if (loop->freeing || loop->draining)
        return rt__fail(loop, RT_ESTATE, what, NULL), handle;
    if (!where || url_read(where, &u) < 0 || !rt__visible(where))
        return rt__fail(loop, RT_EINVAL, what, "not an address"), handle;
    if (!u.local && !loop->opts.resolve &&
        (!*u.host || address_read(u.host, u.port, &a) < 0))
        return rt__fail(loop, RT_EINVAL, what,
                        "not a literal address, and no resolve hook"),
               handle;
    if ((unfit = dial_unfit(&o, &u)) != NULL)
        return rt__fail(loop, RT_EINVAL, what, unfit), handle;
    ep = dial_ep(loop, &u, where, &o);
    if (ep && u.tls && dial_secure(loop, ep, what, o.tls) < 0) {
        rt__ep_release(loop, ep);
        return handle;
    }
    s = ep ? rt__session_new(loop, ep, NULL, 0) : NULL;
    if (ep)
        rt__ep_release(loop, ep); /* the session holds it now */
    if (!s)
        return rt__fail(loop, RT_ENOMEM, what, NULL), handle;
    /* It says why at once, so no on_close follows: the session is forgotten. */
    if (dial_first(loop, s, &u) < 0) {
        fail_errno(loop, what);
        if (s->conn)
            rt__conn_kill(loop, s->conn);
        rt__session_forget(loop, s);
        return handle;
    }
    loop->stats.dialled++;
    handle.id = s->id;
    return handle;
}

int rt_resolved(rt_loop *loop, rt_session handle, const char *text)
{
    rt__session *s = (rt__session *)rt__slot_get(loop, handle.id, RT__SESSION);
    address a;
    if (!s && rt__slot_kind(loop, handle.id) == RT__SHAKE)
        return RT_ESTATE;
    if (!s || s->state == RT_CLOSING)
        return RT_EGONE;
    if (!s->conn || s->conn->state != RT__RESOLVING)
        return RT_ESTATE;
    if (!text) {
        rt__conn_lost(loop, s->conn, 1006, RT_BY_ERROR, "name not found");
        return 0;
    }
    if (!*text || address_read(text, rt__ep_of(s)->dial->port, &a) < 0)
        return RT_EINVAL;
    if (dial_connect(loop, s->conn, &a) < 0)
        rt__conn_lost(loop, s->conn, 1006, RT_BY_ERROR, strerror(errno));
    return 0;
}

/* ---- TLS ---------------------------------------------------------------- */

/* What tls.c does not know: the states.  TLS stands where a plain connection
   reads and writes its bytes, and its handshake before everything else.  Its
   context is made for the first bytes that come, since it is large: who only
   connects costs no more than elsewhere. */

/* The handshake is done: what begins on a plain line begins now. */
static void conn_secured(rt_loop *loop, rt__conn *c)
{
    if (c->ep->dial) {
        conn_begin(loop, c);
    } else if (c->wire < RT__STREAM || c->typed) {
        c->state = c->typed ? RT__GREETING : RT__SHAKING;
    } else if (rt__sessions_full(loop)) { /* since it was let in */
        rt__refused(loop, RT__REFUSED_SESSIONS);
        rt__conn_finish_soon(loop, c);
    } else {
        stream_accepted(loop, c);
    }
}

/* The peer learns why by an alert, which went or waits.  A server that is not
   whom it should be is not asked again. */
static void secure_failed(rt_loop *loop, rt__conn *c)
{
    rt__session *s = c->session;
    const rt__tls *t = rt__tls_of(c);
    if (!c->ep->dial) {
        rt__refused(loop, RT__REFUSED_TLS);
        rt__log(loop, RT_LOG_INFO, "TLS handshake failed", t->why);
    }
    if (s && t->distrusted)
        rt__keep_close(loop, s);
    if (s && rt__session_lost(loop, c))
        s = NULL;
    rt__conn_finish_soon(loop, c);
    if (s)
        rt__session_end(loop, s, 1006, RT_BY_ERROR, t->why);
}

/* One step of the handshake; 1: it is done, and the connection lives. */
static int secure_step(rt_loop *loop, rt__conn *c)
{
    int done = rt__tls_shake(loop, c);
    rest_await(loop, c);
    if (c->state != RT__SECURING)
        return 0;
    if (done < 0)
        secure_failed(loop, c);
    else if (done > 0)
        conn_secured(loop, c);
    return done > 0 && c->state != RT__DEAD;
}

/* Opens what came and hands it on; all of it, since what TLS holds makes no
   socket readable. */
static void secure_input(rt_loop *loop, rt__conn *c, const uint8_t *p, size_t n)
{
    uint8_t *to = rt__buf_data(loop->inbox);
    const rt__tls *t;
    ptrdiff_t got;
    if (!rt__tls_of(c) && rt__tls_open(loop, c) < 0) {
        rt__refused(loop, RT__REFUSED_MEMORY);
        rt__conn_kill(loop, c);
        return;
    }
    t = rt__tls_of(c);
    rt__tls_feed(c, p, n);
    if (c->state == RT__SECURING && !secure_step(loop, c))
        return;
    got = rt__tls_read(loop, c, to, RT__CIPHER_AT);
    rest_await(loop, c);
    if (got > 0 && c->state != RT__DEAD)
        rt__conn_input(loop, c, to, (size_t)got);
    if (c->state != RT__DEAD && c->state < RT__DRAINING && *t->why)
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, t->why);
    else
        secure_ended(loop, c);
}

/* A dial's socket is connected. */
static void secure_begin(rt_loop *loop, rt__conn *c)
{
    c->state = RT__SECURING;
    if (rt__tls_open(loop, c) < 0) {
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, rt_strerror(RT_ENOMEM));
        return;
    }
    rt__conn_interest(loop, c);
    if (c->state == RT__SECURING)
        secure_step(loop, c);
}

/* ---- shutting down ------------------------------------------------------ */

/* Listeners stop at once, sessions end one behind the other over the window, so
   that the servers they go to next meet a stream of them and not a wave.  What
   is still in a handshake at the end of the window ends there. */

enum { DRAIN_STEP_MS = 10, HINT_LEAST = 500, HINT_SPAN = 2000 };

/* When the peer may come again.  The sessions end one behind the other, so a
   hint of the same spread for all keeps them apart; a wider one for a longer
   window would only keep them away longer.  It is what spreads those that end
   together, where the window is short or over. */
void rt__drain_reason(rt_loop *loop, char out[32])
{
    snprintf(out, 32, "retry=%u",
             HINT_LEAST + (unsigned)(rt__random(loop) % HINT_SPAN));
}

/* Ends up to n sessions of that state (0: of any), one after the other through
   the slots; says how many of the n there were not. */
static uint64_t drain_some(rt_loop *loop, uint64_t n, int state, uint64_t *at)
{
    rt__session *s;
    char reason[32];
    while (n > 0 &&
           (s = (rt__session *)rt__slot_next(loop, at, RT__SESSION)) != NULL) {
        if (state && s->state != state)
            continue;
        rt__drain_reason(loop, reason);
        n -= rt__session_end(loop, s, 1012, RT_BY_LOOP, reason) == 0;
    }
    if (n > 0)
        *at = 0; /* from the start again */
    return n;
}

/* Ends the fewest sessions that leave at least DRAIN_STEP_MS to the next step,
   and sets that so that all are gone, evenly, by the end of the window. */
static void drain_pace(rt_loop *loop, uint64_t left)
{
    uint64_t count = loop->session_count;
    uint64_t n = (count * DRAIN_STEP_MS + left - 1) / left, more;
    /* The slots before the cursor may hold younger ones: a second round. */
    more = drain_some(loop, n, 0, &loop->drain_at);
    drain_some(loop, more, 0, &loop->drain_at);
    if (count > n)
        left = left * n / count;
    rt__timer_set(loop, &loop->drain, loop->now + left);
}

/* First those that are away, at once: it costs nobody a reconnect now. */
static void drain_step(rt_loop *loop)
{
    int first = loop->drain_asked;
    uint64_t at = 0;
    loop->drain_asked = 0;
    loop->drained_owed = 1;
    if (loop->drain_until <= loop->now) {
        drain_some(loop, UINT64_MAX, 0, &at);
        rt__shakes_end(loop);
    } else if (first) {
        drain_some(loop, UINT64_MAX, RT_AWAY, &at);
        rt__timer_set(loop, &loop->drain, loop->now);
    } else {
        drain_pace(loop, loop->drain_until - loop->now);
    }
}

/* Connections that say their farewell are waited for, too: who ends the loop
   in opts.drained cuts nobody short. */
static int drained(const rt_loop *loop)
{
    return loop->drained_owed && !loop->drain_asked &&
           loop->session_count == 0 && loop->conn_count == 0;
}

static void drained_tell(rt_loop *loop)
{
    if (!drained(loop))
        return;
    loop->drained_owed = 0;
    rt__timer_clear(loop, &loop->drain);
    rt__tell_drained(loop);
}

int rt_shutdown(rt_loop *loop, int window_ms)
{
    uint64_t at = 0;
    rt__listener *l;
    if (window_ms < 0)
        return RT_EINVAL;
    while ((l = (rt__listener *)rt__slot_next(loop, &at, RT__LISTENER)))
        listener_free(loop, l);
    loop->draining = loop->drain_asked = 1;
    loop->drain_until = rt_now(loop) + (uint64_t)window_ms;
    rt__timer_set(loop, &loop->drain, loop->now);
    return 0;
}

/* ---- requests of the host's own ----------------------------------------- */

/* Each is 19 lines in the metrics for ever: a host that put its peers' words
   into names would grow both without end. */
enum { ROUTES = 64 };

static rt__route *route_find(rt_loop *loop, const char *name, uint64_t hash)
{
    rt__node *n = rt__table_find(&loop->routes, hash);
    while (n && strcmp(((rt__route *)n)->name, name) != 0)
        n = rt__table_more(n);
    return (rt__route *)n;
}

static rt__route *route_new(rt_loop *loop, const char *name, uint64_t hash)
{
    rt__route *r = (rt__route *)rt__alloc(loop, sizeof *r);
    if (!r)
        return NULL;
    r->node.hash = hash;
    snprintf(r->name, sizeof r->name, "%s", name);
    if (rt__table_add(loop, &loop->routes, &r->node) < 0) {
        rt__free(loop, r, sizeof *r);
        return NULL;
    }
    if (loop->routes_last)
        loop->routes_last->next = r;
    else
        loop->routes_first = r;
    return loop->routes_last = r;
}

static void routes_free(rt_loop *loop)
{
    rt__route *r = loop->routes_first, *next;
    for (; r; r = next) {
        next = r->next;
        rt__free(loop, r, sizeof *r);
    }
    rt__table_free(loop, &loop->routes);
}

/* What a label's value can hold: text, in which only a line feed of the
   control characters has a way to be written. */
static int route_valid(const char *name)
{
    size_t i, n = name ? strlen(name) : 0;
    if (n == 0 || n >= sizeof((rt__route *)0)->name)
        return 0;
    for (i = 0; i < n; i++)
        if (((uint8_t)name[i] < ' ' && name[i] != '\n') || name[i] == 0x7f)
            return 0;
    return rt__utf8_valid(name, n);
}

int rt_observe(rt_loop *loop, const char *name, uint64_t microseconds)
{
    rt__route *r;
    uint64_t hash;
    if (!route_valid(name))
        return RT_EINVAL;
    hash = rt__hash(loop, name, strlen(name));
    r = route_find(loop, name, hash);
    if (!r && loop->routes.count >= ROUTES)
        return RT_EFULL;
    if (!r && !(r = route_new(loop, name, hash)))
        return RT_ENOMEM;
    histogram_add(&r->took, request_scale, microseconds);
    return 0;
}

/* ---- the turn ----------------------------------------------------------- */

/* The order of the phases is a promise.  Events that callbacks asked for come
   after all input; sessions that ended are told of after those; then all that
   was queued, the last words too, leaves in one write for each peer; and memory
   is freed last, when nobody further up the stack can hold it.  What a phase
   queues for itself waits for the next turn, which does not wait. */

static void timer_fire(rt_loop *loop, rt__timer *t)
{
    size_t conn = offsetof(rt__conn, timer);
    size_t listener = offsetof(rt__listener, timer);
    rt__timer_clear(loop, t);
    if (t->kind == RT__OF_APP)
        apptimer_fire(loop, (rt__apptimer *)t);
    else if (t->kind == RT__OF_CONN)
        conn_deadline(loop, (rt__conn *)((char *)t - conn));
    else if (t->kind == RT__OF_FLOW)
        rt__flow_due(loop, (rt__flow *)t); /* it stands first there */
    else if (t->kind == RT__OF_GROUP)
        rt__group_due(loop, t);
    else if (t->kind == RT__OF_LOOP)
        drain_step(loop);
    else if (t->kind == RT__OF_LISTENER)
        listener_due(loop, (rt__listener *)((char *)t - listener));
}

/* Those that were due when the phase began.  What is set in it is due now at
   the earliest, and seq marks it. */
static int timers_run(rt_loop *loop)
{
    uint32_t now = loop->timer_seq;
    int n = 0;
    while (loop->timer_count > 0) {
        uint64_t due = loop->timers[0].due;
        if (due > loop->now ||
            (due == loop->now && (int32_t)(loop->timer_seqs[0] - now) >= 0))
            break;
        timer_fire(loop, loop->timers[0].timer);
        n++;
    }
    return n;
}

static int work_queued(rt_loop *loop)
{
    return loop->wake_count > 0 || loop->dirty || loop->crowd_count > 0 ||
           loop->todo.first || loop->closing.first || loop->dead ||
           loop->notes_first || rt__groups_busy(loop) || drained(loop);
}

int rt_loop_timeout(rt_loop *loop)
{
    uint64_t now, wait;
    if (work_queued(loop))
        return 0;
    if (loop->timer_count == 0)
        return -1;
    now = rt_now(loop);
    if (loop->timers[0].due <= now)
        return 0;
    wait = loop->timers[0].due - now;
    return wait > INT32_MAX ? INT32_MAX : (int)wait;
}

static int wait_ms(rt_loop *loop, int timeout_ms)
{
    int next = rt_loop_timeout(loop);
    if (timeout_ms < 0 || (next >= 0 && next < timeout_ms))
        return next;
    return timeout_ms;
}

/* Looks for events for so many microseconds.  Each look takes a moment, so
   there are not more of them than that, also where the clock stands still. */
static int backend_spin(rt_loop *loop, uint64_t from, uint64_t spin)
{
    uint64_t looks;
    int n = 0;
    for (looks = 0; n == 0 && looks < spin; looks++) {
        n = loop->backend.wait(loop, 0);
        if (rt__micros(loop) - from >= spin)
            break;
    }
    return n;
}

/* Waits, after a bounded spin if the host wants one: for what comes in that
   time the thread is not put to sleep, from which waking up takes its time. */
static int backend_wait(rt_loop *loop, int ms)
{
    uint64_t spin = loop->opts.spin_us > 0 ? (uint64_t)loop->opts.spin_us : 0;
    uint64_t from, took;
    int n;
    if (ms == 0 || spin == 0)
        return loop->backend.wait(loop, ms);
    from = rt__micros(loop);
    if (ms > 0 && spin > (uint64_t)ms * 1000)
        spin = (uint64_t)ms * 1000;
    n = backend_spin(loop, from, spin);
    took = (rt__micros(loop) - from) / 1000;
    if (n != 0 || (ms > 0 && took >= (uint64_t)ms))
        return n;
    return loop->backend.wait(loop, ms < 0 ? -1 : ms - (int)took);
}

/* Posts stand before the sockets, wherever their event is in the batch. */
static void posts_ready(rt_loop *loop, int n)
{
    int i;
    for (i = 0; i < n; i++)
        if (source_of(loop, loop->ready[i].key) == &loop->wake)
            posts_run(loop);
}

static void source_ready(rt_loop *loop, const rt__ready *r)
{
    rt__source *s = source_of(loop, r->key);
    if (!s)
        return; /* closed earlier in this batch */
    if (s->kind == RT__CONN_SOURCE)
        conn_ready(loop, (rt__conn *)s, r->events);
    else if (s->kind == RT__LISTEN_SOURCE)
        listener_ready(loop, ((rt__listener *)s)->id);
    else if (s->kind == RT__WATCH_SOURCE)
        watch_ready(loop, ((watch *)s)->id, r->events);
    else if (s->kind == RT__REFUSED_SOURCE)
        refusal_ready(loop, (refusal *)s);
}

/* Those who play come before those who come and those who go: handshakes, who
   is refused, who was cut off (an event that was not asked for tells that). */
static int can_wait(rt_loop *loop, const rt__ready *r)
{
    rt__source *s = source_of(loop, r->key);
    if (!s || s->kind != RT__CONN_SOURCE)
        return s && s->kind == RT__REFUSED_SOURCE;
    return ((rt__conn *)s)->state < RT__LIVE || (r->events & ~(int)s->interest);
}

/* How many of RT__NEWCOMERS one stands for: a step of TLS' handshake takes a
   millisecond or so. */
static int newcomer_weight(rt_loop *loop, const rt__ready *r)
{
    enum { SECURING = 8 };
    rt__source *s = RT__TLS ? source_of(loop, r->key) : NULL;
    return s && s->kind == RT__CONN_SOURCE &&
                   ((rt__conn *)s)->state == RT__SECURING
               ? SECURING
               : 1;
}

/* In a storm there are thousands of those, and a turn that served them all
   would keep everybody's answers until its end.  Whoever has to wait is still
   ready in the next turn, and further in front. */
static void sources_ready(rt_loop *loop, int n)
{
    int i, later = 0, room = RT__NEWCOMERS;
    for (i = 0; i < n; i++) {
        if (i + 4 < n) /* of thousands, the next ones are in no cache */
            RT__PREFETCH(loop->by_fd[(uint32_t)loop->ready[i + 4].key]);
        if (can_wait(loop, &loop->ready[i]))
            loop->ready[later++] = loop->ready[i];
        else
            source_ready(loop, &loop->ready[i]);
    }
    for (i = 0; i < later && room > 0; i++) {
        room -= newcomer_weight(loop, &loop->ready[i]);
        source_ready(loop, &loop->ready[i]);
    }
}

static void turn_end(rt_loop *loop, uint64_t began)
{
    uint64_t took = rt__micros(loop) - began;
    rt__sessions_reap(loop);
    dead_free(loop);
    large_trim(loop);
    histogram_add(&loop->stats.turns, turn_scale, took);
    if (took > loop->stats.longest_turn_us)
        loop->stats.longest_turn_us = took;
    loop->in_turn = 0;
}

/* One reading of the clock serves all deadlines of a turn.  Also where the wait
   failed, what was ended and queued goes its way. */
static int turn(rt_loop *loop, int timeout_ms)
{
    int n = backend_wait(loop, wait_ms(loop, timeout_ms));
    uint64_t began = rt__micros(loop);
    loop->now = began / 1000;
    loop->in_turn = 1;
    if (n >= 0) {
        posts_ready(loop, n);
        sources_ready(loop, n);
        n += timers_run(loop);
        wakes_run(loop);
        rt__sessions_events(loop);
        rt__groups_events(loop);
        rt__notes_tell(loop);
        drained_tell(loop);
    }
    rt__sessions_close(loop);
    flush_all(loop);
    turn_end(loop, began);
    return n < 0 ? RT_ESYS : n;
}

int rt_poll(rt_loop *loop, int timeout_ms)
{
    if (loop->in_turn)
        return RT_ESTATE;
    return turn(loop, timeout_ms);
}

/* A stop that came before it ends it at once; the flag is cleared on
   leaving. */
int rt_run(rt_loop *loop)
{
    int n = 0;
    if (loop->in_turn)
        return RT_ESTATE;
    while (!__atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE) && n >= 0)
        n = turn(loop, -1);
    __atomic_store_n(&loop->stop, 0, __ATOMIC_RELEASE);
    return n < 0 ? n : 0;
}

int rt_loop_fd(rt_loop *loop)
{
    return loop->backend_fd >= 0 ? loop->backend_fd : RT_ESTATE;
}

void *rt_loop_user(rt_loop *loop)
{
    return loop->opts.user;
}

/* ---- the loop's life ---------------------------------------------------- */

static int pipe_open(int fd[2])
{
#if defined(RT__EPOLL)
    return pipe2(fd, O_NONBLOCK | O_CLOEXEC);
#else
    if (pipe(fd) < 0)
        return -1;
    fd[0] = fd_prepare(fd[0]); /* -1 where it had to close it */
    fd[1] = fd_prepare(fd[1]);
    return fd[0] < 0 || fd[1] < 0 ? -1 : 0;
#endif
}

static int loop_descriptors(rt_loop *loop)
{
    /* A backend that did not open is not closed. */
    if (loop->backend.open(loop) < 0) {
        loop->backend.close = NULL;
        return -1;
    }
    if (pipe_open(loop->pipe) < 0)
        return -1;
    /* Without a spare one it starts all the same: see listener_starved. */
    loop->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return source_add(loop, &loop->wake, loop->pipe[0], RT__WAKE, RT_READ);
}

/* A few from the start: growing by a quarter, a small heap would grow at nearly
   each of its first timers. */
static int timers_open(rt_loop *loop)
{
    enum { FIRST = 16 };
    loop->timers =
        (rt__due *)rt__realloc(loop, NULL, 0, FIRST * sizeof *loop->timers);
    if (!loop->timers)
        return RT_ENOMEM;
    loop->timer_cap = FIRST;
    loop->timer_seqs = (uint32_t *)rt__realloc(
        loop, NULL, 0, FIRST * sizeof *loop->timer_seqs);
    if (!loop->timer_seqs)
        return RT_ENOMEM;
    loop->seq_cap = FIRST;
    return rt__timer_adopt(loop, &loop->drain, RT__OF_LOOP);
}

static int loop_memory(rt_loop *loop)
{
    loop->inbox = rt__buf_new(loop, RT__RECEIVE + 1);
    if (loop->inbox)
        loop->inbox->arena = 1; /* nobody holds it longer than a recv */
    loop->ready =
        (rt__ready *)rt__realloc(loop, NULL, 0, RT__BATCH * sizeof(rt__ready));
    if (timers_open(loop) < 0)
        return -1;
    return loop->inbox && loop->ready ? 0 : -1;
}

/* Copes with a loop that was made only half.  Buffers are released before the
   pools that they go back to. */
static void loop_release(rt_loop *loop)
{
    rt_loop_opts opts = loop->opts;
    rt__buf_release(loop, loop->arena);
    rt__buf_release(loop, loop->cast);
    if (loop->wake.fd >= 0)
        source_remove(loop, &loop->wake);
    if (loop->pipe[0] >= 0)
        close(loop->pipe[0]);
    if (loop->pipe[1] >= 0)
        close(loop->pipe[1]);
    if (loop->spare >= 0)
        close(loop->spare);
    if (loop->backend.close)
        loop->backend.close(loop);
    rt__buf_release(loop, loop->inbox);
    pools_free(loop);
    rt__free(loop, loop->sketch, sizeof *loop->sketch);
    rt__table_free(loop, &loop->users);
    rt__table_free(loop, &loop->groups);
    rt__table_free(loop, &loop->tokens);
    routes_free(loop);
    rt__free(loop, loop->ready, RT__BATCH * sizeof(rt__ready));
    rt__free(loop, loop->wakes, loop->wake_cap * sizeof *loop->wakes);
    rt__free(loop, loop->crowds, loop->crowd_cap * sizeof *loop->crowds);
    slots_free(loop);
    rt__free(loop, loop->by_fd, loop->by_fd_cap * sizeof *loop->by_fd);
    rt__free(loop, loop->timers, loop->timer_cap * sizeof *loop->timers);
    rt__free(loop, loop->timer_seqs, loop->seq_cap * sizeof *loop->timer_seqs);
    opts.realloc(opts.user, loop, sizeof *loop, 0);
}

static void loop_defaults(rt_loop_opts *o)
{
    if (!o->realloc)
        o->realloc = libc_realloc;
    if (!o->random)
        o->random = os_random;
    o->max_groups = (int)limit(o->max_groups, 65536);
    o->defer_ms = (int)limit(o->defer_ms, 15000);
    o->max_sessions = (int)limit(o->max_sessions, INT32_MAX);
    o->groups_per_session = (int)limit(o->groups_per_session, 128);
    o->bind_max = (int)limit(o->bind_max, 1);
}

/* A loop with nothing in it yet but its options. */
static rt_loop *loop_empty(const rt_loop_opts *o)
{
    rt_loop *loop = (rt_loop *)o->realloc(o->user, NULL, 0, sizeof *loop);
    if (!loop)
        return NULL;
    memset(loop, 0, sizeof *loop);
    loop->opts = *o;
    loop->heap = sizeof *loop;
    loop->backend_fd = loop->pipe[0] = loop->pipe[1] = loop->spare = -1;
    loop->wake.fd = -1;
    return loop;
}

rt_loop *rt_loop_new(const rt_loop_opts *opts)
{
    rt_loop_opts o;
    rt__backend backend;
    rt_loop *loop;
    memset(&o, 0, sizeof o);
    if (opts)
        o = *opts;
    loop_defaults(&o);
    if (backend_choose(&backend, o.backend) < 0 || !(loop = loop_empty(&o)))
        return NULL;
    /* No loop without the system's randomness: tokens and hashes rest on it,
       and no weaker source takes its place. */
    if (o.random(o.user, loop->secret, sizeof loop->secret) < 0 ||
        loop_memory(loop) < 0) {
        loop_release(loop);
        return NULL;
    }
    words_read(loop->secret, sizeof loop->secret / sizeof *loop->secret);
    loop->backend = backend;
    if (loop_descriptors(loop) < 0) {
        loop_release(loop);
        return NULL;
    }
    rt_now(loop);
    return loop;
}

static void loop_end_sessions(rt_loop *loop)
{
    uint64_t at = 0;
    rt__session *s;
    while ((s = (rt__session *)rt__slot_next(loop, &at, RT__SESSION)) != NULL)
        rt__session_end(loop, s, 1001, RT_BY_LOOP, "");
    rt__sessions_events(loop);
    rt__groups_events(loop);
    rt__notes_tell(loop);
    rt__sessions_close(loop);
    flush_all(loop);
    rt__sessions_reap(loop);
    dead_free(loop);
    large_trim(loop);
}

static void loop_end_sources(rt_loop *loop)
{
    size_t fd;
    for (fd = 0; fd < loop->by_fd_cap; fd++) {
        rt__source *s = loop->by_fd[fd];
        rt_watch w;
        if (s && s->kind == RT__CONN_SOURCE)
            rt__conn_kill(loop, (rt__conn *)s);
        else if (s && s->kind == RT__LISTEN_SOURCE)
            listener_free(loop, (rt__listener *)s);
        else if (s && s->kind == RT__WATCH_SOURCE) {
            w.id = ((watch *)s)->id;
            rt_watch_stop(loop, w);
        }
    }
    dead_free(loop);
}

void rt_loop_free(rt_loop *loop)
{
    uint64_t at = 0;
    void *t;
    rt_watch w;
    if (!loop || loop->in_turn)
        return;
    rt_now(loop);
    /* As in a turn: an on_close can neither poll nor free, nor listen or
       dial. */
    loop->in_turn = loop->freeing = 1;
    do
        loop_end_sessions(loop);
    while (loop->session_count > 0); /* whatever an on_close did */
    loop_end_sources(loop);
    while ((t = rt__slot_next(loop, &at, RT__TIMER)) != NULL)
        apptimer_free(loop, (rt__apptimer *)t);
    for (at = 0; rt__slot_next(loop, &at, RT__WATCH);) {
        w.id = at; /* its descriptor was closed under it */
        rt_watch_stop(loop, w);
    }
    rt__groups_free(loop);
    loop_release(loop);
}

/* ---- metrics ------------------------------------------------------------ */

typedef struct {
    char *out;
    size_t cap, used, all; /* all: what would be used if it were long enough */
} page;

/* Whole pieces only: after the first that does not fit all are left out. */
static void page_add(page *p, const char *text)
{
    size_t n = strlen(text);
    if (p->used == p->all && p->used + n < p->cap) {
        memcpy(p->out + p->used, text, n + 1);
        p->used += n;
    }
    p->all += n;
}

static void page_head(page *p, const char *name, const char *type,
                      const char *help)
{
    char text[256];
    snprintf(text, sizeof text, "# HELP rtnet_%s %s\n# TYPE rtnet_%s %s\n",
             name, help, name, type);
    page_add(p, text);
}

static void page_value(page *p, const char *name, const char *type,
                       const char *help, uint64_t value)
{
    char text[384];
    snprintf(text, sizeof text,
             "# HELP rtnet_%s %s\n# TYPE rtnet_%s %s\nrtnet_%s %llu\n", name,
             help, name, type, name, (unsigned long long)value);
    page_add(p, text);
}

static void page_labelled(page *p, const char *name, const char *label,
                          const char *is, uint64_t value)
{
    char text[200];
    snprintf(text, sizeof text, "rtnet_%s{%s=\"%s\"} %llu\n", name, label, is,
             (unsigned long long)value);
    page_add(p, text);
}

static void page_closes(page *p, const rt__stats *s)
{
    char code[16];
    int i;
    page_head(p, "closes_total", "counter", "Sessions ended, by close code.");
    for (i = 0; i < 23; i++) {
        snprintf(code, sizeof code, "%d",
                 i < 16   ? 1000 + i
                 : i < 19 ? RT_CLOSE_SLOW + i - 16
                          : RT_CLOSE_REPLACED + i - 19);
        page_labelled(p, "closes_total", "code", code, s->closes[i]);
    }
    page_labelled(p, "closes_total", "code", "other", s->closes_app);
}

static void page_refusals(page *p, const rt__stats *s)
{
    static const char cause[RT__REFUSALS][12] = {
        "rate",   "address", "sessions",    "handshakes", "proxy", "request",
        "origin", "host",    "descriptors", "memory",     "tls"};
    static const char limit[3][9] = {"rate", "messages", "bytes"};
    int i;
    page_head(p, "refused_total", "counter",
              "Connections and requests turned away, by cause.");
    for (i = 0; i < RT__REFUSALS; i++)
        page_labelled(p, "refused_total", "cause", cause[i], s->refused_by[i]);
    page_head(p, "messages_limited_total", "counter",
              "Messages received and refused, by the limit they passed.");
    for (i = 0; i < 3; i++)
        page_labelled(p, "messages_limited_total", "limit", limit[i],
                      s->limited_by[i]);
}

static void number(char out[32], scale s, uint64_t value)
{
    uint64_t unit = s.micro ? 1000000 : 1;
    int n = snprintf(out, 32, "%llu", (unsigned long long)(value / unit));
    if (s.micro)
        snprintf(out + n, 32 - (size_t)n, ".%06llu",
                 (unsigned long long)(value % unit));
}

/* label: nothing, or one with its value, escaped. */
static void page_histogram(page *p, const char *name, const char *label,
                           const rt__histogram *h, scale s)
{
    const char *comma = *label ? "," : "";
    char text[384], value[32] = "+Inf";
    uint64_t count = 0;
    int i;
    for (i = 0; i <= RT__BUCKETS; i++) {
        count += h->count[i];
        if (i < RT__BUCKETS)
            number(value, s, (uint64_t)1 << (s.first + i));
        else
            snprintf(value, sizeof value, "+Inf");
        snprintf(text, sizeof text, "rtnet_%s_bucket{%s%sle=\"%s\"} %llu\n",
                 name, label, comma, value, (unsigned long long)count);
        page_add(p, text);
    }
    number(value, s, h->sum);
    snprintf(text, sizeof text,
             *label ? "rtnet_%s_sum{%s} %s\nrtnet_%s_count{%s} %llu\n"
                    : "rtnet_%s_sum%s %s\nrtnet_%s_count%s %llu\n",
             name, label, value, name, label, (unsigned long long)count);
    page_add(p, text);
}

/* As the format wants it between quotes. */
static void label_escape(char *out, const char *value)
{
    for (; *value; value++) {
        if (*value == '\\' || *value == '"' || *value == '\n')
            *out++ = '\\';
        *out++ = *value == '\n' ? 'n' : *value;
    }
    *out = 0;
}

static void page_routes(page *p, const rt__route *r)
{
    char value[2 * sizeof r->name], label[sizeof value + 16];
    if (r)
        page_head(p, "request_duration_seconds", "histogram",
                  "What the host reported of its requests, by route.");
    for (; r; r = r->next) {
        label_escape(value, r->name);
        snprintf(label, sizeof label, "route=\"%s\"", value);
        page_histogram(p, "request_duration_seconds", label, &r->took,
                       request_scale);
    }
}

static void page_histograms(page *p, const rt_loop *loop)
{
    page_head(p, "turn_seconds", "histogram",
              "Turns of the loop, without their waits.");
    page_histogram(p, "turn_seconds", "", &loop->stats.turns, turn_scale);
    page_head(p, "send_queue_bytes", "histogram",
              "Bytes that waited for one connection, at each write to one.");
    page_histogram(p, "send_queue_bytes", "", &loop->stats.queues, queue_scale);
    page_routes(p, loop->routes_first);
}

static void page_counters(page *p, const rt__stats *s)
{
    page_value(p, "accepted_total", "counter", "Connections accepted.",
               s->accepted);
    page_value(p, "dialled_total", "counter", "Connections dialled.",
               s->dialled);
    page_value(p, "messages_in_total", "counter", "Messages received.",
               s->messages_in);
    page_value(p, "messages_out_total", "counter", "Messages queued.",
               s->messages_out);
    page_value(p, "bytes_in_total", "counter", "Bytes received.", s->bytes_in);
    page_value(p, "bytes_out_total", "counter", "Bytes sent.", s->bytes_out);
    page_value(p, "resumed_total", "counter", "Sessions that came back.",
               s->resumed);
    page_value(p, "gaps_total", "counter",
               "Sessions that came back and had lost messages.", s->gaps);
    page_value(p, "groups_closed_total", "counter", "Groups ended.",
               s->groups_closed);
    page_value(p, "presence_lost_total", "counter",
               "Presence events not told for want of memory.",
               s->presence_lost);
    page_value(p, "posts_total", "counter", "Posts run.", s->posts);
}

static void page_objects(page *p, const rt_loop *loop)
{
    page_value(p, "connections", "gauge", "Connections now.", loop->conn_count);
    page_value(p, "sessions", "gauge", "Sessions now.", loop->session_count);
    page_value(p, "sessions_away", "gauge", "Sessions without a connection.",
               loop->away_count);
    page_value(p, "handshakes", "gauge", "Handshakes in progress.",
               loop->shake_count);
    page_value(p, "groups", "gauge", "Groups now.", loop->groups.count);
    page_value(p, "group_members", "gauge", "Memberships of groups now.",
               loop->seats);
    page_value(p, "listeners", "gauge", "Listeners now.",
               loop->in_use[RT__LISTENER]);
    page_value(p, "timers", "gauge",
               "Timers of the host now, and those of bind_ms.",
               loop->in_use[RT__TIMER]);
    page_value(p, "watches", "gauge", "Watches now.", loop->in_use[RT__WATCH]);
    page_value(p, "draining", "gauge", "1 once a shutdown has been asked for.",
               loop->draining);
}

static void page_memory(page *p, const rt_loop *loop)
{
    page_value(p, "heap_bytes", "gauge", "Heap in use by the loop.",
               loop->heap);
    page_value(p, "history_messages", "gauge",
               "Messages that groups remember now.", loop->history_count);
    page_value(p, "history_bytes", "gauge", "Payload of these messages.",
               loop->history_bytes);
    page_value(p, "replay_bytes", "gauge",
               "Payload kept to be sent again to sessions that come back.",
               loop->replay_bytes);
}

static void page_longest(page *p, uint64_t us)
{
    char text[192], value[32];
    number(value, turn_scale, us);
    page_head(p, "longest_turn_seconds", "gauge",
              "Longest turn so far, without its wait.");
    snprintf(text, sizeof text, "rtnet_longest_turn_seconds %s\n", value);
    page_add(p, text);
}

/* How long the host's lines are; an answer beyond all reason (a negative one
   of its snprintf) counts as nothing. */
static size_t host_length(const rt_loop *loop, char *out, size_t cap)
{
    size_t n = loop->opts.metrics(loop->opts.user, out, cap);
    return n > SIZE_MAX / 2 ? 0 : n;
}

/* The host's lines come last.  They are not trusted: what stands behind its
   last line feed, behind a NUL or the length it told is left out. */
static void page_host(page *p, const rt_loop *loop)
{
    char *to = p->out + p->used;
    size_t room = p->cap - p->used, n, wrote;
    if (!loop->opts.metrics || p->used != p->all)
        return;
    memset(to, 0, room);
    n = host_length(loop, to, room);
    to[room - 1] = 0;
    wrote = strlen(to);
    if (wrote > n)
        wrote = n;
    while (wrote > 0 && to[wrote - 1] != '\n')
        wrote--;
    to[wrote] = 0;
    p->used += wrote;
}

size_t rt_metrics(rt_loop *loop, char *out, size_t cap)
{
    page p;
    p.out = out;
    p.cap = cap;
    p.used = p.all = 0;
    if (cap > 0)
        out[0] = 0;
    page_objects(&p, loop);
    page_memory(&p, loop);
    page_counters(&p, &loop->stats);
    page_refusals(&p, &loop->stats);
    page_closes(&p, &loop->stats);
    page_longest(&p, loop->stats.longest_turn_us);
    page_histograms(&p, loop);
    if (cap > 0)
        page_host(&p, loop);
    else if (loop->opts.metrics)
        p.all += host_length(loop, NULL, 0);
    return cap == 0 ? p.all + 1 : p.used;
}
