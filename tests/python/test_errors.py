"""The exceptions, and that their table is the C core's."""

import builtins
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dkv
import support
from dkv import _core, errors


def test_every_code_of_the_core_has_its_exception() -> None:
    assert [name for name, _, _ in _core.error_table()] == list(errors.TABLE)


def test_every_exception_has_its_code() -> None:
    assert set(errors.TABLE.values()) == set(errors.Error.__subclasses__())
    for code, exception in errors.TABLE.items():
        assert exception.code == code
        assert getattr(errors, exception.__name__) is exception


def test_grpc_statuses_are_those_that_nodes_send() -> None:
    source = (support.ROOT / "csrc/rpc/status.c").read_text()
    sent: dict[str, str] = {}
    for code, status in re.findall(r"\{DKV_ERR_(\w+), GRPC_STATUS_(\w+)\}", source):
        sent.setdefault(code, status)
    assert sent == {code: exception.grpc_status for code, exception in errors.TABLE.items()}


def test_numbers_of_the_core_are_negative_and_unique() -> None:
    """They travel on the wire: one that changed would be misread by another version."""
    numbers = [number for _, number, _ in _core.error_table()]
    assert numbers == list(range(-1, -1 - len(numbers), -1))
    assert all(sentence for _, _, sentence in _core.error_table())


@pytest.mark.parametrize(
    ("exception", "parent"),
    [
        (errors.NotFoundError, KeyError),
        (errors.InvalidArgumentError, ValueError),
        (errors.TimeoutError, builtins.TimeoutError),
        (errors.PermissionDeniedError, PermissionError),
        (errors.OutOfMemoryError, MemoryError),
    ],
)
def test_pythons_own_exceptions_catch_ours(
    exception: type[errors.Error], parent: type[Exception]
) -> None:
    with pytest.raises(parent):
        raise exception("a sentence")


@pytest.mark.parametrize("exception", errors.TABLE.values())
def test_exceptions_carry_what_is_known(exception: type[errors.Error]) -> None:
    """Whatever Python class it derives from: the message is plain, the fields survive pickling."""
    version = dkv.Version(hlc=7, origin=3)
    error = exception(
        "2 of 3", outcome="unknown", version=version, nodes=["n1"], holding=["n2", "n3"]
    )
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert type(each) is exception
        assert str(each) == "2 of 3"
        assert each.outcome == "unknown"
        assert each.version == version
        assert each.nodes == ("n1",)
        assert each.holding == ("n2", "n3")


def test_fields_are_empty_unless_given() -> None:
    error = errors.UnavailableError("nobody answers")
    assert error.outcome is None and error.version is None
    assert error.nodes == () and error.holding == ()


def test_the_simulator_is_there_without_an_import_of_its_own() -> None:
    """`import dkv` is enough for `dkv.sim`, and loads neither it nor gRPC before it is used."""
    script = (
        "import sys, dkv\n"
        "assert 'dkv.sim' not in sys.modules and 'dkv._net' not in sys.modules\n"
        "assert dkv.sim.World(1, seed=1, replication=1).put('key', b'value').replicas == ('n1',)\n"
        "assert 'dkv._net' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_source_without_its_compiled_parts_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "dkv").mkdir()
    for file in (support.ROOT / "dkv").glob("*.py"):
        (tmp_path / "dkv" / file.name).symlink_to(file)
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import dkv"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"{tmp_path / 'dkv'} has no compiled parts: run make" in done.stderr
