"""A cluster whose nodes and clients find each other by way of a relay.

Each node's configuration gives it the relay's addresses for its peers. A client asks a node for the
cluster map, and would get those of that node; so it asks a server of ours instead, which gives it
that node's map with the client's own addresses in it.
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from concurrent import futures

import grpc

import dkv
from chaos.relay import HOST, Relay

MAP = "/dkv.v1.KV/Map"


@contextlib.contextmanager
def relayed(cluster: dkv.Cluster, clients: tuple[str, ...]) -> Iterator[Relay]:
    """A relay between the nodes of `cluster`, which are restarted for that, and `clients`."""
    ports = {node: int(address.split(":")[1]) for node, address in cluster.addresses.items()}
    ends = itertools.product(cluster.nodes + clients, cluster.nodes)
    with Relay({(a, b): ports[b] for a, b in ends if a != b}) as relay:
        for node in cluster.nodes:
            cluster.stop(node)
            file = cluster.configuration(node)
            addresses = {
                cluster.address(peer): relay.address(node, peer)
                for peer in cluster.nodes
                if peer != node
            }
            file.write_bytes(replaced(file.read_bytes(), addresses))
        for node in cluster.nodes:
            cluster.start(node)
        yield relay


def connect(cluster: dkv.Cluster, relay: Relay, name: str | None) -> "dkv.Client":
    """The client `name`; without a name, one that does without the relay."""
    seed, *others = cluster.nodes
    addresses = {
        relay.address(seed, node): relay.address(name, node) if name else cluster.address(node)
        for node in others
    }
    if name:
        addresses[cluster.address(seed)] = relay.address(name, seed)
    with grpc.insecure_channel(cluster.address(seed)) as channel:
        answer = replaced(channel.unary_unary(MAP)(b"", wait_for_ready=True), addresses)
    with map_server(answer) as address:
        return dkv.connect(address)


def replaced(text: bytes, addresses: Mapping[str, str]) -> bytes:
    """`text` with other addresses. In a message, too: they all have the same length."""
    for old, new in addresses.items():
        assert len(old) == len(new) and text.count(old.encode()) == 1, (text, old, new)
        text = text.replace(old.encode(), new.encode())
    return text


@contextlib.contextmanager
def map_server(answer: bytes) -> Iterator[str]:
    """The address of a server that answers one kind of call, always the same."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([MapHandler(answer)])
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        yield f"{HOST}:{port}"
    finally:
        server.stop(None).wait()


class MapHandler(grpc.GenericRpcHandler):
    """Answers a client that asks for the cluster map."""

    def __init__(self, answer):
        self.answer = answer

    def service(self, details):
        if details.method != MAP:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.answer)
