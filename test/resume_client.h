/*
 * The client's side of rtnet.1, against a scripted server: the table session x
 * event, from which the test of each cell is made, the table of close codes,
 * and the grammar.
 */
#ifndef RESUME_CLIENT_H
#define RESUME_CLIENT_H

#include "resume_stage.h"

/*
 * The states, by the script that leads there.  RETURNING: it was away, and its
 * h with the token is sent.
 */
enum { DIALLING, GREETING, TALKING, LOST, RETURNING, CLIENT_STATES };
static const char *const client_names[CLIENT_STATES] = {
    "connecting", "greeting", "open", "away", "returning"};

/* It does not come again; it is open still. */
#define FINAL ""
#define LIVES "lives"

/*
 * rc, hears, told, state: as for the server; hears is what st.a hears, the
 * scripted server.  next: the h of the next connection, or one of the above.
 */
typedef struct {
    int rc;
    const char *hears, *told;
    int state;
    const char *next;
} client_outcome;

/* A cell that cannot be, and why not. */
#define CLIENT_NEVER(why)                                                      \
    {                                                                          \
        0, why, NULL, 0, NULL                                                  \
    }
#define NO_WIRE "before h was sent nobody speaks rtnet.1"
#define NO_CONNECTION "there is no connection on which it could come"
#define SOONER "the deadline for w comes first"

#define CLIENT_ENDS(code)                                                      \
    {                                                                          \
        0, "c" #code, "close:" #code ":0", RT_EGONE, FINAL                     \
    }

typedef struct {
    const char *event;
    void (*peer)(void);
    int (*call)(void);
    client_outcome cells[CLIENT_STATES];
} client_row;

/* ---- what a server says -------------------------------------------------- */

/* A w with the n-th token. */
static void say_w(line *l, int n, const char *rest)
{
    say(l, "w%s %s", token_of(n), rest);
}

static void w_new(void)
{
    say_w(&st.a, 2, "who2 0 0 new 15000");
}

static void w_resumed(void)
{
    say_w(&st.a, 2, "who1 0 0 resumed 15000");
}

static void w_gap(void)
{
    say_w(&st.a, 2, "who1 0 5 gap 15000");
}

static void w_of_another(void)
{
    say_w(&st.a, 2, "who2 0 0 resumed 15000");
}

static void w_resumed_ahead(void)
{
    say_w(&st.a, 2, "who1 0 1 resumed 15000");
}

static void w_gap_of_none(void)
{
    say_w(&st.a, 2, "who1 0 0 gap 15000");
}

static void w_received_too_much(void)
{
    say_w(&st.a, 2, "who1 1 0 resumed 15000");
}

static void server_m(void)
{
    say(&st.a, "mx");
}

static void server_u(void)
{
    say(&st.a, "Ux");
}

static void server_a0(void)
{
    say(&st.a, "a0");
}

static void server_a1(void)
{
    say(&st.a, "a1");
}

static void server_h(void)
{
    say(&st.a, "h");
}

static void server_z(void)
{
    say(&st.a, "zx");
}

static void server_resets(void)
{
    line_cut(&st.a);
}

static void server_hangs_up(void)
{
    peer_end(&st.a.p);
}

/* ---- what the application does ------------------------------------------- */

static int deadline_passes(void)
{
    skip(5001);
    return 0;
}

static int silence_passes(void)
{
    st.a.deaf = 1;
    skip(15000);
    skip(15000);
    skip(5001);
    return 0;
}

static int client_sends(void)
{
    return send_text(1, "x");
}

static int client_sends_droppable(void)
{
    return rt_send(st.loop, st.s[1], RT_TEXT | RT_DROPPABLE, "x", 1);
}

static int client_sends_keyed(void)
{
    return rt_send(st.loop, st.s[1], RT_TEXT | rt_latest(3), "x", 1);
}

static int client_closes(void)
{
    return rt_close(st.loop, st.s[1], 0, NULL);
}

static int client_drops(void)
{
    return rt_drop(st.loop, st.s[1], 4000, NULL);
}

static int client_binds(void)
{
    return rt_bind(st.loop, st.s[1], "u");
}

static int client_joins(void)
{
    return rt_group_join(st.loop, rt_group_open(st.loop, "g", NULL), st.s[1]);
}

/* ---- the table ----------------------------------------------------------- */

static const client_row client_rows[] = {
    {"w new",
     w_new,
     NULL,
     {CLIENT_NEVER(NO_WIRE),
      {0, "a0", "open", RT_OPEN, LIVES},
      CLIENT_ENDS(1002),
      CLIENT_NEVER(NO_CONNECTION),
      {0, "a0", "close:4503:0 2.open", RT_EGONE, NULL}}},
    {"w resumed",
     w_resumed,
     NULL,
     {CLIENT_NEVER(NO_WIRE),
      CLIENT_ENDS(1002),
      CLIENT_ENDS(1002),
      CLIENT_NEVER(NO_CONNECTION),
      {0, "a0", "back:0", RT_OPEN, LIVES}}},
    {"w gap",
     w_gap,
     NULL,
     {CLIENT_NEVER(NO_WIRE),
      CLIENT_ENDS(1002),
      CLIENT_ENDS(1002),
      CLIENT_NEVER(NO_CONNECTION),
      {0, "a5", "back:5", RT_OPEN, LIVES}}},
    {"w resumed of another session",
     w_of_another,
     NULL,
     {CLIENT_NEVER(NO_WIRE), CLIENT_ENDS(1002), CLIENT_ENDS(1002),
      CLIENT_NEVER(NO_CONNECTION), CLIENT_ENDS(1002)}},
    {"w resumed from another number",
     w_resumed_ahead,
     NULL,
     {CLIENT_NEVER(NO_WIRE), CLIENT_ENDS(1002), CLIENT_ENDS(1002),
      CLIENT_NEVER(NO_CONNECTION), CLIENT_ENDS(1002)}},
    {"w gap without a gap",
     w_gap_of_none,
     NULL,
     {CLIENT_NEVER(NO_WIRE), CLIENT_ENDS(1002), CLIENT_ENDS(1002),
      CLIENT_NEVER(NO_CONNECTION), CLIENT_ENDS(1002)}},
    {"w that received what was never sent",
     w_received_too_much,
     NULL,
     {CLIENT_NEVER(NO_WIRE), CLIENT_ENDS(1002), CLIENT_ENDS(1002),
      CLIENT_NEVER(NO_CONNECTION), CLIENT_ENDS(1002)}},
    {"m",
     server_m,
     NULL,
     {CLIENT_NEVER(NO_WIRE),
      CLIENT_ENDS(1002),
      {0, "", "mx", RT_OPEN, LIVES},
      CLIENT_NEVER(NO_CONNECTION),
      CLIENT_ENDS(1002)}},
    {"u",
     server_u,
     NULL,
     {CLIENT_NEVER(NO_WIRE),
      CLIENT_ENDS(1002),
      {0, "", "Mx", RT_OPEN, LIVES},
      CLIENT_NEVER(NO_CONNECTION),
      CLIENT_ENDS(1002)}},
    {"a0",
     server_a0,
     NULL,
     {CLIENT_NEVER(NO_WIRE),
      CLIENT_ENDS(1002),
      {0, "", "", RT_OPEN, LIVES},
      CLIENT_NEVER(NO_CONNECTION),
      CLIENT_ENDS(1002)}},
    {"a of what was never sent",
     server_a1,
     NULL,
     {CLIENT_NEVER(NO_WIRE), CLIENT_ENDS(1002), CLIENT_ENDS(1002),
      CLIENT_NEVER(NO_CONNECTION), CLIENT_ENDS(1002)}},
    {"h",
     server_h,
     NULL,
     {CLIENT_NEVER(NO_WIRE), CLIENT_ENDS(1002), CLIENT_ENDS(1002),
      CLIENT_NEVER(NO_CONNECTION), CLIENT_ENDS(1002)}},
    {"an unknown type",
     server_z,
     NULL,
     {CLIENT_NEVER(NO_WIRE), CLIENT_ENDS(1002), CLIENT_ENDS(1002),
      CLIENT_NEVER(NO_CONNECTION), CLIENT_ENDS(1002)}},
    {"a reset",
     server_resets,
     NULL,
     {{0, NULL, "", RT_OPENING, "h"},
      {0, NULL, "", RT_OPENING, "h"},
      {0, NULL, "away", RT_AWAY, "h:1:0:1"},
      CLIENT_NEVER(NO_CONNECTION),
      {0, NULL, "", RT_AWAY, "h:1:0:2"}}},
    {"the end of the line",
     server_hangs_up,
     NULL,
     {{0, NULL, "", RT_OPENING, "h"},
      {0, NULL, "", RT_OPENING, "h"},
      {0, NULL, "away", RT_AWAY, "h:1:0:1"},
      CLIENT_NEVER(NO_CONNECTION),
      {0, NULL, "", RT_AWAY, "h:1:0:2"}}},
    {"no w in time",
     NULL,
     deadline_passes,
     {{0, NULL, "", RT_OPENING, "h"},
      {0, "given up", "", RT_OPENING, "h"},
      {0, "", "", RT_OPEN, LIVES},
      CLIENT_NEVER(NO_CONNECTION),
      {0, "given up", "", RT_AWAY, "h:1:0:2"}}},
    {"silence",
     NULL,
     silence_passes,
     {CLIENT_NEVER(SOONER),
      CLIENT_NEVER(SOONER),
      {0, NULL, "away", RT_AWAY, "h:1:0:1"},
      CLIENT_NEVER(NO_CONNECTION),
      CLIENT_NEVER(SOONER)}},
    {"rt_send",
     NULL,
     client_sends,
     {{RT_ESTATE, "", "", RT_OPENING, NULL},
      {RT_ESTATE, "", "", RT_OPENING, NULL},
      {0, "mx", "", RT_OPEN, LIVES},
      {0, NULL, "", RT_AWAY, "h:1:0:1"},
      {0, "", "", RT_AWAY, NULL}}},
    {"a droppable one",
     NULL,
     client_sends_droppable,
     {{RT_ESTATE, "", "", RT_OPENING, NULL},
      {RT_ESTATE, "", "", RT_OPENING, NULL},
      {0, "ux", "", RT_OPEN, LIVES},
      {1, NULL, "", RT_AWAY, "h:1:0:1"},
      {1, "", "", RT_AWAY, NULL}}},
    {"a keyed one",
     NULL,
     client_sends_keyed,
     {{RT_ESTATE, "", "", RT_OPENING, NULL},
      {RT_ESTATE, "", "", RT_OPENING, NULL},
      {0, "ux", "", RT_OPEN, LIVES},
      {0, NULL, "", RT_AWAY, "h:1:0:1"},
      {0, "", "", RT_AWAY, NULL}}},
    {"rt_close",
     NULL,
     client_closes,
     {{0, NULL, "close:1000:0", RT_EGONE, FINAL},
      {0, NULL, "close:1000:0", RT_EGONE, FINAL},
      {0, "c1000", "close:1000:0", RT_EGONE, FINAL},
      {0, NULL, "close:1000:0", RT_EGONE, FINAL},
      {0, NULL, "close:1000:0", RT_EGONE, FINAL}}},
    {"rt_drop",
     NULL,
     client_drops,
     {{0, NULL, "close:4000:0", RT_EGONE, FINAL},
      {0, NULL, "close:4000:0", RT_EGONE, FINAL},
      {0, "given up", "away", RT_AWAY, "h:1:0:1"},
      {RT_ESTATE, NULL, "", RT_AWAY, "h:1:0:1"},
      {RT_ESTATE, "", "", RT_AWAY, NULL}}},
    {"rt_bind",
     NULL,
     client_binds,
     {{RT_ESTATE, "", "", RT_OPENING, NULL},
      {RT_ESTATE, "", "", RT_OPENING, NULL},
      {0, "", "", RT_OPEN, LIVES},
      {0, NULL, "", RT_AWAY, "h:1:0:1"},
      {0, "", "", RT_AWAY, NULL}}},
    {"rt_group_join",
     NULL,
     client_joins,
     {{RT_ESTATE, "", "", RT_OPENING, NULL},
      {RT_ESTATE, "", "", RT_OPENING, NULL},
      {0, "", "", RT_OPEN, LIVES},
      {0, NULL, "", RT_AWAY, "h:1:0:1"},
      {0, "", "", RT_AWAY, NULL}}},
};

/* ---- reaching a state ---------------------------------------------------- */

/* Takes a connection that has come already. */
static int somebody_came(line *l)
{
    int fd;
    calm();
    fd = accept(st.listening, NULL, NULL);
    if (fd < 0)
        return 0;
    line_accepted(l, fd);
    return 1;
}

/* Does one come in that time?  No step is so long that it would pass the
   deadline of an attempt. */
static int comes_within(line *l, unsigned ms)
{
    unsigned step = ms < 500 ? ms : 500, past;
    for (past = 0; past < ms; past += step) {
        if (somebody_came(l))
            return 1;
        skip(step);
    }
    return somebody_came(l);
}

/* The wait before an attempt is random, 20 s at most. */
static void line_retaken(line *l)
{
    CHECK(comes_within(l, 20500));
    if (st.wire == WS)
        line_answer(l);
}

static void client_opens(void)
{
    line_take(&st.a);
    HEARS(&st.a, "h");
    say_w(&st.a, 1, "who1 0 0 new 15000");
    HEARS(&st.a, "a0");
    TOLD("open");
}

static void dial_and_open(void)
{
    stage_dial();
    client_opens();
}

static void client_loses(void)
{
    line_cut(&st.a);
    TOLD("away");
}

static void client_returns(const char *h)
{
    line_retaken(&st.a);
    HEARS(&st.a, h);
}

static void client_reach(int state)
{
    stage_dial();
    if (state == DIALLING && st.wire == WS) {
        CHECK(line_accept(&st.a));
        return;
    }
    if (state == DIALLING) { /* no turn was made: it knows of nothing yet */
        peer_init(&st.a.p, st.loop, accept(st.listening, NULL, NULL));
        st.a.wire = TCP;
        st.a.server = 1;
        return;
    }
    if (state == GREETING) {
        line_take(&st.a);
        HEARS(&st.a, "h");
        return;
    }
    client_opens();
    if (state == TALKING)
        return;
    client_loses();
    if (state == RETURNING)
        client_returns("h:1:0:1");
}

/* No connection comes. */
static void nobody_comes(void)
{
    CHECK(!comes_within(&st.c, 20500));
}

/* Both ways still work; the session has that number. */
static void both_ways(int number)
{
    char told[16] = "mok";
    if (number > 1)
        snprintf(told, sizeof told, "%d.mok", number);
    say(&st.a, "mok");
    TOLD(told);
    EQUAL(send_text(number, "yo"), 0);
    HEARS(&st.a, "myo");
}

/* A connection that the client gives up hears no close, or one that does not
   end the session. */
static void check_client_hears(const char *want)
{
    const char *got;
    if (strcmp(want, "given up") != 0) {
        HEARS(&st.a, want);
        return;
    }
    got = line_hear(&st.a, 1);
    if (strcmp(got, "c4000") != 0)
        SAME(got, "-");
}

static void check_client(int state, const client_outcome *o)
{
    if (o->hears && state == DIALLING && st.wire == TCP)
        HEARS(&st.a, "h"); /* it is connected now */
    else if (o->hears)
        check_client_hears(o->hears);
    TOLD(o->told);
    EQUAL(rt_state(st.loop, st.s[1]), o->state);
    if (!o->next)
        return;
    if (strcmp(o->next, FINAL) == 0) {
        nobody_comes();
    } else if (strcmp(o->next, LIVES) == 0) {
        both_ways(1);
    } else {
        line_retaken(&st.b);
        HEARS(&st.b, o->next);
    }
    TOLD("");
}

static void client_cell(const client_row *r, int state)
{
    int rc;
    test_begin("client, %s x %s, %s, %s", client_names[state], r->event,
               wire_names[st.wire],
               st.backend == RT_SELECT ? "select" : "default");
    client_reach(state);
    if (r->peer)
        r->peer();
    rc = r->call ? r->call() : 0;
    EQUAL(rc, r->cells[state].rc);
    check_client(state, &r->cells[state]);
    stage_end();
    test_end();
}

static const char *client_cell_lacks(const client_row *r, int state)
{
    if (!r->cells[state].told)
        return r->cells[state].hears;
    if (state == DIALLING && st.wire == TCP && r->call == deadline_passes)
        return "on TCP h goes in the first turn";
    return NULL;
}

/* Each cell is walked, or says why it cannot be. */
enum { CLIENT_WALKED_WS = 87, CLIENT_WALKED_TCP = 86 };
static void client_table(int backend, int wire)
{
    size_t i, rows = sizeof client_rows / sizeof *client_rows;
    int state, walked = 0, never = 0;
    for (i = 0; i < rows; i++)
        for (state = 0; state < CLIENT_STATES; state++) {
            stage_begin(backend, wire);
            if (client_cell_lacks(&client_rows[i], state)) {
                never++;
                continue;
            }
            client_cell(&client_rows[i], state);
            walked++;
        }
    test_begin("client, every cell is walked or cannot be");
    EQUAL(walked + never, rows * CLIENT_STATES);
    EQUAL(walked, wire == WS ? CLIENT_WALKED_WS : CLIENT_WALKED_TCP);
    test_end();
}

/* ---- close codes --------------------------------------------------------- */

/* What a client does when its server closes with that code. */
enum { ENDS, COMES_BACK, COMES_ANEW };

static const struct {
    int code, does; /* code 0: a close without one */
} client_codes[] = {
    {0, COMES_BACK},    {1000, ENDS},       {1001, COMES_BACK},
    {1002, ENDS},       {1003, ENDS},       {1007, ENDS},
    {1008, ENDS},       {1009, ENDS},       {1010, ENDS},
    {1011, COMES_BACK}, {1012, COMES_ANEW}, {1013, COMES_BACK},
    {1014, COMES_BACK}, {3000, COMES_BACK}, {3499, COMES_BACK},
    {3500, ENDS},       {3999, ENDS},       {4000, COMES_BACK},
    {4001, COMES_BACK}, {4002, COMES_BACK}, {4003, COMES_BACK},
    {4004, COMES_BACK}, {4499, COMES_BACK}, {4500, ENDS},
    {4501, ENDS},       {4502, ENDS},       {4504, ENDS},
    {4999, ENDS},
};

static void client_code(int state, int code, int does)
{
    static const char *const next[CLIENT_STATES] = {NULL, "h", "h:1:0:1", NULL,
                                                    "h:1:0:2"};
    client_outcome o = {0, NULL, "", RT_EGONE, FINAL};
    char told[32];
    client_reach(state);
    say(&st.a, "c%.0d", code);
    calm();
    peer_end(&st.a.p);
    snprintf(told, sizeof told, "close:%d:0", code);
    if (does != COMES_BACK)
        o.told = told;
    if (does == COMES_ANEW)
        o.next = "h"; /* with another handle */
    if (does == COMES_BACK) {
        o.told = state == TALKING ? "away" : "";
        o.state = state == GREETING ? RT_OPENING : RT_AWAY;
        o.next = next[state];
    }
    check_client(state, &o);
}

static void client_close_codes(int backend, int wire)
{
    static const int states[] = {GREETING, TALKING, RETURNING};
    size_t i, k;
    for (i = 0; i < sizeof client_codes / sizeof *client_codes; i++)
        for (k = 0; k < 3; k++) {
            if (!client_codes[i].code && wire == TCP)
                continue; /* TCP has none without */
            test_begin("client, %s x close %d, %s", client_names[states[k]],
                       client_codes[i].code, wire_names[wire]);
            stage_begin(backend, wire);
            client_code(states[k], client_codes[i].code, client_codes[i].does);
            stage_end();
            test_end();
        }
}

/* ---- the grammar --------------------------------------------------------- */

/* What is no w; the first two would open a session, were they spelled well. */
static const char *const not_w[] = {
    "w",
    "w ",
    "wAAAAAAAAAAAAAAAAAAA-1g",
    "wAAAAAAAAAAAAAAAAAAA-1g who1",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0 new",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0 new ",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0 new 15000 ",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0 new 15000 1",
    "wAAAAAAAAAAAAAAAAAAA-1g  who1 0 0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0  0 new 15000",
    "w AAAAAAAAAAAAAAAAAAA-1g who1 0 0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-g who1 0 0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-11g who1 0 0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-1h who1 0 0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA+1g who1 0 0 new 15000",
    "w-- who1 0 0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g wh=1 0 0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g 12345678901234567890123 0 0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 00 0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 00 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0 new 015000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 -0 0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 +0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0 new 9007199254740992",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 1 0 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 1 new 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0 News 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0 NEW 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0 ne 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0 newer 15000",
    "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0  15000",
    "WAAAAAAAAAAAAAAAAAAA-1g who1 0 0 new 15000",
};

static const char *const not_server[] = {
    "a",  "a ", "a00", "a0 ", "a-0", "a9007199254740992", "a9007199254740991",
    "A0", "W",  "n",   "h",
};

static void not_a_word(int state, const char *text, int op)
{
    client_reach(state);
    line_frame(&st.a, op, text, strlen(text));
    HEARS(&st.a, "c1002");
    TOLD("close:1002:0");
    EQUAL(st.end.cause, RT_BY_ERROR);
    nobody_comes();
}

static void client_grammar_case(int backend, int wire, int state,
                                const char *text, int op)
{
    test_begin("client, %s, hears \"%s\" (%d), %s", client_names[state], text,
               op, wire_names[wire]);
    stage_begin(backend, wire);
    not_a_word(state, text, op);
    stage_end();
    test_end();
}

static void client_grammar(int backend, int wire)
{
    size_t i;
    for (i = 0; i < sizeof not_w / sizeof *not_w; i++)
        client_grammar_case(backend, wire, GREETING, not_w[i], 1);
    for (i = 0; i < sizeof not_server / sizeof *not_server; i++)
        client_grammar_case(backend, wire, TALKING, not_server[i], 1);
    if (wire == TCP)
        return;
    client_grammar_case(backend, wire, GREETING,
                        "wAAAAAAAAAAAAAAAAAAA-1g who1 0 0 new 15000", 2);
    client_grammar_case(backend, wire, TALKING, "a0", 2);
    client_grammar_case(backend, wire, TALKING, "", 1);
    client_grammar_case(backend, wire, TALKING, "Mx", 1);
    client_grammar_case(backend, wire, TALKING, "c1000", 1);
}

#endif
