/*
 * The load generator's own interface.  It uses plain epoll and nothing of the
 * library it measures, and its cost must not hide the server's: frames are
 * prepared, a connection makes one recv and one send per event, and messages
 * allocate nothing.
 *
 * What a connection sends is a function of its number and the number of the
 * message (in fanout also of the time), so nothing that was sent is kept: a
 * frame of which the kernel took half is simply made again.
 *
 *   rtload.c         command line, start
 *   rtload_share.c   several processes as one; the memory of the server
 *   rtload_result.c  progress, result
 *   drive.c   the phases of a run, the scenarios, when to send, deadlines
 *   client.c  sockets: connect, upgrade, read, write, close
 *   wire.c    messages to frames and back, and whether they are right
 */
#ifndef BENCH_RTLOAD_H
#define BENCH_RTLOAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* SOCK_NONBLOCK, strcasestr; Linux only, as epoll */
#endif

#include "histogram.h"
#include <sys/socket.h>
#include <sys/uio.h>

enum scenario {
    SCENE_ECHO,
    SCENE_SPARSE, /* echo, by a few of the connections */
    SCENE_FANOUT,
    SCENE_SLOW,  /* fanout, and some never read */
    SCENE_ROOMS, /* fanout, within rooms */
    SCENE_MIXED, /* inputs to the server, snapshots from it */
    SCENE_STORM,
    SCENE_IDLE
};

typedef struct {
    const char *url, *scenario_name, *congestion;
    int scenario;
    int text, raw, json, quiet;
    int resume; /* speak rtnet.1: one byte of type before each payload */
    long connections, size, depth, senders, rcvbuf;
    long active, slow, room, processes, pid; /* 0: not given, or not needed */
    double rate, duration, warmup, timeout;  /* per second; seconds */
} settings;

enum phase {
    PHASE_OPENING, /* the connections, in batches */
    PHASE_READY,   /* other processes are not */
    PHASE_WARMUP,
    PHASE_MEASURE,
    PHASE_DRAIN,   /* wait for what is still in flight */
    PHASE_CATCHUP, /* slow: those who never read do now */
    PHASE_CLOSING, /* say goodbye, for a short time */
    PHASE_DONE
};

enum conn_state {
    CONN_NONE,
    CONN_CONNECTING,
    CONN_UPGRADING, /* the request is sent, the answer incomplete */
    CONN_GREETING,  /* rtnet.1: h is sent, w awaited */
    CONN_OPEN,
    CONN_CLOSING, /* the close frame is on its way */
    CONN_DEAD
};

enum {
    HEAD_MAX = 14,      /* of a frame, with its mask */
    STAMP_WORD = 9,     /* 63 bits, 7 to a byte, so valid in a text too */
    STAMP_MAX = 18,     /* two words */
    SNAPSHOT_MIN = 16,  /* its number and time */
    SOURCES = 200,      /* loopback addresses to connect from */
    CONTROL_MAX = 125,  /* payload of a control frame */
    LETTER_MAX = 129,   /* of a control message of rtnet.1, without its type */
    ACK_COUNT = 16,     /* rtnet.1: messages, or */
    ACK_BYTES = 16384,  /* payload, until an acknowledgement is due */
    ANSWER_MAX = 16384, /* bytes of an answer to the upgrade */
    IN_MAX = 262144,    /* bytes of one recv */
    SKIP_MIN = 8192,    /* bytes from which not copying is worth a recv */
    IOV_COUNT = 128,    /* pieces of one send */
    OUT_MAX = 65536     /* bytes of one send that are put together first */
};

#define NO_SEAT UINT32_MAX

typedef struct conn conn;
typedef struct secure secure;
struct conn {
    int fd;
    uint8_t state;    /* enum conn_state */
    uint8_t blocked;  /* the socket takes no more; an event will tell */
    uint8_t checking; /* the contents of the present message are compared */
    uint8_t end_seen; /* the peer's close frame came */
    uint8_t slow;     /* does not read */
    uint8_t awaited;  /* is in load.refill */
    uint32_t id;      /* its place in load.conns */
    uint32_t seat;    /* its number among those that send, or NO_SEAT */
    conn *refill_next;
    secure *secure; /* its TLS, or NULL */

    /* Out: numbers of messages begun, wholly written, and answered. */
    uint64_t begun, sent, done;
    size_t out_at; /* bytes written of the frame of message number sent */

    /* In: messages received; the frame and the message in hand. */
    uint64_t got;
    uint64_t sequence; /* mixed: of the newest snapshot */
    uint64_t left;     /* payload of the frame still to come */
    size_t at;         /* payload of the message that came */
    uint8_t op, fin;   /* of the frame */
    uint8_t within;    /* a message has begun and not ended */
    uint8_t head_len;  /* bytes of an incomplete frame header */
    uint8_t head[HEAD_MAX];
    uint8_t stamp[STAMP_MAX];

    uint64_t started; /* ns: when the handshake began */
    uint64_t since;   /* ns: when it should have; mixed: newest snapshot */
    uint64_t active;  /* ns: when a byte last moved */

    /* rtnet.1: what is acknowledged of got, and by the server of sent. */
    uint8_t type;     /* of the message that comes: its first byte */
    uint8_t ack_owed; /* one is to be written, or finished */
    uint8_t ack_len, ack_at;
    uint64_t acked, known;
    uint64_t unacked; /* bytes of payload since then */
    uint64_t ack_due; /* ns: when it is owed at the latest; 0: not listed */
    uint64_t said;    /* ns: when something was last sent */
    conn *ack_prev, *ack_next;

    uint8_t control_in[LETTER_MAX + 1];
    uint8_t control_in_len;
    uint8_t control[CONTROL_MAX + 6]; /* a frame to send between messages */
    uint8_t control_len, control_at;
    char *answer; /* an incomplete answer to the upgrade, or NULL */
    size_t answer_len;
};

typedef struct {
    settings set;
    struct sockaddr_storage address;
    socklen_t address_len;
    char target[80]; /* "127.0.0.1:9000", for people */
    char *request;   /* the upgrade, whole but for the number of a room, */
    size_t request_len, request_path; /* which ends its path */

    conn *conns;
    /* Where several processes share the connections: how many there are in all,
       which of them is this one's first. */
    long total, base;
    int index;       /* of this process */
    uint64_t *go;    /* ns: when all begin, 0: not yet known; NULL: alone */
    long senders;    /* connections that send */
    uint32_t *seats; /* [sender]: which they are */
    uint64_t *times; /* [sender][message % depth]: ns, when begun or due */
    /* Where messages go to others, too: members that do not have it yet, of the
       same shape; [member][sender of the room]: which message is next. */
    uint32_t *missing, *next;
    long members, talkers; /* of one room; fanout is one room */
    conn *refill;          /* those that may send again */

    uint8_t *frame; /* the frame of every message, its stamp not filled in */
    uint8_t *plain; /* its payload, not masked */
    size_t head_len, stamp_len, frame_len;
    uint8_t stamp_key[STAMP_MAX]; /* the mask where the stamp stands */
    size_t look_len;              /* bytes of a message in that are kept */
    size_t snapshot_size;         /* of the first one */
    uint8_t reply_head[11]; /* what a reply that is one frame begins with */
    size_t reply_head_len;
    uint8_t *in;
    uint8_t *out;

    int epoll, timer;
    int secure;      /* wss */
    int source;      /* n: connect from 127.0.0.n; 0: the system chooses */
    int phase;       /* enum phase */
    int fatal;       /* going on makes no sense */
    int measured;    /* there is a result */
    int given_up;    /* what was not sent yet of a schedule will not be */
    uint64_t now;    /* ns, monotonic */
    uint64_t tick;   /* ns: next progress line and look at the deadlines */
    uint64_t armed;  /* ns: when the timer goes off */
    uint64_t start;  /* ns: message 0 of a schedule is due */
    uint64_t period; /* 2^-16 ns between two of a schedule; 0: closed loop */
    uint64_t due;    /* messages of the schedule that were due so far */
    uint64_t from;   /* ns: what is measured begins, ends */
    uint64_t until;
    uint64_t phase_end;
    uint64_t moved; /* ns: when anything was last delivered */

    conn *ack_first; /* those that owe one, the longest waiting first */
    conn *ack_last;
    uint64_t silence; /* ns: after so long without a word, an `a` is due */
    uint64_t acks_sent, acks_received;

    uint32_t *spare; /* storm: connections that may start again */
    long spares;
    long opened, opening, alive; /* connections: so far, under way, now */
    long held;                   /* idle: alive at the end */
    uint64_t begun;              /* storm: handshakes */
    uint64_t sent, received;     /* in all */
    uint64_t counted;            /* of received, those that are measured */
    uint64_t unsent;             /* of a schedule, never sent */
    uint64_t errors;
    long behind, dropped; /* slow: that have not all yet; that were closed */
    /* Anonymous memory of the server in bytes: before the first connection,
       when all are open, and its greatest; ns: when to look again. */
    uint64_t memory_before, memory_after, memory_peak, memory_look;
    double cpu; /* us of this process while measuring */
    histogram hist;
} load;

/* Are messages returned, sent to all of a room, or known otherwise? */
static inline int is_echo(const load *l)
{
    return l->set.scenario <= SCENE_SPARSE;
}
static inline int is_fan(const load *l)
{
    return l->set.scenario >= SCENE_FANOUT && l->set.scenario <= SCENE_ROOMS;
}
static inline int in_rooms(const load *l)
{
    return l->set.scenario == SCENE_ROOMS || l->set.scenario == SCENE_MIXED;
}
static inline int is_talking(const load *l)
{
    return l->set.scenario <= SCENE_MIXED;
}

/* ---- line.c: the bytes of a connection, plain or through TLS */

/* For wss.  0, or -1: it is not built in. */
int line_ready(load *l);
/* 1: bytes may be sent; 0: the handshake goes on; -1: see errno. */
int line_shake(load *l, conn *c);
/* Sends what waits for room in the socket. */
void line_flush(conn *c);
/* As sendmsg and recv; of TLS they may do less. */
ssize_t line_send(conn *c, struct iovec *v, int count);
ssize_t line_recv(conn *c, void *to, size_t n, int flags);
void line_end(conn *c);

/* ---- rtload.c */

/* Runs what l->set asks for, in this process.  0, or -1 when it could not. */
int load_run(load *l);
/* How many connections send, in all processes. */
long count_senders(const load *l);

/* ---- rtload_share.c */

/* Runs it in set.processes, and gives their sum to l.  0 or -1. */
int share_run(load *l);
/* Anonymous memory of the process set.pid in bytes; 0: errno tells why not. */
uint64_t memory_read(const load *l);
/* All connections are open; looks again if it is time to. */
void memory_opened(load *l);
void memory_watch(load *l);

/* ---- rtload_result.c: what is said to people */

/* Counts an error and prints the first few. */
void load_error(load *l, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A line about how it goes, once a second. */
void load_progress(load *l);
/* The result; returns what main returns. */
int load_result(const load *l);

/* ---- drive.c */

uint64_t clock_ns(void);
/* Runs the scenario from the first connection to the last. */
void drive(load *l);
/* Ends the run early, but in order; for a signal handler. */
void drive_stop(int signal_number);
/* The handshake of c is complete; c is over. */
void drive_opened(load *l, conn *c);
void drive_ended(load *l, const conn *c);
/* One message, or handshake, that was begun at ns is complete. */
void drive_record(load *l, uint64_t ns);
/* How many messages c may have begun by now. */
uint64_t drive_allowed(const load *l, const conn *c);
/* ns: when a message of the schedule is due. */
uint64_t drive_due(const load *l, uint64_t number);

/* ---- client.c */

/* Takes set.url apart; returns an error text or NULL. */
const char *client_target(load *l);
void conn_start(load *l, conn *c);
/* The peer is ready for messages. */
void conn_opened(load *l, conn *c);
/* Slow: leaves c alone, looks at it again.  -1 when it has failed. */
void conn_mute(load *l, conn *c);
int conn_unmute(load *l, conn *c);
void conn_event(load *l, conn *c, uint32_t events);
/* Begins what may be begun and writes what can be written. */
void conn_pump(load *l, conn *c);
/* Sends a close frame; the peer ends the connection then. */
void conn_finish(load *l, conn *c);
/* The connection is over, without an error. */
void conn_end(load *l, conn *c);
/* The peer has ended it before its time: an error, but not of a slow one, which
   is only counted.  Returns -1. */
int conn_lost(load *l, conn *c, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The connection is over, with one.  Returns -1. */
int conn_fail(load *l, conn *c, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- wire.c */

/* Prepares the frame for set.size; -1 when there is no memory for it. */
int wire_init(load *l);
/* An acknowledgement, if one is owed, and the frames of c that are begun and
   not written: as many as fit into iov.  Returns the number of pieces. */
int wire_gather(load *l, conn *c, struct iovec *iov);
/* Counts n written bytes. */
void wire_written(load *l, conn *c, size_t n);
/* Takes n received bytes; -1 when the connection has failed. */
int wire_feed(load *l, conn *c, const uint8_t *p, size_t n);
/* Counts n bytes of payload that need not be looked at. */
int wire_skip(load *l, conn *c, size_t n);
/* How many such bytes follow. */
uint64_t wire_skippable(const load *l, const conn *c);
/* How many bytes to receive: no more than the beginning of a long message that
   need not be looked at. */
size_t wire_want(const load *l, const conn *c);
/* Puts a control frame between the messages of c. */
void wire_control(conn *c, int op, const uint8_t *data, size_t len);
/* rtnet.1: says h; owes what time has made due; owes nothing any more. */
void wire_greet(conn *c);
void wire_ack_due(load *l);
void wire_ack_drop(load *l, conn *c);

#endif
