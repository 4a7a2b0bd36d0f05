"""Campaigns: a random cluster, random work and random faults from one seed, and then the question
whether everything was kept that dkv promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dkv import _core
from dkv.errors import InvalidArgumentError
from dkv.sim.records import Operation
from dkv.sim.world import NS, World, checked_seed

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
    faults: dict[str, int]
    """The kinds of faults that the seed chose, and how many there were of each."""

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

    When all faults are over the nodes have to become identical.

    >>> campaign(1).violation is None
    True
    """
    unknown = sorted(set(faults) - set(FAULTS))
    if unknown:
        raise InvalidArgumentError(f"there is no fault {unknown[0]!r}")
    mask = sum(1 << FAULTS.index(fault) for fault in set(faults))
    report, native = _core.World.campaign(checked_seed(seed), mask, trace)
    found = report["violation"]
    return Campaign(
        seed=seed,
        violation=found and Violation(found[0], found[1], tuple(found[2]), found[3]),
        faults={
            fault: report["n_faults"][bit]
            for bit, fault in enumerate(FAULTS)
            if report["faults"] >> bit & 1
        },
        nodes=report["n_nodes"],
        replication=report["replication"],
        operations=report["ops"],
        applied=report["applied"],
        found=report["found"],
        messages=report["messages"],
        events=report["events"],
        trace_hash=report["trace_hash"],
        seconds=report["ns"] / NS,
        world=World.of_native(native, seed),
    )


# ---- many ----


@dataclass(slots=True)
class Tally:
    """What many campaigns add up to."""

    campaigns: int = 0
    operations: int = 0
    messages: int = 0
    events: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    violated: int | None = None
    """The first seed at which a promise was not kept; nothing after it is counted."""

    def add(self, other: Tally) -> None:
        """Takes in what came after."""
        self.campaigns += other.campaigns
        self.operations += other.operations
        self.messages += other.messages
        self.events += other.events
        self.seconds += other.seconds
        self.faults += other.faults
        self.violated = other.violated

    def __str__(self) -> str:
        faults = ", ".join(f"{count:,} {fault}" for fault, count in self.faults.most_common())
        return (
            f"{self.campaigns:,} campaigns, {self.seconds:,.0f} s of virtual time: "
            f"{self.operations:,} operations, {self.messages:,} messages, "
            f"{self.faults.total():,} faults ({faults or 'none'})"
        )


def run_many(seeds: Iterable[int], faults: Collection[str], jobs: int) -> Tally:
    """Runs the campaigns of these seeds, `jobs` at a time, up to the first violation."""

    def run(seed: int) -> Tally:
        one = campaign(seed, faults=faults)
        violated = None if one.violation is None else seed
        counts = Counter(one.faults)
        return Tally(1, one.operations, one.messages, one.events, one.seconds, counts, violated)

    total = Tally()
    with ThreadPoolExecutor(jobs) as pool:  # the simulator runs without the GIL
        for one in pool.map(run, seeds):
            total.add(one)
            if one.violated is not None:
                pool.shutdown(cancel_futures=True)
                break
    return total


# ---- in words ----


def describe(run: Campaign) -> Iterator[str]:
    """What there is to say of a campaign that was run with its trace, line by line."""
    faults = ", ".join(f"{count} {fault}" for fault, count in run.faults.items())
    yield (
        f"seed {run.seed}: {run.nodes} nodes, {run.replication} copies; "
        f"{run.operations} operations ({run.applied} applied, {run.found} found), "
        f"{run.messages} messages, faults: {faults or 'none'}; "
        f"{run.seconds:.1f} s; trace {run.trace_hash:016x}"
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
