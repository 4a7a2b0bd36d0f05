"""Calls a cluster in every way that succeeds or fails, and tells what the process holds then.

    python tests/python/calls_without_end.py CALLS HOST:PORT...

One of the cluster's nodes must be dead. Prints a JSON object a round: what was held after it, of
Python objects, of memory from malloc, of open files and of threads.
"""

import contextlib
import ctypes
import gc
import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dkv
from dkv import errors

ROUNDS = 6
BIG = bytes(1_048_577)
GAPS = memoryview(b"abcdef")[::2]
Call = Callable[[], Any]


class MallInfo(ctypes.Structure):
    """What mallinfo2 of glibc returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def bytes_from_malloc() -> int:
    function = ctypes.CDLL(None).mallinfo2
    function.restype = MallInfo
    info = function()
    return int(info.uordblks + info.hblkhd)


def held() -> dict[str, int]:
    gc.collect()
    return {
        "objects": sys.getallocatedblocks(),
        "malloc": bytes_from_malloc(),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
    }


def calls_that_connect(seeds: str, dead: str) -> list[Call]:
    def come_and_go() -> None:
        with dkv.connect(seeds) as client:
            client.get("key")

    def forget() -> None:
        dkv.connect(seeds).get("key")

    return [come_and_go, forget, lambda: dkv.connect(dead), lambda: dkv.connect("nowhere:")]


def calls_of(client: dkv.Client, closed: dkv.Client) -> list[Call]:
    """Among them each way to fail that a healthy cluster has."""
    items = {f"many {i}": b"value" for i in range(50)}
    wrong: Any = None
    return [
        lambda: client.put("refused", b"value"),
        lambda: client.get("key"),
        lambda: client.get("key", read="quorum"),
        lambda: client.get_versioned("key"),
        lambda: client.get("absent"),
        lambda: client.get("absent", None),
        lambda: "absent" in client,
        lambda: client.delete("refused"),
        lambda: client.put_many(items),
        lambda: client.put_many([("good", b""), ("bad", wrong)]),
        lambda: client.put_many([("good", b""), ("bad", GAPS)]),
        lambda: client.get_many([*items, "absent", ""]),
        lambda: client.get_many([*items, "absent", ""], errors="return"),
        lambda: client.get_many([bytearray(b"key"), memoryview(b"absent")]),
        lambda: client.get(""),
        lambda: client.get("\ud800"),
        lambda: client.get(wrong),
        lambda: client.get("key", timeout=float("nan")),
        lambda: client.get("key", timeout=10**400),
        lambda: client.get("key", read=wrong),
        lambda: client.put("key", BIG),
        lambda: client.put("key", GAPS),
        lambda: client.put("key", wrong),
        lambda: client.last_seen,
        lambda: client.put("late", b"value", timeout=0.001),
        lambda: client._native.map(),
        lambda: closed.get("key"),
        lambda: closed.put_many(items),
        lambda: closed.status(),
        lambda: dkv.Node("n9", client.ring, data="/nonexistent/n9"),
        lambda: dkv.Node("n1", client.ring, data="/nonexistent/n1"),
        lambda: dkv.Ring([], 3),
    ]


def calls_that_take_time(client: dkv.Client) -> list[Call]:
    items = {f"many {i}": b"value" for i in range(50)}
    mixed: list[Any] = [("good", b"1"), ("k" * 1025, b"2"), ("large", BIG)]
    wrong: Any = None
    return [
        lambda: client.put("key", b"value", write="quorum"),
        lambda: client.put_many(items, write="quorum"),
        lambda: client.delete("gone", write="quorum"),
        lambda: client.put_many(mixed, write="quorum", errors="return"),
        lambda: client.delete_many(["gone", "k" * 1025], write="quorum"),
        lambda: dkv.Ring(["n1", "n2"], 2).replicas(wrong),
        lambda: client.status(timeout=0.001),
        lambda: client.status(),
        lambda: client.verify(),
    ]


def endless_calls(seeds: str, dead: str) -> Iterator[Call]:
    client, closed = dkv.connect(seeds), dkv.connect(seeds)
    closed.close()
    often, rarely = calls_of(client, closed), calls_that_take_time(client)
    while True:
        for _ in range(10):
            for _ in range(10):
                yield from often
            yield from rarely
        yield from calls_that_connect(seeds, dead)


def main(calls: int, seeds: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        source = endless_calls(seeds, f"127.0.0.1:{unused.getsockname()[1]}")
        for _ in range(ROUNDS):
            for _ in range(calls // ROUNDS):
                with contextlib.suppress(errors.Error, TypeError, BufferError):
                    next(source)()
            print(json.dumps(held()), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), ",".join(sys.argv[2:]))
