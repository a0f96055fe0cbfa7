"""RFC 6455, sections 5, 7 and 8.1, byte for byte and slow: what an end does
with frames that come in, beside the limits of rtnet.h."""
import copy

ONE_SECOND = 20     # control frames that are borne in it
ALL_FRAGMENTS, ALL_BYTES = 1024, 65536


class Violation(Exception):
    """With the codes that are right for it."""

    def __init__(self, *codes):
        super().__init__(codes)
        self.codes = codes


class More(Exception):
    """The input ends here."""


class Over(Exception):
    """The connection is done with what comes in."""


# ---- UTF-8: RFC 3629, section 4, its ABNF ---------------------------------

TAIL = range(0x80, 0xc0)
CHARACTERS = (
    [range(0x00, 0x80)],
    [range(0xc2, 0xe0), TAIL],
    [range(0xe0, 0xe1), range(0xa0, 0xc0), TAIL],
    [range(0xe1, 0xed), TAIL, TAIL],
    [range(0xed, 0xee), range(0x80, 0xa0), TAIL],
    [range(0xee, 0xf0), TAIL, TAIL],
    [range(0xf0, 0xf1), range(0x90, 0xc0), TAIL, TAIL],
    [range(0xf1, 0xf4), TAIL, TAIL, TAIL],
    [range(0xf4, 0xf5), range(0x80, 0x90), TAIL, TAIL],
)


def character(data):
    """The size of the first one; 0: cut short; -1: it cannot be one."""
    cut = False
    for form in CHARACTERS:
        here = data[:len(form)]
        if all(b in r for b, r in zip(here, form)):
            if len(here) == len(form):
                return len(form)
            cut = True
    return 0 if cut else -1


def utf8(data):
    """1: valid; 0: valid so far, but cut within a character; -1: not."""
    at = 0
    while at < len(data):
        size = character(data[at:at + 4])
        if size <= 0:
            return size
        at += size
    return 1


# ---- close codes: section 7.4, and the registry ----------------------------

def code_good(code):
    if 3000 <= code <= 4999:
        return True
    return code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011,
                    1012, 1013, 1014)


# ---- an end ---------------------------------------------------------------

class End:
    """server: its peer must mask.  echoes, closes, reasons: how the
    application of the target behaves, and whether it tells reasons."""

    def __init__(self, story, server, small=False, echoes=False, closes=False,
                 reasons=True):
        self.story, self.server = story, server
        self.most = 100 if small else ALL_BYTES
        self.fragments = 3 if small else ALL_FRAGMENTS
        self.echoes, self.closes, self.reasons = echoes, closes, reasons
        self.message = None     # payload of the one under way
        self.op = self.parts = self.controls = 0
        self.said_bye = False   # the application closed
        self.over = False

    # what is told

    def end(self, codes, peer, reason=b""):
        """The session is over."""
        self.over = True
        who = "peer" if peer else "own"
        self.story.app.append(tuple("close %d %s" % (c, who) for c in codes))
        if peer and self.reasons:
            self.story.tell("app", "reason", reason.split(b"\0")[0])

    def violation(self, codes):
        if not self.said_bye:
            self.end(codes, False)
            self.story.control.append(tuple("close %d" % c for c in codes))
        self.over = True

    def deliver(self, op, data):
        if self.said_bye:
            return
        word = "text" if op == 1 else "binary"
        self.story.tell("app", word, data)
        if self.echoes:
            self.story.tell("data", word, data)
        if self.closes and data[:1] == b"!":
            self.end((3000,), False)
            self.over = False
            self.said_bye = True
            self.story.tell("control", "close 3000")

    # what comes in

    def feed(self, data):
        """All that ever comes, then the end of the line."""
        at = 0
        try:
            while at < len(data) and not self.over:
                at += self.frame(data[at:])
        except Violation as v:
            self.violation(v.codes)
        except More:
            pass
        if not self.over and not self.said_bye:
            self.end((1006,), True)
        return self.over or self.said_bye

    def frame(self, data):
        """Takes the first frame; returns its size."""
        first = data[0]
        op, fin = first & 15, first >> 7
        if first & 0x70 or op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
            raise Violation(1002)
        if op & 8 and not fin:
            raise Violation(1002)
        if len(data) < 2:
            raise More
        masked, length = data[1] >> 7, data[1] & 127
        if masked != self.server or (op & 8 and length > 125):
            raise Violation(1002)
        length, at = self.length(data, length)
        head = at + (4 if masked else 0)
        self.judge(op, length, data, head)
        if len(data) < head:
            raise More
        mask = data[at:head] if masked else bytes(4)
        payload = bytes(b ^ mask[i % 4]
                        for i, b in enumerate(data[head:head + length]))
        self.take(op, fin, payload, len(payload) == length)
        return head + length

    def length(self, data, short):
        """5.2: in the shortest form, and the highest bit is 0."""
        size = {126: 2, 127: 8}.get(short, 0)
        if len(data) < 2 + size:
            raise More
        if not size:
            return short, 2
        length = int.from_bytes(data[2:2 + size], "big")
        if length < (126 if size == 2 else 65536) or length >> 63:
            self.late(Violation(1002), data, 2 + size)
        return length, 2 + size

    def late(self, violation, data, at):
        """It may be noticed only when the head's last byte is there."""
        if len(data) < at + (4 if self.server else 0):
            other = copy.deepcopy(self)
            self.story.maybe.append(other.story)
            other.end((1006,), True)
        raise violation

    def judge(self, op, length, data, head):
        """5.4, and the limits of rtnet.h."""
        codes = []
        if op & 8:
            return
        if (op == 0) != (self.message is not None):
            codes.append(1002)
        have = len(self.message or b"")
        if length > self.most - have:
            codes.append(1009)
        if (self.parts if op == 0 else 0) + 1 > self.fragments:
            codes.append(1009)
        if codes:
            self.late(Violation(*codes), data, head - 4 if self.server
                      else head)

    def take(self, op, fin, payload, whole):
        """The payload of a frame, or as much of it as there is."""
        if op & 8:
            if not whole:
                raise More
            self.control(op, payload)
            return
        if op:
            self.op, self.message, self.parts = op, b"", 0
        self.parts += 1
        self.message += payload
        state = utf8(self.message) if self.op == 1 else 1
        if state < 0 or (whole and fin and state == 0):
            raise Violation(1007)
        if not whole:
            raise More
        if fin:
            message, self.message = self.message, None
            self.deliver(self.op, message)

    def control(self, op, payload):
        if op == 8:
            self.close(payload)
            return
        if self.said_bye:
            return
        self.controls += 1
        if self.controls > ONE_SECOND:
            raise Violation(1008)
        if op == 9:
            self.story.tell("control", "pong", payload)

    def close(self, payload):
        """5.5.1, 7.1.5, 7.4"""
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        if len(payload) == 1 or (payload and not code_good(code)):
            raise Violation(1002)
        if utf8(payload[2:]) != 1:
            raise Violation(1007)
        self.over = True
        if self.said_bye:
            return
        self.end((code,), True, payload[2:])
        self.story.tell("control",
                        "close %d" % code if payload else "close")
