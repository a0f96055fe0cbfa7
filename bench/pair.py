#!/usr/bin/env python3
"""Compares two servers on the same work, in pairs: A B A B ...

  bench/pair.py --a 'build/echo_server --port {port}' \\
                --b 'build/limit echo --port {port}' --b-load=--raw \\
                -- --connections 100

What follows -- are rtload's options; --a-load and --b-load add some for one
side.  Each server runs on one processor, the load on another.  The rates of a
shared machine drift, so only the ratio A/B of the two runs of one round counts;
the median of all rounds is printed, and the spread.  A server must take {port}
and listen on 127.0.0.1.  (make bench compares rtnet with its limit.)
"""
import argparse
import json
import shlex
import statistics
import sys

from rounds import Broken, Place, Servers, alternate, ratios, spread


def arguments():
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--a", required=True, help="command of the server")
    p.add_argument("--b", required=True, help="command of its reference")
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
    return p.parse_args(words[:cut]), words[cut + 1:]


def column(runs, name, member):
    return [run[member] for run in runs[name]]


def report(o, runs):
    rates = {name: column(runs, name, "per_s") for name in runs}
    each = ratios(rates, "a", "b")
    result = {"ratio": statistics.median(each), **spread(each),
              "ratios": sorted(each)}
    del result["median"]
    for name in runs:
        result[f"{name}_per_s"] = statistics.median(rates[name])
        result[f"{name}_cpu_us"] = statistics.median(
            column(runs, name, "server_cpu_us"))
    if o.json:
        print(json.dumps(result))
        return
    print("  A/B {ratio:.3f} ({least:.3f} to {greatest:.3f}); "
          "A {a_per_s:.0f}/s, {a_cpu_us:.2f} us; "
          "B {b_per_s:.0f}/s, {b_cpu_us:.2f} us".format(**result), flush=True)


def main():
    o, load = arguments()
    words = ["--duration", str(o.duration), "--warmup", str(o.warmup), *load]
    own = {"a": shlex.split(o.a_load), "b": shlex.split(o.b_load)}
    place = Place(o.rtload, o.server_cpu, o.load_cpu)
    try:
        with Servers(place, {"a": o.a, "b": o.b}) as servers:
            report(o, alternate(servers, o.rounds, lambda name, server:
                                server.load(words + own[name])))
    except Broken as e:
        sys.exit(f"pair.py: {e}")


main()
