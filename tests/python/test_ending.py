"""The end of a Python process that uses dkv, and what becomes of it after fork()."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import dkv

BEGIN = """
import os, socket, sys, threading, time
import dkv

address, directory = sys.argv[1:]

def in_thread(work, daemon):
    thread = threading.Thread(target=work, daemon=daemon)
    thread.start()
    return thread

def make_node():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = f"127.0.0.1:{free.getsockname()[1]}"
    ring = dkv.Ring([dkv.Member("n1", address=own)], replication=1)
    os.makedirs(directory, exist_ok=True)
    return dkv.Node("n1", ring, data=os.path.join(directory, "n1"))
"""

ENDINGS = {
    "an open client": "client = dkv.connect(address); client.put('key', b'')",
    "a client in a cycle": """
client = dkv.connect(address)
cycle = [client]
cycle.append(cycle)
del client, cycle
""",
    "exit inside a with block": """
with dkv.connect(address) as client:
    client.put("key", b"")
    sys.exit(0)
""",
    "a thread that goes on": """
client = dkv.connect(address)
in_thread(lambda: [client.put("key", b"") for _ in range(200)], daemon=False)
""",
    "daemon threads in single calls": """
client = dkv.connect(address)
def work():
    while True:
        client.put("key", b"")
        client.get("key")
for _ in range(4): in_thread(work, daemon=True)
time.sleep(0.1)
""",
    "daemon threads in calls for many keys": """
client = dkv.connect(address)
def work():
    while True:
        client.put_many({f"{i}": b"x" * 100 for i in range(3000)}, timeout=60)
for _ in range(3): in_thread(work, daemon=True)
time.sleep(0.1)
""",
    "daemon threads that connect": """
def work():
    while True:
        dkv.connect(address, timeout=60).put("key", b"", timeout=60)
for _ in range(3): in_thread(work, daemon=True)
time.sleep(0.1)
""",
    "a client closed when Python is nearly gone": """
class Late:
    client = dkv.connect(address)
    def __del__(self):
        self.client.close()
late = Late()
def work():
    while True:
        late.client.get_many(f"{i}" for i in range(3000))
for _ in range(3): in_thread(work, daemon=True)
time.sleep(0.1)
""",
    "an open node": """
node = make_node()
client = dkv.connect(node.address)
client.put("key", b"")
""",
    "a node and its client in a daemon thread": """
started = threading.Event()
def work():
    node = make_node()
    client = dkv.connect(node.address)
    while True:
        client.put_many({f"{i}": b"" for i in range(100)})
        client.put("key", b"")
        started.set()
in_thread(work, daemon=True)
assert started.wait(20)
""",
    "an open cluster that a daemon thread uses": """
cluster = dkv.Cluster(2, 2)
client = cluster.client()
def work():
    while True:
        client.put("key", b"")
in_thread(work, daemon=True)
time.sleep(0.1)
""",
}


def run_python(code: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGIN + code, *args], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("name", ENDINGS)
def test_python_ends_with(name: str, cluster3: dkv.Cluster, tmp_path: Path) -> None:
    """No hang, no crash, not a word."""
    done = run_python(ENDINGS[name], cluster3.address("n1"), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_node_is_stopped_in_order_when_python_ends(tmp_path: Path) -> None:
    """Only such a stop leaves the file of the index behind."""
    ended = run_python("node = make_node()", "", tmp_path / "ended")
    killed = run_python("node = make_node(); os._exit(0)", "", tmp_path / "killed")
    assert (ended.returncode, killed.returncode) == (0, 0)
    files = [{path.name for path in (tmp_path / d / "n1").iterdir()} for d in ("ended", "killed")]
    assert files[0] - files[1] == {"index"}


# ---- fork ----


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_forked_child_has_no_client_and_harms_nobody(
    cluster3: dkv.Cluster, tmp_path: Path
) -> None:
    code = """
client = dkv.connect(address)
client.put("forked", b"1")
stop = threading.Event()
def work():
    while not stop.is_set(): client.get("forked")
threads = [in_thread(work, daemon=True) for _ in range(4)]
for _ in range(10):
    pid = os.fork()
    if pid == 0: break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
if pid == 0:
    calls = [
        lambda: client.get("forked"),
        lambda: client.put("forked", b"2"),
        lambda: client.get_many(["forked"]),
        lambda: client.status(),
        lambda: client.verify(),
        lambda: client.last_seen,
        lambda: dkv.connect(address),
        make_node,
    ]
    for call in calls:
        try:
            call()
        except dkv.errors.PreconditionError as error:
            assert "spawn" in str(error)
        else:
            sys.exit(1)
    client.close()
    del client
    sys.exit(7)
stop.set()
for thread in threads: thread.join()
print(client.get("forked"))
"""
    done = run_python(code, cluster3.address("n1"), tmp_path)
    assert (done.stdout, done.stderr) == ("b'1'\n", "")


def test_a_child_forked_before_the_first_use_may_use_dkv(cluster3: dkv.Cluster) -> None:
    code = """
pid = os.fork()
with dkv.connect(address) as client:
    client.put("fresh", b"1")
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    done = run_python(code, cluster3.address("n1"), "")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_child_leaves_cluster_and_node_to_its_parent(tmp_path: Path) -> None:
    """Not even its end stops them, or removes their files."""
    code = """
with dkv.Cluster(2, 2) as cluster, make_node() as node:
    pid = os.fork()
    if pid == 0:
        calls = [
            lambda: cluster.client(),
            lambda: cluster.kill("n1"),
            lambda: cluster.start("n1"),
            lambda: cluster.wipe("n1"),
        ]
        for call in calls:
            try:
                call()
            except dkv.errors.PreconditionError as error:
                assert "fork" in str(error), error
            else:
                sys.exit(1)
        node.stop()
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    for address in (cluster.address("n1"), node.address):
        with dkv.connect(address) as client:
            client.put("key", b"value")
            print(client.get("key"))
    print(cluster.directory.exists())
"""
    done = run_python(code, "", tmp_path)
    assert (done.stdout, done.stderr) == ("7\nb'value'\nb'value'\nTrue\n", "")


def test_nodes_end_with_their_parent_though_a_forked_child_lives_on(tmp_path: Path) -> None:
    code = """
cluster = dkv.Cluster(2, 2, directory=directory)
if os.fork() == 0:
    sys.stdout.close()
    sys.stderr.close()
    os.close(1)
    os.close(2)
    time.sleep(60)
    os._exit(0)
print(cluster.pid("n1"), flush=True)
os._exit(0)
"""
    done = run_python(code, "", tmp_path)
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
