/*
 * Scripted WebSocket ends for the simulated kernel, both roles, written
 * against RFC 6455 and independent of the library.  Strict towards the
 * library: what it sends against the protocol is a fault of the world.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The example of RFC 6455, 1.3: the answer to this key is known. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

/* ---- bytes -------------------------------------------------------------- */

static void add(struct ws_bytes *b, const void *data, size_t n)
{
    if (!n)
        return;
    if (b->len + n > b->cap) {
        b->cap = 2 * (b->len + n);
        b->at = realloc(b->at, b->cap);
        if (!b->at)
            exit(2);
    }
    memcpy(b->at + b->len, data, n);
    b->len += n;
}

static void drop(struct ws_bytes *b, size_t n)
{
    b->len -= n;
    if (b->len)
        memmove(b->at, b->at + n, b->len);
}

/* ---- SHA-1 and base64, for the server's answer -------------------------- */

static uint32_t rol(uint32_t x, int n)
{
    return x << n | x >> (32 - n);
}

static uint32_t sha1_mix(int i, uint32_t b, uint32_t c, uint32_t d)
{
    if (i < 20)
        return ((b & c) | (~b & d)) + 0x5a827999;
    if (i < 40)
        return (b ^ c ^ d) + 0x6ed9eba1;
    if (i < 60)
        return ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
    return (b ^ c ^ d) + 0xca62c1d6;
}

static void sha1_block(uint32_t h[5], const uint8_t *p)
{
    uint32_t w[80], x[5], t;
    int i;

    for (i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
               (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (; i < 80; i++)
        w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    memcpy(x, h, sizeof x);
    for (i = 0; i < 80; i++) {
        t = rol(x[0], 5) + sha1_mix(i, x[1], x[2], x[3]) + x[4] + w[i];
        x[4] = x[3];
        x[3] = x[2];
        x[2] = rol(x[1], 30);
        x[1] = x[0];
        x[0] = t;
    }
    for (i = 0; i < 5; i++)
        h[i] += x[i];
}

/* Of one text of less than 120 bytes. */
static void sha1(const char *text, uint8_t out[20])
{
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476,
                     0xc3d2e1f0};
    uint8_t block[128] = {0};
    size_t n = strlen(text), size = n < 56 ? 64 : 128;
    int i;

    memcpy(block, text, n);
    block[n] = 0x80;
    block[size - 2] = (uint8_t)(n * 8 >> 8);
    block[size - 1] = (uint8_t)(n * 8);
    sha1_block(h, block);
    if (size > 64)
        sha1_block(h, block + 64);
    for (i = 0; i < 20; i++)
        out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* The 20 bytes of a digest make 28 characters. */
static void base64(const uint8_t in[20], char out[29])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t v;
    int i, k;

    for (i = 0; i < 7; i++) {
        v = (uint32_t)in[3 * i] << 16 | (uint32_t)in[3 * i + 1] << 8;
        v |= i < 6 ? in[3 * i + 2] : 0U;
        for (k = 0; k < 4; k++)
            out[4 * i + k] = digits[v >> (18 - 6 * k) & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

void ws_accept_of(const char *key, char out[29])
{
    uint8_t digest[20];
    char text[80];

    snprintf(text, sizeof text, "%.24s" GUID, key);
    sha1(text, digest);
    base64(digest, out);
}

/* ---- the handshake ------------------------------------------------------ */

const char *ws_request(const char *path)
{
    static char text[512];

    snprintf(text, sizeof text,
             "GET %s HTTP/1.1\r\nHost: game\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Key: " KEY "\r\n"
             "Sec-WebSocket-Version: 13\r\n\r\n",
             path);
    return text;
}

/* Where the blank line ends, or 0. */
static size_t head_size(const struct ws_bytes *b)
{
    size_t i;

    for (i = 4; i <= b->len; i++) {
        if (memcmp(b->at + i - 4, "\r\n\r\n", 4) == 0)
            return i;
    }
    return 0;
}

/* The value of a header in a text; the library's own spelling of it. */
static const char *header(const char *head, const char *name)
{
    const char *at = strstr(head, name);

    return at ? at + strlen(name) : "";
}

static void answer_read(ws_peer *w, const char *head)
{
    if (sscanf(head, "HTTP/1.1 %d", &w->status) != 1)
        sim_fault("an answer without a status: %.40s", head);
    if (w->status != 101)
        return;
    w->open = 1;
    if (strncmp(header(head, "Sec-WebSocket-Accept: "), ACCEPT "\r",
                sizeof ACCEPT) != 0)
        sim_fault("wrong Sec-WebSocket-Accept");
}

static void request_read(ws_peer *w, const char *head)
{
    const char *key = header(head, "Sec-WebSocket-Key: ");
    char accept[29], text[256];

    if (strncmp(head, "GET /", 5) != 0 || strcspn(key, "\r") != 24)
        sim_fault("a request without method or key: %.40s", head);
    ws_accept_of(key, accept);
    snprintf(text, sizeof text,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
             accept);
    add(&w->out, text, strlen(text));
    w->status = 101;
    w->open = 1;
}

/* True when the head was there. */
static int handshake(ws_peer *w)
{
    size_t n = head_size(&w->in);
    char head[4096];

    if (!n || w->status)
        return 0;
    snprintf(head, sizeof head, "%.*s", (int)n, (const char *)w->in.at);
    drop(&w->in, n);
    if (w->server)
        request_read(w, head);
    else
        answer_read(w, head);
    return 1;
}

/* ---- frames out --------------------------------------------------------- */

static size_t head_make(uint8_t *h, int first, size_t len)
{
    size_t i, n = len < 126 ? 0 : len < 65536 ? 2 : 8;

    h[0] = (uint8_t)first;
    h[1] = (uint8_t)(n ? (n == 2 ? 126 : 127) : len);
    for (i = 0; i < n; i++)
        h[2 + i] = (uint8_t)((uint64_t)len >> 8 * (n - 1 - i));
    return 2 + n;
}

void ws_frame(ws_peer *w, int first, const void *data, size_t len)
{
    uint8_t head[14], *body;
    size_t i, n = head_make(head, first, len), at;

    if (!w->server) {
        head[1] |= 0x80;
        for (i = 0; i < 4; i++)
            head[n++] = (uint8_t)sim_choose(256);
    }
    add(&w->out, head, n);
    at = w->out.len;
    add(&w->out, data, len);
    if (w->server)
        return;
    body = w->out.at + at;
    for (i = 0; i < len; i++)
        body[i] ^= head[n - 4 + i % 4];
}

void ws_send(ws_peer *w, int op, const void *data, size_t len)
{
    ws_frame(w, 0x80 | op, data, len);
}

void ws_close(ws_peer *w, int code)
{
    uint8_t body[2];

    if (w->close_sent)
        return;
    w->close_sent = 1;
    body[0] = (uint8_t)(code >> 8);
    body[1] = (uint8_t)code;
    ws_send(w, WS_CLOSE, body, code ? 2 : 0);
}

void ws_raw(ws_peer *w, const void *data, size_t len)
{
    add(&w->out, data, len);
}

/* ---- frames in ---------------------------------------------------------- */

struct frame {
    int fin, op;
    size_t head, len;
    const uint8_t *mask;
};

/* Reads the 2 or 8 bytes of a longer length. */
static uint64_t long_length(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    size_t i;

    for (i = 0; i < n; i++)
        v = v << 8 | p[i];
    if (v < (n == 2 ? 126U : 65536U))
        sim_fault("a length in more bytes than it needs");
    return v;
}

/* True when a whole frame is there. */
static int frame_read(const ws_peer *w, struct frame *f)
{
    const uint8_t *p = w->in.at;
    size_t more;

    if (w->in.len < 2)
        return 0;
    more = (p[1] & 127) == 126 ? 2 : (p[1] & 127) == 127 ? 8 : 0;
    f->head = 2 + more + (w->server ? 4 : 0);
    if (w->in.len < f->head)
        return 0;
    if (!!(p[1] & 0x80) != w->server)
        sim_fault("a frame is masked for the wrong role");
    if (p[0] & 0x70)
        sim_fault("a reserved bit is set: %#x", p[0]);
    f->fin = p[0] >> 7;
    f->op = p[0] & 15;
    f->len = more ? (size_t)long_length(p + 2, more) : p[1] & 127;
    f->mask = p + f->head - 4;
    return w->in.len - f->head >= f->len;
}

static void close_came(ws_peer *w, const uint8_t *data, size_t len)
{
    if (len == 1 || w->close_code)
        sim_fault("a close of 1 byte, or a second one");
    w->close_code = len < 2 ? 1005 : data[0] << 8 | data[1];
    if (len > 2)
        memcpy(w->reason, data + 2, len - 2);
    if (w->closes)
        ws_close(w, w->close_code == 1005 ? 0 : w->close_code);
}

static void control_came(ws_peer *w, const struct frame *f, const uint8_t *data)
{
    if (!f->fin || f->len > 125 || f->op > WS_PONG) {
        sim_fault("a bad control frame: opcode %d, %zu bytes", f->op, f->len);
        return;
    }
    w->pings_got += f->op == WS_PING;
    w->pongs_got += f->op == WS_PONG;
    if (f->op == WS_CLOSE)
        close_came(w, data, f->len);
    if (f->op == WS_PING && w->pongs && !w->close_sent)
        ws_send(w, WS_PONG, data, f->len);
    if (w->on)
        w->on(w, f->op, data, f->len);
}

static void data_came(ws_peer *w, const struct frame *f, const uint8_t *data)
{
    if (!f->op == !w->op || f->op > WS_BINARY) {
        sim_fault("opcode %d, while %d is under way", f->op, w->op);
        return;
    }
    w->op = f->op ? f->op : w->op;
    add(&w->message, data, f->len);
    if (!f->fin)
        return;
    if (w->on)
        w->on(w, w->op, w->message.at, w->message.len);
    w->message.len = 0;
    w->op = 0;
}

static void frame_came(ws_peer *w, const struct frame *f)
{
    uint8_t *data = w->in.at + f->head;
    size_t i;

    if (w->close_code)
        sim_fault("a frame after the close: opcode %d", f->op);
    for (i = 0; w->server && i < f->len; i++)
        data[i] ^= f->mask[i % 4];
    if (f->op & 8)
        control_came(w, f, data);
    else
        data_came(w, f, data);
}

/* ---- the life of a peer ------------------------------------------------- */

static ws_peer *peer_new(sim_peer *line)
{
    ws_peer *w = line ? calloc(1, sizeof *w) : NULL;

    if (!w)
        return NULL;
    w->line = line;
    w->reads = w->pongs = w->closes = 1;
    return w;
}

ws_peer *ws_connect_silent(int port)
{
    return peer_new(sim_connect(port));
}

ws_peer *ws_connect_from(int port, const char *address)
{
    return peer_new(sim_connect_from(port, address));
}

ws_peer *ws_connect(int port, const char *path)
{
    ws_peer *w = ws_connect_silent(port);

    if (w)
        add(&w->out, ws_request(path), strlen(ws_request(path)));
    return w;
}

ws_peer *ws_accept(int port)
{
    ws_peer *w = peer_new(sim_accept(port));

    if (w)
        w->server = 1;
    return w;
}

static void write_out(ws_peer *w)
{
    ptrdiff_t n = sim_peer_send(w->line, w->out.at, w->out.len);

    drop(&w->out, n > 0 ? (size_t)n : n < 0 ? w->out.len : 0);
}

static void read_in(ws_peer *w)
{
    uint8_t piece[4096];
    struct frame f;
    size_t n;

    while ((n = sim_peer_recv(w->line, piece, sizeof piece)) > 0)
        add(&w->in, piece, n);
    if (!w->open && !handshake(w))
        return;
    while (w->open && frame_read(w, &f)) {
        frame_came(w, &f);
        drop(&w->in, f.head + f.len);
    }
}

/* Once the other side is done with the line, so is an honest peer. */
static void line_end(ws_peer *w)
{
    w->last = sim_peer_state(w->line);
    if (w->last == SIM_UP || sim_peer_waiting(w->line))
        return;
    if (w->last == SIM_FIN && !w->closes)
        return;
    sim_peer_close(w->line);
    w->line = NULL;
}

void ws_pump(ws_peer *w)
{
    if (w->line && w->reads)
        read_in(w);
    if (w->line && w->out.len)
        write_out(w);
    if (w->line)
        line_end(w);
}

void ws_free(ws_peer *w)
{
    if (w->line)
        sim_peer_close(w->line);
    free(w->in.at);
    free(w->out.at);
    free(w->message.at);
    free(w);
}
