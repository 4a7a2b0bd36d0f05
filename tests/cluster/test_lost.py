"""A node whose disk is gone for good, and what its cluster is told of that. Real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dkv
from dkv import errors


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dkv.Cluster]:
    with dkv.Cluster(3, 3, directory=tmp_path) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: dkv.Cluster) -> Iterator[dkv.Client]:
    with cluster.client() as client:
        yield client


def command(cluster: dkv.Cluster, *arguments: str) -> tuple[int, str]:
    """`dkv ...`: its exit status and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "dkv", *arguments],
        env=os.environ | {"DKV_CONNECT": ",".join(cluster.addresses.values())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def wait_for(client: dkv.Client, node: str, condition: Callable[[dkv.NodeStatus], bool]) -> None:
    deadline = time.monotonic() + 60
    while True:
        status = client.status()[node]
        if status and condition(status):
            return
        assert time.monotonic() < deadline, status
        time.sleep(0.02)


def get(cluster: dkv.Cluster, key: str) -> bytes:
    """With a client that has seen nobody die."""
    with cluster.client() as client:
        return client.get(key)


def lose_two(cluster: dkv.Cluster, client: dkv.Client) -> None:
    """n3 is gone for good, and n2 has lost its disk, is filled by n1 and waits for n3."""
    client.put_many({f"key {i}": b"value" for i in range(100)})
    cluster.kill("n3")
    cluster.kill("n2")
    cluster.wipe("n2")
    cluster.start("n2")
    wait_for(client, "n2", lambda n2: n2.records == 100 and n2.heal_sessions == 0)


def test_a_replaced_node_is_believed_when_the_missing_one_is_declared_lost(cluster, client):
    lose_two(cluster, client)
    cluster.kill("n1")
    with pytest.raises(errors.UnavailableError):
        get(cluster, "nothing")
    cluster.start("n1")
    said = client.declare_lost("n3")
    assert said == {"n1": None, "n2": None}
    wait_for(client, "n2", lambda n2: n2.in_sync)
    cluster.kill("n1")
    with pytest.raises(errors.NotFoundError):
        get(cluster, "nothing")
    assert get(cluster, "key 7") == b"value"
    cluster.kill("n2")
    cluster.start("n2")  # it is on its disk
    with pytest.raises(errors.NotFoundError):
        get(cluster, "nothing")
    cluster.start("n1")
    cluster.wipe("n3")
    cluster.start("n3")  # with a new disk
    wait_for(client, "n3", lambda n3: n3.in_sync and n3.records == 100)
    assert client.verify(timeout=30).converged


def test_the_shell_asks_twice_and_says_who_was_not_told(cluster, client):
    lose_two(cluster, client)
    status, said = command(cluster, "status")
    assert status == 3 and "dkv declare-lost n3" in said
    status, said = command(cluster, "declare-lost", "n3")
    assert status == 2 and "given up" in said and "--yes" in said
    assert not any(peer.declared_lost for peer in client.status()["n2"].peers)
    status, said = command(cluster, "declare-lost", "n3", "--yes")
    assert status == 0 and said == "n3 is declared lost, and n1, n2 will not wait for its data\n"
    status, said = command(cluster, "status")
    assert status == 3 and said.count("n3 (declared lost)") == 2 and "not in sync" not in said
    status, said = command(cluster, "verify")
    assert status == 3 and "no answer: n3" in said and "no difference found" in said
    cluster.kill("n1")
    status, said = command(cluster, "declare-lost", "n3", "--yes")
    assert status == 3 and "n2 will not wait" in said and "n1 was not told" in said


def test_a_node_that_answers_is_not_lost(cluster, client):
    with pytest.raises(errors.PreconditionError, match="n2 answers"):
        client.declare_lost("n2")
    with pytest.raises(errors.InvalidArgumentError, match="n1, n2, n3"):
        client.declare_lost("n9")
    status, said = command(cluster, "declare-lost", "n2", "--yes")
    assert status == 5 and "stop it first" in said
    assert not any(peer.declared_lost for peer in client.status()["n1"].peers)


def test_data_that_comes_back_is_merged(cluster, client):
    cluster.kill("n1")
    cluster.kill("n2")
    client.put("key", b"on n3 alone", write="one")
    cluster.kill("n3")
    cluster.start("n1")
    cluster.start("n2")
    assert client.declare_lost("n3") == {"n1": None, "n2": None}
    with pytest.raises(errors.NotFoundError):
        get(cluster, "key")
    cluster.start("n3")
    deadline = time.monotonic() + 60
    while "an operator has declared this store lost" not in cluster.logs("n3"):
        assert time.monotonic() < deadline, cluster.logs("n3")
        time.sleep(0.02)
    wait_for(client, "n3", lambda n3: n3.in_sync)
    assert client.verify(timeout=30).converged
    cluster.kill("n3")
    assert get(cluster, "key") == b"on n3 alone"
