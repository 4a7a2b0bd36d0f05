"""Campaigns: random clusters, work and faults keep what dkv promises; planted bugs are found."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import support
from dkv import errors, sim
from dkv.sim import bench
from dkv.sim.campaign import run_many

SEEDS = 1200
BATCHES = 8


class Plant(NamedTuple):
    """A bug of csrc/base/plant.h."""

    rules: set[str]
    """Those that it breaks."""

    seeds: int
    """How many are enough, from 1 on."""

    options: tuple[str, ...] = ()


PLANTS = {
    "CONFIRM_BEFORE_SYNC": Plant({"LOST_WRITE"}, 60),
    "BELIEVE_OLDER": Plant({"STALE", "ABSENCE", "READ_ORDER"}, 50),
    "FORGET_HINT": Plant({"CONVERGED"}, 400),
    "BELIEVE_EMPTY": Plant({"BELIEF"}, 60),
    "SKIP_LAST_RANGE": Plant({"CONVERGED", "BELIEF"}, 60),
    "REPAIR_WITH_OLDER": Plant({"CONVERGED", "BELIEF"}, 10),
    "KEEP_DIGEST": Plant({"CONVERGED"}, 200),
    "DROP_BEHIND_DAMAGE": Plant({"LOST_WRITE", "BELIEF"}, 250),
    "GIVE_UP_ALL": Plant(
        {"BELIEF", "ABSENCE"}, 3000, ("--fault", "declare_lost", "--fault", "pause")
    ),
    "LEAVE_ROTTEN": Plant({"WHOLE"}, 100),
}


def failing(run: sim.Campaign, *options: str) -> str:
    replay = " ".join(["python -m dkv.sim --seed", str(run.seed), *options])
    return f"{run.violation}\nreplay: {replay}"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_all_promises_are_kept(batch: int) -> None:
    """With all kinds of faults."""
    n = SEEDS // BATCHES
    for seed in range(1 + batch * n, 1 + (batch + 1) * n):
        run = sim.campaign(seed)
        assert run.violation is None, failing(run)


@pytest.mark.parametrize("fault", sim.FAULTS)
def test_each_kind_of_fault_alone(fault: str) -> None:
    """Whatever needs a certain fault is not hidden by others."""
    happened = 0
    for seed in range(1, 41):
        run = sim.campaign(seed, faults=[fault])
        happened += run.faults.get(fault, 0) > 0
        assert run.violation is None, failing(run, "--fault", fault)
    assert happened


def test_nothing_fails_without_faults() -> None:
    """Every operation succeeds that has time enough, in clusters without faults."""
    done = operations = 0
    for seed in range(1, 101):
        run = sim.campaign(seed, faults=[])
        assert run.violation is None, failing(run, "--no-faults")
        for operation in run.world.history:
            assert operation.error in (None, "NOT_FOUND", "DEADLINE", "UNAVAILABLE", "BUSY")
            done += operation.error in (None, "NOT_FOUND")
            operations += 1
    assert done > 0.98 * operations


def test_campaigns_do_what_they_are_for() -> None:
    """They have faults, conflicts and reads that find something, in clusters of all sizes."""
    runs = [sim.campaign(seed) for seed in range(1, 101)]
    assert {run.nodes for run in runs} == set(range(1, 13))
    assert {run.replication for run in runs} == set(range(1, 6))
    assert set().union(*(run.faults for run in runs)) == set(sim.FAULTS)
    assert sum(run.applied for run in runs) > 5000
    assert sum(run.found for run in runs) > 5000
    outcomes = {operation.outcome for run in runs for operation in run.world.history}
    assert outcomes == {None, "applied", "not applied", "unknown"}


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(errors.InvalidArgumentError):
        sim.campaign(1, faults=["boredom"])


def test_campaigns_at_a_time_add_up_to_the_same() -> None:
    one, two = (run_many(range(1, 21), sim.FAULTS, jobs) for jobs in (1, 2))
    assert one == two
    assert one.campaigns == 20 and one.violated is None
    assert one.operations == sum(sim.campaign(seed).operations for seed in range(1, 21))


def test_the_benchmark_counts_what_it_does() -> None:
    speed = bench.load(3, 8, 400)
    assert speed.operations == 400
    assert speed.messages >= 200 * 4  # two replicas are sent each put, and confirm it
    assert "messages/s" in str(speed)


# ---- planted bugs ----


def run_program(package: Path | None, *options: str) -> subprocess.CompletedProcess[str]:
    """`python -m dkv.sim`, with the package in this directory instead of the installed one."""
    environment = {**os.environ}
    if package:
        environment["PYTHONPATH"] = str(package)
    return subprocess.run(
        [sys.executable, "-P", "-m", "dkv.sim", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with the native module of a build in which bugs were planted."""
    out = "build/plant"
    target = f"{out}/py/_core.abi3.so"
    command = ["make", "-f", "csrc/build.mk", f"-j{len(os.sched_getaffinity(0))}", target]
    command += [f"OUT={out}", "PLANT=1", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=support.ROOT, check=True, capture_output=True)
    directory = tmp_path_factory.mktemp("planted")
    package = directory / "dkv"
    package.mkdir()
    for file in (*(support.ROOT / "dkv").glob("*.py"), support.ROOT / "dkv/sim"):
        (package / file.name).symlink_to(file)
    (package / "_core.abi3.so").symlink_to(support.ROOT / target)
    return directory


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str, planted: Path) -> None:
    """The same seeds find nothing without it, and the command that is printed finds it again."""
    plant = PLANTS[name]
    options = ["--plant", name, *plant.options]
    done = run_program(planted, "--seeds", str(plant.seeds), *options)
    assert done.returncode == 1, done.stdout
    rule = done.stdout.split("VIOLATION ", 1)[1].split(":", 1)[0]
    assert rule in plant.rules, done.stdout
    for part in ("seed ", "history of the key:", "the last that happened:"):
        assert part in done.stdout
    replay = done.stdout.rstrip().rsplit("replay: python -m dkv.sim ", 1)[1]
    again = run_program(planted, *shlex.split(replay))
    assert again.returncode == 1
    assert done.stdout.endswith(again.stdout)


def test_without_a_planted_bug_the_same_build_finds_nothing(planted: Path) -> None:
    done = run_program(planted, "--seeds", "20")
    assert done.returncode == 0, done.stdout


def test_a_proper_build_has_no_planted_bugs() -> None:
    done = run_program(None, "--plant", "BELIEVE_OLDER")
    assert done.returncode == 2 and "planted" in done.stdout


def test_the_program_says_what_it_did() -> None:
    done = run_program(None, "--seed", "1", "--runs", "3", "--fault", "crash")
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("3 campaigns, ")
    assert done.stdout.endswith("all promises were kept\n")
    one = run_program(None, "--seed", "2", "--trace")
    assert one.returncode == 0, one.stdout
    assert "seed 2: " in one.stdout and " message " in one.stdout
