/*
 * Messages and frames.  Every message has the same payload except for its
 * stamp, the first bytes: in echo the numbers of the connection and of the
 * message; in fanout the numbers of the sender and of the message, then the
 * time.  So a reply tells which message it answers, and a fan-out how long it
 * took, without any state.  All frames use one mask: a server has to undo it
 * all the same, and preparing is what keeps this side cheap.
 */
#include "rtload.h"
#include <stdlib.h>

enum { OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

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

static void word_put(uint8_t *p, uint64_t value)
{
    for (int i = 0; i < STAMP_WORD; i++)
        p[i] = (uint8_t)(value >> 7 * i & 0x7f);
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
    return &l->times[c->id * depth + message % depth];
}

/* 20 bits tell connections apart, 43 the messages of one. */
static uint64_t identity(const conn *c, uint64_t message)
{
    return (uint64_t)c->id << 43 | (message & (((uint64_t)1 << 43) - 1));
}

static void stamp_make(const load *l, const conn *c, uint64_t message,
                       uint8_t *out)
{
    if (l->stamp_len >= STAMP_WORD)
        word_put(out, identity(c, message));
    if (l->stamp_len >= STAMP_MAX)
        word_put(out + STAMP_WORD, *time_of(l, c, message));
}

static void stamp_mask(const load *l, uint8_t *p)
{
    if (l->set.raw)
        return;
    for (size_t i = 0; i < l->stamp_len; i++)
        p[i] ^= mask[i & 3];
}

static void fill(load *l, size_t size)
{
    uint32_t seed = 1;
    if (!l->set.raw) {
        l->head_len = head_put(l->frame, message_op(l), size, 1);
        l->reply_head_len = head_put(l->reply_head, message_op(l), size, 0);
    }
    l->frame_len = l->head_len + size;
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        l->plain[i] = (uint8_t)(seed >> 24);
        if (l->set.text)
            l->plain[i] = (uint8_t)('a' + l->plain[i] % 26);
        l->frame[l->head_len + i] =
            l->set.raw ? l->plain[i] : l->plain[i] ^ mask[i & 3];
    }
}

int wire_init(load *l)
{
    size_t size = (size_t)l->set.size;
    l->stamp_len = l->set.scenario == SCENE_FANOUT ? STAMP_MAX : STAMP_WORD;
    if (size < l->stamp_len)
        l->stamp_len = 0;
    l->frame = malloc(size + HEAD_MAX);
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

int wire_gather(load *l, const conn *c, struct iovec *iov)
{
    gather g = {iov, 0, 0, c->out_at};
    size_t copied = copied_part(l);
    for (uint64_t m = c->sent; m < c->begun; m++) {
        uint8_t *p = l->out + g.used;
        if (g.used + copied > OUT_MAX || g.count + 2 > IOV_COUNT)
            break;
        memcpy(p, l->frame, copied);
        stamp_make(l, c, m, p + l->head_len);
        stamp_mask(l, p + l->head_len);
        gather_piece(&g, p, copied);
        gather_piece(&g, l->frame + copied, l->frame_len - copied);
        g.used += copied;
    }
    return g.count;
}

void wire_written(load *l, conn *c, size_t n)
{
    n += c->out_at;
    if (n == l->frame_len) { /* the usual case spares a division */
        c->out_at = 0;
        c->sent++;
        l->sent++;
        return;
    }
    c->sent += n / l->frame_len;
    l->sent += n / l->frame_len;
    c->out_at = n % l->frame_len;
}

void wire_control(conn *c, int op, const uint8_t *data, size_t len)
{
    /* One that is half written stays; the next ping gets its answer. */
    if (c->control_at > 0)
        return;
    c->control[0] = (uint8_t)(0x80 | op);
    c->control[1] = (uint8_t)(0x80 | len);
    memcpy(c->control + 2, mask, 4);
    for (size_t i = 0; i < len; i++)
        c->control[6 + i] = data[i] ^ mask[i & 3];
    c->control_len = (uint8_t)(6 + len);
}

/* ---- in */

/* Scenarios in which the server has nothing to say take whatever it says. */
static int is_checked(const load *l)
{
    return l->set.scenario <= SCENE_FANOUT;
}

static void message_begin(conn *c)
{
    c->within = 1;
    c->at = 0;
    c->checking = c->got == 0 || (c->got + c->id) % SAMPLE == 0;
}

/* Compares or passes over a part of the payload, and keeps the stamp. */
static int message_part(load *l, conn *c, const uint8_t *p, size_t n)
{
    size_t at = c->at, stamp = 0;
    c->at += n;
    if (at < l->stamp_len) {
        stamp = l->stamp_len - at < n ? l->stamp_len - at : n;
        memcpy(c->stamp + at, p, stamp);
    }
    if (c->checking && is_checked(l) &&
        memcmp(p + stamp, l->plain + at + stamp, n - stamp) != 0)
        return conn_fail(l, c, "reply %llu: the contents are not those sent",
                         (unsigned long long)c->got);
    return 0;
}

static int message_echoed(load *l, conn *c)
{
    uint8_t want[STAMP_MAX];
    if (c->got >= c->sent)
        return conn_fail(l, c, "reply %llu came before its message was sent",
                         (unsigned long long)c->got);
    stamp_make(l, c, c->got, want);
    if (memcmp(want, c->stamp, l->stamp_len) != 0)
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
    if (--l->missing[sender->id * depth + message % depth] > 0)
        return;
    sender->done++;
    l->refill = 1;
}

static int message_fanned(load *l, conn *c)
{
    uint64_t word = word_get(c->stamp), from = word >> 43;
    uint64_t begun = word_get(c->stamp + STAMP_WORD);
    uint32_t *next;
    if (from >= (uint64_t)l->senders || c->stamp[0] & 0x80)
        return conn_fail(l, c, "a message that nobody here has sent");
    next = &l->next[c->id * (size_t)l->senders + from];
    if (word != identity(&l->conns[from], *next) ||
        *next >= l->conns[from].sent ||
        begun != *time_of(l, &l->conns[from], *next))
        return conn_fail(l, c,
                         "message %llu of sender %llu came when %u was next",
                         (unsigned long long)(word & 0x7ffffffffff),
                         (unsigned long long)from, (unsigned)*next);
    drive_record(l, begun);
    message_delivered(l, &l->conns[from], (*next)++);
    c->got++;
    return 0;
}

static int message_end(load *l, conn *c)
{
    c->within = 0;
    if (is_checked(l) && c->at != (size_t)l->set.size)
        return conn_fail(l, c, "reply %llu has %zu bytes, not %ld",
                         (unsigned long long)c->got, c->at, l->set.size);
    if (l->set.scenario == SCENE_ECHO)
        return message_echoed(l, c);
    if (l->set.scenario == SCENE_FANOUT)
        return message_fanned(l, c);
    c->got++;
    return 0;
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
    return conn_fail(l, c, "the server closed it: %u %.*s", code,
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

static int frame_end(load *l, conn *c)
{
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
    if (c->op != 0 && c->op != message_op(l) && is_checked(l))
        return conn_fail(l, c, "reply %llu is of the other kind",
                         (unsigned long long)c->got);
    if (c->op != 0)
        message_begin(c);
    if (is_checked(l) && c->left > (uint64_t)l->set.size - c->at)
        return conn_fail(l, c, "reply %llu has at least %llu bytes, not %ld",
                         (unsigned long long)c->got,
                         (unsigned long long)(c->at + c->left), l->set.size);
    return c->left == 0 ? frame_end(l, c) : 0;
}

/* The size of the header whose first two bytes are known. */
static size_t head_size(const uint8_t *p)
{
    return (p[1] & 0x7f) < 126 ? 2 : (p[1] & 0x7f) == 126 ? 4 : 10;
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
    return frame_begin(l, c);
}

/* Takes bytes of a header; returns how many, or -1. */
static ptrdiff_t feed_head(load *l, conn *c, const uint8_t *p, size_t n)
{
    size_t used = 0;
    while (used < n) {
        c->head[c->head_len++] = p[used++];
        if (c->head_len >= 2 && c->head_len == head_size(c->head))
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

/* The main line: replies that are one frame each and lie whole in the buffer.
   Takes as many as there are; returns their bytes, or -1. */
static ptrdiff_t feed_whole(load *l, conn *c, const uint8_t *p, size_t n)
{
    size_t used = 0, size = (size_t)l->set.size;
    size_t whole = l->reply_head_len + size;
    while (n - used >= whole &&
           memcmp(p + used, l->reply_head, l->reply_head_len) == 0) {
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
        else if (c->head_len == 0 && !c->within && is_checked(l))
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

uint64_t wire_skippable(const load *l, const conn *c)
{
    if (c->op >= OP_CLOSE || c->checking || c->at < l->stamp_len)
        return 0;
    return c->left;
}

int wire_skip(load *l, conn *c, size_t n)
{
    c->left -= n;
    c->at += n;
    return c->left == 0 ? frame_end(l, c) : 0;
}
