/*
 * The server's side of rtnet.1: the table session x event, from which the test
 * of each cell is made, and the grammar.
 */
#ifndef RESUME_SERVER_H
#define RESUME_SERVER_H

#include "resume_stage.h"

/* ---- session x event ----------------------------------------------------- */

/*
 * The states of the table, by the script that leads there.  GREETED is open
 * before the peer's first a; in ENDING rt_close was called, and the turn in
 * which on_close comes is still ahead; in CLOSING it is over.
 */
enum { OPENING, GREETED, OPEN, AWAY, ENDING, CLOSING, STATES };
static const char *const state_names[STATES] = {
    "opening", "greeted", "open", "away", "ending", "closing"};

/* What a row needs before its event. */
enum {
    SENT = 1,    /* the server sent "s", the peer has it */
    BOUND = 2,   /* the session is bound to "u" */
    JOINED = 4,  /* and in a group */
    OTHER = 8,   /* a second connection, before its h */
    NARROW = 16, /* a send queue of 1,000 bytes */
    PINGS = 32,  /* a peer that answers no pings */
    TIME = 64,   /* but no handle */
    BIND = 128   /* 1,500 ms in which to bind a user id */
};

/*
 * What is expected.  rc: of the call; hears: by the line that carries the
 * session, NULL: not looked at; told: by the callbacks; state: afterwards;
 * again: what a connection hears that comes with the newest token, "": there
 * is no token to come with.
 */
typedef struct {
    int rc;
    const char *hears, *told;
    int state;
    const char *again;
} outcome;

/* A cell that cannot be, and why not. */
#define NEVER(why)                                                             \
    {                                                                          \
        0, why, NULL, 0, NULL                                                  \
    }
#define NO_SESSION "there is no session that this could have happened to"
#define NO_LINE "there is no line on which it could come, or whose time runs"
#define NO_TIME "it takes turns, and the state is over with this one"
#define EARLIER "another deadline comes first"

#define BACK "w:0:0:resumed"
#define NEW "w:0:0:new"
#define ENDED(code) RT_EGONE, NEW
#define VIOLATION(code)                                                        \
    {                                                                          \
        0, "c" #code, "close:" #code ":0", RT_EGONE, NEW                       \
    }
#define REFUSED(code)                                                          \
    {                                                                          \
        0, "c" #code, "", RT_EGONE, ""                                         \
    }
/* What follows rt_close is of no effect. */
#define IGNORED_ENDING                                                         \
    {                                                                          \
        0, "c3999", "close:3999:0", RT_EGONE, NEW                              \
    }
#define IGNORED                                                                \
    {                                                                          \
        0, "", "", RT_EGONE, NEW                                               \
    }

typedef struct {
    const char *event;
    int needs;
    void (*peer)(void); /* the peer does something, */
    int (*call)(void);  /* or the application, or time passes */
    outcome cells[STATES];
} row;

static int group_of_first(void)
{
    rt_group g = rt_group_open(st.loop, "g", NULL);
    rt_session s = st.count ? st.s[1] : st.asked;
    return rt_group_join(st.loop, g, s);
}

static rt_session first(void)
{
    return st.count ? st.s[1] : st.asked;
}

/* ---- the events of a peer ------------------------------------------------ */

static void says_h(void)
{
    say(&st.a, "h");
}

static void says_h_unknown(void)
{
    say(&st.a, "hAAAAAAAAAAAAAAAAAAAAAA 0 1");
}

static void other_resumes(void)
{
    say(&st.b, "h%s 0 50", st.a.w.token);
}

static void says_m(void)
{
    say(&st.a, "mx");
}

static void says_m_empty(void)
{
    say(&st.a, "M");
}

static void says_u(void)
{
    say(&st.a, "ux");
}

static void says_a0(void)
{
    say(&st.a, "a0");
}

static void says_a1(void)
{
    say(&st.a, "a1");
}

static void says_a2(void)
{
    say(&st.a, "a2");
}

static void says_a1_a0(void)
{
    say(&st.a, "a1");
    say(&st.a, "a0");
}

static void says_a0_m(void)
{
    say(&st.a, "a0");
    say(&st.a, "mx");
}

static void says_w(void)
{
    say(&st.a, "wAAAAAAAAAAAAAAAAAAAAAA p 0 0 new 15000");
}

static void says_unknown(void)
{
    say(&st.a, "zx");
}

static void resets(void)
{
    line_cut(&st.a);
}

static void hangs_up(void)
{
    peer_end(&st.a.p);
}

static void shuts_its_half(void)
{
    shutdown(st.a.p.fd, SHUT_WR);
}

static void closes_1000(void)
{
    say(&st.a, "c1000");
}

static void closes_1001(void)
{
    say(&st.a, "c1001 bye");
}

static void closes_1002(void)
{
    say(&st.a, "c1002");
}

static void closes_4000(void)
{
    say(&st.a, "c4000");
}

/* ---- the events of the application and of time --------------------------- */

static int sends(void)
{
    return rt_send(st.loop, first(), RT_TEXT, "x", 1);
}

static int sends_droppable(void)
{
    return rt_send(st.loop, first(), RT_TEXT | RT_DROPPABLE, "x", 1);
}

static int sends_keyed(void)
{
    int error = rt_send(st.loop, first(), RT_TEXT | rt_latest(7), "y", 1);
    return error ? error
                 : rt_send(st.loop, first(), RT_TEXT | rt_latest(7), "x", 1);
}

static int overfills(void)
{
    char text[600];
    int error;
    memset(text, 'x', sizeof text);
    error = rt_send(st.loop, first(), RT_TEXT, text, sizeof text);
    return error ? error
                 : rt_send(st.loop, first(), RT_TEXT, text, sizeof text);
}

static int closes(void)
{
    return rt_close(st.loop, first(), 0, NULL);
}

static int drops(void)
{
    return rt_drop(st.loop, first(), 4000, NULL);
}

static int kicks(void)
{
    return rt_kick(st.loop, "u", 0, NULL);
}

/* A second session binds the same user id; its line is st.b. */
static int is_replaced(void)
{
    say(&st.b, "h");
    HEARS(&st.b, "w:0:0:new");
    say(&st.b, "a0");
    calm();
    script_clear(&st.told); /* its open */
    return rt_bind(st.loop, st.s[2], "u");
}

static int drains(void)
{
    return rt_shutdown(st.loop, 0);
}

static int window_passes(void)
{
    skip(2001);
    return 0;
}

static int bind_passes(void)
{
    skip(1501);
    return 0;
}

static int handshake_passes(void)
{
    skip(5001);
    return 0;
}

static int pings_pass(void)
{
    int i;
    for (i = 0; i < 6 && st.told.len == 0; i++)
        skip(15001);
    return 0;
}

static int binds(void)
{
    return rt_bind(st.loop, first(), "u");
}

static int pushes(void)
{
    return rt_push(st.loop, "u", RT_TEXT, "x", 1);
}

static int sends_many(void)
{
    rt_session s = first();
    return rt_send_many(st.loop, &s, 1, RT_TEXT, "x", 1);
}

static int group_sends(void)
{
    return rt_group_send(st.loop, rt_group_find(st.loop, "g"), RT_TEXT, "x", 1);
}

/* ---- the table ----------------------------------------------------------- */

static const row server_rows[] = {
    {"h",
     0,
     says_h,
     NULL,
     {{0, NEW, "open", RT_OPEN, BACK},
      VIOLATION(1002),
      VIOLATION(1002),
      NEVER(NO_LINE),
      IGNORED_ENDING,
      IGNORED}},
    {"h with an unknown token",
     0,
     says_h_unknown,
     NULL,
     {{0, NEW, "open", RT_OPEN, BACK},
      VIOLATION(1002),
      VIOLATION(1002),
      NEVER(NO_LINE),
      IGNORED_ENDING,
      IGNORED}},
    {"h of another connection",
     OTHER,
     other_resumes,
     NULL,
     {NEVER(NO_SESSION),
      {0, "c4504", "away back:0", RT_OPEN, BACK},
      {0, "c4504", "away back:0", RT_OPEN, BACK},
      {0, NULL, "back:0", RT_OPEN, BACK},
      {0, "c3999", "2.open close:3999:0", RT_EGONE, NEW},
      {0, "", "2.open", RT_EGONE, NEW}}},
    {"m",
     0,
     says_m,
     NULL,
     {REFUSED(1002),
      VIOLATION(1002),
      {0, "", "mx", RT_OPEN, "w:1:0:resumed"},
      NEVER(NO_LINE),
      IGNORED_ENDING,
      IGNORED}},
    {"m without payload, binary",
     0,
     says_m_empty,
     NULL,
     {REFUSED(1002),
      VIOLATION(1002),
      {0, "", "M", RT_OPEN, "w:1:0:resumed"},
      NEVER(NO_LINE),
      IGNORED_ENDING,
      IGNORED}},
    {"u",
     0,
     says_u,
     NULL,
     {REFUSED(1002),
      VIOLATION(1002),
      {0, "", "mx", RT_OPEN, BACK},
      NEVER(NO_LINE),
      IGNORED_ENDING,
      IGNORED}},
    {"a0",
     0,
     says_a0,
     NULL,
     {REFUSED(1002),
      {0, "", "", RT_OPEN, BACK},
      {0, "", "", RT_OPEN, BACK},
      NEVER(NO_LINE),
      IGNORED_ENDING,
      IGNORED}},
    {"a0 and m",
     0,
     says_a0_m,
     NULL,
     {REFUSED(1002),
      {0, "", "mx", RT_OPEN, "w:1:0:resumed"},
      {0, "", "mx", RT_OPEN, "w:1:0:resumed"},
      NEVER(NO_LINE),
      IGNORED_ENDING,
      IGNORED}},
    {"a of what was never sent",
     0,
     says_a1,
     NULL,
     {REFUSED(1002), VIOLATION(1002), VIOLATION(1002), NEVER(NO_LINE),
      IGNORED_ENDING, IGNORED}},
    {"a of all that was sent",
     SENT,
     says_a1,
     NULL,
     {NEVER(NO_SESSION),
      {0, "", "", RT_OPEN, "w:0:1:resumed"},
      {0, "", "", RT_OPEN, "w:0:1:resumed"},
      NEVER(NO_LINE),
      {0, "c3999", "close:3999:0", RT_EGONE, NEW}, /* not lost */
      IGNORED}},
    {"a that takes another one back",
     SENT,
     says_a1_a0,
     NULL,
     {NEVER(NO_SESSION),
      VIOLATION(1002),
      VIOLATION(1002),
      NEVER(NO_LINE),
      {0, "c3999", "close:3999:0", RT_EGONE, NEW},
      IGNORED}},
    {"a of more than was sent",
     SENT,
     says_a2,
     NULL,
     {NEVER(NO_SESSION),
      {0, "c1002", "close:1002:1", RT_EGONE, NEW},
      {0, "c1002", "close:1002:1", RT_EGONE, NEW},
      NEVER(NO_LINE),
      {0, "c3999", "close:3999:1", RT_EGONE, NEW},
      IGNORED}},
    {"w",
     0,
     says_w,
     NULL,
     {REFUSED(1002), VIOLATION(1002), VIOLATION(1002), NEVER(NO_LINE),
      IGNORED_ENDING, IGNORED}},
    {"an unknown type",
     0,
     says_unknown,
     NULL,
     {REFUSED(1002), VIOLATION(1002), VIOLATION(1002), NEVER(NO_LINE),
      IGNORED_ENDING, IGNORED}},
    {"a reset",
     0,
     resets,
     NULL,
     {{0, NULL, "", RT_EGONE, ""},
      {0, NULL, "away", RT_AWAY, BACK},
      {0, NULL, "away", RT_AWAY, BACK},
      NEVER(NO_LINE),
      {0, NULL, "close:3999:0", RT_EGONE, NEW},
      {0, NULL, "", RT_EGONE, NEW}}},
    {"a reset with something unacknowledged",
     SENT,
     resets,
     NULL,
     {NEVER(NO_SESSION),
      {0, NULL, "away", RT_AWAY, BACK " ms"},
      {0, NULL, "away", RT_AWAY, BACK " ms"},
      NEVER(NO_LINE),
      {0, NULL, "close:3999:1", RT_EGONE, NEW},
      {0, NULL, "", RT_EGONE, NEW}}},
    {"the end of the line",
     0,
     hangs_up,
     NULL,
     {{0, NULL, "", RT_EGONE, ""},
      {0, NULL, "away", RT_AWAY, BACK},
      {0, NULL, "away", RT_AWAY, BACK},
      NEVER(NO_LINE),
      {0, NULL, "close:3999:0", RT_EGONE, NEW},
      {0, NULL, "", RT_EGONE, NEW}}},
    {"the end of the peer's half",
     0,
     shuts_its_half,
     NULL,
     {{0, NULL, "", RT_EGONE, ""},
      {0, NULL, "away", RT_AWAY, BACK},
      {0, NULL, "away", RT_AWAY, BACK},
      NEVER(NO_LINE),
      {0, NULL, "close:3999:0", RT_EGONE, NEW},
      {0, NULL, "", RT_EGONE, NEW}}},
    {"close 1000",
     0,
     closes_1000,
     NULL,
     {{0, NULL, "", RT_EGONE, ""},
      {0, NULL, "close:1000:0", RT_EGONE, NEW},
      {0, NULL, "close:1000:0", RT_EGONE, NEW},
      NEVER(NO_LINE),
      {0, NULL, "close:3999:0", RT_EGONE, NEW},
      {0, NULL, "", RT_EGONE, NEW}}},
    {"close 1000 with something unacknowledged",
     SENT,
     closes_1000,
     NULL,
     {NEVER(NO_SESSION),
      {0, NULL, "close:1000:1", RT_EGONE, NEW},
      {0, NULL, "close:1000:1", RT_EGONE, NEW},
      NEVER(NO_LINE),
      {0, NULL, "close:3999:1", RT_EGONE, NEW},
      {0, NULL, "", RT_EGONE, NEW}}},
    {"close 1001",
     0,
     closes_1001,
     NULL,
     {{0, NULL, "", RT_EGONE, ""},
      {0, NULL, "away", RT_AWAY, BACK},
      {0, NULL, "away", RT_AWAY, BACK},
      NEVER(NO_LINE),
      {0, NULL, "close:3999:0", RT_EGONE, NEW},
      {0, NULL, "", RT_EGONE, NEW}}},
    {"close 1002",
     0,
     closes_1002,
     NULL,
     {{0, NULL, "", RT_EGONE, ""},
      {0, NULL, "away", RT_AWAY, BACK},
      {0, NULL, "away", RT_AWAY, BACK},
      NEVER(NO_LINE),
      {0, NULL, "close:3999:0", RT_EGONE, NEW},
      {0, NULL, "", RT_EGONE, NEW}}},
    {"close 4000",
     SENT,
     closes_4000,
     NULL,
     {NEVER(NO_SESSION),
      {0, NULL, "away", RT_AWAY, BACK " ms"},
      {0, NULL, "away", RT_AWAY, BACK " ms"},
      NEVER(NO_LINE),
      {0, NULL, "close:3999:1", RT_EGONE, NEW},
      {0, NULL, "", RT_EGONE, NEW}}},
    {"unanswered pings",
     PINGS,
     NULL,
     pings_pass,
     {NEVER(EARLIER),
      NEVER(EARLIER),
      {0, "c4002", "away", RT_AWAY, BACK},
      NEVER(NO_LINE),
      NEVER(NO_TIME),
      NEVER(NO_SESSION)}},
    {"the handshake deadline",
     TIME,
     NULL,
     handshake_passes,
     {REFUSED(1013),
      {0, "c1013", "away", RT_AWAY, BACK},
      {0, "", "", RT_OPEN, BACK},
      NEVER(NO_LINE),
      NEVER(NO_TIME),
      {0, "", "", RT_EGONE, NEW}}},
    {"the end of the window",
     TIME,
     NULL,
     window_passes,
     {{0, "", "", RT_OPENING, ""},
      {0, "", "", RT_OPEN, BACK},
      {0, "", "", RT_OPEN, BACK},
      {0, NULL, "close:4503:0", RT_EGONE, NEW},
      NEVER(NO_TIME),
      IGNORED}},
    {"the end of the window with something kept",
     SENT,
     NULL,
     window_passes,
     {NEVER(NO_SESSION),
      {0, "", "", RT_OPEN, BACK " ms"},
      {0, "", "", RT_OPEN, BACK " ms"},
      {0, NULL, "close:4503:1", RT_EGONE, NEW},
      NEVER(NO_TIME),
      IGNORED}},
    {"the end of the time to bind",
     BIND | TIME,
     NULL,
     bind_passes,
     {{0, "", "", RT_OPENING, ""},
      {0, "c1008", "close:1008:0", RT_EGONE, NEW},
      {0, "c1008", "close:1008:0", RT_EGONE, NEW},
      {0, NULL, "close:1008:0", RT_EGONE, NEW},
      NEVER(NO_TIME),
      IGNORED}},
    {"rt_send",
     0,
     NULL,
     sends,
     {{RT_ESTATE, "", "", RT_OPENING, ""},
      {0, "mx", "", RT_OPEN, BACK " mx"},
      {0, "mx", "", RT_OPEN, BACK " mx"},
      {0, NULL, "", RT_AWAY, BACK " mx"},
      {RT_EGONE, "c3999", "close:3999:0", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"rt_send, the second",
     SENT,
     NULL,
     sends,
     {NEVER(NO_SESSION),
      {0, "mx", "", RT_OPEN, BACK " ms mx"},
      {0, "mx", "", RT_OPEN, BACK " ms mx"},
      {0, NULL, "", RT_AWAY, BACK " ms mx"},
      {RT_EGONE, "c3999", "close:3999:1", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"no room in the queue",
     NARROW,
     NULL,
     overfills,
     {{RT_ESTATE, "", "", RT_OPENING, ""},
      {1, "c4001", "away", RT_AWAY, BACK " mx#600 mx#600"},
      {1, "c4001", "away", RT_AWAY, BACK " mx#600 mx#600"},
      {0, NULL, "", RT_AWAY, BACK " mx#600 mx#600"},
      {RT_EGONE, "c3999", "close:3999:0", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"a droppable one",
     0,
     NULL,
     sends_droppable,
     {{RT_ESTATE, "", "", RT_OPENING, ""},
      {0, "ux", "", RT_OPEN, BACK},
      {0, "ux", "", RT_OPEN, BACK},
      {1, NULL, "", RT_AWAY, BACK},
      {RT_EGONE, "c3999", "close:3999:0", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"two of one key",
     0,
     NULL,
     sends_keyed,
     {{RT_ESTATE, "", "", RT_OPENING, ""},
      {0, "ux", "", RT_OPEN, BACK " ux"},
      {0, "ux", "", RT_OPEN, BACK " ux"},
      {0, NULL, "", RT_AWAY, BACK " ux"},
      {RT_EGONE, "c3999", "close:3999:0", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"rt_close",
     SENT,
     NULL,
     closes,
     {NEVER(NO_SESSION),
      {0, "c1000", "close:1000:1", RT_EGONE, NEW},
      {0, "c1000", "close:1000:1", RT_EGONE, NEW},
      {0, NULL, "close:1000:1", RT_EGONE, NEW},
      {RT_EGONE, "c3999", "close:3999:1", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"rt_close, nothing sent",
     0,
     NULL,
     closes,
     {{0, NULL, "", RT_EGONE, ""},
      {0, "c1000", "close:1000:0", RT_EGONE, NEW},
      {0, "c1000", "close:1000:0", RT_EGONE, NEW},
      {0, NULL, "close:1000:0", RT_EGONE, NEW},
      {RT_EGONE, "c3999", "close:3999:0", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"rt_drop",
     SENT,
     NULL,
     drops,
     {NEVER(NO_SESSION),
      {0, "c4000", "away", RT_AWAY, BACK " ms"},
      {0, "c4000", "away", RT_AWAY, BACK " ms"},
      {RT_ESTATE, NULL, "", RT_AWAY, BACK " ms"},
      {RT_EGONE, "c3999", "close:3999:1", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"rt_drop, nothing sent",
     0,
     NULL,
     drops,
     {{RT_ESTATE, "", "", RT_OPENING, ""},
      {0, "c4000", "away", RT_AWAY, BACK},
      {0, "c4000", "away", RT_AWAY, BACK},
      {RT_ESTATE, NULL, "", RT_AWAY, BACK},
      {RT_EGONE, "c3999", "close:3999:0", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"rt_kick",
     BOUND,
     NULL,
     kicks,
     {NEVER(NO_SESSION),
      {1, "c4502", "close:4502:0", RT_EGONE, NEW},
      {1, "c4502", "close:4502:0", RT_EGONE, NEW},
      {1, NULL, "close:4502:0", RT_EGONE, NEW},
      {0, "c3999", "close:3999:0", RT_EGONE, NEW},
      {0, "", "", RT_EGONE, NEW}}},
    {"a newer login",
     BOUND | OTHER,
     NULL,
     is_replaced,
     {NEVER(NO_SESSION),
      {0, "c4501", "close:4501:0", RT_EGONE, NEW},
      {0, "c4501", "close:4501:0", RT_EGONE, NEW},
      {0, NULL, "close:4501:0", RT_EGONE, NEW},
      NEVER(NO_TIME),
      {0, "", "", RT_EGONE, NEW}}},
    {"rt_shutdown",
     TIME,
     NULL,
     drains,
     {{0, NULL, "", RT_EGONE, ""},
      {0, "c1012", "close:1012:0", RT_EGONE, ""},
      {0, "c1012", "close:1012:0", RT_EGONE, ""},
      {0, NULL, "close:1012:0", RT_EGONE, ""},
      {0, "c3999", "close:3999:0", RT_EGONE, ""},
      {0, "", "", RT_EGONE, ""}}},
    {"rt_bind",
     0,
     NULL,
     binds,
     {{RT_ESTATE, "", "", RT_OPENING, ""},
      {0, "", "", RT_OPEN, BACK},
      {0, "", "", RT_OPEN, BACK},
      {0, NULL, "", RT_AWAY, BACK},
      {RT_EGONE, "c3999", "close:3999:0", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"rt_bind, bound",
     BOUND,
     NULL,
     binds,
     {NEVER(NO_SESSION),
      {RT_EBOUND, "", "", RT_OPEN, BACK},
      {RT_EBOUND, "", "", RT_OPEN, BACK},
      {RT_EBOUND, NULL, "", RT_AWAY, BACK},
      {RT_EGONE, "c3999", "close:3999:0", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"rt_group_join",
     0,
     NULL,
     group_of_first,
     {{RT_ESTATE, "", "", RT_OPENING, ""},
      {0, "", "", RT_OPEN, BACK},
      {0, "", "", RT_OPEN, BACK},
      {0, NULL, "", RT_AWAY, BACK},
      {RT_EGONE, "c3999", "close:3999:0", RT_EGONE, NEW},
      {RT_EGONE, "", "", RT_EGONE, NEW}}},
    {"rt_push",
     BOUND,
     NULL,
     pushes,
     {NEVER(NO_SESSION),
      {1, "mx", "", RT_OPEN, BACK " mx"},
      {1, "mx", "", RT_OPEN, BACK " mx"},
      {1, NULL, "", RT_AWAY, BACK " mx"},
      {0, "c3999", "close:3999:0", RT_EGONE, NEW},
      {0, "", "", RT_EGONE, NEW}}},
    {"rt_send_many",
     0,
     NULL,
     sends_many,
     {{0, "", "", RT_OPENING, ""},
      {1, "mx", "", RT_OPEN, BACK " mx"},
      {1, "mx", "", RT_OPEN, BACK " mx"},
      {1, NULL, "", RT_AWAY, BACK " mx"},
      {0, "c3999", "close:3999:0", RT_EGONE, NEW},
      {0, "", "", RT_EGONE, NEW}}},
    {"rt_group_send",
     JOINED,
     NULL,
     group_sends,
     {NEVER(NO_SESSION),
      {1, "mx", "", RT_OPEN, BACK " mx"},
      {1, "mx", "", RT_OPEN, BACK " mx"},
      {1, NULL, "", RT_AWAY, BACK " mx"},
      {0, "c3999", "close:3999:0", RT_EGONE, NEW},
      {0, "", "", RT_EGONE, NEW}}},
};

/* ---- reaching a state ---------------------------------------------------- */

static void prepare(int needs)
{
    if (needs & SENT) {
        EQUAL(send_text(1, "s"), 0);
        HEARS(&st.a, "ms");
    }
    if (needs & BOUND)
        EQUAL(rt_bind(st.loop, st.s[1], "u"), 0);
    if (needs & JOINED)
        EQUAL(group_of_first(), 0);
}

static void reach(int state, int needs)
{
    line_open(&st.a);
    st.a.deaf = (needs & PINGS) != 0;
    if (needs & OTHER)
        line_open(&st.b);
    if (state == OPENING)
        return;
    say(&st.a, "h");
    HEARS(&st.a, "w:0:0:new");
    TOLD("open");
    if (state != GREETED) {
        say(&st.a, "a0");
        line_settle(&st.a);
    }
    prepare(needs);
    if (state == AWAY) {
        line_cut(&st.a);
        TOLD("away");
    }
    if (state != CLOSING)
        return;
    EQUAL(rt_close(st.loop, st.s[1], 3999, NULL), 0);
    HEARS(&st.a, "c3999");
    calm();
    EQUAL(st.end.code, 3999);
    script_clear(&st.told);
}

/* The event, in ENDING in the turn of rt_close. */
static int happen(const row *r, int state)
{
    if (r->peer)
        r->peer();
    if (state == ENDING)
        EQUAL(rt_close(st.loop, st.s[1], 3999, NULL), 0);
    return r->call ? r->call() : 0;
}

/* Someone comes with the session's newest token: what does the server know? */
static void come_again(const char *hears)
{
    int state = rt_state(st.loop, st.s[1]);
    int moved = strcmp(st.b.w.status, "resumed") == 0;
    char told[32] = "back:0";
    line_return(&st.c, moved ? &st.b.w : &st.a.w, st.acked, 99);
    HEARS(&st.c, hears);
    if (state == RT_OPEN)
        snprintf(told, sizeof told, "away back:0");
    if (state < 0)
        snprintf(told, sizeof told, "%d.open", st.count);
    TOLD(told);
}

static void check_outcome(const row *r, int state)
{
    const outcome *o = &r->cells[state];
    rt_session s = first();
    if (r->needs & PINGS) { /* there may be an a or two between */
        line_hear(&st.a, 1);
        EQUAL(st.a.closed, atoi(o->hears + 1));
    } else if (o->hears) {
        HEARS(&st.a, o->hears);
    }
    TOLD(o->told);
    if (s.id)
        EQUAL(rt_state(st.loop, s), o->state);
    if (r->needs & OTHER && r->peer)
        HEARS(&st.b, state == ENDING || state == CLOSING ? NEW : BACK);
    if (o->again && o->again[0])
        come_again(o->again);
}

/* Without a handle there is nothing to call. */
static const char *cell_lacks(const row *r, int state)
{
    if (!r->cells[state].told)
        return r->cells[state].hears;
    if (state == OPENING && st.wire == TCP && r->call && !(r->needs & TIME))
        return "on TCP on_request is not asked, so there is no handle";
    return NULL;
}

static void server_cell(const row *r, int state)
{
    const char *backend = st.backend == RT_SELECT ? "select" : "default";
    int rc;
    test_begin("server, %s x %s, %s, %s", state_names[state], r->event,
               wire_names[st.wire], backend);
    if (r->needs & NARROW)
        st.opts.soft_mark = st.opts.hard_mark = 1000;
    if (r->needs & BIND)
        st.opts.bind_ms = 1500;
    stage();
    reach(state, r->needs);
    rc = happen(r, state);
    EQUAL(rc, r->cells[state].rc);
    check_outcome(r, state);
    stage_end();
    test_end();
}

/* Each cell is walked, or says why it cannot be. */
enum { WALKED_WS = 227, WALKED_TCP = 218 };
static void server_table(int backend, int wire)
{
    size_t i, rows = sizeof server_rows / sizeof *server_rows;
    int state, walked = 0, never = 0;
    for (i = 0; i < rows; i++)
        for (state = 0; state < STATES; state++) {
            stage_begin(backend, wire);
            if (cell_lacks(&server_rows[i], state)) {
                never++;
                continue;
            }
            server_cell(&server_rows[i], state);
            walked++;
        }
    test_begin("server, every cell is walked or cannot be");
    EQUAL(walked + never, rows * STATES);
    EQUAL(walked, wire == WS ? WALKED_WS : WALKED_TCP);
    test_end();
}

/* ---- the grammar --------------------------------------------------------- */

/* Bytes with a NUL among them, perhaps. */
#define BYTES(text) text, sizeof(text) - 1

typedef struct {
    const char *text; /* $: the token of the first session */
    size_t len;
} phrase;

/* What is no h; each of them names the session, if it can be read so. */
static const phrase not_h[] = {
    {BYTES("h ")},
    {BYTES("h$")},
    {BYTES("h$ ")},
    {BYTES("h$ 0")},
    {BYTES("h$ 0 ")},
    {BYTES("h$ 1 0 ")},
    {BYTES("h$  0 1")},
    {BYTES("h$ 0  1")},
    {BYTES("h$ 0 1 ")},
    {BYTES("h $ 0 1")},
    {BYTES(" h$ 0 1")},
    {BYTES("h$ 0 1 1")},
    {BYTES("h$ 00 1")},
    {BYTES("h$ 0 01")},
    {BYTES("h$ 0 00")},
    {BYTES("h$ -0 1")},
    {BYTES("h$ 0 -1")},
    {BYTES("h$ +0 1")},
    {BYTES("h$ 0 +1")},
    {BYTES("h$ 0x0 1")},
    {BYTES("h$ 0.0 1")},
    {BYTES("h$ 0 1e1")},
    {BYTES("h$ 0 9007199254740992")},
    {BYTES("h$ 9007199254740992 1")},
    {BYTES("h$ 10000000000000000 1")},
    {BYTES("h$ 0 10000000000000000")},
    {BYTES("h$ 18446744073709551616 1")},
    {BYTES("h$ 0 18446744073709551617")},
    {BYTES("h$ a 1")},
    {BYTES("h$\t0 1")},
    {BYTES("h$,0,1")},
    {BYTES("h$ 0 1\n")},
    {BYTES("h$ 0 1\0")},
    {BYTES("h$\0 0 1")},
    {BYTES("h$ 0 1                                                        "
           "                                                           ")},
    {BYTES("H$ 0 1")},
    {BYTES("h 0 1")},
};

/* Tokens that are spelled wrongly. */
static const phrase not_tokens[] = {
    {BYTES("h- 0 1")},
    {BYTES("hAAAAAAAAAAAAAAAAAAAAA 0 1")},
    {BYTES("hAAAAAAAAAAAAAAAAAAAAAAA 0 1")},
    {BYTES("hAAAAAAAAAAAAAAAAAAAAAB 0 1")},
    {BYTES("hAAAAAAAAAAAAAAAAAAAAAx 0 1")},
    {BYTES("hAAAAAAAAAAA+AAAAAAAAAA 0 1")},
    {BYTES("hAAAAAAAAAAA/AAAAAAAAAA 0 1")},
    {BYTES("hAAAAAAAAAAAAAAAAAAAAA= 0 1")},
    {BYTES("hAAAAAAAAAAA\0AAAAAAAAAA 0 1")},
};

enum { BOTH_WIRES = 0, ONLY_WS = 1, ONLY_TCP = 2 };

/* What nobody may say once a session is open. */
static const struct {
    phrase p;
    int wire, op; /* op: of the frame, 0: text */
    int code;
} not_messages[] = {
    {{BYTES("")}, ONLY_WS, 0, 1002},
    {{BYTES("")}, ONLY_WS, 2, 1002},
    {{BYTES("")}, ONLY_TCP, 0, 1009},
    {{BYTES("a")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a ")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a 0")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a0 ")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a0 0")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a00")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a01")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a-0")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a+0")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a0x0")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a0\0")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a0\n")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a9007199254740991")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a9007199254740992")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a18446744073709551616")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a0000000000000000000000000000000000000000000000000000000000000"
            "00000000000000000000000000000000000000000000000000000000000000"
            "0000000000")},
     BOTH_WIRES,
     0,
     1002},
    {{BYTES("A0")}, BOTH_WIRES, 0, 1002},
    {{BYTES("h")}, BOTH_WIRES, 0, 1002},
    {{BYTES("w")}, BOTH_WIRES, 0, 1002},
    {{BYTES("n")}, BOTH_WIRES, 0, 1002},
    {{BYTES(" ")}, BOTH_WIRES, 0, 1002},
    {{BYTES("\0")}, BOTH_WIRES, 0, 1002},
    {{BYTES("\0mx")}, BOTH_WIRES, 0, 1002},
    {{BYTES("a0")}, ONLY_WS, 2, 1002},
    {{BYTES("h")}, ONLY_WS, 2, 1002},
    {{BYTES("zx")}, ONLY_WS, 2, 1002},
    {{BYTES("Mx")}, ONLY_WS, 0, 1002},
    {{BYTES("Ux")}, ONLY_WS, 0, 1002},
    {{BYTES("Mx")}, ONLY_WS, 2, 1002},
    {{BYTES("c1000")}, ONLY_WS, 0, 1002},
    {{BYTES("p")}, ONLY_WS, 0, 1002},
    {{BYTES("q")}, ONLY_WS, 0, 1002},
    {{BYTES("m\xff")}, ONLY_WS, 0, 1007},
    {{BYTES("c")}, ONLY_TCP, 0, 1002},
    {{BYTES("c1")}, ONLY_TCP, 0, 1002},
    {{BYTES("c999")}, ONLY_TCP, 0, 1002},
    {{BYTES("c4294968296")}, ONLY_TCP, 0, 1002}, /* 1000, if it wrapped */
    {{BYTES("c5000")}, ONLY_TCP, 0, 1002},
    {{BYTES("c01000")}, ONLY_TCP, 0, 1002},
    {{BYTES("c1000x")}, ONLY_TCP, 0, 1002},
    {{BYTES("c 1000")}, ONLY_TCP, 0, 1002},
    {{BYTES("c1001 123456789 123456789 123456789 123456789 123456789 1234567"
            "89 123456789 123456789 123456789 123456789 123456789 123456789 "
            "1234")},
     ONLY_TCP,
     0,
     1002},
    {{BYTES("p123456789abcdefgh")}, ONLY_TCP, 0, 1002},
    {{BYTES("q123456789abcdefgh")}, ONLY_TCP, 0, 1002},
};

static void say_phrase(line *l, const phrase *p, int op)
{
    char text[256];
    size_t i, n = 0;
    for (i = 0; i < p->len; i++) {
        text[n++] = p->text[i];
        if (p->text[i] != '$')
            continue;
        memcpy(text + n - 1, st.a.w.token, 22);
        n += 21;
    }
    line_frame(l, op ? op : 1, text, n);
}

/* The connection alone pays for it: the session that was named is there, and
   the attempt is not counted. */
static void not_an_h(const phrase *p)
{
    open_and_lose();
    line_open(&st.b);
    say_phrase(&st.b, p, 0);
    HEARS(&st.b, "c1002");
    TOLD("");
    line_return(&st.c, &st.a.w, 0, 1);
    HEARS(&st.c, BACK);
    TOLD("back:0");
}

static void not_a_message(size_t i)
{
    char told[32], code[8];
    open_first();
    say_phrase(&st.a, &not_messages[i].p, not_messages[i].op);
    snprintf(told, sizeof told, "close:%d:0", not_messages[i].code);
    snprintf(code, sizeof code, "c%d", not_messages[i].code);
    HEARS(&st.a, code);
    TOLD(told);
    if (not_messages[i].code == 1002)
        EQUAL(st.end.cause, RT_BY_ERROR);
}

static void server_grammar(int backend, int wire)
{
    size_t i, some = sizeof not_h / sizeof *not_h;
    size_t tokens = sizeof not_tokens / sizeof *not_tokens;
    for (i = 0; i < some + tokens; i++) {
        test_begin("not an h: \"%s\", %s",
                   i < some ? not_h[i].text : not_tokens[i - some].text,
                   wire_names[wire]);
        stage_begin(backend, wire);
        stage();
        not_an_h(i < some ? &not_h[i] : &not_tokens[i - some]);
        stage_end();
        test_end();
    }
    for (i = 0; i < sizeof not_messages / sizeof *not_messages; i++) {
        if (not_messages[i].wire == (wire == WS ? ONLY_TCP : ONLY_WS))
            continue;
        test_begin("not a message: \"%s\" %d, %s", not_messages[i].p.text,
                   (int)i, wire_names[wire]);
        stage_begin(backend, wire);
        stage();
        not_a_message(i);
        stage_end();
        test_end();
    }
}

#endif
