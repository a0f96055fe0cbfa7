"""The PROXY protocol, versions 1 and 2, by its text; rtnet.h: a header is at
most 536 bytes, and a trusted proxy that sends none is closed."""
import ipaddress
import re

import handshake

SIGN = b"\r\n\r\n\0\r\nQUIT\n"
SOCKET = ipaddress.ip_address("10.1.2.3")
SIZES = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216,
         0x32: 216}


class Bad(Exception):
    pass


class More(Exception):
    pass


def text_read(data):
    """Section 2.1: (size, address)."""
    end = data.find(b"\r\n")
    if end < 0 or end + 2 > 107:
        raise Bad if len(data) >= 107 or end >= 0 else More
    line = data[:end]
    if re.match(rb"PROXY UNKNOWN( |\Z)", line):
        if b"\r" in line or b"\n" in line:
            raise Bad
        return end + 2, SOCKET
    m = re.match(rb"PROXY (TCP4|TCP6) ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+)\Z", line)
    if not m:
        raise Bad
    source, to = (handshake.address_of(m.group(i)) for i in (2, 3))
    version = 4 if m.group(1) == b"TCP4" else 6
    if not source or not to or {source.version, to.version} != {version}:
        raise Bad
    for port in m.group(4), m.group(5):
        if not re.match(rb"(0|[1-9][0-9]{0,4})\Z", port) or int(port) > 65535:
            raise Bad
    return end + 2, source


def binary_read(data):
    """Section 2.2"""
    if len(data) < 16:
        raise More
    if data[12] not in (0x20, 0x21):
        raise Bad
    size = int.from_bytes(data[14:16], "big")
    if data[12] == 0x21 and size < SIZES.get(data[13], 1 << 16):
        raise Bad
    if 16 + size > 536:
        raise Bad
    if len(data) < 16 + size:
        raise More
    source = SOCKET
    if data[12] == 0x21 and data[13] == 0x11:
        source = ipaddress.ip_address(data[16:20])
    if data[12] == 0x21 and data[13] == 0x21:
        source = ipaddress.ip_address(data[16:32])
    return 16 + size, source


def could_become_good(data):
    """Is it the beginning of a header, by what is there?"""
    if SIGN.startswith(data[:12]):
        return len(data) < 13 or (data[12] in (0x20, 0x21) and (
            len(data) < 14 or data[12] == 0x20 or data[13] in SIZES))
    for word in (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"):
        if word.startswith(data[:len(word)]):
            return not re.match(rb"PROXY UNKNOWN[^ \r]", data)
    return False


def refuse(story, http_line):
    if not http_line:
        story.tell("app", "bytes", b"")
    story.tell("control", "eof")


def header(data):
    return binary_read(data) if data.startswith(SIGN) else text_read(data)


def play(story, config, data):
    http_line = config & 1
    try:
        size, address = header(data)
    except Bad:
        refuse(story, False)
        return
    except More:
        cut_short(story, data)
        return
    if http_line:
        handshake.Proxied(story, address).feed(data[size:])
        story.tell("app", "bytes", b"")
        return
    story.tell("app", "open")
    story.tell("app", "bytes", data[size:])


def cut_short(story, data):
    """A header that ends too early; what is wrong in it already may have been
    seen, or not."""
    other = story.__class__()
    story.tell("app", "bytes", b"")
    other.tell("app", "bytes", b"")
    other.tell("control", "eof")
    if not data or could_become_good(data):
        if re.search(rb"[\n]|\r.", data) or data.endswith(b"\r") \
                or len(data) > 100:
            story.maybe.append(other)
        return
    story.control.append("eof")
