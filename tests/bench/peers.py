"""Other stores, started for `make bench` with three copies of everything.

Each is a context manager that starts its processes on ports from the kernel and stops them again.
`run` puts load on it for a moment and measures, with the programs of tests/bench/*_load.c.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dkv import bench
from dkv.cluster import Cluster

HOST = "127.0.0.1"
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
LOADS = Path(__file__).resolve().parents[2] / "build/release/loads"


@dataclass(frozen=True)
class Case:
    """One row of the comparison: what each store does."""

    op: str  # put or get
    size: int
    outstanding: int  # of each process
    keys: int
    processes: int = 1  # that make the load
    threads: int = 1  # in each; several wait for one operation each, and share one client


@dataclass(frozen=True)
class Measured:
    """What came out of one run."""

    per_second: float
    p50_us: float
    p99_us: float
    client_us: float
    servers_us: float

    @property
    def cpu_us(self) -> float:
        """CPU time of an operation, client and servers."""
        return self.client_us + self.servers_us


class Dkv:
    """This project's nodes, measured by its own client."""

    def __init__(self, name, directory):
        self.name = name
        self._directory = directory

    def __enter__(self):
        self._cluster = Cluster(3, 3, directory=self._directory)
        return self

    def __exit__(self, *error):
        self._cluster.close()

    def layouts(self, case):
        """Ways to keep that many operations under way: here there is one."""
        if case.threads > 1:
            return [("1 client, shared", None)]
        return [("1 client" if case.processes == 1 else f"{case.processes} clients", None)]

    def fill(self, case):
        """Writes all keys."""
        self._run(case, 0.1, 0, fill=True)

    def run(self, case, layout, warmup, seconds):
        """Measures."""
        return self._run(case, seconds, warmup, fill=False)

    def _run(self, case, seconds, warmup, fill):
        load = bench.Workload(
            size=case.size,
            outstanding=case.outstanding,
            keys=case.keys,
            read_share=float(case.op == "get"),
            processes=case.processes,
            threads=case.threads,
        )
        addresses = self._cluster.addresses.values()
        result = bench.run(addresses, load, seconds=seconds, warmup=warmup, fill=fill)
        if result.errors:
            raise RuntimeError(f"{self.name}: operations failed: {result.errors}")
        times = result.reads if case.op == "get" else result.writes
        return Measured(
            result.per_second,
            times.quantile_us(0.5) or 0,
            times.quantile_us(0.99) or 0,
            result.per_operation_us(result.client_cpu_s) or 0,
            result.per_operation_us(result.nodes_cpu_s) or 0,
        )


class Peer:
    """A store of somebody else: processes, and a program that makes load."""

    program = "tcp_load"
    protocol = ""

    def __init__(self, name, directory):
        self.name = name
        self.directory = Path(directory)
        self.processes = []
        self.addresses = []
        self._holders = []

    def __enter__(self):
        self.directory.mkdir(parents=True)
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for holder in self._holders:
            holder.close()

    def start(self):
        """Starts the processes and waits until they serve."""
        raise NotImplementedError

    def layouts(self, case):
        """Ways to keep that many operations under way: name and (connections, depth, protocol)."""
        if case.threads > 1:
            return []  # the programs that make the load have no threads
        ways = [(case.outstanding, 1)]
        if case.outstanding == 64:
            ways.append((4, 16))
        if case.outstanding == 1024:
            ways = [(64, 16)]
        return [(_named(*way), (*way, self.protocol)) for way in ways]

    def port(self):
        """A port that nobody else is given: bound here too, but not listening."""
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, 0))
        self._holders.append(holder)
        return holder.getsockname()[1]

    def spawn(self, *command):
        """Starts one process; its output goes to a file."""
        log = (self.directory / f"{len(self.processes)}.log").open("wb")
        with log:
            self.processes.append(
                subprocess.Popen(
                    [str(word) for word in command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                )
            )

    def wait_until(self, is_ready):
        """Waits until all processes serve."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                if is_ready():
                    return
            for i, process in enumerate(self.processes):
                if process.poll() is not None:
                    raise RuntimeError(f"{self.name}: {self.log(i)}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not start: {self.log(0)}")
            time.sleep(0.05)

    def log(self, i):
        """The end of what a process has said."""
        return (self.directory / f"{i}.log").read_text(errors="replace")[-500:]

    def fill(self, case):
        """Writes all keys."""
        load = self._load("fill", case, (16, 1, self.protocol), 0, 0)
        if load.wait() != 0:
            raise RuntimeError(f"{self.name}: the keys could not be written")

    def run(self, case, layout, warmup, seconds):
        """Measures."""
        pids = [process.pid for process in self.processes]
        loads = [self._load(case.op, case, layout, warmup, seconds) for _ in range(case.processes)]
        try:
            for load in loads:
                if load.stdout.readline() != "measuring\n":
                    raise RuntimeError(f"{self.name}: no load")
            before = bench.cpu_seconds(pids)
            results = [json.loads(load.stdout.readline()) for load in loads]
            after = bench.cpu_seconds(pids)
            if any(load.wait() != 0 for load in loads):
                raise RuntimeError(f"{self.name}: the load ended early")
        finally:
            for load in loads:
                load.kill()
                load.wait()
        counts = Counter()
        for result in results:
            counts += Counter({int(k): n for k, n in result["times_ns"].items()})
        times = bench.Latencies(counts)
        return Measured(
            times.count / max(result["seconds"] for result in results),
            times.quantile_us(0.5) or 0,
            times.quantile_us(0.99) or 0,
            sum(result["cpu_s"] for result in results) / times.count * 1e6,
            (after - before) / times.count * 1e6,
        )

    def _load(self, op, case, layout, warmup, seconds):
        connections, depth, protocol = layout
        arguments = [LOADS / self.program, protocol, op, ",".join(self.addresses), case.size]
        arguments += [case.keys, connections, depth, warmup, seconds]
        return subprocess.Popen(
            [str(word) for word in arguments], stdout=subprocess.PIPE, text=True
        )


class Redis(Peer):
    """A primary and two replicas; a put waits for both."""

    protocol = "redis"

    def __init__(self, name, directory, synced):
        super().__init__(name, directory)
        self._synced = synced

    def start(self):
        ports = [self.port() for _ in range(3)]
        for port in ports:
            data = self.directory / str(port)
            data.mkdir()
            command = ["redis-server", "--port", port, "--bind", HOST, "--dir", data, "--save", ""]
            command += ["--appendonly", "yes" if self._synced else "no"]
            command += ["--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]
            command += ["--repl-diskless-sync-delay", "0"]
            if port != ports[0]:
                command += ["--replicaof", f"{HOST} {ports[0]}"]
            self.spawn(*command)
        self.addresses = [f"{HOST}:{ports[0]}"]
        self.wait_until(lambda: self._replicas_online(ports[0]) == 2)

    @staticmethod
    def _replicas_online(port):
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"INFO replication\r\n")
            return connection.recv(65536).count(b"state=online")


class Memcached(Peer):
    """Three servers that know nothing of each other: the client writes to all."""

    protocol = "memcached"

    def start(self):
        for _ in range(3):
            port = self.port()
            command = ["memcached", "-l", HOST, "-p", port, "-U", 0, "-t", 1, "-m", 1024]
            command += ["-c", 4096, "-I", "2m"]
            if os.geteuid() == 0:
                command += ["-u", "root"]
            self.spawn(*command)
            self.addresses.append(f"{HOST}:{port}")
        self.wait_until(self._all_answer)

    def _all_answer(self):
        for address in self.addresses:
            host, port = address.split(":")
            socket.create_connection((host, int(port)), timeout=1).close()
        return True


class Etcd(Peer):
    """Three members; load goes to the leader."""

    program = "etcd_load"
    protocol = "etcd"

    def start(self):
        urls = [(f"http://{HOST}:{self.port()}", f"http://{HOST}:{self.port()}") for _ in range(3)]
        members = ",".join(f"e{i}={peer}" for i, (_, peer) in enumerate(urls))
        for i, (client, peer) in enumerate(urls):
            command = ["etcd", "--name", f"e{i}", "--data-dir", self.directory / f"e{i}"]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            command += ["--initial-cluster", members, "--log-level", "error"]
            self.spawn(*command, "--quota-backend-bytes", 8 << 30)
        self.wait_until(lambda: self._find_leader([client for client, _ in urls]))

    def _find_leader(self, urls):
        for url in urls:
            request = urllib.request.Request(f"{url}/v3/maintenance/status", b"{}")
            with urllib.request.urlopen(request, timeout=1) as answer:
                status = json.load(answer)
            if status.get("leader") == status["header"]["member_id"]:
                self.addresses = [url.removeprefix("http://")]
                return True
        return False

    def layouts(self, case):
        if case.threads > 1:
            return []
        name = _named(1, case.outstanding)
        ways = [(name, (1, case.outstanding, "etcd"))]
        if case.op == "get":
            ways = [(f"{name}, linearizable", ways[0][1])]
            ways.append((f"{name}, serializable", (1, case.outstanding, "etcd-serializable")))
        return ways


def _named(connections, depth):
    what = "1 connection" if connections == 1 else f"{connections} connections"
    return what if depth == 1 else f"{what} × {depth}"
