/*
 * What the sources of rtnet share: the structs that two files use and the
 * rt__ prototypes.  It is the first include of every source.  Layers, from the
 * top: group.c and session.c, ws.c, rtnet.c; a call goes downward, the only
 * way up are the rt__tell_ functions of session.c, the gate.
 */
#ifndef RTNET_INTERNAL_H
#define RTNET_INTERNAL_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* accept4, pipe2 */
#endif
#if defined(__linux__) && !defined(RT__NO_EPOLL)
#define RT__EPOLL 1
#endif
#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) ||       \
    defined(__OpenBSD__) || defined(__DragonFly__)
#undef RT__KQUEUE /* elsewhere whoever defines it has the calls, too */
#define RT__KQUEUE 1
#endif
#if defined(_WIN32)
#define RT__WINSOCK 1
#ifndef __USE_MINGW_ANSI_STDIO
#define __USE_MINGW_ANSI_STDIO 1 /* an snprintf that keeps to C99 */
#endif
#endif
/* What every processor of the kind has, so that nothing is chosen at run
   time.  The order of bytes in NEON's lanes is that of little-endian ones. */
#if defined(__SSE2__)
#define RT__SSE2 1
#elif defined(__aarch64__) && defined(__ARM_NEON) && !defined(__AARCH64EB__)
#define RT__NEON 1
#endif

#include "rtnet.h"

#include <stddef.h>
#include <string.h>

/* What begins with rt__ is nobody else's, in a shared library, too. */
#if defined(__GNUC__) && !defined(_WIN32) && !defined(__cplusplus)
#pragma GCC visibility push(hidden)
#endif

/* Brings to the cache what is needed soon. */
#if defined(__GNUC__)
#define RT__PREFETCH(p) __builtin_prefetch(p)
#else
#define RT__PREFETCH(p) ((void)(p))
#endif

enum {
    RT__SLOTS = 64,              /* of handles, in one block */
    RT__RECEIVE = 256 * 1024,    /* one recv, so one piece of work */
    RT__BATCH = 1024,            /* events of one wait */
    RT__ACCEPTS = 16,            /* accepts for one event */
    RT__NEWCOMERS = 32,          /* in a turn, of those who can wait */
    RT__ARENA = 64 * 1024,       /* blocks that a turn's replies share */
    RT__ARENA_FRAME = 32 * 1024, /* a larger frame gets a buffer alone */
    RT__LEND = 16 * 1024,        /* messages that are sent on uncopied */
    RT__HEADROOM = 16,           /* before a message, for its next head */
    RT__DIRECT = 32 * 1024,      /* received where they stay, if more is left */
    RT__DIRECT_FROM = 16 * 1024, /* and so much has come */
    RT__EARLY = 32 * 1024,       /* replies that do not wait for others */
    RT__BORROWERS = 8,
    RT__SEND_MAX = 64 * 1024 * 1024, /* one message out, whatever the marks */
    RT__KEYS = 64,                   /* waiting keyed messages of a peer */
    RT__HEADERS = 64,                /* header lines of a request */
    RT__CONTROL = 125,               /* payload of a control frame */
    RT__REASON = 123,                /* of a close, without its code */
    RT__NAME = 255,                  /* of a group or a user id */
    RT__PIECE_COST = 96,             /* of an entry in a send queue */
    RT__CROWD_LEAST = 4,             /* members of a crowd, */
    RT__CROWD_BYTES = 32 * 1024,     /* and what it waits for, at most */
    RT__CODEC_HEAD = 16,             /* what a codec puts before a message */
    RT__RING_COUNT = 128,            /* messages kept for a replay, */
    RT__RING_BYTES = 64 * 1024,      /* and their payload */
    RT__AWAY_MOST = 10000,           /* sessions of a loop that are away */
    RT__PROXY_MOST = 536,            /* bytes of a PROXY protocol header */
    RT__RECORD = 16 * 1024,          /* most that one record of TLS holds */
    RT__CIPHER_AT = 144 * 1024       /* of the inbox: where what is still
                                        sealed is received, behind the room for
                                        what comes of it (and of a record that
                                        began before) */
};

typedef struct rt__conn rt__conn;
typedef struct rt__session rt__session;
typedef struct rt__shake rt__shake;
typedef struct rt__group rt__group;
typedef struct rt__listener rt__listener;
typedef struct rt__apptimer rt__apptimer;
typedef struct rt__tls_conf rt__tls_conf;

/* ---- handles ------------------------------------------------------------ */

/* What a slot holds; the kind of a handle is checked with its generation. */
enum rt__slot_kind {
    RT__FREE = 0,
    RT__SHAKE,
    RT__SESSION,
    RT__GROUP,
    RT__LISTENER,
    RT__TIMER,
    RT__WATCH
};

void *rt__slot_get(rt_loop *loop, uint64_t id, enum rt__slot_kind kind);
enum rt__slot_kind rt__slot_kind(rt_loop *loop, uint64_t id);
uint64_t rt__slot_new(rt_loop *loop, enum rt__slot_kind kind, void *object);
void *rt__slot_at(rt_loop *loop, uint32_t index);
void rt__slot_become(rt_loop *loop, uint64_t id, enum rt__slot_kind kind,
                     void *object);
void rt__slot_free(rt_loop *loop, uint64_t id);
void *rt__slot_next(rt_loop *loop, uint64_t *after, enum rt__slot_kind kind);

/* ---- memory, time, chance, tables, errors ------------------------------- */

void *rt__realloc(rt_loop *loop, void *p, size_t old, size_t now);
void *rt__alloc(rt_loop *loop, size_t size); /* zeroed */
void rt__free(rt_loop *loop, void *p, size_t size);
int rt__grow(rt_loop *loop, void **array, size_t *cap, size_t size);
char *rt__strdup(rt_loop *loop, const char *text);
void rt__strfree(rt_loop *loop, char *text);
uint64_t rt__random(rt_loop *loop);
uint64_t rt__hash(rt_loop *loop, const void *data, size_t len);
uint64_t rt__micros(rt_loop *loop);
uint64_t rt__fail(rt_loop *loop, int error, const char *what,
                  const char *detail);
void rt__log(rt_loop *loop, int level, const char *what, const char *detail);
void rt__drain_reason(rt_loop *loop, char out[32]);

/* A member of a hash table; stands first in its struct. */
typedef struct rt__node {
    struct rt__node *next;
    uint64_t hash;
} rt__node;

typedef struct {
    rt__node **heads;
    size_t size, count;
} rt__table;

rt__node *rt__table_find(const rt__table *table, uint64_t hash);
rt__node *rt__table_more(const rt__node *node);
int rt__table_add(rt_loop *loop, rt__table *table, rt__node *node);
void rt__table_remove(rt__table *table, rt__node *node);
void rt__table_free(rt_loop *loop, rt__table *table);

/* ---- timers and sources ------------------------------------------------- */

/* One entry of the loop's heap; kind says what it is part of. */
enum {
    RT__OF_APP = 1,
    RT__OF_CONN,
    RT__OF_LISTENER,
    RT__OF_FLOW,
    RT__OF_GROUP,
    RT__OF_LOOP
};
typedef struct {
    unsigned int at : 29, kind : 3; /* place in the heap + 1; 0: not in it */
} rt__timer;

/* What the heap itself knows of a timer that is set: sifting touches no object
   but those that move. */
typedef struct {
    uint64_t due;
    rt__timer *timer;
} rt__due;

void rt__timer_set(rt_loop *loop, rt__timer *timer, uint64_t due);
void rt__timer_clear(rt_loop *loop, rt__timer *timer);
uint64_t rt__timer_due(const rt_loop *loop, const rt__timer *timer);
int rt__timer_adopt(rt_loop *loop, rt__timer *timer, unsigned int kind);
void rt__timer_disown(rt_loop *loop, rt__timer *timer);
void rt__timers_stop(rt_loop *loop, rt__session *owner);
void rt__timers_stop_fn(rt_loop *loop, rt__session *owner,
                        void (*fn)(rt_loop *, void *));

/* Something with a descriptor.  gen tells it from an earlier owner of the same
   number, so that a stale event finds nobody. */
enum {
    RT__CONN_SOURCE = 1,
    RT__LISTEN_SOURCE,
    RT__WATCH_SOURCE,
    RT__WAKE,
    RT__REFUSED_SOURCE /* refused, and not yet told so */
};
typedef struct {
    int fd;
    unsigned int gen : 24, kind : 4, interest : 4;
} rt__source;

/* ---- endpoints: what a listener or a dial gives to its sessions --------- */

/* How messages stand on the wire. */
enum rt__wire {
    RT__WS_SERVER = 0,
    RT__WS_CLIENT,
    RT__STREAM, /* 4 bytes of length, then the message */
    RT__RAW     /* bytes, or what a codec makes of them */
};

/* ---- ratelimit.c -------------------------------------------------------- */

/* A ring of `limit` times stands behind it. */
typedef struct {
    uint32_t next, used;
} rt__window;

size_t rt__window_size(uint32_t limit);
uint64_t rt__window_wait(rt__window *w, uint32_t limit, uint64_t interval,
                         uint64_t now);
void rt__window_take(rt__window *w, uint32_t limit, uint64_t now);
uint64_t rt__window_age(rt__window *w, uint32_t limit, uint64_t now);
void rt__window_move(rt__window *to, const rt__window *from, uint32_t limit);
uint64_t rt__window_credit(const rt__window *w, uint32_t slots, uint32_t limit,
                           uint64_t interval, uint64_t then, uint64_t now);

/* Constant size: how full it is, in thousandths, and when that was so. */
typedef struct {
    uint64_t level, at;
} rt__bucket;

uint64_t rt__bucket_wait(const rt__bucket *b, uint32_t rate, uint32_t burst,
                         uint64_t cost, uint64_t now);
void rt__bucket_take(rt__bucket *b, uint32_t rate, uint64_t cost, uint64_t now);
uint64_t rt__bucket_credit(const rt__bucket *b, uint32_t rate, uint64_t then,
                           uint64_t now);

uint32_t rt__retry_draw(rt__bucket *backlog, uint32_t rate, uint64_t now,
                        uint64_t chance);

/* How often each of any number of keys is there now, in a table of fixed size:
   a count-min sketch.  A key is its hash. */
enum { RT__SKETCH_ROWS = 4, RT__SKETCH_SIZE = 32768 };
typedef struct {
    uint32_t live;  /* how many are in it, */
    uint32_t stuck; /* and whether a counter of it has come to its end */
    uint16_t cell[RT__SKETCH_ROWS][RT__SKETCH_SIZE];
} rt__sketch;

uint32_t rt__sketch_count(const rt__sketch *s, uint64_t hash);
void rt__sketch_add(rt__sketch *s, uint64_t hash);
void rt__sketch_remove(rt__sketch *s, uint64_t hash);

/* ---- refusals ----------------------------------------------------------- */

/* Why a connection or a request was refused. */
enum rt__refusal {
    RT__REFUSED_RATE,        /* accept_rate */
    RT__REFUSED_ADDRESS,     /* max_per_address */
    RT__REFUSED_SESSIONS,    /* max_sessions */
    RT__REFUSED_HANDSHAKES,  /* evicted by a younger one: max_handshakes */
    RT__REFUSED_PROXY,       /* a wrong PROXY protocol header, or none */
    RT__REFUSED_REQUEST,     /* against the rules, or too slow */
    RT__REFUSED_ORIGIN,      /* a page of another host */
    RT__REFUSED_HOST,        /* on_request or the bind policy said no */
    RT__REFUSED_DESCRIPTORS, /* there are none left */
    RT__REFUSED_MEMORY,      /* an allocation failed */
    RT__REFUSED_TLS,         /* a TLS handshake failed, or was too slow */
    RT__REFUSALS             /* their number; also: not refused */
};

void rt__refused(rt_loop *loop, enum rt__refusal why);

/* ---- addresses, and the proxies that speak for others ------------------- */

/* Who is at the other end.  IPv4 inside IPv6 is IPv4. */
enum { RT__NOBODY = 0, RT__LOCAL, RT__IPV4, RT__IPV6 };
typedef struct {
    uint8_t family;
    uint8_t bytes[16]; /* 4 of them for IPv4; the others are 0 */
} rt__addr;

typedef struct {
    rt__addr addr;
    uint8_t bits; /* so many of them have to agree */
} rt__net;

int rt__addr_read(const char *text, size_t n, rt__addr *a);
void rt__addr_text(const rt__addr *a, char out[46]);
int rt__net_read(const char *text, size_t n, rt__net *net);
int rt__net_has(const rt__net *net, const rt__addr *a);
ptrdiff_t rt__proxy_read(const uint8_t *p, size_t n, rt__addr *source);

/* A resolved copy of the options, shared by all that came through it.  Limits
   are finite here: RT_OFF became the greatest value. */
typedef struct rt__ep {
    uint32_t refs;
    enum rt__wire wire;
    rt_handler on;
    void *user;
    char *origins;
    uint32_t max_message, max_fragments, max_body, max_header;
    uint32_t max_handshakes, shake_count;
    uint32_t handshake_ms, assembly_ms, ping_ms, dead_pings, close_ms;
    uint32_t soft_mark, hard_mark;
    uint32_t rate_limit, rate_ms; /* rates: 0: no limit */
    uint32_t message_rate, message_burst, byte_rate, byte_burst;
    uint32_t control_rate;
    uint32_t bind_ms; /* 0: for ever */
    rt_filter filter[8];
    uint8_t limited; /* messages are, by any of the rates */
    uint8_t rate_over;
    uint8_t typed;      /* a stream that speaks rtnet.1 */
    uint32_t resume_ms; /* how long a session may be away; 0: not at all */
    const rt_codec *codec;
    rt__tls_conf *tls;      /* NULL: plain; once it is set never again */
    struct rt__dial *dial;  /* where to, for a dialled session; else NULL */
    rt__listener *listener; /* NULL: it is gone, or this is a dial's */
    uint64_t id;            /* of that listener, also when it is gone */
    uint32_t accept_rate, accept_burst, max_per_address; /* 0: no limit */
    rt__bucket arrivals; /* those that were let in */
    rt__bucket backlog;  /* those that were refused and will come again */
    rt__net *proxies;
    uint32_t proxy_count;
    uint8_t proxy_protocol;
} rt__ep;

/* Where a dialled session goes, and what it asks for there. */
typedef struct rt__dial {
    char *host;                /* as in the url; for the resolve hook */
    char *authority;           /* host:port, as the Host header says it */
    char *path;                /* with the query; or of a local socket */
    char *protocols, *headers; /* "" when there are none */
    int port, local, stream;
    uint8_t resume; /* speaks rtnet.1 and comes back by itself */
    uint32_t connect_ms, tries, ping_ms;
    struct rt__session *heir; /* the new session, where the old one is lost */
    char token[23], who[23];  /* of the session; "" while there is none */
    uint64_t attempt;         /* with this token */
    uint32_t retry_ms;        /* what the server asked for, and 1; 0: nothing */
    char key[25];             /* Sec-WebSocket-Key of the present attempt */
} rt__dial;

void rt__ep_release(rt_loop *loop, rt__ep *ep);
int rt__trusted(const rt__ep *ep, const rt__addr *a);
int rt__negative(const int *numbers, size_t n);
uint32_t rt__retry_ms(rt_loop *loop, rt__ep *ep);

/* ---- output ------------------------------------------------------------- */

/* Bytes that several may hold; they follow the struct. */
typedef struct {
    uint32_t refs, len, cap;
    uint8_t size_class; /* of the pool it goes back to */
    uint8_t arena;      /* a turn's shared block: not to be held longer */
    uint8_t headroom;   /* so many bytes before the first one */
    uint8_t aside;      /* a codec's beat or farewell: no message */
} rt__buf;

static inline uint8_t *rt__buf_data(rt__buf *b)
{
    return (uint8_t *)(b + 1) + b->headroom;
}

rt__buf *rt__buf_new(rt_loop *loop, size_t cap);
rt__buf *rt__buf_kept(rt_loop *loop, size_t cap);
rt__buf *rt__buf_copy(rt_loop *loop, const void *data, size_t len);
void rt__buf_release(rt_loop *loop, rt__buf *b);

/* Part of a buffer that waits to be written. */
typedef struct {
    rt__buf *buf;
    uint32_t off, len;
} rt__piece;

/* A droppable (key 0) or keyed message: written when no reliable one waits. */
typedef struct {
    rt__piece piece;
    uint32_t key;
} rt__loose;

/* What waits to be written to one peer; exists only while something does. */
typedef struct rt__out {
    struct rt__out *next; /* in the loop's list of what to flush */
    rt__conn *conn;
    rt__piece *q; /* reliable and control frames, in order */
    uint32_t head, count, cap;
    rt__loose *loose;
    uint32_t loose_count, loose_cap;
    rt__buf *pong;        /* the latest, while the peer does not read */
    uint64_t bytes;       /* in q and loose */
    uint64_t lifted;      /* of what that costs, beyond the hard mark */
    uint32_t messages;    /* reliable ones in q whose last byte is unsent */
    uint32_t tightened;   /* loose ones among them, the last of all */
    uint32_t frame_left;  /* of a frame whose first byte is sent */
    uint8_t dirty;        /* is in the loop's list */
    uint8_t blocked;      /* the socket is full: waits for its writable */
    uint8_t was_high;     /* rt_send said 1: on_writable is owed */
    uint8_t frame_counts; /* the frame of frame_left is a reliable one */
    rt__piece own[2];
} rt__out;

/* The message that is being told, while it may be sent on from where it lies: a
   long one in a buffer, with room for a head before it. */
typedef struct {
    rt__buf *buf; /* NULL: there is none */
    uint8_t *data;
    size_t len, room;
    size_t head_len; /* of the head that stands there already */
} rt__lent;

void rt__lend(rt_loop *loop, rt__buf *buf, uint8_t *data, size_t len,
              size_t room);
void rt__lend_over(rt_loop *loop);
int rt__borrow(rt_loop *loop, rt__conn *c, const void *data, size_t len,
               const uint8_t *head, size_t head_len, rt__piece *piece);

enum rt__lane { RT__RELIABLE, RT__DROPPABLE, RT__KEYED };

int rt__out_open(rt_loop *loop, rt__conn *c);
int rt__out_room(rt__conn *c, enum rt__lane lane, uint32_t key, size_t size);
uint8_t *rt__out_reserve(rt_loop *loop, rt__conn *c, size_t size,
                         rt__piece *piece);
uint8_t *rt__out_append(rt_loop *loop, rt__conn *c, size_t size);
int rt__out_put(rt_loop *loop, rt__conn *c, rt__piece piece, enum rt__lane lane,
                uint32_t key);
int rt__out_control(rt_loop *loop, rt__conn *c, const void *data, size_t len);
int rt__out_aside(rt_loop *loop, rt__conn *c, rt__piece piece);
int rt__out_packet(rt_loop *loop, rt__conn *c, const void *data, size_t len);
int rt__out_pong(rt_loop *loop, rt__conn *c, const void *data, size_t len);
void rt__out_tighten(rt_loop *loop, rt__conn *c);
uint32_t rt__out_unsent(const rt__out *o);
uint32_t rt__out_unbegun(const rt__out *o);
void rt__out_dirty(rt_loop *loop, rt__conn *c);
int rt__out_has_key(const rt__out *o, uint32_t key);
void rt__out_forget(rt_loop *loop, rt__out *o, uint32_t key);
void rt__out_abandon(rt_loop *loop, rt__conn *c);
void rt__out_discard(rt_loop *loop, rt__conn *c);
int rt__out_status(rt__conn *c);
void rt__out_lift(rt_loop *loop, rt__conn *c, int on);
void rt__conn_flush(rt_loop *loop, rt__conn *c);
int rt__conn_queue(rt_loop *loop, rt__conn *c, rt__piece piece,
                   uint32_t messages);
void rt__conn_write(rt_loop *loop, rt__conn *c, rt__piece piece,
                    uint32_t messages);

/* ---- connections -------------------------------------------------------- */

enum rt__conn_state {
    RT__RESOLVING = 1, /* dialled: the host looks the name up */
    RT__CONNECTING,    /* dialled: connect is under way */
    RT__PROXIED,       /* accepted: a PROXY protocol header is awaited */
    RT__SECURING,      /* TLS shakes hands */
    RT__SHAKING,       /* HTTP */
    RT__GREETING,      /* rtnet.1: h or w is awaited */
    RT__LIVE,          /* carries a session */
    RT__FAREWELL,      /* our close is queued or sent: the peer's is awaited */
    RT__FINISHING,     /* nothing more to say: flush, then close */
    RT__DRAINING,      /* our half is shut: what comes is thrown away */
    RT__DEAD           /* freed at the end of the turn */
};

/* Why nothing is read from a connection. */
enum rt__hold {
    RT__HOLD_APP = 1,  /* rt_read said so */
    RT__HOLD_HTTP = 2, /* the answers are not taken */
    RT__HOLD_RATE = 4, /* until the rate limit allows one more */
    RT__HOLD_END = 8,  /* the peer's half is shut */
    RT__HOLD_HOST = 16 /* the host thinks about a request */
};

/* An incremental check of UTF-8: what must follow, 0: nothing. */
typedef struct {
    uint8_t need;
} rt__utf8;

/* A decoded frame header. */
typedef struct {
    uint64_t len;
    uint8_t mask[4];
    uint8_t fin, op, masked;
} rt__frame;

/* The unfinished input of a connection; exists only while there is some. */
typedef struct {
    uint8_t head[14]; /* of a frame, or of a stream's message */
    uint8_t head_len;
    uint8_t in_frame; /* the head is known, part of its payload is missing */
    uint8_t message;  /* opcode of the message under way, 0: none */
    rt__frame frame;
    uint64_t left; /* payload bytes of the frame still to come */
    rt__utf8 utf8;
    uint32_t fragments;
    uint64_t since; /* when the message under way began */
    rt__buf *data;  /* the message under way */
    uint8_t control[RT__CONTROL];
    uint8_t control_len;
    uint8_t *kept; /* read but not looked at: reading is paused */
    size_t kept_off, kept_len, kept_cap;
} rt__in;

/* ---- what a connection and a session are -------------------------------- */

/* A session's place in one group: slot of the group, index in its members;
   owed: the group's snapshot, after messages were lost. */
typedef struct {
    unsigned int group : 24, owed : 1;
    uint32_t index;
} rt__seat;

/* Those of a session in several groups follow this. */
typedef struct {
    uint32_t count, cap;
} rt__seats;

enum rt__has { RT__KEEP_ONLY = 0, RT__HAS_LIMITS, RT__HAS_MORE };

struct rt__session {
    uint64_t id;    /* 0: there is no session here */
    rt__conn *conn; /* NULL when it has none (any more) */
    void *user;
    union {
        struct rt__keep *keep;     /* NULL: it ends with its connection */
        struct rt__limits *limits; /* that, and what limits remember */
        struct rt__more *more;     /* both, and what few sessions have */
    } is;
    unsigned int state : 3, cause : 4; /* enum rt_states, rt_cause */
    unsigned int todo : 4, queued : 1; /* events to tell; is in a list */
    unsigned int seated : 2;           /* in no group, one, or several (2) */
    unsigned int has : 2;              /* enum rt__has: which of `is` */
    uint16_t code;
    union {
        uint32_t lost; /* messages, of one that cannot resume */
        uint32_t said; /* of rtnet.1: when something last went, ms */
    } of;
    union {
        rt__seat one;
        rt__seats *all;
    } seats;
    rt__session *next; /* of the list that it is queued in */
};

/*
 * A connection, and room for the session that begins on it: mostly they share
 * their lives, and so their memory and their endpoint.  After a resume the
 * session has a connection in another block, and each block stays while one of
 * the two is used.  What an event touches stands together; what only deadlines
 * and handshakes ask for, at the end.  Behind it, where the endpoint counts
 * addresses, stands the hash of this one's in loop->sketch, and last, where it
 * has TLS, a pointer to that.
 */
struct rt__conn {
    rt__source source;      /* first: a source of that kind is cast to this */
    uint8_t state;          /* enum rt__conn_state */
    uint8_t hold;           /* enum rt__hold bits: while any, nothing is read */
    unsigned int used : 1;  /* 0: there is no connection here */
    unsigned int wire : 2;  /* enum rt__wire */
    unsigned int typed : 1; /* speaks rtnet.1: a type byte comes first */
    unsigned int confirmed : 1;   /* and its first `a` has come */
    unsigned int peer_closed : 1; /* its close frame came */
    unsigned int asked : 1;       /* the last ping's pong has not come */
    unsigned int shaking : 1;     /* of the union below it is the first */
    unsigned int heard_high : 8;
    uint16_t pings; /* unanswered */
    uint16_t crowd; /* waits in it: its number; 0: in none */
    rt__ep *ep;
    rt__session *session;
    rt__in *in;
    rt__out *out;
    uint32_t life;    /* when it last showed that it lives, ms */
    uint32_t heard;   /* when a byte last came, ms: the lower 32 of 40 bits */
    rt__timer timer;  /* its present deadline */
    uint32_t ping_us; /* when the last ping went; its payload */
    rt__session own;
    union {
        struct {
            uint32_t since, count;
        } control;      /* of what is bounded apart */
        rt__conn *next; /* when it is dead: the next of those */
    } of;
    union {
        rt__shake *shake;
        struct {
            uint32_t rtt_us, jitter_us;
        } trip;
    } is;
};

/* The endpoint of a session is that of the connection it began on. */
static inline rt__conn *rt__block_of(const rt__session *s)
{
    return (rt__conn *)((char *)(uintptr_t)s - offsetof(rt__conn, own));
}

static inline rt__ep *rt__ep_of(const rt__session *s)
{
    return rt__block_of(s)->ep;
}

static inline rt__shake *rt__shake_of(const rt__conn *c)
{
    return c->shaking ? c->is.shake : NULL;
}

void rt__conn_lost(rt_loop *loop, rt__conn *c, int code, int cause,
                   const char *reason);
void rt__conn_kill(rt_loop *loop, rt__conn *c);
rt__conn *rt__block_new(rt_loop *loop, rt__ep *ep);
void rt__block_settle(rt_loop *loop, rt__conn *c);
int rt__conn_from(rt_loop *loop, rt__conn *c, const rt__addr *a);
void rt__conn_finish(rt_loop *loop, rt__conn *c);
void rt__conn_finish_soon(rt_loop *loop, rt__conn *c);
void rt__conn_interest(rt_loop *loop, rt__conn *c);
void rt__conn_due(rt_loop *loop, rt__conn *c, uint64_t due);
void rt__conn_wake(rt_loop *loop, rt__conn *c);
void rt__conn_bye(rt_loop *loop, rt__conn *c, int code, const char *reason);
void rt__conn_violation(rt_loop *loop, rt__conn *c, int code, int cause,
                        const char *reason);
void rt__conn_opened(rt_loop *loop, rt__conn *c);
rt__in *rt__in_open(rt_loop *loop, rt__conn *c);
void rt__in_settle(rt_loop *loop, rt__conn *c);
void rt__conn_input(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n);
int rt__in_keep(rt_loop *loop, rt__conn *c, const uint8_t *p, size_t n);
void rt__conn_lives(rt_loop *loop, rt__conn *c);
int rt__control_in(rt_loop *loop, rt__conn *c);
uint8_t *rt__in_room(rt_loop *loop, rt__conn *c, size_t n, uint64_t expected);
rt__buf *rt__in_take(rt_loop *loop, rt__conn *c);
void rt__in_began(rt_loop *loop, rt__conn *c);

/* ---- tls.c -------------------------------------------------------------- */

/* What the others see of a connection's TLS. */
typedef struct rt__tls {
    rt__buf *rest;      /* sealed and not taken by the socket; NULL: nothing */
    uint32_t rest_off;  /* so much of it was taken since */
    uint32_t messages;  /* reliable ones that end in it */
    uint8_t ended;      /* the peer's close_notify came */
    uint8_t distrusted; /* the peer is not whom its certificate should name */
    uint8_t muted;      /* nothing is opened or sealed any more */
    char why[100];      /* what failed; "": nothing */
} rt__tls;

/* Of whom the options are. */
enum { RT__TLS_SERVER = 1, RT__TLS_HTTP = 2, RT__TLS_AGAIN = 4 };

ptrdiff_t rt__conn_send(rt_loop *loop, rt__conn *c, const void *data, size_t n);

#if defined(RT_TLS_MBEDTLS)
#define RT__TLS 1
#else
#define RT__TLS 0
#endif

#if RT__TLS
rt__tls_conf *rt__tls_conf_new(rt_loop *loop, const char *what,
                               const rt_tls_opts *o, int of, const char *host,
                               void *user);
void rt__tls_conf_release(rt_loop *loop, rt__tls_conf *conf);
int rt__tls_open(rt_loop *loop, rt__conn *c);
void rt__tls_free(rt_loop *loop, rt__conn *c);
void rt__tls_feed(rt__conn *c, const uint8_t *p, size_t n);
int rt__tls_shake(rt_loop *loop, rt__conn *c);
ptrdiff_t rt__tls_read(rt_loop *loop, rt__conn *c, uint8_t *to, size_t room);
ptrdiff_t rt__tls_write(rt_loop *loop, rt__conn *c, const void *data, size_t n);
int rt__tls_flush(rt_loop *loop, rt__conn *c);
void rt__tls_bye(rt_loop *loop, rt__conn *c);
#else
static inline rt__tls_conf *rt__tls_conf_new(rt_loop *loop, const char *what,
                                             const rt_tls_opts *o, int of,
                                             const char *host, void *user)
{
    (void)o, (void)of, (void)host, (void)user;
    rt__fail(loop, RT_EINVAL, what, "built without TLS");
    return NULL;
}
static inline void rt__tls_conf_release(rt_loop *loop, rt__tls_conf *conf)
{
    (void)loop, (void)conf;
}
static inline int rt__tls_open(rt_loop *loop, rt__conn *c)
{
    (void)loop, (void)c;
    return RT_EINVAL;
}
static inline void rt__tls_free(rt_loop *loop, rt__conn *c)
{
    (void)loop, (void)c;
}
static inline void rt__tls_feed(rt__conn *c, const uint8_t *p, size_t n)
{
    (void)c, (void)p, (void)n;
}
static inline int rt__tls_shake(rt_loop *loop, rt__conn *c)
{
    (void)loop, (void)c;
    return RT_EINVAL;
}
static inline ptrdiff_t rt__tls_read(rt_loop *loop, rt__conn *c, uint8_t *to,
                                     size_t room)
{
    (void)loop, (void)c, (void)to, (void)room;
    return 0;
}
static inline ptrdiff_t rt__tls_write(rt_loop *loop, rt__conn *c,
                                      const void *data, size_t n)
{
    (void)loop, (void)c, (void)data, (void)n;
    return RT_EINVAL;
}
static inline int rt__tls_flush(rt_loop *loop, rt__conn *c)
{
    (void)loop, (void)c;
    return 0;
}
static inline void rt__tls_bye(rt_loop *loop, rt__conn *c)
{
    (void)loop, (void)c;
}
#endif

/* Without TLS all of these are constants, and what hangs on them is left out
   by the compiler. */
static inline int rt__tls_on(const rt__ep *ep)
{
    return RT__TLS && ep->tls;
}

static inline rt__tls **rt__tls_at(const rt__conn *c)
{
    size_t before = c->ep->max_per_address ? sizeof(uint64_t) : 0;
    return (rt__tls **)((char *)(uintptr_t)(c + 1) + before);
}

static inline rt__tls *rt__tls_of(const rt__conn *c)
{
    return rt__tls_on(c->ep) ? *rt__tls_at(c) : NULL;
}

static inline int rt__tls_rest(const rt__conn *c)
{
    const rt__tls *t = rt__tls_of(c);
    return t && t->rest;
}

static inline int rt__tls_muted(const rt__conn *c)
{
    const rt__tls *t = rt__tls_of(c);
    return t && t->muted;
}

/* The peer said that nothing more comes. */
static inline int rt__tls_ended(const rt__conn *c)
{
    const rt__tls *t = rt__tls_of(c);
    return t && t->ended;
}

/* ---- ws.c --------------------------------------------------------------- */

int rt__utf8_feed(rt__utf8 *u, const uint8_t *p, size_t n);
int rt__utf8_valid(const void *p, size_t n);
int rt__utf8_feed_words(rt__utf8 *u, const uint8_t *p, size_t n);
size_t rt__mask(uint8_t *out, const uint8_t *in, size_t n,
                const uint8_t mask[4], size_t phase);
size_t rt__mask_words(uint8_t *out, const uint8_t *in, size_t n,
                      const uint8_t mask[4], size_t phase);
int rt__frame_read(const uint8_t *p, size_t n, int masked, rt__frame *f);
size_t rt__frame_write(uint8_t *out, int op, size_t len, const uint8_t *mask);
int rt__close_code_valid(int code);
void rt__sha1(const void *data, size_t len, uint8_t out[20]);
void rt__base64(const uint8_t *in, size_t n, char *out);
void rt__accept_key(const char *key, char out[29]);

int rt__visible(const char *text);
int rt__token_list(const char *text);
int rt__header_lines(const char *text);
rt__shake *rt__shake_new(rt_loop *loop, rt__conn *c);
void rt__shake_from(rt__shake *shake, const rt__addr *peer);
const rt__addr *rt__shake_peer(const rt__shake *shake);
void rt__shake_detach(rt_loop *loop, rt__conn *c);
void rt__shake_strip(rt_loop *loop, rt__conn *c);
void rt__shake_free(rt_loop *loop, rt__conn *c);
const char *rt__shake_uid(const rt__shake *shake);
uint64_t rt__shake_id(rt_loop *loop, rt__shake *shake);
rt__session *rt__shake_session(rt_loop *loop, rt__shake *shake);
enum rt__refusal rt__shake_lack(const rt__shake *shake);
rt__conn *rt__shake_conn(const rt__shake *shake);
void rt__shake_input(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n);
void rt__shake_drained(rt_loop *loop, rt__conn *c);
void rt__shake_woken(rt_loop *loop, rt__conn *c);
void rt__shake_deadline(rt_loop *loop, rt__conn *c);
void rt__shake_ask(rt_loop *loop, rt__conn *c);
void rt__shake_evict(rt_loop *loop, const rt__ep *ep);
void rt__shakes_end(rt_loop *loop);
void rt__ws_input(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n);
uint8_t *rt__ws_room(rt_loop *loop, rt__conn *c, size_t *n);
void rt__ws_filled(rt_loop *loop, rt__conn *c, size_t room, size_t n);
int rt__ws_control(rt_loop *loop, rt__conn *c, int op, const void *data,
                   size_t len);
int rt__ping_in(rt_loop *loop, rt__conn *c, const uint8_t *data, size_t n);
int rt__pong_in(rt_loop *loop, rt__conn *c, const uint8_t *data, size_t n);
int rt__ws_close(rt_loop *loop, rt__conn *c, int code, const char *reason);

/* ---- session.c: sessions, and the gate ---------------------------------- */

/* The secret name of a session that can resume; found by its keyed hash. */
typedef struct {
    rt__node node;
    rt__session *session; /* NULL: the token is void */
    uint64_t attempt;     /* the greatest `try` accepted with it */
    uint8_t bytes[16];
} rt__token;

/* The newest value of a key, until it is known to have arrived. */
typedef struct {
    rt__piece piece;
    uint32_t key;
    uint8_t written;
    uint64_t after; /* the last number taken when it was written */
} rt__held;

/* What is under way between two ends that can resume; while all is known to
   have arrived there is none. */
typedef struct rt__flow {
    rt__timer timer; /* away: the window (server) or the next try (client) */
    rt__session *session;
    struct rt__flow *away_prev, *away_next; /* unbound ones, longest first */
    uint64_t lost; /* messages of which nobody was told yet */
    uint8_t is_away, away_listed, told_away, ack_owed, was_full;
    enum rt__wire wire; /* how the pieces of the ring are framed, */
    uint8_t typed;      /* and whether a type byte stands in them */
    rt__token previous;
    uint64_t acked, top;
    uint64_t known;  /* acknowledged before a gap that is not yet told */
    rt__piece *ring; /* kept: the last `count` numbers */
    uint32_t head, count, cap;
    uint32_t taken;              /* of them, from the oldest on */
    uint64_t bytes, taken_bytes; /* payload in the ring */
    rt__held *held;
    uint32_t held_count, held_cap;
    rt__buf *chunk; /* messages are framed one behind the other here */
    uint32_t unacked, unacked_bytes; /* received and not acknowledged yet */
    uint64_t ack_due;
    rt__window *resumes; /* when it came back lately */
} rt__flow;

/* What makes a session one that can resume. */
typedef struct rt__keep {
    rt__token token;
    uint64_t n;        /* the last number given to a message out */
    uint64_t received; /* how many messages came in */
    rt__flow *flow;
} rt__keep;

/* What the limits of a session remember; the credits are what may pass besides
   after a resume, by enum rt_limit - 1. */
typedef struct rt__limits {
    rt__keep *keep; /* where there is no rt__more; see rt__keep_of */
    rt__window *window;
    uint32_t slots; /* of the window, at most rate_limit */
    uint32_t credit[3];
    rt__bucket messages, bytes;
    rt__buf *late; /* a message that was read and waits until it may pass, */
    int late_kind;
} rt__limits;

/* A user id and the sessions bound to it, the newest first. */
typedef struct rt__user {
    rt__node node;
    rt__session *first;
    int count;
    char *uid;
} rt__user;

enum {
    RT__TODO_WRITABLE = 1,
    RT__TODO_RESOLVE = 2,
    RT__TODO_AWAY = 4,
    RT__TODO_BACK = 8
};

/* What only few sessions have; it is there while one of them is. */
typedef struct rt__more {
    rt__apptimer *timers; /* those it owns */
    rt__user *bound;
    rt__session *next_bound; /* an older session with the same user id */
    rt__limits *limits;
    rt__keep *keep;
    char *uid; /* stays after it is unbound, until on_close */
    char *reason;
    uint64_t window_ms; /* of rt_keep: how long it may be away */
} rt__more;

static inline rt__more *rt__more_of(const rt__session *s)
{
    return s->has == RT__HAS_MORE ? s->is.more : NULL;
}

static inline rt__keep *rt__keep_of(const rt__session *s)
{
    if (s->has == RT__KEEP_ONLY) /* nearly always */
        return s->is.keep;
    return s->has == RT__HAS_MORE ? s->is.more->keep : s->is.limits->keep;
}

/* A list of sessions, first in first out. */
typedef struct {
    rt__session *first, *last;
} rt__queue;

/* One message to many: framed at most once for each wire. */
typedef struct {
    int kind;
    const void *data;
    size_t len;
    uint64_t owner; /* whose messages may share a buffer: a group, or 0 */
    rt__piece form[4];
} rt__cast;

/* What sending to one did, beside the errors. */
enum { RT__TAKEN = 0, RT__HIGH = 1, RT__SKIPPED = 2 };

rt__session *rt__session_new(rt_loop *loop, rt__ep *ep, rt__conn *c,
                             uint64_t id);
rt__more *rt__more_open(rt_loop *loop, rt__session *s);
void rt__more_settle(rt_loop *loop, rt__session *s);
int rt__sessions_full(const rt_loop *loop);
rt__session *rt__session_get(rt_loop *loop, uint64_t id, int *error);
int rt__session_end(rt_loop *loop, rt__session *s, int code, int cause,
                    const char *reason);
void rt__session_forget(rt_loop *loop, rt__session *s);
void rt__session_todo(rt_loop *loop, rt__session *s, int what);
int rt__typed_in(rt_loop *loop, rt__conn *c, int op, uint8_t *data, size_t n);
int rt__typed_stream(rt_loop *loop, rt__conn *c, uint8_t *data, size_t n);
int rt__codec_in(rt_loop *loop, rt__conn *c, uint8_t *data, size_t n);
void rt__greet(rt_loop *loop, rt__conn *c);
void rt__greeting_over(rt_loop *loop, rt__conn *c);
int rt__session_lost(rt_loop *loop, rt__conn *c);
int rt__session_left(rt_loop *loop, rt__conn *c, int code, const char *reason);
void rt__flush_begins(rt_loop *loop, rt__conn *c);
void rt__flushed(rt_loop *loop, rt__conn *c);
void rt__typed_due(rt_loop *loop, rt__conn *c);
void rt__flow_due(rt_loop *loop, rt__flow *flow);
int rt__dial_again(rt_loop *loop, rt__session *s);
int rt__session_drop(rt_loop *loop, rt__session *s, int code, int cause,
                     const char *reason);
int rt__keep_open(rt_loop *loop, rt__session *s);
void rt__keep_close(rt_loop *loop, rt__session *s);
int rt__session_released(rt_loop *loop, rt__session *s);
void rt__session_late(rt_loop *loop, rt__session *s);
void rt__session_pause(rt_loop *loop, rt__session *s);
/* What a hook of the loop's options is told, in the events phase. */
enum rt__hook {
    RT__GROUP_FIRST,
    RT__GROUP_LAST,
    RT__GROUP_OUT,
    RT__PUSH_MISS,
    RT__GROUP_EVICT
};
int rt__note(rt_loop *loop, enum rt__hook hook, const char *name, int kind,
             const void *data, size_t len);
int rt__note_at(rt_loop *loop, enum rt__hook hook, const char *name,
                rt_position at, int kind, const void *data, size_t len);
struct rt__note;
int rt__note_keep(rt_loop *loop, enum rt__hook hook, const char *name,
                  struct rt__note **kept);
void rt__note_kept(rt_loop *loop, struct rt__note **kept);
void rt__note_forget(rt_loop *loop, struct rt__note *note);
void rt__notes_tell(rt_loop *loop);
void rt__sessions_events(rt_loop *loop);
void rt__sessions_close(rt_loop *loop);
void rt__sessions_reap(rt_loop *loop);
int rt__uid_check(rt_loop *loop, const char *uid);
int rt__bind(rt_loop *loop, rt__session *s, const char *uid);
int rt__send_check(int kind, const void *data, size_t len);
void rt__cast_open(rt__cast *cast, uint64_t owner, int kind, const void *data,
                   size_t len);
int rt__cast_to(rt_loop *loop, rt__cast *cast, rt__session *s);
void rt__cast_close(rt_loop *loop, rt__cast *cast);
int rt__key_waits(const rt__session *s, int key);
void rt__key_forget(rt_loop *loop, rt__session *s, int key);
int rt__told_away(const rt__session *s);
void rt__session_lift(rt_loop *loop, rt__session *s, int on);
int rt__tell_request(rt_loop *loop, rt__conn *c, rt_session handle,
                     const rt_request *request);
int rt__tell_open(rt_loop *loop, rt__session *s);
int rt__tell_message(rt_loop *loop, rt__session *s, int kind, uint8_t *data,
                     size_t len);
int rt__tell_sni(int (*sni)(void *, const char *), void *user,
                 const char *host);
void rt__tell_presence(rt_loop *loop,
                       void (*fn)(rt_loop *, rt_group, rt_session, int),
                       rt_group group, rt_session who, int what);
void rt__tell_drained(rt_loop *loop);
void rt__tell_timer(rt_loop *loop, void (*fn)(rt_loop *, void *), void *arg);
void rt__tell_watch(rt_loop *loop,
                    void (*fn)(rt_loop *, rt_watch, int events, void *),
                    rt_watch handle, int events, void *arg);

/* ---- group.c ------------------------------------------------------------ */

void rt__groups_presence(rt_loop *loop, rt__session *s, int what);
void rt__groups_leave(rt_loop *loop, rt__session *s);
void rt__groups_owe(rt__session *s);
void rt__groups_repay(rt_loop *loop, rt__session *s);
void rt__groups_events(rt_loop *loop);
void rt__groups_free(rt_loop *loop);
int rt__groups_busy(rt_loop *loop);
void rt__group_due(rt_loop *loop, rt__timer *timer);
int rt__crowd_part(rt_loop *loop, rt__conn *c);
void rt__crowd_drop(rt_loop *loop, rt__conn *c);
size_t rt__crowd_unsent(const rt_loop *loop, const rt__conn *c);
void rt__crowds_flush(rt_loop *loop);

/* ---- the loop ----------------------------------------------------------- */

enum { RT__BUCKETS = 16 };

/* Bucket i counts what is at most 2^(first + i), see rtnet.c; the last
   one what is above all. */
typedef struct {
    uint64_t sum, count[RT__BUCKETS + 1];
} rt__histogram;

/* What a host reported of one of its routes. */
typedef struct rt__route {
    rt__node node;
    struct rt__route *next;
    rt__histogram took;
    char name[65];
} rt__route;

typedef struct {
    uint64_t accepted, dialled, posts;
    uint64_t refused_by[RT__REFUSALS];
    uint64_t limited_by[3]; /* enum rt_limit - 1 */
    uint64_t messages_in, messages_out, bytes_in, bytes_out;
    uint64_t resumed, gaps;
    uint64_t presence_lost, groups_closed;
    uint64_t longest_turn_us;
    rt__histogram turns, queues;
    uint64_t closes[23]; /* 1000..1015, 4001..4003, 4501..4504 */
    uint64_t closes_app; /* any other */
} rt__stats;

typedef struct {
    uint64_t key; /* of a source */
    int events;
} rt__ready;

/* How a loop waits. */
typedef struct {
    int (*open)(rt_loop *loop);
    void (*close)(rt_loop *loop);
    int (*set)(rt_loop *loop, rt__source *source, int interest);
    int (*wait)(rt_loop *loop, int timeout_ms); /* fills loop->ready */
} rt__backend;

struct rt_loop {
    rt_loop_opts opts;
    rt__backend backend;
    void *backend_data;
    int backend_fd;
    int pipe[2];      /* posts; a source watches the reading end */
    size_t post_have; /* bytes of one that was read in part */
    uint8_t post_part[16];
#if defined(RT__WINSOCK)
    void *post_lock;   /* who writes; NULL: nobody */
    size_t post_bytes; /* written and not read */
    size_t post_left;  /* of post_rest, which was written in part: its end */
    uint8_t post_rest[16];
#endif
    rt__source wake;
    int spare; /* given up to shed a connection at EMFILE */
    int stop;  /* set by rt_stop, atomically */
    uint8_t in_turn, freeing;
    uint64_t now, last_micros;
    uint64_t went_back; /* the system's clock, in all */
    uint64_t secret[4]; /* keys of the hash and of the random stream */
    uint64_t drawn;
    size_t heap;
    struct rt__slot **slots; /* in blocks of RT__SLOTS */
    size_t slot_blocks;
    uint32_t slot_count, slot_cap, slot_free;
    uint32_t in_use[RT__WATCH + 1]; /* slots of each kind */
    rt__source **by_fd;
    size_t by_fd_cap;
    uint32_t next_gen;
    rt__due *timers;
    uint32_t *timer_seqs; /* equal due: the older first */
    uint32_t timer_count, timer_cap, seq_cap, timer_users, timer_seq;
    rt__ready *ready;
    rt__buf *inbox; /* RT__RECEIVE + 1 bytes, for one recv */
    rt__lent lent;
    rt__conn *borrowers[RT__BORROWERS]; /* of what is in the inbox */
    uint32_t borrower_count;
    uint64_t *wakes; /* sources to look at without an event */
    size_t wake_count, wake_cap;
    rt__buf *arena;
    rt__buf *cast; /* what was sent to several this turn */
    uint64_t cast_owner;
    rt__buf *pool[11]; /* free buffers of 64 bytes .. 64 KiB */
    rt__buf *large;    /* and those above that, */
    size_t pooled, large_kept;
    uint64_t large_used; /* when one was last needed */
    rt__out *out_pool;
    uint32_t out_pooled;
    rt__out *dirty;
    rt__conn *dead;
    rt__shake *shakes_first, *shakes_last;
    uint32_t shake_count;
    rt__sketch *sketch; /* of addresses; NULL until a listener needs it */
    uint32_t conn_count, session_count, accepted_count;
    rt__queue todo, closing, closed;
    rt__table users, groups, tokens;
    rt__flow *away_first, *away_last;
    uint32_t away_count;
    struct rt__presence *presence_first, *presence_last, *presence_spare;
    struct rt__note *notes_first, *notes_last;
    rt__timer drain;      /* paces rt_shutdown */
    uint8_t draining;     /* rt_shutdown was called */
    uint8_t drain_asked;  /* and has not begun yet */
    uint8_t drained_owed; /* it has begun: opts.drained is to be told */
    uint64_t drain_until, drain_at;
    rt__table routes; /* of rt_observe, */
    rt__route *routes_first, *routes_last;
    uint64_t seats; /* memberships of groups */
    rt__group **crowds;
    size_t crowd_count, crowd_cap;
    size_t logs; /* bytes of groups' logs */
    uint64_t history_count, history_bytes, replay_bytes;
    rt__stats stats;
    int error;
    char error_text[256];
};

#if defined(__GNUC__) && !defined(_WIN32) && !defined(__cplusplus)
#pragma GCC visibility pop
#endif

#endif
