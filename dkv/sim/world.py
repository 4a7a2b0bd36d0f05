"""A simulated cluster, step by step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from dkv import _core
from dkv._timeout import milliseconds
from dkv.errors import TABLE, Error, InvalidArgumentError, PreconditionError
from dkv.results import GetResult, PutResult
from dkv.ring import Key, Member, Nodes, Ring, _fields_of
from dkv.settings import DURABILITIES, Durability, interval_ms
from dkv.sim.records import (
    Difference,
    Held,
    Kind,
    Latency,
    LogNormal,
    Operation,
    Outcome,
    Trace,
    TraceEntry,
)
from dkv.version import Version

if TYPE_CHECKING:
    from dkv.client import Level, Value

NS = 1_000_000_000

_KINDS: dict[Kind, int] = {"get": 1, "put": 2, "delete": 3}
_KIND_NAMES: dict[int, Kind] = {number: name for name, number in _KINDS.items()}
_LEVELS = {None: 0, "one": 1, "quorum": 2, "all": 3}
_LEVEL_NAMES = {0: "default", 1: "one", 2: "quorum", 3: "all"}
_OUTCOMES: dict[int, Outcome | None] = {0: None, 1: "applied", 2: "not applied", 3: "unknown"}
_ANY_NODE = -1
SEED_MAX = 2**64 - 1


class World:
    """A simulated cluster and its clients.

    `nodes` is a number (then they are n1, n2, ...), or what `dkv.Ring` takes. Operations block in
    virtual time and raise what a real client raises.

    A message takes `latency` seconds: always the same, a range, or `LogNormal`. A job of a disk
    takes up to `disk` seconds. The network is like TCP unless batches of messages are to be lost,
    repeated or to overtake each other: `drop`, `duplicate` and `reorder` are the probabilities of
    that, `break_` is that of a link to break. `segment_bytes` is the size of a file of the log
    (0: as real nodes have it), `durability` when a write is confirmed: after a sync, after it was
    written (and synced within `interval` seconds), or at once, in memory (`dkv.Durability`).

    Nodes that are `acquainted` start as those of a cluster that has run for a while; others have to
    meet first, all of them, which takes long for many. Without `trace` only its hash is kept, which
    saves time and memory.

    >>> world = World(3, seed=1)
    >>> world.partition({"n1"}, {"n2", "n3"})
    >>> world.put("key", b"value", via="n1", timeout=2)
    Traceback (most recent call last):
        ...
    dkv.errors.UnavailableError: put needs 3 of 3 replicas, 1 to 2 can take it; in the way: \
n2 (not reachable); nothing was written; at level quorum it may succeed
    >>> world.heal()
    >>> world.run(seconds=5)
    >>> world.put("key", b"value", via="n1").replicas
    ('n3', 'n2', 'n1')
    """

    def __init__(
        self,
        nodes: int | Nodes = 5,
        replication: int = 3,
        *,
        seed: int = 1,
        latency: Latency = (0.000_05, 0.000_5),
        disk: float = 0.000_4,
        break_: float = 0.0,
        drop: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        segment_bytes: int = 0,
        durability: Durability = "always",
        interval: float = 0.1,
        acquainted: bool = False,
        trace: bool = True,
    ) -> None:
        named = [f"n{i + 1}" for i in range(nodes)] if isinstance(nodes, int) else nodes
        self._ring = Ring(named, replication)
        members = [_fields_of(member) for member in self._ring.members]
        net = (
            *_native_latency(latency),
            0,
            0,
            *(_millionths(chance) for chance in (break_, drop, duplicate, reorder)),
        )
        confirmed_ms = interval_ms(durability, interval)
        disk_us = _microseconds(disk)
        timing = (0, 0, 0, 0, 0, 0)
        self._native = _core.World(
            self._ring.replication,
            members,
            checked_seed(seed),
            timing,
            net,
            disk_us,
            segment_bytes,
            (DURABILITIES[durability], confirmed_ms),
            acquainted,
            trace,
        )
        self._set_up(seed)

    def _set_up(self, seed: int) -> None:
        self._seed = seed
        self._index = {node: index for index, node in enumerate(self._ring.nodes)}
        self._last_seen = Version(0, 0)

    @classmethod
    def of_native(cls, native: _core.World, seed: int) -> World:
        """A world that a campaign has left behind."""
        world = cls.__new__(cls)
        world._native = native
        replication, members = native.map()
        world._ring = Ring([Member(*fields) for fields in members], replication)
        world._set_up(seed)
        return world

    # ---- operations ----

    def put(
        self,
        key: Key,
        value: Value,
        *,
        write: Level = "all",
        via: str | None = None,
        timeout: float = 5.0,
    ) -> PutResult:
        """Stores `value` under `key`, by way of node `via` or as a client routes."""
        operation = self._finish(
            self.submit("put", key, value, level=write, via=via, timeout=timeout)
        )
        return PutResult(_present(operation.version), operation.holding)

    def get(
        self, key: Key, *, read: Level = "one", via: str | None = None, timeout: float = 5.0
    ) -> bytes:
        """The value of `key`."""
        return self.get_versioned(key, read=read, via=via, timeout=timeout).value

    def get_versioned(
        self, key: Key, *, read: Level = "one", via: str | None = None, timeout: float = 5.0
    ) -> GetResult:
        """The value of `key` with its version and the nodes that answered with it."""
        operation = self._finish(self.submit("get", key, level=read, via=via, timeout=timeout))
        return GetResult(operation.result, _present(operation.version), operation.holding)

    def delete(
        self, key: Key, *, write: Level = "all", via: str | None = None, timeout: float = 5.0
    ) -> PutResult:
        """Deletes `key`."""
        operation = self._finish(self.submit("delete", key, level=write, via=via, timeout=timeout))
        return PutResult(_present(operation.version), operation.holding)

    def submit(
        self,
        kind: Kind,
        key: Key,
        value: Value = b"",
        *,
        level: Level | None = None,
        via: str | None = None,
        timeout: float = 5.0,
        client: int = 0,
    ) -> int:
        """Starts an operation and returns its number; no time passes. See `wait` and `history`."""
        node = _ANY_NODE if via is None else self._of_node(via)
        seen = self._last_seen if kind != "get" else Version(0, 0)
        return self._native.submit(
            client, node, _KINDS[kind], key, value, _LEVELS[level], milliseconds(timeout), *seen
        )

    def finish(self, number: int) -> None:
        """Lets time pass until operation `number` has ended, well or not."""
        self._native.wait(number)

    def wait(self, number: int) -> Operation:
        """`finish`, and what became of the operation."""
        self.finish(number)
        return self._operation(number)

    def _finish(self, number: int) -> Operation:
        operation = self.wait(number)
        if operation.version is not None and operation.version > self._last_seen:
            self._last_seen = operation.version
        if operation.error is not None:
            raise _error_of(operation)
        return operation

    # ---- time ----

    @property
    def time(self) -> float:
        """Seconds of virtual time since the world began."""
        return self._native.counts()[0] / NS

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        self._native.run_for(round(seconds * NS))

    # ---- nodes and machines ----

    @property
    def nodes(self) -> tuple[str, ...]:
        """The ids of all nodes."""
        return self._ring.nodes

    @property
    def ring(self) -> Ring:
        """Which nodes hold which key."""
        return self._ring

    def state(self, node: str) -> str:
        """ "running", "paused" or "down".

        >>> world = World(3)
        >>> world.pause("n2")
        >>> world.state("n2")
        'paused'
        """
        return self._native.state(self._of_node(node))

    def crash(self, node: str) -> None:
        """Kills the process, as kill -9 does. Its machine lives on: peers see that it is gone, and
        what it wrote to files is there, synced or not."""
        self._native.crash(self._of_node(node))

    def power_cut(self, node: str) -> None:
        """Takes the machine's power. Peers hear nothing; what was not synced may be lost."""
        self._native.power_cut(self._of_node(node))

    def stop(self, node: str) -> None:
        """Stops the process cleanly. It must be running."""
        state = self._native.state(self._of_node(node))
        if state != "running":
            raise PreconditionError(
                f"node {node} is {state}: only one that is running can stop cleanly; "
                f"{'start' if state == 'down' else 'resume'}({node!r}) makes it run"
            )
        self._native.stop(self._of_node(node))

    def start(self, node: str) -> None:
        """Starts the process on what its disk holds, switching the machine on if need be."""
        self._native.start(self._of_node(node))

    def pause(self, node: str) -> None:
        """Stops the process as SIGSTOP does, until `resume`: time passes, messages wait."""
        self._native.pause(self._of_node(node))

    def resume(self, node: str) -> None:
        """Lets a paused process go on."""
        self._native.resume(self._of_node(node))

    def skew(self, node: str, ms: int) -> None:
        """Sets the wall clock of the node's machine off by `ms` milliseconds from now on."""
        self._native.skew(self._of_node(node), ms)

    # ---- disks ----

    def wipe(self, node: str) -> None:
        """Replaces the disk of a node that does not run by an empty one."""
        self._check_down(node, "wipe")
        self._native.wipe(self._of_node(node))

    def declare_lost(self, lost: str, *, to: str) -> None:
        """Says to the node `to`, as its operator, that what `lost` held is gone for good.

        It should be true: the disk of `lost` was wiped, or the node never comes back. See
        `dkv.Client.declare_lost`. `to` refuses while it can reach `lost`, or has not found out
        yet that it cannot: let some seconds pass first.

        >>> world = World(3)
        >>> world.crash("n3")
        >>> world.wipe("n3")
        >>> world.run(seconds=1)
        >>> world.declare_lost("n3", to="n1")
        """
        self._native.declare_lost(self._of_node(to), self._of_node(lost))

    def flip(self, node: str) -> None:
        """Flips a random bit of what the node's disk holds of the log."""
        self._native.flip(self._of_node(node))

    def spoil(self, node: str) -> None:
        """From now on a random page of the log on the node's disk cannot be read."""
        self._native.spoil(self._of_node(node))

    def lose_file(self, node: str) -> None:
        """Loses a random file of the log of a node that does not run."""
        self._check_down(node, "lose_file")
        self._native.lose_file(self._of_node(node))

    def disk_bytes(self, node: str) -> int:
        """The size of all files on the node's disk."""
        return self._native.disk_bytes(self._of_node(node))

    def limit_disk(self, node: str, bytes_: int | None) -> None:
        """Lets the node's disk take so many bytes in all; None: any number."""
        self._native.capacity(self._of_node(node), bytes_ or 0)

    def fill_disk(self, node: str) -> None:
        """Fills the disk with something else: no file can grow, until `free_disk`."""
        self.limit_disk(node, max(1, self.disk_bytes(node)))

    def free_disk(self, node: str) -> None:
        """Gives the disk its space back."""
        self.limit_disk(node, None)

    def slow_disk(
        self,
        node: str,
        *,
        latency: float | None = None,
        bytes_per_second: float | None = None,
    ) -> None:
        """From now on a job of the node's disk takes up to `latency` seconds, and jobs wait for
        each other at `bytes_per_second`. Without both the disk is as at the beginning."""
        latency_us = 0 if latency is None else _microseconds(latency)
        self._native.slow_disk(self._of_node(node), latency_us, _rate(bytes_per_second))

    def fail_syncs(self, node: str, count: int = 1) -> None:
        """Makes the next syncs of the node's disk fail. The node must stop then."""
        self._native.fail_syncs(self._of_node(node), count)

    def fail_reads(self, node: str, count: int = 1) -> None:
        """Makes the next reads of the node's disk fail."""
        self._native.fail_reads(self._of_node(node), count)

    # ---- network ----

    def partition(self, *groups: Collection[str], one_way: bool = False) -> None:
        """Cuts the ways between nodes of different groups; nodes in no group keep all ways.

        With `one_way` only messages from earlier to later groups are lost. Clients reach all nodes.
        """
        for index, group in enumerate(groups):
            for other in groups[index + 1 :]:
                for a in map(self._of_node, group):
                    for b in map(self._of_node, other):
                        self._native.cut(a, b)
                        if not one_way:
                            self._native.cut(b, a)

    def slow_link(
        self,
        a: str,
        b: str,
        *,
        latency: Latency | None = None,
        bytes_per_second: float | None = None,
        one_way: bool = False,
    ) -> None:
        """From now on messages between `a` and `b` take `latency` seconds, and wait for each other
        at `bytes_per_second`. Without both the link is as at the beginning.

        With `one_way` this holds for messages from `a` to `b` only.

        >>> world = World(3, seed=1)
        >>> world.slow_link("n1", "n2", latency=0.1)
        >>> began = world.time
        >>> world.put("key", b"value", via="n1").replicas
        ('n3', 'n2', 'n1')
        >>> world.time - began > 0.2
        True
        """
        native = (0, 0, False) if latency is None else _native_latency(latency)
        ways = [(a, b)] if one_way else [(a, b), (b, a)]
        for from_, to in ways:
            self._native.slow_way(
                self._of_node(from_), self._of_node(to), native, _rate(bytes_per_second)
            )

    def heal(self) -> None:
        """Joins all ways again, and no link is slow any more."""
        self._native.heal()

    # ---- looking in ----

    def replicas_holding(self, key: Key) -> dict[str, Version | None]:
        """For each node the version of the value that it has under `key`.

        None: it has no value, or does not run.
        """
        versions = self._native.holding(key)
        return {
            node: None if version is None else Version(*version)
            for node, version in zip(self.nodes, versions, strict=True)
        }

    def converged(self) -> bool:
        """Whether all replicas of every key hold the same.

        The world compares the stores record by record, those of dead nodes on their disks; no word
        of a node is believed. Looking changes nothing.

        >>> world = World(3, seed=1)
        >>> world.crash("n2")
        >>> world.run(seconds=1)
        >>> world.put("key", b"value", write="quorum").replicas
        ('n3', 'n1')
        >>> world.converged()
        False
        >>> [(difference.key, difference.behind) for difference in world.divergence()]
        [(b'key', ('n2',))]
        """
        return self._native.count_differences() == 0

    def divergence(self) -> list[Difference]:
        """The keys of which not all replicas hold the same, in ring order. See `converged`."""
        return [
            Difference(
                key,
                {
                    self.nodes[node]: None if version is None else Held(Version(*version), deleted)
                    for node, deleted, version in held
                },
            )
            for key, held in self._native.differences()
        ]

    @property
    def history(self) -> Sequence[Operation]:
        """All operations so far, in the order in which they began.

        `pandas.DataFrame(world.history)` makes a table of them.
        """
        return [self._operation(number) for number in range(self._native.counts()[1])]

    @property
    def trace(self) -> Trace:
        """What has happened, event by event (the last million, if there are more)."""
        names = (*self.nodes, None)
        return Trace(
            TraceEntry(time / NS, names[node], names[peer], kind, text)
            for time, node, peer, kind, text in self._native.trace(0)
        )

    @property
    def trace_hash(self) -> int:
        """Stands for the whole course of events: equal in worlds that went the same way."""
        return self._native.counts()[4]

    @property
    def messages(self) -> int:
        """How many messages nodes have got from each other."""
        return self._native.counts()[2]

    @property
    def events(self) -> int:
        """How many events there were: messages, disk jobs, timers and so on."""
        return self._native.counts()[3]

    @property
    def seed(self) -> int:
        """What the world was made from."""
        return self._seed

    def __repr__(self) -> str:
        return f"World(nodes={len(self.nodes)}, seed={self._seed}, time={self.time:.6f})"

    def _of_node(self, node: str) -> int:
        index = self._index.get(node)
        if index is None:
            raise InvalidArgumentError(f"there is no node {node!r} in this world")
        return index

    def _check_down(self, node: str, what: str) -> None:
        state = self._native.state(self._of_node(node))
        if state != "down":
            raise PreconditionError(
                f"node {node} is {state}: {what} needs one that does not run; crash({node!r}), "
                f"power_cut({node!r}) or stop({node!r}) ends it"
            )

    def _operation(self, number: int) -> Operation:
        client, via, kind, key, value, level, invoked, answered, result = self._native.op(number)
        error, outcome, version, read, holding, missing, detail = result
        names = self.nodes
        return Operation(
            number=number,
            client=client,
            kind=_KIND_NAMES[kind],
            key=key,
            value=value,
            level=_LEVEL_NAMES[level],
            via=names[via] if via >= 0 else None,
            invoked=invoked / NS,
            answered=answered / NS if answered >= 0 else None,
            seconds=(answered - invoked) / NS if answered >= 0 else None,
            error=error,
            outcome=_OUTCOMES[outcome],
            version=None if version is None else Version(*version),
            result=read,
            holding=tuple(names[node] for node in holding),
            missing=tuple(names[node] for node in missing),
            detail=detail or "",
        )


def _error_of(operation: Operation) -> Error:
    return TABLE[operation.error or "INTERNAL"](
        operation.detail,
        outcome=operation.outcome,
        version=operation.version,
        nodes=operation.missing,
        holding=operation.holding,
    )


def _present(version: Version | None) -> Version:
    assert version is not None
    return version


def _millionths(chance: float) -> int:
    if not 0 <= chance <= 1:
        raise InvalidArgumentError(f"a probability must be 0 to 1, not {chance!r}")
    return round(chance * 1e6)


def _microseconds(seconds: float) -> int:
    if not 0 <= seconds <= 60:
        raise InvalidArgumentError(f"a latency must be 0 to 60 seconds, not {seconds!r}")
    return max(1, round(seconds * 1e6))


def _native_latency(latency: Latency) -> tuple[int, int, bool]:
    """(low, high, heavy tail) in microseconds."""
    low, high = latency if isinstance(latency, tuple) else (latency, latency)
    if low > high:
        raise InvalidArgumentError(f"a latency of {low!r} to {high!r} seconds is no range")
    return _microseconds(low), _microseconds(high), isinstance(latency, LogNormal)


def _rate(bytes_per_second: float | None) -> int:
    if bytes_per_second is None:
        return 0
    if bytes_per_second < 1:
        raise InvalidArgumentError(f"bytes_per_second must be 1 or more, not {bytes_per_second!r}")
    return round(bytes_per_second)


def checked_seed(seed: int) -> int:
    """`seed`, if it is in the range of one."""
    if not 0 <= seed <= SEED_MAX:
        raise InvalidArgumentError(f"a seed must be 0 to 2**64 - 1, not {seed}")
    return seed
