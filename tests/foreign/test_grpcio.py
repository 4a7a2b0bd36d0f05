"""Google's Python client, with stubs made from proto/, against a real cluster."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import dkv
import support

KEY_MAX = 1024
VALUE_MAX = 1024 * 1024
MESSAGE_MAX = 2621440
TIMEOUT_S = 30


@pytest.fixture
def d(stubs):
    """The messages of proto/dkv.proto."""
    return stubs.dkv


@pytest.fixture
def refused(d):
    """Calls, expects a status, and returns the sentence and the Error of the trailer."""

    def call(status, method, request, **rest):
        with pytest.raises(grpc.RpcError) as caught:
            method(request, **rest)
        assert caught.value.code() == status
        trailer = dict(caught.value.trailing_metadata())["dkv-error-bin"]
        error = d.Error.FromString(trailer)
        assert error.message == caught.value.details()
        return error

    return call


# ---- KV ----


def test_what_one_node_stores_every_node_returns(cluster3, stubs, d):
    for node in cluster3.nodes:
        with grpc.insecure_channel(cluster3.address(node)) as channel:
            put = stubs.dkv_grpc.KVStub(channel).Put(
                d.PutRequest(key=b"from " + node.encode(), value=b"\x00\xff" + node.encode())
            )
        assert sorted(put.replicas) == ["n1", "n2", "n3"]
        for other in cluster3.nodes:
            with grpc.insecure_channel(cluster3.address(other)) as channel:
                got = stubs.dkv_grpc.KVStub(channel).Get(d.GetRequest(key=b"from " + node.encode()))
            assert (got.value, got.version) == (b"\x00\xff" + node.encode(), put.version)


def test_versions_of_a_key_grow(kv, d):
    first = kv.Put(d.PutRequest(key=b"twice", value=b"1")).version
    second = kv.Put(d.PutRequest(key=b"twice", value=b"2", last_seen=first)).version
    assert (second.hlc, second.origin) > (first.hlc, first.origin)


def test_a_deleted_key_is_not_found(kv, d, refused):
    kv.Put(d.PutRequest(key=b"gone", value=b"value"))
    deleted = kv.Delete(d.DeleteRequest(key=b"gone"))
    assert len(deleted.replicas) == 3
    error = refused(grpc.StatusCode.NOT_FOUND, kv.Get, d.GetRequest(key=b"gone"))
    assert (error.code, error.outcome) == (-1, d.OUTCOME_NONE)
    kv.Delete(d.DeleteRequest(key=b"gone"))  # succeeds again


def test_map_is_the_cluster_that_was_started(kv, d, cluster3):
    found = kv.Map(d.MapRequest())
    assert (found.cluster, found.epoch, found.replication) == ("local", 1, 3)
    assert {member.id: member.address for member in found.members} == cluster3.addresses


def test_status_counts_requests(channel, stubs, kv, d):
    admin = stubs.admin_grpc.AdminStub(channel)
    before = admin.Status(stubs.admin.StatusRequest())
    kv.Put(d.PutRequest(key=b"counted", value=b""))
    after = admin.Status(stubs.admin.StatusRequest())
    assert (after.node_id, after.version) == ("n1", dkv.__version__)
    assert after.puts == before.puts + 1
    assert [peer.id for peer in after.peers] == ["n1", "n2", "n3"]


def test_the_example_of_the_readme_runs(cluster3, tmp_path):
    chapter = (support.ROOT / "README.md").read_text().split("## From any gRPC client")[1]
    shell = re.search(r"^    python (-m grpc_tools.*)$", chapter, re.MULTILINE)[1]
    example = re.search(r"```python\n(.*?)```", chapter, re.DOTALL)[1]
    (tmp_path / "proto").symlink_to(support.ROOT / "proto")
    (tmp_path / "example.py").write_text(example.replace("127.0.0.1:7001", cluster3.address("n2")))
    for command in (shlex.split(shell), ["example.py"]):
        subprocess.run([sys.executable, *command], cwd=tmp_path, check=True)


# ---- sessions ----


def test_a_session_answers_each_request_by_its_id(kv, d):
    def batches():
        for start in range(0, 1000, 50):
            yield d.RequestBatch(
                requests=[
                    d.Request(id=i, put=d.PutRequest(key=b"s%d" % i, value=b"v%d" % i))
                    for i in range(start, start + 50)
                ]
            )

    replies = {reply.id: reply for batch in kv.Session(batches()) for reply in batch.replies}
    assert sorted(replies) == list(range(1000))
    assert all(reply.WhichOneof("body") == "put" for reply in replies.values())
    gets = [d.Request(id=i, get=d.GetRequest(key=b"s%d" % i)) for i in range(1000)]
    replies = {
        reply.id: reply
        for batch in kv.Session(iter([d.RequestBatch(requests=gets)]))
        for reply in batch.replies
    }
    assert all(replies[i].get.value == b"v%d" % i for i in range(1000))


def test_an_error_in_a_session_concerns_one_request_only(kv, d):
    requests = [
        d.Request(id=7, put=d.PutRequest(key=b"good", value=b"1")),
        d.Request(id=8, put=d.PutRequest(key=b"", value=b"2")),
        d.Request(id=9, get=d.GetRequest(key=b"nowhere")),
        d.Request(id=10, delete=d.DeleteRequest(key=b"good")),
    ]
    session = kv.Session(iter([d.RequestBatch(requests=requests)]))
    replies = {reply.id: reply for batch in session for reply in batch.replies}
    assert session.code() == grpc.StatusCode.OK
    kinds = {id: reply.WhichOneof("body") for id, reply in replies.items()}
    assert kinds == {7: "put", 8: "error", 9: "error", 10: "delete"}
    assert (replies[8].error.code, replies[8].error.outcome) == (-2, d.OUTCOME_NOT_APPLIED)
    assert replies[9].error.code == -1


# ---- limits ----


def test_an_empty_or_a_long_key_is_refused(kv, d, refused):
    for key in (b"", b"k" * (KEY_MAX + 1)):
        for method, request in (
            (kv.Get, d.GetRequest(key=key)),
            (kv.Put, d.PutRequest(key=key, value=b"value")),
            (kv.Delete, d.DeleteRequest(key=key)),
        ):
            error = refused(grpc.StatusCode.INVALID_ARGUMENT, method, request)
            is_write = method is not kv.Get
            assert error.code == -2
            assert error.outcome == (d.OUTCOME_NOT_APPLIED if is_write else d.OUTCOME_NONE)
    longest = b"k" * KEY_MAX
    kv.Put(d.PutRequest(key=longest, value=b"value"))
    assert kv.Get(d.GetRequest(key=longest)).value == b"value"


def test_a_value_of_one_mebibyte_fits_and_one_byte_more_does_not(kv, d, refused):
    value = os.urandom(VALUE_MAX)
    kv.Put(d.PutRequest(key=b"large", value=value))
    assert kv.Get(d.GetRequest(key=b"large")).value == value
    error = refused(
        grpc.StatusCode.INVALID_ARGUMENT, kv.Put, d.PutRequest(key=b"large", value=value + b"+")
    )
    assert "1,048,577" in error.message
    assert kv.Get(d.GetRequest(key=b"large")).value == value


def test_arguments_out_of_range_are_refused(kv, d, refused):
    for field in ({"level": 4}, {"timeout_ms": 60001}):
        refused(grpc.StatusCode.INVALID_ARGUMENT, kv.Get, d.GetRequest(key=b"key", **field))


def test_what_cannot_be_read_is_refused(kv, d, channel):
    put = channel.unary_unary("/dkv.v1.KV/Put")
    for request in (b"\xff\xff\xff", b"\x00" * (MESSAGE_MAX + 1)):
        with pytest.raises(grpc.RpcError) as caught:
            put(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError, match="compress"):
        kv.Put(d.PutRequest(key=b"key", value=b"v" * 10000), compression=grpc.Compression.Gzip)
    kv.Put(d.PutRequest(key=b"key", value=b"value"))  # the connection has survived all of this


# ---- failures ----


def test_a_write_without_a_replica_is_unavailable_and_names_it(cluster3, kv, d, refused):
    kv.Put(d.PutRequest(key=b"key", value=b"before"))
    cluster3.kill("n3")
    try:
        # Until the others have noticed, a write is begun, and unknown.
        begun = d.PutRequest(key=b"other", value=b"value")
        while refused(grpc.StatusCode.UNAVAILABLE, kv.Put, begun).outcome == d.OUTCOME_UNKNOWN:
            pass
        error = refused(
            grpc.StatusCode.UNAVAILABLE, kv.Put, d.PutRequest(key=b"key", value=b"after")
        )
        assert (error.code, error.outcome) == (-3, d.OUTCOME_NOT_APPLIED)
        assert (list(error.missing), list(error.holding)) == (["n3"], [])
        assert "n3" in error.message
        assert kv.Get(d.GetRequest(key=b"key")).value == b"before"
        quorum = kv.Put(d.PutRequest(key=b"key", value=b"after", level=d.LEVEL_QUORUM))
        assert sorted(quorum.replicas) == ["n1", "n2"]
    finally:
        cluster3.start("n3")
    assert len(kv.Put(d.PutRequest(key=b"key", value=b"again")).replicas) == 3


@pytest.fixture
def frozen(stubs, tmp_path):
    """A cluster whose second and third node are frozen, and the first has not noticed yet."""
    timing = {"silence_ms": 60000}
    with (
        dkv.Cluster(3, 3, directory=tmp_path, timing=timing) as cluster,
        grpc.insecure_channel(cluster.address("n1")) as channel,
    ):
        kv = stubs.dkv_grpc.KVStub(channel)
        kv.Put(stubs.dkv.PutRequest(key=b"key", value=b"before"))
        cluster.pause("n2")
        cluster.pause("n3")
        yield cluster, channel, kv


def test_a_write_that_got_stuck_says_at_its_deadline_who_holds_it(frozen, d, refused):
    _, _, kv = frozen
    request = d.PutRequest(key=b"key", value=b"after", timeout_ms=300)
    error = refused(grpc.StatusCode.DEADLINE_EXCEEDED, kv.Put, request)
    assert (error.code, error.outcome) == (-4, d.OUTCOME_UNKNOWN)
    assert (list(error.holding), sorted(error.missing)) == (["n1"], ["n2", "n3"])
    assert error.version.hlc


def test_the_deadline_of_the_call_counts_too(frozen, d):
    _, _, kv = frozen
    with pytest.raises(grpc.RpcError) as caught:
        kv.Put(d.PutRequest(key=b"key", value=b"after", timeout_ms=60000), timeout=0.3)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


# ---- health ----


def health_of(channel, service=""):
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Check(request).status


def watch(channel, service=""):
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Watch(request, timeout=TIMEOUT_S)


@pytest.mark.parametrize("service", ["", "dkv.v1.KV"])
def test_a_running_node_is_serving(channel, service):
    assert health_of(channel, service) == health_pb2.HealthCheckResponse.SERVING
    stream = watch(channel, service)
    assert next(stream).status == health_pb2.HealthCheckResponse.SERVING
    stream.cancel()


def test_the_health_of_an_unknown_service_is_unknown(channel):
    with pytest.raises(grpc.RpcError) as caught:
        health_of(channel, "dkv.v2.KV")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    stream = watch(channel, "dkv.v2.KV")
    assert next(stream).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    stream.cancel()


def test_a_stopping_node_is_not_serving(frozen, stubs, d):
    cluster, channel, kv = frozen
    admin = stubs.admin_grpc.AdminStub(channel)
    stream = watch(channel, "dkv.v1.KV")
    assert next(stream).status == health_pb2.HealthCheckResponse.SERVING
    stuck = kv.Put.future(d.PutRequest(key=b"key", value=b"after"))  # the stop waits for it
    while admin.Status(stubs.admin.StatusRequest()).requests == 0:
        time.sleep(0.01)
    os.kill(cluster.pid("n1"), signal.SIGTERM)
    assert next(stream).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert health_of(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
    assert list(stream) == []
    assert stream.code() == grpc.StatusCode.OK
    assert stuck.code() == grpc.StatusCode.UNAVAILABLE


# ---- reflection ----

SERVICES = {
    *("dkv.v1.KV", "dkv.v1.Admin", "dkv.v1.Peer", "grpc.health.v1.Health"),
    *("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"),
}


def reflect(channel, version, *requests):
    """The responses to some requests; the messages of both versions are the same bytes."""
    method = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    sent = [reflection_pb2.ServerReflectionRequest(**request) for request in requests]
    responses = list(method(iter(sent), timeout=TIMEOUT_S))
    assert [response.original_request for response in responses] == sent
    return responses


def test_reflection_describes_all_services(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == SERVICES
    pool = DescriptorPool(database)
    kv = pool.FindServiceByName("dkv.v1.KV")
    assert {method.name for method in kv.methods} == {"Get", "Put", "Delete", "Session", "Map"}
    assert kv.FindMethodByName("Session").client_streaming
    assert pool.FindMessageTypeByName("dkv.v1.PutRequest").fields_by_name["value"].number == 2
    status = pool.FindEnumTypeByName("grpc.health.v1.HealthCheckResponse.ServingStatus")
    assert status.values_by_name["NOT_SERVING"].number == 2


def test_every_method_that_is_listed_is_served(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    for service in database.get_services():
        for method in pool.FindServiceByName(service).methods:
            path = f"/{service}/{method.name}"
            call = channel.stream_stream(path)(iter([b"\xff"]), timeout=TIMEOUT_S)
            with contextlib.suppress(grpc.RpcError):  # that was no request
                list(call)
            assert call.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OK), path


def described(serialised):
    """A file without what some versions of protoc add."""
    file = FileDescriptorProto.FromString(serialised)
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
    return file


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_sends_a_file_with_all_that_it_imports(channel, stubs, version):
    by_name, by_symbol, by_method = reflect(
        channel,
        version,
        {"file_by_filename": "peer.proto"},
        {"file_containing_symbol": "dkv.v1.Record"},
        {"file_containing_symbol": "dkv.v1.KV.Put"},
    )
    files = by_name.file_descriptor_response.file_descriptor_proto
    assert len(files) == 2
    assert described(files[0]).name == "peer.proto"
    assert described(files[1]) == described(stubs.dkv.DESCRIPTOR.serialized_pb)
    assert by_symbol.file_descriptor_response == by_name.file_descriptor_response
    assert list(by_method.file_descriptor_response.file_descriptor_proto) == [files[1]]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_does_not_know_what_is_not_there(channel, version):
    extension = reflection_pb2.ExtensionRequest(
        containing_type="dkv.v1.PutRequest", extension_number=100
    )
    unknown = reflect(
        channel,
        version,
        {"file_by_filename": "absent.proto"},
        {"file_by_filename": ""},
        {"file_containing_symbol": ""},
        {"file_containing_symbol": "dkv.v1"},
        {"file_containing_symbol": "dkv.v1.KV.Putt"},
        {"file_containing_symbol": "dkv.v1.KV."},
        {"file_containing_symbol": "dkv.v1.K"},
        {"file_containing_extension": extension},
        {"all_extension_numbers_of_type": "dkv.v1.Absent"},
    )
    codes = {response.error_response.error_code for response in unknown}
    assert codes == {grpc.StatusCode.NOT_FOUND.value[0]}
    none, odd = reflect(channel, version, {"all_extension_numbers_of_type": "dkv.v1.Error"}, {})
    assert none.all_extension_numbers_response.base_type_name == "dkv.v1.Error"
    assert not none.all_extension_numbers_response.extension_number
    assert odd.error_response.error_code == grpc.StatusCode.UNIMPLEMENTED.value[0]


def test_reflection_answers_many_requests_at_once(channel):
    requests = [{"list_services": ""}, {"file_by_filename": "dkv.proto"}] * 500
    lists = reflect(channel, "v1", *requests)[::2]
    assert all({s.name for s in r.list_services_response.service} == SERVICES for r in lists)


def test_a_client_that_does_not_read_its_answers_is_cut_off(channel):
    request = reflection_pb2.ServerReflectionRequest(file_by_filename="dkv.proto")
    enough = threading.Event()

    def requests():
        for _ in range(20000):
            yield request.SerializeToString()
        enough.set()

    method = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    call = method(requests(), timeout=TIMEOUT_S)
    call.add_callback(enough.set)
    assert enough.wait(TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert health_of(channel) == health_pb2.HealthCheckResponse.SERVING
