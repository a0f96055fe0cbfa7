/* Options of a test program: --name N and --name. */
#ifndef ARGS_H
#define ARGS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Of --name N on the command line. */
static inline uint64_t option(int argc, char **argv, const char *name,
                              uint64_t none)
{
    int i;

    for (i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], name) == 0)
            return strtoull(argv[i + 1], NULL, 0);
    }
    return none;
}

static inline const char *word_option(int argc, char **argv, const char *name,
                                      const char *none)
{
    int i;

    for (i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    }
    return none;
}

static inline int flag(int argc, char **argv, const char *name)
{
    int i;

    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], name) == 0)
            return 1;
    }
    return 0;
}

/* With names among them: does the case's hold one of these? */
static inline int wanted(const char *name, int argc, char **argv)
{
    int i, names = 0;

    for (i = 1; i < argc; i++) {
        if (argv[i][0] == '-')
            continue;
        names++;
        if (strstr(name, argv[i]))
            return 1;
    }
    return !names;
}

#endif
