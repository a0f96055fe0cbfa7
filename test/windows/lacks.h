/*
 * Which cases of the tests cannot be on Windows, or under Wine, and why; for
 * TEST_LACKS of test.h.  A name stands for all cases whose names begin so.
 */
#ifndef WINDOWS_LACKS_H
#define WINDOWS_LACKS_H

#include <stddef.h>
#include <string.h>

static inline const char *windows_lacks(const char *name)
{
    static const char local[] = "on Windows, there are no local sockets";
    static const char files[] = "on Windows, nothing limits the files";
    static const char shuts[] = "under Wine, a reset comes behind an end";
    static const char slow[] = "under Wine, its deadline is too near";
    static const char *const known[][2] = {
        /* test_ws, test_threads, test_regressions, test_core */
        {"the_pages_around_the_input_are", "on Windows, there is no fork"},
        {"a_signal_handler_may_stop_the", "on Windows, none to a thread"},
        {"no_on_close_comes_without_an_on", "on Windows, there is no dup2"},
        {"a_page_that_is_read_slowly_is_not_cut", slow},
        {"the_last_page_is_not_cut_either", slow},
        {"descriptor_0_is_one", "on Windows, it is no descriptor"},
        {"opening a watch when any", "on Windows, no file can be watched"},
        {"opening a local listener when any", local},
        /* test_lifetime */
        {"a_close_lingers_until_flushed_and_answered", local},
        {"a_close_that_is_not_read_lingers_close_ms", local},
        {"a_close_long_after_a_turn_is_flushed", slow},
        /* test_conformance */
        {"a loop and its listeners with epoll", "on Windows, it is not there"},
        {"request/select/bytes [25] one of 8200 bytes", slow},
        /* test_metrics */
        {"want_of_descriptors_has_its_cause", files},
        {"sessions_end_evenly_over_the_window", slow},
        /* test_resume */
        {"a_ping_of_0_does_not_spin", slow},
        {"without_random_bytes_there_is_no_token, tcp", shuts},
        {"without_a_token_a_session_ends_with_its_line, tcp", shuts},
        {"without_rt_keep_it_ends_with_its_line", shuts},
        {"no_random_bytes_no_token", shuts},
        {"rt_keep_without_memory_changes_nothing", shuts},
        /* test_api */
        {"rt_stop_works_from_a_signal_handler", "on Windows, no such signal"},
        {"several_loops_share_a_port", "on Windows, a port has one owner"},
        {"a_local_socket_speaks", local},
        {"the_socket_of_a", local},
        {"a_file_that_is_no_socket_is_not_replaced", local},
        {"on_writable_waits_for_a_half_empty_queue", local},
        {"an_empty_queue_takes_one_message_of_any_size", local},
        {"above_the_hard_mark_the_session_ends", local},
        {"lost_counts_what_was_not_handed_over", local},
        {"a_droppable_message_is_skipped_above_the_soft_mark", local},
        {"the_latest_message_of_a_key_replaces_the_others", local},
        {"a_latest_message_that_was_begun_is_finished", local},
        {"too_many_keys_are_refused_and_end_nothing", local},
        {"what_may_be_dropped_ends_nothing_at_the_hard_mark", local},
        {"only_those_that_took_it_are_counted", local},
        {"the_heap_is_empty_when_the_loop_is_gone", local},
    };
    size_t i;
    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(name, known[i][0], strlen(known[i][0])) == 0)
            return known[i][1];
    return NULL;
}

#define TEST_LACKS(name) windows_lacks(name)

#endif
