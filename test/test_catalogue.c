/*
 * What broke elsewhere, row by row.  The catalogue has 77 past bugs of
 * WebSocket, HTTP and event-loop code, each with the input that triggers it
 * and what a library must do.  Each row that applies is a test here, named for
 * the row, with exactly that input; the others are listed with the reason, and
 * every number from 1 to 77 is in one of the two, once.
 *
 *   test_catalogue          everything
 *   test_catalogue row_20   only cases whose names hold it
 *   test_catalogue --long   with the loops that a nightly run has time for
 *
 * A row on the stage has a loop, a listener and scripted peers in a simulated
 * kernel and runs with each backend; others use pure functions between
 * forbidden pages, or real sockets.  test_end is reached by each within
 * seconds: what does not come back is a failure, too (alarm).
 */
#include "rtnet_internal.h"
#include "args.h"
#include "backends.h"
#include "guard.h"
#include "sim.h"
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 9000, SERVER_PORT = 7000, PEERS = 4096 };

#define COUNT(rows) (sizeof(rows) / sizeof((rows)[0]))

static int long_run; /* --long */

/* ---- the stage ---------------------------------------------------------- */

/*
 * One loop with one listener, the peers of the present row, and what the
 * application was told.  A row may put functions of its own behind those of
 * the stage.
 */
static struct stage {
    int backend;
    rt_loop *loop;
    rt_listener listener;
    rt_dial_opts dial; /* for peers that are servers */
    ws_peer *peers[PEERS];
    int peer_count;
    rt_session last;
    int requests, opens, messages, closes, writables, limits;
    int unopened; /* dials that closed as they should and never opened */
    char *data;   /* the last message */
    size_t len;
    int kind;
    rt_end end;
    char reason[128];
    uint64_t closed_at;
    int answer; /* of on_request */
    void (*also_open)(rt_loop *, rt_session);
    void (*also_message)(rt_loop *, rt_session);
    void (*also_close)(rt_loop *, rt_session);
    void (*also_writable)(rt_loop *, rt_session);
    int (*also_request)(rt_loop *, rt_session, const rt_request *);
    char log[4096];
} stage;

static int on_request(rt_loop *l, rt_session s, const rt_request *r)
{
    stage.requests++;
    return stage.also_request ? stage.also_request(l, s, r) : stage.answer;
}

static void on_open(rt_loop *l, rt_session s)
{
    stage.opens++;
    stage.last = s;
    if (stage.also_open)
        stage.also_open(l, s);
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    stage.messages++;
    stage.kind = kind;
    stage.data = realloc(stage.data, len + 1);
    if (!stage.data)
        exit(2);
    memcpy(stage.data, data, len + 1);
    stage.len = len;
    CHECK(stage.data[len] == 0);
    if (stage.also_message)
        stage.also_message(l, s);
}

static void on_writable(rt_loop *l, rt_session s)
{
    stage.writables++;
    if (stage.also_writable)
        stage.also_writable(l, s);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *end)
{
    stage.closes++;
    stage.closed_at = rt_now(l);
    stage.end = *end;
    stage.end.reason = stage.reason;
    snprintf(stage.reason, sizeof stage.reason, "%s", end->reason);
    if (stage.also_close)
        stage.also_close(l, s);
}

static void on_limit(rt_loop *l, rt_session s, int what)
{
    (void)l, (void)s, (void)what;
    stage.limits++;
}

static void on_log(void *user, int level, const char *text)
{
    size_t n = strlen(stage.log);

    (void)user;
    snprintf(stage.log + n, sizeof stage.log - n, "%d %s\n", level, text);
}

static const rt_handler handler = {.request = on_request,
                                   .open = on_open,
                                   .message = on_message,
                                   .writable = on_writable,
                                   .close = on_close,
                                   .limit = on_limit};

/* Pings would come at a random point; rows that want them ask for them. */
static void stage_options(rt_listen_opts *o)
{
    o->on = handler;
    if (!o->ping_ms)
        o->ping_ms = RT_OFF;
}

static void stage_reset(void)
{
    int backend = stage.backend;

    free(stage.data);
    memset(&stage, 0, sizeof stage);
    stage.backend = backend;
    stage.dial.on = handler;
    stage.dial.ping_ms = RT_OFF;
}

typedef void *(*memory_fn)(void *, void *, size_t, size_t);

static rt_loop *stage_loop(memory_fn memory)
{
    rt_loop_opts o = {
        .backend = stage.backend, .log = on_log, .realloc = memory};

    return rt_loop_new(&o);
}

static void stage_listen(const char *url, const rt_listen_opts *opts)
{
    rt_listen_opts o;

    memset(&o, 0, sizeof o);
    if (opts)
        o = *opts;
    stage_options(&o);
    stage.listener = rt_listen(stage.loop, url, &o);
    CHECK(stage.listener.id != 0);
}

static void stage_open_on(const char *url, const rt_listen_opts *opts,
                          memory_fn memory)
{
    stage_reset();
    stage.loop = stage_loop(memory);
    CHECK(stage.loop != NULL);
    if (!stage.loop)
        exit(1);
    stage_listen(url, opts);
    sim_serve(SERVER_PORT);
}

/* Both may be NULL: all the defaults. */
static void stage_open(const rt_listen_opts *opts, const sim_opts *weather)
{
    sim_start(weather);
    stage_open_on("ws://127.0.0.1:9000", opts, sim_realloc);
}

static void peers_free(void)
{
    while (stage.peer_count > 0)
        ws_free(stage.peers[--stage.peer_count]);
}

/* Every session ended, nothing leaked, no call was wrong. */
static void stage_end(void)
{
    rt_loop_free(stage.loop);
    EQUAL(stage.closes, stage.opens + stage.unopened);
    peers_free();
    EQUAL(sim_end(), 0);
    if (sim_faults())
        printf("%s: %s\n", test_name, sim_fault_text());
    stage_reset();
}

/* No reason yet to give a row up. */
static int well(void)
{
    return !test_bad && !sim_faults();
}

static void pump_all(void)
{
    int i;

    for (i = 0; i < stage.peer_count; i++)
        ws_pump(stage.peers[i]);
}

/* One turn of at most ms, with all peers awake before it. */
static void step(uint64_t ms)
{
    pump_all();
    CHECK(rt_poll(stage.loop, ms < 50 ? (int)ms : 50) >= 0);
}

static void run(uint64_t ms)
{
    uint64_t end = sim_now() + ms;

    while (sim_now() < end && well())
        step(end - sim_now());
    pump_all();
}

/* Until nobody has anything to do; 0 ms pass. */
static void settle(void)
{
    int i;

    for (i = 0; i < 8; i++)
        step(0);
    pump_all();
}

/* Runs until n sessions were closed; how long that took. */
static uint64_t until_closes(int n, uint64_t limit)
{
    uint64_t start = sim_now();

    while (stage.closes < n && sim_now() < start + limit && well())
        step(50);
    return (stage.closes < n ? sim_now() : stage.closed_at) - start;
}

/* Runs until the library has only n connections; how long that took. */
static uint64_t until_lines(int n, uint64_t limit)
{
    uint64_t start = sim_now();

    while (sim_streams() > n && sim_now() < start + limit && well())
        step(50);
    return sim_now() - start;
}

static void between(uint64_t value, uint64_t least, uint64_t most)
{
    CHECK(value >= least);
    CHECK(value <= most);
    if (value < least || value > most)
        printf("%s: %llu, wanted %llu to %llu\n", test_name,
               (unsigned long long)value, (unsigned long long)least,
               (unsigned long long)most);
}

static ws_peer *peer_add(ws_peer *w)
{
    CHECK(w != NULL && stage.peer_count < PEERS);
    if (!w)
        exit(1);
    stage.peers[stage.peer_count++] = w;
    return w;
}

static ws_peer *peer_opened(ws_peer *w)
{
    int i;

    for (i = 0; i < 40 && !w->open; i++)
        step(1);
    for (i = 0; i < 3; i++)
        step(0);
    CHECK(w->open);
    return w;
}

/* A client whose session is open. */
static ws_peer *peer_open(void)
{
    return peer_opened(peer_add(ws_connect(PORT, "/")));
}

/* The client or, with as_server, the server that the library dialled. */
static ws_peer *peer_of(int as_server)
{
    ws_peer *w = NULL;
    int i;

    if (!as_server)
        return peer_open();
    stage.last = rt_dial(stage.loop, "ws://127.0.0.1:7000/", &stage.dial);
    CHECK(stage.last.id != 0);
    for (i = 0; i < 20 && !w; i++) {
        step(1);
        w = ws_accept(SERVER_PORT);
    }
    return peer_opened(peer_add(w));
}

/* How often the loop looked for events. */
static uint64_t sim_waits(void)
{
    return sim_calls(SIM_epoll_wait) + sim_calls(SIM_select) +
           sim_calls(SIM_kevent);
}

/* How much more memory the loop holds than then. */
static size_t grown(size_t before)
{
    return sim_heap() > before ? sim_heap() - before : 0;
}

/* ---- the real system ---------------------------------------------------- */

/* The same stage on real sockets.  Time passes by itself there, so each wait
   has an end that is far behind what a slow machine needs. */
static int net_port;

/* kqueue is there in the simulated kernel alone. */
static int net_there(void)
{
    return stage.backend != RT_KQUEUE;
}

static void net_open(const rt_listen_opts *opts)
{
    stage_reset();
    stage.loop = stage_loop(NULL);
    CHECK(stage.loop != NULL);
    if (!stage.loop)
        exit(1);
    stage_listen("ws://127.0.0.1:0", opts);
    net_port = rt_listener_port(stage.loop, stage.listener);
    CHECK(net_port > 0);
}

static void net_end(void)
{
    rt_loop_free(stage.loop);
    EQUAL(stage.closes, stage.opens + stage.unopened);
    stage_reset();
}

static uint64_t real_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void net_run(uint64_t ms)
{
    uint64_t end = real_ms() + ms;

    do
        rt_poll(stage.loop, 1);
    while (real_ms() < end);
}

/* Until a counter of the stage has come to n. */
static void net_until(const int *counter, int n, uint64_t limit)
{
    uint64_t end = real_ms() + limit;

    while (*counter < n && real_ms() < end)
        rt_poll(stage.loop, 1);
}

static int net_connect(void)
{
    struct sockaddr_in a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons((uint16_t)net_port);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    return fd;
}

static void net_send(int fd, const char *text)
{
    EQUAL(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* So many descriptors are wanted; what the system gives is a lower bound of
   what a server has, so there is no skip: 1,024 are everywhere. */
static int net_descriptors(rlim_t n)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= n)
        return 1;
    limit.rlim_cur = n < limit.rlim_max ? n : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    CHECK(limit.rlim_cur >= n);
    return limit.rlim_cur >= n;
}

/* ---- frames as one likes ------------------------------------------------ */

struct bytes {
    uint8_t at[70000];
    size_t len;
};

static void put(struct bytes *b, const void *data, size_t n)
{
    if (b->len + n > sizeof b->at)
        exit(2);
    memcpy(b->at + b->len, data, n);
    b->len += n;
}

static void put_byte(struct bytes *b, unsigned byte)
{
    uint8_t one = (uint8_t)byte;

    put(b, &one, 1);
}

/* A head that announces len, in its shortest form. */
static void put_head(struct bytes *b, unsigned first, uint64_t len, int masked)
{
    int i, n = len < 126 ? 0 : len < 65536 ? 2 : 8;

    put_byte(b, first);
    put_byte(b, (masked ? 0x80U : 0) |
                    (n ? (n == 2 ? 126U : 127U) : (unsigned)len));
    for (i = n - 1; i >= 0; i--)
        put_byte(b, (unsigned)(len >> 8 * i) & 255);
    if (masked)
        put(b, "\x11\x22\x33\x44", 4);
}

static void put_payload(struct bytes *b, const void *data, size_t n, int masked)
{
    const uint8_t *p = data;
    size_t i;

    for (i = 0; i < n; i++)
        put_byte(b, p[i] ^ (masked ? 0x11U * (unsigned)(i % 4 + 1) : 0));
}

/* A whole frame from one who is a client (masked) or a server. */
static void put_frame(struct bytes *b, unsigned first, const void *data,
                      size_t n, int masked)
{
    put_head(b, first, n, masked);
    put_payload(b, data, n, masked);
}

/* What the library made of some bytes. */
struct verdict {
    int messages, code, told; /* code: of on_close; told: of its close frame */
    size_t len;
};

/* A new connection sends them in pieces that end at the cuts, a turn for each;
   cut 0: all at once. */
static struct verdict play(int as_server, const void *data, size_t n,
                           size_t piece)
{
    struct verdict v = {0, 0, 0, 0};
    ws_peer *w = peer_of(as_server);
    int messages = stage.messages, closes = stage.closes;
    const uint8_t *p = data;
    size_t some;

    for (; n > 0; n -= some, p += some) {
        some = piece && piece < n ? piece : n;
        ws_raw(w, p, some);
        step(0);
        if (w->out.len)
            settle();
    }
    settle();
    v.messages = stage.messages - messages;
    v.len = v.messages ? stage.len : 0;
    v.code = stage.closes > closes ? stage.end.code : 0;
    v.told = w->close_code;
    peers_free();
    settle();
    return v;
}

static struct verdict play_bytes(int as_server, const struct bytes *b)
{
    return play(as_server, b->at, b->len, 0);
}

/* It is refused with that code, which the peer is told, and nothing of it
   reached the application. */
static void refused_with(struct verdict v, int code)
{
    EQUAL(v.code, code);
    EQUAL(v.told, code);
    EQUAL(v.messages, 0);
}

/* ---- requests as one likes ---------------------------------------------- */

/* What a new connection got back for some bytes, as text, and how its line
   was left. */
struct answer {
    char text[4096];
    int status;
    enum sim_state line;
};

static struct answer ask_in(const char *request, size_t n, size_t piece)
{
    static struct answer a;
    sim_peer *p = sim_connect(PORT);
    size_t some;

    memset(&a, 0, sizeof a);
    CHECK(p != NULL);
    for (; p && n > 0 && sim_peer_state(p) == SIM_UP; n -= some) {
        some = piece && piece < n ? piece : n;
        if (sim_peer_send(p, request, some) < 0)
            break;
        request += some;
        rt_poll(stage.loop, 0);
    }
    settle();
    if (!p)
        return a;
    sim_peer_recv(p, a.text, sizeof a.text - 1);
    a.line = sim_peer_state(p);
    sscanf(a.text, "HTTP/1.1 %d", &a.status);
    sim_peer_close(p);
    settle();
    return a;
}

static struct answer ask(const char *request)
{
    return ask_in(request, strlen(request), 0);
}

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define GET "GET / HTTP/1.1\r\n"
#define UPGRADE                                                                \
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"                            \
    "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n"

/* ---- sources as texts --------------------------------------------------- */

/* How many lines of a source hold a word. */
static int source_has(const char *file, const char *word)
{
    FILE *f = fopen(file, "r");
    char line[256];
    int n = 0;

    CHECK(f != NULL); /* the tests run where the sources are */
    while (f && fgets(line, sizeof line, f))
        n += strstr(line, word) != NULL;
    if (f)
        fclose(f);
    return n;
}

/* ---- the rows ----------------------------------------------------------- */

#include "catalogue_frames.h"
#include "catalogue_messages.h"
#include "catalogue_http.h"
#include "catalogue_handshake.h"
#include "catalogue_loop.h"
#include "catalogue_calls.h"
#include "catalogue_objects.h"
#include "catalogue_secrets.h"
#include "catalogue_fair.h"

/* ---- all of them -------------------------------------------------------- */

enum where { PURE, STAGED }; /* STAGED: with each backend */

struct row {
    int number;
    const char *name;
    void (*run)(void);
    enum where where;
};

#define ROW(number, name, where)                                               \
    {                                                                          \
        number, #name, name, where                                             \
    }

static const struct row rows[] = {
    ROW(1, row_01_a_length_that_wraps_is_refused, STAGED),
    ROW(2, row_02_a_length_with_the_top_bit_is_1002_at_once, STAGED),
    ROW(3, row_03_a_length_near_2_64_unmasks_only_what_came, STAGED),
    ROW(4, row_04_an_announced_length_costs_no_memory, STAGED),
    ROW(5, row_05_the_default_limit_is_64_kib, STAGED),
    ROW(6, row_06_a_million_empty_fragments_cost_nothing, STAGED),
    ROW(7, row_07_a_message_has_one_deadline_in_all, STAGED),
    ROW(8, row_08_a_buffer_may_move_at_any_time, STAGED),
    ROW(9, row_09_a_continuation_of_nothing_is_1002, STAGED),
    ROW(10, row_10_the_mask_stays_within_its_bytes, STAGED),
    ROW(11, row_11_a_head_may_be_cut_anywhere, STAGED),
    ROW(12, row_12_the_wrong_mask_bit_is_1002, STAGED),
    ROW(13, row_13_a_wrong_control_frame_is_1002, STAGED),
    ROW(14, row_14_every_close_code_is_judged, STAGED),
    ROW(15, row_15_text_is_utf8_or_1007_at_once, STAGED),
    ROW(16, row_16_only_control_frames_go_between_fragments, STAGED),
    ROW(17, row_17_nothing_follows_a_close, STAGED),
    ROW(18, row_18_every_frame_has_a_mask_of_its_own, STAGED),
    ROW(19, row_19_pings_while_nothing_can_be_sent_do_not_spin, STAGED),
    ROW(20, row_20_a_million_unread_pings_hold_one_pong, STAGED),
    ROW(21, row_21_exactly_the_bytes_given_are_sent, STAGED),
    ROW(22, row_22_no_extension_is_ever_agreed_on, STAGED),
    ROW(23, row_23_nothing_inflates, PURE),
    ROW(24, row_24_version_13_alone_is_spoken, STAGED),
    ROW(25, row_25_a_long_head_in_small_pieces_costs_its_length, STAGED),
    ROW(26, row_26_too_many_headers_are_431, STAGED),
    ROW(27, row_27_a_malformed_list_is_400_in_one_pass, STAGED),
    ROW(28, row_28_a_header_without_a_name_is_400, STAGED),
    ROW(29, row_29_a_body_ends_where_it_says_or_nothing_is_done, STAGED),
    ROW(30, row_30_line_ends_and_names_are_exact, STAGED),
    ROW(31, row_31_host_is_there_once_and_not_empty, STAGED),
    ROW(32, row_32_a_handshake_may_end_at_each_byte, STAGED),
    ROW(33, row_33_an_answer_may_be_cut_anywhere, STAGED),
    ROW(34, row_34_the_opening_is_that_of_the_rfc, STAGED),
    ROW(35, row_35_no_text_of_the_host_splits_a_head, STAGED),
    ROW(36, row_36_only_pages_of_the_same_host_connect, STAGED),
    ROW(37, row_37_slow_handshakes_end_and_are_bounded, STAGED),
    ROW(38, row_38_an_unanswered_close_ends_with_a_reset, STAGED),
    ROW(39, row_39_more_than_was_asked_for_is_an_error, STAGED),
    ROW(40, row_40_frames_right_behind_the_handshake_arrive, STAGED),
    ROW(41, row_41_a_stale_event_finds_nobody, STAGED),
    ROW(42, row_42_a_child_that_holds_a_socket_wakes_nobody, STAGED),
    ROW(43, row_43_without_descriptors_the_listener_rests, STAGED),
    ROW(44, row_44_nobody_takes_the_loop_for_himself, STAGED),
    ROW(45, row_45_every_set_of_events_ends_in_a_close, STAGED),
    ROW(46, row_46_what_came_before_the_end_is_delivered, STAGED),
    ROW(47, row_47_who_shuts_its_half_still_gets_the_answer, STAGED),
    ROW(48, row_48_what_is_kept_inside_neither_spins_nor_waits, STAGED),
    ROW(49, row_49_a_partial_write_goes_on_where_it_ended, STAGED),
    ROW(50, row_50_a_partial_write_has_its_effects_once, STAGED),
    ROW(51, row_51_an_interrupted_call_changes_nothing, STAGED),
    ROW(52, row_52_a_reset_peer_raises_no_signal, STAGED),
    ROW(53, row_53_the_network_s_errors_end_what_they_are_about, STAGED),
    ROW(54, row_54_a_refused_connect_is_told_by_so_error, STAGED),
    ROW(55, row_55_no_descriptor_is_written_behind_an_fd_set, STAGED),
    ROW(56, row_56_no_jump_of_a_clock_kills_anybody, STAGED),
    ROW(57, row_57_a_timer_due_at_once_leaves_the_turn, STAGED),
    ROW(58, row_58_timers_agree_with_a_model, STAGED),
    ROW(59, row_59_lengths_are_64_bits_wide, STAGED),
    ROW(60, row_60_any_call_in_any_callback, STAGED),
    ROW(61, row_61_a_group_may_change_while_it_is_gone_over, STAGED),
    ROW(62, row_62_nothing_is_bounded_by_an_array, STAGED),
    ROW(63, row_63_on_writable_does_not_nest, STAGED),
    ROW(64, row_64_any_allocation_may_fail, STAGED),
    ROW(65, row_65_a_secret_is_random_or_there_is_none, STAGED),
    ROW(66, row_66_a_token_is_right_in_every_byte_or_wrong, STAGED),
    ROW(67, row_67_an_old_line_ends_nothing_that_is_new, STAGED),
    ROW(68, row_68_a_session_has_no_id_that_a_peer_chose, STAGED),
    ROW(69, row_69_a_token_is_in_no_url_and_no_log, STAGED),
    ROW(70, row_70_names_do_not_collide_as_they_are_chosen, STAGED),
    ROW(71, row_71_one_who_does_not_read_costs_one_queue, STAGED),
    ROW(72, row_72_sizes_have_no_sign_and_a_limit, STAGED),
    ROW(73, row_73_rates_are_exact_and_of_constant_size, STAGED),
};

static const struct {
    int number;
    const char *why;
} does_not_apply[] = {
    {77, "TLS in the kernel is a non-goal"},
};

/* Those of TLS are tested where TLS is built; the cases there have the number
   of the row in their names. */
static const struct {
    int number;
    const char *file, *named;
} elsewhere[] = {
    {74, "test/test_tls_faults.c", "row 74,"},
    {75, "test/test_tls.c", "row_75_"},
    {76, "test/test_tls.c", "row_76_"},
};

enum { ROWS = 77 };

static int times_tested(int number)
{
    size_t i;
    int n = 0;

    for (i = 0; i < COUNT(rows); i++)
        n += rows[i].number == number;
    return n;
}

static int times_listed(int number)
{
    size_t i;
    int n = 0;

    for (i = 0; i < COUNT(does_not_apply); i++)
        n += does_not_apply[i].number == number;
    for (i = 0; i < COUNT(elsewhere); i++)
        n += elsewhere[i].number == number;
    return n;
}

/* Does that file speak of it? */
static int holds(const char *path, const char *text)
{
    FILE *f = fopen(path, "r");
    char line[256];
    int found = 0;

    while (f && !found && fgets(line, sizeof line, f))
        found = strstr(line, text) != NULL;
    if (f)
        fclose(f);
    return found;
}

/* A row's name begins with its number. */
static int well_named(const struct row *r)
{
    char start[16];

    snprintf(start, sizeof start, "row_%02d_", r->number);
    return strncmp(r->name, start, strlen(start)) == 0;
}

static void every_row_is_tested_or_listed_once(void)
{
    size_t i;
    int n;

    for (n = 1; n <= ROWS; n++) {
        if (times_tested(n) + times_listed(n) != 1)
            printf("row %d: tested %d times, listed %d times\n", n,
                   times_tested(n), times_listed(n));
        EQUAL(times_tested(n) + times_listed(n), 1);
    }
    EQUAL(COUNT(rows) + COUNT(does_not_apply) + COUNT(elsewhere), ROWS);
    for (i = 0; i < COUNT(elsewhere); i++)
        CHECK(holds(elsewhere[i].file, elsewhere[i].named));

    for (i = 0; i < COUNT(rows); i++)
        CHECK(well_named(&rows[i]));
}

/* A row that hangs takes the process with it, and says which it was. */
static void row_hangs(int signal_number)
{
    ssize_t n = write(1, "hangs: ", 7);

    (void)signal_number;
    n += write(1, test_name, strlen(test_name));
    n += write(1, "\n", 1);
    _exit(n > 0 ? 3 : 4);
}

static void row_run(const struct row *r, int backend)
{
    if (r->where == PURE)
        test_begin("%s", r->name);
    else
        test_begin("%s, %s", r->name, backend_names[backend]);
    stage.backend = backend;
    alarm(long_run ? 3600 : 120);
    r->run();
    alarm(0);
    test_end();
}

static void row_timed(const struct row *r)
{
    clock_t before = clock();
    int backend = backend_next(0);

    row_run(r, backend);
    while (r->where == STAGED && (backend = backend_next(backend)) != 0)
        row_run(r, backend);
    if (getenv("TIMES"))
        printf("%6.2f s %s\n", (double)(clock() - before) / CLOCKS_PER_SEC,
               r->name);
}

int main(int argc, char **argv)
{
    size_t i;

    long_run = flag(argc, argv, "--long");
    signal(SIGALRM, row_hangs);
    for (i = 0; i < COUNT(rows); i++) {
        if (wanted(rows[i].name, argc, argv))
            row_timed(&rows[i]);
    }
    if (wanted("every_row_is_tested_or_listed_once", argc, argv))
        RUN(every_row_is_tested_or_listed_once);
    for (i = 0; argc < 2 && i < COUNT(does_not_apply); i++)
        printf("row %d: does not apply: %s\n", does_not_apply[i].number,
               does_not_apply[i].why);
    return test_done();
}
