"""`make bench-heal`: how soon replicas are identical again, and how many bytes that moves.

    unshare -rn python tests/bench/heal.py [--scale 1.0] [--only a,b,c,d]

Three nodes, three copies, and no client that reads. Time runs from the start of the process that
has missed something until all nodes count the same records and bytes. The bytes are all that the
loopback interface has carried meanwhile, with the headers of TCP and IP, without the questions for
the nodes' status; in a network namespace of its own (unshare) it carries nothing else.
"""

import argparse
import contextlib
import fcntl
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

import dkv

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
CHUNK = 20_000
POLL_S = 0.02
PATIENCE_S = 600
QUESTIONS = 100


def bring_up_loopback():
    """In a new network namespace it is down."""
    with socket.socket() as any_socket, contextlib.suppress(PermissionError):
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


def bytes_carried():
    """By the loopback interface, since it exists."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    raise SystemExit("there is no loopback interface")


def keys(count):
    """The keys of a cluster that holds `count`."""
    return [f"key {i:07}" for i in range(count)]


def put_all(client, names, value, write="all"):
    """Stores `value` under all of them; again where a node that was killed got in the way."""
    for i in range(0, len(names), CHUNK):
        left = names[i : i + CHUNK]
        while left:
            items = dict.fromkeys(left, value)
            results = client.put_many(items, write=write, timeout=60, errors="return")
            left = [key for key, result in zip(left, results, strict=True) if is_error(result)]


def is_error(result):
    """Whether it is not that of a put that was applied."""
    return isinstance(result, dkv.Error)


def is_identical(client):
    """Whether all nodes answer, and hold as much as each other."""
    held = {s and (s.records, s.live_bytes) for s in client.status().values()}
    return len(held) == 1 and None not in held


def cost_of_question(client):
    """Bytes that one look at the nodes' status moves."""
    before = bytes_carried()
    for _ in range(QUESTIONS):
        is_identical(client)
    return (bytes_carried() - before) // QUESTIONS


def healing_time(client, cluster, node, question):
    """Starts `node`; seconds until all are identical, and the bytes moved.

    `question` is what a look at the status costs, measured while nothing else moved.
    """
    before, begin, questions = bytes_carried(), time.monotonic(), 1
    start = threading.Thread(target=cluster.start, args=[node])
    start.start()
    while not is_identical(client):
        if time.monotonic() > begin + PATIENCE_S:
            raise SystemExit(f"not identical after {PATIENCE_S} s: {client.status()}")
        questions += 1
        time.sleep(POLL_S)
    took, moved = time.monotonic() - begin, bytes_carried() - before
    start.join()
    return took, moved - questions * question


@contextlib.contextmanager
def filled(count, size) -> Iterator[tuple[dkv.Cluster, "dkv.Client", int]]:
    """A cluster that holds `count` values of `size` bytes, and the cost of a question to it."""
    with dkv.Cluster(3, 3) as cluster, cluster.client() as client:
        put_all(client, keys(count), b"v" * size)
        yield cluster, client, cost_of_question(client)


def wiped(count, size):
    """A node comes back with an empty disk."""
    with filled(count, size) as (cluster, client, question):
        cluster.kill("n3")
        cluster.wipe("n3")
        return healing_time(client, cluster, "n3", question)


def divergent(count, size, others_restart):
    """A node has missed a thousandth of the values; the others may have forgotten that."""
    with filled(count, size) as (cluster, client, question):
        cluster.kill("n3")
        put_all(client, keys(count)[::1000], b"w" * (size + 1), write="quorum")
        for node in ("n1", "n2") if others_restart else ():
            cluster.kill(node)
            cluster.start(node)
        return healing_time(client, cluster, "n3", question)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of keys")
    parser.add_argument("--only", default="a,b,c,d", help="rows")
    arguments = parser.parse_args()
    large, small = int(100_000 * arguments.scale), int(1_000_000 * arguments.scale)
    rows = {
        "a": (f"{large:,} x 1 KB, one disk empty", lambda: wiped(large, 1000)),
        "b": (f"{small:,} x 100 B, one disk empty", lambda: wiped(small, 100)),
        "c": (f"{small:,} x 100 B, 0.1 % differ, hints", lambda: divergent(small, 100, False)),
        "d": (f"{small:,} x 100 B, 0.1 % differ, no hints", lambda: divergent(small, 100, True)),
    }
    bring_up_loopback()
    table = Table("until identical", "seconds", "bytes moved", title="healing")
    for name in arguments.only.split(","):
        title, measure = rows[name]
        seconds, moved = measure()
        table.add_row(title, f"{seconds:.2f}", f"{moved:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
