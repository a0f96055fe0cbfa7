/*
 * Reads what a server wrote: answers of HTTP/1.1 one behind the other, frames
 * behind a 101.  Strict: what is not as the RFCs want it is a fault.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line of a head, without its end; NULL: there is none. */
static char *answer_line(char **at)
{
    char *text = *at, *end = strstr(text, "\r\n");
    const char *p;

    if (!end) {
        fuzz_wrong("an answer without an end: %.60s", text);
        return NULL;
    }
    for (p = text; p < end; p++)
        if (*p < 0x20 || *p > 0x7e)
            fuzz_wrong("a byte %#x in an answer", (unsigned char)*p);
    *end = 0;
    *at = end + 2;
    return text;
}

struct answer {
    int status;
    long length; /* -1: not told */
    int closes;
    char accept[64], protocol[64];
};

static void answer_header(struct answer *a, const char *text)
{
    const char *value = strstr(text, ": ");

    if (!value || value == text) {
        fuzz_wrong("a bad header: %.60s", text);
        return;
    }
    if (strncmp(text, "Content-Length: ", 16) == 0 && a->length >= 0)
        fuzz_wrong("two lengths");
    if (strncmp(text, "Content-Length: ", 16) == 0)
        a->length = atol(text + 16);
    if (strncmp(text, "Connection: ", 12) == 0)
        a->closes = strstr(text, "close") != NULL;
    if (strncmp(text, "Sec-WebSocket-Accept: ", 22) == 0)
        snprintf(a->accept, sizeof a->accept, " %s", text + 22);
    if (strncmp(text, "Sec-WebSocket-Protocol: ", 24) == 0)
        snprintf(a->protocol, sizeof a->protocol, " %s", text + 24);
}

/* 0: it cannot be read. */
static int answer_head(struct answer *a, char **at)
{
    char *text = answer_line(at);

    memset(a, 0, sizeof *a);
    a->length = -1;
    if (!text)
        return 0;
    if (sscanf(text, "HTTP/1.1 %3d ", &a->status) != 1 || a->status < 100) {
        fuzz_wrong("a bad status line: %.60s", text);
        return 0;
    }
    while ((text = answer_line(at)) && *text)
        answer_header(a, text);
    return text != NULL;
}

/* A body stands there, but behind the answer to a HEAD. */
static void answer_body(const struct answer *a, char **at, const char *end)
{
    if (a->status == 100 || *at == end || strncmp(*at, "HTTP/1.1 ", 9) == 0)
        return;
    if (a->length < 0 || a->length > end - *at) {
        fuzz_wrong("a body of %ld bytes, %ld are there", a->length,
                   (long)(end - *at));
        *at = (char *)end;
        return;
    }
    *at += a->length;
}

/* The answers; returns where frames begin, or the end. */
static char *answers_tell(char *at, char *end)
{
    struct answer a = {0};

    while (at < end && a.status != 101) {
        if (a.closes)
            fuzz_wrong("an answer behind one that closes");
        if (!answer_head(&a, &at))
            return end;
        fuzz_tell(FUZZ_DATA, "answer %d%s%s%s", a.status, a.accept, a.protocol,
                  a.closes ? " close" : "");
        if (a.status != 101)
            answer_body(&a, &at, end);
    }
    return at;
}

static inline uint64_t number(const uint8_t *p, int n)
{
    uint64_t v = 0;

    while (n--)
        v = v << 8 | *p++;
    return v;
}

static inline void frame_tell(int op, const uint8_t *data, size_t n)
{
    if (op == 1 && !fuzz_utf8(data, n))
        fuzz_wrong("sent a text that is no UTF-8");
    if (op == 1 || op == 2)
        fuzz_tell_bytes(FUZZ_DATA, op == 1 ? "text" : "binary", data, n);
    else if (op == 8 && n >= 2)
        fuzz_tell(FUZZ_CONTROL, "close %d", data[0] << 8 | data[1]);
    else if (op == 8)
        fuzz_tell(FUZZ_CONTROL, "close");
    else
        fuzz_tell_bytes(FUZZ_CONTROL, op == 9 ? "ping" : "pong", data, n);
}

/* Frames of a server: whole, unmasked, in the shortest form, none behind the
   close.  Returns how many bytes were frames. */
static inline size_t frames_tell(const uint8_t *p, size_t n)
{
    size_t i = 0, head, len, closed = 0;

    while (n - i >= 2) {
        int op = p[i] & 15, more = p[i + 1] == 126   ? 2
                                   : p[i + 1] == 127 ? 8
                                                     : 0;
        head = 2 + (size_t)more;
        if (n - i < head)
            break;
        len = more ? (size_t)number(p + i + 2, more) : p[i + 1];
        if (closed || (p[i] & 0xf0) != 0x80 || p[i + 1] > 127 ||
            (more && len < (more == 2 ? 126U : 65536U)) || len > n - i - head ||
            (op > 2 && (op < 8 || op > 10 || len > 125)) || op == 0)
            break;
        frame_tell(op, p + i + head, len);
        closed = op == 8;
        i += head + len;
    }
    if (i < n)
        fuzz_wrong("a bad frame was sent: %02x", p[i]);
    return i;
}
