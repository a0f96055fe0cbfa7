/* The libc answers SIG_ERR for those that it does not know. */
#include_next <signal.h>
#ifndef SIGPIPE
#define SIGPIPE 13
#define SIGBUS 7
#define SIGUSR1 10
#define SIGALRM 14
#endif
