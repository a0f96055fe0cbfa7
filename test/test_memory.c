/*
 * What a session costs while nothing happens, by the allocator hook and as the
 * system counts it, what its place in a group costs, and that a burst leaves
 * nothing behind.
 *
 * The clients are another process, which does as it is told through a pipe: so
 * the server's descriptors lie as close as in a real one, and one limit on open
 * files need not do for both ends.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "rtnet_internal.h"
#include "test.h"

#include "peer.h"

#include <sys/resource.h>
#include <sys/wait.h>

enum {
    FEW = 2000,
    MANY = 10000,
    IDLE_MOST = 192,  /* bytes of a session, by the hook */
    ANON_MOST = 208,  /* and of anonymous memory */
    MEMBER_MOST = 24, /* of a place in a group */
    FROM = 1000,      /* what is measured for each number, is from here on */
    ENTER = 16,       /* come in at a time; their handshakes' memory is free
                         again, but the system still counts it */
    BATCH = 100,      /* clients that are busy at a time */
    MESSAGE = 51200,  /* a burst is two of them, in and out */
    SLOW_COPIES = 6   /* every tenth gets more than its socket takes */
};

/* ---- the clients, a process of their own --------------------------------- */

static struct {
    int fd[MANY];
    int count;
    char path[108];
    uint8_t frame[MESSAGE + 14];
    size_t frame_len;
} crowd;

typedef struct {
    int what; /* 'c': so many more connect; 'b': all have a burst */
    int n;
} order;

static int all_written(int fd, const void *data, size_t n)
{
    const char *p = data;
    while (n > 0) {
        ssize_t done = send(fd, p, n, MSG_NOSIGNAL);
        if (done <= 0)
            return 0;
        p += done;
        n -= (size_t)done;
    }
    return 1;
}

static int all_read(int fd, size_t n)
{
    static char into[65536];
    while (n > 0) {
        ssize_t done = recv(fd, into, n < sizeof into ? n : sizeof into, 0);
        if (done <= 0)
            return 0;
        n -= (size_t)done;
    }
    return 1;
}

/* Reads the head of an answer; a first ping may be right behind it. */
static int head_read(int fd)
{
    char text[512] = "";
    size_t n = 0;
    while (!strstr(text, "\r\n\r\n")) {
        ssize_t done = recv(fd, text + n, sizeof text - 1 - n, 0);
        if (done <= 0)
            return 0;
        n += (size_t)done;
        text[n] = 0;
    }
    return memcmp(text, "HTTP/1.1 101", 12) == 0;
}

/* One that asks with its whole request at once. */
static int client_begin(void)
{
    static const char ask[] =
        "GET / HTTP/1.1\r\nHost: peer\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    struct sockaddr_un to;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&to, 0, sizeof to);
    to.sun_family = AF_UNIX;
    memcpy(to.sun_path, crowd.path, strlen(crowd.path) + 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        return 0;
    crowd.fd[crowd.count++] = fd;
    return all_written(fd, ask, sizeof ask - 1);
}

static int clients_begin(int n)
{
    int i, good = 1, first;
    while (good && n > 0) {
        first = crowd.count;
        for (i = 0; good && i < BATCH && i < n; i++)
            good = client_begin();
        n -= i;
        for (i = first; good && i < crowd.count; i++)
            good = head_read(crowd.fd[i]);
    }
    return good;
}

static size_t answers_size(int i)
{
    return (size_t)(i % 10 ? 1 : SLOW_COPIES) * 2 * (MESSAGE + 4);
}

/* A batch sends a part, then all the rest, then reads: what came in parts and
   what is not taken yet lies with the server all the while. */
static int batch_bursts(int from, int to)
{
    size_t part = crowd.frame_len / 3;
    int i, good = 1;
    for (i = from; good && i < to; i++)
        good = all_written(crowd.fd[i], crowd.frame, part);
    for (i = from; good && i < to; i++)
        good = all_written(crowd.fd[i], crowd.frame + part,
                           crowd.frame_len - part) &&
               all_written(crowd.fd[i], crowd.frame, crowd.frame_len);
    for (i = from; good && i < to; i++)
        good = all_read(crowd.fd[i], answers_size(i));
    return good;
}

static int clients_burst(void)
{
    int i, good = 1;
    for (i = 0; good && i < crowd.count; i += BATCH)
        good =
            batch_bursts(i, i + BATCH < crowd.count ? i + BATCH : crowd.count);
    return good;
}

static void clients_live(int in, int out)
{
    order o;
    while (read(in, &o, sizeof o) == (ssize_t)sizeof o) {
        char good =
            (char)(o.what == 'c' ? clients_begin(o.n) : clients_burst());
        if (write(out, &good, 1) != 1)
            break;
    }
    _exit(0);
}

/* ---- the server ---------------------------------------------------------- */

static struct {
    rt_loop *loop;
    rt_listener listener;
    pid_t clients;
    int orders, answers;
    size_t heap, base; /* by the hook, now and with no session */
    size_t anonymous;  /* as the system counts, with no session */
    double worst;      /* bytes of one, at any number from FROM on */
    size_t most;       /* that the heap ever was, in the burst */
    int opens;
    rt_session s[MANY];
} here;

/* What the hook is told, and nothing added: so both ways of counting see the
   same. */
static void *counting_realloc(void *user, void *p, size_t old, size_t now)
{
    void *q = NULL;
    (void)user;
    if (now)
        q = realloc(p, now);
    else
        free(p);
    if (q || !now)
        here.heap += now - old;
    if (here.heap > here.most)
        here.most = here.heap;
    return q;
}

static void on_open(rt_loop *loop, rt_session s)
{
    (void)loop;
    here.s[here.opens++] = s;
    rt_set_user(loop, s, &here.s[here.opens - 1]);
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    ptrdiff_t i = (rt_session *)rt_user(loop, s) - here.s;
    int copies = i % 10 ? 1 : SLOW_COPIES;
    while (copies-- > 0)
        rt_send(loop, s, kind, data, len);
}

static int files_allowed(int n)
{
    struct rlimit most;
    getrlimit(RLIMIT_NOFILE, &most);
    if (most.rlim_cur < (rlim_t)n + 64 && most.rlim_max >= (rlim_t)n + 64) {
        most.rlim_cur = (rlim_t)n + 64;
        setrlimit(RLIMIT_NOFILE, &most);
    }
    return most.rlim_cur >= (rlim_t)n + 64;
}

static void clients_start(void)
{
    int down[2], up[2];
    CHECK(pipe(down) == 0 && pipe(up) == 0);
    fflush(stdout);
    here.clients = fork();
    if (here.clients == 0) {
        close(down[1]);
        close(up[0]);
        clients_live(down[0], up[1]);
    }
    close(down[0]);
    close(up[1]);
    here.orders = down[1];
    here.answers = up[0];
    fcntl(here.answers, F_SETFL, O_NONBLOCK);
}

static double each(size_t now, size_t before, int n)
{
    return ((double)now - (double)before) / n;
}

/* Has the clients do that and turns until they have. */
static void clients_do(int what, int n)
{
    order o;
    char good = 0;
    o.what = what;
    o.n = n;
    CHECK(write(here.orders, &o, sizeof o) == (ssize_t)sizeof o);
    while (read(here.answers, &good, 1) < 0 && errno == EAGAIN)
        rt_poll(here.loop, 1);
    peer_quiet(here.loop);
    CHECK(good);
}

/* ---- what is not any one's ------------------------------------------------
 */

/* Buffers that the loop keeps for whoever needs one next, and the block of a
   turn's replies: so many whatever the number of sessions. */
static size_t spare(const rt_loop *loop)
{
    size_t sum = loop->out_pooled * sizeof(rt__out);
    size_t i;
    for (i = 0; i < sizeof loop->pool / sizeof *loop->pool; i++) {
        rt__buf *b = loop->pool[i];
        for (; b; memcpy(&b, rt__buf_data(b), sizeof b))
            sum += sizeof *b + b->cap;
    }
    if (loop->arena)
        sum += sizeof *loop->arena + loop->arena->cap;
    if (loop->cast)
        sum += sizeof *loop->cast + loop->cast->cap;
    return sum;
}

static size_t used(void)
{
    return here.heap - spare(here.loop);
}

/* Anonymous memory of this process, or 0 where that is not told. */
static size_t anonymous(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    unsigned long kb = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Anonymous: %lu kB", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return (size_t)kb * 1024;
}

/* ---- the stage ------------------------------------------------------------
 */

static void serve(void)
{
    rt_loop_opts loop_opts;
    rt_listen_opts o;
    char where[128];
    memset(&here, 1, sizeof here); /* its pages are there from now on */
    memset(&here, 0, sizeof here);
    memset(&crowd, 0, sizeof crowd);
    memset(&loop_opts, 0, sizeof loop_opts);
    memset(&o, 0, sizeof o);
    peer_path(crowd.path);
    snprintf(where, sizeof where, "unix:%s", crowd.path);
    crowd.frame_len = peer_frame_build(crowd.frame, 0x80 | RT_BINARY,
                                       crowd.frame + 14, MESSAGE);
    loop_opts.realloc = counting_realloc;
    o.on.open = on_open;
    o.on.message = on_message;
    here.loop = rt_loop_new(&loop_opts);
    here.listener = rt_listen(here.loop, where, &o);
    CHECK(here.listener.id != 0);
    clients_start();
    clients_do('c', 1); /* what the first one brings is the loop's */
    here.base = used();
    here.anonymous = anonymous();
}

static void serve_end(void)
{
    int status;
    close(here.orders);
    waitpid(here.clients, &status, 0);
    close(here.answers);
    rt_loop_free(here.loop);
    EQUAL(here.heap, 0);
}

/* n sessions in all, beside the first; looks at the cost after each few. */
static void enter(int n)
{
    while (here.opens <= n) {
        int more = n + 1 - here.opens;
        clients_do('c', more < ENTER ? more : ENTER);
        if (here.opens > FROM) {
            double now = each(used(), here.base, here.opens - 1);
            here.worst = now > here.worst ? now : here.worst;
        }
    }
    EQUAL(here.opens, n + 1);
}

/* ---- the cases ------------------------------------------------------------
 */

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* One crowd serves these three. */

static void an_idle_session_costs_at_most_192_bytes(void)
{
    double hook = each(used(), here.base, MANY - 1);
    CHECK(hook <= IDLE_MOST);
    CHECK(here.worst <= IDLE_MOST);
    printf("idle: %.1f bytes, at most %.1f\n", hook, here.worst);
}

/* In this process no other case has had memory yet that could be used again. */
static void it_costs_at_most_208_of_anonymous_memory(void)
{
    double anon = each(anonymous(), here.anonymous, MANY - 1);
    if (!anonymous()) {
        SKIP("the system does not tell");
        return;
    }
    CHECK(anon <= ANON_MOST);
    printf("anonymous: %.1f bytes\n", anon);
}

static void membership_costs_at_most_24_bytes(void)
{
    rt_group g = rt_group_open(here.loop, "all", NULL);
    size_t before = used();
    double worst = 0, now = 0;
    int i;
    for (i = 0; i < MANY; i++) {
        CHECK(rt_group_join(here.loop, g, here.s[i]) == 0);
        now = each(used(), before, i + 1);
        worst = i >= FROM && now > worst ? now : worst;
    }
    CHECK(worst > 0 && worst <= MEMBER_MOST);
    printf("membership: %.1f bytes, at most %.1f\n", now, worst);
}

static void a_burst_leaves_nothing_behind(void)
{
    size_t before;
    serve();
    enter(FEW - 1);
    before = used();
    here.most = 0;
    clients_do('b', 0);
    CHECK(here.most > before + BATCH * MESSAGE / 3); /* there was a burst */
    CHECK(used() <= before);
    clients_do('b', 0);
    CHECK(used() <= before);
    serve_end();
}

int main(void)
{
    if (!files_allowed(MANY)) {
        test_begin("memory");
        SKIP("too few files may be open");
        test_end();
        return test_done();
    }
    test_begin("a crowd comes in");
    serve();
    enter(MANY - 1);
    test_end();
    if (!SANITIZED) /* they bring an allocator of their own */
        RUN(it_costs_at_most_208_of_anonymous_memory);
    RUN(an_idle_session_costs_at_most_192_bytes);
    RUN(membership_costs_at_most_24_bytes);
    test_begin("a crowd goes");
    serve_end();
    test_end();
    RUN(a_burst_leaves_nothing_behind);
    return test_done();
}
