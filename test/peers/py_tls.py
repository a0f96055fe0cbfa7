"""TLS with Python's ssl, which is OpenSSL by other means, and its websockets:
as the client of the secure server and as the server that the dialer talks to.
Prints a line for each case, the sum in the last one."""

import asyncio
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import warnings

import websockets

import py_peer
from py_peer import check_sane, data_of, end_of, start, text_of

HERE = os.path.dirname(os.path.abspath(__file__))
CERTS = tempfile.TemporaryDirectory(prefix="rtnet-tls-")
CASES = []


def case(function):
    """Marks a coroutine as a case; its first line of text is the name."""
    CASES.append(function)
    return function


def cert(name):
    return os.path.join(CERTS.name, name + ".pem")


def key(name):
    return os.path.join(CERTS.name, name + ".key")


class Secure:
    """The secure server for the length of a with block; its lines are out."""

    def __init__(self, backend, *args, name="host"):
        backend = "select" if backend == "select" else "auto"
        self.args = ("--cert", cert(name), "--key", key(name), "--backend",
                     backend) + args
        self.out = []

    async def __aenter__(self):
        self.child = await start("secure", *self.args)
        line = await asyncio.wait_for(self.child.stdout.readline(), 10)
        self.port = int(re.search(rb"listening on (\d+)", line).group(1))
        self.url = f"wss://localhost:{self.port}/"
        self.reader = asyncio.create_task(self.read())
        self.errors = asyncio.create_task(self.child.stderr.read())
        return self

    async def read(self):
        async for line in self.child.stdout:
            self.out.append(line.decode().rstrip("\n"))

    async def sees(self, begin):
        for _ in range(250):
            if any(line.startswith(begin) for line in self.out):
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"no {begin} in {self.out}")

    async def __aexit__(self, *_):
        died = self.child.returncode
        if died is None:
            self.child.terminate()
        await asyncio.wait_for(self.child.wait(), 10)
        await self.reader
        py_peer.children.discard(self.child)
        check_sane((await self.errors).decode())
        assert died is None, f"the server died: {died}"
        assert self.child.returncode == 0, self.child.returncode


def trusting(**options):
    context = ssl.create_default_context(cafile=cert("authority"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    for name, value in options.items():
        setattr(context, name, value)
    return context


def connect(url, context):
    return websockets.connect(url, ssl=context, max_size=None,
                              open_timeout=10, close_timeout=10)


# ---- websockets as the client ----------------------------------------------


async def echoes(ws, sizes):
    for size in sizes:
        for sent in (data_of(size), text_of(size // 4)):
            await ws.send(sent)
            got = await asyncio.wait_for(ws.recv(), 10)
            assert type(got) is type(sent) and got == sent, size


@case
async def client_echoes(backend):
    """texts and binaries of every size come back over wss"""
    for name in ("host", "rsa"):
        async with Secure(backend, name=name) as server:
            async with connect(server.url, trusting()) as ws:
                await echoes(ws, (0, 1, 125, 126, 16384, 65536, 1 << 20))
            assert ws.close_code == 1000


@case
async def client_many(backend):
    """fifty clients at once over wss"""

    async def one(url, context, number):
        async with connect(url, context) as ws:
            for i in range(10):
                await ws.send(f"{number} says {i}")
                got = await asyncio.wait_for(ws.recv(), 10)
                assert got == f"{number} says {i}"

    async with Secure(backend) as server:
        context = trusting()
        await asyncio.gather(*(one(server.url, context, i)
                               for i in range(50)))


@case
async def client_distrusts(backend):
    """a client that trusts another authority does not come in"""
    context = ssl.create_default_context(cafile=cert("stranger"))
    async with Secure(backend) as server:
        try:
            async with connect(server.url, context):
                raise AssertionError("it came in")
        except ssl.SSLCertVerificationError:
            pass
        assert "open" not in server.out


# ---- ssl as the client -----------------------------------------------------


def shake(server, context, session=None):
    """A blocking client of TLS; the server is another process."""
    plain = socket.create_connection(("127.0.0.1", server.port), 10)
    return context.wrap_socket(plain, server_hostname="localhost",
                               session=session)


def ask(line, data):
    line.sendall(data)
    got = b""
    while len(got) < len(data):
        some = line.recv(65536)
        assert some, "the end instead of an echo"
        got += some
    assert got == data


@case
async def tickets(backend):
    """a session comes back by its ticket, and without tickets not at all"""
    async with Secure(backend, "--scheme", "tls") as server:
        context = trusting()
        with shake(server, context) as line:
            ask(line, b"first")
            session = line.session
            assert not line.session_reused and session.has_ticket
        for _ in range(3):
            with shake(server, context, session) as line:
                assert line.session_reused
                ask(line, b"again")
        context = trusting(options=trusting().options | ssl.OP_NO_TICKET)
        with shake(server, context) as line:
            ask(line, b"first")
            session = line.session
            assert not session.has_ticket
        if session.id:
            with shake(server, context, session) as line:
                assert not line.session_reused
                ask(line, b"again")


@case
async def goodbyes(backend):
    """the server's close is close_notify; the end without one is 1006"""
    async with Secure(backend, "--scheme", "tls") as server:
        line = shake(server, trusting())
        line.suppress_ragged_eofs = False  # an end without is an error
        ask(line, b"hello")
        line.sendall(b"close")
        assert line.recv(100) == b""
        line.unwrap().close()
        await server.sees("end code=1000")
        line = shake(server, trusting())
        ask(line, b"hello")
        assert line.unwrap().recv(100) == b""
        await server.sees("end code=1005 cause=2")
        line = shake(server, trusting())
        ask(line, b"hello")
        socket.socket.shutdown(line, socket.SHUT_WR)
        await server.sees("end code=1006")
        line.close()


@case
async def versions(backend):
    """TLS 1.1 is refused, 1.2 spoken; the suite has forward secrecy"""
    async with Secure(backend, name="rsa") as server:
        old = trusting()
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        try:
            shake(server, old)
            raise AssertionError("it was spoken")
        except ssl.SSLError as error:
            assert "PROTOCOL_VERSION" in error.reason, error
        with shake(server, trusting()) as line:
            assert line.version() == "TLSv1.2"
            assert line.cipher()[0].startswith("ECDHE-RSA-"), line.cipher()


# ---- as the server ---------------------------------------------------------


async def dial(*args):
    """Runs the dialer to its end: (exit code, what it printed)."""
    child = await start("tls_dialer", *args)
    out, err = await asyncio.wait_for(child.communicate(), 30)
    py_peer.children.discard(child)
    check_sane(err.decode())
    return child.returncode, out.decode()


async def echo(ws):
    async for message in ws:
        await ws.send(message)


def serving(name, options=0):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert(name), key(name))
    context.options |= options
    return context


def serve(context):
    return websockets.serve(echo, "127.0.0.1", 0, ssl=context, max_size=None)


def url_of(server):
    return f"wss://localhost:{server.sockets[0].getsockname()[1]}/py"


@case
async def server_echoes(backend):
    """dialled: with and without tickets, by P-256 and RSA"""
    for name in ("host", "rsa"):
        for options in (0, ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION,
                        ssl.OP_CIPHER_SERVER_PREFERENCE):
            async with serve(serving(name, options)) as server:
                code, out = await dial(
                    url_of(server), "--ca", cert("authority"), "--size",
                    20000, "--backend", backend)
                assert code == 0 and "right=10 wrong=0" in out, out


@case
async def server_distrusted(backend):
    """dialled: expired, for another host, of another authority"""
    for name, why in (("late", "expired"), ("other", "wrong host"),
                      ("foreign", "not trusted")):
        async with serve(serving(name)) as server:
            code, out = await dial(url_of(server), "--ca", cert("authority"),
                                   "--backend", backend)
            assert code == 1 and end_of(out) == (1006, f"certificate: {why}")


warnings.simplefilter("ignore", DeprecationWarning)  # of TLS 1.1, above all
subprocess.run(["sh", os.path.join(HERE, "certs.sh"), CERTS.name], check=True)
sys.exit(asyncio.run(py_peer.main(CASES)))
