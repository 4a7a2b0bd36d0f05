"""The command dkv, run as a person would."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from dkv import node_program

COMMAND = [sys.executable, "-m", "dkv"]


@pytest.fixture
def run(cluster3, tmp_path):
    """Runs `dkv ...` against `cluster3`."""
    env = os.environ | {
        "DKV_CONNECT": ",".join(cluster3.addresses.values()),
        "XDG_STATE_HOME": str(tmp_path),
    }

    def run(*arguments, stdin=b"", stdout=subprocess.PIPE, **changes):
        return subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=env | changes,
            timeout=60,
        )

    return run


def test_put_get_and_delete(run):
    done = run("put", "greeting", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert run("get", "greeting").stdout == b"hello"
    assert run("del", "greeting").returncode == 0
    assert run("get", "greeting").returncode == 1


def test_values_pass_byte_for_byte(run):
    value = bytes(range(256)) * 100 + b"\n\n"
    assert run("put", "bytes", stdin=value).returncode == 0
    assert run("get", "bytes", "--read", "all").stdout == value
    assert run("put", "bytes", "-", "--write", "quorum", stdin=b"").returncode == 0
    assert run("get", "bytes", "--read", "quorum").stdout == b""


def test_a_missing_key_is_one_line_and_status_1(run):
    done = run("get", "nowhere")
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.startswith(b"dkv: ") and done.stderr.count(b"\n") == 1


def test_arguments_outside_the_limits_are_status_2(run):
    for arguments in (("put", "", "x"), ("get", "k" * 1025), ("get",), ("get", "k", "--read", "x")):
        done = run(*arguments)
        assert done.returncode == 2 and done.stderr, arguments
    done = run("put", "large", stdin=bytes(2**20 + 1))
    assert done.returncode == 2 and b"1,048,577 bytes; at most 1,048,576" in done.stderr


def test_an_absent_cluster_is_status_3_and_says_what_to_do(run):
    done = run("get", "x", "--connect", "127.0.0.1:1", "--timeout", "1")
    assert done.returncode == 3
    assert b"127.0.0.1:1" in done.stderr and b"--connect" in done.stderr
    done = run("get", "x", DKV_CONNECT="")
    assert done.returncode == 3 and b"dkv up" in done.stderr
    done = run("get", "x", "--connect", "127.0.0.1:70000")
    assert done.returncode == 2 and b"a port of 1 to 65,535" in done.stderr


def test_a_dead_replica_refuses_puts_with_a_way_out(cluster3, run):
    cluster3.kill("n3")
    try:
        done = run("put", "key", "value")
        while b"--write quorum" not in done.stderr:  # another one may seem dead on a busy machine
            assert done.returncode == 3
            done = run("put", "key", "value")
        assert done.returncode == 3 and b"n3" in done.stderr
        while run("put", "key", "value", "--write", "quorum").returncode:
            pass
        assert run("get", "key").stdout == b"value"
        done = run("status")
        assert done.returncode == 3 and b"n1" in done.stdout
    finally:
        cluster3.start("n3")


def test_status_and_ring_show_every_node(run):
    for command in ("status", "ring"):
        done = run(command)
        assert done.returncode == 0, done.stderr
        for node in (b"n1", b"n2", b"n3"):
            assert node in done.stdout
    assert b"scrubbed" in run("status").stdout
    assert re.fullmatch(rb"some key: (n[123] ?){3}\n", run("ring", "some key").stdout)
    done = run("ring", "some key", "--nodes", "4", DKV_CONNECT="")
    assert done.stdout == b"some key: n4 n3 n1\n"


def test_a_value_may_begin_with_a_dash(run):
    assert run("put", "dashed", "--", "-5").returncode == 0
    assert run("get", "dashed").stdout == b"-5"
    done = run("put", "dashed", "-6")
    assert done.returncode == 2 and b'write "--" before it' in done.stderr


def test_nobody_reading_is_no_error(run):
    run("put", "piped", stdin=bytes(1000))
    for command in (["get", "piped"], ["status"], ["ring", "--nodes", "9"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = run(*command, stdout=writer)
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b""), command


def test_status_explains_what_a_wiped_node_is_until_it_is_filled_again(cluster3, run):
    cluster3.kill("n3")  # a node that is down cannot say what the wiped one lacks
    cluster3.stop("n2")
    cluster3.wipe("n2")
    cluster3.start("n2")
    assert b"not in sync: n2 may lack values" in run("status").stdout
    assert run("verify").returncode == 3
    cluster3.start("n3")
    while b"not in sync" in run("status").stdout:
        time.sleep(0.1)


# ---- dkv up ----


class Up:
    """`dkv up` in a state directory of its own."""

    def __init__(self, state, *arguments):
        self.env = os.environ | {
            "XDG_STATE_HOME": str(state),
            "TMPDIR": str(state),
            "DKV_CONNECT": "",
            "PYTHONUNBUFFERED": "1",
        }
        self.process = subprocess.Popen(
            [*COMMAND, "up", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.env,
            text=True,
        )
        self.text = ""
        self.limit = threading.Timer(60, self.process.kill)  # a test that waits in vain fails
        self.limit.start()
        self.read_until("Ctrl-C stops the cluster.")

    def read_until(self, end):
        """Returns the line with `end` in it."""
        for line in self.process.stdout:
            self.text += line
            if end in line:
                return line
        raise AssertionError(f"dkv up ended without {end!r}:\n{self.text}")

    def column(self, node, number):
        return re.search(rf"^{node} .*$", self.text, re.MULTILINE)[0].split()[number]

    def address(self, node):
        return self.column(node, 1)

    def pid(self, node):
        return int(self.column(node, 2))

    def run(self, *arguments):
        return subprocess.run([*COMMAND, *arguments], env=self.env, capture_output=True, timeout=60)

    def end(self, number=signal.SIGINT):
        self.process.send_signal(number)
        self.text += self.process.stdout.read()
        return self.process.wait(timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.limit.cancel()
        if self.process.poll() is None:
            self.end()


def left_in(state):
    return [path for path in state.rglob("*") if path.is_file()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_up_runs_a_cluster_that_other_commands_find_and_leaves_nothing(tmp_path, number):
    with Up(tmp_path, "--nodes", "1") as up:
        assert "1 copy of each value" in up.text
        assert up.run("put", "key", "value").returncode == 0
        assert up.run("get", "key").stdout == b"value"
        assert up.end(number) == 0
    assert not left_in(tmp_path)
    done = up.run("get", "key")
    assert done.returncode == 3 and b"no cluster is running; start one" in done.stderr


def test_two_clusters_are_told_apart(tmp_path):
    with Up(tmp_path, "--nodes", "1") as first, Up(tmp_path, "--nodes", "1") as second:
        assert f"--connect {first.address('n1')}" in second.text
        done = first.run("get", "key")
        assert done.returncode == 2 and b"2 clusters are running" in done.stderr
        for up in (first, second):
            assert f"--connect {up.address('n1')}".encode() in done.stderr
        assert first.run("put", "key", "1", "--connect", first.address("n1")).returncode == 0
        assert second.end() == 0
        assert first.run("get", "key").stdout == b"1"


def test_a_cluster_that_was_killed_is_noticed(tmp_path):
    with Up(tmp_path, "--nodes", "1") as up:
        up.process.kill()
        up.process.wait()
        done = up.run("status")
        assert done.returncode == 3
        assert f"process {up.process.pid} ended without stopping".encode() in done.stderr
    with Up(tmp_path, "--nodes", "1") as again:
        assert f"(process {up.process.pid}) ended without stopping" in again.text
        assert again.run("status").returncode == 0


def test_up_tells_which_node_ended_and_how_to_bring_it_back(tmp_path):
    with Up(tmp_path, "--nodes", "2") as up:
        os.kill(up.pid("n2"), signal.SIGKILL)
        assert "n2 was killed by SIGKILL" in up.read_until("n2 ")
        command = up.read_until("to start it again:").split(": ")[1]
        program = str(node_program.path())
        node = subprocess.Popen([program, *command.split()[1:]], stderr=subprocess.DEVNULL)
        up.read_until("node n2 is back")
        assert up.run("put", "key", "value").returncode == 0
        node.terminate()
        assert node.wait(20) == 0
        up.read_until("node n2 has ended")
        os.kill(up.pid("n1"), signal.SIGKILL)
        up.read_until("no node is left")
        assert up.process.wait(20) == 5


def test_up_refuses_a_directory_in_use_and_changes_nothing(tmp_path):
    directory = tmp_path / "data"
    with Up(tmp_path, "--nodes", "1", "--directory", str(directory)) as up:
        before = {path: path.read_bytes() for path in directory.iterdir() if path.is_file()}
        done = up.run("up", "--nodes", "1", "--directory", str(directory))
        assert done.returncode == 5 and b"running already" in done.stderr
        assert {path: path.read_bytes() for path in before} == before
        assert up.run("put", "key", "value").returncode == 0
