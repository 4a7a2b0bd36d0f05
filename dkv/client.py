"""The client: reads and writes the keys of a running cluster.

    with dkv.connect("127.0.0.1:7001,127.0.0.1:7002") as client:
        client.put("greeting", b"hello")
        client.get("greeting")

A client knows the cluster's ring, so each request goes straight to the key's owner. A read that the
owner does not answer is answered by another replica within the same call; a write is sent to one
node only, and its error says what became of it.
"""

import atexit
import contextlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, TypeVar, overload

from dkv import _net
from dkv._closing import Closing
from dkv._timeout import milliseconds
from dkv.certificate import Certificate, Holding, certify, holding_of
from dkv.errors import (
    BusyError,
    Error,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from dkv.errors import TimeoutError as DkvTimeoutError
from dkv.results import ClientStats, GetResult, NodeStatus, PutResult
from dkv.ring import Key, Member, Ring
from dkv.version import Version

Value = str | bytes | bytearray | memoryview
"""A value: 0 to 1,048,576 bytes. A str stands for its UTF-8."""

Items = (
    Mapping[str, Value] | Mapping[bytes, Value] | Mapping[Key, Value] | Iterable[tuple[Key, Value]]
)
"""Keys with their values: a mapping, or pairs."""

Level = Literal["one", "quorum", "all"]
"""How many of a key's N replicas must answer: one, more than half, or all."""

SHOWN_MAX = 60

ASK_MAX_MS = 2000
"""For one node, so that a silent one leaves time for the others."""

ASK_AGAIN_S = 0.2

ALONE = "the cluster has no other node to which this could be said"

_LEVELS = {"one": 1, "quorum": 2, "all": 3}
_GET, _PUT, _DELETE = "get", "put", "delete"


atexit.register(_net.ending)


class _Missing(Enum):
    MISSING = 0


Default = TypeVar("Default")
Result = TypeVar("Result")


def connect(seeds: str | Iterable[str], *, timeout: float = 5.0) -> "Client":
    """Connects to a cluster, of which `seeds` names at least one node that is running.

    `seeds` is "host:port,host:port" or several "host:port"; they are asked for the cluster map in
    this order. `timeout` (seconds, up to 60) is for connecting, and for each operation that names
    none.

    Raises `InvalidArgumentError` for an address that cannot be one, `UnavailableError` if no seed
    answers in time.
    """
    return Client(seeds, timeout=timeout)


class Client(Closing):
    """A connection to a cluster, made by `dkv.connect`. Any number of threads may share it.

    Keys have 1 to 1,024 bytes, values 0 to 1,048,576; a str stands for its UTF-8. Timeouts are in
    seconds, 0.001 to 60. Of the errors, all derived from `dkv.Error`:

    - `InvalidArgumentError`: a key, value or timeout outside its limits. Nothing was sent.
    - `UnavailableError`: not enough replicas can be reached; `nodes` names those missing.
    - `TimeoutError`: the timeout passed.
    - `BusyError`: a node has too much to do. Try again later.

    An error of a write has `outcome`. "not applied": no replica holds the write and none will.
    "unknown": some replicas may hold it (`holding` are those that confirmed), others not; reading
    the key, or writing it again, settles that. The client never sends such a write again by itself.

    A client does not survive `os.fork()`: in the child its methods raise `PreconditionError`.
    """

    def __init__(self, seeds: str | Iterable[str], *, timeout: float = 5.0) -> None:
        self._native = _net.Client(_joined(seeds), milliseconds(timeout), 0)
        self._timeout = timeout
        self._ring: Ring | None = None

    # ---- one key ----

    @overload
    def get(self, key: Key, *, read: Level = ..., timeout: float | None = ...) -> bytes: ...
    @overload
    def get(
        self, key: Key, default: Default, *, read: Level = ..., timeout: float | None = ...
    ) -> bytes | Default: ...
    def get(
        self,
        key: Key,
        default: Default | _Missing = _Missing.MISSING,
        *,
        read: Level = "one",
        timeout: float | None = None,
    ) -> bytes | Default:
        """The value of `key`, or `default` if it has none.

        `read="one"` returns what the first replica to answer holds; "quorum" and "all" compare so
        many replicas and return the newest value.

        Raises `NotFoundError` (a `KeyError`) if the key does not exist and no default is given;
        `UnavailableError` if no replica that could be reached can vouch for that.

        >>> client.get("colour", b"none yet")
        b'none yet'
        """
        try:
            return self._native.get(key, _level(read), self._ms(timeout))
        except NotFoundError as error:
            if default is _Missing.MISSING:
                error.message = f"there is no key {_shown(key)}"
                raise
            return default

    def get_versioned(
        self, key: Key, *, read: Level = "one", timeout: float | None = None
    ) -> GetResult:
        """As `get`, with the version of the value and the nodes that answered with it.

        >>> client.put("shape", "round").version == client.get_versioned("shape").version
        True
        """
        return self._native.get_versioned(key, _level(read), self._ms(timeout))

    def put(
        self, key: Key, value: Value, *, write: Level = "all", timeout: float | None = None
    ) -> PutResult:
        """Stores `value` under `key` and returns when the replicas have it on their disks.

        `write` is how many of them must. At "all", a dead replica refuses the put, which leaves the
        old value in place; "quorum" is the way to write all the same.

        >>> sorted(client.put("greeting", b"hello").replicas)
        ['n1', 'n2', 'n3']
        >>> client.get("greeting")
        b'hello'
        """
        return self._native.put(key, value, _level(write), self._ms(timeout))

    def delete(self, key: Key, *, write: Level = "all", timeout: float | None = None) -> PutResult:
        """Deletes `key`. Deleting a key that does not exist succeeds.

        >>> deleted = client.delete("greeting", write="quorum", timeout=2.5)
        >>> "greeting" in client
        False
        """
        return self._native.delete(key, _level(write), self._ms(timeout))

    def __contains__(self, key: Key) -> bool:
        """Whether `key` exists. Costs as much as reading it."""
        try:
            self.get(key)
        except NotFoundError:
            return False
        return True

    # ---- many keys ----
    #
    # Each key is an operation of its own, with its own timeout, which runs from when it is sent. A
    # thousand or two are on their way at once, in batches to each node. Nothing is atomic across
    # keys, and operations of one call on the same key may be applied in any order.

    @overload
    def get_many(
        self,
        keys: Iterable[Key],
        *,
        read: Level = ...,
        timeout: float | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[bytes | None]: ...
    @overload
    def get_many(
        self,
        keys: Iterable[Key],
        *,
        read: Level = ...,
        timeout: float | None = ...,
        errors: Literal["return"],
    ) -> list[bytes | Error | None]: ...
    def get_many(
        self,
        keys: Iterable[Key],
        *,
        read: Level = "one",
        timeout: float | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[bytes | None] | list[bytes | Error | None]:
        """The values of `keys`, in their order; None for a key that does not exist.

        If some keys cannot be read, the first one's error is raised, and its `failures` maps each
        of these keys to its error. With `errors="return"` the errors stand in the list instead.

        >>> put = client.put("size", b"small")
        >>> client.get_many(["size", "weight"])
        [b'small', None]
        >>> client.get_many(["size", ""], errors="return")
        [b'small', InvalidArgumentError(...)]
        """
        _check_errors(errors)
        listed = _listed(keys, "keys")
        results = self._native.get_many(listed, _level(read), self._ms(timeout))
        return results if errors == "return" else _raise_failures(_GET, listed, results)

    @overload
    def put_many(
        self,
        items: Items,
        *,
        write: Level = ...,
        timeout: float | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[PutResult]: ...
    @overload
    def put_many(
        self,
        items: Items,
        *,
        write: Level = ...,
        timeout: float | None = ...,
        errors: Literal["return"],
    ) -> list[PutResult | Error]: ...
    def put_many(
        self,
        items: Items,
        *,
        write: Level = "all",
        timeout: float | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[PutResult] | list[PutResult | Error]:
        """Stores many values: a mapping, or pairs of key and value. Returns a result for each.

        If some puts fail, the others are carried out all the same. Then an error is raised: the
        first one whose outcome is unknown, or else the first one. Its `failures` maps each key that
        failed to its error. With `errors="return"` the errors stand in the list instead.

        >>> results = client.put_many({f"key {i}": b"value" for i in range(10_000)})
        >>> results[0].version
        Version(hlc=..., origin=...)
        """
        _check_errors(errors)
        pairs = list(items.items()) if isinstance(items, Mapping) else _listed(items, "items")
        listed: list[Key] = []
        values: list[Value] = []
        for key, value in pairs:
            listed.append(key)
            values.append(value)
        results = self._native.put_many(listed, values, _level(write), self._ms(timeout))
        return results if errors == "return" else _raise_failures(_PUT, listed, results)

    @overload
    def delete_many(
        self,
        keys: Iterable[Key],
        *,
        write: Level = ...,
        timeout: float | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[PutResult]: ...
    @overload
    def delete_many(
        self,
        keys: Iterable[Key],
        *,
        write: Level = ...,
        timeout: float | None = ...,
        errors: Literal["return"],
    ) -> list[PutResult | Error]: ...
    def delete_many(
        self,
        keys: Iterable[Key],
        *,
        write: Level = "all",
        timeout: float | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[PutResult] | list[PutResult | Error]:
        """Deletes many keys. Results and errors are those of `put_many`."""
        _check_errors(errors)
        listed = _listed(keys, "keys")
        results = self._native.delete_many(listed, _level(write), self._ms(timeout))
        return results if errors == "return" else _raise_failures(_DELETE, listed, results)

    # ---- the cluster ----

    @property
    def ring(self) -> Ring:
        """Which nodes hold which key, by the cluster's map."""
        if self._ring is None:
            _, _, replication, members = self._native.map()
            self._ring = Ring([Member(*fields) for fields in members], replication)
        return self._ring

    @property
    def nodes(self) -> tuple[str, ...]:
        """The ids of the cluster's nodes, running or not."""
        return self.ring.nodes

    @property
    def last_seen(self) -> Version:
        """The newest version that this client has read or written.

        Its next write will have a newer one, whatever the clocks of the nodes say.
        """
        return self._native.last_seen()

    def stats(self) -> ClientStats:
        """What this client has done since it was connected.

        >>> client.stats()
        ClientStats(reads=..., hedged=..., passed_over=...)
        """
        return ClientStats(*self._native.stats())

    def status(self, *, timeout: float = 2.0) -> dict[str, NodeStatus | None]:
        """What each node says of itself; None for one that does not answer in `timeout` seconds.

        >>> {node: status.in_sync for node, status in client.status().items() if status}
        {'n1': True, 'n2': True, 'n3': True}
        """
        return self._status(self.nodes, milliseconds(timeout))

    def _status(self, nodes: tuple[str, ...], timeout_ms: int) -> dict[str, NodeStatus | None]:
        answers = self._native.status(nodes, timeout_ms)
        return {
            node: NodeStatus._of(answer) if (answer := _told(one)) else None
            for node, one in zip(nodes, answers, strict=True)
        }

    def verify(self, *, timeout: float | None = None) -> Certificate:
        """Compares all replicas of all keys by digests, and says whether they are identical.

        This reads no values and costs a node some milliseconds. Where replicas differ it asks
        again, for up to `timeout` seconds: they do for moments while the cluster is written to,
        and longer while it heals.

        Raises `PreconditionError` if the nodes do not all follow the same cluster map.

        >>> put = client.put("colour", b"blue")
        >>> client.verify().converged
        True
        """
        seconds = self._ms(timeout) / 1000
        return certify(self._holdings_of, self.nodes, self.ring.replication, seconds)

    def _holdings_of(self, nodes: Collection[str], timeout: float) -> dict[str, Holding | None]:
        replies: dict[str, list[dict[str, Any]]] = {node: [] for node in nodes}
        holdings: dict[str, Holding | None] = {}
        firsts = dict.fromkeys(nodes, 0)
        while firsts:
            asked = tuple(firsts)
            answers = self._native.shares(asked, tuple(firsts.values()), milliseconds(timeout))
            for node, one in zip(asked, answers, strict=True):
                del firsts[node]
                if reply := _told(one):
                    replies[node].append(reply)
                    if reply["more"] and reply["shares"]:
                        firsts[node] = reply["shares"][-1]["last"] + 1
                        continue
                holdings[node] = holding_of(replies[node]) if reply else None
        return holdings

    def declare_lost(self, node: str, *, timeout: float | None = None) -> dict[str, Error | None]:
        """Says to all other nodes that what `node` held is gone for good, because its disk is.

        A node that has lost data itself is not believed about absent keys before it has compared
        all with every other replica. This is the word not to wait for `node` any more, nor for what
        it held: whatever that node alone held is given up. If it comes back all the same, its data
        is merged; if it comes back empty, it is filled from the others, as always.

        Returns what each other node said: None if it has taken it in, durably, else its error.
        Repeat it for those that failed, and for a node that loses its own data later on while
        `node` is still away.

        Raises `InvalidArgumentError` for a node that is not one of the cluster's;
        `PreconditionError` if it can be reached: stop it first; the first error if nobody took it
        in.

        >>> client.declare_lost("n2")
        Traceback (most recent call last):
            ...
        dkv.errors.PreconditionError: node n2 answers, so it is not lost: stop it first...
        """
        if node not in self.nodes:
            raise InvalidArgumentError(
                f"there is no node {node!r} in this cluster; its nodes are {', '.join(self.nodes)}"
            )
        deadline = time.monotonic() + self._ms(timeout) / 1000
        if self._status((node,), min(ASK_MAX_MS, self._ms(timeout)))[node]:
            raise PreconditionError(
                f"node {node} answers, so it is not lost: stop it first, if it is to be given up"
            )
        said = self._tell_lost(tuple(one for one in self.nodes if one != node), node, deadline)
        if None not in said.values():
            raise next((error for error in said.values() if error), PreconditionError(ALONE))
        return said

    def _tell_lost(
        self, nodes: tuple[str, ...], lost: str, deadline: float
    ) -> dict[str, Error | None]:
        """Busy is what a node is while it tries to reach the lost one."""
        said: dict[str, Error | None] = {}
        while nodes:
            left_ms = max(1, round((deadline - time.monotonic()) * 1000))
            answers = self._native.declare_lost(nodes, lost, min(ASK_MAX_MS, left_ms))
            for node, answer in zip(nodes, answers, strict=True):
                said[node] = answer if isinstance(answer, Error) else None
            nodes = tuple(node for node, error in said.items() if isinstance(error, BusyError))
            if time.monotonic() + ASK_AGAIN_S >= deadline:
                break
            if nodes:
                time.sleep(ASK_AGAIN_S)
        return said

    # ---- the end ----

    def close(self) -> None:
        """Closes all connections. Calls under way in other threads end with an error."""
        self._native.close()

    def __repr__(self) -> str:
        try:
            cluster, _, replication, members = self._native.map()
        except PreconditionError as error:
            return f"<dkv.Client: {error}>"
        return f"<dkv.Client of cluster {cluster!r}: {len(members)} nodes, N = {replication}>"

    def _ms(self, timeout: float | None) -> int:
        return milliseconds(self._timeout if timeout is None else timeout)


# ---- arguments ----


def _joined(seeds: str | Iterable[str]) -> str:
    listed = [seeds] if isinstance(seeds, str) else seeds
    if not isinstance(listed, Iterable) or isinstance(listed, bytes):
        raise TypeError(f'seeds must be "host:port,host:port" or several of them, not {seeds!r}')
    listed = list(listed)
    for seed in listed:
        if not isinstance(seed, str):
            raise TypeError(f'a seed must be text, "host:port", not {seed!r}')
    return ",".join(listed)


def _level(level: Level) -> int:
    number = _LEVELS.get(level)
    if number is None:
        raise InvalidArgumentError(f'a level is "one", "quorum" or "all", not {level!r}')
    return number


def _check_errors(errors: str) -> None:
    if errors not in ("raise", "return"):
        raise InvalidArgumentError(f'errors must be "raise" or "return", not {errors!r}')


Item = TypeVar("Item")


def _listed(items: Iterable[Item], what: str) -> list[Item]:
    if isinstance(items, str | bytes | bytearray | memoryview):
        raise TypeError(f"{what} must be several, not one {type(items).__name__}")
    return list(items)


# ---- failures ----


def _told(answer: dict[str, Any] | Error) -> dict[str, Any] | None:
    """What a node has answered; None if it could not be reached in time."""
    if isinstance(answer, UnavailableError | DkvTimeoutError):
        return None
    if isinstance(answer, Error):
        raise answer
    return answer


def _raise_failures(done: str, keys: Sequence[Key], results: list[Result | Error]) -> list[Result]:
    """`results`, or the error that stands for all those among them."""
    failures: dict[Key, Error] = {}
    good: list[Result] = []
    for key, result in zip(keys, results, strict=True):
        if isinstance(result, Error):
            failures[_hashable(key)] = result
        else:
            good.append(result)
    if not failures:
        return good
    unknown = (key for key, error in failures.items() if error.outcome == "unknown")
    key = next(unknown, next(iter(failures)))
    first = failures[key]
    first.failures = failures
    count = f"{len(failures):,} of {len(keys):,} {done}s failed; " if len(keys) > 1 else ""
    first.message = f"{count}key {_shown(key)}: {first.message}"
    raise first


def _hashable(key: Key) -> Key:
    return key if isinstance(key, str | bytes) else bytes(key)


def _shown(key: Key) -> str:
    """`key` as it may stand in a sentence: as text if it is that."""
    text: Key = key if isinstance(key, str) else bytes(key)
    if isinstance(text, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            text = text.decode()
    shown = repr(text)
    return shown if len(shown) <= SHOWN_MAX else f"{shown[:SHOWN_MAX]}…"
