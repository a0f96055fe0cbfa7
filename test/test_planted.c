/*
 * Is what the random worlds check for found when it is there?  Between the
 * unmodified objects of the library and the simulated kernel lies a layer (the
 * library's calls are renamed by planted.syms), and another one between the
 * worlds and rtnet.h; in each run one of them does one thing wrong, as a faulty
 * library would.  Each fault must be found by the check that is there for it.
 */
#define _GNU_SOURCE
#include "rtnet.h"
#include "args.h"
#include "backends.h"
#include "sim.h"
#include "test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* name, the world that must find it, and what that says: one of these. */
#define PLANTS(X)                                                              \
    X(sound, model, NULL)                                                      \
    X(ignores_ctl_del, model, "spins")                                         \
    X(forgets_to_ask_for_epollout, model, "a reason")                          \
    X(does_not_wait, model, "spins")                                           \
    X(sends_again_after_a_short_send, model, "order|frame|no message")         \
    X(takes_eagain_for_success, model, "order|frame|no message|misses")        \
    X(takes_eintr_for_the_end, model, "without a reason")                      \
    X(loses_the_last_byte_read, model, "order|without a reason")               \
    X(flips_a_bit, model, "order|frame|no message|without a reason")           \
    X(swaps_two_pieces, model, "order|frame|no message")                       \
    X(sends_without_nosignal, model, "NOSIGNAL")                               \
    X(accepts_without_cloexec, model, "CLOEXEC")                               \
    X(closes_twice, model, "not open")                                         \
    X(leaks_a_descriptor_in_ten, model, "lines are open, the library knows")   \
    X(leaks_a_block_in_fifty, model, "never freed")                            \
    X(tells_a_wrong_size, model, "realloc of")                                 \
    X(asks_for_too_much, model, "heap of")                                     \
    X(forgets_the_hard_mark, model, "are queued")                              \
    X(reads_the_wall_clock, model, "without a reason")                         \
    X(closes_without_a_word, resume, "is in state")                            \
    X(tells_the_end_twice, model, "not open")                                  \
    X(swaps_two_messages, model, "in order")                                   \
    X(drops_a_message_in_fifty, model, "order")                                \
    X(tells_a_message_twice, model, "in order")                                \
    X(talks_after_the_end, model, "order|not open")                            \
    X(calls_back_out_of_a_call, model, "inside another")                       \
    X(drops_presence, model, "are behind|event")                               \
    X(tells_presence_twice, model, "event")                                    \
    X(counts_one_more_lost, resume, "lost")                                    \
    X(hides_what_was_lost, resume, "lost")                                     \
    X(counts_a_member_more, model, "members")                                  \
    X(counts_one_taker_more, model, "took it")                                 \
    X(sends_to_one_left_out, model, "order")                                   \
    X(replays_one_too_many, group, "were replayed")

#define PLANT(name, world, text) name,
enum plant { PLANTS(PLANT) };
#undef PLANT

static struct {
    enum plant plant;
    uint64_t calls; /* of what can go wrong */
    rt_handler on;
    void (*event)(rt_loop *, rt_group, rt_session, int);
    int over;  /* rt_loop_free has begun */
    int depth; /* of on_message */
    struct {
        rt_session to;
        int kind;
        size_t len;
        char data[65536];
    } held;
} now;

/* Is this the plant, and this one of so many times? */
static int goes_wrong(enum plant plant, unsigned one_of)
{
    return now.plant == plant && ++now.calls % one_of == 0;
}

/* ---- between the library and the kernel ---------------------------------- */

int plant_epoll_ctl(int ep, int op, int fd, struct epoll_event *e);
int plant_epoll_wait(int ep, struct epoll_event *e, int n, int ms);
ssize_t plant_recv(int fd, void *out, size_t n, int flags);
ssize_t plant_send(int fd, const void *data, size_t n, int flags);
ssize_t plant_sendmsg(int fd, const struct msghdr *m, int flags);
int plant_accept4(int fd, struct sockaddr *a, socklen_t *len, int flags);
int plant_close(int fd);
int plant_clock_gettime(clockid_t clock, struct timespec *out);

int plant_epoll_ctl(int ep, int op, int fd, struct epoll_event *e)
{
    if (now.plant == ignores_ctl_del && op == EPOLL_CTL_DEL)
        return 0;
    if (now.plant == ignores_ctl_del && op == EPOLL_CTL_ADD &&
        epoll_ctl(ep, op, fd, e) < 0 && errno == EEXIST)
        op = EPOLL_CTL_MOD;
    else if (now.plant == ignores_ctl_del && op == EPOLL_CTL_ADD)
        return 0;
    if (now.plant == forgets_to_ask_for_epollout && op == EPOLL_CTL_MOD)
        e->events &= ~(uint32_t)EPOLLOUT;
    return epoll_ctl(ep, op, fd, e);
}

int plant_epoll_wait(int ep, struct epoll_event *e, int n, int ms)
{
    return epoll_wait(ep, e, n, now.plant == does_not_wait ? 0 : ms);
}

ssize_t plant_recv(int fd, void *out, size_t n, int flags)
{
    ssize_t got = recv(fd, out, n, flags);

    if (now.plant == takes_eintr_for_the_end && got < 0 && errno == EINTR)
        return 0;
    if (got > 1 && goes_wrong(loses_the_last_byte_read, 100))
        return got - 1;
    if (got > 0 && goes_wrong(flips_a_bit, 100))
        ((char *)out)[got - 1] ^= 1;
    return got;
}

ssize_t plant_send(int fd, const void *data, size_t n, int flags)
{
    ssize_t went;

    if (now.plant == sends_without_nosignal)
        flags &= ~MSG_NOSIGNAL;
    went = send(fd, data, n, flags);
    if (went < 0 && errno == EAGAIN && now.plant == takes_eagain_for_success)
        return (ssize_t)n;
    if (went > 1 && (size_t)went < n &&
        now.plant == sends_again_after_a_short_send)
        return went - 1;
    return went;
}

ssize_t plant_sendmsg(int fd, const struct msghdr *m, int flags)
{
    struct iovec swapped[1024];
    struct msghdr other = *m;

    if (m->msg_iovlen < 2 || !goes_wrong(swaps_two_pieces, 20))
        return sendmsg(fd, m, flags);
    memcpy(swapped, m->msg_iov, (size_t)m->msg_iovlen * sizeof *swapped);
    swapped[0] = m->msg_iov[1];
    swapped[1] = m->msg_iov[0];
    other.msg_iov = swapped;
    return sendmsg(fd, &other, flags);
}

int plant_accept4(int fd, struct sockaddr *a, socklen_t *len, int flags)
{
    if (now.plant == accepts_without_cloexec)
        flags &= ~SOCK_CLOEXEC;
    return accept4(fd, a, len, flags);
}

int plant_close(int fd)
{
    if (goes_wrong(leaks_a_descriptor_in_ten, 10) && !now.over)
        return 0;
    if (goes_wrong(closes_twice, 10))
        close(fd);
    return close(fd);
}

int plant_clock_gettime(clockid_t clock, struct timespec *out)
{
    if (now.plant == reads_the_wall_clock)
        clock = CLOCK_REALTIME;
    return clock_gettime(clock, out);
}

static void *plant_realloc(void *user, void *p, size_t old, size_t size)
{
    (void)user;
    if (!size && goes_wrong(leaks_a_block_in_fifty, 50))
        return NULL;
    if (old && goes_wrong(tells_a_wrong_size, 50))
        old++;
    if (now.plant == asks_for_too_much)
        return sim_realloc(NULL, p, 8 * old, 8 * size);
    return sim_realloc(NULL, p, old, size);
}

/* ---- between the worlds and rtnet.h -------------------------------------- */

rt_loop *__real_rt_loop_new(const rt_loop_opts *o);
rt_loop *__wrap_rt_loop_new(const rt_loop_opts *o);
void __real_rt_loop_free(rt_loop *l);
void __wrap_rt_loop_free(rt_loop *l);
rt_listener __real_rt_listen(rt_loop *l, const char *url,
                             const rt_listen_opts *o);
rt_listener __wrap_rt_listen(rt_loop *l, const char *url,
                             const rt_listen_opts *o);
rt_group __real_rt_group_open(rt_loop *l, const char *name,
                              const rt_group_opts *o);
rt_group __wrap_rt_group_open(rt_loop *l, const char *name,
                              const rt_group_opts *o);
size_t __real_rt_group_count(rt_loop *l, rt_group g);
size_t __wrap_rt_group_count(rt_loop *l, rt_group g);
int __real_rt_group_send(rt_loop *l, rt_group g, int kind, const void *data,
                         size_t len);
int __wrap_rt_group_send(rt_loop *l, rt_group g, int kind, const void *data,
                         size_t len);
int __real_rt_group_send_but(rt_loop *l, rt_group g, rt_session but, int kind,
                             const void *data, size_t len);
int __wrap_rt_group_send_but(rt_loop *l, rt_group g, rt_session but, int kind,
                             const void *data, size_t len);
int __real_rt_send(rt_loop *l, rt_session s, int kind, const void *data,
                   size_t len);
int __wrap_rt_send(rt_loop *l, rt_session s, int kind, const void *data,
                   size_t len);
int __real_rt_group_join_from(rt_loop *l, rt_group g, rt_session s,
                              const rt_position *from);
int __wrap_rt_group_join_from(rt_loop *l, rt_group g, rt_session s,
                              const rt_position *from);

rt_loop *__wrap_rt_loop_new(const rt_loop_opts *o)
{
    rt_loop_opts other = *o;

    if (now.plant == leaks_a_block_in_fifty ||
        now.plant == tells_a_wrong_size || now.plant == asks_for_too_much)
        other.realloc = plant_realloc;
    return __real_rt_loop_new(&other);
}

void __wrap_rt_loop_free(rt_loop *l)
{
    now.over = 1;
    __real_rt_loop_free(l);
}

/* What was held back is told behind what came after it. */
static void message_held(rt_loop *l)
{
    if (!now.held.to.id)
        return;
    now.on.message(l, now.held.to, now.held.kind, now.held.data, now.held.len);
    now.held.to.id = 0;
}

static int message_hold(rt_session s, int kind, const void *data, size_t len)
{
    if (now.held.to.id || len >= sizeof now.held.data)
        return 0;
    now.held.to = s;
    now.held.kind = kind;
    now.held.len = len;
    memcpy(now.held.data, data, len);
    now.held.data[len] = 0;
    return 1;
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    if (goes_wrong(drops_a_message_in_fifty, 50))
        return;
    if ((goes_wrong(swaps_two_messages, 20) ||
         goes_wrong(talks_after_the_end, 1)) &&
        message_hold(s, kind, data, len))
        return;
    if (goes_wrong(tells_a_message_twice, 50))
        now.on.message(l, s, kind, data, len);
    now.depth++;
    now.on.message(l, s, kind, data, len);
    now.depth--;
    if (now.plant == swaps_two_messages && now.held.to.id == s.id)
        message_held(l);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    rt_end other = *why;

    if (goes_wrong(closes_without_a_word, 10))
        return;
    other.lost += (uint64_t)goes_wrong(counts_one_more_lost, 2);
    if (now.plant == hides_what_was_lost)
        other.lost = 0;
    now.on.close(l, s, &other);
    if (goes_wrong(tells_the_end_twice, 10))
        now.on.close(l, s, &other);
    if (now.plant == talks_after_the_end && now.held.to.id == s.id)
        message_held(l);
    if (now.held.to.id == s.id)
        now.held.to.id = 0;
}

rt_listener __wrap_rt_listen(rt_loop *l, const char *url,
                             const rt_listen_opts *o)
{
    rt_listen_opts other = *o;

    now.on = o->on;
    other.on.message = on_message;
    other.on.close = on_close;
    if (now.plant == forgets_the_hard_mark)
        other.hard_mark = 1 << 28;
    return __real_rt_listen(l, url, &other);
}

static void on_event(rt_loop *l, rt_group g, rt_session s, int what)
{
    if (goes_wrong(drops_presence, 10))
        return;
    now.event(l, g, s, what);
    if (goes_wrong(tells_presence_twice, 10))
        now.event(l, g, s, what);
}

rt_group __wrap_rt_group_open(rt_loop *l, const char *name,
                              const rt_group_opts *o)
{
    rt_group_opts other;

    if (!o || !o->event)
        return __real_rt_group_open(l, name, o);
    other = *o;
    now.event = o->event;
    other.event = on_event;
    return __real_rt_group_open(l, name, &other);
}

size_t __wrap_rt_group_count(rt_loop *l, rt_group g)
{
    return __real_rt_group_count(l, g) +
           (size_t)goes_wrong(counts_a_member_more, 100);
}

int __wrap_rt_group_send(rt_loop *l, rt_group g, int kind, const void *data,
                         size_t len)
{
    return __real_rt_group_send(l, g, kind, data, len) +
           goes_wrong(counts_one_taker_more, 20);
}

/* The answer is as if it had been left out. */
int __wrap_rt_group_send_but(rt_loop *l, rt_group g, rt_session but, int kind,
                             const void *data, size_t len)
{
    if (now.plant == sends_to_one_left_out && rt_state(l, but) == RT_OPEN)
        __real_rt_send(l, but, kind, data, len);
    return __real_rt_group_send_but(l, g, but, kind, data, len);
}

int __wrap_rt_send(rt_loop *l, rt_session s, int kind, const void *data,
                   size_t len)
{
    if (now.depth && goes_wrong(calls_back_out_of_a_call, 10))
        now.on.message(l, s, RT_TEXT, "", 0);
    return __real_rt_send(l, s, kind, data, len);
}

int __wrap_rt_group_join_from(rt_loop *l, rt_group g, rt_session s,
                              const rt_position *from)
{
    rt_position earlier;

    if (!from || !from->offset || !goes_wrong(replays_one_too_many, 1))
        return __real_rt_group_join_from(l, g, s, from);
    earlier = *from;
    earlier.offset--;
    return __real_rt_group_join_from(l, g, s, &earlier);
}

/* ---- each is found ------------------------------------------------------- */

enum { SEEDS = 40 };

struct row {
    const char *name;
    enum plant plant;
    int (*run)(sim_world *w);
    const char *text;
};

#define ROW(name, world, text) {#name, name, world##_run, text},
static const struct row rows[] = {PLANTS(ROW)};
#undef ROW

/* The seed of the first world that finds it; 0: none does. */
static uint64_t found_by(const struct row *r)
{
    uint64_t seed;

    for (seed = 1; seed <= SEEDS; seed++) {
        sim_world w = {.seed = seed, .backend = RT_EPOLL, .quiet = 1};
        memset(&now, 0, sizeof now);
        now.plant = r->plant;
        if (r->run(&w) > 0)
            return seed;
    }
    return 0;
}

/* Is it one of what is meant by words like "this|that"? */
static int says(const char *text, const char *words)
{
    char word[64];
    size_t n;

    for (; *words; words += n + (words[n] == '|')) {
        n = strcspn(words, "|");
        snprintf(word, sizeof word, "%.*s", (int)n, words);
        if (strstr(text, word))
            return 1;
    }
    return 0;
}

static void row_run(const struct row *r, int shows)
{
    uint64_t seed;

    test_begin("%s", r->name);
    seed = found_by(r);
    CHECK(r->plant == sound ? !seed : seed > 0);
    CHECK(!r->text || says(sim_fault_text(), r->text));
    if (shows || (test_bad && seed))
        printf("%s: seed %d: %s\n", r->name, (int)seed, sim_fault_text());
    test_end();
}

/* What a planted fault leaks is looked for by the simulator, not by this. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

int main(int argc, char **argv)
{
    size_t i;

    for (i = 0; i < sizeof rows / sizeof *rows; i++)
        row_run(&rows[i], flag(argc, argv, "--show"));
    return test_done();
}
