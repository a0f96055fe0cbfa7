/*
 * The command lines of the programs here: a table of options and one parser,
 * which takes "--name value" and "--name=value".  What is wrong is said in one
 * line on stderr, and the program ends with 2.
 */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum option_type {
    OPTION_FLAG, /* int: 1 when given */
    OPTION_TEXT, /* const char * */
    OPTION_INT,  /* long; K and M behind it stand for 2^10 and 2^20 */
    OPTION_REAL  /* double */
};

typedef struct {
    const char *name;
    int type;
    void *to;
    double min, max;
    const char *help;
} option;

typedef struct {
    const char *program, *usage;
    const option *table;
    size_t count;
    const char **rest; /* where one argument without a dash goes, or NULL */
} option_set;

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3), noreturn))
#endif
static inline void
options_fail(const option_set *set, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fprintf(stderr, "%s: ", set->program);
    vfprintf(stderr, format, list);
    fprintf(stderr, " (%s --help tells more)\n", set->program);
    va_end(list);
    exit(2);
}

static inline void options_help(const option_set *set)
{
    printf("usage: %s\n", set->usage);
    for (size_t i = 0; i < set->count; i++)
        printf("  --%-14s %s\n", set->table[i].name, set->table[i].help);
    exit(0);
}

static inline const option *options_find(const option_set *set,
                                         const char *name, size_t len)
{
    for (size_t i = 0; i < set->count; i++)
        if (strlen(set->table[i].name) == len &&
            memcmp(set->table[i].name, name, len) == 0)
            return &set->table[i];
    options_fail(set, "unknown option --%.*s", (int)len, name);
}

/* The number in text, with K or M behind it if that is allowed, or NAN. */
static inline double options_number(const char *text, int whole)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text)
        return NAN;
    if (whole && (*end == 'K' || *end == 'M'))
        value *= *end++ == 'K' ? 1024 : 1024 * 1024;
    return *end ? NAN : value;
}

static inline void options_set(const option_set *set, const option *o,
                               const char *text)
{
    double value;
    if (o->type == OPTION_TEXT) {
        *(const char **)o->to = text;
        return;
    }
    value = options_number(text, o->type == OPTION_INT);
    /* A NAN is in no range. */
    if (!(value >= o->min && value <= o->max) ||
        (o->type == OPTION_INT && value != (double)(long)value))
        options_fail(set, "--%s: '%s' is not a%s number from %.15g to %.15g",
                     o->name, text, o->type == OPTION_INT ? " whole" : "",
                     o->min, o->max);
    if (o->type == OPTION_INT)
        *(long *)o->to = (long)value;
    else
        *(double *)o->to = value;
}

/* Takes the option argv[i] and its value; returns how many arguments. */
static inline int options_take(const option_set *set, int left, char **argv)
{
    const char *name = argv[0] + 2;
    size_t len = strcspn(name, "=");
    const option *o;
    if (strcmp(name, "help") == 0)
        options_help(set);
    o = options_find(set, name, len);
    if (o->type == OPTION_FLAG) {
        if (name[len])
            options_fail(set, "--%s takes no value", o->name);
        *(int *)o->to = 1;
        return 1;
    }
    if (name[len]) {
        options_set(set, o, name + len + 1);
        return 1;
    }
    if (left < 2)
        options_fail(set, "--%s needs a value", o->name);
    options_set(set, o, argv[1]);
    return 2;
}

static inline void options_parse(const option_set *set, int argc, char **argv)
{
    int i = 1;
    while (i < argc) {
        if (strncmp(argv[i], "--", 2) == 0 && argv[i][2]) {
            i += options_take(set, argc - i, argv + i);
            continue;
        }
        if (!set->rest || *set->rest || argv[i][0] == '-')
            options_fail(set, "what is '%s'?", argv[i]);
        *set->rest = argv[i++];
    }
}

#endif
