/*
 * RFC 6455 and its handshake, row by row, in both roles.  A raw peer on a
 * loopback socket plays a row of one of the tables and keeps two logs: what
 * came back over the wire, and what the application was told.  Each row runs
 * with either backend, its bytes in one piece and one at a time, with a turn
 * of the loop after each piece.
 *
 * All is one thread: the loop turns only when a row waits for something, and
 * a row that waits in vain gives up after a bounded number of turns.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include "rtnet.h"
#include "test.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum role { SERVER = 1, CLIENT }; /* what rtnet is */

/* The listeners, and the options of a dial. */
enum { PLAIN, HANDLER, TIGHT, LIST, ANY, SMALL, ECHO, OFFER, CONFIGS };

#include "conformance_frames.h"
#include "conformance_http.h"
#include "conformance_client.h"

#define COUNT(rows) (sizeof(rows) / sizeof((rows)[0]))

/* ---- logs ------------------------------------------------------------ */

struct log {
    char text[4096];
    size_t len;
};

static struct log app; /* what the application of this row was told */
static int app_ended;  /* its on_close ran */
static int app_echoes; /* it sends messages back */

static void log_put(struct log *log, const char *format, ...)
{
    size_t room = sizeof log->text - log->len;
    va_list list;
    int n;

    va_start(list, format);
    n = vsnprintf(log->text + log->len, room, format, list);
    va_end(list);
    if (n > 0)
        log->len += (size_t)n < room ? (size_t)n : room - 1;
}

/* Words of a log are divided by one space. */
static void log_word(struct log *log)
{
    if (log->len)
        log_put(log, " ");
}

/* The pattern that @N stands for; its period has no factor in common with the
   mask's, so that a mask out of phase shows. */
static unsigned char pattern(size_t i)
{
    return (unsigned char)('a' + i % 23);
}

static int is_pattern(const unsigned char *data, size_t len)
{
    size_t i;

    for (i = 0; i < len; i++)
        if (data[i] != pattern(i))
            return 0;
    return 1;
}

static void log_data(struct log *log, const void *data, size_t len)
{
    const unsigned char *p = data;
    size_t i;

    if (len >= 16 && is_pattern(p, len)) {
        log_put(log, "@%zu", len);
        return;
    }
    if (len > 64) {
        log_put(log, "#%zu", len);
        return;
    }
    for (i = 0; i < len; i++)
        log_put(log, p[i] >= ' ' && p[i] < 127 ? "%c" : "%%%02X", p[i]);
}

/* True when text is what the form says; * is any text, ? any character. */
static int matches(const char *form, const char *text)
{
    for (; *form != '*'; form++, text++) {
        if (!*text || !*form)
            return *text == *form;
        if (*form != '?' && *form != *text)
            return 0;
    }
    do {
        if (matches(form + 1, text))
            return 1;
    } while (*text++);
    return 0;
}

static void check_log(const char *what, const char *got, const char *form)
{
    char text[1024];

    if (matches(form, got))
        return;
    snprintf(text, sizeof text, "%s is [%.400s], as it should be [%.400s]",
             what, got, form);
    test_check(0, __FILE__, __LINE__, text);
}

/* ---- the application ------------------------------------------------- */

static const char *cause_name(int cause)
{
    static const char *const names[] = {"?",     "app",     "peer",
                                        "limit", "timeout", "error",
                                        "login", "adopt",   "loop"};

    return names[cause > 0 && cause <= RT_BY_LOOP ? cause : 0];
}

static void on_open(rt_loop *loop, rt_session s)
{
    (void)loop, (void)s;
    log_word(&app);
    log_put(&app, "open");
}

/* "/close CODE REASON", and again if another one follows. */
static void obey_close(rt_loop *loop, rt_session s, char *text)
{
    char *reason, *again = strstr(text + 1, " /close");

    if (again)
        *again = 0;
    reason = text + strlen("/close ");
    reason += strcspn(reason, " ");
    rt_close(loop, s, atoi(text + strlen("/close ")),
             *reason ? reason + 1 : NULL);
    if (again)
        obey_close(loop, s, again + 1);
}

static void obey(rt_loop *loop, rt_session s, const void *data, size_t len)
{
    char text[64];

    snprintf(text, sizeof text, "%.*s", (int)len, (const char *)data);
    if (!strncmp(text, "/close ", 7))
        obey_close(loop, s, text);
    else if (!strcmp(text, "/bad") &&
             rt_send(loop, s, RT_TEXT, "\xff", 1) == RT_EUTF8)
        log_put(&app, " refused");
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    log_word(&app);
    log_put(&app, kind == RT_TEXT ? "text(" : "binary(");
    log_data(&app, data, len);
    log_put(&app, ((const char *)data)[len] ? ") no-nul" : ")");
    if (len < 64)
        obey(loop, s, data, len);
    if (app_echoes && rt_send(loop, s, kind, data, len) < 0)
        log_put(&app, " send-failed");
}

static void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop, (void)s;
    log_word(&app);
    log_put(&app, "end(%d %s:", why->code, cause_name(why->cause));
    log_data(&app, why->reason, strlen(why->reason));
    log_put(&app, ")");
    app_ended = 1;
}

static const struct accept_row *accepting; /* what /accept is to try */

/* Refusals by the library are told to the peer as 500. */
static int accept_request(rt_loop *loop, rt_session s)
{
    rt_accept_opts o = {.protocol = accepting->protocol,
                        .headers = accepting->headers};

    if (rt_accept(loop, s, &o) != RT_EINVAL)
        return 0;
    log_put(&app, " refused");
    return 500;
}

static int answer_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    rt_accept_opts chat = {.protocol = "chat"};

    if (!strcmp(r->path, "/ok"))
        return rt_reply(loop, s, 200, "text/plain", "ok", 2);
    if (!strcmp(r->path, "/next"))
        return rt_reply(loop, s, 200, "text/plain", "next", 4);
    if (!strcmp(r->path, "/echo"))
        return rt_reply(loop, s, 200, "text/plain", r->body, r->body_len);
    if (!strcmp(r->path, "/chat"))
        return rt_accept(loop, s, &chat);
    if (!strcmp(r->path, "/accept"))
        return accept_request(loop, s);
    return strcmp(r->path, "/no") ? 0 : 403;
}

static int on_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    log_word(&app);
    log_put(&app, "%s %s%s%s%s", r->method, r->path, *r->query ? "?" : "",
            r->query, r->upgrade ? "+" : "");
    if (r->body_len) {
        log_put(&app, "(");
        log_data(&app, r->body, r->body_len);
        log_put(&app, ")");
    }
    return answer_request(loop, s, r);
}

/* ---- one loop with all listeners ------------------------------------- */

struct env {
    rt_loop *loop;
    const char *backend;
    int port[CONFIGS]; /* of rtnet's listeners */
    int listener;      /* the raw one, for rtnet as the client */
    int raw_port;
    int bytewise;
};

static void listen_options(rt_listen_opts *o, int config)
{
    memset(o, 0, sizeof *o);
    o->ping_ms = RT_OFF; /* the first one would come at a random point */
    o->on.open = on_open;
    o->on.message = on_message;
    o->on.close = on_close;
    if (config == HANDLER || config == TIGHT)
        o->on.request = on_request;
    if (config == LIST)
        o->origins = "https://game.example http://localhost:8080";
    if (config == ANY)
        o->origins = "*";
    if (config == SMALL) {
        o->max_message = 16;
        o->max_fragments = 3;
    }
    if (config == TIGHT) {
        o->max_body = 8;
        o->max_header = 512;
    }
    if (config == ECHO)
        o->max_message = 1 << 20;
}

static void dial_options(rt_dial_opts *o, int config)
{
    memset(o, 0, sizeof *o);
    o->ping_ms = RT_OFF; /* the first one would come at a random point */
    o->on.open = on_open;
    o->on.message = on_message;
    o->on.close = on_close;
    o->protocols = config == OFFER ? "a, b" : NULL;
    if (config == SMALL) {
        o->max_message = 16;
        o->max_fragments = 3;
    }
    if (config == ECHO)
        o->max_message = 1 << 20;
}

static int raw_listener(struct env *e)
{
    struct sockaddr_in a;
    socklen_t len = sizeof a;

    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    e->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (e->listener < 0 ||
        bind(e->listener, (struct sockaddr *)&a, sizeof a) < 0 ||
        listen(e->listener, 8) < 0 ||
        getsockname(e->listener, (struct sockaddr *)&a, &len) < 0)
        return 0;
    e->raw_port = ntohs(a.sin_port);
    return fcntl(e->listener, F_SETFL, O_NONBLOCK) == 0;
}

static int env_open(struct env *e, int backend)
{
    rt_loop_opts lo = {.backend = backend};
    rt_listen_opts o;
    int i;

    e->loop = rt_loop_new(&lo);
    if (!e->loop)
        return 0;
    for (i = 0; i < CONFIGS; i++) {
        listen_options(&o, i);
        e->port[i] = rt_listener_port(
            e->loop, rt_listen(e->loop, "ws://127.0.0.1:0", &o));
        if (e->port[i] <= 0)
            return 0;
    }
    return raw_listener(e);
}

static void env_close(struct env *e)
{
    rt_loop_free(e->loop);
    close(e->listener);
}

/* ---- SHA-1 and base64, for the accept value -------------------------- */

static uint32_t rotate(uint32_t x, int n)
{
    return x << n | x >> (32 - n);
}

static uint32_t sha1_mix(int t, uint32_t b, uint32_t c, uint32_t d)
{
    if (t < 20)
        return ((b & c) | (~b & d)) + 0x5a827999;
    if (t < 40)
        return (b ^ c ^ d) + 0x6ed9eba1;
    if (t < 60)
        return ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
    return (b ^ c ^ d) + 0xca62c1d6;
}

static void sha1_block(uint32_t h[5], const unsigned char *p)
{
    uint32_t w[80], v[5], x;
    int t;

    for (t = 0; t < 16; t++)
        w[t] = (uint32_t)p[4 * t] << 24 | (uint32_t)p[4 * t + 1] << 16 |
               (uint32_t)p[4 * t + 2] << 8 | p[4 * t + 3];
    for (; t < 80; t++)
        w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    memcpy(v, h, sizeof v);
    for (t = 0; t < 80; t++) {
        x = rotate(v[0], 5) + sha1_mix(t, v[1], v[2], v[3]) + v[4] + w[t];
        v[4] = v[3];
        v[3] = v[2];
        v[2] = rotate(v[1], 30);
        v[1] = v[0];
        v[0] = x;
    }
    for (t = 0; t < 5; t++)
        h[t] += v[t];
}

/* base64(SHA-1(key of 24 bytes + GUID)): 60 bytes, hence two blocks. */
static void accept_value(const char *key, char out[29])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476,
                     0xc3d2e1f0};
    unsigned char block[128] = {0}, sum[21] = {0};
    int i;

    memcpy(block, key, 24);
    memcpy(block + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    block[60] = 0x80;
    block[126] = 60 * 8 >> 8;
    block[127] = 60 * 8 & 255;
    sha1_block(h, block);
    sha1_block(h, block + 64);
    for (i = 0; i < 20; i++)
        sum[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
    for (i = 0; i < 27; i++)
        out[i] = digits[(sum[i * 6 / 8] << 8 | sum[i * 6 / 8 + 1]) >>
                            (10 - i * 6 % 8) &
                        63];
    memcpy(out + 27, "=", 2);
}

/* ---- scripts: what a peer will send ---------------------------------- */

enum { SCRIPT_MAX = 1 << 18, PAUSES = 4 };

struct script {
    size_t len;
    size_t pause[PAUSES]; /* before these bytes it waits for an answer */
    int pauses;
    size_t phase; /* where the pattern stands in the present message */
    int masks;    /* frames are those of a client */
    int closes;   /* there is a close frame in it */
    unsigned frames;
    unsigned char data[SCRIPT_MAX];
};

static void script_begin(struct script *s, enum role role)
{
    memset(s, 0, offsetof(struct script, data));
    s->masks = role == SERVER;
}

static void script_byte(struct script *s, unsigned byte)
{
    if (s->len < SCRIPT_MAX)
        s->data[s->len++] = (unsigned char)byte;
}

static void script_bytes(struct script *s, const void *data, size_t len)
{
    const unsigned char *p = data;

    while (len--)
        script_byte(s, *p++);
}

static void script_pause(struct script *s)
{
    if (s->pauses < PAUSES)
        s->pause[s->pauses++] = s->len;
}

/* One frame of a table, as it was read. */
struct spec {
    unsigned first;
    int wrong_mask;
    unsigned long form, cut;
    int announces;
    uint64_t announced;
    size_t len;
    unsigned char data[SCRIPT_MAX];
};

static unsigned hex(const char *p)
{
    char digits[3] = {p[0], p[1], 0};

    return (unsigned)strtoul(digits, NULL, 16);
}

static const char *spec_modifiers(struct spec *f, const char *p)
{
    char *end;

    if (*p == '!') {
        f->wrong_mask = 1;
        p++;
    }
    if (*p == '/') {
        f->form = strtoul(p + 1, &end, 10);
        p = end;
    }
    if (*p == '=') {
        f->announces = 1;
        f->announced = strtoull(p + 1, &end, 0);
        p = end;
    }
    if (*p == '#') {
        f->cut = strtoul(p + 1, &end, 10);
        p = end;
    }
    return p;
}

/* One part of a payload: 'text', @N or a hex pair. */
static const char *spec_part(struct spec *f, const char *p, size_t *phase)
{
    unsigned long n;
    char *end;

    if (*p == '\'') {
        for (p++; *p != '\''; p++)
            f->data[f->len++] = (unsigned char)*p;
        return p + 1;
    }
    if (*p == '@') {
        for (n = strtoul(p + 1, &end, 10); n; n--)
            f->data[f->len++] = pattern((*phase)++);
        return end;
    }
    f->data[f->len++] = (unsigned char)hex(p);
    return p + 2;
}

static const char *spec_read(struct spec *f, const char *p, size_t *message)
{
    size_t control = 0;

    memset(f, 0, offsetof(struct spec, data));
    f->first = hex(p);
    if ((f->first & 15) == 1 || (f->first & 15) == 2)
        *message = 0;
    p = spec_modifiers(f, p + 2);
    if (*p == ':')
        p++;
    while (*p && *p != ' ')
        p = spec_part(f, p, f->first & 8 ? &control : message);
    return p;
}

static void script_length(struct script *s, const struct spec *f, int masked)
{
    uint64_t n = f->announces ? f->announced : f->len;
    unsigned bit = masked ? 0x80 : 0;
    unsigned long form = f->form;
    int shift;

    if (!form)
        form = n < 126 ? 7 : n < 65536 ? 16 : 64;
    if (form == 7) {
        script_byte(s, bit | (unsigned)n);
        return;
    }
    script_byte(s, bit | (form == 16 ? 126 : 127));
    for (shift = (int)form - 8; shift >= 0; shift -= 8)
        script_byte(s, (unsigned)(n >> shift & 255));
}

static void script_frame(struct script *s, const struct spec *f)
{
    unsigned n = s->frames++;
    unsigned char key[4] = {0x37, 0xfa, 0x21, 0x3d};
    int masked = s->masks ^ f->wrong_mask;
    size_t i, start = s->len;

    s->closes |= (f->first & 15) == 8;
    script_byte(s, f->first);
    script_length(s, f, masked);
    key[n % 4] = (unsigned char)(key[n % 4] + n);
    for (i = 0; masked && i < 4; i++)
        script_byte(s, key[i]);
    for (i = 0; i < f->len; i++)
        script_byte(s, f->data[i] ^ (masked ? key[i % 4] : 0u));
    if (f->cut)
        s->len = start + f->cut;
}

/* [N*]frame */
static const char *script_item(struct script *s, const char *p)
{
    static struct spec f;
    const char *after = p;
    unsigned long n;
    char *end;

    n = strtoul(p, &end, 10);
    if (*end == '*')
        p = end + 1;
    else
        n = 1;
    while (n--) {
        after = spec_read(&f, p, &s->phase);
        script_frame(s, &f);
    }
    return after;
}

/* Adds the frames of a table's .in. */
static void script_frames(struct script *s, const char *p)
{
    while (*p) {
        if (*p == ' ') {
            p++;
        } else if (*p == '|') {
            script_pause(s);
            p++;
        } else {
            p = script_item(s, p);
        }
    }
}

/* {wait} or {N*text}; returns how long it is. */
static size_t script_brace(struct script *s, const char *in)
{
    const char *close = strchr(in, '}');
    unsigned long n;
    char *text;

    if (!strncmp(in, "{wait}", 6)) {
        script_pause(s);
        return 6;
    }
    for (n = strtoul(in + 1, &text, 10); n; n--)
        script_bytes(s, text + 1, (size_t)(close - text - 1));
    return (size_t)(close - in) + 1;
}

static void script_accept(struct script *s, const char *accept, int lower)
{
    for (; *accept; accept++)
        script_byte(s, (unsigned)(lower ? tolower(*accept) : *accept));
}

/* Adds the text of a table's .in; accept is what $A stands for, or NULL. */
static void script_text(struct script *s, const char *in, size_t len,
                        const char *accept)
{
    size_t i = 0;

    while (i < len) {
        if (in[i] == '{') {
            i += script_brace(s, in + i);
        } else if (accept && in[i] == '$') {
            script_accept(s, accept, in[i + 1] == 'a');
            i += 2;
        } else {
            script_byte(s, (unsigned char)in[i++]);
        }
    }
}

/* ---- the raw peer ---------------------------------------------------- */

enum reading { A_REQUEST, ANSWERS, FRAMES };

static struct peer {
    struct env *env;
    enum role role; /* of rtnet */
    int fd;
    enum reading reading;
    struct log wire;    /* what came, in words */
    int answers;        /* how many HTTP answers came */
    int head_first;     /* the first one is that of a HEAD */
    int closed;         /* rtnet's close frame came */
    int closes;         /* ours was sent */
    int eof;            /* rtnet closed its side */
    int feeding;        /* there is more to send */
    size_t total, mark; /* bytes that came; when the last wait ended */
    size_t parsed, len; /* of got */
    unsigned char key[4];
    int has_key;
    char accept[29];
    char head[10240]; /* of the first answer, or the request */
    unsigned char got[SCRIPT_MAX];
} peer;

/* The value of a header, or NULL; head ends with a blank line. */
static const char *head_value(const char *head, const char *name)
{
    size_t n = strlen(name);
    const char *line = strstr(head, "\r\n");

    for (; line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, n) && line[n] == ':')
            return line + n + 1 + strspn(line + n + 1, " ");
    }
    return NULL;
}

/* Takes a block up to its blank line out of what came; 0: not all is here. */
static size_t head_take(char *head, size_t cap)
{
    const char *from = (const char *)peer.got + peer.parsed;
    size_t i, n = peer.len - peer.parsed;

    for (i = 4; i <= n && i < cap; i++) {
        if (memcmp(from + i - 4, "\r\n\r\n", 4))
            continue;
        memcpy(head, from, i);
        head[i] = 0;
        return i;
    }
    return 0;
}

/* rtnet's request: the first thing it sends as a client. */
static int take_request(void)
{
    static char last[25];
    size_t n = head_take(peer.head, sizeof peer.head);
    const char *key = n ? head_value(peer.head, "Sec-WebSocket-Key") : NULL;

    if (!n)
        return 0;
    if (!key || strcspn(key, "\r") != 24 || strncmp(key + 22, "==", 2) ||
        !strncmp(key, last, 24)) {
        log_put(&peer.wire, "bad-key");
        key = "                        ";
    }
    memcpy(last, key, 24);
    accept_value(key, peer.accept);
    peer.parsed += n;
    peer.reading = FRAMES;
    return 1;
}

static size_t body_length(const char *head, int status)
{
    const char *length = head_value(head, "Content-Length");

    if (status < 200 || (peer.head_first && !peer.answers) || !length)
        return 0;
    return strtoul(length, NULL, 10);
}

static void log_answer(int status, const unsigned char *body, size_t len)
{
    log_word(&peer.wire);
    log_put(&peer.wire, "%d", status);
    if (status == 200 && len) {
        log_put(&peer.wire, ":");
        log_data(&peer.wire, body, len);
    }
}

static int take_answer(void)
{
    char head[sizeof peer.head];
    size_t body, n = head_take(head, sizeof head);
    int status = n ? atoi(head + strcspn(head, " ")) : 0;

    if (!n)
        return 0;
    body = body_length(head, status);
    if (peer.len - peer.parsed - n < body)
        return 0;
    if (strncmp(head, "HTTP/1.1 ", 9) || head[12] != ' ' ||
        (status >= 200 && !head_value(head, "Content-Length")))
        log_put(&peer.wire, " malformed");
    log_answer(status, peer.got + peer.parsed + n, body);
    if (!peer.answers++)
        memcpy(peer.head, head, n + 1);
    peer.parsed += n + body;
    if (status == 101)
        peer.reading = FRAMES;
    return 1;
}

/* The header of a frame that rtnet sent. */
struct header {
    int opcode, masked;
    uint64_t len;
    size_t size;
    const unsigned char *key;
};

static int header_read(struct header *h, const unsigned char *p, size_t n)
{
    size_t i, more = 0;

    if (n < 2)
        return 0;
    h->opcode = p[0] & 15;
    h->masked = p[1] >> 7;
    h->len = p[1] & 127;
    if (h->len > 125)
        more = h->len == 126 ? 2 : 8;
    h->size = 2 + more + (h->masked ? 4 : 0);
    if (n < h->size)
        return 0;
    if (more)
        h->len = 0;
    for (i = 0; i < more; i++)
        h->len = h->len << 8 | p[2 + i];
    h->key = p + 2 + more;
    return n - h->size >= h->len;
}

/* Whether rtnet may send such a frame: whole, its length in the shortest
   form, masked as a client and only then, with a new key each time. */
static int header_allowed(const struct header *h, const unsigned char *p)
{
    int form = p[1] & 127;

    if ((p[0] & 0xf0) != 0x80 || h->masked != (peer.role == CLIENT))
        return 0;
    if ((form == 126 && h->len < 126) || (form == 127 && h->len < 65536))
        return 0;
    if (!h->masked)
        return 1;
    if (peer.has_key && !memcmp(peer.key, h->key, 4))
        return 0;
    memcpy(peer.key, h->key, 4);
    peer.has_key = 1;
    return 1;
}

static void log_close(const unsigned char *data, size_t len)
{
    log_put(&peer.wire, "close(");
    if (len >= 2) {
        log_put(&peer.wire, "%d:", data[0] << 8 | data[1]);
        log_data(&peer.wire, data + 2, len - 2);
    } else if (len) {
        log_put(&peer.wire, "one byte");
    }
    log_put(&peer.wire, ")");
    peer.closed = 1;
}

static void log_frame(int opcode, const unsigned char *data, size_t len)
{
    static const char *const names[16] = {
        "continuation", "text", "binary", "op3", "op4", "op5", "op6", "op7",
        "close",        "ping", "pong",   "opB", "opC", "opD", "opE", "opF"};

    log_word(&peer.wire);
    if (opcode == 8) {
        log_close(data, len);
        return;
    }
    log_put(&peer.wire, "%s(", names[opcode]);
    log_data(&peer.wire, data, len);
    log_put(&peer.wire, ")");
}

static int take_frame(void)
{
    unsigned char *p = peer.got + peer.parsed;
    struct header h;
    size_t i;

    if (!header_read(&h, p, peer.len - peer.parsed))
        return 0;
    if (!header_allowed(&h, p))
        log_put(&peer.wire, " bad-header");
    for (i = 0; h.masked && i < h.len; i++)
        p[h.size + i] ^= h.key[i % 4];
    log_frame(h.opcode, p + h.size, (size_t)h.len);
    peer.parsed += h.size + (size_t)h.len;
    return 1;
}

static int take(void)
{
    switch (peer.reading) {
    case A_REQUEST:
        return take_request();
    case ANSWERS:
        return take_answer();
    case FRAMES:
        return take_frame();
    }
    return 0;
}

/* A peer that still had to send may have been reset; any other one must have
   been told the end in good order. */
static void peer_ended(int reset)
{
    peer.eof = 1;
    log_word(&peer.wire);
    log_put(&peer.wire, reset && !peer.feeding ? "reset" : "eof");
    if (peer.parsed < peer.len)
        log_put(&peer.wire, " and-a-rest");
}

static void peer_read(void)
{
    ssize_t n;

    while (!peer.eof) {
        n = recv(peer.fd, peer.got + peer.len, SCRIPT_MAX - peer.len, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n > 0) {
            peer.len += (size_t)n;
            peer.total += (size_t)n;
        }
        while (peer.parsed < peer.len && take())
            ;
        if (peer.parsed == peer.len)
            peer.parsed = peer.len = 0;
        if (n <= 0)
            peer_ended(n < 0);
    }
}

static void turn(void)
{
    rt_poll(peer.env->loop, 0);
    if (peer.fd >= 0)
        peer_read();
}

/* Turns until done answers true; 0 when patience is at its end.  Most is there
   after a turn or two; the rest of the turns take a millisecond each. */
static int wait_for(int (*done)(void))
{
    static int patience = 500;
    int i;

    for (i = 0; i < patience; i++) {
        if (done())
            return 1;
        turn();
        if (i > 20)
            poll(NULL, 0, 1);
    }
    if (patience > 25) /* much is broken: do not take all day to say so */
        patience -= 20;
    return 0;
}

static int bytes_came(void)
{
    return peer.total > peer.mark || peer.eof;
}

static int is_upgraded(void)
{
    return peer.reading == FRAMES || peer.eof;
}

static int is_closed(void)
{
    return peer.closed || peer.eof;
}

static int is_eof(void)
{
    return peer.eof;
}

static int has_ended(void)
{
    return app_ended;
}

static const char *wire_form; /* what wire_is waits for */

static int wire_is(void)
{
    return peer.eof || matches(wire_form, peer.wire.text);
}

/* ---- playing --------------------------------------------------------- */

/* How much goes into one send: all up to the next pause, or one byte.  Of long
   rows only the beginning and the end come byte by byte. */
static size_t piece(const struct script *s, size_t at, int pause)
{
    size_t end = pause < s->pauses ? s->pause[pause] : s->len;
    size_t n = end - at;

    if (!peer.env->bytewise)
        return n;
    if (at < 600 || n <= 40)
        return 1;
    return n - 40 < 1021 ? n - 40 : 1021;
}

static void play(const struct script *s)
{
    size_t at = 0;
    int pause = 0, stalled = 0;
    ssize_t n;

    peer.mark = peer.total;
    peer.closes |= s->closes;
    peer.feeding = 1;
    while (at < s->len && !peer.eof && stalled < 1000) {
        while (pause < s->pauses && at == s->pause[pause]) {
            wait_for(bytes_came);
            peer.mark = peer.total;
            pause++;
        }
        n = send(peer.fd, s->data + at, piece(s, at, pause), MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            break;
        stalled = n > 0 ? 0 : stalled + 1;
        at += n > 0 ? (size_t)n : 0;
        turn();
    }
    peer.feeding = at < s->len;
}

/* Sends frames in one piece; when rtnet is gone already, a reset is no more
   than the answer to that. */
static void say(const char *frames)
{
    static struct script s;

    script_begin(&s, peer.role);
    script_frames(&s, frames);
    peer.closes |= s.closes;
    if (send(peer.fd, s.data, s.len, MSG_NOSIGNAL) < 0)
        peer.feeding = 1;
}

static void peer_begin(struct env *e, enum role role)
{
    memset(&peer, 0, offsetof(struct peer, head));
    peer.head[0] = 0;
    peer.env = e;
    peer.role = role;
    peer.fd = -1;
    peer.reading = role == SERVER ? ANSWERS : A_REQUEST;
    app.len = 0;
    app.text[0] = 0;
    app_ended = app_echoes = 0;
}

static int peer_connect(int port)
{
    struct sockaddr_in a;

    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons((uint16_t)port);
    peer.fd = socket(AF_INET, SOCK_STREAM, 0);
    return peer.fd >= 0 &&
           connect(peer.fd, (struct sockaddr *)&a, sizeof a) == 0;
}

static int accepted(void)
{
    if (peer.fd < 0)
        peer.fd = accept(peer.env->listener, NULL, NULL);
    if (peer.fd >= 0 && fcntl(peer.fd, F_SETFL, O_NONBLOCK) < 0)
        return 0;
    return peer.fd >= 0 || app_ended;
}

static int peer_accept(int config, const struct request_row *r)
{
    char url[128];
    rt_dial_opts o;

    dial_options(&o, config);
    if (r && r->protocols)
        o.protocols = r->protocols;
    if (r)
        o.headers = r->headers;
    snprintf(url, sizeof url, "ws://127.0.0.1:%d%s", peer.env->raw_port,
             r ? r->tail : "/");
    if (!rt_dial(peer.env->loop, url, &o).id)
        return 0;
    return wait_for(accepted) && peer.fd >= 0;
}

/* Connects the raw peer and rtnet, as far as a socket does. */
static int peer_open(struct env *e, enum role role, int config)
{
    int one = 1, ok;

    peer_begin(e, role);
    app_echoes = config == ECHO;
    ok = role == SERVER ? peer_connect(e->port[config])
                        : peer_accept(config, NULL);
    if (!ok)
        return 0;
    setsockopt(peer.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fcntl(peer.fd, F_SETFL, O_NONBLOCK) == 0 &&
           (role == SERVER || wait_for(is_upgraded));
}

/* Closes the peer's socket and sees to it that nothing is left of the row. */
static void peer_close(void)
{
    if (peer.fd >= 0)
        close(peer.fd);
    peer.fd = -1;
    if (strstr(app.text, "open") || peer.role == CLIENT)
        wait_for(has_ended);
    turn();
}

/* A close frame came: answers it if need be.  The server is the one that
   closes the line (RFC 6455, 7.1.1). */
static void finish_close(void)
{
    wait_for(is_closed);
    if (!peer.closes && !peer.eof)
        say("88:03E8");
    if (peer.role == CLIENT)
        shutdown(peer.fd, SHUT_WR);
    wait_for(is_eof);
}

/* All must have arrived when this ping is answered. */
static void finish_alive(const char *wire)
{
    static char form[1024];

    snprintf(form, sizeof form, "%s%spong(end)", wire, *wire ? " " : "");
    wire_form = form;
    say("89:'end'");
    if (wait_for(wire_is))
        say("88:03E8");
    finish_close();
}

/* ---- frames ---------------------------------------------------------- */

static void upgrade(void)
{
    static struct script s;
    static const char answer[] = S(""), request[] = WS("");
    int bytewise = peer.env->bytewise;

    script_begin(&s, peer.role);
    if (peer.role == SERVER)
        script_text(&s, request, sizeof request - 1, NULL);
    else
        script_text(&s, answer, sizeof answer - 1, peer.accept);
    peer.env->bytewise = 0;
    play(&s);
    peer.env->bytewise = bytewise;
    CHECK(wait_for(is_upgraded));
    peer.wire.len = 0;
    peer.wire.text[0] = 0;
}

static void finish_frames(const struct frame_row *row)
{
    if (row->end == ALIVE) {
        finish_alive(row->out);
    } else if (row->end == LOST) {
        wire_form = row->out;
        wait_for(wire_is);
        turn();
        turn();
    } else {
        finish_close();
    }
}

/* What both logs must say at the end of a row. */
static void frames_tail(const struct frame_row *row, struct log *wire,
                        struct log *told)
{
    const char *reason = row->reason ? row->reason : "";
    int code = row->end % 10000;

    if (row->end == ALIVE) {
        log_put(wire, "pong(end) close(1000:*) eof");
        log_put(told, "end(1000 peer:)");
    } else if (row->end == LOST) {
        log_put(told, "end(1006 peer:*)");
    } else if (row->end >= APP(0)) {
        log_put(wire, "close(%d:%s) eof", code, reason);
        log_put(told, "end(%d app:%s)", code, reason);
    } else if (row->end == PEER(1005)) {
        log_put(wire, "close() eof");
        log_put(told, "end(1005 peer:)");
    } else if (row->end >= PEER(0)) {
        log_put(wire, "close(%d:*) eof", code);
        log_put(told, "end(%d peer:%s)", code, reason);
    } else {
        log_put(wire, "close(%d:*) eof", code);
        log_put(told, "end(%d %s:*)", code, code == 1009 ? "limit" : "error");
    }
}

static void check_frames(const struct frame_row *row)
{
    struct log wire = {{0}, 0}, told = {{0}, 0};

    log_put(&wire, "%s", row->out);
    if (row->end != LOST)
        log_word(&wire);
    log_put(&told, "open %s%s", row->app, *row->app ? " " : "");
    frames_tail(row, &wire, &told);
    check_log("the wire", peer.wire.text, wire.text);
    check_log("the application", app.text, told.text);
}

static void run_frames(struct env *e, const struct frame_row *row,
                       enum role role)
{
    static struct script s;

    CHECK(peer_open(e, role, row->config));
    upgrade();
    script_begin(&s, role);
    script_frames(&s, row->in);
    play(&s);
    finish_frames(row);
    peer_close();
    check_frames(row);
}

/* ---- requests -------------------------------------------------------- */

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);

    return n >= m && !strcmp(text + n - m, end);
}

/* Whether a line of the head is the one wanted, or begins with it where that
   ends in a space or a colon. */
static int head_has(const char *want, size_t n)
{
    int open = want[n - 1] == ' ' || want[n - 1] == ':';
    const char *line = peer.head;

    for (; *line; line += strcspn(line, "\n") + 1)
        if (!strncmp(line, want, n) && (open || line[n] == '\r'))
            return 1;
    return 0;
}

/* @KEY stands for the accept value of that key, $H for where was dialled. */
static size_t expand(char *out, size_t cap, const char *want, size_t n)
{
    const char *mark = memchr(want, '@', n);
    char accept[29];
    int k;

    if (mark) {
        accept_value(mark + 1, accept);
        k = snprintf(out, cap, "%.*s%s", (int)(mark - want), want, accept);
    } else if (n > 2 && !strncmp(want + n - 2, "$H", 2)) {
        k = snprintf(out, cap, "%.*s127.0.0.1:%d", (int)n - 2, want,
                     peer.env->raw_port);
    } else {
        k = snprintf(out, cap, "%.*s", (int)n, want);
    }
    return (size_t)k;
}

static void check_head(const char *has)
{
    char want[128], what[160];
    size_t n, m;
    int barred;

    for (; has && *has; has += n + (has[n] == '|')) {
        n = strcspn(has, "|");
        barred = *has == '!';
        m = expand(want, sizeof want, has + barred, n - (size_t)barred);
        snprintf(what, sizeof what, "%s line %s", barred ? "no" : "a", want);
        test_check(head_has(want, m) != barred, __FILE__, __LINE__, what);
    }
}

static void finish_http(const struct http_row *row)
{
    static const char next[] = NEXT;
    static struct script s;

    if (strstr(row->out, "close(")) {
        finish_close();
        return;
    }
    wire_form = row->out;
    wait_for(wire_is);
    if (ends_with(row->out, "eof"))
        return;
    if (strstr(row->out, "101")) {
        finish_alive(row->out);
        return;
    }
    script_begin(&s, SERVER);
    script_text(&s, next, sizeof next - 1, NULL);
    wire_form = "* 200:next";
    play(&s);
    wait_for(wire_is);
}

static void check_http(const struct http_row *row)
{
    struct log wire = {{0}, 0}, told = {{0}, 0};

    log_put(&wire, "%s", row->out);
    log_put(&told, "%s", row->app);
    if (!ends_with(row->out, "eof") && strstr(row->out, "101")) {
        log_put(&wire, " pong(end) close(1000:*) eof");
        log_put(&told, " end(1000 peer:)");
    } else if (!ends_with(row->out, "eof")) {
        log_put(&wire, " 200:next");
        log_put(&told, " GET /next");
    }
    check_log("the wire", peer.wire.text, wire.text);
    check_log("the application", app.text, told.text);
    check_head(row->has);
}

static void run_http(struct env *e, const struct http_row *row)
{
    static struct script s;

    CHECK(peer_open(e, SERVER, row->config));
    peer.head_first = !strncmp(row->in, "HEAD ", 5);
    script_begin(&s, SERVER);
    script_text(&s, row->in, row->len, NULL);
    s.closes = strstr(row->app, " peer:") != NULL;
    play(&s);
    finish_http(row);
    peer_close();
    check_http(row);
}

static void run_origin(struct env *e, const struct origin_row *row)
{
    struct http_row http = {.name = row->name, .config = row->config};
    char in[512];
    int n;

    n = snprintf(in, sizeof in,
                 "GET / HTTP/1.1\r\nHost: %s\r\n" UPGRADE CONN KEY V13
                 "%s%s%s\r\n",
                 row->host, row->origin ? "Origin: " : "",
                 row->origin ? row->origin : "", row->origin ? "\r\n" : "");
    http.in = in;
    http.len = (size_t)n;
    http.out = !strcmp(row->status, "101") ? "101" : "403 eof";
    http.app = !strcmp(row->status, "101") ? "open" : "";
    run_http(e, &http);
}

static void run_accept(struct env *e, const struct accept_row *row)
{
    static const char in[] =
        GET("/accept", UPGRADE CONN KEY V13 "Sec-WebSocket-Protocol: a, b\r\n");
    struct http_row http = {
        .in = in, .len = sizeof in - 1, .has = row->has, .config = HANDLER};

    accepting = row;
    http.out = row->has ? "101" : "500 eof";
    http.app = row->has ? "GET /accept+ open" : "GET /accept+ refused";
    run_http(e, &http);
}

/* ---- answers --------------------------------------------------------- */

static void finish_answer(const struct answer_row *row)
{
    if (row->hangup)
        shutdown(peer.fd, SHUT_WR);
    if (!ends_with(row->out, "eof"))
        finish_alive(row->out);
    else if (strstr(row->out, "close("))
        finish_close();
    else
        wait_for(is_eof);
}

static void check_answer(const struct answer_row *row)
{
    struct log wire = {{0}, 0}, told = {{0}, 0};

    log_put(&wire, "%s", row->out);
    log_put(&told, "%s", row->app);
    if (!ends_with(row->out, "eof")) {
        log_word(&wire);
        log_put(&wire, "pong(end) close(1000:*) eof");
        log_put(&told, " end(1000 peer:)");
    }
    check_log("the wire", peer.wire.text, wire.text);
    check_log("the application", app.text, told.text);
}

static void run_answer(struct env *e, const struct answer_row *row)
{
    static struct script s;

    CHECK(peer_open(e, CLIENT, row->config));
    script_begin(&s, CLIENT);
    script_text(&s, row->in, row->len, peer.accept);
    s.closes = strstr(row->app, " peer:") != NULL;
    play(&s);
    finish_answer(row);
    peer_close();
    check_answer(row);
}

static void run_request(struct env *e, const struct request_row *row)
{
    peer_begin(e, CLIENT);
    CHECK(peer_accept(PLAIN, row));
    CHECK(wait_for(is_upgraded));
    peer_close();
    check_head(row->has);
    check_log("the wire", peer.wire.text, "");
    check_log("the application", app.text, "end(1006 *)");
}

static void run_refused(struct env *e, const struct request_row *row)
{
    peer_begin(e, CLIENT);
    if (peer_accept(PLAIN, row)) {
        test_check(0, __FILE__, __LINE__, "it is refused");
        peer_close();
        return;
    }
    EQUAL(rt_error(e->loop, NULL), RT_EINVAL);
    turn();
    turn();
    check_log("the application", app.text, "");
}

/* ---- all rows -------------------------------------------------------- */

static int words;
static char **word;

/* Begins a case, unless the command line asks for others. */
static int begin(const struct env *e, const char *table, const char *name)
{
    int i;

    test_begin("%s/%s/%s %s", table, e->backend,
               e->bytewise ? "bytes" : "whole", name);
    for (i = 0; i < words && !strstr(test_name, word[i]); i++)
        ;
    return !words || i < words;
}

static void all_frames(struct env *e, enum role role)
{
    const char *table = role == SERVER ? "server" : "client";
    size_t i;

    for (i = 0; i < COUNT(frame_rows); i++) {
        if (!begin(e, table, frame_rows[i].name))
            continue;
        run_frames(e, &frame_rows[i], role);
        test_end();
    }
}

#define ALL(e, table, rows, run)                                               \
    for (i = 0; i < COUNT(rows); i++)                                          \
        if (begin(e, table, (rows)[i].name)) {                                 \
            run(e, &(rows)[i]);                                                \
            test_end();                                                        \
        }

static void all_rows(struct env *e)
{
    size_t i;

    all_frames(e, SERVER);
    all_frames(e, CLIENT);
    ALL(e, "request", http_rows, run_http)
    ALL(e, "origin", origin_rows, run_origin)
    ALL(e, "accept", accept_rows, run_accept)
    ALL(e, "answer", answer_rows, run_answer)
    if (e->bytewise)
        return;
    ALL(e, "dial", request_rows, run_request)
    ALL(e, "dial", refused_rows, run_refused)
}

static void with_backend(int backend, const char *name)
{
    static struct env e;

    test_begin("a loop and its listeners with %s", name);
    memset(&e, 0, sizeof e);
    e.backend = name;
    if (!env_open(&e, backend)) {
        test_check(0, __FILE__, __LINE__, "could be had");
        test_end();
        return;
    }
    test_end();
    all_rows(&e);
    e.bytewise = 1;
    all_rows(&e);
    env_close(&e);
}

int main(int argc, char **argv)
{
    words = argc - 1;
    word = argv + 1;
    with_backend(RT_EPOLL, "epoll");
    with_backend(RT_SELECT, "select");
    return test_done();
}
