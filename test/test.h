/*
 * The test harness.  A case is begun, checked and ended; a file is one process
 * that ends with test_done(), which prints "N passed, N failed, N skipped".
 *
 *   static void echo_returns_the_bytes(void) { CHECK(1 + 1 == 2); }
 *   int main(void) { RUN(echo_returns_the_bytes); return test_done(); }
 *
 * Tables open a case for each row: test_begin("row %d", i); ...; test_end();
 * Give names as arguments to run only the cases that contain one of them.
 */
#ifndef TEST_H
#define TEST_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What a system lacks for the case of that name, or NULL. */
#ifndef TEST_LACKS
#define TEST_LACKS(name) NULL
#endif

static int test_passed, test_failed, test_skipped;
static int test_bad;           /* checks that failed in the present case */
static const char *test_skip;  /* why the present case was skipped */
static const char *test_lacks; /* and why it is not even begun */
static char test_name[256];

static inline void test_begin(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(test_name, sizeof test_name, format, list);
    va_end(list);
    test_bad = 0;
    test_skip = test_lacks = TEST_LACKS(test_name);
}

static inline void test_end(void)
{
    if (test_bad && !test_lacks) {
        test_failed++;
        printf("FAIL %s\n", test_name);
    } else if (test_skip) {
        test_skipped++;
        printf("SKIP %s: %s\n", test_name, test_skip);
    } else {
        test_passed++;
    }
    fflush(stdout);
}

static inline int test_done(void)
{
    printf("%d passed, %d failed, %d skipped\n", test_passed, test_failed,
           test_skipped);
    return test_failed != 0;
}

static inline void test_check(int ok, const char *file, int line,
                              const char *what)
{
    if (ok)
        return;
    if (test_bad++ < 5)
        printf("%s:%d: %s: not true: %s\n", file, line, test_name, what);
}

static inline void test_equal(long long got, long long want, const char *file,
                              int line, const char *what)
{
    if (got == want)
        return;
    if (test_bad++ < 5)
        printf("%s:%d: %s: %s is %lld, not %lld\n", file, line, test_name, what,
               got, want);
}

#define CHECK(what) test_check(!!(what), __FILE__, __LINE__, #what)
#define EQUAL(got, want)                                                       \
    test_equal((long long)(got), (long long)(want), __FILE__, __LINE__, #got)
#define SKIP(why) (test_skip = (why))
#define RUN(name)                                                              \
    (test_begin("%s", #name), test_lacks ? (void)0 : name(), test_end())

#endif
