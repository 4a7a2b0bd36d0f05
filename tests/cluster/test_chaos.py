"""Real processes under load and faults: nothing that was confirmed is lost, all replicas agree.

    DKV_CHAOS_SECONDS=600 DKV_CHAOS_SEED=7 pytest tests/cluster/test_chaos.py -s

`make test` runs it for a short time, `make chaos` for ten minutes. The seed decides which fault
meets which node; how the processes meet in time differs from run to run.

One fault at a time: so of the two or three replicas that confirmed a write one is always there. And
a disk is lost only when the replicas were identical before, and no other fault follows until they
are again: until then a confirmed write may have a single copy.
"""

import contextlib
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import dkv
from dkv.errors import BusyError, Error, NotFoundError, TimeoutError, UnavailableError
from dkv.version import Version

SECONDS = float(os.environ.get("DKV_CHAOS_SECONDS", "15"))
SEED = int(os.environ.get("DKV_CHAOS_SEED", random.randrange(1_000_000)))
IS_LONG = SECONDS >= 60
PAUSE_MAX_S = 20.0 if IS_LONG else 3.0
PATIENCE_S = 120.0

WRITERS, READERS = 4, 3
KEYS = 400  # of each writer, stored before the first fault
KEYS_MAX = 20_000  # of each writer, at the end
OBSTACLES = (UnavailableError, TimeoutError, BusyError)  # what faults may do to a write


@dataclass
class Confirmed:
    """The last confirmed write of a key."""

    value: bytes
    version: Version


@dataclass
class Chaos:
    """The cluster, what its clients were promised, and what they saw that must not be."""

    cluster: dkv.Cluster
    client: "dkv.Client"
    confirmed: dict[str, Confirmed] = field(default_factory=dict)
    attempted: dict[str, set[bytes]] = field(default_factory=dict)  # by key: not confirmed
    wrong: list[str] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)


# ---- the load ----


def write(chaos, key, number, level="quorum"):
    """One put. Nobody else writes the key meanwhile."""
    value = f"{key} {number} ".encode() * (1 + number % 30)
    try:
        version = chaos.client.put(key, value, write=level, timeout=5).version
    except OBSTACLES as error:
        chaos.counts[f"puts {error.outcome}"] += 1
        if error.outcome != "not applied":
            chaos.attempted.setdefault(key, set()).add(value)
        return
    chaos.counts["puts confirmed"] += 1
    chaos.confirmed[key] = Confirmed(value, version)


def write_on(chaos, number, rand):
    """Overwrites the keys of this writer, and adds new ones."""
    keys = KEYS
    for n in range(1, 1 << 60):
        if chaos.over.is_set():
            return
        if keys < KEYS_MAX and rand.random() < 0.2:
            keys += 1
        write(chaos, key_of(number, rand.choice((rand.randrange(keys), keys - 1))), n)


def key_of(writer, n):
    """The nth key of a writer."""
    return f"{writer}/{n}"


def read_on(chaos, number, rand):
    """Reads at `one` what all replicas held before the first fault: that must not fail.

    And at `quorum`: that may fail, but must return nothing older than what was confirmed before.
    """
    while not chaos.over.is_set():
        key = key_of(rand.randrange(WRITERS), rand.randrange(KEYS))
        before = chaos.confirmed[key]
        try:
            if number == 0:
                got = chaos.client.get_versioned(key, read="quorum", timeout=5)
                if got.version < before.version:
                    chaos.wrong.append(f"{key}: quorum read {got} after {before}")
            else:
                chaos.client.get(key, timeout=20)
        except (NotFoundError, *OBSTACLES) as error:
            if number == 0 and not isinstance(error, NotFoundError):
                chaos.counts["quorum gets refused"] += 1
            else:
                chaos.wrong.append(f"{key}: {error!r} of reader {number} at {time.time():.3f}")
        else:
            chaos.counts["gets"] += 1


def guarded(chaos, work, number, seed):
    """Runs `work` in a thread; what it raises is something wrong, too."""
    try:
        work(chaos, number, random.Random(seed))
    except Exception as error:
        chaos.wrong.append(f"{work.__name__} {number}: {error!r}")


@contextlib.contextmanager
def load(chaos, rand):
    """Writers and readers in threads of their own."""
    works = [(write_on, n) for n in range(WRITERS)] + [(read_on, n) for n in range(READERS)]
    threads = [
        threading.Thread(target=guarded, args=(chaos, work, n, rand.random())) for work, n in works
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        chaos.over.set()
        for thread in threads:
            thread.join()


# ---- the faults ----


def kill(chaos, node, rand):
    chaos.cluster.kill(node)
    time.sleep(rand.uniform(0, PAUSE_MAX_S / 2))
    chaos.cluster.start(node)


def restart(chaos, node, rand):
    chaos.cluster.stop(node)
    time.sleep(rand.uniform(0, PAUSE_MAX_S / 4))
    chaos.cluster.start(node)


def pause(chaos, node, rand):
    chaos.cluster.pause(node)
    time.sleep(rand.uniform(1, PAUSE_MAX_S))
    chaos.cluster.resume(node)


def lose_disk(chaos, node, rand):
    wait_healed(chaos)
    chaos.cluster.kill(node)
    chaos.cluster.wipe(node)
    time.sleep(rand.uniform(0, PAUSE_MAX_S / 4))
    chaos.cluster.start(node)
    wait_healed(chaos)


FAULTS = (kill, restart, pause, lose_disk)


def break_things(chaos, rand):
    """One fault after the other; each kind once in a short run."""
    end = time.monotonic() + SECONDS
    first = rand.sample(FAULTS, len(FAULTS))
    while first or time.monotonic() < end:
        fault = first.pop() if first else rand.choice(FAULTS)
        node = rand.choice(chaos.cluster.nodes)
        print(f"{time.time():.3f} {fault.__name__} {node}", flush=True)
        chaos.counts[fault.__name__] += 1
        fault(chaos, node, rand)
        time.sleep(rand.uniform(0, 1))


# ---- afterwards ----


def is_healed(status):
    """Whether a node knows of nothing that another replica may lack."""
    return status and status.in_sync and status.hints == 0 and status.dirty == 0


def wait_healed(chaos):
    """Waits until every node is in sync and knows of no difference."""
    deadline = time.monotonic() + PATIENCE_S
    while not all(map(is_healed, (statuses := chaos.client.status()).values())):
        assert time.monotonic() < deadline, f"not healed within {PATIENCE_S} s: {statuses}"
        time.sleep(0.1)


def check_key(chaos, key, value):
    """`value`, which all replicas together gave for `key`, is the confirmed one or a newer one."""
    confirmed = chaos.confirmed.get(key)
    if confirmed and value == confirmed.value:
        return
    if value is None:
        if confirmed:
            chaos.wrong.append(f"{key}: {confirmed.version} was confirmed and is missing")
    elif value not in chaos.attempted.get(key, ()):
        chaos.wrong.append(f"{key}: {value[:40]!r} was never written last")
    elif confirmed:
        version = chaos.client.get_versioned(key, read="all").version
        if version < confirmed.version:
            chaos.wrong.append(f"{key}: {version} in place of {confirmed.version}")


def check_counts(chaos, keys):
    """Every node holds the keys that the ring gives it, and no others."""
    expected = Counter(node for key in keys for node in chaos.cluster.ring.replicas(key))
    for node, status in chaos.client.status().items():
        if status is None or status.records != expected[node]:
            chaos.wrong.append(f"{node} should hold {expected[node]} records: {status}")


def check_everything(chaos):
    """What every node holds, before anything is read; then all values."""
    written = sorted({*chaos.confirmed, *chaos.attempted})
    chaos.counts["keys"] = len(written)
    before = {node: status.records for node, status in chaos.client.status().items()}
    values = chaos.client.get_many(written, read="all", timeout=60, errors="return")
    for key, value in zip(written, values, strict=True):
        if isinstance(value, Error):
            chaos.wrong.append(f"{key}: {value!r} at the end")
        else:
            check_key(chaos, key, value)
    check_counts(chaos, [key for key, value in zip(written, values, strict=True) if value])
    after = {node: status.records for node, status in chaos.client.status().items()}
    if before != after:
        chaos.wrong.append(f"reading has repaired something: {before} became {after}")


def test_no_fault_loses_what_was_confirmed_and_all_replicas_agree_in_the_end(tmp_path):
    rand = random.Random(SEED)
    with dkv.Cluster(5, 3, directory=tmp_path) as cluster, cluster.client() as client:
        chaos = Chaos(cluster, client)
        for writer in range(WRITERS):
            for n in range(KEYS):
                write(chaos, key_of(writer, n), 0, level="all")
        with load(chaos, rand):
            break_things(chaos, rand)
        wait_healed(chaos)
        check_everything(chaos)
    print(f"seed {SEED}: {dict(chaos.counts)}")
    wrong = "\n".join(chaos.wrong[:20])
    assert not chaos.wrong, f"seed {SEED}, logs in {tmp_path}:\n{wrong}"
