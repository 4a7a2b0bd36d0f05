"""`make bench`: dkv beside other stores, in one run on this machine.

    python tests/bench/compare.py [--seconds 1] [--rounds 3] [--only TEXT] [--json FILE]

All stores are started first and keep three copies of everything. Each case is measured in rounds,
store after store, so that what else the machine does meets all of them; the median of each store's
rounds, by CPU time, is shown.
"""

import argparse
import contextlib
import json
import shutil
import signal
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

import peers
from peers import Case
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
FAST = Path("/dev/shm")

CASES = [
    Case("put", 1000, 1, 10_000),
    Case("put", 1000, 64, 10_000),
    Case("put", 1000, 1024, 10_000),
    Case("get", 1000, 1, 10_000),
    Case("get", 1000, 64, 10_000),
    Case("get", 1000, 1024, 10_000),
    Case("put", 1000, 8, 10_000, processes=8),
    Case("get", 1000, 8, 10_000, processes=8),
    Case("put", 1000, 1, 10_000, threads=64),
    Case("get", 1000, 1, 10_000, threads=64),
    Case("put", 100, 64, 10_000),
    Case("get", 100, 64, 10_000),
    Case("put", 1 << 20, 8, 50),
    Case("get", 1 << 20, 8, 50),
]

NOTES = """\
What a put has done when it is answered:
  dkv, synced            on all 3 replicas, each after fdatasync (shared by what comes meanwhile)
  dkv, in memory         the same on a memory file system: fdatasync costs nothing there
  Redis, synced          appendfsync always on all 3; WAIT 2 0: each replica after its fdatasync
  Redis, in memory       in the memory of all 3, by WAIT 2 0; no file
  etcd, synced           on 2 of 3 members (Raft's majority), after fdatasync
  memcached, 3 copies    in the memory of all 3; the client writes three times, nothing repairs
A get is answered by one server; for a linearizable one, etcd's leader first asks the others whether
it still leads.

Clients: dkv: its own C client, inside of `dkv bench`, one stream to each node; one thread, or as
many as are named, each of which waits for one operation after another.
etcd: one connection, unary calls through the gRPC library that dkv uses. Redis and memcached: a C
program with one epoll loop; "4 connections × 16" sends 16 operations at a time on each and, for
Redis, one WAIT behind 16 puts. Latencies there are those of the whole batch.
CPU is that of all servers and the client together; all share this machine's cores."""


def stores(stack, disk, fast):
    """Starts everything."""
    started = [
        peers.Dkv("dkv, synced", disk / "dkv"),
        peers.Redis("Redis, synced", disk / "redis", synced=True),
        peers.Etcd("etcd, synced", disk / "etcd"),
        peers.Dkv("dkv, in memory", fast / "dkv"),
        peers.Redis("Redis, in memory", fast / "redis", synced=False),
        peers.Memcached("memcached, 3 copies", fast / "memcached"),
    ]
    return [stack.enter_context(store) for store in started]


def median(runs):
    """The run in the middle, by CPU time."""
    middle = statistics.median_low(run.cpu_us for run in runs)
    return next(run for run in runs if run.cpu_us == middle)


def title(case):
    """What a case does, in words."""
    size = f"{case.size >> 20} MiB" if case.size >= 1 << 20 else f"{case.size:,} B"
    if case.threads > 1:
        return f"{case.op} {size}, {case.threads} threads that wait"
    many = f"{case.processes} processes × " if case.processes > 1 else ""
    return f"{case.op} {size}, {many}{case.outstanding} outstanding"


def measure(case, running, arguments, console):
    """Rows of one case: (store, layout, median)."""
    runs = {}
    for round in range(arguments.rounds):
        for store in running:
            for name, layout in store.layouts(case):
                with console.status(f"{title(case)}: {store.name}, round {round + 1}"):
                    run = store.run(case, layout, arguments.warmup, arguments.seconds)
                runs.setdefault((store.name, name), []).append(run)
    return [(store, layout, median(found)) for (store, layout), found in runs.items()]


def add_rows(table, case, rows):
    """Shows one case."""
    base = next(run for store, _, run in rows if store == "dkv, synced")
    table.add_row(f"[bold]{title(case)}")
    for store, layout, run in rows:
        table.add_row(
            f"  {store}",
            layout,
            f"{run.per_second:,.0f}",
            ms(run.p50_us),
            ms(run.p99_us),
            f"{run.cpu_us:,.1f}",
            f"{run.client_us:,.1f}",
            f"{run.servers_us:,.1f}",
            f"{run.cpu_us / base.cpu_us:.2f}",
        )
    table.add_section()


def ms(us):
    """Microseconds as text."""
    return f"{us / 1000:.2f}" if us < 100_000 else f"{us / 1000:.0f}"


def new_table():
    """The head."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("")
    for head in ("ops/s", "p50 ms", "p99 ms", "CPU µs/op", "client", "servers", "CPU : dkv synced"):
        table.add_column(head, justify="right")
    return table


def parse():
    """The options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run")
    parser.add_argument("--warmup", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help='cases that contain this, as "put 1,000 B"')
    parser.add_argument("--json", type=Path, help="write the numbers there, too")
    return parser.parse_args()


def main():
    """Runs everything and prints the table."""
    arguments = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console() if Console().is_terminal else Console(width=150)
    cases = [case for case in CASES if arguments.only in title(case)]
    found = []
    (ROOT / "build").mkdir(exist_ok=True)
    disk = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
    fast = Path(tempfile.mkdtemp(prefix="dkv-bench-", dir=FAST if FAST.is_dir() else None))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, disk, ignore_errors=True)
        stack.callback(shutil.rmtree, fast, ignore_errors=True)
        with console.status("starting the stores"):
            running = stores(stack, disk, fast)
        filled = None
        for case in cases:
            if filled != case.size:
                filled = case.size
                for store in running:
                    with console.status(f"writing {case.keys:,} keys: {store.name}"):
                        store.fill(case)
            found.append((case, measure(case, running, arguments, console)))
    table = new_table()
    for case, rows in found:
        add_rows(table, case, rows)
    console.print(table)
    print(f"\nMedian of {arguments.rounds} runs of {arguments.seconds:g} s.\n{NOTES}")
    if arguments.json:
        rows = [
            {"case": asdict(case), "store": store, "layout": layout, **asdict(run)}
            for case, group in found
            for store, layout, run in group
        ]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
