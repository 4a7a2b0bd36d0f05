"""The version of a value: which write of its key it is."""

from typing import NamedTuple


class Version(NamedTuple):
    """Names one write. A version is never issued twice, and later writes have greater versions.

    >>> Version(hlc=2, origin=1) > Version(hlc=1, origin=9)
    True
    """

    hlc: int
    """Hybrid logical clock: milliseconds since 1970 × 65,536, plus a counter."""

    origin: int
    """The id of the store whose node issued the version."""
