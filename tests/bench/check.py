"""`make bench-check BASE=rev`: what this tree costs beside another commit, on this machine, now.

    python tests/bench/check.py --base REV [--rounds 5] [--seconds 1]

The other commit is built in a worktree below build/. Both are measured in turn with their own
`dkv bench`, so that what else the machine does meets both; a row's ratio is the median of its
rounds. A row that seems to be worse is measured again, as often as all before, before it counts.
Exit status 1: a row costs over a tenth more CPU time by operation.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / "build" / "bench-base"
LIMIT = 1.10
RUN_TIMEOUT_S = 300


@dataclass
class Row:
    """One workload, and what each round of it gave: the new tree's number by the old one's."""

    name: str
    options: tuple[str, ...]
    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)

    @property
    def is_worse(self) -> bool:
        """Whether it costs too much more CPU."""
        return statistics.median(self.cpu) > LIMIT


def rows():
    """All workloads."""
    made = []
    for op, share in (("put", "0"), ("get", "1")):
        for size, outstanding in (("1KB", 1), ("1KB", 64), ("1KB", 1024), ("100KB", 8)):
            options = ("--size", size, "--outstanding", str(outstanding), "--read-share", share)
            made.append(Row(f"{op} {size}, {outstanding} outstanding", options))
    return made


def git(*arguments, directory=ROOT):
    """Runs git; returns what it prints."""
    command = ["git", "-C", str(directory), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr.strip())
    return done.stdout.strip()


def build_base(revision):
    """Checks the other commit out below build/ and builds it."""
    revision = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    git("worktree", "prune")
    if TREE.exists():
        git("checkout", "--quiet", "--force", "--detach", revision, directory=TREE)
    else:
        git("worktree", "add", "--detach", str(TREE), revision)
    if not (TREE / "dkv" / "bench.py").exists():
        raise SystemExit(f"{revision} has no `dkv bench` to measure it with")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    built = subprocess.run(command, cwd=TREE, capture_output=True, text=True)
    if built.returncode != 0:
        raise SystemExit(f"{revision} does not build:\n{built.stderr}")


def measure(tree, row, seconds):
    """One run of a tree's own `dkv bench`, on nodes of its own."""
    command = [sys.executable, "-m", "dkv", "bench", "--json", "--keys", "1000", *row.options]
    command += ["--seconds", str(seconds), "--warmup", "0.3"]
    environment = {name: value for name, value in os.environ.items() if name != "DKV_NODE"}
    environment["PYTHONPATH"] = str(tree)
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_S
    )
    if done.returncode != 0:
        raise SystemExit(f"{tree}: {row.name}: {done.stderr}")
    result = json.loads(done.stdout)
    times = result["reads"] if result["reads"]["count"] else result["writes"]
    return result["cpu_us_per_operation"]["total"], result["operations_per_s"], times["p50_us"]


def compare(row, rounds, seconds):
    """Adds some rounds to a row; the two trees take turns in being first."""
    for i in range(rounds):
        trees = (ROOT, TREE) if i % 2 == 0 else (TREE, ROOT)
        found = {tree: measure(tree, row, seconds) for tree in trees}
        for ratios, new, old in zip(
            (row.cpu, row.rate, row.p50), found[ROOT], found[TREE], strict=True
        ):
            ratios.append(new / old)


def main():
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", default="HEAD")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", default="", help="rows that contain this")
    arguments = parser.parse_args()
    console = Console()
    with console.status(f"building {arguments.base}"):
        build_base(arguments.base)
    found = [row for row in rows() if arguments.only in row.name]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(f"this tree : {git('describe', '--always', directory=TREE)}")
    for head in ("CPU µs/op", "of rounds", "ops/s", "p50", ""):
        table.add_column(head, justify="right")
    for row in found:
        with console.status(row.name):
            compare(row, arguments.rounds, arguments.seconds)
            if row.is_worse:
                compare(row, arguments.rounds, arguments.seconds)
        ratios = [f"{statistics.median(row.cpu):.2f}", f"{min(row.cpu):.2f} – {max(row.cpu):.2f}"]
        ratios += [f"{statistics.median(values):.2f}" for values in (row.rate, row.p50)]
        table.add_row(row.name, *ratios, "worse" if row.is_worse else "")
    console.print(table)
    return int(any(row.is_worse for row in found))


if __name__ == "__main__":
    sys.exit(main())
