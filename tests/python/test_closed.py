"""What is closed says so, whatever is asked of it; and closing it again does nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

import dkv
from dkv import errors

CLIENT_CALLS: dict[str, Callable[[dkv.Client], object]] = {
    "get": lambda client: client.get("key"),
    "get with a default": lambda client: client.get("key", None),
    "get_versioned": lambda client: client.get_versioned("key"),
    "in": lambda client: "key" in client,
    "put": lambda client: client.put("key", b""),
    "delete": lambda client: client.delete("key"),
    "get_many": lambda client: client.get_many(["key"], errors="return"),
    "put_many": lambda client: client.put_many({"key": b""}, errors="return"),
    "delete_many": lambda client: client.delete_many(["key"]),
    "ring": lambda client: client.ring,
    "nodes": lambda client: client.nodes,
    "last_seen": lambda client: client.last_seen,
    "status": lambda client: client.status(),
    "verify": lambda client: client.verify(),
}

CLUSTER_CALLS: dict[str, Callable[[dkv.Cluster], object]] = {
    "client": lambda cluster: cluster.client(),
    "status": lambda cluster: cluster.status(),
    "start": lambda cluster: cluster.start("n1"),
    "stop": lambda cluster: cluster.stop("n1"),
    "kill": lambda cluster: cluster.kill("n1"),
    "pause": lambda cluster: cluster.pause("n1"),
    "resume": lambda cluster: cluster.resume("n1"),
    "wipe": lambda cluster: cluster.wipe("n1"),
    "wait_ready": lambda cluster: cluster.wait_ready(),
}


@pytest.fixture(scope="module")
def closed_client(cluster3: dkv.Cluster) -> dkv.Client:
    client = cluster3.client()
    client.close()
    client.close()
    return client


@pytest.mark.parametrize("call", CLIENT_CALLS.values(), ids=CLIENT_CALLS)
def test_a_closed_client_refuses(
    closed_client: dkv.Client, call: Callable[[dkv.Client], object]
) -> None:
    with pytest.raises(errors.PreconditionError, match="this client is closed"):
        call(closed_client)


@pytest.fixture(scope="module")
def closed_cluster(tmp_path_factory: pytest.TempPathFactory) -> dkv.Cluster:
    cluster = dkv.Cluster(1, 1, directory=tmp_path_factory.mktemp("closed"))
    cluster.close()
    cluster.close()
    return cluster


@pytest.mark.parametrize("call", CLUSTER_CALLS.values(), ids=CLUSTER_CALLS)
def test_a_closed_cluster_refuses(
    closed_cluster: dkv.Cluster, call: Callable[[dkv.Cluster], object]
) -> None:
    with pytest.raises(errors.PreconditionError, match="this cluster is closed"):
        call(closed_cluster)


def test_a_closed_cluster_can_still_be_looked_at(closed_cluster: dkv.Cluster) -> None:
    assert not closed_cluster.alive("n1")
    assert closed_cluster.pid("n1") is None
    assert "stopped" in closed_cluster.logs("n1")
    assert "n1 ended" in repr(closed_cluster)


def test_a_stopped_node_can_still_be_looked_at(tmp_path: Path) -> None:
    ring = dkv.Ring([dkv.Member("n1", address="127.0.0.1:1")], replication=1)
    node = dkv.Node("n1", ring, data=tmp_path / "n1", listen="127.0.0.1:0")
    node.stop()
    node.stop()
    assert not node.running
    assert node.address.startswith("127.0.0.1:")
    assert node.logs()[-1] == ("info", "stopped")
