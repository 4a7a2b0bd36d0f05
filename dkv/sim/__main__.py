"""`python -m dkv.sim`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

import click

from dkv import _core
from dkv.errors import InvalidArgumentError
from dkv.sim import bench
from dkv.sim.campaign import FAULTS, campaign, describe, run_many
from dkv.sim.world import SEED_MAX


def replay_command(seed: int, options: Sequence[str]) -> str:
    """What repeats the campaign of this seed."""
    return shlex.join(["python", "-m", "dkv.sim", "--seed", str(seed), *options])


def run_one(seed: int, faults: Sequence[str], trace: bool) -> bool:
    """Runs one campaign and tells of it; whether all promises were kept."""
    run = campaign(seed, faults=faults, trace=True)
    if trace:
        click.echo(run.world.trace)
    for line in describe(run):
        click.echo(line)
    return run.violation is None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=click.IntRange(0, SEED_MAX), default=1, show_default=True)
@click.option("--seeds", "--runs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--fault", "faults", type=click.Choice(FAULTS), multiple=True, help="Only these.")
@click.option("--no-faults", is_flag=True, help="Nothing goes wrong.")
@click.option("--jobs", type=click.IntRange(1), help="Campaigns at a time [default: one a core].")
@click.option("--trace", is_flag=True, help="Print everything that happens.")
@click.option("--plant", metavar="NAME", help="Commit this bug; in builds with PLANT=1.")
@click.option("--bench", "only_bench", is_flag=True, help="Measure the simulator instead.")
def main(
    seed: int,
    seeds: int,
    faults: Sequence[str],
    no_faults: bool,
    jobs: int | None,
    trace: bool,
    plant: str | None,
    only_bench: bool,
) -> None:
    """Run campaigns: random clusters, work and faults, checked for what dkv promises.

    Begins with the seed --seed and ends with status 1 at the first at which a promise was not kept:
    it shows what led to it, and the command that repeats it.
    """
    if only_bench:
        for speed in bench.measure():
            click.echo(speed)
        return
    try:
        _core.plant(plant)
    except InvalidArgumentError as error:
        raise click.UsageError(str(error)) from error
    chosen: Sequence[str] = () if no_faults else faults or FAULTS
    options = [f"--fault={fault}" for fault in faults]
    options += ["--no-faults"] * no_faults
    options += [f"--plant={plant}"] if plant else []
    if seeds == 1:
        kept = run_one(seed, chosen, trace)
    else:
        jobs = jobs or len(os.sched_getaffinity(0))
        total = run_many(range(seed, seed + seeds), chosen, jobs)
        click.echo(total)
        kept = total.violated is None
        if total.violated is not None:
            seed = total.violated
            run_one(seed, chosen, trace)
    if kept:
        click.echo("all promises were kept")
        return
    click.echo(f"replay: {replay_command(seed, options)}")
    sys.exit(1)


if __name__ == "__main__":
    main()
