/*
 * A room, and a clock in it, with rt.hpp: what one says all hear, and every
 * second they are told how many they are.  use [PORT]
 */
#include "rt.hpp"
#include <cstdio>
#include <string>

static void serve(const std::string &url)
{
    rt::Loop loop;
    rt_group room = rt_group_open(loop.l.get(), "room", nullptr);
    rt::Server server;
    server.open = [room](rt::Session s) { rt_group_join(s.l, room, s.s); };
    server.message = [room](rt::Session s, std::string_view text, int kind) {
        rt_group_send(s.l, room, kind, text.data(), text.size());
    };
    rt::Timer clock(loop, [&] {
        rt_loop *l = loop.l.get();
        std::string count = std::to_string(rt_group_count(l, room));
        rt_group_send(l, room, RT_TEXT | rt_latest(1), count.data(),
                      count.size());
        clock.start(1000);
    });

    rt_listener at = server.listen(loop, url.c_str());
    clock.start(1000);
    std::printf("use: listening on port %d\n",
                rt_listener_port(loop.l.get(), at));
    std::fflush(stdout);
    loop.run();
}

int main(int argc, char **argv)
{
    try {
        serve(std::string("ws://:") + (argc > 1 ? argv[1] : "9000"));
    } catch (const std::exception &e) {
        std::fprintf(stderr, "use: %s\n", e.what());
        return 1;
    }
}
