"""Many nodes on one machine: memory and connections stay small, and nothing is refused.

A quick form runs always; `DKV_HUNDRED=1 pytest tests/cluster/test_hundred_nodes.py` runs a hundred
nodes and 10,000 keys. How much CPU an idle node takes is for `tests/bench/idle_nodes.py` to tell.
"""

import os
import time
from pathlib import Path

import dkv

NODES, KEYS = (100, 10_000) if os.environ.get("DKV_HUNDRED") else (24, 1_000)
PSS_MAX_KB = 30 * 1024
OWN_FDS_MAX = 16  # a node without connections: log, data, listening socket, gRPC's own


def _pss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError("no Pss in smaps_rollup")


def _fds(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def test_many_nodes_meet_and_serve() -> None:
    """All stores become in sync over links that are closed again; all keys are stored and read."""
    values = {f"key{i}": b"%d" % i * 20 for i in range(KEYS)}
    with dkv.Cluster(nodes=NODES, replication=3) as cluster:
        pids = [pid for node in cluster.nodes if (pid := cluster.pid(node))]
        assert len(pids) == NODES
        deadline = time.monotonic() + 30
        while max(map(_fds, pids)) > OWN_FDS_MAX:
            assert time.monotonic() < deadline, "links of the founding are open"
            time.sleep(0.1)
        with cluster.client(timeout=60) as client:
            assert all(status and status.in_sync for status in client.status().values())
            client.put_many(values)
            assert client.get_many(list(values)) == list(values.values())
            # A link each way to every other node, and the client's.
            assert max(map(_fds, pids)) <= OWN_FDS_MAX + 2 * NODES + 4
            assert max(map(_pss_kb, pids)) <= PSS_MAX_KB
