"""dkv: a replicated key-value store.

with dkv.Cluster(nodes=5, replication=3) as cluster, cluster.client() as client:
    client.put("greeting", b"hello")
    cluster.kill(cluster.ring.owner("greeting"))
    client.get("greeting")
"""

from typing import TYPE_CHECKING, Any

from dkv import errors
from dkv._version import __version__
from dkv.certificate import Certificate, Difference
from dkv.cluster import Cluster
from dkv.errors import Error
from dkv.results import ClientStats, GetResult, NodeStatus, PeerStatus, PutResult
from dkv.ring import Member, Ring, RingChange, WhatIf
from dkv.settings import Durability, Limits
from dkv.version import Version

if TYPE_CHECKING:
    from dkv import sim as sim
    from dkv.client import Client, connect
    from dkv.node import Node

__all__ = [
    "Certificate",
    "Client",
    "ClientStats",
    "Cluster",
    "Difference",
    "Durability",
    "Error",
    "GetResult",
    "Limits",
    "Member",
    "Node",
    "NodeStatus",
    "PeerStatus",
    "PutResult",
    "Ring",
    "RingChange",
    "Version",
    "WhatIf",
    "__version__",
    "connect",
    "errors",
    "sim",
]

_LOADED_LATE = {"Client": "dkv.client", "connect": "dkv.client", "Node": "dkv.node"}


def __getattr__(name: str) -> Any:
    """Loads gRPC, and the simulator, only when they are needed."""
    import importlib

    if name == "sim":
        return importlib.import_module("dkv.sim")
    if name in _LOADED_LATE:
        return getattr(importlib.import_module(_LOADED_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LOADED_LATE})
