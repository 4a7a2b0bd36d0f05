"""The ring: which nodes hold which key.

Every node has tokens on a circle of 2**64 positions; a key's position is the first 8 bytes of its
SHA-256, and the N nodes that follow it clockwise hold the key. Anybody who knows the nodes can
compute that, so no node has to be asked. This module needs no running cluster.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkv.errors import InvalidArgumentError

try:
    from dkv import _core
except ImportError as error:
    if list(Path(__file__).parent.glob("_core*.so")):
        raise
    raise ImportError(
        f"{Path(__file__).parent} has no compiled parts: run make, or start Python in another "
        "directory, where the source does not hide an installed dkv"
    ) from error

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Key = str | bytes | bytearray | memoryview
"""A key: 1 to 1,024 bytes. A str stands for its UTF-8."""

CIRCLE = 2**64
"""How many positions the ring has: 0 to CIRCLE − 1, and then 0 again."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node as the cluster map describes it.

    >>> Member("n1", zone="eu-1").host
    'n1'
    """

    id: str
    """1 to 64 characters of A-Z a-z 0-9 . _ -"""

    address: str = ""
    """ "host:port" where it listens. Not needed to compute a ring."""

    host: str = ""
    """The machine it runs on; by default its id. Replicas avoid sharing one."""

    zone: str = ""
    """What fails together above the host: a rack, a data centre. "" if there is none."""

    token_name: str = ""
    """Tokens are SHA-256 of "<token_name>:<i>"; by default its id."""

    weight: int = 1
    """1 to 16. A node has 256 × weight tokens."""

    token_indices: Sequence[int] | None = None
    """The numbers i of its tokens, ascending; by default 0 to 256 × weight − 1."""

    def __post_init__(self) -> None:
        """Fills in the defaults, so that members that mean the same are equal."""
        object.__setattr__(self, "host", self.host or self.id)
        object.__setattr__(self, "token_name", self.token_name or self.id)
        if self.token_indices is not None:
            object.__setattr__(self, "token_indices", tuple(self.token_indices))


@dataclass(frozen=True, slots=True)
class RingChange:
    """A range of positions whose nodes differ between two rings."""

    after: int
    """The range begins behind this position ..."""

    upto: int
    """... and ends with this one, clockwise. If both are equal it is the whole circle."""

    before: tuple[str, ...]
    """The nodes of the range in the old ring, owner first."""

    after_nodes: tuple[str, ...]
    """The nodes of the range in the new ring, owner first."""

    @property
    def share(self) -> float:
        """The fraction of the circle that the range covers.

        >>> RingChange(2**64 - 2**62, 2**62, ("n1",), ("n2",)).share
        0.5
        """
        return ((self.upto - self.after) % CIRCLE or CIRCLE) / CIRCLE


@dataclass(frozen=True, slots=True, repr=False)
class WhatIf:
    """What a change of the nodes would do: the answer of `Ring.what_if`.

    >>> Ring(["n1", "n2", "n3", "n4"], replication=2).what_if(add="n5")
    WhatIf: 20.1 % of all replicas move (the least possible: 20.1 %)
      n5   0.0 % -> 40.1 %
      n4  51.8 % -> 38.8 %
      n3  48.1 % -> 37.7 %
      n1  51.1 % -> 41.9 %
      n2  48.9 % -> 41.5 %
    """

    ring: "Ring"
    """The ring after the change."""

    moved: float
    """The fraction of all replicas that get to a node that did not hold them."""

    minimum: float
    """What any placement would have to move to get from the old shares to the new ones: what the
    nodes that grow gain. Zones and hosts can make a ring move more than that."""

    per_node: Mapping[str, tuple[float, float]]
    """For each node of either ring the fraction of all keys that it holds, before and after."""

    def __repr__(self) -> str:
        width = max(map(len, self.per_node))
        least = f"(the least possible: {self.minimum:.1%})"
        lines = [f"WhatIf: {self.moved:.1%} of all replicas move {least}"]
        nodes = sorted(self.per_node.items(), key=_change_of_share, reverse=True)
        for node, (before, after) in nodes[:20]:
            lines.append(f"  {node:{width}}  {before:5.1%} -> {after:5.1%}")
        if len(nodes) > 20:
            lines.append(f"  and {len(nodes) - 20} nodes whose shares change less")
        return "\n".join(lines).replace("%", " %")


def _change_of_share(item: tuple[str, tuple[float, float]]) -> float:
    before, after = item[1]
    return abs(after - before)


Nodes = Iterable[str | Member] | Mapping[str, Mapping[str, Any]]
"""What a ring is made of: ids, members, or a mapping from id to the other fields of `Member`."""


class Ring:
    """Which nodes hold which key. Immutable; rings of the same members are equal.

    >>> ring = Ring(["n1", "n2", "n3", "n4"], replication=3)
    >>> ring.replicas("some key")
    ('n4', 'n3', 'n1')
    >>> ring.owner(b"some key")
    'n4'

    A node with a zone, a host, a weight or tokens of its own is a `Member`, or an entry of a
    mapping:

    >>> Ring({"a": {"zone": "east"}, "b": {"zone": "east"}, "c": {"zone": "west"}}, replication=2)
    Ring(nodes=3, replication=2, intervals=768)

    A key's nodes are those of the first tokens clockwise from its position, passing over a node
    whose zone already holds a replica while other zones are left, then one whose host does. Nodes
    without a zone are kept apart by host.

    Raises `InvalidArgumentError` if `replication` is not in 1 to 5 or above the number of nodes,
    and for members that are not allowed.
    """

    __slots__ = ("_members", "_native")

    _members: tuple[Member, ...]
    _native: _core.Ring

    def __init__(self, nodes: Nodes, replication: int = 3) -> None:
        members = sorted(_members_of(nodes), key=lambda member: member.id)
        self._members = tuple(members)
        self._native = _core.Ring(replication, [_fields_of(member) for member in members])

    # ---- where a key lives ----

    def replicas(self, key: Key) -> tuple[str, ...]:
        """The nodes that hold `key`, owner first, in the order in which reads ask them."""
        return self._native.replicas(key)

    def owner(self, key: Key) -> str:
        """The first of `replicas`: the node that a client asks first."""
        return self._native.replicas(key)[0]

    def position(self, key: Key) -> int:
        """The position of `key`: the first 8 bytes of its SHA-256, big-endian.

        >>> hex(Ring(["n1"], replication=1).position("key"))
        '0x2c70e12b7a0646f9'
        """
        return _core.position(key)

    def list_at(self, position: int) -> tuple[str, ...]:
        """The nodes that hold the keys at `position`, owner first."""
        return self._native.list_at(position)

    # ---- where many keys live ----

    def owners(self, keys: Iterable[Key]) -> "npt.NDArray[np.intp]":
        """For each key the index of its owner in `nodes`. Needs NumPy (`pip install numpy`).

        `keys` is a sequence of keys or an array of one dimension; a million take a fraction of a
        second. Beware of NumPy's types "S" and "U": they drop NULs at the end of a key. A list, or
        an array of type "V" or object, keeps them.

        >>> ring = Ring(["n1", "n2", "n3", "n4"], replication=3)
        >>> ring.owners(["some key", b"another"])
        array([3, 0])
        >>> ring.owner(b"another")
        'n1'
        """
        return self._locate(keys, 1)[:, 0]

    def replica_table(self, keys: Iterable[Key]) -> "npt.NDArray[np.intp]":
        """For each key a row with the indices of its N nodes in `nodes`, owner first.

        Takes what `owners` takes.

        >>> ring = Ring(["n1", "n2", "n3", "n4"], replication=3)
        >>> ring.replica_table(["some key", b"another"])
        array([[3, 2, 0],
               [0, 3, 2]])
        >>> ring.replicas("some key")
        ('n4', 'n3', 'n1')
        """
        return self._locate(keys, self.replication)

    def _locate(self, keys: Iterable[Key], places: int) -> "npt.NDArray[np.intp]":
        from dkv import _bulk  # only here, so that the rest needs no NumPy

        return _bulk.locate(self._native, keys, places)

    # ---- what it is made of ----

    @property
    def nodes(self) -> tuple[str, ...]:
        """The ids of all nodes, ascending."""
        return self._native.nodes

    @property
    def members(self) -> tuple[Member, ...]:
        """All nodes as they were described, ascending by id."""
        return self._members

    @property
    def replication(self) -> int:
        """N: how many nodes hold each key."""
        return self._native.replication

    @property
    def intervals(self) -> int:
        """Into how many intervals the tokens cut the circle. One interval has one list of nodes."""
        return self._native.intervals

    def tokens(self, node: str) -> tuple[int, ...]:
        """The positions of the tokens of `node`, ascending.

        >>> ring = Ring([Member("n1", token_indices=[0])], replication=1)
        >>> [hex(token) for token in ring.tokens("n1")]
        ['0x9da078e7cfde61cd']
        """
        return self._native.tokens(node)

    # ---- balance ----

    def shares(self) -> dict[str, float]:
        """For each node the fraction of the circle that it owns; together 1.

        >>> Ring(["n1"], replication=1).shares()
        {'n1': 1.0}
        """
        return dict(zip(self.nodes, self._native.shares(1), strict=True))

    def replica_shares(self) -> dict[str, float]:
        """For each node the fraction of the circle that it holds a replica of; together N.

        >>> Ring(["n1", "n2"], replication=2).replica_shares()
        {'n1': 1.0, 'n2': 1.0}
        """
        return dict(zip(self.nodes, self._native.shares(self.replication), strict=True))

    # ---- change ----

    def with_node(self, node: str | Member, **fields: Any) -> "Ring":
        """The ring with one more node: an id and fields of `Member`, or a `Member`.

        >>> Ring(["n1", "n2"], replication=2).with_node("n3", zone="west").nodes
        ('n1', 'n2', 'n3')
        """
        if isinstance(node, Member):
            if fields:
                raise TypeError("a Member has its fields already")
            return Ring((*self._members, node), self.replication)
        return Ring((*self._members, Member(node, **fields)), self.replication)

    def without_node(self, node: str) -> "Ring":
        """The ring without `node`.

        >>> Ring(["n1", "n2"], replication=1).without_node("n2").nodes
        ('n1',)
        """
        return Ring(self._members_without([node]), self.replication)

    def what_if(
        self, *, add: str | Member | Nodes = (), remove: str | Iterable[str] = ()
    ) -> WhatIf:
        """What it would mean to add and remove these nodes: what moves, and each node's share.

        >>> ring = Ring([f"n{i}" for i in range(1, 6)], replication=3)
        >>> round(ring.what_if(add="n6").moved, 3)  # about 1 of 6
        0.17

        A node that takes over the tokens of another takes over its keys, and no others move:

        >>> change = ring.what_if(add=Member("n6", token_name="n5"), remove="n5")
        >>> change.per_node["n6"][1] == ring.replica_shares()["n5"]
        True
        """
        rest = self._members_without([remove] if isinstance(remove, str) else remove)
        added = _members_of([add] if isinstance(add, str | Member) else add)
        ring = Ring((*rest, *added), self.replication)
        moved, net_gain = 0, dict.fromkeys((*self.nodes, *ring.nodes), 0)
        for change in self.diff(ring):
            positions = (change.upto - change.after) % CIRCLE or CIRCLE
            for node in set(change.after_nodes) - set(change.before):
                moved += positions
                net_gain[node] += positions
            for node in set(change.before) - set(change.after_nodes):
                net_gain[node] -= positions
        minimum = sum(gain for gain in net_gain.values() if gain > 0)
        before, after = self.replica_shares(), ring.replica_shares()
        per_node = {node: (before.get(node, 0.0), after.get(node, 0.0)) for node in net_gain}
        everything = CIRCLE * self.replication
        return WhatIf(ring, moved / everything, minimum / everything, per_node)

    def diff(self, other: "Ring") -> list[RingChange]:
        """Exactly the positions whose nodes differ from those in `other`, the newer ring.

        The ranges are disjoint and ascending by `upto`; neighbours with the same nodes before and
        after are joined.

        >>> ring = Ring([f"n{i}" for i in range(5)], replication=3)
        >>> changes = ring.diff(ring.with_node("n5"))
        >>> round(sum(change.share for change in changes), 2)  # about 3 of 6
        0.49
        """
        return [RingChange(*change) for change in self._native.diff(other._native)]

    def _members_without(self, leaving: Iterable[str]) -> list[Member]:
        leaving = set(leaving)
        for node in leaving.difference(self.nodes):
            raise InvalidArgumentError(f"there is no node {node!r} in this ring")
        return [member for member in self._members if member.id not in leaving]

    # ---- as a value ----

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ring):
            return NotImplemented
        return self.replication == other.replication and self._members == other._members

    def __hash__(self) -> int:
        return hash((self.replication, self._members))

    def __reduce__(self) -> tuple[type["Ring"], tuple[tuple[Member, ...], int]]:
        return Ring, (self._members, self.replication)

    def __repr__(self) -> str:
        return (
            f"Ring(nodes={len(self._members)}, replication={self.replication}, "
            f"intervals={self.intervals})"
        )

    def _repr_svg_(self) -> str:
        """What a notebook shows: the circle in the colours of its owners, and their shares."""
        from dkv._svg import ring_svg

        return ring_svg(self)


def _members_of(nodes: Nodes) -> list[Member]:
    if isinstance(nodes, str | bytes):
        raise TypeError("nodes must be several ids or members, not one text")
    if isinstance(nodes, Mapping):
        return [Member(node, **fields) for node, fields in nodes.items()]
    return [node if isinstance(node, Member) else Member(node) for node in nodes]


def _fields_of(
    member: Member,
) -> tuple[str, str, str, str, str, int, Sequence[int] | None]:
    return (
        member.id,
        member.address,
        member.host,
        member.zone,
        member.token_name,
        member.weight,
        member.token_indices,
    )
