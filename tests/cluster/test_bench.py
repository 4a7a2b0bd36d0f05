"""dkv bench: the load on real nodes, and what it reports."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

import dkv
from dkv import bench


def run(*arguments, timeout=60):
    return subprocess.run(
        [sys.executable, "-m", "dkv", "bench", *arguments], capture_output=True, timeout=timeout
    )


def seeds(cluster):
    return ",".join(cluster.addresses.values())


def test_json_adds_up_and_every_reply_is_right(cluster3):
    done = run(
        *("--connect", seeds(cluster3), "--json", "--seconds", "0.5", "--warmup", "0.1"),
        *("--keys", "500", "--size", "1KiB", "--outstanding", "32", "--read-share", "0.5"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    result = json.loads(done.stdout)
    assert result["errors"] == {}
    reads, writes = result["reads"], result["writes"]
    assert reads["count"] > 0 and writes["count"] > 0
    assert reads["count"] + writes["count"] == result["operations"]
    assert result["operations_per_s"] == pytest.approx(result["operations"] / result["seconds"])
    for times in (reads, writes):
        assert 0 < times["p50_us"] <= times["p99_us"] <= times["p999_us"] <= times["max_us"]
    cpu = result["cpu_us_per_operation"]
    assert cpu["client"] > 0 and cpu["total"] == pytest.approx(cpu["client"] + cpu["nodes"])
    assert result["workload"]["size"] == 1024 and result["workload"]["keys"] == 500


def test_every_key_is_written_and_begins_with_itself(cluster3):
    bench.run(cluster3.addresses.values(), bench.Workload(size=40, keys=300), seconds=0.1, warmup=0)
    with cluster3.client() as client:
        keys = [f"bench:{i:08}".encode() for i in range(300)]
        values = client.get_many(keys)
    for key, value in zip(keys, values, strict=True):
        assert len(value) == 40 and value.startswith(key)


@pytest.mark.parametrize(("threads", "processes", "outstanding"), [(8, 1, 1), (3, 2, 1), (1, 2, 4)])
def test_threads_and_processes_are_counted_together(cluster3, threads, processes, outstanding):
    load = bench.Workload(
        size=10, threads=threads, processes=processes, keys=100, outstanding=outstanding
    )
    told = []
    result = bench.run(
        seeds(cluster3), load, seconds=0.5, warmup=0.5, progress=lambda *what: told.append(what)
    )
    assert result.operations == result.writes.count > 0 and result.reads.count == 0
    assert not result.errors
    phases = [phase for phase, _, _ in told]
    assert phases.count("measuring") > 1 and "warming up" in phases
    assert all(0 <= share <= 1 for _, share, _ in told)


def test_a_workload_by_name_on_a_cluster_of_its_own():
    done = run("--nodes", "1", "--workload", "ycsb-b", "--seconds", "0.3", "--warmup", "0")
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode()
    assert "gets" in out and "puts" in out and "operations per second" in out


def test_failed_operations_are_counted_and_told():
    load = bench.Workload(size=10, keys=100, outstanding=4)
    with dkv.Cluster(3) as cluster:

        def kill_one(phase, share, done):
            if phase == "measuring" and cluster.alive("n2"):
                cluster.kill("n2")

        result = bench.run(seeds(cluster), load, seconds=0.5, warmup=0.1, progress=kill_one)
        assert result.errors and set(result.errors) <= {"UNAVAILABLE", "DEADLINE"}
        assert result.nodes_cpu_s is None and result.cpu_us is None
        done = run("--connect", cluster.address("n1"), "--seconds", "0.1")
        assert done.returncode == 3 and b"n2" in done.stderr


def test_bad_arguments_are_refused():
    for arguments in (
        ("--size", "2MiB"),
        ("--size", "1x"),
        ("--outstanding", "0"),
        ("--threads", "0"),
        ("--threads", "2", "--outstanding", "2"),
        ("--processes", "1000"),
        ("--keys", "0"),
        ("--read-share", "1.5"),
        ("--nodes", "3", "--connect", "127.0.0.1:1"),
    ):
        done = run("--nodes", "1", *arguments)
        assert done.returncode == 2 and done.stderr, arguments


@pytest.mark.parametrize("option", [("--read-share", "0.9"), ("--distribution", "uniform")])
def test_a_workload_by_name_leaves_nothing_to_say(option):
    done = run("--nodes", "1", "--workload", "ycsb-a", *option)
    assert done.returncode == 2
    assert b"--workload stands for --read-share and --distribution" in done.stderr


def test_processes_are_found_by_where_they_listen(cluster3):
    pids = {cluster3.pid(node) for node in cluster3.nodes}
    assert set(bench.local_pids(cluster3.addresses.values())) == pids
    assert bench.cpu_seconds(sorted(pids)) > 0
    assert bench.local_pids(["127.0.0.1:1"]) is None
    assert bench.local_pids(["192.0.2.1:7001"]) is None
    assert bench.cpu_seconds([os.getpid(), 2**22 + 1]) is None


def test_quantiles_agree_with_counting():
    latencies = bench.Latencies(Counter({1000: 50, 3000: 49, 9000: 1}))
    assert latencies.count == 100
    assert [latencies.quantile_us(share) for share in (0.5, 0.51, 0.99, 1)] == [1, 3, 3, 9]
    assert bench.Latencies(Counter()).to_dict() == {
        "count": 0, "p50_us": None, "p99_us": None, "p999_us": None, "max_us": None
    }  # fmt: skip
