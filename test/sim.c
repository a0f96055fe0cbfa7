/*
 * The simulated kernel of sim.h.  First the choices, then the objects (byte
 * queues, addresses, streams, sets of interests), time, and last, in one
 * section, the calls as the library makes them.  What Linux does was taken from
 * tcp(7), epoll(7) and tcp_poll() as they are documented; where it has a choice
 * the stream of choices decides.
 *
 * The world is a static: the calls that are served have no room for an
 * argument that would lead to it.
 *
 * Link line, with the names of sim.wrap:
 *   cc ... -U_FORTIFY_SOURCE $(sed 's/^/-Wl,--wrap=/' test/sim.wrap)
 */
#define _GNU_SOURCE
#include "sim.h"
#include "kqueue/sys/event.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_FD = 3, MOST_FDS = 4096, BACKLOG = 64, NODES = 16 };
enum { PIPE_SIZE = 65536, VOID_ROOM = 65536, HOLES = 8, BATCH = 1024 };

enum { SESSIONS = 1024 };

#define NEVER UINT64_MAX
#define NS_PER_MS UINT64_C(1000000)

enum kind {
    SOCKET,
    LISTENER,
    STREAM,
    PIPE_IN,
    PIPE_OUT,
    EPOLL,
    KQUEUE,
    DEV_NULL
};
static const char *const kind_names[] = {"socket",   "listener", "stream",
                                         "pipe end", "pipe end", "epoll",
                                         "kqueue",   "/dev/null"};

/* Bytes under way: a vector whose head moves. */
struct bytes {
    uint8_t *at;
    size_t head, len, cap;
};

/* One of an epoll set, or a knote, with the filter it is of. */
struct interest {
    struct sim_peer *target;
    uint32_t events;
    epoll_data_t data;
    int filter, disabled;
};

/* What a wait has found of one of them. */
struct found {
    const struct interest *of;
    uint32_t events;
};

/*
 * Everything that can have a descriptor, and the scripted ends, which have
 * none (fd < 0).  A stream's bytes lie with the one who will read them.
 */
struct sim_peer {
    enum kind kind;
    int fd;
    struct sim_peer *next; /* all that there is */
    /* sockets */
    int family;
    struct sockaddr_storage local, remote;
    socklen_t local_len, remote_len;
    int reuse_port, v6_only, linger_rst;
    /* listeners */
    struct sim_peer *queue[BACKLOG];
    int queued, backlog, listening;
    /* streams and pipes */
    struct sim_peer *other; /* NULL: the other end was closed */
    struct bytes in;
    size_t window;
    int connecting;
    uint64_t answer_ns; /* when the answer to the connect comes */
    int fin;            /* the other end sends no more */
    int shut;           /* this end sends no more */
    int deaf;           /* this end reads no more */
    int dead;           /* reset, or never connected */
    int error;          /* what SO_ERROR says */
    /* epoll, kqueue */
    struct interest *set;
    size_t watched, set_cap, turn;
    int cloexec;
};
typedef struct sim_peer object;

struct event {
    uint64_t at_ns;
    void (*fn)(void *);
    void *arg;
};

static struct world {
    int on;
    sim_opts opts;
    uint64_t choices, entropy; /* states of the two generators */
    uint64_t now_ns;           /* since the start of the world */
    int64_t mono_skew_ms, wall_skew_ms;
    object *all;
    object *fds[MOST_FDS];
    int fds_end;          /* none was ever open from here on */
    struct event *agenda; /* sorted, the next one last */
    size_t events, agenda_cap;
    struct sockaddr_un nodes[NODES]; /* socket files */
    int node_count;
    int holes[HOLES], hole_count; /* ports that do not answer */
    int next_port;
    uint64_t progress, progress_seen;
    int idle; /* waits since then */
    int held; /* what broke is not told now */
    uint64_t calls[SIM_CALL_COUNT], fail_at[SIM_CALL_COUNT];
    int fail_error[SIM_CALL_COUNT], fail_ever[SIM_CALL_COUNT];
    uint32_t events_mask;
    int last_fd, failed_fd; /* of the call under way, and of what it did */
    uint64_t short_at[SIM_CALL_COUNT];
    size_t short_bytes[SIM_CALL_COUNT];
    uint64_t allocations, no_memory_at; /* 0: there is memory */
    int no_memory_since;                /* and for those after it, too */
    size_t heap, heap_peak;
    int faults, step, fault_step;
    char fault[256];
    uint64_t digest, each[SESSIONS]; /* of upcalls */
    uint64_t upcalls, acts, kevent_waits;
} sim;

/* ---- the real system ---------------------------------------------------- */

int __real_accept4(int, struct sockaddr *, socklen_t *, int);
int __real_bind(int, const struct sockaddr *, socklen_t);
int __real_clock_gettime(clockid_t, struct timespec *);
int __real_close(int);
int __real_connect(int, const struct sockaddr *, socklen_t);
int __real_epoll_create1(int);
int __real_epoll_ctl(int, int, int, struct epoll_event *);
int __real_epoll_wait(int, struct epoll_event *, int, int);
int __real_fcntl(int, int, ...);
int __real_getpeername(int, struct sockaddr *, socklen_t *);
ssize_t __real_getrandom(void *, size_t, unsigned);
int __real_getsockname(int, struct sockaddr *, socklen_t *);
int __real_getsockopt(int, int, int, void *, socklen_t *);
int __real_listen(int, int);
int __real_lstat(const char *, struct stat *);
int __real_open(const char *, int, ...);
int __real_pipe2(int[2], int);
ssize_t __real_read(int, void *, size_t);
ssize_t __real_recv(int, void *, size_t, int);
int __real_select(int, fd_set *, fd_set *, fd_set *, struct timeval *);
ssize_t __real_send(int, const void *, size_t, int);
ssize_t __real_sendmsg(int, const struct msghdr *, int);
int __real_setsockopt(int, int, int, const void *, socklen_t);
int __real_shutdown(int, int);
int __real_socket(int, int, int);
int __real_stat(const char *, struct stat *);
int __real_unlink(const char *);
ssize_t __real_write(int, const void *, size_t);

/* ---- faults and the trace ----------------------------------------------- */

void sim_note(const char *format, ...)
{
    va_list list;

    if (!sim.opts.trace)
        return;
    fprintf(stderr, "%9.3f  ", (double)sim.now_ns / 1e9);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
}

void sim_fault(const char *format, ...)
{
    char text[sizeof sim.fault];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (!sim.faults++) {
        memcpy(sim.fault, text, sizeof text);
        sim.fault_step = sim.step;
    }
    sim_note("FAULT %s", text);
}

int sim_faults(void)
{
    return sim.faults;
}

const char *sim_fault_text(void)
{
    return sim.fault;
}

void sim_step(int ms)
{
    sim_note("---- step %d, %d ms", ++sim.step, ms);
    if (sim_chance(sim.opts.wall))
        sim_wall_jump((int64_t)sim_choose(86400000) - 43200000);
}

int sim_over(void)
{
    return sim.faults || (sim.opts.until && sim.step >= sim.opts.until);
}

static uint64_t mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return sum ^ sum >> 29;
}

void sim_upcall(uint32_t who, int what, uint64_t value)
{
    uint64_t *one = &sim.each[who % SESSIONS];

    sim.upcalls++;
    *one = mix(mix(*one, (uint64_t)what), value);
    sim.digest = mix(mix(sim.digest, who), *one);
}

/* A call of the library that the simulation cannot serve. */
static int unserved(const char *what, int value, int error)
{
    sim_fault("not simulated: %s %d", what, value);
    errno = error;
    return -1;
}

static int fails(int error)
{
    errno = error;
    return -1;
}

/* ---- choices ------------------------------------------------------------ */

/* splitmix64, public domain, by Sebastiano Vigna. */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The next number of the bytes that were given, of so many of them. */
static uint32_t given(size_t bytes)
{
    uint32_t x = 0;

    for (; bytes > 0 && sim.opts.choices_len > 0; bytes--) {
        x = x << 8 | *sim.opts.choices++;
        sim.opts.choices_len--;
    }
    return x;
}

size_t sim_choices_left(void)
{
    return sim.opts.choices_len;
}

/* Here and in sim_chance, and nowhere else, choices are made. */
uint32_t sim_choose(uint32_t n)
{
    if (!n)
        return 0;
    if (sim.opts.choices)
        return given(n <= 256 ? 1 : n <= 65536 ? 2 : 4) % n;
    return (uint32_t)((draw(&sim.choices) >> 32) * n >> 32);
}

/* Of bytes the greatest are true and 0 never is, as when they are used up. */
int sim_chance(int permille)
{
    int byte, least = 256 - (permille * 256 + 999) / 1000;

    if (permille > 0 && sim.opts.choices) {
        byte = (int)given(1);
        return byte > 0 && byte >= least;
    }
    return permille > 0 && sim_choose(1000) < (uint32_t)permille;
}

/* How many of n bytes a call moves that is to be short. */
static size_t shortened(size_t n, size_t bytes)
{
    if (bytes == SIM_TOO_MANY || n < 2)
        return n;
    if (bytes == SIM_BUT_ONE)
        return n - 1;
    if (bytes == SIM_HALF)
        return n / 2;
    return n < bytes ? n : bytes;
}

/* How many of n bytes a call moves. */
static size_t shorten(enum sim_call call, size_t n)
{
    if (sim.short_at[call] == sim.calls[call]) {
        sim.failed_fd = sim.last_fd;
        return shortened(n, sim.short_bytes[call]);
    }
    if (n < 2 || !sim_chance(sim.opts.shorts))
        return n;
    return 1 + sim_choose((uint32_t)(n - 1));
}

static int interruptible(enum sim_call call)
{
    switch ((int)call) {
    case SIM_accept4:
    case SIM_close:
    case SIM_connect:
    case SIM_epoll_wait:
    case SIM_getrandom:
    case SIM_kevent:
    case SIM_open:
    case SIM_read:
    case SIM_recv:
    case SIM_select:
    case SIM_send:
    case SIM_sendmsg:
    case SIM_write:
        return 1;
    }
    return 0;
}

/* Each served call begins here; true when it has to fail, errno says how. */
static int refused(enum sim_call call)
{
    sim.calls[call]++;
    if (sim.fail_error[call] && sim.calls[call] >= sim.fail_at[call]) {
        errno = sim.fail_error[call];
        sim.failed_fd = sim.last_fd;
        if (!sim.fail_ever[call])
            sim.fail_error[call] = 0;
        return 1;
    }
    if (interruptible(call) && sim_chance(sim.opts.eintr)) {
        errno = EINTR;
        return 1;
    }
    return 0;
}

void sim_fail(enum sim_call call, int nth, int error)
{
    sim.fail_at[call] = sim.calls[call] + (uint64_t)nth;
    sim.fail_error[call] = error;
    sim.fail_ever[call] = 0;
}

void sim_fail_ever(enum sim_call call, int nth, int error)
{
    sim_fail(call, nth, error);
    sim.fail_ever[call] = 1;
}

void sim_events(uint32_t mask)
{
    sim.events_mask = mask;
}

int sim_failed_fd(void)
{
    return sim.failed_fd;
}

/* What a call says that moved n bytes of those it was asked for. */
static ssize_t said(enum sim_call call, ssize_t n, size_t asked)
{
    if (sim.short_at[call] != sim.calls[call] ||
        sim.short_bytes[call] != SIM_TOO_MANY || n <= 0)
        return n;
    return (ssize_t)asked + 1;
}

void sim_short(enum sim_call call, int nth, size_t bytes)
{
    sim.short_at[call] = nth ? sim.calls[call] + (uint64_t)nth : 0;
    sim.short_bytes[call] = bytes ? bytes : 1;
}

uint64_t sim_calls(enum sim_call call)
{
    return sim.calls[call];
}

void sim_max_fds(int max)
{
    sim.opts.max_fds = max < MOST_FDS ? max : MOST_FDS;
}

/* ---- the library's memory ----------------------------------------------- */

/* Stands before each block; as wide as the strictest alignment. */
enum { BLOCK_HEAD = 16 };

static size_t block_size(const void *p)
{
    size_t size = 0;

    if (p)
        memcpy(&size, (const char *)p - BLOCK_HEAD, sizeof size);
    return size;
}

/* Is this the allocation that has to fail? */
static int memory_fails(void)
{
    sim.allocations++;
    if (!sim.no_memory_at || sim.allocations < sim.no_memory_at)
        return 0;
    return sim.no_memory_since || sim.allocations == sim.no_memory_at;
}

void sim_fail_memory(int nth, int for_ever)
{
    sim.no_memory_at = nth ? sim.allocations + (uint64_t)nth : 0;
    sim.no_memory_since = for_ever;
}

uint64_t sim_allocations(void)
{
    return sim.allocations;
}

void *sim_realloc(void *user, void *p, size_t old, size_t now)
{
    char *q = NULL;

    (void)user;
    if (block_size(p) != old)
        sim_fault("realloc of %zu bytes, which are %zu", old, block_size(p));
    if (now && !(now > old && memory_fails()))
        q = malloc(now + BLOCK_HEAD);
    if (now && !q)
        return NULL;
    if (q) {
        memcpy(q, &now, sizeof now);
        q += BLOCK_HEAD;
        memset(q, 0xa5, now);
        if (p)
            memcpy(q, p, old < now ? old : now);
    }
    free(p ? (char *)p - BLOCK_HEAD : NULL);
    sim.heap += now - old;
    if (sim.heap > sim.heap_peak)
        sim.heap_peak = sim.heap;
    return q;
}

size_t sim_heap(void)
{
    return sim.heap;
}

size_t sim_heap_peak(void)
{
    return sim.heap_peak;
}

/* ---- queues of bytes ---------------------------------------------------- */

/* Memory of the simulation itself; without it there is no test. */
static void *more(void *p, size_t size)
{
    void *q = realloc(p, size);

    if (!q) {
        fputs("sim: out of memory\n", stderr);
        exit(2);
    }
    return q;
}

static void bytes_push(struct bytes *b, const void *data, size_t n)
{
    if (!n)
        return;
    if (b->head && b->head + b->len + n > b->cap) {
        memmove(b->at, b->at + b->head, b->len);
        b->head = 0;
    }
    if (b->len + n > b->cap) {
        b->cap = 2 * (b->len + n);
        b->at = more(b->at, b->cap);
    }
    memcpy(b->at + b->head + b->len, data, n);
    b->len += n;
}

static size_t bytes_take(struct bytes *b, void *out, size_t n)
{
    if (n > b->len)
        n = b->len;
    if (!n)
        return 0;
    memcpy(out, b->at + b->head, n);
    b->head += n;
    b->len -= n;
    return n;
}

/* ---- objects and descriptors -------------------------------------------- */

static object *object_new(enum kind kind)
{
    object *o = more(NULL, sizeof *o);

    memset(o, 0, sizeof *o);
    o->kind = kind;
    o->fd = -1;
    o->window = sim.opts.window;
    o->next = sim.all;
    sim.all = o;
    return o;
}

static void object_free(object *o)
{
    object **at = &sim.all;

    while (*at != o)
        at = &(*at)->next;
    *at = o->next;
    free(o->in.at);
    free(o->set);
    free(o);
}

/* The lowest free descriptor, at once again after a close. */
static int fd_open(object *o)
{
    int fd = FIRST_FD;

    while (fd < sim.opts.max_fds && sim.fds[fd])
        fd++;
    if (fd >= sim.opts.max_fds) {
        object_free(o);
        return fails(EMFILE);
    }
    sim.fds[fd] = o;
    if (sim.fds_end <= fd)
        sim.fds_end = fd + 1;
    o->fd = fd;
    sim.progress++;
    return fd;
}

static int fd_free(void)
{
    int fd = FIRST_FD;

    while (fd < sim.opts.max_fds && sim.fds[fd])
        fd++;
    return fd < sim.opts.max_fds;
}

/* The library's object; a stale number is a fault of the library. */
static object *fd_get(int fd, const char *call)
{
    object *o = fd < MOST_FDS ? sim.fds[fd] : NULL;

    sim.last_fd = fd;
    if (!o) {
        sim_fault("%s of descriptor %d, which is not open", call, fd);
        errno = EBADF;
    }
    return o;
}

/* Standard streams, and what others opened, go to the real system. */
static int ours(int fd)
{
    return sim.on && fd >= FIRST_FD && fd < MOST_FDS;
}

int sim_fds(void)
{
    int fd, n = 0;

    for (fd = FIRST_FD; fd < sim.fds_end; fd++)
        n += sim.fds[fd] != NULL;
    return n;
}

int sim_streams(void)
{
    int fd, n = 0;

    for (fd = FIRST_FD; fd < sim.fds_end; fd++)
        n += sim.fds[fd] && sim.fds[fd]->kind == STREAM;
    return n;
}

/* ---- addresses ---------------------------------------------------------- */

static int port_of(const struct sockaddr_storage *a)
{
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;

    if (a->ss_family == AF_INET) {
        memcpy(&in4, a, sizeof in4);
        return ntohs(in4.sin_port);
    }
    memcpy(&in6, a, sizeof in6);
    return a->ss_family == AF_INET6 ? ntohs(in6.sin6_port) : 0;
}

static void port_set(struct sockaddr_storage *a, int port)
{
    uint16_t net = htons((uint16_t)port);
    size_t at = a->ss_family == AF_INET
                    ? offsetof(struct sockaddr_in, sin_port)
                    : offsetof(struct sockaddr_in6, sin6_port);

    memcpy((char *)a + at, &net, sizeof net);
}

/* A literal address; IPv4 as mapped where the socket wants IPv6. */
static socklen_t address_make(struct sockaddr_storage *out, int family,
                              const char *text, int port)
{
    char mapped[80];

    memset(out, 0, sizeof *out);
    out->ss_family = (sa_family_t)family;
    if (family == AF_UNIX)
        return sizeof(sa_family_t);
    if (family == AF_INET) {
        inet_pton(AF_INET, text,
                  (char *)out + offsetof(struct sockaddr_in, sin_addr));
    } else {
        snprintf(mapped, sizeof mapped, "%s%s",
                 strchr(text, ':') ? "" : "::ffff:", text);
        inet_pton(AF_INET6, mapped,
                  (char *)out + offsetof(struct sockaddr_in6, sin6_addr));
    }
    port_set(out, port);
    return family == AF_INET ? sizeof(struct sockaddr_in)
                             : sizeof(struct sockaddr_in6);
}

static void address_give(const struct sockaddr_storage *from, socklen_t len,
                         struct sockaddr *out, socklen_t *cap)
{
    if (!out || !cap)
        return;
    memcpy(out, from, len < *cap ? len : *cap);
    *cap = len;
}

static const char *path_of(const struct sockaddr_storage *a)
{
    return (const char *)a + offsetof(struct sockaddr_un, sun_path);
}

static int node_find(const char *path)
{
    int i;

    for (i = 0; i < sim.node_count; i++) {
        if (strcmp(sim.nodes[i].sun_path, path) == 0)
            return i;
    }
    return -1;
}

/* Does a listener take what is sent to this address? */
static int listens_at(const object *o, const struct sockaddr_storage *a)
{
    if (o->kind != LISTENER || !o->listening)
        return 0;
    if (a->ss_family == AF_UNIX)
        return o->family == AF_UNIX && !strcmp(path_of(&o->local), path_of(a));
    if (o->family == AF_UNIX || port_of(&o->local) != port_of(a))
        return 0;
    if (o->fd < 0 || o->family == a->ss_family)
        return 1;
    return o->family == AF_INET6 && !o->v6_only;
}

/* One of those that listen there: any one with SO_REUSEPORT. */
static object *listener_find(const struct sockaddr_storage *a)
{
    object *found[BACKLOG], *o;
    uint32_t n = 0;

    if (a->ss_family == AF_UNIX && node_find(path_of(a)) < 0)
        return NULL;
    for (o = sim.all; o && n < BACKLOG; o = o->next) {
        if (listens_at(o, a))
            found[n++] = o;
    }
    return n ? found[n > 1 ? sim_choose(n) : 0] : NULL;
}

static int port_free(void)
{
    sim.next_port = sim.next_port < 60000 ? sim.next_port + 1 : 40001;
    return sim.next_port;
}

/* ---- streams ------------------------------------------------------------ */

/* How many bytes the other end would let lie. */
static size_t room(const object *o)
{
    const object *to = o->other;

    if (o->connecting)
        return 0;
    if (!to)
        return VOID_ROOM;
    return to->window > to->in.len ? to->window - to->in.len : 0;
}

/* A RST arrives.  What the sender still had in its own queue is lost. */
static void reset_arrives(object *o)
{
    if (o->dead)
        return;
    if (o->in.len && sim_chance(sim.opts.shorts))
        o->in.len = sim_choose((uint32_t)o->in.len + 1);
    o->error = o->fin ? EPIPE : ECONNRESET;
    o->dead = 1;
    o->other = NULL;
    sim.progress++;
}

static void fin_arrives(object *o)
{
    o->fin = 1;
    sim.progress++;
}

static int take_error(object *o)
{
    int error = o->error;

    o->error = 0;
    return error;
}

/* Why this end cannot send now; 0 when it can. */
static int send_error(object *o)
{
    if (o->kind != STREAM || o->connecting)
        return o->connecting ? EAGAIN : ENOTCONN;
    if (o->error)
        return take_error(o);
    if (o->dead || o->shut)
        return EPIPE;
    return room(o) ? 0 : EAGAIN;
}

/* Puts n bytes, for which there is room, on their way. */
static void stream_put(object *o, const void *data, size_t n)
{
    sim.progress++;
    if (o->other)
        bytes_push(&o->other->in, data, n);
}

/* Bytes that reach an end that was closed bring a RST back. */
static void stream_put_done(object *o)
{
    if (!o->other)
        reset_arrives(o);
}

/* What lies there, and goes on lying there. */
static ssize_t bytes_show(const struct bytes *b, void *out, size_t n)
{
    n = n < b->len ? n : b->len;
    memcpy(out, b->at + b->head, n);
    return (ssize_t)n;
}

/* Returns what recv would, with errno. */
static ssize_t stream_get(object *o, void *out, size_t n, int flags)
{
    int error;

    if (o->kind != STREAM)
        return fails(ENOTCONN);
    if (o->connecting)
        return fails(EAGAIN);
    if (o->in.len && !o->deaf && flags & MSG_PEEK)
        return bytes_show(&o->in, out, n);
    if (o->in.len && !o->deaf) {
        sim.progress++;
        return (ssize_t)bytes_take(&o->in, out, n);
    }
    if (o->fin)
        return 0;
    error = take_error(o);
    if (error)
        return fails(error);
    return o->dead || o->deaf ? 0 : fails(EAGAIN);
}

/* The end goes: what the other one learns. */
static void stream_detach(object *o)
{
    object *other = o->other;

    o->other = NULL;
    if (!other || o->dead)
        return;
    other->other = NULL;
    if (o->fin && o->shut)
        return; /* both were done: nothing is sent any more */
    if (o->in.len || o->linger_rst)
        reset_arrives(other);
    else
        fin_arrives(other);
}

static object *stream_new(const object *like, int fd_family)
{
    object *o = object_new(STREAM);

    o->family = fd_family;
    if (like) {
        o->local = like->local;
        o->local_len = like->local_len;
    }
    return o;
}

static void stream_join(object *a, object *b)
{
    a->other = b;
    b->other = a;
    sim.progress++;
}

/* Puts a new connection into a listener's queue; NULL when that is full. */
static object *listener_offer(object *l, object *from)
{
    object *o;

    if (l->queued >= l->backlog)
        return NULL;
    o = stream_new(l, l->family);
    stream_join(o, from);
    l->queue[l->queued++] = o;
    return o;
}

static object *listener_next(object *l)
{
    object *o = l->queue[0];

    if (!l->queued)
        return NULL;
    memmove(l->queue, l->queue + 1, (size_t)--l->queued * sizeof *l->queue);
    return o;
}

static int is_hole(int port)
{
    int i;

    for (i = 0; i < sim.hole_count; i++) {
        if (sim.holes[i] == port)
            return 1;
    }
    return 0;
}

static void connect_refused(object *o)
{
    o->connecting = 0;
    o->error = ECONNREFUSED;
    o->dead = 1;
    sim.progress++;
}

/* The answer to a SYN of the library has come. */
static void connect_answered(object *o)
{
    object *l = listener_find(&o->remote), *to;

    if (!l) {
        connect_refused(o);
        return;
    }
    to = listener_offer(l, o);
    if (!to) {
        o->answer_ns += 1000 * NS_PER_MS; /* the SYN is sent again */
        return;
    }
    to->remote = o->local;
    to->remote_len = o->local_len;
    o->connecting = 0;
}

/* When the next answer to a connect comes. */
static uint64_t network_next(void)
{
    uint64_t next = NEVER;
    const object *o;

    for (o = sim.all; o; o = o->next) {
        if (o->connecting && o->answer_ns < next)
            next = o->answer_ns;
    }
    return next;
}

static void network_run(void)
{
    object *o;

    for (o = sim.all; o; o = o->next) {
        if (o->connecting && o->answer_ns <= sim.now_ns)
            connect_answered(o);
    }
}

/* ---- readiness ---------------------------------------------------------- */

/* As tcp_poll(): writable only when a third of the room is free. */
static uint32_t stream_ready(const object *o)
{
    size_t window = o->other ? o->other->window : 1;
    uint32_t e = 0;

    if (o->connecting)
        return 0;
    if (o->error)
        e |= EPOLLERR;
    if (o->dead || (o->fin && o->shut))
        e |= EPOLLHUP;
    if (o->dead || o->fin || o->deaf)
        e |= EPOLLIN | EPOLLRDHUP;
    if (o->in.len)
        e |= EPOLLIN;
    if (o->dead || o->shut || (room(o) && room(o) >= window / 3))
        e |= EPOLLOUT;
    return e;
}

static uint32_t pipe_ready(const object *o)
{
    if (o->kind == PIPE_IN)
        return (o->in.len ? EPOLLIN : 0U) | (o->other ? 0U : EPOLLHUP);
    if (!o->other)
        return EPOLLERR | EPOLLOUT;
    return o->other->in.len < PIPE_SIZE ? EPOLLOUT : 0;
}

static uint32_t ready(const object *o);

static uint32_t knote_ready(const struct interest *i);

static uint32_t interest_ready(const struct interest *i)
{
    if (i->filter)
        return knote_ready(i);
    return ready(i->target) & (i->events | EPOLLERR | EPOLLHUP);
}

static uint32_t set_ready(const object *o)
{
    size_t i;

    for (i = 0; i < o->watched; i++) {
        if (interest_ready(&o->set[i]))
            return EPOLLIN;
    }
    return 0;
}

/* Both directions are at their end. */
static int broken(const object *o)
{
    return o->kind == STREAM && (o->dead || (o->fin && o->shut));
}

static uint32_t ready(const object *o)
{
    switch (o->kind) {
    case SOCKET:
        return EPOLLOUT | EPOLLHUP;
    case LISTENER:
        return o->queued ? EPOLLIN : 0;
    case STREAM:
        return sim.held && broken(o) ? 0 : stream_ready(o);
    case PIPE_IN:
    case PIPE_OUT:
        return pipe_ready(o);
    case EPOLL:
    case KQUEUE:
        return set_ready(o);
    case DEV_NULL:
        return EPOLLIN | EPOLLOUT;
    }
    return 0;
}

/* ---- knotes ------------------------------------------------------------- */

/* Has that direction come to its end? */
static int at_end(const object *o, int filter)
{
    if (o->kind == STREAM && filter == EVFILT_READ)
        return o->fin || o->dead || o->deaf;
    if (o->kind == STREAM)
        return o->dead || o->shut;
    return (o->kind == PIPE_IN || o->kind == PIPE_OUT) && !o->other;
}

/* EPOLLIN or EPOLLOUT, and EPOLLHUP at the end: as in FreeBSD's filt_soread and
   filt_sowrite, which look at one direction each. */
static uint32_t knote_ready(const struct interest *i)
{
    const object *o = i->target;
    uint32_t way = i->filter == EVFILT_READ ? EPOLLIN : EPOLLOUT, e = ready(o);

    if (i->disabled || (sim.held && broken(o)))
        return 0;
    if (at_end(o, i->filter))
        return way | EPOLLHUP;
    if (o->kind == SOCKET) /* not connected, and no attempt is under way */
        return way & EPOLLOUT ? EPOLLOUT | EPOLLHUP : 0;
    return e & EPOLLERR ? way : e & way;
}

/* ---- sets --------------------------------------------------------------- */

static struct interest *interest_find(object *set, const object *target,
                                      int filter)
{
    size_t i;

    for (i = 0; i < set->watched; i++) {
        if (set->set[i].target == target && set->set[i].filter == filter)
            return &set->set[i];
    }
    return NULL;
}

static struct interest *interest_add(object *set, object *target, int filter)
{
    struct interest *i;

    if (set->watched == set->set_cap) {
        set->set_cap = 2 * set->set_cap + 8;
        set->set = more(set->set, set->set_cap * sizeof *set->set);
    }
    i = &set->set[set->watched++];
    memset(i, 0, sizeof *i);
    i->target = target;
    i->filter = filter;
    return i;
}

static void interest_remove(object *set, struct interest *i)
{
    size_t at = (size_t)(i - set->set);

    set->watched--;
    memmove(i, i + 1, (set->watched - at) * sizeof *i);
    if (set->turn > at)
        set->turn--;
}

/* A closed descriptor leaves every set by itself. */
static void interest_forget(const object *target)
{
    object *o;
    size_t i;

    for (o = sim.all; o; o = o->next) {
        for (i = o->watched; i-- > 0;) {
            if (o->set[i].target == target)
                interest_remove(o, &o->set[i]);
        }
    }
}

/* By descriptor, and writing before reading, as the library takes the two from
   those that tell them as one. */
static int in_order(const void *a, const void *b)
{
    const struct interest *x = a, *y = b;

    if (x->target->fd != y->target->fd)
        return x->target->fd < y->target->fd ? -1 : 1;
    return x->filter - y->filter; /* EVFILT_WRITE is the lesser */
}

static void set_sort(object *set)
{
    qsort(set->set, set->watched, sizeof *set->set, in_order);
    set->turn = 0;
}

static void found_swap(struct found *a, struct found *b)
{
    struct found t = *a;

    *a = *b;
    *b = t;
}

static int set_any(const void *arg)
{
    return set_ready(arg) != 0;
}

typedef int (*ready_fn)(const void *arg);

/*
 * In order, what broke is told when nothing else is, and one at a time.  Not
 * all ways of waiting can say that of two which are to be read one broke, and
 * the library serves that one last where it knows.
 */
static void hold_broken(ready_fn any, const void *arg)
{
    sim.held = sim.opts.in_order;
    if (sim.held && !any(arg))
        sim.held = 0;
}

/* How many of n found ones are told. */
static int held_to(const struct found *found, int n)
{
    int i = 1;

    if (!sim.opts.in_order || sim.held || n < 2)
        return n;
    while (i < n && found[i].of->target == found[0].of->target)
        i++;
    return i;
}

/*
 * Level-triggered: what is ready, from where the last batch ended, so that
 * each gets its turn.  In bad weather in any order, and not all.
 */
static int batch(object *set, struct found *out, int cap)
{
    size_t i, at;
    uint32_t e;
    int n = 0;

    cap = cap < BATCH ? cap : BATCH;
    if (sim.opts.in_order && set->watched)
        set_sort(set);
    hold_broken(set_any, set);
    at = set->turn;
    for (i = 0; i < set->watched && n < cap; i++) {
        at = (set->turn + i) % set->watched;
        e = interest_ready(&set->set[at]);
        if (!e)
            continue;
        out[n].events = set->set[at].target->kind == STREAM && sim.events_mask
                            ? sim.events_mask
                            : e;
        out[n++].of = &set->set[at];
    }
    set->turn = set->watched ? (at + 1) % set->watched : 0;
    n = held_to(out, n);
    sim.held = 0;
    if (!sim_chance(sim.opts.shuffle))
        return n;
    for (i = (size_t)n; i > 1; i--)
        found_swap(&out[i - 1], &out[sim_choose((uint32_t)i)]);
    return n ? 1 + (int)sim_choose((uint32_t)n) : 0;
}

/* ---- time --------------------------------------------------------------- */

uint64_t sim_now(void)
{
    return sim.opts.now_ms + sim.now_ns / NS_PER_MS +
           (uint64_t)sim.mono_skew_ms;
}

void sim_pass(uint64_t ms)
{
    sim.now_ns += ms * NS_PER_MS;
    sim.progress++;
}

void sim_jump(int64_t ms)
{
    sim.mono_skew_ms += ms;
}

void sim_wall_jump(int64_t ms)
{
    sim.wall_skew_ms += ms;
}

/* Events of the same time run in the order in which they were asked for. */
void sim_at(uint64_t ms, void (*fn)(void *), void *arg)
{
    uint64_t at = ms > sim.opts.now_ms ? (ms - sim.opts.now_ms) * NS_PER_MS : 0;
    size_t i = 0;

    if (sim.events == sim.agenda_cap) {
        sim.agenda_cap = 2 * sim.agenda_cap + 8;
        sim.agenda = more(sim.agenda, sim.agenda_cap * sizeof *sim.agenda);
    }
    while (i < sim.events && sim.agenda[i].at_ns > at)
        i++;
    memmove(sim.agenda + i + 1, sim.agenda + i,
            (sim.events - i) * sizeof *sim.agenda);
    sim.agenda[i].at_ns = at;
    sim.agenda[i].fn = fn;
    sim.agenda[i].arg = arg;
    sim.events++;
}

/* When something happens by itself. */
static uint64_t world_next(void)
{
    uint64_t next = network_next();

    if (sim.events && sim.agenda[sim.events - 1].at_ns < next)
        next = sim.agenda[sim.events - 1].at_ns;
    return next;
}

/* Goes on to a time; what is due then happens. */
static void world_run(uint64_t upto_ns)
{
    struct event e;

    if (upto_ns > sim.now_ns)
        sim.now_ns = upto_ns;
    network_run();
    while (sim.events && sim.agenda[sim.events - 1].at_ns <= sim.now_ns) {
        e = sim.agenda[--sim.events];
        sim.progress++;
        e.fn(e.arg);
    }
}

/* A wait that ends again and again without anything done is a spin. */
static void watch_progress(void)
{
    if (sim.progress != sim.progress_seen)
        sim.idle = 0;
    else if (++sim.idle == sim.opts.spin)
        sim_fault("spins: %d waits without progress", sim.idle);
    sim.progress_seen = sim.progress;
}

/* Until something is ready, or the time is over. */
static void sleep_until(ready_fn any, const void *arg, uint64_t wait_ns)
{
    uint64_t end = wait_ns == NEVER ? NEVER : sim.now_ns + wait_ns, next;

    watch_progress();
    world_run(sim.now_ns);
    while (!any(arg)) {
        next = world_next();
        if (next == NEVER || next > end)
            break;
        world_run(next);
    }
    if (!wait_ns || any(arg))
        return;
    if (end == NEVER) {
        sim_fault("waits for ever");
        return;
    }
    sim.now_ns = end > sim.now_ns ? end : sim.now_ns;
    if (sim.opts.late_us)
        sim.now_ns += sim_choose((uint32_t)sim.opts.late_us) * UINT64_C(1000);
    sim.progress++;
}

/* ---- the world ---------------------------------------------------------- */

static void default_int(int *value, int normal)
{
    if (!*value)
        *value = normal;
}

void sim_weather(uint64_t seed, sim_opts *o)
{
    o->eintr = (int)(seed * 37 % 150);
    o->again = (int)(seed * 71 % 250);
    o->shorts = (int)(seed * 113 % 900);
    o->shuffle = (int)(seed * 59 % 900);
    o->late_us = 1500;
    o->window = 500 + seed * 7919 % 65536;
}

void sim_start(const sim_opts *opts)
{
    if (sim.on)
        sim_end();
    memset(&sim, 0, sizeof sim);
    if (opts)
        sim.opts = *opts;
    default_int(&sim.opts.max_fds, 1000);
    default_int(&sim.opts.spin, 200);
    if (!sim.opts.window)
        sim.opts.window = 65536;
    if (!sim.opts.now_ms)
        sim.opts.now_ms = 100000000;
    sim.choices = sim.opts.seed;
    sim.entropy = ~sim.opts.seed;
    sim.next_port = 40000;
    sim.last_fd = sim.failed_fd = -1;
    sim.on = 1;
}

static void leaks_find(void)
{
    int fd;

    if (sim.heap)
        sim_fault("%zu bytes of memory were never freed", sim.heap);
    for (fd = FIRST_FD; fd < MOST_FDS; fd++) {
        if (sim.fds[fd])
            sim_fault("descriptor %d (%s) was never closed", fd,
                      kind_names[sim.fds[fd]->kind]);
    }
}

/* Of all worlds that ended in this process. */
static struct {
    uint64_t worlds, ns, calls;
} total;

static void total_add(void)
{
    int i;

    total.worlds++;
    total.ns += sim.now_ns;
    for (i = 0; i < SIM_CALL_COUNT; i++)
        total.calls += sim.calls[i];
}

void sim_print_total(void)
{
    printf("simulated: %llu worlds, %.1f s of their time, %llu calls\n",
           (unsigned long long)total.worlds, (double)total.ns / 1e9,
           (unsigned long long)total.calls);
}

int sim_end(void)
{
    if (!sim.on)
        return sim.faults;
    total_add();
    leaks_find();
    while (sim.all)
        object_free(sim.all);
    free(sim.agenda);
    sim.agenda = NULL;
    sim.on = 0;
    return sim.faults;
}

/* ---- random worlds ------------------------------------------------------- */

static const char *const backends[] = {"auto", "epoll", "kqueue", "select"};

void sim_world_begin(const sim_world *w, const sim_opts *weather)
{
    sim_opts o = *weather;

    o.seed = w->seed;
    o.until = w->until;
    o.trace = w->trace;
    o.choices = w->choices;
    o.choices_len = w->choices_len;
    o.in_order = w->calm;
    sim_start(&o);
}

static uint64_t events(void)
{
    uint64_t n = sim.upcalls + sim.acts;
    int i;

    for (i = 0; i < SIM_CALL_COUNT; i++) {
        if (i != SIM_clock_gettime && i != SIM_epoll_wait && i != SIM_select)
            n += sim.calls[i];
    }
    return n - sim.kevent_waits;
}

int sim_world_end(sim_world *w, const char *name)
{
    int i;

    sim_end();
    w->digest = sim.digest;
    w->events = events();
    w->steps = sim.step;
    for (w->each = 0, i = 0; i < SESSIONS; i++)
        w->each += mix(sim.each[i], (uint64_t)i);
    if (sim.faults && !w->quiet)
        printf("sim --world %s --seed %llu --backend %s --until %d%s: %s\n",
               name, (unsigned long long)w->seed, backends[w->backend],
               sim.fault_step, w->calm ? " --calm" : "", sim.fault);
    return sim.faults;
}

/* ---- peers -------------------------------------------------------------- */

static sim_peer *peer_connect(const struct sockaddr_storage *to, int family,
                              const char *from)
{
    object *l = listener_find(to), *o, *in;

    sim.acts++;
    if (!l || l->fd < 0) {
        errno = ECONNREFUSED;
        return NULL;
    }
    o = object_new(STREAM);
    in = listener_offer(l, o);
    if (!in) {
        object_free(o);
        errno = EAGAIN;
        return NULL;
    }
    in->remote_len = address_make(&in->remote, l->family, from, port_free());
    sim_note("a peer connects from %s, family %d", from, family);
    return o;
}

sim_peer *sim_connect_from(int port, const char *address)
{
    int family = strchr(address, ':') ? AF_INET6 : AF_INET;
    struct sockaddr_storage to;

    address_make(&to, family, family == AF_INET ? "127.0.0.1" : "::1", port);
    return peer_connect(&to, family, address);
}

sim_peer *sim_connect(int port)
{
    return sim_connect_from(port, "127.0.0.1");
}

sim_peer *sim_connect_path(const char *path)
{
    struct sockaddr_storage to;

    memset(&to, 0, sizeof to);
    to.ss_family = AF_UNIX;
    snprintf((char *)&to + offsetof(struct sockaddr_un, sun_path),
             sizeof(struct sockaddr_un) -
                 offsetof(struct sockaddr_un, sun_path),
             "%s", path);
    return peer_connect(&to, AF_UNIX, "");
}

void sim_serve(int port)
{
    object *o = object_new(LISTENER);

    o->family = AF_INET;
    o->local_len = address_make(&o->local, AF_INET, "127.0.0.1", port);
    o->backlog = BACKLOG;
    o->listening = 1;
}

sim_peer *sim_accept(int port)
{
    object *o;

    for (o = sim.all; o; o = o->next) {
        if (o->kind == LISTENER && o->fd < 0 && port_of(&o->local) == port)
            return listener_next(o);
    }
    return NULL;
}

void sim_blackhole(int port)
{
    if (sim.hole_count < HOLES)
        sim.holes[sim.hole_count++] = port;
}

ptrdiff_t sim_peer_send(sim_peer *peer, const void *data, size_t len)
{
    int error = send_error(peer);

    if (error == EAGAIN)
        return 0;
    if (error)
        return -1;
    if (len > room(peer))
        len = room(peer);
    if (!len)
        return 0;
    sim.acts++;
    stream_put(peer, data, len);
    stream_put_done(peer);
    return (ptrdiff_t)len;
}

size_t sim_peer_recv(sim_peer *peer, void *out, size_t cap)
{
    size_t n = bytes_take(&peer->in, out, cap);

    sim.acts += n > 0;
    sim.progress += n > 0;
    return n;
}

size_t sim_peer_waiting(const sim_peer *peer)
{
    return peer->in.len;
}

void sim_peer_window(sim_peer *peer, size_t bytes)
{
    sim.acts++;
    peer->window = bytes;
    sim.progress++;
}

enum sim_state sim_peer_state(const sim_peer *peer)
{
    if (peer->dead)
        return SIM_RST;
    return peer->fin ? SIM_FIN : SIM_UP;
}

void sim_peer_shut(sim_peer *peer)
{
    sim.acts++;
    if (!peer->shut && peer->other)
        fin_arrives(peer->other);
    peer->shut = 1;
}

void sim_peer_reset(sim_peer *peer)
{
    sim.acts++;
    if (peer->other) {
        peer->other->other = NULL;
        reset_arrives(peer->other);
    }
    peer->other = NULL;
    peer->dead = 1;
}

void sim_peer_close(sim_peer *peer)
{
    sim.acts++;
    stream_detach(peer);
    object_free(peer);
}

/* ---- the calls: descriptors --------------------------------------------- */

int __wrap_accept4(int, struct sockaddr *, socklen_t *, int);
int __wrap_bind(int, const struct sockaddr *, socklen_t);
int __wrap_clock_gettime(clockid_t, struct timespec *);
int __wrap_close(int);
int __wrap_connect(int, const struct sockaddr *, socklen_t);
int __wrap_epoll_create1(int);
int __wrap_epoll_ctl(int, int, int, struct epoll_event *);
int __wrap_epoll_wait(int, struct epoll_event *, int, int);
int __wrap_fcntl(int, int, ...);
int __wrap_getpeername(int, struct sockaddr *, socklen_t *);
ssize_t __wrap_getrandom(void *, size_t, unsigned);
int __wrap_getsockname(int, struct sockaddr *, socklen_t *);
int __wrap_getsockopt(int, int, int, void *, socklen_t *);
int __wrap_kevent(int, const struct kevent *, int, struct kevent *, int,
                  const struct timespec *);
int __wrap_kqueue(void);
int __wrap_listen(int, int);
int __wrap_lstat(const char *, struct stat *);
int __wrap_open(const char *, int, ...);
int __wrap_pipe2(int[2], int);
ssize_t __wrap_read(int, void *, size_t);
ssize_t __wrap_recv(int, void *, size_t, int);
int __wrap_select(int, fd_set *, fd_set *, fd_set *, struct timeval *);
ssize_t __wrap_send(int, const void *, size_t, int);
ssize_t __wrap_sendmsg(int, const struct msghdr *, int);
int __wrap_setsockopt(int, int, int, const void *, socklen_t);
int __wrap_shutdown(int, int);
int __wrap_socket(int, int, int);
int __wrap_stat(const char *, struct stat *);
int __wrap_unlink(const char *);
ssize_t __wrap_write(int, const void *, size_t);

/* Every descriptor must be close-on-exec and non-blocking from birth. */
static void check_flags(const char *call, int flags, int wanted)
{
    if ((flags & wanted) != wanted)
        sim_fault("%s without CLOEXEC or NONBLOCK (flags %#x)", call,
                  (unsigned)flags);
}

int __wrap_socket(int family, int type, int protocol)
{
    object *o;
    int fd;

    if (!sim.on)
        return __real_socket(family, type, protocol);
    if (refused(SIM_socket))
        return -1;
    check_flags("socket", type, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if ((type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) != SOCK_STREAM)
        return unserved("socket type", type, EPROTONOSUPPORT);
    o = object_new(SOCKET);
    o->family = family;
    o->local_len = address_make(&o->local, family, "0.0.0.0", 0);
    fd = fd_open(o);
    sim_note("socket = %d", fd);
    return fd;
}

int __wrap_pipe2(int out[2], int flags)
{
    object *in, *to;

    if (!sim.on)
        return __real_pipe2(out, flags);
    if (refused(SIM_pipe2))
        return -1;
    check_flags("pipe2", flags, O_CLOEXEC | O_NONBLOCK);
    in = object_new(PIPE_IN);
    if (fd_open(in) < 0)
        return -1;
    to = object_new(PIPE_OUT);
    if (fd_open(to) < 0) {
        sim.fds[in->fd] = NULL;
        object_free(in);
        return fails(EMFILE);
    }
    stream_join(in, to);
    out[0] = in->fd;
    out[1] = to->fd;
    return 0;
}

/* Other files than the spare one are real; above the range of ours. */
static int open_real(const char *path, int flags, int mode)
{
    int fd = __real_open(path, flags, mode), high;

    if (!sim.on || fd < 0)
        return fd;
    high = __real_fcntl(fd, F_DUPFD_CLOEXEC, MOST_FDS);
    __real_close(fd);
    return high;
}

int __wrap_open(const char *path, int flags, ...)
{
    int mode = 0;
    va_list list;

    va_start(list, flags);
    if (flags & O_CREAT)
        mode = va_arg(list, int);
    va_end(list);
    if (!sim.on || strcmp(path, "/dev/null") != 0)
        return open_real(path, flags, mode);
    if (refused(SIM_open))
        return -1;
    check_flags("open", flags, O_CLOEXEC);
    return fd_open(object_new(DEV_NULL));
}

static void close_object(object *o)
{
    object *waiting;

    interest_forget(o);
    while (o->kind == LISTENER && (waiting = listener_next(o)) != NULL) {
        waiting->linger_rst = 1;
        stream_detach(waiting);
        object_free(waiting);
    }
    if (o->kind == STREAM)
        stream_detach(o);
    else if (o->other)
        o->other->other = NULL;
    object_free(o);
}

/* Interrupted or not, the descriptor is gone, as on Linux. */
int __wrap_close(int fd)
{
    object *o;
    int bad;

    if (!ours(fd))
        return __real_close(fd);
    o = fd_get(fd, "close");
    if (!o)
        return -1;
    bad = refused(SIM_close) ? errno : 0;
    sim_note("close %d", fd);
    sim.fds[fd] = NULL;
    close_object(o);
    sim.progress++;
    return bad ? fails(bad) : 0;
}

int __wrap_fcntl(int fd, int command, ...)
{
    void *argument;
    va_list list;

    va_start(list, command);
    argument = va_arg(list, void *);
    va_end(list);
    if (!ours(fd))
        return __real_fcntl(fd, command, argument);
    if (!fd_get(fd, "fcntl") || refused(SIM_fcntl))
        return -1;
    switch (command) {
    case F_GETFL:
        return O_RDWR | O_NONBLOCK;
    case F_GETFD:
        return FD_CLOEXEC;
    case F_SETFD:
        sim.fds[fd]->cloexec = 1;
        return 0;
    case F_SETFL:
        return 0;
    }
    return unserved("fcntl", command, EINVAL);
}

/* Only the files of local sockets are known here. */
static int node_stat(const char *path, struct stat *out)
{
    memset(out, 0, sizeof *out);
    out->st_mode = S_IFSOCK | 0700;
    return node_find(path) < 0 ? fails(ENOENT) : 0;
}

int __wrap_stat(const char *path, struct stat *out)
{
    if (!sim.on)
        return __real_stat(path, out);
    return refused(SIM_stat) ? -1 : node_stat(path, out);
}

int __wrap_lstat(const char *path, struct stat *out)
{
    if (!sim.on)
        return __real_lstat(path, out);
    return refused(SIM_lstat) ? -1 : node_stat(path, out);
}

int __wrap_unlink(const char *path)
{
    int at;

    if (!sim.on)
        return __real_unlink(path);
    if (refused(SIM_unlink))
        return -1;
    at = node_find(path);
    if (at < 0)
        return fails(ENOENT);
    sim.nodes[at] = sim.nodes[--sim.node_count];
    return 0;
}

/* ---- the calls: sockets ------------------------------------------------- */

/* Two may share a port when both asked for it, or are of two families. */
static int port_taken(const object *o, const struct sockaddr_storage *a)
{
    const object *x;

    for (x = sim.all; x; x = x->next) {
        if (x == o || (x->kind != LISTENER && x->kind != SOCKET) ||
            x->family == AF_UNIX || port_of(&x->local) != port_of(a))
            continue;
        if (x->family != o->family && (x->v6_only || o->v6_only))
            continue;
        if (!x->reuse_port || !o->reuse_port)
            return 1;
    }
    return 0;
}

static int bind_path(object *o)
{
    if (node_find(path_of(&o->local)) >= 0) {
        o->local_len = sizeof(sa_family_t);
        return fails(EADDRINUSE);
    }
    if (sim.node_count == NODES)
        return unserved("so many socket files", NODES, ENOSPC);
    memcpy(&sim.nodes[sim.node_count++], &o->local, sizeof *sim.nodes);
    return 0;
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t len)
{
    struct sockaddr_storage a;
    object *o;

    if (!ours(fd))
        return __real_bind(fd, address, len);
    o = fd_get(fd, "bind");
    if (!o || refused(SIM_bind))
        return -1;
    memset(&a, 0, sizeof a);
    memcpy(&a, address, len < sizeof a ? len : sizeof a);
    if (o->kind != SOCKET || a.ss_family != o->family)
        return fails(EINVAL);
    if (o->family != AF_UNIX && !port_of(&a))
        port_set(&a, port_free());
    else if (o->family != AF_UNIX && port_taken(o, &a))
        return fails(EADDRINUSE);
    o->local = a;
    o->local_len = len;
    return o->family == AF_UNIX ? bind_path(o) : 0;
}

int __wrap_listen(int fd, int backlog)
{
    object *o;

    if (!ours(fd))
        return __real_listen(fd, backlog);
    o = fd_get(fd, "listen");
    if (!o || refused(SIM_listen))
        return -1;
    if (o->kind != SOCKET && o->kind != LISTENER)
        return fails(EINVAL);
    o->kind = LISTENER;
    o->listening = 1;
    o->backlog = backlog < 1 ? 1 : backlog < BACKLOG ? backlog : BACKLOG;
    return 0;
}

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    object *l, *o;

    if (!ours(fd))
        return __real_accept4(fd, address, len, flags);
    l = fd_get(fd, "accept4");
    if (!l || refused(SIM_accept4))
        return -1;
    if (l->kind != LISTENER)
        return fails(EINVAL);
    check_flags("accept4", flags, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (!fd_free())
        return fails(EMFILE);
    if (!l->queued || sim_chance(sim.opts.again))
        return fails(EAGAIN);
    o = listener_next(l);
    address_give(&o->remote, o->remote_len, address, len);
    fd_open(o);
    sim_note("accept4 %d = %d", fd, o->fd);
    return o->fd;
}

/* A local socket connects at once or not at all. */
static int connect_path(object *o)
{
    object *l = listener_find(&o->remote);

    if (!l)
        return fails(node_find(path_of(&o->remote)) < 0 ? ENOENT
                                                        : ECONNREFUSED);
    o->kind = STREAM;
    if (listener_offer(l, o))
        return 0;
    o->kind = SOCKET;
    return fails(EAGAIN);
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t len)
{
    object *o;
    int bad;

    if (!ours(fd))
        return __real_connect(fd, address, len);
    o = fd_get(fd, "connect");
    if (!o)
        return -1;
    bad = refused(SIM_connect);
    if (bad && errno != EINTR)
        return -1;
    if (o->kind != SOCKET)
        return fails(o->connecting ? EALREADY : EISCONN);
    memcpy(&o->remote, address, len < sizeof o->remote ? len : 0);
    o->remote_len = len;
    if (o->family == AF_UNIX)
        return connect_path(o);
    /* Interrupted, it goes on all the same. */
    o->kind = STREAM;
    if (!port_of(&o->local))
        port_set(&o->local, port_free());
    o->connecting = 1;
    o->answer_ns = is_hole(port_of(&o->remote))
                       ? NEVER
                       : sim.now_ns + sim_choose(2) * NS_PER_MS;
    sim.progress++;
    sim_note("connect %d to port %d", fd, port_of(&o->remote));
    return fails(bad ? EINTR : EINPROGRESS);
}

int __wrap_shutdown(int fd, int how)
{
    object *o;

    if (!ours(fd))
        return __real_shutdown(fd, how);
    o = fd_get(fd, "shutdown");
    if (!o || refused(SIM_shutdown))
        return -1;
    sim_note("shutdown %d %d", fd, how);
    if (o->kind != STREAM || o->dead || o->connecting || (o->fin && o->shut))
        return fails(ENOTCONN);
    if (how != SHUT_RD)
        sim_peer_shut(o);
    if (how != SHUT_WR)
        o->deaf = 1;
    sim.progress++;
    return 0;
}

static int names(int fd, struct sockaddr *out, socklen_t *cap, int remote)
{
    object *o = fd_get(fd, remote ? "getpeername" : "getsockname");

    if (!o || refused(remote ? SIM_getpeername : SIM_getsockname))
        return -1;
    if (remote && (o->kind != STREAM || o->dead))
        return fails(ENOTCONN);
    if (remote)
        address_give(&o->remote, o->remote_len, out, cap);
    else
        address_give(&o->local, o->local_len, out, cap);
    return 0;
}

int __wrap_getsockname(int fd, struct sockaddr *out, socklen_t *cap)
{
    return ours(fd) ? names(fd, out, cap, 0) : __real_getsockname(fd, out, cap);
}

int __wrap_getpeername(int fd, struct sockaddr *out, socklen_t *cap)
{
    return ours(fd) ? names(fd, out, cap, 1) : __real_getpeername(fd, out, cap);
}

int __wrap_getsockopt(int fd, int level, int name, void *out, socklen_t *len)
{
    object *o;
    int value;

    if (!ours(fd))
        return __real_getsockopt(fd, level, name, out, len);
    o = fd_get(fd, "getsockopt");
    if (!o || refused(SIM_getsockopt))
        return -1;
    sim.progress++;
    if (level == SOL_SOCKET && name == SO_ERROR)
        value = take_error(o);
    else if (level == SOL_SOCKET && name == SO_ACCEPTCONN)
        value = o->listening;
    else if (level == SOL_SOCKET && name == SO_TYPE)
        value = SOCK_STREAM;
    else
        return unserved("getsockopt", name, ENOPROTOOPT);
    memcpy(out, &value, *len < sizeof value ? *len : sizeof value);
    return 0;
}

static void linger_set(object *o, const void *value, socklen_t len)
{
    struct linger l = {0, 0};

    memcpy(&l, value, len < sizeof l ? len : sizeof l);
    o->linger_rst = l.l_onoff && !l.l_linger;
}

int __wrap_setsockopt(int fd, int level, int name, const void *value,
                      socklen_t len)
{
    object *o;
    int number = 0;

    if (!ours(fd))
        return __real_setsockopt(fd, level, name, value, len);
    o = fd_get(fd, "setsockopt");
    if (!o || refused(SIM_setsockopt))
        return -1;
    memcpy(&number, value, len < sizeof number ? len : sizeof number);
    if (level == SOL_SOCKET && name == SO_LINGER)
        linger_set(o, value, len);
    if (level == SOL_SOCKET && name == SO_REUSEPORT)
        o->reuse_port = number;
    if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY)
        o->v6_only = number;
    if (level == IPPROTO_TCP && o->family == AF_UNIX)
        return fails(EOPNOTSUPP);
    return 0;
}

/* ---- the calls: bytes --------------------------------------------------- */

ssize_t __wrap_recv(int fd, void *out, size_t n, int flags)
{
    object *o;
    ssize_t got;
    size_t can;

    if (!ours(fd))
        return __real_recv(fd, out, n, flags);
    o = fd_get(fd, "recv");
    if (!o || refused(SIM_recv))
        return -1;
    if (flags & ~(MSG_DONTWAIT | MSG_PEEK))
        return unserved("recv flags", flags, EINVAL);
    if (!n)
        sim_fault("recv of nothing");
    if (sim_chance(sim.opts.again))
        return fails(EAGAIN);
    can = shorten(SIM_recv, n < o->in.len ? n : o->in.len);
    got = said(SIM_recv, stream_get(o, out, can, flags), n);
    sim_note("recv %d = %zd", fd, got);
    return got;
}

/* How many bytes of len a send takes, or -1. */
static ssize_t send_begin(int fd, enum sim_call which, object *o, size_t len,
                          int flags)
{
    const char *call = which == SIM_send ? "send" : "sendmsg";
    int error;

    if (!(flags & MSG_NOSIGNAL))
        sim_fault("%s without MSG_NOSIGNAL", call);
    if (flags & ~(MSG_NOSIGNAL | MSG_DONTWAIT))
        return unserved("send flags", flags, EINVAL);
    error = send_error(o);
    if (!error && sim_chance(sim.opts.again))
        error = EAGAIN;
    sim_note("%s %d of %zu: %s", call, fd, len,
             error ? strerror(error) : "goes");
    if (error)
        return fails(error);
    return (ssize_t)shorten(which, len < room(o) ? len : room(o));
}

ssize_t __wrap_send(int fd, const void *data, size_t len, int flags)
{
    object *o;
    ssize_t n;

    if (!ours(fd))
        return __real_send(fd, data, len, flags);
    o = fd_get(fd, "send");
    if (!o || refused(SIM_send))
        return -1;
    n = send_begin(fd, SIM_send, o, len, flags);
    if (n <= 0)
        return n;
    stream_put(o, data, (size_t)n);
    stream_put_done(o);
    return said(SIM_send, n, len);
}

static size_t message_size(const struct msghdr *m)
{
    size_t i, n = 0;

    for (i = 0; i < (size_t)m->msg_iovlen; i++)
        n += m->msg_iov[i].iov_len;
    return n;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags)
{
    size_t i, left, piece;
    object *o;
    ssize_t n;

    if (!ours(fd))
        return __real_sendmsg(fd, m, flags);
    o = fd_get(fd, "sendmsg");
    if (!o || refused(SIM_sendmsg))
        return -1;
    if (m->msg_iovlen > 1024)
        return fails(EMSGSIZE);
    n = send_begin(fd, SIM_sendmsg, o, message_size(m), flags);
    if (n <= 0)
        return n;
    left = (size_t)n;
    for (i = 0; left; i++) {
        piece = m->msg_iov[i].iov_len;
        piece = piece < left ? piece : left;
        stream_put(o, m->msg_iov[i].iov_base, piece);
        left -= piece;
    }
    stream_put_done(o);
    return said(SIM_sendmsg, n, message_size(m));
}

ssize_t __wrap_read(int fd, void *out, size_t n)
{
    object *o;

    if (!ours(fd))
        return __real_read(fd, out, n);
    o = fd_get(fd, "read");
    if (!o || refused(SIM_read))
        return -1;
    if (o->kind != PIPE_IN)
        return unserved("read of descriptor", fd, EINVAL);
    if (!o->in.len)
        return o->other ? fails(EAGAIN) : 0;
    sim.progress++;
    return said(SIM_read,
                (ssize_t)bytes_take(&o->in, out, shorten(SIM_read, n)), n);
}

/* Up to PIPE_BUF bytes go whole or not at all. */
ssize_t __wrap_write(int fd, const void *data, size_t n)
{
    object *o;

    if (!ours(fd))
        return __real_write(fd, data, n);
    o = fd_get(fd, "write");
    if (!o || refused(SIM_write))
        return -1;
    if (o->kind != PIPE_OUT || n > 4096)
        return unserved("write of descriptor", fd, EINVAL);
    if (!o->other)
        return fails(EPIPE);
    if (o->other->in.len + n > PIPE_SIZE)
        return fails(EAGAIN);
    sim.progress++;
    bytes_push(&o->other->in, data, n);
    return (ssize_t)n;
}

/* ---- the calls: waiting ------------------------------------------------- */

int __wrap_epoll_create1(int flags)
{
    if (!sim.on)
        return __real_epoll_create1(flags);
    if (refused(SIM_epoll_create1))
        return -1;
    check_flags("epoll_create1", flags, EPOLL_CLOEXEC);
    return fd_open(object_new(EPOLL));
}

static int interest_set(struct interest *i, const struct epoll_event *event)
{
    if (event->events & (uint32_t)(EPOLLET | EPOLLONESHOT))
        return unserved("epoll events", (int)event->events, EINVAL);
    i->events = event->events;
    i->data = event->data;
    return 0;
}

/* What may fail for ever is what asks for memory or a watch: to be added. */
static int epoll_refused(int op)
{
    if (op == EPOLL_CTL_ADD || !sim.fail_ever[SIM_epoll_ctl])
        return refused(SIM_epoll_ctl);
    sim.calls[SIM_epoll_ctl]++;
    return 0;
}

int __wrap_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    object *ep, *o;
    struct interest *i;

    if (!ours(epfd))
        return __real_epoll_ctl(epfd, op, fd, event);
    ep = fd_get(epfd, "epoll_ctl");
    o = ep ? fd_get(fd, "epoll_ctl") : NULL;
    if (!o || epoll_refused(op))
        return -1;
    sim_note("epoll_ctl %d of %d: %#x", op, fd, event ? event->events : 0);
    if (o == ep || o->kind == DEV_NULL)
        return fails(o == ep ? EINVAL : EPERM);
    i = interest_find(ep, o, 0);
    if (op == EPOLL_CTL_ADD && i)
        return fails(EEXIST);
    if (op == EPOLL_CTL_ADD)
        i = interest_add(ep, o, 0);
    if (!i)
        return fails(ENOENT);
    if (op != EPOLL_CTL_DEL)
        return interest_set(i, event);
    interest_remove(ep, i);
    return 0;
}

int __wrap_epoll_wait(int fd, struct epoll_event *out, int cap, int timeout)
{
    struct found found[BATCH];
    object *ep;
    int i, n;

    if (!ours(fd))
        return __real_epoll_wait(fd, out, cap, timeout);
    ep = fd_get(fd, "epoll_wait");
    if (!ep || refused(SIM_epoll_wait))
        return -1;
    if (cap < 1 || ep->kind != EPOLL)
        return fails(EINVAL);
    sleep_until(set_any, ep,
                timeout < 0 ? NEVER : (uint64_t)timeout * NS_PER_MS);
    n = batch(ep, found, cap);
    for (i = 0; i < n; i++) {
        out[i].events = found[i].events;
        out[i].data = found[i].of->data;
    }
    sim_note("epoll_wait %d ms = %d", timeout, n);
    return n;
}

/* Born without CLOEXEC: fcntl has to follow before it is used. */
int __wrap_kqueue(void)
{
    if (!sim.on)
        return fails(ENOSYS);
    if (refused(SIM_kqueue))
        return -1;
    return fd_open(object_new(KQUEUE));
}

/* Returns 0, or the errno. */
static int knote_change(object *kq, const struct kevent *c)
{
    int fd = c->ident < MOST_FDS ? (int)c->ident : MOST_FDS;
    object *o = fd_get(fd, "kevent");
    struct interest *i = o ? interest_find(kq, o, c->filter) : NULL;

    sim_note("kevent of %d: filter %d, %#x", fd, c->filter, c->flags);
    if (c->filter != EVFILT_READ && c->filter != EVFILT_WRITE)
        return EINVAL;
    if (c->flags & (EV_ONESHOT | EV_CLEAR | EV_DISPATCH))
        return unserved("kevent flags", c->flags, EINVAL), EINVAL;
    if (!o)
        return EBADF;
    if (!i && !(c->flags & EV_ADD))
        return ENOENT;
    if (!i)
        i = interest_add(kq, o, c->filter);
    if (c->flags & EV_DELETE) {
        interest_remove(kq, i);
        return 0;
    }
    i->data.ptr = c->udata; /* of one that is there already, too */
    if (c->flags & (EV_ENABLE | EV_DISABLE))
        i->disabled = (c->flags & EV_DISABLE) != 0;
    return 0;
}

/*
 * Makes the changes.  What came of one is told where it failed or a receipt is
 * wanted, as long as there is room; without room the first that fails ends it.
 * Returns how many were told, or -1.
 */
static int knotes_change(object *kq, const struct kevent *changes, int n,
                         struct kevent *out, int cap)
{
    int i, error, told = 0;

    for (i = 0; i < n; i++) {
        error = knote_change(kq, &changes[i]);
        if (!error && !(changes[i].flags & EV_RECEIPT))
            continue;
        if (told < cap) {
            out[told] = changes[i];
            out[told].flags = EV_ERROR;
            out[told++].data = error;
        } else if (error) {
            return fails(error);
        }
    }
    return told;
}

static void knote_tell(const struct found *found, struct kevent *out)
{
    const struct interest *i = found->of;
    int reads = i->filter == EVFILT_READ, end = found->events & EPOLLHUP;

    memset(out, 0, sizeof *out);
    out->ident = (uintptr_t)i->target->fd;
    out->filter = (short)i->filter;
    out->flags = end ? EV_EOF : 0;
    out->fflags = end ? (unsigned)i->target->error : 0;
    out->data = (int64_t)(reads ? i->target->in.len : room(i->target));
    out->udata = i->data.ptr;
}

static int knotes_wait(object *kq, struct kevent *out, int cap, uint64_t ns)
{
    struct found found[BATCH];
    int i, n;

    sleep_until(set_any, kq, ns);
    n = batch(kq, found, cap);
    for (i = 0; i < n; i++)
        knote_tell(&found[i], &out[i]);
    return n;
}

/* It is the last change that fails: those before it are made. */
static int kevent_fails(object *kq, const struct kevent *changes, int n)
{
    int i, error = errno;

    for (i = 0; i + 1 < n; i++)
        knote_change(kq, &changes[i]);
    return fails(error);
}

/* Interrupted, the changes are made all the same.  That a call without room for
   events is interrupted, too, is more than the manual says. */
int __wrap_kevent(int fd, const struct kevent *changes, int n,
                  struct kevent *out, int cap, const struct timespec *timeout)
{
    object *kq = sim.on ? fd_get(fd, "kevent") : NULL;
    int bad, told;

    if (!kq)
        return fails(sim.on ? EBADF : ENOSYS);
    bad = refused(SIM_kevent);
    if (bad && errno != EINTR)
        return kevent_fails(kq, changes, n);
    if (kq->kind != KQUEUE || n < 0 || cap < 0)
        return fails(EINVAL);
    if (!kq->cloexec)
        sim_fault("a kqueue without CLOEXEC is used");
    told = knotes_change(kq, changes, n, out, cap);
    if (told)
        return told;
    if (bad)
        return fails(EINTR);
    if (!cap)
        return 0;
    sim.kevent_waits++;
    told = knotes_wait(kq, out, cap,
                       timeout ? (uint64_t)timeout->tv_sec * 1000 * NS_PER_MS +
                                     (uint64_t)timeout->tv_nsec
                               : NEVER);
    sim_note("kevent = %d", told);
    return told;
}

struct sets {
    int n;
    const fd_set *read, *write;
};

static int set_has(const fd_set *set, int fd)
{
    return set && FD_ISSET(fd, set);
}

static int select_reads(const struct sets *s, int fd)
{
    return set_has(s->read, fd) &&
           (ready(sim.fds[fd]) & (EPOLLIN | EPOLLHUP | EPOLLERR));
}

static int select_writes(const struct sets *s, int fd)
{
    return set_has(s->write, fd) &&
           (ready(sim.fds[fd]) & (EPOLLOUT | EPOLLERR));
}

static int select_any(const void *arg)
{
    const struct sets *s = arg;
    int fd;

    for (fd = 0; fd < s->n; fd++) {
        if (select_reads(s, fd) || select_writes(s, fd))
            return 1;
    }
    return 0;
}

/* Only descriptors of this kernel, and open ones. */
static int select_valid(const struct sets *s, const fd_set *except)
{
    int fd;

    for (fd = 0; fd < s->n; fd++) {
        if (!set_has(s->read, fd) && !set_has(s->write, fd) &&
            !set_has(except, fd))
            continue;
        if (!ours(fd) || !fd_get(fd, "select"))
            return 0;
    }
    return 1;
}

static int select_answer(const struct sets *s, fd_set *in, fd_set *out)
{
    int fd, n = 0, one = sim.opts.in_order && !sim.held;

    for (fd = 0; fd < s->n; fd++) {
        if (set_has(in, fd) && ((n && one) || !select_reads(s, fd)))
            FD_CLR(fd, in);
        if (set_has(out, fd) && ((n && one) || !select_writes(s, fd)))
            FD_CLR(fd, out);
        n += set_has(in, fd) + set_has(out, fd);
    }
    return n;
}

int __wrap_select(int n, fd_set *in, fd_set *out, fd_set *except,
                  struct timeval *timeout)
{
    struct sets s = {n, in, out};
    uint64_t wait = NEVER;

    if (!sim.on)
        return __real_select(n, in, out, except, timeout);
    if (refused(SIM_select))
        return -1;
    if (n < 0 || n > FD_SETSIZE || !select_valid(&s, except))
        return fails(EBADF);
    if (timeout)
        wait = (uint64_t)timeout->tv_sec * 1000 * NS_PER_MS +
               (uint64_t)timeout->tv_usec * 1000;
    sleep_until(select_any, &s, wait);
    if (except)
        FD_ZERO(except);
    hold_broken(select_any, &s);
    n = select_answer(&s, in, out);
    sim.held = 0;
    sim_note("select = %d", n);
    return n;
}

/* ---- the calls: clocks and entropy -------------------------------------- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
    int64_t ms;

    if (!sim.on)
        return __real_clock_gettime(clock, out);
    if (refused(SIM_clock_gettime))
        return -1;
    sim.now_ns += (uint64_t)sim.opts.tick_ns;
    ms = (int64_t)(sim.opts.now_ms + sim.now_ns / NS_PER_MS);
    if (clock == CLOCK_REALTIME)
        ms += INT64_C(1700000000000) + sim.wall_skew_ms;
    else
        ms += sim.mono_skew_ms;
    out->tv_sec = (time_t)(ms / 1000);
    out->tv_nsec =
        (long)((uint64_t)(ms % 1000) * NS_PER_MS + sim.now_ns % NS_PER_MS);
    return 0;
}

ssize_t __wrap_getrandom(void *out, size_t n, unsigned flags)
{
    uint8_t *at = out;
    size_t i, asked = n;

    if (!sim.on)
        return __real_getrandom(out, n, flags);
    if (refused(SIM_getrandom))
        return -1;
    /* Unasked only more than 256 bytes may come short. */
    if (n > 256)
        n = 256 + shorten(SIM_getrandom, n - 256);
    else if (sim.short_at[SIM_getrandom] == sim.calls[SIM_getrandom])
        n = shorten(SIM_getrandom, n);
    for (i = 0; i < n; i++)
        at[i] = (uint8_t)(draw(&sim.entropy) >> 56);
    return said(SIM_getrandom, (ssize_t)n, asked);
}
