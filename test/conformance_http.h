/*
 * Requests, row by row; rtnet is the server.  .in is sent as it stands, but
 * {N*text} is text N times, and {wait} waits until something came back.  .out
 * is the log of the answers: their statuses, a 200 with :body, then the frames
 * behind a 101, then eof when the server closed.  A row without eof at its end
 * is asked once more, by a ping or by a GET, and must answer.  .app is what
 * the application was told.  .has are lines that the first answer must hold,
 * those with a ! in front ones that it must not; divided by |.
 *
 * PLAIN has no request handler.  HANDLER answers /ok, /echo and /next, accepts
 * an upgrade of /chat with the sub-protocol chat and one of /accept as the row
 * at the end of this file says, refuses /no with 403 and
 * leaves the rest to the library.  TIGHT is HANDLER with max_body 8 and
 * max_header 512.  LIST allows https://game.example and
 * http://localhost:8080, ANY any origin.
 */
struct http_row {
    const char *name, *in;
    size_t len;
    const char *out, *app, *has;
    int config;
};

#define HOST "Host: h\r\n"
#define UPGRADE "Upgrade: websocket\r\n"
#define CONN "Connection: Upgrade\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define V13 "Sec-WebSocket-Version: 13\r\n"
#define FOUR HOST UPGRADE CONN KEY V13

/* An upgrade: with more lines; with that request line; of those lines. */
#define WS(more) "GET / HTTP/1.1\r\n" FOUR more "\r\n"
#define WS_LINE(line) line "\r\n" FOUR "\r\n"
#define WS_OF(lines) "GET / HTTP/1.1\r\n" lines "\r\n"

#define GET(path, more) "GET " path " HTTP/1.1\r\n" HOST more "\r\n"
#define POST(path, more, body)                                                 \
    "POST " path " HTTP/1.1\r\n" HOST more "\r\n" body
#define NEXT GET("/next", "")

#define H(n, i, o, a)                                                          \
    {                                                                          \
        .name = n, .in = i, .len = sizeof(i) - 1, .out = o, .app = a           \
    }
#define HX(n, i, o, a, ...)                                                    \
    {                                                                          \
        .name = n, .in = i, .len = sizeof(i) - 1, .out = o, .app = a,          \
        __VA_ARGS__                                                            \
    }
/* A request that PLAIN must refuse with this status, and close. */
#define NO(n, i, status) H(n, i, status " eof", "")
/* An upgrade that PLAIN must accept. */
#define YES(n, i) H(n, i, "101", "open")
/* To HANDLER. */
#define A(n, i, o, a) HX(n, i, o, a, .config = HANDLER)
/* A POST to /echo with 5 bytes of body and a request behind it. */
#define SMUGGLE(n, more, o, a)                                                 \
    HX(n, POST("/echo", more, "hello") NEXT, o, a, .config = HANDLER)
#define REFUSED(n, more, status) SMUGGLE(n, more, status " eof", "")
#define PASSES(n, more)                                                        \
    SMUGGLE(n, more, "200:hello 200:next", "POST /echo(hello) GET /next")

static const struct http_row http_rows[] = {
    /* The request line. */
    HX("[34] a good upgrade", WS(""), "101", "open",
       .has = "Upgrade: websocket|Connection: Upgrade|"
              "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=|"
              "!Sec-WebSocket-Protocol:|!Sec-WebSocket-Extensions:|"
              "!Content-Length:|!Transfer-Encoding:"),
    YES("path and query", WS_LINE("GET /a/b%20c?x=1&y=%2F HTTP/1.1")),
    NO("[30] no method", WS_LINE(" / HTTP/1.1"), "400"),
    NO("[30] no path", WS_LINE("GET  HTTP/1.1"), "400"),
    NO("[30] no version", WS_LINE("GET /"), "400"),
    NO("[30] two spaces before the path", WS_LINE("GET  / HTTP/1.1"), "400"),
    NO("[30] two spaces behind the path", WS_LINE("GET /  HTTP/1.1"), "400"),
    NO("[30] a space before the method", WS_LINE(" GET / HTTP/1.1"), "400"),
    NO("[30] a space behind the version", WS_LINE("GET / HTTP/1.1 "), "400"),
    NO("[30] a space in the path", WS_LINE("GET /a b HTTP/1.1"), "400"),
    NO("[30] a tab for a space", WS_LINE("GET\t/\tHTTP/1.1"), "400"),
    NO("[30] NUL in the path", WS_LINE("GET /a\0b HTTP/1.1"), "400"),
    NO("[30] DEL in the path", WS_LINE("GET /a\177b HTTP/1.1"), "400"),
    NO("[30] CR in the path", WS_LINE("GET /a\rb HTTP/1.1"), "400"),
    NO("[30] ESC in the path", WS_LINE("GET /a\033b HTTP/1.1"), "400"),
    NO("[30] 8 bits in the path", WS_LINE("GET /\303\251 HTTP/1.1"), "400"),
    NO("[30] a path without its slash", WS_LINE("GET a HTTP/1.1"), "400"),
    NO("[30] a parenthesis in the method", WS_LINE("G(T / HTTP/1.1"), "400"),
    NO("[30] NUL in the method", WS_LINE("G\0T / HTTP/1.1"), "400"),
    NO("[30] absolute form", WS_LINE("GET http://h/ HTTP/1.1"), "400"),
    NO("[30] a fragment in the path", WS_LINE("GET /a#b HTTP/1.1"), "400"),
    NO("[30] an empty line before it", "\r\n" WS(""), "400"),
    NO("[30] only a line end", "\r\r\n\r\n", "400"),
    NO("[30] garbage", "hello\r\n\r\n", "400"),
    NO("[30] a TLS hello", "\026\003\001\002\000\001\000\001\374\003\003\r\n",
       "400"),
    NO("[30] a frame before the handshake", "\201\205\1\2\3\4hello\r\n\r\n",
       "400"),
    NO("version 1.2", WS_LINE("GET / HTTP/1.2"), "505"),
    NO("version 2.0", WS_LINE("GET / HTTP/2.0"), "505"),
    NO("version 0.9", WS_LINE("GET / HTTP/0.9"), "505"),
    NO("the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
    NO("[30] version 1", WS_LINE("GET / HTTP/1"), "400"),
    NO("[30] version 11", WS_LINE("GET / HTTP/11"), "400"),
    NO("[30] version 1.10", WS_LINE("GET / HTTP/1.10"), "400"),
    NO("[30] version 1,1", WS_LINE("GET / HTTP/1,1"), "400"),
    NO("[30] version x.y", WS_LINE("GET / HTTP/x.y"), "400"),
    NO("[30] http in lower case", WS_LINE("GET / http/1.1"), "400"),
    NO("[30] another protocol", WS_LINE("GET / ICAP/1.1"), "400"),
    NO("[24] an upgrade in HTTP/1.0", WS_LINE("GET / HTTP/1.0"), "400"),

    /* Line ends. */
    NO("[30] bare LF throughout",
       "GET / HTTP/1.1\nHost: h\nUpgrade: websocket\nConnection: Upgrade\n"
       "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
       "Sec-WebSocket-Version: 13\n\n",
       "400"),
    NO("[30] bare LF behind the request line", "GET / HTTP/1.1\n" FOUR "\r\n",
       "400"),
    NO("[30] bare LF behind a header", WS("X: y\n"), "400"),
    NO("[30] bare LF at the end", "GET / HTTP/1.1\r\n" FOUR "\n", "400"),
    NO("[30] bare LF in a value", WS("X: a\nb\r\n"), "400"),
    NO("[30] bare CR in a value", WS("X: a\rb\r\n"), "400"),
    NO("[30] bare CR at the end of a line", WS("X: a\r\r\n"), "400"),
    NO("[30] bare CR for a line end", WS("X: a\rY: b\r\n"), "400"),
    NO("[30] bare CR for the blank line", "GET / HTTP/1.1\r\n" FOUR "\r\r\n",
       "400"),

    /* Header lines. */
    YES("any case of names and tokens",
        WS_OF("hOST: h\r\nUPGRADE: WebSocket\r\nconnection: uPGRADE\r\n"
              "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
              "SEC-WEBSOCKET-VERSION: 13\r\n")),
    YES("no space behind the colon",
        WS_OF("Host:h\r\nUpgrade:websocket\r\nConnection:Upgrade\r\n"
              "Sec-WebSocket-Key:dGhlIHNhbXBsZSBub25jZQ==\r\n"
              "Sec-WebSocket-Version:13\r\n")),
    YES("spaces and tabs around values",
        WS_OF("Host: \t h \t\r\nUpgrade:\t websocket \r\n"
              "Connection:  Upgrade\t\r\n"
              "Sec-WebSocket-Key:  dGhlIHNhbXBsZSBub25jZQ==  \r\n"
              "Sec-WebSocket-Version: \t13\t \r\n")),
    YES("an empty value", WS("X:\r\nY: \r\n")),
    YES("8 bits in a value", WS("X: caf\303\251 \377\r\n")),
    YES("a tab in a value", WS("X: a\tb\r\n")),
    YES("all that a name may hold", WS("!#$%&'*+-.^_`|~09azAZ: y\r\n")),
    NO("[28] an empty header name", WS(": y\r\n"), "400"),
    NO("[28] an empty name before Host", WS_OF(": y\r\n" FOUR), "400"),
    NO("[28] only a colon", WS(":\r\n"), "400"),
    NO("[30] no colon", WS("X\r\n"), "400"),
    NO("[30] a space before the colon", WS("X : y\r\n"), "400"),
    NO("[30] a tab before the colon", WS("X\t: y\r\n"), "400"),
    NO("[30] a space in a name", WS("X Y: z\r\n"), "400"),
    NO("[30] a quote in a name", WS("X\"Y: z\r\n"), "400"),
    NO("[30] a slash in a name", WS("X/Y: z\r\n"), "400"),
    NO("[30] NUL in a name", WS("X\0Y: z\r\n"), "400"),
    NO("[30] 8 bits in a name", WS("X\303\251: z\r\n"), "400"),
    NO("[30] NUL in a value", WS("X: y\0z\r\n"), "400"),
    NO("[30] DEL in a value", WS("X: y\177z\r\n"), "400"),
    NO("[30] BEL in a value", WS("X: y\az\r\n"), "400"),
    NO("[30] ESC in a value", WS("X: y\033z\r\n"), "400"),
    NO("[30] obs-fold with a space", WS("X: y\r\n z\r\n"), "400"),
    NO("[30] obs-fold with a tab", WS("X: y\r\n\tz\r\n"), "400"),
    NO("[30] obs-fold before any header", WS_OF(" X: y\r\n" FOUR), "400"),
    NO("[30] a blank line with a space", "GET / HTTP/1.1\r\n" FOUR " \r\n\r\n",
       "400"),

    /* How many, how large: 64 headers, 8192 bytes. */
    YES("[26] 64 headers", WS("{59*X: y\r\n}")),
    NO("[26] 65 headers", WS("{60*X: y\r\n}"), "431"),
    NO("[26] 1000 headers", WS("{995*X: y\r\n}"), "431"),
    YES("[25] one of 7900 bytes", WS("X: {7900*y}\r\n")),
    NO("[25] one of 8200 bytes", WS("X: {8200*y}\r\n"), "431"),
    NO("[25] one that never ends", "GET / HTTP/1.1\r\nX: {8300*y}", "431"),
    NO("[25] a path that never ends", "GET /{8300*y}", "431"),
    NO("[25] a name that never ends", "GET / HTTP/1.1\r\n{8300*y}", "431"),
    HX("[25] 512 bytes of 512",
       "GET /ok HTTP/1.1\r\nHost: h\r\nX: {478*y}\r\n\r\n", "200:ok", "GET /ok",
       .config = TIGHT),
    HX("[25] 513 bytes of 512",
       "GET /ok HTTP/1.1\r\nHost: h\r\nX: {479*y}\r\n\r\n", "431 eof", "",
       .config = TIGHT),

    /* Host. */
    YES("Host with a port", WS_OF("Host: h:8080\r\n" UPGRADE CONN KEY V13)),
    YES("Host of IPv6", WS_OF("Host: [::1]:9000\r\n" UPGRADE CONN KEY V13)),
    NO("[31] no Host", WS_OF(UPGRADE CONN KEY V13), "400"),
    NO("[31] Host twice", WS("Host: h\r\n"), "400"),
    NO("[31] Host twice, different", WS("Host: evil\r\n"), "400"),
    NO("[31] Host empty", WS_OF("Host:\r\n" UPGRADE CONN KEY V13), "400"),
    NO("[31] Host of spaces", WS_OF("Host:  \t\r\n" UPGRADE CONN KEY V13),
       "400"),
    NO("[31] Host with a space", WS_OF("Host: a b\r\n" UPGRADE CONN KEY V13),
       "400"),
    NO("[31] Host with a slash", WS_OF("Host: a/b\r\n" UPGRADE CONN KEY V13),
       "400"),
    NO("[31] Host with a user", WS_OF("Host: a@b\r\n" UPGRADE CONN KEY V13),
       "400"),
    YES("Host in percent", WS_OF("Host: a%2db\r\n" UPGRADE CONN KEY V13)),
    NO("[31] Host with half a percent",
       WS_OF("Host: a%2\r\n" UPGRADE CONN KEY V13), "400"),
    NO("[31] Host with a port of letters",
       WS_OF("Host: h:x\r\n" UPGRADE CONN KEY V13), "400"),
    NO("[31] Host with two ports",
       WS_OF("Host: h:1:2\r\n" UPGRADE CONN KEY V13), "400"),
    NO("[31] Host with an open bracket",
       WS_OF("Host: [::1\r\n" UPGRADE CONN KEY V13), "400"),
    NO("[31] Host with a closing bracket",
       WS_OF("Host: ::1]\r\n" UPGRADE CONN KEY V13), "400"),
    NO("[31] Host of brackets", WS_OF("Host: []\r\n" UPGRADE CONN KEY V13),
       "400"),
    NO("[31] Host with a caret", WS_OF("Host: a^b\r\n" UPGRADE CONN KEY V13),
       "400"),
    NO("[31] Host with a fragment", WS_OF("Host: a#b\r\n" UPGRADE CONN KEY V13),
       "400"),
    NO("[31] a list of Hosts", WS_OF("Host: a, b\r\n" UPGRADE CONN KEY V13),
       "400"),
    HX("[31] no Host on a plain GET", "GET /ok HTTP/1.1\r\n\r\n", "400 eof", "",
       .config = HANDLER),

    /* Upgrade and Connection. */
    YES("Upgrade in a list",
        WS_OF(HOST CONN KEY V13 "Upgrade: h2c, websocket\r\n")),
    YES("Upgrade on two lines",
        WS_OF(HOST CONN KEY V13 "Upgrade: h2c\r\nUpgrade: websocket\r\n")),
    YES("Connection: keep-alive, Upgrade",
        WS_OF(HOST UPGRADE KEY V13 "Connection: keep-alive, Upgrade\r\n")),
    YES("Connection list without spaces",
        WS_OF(HOST UPGRADE KEY V13 "Connection: a,upgrade,b\r\n")),
    YES("Connection on two lines",
        WS_OF(HOST UPGRADE KEY V13 "Connection: keep-alive\r\n" CONN)),
    HX("no Upgrade", WS_OF(HOST CONN KEY V13), "426 eof", "",
       .has = "Upgrade: websocket|Connection: "),
    NO("Upgrade: h2c", WS_OF(HOST CONN KEY V13 "Upgrade: h2c\r\n"), "426"),
    NO("Upgrade: websockets",
       WS_OF(HOST CONN KEY V13 "Upgrade: websockets\r\n"), "426"),
    NO("Upgrade: xwebsocket",
       WS_OF(HOST CONN KEY V13 "Upgrade: xwebsocket\r\n"), "426"),
    NO("Upgrade: web socket",
       WS_OF(HOST CONN KEY V13 "Upgrade: web socket\r\n"), "426"),
    NO("Upgrade empty", WS_OF(HOST CONN KEY V13 "Upgrade:\r\n"), "426"),
    NO("[34] no Connection", WS_OF(HOST UPGRADE KEY V13), "400"),
    NO("[34] Connection: keep-alive",
       WS_OF(HOST UPGRADE KEY V13 "Connection: keep-alive\r\n"), "400"),
    NO("[34] Connection: upgraded",
       WS_OF(HOST UPGRADE KEY V13 "Connection: upgraded\r\n"), "400"),
    NO("[34] Connection: up grade",
       WS_OF(HOST UPGRADE KEY V13 "Connection: up grade\r\n"), "400"),
    NO("[34] Connection empty", WS_OF(HOST UPGRADE KEY V13 "Connection:\r\n"),
       "400"),

/* Sec-WebSocket-Key and -Version. */
#define WS_KEY(key) WS_OF(HOST UPGRADE CONN V13 "Sec-WebSocket-Key:" key)
    HX("[34] another key", WS_KEY(" x3JJHMbDL1EzLkh9GBhXDw==\r\n"), "101",
       "open", .has = "Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk="),
    HX("[34] a key of + and /", WS_KEY(" ++++//////////++++++/w==\r\n"), "101",
       "open", .has = "Sec-WebSocket-Accept: @++++//////////++++++/w=="),
    NO("[34] no key", WS_OF(HOST UPGRADE CONN V13), "400"),
    NO("[34] an empty key", WS_KEY("\r\n"), "400"),
    NO("[34] a key of 23", WS_KEY(" dGhlIHNhbXBsZSBub25jZQ=\r\n"), "400"),
    NO("[34] a key of 25", WS_KEY(" dGhlIHNhbXBsZSBub25jZQ===\r\n"), "400"),
    NO("[34] a key of 22", WS_KEY(" dGhlIHNhbXBsZSBub25jZQ\r\n"), "400"),
    NO("[34] a key of 20", WS_KEY(" dGhlIHNhbXBsZSBub25j\r\n"), "400"),
    NO("[34] 24, but of 18 bytes", WS_KEY(" dGhlIHNhbXBsZSBub25jZQAA\r\n"),
       "400"),
    NO("[34] 24, but of 17 bytes", WS_KEY(" dGhlIHNhbXBsZSBub25jZQA=\r\n"),
       "400"),
    NO("[34] bits behind the last byte",
       WS_KEY(" dGhlIHNhbXBsZSBub25jZR==\r\n"), "400"),
    NO("[34] = inside", WS_KEY(" dGhlIHNh=XBsZSBub25jZQ==\r\n"), "400"),
    NO("[34] another alphabet", WS_KEY(" dGhl-HNh_XBsZSBub25jZQ==\r\n"), "400"),
    NO("[34] a space inside", WS_KEY(" dGhlIHNh XBsZSBub25jZQ==\r\n"), "400"),
    NO("[34] two keys", WS(KEY), "400"),
#define WS_VERSION(v) WS_OF(HOST UPGRADE CONN KEY "Sec-WebSocket-Version:" v)
#define VERSION_ROW(n, v)                                                      \
    HX("[24] " n, WS_VERSION(v), "426 eof", "",                                \
       .has = "Sec-WebSocket-Version: 13")
    HX("[24] no version", WS_OF(HOST UPGRADE CONN KEY), "426 eof", "",
       .has = "Sec-WebSocket-Version: 13"),
    VERSION_ROW("version 0", " 0\r\n"),
    VERSION_ROW("version 8", " 8\r\n"),
    VERSION_ROW("version 12", " 12\r\n"),
    VERSION_ROW("version 14", " 14\r\n"),
    VERSION_ROW("version 013", " 013\r\n"),
    VERSION_ROW("version 130", " 130\r\n"),
    VERSION_ROW("version 13.0", " 13.0\r\n"),
    VERSION_ROW("version -13", " -13\r\n"),
    VERSION_ROW("version x", " x\r\n"),
    VERSION_ROW("version empty", "\r\n"),
    VERSION_ROW("versions 13, 8", " 13, 8\r\n"),
    NO("[24] draft 76",
       "GET / HTTP/1.1\r\n" HOST "Upgrade: WebSocket\r\n" CONN
       "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\n"
       "Sec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n\r\n^n:ds[4U",
       "426"),

    NO("[24] version 13 twice", WS(V13), "400"),

    /* Sub-protocols and extensions. */
    HX("a sub-protocol nobody chose", WS("Sec-WebSocket-Protocol: chat\r\n"),
       "101", "open", .has = "!Sec-WebSocket-Protocol:"),
    HX("a sub-protocol chosen",
       GET("/chat", UPGRADE CONN KEY V13 "Sec-WebSocket-Protocol: a, chat\r\n"),
       "101", "GET /chat+ open", .has = "Sec-WebSocket-Protocol: chat",
       .config = HANDLER),
    HX("a sub-protocol chosen from two lines",
       GET("/chat", UPGRADE CONN KEY V13 "Sec-WebSocket-Protocol: a\r\n"
                                         "Sec-WebSocket-Protocol: chat\r\n"),
       "101", "GET /chat+ open", .has = "Sec-WebSocket-Protocol: chat",
       .config = HANDLER),
    NO("[27] sub-protocol: ,", WS("Sec-WebSocket-Protocol: ,\r\n"), "400"),
    NO("[27] sub-protocol: a,", WS("Sec-WebSocket-Protocol: a,\r\n"), "400"),
    NO("[27] sub-protocol: ,a", WS("Sec-WebSocket-Protocol: ,a\r\n"), "400"),
    NO("[27] sub-protocol: a,,b", WS("Sec-WebSocket-Protocol: a,,b\r\n"),
       "400"),
    NO("[27] sub-protocol: a b", WS("Sec-WebSocket-Protocol: a b\r\n"), "400"),
    NO("[27] sub-protocol in an open quote",
       WS("Sec-WebSocket-Protocol: \"a\r\n"), "400"),
    NO("[27] sub-protocol empty", WS("Sec-WebSocket-Protocol:\r\n"), "400"),
    NO("[27] sub-protocols: 2000 commas",
       WS("Sec-WebSocket-Protocol: {2000*,}\r\n"), "400"),
    HX("[22] extensions are not taken up",
       WS("Sec-WebSocket-Extensions: permessage-deflate; "
          "client_max_window_bits\r\n"),
       "101", "open", .has = "!Sec-WebSocket-Extensions:"),
    HX("[22] the same extension twice",
       WS("Sec-WebSocket-Extensions: permessage-deflate, "
          "permessage-deflate; server_max_window_bits=99\r\n"),
       "101", "open", .has = "!Sec-WebSocket-Extensions:"),
    HX("[22] an extension in an open quote",
       WS("Sec-WebSocket-Extensions: x; y=\"\\\r\n"), "101", "open",
       .has = "!Sec-WebSocket-Extensions:"),

    /* Frames in the same packet. */
    H("[40] a text behind the request", WS("") "\201\205\1\2\3\4igohn", "101",
      "open text(hello)"),
    H("[40] two texts and a ping behind it",
      WS("") "\201\201\1\2\3\4`\202\200\5\6\7\b\211\201\t\t\t\ty",
      "101 pong(p)", "open text(a) binary()"),
    H("[40] half a text behind it", WS("") "\201\205\1\2\3\4ig{wait}ohn", "101",
      "open text(hello)"),
    H("[40] a close behind it", WS("") "\210\202\0\0\0\0\003\350",
      "101 close(1000:*) eof", "open end(1000 peer:)"),
    H("[40] a violation behind it", WS("") "\201\005hello",
      "101 close(1002:*) eof", "open end(1002 error:*)"),
    H("[30] a second request is no frame", WS("") WS(""),
      "101 close(1002:*) eof", "open end(1002 error:*)"),

    /* What the handler says to an upgrade. */
    A("accepted", GET("/ws?a=1", UPGRADE CONN KEY V13), "101",
      "GET /ws?a=1+ open"),
    A("refused with 403", GET("/no", UPGRADE CONN KEY V13), "403 eof",
      "GET /no+"),
    A("[40] refused, the frames behind it are not read",
      GET("/no", UPGRADE CONN KEY V13) "\201\201\0\0\0\0a", "403 eof",
      "GET /no+"),
    A("[32] not asked about a bad key",
      GET("/ws", UPGRADE CONN V13 "Sec-WebSocket-Key: x\r\n"), "400 eof", ""),
    A("[32] not asked about another version",
      GET("/ws", UPGRADE CONN KEY "Sec-WebSocket-Version: 8\r\n"), "426 eof",
      ""),

    /* Plain requests. */
    A("GET", GET("/ok", ""), "200:ok", "GET /ok"),
    HX("GET tells the length", GET("/ok", ""), "200:ok", "GET /ok",
       .has = "Content-Length: 2|Content-Type: text/plain|!Connection: close",
       .config = HANDLER),
    HX("HEAD has no body", "HEAD /ok HTTP/1.1\r\n" HOST "\r\n", "200",
       "HEAD /ok", .has = "Content-Length: 2", .config = HANDLER),
    A("HEAD, then GET", "HEAD /ok HTTP/1.1\r\n" HOST "\r\n" NEXT,
      "200 200:next", "HEAD /ok GET /next"),
    A("GET with a query", GET("/ok?a=b", ""), "200:ok", "GET /ok?a=b"),
    A("POST", POST("/echo", "Content-Length: 5\r\n", "hello"), "200:hello",
      "POST /echo(hello)"),
    A("POST of nothing", POST("/echo", "Content-Length: 0\r\n", ""), "200",
      "POST /echo"),
    A("POST of NULs", POST("/echo", "Content-Length: 3\r\n", "\0\0\0"),
      "200:%00%00%00", "POST /echo(%00%00%00)"),
    A("POST of line ends", POST("/echo", "Content-Length: 4\r\n", "\r\n\r\n"),
      "200:%0D%0A%0D%0A", "POST /echo(%0D%0A%0D%0A)"),
    A("POST in two pieces",
      GET("/ok", "") POST("/echo", "Content-Length: 5\r\n", "he{wait}llo"),
      "200:ok 200:hello", "GET /ok POST /echo(hello)"),
    A("POST of 65536", POST("/echo", "Content-Length: 65536\r\n", "{65536*x}"),
      "200:#65536", "POST /echo(#65536)"),
    A("POST of 65537", POST("/echo", "Content-Length: 65537\r\n", "{65537*x}"),
      "413 eof", ""),
    A("POST of 65537 announced", POST("/echo", "Content-Length: 65537\r\n", ""),
      "413 eof", ""),
    HX("POST of 8 of 8", POST("/echo", "Content-Length: 8\r\n", "12345678"),
       "200:12345678", "POST /echo(12345678)", .config = TIGHT),
    HX("POST of 9 of 8", POST("/echo", "Content-Length: 9\r\n", "123456789"),
       "413 eof", "", .config = TIGHT),
    A("two GETs in one packet", GET("/ok", "") NEXT, "200:ok 200:next",
      "GET /ok GET /next"),
    A("GET, POST, GET in one packet",
      GET("/ok", "") POST("/echo", "Content-Length: 2\r\n", "hi") NEXT,
      "200:ok 200:hi 200:next", "GET /ok POST /echo(hi) GET /next"),
    A("GET, then an upgrade in one packet",
      GET("/ok", "") GET("/ws", UPGRADE CONN KEY V13) "\211\200\1\2\3\4",
      "200:ok 101 pong()", "GET /ok GET /ws+ open"),
    A("GET, a wait, GET", GET("/ok", "") "{wait}" NEXT, "200:ok 200:next",
      "GET /ok GET /next"),
    A("20 GETs in one packet", "{20*GET /ok HTTP/1.1\r\nHost: h\r\n\r\n}",
      "200:ok 200:ok 200:ok 200:ok 200:ok 200:ok 200:ok 200:ok 200:ok 200:ok "
      "200:ok 200:ok 200:ok 200:ok 200:ok 200:ok 200:ok 200:ok 200:ok 200:ok",
      "GET /ok GET /ok GET /ok GET /ok GET /ok GET /ok GET /ok GET /ok "
      "GET /ok GET /ok GET /ok GET /ok GET /ok GET /ok GET /ok GET /ok "
      "GET /ok GET /ok GET /ok GET /ok"),
    HX("Connection: close", GET("/ok", "Connection: close\r\n") NEXT,
       "200:ok eof", "GET /ok", .has = "Connection: close", .config = HANDLER),
    A("Connection: close in a list",
      GET("/ok", "Connection: x, CLOSE\r\n") NEXT, "200:ok eof", "GET /ok"),
    A("Connection: closed is not close",
      GET("/ok", "Connection: closed\r\n") NEXT, "200:ok 200:next",
      "GET /ok GET /next"),
    A("HTTP/1.0", "GET /ok HTTP/1.0\r\n" HOST "\r\n", "200:ok eof", "GET /ok"),
    A("HTTP/1.0 with keep-alive",
      "GET /ok HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" NEXT, "200:ok eof",
      "GET /ok"),
    A("HTTP/1.0 without Host", "GET /ok HTTP/1.0\r\n\r\n", "200:ok eof",
      "GET /ok"),
    A("Expect, body follows",
      POST("/echo", "Content-Length: 5\r\nExpect: 100-continue\r\n",
           "{wait}hello"),
      "100 200:hello", "POST /echo(hello)"),
    A("Expect in capitals",
      POST("/echo", "Content-Length: 5\r\nEXPECT: 100-Continue\r\n",
           "{wait}hello"),
      "100 200:hello", "POST /echo(hello)"),
    A("Expect and too much",
      POST("/echo", "Content-Length: 65537\r\nExpect: 100-continue\r\n", ""),
      "413 eof", ""),
    A("Expect of no body", GET("/ok", "Expect: 100-continue\r\n"), "200:ok",
      "GET /ok"),
    A("Expect of something else",
      POST("/echo", "Content-Length: 5\r\nExpect: 200-ok\r\n", "hello") NEXT,
      "417 eof", ""),
    A("Expect in HTTP/1.0",
      "POST /echo HTTP/1.0\r\nContent-Length: 2\r\n"
      "Expect: 100-continue\r\n\r\nhi",
      "200:hi eof", "POST /echo(hi)"),
    A("a path unknown to the handler", GET("/none", ""), "404 eof",
      "GET /none"),
    A("refused with 403, plain", GET("/no", ""), "403 eof", "GET /no"),
    HX("no handler, GET", GET("/", ""), "426 eof", "",
       .has = "Upgrade: websocket"),
    NO("no handler, HEAD", "HEAD / HTTP/1.1\r\n" HOST "\r\n", "426"),

/* Methods. */
#define METHOD_ROW(m)                                                          \
    HX(m, m " /ok HTTP/1.1\r\n" HOST "\r\n" NEXT, "405 eof", "",               \
       .has = "Allow: GET, HEAD, POST", .config = HANDLER)
    METHOD_ROW("PUT"),
    METHOD_ROW("DELETE"),
    METHOD_ROW("PATCH"),
    METHOD_ROW("OPTIONS"),
    METHOD_ROW("TRACE"),
    METHOD_ROW("CONNECT"),
    METHOD_ROW("get"),
    METHOD_ROW("GETX"),
    METHOD_ROW("BREW"),
    NO("[34] POST as an upgrade", WS_LINE("POST / HTTP/1.1"), "400"),
    NO("[34] HEAD as an upgrade", WS_LINE("HEAD / HTTP/1.1"), "400"),
    NO("PUT as an upgrade", WS_LINE("PUT / HTTP/1.1"), "405"),

    /* Smuggling: the body ends where it is said to, or nothing is done. */
    PASSES("[29] length 5", "Content-Length: 5\r\n"),
    PASSES("[29] length in any case", "cONTENT-lENGTH:5\r\n"),
    PASSES("[29] length with spaces", "Content-Length: \t 5 \t\r\n"),
    PASSES("[29] length 05", "Content-Length: 05\r\n"),
    REFUSED("[29] length empty", "Content-Length:\r\n", "400"),
    REFUSED("[29] length of spaces", "Content-Length:   \r\n", "400"),
    REFUSED("[29] length +5", "Content-Length: +5\r\n", "400"),
    REFUSED("[29] length -5", "Content-Length: -5\r\n", "400"),
    REFUSED("[29] length -1", "Content-Length: -1\r\n", "400"),
    REFUSED("[29] length 0x5", "Content-Length: 0x5\r\n", "400"),
    REFUSED("[29] length 5x", "Content-Length: 5x\r\n", "400"),
    REFUSED("[29] length 5.0", "Content-Length: 5.0\r\n", "400"),
    REFUSED("[29] length 5e0", "Content-Length: 5e0\r\n", "400"),
    REFUSED("[29] length 5,5", "Content-Length: 5,5\r\n", "400"),
    REFUSED("[29] length 5, 5", "Content-Length: 5, 5\r\n", "400"),
    REFUSED("[29] length 5, 0", "Content-Length: 5, 0\r\n", "400"),
    REFUSED("[29] length 5 0", "Content-Length: 5 0\r\n", "400"),
    REFUSED("[29] length 5;", "Content-Length: 5;\r\n", "400"),
    REFUSED("[29] length \"5\"", "Content-Length: \"5\"\r\n", "400"),
    REFUSED("[29] length 5 NUL", "Content-Length: 5\0\r\n", "400"),
    REFUSED("[29] length 5 VT", "Content-Length: 5\v\r\n", "400"),
    REFUSED("[29] length of wide digits", "Content-Length: \357\274\225\r\n",
            "400"),
    REFUSED("[29] length 2^31", "Content-Length: 2147483648\r\n", "413"),
    REFUSED("[29] length 2^32+5", "Content-Length: 4294967301\r\n", "413"),
    REFUSED("[29] length 2^63", "Content-Length: 9223372036854775808\r\n",
            "413"),
    REFUSED("[29] length 2^64+5", "Content-Length: 18446744073709551621\r\n",
            "400"),
    REFUSED("[29] length of 200 digits", "Content-Length: {200*9}\r\n", "400"),
    REFUSED("[29] length twice, equal",
            "Content-Length: 5\r\nContent-Length: 5\r\n", "400"),
    REFUSED("[29] length twice, 5 and 0",
            "Content-Length: 5\r\nContent-Length: 0\r\n", "400"),
    REFUSED("[29] length twice, 0 and 5",
            "Content-Length: 0\r\nContent-Length: 5\r\n", "400"),
    REFUSED("[29] length twice, case differs",
            "Content-Length: 5\r\ncontent-length: 5\r\n", "400"),
    REFUSED("[29] length twice, one empty",
            "Content-Length: 5\r\nContent-Length:\r\n", "400"),
    REFUSED("[29] length, space before the colon", "Content-Length : 5\r\n",
            "400"),
    REFUSED("[29] length, tab before the colon", "Content-Length\t: 5\r\n",
            "400"),
    REFUSED("[29] length, NUL before the colon", "Content-Length\0: 5\r\n",
            "400"),
    REFUSED("[29] length folded", "Content-Length:\r\n 5\r\n", "400"),
    REFUSED("[29] length folded on", "Content-Length: 5\r\n 0\r\n", "400"),
    REFUSED("[29] length behind a bare CR", "X: y\rContent-Length: 5\r\n",
            "400"),
    REFUSED("[29] length behind a bare LF", "X: y\nContent-Length: 5\r\n",
            "400"),
    REFUSED("[28] length behind an empty name", ": y\r\nContent-Length: 5\r\n",
            "400"),
    REFUSED("[29] chunked", "Transfer-Encoding: chunked\r\n", "501"),
    REFUSED("[29] Chunked", "Transfer-Encoding: Chunked\r\n", "501"),
    REFUSED("[29] xchunked", "Transfer-Encoding: xchunked\r\n", "501"),
    REFUSED("[29] chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n",
            "501"),
    REFUSED("[29] gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n",
            "501"),
    REFUSED("[29] identity", "Transfer-Encoding: identity\r\n", "501"),
    REFUSED("[29] encoding empty", "Transfer-Encoding:\r\n", "501"),
    REFUSED("[29] encoding in any case", "tRANSFER-eNCODING: x\r\n", "501"),
    REFUSED("[29] chunked twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "501"),
    REFUSED("[29] chunked behind a VT", "Transfer-Encoding: \vchunked\r\n",
            "400"),
    REFUSED("[29] chunked, space before the colon",
            "Transfer-Encoding : chunked\r\n", "400"),
    REFUSED("[29] chunked folded", "Transfer-Encoding:\r\n chunked\r\n", "400"),
    REFUSED("[29] chunked behind a bare CR",
            "X: y\rTransfer-Encoding: chunked\r\n", "400"),
    REFUSED("[29] NUL in the encoding", "Transfer-Encoding: chunked\0\r\n",
            "400"),
    REFUSED("[29] length, then chunked",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "400"),
    REFUSED("[29] chunked, then length",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "400"),
    REFUSED("[29] length 0 and chunked",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "400"),
    REFUSED("[29] length and identity",
            "Content-Length: 5\r\nTransfer-Encoding: identity\r\n", "400"),
    REFUSED("[29] length and an empty encoding",
            "Content-Length: 5\r\nTransfer-Encoding:\r\n", "400"),
    SMUGGLE("[29] no length: the rest is the next request",
            "Content_Length: 5\r\n", "200 405 eof", "POST /echo"),
    A("[29] GET with a body", GET("/ok", "Content-Length: 5\r\n") "hello" NEXT,
      "200:ok 200:next", "GET /ok(hello) GET /next"),
    A("[29] HEAD with a body",
      "HEAD /ok HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello" NEXT,
      "200 200:next", "HEAD /ok(hello) GET /next"),
    A("[29] a body that looks like a request",
      POST("/echo", "Content-Length: 31\r\n", NEXT) NEXT,
      "200:GET /next HTTP/1.1%0D%0AHost: h%0D%0A%0D%0A 200:next",
      "POST /echo(GET /next HTTP/1.1%0D%0AHost: h%0D%0A%0D%0A) GET /next"),
    A("[29] GET chunked",
      GET("/ok", "Transfer-Encoding: chunked\r\n") "0\r\n\r\n" NEXT, "501 eof",
      ""),
    A("[29] chunked in HTTP/1.0",
      "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"
      "0\r\n\r\n" NEXT,
      "501 eof", ""),
    A("[29] chunked in the second of two",
      GET("/ok", "")
          POST("/echo", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n") NEXT,
      "200:ok 501 eof", "GET /ok"),

    /* An upgrade has no body. */
    YES("[29] upgrade, length 0", WS("Content-Length: 0\r\n")),
    NO("[29] upgrade, length 5", WS("Content-Length: 5\r\n") "hello", "400"),
    NO("[29] upgrade, length 1", WS("Content-Length: 1\r\n"), "400"),
    NO("[29] upgrade, length empty", WS("Content-Length:\r\n"), "400"),
    NO("[29] upgrade, length -1", WS("Content-Length: -1\r\n"), "400"),
    NO("[29] upgrade, length +0", WS("Content-Length: +0\r\n"), "400"),
    NO("[29] upgrade, length 0 twice",
       WS("Content-Length: 0\r\nContent-Length: 0\r\n"), "400"),
    NO("[29] upgrade, length 2^64",
       WS("Content-Length: 18446744073709551616"
          "\r\n"),
       "400"),
    NO("[29] upgrade, length 100000", WS("Content-Length: 100000\r\n"), "400"),
    NO("[29] upgrade, chunked", WS("Transfer-Encoding: chunked\r\n"), "400"),
    NO("[29] upgrade, identity", WS("Transfer-Encoding: identity\r\n"), "400"),
    NO("[29] upgrade, encoding empty", WS("Transfer-Encoding:\r\n"), "400"),
    NO("[29] upgrade, both",
       WS("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), "400"),
};

/* Who may connect: .origin NULL is a client that is no browser. */
struct origin_row {
    const char *name, *host, *origin, *status;
    int config;
};

#define O(c, h, o, s, n)                                                       \
    {                                                                          \
        .name = "[36] " n, .host = h, .origin = o, .status = s, .config = c    \
    }

static const struct origin_row origin_rows[] = {
    O(PLAIN, "good.com", NULL, "101", "absent"),
    O(PLAIN, "good.com", "http://good.com", "101", "same host"),
    O(PLAIN, "good.com", "https://good.com", "101", "same host, https"),
    O(PLAIN, "good.com:8080", "http://good.com:8080", "101", "same port"),
    O(PLAIN, "127.0.0.1:9000", "http://127.0.0.1:9000", "101", "same IPv4"),
    O(PLAIN, "[::1]:9000", "http://[::1]:9000", "101", "same IPv6"),
    O(PLAIN, "good.com", "http://GOOD.com", "101", "case of the host"),
    O(PLAIN, "GOOD.com", "http://good.com", "101", "case of Host"),
    O(PLAIN, "good.com", "http://evil.com", "403", "another host"),
    O(PLAIN, "good.com", "null", "403", "null"),
    O(PLAIN, "null", "null", "403", "null, Host null"),
    O(PLAIN, "good.com", "", "403", "empty"),
    O(PLAIN, "good.com", "http://good.com.evil.com", "403", "as a prefix"),
    O(PLAIN, "good.com", "http://evilgood.com", "403", "as a suffix"),
    O(PLAIN, "good.com", "http://sub.good.com", "403", "a subdomain"),
    O(PLAIN, "sub.good.com", "http://good.com", "403", "the parent domain"),
    O(PLAIN, "good.com", "http://good.com.", "403", "trailing dot"),
    O(PLAIN, "good.com.", "http://good.com.", "101", "trailing dot, both"),
    O(PLAIN, "good.com", "http://good.com:8080", "403", "a port more"),
    O(PLAIN, "good.com:8080", "http://good.com", "403", "a port less"),
    O(PLAIN, "good.com:8080", "http://good.com:8081", "403", "another port"),
    O(PLAIN, "good.com:80", "http://good.com:8080", "403", "port, prefix"),
    O(PLAIN, "good.com", "http://good.com:80", "101", "the usual port"),
    O(PLAIN, "good.com:443", "https://good.com", "101", "the usual port, TLS"),
    O(PLAIN, "good.com:443", "http://good.com", "403", "port of the other"),
    O(PLAIN, "good.com", "https://good.com:80", "403", "port of another"),
    O(PLAIN, "good.com", "http://good.com\r\nOrigin: http://good.com", "403",
      "twice"),
    O(PLAIN, "good.com", "http://good.com\r\nOrigin: http://evil.com", "403",
      "two"),
    O(PLAIN, "good.com", "http://good.com@evil.com", "403", "as a user"),
    O(PLAIN, "good.com", "http://evil.com@good.com", "403", "with a user"),
    O(PLAIN, "good.com", "http://evil.com/good.com", "403", "as a path"),
    O(PLAIN, "good.com", "http://evil.com#good.com", "403", "as a fragment"),
    O(PLAIN, "good.com", "http://evil.com?good.com", "403", "as a query"),
    O(PLAIN, "good.com", "http://evil.com http://good.com", "403", "a list"),
    O(PLAIN, "good.com", "http://good.com, http://evil.com", "403",
      "a list with a comma"),
    O(PLAIN, "good.com", "good.com", "403", "no scheme"),
    O(PLAIN, "good.com", "://good.com", "403", "an empty scheme"),
    O(PLAIN, "good.com", "//good.com", "403", "slashes only"),
    O(PLAIN, "good.com", "http:good.com", "403", "no slashes"),
    O(PLAIN, "good.com", "http://", "403", "no host"),
    O(PLAIN, "good.com", "file://", "403", "a file"),
    O(PLAIN, "good.com", "*", "403", "a star"),
    O(PLAIN, "127.0.0.1", "http://localhost", "403", "a name of the host"),
    O(LIST, "good.com", NULL, "101", "list: absent"),
    O(LIST, "good.com", "https://game.example", "101", "list: the first"),
    O(LIST, "good.com", "http://localhost:8080", "101", "list: the second"),
    O(LIST, "good.com", "http://game.example", "403", "list: the scheme"),
    O(LIST, "good.com", "https://game.example:8443", "403", "list: port more"),
    O(LIST, "good.com", "http://localhost", "403", "list: a port less"),
    O(LIST, "good.com", "http://localhost:80", "403", "list: port, prefix"),
    O(LIST, "good.com", "http://localhost:80801", "403", "list: port, longer"),
    O(LIST, "good.com", "https://game.example.evil", "403", "list: a prefix"),
    O(LIST, "good.com", "https://game.exampl", "403", "list: a part"),
    O(LIST, "good.com", "https://a.game.example", "403", "list: subdomain"),
    O(LIST, "good.com", "https://game.example.", "403", "list: trailing dot"),
    O(LIST, "good.com", "https://game.example/", "403", "list: a slash"),
    O(LIST, "good.com", "https://evilgame.example", "403", "list: a suffix"),
    O(LIST, "good.com", "https://game.example http://localhost:8080", "403",
      "list: the whole list"),
    O(LIST, "good.com", "http://good.com", "403", "list: same host"),
    O(LIST, "good.com", "HTTPS://Game.Example", "101", "list: case"),
    O(LIST, "good.com", "null", "403", "list: null"),
    O(LIST, "good.com", "", "403", "list: empty"),
    O(ANY, "good.com", NULL, "101", "any: absent"),
    O(ANY, "good.com", "http://evil.com", "101", "any: another host"),
    O(ANY, "good.com", "null", "101", "any: null"),
};

/* What a handler gives to rt_accept, and what comes of it [35]. */
struct accept_row {
    const char *name, *protocol, *headers, *has;
};

static const struct accept_row accept_rows[] = {
    {"no sub-protocol", NULL, NULL, "!Sec-WebSocket-Protocol:"},
    {"the first sub-protocol", "a", NULL, "Sec-WebSocket-Protocol: a"},
    {"the second sub-protocol", "b", NULL, "Sec-WebSocket-Protocol: b"},
    {"headers", NULL, "X-A: 1\r\nX-B: 2\r\n", "X-A: 1|X-B: 2"},
    {"headers without the last line end", "a", "X-A: 1\r\nX-B: 2",
     "X-A: 1|X-B: 2|Sec-WebSocket-Protocol: a"},
    {"a sub-protocol not offered", "c", NULL, NULL},
    {"a sub-protocol in another case", "A", NULL, NULL},
    {"two sub-protocols", "a, b", NULL, NULL},
    {"[35] CR LF in the sub-protocol", "a\r\nX: y", NULL, NULL},
    {"[35] a second line end", NULL, "X: y\r\n\r\nhello", NULL},
    {"[35] a bare LF", NULL, "X: y\nZ: z\r\n", NULL},
    {"[35] a bare CR", NULL, "X: y\rZ: z\r\n", NULL},
    {"[35] only a line end", NULL, "\r\n", NULL},
    {"[35] a folded line", NULL, "X: y\r\n z\r\n", NULL},
    {"[35] no colon", NULL, "X\r\n", NULL},
    {"[35] no name", NULL, ": y\r\n", NULL},
    {"[35] a space before the colon", NULL, "X : y\r\n", NULL},
    {"[35] DEL in a value", NULL, "X: \177\r\n", NULL},
    {"[35] ESC in a value", NULL, "X: \033\r\n", NULL},
    {"[35] another Accept", NULL, "Sec-WebSocket-Accept: x\r\n", NULL},
    {"[35] an extension", NULL, "sec-websocket-extensions: x\r\n", NULL},
    {"[35] a length", NULL, "Content-Length: 5\r\n", NULL},
};
