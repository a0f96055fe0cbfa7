#!/usr/bin/env python3
"""Compares two servers on the same work, in pairs: A B A B ...

  bench/pair.py            rtnet's servers against bench/limit, and rtnet.1
                           against plain WebSocket, a short table
  bench/pair.py --a 'build/echo_server --port {port}' \\
                --b 'build/limit echo --port {port}' --b-load=--raw \\
                -- --connections 100

What follows -- are rtload's options; --a-load and --b-load add some for one
side.  Each server runs on one processor, the load on another.  The rates of a
shared machine drift, so only the ratio A/B of the two runs of one round counts;
the median of all rounds is printed, and the spread.  A server must take {port}
and listen on 127.0.0.1.
"""
import argparse
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, process):
    for _ in range(100):
        if process.poll() is not None:
            sys.exit(f"pair.py: the server ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"pair.py: nobody listens on {port}")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pin(cpu):
    if cpu in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {cpu})


class Side:
    def __init__(self, command, load, options):
        self.port = free_port()
        self.load = load
        self.options = options
        self.rates, self.cpu = [], []
        words = shlex.split(command.replace("{port}", str(self.port)))
        self.process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL,
            preexec_fn=lambda: pin(options.server_cpu))
        wait_for(self.port, self.process)

    def run(self):
        o = self.options
        command = [o.rtload, f"ws://127.0.0.1:{self.port}/", "--json",
                   "--quiet", "--duration", str(o.duration),
                   "--warmup", str(o.warmup)] + self.load
        before = cpu_seconds(self.process.pid)
        done = subprocess.run(command, stdout=subprocess.PIPE,
                              preexec_fn=lambda: pin(o.load_cpu))
        if done.returncode:
            sys.exit(f"pair.py: {' '.join(command)} failed")
        result = json.loads(done.stdout)
        spent = cpu_seconds(self.process.pid) - before
        self.rates.append(result["per_s"])
        self.cpu.append(1e6 * spent / max(1, result["received"]))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def arguments():
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--a", help="command of the server")
    p.add_argument("--b", help="command of its reference")
    p.add_argument("--a-load", default="", help="rtload options for A alone")
    p.add_argument("--b-load", default="", help="rtload options for B alone")
    p.add_argument("--rounds", type=int, default=9,
                   help="pairs of runs")
    p.add_argument("--duration", type=float, default=2, help="seconds a run")
    p.add_argument("--warmup", type=float, default=0.5)
    p.add_argument("--rtload", default="build/rtload")
    p.add_argument("--server-cpu", type=int, default=0)
    p.add_argument("--load-cpu", type=int, default=1)
    p.add_argument("--json", action="store_true")
    o = p.parse_args(words[:cut])
    if (o.a is None) != (o.b is None):
        p.error("--a and --b go together")
    return o, words[cut + 1:]


def report(o, a, b):
    ratios = sorted(x / y for x, y in zip(a.rates, b.rates))
    result = {"ratio": statistics.median(ratios),
              "least": ratios[0], "greatest": ratios[-1], "ratios": ratios,
              "a_per_s": statistics.median(a.rates),
              "b_per_s": statistics.median(b.rates),
              "a_cpu_us": statistics.median(a.cpu),
              "b_cpu_us": statistics.median(b.cpu)}
    if o.json:
        print(json.dumps(result))
        return
    print("  A/B {ratio:.3f} ({least:.3f} to {greatest:.3f}); "
          "A {a_per_s:.0f}/s, {a_cpu_us:.2f} us; "
          "B {b_per_s:.0f}/s, {b_cpu_us:.2f} us".format(**result), flush=True)


def compare(o, load):
    sides = []
    try:
        for command, own in ((o.a, o.a_load), (o.b, o.b_load)):
            sides.append(Side(command, load + shlex.split(own), o))
        for _ in range(o.rounds):
            for side in sides:
                side.run()
        report(o, *sides)
    finally:
        for side in sides:
            side.stop()


# What is compared when nothing is named: a server, its limit, the load.
TABLE = (
    ("echo_server", "echo", ""),
    ("echo_server", "echo", "--connections 100"),
    ("echo_server", "wsecho", "--connections 100 --depth 32"),
    ("echo_server", "echo", "--connections 100 --depth 4 --size 16K"),
    ("echo_server --max-message 1M", "echo", "--connections 8 --size 1M"),
    ("fanout_server", "fanout", "--scenario fanout --connections 1000"),
    ("fanout_server", "fanoutc",
     "--scenario fanout --connections 1000 --depth 10"),
)

# The same, of what sessions that can resume cost.
RESUME_TABLE = (
    "--connections 100",
    "--connections 100 --depth 32",
    "--connections 100 --depth 4 --size 16K",
)


def main():
    o, load = arguments()
    if o.a:
        compare(o, load)
        return
    for server, limit, options in TABLE:
        o.a = f"build/{server} --port {{port}}"
        o.b = f"build/limit {limit} --port {{port}}"
        o.b_load = "--raw" if limit == "echo" else ""
        if not o.json:
            print(f"A: {server}, B: limit {limit}, {options or '1 connection'}",
                  flush=True)
        compare(o, shlex.split(options) + load)
    o.b = "build/echo_server --port {port}"
    o.a, o.a_load, o.b_load = o.b + " --resume 15000", "--resume", ""
    for options in RESUME_TABLE:
        if not o.json:
            print(f"A: echo_server, rtnet.1, B: plain, {options}", flush=True)
        compare(o, shlex.split(options) + load)


main()
