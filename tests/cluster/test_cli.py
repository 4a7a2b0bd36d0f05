"""The command dkv, run as a person would."""

import os
import re
import signal
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "dkv"]


@pytest.fixture
def run(cluster3, tmp_path):
    """Runs `dkv ...` against `cluster3`."""
    env = os.environ | {
        "DKV_CONNECT": ",".join(cluster3.addresses.values()),
        "XDG_STATE_HOME": str(tmp_path),
    }

    def run(*arguments, stdin=b"", **changes):
        return subprocess.run(
            [*COMMAND, *arguments], input=stdin, capture_output=True, env=env | changes, timeout=60
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
    assert done.returncode == 2 and b"dkv up" in done.stderr


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
    assert re.fullmatch(rb"some key: (n[123] ?){3}\n", run("ring", "some key").stdout)
    done = run("ring", "some key", "--nodes", "4", DKV_CONNECT="")
    assert done.stdout == b"some key: n4 n3 n1\n"


def test_up_runs_a_cluster_that_other_commands_find(tmp_path):
    env = os.environ | {"XDG_STATE_HOME": str(tmp_path), "DKV_CONNECT": "", "PYTHONUNBUFFERED": "1"}
    up = subprocess.Popen([*COMMAND, "up", "--nodes", "1"], stdout=subprocess.PIPE, env=env)
    try:
        for line in up.stdout:
            if line.startswith(b"Ctrl-C"):
                break
        subprocess.run([*COMMAND, "put", "key", "value"], env=env, check=True)
        done = subprocess.run([*COMMAND, "get", "key"], env=env, check=True, stdout=subprocess.PIPE)
        assert done.stdout == b"value"
    finally:
        up.send_signal(signal.SIGINT)
        up.stdout.read()
        assert up.wait(timeout=60) == 0
    assert not any(tmp_path.rglob("last-up"))
