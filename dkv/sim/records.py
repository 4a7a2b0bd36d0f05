"""What a simulated world tells of itself: operations, trace, differences, kinds of latency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, overload

from dkv.version import Version

Outcome = Literal["applied", "not applied", "unknown"]
Kind = Literal["get", "put", "delete"]


class LogNormal(NamedTuple):
    """A latency with a heavy tail, as real networks have it.

    Half of all messages take less than `median` seconds, one in a hundred more than `p99`, and a
    few far more.
    """

    median: float
    p99: float


Latency = float | tuple[float, float] | LogNormal
"""Seconds: always the same, evenly distributed between two limits, or log-normal."""


class TraceEntry(NamedTuple):
    """Something that happened."""

    time: float
    """Seconds of virtual time since the world began."""

    node: str | None
    """The node it happened to; None: a client, or the whole world."""

    peer: str | None
    """The other node concerned, such as the sender of a message."""

    kind: str
    """What: "message", "disk", "crash", "request" and so on."""

    text: str

    def __str__(self) -> str:
        return f"{self.time:12.6f} {self.node or '-':<6} {self.kind:<13} {self.text}"


class Trace(Sequence[TraceEntry]):
    """What has happened in a world, event by event."""

    def __init__(self, entries: Iterable[TraceEntry]) -> None:
        self._entries = tuple(entries)

    @overload
    def __getitem__(self, index: int) -> TraceEntry: ...
    @overload
    def __getitem__(self, index: slice) -> Trace: ...
    def __getitem__(self, index: int | slice) -> TraceEntry | Trace:
        if isinstance(index, slice):
            return Trace(self._entries[index])
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(self._entries)

    def filter(
        self,
        *kinds: str,
        node: str | None = None,
        peer: str | None = None,
        after: float = 0.0,
        before: float = float("inf"),
        text: str = "",
    ) -> Trace:
        """The entries of these kinds (none: of all kinds) for which everything else holds, too.

        `node` and `peer` are who was concerned, `after` and `before` seconds of virtual time, both
        inclusive, and `text` is part of the entry's text.

        >>> from dkv.sim import World
        >>> world = World(3)
        >>> world.crash("n2")
        >>> world.start("n2")
        >>> [entry.kind for entry in world.trace.filter("crash", "start", node="n2")]
        ['start', 'crash', 'start']
        """
        return Trace(
            entry
            for entry in self._entries
            if (not kinds or entry.kind in kinds)
            and (node is None or entry.node == node)
            and (peer is None or entry.peer == peer)
            and after <= entry.time <= before
            and text in entry.text
        )

    def __repr__(self) -> str:
        return f"Trace({len(self)} entries)"

    def __str__(self) -> str:
        return "\n".join(map(str, self._entries))


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

    seconds: float | None
    """From one to the other."""

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


class Held(NamedTuple):
    """The record that a node holds of a key."""

    version: Version
    deleted: bool
    """Whether it is the mark of a deletion."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A key of which not all replicas hold the same record."""

    key: bytes
    """Empty if no operation of this world ever named it."""

    held: dict[str, Held | None]
    """By node, in ring order: what it holds; None: nothing."""

    @property
    def behind(self) -> tuple[str, ...]:
        """The nodes that lack the newest of these records."""
        newest = max(held.version for held in self.held.values() if held)
        return tuple(
            node for node, held in self.held.items() if held is None or held.version != newest
        )
