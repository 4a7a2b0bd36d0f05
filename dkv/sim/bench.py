"""How fast the simulator is, on one core. All times are of CPU, measured in one thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from dkv.sim.campaign import campaign
from dkv.sim.world import World


@dataclass(frozen=True, slots=True)
class Speed:
    """What was simulated, and how long it took."""

    what: str
    messages: int
    """Delivered from node to node."""

    operations: int
    events: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.what:<34}{self.messages / self.seconds:>12,.0f} messages/s"
            f"{self.operations / self.seconds:>11,.0f} operations/s"
            f"{self.events / self.seconds:>12,.0f} events/s"
        )


def load(nodes: int, in_flight: int, operations: int) -> Speed:
    """Puts of 100 bytes at level all and as many gets, in a world with three copies."""
    world = World(nodes, trace=False)
    world.run(seconds=2)
    messages, events = world.messages, world.events
    began = time.thread_time()
    for first in range(0, operations, in_flight):
        numbers = [
            world.submit("put" if i % 2 else "get", f"key {i // 2 % 10_000}", b"v" * 100 * (i % 2))
            for i in range(first, first + in_flight)
        ]
        for number in numbers:
            world.finish(number)
    seconds = time.thread_time() - began
    what = f"{nodes} nodes, {in_flight} in flight"
    return Speed(what, world.messages - messages, operations, world.events - events, seconds)


def campaigns(seeds: int) -> Speed:
    """The campaigns of the seeds from 1 up to this."""
    messages = operations = events = 0
    began = time.thread_time()
    for seed in range(1, seeds + 1):
        run = campaign(seed)
        messages += run.messages
        operations += run.operations
        events += run.events
    seconds = time.thread_time() - began
    return Speed(f"campaigns of {seeds} seeds", messages, operations, events, seconds)


def measure() -> Iterator[Speed]:
    """One row after the other, each of a few seconds at most."""
    yield load(5, 64, 64_000)
    yield load(5, 1, 20_000)
    yield load(100, 64, 64_000)
    yield campaigns(100)
