"""The ring against a naive reference: hashlib, a sorted list, and the definition word for word."""

import hashlib
import importlib.util
import pickle
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dkv
from dkv import Member, Ring, RingChange, _core

CIRCLE = 2**64


# ---- the reference ----


@cache
def sha256_position(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def tokens_of(member: Member) -> list[int]:
    indices = member.token_indices
    if indices is None:
        indices = range(256 * member.weight)
    return [sha256_position(f"{member.token_name}:{i}".encode()) for i in indices]


def domain(member: Member) -> tuple[str, str]:
    return ("zone", member.zone) if member.zone else ("host", member.host)


class Reference:
    def __init__(self, members: list[Member], replication: int) -> None:
        self.members = {member.id: member for member in members}
        self.replication = replication
        self.tokens = sorted(
            (token, member.id) for member in members for token in tokens_of(member)
        )
        self.ends = sorted({token for token, _ in self.tokens})

    def walk(self, position: int) -> list[Member]:
        start = bisect_left(self.tokens, (position, ""))
        met = dict.fromkeys(node for _, node in self.tokens[start:] + self.tokens[:start])
        return [self.members[node] for node in met]

    def replicas(self, position: int) -> tuple[str, ...]:
        walk = self.walk(position)
        chosen: list[Member] = []
        for group in (domain, lambda member: member.host, lambda member: member.id):
            for member in walk:
                held = {group(other) for other in chosen}
                if group(member) not in held and len(chosen) < self.replication:
                    chosen.append(member)
        return tuple(member.id for member in chosen)

    def shares(self, places: int) -> dict[str, float]:
        counts = dict.fromkeys(sorted(self.members), 0)
        for before, end in zip([self.ends[-1] - CIRCLE, *self.ends], self.ends, strict=False):
            for node in self.replicas(end)[:places]:
                counts[node] += end - before
        return {node: count / CIRCLE for node, count in counts.items()}


# ---- random rings ----

IDS = [f"n{i}" for i in range(110)]


@st.composite
def member_lists(
    draw: st.DrawFn,
    most: int = 100,
    nested: bool = False,
    token_names: bool = True,
    few_tokens: bool = False,
) -> list[Member]:
    """1 to `most` members; `nested`: every host is in one zone, as it is in the real world."""
    ids = draw(st.lists(st.sampled_from(IDS[:100]), min_size=1, max_size=most, unique=True))
    n_hosts = draw(st.integers(1, 12))
    n_zones = draw(st.integers(1, 5))
    few_tokens = few_tokens or len(ids) > 20 or draw(st.booleans())
    members = []
    for node in ids:
        fields: dict[str, Any] = {}
        host = draw(st.integers(0, n_hosts))
        if host:
            fields["host"] = f"h{host}"
        zone = host % n_zones if nested and host else draw(st.integers(0, n_zones))
        if zone:
            fields["zone"] = f"z{zone}"
        fields["weight"] = draw(st.sampled_from([1, 1, 1, 2, 3, 16]))
        if few_tokens:
            indices = st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True)
            fields["token_indices"] = sorted(draw(indices))
        if token_names and draw(st.integers(0, 9)) == 0:
            fields["token_name"] = draw(st.sampled_from(IDS[:20]))
        members.append(Member(node, **fields))
    return members


@st.composite
def rings(draw: st.DrawFn, **options: Any) -> tuple[Ring, list[Member]]:
    members = draw(member_lists(**options))
    replication = draw(st.integers(1, min(5, len(members))))
    return Ring(members, replication), members


def around(ends: Sequence[int], positions: list[int]) -> list[int]:
    """Some ends of intervals, their neighbours, the seam of the circle, and `positions`."""
    some = [*ends[:: 1 + len(ends) // 30], ends[-1]]
    near = [(end + step) % CIRCLE for end in some for step in (-1, 0, 1)]
    return [0, CIRCLE - 1, *near, *positions]


POSITIONS = st.lists(st.integers(0, CIRCLE - 1), max_size=20)
few = settings(max_examples=60, deadline=None)


# ---- golden values ----


@pytest.mark.parametrize("key", [b"key", "key", "schlüssel", b"\x00", b"x" * 1024, "ключ"])
def test_position_is_sha256(key: str | bytes) -> None:
    data = key.encode() if isinstance(key, str) else key
    expected = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    assert Ring(["n1"], replication=1).position(key) == expected


def test_placement_never_changes() -> None:
    """Keys would be lost if another version of dkv placed them elsewhere."""
    plain = Ring(["n1", "n2", "n3", "n4", "n5"], replication=3)
    spread = Ring(
        {
            "a1": {"zone": "east", "host": "a"},
            "a2": {"zone": "east", "host": "a"},
            "b1": {"zone": "east", "host": "b", "weight": 2},
            "c1": {"zone": "west", "token_indices": range(100, 200)},
            "d1": {"token_name": "old-d"},
        },
        replication=4,
    )
    assert [plain.replicas(key) for key in ("a", "b", "c", "key")] == [
        ("n4", "n2", "n1"),
        ("n2", "n5", "n3"),
        ("n5", "n2", "n4"),
        ("n3", "n4", "n5"),
    ]
    assert [spread.replicas(key) for key in ("a", "b", "c", "key")] == [
        ("b1", "d1", "c1", "a1"),
        ("d1", "c1", "a1", "b1"),
        ("a2", "c1", "d1", "b1"),
        ("b1", "d1", "c1", "a2"),
    ]


# ---- properties of one ring ----


@few
@given(rings(), POSITIONS)
def test_lists_follow_the_definition(ring_and_members: Any, positions: list[int]) -> None:
    ring, members = ring_and_members
    reference = Reference(members, ring.replication)
    assert ring.intervals == len(reference.ends)
    for position in around(reference.ends, positions):
        assert ring.list_at(position) == reference.replicas(position)


@few
@given(rings(), st.lists(st.binary(min_size=1, max_size=40), min_size=1))
def test_every_key_has_n_distinct_nodes(ring_and_members: Any, keys: list[bytes]) -> None:
    ring, _ = ring_and_members
    for key in keys:
        replicas = ring.replicas(key)
        assert len(replicas) == len(set(replicas)) == ring.replication
        assert replicas == ring.list_at(ring.position(key))
        assert replicas[0] == ring.owner(key)


@few
@given(rings(nested=True, token_names=False), POSITIONS)
def test_replicas_spread_over_as_many_zones_and_hosts_as_there_are(
    ring_and_members: Any, positions: list[int]
) -> None:
    ring, members = ring_and_members
    by_id = {member.id: member for member in members}
    n_domains = len({domain(member) for member in members})
    n_hosts = len({member.host for member in members})
    for position in around(ring.tokens(members[0].id), positions):
        held = [by_id[node] for node in ring.list_at(position)]
        assert len({domain(member) for member in held}) == min(ring.replication, n_domains)
        assert len({member.host for member in held}) == min(ring.replication, n_hosts)


@few
@given(rings())
def test_tokens_are_sha256_of_name_and_index(ring_and_members: Any) -> None:
    ring, members = ring_and_members
    for member in members:
        assert ring.tokens(member.id) == tuple(sorted(tokens_of(member)))


@few
@given(rings(most=12, few_tokens=True))
def test_shares_are_exact(ring_and_members: Any) -> None:
    ring, members = ring_and_members
    reference = Reference(members, ring.replication)
    assert ring.shares() == reference.shares(1)
    assert ring.replica_shares() == reference.shares(ring.replication)


# ---- properties of changes ----


def covering(changes: list[RingChange], position: int) -> list[RingChange]:
    return [
        change
        for change in changes
        if change.after == change.upto
        or (position - change.after - 1) % CIRCLE < (change.upto - change.after) % CIRCLE
    ]


def assert_exact(old: Ring, new: Ring, positions: list[int]) -> None:
    """Positions with equal lists are in no change, the others in one, with the right lists."""
    changes = old.diff(new)
    ends = sorted({t for ring in (old, new) for node in ring.nodes for t in ring.tokens(node)})
    for position in around(ends, positions):
        before, after = old.list_at(position), new.list_at(position)
        found = [(change.before, change.after_nodes) for change in covering(changes, position)]
        assert found == ([] if before == after else [(before, after)])


def total(changes: list[RingChange]) -> float:
    return sum(change.share for change in changes)


@few
@given(member_lists(most=15), member_lists(most=15), st.data(), POSITIONS)
def test_diff_of_any_two_rings_is_exact(
    old: list[Member], new: list[Member], data: st.DataObject, positions: list[int]
) -> None:
    n_old = data.draw(st.integers(1, min(5, len(old))))
    n_new = data.draw(st.integers(1, min(5, len(new))))
    assert_exact(Ring(old, n_old), Ring(new, n_new), positions)


@few
@given(rings(), member_lists(most=1), POSITIONS)
def test_a_join_changes_only_the_lists_that_the_new_node_enters(
    ring_and_members: Any, joining: list[Member], positions: list[int]
) -> None:
    ring, _ = ring_and_members
    fields = {name: getattr(joining[0], name) for name in ("zone", "weight", "token_indices")}
    bigger = ring.with_node("newcomer", host=joining[0].host, **fields)
    assert_exact(ring, bigger, positions)
    changes = ring.diff(bigger)
    assert all("newcomer" in change.after_nodes for change in changes)
    assert total(changes) == pytest.approx(bigger.replica_shares()["newcomer"])
    owners = [change for change in changes if change.before[0] != change.after_nodes[0]]
    assert all(change.after_nodes[0] == "newcomer" for change in owners)
    assert total(owners) == pytest.approx(bigger.shares()["newcomer"])


@few
@given(rings(nested=True), st.integers(0, 12))
def test_a_join_brings_no_other_node_to_a_key(ring_and_members: Any, host: int) -> None:
    """In a list that the new node enters the others are old acquaintances: no copy but to it."""
    ring, members = ring_and_members
    zone = next((member.zone for member in members if member.host == f"h{host}"), "")
    bigger = ring.with_node("newcomer", host=f"h{host}", zone=zone)
    for change in ring.diff(bigger):
        assert set(change.after_nodes) <= {*change.before, "newcomer"}


@few
@given(rings(), st.data())
def test_a_leave_is_the_mirror_of_a_join(ring_and_members: Any, data: st.DataObject) -> None:
    ring, _ = ring_and_members
    leaving = data.draw(st.sampled_from(ring.nodes))
    if len(ring.nodes) == ring.replication:
        with pytest.raises(dkv.errors.InvalidArgumentError):
            ring.without_node(leaving)
        return
    smaller = ring.without_node(leaving)
    changes = ring.diff(smaller)
    assert all(leaving in change.before for change in changes)
    assert changes == [
        RingChange(change.after, change.upto, change.after_nodes, change.before)
        for change in smaller.diff(ring)
    ]


@pytest.mark.parametrize("n_nodes", [1, 2, 5, 20, 100])
def test_one_of_n_joining_moves_one_nth(n_nodes: int) -> None:
    """With 256 tokens a node's share stays near 1 / n: here within a fifth."""
    ring = Ring(IDS[:n_nodes], replication=1)
    changes = ring.diff(ring.with_node("newcomer"))
    assert total(changes) == pytest.approx(1 / (n_nodes + 1), rel=0.2)


def test_a_change_of_the_whole_circle_has_share_one() -> None:
    changes = Ring(["a"], replication=1).diff(Ring(["b"], replication=1))
    assert [change.share for change in changes] == [1.0]


def test_equal_rings_have_no_difference() -> None:
    assert Ring(IDS[:9]).diff(Ring(reversed(IDS[:9]))) == []


# ---- the class ----


def test_nodes_may_be_given_in_three_ways() -> None:
    ids = Ring(["b", "a"], replication=2)
    assert ids == Ring({"a": {}, "b": {}}, replication=2)
    assert ids == Ring([Member("a"), Member("b", host="b", token_name="b")], replication=2)
    assert ids.nodes == ("a", "b")
    assert [member.id for member in ids.members] == ["a", "b"]


def test_rings_are_values() -> None:
    ring = Ring({"a": {"weight": 2}, "b": {"token_indices": [1, 5]}}, replication=2)
    same = pickle.loads(pickle.dumps(ring))
    assert same == ring and hash(same) == hash(ring) and same.shares() == ring.shares()
    assert ring != Ring({"a": {"weight": 2}, "b": {"token_indices": [1, 6]}}, replication=2)
    assert ring != Ring(ring.members, replication=1)
    assert ring != "ring"
    assert repr(ring) == "Ring(nodes=2, replication=2, intervals=514)"


def test_with_and_without_leave_the_ring_as_it_was() -> None:
    ring = Ring(["a", "b", "c"], replication=2)
    bigger = ring.with_node("d", zone="east", weight=3)
    assert bigger.members[3] == Member("d", zone="east", weight=3)
    assert ring.with_node(Member("d", zone="east", weight=3)) == bigger
    assert bigger.without_node("d") == ring == Ring(["a", "b", "c"], replication=2)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_keys_are_str_or_bytes_like(wrap: Any) -> None:
    ring = Ring(IDS[:7])
    assert ring.replicas(wrap("grün".encode())) == ring.replicas("grün")
    assert ring.position(wrap(b"x" * 1024)) == sha256_position(b"x" * 1024)


@pytest.mark.parametrize(
    ("key", "length"), [("", 0), (b"", 0), (b"x" * 1025, 1025), ("ä" * 513, 1026)]
)
def test_keys_of_a_wrong_length_are_refused(key: str | bytes, length: int) -> None:
    ring = Ring(IDS[:3])
    for ask in (ring.replicas, ring.owner, ring.position):
        with pytest.raises(dkv.errors.InvalidArgumentError) as caught:
            ask(key)
        assert str(caught.value) == f"a key must have 1 to 1,024 bytes, not {length:,}"


def test_keys_that_are_no_bytes_are_refused() -> None:
    ring = Ring(IDS[:3])
    with pytest.raises(dkv.errors.InvalidArgumentError, match="not valid Unicode"):
        ring.replicas("\ud800")
    with pytest.raises(TypeError, match="a key must be str or bytes-like"):
        ring.replicas(5)  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        ring.replicas(memoryview(b"abcd")[::2])


@pytest.mark.parametrize(
    ("nodes", "replication", "sentence"),
    [
        ([], 1, "at least one node"),
        (["a"], 0, "replication must be 1 to 5, not 0"),
        (IDS[:9], 6, "replication must be 1 to 5, not 6"),
        (["a"], -1, "replication must be 1 to 5, not -1"),
        (["a"], 2**70, "replication must be 1 to 5"),
        (["a", "b"], 3, "replication 3 needs at least 3 nodes, not 2"),
        (["a", "b", "a"], 1, "node a is there twice"),
        ([f"n{i}" for i in range(1001)], 1, "at most 1000 nodes"),
        ([""], 1, "a node id must be 1 to 64 characters"),
        (["a b"], 1, "a node id must be"),
        (["a\0"], 1, "must not contain NUL"),
        (["\ud800"], 1, "not valid Unicode"),
        (["a" * 65], 1, "a node id must be"),
        ({"a": {"zone": "ä"}}, 1, "a zone must be"),
        ({"a": {"host": "x" * 65}}, 1, "a host must be"),
        ({"a": {"token_name": "a:1"}}, 1, "a token name must be"),
        ({"a": {"address": "nowhere"}}, 1, "host:port"),
        ({"a": {"weight": 0}}, 1, "weight must be 1 to 16, not 0"),
        ({"a": {"weight": 17}}, 1, "weight must be 1 to 16, not 17"),
        ({"a": {"token_indices": []}}, 1, "token indices must be 1 to 4096 in number"),
        ({"a": {"token_indices": range(4097)}}, 1, "at most 4096 token indices"),
        ({"a": {"token_indices": [2, 1]}}, 1, "ascend"),
        ({"a": {"token_indices": [1, 1]}}, 1, "ascend"),
        ({"a": {"token_indices": [-1]}}, 1, "a token index must be 0 to 4294967295, not -1"),
        ({"a": {"token_indices": [2**32]}}, 1, "a token index must be"),
    ],
)
def test_bad_rings_are_refused_with_the_reason(nodes: Any, replication: int, sentence: str) -> None:
    with pytest.raises(dkv.errors.InvalidArgumentError) as caught:
        Ring(nodes, replication=replication)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "replication"),
    [
        ("n1", 1),
        ([5], 1),
        (["a"], 1.0),
        ({"a": {"weight": 1.5}}, 1),
        ({"a": {"token_indices": ["x"]}}, 1),
        ({"a": {"zome": "typing error"}}, 1),
    ],
)
def test_arguments_of_a_wrong_type_are_refused(nodes: Any, replication: Any) -> None:
    with pytest.raises(TypeError):
        Ring(nodes, replication=replication)


def test_unknown_nodes_and_positions_are_refused() -> None:
    ring = Ring(["a", "b"], replication=1)
    for ask in (ring.tokens, ring.without_node):
        with pytest.raises(dkv.errors.InvalidArgumentError, match="there is no node 'c'"):
            ask("c")
    for position in (-1, CIRCLE):
        with pytest.raises(dkv.errors.InvalidArgumentError, match="a position must be"):
            ring.list_at(position)


def test_modules_loaded_twice_keep_apart() -> None:
    """Each copy of the extension has its own types and state, as subinterpreters need it."""
    spec = importlib.util.spec_from_file_location("dkv._core", _core.__file__)
    assert spec and spec.loader
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    member = ("a", "", "", "", "", 1, None)
    ours, theirs = _core.Ring(1, [member]), copy.Ring(1, [member])
    assert ours.replicas("key") == theirs.replicas("key") == ("a",)
    with pytest.raises(TypeError, match="a ring is compared with a ring"):
        ours.diff(theirs)
    with pytest.raises(dkv.errors.InvalidArgumentError):
        theirs.replicas("")
