"""A node inside this process: for tests, notebooks, and programs that bring their own storage.

`dkv.Cluster` starts nodes as processes of their own, which is what to measure and to break.
"""

import atexit
import contextlib
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from dkv import _net, settings
from dkv._closing import Closing
from dkv.errors import InvalidArgumentError
from dkv.ring import Ring, _fields_of
from dkv.settings import Durability, Limits

_nodes: "weakref.WeakSet[Node]" = weakref.WeakSet()


@atexit.register
def _stop_nodes() -> None:
    """What still runs when the interpreter ends is stopped in order, too."""
    _net.ending()
    with contextlib.ExitStack() as stack:
        for node in list(_nodes):
            stack.callback(node.stop)


class Node(Closing):
    """One member of a cluster, run by this process until `stop`.

    `ring` describes the cluster: its members, this one among them, each with its address. `data` is
    the directory of the store, made if it is missing. It listens on its address in the ring unless
    `listen` says otherwise. Connections are neither encrypted nor authenticated, so an address that
    other machines can reach needs `insecure=True`. `durability`, `interval` (seconds) and `limits`
    are those of `dkv.Cluster`.

        ring = dkv.Ring([dkv.Member("n1", address="127.0.0.1:7001")], replication=1)
        with dkv.Node("n1", ring, data="n1") as node, dkv.connect(node.address) as client:
            client.put("key", b"value")

    Raises `LockedError` if another process uses the directory, `UnavailableError` if the address
    cannot be bound, `PermissionDeniedError` for a reachable address without `insecure`,
    `PreconditionError` if the directory belongs to another node.
    """

    def __init__(
        self,
        id: str,
        ring: Ring,
        *,
        data: str | os.PathLike[str],
        cluster: str = "dkv",
        listen: str | None = None,
        insecure: bool = False,
        durability: Durability = "always",
        interval: float = 0.1,
        limits: Limits | None = None,
    ) -> None:
        addresses = {member.id: member.address for member in ring.members}
        if id not in addresses:
            raise InvalidArgumentError(
                f"there is no node {id!r} in this ring, only {', '.join(addresses)}"
            )
        interval_ms = settings.interval_ms(durability, interval)
        checked = settings.checked(limits)
        self.id = id
        self._host = (listen or addresses[id]).rpartition(":")[0]
        self._native = _net.Node(
            id,
            os.fsdecode(data),
            cluster,
            ring.replication,
            [_fields_of(member) for member in ring.members],
            listen,
            insecure,
            (settings.DURABILITIES[durability], interval_ms),
            tuple(checked.get(name, 0) for name in settings.RANGES),
        )
        _nodes.add(self)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        directory: str | os.PathLike[str] = ".",
        *,
        insecure: bool = False,
    ) -> Self:
        """A node by the content of a configuration file of dkv-node.

        Paths in it are relative to `directory`, the one that the file is in. All of it is
        possible here but `timing`.
        """
        places = {"node", "data", "cluster", "replication", "nodes", "listen"}
        known = places | {"durability", "limits"}
        unknown = set(config) - known
        if unknown:
            raise InvalidArgumentError(
                f"not an option: {', '.join(sorted(unknown))}; possible are "
                f"{', '.join(sorted(known))}"
            )
        try:
            durability, interval = settings.read_durability(config.get("durability", "always"))
            limits = settings.read_limits(config.get("limits", {}))
            ring = Ring(config["nodes"], config.get("replication", 3))
            return cls(
                config["node"],
                ring,
                data=Path(directory) / config["data"],
                cluster=config["cluster"],
                listen=config.get("listen"),
                insecure=insecure,
                durability=durability,
                interval=interval,
                limits=limits,
            )
        except KeyError as error:
            raise InvalidArgumentError(f"the configuration lacks {error}") from None

    @property
    def address(self) -> str:
        """The "host:port" where it listens."""
        return f"{self._host}:{self._native.port}"

    @property
    def running(self) -> bool:
        """Whether it is running. A node ends by itself only if its disk fails.

        >>> ring = dkv.Ring([dkv.Member("n1", address="127.0.0.1:7001")], replication=1)
        >>> with dkv.Node("n1", ring, data=directory / "n1", listen="127.0.0.1:0") as node:
        ...     node.running
        True
        >>> node.running
        False
        """
        return self._native.running

    def logs(self) -> list[tuple[str, str]]:
        """Its latest messages, 256 at most: pairs of level ("info", "warning", ...) and text."""
        return self._native.logs()

    def stop(self) -> None:
        """Answers what is under way, syncs and stops. Raises why, if it had ended by itself."""
        self._native.stop()

    def close(self) -> None:
        """The same as `stop`."""
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<dkv.Node {self.id} at {self.address}, {state}>"
