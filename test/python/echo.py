"""An echo server in Python, by ctypes: echo.py LIBRARY [PORT].

Handles are structs of one number and go by value; of the options, whose zeros
are right, the first fields are enough.
"""
import ctypes as c
import signal
import sys


class Handle(c.Structure):
    _fields_ = [("id", c.c_uint64)]


LOOP, DATA, SIZE = c.c_void_p, c.c_void_p, c.c_size_t
OPEN = c.CFUNCTYPE(None, LOOP, Handle)
MESSAGE = c.CFUNCTYPE(None, LOOP, Handle, c.c_int, DATA, SIZE)


class ListenOptions(c.Structure):
    _fields_ = [("request", c.c_void_p), ("open", OPEN), ("message", MESSAGE),
                ("more_callbacks", c.c_void_p * 6), ("user", c.py_object),
                ("rest", c.c_char * 1024)]


def call(name, result, *arguments):
    function = getattr(c.CDLL(sys.argv[1]), "rt_" + name)
    function.restype, function.argtypes = result, arguments
    return function


listen = call("listen", Handle, LOOP, c.c_char_p, c.POINTER(ListenOptions))
context = call("context", c.c_void_p, LOOP, Handle)
send = call("send", c.c_int, LOOP, Handle, c.c_int, DATA, SIZE)


@OPEN
def on_open(loop, session):
    c.cast(context(loop, session), c.py_object).value["opened"] += 1


@MESSAGE
def on_message(loop, session, kind, data, size):
    send(loop, session, kind, data, size)


state = {"opened": 0, "run": True}
signal.signal(signal.SIGTERM, lambda *_: state.update(run=False))
server = call("loop_new", LOOP, c.c_void_p)(None)
options = ListenOptions(open=on_open, message=on_message, user=state)
url = "ws://:" + (sys.argv[2] if len(sys.argv) > 2 else "9000")
at = listen(server, url.encode(), options)
at.id or sys.exit("cannot listen on " + url)
print("rtnet", call("version", c.c_char_p)().decode(), "on port",
      call("listener_port", c.c_int, LOOP, Handle)(server, at), flush=True)
poll = call("poll", c.c_int, LOOP, c.c_int)
while state["run"]:
    poll(server, 100)
call("loop_free", None, LOOP)(server)
print("opened", state["opened"])
