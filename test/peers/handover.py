# One side of a handover of examples/restart.c, for the other side's tests.
#   handover.py give SOCKET PORT   listens on both, gives them away and dies
#   handover.py hang SOCKET PORT   dies when asked, before it gives anything
#   handover.py take SOCKET        takes them, prints their count, then waits
import array
import os
import socket
import sys


def give(path, port, both):
    public = socket.create_server(('::', port), family=socket.AF_INET6,
                                  dualstack_ipv6=True)
    local = socket.socket(socket.AF_UNIX)
    local.bind(path)
    local.listen(8)
    print('listening', flush=True)
    line, _ = local.accept()
    if both:
        socket.send_fds(line, [b'S'], [public.fileno(), local.fileno()])
    os.kill(os.getpid(), 9)


def take(path):
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    size = socket.CMSG_SPACE(4 * array.array('i').itemsize)
    data, extra, _, _ = line.recvmsg(1, size)
    count = sum(len(body) // 4 for _, _, body in extra)
    print('took', len(data), count, flush=True)
    sys.stdin.read()


if sys.argv[1] == 'take':
    take(sys.argv[2])
else:
    give(sys.argv[2], int(sys.argv[3]), sys.argv[1] == 'give')
