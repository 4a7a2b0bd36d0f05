"""What breaks: a schedule that follows from a seed, and its faults carried out on real processes.

Faults overlap in time, several nodes may be away at once, and partitions come on top. Only a lost
disk waits: for the end of all other faults, and until the replicas are identical. So of each
confirmed write, which two or three replicas hold, one is always left; other faults may follow at
once, while the empty disk is still being filled.

The schedule says when (in seconds of the run, without the time that a lost disk has waited), what,
whom and for how long. The same seed gives the same schedule; how the processes meet in time differs
from run to run.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import dkv
from chaos.relay import Pair, Relay

PATIENCE_S = 180.0

KINDS = {  # how often, beside each other
    "kill": 3,
    "restart": 1,
    "pause": 3,
    "isolate": 2,
    "split": 2,
    "separate": 2,
    "client": 2,
    "reset": 1,
}
MODES = ("drop", "drop", "one way", "refuse")


@dataclass(frozen=True)
class Fault:
    """One of the schedule. `ways` are those that a partition breaks, `nodes` those that end."""

    at_s: float
    kind: str
    lasts_s: float = 0
    node: str = ""
    mode: str = ""
    ways: tuple[Pair, ...] = ()

    def __str__(self) -> str:
        ways = " ".join(f"{a}>{b}" for a, b in self.ways)
        words = (self.kind, self.node, self.mode, ways)
        return f"at {self.at_s:.2f} s for {self.lasts_s:.2f} s: {' '.join(filter(None, words))}"


# ---- the schedule ----


@dataclass(frozen=True)
class Plan:
    """What a schedule is made for."""

    nodes: tuple[str, ...]
    clients: tuple[str, ...]
    seconds: float
    gap_s: float  # between the beginnings of two faults, on average
    lasts_max_s: float
    wipe_every_s: float


def schedule(rand: random.Random, plan: Plan) -> Iterator[Fault]:
    """Faults in the order of their time. Each kind comes once before any comes again."""
    at_s, next_wipe_s = 0.5, plan.wipe_every_s
    busy_until_s = dict.fromkeys(plan.nodes, 0.0)
    first = rand.sample(list(KINDS), len(KINDS))
    while at_s < plan.seconds:
        if at_s >= next_wipe_s:
            next_wipe_s += plan.wipe_every_s
            node = rand.choice(plan.nodes)
            fault = Fault(at_s, "wipe", rand.uniform(0, 2), node)
            busy_until_s = dict.fromkeys(plan.nodes, at_s) | {node: at_s + fault.lasts_s + 1}
        else:
            kind = first.pop() if first else rand.choices(list(KINDS), list(KINDS.values()))[0]
            idle = [node for node in plan.nodes if busy_until_s[node] <= at_s]
            fault = of_kind(rand, plan, at_s, kind, idle)
            busy_until_s[fault.node] = at_s + fault.lasts_s + 1
        yield fault
        at_s += rand.uniform(0, 2 * plan.gap_s)


def of_kind(rand, plan, at_s, kind, idle):
    """A fault; one of a node that is gone already becomes a partition."""
    lasts_s = rand.uniform(1, plan.lasts_max_s)
    if kind in ("kill", "restart", "pause"):
        if idle:
            lasts_s = rand.uniform(0, plan.lasts_max_s / 2) if kind != "pause" else lasts_s
            return Fault(at_s, kind, lasts_s, rand.choice(idle))
        kind = "separate"
    mode = rand.choice(MODES)
    there, here = sides(rand, plan, kind)
    ways = [
        (a, b) for a in there for b in here if plan.clients.count(a) + plan.clients.count(b) < 2
    ]
    if mode != "one way":
        ways += [(b, a) for a, b in ways]
    elif rand.random() < 0.5:
        ways = [(b, a) for a, b in ways]
    if kind == "reset":
        return Fault(at_s, kind, ways=tuple(ways))
    return Fault(at_s, kind, lasts_s, "", mode, tuple(ways))


def sides(rand, plan, kind):
    """Between whom a partition is."""
    nodes = rand.sample(plan.nodes, len(plan.nodes))
    clients = rand.sample(plan.clients, rand.randrange(len(plan.clients) + 1))
    if kind == "split":
        others = [client for client in plan.clients if client not in clients]
        return nodes[:2] + clients, nodes[2:] + others
    if kind == "client":
        return [rand.choice(plan.clients)], nodes[: rand.randrange(1, 4)]
    if kind == "separate":
        return nodes[:1], nodes[1:2]
    return nodes[:1], nodes[1:] + clients


# ---- what is broken -------------------------------------------------------------------------


class Troubles:
    """What is broken, and since when all the rest is not. Things are of any kind."""

    def __init__(self):
        self._lock = threading.Lock()
        self._count = Counter()
        self._fine_since = {}

    def begin(self, *things) -> None:
        """From here on. To be said before anything is done to them."""
        with self._lock:
            self._count.update(things)

    def end(self, *things) -> None:
        """They work again, as far as this trouble is concerned."""
        with self._lock:
            for thing in things:
                self._count[thing] -= 1
                self._fine_since[thing] = time.monotonic()

    def were_fine(self, since: float, things: Iterable) -> bool:
        """Whether all of them have worked ever since that time."""
        with self._lock:
            return not any(
                self._count[thing] or self._fine_since.get(thing, 0) > since for thing in things
            )


def link(a, b):
    """The connections between two ends, as something that may have trouble."""
    return frozenset((a, b))


def disk(node):
    """What a node has stored, likewise."""
    return ("disk", node)


# ---- carrying out ---------------------------------------------------------------------------


@dataclass
class Breaker:
    """Breaks a cluster by a schedule."""

    cluster: dkv.Cluster
    relay: Relay
    client: "dkv.Client"  # that no partition meets
    troubles: Troubles = field(default_factory=Troubles)
    wrong: list[str] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _broken: Counter = field(default_factory=Counter)  # by way and mode

    def run(self, faults: Iterable[Fault]) -> None:
        """Returns when the last one is over."""
        began = time.monotonic()
        for fault in faults:
            time.sleep(max(0.0, began + fault.at_s - time.monotonic()))
            if fault.kind == "wipe":
                self.end()
                wait_healed(self.client)
                began = time.monotonic() - fault.at_s
            print(f"{time.time():.3f} {fault}", flush=True)
            self.counts[f"{fault.kind} {fault.mode}".strip()] += 1
            thread = threading.Thread(target=self._carry_out, args=[fault])
            self._threads.append(thread)
            thread.start()
        self.end()

    def end(self) -> None:
        """Waits until all faults are over."""
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _carry_out(self, fault: Fault) -> None:
        try:
            if fault.ways:
                self._partition(fault)
            else:
                getattr(self, f"_{fault.kind}")(fault)
        except Exception as error:
            self.wrong.append(f"{fault}: {error!r} at {time.time():.3f}")

    def _kill(self, fault: Fault) -> None:
        self.troubles.begin(fault.node)
        self.cluster.kill(fault.node)
        self._start_again(fault)

    def _restart(self, fault: Fault) -> None:
        self.troubles.begin(fault.node)
        self.cluster.stop(fault.node)
        self._start_again(fault)

    def _wipe(self, fault: Fault) -> None:
        self.troubles.begin(fault.node, disk(fault.node))
        self.cluster.kill(fault.node)
        self.cluster.wipe(fault.node)
        self._start_again(fault)
        wait_until(self.client, fault.node, lambda status: status.in_sync)
        self.troubles.end(disk(fault.node))

    def _start_again(self, fault: Fault) -> None:
        time.sleep(fault.lasts_s)
        self.cluster.start(fault.node, wait=False)
        wait_until(self.client, fault.node, lambda status: True)
        self.troubles.end(fault.node)

    def _pause(self, fault: Fault) -> None:
        self.troubles.begin(fault.node)
        self.cluster.pause(fault.node)
        time.sleep(fault.lasts_s)
        self.cluster.resume(fault.node)
        self.troubles.end(fault.node)

    def _partition(self, fault: Fault) -> None:
        links = {link(*way) for way in fault.ways}
        self.troubles.begin(*links)
        if fault.kind == "reset":
            self.relay.reset(fault.ways)
        else:
            mode = "refuse" if fault.mode == "refuse" else "drop"
            self._change(fault.ways, mode, 1)
            time.sleep(fault.lasts_s)
            self._change(fault.ways, mode, -1)
        self.troubles.end(*links)

    def _change(self, ways: Iterable[Pair], mode: str, by: int) -> None:
        """Partitions overlap: a way works again when the last of them is over."""
        with self._lock:
            modes = {}
            for way in ways:
                self._broken[way, mode] += by
                found = (m for m in ("refuse", "drop") if self._broken[way, m])
                modes[way] = next(found, "pass")
            self.relay.set(modes)


def wait_until(client, node, condition):
    """Waits until the status of `node` fulfils `condition`."""
    deadline = time.monotonic() + PATIENCE_S
    while not ((status := client.status()[node]) and condition(status)):
        assert time.monotonic() < deadline, f"{node} after {PATIENCE_S} s: {status}"
        time.sleep(0.05)


def is_healed(status):
    """Whether a node knows of nothing that another replica may lack."""
    return status and status.in_sync and status.hints == 0 and status.dirty == 0


def wait_healed(client):
    """Waits until every node is in sync and knows of no difference."""
    deadline = time.monotonic() + PATIENCE_S
    while not all(map(is_healed, (statuses := client.status()).values())):
        assert time.monotonic() < deadline, f"not healed within {PATIENCE_S} s: {statuses}"
        time.sleep(0.1)
