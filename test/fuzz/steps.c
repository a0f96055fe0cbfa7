/* Counts the library's steps: its objects of the replay programs are compiled
   with -fsanitize-coverage=trace-pc, which calls this at each branch. */
#include "fuzz.h"

void __sanitizer_cov_trace_pc(void);

void __sanitizer_cov_trace_pc(void)
{
    fuzz_steps++;
}
