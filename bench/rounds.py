"""What pair.py and bench.py share: servers on one processor, the load on
another, alternating runs, and what is counted meanwhile.

The rates of a shared machine drift, so only the ratio of two runs of one round
counts; a median of them is told, and the spread.
"""
import dataclasses
import glob
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import tempfile
import time


class Broken(Exception):
    """Something could not be run: no figure, and no honest verdict."""


@dataclasses.dataclass
class Place:
    """Where it runs: one processor for the servers, one for the load."""
    rtload: str = "build/rtload"
    server_cpu: int = 0
    load_cpu: int = 1


def pin(cpu):
    if cpu in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {cpu})


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def spread(values):
    return {"median": statistics.median(values), "least": min(values),
            "greatest": max(values)}


def cpu_seconds(pid):
    """Processor time of all threads, by the scheduler's clock."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            with open(path, encoding="ascii") as f:
                total += int(f.read().split()[0])
        except (OSError, IndexError):
            pass  # a thread that has just ended
    return total / 1e9


class Server:
    """One that is started, and listens.  {port} stands for its port; with
    --cert it has TLS."""

    def __init__(self, place, command):
        self.place, self.command = place, command
        self.scheme = "wss" if "--cert" in command else "ws"
        self.port = free_port()
        words = shlex.split(command.replace("{port}", str(self.port)))
        try:
            self.process = subprocess.Popen(
                words, stdout=subprocess.DEVNULL,
                preexec_fn=lambda: pin(place.server_cpu))
        except OSError as e:
            raise Broken(f"{command}: {e.strerror}") from e
        self.pid = self.process.pid
        try:
            self.wait()
        except Broken:
            self.stop()
            raise

    def wait(self):
        for _ in range(200):
            if self.process.poll() is not None:
                raise Broken(f"{self.command}: ended with "
                             f"{self.process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise Broken(f"{self.command}: nobody listens on {self.port}")

    def load_command(self, words):
        return [self.place.rtload, f"{self.scheme}://127.0.0.1:{self.port}/",
                "--json", "--quiet", *words]

    def start(self, words):
        """Starts rtload against it."""
        try:
            return subprocess.Popen(
                self.load_command(words), stdout=subprocess.PIPE,
                preexec_fn=lambda: pin(self.place.load_cpu))
        except OSError as e:
            raise Broken(f"{self.place.rtload}: {e.strerror}") from e

    def result(self, load):
        """What a started rtload says, when it is done."""
        out = load.communicate()[0]
        if load.returncode or not out:
            raise Broken(f"{self.command}: {shlex.join(load.args)} ended with "
                         f"{load.returncode}")
        return json.loads(out)

    def load(self, words):
        """A whole run; also tells the server's processor time for each."""
        before = cpu_seconds(self.pid)
        result = self.result(self.start(words))
        spent = cpu_seconds(self.pid) - before
        result["server_cpu_us"] = 1e6 * spent / max(1, result["received"])
        return result

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Servers(dict):
    """Servers by name, that end with the block."""

    def __init__(self, place, commands):
        super().__init__()
        try:
            for name, command in commands.items():
                self[name] = Server(place, command)
        except Broken:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self.values():
            server.stop()


def alternate(servers, rounds, run, dropped=None):
    """A B A B ...: what run(name, server) gives, by name, one a round.  A
    server named in dropped, a dictionary, may fail: it is left out from then
    on, and why is put there."""
    figures = {name: [] for name in servers}
    for _ in range(rounds):
        for name in list(figures):
            try:
                figures[name].append(run(name, servers[name]))
            except Broken as e:
                if dropped is None or name not in dropped:
                    raise
                dropped[name] = str(e)
                del figures[name]
    return figures


def ratios(figures, one, other):
    return [a / b for a, b in zip(figures[one], figures[other])]


# ---- perf -------------------------------------------------------------------

EVENTS = ("raw_syscalls:sys_enter", "syscalls:sys_enter_*")
SAMPLES_HZ = 10000


def counted(text):
    """The sum of the counters that perf stat -x, has printed, or None."""
    fields = [line.split(",")[0] for line in text.splitlines() if "," in line]
    numbers = [int(f) for f in fields if f.isdigit()]
    return sum(numbers) if numbers else None


def perf_quietly(*words):
    try:
        return subprocess.run(["perf", *words], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
    except OSError:
        return None


def calls_event():
    """The event that counts system calls here, and why not if there is none."""
    if perf_quietly("--version") is None:
        return None, "there is no perf"
    for event in EVENTS:
        done = perf_quietly("stat", "-x,", "-e", event, "true")
        if done.returncode == 0 and counted(done.stdout):
            return event, ""
    return None, "perf may not count system calls here (root may)"


def samples_why_not():
    """Why perf cannot sample here; "" when it can."""
    if perf_quietly("--version") is None:
        return "there is no perf"
    done = perf_quietly("record", "-q", "-e", "cpu-clock", "-o", "/dev/null",
                        "true")
    return "perf may not sample here (root may)" if done.returncode else ""


class Perf:
    """perf looks at a process while the block runs; its output is in text."""

    def __init__(self, words, server):
        self.words, self.server = words, server
        self.file, self.text = None, ""

    def __enter__(self):
        self.file = tempfile.NamedTemporaryFile()
        self.process = subprocess.Popen(
            ["perf", *self.words, "-p", str(self.server.pid), "-o",
             self.file.name], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: pin(self.server.place.load_cpu))
        time.sleep(0.3)  # until it looks
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.read()
        self.file.close()

    def read(self):
        with open(self.file.name, encoding="ascii", errors="replace") as f:
            self.text = f.read()


class Samples(Perf):
    """Where a process is, SAMPLES_HZ times a second of its time."""

    def __init__(self, server):
        super().__init__(["record", "-q", "-e", "cpu-clock", "-F",
                          str(SAMPLES_HZ)], server)

    def read(self):
        done = perf_quietly("script", "-i", self.file.name, "-F", "ip")
        self.text = done.stdout if done else ""

    def user_us(self):
        """Time outside of the kernel, whose half of the addresses is the
        upper one."""
        places = [line.split()[0] for line in self.text.splitlines()
                  if line.strip()]
        user = sum(1 for p in places if len(p) < 16 or p[0] < "8")
        if user == 0:
            raise Broken("perf has no sample of the server")
        return user * 1e6 / SAMPLES_HZ


def calls(server, event, words):
    """System calls of the server during a run, and the run's result."""
    with Perf(["stat", "-x,", "-e", event], server) as perf:
        result = server.load(words)
    total = counted(perf.text)
    if total is None:
        raise Broken(f"perf counted nothing of {server.command}")
    return total, result
