"""dkv.certificate, with nodes that answer as the test wants."""

import itertools
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from dkv import cli
from dkv.certificate import Certificate, Difference, Held, Holding, certify
from dkv.errors import PreconditionError

LOW, HIGH = (0, 99), (100, 2**64 - 1)


def holding(*held: tuple[int, int], **changes: int) -> Holding:
    """Of the two ranges above, number and digest of each."""
    ranges = {
        one: Held(records, (digest, 0), True)
        for one, (records, digest) in zip((LOW, HIGH), held, strict=True)
    }
    facts = {"epoch": 4, "map_digest": 7, "tombstones": 1, "scrubbed_ms": 5000} | changes
    return Holding(**facts, ranges=ranges)


def asked(**answers: Holding | list[Holding | None] | None) -> Certificate:
    """The certificate of nodes that give these answers; the last of several again and again."""
    left = {
        node: itertools.chain(told, itertools.repeat(told[-1]))
        if isinstance(told, list)
        else itertools.repeat(told)
        for node, told in answers.items()
    }
    return certify(
        lambda nodes, _: {node: next(left[node]) for node in nodes}, left, len(left), 0.1
    )


def test_equal_replicas_are_converged():
    same = holding((3, 1), (5, 2))
    certificate = asked(n1=same, n2=same)
    assert certificate.converged
    assert (certificate.epoch, certificate.intervals) == (4, 2)
    assert (certificate.records, certificate.tombstones, certificate.keys) == (8, 1, 7)


def test_another_digest_is_a_difference_also_with_as_many_records():
    certificate = asked(n1=holding((3, 1), (5, 2)), n2=holding((3, 1), (5, 9)))
    assert not certificate.converged and certificate.keys is None
    assert certificate.differences == (Difference(*HIGH, {"n1": 5, "n2": 5}),)


def test_a_range_that_was_equal_once_is_not_asked_for_again():
    old, both = holding((3, 1), (5, 2)), holding((4, 8), (6, 9))
    half = holding((4, 8), (5, 2))
    turns = asked(n1=[old, half, both], n2=[both, both, holding((7, 7), (6, 9))])
    assert turns.converged and turns.records == 10


def test_a_silent_node_leaves_it_unknown():
    certificate = asked(n1=holding((3, 1), (5, 2)), n2=None)
    assert not certificate.converged and certificate.differences == ()
    assert certificate.unreachable == ("n2",) and certificate.tombstones is None
    nobody = asked(n1=None, n2=None)
    assert not nobody.converged and nobody.intervals == 0


def test_a_range_that_a_node_does_not_know_is_a_difference():
    lacking = Holding(
        epoch=4,
        map_digest=7,
        tombstones=0,
        scrubbed_ms=0,
        ranges={LOW: Held(3, (1, 0), True)},
    )
    assert asked(n1=holding((3, 1), (5, 2)), n2=lacking).differences == (
        Difference(*HIGH, {"n1": 5}),
    )


@pytest.mark.parametrize("change", [{"epoch": 5}, {"map_digest": 8}])
def test_nodes_with_different_maps_are_an_error_that_names_them(change):
    with pytest.raises(PreconditionError, match=r"n1: epoch 4, .*; n2: epoch"):
        asked(n1=holding((3, 1), (5, 2)), n2=holding((3, 1), (5, 2), **change))


def test_the_oldest_scrub_counts_and_never_is_the_oldest():
    first, second = (holding((3, 1), (5, 2), scrubbed_ms=ms) for ms in (9000, 5000))
    assert asked(n1=first, n2=second).scrubbed == datetime.fromtimestamp(5, UTC)
    assert asked(n1=first, n2=holding((3, 1), (5, 2), scrubbed_ms=0)).scrubbed is None


def test_a_store_that_is_not_believed_is_named():
    same = holding((3, 1), (5, 2))
    unsure = holding((3, 1), (5, 2))
    unsure.ranges[HIGH] = unsure.ranges[HIGH]._replace(in_sync=False)
    certificate = asked(n1=same, n2=unsure)
    assert certificate.converged and certificate.not_in_sync == {"n2": 1}


class FakeClient:
    """Has one certificate to give."""

    def __init__(self, certificate):
        self.certificate = certificate

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def verify(self, timeout):
        return self.certificate


def test_replicas_that_differ_are_shown_and_end_with_1(monkeypatch):
    found = asked(n1=holding((3, 1), (5, 2)), n2=holding((3, 1), (1234, 9)))
    monkeypatch.setattr(cli, "connected", lambda *_: FakeClient(found))
    done = CliRunner().invoke(cli.main, ["verify"])
    assert done.exit_code == 1
    assert "not converged: replicas of 1 of 2 token ranges" in done.output
    assert "0000000000000064 to ffffffffffffffff, records: n1 5, n2 1,234" in done.output
    assert "since Thu Jan  1 00:00:05 1970 UTC" in done.output
