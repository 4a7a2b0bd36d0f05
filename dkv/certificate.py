"""Whether all replicas are identical, proven by the digests of what each node holds.

Each node gives number and digest of its records for each token range that it replicates; a digest
covers key, version and kind of every record. While a cluster is written to, the replicas of a range
differ for moments, and their nodes are not asked at the same instant. So ranges that differ are
asked for again, until they have been found equal once or the time is over.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from dkv.errors import PreconditionError

ASK_MAX_S = 2.0
"""For one attempt, so that a silent node leaves time for another."""

PAUSE_S = 0.02
PAUSE_MAX_S = 0.2
"""Between two attempts: the first one, doubled each time up to the second."""

Range: TypeAlias = tuple[int, int]
Ask: TypeAlias = Callable[[Collection[str], float], "dict[str, Holding | None]"]
"""What nodes hold, asked for so many seconds; None for one that does not answer."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A range of tokens, with inclusive bounds, of which the replicas are not identical.

    >>> differs = dkv.Difference(first=0, last=2**60, records={"n1": 7, "n2": 8, "n3": 7})
    >>> max(differs.records, key=differs.records.get)
    'n2'
    """

    first: int
    last: int

    records: Mapping[str, int]
    """How many each node holds. The numbers may be equal and the records not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a comparison of all replicas has shown, see `Client.verify`.

    >>> certificate = client.verify()
    >>> certificate.converged, certificate.differences, certificate.unreachable
    (True, (), ())
    """

    epoch: int
    """The number of the cluster map by which keys belong to nodes."""

    intervals: int
    """Ranges of tokens that were compared. What wraps around zero counts as two."""

    records: int
    """In all of them, each counted once, at the replica that has most: keys and tombstones."""

    tombstones: int | None
    """Marks of deleted keys, among the records. None unless converged; exact if nobody writes."""

    scrubbed: datetime | None
    """Since when every node has read all its records from its disk and found them good: digests do
    not see a rotten disk. None if one of them never has."""

    not_in_sync: Mapping[str, int]
    """In how many ranges a node may have lost something that it confirmed, by node. Those who are
    believed everywhere are left out."""

    unreachable: tuple[str, ...]
    """The nodes that did not answer. What they hold is not known."""

    differences: tuple[Difference, ...]

    @property
    def converged(self) -> bool:
        """Whether all replicas are identical. If a node did not answer, nobody knows."""
        return not self.unreachable and not self.differences

    @property
    def keys(self) -> int | None:
        """How many there are, without those deleted. None unless converged."""
        return None if self.tombstones is None else self.records - self.tombstones

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        fields = {"converged": self.converged, "keys": self.keys} | asdict(self)
        fields["scrubbed"] = self.scrubbed and self.scrubbed.isoformat()
        return fields


class Held(NamedTuple):
    """What a node holds in a range."""

    records: int
    digest: tuple[int, int]
    in_sync: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a node holds in all its ranges."""

    epoch: int
    map_digest: int
    tombstones: int
    scrubbed_ms: int
    ranges: Mapping[Range, Held]


def holding_of(replies: list[dict[str, Any]]) -> Holding:
    """From the replies of a node, of which each goes on where the one before ends."""
    last = replies[-1]
    return Holding(
        epoch=last["epoch"],
        map_digest=last["map_digest"],
        tombstones=last["tombstones"],
        scrubbed_ms=last["scrubbed_ms"],
        ranges={
            (share["first"], share["last"]): Held(
                share["records"], (share["digest_low"], share["digest_high"]), share["in_sync"]
            )
            for reply in replies
            for share in reply["shares"]
        },
    )


def certify(ask: Ask, nodes: Collection[str], replication: int, timeout: float) -> Certificate:
    """Asks all nodes, and those that differ again, for up to `timeout` seconds.

    Raises `PreconditionError` if they do not all follow the same cluster map.
    """
    deadline = time.monotonic() + timeout
    answers = _ask_all(ask, nodes, deadline)
    found = _by_range(answers)
    differing = _differing(found, answers, replication)
    pause = PAUSE_S
    while differing and time.monotonic() + pause < deadline:
        time.sleep(pause)
        pause = min(2 * pause, PAUSE_MAX_S)
        concerned = {node for one in differing for node in found[one]}
        answers |= _ask_all(ask, concerned, deadline)
        now = _by_range(answers)
        found |= {one: now[one] for one in differing if one in now}
        differing &= _differing(found, answers, replication)
    return _certificate(answers, found, differing, replication)


def _ask_all(ask: Ask, nodes: Collection[str], deadline: float) -> dict[str, Holding | None]:
    answers = ask(nodes, min(ASK_MAX_S, max(0.001, deadline - time.monotonic())))
    _check_maps(answers)
    return answers


def _check_maps(answers: Mapping[str, Holding | None]) -> None:
    maps: dict[tuple[int, int], list[str]] = {}
    for node, answer in answers.items():
        if answer:
            maps.setdefault((answer.epoch, answer.map_digest), []).append(node)
    if len(maps) > 1:
        told = "; ".join(
            f"{', '.join(nodes)}: epoch {epoch}, digest {digest:016x}"
            for (epoch, digest), nodes in sorted(maps.items())
        )
        raise PreconditionError(
            f"nodes follow different cluster maps, so their keys cannot be compared: {told}"
        )


def _by_range(answers: Mapping[str, Holding | None]) -> dict[Range, dict[str, Held]]:
    found: dict[Range, dict[str, Held]] = {}
    for node, answer in answers.items():
        if answer:
            for one, held in answer.ranges.items():
                found.setdefault(one, {})[node] = held
    return found


def _differing(
    found: Mapping[Range, Mapping[str, Held]],
    answers: Mapping[str, Holding | None],
    replication: int,
) -> set[Range]:
    complete = None not in answers.values()
    return {
        one
        for one, held in found.items()
        if len({replica.digest for replica in held.values()}) > 1
        or (complete and len(held) != replication)
    }


def _certificate(
    answers: Mapping[str, Holding | None],
    found: Mapping[Range, Mapping[str, Held]],
    differing: set[Range],
    replication: int,
) -> Certificate:
    told = {node: answer for node, answer in answers.items() if answer}
    unsure = {
        node: sum(not held.in_sync for held in answer.ranges.values())
        for node, answer in told.items()
    }
    scrubbed_ms = min((answer.scrubbed_ms for answer in told.values()), default=0)
    converged = not differing and len(told) == len(answers)
    tombstones = sum(answer.tombstones for answer in told.values()) // replication
    return Certificate(
        epoch=max((answer.epoch for answer in told.values()), default=0),
        intervals=len(found),
        records=sum(max(held.records for held in replicas.values()) for replicas in found.values()),
        tombstones=tombstones if converged else None,
        scrubbed=datetime.fromtimestamp(scrubbed_ms / 1000, UTC) if scrubbed_ms else None,
        not_in_sync={node: n for node, n in unsure.items() if n},
        unreachable=tuple(node for node, answer in answers.items() if not answer),
        differences=tuple(
            Difference(*one, {node: held.records for node, held in found[one].items()})
            for one in sorted(differing)
        ),
    )
