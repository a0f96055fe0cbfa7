/*
 * Which cases of the tests cannot be on Windows, or under Wine, and why; for
 * TEST_LACKS of test.h.  A name stands for all cases whose names begin with it.
 */
#ifndef WINDOWS_LACKS_H
#define WINDOWS_LACKS_H

#include <stddef.h>
#include <string.h>

static inline const char *windows_lacks(const char *name)
{
    static const char local[] = "there are no local sockets";
    static const char files[] = "nothing limits the number of files";
    static const char shuts[] = "Wine shuts a socket down before it resets it";
    static const char *const known[][2] = {
        {"the_pages_around_the_input_are_forbidden", "there is no fork"},
        {"a_signal_handler_may_stop_the_loop", "no signal to a thread"},
        {"rt_stop_works_from_a_signal_handler", "there is no SIGALRM"},
        {"no_on_close_comes_without_an_on_open", "there is no dup2"},
        {"opening a watch when any", "a watch is one of a socket"},
        {"opening a local listener when any", local},
        {"a_close_lingers_until_flushed_and_answered", local},
        {"a_close_that_is_not_read_lingers_close_ms", local},
        {"a loop and its listeners with epoll", "there is no epoll"},
        {"want_of_descriptors_has_its_cause", files},
        {"refused_ones_give_their_descriptors", files},
        {"each_wrong_byte_of_a_line_is_seen", "there is no regex.h"},
        {"without_random_bytes_there_is_no_token, tcp", shuts},
        {"without_a_token_a_session_ends_with_its_line, tcp", shuts},
        {"without_rt_keep_it_ends_with_its_line", shuts},
        {"no_random_bytes_no_token", shuts},
        {"rt_keep_without_memory_changes_nothing", shuts},
    };
    size_t i;
    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(name, known[i][0], strlen(known[i][0])) == 0)
            return known[i][1];
    return NULL;
}

#define TEST_LACKS(name) windows_lacks(name)

#endif
