"""The small faults that mutate.py puts into the library: where they can be,
and in what order a seed takes them."""
import collections
import hashlib
import re

# One fault: text[start:end] of a file becomes `after`.
Mutant = collections.namedtuple(
    "Mutant", "file function line start end before after operator shown nth")

TOKEN = re.compile(
    r"(?P<skip>/\*.*?\*/|[ \t\n]+|^[ \t]*\#(?:[^\n]|\\\n)*$)"
    r"|(?P<text>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')"
    r"|(?P<number>0[xX][0-9a-fA-F]+[uUlL]*|\d[\d.eE]*[uUlL]*)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>->|\+\+|--|<<=|>>=|<<|>>|[<>=!]=|&&|\|\||[-+*/%&|^]=|\.\.\.|.)",
    re.S | re.M)

RELATION = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=",
            "!=": "=="}
SUM = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*", "&": "|", "|": "&",
       "^": "&", "<<": ">>", ">>": "<<", "+=": "-=", "-=": "+=", "|=": "&=",
       "&=": "|=", "++": "--", "--": "++"}
LOGIC = {"&&": "||", "||": "&&"}
# What may stand before an operator of two sides.
SIDE = ("number", "name", "text")
WORDS = ("return", "case", "sizeof", "else", "do", "goto")


class Token:
    def __init__(self, kind, text, start):
        self.kind, self.text, self.start = kind, text, start
        self.end = start + len(text)


def tokens_of(text):
    found = []
    for m in TOKEN.finditer(text):
        if m.lastgroup != "skip":
            found.append(Token(m.lastgroup, m.group(), m.start()))
    return found


def bodies(tokens):
    """[(function, first, last)]: the indices of the braces of each body."""
    found, depth, first = [], 0, None
    for i, t in enumerate(tokens):
        if t.text == "{":
            if depth == 0 and tokens[i - 1].text == ")":
                first = i
            depth += 1
        elif t.text == "}":
            depth -= 1
            if depth == 0 and first is not None:
                found.append((name_before(tokens, first), first, i))
                first = None
    return found


def name_before(tokens, brace):
    i = opening(tokens, brace - 1)
    return tokens[i - 1].text


def opening(tokens, i):
    """The index of the ( that the ) at i closes."""
    depth = 0
    while True:
        depth += (tokens[i].text == ")") - (tokens[i].text == "(")
        if depth == 0:
            return i
        i -= 1


def closing(tokens, i):
    depth = 0
    while True:
        depth += (tokens[i].text == "(") - (tokens[i].text == ")")
        if depth == 0:
            return i
        i += 1


def two_sided(before):
    return (before.kind in SIDE and before.text not in WORDS) or \
        before.text in (")", "]")


def signs(tokens, i):
    """[(operator, start, end, after)] of the sign at i."""
    t, before = tokens[i], tokens[i - 1]
    if t.text in RELATION:
        return [("relation", t.start, t.end, RELATION[t.text])]
    if t.text in LOGIC:
        return [("logic", t.start, t.end, LOGIC[t.text])]
    if t.text in SUM and (two_sided(before) or t.text in ("++", "--")):
        return [("arithmetic", t.start, t.end, SUM[t.text])]
    return []


def number(tokens, i):
    t = tokens[i]
    if "." in t.text or "x" in t.text and len(t.text) > 6:
        return []
    return [("constant", t.start, t.end, f"({t.text} + 1)"),
            ("constant", t.start, t.end, f"({t.text} - 1)")]


def condition(tokens, i):
    """if (x), while (x): the opposite."""
    if tokens[i + 1].text != "(":
        return []
    first, last = tokens[i + 1], tokens[closing(tokens, i + 1)]
    return [("condition", first.start, last.end, None)]


def answer(tokens, i):
    """return x; something else comes back."""
    j = i + 1
    if tokens[j].text == ";":
        return []
    while tokens[j].text != ";":
        j += 1
    start, end = tokens[i + 1].start, tokens[j].start
    zero = j == i + 2 and tokens[i + 1].text in ("0", "NULL")
    return [("return", start, end, "1" if zero else "0")]


def jump(tokens, i):
    t = tokens[i]
    other = "continue" if t.text == "break" else "break"
    return [("jump", t.start, t.end, other)]


def begins_statement(tokens, i):
    before = tokens[i - 1].text
    if before in ("{", "}", ";", "else", ":"):
        return True
    if before != ")":
        return False
    word = tokens[opening(tokens, i - 1) - 1].text
    return word in ("if", "while", "for", "switch")


def statement(tokens, i):
    """A call or an assignment is left out."""
    if not begins_statement(tokens, i) or tokens[i].text in KEYWORDS:
        return []
    j, depth, does = i, 0, False
    while tokens[j].text != ";" or depth:
        text = tokens[j].text
        depth += (text in "([") - (text in ")]")
        does = does or text in "(" or text.endswith("=") or \
            text in ("++", "--")
        if text in "{}" or depth < 0 or declares(tokens, i):
            return []
        j += 1
    if not does:
        return []
    return [("statement", tokens[i].start, tokens[j].end, ";")]


KEYWORDS = ("if", "while", "for", "switch", "return", "break", "continue",
            "case", "default", "do", "else", "goto", "struct", "const",
            "static", "enum", "union", "unsigned", "int", "char", "}", "{",
            ";", ")", "(")


def declares(tokens, i):
    """name name, name *name."""
    if tokens[i].kind != "name":
        return False
    after = tokens[i + 1]
    return after.kind == "name" or (
        after.text == "*" and tokens[i + 2].kind == "name"
        and tokens[i + 3].text in ("=", ";", ",", "["))


def places(tokens, i):
    t = tokens[i]
    found = statement(tokens, i)
    if t.kind == "sign":
        found = found + signs(tokens, i)
    elif t.kind == "number":
        found = found + number(tokens, i)
    elif t.text in ("if", "while"):
        found = found + condition(tokens, i)
    elif t.text == "return":
        found = found + answer(tokens, i)
    elif t.text in ("break", "continue"):
        found = found + jump(tokens, i)
    return found


def shown_line(text, start, end, after, operator):
    """The line as it becomes, which names the fault in the lists."""
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", start)
    if operator == "statement":
        return "left out: " + text[first:last].strip()
    if end > last:  # several lines
        return f"{operator}: " + text[first:last].strip()
    return (text[first:start] + after + text[end:last]).strip()


def all_of(file, text):
    """Every fault that this file can have."""
    found, seen = [], collections.Counter()
    tokens = tokens_of(text)
    for function, first, last in bodies(tokens):
        for i in range(first + 1, last):
            for operator, start, end, after in places(tokens, i):
                before = text[start:end]
                if after is None:
                    after = f"(!{before})"
                shown = shown_line(text, start, end, after, operator)
                seen[function, shown] += 1
                found.append(Mutant(
                    file, function, text.count("\n", 0, start) + 1, start,
                    end, before, after, operator, shown,
                    seen[function, shown]))
    return found


def identity(mutant):
    """The same from one version of the file to the next."""
    return f"{mutant.file}:{mutant.function}:{mutant.shown}:{mutant.nth}"


def order(found, seed):
    """The order in which a seed takes them: one of each operator in turn."""
    lots = collections.defaultdict(list)
    for mutant in found:
        word = f"{seed}:{identity(mutant)}".encode()
        lots[mutant.operator].append(
            (hashlib.sha256(word).hexdigest(), mutant))
    for lot in lots.values():
        lot.sort(key=lambda pair: pair[0], reverse=True)
    ordered = []
    while any(lots.values()):
        for operator in sorted(lots):
            if lots[operator]:
                ordered.append(lots[operator].pop()[1])
    return ordered
