#define _XOPEN_SOURCE 700 /* strdup, opendir */

/*
 * Plays test cases without a fuzzer.
 *
 *   replay [DIRECTORY|FILE]...   each file is a case; also cut short by its
 *                                last bytes, in some places
 *   replay --events              cases come on stdin, each behind its length
 *                                in 4 bytes, big-endian; what was told goes to
 *                                stdout, with an empty line behind it
 */
#include "fuzz.h"
#include "test/args.h"
#include "test/test.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { MOST = 1 << 20 };
static uint8_t data[MOST];
static int files;

static void play(const char *name, const uint8_t *p, size_t n)
{
    /* a copy of just that size, so that a sanitizer sees what lies behind */
    uint8_t *exact = malloc(n ? n : 1);

    memcpy(exact, p, n);
    test_begin("%s, %zu bytes", name, n);
    EQUAL(LLVMFuzzerTestOneInput(exact, n), 0);
    if (*fuzz_fault())
        printf("%s\n", fuzz_fault());
    test_end();
    free(exact);
}

static void file_play(const char *path)
{
    FILE *in = fopen(path, "rb");
    size_t n, cut;

    if (!in) {
        test_begin("%s", path);
        CHECK(in != NULL);
        test_end();
        return;
    }
    n = fread(data, 1, sizeof data, in);
    fclose(in);
    files++;
    play(path, data, n);
    for (cut = 1; cut < n; cut = 2 * cut + 1)
        play(path, data, n - cut);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In the order of their names, so that two runs are alike. */
static void directory_play(const char *path, DIR *dir)
{
    char *names[10000], whole[4096];
    struct dirent *e;
    size_t n = 0, i;

    while ((e = readdir(dir)) && n < 10000)
        if (e->d_name[0] != '.')
            names[n++] = strdup(e->d_name);
    qsort(names, n, sizeof *names, by_name);
    for (i = 0; i < n; i++) {
        snprintf(whole, sizeof whole, "%s/%s", path, names[i]);
        file_play(whole);
        free(names[i]);
    }
}

static void path_play(const char *path)
{
    DIR *dir = opendir(path);

    if (!dir) {
        file_play(path);
        return;
    }
    directory_play(path, dir);
    closedir(dir);
}

/* One case of a stream of them; 0 at its end. */
static int case_read(size_t *n)
{
    uint8_t head[4];

    if (fread(head, 1, 4, stdin) != 4)
        return 0;
    *n = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 |
         head[3];
    return *n <= sizeof data && fread(data, 1, *n, stdin) == *n;
}

static int events_tell(void)
{
    size_t n;

    while (case_read(&n)) {
        if (LLVMFuzzerTestOneInput(data, n))
            printf("fault %s\n", fuzz_fault());
        printf("%s\n", fuzz_events());
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    int i;

    fuzz_mild = 1;
    fuzz_once = flag(argc, argv, "--once");
    if (flag(argc, argv, "--events"))
        return events_tell();
    for (i = 1; i < argc; i++)
        if (strncmp(argv[i], "--", 2) != 0)
            path_play(argv[i]);
#ifdef CORPUS
    if (argc == 1)
        path_play(CORPUS);
#endif
    test_begin("there are cases");
    CHECK(files > 0);
    test_end();
    return test_done();
}
