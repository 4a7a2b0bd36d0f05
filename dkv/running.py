"""The clusters of `dkv up` that run on this machine, so that other commands find them.

Each has a file in the user's state directory, named for its process and locked as long as that
lives: a file without a lock is what a process left behind that was killed.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Running:
    """One `dkv up`."""

    pid: int
    addresses: str
    """Of its nodes, as `dkv.connect` takes them."""

    directory: str

    @classmethod
    def _read(cls, file: Path) -> Self:
        return cls(**json.loads(file.read_text()))


def directory() -> Path:
    """Where the files are."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "dkv" / "running"


@contextlib.contextmanager
def announced(addresses: str, data: Path) -> Iterator[None]:
    """Lets other commands find the cluster for as long as it runs. Raises `OSError`."""
    entry = Running(os.getpid(), addresses, str(data))
    directory().mkdir(parents=True, exist_ok=True)
    file = directory() / f"{entry.pid}.json"
    unfinished = file.with_suffix(".new")
    with unfinished.open("w") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        json.dump(asdict(entry), locked)
        locked.flush()
        unfinished.rename(file)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def clusters() -> tuple[list[Running], list[Running]]:
    """Those that run, and those that have ended without stopping; each from the oldest."""
    alive: list[Running] = []
    ended: list[Running] = []
    for file in sorted(directory().glob("*.json"), key=_age):
        with contextlib.suppress(OSError, ValueError, TypeError):
            (alive if _is_locked(file) else ended).append(Running._read(file))
    return alive, ended


def forget(ended: Running) -> None:
    """Removes what tells of a cluster that has ended."""
    (directory() / f"{ended.pid}.json").unlink(missing_ok=True)


def _age(file: Path) -> float:
    with contextlib.suppress(OSError):
        return file.stat().st_mtime
    return 0


def _is_locked(file: Path) -> bool:
    with file.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
