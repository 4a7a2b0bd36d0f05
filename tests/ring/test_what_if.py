"""What a change of the nodes would do, against the rings before and after, list by list."""

import pickle
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dkv
from dkv import Member, Ring

CIRCLE = 2**64
few = settings(max_examples=60, deadline=None)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Ring, list[Member], list[str]]:
    """A ring of few tokens, nodes to add, nodes to remove."""
    zones = st.sampled_from(["", "east", "west"])
    indices = st.lists(st.integers(0, 40), min_size=1, max_size=9, unique=True).map(sorted)

    def member(node: str) -> Member:
        return Member(node, zone=draw(zones), token_indices=draw(indices))

    before = [member(f"n{i}") for i in range(draw(st.integers(1, 8)))]
    replication = draw(st.integers(1, min(4, len(before))))
    added = [member(f"x{i}") for i in range(draw(st.integers(0, 3)))]
    spare = len(before) + len(added) - replication
    ids = st.sampled_from([m.id for m in before])
    removed = draw(st.lists(ids, unique=True, max_size=min(spare, len(before))))
    return Ring(before, replication), added, removed


def replicas_that_move(old: Ring, new: Ring) -> Fraction:
    """The definition: over all stretches between tokens of either ring, who newly holds them."""
    ends = sorted({t for ring in (old, new) for node in ring.nodes for t in ring.tokens(node)})
    moved = 0
    for after, upto in zip([ends[-1] - CIRCLE, *ends], ends, strict=False):
        moved += (upto - after) * len({*new.list_at(upto)} - {*old.list_at(upto)})
    return Fraction(moved, CIRCLE * new.replication)


@few
@given(changes())
def test_moved_and_minimum_follow_their_definitions(change: Any) -> None:
    ring, added, removed = change
    answer = ring.what_if(add=added, remove=removed)
    rest = [member for member in ring.members if member.id not in removed]
    assert answer.ring == Ring([*rest, *added], ring.replication)
    assert answer.moved == float(replicas_that_move(ring, answer.ring))
    before, after = ring.replica_shares(), answer.ring.replica_shares()
    assert answer.per_node == {
        node: (before.get(node, 0.0), after.get(node, 0.0)) for node in {**before, **after}
    }
    gains = sum(max(0, now - then) for then, now in answer.per_node.values())
    assert answer.minimum == pytest.approx(gains / ring.replication)
    assert answer.minimum <= answer.moved


@few
@given(st.integers(1, 12), st.integers(1, 5))
def test_without_zones_a_join_moves_only_what_it_must(n: int, replication: int) -> None:
    ring = Ring([f"n{i}" for i in range(n)], min(n, replication))
    answer = ring.what_if(add="newcomer")
    assert answer.moved == answer.minimum
    assert answer.moved == pytest.approx(answer.per_node["newcomer"][1] / ring.replication)
    back = answer.ring.what_if(remove="newcomer")
    assert back.ring == ring and back.moved == back.minimum == answer.moved


def test_a_successor_inherits_exactly_its_predecessors_keys() -> None:
    ring = Ring(["n1", "n2", "n3", "n4"], replication=2)
    answer = ring.what_if(add=Member("n5", token_name="n3"), remove="n3")
    share = ring.replica_shares()["n3"]
    assert answer.per_node["n5"] == (0.0, share) and answer.per_node["n3"] == (share, 0.0)
    assert answer.moved == answer.minimum == pytest.approx(share / 2)


def test_nothing_changes_when_nothing_is_added_or_removed() -> None:
    ring = Ring(["n1", "n2"], replication=1)
    assert (ring.what_if().ring, ring.what_if().moved, ring.what_if().minimum) == (ring, 0, 0)


def test_nodes_may_be_given_one_or_several() -> None:
    ring = Ring(["a", "b", "c"], replication=1)
    one = ring.what_if(add="d", remove="a")
    assert one == ring.what_if(add=["d"], remove=["a"]) == ring.what_if(add={"d": {}}, remove={"a"})
    assert one == ring.what_if(add=Member("d"), remove=iter("a"))
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.ring.nodes == ("b", "c", "d")


def test_impossible_changes_are_refused() -> None:
    ring = Ring(["a", "b", "c"], replication=2)
    for arguments, sentence in [
        ({"remove": "x"}, "there is no node 'x'"),
        ({"add": "a"}, "node a is there twice"),
        ({"remove": ["a", "b"]}, "replication 2 needs at least 2 nodes, not 1"),
    ]:
        with pytest.raises(dkv.errors.InvalidArgumentError, match=sentence):
            ring.what_if(**arguments)  # type: ignore[arg-type]


def test_of_many_nodes_those_that_change_most_are_shown() -> None:
    ring = Ring([f"n{i}" for i in range(40)])
    lines = repr(ring.what_if(add="newcomer", remove="n7")).splitlines()
    assert len(lines) == 22
    assert {line.split()[0] for line in lines[1:3]} == {"newcomer", "n7"}
    assert lines[-1] == "  and 21 nodes whose shares change less"
