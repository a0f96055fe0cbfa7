/*
 * rtnet from C++17, in one header: a loop that frees itself, callbacks that
 * are any callable, errors that are exceptions.  Copy it, and add what you
 * miss; every call of rtnet.h works beside it.
 *
 *   rt::Loop loop;
 *   rt::Server server;
 *   server.message = [](rt::Session s, std::string_view text, int kind) {
 *       s.send(kind, text);
 *   };
 *   server.listen(loop, "ws://:9000");
 *   loop.run();
 *
 * No exception passes through rtnet's own frames: what a callback throws is
 * kept, the loop stops, and run or poll throws it again.
 */
#ifndef RT_HPP
#define RT_HPP

#include "rtnet.h"

#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace rt
{

/* What a call of rtnet answered: code is one of rt_errors. */
struct Error : std::runtime_error {
    explicit Error(int number)
        : std::runtime_error(rt_strerror(number)), code(number)
    {
    }
    Error(int number, const char *text) : std::runtime_error(text), code(number)
    {
    }
    int code;
};

/* A handle with its loop: a value, safe to keep as long as the loop lives. */
struct Session {
    rt_loop *l;
    rt_session s;

    int send(int kind, std::string_view data) const
    {
        return rt_send(l, s, kind, data.data(), data.size());
    }
    int text(std::string_view data) const
    {
        return send(RT_TEXT, data);
    }
    int close(int code = 0, const char *reason = nullptr) const
    {
        return rt_close(l, s, code, reason);
    }
    friend bool operator==(Session a, Session b)
    {
        return a.l == b.l && a.s.id == b.s.id;
    }
};

/* What a listener or a dialled session tells; any may be left empty. */
struct Handler {
    std::function<int(Session, const rt_request &)> request;
    std::function<void(Session)> open;
    std::function<void(Session, std::string_view data, int kind)> message;
    std::function<void(Session)> writable, away;
    std::function<void(Session, uint64_t lost)> back;
    std::function<void(Session, const rt_end &)> close;
};

class Loop
{
    /* As rtnet copies its options, so are handlers: that of a listener stays
       as long as the loop, that of a dialled session until its close. */
    struct Kept {
        Handler on;
        Loop *loop;
        bool dialled;
    };
    struct Free {
        void operator()(rt_loop *loop) const
        {
            rt_loop_free(loop);
        }
    };
    std::map<const void *, std::unique_ptr<Kept>> kept;
    std::exception_ptr thrown;
    bool running = false;

  public:
    explicit Loop(const rt_loop_opts *opts = nullptr) : l(rt_loop_new(opts))
    {
        if (!l)
            throw std::bad_alloc();
    }
    Loop(const Loop &) = delete;
    Loop &operator=(const Loop &) = delete;

    /* Turns until rt_stop. */
    void run()
    {
        running = true;
        int result = rt_run(l.get());
        running = false;
        done(result);
    }
    /* One turn, as rt_poll. */
    int poll(int timeout_ms)
    {
        return done(rt_poll(l.get(), timeout_ms));
    }
    /* Runs a callback's work; what it throws stops the loop. */
    template <class Work> void guard(Work work) noexcept
    {
        try {
            work();
        } catch (...) {
            thrown = std::current_exception();
            if (running)
                rt_stop(l.get());
        }
    }

    rt_listener listen(const char *url, Handler on, rt_listen_opts opts = {})
    {
        bind(opts, Kept{std::move(on), this, false});
        rt_listener made = rt_listen(l.get(), url, &opts);
        return made.id ? made : throw refused(opts.user);
    }
    Session dial(const char *url, Handler on, rt_dial_opts opts = {})
    {
        bind(opts, Kept{std::move(on), this, true});
        rt_session made = rt_dial(l.get(), url, &opts);
        return made.id ? Session{l.get(), made} : throw refused(opts.user);
    }

    std::unique_ptr<rt_loop, Free> l;

  private:
    int done(int result)
    {
        if (thrown)
            std::rethrow_exception(std::exchange(thrown, nullptr));
        return result < 0 ? throw Error(result) : result;
    }
    Error refused(const void *user)
    {
        const char *text = "";
        int number = rt_error(l.get(), &text);
        kept.erase(user);
        return Error(number, text);
    }

    /* Calls the member of the session's handler, if it is there. */
    template <class Member, class... Args>
    static void tell(Member member, rt_loop *l, rt_session s, Args... args)
    {
        Kept *k = static_cast<Kept *>(rt_context(l, s));
        k->loop->guard([&] {
            if (k->on.*member)
                (k->on.*member)(Session{l, s}, args...);
        });
    }
    static int ask(rt_loop *l, rt_session s, const rt_request *r) noexcept
    {
        Kept *k = static_cast<Kept *>(rt_context(l, s));
        int answer = 500;
        k->loop->guard([&] { answer = k->on.request(Session{l, s}, *r); });
        return answer;
    }
    template <class Opts> void bind(Opts &opts, Kept what)
    {
        opts.on.open = [](rt_loop *loop, rt_session s) noexcept {
            tell(&Handler::open, loop, s);
        };
        opts.on.message = [](rt_loop *loop, rt_session s, int kind,
                             const void *data, size_t len) noexcept {
            std::string_view text(static_cast<const char *>(data), len);
            tell(&Handler::message, loop, s, text, kind);
        };
        opts.on.writable = [](rt_loop *loop, rt_session s) noexcept {
            tell(&Handler::writable, loop, s);
        };
        opts.on.away = [](rt_loop *loop, rt_session s) noexcept {
            tell(&Handler::away, loop, s);
        };
        opts.on.back = [](rt_loop *loop, rt_session s, uint64_t lost) noexcept {
            tell(&Handler::back, loop, s, lost);
        };
        opts.on.close = [](rt_loop *loop, rt_session s,
                           const rt_end *why) noexcept {
            Kept *k = static_cast<Kept *>(rt_context(loop, s));
            tell(&Handler::close, loop, s, std::cref(*why));
            if (k->dialled)
                k->loop->kept.erase(k);
        };
        opts.on.request = what.on.request ? ask : nullptr;
        auto made = std::make_unique<Kept>(std::move(what));
        opts.user = made.get();
        kept[opts.user] = std::move(made);
    }
};

/* A handler that can be filled in before it listens, or dials. */
struct Server : Handler {
    rt_listener listen(Loop &loop, const char *url,
                       const rt_listen_opts &opts = {}) const
    {
        return loop.listen(url, *this, opts);
    }
};
struct Client : Handler {
    Session dial(Loop &loop, const char *url,
                 const rt_dial_opts &opts = {}) const
    {
        return loop.dial(url, *this, opts);
    }
};

/* Runs work once after ms, unless it is destroyed, or started anew, before.
   work may start it again, but not destroy it. */
class Timer
{
    Loop &loop;
    std::function<void()> work;
    rt_timer timer{};

  public:
    Timer(Loop &of, std::function<void()> what)
        : loop(of), work(std::move(what))
    {
    }
    Timer(const Timer &) = delete;
    Timer &operator=(const Timer &) = delete;
    ~Timer()
    {
        stop();
    }
    void start(uint64_t ms)
    {
        rt_loop *l = loop.l.get();
        stop();
        timer = rt_timer_start(l, rt_session{}, rt_now(l) + ms, run, this);
        if (!timer.id)
            throw Error(rt_error(l, nullptr));
    }
    void stop()
    {
        rt_timer_stop(loop.l.get(), timer);
    }

  private:
    static void run(rt_loop *, void *arg) noexcept
    {
        Timer *t = static_cast<Timer *>(arg);
        t->loop.guard([t] { t->work(); });
    }
};

} // namespace rt

#endif
