"""Ctrl-C ends every call that waits, within moments, and leaves things in order."""

import os
import subprocess
import sys
import threading
from itertools import takewhile
from pathlib import Path

import dkv

# Each call would wait for a minute. The whole is given less, so one that is deaf is noticed.
MOMENTS_S = 50

BEGIN = """
import os, signal, sys, threading, time
import dkv
from dkv import bench

def interrupt(is_time):
    time.sleep(0.2)
    while not is_time(): time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

def interrupted(call, is_time):
    timer = threading.Thread(target=interrupt, args=[is_time])
    timer.start()
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        timer.join()
    return False

def report(name, call, is_time=lambda: True):
    print(name, interrupted(call, is_time), flush=True)
"""

CALLS = """
client = dkv.connect(sys.argv[1], timeout=60)
client.put("key", b"value")
print("ready", flush=True)
sys.stdin.readline()
many = [f"{i}" for i in range(3000)]
report("get", lambda: client.get("key"))
report("get_versioned", lambda: client.get_versioned("key"))
report("in", lambda: "key" in client)
report("put", lambda: client.put("other", b""))
report("delete", lambda: client.delete("other"))
report("get_many", lambda: client.get_many(many))
report("put_many", lambda: client.put_many(dict.fromkeys(many, b"")))
report("delete_many", lambda: client.delete_many(many))
report("status", lambda: client.status(timeout=60))
report("verify", lambda: client.verify(timeout=60))
report("connect", lambda: dkv.connect(sys.argv[1], timeout=60))
report("bench", lambda: bench.run([sys.argv[1]], bench.Workload(timeout=60), seconds=60))
print("done", flush=True)
sys.stdin.readline()
print(client.get("key"), flush=True)
"""


def python(code: str, *args: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + code, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | environment,
        text=True,
        bufsize=1,
    )


def test_calls_of_a_client_end(cluster3: dkv.Cluster) -> None:
    """Of one whose nodes do not answer; it works again as soon as they do."""
    child = python(CALLS, cluster3.address("n1"))
    assert child.stdin and child.stdout
    assert child.stdout.readline() == "ready\n"
    for node in cluster3.nodes:
        cluster3.pause(node)
    alarm = threading.Timer(MOMENTS_S, child.kill)
    alarm.start()
    try:
        child.stdin.write("\n")
        answers = dict(
            line.split() for line in takewhile(lambda line: line != "done\n", child.stdout)
        )
    finally:
        alarm.cancel()
        for node in cluster3.nodes:
            cluster3.resume(node)
    child.stdin.write("\n")
    assert child.stdout.readline() == "b'value'\n"
    assert child.wait(MOMENTS_S) == 0
    assert len(answers) == 12 and set(answers.values()) == {"True"}, answers


def test_the_simulator_ends() -> None:
    child = python("report('run', lambda: dkv.sim.World(5, seed=1).run(seconds=1e6))")
    assert child.communicate(timeout=MOMENTS_S)[0] == "run True\n"


def test_a_node_that_cannot_open_its_data_ends(tmp_path: Path) -> None:
    """The kernel makes it wait for whoever has a lease on a file, here for 45 seconds."""
    child = python(
        "ring = dkv.Ring([dkv.Member('n1', address='127.0.0.1:1')], 1)\n"
        "start = lambda: dkv.Node('n1', ring, data=sys.argv[1], listen='127.0.0.1:0')\n"
        "start().stop()\n"
        "import fcntl\n"
        "signal.signal(signal.SIGIO, signal.SIG_IGN)\n"
        "leased = open(sys.argv[1] + '/meta', 'rb+')\n"
        "fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "report('start', start)\n"
        "fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_UNLCK)",
        tmp_path / "n1",
    )
    assert child.communicate(timeout=40)[0] == "start True\n"


def test_starting_a_cluster_ends_and_leaves_nothing_behind(tmp_path: Path) -> None:
    program = tmp_path / "never-listens"
    program.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec sleep 60\n")
    program.chmod(0o755)
    (tmp_path / "pids").touch()
    (tmp_path / "tmp").mkdir()
    child = python(
        "has_started = lambda: len(open(sys.argv[1]).readlines()) == 2\n"
        "report('start', lambda: dkv.Cluster(2, 2), has_started)",
        tmp_path / "pids",
        DKV_NODE=str(program),
        TMPDIR=str(tmp_path / "tmp"),
    )
    assert child.communicate(timeout=MOMENTS_S)[0] == "start True\n"
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not list((tmp_path / "tmp").iterdir())
