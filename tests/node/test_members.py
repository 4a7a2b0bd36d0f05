"""dkv-node --members: several nodes of one host under a supervisor."""

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

import dkv
from dkv import node_program

NODES = ("n1", "n2", "n3")


@pytest.fixture
def config(tmp_path, ports):
    """Three nodes on the host m1, two copies of each key, and one node elsewhere."""
    path = tmp_path / "m1.yaml"
    lines = ["cluster: demo", "replication: 2", "node: n1", "data: data", "nodes:"]
    for id, port in zip(NODES, ports, strict=True):
        lines.append(f'  {id}: {{address: "127.0.0.1:{port}", host: m1}}')
    path.write_text("\n".join([*lines, ""]))
    return path


def children(running):
    """The process of each member, by its id, which is the name of its first thread."""
    pids = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in pids}


def start_all(launch, config, *more):
    running = launch("--config", config, "--members", "3", *more)
    running.await_log(*(f"node {id} of cluster demo" for id in NODES))
    return running


def is_gone(pid):
    """Ended, though whoever inherited it may not have taken notice yet."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def test_all_nodes_of_the_host_run_each_with_its_own_directory(launch, config, ports, tmp_path):
    running = start_all(launch, config)
    assert set(children(running)) == set(NODES)
    assert {path.name for path in (tmp_path / "data").iterdir()} == set(NODES)
    with dkv.connect(",".join(f"127.0.0.1:{port}" for port in ports)) as client:
        client.put("key", b"value")
        assert client.get("key") == b"value"
    assert running.stop(signal.SIGTERM) == 0
    assert all(f" {id}: stopped\n" in running.log for id in NODES)


def test_a_killed_member_is_started_again_and_keeps_its_data(launch, config, ports):
    running = start_all(launch, config)
    before = children(running)
    with dkv.connect(",".join(f"127.0.0.1:{port}" for port in ports)) as client:
        client.put_many({f"key{i}": b"value" for i in range(50)})
        os.kill(before["n2"], signal.SIGKILL)
        running.await_log("member n2 was killed by signal 9: it is started again in 1 s")
        running.await_log("(recovered)")
        assert client.get_many([f"key{i}" for i in range(50)]) == [b"value"] * 50
    after = children(running)
    assert after["n2"] != before["n2"]
    assert (after["n1"], after["n3"]) == (before["n1"], before["n3"])
    assert running.stop(signal.SIGINT) == 0


def test_a_member_that_was_stopped_stays_stopped_until_all_are(launch, config):
    running = start_all(launch, config)
    pids = children(running)
    os.kill(pids.pop("n1"), signal.SIGTERM)
    running.await_log("member n1 was stopped: it is not started again")
    assert children(running) == pids
    for pid in pids.values():
        os.kill(pid, signal.SIGTERM)
    assert running.process.wait(60) == 0


def test_members_do_not_outlive_a_supervisor_that_is_killed(launch, config):
    running = start_all(launch, config)
    pids = children(running)
    running.process.kill()
    running.process.wait()
    for pid in pids.values():
        running.await_that(lambda pid=pid: is_gone(pid), f"process {pid} ends")
    assert all(f" {id}: stopped\n" in running.log for id in NODES)  # and they ended in order


def test_what_is_wrong_for_all_members_ends_all_with_status_2(launch, config, tmp_path):
    config.write_text(config.read_text().replace("127.0.0.1", "0.0.0.0"))
    running = launch("--config", config, "--members", "3")
    assert running.process.wait(60) == 2
    assert "--insecure" in running.log
    assert not (tmp_path / "data").exists()


def test_a_second_signal_kills_members_that_do_not_stop(launch, config):
    running = start_all(launch, config)
    pids = children(running)
    os.kill(pids["n2"], signal.SIGSTOP)
    running.process.send_signal(signal.SIGTERM)
    running.await_log(" n1: stopped\n", " n3: stopped\n")
    assert running.process.poll() is None  # it waits for n2

    def ends():
        running.process.send_signal(signal.SIGTERM)
        return running.process.poll() is not None

    running.await_that(ends, "the supervisor ends")
    assert running.process.returncode == 1
    assert "killing the members after a second signal" in running.log
    assert all(is_gone(pid) for pid in pids.values())


def test_the_exit_status_is_the_worst_of_the_members(launch, config, ports):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", ports[1]))
        other.listen()
        running = launch("--config", config, "--members", "3")
        running.await_log(
            "node n1 of cluster", "node n3 of cluster", "member n2 ended with status 5"
        )
        assert running.stop(signal.SIGTERM) == 5


def test_lines_name_their_member_in_json_too(launch, config):
    running = start_all(launch, config, "--log-format", "json")
    os.kill(children(running)["n3"], signal.SIGKILL)
    running.await_log("member_failed")
    lines = [json.loads(line) for line in running.log.splitlines()]
    assert {line["node"] for line in lines if line["event"] == "listening"} == set(NODES)
    failed = next(line for line in lines if line["event"] == "member_failed")
    assert (failed["node"], failed["member"], failed["level"]) == ("supervisor", "n3", "error")


@pytest.mark.parametrize(
    ("arguments", "old", "new", "words"),
    [
        (["2"], "", "", "has 3 nodes with the host m1"),
        (["4"], "", "", "give --members 3"),
        (["3"], ", host: m1}\n  n2", "}\n  n2", "has 1 nodes with the host n1"),
        (["3"], "data: data", "data: data\nlisten: 127.0.0.1:1", "listen cannot be used"),
        (["0"], "", "", "from 1 to 1000"),
        (["x"], "", "", "from 1 to 1000"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(config, arguments, old, new, words):
    config.write_text(config.read_text().replace(old, new, 1))
    command = [node_program.path(), "--config", config, "--members", *arguments, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_store_of_a_single_node_is_not_overlooked(launch, config, tmp_path):
    single = launch("--config", config)
    single.await_log("listening")
    assert single.stop(signal.SIGTERM) == 0
    running = launch("--config", config, "--members", "3")
    assert running.process.wait(60) == 3
    assert "ran without --members" in running.log
    command = [node_program.path(), "--config", config, "--members", "3", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "ran without --members" in done.stderr


def test_check_looks_at_the_directories_of_all_members(launch, config, tmp_path):
    command = [node_program.path(), "--config", config, "--members", "3", "--check"]

    def check():
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    done = check()
    assert done.returncode == 0 and "made by the first start" in done.stdout
    assert not (tmp_path / "data").exists()
    running = start_all(launch, config)
    done = check()
    assert done.returncode == 3
    assert re.findall("data/(n.): .*is this node running already", done.stderr) == list(NODES)
    assert running.stop(signal.SIGTERM) == 0
    done = check()
    assert (done.returncode, done.stderr) == (0, "") and "first start" not in done.stdout
    (tmp_path / "data" / "n1").rename(tmp_path / "data" / "n4")
    (tmp_path / "data" / "n2").rename(tmp_path / "data" / "n1")
    done = check()
    assert done.returncode == 3 and "data/n1: holds the store of another" in done.stderr
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"n1", "n3", "n4"}
