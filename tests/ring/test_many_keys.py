"""Many keys at once: the arrays agree with the ring asked key by key."""

import subprocess
import sys
import threading
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dkv
from dkv import Member, Ring

few = settings(max_examples=60, deadline=None)

KEY_BYTES = st.binary(min_size=1, max_size=40)
KEYS = st.one_of(
    KEY_BYTES,
    KEY_BYTES.map(bytearray),
    KEY_BYTES.map(memoryview),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
)


@st.composite
def rings(draw: st.DrawFn) -> Ring:
    n = draw(st.integers(1, 12))
    zones = st.sampled_from(["", "east", "west"])
    weights = st.integers(1, 3)
    members = [Member(f"n{i}", zone=draw(zones), weight=draw(weights)) for i in range(n)]
    return Ring(members, draw(st.integers(1, min(5, n))))


def assert_agrees(ring: Ring, given_keys: Any, keys: list[Any]) -> None:
    """What the ring says of `given_keys` at once is what it says of each of `keys`."""
    owners, table = ring.owners(given_keys), ring.replica_table(given_keys)
    assert owners.dtype == table.dtype == np.intp
    assert owners.shape == (len(keys),) and table.shape == (len(keys), ring.replication)
    names = np.array(ring.nodes)
    assert [tuple(row) for row in names[table]] == [ring.replicas(key) for key in keys]
    assert list(names[owners]) == [ring.owner(key) for key in keys]


@few
@given(rings(), st.lists(KEYS))
def test_sequences_of_keys(ring: Ring, keys: list[Any]) -> None:
    assert_agrees(ring, keys, keys)
    assert_agrees(ring, tuple(keys), keys)
    assert (ring.owners(iter(keys)) == ring.owners(keys)).all()


@few
@given(rings(), st.lists(KEY_BYTES))
def test_arrays_of_bytes(ring: Ring, keys: list[bytes]) -> None:
    """Type "S" drops the NULs at the end, as it does for NumPy itself; object keeps them."""
    kept = [key for key in keys if key.rstrip(b"\0")]
    assert_agrees(ring, np.array(kept, dtype="S"), [key.rstrip(b"\0") for key in kept])
    objects = np.empty(len(keys), dtype=object)
    objects[:] = keys
    assert_agrees(ring, objects, keys)
    assert_agrees(ring, objects[::2], keys[::2])
    assert_agrees(ring, np.array(kept, dtype="S")[::-2], [k.rstrip(b"\0") for k in kept[::-2]])


@few
@given(rings(), st.lists(st.binary(min_size=7, max_size=7)))
def test_arrays_of_type_void_keep_every_byte(ring: Ring, keys: list[bytes]) -> None:
    assert_agrees(ring, np.array(keys, dtype="V7"), keys)


@few
@given(rings(), st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9)))
def test_arrays_of_text(ring: Ring, keys: list[str]) -> None:
    kept = [key.rstrip("\0") for key in keys if key.rstrip("\0")]
    assert_agrees(ring, np.array(kept, dtype="U"), kept)


@pytest.mark.parametrize("wrong", [b"", b"x" * 1025])
@pytest.mark.parametrize("as_array", [False, True])
def test_a_key_of_a_wrong_length_is_named_by_its_index(wrong: bytes, as_array: bool) -> None:
    keys: Any = [b"x" * 1024, b"b", wrong, b"c"]
    if as_array:
        keys = np.array(keys, dtype="S")
    with pytest.raises(dkv.errors.InvalidArgumentError) as caught:
        Ring(["n1"], 1).owners(keys)
    assert str(caught.value) == f"a key must have 1 to 1,024 bytes, not {len(wrong):,}"
    assert caught.value.__notes__ == ["This is keys[2]."]


def test_what_is_no_key_is_named_by_its_index() -> None:
    with pytest.raises(TypeError, match="a key must be str or bytes-like") as caught:
        Ring(["n1"], 1).owners(np.array(["a", float("nan")], dtype=object))
    assert caught.value.__notes__ == ["This is keys[1]."]
    with pytest.raises(TypeError, match="a key must be str or bytes-like"):
        Ring(["n1"], 1).owners(np.arange(5))  # type: ignore[arg-type]


@pytest.mark.parametrize("one", ["key", b"key", bytearray(b"key"), memoryview(b"key")])
def test_one_key_is_not_several(one: Any) -> None:
    with pytest.raises(TypeError, match="keys must be several keys, not one"):
        Ring(["n1"], 1).owners(one)


def test_arrays_have_one_dimension() -> None:
    for keys in (np.array("key"), np.array([["a", "b"]])):
        with pytest.raises(ValueError, match="one dimension"):
            Ring(["n1"], 1).owners(keys)


def test_many_threads_may_ask_one_ring() -> None:
    ring = Ring([f"n{i}" for i in range(9)])
    keys = np.array([f"key{i}" for i in range(20_000)], dtype="S")
    expected = ring.replica_table(keys)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ring.replica_table(keys))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4 and all((answer == expected).all() for answer in answers)


def test_the_native_part_refuses_buffers_that_do_not_fit() -> None:
    native = Ring(["n1", "n2"], 2)._native
    numbers = array("q", [0] * 4)
    with pytest.raises(ValueError, match="2 rows for 1 keys"):
        native.locate(["a"], 2, numbers)
    with pytest.raises(ValueError, match="2 rows for 3 keys"):
        native.locate_fields(b"abc", 1, 2, numbers)
    for places in (0, 3):
        with pytest.raises(ValueError, match="places"):
            native.locate(["a"], places, numbers)
    for out in (bytearray(15), memoryview(bytearray(17))[1:]):
        with pytest.raises(ValueError, match="whole rows"):
            native.locate(["a"], 2, out)
    for width in (0, -1, 2):
        with pytest.raises(ValueError, match="whole fields"):
            native.locate_fields(b"abc", width, 2, numbers)
    with pytest.raises(BufferError):
        native.locate(["a", "b"], 2, bytes(32))
    native.locate_fields(b"ab", 1, 2, numbers)
    assert [native.nodes[i] for i in numbers] == [*native.replicas("a"), *native.replicas("b")]


def test_without_numpy_the_ring_works_and_says_what_is_missing() -> None:
    script = (
        "import sys; sys.modules['numpy'] = sys.modules['matplotlib'] = None\n"
        "import dkv; ring = dkv.Ring(['n1', 'n2'], 2); assert ring.owner('key') and ring.shares()\n"
        "assert ring.what_if(remove=[]).moved == 0 and ring._repr_svg_()\n"
        "for ask in (lambda: ring.owners(['a']), lambda: __import__('dkv.viz')):\n"
        "    try: ask()\n"
        "    except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, text=True, capture_output=True
    )
    assert done.stdout.splitlines() == [
        "the nodes of many keys need NumPy: pip install numpy",
        "dkv.viz needs matplotlib and NumPy: pip install numpy matplotlib",
    ]
