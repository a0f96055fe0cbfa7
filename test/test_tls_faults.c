/*
 * TLS over the simulated kernel, where anything may fail: the nth allocation
 * of the library and of mbedTLS, the nth system call of each kind, with each
 * errno that it may have, reads and writes of one byte, a socket that is full
 * at every send.  Whatever it was, what comes through is what was sent, each
 * session ends once, nothing is left, and the next client is served.
 *
 * The other end is mbedTLS alone, outside of the faults.  test_tls_faults
 * --every tries each allocation of mbedTLS, of which there are thousands.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "rtnet_internal.h"
#include "sim.h"
#include "test.h"

#include "tls_certs.h"

#include <errno.h>
#include <stdlib.h>

#include <mbedtls/ssl.h>

enum { PORT = 9000, SERVER = 9100, TURNS = 2000 };

/* ---- the memory of mbedTLS ------------------------------------------------
 */

void *tls_calloc(size_t n, size_t size);

static struct {
    int inside; /* the library runs */
    int ever;
    unsigned long count, fail_at; /* 0: none fails */
} callocs;

/* What it calls instead of calloc. */
void *tls_calloc(size_t n, size_t size)
{
    if (!callocs.inside)
        return calloc(n, size);
    callocs.count++;
    if (callocs.fail_at && (callocs.count == callocs.fail_at ||
                            (callocs.ever && callocs.count > callocs.fail_at)))
        return NULL;
    return calloc(n, size);
}

/* ---- the stage ------------------------------------------------------------
 */

static tls_made ca, host, other;
static int all_of_them;

static struct {
    rt_loop *loop;
    rt_listener door;
    rt_listen_opts lo;
    rt_dial_opts d;
    rt_tls_opts ls, ds;
    rt_session server, dialled;
    int opened, dials, closed, messages, client_messages, aways, backs;
    int client_open, calm, quiet;
    uint64_t lost;
} st;

/* So it must be where nothing fails; it is tried in any case. */
#define REACHED(what)                                                          \
    do {                                                                       \
        int reached = !!(what);                                                \
        if (st.calm && !reached)                                               \
            sim_fault("%s:%d: not so: %s", __func__, __LINE__, #what);         \
    } while (0)

/* What fails only makes things slower: all that is scripted comes to pass.
   But for the last word, which is tried once. */
static int benign;

#define ENDED(p)                                                               \
    do {                                                                       \
        int ended = probe_ended(p);                                            \
        REACHED(ended || benign);                                              \
    } while (0)

static void on_open(rt_loop *loop, rt_session s)
{
    (void)loop;
    st.opened++;
    st.server = s;
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    st.messages++;
    if (!st.quiet)
        rt_send(loop, s, kind, data, len);
}

static void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop, (void)s;
    st.closed++;
    st.lost += why->lost;
}

static void client_opened(rt_loop *loop, rt_session s)
{
    (void)loop, (void)s;
    st.client_open = 1;
}

static void client_message(rt_loop *loop, rt_session s, int kind,
                           const void *data, size_t len)
{
    (void)loop, (void)s, (void)kind;
    st.client_messages++;
    if (len != 5 || memcmp(data, "hello", 5) != 0)
        sim_fault("a message came as another");
}

static void client_away(rt_loop *loop, rt_session s)
{
    (void)loop, (void)s;
    st.aways++;
}

static void client_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop, (void)s, (void)lost;
    st.backs++;
}

static void turn(void)
{
    callocs.inside = 1;
    rt_poll(st.loop, 20);
    callocs.inside = 0;
}

static void turns(int n)
{
    while (n-- > 0)
        turn();
}

static void door(const char *url)
{
    callocs.inside = 1;
    st.door = rt_listen(st.loop, url, &st.lo);
    callocs.inside = 0;
}

static void dial(const char *url)
{
    callocs.inside = 1;
    st.dialled = rt_dial(st.loop, url, &st.d);
    callocs.inside = 0;
    st.dials += st.dialled.id != 0;
}

/* ---- the other end --------------------------------------------------------
 */

typedef struct {
    sim_peer *line;
    mbedtls_ssl_config conf;
    mbedtls_ssl_context ssl;
    mbedtls_x509_crt crt;
    mbedtls_pk_context key;
    size_t got;
    int over;
} probe;

static int probe_send(void *of, const unsigned char *data, size_t n)
{
    ptrdiff_t done = sim_peer_send(((probe *)of)->line, data, n);
    if (done < 0)
        return MBEDTLS_ERR_SSL_CONN_EOF;
    return done ? (int)done : MBEDTLS_ERR_SSL_WANT_WRITE;
}

static int probe_recv(void *of, unsigned char *data, size_t n)
{
    probe *p = (probe *)of;
    size_t got = sim_peer_recv(p->line, data, n);
    p->got += got;
    if (got > 0)
        return (int)got;
    return sim_peer_state(p->line) == SIM_UP ? MBEDTLS_ERR_SSL_WANT_READ
                                             : MBEDTLS_ERR_SSL_CONN_EOF;
}

static int probe_begin(probe *p, sim_peer *line, int server)
{
    memset(p, 0, sizeof *p);
    p->line = line;
    mbedtls_ssl_config_init(&p->conf);
    mbedtls_ssl_init(&p->ssl);
    mbedtls_x509_crt_init(&p->crt);
    mbedtls_pk_init(&p->key);
    if (!line)
        return p->over = 1;
    mbedtls_ssl_config_defaults(
        &p->conf, server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
        MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    mbedtls_ssl_conf_authmode(&p->conf, MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_rng(&p->conf, tls_draw, NULL);
    if (server) {
        mbedtls_x509_crt_parse(&p->crt, (unsigned char *)host.cert,
                               strlen(host.cert) + 1);
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
        mbedtls_pk_parse_key(&p->key, (unsigned char *)host.key,
                             strlen(host.key) + 1, NULL, 0, tls_draw, NULL);
#else
        mbedtls_pk_parse_key(&p->key, (unsigned char *)host.key,
                             strlen(host.key) + 1, NULL, 0);
#endif
        mbedtls_ssl_conf_own_cert(&p->conf, &p->crt, &p->key);
    }
    mbedtls_ssl_setup(&p->ssl, &p->conf);
    mbedtls_ssl_set_bio(&p->ssl, p, probe_send, probe_recv, NULL);
    return 0;
}

static int wants(int code)
{
    return code == MBEDTLS_ERR_SSL_WANT_READ ||
           code == MBEDTLS_ERR_SSL_WANT_WRITE;
}

static int probe_shake(probe *p)
{
    int code = -1, n = TURNS;
    while (!p->over && n-- > 0) {
        turn();
        code = mbedtls_ssl_handshake(&p->ssl);
        p->over = code != 0 && !wants(code);
        if (code == 0)
            return 0;
    }
    return -1;
}

static int probe_write(probe *p, const void *data, size_t n)
{
    int code = -1, tries = TURNS;
    while (!p->over && tries-- > 0) {
        code = mbedtls_ssl_write(&p->ssl, (const unsigned char *)data, n);
        p->over = code <= 0 && !wants(code);
        if (code > 0)
            return code;
        turn();
    }
    return -1;
}

/* How much of exactly these n bytes came; any other is a fault. */
static size_t probe_expect(probe *p, const char *want, size_t n)
{
    size_t have = 0;
    int code, tries = TURNS;
    char got[4096];
    while (!p->over && have < n && tries-- > 0) {
        size_t room = n - have < sizeof got ? n - have : sizeof got;
        code = mbedtls_ssl_read(&p->ssl, (unsigned char *)got, room);
        p->over = code > 12 && memcmp(got, "HTTP/1.1 503", 12) == 0;
        if (code > 0 && !p->over && memcmp(got, want + have, (size_t)code) != 0)
            sim_fault("other bytes than were sent");
        if (p->over)
            break; /* it has no memory, and says so */
        if (code > 0)
            have += (size_t)code;
        else if (wants(code))
            turn();
        else
            p->over = 1;
    }
    return have;
}

/* The other side ends, by close_notify: then 1. */
static int probe_ended(probe *p)
{
    int code = 0, tries = TURNS;
    char byte;
    while (!p->over && tries-- > 0) {
        code = mbedtls_ssl_read(&p->ssl, (unsigned char *)&byte, 1);
        if (wants(code))
            turn();
        else
            p->over = 1;
    }
    return code == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY;
}

static void probe_end(probe *p)
{
    if (p->line)
        sim_peer_close(p->line);
    mbedtls_ssl_free(&p->ssl);
    mbedtls_ssl_config_free(&p->conf);
    mbedtls_x509_crt_free(&p->crt);
    mbedtls_pk_free(&p->key);
}

/* ---- scenarios ------------------------------------------------------------
 */

static void a_stream_is_accepted_echoes_and_closes(void)
{
    static const char hi[] = "\0\0\0\5hello";
    probe p;
    probe_begin(&p, sim_connect(PORT), 0);
    REACHED(probe_shake(&p) == 0);
    REACHED(probe_write(&p, hi, 9) == 9);
    REACHED(probe_expect(&p, hi, 9) == 9);
    if (st.opened)
        rt_close(st.loop, st.server, 0, NULL);
    ENDED(&p);
    probe_end(&p);
    REACHED(st.messages == 1);
}

static void a_peer_ends_by_close_notify(void)
{
    static const char hi[] = "\0\0\0\5hello";
    probe p;
    probe_begin(&p, sim_connect(PORT), 0);
    probe_shake(&p);
    probe_write(&p, hi, 9);
    REACHED(probe_expect(&p, hi, 9) == 9);
    if (!p.over)
        mbedtls_ssl_close_notify(&p.ssl);
    ENDED(&p);
    probe_end(&p);
    turns(3);
    REACHED(st.closed == 1);
}

static void websocket_is_spoken(void)
{
    static const char frame[] = "\x82\x85\0\0\0\0hello";
    static const char bye[] = "\x88\x82\0\0\0\0\x03\xe8";
    const char *ask = ws_request("/");
    char answer[200], accept[29];
    probe p;
    ws_accept_of("dGhlIHNhbXBsZSBub25jZQ==", accept);
    snprintf(answer, sizeof answer,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
             accept);
    probe_begin(&p, sim_connect(PORT), 0);
    probe_shake(&p);
    probe_write(&p, ask, strlen(ask));
    REACHED(probe_expect(&p, answer, strlen(answer)) == strlen(answer));
    probe_write(&p, frame, 11);
    REACHED(probe_expect(&p, "\x82\x05hello", 7) == 7);
    if (st.opened)
        rt_close(st.loop, st.server, 0, NULL);
    REACHED(probe_expect(&p, "\x88\x02\x03\xe8", 4) == 4);
    probe_write(&p, bye, 8);
    ENDED(&p);
    probe_end(&p);
}

/* Its window is small: nearly each send finds the socket full. */
static void a_slow_one_reads_all(void)
{
    enum { SIZE = 3000, MESSAGES = 40 };
    static char want[MESSAGES * (SIZE + 4)];
    char data[SIZE];
    size_t n = 0;
    probe p;
    int i;
    st.quiet = 1;
    probe_begin(&p, sim_connect(PORT), 0);
    if (p.line)
        sim_peer_window(p.line, 700);
    probe_shake(&p);
    turns(2);
    for (i = 0; i < MESSAGES; i++) {
        memset(data, 'a' + i % 26, SIZE);
        memcpy(want + n, "\0\0\x0b\xb8", 4);
        memcpy(want + n + 4, data, SIZE);
        if (st.opened &&
            rt_send(st.loop, st.server, RT_BINARY, data, SIZE) >= 0)
            n += SIZE + 4;
    }
    REACHED(probe_expect(&p, want, n) == n);
    REACHED(n == sizeof want);
    probe_end(&p);
}

/* Its window holds no flight of the handshake. */
static void a_narrow_line_shakes_hands(void)
{
    static const char hi[] = "\0\0\0\5hello";
    probe p;
    probe_begin(&p, sim_connect(PORT), 0);
    if (p.line)
        sim_peer_window(p.line, 100);
    REACHED(probe_shake(&p) == 0);
    REACHED(probe_write(&p, hi, 9) == 9);
    REACHED(probe_expect(&p, hi, 9) == 9);
    probe_end(&p);
}

/* What is framed once for all of them is sealed for each. */
static void a_group_is_told(void)
{
    enum { MEMBERS = 4, MESSAGES = 6 };
    static const char hi[] = "\0\0\0\5hello\0\0\0\5hello\0\0\0\5hello"
                             "\0\0\0\5hello\0\0\0\5hello\0\0\0\5hello";
    probe p[MEMBERS];
    rt_group g = rt_group_open(st.loop, "all", NULL);
    int i;
    st.quiet = 1;
    for (i = 0; i < MEMBERS; i++) {
        probe_begin(&p[i], sim_connect(PORT), 0);
        REACHED(probe_shake(&p[i]) == 0);
        turns(1);
        rt_group_join(st.loop, g, st.server);
    }
    for (i = 0; i < MESSAGES; i++) {
        rt_group_send(st.loop, g, RT_TEXT, "hello", 5);
        if (i % 3 == 2)
            turns(1);
    }
    for (i = 0; i < MEMBERS; i++) {
        REACHED(probe_expect(&p[i], hi, sizeof hi - 1) == sizeof hi - 1);
        probe_end(&p[i]);
    }
}

static void it_dials_and_is_answered(void)
{
    static const char hi[] = "\0\0\0\5hello";
    probe p;
    sim_serve(SERVER);
    dial("tls://localhost:9100");
    turns(2);
    probe_begin(&p, sim_accept(SERVER), 1);
    REACHED(probe_shake(&p) == 0);
    turns(2);
    rt_send(st.loop, st.dialled, RT_BINARY, "hello", 5);
    REACHED(probe_expect(&p, hi, 9) == 9);
    probe_write(&p, hi, 9);
    turns(3);
    REACHED(st.client_messages == 1);
    rt_close(st.loop, st.dialled, 0, NULL);
    ENDED(&p);
    probe_end(&p);
}

static void a_dial_does_not_trust(void)
{
    probe p;
    st.ds.pin = other.pin;
    sim_serve(SERVER);
    dial("tls://localhost:9100");
    turns(2);
    probe_begin(&p, sim_accept(SERVER), 1);
    REACHED(probe_shake(&p) < 0);
    turns(3);
    REACHED(st.closed == 1);
    probe_end(&p);
}

/* Both ends, over a loss. */
static void it_dials_itself_and_comes_back(void)
{
    int n;
    st.d.resume = 1;
    dial("wss://localhost:9001");
    for (n = 0; n < 100 && !st.client_open && !st.closed; n++)
        turn();
    REACHED(rt_send(st.loop, st.dialled, RT_BINARY, "hello", 5) == 0);
    for (n = 0; n < 100 && !st.client_messages && !st.closed; n++)
        turn();
    REACHED(st.client_messages == 1);
    rt_drop(st.loop, st.server, 1001, NULL);
    rt_send(st.loop, st.server, RT_BINARY, "hello", 5);
    for (n = 0; n < 500 && !st.backs && !st.closed; n++)
        turn();
    turns(5);
    REACHED(st.backs == 1 && st.client_messages == 2);
    rt_close(st.loop, st.dialled, 0, NULL);
    turns(10);
    REACHED(st.closed == 2);
}

/* What failed is told as that.  mbedTLS tries a key as one kind after the
   other, and so may take want of memory for a key of no kind. */
static void told(int error, const char *by)
{
    int known = error == RT_ENOMEM || error == RT_ERANDOM || error == RT_ESYS;
    const char *text = st.loop->error_text;
    if (error && !known && !(callocs.fail_at && strstr(text, ": key: ")))
        sim_fault("%s: %d, %s", by, error, text);
}

static void certificates_are_reloaded(void)
{
    rt_tls_opts now = {0};
    probe p;
    int said;
    now.cert = other.cert;
    now.key = other.key;
    probe_begin(&p, sim_connect(PORT), 0);
    probe_shake(&p);
    callocs.inside = 1;
    said = rt_tls_reload(st.loop, st.door, &now);
    callocs.inside = 0;
    REACHED(said == 0);
    told(said, "reload");
    probe_write(&p, "\0\0\0\2hi", 6);
    REACHED(probe_expect(&p, "\0\0\0\2hi", 6) == 6);
    probe_end(&p);
    probe_begin(&p, sim_connect(PORT), 0);
    REACHED(probe_shake(&p) == 0);
    probe_end(&p);
}

static void another_door_is_opened(void)
{
    rt_listener l;
    callocs.inside = 1;
    st.ls.ca = ca.cert;
    l = rt_listen(st.loop, "wss://127.0.0.1:9005", &st.lo);
    callocs.inside = 0;
    REACHED(l.id);
    told(l.id ? 0 : rt_error(st.loop, NULL), "rt_listen");
    turns(1);
    rt_unlisten(st.loop, l);
}

static const struct {
    const char *name;
    void (*run)(void);
    int websocket;
    int long_one; /* and so not tried with everything */
} scenes[] = {
#define SCENE(name, websocket)                                                 \
    {                                                                          \
#name, name, websocket, 0                                              \
    }
    SCENE(a_stream_is_accepted_echoes_and_closes, 0),
    SCENE(a_peer_ends_by_close_notify, 0),
    SCENE(websocket_is_spoken, 1),
    SCENE(a_slow_one_reads_all, 0),
    SCENE(it_dials_and_is_answered, 0),
    SCENE(a_dial_does_not_trust, 0),
    SCENE(it_dials_itself_and_comes_back, 0),
    SCENE(certificates_are_reloaded, 0),
    SCENE(another_door_is_opened, 0),
    SCENE(a_narrow_line_shakes_hands, 0),
    {"a_group_is_told", a_group_is_told, 0, 1},
};

/* ---- one world ------------------------------------------------------------
 */

static void opts_set(int websocket)
{
    (void)websocket;
    memset(&st, 0, sizeof st);
    st.ls.cert = host.cert;
    st.ls.key = host.key;
    st.ds.ca = ca.cert;
    st.lo.tls = &st.ls;
    st.d.tls = &st.ds;
    st.lo.on.open = on_open;
    st.lo.on.message = on_message;
    st.lo.on.close = st.d.on.close = on_close;
    st.lo.resume_ms = 60000;
    st.d.on.open = client_opened;
    st.d.on.message = client_message;
    st.d.on.away = client_away;
    st.d.on.back = client_back;
}

static void healed(void)
{
    int call;
    sim_fail_memory(0, 0);
    callocs.fail_at = 0;
    for (call = 0; call < SIM_CALL_COUNT; call++) {
        sim_fail((enum sim_call)call, 0, 0);
        sim_short((enum sim_call)call, 0, 1);
    }
}

/* Who comes now is served as ever. */
static void next_is_served(int websocket)
{
    probe p;
    turns(1);
    st.quiet = 0;
    probe_begin(&p, sim_connect(PORT), 0);
    if (probe_shake(&p) != 0)
        sim_fault("the next one does not get in");
    if (!websocket) {
        probe_write(&p, "\0\0\0\2hi", 6);
        if (probe_expect(&p, "\0\0\0\2hi", 6) != 6)
            sim_fault("the next one has no echo");
    }
    probe_end(&p);
    turns(2);
}

/* fault sets what fails; it runs right before the scene.  Returns how many
   faults there were. */
static int world(size_t scene, const sim_opts *weather,
                 void (*fault)(const int *), const int *what)
{
    rt_loop_opts lo = {.realloc = sim_realloc};
    int calm = benign || (!weather && !fault);
    opts_set(scenes[scene].websocket);
    st.calm = calm;
    sim_start(weather);
    st.loop = rt_loop_new(&lo);
    if (st.loop) {
        door(scenes[scene].websocket ? "wss://127.0.0.1:9000"
                                     : "tls://127.0.0.1:9000");
        st.lo.framing = 0;
        rt_listen(st.loop, "wss://127.0.0.1:9001", &st.lo);
    }
    callocs.count = 0;
    if (fault)
        fault(what);
    if (st.loop && st.door.id)
        scenes[scene].run();
    healed();
    if (st.loop && st.door.id && !weather)
        next_is_served(scenes[scene].websocket);
    rt_loop_free(st.loop);
    if (st.closed != st.opened + st.dials)
        sim_fault("%d ended of %d that opened and %d dials", st.closed,
                  st.opened, st.dials);
    if (sim_heap() != 0)
        sim_fault("%zu bytes are left", sim_heap());
    return sim_end();
}

/* ---- what fails -----------------------------------------------------------
 */

/* what[0]: which, what[1]: how, what[2]: the errno or the size. */
static void memory_fails(const int *what)
{
    sim_fail_memory(what[0], what[1]);
}

static void calloc_fails(const int *what)
{
    callocs.fail_at = (unsigned long)what[0];
    callocs.ever = what[1];
}

static void call_fails(const int *what)
{
    sim_fail((enum sim_call)what[1], what[0], what[2]);
}

static void call_is_short(const int *what)
{
    sim_short((enum sim_call)what[1], what[0], (size_t)what[2]);
}

static int tell(size_t scene, const char *what, const int *n)
{
    test_check(0, scenes[scene].name, n[0], what);
    printf("    %s: %s %d (%d, %d): %s\n", scenes[scene].name, what, n[0], n[1],
           n[2], sim_fault_text());
    return 1;
}

static unsigned long worlds;

static void nothing_fails(size_t scene)
{
    static const int none[3];
    if (world(scene, NULL, NULL, NULL))
        tell(scene, "nothing", none);
    worlds++;
}

static void each_allocation(size_t scene)
{
    int what[3] = {1, 0, 0};
    for (what[1] = 0; what[1] < 2; what[1]++) {
        for (what[0] = 1;; what[0]++, worlds++) {
            if (world(scene, NULL, memory_fails, what) &&
                tell(scene, "allocation", what))
                return;
            if (sim_allocations() < (uint64_t)what[0])
                break;
        }
    }
}

static void each_calloc(size_t scene)
{
    int what[3] = {1, 0, 0};
    for (what[1] = 0; what[1] < 2; what[1]++) {
        for (what[0] = 1;; worlds++) {
            if (world(scene, NULL, calloc_fails, what) &&
                tell(scene, "calloc of mbedTLS", what))
                return;
            if (callocs.count < (unsigned long)what[0])
                break;
            what[0] += all_of_them ? 1 : 1 + what[0] / 4;
        }
    }
}

static void each_call(size_t scene)
{
    static const int calls[][2] = {
        {SIM_send, EAGAIN},       {SIM_send, EINTR},
        {SIM_send, EPIPE},        {SIM_send, ENOBUFS},
        {SIM_recv, EAGAIN},       {SIM_recv, EINTR},
        {SIM_recv, ECONNRESET},   {SIM_accept4, ECONNABORTED},
        {SIM_accept4, ENOMEM},    {SIM_epoll_ctl, ENOMEM},
        {SIM_epoll_wait, EINTR},  {SIM_connect, ECONNREFUSED},
        {SIM_getsockopt, EINVAL}, {SIM_socket, EMFILE},
        {SIM_shutdown, ENOTCONN}, {SIM_getrandom, EAGAIN},
        {SIM_setsockopt, EINVAL},
    };
    int what[3];
    size_t i;
    for (i = 0; i < sizeof calls / sizeof *calls; i++) {
        what[1] = calls[i][0];
        what[2] = calls[i][1];
        benign =
            what[1] != SIM_getrandom && (what[2] == EAGAIN || what[2] == EINTR);
        for (what[0] = 1; what[0] < 400; worlds++) {
            if (world(scene, NULL, call_fails, what) &&
                tell(scene, "call", what))
                return;
            if (sim_calls((enum sim_call)what[1]) < (uint64_t)what[0])
                break;
            what[0] += all_of_them ? 1 : 1 + what[0] / 2;
        }
    }
}

static void each_short(size_t scene)
{
    int what[3], call;
    benign = 1;
    for (call = 0; call < 2; call++) {
        what[1] = call ? SIM_send : SIM_recv;
        for (what[2] = 1; what[2] < 40; what[2] += 19) {
            for (what[0] = 1; what[0] < 200; worlds++) {
                if (world(scene, NULL, call_is_short, what) &&
                    tell(scene, "short", what))
                    return;
                if (sim_calls((enum sim_call)what[1]) < (uint64_t)what[0])
                    break;
                what[0] += all_of_them ? 1 : 1 + what[0] / 2;
            }
        }
    }
}

/* All reads and writes are short, and half of them find nothing. */
static void bad_weather(size_t scene)
{
    int what[3] = {0, 0, 0};
    for (what[0] = 1; what[0] <= 3; what[0]++, worlds++) {
        sim_opts o = {0};
        sim_weather((uint64_t)what[0], &o);
        o.shorts = 900;
        o.again = 300;
        o.eintr = 200;
        if (world(scene, &o, NULL, what) && tell(scene, "weather", what))
            return;
    }
}

/* A recv says that it brought more than it was asked for; no system does. */
static void each_lie(size_t scene)
{
    int what[3] = {1, SIM_recv, -1};
    for (; what[0] <= 4; what[0]++, worlds++)
        if (world(scene, NULL, call_is_short, what) && tell(scene, "lie", what))
            return;
}

static void each_scene(const char *name, void (*with)(size_t))
{
    size_t i;
    for (i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        if (scenes[i].long_one && with != nothing_fails &&
            with != each_allocation)
            continue;
        test_begin("%s: %s", name, scenes[i].name);
        benign = 0;
        with(i);
        test_end();
    }
}

int main(int argc, char **argv)
{
    all_of_them = argc > 1 && strcmp(argv[1], "--every") == 0;
    if (tls_make(&ca, "authority", NULL, 2020, 2040) ||
        tls_make(&host, "localhost", &ca, 2020, 2040) ||
        tls_make(&other, "other.example", &ca, 2020, 2040))
        return 1;
    each_scene("nothing fails", nothing_fails);
    each_scene("each allocation fails", each_allocation);
    each_scene("each allocation of mbedTLS fails", each_calloc);
    each_scene("row 74, each call fails", each_call);
    each_scene("row 74, each read and write is short", each_short);
    each_scene("row 74, bad weather", bad_weather);
    each_scene("each recv says too much", each_lie);
    tls_unmake(&ca);
    tls_unmake(&host);
    tls_unmake(&other);
    printf("    %lu worlds\n", worlds);
    return test_done();
}
