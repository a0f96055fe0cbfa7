/* There is no such timer, and no signal of it. */
#include "../posix.h"

struct itimerval {
    struct timeval it_interval, it_value;
};
enum { ITIMER_REAL };
#define setitimer(which, now, was) ((void)(now), posix_lacking())

struct sigaction {
    void (*sa_handler)(int);
    int sa_mask;
};
#define sigemptyset(set) (*(set) = 0)
#define sigaction(number, now, was) ((void)(now), (void)(was), posix_lacking())
