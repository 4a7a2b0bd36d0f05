"""dkv: a replicated key-value store."""

from dkv._version import __version__

__all__ = ["__version__"]
