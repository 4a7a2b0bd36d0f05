"""The account that the chaos test keeps of what its clients were promised."""

import types

import pytest
from chaos import faults, load

from dkv.errors import NotFoundError, UnavailableError
from dkv.version import Version

KEY = load.key_of(0, 0)
FIRST = load.Confirmed(b"first", Version(1, 1), ("n1", "n2"))


class Client:
    """Finds nothing, and deletes as it is told."""

    def __init__(self, end_deletion):
        self.end_deletion = end_deletion

    def delete(self, key, **options):
        return self.end_deletion()

    def get_versioned(self, key, **options):
        raise NotFoundError(key)


def load_of(end_deletion):
    client = Client(end_deletion)
    return load.Load({"c1": client}, faults.Troubles(), confirmed={KEY: FIRST}), client


def failed(outcome):
    error = UnavailableError("")
    error.outcome = outcome
    raise error


def test_a_quorum_read_may_find_nothing_while_a_deletion_is_under_way():
    def deleted():
        load.read_quorum(account, client, KEY)
        return types.SimpleNamespace(version=Version(2, 1), replicas=("n1", "n2"))

    account, client = load_of(deleted)
    load.write(account, 0, 0, None)
    assert not account.wrong


@pytest.mark.parametrize("outcome, is_wrong", [("unknown", False), ("not applied", True)])
def test_a_quorum_read_that_finds_nothing_is_judged_by_how_a_deletion_has_ended(outcome, is_wrong):
    account, client = load_of(lambda: failed(outcome))
    load.write(account, 0, 0, None)
    load.read_quorum(account, client, KEY)
    assert bool(account.wrong) == is_wrong
