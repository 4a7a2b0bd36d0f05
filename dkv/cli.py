"""The command dkv: a cluster on this machine, and keys and values from the shell.

Exit status: 0 done; 1 the key does not exist, or replicas differ; 2 wrong usage, or an argument
outside its limits; 3 not done: too few replicas can be reached, no answer in time, or busy; 4 what
became of the write is not known; 5 any other error; 130 interrupted; 141 nobody reads the output
any more. Errors are told on standard error, and nothing was changed unless the status is 4 or more.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

import dkv
from dkv import errors, node_program, running
from dkv.certificate import Certificate
from dkv.cluster import Cluster
from dkv.results import NodeStatus, PeerStatus

if TYPE_CHECKING:
    from dkv import bench as measuring

EXIT_NOT_FOUND = 1
EXIT_DIFFERENT = 1
EXIT_USAGE = 2
EXIT_NOT_DONE = 3
EXIT_UNKNOWN = 4
EXIT_OTHER = 5
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141

Level = Literal["one", "quorum", "all"]
LEVELS = click.Choice(["one", "quorum", "all"])

Command = TypeVar("Command", bound=Callable[..., Any])


# ---- errors ---------------------------------------------------------------------------------


def exit_status(error: errors.Error) -> int:
    """The exit status that stands for `error`."""
    if isinstance(error, errors.NotFoundError):
        return EXIT_NOT_FOUND
    if isinstance(error, errors.InvalidArgumentError):
        return EXIT_USAGE
    if error.outcome == "unknown":
        return EXIT_UNKNOWN
    if isinstance(error, errors.UnavailableError | errors.TimeoutError | errors.BusyError):
        return EXIT_NOT_DONE
    return EXIT_OTHER


def advice(error: errors.Error) -> str:
    """What the person may do next, where the error does not say it or says it for Python."""
    if isinstance(error, errors.UnavailableError):
        if "at level quorum it" in str(error):
            return "here that is: --write quorum"
        if str(error).startswith("no node answered"):
            return "is the cluster running? `dkv up` starts one, --connect names another"
    if isinstance(error, errors.BusyError):
        return "try again in a moment"
    return ""


class Commands(click.Group):
    """Shows errors in plain words and ends with the exit status that stands for them."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except click.NoSuchOption as error:
            hint = 'If it is a key or a value, write "--" before it.'
            raise click.UsageError(f"{error.format_message()} {hint}", error.ctx) from None
        except errors.Error as error:
            hint = advice(error)
            click.echo(f"dkv: {error}" + (f" ({hint})" if hint else ""), err=True)
            ctx.exit(exit_status(error))
        except BrokenPipeError:
            # What is still to be flushed at the end goes nowhere, without a word.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(EXIT_PIPE)
        except OSError as error:
            about = f"{error.filename}: " if error.filename else ""
            with contextlib.suppress(OSError):
                click.echo(f"dkv: {about}{error.strerror or error}", err=True)
            ctx.exit(EXIT_OTHER)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)


# ---- which cluster --------------------------------------------------------------------------


def default_addresses() -> str:
    """DKV_CONNECT, or else the cluster of `dkv up`, if there is one and only one."""
    given = os.environ.get("DKV_CONNECT")
    if given:
        return given
    alive, ended = running.clusters()
    if len(alive) == 1:
        return alive[0].addresses
    if alive:
        raise errors.InvalidArgumentError(
            f"{len(alive)} clusters are running; say which one with --connect, "
            f"or in the environment variable DKV_CONNECT:\n{listed(alive)}"
        )
    was = "".join(
        f"; the one of process {one.pid} ended without stopping, its directory is {one.directory}"
        for one in ended[-1:]
    )
    raise errors.UnavailableError(
        f"no cluster is running{was}; start one with `dkv up`, or name one with "
        "--connect HOST:PORT,... or in the environment variable DKV_CONNECT"
    )


def listed(clusters: list[running.Running]) -> str:
    """A line for each cluster."""
    return "\n".join(
        f"  --connect {one.addresses.split(',')[0]}   process {one.pid}, in {one.directory}"
        for one in clusters
    )


def connecting(command: Command) -> Command:
    """Adds the options of every command that talks to a cluster."""
    options = [
        click.option(
            "--connect", metavar="HOST:PORT,...", help="Nodes of the cluster, any of them."
        ),
        click.option("--timeout", type=click.FloatRange(0.001, 60), default=5, show_default=True),
    ]
    for option in options:
        command = option(command)
    return command


def connected(connect: str | None, timeout: float) -> "dkv.Client":
    """A client by the options of `connecting`."""
    return dkv.connect(connect or default_addresses(), timeout=timeout)


# ---- commands -------------------------------------------------------------------------------


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dkv.__version__, prog_name="dkv")
def main() -> None:
    """A replicated key-value store.

    \b
    Start with:  dkv up                    three nodes on this machine
                 dkv put greeting hello    in another terminal
                 dkv get greeting

    \b
    Exit status: 0 done            3 not done: unavailable, too late or busy
                 1 no such key,    4 outcome of the write unknown
                   or not equal    5 any other error
                 2 wrong usage
    """


@main.command()
@click.option("--nodes", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--replication", type=click.IntRange(1, 5), help="Default: 3, or --nodes if less.")
@click.option("--directory", type=click.Path(file_okay=False), help="Keeps the data here.")
@click.option("--port", type=click.IntRange(0, 65000), default=0, help="Of the first node.")
def up(nodes: int, replication: int | None, directory: str | None, port: int) -> None:
    """Run a cluster on this machine until Ctrl-C or SIGTERM.

    Without --directory its data is removed at the end. With it, the cluster goes on next time where
    it was, with the same ports if they are free: give the same --nodes and --replication again.
    """
    others = others_running()
    copies = replication or min(3, nodes)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(nodes, copies, directory=directory, port=port))
        addresses = ",".join(cluster.addresses.values())
        try:
            stack.enter_context(running.announced(addresses, cluster.directory))
        except OSError as error:
            click.echo(f"dkv: other commands will need --connect, because {error}", err=True)
        print_up(cluster, addresses, others, keeps=directory is not None)
        with contextlib.suppress(KeyboardInterrupt):
            watch(cluster)
        with contextlib.suppress(OSError):  # a terminal that was closed
            click.echo("\nstopping")
    if directory is None and cluster.directory.exists():
        click.echo(f"{cluster.directory} stays: a node that you have started runs there")


def others_running() -> list[running.Running]:
    """Other clusters of `dkv up`; what is left of those that were killed is told and forgotten."""
    alive, ended = running.clusters()
    for one in ended:
        left = f": {one.directory} may be removed" if Path(one.directory).exists() else ""
        click.echo(f"an earlier cluster (process {one.pid}) ended without stopping{left}", err=True)
        running.forget(one)
    return alive


def start_command(cluster: Cluster, node: str) -> str:
    """How a person starts `node` of a running cluster again."""
    program = "dkv-node" if shutil.which("dkv-node") else node_program.path()
    return f"{program} --config {cluster.configuration(node)}"


def print_up(
    cluster: Cluster, addresses: str, others: list[running.Running], *, keeps: bool
) -> None:
    """Says what runs where and how to use it."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("node", "address", "process", "log"):
        table.add_column(title)
    for node in cluster.nodes:
        log = str(cluster.directory / f"{node}.log")
        table.add_row(node, cluster.address(node), str(cluster.pid(node)), log)
    console().print(table)
    copies = cluster.ring.replication
    kept = f"kept in {cluster.directory}" if keeps else "removed at the end"
    click.echo(f"\n{copies} {'copy' if copies == 1 else 'copies'} of each value; data {kept}.\n")
    if others:
        click.echo(
            "Other clusters are running, so commands have to be told which one is meant:\n"
            f"{listed(others)}\n\n"
            f"In another terminal:  export DKV_CONNECT={addresses.split(',')[0]}\n"
            "                      dkv put greeting hello"
        )
    else:
        click.echo("In another terminal:  dkv put greeting hello")
    click.echo(
        "                      dkv get greeting\n"
        "                      dkv status\n"
        f"In Python:            client = dkv.connect({addresses!r})\n"
        f"To kill a node:       kill -9 {cluster.pid(cluster.nodes[-1])}\n"
        f"To bring it back:     {start_command(cluster, cluster.nodes[-1])}\n\n"
        "Ctrl-C stops the cluster."
    )


def watch(cluster: Cluster) -> None:
    """Waits for Ctrl-C and tells of nodes that end or come back. Ends if there is none left."""
    was = dict.fromkeys(cluster.nodes, True)
    ours = dict(was)
    while any(was.values()):
        time.sleep(0.5)
        for node in cluster.nodes:
            alive = cluster.alive(node) or listens(cluster.address(node))
            if was[node] and not alive:
                how = how_it_ended(cluster, node) if ours[node] else "has ended"
                click.echo(f"node {node} {how}", err=True)
                click.echo(f"  to start it again: {start_command(cluster, node)}", err=True)
            elif alive and not was[node]:
                ours[node] = False
                click.echo(f"node {node} is back", err=True)
            was[node] = alive
    raise errors.PreconditionError("no node is left, so the cluster ends")


def listens(address: str) -> bool:
    """Whether somebody has started the node that ended here."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host, int(port)), timeout=1).close()
        return True
    return False


def how_it_ended(cluster: Cluster, node: str) -> str:
    """ "was killed by SIGKILL", or its exit status with its last words."""
    status = cluster.exit_status(node) or 0
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    words = cluster.logs(node).splitlines()
    return f"ended with status {status}; its last words: {words[-1] if words else 'none'}"


@main.command()
@click.argument("key")
@click.argument("value", default="-")
@click.option(
    "--write", type=LEVELS, default="all", show_default=True, help="Replicas to wait for."
)
@connecting
def put(key: str, value: str, write: Level, connect: str | None, timeout: float) -> None:
    """Store VALUE under KEY.

    The value is read from standard input if it is "-" or left out. A value has up to 1 MiB, a key 1
    to 1,024 bytes. What begins with "-" comes after "--": dkv put key -- -5
    """
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    with connected(connect, timeout) as client:
        client.put(os.fsencode(key), data, write=write)


@main.command()
@click.argument("key")
@click.option("--read", type=LEVELS, default="one", show_default=True, help="Replicas to ask.")
@connecting
def get(key: str, read: Level, connect: str | None, timeout: float) -> None:
    """Write the value of KEY to standard output, byte for byte."""
    with connected(connect, timeout) as client:
        value = client.get(os.fsencode(key), read=read)
    sys.stdout.buffer.write(value)
    if sys.stdout.isatty() and not value.endswith(b"\n"):
        click.echo()


@main.command(name="del")
@click.argument("key")
@click.option(
    "--write", type=LEVELS, default="all", show_default=True, help="Replicas to wait for."
)
@connecting
def delete(key: str, write: Level, connect: str | None, timeout: float) -> None:
    """Delete KEY. Deleting a key that does not exist succeeds."""
    with connected(connect, timeout) as client:
        client.delete(os.fsencode(key), write=write)


@main.command()
@connecting
def status(connect: str | None, timeout: float) -> None:
    """Show what each node says of itself. Ends with 3 if one does not answer."""
    with connected(connect, timeout) as client:
        answers = client.status(timeout=timeout)
    console().print(status_table(answers))
    click.echo()
    console().print(healing_table(answers))
    for line in explained(answers):
        click.echo(line)
    if None in answers.values():
        raise SystemExit(EXIT_NOT_DONE)


def status_table(answers: Mapping[str, NodeStatus | None]) -> Table:
    """One line for each node."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("node")
    table.add_column("state")
    for title in ("keys", "live data", "log", "puts", "gets", "failed", "up for"):
        table.add_column(title, justify="right")
    table.add_column("cannot reach")
    for node, answer in answers.items():
        if answer is None:
            table.add_row(node, "no answer")
            continue
        table.add_row(
            node,
            state_of(answer),
            f"{answer.records - answer.tombstones:,}",
            decimal(answer.live_bytes),
            decimal(answer.log_bytes),
            f"{answer.puts:,}",
            f"{answer.gets:,}",
            f"{answer.failed:,}",
            f"{answer.uptime_ms / 1000:,.0f} s",
            " ".join(map(named, (peer for peer in answer.peers if peer.reach == "down"))),
        )
    return table


def named(peer: PeerStatus) -> str:
    """A node that cannot be reached."""
    return f"{peer.id} (declared lost)" if peer.declared_lost else peer.id


def healing_table(answers: Mapping[str, NodeStatus | None]) -> Table:
    """One line for each node that answers: what it still has to do to be as the others."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("healing")
    counts = ("hints", "may differ", "under way", "fetched", "sent")
    for title in ("in sync", *counts, "all compared", "scrubbed"):
        table.add_column(title, justify="right")
    for node, answer in answers.items():
        if answer is None:
            continue
        table.add_row(
            node,
            share_in_sync(answer),
            f"{answer.hints:,}",
            f"{answer.dirty:,}",
            f"{answer.heal_sessions:,}",
            f"{answer.heal_fetched:,}",
            f"{answer.heal_sent:,}",
            ago(answer.round_age_ms),
            ago(answer.scrubbed_ms and max(1, int(time.time() * 1000) - answer.scrubbed_ms)),
        )
    return table


def ago(age_ms: int) -> str:
    """How long something has been done for; 0: it has not been."""
    return f"{age_ms / 1000:,.0f} s ago" if age_ms else "not yet"


def share_in_sync(answer: NodeStatus) -> str:
    """In per cent, 100 only if it is all."""
    if answer.shares_in_sync == answer.shares:
        return "100 %"
    return f"{min(99.9, 100 * answer.shares_in_sync / answer.shares):.1f} %"


def state_of(answer: NodeStatus) -> str:
    """What a person should know of a node first."""
    troubles = {
        "disk full": answer.full,
        "clock off": answer.clock_off,
        f"{answer.damaged_records} damaged records": answer.damaged_records,
        "not in sync": not answer.in_sync,
    }
    return ", ".join(text for text, is_so in troubles.items() if is_so) or "good"


@main.command()
@click.argument("keys", nargs=-1)
@click.option("--nodes", type=click.IntRange(1, 1000), help="Of a ring that need not exist.")
@click.option("--replication", type=click.IntRange(1, 5), default=3, show_default=True)
@connecting
def ring(
    keys: tuple[str, ...],
    nodes: int | None,
    replication: int,
    connect: str | None,
    timeout: float,
) -> None:
    """Show each node's share of the keys, or where KEYS live.

    Asks the cluster for its map; with --nodes N the ring of n1 to nN is computed instead.
    """
    if nodes:
        shown = dkv.Ring([f"n{i + 1}" for i in range(nodes)], replication)
    else:
        with connected(connect, timeout) as client:
            shown = client.ring
    if keys:
        for key in keys:
            click.echo(f"{key}: {' '.join(shown.replicas(os.fsencode(key)))}")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("node")
    table.add_column("owner of", justify="right")
    table.add_column("replica of", justify="right")
    owned, held = shown.shares(), shown.replica_shares()
    for node in shown.nodes:
        table.add_row(node, f"{owned[node]:.2%}", f"{held[node]:.2%}")
    console().print(table)


def explained(answers: Mapping[str, NodeStatus | None]) -> Iterator[str]:
    """What the states mean that are not plain."""
    unsure = [node for node, answer in answers.items() if answer and not answer.in_sync]
    if unsure:
        yield (
            f"\nnot in sync: {', '.join(unsure)} may lack values that it confirmed, because its\n"
            "data was removed or damaged, or because the cluster has never been complete.\n"
            "They are read from the other replicas, and one of those must say that a key does\n"
            "not exist. It fetches what it lacks, and is in sync again when it has compared\n"
            "all with every other replica: these must be running."
        )
        away = missing(answers)
        if away:
            yield f"If the disk of {' or '.join(away)} is gone for good: dkv declare-lost {away[0]}"
    if any(answer and answer.clock_off for answer in answers.values()):
        yield "\nclock off: the node refuses to coordinate writes until its clock is set right."
    if any(answer and answer.full for answer in answers.values()):
        yield "\ndisk full: puts and deletes of its keys are refused until there is space."


def missing(answers: Mapping[str, NodeStatus | None]) -> list[str]:
    """The nodes that do not answer and that some other node still waits for."""
    return [
        node
        for node, answer in answers.items()
        if answer is None
        and any(
            peer.id == node and not peer.declared_lost
            for other in answers.values()
            if other
            for peer in other.peers
        )
    ]


@main.command("declare-lost")
@click.argument("node")
@click.option("--yes", is_flag=True, help="What NODE alone held may be given up.")
@connecting
def declare_lost(node: str, yes: bool, connect: str | None, timeout: float) -> None:
    """Say to all other nodes that the data of NODE is gone for good.

    For a node whose disk is lost, or that never comes back. Another node that has lost data itself
    is not believed about absent keys until it has compared all with every other replica; from now
    on it does not wait for NODE. Ends with 3 if a node could not be told: repeat it then.
    """
    if not yes:
        raise click.UsageError(
            f"what {node} alone held is given up: values that no other node has, and keys of which "
            "only it could tell that they exist. Values that others hold stay. "
            f"If its disk is gone for good: dkv declare-lost {node} --yes"
        )
    with connected(connect, timeout) as client:
        said = client.declare_lost(node, timeout=timeout)
    told = [one for one, error in said.items() if error is None]
    click.echo(f"{node} is declared lost, and {', '.join(told)} will not wait for its data")
    untold = {one: error for one, error in said.items() if error}
    for one, error in untold.items():
        click.echo(f"dkv: {one} was not told: {error}", err=True)
    if untold:
        click.echo(f"dkv: say it again when they run: dkv declare-lost {node} --yes", err=True)
        raise SystemExit(EXIT_NOT_DONE)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
@connecting
def verify(as_json: bool, connect: str | None, timeout: float) -> None:
    """Prove that all replicas are identical, or show where they differ.

    Compares digests of all keys and versions. What differs is compared again until --timeout: a
    cluster that is written to differs for moments. Ends with 0 if all replicas are identical, 1 if
    some differ, 3 if a node does not answer.
    """
    with connected(connect, timeout) as client:
        certificate = client.verify(timeout=timeout)
    if as_json:
        click.echo(json.dumps(certificate.to_dict(), indent=2))
    else:
        for line in verdict(certificate):
            click.echo(line)
    if certificate.unreachable:
        raise SystemExit(EXIT_NOT_DONE)
    if certificate.differences:
        raise SystemExit(EXIT_DIFFERENT)


SHOWN_DIFFERENCES = 10


def verdict(certificate: Certificate) -> Iterator[str]:
    """What a certificate says, in words."""
    where = f"{certificate.intervals:,} token ranges, map epoch {certificate.epoch}"
    if certificate.converged:
        yield f"converged: all replicas are identical ({where})"
        yield f"{certificate.keys:,} keys; tombstones of deleted keys: {certificate.tombstones:,}"
    elif certificate.differences:
        yield f"not converged: replicas of {len(certificate.differences):,} of {where}, differ"
    else:
        yield f"not known: no difference found in {where}, but not all nodes answer"
    for one in certificate.differences[:SHOWN_DIFFERENCES]:
        held = ", ".join(f"{node} {n:,}" for node, n in sorted(one.records.items()))
        yield f"  {one.first:016x} to {one.last:016x}, records: {held}"
    if len(certificate.differences) > SHOWN_DIFFERENCES:
        yield f"  and {len(certificate.differences) - SHOWN_DIFFERENCES:,} more: see --json"
    if certificate.unreachable:
        yield f"no answer: {', '.join(certificate.unreachable)}"
    for node, n in certificate.not_in_sync.items():
        yield f"not in sync: {node}, in {n:,} of its ranges (see dkv status)"
    if certificate.scrubbed:
        yield f"every node has read all its records from disk since {certificate.scrubbed:%c} UTC"
    else:
        yield "digests do not see rotten disks, and no scrub of all nodes has ended yet"


UNITS = {"": 1, "B": 1, "KB": 1000, "KIB": 1 << 10, "MB": 10**6, "MIB": 1 << 20}


def size_of(text: str) -> int:
    """The number of bytes that 100, 1KB (1,000) or 1KiB (1,024) stands for."""
    found = re.fullmatch(r"(\d+) ?([A-Z]*)", text.upper())
    if not found or found[2] not in UNITS:
        raise click.BadParameter(f"{text!r} is no size; 100, 1KB and 1MiB are")
    return int(found[1]) * UNITS[found[2]]


@main.command()
@click.option("--nodes", type=click.IntRange(1, 100), help="Of a cluster only for this run.")
@click.option("--size", type=size_of, metavar="BYTES", default="1KB", show_default=True)
@click.option("--outstanding", type=int, help="Under way at once. [default: 64; with --threads: 1]")
@click.option(
    "--threads", default=1, show_default=True, help="Sharing one client, each with one operation."
)
@click.option("--processes", default=1, show_default=True, help="Each with a client of its own.")
@click.option("--read-share", type=click.FloatRange(0, 1), help="The rest are puts. [default: 0]")
@click.option("--keys", type=int, help="[default: 10,000, or as many as 256 MB hold]")
@click.option(
    "--distribution", type=click.Choice(["uniform", "zipfian"]), help="[default: uniform]"
)
@click.option(
    "--workload",
    type=click.Choice(["ycsb-a", "ycsb-b", "ycsb-c"]),
    help="Read share and distribution by name.",
)
@click.option("--seconds", type=click.FloatRange(0.1), default=5, show_default=True)
@click.option("--warmup", type=click.FloatRange(0), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@connecting
def bench(
    nodes: int | None,
    size: int,
    outstanding: int | None,
    threads: int,
    keys: int | None,
    read_share: float | None,
    distribution: "measuring.Distribution | None",
    workload: str | None,
    seconds: float,
    warmup: float,
    as_json: bool,
    connect: str | None,
    timeout: float,
    **options: int,
) -> None:
    """Measure a cluster: operations per second, latencies, CPU time.

    First all keys are written, under names that begin with "bench:"; they stay there. Without
    --connect, three nodes are started for this run alone. The workloads of YCSB: ycsb-a has half
    reads, ycsb-b 95 %, ycsb-c nothing else, on keys of which some are much more popular. Ends with
    5 if an operation failed.

    One loop keeps --outstanding operations under way. --threads K instead has K threads share one
    client, each of which waits for one operation at a time, as the threads of a server do.
    --processes P does either P times, each with a client of its own.
    """
    from dkv import bench as measuring

    if nodes and connect:
        raise click.UsageError("--nodes starts a cluster, --connect names one that runs: not both")
    if workload and (read_share is not None or distribution):
        raise click.UsageError(
            "--workload stands for --read-share and --distribution: one or the others, not both"
        )
    reads, popular = measuring.MIXES.get(workload or "", (0.0, "uniform"))
    load = measuring.Workload(
        size=size,
        outstanding=(64 if threads == 1 else 1) if outstanding is None else outstanding,
        threads=threads,
        keys=measuring.usual_keys(size) if keys is None else keys,
        read_share=reads if read_share is None else read_share,
        distribution=distribution or popular,
        timeout=timeout,
        **options,
    )
    with contextlib.ExitStack() as stack:
        if connect is None:
            cluster = stack.enter_context(Cluster(nodes or 3, min(3, nodes or 3)))
            connect = ",".join(cluster.addresses.values())
        with progress() as tell:
            result = measuring.run(connect, load, seconds=seconds, warmup=warmup, progress=tell)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2))
    else:
        print_measured(result)
    if result.errors:
        raise SystemExit(EXIT_OTHER)


@contextlib.contextmanager
def progress() -> "Iterator[measuring.Progress]":
    """A line that says how far it is, if somebody looks at standard error."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:17}"), BarColumn(), TextColumn("{task.fields[done]}"))
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0, done="")

        def tell(phase: str, share: float, done: int) -> None:
            text = f"{done:,} operations"
            bar.update(task, description=phase, completed=share, done=text)

        yield tell


def print_measured(result: "measuring.Result") -> None:
    """A table of the latencies, and lines about the rest."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", "operations", "p50", "p99", "p99.9", "max"):
        table.add_column(title, justify="right")
    for name, measured in (("gets", result.reads), ("puts", result.writes)):
        if measured.count:
            times = [measured.quantile_us(share) or 0 for share in (0.5, 0.99, 0.999, 1)]
            table.add_row(name, f"{measured.count:,}", *(f"{us / 1000:.3f} ms" for us in times))
    console().print(table)
    click.echo(f"{result.per_second:,.0f} operations per second, in {result.seconds:.1f} s")
    client = result.per_operation_us(result.client_cpu_s)
    nodes = result.per_operation_us(result.nodes_cpu_s)
    if client is not None:
        known = "not on this machine" if nodes is None else f"{nodes:.1f} µs"
        click.echo(f"CPU time of an operation: client {client:.1f} µs, nodes {known}")
    for name, n in sorted(result.errors.items()):
        click.echo(f"{n:,} operations failed: {name}")


@main.command()
def demo() -> None:
    """Show it all: five nodes, the standard library as data, a killed node."""
    from dkv.demo import run

    raise SystemExit(run())


class Tables(Console):
    """Leaves it to `Commands` what happens when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled."""
        raise BrokenPipeError


def console() -> Console:
    """Where tables go: as wide as they need when nobody looks at a terminal."""
    return Tables() if sys.stdout.isatty() else Tables(width=200)
