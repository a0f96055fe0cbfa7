/*
 * RFC 6455 and its HTTP/1.1 handshake, both roles.  The first half is pure:
 * bytes in, values out, no descriptor, loop, clock or memory.  The second
 * touches connections: the handshake (a rt__shake each), then frames.
 *
 * Invariants: a handshake's texts are places in its own buffer, so that they
 * live until it is freed; a frame is looked at once, its payload unmasked
 * where it stands or while it is copied; after our close nothing is sent.
 * Whatever an upcall does, its connection lives until the end of the turn, so
 * that after it the connection's state says whether to go on.
 */
#include "rtnet_internal.h"

#include <stdio.h>
#if RT__SSE2
#include <emmintrin.h>
#elif RT__NEON
#include <arm_neon.h>
#endif

/* ---- many bytes at a time: unmasking, and is it ASCII? ------------------ */

/* What the machine does at once, as four of its registers; and how much text
   that is not ASCII is gone through before ASCII is looked for again. */
enum { BLOCK = 64, PIECE = 16 };
#define HIGH_BITS 0x8080808080808080u

/* Any alignment will do, which a cast would not allow. */
static uint64_t load64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return x;
}

/* out = in ^ key for 8 bytes, out may be in; 0 where the result is ASCII. */
static uint64_t word_mask(uint8_t *out, const uint8_t *in, uint64_t key)
{
    uint64_t x = load64(in) ^ key;
    memcpy(out, &x, 8);
    return x & HIGH_BITS;
}

static uint64_t half_mask(uint8_t *out, const uint8_t *in, uint32_t key)
{
    uint32_t x;
    memcpy(&x, in, 4);
    x ^= key;
    memcpy(out, &x, 4);
    return x & (uint32_t)HIGH_BITS;
}

/* The same for a block: in words here, which every machine can; below in what
   is wider.  The two do the same, and the tests call both. */
static uint64_t words_mask(uint8_t *out, const uint8_t *in, uint64_t key)
{
    uint64_t high = 0;
    size_t i;
    for (i = 0; i < BLOCK; i += 8)
        high |= word_mask(out + i, in + i, key);
    return high;
}

/* 0 where a block is ASCII. */
static uint64_t words_high(const uint8_t *p)
{
    uint64_t high = 0;
    size_t i;
    for (i = 0; i < BLOCK; i += 8)
        high |= load64(p + i);
    return high & HIGH_BITS;
}

#if RT__SSE2
static __m128i quarter(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

static __m128i quarter_mask(uint8_t *out, const uint8_t *in, __m128i key)
{
    __m128i x = _mm_xor_si128(quarter(in), key);
    _mm_storeu_si128((__m128i *)out, x);
    return x;
}

static uint64_t block_mask(uint8_t *out, const uint8_t *in, uint64_t key)
{
    __m128i wide = _mm_set1_epi32((int)(uint32_t)key);
    __m128i a = quarter_mask(out, in, wide);
    __m128i b = quarter_mask(out + 16, in + 16, wide);
    __m128i c = quarter_mask(out + 32, in + 32, wide);
    __m128i d = quarter_mask(out + 48, in + 48, wide);
    a = _mm_or_si128(_mm_or_si128(a, b), _mm_or_si128(c, d));
    return (uint64_t)_mm_movemask_epi8(a);
}

static uint64_t block_high(const uint8_t *p)
{
    __m128i a = _mm_or_si128(quarter(p), quarter(p + 16));
    __m128i b = _mm_or_si128(quarter(p + 32), quarter(p + 48));
    return (uint64_t)_mm_movemask_epi8(_mm_or_si128(a, b));
}
#elif RT__NEON
static uint8x16_t quarter_mask(uint8_t *out, const uint8_t *in, uint8x16_t key)
{
    uint8x16_t x = veorq_u8(vld1q_u8(in), key);
    vst1q_u8(out, x);
    return x;
}

static uint64_t block_mask(uint8_t *out, const uint8_t *in, uint64_t key)
{
    uint8x16_t wide = vreinterpretq_u8_u64(vdupq_n_u64(key));
    uint8x16_t a = quarter_mask(out, in, wide);
    uint8x16_t b = quarter_mask(out + 16, in + 16, wide);
    uint8x16_t c = quarter_mask(out + 32, in + 32, wide);
    uint8x16_t d = quarter_mask(out + 48, in + 48, wide);
    a = vorrq_u8(vorrq_u8(a, b), vorrq_u8(c, d));
    return vmaxvq_u8(a) & 0x80;
}

static uint64_t block_high(const uint8_t *p)
{
    uint8x16_t a = vorrq_u8(vld1q_u8(p), vld1q_u8(p + 16));
    uint8x16_t b = vorrq_u8(vld1q_u8(p + 32), vld1q_u8(p + 48));
    return vmaxvq_u8(vorrq_u8(a, b)) & 0x80;
}
#else
#define block_mask words_mask
#define block_high words_high
#endif

static uint64_t bytes_mask(uint8_t *out, const uint8_t *in, size_t n,
                           const uint8_t *mask, size_t phase)
{
    unsigned int high = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        out[i] = (uint8_t)(in[i] ^ mask[(phase + i) & 3]);
        high |= out[i];
    }
    return high & 0x80;
}

/* First the bytes up to where the mask begins anew, so that it need not be
   turned, and byte order does not matter; nothing behind the n-th is touched:
   the next frame stands there.  Of nothing there may be no place to add to. */
static inline size_t mask_run(int wide, uint8_t *out, const uint8_t *in,
                              size_t n, const uint8_t *mask, size_t phase)
{
    size_t all = n, head = (0 - phase) & 3, ascii;
    uint64_t key, high;
    uint32_t half;
    if (n <= head)
        return bytes_mask(out, in, n, mask, phase) ? 0 : n;
    high = bytes_mask(out, in, head, mask, phase);
    ascii = high ? 0 : head;
    out += head;
    in += head;
    n -= head;
    memcpy(&half, mask, 4);
    key = half | (uint64_t)half << 32;
    for (; n >= BLOCK; n -= BLOCK, out += BLOCK, in += BLOCK) {
        high |= wide ? block_mask(out, in, key) : words_mask(out, in, key);
        ascii += high ? 0 : BLOCK;
    }
    for (; n >= 8; n -= 8, out += 8, in += 8)
        high |= word_mask(out, in, key);
    if (n >= 4) {
        high |= half_mask(out, in, half);
        n -= 4;
        out += 4;
        in += 4;
    }
    high |= bytes_mask(out, in, n, mask, 0);
    return high ? ascii : all;
}

/* out = in ^ mask, out may be in; phase: where in the payload in begins.
   Returns how many bytes of the result are surely ASCII: n, or up to a block
   where some are not.  A text's check begins there, and mostly has ended. */
size_t rt__mask(uint8_t *out, const uint8_t *in, size_t n,
                const uint8_t mask[4], size_t phase)
{
    return mask_run(1, out, in, n, mask, phase);
}

/* The same on every machine; for the tests. */
size_t rt__mask_words(uint8_t *out, const uint8_t *in, size_t n,
                      const uint8_t mask[4], size_t phase)
{
    return mask_run(0, out, in, n, mask, phase);
}

/* How many bytes are surely ASCII; up to 7 more may be.  The last word is
   looked at with some bytes of the one before. */
static inline size_t ascii_run(int wide, const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (n - i >= BLOCK && !(wide ? block_high(p + i) : words_high(p + i)))
        i += BLOCK;
    while (n - i >= 8 && !(load64(p + i) & HIGH_BITS))
        i += 8;
    if (n >= 8 && n - i < 8 && !(load64(p + n - 8) & HIGH_BITS))
        return n;
    return i;
}

/* ---- UTF-8 (RFC 3629) --------------------------------------------------- */

/* What may follow, each state being where its successor stands in a byte's
   row of 64 bits: nothing any more, a new character, 1 to 3 continuations; the
   last four are narrower at their first, which keeps out overlong forms,
   surrogates and what is above U+10FFFF.  (c0 and c1 can only begin overlong
   forms.)  So a byte costs one shift, whatever the text. */
enum {
    DEAD = 0,
    WHOLE = 6,
    ONE = 12,
    TWO = 18,
    THREE = 24,
    AFTER_E0 = 30,
    AFTER_ED = 36,
    AFTER_F0 = 42,
    AFTER_F4 = 48
};
#define STEP(from, to) ((uint64_t)(to) << (from))
#define TAIL (STEP(ONE, WHOLE) | STEP(TWO, ONE) | STEP(THREE, TWO))
#define TIMES2(x) x, x
#define TIMES4(x) TIMES2(x), TIMES2(x)
#define TIMES8(x) TIMES4(x), TIMES4(x)
#define TIMES16(x) TIMES8(x), TIMES8(x)
#define TIMES64(x) TIMES16(x), TIMES16(x), TIMES16(x), TIMES16(x)

static const uint64_t utf8_rows[256] = {
    TIMES64(STEP(WHOLE, WHOLE)),                               /* 00 */
    TIMES64(STEP(WHOLE, WHOLE)),                               /* 40 */
    TIMES16(TAIL | STEP(AFTER_ED, ONE) | STEP(AFTER_F4, TWO)), /* 80 */
    TIMES16(TAIL | STEP(AFTER_ED, ONE) | STEP(AFTER_F0, TWO)), /* 90 */
    TIMES16(TAIL | STEP(AFTER_E0, ONE) | STEP(AFTER_F0, TWO)), /* a0 */
    TIMES16(TAIL | STEP(AFTER_E0, ONE) | STEP(AFTER_F0, TWO)), /* b0 */
    TIMES2(DEAD),                                              /* c0 */
    TIMES2(STEP(WHOLE, ONE)),                                  /* c2 */
    TIMES4(STEP(WHOLE, ONE)),                                  /* c4 */
    TIMES8(STEP(WHOLE, ONE)),                                  /* c8 */
    TIMES16(STEP(WHOLE, ONE)),                                 /* d0 */
    STEP(WHOLE, AFTER_E0),                                     /* e0 */
    TIMES4(STEP(WHOLE, TWO)),                                  /* e1 */
    TIMES8(STEP(WHOLE, TWO)),                                  /* e5 */
    STEP(WHOLE, AFTER_ED),                                     /* ed */
    TIMES2(STEP(WHOLE, TWO)),                                  /* ee */
    STEP(WHOLE, AFTER_F0),                                     /* f0 */
    TIMES2(STEP(WHOLE, THREE)),                                /* f1 */
    STEP(WHOLE, THREE),                                        /* f3 */
    STEP(WHOLE, AFTER_F4) /* f4, and the others are dead */
};

static uint64_t utf8_step(uint64_t state, uint8_t b)
{
    return utf8_rows[b] >> (state & 63);
}

/* A loop costs more than the shift in it, and how much, depends on where the
   compiler places it. */
static uint64_t utf8_four(uint64_t state, const uint8_t *p)
{
    state = utf8_step(utf8_step(state, p[0]), p[1]);
    return utf8_step(utf8_step(state, p[2]), p[3]);
}

/* Goes on with n more bytes; 0 as soon as no continuation can be valid.  The
   text may end where u->need is 0.  Frames may cut a character in two (RFC
   6455, 5.6), so that its state is kept in u from one to the next. */
static inline int utf8_run(int wide, rt__utf8 *u, const uint8_t *p, size_t n)
{
    uint64_t state = u->need ^ (unsigned int)WHOLE;
    size_t i = 0, end;
    while (i < n && state != DEAD) {
        if (state == WHOLE)
            i += ascii_run(wide, p + i, n - i);
        end = n - i < PIECE ? n : i + PIECE;
        for (; end - i >= 4; i += 4)
            state = utf8_four(state, p + i);
        for (; i < end; i++)
            state = utf8_step(state, p[i]);
        state &= 63;
    }
    u->need = (uint8_t)(state ^ WHOLE);
    return state != DEAD;
}

int rt__utf8_feed(rt__utf8 *u, const uint8_t *p, size_t n)
{
    return utf8_run(1, u, p, n);
}

/* The same on every machine; for the tests. */
int rt__utf8_feed_words(rt__utf8 *u, const uint8_t *p, size_t n)
{
    return utf8_run(0, u, p, n);
}

int rt__utf8_valid(const void *p, size_t n)
{
    rt__utf8 u = {0};
    return rt__utf8_feed(&u, (const uint8_t *)p, n) && u.need == 0;
}

/* ---- frames (RFC 6455, 5.2) --------------------------------------------- */

static uint64_t frame_length(const uint8_t *p, size_t bytes)
{
    uint64_t len = 0;
    size_t i;
    for (i = 0; i < bytes; i++)
        len = len << 8 | p[i];
    return len;
}

/* Reads a frame's head: > 0 its size, 0 more is needed, < 0 it breaks the RFC.
   masked: whether this role must find a mask (5.1).  Each byte is judged when
   it is there, so that a wrong frame is not waited for. */
int rt__frame_read(const uint8_t *p, size_t n, int masked, rt__frame *f)
{
    size_t wide, size;
    if (n < 1)
        return 0;
    f->fin = p[0] >> 7;
    f->op = p[0] & 15;
    /* RSV bits belong to extensions, of which there are none; opcodes 3 to 7
       and 11 to 15 are reserved; control frames come in one piece (5.5). */
    if (p[0] & 0x70 || (f->op & 7) > 2 || (f->op & 8 && !f->fin))
        return -1;
    if (n < 2)
        return 0;
    f->masked = p[1] >> 7;
    f->len = p[1] & 127;
    if (f->masked != masked || (f->op & 8 && f->len > RT__CONTROL))
        return -1;
    wide = f->len == 126 ? 2 : f->len == 127 ? 8 : 0;
    size = 2 + wide + (masked ? 4 : 0);
    if (n < size)
        return 0;
    if (wide)
        f->len = frame_length(p + 2, wide);
    /* 5.2: in the shortest form, and without the highest bit */
    if ((wide == 2 && f->len < 126) || (wide == 8 && f->len < 65536) ||
        f->len >> 63)
        return -1;
    if (masked)
        memcpy(f->mask, p + size - 4, 4);
    return (int)size;
}

/* Writes a frame's head, with a mask unless that is NULL; returns its size, at
   most 14.  Nothing is ever sent in fragments, so FIN is always set. */
size_t rt__frame_write(uint8_t *out, int op, size_t len, const uint8_t *mask)
{
    size_t wide = len < 126 ? 0 : len < 65536 ? 2 : 8, i;
    out[0] = (uint8_t)(0x80 | op);
    out[1] = (uint8_t)((mask ? 0x80u : 0) | (wide == 0   ? len
                                             : wide == 2 ? 126u
                                                         : 127u));
    for (i = 0; i < wide; i++)
        out[2 + i] = (uint8_t)((uint64_t)len >> 8 * (wide - 1 - i));
    if (!mask)
        return 2 + wide;
    memcpy(out + 2 + wide, mask, 4);
    return 6 + wide;
}

/* May an endpoint send this code?  (RFC 6455, 7.4, and the registry.)  1004
   has no meaning yet; 1005, 1006 and 1015 are for the local end alone; 1016
   to 2999 are kept for later versions; from 3000 on they are the users'. */
int rt__close_code_valid(int code)
{
    if (code < 1000 || code > 4999)
        return 0;
    if (code < 3000)
        return code <= 1003 || (code >= 1007 && code <= 1014);
    return 1;
}

/* ---- SHA-1 (FIPS 180-4) and base64, for the handshake alone ------------- */

/* The hash is no secret and protects nothing here: it only shows that the
   other end has read the request (RFC 6455, 1.3).  That collisions of SHA-1
   can be made is of no use to anybody. */

static uint32_t turn_left(uint32_t x, int by)
{
    return x << by | x >> (32 - by);
}

static uint32_t sha1_mix(int i, const uint32_t h[5])
{
    if (i < 20)
        return ((h[1] & h[2]) | (~h[1] & h[3])) + 0x5a827999u;
    if (i < 40)
        return (h[1] ^ h[2] ^ h[3]) + 0x6ed9eba1u;
    if (i < 60)
        return ((h[1] & h[2]) | (h[1] & h[3]) | (h[2] & h[3])) + 0x8f1bbcdcu;
    return (h[1] ^ h[2] ^ h[3]) + 0xca62c1d6u;
}

static void sha1_block(uint32_t h[5], const uint8_t *p)
{
    uint32_t w[80], v[5], t;
    int i;
    for (i = 0; i < 16; i++)
        w[i] = (uint32_t)frame_length(p + 4 * (size_t)i, 4);
    for (; i < 80; i++)
        w[i] = turn_left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    memcpy(v, h, sizeof v);
    for (i = 0; i < 80; i++) {
        t = turn_left(v[0], 5) + sha1_mix(i, v) + v[4] + w[i];
        memmove(v + 1, v, 4 * sizeof *v);
        v[2] = turn_left(v[2], 30);
        v[0] = t;
    }
    for (i = 0; i < 5; i++)
        h[i] += v[i];
}

void rt__sha1(const void *data, size_t len, uint8_t out[20])
{
    uint32_t h[5] = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u,
                     0xc3d2e1f0u};
    const uint8_t *p = (const uint8_t *)data;
    uint8_t tail[128] = {0};
    /* behind the rest go a 1 bit and the length in bits, of 8 bytes */
    size_t rest = len & 63, size = rest < 56 ? 64 : 128, i;
    for (i = 0; i + 64 <= len; i += 64)
        sha1_block(h, p + i);
    memcpy(tail, p + i, rest);
    tail[rest] = 0x80;
    for (i = 0; i < 8; i++)
        tail[size - 1 - i] = (uint8_t)((uint64_t)len * 8 >> 8 * i);
    for (i = 0; i < size; i += 64)
        sha1_block(h, tail + i);
    for (i = 0; i < 20; i++)
        out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i & 3)));
}

/* out has room for 4 characters for each 3 bytes begun, and a NUL. */
void rt__base64(const uint8_t *in, size_t n, char *out)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t i;
    for (i = 0; i < n; i += 3) {
        uint32_t x = (uint32_t)in[i] << 16;
        if (i + 1 < n)
            x |= (uint32_t)in[i + 1] << 8;
        if (i + 2 < n)
            x |= in[i + 2];
        *out++ = digits[x >> 18];
        *out++ = digits[x >> 12 & 63];
        *out++ = (char)(i + 1 < n ? digits[x >> 6 & 63] : '=');
        *out++ = (char)(i + 2 < n ? digits[x & 63] : '=');
    }
    *out = 0;
}

/* Sec-WebSocket-Accept for a Sec-WebSocket-Key of 24 characters, which are
   hashed as text, not decoded (RFC 6455, 4.2.2). */
void rt__accept_key(const char *key, char out[29])
{
    char text[61];
    uint8_t sum[20];
    memcpy(text, key, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 37);
    rt__sha1(text, 60, sum);
    rt__base64(sum, sizeof sum, out);
}

/* ---- HTTP texts (RFC 9110, 9112) ---------------------------------------- */

/* What a token is made of (RFC 9110, 5.6.2).  strchr would find a NUL, too. */
static int is_tchar(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
           (c >= 'A' && c <= 'Z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* Not tolower: that depends on the host's locale. */
static int lower(int c)
{
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

/* The value of a hexadecimal digit, or -1. */
static int hex(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Are the n characters at a all of b, whatever their case? */
static int same_text(const char *a, size_t n, const char *b)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (lower((uint8_t)a[i]) != lower((uint8_t)b[i]))
            return 0;
    return b[n] == 0;
}

/* Nothing but visible ASCII? */
int rt__visible(const char *text)
{
    for (; *text; text++)
        if (*text < 0x21 || *text > 0x7e)
            return 0;
    return 1;
}

static const char *skip_blank(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

/* The next token of a comma list: its length, 0 at the end, -1 where it is
   malformed, as an empty element or a comma at the end is.  *p is moved behind
   it and never back, so that a long list costs one pass. */
static int token_next(const char **p, const char **token)
{
    const char *end;
    *token = *p = skip_blank(*p);
    if (!**p)
        return 0;
    while (is_tchar((uint8_t) * *p))
        ++*p;
    end = *p;
    *p = skip_blank(*p);
    if (end == *token || (**p && **p != ','))
        return -1;
    if (**p == ',' && !*skip_blank(++*p))
        return -1;
    return (int)(end - *token);
}

/* A list of tokens like "a, b", or nothing at all? */
int rt__token_list(const char *text)
{
    const char *token;
    int n;
    while ((n = token_next(&text, &token)) > 0)
        ;
    return n == 0;
}

/* Is word in the list?  Whatever else is in it does not matter: a Connection
   header may name what nobody here knows.  exact: as sub-protocols are
   compared; else the case does not matter. */
static int list_has(const char *text, const char *word, int exact)
{
    size_t n = strlen(word);
    while (*text) {
        const char *begin = text = skip_blank(text);
        while (*text && *text != ',' && *text != ' ' && *text != '\t')
            text++;
        if ((size_t)(text - begin) == n &&
            (exact ? memcmp(begin, word, n) == 0 : same_text(begin, n, word)) &&
            (!*skip_blank(text) || *skip_blank(text) == ','))
            return 1;
        text += strcspn(text, ",");
        text += *text == ',';
    }
    return 0;
}

/* What the library writes itself.  A second one from the host could end the
   message elsewhere for a proxy than for the peer. */
static const char reserved_headers[][28] = {"connection",
                                            "upgrade",
                                            "host",
                                            "content-length",
                                            "transfer-encoding",
                                            "sec-websocket-accept",
                                            "sec-websocket-key",
                                            "sec-websocket-extensions",
                                            "sec-websocket-version",
                                            "sec-websocket-protocol"};

static int header_reserved(const char *name, size_t n)
{
    size_t i;
    for (i = 0; i < sizeof reserved_headers / sizeof *reserved_headers; i++)
        if (same_text(name, n, reserved_headers[i]))
            return 1;
    return 0;
}

/* Whole lines "Name: value\r\n" that do not touch the handshake's own?  The
   last line may lack its end.  Hosts put into them what peers have sent, so a
   lone CR or LF in a value, with which it would go on as a header or body of
   the peer's making, is refused (response splitting). */
int rt__header_lines(const char *text)
{
    while (*text) {
        const char *name = text;
        while (is_tchar((uint8_t)*text))
            text++;
        if (text == name || *text != ':' ||
            header_reserved(name, (size_t)(text - name)))
            return 0;
        while (*text == '\t' || (uint8_t)*text >= 0x20) {
            if (*text == 0x7f)
                return 0;
            text++;
        }
        if (text[0] == '\r' && text[1] == '\n')
            text += 2;
        else if (*text)
            return 0;
    }
    return 1;
}

/* For the eye alone: clients go by the number (RFC 9112, 4). */
static const char *status_text(int status)
{
    static const struct {
        int status;
        char text[36];
    } known[] = {{200, "OK"},
                 {201, "Created"},
                 {202, "Accepted"},
                 {204, "No Content"},
                 {301, "Moved Permanently"},
                 {302, "Found"},
                 {303, "See Other"},
                 {304, "Not Modified"},
                 {307, "Temporary Redirect"},
                 {308, "Permanent Redirect"},
                 {400, "Bad Request"},
                 {401, "Unauthorized"},
                 {403, "Forbidden"},
                 {404, "Not Found"},
                 {405, "Method Not Allowed"},
                 {408, "Request Timeout"},
                 {409, "Conflict"},
                 {413, "Content Too Large"},
                 {417, "Expectation Failed"},
                 {426, "Upgrade Required"},
                 {429, "Too Many Requests"},
                 {431, "Request Header Fields Too Large"},
                 {500, "Internal Server Error"},
                 {501, "Not Implemented"},
                 {503, "Service Unavailable"},
                 {505, "HTTP Version Not Supported"}};
    size_t i;
    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].status == status)
            return known[i].text;
    return "Status";
}

/* ---- the head of a request or an answer --------------------------------- */

/* One parser for both roles.  What two parsers may read in two ways is how
   requests are smuggled past a proxy, so that nothing is repaired here: bare
   CR or LF, folded lines, a blank before the colon, a length that comes twice
   are refused, not interpreted. */

enum shake_stage {
    READING_HEAD = 0,
    READING_BODY,
    ASKING,   /* on_request is running */
    DEFERRED, /* rt_accept or rt_reply follows */
    ACCEPTED, /* answer holds the 101 */
    REPLIED
};

struct rt__shake {
    rt_request request; /* first: rt_header casts to this */
    rt__conn *conn;
    rt__shake *prev, *next; /* of those in progress, the oldest first */
    uint64_t id;            /* the handle on_request got; 0: none */
    enum shake_stage stage;
    char *buf; /* the request, its texts cut out with NULs */
    size_t len, cap, scanned, head_len, body_len;
    size_t method, path, query; /* where in buf, which may still move */
    uint8_t close_after, head_only, http10, upgrade, listed;
    uint8_t stripped;            /* its texts are gone */
    uint8_t typed, was_deferred; /* rtnet.1 was chosen; the host was slow */
    /* places in buf, too; max_header is at most 60 KiB */
    int headers;
    uint16_t name[RT__HEADERS], value[RT__HEADERS];
    char *answer; /* the 101 that rt_accept made */
    size_t answer_len;
    char *uid;             /* to bind when it opens */
    rt__addr peer;         /* of the socket, or as a PROXY header says */
    enum rt__refusal lack; /* why there is no session */
    char address[46];      /* of the request */
    /* Four blocks of connections fill the hole that it leaves in the heap, and
       no rest of it, too small for one, stays free for ever. */
    char fill[32];
};

/* Looks for the empty line, from where it stopped before, as a head that comes
   byte by byte must not be scanned anew for each: > 0 the size of the head, 0
   more is needed, < 0 a byte that cannot be in one.  A NUL is such a byte, so
   what passes may be cut up as one C string whose every line ends in CRLF. */
static ptrdiff_t head_scan(rt__shake *k)
{
    size_t i;
    for (i = k->scanned; i < k->len; i++) {
        uint8_t b = (uint8_t)k->buf[i];
        int after_cr = i > 0 && k->buf[i - 1] == '\r';
        if ((b == '\n') != after_cr)
            return -1;
        if ((b < 0x20 && b != '\t' && b != '\r' && b != '\n') || b == 0x7f)
            return -1;
        if (b == '\n' && i >= 3 && k->buf[i - 2] == '\n')
            return (ptrdiff_t)i + 1;
    }
    k->scanned = k->len;
    return 0;
}

/* "Name: value" at *p; cuts both out.  0, or the status that refuses it.  A
   name is one or more tchars up to the colon (RFC 9112, 5.1): with that a
   folded line (5.2), which begins with a blank, is refused as well. */
static int header_read(rt__shake *k, char **p)
{
    char *name = *p, *end = strchr(name, '\r'), *value;
    while (is_tchar((uint8_t) * *p))
        ++*p;
    if (*p == name || **p != ':')
        return 400;
    if (k->headers == RT__HEADERS)
        return 431;
    *(*p)++ = 0;
    value = (char *)skip_blank(*p);
    *p = end + 2;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *end = 0;
    k->name[k->headers] = (uint16_t)(name - k->buf);
    k->value[k->headers++] = (uint16_t)(value - k->buf);
    return 0;
}

/* Up to the empty line; head_scan saw that there is one. */
static int headers_read(rt__shake *k, char *p)
{
    int status;
    k->headers = 0;
    while (*p != '\r')
        if ((status = header_read(k, &p)) != 0)
            return status;
    return 0;
}

/* The value of the i-th header of that name, from 0; NULL: there is none. */
static const char *header_nth(const rt__shake *k, const char *name, int nth)
{
    int i;
    for (i = 0; i < k->headers; i++) {
        const char *at = k->buf + k->name[i];
        if (same_text(at, strlen(at), name) && nth-- == 0)
            return k->buf + k->value[i];
    }
    return NULL;
}

const char *rt_header(const rt_request *request, const char *name)
{
    return header_nth((const rt__shake *)request, name, 0);
}

/* Is word in any of the lists of that header? */
static int header_has(const rt__shake *k, const char *name, const char *word)
{
    const char *list;
    int i;
    for (i = 0; (list = header_nth(k, name, i)) != NULL; i++)
        if (list_has(list, word, 0))
            return 1;
    return 0;
}

/* The one value of a header that must not come twice, as the next parser might
   take the other one; NULL: none or many. */
static const char *header_only(const rt__shake *k, const char *name)
{
    return header_nth(k, name, 1) ? NULL : header_nth(k, name, 0);
}

/* ---- the request: its grammar ------------------------------------------- */

/* The word up to stop, behind which *p is moved; NULL: none, or an empty one,
   so that two blanks in a row are refused. */
static char *word_cut(char **p, char stop)
{
    char *word = *p, *end = strchr(word, stop);
    if (!end || end == word)
        return NULL;
    *end = 0;
    *p = end + 1;
    return word;
}

/* Each comparison stands behind those that show that v is that long. */
static int version_status(const char *v)
{
    if (strncmp(v, "HTTP/", 5) != 0 || v[5] < '0' || v[5] > '9' ||
        v[6] != '.' || v[7] < '0' || v[7] > '9' || v[8])
        return 400;
    return v[5] == '1' && v[7] <= '1' ? 0 : 505;
}

static int method_known(const char *m)
{
    return !strcmp(m, "GET") || !strcmp(m, "HEAD") || !strcmp(m, "POST");
}

static int method_status(const char *m)
{
    const char *p = m;
    while (is_tchar((uint8_t)*p))
        p++;
    if (*p)
        return 400;
    return method_known(m) ? 0 : 405;
}

/* "GET /path?query HTTP/1.1"; cuts it up.  0, or the status that refuses.  Only
   the origin form (RFC 9112, 3.2.1) is for a server like this: the others are
   those of proxies, CONNECT and OPTIONS. */
static int request_line(rt__shake *k, char **p)
{
    char *line = word_cut(p, '\r'), *method, *target, *query;
    int status;
    ++*p;
    method = line ? word_cut(&line, ' ') : NULL;
    target = method ? word_cut(&line, ' ') : NULL;
    if (!target)
        return 400;
    if ((status = version_status(line)) != 0)
        return status;
    if (*target != '/' || !rt__visible(target) || strchr(target, '#'))
        return 400;
    if ((status = method_status(method)) != 0)
        return status;
    k->http10 = line[7] == '0';
    query = strchr(target, '?');
    if (query)
        *query++ = 0;
    k->method = (size_t)(method - k->buf);
    k->path = (size_t)(target - k->buf);
    /* no query: the NUL that stands at the end of the head */
    k->query = query ? (size_t)(query - k->buf) : k->head_len - 1;
    return 0;
}

/* Takes characters of a name (RFC 3986, 3.2.2); returns where they end. */
static const char *host_name(const char *p)
{
    for (;; p++) {
        if (*p == '%' && hex((uint8_t)p[1]) >= 0 && hex((uint8_t)p[2]) >= 0)
            p += 2;
        else if (*p == '%' || !*p ||
                 (!is_tchar((uint8_t)*p) && !strchr("()=;,", *p)) ||
                 strchr("#^`|", *p))
            return p;
    }
}

/* A host as RFC 3986 has it, perhaps with a port, and nothing around it: no
   path, no user, no blank. */
static int host_valid(const char *host)
{
    const char *p = host;
    if (*p == '[') {
        p += 1 + strspn(p + 1, "0123456789abcdefABCDEF:.");
        if (p == host + 1 || *p++ != ']')
            return 0;
    } else {
        p = host_name(p);
    }
    if (p != host && *p == ':')
        p += 1 + strspn(p + 1, "0123456789");
    return p != host && !*p;
}

/* Digits only, no overflow; one header, of one value: even two that agree are
   refused, as RFC 9112, 6.3 allows.  The greatest one leaves room to add the
   head. */
static int length_read(const rt__shake *k, size_t *length)
{
    const char *p = header_only(k, "content-length");
    uint64_t n = 0;
    *length = 0;
    if (!p)
        return header_nth(k, "content-length", 0) ? 400 : 0;
    if (!*p)
        return 400;
    for (; *p; p++) {
        if (*p < '0' || *p > '9' || n > (UINT64_MAX - 9) / 10)
            return 400;
        n = n * 10 + (uint64_t)(*p - '0');
    }
    *length = n > SIZE_MAX / 2 ? SIZE_MAX / 2 : (size_t)n;
    return 0;
}

/* 16 bytes in base64, in the only spelling that they have. */
static int key_valid(const char *key)
{
    size_t i;
    if (!key || strlen(key) != 24 || key[22] != '=' || key[23] != '=')
        return 0;
    for (i = 0; i < 22; i++)
        if (!((key[i] >= '0' && key[i] <= '9') || key[i] == '+' ||
              key[i] == '/' || (lower(key[i]) >= 'a' && lower(key[i]) <= 'z')))
            return 0;
    return strchr("AQgw", key[21]) != NULL; /* 16 bytes leave 4 bits of 0 */
}

/* The header may come more than once (RFC 6455, 11.3.4), each time a list. */
static int offers_valid(const rt__shake *k)
{
    const char *list;
    int i;
    for (i = 0; (list = header_nth(k, "sec-websocket-protocol", i)); i++)
        if (!*list || !rt__token_list(list))
            return 0;
    return 1;
}

/* The opening handshake of RFC 6455, 4.2.1.  426 tells which version would do
   (4.4).  No body, of whatever kind: what follows the head are frames.  The
   extensions that are offered need no look, as none is taken. */
static int upgrade_status(rt__shake *k)
{
    const char *version = header_only(k, "sec-websocket-version");
    if (!version || strcmp(version, "13") != 0)
        return header_nth(k, "sec-websocket-version", 1) ? 400 : 426;
    if (k->http10 || strcmp(k->buf + k->method, "GET") != 0 ||
        k->body_len > 0 || header_nth(k, "transfer-encoding", 0) ||
        !header_has(k, "connection", "upgrade") ||
        !key_valid(header_only(k, "sec-websocket-key")) || !offers_valid(k))
        return 400;
    return 0;
}

/* What RFC 9112 says of any request; 0, or the status that refuses it.  One
   Host (3.2), which only HTTP/1.0 may lack; no transfer coding, as none is
   implemented (6.1), least of all beside a Content-Length. */
static int framing_status(rt__shake *k)
{
    const char *host = header_only(k, "host");
    int coded = header_nth(k, "transfer-encoding", 0) != NULL;
    int status = length_read(k, &k->body_len);
    if (status)
        return status;
    if (host ? !host_valid(host) : !k->http10 || header_nth(k, "host", 0))
        return 400;
    if (!coded || k->upgrade)
        return 0; /* of an upgrade, upgrade_status speaks */
    return header_nth(k, "content-length", 0) ? 400 : 501;
}

/* Cuts the head up and judges it; 0, or the status that refuses it.  A wrong
   one is the last of its connection: nobody can say where the next begins. */
static int request_read(rt__shake *k)
{
    char *p = k->buf;
    int status;
    k->buf[k->head_len - 1] = 0;
    k->close_after = 1;
    k->head_only = 0;
    if ((status = request_line(k, &p)) != 0 ||
        (status = headers_read(k, p)) != 0)
        return status;
    k->head_only = strcmp(k->buf + k->method, "HEAD") == 0;
    k->close_after = k->http10 || header_has(k, "connection", "close");
    k->upgrade = (uint8_t)header_has(k, "upgrade", "websocket");
    k->request.upgrade = k->upgrade;
    if ((status = framing_status(k)) != 0)
        return status;
    return k->upgrade ? upgrade_status(k) : 0;
}

/* ---- origins ------------------------------------------------------------ */

/* A browser lets any page open a WebSocket to any host and sends that host's
   cookies with it; only Origin, which a page cannot forge, tells whose page it
   is (RFC 6455, 10.2).  Hosts are compared whole, never by their beginning or
   end, and "null" is none at all. */

/* The length of an authority without the port that its scheme implies. */
static size_t authority_len(const char *p, size_t n, int https)
{
    const char *port = https ? ":443" : ":80";
    size_t m = strlen(port);
    return n > m && memcmp(p + n - m, port, m) == 0 ? n - m : n;
}

/* The same host and port; the port may be left out where the scheme says it. */
static int same_authority(const char *a, const char *b, int https)
{
    size_t i, n = authority_len(a, strlen(a), https);
    if (authority_len(b, strlen(b), https) != n || n == 0)
        return 0;
    for (i = 0; i < n; i++)
        if (lower((uint8_t)a[i]) != lower((uint8_t)b[i]))
            return 0;
    return 1;
}

/* What follows the prefix, which is in lower case; NULL: it is not there. */
static const char *behind(const char *text, const char *prefix)
{
    size_t n = strlen(prefix), i = 0;
    while (i < n && lower((uint8_t)text[i]) == prefix[i])
        i++;
    return i == n ? text + n : NULL;
}

/* A page of this very host, whatever the scheme: behind a proxy that ends TLS
   only the page's is https. */
static int origin_same_host(const char *origin, const char *host)
{
    const char *authority = behind(origin, "http://");
    if (authority)
        return same_authority(authority, host, 0);
    authority = behind(origin, "https://");
    return authority && same_authority(authority, host, 1);
}

/* The list has blanks between its origins, each with scheme and port. */
static int origin_listed(const char *origin, const char *list)
{
    while (*list) {
        size_t n = strcspn(list, " ");
        if (n == 1 && *list == '*')
            return 1;
        if (n == strlen(origin) && same_text(list, n, origin))
            return 1;
        list += n;
        list += strspn(list, " ");
    }
    return 0;
}

/* No Origin is no browser, and allowed; two are nobody's. */
static int origin_allowed(rt_loop *loop, const rt__shake *k,
                          const char *allowed)
{
    const char *origin = header_only(k, "origin");
    const char *host = header_only(k, "host");
    if (!origin && !header_nth(k, "origin", 0))
        return 1;
    if (origin && (allowed ? origin_listed(origin, allowed)
                           : host && origin_same_host(origin, host)))
        return 1;
    rt__log(loop, RT_LOG_WARN, "origin refused", origin ? origin : "two");
    return 0;
}

/* ---- handshakes: their life --------------------------------------------- */

/* A rt__shake is its connection's, and freed with it or when its session is
   open.  Until then one of a listener is in the loop's list, and counts against
   max_handshakes; a client's own does not.  Each has one absolute deadline, in
   the connection's timer, which no byte of a request moves: who sends one now
   and then gains nothing by it. */

static void shake_unlist(rt_loop *loop, rt__shake *k)
{
    if (!k->listed)
        return;
    k->listed = 0;
    loop->shake_count--;
    k->conn->ep->shake_count--;
    if (k->prev)
        k->prev->next = k->next;
    else
        loop->shakes_first = k->next;
    if (k->next)
        k->next->prev = k->prev;
    else
        loop->shakes_last = k->prev;
}

/* At the end, as the youngest; one that is asked again begins anew there. */
static void shake_list(rt_loop *loop, rt__shake *k)
{
    k->listed = 1;
    loop->shake_count++;
    k->conn->ep->shake_count++;
    k->prev = loop->shakes_last;
    k->next = NULL;
    if (k->prev)
        k->prev->next = k;
    else
        loop->shakes_first = k;
    loop->shakes_last = k;
}

rt__shake *rt__shake_new(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = (rt__shake *)rt__alloc(loop, sizeof *k);
    if (!k)
        return NULL;
    k->conn = c;
    k->request.address = k->address;
    k->request.method = k->request.path = k->request.query = "";
    k->request.body = "";
    c->is.shake = k;
    c->shaking = 1;
    if (!c->ep->dial)
        shake_list(loop, k);
    return k;
}

/* Who is at the other end, as far as the request does not say more. */
void rt__shake_from(rt__shake *k, const rt__addr *peer)
{
    k->peer = *peer;
    rt__addr_text(peer, k->address);
}

const rt__addr *rt__shake_peer(const rt__shake *k)
{
    return &k->peer;
}

/* Nobody finds it any more; its texts live until the end of the turn. */
void rt__shake_detach(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    if (!k)
        return;
    shake_unlist(loop, k);
    if (k->id)
        rt__slot_free(loop, k->id);
    k->id = 0;
}

/* The request is over, but until the first `a` of rtnet.1 the connection still
   counts as a handshake in progress.  A handle that is still the handshake's
   own, as with a resume, is stale from here on. */
void rt__shake_strip(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    if (!k)
        return;
    if (k->id)
        rt__slot_free(loop, k->id);
    k->id = 0;
    rt__free(loop, k->buf, k->cap);
    rt__free(loop, k->answer, k->answer_len);
    rt__strfree(loop, k->uid);
    k->buf = k->answer = k->uid = NULL;
    k->cap = k->answer_len = 0;
    k->stripped = 1;
}

void rt__shake_free(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    if (!k)
        return;
    rt__shake_detach(loop, c);
    rt__shake_strip(loop, c);
    rt__free(loop, k, sizeof *k);
    c->shaking = 0;
    memset(&c->is, 0, sizeof c->is);
}

rt__conn *rt__shake_conn(const rt__shake *k)
{
    return k->conn;
}

/* The user id that rt_accept gave, or NULL. */
const char *rt__shake_uid(const rt__shake *k)
{
    return k->uid;
}

/* The handle of the handshake; one is made where on_request was not asked. */
uint64_t rt__shake_id(rt_loop *loop, rt__shake *k)
{
    if (!k->id)
        k->id = rt__slot_new(loop, RT__SHAKE, k);
    return k->id;
}

/* The session begins, under the handle that the handshake had: what on_request
   noted stays good.  The slot is the session's from then on, and so is freed
   with it where the bind fails. */
rt__session *rt__shake_session(rt_loop *loop, rt__shake *k)
{
    rt__session *s;
    int error;
    k->lack = RT__REFUSED_SESSIONS;
    if (rt__sessions_full(loop))
        return NULL;
    k->lack = RT__REFUSED_MEMORY;
    s = rt__session_new(loop, k->conn->ep, k->conn, k->id);
    if (!s)
        return NULL;
    k->id = 0;
    error = k->uid ? rt__bind(loop, s, k->uid) : 0;
    if (error == 0)
        return s;
    if (error == RT_EREFUSED)
        k->lack = RT__REFUSED_HOST;
    rt__session_forget(loop, s);
    return NULL;
}

/* Why there was none. */
enum rt__refusal rt__shake_lack(const rt__shake *k)
{
    return k->lack;
}

/* Too many at once at that listener: the one of it that has taken longest
   goes.  Honest ones are through in a moment, so that it is the slow and the
   silent who make room. */
void rt__shake_evict(rt_loop *loop, const rt__ep *ep)
{
    rt__shake *k = loop->shakes_first;
    while (k && k->conn->ep != ep)
        k = k->next;
    if (!k)
        return;
    rt__refused(loop, RT__REFUSED_HANDSHAKES);
    rt__conn_lost(loop, k->conn, 1006, RT_BY_LIMIT, "too many handshakes");
}

/* Makes room for n more bytes of the request and a NUL: for what has come, not
   for what was announced.  It may move, so that until the request is whole
   places in it are kept, not pointers. */
static int shake_room(rt_loop *loop, rt__shake *k, size_t n)
{
    size_t cap = k->cap ? k->cap : 1024;
    char *buf;
    while (cap < k->len + n + 1)
        cap *= 2;
    if (cap == k->cap)
        return 0;
    buf = (char *)rt__realloc(loop, k->buf, k->cap, cap);
    if (!buf && !k->conn->ep->dial)
        rt__refused(loop, RT__REFUSED_MEMORY);
    if (!buf)
        return RT_ENOMEM;
    k->buf = buf;
    k->cap = cap;
    return 0;
}

/* Joins texts, up to a NULL, into one allocation of exactly *len bytes, as
   that size is told to the allocator when it is freed. */
static char *texts_join(rt_loop *loop, const char *const *texts, size_t *len)
{
    size_t i, n = 0;
    char *joined;
    for (i = 0; texts[i]; i++)
        n += strlen(texts[i]);
    joined = (char *)rt__realloc(loop, NULL, 0, n);
    *len = n;
    for (n = 0, i = 0; joined && texts[i]; i++) {
        memcpy(joined + n, texts[i], strlen(texts[i]));
        n += strlen(texts[i]);
    }
    return joined;
}

static int texts_send(rt_loop *loop, rt__conn *c, const char *const *texts)
{
    size_t len;
    char *joined = texts_join(loop, texts, &len);
    int error = joined ? rt__out_control(loop, c, joined, len) : RT_ENOMEM;
    rt__free(loop, joined, len);
    return error;
}

/* ---- handshakes: answers ------------------------------------------------ */

static const char *extra_header(int status)
{
    if (status == 426)
        return "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    if (status == 405)
        return "Allow: GET, HEAD, POST\r\n";
    return "";
}

/* Queues an answer; more: further lines of it; a body only where one may
   stand: not with 204 and 304 (RFC 9110, 6.4.1), nor for HEAD, which still
   hears its length.  At RT_ENOMEM half of it may be queued: the caller kills
   the connection. */
static int answer_send(rt_loop *loop, rt__conn *c, int status, const char *more,
                       const char *type, const void *body, size_t len)
{
    rt__shake *k = rt__shake_of(c);
    const char *texts[8] = {0};
    char line[128], size[64];
    int bare = status == 204 || status == 304;
    if (loop->draining)
        k->close_after = 1; /* or it would be waited for */
    snprintf(line, sizeof line, "HTTP/1.1 %d %s\r\n%s%s", status,
             status_text(status), extra_header(status), more);
    snprintf(size, sizeof size, "Content-Length: %llu\r\n",
             (unsigned long long)len);
    texts[0] = line;
    texts[1] = *type ? "Content-Type: " : "";
    texts[2] = type;
    texts[3] = *type ? "\r\n" : "";
    texts[4] = bare ? "" : size;
    texts[5] = status == 426    ? "Connection: Upgrade, close\r\n\r\n"
               : k->close_after ? "Connection: close\r\n\r\n"
                                : "Connection: keep-alive\r\n\r\n";
    if (texts_send(loop, c, texts) < 0)
        return RT_ENOMEM;
    if (bare || k->head_only || len == 0)
        return 0;
    return rt__out_control(loop, c, body, len);
}

/* The answer to a request that is refused, then the end. */
static void refusal_send(rt_loop *loop, rt__conn *c, int status,
                         const char *more)
{
    char body[64];
    rt__shake_of(c)->close_after = 1;
    rt__shake_of(c)->stage = REPLIED;
    snprintf(body, sizeof body, "%d %s\n", status, status_text(status));
    if (answer_send(loop, c, status, more, "text/plain", body, strlen(body)) <
        0)
        rt__conn_kill(loop, c);
    else
        rt__conn_finish_soon(loop, c);
}

static void shake_refuse(rt_loop *loop, rt__conn *c, int status,
                         enum rt__refusal why)
{
    rt__refused(loop, why);
    refusal_send(loop, c, status, "");
}

/* It may come again, when there is less to do.  Whole seconds, rounded up (RFC
   9110, 10.2.3). */
static void shake_put_off(rt_loop *loop, rt__conn *c, enum rt__refusal why)
{
    char line[40];
    uint32_t ms = rt__retry_ms(loop, c->ep);
    rt__refused(loop, why);
    snprintf(line, sizeof line, "Retry-After: %lu\r\n",
             ((unsigned long)ms + 999) / 1000);
    refusal_send(loop, c, 503, line);
}

/* The answer is queued: the next request, or the end.  Who asks on and on, but
   does not take the answers, is not read until he does: else they would pile
   up here.  The old handle is stale, the buffer is used again. */
static void shake_replied(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    if (k->close_after) {
        rt__conn_finish_soon(loop, c);
        return;
    }
    rt__shake_detach(loop, c);
    shake_list(loop, k);
    k->stage = READING_HEAD;
    k->len = k->scanned = 0;
    if (c->out && c->out->bytes > c->ep->soft_mark)
        c->hold |= RT__HOLD_HTTP;
    rt__timer_set(loop, &c->timer, rt_now(loop) + c->ep->handshake_ms);
    rt__conn_interest(loop, c);
}

/* rtnet.1: the session is named by the first message, not by the request, so
   there is none yet and the handshake goes on, against the same deadline.  But
   the time that the host took to think is not the client's. */
static void shake_greet(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    if (rt__out_control(loop, c, k->answer, k->answer_len) < 0) {
        rt__conn_kill(loop, c);
        return;
    }
    c->typed = 1;
    c->hold = 0;
    c->state = RT__GREETING;
    if (k->stage == ACCEPTED && k->was_deferred)
        rt__timer_set(loop, &c->timer, rt_now(loop) + c->ep->handshake_ms);
    rt__conn_interest(loop, c);
}

/* The session is made before the 101 is queued, as behind a 101 nobody could
   be told 503.  A session without on_open may be forgotten, with no on_close.
   on_open may still ask for the request: its texts go when that returns. */
static void shake_open(rt_loop *loop, rt__conn *c)
{
    enum rt__refusal lack;
    rt__session *s;
    c->hold = 0;
    rt__conn_interest(loop, c);
    if (c->state == RT__DEAD) /* before there is a session to be told */
        return;
    if (rt__shake_of(c)->typed) {
        shake_greet(loop, c);
        return;
    }
    s = rt__shake_session(loop, rt__shake_of(c));
    lack = rt__shake_of(c)->lack;
    if (s && rt__out_control(loop, c, rt__shake_of(c)->answer,
                             rt__shake_of(c)->answer_len) < 0) {
        rt__session_forget(loop, s);
        s = NULL;
        lack = RT__REFUSED_MEMORY;
    }
    if (!s) {
        shake_put_off(loop, c, lack);
        return;
    }
    shake_unlist(loop, rt__shake_of(c));
    s->conn = c;
    c->session = s;
    rt__conn_opened(loop, c);
    rt__tell_open(loop, s);
    rt__shake_free(loop, c);
}

/* The offered sub-protocol that is exactly this one? */
static int protocol_offered(const rt__shake *k, const char *protocol)
{
    const char *list;
    int i;
    for (i = 0; (list = header_nth(k, "sec-websocket-protocol", i)); i++)
        if (list_has(list, protocol, 1))
            return 1;
    return 0;
}

/* The 101 (RFC 6455, 4.2.2).  It is kept until there is a session, and names no
   extension, so that the peer may not use one. */
static int accept_answer(rt_loop *loop, rt__shake *k, const char *protocol,
                         const char *headers)
{
    char key[29];
    size_t n = strlen(headers);
    const char *texts[10] = {0};
    rt__accept_key(header_nth(k, "sec-websocket-key", 0), key);
    texts[0] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
               "Connection: Upgrade\r\nSec-WebSocket-Accept: ";
    texts[1] = key;
    texts[2] = *protocol ? "\r\nSec-WebSocket-Protocol: " : "";
    texts[3] = protocol;
    texts[4] = "\r\n";
    texts[5] = headers;
    texts[6] = n && headers[n - 1] != '\n' ? "\r\n" : "";
    texts[7] = "\r\n";
    k->answer = texts_join(loop, texts, &k->answer_len);
    return k->answer ? 0 : RT_ENOMEM;
}

/* All that is wrong with the options is found before anything is changed. */
static int accept_check(rt_loop *loop, const rt__shake *k,
                        const rt_accept_opts *o)
{
    if (o->protocol && !protocol_offered(k, o->protocol))
        return RT_EINVAL;
    if (o->protocol && !strcmp(o->protocol, "rtnet.1") &&
        !k->conn->ep->resume_ms)
        return RT_EINVAL; /* nobody here would speak it */
    if (o->headers && !rt__header_lines(o->headers))
        return RT_EINVAL;
    return o->uid ? rt__uid_check(loop, o->uid) : 0;
}

/* What the host wants; else rtnet.1, where the client knows it and sessions
   may be away. */
static const char *protocol_choose(const rt__shake *k, const rt_accept_opts *o)
{
    if (o->protocol)
        return o->protocol;
    if (k->conn->ep->resume_ms && !k->conn->ep->codec &&
        protocol_offered(k, "rtnet.1"))
        return "rtnet.1";
    return "";
}

/* The host has answered: from here on its answer stands, even to one who hung
   up meanwhile.  It may have called from anywhere, and no call runs a callback,
   so that on_open waits for the next turn (rt__shake_woken). */
static void shake_wake(rt_loop *loop, rt__conn *c)
{
    c->hold |= RT__HOLD_HTTP;
    rt__timer_set(loop, &c->timer, rt_now(loop) + c->ep->handshake_ms);
    rt__conn_wake(loop, c);
}

/* After an error the host may try again, or refuse: nothing is answered yet. */
static int shake_accept(rt_loop *loop, rt__shake *k, const rt_accept_opts *opts)
{
    rt_accept_opts none = {NULL, NULL, NULL};
    const rt_accept_opts *o = opts ? opts : &none;
    const char *protocol;
    int error;
    if ((k->stage != ASKING && k->stage != DEFERRED) || !k->upgrade)
        return RT_ESTATE;
    if ((error = accept_check(loop, k, o)) < 0)
        return error;
    if (o->uid && !(k->uid = rt__strdup(loop, o->uid)))
        return RT_ENOMEM;
    protocol = protocol_choose(k, o);
    k->typed = !strcmp(protocol, "rtnet.1");
    if (accept_answer(loop, k, protocol, o->headers ? o->headers : "") < 0) {
        rt__strfree(loop, k->uid);
        k->uid = NULL;
        return RT_ENOMEM;
    }
    if (k->stage == DEFERRED)
        shake_wake(loop, k->conn);
    k->stage = ACCEPTED;
    return 0;
}

/* The handshake that a handle names; NULL with *error for anything else. */
static rt__shake *shake_get(rt_loop *loop, rt_session s, int *error)
{
    rt__shake *k = (rt__shake *)rt__slot_get(loop, s.id, RT__SHAKE);
    *error = RT_EGONE;
    if (!k && rt__slot_kind(loop, s.id) == RT__SESSION)
        *error = RT_ESTATE;
    return k;
}

int rt_accept(rt_loop *loop, rt_session s, const rt_accept_opts *opts)
{
    int error;
    rt__shake *k = shake_get(loop, s, &error);
    return k ? shake_accept(loop, k, opts) : error;
}

/* No CR or LF, behind which it would be a header of its own. */
static int type_valid(const char *type)
{
    for (; *type; type++)
        if ((uint8_t)*type < 0x20 || *type == 0x7f)
            return 0;
    return 1;
}

int rt_reply(rt_loop *loop, rt_session s, int status, const char *type,
             const void *body, size_t len)
{
    int error;
    rt__shake *k = shake_get(loop, s, &error);
    if (!k)
        return error;
    if (k->stage != ASKING && k->stage != DEFERRED)
        return RT_ESTATE;
    if (status < 200 || status > 599 || (type && !type_valid(type)) ||
        (len && !body) || len > RT__SEND_MAX)
        return RT_EINVAL;
    if (k->upgrade)
        k->close_after = 1; /* its next bytes may be frames already */
    if (answer_send(loop, k->conn, status, "", type ? type : "", body, len) <
        0) {
        rt__conn_kill(loop, k->conn);
        return RT_ENOMEM;
    }
    if (k->stage == DEFERRED)
        shake_wake(loop, k->conn);
    k->stage = REPLIED;
    return 0;
}

/* ---- handshakes: the server's side -------------------------------------- */

/* While the host thinks nothing is read, so that one cannot fill memory with
   what may never be wanted; that the peer hangs up is still noticed. */
static void shake_defer(rt_loop *loop, rt__conn *c)
{
    rt__shake_of(c)->stage = DEFERRED;
    rt__shake_of(c)->was_deferred = 1;
    c->hold |= RT__HOLD_HOST;
    rt__timer_set(loop, &c->timer,
                  rt_now(loop) + (uint32_t)loop->opts.defer_ms);
    rt__conn_interest(loop, c);
}

/* What on_request said, unless it answered by itself. */
static void shake_decide(rt_loop *loop, rt__conn *c, int said)
{
    rt__shake *k = rt__shake_of(c);
    if (said == RT_DEFER)
        shake_defer(loop, c);
    else if (said == 0 && k->upgrade)
        shake_accept(loop, k, NULL);
    else if (said == 0)
        shake_refuse(loop, c, c->ep->on.request ? 404 : 426,
                     RT__REFUSED_REQUEST);
    else if (said >= 400 && said <= 599)
        shake_refuse(loop, c, said, RT__REFUSED_HOST);
    else
        shake_refuse(loop, c, 500, RT__REFUSED_HOST);
}

/* Asks the host, if it wants to be asked; only then is there a handle. */
static int shake_consult(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    rt_session handle;
    if (!c->ep->on.request)
        return 0;
    handle.id = k->id = rt__slot_new(loop, RT__SHAKE, k);
    if (!k->id) {
        shake_put_off(loop, c, RT__REFUSED_MEMORY);
        return 0;
    }
    return rt__tell_request(loop, c, handle, &k->request);
}

/* Nothing more is put into buf for this request, so that now pointers may be
   made.  A foreign page's upgrade is refused before the host hears of it; its
   plain requests are not, as a browser keeps their answers from it.  Once the
   host has called rt_accept or rt_reply, what on_request returns is ignored. */
static void request_whole(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    int said;
    k->buf[k->len] = 0;
    k->request.method = k->buf + k->method;
    k->request.path = k->buf + k->path;
    k->request.query = k->buf + k->query;
    k->request.body = k->buf + k->head_len;
    k->request.body_len = k->body_len;
    if (k->upgrade && !origin_allowed(loop, k, c->ep->origins)) {
        shake_refuse(loop, c, 403, RT__REFUSED_ORIGIN);
        return;
    }
    k->stage = ASKING;
    said = shake_consult(loop, c);
    if (c->state == RT__DEAD)
        return;
    if (k->stage == ASKING)
        shake_decide(loop, c, said);
    if (c->state != RT__SHAKING)
        return;
    if (k->stage == ACCEPTED)
        shake_open(loop, c);
    else if (k->stage == REPLIED)
        shake_replied(loop, c);
    else if (k->stage == ASKING) /* no memory for the 101 */
        shake_put_off(loop, c, RT__REFUSED_MEMORY);
}

/* Goes on to those who came through *a, one line of X-Forwarded-For from its
   right, where each proxy adds the one that it was called by.  What is further
   left than the trusted ones the client may have invented, to be counted under
   another's address.  1: the line left of it may say more. */
static int forwarded_line(const rt__ep *ep, const char *list, rt__addr *a)
{
    const char *end = list + strlen(list), *at;
    rt__addr next;
    while (rt__trusted(ep, a)) {
        for (at = end; at > list && at[-1] != ','; at--)
            ;
        while (at < end && (*at == ' ' || *at == '\t'))
            at++;
        while (end > at && (end[-1] == ' ' || end[-1] == '\t'))
            end--;
        if (rt__addr_read(at, (size_t)(end - at), &next) < 0)
            return 0;
        *a = next;
        while (at > list && at[-1] != ',')
            at--;
        if (at == list)
            return 1;
        end = at - 1;
    }
    return 0;
}

/* Whom the request comes from: as long as it is a proxy that is trusted, the
   one for whom that speaks.  Several lines are one list (RFC 9110, 5.2), the
   last line its right end.  -1: there are too many of that address. */
static int forwarded_read(rt_loop *loop, rt__shake *k)
{
    const rt__ep *ep = k->conn->ep;
    rt__addr a = k->peer;
    int i, more = 1;
    for (i = k->headers - 1; i >= 0 && more; i--) {
        const char *name = k->buf + k->name[i];
        if (same_text(name, strlen(name), "x-forwarded-for"))
            more = forwarded_line(ep, k->buf + k->value[i], &a);
    }
    rt__addr_text(&a, k->address);
    return rt__conn_from(loop, k->conn, &a);
}

/* The head is whole: judge it, then wait for the body it announces.  It is only
   asked for, with 100 (RFC 9110, 10.1.1), where nothing speaks against it;
   HTTP/1.0 does not know that, and its Expect is ignored. */
static void head_whole(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    int status = request_read(k);
    const char *expect =
        status || k->http10 ? NULL : header_nth(k, "expect", 0);
    if (!status && k->body_len > c->ep->max_body)
        status = 413;
    if (expect && !same_text(expect, strlen(expect), "100-continue"))
        status = 417;
    if (status) {
        shake_refuse(loop, c, status, RT__REFUSED_REQUEST);
        return;
    }
    if (c->ep->proxy_count > 0 && forwarded_read(loop, k) < 0) {
        shake_put_off(loop, c, RT__REFUSED_ADDRESS);
        return;
    }
    if (expect && k->body_len > 0 &&
        rt__out_control(loop, c, "HTTP/1.1 100 Continue\r\n\r\n", 25) < 0) {
        rt__conn_kill(loop, c);
        return;
    }
    k->stage = READING_BODY;
    if (k->body_len == 0)
        request_whole(loop, c);
}

/* ---- handshakes: the client's side -------------------------------------- */

/* Asks for the upgrade.  The key is new and random for each attempt (RFC 6455,
   4.1).  Over a local socket the path is that of the socket. */
void rt__shake_ask(rt_loop *loop, rt__conn *c)
{
    rt__dial *d = c->ep->dial;
    size_t n = strlen(d->headers);
    uint64_t key[2];
    const char *texts[14] = {0};
    key[0] = rt__random(loop);
    key[1] = rt__random(loop);
    rt__base64((const uint8_t *)key, sizeof key, d->key);
    texts[0] = "GET ";
    texts[1] = d->local ? "/" : *d->path == '?' ? "/" : "";
    texts[2] = d->local ? "" : d->path;
    texts[3] = " HTTP/1.1\r\nHost: ";
    texts[4] = d->authority;
    texts[5] = "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ";
    texts[6] = d->key;
    texts[7] = *d->protocols ? "\r\nSec-WebSocket-Protocol: " : "";
    texts[8] = d->protocols;
    texts[9] = "\r\n";
    texts[10] = d->headers;
    texts[11] = n && d->headers[n - 1] != '\n' ? "\r\n" : "";
    texts[12] = "\r\n";
    if (!rt__shake_new(loop, c) || texts_send(loop, c, texts) < 0)
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, rt_strerror(RT_ENOMEM));
}

/* "HTTP/1.1 101 ...": the status, or -1. */
static int status_read(const char *line)
{
    int i, status = 0;
    if (strncmp(line, "HTTP/1.1 ", 9) != 0)
        return -1;
    for (i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9')
            return -1;
        status = status * 10 + (line[i] - '0');
    }
    return line[12] == ' ' || !line[12] ? status : -1;
}

/* RFC 6455, 4.1: NULL when the answer is what was asked for, else what is
   wrong with it.  A wrong Accept is from one who has not read the request: a
   cache, or a server of something else. */
static const char *answer_fault(rt__shake *k, const rt__dial *d)
{
    const char *key = header_only(k, "sec-websocket-accept");
    const char *protocol = header_nth(k, "sec-websocket-protocol", 0);
    char want[29];
    rt__accept_key(d->key, want);
    if (!header_has(k, "upgrade", "websocket") ||
        !header_has(k, "connection", "upgrade"))
        return "the answer is no upgrade";
    if (!key || strcmp(key, want) != 0)
        return "wrong Sec-WebSocket-Accept";
    if (header_nth(k, "sec-websocket-extensions", 0))
        return "an extension that was not offered";
    if (protocol && (header_nth(k, "sec-websocket-protocol", 1) || !*protocol ||
                     !list_has(d->protocols, protocol, 1)))
        return "a sub-protocol that was not offered";
    return NULL;
}

/* Where the server did not choose rtnet.1 the session lives without it; one
   that was away cannot be gone on with, and ends. */
static void answer_open(rt_loop *loop, rt__conn *c)
{
    const char *protocol =
        header_nth(rt__shake_of(c), "sec-websocket-protocol", 0);
    if (c->ep->dial->resume && protocol && !strcmp(protocol, "rtnet.1")) {
        c->typed = 1;
        rt__greet(loop, c);
        return;
    }
    rt__keep_close(loop, c->session); /* a server that cannot resume */
    if (c->session && c->session->state == RT_AWAY) {
        rt__conn_violation(loop, c, RT_CLOSE_EXPIRED, RT_BY_PEER, "");
        return;
    }
    rt__conn_opened(loop, c);
    if (c->session)
        rt__tell_open(loop, c->session);
    rt__shake_free(loop, c);
}

/* "Retry-After: <seconds>", in ms and 1; 0 when it says nothing of the kind.
   Some time within the last second is meant: whole ones would line up. */
static uint32_t retry_after(rt_loop *loop, const rt__shake *k)
{
    const char *p = header_only(k, "retry-after");
    uint32_t s = 0;
    if (!p || !*p || strspn(p, "0123456789") != strlen(p))
        return 0; /* a date, for one */
    for (; *p && s < 3600; p++)
        s = s * 10 + (uint32_t)(*p - '0');
    if (s == 0)
        return 0;
    return (s < 3600 ? s : 3600) * 1000 - (uint32_t)(rt__random(loop) % 1000) +
           1;
}

/* 503 and 429 ask to come again later; after any other fault a session that
   could resume does not try again. */
static void answer_whole(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    char *p = k->buf, *line = word_cut(&p, '\r');
    int status = line ? status_read(line) : -1;
    const char *fault = "bad answer to the handshake";
    char text[32];
    k->buf[k->head_len - 1] = 0;
    if (status >= 0 && headers_read(k, p + 1) == 0) {
        snprintf(text, sizeof text, "HTTP %d", status);
        fault = status == 101 ? answer_fault(k, c->ep->dial) : text;
    }
    if (fault && (status == 503 || status == 429))
        c->ep->dial->retry_ms = retry_after(loop, k);
    else if (fault)
        rt__keep_close(loop, c->session); /* refused for good */
    if (fault)
        rt__conn_lost(loop, c, 1006, RT_BY_PEER, fault);
    else
        answer_open(loop, c);
}

/* ---- handshakes: input -------------------------------------------------- */

/* The head cannot be read. */
static void shake_reject(rt_loop *loop, rt__conn *c, int status)
{
    if (c->wire == RT__WS_CLIENT)
        rt__conn_lost(loop, c, 1006, RT_BY_PEER, "bad answer to the handshake");
    else
        shake_refuse(loop, c, status, RT__REFUSED_REQUEST);
}

/* Takes bytes of the head; says how many.  What is behind the empty line is
   not taken: it is the body, the next request, or frames. */
static size_t head_feed(rt_loop *loop, rt__conn *c, const uint8_t *p, size_t n)
{
    rt__shake *k = rt__shake_of(c);
    size_t before = k->len;
    ptrdiff_t end;
    if (n > c->ep->max_header - k->len)
        n = c->ep->max_header - k->len;
    if (shake_room(loop, k, n) < 0) {
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, rt_strerror(RT_ENOMEM));
        return 0;
    }
    memcpy(k->buf + k->len, p, n);
    k->len += n;
    end = head_scan(k);
    if (end > 0) {
        k->len = k->head_len = (size_t)end;
        n = k->head_len - before;
        if (c->wire == RT__WS_CLIENT)
            answer_whole(loop, c);
        else
            head_whole(loop, c);
        return n;
    }
    if (end < 0 || k->len >= c->ep->max_header)
        shake_reject(loop, c, end < 0 ? 400 : 431);
    return n;
}

static size_t body_feed(rt_loop *loop, rt__conn *c, const uint8_t *p, size_t n)
{
    rt__shake *k = rt__shake_of(c);
    size_t left = k->head_len + k->body_len - k->len;
    if (n > left)
        n = left;
    if (shake_room(loop, k, n) < 0) {
        rt__conn_lost(loop, c, 1006, RT_BY_ERROR, rt_strerror(RT_ENOMEM));
        return 0;
    }
    memcpy(k->buf + k->len, p, n);
    k->len += n;
    if (n == left)
        request_whole(loop, c);
    return n;
}

/* Requests may come many in one read.  Where one must wait, what was read
   already is kept; it is no more than one read, as no other follows. */
void rt__shake_input(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n)
{
    while (n > 0 && c->state == RT__SHAKING) {
        size_t used;
        if (c->hold) {
            if (rt__in_keep(loop, c, p, n) < 0)
                rt__conn_kill(loop, c);
            return;
        }
        used = rt__shake_of(c)->stage == READING_HEAD
                   ? head_feed(loop, c, p, n)
                   : body_feed(loop, c, p, n);
        p += used;
        n -= used;
    }
    if (n > 0 && c->state != RT__SHAKING) /* also for a farewell's answer */
        rt__conn_input(loop, c, p, n);    /* frames behind the handshake */
}

/* The host answered a deferred request. */
void rt__shake_woken(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    if (k->stage == ACCEPTED) {
        shake_open(loop, c);
    } else if (k->stage == REPLIED && c->hold) {
        c->hold = 0;
        shake_replied(loop, c);
    }
}

/* The answers were taken: the next request may be read. */
void rt__shake_drained(rt_loop *loop, rt__conn *c)
{
    if (c->hold & RT__HOLD_HOST)
        return; /* the host is waited for, or its answer is not looked at */
    c->hold = 0;
    rt__conn_wake(loop, c);
}

/* 408 is for one who has begun: to a connection that is idle between requests
   it would look like the answer to the next. */
void rt__shake_deadline(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    if (c->wire == RT__WS_CLIENT)
        rt__conn_lost(loop, c, 1006, RT_BY_TIMEOUT, "handshake timed out");
    else if (k->stage == DEFERRED)
        shake_put_off(loop, c, RT__REFUSED_HOST);
    else if (k->len > 0 && k->stage <= READING_BODY)
        shake_refuse(loop, c, 408, RT__REFUSED_REQUEST);
    else
        rt__conn_kill(loop, c);
}

/* One that is answered already is flushed; one between two requests has
   nothing to be told. */
static void shake_end(rt_loop *loop, rt__conn *c)
{
    rt__shake *k = rt__shake_of(c);
    char reason[32];
    if (c->state == RT__PROXIED || c->state == RT__SECURING) {
        rt__refused(loop, RT__REFUSED_SESSIONS);
        rt__conn_kill(loop, c); /* it has not said yet what it wants */
    } else if (c->state == RT__GREETING) {
        rt__drain_reason(loop, reason);
        rt__conn_bye(loop, c, 1012, reason);
    } else if (c->state != RT__SHAKING) {
        return; /* it is on its way out */
    } else if (k->stage == REPLIED ||
               (k->stage == READING_HEAD && k->len == 0)) {
        rt__conn_finish_soon(loop, c);
    } else {
        shake_refuse(loop, c, 503, RT__REFUSED_SESSIONS);
    }
}

/* The window of a shutdown is over: nothing comes of a handshake any more. */
void rt__shakes_end(rt_loop *loop)
{
    rt__shake *k = loop->shakes_first, *next;
    for (; k; k = next) {
        next = k->next;
        shake_end(loop, k->conn);
    }
}

/* ---- requests: what the host reads of them ------------------------------ */

/* One that is away had its on_open: the handshake of its next connection is
   not the host's. */
const rt_request *rt_request_of(rt_loop *loop, rt_session handle)
{
    rt__shake *k = (rt__shake *)rt__slot_get(loop, handle.id, RT__SHAKE);
    rt__session *s;
    if (k)
        return &k->request;
    s = (rt__session *)rt__slot_get(loop, handle.id, RT__SESSION);
    k = s && s->conn && s->state != RT_AWAY ? rt__shake_of(s->conn) : NULL;
    return k && !k->stripped ? &k->request : NULL;
}

/* One decoded character of a query at *p, which moves; < 0: badly encoded, or
   a NUL, behind which the host would not see the rest.  The second digit is
   looked at only where the first is one: the text may end there. */
static int query_char(const char **p)
{
    int c = (uint8_t) * (*p)++, high, low;
    if (c == '+')
        return ' ';
    if (c != '%')
        return c;
    high = hex((uint8_t)(*p)[0]);
    low = high < 0 ? -1 : hex((uint8_t)(*p)[1]);
    *p += low < 0 ? 0 : 2;
    return low < 0 || high * 16 + low == 0 ? -1 : high * 16 + low;
}

static int query_value(const char *p, char *out, size_t cap)
{
    size_t n = 0;
    while (*p && *p != '&') {
        int c = query_char(&p);
        if (c < 0 || n + 1 >= cap)
            return RT_EINVAL;
        out[n++] = (char)c;
    }
    if (n >= cap)
        return RT_EINVAL;
    out[n] = 0;
    return (int)n;
}

/* The first of that name counts, and names are not decoded. */
int rt_query(const rt_request *request, const char *name, char *out, size_t cap)
{
    const char *p = request->query;
    size_t n = strlen(name);
    while (*p) {
        if (strncmp(p, name, n) == 0 && (p[n] == '=' || !p[n] || p[n] == '&'))
            return query_value(p[n] == '=' ? p + n + 1 : p + n, out, cap);
        p += strcspn(p, "&");
        p += *p == '&';
    }
    return RT_EINVAL;
}

/* ---- frames: out -------------------------------------------------------- */

/* A beat or a farewell of the codec, at most 256 bytes; on a WebSocket one
   packet is one binary frame. */
static int codec_say(rt_loop *loop, rt__conn *c, const uint8_t *packet,
                     size_t n)
{
    uint8_t frame[14 + 256], mask[8];
    int client = c->wire == RT__WS_CLIENT;
    uint64_t chance = client ? rt__random(loop) : 0;
    size_t head;
    if (n == 0)
        return 0;
    if (c->wire >= RT__STREAM)
        return rt__out_packet(loop, c, packet, n);
    memcpy(mask, &chance, sizeof mask);
    head = rt__frame_write(frame, RT_BINARY, n, client ? mask : NULL);
    if (client)
        rt__mask(frame + head, packet, n, mask, 0);
    else
        memcpy(frame + head, packet, n);
    return rt__out_packet(loop, c, frame, head + n);
}

/* Control on a stream: rtnet.1 has letters for them, a codec its own beat and
   farewell, other streams have none.  As RT_TEXT comes what has its letter
   already.  All of them are short: one byte of the length is enough. */
static int stream_control(rt_loop *loop, rt__conn *c, int op, const void *data,
                          size_t len)
{
    uint8_t frame[4 + 1 + 256];
    size_t letter = op == RT_TEXT ? 0 : 1;
    const rt_codec *codec = c->ep->codec;
    if (codec && op == 9 && codec->beat)
        return codec_say(loop, c, frame, codec->beat(codec->ctx, frame));
    if (!c->typed)
        return 0;
    memset(frame, 0, 4);
    frame[3] = (uint8_t)(len + letter);
    frame[4] = op == 8 ? 'c' : op == 9 ? 'p' : 'q';
    memcpy(frame + 4 + letter, data, len);
    if (op == 10)
        return rt__out_pong(loop, c, frame, 4 + letter + len);
    return rt__out_control(loop, c, frame, 4 + letter + len);
}

/* Queues a control frame of at most 125 bytes.  A client's mask is new and
   cannot be foreseen (RFC 6455, 5.3): else a page could choose what bytes stand
   on the wire, and have a proxy take them for a request (10.3).  Of pongs that
   cannot be written the last is enough (5.5.3): a flood of pings fills no
   queue. */
int rt__ws_control(rt_loop *loop, rt__conn *c, int op, const void *data,
                   size_t len)
{
    uint8_t frame[6 + RT__CONTROL], mask[8];
    int client = c->wire == RT__WS_CLIENT;
    uint64_t chance = client ? rt__random(loop) : 0;
    size_t head;
    if (c->wire >= RT__STREAM || (c->ep->codec && op == 9))
        return stream_control(loop, c, op, data, len);
    memcpy(mask, &chance, sizeof mask);
    head = rt__frame_write(frame, op, len, client ? mask : NULL);
    if (client)
        rt__mask(frame + head, (const uint8_t *)data, len, mask, 0);
    else
        memcpy(frame + head, data, len);
    if (op == 10)
        return rt__out_pong(loop, c, frame, head + len);
    return rt__out_control(loop, c, frame, head + len);
}

static void codec_bye(rt_loop *loop, rt__conn *c, int code, const char *reason)
{
    const rt_codec *codec = c->ep->codec;
    uint8_t packet[256];
    if (codec->bye)
        codec_say(loop, c, packet,
                  codec->bye(codec->ctx, packet, code, reason));
}

/* "c" code [SP reason]; 1005 and 1006 never stand on a wire (7.4.1). */
static int stream_close(rt_loop *loop, rt__conn *c, int code,
                        const char *reason)
{
    char text[8 + RT__REASON];
    int n = snprintf(text, sizeof text, "%d%s%s",
                     code == 1005 || code == 1006 ? 1000 : code,
                     *reason ? " " : "", reason);
    return rt__ws_control(loop, c, 8, text, (size_t)n);
}

/* Queues a close; 1005 says nothing, as its meaning is.  What waits in the
   other lanes goes in front of it, as nothing may follow (RFC 6455, 5.5.1). */
int rt__ws_close(rt_loop *loop, rt__conn *c, int code, const char *reason)
{
    uint8_t body[2 + RT__REASON] = {0};
    size_t n = 0;
    rt__out_tighten(loop, c);
    if (c->ep->codec)
        codec_bye(loop, c, code, reason);
    if (c->wire >= RT__STREAM)
        return c->typed ? stream_close(loop, c, code, reason) : 0;
    if (code == 1005 || code == 1006)
        return rt__ws_control(loop, c, 8, body, 0);
    body[0] = (uint8_t)(code >> 8);
    body[1] = (uint8_t)code;
    for (; n < RT__REASON && reason[n]; n++)
        body[2 + n] = (uint8_t)reason[n];
    return rt__ws_control(loop, c, 8, body, 2 + n);
}

/* ---- frames: in --------------------------------------------------------- */

/* A frame that is whole in what was read is dealt with there; c->in exists only
   while something is unfinished: a head, a frame, a message in fragments.  A
   fault is returned up to rt__ws_input, which alone acts on it.  c->in is freed
   when all is settled, and an upcall may end the session: behind either nothing
   is used before it was asked for again. */

enum { NEED_MEMORY = -1011 }; /* faults are negative close codes */

static const char *fault_text(int code)
{
    switch (code) {
    case 1007:
        return "invalid UTF-8";
    case 1008:
        return "too many control frames";
    case 1009:
        return "too large";
    case 1011:
        return "out of memory";
    }
    return "protocol error";
}

/* 0 or a fault, as with all of these.  One that has been told goodbye gets no
   more answers. */
int rt__ping_in(rt_loop *loop, rt__conn *c, const uint8_t *data, size_t n)
{
    int fault = c->state <= RT__LIVE ? rt__control_in(loop, c) : 0;
    if (c->state > RT__LIVE || fault < 0)
        return fault;
    return rt__ws_control(loop, c, 10, data, n) < 0 ? NEED_MEMORY : 0;
}

/* A pong that repeats our last ping gives the round-trip time, and its jitter
   as RFC 3550, 6.4.1 smooths it.  One that was not asked for is allowed (RFC
   6455, 5.5.3), but bounded.  The 32 bits of microseconds wrap, and so does the
   difference; one that seems to be negative is 1, as 0 says: not measured. */
int rt__pong_in(rt_loop *loop, rt__conn *c, const uint8_t *data, size_t n)
{
    uint32_t rtt, off;
    if (c->state > RT__LIVE)
        return 0;
    if (!c->asked || n != sizeof c->ping_us ||
        memcmp(data, &c->ping_us, n) != 0)
        return rt__control_in(loop, c);
    c->asked = 0;
    rt__conn_lives(loop, c);
    rtt = (uint32_t)rt__micros(loop) - c->ping_us;
    rtt = (int32_t)rtt < 1 ? 1 : rtt;
    off = rtt > c->is.trip.rtt_us ? rtt - c->is.trip.rtt_us
                                  : c->is.trip.rtt_us - rtt;
    if (c->is.trip.rtt_us)
        c->is.trip.jitter_us =
            (uint32_t)(c->is.trip.jitter_us +
                       ((int64_t)off - c->is.trip.jitter_us) / 16);
    c->is.trip.rtt_us = rtt;
    return 0;
}

/* The peer's close: the code and reason it gave, or a fault.  Half a code is
   wrong (RFC 6455, 5.5.1); no code at all is 1005 (7.1.5). */
static int close_read(const uint8_t *data, size_t n,
                      char reason[RT__REASON + 1])
{
    int code = 1005;
    reason[0] = 0;
    if (n == 1)
        return -1002;
    if (n == 0)
        return code;
    code = data[0] << 8 | data[1];
    if (!rt__close_code_valid(code))
        return -1002;
    if (!rt__utf8_valid(data + 2, n - 2))
        return -1007;
    memcpy(reason, data + 2, n - 2);
    reason[n - 2] = 0;
    return code;
}

/* The first close is answered with its own code (RFC 6455, 5.5.1).  The answer
   to ours ends the connection, once what was queued is written. */
static int close_in(rt_loop *loop, rt__conn *c, const uint8_t *data, size_t n)
{
    char reason[RT__REASON + 1];
    int code = close_read(data, n, reason);
    rt__session *s = c->session;
    if (code < 0)
        return code;
    c->peer_closed = 1;
    if (c->state == RT__FAREWELL) { /* the answer to ours */
        if (!c->out)
            rt__conn_finish(loop, c);
        return 0;
    }
    if (s && rt__session_left(loop, c, code, reason))
        s = NULL; /* it lives on without this connection */
    rt__conn_bye(loop, c, code, "");
    if (s)
        rt__session_end(loop, s, code, RT_BY_PEER, reason);
    return 0;
}

static int control_in(rt_loop *loop, rt__conn *c, int op, const uint8_t *data,
                      size_t n)
{
    if (op == 8)
        return close_in(loop, c, data, n);
    return op == 10 ? rt__pong_in(loop, c, data, n)
                    : rt__ping_in(loop, c, data, n);
}

/* May this frame come now, and is it within the limits?  0 or a fault.  No sum
   is made of what the peer announces: it could wrap, and pass.  have is never
   above most, as each frame was held to it.  Fragments are counted, as empty
   ones cost work without ever filling a message. */
static int frame_allowed(const rt__conn *c, const rt__frame *f)
{
    const rt__in *in = c->in;
    int under_way = in && in->message;
    uint64_t have = under_way && in->data ? in->data->len : 0;
    uint64_t most = (uint64_t)c->ep->max_message + c->typed +
                    (c->ep->codec ? RT__CODEC_HEAD : 0);
    if (f->op & 8)
        return 0;
    if ((f->op == 0) != under_way)
        return -1002;
    if (f->len > most || f->len > most - have)
        return -1009;
    if (under_way && in->fragments >= c->ep->max_fragments)
        return -1009;
    return 0;
}

/* Without a session nobody wants it; only a greeting may come before there is
   one. */
static int deliver(rt_loop *loop, rt__conn *c, int op, uint8_t *data, size_t n)
{
    if (c->typed)
        return c->session || c->state == RT__GREETING
                   ? rt__typed_in(loop, c, op, data, n)
                   : 0;
    if (c->ep->codec && c->session)
        return rt__codec_in(loop, c, data, n);
    if (c->session)
        rt__tell_message(loop, c->session, op, data, n);
    return 0;
}

/* The last frame of a message that came in parts.  It must not end within a
   character.  Its buffer is taken off first, and so is nobody else's while the
   upcall reads it.  none: an empty message, too, has a byte behind its end. */
static int message_whole(rt_loop *loop, rt__conn *c)
{
    int op = c->in->message, fault;
    uint8_t none[1] = {0};
    rt__buf *b;
    if (op == RT_TEXT && c->in->utf8.need)
        return -1007;
    b = rt__in_take(loop, c);
    if (b && b->len >= b->cap / 2) /* else a slow peer would hold too much */
        rt__lend(loop, b, rt__buf_data(b), b->len, RT__HEADROOM);
    fault = deliver(loop, c, op, b ? rt__buf_data(b) : none, b ? b->len : 0);
    rt__lend_over(loop);
    rt__buf_release(loop, b);
    return fault;
}

/* How much of the message may still come: what the last frame announces, or
   as much again as there is, so that many fragments are copied seldom. */
static uint64_t message_left(const rt__in *in)
{
    uint64_t have = in->data ? in->data->len : 0;
    return in->frame.fin || in->left > have ? in->left : have;
}

/* n more bytes of the payload are here, unmasked, the first of them ASCII. Text
   is checked as it comes: a wrong one is not collected to its end. */
static int payload_taken(rt_loop *loop, rt__conn *c, const uint8_t *to,
                         size_t n, size_t ascii)
{
    rt__in *in = c->in;
    if (in->utf8.need) /* its first bytes end a character */
        ascii = 0;
    in->left -= n;
    if (!(in->frame.op & 8) && !(c->typed && *rt__buf_data(in->data) == 'a'))
        rt__conn_lives(loop, c); /* an `a` is counted when it is whole */
    if (!(in->frame.op & 8) && in->message == RT_TEXT &&
        !rt__utf8_feed(&in->utf8, to + ascii, n - ascii))
        return -1007;
    return 0;
}

/* Takes n payload bytes of the frame under way, which may be a control frame
   between the fragments of a message, and so has a place of its own. */
static int payload_in(rt_loop *loop, rt__conn *c, const uint8_t *p, size_t n)
{
    rt__in *in = c->in;
    const uint8_t *mask = in->frame.mask;
    size_t phase = (size_t)(in->frame.len - in->left) & 3;
    size_t ascii = 0;
    uint8_t *to;
    if (in->frame.op & 8) {
        to = in->control + in->control_len;
        in->control_len = (uint8_t)(in->control_len + n);
    } else if (!(to = rt__in_room(loop, c, n, message_left(in)))) {
        return NEED_MEMORY;
    }
    if (in->frame.masked)
        ascii = rt__mask(to, p, n, mask, phase);
    else
        memcpy(to, p, n);
    return payload_taken(loop, c, to, n, ascii);
}

/* The frame under way has all its bytes.  Those of a control frame are copied,
   as c->in may be freed before they are read.  A message's deadline runs on
   over the control frames between its parts. */
static int frame_whole(rt_loop *loop, rt__conn *c)
{
    rt__in *in = c->in;
    uint8_t control[RT__CONTROL];
    size_t n = in->control_len;
    int op = in->frame.op;
    in->in_frame = 0;
    if (op & 8) {
        memcpy(control, in->control, n);
        in->control_len = 0;
        if (!in->message)
            in->since = 0;
        rt__in_settle(loop, c);
        return control_in(loop, c, op, control, n);
    }
    return in->frame.fin ? message_whole(loop, c) : 0;
}

/* A frame begins that cannot be dealt with where it stands.  The deadline runs
   from the message's first byte, and no fragment moves it. */
static int frame_begin(rt_loop *loop, rt__conn *c, const rt__frame *f)
{
    rt__in *in = rt__in_open(loop, c);
    int fault = frame_allowed(c, f);
    if (!in)
        return NEED_MEMORY;
    if (fault < 0)
        return fault;
    in->frame = *f;
    in->left = f->len;
    in->in_frame = 1;
    in->head_len = 0;
    if (f->op & 8)
        return 0;
    in->fragments++;
    if (f->op) {
        in->message = f->op;
        memset(&in->utf8, 0, sizeof in->utf8);
        rt__in_began(loop, c);
    }
    return 0;
}

/* Collects a head that came in parts; how many bytes it took, or a fault.  Byte
   by byte, so that none behind it is taken: there are 14 at most. */
static ptrdiff_t head_more(rt_loop *loop, rt__conn *c, const uint8_t *p,
                           size_t n)
{
    rt__in *in = c->in;
    rt__frame f;
    size_t used = 0;
    int size = 0, fault;
    while (size == 0 && used < n) {
        in->head[in->head_len++] = p[used++];
        size = rt__frame_read(in->head, in->head_len, c->wire == RT__WS_SERVER,
                              &f);
    }
    if (size < 0)
        return -1002;
    if (size > 0 && (fault = frame_begin(loop, c, &f)) < 0)
        return fault;
    return (ptrdiff_t)used;
}

/* Goes on with the frame under way; how many bytes it took, or a fault. */
static ptrdiff_t frame_more(rt_loop *loop, rt__conn *c, const uint8_t *p,
                            size_t n)
{
    ptrdiff_t used = 0;
    int fault;
    if (!c->in->in_frame) {
        used = head_more(loop, c, p, n);
        if (used < 0 || !c->in->in_frame)
            return used;
    }
    n -= (size_t)used;
    if (n > c->in->left)
        n = (size_t)c->in->left;
    if (n > 0 && (fault = payload_in(loop, c, p + used, n)) < 0)
        return fault;
    if (c->in->left == 0 && (fault = frame_whole(loop, c)) < 0)
        return fault;
    return used + (ptrdiff_t)n;
}

/* Else it was kept by a pause, in a block that is no buffer. */
static int in_inbox(rt_loop *loop, const uint8_t *p)
{
    uintptr_t first = (uintptr_t)rt__buf_data(loop->inbox);
    return (uintptr_t)p >= first && (uintptr_t)p < first + RT__RECEIVE;
}

/* How long the head of a long frame is that came in one piece: so much may
   stand before its payload instead.  (RFC 6455, 5.2.) */
static size_t head_size(const rt__frame *f)
{
    return (f->len > 65535 ? 10 : 4) + (f->masked ? (size_t)4 : 0);
}

/* A frame that is here whole: a control frame, or a message of one frame,
   which nearly all are.  It is unmasked where it was read, and the message
   that goes up is that very place: no copy, no memory. */
static int frame_in_place(rt_loop *loop, rt__conn *c, const rt__frame *f,
                          uint8_t *payload)
{
    size_t n = (size_t)f->len, ascii = 0;
    int fault;
    if (f->masked)
        ascii = rt__mask(payload, payload, n, f->mask, 0);
    if (f->op & 8)
        return control_in(loop, c, f->op, payload, n);
    if (f->op == RT_TEXT && !rt__utf8_valid(payload + ascii, n - ascii))
        return -1007;
    if (n < RT__LEND || !in_inbox(loop, payload))
        return deliver(loop, c, f->op, payload, n);
    rt__lend(loop, loop->inbox, payload, n, head_size(f));
    fault = deliver(loop, c, f->op, payload, n);
    rt__lend_over(loop);
    return fault;
}

/* One step: how many bytes it took, or a fault. */
static ptrdiff_t ws_step(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n)
{
    rt__frame f;
    ptrdiff_t more;
    int head, fault;
    if (c->in && (c->in->in_frame || c->in->head_len))
        return frame_more(loop, c, p, n);
    head = rt__frame_read(p, n, c->wire == RT__WS_SERVER, &f);
    if (head < 0)
        return -1002;
    if (head == 0 && !rt__in_open(loop, c))
        return NEED_MEMORY;
    if (head == 0) {
        rt__in_began(loop, c);
        return head_more(loop, c, p, n);
    }
    if ((fault = frame_allowed(c, &f)) < 0)
        return fault;
    if (n - (size_t)head >= f.len && (f.op & 8 || (f.op && f.fin))) {
        fault = frame_in_place(loop, c, &f, p + head);
        return fault < 0 ? fault : head + (ptrdiff_t)f.len;
    }
    if ((fault = frame_begin(loop, c, &f)) < 0)
        return fault;
    more = frame_more(loop, c, p + head, n - (size_t)head);
    return more < 0 ? more : head + more;
}

static void ws_fault(rt_loop *loop, rt__conn *c, int code)
{
    int limit = code == 1009 || code == 1008;
    rt__conn_violation(loop, c, code, limit ? RT_BY_LIMIT : RT_BY_ERROR,
                       fault_text(code));
}

/* Where the payload of a long frame under way may be received itself, and how
   much of it: as much again as has come.  NULL: not this time. */
uint8_t *rt__ws_room(rt_loop *loop, rt__conn *c, size_t *n)
{
    const rt__in *in = c->in;
    size_t have = in && in->data ? in->data->len : 0;
    if (!in || !in->in_frame || in->left < RT__DIRECT ||
        have < RT__DIRECT_FROM || c->state != RT__LIVE || c->wire >= RT__STREAM)
        return NULL;
    if (have < *n)
        *n = have;
    if (in->left < *n)
        *n = (size_t)in->left;
    return rt__in_room(loop, c, *n, message_left(in));
}

/* n bytes came to the room that rt__ws_room gave. */
void rt__ws_filled(rt_loop *loop, rt__conn *c, size_t room, size_t n)
{
    rt__in *in = c->in;
    size_t phase = (size_t)(in->frame.len - in->left) & 3;
    uint8_t *at = rt__buf_data(in->data) + in->data->len - room;
    size_t ascii = 0;
    int fault;
    in->data->len -= (uint32_t)(room - n);
    if (n == 0)
        return;
    if (in->frame.masked)
        ascii = rt__mask(at, at, n, in->frame.mask, phase);
    fault = payload_taken(loop, c, at, n, ascii);
    if (fault == 0 && in->left == 0)
        fault = frame_whole(loop, c);
    if (fault < 0)
        ws_fault(loop, c, -fault);
}

/* Takes what came from the peer; calls up for each message that is whole.  Each
   step takes a byte at least.  The state is asked for again after each, as the
   upcall may have closed, and the hold, as it may have stopped reading: then
   the rest is kept.  After our close only the peer's is looked for. */
void rt__ws_input(rt_loop *loop, rt__conn *c, uint8_t *p, size_t n)
{
    ptrdiff_t used;
    while (n > 0 && (c->state == RT__LIVE || c->state == RT__GREETING ||
                     (c->state == RT__FAREWELL && !c->peer_closed))) {
        if (c->hold) {
            used = rt__in_keep(loop, c, p, n) < 0 ? NEED_MEMORY : 0;
            n = 0;
        } else if ((used = ws_step(loop, c, p, n)) > 0) {
            p += used;
            n -= (size_t)used;
        }
        if (used < 0) {
            ws_fault(loop, c, (int)-used);
            return;
        }
    }
}
