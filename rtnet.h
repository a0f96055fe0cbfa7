/*
 * rtnet: the real-time core of a small multiplayer server.  This is a whole
 * server, a chat room; build it with: cc chat.c rtnet.c ws.c session.c
 * group.c ratelimit.c
 *
 *   #include "rtnet.h"
 *   static rt_group room;
 *   static void on_open(rt_loop *l, rt_session s) {
 *       rt_group_join(l, room, s);
 *   }
 *   static void on_message(rt_loop *l, rt_session s, int kind,
 *                          const void *data, size_t len) {
 *       (void)s;
 *       rt_group_send(l, room, kind, data, len);
 *   }
 *   int main(void) {
 *       rt_loop *l = rt_loop_new(NULL);
 *       rt_listen_opts o = {.on = {.open = on_open,
 *                                  .message = on_message}};
 *       room = rt_group_open(l, "room", NULL);
 *       if (!rt_listen(l, "ws://0.0.0.0:9000", &o).id)
 *           return 1;
 *       return rt_run(l);
 *   }
 *
 * The rules of lifetime, which all of this header keeps:
 *
 * 1. A session exists from on_open until its on_close returns.  on_close comes
 *    exactly once for each on_open and is the last call for that session.  (A
 *    dialled session gets exactly one on_close even if it never opened.)
 * 2. rt_close may be called anywhere, any number of times.  It ends the
 *    session: no on_message follows, even for bytes already received; on_close
 *    comes in the closing phase of the same turn, or of the next for what is
 *    closed in that phase.  The connection lingers without a session until what
 *    was sent is flushed and the close answered, for at most close_ms.  rt_drop
 *    loses only the connection.
 * 3. No call runs a callback, except rt_poll, rt_run and rt_loop_free.  So
 *    looping over a group and sending, closing, joining, leaving is safe.
 * 4. Any call except those three may be made inside any callback, on any
 *    object.
 * 5. The data of a message is yours until the callback returns.  What you set
 *    with rt_set_user you free in on_close, where it still answers.
 *
 * Sessions, groups, listeners, timers and watches are handles: values, safe to
 * keep for ever.  A stale one is answered with RT_EGONE and nothing happens.
 * {0} is the handle of nothing.  All times are milliseconds of the monotonic
 * clock unless a name says otherwise; all sizes are bytes.
 *
 * A turn of the loop: wait, posts, sockets, timers, events (open after a
 * deferred accept, writable, presence), closing (on_close), flush, free.  What
 * is sent during a turn leaves at its end in one write per socket (an answer of
 * more than 32 KiB at once).
 *
 * MIT licence, see LICENSE.
 */
#ifndef RTNET_H
#define RTNET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header; rt_version() tells that of the library. */
#define RT_VERSION_MAJOR 0
#define RT_VERSION_MINOR 1
#define RT_VERSION_PATCH 0

/* One event loop.  It belongs to one thread and shares nothing. */
typedef struct rt_loop rt_loop;

/* A conversation with one peer; in on_request, a handshake not yet one. */
typedef struct {
    uint64_t id;
} rt_session;

/* A named set of sessions: a room, a channel. */
typedef struct {
    uint64_t id;
} rt_group;

/* An address that accepts connections. */
typedef struct {
    uint64_t id;
} rt_listener;

/* A timer that was started and has neither run nor been stopped. */
typedef struct {
    uint64_t id;
} rt_timer;

/* A foreign file descriptor that the loop watches. */
typedef struct {
    uint64_t id;
} rt_watch;

/* What the system calls a file: an int on POSIX, a SOCKET on Windows. */
typedef intptr_t rt_fd;

/*
 * Every error once: name, value, text.  Calls return 0 or a count when they
 * did their work, else one of these; they cause no callback then.
 */
#define RT_ERRORS(X)                                                           \
    X(RT_ENOMEM, -1, "out of memory")                                          \
    X(RT_EGONE, -2, "stale handle")                                            \
    X(RT_EFULL, -3, "no room")                                                 \
    X(RT_EINVAL, -4, "invalid argument")                                       \
    X(RT_ESTATE, -5, "not possible in this state")                             \
    X(RT_EBOUND, -6, "already bound")                                          \
    X(RT_EREFUSED, -7, "refused")                                              \
    X(RT_EUTF8, -8, "text is not valid UTF-8")                                 \
    X(RT_ESYS, -9, "system error")                                             \
    X(RT_ETIMEOUT, -10, "timed out")                                           \
    X(RT_EEXIST, -11, "exists already")                                        \
    X(RT_ERANDOM, -12, "the system gives no random bytes")

#define RT_ERROR_ENUM(name, value, text) name = value,
enum rt_errors { RT_ERRORS(RT_ERROR_ENUM) RT_OK = 0 };
#undef RT_ERROR_ENUM

/* Returns the text of an error number; never NULL. */
const char *rt_strerror(int error);

/* Returns the version of the library that was linked, like "0.1.0". */
const char *rt_version(void);

/*
 * What kind of message, and its lane.  RT_TEXT and RT_BINARY alone are
 * reliable: in order, and a stream of them never has a silent hole.
 * RT_DROPPABLE is skipped above the soft mark of a slow peer; rt_latest(key)
 * replaces the unsent message with the same key (0..32767).  Both are written
 * only when no reliable message waits.
 */
enum rt_kind {
    RT_TEXT = 1,
    RT_BINARY = 2,
    RT_DROPPABLE = 0x100,
    RT_NO_HISTORY = 0x200 /* a group does not remember this one */
};
static inline int rt_latest(uint16_t key)
{
    return 0x400 | (key & 0x7fff) << 16;
}

/* For any option: no limit, or off.  (0 always means the default.) */
enum { RT_OFF = -1 };

/* What on_request returns when rt_accept or rt_reply follows later. */
enum { RT_DEFER = -1000 };

/* How a TCP listener frames messages: rt_listen_opts.framing. */
enum rt_framing {
    RT_LENGTH = 0, /* 4 bytes, big-endian length, then the message */
    RT_RTNET1,     /* the resume protocol over TCP */
    RT_RAW,        /* no frames: on_message gets bytes as they come */
    RT_CODEC       /* the host's own: rt_listen_opts.codec */
};

/*
 * Close codes of the library (RFC 6455, 7.4.2, private range).  Clients come
 * back after 1001, 1005, 1006, 1011-1015, 3000-3499 and 4000-4499, and stay
 * away after any other.
 */
enum rt_close_code {
    RT_CLOSE_SLOW = 4001,      /* the send queue was full */
    RT_CLOSE_DEAD = 4002,      /* pings were not answered */
    RT_CLOSE_STALE = 4003,     /* an older attempt to resume */
    RT_CLOSE_REPLACED = 4501,  /* a newer login of the same user */
    RT_CLOSE_KICKED = 4502,    /* rt_kick with code 0 */
    RT_CLOSE_EXPIRED = 4503,   /* no such session any more */
    RT_CLOSE_SUPERSEDED = 4504 /* another connection took the session over */
};

/* Who or what ended a session: rt_end.cause. */
enum rt_cause {
    RT_BY_APP = 1, /* rt_close, rt_drop, rt_kick */
    RT_BY_PEER,    /* the peer closed, or went away */
    RT_BY_LIMIT,   /* a mark or a limit of this library's options */
    RT_BY_TIMEOUT, /* a deadline */
    RT_BY_ERROR,   /* the socket, memory, or a violation of the protocol */
    RT_BY_REPLACE, /* a newer login of the same user id */
    RT_BY_ADOPT,   /* rt_adopt put its connection under another session */
    RT_BY_LOOP     /* rt_loop_free or rt_shutdown */
};

/*
 * A request for an upgrade (upgrade = 1) or for a plain answer (0).  All texts
 * end in a NUL; path is as sent, not decoded; query is without the '?' and ""
 * when there is none.  Valid until the callback returns, after a deferral
 * until it is answered, after an accept until on_open returns.  In a dialled
 * session's on_open it holds the answer's headers; method and path are "".
 */
typedef struct {
    const char *method, *path, *query, *body;
    size_t body_len;
    const char *address; /* of the peer, without its port; "" if unknown */
    int upgrade;
} rt_request;

/*
 * Why a session ended.  code: the close code, 1006 when the line just went,
 * 1005 when the peer gave none.  reason: never NULL; valid until the callback
 * returns.  lost: how many reliable messages had not been handed to the system
 * by then.  (After 1006 these did not arrive, and perhaps more; a connection
 * that lingers may still deliver them.)
 */
typedef struct {
    int code;
    int cause;
    const char *reason;
    uint64_t lost;
} rt_end;

/* What a handler's limit callback is told: which option refused a message. */
enum rt_limit {
    RT_LIMIT_RATE = 1, /* rate_limit */
    RT_LIMIT_MESSAGES, /* message_rate */
    RT_LIMIT_BYTES     /* byte_rate */
};

/* A message on its way to on_message, for a filter.  data may be written to;
   data[len] is a readable 0. */
typedef struct {
    int kind;
    uint8_t *data;
    size_t len;
} rt_message;

/*
 * Looks at a message before on_message does, after the limits: for checks,
 * decryption, logs.  It may change all of it: shorten or rewrite data in
 * place, or point it to memory of its own, which must stay until on_message
 * returns and have one writable byte behind len.  Returns 0: go on with the
 * next filter; 1: the message is dropped; a code that rt_close takes: the
 * session closes with it, RT_BY_APP.  Any other answer, or a message that
 * reaches beyond the one that came: 1011, RT_BY_ERROR.  Any call may be made in
 * it; rt_close ends the chain, too.
 */
typedef int (*rt_filter)(rt_loop *, rt_session, rt_message *);

/* A place in a group's history: offsets count from 1, an epoch is random and
   new whenever the group is. */
typedef struct {
    uint64_t epoch, offset;
} rt_position;

/*
 * The callbacks of a listener or a dialled session; any may be NULL.
 *
 * request  decides on a request.  Return 0: accept an upgrade, 404 for
 *          anything else (426 where an upgrade would be served); 400..599: that
 *          status; RT_DEFER: rt_accept or rt_reply follows within defer_ms.
 *          Ignored if one of those two was called.
 * open     the session is open.
 * message  one whole message.  kind is RT_TEXT or RT_BINARY; data[len] is a
 *          readable 0; data is yours until the callback returns.
 * writable rt_send had returned 1 and the queue is half empty again.
 * away     the session lost its connection and may come back.
 * back     it came back; lost reliable messages will never arrive.
 * close    the session is over; the last call for it.
 * limit    something was refused, see enum rt_limit.
 * resume   0 lets fresh resume the session, else its token counts as unknown.
 */
typedef struct {
    int (*request)(rt_loop *, rt_session, const rt_request *);
    void (*open)(rt_loop *, rt_session);
    void (*message)(rt_loop *, rt_session, int kind, const void *data,
                    size_t len);
    void (*writable)(rt_loop *, rt_session);
    void (*away)(rt_loop *, rt_session);
    void (*back)(rt_loop *, rt_session, uint64_t lost);
    void (*close)(rt_loop *, rt_session, const rt_end *why);
    void (*limit)(rt_loop *, rt_session, int what);
    int (*resume)(rt_loop *, rt_session, rt_session fresh);
} rt_handler;

/*
 * A host's own wire format (RT_CODEC).
 * decode  looks at n bytes: returns the size of the first packet (more than n:
 *         that many are needed), 0 to ask for more, < 0 for garbage; at and
 *         len say where in the packet the message lies, kind what it is.
 * head    writes what stands before a message of len bytes; returns its size.
 * beat    writes a heartbeat; 0 for none.
 * bye     writes a farewell; 0 for none.
 * ctx is passed to each; it must outlive the loop.
 */
typedef struct {
    ptrdiff_t (*decode)(void *ctx, const uint8_t *in, size_t n, size_t *at,
                        size_t *len, int *kind);
    size_t (*head)(void *ctx, uint8_t out[16], int kind, size_t len);
    size_t (*beat)(void *ctx, uint8_t out[64]);
    size_t (*bye)(void *ctx, uint8_t out[256], int code, const char *reason);
    void *ctx;
} rt_codec;

/* Which backend a loop waits with: rt_loop_opts.backend. */
enum rt_backend {
    RT_AUTO = 0, /* the best the system has */
    RT_EPOLL,
    RT_KQUEUE,
    RT_SELECT /* everywhere; descriptors below FD_SETSIZE, on Windows so many */
};

/* How loud a line of the log is. */
enum rt_level { RT_LOG_ERROR = 1, RT_LOG_WARN, RT_LOG_INFO };

/* What happens to a message above the rate: rt_listen_opts.rate_over. */
enum rt_over {
    RT_OVER_DROP = 1, /* it is dropped, on_limit is told */
    RT_OVER_PAUSE,    /* nothing is read until it may pass */
    RT_OVER_CLOSE     /* the session closes, 1008 */
};

/* What a second login of one user id does: rt_loop_opts.bind_policy. */
enum rt_bind_policy {
    RT_BIND_NEWEST = 0, /* the old session closes, RT_CLOSE_REPLACED */
    RT_BIND_REFUSE,     /* the new one is refused, RT_EREFUSED */
    RT_BIND_MANY        /* up to bind_max at once, then as refuse */
};

/* Options of rt_loop_new.  All 0 is right; everything is copied. */
typedef struct {
    void *user;  /* rt_loop_user answers it; the hooks below get it */
    int backend; /* enum rt_backend */
    /* One line of text, without a newline, about what could not be told to
       a caller.  Default: nothing is written anywhere. */
    void (*log)(void *user, int level, const char *text);
    /* As realloc, with the old size given; now = 0 frees.  Default: libc. */
    void *(*realloc)(void *user, void *p, size_t old, size_t now);
    int bind_policy, bind_max; /* enum rt_bind_policy; RT_BIND_MANY's N */
    int max_groups;            /* in all; 65,536 */
    int defer_ms;              /* answer a deferred request in; 15,000 */
    /* A name that rt_dial got: start looking it up and return 0; rt_resolved
       gives the answer, at once or later.  < 0: the dial fails. */
    int (*resolve)(rt_loop *, const char *host, rt_session);
    /* A group got its first member, lost its last: subscribe upstream. */
    void (*group_first)(rt_loop *, const char *name);
    void (*group_last)(rt_loop *, const char *name);
    /* A group was sent a message: publish it upstream. */
    void (*group_out)(rt_loop *, const char *name, int kind, const void *,
                      size_t);
    /* rt_push found nobody here by that user id: forward it.  Who is forwarded
       one asks rt_find first, for its rt_push would miss and forward it, too,
       perhaps for ever. */
    void (*push_miss)(rt_loop *, const char *uid, int kind, const void *,
                      size_t);
    /* Fills out with n bytes from the system's secure source; 0, or < 0 when
       it cannot.  Default: getrandom or what the system has. */
    int (*random)(void *user, void *out, size_t n);
    int max_sessions;       /* accepted ones; off */
    int groups_per_session; /* memberships of one session; 128 */
    /* A message fell out of a group's history: by the group's options, because
       the group ended (but not with the loop), or for want of memory.  Each
       one is told once, in order: store it, if it is wanted. */
    void (*group_evict)(rt_loop *, const char *name, rt_position at, int kind,
                        const void *, size_t);
    /* rt_shutdown's work is done: no session, no handshake and no connection
       is left, so that who ends the loop now cuts no farewell short. */
    void (*drained)(rt_loop *);
    /* More lines for rt_metrics: writes whole lines and a NUL to out where
       they fit into cap, and returns their length in any case, as snprintf
       does; out is NULL where cap is 0.  What is not a whole line, or stands
       behind the length told, is left out.  Like log and realloc it may be run
       by a call, and may make none. */
    size_t (*metrics)(void *user, char *out, size_t cap);
    /* Before it blocks, the loop looks for events again for so many
       microseconds: an answer is earlier by the time that waking up takes, and
       the processor is busy meanwhile.  Off. */
    int spin_us;
} rt_loop_opts;

/* A certificate, with those that lead up to its issuer behind it, and its
   private key.  Each is PEM: the text (it begins with "-----BEGIN"), or the
   path of a file that is read at once. */
typedef struct {
    const char *cert, *key;
} rt_tls_cert;

/*
 * What rt_listen_opts.tls and rt_dial_opts.tls point to, for wss:// and tls://;
 * copied.  These work where the library was built with a TLS library (make
 * TLS=mbedtls); elsewhere they are RT_EINVAL, "built without TLS".  TLS 1.2 and
 * up, ECDHE with AEAD ciphers alone, no renegotiation; sessions resume by
 * tickets.  A dial checks whom it talks to, always: with neither ca nor pin it
 * is RT_EINVAL.  Where that check fails on_close tells 1006, RT_BY_ERROR, and
 * why, like "certificate: wrong host", and a session with opts.resume does not
 * try again.  A peer that goes without saying so (close_notify) gives 1006,
 * never 1005.  mbedTLS takes its memory from libc, beside rt_loop_opts.realloc:
 * with Debian's 2.28 an idle accepted connection costs some 37,000 bytes, most
 * of it two buffers for a record each.
 */
typedef struct {
    const char *cert, *key; /* of a listener; of a dial only if it is asked */
    const rt_tls_cert *others; /* a listener's further ones, for sni */
    int other_count;
    /* Which certificate for the host that a client names: 0: cert; n:
       others[n - 1]; < 0: none, its handshake is refused.  user is opts.user.
       Not asked when the client names none: that gets cert. */
    int (*sni)(void *user, const char *host);
    /* PEM, text or path.  Of a dial: whom to trust.  Of a listener: clients
       must have a certificate of these.  NULL: none. */
    const char *ca;
    /* Of a dial: the server's key is one of these, whoever vouches for it:
       SHA-256 of its SubjectPublicKeyInfo in base64 (RFC 7469, 2.4), several
       divided by spaces.  Without ca it replaces all other checks, with ca
       both must hold. */
    const char *pin;
    /* Of a dial: the name that the certificate must be for (mbedTLS before 3.5
       knows DNS names alone, no addresses); NULL: the url's host. */
    const char *name;
} rt_tls_opts;

/*
 * Options of rt_listen.  0 is the default named behind each; everything is
 * copied, .on too, except what codec points to.
 */
typedef struct {
    rt_handler on;
    void *user;      /* rt_context answers it */
    int max_message; /* largest message in; 65,536; larger: close 1009 */
    int resume_ms;   /* how long a session may be away, for clients that
                        speak rtnet.1; off */
    /* Which pages may connect.  NULL: those from the same host; "*": any; else
       a list of origins divided by spaces, like "https://game.example". */
    const char *origins;
    /* At most rate_limit messages in any rate_ms (1,000); off.  rate_over: what
       happens to one too many by any of the limits, enum rt_over; 0: dropped,
       or, where sessions can resume, waited for. */
    int rate_limit, rate_ms, rate_over;
    /* The same by leaky buckets of constant size: messages and bytes (of their
       payload) a second, and how many may come at once (one second's worth);
       off.  An empty bucket takes one message of any size.  A message has to
       pass all limits that are on; refused, it takes from none.  They belong to
       the session: coming back does not refill them. */
    int message_rate, message_burst, byte_rate, byte_burst;
    int control_rate; /* pings, acknowledgements of nothing new, and pongs that
                         answer no ping of ours, a second; 20, for dialled
                         sessions always; more: close 1008 */
    int bind_ms;      /* a session without a user id so long after its on_open,
                         also while it is away: close 1008; off */
    /* New connections a second, and how many at once (accept_rate); off.  One
       too many gets 503 with Retry-After, or, on a stream, 1013 with the
       reason "retry=<ms>" (of those that have no way to say it, it is just
       closed).  All who are refused for load are told times that spread them
       over as long as it takes to let them in, up to a minute. */
    int accept_rate, accept_burst;
    /* Connections to this listener from one IPv4 address or one IPv6 /64, at
       most 65,534; one too many is refused likewise.  Off. */
    int max_per_address;
    /* Proxies that are trusted to say whom they speak for: addresses and
       networks, like "127.0.0.1, 10.0.0.0/8, fd00::/8, unix" (any peer of a
       local socket).  NULL: none.  With proxy_protocol 1 each of them must
       begin with a PROXY protocol header, v1 or v2 (at most 536 bytes), or is
       closed; X-Forwarded-For counts from the right, as far as the addresses
       in it are trusted.  From anybody else both mean nothing. */
    const char *proxies;
    int proxy_protocol;
    /* A listening socket to take over, instead of a new one (and not one that
       this loop has already); the listener closes it, but it stays yours when
       rt_listen fails; 0: none.  Of url, which must be a good one, only the
       kind (ws or tcp) counts then, and no file is ever removed. */
    rt_fd fd;
    rt_filter filter[8];   /* run in this order, up to the first NULL */
    const rt_codec *codec; /* the host's own wire format */
    int framing;           /* of a tcp:// listener: rt_framing */
    int max_fragments;     /* of one message; 1,024; else 1009 */
    int max_body;          /* of a plain request; 65,536; 413 */
    int max_header;        /* request line and headers; 8,192, at most
                              61,440; else 431 */
    int max_handshakes;    /* in progress; 1,024; then the oldest goes */
    int handshake_ms;      /* whole request, from the accept, TLS and all;
                              5,000 */
    int assembly_ms;       /* whole message, from its first byte; 30,000 */
    int ping_ms;           /* ping after so long without a message or a pong to
                              our ping; 15,000 (streams without a ping: TCP's
                              keep-alive, in s) */
    int dead_pings;        /* unanswered: close RT_CLOSE_DEAD; 2 */
    int close_ms;          /* peer answers a close within; 5,000 */
    int soft_mark;         /* bytes queued: rt_send returns 1; 65,536 */
    int hard_mark;         /* bytes queued: RT_EFULL; 1,048,576 */
    int backlog;           /* as listen(2); 1,024 */
    int reuse_port;        /* 1: several loops share the port; off */
    /* For wss:// and tls://, which need it. */
    const rt_tls_opts *tls;
} rt_listen_opts;

/* Options of rt_dial, as those of rt_listen where the names are the same. */
typedef struct {
    rt_handler on;
    void *user;
    int resume;            /* 1: come back by itself after a loss; off */
    int connect_ms;        /* until the socket is connected; 5,000 */
    const char *protocols; /* sub-protocols to offer: "a, b" */
    const char *headers;   /* more lines of the request: "Name: value\r\n" */
    int framing;           /* for tcp://: rt_framing */
    const rt_codec *codec;
    int max_message, max_fragments, max_header;
    int handshake_ms, assembly_ms, ping_ms, dead_pings, close_ms;
    int soft_mark, hard_mark;
    /* For wss:// and tls://, which need it. */
    const rt_tls_opts *tls;
} rt_dial_opts;

/* ---- the loop --------------------------------------------------------- */

/* Makes a loop; opts may be NULL.  NULL when memory, descriptors or random
   bytes cannot be had. */
rt_loop *rt_loop_new(const rt_loop_opts *opts);

/* Ends every session with its on_close (RT_BY_LOOP), closes every socket and
   frees all.  Not inside a callback.  NULL is ignored. */
void rt_loop_free(rt_loop *loop);

/* One turn: waits at most timeout_ms (-1: for ever; 0: not at all), not at all
   while anything is queued.  Returns how many events there were, or RT_ESTATE
   inside a callback, or RT_ESYS when the backend fails. */
int rt_poll(rt_loop *loop, int timeout_ms);

/* Turns until rt_stop.  Returns 0, or as rt_poll. */
int rt_run(rt_loop *loop);

/* Makes rt_run return after its turn, also one that starts later.  May be
   called from any thread and from a signal handler. */
void rt_stop(rt_loop *loop);

/* Runs fn(loop, arg) in the loop's thread, in its next turn.  May be called
   from any thread: one write to a pipe, no lock.  RT_EFULL when some 4,000
   posts wait. */
int rt_post(rt_loop *loop, void (*fn)(rt_loop *, void *), void *arg);

/* Writes what is queued now; runs no callback.  For engines that send after
   their rt_poll. */
void rt_flush(rt_loop *loop);

/* The time of this turn in ms; outside a turn it reads the clock.  Monotonic,
   starts anywhere. */
uint64_t rt_now(rt_loop *loop);

/* A descriptor that is readable when rt_poll(loop, 0) has something to do, for
   a foreign loop.  RT_ESTATE with the select backend. */
int rt_loop_fd(rt_loop *loop);

/* How long a foreign loop may wait before rt_poll, in ms: 0 while anything is
   queued, -1 for ever.  Ask it last. */
int rt_loop_timeout(rt_loop *loop);

/* rt_loop_opts.user. */
void *rt_loop_user(rt_loop *loop);

/* Why the last call of this loop that returns a handle gave {0}: its error,
   and in *text (if text is not NULL) a sentence that is valid until the next
   such call. */
int rt_error(rt_loop *loop, const char **text);

/* ---- listeners and dialled sessions ------------------------------------ */

/*
 * Listens.  ws://host:port speaks HTTP/1.1 and WebSocket, tcp://host:port the
 * framing of the options; unix:/path is ws on a local socket, tcp+unix:/path
 * is tcp on one (a socket file left behind by a dead server is replaced). There
 * are no local sockets on Windows.  wss:// and tls:// are ws:// and tcp://
 * inside TLS, with opts.tls. host: a literal address, "localhost", or nothing
 * for all addresses, IPv4 and IPv6; port 0: any free one.  opts may be NULL.
 * {0}: see rt_error.
 */
rt_listener rt_listen(rt_loop *loop, const char *url,
                      const rt_listen_opts *opts);

/* The port of a listener; 0 for a local socket; RT_EGONE. */
int rt_listener_port(rt_loop *loop, rt_listener listener);

/* Its socket, which stays the listener's; to hand over a copy of it (dup, or
   as a message of a local socket) to another loop or process, whose
   rt_listen_opts.fd it becomes.  Nobody is refused while both have it, nor
   when this one is stopped then.  Whoever asks is taken to hand it over: the
   file of a local socket is not removed with this listener any more.
   RT_EGONE. */
rt_fd rt_listener_fd(rt_loop *loop, rt_listener listener);

/* Stops listening.  Sessions that came in through it live on. */
int rt_unlisten(rt_loop *loop, rt_listener listener);

/* Other certificates and keys for a wss or tls listener: connections that come
   from now on have them, those there keep the old, and tickets of before are
   worth a whole handshake.  RT_EINVAL, RT_ENOMEM: all stays as it was, and
   rt_error has a text that says why.  RT_EGONE. */
int rt_tls_reload(rt_loop *loop, rt_listener listener, const rt_tls_opts *opts);

/*
 * Connects to a server; the same forms of url, with a path and query for ws.
 * The handle is valid at once; on_open follows, or one on_close.  host is a
 * literal address or "localhost"; other names go to opts.resolve.  {0}: see
 * rt_error; no callback follows.
 */
rt_session rt_dial(rt_loop *loop, const char *url, const rt_dial_opts *opts);

/* Answers the resolve hook: the literal address for that session's host, or
   NULL when there is none (the session closes; one with resume tries again).
   RT_EGONE, RT_ESTATE when it was not asked for, RT_EINVAL when it is not an
   address. */
int rt_resolved(rt_loop *loop, rt_session s, const char *address);

/* ---- requests ------------------------------------------------------------
 * In on_request and until answered, the handle names a handshake: these calls,
 * rt_close, rt_context and rt_request_of work on it, all others give
 * RT_ESTATE. */

/* What rt_accept may add: a user id to bind before on_open, one of the offered
   sub-protocols, more lines of the answer ("Name: value\r\n"). */
typedef struct {
    const char *uid, *protocol, *headers;
} rt_accept_opts;

/* Accepts an upgrade; on_open follows, with the same handle.  opts may be
   NULL.  RT_EINVAL for options that would break the answer; RT_EREFUSED when
   the bind policy refuses the uid; RT_ESTATE when already answered or no
   upgrade. */
int rt_accept(rt_loop *loop, rt_session s, const rt_accept_opts *opts);

/* Answers a request with a status (200..599), a content type ("" for none) and
   a body, which is copied.  RT_EINVAL; RT_ENOMEM, which ends the connection,
   so that nobody is let in instead; RT_ESTATE when already answered. */
int rt_reply(rt_loop *loop, rt_session s, int status, const char *type,
             const void *body, size_t len);

/* The request of a handshake, or of a session until its on_open returns; NULL
   afterwards. */
const rt_request *rt_request_of(rt_loop *loop, rt_session s);

/* The value of the first header of that name (case does not matter), trimmed;
   NULL if there is none.  Lives as long as the request. */
const char *rt_header(const rt_request *request, const char *name);

/* Copies the decoded value of one query parameter ('+' is a space, %XX a byte)
   to out, with a NUL.  Returns its length; RT_EINVAL when it is absent, does
   not fit into cap, or is badly encoded or holds a NUL. */
int rt_query(const rt_request *request, const char *name, char *out,
             size_t cap);

/* ---- sessions ---------------------------------------------------------- */

/* opts.user of the listener or the dial, always; NULL for a stale handle. */
void *rt_context(rt_loop *loop, rt_session s);

/* What rt_set_user put there; NULL at first and for a stale handle. */
void *rt_user(rt_loop *loop, rt_session s);

/* Keeps a pointer with the session, up to and including its on_close. */
void rt_set_user(rt_loop *loop, rt_session s, void *user);

/*
 * Queues one message; it is written at the end of the turn.  data is copied.
 * Returns 0; 1 when the queue is now above its soft mark (on_writable follows)
 * or a droppable one was skipped for that; RT_EUTF8; RT_EINVAL; RT_ENOMEM;
 * RT_ESTATE before on_open; RT_EGONE.  RT_EFULL: a reliable message would pass
 * the hard mark, so the session ends with RT_CLOSE_SLOW; a keyed one would, or
 * has too many keys beside it: it is not queued, that is all.  (An empty queue
 * takes one message of up to 64 MiB.)
 */
int rt_send(rt_loop *loop, rt_session to, int kind, const void *data,
            size_t len);

/* As rt_send to each of n sessions, framed once.  Returns how many took it;
   stale handles are passed over. */
int rt_send_many(rt_loop *loop, const rt_session *to, size_t n, int kind,
                 const void *data, size_t len);

/* As rt_send to each session bound to uid.  Returns how many took it. */
int rt_push(rt_loop *loop, const char *uid, int kind, const void *data,
            size_t len);

/* 0 stops reading from the peer (TCP slows it down; nothing is lost; its
   silence is not held against it), 1 goes on.  RT_ESTATE while it is away; a
   new connection is read. */
int rt_read(rt_loop *loop, rt_session s, int on);

/* Ends the session, see rule 2.  code: 1000..4999 that RFC 6455 lets an
   endpoint send, 0 for 1000; reason: UTF-8, at most 123 bytes, or NULL.
   RT_EINVAL for others; RT_EGONE when it is closing already. */
int rt_close(rt_loop *loop, rt_session s, int code, const char *reason);

/* Loses the connection only.  A session that can resume goes away; any other
   one ends with this code.  RT_ESTATE when it is away. */
int rt_drop(rt_loop *loop, rt_session s, int code, const char *reason);

/* Ends every session bound to uid; code 0 is RT_CLOSE_KICKED.  Returns how
   many. */
int rt_kick(rt_loop *loop, const char *uid, int code, const char *reason);

/* Binds the session to a user id of 1..255 bytes; complete when it returns.
   RT_EBOUND when it has one; RT_EREFUSED by the policy; RT_EINVAL. */
int rt_bind(rt_loop *loop, rt_session s, const char *uid);

/* The newest session bound to uid, or {0}. */
rt_session rt_find(rt_loop *loop, const char *uid);

/* The user id of a session, NULL if unbound or stale.  Lives as long as the
   session. */
const char *rt_uid(rt_loop *loop, rt_session s);

/* Goes over all sessions: pass {0} first, then the last answer; {0} at the
   end.  Any call may be made between; new sessions may or may not be seen. */
rt_session rt_next_session(rt_loop *loop, rt_session after);

/* The states of rt_state. */
enum rt_states { RT_OPENING = 1, RT_OPEN, RT_AWAY, RT_CLOSING };

/* enum rt_states, or RT_EGONE. */
int rt_state(rt_loop *loop, rt_session s);

/* When a byte last came from the peer, as rt_now; 0 for a stale handle. */
uint64_t rt_heard(rt_loop *loop, rt_session s);

/* Round-trip time of the last ping and its jitter (RFC 3550, 6.4.1), in
   microseconds; either may be NULL.  RT_ESTATE before the first pong and in
   on_close, when the connection is gone. */
int rt_rtt(rt_loop *loop, rt_session s, uint32_t *rtt_us, uint32_t *jitter_us);

/* Bytes queued for the peer and not yet given to the system. */
uint64_t rt_unsent(rt_loop *loop, rt_session s);

/* True when both name the same session. */
static inline int rt_same(rt_session a, rt_session b)
{
    return a.id == b.id;
}

/* ---- sessions of hosts with their own protocol ------------------------- */

/* Keeps the session for window_ms after a loss of its connection and gives the
   secret token by which it is found again.  RT_ERANDOM: none is issued. */
int rt_keep(rt_loop *loop, rt_session s, int window_ms, char token[23]);

/* The session of a token, or {0}; in constant time. */
rt_session rt_find_token(rt_loop *loop, const char *token);

/* For rt_adopt: the peer cannot tell how many messages it has. */
#define RT_UNCOUNTED UINT64_MAX

/* The peer has received count reliable messages: they need not be kept. */
int rt_acked(rt_loop *loop, rt_session s, uint64_t count);

/* Puts the connection of fresh under the session old: fresh gets on_close
   (RT_BY_ADOPT), old on_back; what the peer lacks is sent again.  A message
   that waits for a limit goes with its connection. */
int rt_adopt(rt_loop *loop, rt_session old, rt_session fresh,
             uint64_t peer_has);

/* ---- groups ------------------------------------------------------------ */

/* What a group's event callback is told. */
enum rt_presence { RT_JOINED = 1, RT_LEFT, RT_WENT_AWAY, RT_CAME_BACK };

/* Options of rt_group_open; copied. */
typedef struct {
    int history, history_bytes, history_ms; /* remember so many, so much (and no
                                               more messages than bytes), so
                                               long; off */
    int ttl_ms;      /* unused and empty for so long: closes; off */
    int max_members; /* off */
    int upstream;    /* 1: delivers only what rt_group_deliver brings; so
                        nothing until group_first's subscription stands */
    /* Remember the newest message of each key (rt_latest), for so many keys:
       whoever joins, or comes back with a gap (then after on_back), gets them
       before anything live, in the order of their last change, as reliable
       ones.  An empty message forgets its key; for one key too many the one
       that is unchanged for longest is forgotten.  Who joins must have room for
       all of them below its hard mark; who comes back gets them beyond it.
       Keys are the session's: a value of the same key that still waits for it,
       whoever sent that, is replaced by the snapshot's.  Off. */
    int snapshot;
    int once_ms;  /* rt_group_send_once: how long a key counts; 300,000 */
    int once_max; /* how many keys are known, the newest; 1,024 */
    /* As in rt_listen_opts, for what rt_group_send and its kin send to the
       group, whoever it is for: RT_EREFUSED.  rate_limit: at most 2^20. */
    int rate_limit, rate_ms;
    int message_rate, message_burst, byte_rate, byte_burst;
    /* A member joined, left, went away, came back.  Runs in the events phase;
       RT_LEFT before the session's on_close.  One that joins while it is away
       gives RT_JOINED, then RT_WENT_AWAY. */
    void (*event)(rt_loop *, rt_group, rt_session, int what);
    void *user; /* rt_group_user answers it */
} rt_group_opts;

/* Finds or makes a group; name: 1..255 bytes.  The first options win.  opts
   may be NULL; RT_EINVAL for a number below RT_OFF.  {0}: see rt_error. */
rt_group rt_group_open(rt_loop *loop, const char *name,
                       const rt_group_opts *opts);

/* The group of that name, or {0}. */
rt_group rt_group_find(rt_loop *loop, const char *name);

/* Ends a group; its members stay open, without an event. */
int rt_group_close(rt_loop *loop, rt_group group);

/* Its name, or NULL.  Lives as long as the group. */
const char *rt_group_name(rt_loop *loop, rt_group group);

/* rt_group_opts.user. */
void *rt_group_user(rt_loop *loop, rt_group group);

/* Adds a session, and sends it the snapshot.  RT_EEXIST when it is in already;
   RT_EFULL by max_members or groups_per_session, or when the snapshot does not
   fit its queue, which ends the session as rt_send does; RT_ESTATE before
   on_open.  One that closes leaves by itself. */
int rt_group_join(rt_loop *loop, rt_group group, rt_session s);

/* Joins and replays what was sent after since (NULL: all there is), behind the
   snapshot, in the same turn, without a gap or a double.  Returns how many
   were replayed, or RT_EREFUSED when some are no longer there: then nothing is
   replayed, but the session has joined.  Else as rt_group_join. */
int rt_group_join_from(rt_loop *loop, rt_group group, rt_session s,
                       const rt_position *since);

/* Removes a session.  RT_ESTATE when it is not in; RT_ENOMEM: it stays. */
int rt_group_leave(rt_loop *loop, rt_group group, rt_session s);

/* As rt_send to all members, framed once.  Returns how many took it;
   RT_EREFUSED above the group's rate; RT_ENOMEM when the snapshot has no
   memory for it: nothing is sent. */
int rt_group_send(rt_loop *loop, rt_group group, int kind, const void *data,
                  size_t len);

/* As rt_group_send, to all but one; with opts.upstream to all, as it comes
   back. */
int rt_group_send_but(rt_loop *loop, rt_group group, rt_session but, int kind,
                      const void *data, size_t len);

/*
 * As rt_group_send, but only the first time that key (1..255 bytes) is used
 * within once_ms: for senders that try again when they got no answer.  A
 * repetition sends nothing and returns RT_EEXIST.  In both cases *at (which
 * may be NULL) becomes the position of the first one, or, if that was not a
 * reliable one, the group's position then; {0, 0} where that is not known,
 * with opts.upstream.  A send that fails leaves the key unused; one that
 * nobody took does not.
 */
int rt_group_send_once(rt_loop *loop, rt_group group, const char *key, int kind,
                       const void *data, size_t len, rt_position *at);

/* How many members it has; 0 for a stale handle. */
size_t rt_group_count(rt_loop *loop, rt_group group);

/* Copies up to cap members to out, in no order.  Returns how many there are,
   which may be more than cap. */
size_t rt_group_members(rt_loop *loop, rt_group group, rt_session *out,
                        size_t cap);

/* The offset of its newest message and its epoch; {0, 0} when stale. */
rt_position rt_group_position(rt_loop *loop, rt_group group);

/* A message from upstream for the group of that name: delivered here, not
   published again.  Returns how many took it; RT_EGONE: no such group. */
int rt_group_deliver(rt_loop *loop, const char *name, int kind,
                     const void *data, size_t len);

/* ---- timers and watches ------------------------------------------------ */

/* Runs fn(loop, arg) once, when rt_now reaches due (absolute, so that ticks do
   not drift); timers of the same ms run in the order they were started.  With
   an owner it stops before the owner's on_close; {0} owner: none.  {0}: stale
   owner, or see rt_error. */
rt_timer rt_timer_start(rt_loop *loop, rt_session owner, uint64_t due,
                        void (*fn)(rt_loop *, void *), void *arg);

/* Stops it.  RT_EGONE when it has run or is stopped. */
int rt_timer_stop(rt_loop *loop, rt_timer timer);

/* What a watch waits for, bits. */
enum rt_events { RT_READ = 1, RT_WRITE = 2 };

/* Watches a foreign descriptor (one watch for each): fn gets one bit a call.
   An error or a hang-up counts as all that was asked for.  The descriptor
   stays the host's; stop the watch before closing it.  {0}: see rt_error. */
rt_watch rt_watch_start(rt_loop *loop, rt_fd fd, int events,
                        void (*fn)(rt_loop *, rt_watch, int events, void *),
                        void *arg);

/* Changes what it waits for; 0: nothing. */
int rt_watch_set(rt_loop *loop, rt_watch watch, int events);

/* Stops it; no call follows. */
int rt_watch_stop(rt_loop *loop, rt_watch watch);

/* ---- the whole --------------------------------------------------------- */

/* Writes the counters, gauges and histograms in Prometheus' text format
   (0.0.4), then the lines of opts.metrics: whole lines, as many as fit, with a
   NUL.  Returns the bytes written without the NUL; with cap 0, the cap that
   holds all of a call right after this one. */
size_t rt_metrics(rt_loop *loop, char *out, size_t cap);

/* A request of the host's own took so long: rt_metrics shows a histogram for
   each route, of up to 64 (then RT_EFULL).  route: UTF-8 of 1..64 bytes, with
   no control character but the line feed; else RT_EINVAL.  RT_ENOMEM. */
int rt_observe(rt_loop *loop, const char *route, uint64_t microseconds);

/*
 * Stops listening and closes all sessions with 1012: those away at once, the
 * others evenly over window_ms, each with "retry=<ms>", 500 to 2,500 by chance.
 * Who was accepted before is not refused: handshakes become sessions within
 * the window, which end with it, or, in rtnet.1, are sent away with 1012.
 * opts.drained is told in a later turn, when connections that linger are gone,
 * too (close_ms).  rt_listen and rt_dial give RT_ESTATE from now on.  Another
 * call moves the deadline, or has drained told again.  RT_EINVAL for a
 * negative window.
 */
int rt_shutdown(rt_loop *loop, int window_ms);

#ifdef __cplusplus
}
#endif
#endif
