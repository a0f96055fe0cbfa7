#!/usr/bin/env python3
"""Measures rtnet against its goals: make bench, make bench-peers.

Each row of the table below is one goal.  Where it is a ratio, the server and
the limit (bench/limit.c) run the same work in turn, A B A B, one processor for
the servers and one for the load, and the median of the ratios counts.  A goal
is met when the median of at least 9 rounds reaches it, or, where their spread
covers it, when the medians of two of three such series do.

Everything that was measured goes to build/bench.json, and into pictures in
build/bench/.  A goal that is missed is no failure; what could not be run is.
"""
import argparse
import dataclasses
import datetime
import json
import os
import platform
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import time

import picture
import rounds
from rounds import Broken, Place, Server, Servers, alternate, ratios, spread

MANY, MOST = 10000, 19000  # connections
FEW, QUICK_MOST = 1000, 2000  # the same, of QUICK=1
ENOUGH = 9  # rounds, for a verdict


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table, as it is measured and judged."""
    name: str
    title: str      # {many}: as many connections as there are
    kind: str       # the function that measures it, at the end of this file
    goal: float = None
    at_most: bool = False  # the goal, not at least
    unit: str = ""         # what value and goal are, "" for a ratio
    limit: str = "echo"    # which of bench/limit.c
    server: str = "echo"
    load: str = ""         # for rtload
    options: str = ""      # for the server that is measured
    congestion: str = ""   # on all sides; "" for the system's
    seconds: float = 0.8   # of a run


ROWS = (
    Row("echo100", "echo, 100 connections", "rate", 0.97,
        load="--connections 100"),
    Row("echo10000", "echo, {many} connections", "rate", 0.97,
        load="--connections {many}", seconds=1),
    Row("echo32", "echo, 100 connections x 32 in flight", "rate", 0.95,
        limit="wsecho", load="--connections 100 --depth 32"),
    Row("echo16k", "echo of 16 KiB, 100 x 4", "rate", 0.95,
        load="--connections 100 --depth 4 --size 16K"),
    Row("echo1m", "echo of 1 MiB, 8 connections, cubic", "rate", 0.97,
        load="--connections 8 --size 1M", options="--max-message 1M",
        congestion="cubic"),
    Row("fanout1000", "fan-out to 1,000, one message", "rate", 0.97,
        server="fanout", limit="fanout",
        load="--scenario fanout --connections 1000"),
    Row("fanout1000x10", "fan-out to 1,000, ten in a turn", "rate", 0.97,
        server="fanout", limit="fanoutc",
        load="--scenario fanout --connections 1000 --depth 10"),
    Row("fanout10000x10", "fan-out to {many}, ten in a turn", "rate", 0.97,
        server="fanout", limit="fanoutc", seconds=1,
        load="--scenario fanout --connections {many} --depth 10"),
    Row("sparse", "10 of {many} connections active", "rate", 0.97,
        load="--scenario sparse --active 10 --connections {many}"),
    Row("storm", "handshakes", "rate", 1.1, limit="wsecho",
        load="--scenario storm --connections 50"),
    Row("calls_storm", "system calls per handshake", "calls", 8.5, True,
        "calls", limit="wsecho", load="--scenario storm --connections 50"),
    Row("calls1", "system calls per echo, 1 in flight", "calls", 2.02, True,
        "calls", limit="wsecho", load="--connections 100"),
    Row("calls32", "system calls per echo, 32 in flight", "calls", 0.07, True,
        "calls", limit="wsecho", load="--connections 100 --depth 32"),
    # 0.22 us where the limit takes 0.16: the machine is not always that one.
    Row("user", "user CPU per echo, of the limit's", "user", 1.375, True,
        limit="wsecho", load="--connections 100", seconds=1),
    Row("heap", "heap per idle WebSocket", "heap", 192, True, "bytes"),
    Row("idle", "anonymous memory per idle connection", "idle", 208, True,
        "bytes", load="--scenario idle --connections {many}"),
    Row("member", "heap per membership of {many}", "member", 24, True,
        "bytes"),
    Row("slow", "memory per lagging member and turn", "slow", 16, True,
        "bytes", server="fanout"),
    Row("rooms", "p99 of the seed's bar, {many} games", "rooms", 50, True, "ms",
        server="rooms"),
    Row("mixed", "arena traffic", "mixed", server="rooms"),
    Row("latency", "latency at a fixed rate", "latency", limit="wsecho",
        load="--connections 100"),
    Row("growth", "cost as connections grow", "growth", seconds=0.6),
)

RTNET = {"echo": "{build}/echo_server", "fanout": "{build}/fanout_server",
         "rooms": "{build}/rooms_server"}


class Skipped(Exception):
    """A row that cannot be measured here; the text says why."""


# ---- who takes part ---------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class Peer:
    """A server of others: a command with {port}, and {mode} for echo or
    fanout; without the latter it is one for echo alone."""
    name: str
    command: str
    congestion: bool = False  # takes --congestion

    def serves(self, row):
        known = row.server in ("echo", "fanout")
        return known and (row.server == "echo" or "{mode}" in self.command)


def peer_found(name, command, there, why):
    if not there:
        print(f"{name}: skipped, {why}")
        return []
    print(f"{name}: takes part")
    return [Peer(name, command, congestion=name == "lws")]


def peers_find(o):
    modules = "test/peers/node_modules"
    here = os.path.dirname(os.path.abspath(__file__))
    bun = shutil.which("bun") or shutil.which("bun", path=f"{modules}/.bin")
    found = peer_found(
        "lws", f"{o.build}/lws_server {{mode}} --port {{port}}",
        os.path.exists(f"{o.build}/lws_server"),
        "there is no libwebsockets (Debian: libwebsockets-dev)")
    found += peer_found(
        "ws", f"node {here}/peers/ws_server.mjs {{mode}} {{port}}",
        shutil.which("node") and os.path.isdir(f"{modules}/ws"),
        "there is no package ws in test/peers (npm ci)")
    found += peer_found(
        "bun", f"{bun} {here}/peers/bun_server.js {{mode}} {{port}}",
        bun, "there is no bun (in test/peers: npm install --no-save bun)")
    own = os.environ.get("PEER", "")
    if own and "{port}" not in own:
        own += " {port}"
    if not own:
        print("PEER: skipped, no command is given")
        return found
    return found + peer_found("PEER", own, True, "")


# ---- the bench --------------------------------------------------------------

class Bench:
    """What all rows share: options, who takes part, what has been found."""

    def __init__(self, o):
        self.o = o
        self.place = Place(f"{o.build}/rtload")
        self.peers = peers_find(o) if o.peers else []
        self.many = FEW if o.quick else MANY
        self.most = QUICK_MOST if o.quick else MOST
        self.began = time.monotonic()
        self.found = {}  # by the names of the rows
        self.notes = []

    def text(self, text):
        return text.replace("{many}", f"{self.many:,}")

    def seconds(self, seconds):
        return seconds / 4 if self.o.quick else seconds

    def words(self, row, name, seconds=None):
        """rtload's options for one side of a row."""
        load = row.load.replace("{many}", str(self.many))
        words = shlex.split(load) + [
            "--duration", str(self.seconds(seconds or row.seconds)),
            "--warmup", str(self.seconds(0.2)), "--timeout", "30"]
        if row.congestion:
            words += ["--congestion", row.congestion]
        return words + (["--raw"] if name == "limit" and row.limit == "echo"
                        else [])

    def commands(self, row, limit=True):
        """The servers of a row, rtnet's first."""
        cubic = f" --congestion {row.congestion}" if row.congestion else ""
        own = RTNET[row.server].replace("{build}", self.o.build)
        commands = {"rtnet": f"{own} --port {{port}} {row.options}{cubic}"}
        if limit:
            commands["limit"] = (f"{self.o.build}/limit {row.limit} "
                                 f"--port {{port}}{cubic}")
        for peer in self.peers:
            if not peer.serves(row):
                continue
            if cubic and not peer.congestion and congestion() != row.congestion:
                self.notes.append(f"{row.name}: without {peer.name}, which "
                                  f"cannot choose {row.congestion}")
                continue
            commands[peer.name] = (peer.command.replace("{mode}", row.server) +
                                   (cubic if peer.congestion else ""))
        return commands

    def paired(self, row, run, count=None, limit=True):
        """Alternating runs of all who take part in a row."""
        dropped = {peer.name: "" for peer in self.peers}
        with Servers(self.place, self.commands(row, limit)) as servers:
            figures = alternate(servers, count or self.o.rounds, run, dropped)
        self.notes += [f"{row.name}: without {name}: {why}"
                       for name, why in dropped.items() if why]
        return figures


def column(runs, member):
    return {name: [run[member] for run in each] for name, each in runs.items()}


def relative(figures):
    """All others as ratios to the limit, round by round."""
    return {name: ratios(figures, name, "limit")
            for name in figures if name != "limit"}


# ---- one function for each kind of row: values by name, and raw figures -----

def measure_rate(bench, row):
    runs = bench.paired(row, lambda name, server:
                        server.load(bench.words(row, name)))
    rates = column(runs, "per_s")
    note = f"{statistics.median(rates['rtnet']):,.0f}/s"
    if "{many}" not in row.load:  # else it is that of the handshakes
        cpu = {name: statistics.median(each) for name, each in
               column(runs, "server_cpu_us").items()}
        note += (f"; server CPU for each {cpu['rtnet']:.3g} us, limit "
                 f"{cpu['limit']:.3g} us")
    return relative(rates), runs, note


def calls_each(server, event, words):
    """What messages need: without what the same connections need when they
    send nothing."""
    idle = ["--scenario", "idle", "--duration", "0.1"]
    setting_up = rounds.calls(server, event, words + idle)[0]
    count, run = rounds.calls(server, event, words)
    return (count - setting_up) / run["received"]


def calls_whole(server, event, words):
    """All calls of a run, for each handshake."""
    count, run = rounds.calls(server, event, words)
    return count / run["received"]


def measure_calls(bench, row):
    event, why = rounds.calls_event()
    if not event:
        raise Skipped(why)
    each = calls_whole if row.name == "calls_storm" else calls_each
    figures = bench.paired(row, lambda name, server: each(
        server, event, bench.words(row, name)),
        1 if bench.o.quick else 3)
    limit = figures.pop("limit")
    return figures, {}, f"limit {statistics.median(limit):.3g}"


def user_each(server, words):
    with rounds.Samples(server) as samples:
        result = server.load(words)
    return samples.user_us() / result["received"]


def measure_user(bench, row):
    why = rounds.samples_why_not()
    if why:
        raise Skipped(why)
    each = bench.paired(row, lambda name, server:
                        user_each(server, bench.words(row, name)),
                        1 if bench.o.quick else None)
    middle = {name: statistics.median(each[name]) for name in each}
    return (relative(each), {"us": each},
            f"{middle['rtnet']:.3f} us, limit {middle['limit']:.3f} us")


def memory_program(bench):
    """bench/memory.c counts; once is enough for both rows that need it."""
    if "memory" not in bench.found:
        command = [f"{bench.o.build}/memory", "--connections",
                   str(bench.many)]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        except (OSError, subprocess.CalledProcessError) as e:
            raise Broken(str(e)) from e
        bench.found["memory"] = json.loads(done.stdout)
    return bench.found["memory"]


def measure_heap(bench, _):
    memory = memory_program(bench)
    note = (f"with its share of the loop {memory['idle_whole']:.0f}, after a "
            f"burst {memory['after_burst_each']:.0f}")
    return {"rtnet": [memory["idle_each"]]}, memory, note


def measure_member(bench, _):
    memory = memory_program(bench)
    note = f"with the group itself {memory['membership_whole']:.1f}"
    return {"rtnet": [memory["membership_each"]]}, memory, note


def measure_idle(bench, row):
    """A new server each time: memory that was used once is kept."""
    runs = {}
    for _ in range(3):
        for name, command in bench.commands(row, limit=False).items():
            with Servers(bench.place, {name: command}) as servers:
                pid = ["--pid", str(servers[name].pid)]
                runs.setdefault(name, []).append(
                    servers[name].load(bench.words(row, name) + pid))
    return column(runs, "anonymous_each"), runs, ""


def processor_share(server, load):
    """The share of a processor that the server takes while a load runs: the
    median of the second half of it, behind the opening."""
    samples, before = [], rounds.cpu_seconds(server.pid)
    clock = time.monotonic()
    while load.poll() is None:
        time.sleep(0.1)
        now, spent = time.monotonic(), rounds.cpu_seconds(server.pid)
        samples.append((spent - before) / (now - clock))
        before, clock = spent, now
    return statistics.median(samples[len(samples) // 2:])


def scheduled(bench, row, words, options=""):
    """One run on schedule against a new server."""
    command = bench.commands(row, limit=False)["rtnet"] + " " + options
    with Servers(bench.place, {"rtnet": command}) as servers:
        server = servers["rtnet"]
        load = server.start(words)
        share = processor_share(server, load)
        result = server.result(load)
    result["server_share"] = share
    return result


LAG_TURNS, LAG_S, LAG_FAST = 1600, 2, 10


def measure_slow(bench, row):
    """Members who read nothing while 100 KB are broadcast, one message a turn:
    what the server's memory grows by, but for the payload, which it needs once.
    Small buffers in the kernel, so that the lag is the server's to keep."""
    words = ["--scenario", "slow", "--connections", str(bench.many + LAG_FAST),
             "--slow", str(bench.many), "--rate", str(LAG_TURNS / LAG_S),
             "--duration", str(LAG_S), "--warmup", "0", "--timeout", "60",
             "--rcvbuf", "4096"]
    command = bench.commands(row, limit=False)["rtnet"] + " --sndbuf 4096"
    with Servers(bench.place, {"rtnet": command}) as servers:
        server = servers["rtnet"]
        run = server.load(words + ["--pid", str(server.pid)])
    if run["slow_dropped"] or run["unsent"]:
        raise Broken(f"{row.name}: {run['slow_dropped']} members were dropped,"
                     f" {run['unsent']} messages not sent")
    grown = run["anonymous_peak"] - run["anonymous_after"]
    each = (grown - run["sent"] * run["size"]) / run["slow"] / run["sent"]
    note = (f"{grown / 1e6:.1f} MB more for {run['slow']:,} members, "
            f"{run['sent']} turns")
    return {"rtnet": [each]}, run, note


def rooms_players(bench):
    """Four to each of 10,000 games, or as many as a process may open files."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = 4 * MANY if files == resource.RLIM_INFINITY else files - 200
    return min(4 * bench.many, most // 4 * 4)


def measure_rooms(bench, row):
    """The seed's bar.  Where there are fewer files than players, those that
    there are send more often: what the server has to do stays the same."""
    players, rate = rooms_players(bench), 8 * bench.many
    run = scheduled(bench, row, [
        "--scenario", "rooms", "--connections", str(players), "--room", "4",
        "--rate", str(rate), "--depth", "64", "--processes", "2", "--warmup",
        "2", "--duration", str(max(1, bench.seconds(5))), "--timeout", "30"])
    note = (f"{players:,} players, {rate / players:.1f} sends/s each, "
            f"{run['per_s']:,.0f} of {4 * rate:,} deliveries/s, "
            f"{100 * run['server_share']:.0f} % of a processor")
    if run["unsent"]:
        note += f", {run['unsent']:,} messages never sent: the rate is not kept"
    return {"rtnet": [run["latency_us"]["p99"] / 1000]}, run, note


def measure_mixed(bench, row):
    run = scheduled(bench, row, [
        "--scenario", "mixed", "--connections", "1000", "--room", "4",
        "--warmup", "1", "--duration", str(max(1, bench.seconds(3)))],
        "--tick 30 --snapshot 256")
    note = (f"1,000 players, 20 inputs and {run['snapshots_each_per_s']:.1f} "
            f"snapshots/s each, {100 * run['server_share']:.0f} % of a "
            "processor")
    if run["unsent"]:
        note += f", {run['unsent']:,} inputs never sent"
    return {"rtnet": [run["latency_us"]["p99"] / 1000]}, run, note


LATENCY_RATE = 20000


def measure_latency(bench, row):
    runs = bench.paired(row, lambda name, server: server.load(
        bench.words(row, name, 3) + ["--rate", str(LATENCY_RATE), "--depth",
                                     "16"]), 1 if bench.o.quick else 3)
    points = {name: latency_points(runs[name]) for name in runs}
    return {}, {"points": points, "runs": runs}, ", ".join(
        f"{name} p99 {dict(points[name])[99.0]:.0f} us" for name in points)


def latency_points(runs):
    """(percentile, us), by the medians of the runs."""
    known = [m for m in runs[0]["latency_us"] if m.startswith("p")]
    return [(float(m[1:]), statistics.median(r["latency_us"][m] for r in runs))
            for m in known]


def measure_growth(bench, row):
    """Time of one server processor for a message, when it has no pause."""
    found = {}
    for count in sorted({10, 100, 1000, bench.many, bench.most}):
        one = dataclasses.replace(row, load=f"--connections {count}")
        runs = bench.paired(one, lambda name, server:
                            server.load(bench.words(one, name)),
                            1 if bench.o.quick else 2)
        for name, each in column(runs, "per_s").items():
            found.setdefault(name, []).append(
                (count, 1e6 / statistics.median(each)))
    return {}, {"points": found}, ", ".join(
        f"{name} {points[0][1]:.1f} to {points[-1][1]:.1f} us"
        for name, points in found.items())


MEASURES = {name[len("measure_"):]: function
            for name, function in globals().items()
            if name.startswith("measure_")}


# ---- what is said -----------------------------------------------------------

def reaches(row, value):
    return value <= row.goal if row.at_most else value >= row.goal


def missed_by(row, value):
    off = (value - row.goal if row.at_most else row.goal - value) / row.goal
    return f"MISSED by {max(1, round(100 * off))} %"


@dataclasses.dataclass
class Found:
    """What became of a row."""
    row: Row
    title: str
    series: list = dataclasses.field(default_factory=list)  # values by name
    raw: list = dataclasses.field(default_factory=list)
    note: str = ""
    state: str = ""   # skipped, broken; "" when it was measured
    took: float = 0

    def medians(self):
        return [statistics.median(s["rtnet"]) for s in self.series]

    def covered(self):
        """Does the spread of a series reach what its median does not?"""
        best = min if self.row.at_most else max
        return any(reaches(self.row, best(s["rtnet"])) for s in self.series)

    def met(self):
        good = sum(reaches(self.row, m) for m in self.medians())
        return good >= 2 if len(self.series) == 3 else good == 1

    def open(self):
        """Would two more series decide?"""
        return (self.state == "" and self.row.goal is not None and
                len(self.series) == 1 and not self.met() and self.covered())

    def verdict(self, enough):
        if self.state or self.row.goal is None:
            return self.state
        if not enough:
            return "too short to tell"
        many = f" ({len(self.series)} series)" if len(self.series) > 1 else ""
        if self.met():
            return "met" + many
        text = missed_by(self.row, statistics.median(self.medians())) + many
        return text + (", within the spread" if self.open() else "")

    def all_values(self, name):
        return [v for s in self.series for v in s.get(name, [])]


def figure(value):
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


class Table:
    """Lines as they are found, one column for each peer."""

    def __init__(self, bench, enough):
        self.peers, self.enough = [p.name for p in bench.peers], enough
        peers = "".join(f"{name:>9}" for name in self.peers)
        print(f"\n{'':37}{'goal':>9}{'rtnet':>9}  {'least to greatest':19}"
              f"{peers}  verdict", flush=True)

    def goal(self, row):
        if row.goal is None:
            return ""
        return f"{'<=' if row.at_most else '>='} {row.goal:g}"

    def line(self, found):
        values = found.all_values("rtnet")
        median = range_ = ""
        if values:
            median = figure(statistics.median(values))
            if len(values) > 1:
                range_ = f"{figure(min(values))} to {figure(max(values))}"
        peers = ""
        for name in self.peers:
            own = found.all_values(name)
            peers += f"{figure(statistics.median(own)) if own else '-':>9}"
        print(f"{found.title:37}{self.goal(found.row):>9}{median:>9}  "
              f"{range_:19}{peers}  {found.verdict(self.enough)}")
        if found.note:
            print(f"    {found.note}", flush=True)


# ---- the run ----------------------------------------------------------------

def congestion():
    with open("/proc/sys/net/ipv4/tcp_congestion_control",
              encoding="ascii") as f:
        return f.read().strip()


def machine():
    model = ""
    with open("/proc/cpuinfo", encoding="ascii") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"kernel": platform.release(), "cpu": model,
            "processors": os.cpu_count(), "congestion": congestion(),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE)[1]}


def measure(bench, found):
    """One series of a row."""
    began = time.monotonic()
    try:
        values, raw, found.note = MEASURES[found.row.kind](bench, found.row)
        if values:
            found.series.append(values)
        found.raw.append(raw)
    except Skipped as e:
        found.state, found.note = "skipped", str(e)
    except (Broken, KeyError) as e:
        found.state, found.note = "COULD NOT BE RUN", str(e)
    found.took = time.monotonic() - began


def decide(bench, all_found, table):
    """Two more series where the spread covers the goal, while there is
    time."""
    for found in all_found:
        left = bench.o.budget - (time.monotonic() - bench.began)
        if not found.open() or 2 * found.took > left:
            continue
        measure(bench, found)
        measure(bench, found)
        table.line(found)


def write_json(bench, all_found, about):
    rows = [{"name": f.row.name, "title": f.title, "goal": f.row.goal,
             "at_most": f.row.at_most, "unit": f.row.unit or "ratio",
             "verdict": f.verdict(bench.o.rounds >= ENOUGH), "note": f.note,
             "series": [{n: {**spread(v), "values": v} for n, v in s.items()}
                        for s in f.series],
             "took_s": round(f.took, 1), "raw": f.raw} for f in all_found]
    with open(f"{bench.o.build}/bench.json", "w", encoding="ascii") as f:
        json.dump({**about, "rounds": bench.o.rounds, "quick": bench.o.quick,
                   "peers": [p.name for p in bench.peers],
                   "notes": bench.notes, "rows": rows}, f, indent=1)
        f.write("\n")


def draw(bench, all_found, about):
    out = f"{bench.o.build}/bench"
    os.makedirs(out, exist_ok=True)
    where = (f"{about['cpu']}, {about['processors']} processors, Linux "
             f"{about['kernel']}, {about['congestion']}, loopback, "
             f"{about['date'][:10]}")
    names = ["rtnet", *(p.name for p in bench.peers)]
    bars = [(f.title, f.row.goal,
             {n: spread(f.all_values(n)) for n in names if f.all_values(n)})
            for f in all_found if f.series and f.row.kind == "rate"]
    if bars:
        picture.bars(f"{out}/ratios.svg", bars, names, where)
    for f in all_found:
        if f.state or f.row.name not in ("latency", "growth"):
            continue
        draw_one = getattr(picture, f.row.name)
        draw_one(f"{out}/{f.row.name}.svg", f.raw[0]["points"], where)


def arguments():
    env = os.environ.get
    quick = env("QUICK", "0") not in ("", "0")
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter,
        epilog="rows: " + " ".join(r.name for r in ROWS))
    p.add_argument("--quick", action="store_true", default=quick,
                   help="short runs, fewer connections, no verdict (QUICK=1)")
    p.add_argument("--rounds", type=int, default=int(env("ROUNDS") or 0),
                   help="of each row (ROUNDS; 9, quick 3)")
    p.add_argument("--rows", default=env("ROWS") or "",
                   help="names with commas between (ROWS; all)")
    p.add_argument("--peers", action="store_true",
                   help="servers of others, too; PEER='command {mode} {port}'")
    p.add_argument("--build", default=env("BUILD") or "build")
    p.add_argument("--budget", type=float, default=570,
                   help="seconds that more series may fill (570)")
    o = p.parse_args()
    o.rounds = o.rounds or (3 if o.quick else ENOUGH)
    unknown = set(filter(None, o.rows.split(","))) - {r.name for r in ROWS}
    if unknown:
        p.error(f"no such row: {', '.join(sorted(unknown))}")
    return o


def main():
    o = arguments()
    chosen = o.rows.split(",") if o.rows else [r.name for r in ROWS]
    about = {"date": datetime.datetime.now().isoformat(timespec="seconds"),
             **machine()}
    bench = Bench(o)
    print(f"{about['cpu']}, {about['processors']} processors, Linux "
          f"{about['kernel']}, {about['congestion']}; {o.rounds} rounds")
    table = Table(bench, o.rounds >= ENOUGH and not o.quick)
    all_found = []
    for row in ROWS:
        if row.name in chosen:
            found = Found(row, bench.text(row.title))
            measure(bench, found)
            all_found.append(found)
            table.line(found)
    if table.enough:
        decide(bench, all_found, table)
    write_json(bench, all_found, about)
    draw(bench, all_found, about)
    for note in bench.notes:
        print(note)
    print(f"{time.monotonic() - bench.began:.0f} s; all figures: "
          f"{o.build}/bench.json, pictures: {o.build}/bench/")
    return any(f.state.startswith("COULD") for f in all_found)


if __name__ == "__main__":
    sys.exit(main())
