#!/usr/bin/env python3
"""Writes the inputs that fuzzing begins with: what broke elsewhere, by name.

  seeds.py DIRECTORY      DIRECTORY/TARGET/seed-NAME for each

The first two bytes are the target's configuration and how it is cut up.
"""
import os
import random
import struct
import sys

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
           b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\n")


MASK = b"\x37\xfa\x21\x3d"


def frame(first, body=b"", form=None, length=None, mask=True, key=bytes(4)):
    """A frame; by default its mask, if there is one, changes nothing."""
    n = len(body) if length is None else length
    if form is None:
        form = 7 if n < 126 else 16 if n < 65536 else 64
    size = {7: bytes([n & 127]), 16: b"\x7e" + struct.pack(">H", n & 65535),
            64: b"\x7f" + struct.pack(">Q", n)}[form]
    key = key if mask else b""
    body = bytes(b ^ key[i % 4] for i, b in enumerate(body)) if key else body
    return bytes([first, size[0] | (mask << 7)]) + size[1:] + key + body


def frames(mask):
    """Rows 1 to 24 of frames: name, configuration, bytes."""
    def f(*args, **more):
        return frame(*args, mask=mask, key=MASK, **more)

    for n in (0, 125, 126, 127):
        yield "length-%d" % n, 1, f(0x82, b"x" * n)
    for n in (2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63,
              2**64 - 4, 2**64 - 1):
        yield "length-%x" % n, 0, f(0x82, b"hello", form=64, length=n)
    yield "length-not-shortest", 0, f(0x82, b"hello", form=16)
    yield "length-125-in-16", 0, f(0x82, b"x" * 125, form=16)
    yield "length-65535-in-64", 0, f(0x82, b"x", form=64, length=65535)
    yield "announced-2-30", 0, f(0x82, b"x" * 10, form=64, length=2**30)
    yield "empty-fragments", 2, f(1) + 6 * f(0)
    yield "many-fragments", 0, f(1) + 60 * f(0) + f(0x80, b"x")
    yield "continuation-of-nothing", 0, f(0x80, b"x")
    yield "text-in-text", 0, f(1, b"a") + f(0x81, b"b")
    yield "fragments", 1, f(1, b"abc") + f(0, b"defgh") + f(0x80, b"i" * 50)
    yield "ping-between", 1, f(1, b"a") + f(0x89, b"p") + f(0x80, b"b")
    yield "wrong-mask", 0, frame(0x81, b"hello", mask=not mask)
    yield "long-ping", 0, f(0x89, b"p" * 126)
    yield "ping-without-fin", 0, f(0x09, b"p")
    for bits in (0xc1, 0xa1, 0x91, 0x83, 0x8b):
        yield "first-byte-%x" % bits, 0, f(bits, b"x")
    for code in (999, 1000, 1004, 1005, 1006, 1012, 1015, 2999, 3000, 5000):
        yield "close-%d" % code, 0, f(0x88, struct.pack(">H", code) + b"bye")
    yield "close-empty", 0, f(0x88) + f(0x81, b"more")
    yield "close-1-byte", 0, f(0x88, b"x")
    yield "close-bad-reason", 0, f(0x88, b"\x03\xe8\xc0\x80")
    yield "utf8-good", 1, f(0x81, "\u00e9\u20ac\U0010ffff".encode())
    yield "utf8-split", 1, f(1, b"a\xe2") + f(0, b"\x82") + f(0x80, b"\xac")
    for bad in (b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff"):
        yield "utf8-%s" % bad.hex(), 0, f(0x81, b"12345678" + bad)
    yield "utf8-early", 0, f(0x81, b"\xf4\x90", length=100)
    yield "utf8-cut", 0, f(0x81, b"abc\xe2\x82")
    yield "pings", 1, 18 * f(0x89, b"p") + f(0x81, b"x")
    yield "ping-flood", 0, 40 * f(0x89)
    yield "pong-flood", 0, 40 * f(0x8a)
    yield "app-closes", 5, f(0x81, b"!") + f(0x81, b"a") + f(0x89)
    yield "three", 3, f(0x81, b"a") + f(0x82, b"b") + f(0x81, b"c" * 100)
    yield "too-large", 3, f(0x81, b"a") + f(0x82, b"b" * 101)


def upgrade(lines=UPGRADE, path=b"/", host=b"Host: h\r\n", more=b""):
    return b"GET " + path + b" HTTP/1.1\r\n" + host + lines + more + b"\r\n"


def get(path=b"/", more=b"", method=b"GET", body=b""):
    return (method + b" " + path + b" HTTP/1.1\r\nHost: h\r\n" + more +
            b"\r\n" + body)


def requests():
    """Rows 25 to 40, the server's side."""
    good = upgrade()
    yield "upgrade", 0, good + frame(0x81, b"hi")
    yield "upgrade-answers", 1, upgrade(path=b"/p?a=%20x") + frame(0x81, b"hi")
    yield "upgrade-thinks", 3, good + frame(0x81, b"hi")
    yield "upgrade-refused", 2, good
    yield "chat", 17, upgrade(more=b"Sec-WebSocket-Protocol: x, chat\r\n")
    yield "protocol-commas", 1, upgrade(more=b"Sec-WebSocket-Protocol: ,\r\n")
    yield "extension", 1, upgrade(
        more=b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
    yield "version-8", 1, good.replace(b": 13", b": 8")
    yield "short-key", 1, good.replace(b"ZQ==", b"")
    yield "bad-key", 1, good.replace(b"ZQ==", b"ZR==")
    yield "no-connection", 1, good.replace(b"Connection", b"X")
    yield "connection-list", 1, good.replace(
        b"Connection: U", b"Connection: keep-alive, u")
    yield "no-host", 1, upgrade(host=b"")
    yield "two-hosts", 1, upgrade(host=b"Host: h\r\nHost: h\r\n")
    yield "empty-host", 1, upgrade(host=b"Host:\r\n")
    yield "origin-same", 1, upgrade(more=b"Origin: http://H:80\r\n")
    yield "origin-other", 1, upgrade(more=b"Origin: http://h.evil\r\n")
    yield "origin-null", 1, upgrade(more=b"Origin: null\r\n")
    yield "origin-any", 9, upgrade(more=b"Origin: http://x\r\n")
    yield "upgrade-with-body", 1, upgrade(more=b"Content-Length: 3\r\n")
    yield "upgrade-chunked", 1, upgrade(more=b"Transfer-Encoding: x\r\n")
    yield "two-requests", 1, get(b"/a?a=1") + get(b"/b", b"X-A: 2\r\n")
    yield "head", 1, get(method=b"HEAD") + get()
    yield "post", 1, get(b"/", b"Content-Length: 5\r\n", b"POST",
                         b"hello") + get()
    yield "post-too-large", 5, get(b"/", b"Content-Length: 9\r\n", b"POST",
                                   b"hellohell")
    yield "expect", 1, get(b"/", b"Content-Length: 2\r\nExpect: "
                           b"100-continue\r\n", b"POST", b"ab")
    yield "expect-else", 1, get(b"/", b"Expect: x\r\n")
    yield "thinks", 3, get() + get(b"/2") + good
    yield "method", 1, get(method=b"PUT")
    yield "version-2", 1, get().replace(b"/1.1", b"/2.0")
    yield "http10", 1, get().replace(b"/1.1", b"/1.0")
    yield "too-long", 5, get(b"/" + b"x" * 300)
    yield "headers-65", 1, get(more=b"A: b\r\n" * 64)
    yield "headers-63", 1, get(more=b"A: b\r\n" * 63)
    for name, line in (
            ("empty-name", b": x\r\n"), ("bare-lf", b"A: b\n"),
            ("bare-cr", b"A: b\rc\r\n"), ("nul", b"A: \0\r\n"),
            ("folded", b"A: b\r\n c\r\n"), ("space-colon", b"A : b\r\n"),
            ("no-colon", b"A\r\n"), ("tab", b"A:\tb\t\r\n"),
            ("8-bit", b"A: \xe9\r\n"), ("length-twice",
             b"Content-Length: 0\r\nContent-Length: 0\r\n"),
            ("length-empty", b"Content-Length:\r\n"),
            ("length-minus", b"Content-Length: -1\r\n"),
            ("length-list", b"Content-Length: 0, 0\r\n"),
            ("length-2-64", b"Content-Length: 18446744073709551616\r\n"),
            ("coding-and-length",
             b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            ("coding", b"Transfer-Encoding: chunked\r\n"),
            ("close", b"Connection: close\r\n")):
        yield name, 1, get(more=line) + get()


def responses():
    """Row 22 and 33, the client's side."""
    good = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n")
    tail = b"\r\n" + frame(0x81, b"hi", mask=False)
    yield "good", 0, good + tail
    yield "header", 0, good + b"X-A: yes\r\n" + tail
    yield "wrong-accept", 0, good.replace(b"{accept}", KEY) + tail
    yield "accept-twice", 0, good + b"Sec-WebSocket-Accept: {accept}\r\n" + tail
    yield "extension", 0, good + b"Sec-WebSocket-Extensions: x\r\n" + tail
    yield "chat", 1, good + b"Sec-WebSocket-Protocol: chat\r\n" + tail
    yield "unasked", 0, good + b"Sec-WebSocket-Protocol: chat\r\n" + tail
    yield "rtnet1", 5, good + b"Sec-WebSocket-Protocol: rtnet.1\r\n\r\n"
    yield "two-protocols", 1, good + 2 * b"Sec-WebSocket-Protocol: chat\r\n" \
        + tail
    yield "no-upgrade", 0, good.replace(b"Upgrade: w", b"X: w") + tail
    yield "200", 0, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    yield "503", 4, b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\n\r\n"
    yield "http10", 0, good.replace(b"/1.1", b"/1.0") + tail
    yield "garbage", 0, b"hello\r\n\r\n"
    yield "too-long", 2, good + b"X: " + 300 * b"x" + b"\r\n" + tail
    yield "bare-lf", 0, good.replace(b"\r\n", b"\n") + tail


def proxies():
    """PROXY v1 and v2, in front of a request (1) or of bytes (0)."""
    sign = b"\r\n\r\n\0\r\nQUIT\n"
    v4 = bytes([1, 2, 3, 4, 10, 0, 0, 1, 0, 80, 1, 187])
    v6 = bytes(range(32)) + b"\0\x50\x01\xbb"

    def binary(first, second, body):
        return sign + bytes([first, second]) + struct.pack(">H",
                                                           len(body)) + body

    for http in (0, 1):
        tail = get() if http else b"hello"
        for name, head in (
                ("tcp4", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65535\r\n"),
                ("tcp6", b"PROXY TCP6 ::1 2001:db8::ffff:1 1 2\r\n"),
                ("unknown", b"PROXY UNKNOWN\r\n"),
                ("unknown-more", b"PROXY UNKNOWN ::1 x 1 2\r\n"),
                ("port", b"PROXY TCP4 1.2.3.4 5.6.7.8 01 65536\r\n"),
                ("spaces", b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n"),
                ("long", b"PROXY UNKNOWN " + 100 * b"x" + b"\r\n"),
                ("lf", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"),
                ("none", b""), ("v2-4", binary(0x21, 0x11, v4)),
                ("v2-6", binary(0x21, 0x21, v6)),
                ("v2-local", binary(0x20, 0, b"")),
                ("v2-tlv", binary(0x21, 0x11, v4 + b"\x04\0\x02ab")),
                ("v2-short", binary(0x21, 0x11, v4[:11])),
                ("v2-unix", binary(0x21, 0x31, bytes(216))),
                ("v2-long", binary(0x21, 0x11, v4 + bytes(520)))):
            yield "%s-%s" % ("http" if http else "raw", name), http, head + tail


CURRENT, PREVIOUS = b"{current-token-here--}", b"{previous-token-here-}"


def rtnet1():
    """The resume protocol: 0 or 2 to a server, 1 or 3 to a client."""
    for ws in (0, 2):
        def packet(text, binary, client):
            if ws:
                return frame(0x82 if binary else 0x81, text, mask=client)
            return struct.pack(">I", len(text)) + text

        def rows(new, back, p):
            yield "new", 0, new + p(b"mhello") + p(b"uhello")
            yield "echo", 4, new + p(b"mhello") + p(b"a1") + p(b"mx")
            yield "say", 0, new + b"{say}{say}" + p(b"a2") + b"{key}{sec}"
            yield "too-much", 0, new + b"{say}" + p(b"a2")
            yield "back", 4, new + p(b"ma") + b"{cut}" + back(1, 1) \
                + p(b"a1") + p(b"mb")
            yield "replay", 4, new + p(b"ma") + p(b"mb") + b"{cut}" \
                + back(0, 1) + p(b"a2")
            yield "fin", 0, new + b"{fin}{say}" + back(0, 1) + p(b"a1")
            yield "takeover", 0, new + b"{two}" + back(0, 1) + p(b"a0")
            yield "stale", 0, new + b"{two}" + back(0, 1) + p(b"a0") \
                + b"{two}" + back(0, 1).replace(CURRENT, PREVIOUS)
            yield "same-try", 0, new + b"{cut}" + back(0, 1) + b"{cut}" \
                + back(0, 1).replace(CURRENT, PREVIOUS)
            yield "end", 0, new + b"{say}{end}" + p(b"a1")
            yield "binary", 4, new + p(b"mx" if ws else b"Mx", True)
            yield "unknown", 0, new + p(b"x")
            yield "empty", 0, new + p(b"")
            yield "many", 4, new + 40 * p(b"mx") + p(b"a40")

        def p(text, binary=False):
            return packet(text, binary, True)

        def hello(received, attempt):
            return p(b"h" + CURRENT + b" %d %d" % (received, attempt))

        for name, config, data in rows(p(b"h") + p(b"a0"), hello, p):
            yield "server-%d-%s" % (ws, name), config | ws, data

        def q(text, binary=False):
            return packet(text, binary, False)

        def back(received, attempt):
            return q(b"w" + b"A" * 21 + b"Q P %d %d resumed 15000"
                     % (received, received))

        first = q(b"w" + b"A" * 22 + b" P 0 0 new 15000")
        for name, config, data in rows(first, back, q):
            yield "client-%d-%s" % (ws, name), config | ws | 1, data
        gap = q(b"w" + b"A" * 22 + b" P 0 7 gap 15000")
        yield "client-%d-gap" % ws, 1 | ws, first + b"{cut}" + gap


def programs():
    """Choices of a whole program; nothing else can be said of them."""
    for i in range(12):
        r = random.Random(i)
        yield "random-%d" % i, i % 8, bytes(
            r.randrange(256) for _ in range(60 * (i + 1)))


TARGETS = {"program": programs(), "rtnet1": rtnet1(),
           "server_frames": frames(True), "client_frames": frames(False),
           "request": requests(), "response": responses(), "proxy": proxies()}


def main():
    for target, rows in TARGETS.items():
        where = os.path.join(sys.argv[1], target)
        os.makedirs(where, exist_ok=True)
        for name, config, data in rows:
            with open(os.path.join(where, "seed-" + name), "wb") as out:
                out.write(bytes([config, len(name)]) + data)


main()
