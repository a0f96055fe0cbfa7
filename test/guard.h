/*
 * Memory between two forbidden pages.  What is placed flush against either
 * end is read or written one byte too far only at the price of a crash.
 *
 *   guard g = guard_open(100);
 *   guard_first(&g)      the first byte; the one before it is forbidden
 *   guard_last(&g, n)    n bytes, the one behind them is forbidden
 *   guard_close(&g);
 *
 * Include it behind rtnet_internal.h, which asks for MAP_ANONYMOUS.
 */
#ifndef GUARD_H
#define GUARD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    uint8_t *map;
    size_t page, size; /* of one page; of what lies between the two */
} guard;

/* At least size bytes.  There is no test without them: the process ends. */
static inline guard guard_open(size_t size)
{
    guard g;
    void *map;
    g.page = (size_t)sysconf(_SC_PAGESIZE);
    g.size = (size + g.page - 1) / g.page * g.page;
    map = mmap(NULL, g.size + 2 * g.page, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g.map = (uint8_t *)map;
    if (map == MAP_FAILED ||
        mprotect(g.map + g.page, g.size, PROT_READ | PROT_WRITE) != 0) {
        perror("guard pages");
        exit(1);
    }
    return g;
}

static inline uint8_t *guard_first(const guard *g)
{
    return g->map + g->page;
}

static inline uint8_t *guard_last(const guard *g, size_t n)
{
    return g->map + g->page + g->size - n;
}

/* A copy of n bytes, flush against the forbidden page behind. */
static inline uint8_t *guard_copy(const guard *g, const void *from, size_t n)
{
    uint8_t *to = guard_last(g, n);
    if (n > 0)
        memcpy(to, from, n);
    return to;
}

/* A copy of a text and its NUL, flush likewise. */
static inline const char *guard_text(const guard *g, const char *text)
{
    return (const char *)guard_copy(g, text, strlen(text) + 1);
}

static inline void guard_close(guard *g)
{
    munmap(g->map, g->size + 2 * g->page);
    memset(g, 0, sizeof *g);
}

#endif
