"""A program of a user, with all of dkv's public interface. It is type-checked, and run."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import assert_type

import dkv
from dkv import bench, errors, sim


def read_and_write(client: dkv.Client) -> None:
    assert_type(client.put("key", b"value"), dkv.PutResult)
    assert_type(client.put(b"key", "value", write="quorum", timeout=2), dkv.PutResult)
    client.put(bytearray(b"key"), memoryview(b"value"), write="one")
    assert_type(client.get("key"), bytes)
    assert_type(client.get("absent", None), bytes | None)
    assert_type(client.get("absent", 0, read="all"), bytes | int)
    assert_type("key" in client, bool)
    found = client.get_versioned("key", read="quorum", timeout=1.5)
    assert_type(found, dkv.GetResult)
    value, version, replicas = found
    assert_type(value, bytes)
    assert_type(version, dkv.Version)
    assert_type(replicas, tuple[str, ...])
    assert_type(client.delete("key", write="all"), dkv.PutResult)
    print(found.version.time.isoformat(), found.version > dkv.Version(0, 0), str(version))


def many_keys(client: dkv.Client) -> None:
    assert_type(client.put_many({"a": b"1", "b": b"2"}), list[dkv.PutResult])
    client.put_many({b"a": bytearray(b"1")}, write="quorum", timeout=1)
    client.put_many((f"{i}", b"") for i in range(3))
    assert_type(client.put_many([("a", b"1")], errors="return"), list[dkv.PutResult | dkv.Error])
    assert_type(client.get_many(["a", b"b"]), list[bytes | None])
    for result in client.get_many(["a", ""], read="one", errors="return"):
        if isinstance(result, dkv.Error):
            print(result.code)
        elif result is not None:
            assert_type(result, bytes)
    assert_type(client.delete_many(iter(["a", "b"])), list[dkv.PutResult])
    assert_type(client.delete_many(["c"], errors="return"), list[dkv.PutResult | dkv.Error])


def failures(client: dkv.Client) -> None:
    try:
        client.get("absent")
    except KeyError as error:
        print(error)
    try:
        client.put_many([("", b""), ("key", b"")], timeout=1)
    except errors.InvalidArgumentError as error:
        assert_type(error.outcome, errors.Outcome | None)
        assert_type(error.version, dkv.Version | None)
        assert_type(error.nodes, tuple[str, ...])
        assert_type(error.holding, tuple[str, ...])
        for key, failure in error.failures.items():
            print(key, failure.message, failure.grpc_status)
    except (errors.UnavailableError, errors.TimeoutError, errors.BusyError) as error:
        raise SystemExit(f"{error.code}: {error}") from error


def look_at(client: dkv.Client) -> None:
    assert_type(client.ring, dkv.Ring)
    assert_type(client.nodes, tuple[str, ...])
    assert_type(client.last_seen, dkv.Version)
    for node, status in client.status(timeout=1).items():
        if status is not None:
            assert_type(status, dkv.NodeStatus)
            print(node, status.records, status.in_sync, [peer.reach for peer in status.peers])
            assert_type(status.peers, tuple[dkv.PeerStatus, ...])
    certificate = client.verify(timeout=30)
    assert_type(certificate, dkv.Certificate)
    assert_type(certificate.keys, int | None)
    for difference in certificate.differences:
        assert_type(difference, dkv.Difference)
        print(f"{difference.first:x}", dict(difference.records))


def a_cluster(directory: Path) -> None:
    members = [dkv.Member("a", zone="x"), dkv.Member("b", zone="y", weight=2), dkv.Member("c")]
    durability: dkv.Durability = "interval"
    limits: dkv.Limits = {"requests": 1000}
    with dkv.Cluster(members, 2, durability=durability, interval=0.05, limits=limits):
        pass
    with dkv.Cluster(members, 2, directory=directory, keep=True, name="mine") as cluster:
        assert_type(cluster.nodes, tuple[str, ...])
        assert_type(cluster.addresses, dict[str, str])
        with cluster.client(timeout=10) as client:
            read_and_write(client)
            many_keys(client)
            failures(client)
            look_at(client)
        with dkv.connect(cluster.addresses.values(), timeout=3.5) as client:
            client.put("key", "value")
        node = cluster.ring.owner("key")
        assert_type(cluster.pid(node), int | None)
        cluster.pause(node)
        cluster.resume(node)
        cluster.stop(node)
        cluster.start(node)
        cluster.kill(node)
        assert not cluster.alive(node)
        cluster.wipe(node)
        cluster.start(node)
        cluster.wait_ready(timeout=30)
        assert_type(cluster.status(), dict[str, dkv.NodeStatus | None])
        print(cluster.address(node), len(cluster.logs(node)), cluster.directory)
        load = bench.Workload(size=100, outstanding=8, read_share=0.5, keys=100)
        measured = bench.run(cluster.addresses.values(), load, seconds=0.2, warmup=0)
        assert_type(measured.per_second, float)
        assert_type(measured.reads.quantile_us(0.99), float | None)


def a_node(directory: Path) -> None:
    ring = dkv.Ring([dkv.Member("n1", address="127.0.0.1:1")], replication=1)
    with dkv.Node("n1", ring, data=directory / "n1", listen="127.0.0.1:0") as node:
        assert_type(node.address, str)
        assert_type(node.running, bool)
        assert_type(node.logs(), list[tuple[str, str]])
    node.stop()


def a_ring() -> None:
    ring = dkv.Ring(["n1", "n2", dkv.Member("n3", weight=2)], replication=2)
    assert_type(ring.replicas("key"), tuple[str, ...])
    assert_type(ring.owner(b"key"), str)
    assert_type(ring.position("key"), int)
    assert_type(ring.list_at(0), tuple[str, ...])
    assert_type(ring.tokens("n1"), tuple[int, ...])
    assert_type(ring.shares(), dict[str, float])
    assert_type(ring.replica_shares(), dict[str, float])
    assert_type(ring.members, tuple[dkv.Member, ...])
    print(ring.owners(["a", b"b"]).sum(), ring.replica_table(["a"]).shape, ring.intervals)
    larger = ring.with_node("n4", zone="z").with_node(dkv.Member("n5")).without_node("n1")
    assert_type(larger, dkv.Ring)
    change = ring.what_if(add="n4", remove=["n1"])
    assert_type(change, dkv.WhatIf)
    assert_type(change.per_node, Mapping[str, tuple[float, float]])
    for moved in ring.diff(change.ring)[:1]:
        assert_type(moved, dkv.RingChange)
        print(moved.share, moved.before, moved.after_nodes, ring == larger, hash(ring))


def a_simulated_world() -> None:
    world = sim.World(5, 3, seed=7, latency=(0.001, 0.002), reorder=0.0)
    assert_type(world.put("key", b"value", via="n1"), dkv.PutResult)
    assert_type(world.get("key"), bytes)
    assert_type(world.get_versioned("key", read="all"), dkv.GetResult)
    assert_type(world.delete("key", write="quorum"), dkv.PutResult)
    number = world.submit("get", "key", level="one", timeout=1)
    operation = world.wait(number)
    assert_type(operation, sim.Operation)
    world.partition({"n1"}, {"n2", "n3"}, one_way=True)
    world.heal()
    world.crash("n1")
    world.start("n1")
    world.run(seconds=1)
    assert_type(world.replicas_holding("key"), dict[str, dkv.Version | None])
    assert_type(world.history, Sequence[sim.Operation])
    for entry in world.trace:
        assert_type(entry, sim.TraceEntry)
    run = sim.campaign(1, faults=["crash"])
    assert_type(run.violation, sim.Violation | None)


def main(directory: Path) -> None:
    a_cluster(directory / "cluster")
    a_node(directory)
    a_ring()
    a_simulated_world()
    print(dkv.__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
