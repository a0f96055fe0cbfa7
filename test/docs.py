#!/usr/bin/env python3
"""The reference from the header: docs.py HEADER DIRECTORY writes rtnet.html
and the man page rtnet.3 there; lowdown makes both from Markdown (make docs).

rtnet.h is prose above declarations, and several of these may share what is said
of them.  So an entry of the reference is what stands between two empty lines of
the header: the names that it declares, what is said, and the code, in which the
comments of members stay where they are.
"""
import os
import re
import shutil
import subprocess
import sys

HIDDEN = re.compile(r"#(if|endif|include)")
SECTION = re.compile(r"-{4} (.*?) -*$")
# How a declaration begins whose name is its own: a macro, an enum, a function,
# a type.
NAMED = re.compile(r"#define (?!RT_ERROR_ENUM)(RT_\w+)|(enum rt_\w+)"
                   r"|[a-z][\w ]*[ *](rt_\w+)\(|typedef [^;{]*?(rt_\w+)\)?[(;]"
                   r"|} (rt_\w+);")
CONSTANT = re.compile(r"\bRT_[A-Z0-9_]+\b")
STYLE = """body { max-width: 50em; margin: 2em auto; padding: 0 1em;
  font: 16px/1.5 sans-serif; color: #222; background: #fff }
pre { padding: .6em 1em; overflow: auto; line-height: 1.35;
  background: #f2f3f5; border-radius: 4px }
pre, code { font-size: 14px } a { color: #0b5cad; text-decoration: none }
h2 { margin-top: 2.5em; border-bottom: 1px solid #8888 }
h3 { margin-top: 2em; font-size: 16px }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181a1b } pre { background: #26292b }
  a { color: #7ab8f5 } }"""


def parts(header):
    """(what is said, code) of each part between empty lines."""
    for part in re.split(r"\n\n+", header):
        found = re.match(r"\s*/\*(.*?)\*/", part, re.S)
        said = found.group(1) if found else ""
        code = part[found.end():] if found else part
        lines = [re.sub(r"^ \* ?|^ {3}(?=\S)", "", line)
                 for line in said.rstrip().split("\n")]
        yield [line.strip() if i == 0 else line
               for i, line in enumerate(lines)], code.strip("\n")


def names(code):
    """The names that a part declares; constants alone where nothing else has
    one."""
    bare = re.sub(r"/\*.*?\*/", "", code, flags=re.S)
    found = []
    for line in bare.split("\n"):
        match = NAMED.match(line)
        if match:
            found += [name for name in match.groups() if name]
    return found or CONSTANT.findall(bare)


def anchors(entries):
    """Name to the anchor of its entry: constants lead to their enum."""
    to = {}
    for _, code, declared in entries:
        listed = re.findall(r"(?:^ {4}(?:X\()?|[{,] )(RT_\w+)", code, re.M)
        for name in declared + listed:
            to.setdefault(name.split()[-1], declared[0].split()[-1])
    return to


def escaped(text, to):
    """Prose: nothing is Markdown's, and the names of entries are links."""
    def name(match):
        anchor = to.get(match[0])
        return f"[`{match[0]}`](#{anchor})" if anchor else plain(match[0])

    def plain(words):
        return re.sub(r"([\\`*_<>\[\]#&~^=])", r"\\\1", words)
    out, last = [], 0
    for match in re.finditer(r"\b(rt|RT)_\w+\b", text):
        out += [plain(text[last:match.start()]), name(match)]
        last = match.end()
    return "".join(out) + plain(text[last:])


def item(line, following, width):
    """How far an item of a list indents, or 0: "1. text", "name  text"."""
    match = re.match(r"(\d+\.|[a-z]+) +", line)
    if not match:
        return 0
    indent = len(match[0])
    again = re.match(rf" {{{indent}}}\S", following)
    return indent if again or indent == width else 0


def prose(lines, to):
    """Markdown of what is said: paragraphs, lists, programs."""
    out, width = [], 0
    for at, line in enumerate(lines):
        following = lines[at + 1] if at + 1 < len(lines) else ""
        indent = item(line, following, width)
        if indent:
            width = indent
            term, text = line[:indent].strip(), escaped(line[indent:], to)
            mark = term if term[-1] == "." else f"* `{term}`:"
            out.append(("\n" if mark != term else "") + f"{mark} {text}")
        elif line.startswith("  ") and not width:
            out.append("  " + line)
        else:
            width = width if line.startswith(" ") or not line else 0
            out.append(("    " if width else "") +
                       escaped(line.strip(), to))
    return "\n".join(out)


def entry(said, code, declared, to):
    title = escaped(", ".join(declared), {})
    anchor = f" {{#{declared[0].split()[-1]}}}" if to else ""
    return (f"### {title}{anchor}\n\n{prose(said, to)}\n\n"
            f"```c\n{code}\n```\n")


def contents(sections):
    """A line for each section, with a link to each of its entries."""
    return "\n".join(
        f"* {title}: " + ", ".join(f"[`{name}`](#{name})" for name in listed)
        for title, listed in sections) + "\n"


def titled(text):
    return text[0].upper() + text[1:]


def markdown(header, linked):
    """The page; in a man page links would only be noise."""
    whole = [(said, code, names(code)) for said, code in parts(header)]
    head = whole[0][0]
    whole = [w for w in whole[1:] if not HIDDEN.match(w[1])]
    to = anchors([w for w in whole if w[2]]) if linked else {}
    out, sections = [], [("words, errors, options", [])]
    for said, code, declared in whole:
        section = SECTION.match(said[0])
        if section:
            sections.append((section[1], []))
            out.append(f"## {titled(section[1])}\n\n"
                       f"{prose(said[1:], to)}\n")
        elif declared:
            sections[-1][1].append(declared[0].split()[-1])
            out.append(entry(said, code, declared, to))
    return "\n\n".join([prose(head, to), contents(sections) if linked else "",
                        f"## {titled(sections[0][0])}", *out])


def lowdown(page, *options):
    return subprocess.run(["lowdown", *options], input=page, text=True,
                          stdout=subprocess.PIPE, check=True).stdout


def main(header, directory):
    with open(header, encoding="ascii") as f:
        text = f.read()
    os.makedirs(directory, exist_ok=True)
    html = lowdown("# rtnet.h\n\n" + markdown(text, True), "-thtml",
                   "--parse-no-intraemph")
    with open(f"{directory}/rtnet.html", "w", encoding="utf-8") as f:
        f.write("<!DOCTYPE html>\n<html lang='en'>\n<meta charset='utf-8'>\n"
                f"<title>rtnet.h</title>\n<style>{STYLE}</style>\n{html}")
    page = "# Name\n\nrtnet - " + markdown(text, False).split(": ", 1)[1]
    man = lowdown(page, "-s", "-tman", "--out-no-smarty", "-Mtitle=rtnet",
                  "-Msection=3", "-Mdate=")
    with open(f"{directory}/rtnet.3", "w", encoding="utf-8") as f:
        f.write(man)


if __name__ == "__main__":
    if not shutil.which("lowdown"):
        sys.exit("docs: there is no lowdown (a package of Debian's)")
    main(*sys.argv[1:])
