"""Clients that write and read all the time, and keep account of what they were promised.

Each key has one writer, so its last confirmed write is known. A read at `one` is *judged* when it
is within reach, which is so if a replica of the key

- has confirmed the last write that was confirmed before the read began (and has not lost its disk
  since, or is in sync again),
- runs, not paused, and
- is connected with the reading client, neither way broken,

all that from `SETTLE_S` before the beginning of the read to its end, whatever befell other nodes
and other connections: it must return a value, be it an older one that another replica still held.
Of failures that are not judged nothing is concluded; they are counted.

NOT_FOUND is judged by the same rule, but for one excuse: a replica that has missed the write may
have said so by itself when it could not reach the others, and the client, which then asks these,
waits no longer than `SILENCE_S` for one that is silent. So where the read has taken longer than
that, of a key that not all replicas held before the first fault, it is not judged.
"""

import contextlib
import itertools
import random
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import dkv
from chaos.faults import Troubles, disk, link
from dkv.errors import BusyError, NotFoundError, TimeoutError, UnavailableError
from dkv.version import Version

WRITERS, READERS = 4, 3
KEYS = 400  # of each writer, stored before the first fault
KEYS_MAX = 20_000  # of each writer, at the end
DELETED_EVERY = 8  # of the first keys, these are deleted at times, and not read at `one`
PERIOD_S = 0.005  # between two operations of a thread, at least
SETTLE_S = 3.0  # one attempt to connect is given a second, and so is the pause before the next
SILENCE_S = 0.04  # as in csrc/client/internal.h
READ_TIMEOUT_S = 5.0
TIMEOUT_S = 2.0
SLOWEST = 3  # are told
OBSTACLES = (UnavailableError, TimeoutError, BusyError)  # what faults may do


@dataclass
class Confirmed:
    """The last confirmed write of a key; `value` is None for a deletion."""

    value: bytes | None
    version: Version
    replicas: tuple[str, ...]


@dataclass
class Load:
    """What the clients were promised, and what they saw that must not be."""

    clients: dict[str, "dkv.Client"]
    troubles: Troubles
    confirmed: dict[str, Confirmed] = field(default_factory=dict)
    attempted: dict[str, set] = field(default_factory=lambda: defaultdict(set))  # not confirmed
    deleting: set[str] = field(default_factory=set)  # keys whose deletion is under way
    keys: list[int] = field(default_factory=lambda: [KEYS] * WRITERS)
    wrong: list[str] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    slowest: list[tuple[float, str]] = field(default_factory=list)  # of the reads that were judged
    over: threading.Event = field(default_factory=threading.Event)

    def client(self, number):
        """Name and client of a thread."""
        name = sorted(self.clients)[number % len(self.clients)]
        return name, self.clients[name]


def key_of(writer, n):
    """The nth key of a writer."""
    return f"{writer}/{n}"


def is_deleted_at_times(n):
    return n < KEYS and n % DELETED_EVERY == 0


# ---- writers ----


def write(load, writer, n, value):
    """One put, or a deletion if `value` is None. Nobody else writes the key meanwhile."""
    key = key_of(writer, n)
    if value is None:
        load.deleting.add(key)
    write_one(load, load.client(writer)[1], key, value)
    load.deleting.discard(key)  # now that the account says how it has ended


def write_one(load, client, key, value):
    """The write, and the account of it."""
    try:
        if value is None:
            done = client.delete(key, write="quorum", timeout=TIMEOUT_S)
        else:
            done = client.put(key, value, write="quorum", timeout=TIMEOUT_S)
    except OBSTACLES as error:
        load.counts[f"writes {error.outcome}"] += 1
        if error.outcome != "not applied":
            load.attempted[key].add(value)
        return
    load.counts["writes confirmed"] += 1
    before = load.confirmed.get(key)
    if before and done.version <= before.version:
        load.wrong.append(f"{key}: {done.version} was given after {before.version}")
    load.confirmed[key] = Confirmed(value, done.version, done.replicas)


def write_first(load):
    """What all replicas hold before the first fault."""
    client = load.clients[min(load.clients)]
    items = {key_of(*one): b"first" for one in itertools.product(range(WRITERS), range(KEYS))}
    for key, done in zip(items, client.put_many(items, timeout=60), strict=True):
        load.confirmed[key] = Confirmed(b"first", done.version, done.replicas)


def write_on(load, writer, rand):
    """Overwrites the keys of this writer, and adds new ones."""
    for round in itertools.count():
        if load.over.wait(PERIOD_S):
            return
        if load.keys[writer] < KEYS_MAX and rand.random() < 0.2:
            load.keys[writer] += 1
        n = rand.choice((rand.randrange(load.keys[writer]), load.keys[writer] - 1))
        deletes = is_deleted_at_times(n) and rand.random() < 0.5
        value = f"{writer}/{n} {round} ".encode() * (1 + round % 30)
        write(load, writer, n, None if deletes else value)


# ---- readers ----


def read_on(load, reader, rand):
    """Reads at `one` what must be there."""
    name, client = load.client(reader)
    while not load.over.wait(PERIOD_S):
        writer = rand.randrange(WRITERS)
        n = rand.randrange(load.keys[writer])
        if not is_deleted_at_times(n) and (confirmed := load.confirmed.get(key_of(writer, n))):
            read(load, name, client, key_of(writer, n), confirmed, is_first=n < KEYS)


def read(load, name, client, key, confirmed, *, is_first):
    """One get at `one`, judged if it can be."""
    began, error = time.monotonic(), None
    try:
        if not client.get(key, timeout=READ_TIMEOUT_S):
            load.wrong.append(f"{key}: an empty value was never written")
    except (NotFoundError, *OBSTACLES) as caught:
        error = caught
    was_slow = time.monotonic() - began > SILENCE_S
    is_excused = isinstance(error, NotFoundError) and not is_first and was_slow
    is_judged = not is_excused and is_within_reach(load, name, confirmed, began)
    count(load, name, key, confirmed, began, error, is_judged)
    if error and is_judged:
        load.wrong.append(f"{key}: {error!r} of {name}, {confirmed}, at {time.time():.3f}")


def count(load, name, key, confirmed, began, error, is_judged):
    """For the report."""
    load.counts["gets judged" if is_judged else "gets not judged"] += 1
    if is_judged:
        took_s = time.monotonic() - began
        what = (
            f"{took_s:.3f} s until {time.time():.3f}: {key} of {name}, held by {confirmed.replicas}"
        )
        load.slowest = sorted([*load.slowest, (took_s, what)])[-SLOWEST:]
    elif error:
        load.counts[f"gets not judged: {error.code}"] += 1


def is_within_reach(load, name, confirmed, began):
    """Whether a replica that holds the confirmed value could be reached all the time."""
    return any(
        load.troubles.were_fine(began - SETTLE_S, (node, disk(node), link(name, node)))
        for node in confirmed.replicas
    )


def read_quorum_on(load, reader, rand):
    """Reads at `quorum` anything that is ever written."""
    _, client = load.client(reader)
    while not load.over.wait(PERIOD_S):
        writer = rand.randrange(WRITERS)
        read_quorum(load, client, key_of(writer, rand.randrange(load.keys[writer])))


def read_quorum(load, client, key):
    """One get at `quorum`: may fail, but returns nothing older than what was confirmed before."""
    before = load.confirmed.get(key)
    try:
        got = client.get_versioned(key, read="quorum", timeout=TIMEOUT_S)
    except NotFoundError:
        if before and before.value is not None and not may_be_deleted(load, key, before):
            load.wrong.append(f"{key}: not found at quorum, in place of {before}")
    except OBSTACLES:
        load.counts["quorum gets refused"] += 1
    else:
        load.counts["quorum gets"] += 1
        if before and got.version < before.version:
            load.wrong.append(f"{key}: quorum read {got} after {before}")


def may_be_deleted(load, key, before):
    """Whether a deletion of `key` is under way, is of unknown outcome, or came after `before`.

    Asked in the order in which a deletion that ends changes the account, backwards.
    """
    if key in load.deleting or None in load.attempted[key]:
        return True
    return load.confirmed[key].version != before.version


# ---- all together ----


def guarded(load, work, number, seed):
    """Runs `work` in a thread; what it raises is something wrong, too."""
    try:
        work(load, number, random.Random(seed))
    except Exception as error:
        load.wrong.append(f"{work.__name__} {number}: {error!r}")


@contextlib.contextmanager
def running(load, rand):
    """All writers and readers in threads of their own, until the end of the block."""
    works = [(write_on, n) for n in range(WRITERS)]
    works += [(read_on, n) for n in range(READERS)] + [(read_quorum_on, 0)]
    threads = [
        threading.Thread(target=guarded, args=(load, work, n, rand.random())) for work, n in works
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        load.over.set()
        for thread in threads:
            thread.join()
