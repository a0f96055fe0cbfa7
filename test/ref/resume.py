"""rtnet.1, the server's end, as the protocol's text has it (A1 to A13): the
script of fuzz_rtnet1.c is played against a model of one listener.

Where the text leaves open what comes of a script, Unsure is raised.
"""
import re
import struct

import frames

MOST = 65536
KEPT, KEPT_BYTES = 128, 65536
NUMBER = rb"(?:0|[1-9][0-9]{0,15})"
TOKEN = rb"[A-Za-z0-9_-]{21}[AQgw]"
HELLO = re.compile(rb"h(?:(" + TOKEN + rb") (" + NUMBER + rb") (" + NUMBER
                   + rb"))?\Z")
ACK = re.compile(rb"a(" + NUMBER + rb")\Z")
BYE = re.compile(rb"c([1-4][0-9]{3})(?: (.{0,123}))?\Z", re.S)
GREATEST = (1 << 53) - 1
CURRENT, PREVIOUS = b"{current-token-here--}", b"{previous-token-here-}"
WORDS = (b"{cut}", b"{fin}", b"{two}", b"{sec}", b"{say}", b"{key}", b"{end}")
LINES = 16


class Unsure(Exception):
    pass


class Violation(Exception):
    def __init__(self, *codes):
        super().__init__(codes)
        self.codes = codes


class Session:
    def __init__(self):
        self.line = None        # None: away
        self.over = False
        self.received = self.n = self.acked = self.top = 0
        self.kept = []          # (number, binary, payload)
        self.held = []          # [key, payload, number that frees it]
        self.current = self.previous = None
        self.tries = {}         # of both tokens

    def keep_within_bounds(self):
        while len(self.kept) > KEPT or \
                sum(len(k[2]) for k in self.kept) > KEPT_BYTES:
            self.kept.pop(0)

    def first(self):
        return self.kept[0][0] - 1 if self.kept else self.n

    def free(self, number):
        self.acked = number
        self.kept = [k for k in self.kept if k[0] > number]
        self.held = [h for h in self.held if number <= h[2]]


class Line:
    """One connection; .session once h was heard."""

    def __init__(self, world):
        self.world, self.session = world, None
        self.confirmed = self.dead = False
        self.controls = 0

    def die(self, codes):
        """A close is said."""
        self.world.tell_close(codes)
        self.dead = True

    def violation(self, codes):
        session = self.session
        if session:
            self.world.end(session, codes, "own", codes)
        else:
            self.die(codes)

    def counted(self):
        """A control frame that nobody asked for."""
        self.controls += 1
        if self.controls > 17:
            raise Unsure    # which of them count

    def message(self, letter, binary, body, tcp):
        """A text that is no UTF-8 is wrong in one more way."""
        try:
            self.judge(letter, binary, body, tcp)
        except Violation as v:
            if not binary and frames.utf8(letter + body) != 1:
                raise Violation(1007, *v.codes) from v
            raise

    def judge(self, letter, binary, body, tcp):
        world, session = self.world, self.session
        if world.has_token(body) and letter != b"h":
            raise Unsure
        if letter in (b"m", b"u") and session:
            if not self.confirmed:
                raise Violation(1002)
            if not binary and frames.utf8(body) != 1:
                raise Violation(1007)
            session.received += letter == b"m"
            world.heard(session, binary, body)
            return
        if binary:
            raise Violation(1002)
        self.control(letter, body, tcp)

    def control(self, letter, body, tcp):
        session = self.session
        if len(body) > 129:
            raise Violation(1002)
        if letter == b"h" and not session:
            self.hello(letter + body)
        elif letter == b"a" and session:
            self.ack(letter + body)
        elif letter == b"c" and tcp:
            self.bye(letter + body)
        elif letter in (b"p", b"q") and tcp and len(body) <= 16:
            if not session or not self.confirmed:
                raise Unsure
            self.counted()
            if letter == b"p":
                self.world.story.tell("control", "q", body)
        else:
            raise Violation(1002)

    def ack(self, text):
        m, session = ACK.match(text), self.session
        if not m or not session.acked <= int(m.group(1)) <= session.n:
            raise Violation(1002)
        if int(m.group(1)) == session.acked:
            self.counted()
        if not self.confirmed:
            session.previous = None
        self.confirmed = True
        session.free(int(m.group(1)))

    def bye(self, text):
        m = BYE.match(text)
        if not m or m.group(1) in (b"1005", b"1006"):
            raise Violation(1002)
        if not frames.code_good(int(m.group(1))) or \
                frames.utf8(m.group(2) or b"") != 1:
            raise Unsure
        self.peer_closed(int(m.group(1)))

    def peer_closed(self, code):
        """A10: 1000 ends the session, anything else the connection."""
        session = self.session
        self.die((0 if code == 1005 else code,))
        if session and code == 1000:
            self.world.end(session, (1000,), "peer", None)
        elif session:
            self.world.away(session)

    # A9

    def hello(self, text):
        m, world = HELLO.match(text), self.world
        if not m or (m.group(1) and GREATEST < max(int(m.group(2)),
                                                   int(m.group(3)))):
            raise Violation(1002)
        session = world.session_of(m.group(1))
        if not session:
            world.open(self)
            return
        received, attempt = int(m.group(2)), int(m.group(3))
        if attempt <= session.tries[m.group(1)]:
            self.die((4003,))
        elif received > session.top:
            self.die((1002,))
        else:
            world.resume(self, session, m.group(1), received, attempt)


class World:
    def __init__(self, story, config):
        self.story = story
        self.ws, self.echoes = config & 2, config & 4
        self.lines, self.sessions, self.tokens = [], [], []
        self.said = self.seconds = 0

    # tokens

    def token_new(self):
        token = b"token-%015dA" % len(self.tokens)
        self.tokens.append(token)
        return token

    def has_token(self, data):
        return re.search(rb"token-[0-9]{3}", data) is not None

    def session_of(self, token):
        for s in self.sessions:
            if token and not s.over and token in (s.current, s.previous):
                return s
        return None

    # what is told

    def tell_close(self, codes):
        self.story.control.append(tuple("c %d" % c for c in codes))

    def end(self, session, codes, who, said):
        session.over = True
        self.story.app.append(tuple("close %d %s" % (c, who) for c in codes))
        if session.line and said and not session.line.dead:
            session.line.die(said)
        self.part(session)

    def part(self, session):
        if session.line:
            session.line.dead = True
            session.line.session = None
        session.line = None

    def away(self, session):
        self.part(session)
        self.story.tell("app", "away")
        session.keep_within_bounds()

    def open(self, line):
        session = Session()
        self.sessions.append(session)
        session.current = self.token_new()
        session.tries = {session.current: 0}
        session.line, line.session = line, session
        self.story.tell("data", "w 0 0 new")
        self.story.tell("app", "open")

    def resume(self, line, session, token, received, attempt):
        if session.line:
            session.line.die((4504,))
            self.away(session)
        else:
            self.part(session)
        gap = received < session.first()
        lost = session.n - received if gap else 0
        base = session.n if gap else received
        session.free(received)
        if gap:
            session.kept, session.acked = [], base
        session.previous, session.current = token, self.token_new()
        session.tries = {token: attempt, session.current: 0}
        session.line, line.session = line, session
        self.story.tell("data", "w %d %d %s" % (
            session.received, base, "gap" if gap else "resumed"))
        self.story.tell("app", "back %d" % lost)
        for _, binary, payload in session.kept:
            self.story.tell("data", "M" if binary else "m", payload)
        for held in session.held:
            self.story.tell("data", "u", held[1])
            held[2] = session.n
        session.top = session.n

    # messages

    def heard(self, session, binary, body):
        self.story.tell("app", "binary" if binary else "text", body)
        if self.echoes:
            self.send(session, binary, body)

    def send(self, session, binary, body):
        session.n += 1
        session.kept.append((session.n, binary, body))
        session.keep_within_bounds()
        if session.line:
            session.top = session.n
            self.story.tell("data", "M" if binary else "m", body)

    # the script

    def newest(self):
        if self.sessions and not self.sessions[-1].over:
            return self.sessions[-1]
        return None

    def word(self, word):
        if word in (b"{cut}", b"{fin}"):
            self.line_lost(self.lines[-1])
        if word in (b"{cut}", b"{fin}", b"{two}"):
            self.line_new()
        if word == b"{sec}":
            self.second()
        if word == b"{say}":
            if self.newest():
                self.send(self.newest(), False, b"s%d" % self.said)
            self.said += 1
        if word == b"{key}":
            self.key()
        if word == b"{end}" and self.newest():
            self.end(self.newest(), (1000,), "own", (1000,))

    def line_new(self):
        if len(self.lines) == LINES:
            raise Unsure
        make = WsLine if self.ws else TcpLine
        self.lines.append(make(self))
        self.story.tell("control", "line")

    def line_lost(self, line):
        line.dead = True
        if line.session:
            self.away(line.session)

    def second(self):
        self.seconds += 1
        if self.seconds > 3:
            raise Unsure    # deadlines of many kinds
        for line in self.lines:
            line.controls = 0

    def key(self):
        text, key = b"k%d" % self.said, (self.said + 1) % 2
        self.said += 1
        s = self.newest()
        if not s:
            return
        if s.line:
            self.story.tell("data", "u", text)
        if any(h[0] == key for h in s.held) and len(s.held) > 1:
            raise Unsure    # their order after a resume
        s.held = [h for h in s.held if h[0] != key] + [[key, text, s.n]]

    def put_tokens(self, data):
        if self.tokens:
            data = data.replace(CURRENT, self.tokens[-1])
        if len(self.tokens) > 1:
            data = data.replace(PREVIOUS, self.tokens[-2])
        return data

    def play(self, data):
        self.line_new()
        for part in re.split(b"(" + b"|".join(WORDS) + b")", data):
            if part in WORDS:
                self.word(part)
            elif not self.lines[-1].dead:
                self.lines[-1].feed(self.put_tokens(part))
        for session in self.sessions:
            if session.line:
                self.away(session)
        for session in self.sessions:
            if not session.over:
                self.story.tell("app", "close 1001 own")


class TcpLine(Line):
    def __init__(self, world):
        super().__init__(world)
        self.buffer = b""

    def feed(self, data):
        self.buffer += data
        try:
            while not self.dead and self.packet():
                pass
        except Violation as v:
            self.violation(v.codes)

    def packet(self):
        """A1"""
        if len(self.buffer) < 4:
            return False
        size = struct.unpack(">I", self.buffer[:4])[0]
        if size == 0:
            raise Violation(1002, 1009)
        if size > MOST + 1:
            raise Violation(1009)
        if len(self.buffer) < 4 + size:
            if len(self.buffer) > 4:
                self.partial(self.buffer[4:], size)
            return False
        body, self.buffer = self.buffer[4:4 + size], self.buffer[4 + size:]
        letter = body[:1]
        binary = letter in (b"M", b"U")
        self.message(letter.lower() if binary else letter, binary, body[1:],
                     True)
        return True

    def partial(self, body, size):
        """What is wrong already may be noticed, or not."""
        letter = body[:1]
        if letter in (b"m", b"u"):
            wrong = frames.utf8(body[1:]) < 0 or not self.confirmed
        elif letter in (b"M", b"U"):
            wrong = not self.confirmed
        elif letter in (b"a", b"c", b"h", b"p", b"q"):
            wrong = size > 130 or (letter == b"h") != (not self.session)
        else:
            wrong = True
        if wrong:
            raise Unsure


class WsLine(Line):
    def __init__(self, world):
        super().__init__(world)
        self.end = Typed(self)
        self.buffer = b""

    def feed(self, data):
        self.buffer += data
        end = self.end
        try:
            while self.buffer and not self.dead:
                was = end.message, end.op, end.parts
                try:
                    size = end.frame(self.buffer)
                except frames.More:
                    self.partial(end)
                    end.message, end.op, end.parts = was
                    return
                self.buffer = self.buffer[size:]
        except (Violation, frames.Violation) as v:
            self.violation(v.codes)

    def partial(self, end):
        """As on TCP."""
        body = end.message or b""
        if not body:
            return
        if self.world.has_token(body):
            return
        if (body[:1] in (b"m", b"u")) != self.confirmed or \
                len(body) > 130 or end.op == 2:
            raise Unsure


class Typed(frames.End):
    """Frames that carry messages of rtnet.1."""

    def __init__(self, line):
        super().__init__(None, True)
        self.line, self.most = line, MOST + 1

    def late(self, violation, data, at):
        if len(data) < at + 4:
            raise Unsure
        raise violation

    def deliver(self, op, data):
        if not data:
            raise Violation(1002)
        self.line.message(data[:1], op == 2, data[1:], False)

    def control(self, op, payload):
        if op == 8:
            self.close(payload)
            return
        self.line.counted()
        if op == 9:
            self.line.world.story.tell("control", "q", payload)

    def close(self, payload):
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        if len(payload) == 1 or (payload and not frames.code_good(code)):
            raise Violation(1002)
        if frames.utf8(payload[2:]) != 1:
            raise Violation(1007)
        self.line.peer_closed(code)


def play(story, config, data):
    World(story, config).play(data)
