"""A cluster of real dkv-node processes on this machine, to try, break and measure.

    with dkv.Cluster(nodes=5, replication=3) as cluster, cluster.client() as client:
        client.put("greeting", b"hello")
        cluster.kill("n2")
        assert client.get("greeting") == b"hello"

Each node has its own process, port, data directory, configuration file and log, all below one
directory:

    n1.yaml  n1.log  n1/     and so on for every node
    cluster.json             which nodes share the keys: a directory is for one such cluster
    cluster.lock             locked while a cluster runs there

Ports come from the kernel, or are those of the last time. For each node the cluster keeps a socket
bound to the node's port, but not listening, as long as it exists: so nobody is given the port while
the node is down, and the node, which like that socket sets SO_REUSEADDR, can still bind it and
listen.

Nodes end with the process that started them, however that ends: each holds the reading end of a
pipe as its standard input, and the kernel has been asked to kill it when the writing end closes.
"""

import atexit
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dkv import _interrupts, node_program, settings
from dkv._closing import Closing
from dkv.errors import (
    InvalidArgumentError,
    LockedError,
    PreconditionError,
    TimeoutError,
    UnavailableError,
)
from dkv.ring import Member, Nodes, Ring
from dkv.settings import Durability, Limits

if TYPE_CHECKING:
    from dkv.client import Client
    from dkv.results import NodeStatus

HOST = "127.0.0.1"
READY_TIMEOUT_S = 20.0
READY_TIMEOUT_PER_NODE_S = 0.5
STOP_TIMEOUT_S = 20.0
SEEDS_MAX = 16  # of the nodes that a client may fetch the map from
POLL_S = 0.01
LISTEN_POLL_MAX_S = 0.05
POLL_MAX_S = 0.3


class Cluster(Closing):
    """Starts dkv-node processes and stops them again; a context manager.

    `nodes` is a number of nodes (n1, n2, ...), or ids or members as `dkv.Ring` takes them, with
    zones, hosts and weights; addresses are filled in. `directory` keeps everything and may hold an
    earlier cluster of the same nodes, which goes on with its data; by default it is a temporary one
    that is removed at the end unless `keep` is true. `port` is that of the first node, the others
    follow it; by default the nodes have those that they had in this directory, where these are
    free, or else the kernel chooses. `durability` says when a node confirms a write: when it is on
    disk, when the kernel has it (and puts it on disk within `interval` seconds), or when it is in
    memory, where the next start finds nothing of it. `limits` says how much a node may use, and has
    the keys of `dkv.Limits`. `timing` changes how long nodes wait for each other
    (milliseconds; `dkv-node --help` has the names).

    While a cluster exists SIGTERM and SIGHUP interrupt the program as Ctrl-C does, so that nothing
    is left behind, unless the program handles or ignores them.

    Raises `InvalidArgumentError` for a map that makes no ring, a directory that cannot be used, and
    durability or limits that are not possible, `LockedError` if a cluster runs in the directory
    already, `PreconditionError` if dkv-node has not been built or the directory belongs to another
    cluster, and `UnavailableError`, with the node's last words, if a node does not start. None of
    them has changed the directory of another cluster.
    """

    def __init__(
        self,
        nodes: int | Nodes = 5,
        replication: int = 3,
        *,
        directory: str | os.PathLike[str] | None = None,
        keep: bool = False,
        port: int = 0,
        name: str = "local",
        durability: Durability = "always",
        interval: float = 0.1,
        limits: Limits | None = None,
        timing: Mapping[str, int] | None = None,
    ) -> None:
        options = {
            "durability": _durability_field(durability, interval),
            "limits": settings.checked(limits),
            "timing": dict(timing or {}),
        }
        self._program = node_program.path()
        ids = [f"n{i + 1}" for i in range(nodes)] if isinstance(nodes, int) else nodes
        members = Ring(ids, replication).members
        self._owner = os.getpid()
        self._closed = False
        self._temporary = directory is None and not keep
        self._processes: dict[str, _Process] = {}
        self.directory, self._lock = _locked_directory(directory)
        _interrupts.hold()
        atexit.register(self._end)
        try:
            self._take_directory(members, replication, port)
            self.ring = Ring(
                [replace(m, address=self._processes[m.id].address) for m in members], replication
            )
            self._write_configurations(name, options)
            for process in self._processes.values():
                process.start(self._program)
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def _take_directory(self, members: Sequence[Member], replication: int, port: int) -> None:
        """Nodes that were given others to share keys with would look for data where it is not."""
        file = self.directory / "cluster.json"
        description: dict[str, Any] = {"replication": replication, "nodes": _described(members)}
        try:
            former = json.loads(file.read_text()) if file.exists() else description
        except ValueError:
            raise PreconditionError(f"{file} does not describe a cluster: remove it") from None
        ports = former.pop("ports", {})
        if former != description:
            raise PreconditionError(
                f"{self.directory} belongs to a cluster of other nodes or another replication "
                f"({len(former.get('nodes', ()))} nodes, replication {former.get('replication')}; "
                f"all of it in {file}): start that one, or use another directory"
            )
        if self._has_running_node(member.id for member in members):
            raise LockedError(f"a node is running already in {self.directory}: stop it first")
        for i, member in enumerate(members):
            holder = _hold_port(port + i) if port else _hold_former_port(ports.get(member.id, 0))
            self._processes[member.id] = _Process(member.id, self.directory, holder)
        ports = {id: process.port for id, process in self._processes.items()}
        file.write_text(json.dumps({**description, "ports": ports}, indent=2) + "\n")

    def _has_running_node(self, ids: Iterable[str]) -> bool:
        """Whether a node runs there that somebody else has started."""
        return any(_is_locked(self.directory / id / "lock") for id in ids)

    def _write_configurations(self, name: str, options: Mapping[str, Any]) -> None:
        common = [
            f"cluster: {_quoted(name)}",
            f"replication: {self.ring.replication}",
            *(f"{key}: {_quoted(value)}" for key, value in options.items()),
            "nodes:",
        ]
        for member in self.ring.members:
            fields = {"address": member.address, **_described([member])[member.id]}
            common.append(f"  {_quoted(member.id)}: {_quoted(fields)}")
        for process in self._processes.values():
            own = [f"node: {_quoted(process.id)}", f"data: {_quoted(process.data.name)}"]
            process.configuration.write_text("\n".join([*own, *common, ""]))

    # ---- what it is ----

    @property
    def nodes(self) -> tuple[str, ...]:
        """The ids of all nodes, running or not."""
        return self.ring.nodes

    @property
    def addresses(self) -> dict[str, str]:
        """The address of each node."""
        return {id: process.address for id, process in self._processes.items()}

    def address(self, node: str) -> str:
        """The "host:port" of `node`."""
        return self._find(node).address

    def pid(self, node: str) -> int | None:
        """The process id of `node`, or None if it is not running."""
        return self._find(node).pid

    def alive(self, node: str) -> bool:
        """Whether the process of `node` exists; one that is paused does."""
        return self._find(node).pid is not None

    def exit_status(self, node: str) -> int | None:
        """How `node` has ended by itself: its exit status, or the negative of a signal's number.

        None if it is running, or has been ended by this cluster.
        """
        return self._find(node).exit_status

    def configuration(self, node: str) -> Path:
        """The configuration file of `node`: `dkv-node --config` starts it, too."""
        return self._find(node).configuration

    def logs(self, node: str) -> str:
        """All that `node` has written to its log."""
        return self._find(node).read_log()

    # ---- using it ----

    def client(self, **options: Any) -> "Client":
        """A client of this cluster; `options` are those of `dkv.connect`."""
        from dkv.client import connect

        self._check_open()
        running = [id for id in self.nodes if self.alive(id)]
        if not running:
            raise UnavailableError("no node of the cluster is running", nodes=self.nodes)
        return connect(",".join(self.address(id) for id in running[:SEEDS_MAX]), **options)

    def status(self) -> dict[str, "NodeStatus | None"]:
        """What each node says of itself; None for one that does not answer."""
        with self.client() as client:
            return client.status()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Waits until all nodes that were started answer, and have met where they must.

        Nodes of a new cluster all have to meet; later, a node meets another when it has a use for
        it. The default of `timeout` (seconds) grows with the number of nodes. Nodes that are paused
        are left out. Raises `UnavailableError` with the end of its log if a node has ended, and
        `TimeoutError`.
        """
        if timeout is None:
            timeout = READY_TIMEOUT_S + READY_TIMEOUT_PER_NODE_S * len(self.nodes)
        self._check_open()
        deadline = time.monotonic() + timeout
        awaited = {id for id, process in self._processes.items() if process.is_awaited}
        _wait_listening([self._processes[id] for id in awaited], deadline)
        if len(awaited) < 2:
            return
        with self.client(timeout=min(timeout, 60.0)) as client:
            pause = POLL_S
            while strangers := _strangers(client.status(), awaited):
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"after {timeout:g} s these nodes do not reach all others: "
                        f"{', '.join(strangers)}",
                        nodes=strangers,
                    )
                time.sleep(pause)
                pause = min(2 * pause, POLL_MAX_S)  # asking a hundred nodes costs them something

    # ---- breaking it ----

    def kill(self, node: str) -> None:
        """Ends `node` at once, as a crash does (SIGKILL), and waits until it is gone.

        >>> cluster.kill("n1")
        >>> cluster.alive("n1")
        False
        >>> cluster.start("n1")
        """
        self._running(node).end(signal.SIGKILL)

    def stop(self, node: str) -> None:
        """Stops `node` in order (SIGTERM) and waits until it has ended."""
        self._running(node).end(signal.SIGTERM)

    def start(self, node: str, *, wait: bool = True) -> None:
        """Starts `node` again, with the data that it has, and waits until it is in touch again.

        Without `wait` it returns at once: for clusters that something else keeps from that.
        """
        self._check_open()
        process = self._find(node)
        if process.pid is not None:
            raise PreconditionError(f"node {node} is running already")
        process.start(self._program)
        if wait:
            self.wait_ready()

    def pause(self, node: str) -> None:
        """Freezes `node` (SIGSTOP): it accepts connections, but answers nothing."""
        process = self._running(node)
        process.send(signal.SIGSTOP)
        process.is_paused = True

    def resume(self, node: str) -> None:
        """Lets a paused `node` go on (SIGCONT)."""
        process = self._running(node)
        process.send(signal.SIGCONT)
        process.is_paused = False

    def wipe(self, node: str) -> None:
        """Removes all data of `node`, which must not be running."""
        self._check_open()
        process = self._find(node)
        if process.pid is not None:
            raise PreconditionError(f"node {node} is running: kill or stop it first")
        shutil.rmtree(process.data, ignore_errors=True)

    def close(self) -> None:
        """Stops all nodes in order and removes the directory if it is temporary.

        If that is interrupted, the nodes are killed. The directory stays if somebody else has
        started a node in it.
        """
        if self._lock.closed or os.getpid() != self._owner:
            return  # after os.fork() the nodes are the parent's
        self._closed = True
        try:
            for process in self._processes.values():
                process.send_end(signal.SIGTERM)
            for process in self._processes.values():
                process.await_end()
        finally:
            for process in self._processes.values():
                process.end_now()
                process.release_port()
            if self._temporary and not self._has_running_node(self._processes):
                shutil.rmtree(self.directory, ignore_errors=True)
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # forked children have it, too
            self._lock.close()
            atexit.unregister(self._end)
            _interrupts.release()

    def __repr__(self) -> str:
        processes = self._processes.values()
        states = (f"{process.id} {'runs' if process.pid else 'ended'}" for process in processes)
        return f"<dkv.Cluster in {self.directory}: {', '.join(states)}>"

    def _end(self) -> None:
        """Closes when the interpreter ends."""
        if "dkv._net" in sys.modules:
            sys.modules["dkv._net"].ending()
        self.close()

    def _check_open(self) -> None:
        if os.getpid() != self._owner:
            raise PreconditionError(
                "this process was made by fork(); the cluster belongs to the process "
                f"{self._owner}, which started it: connect to it by its addresses"
            )
        if self._closed:
            raise PreconditionError("this cluster is closed")

    def _find(self, node: str) -> "_Process":
        process = self._processes.get(node)
        if process is None:
            raise InvalidArgumentError(
                f"there is no node {node!r} in this cluster, only {', '.join(self._processes)}"
            )
        return process

    def _running(self, node: str) -> "_Process":
        self._check_open()
        process = self._find(node)
        if process.pid is None:
            raise PreconditionError(f"node {node} is not running: start it first")
        return process


_leashes: set[int] = set()
"""The writing ends of all nodes' pipes."""


def _drop_leashes() -> None:
    """A child made by os.fork() must not keep the nodes alive when its parent has ended."""
    for leash in _leashes:
        os.close(leash)
    _leashes.clear()


os.register_at_fork(after_in_child=_drop_leashes)


class _Process:
    """One node: its files, its port, and its process while it runs."""

    def __init__(self, id: str, directory: Path, port_holder: socket.socket) -> None:
        self.id = id
        self.configuration = directory / f"{id}.yaml"
        self.log = directory / f"{id}.log"
        self.data = directory / id
        self._port_holder = port_holder
        self.port: int = port_holder.getsockname()[1]
        self.address = f"{HOST}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._leash = -1
        self.is_paused = False

    @property
    def pid(self) -> int | None:
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def is_awaited(self) -> bool:
        """Whether it should answer: started, and neither ended nor paused by us."""
        return self._process is not None and not self.is_paused

    def read_log(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self, program: Path) -> None:
        self._forget()
        reader, self._leash = os.pipe()
        _leashes.add(self._leash)
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [program, "--config", self.configuration],
                    stdin=reader,
                    stdout=log,
                    stderr=log,
                    process_group=0,  # Ctrl-C is meant for us
                )
            _kill_when_pipe_closes(reader, self._process.pid)
        finally:
            os.close(reader)

    def listens(self) -> bool:
        """Whether it does by now. Raises `UnavailableError` if it has ended."""
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, self.port), timeout=1).close()
            return True
        if self.pid is None:
            raise UnavailableError(
                f"node {self.id} did not start; its log ends with:\n{self.last_words()}",
                nodes=(self.id,),
            )
        return False

    def last_words(self) -> str:
        return "\n".join(self.read_log().splitlines()[-5:]) or "(nothing)"

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def end(self, number: signal.Signals) -> None:
        """Sends a signal that ends the process, and waits until it has ended.

        A process that takes too long is killed, and `TimeoutError` says so.
        """
        self.send_end(number)
        if not self.await_end():
            raise TimeoutError(
                f"node {self.id} did not stop within {STOP_TIMEOUT_S:.0f} s and was killed",
                nodes=(self.id,),
            )

    def send_end(self, number: signal.Signals) -> None:
        self.send(number)
        self.send(signal.SIGCONT)  # a paused process does not see other signals than SIGKILL

    def await_end(self) -> bool:
        """False if the process had to be killed."""
        in_time = True
        if self._process is not None:
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                in_time = False
        self.end_now()
        return in_time

    def end_now(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._forget()

    def _forget(self) -> None:
        self._process = None
        self.is_paused = False
        if self._leash >= 0:
            _leashes.discard(self._leash)
            os.close(self._leash)
            self._leash = -1

    def release_port(self) -> None:
        self._port_holder.close()


def _locked_directory(wanted: str | os.PathLike[str] | None) -> tuple[Path, TextIO]:
    """The directory, made if it is missing, and its lock, which ends when it is closed."""
    try:
        directory = Path(tempfile.mkdtemp(prefix="dkv-") if wanted is None else wanted).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "cluster.lock").open("a+")
    except OSError as error:
        raise InvalidArgumentError(
            f"the directory {wanted or tempfile.gettempdir()} cannot be used: {error.strerror}; "
            "name another one"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise LockedError(
            f"a cluster is running already in {directory} (process {owner}): "
            "stop it first, or use another directory"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return directory, lock


def _is_locked(file: Path) -> bool:
    try:
        with file.open() as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _hold_port(port: int) -> socket.socket:
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((HOST, port))
    except OSError as error:
        holder.close()
        raise UnavailableError(
            f"port {port} cannot be used: {os.strerror(error.errno or 0)}; name another one, "
            "or none to get free ones"
        ) from error
    return holder


def _hold_former_port(port: int) -> socket.socket:
    try:
        return _hold_port(port)
    except UnavailableError:
        return _hold_port(0)


def _wait_listening(processes: Iterable[_Process], deadline: float) -> None:
    """Waits for all of them together, so that the first one that has ended is told of at once."""
    pause = POLL_S
    while waiting := [process for process in processes if not process.listens()]:
        if time.monotonic() > deadline:
            first = waiting[0]
            raise TimeoutError(
                f"node {first.id} does not listen on {first.address}; its log ends with:\n"
                f"{first.last_words()}",
                nodes=[process.id for process in waiting],
            )
        time.sleep(pause)
        pause = min(2 * pause, LISTEN_POLL_MAX_S)
        processes = waiting


def _strangers(
    status: Mapping[str, "NodeStatus | None"], awaited: Collection[str]
) -> tuple[str, ...]:
    """Those of the awaited nodes that do not answer, or do not reach all the others.

    A node whose store needs nothing from a peer connects to it when it first has to ("unknown").
    """
    return tuple(
        id
        for id in sorted(awaited)
        if (answer := status[id]) is None
        or any(peer.id in awaited and peer.reach not in ("up", "unknown") for peer in answer.peers)
    )


def _kill_when_pipe_closes(reader: int, pid: int) -> None:
    """Asks the kernel to send SIGKILL to `pid` when the other end of the pipe is closed."""
    fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
    fcntl.fcntl(reader, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC)


def _described(members: Sequence[Member]) -> dict[str, dict[str, Any]]:
    """What decides where keys are kept, as it stands in a configuration file."""
    nodes: dict[str, dict[str, Any]] = {}
    for member in members:
        if member.token_name != member.id or member.token_indices is not None:
            raise InvalidArgumentError(
                f"node {member.id}: the tokens of a cluster's nodes follow from their ids"
            )
        nodes[member.id] = {"host": member.host, "weight": member.weight}
        if member.zone:
            nodes[member.id]["zone"] = member.zone
    return nodes


def _durability_field(durability: Durability, interval: float) -> str | dict[str, int]:
    milliseconds = settings.interval_ms(durability, interval)
    return {"interval": milliseconds} if durability == "interval" else durability


def _quoted(value: Any) -> str:
    """YAML for `value`: all JSON is YAML, too."""
    return json.dumps(value)
