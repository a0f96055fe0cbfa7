"""Inputs of the fuzz targets, made from their grammar and then spoilt a bit.
Each maker takes a random.Random and returns the bytes behind the first two."""
import struct

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
CHARACTERS = ["a", "\x7f", "\u0080", "\u00e9", "\u07ff", "\u0800", "\u20ac",
              "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]
NOT_UTF8 = [b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x9f\xbf",
            b"\xed\xa0\x80", b"\xf0\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80", b"\xf5", b"\xff",
            b"\xe2\x82", b"\xf0\x9f"]


def spoil(r, data, often=4):
    """A byte changed, dropped, doubled, or the end cut off; mostly nothing."""
    if r.randrange(often) or not data:
        return data
    at, how = r.randrange(len(data)), r.randrange(5)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + data[at + 1:]
    if how == 2:
        return data[:at] + bytes([r.randrange(256)]) + data[at + 1:]
    if how == 3:
        return data[:at] + bytes([data[at] ^ 1 << r.randrange(8)]) \
            + data[at + 1:]
    return data[:at] + data[at:at + r.randrange(1, 9)] + data[at:]


# ---- frames ----------------------------------------------------------------

def text(r):
    out = "".join(r.choice(CHARACTERS) for _ in range(r.randrange(8))).encode()
    if r.randrange(12) == 0:
        out = b"!" + out
    if r.randrange(10) == 0:
        out += r.choice(NOT_UTF8) + b"b" * r.randrange(3)
    if r.randrange(8) == 0:
        out = b"x" * r.choice((60, 99, 100, 101, 125, 126, 127, 300)) + out
    return out


def masked(r, payload, server):
    if server == (r.randrange(40) != 0):
        mask = bytes(r.randrange(256) for _ in range(4))
        return 0x80, mask, bytes(b ^ mask[i % 4]
                                 for i, b in enumerate(payload))
    return 0, b"", payload


def frame(r, first, payload, server):
    bit, mask, payload = masked(r, payload, server)
    n = len(payload)
    if r.randrange(30) == 0:
        n = r.choice((0, 125, 126, 65535, n + 1, 126, 65536, 1 << 31,
                      1 << 32, 1 << 62, 1 << 63,
                      (1 << 64) - 4))
    form = 0 if n < 126 else 2 if n < 65536 else 8
    if r.randrange(40) == 0:
        form = r.choice((2, 8))
    short = {0: n & 127, 2: 126, 8: 127}[form]
    long = (n & (1 << 8 * form) - 1).to_bytes(form, "big")
    return bytes([first, bit | short]) + long + mask + payload


def close_body(r):
    if r.randrange(6) == 0:
        return b""
    code = r.choice((1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011,
                     1014, 1015, 1016, 2999, 3000, 4999, 5000, 999, 0, 65535))
    if r.randrange(10) == 0:
        return b"x"
    return struct.pack(">H", code) + text(r)[:123]


def pieces(r, payload):
    """A payload in fragments."""
    out = []
    for _ in range(r.choice((0, 0, 0, 1, 2, 3))):
        at = r.randrange(len(payload) + 1)
        out.append(payload[:at])
        payload = payload[at:]
    return out + [payload]


def frames(r, server, most=8):
    out = b""
    for _ in range(r.randrange(1, most)):
        kind = r.randrange(12)
        if kind == 0:
            out += frame(r, 0x88, close_body(r), server)
        elif kind < 3:
            out += frame(r, r.choice((0x89, 0x8a)), text(r)[:125], server)
        elif kind == 3:
            out += frame(r, r.randrange(256), text(r), server)
        elif kind == 4:
            out += frame(r, 0x89, b"p", server) * r.choice((1, 2, 19, 21))
        else:
            out += message(r, server)
    return spoil(r, out)


def message(r, server):
    op, parts, out = r.choice((1, 1, 2)), pieces(r, text(r)), b""
    for i, part in enumerate(parts):
        first = (op if i == 0 else 0) | (0x80 if i == len(parts) - 1 else 0)
        out += frame(r, first, part, server)
        if i < len(parts) - 1 and r.randrange(6) == 0:
            out += frame(r, 0x89, b"between", server)
    return out


def server_frames(r):
    return frames(r, True)


def client_frames(r):
    return frames(r, False)


# ---- heads -----------------------------------------------------------------

def spelt(r, name):
    return r.choice((name, name, name.lower(), name.upper()))


def line(r, name, value):
    return (spelt(r, name) + b":" + r.choice((b" ", b"", b"  ", b"\t"))
            + value + r.choice((b"", b"", b"", b" ", b"\t")) + b"\r\n")


ODD_LINES = (
    b": x\r\n", b"A: b\n", b"A: b\rc\r\n", b"A: \0\r\n", b"A: b\r\n c\r\n",
    b"A : b\r\n", b"A\r\n", b"A: \x7f\r\n", b"A: \xe9\r\n", b"A:\r\n",
    b" A: b\r\n", b"A(: b\r\n", b"\r\n", b"X-A: ,;\"\r\n", b"A: b\r\n" * 63)


def host(r):
    return r.choice((b"h", b"h", b"h", b"H:80", b"h:443", b"[::1]:80", b"",
                     b":",
                     b"a b", b"u@h", b"h/", b"h,h", b"h:x", b"%41", b"%4",
                     b"a#b", b"a^b", b"[::1", b"h:"))


def plain_lines(r):
    out = []
    for _ in range(r.choice((0, 0, 1, 2))):
        out.append(r.choice((
            line(r, b"X-A", r.choice((b"", b"one", b"a  b", b"\xe9"))),
            line(r, b"Connection", r.choice((b"close", b"keep-alive", b"x",
                                             b"a, Close ,b", b"close x"))),
            line(r, b"Transfer-Encoding", b"chunked"),
            line(r, b"Expect", r.choice((b"100-continue", b"100-Continue",
                                         b"x"))),
            line(r, b"Origin", r.choice((b"http://h", b"https://H:443",
                                         b"http://h.x", b"null", b"h"))),
            line(r, b"X-Forwarded-For", r.choice((
                b"1.2.3.4", b"1.2.3.4, 10.0.0.1", b"::1,10.9.9.9", b"x",
                b"10.2.2.2"))),
            r.choice(ODD_LINES))))
    return out


def body_lines(r):
    """A length, and the body."""
    if r.randrange(3):
        return [], b""
    body = b"hello world"[:r.randrange(12)]
    value = r.choice((b"%d" % len(body),) * 6 + (
        b"", b"-1", b"+1", b"0x1", b"1 1", b"1,1", b"00001", b"65537",
        b"18446744073709551615", b"18446744073709551616"))
    lines = [line(r, b"Content-Length", value)]
    return lines * r.choice((1, 1, 1, 1, 2)), body


def upgrade_lines(r):
    out = [line(r, b"Upgrade", r.choice((b"websocket",) * 5 + (
               b"WebSocket", b"a, websocket", b"h2c"))),
           line(r, b"Connection", r.choice((b"Upgrade",) * 5 + (
               b"keep-alive, upgrade", b"close, Upgrade", b"x"))),
           line(r, b"Sec-WebSocket-Key", r.choice((KEY,) * 6 + (
               KEY[:-1], KEY + b"=", b"dGhlIHNhbXBsZSBub25jZR==",
               b"AAAAAAAAAAAAAAAAAAAAAA==", b""))),
           line(r, b"Sec-WebSocket-Version", r.choice((b"13",) * 6 + (
               b"8", b"13, 8", b"", b"013")))]
    if r.randrange(4) == 0:
        out.append(line(r, b"Sec-WebSocket-Protocol", r.choice((
            b"chat", b"x, chat", b",", b"chat,", b"a b", b"rtnet.1", b"Chat",
            b""))))
    if r.randrange(8) == 0:
        out.append(line(r, b"Sec-WebSocket-Extensions", b"x; y=\"z"))
    if r.randrange(8) == 0:
        out.pop(r.randrange(len(out)))
    if r.randrange(8) == 0:
        out.append(r.choice(out))
    return out


def request(r):
    out = b""
    for _ in range(r.choice((1, 1, 1, 2, 3))):
        upgrade = r.randrange(2)
        lines = upgrade_lines(r) if upgrade else []
        lengths, body = body_lines(r) if not upgrade or not r.randrange(6) \
            else ([], b"")
        lines += [line(r, b"Host", host(r))] * r.choice((1,) * 12 + (0, 2))
        lines += plain_lines(r) + lengths
        r.shuffle(lines)
        first = b" ".join((
            r.choice((b"GET",) * 8 + (b"HEAD", b"POST", b"PUT", b"G(T", b"")),
            r.choice((b"/",) * 4 + (b"/a?a=1", b"/?b=2&a=%41+x", b"/?a=%4",
                                    b"/?a=%00", b"*", b"http://h/", b"/a#b",
                                    b"/\xe9", b"/?aa=1&a", b"/x y", b"")),
            r.choice((b"HTTP/1.1",) * 8 + (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1",
                                           b"http/1.1", b""))))
        out += first + b"\r\n" + b"".join(lines) + b"\r\n" + body
    if r.randrange(2):
        out += frames(r, True, 4)
    return spoil(r, out)


def response(r):
    lines = [line(r, b"Upgrade", r.choice((b"websocket",) * 6 + (b"x",))),
             line(r, b"Connection", r.choice((b"Upgrade",) * 6 + (
                 b"x, upgrade", b"close"))),
             line(r, b"Sec-WebSocket-Accept", r.choice((b"{accept}",) * 8 + (
                 KEY, b"{accept}=")))]
    if r.randrange(3) == 0:
        lines += [line(r, b"Sec-WebSocket-Protocol", r.choice((
            b"chat", b"x", b"chat, x", b"", b"rtnet.1")))] \
            * r.choice((1, 1, 1, 2))
    if r.randrange(3) == 0:
        lines += plain_lines(r)
    if r.randrange(12) == 0:
        lines.append(line(r, b"Sec-WebSocket-Extensions", b"x"))
    if r.randrange(8) == 0:
        lines.pop(r.randrange(len(lines)))
    if r.randrange(12) == 0:
        lines.append(line(r, b"X", b"y" * r.choice((20, 300))))
    r.shuffle(lines)
    first = r.choice((b"HTTP/1.1 101 Switching Protocols",) * 8 + (
        b"HTTP/1.1 101", b"HTTP/1.1 101 ", b"HTTP/1.0 101 x",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 1010 x", b"HTTP/1.1 503 Busy", b"HTTP/1.1  101 x", b""))
    out = first + b"\r\n" + b"".join(lines) + b"\r\n"
    return spoil(r, out + frames(r, False, 4), 6)


# ---- proxies ---------------------------------------------------------------

ADDRESSES = (b"1.2.3.4", b"10.3.3.3", b"255.255.255.255", b"::", b"::1",
             b"2001:db8::1:0:0:1", b"1:2:3:4:5:6:7:8", b"::ffff:1.2.3.4",
             b"1:2:3:4:5:6:1.2.3.4", b"01.2.3.4", b"1.2.3", b"1.2.3.256",
             b"1::2::3", b"1:2:3:4:5:6:7", b":1", b"12345::", b"::1%lo",
             b"FE80::A", b"x", b"")


def proxy_text(r):
    kind = r.choice((b"TCP4", b"TCP4", b"TCP6", b"TCP6", b"UNKNOWN", b"UDP4"))
    own = [a for a in ADDRESSES[:9] if (b":" in a) == (kind == b"TCP6")]
    fields = [b"PROXY", kind]
    for _ in range(2):
        fields.append(r.choice(own if r.randrange(5) else ADDRESSES))
    for _ in range(2):
        fields.append(r.choice((b"1", b"65535", b"80", b"0") if r.randrange(5)
                               else (b"01", b"65536", b"", b"x", b"123456")))
    if r.randrange(20) == 0:
        fields.append(b"x" * r.choice((1, 50, 100)))
    if kind == b"UNKNOWN" and r.randrange(2):
        fields = fields[:2]
    return b" ".join(fields) + r.choice((b"\r\n",) * 8 + (b"\n", b"\r", b""))


def proxy_binary(r):
    family = r.choice((0x11, 0x11, 0x21, 0x21, 0x00, 0x12, 0x22, 0x31, 0x32,
                       0x13, 0x41))
    size = {0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36}.get(family, 0)
    if family >> 4 == 3:
        size = 216
    body = bytes(r.choice((0, 10, r.randrange(256))) for _ in range(size))
    if r.randrange(4) == 0:
        body += b"\x04\0\x03abc"
    if r.randrange(12) == 0:
        body = body[:-1]
    n = len(body) if r.randrange(12) else r.choice((0, 519, 520, 521, 65535))
    return (b"\r\n\r\n\0\r\nQUIT\n" + bytes([r.choice((0x21,) * 6 + (
        0x20, 0x20, 0x11, 0x22)), family]) + struct.pack(">H", n) + body)


def proxy(r):
    head = proxy_binary(r) if r.randrange(2) else proxy_text(r)
    if r.randrange(15) == 0:
        head = b""
    tail = request(r) if r.randrange(2) else b"hello"
    return spoil(r, head, 6) + tail


# ---- rtnet.1 -----------------------------------------------------------------

CURRENT, PREVIOUS = b"{current-token-here--}", b"{previous-token-here-}"


def packet(r, ws, body, binary=False):
    """One message; with a mask that changes nothing, as tokens are put in."""
    if not ws:
        n = len(body) if r.randrange(60) else r.choice((0, 65538, 1 << 31))
        return struct.pack(">I", n) + body
    size = bytes([0x80 | len(body)]) if len(body) < 126 else \
        b"\xfe" + struct.pack(">H", len(body))
    return bytes([0x82 if binary else 0x81]) + size + bytes(4) + body


def typed(r, ws, letter):
    body = text(r)[:40]
    if not ws and r.randrange(4) == 0:
        return packet(r, ws, letter.upper() + body)
    return packet(r, ws, letter + body, r.randrange(4) == 0)


def hello(r, ws, told):
    if r.randrange(8) == 0:
        return packet(r, ws, r.choice((
            b"h", b"h ", b"h" + CURRENT, b"hAAAAAAAAAAAAAAAAAAAAAA 0 1",
            b"h" + CURRENT + b" 01 1", b"h" + CURRENT + b" 1 1 ",
            b"h" + CURRENT + b" 9007199254740992 1", b"hello")))
    return packet(r, ws, b"h%s %d %d" % (
        r.choice((CURRENT, CURRENT, CURRENT, PREVIOUS)),
        max(0, told - r.choice((0, 0, 0, 1, 2, 3, 9, -1))),
        r.choice((1, 1, 1, 2, 2, 3, 0))))


def chatter(r, ws, told):
    """Some messages; told: about how many the server has sent so far."""
    out = b""
    for _ in range(r.randrange(6)):
        kind = r.randrange(16)
        if kind < 6:
            out += typed(r, ws, r.choice((b"m", b"m", b"u")))
            told += 1
        elif kind < 10:
            out += packet(r, ws, b"a%d" % max(0, told - r.choice(
                (0, 0, 1, 2, -1 if r.randrange(6) == 0 else 0))))
        elif kind < 13:
            word = r.choice((b"{say}", b"{say}", b"{key}", b"{sec}"))
            told += word == b"{say}"
            out += word
        elif kind == 13 and r.randrange(4) == 0:
            out += packet(r, ws, r.choice((
                b"h", b"w", b"x", b"", b"a", b"a01", b"c1000", b"c4000 bye",
                b"c999", b"p1", b"q", b"a" + b"1" * 20)))
        elif kind == 14 and ws:
            out += frame(r, 0x89, b"p", True)
        elif kind == 15 and r.randrange(3) == 0:
            out += b"{end}" if r.randrange(2) else \
                frame(r, 0x88, close_body(r), True) if ws else b""
    return out, told


def rtnet1(r, ws):
    out, told = packet(r, ws, b"h") + packet(r, ws, b"a0"), 0
    for _ in range(r.randrange(1, 6)):
        more, told = chatter(r, ws, told)
        out += more + r.choice((b"{cut}", b"{cut}", b"{fin}", b"{two}"))
        if r.randrange(6) == 0:
            out += r.choice((b"{say}", b"{key}"))
        out += hello(r, ws, told)
        if r.randrange(8):
            out += packet(r, ws, b"a%d" % max(0, told - r.choice((0, 0, 1))))
    return spoil(r, out, 8)
