/* The texts of a handshake: what cuts them up, and what judges them. */
#include "ws.c"

#include "any.h"

enum { TEXT = 4, HEAD = 4 };

/* Of these Frama-C knows what the answer can be, not what it says of the
   bytes: so they are here to be looked into. */
int strncmp(const char *a, const char *b, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) {
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
        if (!b[i])
            return 0;
    }
    return 0;
}

size_t strcspn(const char *s, const char *reject)
{
    size_t n = 0;
    while (s[n] && !strchr(reject, s[n]))
        n++;
    return n;
}

size_t strspn(const char *s, const char *accept)
{
    size_t n = 0;
    while (s[n] && strchr(accept, s[n]))
        n++;
    return n;
}

/* Any text of 0 to 4 bytes, its NUL at the end of the room. */
static char *text_any(char *room)
{
    size_t n = any_size_to(TEXT);
    //@ split n;
    return any_text(room, TEXT + 1, n);
}

/* rt__visible, rt__token_list: any text of 0 to 4 bytes */
void prove_token_list(void)
{
    char room[TEXT + 1], *text = text_any(room);
    rt__visible(text);
    rt__token_list(text);
}

/* rt__header_lines: any text of 0 to 4 bytes */
void prove_header_lines(void)
{
    char room[TEXT + 1], *text = text_any(room);
    rt__header_lines(text);
}

/* list_has: any list of 0 to 4 bytes, a word in it, whatever the case */
void prove_list_has(void)
{
    char room[TEXT + 1], *text = text_any(room);
    list_has(text, "up", 0);
}

/* list_has, exact: the same */
void prove_list_has_exact(void)
{
    char room[TEXT + 1], *text = text_any(room);
    list_has(text, "up", 1);
}

/* method_status, version_status, host_valid: any text of 0 to 4 bytes */
void prove_words_of_a_request(void)
{
    char room[TEXT + 1], *text = text_any(room);
    method_status(text);
    version_status(text);
    host_valid(text);
}

/* key_valid: any text of 0 to 26 bytes */
void prove_key_valid(void)
{
    char room[27];
    size_t n = any_size_to(26);
    //@ split n;
    key_valid(any_text(room, 27, n));
}

/* origin_same_host: any origin of 0 to 4 bytes behind "http", any host */
void prove_origin_same_host(void)
{
    char room[4 + TEXT + 1], other[TEXT + 1], *host = text_any(other);
    size_t n = any_size_to(TEXT);
    char *text;
    //@ split n;
    text = any_text(room, 4 + TEXT + 1, 4 + n);
    memcpy(text, "http", 4);
    origin_same_host(text, host);
}

/* head_scan: any 0 to 24 bytes, from any place */
void prove_head_scan(void)
{
    char room[24];
    rt__shake k = {0};
    ptrdiff_t size;
    size_t n = any_size_to(24);
    //@ split n;
    k.buf = (char *)any_tail((uint8_t *)room, 24, n);
    k.len = n;
    k.scanned = any_size_to(n);
    size = head_scan(&k);
    //@ assert -1 <= size <= n;
}

/* request_read of the n bytes at text, if head_scan lets them pass. */
static void request_any(char *text, size_t n)
{
    rt__shake k = {0};
    k.buf = text;
    k.len = n;
    if (head_scan(&k) != (ptrdiff_t)n)
        return;
    k.head_len = n;
    request_read(&k);
}

/* request_read: a request line with any bytes for its method (2), behind the
   slash of its target (3) and in its version (3) */
void prove_request_line(void)
{
    static const char line[] = "?? /??? HTTP/???\r\n\r\n";
    char room[sizeof line];
    size_t i;
    /*@ loop unroll 32; */
    for (i = 0; i < sizeof line; i++)
        room[i] = line[i] == '?' ? (char)Frama_C_unsigned_char_interval(1, 255)
                                 : line[i];
    request_any(room, sizeof line - 1);
}

/* request_read: an upgrade, with any header lines of 0 to 4 bytes behind those
   that it needs */
void prove_header_lines_read(void)
{
    static const char lines[] =
        "GET / HTTP/1.1\r\nHost: h\r\n"
        "Connection: Upgrade\r\n"
        "Upgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    enum { BEFORE = sizeof lines - 1 };
    char room[BEFORE + HEAD + 5], *text;
    size_t n = any_size_to(HEAD);
    //@ split n;
    text = any_text(room, sizeof room, BEFORE + n + 4);
    memcpy(text, lines, BEFORE);
    memcpy(text + BEFORE + n, "\r\n\r\n", 4);
    request_any(text, BEFORE + n + 4);
}
