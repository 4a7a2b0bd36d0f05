"""dkv.Cluster: real processes that start, break, come back and go."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dkv
from dkv import node_program
from dkv.errors import InvalidArgumentError, LockedError, PreconditionError, UnavailableError


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def wait_until(condition, what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {seconds} s"
        time.sleep(0.01)


def test_nodes_are_real_processes_and_end_with_the_cluster():
    with dkv.Cluster(2, 2) as cluster:
        pids = [cluster.pid(node) for node in cluster.nodes]
        directory = cluster.directory
        for pid in pids:
            assert "dkv-node" in Path(f"/proc/{pid}/cmdline").read_text()
    assert all(gone(pid) for pid in pids)
    assert not directory.exists()


def test_a_killed_node_comes_back_on_its_port_with_its_data(tmp_path):
    with dkv.Cluster(3, 3, directory=tmp_path) as cluster, cluster.client() as client:
        client.put("key", b"value")
        address = cluster.address("n2")
        cluster.kill("n2")
        assert not cluster.alive("n2")
        cluster.start("n2")
        assert cluster.address("n2") == address
        assert client.get("key", read="all") == b"value"


def test_a_client_outlives_the_connections_of_all_nodes():
    with dkv.Cluster(3, 3) as cluster, cluster.client() as client:
        client.put_many({f"key{i}": b"value" for i in range(50)})
        for end in (cluster.stop, cluster.kill):
            for node in cluster.nodes:
                end(node)
            for node in cluster.nodes:
                cluster.start(node)
            cluster.wait_ready()
            assert client.get("key0") == b"value"
            client.put("key0", b"value")


def test_a_start_need_not_wait_until_the_node_is_in_touch():
    with dkv.Cluster(2, 2) as cluster:
        cluster.kill("n2")
        cluster.configuration("n2").write_text("no configuration")
        cluster.start("n2", wait=False)
        wait_until(lambda: cluster.exit_status("n2") == 2, "n2 has ended by itself")
        with pytest.raises(UnavailableError, match="n2 did not start"):
            cluster.start("n2")


def test_the_port_of_a_dead_node_is_refused_and_not_given_away():
    with dkv.Cluster(1, 1) as cluster:
        cluster.kill("n1")
        host, port = cluster.address("n1").split(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((host, int(port)))


def test_a_directory_keeps_the_data_for_the_next_cluster(tmp_path):
    for _ in range(2):
        with dkv.Cluster(3, 2, directory=tmp_path) as cluster, cluster.client() as client:
            client.put("kept", (client.get("kept") if _ else b"") + b"x")
    with dkv.Cluster(3, 2, directory=tmp_path) as cluster, cluster.client() as client:
        assert client.get("kept") == b"xx"


def test_a_directory_keeps_the_ports_where_they_are_free(tmp_path):
    with dkv.Cluster(2, 2, directory=tmp_path) as cluster:
        first = cluster.addresses
    with dkv.Cluster(2, 2, directory=tmp_path) as cluster:
        assert cluster.addresses == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(first["n1"].split(":")[1])))
        other.listen()
        with dkv.Cluster(2, 2, directory=tmp_path) as cluster:
            assert cluster.address("n1") != first["n1"]
            assert cluster.address("n2") == first["n2"]


def contents(directory: Path) -> dict[Path, bytes]:
    """Of all files but logs, which grow by themselves."""
    files = (path for path in directory.iterdir() if path.is_file() and path.suffix != ".log")
    return {path: path.read_bytes() for path in files}


def test_a_directory_in_use_is_refused_and_nothing_in_it_changed(tmp_path):
    with dkv.Cluster(1, 1, directory=tmp_path) as cluster:
        before = contents(tmp_path)
        with pytest.raises(LockedError, match=f"running already in {tmp_path}"):
            dkv.Cluster(1, 1, directory=tmp_path)
        assert contents(tmp_path) == before
        assert cluster.alive("n1")
    dkv.Cluster(1, 1, directory=tmp_path).close()


def test_a_node_that_somebody_else_has_started_is_left_alone(tmp_path):
    cluster = dkv.Cluster(1, 1, directory=tmp_path)
    configuration = cluster.configuration("n1")
    cluster.close()
    before = contents(tmp_path)
    node = subprocess.Popen([node_program.path(), "--config", configuration], stderr=-1, text=True)
    try:
        while "listening" not in node.stderr.readline():
            assert node.poll() is None
        with pytest.raises(LockedError, match="a node is running already"):
            dkv.Cluster(1, 1, directory=tmp_path)
        assert contents(tmp_path) | before == contents(tmp_path)
    finally:
        node.terminate()
        node.communicate(timeout=20)


def test_a_bad_directory_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "cluster.json").write_text("{")
    for directory in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nowhere"):
        with pytest.raises(InvalidArgumentError, match=f"directory {directory} cannot be used: "):
            dkv.Cluster(1, 1, directory=directory)
    with pytest.raises(PreconditionError, match="does not describe a cluster"):
        dkv.Cluster(1, 1, directory=tmp_path)


def test_how_a_node_ended_is_known(tmp_path):
    with dkv.Cluster(2, 2, directory=tmp_path) as cluster:
        assert cluster.exit_status("n1") is None
        os.kill(cluster.pid("n1"), signal.SIGABRT)
        wait_until(lambda: not cluster.alive("n1"), "n1 should end")
        assert cluster.exit_status("n1") == -signal.SIGABRT
        assert repr(cluster) == f"<dkv.Cluster in {tmp_path}: n1 ended, n2 runs>"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_script_that_is_told_to_end_leaves_nothing(tmp_path, number):
    script = "import dkv, time; c = dkv.Cluster(2, 2); print('ready', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    assert list(tmp_path.iterdir())
    process.send_signal(number)
    assert process.wait(20) != 0
    assert not list(tmp_path.iterdir())


def test_signals_are_the_programs_own_again_when_the_last_cluster_is_closed():
    with dkv.Cluster(1, 1), dkv.Cluster(1, 1):
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_directory_is_refused_to_a_cluster_of_other_nodes(tmp_path):
    dkv.Cluster(3, 3, directory=tmp_path).close()
    for nodes, replication in ((4, 3), (3, 2), ({"n1": {"weight": 2}, "n2": {}, "n3": {}}, 3)):
        with pytest.raises(PreconditionError, match="other nodes or another replication"):
            dkv.Cluster(nodes, replication, directory=tmp_path)


def test_a_wiped_node_has_lost_its_data(tmp_path):
    with dkv.Cluster(3, 3, directory=tmp_path) as cluster, cluster.client() as client:
        client.put("key", b"value")
        cluster.stop("n1")
        assert any((tmp_path / "n1").iterdir())
        cluster.wipe("n1")
        assert not (tmp_path / "n1").exists()
        cluster.start("n1")
        assert client.get("key") == b"value"


def test_a_paused_node_is_passed_over_by_reads():
    with dkv.Cluster(3, 3) as cluster, cluster.client() as client:
        client.put("key", b"value")
        owner = cluster.ring.owner("key")
        cluster.pause(owner)
        assert client.get("key") == b"value"
        cluster.resume(owner)
        assert client.get("key", read="all") == b"value"


def test_a_node_that_stalls_is_not_waited_for_longer_than_it_usually_takes():
    with dkv.Cluster(3, 3) as cluster, cluster.client() as client:
        client.put("key", b"value")
        for _ in range(1000):
            client.get("key")
        owner = cluster.ring.owner("key")
        before = client.stats()
        for _ in range(20):  # mostly once is enough
            cluster.pause(owner)
            assert client.get("key") == b"value"
            cluster.resume(owner)
            for _ in range(20):
                client.get("key")
            after = client.stats()
            if after.hedged > before.hedged:
                break
        assert after.hedged > before.hedged
        assert after.hedged - before.hedged <= (after.reads - before.reads) / 20 + 10


def test_nodes_die_with_the_process_that_started_them():
    script = "import dkv, os, time; c = dkv.Cluster(2, 2); print(*(c.pid(n) for n in c.nodes), "
    script += "c.directory, flush=True); c.pause('n1'); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    *pids, _ = done.stdout.split()
    for pid in pids:
        wait_until(lambda pid=pid: gone(int(pid)), f"process {pid} should end")


def test_a_node_that_cannot_start_is_reported_with_its_last_words(tmp_path):
    (tmp_path / "n2").write_text("a file where the data directory belongs")
    with pytest.raises(UnavailableError, match="n2 did not start") as caught:
        dkv.Cluster(3, 3, directory=tmp_path)
    assert caught.value.nodes == ("n2",)
    assert str(tmp_path / "n2") in str(caught.value)


def test_a_node_that_has_ended_is_told_of_while_others_are_still_starting(monkeypatch, tmp_path):
    program = tmp_path / "dkv-node"
    program.write_text("#!/bin/sh\ncase $2 in */n2.yaml) echo gone; exit 3;; esac\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("DKV_NODE", str(program))
    with pytest.raises(UnavailableError, match=r"n2 did not start.*\ngone") as caught:
        dkv.Cluster(3, 3)
    assert caught.value.nodes == ("n2",)


def test_a_taken_port_is_reported():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"port {port} cannot be used"):
            dkv.Cluster(1, 1, port=port)


def test_requests_that_make_no_sense_say_so(cluster3):
    for call in (cluster3.kill, cluster3.start, cluster3.logs, cluster3.address):
        with pytest.raises(InvalidArgumentError, match="no node 'n9'"):
            call("n9")
    with pytest.raises(PreconditionError, match="running already"):
        cluster3.start("n1")
    with pytest.raises(PreconditionError, match="kill or stop it first"):
        cluster3.wipe("n1")
    with pytest.raises(InvalidArgumentError):
        dkv.Cluster(2, replication=3)
    with pytest.raises(InvalidArgumentError, match="tokens"):
        dkv.Cluster([dkv.Member("n1", token_name="n0")], 1)


def test_every_node_tells_its_status(cluster3):
    status = cluster3.status()
    assert sorted(status) == ["n1", "n2", "n3"]
    assert all(status.values())


def test_zones_and_weights_reach_the_nodes():
    nodes = {"a": {"zone": "east", "weight": 2}, "b": {"zone": "east"}, "c": {"zone": "west"}}
    with dkv.Cluster(nodes, replication=2) as cluster, cluster.client() as client:
        assert client.ring == cluster.ring


def test_the_program_can_be_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DKV_NODE", str(tmp_path / "nowhere"))
    with pytest.raises(PreconditionError, match="build it with: make"):
        dkv.Cluster(1, 1)
