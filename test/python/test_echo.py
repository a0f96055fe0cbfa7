"""The library as other languages see it: echo.py with a shared library, and a
client that knows nothing of rtnet.  Usage: test_echo.py LIBRARY
Prints "N passed, N failed, N skipped" as its last line."""
import base64
import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE = 1, 2, 8
passed = failed = 0


def check(ok, what):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print("FAIL", what)


class Client:
    """A WebSocket with the standard library (RFC 6455)."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.file = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16))
        self.socket.sendall(
            b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + key + b"\r\n\r\n")
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        lines = []
        while not lines or lines[-1]:
            lines.append(self.file.readline().strip())
        self.accepted = (lines[0].startswith(b"HTTP/1.1 101 ") and
                         b"Sec-WebSocket-Accept: " + accept in lines)

    def send(self, kind, data):
        mask = os.urandom(4)
        size = len(data)
        head = (struct.pack("!BB", 0x80 | kind, 0x80 | size) if size < 126 else
                struct.pack("!BBH", 0x80 | kind, 0x80 | 126, size)
                if size < 65536 else
                struct.pack("!BBQ", 0x80 | kind, 0x80 | 127, size))
        body = bytes(b ^ mask[i & 3] for i, b in enumerate(data))
        self.socket.sendall(head + mask + body)

    def receive(self):
        kind, size = self.file.read(2)
        if size == 126:
            size, = struct.unpack("!H", self.file.read(2))
        elif size == 127:
            size, = struct.unpack("!Q", self.file.read(8))
        return kind & 15, self.file.read(size)


def echoes(port):
    client = Client(port)
    check(client.accepted, "the handshake")
    for kind, data in ((TEXT, b"word"), (BINARY, b"\0\1\2"), (TEXT, b""),
                       (TEXT, "Gr\u00fc\u00dfe".encode()),
                       (BINARY, bytes(range(256)) * 200)):
        client.send(kind, data)
        check(client.receive() == (kind, data), "an echo of %d bytes, kind %d"
              % (len(data), kind))
    client.send(CLOSE, struct.pack("!H", 1000))
    check(client.receive() == (CLOSE, struct.pack("!H", 1000)), "the close")


def version_of_header():
    with open(os.path.join(HERE, "..", "..", "rtnet.h")) as header:
        return ".".join(re.findall(r"define RT_VERSION_\w+ (\d+)",
                                   header.read()))


def main():
    server = subprocess.Popen(
        [sys.executable, os.path.join(HERE, "echo.py"), sys.argv[1], "0"],
        stdout=subprocess.PIPE, text=True)
    try:
        words = server.stdout.readline().split()
        check(words[:2] == ["rtnet", version_of_header()], "the version")
        for _ in range(3):
            echoes(int(words[-1]))
        server.send_signal(signal.SIGTERM)
        said, _ = server.communicate(timeout=10)
        check(said == "opened 3\n", "what rt_context gave: " + repr(said))
        check(server.returncode == 0, "the end")
        refused = subprocess.run(
            [sys.executable, os.path.join(HERE, "echo.py"), sys.argv[1], "x"],
            capture_output=True, text=True, timeout=10)
        check(refused.returncode == 1 and "cannot listen" in refused.stderr,
              "what is no port is refused")
    finally:
        server.kill()
    print("%d passed, %d failed, 0 skipped" % (passed, failed))
    return failed != 0


sys.exit(main())
