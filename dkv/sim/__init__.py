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

from dkv.settings import Durability
from dkv.sim.campaign import FAULTS, Campaign, Violation, campaign
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
from dkv.sim.world import World

__all__ = [
    "FAULTS",
    "Campaign",
    "Difference",
    "Durability",
    "Held",
    "Kind",
    "Latency",
    "LogNormal",
    "Operation",
    "Outcome",
    "Trace",
    "TraceEntry",
    "Violation",
    "World",
    "campaign",
]
