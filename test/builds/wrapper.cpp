/*
 * examples/rt.hpp: what it adds to rtnet.h.  A server and its client share one
 * loop; nobody waits longer than some seconds.
 */
#include "rt.hpp"
#include "test.h"
#include <string>

/* A server on any free port, and where it is. */
static std::string listen_to(rt::Loop &loop, const rt::Server &server)
{
    rt_listener at = server.listen(loop, "ws://127.0.0.1:0");
    return "ws://127.0.0.1:" +
           std::to_string(rt_listener_port(loop.l.get(), at)) + "/";
}

static rt::Server echo_server()
{
    rt::Server server;
    server.message = [](rt::Session s, std::string_view text, int kind) {
        s.send(kind, text);
    };
    return server;
}

/* Turns until it is true, for at most two seconds. */
template <class Condition> static bool wait_for(rt::Loop &loop, Condition is)
{
    uint64_t end = rt_now(loop.l.get()) + 2000;
    while (!is() && rt_now(loop.l.get()) < end)
        loop.poll(10);
    return is();
}

static void an_echo_comes_back_with_its_bytes_and_its_kind()
{
    rt::Loop loop;
    rt::Client client;
    std::string heard;
    int kinds = 0;
    client.open = [](rt::Session s) {
        s.text("one");
        s.send(RT_BINARY, std::string_view("t\0o", 3));
    };
    client.message = [&](rt::Session s, std::string_view text, int kind) {
        heard += text;
        kinds = kinds * 10 + kind;
        if (kinds > 10)
            rt_stop(s.l);
    };
    client.dial(loop, listen_to(loop, echo_server()).c_str());
    loop.run();
    CHECK(heard == std::string("onet\0o", 6));
    EQUAL(kinds, RT_TEXT * 10 + RT_BINARY);
}

static void what_a_callback_throws_comes_out_of_run_and_of_poll()
{
    rt::Loop loop;
    rt::Client client;
    int thrown = 0;
    client.open = [](rt::Session s) {
        s.text("x");
        throw std::runtime_error("open");
    };
    client.message = [](rt::Session, std::string_view, int) { throw 7; };
    client.dial(loop, listen_to(loop, echo_server()).c_str());
    try {
        loop.run();
    } catch (const std::runtime_error &e) {
        thrown += e.what() == std::string("open");
    }
    try {
        wait_for(loop, [] { return false; });
    } catch (int seven) {
        thrown += seven == 7;
    }
    EQUAL(thrown, 2);
}

static void a_loop_turns_on_after_an_exception()
{
    rt::Loop loop;
    rt::Timer bad(loop, [] { throw 1; });
    rt::Timer good(loop, [&] { rt_stop(loop.l.get()); });
    int thrown = 0;
    bad.start(0);
    try {
        wait_for(loop, [] { return false; });
    } catch (int) {
        thrown = 1;
    }
    uint64_t from = rt_now(loop.l.get());
    good.start(30);
    loop.run();
    EQUAL(thrown, 1);
    CHECK(rt_now(loop.l.get()) >= from + 30);
}

static void a_url_that_is_none_is_an_exception_with_a_text()
{
    rt::Loop loop;
    int caught = 0;
    try {
        rt::Server().listen(loop, "gopher://nowhere");
    } catch (const rt::Error &e) {
        caught += e.code == RT_EINVAL && *e.what();
    }
    try {
        rt::Client().dial(loop, "gopher://nowhere");
    } catch (const rt::Error &e) {
        caught += e.code == RT_EINVAL && *e.what();
    }
    EQUAL(caught, 2);
}

static void a_request_is_answered_with_the_status_returned()
{
    rt::Loop loop;
    rt::Server server;
    rt::Client client;
    std::string path;
    int code = 0;
    server.request = [&](rt::Session, const rt_request &r) {
        path = r.path;
        return 403;
    };
    client.close = [&](rt::Session, const rt_end &why) { code = why.code; };
    client.dial(loop, listen_to(loop, server).c_str());
    CHECK(wait_for(loop, [&] { return code != 0; }));
    CHECK(path == "/");
    EQUAL(code, 1006);
}

static void a_handler_ends_with_its_dialled_session_or_its_loop()
{
    auto mark = std::make_shared<int>(0);
    {
        rt::Loop loop;
        rt::Server server;
        rt::Client client;
        server.close = [mark](rt::Session, const rt_end &) { ++*mark; };
        client.open = [mark](rt::Session s) { s.close(); };
        client.dial(loop, listen_to(loop, server).c_str());
        EQUAL(mark.use_count(), 5); /* here, and in two copies of each */
        client = rt::Client();
        server = rt::Server();
        CHECK(wait_for(loop, [&] { return *mark == 1; }));
        EQUAL(mark.use_count(), 2);
    }
    EQUAL(mark.use_count(), 1);
}

static void the_end_of_a_loop_is_told_and_may_throw()
{
    int closed = 0, opened = 0;
    {
        rt::Loop loop;
        rt::Client client;
        client.open = [&](rt::Session) { opened++; };
        client.close = [&](rt::Session, const rt_end &why) {
            closed += why.cause == RT_BY_LOOP;
            throw 1;
        };
        client.dial(loop, listen_to(loop, echo_server()).c_str());
        CHECK(wait_for(loop, [&] { return opened == 1; }));
    }
    EQUAL(closed, 1);
}

static void a_timer_stops_with_its_scope_and_may_go_on()
{
    rt::Loop loop;
    int ran = 0, never = 0;
    rt::Timer timer(loop, [&] {
        if (++ran < 3)
            timer.start(1);
    });
    timer.start(1000000);
    timer.start(1);
    {
        rt::Timer scoped(loop, [&] { never++; });
        scoped.start(1);
    }
    CHECK(wait_for(loop, [&] { return ran == 3; }));
    EQUAL(never, 0);
}

int main()
{
    RUN(an_echo_comes_back_with_its_bytes_and_its_kind);
    RUN(what_a_callback_throws_comes_out_of_run_and_of_poll);
    RUN(a_loop_turns_on_after_an_exception);
    RUN(a_url_that_is_none_is_an_exception_with_a_text);
    RUN(a_request_is_answered_with_the_status_returned);
    RUN(a_handler_ends_with_its_dialled_session_or_its_loop);
    RUN(the_end_of_a_loop_is_told_and_may_throw);
    RUN(a_timer_stops_with_its_scope_and_may_go_on);
    return test_done();
}
