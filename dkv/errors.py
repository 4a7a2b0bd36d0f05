"""Everything that dkv raises, and the one table from error codes to exceptions.

All exceptions derive from `Error`. Where Python has an exception of the same meaning they derive
from that as well, so `except KeyError` and `except TimeoutError` work as one expects.

>>> import dkv
>>> try:
...     dkv.Ring(["n1"], replication=1).owner("")
... except ValueError as error:
...     print(f"{error.code}: {error}")
INVALID: a key must have 1 to 1,024 bytes, not 0
"""

import builtins
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from dkv.version import Version

Outcome = Literal["applied", "not applied", "unknown"]


class Error(Exception):
    """The base of all of dkv's exceptions."""

    code: ClassVar[str]
    """The name of the error, the same in every language and in the logs."""

    grpc_status: ClassVar[str]
    """The name of the gRPC status with which a node reports it."""

    outcome: Outcome | None
    """What became of a write: "applied", "not applied" or "unknown"; None if it was no write."""

    version: Version | None
    """The version of the write, if one was issued."""

    nodes: tuple[str, ...]
    """The nodes that stood in the way, as far as they are known."""

    holding: tuple[str, ...]
    """The nodes that confirmed the write before it failed."""

    failures: Mapping[str | bytes | bytearray | memoryview, "Error"]
    """Of a call for many keys: the error of each key that failed. Empty otherwise."""

    def __init__(
        self,
        message: str = "",
        *,
        outcome: Outcome | None = None,
        version: Version | None = None,
        nodes: Sequence[str] = (),
        holding: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.outcome = outcome
        self.version = version
        self.nodes = tuple(nodes)
        self.holding = tuple(holding)
        self.failures = {}

    def __str__(self) -> str:
        # KeyError, for one, would show the message in quotes.
        return self.message


class NotFoundError(Error, KeyError):
    """The key does not exist, by the word of at least one replica that is in sync."""

    code = "NOT_FOUND"
    grpc_status = "NOT_FOUND"


class InvalidArgumentError(Error, ValueError):
    """An argument is outside its allowed range. Nothing was changed."""

    code = "INVALID"
    grpc_status = "INVALID_ARGUMENT"


class UnavailableError(Error):
    """Not enough replicas can be reached."""

    code = "UNAVAILABLE"
    grpc_status = "UNAVAILABLE"


class TimeoutError(Error, builtins.TimeoutError):
    """The deadline passed before the outcome was known."""

    code = "DEADLINE"
    grpc_status = "DEADLINE_EXCEEDED"


class BusyError(Error):
    """A bounded queue is full. Try again later."""

    code = "BUSY"
    grpc_status = "RESOURCE_EXHAUSTED"


class NoSpaceError(Error):
    """A disk is full."""

    code = "NO_SPACE"
    grpc_status = "RESOURCE_EXHAUSTED"


class PreconditionError(Error):
    """The state of the node or of the cluster forbids the operation."""

    code = "PRECONDITION"
    grpc_status = "FAILED_PRECONDITION"


class UnauthenticatedError(Error):
    """The caller did not prove who it is."""

    code = "UNAUTHENTICATED"
    grpc_status = "UNAUTHENTICATED"


class PermissionDeniedError(Error, PermissionError):
    """The caller is not allowed to do this."""

    code = "PERMISSION"
    grpc_status = "PERMISSION_DENIED"


class DataLossError(Error):
    """Stored data is damaged or contradicts itself."""

    code = "DATA_LOSS"
    grpc_status = "DATA_LOSS"


class OutOfMemoryError(Error, MemoryError):
    """There is no memory left, here or in the node that was asked."""

    code = "NO_MEMORY"
    grpc_status = "RESOURCE_EXHAUSTED"


class InputOutputError(Error):
    """The operating system reported an input/output error."""

    code = "IO"
    grpc_status = "INTERNAL"


class CancelledError(Error):
    """The operation was cancelled."""

    code = "CANCELLED"
    grpc_status = "CANCELLED"


class ClockError(Error):
    """Clocks differ by more than the allowed drift."""

    code = "CLOCK"
    grpc_status = "FAILED_PRECONDITION"


class ProtocolError(Error):
    """A message or a file does not follow its format."""

    code = "PROTOCOL"
    grpc_status = "INVALID_ARGUMENT"


class EpochError(Error):
    """The cluster maps of the two sides differ."""

    code = "EPOCH"
    grpc_status = "ABORTED"


class LockedError(Error):
    """Another process uses the data directory."""

    code = "LOCKED"
    grpc_status = "FAILED_PRECONDITION"


class InternalError(Error):
    """A bug in dkv: please report it."""

    code = "INTERNAL"
    grpc_status = "INTERNAL"


TABLE: dict[str, type[Error]] = {
    error.code: error
    for error in (
        NotFoundError,
        InvalidArgumentError,
        UnavailableError,
        TimeoutError,
        BusyError,
        NoSpaceError,
        PreconditionError,
        UnauthenticatedError,
        PermissionDeniedError,
        DataLossError,
        OutOfMemoryError,
        InputOutputError,
        CancelledError,
        ClockError,
        ProtocolError,
        EpochError,
        LockedError,
        InternalError,
    )
}
"""The exception for each code of csrc/base/err.h. The extension modules raise by it."""
