/*
 * Answers to rt_dial, row by row; rtnet is the client.  .in is sent as it
 * stands, but {N*text} is text N times, {wait} waits until something came
 * back and $A is the right Sec-WebSocket-Accept.  .out and .app are as in the
 * table of requests; a row whose session opens, without eof, must still answer
 * a ping.  PLAIN offers no sub-protocol, OFFER offers "a, b".
 */
struct answer_row {
    const char *name, *in;
    size_t len;
    const char *out, *app;
    int config;
    int hangup; /* the server closes behind .in */
};

#define S101 "HTTP/1.1 101 Switching Protocols\r\n"
#define A_UP "Upgrade: websocket\r\n"
#define A_CONN "Connection: Upgrade\r\n"
#define A_KEY "Sec-WebSocket-Accept: $A\r\n"
#define THREE A_UP A_CONN A_KEY

#define C(n, i, o, a)                                                          \
    {                                                                          \
        .name = n, .in = i, .len = sizeof(i) - 1, .out = o, .app = a           \
    }
#define CX(n, i, o, a, ...)                                                    \
    {                                                                          \
        .name = n, .in = i, .len = sizeof(i) - 1, .out = o, .app = a,          \
        __VA_ARGS__                                                            \
    }
/* An answer with more lines; with that status line; of those lines. */
#define S(more) S101 THREE more "\r\n"
#define S_LINE(line) line "\r\n" THREE "\r\n"
#define S_OF(lines) S101 lines "\r\n"
#define OPENS(n, i) C(n, i, "", "open")
#define FAILS(n, i) C(n, i, "eof", "end(1006 *)")
#define OFFER_OPENS(n, i) CX(n, i, "", "open", .config = OFFER)
#define OFFER_FAILS(n, i) CX(n, i, "eof", "end(1006 *)", .config = OFFER)

static const struct answer_row answer_rows[] = {
    OPENS("a good answer", S("")),
    OPENS("any reason phrase", S_LINE("HTTP/1.1 101 Caf\351 (y)")),
    OPENS("an empty reason phrase", S_LINE("HTTP/1.1 101 ")),
    OPENS("any case of names and tokens",
          S_OF("UPGRADE: WebSocket\r\nconnection: uPGRADE\r\n"
               "sec-websocket-accept: $A\r\n")),
    OPENS("no space behind the colon",
          S_OF("Upgrade:websocket\r\nConnection:Upgrade\r\n"
               "Sec-WebSocket-Accept:$A\r\n")),
    OPENS("spaces and tabs around values",
          S_OF("Upgrade:\t websocket\t\r\nConnection:  Upgrade \r\n"
               "Sec-WebSocket-Accept: \t$A  \r\n")),
    OPENS("Connection in a list",
          S_OF(A_UP A_KEY "Connection: keep-alive, Upgrade\r\n")),
    OPENS("other headers", S("Server: x\r\nDate: now\r\nX:\r\n")),

    /* The status line. */
    FAILS("status 200", S_LINE("HTTP/1.1 200 OK")),
    FAILS("status 204", S_LINE("HTTP/1.1 204 No Content")),
    FAILS("status 301", S_LINE("HTTP/1.1 301 Moved")),
    FAILS("status 302 elsewhere",
          "HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\n\r\n"),
    FAILS("status 400", "HTTP/1.1 400 Bad Request\r\n\r\n"),
    FAILS("status 401",
          "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"),
    FAILS("status 403", "HTTP/1.1 403 Forbidden\r\n\r\n"),
    FAILS("status 426",
          "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8\r\n\r\n"),
    FAILS("status 500", "HTTP/1.1 500 Oops\r\n\r\n"),
    FAILS("status 503", "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\n\r\n"),
    FAILS("status 1010", S_LINE("HTTP/1.1 1010 x")),
    FAILS("status 10", S_LINE("HTTP/1.1 10 x")),
    FAILS("status 0101", S_LINE("HTTP/1.1 0101 x")),
    FAILS("status +101", S_LINE("HTTP/1.1 +101 x")),
    FAILS("status 1e2", S_LINE("HTTP/1.1 1e2 x")),
    FAILS("no status", S_LINE("HTTP/1.1  Switching")),
    FAILS("version 1.0", S_LINE("HTTP/1.0 101 x")),
    FAILS("version 2.0", S_LINE("HTTP/2.0 101 x")),
    FAILS("version 1.10", S_LINE("HTTP/1.10 101 x")),
    FAILS("http in lower case", S_LINE("http/1.1 101 x")),
    FAILS("a space before the version", S_LINE(" HTTP/1.1 101 x")),
    FAILS("two spaces before the status", S_LINE("HTTP/1.1  101 x")),
    FAILS("a tab before the status", S_LINE("HTTP/1.1\t101 x")),
    FAILS("NUL in the reason phrase", S_LINE("HTTP/1.1 101 a\0b")),
    FAILS("[30] CR in the reason phrase", S_LINE("HTTP/1.1 101 a\rb")),
    FAILS("not HTTP", "SSH-2.0-OpenSSH\r\n\r\n"),
    FAILS("a frame at once", "\201\005hello\r\n\r\n"),
    FAILS("the request sent back", "GET / HTTP/1.1\r\n" THREE "\r\n"),

    /* Upgrade, Connection, Accept. */
    FAILS("no Upgrade", S_OF(A_CONN A_KEY)),
    FAILS("Upgrade: h2c", S_OF(A_CONN A_KEY "Upgrade: h2c\r\n")),
    FAILS("Upgrade: websocketx", S_OF(A_CONN A_KEY "Upgrade: websocketx\r\n")),
    FAILS("Upgrade empty", S_OF(A_CONN A_KEY "Upgrade:\r\n")),
    FAILS("no Connection", S_OF(A_UP A_KEY)),
    FAILS("Connection: close", S_OF(A_UP A_KEY "Connection: close\r\n")),
    FAILS("Connection: upgraded", S_OF(A_UP A_KEY "Connection: upgraded\r\n")),
    FAILS("no Accept", S_OF(A_UP A_CONN)),
    FAILS("Accept empty", S_OF(A_UP A_CONN "Sec-WebSocket-Accept:\r\n")),
    FAILS("Accept of another key",
          S_OF(A_UP A_CONN
               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")),
    FAILS("Accept with more behind it",
          S_OF(A_UP A_CONN "Sec-WebSocket-Accept: $Ax\r\n")),
    FAILS("Accept with more before it",
          S_OF(A_UP A_CONN "Sec-WebSocket-Accept: x$A\r\n")),
    FAILS("Accept in a list",
          S_OF(A_UP A_CONN "Sec-WebSocket-Accept: $A, $A\r\n")),
    FAILS("Accept twice", S(A_KEY)),
    FAILS("Accept twice, the second wrong",
          S("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")),
    FAILS("Accept in lower case",
          S_OF(A_UP A_CONN "Sec-WebSocket-Accept: $a\r\n")),

    /* Sub-protocols and extensions. */
    FAILS("a sub-protocol not asked for",
          S("Sec-WebSocket-Protocol: chat\r\n")),
    FAILS("an empty sub-protocol", S("Sec-WebSocket-Protocol:\r\n")),
    OFFER_OPENS("none of the offered", S("")),
    OFFER_OPENS("the first offered", S("Sec-WebSocket-Protocol: a\r\n")),
    OFFER_OPENS("the second offered", S("Sec-WebSocket-Protocol: b\r\n")),
    OFFER_FAILS("one not offered", S("Sec-WebSocket-Protocol: c\r\n")),
    OFFER_FAILS("the case is another", S("Sec-WebSocket-Protocol: A\r\n")),
    OFFER_FAILS("all offered", S("Sec-WebSocket-Protocol: a, b\r\n")),
    OFFER_FAILS("one and a comma", S("Sec-WebSocket-Protocol: a,\r\n")),
    OFFER_FAILS("an empty one", S("Sec-WebSocket-Protocol:\r\n")),
    OFFER_FAILS("two lines", S("Sec-WebSocket-Protocol: a\r\n"
                               "Sec-WebSocket-Protocol: b\r\n")),
    FAILS("[22] an extension not asked for",
          S("Sec-WebSocket-Extensions: permessage-deflate\r\n")),
    FAILS("[22] an unknown extension", S("Sec-WebSocket-Extensions: x; y\r\n")),
    FAILS("[22] no extension, in words", S("Sec-WebSocket-Extensions:\r\n")),

    /* Grammar. */
    FAILS("[30] bare LF throughout",
          "HTTP/1.1 101 x\nUpgrade: websocket\nConnection: Upgrade\n"
          "Sec-WebSocket-Accept: $A\n\n"),
    FAILS("[30] bare LF behind the status line",
          "HTTP/1.1 101 x\n" THREE "\r\n"),
    FAILS("[30] bare LF behind a header", S("X: y\n")),
    FAILS("[30] bare LF at the end", S101 THREE "\n"),
    FAILS("[30] bare CR in a value", S("X: a\rb\r\n")),
    FAILS("[30] bare CR for a line end", S("X: a\rY: b\r\n")),
    FAILS("[28] an empty header name", S(": y\r\n")),
    FAILS("[30] no colon", S("X\r\n")),
    FAILS("[30] a space before the colon", S("X : y\r\n")),
    FAILS("[30] a space in a name", S("X Y: z\r\n")),
    FAILS("[30] NUL in a name", S("X\0Y: z\r\n")),
    FAILS("[30] NUL in a value", S("X: y\0z\r\n")),
    FAILS("[30] ESC in a value", S("X: y\033z\r\n")),
    FAILS("[30] obs-fold", S("X: y\r\n z\r\n")),
    FAILS("[30] obs-fold before any header", S_OF(" X: y\r\n" THREE)),
    OPENS("[26] 64 headers", S("{61*X: y\r\n}")),
    FAILS("[26] 65 headers", S("{62*X: y\r\n}")),
    OPENS("[33] a header of 7900 bytes", S("X: {7900*y}\r\n")),
    FAILS("[33] a header of 8200 bytes", S("X: {8200*y}\r\n")),
    FAILS("[33] a header that never ends", S101 "X: {8300*y}"),
    FAILS("[33] a status line that never ends", "HTTP/1.1 101 {8300*y}"),

    /* The line goes before the answer is whole. */
    CX("no answer", "", "eof", "end(1006 *)", .hangup = 1),
    CX("half a status line", "HTTP/1.1 1", "eof", "end(1006 *)", .hangup = 1),
    CX("half an answer", S101 A_UP, "eof", "end(1006 *)", .hangup = 1),
    CX("all but the last byte", S101 THREE "\r", "eof", "end(1006 *)",
       .hangup = 1),
    CX("the answer, then nothing", S(""), "eof", "open end(1006 peer:*)",
       .hangup = 1),

    /* Frames in the same packet. */
    C("[40] a text behind the answer", S("") "\201\005hello", "",
      "open text(hello)"),
    C("[40] two texts and a ping behind it", S("") "\201\001a\202\000\211\001p",
      "pong(p)", "open text(a) binary()"),
    C("[40] a close behind it", S("") "\210\002\003\350", "close(1000:*) eof",
      "open end(1000 peer:)"),
    C("[40] a masked frame behind it", S("") "\201\201\0\0\0\0a",
      "close(1002:*) eof", "open end(1002 error:*)"),
    C("[40] a text, then garbage", S("") "\201\001a\203", "close(1002:*) eof",
      "open text(a) end(1002 error:*)"),
    CX("[46] a text behind it, then the end", S("") "\201\001a", "eof",
       "open text(a) end(1006 peer:*)", .hangup = 1),
};

/* The request itself: lines that it must hold, with a ! those it must not. */
struct request_row {
    const char *name, *tail, *protocols, *headers, *has;
};

static const struct request_row request_rows[] = {
    {"the path is /", "", NULL, NULL,
     "GET / HTTP/1.1|Upgrade: websocket|Connection: Upgrade|"
     "Sec-WebSocket-Version: 13|!Sec-WebSocket-Protocol:|"
     "!Sec-WebSocket-Extensions:|!Content-Length:|!Transfer-Encoding:"},
    {"a path", "/a/b", NULL, NULL, "GET /a/b HTTP/1.1"},
    {"a query", "/a?b=c&d=%20", NULL, NULL, "GET /a?b=c&d=%20 HTTP/1.1"},
    {"a query without a path", "?x=1", NULL, NULL, "GET /?x=1 HTTP/1.1"},
    {"sub-protocols", "/", "a, b", NULL, "Sec-WebSocket-Protocol: a, b"},
    {"more headers", "/", NULL, "X-A: 1\r\nOrigin: http://me\r\n",
     "X-A: 1|Origin: http://me"},
    {"more headers without the last line end", "/", NULL, "X-A: 1\r\nX-B: 2",
     "X-A: 1|X-B: 2"},
    {"the host and port", "/", NULL, NULL, "Host: $H"},
};

/* What rt_dial must not put into a request [35]. */
static const struct request_row refused_rows[] = {
    {"[35] CR LF in the path", "/a\r\nX: y", NULL, NULL, NULL},
    {"[35] a space in the path", "/a b", NULL, NULL, NULL},
    {"[35] DEL in the path", "/a\177", NULL, NULL, NULL},
    {"[35] CR LF in the sub-protocols", "/", "a\r\nX: y", NULL, NULL},
    {"[35] an empty sub-protocol", "/", "a,,b", NULL, NULL},
    {"[35] a header with a bare LF", "/", NULL, "X: y\nZ: z\r\n", NULL},
    {"[35] a header with a bare CR", "/", NULL, "X: y\rZ: z\r\n", NULL},
    {"[35] a blank line in the headers", "/", NULL, "X: y\r\n\r\nZ: z\r\n",
     NULL},
    {"[35] a header without a colon", "/", NULL, "X\r\n", NULL},
    {"[35] a folded header", "/", NULL, "X: y\r\n z\r\n", NULL},
    {"[35] a header without a name", "/", NULL, ": y\r\n", NULL},
    {"[35] another Host", "/", NULL, "host: evil\r\n", NULL},
    {"[35] an extension", "/", NULL, "Sec-WebSocket-Extensions: x\r\n", NULL},
    {"[35] a body", "/", NULL, "Transfer-Encoding: chunked\r\n", NULL},
};
