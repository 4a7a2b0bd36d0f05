"""What operations return. This module needs no network."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from dkv.version import Version


class PutResult(NamedTuple):
    """A put or a deletion that was applied.

    >>> put = dkv.sim.World(3, seed=1).put("key", b"value", write="quorum")
    >>> f"{len(put.replicas)} of 3 replicas hold it"
    '2 of 3 replicas hold it'
    """

    version: Version
    """The version that it gave to the key."""

    replicas: tuple[str, ...]
    """The nodes that had confirmed it by then: at least as many as `write` asks for."""


class GetResult(NamedTuple):
    """A value with what is known about it.

    >>> world = dkv.sim.World(3, seed=1)
    >>> put = world.put("key", b"value")
    >>> value, version, replicas = world.get_versioned("key")
    >>> value, version == put.version
    (b'value', True)
    """

    value: bytes

    version: Version
    """Of the write that stored the value."""

    replicas: tuple[str, ...]
    """The nodes that answered with this version."""


class ClientStats(NamedTuple):
    """What a client has done since it was connected, see `Client.stats`.

    >>> before = client.stats().reads
    >>> values = client.get_many(["colour", "shape"])
    >>> client.stats().reads - before
    2
    """

    reads: int

    hedged: int
    """How often a read went on to a further node because one took longer than it usually does."""

    passed_over: int
    """How often because one had been silent for long, or would not answer in time."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """How one node sees another."""

    id: str
    address: str

    reach: str
    """ "up", "down" (refused, broken or silent), "connecting", or "unknown" (nobody has tried)."""

    declared_lost: bool = False
    """Whether an operator has said that its data is gone for good, see `Client.declare_lost`. Until
    it is complete again with other data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """What a node says of itself. Sizes are in bytes; counts are since its start.

    >>> status = client.status()["n1"]
    >>> status.node_id, status.in_sync, status.full
    ('n1', True, False)
    """

    cluster: str
    node_id: str
    epoch: int
    """The number of its cluster map."""

    store_id: int
    """Of its data directory, random, made with it."""

    version: str
    """Of the program."""

    uptime_ms: int
    in_sync: bool
    """Whether its store has lost nothing that it confirmed."""

    clock_off: bool
    """Whether it is too far off its peers' clocks to coordinate writes."""

    requests: int
    """Under way."""

    gets: int
    puts: int
    deletes: int
    failed: int
    records: int
    """In the store, tombstones included."""

    tombstones: int
    live_bytes: int
    log_bytes: int
    index_bytes: int
    segments: int
    full: bool
    """Whether the disk is full; writes are refused then."""

    damaged_records: int
    peers: tuple[PeerStatus, ...]
    hints: int
    """Records that other nodes may have missed, waiting to be sent to them."""

    dirty: int
    """Pairs of token range and other node that may differ and are to be compared."""

    heal_sessions: int
    """Comparisons with other nodes, under way."""

    heal_fetched: int
    """Records that others had newer, fetched from them."""

    heal_sent: int
    """Records that others lacked, sent to them."""

    round_age_ms: int
    """Since all was last compared with every node that shares keys with it: the oldest of these
    times. 0 if there is one with which it has not been, since its start."""

    shares: int
    """Token ranges that it replicates."""

    shares_in_sync: int
    """Those among them in which its store has lost nothing that it confirmed."""

    scrubbed_ms: int
    """When the last scrub ended that had read and checked every record, in milliseconds since 1970.
    0 if none has, since its start."""

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> Self:
        """From the reply of a node, which may be newer and know more."""
        known = {name: fields[name] for name in cls.__slots__}
        known["peers"] = tuple(PeerStatus(**peer) for peer in fields["peers"])
        return cls(**known)
