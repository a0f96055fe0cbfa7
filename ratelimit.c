/*
 * Leaky buckets: values and integer arithmetic, the time passed in.  (The
 * limits of part 3 of the plan come here; nothing calls this file yet.)
 */
#include "rtnet.h"
