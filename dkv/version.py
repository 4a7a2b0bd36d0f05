"""The version of a value: which write of its key it is."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Version(NamedTuple):
    """Names one write. A version is never issued twice, and later writes have greater versions.

    >>> Version(hlc=2, origin=1) > Version(hlc=1, origin=9)
    True
    >>> version = Version(hlc=1_700_000_000_123 << 16 | 2, origin=0xABC)
    >>> version.time.isoformat()
    '2023-11-14T22:13:20.123000+00:00'
    >>> str(version)
    '2023-11-14T22:13:20.123Z+2@0000000000000abc'
    """

    hlc: int
    """Hybrid logical clock: milliseconds since 1970 × 65,536, plus a counter."""

    origin: int
    """The id of the store whose node issued the version."""

    @property
    def time(self) -> datetime:
        """When it was issued (UTC), by a clock that never goes back; exact to the millisecond."""
        return _EPOCH + timedelta(milliseconds=self.hlc >> 16)

    def __str__(self) -> str:
        time = self.time.strftime("%Y-%m-%dT%H:%M:%S")
        milliseconds = (self.hlc >> 16) % 1000
        return f"{time}.{milliseconds:03}Z+{self.hlc & 0xFFFF}@{self.origin:016x}"
