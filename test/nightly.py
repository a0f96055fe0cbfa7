#!/usr/bin/env python3
"""make nightly: the long run, in pieces that add up.

    nightly.py [--minutes 30] [--jobs 1] [--seeds-from S]

One piece: random worlds from a range of seeds that no piece had before (it
begins with the present time, and is printed), each target of test/fuzz, every
fault point of test_faults, 60 s of a crowd on real sockets, and, once for all
pieces, every UTF-8 sequence of four bytes.  What is not there yet is told and
left out.  Building is not counted in the minutes.

A finding is kept in build/nightly/findings and makes the status non-zero.  The
piece is added to build/nightly/results.json, and a line about it to
build/nightly/results.txt; pieces below 30 minutes are noted, but do not count
in the sum.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = "build"
NIGHT = f"{ROOT}/{BUILD}/nightly"
FINDINGS = f"{NIGHT}/findings"
LEAST = 30  # minutes of a piece that counts
# Judged loosely, because others may use the machine, too.
CROWD = ("--max-ratio", "6", "--slack-ms", "200", "--rounds", "3",
         "--seconds", "60")
SAN = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined"
# The kinds of worlds, and how many one call of build/t/sim runs.
WORLDS = {"model": 300, "resume": 2000, "group": 1500}


def make(*words, build=BUILD):
    """True when make did it."""
    return subprocess.run(
        ["make", "--no-print-directory", "-s", "-f", "test/Makefile",
         f"BUILD={build}", *words], cwd=ROOT, check=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def fuzz_targets():
    with open(f"{ROOT}/test/Makefile", encoding="utf-8") as f:
        text = f.read().replace("\\\n", " ")
    found = re.search(r"^FUZZ *= *(.*)$", text, re.M)
    return found.group(1).split() if found else []


def output(words, seconds):
    """(status, what it said); 124: out of time."""
    try:
        done = subprocess.run(words, cwd=ROOT, text=True, timeout=seconds,
                              stdout=subprocess.PIPE, errors="replace",
                              stderr=subprocess.STDOUT, check=False)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
        return 124, said.decode(errors="replace")


class Piece:
    def __init__(self, words):
        self.words = words
        self.lock = threading.Lock()
        self.began = time.time()
        self.seeds = words.seeds_from or int(self.began) * 1000
        self.result = {
            "start": time.strftime("%Y-%m-%d %H:%M:%S"), "minutes": 0,
            "planned": words.minutes, "seeds_from": self.seeds, "worlds": {},
            "fuzz": {}, "faults": None, "utf8_4": None, "crowd": None,
            "left_out": [], "findings": []}

    def say(self, text):
        with self.lock:
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def finding(self, name, text, *files):
        """Keeps what was found, with all that repeats it."""
        stem = f"{FINDINGS}/{time.strftime('%Y%m%d-%H%M%S')}-{name}"
        with open(stem + ".txt", "w", encoding="utf-8") as f:
            f.write(text)
        for path in files:
            shutil.move(path, f"{stem}-{os.path.basename(path)}")
        with self.lock:
            self.result["findings"].append(os.path.relpath(stem, ROOT))
        self.say(f"FINDING: {name}, see {os.path.relpath(stem, ROOT)}.txt")

    # ---- random worlds -------------------------------------------------------

    def worlds(self, name, seconds):
        """Alternately with sanitizers and without, which is quicker."""
        sums = {"worlds": 0, "simulated_s": 0.0, "calls": 0, "seconds": 0}
        end, seed, turn = time.time() + seconds, self.seeds, 0
        while time.time() < end:
            where = f"{BUILD}/san" if turn % 2 else BUILD
            count = WORLDS[name] // (4 if turn % 2 else 1)
            began = time.time()
            if not self.some_worlds(name, where, seed, count, sums):
                break
            sums["seconds"] += time.time() - began
            seed += count
            turn += 1
        sums["seconds"] = round(sums["seconds"])
        self.result["worlds"][name] = sums
        self.say(f"{name}: {sums['worlds']} worlds,"
                 f" {sums['simulated_s'] / 3600:.1f} simulated hours")

    def some_worlds(self, name, where, seed, count, sums):
        words = [f"{where}/t/sim", "--world", name, "--seeds", str(count),
                 "--from", str(seed)]
        status, said = output(words, 600)
        total = re.search(r"simulated: (\d+) worlds, ([\d.]+) s .*?"
                          r"(\d+) calls", said)
        if total:
            sums["worlds"] += int(total.group(1))
            sums["simulated_s"] += float(total.group(2))
            sums["calls"] += int(total.group(3))
        if status and only_unseen(said):
            return True
        if status:
            self.finding(f"world-{name}", " ".join(words) + "\n" + said[-100000:])
        return status == 0

    # ---- fuzzing ---------------------------------------------------------------

    def fuzz(self, name, seconds):
        log = f"{ROOT}/{BUILD}/fuzz/{name}.log"
        status, said = output(
            ["sh", "test/fuzz/run.sh", "libfuzzer", f"{BUILD}/fuzz",
             str(int(seconds)), name], seconds + 300)
        line = re.search(r"(\d+) executions, (\d+) s, (\d+) edges,"
                         r" (\d+) findings", said)
        bad = f"{ROOT}/{BUILD}/fuzz/{name}-bad"
        found = sorted(os.listdir(bad)) if os.path.isdir(bad) else []
        if line:
            executions, spent, edges = (int(n) for n in line.groups()[:3])
            old = self.result["fuzz"].get(
                name, {"executions": 0, "seconds": 0})
            self.result["fuzz"][name] = {
                "executions": old["executions"] + executions,
                "seconds": old["seconds"] + spent, "edges": edges}
        if found or status:
            text = said
            if os.path.exists(log):
                with open(log, encoding="utf-8", errors="replace") as f:
                    text += f.read()[-100000:]
            self.finding(f"fuzz-{name}", text,
                         *(f"{bad}/{one}" for one in found))
        self.say(f"fuzz {name}: {line.group(0) if line else 'no result'}")

    # ---- the rest --------------------------------------------------------------

    def faults(self, seconds):
        status, said = output([f"{BUILD}/san/t/test_faults", "--all"],
                              seconds)
        points = re.search(r"fault points: .*", said)
        whole = status != 124
        self.result["faults"] = {
            "whole": whole, "points": points.group(0) if points else None,
            "sum": said.splitlines()[-1] if whole and said else None}
        if status and whole:
            self.finding("faults", said[-100000:])
        self.say(f"faults: {points.group(0) if points else 'not finished'}")

    def utf8(self, seconds):
        """One first byte after the other; the next piece goes on there."""
        end, done = time.time() + seconds, utf8_leads()
        while done < 256 and time.time() < end:
            status, said = output(
                [f"{BUILD}/t/test_exhaustive", "--utf8-4", "--lead",
                 str(done), "none_of_the_names"], 600)
            if status:
                self.finding("utf8", f"lead {done}\n" + said[-100000:])
                break
            done += 1
        self.result["utf8_4"] = {"leads": done, "sequences": done << 24}
        self.say(f"utf8 of four bytes: {done} of 256 first bytes")

    def crowd(self, seconds):
        status, said = output([f"{BUILD}/crowd", *CROWD], seconds + 300)
        self.result["crowd"] = (said.splitlines() or ["no word"])[-1]
        if status:
            self.finding("crowd", said[-100000:])
        self.say(f"crowd: {self.result['crowd']}")

    # ---- all ---------------------------------------------------------------------

    def builds(self):
        """Makes what there is; the parts that can be run."""
        parts = []
        if make(f"{BUILD}/t/sim") and make(
                f"{BUILD}/san/t/sim", f"CFLAGS={SAN}", build=f"{BUILD}/san"):
            parts += [("worlds", name) for name in WORLDS]
        for name in fuzz_targets():
            if make(f"{BUILD}/fuzz/fuzz_{name}"):
                parts.append(("fuzz", name))
        if make(f"{BUILD}/san/t/test_faults", f"CFLAGS={SAN}",
                build=f"{BUILD}/san"):
            parts.append(("faults", None))
        if utf8_leads() < 256 and make(f"{BUILD}/t/test_exhaustive"):
            parts.append(("utf8", None))
        if make(f"{BUILD}/crowd"):
            parts.append(("crowd", None))
        wanted = {"worlds", "fuzz", "faults", "crowd"}
        self.result["left_out"] = sorted(wanted - {p[0] for p in parts})
        return parts

    def run(self):
        parts = self.builds()
        self.began = time.time()
        self.say(f"seeds from {self.seeds}; parts:"
                 f" {', '.join(' '.join(filter(None, p)) for p in parts)}")
        for name in self.result["left_out"]:
            self.say(f"left out, because it is not there: {name}")
        self.at_once(parts)
        share = self.shares(parts)
        with concurrent.futures.ThreadPoolExecutor(self.words.jobs) as pool:
            for one in [pool.submit(getattr(self, kind), name, share[kind])
                        for kind, name in parts if kind in share]:
                one.result()
        self.rest(parts)
        self.result["minutes"] = round((time.time() - self.began) / 60, 1)

    def at_once(self, parts):
        """Those that take as long as they take."""
        most = max(self.words.minutes * 60 / 5, 60)
        for kind, _ in parts:
            if kind in ("faults", "utf8", "crowd"):
                getattr(self, kind)(most)

    def rest(self, parts):
        """What ended early leaves its time to the fuzz targets in turn."""
        names = [name for kind, name in parts if kind == "fuzz"]
        end = self.began + self.words.minutes * 60
        for turn in range(100 * len(names)):
            left = end - time.time()
            if left < 1:
                return
            self.fuzz(names[turn % len(names)], min(left + 1, 60))

    def shares(self, parts):
        """Seconds for each of the others: half for worlds, half for fuzz."""
        left = self.words.minutes * 60 - (time.time() - self.began)
        left = max(left, 1) * self.words.jobs
        kinds = [kind for kind, _ in parts if kind in ("worlds", "fuzz")]
        return {kind: left / len(set(kinds)) / kinds.count(kind)
                for kind in set(kinds)}


def only_unseen(said):
    """No world failed; a few of them need not have seen everything."""
    failed = re.findall(r"^FAIL (.*)$", said, re.M)
    return failed and all("seen" in one for one in failed)


def results():
    path = f"{NIGHT}/results.json"
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def utf8_leads():
    """How many first bytes all pieces so far have done."""
    return max([piece["utf8_4"]["leads"] for piece in results()
                if piece["utf8_4"]], default=0)


def summed(pieces):
    """One line about pieces."""
    worlds = [w for p in pieces for w in p["worlds"].values()]
    fuzz = [f for p in pieces for f in p["fuzz"].values()]
    return (f"{len(pieces)} pieces,"
            f" {sum(p['minutes'] for p in pieces):.0f} minutes,"
            f" {sum(w['worlds'] for w in worlds)} worlds,"
            f" {sum(w['simulated_s'] for w in worlds) / 3600:.0f}"
            " simulated hours,"
            f" {sum(f['executions'] for f in fuzz)} fuzz executions,"
            f" {sum(len(p['findings']) for p in pieces)} findings")


def keep(piece):
    pieces = results() + [piece.result]
    with open(f"{NIGHT}/results.json.new", "w", encoding="utf-8") as f:
        json.dump(pieces, f, indent=1)
    os.replace(f"{NIGHT}/results.json.new", f"{NIGHT}/results.json")
    lines = [f"{p['start']}: {summed([p])}" for p in pieces]
    count = [p for p in pieces if p["minutes"] >= LEAST]
    lines.append(f"what counts: {summed(count)}")
    with open(f"{NIGHT}/results.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    print("\n".join(lines[-2:]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=LEAST)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds-from", type=int, default=0)
    words = parser.parse_args()
    os.makedirs(FINDINGS, exist_ok=True)
    piece = Piece(words)
    try:
        piece.run()
    finally:
        keep(piece)
    return bool(piece.result["findings"])


if __name__ == "__main__":
    sys.exit(main())
