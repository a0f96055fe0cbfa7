"""Python's websockets as the client of the echo server and as the server that
the dialer talks to.  Prints a line for each case, the sum in the last one."""

import asyncio
import os
import re
import sys
import traceback

import websockets

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
BACKENDS = ("epoll", "select")
CASES = []
children = set()


def case(function):
    """Marks a coroutine as a case; its first line of text is the name."""
    CASES.append(function)
    return function


def data_of(size, seed=1):
    return bytes((seed * 131 + i * 31 + (i >> 8)) & 0xFF for i in range(size))


def text_of(size):
    return ("rt ü 漢 😀 net " * (size // 10 + 1))[:size]


async def start(program, *args):
    child = await asyncio.create_subprocess_exec(
        os.path.join(BUILD, program), *map(str, args), cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE)
    children.add(child)
    return child


def check_sane(err):
    assert not re.search(r"Sanitizer|runtime error:", err), err


class EchoServer:
    """The echo server for the length of a with block."""

    def __init__(self, *args):
        self.args = ("--host", "127.0.0.1", "--port", 0) + args

    async def __aenter__(self):
        self.child = await start("echo_server", *self.args)
        line = await asyncio.wait_for(self.child.stdout.readline(), 10)
        found = re.search(r"listening on (\d+)", line.decode())
        assert found, line
        self.url = f"ws://127.0.0.1:{found.group(1)}/"
        return self

    async def __aexit__(self, *_):
        died = self.child.returncode
        if died is None:
            self.child.terminate()
        _, err = await asyncio.wait_for(self.child.communicate(), 10)
        children.discard(self.child)
        check_sane(err.decode())
        assert died is None, f"the server died: {died}\n{err.decode()}"
        assert self.child.returncode in (0, -15), self.child.returncode


async def dial(*args):
    """Runs the dialer to its end: (exit code, what it printed)."""
    child = await start("dialer", *args)
    out, err = await asyncio.wait_for(child.communicate(), 30)
    children.discard(child)
    check_sane(err.decode())
    return child.returncode, out.decode()


def end_of(out):
    found = re.search(r"^end code=(\d+) cause=(\d+) .*reason=(.*)$", out, re.M)
    assert found, out
    return int(found.group(1)), found.group(3)


def connect(url, **options):
    options.setdefault("max_size", None)
    return websockets.connect(url, open_timeout=10, close_timeout=10,
                              **options)


# ---- as the client ---------------------------------------------------------


@case
async def client_echoes(backend):
    """texts and binaries of every size come back"""
    async with EchoServer("--backend", backend, "--max-message",
                          2 << 20) as server:
        async with connect(server.url) as ws:
            for size in (0, 1, 5, 125, 126, 127, 1000, 65535, 65536, 1 << 20):
                for sent in (data_of(size), text_of(size // 4)):
                    await ws.send(sent)
                    got = await asyncio.wait_for(ws.recv(), 10)
                    assert type(got) is type(sent) and got == sent, size
        assert ws.close_code == 1000


@case
async def client_fragments(backend):
    """fragments are joined, pings between them answered"""
    async with EchoServer("--backend", backend) as server:
        async with connect(server.url) as ws:

            async def parts():
                for i in range(20):
                    await asyncio.wait_for(await ws.ping(), 10)
                    yield f"teil {i} ü "

            await ws.send(parts())
            got = await asyncio.wait_for(ws.recv(), 10)
            assert got == "".join(f"teil {i} ü " for i in range(20))
            await ws.send([b"", b"a" * 40000, b"", b"b"])
            assert await asyncio.wait_for(ws.recv(), 10) == b"a" * 40000 + b"b"


@case
async def client_burst(backend):
    """a thousand messages in flight keep their order"""
    async with EchoServer("--backend", backend) as server:
        async with connect(server.url, max_queue=None) as ws:
            sent = [f"message {i}" if i % 2 else data_of(i, i)
                    for i in range(1000)]
            for one in sent:
                await ws.send(one)
            got = [await asyncio.wait_for(ws.recv(), 10) for _ in sent]
            assert got == sent


@case
async def client_declined(backend):
    """compression and sub-protocols that nobody chose are not in force"""
    async with EchoServer("--backend", backend) as server:
        async with connect(server.url, compression="deflate",
                           subprotocols=["chat", "other"]) as ws:
            assert ws.subprotocol is None
            assert not getattr(ws, "extensions", [])
            await ws.send("plain " * 100)
            assert await asyncio.wait_for(ws.recv(), 10) == "plain " * 100


@case
async def client_close(backend):
    """our close codes come back, the server's codes are told"""
    async with EchoServer("--backend", backend, "--max-message",
                          1000) as server:
        for code in (1000, 1001, 3000, 4999):
            async with connect(server.url) as ws:
                await asyncio.wait_for(ws.close(code, "tschüß"), 10)
            assert ws.close_code == code
        async with connect(server.url) as ws:
            await ws.send(b"x" * 1001)
            await asyncio.wait_for(ws.wait_closed(), 10)
            assert ws.close_code == 1009, ws.close_code


@case
async def client_many(backend):
    """a hundred clients at once"""

    async def one(url, number):
        async with connect(url) as ws:
            for i in range(10):
                await ws.send(f"{number} says {i}")
                got = await asyncio.wait_for(ws.recv(), 10)
                assert got == f"{number} says {i}"

    async with EchoServer("--backend", backend) as server:
        await asyncio.gather(*(one(server.url, i) for i in range(100)))


# ---- as the server ---------------------------------------------------------


def serve(handler, **options):
    options.setdefault("max_size", None)
    return websockets.serve(handler, "127.0.0.1", 0, **options)


def url_of(server):
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/py"


async def echo(ws):
    async for message in ws:
        await ws.send(message)


@case
async def server_echoes(backend):
    """dialled: echoes of every size are right, in both kinds"""
    async with serve(echo) as server:
        for size in (0, 125, 126, 65535, 65536, 1 << 20):
            for text in (0, 1):
                code, out = await dial(
                    url_of(server), "--size", size, "--text", text,
                    "--window", 1 if size > 65536 else 8, "--messages", 5,
                    "--max-message", 1 << 20, "--backend", backend)
                assert code == 0 and "right=5 wrong=0" in out, out


@case
async def server_compression(backend):
    """dialled: a server that would compress does not"""
    offered = []

    async def handler(ws):
        offered.extend(getattr(ws, "extensions", []))
        await echo(ws)

    async with serve(handler, compression="deflate") as server:
        code, out = await dial(url_of(server), "--backend", backend)
        assert code == 0, out
        assert not offered


@case
async def server_protocol(backend):
    """dialled: the sub-protocol is agreed upon"""
    async with serve(echo, subprotocols=["rt.test"]) as server:
        code, out = await dial(url_of(server), "--protocols",
                               "other, rt.test", "--backend", backend)
        assert code == 0 and "open protocol=rt.test" in out, out


@case
async def server_close(backend):
    """dialled: close codes and reasons in both directions"""
    codes = []

    async def closes(ws):
        await ws.close(4007, "genug, ü")
        codes.append(ws.close_code)

    async def waits(ws):
        try:
            await echo(ws)
        except websockets.ConnectionClosed:
            pass  # anything but 1000 and 1001 is an error to it
        codes.append(ws.close_code)

    async with serve(closes) as server:
        _, out = await dial(url_of(server), "--wait", 1, "--messages", 0,
                            "--backend", backend)
        assert end_of(out) == (4007, "genug, ü"), out
    async with serve(waits) as server:
        code, out = await dial(url_of(server), "--code", 3999, "--reason",
                               "done", "--backend", backend)
        assert code == 0 and end_of(out)[0] == 3999, out
    assert codes == [4007, 3999], codes


@case
async def server_pings(backend):
    """dialled: pings in both directions"""
    done = []

    async def handler(ws):
        for _ in range(10):
            await asyncio.wait_for(await ws.ping(), 10)
        done.append(1)
        await asyncio.sleep(0.3)
        await ws.close(1000)

    async with serve(handler) as server:
        _, out = await dial(url_of(server), "--wait", 1, "--messages", 0,
                            "--ping-ms", 40, "--backend", backend)
        assert done and end_of(out)[0] == 1000, out
        assert re.search(r"^rtt us=[1-9]", out, re.M), out


@case
async def server_fragments(backend):
    """dialled: what comes in fragments is echoed whole"""
    got = []

    async def handler(ws):
        await ws.send(["zwei", " ", "Hälften", ""])
        got.append(await asyncio.wait_for(ws.recv(), 10))
        await ws.send([b"\0" * 30000, b"\1" * 30000])
        got.append(await asyncio.wait_for(ws.recv(), 10))
        await ws.close(1000)

    async with serve(handler) as server:
        code, out = await dial(url_of(server), "--echo", 1, "--backend",
                               backend)
        assert code == 0, out
    assert got == ["zwei Hälften", b"\0" * 30000 + b"\1" * 30000]


# ---- all of them -----------------------------------------------------------


async def run(function, backend):
    name = f"{backend}: {function.__doc__}"
    try:
        await asyncio.wait_for(function(backend), 60)
    except Exception:
        print(f"FAIL {name}: {traceback.format_exc()}", flush=True)
        return 1
    finally:
        for child in list(children):
            if child.returncode is None:
                child.kill()
            children.discard(child)
    print(f"ok   {name}", flush=True)
    return 0


async def main(cases):
    total = len(cases) * len(BACKENDS)
    failed = 0
    for backend in BACKENDS:
        for function in cases:
            failed += await run(function, backend)
    print(f"{total - failed} passed, {failed} failed, 0 skipped", flush=True)
    return failed != 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(CASES)))
