"""What nodes are told about themselves: when a write is confirmed, and how much they may use."""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast

from dkv.errors import InvalidArgumentError

Durability = Literal["always", "interval", "memory"]
"""A write is confirmed when it is on disk; when the kernel has it, which puts it on disk within an
interval; or when it is in memory, and on no disk."""

DURABILITIES: dict[Durability, int] = {"always": 0, "interval": 1, "memory": 2}
INTERVAL_MAX_S = 60.0

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_UNITS = {"": 1, "B": 1, "KiB": _KIB, "MiB": _MIB, "GiB": _GIB}


class Limits(TypedDict, total=False):
    """What one node may use at most; clients that ask for more are told that it is busy.

    What is left out has its default value. `requests` is a number, all others are bytes (`scrub`:
    in a second).

    >>> few: Limits = {"requests": 100, "segment": 16 << 20}
    >>> checked(few)
    {'requests': 100, 'segment': 16777216}
    """

    requests: int
    """Of clients, under way: 16 to 65,536, which is the default."""
    request_memory: int
    """Bytes of their keys and values: 8 MiB to 16 GiB; 64 MiB."""
    receive_memory: int
    """Bytes that have come in and were not yet looked at: 32 MiB to 64 GiB; 512 MiB."""
    write_memory: int
    """Bytes that are not yet on disk: 8 MiB to 1 GiB; 64 MiB."""
    cache_memory: int
    """Bytes of values read lately that stay in memory: 1 MiB to 64 GiB; 16 MiB."""
    segment: int
    """Bytes of a file of the log: 4 MiB to 1 GiB; 64 MiB."""
    scrub: int
    """Bytes read in a second to find damage: 1 MiB to 1 GiB; 8 MiB."""


RANGES: dict[str, tuple[int, int]] = {
    "requests": (16, 65_536),
    "request_memory": (8 * _MIB, 16 * _GIB),
    "receive_memory": (32 * _MIB, 64 * _GIB),
    "write_memory": (8 * _MIB, _GIB),
    "cache_memory": (_MIB, 64 * _GIB),
    "segment": (4 * _MIB, _GIB),
    "scrub": (_MIB, _GIB),
}
"""The least and the greatest value of each limit, as node/config.c has them."""


def interval_ms(durability: Durability, interval: float) -> int:
    """The interval in milliseconds, if both are possible."""
    if durability not in DURABILITIES:
        raise InvalidArgumentError(
            f'durability is "always", "interval" or "memory", not {durability!r}'
        )
    try:
        if 0.001 <= interval <= INTERVAL_MAX_S:
            return round(interval * 1000)
    except TypeError:
        raise TypeError(f"an interval must be a number of seconds, not {interval!r}") from None
    raise InvalidArgumentError(
        f"an interval must be 0.001 to {INTERVAL_MAX_S:.0f} seconds, not {interval!r}"
    )


def checked(limits: Mapping[str, Any] | None) -> dict[str, int]:
    """The limits, if all of them are possible."""
    limits = limits or {}
    for name, value in limits.items():
        if name not in RANGES:
            raise InvalidArgumentError(f"there is no limit {name!r}, only {', '.join(RANGES)}")
        least, greatest = RANGES[name]
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"the limit {name} must be a whole number, not {value!r}")
        if not least <= value <= greatest:
            raise InvalidArgumentError(
                f"the limit {name} must be {least:,} to {greatest:,}, not {value:,}"
            )
    return dict(limits)


def read_durability(value: Any) -> tuple[Durability, float]:
    """Durability and interval in seconds, as they stand in a configuration file of dkv-node."""
    if isinstance(value, Mapping) and set(value) == {"interval"}:
        return "interval", value["interval"] / 1000
    if value in ("always", "memory"):
        return value, 0.1
    raise InvalidArgumentError(
        f"durability: {value!r} is not always, memory or {{interval: milliseconds}}"
    )


def read_limits(limits: Mapping[str, Any]) -> Limits:
    """Limits as they stand in such a file, where sizes may have units, in bytes."""
    return cast(Limits, {name: _bytes(value) for name, value in limits.items()})


def _bytes(value: Any) -> Any:
    found = re.fullmatch(r"(\d+) *([A-Za-z]*)", value) if isinstance(value, str) else None
    return int(found[1]) * _UNITS[found[2]] if found and found[2] in _UNITS else value
