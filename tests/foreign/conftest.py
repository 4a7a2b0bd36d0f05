"""Stubs of proto/ as a stranger would make them, and what the tests here share."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import grpc
import pytest
from grpc_tools import protoc

import dkv
import support

PROTO = support.ROOT / "proto"


@dataclass
class Stubs:
    """The modules that grpc_tools makes of dkv's own .proto files."""

    dkv: ModuleType
    dkv_grpc: ModuleType
    admin: ModuleType
    admin_grpc: ModuleType


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    out = tmp_path_factory.mktemp("stubs")
    files = sorted(path.name for path in PROTO.glob("*.proto"))
    options = [f"--proto_path={PROTO}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(["protoc", *options, *files]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(out)
        names = ("dkv_pb2", "dkv_pb2_grpc", "admin_pb2", "admin_pb2_grpc")
        yield Stubs(*map(importlib.import_module, names))


@pytest.fixture
def channel(cluster3: dkv.Cluster) -> Iterator[grpc.Channel]:
    """A connection to the first node of `cluster3`."""
    with grpc.insecure_channel(cluster3.address("n1")) as channel:
        yield channel


@pytest.fixture
def kv(stubs: Stubs, channel: grpc.Channel) -> object:
    """The service KV of the first node."""
    return stubs.dkv_grpc.KVStub(channel)
