/* There is none: the case that asks for it is left out. */
#define REG_EXTENDED 0
#define REG_NOSUB 0
typedef int regex_t;
static inline int regcomp(regex_t *r, const char *text, int flags)
{
    (void)text;
    return *r = flags, -1;
}
#define regexec(r, text, n, at, flags) ((void)(r), (void)(text), -1)
#define regfree(r) ((void)(r))
