"""A node inside the test's own process."""

import socket
from pathlib import Path

import pytest

import dkv
from dkv import errors


@pytest.fixture
def ring() -> dkv.Ring:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return dkv.Ring([dkv.Member("n1", address=address)], replication=1)


def test_a_node_serves_and_keeps_its_data(ring: dkv.Ring, tmp_path: Path) -> None:
    with dkv.Node("n1", ring, data=tmp_path / "n1") as node, dkv.connect(node.address) as client:
        assert node.running
        client.put("key", b"value")
    assert not node.running
    with dkv.Node("n1", ring, data=tmp_path / "n1") as node, dkv.connect(node.address) as client:
        assert client.get("key") == b"value"


def test_a_node_may_be_stopped_twice_or_forgotten(ring: dkv.Ring, tmp_path: Path) -> None:
    node = dkv.Node("n1", ring, data=tmp_path / "n1")
    node.stop()
    node.stop()
    node = dkv.Node("n1", ring, data=tmp_path / "n1")
    del node
    dkv.Node("n1", ring, data=tmp_path / "n1").stop()


def test_a_directory_has_one_user(ring: dkv.Ring, tmp_path: Path) -> None:
    with (
        dkv.Node("n1", ring, data=tmp_path / "n1"),
        pytest.raises(errors.Error, match="n1"),
    ):
        dkv.Node("n1", ring, data=tmp_path / "n1", listen="127.0.0.1:0")


def test_a_node_tells_what_it_does(ring: dkv.Ring, tmp_path: Path) -> None:
    with dkv.Node("n1", ring, data=tmp_path / "n1") as node:
        logs = node.logs()
    assert {level for level, _ in logs} <= {"error", "warning", "info", "debug"}
    assert all(text for _, text in logs)


def test_a_node_by_its_configuration(ring: dkv.Ring, tmp_path: Path) -> None:
    config = {
        "node": "n1",
        "data": "n1",
        "cluster": "test",
        "replication": 1,
        "nodes": {"n1": {"address": ring.members[0].address}},
    }
    with dkv.Node.from_config(config, tmp_path) as node, dkv.connect(node.address) as client:
        assert client.ring == ring
    with pytest.raises(errors.InvalidArgumentError, match="colour"):
        dkv.Node.from_config({**config, "colour": "red"}, tmp_path)
    with pytest.raises(errors.InvalidArgumentError, match="cluster"):
        dkv.Node.from_config({k: v for k, v in config.items() if k != "cluster"}, tmp_path)


def test_a_node_that_is_not_in_the_ring_is_refused(ring: dkv.Ring, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="n2"):
        dkv.Node("n2", ring, data=tmp_path / "n2")
    assert not (tmp_path / "n2").exists()
