/*
 * Rows 25 to 31: how a request is read, a subset of HTTP/1.1.
 */

/* ---- 25 ----------------------------------------------------------------- */

/* A head of n bytes that is not whole, one byte a turn: how long that took, in
   processor time. */
static double row_25_drip(size_t n)
{
    static char text[61440];
    struct answer a;
    clock_t before;

    memset(text, 'y', sizeof text);
    memcpy(text, GET "X: ", strlen(GET "X: "));
    before = clock();
    a = ask_in(text, n, 1);
    EQUAL(a.status, 0);
    return (double)(clock() - before) / CLOCKS_PER_SEC;
}

static double row_25_best(size_t n)
{
    double best = row_25_drip(n), t;
    int i;

    for (i = 0; i < 2; i++) {
        t = row_25_drip(n);
        best = t < best ? t : best;
    }
    return best;
}

/* A whole request of n bytes. */
static struct answer row_25_head(size_t n, size_t piece)
{
    static const char head[] = GET "Host: game\r\n" UPGRADE "X: ";
    static char text[61440];

    memset(text, 'y', n);
    memcpy(text, head, sizeof head - 1);
    memcpy(text + n - 4, "\r\n\r\n", 4);
    return ask_in(text, n, piece);
}

/* tungstenite, hackney.  8 KiB are the cap, and where the search for the end
   stood is known: eight times as many bytes cost eight times as much, not 64
   times. */
static void row_25_a_long_head_in_small_pieces_costs_its_length(void)
{
    rt_listen_opts o = {.max_header = 61440};
    double few, many;

    stage_open(NULL, NULL);
    EQUAL(row_25_head(8192, 1).status, 101);
    EQUAL(stage.requests, 1);
    EQUAL(row_25_head(8193, 1).status, 431);
    EQUAL(row_25_head(8193, 0).status, 431);
    EQUAL(row_25_head(60000, 0).status, 431);
    CHECK(row_25_head(60000, 7).line != SIM_UP);
    EQUAL(stage.requests, 1);
    stage_end();
    stage_open(&o, NULL);
    few = row_25_best(7500);
    many = row_25_best(60000);
    CHECK(many < 24 * few);
    stage_end();
}

/* ---- 26 ----------------------------------------------------------------- */

static int row_26_headers(int n)
{
    static char text[62000];
    size_t len = 0;
    int i;

    len += (size_t)sprintf(text, GET "Host: game\r\n" UPGRADE);
    for (i = 0; i < n && len < sizeof text - 16; i++)
        len += (size_t)sprintf(text + len, "X: y\r\n");
    len += (size_t)sprintf(text + len, "\r\n");
    return ask_in(text, len, 0).status;
}

/* ws, uWS.  64 fit, of which five are those of the upgrade. */
static void row_26_too_many_headers_are_431(void)
{
    rt_listen_opts o = {.max_header = 61440};
    int n;

    stage_open(NULL, NULL);
    for (n = 0; n <= 200; n++)
        EQUAL(row_26_headers(n), n <= RT__HEADERS - 5 ? 101 : 431);
    EQUAL(row_26_headers(10000), 431);
    stage_end();
    stage_open(&o, NULL);
    for (n = 60; n <= 10000; n += 331)
        EQUAL(row_26_headers(n), 431);
    EQUAL(row_26_headers(10000), 431);
    stage_end();
}

/* ---- 27 ----------------------------------------------------------------- */

/* A list of tokens as RFC 9110 has it, read by an automaton: nothing empty,
   blanks only around the commas. */
static int row_27_reference(const char *text)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrst"
                                "uvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    enum { BEFORE, IN, BEHIND } at = BEFORE;

    if (!text[strspn(text, " \t")])
        return 1; /* nothing: the caller looks for that */
    for (; *text; text++) {
        if (*text == ' ' || *text == '\t')
            at = at == IN ? BEHIND : at;
        else if (*text == ',' && at == BEFORE)
            return 0;
        else if (*text == ',')
            at = BEFORE;
        else if (!strchr(token, *text) || at == BEHIND)
            return 0;
        else
            at = IN;
    }
    return at != BEFORE;
}

static int row_27_status(const char *list)
{
    char text[8192];

    snprintf(text, sizeof text,
             GET "Host: game\r\n" UPGRADE "Sec-WebSocket-Protocol: %s\r\n\r\n",
             list);
    return ask(text).status;
}

static double row_27_time(const char *unit, size_t bytes)
{
    static char text[1 << 20];
    clock_t before;
    size_t i, n = strlen(unit);

    for (i = 0; i + n <= bytes; i += n)
        memcpy(text + i, unit, n);
    text[i] = 0;
    before = clock();
    rt__token_list(text);
    rt__token_list(text);
    return (double)(clock() - before) / CLOCKS_PER_SEC;
}

static void row_27_linear(const char *unit)
{
    double few = row_27_time(unit, 100000), many = row_27_time(unit, 1000000);

    CHECK(many < 60 * few + 0.02);
}

static void row_27_strings(void)
{
    static const char letters[] = "a,, \t\"b;=,\\a";
    guard g = guard_open(64);
    uint64_t x = 27;
    char text[16];
    int i, k, n, wrong = 0;

    for (i = 0; i < 200000; i++) {
        n = i % 12;
        for (k = 0; k < n; k++) {
            x = x * UINT64_C(6364136223846793005) + 1442695040888963407U;
            text[k] = letters[(x >> 33) % (sizeof letters - 1)];
        }
        text[n] = 0;
        wrong += rt__token_list(guard_text(&g, text)) != row_27_reference(text);
    }
    EQUAL(wrong, 0);
    guard_close(&g);
}

/* ESP-IDF, ws, websocket-extensions. */
static void row_27_a_malformed_list_is_400_in_one_pass(void)
{
    static const char *const bad[] = {
        ",",      ",,",   " ",     "\t",    ", ,",    "a,",
        ",a",     "a,,b", "a, ,b", "\"",    "\"a",    "a b",
        "a;b=\"", "a b,", "a\tb",  "a,\"b", "a, b c", "\"a\", b"};
    size_t i;

    row_27_strings();
    row_27_linear(",");
    row_27_linear(" ");
    row_27_linear("a, ");
    row_27_linear("\"a");
    stage_open(NULL, NULL);
    for (i = 0; i < COUNT(bad); i++)
        EQUAL(row_27_status(bad[i]), 400);
    EQUAL(row_27_status("a"), 101);
    EQUAL(row_27_status("a, b\t,c"), 101);
    stage_end();
}

/* ---- 28, 29 ------------------------------------------------------------- */

/* HAProxy.  What stands behind the nameless line must not vanish: were it
   skipped, the second length would be seen, and else the first. */
static void row_28_a_header_without_a_name_is_400(void)
{
    static const char *const lines[] = {": y\r\n", ":\r\n", " : y\r\n",
                                        "\t: y\r\n"};
    struct answer a;
    char text[512];
    size_t i;

    stage_open(NULL, NULL);
    for (i = 0; i < 2 * COUNT(lines); i++) {
        snprintf(text, sizeof text, "%s%s%s%s\r\n", GET "Host: game\r\n",
                 i & 1 ? UPGRADE : "", lines[i / 2], i & 1 ? "" : UPGRADE);
        a = ask(text);
        EQUAL(a.status, 400);
        CHECK(a.line != SIM_UP);
    }
    EQUAL(stage.requests, 0);
    stage_end();
}

/* HAProxy, mongoose, uWS.  Headers that say where a body ends, and do not; the
   two statuses are for an upgrade and for a POST of 5 bytes with another
   request behind it.  0: it passes. */
static const struct {
    const char *lines;
    int upgrade, post;
} row_29_bodies[] = {
#define LENGTH "Content-Length:"
#define CHUNKED "Transfer-Encoding:"
    {LENGTH " 5\r\n", 400, 0},
    {LENGTH " 0\r\n", 101, -1}, /* of no body: "hello..." is a request */
    {LENGTH "\r\n", 400, 400},
    {LENGTH "  \r\n", 400, 400},
    {LENGTH " -1\r\n", 400, 400},
    {LENGTH " -5\r\n", 400, 400},
    {LENGTH " +5\r\n", 400, 400},
    {LENGTH " 0x5\r\n", 400, 400},
    {LENGTH " 5x\r\n", 400, 400},
    {LENGTH " 5 5\r\n", 400, 400},
    {LENGTH " 5,5\r\n", 400, 400},
    {LENGTH " 5, 5\r\n", 400, 400},
    {LENGTH " 5;\r\n", 400, 400},
    {LENGTH " \"5\"\r\n", 400, 400},
    {LENGTH " 5.0\r\n", 400, 400},
    {LENGTH " 1e1\r\n", 400, 400},
    {LENGTH " five\r\n", 400, 400},
    {LENGTH " 4294967301\r\n", 400, 413},
    {LENGTH " 9223372036854775808\r\n", 400, 413},
    {LENGTH " 18446744073709551615\r\n", 400, 400},
    {LENGTH " 18446744073709551616\r\n", 400, 400},
    {LENGTH " 18446744073709551621\r\n", 400, 400},
    {LENGTH " 99999999999999999999999999999999\r\n", 400, 400},
    {LENGTH " 5\r\n" LENGTH " 5\r\n", 400, 400},
    {LENGTH " 5\r\n" LENGTH " 0\r\n", 400, 400},
    {LENGTH " 0\r\n" LENGTH " 5\r\n", 400, 400},
    {LENGTH " 0\r\n" LENGTH " 0\r\n", 400, 400},
    {LENGTH " 5\r\ncontent-length: 5\r\n", 400, 400},
    {LENGTH " 5\r\n" LENGTH "\r\n", 400, 400},
    {"Content-Length : 5\r\n", 400, 400},
    {"Content-Length\t: 5\r\n", 400, 400},
    {LENGTH "\r\n 5\r\n", 400, 400},
    {LENGTH " 5\r\n 0\r\n", 400, 400},
    {LENGTH " 5\n", 400, 400},
    {LENGTH " 5\r", 400, 400},
    {"X: y\n" LENGTH " 5\r\n", 400, 400},
    {"X: y\r" LENGTH " 5\r\n", 400, 400},
    {": y\r\n" LENGTH " 5\r\n", 400, 400},
    {LENGTH " 5\v\r\n", 400, 400},
    {LENGTH " \f5\r\n", 400, 400},
    {CHUNKED " chunked\r\n", 400, 501},
    {CHUNKED " CHUNKED\r\n", 400, 501},
    {CHUNKED " xchunked\r\n", 400, 501},
    {CHUNKED " chunked, chunked\r\n", 400, 501},
    {CHUNKED " gzip, chunked\r\n", 400, 501},
    {CHUNKED " chunked, identity\r\n", 400, 501},
    {CHUNKED " identity\r\n", 400, 501},
    {CHUNKED "\r\n", 400, 501},
    {"transfer-encoding: chunked\r\n", 400, 501},
    {CHUNKED " chunked\r\n" CHUNKED " identity\r\n", 400, 501},
    {CHUNKED " \vchunked\r\n", 400, 400},
    {"Transfer-Encoding : chunked\r\n", 400, 400},
    {CHUNKED "\r\n chunked\r\n", 400, 400},
    {"X: y\r" CHUNKED " chunked\r\n", 400, 400},
    {"X: y\n" CHUNKED " chunked\r\n", 400, 400},
    {LENGTH " 5\r\n" CHUNKED " chunked\r\n", 400, 400},
    {CHUNKED " chunked\r\n" LENGTH " 5\r\n", 400, 400},
    {LENGTH " 0\r\n" CHUNKED " chunked\r\n", 400, 400},
    {LENGTH " 5\r\n" CHUNKED " identity\r\n", 400, 400},
    {LENGTH " 5\r\n" CHUNKED "\r\n", 400, 400},
};

/* A POST whose end one may be wrong about: nobody must be told of it, nor of
   the request that is in it, and the line ends. */
static void row_29_post(const char *lines, int status)
{
    char text[1024];
    struct answer a;

    snprintf(text, sizeof text,
             "POST /in HTTP/1.1\r\nHost: game\r\n%s\r\nhello" GET
             "Host: game\r\n\r\n",
             lines);
    stage.requests = 0;
    a = ask(text);
    if (status > 0) {
        EQUAL(a.status, status);
        EQUAL(stage.requests, 0);
        CHECK(a.line != SIM_UP);
        return;
    }
    EQUAL(stage.requests, status ? 1 : 2);
    EQUAL(a.line == SIM_UP, status == 0);
}

static int row_29_found(rt_loop *l, rt_session s, const rt_request *r)
{
    return r->upgrade ? 0 : rt_reply(l, s, 200, "", "", 0);
}

static void row_29_a_body_ends_where_it_says_or_nothing_is_done(void)
{
    char text[1024];
    struct answer a;
    size_t i;

    stage_open(NULL, NULL);
    stage.also_request = row_29_found;
    for (i = 0; i < COUNT(row_29_bodies) && !test_bad; i++) {
        snprintf(text, sizeof text, GET "Host: game\r\n" UPGRADE "%s\r\n",
                 row_29_bodies[i].lines);
        a = ask(text);
        EQUAL(a.status, row_29_bodies[i].upgrade);
        row_29_post(row_29_bodies[i].lines, row_29_bodies[i].post);
        if (test_bad)
            printf("%s", row_29_bodies[i].lines);
    }
    stage_end();
}

/* ---- 30, 31 ------------------------------------------------------------- */

static int row_30_tchar(int c)
{
    return c && strchr("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                       "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
                       c) != NULL;
}

/* Header lines, read strictly (RFC 9112, 5): 1 when all n bytes are such. */
static int row_30_reference(const char *p, size_t n)
{
    size_t i = 0, name;

    while (i < n) {
        for (name = i; i < n && row_30_tchar(p[i]); i++)
            ;
        if (i == name || i == n || p[i] != ':')
            return 0;
        for (; i < n && (p[i] == '\t' || (p[i] & 0xff) >= ' '); i++) {
            if (p[i] == 0x7f)
                return 0;
        }
        if (i + 1 >= n || p[i] != '\r' || p[i + 1] != '\n')
            return 0;
        i += 2;
    }
    return 1;
}

/* A request whose second half of headers is those n bytes. */
static void row_30_judge(const char *lines, size_t n)
{
    static const char head[] = GET "Host: game\r\nUpgrade: websocket\r\n";
    static const char tail[] = "Connection: Upgrade\r\nSec-WebSocket-Key: " KEY
                               "\r\nSec-WebSocket-Version: 13\r\n\r\n";
    char text[512];
    size_t len = sizeof head - 1;
    struct answer a;

    memcpy(text, head, len);
    memcpy(text + len, lines, n);
    memcpy(text + len + n, tail, sizeof tail - 1);
    a = ask_in(text, len + n + sizeof tail - 1, 0);
    EQUAL(a.status, row_30_reference(lines, n) ? 101 : 400);
    EQUAL(a.line == SIM_UP, a.status == 101);
    if (test_bad)
        printf("[%.*s]\n", (int)n, lines);
}

/* picohttpparser, mongoose.  Each byte of a line left out, doubled, replaced
   and preceded by what a careless parser takes for something else. */
static void row_30_line_ends_and_names_are_exact(void)
{
    static const char line[] = "X-Extra: some value\r\n";
    static const char odd[] = {'\r', '\n', 0, ' ', '\t', ':', 0x7f, '\v', '"'};
    char text[64];
    size_t at, i, n = sizeof line - 1;
    ws_peer *w;

    stage_open(NULL, NULL);
    for (at = 0; at < n; at++) {
        memcpy(text, line, at);
        memcpy(text + at, line + at + 1, n - at - 1);
        row_30_judge(text, n - 1);
        for (i = 0; i < sizeof odd && !test_bad; i++) {
            memcpy(text, line, n);
            text[at] = odd[i];
            row_30_judge(text, n);
            memcpy(text + at + 1, line + at, n - at);
            row_30_judge(text, n + 1);
        }
    }
    /* Behind an upgrade nothing is HTTP any more. */
    w = peer_open();
    ws_raw(w, ws_request("/"), strlen(ws_request("/")));
    settle();
    EQUAL(w->close_code, 1002);
    stage_end();
}

/* uWS. */
static void row_31_host_is_there_once_and_not_empty(void)
{
    static const struct {
        const char *lines;
        int status;
    } hosts[] = {
        {"Host: game\r\n", 101},
        {"", 400},
        {"Host:\r\n", 400},
        {"Host: \t \r\n", 400},
        {"Host: game\r\nHost: game\r\n", 400},
        {"Host: game\r\nhost: evil\r\n", 400},
        {"Host: game\r\nHost:\r\n", 400},
        {"Host:\r\nHost: game\r\n", 400},
    };
    char text[512];
    size_t i;

    stage_open(NULL, NULL);
    for (i = 0; i < COUNT(hosts); i++) {
        snprintf(text, sizeof text, GET UPGRADE "%s\r\n", hosts[i].lines);
        EQUAL(ask(text).status, hosts[i].status);
        snprintf(text, sizeof text, GET "%s\r\n", hosts[i].lines);
        EQUAL(ask(text).status, hosts[i].status == 101 ? 404 : 400);
    }
    stage_end();
}
