"""dkv: a replicated key-value store."""

from dkv import errors
from dkv._version import __version__
from dkv.cluster import Cluster
from dkv.errors import Error
from dkv.ring import Member, Ring, RingChange
from dkv.version import Version

__all__ = ["Cluster", "Error", "Member", "Ring", "RingChange", "Version", "__version__", "errors"]
