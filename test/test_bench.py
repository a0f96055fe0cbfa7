#!/usr/bin/env python3
"""make bench, as small as it gets: it runs, writes what it says it writes, and
judges by the rules.  The figures themselves are not looked at, because others
may use the machine, too.  BUILD= names another directory than build.

Prints "N passed, N failed, N skipped" as its last line.
"""
import json
import os
import subprocess
import sys
import tempfile
import traceback
import xml.etree.ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
sys.path.insert(0, os.path.join(ROOT, "bench"))

import bench  # noqa: E402  (its place is known only now)
import picture  # noqa: E402


def run(program, *words, build=BUILD):
    env = {**os.environ, "QUICK": "1", "ROUNDS": "2", "BUILD": build}
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, "bench", program), *words],
        cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=120, check=False)


def copied(directory, names):
    """A build directory of its own, so that no result is overwritten."""
    for name in names:
        os.symlink(os.path.join(BUILD, name), os.path.join(directory, name))
    return directory


def small_bench_writes_all():
    with tempfile.TemporaryDirectory() as there:
        copied(there, ("rtload", "limit", "memory", "echo_server"))
        done = run("bench.py", "--rows", "echo100,heap,member,idle",
                   build=there)
        assert done.returncode == 0, done.stdout
        with open(f"{there}/bench.json", encoding="ascii") as f:
            found = json.load(f)
        picture_ = xml.etree.ElementTree.parse(f"{there}/bench/ratios.svg")
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["echo100", "heap", "idle", "member"], list(rows)
    ratios = rows["echo100"]["series"][0]["rtnet"]["values"]
    assert len(ratios) == 2 and min(ratios) > 0, ratios
    assert len(rows["echo100"]["raw"][0]["limit"]) == 2
    for name in ("heap", "idle", "member"):
        assert rows[name]["series"][0]["rtnet"]["median"] > 0, rows[name]
    assert found["congestion"] and found["kernel"] and found["date"]
    assert "echo, 100 connections" in "".join(picture_.getroot().itertext())


def what_cannot_be_run_is_a_failure():
    with tempfile.TemporaryDirectory() as there:
        copied(there, ("rtload", "limit"))
        done = run("bench.py", "--rows", "echo100", build=there)
    assert done.returncode == 1, done.stdout
    assert "COULD NOT BE RUN" in done.stdout, done.stdout


def a_row_that_is_not_there_is_misuse():
    done = run("bench.py", "--rows", "echo100,nothing")
    assert done.returncode == 2 and "nothing" in done.stdout, done.stdout


def pair_compares_two_commands():
    server = f"{BUILD}/limit echo --port {{port}}"
    done = run("pair.py", "--a", server, "--b", server, "--rounds", "2",
               "--duration", "0.2", "--warmup", "0.1", "--rtload",
               f"{BUILD}/rtload", "--json", "--", "--raw")
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert found["least"] <= found["ratio"] <= found["greatest"], found
    assert len(found["ratios"]) == 2 and found["least"] > 0, found


def judged(values, *more, at_most=False, goal=1.0):
    row = bench.Row("row", "a row", "rate", goal, at_most)
    series = [{"rtnet": v} for v in (values, *more)]
    return bench.Found(row, row.title, series)


def a_median_that_reaches_the_goal_is_met():
    assert judged([0.9, 1.0, 1.2]).verdict(True) == "met"
    assert judged([9, 8, 20], at_most=True, goal=9).verdict(True) == "met"


def a_median_that_does_not_is_missed_by_so_much():
    assert judged([0.9, 0.97, 0.98]).verdict(True) == "MISSED by 3 %"
    found = judged([12, 11, 13], at_most=True, goal=10)
    assert found.verdict(True) == "MISSED by 20 %"
    assert not found.open()


def two_of_three_series_decide_where_the_spread_covers_it():
    low, high = [0.9, 0.97, 1.1], [0.9, 1.02, 1.1]
    assert judged(low).open()
    assert judged(low).verdict(True) == "MISSED by 3 %, within the spread"
    assert not judged(high).open()
    assert judged(low, high, high).verdict(True) == "met (3 series)"
    assert "MISSED by 3 % (3 series)" in judged(low, low, high).verdict(True)


def a_short_bench_gives_no_verdict():
    assert judged([0.5, 0.5, 0.5]).verdict(False) == "too short to tell"


def curves_show_every_point():
    points = {"rtnet": [(50.0, 90.0), (99.0, 300.0), (99.99, 4000.0)],
              "limit": [(50.0, 80.0), (99.0, 200.0), (99.99, 5000.0)]}
    with tempfile.TemporaryDirectory() as there:
        picture.latency(f"{there}/a.svg", points, "here")
        root = xml.etree.ElementTree.parse(f"{there}/a.svg").getroot()
    dots = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(dots) == 6, len(dots)
    height = float(root.get("height"))
    assert all(0 < float(d.get("cy")) < height for d in dots)


CASES = (small_bench_writes_all, what_cannot_be_run_is_a_failure,
         a_row_that_is_not_there_is_misuse, pair_compares_two_commands,
         a_median_that_reaches_the_goal_is_met,
         a_median_that_does_not_is_missed_by_so_much,
         two_of_three_series_decide_where_the_spread_covers_it,
         a_short_bench_gives_no_verdict, curves_show_every_point)


def main():
    failed = 0
    for case in CASES:
        try:
            case()
        except Exception:  # a broken bench is a failed case like any other
            failed += 1
            print(f"FAIL {case.__name__}")
            traceback.print_exc(file=sys.stdout)
    print(f"{len(CASES) - failed} passed, {failed} failed, 0 skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
