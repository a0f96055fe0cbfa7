/*
 * The simulated kernel and what is tested on it.
 *
 *   test_sim                      everything; some seconds
 *   test_sim NAME...              only cases whose names hold one of these
 *   test_sim --addresses N NAME... so many of them, where addresses come
 *   test_sim --worlds N NAME...    so many random worlds behind the cases
 *   test_sim --seeds N, --seed S  only random worlds, or one; see worlds.h
 *
 * First the kernel itself is judged: against the real one, call by call, and
 * with a small echo server into which faults are planted, which must be found.
 * Then the deadlines of the library in virtual time, then random worlds
 * against a model (sim_model.c).
 */
#include "rtnet_internal.h"
#include "args.h"
#include "backends.h"
#include "kqueue/sys/event.h"
#include "sim.h"
#include "test.h"
#include "worlds.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 9000 };

static const sim_opts bad_weather = {.eintr = 100,
                                     .again = 200,
                                     .shorts = 500,
                                     .shuffle = 700,
                                     .late_us = 900,
                                     .tick_ns = 700};

/* ---- the real kernel and ours, call by call ----------------------------- */

/*
 * Two connected sockets, a and b, in one kernel or the other.  A script is a
 * text: small letters act on a, capitals on b.  s: send 3 bytes, r: recv 2,
 * w: shutdown for writing, e: SO_ERROR, l: close will reset, c: close.  After
 * each step the events of both are noted, so two notes of one script can be
 * compared.
 */
struct pair {
    int fd[2], ep;
    char note[2048];
};

static void note(struct pair *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note(struct pair *p, const char *format, ...)
{
    size_t n = strlen(p->note);
    va_list list;

    va_start(list, format);
    vsnprintf(p->note + n, sizeof p->note - n, format, list);
    va_end(list);
}

static void loopback(struct sockaddr_in *a, int port)
{
    memset(a, 0, sizeof *a);
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a->sin_port = htons((uint16_t)port);
}

static int stream_socket(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* A listening socket on any port, which goes to *port. */
static int listening(int *port)
{
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    int fd = stream_socket();

    loopback(&a, *port);
    if (bind(fd, (struct sockaddr *)&a, len) < 0 || listen(fd, 4) < 0)
        CHECK(errno == 0);
    getsockname(fd, (struct sockaddr *)&a, &len);
    *port = ntohs(a.sin_port);
    return fd;
}

static int connecting(int port)
{
    struct sockaddr_in a;
    int fd = stream_socket();

    loopback(&a, port);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        CHECK(errno == EINPROGRESS || errno == EINTR);
    return fd;
}

static int watch(int ep, int fd, int op, uint32_t events)
{
    struct epoll_event e;

    memset(&e, 0, sizeof e);
    e.events = events;
    e.data.u64 = (uint64_t)fd;
    return epoll_ctl(ep, op, fd, &e);
}

/* Waits for one event of a set; its mask, or 0. */
static uint32_t waited(int ep, int ms)
{
    struct epoll_event e;

    return epoll_wait(ep, &e, 1, ms) == 1 ? e.events : 0;
}

static void pair_open(struct pair *p)
{
    int port = 0, l = listening(&port);

    memset(p, 0, sizeof *p);
    p->ep = epoll_create1(EPOLL_CLOEXEC);
    p->fd[0] = connecting(port);
    watch(p->ep, p->fd[0], EPOLL_CTL_ADD, EPOLLOUT);
    CHECK(waited(p->ep, 1000) == EPOLLOUT);
    watch(p->ep, p->fd[0], EPOLL_CTL_DEL, 0);
    p->fd[1] = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(p->fd[1] >= 0);
    close(l);
}

static uint32_t events_of(const struct pair *p, int i)
{
    uint32_t e;

    watch(p->ep, p->fd[i], EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
    e = waited(p->ep, 0);
    watch(p->ep, p->fd[i], EPOLL_CTL_DEL, 0);
    return e;
}

static int error_of(int fd)
{
    socklen_t len = sizeof(int);
    int error = -1;

    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    return error;
}

static void set_linger(int fd)
{
    struct linger l = {1, 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
}

static void pair_act(struct pair *p, int i, char what)
{
    char buffer[2];
    ssize_t n = 0;

    errno = 0;
    if (what == 's')
        n = send(p->fd[i], "abc", 3, MSG_NOSIGNAL);
    else if (what == 'r')
        n = recv(p->fd[i], buffer, sizeof buffer, 0);
    else if (what == 'w')
        n = shutdown(p->fd[i], SHUT_WR);
    else if (what == 'e')
        n = error_of(p->fd[i]);
    else if (what == 'l')
        set_linger(p->fd[i]);
    note(p, " %c%d=%zd", what, i, n);
    if (n < 0)
        note(p, "/%d", errno);
}

static void pair_step(struct pair *p, char c, unsigned pause_us)
{
    int i = c < 'a', other = !i;

    if (p->fd[i] < 0)
        return;
    if ((c | 32) == 'c') {
        close(p->fd[i]);
        p->fd[i] = -1;
        note(p, " c%d", i);
    } else {
        pair_act(p, i, (char)(c | 32));
    }
    if (pause_us)
        usleep(pause_us);
    if (p->fd[i] >= 0)
        note(p, "(%x)", events_of(p, i));
    if (p->fd[other] >= 0)
        note(p, "[%x]", events_of(p, other));
}

static void pair_run(struct pair *p, const char *script, unsigned pause_us)
{
    pair_open(p);
    for (; *script; script++)
        pair_step(p, *script, pause_us);
    close(p->ep);
    if (p->fd[0] >= 0)
        close(p->fd[0]);
    if (p->fd[1] >= 0)
        close(p->fd[1]);
}

/* The real kernel may be late when the machine is busy: then once more. */
static void both_kernels_agree(const char *script)
{
    struct pair real, ours;

    sim_start(NULL);
    pair_run(&ours, script, 0);
    EQUAL(sim_end(), 0);
    pair_run(&real, script, 0);
    if (strcmp(real.note, ours.note) != 0)
        pair_run(&real, script, 20000);
    CHECK(strcmp(real.note, ours.note) == 0);
    if (strcmp(real.note, ours.note) != 0)
        printf("script %s\nreal%s\nours%s\n", script, real.note, ours.note);
}

static void sockets_behave_as_those_of_linux(void)
{
    static const char letters[] = "sSrRwWeElcSsrRC";
    uint64_t x = 1;
    char script[10];
    int i, k;

    for (i = 0; i < 400 && !test_bad; i++) {
        for (k = 0; k < 9; k++) {
            x = x * UINT64_C(6364136223846793005) + 1442695040888963407U;
            script[k] = letters[(x >> 33) % (sizeof letters - 1)];
        }
        script[9] = 0;
        both_kernels_agree(script);
    }
}

static uint32_t refused_connect(char *out, size_t cap)
{
    int port = 0, fd, ep = epoll_create1(EPOLL_CLOEXEC);
    uint32_t e;

    close(listening(&port));
    fd = connecting(port);
    watch(ep, fd, EPOLL_CTL_ADD, EPOLLOUT | EPOLLIN | EPOLLRDHUP);
    e = waited(ep, 1000);
    snprintf(out, cap, "%x %d", e, error_of(fd));
    e = waited(ep, 0);
    snprintf(out + strlen(out), cap - strlen(out), " %x %d", e, error_of(fd));
    close(fd);
    close(ep);
    return e;
}

static void a_refused_connect_looks_as_on_linux(void)
{
    char real[64], ours[64];

    sim_start(NULL);
    refused_connect(ours, sizeof ours);
    EQUAL(sim_end(), 0);
    refused_connect(real, sizeof real);
    CHECK(strcmp(real, ours) == 0);
}

/* ---- a small server, with faults planted into it ------------------------ */

enum plant { SOUND, LEAKS, SPINS, LOSES, CLOSES_TWICE, RAISES_SIGPIPE };

struct echo {
    enum plant plant;
    int ep, l;
    struct {
        int open;
        size_t len;
        char held[512];
    } line[64];
};

static void echo_close(struct echo *e, int fd)
{
    watch(e->ep, fd, EPOLL_CTL_DEL, 0);
    e->line[fd].open = 0;
    if (e->plant == LEAKS)
        return;
    close(fd);
    if (e->plant == CLOSES_TWICE)
        close(fd);
}

static void echo_write(struct echo *e, int fd)
{
    size_t len = e->line[fd].len;
    ssize_t n = 0;

    if (len)
        n = send(fd, e->line[fd].held, len,
                 e->plant == RAISES_SIGPIPE ? 0 : MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        echo_close(e, fd);
        return;
    }
    if (n > 0 && e->plant == LOSES)
        n = (ssize_t)len;
    if (n > 0)
        memmove(e->line[fd].held, e->line[fd].held + n, len - (size_t)n);
    e->line[fd].len -= n > 0 ? (size_t)n : 0;
    watch(e->ep, fd, EPOLL_CTL_MOD, e->line[fd].len ? EPOLLOUT : EPOLLIN);
}

static void echo_read(struct echo *e, int fd)
{
    ssize_t n = recv(fd, e->line[fd].held, sizeof e->line[fd].held, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        e->line[fd].len = (size_t)n;
    else if (e->plant != SPINS)
        echo_close(e, fd);
}

static void echo_event(struct echo *e, int fd)
{
    if (fd == e->l) {
        fd = accept4(e->l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        watch(e->ep, fd, EPOLL_CTL_ADD, EPOLLIN);
        e->line[fd].open = 1;
        return;
    }
    if (!e->line[fd].len)
        echo_read(e, fd);
    if (e->line[fd].open)
        echo_write(e, fd);
}

static void echo_start(struct echo *e, enum plant plant)
{
    int port = PORT;

    memset(e, 0, sizeof *e);
    e->plant = plant;
    e->l = listening(&port);
    do {
        e->ep = epoll_create1(EPOLL_CLOEXEC);
    } while (e->ep < 0);
    watch(e->ep, e->l, EPOLL_CTL_ADD, EPOLLIN);
}

static void echo_turn(struct echo *e)
{
    struct epoll_event events[4];
    int i, n = epoll_wait(e->ep, events, 4, 10);

    for (i = 0; i < n; i++) {
        if ((int)events[i].data.u64 == e->l || e->line[events[i].data.u64].open)
            echo_event(e, (int)events[i].data.u64);
    }
}

static void echo_stop(struct echo *e)
{
    int fd;

    for (fd = 0; fd < 64; fd++) {
        if (e->line[fd].open)
            echo_close(e, fd);
    }
    close(e->l);
    close(e->ep);
}

/* One who sends a known row of bytes and looks at what comes back. */
struct talker {
    sim_peer *line;
    size_t sent, got;
    int wrong;
};

enum { TALK = 5000 };

static uint8_t talk_byte(size_t at)
{
    return (uint8_t)(at * 7 + at / 256);
}

static void talker_act(struct talker *t)
{
    uint8_t bytes[300];
    size_t i, n = sim_choose(sizeof bytes);
    ptrdiff_t went;

    n = n < TALK - t->sent ? n : TALK - t->sent;
    for (i = 0; i < n; i++)
        bytes[i] = talk_byte(t->sent + i);
    went = sim_peer_send(t->line, bytes, n);
    t->sent += went > 0 ? (size_t)went : 0;
    sim_peer_window(t->line, sim_choose(400));
    n = sim_peer_recv(t->line, bytes, sim_choose(sizeof bytes));
    for (i = 0; i < n; i++)
        t->wrong += bytes[i] != talk_byte(t->got++);
}

/* Returns how many things were found to be wrong. */
static int echo_run(enum plant plant, uint64_t seed)
{
    sim_opts o = bad_weather;
    struct talker t[3] = {{NULL, 0, 0, 0}};
    struct echo e;
    int i, k, wrong = 0;

    o.seed = seed;
    o.window = 1000;
    sim_start(&o);
    echo_start(&e, plant);
    for (i = 0; i < 3; i++)
        t[i].line = sim_connect(PORT);
    for (k = 0; k < 2000; k++) {
        for (i = 0; i < 3; i++)
            talker_act(&t[i]);
        echo_turn(&e);
    }
    for (i = 0; i < 3; i++) {
        wrong += t[i].wrong + (t[i].got != TALK);
        sim_peer_close(t[i].line);
    }
    for (k = 0; k < 1000; k++)
        echo_turn(&e);
    echo_stop(&e);
    return sim_end() + wrong;
}

static void a_sound_server_passes_in_any_weather(void)
{
    uint64_t seed;

    for (seed = 1; seed <= 20; seed++)
        EQUAL(echo_run(SOUND, seed), 0);
    CHECK(sim_fault_text()[0] == 0);
}

static void a_leaked_descriptor_is_found(void)
{
    CHECK(echo_run(LEAKS, 1) > 0);
    CHECK(strstr(sim_fault_text(), "never closed"));
}

static void a_spin_is_found(void)
{
    CHECK(echo_run(SPINS, 1) > 0);
    CHECK(strstr(sim_fault_text(), "spins"));
}

static void a_lost_byte_is_found(void)
{
    CHECK(echo_run(LOSES, 1) > 0);
    CHECK(sim_faults() == 0); /* the talkers saw it */
}

static void a_second_close_is_found(void)
{
    CHECK(echo_run(CLOSES_TWICE, 1) > 0);
    CHECK(strstr(sim_fault_text(), "not open"));
}

static void a_send_that_could_raise_a_signal_is_found(void)
{
    CHECK(echo_run(RAISES_SIGPIPE, 1) > 0);
    CHECK(strstr(sim_fault_text(), "NOSIGNAL"));
}

/* ---- the rest of the kernel --------------------------------------------- */

static void at_time(void *arg)
{
    *(uint64_t *)arg = sim_now();
}

static void time_passes_only_in_waits(void)
{
    uint64_t start, ran = 0;
    int ep;

    sim_start(NULL);
    start = sim_now();
    ep = epoll_create1(EPOLL_CLOEXEC);
    sim_at(start + 40, at_time, &ran);
    EQUAL(waited(ep, 100), 0);
    EQUAL(sim_now() - start, 100);
    EQUAL(ran - start, 40);
    EQUAL(waited(ep, 0), 0);
    EQUAL(sim_now() - start, 100);
    sim_jump(-1000);
    EQUAL(start - sim_now(), 900);
    close(ep);
    EQUAL(sim_end(), 0);
}

static void both_clocks_are_virtual(void)
{
    struct timespec mono, wall, again;

    sim_start(NULL);
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_REALTIME, &wall);
    EQUAL(mono.tv_sec, 100000);
    sim_wall_jump(-7000);
    sim_pass(2500);
    clock_gettime(CLOCK_REALTIME, &again);
    EQUAL(again.tv_sec - wall.tv_sec, -5);
    clock_gettime(CLOCK_MONOTONIC, &again);
    EQUAL(again.tv_sec, 100002);
    EQUAL(again.tv_nsec, 500000000);
    EQUAL(sim_end(), 0);
}

static void a_wait_without_an_end_is_a_fault(void)
{
    int ep;

    sim_start(NULL);
    ep = epoll_create1(EPOLL_CLOEXEC);
    waited(ep, -1);
    close(ep);
    EQUAL(sim_end(), 1);
}

static void descriptors_are_the_lowest_and_run_out(void)
{
    int a, b, c;

    sim_start(NULL);
    sim_max_fds(5);
    a = stream_socket();
    b = stream_socket();
    EQUAL(a, 3);
    EQUAL(b, 4);
    c = stream_socket();
    CHECK(c < 0 && errno == EMFILE);
    close(a);
    EQUAL(sim_fds(), 1);
    EQUAL(stream_socket(), 3);
    close(3);
    close(b);
    EQUAL(sim_end(), 0);
}

static void the_nth_call_can_fail(void)
{
    sim_start(NULL);
    sim_fail(SIM_socket, 2, ENFILE);
    EQUAL(stream_socket(), 3);
    CHECK(stream_socket() < 0 && errno == ENFILE);
    EQUAL(stream_socket(), 4);
    EQUAL(sim_calls(SIM_socket), 3);
    close(3);
    close(4);
    EQUAL(sim_end(), 0);
}

static void allocation_is(int wanted)
{
    void *p = sim_realloc(NULL, NULL, 0, 8);

    EQUAL(p != NULL, wanted);
    sim_realloc(NULL, p, p ? 8 : 0, 0);
}

static void the_nth_allocation_can_fail(void)
{
    void *p;

    sim_start(NULL);
    sim_fail_memory(2, 0);
    p = sim_realloc(NULL, NULL, 0, 100);
    p = sim_realloc(NULL, p, 100, 50); /* what shrinks is not counted */
    CHECK(!sim_realloc(NULL, p, 50, 60));
    EQUAL(sim_heap(), 50);
    p = sim_realloc(NULL, p, 50, 60);
    EQUAL(sim_allocations(), 3);
    sim_realloc(NULL, p, 60, 0);
    sim_fail_memory(2, 1);
    allocation_is(1);
    allocation_is(0);
    allocation_is(0);
    sim_fail_memory(0, 0);
    allocation_is(1);
    EQUAL(sim_end(), 0);
}

static void the_nth_call_can_be_short(void)
{
    int port = PORT, l, fd;
    char bytes[10] = {0};
    struct iovec piece = {bytes, 10};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};
    sim_peer *p;

    sim_start(NULL);
    l = listening(&port);
    p = sim_connect(PORT);
    fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    sim_short(SIM_send, 2, 3);
    EQUAL(send(fd, bytes, 10, MSG_NOSIGNAL), 10);
    EQUAL(send(fd, bytes, 10, MSG_NOSIGNAL), 3);
    EQUAL(send(fd, bytes, 10, MSG_NOSIGNAL), 10);
    sim_short(SIM_sendmsg, 1, 4);
    EQUAL(sendmsg(fd, &m, MSG_NOSIGNAL), 4);
    sim_peer_send(p, bytes, 10);
    sim_short(SIM_recv, 1, 0);
    EQUAL(recv(fd, bytes, 10, 0), 1);
    EQUAL(recv(fd, bytes, 10, 0), 9);
    sim_short(SIM_getrandom, 1, 5);
    EQUAL(getrandom(bytes, 10, 0), 5);
    close(fd);
    close(l);
    EQUAL(sim_end(), 0);
}

static void choices_can_be_bytes(void)
{
    static const uint8_t bytes[] = {7, 255, 1, 2, 0, 0, 1, 1, 255};
    sim_opts o = {.choices = bytes, .choices_len = sizeof bytes};

    sim_start(&o);
    EQUAL(sim_choose(5), 2);
    EQUAL(sim_choose(256), 255);
    EQUAL(sim_choose(1000), 258);
    EQUAL(sim_choose(100000), 257);
    EQUAL(sim_choices_left(), 1);
    EQUAL(sim_chance(1), 1);
    EQUAL(sim_choose(5), 0); /* used up */
    EQUAL(sim_chance(999), 0);
    EQUAL(sim_end(), 0);
}

/* As often as permille says, by bytes too. */
static void chances_are_as_likely_by_bytes(void)
{
    static const int permille[] = {1, 100, 500, 900, 1000};
    int i, k, n;

    for (i = 0; i < 5; i++) {
        for (k = n = 0; k < 256; k++) {
            uint8_t byte = (uint8_t)k;
            sim_opts o = {.choices = &byte, .choices_len = 1};
            sim_start(&o);
            n += sim_chance(permille[i]);
            sim_end();
        }
        EQUAL(n, i < 4 ? (permille[i] * 256 + 999) / 1000 : 255);
    }
}

static void a_closed_window_stops_a_sender(void)
{
    int port = PORT, l, fd, ep;
    char bytes[100] = {0};
    sim_peer *p;

    sim_start(NULL);
    l = listening(&port);
    p = sim_connect(PORT);
    fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    ep = epoll_create1(EPOLL_CLOEXEC);
    watch(ep, fd, EPOLL_CTL_ADD, EPOLLOUT);
    sim_peer_window(p, 60);
    EQUAL(send(fd, bytes, 100, MSG_NOSIGNAL), 60);
    CHECK(send(fd, bytes, 100, MSG_NOSIGNAL) < 0 && errno == EAGAIN);
    EQUAL(waited(ep, 10), 0);
    EQUAL(sim_peer_recv(p, bytes, 100), 60);
    EQUAL(waited(ep, 10), EPOLLOUT);
    sim_peer_window(p, 0);
    CHECK(send(fd, bytes, 100, MSG_NOSIGNAL) < 0 && errno == EAGAIN);
    EQUAL(waited(ep, 10), 0);
    close(fd);
    close(l);
    close(ep);
    EQUAL(sim_end(), 0);
}

static void dials_are_answered_or_not(void)
{
    uint64_t start;
    int ok, hole, ep;

    sim_start(NULL);
    sim_serve(7000);
    sim_blackhole(7001);
    ep = epoll_create1(EPOLL_CLOEXEC);
    hole = connecting(7001);
    watch(ep, hole, EPOLL_CTL_ADD, EPOLLOUT);
    start = sim_now();
    EQUAL(waited(ep, 60000), 0);
    EQUAL(sim_now() - start, 60000);
    ok = connecting(7000);
    watch(ep, ok, EPOLL_CTL_ADD, EPOLLOUT);
    EQUAL(waited(ep, 60000), EPOLLOUT);
    EQUAL(error_of(ok), 0);
    CHECK(sim_accept(7000) != NULL);
    CHECK(sim_accept(7000) == NULL);
    CHECK(sim_connect(7002) == NULL && errno == ECONNREFUSED);
    close(hole);
    close(ok);
    close(ep);
    EQUAL(sim_end(), 0);
}

static void select_sees_what_epoll_sees(void)
{
    struct timeval tv = {1, 0};
    int port = PORT, l, fd;
    fd_set in, out;
    sim_peer *p;

    sim_start(NULL);
    l = listening(&port);
    p = sim_connect(PORT);
    fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(l, &in);
    FD_SET(fd, &in);
    EQUAL(select(10, &in, &out, NULL, &tv), 0);
    CHECK(!FD_ISSET(fd, &in));
    sim_peer_send(p, "x", 1);
    FD_SET(fd, &in);
    FD_SET(fd, &out);
    EQUAL(select(10, &in, &out, NULL, NULL), 2);
    CHECK(FD_ISSET(fd, &in) && FD_ISSET(fd, &out) && !FD_ISSET(l, &in));
    close(fd);
    close(l);
    EQUAL(sim_end(), 0);
}

/* A queue, a listener, and a peer's connection. */
struct knotes {
    int kq, l, fd;
    sim_peer *peer;
};

static void knotes_open(struct knotes *k)
{
    int port = PORT;

    sim_start(NULL);
    k->l = listening(&port);
    k->peer = sim_connect(PORT);
    k->fd = accept4(k->l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    k->kq = kqueue();
    EQUAL(fcntl(k->kq, F_SETFD, FD_CLOEXEC), 0);
}

static void knotes_close(struct knotes *k)
{
    if (k->fd >= 0)
        close(k->fd);
    close(k->l);
    close(k->kq);
    EQUAL(sim_end(), 0);
}

static int knote_set(struct knotes *k, int fd, int filter, int how, int udata)
{
    struct kevent e;

    EV_SET(&e, (uintptr_t)fd, filter, how, 0, 0, (void *)(intptr_t)udata);
    return kevent(k->kq, &e, 1, NULL, 0, NULL) == 0 ? 0 : errno;
}

/* What is told without waiting, one of it. */
static struct kevent knote_told(struct knotes *k, int n)
{
    struct timespec now = {0, 0};
    struct kevent e[8];

    memset(e, 0, sizeof e);
    EQUAL(kevent(k->kq, NULL, 0, e, 8, &now), n);
    return e[0];
}

static void kqueue_sees_what_epoll_sees(void)
{
    struct knotes k;
    struct kevent e;

    knotes_open(&k);
    EQUAL(knote_set(&k, k.l, EVFILT_READ, EV_ADD, 1), 0);
    EQUAL(knote_set(&k, k.fd, EVFILT_READ, EV_ADD, 2), 0);
    knote_told(&k, 0);
    sim_peer_send(k.peer, "x", 1);
    e = knote_told(&k, 1);
    CHECK((int)e.ident == k.fd && e.filter == EVFILT_READ && e.data == 1);
    CHECK((intptr_t)e.udata == 2 && e.flags == 0);
    EQUAL(knote_set(&k, k.fd, EVFILT_WRITE, EV_ADD, 3), 0);
    knote_told(&k, 2); /* each filter is an event of its own */
    CHECK(sim_connect(PORT) != NULL);
    knote_told(&k, 3);
    sim_peer_reset(k.peer);
    EQUAL(knote_set(&k, k.fd, EVFILT_READ, EV_DELETE, 0), 0);
    EQUAL(knote_set(&k, k.l, EVFILT_READ, EV_DISABLE, 0), 0);
    e = knote_told(&k, 1);
    CHECK(e.filter == EVFILT_WRITE && e.flags == EV_EOF);
    EQUAL(e.fflags, ECONNRESET);
    EQUAL(knote_set(&k, k.l, EVFILT_READ, EV_ENABLE, 0), 0);
    knote_told(&k, 2);
    knotes_close(&k);
}

static void a_change_that_fails_is_told(void)
{
    struct timespec now = {0, 0};
    struct kevent e[2], out[3];
    struct knotes k;

    knotes_open(&k);
    EQUAL(knote_set(&k, k.fd, EVFILT_READ, EV_DELETE, 0), ENOENT);
    EQUAL(knote_set(&k, k.fd, EVFILT_READ, EV_ENABLE, 0), ENOENT);
    sim_peer_send(k.peer, "x", 1);
    EV_SET(&e[0], (uintptr_t)k.fd, EVFILT_WRITE, EV_DELETE, 0, 0, NULL);
    EV_SET(&e[1], (uintptr_t)k.fd, EVFILT_READ, EV_ADD, 0, 0, NULL);
    EQUAL(kevent(k.kq, e, 2, out, 3, &now), 1); /* with room it goes on */
    CHECK(out[0].flags == EV_ERROR && out[0].data == ENOENT);
    knote_told(&k, 1);
    e[1].flags = EV_DELETE;
    EQUAL(kevent(k.kq, e, 2, NULL, 0, NULL), -1);
    EQUAL(errno, ENOENT);
    knote_told(&k, 1);
    e[1].flags = EV_ADD | EV_RECEIPT;
    EQUAL(kevent(k.kq, e + 1, 1, out, 3, &now), 1);
    CHECK(out[0].flags == EV_ERROR && out[0].data == 0);
    knotes_close(&k);
}

static void an_interrupted_kevent_has_made_its_changes(void)
{
    struct timespec now = {0, 0};
    struct kevent e;
    struct knotes k;

    knotes_open(&k);
    sim_peer_send(k.peer, "x", 1);
    sim_fail(SIM_kevent, 1, EINTR);
    EV_SET(&e, (uintptr_t)k.fd, EVFILT_READ, EV_ADD, 0, 0, NULL);
    EQUAL(kevent(k.kq, &e, 1, &e, 1, &now), -1);
    EQUAL(errno, EINTR);
    knote_told(&k, 1);
    sim_fail(SIM_kevent, 1, EINTR);
    EQUAL(knote_set(&k, k.fd, EVFILT_READ, EV_DELETE, 0), EINTR);
    knote_told(&k, 0);
    knotes_close(&k);
}

static void a_closed_descriptor_leaves_its_queue(void)
{
    struct knotes k;

    knotes_open(&k);
    EQUAL(knote_set(&k, k.fd, EVFILT_READ, EV_ADD, 0), 0);
    EQUAL(knote_set(&k, k.fd, EVFILT_WRITE, EV_ADD, 0), 0);
    knote_told(&k, 1);
    close(k.fd);
    knote_told(&k, 0);
    CHECK(sim_connect(PORT) != NULL);
    EQUAL(accept4(k.l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), k.fd);
    knote_told(&k, 0);
    EQUAL(knote_set(&k, k.fd, EVFILT_READ, EV_DELETE, 0), ENOENT);
    knotes_close(&k);
}

static void a_socket_file_outlives_its_server(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/tmp/game"};
    int fd, type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

    sim_start(NULL);
    fd = socket(AF_UNIX, type, 0);
    EQUAL(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    EQUAL(listen(fd, 5), 0);
    CHECK(sim_connect_path("/tmp/game") != NULL);
    close(fd);
    fd = socket(AF_UNIX, type, 0);
    CHECK(bind(fd, (struct sockaddr *)&a, sizeof a) < 0 && errno == EADDRINUSE);
    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) < 0 &&
          errno == ECONNREFUSED);
    EQUAL(unlink("/tmp/game"), 0);
    EQUAL(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd);
    EQUAL(sim_end(), 0);
}

/* The numbers of a run: of its entropy, its choices and its calls. */
static uint64_t digest_of(uint64_t seed)
{
    uint64_t sum = 0, random;
    int i;

    echo_run(SOUND, seed);
    for (i = 0; i < SIM_CALL_COUNT; i++)
        sum = sum * 31 + sim_calls((enum sim_call)i);
    sim_start(&(sim_opts){.seed = seed});
    if (getrandom(&random, sizeof random, 0) == sizeof random)
        sum = sum * 31 + random;
    sum = sum * 31 + sim_choose(1000000);
    sim_end();
    return sum;
}

static void a_seed_repeats_a_run(void)
{
    CHECK(digest_of(5) == digest_of(5));
    CHECK(digest_of(5) != digest_of(6));
}

/* ---- deadlines ---------------------------------------------------------- */

/*
 * One loop with one listener, and the peers of the present case.  Each case
 * runs on both backends; nothing is real, an hour costs milliseconds.
 */
static struct host {
    int backend;
    rt_loop *loop;
    rt_listener listener;
    ws_peer *peers[64];
    int peer_count;
    rt_session last;
    int opens, messages, closes;
    uint64_t closed_at;
    rt_end end;
    int answer;      /* of on_request */
    int close_it;    /* the server closes as soon as it is open */
    int hold_it;     /* the server reads nothing more after a message */
    uint64_t ran_at; /* of a timer */
} host;

static int on_request(rt_loop *l, rt_session s, const rt_request *r)
{
    (void)l;
    (void)s;
    (void)r;
    return host.answer;
}

static void on_open(rt_loop *l, rt_session s)
{
    host.opens++;
    host.last = s;
    if (host.close_it)
        EQUAL(rt_close(l, s, 4000, "enough"), 0);
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    host.messages++;
    if (host.hold_it)
        EQUAL(rt_read(l, s, 0), 0);
    CHECK(rt_send(l, s, kind, data, len) >= 0);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *end)
{
    (void)l;
    (void)s;
    host.closes++;
    host.closed_at = sim_now();
    host.end = *end;
    host.end.reason = NULL;
}

static const rt_handler handler = {.request = on_request,
                                   .open = on_open,
                                   .message = on_message,
                                   .close = on_close};

static void host_open(const sim_opts *weather)
{
    rt_loop_opts lo = {.backend = host.backend, .realloc = sim_realloc};
    rt_listen_opts o = {.on = handler};
    int backend = host.backend;

    sim_start(weather);
    memset(&host, 0, sizeof host);
    host.backend = backend;
    host.loop = rt_loop_new(&lo);
    CHECK(host.loop != NULL);
    if (!host.loop)
        return;
    host.listener = rt_listen(host.loop, "ws://127.0.0.1:9000", &o);
    CHECK(host.listener.id != 0);
}

static void host_end(void)
{
    int i;

    rt_loop_free(host.loop);
    EQUAL(host.closes, host.opens);
    for (i = 0; i < host.peer_count; i++)
        ws_free(host.peers[i]);
    EQUAL(sim_end(), 0);
    if (sim_faults())
        printf("%s: %s\n", test_name, sim_fault_text());
}

/* No reason yet to give a case up. */
static int well(void)
{
    return !test_bad && !sim_faults();
}

static void pump_all(void)
{
    int i;

    for (i = 0; i < host.peer_count; i++)
        ws_pump(host.peers[i]);
}

/* One turn of at most ms, with all peers awake before it. */
static void step(uint64_t ms)
{
    pump_all();
    CHECK(rt_poll(host.loop, ms < 50 ? (int)ms : 50) >= 0);
}

static void run(uint64_t ms)
{
    uint64_t end = sim_now() + ms;

    while (sim_now() < end && well())
        step(end - sim_now());
    pump_all();
}

/* Runs until the library has only n connections, at most limit; how long. */
static uint64_t until_lines(int n, uint64_t limit)
{
    uint64_t start = sim_now();

    while (sim_streams() > n && sim_now() < start + limit && well())
        step(50);
    return sim_now() - start;
}

/* Runs until n sessions were closed; how long. */
static uint64_t until_closes(int n, uint64_t limit)
{
    uint64_t start = sim_now();

    while (host.closes < n && sim_now() < start + limit && well())
        step(50);
    return (host.closes < n ? sim_now() : host.closed_at) - start;
}

static void between(uint64_t ms, uint64_t least, uint64_t most)
{
    CHECK(ms >= least);
    CHECK(ms <= most);
    if (ms < least || ms > most)
        printf("%s: %d ms, wanted %d to %d\n", test_name, (int)ms, (int)least,
               (int)most);
}

static ws_peer *peer_add(ws_peer *w)
{
    CHECK(w != NULL);
    if (w)
        host.peers[host.peer_count++] = w;
    return w;
}

/* A peer whose session is open. */
static ws_peer *peer_open(void)
{
    ws_peer *w = peer_add(ws_connect(PORT, "/"));
    int i;

    for (i = 0; i < 20 && !w->open; i++)
        step(1);
    CHECK(w->open);
    return w;
}

/* Bytes that go out one at a time. */
struct drip {
    ws_peer *to;
    const uint8_t *at;
    size_t left;
    uint64_t every;
};

static void drip_step(void *arg)
{
    struct drip *d = arg;

    ws_raw(d->to, d->at++, 1);
    ws_pump(d->to);
    if (--d->left && d->to->line)
        sim_at(sim_now() + d->every, drip_step, d);
}

static void drip(struct drip *d, ws_peer *to, const void *data, size_t len,
                 uint64_t every)
{
    d->to = to;
    d->at = data;
    d->left = len;
    d->every = every;
    sim_at(sim_now() + every, drip_step, d);
}

static void a_silent_handshake_ends_after_5_s(void)
{
    peer_add(ws_connect_silent(PORT));
    step(1);
    EQUAL(sim_streams(), 1);
    between(until_lines(0, 60000), 4990, 5100);
    EQUAL(host.opens, 0);
}

static void a_dripping_handshake_ends_after_5_s(void)
{
    const char *text = ws_request("/");
    struct drip d;

    drip(&d, peer_add(ws_connect_silent(PORT)), text, strlen(text), 100);
    step(1);
    between(until_lines(0, 60000), 4900, 5100);
    EQUAL(host.opens, 0);
}

static void a_handshake_of_3_s_is_in_time(void)
{
    const char *text = ws_request("/");
    ws_peer *w = peer_add(ws_connect_silent(PORT));
    struct drip d;

    drip(&d, w, text, strlen(text), 20);
    run(10000);
    CHECK(w->open);
    EQUAL(host.opens, 1);
    EQUAL(host.closes, 0);
}

static void an_idle_kept_alive_request_ends(void)
{
    const char *text = "GET / HTTP/1.1\r\nHost: game\r\n\r\n";
    ws_peer *w = peer_add(ws_connect_silent(PORT));

    ws_raw(w, text, strlen(text));
    run(100);
    EQUAL(w->status, 404);
    until_lines(0, 60000);
    EQUAL(sim_streams(), 0);
}

/* One frame, from whose first byte the deadline counts. */
static void a_dripping_message_ends_after_30_s(void)
{
    static uint8_t frame[1008];
    ws_peer *w = peer_open();
    struct drip d;

    memset(frame, 0, sizeof frame);
    memcpy(frame, "\x82\xfe\x03\xe8", 4);
    drip(&d, w, frame, sizeof frame, 1000);
    between(until_closes(1, 120000), 30900, 31100);
    EQUAL(host.end.cause, RT_BY_TIMEOUT);
    EQUAL(host.messages, 0);
    between(until_lines(0, 60000), 0, 5100);
}

static void dripping_fragments_end_after_30_s(void)
{
    ws_peer *w = peer_open();
    uint64_t start = sim_now();

    ws_frame(w, WS_BINARY, "x", 1);
    while (!host.closes && sim_now() < start + 120000 && well()) {
        run(1000);
        ws_frame(w, WS_MORE, "x", 1);
        ws_send(w, WS_PING, "y", 1);
    }
    between(host.closed_at - start, 29900, 30100);
    EQUAL(host.end.cause, RT_BY_TIMEOUT);
    EQUAL(host.messages, 0);
}

static void each_message_has_30_s_of_its_own(void)
{
    ws_peer *w = peer_open();
    int i, k;

    for (i = 0; i < 4; i++) {
        ws_frame(w, WS_BINARY, "x", 1);
        for (k = 0; k < 29; k++) {
            run(1000);
            ws_frame(w, k < 28 ? WS_MORE : 0x80, "x", 1);
        }
    }
    run(100);
    EQUAL(host.messages, 4);
    EQUAL(host.closes, 0);
}

static void note_ping(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    uint64_t *at = w->user;

    (void)data;
    (void)len;
    if (op == WS_PING && !*at)
        *at = sim_now();
}

static void the_first_ping_comes_at_a_random_point_of_15_s(void)
{
    uint64_t at[40] = {0}, start;
    int i, k, same = 0;
    ws_peer *w;

    for (i = 0; i < 40; i++) {
        w = peer_open();
        w->user = &at[i];
        w->on = note_ping;
    }
    start = sim_now();
    run(16000);
    for (i = 0; i < 40; i++) {
        CHECK(at[i] != 0 && at[i] < start + 15100);
        for (k = 0; k < i; k++)
            same += at[i] / 100 == at[k] / 100;
    }
    /* 780 pairs in 150 tenths of a second: about 5 meet by chance. */
    CHECK(same < 40);
}

static void pings_follow_each_15_s_of_silence(void)
{
    ws_peer *w = peer_open();
    int i, before;

    run(15100);
    before = w->pings_got;
    CHECK(before >= 1);
    run(150000);
    between((uint64_t)(w->pings_got - before), 9, 10);
    before = w->pings_got;
    for (i = 0; i < 60; i++) {
        ws_send(w, WS_TEXT, "x", 1);
        run(1000);
    }
    CHECK(w->pings_got - before <= 1); /* it was not silent */
    EQUAL(host.messages, 60);
}

static void an_unanswered_ping_is_death(void)
{
    ws_peer *w = peer_open();
    uint64_t ping = 0, start = sim_now();

    w->pongs = 0;
    w->user = &ping;
    w->on = note_ping;
    until_closes(1, 200000);
    EQUAL(w->pings_got, 2);
    between(host.closed_at - ping, 29900, 30100);
    CHECK(ping - start <= 15100);
    EQUAL(host.end.code, RT_CLOSE_DEAD);
    EQUAL(host.end.cause, RT_BY_TIMEOUT);
    until_lines(0, 6000);
    EQUAL(w->close_code, RT_CLOSE_DEAD);
}

/* A line that went without a word: nothing can be written either. */
static void a_dead_line_is_noticed(void)
{
    ws_peer *w = peer_open();

    w->reads = 0;
    sim_peer_window(w->line, 0);
    between(until_closes(1, 200000), 29000, 45200);
    EQUAL(host.end.code, RT_CLOSE_DEAD);
    between(until_lines(0, 60000), 0, 5100);
}

static void who_answers_lives_for_an_hour(void)
{
    ws_peer *w[3];
    int i;

    for (i = 0; i < 3; i++)
        w[i] = peer_open();
    run(3600000);
    EQUAL(host.closes, 0);
    for (i = 0; i < 3; i++)
        between((uint64_t)w[i]->pings_got, 235, 245);
}

static void an_unanswered_close_ends_after_5_s(void)
{
    ws_peer *w;

    host.close_it = 1;
    w = peer_add(ws_connect(PORT, "/"));
    w->closes = 0;
    until_closes(1, 1000);
    EQUAL(host.closes, 1);
    EQUAL(host.end.code, 4000);
    EQUAL(host.end.cause, RT_BY_APP);
    EQUAL(sim_streams(), 1);
    between(until_lines(0, 60000), 4900, 5100);
    EQUAL(w->close_code, 4000);
}

static void a_close_that_cannot_be_written_ends_after_5_s(void)
{
    ws_peer *w = peer_open();
    char bytes[2000] = {0};

    w->reads = 0;
    sim_peer_window(w->line, 0);
    CHECK(rt_send(host.loop, host.last, RT_BINARY, bytes, 2000) >= 0);
    run(1000);
    EQUAL(rt_close(host.loop, host.last, 0, NULL), 0);
    between(until_lines(0, 60000), 4900, 5100);
}

/* It talks on after the close instead of answering. */
static void a_peer_that_talks_on_after_a_close_ends_after_5_s(void)
{
    ws_peer *w = peer_open();
    uint64_t start;

    w->closes = 0;
    EQUAL(rt_close(host.loop, host.last, 0, NULL), 0);
    start = sim_now();
    while (sim_streams() && sim_now() < start + 60000 && well()) {
        if (w->line)
            ws_send(w, WS_TEXT, "more", 4);
        run(100);
    }
    between(sim_now() - start, 4900, 5200);
    EQUAL(host.messages, 0);
}

/* What was read, but kept back for one who is held, must not be forgotten: the
   answer to a close stands behind it. */
static void who_is_closed_while_held_is_understood(void)
{
    ws_peer *w = peer_open();

    host.hold_it = 1;
    ws_send(w, WS_TEXT, "one", 3);
    ws_send(w, WS_TEXT, "two", 3);
    ws_raw(w, "\x81\x85mask", 6); /* the head of a third */
    run(100);
    EQUAL(host.messages, 1);
    EQUAL(rt_close(host.loop, host.last, 4000, NULL), 0);
    ws_raw(w, "three", 5);
    between(until_lines(0, 60000), 0, 200);
    pump_all();
    EQUAL(w->close_code, 4000);
    EQUAL(w->last, SIM_FIN);
    EQUAL(host.messages, 1);
}

static void a_deferred_request_is_503_after_15_s(void)
{
    ws_peer *w;

    host.answer = RT_DEFER;
    w = peer_add(ws_connect(PORT, "/"));
    run(14900);
    EQUAL(w->status, 0);
    run(300);
    EQUAL(w->status, 503);
    until_lines(0, 6000);
    EQUAL(sim_streams(), 0);
    EQUAL(host.opens, 0);
}

static uint64_t dial_ends(const char *url)
{
    rt_dial_opts o = {.on = handler};
    rt_session s = rt_dial(host.loop, url, &o);
    uint64_t ms;

    CHECK(s.id != 0);
    EQUAL(rt_state(host.loop, s), RT_OPENING);
    ms = until_closes(1, 60000);
    EQUAL(host.opens, 0);
    EQUAL(host.closes, 1);
    EQUAL(rt_state(host.loop, s), RT_EGONE);
    host.closes = 0;
    return ms;
}

static void a_connect_without_an_answer_ends_after_5_s(void)
{
    sim_blackhole(7000);
    between(dial_ends("ws://127.0.0.1:7000/"), 4990, 5100);
    EQUAL(host.end.cause, RT_BY_TIMEOUT);
    EQUAL(host.end.code, 1006);
}

static void a_refused_connect_ends_at_once(void)
{
    between(dial_ends("ws://127.0.0.1:7000/"), 0, 100);
    EQUAL(host.end.code, 1006);
}

static void a_dial_whose_server_is_silent_ends_after_5_s(void)
{
    sim_serve(7000);
    between(dial_ends("ws://127.0.0.1:7000/"), 4990, 10100);
    EQUAL(host.end.cause, RT_BY_TIMEOUT);
    EQUAL(host.end.code, 1006);
}

static void a_dialled_server_that_dies_is_noticed(void)
{
    rt_dial_opts o = {.on = handler};
    ws_peer *w;

    sim_serve(7000);
    CHECK(rt_dial(host.loop, "ws://127.0.0.1:7000/x", &o).id != 0);
    step(10);
    step(10);
    w = peer_add(ws_accept(7000));
    if (!w)
        return;
    run(20000);
    EQUAL(host.opens, 1);
    CHECK(w->pings_got > 0);
    w->pongs = 0;
    until_closes(1, 60000);
    EQUAL(host.end.code, RT_CLOSE_DEAD);
}

/* A machine that slept half a day: who answers the next ping stays. */
static void a_clock_that_jumps_ahead_kills_nobody(void)
{
    ws_peer *w[10];
    int i;

    for (i = 0; i < 10; i++)
        w[i] = peer_open();
    run(20000);
    sim_jump(12 * 3600 * INT64_C(1000));
    run(120000);
    EQUAL(host.closes, 0);
    for (i = 0; i < 10; i++) {
        ws_send(w[i], WS_TEXT, "there?", 6);
        CHECK(w[i]->pings_got > 1);
    }
    run(1000);
    EQUAL(host.messages, 10);
    w[0]->pongs = 0;
    until_closes(1, 60000);
    EQUAL(host.closes, 1);
    EQUAL(host.end.code, RT_CLOSE_DEAD);
}

static void a_clock_that_goes_back_is_held(void)
{
    ws_peer *w = peer_open();
    uint64_t before;
    int i;

    run(20000);
    before = rt_now(host.loop);
    sim_jump(-3600 * INT64_C(1000));
    for (i = 0; i < 50; i++) {
        CHECK(rt_now(host.loop) >= before);
        before = rt_now(host.loop);
        ws_send(w, WS_TEXT, "x", 1);
        run(1000);
    }
    EQUAL(host.messages, 50);
    EQUAL(host.closes, 0);
}

static void the_wall_clock_does_not_matter(void)
{
    ws_peer *w = peer_open();

    sim_wall_jump(-3600 * INT64_C(1000));
    run(20000);
    sim_wall_jump(365 * 86400 * INT64_C(1000));
    run(20000);
    EQUAL(host.closes, 0);
    between((uint64_t)w->pings_got, 2, 3);
}

/* It cannot be heard, so its silence says nothing. */
static void who_is_not_read_is_not_silent(void)
{
    ws_peer *w = peer_open();

    EQUAL(rt_read(host.loop, host.last, 0), 0);
    ws_send(w, WS_TEXT, "held", 4);
    run(600000);
    EQUAL(host.closes, 0);
    EQUAL(host.messages, 0);
    EQUAL(rt_read(host.loop, host.last, 1), 0);
    run(60000);
    EQUAL(host.messages, 1);
    EQUAL(host.closes, 0);
    w->pongs = 0;
    until_closes(1, 60000);
    EQUAL(host.end.code, RT_CLOSE_DEAD);
}

static void note_time(rt_loop *l, void *arg)
{
    *(uint64_t *)arg = rt_now(l);
}

static void a_timer_runs_when_it_is_due(void)
{
    uint64_t start = rt_now(host.loop);

    rt_timer_start(host.loop, (rt_session){0}, start + 1234, note_time,
                   &host.ran_at);
    while (!host.ran_at && sim_now() < start + 5000)
        rt_poll(host.loop, 100000);
    between(host.ran_at - start, 1234, 1236);
}

/* ---- the library on both sides ------------------------------------------ */

enum { LETTERS = 300, LETTER = 3000 };

static struct {
    rt_session to;
    int opens, closes, sent, got, wrong;
} caller;

static size_t letter(int i, uint8_t *out)
{
    size_t k, len = (size_t)i * 7919 % LETTER;

    for (k = 0; k < len; k++)
        out[k] = (uint8_t)((size_t)i + k);
    return len;
}

static void caller_open(rt_loop *l, rt_session s)
{
    (void)l;
    caller.to = s;
    caller.opens++;
}

static void caller_message(rt_loop *l, rt_session s, int kind, const void *data,
                           size_t len)
{
    uint8_t want[LETTER];
    size_t n = letter(caller.got++, want);

    (void)l;
    (void)s;
    if (kind != RT_BINARY || n != len || memcmp(want, data, n) != 0)
        caller.wrong++;
}

static void caller_close(rt_loop *l, rt_session s, const rt_end *end)
{
    (void)l;
    (void)s;
    (void)end;
    caller.closes++;
}

static void caller_send(void)
{
    uint8_t bytes[LETTER];
    size_t n;

    if (!caller.opens || rt_unsent(host.loop, caller.to) > 20000)
        return;
    n = letter(caller.sent++, bytes);
    CHECK(rt_send(host.loop, caller.to, RT_BINARY, bytes, n) >= 0);
}

/* Letters to the echo of host and back, then both ends close. */
static void letters_come_back(const char *listen, const char *dial)
{
    rt_dial_opts o = {.on = {.open = caller_open,
                             .message = caller_message,
                             .close = caller_close}};
    rt_listen_opts lo = {.on = handler};
    int i;

    memset(&caller, 0, sizeof caller);
    CHECK(rt_listen(host.loop, listen, &lo).id != 0);
    CHECK(rt_dial(host.loop, dial, &o).id != 0);
    for (i = 0; i < 200000 && caller.got < LETTERS && well(); i++) {
        if (caller.sent < LETTERS)
            caller_send();
        rt_poll(host.loop, 5);
    }
    EQUAL(caller.got, LETTERS);
    EQUAL(caller.wrong, 0);
    EQUAL(rt_close(host.loop, caller.to, 0, NULL), 0);
    run(20000);
    EQUAL(caller.opens, 1);
    EQUAL(caller.closes, 1);
    EQUAL(host.closes, 1);
    EQUAL(sim_streams(), 0);
}

static void bad_weather_begins(uint64_t seed)
{
    sim_opts o = bad_weather;

    rt_loop_free(host.loop);
    EQUAL(sim_end(), 0);
    o.seed = seed;
    o.window = 700;
    host_open(&o);
}

static void letters_over_websocket(void)
{
    bad_weather_begins(1);
    letters_come_back("ws://127.0.0.1:9001", "ws://127.0.0.1:9001/x");
}

static void letters_over_ipv6(void)
{
    bad_weather_begins(2);
    letters_come_back("ws://[::1]:9001", "ws://[::1]:9001/x");
}

static void letters_over_tcp(void)
{
    bad_weather_begins(3);
    letters_come_back("tcp://127.0.0.1:9001", "tcp://127.0.0.1:9001");
}

static void letters_over_a_local_socket(void)
{
    bad_weather_begins(4);
    letters_come_back("unix:/tmp/letters", "unix:/tmp/letters");
}

static void letters_over_local_tcp(void)
{
    bad_weather_begins(5);
    letters_come_back("tcp+unix:/tmp/letters", "tcp+unix:/tmp/letters");
}

/* ---- bounds ------------------------------------------------------------- */

/* How much more memory the loop holds than when its peer had come. */
static size_t grown(size_t before)
{
    return sim_heap() > before ? sim_heap() - before : 0;
}

/* Of the pings of one who does not read only the last is answered later. */
static void pings_unread_cost_nothing(void)
{
    rt_listen_opts o = {.on = handler, .control_rate = RT_OFF};
    ws_peer *w;
    size_t before;
    int i, k;

    EQUAL(rt_unlisten(host.loop, host.listener), 0);
    host.listener = rt_listen(host.loop, "ws://127.0.0.1:9000", &o);
    w = peer_open();
    before = sim_heap();
    w->reads = 0;
    sim_peer_window(w->line, 0);
    for (i = 0; i < 100 && well(); i++) {
        for (k = 0; k < 1000; k++)
            ws_send(w, WS_PING, "0123456789", 10);
        step(1);
    }
    CHECK(grown(before) < 70000); /* one turn's, then folded */
    w->reads = 1;
    sim_peer_window(w->line, 65536);
    run(1000);
    CHECK(w->pongs_got > 0);
    EQUAL(host.closes, 0);
}

/* 64 KiB are announced. */
static void a_length_alone_costs_little(void)
{
    ws_peer *w = peer_open();
    size_t before = sim_heap();

    ws_raw(w,
           "\x82\xfe\xff\xff"
           "mask"
           "bytes",
           13);
    run(100);
    EQUAL(host.closes, 0);
    CHECK(grown(before) < 40000); /* a first buffer */
}

static void an_impossible_length_is_1009(void)
{
    ws_peer *w = peer_open();
    size_t before = sim_heap();

    ws_raw(w,
           "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xfc"
           "mask",
           14);
    run(100);
    EQUAL(w->close_code, 1009);
    EQUAL(host.closes, 1);
    CHECK(grown(before) < 8192);
}

static void empty_fragments_have_an_end(void)
{
    ws_peer *w = peer_open();
    size_t before = sim_heap();
    int i;

    ws_frame(w, WS_TEXT, "", 0);
    for (i = 0; i < 100000 && !host.closes; i++) {
        ws_frame(w, WS_MORE, "", 0);
        if (i % 100 == 0)
            step(1);
        CHECK(grown(before) < 8192);
    }
    EQUAL(host.end.code, 1009);
    CHECK(i < 2000);
}

/* All of them are reached in the turn, whoever among them does not read. */
static void who_does_not_read_delays_nobody(void)
{
    char bytes[1000] = {0};
    ws_peer *w[20];
    rt_group g;
    int i, k;

    g = rt_group_open(host.loop, "all", NULL);
    for (i = 0; i < 20; i++) {
        w[i] = peer_open();
        EQUAL(rt_group_join(host.loop, g, host.last), 0);
    }
    w[0]->reads = 0;
    sim_peer_window(w[0]->line, 0);
    for (k = 0; k < 2000; k++) {
        rt_group_send(host.loop, g, RT_BINARY, bytes, sizeof bytes);
        rt_poll(host.loop, 0);
        for (i = 1; i < 20; i++)
            EQUAL(sim_peer_waiting(w[i]->line), sizeof bytes + 4);
        pump_all();
    }
    EQUAL(host.closes, 1);
    EQUAL(host.end.code, RT_CLOSE_SLOW);
    CHECK(sim_heap_peak() < 2 * 1048576); /* of which 1 MiB is its hard mark */
}

/* The spare descriptor is for turning away whom there is no room for. */
static void without_descriptors_peers_are_turned_away(void)
{
    sim_peer *p;

    sim_max_fds(3 + sim_fds());
    p = sim_connect(PORT);
    run(1000);
    CHECK(sim_peer_state(p) != SIM_UP);
    EQUAL(sim_streams(), 0);
    sim_max_fds(1000);
    peer_open();
    EQUAL(host.opens, 1);
}

static void without_any_descriptor_the_listener_rests(void)
{
    uint64_t calls;

    sim_max_fds(3);
    CHECK(sim_connect(PORT) != NULL);
    run(100);
    calls = sim_calls(SIM_accept4);
    run(10000);
    CHECK(sim_calls(SIM_accept4) - calls <= 200); /* 10 times a second */
    sim_max_fds(1000);
    run(1000);
    EQUAL(sim_streams(), 1);
}

static void nothing_happens(rt_loop *l, rt_watch w, int events, void *arg)
{
    (void)l;
    (void)w;
    (void)events;
    (void)arg;
}

/* Neither of its two bits stays behind in the backend, where it would wake the
   loop for nobody. */
static void half_a_watch_is_none(void)
{
    static const enum sim_call set[] = {SIM_epoll_ctl, SIM_kevent};
    int end[2], i;

    EQUAL(pipe2(end, O_CLOEXEC | O_NONBLOCK), 0);
    EQUAL(write(end[1], "x", 1), 1);
    for (i = 0; i < 2; i++)
        sim_fail(set[i], 1, ENOMEM);
    i = rt_watch_start(host.loop, end[0], RT_READ | RT_WRITE, nothing_happens,
                       NULL)
            .id != 0;
    EQUAL(i, host.backend == RT_SELECT);
    run(host.backend == RT_SELECT ? 0 : 10000);
    close(end[0]);
    close(end[1]);
}

/* ---- one message a second ------------------------------------------------ */

static struct {
    sim_peer *peer;
    uint64_t start, passed[8];
    int passes, limits;
} second;

static void second_message(rt_loop *l, rt_session s, int kind, const void *data,
                           size_t len)
{
    (void)l;
    (void)s;
    (void)kind;
    (void)data;
    (void)len;
    second.passed[second.passes++ & 7] = sim_now() - second.start;
}

static void second_limit(rt_loop *l, rt_session s, int what)
{
    (void)l;
    (void)s;
    second.limits += what == RT_LIMIT_RATE || what == RT_LIMIT_MESSAGES;
}

static void second_says(void *arg)
{
    (void)arg;
    EQUAL(sim_peer_send(second.peer, "\0\0\0\1x", 5), 5);
}

/* A listener of its own, whose peer says something at those times. */
static void second_run(rt_listen_opts *o, const int *at, int n)
{
    rt_listener door;
    int i;

    memset(&second, 0, sizeof second);
    o->on.message = second_message;
    o->on.limit = second_limit;
    door = rt_listen(host.loop, "tcp://127.0.0.1:9001", o);
    CHECK(door.id != 0);
    second.peer = sim_connect(9001);
    run(10);
    second.start = sim_now();
    for (i = 0; i < n; i++)
        sim_at(second.start + (uint64_t)at[i], second_says, NULL);
    run(5000);
    sim_peer_close(second.peer);
    run(10);
    EQUAL(rt_unlisten(host.loop, door), 0);
}

/* By window or by bucket: one at 0.2 s lets the next pass at 1.2 s, and not at
   1.19 s; what is refused takes nothing.  In ms that is exact. */
static void one_a_second_passes_exactly_a_second_later(void)
{
    static const int at[] = {200, 1190, 1199, 1200, 2199, 2200};
    int way;

    for (way = 0; way < 2; way++) {
        rt_listen_opts o = {.rate_over = RT_OVER_DROP, .ping_ms = RT_OFF};
        o.rate_limit = way ? 0 : 1;
        o.rate_ms = way ? 0 : 1000;
        o.message_rate = o.message_burst = way;
        second_run(&o, at, 6);
        EQUAL(second.passes, 3);
        EQUAL(second.limits, 3);
        EQUAL(second.passed[0], 200);
        EQUAL(second.passed[1], 1200);
        EQUAL(second.passed[2], 2200);
    }
}

/* Nothing is lost by a pause: each passes as soon as it may. */
static void a_pause_ends_exactly_a_second_later(void)
{
    static const int at[] = {200, 1190, 1195};
    rt_listen_opts o = {
        .rate_limit = 1, .rate_over = RT_OVER_PAUSE, .ping_ms = RT_OFF};

    second_run(&o, at, 3);
    EQUAL(second.passes, 3);
    EQUAL(second.passed[0], 200);
    EQUAL(second.passed[1], 1200);
    EQUAL(second.passed[2], 2200);
    EQUAL(second.limits, 0);
}

/* ---- a million addresses ------------------------------------------------- */

enum { DOOR = 9001, DOOR_LIVE = 128, DOOR_MOST = 4 };
static int addresses = 30000; /* --addresses N; a million in make check */

static struct {
    sim_peer *in[DOOR_LIVE];
    uint64_t came, refused;
} door;

/* By IPv4, by IPv6, and behind a proxy: a listener for each. */
static void door_open(void)
{
    rt_listen_opts o = {.on = handler,
                        .framing = RT_LENGTH,
                        .ping_ms = RT_OFF,
                        .max_per_address = DOOR_MOST};

    memset(&door, 0, sizeof door);
    CHECK(rt_listen(host.loop, "tcp://127.0.0.1:9001", &o).id != 0);
    CHECK(rt_listen(host.loop, "tcp://[::1]:9002", &o).id != 0);
    o.proxies = "10.1.2.3";
    o.proxy_protocol = 1;
    CHECK(rt_listen(host.loop, "tcp://127.0.0.1:9003", &o).id != 0);
}

/* Each number has an address, or a /64, of its own. */
static sim_peer *door_knock(uint32_t who)
{
    uint32_t x = who * 2654435761u;
    char at[48], head[80];
    sim_peer *p;
    int n;

    if (who % 3 == 1)
        snprintf(at, sizeof at, "2001:db8:%x:%x::%x", (unsigned)(x >> 16),
                 (unsigned)(x & 0xffff), (unsigned)(door.came % 9));
    else
        snprintf(at, sizeof at, "%u.%u.%u.%u", (unsigned)(x >> 24),
                 (unsigned)(x >> 16 & 255), (unsigned)(x >> 8 & 255),
                 (unsigned)(x & 255));
    if (who % 3 < 2)
        return sim_connect_from(DOOR + (int)(who % 3), at);
    n = snprintf(head, sizeof head, "PROXY TCP4 %s 10.1.2.3 1 2\r\n", at);
    p = sim_connect_from(DOOR + 2, "10.1.2.3");
    if (p)
        sim_peer_send(p, head, (size_t)n);
    return p;
}

/* One more; the one that came longest ago goes. */
static void door_next(uint32_t who, int refused)
{
    sim_peer **p = &door.in[door.came++ % DOOR_LIVE];

    if (*p)
        sim_peer_close(*p);
    *p = door_knock(who);
    CHECK(*p != NULL);
    door.refused += (uint64_t)refused;
    if (door.came % 8 == 0) {
        CHECK(rt_poll(host.loop, 0) >= 0);
        CHECK(rt_poll(host.loop, 0) >= 0);
    }
}

static void door_empty(void)
{
    int i;

    for (i = 0; i < DOOR_LIVE; i++)
        if (door.in[i])
            sim_peer_close(door.in[i]);
    run(1000);
    EQUAL(sim_streams(), 0);
}

/* How many the loop refused for their address. */
static uint64_t door_refusals(void)
{
    return host.loop->stats.refused_by[RT__REFUSED_ADDRESS];
}

/* All who may come in do, and nobody who may not; the table does not grow, and
   nothing is left in it. */
static void addresses_come_and_go_through_the_door(void)
{
    static const rt__sketch empty;
    size_t heap = 0;
    int who, k;

    door_open();
    for (who = 0; who < addresses && well(); who++) {
        int times = who % 61 ? 1 : DOOR_MOST + 2;
        for (k = 0; k < times; k++)
            door_next((uint32_t)who, k >= DOOR_MOST);
        if (who == 5000)
            heap = sim_heap_peak();
    }
    run(100);
    EQUAL(door_refusals(), door.refused);
    EQUAL((uint64_t)host.opens + door.refused, door.came);
    CHECK(sim_heap_peak() <= heap);
    door_empty();
    CHECK(memcmp(host.loop->sketch, &empty, sizeof empty) == 0);
}

/* ---- cases -------------------------------------------------------------- */

struct test_case {
    const char *name;
    void (*run)(void);
};

#define CASE(name)                                                             \
    {                                                                          \
#name, name                                                            \
    }

static const struct test_case kernel_cases[] = {
    CASE(sockets_behave_as_those_of_linux),
    CASE(a_refused_connect_looks_as_on_linux),
    CASE(a_sound_server_passes_in_any_weather),
    CASE(a_leaked_descriptor_is_found),
    CASE(a_spin_is_found),
    CASE(a_lost_byte_is_found),
    CASE(a_second_close_is_found),
    CASE(a_send_that_could_raise_a_signal_is_found),
    CASE(time_passes_only_in_waits),
    CASE(both_clocks_are_virtual),
    CASE(a_wait_without_an_end_is_a_fault),
    CASE(descriptors_are_the_lowest_and_run_out),
    CASE(the_nth_call_can_fail),
    CASE(the_nth_allocation_can_fail),
    CASE(the_nth_call_can_be_short),
    CASE(choices_can_be_bytes),
    CASE(chances_are_as_likely_by_bytes),
    CASE(a_closed_window_stops_a_sender),
    CASE(dials_are_answered_or_not),
    CASE(select_sees_what_epoll_sees),
    CASE(kqueue_sees_what_epoll_sees),
    CASE(a_change_that_fails_is_told),
    CASE(an_interrupted_kevent_has_made_its_changes),
    CASE(a_closed_descriptor_leaves_its_queue),
    CASE(a_socket_file_outlives_its_server),
    CASE(a_seed_repeats_a_run),
};

static const struct test_case loop_cases[] = {
    CASE(a_silent_handshake_ends_after_5_s),
    CASE(a_dripping_handshake_ends_after_5_s),
    CASE(a_handshake_of_3_s_is_in_time),
    CASE(an_idle_kept_alive_request_ends),
    CASE(a_dripping_message_ends_after_30_s),
    CASE(dripping_fragments_end_after_30_s),
    CASE(each_message_has_30_s_of_its_own),
    CASE(the_first_ping_comes_at_a_random_point_of_15_s),
    CASE(pings_follow_each_15_s_of_silence),
    CASE(an_unanswered_ping_is_death),
    CASE(a_dead_line_is_noticed),
    CASE(who_answers_lives_for_an_hour),
    CASE(an_unanswered_close_ends_after_5_s),
    CASE(a_close_that_cannot_be_written_ends_after_5_s),
    CASE(a_peer_that_talks_on_after_a_close_ends_after_5_s),
    CASE(who_is_closed_while_held_is_understood),
    CASE(a_deferred_request_is_503_after_15_s),
    CASE(a_connect_without_an_answer_ends_after_5_s),
    CASE(a_refused_connect_ends_at_once),
    CASE(a_dial_whose_server_is_silent_ends_after_5_s),
    CASE(a_dialled_server_that_dies_is_noticed),
    CASE(a_clock_that_jumps_ahead_kills_nobody),
    CASE(a_clock_that_goes_back_is_held),
    CASE(the_wall_clock_does_not_matter),
    CASE(who_is_not_read_is_not_silent),
    CASE(a_timer_runs_when_it_is_due),
    CASE(letters_over_websocket),
    CASE(letters_over_ipv6),
    CASE(letters_over_tcp),
    CASE(letters_over_a_local_socket),
    CASE(letters_over_local_tcp),
    CASE(pings_unread_cost_nothing),
    CASE(a_length_alone_costs_little),
    CASE(an_impossible_length_is_1009),
    CASE(empty_fragments_have_an_end),
    CASE(who_does_not_read_delays_nobody),
    CASE(without_descriptors_peers_are_turned_away),
    CASE(without_any_descriptor_the_listener_rests),
    CASE(half_a_watch_is_none),
    CASE(one_a_second_passes_exactly_a_second_later),
    CASE(a_pause_ends_exactly_a_second_later),
    CASE(addresses_come_and_go_through_the_door),
};

#undef CASE

static void loop_case_run(const struct test_case *c, int backend)
{
    test_begin("%s, %s", c->name, backend_names[backend]);
    host.backend = backend;
    host_open(NULL);
    if (host.loop && host.listener.id)
        c->run();
    host_end();
    test_end();
}

static void cases_run(int argc, char **argv)
{
    size_t i;
    int backend;

    for (i = 0; i < sizeof kernel_cases / sizeof *kernel_cases; i++) {
        if (!wanted(kernel_cases[i].name, argc, argv))
            continue;
        test_begin("%s", kernel_cases[i].name);
        kernel_cases[i].run();
        test_end();
    }
    for (i = 0; i < sizeof loop_cases / sizeof *loop_cases; i++) {
        if (!wanted(loop_cases[i].name, argc, argv))
            continue;
        for (backend = 0; (backend = backend_next(backend)) != 0;)
            loop_case_run(&loop_cases[i], backend);
    }
}

/* ---- main --------------------------------------------------------------- */

int main(int argc, char **argv)
{
    struct world_kind kind = {"model", model_run, NULL, 800};

    if (flag(argc, argv, "--seed") || flag(argc, argv, "--seeds"))
        return worlds_main(&kind, argc, argv);
    addresses = (int)option(argc, argv, "--addresses", (uint64_t)addresses);
    kind.seeds = option(argc, argv, "--worlds", kind.seeds);
    while (argc > 2 && argv[1][0] == '-') {
        argc -= 2;
        argv += 2;
    }
    cases_run(argc, argv);
    if (wanted("worlds", argc, argv)) {
        a_seed_repeats_a_world(&kind);
        calm_worlds(&kind, 1, 20);
        worlds_run(&kind, 1, kind.seeds, 0);
        tally_print();
    }
    sim_print_total();
    return test_done();
}
