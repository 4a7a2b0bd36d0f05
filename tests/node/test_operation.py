"""What an operator reads and does: the log, maps that differ, limits, starts that fail."""

import json
import os
import re
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import PATIENCE_S

import dkv
from dkv import errors, node_program


def configure(directory, node, nodes, *more, cluster="demo", replication=1):
    """Writes the configuration of `node`; `nodes` are ids with their fields."""
    path = directory / f"{node}.yaml"
    listed = "\n".join(f"  {id}: {fields}" for id, fields in nodes.items())
    text = f"cluster: {cluster}\nreplication: {replication}\nnode: {node}\ndata: {node}-data\n"
    path.write_text("\n".join([f"{text}nodes:\n{listed}", *more, ""]))
    return path


def address(port, rest=""):
    return f'{{address: "127.0.0.1:{port}"{rest}}}'


def meet(launch, first, second):
    """Starts two nodes, and makes the first ask the second for a key."""
    a, b = launch("--config", first), launch("--config", second)
    a.await_log("listening")
    b.await_log("listening")
    return a, b


# ---- nodes that do not belong together ----


@pytest.mark.parametrize(
    ("first", "second", "options", "at_first", "at_second"),
    [
        (
            "",
            "",
            {"replication": 2},
            "it has replication 2, ours 1",
            "it has replication 1, ours 2",
        ),
        ("", ", weight: 2", {}, "other ids, hosts, zones or weights", "other ids, hosts, zones"),
        (
            "",
            "",
            {"cluster": "prod"},
            "it is of cluster prod, this node of demo",
            "of cluster demo",
        ),
    ],
)
def test_nodes_whose_maps_differ_say_so_at_both_ends(
    launch, tmp_path, ports, first, second, options, at_first, at_second
):
    def nodes(rest):
        return {"n1": address(ports[0]), "n2": address(ports[1], rest)}

    a, b = meet(
        launch,
        configure(tmp_path, "n1", nodes(first)),
        configure(tmp_path, "n2", nodes(second), **options),
    )
    assert "node n2 cannot be used" in a.await_log(at_first)
    assert "node n1 cannot be used" in b.await_log(at_second)
    for log in (a.log, b.log):
        assert "configuration files" in log
        assert log.count("cannot be used") == 1
    assert (a.stop(signal.SIGTERM), b.stop(signal.SIGTERM)) == (0, 0)


def test_a_write_that_needs_a_node_with_another_map_says_so(launch, tmp_path, ports):
    def nodes(rest):
        return {"n1": address(ports[0]), "n2": address(ports[1], rest)}

    first = configure(tmp_path, "n1", nodes(""), replication=2)
    meet(launch, first, configure(tmp_path, "n2", nodes(", weight: 2"), replication=2))
    words = r"n\d \(configured differently, see the log\)"
    with (
        dkv.connect(f"127.0.0.1:{ports[0]}") as client,
        pytest.raises(errors.UnavailableError, match=words),
    ):
        client.put("key", b"value")


def test_a_node_that_is_not_in_the_map_is_refused_by_name(launch, tmp_path, ports):
    two = {"n1": address(ports[0]), "n2": address(ports[1])}
    three = {**two, "n3": address(ports[2])}
    a, b = meet(launch, configure(tmp_path, "n1", two), configure(tmp_path, "n3", three))
    a.await_log("node n3 was refused: it is not in this node's cluster map, which has 2 nodes")
    b.await_log("node n1 cannot be used", "it has 2 nodes, ours 3")


def test_another_node_at_a_peers_address_is_named(launch, tmp_path, ports):
    right = {"n1": address(ports[0]), "n2": address(ports[1]), "n3": address(ports[2])}
    mixed_up = {"n1": address(ports[0]), "n2": address(ports[2]), "n3": address(ports[1])}
    a, _ = meet(launch, configure(tmp_path, "n1", mixed_up), configure(tmp_path, "n2", right))
    a.await_log(f"node n3 cannot be used: at its address, 127.0.0.1:{ports[1]}, node n2 answers")


# ---- the log ----


def test_json_lines_have_time_level_node_event_and_fields(launch, tmp_path, ports):
    config = configure(tmp_path, "n1", {"n1": address(ports[0])})
    running = launch("--config", config, "--log-format", "json")
    running.await_log("listening")
    assert running.stop(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in running.log.splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("error", "warn", "info", "debug")
        assert (line["node"], bool(line["message"])) == ("n1", True)
    events = [line["event"] for line in lines]
    assert events[0] == "listening" and events[-2:] == ["stopping", "stopped"]
    assert lines[0]["address"] == f"127.0.0.1:{ports[0]}"
    assert (lines[0]["records"], lines[0]["start"]) == (0, "new")


def test_a_directory_with_odd_bytes_keeps_the_log_readable(launch, tmp_path, ports):
    config = tmp_path / "n1.yaml"
    config.write_text(
        f'cluster: demo\nreplication: 1\nnode: n1\ndata: "no/\\"\\\\\\n\\e[1mdir"\n'
        f"nodes: {{n1: {address(ports[0])}}}\n"
    )
    running = launch("--config", config, "--log-format", "json")
    assert running.process.wait(60) == 2
    line = json.loads(running.log)
    assert line["event"] == "start_failed" and 'no/"\\??[1mdir' in line["message"]


# ---- signals ----


def test_a_closed_terminal_stops_a_node_in_order(launch, tmp_path, ports):
    running = launch("--config", configure(tmp_path, "n1", {"n1": address(ports[0])}))
    running.await_log("listening")
    assert running.stop(signal.SIGHUP) == 0
    assert running.log.endswith(" n1: stopped\n")


def test_nohup_keeps_a_node_running(launch, tmp_path, ports):
    running = launch(
        *("--config", configure(tmp_path, "n1", {"n1": address(ports[0])})),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    running.await_log("listening")
    running.process.send_signal(signal.SIGHUP)
    with dkv.connect(f"127.0.0.1:{ports[0]}") as client:
        client.put("key", b"value")
    assert running.stop(signal.SIGTERM) == 0


def test_a_repeated_signal_is_taken_as_one(launch, tmp_path, ports):
    running = launch("--config", configure(tmp_path, "n1", {"n1": address(ports[0])}))
    running.await_log("listening")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        if running.process.poll() is None:
            running.process.send_signal(number)
    assert running.process.wait(60) == 0
    assert running.log.endswith(" n1: stopped\n")


# ---- one file for all machines ----


def test_node_on_the_command_line_stands_for_the_key(launch, tmp_path, ports):
    config = configure(tmp_path, "n1", {"n1": address(ports[0]), "n2": address(ports[1])})
    config.write_text(config.read_text().replace("node: n1\n", ""))
    command = [node_program.path(), "--config", config, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "the key node is missing" in done.stderr
    done = subprocess.run([*command, "--node", "n7"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and '--node: "n7" is not one of the nodes' in done.stderr
    running = launch("--config", config, "--node", "n2")
    running.await_log(f"listening on 127.0.0.1:{ports[1]}, node n2")


# ---- limits and durability ----


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("durability: always", "durability always"),
        ("durability: memory", "durability memory"),
        ("durability: {interval: 50}", "durability interval 50 ms"),
    ],
)
def test_durability_is_said_at_the_start(launch, tmp_path, ports, line, said):
    running = launch("--config", configure(tmp_path, "n1", {"n1": address(ports[0])}, line))
    running.await_log(said)
    with dkv.connect(f"127.0.0.1:{ports[0]}") as client:
        client.put("key", b"value")
        assert client.get("key") == b"value"
    assert running.stop(signal.SIGTERM) == 0


def test_requests_above_the_limit_are_busy(launch, tmp_path, ports):
    """Sixteen writes wait for a replica that is stopped, until their node is killed; all that come
    meanwhile are refused at once."""
    nodes = {f"n{i}": address(ports[i - 1]) for i in (1, 2)}
    more = ("limits: {requests: 16}", "timing: {silence_ms: 600000}")
    n1, n2 = meet(launch, *(configure(tmp_path, n, nodes, *more, replication=2) for n in nodes))
    ring = dkv.Ring(list(nodes), replication=2)
    keys = [key for key in (f"key{i}" for i in range(256)) if ring.owner(key) == "n1"]

    def all_are_under_way():
        status = client.status(timeout=1)["n1"]
        return status is not None and status.requests == 16

    with (
        dkv.connect(f"127.0.0.1:{ports[0]}", timeout=PATIENCE_S) as client,
        ThreadPoolExecutor() as pool,
    ):
        client.put(keys[0], b"the nodes know each other")
        os.kill(n2.pid, signal.SIGSTOP)
        waiting = pool.submit(client.put_many, dict.fromkeys(keys[:16], b"v"), errors="return")
        n1.await_that(all_are_under_way, "16 requests under way")
        refused = client.put_many(dict.fromkeys(keys[16:64], b"v"), errors="return")
        n1.close()
        assert [type(error) for error in waiting.result()] == [errors.UnavailableError] * 16
    assert [type(error) for error in refused] == [errors.BusyError] * 48


# ---- starts that fail leave nothing behind ----


def fail(config):
    done = subprocess.run(
        [node_program.path(), "--config", config], capture_output=True, text=True, timeout=60
    )
    assert done.stderr.count("\n") == 1
    return done.returncode, done.stderr


def test_an_address_in_use_leaves_no_directory(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        status, said = fail(configure(tmp_path, "n1", {"n1": address(port)}))
    assert status == 5
    assert f"127.0.0.1:{port}: cannot listen there: Address already in use" in said
    assert "stop it, or give this node another address" in said
    assert {path.name for path in tmp_path.iterdir()} == {"n1.yaml"}


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("192.0.2.1:7001", "not an address of this machine"),
        ("nowhere.invalid:7001", "the name cannot be resolved"),
    ],
)
def test_an_address_of_somebody_else_is_explained(tmp_path, ports, listen, words):
    config = configure(tmp_path, "n1", {"n1": address(ports[0])}, f"listen: {listen}")
    done = subprocess.run(
        [node_program.path(), "--config", config, "--insecure"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 5 and listen in done.stderr and words in done.stderr
    assert not (tmp_path / "n1-data").exists()


def test_a_bad_data_directory_is_a_sentence(tmp_path, ports):
    config = configure(tmp_path, "n1", {"n1": address(ports[0])})
    (tmp_path / "n1-data").write_text("a file")
    status, said = fail(config)
    assert status == 2 and "is a file and no directory" in said and "n1-data" in said
    config.write_text(config.read_text().replace("n1-data", "absent/data"))
    status, said = fail(config)
    assert status == 2 and "its parent directory does not exist, make that first" in said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make what the node may not read")
def test_a_directory_of_another_user_is_a_sentence(tmp_path, ports):
    config = configure(tmp_path, "n1", {"n1": address(ports[0])})
    (tmp_path / "n1-data").mkdir(mode=0o700)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory.stat().st_mode & 0o001 == 0:
            directory.chmod(directory.stat().st_mode | 0o011)
    config.chmod(0o644)
    for arguments in (), ("--check",):
        done = subprocess.run(
            [node_program.path(), "--config", config, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            user=65534,
        )
        assert done.returncode == 2
        assert "it must belong to the user that runs the node" in done.stderr
