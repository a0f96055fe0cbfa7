/*
 * A kernel of our own.  The unmodified library is linked with --wrap for every
 * call it makes of the system (the names are in sim.wrap), and between
 * sim_start and sim_end those calls are served here: descriptors, sockets,
 * epoll, kqueue, select, pipes, both clocks, entropy and errno.  Nothing real
 * is touched, time passes only when the library waits, and every choice a
 * kernel has comes from one stream of numbers, so that a seed repeats a run
 * exactly.
 *
 * The other side of each connection is a script: it acts between two turns of
 * the loop, or inside a wait by sim_at.
 *
 * Outside sim_start and sim_end the calls go to the real system.
 */
#ifndef SIM_H
#define SIM_H

#include <stddef.h>
#include <stdint.h>

/* The calls that are served, one for each line of sim.wrap. */
#define SIM_CALLS(X)                                                           \
    X(accept4)                                                                 \
    X(bind)                                                                    \
    X(clock_gettime)                                                           \
    X(close)                                                                   \
    X(connect)                                                                 \
    X(epoll_create1)                                                           \
    X(epoll_ctl)                                                               \
    X(epoll_wait)                                                              \
    X(fcntl)                                                                   \
    X(getpeername)                                                             \
    X(getrandom)                                                               \
    X(getsockname)                                                             \
    X(getsockopt)                                                              \
    X(kevent)                                                                  \
    X(kqueue)                                                                  \
    X(listen)                                                                  \
    X(lstat)                                                                   \
    X(open)                                                                    \
    X(pipe2)                                                                   \
    X(read)                                                                    \
    X(recv)                                                                    \
    X(select)                                                                  \
    X(send)                                                                    \
    X(sendmsg)                                                                 \
    X(setsockopt)                                                              \
    X(shutdown)                                                                \
    X(socket)                                                                  \
    X(stat)                                                                    \
    X(unlink)                                                                  \
    X(write)

#define SIM_CALL_ENUM(name) SIM_##name,
enum sim_call { SIM_CALLS(SIM_CALL_ENUM) SIM_CALL_COUNT };
#undef SIM_CALL_ENUM

/* All 0 is a kernel without faults.  The first five are out of 1,000. */
typedef struct {
    uint64_t seed;
    int eintr;       /* are interrupted */
    int again;       /* find nothing although it was announced */
    int shorts;      /* move fewer bytes than they could */
    int shuffle;     /* waits answer in any order, and not with all there is */
    int wall;        /* steps begin with a jump of the wall clock */
    int late_us;     /* waits end up to so much late */
    int tick_ns;     /* each look at the clock takes so long */
    int max_fds;     /* descriptors are below it; 1,000 */
    int spin;        /* waits in a row without progress are a spin; 200 */
    size_t window;   /* bytes that lie unread in a library's socket; 65,536 */
    uint64_t now_ms; /* of the monotonic clock at the start; a day and some */
    int trace;       /* 1: each call is printed on stderr */
    int until;       /* sim_over after so many steps; 0: never */
    int in_order;    /* waits tell of the lower descriptors first */
    /* Where they are given all choices are made of these bytes, and of the
       seed only what getrandom says.  Once they are used up each number is 0
       and no chance comes true: the weather is calm from there on. */
    const uint8_t *choices;
    size_t choices_len;
} sim_opts;

/* Bad weather by a seed: interrupted, short, in any order, late. */
void sim_weather(uint64_t seed, sim_opts *o);

/* ---- the world ---------------------------------------------------------- */

/* Starts a world; there is one at a time.  opts may be NULL. */
void sim_start(const sim_opts *opts);

/* Ends it, with all that is left in it.  A descriptor that is still open is a
   fault.  Returns how many faults there were in this world. */
int sim_end(void);

/* Says how many worlds there were in this process, how much time went by in
   them and how many calls were served. */
void sim_print_total(void);

/* A number below n from the stream of choices; 0 when n is 0. */
uint32_t sim_choose(uint32_t n);

/* True in permille of 1,000 cases. */
int sim_chance(int permille);

/* How many bytes of sim_opts.choices are still unused. */
size_t sim_choices_left(void);

/* Notes something that must not be, as what a check found. */
void sim_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Counts a step of a script, as which it stands in the trace. */
void sim_step(int ms);

/* A fault was found, or all the steps that were wanted were done. */
int sim_over(void);

/*
 * Notes an upcall of a session, or what its other end received, for digests:
 * who it was, what came and something that stands for the rest.
 */
void sim_upcall(uint32_t who, int what, uint64_t value);

/* How many faults so far; the text of the first, "" without. */
int sim_faults(void);
const char *sim_fault_text(void);

/* The nth call from now (1: the next) fails with this errno, 0: none does.  A
   kevent does so at the last of its changes.  Or the nth and all after it,
   until the next sim_fail for that call. */
void sim_fail(enum sim_call call, int nth, int error);
void sim_fail_ever(enum sim_call call, int nth, int error);

/* The descriptor of the last call that failed or was short because of these, of
   those that have one; -1: none did. */
int sim_failed_fd(void);

/* The nth call from now of recv, read, send, sendmsg or getrandom moves at most
   so many bytes (1 at least); nth 0: none does.  Or half of what it could move,
   all but one byte, or all, of which it then says one more than it was asked
   for: no system does, but a layer between might. */
void sim_short(enum sim_call call, int nth, size_t bytes);
#define SIM_HALF (SIZE_MAX - 2)
#define SIM_BUT_ONE (SIZE_MAX - 1)
#define SIM_TOO_MANY SIZE_MAX

/* From now on epoll tells these bits alone of a stream that it tells of, as
   long as they are not 0. */
void sim_events(uint32_t mask);

/* How often a call was made. */
uint64_t sim_calls(enum sim_call call);

/* Changes the limit of descriptors. */
void sim_max_fds(int max);

/* A line of a script in the trace. */
void sim_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- memory ------------------------------------------------------------- */

/*
 * For rt_loop_opts.realloc: counts bytes, moves a block whenever it is asked
 * to change it, and takes a wrong old size for a fault.  What is left at
 * sim_end is a fault too.
 */
void *sim_realloc(void *user, void *p, size_t old, size_t now);

/* The nth allocation from now, be it a new block or one that is to grow, fails;
   those after it too, if for_ever.  nth 0: none does. */
void sim_fail_memory(int nth, int for_ever);

/* How many there were, those that failed among them. */
uint64_t sim_allocations(void);

/* Bytes held now, and the most there ever were. */
size_t sim_heap(void);
size_t sim_heap_peak(void);

/* ---- time --------------------------------------------------------------- */

/* The monotonic clock, in ms. */
uint64_t sim_now(void);

/* Lets time pass without the library, as a long callback does. */
void sim_pass(uint64_t ms);

/* The monotonic clock jumps, as it must not: waits do not notice. */
void sim_jump(int64_t ms);

/* The wall clock jumps. */
void sim_wall_jump(int64_t ms);

/* Runs fn(arg) once the monotonic clock would show ms without jumps, inside
   the wait of the library that is then under way. */
void sim_at(uint64_t ms, void (*fn)(void *), void *arg);

/* ---- descriptors -------------------------------------------------------- */

/* How many the library has open: in all, and streams (connections). */
int sim_fds(void);
int sim_streams(void);

/* ---- peers -------------------------------------------------------------- */

typedef struct sim_peer sim_peer;

/* Connects to a listener of the library.  NULL with errno ECONNREFUSED: there
   is none; EAGAIN: its queue is full. */
sim_peer *sim_connect(int port);
sim_peer *sim_connect_from(int port, const char *address);
sim_peer *sim_connect_path(const char *path);

/* A scripted server on a port, until the world ends. */
void sim_serve(int port);

/* The next connection to a scripted server; NULL without. */
sim_peer *sim_accept(int port);

/* Connections to that port are never answered. */
void sim_blackhole(int port);

/* Sends what the window lets through.  Returns how much; -1: the line is
   dead. */
ptrdiff_t sim_peer_send(sim_peer *peer, const void *data, size_t len);

/* Takes up to cap bytes that have come; 0 without, ask sim_peer_state. */
size_t sim_peer_recv(sim_peer *peer, void *out, size_t cap);

/* How many bytes it could take. */
size_t sim_peer_waiting(const sim_peer *peer);

/* How many bytes it lets lie unread; 0: nothing more comes.  Default as
   sim_opts.window. */
void sim_peer_window(sim_peer *peer, size_t bytes);

/* What the other side did; SIM_FIN also while bytes before it lie unread. */
enum sim_state { SIM_UP = 0, SIM_FIN, SIM_RST };
enum sim_state sim_peer_state(const sim_peer *peer);

/* Sends a FIN and reads on. */
void sim_peer_shut(sim_peer *peer);

/* Sends a RST. */
void sim_peer_reset(sim_peer *peer);

/* As close(2): a FIN, a RST when bytes lie unread.  The peer is gone. */
void sim_peer_close(sim_peer *peer);

/* ---- WebSocket peers ----------------------------------------------------- */

enum ws_op {
    WS_MORE = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8,
    WS_PING = 9,
    WS_PONG = 10
};

/* Bytes of a script: at[0..len). */
struct ws_bytes {
    uint8_t *at;
    size_t len, cap;
};

/*
 * A scripted WebSocket end over a sim_peer.  It decodes strictly: whatever the
 * library writes against RFC 6455 is a fault.  The first group of fields may
 * be set at any time, the second is for reading.
 */
typedef struct ws_peer {
    int reads;  /* 0: it takes nothing from the line; 1 at first */
    int pongs;  /* it answers pings; 1 at first */
    int closes; /* it answers a close; 1 at first */
    /* A whole message, or a WS_PING, WS_PONG, WS_CLOSE. */
    void (*on)(struct ws_peer *, int op, const uint8_t *data, size_t len);
    void *user;

    sim_peer *line;      /* NULL: both are done with it */
    int server;          /* it is the server of an rt_dial */
    int status;          /* of the answer to its request; 0: not yet */
    int open;            /* the handshake is done */
    int close_sent;      /* nothing follows it */
    int close_code;      /* what came; 0: none, 1005: one without a code */
    char reason[128];    /* of that close */
    enum sim_state last; /* how the line ended, when it is NULL */
    int pings_got, pongs_got;
    struct ws_bytes in, out, message;
    int op; /* of the message under way */
} ws_peer;

/* Connects and sends the request for path.  NULL: as sim_connect. */
ws_peer *ws_connect(int port, const char *path);

/* The same, but sends nothing yet: for those who do it byte by byte. */
ws_peer *ws_connect_silent(int port);
ws_peer *ws_connect_from(int port, const char *address);

/* What ws_connect sends. */
const char *ws_request(const char *path);

/* The Sec-WebSocket-Accept for a key of 24 characters. */
void ws_accept_of(const char *key, char out[29]);

/* The next dial to a scripted server that answers it; NULL without. */
ws_peer *ws_accept(int port);

/* Queues a frame: first is its first byte, FIN (0x80) and all. */
void ws_frame(ws_peer *w, int first, const void *data, size_t len);

/* Queues a message in one frame. */
void ws_send(ws_peer *w, int op, const void *data, size_t len);

/* Queues a close frame, once; code 0: none in it. */
void ws_close(ws_peer *w, int code);

/* Queues bytes as they are. */
void ws_raw(ws_peer *w, const void *data, size_t len);

/* Writes what the line takes, reads what has come, answers. */
void ws_pump(ws_peer *w);

/* Closes the line, if there is one, and frees. */
void ws_free(ws_peer *w);

/* ---- random worlds ------------------------------------------------------- */

/* One of them: first what is asked for, all 0 but seed and backend is a whole
   world in the weather of its seed; then what came of it. */
typedef struct {
    uint64_t seed;
    int backend; /* enum rt_backend */
    int until;   /* so many steps of it; 0: all */
    int trace;
    int calm; /* without faults: any backend and any build has the same upcalls,
                 its waits tell in order and its turns take all their time */
    const uint8_t *choices; /* as in sim_opts, if there are any */
    size_t choices_len;
    int quiet; /* a fault is not printed */

    uint64_t digest; /* of all upcalls */
    uint64_t each;   /* of those of each session, whatever lies between them */
    uint64_t events; /* upcalls, system calls that are neither a wait nor a
                        look at the clock, and what scripted peers did */
    int steps;
} sim_world;

/* Begins one of that weather, and ends it.  A fault is printed with what
   repeats it.  Returns how many there were. */
void sim_world_begin(const sim_world *w, const sim_opts *weather);
int sim_world_end(sim_world *w, const char *name);

/* Those of sim_model.c: a server like that of a game, and its players.  Return
   how many faults there were. */
int model_run(sim_world *w);

/* Sessions that outlive their sockets, sim_resume.c. */
int resume_run(sim_world *w);

/* Groups, sim_group.c. */
int group_run(sim_world *w);

/* What should have come to pass in some of the worlds run so far and did not;
   NULL: it all did.  print: shows how often each. */
const char *resume_unseen(int print);
const char *group_unseen(int print);

#endif
