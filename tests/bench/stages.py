"""`make bench-stages`: where the CPU time of a put and of a get goes, by stage.

    python tests/bench/stages.py [--outstanding 64] [--size 1000] [--seconds 5]

Three nodes and a client work as in `dkv bench`, while Linux's perf samples the instruction that
each of these processes executes (event cpu-clock, 2,000 times a second). A sample belongs to the
stage of its function: in the kernel by the system call that it serves, else by the library or the
folder of csrc/ that holds the function. A stage's share of the samples, times the CPU time of an
operation that the kernel has accounted, is what the table shows. Needs the right to use perf.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

import dkv
from dkv import bench

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = ROOT / "build" / "release"
FREQUENCY = 1999

# The first pattern that occurs in a kernel stack decides.
KERNEL = (
    ("page faults", "asm_exc_page_fault"),
    ("sync", "sys_fdatasync|sys_fsync"),
    ("log append", "sys_pwrite|sys_ftruncate|sys_unlink|sys_openat"),
    ("log read", "preadv|sys_pread"),
    ("kernel: TCP send", "sys_sendmsg|sys_sendto"),
    ("kernel: TCP receive", "sys_recvmsg|sys_recvfrom"),
    ("kernel: wait and wake", "sys_epoll_wait|sys_futex|sys_write|sys_read|schedule"),
)
# By the function's library.
LIBRARIES = (
    ("gRPC", "libgrpc|libgpr|libabsl|libaddress|libupb|libstdc"),
    ("encode, decode", "libprotobuf-c"),
    ("hash of the key", "libcrypto"),
)
# By its name: XXH3 is compiled into csrc/base, and what follows is in no folder of csrc/.
CHECKSUM = "^XXH"
NAMES = (
    ("gRPC", "^(grpc_|gpr_|absl::|std::|upb_|tcp_|tcp|combiner|pollset|cq_|call_)|::"),
    ("encode, decode", "^protobuf_c|_pack$|_unpack$|required_field|parse_|scan_"),
    ("memory", "malloc|calloc|realloc|^_*free|^cfree|unlink_chunk|mem(cpy|move|set|cmp)|munmap"),
)
CLONE = r"\.(constprop|part|isra|cold).*"  # what a compiler adds to a name
FOLDERS = {
    "wire": "encode, decode",
    "gen": "encode, decode",
    "store": "index and log",
    "node": "step",
    "replica": "step",
    "member": "step",
    "model": "step",
    "ring": "step",
    "base": "step",
    "rpc": "rpc and host",
    "host": "rpc and host",
    "client": "client",
    "py": "client",
}


def folders_of_functions():
    """Function to the folder of csrc/ that holds it."""
    found = {}
    for path in OBJECTS.rglob("*.o"):
        done = subprocess.run(
            ["nm", "--defined-only", path], capture_output=True, text=True, check=True
        )
        for line in done.stdout.splitlines():
            _, kind, name = line.split()[-3:]
            if kind in "tT":
                found.setdefault(re.sub(CLONE, "", name), path.parent.name)
    return found


def stage_of(frames, functions):
    """The stage of one sample: `frames` are (function, library), innermost first."""
    name, library = frames[0]
    if "kernel" in library or "vmlinux" in library or library == "[unknown]":
        stack = " ".join(frame for frame, _ in frames)
        return next((stage for stage, what in KERNEL if re.search(what, stack)), "kernel: other")
    for stage, what in LIBRARIES:
        if re.search(what, library):
            return stage
    if re.search(CHECKSUM, name):
        return "checksum"
    folder = functions.get(re.sub(CLONE, "", name))
    if folder in FOLDERS:
        return FOLDERS[folder]
    for stage, what in NAMES:
        if re.search(what, name):
            return stage
    return "other"


def stages(data, functions):
    """Samples by (process id, stage)."""
    script = subprocess.run(
        ["perf", "script", "-i", data, "-F", "pid,ip,sym,dso"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = Counter()
    for sample in script.stdout.split("\n\n"):
        lines = sample.strip().splitlines()
        if len(lines) < 2:
            continue
        frames = []
        for line in lines[1:]:
            _, name, library = re.fullmatch(r"\s*(\S+)\s+(.*?)\s+\((.*)\)", line).groups()
            frames.append((name, library))
        found[int(lines[0].split()[0]), stage_of(frames, functions)] += 1
    return found


def sample(addresses, workload, seconds, functions):
    """Runs a load: its result, and for client and nodes the samples by stage."""
    with ThreadPoolExecutor(1) as executor, tempfile.TemporaryDirectory() as scratch:
        running = executor.submit(bench.run, addresses, workload, seconds=seconds + 1)
        nodes = bench.local_pids(addresses)
        time.sleep(2)  # the keys are written, and the load warms up
        data = Path(scratch) / "perf.data"
        pids = ",".join(map(str, [*nodes, os.getpid()]))
        command = ["perf", "record", "-q", "-F", str(FREQUENCY), "-e", "cpu-clock", "-g"]
        command += ["-o", data, "-p", pids, "--", "sleep", str(seconds - 1)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        result = running.result()
        client, servers = Counter(), Counter()
        for (pid, stage), count in stages(data, functions).items():
            (servers if pid in nodes else client)[stage] += count
    return result, client, servers


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--outstanding", type=int, default=64)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    functions = folders_of_functions()
    columns = {}
    with dkv.Cluster(3) as cluster:
        addresses = list(cluster.addresses.values())
        for op, share in (("put", 0.0), ("get", 1.0)):
            workload = bench.Workload(
                size=arguments.size, outstanding=arguments.outstanding, read_share=share, keys=1000
            )
            result, client, servers = sample(addresses, workload, arguments.seconds, functions)
            for who, counts, cpu_s in (
                ("client", client, result.client_cpu_s),
                ("nodes", servers, result.nodes_cpu_s),
            ):
                us = result.per_operation_us(cpu_s) / counts.total()
                columns[f"{op}: {who}"] = {stage: n * us for stage, n in counts.items()}
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("CPU µs per operation")
    for name in columns:
        table.add_column(name, justify="right")
    names = {stage for column in columns.values() for stage in column}
    total = {name: sum(column.get(name, 0) for column in columns.values()) for name in names}
    for stage in sorted(names, key=total.get, reverse=True):
        table.add_row(stage, *(f"{column.get(stage, 0):.2f}" for column in columns.values()))
    table.add_row("all", *(f"{sum(column.values()):.2f}" for column in columns.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
