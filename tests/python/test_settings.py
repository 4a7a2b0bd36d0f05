"""Durability and limits of nodes: what is possible, and that it reaches them."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

import dkv
from dkv import errors, node_program, settings

CONFIGURATION = """\
cluster: test
replication: 1
node: n1
data: n1
nodes: {n1: {address: "127.0.0.1:7001"}}
"""


@pytest.fixture
def ring() -> dkv.Ring:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return dkv.Ring([dkv.Member("n1", address=address)], replication=1)


def test_durability_reaches_the_nodes_of_a_cluster(tmp_path: Path) -> None:
    with dkv.Cluster(1, 1, directory=tmp_path, durability="interval", interval=0.25) as cluster:
        assert "interval 250 ms" in cluster.logs("n1")
    with dkv.Cluster(1, 1, durability="memory") as cluster:
        with cluster.client() as client:
            client.put("key", b"value")
        cluster.stop("n1")
        cluster.start("n1")
        with cluster.client() as client, pytest.raises(errors.NotFoundError):
            client.get("key")


def test_durability_reaches_a_node_of_this_process(ring: dkv.Ring, tmp_path: Path) -> None:
    data = tmp_path / "n1"
    with dkv.Node("n1", ring, data=data, durability="interval", interval=1) as node:
        assert any("interval 1000 ms" in text for _, text in node.logs())


def test_limits_reach_the_nodes(ring: dkv.Ring, tmp_path: Path) -> None:
    limits: dkv.Limits = {"requests": 16, "segment": 4 << 20}
    with dkv.Cluster(1, 1, limits=limits) as cluster, cluster.client() as client:
        assert '"segment": 4194304' in cluster.configuration("n1").read_text()
        client.put("key", b"value")
    with (
        dkv.Node("n1", ring, data=tmp_path / "n1", limits=limits) as node,
        dkv.connect(node.address) as client,
    ):
        client.put_many({f"{i}": bytes(1 << 20) for i in range(10)})
        files = [file.stat().st_size for file in (tmp_path / "n1").iterdir()]
        assert sum(files) > 10 << 20 and max(files) < 6 << 20


def test_a_configuration_may_have_them(ring: dkv.Ring, tmp_path: Path) -> None:
    config = {
        "node": "n1",
        "data": "n1",
        "cluster": "test",
        "replication": 1,
        "nodes": {"n1": {"address": ring.members[0].address}},
        "durability": {"interval": 50},
        "limits": {"segment": "4 MiB", "requests": 100},
    }
    with dkv.Node.from_config(config, tmp_path) as node:
        assert any("interval 50 ms" in text for _, text in node.logs())
    for key, value in (("durability", "sometimes"), ("limits", {"segment": "4 MB"})):
        with pytest.raises((errors.InvalidArgumentError, TypeError), match=key[:5]):
            dkv.Node.from_config({**config, key: value}, tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"durability": "sometimes"}, "durability is .* not 'sometimes'"),
        ({"durability": "interval", "interval": 0}, "0.001 to 60 seconds, not 0"),
        ({"durability": "interval", "interval": 61}, "0.001 to 60 seconds, not 61"),
        ({"limits": {"request": 100}}, "no limit 'request', only requests, "),
        ({"limits": {"requests": 15}}, "requests must be 16 to 65,536, not 15"),
        ({"limits": {"segment": 1 << 31}}, "segment must be 4,194,304 to 1,073,741,824, not "),
    ],
)
def test_what_is_not_possible_is_refused(
    ring: dkv.Ring, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=says):
        dkv.Cluster(1, 1, directory=tmp_path / "cluster", **options)
    with pytest.raises(errors.InvalidArgumentError, match=says):
        dkv.Node("n1", ring, data=tmp_path / "n1", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["64 MiB", 64.0, True, None])
def test_a_limit_is_a_whole_number(value: Any) -> None:
    with pytest.raises(TypeError, match="limit segment must be a whole number"):
        dkv.Cluster(1, 1, limits={"segment": value})


@pytest.mark.parametrize("name", settings.RANGES)
def test_the_program_allows_the_same(tmp_path: Path, name: str) -> None:
    """The ranges are those of dkv-node, to the last number."""
    least, greatest = settings.RANGES[name]
    for value in (least - 1, least, greatest, greatest + 1):
        file = tmp_path / "dkv.yaml"
        file.write_text(f"{CONFIGURATION}limits: {{{name}: {value}}}\n")
        done = subprocess.run([node_program.path(), "--config", file, "--check"])
        assert (done.returncode == 0) == (least <= value <= greatest), (name, value)


def test_the_program_allows_the_same_intervals(tmp_path: Path) -> None:
    for value in (0, 1, 60_000, 60_001):
        file = tmp_path / "dkv.yaml"
        file.write_text(f"{CONFIGURATION}durability: {{interval: {value}}}\n")
        done = subprocess.run([node_program.path(), "--config", file, "--check"])
        assert (done.returncode == 0) == (1 <= value <= settings.INTERVAL_MAX_S * 1000)
