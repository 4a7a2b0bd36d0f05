"""All replicas become identical by themselves, and the certificate says when. Real processes."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

import dkv


def verify(cluster: dkv.Cluster, *options: str) -> tuple[int, str]:
    """`dkv verify`: its exit status and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "dkv", "verify", "--timeout", "30", *options],
        env=os.environ | {"DKV_CONNECT": ",".join(cluster.addresses.values())},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def put_until_done(client: dkv.Client, items: dict[str, bytes]) -> None:
    """At quorum, again where the outcome of a put is not known."""
    left = items
    while left:
        results = client.put_many(left, write="quorum", errors="return")
        left = {
            key: value
            for (key, value), result in zip(left.items(), results, strict=True)
            if isinstance(result, dkv.Error)
        }


def status_when(client: dkv.Client, node: str, condition) -> dkv.NodeStatus:
    """Its status as soon as it fulfils `condition`."""
    deadline = time.monotonic() + 60
    while True:
        status = client.status()[node]
        if status and condition(status):
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.01)


@pytest.fixture
def cluster(tmp_path):
    with dkv.Cluster(5, 3, directory=tmp_path) as cluster:
        yield cluster


def test_a_cluster_that_was_written_to_is_converged(cluster):
    with cluster.client() as client:
        client.put_many({f"key {i}": b"value" for i in range(1000)})
        client.delete_many([f"key {i}" for i in range(10)])
        certificate = client.verify()
    assert certificate.converged
    assert (certificate.keys, certificate.records, certificate.tombstones) == (990, 1000, 10)
    assert certificate.epoch == 1 and certificate.intervals >= 5 * 256
    assert certificate.unreachable == () and certificate.not_in_sync == {}
    status, said = verify(cluster)
    assert status == 0 and "converged" in said and "990 keys" in said
    status, said = verify(cluster, "--json")
    assert status == 0 and said == json.dumps(certificate.to_dict(), indent=2) + "\n"


def test_with_a_node_down_nobody_can_know(cluster):
    cluster.kill("n4")
    with cluster.client() as client:
        certificate = client.verify(timeout=0.5)
    assert not certificate.converged and certificate.keys is None
    assert certificate.unreachable == ("n4",)
    status, said = verify(cluster)
    assert status == 3 and "no answer: n4" in said


def test_a_node_that_is_back_is_asked(cluster):
    """Although the client has just failed to connect to it, more than once."""
    with cluster.client() as client:
        for _ in range(5):
            cluster.kill("n2")
            for _ in range(3):
                client.put_many(
                    {f"key {i}": b"new" for i in range(300)}, write="quorum", errors="return"
                )
            cluster.start("n2")
            assert client.verify().unreachable == ()


def test_what_a_node_missed_it_gets_without_any_read(cluster):
    with cluster.client() as client:
        client.put_many({f"key {i}": b"old" for i in range(3000)})
        cluster.kill("n2")
        put_until_done(client, {f"key {i}": b"new" for i in range(3000)})
        cluster.start("n2")
        assert client.verify(timeout=60).converged
        missed = sum("n2" in client.ring.replicas(f"key {i}") for i in range(3000))
        status_when(client, "n2", lambda status: status.round_age_ms > 0)
        told = client.status()
        assert told["n2"].heal_fetched + sum(status.heal_sent for status in told.values()) >= missed
        assert client.get_many([f"key {i}" for i in range(3000)]) == [b"new"] * 3000


def test_a_wiped_node_comes_back_complete_and_in_sync(cluster):
    with cluster.client() as client:
        client.put_many({f"key {i}": b"value" for i in range(3000)})
        before = client.status()["n3"]
        cluster.kill("n3")
        cluster.wipe("n3")
        cluster.start("n3")
        assert client.verify(timeout=60).converged
        after = status_when(client, "n3", lambda status: status.in_sync)
        assert after.store_id != before.store_id
        assert after.records == before.records <= after.heal_fetched
        assert after.shares_in_sync == after.shares
        status_when(client, "n3", lambda status: status.round_age_ms > 0)
        assert client.verify().not_in_sync == {}
    status, said = verify(cluster)
    assert status == 0 and "3,000 keys" in said


def test_differences_of_a_moment_are_not_reported(cluster):
    stop = threading.Event()

    def write() -> None:
        with cluster.client() as client:
            while not stop.wait(0.05):  # without a pause some range would differ at all times
                client.put_many({f"key {i}": b"value" for i in range(100)})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with cluster.client() as client:
            for _ in range(5):
                assert client.verify(timeout=30).converged
    finally:
        stop.set()
        writer.join()
