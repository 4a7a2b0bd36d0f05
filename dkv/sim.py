"""Simulated clusters: the real nodes in a simulated network, with simulated disks and clocks.

Everything follows from one seed: the same calls on a `World` give the same course of events, down
to each message. Time is virtual and passes only in calls; what takes a cluster minutes takes
milliseconds here. Nodes crash, lose power, stall, lose sight of each other, and have wrong clocks
and rotten disks when you say so.

>>> world = World(5, replication=3, seed=7)
>>> world.put("greeting", b"hello").replicas
('n4', 'n1', 'n3')
>>> owner = world.ring.owner("greeting")
>>> world.power_cut(owner)
>>> world.get("greeting")
b'hello'
>>> world.start(owner)
>>> world.run(seconds=10)
>>> [node for node, version in world.replicas_holding("greeting").items() if version]
['n1', 'n3', 'n4']

`python -m dkv.sim --seed N` runs a *campaign*: a random cluster, random work and random faults, all
from the seed N, and then checks that everything was kept that dkv promises.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from dkv import _core
from dkv.errors import TABLE, Error, InvalidArgumentError
from dkv.results import GetResult, PutResult
from dkv.ring import Key, Member, Nodes, Ring, _fields_of
from dkv.version import Version

if TYPE_CHECKING:
    from dkv.client import Level, Value

Outcome = Literal["applied", "not applied", "unknown"]
Kind = Literal["get", "put", "delete"]

NS = 1_000_000_000

_KINDS: dict[Kind, int] = {"get": 1, "put": 2, "delete": 3}
_KIND_NAMES: dict[int, Kind] = {number: name for name, number in _KINDS.items()}
_LEVELS = {None: 0, "one": 1, "quorum": 2, "all": 3}
_LEVEL_NAMES = {0: "default", 1: "one", 2: "quorum", 3: "all"}
_OUTCOMES: dict[int, Outcome | None] = {0: None, 1: "applied", 2: "not applied", 3: "unknown"}
_ANY_NODE = -1
_SEED_MAX = 2**64 - 1


class TraceEntry(NamedTuple):
    """Something that happened."""

    time: float
    """Seconds of virtual time since the world began."""

    node: str | None
    """The node it happened to; None: a client, or the whole world."""

    kind: str
    """What: "message", "disk", "crash", "request" and so on."""

    text: str

    def __str__(self) -> str:
        return f"{self.time:12.6f} {self.node or '-':<6} {self.kind:<13} {self.text}"


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of a client, and how it ended. Times are in seconds of virtual time."""

    number: int
    client: int
    kind: Kind
    key: bytes
    value: bytes
    """What was to be written."""

    level: str
    via: str | None
    """The node it was sent to on purpose; None: routed by the client."""

    invoked: float
    answered: float | None
    """None: not yet."""

    error: str | None
    """The name of the error; None if it succeeded."""

    outcome: Outcome | None
    """What became of a write."""

    version: Version | None
    """Of the value read, or of the write."""

    result: bytes
    """The value read."""

    holding: tuple[str, ...]
    """The nodes that confirmed the write, or that answered with this version."""

    missing: tuple[str, ...]
    """The nodes that stood in the way."""

    detail: str
    """The error in a sentence."""

    def __str__(self) -> str:
        answered = "..." if self.answered is None else f"{self.answered:.6f}"
        said = " ".join(filter(None, (self.error or "ok", self.outcome)))
        version = f" {self.version.hlc}.{self.version.origin:x}" if self.version else ""
        holding = f" on {','.join(self.holding)}" if self.holding else ""
        via = f" via {self.via}" if self.via else ""
        return (
            f"{self.invoked:.6f}-{answered} op {self.number} client {self.client}: "
            f"{self.kind} {self.key.decode(errors='backslashreplace')} "
            f"level {self.level}{via}: {said}{version}{holding}"
            + (f": {self.detail}" if self.detail else "")
        )


class World:
    """A simulated cluster and its clients.

    `nodes` is a number (then they are n1, n2, ...), or what `dkv.Ring` takes. Operations block in
    virtual time and raise what a real client raises. `latency` is the range of a message's delay in
    seconds. The network is like TCP unless batches of messages are to be lost, repeated or to
    overtake each other: `drop`, `duplicate` and `reorder` are the probabilities of that, `break_`
    is that of a link to break.

    >>> world = World(3, seed=1)
    >>> world.partition({"n1"}, {"n2", "n3"})
    >>> world.put("key", b"value", via="n1", timeout=2)
    Traceback (most recent call last):
        ...
    dkv.errors.UnavailableError: put needs 3 of 3 replicas, 1 can take it; not reachable: n3, n2; \
nothing was written
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
        latency: tuple[float, float] = (0.000_05, 0.000_5),
        disk: float = 0.000_4,
        break_: float = 0.0,
        drop: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        segment_bytes: int = 0,
        trace: bool = True,
    ) -> None:
        named = [f"n{i + 1}" for i in range(nodes)] if isinstance(nodes, int) else nodes
        self._ring = Ring(named, replication)
        members = [_fields_of(member) for member in self._ring.members]
        net = (
            *(max(1, round(edge * 1e6)) for edge in latency),
            0,
            0,
            *(_millionths(chance) for chance in (break_, drop, duplicate, reorder)),
        )
        disk_us = max(1, round(disk * 1e6))
        timing = (0, 0, 0, 0, 0, 0)
        self._native = _core.World(
            self._ring.replication,
            members,
            _checked_seed(seed),
            timing,
            net,
            disk_us,
            segment_bytes,
            trace,
        )
        self._set_up(seed)

    def _set_up(self, seed: int) -> None:
        self._seed = seed
        self._index = {node: index for index, node in enumerate(self._ring.nodes)}
        self._last_seen = Version(0, 0)

    @classmethod
    def _of(cls, native: _core.World, seed: int) -> World:
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
            client, node, _KINDS[kind], key, value, _LEVELS[level], round(timeout * 1000), *seen
        )

    def wait(self, number: int) -> Operation:
        """Lets time pass until operation `number` has ended, well or not."""
        self._native.wait(number)
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
        """Kills the process. Its machine lives on: peers see that it is gone."""
        self._native.crash(self._of_node(node))

    def power_cut(self, node: str) -> None:
        """Takes the machine's power. Peers hear nothing; what was not synced may be lost."""
        self._native.power_cut(self._of_node(node))

    def stop(self, node: str) -> None:
        """Stops the process cleanly."""
        self._native.stop(self._of_node(node))

    def start(self, node: str) -> None:
        """Starts the process on what its disk holds, switching the machine on if need be."""
        self._native.start(self._of_node(node))

    def pause(self, node: str) -> None:
        """Stops the process as SIGSTOP does, until `resume`."""
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
        self._native.wipe(self._of_node(node))

    def flip(self, node: str) -> None:
        """Flips a random bit of what the node's disk holds of the log."""
        self._native.flip(self._of_node(node))

    def lose_file(self, node: str) -> None:
        """Loses a random file of the log of a node that does not run."""
        self._native.lose_file(self._of_node(node))

    def limit_disk(self, node: str, bytes_: int | None) -> None:
        """Lets the node's disk take so many bytes in all; None: any number."""
        self._native.capacity(self._of_node(node), bytes_ or 0)

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

    def heal(self) -> None:
        """Joins all ways again."""
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

    @property
    def history(self) -> Sequence[Operation]:
        """All operations so far, in the order in which they began."""
        return [self._operation(number) for number in range(self._native.counts()[1])]

    @property
    def trace(self) -> list[TraceEntry]:
        """What has happened, event by event (the last million, if there are more)."""
        names = self.nodes
        return [
            TraceEntry(time / NS, names[node] if node >= 0 else None, kind, text)
            for time, node, kind, text in self._native.trace(0)
        ]

    @property
    def trace_hash(self) -> int:
        """Stands for the whole course of events: equal in worlds that went the same way."""
        return self._native.counts()[4]

    @property
    def messages(self) -> int:
        """How many messages nodes have got from each other."""
        return self._native.counts()[2]

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


def _checked_seed(seed: int) -> int:
    if not 0 <= seed <= _SEED_MAX:
        raise InvalidArgumentError(f"a seed must be 0 to 2**64 - 1, not {seed}")
    return seed


# ---- campaigns ----

FAULTS: tuple[str, ...] = _core.fault_names()
"""What can go wrong in a campaign."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    rule: str
    sentence: str
    """What should hold."""

    operations: tuple[int, ...]
    """The numbers of those concerned."""

    text: str
    """What was found."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign that was run."""

    seed: int
    violation: Violation | None
    faults: tuple[str, ...]
    """The kinds of faults that the seed chose."""

    n_faults: int
    """How many there were."""

    nodes: int
    replication: int
    operations: int
    applied: int
    """Writes that were."""

    found: int
    """Reads that returned a value."""

    messages: int
    events: int
    trace_hash: int
    seconds: float
    """Of virtual time."""

    world: World
    """As it was at the end."""


def campaign(seed: int, *, faults: Collection[str] = FAULTS, trace: bool = False) -> Campaign:
    """Runs the campaign of `seed` with some of these kinds of faults.

    >>> campaign(1).violation is None
    True
    """
    unknown = sorted(set(faults) - set(FAULTS))
    if unknown:
        raise InvalidArgumentError(f"there is no fault {unknown[0]!r}")
    mask = sum(1 << FAULTS.index(fault) for fault in set(faults))
    report, native = _core.World.campaign(_checked_seed(seed), mask, trace)
    found = report["violation"]
    return Campaign(
        seed=seed,
        violation=found and Violation(found[0], found[1], tuple(found[2]), found[3]),
        faults=tuple(fault for bit, fault in enumerate(FAULTS) if report["faults"] >> bit & 1),
        n_faults=report["n_faults"],
        nodes=report["n_nodes"],
        replication=report["replication"],
        operations=report["ops"],
        applied=report["applied"],
        found=report["found"],
        messages=report["messages"],
        events=report["events"],
        trace_hash=report["trace_hash"],
        seconds=report["ns"] / NS,
        world=World._of(native, seed),
    )


def describe(run: Campaign) -> Iterator[str]:
    """What there is to say of a campaign that was run with its trace, line by line."""
    yield (
        f"seed {run.seed}: {run.nodes} nodes, {run.replication} copies; "
        f"{run.operations} operations ({run.applied} applied, {run.found} found), "
        f"{run.messages} messages, {run.n_faults} faults ({', '.join(run.faults) or 'none'}) "
        f"in {run.seconds:.1f} s; trace {run.trace_hash:016x}"
    )
    if run.violation is None:
        return
    yield f"VIOLATION {run.violation.rule}: {run.violation.sentence}"
    yield f"  found: {run.violation.text}"
    history = run.world.history
    concerned = [history[number] for number in run.violation.operations]
    for operation in concerned:
        yield f"  {operation}"
    if concerned:
        yield "history of the key:"
        yield from _around(history, concerned)
    yield "the last that happened:"
    yield from (f"  {entry}" for entry in run.world.trace[-60:])


def _around(history: Sequence[Operation], concerned: Sequence[Operation]) -> Iterator[str]:
    """The operations on the key shortly before and between those concerned."""
    first, last = min(op.invoked for op in concerned), max(op.invoked for op in concerned)
    same_key = [op for op in history if op.key == concerned[0].key]
    before = [op for op in same_key if op.invoked < first][-20:]
    during = [op for op in same_key if first <= op.invoked <= last]
    yield from (f"  {operation}" for operation in before + during)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=click.IntRange(0, _SEED_MAX), default=1, show_default=True)
@click.option("--runs", "--seeds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--fault", "faults", type=click.Choice(FAULTS), multiple=True, help="Only these.")
@click.option("--no-faults", is_flag=True, help="Nothing goes wrong.")
@click.option("--trace", is_flag=True, help="Print everything that happens.")
def main(seed: int, runs: int, faults: Sequence[str], no_faults: bool, trace: bool) -> None:
    """Run campaigns: random clusters, work and faults, checked for what dkv promises.

    Ends with status 1 at the first seed at which a promise was not kept, and shows what led to it.
    """
    chosen: Sequence[str] = () if no_faults else faults or FAULTS
    operations = messages = 0
    for number in range(seed, seed + runs):
        run = campaign(number, faults=chosen, trace=runs == 1)
        operations += run.operations
        messages += run.messages
        if run.violation is not None and runs > 1:
            run = campaign(number, faults=chosen, trace=True)
        if trace:
            for entry in run.world.trace:
                click.echo(entry)
        if run.violation is not None or runs == 1:
            click.echo("\n".join(describe(run)))
        if run.violation is not None:
            sys.exit(1)
    if runs > 1:
        click.echo(
            f"{runs} campaigns kept all promises: {operations} operations, {messages} messages"
        )


if __name__ == "__main__":
    main()
