#!/usr/bin/env python3
"""make coverage: which lines and branches of the library the tests run.

The library and the tests are built by gcc with -O0 --coverage into build/cov;
the programs of make test and the longer ones are run there, these with fewer
rounds where that costs no branch.  A branch is one way out of one jump of that
code: in "a && b || c" each of the three has two, true and false, so that
short-circuits count one by one; a switch has one for each case.  What several
objects share (the headers' inline functions) counts as run when it was run in
one of them.

Fails when a line was not run, or when less than 98 % of the branches were,
apart from the lines in test/coverage.allowed:

    file:function:text of the line: reason

An entry there that stands for no line, or for one that was run entirely, is a
failure, too.  Marks in the sources are not used.

    coverage.py [--gaps] [--no-run] [--no-page]

--gaps shows what was not run and is not listed; build/coverage/ becomes a page
to read (if lcov is there), build/coverage.json has the numbers.

Prints "N passed, N failed, N skipped" as its last line.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARY = ("rtnet.c", "ws.c", "session.c", "group.c", "ratelimit.c")
TLS = ("tls.c",)  # and the others once more, where mbedTLS is installed
HEADERS = ("rtnet_internal.h", "rtnet.h")
BRANCHES = 98.0
FLAGS = "-O0 -g --coverage"
# Programs that would take long: what to run instead.  None: not at all, as the
# replays of the fuzz targets, which have objects of the library of their own.
OPTIONS = {"exhaustive": "one_byte two_bytes edges code headers"}


def make(build, *words):
    """The test Makefile, with a directory of our own."""
    return subprocess.run(
        ["make", "--no-print-directory", "-f", "test/Makefile", "CC=gcc",
         f"BUILD={build}", f"CFLAGS={FLAGS}", *words],
        cwd=ROOT, text=True, check=True, stdout=subprocess.PIPE).stdout


def programs(build):
    """The names of all tests, without test_."""
    return [name[len("test_"):] for name in make(build, "-s", "list").split()]


def command(build, name):
    words = OPTIONS.get(name, None if "replay_" in name else "")
    if words is None:
        return None
    return f"{build}/t/test_{name} {words}".strip()


def forget(build):
    """Counts of an earlier run."""
    for name in os.listdir(f"{ROOT}/{build}/t"):
        if name.endswith(".gcda"):
            os.remove(f"{ROOT}/{build}/t/{name}")


def failed_of(results):
    """The commands that failed, of the file that run.sh has written."""
    found = []
    for part in results.split("== ")[1:]:
        if not re.search(r" 0 failed, \d+ skipped\nstatus 0\n$", part):
            found.append(part.splitlines()[0])
    return found


def run_some(build, commands, jobs):
    """Runs them so many at a time; returns which failed."""
    path = f"{ROOT}/{build}/results"
    open(path, "w", encoding="utf-8").close()
    done = subprocess.run(
        ["sh", "test/run.sh", *commands], cwd=ROOT, text=True,
        env={**os.environ, "JOBS": str(jobs), "RESULTS": path},
        stdout=subprocess.PIPE, check=False)
    said = done.stdout.splitlines()
    for line in said:
        if line.startswith("FAIL"):
            print(line)
    print(f"the tests: {said[-1] if said else 'nothing'}")
    with open(path, encoding="utf-8") as f:
        return failed_of(f.read())


def run(build):
    """Builds and runs all; true when each test passed.  What failed is run
    again alone, since some look at the clock of a machine that is busy."""
    make(build, "-j2", "bins")
    forget(build)
    commands = [command(build, name) for name in programs(build)]
    failed = run_some(build, filter(None, commands), 2)
    return not failed or not run_some(build, failed, 1)


# ---- counts -----------------------------------------------------------------

class Line:
    """One line of one function: how often it and its branches were run."""

    def __init__(self, text):
        self.text = text
        self.count = 0
        self.branches = []

    def add(self, count, branches):
        """Another object's, or another copy's, counts of the same line."""
        self.count += count
        if len(branches) != len(self.branches):
            if len(branches) < len(self.branches):
                return
            self.branches = [0] * len(branches)
        self.branches = [a + b for a, b in zip(self.branches, branches)]

    def missing(self):
        return self.branches.count(0)

    def whole(self):
        return self.count > 0 and self.missing() == 0


def objects_of(build):
    """The objects that were run, without their endings."""
    names = [source[:-2] for source in LIBRARY]
    tls = ["tls_" + source[:-2] for source in LIBRARY + TLS]
    return names + [name for name in tls
                    if os.path.exists(f"{ROOT}/{build}/t/{name}.gcda")]


def counted(build, name):
    """What gcov says of one object: a list of files with their lines."""
    said = subprocess.run(
        ["gcov", "--branch-probabilities", "--json-format", "--stdout",
         f"{build}/t/{name}.gcda"],
        cwd=ROOT, text=True, check=True, stdout=subprocess.PIPE).stdout
    return json.loads(said)["files"]


def texts_of(name):
    with open(f"{ROOT}/{name}", encoding="utf-8") as f:
        return [line.strip() for line in f]


def gather(build):
    """{(file, line, function): Line} of the library."""
    found = {}
    texts = {name: texts_of(name) for name in LIBRARY + TLS + HEADERS}
    for name in objects_of(build):
        for file in counted(build, name):
            if file["file"] not in texts:
                continue
            for line in file["lines"]:
                key = (file["file"], line["line_number"],
                       line.get("function_name", ""))
                at = found.setdefault(
                    key, Line(texts[file["file"]][key[1] - 1]))
                at.add(line["count"], [b["count"] for b in line["branches"]])
    return found


# ---- the list of what need not be run ----------------------------------------

def entries():
    """[(file, function, text and reason)] of test/coverage.allowed."""
    path = f"{ROOT}/test/coverage.allowed"
    if not os.path.exists(path):
        return []
    found = []
    with open(path, encoding="utf-8") as f:
        for line in f:
            line = line.strip()
            if line and not line.startswith("#"):
                found.append(tuple(line.split(":", 2)))
    return found


def stands_for(entry, key, line):
    """Whether an entry means this line: its reason is behind its text."""
    return (len(entry) == 3 and entry[0] == key[0] and entry[1] == key[2]
            and entry[2].startswith(line.text + ": ")
            and len(entry[2]) > len(line.text) + 2)


def listed(found):
    """The keys that entries stand for, and a case for each entry."""
    allowed, cases = set(), []
    for entry in entries():
        keys = [k for k, line in found.items() if stands_for(entry, k, line)]
        wrong = "" if keys else "there is no such line"
        if keys and all(found[k].whole() for k in keys):
            wrong = "it was run entirely"
        cases.append((f"listed with reason: {':'.join(entry)}", wrong))
        allowed.update(keys)
    return allowed, cases


# ---- what is said ------------------------------------------------------------

def share(part, whole):
    return 100.0 * part / whole if whole else 100.0


def sums(found, allowed, file=None):
    """Lines and branches, run and in all, and those that the list excuses."""
    total = {"lines": 0, "lines_run": 0, "branches": 0, "branches_run": 0,
             "lines_allowed": 0, "branches_allowed": 0}
    for key, line in found.items():
        if file not in (None, key[0]):
            continue
        total["lines"] += 1
        total["lines_run"] += line.count > 0
        total["branches"] += len(line.branches)
        total["branches_run"] += len(line.branches) - line.missing()
        if key in allowed:
            total["lines_allowed"] += line.count == 0
            total["branches_allowed"] += line.missing()
    return total


def row(name, t):
    print(f"{name:18}"
          f" lines {t['lines_run']:5} of {t['lines']:5}"
          f" {share(t['lines_run'], t['lines']):6.2f} %"
          f" (+{t['lines_allowed']} listed)  "
          f" branches {t['branches_run']:5} of {t['branches']:5}"
          f" {share(t['branches_run'], t['branches']):6.2f} %"
          f" (+{t['branches_allowed']} listed)")


def gaps(found, allowed):
    for key in sorted(found):
        line = found[key]
        if key in allowed or line.whole():
            continue
        what = [i for i, n in enumerate(line.branches) if not n]
        what = ("not run" if not line.count
                else f"branches {what} of {len(line.branches)}")
        print(f"{key[0]}:{key[1]}: {key[2]}: {what}: {line.text}")


def judge(found, allowed, tests_passed):
    """[(case, what is wrong with it)], one for each file, "" when all is
    well; the entries of the list are cases, too."""
    cases = [("every test passes", "" if tests_passed else "see above")]
    for name in LIBRARY + TLS + HEADERS:
        left = [f"{key[1]} {found[key].text}" for key in sorted(found)
                if key[0] == name and key not in allowed
                and found[key].count == 0]
        cases.append((f"every line is run: {name}", "; ".join(left)))
    t = sums(found, allowed)
    reached = share(t["branches_run"], t["branches"] - t["branches_allowed"])
    cases.append((f"{BRANCHES} % of the branches are run",
                  f"{reached:.2f} %" if reached < BRANCHES else ""))
    return cases


def page(build):
    """The same to read, by lcov, where that is installed."""
    if not shutil.which("lcov") or not shutil.which("genhtml"):
        print("no page: lcov is not installed")
        return
    objects = f"{ROOT}/{build}/lcov"
    shutil.rmtree(objects, ignore_errors=True)
    os.makedirs(objects)
    for name in objects_of(build):
        for kind in ("gcda", "gcno"):
            shutil.copy(f"{ROOT}/{build}/t/{name}.{kind}", objects)
    branches = ("--rc", "lcov_branch_coverage=1")
    subprocess.run(["lcov", "-q", "-c", "-d", objects, "-b", ROOT, *branches,
                    "--no-external", "-o", f"{objects}/info"],
                   cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["genhtml", "-q", *branches, "-p", ROOT, "-t", "rtnet",
                    "-o", f"{ROOT}/build/coverage", f"{objects}/info"],
                   cwd=ROOT, check=True)
    print("the page: build/coverage/index.html")


def write(found, allowed, seconds):
    result = {"date": time.strftime("%Y-%m-%d %H:%M"),
              "seconds": round(seconds),
              "all": sums(found, allowed),
              "files": {name: sums(found, allowed, name)
                        for name in LIBRARY + TLS + HEADERS}}
    with open(f"{ROOT}/build/coverage.json", "w", encoding="ascii") as f:
        json.dump(result, f, indent=1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/cov")
    parser.add_argument("--gaps", action="store_true")
    parser.add_argument("--no-run", action="store_true")
    parser.add_argument("--no-page", action="store_true")
    words = parser.parse_args()
    began = time.time()
    passed = words.no_run or run(words.build)
    found = gather(words.build)
    allowed, cases = listed(found)
    for name in LIBRARY + TLS + HEADERS:
        row(name, sums(found, allowed, name))
    row("all", sums(found, allowed))
    if words.gaps:
        gaps(found, allowed)
    if not words.no_run:
        write(found, allowed, time.time() - began)
    if not words.no_page:
        page(words.build)
    cases += judge(found, allowed, passed)
    failed = [case for case in cases if case[1]]
    for case in failed:
        print(f"FAIL {case[0]}: {case[1]}")
    print(f"{len(cases) - len(failed)} passed, {len(failed)} failed,"
          " 0 skipped")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
