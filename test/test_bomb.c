/*
 * The callback bomb: any call in any callback, on any object.
 *
 *   test_bomb                          each pair, and some worlds at random
 *   test_bomb --seeds N [--from S]     so many worlds at random
 *   test_bomb --seed S [--backend B] [--trace]
 *   test_bomb --pair PLACE:CALL:VARIANT [--backend B] [--trace]
 *                                      one, as a failure names it
 *   test_bomb --bytes FILE [--trace]   what the fuzz target "program" does
 *   test_bomb --found                  the small cases alone
 *   test_bomb --matrix                 how often each pair was made
 */
#include "bomb.h"

#include "args.h"
#include "backends.h"
#include "test.h"

#include "bomb_found.h"

#include <ctype.h>

/* ---- the tables are those of rtnet.h ------------------------------------ */

static char *header_read(void)
{
    FILE *f = fopen("rtnet.h", "r");
    char *text = calloc(1, 200000), *p;

    if (!f || !text || !fread(text, 1, 199999, f)) {
        if (f)
            fclose(f);
        free(text);
        return NULL;
    }
    fclose(f);
    for (p = text; (p = strstr(p, "/*")) != NULL;) /* comments go */
        while (p[0] && (p[0] != '*' || p[1] != '/' || p[-1] == '/'))
            *p++ = ' ';
    return text;
}

static int word_in(const char *word, size_t n, const char *const *list,
                   size_t count)
{
    size_t i;

    for (i = 0; i < count; i++) {
        if (strlen(list[i]) == n && strncmp(list[i], word, n) == 0)
            return 1;
    }
    return 0;
}

/* The name that is declared in a line: before its first parenthesis, if it is
   one of ours.  Returns its length. */
static size_t prototype_in(const char *line, const char **name)
{
    const char *end = strchr(line, '('), *at = end;

    if (!isalpha((unsigned char)*line) || !end)
        return 0;
    if (!strncmp(line, "static", 6) || !strncmp(line, "typedef", 7))
        return 0;
    while (at > line && (isalnum((unsigned char)at[-1]) || at[-1] == '_'))
        at--;
    *name = at;
    return strncmp(at, "rt_", 3) == 0 ? (size_t)(end - at) : 0;
}

/* A prototype begins in the first column. */
static void each_prototype_of_the_header_is_in_the_table(void)
{
    char *text = header_read(), *line;
    const char *name;
    int count = 0;
    size_t n;

    CHECK(text);
    for (line = text ? strtok(text, "\n") : NULL; line;
         line = strtok(NULL, "\n")) {
        if (!(n = prototype_in(line, &name)))
            continue;
        count++;
        if (!word_in(name, n, bomb_names, BOMB_COUNT))
            printf("not in the table: %.*s\n", (int)n, name);
        CHECK(word_in(name, n, bomb_names, BOMB_COUNT));
    }
    EQUAL(count, BOMB_COUNT);
    free(text);
}

#define PLACE_OF(name, of) of,
#define MUTE_NAME(name) #name,

/* What the library may run: "(*name)(". */
static void each_callback_of_the_header_is_a_place(void)
{
    static const char *const of[] = {BOMB_PLACES(PLACE_OF)};
    static const char *const mute[] = {BOMB_MUTE(MUTE_NAME)};
    char *text = header_read(), *p;
    int count = 0;

    CHECK(text);
    for (p = text; p && (p = strstr(p, "(*")) != NULL; p += 2) {
        size_t n = strcspn(p + 2, ")");
        count++;
        if (!word_in(p + 2, n, of, LENGTH(of)) &&
            !word_in(p + 2, n, mute, LENGTH(mute)))
            printf("no place: %.*s\n", (int)n, p + 2);
        CHECK(word_in(p + 2, n, of, LENGTH(of)) ||
              word_in(p + 2, n, mute, LENGTH(mute)));
    }
    CHECK(count > 25);
    free(text);
}

/* ---- the worlds --------------------------------------------------------- */

static int backend_of(uint64_t seed)
{
    if (seed % 4 == 0)
        return RT_SELECT;
    return seed % 4 != 1 && backend_there(RT_KQUEUE) ? RT_KQUEUE : RT_EPOLL;
}

/* Who is told that all is drained finds no request left to read. */
static int impossible(int at, int call)
{
    return at == AT_drained &&
           (call == BOMB_rt_header || call == BOMB_rt_query);
}

/* Where it must be: each call in each place. */
static void pairs_run(int variants)
{
    int at, call, variant;

    for (at = 0; at < AT_COUNT; at++) {
        test_begin("any call in %s", bomb_places[at]);
        for (call = 0; call < BOMB_COUNT; call++)
            for (variant = 0; variant < variants && !impossible(at, call);
                 variant++)
                EQUAL(bomb_pair((enum bomb_place)at, (enum bomb_call)call,
                                variant, backend_of((uint64_t)call + 1), 0),
                      0);
        test_end();
    }
}

static void worlds_run(uint64_t first, uint64_t count)
{
    uint64_t seed;

    for (seed = first; seed < first + count; seed++) {
        test_begin("world %llu", (unsigned long long)seed);
        EQUAL(bomb_run(seed, backend_of(seed), 0, NULL), 0);
        test_end();
    }
}

static void a_seed_repeats_a_world(void)
{
    uint64_t a, b, c;

    bomb_run(7, RT_EPOLL, 0, &a);
    bomb_run(7, RT_EPOLL, 0, &b);
    bomb_run(11, RT_EPOLL, 0, &c);
    CHECK(a == b);
    CHECK(a != c);
}

static void bytes_repeat_a_world(void)
{
    uint8_t bytes[4000];
    uint64_t a, b, c;
    size_t i;

    for (i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * i % 251 + i / 100);
    EQUAL(bomb_run_bytes(bytes, sizeof bytes, 0, &a), 0);
    EQUAL(bomb_run_bytes(bytes, sizeof bytes, 0, &b), 0);
    EQUAL(bomb_run_bytes(bytes, 2000, 0, &c), 0);
    CHECK(a == b);
    CHECK(a != c);
}

static void each_call_was_made_in_each_callback(void)
{
    int at, call;

    for (at = 0; at < AT_COUNT; at++)
        for (call = 0; call < BOMB_COUNT; call++) {
            if (bomb_matrix[at][call] || impossible(at, call))
                continue;
            printf("never made: %s in %s\n", bomb_names[call], bomb_places[at]);
            CHECK(0);
        }
}

static void matrix_print(void)
{
    int at, call;

    for (call = 0; call < BOMB_COUNT; call++) {
        printf("%-20s", bomb_names[call]);
        for (at = 0; at < AT_COUNT; at++)
            printf(" %llu", (unsigned long long)bomb_matrix[at][call]);
        printf("\n");
    }
}

/* ---- the program -------------------------------------------------------- */

static int index_of(const char *name, size_t n, const char *const *list,
                    int count)
{
    int i;

    for (i = 0; i < count; i++)
        if (strlen(list[i]) == n && strncmp(list[i], name, n) == 0)
            return i;
    printf("unknown: %.*s\n", (int)n, name);
    exit(2);
}

static int pair_replay(int argc, char **argv, const char *pair)
{
    size_t n = strcspn(pair, ":"), k = strcspn(pair + n + 1, ":");
    int at = index_of(pair, n, bomb_places, AT_COUNT);
    int call = index_of(pair + n + 1, k, bomb_names, BOMB_COUNT);
    int backend = (int)option(argc, argv, "--backend", (uint64_t)backend_of(1));

    return bomb_pair((enum bomb_place)at, (enum bomb_call)call,
                     atoi(pair + n + 1 + k + 1), backend,
                     flag(argc, argv, "--trace")) != 0;
}

static int bytes_replay(const char *path, int trace)
{
    static uint8_t bytes[1 << 16];
    FILE *f = fopen(path, "rb");
    size_t n;

    if (!f) {
        printf("%s cannot be read\n", path);
        return 2;
    }
    n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    return bomb_run_bytes(bytes, n, trace, NULL) != 0;
}

static int seed_replay(int argc, char **argv)
{
    uint64_t seed = option(argc, argv, "--seed", 1), digest;
    int backend =
        (int)option(argc, argv, "--backend", (uint64_t)backend_of(seed));
    int faults = bomb_run(seed, backend, flag(argc, argv, "--trace"), &digest);

    printf("%d faults, digest %016llx\n", faults, (unsigned long long)digest);
    return faults != 0;
}

int main(int argc, char **argv)
{
    const char *pair = word_option(argc, argv, "--pair", NULL);
    const char *bytes = word_option(argc, argv, "--bytes", NULL);

    if (pair)
        return pair_replay(argc, argv, pair);
    if (bytes)
        return bytes_replay(bytes, flag(argc, argv, "--trace"));
    if (flag(argc, argv, "--seed"))
        return seed_replay(argc, argv);
    if (flag(argc, argv, "--found")) {
        found_run();
        return test_done();
    }
    if (!flag(argc, argv, "--seeds")) {
        found_run();
        RUN(each_prototype_of_the_header_is_in_the_table);
        RUN(each_callback_of_the_header_is_a_place);
        RUN(a_seed_repeats_a_world);
        RUN(bytes_repeat_a_world);
        pairs_run(VARIANTS);
        RUN(each_call_was_made_in_each_callback);
    }
    worlds_run(option(argc, argv, "--from", 1),
               option(argc, argv, "--seeds", 200));
    if (flag(argc, argv, "--matrix"))
        matrix_print();
    return test_done();
}
