"""Measures a cluster: how many operations in a second, how long each takes, and what CPU they cost.

    with dkv.Cluster(3) as cluster:
        print(bench.run(cluster.addresses.values(), bench.Workload(read_share=0.5)).per_second)

The load is made in C. A process has one client. Its load is either a loop that keeps `outstanding`
operations under way all the time, or several threads that share the client, each of which waits for
one operation after another, as the threads of a server do. First all keys are written
("bench:00000000" and so on; they stay in the cluster), then the load warms up, then it is measured.
Every reply is checked.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from dkv import _net
from dkv.client import connect
from dkv.errors import Error, InvalidArgumentError

Distribution = Literal["uniform", "zipfian"]
Progress = Callable[[str, float, int], None]
"""Called several times a second: what is going on, how much of it is done, and the operations that
have ended since the writing of the keys, or since the load, began."""

MIXES: dict[str, tuple[float, Distribution]] = {
    "ycsb-a": (0.5, "zipfian"),
    "ycsb-b": (0.95, "zipfian"),
    "ycsb-c": (1.0, "zipfian"),
}
"""Share of reads and distribution of the core workloads of YCSB by name."""

WRONG = "WRONG_VALUE"
"""What a read of another value than was written counts as, among the errors."""

SLICE_MS = 100
FILL_OUTSTANDING = 256
FILL_BYTES = 16 << 20
THREADS_MAX = 64
PROCESSES_MAX = 64


@dataclass(frozen=True)
class Workload:
    """What the load does."""

    size: int = 1000
    """Bytes in each value."""
    outstanding: int = 64
    """Operations that a loop keeps under way; 1 with several threads."""
    threads: int = 1
    """In each process: several share its client, each waits for one operation after another."""
    processes: int = 1
    """Each has a client of its own."""
    read_share: float = 0.0
    """Of the operations; the others are puts."""
    keys: int = 10_000
    distribution: Distribution = "uniform"
    """How often each key is used: all equally, or as YCSB's "scrambled zipfian" has it."""
    timeout: float = 5.0
    """Seconds for each operation."""


def usual_keys(size: int) -> int:
    """How many keys a load uses that names no number: their values fit into 256 MB."""
    return max(1, min(10_000, 256_000_000 // max(1, size)))


class Latencies:
    """How long operations took, to about 1 %."""

    def __init__(self, counts: Counter[int]) -> None:
        self._counts = counts
        self.count = counts.total()

    def quantile_us(self, share: float) -> float | None:
        """The time in microseconds that this share of the operations took at most."""
        left = share * self.count
        for nanoseconds in sorted(self._counts):
            left -= self._counts[nanoseconds]
            if left <= 0:
                return nanoseconds / 1000
        return None

    def to_dict(self) -> dict[str, Any]:
        """Number, median and worse."""
        shares = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999, "max_us": 1.0}
        return {"count": self.count} | {
            name: self.quantile_us(share) if self.count else None for name, share in shares.items()
        }


@dataclass(frozen=True)
class Result:
    """What was measured."""

    workload: Workload
    seconds: float
    reads: Latencies
    """Of those that succeeded."""
    writes: Latencies
    errors: dict[str, int]
    """How many operations failed, by the error's name."""
    client_cpu_s: float
    """CPU time of the processes that made the load."""
    nodes_cpu_s: float | None
    """CPU time of all nodes; None if they are not all on this machine."""

    @property
    def operations(self) -> int:
        """Those that succeeded."""
        return self.reads.count + self.writes.count

    @property
    def per_second(self) -> float:
        """Operations in a second."""
        return self.operations / self.seconds

    def per_operation_us(self, cpu_s: float | None) -> float | None:
        """This CPU time in microseconds for each operation."""
        return None if cpu_s is None or not self.operations else cpu_s / self.operations * 1e6

    @property
    def cpu_us(self) -> float | None:
        """CPU time for each operation, of client and nodes together."""
        both = None if self.nodes_cpu_s is None else self.client_cpu_s + self.nodes_cpu_s
        return self.per_operation_us(both)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "workload": asdict(self.workload),
            "seconds": self.seconds,
            "operations": self.operations,
            "operations_per_s": self.per_second,
            "reads": self.reads.to_dict(),
            "writes": self.writes.to_dict(),
            "errors": self.errors,
            "cpu_us_per_operation": {
                "client": self.per_operation_us(self.client_cpu_s),
                "nodes": self.per_operation_us(self.nodes_cpu_s),
                "total": self.cpu_us,
            },
        }


def run(
    addresses: str | Iterable[str],
    workload: Workload,
    *,
    seconds: float = 5.0,
    warmup: float = 1.0,
    fill: bool = True,
    progress: Progress | None = None,
) -> Result:
    """Puts `workload` on a running cluster and measures for `seconds`, after `warmup` seconds.

    With `fill` false the keys are not written first: an earlier run has done so.

    Raises `InvalidArgumentError` for a workload outside the limits, and as `dkv.connect` and
    `Client.put` while the keys are written. Errors of the load itself are counted.
    """
    seeds = addresses if isinstance(addresses, str) else ",".join(addresses)
    _check(workload, seconds, warmup)
    tell = progress or (lambda phase, share, done: None)
    with connect(seeds, timeout=workload.timeout) as client:
        nodes = [member.address for member in client.ring.members]
    with _crew(seeds, workload) as crew:
        if fill:
            _fill(seeds, workload, tell)
        pids = local_pids(nodes)
        began = time.monotonic() + warmup
        crew.begin(began, began + seconds)
        crew.watch(began, lambda share, done: tell("warming up", share, done))
        before = cpu_seconds(pids)
        crew.watch(began + seconds, lambda share, done: tell("measuring", share, done))
        after = cpu_seconds(pids)
        tally = crew.end()
    nodes_cpu_s = None if before is None or after is None else after - before
    return Result(
        workload,
        tally.seconds,
        Latencies(tally.reads),
        Latencies(tally.writes),
        dict(tally.errors),
        tally.cpu_s,
        nodes_cpu_s,
    )


def _check(workload: Workload, seconds: float, warmup: float) -> None:
    if not 1 <= workload.threads <= THREADS_MAX:
        raise InvalidArgumentError(f"1 to {THREADS_MAX} threads are possible")
    if workload.threads > 1 and workload.outstanding != 1:
        raise InvalidArgumentError(
            "each of several threads waits for one operation at a time: outstanding is 1; "
            "what runs several loops is several processes"
        )
    if not 1 <= workload.processes <= PROCESSES_MAX:
        raise InvalidArgumentError(f"1 to {PROCESSES_MAX} processes are possible")
    if seconds <= 0 or warmup < 0:
        raise InvalidArgumentError("the load needs some time")


def _open(seeds: str, workload: Workload) -> _net.Client:
    return _net.Client(seeds, int(workload.timeout * 1000), 0)


def _load(client: _net.Client, workload: Workload, outstanding: int, seed: int) -> _net.Load:
    return _net.Load(
        client,
        workload.keys,
        workload.size,
        outstanding,
        workload.threads > 1 and outstanding == 1,
        workload.read_share,
        workload.distribution == "zipfian",
        seed,
    )


def _fill(seeds: str, workload: Workload, tell: Progress) -> None:
    """Writes every key once."""
    outstanding = max(1, min(FILL_OUTSTANDING, FILL_BYTES // max(1, workload.size)))
    load = _load(_open(seeds, workload), workload, outstanding, 0)
    while not load.fill(SLICE_MS):
        done = load.done()
        tell("writing the keys", min(1.0, done / workload.keys), done)


# ---- who makes the load ----------------------------------------------------------------------


@dataclass
class _Tally:
    """What one thread, process or crew has counted."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    reads: Counter[int] = field(default_factory=Counter)
    writes: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, other: "_Tally") -> None:
        """Adds what another one has counted in the same time."""
        self.seconds = max(self.seconds, other.seconds)
        self.cpu_s += other.cpu_s
        self.reads += other.reads
        self.writes += other.writes
        self.errors += other.errors


class _Team:
    """The threads of one process."""

    def __init__(self, seeds: str, workload: Workload, number: int) -> None:
        client = _open(seeds, workload)
        first = number * workload.threads
        self._loads = [
            _load(client, workload, workload.outstanding, first + i + 1)
            for i in range(workload.threads)
        ]
        self._warm = [0] * workload.threads
        self._done = [0] * workload.threads
        self._stop = threading.Event()

    def stop(self) -> None:
        """Lets all threads end soon."""
        self._stop.set()

    def measure(self, began: float, until: float, tell: Callable[[int], None]) -> _Tally:
        """Runs the load until the time `until` and counts what happens from `began` on."""
        total = _Tally()
        with ThreadPoolExecutor(len(self._loads)) as executor, contextlib.ExitStack() as stack:
            stack.callback(self.stop)
            threads = [
                executor.submit(self._drive, i, began, until) for i in range(len(self._loads))
            ]
            self._watch(began, tell)
            cpu_before = _own_cpu_seconds()
            self._watch(until, tell)
            total.cpu_s = _own_cpu_seconds() - cpu_before
            wait(threads)
            for thread in threads:
                total.add(thread.result())
        return total

    def _watch(self, until: float, tell: Callable[[int], None]) -> None:
        while (left := until - time.monotonic()) > 0:
            tell(sum(self._done))
            if self._stop.wait(min(left, SLICE_MS / 1000)):
                return

    def _drive(self, number: int, began: float, until: float) -> _Tally:
        load = self._loads[number]
        self._run(number, began)
        self._warm[number] = load.done()
        load.reset()
        started = time.monotonic()
        self._run(number, until)
        _, wrong, errors, reads, writes = load.result()
        tally = _Tally(time.monotonic() - started, 0.0, Counter(reads), Counter(writes))
        tally.errors = Counter(errors)
        if wrong:
            tally.errors[WRONG] = wrong
        while not load.drain(SLICE_MS):
            pass
        return tally

    def _run(self, number: int, until: float) -> None:
        load = self._loads[number]
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            load.run(min(SLICE_MS, max(1, int(left * 1000))))
            self._done[number] = self._warm[number] + load.done()


class _Crew:
    """All processes that make the load: this one alone, or others."""

    def begin(self, began: float, until: float) -> None:
        """Lets the load run, and be counted between these times."""
        raise NotImplementedError

    def done(self) -> int:
        """Operations that have ended lately."""
        raise NotImplementedError

    def end(self) -> _Tally:
        """Waits until all have ended."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends everything early, if it has not ended."""
        raise NotImplementedError

    def watch(self, until: float, tell: Callable[[float, int], None]) -> None:
        """Waits until the time `until` and tells how far it is."""
        started = time.monotonic()
        while (left := until - time.monotonic()) > 0:
            tell(1 - left / (until - started), self.done())
            time.sleep(min(left, SLICE_MS / 1000))


class _OwnThreads(_Crew):
    def __init__(self, seeds: str, workload: Workload) -> None:
        self._team = _Team(seeds, workload, 0)
        self._executor = ThreadPoolExecutor(1)
        self._count = 0

    def begin(self, began: float, until: float) -> None:
        self._measured = self._executor.submit(self._team.measure, began, until, self._note)

    def _note(self, count: int) -> None:
        self._count = count

    def done(self) -> int:
        return self._count

    def end(self) -> _Tally:
        return self._measured.result()

    def close(self) -> None:
        self._team.stop()
        self._executor.shutdown(cancel_futures=True)


class _Processes(_Crew):
    def __init__(self, seeds: str, workload: Workload) -> None:
        context = multiprocessing.get_context("spawn")
        self._members: list[tuple[BaseProcess, Connection]] = []
        self._counts = [0] * workload.processes
        try:
            for number in range(workload.processes):
                ours, theirs = context.Pipe()
                arguments = (theirs, seeds, workload, number)
                process = context.Process(target=_serve, args=arguments, daemon=True)
                process.start()
                theirs.close()
                self._members.append((process, ours))
            for _, connection in self._members:
                _receive(connection)
        except BaseException:
            self.close()
            raise

    def begin(self, began: float, until: float) -> None:
        for _, connection in self._members:
            connection.send((began, until))

    def done(self) -> int:
        for i, (_, connection) in enumerate(self._members):
            while connection.poll():
                self._counts[i] = _receive(connection)
        return sum(self._counts)

    def end(self) -> _Tally:
        total = _Tally()
        for process, connection in self._members:
            while not isinstance(answer := _receive(connection), _Tally):
                pass
            total.add(answer)
            process.join()
        return total

    def close(self) -> None:
        for process, connection in self._members:
            process.kill()
            process.join()
            connection.close()


def _receive(connection: Connection) -> Any:
    try:
        answer = connection.recv()
    except EOFError:
        raise Error("a process that made the load has ended too early") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _serve(connection: Connection, seeds: str, workload: Workload, number: int) -> None:
    """One of several processes: ready, told when, counts, the tally."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    try:
        team = _Team(seeds, workload, number)
        connection.send(0)
        began, until = connection.recv()
        connection.send(team.measure(began, until, connection.send))
    except Error as error:
        connection.send(Error(str(error)))
    except EOFError:
        pass


@contextlib.contextmanager
def _crew(seeds: str, workload: Workload) -> Iterator[_Crew]:
    crew = _OwnThreads(seeds, workload) if workload.processes == 1 else _Processes(seeds, workload)
    try:
        yield crew
    finally:
        crew.close()


# ---- CPU time --------------------------------------------------------------------------------


def _own_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_seconds(pids: Sequence[int] | None) -> float | None:
    """The CPU time that these processes have used; None if one is not known or has ended."""
    if pids is None:
        return None
    ticks = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        user, system = stat.rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def local_pids(addresses: Iterable[str]) -> list[int] | None:
    """The processes that listen on these addresses; None if one is not found on this machine."""
    ports = set()
    for address in addresses:
        host, _, port = address.rpartition(":")
        if host not in ("127.0.0.1", "localhost", "[::1]", socket.gethostname()):
            return None
        ports.add(int(port))
    found = _listeners(ports)
    return sorted(set(found.values())) if set(found) == ports else None


def _listeners(ports: set[int]) -> dict[int, int]:
    """Port to process, of those processes that we may look into."""
    listening = "0A"
    port_of: dict[str, int] = {}
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == listening and port in ports:
                port_of[f"socket:[{fields[9]}]"] = port
    found = {}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            port = port_of.get(str(link.readlink()), 0)
            if port:
                found[port] = int(link.parts[2])
    return found
