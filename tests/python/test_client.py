"""The client from Python, against three real nodes."""

import array
import gc
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

import dkv
from dkv import errors

VALUE_MAX = 1_048_576


# ---- keys, values, results ----


@pytest.mark.parametrize("value", [b"", b"value", b"\0" * 65_537, bytes(range(256)) * 4096])
def test_a_value_comes_back_byte_for_byte(client3: dkv.Client, value: bytes) -> None:
    client3.put("bytes", value)
    assert client3.get("bytes") == value
    assert client3.get("bytes", read="all") == value


@pytest.mark.parametrize(
    "value", ["wörter", bytearray(b"abc"), memoryview(b"abcdef")[2:4], array.array("i", [1, 2])]
)
def test_a_value_may_be_text_or_any_contiguous_buffer(client3: dkv.Client, value: object) -> None:
    client3.put("buffer", value)  # type: ignore[arg-type]
    expected = value.encode() if isinstance(value, str) else bytes(value)
    assert client3.get("buffer") == expected


def test_a_key_may_be_text_or_bytes(client3: dkv.Client) -> None:
    client3.put("ключ", b"1")
    assert client3.get("ключ".encode()) == b"1"
    assert client3.get(bytearray("ключ".encode())) == b"1"
    client3.put("k" * 1024, b"2")
    assert client3.get("k" * 1024) == b"2"


def test_a_put_tells_version_and_replicas(client3: dkv.Client) -> None:
    first = client3.put("told", b"1")
    second = client3.put("told", b"2")
    assert set(second.replicas) == set(client3.ring.replicas("told"))
    assert second.version > first.version
    assert abs(second.version.time.timestamp() - time.time()) < 60
    found = client3.get_versioned("told", read="all")
    assert (found.value, found.version) == (b"2", second.version)
    assert len(found.replicas) == 3
    assert client3.last_seen >= second.version


def test_an_absent_key_is_a_key_error_or_the_default(client3: dkv.Client) -> None:
    with pytest.raises(dkv.errors.NotFoundError) as caught:
        client3.get("absent")
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == "there is no key 'absent'"
    assert caught.value.outcome is None
    assert client3.get("absent", None) is None
    assert client3.get("absent", b"default") == b"default"
    assert "absent" not in client3


def test_a_deleted_key_is_absent_and_deleting_it_again_succeeds(client3: dkv.Client) -> None:
    client3.put("deleted", b"1")
    assert "deleted" in client3
    deleted = client3.delete("deleted")
    assert "deleted" not in client3
    assert client3.delete("deleted").version > deleted.version


def test_the_ring_is_that_of_the_cluster(cluster3: dkv.Cluster, client3: dkv.Client) -> None:
    assert client3.ring == cluster3.ring
    assert client3.nodes == ("n1", "n2", "n3")


def test_every_node_tells_its_status(cluster3: dkv.Cluster, client3: dkv.Client) -> None:
    client3.put("status", b"1")
    for id, status in client3.status().items():
        assert status is not None
        assert status.node_id == id
        assert status.records >= 1
        assert status.scrubbed_ms == 0
        assert {peer.id for peer in status.peers} | {id} == set(cluster3.nodes)


# ---- bad arguments ----


@pytest.mark.parametrize("key", ["", b"", "k" * 1025, "ü" * 513, "\ud800"])
def test_a_bad_key_is_refused(client3: dkv.Client, key: str | bytes) -> None:
    for call in (client3.get, client3.delete, lambda key: client3.put(key, b"")):
        with pytest.raises(ValueError, match=r"key") as caught:
            call(key)
        assert isinstance(caught.value, errors.InvalidArgumentError)


def test_a_value_above_the_limit_is_refused_and_changes_nothing(client3: dkv.Client) -> None:
    client3.put("limit", b"old")
    with pytest.raises(errors.InvalidArgumentError, match="1,048,577") as caught:
        client3.put("limit", bytes(VALUE_MAX + 1))
    assert caught.value.outcome == "not applied"
    assert client3.get("limit") == b"old"


@pytest.mark.parametrize("wrong", [None, 1, 1.5, ["a"]])
def test_what_is_no_bytes_is_a_type_error(client3: dkv.Client, wrong: object) -> None:
    with pytest.raises(TypeError, match="must be str or bytes-like"):
        client3.get(wrong)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="must be str or bytes-like"):
        client3.put("key", wrong)  # type: ignore[arg-type]


def test_a_buffer_with_gaps_is_refused(client3: dkv.Client) -> None:
    with pytest.raises(BufferError):
        client3.put("gaps", memoryview(b"abcdef")[::2])


@pytest.mark.parametrize(
    "timeout",
    [
        *(0, -1, 60.1, float("nan"), float("inf"), 2**64),
        *(pytest.param(10**5000, id="huge"), pytest.param(-(10**5000), id="minus huge")),
    ],
)
def test_a_timeout_outside_its_limits_is_refused(client3: dkv.Client, timeout: float) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="timeout"):
        client3.get("key", timeout=timeout)
    with pytest.raises(errors.InvalidArgumentError, match="timeout"):
        client3.put_many({"key": b""}, timeout=timeout)
    with pytest.raises(errors.InvalidArgumentError, match="timeout"):
        dkv.connect("127.0.0.1:1", timeout=timeout)
    with pytest.raises(errors.InvalidArgumentError, match="timeout"):
        dkv.sim.World(1, 1).get("key", timeout=timeout)


@pytest.mark.parametrize("timeout", ["1", b"1", [1], {}, object()])
def test_a_timeout_that_is_no_number_is_a_type_error(client3: dkv.Client, timeout: object) -> None:
    with pytest.raises(TypeError, match="a number of seconds"):
        client3.get("key", timeout=timeout)  # type: ignore[call-overload]


def test_a_timeout_may_be_any_kind_of_number(client3: dkv.Client) -> None:
    client3.put("timeout", b"", timeout=Fraction(5, 2))  # type: ignore[arg-type]
    client3.put("timeout", b"", timeout=Decimal("2.5"))  # type: ignore[arg-type]
    client3.put("timeout", b"", timeout=True)


def test_an_unknown_level_is_refused(client3: dkv.Client) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="level"):
        client3.get("key", read="most")  # type: ignore[call-overload]
    with pytest.raises(errors.InvalidArgumentError, match="errors"):
        client3.get_many([], errors="ignore")  # type: ignore[call-overload]


# ---- many keys ----


def test_many_values_come_back_in_order(client3: dkv.Client) -> None:
    items = {f"many {i}": b"%d" % i for i in range(5000)}
    results = client3.put_many(items)
    assert len(results) == 5000
    assert all(len(result.replicas) == 3 for result in results)
    keys = [*reversed(items), "absent"]
    assert client3.get_many(keys) == [items.get(key) for key in keys]
    client3.delete_many(list(items)[:100])
    assert client3.get_many(list(items)[:101]) == [None] * 100 + [b"100"]


def test_put_many_takes_pairs_of_any_kind(client3: dkv.Client) -> None:
    client3.put_many((bytes([97 + i]), f"{i}") for i in range(3))
    client3.put_many([("d", bytearray(b"3")), (bytearray(b"e"), memoryview(b"4"))])
    assert client3.get_many(["a", "b", "c", "d", "e"]) == [b"0", b"1", b"2", b"3", b"4"]
    assert client3.put_many({}) == []
    assert client3.get_many(iter([])) == []


def test_large_values_go_in_one_call(client3: dkv.Client) -> None:
    items = {f"large {i}": bytes([i]) * VALUE_MAX for i in range(12)}
    client3.put_many(items, timeout=60)
    assert client3.get_many(items, timeout=60) == list(items.values())


def test_one_text_is_not_many_keys(client3: dkv.Client) -> None:
    with pytest.raises(TypeError, match="several"):
        client3.get_many("abc")
    with pytest.raises(TypeError, match="several"):
        client3.delete_many(b"abc")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (1, TypeError),
        (None, TypeError),
        ("\ud800", errors.InvalidArgumentError),
        (memoryview(b"abcdef")[::2], BufferError),
        (memoryview(bytearray(b"ab")), ValueError),
    ],
)
def test_what_is_no_bytes_anywhere_sends_nothing(
    client3: dkv.Client, wrong: Any, error: type[Exception]
) -> None:
    if isinstance(wrong, memoryview) and wrong.contiguous:
        wrong.release()
    items = [(f"typed {i}", b"") for i in range(3000)]
    for item in [("typed", wrong), (wrong, b"")]:
        with pytest.raises(error):
            client3.put_many([*items, item])
    with pytest.raises(error):
        client3.get_many([*(key for key, _ in items), wrong])
    assert "typed 0" not in client3


def test_failures_are_told_by_key_and_the_rest_is_done(client3: dkv.Client) -> None:
    items = [("good", b"1"), ("k" * 1025, b"2"), (bytearray(2000), b"3")]
    named = r"2 of 3 puts failed; key 'k{59}…: the key has 1,025 bytes; at most 1,024"
    with pytest.raises(errors.InvalidArgumentError, match=named) as caught:
        client3.put_many(items)
    assert set(caught.value.failures) == {"k" * 1025, bytes(2000)}
    assert client3.get("good") == b"1"
    returned = client3.put_many(items, errors="return")
    assert isinstance(returned[0], dkv.PutResult)
    assert [type(item) for item in returned[1:]] == [errors.InvalidArgumentError] * 2


# ---- threads ----


def test_threads_share_a_client(client3: dkv.Client) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for i in range(100):
            key, value = f"thread {number} {i % 7}", b"%d %d" % (number, i)
            client3.put(key, value)
            if client3.get(key) != value:
                wrong.append(key)
        keys = [f"batch {number} {i}" for i in range(300)]
        client3.put_many(dict.fromkeys(keys, b"x"))
        if client3.get_many(keys) != [b"x"] * 300:
            wrong.append("batch")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- trouble ----


@pytest.fixture
def frozen(cluster3: dkv.Cluster) -> Iterator[dkv.Client]:
    """A connected client of a cluster of which no node answers."""
    with cluster3.client() as client:
        client.put("frozen", b"before")
        for node in cluster3.nodes:
            cluster3.pause(node)
        try:
            yield client
        finally:
            for node in cluster3.nodes:
                cluster3.resume(node)


def test_a_frozen_owner_does_not_stop_reads(cluster3: dkv.Cluster, client3: dkv.Client) -> None:
    client3.put("hedged", b"value")
    owner = client3.ring.owner("hedged")
    cluster3.pause(owner)
    try:
        found = client3.get_versioned("hedged")
    finally:
        cluster3.resume(owner)
    assert found.value == b"value"
    assert owner not in found.replicas


def test_deadlines_tell_what_became_of_a_write(frozen: dkv.Client) -> None:
    with pytest.raises(errors.TimeoutError) as caught:
        frozen.get("frozen", timeout=0.2)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.outcome is None
    with pytest.raises(errors.TimeoutError) as caught:
        frozen.put("frozen", b"after", timeout=0.2)
    assert caught.value.outcome == "unknown"
    assert len(caught.value.nodes) == 1


def test_a_node_that_dies_under_a_write_makes_it_unknown_and_the_error_says_what_to_do() -> None:
    with dkv.Cluster(3, 3) as cluster, cluster.client() as client:
        client.put("key", b"before")
        owner = cluster.ring.owner("key")
        cluster.pause(owner)
        threading.Timer(0.3, cluster.kill, [owner]).start()
        with pytest.raises(errors.UnavailableError) as caught:
            client.put("key", b"after")
        assert caught.value.outcome == "unknown"
        text = str(caught.value)
        assert text.startswith(f"the outcome of the put is unknown: {owner}: it was sent")
        assert text.endswith("read the key, or write it again; nothing sends it again by itself")
        for node in set(cluster.nodes) - {owner}:
            cluster.kill(node)
        with pytest.raises(errors.UnavailableError, match=r"^the get failed: ") as caught:
            client.get("key")
        assert all(f"{node}: " in str(caught.value) for node in cluster.nodes)


def test_a_buffer_is_held_while_it_is_in_use(frozen: dkv.Client) -> None:
    """Nobody can change its size meanwhile; afterwards it is free again."""
    value = bytearray(b"value")

    def work() -> None:
        with pytest.raises(errors.TimeoutError):
            frozen.put("frozen", value, timeout=1)

    thread = threading.Thread(target=work)
    thread.start()
    refused = False
    while thread.is_alive() and not refused:
        try:
            value.append(1)
            value.pop()
        except BufferError:
            refused = True
    thread.join()
    assert refused
    value.clear()


def test_a_batch_raises_the_error_that_is_least_certain(frozen: dkv.Client) -> None:
    with pytest.raises(errors.TimeoutError) as caught:
        frozen.put_many([("k" * 1025, b""), ("frozen", b"after")], timeout=0.2)
    assert caught.value.outcome == "unknown"
    outcomes = {key: error.outcome for key, error in caught.value.failures.items()}
    assert outcomes == {"k" * 1025: "not applied", "frozen": "unknown"}


def test_closing_ends_calls_in_other_threads(frozen: dkv.Client) -> None:
    ended: list[BaseException] = []

    def wait(call: str) -> None:
        try:
            if call == "put":
                frozen.put("frozen", b"after", timeout=60)
            else:
                frozen.get_many([f"{i}" for i in range(3000)], timeout=60)
        except errors.Error as error:
            ended.append(error)

    threads = [threading.Thread(target=wait, args=(call,)) for call in ("put", "put", "many")]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    frozen.close()
    for thread in threads:
        thread.join(30)
    assert [type(error) for error in ended] == [errors.CancelledError] * 3


def test_a_client_may_be_forgotten_without_closing(cluster3: dkv.Cluster) -> None:
    for _ in range(3):
        client = cluster3.client()
        client.put("forgotten", b"1")
        del client
        gc.collect()


def test_nobody_to_connect_to_is_told_with_reasons() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(errors.UnavailableError, match=address):
            dkv.connect(address)


@pytest.mark.parametrize("seeds", ["", "localhost", "localhost:", "a:1,", ["a:1", "b"]])
def test_a_bad_address_is_refused(seeds: str | list[str]) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="host:port"):
        dkv.connect(seeds)


@pytest.mark.parametrize("seeds", [None, 7001, b"localhost:7001", [None], [b"localhost:7001"]])
def test_what_is_no_text_is_no_address(seeds: object) -> None:
    with pytest.raises(TypeError, match=r'"host:port'):
        dkv.connect(seeds)  # type: ignore[arg-type]


def test_a_client_shows_what_it_is(cluster3: dkv.Cluster) -> None:
    with cluster3.client() as client:
        assert repr(client) == "<dkv.Client of cluster 'local': 3 nodes, N = 3>"
    assert repr(client) == "<dkv.Client: this client is closed>"


def test_importing_dkv_loads_no_grpc() -> None:
    code = "import dkv, sys; dkv.Ring(['a'], 1); print([m for m in sys.modules if '_net' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout == "[]\n"
