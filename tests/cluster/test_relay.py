"""The relay of the chaos test breaks connections in the way that its modes say."""

import socket
import threading

import pytest
from chaos.relay import Relay

SILENCE_S = 0.2  # within which a local connection that works has long answered


@pytest.fixture
def listener():
    """Where the end b listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


@pytest.fixture
def relay(listener):
    with Relay({("a", "b"): listener.getsockname()[1]}) as relay:
        yield relay


def connect(relay):
    """A connection from a to b, on the side of a."""
    host, port = relay.address("a", "b").split(":")
    return socket.create_connection((host, int(port)), timeout=SILENCE_S)


@pytest.fixture
def ends(relay, listener):
    """Both ends of a connection."""
    with connect(relay) as a, listener.accept()[0] as b:
        a.sendall(b"hello")
        assert b.recv(10) == b"hello"
        b.settimeout(SILENCE_S)
        yield a, b


def hears_nothing(end):
    with pytest.raises(TimeoutError):
        end.recv(10)
    return True


def test_what_is_sent_arrives_and_so_does_the_end(ends):
    a, b = ends
    a.sendall(b"to b")
    assert b.recv(10) == b"to b"
    b.sendall(b"to a")
    b.close()
    assert a.recv(10) == b"to a" and a.recv(10) == b""


def test_nothing_is_lost_of_much(ends):
    a, b = ends
    b.settimeout(10)
    sender = threading.Thread(target=a.sendall, args=[bytes(10_000_000)])
    sender.start()
    received = 0
    while received < 10_000_000:
        received += len(b.recv(1 << 20))
    sender.join()


def test_what_is_dropped_arrives_afterwards_with_the_end(relay, ends):
    a, b = ends
    relay.set({("a", "b"): "drop", ("b", "a"): "drop"})
    a.sendall(b"to b")
    b.sendall(b"to a")
    assert hears_nothing(a) and hears_nothing(b)
    a.shutdown(socket.SHUT_WR)
    assert hears_nothing(b)
    relay.set({("a", "b"): "pass", ("b", "a"): "pass"})
    assert (a.recv(10), b.recv(10), b.recv(10)) == (b"to a", b"to b", b"")


def test_one_way_may_be_dropped_alone(relay, ends):
    a, b = ends
    relay.set({("b", "a"): "drop"})
    a.sendall(b"to b")
    b.sendall(b"to a")
    assert b.recv(10) == b"to b"
    assert hears_nothing(a)


@pytest.mark.parametrize("way", [("a", "b"), ("b", "a")])
def test_an_attempt_to_connect_is_not_answered_if_either_way_is_dropped(relay, listener, way):
    for _ in range(2):
        relay.set({way: "drop"})
        for _ in range(2):
            with pytest.raises(TimeoutError):
                connect(relay).close()
        relay.set({way: "pass"})
        with connect(relay) as a, listener.accept()[0] as b:
            a.sendall(b"to b")
            assert b.recv(10) == b"to b"


def test_refused_connections_are_reset_old_and_new(relay, ends):
    a, b = ends
    relay.set({("a", "b"): "refuse"})
    for end in (a, b):
        with pytest.raises(ConnectionResetError):
            end.recv(10)
    with pytest.raises(ConnectionResetError), connect(relay) as new:
        new.recv(10)


def test_a_reset_breaks_connections_once(relay, ends, listener):
    a, b = ends
    relay.reset([("a", "b")])
    for end in (a, b):
        with pytest.raises(ConnectionResetError):
            end.recv(10)
    with connect(relay) as a, listener.accept()[0] as b:
        a.sendall(b"to b")
        assert b.recv(10) == b"to b"


def test_who_is_not_there_cannot_be_talked_to(relay, listener):
    listener.close()
    with pytest.raises(ConnectionResetError), connect(relay) as a:
        a.recv(10)
