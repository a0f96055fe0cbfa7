/*
 * Messages and frames.  Every message has the same payload except for its
 * stamp, the first bytes: in echo the numbers of the connection and of the
 * message; in fanout the numbers of the sender and of the message, then the
 * time.  So a reply tells which message it answers, and a fan-out how long it
 * took, without any state.  (Rooms are fan-outs, too; only in mixed the server
 * has something of its own to say: a snapshot's number and time, 8 bytes each,
 * little endian, and then each byte is its place in the snapshot, modulo 256.)
 *  All frames use one mask: a server has to undo it
 * all the same, and preparing is what keeps this side cheap.
 *
 * With rtnet.1 a type byte stands before each payload: m, all that is sent and
 * counted here, is a part of the prepared head.  Acknowledgements go out in
 * front of the next messages; as those, they are made again when only a part
 * was written.
 */
#include "rtload.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    OP_TEXT = 1,
    OP_BINARY = 2,
    OP_CLOSE = 8,
    OP_PING = 9,
    OP_PONG = 10,
    OP_LETTER = 16 /* a text that is a control message of rtnet.1 */
};

#define ACK_NS 500000000u /* from the first message until its `a` is due */

enum {
    SAMPLE = 101,      /* the contents of one message in so many are compared */
    SMALL_FRAME = 4096 /* up to here, copying beats another piece of iovec */
};

static const uint8_t mask[4] = {0x5a, 0xc3, 0x17, 0x9e};

static int message_op(const load *l)
{
    return l->set.text ? OP_TEXT : OP_BINARY;
}

/* ---- out */

static size_t head_put(uint8_t *p, int op, size_t len, int masked)
{
    int bytes = len < 126 ? 0 : len < 65536 ? 2 : 8;
    p[0] = (uint8_t)(0x80 | op);
    p[1] = (uint8_t)(bytes == 0 ? len : bytes == 2 ? 126u : 127u);
    for (int i = 0; i < bytes; i++)
        p[2 + i] = (uint8_t)((uint64_t)len >> 8 * (bytes - 1 - i));
    if (!masked)
        return (size_t)bytes + 2;
    p[1] |= 0x80;
    memcpy(p + 2 + bytes, mask, 4);
    return (size_t)bytes + 6;
}

/* 63 bits, 7 to a byte, the lowest first: 56 of them are spread by halves. */
static void word_put(uint8_t *p, uint64_t value)
{
    uint64_t x = value & 0xffffffffffffff;
    x = (x & 0xfffffff) | (x & 0xfffffff0000000) << 4;
    x = (x & 0x3fff00003fff) | (x & 0xfffc0000fffc000) << 2;
    x = (x & 0x7f007f007f007f) | (x & 0x3f803f803f803f80) << 1;
    for (int i = 0; i < 8; i++) /* one store, where bytes are in that order */
        p[i] = (uint8_t)(x >> 8 * i);
    p[8] = (uint8_t)(value >> 56 & 0x7f);
}

static uint64_t word_get(const uint8_t *p)
{
    uint64_t value = 0;
    for (int i = 0; i < STAMP_WORD; i++)
        value |= (uint64_t)(p[i] & 0x7f) << 7 * i;
    return value;
}

static uint64_t *time_of(const load *l, const conn *c, uint64_t message)
{
    uint64_t depth = (uint64_t)l->set.depth;
    return &l->times[c->seat * depth + message % depth];
}

/* 20 bits tell connections apart, 43 the messages of one. */
static uint64_t identity(const load *l, const conn *c, uint64_t message)
{
    uint64_t who = (uint64_t)l->base + c->id;
    return who << 43 | (message & (((uint64_t)1 << 43) - 1));
}

static void stamp_make(const load *l, const conn *c, uint64_t message,
                       uint8_t *out)
{
    if (l->stamp_len >= STAMP_WORD)
        word_put(out, identity(l, c, message));
    if (l->stamp_len >= STAMP_MAX)
        word_put(out + STAMP_WORD, *time_of(l, c, message));
}

/* Puts the stamp of a message where it is to be masked. */
static void stamp_put(const load *l, const conn *c, uint64_t message,
                      uint8_t *p)
{
    uint8_t stamp[STAMP_MAX];
    if (l->stamp_len == 0)
        return;
    stamp_make(l, c, message, stamp);
    for (size_t i = 0; i < STAMP_WORD; i++)
        p[i] = stamp[i] ^ l->stamp_key[i];
    for (size_t i = STAMP_WORD; i < l->stamp_len; i++)
        p[i] = stamp[i] ^ l->stamp_key[i];
}

static void fill_heads(load *l, size_t size)
{
    if (l->set.raw)
        return;
    l->head_len = head_put(l->frame, message_op(l), size, 1);
    l->reply_head_len = head_put(l->reply_head, message_op(l), size, 0);
    if (!l->set.resume)
        return;
    l->frame[l->head_len++] = 'm' ^ mask[0];
    l->reply_head[l->reply_head_len++] = 'm';
}

static void fill(load *l, size_t size)
{
    uint32_t seed = 1;
    size_t typed = (size_t)l->set.resume;
    fill_heads(l, size + typed);
    l->frame_len = l->head_len + size;
    for (size_t i = 0; i < STAMP_MAX && !l->set.raw; i++)
        l->stamp_key[i] = mask[(i + typed) & 3];
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        l->plain[i] = (uint8_t)(seed >> 24);
        if (l->set.text)
            l->plain[i] = (uint8_t)('a' + l->plain[i] % 26);
        l->frame[l->head_len + i] =
            l->set.raw ? l->plain[i] : l->plain[i] ^ mask[(i + typed) & 3];
    }
}

int wire_init(load *l)
{
    size_t size = (size_t)l->set.size;
    l->stamp_len = is_fan(l) ? STAMP_MAX : STAMP_WORD;
    if (size < l->stamp_len)
        l->stamp_len = 0;
    l->look_len = l->set.scenario == SCENE_MIXED ? SNAPSHOT_MIN : l->stamp_len;
    l->frame = malloc(size + HEAD_MAX + 1);
    l->plain = malloc(size + 1);
    l->in = malloc(IN_MAX);
    l->out = malloc(OUT_MAX);
    if (!l->frame || !l->plain || !l->in || !l->out)
        return -1;
    fill(l, size);
    return 0;
}

/* Where the frames of one send are put together. */
typedef struct {
    struct iovec *iov;
    int count;
    size_t used; /* of l->out */
    size_t skip; /* bytes of the first frame that are written already */
} gather;

static void gather_piece(gather *g, uint8_t *p, size_t len)
{
    struct iovec *next = g->iov + g->count;
    size_t skip = g->skip < len ? g->skip : len;
    g->skip -= skip;
    p += skip;
    len -= skip;
    if (len == 0)
        return;
    if (g->count > 0 && (uint8_t *)next[-1].iov_base + next[-1].iov_len == p) {
        next[-1].iov_len += len;
        return;
    }
    next->iov_base = p;
    next->iov_len = len;
    g->count++;
}

/* The bytes of a frame that are copied: all of a small one, else up to the end
   of the stamp. */
static size_t copied_part(const load *l)
{
    size_t prefix = l->head_len + l->stamp_len;
    return l->frame_len <= SMALL_FRAME ? l->frame_len : prefix;
}

static size_t control_put(uint8_t *p, int op, const uint8_t *data, size_t len)
{
    p[0] = (uint8_t)(0x80 | op);
    p[1] = (uint8_t)(0x80 | len);
    memcpy(p + 2, mask, 4);
    for (size_t i = 0; i < len; i++)
        p[6 + i] = data[i] ^ mask[i & 3];
    return 6 + len;
}

/* Tells of the newest message, unless a part of an older number is out. */
static void gather_ack(load *l, conn *c, gather *g)
{
    char text[24];
    int len;
    if (c->ack_at == 0) {
        wire_ack_drop(l, c);
        c->acked = c->got;
        c->unacked = 0;
    }
    len = snprintf(text, sizeof text, "a%llu", (unsigned long long)c->acked);
    g->used = control_put(l->out, OP_TEXT, (uint8_t *)text, (size_t)len);
    g->skip = c->ack_at;
    c->ack_len = (uint8_t)g->used;
    gather_piece(g, l->out, g->used);
}

int wire_gather(load *l, conn *c, struct iovec *iov)
{
    gather g = {iov, 0, 0, c->out_at};
    size_t copied = copied_part(l);
    uint64_t until = c->begun;
    if (c->ack_owed && c->out_at == 0)
        gather_ack(l, c, &g);
    else if (c->ack_owed)
        until = c->sent + 1; /* then it has its turn */
    for (uint64_t m = c->sent; m < until; m++) {
        uint8_t *p = l->out + g.used;
        if (g.used + copied > OUT_MAX || g.count + 2 > IOV_COUNT)
            break;
        memcpy(p, l->frame, copied);
        stamp_put(l, c, m, p + l->head_len);
        gather_piece(&g, p, copied);
        gather_piece(&g, l->frame + copied, l->frame_len - copied);
        g.used += copied;
    }
    return g.count;
}

static int ack_wanted(const conn *c)
{
    if (c->state != CONN_OPEN || c->got == c->acked)
        return 0;
    return c->got - c->acked >= ACK_COUNT || c->unacked >= ACK_BYTES ||
           c->ack_due == 0;
}

/* Counts of n written bytes those of the acknowledgement. */
static size_t ack_written(load *l, conn *c, size_t n)
{
    size_t left = (size_t)c->ack_len - c->ack_at;
    if (n < left) {
        c->ack_at = (uint8_t)(c->ack_at + n);
        return n;
    }
    c->ack_at = 0;
    c->ack_owed = (uint8_t)ack_wanted(c);
    l->acks_sent++;
    return left;
}

void wire_written(load *l, conn *c, size_t n)
{
    if (c->ack_owed && c->out_at == 0)
        n -= ack_written(l, c, n);
    n += c->out_at;
    if (n == l->frame_len) { /* the usual case spares a division */
        c->out_at = 0;
        c->sent++;
        l->sent++;
    } else {
        c->sent += n / l->frame_len;
        l->sent += n / l->frame_len;
        c->out_at = n % l->frame_len;
    }
    if (l->set.scenario == SCENE_MIXED) /* no answer is to come */
        c->done = c->sent;
}

void wire_control(conn *c, int op, const uint8_t *data, size_t len)
{
    /* One that is half written stays; the next ping gets its answer. */
    if (c->control_at > 0)
        return;
    c->control_len = (uint8_t)control_put(c->control, op, data, len);
}

/* ---- rtnet.1: h and a */

void wire_greet(conn *c)
{
    wire_control(c, OP_TEXT, (const uint8_t *)"h", 1);
    c->state = CONN_GREETING;
}

static void ack_list(load *l, conn *c)
{
    c->ack_due = l->now + ACK_NS;
    c->ack_prev = l->ack_last;
    c->ack_next = NULL;
    if (c->ack_prev)
        c->ack_prev->ack_next = c;
    else
        l->ack_first = c;
    l->ack_last = c;
}

void wire_ack_drop(load *l, conn *c)
{
    if (c->ack_due == 0)
        return;
    c->ack_due = 0;
    if (c->ack_prev)
        c->ack_prev->ack_next = c->ack_next;
    else
        l->ack_first = c->ack_next;
    if (c->ack_next)
        c->ack_next->ack_prev = c->ack_prev;
    else
        l->ack_last = c->ack_prev;
}

/* One message more came that is counted. */
static void ack_count(load *l, conn *c)
{
    if (c->got - c->acked == 1)
        ack_list(l, c);
    c->unacked += c->at;
    if (ack_wanted(c))
        c->ack_owed = 1;
}

void wire_ack_due(load *l)
{
    while (l->ack_first && l->ack_first->ack_due <= l->now) {
        conn *c = l->ack_first;
        wire_ack_drop(l, c);
        if (!ack_wanted(c))
            continue;
        c->ack_owed = 1;
        conn_pump(l, c);
    }
}

/* ---- in */

/* What comes has been sent from here. */
static int is_ours(const load *l)
{
    return l->set.scenario <= SCENE_ROOMS;
}

/* Scenarios in which the server has nothing to say take whatever it says. */
static int is_checked(const load *l)
{
    return l->set.scenario <= SCENE_MIXED;
}

/* The kind of what comes. */
static int reply_op(const load *l)
{
    return is_ours(l) ? message_op(l) : OP_BINARY;
}

/* Is the contents of the next message compared? */
static int is_sample(const conn *c)
{
    return c->got == 0 || (c->got + c->id) % SAMPLE == 0;
}

static void message_begin(conn *c)
{
    c->within = 1;
    c->at = 0;
    c->checking = (uint8_t)is_sample(c);
}

/* Is that, n bytes at p, what stands there in a message? */
static int is_content(const load *l, size_t at, const uint8_t *p, size_t n)
{
    if (is_ours(l))
        return memcmp(p, l->plain + at, n) == 0;
    for (size_t i = 0; i < n; i++)
        if (p[i] != (uint8_t)(at + i))
            return 0;
    return 1;
}

/* Compares or passes over a part of the payload, and keeps the stamp. */
static int message_part(load *l, conn *c, const uint8_t *p, size_t n)
{
    size_t at = c->at, stamp = 0;
    c->at += n;
    if (at == 0 && n >= STAMP_MAX) { /* the usual case: of a known size */
        stamp = l->look_len;
        memcpy(c->stamp, p, STAMP_MAX);
    } else if (at < l->look_len) {
        stamp = l->look_len - at < n ? l->look_len - at : n;
        memcpy(c->stamp + at, p, stamp);
    }
    if (c->checking && is_checked(l) &&
        !is_content(l, at + stamp, p + stamp, n - stamp))
        return conn_fail(l, c, "reply %llu: the contents are not those sent",
                         (unsigned long long)c->got);
    return 0;
}

static int message_echoed(load *l, conn *c)
{
    uint8_t want[STAMP_MAX];
    if (c->got >= c->sent) /* one that does not send has sent nothing */
        return conn_fail(l, c, "reply %llu came before its message was sent",
                         (unsigned long long)c->got);
    stamp_make(l, c, c->got, want);
    if (l->stamp_len > 0 && memcmp(want, c->stamp, STAMP_WORD) != 0)
        return conn_fail(l, c, "reply %llu is not the next one",
                         (unsigned long long)c->got);
    drive_record(l, *time_of(l, c, c->got));
    c->done = ++c->got;
    return 0;
}

/* One member more has a message; the last one completes it. */
static void message_delivered(load *l, conn *sender, uint64_t message)
{
    uint64_t depth = (uint64_t)l->set.depth;
    if (--l->missing[sender->seat * depth + message % depth] > 0)
        return;
    sender->done++;
    if (sender->awaited)
        return;
    sender->awaited = 1;
    sender->refill_next = l->refill;
    l->refill = sender;
}

/* The one of c's room that sent a message with that word, or NULL. */
static conn *sender_of(const load *l, const conn *c, uint64_t word)
{
    uint64_t from = (word >> 43) - (uint64_t)l->base;
    uint64_t members = (uint64_t)l->members;
    if (c->stamp[0] & 0x80 || from >= (uint64_t)l->set.connections ||
        from / members != c->id / members || l->conns[from].seat == NO_SEAT)
        return NULL;
    return &l->conns[from];
}

/* Is it the next one that c gets from that sender?  When it was begun is known
   of the last ones only, which one who is late does not look at. */
static int is_next(const load *l, const conn *c, const conn *sender,
                   uint32_t next)
{
    return word_get(c->stamp) == identity(l, sender, next) &&
           next < sender->sent &&
           (c->slow ||
            word_get(c->stamp + STAMP_WORD) == *time_of(l, sender, next));
}

static int message_fanned(load *l, conn *c)
{
    uint64_t word = word_get(c->stamp);
    conn *sender = sender_of(l, c, word);
    size_t talkers = (size_t)l->talkers;
    uint32_t *next;
    if (!sender)
        return conn_fail(l, c, "a message that nobody here has sent");
    next = &l->next[c->id * talkers + sender->seat % talkers];
    if (!is_next(l, c, sender, *next))
        return conn_fail(l, c,
                         "message %llu of sender %llu came when %u was next",
                         (unsigned long long)(word & 0x7ffffffffff),
                         (unsigned long long)(word >> 43), (unsigned)*next);
    c->got++;
    if (c->slow) {
        l->moved = l->now;
        (*next)++;
        if (c->got == l->sent)
            l->behind--;
        return 0;
    }
    drive_record(l, word_get(c->stamp + STAMP_WORD));
    message_delivered(l, sender, (*next)++);
    return 0;
}

/* ---- snapshots */

static uint64_t little_get(const uint8_t *p)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

/* The first one tells how long they are and with which number they begin. */
static int message_snapshot(load *l, conn *c)
{
    uint64_t number = little_get(c->stamp), then = little_get(c->stamp + 8);
    if (l->snapshot_size == 0)
        l->snapshot_size = c->at;
    if (c->at < SNAPSHOT_MIN || c->at != l->snapshot_size)
        return conn_fail(l, c, "a snapshot has %zu bytes, not %zu", c->at,
                         c->at < SNAPSHOT_MIN ? (size_t)SNAPSHOT_MIN
                                              : l->snapshot_size);
    if (c->got > 0 && number != c->sequence + 1)
        return conn_fail(l, c, "snapshot %llu came behind %llu",
                         (unsigned long long)number,
                         (unsigned long long)c->sequence);
    if (then > l->now || (double)(l->now - then) > l->set.timeout * 1e9)
        return conn_fail(l, c, "snapshot %llu has no time of these %g s",
                         (unsigned long long)number, l->set.timeout);
    c->sequence = number;
    c->since = l->now;
    c->got++;
    drive_record(l, then);
    return 0;
}

static int message_end(load *l, conn *c)
{
    int bad = 0;
    c->within = 0;
    if (is_ours(l) && c->at != (size_t)l->set.size)
        return conn_fail(l, c, "reply %llu has %zu bytes, not %ld",
                         (unsigned long long)c->got, c->at, l->set.size);
    if (is_echo(l))
        bad = message_echoed(l, c);
    else if (is_fan(l))
        bad = message_fanned(l, c);
    else if (l->set.scenario == SCENE_MIXED)
        bad = message_snapshot(l, c);
    else if (c->type != 'u')
        c->got++;
    if (l->set.resume && c->type != 'u' && bad == 0)
        ack_count(l, c);
    return bad;
}

static int closed_by_server(load *l, conn *c, size_t len)
{
    unsigned code = 1005;
    if (c->state == CONN_CLOSING) {
        c->end_seen = 1;
        return 0;
    }
    if (len >= 2)
        code = (unsigned)(c->control_in[0] << 8 | c->control_in[1]);
    return conn_lost(l, c, "the server closed it: %u %.*s", code,
                     len > 2 ? (int)len - 2 : 0,
                     (const char *)c->control_in + 2);
}

static int control_end(load *l, conn *c)
{
    if (c->op == OP_CLOSE)
        return closed_by_server(l, c, c->control_in_len);
    if (c->op == OP_PING && c->state == CONN_OPEN)
        wire_control(c, OP_PONG, c->control_in, c->control_in_len);
    return 0;
}

/* "w" token SP public SP "0 0 new" SP ping: a session begins. */
static int welcomed(load *l, conn *c)
{
    const char *text = (const char *)c->control_in;
    char token[24] = "", who[24] = "", same[LETTER_MAX + 1];
    unsigned long long ping = 0;
    sscanf(text, "%23s %23s 0 0 new %16llu", token, who, &ping);
    snprintf(same, sizeof same, "%s %s 0 0 new %llu", token, who, ping);
    if (strcmp(text, same) != 0 || strlen(text) != c->control_in_len)
        return conn_fail(l, c, "the welcome is no new session's");
    l->silence = ping * 1000000;
    c->said = l->now;
    c->ack_owed = 1; /* a0, whatever follows */
    conn_opened(l, c);
    return c->fd < 0 ? -1 : 0;
}

/* "a" number: the server has so many. */
static int acknowledged(load *l, conn *c)
{
    const char *text = (const char *)c->control_in;
    uint64_t begun = c->sent + (c->out_at > 0);
    char same[24];
    unsigned long long a = 0;
    sscanf(text, "%16llu", &a);
    snprintf(same, sizeof same, "%llu", a);
    if (strcmp(text, same) != 0 || strlen(text) != c->control_in_len)
        return conn_fail(l, c, "an acknowledgement that is no number");
    if (a < c->known || a > begun)
        return conn_fail(l, c, "it acknowledges %llu, not %llu to %llu", a,
                         (unsigned long long)c->known,
                         (unsigned long long)begun);
    c->known = a;
    l->acks_received++;
    return 0;
}

static int letter_end(load *l, conn *c)
{
    c->control_in[c->control_in_len] = 0;
    return c->type == 'w' ? welcomed(l, c) : acknowledged(l, c);
}

static int frame_end(load *l, conn *c)
{
    if (c->op == OP_LETTER)
        return letter_end(l, c);
    if (c->op >= OP_CLOSE)
        return control_end(l, c);
    return c->fin ? message_end(l, c) : 0;
}

static int control_begin(load *l, conn *c)
{
    c->control_in_len = 0;
    if (!c->fin || c->left > CONTROL_MAX || c->op > OP_PONG)
        return conn_fail(l, c, "a bad frame: opcode %d, %llu bytes", c->op,
                         (unsigned long long)c->left);
    return c->left == 0 ? frame_end(l, c) : 0;
}

/* The header in c->op, c->fin and c->left is complete. */
static int frame_begin(load *l, conn *c)
{
    if (c->op >= OP_CLOSE)
        return control_begin(l, c);
    if (c->op > OP_BINARY || (c->op == 0) != c->within)
        return conn_fail(l, c, "a bad frame: opcode %d %s a message", c->op,
                         c->within ? "within" : "outside");
    if (c->op != 0 && c->op != reply_op(l) && is_checked(l))
        return conn_fail(l, c, "reply %llu is of the other kind",
                         (unsigned long long)c->got);
    if (c->op != 0)
        message_begin(c);
    if (is_ours(l) && c->left > (uint64_t)l->set.size - c->at)
        return conn_fail(l, c, "reply %llu has at least %llu bytes, not %ld",
                         (unsigned long long)c->got,
                         (unsigned long long)(c->at + c->left), l->set.size);
    return c->left == 0 ? frame_end(l, c) : 0;
}

/* May a message of rtnet.1 begin with that byte now? */
static int is_expected(const load *l, const conn *c, int type)
{
    if (c->state == CONN_GREETING || type == 'w')
        return c->state == CONN_GREETING && type == 'w';
    return type == 'm' || type == 'a' || (type == 'u' && !is_checked(l));
}

/* As frame_begin for the first frame of a message of rtnet.1, whose type
   stands behind the header. */
static int typed_begin(load *l, conn *c, uint8_t type)
{
    int letter = type == 'w' || type == 'a';
    if (c->left == 0 || !is_expected(l, c, type))
        return conn_fail(l, c, "a message of type %02x came", type);
    c->type = type;
    c->left--;
    if (!letter)
        return frame_begin(l, c);
    if (c->op != OP_TEXT || !c->fin || c->within || c->left > LETTER_MAX)
        return conn_fail(l, c, "a bad frame for type %c: opcode %d, %llu bytes",
                         type, c->op, (unsigned long long)c->left);
    c->op = OP_LETTER;
    c->control_in_len = 0;
    return c->left == 0 ? frame_end(l, c) : 0;
}

/* The size of the header whose first two bytes are known. */
static size_t head_size(const uint8_t *p)
{
    return (p[1] & 0x7f) < 126 ? 2 : (p[1] & 0x7f) == 126 ? 4 : 10;
}

/* Whether the type of a message of rtnet.1 follows the header. */
static int is_typed(const load *l, const uint8_t *p)
{
    int op = p[0] & 15;
    return l->set.resume && (op == OP_TEXT || op == OP_BINARY);
}

/* How many bytes are looked at together; an empty message has no type. */
static size_t head_need(const load *l, const uint8_t *p)
{
    return head_size(p) + (is_typed(l, p) && (p[1] & 0x7f) != 0);
}

static int head_end(load *l, conn *c)
{
    const uint8_t *p = c->head;
    size_t size = head_size(p);
    if (p[0] & 0x70 || p[1] & 0x80)
        return conn_fail(l, c, "a bad frame: it begins with %02x %02x", p[0],
                         p[1]);
    c->head_len = 0;
    c->fin = p[0] >> 7;
    c->op = p[0] & 15;
    c->left = size == 2 ? p[1] : 0;
    for (size_t i = 2; i < size; i++)
        c->left = c->left << 8 | p[i];
    if (is_typed(l, p))
        return typed_begin(l, c, c->left ? p[size] : 0);
    return frame_begin(l, c);
}

/* Takes bytes of a header; returns how many, or -1. */
static ptrdiff_t feed_head(load *l, conn *c, const uint8_t *p, size_t n)
{
    size_t used = 0;
    while (used < n) {
        c->head[c->head_len++] = p[used++];
        if (c->head_len >= 2 && c->head_len == head_need(l, c->head))
            return head_end(l, c) < 0 ? -1 : (ptrdiff_t)used;
    }
    return (ptrdiff_t)used;
}

static ptrdiff_t feed_payload(load *l, conn *c, const uint8_t *p, size_t n)
{
    if (n > c->left)
        n = (size_t)c->left;
    c->left -= n;
    if (c->op >= OP_CLOSE) {
        memcpy(c->control_in + c->control_in_len, p, n);
        c->control_in_len = (uint8_t)(c->control_in_len + n);
    } else if (message_part(l, c, p, n) < 0) {
        return -1;
    }
    if (c->left == 0 && frame_end(l, c) < 0)
        return -1;
    return (ptrdiff_t)n;
}

/* Does what is at p begin as a reply in one frame does? */
static int is_usual(const load *l, const uint8_t *p)
{
    size_t len = l->reply_head_len;
    if (len < 2)
        return 1;
    if (p[0] != l->reply_head[0] || p[1] != l->reply_head[1])
        return 0;
    return len == 2 || memcmp(p + 2, l->reply_head + 2, len - 2) == 0;
}

/* The main line: replies that are one frame each and lie whole in the buffer.
   Takes as many as there are; returns their bytes, or -1. */
static ptrdiff_t feed_whole(load *l, conn *c, const uint8_t *p, size_t n)
{
    size_t used = 0, size = (size_t)l->set.size;
    size_t whole = l->reply_head_len + size;
    while (n - used >= whole && is_usual(l, p + used)) {
        message_begin(c);
        if (message_part(l, c, p + used + l->reply_head_len, size) < 0 ||
            message_end(l, c) < 0)
            return -1;
        used += whole;
    }
    return (ptrdiff_t)used;
}

/* Without WebSocket, messages are told apart by their size. */
static void raw_begin(const load *l, conn *c)
{
    message_begin(c);
    c->op = (uint8_t)message_op(l);
    c->fin = 1;
    c->left = (uint64_t)l->set.size;
}

int wire_feed(load *l, conn *c, const uint8_t *p, size_t n)
{
    while (n > 0 && !c->end_seen) {
        ptrdiff_t used = 0;
        if (c->left > 0)
            used = feed_payload(l, c, p, n);
        else if (c->head_len == 0 && !c->within && is_ours(l) &&
                 c->state != CONN_GREETING)
            used = feed_whole(l, c, p, n);
        if (used == 0 && l->set.raw)
            raw_begin(l, c);
        else if (used == 0)
            used = feed_head(l, c, p, n);
        if (used < 0)
            return -1;
        p += used;
        n -= (size_t)used;
    }
    return 0;
}

size_t wire_want(const load *l, const conn *c)
{
    int next = is_echo(l) && c->state == CONN_OPEN && c->left == 0 &&
               c->head_len == 0 && !c->within && !is_sample(c);
    if (!next || l->set.size < SKIP_MIN)
        return IN_MAX;
    return l->reply_head_len + l->look_len;
}

uint64_t wire_skippable(const load *l, const conn *c)
{
    if (c->op >= OP_CLOSE || c->checking || c->at < l->look_len)
        return 0;
    return c->left;
}

int wire_skip(load *l, conn *c, size_t n)
{
    c->left -= n;
    c->at += n;
    return c->left == 0 ? frame_end(l, c) : 0;
}
