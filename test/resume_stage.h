/*
 * The stage of the tests of rtnet.1: a loop with a listener or a dialled
 * session, and lines: raw peers that speak the protocol by hand, as a client
 * or as a server, over WebSocket or over TCP.
 *
 * A line says and hears messages in the words of TCP on either wire: "mhi" is
 * a counted text, "Mhi" a binary one, "uhi" an uncounted one, "a3" an
 * acknowledgement, "c1002" a close.  Heard messages are compared as words:
 * the w of a server is "w:RECEIVED:BASE:STATUS", the h of a client "h" or
 * "h:N:RECEIVED:TRY" with the token that the line's N-th w gave, a long one
 * its first two letters and its length, "-" an end without a close.
 *
 * What the callbacks are told is a text, too: "open mhi away back:0
 * close:1000:2" (the code and what was lost); those of the second session
 * start with "2.", and so on.
 */
#ifndef RESUME_STAGE_H
#define RESUME_STAGE_H

#include "rtnet_internal.h"

#include "clock.h"
#include "peer.h"

#include <sched.h>
#include <signal.h>
#include <stdarg.h>

enum { WS, TCP, WIRES };
static const char *const wire_names[WIRES] = {"ws", "tcp"};

enum { TRANSCRIPT = 32768, SESSIONS = 64, TOKENS = 2048, LONG_WORD = 24 };

typedef struct {
    char s[TRANSCRIPT];
    size_t len;
    int words;
} transcript;

/* What a w says. */
typedef struct {
    char token[23], who[23], status[8];
    unsigned long long received, base, ping;
} welcome;

typedef struct {
    peer p;
    int wire;
    int server;       /* plays the server's part */
    int deaf;         /* answers no pings */
    int waits;        /* for what it wants to read */
    int pings, pongs; /* how many came */
    int closed;       /* the code of the close that came */
    char *msg;        /* the last message */
    size_t len, cap;
    char reason[128];  /* of the close */
    char pong[20];     /* the last one's bytes */
    welcome w;         /* the last w */
    transcript script; /* what was heard by the last HEARS */
} line;

static struct {
    rt_loop_opts loop_opts;
    rt_listen_opts opts;
    rt_dial_opts dial;
    int backend, wire;
    rt_loop *loop;
    rt_listener listener;
    int port;
    int listening; /* the descriptor that a scripted server accepts from */
    line a, b, c;  /* a carries the first session */
    rt_session s[SESSIONS + 1]; /* by their numbers, from 1 */
    int opens[SESSIONS + 1], closes[SESSIONS + 1];
    int count;
    rt_session asked;   /* of the last on_request */
    rt_end end;         /* of the last on_close */
    const char *uid;    /* on_request accepts with it */
    const char *picked; /* on_request accepts with this sub-protocol */
    int refuse;         /* the resume handler refuses */
    rt_session from;    /* what it was told */
    void (*deed)(const char *what, rt_session s); /* in each callback */
    transcript told;
    char tokens[TOKENS][23]; /* all that were given out */
    int token_count, leaks;
    uint64_t chance;
    int no_random;            /* the random hook fails */
    unsigned long long acked; /* the last number a line acknowledged */
} st;

/* ---- the clock ----------------------------------------------------------- */

/* As peer_quiet; the kernel may want a moment to bring what was sent. */
static inline void calm(void)
{
    int idle = 0, i;
    for (i = 0; idle < 3 && i < 1000; i++) {
        idle = peer_turn(st.loop, 0) == 0 ? idle + 1 : 0;
        if (idle)
            sched_yield();
    }
}

/* Lets time pass, and the loop notice it. */
static inline void skip(unsigned ms)
{
    uint64_t before = peer_clock();
    clock_ahead += ms;
    if (peer_clock() - before < ms)
        SKIP("this system's clock cannot be put forward");
    calm();
}

/* ---- texts --------------------------------------------------------------- */

static inline void same_text(const char *got, const char *want,
                             const char *file, int at, const char *what)
{
    if (strcmp(got, want) == 0)
        return;
    if (test_bad++ < 5)
        printf("%s:%d: %s: %s is \"%.400s\", not \"%.400s\"\n", file, at,
               test_name, what, got, want);
}

#define SAME(got, want) same_text(got, want, __FILE__, __LINE__, #got)

static inline void script_clear(transcript *t)
{
    t->len = 0;
    t->words = 0;
    t->s[0] = 0;
}

static inline void script_add(transcript *t, const char *word)
{
    int n = snprintf(t->s + t->len, TRANSCRIPT - t->len, "%s%s",
                     t->len ? " " : "", word);
    if (n > 0 && (size_t)n < TRANSCRIPT - t->len)
        t->len += (size_t)n;
    t->words++;
}

static inline int words_of(const char *text)
{
    int n = *text != 0;
    while ((text = strchr(text, ' ')) != NULL)
        n++, text++;
    return n;
}

/* A message as a word. */
static inline const char *word_of(char out[40], const char *text, size_t len)
{
    if (len <= LONG_WORD)
        snprintf(out, 40, "%.*s", (int)len, text);
    else
        snprintf(out, 40, "%.2s#%u", text, (unsigned)len - 1);
    return out;
}

/* ---- the grammar, written a second time ---------------------------------- */

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqr"
                                "stuvwxyz0123456789-_";

static inline int token_valid(const char *t)
{
    return strlen(t) == 22 && strspn(t, base64url) == 22 &&
           strchr("AQgw", t[21]) != NULL;
}

static inline int number_read(const char *t, unsigned long long *out)
{
    size_t n = strlen(t);
    *out = strtoull(t, NULL, 10);
    return n >= 1 && n <= 16 && strspn(t, "0123456789") == n &&
           (t[0] != '0' || n == 1) && *out <= 9007199254740991ull;
}

/* Copies the next field; 0 when there is none or it is too long. */
static inline int field_read(const char **at, char *out, size_t cap)
{
    size_t n = strcspn(*at, " ");
    if (n == 0 || n >= cap)
        return 0;
    memcpy(out, *at, n);
    out[n] = 0;
    *at += n;
    if (**at == ' ' && (*at)[1] != 0)
        ++*at;
    return 1;
}

static inline int welcome_read(const char *at, welcome *w)
{
    char received[17], base[17], ping[17];
    return strlen(at) <= 129 && field_read(&at, w->token, 23) &&
           field_read(&at, w->who, 23) && field_read(&at, received, 17) &&
           field_read(&at, base, 17) && field_read(&at, w->status, 8) &&
           field_read(&at, ping, 17) && *at == 0 &&
           (strcmp(w->token, "-") == 0 || token_valid(w->token)) &&
           strspn(w->who, base64url) == strlen(w->who) &&
           number_read(received, &w->received) && number_read(base, &w->base) &&
           number_read(ping, &w->ping);
}

/* The n-th token that a scripted server gives. */
static inline const char *token_of(int n)
{
    static char token[23];
    snprintf(token, sizeof token, "AAAAAAAAAAAAAAAAAAA-%cg", '0' + n);
    return token;
}

/* An h as a word. */
static inline void greeting_word(char out[64], const char *at)
{
    char token[23], received[17], attempt[17];
    unsigned long long n;
    int i = 1;
    snprintf(out, 64, "h");
    if (*at == 0)
        return;
    snprintf(out, 64, "h!%s", at);
    if (!field_read(&at, token, 23) || !field_read(&at, received, 17) ||
        !field_read(&at, attempt, 17) || *at || !token_valid(token) ||
        !number_read(received, &n) || !number_read(attempt, &n))
        return;
    while (i < 10 && strcmp(token, token_of(i)) != 0)
        i++;
    snprintf(out, 64, "h:%d:%s:%s", i, received, attempt);
}

/* Tokens are secret: they stand in no log line, statistic or reason. */
static inline void keeps_secret(const char *text)
{
    int i;
    for (i = 0; i < st.token_count; i++)
        st.leaks += strstr(text, st.tokens[i]) != NULL;
}

static inline void token_given(const char *token)
{
    if (strcmp(token, "-") == 0 || st.token_count == TOKENS)
        return;
    memcpy(st.tokens[st.token_count++], token, 23);
}

/* ---- lines: saying ------------------------------------------------------- */

/* A frame of the line's role, or its payload as a message of TCP. */
static inline void line_frame(line *l, int op, const void *data, size_t len)
{
    uint8_t *out;
    size_t n = 2;
    int bytes = len < 126 ? 0 : len < 65536 ? 2 : 8;
    if (l->wire == TCP) {
        peer_stream_put(&l->p, data, len);
        return;
    }
    if (!l->server) {
        peer_frame_put(&l->p, 0x80 | op, data, len);
        return;
    }
    out = malloc(len + 10);
    out[0] = (uint8_t)(0x80 | op);
    out[1] = (uint8_t)(bytes == 0 ? len : bytes == 2 ? 126 : 127);
    while (bytes > 0)
        out[n++] = (uint8_t)((uint64_t)len >> 8 * --bytes);
    if (len)
        memcpy(out + n, data, len);
    peer_put(&l->p, out, n + len);
    free(out);
}

static inline void line_close(line *l, const char *text)
{
    int code = atoi(text + 1);
    const char *reason = strchr(text, ' ');
    char body[128];
    size_t n = reason ? strlen(reason + 1) : 0;
    body[0] = (char)(code >> 8);
    body[1] = (char)code;
    if (n)
        memcpy(body + 2, reason + 1, n);
    line_frame(l, 8, body, code ? n + 2 : 0);
}

static inline void line_put(line *l, const char *data, size_t len)
{
    char *copy;
    if (data[0] == 'a')
        st.acked = strtoull(data + 1, NULL, 10);
    if (l->wire == TCP) {
        peer_stream_put(&l->p, data, len);
    } else if (data[0] == 'M' || data[0] == 'U') {
        copy = malloc(len);
        memcpy(copy, data, len);
        copy[0] = (char)(data[0] | 0x20);
        line_frame(l, 2, copy, len);
        free(copy);
    } else if (data[0] == 'c') {
        line_close(l, data);
    } else if (data[0] == 'p' || data[0] == 'q') {
        line_frame(l, data[0] == 'p' ? 9 : 10, data + 1, len - 1);
    } else {
        line_frame(l, 1, data, len);
    }
}

static inline void say(line *l, const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    line_put(l, text, strlen(text));
}

/* A message of that type with len letters of payload. */
static inline void say_long(line *l, char type, char letter, size_t len)
{
    char *text = malloc(len + 1);
    memset(text, letter, len + 1);
    text[0] = type;
    line_put(l, text, len + 1);
    free(text);
}

/* ---- lines: hearing ------------------------------------------------------ */

/* Are there n bytes?  Waits for them where the line waits. */
static inline int line_has(line *l, size_t n)
{
    return l->waits ? peer_fill(&l->p, n) : l->p.len - l->p.at >= n;
}

static inline char *line_room(line *l, size_t len)
{
    if (l->cap < len + 1) {
        l->cap = len + 64;
        l->msg = realloc(l->msg, l->cap);
    }
    l->len = len;
    l->msg[len] = 0;
    return l->msg;
}

/* A frame in the words of TCP. */
static inline void line_take_frame(line *l, int op, const uint8_t *data,
                                   size_t len)
{
    size_t skipped = 0;
    char code[8] = "";
    char *to;
    if (op == 8 && len >= 2) {
        snprintf(code, sizeof code, "c%d%s", data[0] << 8 | data[1],
                 len > 2 ? " " : "");
        skipped = 2;
    } else if (op >= 8) {
        snprintf(code, sizeof code, "%c", "cpq"[op - 8]);
    }
    to = line_room(l, strlen(code) + len - skipped);
    memcpy(to, code, strlen(code));
    if (len > skipped)
        memcpy(to + strlen(code), data + skipped, len - skipped);
    if (op == 2)
        to[0] = (char)(to[0] & ~0x20);
}

static inline int line_ws_next(line *l)
{
    peer *p = &l->p;
    uint8_t *b, mask[4] = {0, 0, 0, 0};
    size_t head = 2, len, i;
    int masked;
    if (!line_has(l, 2))
        return 0;
    len = p->in[p->at + 1] & 0x7f;
    masked = p->in[p->at + 1] >> 7;
    head += len == 126 ? 2 : len == 127 ? 8 : 0;
    if (!line_has(l, head))
        return 0;
    if (head > 2)
        len = (size_t)peer_number(p->in + p->at + 2, (int)head - 2);
    head += masked ? 4 : 0;
    if (!line_has(l, head + len))
        return 0;
    b = p->in + p->at;
    EQUAL(masked, l->server);
    EQUAL(b[0] & 0xf0, 0x80);
    if (masked)
        memcpy(mask, b + head - 4, 4);
    for (i = 0; i < len; i++)
        b[head + i] ^= mask[i & 3];
    p->at += head + len;
    line_take_frame(l, b[0] & 15, b + head, len);
    return 1;
}

static inline int line_tcp_next(line *l)
{
    peer *p = &l->p;
    size_t len;
    if (!line_has(l, 4))
        return 0;
    len = (size_t)peer_number(p->in + p->at, 4);
    if (!line_has(l, 4 + len))
        return 0;
    memcpy(line_room(l, len), p->in + p->at + 4, len);
    p->at += 4 + len;
    return 1;
}

/* A ping is answered, a pong remembered: neither is heard. */
static inline int line_heartbeat(line *l)
{
    if (l->msg[0] == 'p') {
        l->pings++;
        l->msg[0] = 'q';
        if (!l->deaf)
            line_put(l, l->msg, l->len);
        return 1;
    }
    if (l->msg[0] != 'q')
        return 0;
    l->pongs++;
    snprintf(l->pong, sizeof l->pong, "%s", l->msg + 1);
    return 1;
}

/* The next message, or 0. */
static inline int line_next(line *l)
{
    while (l->wire == WS ? line_ws_next(l) : line_tcp_next(l))
        if (!line_heartbeat(l))
            return 1;
    return 0;
}

static inline void line_word(line *l, char out[64])
{
    char *space;
    if (l->msg[0] == 'w' && !l->server) {
        if (welcome_read(l->msg + 1, &l->w))
            snprintf(out, 64, "w:%llu:%llu:%s", l->w.received, l->w.base,
                     l->w.status);
        else
            snprintf(out, 64, "w!%.60s", l->msg);
        token_given(l->w.token);
    } else if (l->msg[0] == 'h' && l->server) {
        greeting_word(out, l->msg + 1);
    } else if (l->msg[0] == 'c') {
        space = strchr(l->msg, ' ');
        snprintf(l->reason, sizeof l->reason, "%s", space ? space + 1 : "");
        keeps_secret(l->reason);
        l->closed = atoi(l->msg + 1);
        snprintf(out, 64, "c%d", l->closed);
    } else {
        word_of(out, l->msg, l->len);
    }
}

/* What comes, as a transcript: waits for `words` of them, not for more. */
static inline const char *line_hear(line *l, int words)
{
    char word[64];
    script_clear(&l->script);
    for (;;) {
        l->waits = l->script.words < words;
        if (!l->waits) {
            calm();
            while (peer_take(&l->p))
                ;
        }
        if (!line_next(l))
            break;
        line_word(l, word);
        script_add(&l->script, word);
    }
    if (l->p.gone && !l->closed)
        script_add(&l->script, "-");
    return l->script.s;
}

/* By now, that is: no timer's time has come since. */
#define HEARS_NOW(l, want)                                                     \
    same_text(line_hear(l, 0), want, __FILE__, __LINE__, #l)

#define HEARS(l, want)                                                         \
    same_text(line_hear(l, words_of(want)), want, __FILE__, __LINE__, #l)

/* Waits until the other side has read all that was said: a ping is answered
   behind it. */
static inline void line_settle(line *l)
{
    int before = l->pongs;
    uint64_t end = peer_clock() + PEER_WAIT;
    l->waits = 0;
    say(l, "p");
    while (l->pongs == before && !l->p.gone && peer_clock() < end) {
        peer_turn(st.loop, 1);
        peer_take(&l->p);
        EQUAL(line_next(l), 0);
    }
}

/* Waits until it has said something: but for that, time stands still. */
static inline void line_await(line *l)
{
    uint64_t end = peer_clock() + 100;
    while (l->p.len == l->p.at && !l->p.gone && peer_clock() < end) {
        peer_turn(st.loop, 0);
        sched_yield();
        peer_take(&l->p);
    }
}

/* ---- lines: beginning and end -------------------------------------------- */

static inline void line_free(line *l)
{
    if (l->p.loop)
        peer_end(&l->p);
    free(l->msg);
    memset(l, 0, sizeof *l);
}

static inline void line_cut(line *l)
{
    peer_reset(&l->p);
}

/* A connection to that port, before the upgrade. */
static inline int line_connect(line *l, int wire, int port)
{
    line_free(l);
    l->wire = wire;
    return peer_tcp(&l->p, st.loop, port);
}

static inline void line_ask(line *l)
{
    if (l->wire == WS)
        peer_ask(&l->p, "/", "Sec-WebSocket-Protocol: rtnet.1\r\n");
}

static inline int line_open_at(line *l, int wire, int port)
{
    if (!line_connect(l, wire, port))
        return 0;
    if (wire == TCP)
        return 1;
    line_ask(l);
    return peer_status(&l->p) == 101 &&
           strstr(l->p.head, "\r\nSec-WebSocket-Protocol: rtnet.1\r\n");
}

/* A connection that may say its h. */
static inline void line_open(line *l)
{
    CHECK(line_open_at(l, st.wire, st.port));
    calm();
}

/* Comes back with a token; has: how many messages it has. */
static inline void line_return(line *l, const welcome *w,
                               unsigned long long has,
                               unsigned long long attempt)
{
    line_open(l);
    say(l, "h%s %llu %llu", w->token, has, attempt);
}

/* The server's side of the upgrade: what the client asked stands in
   l->p.head. */
static inline void line_answer(line *l)
{
    const char *key = strstr(l->p.head, "Sec-WebSocket-Key: ");
    char text[32], accepted[29], answer[256];
    CHECK(strstr(l->p.head, "Sec-WebSocket-Protocol: rtnet.1\r\n") != NULL);
    CHECK(key != NULL);
    if (!key)
        return;
    snprintf(text, sizeof text, "%.24s", key + 19);
    rt__accept_key(text, accepted);
    snprintf(answer, sizeof answer,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
             "Sec-WebSocket-Protocol: rtnet.1\r\n\r\n",
             accepted);
    peer_say(&l->p, answer);
}

/* A scripted server has this connection; with the upgrade's question. */
static inline void line_accepted(line *l, int fd)
{
    int now = 1;
    line_free(l);
    l->server = 1;
    l->wire = st.wire;
    peer_init(&l->p, st.loop, fd);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &now, sizeof now);
    if (st.wire == WS)
        peer_status(&l->p);
}

/* It takes the next one. */
static inline int line_accept(line *l)
{
    peer p;
    int there = peer_accept(&p, st.loop, st.listening);
    if (there)
        line_accepted(l, p.fd);
    return there;
}

/* The client's h may come now. */
static inline void line_take(line *l)
{
    CHECK(line_accept(l));
    if (st.wire == WS)
        line_answer(l);
}

/* ---- the callbacks ------------------------------------------------------- */

/* The number of a session: the first that a callback named is 1. */
static inline int number_of(rt_session s)
{
    int i;
    for (i = 1; i <= st.count; i++)
        if (rt_same(st.s[i], s))
            return i;
    if (st.count < SESSIONS)
        st.count++;
    st.s[st.count] = s;
    return st.count;
}

static inline void tell(rt_session s, const char *format, ...)
{
    char word[128];
    int number = number_of(s), n = 0;
    va_list list;
    if (number > 1)
        n = snprintf(word, sizeof word, "%d.", number);
    va_start(list, format);
    vsnprintf(word + n, sizeof word - (size_t)n, format, list);
    va_end(list);
    EQUAL(st.closes[number], 0); /* on_close is the last call */
    script_add(&st.told, word);
}

static inline void act(const char *what, rt_session s)
{
    if (st.deed)
        st.deed(what, s);
}

static inline int on_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    rt_accept_opts accept = {0};
    (void)r;
    st.asked = s;
    accept.uid = st.uid;
    accept.protocol = st.picked;
    if (st.uid || st.picked)
        EQUAL(rt_accept(loop, s, &accept), 0);
    return 0;
}

static inline void on_open(rt_loop *loop, rt_session s)
{
    EQUAL(rt_state(loop, s), RT_OPEN);
    EQUAL(st.opens[number_of(s)]++, 0);
    tell(s, "open");
    act("open", s);
}

static inline void on_message(rt_loop *loop, rt_session s, int kind,
                              const void *data, size_t len)
{
    char word[40], *text = malloc(len + 2);
    EQUAL(rt_state(loop, s), RT_OPEN);
    EQUAL(((const char *)data)[len], 0);
    text[0] = kind == RT_BINARY ? 'M' : 'm';
    memcpy(text + 1, data, len);
    tell(s, "%s", word_of(word, text, len + 1));
    free(text);
    act("message", s);
}

static inline void on_writable(rt_loop *loop, rt_session s)
{
    (void)loop;
    tell(s, "writable");
    act("writable", s);
}

static inline void on_away(rt_loop *loop, rt_session s)
{
    (void)loop;
    tell(s, "away");
    act("away", s);
}

static inline void on_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    EQUAL(rt_state(loop, s), RT_OPEN);
    tell(s, "back:%llu", (unsigned long long)lost);
    act("back", s);
}

static inline void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    EQUAL(rt_state(loop, s), RT_CLOSING);
    keeps_secret(why->reason);
    st.end = *why;
    st.end.reason = "";
    tell(s, "close:%d:%llu", why->code, (unsigned long long)why->lost);
    act("close", s);
    st.closes[number_of(s)]++;
}

static inline void on_limit(rt_loop *loop, rt_session s, int what)
{
    (void)loop;
    EQUAL(what, RT_LIMIT_RATE);
    tell(s, "limit");
}

static inline int on_resume(rt_loop *loop, rt_session s, rt_session from)
{
    (void)loop;
    (void)s;
    st.from = from;
    act("resume", s);
    return st.refuse ? RT_EREFUSED : 0;
}

static const rt_handler handler = {on_request,  on_open,  on_message,
                                   on_writable, on_away,  on_back,
                                   on_close,    on_limit, on_resume};

/* What was told since the last look. */
static inline const char *told_all(const char *want)
{
    static transcript last;
    size_t n = strlen(want);
    uint64_t end = peer_clock() + PEER_WAIT;
    while (st.told.len < n && peer_clock() < end)
        peer_turn(st.loop, 1);
    calm();
    last = st.told;
    script_clear(&st.told);
    return last.s;
}

#define TOLD(want) same_text(told_all(want), want, __FILE__, __LINE__, "told")

static inline const char *told_now(void)
{
    return told_all("");
}

#define TOLD_NOW(want) same_text(told_now(), want, __FILE__, __LINE__, "told")

/* ---- the stage ----------------------------------------------------------- */

static inline void on_log(void *user, int level, const char *text)
{
    (void)user;
    (void)level;
    keeps_secret(text);
}

/* Chance is the same in every run of a case. */
static inline int on_random(void *user, void *out, size_t n)
{
    uint64_t state = st.chance;
    uint8_t *to = out;
    size_t i;
    (void)user;
    if (st.no_random)
        return -1;
    for (i = 0; i < n; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        to[i] = (uint8_t)(state >> 32);
    }
    st.chance = state;
    return 0;
}

/* The options of a case, which it may change before the stage is set. */
static inline void stage_begin(int backend, int wire)
{
    memset(&st, 0, sizeof st);
    st.backend = backend;
    st.wire = wire;
    st.listening = -1;
    st.chance = 88172645463325252ull;
    st.loop_opts.backend = backend;
    st.loop_opts.log = on_log;
    st.loop_opts.random = on_random;
    st.loop_opts.realloc = peer_realloc;
    st.opts.on = handler;
    st.opts.resume_ms = 2000;
    st.opts.framing = wire == TCP ? RT_RTNET1 : RT_LENGTH;
    st.dial.on = handler;
    st.dial.resume = 1;
    st.dial.framing = st.opts.framing;
}

/* A listener of that wire; its port. */
static inline int stage_listen(int wire, const rt_listen_opts *opts)
{
    rt_listen_opts o = *opts;
    o.framing = wire == TCP ? RT_RTNET1 : RT_LENGTH;
    st.listener = rt_listen(
        st.loop, wire == TCP ? "tcp://127.0.0.1:0" : "ws://127.0.0.1:0", &o);
    CHECK(st.listener.id != 0);
    return rt_listener_port(st.loop, st.listener);
}

/* The library is the server. */
static inline void stage(void)
{
    st.loop = rt_loop_new(&st.loop_opts);
    CHECK(st.loop != NULL);
    st.port = stage_listen(st.wire, &st.opts);
}

/* The library is the client; its session is dialled. */
static inline void stage_dial(void)
{
    char url[64];
    st.loop = rt_loop_new(&st.loop_opts);
    st.listening = peer_listen(&st.port);
    CHECK(st.loop != NULL && st.listening >= 0);
    snprintf(url, sizeof url, "%s://127.0.0.1:%d/",
             st.wire == TCP ? "tcp" : "ws", st.port);
    if (st.wire == TCP)
        url[strlen(url) - 1] = 0;
    st.s[1] = rt_dial(st.loop, url, &st.dial);
    st.count = 1;
    CHECK(st.s[1].id != 0);
}

static inline void stage_secrets(void)
{
    char *page;
    size_t cap;
    if (!st.loop)
        return;
    cap = rt_metrics(st.loop, NULL, 0);
    page = malloc(cap);
    rt_metrics(st.loop, page, cap);
    keeps_secret(page);
    free(page);
}

/* Whatever the case was about: no session lacks its on_close, no token was
   seen where it should not be, all memory comes back. */
static inline void stage_end(void)
{
    int i;
    stage_secrets();
    st.deed = NULL;
    rt_loop_free(st.loop);
    for (i = 1; i <= st.count; i++)
        if (st.opens[i])
            EQUAL(st.closes[i], 1);
    line_free(&st.a);
    line_free(&st.b);
    line_free(&st.c);
    if (st.listening >= 0)
        close(st.listening);
    EQUAL(st.leaks, 0);
    EQUAL(peer_heap, 0);
    EQUAL(peer_heap_lies, 0);
    peer_heap = 0;
    peer_heap_lies = 0;
}

/* One case for each wire and backend. */
static inline void stage_run(const char *name, void (*test)(void))
{
    size_t i;
    int wire;
    for (i = 0; i < sizeof peer_backends / sizeof *peer_backends; i++)
        for (wire = 0; wire < WIRES; wire++) {
            test_begin("%s, %s, %s", name, wire_names[wire],
                       peer_backends[i].name);
            if (!test_lacks) {
                stage_begin(peer_backends[i].which, wire);
                test();
                stage_end();
            }
            test_end();
        }
}

#define RUN_WIRES(name) stage_run(#name, name)

/* ---- what many cases do -------------------------------------------------- */

/* The first session opens, on st.a. */
static inline void open_first(void)
{
    line_open(&st.a);
    say(&st.a, "h");
    HEARS(&st.a, "w:0:0:new");
    say(&st.a, "a0");
    line_settle(&st.a);
    TOLD("open");
}

/* And loses its line. */
static inline void open_and_lose(void)
{
    open_first();
    line_cut(&st.a);
    TOLD("away");
}

static inline int send_text(int number, const char *text)
{
    return rt_send(st.loop, st.s[number], RT_TEXT, text, strlen(text));
}

static inline int send_kind(int kind, const char *text)
{
    return rt_send(st.loop, st.s[1], kind, text, strlen(text));
}

/* len letters. */
static inline int send_long(int number, char letter, size_t len)
{
    char *text = malloc(len + 1);
    int error;
    memset(text, letter, len);
    error = rt_send(st.loop, st.s[number], RT_TEXT, text, len);
    free(text);
    return error;
}

#endif
