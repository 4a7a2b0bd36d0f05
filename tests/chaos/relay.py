"""A relay between the nodes of a cluster and its clients: every connection can be broken at will.

For each pair of ends (`a`, `b`) of which `a` connects to `b` there is an address of its own, which
`a` is given as that of `b`. What happens to what `a` sends to `b`, on connections that either of
them has opened, is its *mode*:

    pass     it arrives
    drop     it is held, and arrives when the mode is "pass" again, as TCP would see to; the sender
             is told nothing. An attempt to connect is not even answered
    refuse   connections are reset, and so is each new one

A new connection needs both ways, so the worse of the two modes decides about it.

The relay is a process of its own, so that the load of a test does not slow it down. `Relay` starts
it and speaks to it in lines of JSON; it ends with the test.
"""

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping

HOST = "127.0.0.1"
LUMP = 1 << 16
BACKLOG = 100

Pair = tuple[str, str]
"""From whom, to whom."""


class Relay:
    """The process, as the test sees it; a context manager. Any thread may use it."""

    def __init__(self, ports: Mapping[Pair, int]):
        """`ports`: for each pair (a, b) where b listens."""
        links = [[*pair, port] for pair, port in ports.items()]
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is meant for the test
        )
        self._lock = threading.Lock()
        self._ports = dict(zip(ports, self._ask(links), strict=True))

    def address(self, a: str, b: str) -> str:
        """Where `a` finds `b`."""
        return f"{HOST}:{self._ports[a, b]}"

    def set(self, modes: Mapping[Pair, str]) -> None:
        """Changes the modes of some pairs; it is so when this returns."""
        self._ask({"modes": [[*pair, mode] for pair, mode in modes.items()], "reset": []})

    def reset(self, pairs: Iterable[Pair]) -> None:
        """Resets all connections of these pairs, once."""
        self._ask({"modes": [], "reset": list(pairs)})

    def _ask(self, what):
        with self._lock:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the relay has ended"
        return json.loads(answer)

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


# ---- the process ----


class Way:
    """What becomes of what one end sends to another."""

    def __init__(self):
        self.mode = "pass"
        self.is_open = asyncio.Event()
        self.is_open.set()

    def change(self, mode):
        self.mode = mode
        if mode == "drop":
            self.is_open.clear()
        else:
            self.is_open.set()


class Link:
    """Where one end connects to another, and the connections that it has opened."""

    def __init__(self, to_port, there: Way, back: Way):
        self.to_port, self.there, self.back = to_port, there, back
        self.writers = set()
        self.tasks = set()
        self.fillers = []
        self.filler_names = set()
        self.listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.listen()

    def listen(self):
        """Does with new connections what the modes say."""
        loop = asyncio.get_running_loop()
        modes = {self.there.mode, self.back.mode}
        loop.remove_reader(self.listener)
        if modes == {"pass"} or "refuse" in modes:
            self.empty()
            loop.add_reader(self.listener, self.accept)
        else:
            self.fill()

    def fill(self):
        """The kernel drops attempts to connect to a listener whose queue is full."""
        self.listener.listen(0)
        for _ in range(3 - len(self.fillers)):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((HOST, self.port))
            self.fillers.append(filler)
        self.filler_names = {filler.getsockname() for filler in self.fillers}

    def empty(self):
        self.listener.listen(BACKLOG)
        for filler in self.fillers:
            filler.close()
        self.fillers = []

    def accept(self):
        with contextlib.suppress(OSError):
            taken, name = self.listener.accept()
            if name in self.filler_names:
                taken.close()
                return
            task = asyncio.create_task(self.connect(taken))
            self.tasks.add(task)  # the loop itself would forget it
            task.add_done_callback(self.tasks.discard)

    async def connect(self, taken):
        """Carries one connection until both sides have closed it."""
        near_in, near = await asyncio.open_connection(sock=taken)
        self.writers.add(near)
        try:
            far_in, far = await asyncio.open_connection(HOST, self.to_port)
            self.writers.add(far)
            if "refuse" in (self.there.mode, self.back.mode):
                self.reset()
            await asyncio.gather(
                carry(near_in, far, self.there.is_open), carry(far_in, near, self.back.is_open)
            )
            far.close()
            self.writers.remove(far)
        except OSError:
            abort(near)
        near.close()
        self.writers.remove(near)

    def reset(self):
        for writer in self.writers:
            abort(writer)


async def carry(reader, writer, is_open):
    """One direction of a connection, with its end."""
    try:
        while lump := await reader.read(LUMP):
            await is_open.wait()
            writer.write(lump)
            await writer.drain()
        await is_open.wait()
        writer.write_eof()
    except OSError:
        await is_open.wait()
        abort(writer)


def abort(writer):
    """Closes with a reset."""
    with contextlib.suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


def obey(command, ways, links):
    """Carries out a command of the test."""
    for a, b, mode in command["modes"]:
        ways[a, b].change(mode)
        for pair in ((a, b), (b, a)):
            if pair in links:
                links[pair].listen()
                if mode == "refuse":
                    links[pair].reset()
    for a, b in command["reset"]:
        if (a, b) in links:
            links[a, b].reset()


async def serve():
    """The relay: links first, then commands."""
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    ways = defaultdict(Way)
    links = {
        (a, b): Link(port, ways[a, b], ways[b, a])
        for a, b, port in json.loads(await commands.readline())
    }
    print(json.dumps([link.port for link in links.values()]), flush=True)
    while line := await commands.readline():
        obey(json.loads(line), ways, links)
        print("null", flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
