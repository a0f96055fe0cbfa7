"""Requests and answers: RFC 7230's grammar and RFC 6455, section 4, as far as
README.md and rtnet.h say what is taken.

A head may be wrong in more than one way; each way has its status, and any of
them is a right answer.
"""
import base64
import hashlib
import ipaddress
import re

import frames

TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TOKEN = re.compile(TCHAR + rb"+\Z")
LINE = re.compile(rb"(" + TCHAR + rb"+):[ \t]*(.*?)[ \t]*\Z", re.S)
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
# RFC 3986, 3.2.2 and 3.2.3
REG_NAME = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+"
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|" + REG_NAME + rb")(?::[0-9]*)?\Z")
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MOST_LINES = 64


def tokens(value):
    """Of a comma list: its elements, trimmed."""
    return [e.strip(b" \t") for e in value.split(b",")]


class Head:
    """The lines of a head, without its empty one; .faults: statuses."""

    def __init__(self, text):
        self.faults = set()
        first, *rest = text[:-4].split(b"\r\n")
        self.first = first
        self.fields = []
        if len(rest) > MOST_LINES:
            self.faults.add(431)
        if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]",
                     text.replace(b"\r\n", b"")):
            self.faults.add(400)
        for line in rest:
            self.field(line)

    def field(self, line):
        m = LINE.match(line)
        if not m or not VALUE.match(m.group(2)):
            self.faults.add(400)
        else:
            self.fields.append((m.group(1).lower(), m.group(2)))

    def all(self, name):
        return [v for n, v in self.fields if n == name]

    def has(self, name, word):
        return any(word in [t.lower() for t in tokens(v)]
                   for v in self.all(name))


def head_end(data):
    """How long the head is; None: it has no end.  The empty line is that
    behind a line."""
    at = data.find(b"\r\n\r\n")
    return None if at < 0 else at + 4


def broken(data):
    """Does it hold what no head may, already?"""
    if data.endswith(b"\r"):
        data = data[:-1]
    return re.search(rb"[\x00-\x08\x0a-\x1f\x7f]",
                     data.replace(b"\r\n", b"")) is not None


# ---- the server's side -------------------------------------------------------

def request_line(head):
    parts = head.first.split(b" ")
    if len(parts) != 3:
        head.faults.add(400)
        parts = [b"", b"", b""]
    head.method, head.target, head.version = parts
    if not TOKEN.match(head.method):
        head.faults.add(400)
    elif head.method not in (b"GET", b"HEAD", b"POST"):
        head.faults.add(405)
    if not re.match(rb"/[\x21-\x7e]*\Z", head.target) or b"#" in head.target:
        head.faults.add(400)
    if not re.match(rb"HTTP/[0-9]\.[0-9]\Z", head.version):
        head.faults.add(400)
    elif head.version not in (b"HTTP/1.0", b"HTTP/1.1"):
        head.faults.add(505)


def body_length(head, most):
    """RFC 7230, 3.3: a length is digits and comes once; no coding is known."""
    lengths = head.all(b"content-length")
    head.length = 0
    if len(lengths) > 1 or (lengths and not re.match(rb"[0-9]+\Z",
                                                     lengths[0])):
        head.faults.add(400)
    elif lengths:
        head.length = int(lengths[0])
        if head.length >= 1 << 63:  # a number of 64 bits may be too small
            head.faults.add(400)
        if head.length > most:
            head.faults.add(413)
    if head.all(b"transfer-encoding"):
        head.faults.add(400 if lengths or head.upgrade else 501)


def host_header(head):
    hosts = head.all(b"host")
    if len(hosts) > 1 or (hosts and not HOST.match(hosts[0])):
        head.faults.add(400)
    if not hosts and head.version == b"HTTP/1.1":
        head.faults.add(400)
    head.host = hosts[0] if hosts else b""


def key_good(key):
    """16 bytes in base64, spelt as an encoder does."""
    try:
        return len(key) == 24 and base64.b64encode(
            base64.b64decode(key, validate=True)) == key
    except ValueError:
        return False


def upgrade_rules(head):
    """RFC 6455, 4.2.1 and 4.4"""
    versions = head.all(b"sec-websocket-version")
    keys = head.all(b"sec-websocket-key")
    if len(versions) > 1:
        head.faults.add(400)
    elif versions != [b"13"]:
        head.faults.add(426)
    if head.version != b"HTTP/1.1" or head.method != b"GET" or head.length:
        head.faults.add(400)
    if not head.has(b"connection", b"upgrade"):
        head.faults.add(400)
    if len(keys) != 1 or not key_good(keys[0]):
        head.faults.add(400)
    for offer in head.all(b"sec-websocket-protocol"):
        if not all(TOKEN.match(t) for t in tokens(offer)):
            head.faults.add(400)


def authority(text, port):
    text = text.lower()
    return text[:-len(port)] if text.endswith(port) else text


def origin_good(head, any_origin):
    """rtnet.h: none, or a page of the same host."""
    origins = head.all(b"origin")
    if not origins:
        return True
    if len(origins) > 1:
        return False
    if any_origin:
        return True
    m = re.match(rb"(?i)(http|https)://(.+)\Z", origins[0], re.S)
    if not m:
        return False
    port = b":443" if m.group(1).lower() == b"https" else b":80"
    host = authority(head.host, port)
    return host != b"" and authority(m.group(2), port) == host


def request_head(text, most_body):
    head = Head(text)
    request_line(head)
    head.upgrade = head.has(b"upgrade", b"websocket")
    host_header(head)
    body_length(head, most_body)
    expects = head.all(b"expect")
    head.expects = bool(expects) and head.version == b"HTTP/1.1"
    if head.expects and expects[0].lower() != b"100-continue":
        head.faults.add(417)
    if head.upgrade:
        upgrade_rules(head)
    head.keeps = head.version == b"HTTP/1.1" and not head.has(
        b"connection", b"close")
    return head


def query_value(query, name):
    """The first of that name, decoded; None: absent or wrong."""
    for part in query.split(b"&"):
        key, _, value = part.partition(b"=")
        if key != name:
            continue
        value = value.replace(b"+", b" ")
        if re.search(rb"%(?![0-9A-Fa-f]{2})", value):
            return None
        value = re.sub(rb"%(..)", lambda m: bytes([int(m.group(1), 16)]),
                       value)
        return value if len(value) < 16 and b"\0" not in value else None
    return None


class Server:
    """config: as in fuzz_request.c; tell: what on_request tells, and what it
    says: a status, or 0 for 200 or an upgrade."""

    def __init__(self, story, config):
        self.story, self.config = story, config
        self.most_head = 256 if config & 4 else 8192
        self.most_body = 8 if config & 4 else 65536
        self.closed = False

    def answer(self, statuses, more="", closes=True):
        self.story.data.append(tuple(
            "answer %d%s%s" % (s, more, " close" if closes else "")
            for s in sorted(statuses)))
        if closes:
            self.close()

    def close(self):
        self.closed = True
        self.story.tell("control", "eof")

    def feed(self, data):
        while data and not self.closed:
            data = self.request(data)

    def request(self, data):
        """Deals with the first one; returns what is behind it."""
        end = head_end(data)
        if end is None or end > self.most_head:
            self.cut_short(data)
            return b""
        head = request_head(data[:end], self.most_body)
        if head.faults:
            self.answer(head.faults)
            return b""
        if head.expects and head.length:
            self.answer((100,), closes=False)
        head.body = data[end:end + head.length]
        if len(head.body) < head.length:
            return b""
        self.decide(head, data[end + head.length:])
        return data[end + head.length:]

    def cut_short(self, data):
        """The head is too long, or there is no more of it."""
        faults = {431} if len(data) >= self.most_head else set()
        if broken(data[:self.most_head]):
            faults.add(400)
        if faults:
            self.answer(faults)

    def decide(self, head, behind):
        if head.upgrade and not origin_good(head, self.config & 8):
            self.answer((403,))
            return
        status = self.ask(head)
        if status:
            self.answer((status,))
        elif head.upgrade:
            self.open(head, behind)
        else:
            self.answer((200,), closes=not head.keeps)

    def ask(self, head):
        """What on_request tells, and what it answers."""
        who = self.config & 3
        if who == 0:
            return 0 if head.upgrade else 426
        path, _, query = head.target.partition(b"?")
        self.story.tell("app", "request " + head.method.decode())
        self.story.tell("app", "path", path)
        self.story.tell("app", "query", query)
        self.story.tell("app", "body", head.body)
        self.story.tell("app", "upgrade" if head.upgrade else "plain")
        if query_value(query, b"a") is not None:
            self.story.tell("app", "a",  query_value(query, b"a"))
        if head.all(b"x-a"):
            self.story.tell("app", "x-a", head.all(b"x-a")[0])
        return 403 if who == 2 else 0

    def open(self, head, behind):
        key = head.all(b"sec-websocket-key")[0]
        more = " " + base64.b64encode(
            hashlib.sha1(key + GUID).digest()).decode()
        if self.config & 3 and self.config & 16 and any(
                b"chat" in tokens(v)
                for v in head.all(b"sec-websocket-protocol")):
            more += " chat"
        self.answer((101,), more, closes=False)
        self.story.tell("app", "open")
        end = frames.End(self.story, True, reasons=False)
        end.feed(behind)
        self.closed = True
        if self.story.app[-1] != ("close 1006 peer",):
            self.story.tell("control", "eof")


# ---- the client's side -------------------------------------------------------

ACCEPT = b"{" + 26 * b"x" + b"}"    # what "{accept}" stands for


def answer_good(head, offered):
    """RFC 6455, 4.1"""
    chosen = head.all(b"sec-websocket-protocol")
    if head.faults or not re.match(rb"HTTP/1\.1 101( |\Z)", head.first):
        return False
    if not head.has(b"upgrade", b"websocket"):
        return False
    if not head.has(b"connection", b"upgrade"):
        return False
    if head.all(b"sec-websocket-accept") != [ACCEPT]:
        return False
    if head.all(b"sec-websocket-extensions"):
        return False
    return not chosen or (len(chosen) == 1 and chosen[0] in offered)


def client(story, config, data):
    data = data.replace(b"{accept}", ACCEPT)
    offered = (b"chat", b"rtnet.1") if config & 1 else ()
    end = head_end(data)
    if end is not None and end <= (256 if config & 2 else 8192):
        head = Head(data[:end])
        if answer_good(head, offered):
            story.tell("app", "open")
            if head.all(b"x-a"):
                story.tell("app", "x-a", head.all(b"x-a")[0].replace(
                    b"\0", b""))
            line = frames.End(Quiet(story), False, reasons=False)
            line.feed(data[end:])
            return
    story.tell("app", "close 1006 peer")


class Quiet:
    """A story of which only the application's part is told."""

    def __init__(self, story):
        self.app, self.story = story.app, story
        self.data, self.control, self.maybe = [], [], story.maybe

    def tell(self, channel, word, data=None):
        if channel == "app":
            self.story.tell(channel, word, data)

    def lines(self):
        return [t for t in self.story.lines()]

    def fits(self, told):
        return self.story.fits(told)


# ---- behind a proxy ----------------------------------------------------------

TRUSTED = ipaddress.ip_network("10.0.0.0/8")


def address_of(text):
    """By the rules of the PROXY protocol; None: it is none."""
    if b"%" in text:
        return None
    try:
        return ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        return None


def plain(address):
    """An IPv4 address written as IPv6 is that IPv4 address (RFC 4291,
    2.5.5.2)."""
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped else address


def trusted(address):
    return address is not None and address.version == 4 and address in TRUSTED


def forwarded(head, address):
    """From the right, as far as the addresses are trusted."""
    names = [a.strip(b" \t") for v in head.all(b"x-forwarded-for")
             for a in v.split(b",")]
    while trusted(address) and names:
        before = address_of(names.pop())
        if before is None:
            break
        address = plain(before)
    return address


class Proxied(Server):
    """Whose on_request tells for whom the proxy speaks, and says 404."""

    def __init__(self, story, address):
        super().__init__(story, 8 + 1)
        self.address = plain(address)

    def decide(self, head, behind):
        self.config = 0
        if head.upgrade and not origin_good(head, False):
            self.answer((403,))
            return
        self.story.tell("app", "request %s" % forwarded(head, self.address))
        self.answer((404,))
