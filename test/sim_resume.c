/*
 * Random worlds of sessions that outlive their sockets.  A world is a server
 * that keeps sessions for a while, and clients of two kinds: scripts that speak
 * rtnet.1 by themselves, over WebSocket or over TCP, written from its
 * description alone; and dialled sessions that come back, behind a relay.
 * Lines are cut in every way a line can be cut: with a FIN, with a RST, at any
 * byte, silently, at one end only.  Strangers come with tokens that are void.
 *
 * Each message is made from its serial number, so the model keeps no bytes: for
 * each direction of each session the serials that were accepted.  What must
 * hold: they arrive once and in order, all of them, but for those that the
 * server tells lost, of which the number is exact and the ring's size the
 * excuse; a key never goes back, and its last value arrives; away and back
 * come in turns, and the close once and last.
 */
#include "rtnet.h"
#include "census.h"
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WS_PORT = 9000, TCP_PORT = 9001, RELAY_PORT = 9100 };
enum { CLIENTS = 6, SESSIONS = 64, LINES = 256, MESSAGES = 8192, KEYS = 3 };
enum { USERS = 3, SPENT = 32, BIGGEST = 80000 };
enum { RING_COUNT = 128, RING_BYTES = 65536 }; /* what an end must keep */

/* What this model takes for the most that the library may hold. */
enum { HEAP_LOOP = 2 * 512 * 1024, HEAP_LINE = 2 * 65536 + 8192 };
enum { HEAP_SESSION = 200000 + 2 * RING_BYTES + 40000 };

struct list {
    uint32_t *at;
    size_t len, cap;
};

/* One direction of a session. */
struct stream {
    struct list m;        /* the counted messages that were accepted */
    struct list u, after; /* the others, and how many counted came before */
    uint32_t got;         /* counted ones that came, or are told lost */
    uint32_t key_sent[KEYS], key_got[KEYS], drop_got;
};

/* A session, as the server's application sees it. */
struct sess {
    int id;
    rt_session s;
    int state;          /* RT_OPEN, RT_AWAY; 0 once on_close came */
    int pending;        /* its line just broke; the callback is due */
    int plain;          /* without rtnet.1 or without a token */
    int was;            /* it lived when the present call began */
    int ended;          /* by the server, with this code */
    int grace;          /* out of an on_close: it ends a turn later */
    int user;           /* bound to, from 1 on */
    int member;         /* of the group */
    uint64_t away_at;   /* since when */
    uint32_t acked;     /* the server surely knows of so many */
    uint32_t gap, lost; /* the last one: all up to it, so many of them lost */
    uint32_t farewell;  /* what the last on_away sent, */
    uint32_t slack;     /* and before that gap: is before it, or behind */
    uint32_t most;      /* so many came to some page or other */
    int reloaded;       /* a page may ask for what another has had */
    int absent;         /* it joined while it was away */
    int untold;         /* on_away lost it again before on_back could come */
    uint64_t told;      /* lost, in all */
    int present;        /* 1: the group's events say it is in; 2: and away */
    struct client *client; /* who knows of it */
    struct line *opener;
    struct stream down, up;
    struct list said; /* with each message up, what had been acknowledged */
};

enum phase { IDLE, GREETING, TALKING };

struct client {
    int id;
    int dialled, tcp, plain;
    int over;       /* it will not come back */
    int bye;        /* it said so itself */
    int refused;    /* the host refused its last resume */
    uint64_t later; /* not before this time */
    int bogus;      /* it came with a token that was void */
    int forgets;    /* a page that kept its token alone is on its way */
    struct sess *s;
    struct line *line;
    enum phase phase;
    char token[24], who[24], spare[24];
    uint64_t attempt;
    uint32_t acked, written, taken, top; /* of its own messages */
    uint32_t acks;                       /* last one it said */
    uint32_t confirms;                   /* heard: the token before is void */
    int lazy;                            /* it seldom acknowledges */
    rt_session dial;
    int opens, full;
};

enum ghost { OWNED, WRITES, SILENT, READS };

struct line {
    int id;
    struct client *client; /* NULL when nobody reads it any more */
    struct sess *opened;   /* on_open came by it */
    enum ghost ghost;
    int plain, stalled, stale; /* stale: its h will name an old attempt */
    int hello, bye;
    ws_peer *ws;            /* a script's, or */
    sim_peer *back, *front; /* TCP: back; a relay: both */
    int shut_back, shut_front;
    struct ws_bytes in, out;
    int code; /* of a close over TCP */
    int told; /* that another took its place */
    int liar; /* what kind of one; 0: none */
};

/* What liars do, and what they must be told. */
enum lie {
    TOO_MANY = 1, /* claims more than there is, with a good token */
    TOO_OLD,      /* tries a good token with an old attempt */
    NO_HELLO,
    BAD_HELLO,
    NO_ACK,      /* talks before its first acknowledgement */
    ACK_TOO_FAR, /* acknowledges what was not sent */
    BAD_WORD,    /* says what only a server may, or nobody */
    BAD_TEXT,    /* not UTF-8 */
    LIES
};

static struct model {
    rt_loop *loop, *far; /* of the server, of those that dial */
    rt_group group;
    struct sess sess[SESSIONS];
    struct client clients[CLIENTS];
    struct line lines[LINES];
    int sess_count, client_count, line_count;
    uint32_t serial;
    struct {
        int kind, key;
        char verb;
        size_t len;
    } messages[MESSAGES];
    char spent[SPENT][24];
    int spent_count;
    int window_ms, hard, policy;
    int dry;          /* no random bytes */
    int refusing;     /* the resume handler says no */
    int hook, resume; /* this world has its own random bytes, that handler */
    int turning;      /* the library runs */
    int freeing, settling, whole, late, depth, closing;
    uint32_t short_of;      /* as weak; this world was so */
    uint32_t weak;          /* one of so many allocations fails; 0: none does */
    struct sess *self;      /* a callback meddles: most likely with this one */
    struct sess *away_last; /* the last callback was its on_away */
    int calm, fds;          /* open without any line */
    unsigned turns;
    uint64_t random;
} m;

static char pattern[BIGGEST + 128];

/* What these worlds are for.  Counted, so that a test can tell whether it all
   came to pass. */
#define SIGHTS(X)                                                              \
    X(resumed)                                                                 \
    X(gaps)                                                                    \
    X(takeovers)                                                               \
    X(expired)                                                                 \
    X(stale)                                                                   \
    X(slow)                                                                    \
    X(replaced)                                                                \
    X(kicked)                                                                  \
    X(superseded)                                                              \
    X(refused)                                                                 \
    X(tokenless)                                                               \
    X(full)                                                                    \
    X(reloads)                                                                 \
    X(void_tokens)                                                             \
    X(dialled_back)                                                            \
    X(dialled_gaps)                                                            \
    X(dialled_anew)                                                            \
    X(keys_twice)                                                              \
    X(later)                                                                   \
    X(liars)

static struct {
#define SIGHT_FIELD(name) uint64_t name;
    SIGHTS(SIGHT_FIELD)
#undef SIGHT_FIELD
} saw;

const char *resume_unseen(int print)
{
    const char *none = NULL;

#define SIGHT_LOOK(name)                                                       \
    if (print)                                                                 \
        printf("%12llu %s\n", (unsigned long long)saw.name, #name);            \
    if (!saw.name)                                                             \
        none = #name;
    SIGHTS(SIGHT_LOOK)
#undef SIGHT_LOOK
    return none;
}

/* ---- lists and messages ------------------------------------------------- */

static void push(struct list *l, uint32_t value)
{
    if (l->len == l->cap) {
        l->cap = 2 * l->cap + 16;
        l->at = realloc(l->at, l->cap * sizeof *l->at);
        if (!l->at)
            exit(2);
    }
    l->at[l->len++] = value;
}

static void bytes_add(struct ws_bytes *b, const void *data, size_t n)
{
    if (b->len + n > b->cap) {
        b->cap = 2 * (b->len + n);
        b->at = realloc(b->at, b->cap);
        if (!b->at)
            exit(2);
    }
    if (n)
        memcpy(b->at + b->len, data, n);
    b->len += n;
}

static void bytes_drop(struct ws_bytes *b, size_t n)
{
    b->len -= n;
    if (b->len)
        memmove(b->at, b->at + n, b->len);
}

static size_t tail_length(void)
{
    switch (sim_choose(24)) {
    case 0:
        return sim_choose(30000);
    case 1:
    case 2:
        return sim_choose(3000);
    default:
        return sim_choose(40);
    }
}

/* A new message; 0 when there were too many. */
static uint32_t message_new(char verb, int key, size_t tail)
{
    uint32_t g = m.serial + 1;

    if (g == MESSAGES)
        return 0;
    m.serial = g;
    m.messages[g].verb = verb;
    m.messages[g].key = key;
    m.messages[g].kind = sim_choose(3) ? RT_TEXT : RT_BINARY;
    m.messages[g].len = 24 + tail;
    return g;
}

/* Of any key and length.  Two choices are two statements, everywhere: which of
   a call's arguments comes first is up to the compiler. */
static uint32_t message_any(char verb)
{
    int key = (int)sim_choose(KEYS);

    return message_new(verb, key, tail_length());
}

/* Its text, valid until the next call: a head of 24 bytes and a tail. */
static const char *message_text(uint32_t g, size_t *len)
{
    static char text[BIGGEST];

    *len = m.messages[g].len;
    snprintf(text, 25, "%c %10u %10u", m.messages[g].verb, g,
             (unsigned)m.messages[g].key);
    memcpy(text + 24, pattern + g % 97, *len - 24);
    return text;
}

/* Which message this is; 0: none of ours. */
static uint32_t message_find(int kind, const void *data, size_t len)
{
    char head[25];
    unsigned g;
    size_t want = 0;

    if (len < 24)
        return 0;
    memcpy(head, data, 24);
    head[24] = 0;
    if (sscanf(head + 1, "%u", &g) != 1 || !g || g > m.serial)
        return 0;
    if (memcmp(message_text(g, &want), data, want < len ? want : len) != 0)
        return 0;
    return want == len && kind == m.messages[g].kind ? g : 0;
}

static int in_list(const struct list *l, uint32_t value, size_t *at)
{
    size_t i;

    for (i = l->len; i-- > 0;) {
        *at = i;
        if (l->at[i] == value)
            return 1;
    }
    return 0;
}

/* ---- what must arrive --------------------------------------------------- */

static void hear_counted(struct stream *d, uint32_t g, const char *who, int id)
{
    if (d->got >= d->m.len || d->m.at[d->got] != g)
        sim_fault("%s %d: message %u came, number %u of %zu is %u", who, id, g,
                  d->got + 1, d->m.len,
                  d->got < d->m.len ? d->m.at[d->got] : 0);
    else
        d->got++;
}

static void hear_other(struct stream *d, uint32_t g, const char *who, int id)
{
    int key = m.messages[g].key;
    size_t i = 0;

    if (!in_list(&d->u, g, &i))
        sim_fault("%s %d: %u was never sent to it", who, id, g);
    else if (d->after.at[i] > d->got)
        sim_fault("%s %d: %u passed a message, %u came of %u", who, id, g,
                  d->got, d->after.at[i]);
    if (m.messages[g].verb == 'D') {
        if (g <= d->drop_got)
            sim_fault("%s %d: droppable %u after %u", who, id, g, d->drop_got);
        d->drop_got = g;
        return;
    }
    saw.keys_twice += g == d->key_got[key];
    if (g < d->key_got[key])
        sim_fault("%s %d: key %d went back from %u to %u", who, id, key,
                  d->key_got[key], g);
    d->key_got[key] = g;
}

/* A message came; its serial, 0 when it is none. */
static uint32_t hear(struct stream *d, int kind, const void *data, size_t len,
                     const char *who, int id)
{
    uint32_t g = message_find(kind, data, len);

    sim_upcall((uint32_t)id + (*who == 'c' ? SESSIONS : 0), 'h', g);
    sim_note("%s %d hears %u", who, id, g);
    if (!g)
        sim_fault("%s %d hears what nobody said: %.30s", who, id,
                  (const char *)data);
    else if (m.messages[g].verb == 'R')
        hear_counted(d, g, who, id);
    else
        hear_other(d, g, who, id);
    return g;
}

/* It was accepted. */
static void expect(struct stream *d, uint32_t g)
{
    if (m.messages[g].verb == 'R') {
        push(&d->m, g);
        return;
    }
    push(&d->u, g);
    push(&d->after, (uint32_t)d->m.len);
    if (m.messages[g].verb == 'K')
        d->key_sent[m.messages[g].key] = g;
}

/* Can the server have forgotten one? */
static int ring_over(const struct sess *s)
{
    size_t i, bytes = 0;

    for (i = s->acked; i < s->down.m.len; i++)
        bytes += m.messages[s->down.m.at[i]].len;
    return s->down.m.len - s->acked > RING_COUNT || bytes > RING_BYTES;
}

/* ---- the wire of a script ----------------------------------------------- */

static void client_hears(struct client *c, char type, int kind,
                         const uint8_t *data, size_t len);
static void client_lost(struct client *c, int code);
static void plain_opens(struct client *c);

static sim_peer *line_peer(const struct line *l)
{
    return l->ws ? l->ws->line : l->back;
}

/* Queues a message of rtnet.1. */
static void line_say(struct line *l, char type, int kind, const void *data,
                     size_t len)
{
    static uint8_t text[BIGGEST + 5];
    uint32_t n = (uint32_t)len + 1;

    if (!l->ws && kind == RT_BINARY && (type == 'm' || type == 'u'))
        type = (char)(type - 'a' + 'A');
    text[0] = (uint8_t)(n >> 24);
    text[1] = (uint8_t)(n >> 16);
    text[2] = (uint8_t)(n >> 8);
    text[3] = (uint8_t)n;
    text[4] = (uint8_t)type;
    memcpy(text + 5, data, len);
    if (l->ws)
        ws_send(l->ws, kind, text + 4, len + 1);
    else
        bytes_add(&l->out, text, len + 5);
}

static void line_word(struct line *l, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void line_word(struct line *l, const char *format, ...)
{
    char text[200];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    sim_note("line %d says %s", l->id, text);
    line_say(l, text[0], RT_TEXT, text + 1, strlen(text) - 1);
}

static void on_frame(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    struct line *l = w->user;

    if (!l->client || (op != WS_TEXT && op != WS_BINARY))
        return;
    if (l->client->plain)
        client_hears(l->client, 0, op, data, len);
    else if (!len)
        sim_fault("line %d: a message without a type", l->id);
    else
        client_hears(l->client, (char)data[0], op, data + 1, len - 1);
}

/* One message of a stream. */
static void stream_hears(struct line *l, const uint8_t *data, size_t len)
{
    char type = (char)data[0];
    int kind = RT_TEXT;

    if (type == 'p') {
        line_say(l, 'q', RT_TEXT, data + 1, len - 1);
        return;
    }
    if (type == 'c') {
        l->code = atoi((const char *)data + 1); /* a digit is no more a space */
        return;
    }
    if (type == 'q')
        return;
    if (type == 'M' || type == 'U') {
        kind = RT_BINARY;
        type = (char)(type - 'A' + 'a');
    }
    if (l->client)
        client_hears(l->client, type, kind, data + 1, len - 1);
}

static void stream_read(struct line *l)
{
    uint8_t piece[4096];
    size_t n;

    while ((n = sim_peer_recv(l->back, piece, sizeof piece)) > 0)
        bytes_add(&l->in, piece, n);
    while (l->in.len >= 5) {
        n = (size_t)l->in.at[0] << 24 | (size_t)l->in.at[1] << 16 |
            (size_t)l->in.at[2] << 8 | l->in.at[3];
        if (!n || n > BIGGEST)
            sim_fault("line %d: a length of %zu", l->id, n);
        if (!n || n > BIGGEST || l->in.len < n + 4)
            return;
        bytes_add(&l->in, "", 1); /* ends the text of a word */
        l->in.len--;
        stream_hears(l, l->in.at + 4, n);
        bytes_drop(&l->in, n + 4);
    }
}

static void give(sim_peer *to, struct ws_bytes *from)
{
    ptrdiff_t n = sim_peer_send(to, from->at, from->len);

    bytes_drop(from, n > 0 ? (size_t)n : n < 0 ? from->len : 0);
}

static void stream_pump(struct line *l)
{
    if (l->ghost != WRITES && !l->stalled)
        stream_read(l);
    if (l->out.len)
        give(l->back, &l->out);
    if (sim_peer_state(l->back) != SIM_UP &&
        (l->ghost == WRITES || !sim_peer_waiting(l->back))) {
        sim_peer_close(l->back);
        l->back = NULL;
    }
}

/* The greeting goes out once the upgrade is done. */
static void greet(struct line *l)
{
    struct client *c = l->client;

    l->hello = 1;
    if (c->plain)
        plain_opens(c);
    else if (c->token[0])
        line_word(l, "h%s %u %llu", c->token, c->s->down.got,
                  (unsigned long long)(c->attempt += !l->stale));
    else
        line_word(l, c->spare[0] ? "h%s 0 1" : "h%s", c->spare);
    c->bogus = c->spare[0] && !c->token[0];
    c->spare[0] = 0;
}

static int line_code(const struct line *l)
{
    return l->ws ? l->ws->close_code : l->code;
}

static const char *pick(const char *const *words, uint32_t n)
{
    return words[sim_choose(n)];
}

static void liar_greets(struct line *l)
{
    static const char *const hellos[] = {
        "h 0 1",
        "hAAAAAAAAAAAAAAAAAAAAAA",
        "hAAAAAAAAAAAAAAAAAAAAAA 00 1",
        "hAAAAAAAAAAAAAAAAAAAAAB 0 1",
        "hAAAAAAAAAAAAAAAAAAAAAA 0 1 ",
        "hAAAAAAAAAAAAAAAAAAAAA 0 1",
        "hAAAAAAAAAAAAAAAAAAAAAA 0 -1",
        "hAAAAAAAAAAAAAAAAAAAAAA 9007199254740992 1",
        "h "};
    static const char *const words[] = {"x",  "wx a 0 0 new 1", "h", "a", "a01",
                                        "a0 "};
    static const char *const first[] = {"a0", "mhello", "uhello", "x"};
    struct client *c = &m.clients[sim_choose((uint32_t)m.client_count)];

    l->hello = 1;
    if (!c->token[0] && l->liar <= TOO_OLD)
        l->liar = BAD_HELLO;
    if (l->liar == TOO_MANY || l->liar == TOO_OLD) {
        line_word(l, l->liar == TOO_OLD ? "h%s 0 0" : "h%s 4000000000 99",
                  c->token);
    } else if (l->liar == NO_HELLO || l->liar == BAD_HELLO) {
        line_word(l, "%s",
                  l->liar == NO_HELLO ? pick(first, 4) : pick(hellos, 9));
        return;
    } else {
        line_word(l, "h");
    }
    line_word(l, "%s",
              l->liar == NO_ACK        ? "mhello"
              : l->liar == ACK_TOO_FAR ? "a7000000"
                                       : "a0");
    if (l->liar == BAD_WORD)
        line_word(l, "%s", pick(words, 6));
    if (l->liar == BAD_TEXT)
        line_say(l, sim_choose(2) ? 'm' : 'u', RT_TEXT, "\xc0\x80", 2);
}

/* Nobody but the liar is hurt: others would notice.  What it was told: */
static void liar_ends(struct line *l)
{
    int code = line_code(l), want = 1002;

    saw.liars++;
    l->liar = -l->liar;
    if (l->liar == -TOO_OLD)
        want = 4003;
    if (l->liar == -BAD_TEXT)
        want = 1007;
    if (l->liar >= -TOO_OLD && l->opened)
        return; /* the token was void */
    if (l->opened && (code == 4001 || code == l->opened->ended))
        return; /* that came first */
    if (code == 1011 && m.short_of)
        return;
    if (code && code != want && code != 1013 && !(l->opened && code == 4100))
        sim_fault("a liar, %d, is told %d", -l->liar, code);
}

static void liar_pump(struct line *l)
{
    if (!l->hello && (!l->ws || l->ws->open))
        liar_greets(l);
    if (!line_peer(l) || line_code(l))
        liar_ends(l);
}

static void script_pump(struct line *l)
{
    int code;

    if (l->ws)
        ws_pump(l->ws);
    else if (l->back)
        stream_pump(l);
    if (l->liar > 0)
        liar_pump(l);
    if (line_code(l) == RT_CLOSE_SUPERSEDED && !l->told) {
        l->told = 1;
        saw.superseded++;
    }
    if (!l->client)
        return;
    if (l->client->phase == GREETING && !l->hello && (!l->ws || l->ws->open))
        greet(l);
    code = line_code(l);
    if (code || (l->ws ? !l->ws->line : !l->back))
        client_lost(l->client, code ? code : 1006);
}

/* ---- relays ------------------------------------------------------------- */

static void relay_end(struct line *l)
{
    if (l->front)
        sim_peer_close(l->front);
    if (l->back)
        sim_peer_close(l->back);
    l->front = l->back = NULL;
}

static void relay_copy(sim_peer *from, sim_peer *to, struct ws_bytes *b,
                       int *shut)
{
    uint8_t piece[4096];
    size_t n;

    while (b->len < 20000 && (n = sim_peer_recv(from, piece, sizeof piece)) > 0)
        bytes_add(b, piece, n);
    if (b->len)
        give(to, b);
    if (sim_peer_state(from) != SIM_FIN || sim_peer_waiting(from) || b->len ||
        *shut)
        return;
    *shut = 1;
    sim_peer_shut(to);
}

static void relay_pump(struct line *l)
{
    if (l->ghost == SILENT || !l->front || !l->back)
        return;
    relay_copy(l->front, l->back, &l->in, &l->shut_back);
    relay_copy(l->back, l->front, &l->out, &l->shut_front);
    if (sim_peer_state(l->front) == SIM_RST ||
        sim_peer_state(l->back) == SIM_RST || (l->shut_back && l->shut_front))
        relay_end(l);
}

static struct line *line_new(struct client *c)
{
    struct line *l = &m.lines[m.line_count];

    if (m.line_count == LINES)
        return NULL;
    memset(l, 0, sizeof *l);
    l->id = m.line_count++;
    l->client = c;
    l->plain = c && c->plain;
    l->bye = c && c->bye;
    return l;
}

static const char *line_address(const struct line *l)
{
    static char text[32];

    snprintf(text, sizeof text, "10.1.%d.%d", l->id / 100, l->id % 100 + 1);
    return text;
}

static struct line *line_find(const char *address)
{
    int a, b;

    if (sscanf(address, "10.1.%d.%d", &a, &b) != 2 ||
        a * 100 + b - 1 >= m.line_count)
        return NULL;
    return &m.lines[a * 100 + b - 1];
}

static void relay_accept(struct client *c)
{
    sim_peer *front;
    struct line *l;

    while ((front = sim_accept(RELAY_PORT + c->id)) != NULL) {
        l = line_new(c);
        if (!l) {
            sim_peer_reset(front);
            sim_peer_close(front);
            continue;
        }
        l->front = front;
        l->back =
            sim_connect_from(c->tcp ? TCP_PORT : WS_PORT, line_address(l));
        if (c->line)
            c->line->client = NULL;
        c->line = l;
        sim_note("client %d dials, line %d", c->id, l->id);
        if (!l->back)
            relay_end(l);
    }
}

/* ---- the script of a client --------------------------------------------- */

static void client_say(struct client *c, uint32_t g, char type)
{
    size_t len;
    const char *text = message_text(g, &len);

    line_say(c->line, type, m.messages[g].kind, text, len);
}

/* Number n goes out on the present line. */
static void client_write(struct client *c, uint32_t n)
{
    if (c->s->said.len < n)
        push(&c->s->said, c->acks);
    client_say(c, c->s->up.m.at[n - 1], 'm');
    c->taken = n;
    if (c->taken > c->top)
        c->top = c->taken;
}

static void client_ack(struct client *c)
{
    if (!c->s || c->phase != TALKING || c->plain || c->dialled)
        return;
    c->acks = c->s->down.got;
    line_word(c->line, "a%u", c->acks);
}

static int token_good(const char *t)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnop"
                                  "qrstuvwxyz0123456789-_";

    return strlen(t) == 22 && strspn(t, letters) == 22 && strchr("AQgw", t[21]);
}

static void token_spent(const char *token)
{
    if (*token && m.spent_count < SPENT)
        memcpy(m.spent[m.spent_count++], token, 24);
}

struct welcome {
    char token[24], who[24], status[12];
    unsigned long long received, base, ping;
};

static int welcome_read(const char *text, struct welcome *w)
{
    char again[200];

    if (sscanf(text, "%23s %23s %llu %llu %11s %llu", w->token, w->who,
               &w->received, &w->base, w->status, &w->ping) != 6)
        return 0;
    snprintf(again, sizeof again, "%s %s %llu %llu %s %llu", w->token, w->who,
             w->received, w->base, w->status, w->ping);
    return strcmp(again, text) == 0 &&
           (strcmp(w->token, "-") == 0 || token_good(w->token)) &&
           strlen(w->who) <= 22;
}

/* A new session; if the client had one, it must be over. */
static void welcome_new(struct client *c, const struct welcome *w)
{
    struct sess *old = c->s;

    if (w->received || w->base)
        sim_fault("client %d: a new session that begins at %llu, %llu", c->id,
                  w->received, w->base);
    if (old && old->state && !c->refused)
        sim_fault("client %d is told that session %d is over", c->id, old->id);
    if (old) {
        token_spent(old->state ? "" : c->token);
        old->client = NULL;
    }
    saw.refused += c->refused && old;
    saw.void_tokens += c->bogus != 0;
    c->bogus = 0;
    c->s = c->line->opened;
    if (!c->s || c->s->client) {
        sim_fault("client %d has a session that never opened", c->id);
        return;
    }
    saw.tokenless += c->s->plain != 0;
    if (c->s->plain != !strcmp(w->token, "-"))
        sim_fault("client %d: token %s", c->id, w->token);
    c->s->client = c;
    c->forgets = 0;
    c->acked = c->written = c->taken = c->top = 0;
    memcpy(c->who, w->who, sizeof c->who);
}

/* Is a gap up to base what the server's side was told? */
static int gap_fits(const struct sess *s, uint64_t base)
{
    if (s->untold)
        return base <= s->down.m.len;
    return base <= s->gap && base + s->slack >= s->gap &&
           base == s->down.got + s->lost;
}

static void welcome_gap(struct client *c, const struct welcome *w)
{
    struct sess *s = c->s;

    if (w->base <= s->down.got || w->base > s->down.m.len)
        sim_fault("client %d has %u of %zu, gap to %llu", c->id, s->down.got,
                  s->down.m.len, w->base);
    if (!gap_fits(s, w->base))
        sim_fault("client %d has %u, gap to %llu; on_back said %u of %u", c->id,
                  s->down.got, w->base, s->lost, s->gap);
    s->down.got = (uint32_t)w->base;
}

/* What another page had said and nobody heard is lost with that page. */
static void page_learns(struct client *c, const struct welcome *w)
{
    struct sess *s = c->s;

    saw.reloads++;
    c->forgets = 0;
    c->top = (uint32_t)w->received;
    if (s->up.m.len > w->received)
        s->up.m.len = (size_t)w->received;
    if (s->said.len > w->received)
        s->said.len = (size_t)w->received;
}

static void welcome_back(struct client *c, const struct welcome *w)
{
    if (!c->s || c->s->plain || strcmp(c->who, w->who) != 0) {
        sim_fault("client %d gets a session that is not its own", c->id);
        return;
    }
    if (!strcmp(w->token, "-"))
        sim_fault("client %d comes back without a token", c->id);
    if (!c->forgets && (w->received < c->acked || w->received > c->top))
        sim_fault("client %d: the server has %llu of %u..%u", c->id,
                  w->received, c->acked, c->top);
    if (w->received != c->s->up.got)
        sim_fault("client %d: the server says %llu, it told %u", c->id,
                  w->received, c->s->up.got);
    if (c->forgets)
        page_learns(c, w);
    if (!strcmp(w->status, "gap"))
        welcome_gap(c, w);
    else if (w->base != c->s->down.got)
        sim_fault("client %d has %u, the server goes on after %llu", c->id,
                  c->s->down.got, w->base);
    if (c->s->acked < c->s->down.got)
        c->s->acked = c->s->down.got;
    if (c->top < c->taken)
        c->top = c->taken;
    c->acked = c->taken = (uint32_t)w->received;
    memcpy(c->spare, c->token, sizeof c->spare);
    c->confirms = (uint32_t)c->s->up.m.len;
}

static void welcome_in(struct client *c, const char *text)
{
    struct welcome w;
    uint32_t n;
    int fresh;

    sim_note("client %d is told w%s", c->id, text);
    if (!welcome_read(text, &w)) {
        sim_fault("client %d: not a welcome: w%s", c->id, text);
        return;
    }
    fresh = !strcmp(w.status, "new");
    if (fresh)
        welcome_new(c, &w);
    else
        welcome_back(c, &w);
    if (sim_faults())
        return;
    snprintf(c->token, sizeof c->token, "%s",
             strcmp(w.token, "-") ? w.token : "");
    c->attempt = 0;
    c->phase = TALKING;
    client_ack(c);
    for (n = c->taken + 1; n <= c->s->up.m.len; n++)
        client_write(c, n);
}

static void ack_in(struct client *c, const char *text)
{
    unsigned long a = strtoul(text, NULL, 10);

    if (a < c->acked || a > c->taken)
        sim_fault("client %d: a%lu of %u..%u", c->id, a, c->acked, c->taken);
    c->acked = (uint32_t)a;
}

/* Without rtnet.1 nobody says welcome. */
static void plain_opens(struct client *c)
{
    if (c->s || !c->line->opened)
        return;
    c->phase = TALKING;
    c->s = c->line->opened;
    c->s->client = c;
}

static void client_hears(struct client *c, char type, int kind,
                         const uint8_t *data, size_t len)
{
    char text[132];
    uint32_t g;

    if (sim_faults())
        return;
    if (type == 'w' || type == 'a') {
        snprintf(text, sizeof text, "%.*s", (int)len, (const char *)data);
        if ((type == 'w') != (c->phase == GREETING))
            sim_fault("client %d: %c in phase %d", c->id, type, (int)c->phase);
        else if (type == 'w')
            welcome_in(c, text);
        else
            ack_in(c, text);
        return;
    }
    if (c->plain)
        plain_opens(c);
    if (c->phase != TALKING || !c->s) {
        sim_fault("client %d hears %c too early", c->id, type);
        return;
    }
    g = hear(&c->s->down, kind, data, len, "client", c->id);
    if (type && g && (type == 'm') != (m.messages[g].verb == 'R'))
        sim_fault("client %d: %u came as %c", c->id, g, type);
    if (type == 'm' && m.settling)
        client_ack(c);
    else if (type == 'm' && (c->lazy ? !sim_choose(200) : !sim_choose(4)))
        client_ack(c);
}

/* ---- how lines end ------------------------------------------------------ */

/* Nobody reads it any more; what it still does is up to the ghost. */
static void line_part(struct line *l, enum ghost ghost)
{
    struct client *c = l->client;

    l->client = NULL;
    l->ghost = ghost;
    if (!c || c->line != l || c->dialled)
        return;
    c->line = NULL;
    c->phase = IDLE;
    c->over |= c->plain || (c->s && c->s->plain);
}

static void line_close(struct line *l)
{
    if (l->ws && l->ws->line) {
        sim_peer_close(l->ws->line);
        l->ws->line = NULL;
    }
    relay_end(l);
}

/* The client gives it up, or the net does. */
static void script_cut(struct line *l, uint32_t how)
{
    struct ws_bytes *out = l->ws ? &l->ws->out : &l->out;

    if (how != 4 && sim_choose(2))
        out->len = sim_choose((uint32_t)out->len + 1);
    line_part(l, how == 2 ? SILENT : WRITES);
    if (l->ws) {
        l->ws->reads = 0;
        if (how == 4)
            ws_close(l->ws, 4000);
    }
    if (how >= 2 || !line_peer(l))
        return;
    if (l->ws)
        ws_pump(l->ws);
    else
        give(l->back, &l->out);
    if (!how && line_peer(l))
        sim_peer_reset(line_peer(l));
    line_close(l);
}

static void relay_cut(struct line *l, uint32_t how)
{
    if (!l->front || !l->back)
        return;
    if (sim_choose(2))
        l->in.len = sim_choose((uint32_t)l->in.len + 1);
    if (sim_choose(2))
        l->out.len = sim_choose((uint32_t)l->out.len + 1);
    if (how == 0 || how == 3)
        sim_peer_reset(l->front);
    if (how == 0 || how == 4)
        sim_peer_reset(l->back);
    if (how < 2) {
        relay_end(l);
        return;
    }
    l->ghost = SILENT; /* one of them, or both, will wait for long */
}

static void line_cut(struct line *l, uint32_t how)
{
    sim_note("line %d is cut, way %u", l->id, how);
    if (l->front)
        relay_cut(l, how);
    else
        script_cut(l, how);
}

static void line_pump(struct line *l)
{
    if (l->front) {
        relay_pump(l);
        return;
    }
    if (l->ghost == SILENT || (!line_peer(l) && l->liar <= 0))
        return;
    script_pump(l);
}

/* ---- how a client learns that it is cut ---------------------------------- */

static int comes_back(int code)
{
    return code == 1001 || code == 1005 || code == 1006 || code == 1011 ||
           (code >= 1013 && code <= 1015) || (code >= 3000 && code < 3500) ||
           (code >= 4000 && code < 4500);
}

static void client_lost(struct client *c, int code)
{
    struct sess *s = c->s;

    sim_note("client %d loses its line: %d", c->id, code);
    if (code == 4003 && !c->line->stale)
        sim_fault("client %d: try %llu is said to be old", c->id,
                  (unsigned long long)c->attempt);
    line_part(c->line, READS);
    saw.stale += code == 4003;
    saw.slow += code == 4001;
    saw.later += code == 1013;
    if (code == 1013)
        c->later = sim_now() + 1000;
    if (code == 1002 || code == 1003 || code == 1007 || code == 1009 ||
        code == 4504)
        sim_fault("client %d, an honest one, is told %d", c->id, code);
    if (code == 4003)
        c->attempt += 2;
    if (comes_back(code))
        return;
    c->over = 1;
    if (s && s->state && !c->bye && s->ended != code)
        sim_fault("client %d is told %d, but session %d lives", c->id, code,
                  s->id);
}

/* ---- callbacks of the server -------------------------------------------- */

static void callback_begins(const char *name)
{
    if (strcmp(name, "on_back") != 0)
        m.away_last = NULL;
    if (m.depth++)
        sim_fault("%s inside another callback", name);
}

static struct sess *sess_new(rt_loop *l, rt_session h)
{
    struct sess *s = &m.sess[m.sess_count];
    struct sess was = *s;

    if (m.sess_count == SESSIONS) {
        sim_fault("too many sessions for this model");
        return NULL;
    }
    memset(s, 0, sizeof *s);
    s->down.m.at = was.down.m.at;
    s->down.m.cap = was.down.m.cap;
    s->down.u.at = was.down.u.at;
    s->down.u.cap = was.down.u.cap;
    s->down.after.at = was.down.after.at;
    s->down.after.cap = was.down.after.cap;
    s->up.m.at = was.up.m.at;
    s->up.m.cap = was.up.m.cap;
    s->up.u.at = was.up.u.at;
    s->up.u.cap = was.up.u.cap;
    s->up.after.at = was.up.after.at;
    s->up.after.cap = was.up.after.cap;
    s->said.at = was.said.at;
    s->said.cap = was.said.cap;
    s->id = m.sess_count++;
    s->s = h;
    s->state = RT_OPEN;
    rt_set_user(l, h, s);
    return s;
}

static int lives(const struct sess *s)
{
    int state = rt_state(m.loop, s->s);

    return s->state && (state == RT_OPEN || state == RT_AWAY);
}

static void end_it(struct sess *s, int code)
{
    s->ended = code;
    s->grace = m.closing;
}

static void serve_one(struct sess *s, uint32_t g)
{
    size_t len;
    const char *text = message_text(g, &len);
    int kind = m.messages[g].kind, was = lives(s), answer;
    int away = rt_state(m.loop, s->s) == RT_AWAY;

    if (m.messages[g].verb == 'D')
        kind |= RT_DROPPABLE;
    if (m.messages[g].verb == 'K')
        kind |= rt_latest((uint16_t)m.messages[g].key);
    answer = rt_send(m.loop, s->s, kind, text, len);
    sim_note("server sends %u, %zu bytes, to session %d: %d", g, len, s->id,
             answer);
    if (!was) {
        if (answer != RT_EGONE)
            sim_fault("rt_send to session %d, which is over: %d", s->id,
                      answer);
        return;
    }
    if (answer == RT_EFULL && s->plain && m.messages[g].verb == 'R') {
        end_it(s, RT_CLOSE_SLOW);
        return;
    }
    if ((answer == RT_EFULL && m.messages[g].verb == 'K') ||
        (answer == RT_ENOMEM && m.short_of))
        return;
    if (answer < 0 || (away && answer && m.messages[g].verb == 'R'))
        sim_fault("rt_send to session %d: %d", s->id, answer);
    expect(&s->down, g);
}

static void meddle(struct sess *s);

static void opened(rt_loop *l, rt_session h)
{
    const rt_request *r = rt_request_of(l, h);
    struct line *ln = r ? line_find(r->address) : NULL;
    struct sess *s;

    if (!ln || ln->opened) {
        sim_fault("on_open of nobody: %s", r ? r->address : "no request");
        return;
    }
    s = sess_new(l, h);
    if (!s)
        return;
    sim_note("session %d opens, line %d", s->id, ln->id);
    sim_upcall((uint32_t)s->id, 'o', (uint64_t)ln->id);
    ln->opened = s;
    s->opener = ln;
    s->plain = m.dry || ln->plain;
    if (sim_choose(3) == 0)
        s->member = rt_group_join(l, m.group, h) == 0;
    while (sim_choose(3) == 2) /* 0, of which bytes end in many, ends it */
        serve_one(s, message_new('R', 0, tail_length()));
    meddle(s);
}

static void on_open(rt_loop *l, rt_session h)
{
    callback_begins("on_open");
    opened(l, h);
    m.depth--;
}

static void host_acts(void);

/* The callbacks do what they like, often to the session they are told of. */
static void meddle(struct sess *s)
{
    if (m.settling || m.freeing || sim_choose(10))
        return;
    m.self = s;
    host_acts();
    m.self = NULL;
}

static struct sess *valid(rt_loop *l, rt_session h, const char *what)
{
    struct sess *s = rt_user(l, h);

    if (s && s->state && rt_same(s->s, h))
        return s;
    sim_fault("%s of a session that is not open", what);
    return NULL;
}

/* What its client had said before this message has arrived, too. */
static void confirmed(struct sess *s, uint32_t number)
{
    struct client *c = s->client;

    if (s->said.len >= number && s->said.at[number - 1] > s->acked)
        s->acked = s->said.at[number - 1];
    if (c && c->spare[0] && number > c->confirms) {
        token_spent(c->spare);
        c->spare[0] = 0;
    }
}

static void heard(struct sess *s, int kind, const void *data, size_t len)
{
    uint32_t g;

    if (s->ended || s->state != RT_OPEN || rt_state(m.loop, s->s) != RT_OPEN)
        sim_fault("on_message of session %d, %s", s->id,
                  s->ended ? "which was ended" : "which is away");
    g = hear(&s->up, kind, data, len, "server", s->id);
    if (sim_faults())
        return;
    if (g && m.messages[g].verb == 'R')
        confirmed(s, s->up.got);
    if (sim_choose(4) == 0)
        serve_one(s, message_new('R', 0, tail_length()));
    meddle(s);
}

static void on_message(rt_loop *l, rt_session h, int kind, const void *data,
                       size_t len)
{
    struct sess *s;

    callback_begins("on_message");
    s = valid(l, h, "on_message");
    if (s)
        heard(s, kind, data, len);
    m.depth--;
}

static void on_away(rt_loop *l, rt_session h)
{
    struct sess *s;
    int was;

    callback_begins("on_away");
    s = valid(l, h, "on_away");
    if (s) {
        sim_note("session %d is away", s->id);
        sim_upcall((uint32_t)s->id, 'a', 0);
        was = rt_state(l, h);
        if (s->state != RT_OPEN || s->plain || s->ended)
            sim_fault("on_away of session %d", s->id);
        s->state = RT_AWAY;
        s->pending = 0;
        s->away_at = rt_now(l);
        s->farewell = (uint32_t)s->down.m.len;
        if (sim_choose(4) == 0)
            serve_one(s, message_new('R', 0, tail_length()));
        meddle(s);
        s->untold |= was == RT_OPEN && rt_state(l, h) != RT_OPEN;
        s->farewell = (uint32_t)s->down.m.len - s->farewell;
        m.away_last = s;
    }
    m.depth--;
}

static void on_back(rt_loop *l, rt_session h, uint64_t lost)
{
    struct sess *s;

    callback_begins("on_back");
    s = valid(l, h, "on_back");
    if (s) {
        sim_note("session %d is back, %d lost", s->id, (int)lost);
        sim_upcall((uint32_t)s->id, 'b', lost);
        saw.resumed++;
        saw.gaps += lost > 0;
        saw.takeovers += m.away_last == s;
        if (s->state != RT_AWAY || m.dry || s->ended)
            sim_fault("on_back of session %d", s->id);
        if (lost > s->down.m.len ||
            (lost && !s->reloaded && !m.short_of && !ring_over(s)))
            sim_fault("session %d lost %d of %zu, %u are known to be there",
                      s->id, (int)lost, s->down.m.len, s->acked);
        s->told += lost;
        if (lost) {
            s->gap = (uint32_t)s->down.m.len;
            s->lost = (uint32_t)lost;
            s->slack = s->farewell;
        }
        s->state = RT_OPEN;
        s->pending = 0;
        if (sim_choose(4) == 0)
            serve_one(s, message_new('R', 0, tail_length()));
        meddle(s);
    }
    m.depth--;
}

/* What the server knows to have arrived. */
static void check_lost(const struct sess *s, uint64_t lost)
{
    uint32_t most = s->down.got > s->gap ? s->down.got : s->gap;
    uint64_t acked = s->down.m.len - lost;

    if (s->plain)
        return;
    most = most > s->most ? most : s->most;
    if (m.whole && lost && s->client && !s->client->over && s->state == RT_OPEN)
        sim_fault("session %d: %d lost, but all have come", s->id, (int)lost);
    if (s->untold
            ? lost > s->down.m.len || lost + s->told + most < s->down.m.len
            : lost > s->down.m.len || acked > most || acked < s->acked)
        sim_fault("session %d: %d of %zu lost; %u came, %u surely", s->id,
                  (int)lost, s->down.m.len, s->down.got, s->acked);
}

static int justified(const struct sess *s, const rt_end *why, uint64_t now)
{
    if (why->cause == RT_BY_LOOP)
        return m.freeing;
    if (m.short_of && (why->cause == RT_BY_ERROR || why->code == 4100 ||
                       (why->cause == RT_BY_PEER && why->code != 1000)))
        return 1; /* one session may be the price */
    if (s->ended)
        return why->code == s->ended;
    if (s->opener->liar && why->cause == RT_BY_ERROR)
        return 1;
    if (why->code == 1000)
        return (s->client && s->client->bye) || s->opener->bye;
    if (why->code == RT_CLOSE_EXPIRED)
        return s->state == RT_AWAY && /* it was told of it a turn later */
               now + 5 >= s->away_at + (uint64_t)m.window_ms;
    return s->plain &&
           (why->code == 1006 || why->code == 4002 || why->code == 1005 ||
            why->code == 4000 || why->code == 4001 || why->code == 1013);
}

static void on_close(rt_loop *l, rt_session h, const rt_end *why)
{
    struct sess *s;

    callback_begins("on_close");
    s = valid(l, h, "on_close");
    if (s) {
        sim_note("session %d closes: %d, cause %d, %d lost", s->id, why->code,
                 why->cause, (int)why->lost);
        sim_upcall((uint32_t)s->id, 'c', (uint64_t)why->code);
        sim_upcall((uint32_t)s->id, why->cause, why->lost);
        saw.expired += why->code == RT_CLOSE_EXPIRED;
        saw.kicked += why->code == RT_CLOSE_KICKED;
        saw.replaced += why->code == RT_CLOSE_REPLACED;
        if (!justified(s, why, rt_now(l)))
            sim_fault("session %d closes without a reason: %d, cause %d", s->id,
                      why->code, why->cause);
        check_lost(s, why->lost);
        if (s->present && !m.short_of)
            sim_fault("session %d closes before it leaves the group", s->id);
        s->state = 0;
        s->member = 0;
        m.closing = 1;
        meddle(s);
        m.closing = 0;
    }
    m.depth--;
}

static void on_presence(rt_loop *l, rt_group g, rt_session h, int what)
{
    static const int before[] = {0, 0, 1, 1, 2}, after[] = {0, 1, 0, 2, 1};
    struct sess *s;

    (void)g;
    callback_begins("a presence event");
    s = valid(l, h, "a presence event");
    m.depth--;
    if (!s)
        return;
    sim_note("session %d: event %d", s->id, what);
    if (s->present != before[what] && !s->absent && !m.short_of &&
        !(what == RT_LEFT && s->present))
        sim_fault("session %d: event %d when %d", s->id, what, s->present);
    s->present = after[what];
}

static int on_resume(rt_loop *l, rt_session h, rt_session fresh)
{
    const rt_request *r = rt_request_of(l, fresh);
    struct line *ln = r ? line_find(r->address) : NULL;
    int refuses;

    callback_begins("resume");
    m.depth--;
    if (!ln || !valid(l, h, "resume"))
        sim_fault("resume by nobody");
    else if (m.refusing && ln->client)
        ln->client->refused = 1;
    if (ln && sim_choose(20) == 0 && rt_close(l, fresh, 0, NULL) == 0)
        sim_note("the host closes line %d", ln->id);
    refuses = m.refusing;
    if (rt_user(l, h))
        meddle(rt_user(l, h));
    return refuses;
}

static void on_log(void *user, int level, const char *text)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnop"
                                  "qrstuvwxyz0123456789-_";
    size_t n;

    (void)user;
    (void)level;
    sim_note("log: %s", text);
    for (; *text; text += n + 1) {
        n = strspn(text, letters);
        if (n >= 22)
            sim_fault("the log may hold a token: %s", text);
        if (!text[n])
            return;
    }
}

/* ---- what the server does ----------------------------------------------- */

static struct sess *any_sess(void)
{
    if (m.self && sim_choose(2))
        return m.self;
    return m.sess_count ? &m.sess[sim_choose((uint32_t)m.sess_count)] : NULL;
}

/* To all members of the group, or to all bound to a user. */
static void serve_many(int user, uint32_t g)
{
    size_t len;
    const char *text = message_text(g, &len);
    struct sess *s;
    char uid[16];
    int n = 0, answer;

    for (s = m.sess; s < m.sess + m.sess_count; s++)
        s->was = (user ? s->user == user : s->member) && lives(s);
    snprintf(uid, sizeof uid, "u%d", user);
    if (user)
        answer = rt_push(m.loop, uid, m.messages[g].kind, text, len);
    else
        answer = rt_group_send(m.loop, m.group, m.messages[g].kind, text, len);
    sim_note("server sends %u to %s: %d", g, user ? uid : "all", answer);
    for (s = m.sess; s < m.sess + m.sess_count; s++) {
        if (!s->was)
            continue;
        if (lives(s)) {
            expect(&s->down, g);
            n++;
        } else if (s->plain) {
            end_it(s, RT_CLOSE_SLOW);
        }
    }
    if (n != answer && !m.short_of)
        sim_fault("%d took it, but %d live", answer, n);
}

static void serve(void)
{
    struct sess *s = any_sess();
    uint32_t g, n = sim_choose(16) ? 1 + sim_choose(4) : sim_choose(200);

    for (; s && n > 0; n--) {
        g = message_any(sim_choose(5) ? 'R' : sim_choose(3) ? 'K' : 'D');
        if (!g)
            return;
        if (m.messages[g].verb == 'R' && sim_choose(4) == 0)
            serve_many(s->user && sim_choose(2) ? s->user : 0, g);
        else
            serve_one(s, g);
    }
}

static void host_ends(void)
{
    struct sess *s = any_sess();
    char uid[16];

    if (!s || !lives(s))
        return;
    sim_note("the server ends session %d", s->id);
    if (s->user && sim_choose(2)) {
        snprintf(uid, sizeof uid, "u%d", s->user);
        if (rt_kick(m.loop, uid, 0, "kicked") != 1)
            sim_fault("%s is not kicked", uid);
        end_it(s, RT_CLOSE_KICKED);
    } else {
        end_it(s, sim_choose(2) ? 1000 : 4100);
        if (rt_close(m.loop, s->s, s->ended, NULL) != 0)
            sim_fault("session %d is not closed", s->id);
    }
}

static void host_drops(void)
{
    struct sess *s = any_sess();
    int was, want, answer;

    if (!s)
        return;
    was = lives(s);
    want = !was ? RT_EGONE : rt_state(m.loop, s->s) == RT_AWAY ? RT_ESTATE : 0;
    sim_note("the server drops the line of session %d", s->id);
    answer = rt_drop(m.loop, s->s, 4100, "drop");
    if (answer != want)
        sim_fault("session %d is not dropped: %d", s->id, answer);
    if (was && s->plain)
        end_it(s, 4100);
}

static struct sess *bound_to(int user)
{
    struct sess *s;

    for (s = m.sess; s < m.sess + m.sess_count; s++) {
        if (s->user == user && lives(s))
            return s;
    }
    return NULL;
}

static void host_binds(void)
{
    struct sess *s = any_sess(), *old;
    int user = 1 + (int)sim_choose(USERS), want = 0, answer;
    char uid[16];

    if (!s || !lives(s))
        return;
    snprintf(uid, sizeof uid, "u%d", user);
    old = bound_to(user);
    if (s->user)
        want = RT_EBOUND;
    else if (old && m.policy == RT_BIND_REFUSE &&
             rt_state(m.loop, old->s) != RT_AWAY)
        want = RT_EREFUSED;
    answer = rt_bind(m.loop, s->s, uid);
    sim_note("session %d is bound to %s: %d", s->id, uid, answer);
    if (answer == RT_ENOMEM && m.short_of)
        return;
    if (answer != want)
        sim_fault("session %d is bound to %s: %d, not %d", s->id, uid, answer,
                  want);
    if (want)
        return;
    s->user = user;
    if (old)
        end_it(old, RT_CLOSE_REPLACED);
    if (!rt_same(rt_find(m.loop, uid), s->s))
        sim_fault("%s is not found", uid);
}

static void host_holds(void)
{
    struct sess *s = any_sess();
    int on = (int)sim_choose(2), answer = s ? rt_read(m.loop, s->s, on) : 0;

    if (s && answer && answer != (lives(s) ? RT_ESTATE : RT_EGONE))
        sim_fault("rt_read of session %d: %d", s->id, answer);
}

static void host_groups(void)
{
    struct sess *s = any_sess();
    int answer;

    if (!s || !lives(s))
        return;
    answer = s->member ? rt_group_leave(m.loop, m.group, s->s)
                       : rt_group_join(m.loop, m.group, s->s);
    sim_note("session %d joins or leaves", s->id);
    if (answer == RT_ENOMEM && m.short_of)
        return;
    if (answer)
        sim_fault("session %d joins or leaves: %d", s->id, answer);
    s->member = !s->member;
    if (s->member)
        s->absent = s->state != rt_state(m.loop, s->s) || s->state == RT_AWAY;
}

/* ---- what clients do ---------------------------------------------------- */

static void line_connect(struct line *l, int tcp, int plain)
{
    static const char request[] =
        "GET / HTTP/1.1\r\nHost: game\r\nUpgrade: websocket\r\nConnection: "
        "Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n%s\r\n";
    char text[300];

    if (tcp) {
        l->back = sim_connect_from(TCP_PORT, line_address(l));
        return;
    }
    l->ws = ws_connect_from(WS_PORT, line_address(l));
    if (!l->ws)
        return;
    l->ws->on = on_frame;
    l->ws->user = l;
    snprintf(text, sizeof text, request,
             plain ? "" : "Sec-WebSocket-Protocol: rtnet.1\r\n");
    ws_raw(l->ws, text, strlen(text));
}

static void liar_comes(void)
{
    struct line *l = line_new(NULL);

    if (!l)
        return;
    l->liar = 1 + (int)sim_choose(LIES - 1);
    l->ghost = READS;
    line_connect(l, sim_choose(3) == 0, 0);
    sim_note("line %d is a liar's, kind %d", l->id, l->liar);
}

static void come_as_script(struct client *c)
{
    struct line *l = c->later > sim_now() ? NULL : line_new(c);

    if (!l)
        return;
    line_connect(l, c->tcp, c->plain);
    if (!line_peer(l))
        return;
    sim_note("client %d connects, line %d", c->id, l->id);
    c->line = l;
    c->phase = GREETING;
    c->refused = 0;
    l->stale = c->attempt > 0 && !sim_choose(16);
}

/* ---- callbacks of those that dial --------------------------------------- */

static void dial_open(rt_loop *l, rt_session h)
{
    struct client *c = rt_context(l, h);
    struct sess *s = c->line ? c->line->opened : NULL;

    callback_begins("on_open, dialled");
    sim_note("client %d opens", c->id);
    if (!s || s->client || c->s)
        sim_fault("client %d opens without a session", c->id);
    c->dial = h;
    c->s = s;
    c->refused = 0;
    c->phase = TALKING;
    saw.dialled_anew += c->opens++ > 0;
    if (s)
        s->client = c;
    m.depth--;
}

static struct client *dial_valid(rt_loop *l, rt_session h, const char *what)
{
    struct client *c = rt_context(l, h);

    callback_begins(what);
    m.depth--;
    if (c && c->s && rt_same(c->dial, h))
        return c;
    sim_fault("%s of a dialled session that is not open", what);
    return NULL;
}

static void dial_message(rt_loop *l, rt_session h, int kind, const void *data,
                         size_t len)
{
    struct client *c = dial_valid(l, h, "on_message");

    if (!c)
        return;
    if (c->phase != TALKING || c->bye)
        sim_fault("on_message of client %d", c->id);
    hear(&c->s->down, kind, data, len, "client", c->id);
}

static void dial_away(rt_loop *l, rt_session h)
{
    struct client *c = dial_valid(l, h, "on_away");

    if (!c)
        return;
    sim_note("client %d is away", c->id);
    if (c->phase != TALKING || c->s->plain)
        sim_fault("on_away of client %d", c->id);
    c->phase = IDLE;
}

static void dial_back(rt_loop *l, rt_session h, uint64_t lost)
{
    struct client *c = dial_valid(l, h, "on_back");
    struct sess *s;

    if (!c)
        return;
    sim_note("client %d is back, %d lost", c->id, (int)lost);
    s = c->s;
    if (c->phase != IDLE)
        sim_fault("on_back of client %d", c->id);
    if (s->acked < s->down.got)
        s->acked = s->down.got;
    if (lost && !gap_fits(s, s->down.got + lost))
        sim_fault("client %d has %u and lost %d; the server said %u of %u",
                  c->id, s->down.got, (int)lost, s->lost, s->gap);
    saw.dialled_back++;
    saw.dialled_gaps += lost > 0;
    s->down.got += (uint32_t)lost;
    c->phase = TALKING;
}

static void dial_writable(rt_loop *l, rt_session h)
{
    struct client *c = dial_valid(l, h, "on_writable");

    if (c)
        c->full = 0;
}

/* It is over for good, or a new session follows the old one. */
static void dial_over(struct client *c, const rt_end *why)
{
    struct sess *s = c->s;

    if (s && (why->lost > s->up.m.len || s->up.m.len - why->lost > s->up.got) &&
        !s->plain)
        sim_fault("client %d: %d of %zu lost, %u came", c->id, (int)why->lost,
                  s->up.m.len, s->up.got);
    if (s && s->state && !c->bye && !c->refused && !s->plain && !m.freeing &&
        !m.short_of)
        sim_fault("client %d is over, %d, session %d lives", c->id, why->code,
                  s->id);
    if (s)
        s->client = why->code == RT_CLOSE_EXPIRED ? NULL : c;
    c->over = why->code != RT_CLOSE_EXPIRED;
    c->phase = IDLE;
    c->full = 0;
    if (!c->over)
        c->s = NULL;
}

static void dial_close(rt_loop *l, rt_session h, const rt_end *why)
{
    struct client *c = rt_context(l, h);

    callback_begins("on_close, dialled");
    sim_note("client %d closes: %d, %d lost", c->id, why->code, (int)why->lost);
    if (!rt_same(c->dial, h) || c->over)
        sim_fault("on_close of client %d", c->id);
    if (c->bye ? why->code != 1000 : why->cause == RT_BY_APP)
        sim_fault("client %d closes with %d", c->id, why->code);
    if (!c->s && !m.freeing && !c->bye && !m.short_of)
        sim_fault("client %d closes before it opened: %d", c->id, why->code);
    dial_over(c, why);
    m.depth--;
}

static const rt_handler dial_handler = {.open = dial_open,
                                        .message = dial_message,
                                        .writable = dial_writable,
                                        .away = dial_away,
                                        .back = dial_back,
                                        .close = dial_close};

static void come_as_dial(struct client *c)
{
    rt_dial_opts o = {.on = dial_handler, .user = c, .resume = 1};
    char url[64];

    snprintf(url, sizeof url, "%s://127.0.0.1:%d", c->tcp ? "tcp" : "ws",
             RELAY_PORT + c->id);
    o.framing = c->tcp ? RT_RTNET1 : 0;
    o.hard_mark = m.hard;
    c->dial = rt_dial(m.far, url, &o);
    if (!c->dial.id)
        sim_fault("rt_dial: %d", rt_error(m.far, NULL));
}

/* A stranger tries a token that is none, or no more. */
static void spare_token(struct client *c)
{
    if (sim_choose(2) && m.spent_count) {
        memcpy(c->spare, m.spent[sim_choose((uint32_t)m.spent_count)],
               sizeof c->spare);
    }
}

static void client_new(void)
{
    struct client *c = &m.clients[m.client_count];

    if (m.client_count == CLIENTS)
        return;
    memset(c, 0, sizeof *c);
    c->id = m.client_count++;
    c->tcp = sim_choose(4) == 0;
    c->dialled = sim_choose(3) == 0;
    c->lazy = sim_choose(2) == 0;
    c->plain = !c->tcp && !c->dialled && sim_choose(10) == 0;
    if (c->dialled) {
        sim_serve(RELAY_PORT + c->id);
        come_as_dial(c);
        return;
    }
    spare_token(c);
    come_as_script(c);
}

static size_t unacked_bytes(const struct client *c)
{
    size_t i, n = 0;

    for (i = c->acked; i < c->s->up.m.len; i++)
        n += m.messages[c->s->up.m.at[i]].len;
    return n;
}

static void client_plain(struct client *c, uint32_t g)
{
    size_t len;
    const char *text = message_text(g, &len);

    ws_send(c->line->ws, m.messages[g].kind, text, len);
}

static void script_speaks(struct client *c)
{
    struct stream *up = &c->s->up;
    uint32_t g;

    if (c->phase == TALKING && sim_choose(8) == 0 && !c->plain) {
        g = message_new('D', 0, tail_length());
        if (!g)
            return;
        expect(up, g);
        client_say(c, g, 'u');
        return;
    }
    g = message_new('R', 0, tail_length());
    if (!g || (c->plain && c->phase != TALKING) ||
        (!c->plain && (up->m.len - c->acked >= RING_COUNT ||
                       unacked_bytes(c) + m.messages[g].len > RING_BYTES)))
        return;
    expect(up, g);
    if (c->phase != TALKING)
        return;
    if (c->plain)
        client_plain(c, g);
    else
        client_write(c, (uint32_t)up->m.len);
}

static void dial_speaks(struct client *c)
{
    uint32_t x = sim_choose(8);
    uint32_t g = message_any(x > 1 ? 'R' : x ? 'K' : 'D');
    int state = rt_state(m.far, c->dial), answer, kind;
    size_t len;
    const char *text;

    if (!g)
        return;
    text = message_text(g, &len);
    kind = m.messages[g].kind;
    if (m.messages[g].verb == 'D')
        kind |= RT_DROPPABLE;
    if (m.messages[g].verb == 'K')
        kind |= rt_latest((uint16_t)m.messages[g].key);
    answer = rt_send(m.far, c->dial, kind, text, len);
    sim_note("client %d sends %u: %d", c->id, g, answer);
    if (answer == RT_EFULL && m.messages[g].verb == 'R' && !c->s->plain)
        c->full = 1, saw.full++;
    if (answer == RT_EFULL || state == RT_CLOSING || state == RT_EGONE)
        return;
    if (answer < 0)
        sim_fault("client %d cannot send: %d", c->id, answer);
    else
        expect(&c->s->up, g);
}

static void client_speaks(struct client *c)
{
    uint32_t n = sim_choose(12) ? 1 + sim_choose(3) : sim_choose(160);

    if (!c->s || c->over || c->bye || c->forgets)
        return;
    sim_note("client %d speaks %u times", c->id, n);
    for (; n > 0; n--) {
        if (c->dialled)
            dial_speaks(c);
        else
            script_speaks(c);
    }
}

/*
 * Another page comes with the token: the same user's, after a reload, or a
 * thief's.  It may have kept what it received, or nothing.  The page before is
 * told 4504, if it still listens.
 */
static void client_reloads(struct client *c)
{
    if (c->plain || c->phase != TALKING || !c->token[0] || !c->s)
        return;
    sim_note("client %d reloads", c->id);
    if (sim_choose(2))
        line_part(c->line, READS);
    else
        line_cut(c->line, 2 + sim_choose(2));
    if (c->s->most < c->s->down.got)
        c->s->most = c->s->down.got;
    c->forgets = 1;
    c->spare[0] = 0;
    if (sim_choose(2))
        return;
    c->s->reloaded = 1;
    c->s->down.got = 0;
}

static void client_leaves(struct client *c)
{
    if (c->bye)
        return;
    sim_note("client %d says good-bye", c->id);
    c->bye = !c->dialled || rt_close(m.far, c->dial, 1000, NULL) == 0;
    if (c->line && c->bye)
        c->line->bye = 1;
    if (c->dialled)
        return;
    c->over = 1;
    if (c->line && c->line->ws)
        ws_close(c->line->ws, 1000);
    else if (c->line)
        line_word(c->line, "c1000");
    if (c->line)
        line_part(c->line, READS);
}

static void line_stall(struct line *l, int stalled)
{
    if (!line_peer(l) || l->front)
        return;
    sim_note("line %d is %s", l->id, stalled ? "stalled" : "read again");
    l->stalled = stalled;
    if (l->ws)
        l->ws->reads = !stalled;
    sim_peer_window(line_peer(l),
                    stalled ? sim_choose(2) * 1000 : 1000 + sim_choose(65536));
}

static void client_acts(struct client *c)
{
    uint32_t x = sim_choose(32);

    if (c->over)
        return;
    if (!c->line && !c->dialled)
        come_as_script(c);
    else if (!c->line || x > 14)
        client_speaks(c);
    else if (x < 8)
        line_cut(c->line, sim_choose(5));
    else if (x < 10)
        line_stall(c->line, 1);
    else if (x < 12)
        line_stall(c->line, 0);
    else if (x == 12 && sim_choose(4) == 0)
        client_leaves(c);
    else if (x == 13 && !c->dialled)
        client_reloads(c);
    else if (x == 13 && c->phase == TALKING && !c->s->plain)
        rt_drop(m.far, c->dial, 4100, "drop");
    else
        client_ack(c);
}

static void host_acts(void)
{
    switch (sim_choose(24)) {
    case 0:
        host_ends();
        break;
    case 1:
    case 2:
        host_drops();
        break;
    case 3:
    case 4:
    case 5:
        host_binds();
        break;
    case 6:
    case 7:
        host_groups();
        break;
    case 8:
        m.dry = m.self ? m.dry : m.hook && !sim_choose(2);
        break;
    case 9:
        m.refusing = m.resume && !sim_choose(2);
        break;
    case 10:
        host_holds();
        break;
    default:
        serve();
    }
}

static void act(void)
{
    uint32_t n = 1 + sim_choose(3);

    if (!m.client_count || sim_choose(8) == 0)
        client_new();
    if (sim_choose(16) == 0)
        liar_comes();
    for (; n > 0; n--) {
        if (sim_choose(3) == 0)
            host_acts();
        else
            client_acts(&m.clients[sim_choose((uint32_t)m.client_count)]);
    }
}

/* ---- what must be true after a turn ------------------------------------- */

static void check_sess(struct sess *s)
{
    int state = rt_state(m.loop, s->s);

    if (s->ended && s->state) {
        if (s->grace-- <= 0)
            sim_fault("session %d was ended, on_close did not come", s->id);
        return;
    }
    if (s->state == RT_AWAY && !m.short_of && /* else: back, untold */
        rt_now(m.loop) > s->away_at + (uint64_t)m.window_ms + 100)
        sim_fault("session %d has been away for too long", s->id);
    if (state == (s->state ? s->state : RT_EGONE)) {
        s->pending = 0;
        return;
    }
    if (s->pending++ || !s->state || s->state == RT_AWAY)
        sim_fault("session %d is in state %d, not %d", s->id, state, s->state);
}

static void check_all(void)
{
    size_t most = HEAP_LOOP;
    struct sess *s;

    for (s = m.sess; s < m.sess + m.sess_count; s++) {
        check_sess(s);
        most += s->state ? HEAP_SESSION : 0;
    }
    most += (size_t)m.client_count * HEAP_SESSION;
    most += (size_t)sim_streams() * HEAP_LINE;
    if (sim_heap() > most)
        sim_fault("heap of %zu bytes, %zu are expected", sim_heap(), most);
}

/* ---- a world ------------------------------------------------------------ */

static void pump(void)
{
    struct line *l;
    int i;

    for (i = 0; i < m.client_count; i++) {
        if (m.clients[i].dialled)
            relay_accept(&m.clients[i]);
    }
    for (l = m.lines; l < m.lines + m.line_count; l++) {
        if (!l->front && !line_peer(l) && !l->client && l->liar <= 0)
            continue;
        if (m.settling || l->ghost == READS)
            line_pump(l);
        else if (l->ghost == OWNED ? sim_choose(8) : !sim_choose(4))
            line_pump(l);
        else if (l->ghost != OWNED && !sim_choose(64))
            line_close(l);
    }
}

static void poll_once(uint64_t ms)
{
    int answer, most = m.far == m.loop ? -1 : rt_loop_timeout(m.far);

    if (most >= 0 && (uint64_t)most < ms)
        ms = (uint64_t)most; /* only the server's loop waits */
    m.turning = 1;
    answer = rt_poll(m.loop, (int)ms);
    if (answer >= 0 && m.far != m.loop)
        answer = rt_poll(m.far, 0);
    m.turning = 0;
    if (answer < 0)
        sim_fault("rt_poll: %d", answer);
    check_all();
    if (!m.short_of) /* else some may be refused */
        census(m.fds, m.loop, m.far, m.turns++);
}

/* In a calm world it lasts so long, however often that wakes the loop. */
static void turn(int ms)
{
    uint64_t end = sim_now() + (uint64_t)ms;

    sim_step(ms);
    pump();
    do
        poll_once(end - sim_now());
    while (m.calm && sim_now() < end && !sim_faults());
}

static void *on_realloc(void *user, void *p, size_t old, size_t now)
{
    if (m.weak && m.turning && now > old && sim_choose(m.weak) == 1) {
        sim_note("no memory for %zu bytes", now);
        return NULL;
    }
    return sim_realloc(user, p, old, now);
}

static int on_random(void *user, void *out, size_t n)
{
    uint8_t *p = out;

    (void)user;
    if (m.dry)
        return -1;
    for (; n > 0; n--) {
        m.random = m.random * UINT64_C(6364136223846793005) + 1;
        *p++ = (uint8_t)(m.random >> 56);
    }
    return 0;
}

static const rt_handler server_handler = {.open = on_open,
                                          .message = on_message,
                                          .away = on_away,
                                          .back = on_back,
                                          .close = on_close};

static int listens(const char *url, int framing)
{
    rt_listen_opts o = {.on = server_handler, .framing = framing};

    o.on.resume = m.resume ? on_resume : NULL;
    o.resume_ms = m.window_ms;
    o.soft_mark = m.hard / 4;
    o.hard_mark = m.hard;
    return rt_listen(m.loop, url, &o).id != 0;
}

static int world_open(int backend)
{
    static const int windows[] = {300, 5000, 60000};
    rt_loop_opts o = {.backend = backend, .realloc = on_realloc, .log = on_log};
    rt_group_opts go = {.event = on_presence};

    m.window_ms = windows[sim_choose(3)];
    m.hard = sim_choose(2) ? 8000 : 200000;
    m.policy = sim_choose(4) ? RT_BIND_NEWEST : RT_BIND_REFUSE;
    m.hook = !sim_choose(2) && !m.calm;
    m.resume = !sim_choose(2);
    m.short_of = sim_choose(4) || m.calm ? 0 : 20 + sim_choose(200);
    o.bind_policy = m.policy;
    o.random = m.hook ? on_random : NULL;
    m.loop = m.far = rt_loop_new(&o);
    if (sim_choose(2))
        m.far = rt_loop_new(&o);
    if (!m.loop || !m.far)
        return 0;
    m.group = rt_group_open(m.loop, "all", &go);
    return listens("ws://127.0.0.1:9000", 0) &&
           listens("tcp://127.0.0.1:9001", RT_RTNET1) && m.group.id;
}

static void live(void)
{
    static const int waits[] = {0, 0, 0, 1, 20, 200, 600, 3000};
    uint32_t steps = 20 + sim_choose(40);

    while (steps-- > 0 && !sim_over()) {
        act();
        turn(waits[sim_choose(8)]);
    }
}

/* So long, however many turns it takes. */
static void rest(uint64_t ms)
{
    uint64_t until = sim_now() + ms;

    while (sim_now() < until && !sim_over())
        turn(until - sim_now() < 100 ? (int)(until - sim_now()) : 100);
}

/* What is still missing for this client; NULL: nothing. */
static const char *misses(const struct client *c)
{
    const struct sess *s = c->s;

    if (c->over || (c->dialled && c->bye))
        return NULL;
    if (!s || c->phase != TALKING)
        return "its session";
    if (!s->state && !c->dialled)
        return "its end";
    if (s->up.got != s->up.m.len)
        return "that it is heard";
    return s->down.got == s->down.m.len ? NULL : "messages";
}

static const struct client *unsettled(void)
{
    int i;

    for (i = 0; i < m.client_count; i++) {
        if (misses(&m.clients[i]))
            return &m.clients[i];
    }
    return NULL;
}

static void calm_down(void)
{
    struct line *l;

    struct sess *s;

    m.settling = 1;
    m.weak = 0;
    m.dry = m.refusing = 0;
    for (s = m.sess; s < m.sess + m.sess_count; s++)
        rt_read(m.loop, s->s, 1);
    for (l = m.lines; l < m.lines + m.line_count; l++) {
        if (l->ghost != OWNED) {
            line_close(l);
            continue;
        }
        line_stall(l, 0);
        if (line_peer(l) && !l->front)
            sim_peer_window(line_peer(l), 65536);
    }
}

/* Who is away comes back, and all that is under way arrives. */
static void settle(void)
{
    const struct client *c;
    int i, k;

    for (i = 0; i < 2000 && !sim_over() && (i < 3 || unsettled()); i++) {
        for (k = 0; k < m.client_count; k++) {
            if (!m.clients[k].over && !m.clients[k].dialled &&
                !m.clients[k].line)
                come_as_script(&m.clients[k]);
        }
        turn(i < 100 ? 20 : 1000);
    }
    c = unsettled();
    if (c && !sim_over())
        sim_fault("client %d misses %s, session %d: %u of %zu, %u of %zu",
                  c->id, misses(c), c->s ? c->s->id : -1,
                  c->s ? c->s->down.got : 0, c->s ? c->s->down.m.len : 0,
                  c->s ? c->s->up.got : 0, c->s ? c->s->up.m.len : 0);
}

/* All that lives says one last word each way, which must be heard. */
static void last_words(void)
{
    int i;

    for (i = 0; i < m.client_count && !sim_over(); i++) {
        if (m.clients[i].over || m.clients[i].bye || !m.clients[i].s)
            continue;
        serve_one(m.clients[i].s, message_new('R', 0, 10));
        client_speaks(&m.clients[i]);
    }
    settle();
    rest(1500); /* for acknowledgements, and on_writable */
    settle();
    for (i = 0; i < m.client_count && !sim_over(); i++)
        client_ack(&m.clients[i]);
}

static void check_keys(const struct stream *d, const char *what, int id)
{
    int k;

    for (k = 0; k < KEYS; k++) {
        if (d->key_got[k] != d->key_sent[k])
            sim_fault("%s %d: key %d is %u, not %u", what, id, k, d->key_got[k],
                      d->key_sent[k]);
    }
}

static void check_end(void)
{
    struct client *c;
    struct sess *s;
    int n = 0;

    for (c = m.clients; c < m.clients + m.client_count; c++) {
        if (c->over || c->bye || !c->s)
            continue;
        check_keys(&c->s->down, "client", c->id);
        check_keys(&c->s->up, "server", c->s->id);
        n += c->dialled;
        if (c->full)
            sim_fault("client %d was full, and never told of room", c->id);
    }
    for (s = m.sess; s < m.sess + m.sess_count; s++) {
        n += s->state == RT_OPEN;
        if (!s->absent && !m.short_of &&
            s->present != (s->member ? s->state == RT_AWAY ? 2 : 1 : 0))
            sim_fault("session %d: the group says %d", s->id, s->present);
    }
    if (n != sim_streams())
        sim_fault("%d lines are open for %d", sim_streams(), n);
}

static void finish(void)
{
    struct sess *s;
    int i;

    calm_down();
    settle();
    last_words();
    rest(7000); /* who lingers is done by then */
    if (!sim_over())
        check_end();
    m.whole = !sim_over();
    for (s = m.sess; s < m.sess + m.sess_count && !sim_over(); s += 2) {
        if (!lives(s))
            continue;
        s->ended = 4100;
        rt_close(m.loop, s->s, 4100, NULL);
    }
    for (i = 0; i < 2 && !sim_over(); i++)
        turn(0);
}

static void world_free(void)
{
    struct sess *s;
    struct line *l;

    m.freeing = 1;
    if (m.far != m.loop && sim_choose(2))
        rt_loop_free(m.far);
    else
        m.late = m.far != m.loop;
    rt_loop_free(m.loop);
    if (m.late)
        rt_loop_free(m.far);
    for (s = m.sess; s < m.sess + m.sess_count; s++) {
        if (s->state)
            sim_fault("session %d: no on_close", s->id);
    }
    for (l = m.lines; l < m.lines + m.line_count; l++) {
        line_close(l);
        if (l->ws)
            ws_free(l->ws);
        free(l->in.at);
        free(l->out.at);
    }
}

static void weather_of(const sim_world *w, sim_opts *o)
{
    uint64_t seed = w->seed;

    memset(o, 0, sizeof *o);
    o->spin = 2000;
    if (seed % 3 == 0 || w->calm)
        return;
    sim_weather(seed, o);
    o->wall = 20;
    o->tick_ns = 300;
}

static void model_clear(void)
{
    size_t i;

    for (i = 0; !pattern[0] || i < sizeof pattern; i++)
        pattern[i] = (char)('a' + i * 7 % 26);
    m.sess_count = m.client_count = m.line_count = m.spent_count = 0;
    m.serial = 0;
    m.dry = m.refusing = m.freeing = m.settling = m.depth = 0;
    m.whole = m.late = m.turning = m.closing = 0;
    m.weak = 0;
    m.self = m.away_last = NULL;
    m.random = 1;
}

int resume_run(sim_world *w)
{
    sim_opts o;

    model_clear();
    m.calm = w->calm;
    weather_of(w, &o);
    sim_world_begin(w, &o);
    if (!world_open(w->backend))
        sim_fault("the world does not open");
    m.fds = sim_fds();
    m.turns = 0;
    m.weak = m.short_of;
    live();
    if (!sim_over())
        finish();
    world_free();
    return sim_world_end(w, "resume");
}
