#!/usr/bin/env python3
"""make report: test/REPORT.md, from what the last runs left in build/.

Nothing is run and nothing is made up: a number that no run has left is "not
run".
"""
import datetime
import json
import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = f"{ROOT}/build"
NONE = "not run"
# Parts of a script that has a line of its own.
INNER = re.compile(r"^timeout |(machines|builds|worlds)\.sh \w|/t/sim ")
SUM = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")


def loaded(name):
    """The numbers of a run, or None."""
    path = f"{BUILD}/{name}"
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def said(name):
    """[(command, its last lines)] of a run, or []; of one that was run again,
    the last time."""
    path = f"{BUILD}/{name}.results"
    if not os.path.exists(path):
        return []
    found, lines = {}, []
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith("== "):
                lines = found[line[3:].strip()] = []
            else:
                lines.append(line.rstrip("\n"))
    return list(found.items())


def day(name):
    when = os.path.getmtime(f"{BUILD}/{name}.results")
    return datetime.datetime.fromtimestamp(when).strftime("%Y-%m-%d %H:%M")


def sum_of(lines):
    """(passed, failed, skipped) of what a command said."""
    for line in reversed(lines):
        m = SUM.match(line)
        if m:
            return tuple(int(n) for n in m.groups())
    return None


def thousands(n):
    return f"{n:,}"


# ---- sections ------------------------------------------------------------------

def short(command):
    return command.replace(f"{ROOT}/", "")


def cases(name, command):
    """A table of the programs of make test or make check."""
    runs = [(c, sum_of(lines)) for c, lines in said(name)
            if "sh test/run.sh" not in c and not INNER.search(c)]
    lines = [f"## {command}", ""]
    if not runs:
        return lines + [f"{NONE}: `{command}`", ""]
    lines += [f"`{command}`, {day(name)}:", "",
              "| command | passed | failed | skipped |", "|---|--:|--:|--:|"]
    total = [0, 0, 0]
    for program, result in runs:
        result = result or (0, 1, 0)
        total = [a + b for a, b in zip(total, result)]
        lines.append(f"| `{short(program)}` | "
                     + " | ".join(thousands(n) for n in result) + " |")
    lines += ["| in all | " + " | ".join(thousands(n) for n in total) + " |",
              ""]
    return lines


def coverage():
    lines = ["## Coverage", ""]
    found = loaded("coverage.json")
    if not found:
        return lines + [f"{NONE}: `make coverage`", ""]
    lines += [f"`make coverage`, {found['date']} (gcc, -O0; each side of each"
              " condition is a branch of its own):", "",
              "| file | lines | run | branches | run |",
              "|---|--:|--:|--:|--:|"]
    files = list(found["files"].items()) + [("in all", found["all"])]
    for name, t in files:
        lines.append(
            f"| {name} | {thousands(t['lines'])} |"
            f" {percent(t['lines_run'], t['lines'])} |"
            f" {thousands(t['branches'])} |"
            f" {percent(t['branches_run'], t['branches'])} |")
    t = found["all"]
    lines += ["", f"Listed with a reason in `test/coverage.allowed`:"
              f" {t['lines_allowed']} lines, {t['branches_allowed']} branches.",
              ""]
    return lines


def percent(part, whole):
    return f"{100 * part / whole:.2f} %" if whole else "-"


def matching(pattern):
    """[(command, text)] of the lines in both runs that begin so."""
    found = []
    for name in ("test", "check"):
        for command, lines in said(name):
            if "sh test/run.sh" in command:
                continue
            found += [(command, line) for line in lines
                      if re.match(pattern, line)]
    return found


def worlds():
    lines = ["## Random worlds on the simulated kernel", ""]
    total = [0, 0.0, 0]
    for _, text in matching("simulated: "):
        n = re.search(r"(\d+) worlds, ([\d.]+) s .*?(\d+) calls", text)
        total = [total[0] + int(n.group(1)), total[1] + float(n.group(2)),
                 total[2] + int(n.group(3))]
    if not total[0]:
        return lines + [f"{NONE}: `make test`, `make check`", ""]
    return lines + [
        f"In these runs of `make test` and `make check`: {thousands(total[0])}"
        f" worlds, {total[1] / 3600:,.1f} simulated hours,"
        f" {thousands(total[2])} system calls served.", ""]


def others(title, pattern, command):
    lines = [f"## {title}", ""]
    found = matching(pattern)
    if not found:
        return lines + [f"{NONE}: `{command}`", ""]
    lines += [f"* `{short(where)}`: {text}" for where, text in found]
    return lines + [""]


def mutation():
    lines = ["## Small faults put into the library", ""]
    found = loaded("mutation.json")
    if not found:
        return lines + [f"{NONE}: `make mutate`", ""]
    sample = [m for m in found["mutants"] if m["sampled"]
              and m["found"] not in ("same", "does not compile",
                                     "equivalent")]
    lived = sum(m["found"] == "survived" for m in sample)
    same = sum(m["found"] == "equivalent" for m in found["mutants"])
    wrong = sum(c != "survived" for c in found["controls"])
    return lines + [
        f"`make mutate SEED={found['seed']}`, {found['date']}:"
        f" {len(sample)} faults, {len(sample) - lived} noticed"
        f" ({percent(len(sample) - lived, len(sample))}), {lived} not;"
        f" {same} more change nothing that could be told apart"
        " (`test/mutation.equivalent`)."
        f" {len(found['controls'])} controls without a fault,"
        f" {wrong} taken for a wrong library.", ""]


def night():
    lines = ["## The long run", ""]
    pieces = [p for p in loaded("nightly/results.json") or []
              if p["minutes"] >= 30]
    if not pieces:
        return lines + [f"{NONE}: `make nightly`", ""]
    lines += [f"`make nightly`, {len(pieces)} pieces of 30 minutes or more,"
              f" {sum(p['minutes'] for p in pieces):.0f} minutes,"
              f" {pieces[0]['start'][:10]} to {pieces[-1]['start'][:10]};"
              f" {sum(len(p['findings']) for p in pieces)} findings.", ""]
    lines += night_worlds(pieces) + night_fuzz(pieces)
    for key, what in (("faults", "fault points"), ("utf8_4",
                      "UTF-8 of four bytes"), ("crowd", "the crowd")):
        last = [p[key] for p in pieces if p[key]
                and (isinstance(p[key], str) or p[key].get("whole", True))]
        lines.append(f"* {what}: {told(last[-1]) if last else NONE}")
    return lines + [""]


def told(result):
    if isinstance(result, str):
        return result
    return ", ".join(v if isinstance(v, str) else f"{thousands(v)} {k}"
                     for k, v in result.items() if v not in (None, True))


def night_worlds(pieces):
    lines = []
    for name in sorted({n for p in pieces for n in p["worlds"]}):
        runs = [p["worlds"][name] for p in pieces if name in p["worlds"]]
        lines.append(
            f"* worlds of kind `{name}`: {thousands(sum(r['worlds'] for r in runs))}"
            " worlds,"
            f" {sum(r['simulated_s'] for r in runs) / 3600:,.0f} simulated"
            f" hours, {thousands(sum(r['calls'] for r in runs))} calls")
    return lines


def night_fuzz(pieces):
    lines = []
    for name in sorted({n for p in pieces for n in p["fuzz"]}):
        runs = [p["fuzz"][name] for p in pieces if name in p["fuzz"]]
        lines.append(
            f"* fuzz target `{name}`:"
            f" {thousands(sum(r['executions'] for r in runs))} executions in"
            f" {sum(r['seconds'] for r in runs) / 60:.0f} minutes,"
            f" {runs[-1]['edges']} edges")
    return lines


def fuzz():
    """What make fuzz itself has left."""
    lines = ["## Fuzzing", ""]
    place, found = f"{BUILD}/fuzz", []
    for name in sorted(os.listdir(place)) if os.path.isdir(place) else []:
        if not name.endswith(".log"):
            continue
        with open(f"{place}/{name}", encoding="utf-8",
                  errors="replace") as f:
            last = (f.read().splitlines() or [""])[-1]
        if re.search(r"\d+ executions", last):
            found.append(f"* {last}")
    if not found:
        return lines + [f"{NONE}: `make -f test/Makefile fuzz`", ""]
    return lines + ["The last run of each target by itself"
                    " (`make -f test/Makefile fuzz`); the long run has more:",
                    ""] + found + [""]


def commit():
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT,
                          text=True, stdout=subprocess.PIPE, check=False)
    return done.stdout.strip() or "an unknown version"


def main():
    lines = ["# What the tests have shown", "",
             "Written by `make report` from what the last runs left in"
             f" `build/`, at {commit()}. How it is tested is in the"
             " [README](../README.md); what is promised, and by which test,"
             " in [SECURITY.md](../SECURITY.md).", ""]
    lines += cases("test", "make test") + cases("check", "make check")
    lines += coverage() + worlds()
    lines += others("Whatever can fail, failing", r"fault points\b",
                    "build/san/t/test_faults")
    lines += fuzz() + mutation() + night()
    with open(f"{ROOT}/test/REPORT.md", "w", encoding="utf-8") as f:
        f.write("\n".join(lines).rstrip("\n") + "\n")
    print("test/REPORT.md")


if __name__ == "__main__":
    main()
