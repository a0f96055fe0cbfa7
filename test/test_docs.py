#!/usr/bin/env python3
"""What the texts say is so.  The reference (make docs) has every name of the
header with its text; each program in a text compiles, the first servers answer;
commands, files, links and names that are told of are there.  BUILD= names
another directory than build.

Prints "N passed, N failed, N skipped" as its last line.
"""
import base64
import functools
import html.parser
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
TEXTS = ("README.md", "SECURITY.md", "examples/README.md", "bench/README.md",
         "bench/SCALING.md")
LIBRARY = ("rtnet.c", "ws.c", "session.c", "group.c", "ratelimit.c")
FLAGS = ("-std=c99 -O1 -Wall -Wextra -pedantic -Wshadow -Wconversion "
         "-Wstrict-prototypes -Wmissing-prototypes -Werror").split()
# A fragment uses what it shows nowhere, or uses what the host has.
FRAGMENT = ["-Wno-unused-function", "-Wno-unused-variable",
            "-Wno-unused-const-variable"]
PRELUDE = '#include "rtnet.h"\n#include <stdlib.h>\n#include <string.h>\n'
# What a reader has, or is told to install.
COMMANDS = {"cat", "cc", "ldconfig", "make", "pkg-config", "python3", "redis-server"}
PEERS = ("mg_", "lws_")  # their names are not ours to look after


class Skip(Exception):
    """Something that is needed is not installed."""


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        return f.read()


def run(*words, **more):
    """What the reader sees who types it: not what a make around us asks for."""
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("MAKE", "MFLAGS")) and name != "PORT"}
    return subprocess.run(words, cwd=more.pop("cwd", ROOT), text=True, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=120, check=False, **more)


# ---- the texts --------------------------------------------------------------


def blocks(text):
    """(language, code) of each fenced block, and of each one that is indented,
    which is a shell's."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
    yield from ((match[1], match[2]) for match in fence.finditer(text))
    rest = fence.sub("", text)
    for match in re.finditer(r"(?:^|\n)\n((?: {4}[^\n]*\n)+)", rest):
        yield "sh", re.sub(r"^ {4}", "", match[1], flags=re.M)


def blocks_of(language):
    return [(name, code) for name in TEXTS
            for kind, code in blocks(read(name)) if kind == language]


def header_program():
    """The program in the header's first comment."""
    lines = read("rtnet.h").split("*/")[0].split("\n")
    lines = lines[lines.index(' *   #include "rtnet.h"'):]
    return "".join(line[5:] + "\n" for line in lines[:lines.index(" *")])


def every_block_says_what_it_is():
    for name in TEXTS:
        for kind, code in blocks(read(name)):
            assert kind in ("c", "sh"), f"{name}: {kind or 'nothing'}:\n{code}"


# ---- programs ---------------------------------------------------------------


def compilers():
    return [c for c in ("cc", "gcc", "clang") if shutil.which(c)]


def compiled(code, *flags):
    for compiler in compilers():
        done = run(compiler, *FLAGS, *flags, "-I.", "-x", "c", "-fsyntax-only",
                   "-", input=code)
        assert done.returncode == 0, f"{compiler}: {done.stdout}\n{code}"


def every_program_in_the_texts_compiles():
    programs = blocks_of("c")
    assert len(programs) >= 4, len(programs)
    for _, code in programs:
        if "int main(" in code:
            compiled(code)
        else:
            compiled(PRELUDE + code, *FRAGMENT)
    whole = [name for name, code in programs if "int main(" in code]
    assert whole == ["README.md"], f"who links and runs the others? {whole}"
    compiled(header_program(), "-Wno-unused-parameter")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def dial(port):
    """A WebSocket connection to /, by hand."""
    until = time.monotonic() + 10
    while True:
        try:
            line = socket.create_connection(("127.0.0.1", port), 10)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < until, "nobody listens"
            time.sleep(0.02)
    key = base64.b64encode(bytes(range(16))).decode()
    line.sendall(f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: "
                 "websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
                 f"13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += line.recv(1)  # an end shows as a time-out of the whole
        assert answer, "the server hung up"
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return line


def say(line, text):
    mask, data = b"\1\2\3\4", text.encode()
    line.sendall(bytes([0x81, 0x80 | len(data)]) + mask +
                 bytes(b ^ mask[i % 4] for i, b in enumerate(data)))


def hear(line):
    head = line.recv(2, socket.MSG_WAITALL)
    assert len(head) == 2 and head[0] == 0x81, head
    return line.recv(head[1], socket.MSG_WAITALL).decode()


def serves(code, command):
    """Builds a server, in a directory with copies of the library, as it is
    told, and talks to it from two clients."""
    port = free_port()
    code = code.replace("0.0.0.0:9000", f"127.0.0.1:{port}")
    assert str(port) in code, code
    words = shlex.split(command)
    with tempfile.TemporaryDirectory() as there:
        for name in (*LIBRARY, "rtnet.h", "rtnet_internal.h"):
            shutil.copy(os.path.join(ROOT, name), there)
        source = [w for w in words if w.endswith(".c")][0]
        with open(f"{there}/{source}", "w", encoding="ascii") as f:
            f.write(code)
        done = run(*words, cwd=there)
        assert done.returncode == 0 and not done.stdout, done.stdout
        server = words[words.index("-o") + 1] if "-o" in words else "a.out"
        with subprocess.Popen([f"{there}/{server}"]) as child:
            try:
                with dial(port) as a, dial(port) as b:
                    say(a, "hello")
                    assert hear(a) == hear(b) == "hello"
            finally:
                child.kill()


def the_first_server_is_built_as_told_and_answers():
    programs = [code for kind, code in blocks(read("README.md"))
                if kind == "c" and "int main(" in code]
    lines = [line for name, code in blocks_of("sh") if name == "README.md"
             for line in code.split("\n") if line.startswith("cc -O2")]
    assert len(programs) == 1 and len(lines) == 1, (programs, lines)
    serves(programs[0], lines[0])


def the_server_of_the_header_is_built_as_told_and_answers():
    head = re.sub(r"\n \* ?", " ", read("rtnet.h").split("*/")[0])
    line = re.search(r"cc chat\.c[\w. ]+?\.c(?= {2})", head)[0]
    serves(header_program(), line)


# ---- commands, files, names -------------------------------------------------


def targets():
    makefile = read("Makefile").replace("\\\n", " ")
    return set(" ".join(re.findall(r"^\.PHONY: (.*)", makefile, re.M)).split())


def mentioned(word, *where):
    """Is it a word of some file that is no text?"""
    found = run("git", "grep", "-q", "-w", "-F", "-e", word, "--",
                *(where or (".", ":!*.md")))
    return found.returncode == 0


def makes(name, words):
    for word in words:
        if "=" in word:
            assert re.search(rf"^{word.split('=')[0]} \??=|\$\(" +
                             word.split("=")[0] + r"\)", read("Makefile"),
                             re.M), f"{name}: make {word}"
        else:
            assert word in targets(), f"{name}: make {word}"


def program(name, path, words):
    """A program of the project: it can be made, and has these options."""
    if path.startswith("build/"):
        assert run("make", "-n", path).returncode == 0, f"{name}: {path}"
    else:
        assert os.access(os.path.join(ROOT, path), os.X_OK), f"{name}: {path}"
    for word in words:
        if word.startswith("--") and len(word) > 2:
            option = word[2:].split("=")[0]
            assert mentioned(option, "bench", "examples", ":!*.md"), \
                f"{name}: {path} {word}"


def commands(code):
    """The simple commands of a shell's lines, each a list of words."""
    code = re.sub(r"\$\((.*?)\)", r"; \1 ;", code.replace("\\\n", " "))
    for line in code.split("\n"):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>()")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words = []
        for word in [*lexer, ";"]:
            if word in ("&", "&&", "|", ";"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def obeys(name, words):
    while re.match(r"[A-Z]+=", words[0]):
        variable = words.pop(0).split("=")[0]
        assert mentioned(variable, "bench", "test", "Makefile"), \
            f"{name}: {variable}"
    first = words[0]
    if first == "make":
        makes(name, words[1:])
    elif first in ("cc", "c++"):
        for word in words[1:]:
            assert not word.endswith((".c", ".cpp")) or word == "server.c" or \
                os.path.exists(os.path.join(ROOT, word)), f"{name}: {word}"
    elif first.startswith(("build/", "bench/", "test/")):
        program(name, first, words[1:])
    else:
        assert first in COMMANDS or first == "./server", f"{name}: {words}"


def every_command_in_the_texts_is_there():
    count = 0
    for name, code in blocks_of("sh"):
        for words in commands(code):
            obeys(name, words)
            count += 1
    assert count >= 30, f"only {count} commands: misread?"
    for name in TEXTS:
        for match in re.finditer(r"`make\s([^`]*)`", read(name)):
            makes(name, match[1].split())


def demo_serves_where_it_says():
    done = run("make", "-n", "demo", "PORT=8000")
    assert done.stdout.rstrip().endswith("build/arena 8000"), done.stdout
    done = run("make", "-n", "demo")
    assert done.stdout.rstrip().endswith("build/arena 9000"), done.stdout


def every_file_that_is_named_is_there():
    for name in TEXTS:
        text = read(name)
        for match in re.finditer(r"`((?:test|bench|examples|build)/[\w./-]+)`",
                                 text):
            path = match[1].rstrip("/")
            assert os.path.exists(os.path.join(ROOT, path)) or \
                mentioned(os.path.basename(path)), f"{name}: {path}"
        for match in re.finditer(r"\]\((?!https?:)([^)#]+)", text):
            path = os.path.join(ROOT, os.path.dirname(name), match[1])
            assert os.path.exists(path), f"{name}: {match[1]}"


def examples_are_as_long_as_told():
    told = re.findall(r"^\| \[`([\w.]+)`\].*?\| (\d+) \|",
                      read("examples/README.md"), re.M)
    assert len(told) >= 6, told
    for name, lines in told:
        real = read(f"examples/{name}").count("\n")
        assert abs(real - int(lines)) <= 20, f"{name}: {real}"


def every_name_that_is_told_of_is_there():
    public = {name for name, _ in declared()}
    tests = os.listdir(f"{ROOT}/test") + os.listdir(f"{ROOT}/test/fuzz")
    for name in TEXTS:
        text = read(name)
        for word in set(re.findall(r"\b(?:rt|RT)_[A-Za-z]\w+", text)):
            assert word in public or mentioned(word, "*.c", "rtnet_internal.h",
                                               ":!*/*"), f"{name}: {word}"
        for word in set(re.findall(r"`(on_[a-z]+)", text)):
            assert word[3:] in public, f"{name}: {word}"
        for word in set(re.findall(r"`\.?([a-z]+(?:_[a-z]+)+)\b", text)):
            word = word.replace("test_replay_", "fuzz_")
            assert word.startswith(PEERS) or mentioned(word) or \
                any(f.startswith(word) for f in tests), f"{name}: {word}"


def the_readme_is_short():
    assert read("README.md").count("\n") <= 330, read("README.md").count("\n")


def the_picture_of_the_turn_has_its_phases_in_light_and_dark():
    phases = "wait posts sockets timers events closing flush free".split()
    root = xml.etree.ElementTree.fromstring(read("examples/turn.svg"))
    said = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")
            if t.get("class") == "h m"]
    assert said == phases, said
    assert "prefers-color-scheme:dark" in read("examples/turn.svg")
    turn = re.search(r"A turn of the loop: (.*?)\.", re.sub(
        r"\n \* ?", " ", read("rtnet.h")))[1]
    assert re.sub(r" \(.*?\)", "", turn).split(", ") == phases, turn


# ---- the reference ----------------------------------------------------------


def where(node):
    """Where a declaration stands in the header, or None for another file's."""
    loc = node.get("loc", {})
    loc = loc.get("spellingLoc", loc)
    return None if "includedFrom" in loc else loc.get("offset")


@functools.lru_cache(None)
def declared():
    """(name, offset) of all that the header declares, as clang reads it."""
    if not shutil.which("clang"):
        raise Skip("there is no clang, run test/install-deps.sh")
    done = run("clang", "-std=c99", "-fsyntax-only", "-Xclang",
               "-ast-dump=json", "-x", "c", "rtnet.h")
    found = [(m[1], m.start(1)) for m in
             re.finditer(r"^#define (RT_\w+)", read("rtnet.h"), re.M)
             if m[1] != "RT_ERROR_ENUM"]
    left = [json.loads(done.stdout)]
    while left:
        node = left.pop()
        left += node.get("inner", ()) if node["kind"] in (
            "TranslationUnitDecl", "RecordDecl", "EnumDecl") else ()
        if node["kind"] in ("FunctionDecl", "TypedefDecl", "RecordDecl",
                            "EnumDecl", "EnumConstantDecl", "FieldDecl") and \
                node.get("name") and where(node) is not None:
            found.append((node["name"], where(node)))
    assert len(found) > 300, f"only {len(found)} names: misread?"
    return found


class Page(html.parser.HTMLParser):
    """entries: [title, text] of what follows each heading; ids; links."""

    def __init__(self):
        super().__init__()
        self.entries, self.ids, self.links = [["", ""]], set(), set()
        self.title = False

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        self.links.add(attrs.get("href"))
        if tag in ("h1", "h2", "h3"):
            self.entries.append(["", ""])
            self.title = True

    def handle_endtag(self, tag):
        if tag in ("h1", "h2", "h3"):
            self.title = False

    def handle_data(self, data):
        self.entries[-1][0 if self.title else 1] += data


def words(text):
    return re.findall(r"\w+", text)


@functools.lru_cache(None)
def reference(suffix):
    if not shutil.which("lowdown"):
        raise Skip("there is no lowdown, run test/install-deps.sh")
    done = run("make", "--no-print-directory", "docs", f"BUILD={BUILD}")
    assert done.returncode == 0, done.stdout
    with open(f"{BUILD}/docs/rtnet.{suffix}", encoding="utf-8") as f:
        return f.read()


def page():
    parsed = Page()
    parsed.feed(reference("html"))
    return parsed


def paragraphs():
    """(start, end, text) of what stands between empty lines of the header."""
    header = read("rtnet.h")
    return [(m.start(), m.end(), m[0])
            for m in re.finditer(r"(?:.+\n)+", header)]


def every_name_of_the_header_is_in_the_reference_with_its_text():
    entries = [(words(title), words(text)) for title, text in page().entries]
    parts = paragraphs()
    for name, at in declared():
        said = [words(text) for start, end, text in parts if start <= at < end]
        assert len(said) == 1, name
        assert any(said[0] == text and (name in title or name in text)
                   for title, text in entries), f"{name}: {' '.join(said[0])}"


def all_other_prose_of_the_header_is_in_the_reference():
    whole = " ".join(words(" ".join(a + " " + b for a, b in page().entries)))
    for _, _, text in paragraphs():
        if not text.startswith("/*"):
            continue
        text = re.sub(r"^ \* \d\. ", "", text.split("*/")[0], flags=re.M)
        said = " ".join(words(text))
        assert said.lower() in whole.lower(), said


def links_of_the_reference_lead_somewhere():
    parsed = page()
    wanted = {link[1:] for link in parsed.links if link}
    assert len(wanted) > 90, len(wanted)
    assert not wanted - parsed.ids, wanted - parsed.ids


def the_man_page_has_every_call():
    man = reference("3").replace("\\-", "-")
    for name in re.findall(r"^[a-z].*[ *](rt_\w+)\(", read("rtnet.h"), re.M):
        assert re.search(rf"^(.*, )?{name}\b", man, re.M), name


def the_reference_names_no_machine():
    for suffix in ("html", "3"):
        made = reference(suffix)
        for path in (ROOT, os.path.expanduser("~") + "/", "/tmp/",
                     socket.gethostname()):
            assert path not in made, path


CASES = (every_block_says_what_it_is, every_program_in_the_texts_compiles,
         the_first_server_is_built_as_told_and_answers,
         the_server_of_the_header_is_built_as_told_and_answers,
         every_command_in_the_texts_is_there, demo_serves_where_it_says,
         every_file_that_is_named_is_there, examples_are_as_long_as_told,
         every_name_that_is_told_of_is_there,
         the_readme_is_short,
         the_picture_of_the_turn_has_its_phases_in_light_and_dark,
         every_name_of_the_header_is_in_the_reference_with_its_text,
         all_other_prose_of_the_header_is_in_the_reference,
         links_of_the_reference_lead_somewhere, the_man_page_has_every_call,
         the_reference_names_no_machine)


def main():
    failed, missed = 0, 0
    for case in CASES:
        try:
            case()
        except Skip as why:
            missed += 1
            print(f"SKIP {case.__name__}: {why}")
        except Exception:  # a text that cannot be read is a failed case, too
            failed += 1
            print(f"FAIL {case.__name__}")
            traceback.print_exc(file=sys.stdout)
    passed = len(CASES) - failed - missed
    print(f"{passed} passed, {failed} failed, {missed} skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
