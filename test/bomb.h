/*
 * The callback bomb.  On the simulated kernel stands a world with everything
 * that rtnet.h knows: listeners of each kind, dialled sessions, strangers,
 * groups, timers, watches, posts, filters and hooks.  In each callback, and
 * between two turns, any call of the interface may be made, on any object,
 * living or not, with good arguments and bad ones.  What is drawn comes from
 * the one stream of choices, so that a seed or bytes repeat a world exactly.
 *
 * bomb_world.h: the objects as a model knows them, and what must be true;
 * bomb_calls.h: the calls; bomb_stage.h: callbacks, strangers and the tour.
 */
#ifndef BOMB_H
#define BOMB_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pipe2 */
#endif
#include "rtnet.h"
#include "sim.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Each prototype of rtnet.h. */
#define BOMB_CALLS(X)                                                          \
    X(rt_strerror)                                                             \
    X(rt_version)                                                              \
    X(rt_loop_new)                                                             \
    X(rt_loop_free)                                                            \
    X(rt_poll)                                                                 \
    X(rt_run)                                                                  \
    X(rt_stop)                                                                 \
    X(rt_post)                                                                 \
    X(rt_flush)                                                                \
    X(rt_now)                                                                  \
    X(rt_loop_fd)                                                              \
    X(rt_loop_timeout)                                                         \
    X(rt_loop_user)                                                            \
    X(rt_error)                                                                \
    X(rt_listen)                                                               \
    X(rt_listener_port)                                                        \
    X(rt_listener_fd)                                                          \
    X(rt_unlisten)                                                             \
    X(rt_dial)                                                                 \
    X(rt_resolved)                                                             \
    X(rt_accept)                                                               \
    X(rt_reply)                                                                \
    X(rt_request_of)                                                           \
    X(rt_header)                                                               \
    X(rt_query)                                                                \
    X(rt_context)                                                              \
    X(rt_user)                                                                 \
    X(rt_set_user)                                                             \
    X(rt_send)                                                                 \
    X(rt_send_many)                                                            \
    X(rt_push)                                                                 \
    X(rt_read)                                                                 \
    X(rt_close)                                                                \
    X(rt_drop)                                                                 \
    X(rt_kick)                                                                 \
    X(rt_bind)                                                                 \
    X(rt_find)                                                                 \
    X(rt_uid)                                                                  \
    X(rt_next_session)                                                         \
    X(rt_state)                                                                \
    X(rt_heard)                                                                \
    X(rt_rtt)                                                                  \
    X(rt_unsent)                                                               \
    X(rt_keep)                                                                 \
    X(rt_find_token)                                                           \
    X(rt_acked)                                                                \
    X(rt_adopt)                                                                \
    X(rt_group_open)                                                           \
    X(rt_group_find)                                                           \
    X(rt_group_close)                                                          \
    X(rt_group_name)                                                           \
    X(rt_group_user)                                                           \
    X(rt_group_join)                                                           \
    X(rt_group_join_from)                                                      \
    X(rt_group_leave)                                                          \
    X(rt_group_send)                                                           \
    X(rt_group_send_but)                                                       \
    X(rt_group_send_once)                                                      \
    X(rt_group_count)                                                          \
    X(rt_group_members)                                                        \
    X(rt_group_position)                                                       \
    X(rt_group_deliver)                                                        \
    X(rt_timer_start)                                                          \
    X(rt_timer_stop)                                                           \
    X(rt_watch_start)                                                          \
    X(rt_watch_set)                                                            \
    X(rt_watch_stop)                                                           \
    X(rt_metrics)                                                              \
    X(rt_observe)                                                              \
    X(rt_shutdown)                                                             \
    X(rt_tls_reload)

/* Where a call is made: the callbacks of rtnet.h that may make calls, those of
   dialled sessions apart, on_close inside rt_loop_free, and between two turns.
   Second: the callback's name in the header. */
#define BOMB_PLACES(X)                                                         \
    X(request, "request")                                                      \
    X(open, "open")                                                            \
    X(message, "message")                                                      \
    X(writable, "writable")                                                    \
    X(away, "away")                                                            \
    X(back, "back")                                                            \
    X(close, "close")                                                          \
    X(limit, "limit")                                                          \
    X(resume, "resume")                                                        \
    X(filter, "rt_filter")                                                     \
    X(dialled_open, "open")                                                    \
    X(dialled_message, "message")                                              \
    X(dialled_writable, "writable")                                            \
    X(dialled_away, "away")                                                    \
    X(dialled_back, "back")                                                    \
    X(dialled_close, "close")                                                  \
    X(event, "event")                                                          \
    X(timer, "fn")                                                             \
    X(owned_timer, "fn")                                                       \
    X(watch, "fn")                                                             \
    X(post, "fn")                                                              \
    X(resolve, "resolve")                                                      \
    X(group_first, "group_first")                                              \
    X(group_last, "group_last")                                                \
    X(group_out, "group_out")                                                  \
    X(push_miss, "push_miss")                                                  \
    X(group_evict, "group_evict")                                              \
    X(drained, "drained")                                                      \
    X(close_in_free, "close")                                                  \
    X(between, "")

/* The header says that these make no call, or (a codec's, and sni) gives them
   no loop to make one with. */
#define BOMB_MUTE(X)                                                           \
    X(log)                                                                     \
    X(realloc)                                                                 \
    X(random)                                                                  \
    X(metrics)                                                                 \
    X(decode)                                                                  \
    X(head)                                                                    \
    X(beat)                                                                    \
    X(bye)                                                                     \
    X(sni)

#define BOMB_ENUM(name) BOMB_##name,
#define BOMB_PLACE_ENUM(name, of) AT_##name,
enum bomb_call { BOMB_CALLS(BOMB_ENUM) BOMB_COUNT };
enum bomb_place { BOMB_PLACES(BOMB_PLACE_ENUM) AT_COUNT };
#undef BOMB_ENUM
#undef BOMB_PLACE_ENUM

#define BOMB_NAME(name) #name,
#define BOMB_PLACE_NAME(name, of) #name,
static const char *const bomb_names[] = {BOMB_CALLS(BOMB_NAME)};
static const char *const bomb_places[] = {BOMB_PLACES(BOMB_PLACE_NAME)};
#undef BOMB_NAME
#undef BOMB_PLACE_NAME

/* How often each call was made at each place, in all worlds so far. */
static uint64_t bomb_matrix[AT_COUNT][BOMB_COUNT];

#include "bomb_world.h"

#include "bomb_calls.h"

#include "bomb_stage.h"

#endif
