#!/usr/bin/env python3
"""Compares the library with the reference, event for event.

  compare.py [--cases N] [--seed S] [--programs DIRECTORY] [TARGET...]

Each target's corpus, then N generated inputs in all (20,000), are given to the
replay program of the target (--events) and to the reference.  The program plays
them whole and cut up; a difference between these is told as one from the
reference.
"""
import argparse
import os
import random
import struct
import subprocess
import sys

import frames
import generate
import handshake
import proxy
import resume
from story import Story

HERE = os.path.dirname(os.path.abspath(__file__))
CORPUS = os.path.join(HERE, "..", "corpus")


def frames_play(server):
    def play(story, config, data):
        frames.End(story, server, small=config & 2, echoes=config & 1,
                   closes=config & 4).feed(data)
    return play


def request_play(story, config, data):
    handshake.Server(story, config).feed(data)


# target: (reference, generator, configurations that are compared)
TARGETS = {
    "server_frames": (frames_play(True), generate.server_frames, range(8)),
    "client_frames": (frames_play(False), generate.client_frames, range(8)),
    "request": (request_play, generate.request, range(32)),
    "response": (handshake.client, generate.response, range(4)),
    "proxy": (proxy.play, generate.proxy, range(2)),
    "rtnet1": (resume.play, generate.rtnet1, (0, 2, 4, 6)),
}


class Library:
    """The replay program of one target, asked case by case."""

    def __init__(self, programs, target):
        path = os.path.join(programs, "test_replay_" + target)
        self.process = subprocess.Popen(
            [path, "--events"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)

    def ask(self, case):
        self.process.stdin.write(struct.pack(">I", len(case)) + case)
        self.process.stdin.flush()
        lines = []
        while True:
            line = self.process.stdout.readline()
            if not line:
                return lines + ["died"]
            if line == b"\n":
                return lines
            lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    def end(self):
        self.process.stdin.close()
        return self.process.wait() == 0


def show(name, case, story, told):
    print("FAIL %s\n  input %s" % (name, case.hex()))
    mine = [" | ".join(line) for line in story.lines()]
    for i in range(max(len(mine), len(told))):
        a = mine[i] if i < len(mine) else "-"
        b = told[i] if i < len(told) else "-"
        print("  %s reference %-40.300s library %.300s"
              % (" " if a == b else "*", a, b))


def compare(library, play, name, case):
    """1: alike, 0: not, None: nobody can say."""
    story = Story()
    told = library.ask(case)
    try:
        play(story, case[0], case[2:])
    except resume.Unsure:
        return None
    if story.fits(told):
        return 1
    show(name, case, story, told)
    return 0


def corpus(target):
    where = os.path.join(CORPUS, target)
    for name in sorted(os.listdir(where)):
        with open(os.path.join(where, name), "rb") as f:
            yield "%s/%s" % (target, name), f.read()


def generated(target, seed, cases):
    _, make, configs = TARGETS[target]
    for i in range(cases):
        r = random.Random("%s %d %d" % (target, seed, i))
        config = r.choice(configs)
        data = make(r, config & 2) if target == "rtnet1" else make(r)
        yield ("%s, seed %d, case %d" % (target, seed, i),
               bytes([config, 0]) + data)


def target_run(target, options):
    play, _, configs = TARGETS[target]
    library = Library(options.programs, target)
    cases = options.cases // len(TARGETS)
    passed = failed = skipped = 0
    for source in corpus(target), generated(target, options.seed, cases):
        for name, case in source:
            alike = None
            if len(case) > 1 and case[0] in configs:
                alike = compare(library, play, name, case)
            passed += alike == 1
            failed += alike == 0
            skipped += alike is None
            if failed >= options.most:
                return passed, failed
    if not library.end():
        print("FAIL %s: the program ended badly" % target)
        failed += 1
    print("%s: %d alike, %d not, %d left out"
          % (target, passed, failed, skipped))
    return passed, failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=5, help="failures shown")
    parser.add_argument("--programs", default="build/t")
    parser.add_argument("targets", nargs="*")
    options = parser.parse_args()
    passed = failed = 0
    for target in options.targets or TARGETS:
        one = target_run(target, options)
        passed += one[0]
        failed += one[1]
    print("%d passed, %d failed, 0 skipped" % (passed, failed))
    return failed != 0


sys.exit(main())
