/*
 * rtnet.1, the resume protocol, both ends of it, over TCP and WebSocket: the
 * input is what the peer says, on one line after the other.  The first byte
 * says which (enum config).  Words in braces in the input are no bytes of it:
 *
 *   {cut}  the line breaks, and there is a new one     {fin}  the same, closed
 *   {two}  there is a new one beside it                {sec}  a second passes
 *   {say}  the application sends a message             {key}  a keyed one
 *   {end}  the application closes
 *   {current-token-here--} {previous-token-here-}  the last tokens told
 */
#include "fuzz.h"
#include "rtnet.h"
#include "test/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PORT = 9000, LINES = 16, SESSIONS = 32, SENT = 4096, TOKEN = 22 };
enum { HEAP = 128 * 1024 };
enum config { DIALS = 1, WS = 2, ECHOES = 4 };

/* Where messages of the peer end: the head of one, what is left of it. */
struct border {
    uint8_t head[14];
    size_t len, left;
};

/* One connection, and what has been read of what the library writes to it. */
struct line {
    sim_peer *peer;
    struct ws_bytes got;
    int shaken;      /* a WebSocket handshake is done, or need not be */
    int said;        /* messages that came */
    int session;     /* of w; -1 */
    uint64_t number; /* of the last m that came */
    long acked;      /* the last a; -1 */
    int closed;      /* a close came */
    struct border border;
};

/* As the application sees it. */
struct session {
    rt_session s;
    char public[TOKEN + 1];
    uint64_t heard; /* m and u */
    uint64_t sent;
    uint64_t hash[SENT];
};

static struct {
    rt_loop *loop;
    int config, lines, sessions, opened, closed;
    struct line line[LINES];
    struct session session[SESSIONS];
    char current[TOKEN + 1], previous[TOKEN + 1];
    uint64_t echoed;
    int keyed;
    int together; /* messages may come together */
} g;

/* ---- the application ----------------------------------------------------- */

static uint64_t hash_of(int binary, const uint8_t *p, size_t n)
{
    uint64_t h = 14695981039346656037U + (uint64_t)binary;

    while (n--)
        h = (h ^ *p++) * 1099511628211U;
    return h;
}

static struct session *session_of(rt_session s)
{
    int i;

    for (i = g.sessions; i-- > 0;)
        if (rt_same(g.session[i].s, s))
            return &g.session[i];
    fuzz_wrong("an upcall for a session that never opened");
    return &g.session[0];
}

static void app_send(rt_session s, int kind, const void *data, size_t len)
{
    struct session *p = session_of(s);

    if (p->sent < SENT && rt_send(g.loop, s, kind, data, len) >= 0) {
        p->hash[p->sent++] = hash_of(kind == RT_BINARY, data, len);
        g.echoed += len;
    }
}

static void on_open(rt_loop *l, rt_session s)
{
    (void)l;
    if (g.sessions == SESSIONS) {
        rt_close(l, s, 1000, "");
        return;
    }
    memset(&g.session[g.sessions], 0, sizeof *g.session);
    g.session[g.sessions++].s = s;
    g.opened++;
    fuzz_tell(FUZZ_APP, "open");
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    struct session *p = session_of(s);

    if (rt_state(l, s) != RT_OPEN)
        fuzz_wrong("a message for a session that is not open");
    if (kind == RT_TEXT && !fuzz_utf8(data, len))
        fuzz_wrong("a text that is no UTF-8");
    fuzz_tell_bytes(FUZZ_APP, kind == RT_TEXT ? "text" : "binary", data, len);
    p->heard++;
    if (g.config & ECHOES)
        app_send(s, kind, data, len);
}

static void on_away(rt_loop *l, rt_session s)
{
    int state = rt_state(l, s); /* another connection took it over: open */

    if (state != RT_AWAY && state != RT_OPEN)
        fuzz_wrong("away, but in state %d", state);
    fuzz_tell(FUZZ_APP, "away");
}

static void on_back(rt_loop *l, rt_session s, uint64_t lost)
{
    if (rt_state(l, s) != RT_OPEN)
        fuzz_wrong("back, but in state %d", rt_state(l, s));
    fuzz_tell(FUZZ_APP, "back %d", (int)lost);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    (void)l;
    (void)s;
    g.closed++;
    fuzz_tell(FUZZ_APP, "close %d %s", why->code,
              why->cause == RT_BY_PEER ? "peer" : "own");
}

static const rt_handler handler = {.open = on_open,
                                   .message = on_message,
                                   .away = on_away,
                                   .back = on_back,
                                   .close = on_close};

/* The newest session, if it lives. */
static rt_session newest(void)
{
    rt_session none = {0};

    return g.sessions ? g.session[g.sessions - 1].s : none;
}

/* ---- what the library says ----------------------------------------------- */

static void number_check(struct line *l, int binary, const uint8_t *p, size_t n)
{
    struct session *s = l->session < 0 ? NULL : &g.session[l->session];

    l->number++;
    if (g.config & DIALS)
        return;
    if (!s || l->number > s->sent ||
        s->hash[l->number - 1] != hash_of(binary, p, n))
        fuzz_wrong("message %d is not what was sent", (int)l->number);
}

/* w TOKEN PUBLIC received base status ping */
static void w_came(struct line *l, const char *text, int n)
{
    char token[32], public[32], status[16];
    unsigned long received, base, ping, i;
    int end = 0;

    if (l->said != 1 || g.config & DIALS ||
        sscanf(text, "w%30s %30s %lu %lu %15s %lu%n", token, public, &received,
               &base, status, &ping, &end) != 6 ||
        end != n || strlen(token) != TOKEN) {
        fuzz_wrong("a bad w: %.*s", n, text);
        return;
    }
    memcpy(g.previous, g.current, sizeof g.previous);
    memcpy(g.current, token, sizeof g.current);
    for (i = 0; i < (unsigned long)g.sessions; i++)
        if (strcmp(g.session[i].public, public) == 0)
            l->session = (int)i;
    if (strcmp(status, "new") == 0 && l->session < 0) {
        l->session = g.sessions - 1;
        snprintf(g.session[l->session].public, TOKEN + 1, "%.22s", public);
    } else if (strcmp(status, "new") == 0 || l->session < 0) {
        fuzz_wrong("a w of no session: %.*s", n, text);
        return;
    }
    if (received > g.session[l->session].heard ||
        base > g.session[l->session].sent)
        fuzz_wrong("a w with wrong numbers: %.*s", n, text);
    l->number = base;
    fuzz_tell(FUZZ_DATA, "w %lu %lu %s", received, base, status);
}

/* The first thing that a client says, and the only one before w. */
static void h_came(struct line *l, const char *text, int n)
{
    if (l->said != 1 || !(g.config & DIALS))
        fuzz_wrong("an h where none may be: %.*s", n, text);
    fuzz_tell_bytes(FUZZ_DATA, "h", text + 1, (size_t)n - 1);
}

static void a_came(struct line *l, const char *text, int n)
{
    unsigned long acked;
    int end = 0;

    if (sscanf(text, "a%lu%n", &acked, &end) != 1 || end != n ||
        (long)acked < l->acked)
        fuzz_wrong("a bad a: %.*s", n, text);
    else
        l->acked = (long)acked;
}

static void c_came(struct line *l, const char *text, int n)
{
    int code = atoi(text + 1);

    if (code < 1000 || code > 4999 || code == 1005 || code == 1006)
        fuzz_wrong("a bad c: %.*s", n, text);
    l->closed = 1;
    fuzz_tell(FUZZ_CONTROL, "c %d", code);
}

/* One message of rtnet.1; kind as its frame says, 0 on TCP. */
static void message_came(struct line *l, int kind, const uint8_t *p, size_t n)
{
    int letter = n ? p[0] : 0, tcp = kind == 0;
    int binary = kind == RT_BINARY || (tcp && (letter == 'M' || letter == 'U'));

    if (l->closed)
        fuzz_wrong("something behind a close");
    if (++l->said > 1 && letter != 'c' && !(g.config & DIALS) && l->session < 0)
        fuzz_wrong("'%c' before w", letter);
    if (letter == 'm' || (tcp && letter == 'M')) {
        number_check(l, binary, p + 1, n - 1);
        fuzz_tell_bytes(FUZZ_DATA, binary ? "M" : "m", p + 1, n - 1);
    } else if (letter == 'u' || (tcp && letter == 'U')) {
        fuzz_tell_bytes(FUZZ_DATA, binary ? "U" : "u", p + 1, n - 1);
    } else if (binary || n > 130) {
        fuzz_wrong("control as binary, or too long: %02x", letter);
    } else if (letter == 'w') {
        w_came(l, (const char *)p, (int)n);
    } else if (letter == 'h') {
        h_came(l, (const char *)p, (int)n);
    } else if (letter == 'a') {
        a_came(l, (const char *)p, (int)n);
    } else if (tcp && letter == 'c') {
        c_came(l, (const char *)p, (int)n);
    } else if (tcp && letter == 'q' && n <= 17) {
        fuzz_tell_bytes(FUZZ_CONTROL, "q", p + 1, n - 1);
    } else if (!tcp || letter != 'p' || n > 17) {
        fuzz_wrong("a letter %02x", letter);
    }
}

/* Control frames of WebSocket. */
static void frame_came(struct line *l, int op, const uint8_t *p, size_t n)
{
    if (op < 8) {
        message_came(l, op, p, n);
        return;
    }
    if (l->closed)
        fuzz_wrong("a frame behind a close");
    l->closed = op == 8;
    if (op == 8)
        fuzz_tell(FUZZ_CONTROL, "c %d", n > 1 ? p[0] << 8 | p[1] : 0);
    else if (op == 10)
        fuzz_tell_bytes(FUZZ_CONTROL, "q", p, n);
}

static uint64_t number(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    while (n--)
        v = v << 8 | *p++;
    return v;
}

/* Returns the size of one that is whole, or 0. */
static size_t packet_read(struct line *l, const uint8_t *p, size_t n)
{
    size_t len;

    if (n < 4)
        return 0;
    len = (size_t)number(p, 4);
    if (len < 1 || len > 65537)
        fuzz_wrong("a packet of %zu bytes", len);
    if (n - 4 < len)
        return 0;
    message_came(l, 0, p + 4, len);
    return 4 + len;
}

static size_t frame_read(struct line *l, uint8_t *p, size_t n)
{
    int masked = g.config & DIALS;
    size_t more, head, len, i;

    if (n < 2)
        return 0;
    more = (p[1] & 127) == 126 ? 2 : (p[1] & 127) == 127 ? 8 : 0;
    head = 2 + more + (masked ? 4 : 0);
    if (n < head)
        return 0;
    len = more ? (size_t)number(p + 2, more) : p[1] & 127;
    if (!(p[0] & 0x80) || p[0] & 0x70 || p[1] >> 7 != masked ||
        !strchr("\1\2\10\11\12", p[0] & 15))
        fuzz_wrong("a bad frame: %02x %02x", p[0], p[1]);
    if (n - head < len)
        return 0;
    for (i = 0; masked && i < len; i++)
        p[head + i] ^= p[head - 4 + i % 4];
    frame_came(l, p[0] & 15, p + head, len);
    return head + len;
}

/* ---- lines ----------------------------------------------------------------
 */

#define UPGRADE "Upgrade: websocket\r\nConnection: Upgrade\r\n"
static const char request[] =
    "GET / HTTP/1.1\r\nHost: h\r\n" UPGRADE
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: rtnet.1\r\n\r\n";

static void say(struct line *l, const void *data, size_t n)
{
    if (l->peer)
        sim_peer_send(l->peer, data, n);
}

/* The head of the handshake; returns its size, 0: not whole yet. */
static size_t head_read(struct line *l, const char *text)
{
    const char *end = strstr(text, "\r\n\r\n"), *key;
    char accept[29], answer[256];

    if (!end)
        return 0;
    l->shaken = 1;
    if (!(g.config & DIALS))
        return (size_t)(end + 4 - text);
    key = strstr(text, "Sec-WebSocket-Key: ");
    ws_accept_of(key ? key + 19 : "", accept);
    snprintf(answer, sizeof answer,
             "HTTP/1.1 101 Switching Protocols\r\n" UPGRADE
             "Sec-WebSocket-Accept: %s\r\n"
             "Sec-WebSocket-Protocol: rtnet.1\r\n\r\n",
             accept);
    say(l, answer, strlen(answer));
    return (size_t)(end + 4 - text);
}

static void line_decode(struct line *l)
{
    size_t n;

    do {
        if (!l->shaken)
            n = head_read(l, (const char *)l->got.at);
        else if (g.config & WS)
            n = frame_read(l, l->got.at, l->got.len);
        else
            n = packet_read(l, l->got.at, l->got.len);
        l->got.len -= n;
        memmove(l->got.at, l->got.at + n, l->got.len + 1);
    } while (n);
}

static void line_read(struct line *l)
{
    struct ws_bytes *b = &l->got;
    size_t n = l->peer ? sim_peer_waiting(l->peer) : 0;

    if (!n)
        return;
    if (b->len + n + 1 > b->cap) {
        b->cap = 2 * (b->len + n + 1);
        b->at = realloc(b->at, b->cap);
        if (!b->at)
            exit(2);
    }
    b->len += sim_peer_recv(l->peer, b->at + b->len, n);
    b->at[b->len] = 0;
    line_decode(l);
}

static void turns(int n, int ms)
{
    int i;

    while (n--) {
        rt_poll(g.loop, ms);
        for (i = 0; i < g.lines; i++)
            line_read(&g.line[i]);
    }
}

/* A client takes its time to come back. */
static sim_peer *dialled(void)
{
    sim_peer *p = sim_accept(PORT);
    int i;

    for (i = 0; i < 60 && !p; i++) {
        turns(1, 500);
        p = sim_accept(PORT);
    }
    return p;
}

/* The present line is the last one. */
static void line_new(void)
{
    struct line *l = &g.line[g.lines];
    int i;

    if (g.lines == LINES)
        return;
    memset(l, 0, sizeof *l);
    l->session = -1;
    l->acked = -1;
    l->shaken = !(g.config & WS);
    l->peer = g.config & DIALS ? dialled() : sim_connect(PORT);
    g.lines++;
    fuzz_tell(FUZZ_CONTROL, "line");
    if (g.config & WS && !(g.config & DIALS))
        say(l, request, sizeof request - 1);
    for (i = 0; i < 10 && !(l->shaken && l->said); i++)
        turns(1, g.config & DIALS ? 1 : 0);
}

static void line_close(struct line *l)
{
    if (l->peer)
        sim_peer_close(l->peer);
    l->peer = NULL;
}

/* ---- the script -----------------------------------------------------------
 */

static void script_cut(void)
{
    if (g.lines && g.line[g.lines - 1].peer)
        sim_peer_reset(g.line[g.lines - 1].peer);
    turns(2, 0);
    line_close(&g.line[g.lines - 1]);
    line_new();
}

static void script_fin(void)
{
    line_close(&g.line[g.lines - 1]);
    turns(2, 0);
    line_new();
}

static void script_sec(void)
{
    sim_pass(1000);
    turns(3, 0);
}

static void script_say(void)
{
    char text[16];
    int n = snprintf(text, sizeof text, "s%d", g.keyed++);

    if (g.sessions && rt_state(g.loop, newest()) > 0)
        app_send(newest(), RT_TEXT, text, (size_t)n);
}

static void script_key(void)
{
    char text[16];
    int n = snprintf(text, sizeof text, "k%d", g.keyed++);

    rt_send(g.loop, newest(), RT_TEXT | rt_latest((uint16_t)(g.keyed % 2)),
            text, (size_t)n);
}

static void script_end(void)
{
    rt_close(g.loop, newest(), 1000, "end");
}

static const struct word {
    const char *text;
    void (*act)(void);
} words[] = {{"{cut}", script_cut}, {"{fin}", script_fin},
             {"{two}", line_new},   {"{sec}", script_sec},
             {"{say}", script_say}, {"{key}", script_key},
             {"{end}", script_end}};

static const struct word *word_at(const uint8_t *p, size_t n)
{
    size_t i;

    for (i = 0; i < sizeof words / sizeof *words; i++)
        if (n >= 5 && memcmp(p, words[i].text, 5) == 0)
            return &words[i];
    return NULL;
}

/* Puts a token where its word stands. */
static void tokens_put(uint8_t *p, size_t n)
{
    size_t i;

    for (i = 0; i + TOKEN <= n; i++) {
        if (*g.current && memcmp(p + i, "{current-token-here--}", TOKEN) == 0)
            memcpy(p + i, g.current, TOKEN);
        if (*g.previous && memcmp(p + i, "{previous-token-here-}", TOKEN) == 0)
            memcpy(p + i, g.previous, TOKEN);
    }
}

/* The size of the message that begins so; 0: that is not known yet. */
static size_t message_size(const uint8_t *p, size_t n)
{
    size_t more, head = 4;

    if (!(g.config & WS))
        return n < 4 ? 0 : 4 + (size_t)number(p, 4);
    if (n < 2)
        return 0;
    more = (p[1] & 127) == 126 ? 2 : (p[1] & 127) == 127 ? 8 : 0;
    head = 2 + more + (p[1] & 0x80 ? 4 : 0);
    if (n < head)
        return 0;
    return head + (more ? (size_t)number(p + 2, more) : p[1] & 127);
}

/* The peer says one byte more; true when a message ends with it. */
static int border_next(struct border *b, uint8_t byte)
{
    size_t size;

    if (b->left)
        return --b->left == 0;
    b->head[b->len++] = byte;
    size = message_size(b->head, b->len);
    if (!size && b->len < sizeof b->head)
        return 0;
    b->left = size > b->len ? size - b->len : 0;
    b->len = 0;
    return b->left == 0;
}

/*
 * How much comes next.  Two messages may differ in what they do if they come
 * in one turn: the second may acknowledge what the library has yet to send as
 * an answer to the first.  So pieces end where messages do.
 */
static size_t piece(const uint8_t *p, size_t n, struct fuzz_cut *cut)
{
    struct line *l = &g.line[g.lines - 1];
    struct border ahead = l->border;
    size_t some = 0, i;

    if (g.together)
        return fuzz_piece(cut, n);
    while (some < n && !border_next(&ahead, p[some++]))
        ;
    some = fuzz_piece(cut, some);
    for (i = 0; i < some; i++)
        border_next(&l->border, p[i]);
    return some;
}

/* Bytes up to the next word. */
static void stretch(const uint8_t *data, size_t n, struct fuzz_cut *cut)
{
    uint8_t *copy = malloc(n + 1);
    size_t i, some;

    if (!copy)
        exit(2);
    memcpy(copy, data, n);
    tokens_put(copy, n);
    for (i = 0; i < n; i += some) {
        some = piece(copy + i, n - i, cut);
        say(&g.line[g.lines - 1], copy + i, some);
        turns(1, 0);
    }
    free(copy);
    turns(4, 0);
}

static void script(const uint8_t *data, size_t size, struct fuzz_cut *cut)
{
    const struct word *w;
    size_t begin = 0, i = 0;

    for (i = 0; i < size; i++) {
        w = word_at(data + i, size - i);
        if (!w)
            continue;
        stretch(data + begin, i - begin, cut);
        w->act();
        turns(2, 0);
        cut->pieces += 20;
        i += 4;
        begin = i + 1;
    }
    stretch(data + begin, size - begin, cut);
}

static void world_start(int config)
{
    static const sim_opts kernel = {
        .seed = 1, .window = 1 << 20, .spin = 1 << 30};
    const char *url =
        config & WS ? "ws://127.0.0.1:9000/" : "tcp://127.0.0.1:9000";
    rt_loop_opts o = {.realloc = sim_realloc};
    rt_listen_opts server = {.on = handler, .resume_ms = 15000};
    rt_dial_opts client = {.on = handler, .resume = 1, .protocols = "rtnet.1"};

    sim_start(&kernel);
    g.loop = rt_loop_new(&o);
    if (!(config & WS))
        server.framing = client.framing = RT_RTNET1;
    if (config & DIALS) {
        if (!(config & WS))
            client.protocols = NULL;
        sim_serve(PORT);
        if (!rt_dial(g.loop, url, &client).id)
            fuzz_wrong("cannot dial");
    } else if (!rt_listen(g.loop, config & WS ? "ws://127.0.0.1:9000" : url,
                          &server)
                    .id) {
        fuzz_wrong("cannot listen");
    }
}

static void world_end(void)
{
    int i;

    for (i = 0; i < g.lines; i++) {
        line_read(&g.line[i]);
        line_close(&g.line[i]);
        free(g.line[i].got.at);
    }
    g.lines = 0;
    turns(4, 0);
    rt_loop_free(g.loop);
    if (g.opened > g.closed || g.closed > g.opened + (g.config & DIALS))
        fuzz_wrong("opened %d times, closed %d times", g.opened, g.closed);
    if (sim_end())
        fuzz_wrong("%s", sim_fault_text());
}

static void play(const uint8_t *data, size_t size, struct fuzz_cut *cut)
{
    struct fuzz_cost cost;

    g.config = data[0];
    g.lines = g.sessions = g.opened = g.closed = g.keyed = 0;
    g.echoed = 0;
    g.current[0] = g.previous[0] = 0;
    world_start(g.config);
    fuzz_cost_begin(&cost);
    line_new();
    script(data + 2, size - 2, cut);
    fuzz_cost_end(&cost, size, cut->pieces + 150, HEAP + 2 * g.echoed);
    world_end();
}

/* Once with messages together, which is not compared with anything. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_cut cut = {FUZZ_SPLIT, size, size, 0};

    g.together = 1;
    fuzz_begin();
    if (size >= 2 && !fuzz_once)
        play(data, size, &cut);
    if (fuzz_end())
        return 1;
    g.together = 0;
    return fuzz_three_ways(play, data, size);
}
