#!/usr/bin/env python3
"""make mutate: do the tests notice when the library is wrong?

A sample of small faults (test/mutants.py), drawn by a seed and by the size of
each file, is put into the library one at a time; the tests are run until one
fails, dies or takes too long: the fault is killed.  With --san what survives
the plain programs meets those with sanitizers, too, as in make check.  Faults
that do not compile, or that change no byte of the object, are not counted.
Every 25th is a control: the library as it is, which must survive.

    mutate.py [--count N] [--seed S] [--jobs J] [--again] [--san] [--list]

What was judged stays judged (build/mutation.json) as long as its line is the
same; --again judges the survivors anew, --list shows them.  Faults that are
none, because what they change cannot be told apart, are in
test/mutation.equivalent and not counted:

    file:function:what is shown of the fault: why nothing changes

The last line: how many were killed and how many survived.
"""
import argparse
import concurrent.futures
import filecmp
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "test"))
import mutants  # noqa: E402

LIBRARY = ("rtnet.c", "ws.c", "session.c", "group.c", "ratelimit.c")
WORK = f"{ROOT}/build/mutate"
RESULT = f"{ROOT}/build/mutation.json"
PLAIN = "-O1"
SAN = ("-O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined")
CONTROL = 25
# Those that take long, look at no fault of this kind or are linked with a
# library of their own: not run; or with options that make them shorter.
OPTIONS = {"histogram": None, "kernel": None, "planted": None, "tls": None,
           "tls_faults": None,
           "exhaustive": "one_byte two_bytes edges code"}
# Whose subject a file is, so that these come first; then the quick ones.
FIRST = {"rtnet.c": ("core", "lifetime", "admission", "regressions"),
         "ws.c": ("ws", "conformance"),
         "session.c": ("resume", "api", "limits", "sim_resume"),
         "group.c": ("group", "sim_group"),
         "ratelimit.c": ("ratelimit", "limits")}


# ---- programs ----------------------------------------------------------------

class Suite:
    """The tests, compiled once with some flags; linked for each fault."""

    def __init__(self, name, flags):
        self.name, self.flags = name, flags
        self.links = {}    # program: the words that link it
        self.seconds = {}  # program: how long the right library takes
        self.kills = {}    # (file, program): how often it found one

    def prepare(self):
        os.makedirs(f"{WORK}/{self.name}/t", exist_ok=True)
        for line in self.commands():
            words = shlex.split(line)
            out = words[words.index("-o") + 1]
            if "-c" in words and "/steps_" not in out:
                compiled(words)
            elif "/test_" in out:
                program = out.rsplit("/test_", 1)[1]
                if OPTIONS.get(program, "") is not None and \
                        "replay_" not in program:  # it has other objects
                    self.links[program] = self.linked(words)

    def commands(self):
        """What make would do."""
        said = subprocess.run(
            ["make", "-n", "-B", "--no-print-directory", "-f",
             "test/Makefile", "CC=gcc", f"BUILD={WORK}/{self.name}",
             f"CFLAGS={self.flags} -w", "bins"],
            cwd=ROOT, text=True, check=True, stdout=subprocess.PIPE).stdout
        lines = said.replace("\\\n", " ").splitlines()
        return [s for s in lines if s.startswith("gcc ") and " -o " in s]

    def linked(self, words):
        """The same with the tests' own sources compiled beforehand."""
        link = []
        for word in words:
            if word.endswith(".c"):
                out = f"{WORK}/{self.name}/" + word.replace("/", "_")[:-2]
                out += ".o"
                compiled([w for w in words if w.startswith("-")
                          and w not in ("-o",) and w[:2] != "-l"
                          and w[:4] != "-Wl,"]
                         + ["-c", word, "-o", out], "gcc")
                word = out
            link.append(word)
        return link

    def order(self, file):
        """Quick ones and those that find much in this file come first."""
        def cost(program):
            found = self.kills.get((file, program), 0)
            if program in FIRST.get(file, ()):
                found += 3
            return (0.3 + self.seconds.get(program, 1.0)) / (1 + found)
        return sorted(self.links, key=cost)

    def link(self, program, place, file):
        """With the one object that differs; the program's path."""
        words = list(self.links[program])
        words[words.index("-o") + 1] = f"{place}/{program}"
        right = f"{WORK}/{self.name}/t/{file[:-2]}.o" if file else None
        words = [f"{place}/{self.name}.o" if w == right else w for w in words]
        subprocess.run(words, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        return f"{place}/{program}"


def compiled(words, *before):
    subprocess.run([*before, *words], cwd=ROOT, check=True)


def bound():
    """A fault must not eat the machine."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))


def ends_well(path, words, seconds):
    """Runs a test.  "" when it passed, else how it failed."""
    with subprocess.Popen(
            [path, *words.split()], cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=bound) as child:
        try:
            status = child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            status = None
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if status is None:
        return "took too long"
    if status < 0:
        return f"died of signal {-status}"
    return "failed" if status else ""


def run(suite, program, path):
    limit = 10 + 5 * suite.seconds.get(program, 30)
    return ends_well(path, OPTIONS.get(program, ""), limit)


# ---- one fault ----------------------------------------------------------------

def build(suite, place, file):
    """Compiles the changed file.  "": it can be tried."""
    out = f"{place}/{suite.name}.o"
    done = subprocess.run(
        ["gcc", "-std=c99", "-w", "-Werror=int-conversion",
         "-Werror=incompatible-pointer-types", f"-I{ROOT}",
         *suite.flags.split(), "-U_FORTIFY_SOURCE", "-c", file, "-o", out],
        cwd=place, stderr=subprocess.DEVNULL, check=False)
    if done.returncode:
        return "does not compile"
    right = f"{WORK}/{suite.name}/right/{file[:-2]}.o"
    return "same" if filecmp.cmp(out, right, shallow=False) else ""


def try_one(suite, place, file):
    """"survived", or which test failed and how."""
    for program in suite.order(file):
        path = suite.link(program, place, file)
        wrong = run(suite, program, path)
        os.remove(path)
        if wrong:
            key = (file, program)
            suite.kills[key] = suite.kills.get(key, 0) + 1
            return f"{suite.name} test_{program} {wrong}"
    return "survived"


def judge(suites, place, mutant):
    """What became of it, in words."""
    os.makedirs(place, exist_ok=True)
    file = mutant.file
    with open(f"{ROOT}/{file}", encoding="utf-8") as f:
        text = f.read()
    for suite in suites:
        with open(f"{place}/{file}", "w", encoding="utf-8") as f:
            f.write(text[:mutant.start] + mutant.after + text[mutant.end:])
        wrong = build(suite, place, file)
        if wrong:
            return wrong
        found = try_one(suite, place, file)
        if found != "survived":
            return found
    return "survived"


def control(suites, place):
    """The library as it is."""
    os.makedirs(place, exist_ok=True)
    for suite in suites:
        for program in suite.links:
            wrong = run(suite, program, suite.link(program, place, None))
            if wrong:
                return f"{suite.name} test_{program} {wrong}"
    return "survived"


def measure(suites):
    """How long each takes; ends all when one fails as it is."""
    place = f"{WORK}/measure"
    os.makedirs(place, exist_ok=True)
    for suite in suites:
        right = f"{WORK}/{suite.name}/right"
        os.makedirs(right, exist_ok=True)
        for file in LIBRARY:
            shutil.copy(f"{ROOT}/{file}", f"{place}/{file}")
            build_right(suite, place, file, right)
        for program in suite.links:
            path = suite.link(program, place, None)
            began = time.time()
            wrong = run(suite, program, path)
            suite.seconds[program] = time.time() - began
            if wrong:
                sys.exit(f"without a fault, {suite.name} test_{program}"
                         f" {wrong}")


def build_right(suite, place, file, right):
    open(f"{right}/{file[:-2]}.o", "w", encoding="ascii").close()
    build(suite, place, file)
    os.replace(f"{place}/{suite.name}.o", f"{right}/{file[:-2]}.o")


# ---- the sample ----------------------------------------------------------------

class Sample:
    """Hands out faults, so that each file has its share of the judged ones."""

    def __init__(self, seed, count, judged):
        self.lock = threading.Lock()
        self.left, self.quota, self.have = {}, {}, {}
        sizes, self.judged = {}, judged
        for file in LIBRARY:
            with open(f"{ROOT}/{file}", encoding="utf-8") as f:
                text = f.read()
            sizes[file] = text.count("\n")
            self.left[file] = iter(
                mutants.order(mutants.all_of(file, text), seed))
        for file in LIBRARY:
            self.quota[file] = round(count * sizes[file] / sum(sizes.values()))
            self.have[file] = 0

    def take(self):
        """The next one that is not judged yet; None: it is enough."""
        with self.lock:
            while True:
                file = min(LIBRARY,
                           key=lambda f: self.have[f] / self.quota[f])
                if self.have[file] >= self.quota[file]:
                    return None
                mutant = next(self.left[file])
                known = self.judged.get(mutants.identity(mutant))
                if known is None:
                    self.have[file] += 1
                    return mutant
                known["sampled"] = True
                self.have[file] += counts(known["found"])

    def give_back(self, mutant):
        with self.lock:
            self.have[mutant.file] -= 1


def counts(found):
    return found not in ("same", "does not compile", "equivalent")


def equivalent():
    """[(file, function, fault and reason)]."""
    path = f"{ROOT}/test/mutation.equivalent"
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return [tuple(line.strip().split(":", 2)) for line in f
                if line.strip() and not line.startswith("#")]


def is_equivalent(mutant, known):
    return any(e[0] == mutant.file and e[1] == mutant.function
               and e[2].startswith(mutant.shown + ": ") for e in known)


# ---- all of it -----------------------------------------------------------------

class Run:
    def __init__(self, words):
        self.words = words
        self.lock = threading.Lock()
        self.judged = {}
        self.controls = []
        self.began = time.time()
        if os.path.exists(RESULT):
            with open(RESULT, encoding="utf-8") as f:
                old = json.load(f)
            self.controls = old["controls"]
            self.judged = {m["id"]: m for m in old["mutants"]}
        for m in self.judged.values():
            m["sampled"] = False
        if words.again:
            self.judged = {i: m for i, m in self.judged.items()
                           if m["found"] != "survived"}
        self.sample = Sample(words.seed, words.count, self.judged)
        self.known = equivalent()
        self.suites = [Suite("plain", PLAIN)]
        if words.san:
            self.suites.append(Suite("san", SAN))

    def note(self, mutant, found):
        with self.lock:
            if not counts(found):
                self.sample.give_back(mutant)
            i = mutants.identity(mutant)
            self.judged[i] = {
                "id": i, "file": mutant.file, "function": mutant.function,
                "line": mutant.line, "operator": mutant.operator,
                "before": mutant.before, "after": mutant.after,
                "shown": mutant.shown, "found": found, "sampled": True}
            if found == "survived":
                print(said(self.judged[i]), flush=True)
            self.save()

    def save(self):
        with open(RESULT + ".new", "w", encoding="utf-8") as f:
            json.dump({"date": time.strftime("%Y-%m-%d %H:%M"),
                       "seed": self.words.seed, "controls": self.controls,
                       "mutants": list(self.judged.values())}, f, indent=1)
        os.replace(RESULT + ".new", RESULT)

    def work(self, number):
        place, n = f"{WORK}/w{number}", 0
        while True:
            mutant = self.sample.take()
            if mutant is None:
                return
            if is_equivalent(mutant, self.known):
                self.note(mutant, "equivalent")
                continue
            self.note(mutant, judge(self.suites, place, mutant))
            n += 1
            if n % CONTROL == 0:
                found = control(self.suites, place)
                with self.lock:
                    self.controls.append(found)

    def all(self):
        for suite in self.suites:
            suite.prepare()
        measure(self.suites)
        jobs = range(self.words.jobs)
        with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
            for one in [pool.submit(self.work, n) for n in jobs]:
                one.result()
        self.save()


def said(m):
    return (f"survived: {m['file']}:{m['line']}: {m['function']}:"
            f" {m['before']!r} -> {m['after']!r}: {m['shown']}")


def summary(result):
    """(killed, survived) of the sample."""
    sample = [m for m in result["mutants"]
              if m["sampled"] and counts(m["found"])]
    survived = sum(m["found"] == "survived" for m in sample)
    return len(sample) - survived, survived


def show(listing):
    with open(RESULT, encoding="utf-8") as f:
        result = json.load(f)
    for m in result["mutants"]:
        if listing and m["sampled"] and m["found"] == "survived":
            print(said(m))
    killed, survived = summary(result)
    bad = sum(c != "survived" for c in result["controls"])
    print(f"controls: {len(result['controls'])}, {bad} of them took a right"
          " library for a wrong one")
    print(f"{killed + survived} faults: {killed} killed"
          f" ({100 * killed / max(1, killed + survived):.1f} %),"
          f" {survived} survived")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--san", action="store_true")
    parser.add_argument("--list", action="store_true")
    words = parser.parse_args()
    os.makedirs(WORK, exist_ok=True)
    if not words.list:
        Run(words).all()
    show(words.list)


if __name__ == "__main__":
    main()
