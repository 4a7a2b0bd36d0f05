"""What nodes without work cost: python tests/bench/idle_nodes.py [--nodes 100] [--seconds 60]

Prints for a new cluster, and again after 10,000 puts and gets and the time after which unused links
are closed, the memory (PSS), file descriptors and CPU time of its nodes.
"""

import argparse
import os
import time
from pathlib import Path

import dkv

IDLE_LINKS_S = 65
TICKS = os.sysconf("SC_CLK_TCK")


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _look(title: str, pids: list[int], seconds: float) -> None:
    before = [_cpu_s(pid) for pid in pids]
    time.sleep(seconds)
    shares = [100 * (_cpu_s(pid) - was) / seconds for pid, was in zip(pids, before, strict=True)]
    fds = [sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()) for pid in pids]
    print(
        f"{title}: at most {max(map(_pss_mb, pids)):.1f} MB and {max(fds)} descriptors a node, "
        f"{sum(shares) / len(shares):.2f} % of a core on average, {max(shares):.2f} % at most"
    )


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    began = time.monotonic()
    with dkv.Cluster(nodes=options.nodes, replication=3) as cluster:
        print(f"{options.nodes} nodes started in {time.monotonic() - began:.1f} s")
        pids = [pid for node in cluster.nodes if (pid := cluster.pid(node))]
        _look("new", pids, options.seconds)
        values = {f"key{i}": bytes(100) for i in range(10_000)}
        with cluster.client(timeout=60) as client:
            began = time.monotonic()
            client.put_many(values)
            print(f"10,000 puts in {time.monotonic() - began:.1f} s")
            began = time.monotonic()
            client.get_many(list(values))
            print(f"10,000 gets in {time.monotonic() - began:.1f} s")
        time.sleep(IDLE_LINKS_S)
        _look("at rest again", pids, options.seconds)
        began = time.monotonic()
    print(f"stopped in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
