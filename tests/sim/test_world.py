"""Scripted worlds: what a cluster does when this or that happens to it."""

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Callable

import pytest

from dkv import errors
from dkv.client import Level
from dkv.sim import Difference, Durability, Held, Kind, Latency, LogNormal, World

KEY = "key"


def others(world: World, node: str) -> set[str]:
    return set(world.nodes) - {node}


def without_replica(world: World, key: str = KEY) -> str:
    return next(node for node in world.nodes if node not in world.ring.replicas(key))


def holders(world: World, key: str = KEY) -> set[str]:
    return {node for node, version in world.replicas_holding(key).items() if version}


# ---- one seed, one course ----


def run_a_script(seed: int) -> World:
    world = World(5, seed=seed)
    for i in range(20):
        world.put(f"key {i}", bytes(i))
    world.power_cut("n2")
    for i in range(20):
        world.get(f"key {i}")
    world.start("n2")
    world.run(seconds=1)
    return world


def test_the_same_calls_give_the_same_trace() -> None:
    first, again, other = run_a_script(1), run_a_script(1), run_a_script(2)
    assert first.trace == again.trace
    assert first.trace_hash == again.trace_hash != other.trace_hash


def run_through_everything(seed: int) -> World:
    """A world with every fault there is."""
    world = World(
        {f"n{i}": {"zone": f"z{i % 3}", "host": f"h{i % 4}"} for i in range(8)},
        seed=seed,
        latency=LogNormal(0.000_2, 0.01),
        break_=0.001,
        drop=0.01,
        duplicate=0.01,
        reorder=0.01,
        segment_bytes=65536,
    )
    n0, n1, n2, n3, n4, n5, n6, n7 = world.nodes

    def work() -> None:
        for i in range(60):
            kind: Kind = "get" if i % 3 == 0 else "delete" if i % 7 == 0 else "put"
            value = bytes(i * 300) if kind == "put" else b""
            levels: tuple[Level, ...] = ("one", "quorum", "all")
            world.submit(kind, f"key {i % 20}", value, level=levels[i % 3], timeout=1)
            world.run(seconds=0.005)

    def restart_with(node: str, fault: Callable[[str], None]) -> None:
        world.crash(node)
        fault(node)
        world.start(node)

    steps: list[Callable[[], None]] = [
        lambda: world.partition({n0, n1}, {n2, n3}),
        lambda: world.partition({n4}, {n5}, one_way=True),
        lambda: world.slow_link(n1, n6, latency=LogNormal(0.01, 0.1), bytes_per_second=10_000),
        lambda: world.slow_disk(n5, latency=0.05, bytes_per_second=100_000),
        lambda: world.skew(n2, 300),
        lambda: world.pause(n3),
        lambda: world.crash(n4),
        lambda: world.power_cut(n6),
        lambda: restart_with(n7, world.wipe),
        lambda: world.start(n4),
        lambda: world.flip(n4),
        lambda: world.start(n6),
        lambda: world.fail_reads(n6, 3),
        lambda: world.spoil(n7),
        lambda: world.fill_disk(n0),
        lambda: world.fail_syncs(n1),
        lambda: world.resume(n3),
        lambda: world.free_disk(n0),
        lambda: restart_with(n4, world.lose_file),
        lambda: world.heal(),
        lambda: world.start(n1),
        lambda: world.stop(n2),
        lambda: world.start(n2),
    ]
    for step in steps:
        work()
        step()
    work()
    world.run(seconds=10)
    return world


def test_a_world_with_every_fault_is_the_same_again() -> None:
    first, again, other = (run_through_everything(seed) for seed in (1, 1, 2))
    assert first.trace == again.trace and first.history == again.history
    assert first.divergence() == again.divergence()
    assert first.trace_hash == again.trace_hash != other.trace_hash
    faults = {"partition", "slow_link", "slow_disk", "skew", "pause", "crash", "power_cut", "wipe"}
    faults |= {"flip", "read_error", "capacity", "sync_error", "resume", "lose_file", "heal"}
    faults |= {"unreadable"}
    assert faults <= {entry.kind for entry in first.trace}


def test_another_process_gives_the_same_trace() -> None:
    program = (
        "from dkv.sim import campaign; run = campaign(5);"
        "print(run.trace_hash, run.events, run.violation)"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    }
    assert len(printed) == 1


def test_the_hash_does_not_depend_on_keeping_the_trace() -> None:
    kept, dropped = World(3, trace=True), World(3, trace=False)
    for world in (kept, dropped):
        world.put(KEY, b"value")
    assert kept.trace_hash == dropped.trace_hash
    assert kept.trace and not dropped.trace


# ---- reading and writing ----


def test_a_put_is_on_all_replicas_and_nowhere_else() -> None:
    world = World(8)
    result = world.put(KEY, b"value")
    assert set(result.replicas) == holders(world) == set(world.ring.replicas(KEY))
    assert world.get_versioned(KEY).version == result.version


@pytest.mark.parametrize("value", [b"", b"v", bytes(range(256)) * 4096])
def test_values_of_all_sizes_come_back(value: bytes) -> None:
    world = World(4)
    world.put(KEY, value)
    for node in world.nodes:
        assert world.get(KEY, via=node) == value
    assert world.get(KEY, read="all") == value


def test_a_deleted_key_is_absent() -> None:
    world = World(3)
    world.put(KEY, b"value")
    world.delete(KEY)
    with pytest.raises(errors.NotFoundError):
        world.get(KEY)
    assert holders(world) == set()


def test_limits_are_refused_and_change_nothing() -> None:
    world = World(3)
    for key, value in (("", b""), (b"k" * 1025, b""), (KEY, bytes(2**20 + 1))):
        with pytest.raises(errors.InvalidArgumentError):
            world.put(key, value)
    assert world.history == []


def test_operations_under_way_at_once_do_not_disturb_each_other() -> None:
    world = World(5)
    numbers = [world.submit("put", f"key {i}", bytes([i])) for i in range(200)]
    assert all(world.wait(number).error is None for number in numbers)
    assert [world.get(f"key {i}") for i in range(200)] == [bytes([i]) for i in range(200)]


def test_acquainted_nodes_need_not_meet() -> None:
    """They are in sync from the start, while others ask all the rest first."""
    for acquainted in (True, False):
        world = World(20, acquainted=acquainted)
        if acquainted:
            with pytest.raises(errors.NotFoundError):
                world.get(KEY)
            assert len(world.trace.filter("connect")) < 5
        world.put(KEY, b"value")
        world.run(seconds=10)
        assert (len(world.trace.filter("connect")) < 20) == acquainted


def test_a_node_that_never_came_is_told_of_when_it_is_needed() -> None:
    """At first it is no news to an operator: while a cluster begins, nodes start one by one."""
    world = World(3)
    world.crash("n3")
    world.run(seconds=1)

    def told() -> int:
        return len(world.trace.filter("log", text="n3 is down"))

    assert told() == 2  # by n1 and n2, at level DEBUG
    for _ in range(2):
        with pytest.raises(errors.UnavailableError):
            world.put(KEY, b"value")
        assert told() == 3  # and by the coordinator


def test_a_thousand_nodes_serve() -> None:
    world = World(1000, acquainted=True, trace=False)
    for i in range(100):
        world.put(f"key {i}", b"value")
    victim = world.ring.owner("key 0")
    world.crash(victim)
    assert all(world.get(f"key {i}") == b"value" for i in range(100))
    world.start(victim)
    world.run(seconds=5)
    assert world.put("key 0", b"new").replicas[0] == victim
    assert world.converged()


# ---- crashes ----


@pytest.mark.parametrize("kill", [World.crash, World.power_cut, World.pause])
def test_reads_go_on_when_the_owner_is_gone(kill: Callable[[World, str], None]) -> None:
    world = World(5)
    world.put(KEY, b"value")
    kill(world, world.ring.owner(KEY))
    began = world.time
    assert world.get(KEY) == b"value"
    assert world.time - began < 1


def test_a_put_needs_all_replicas_and_a_majority_is_the_way_out() -> None:
    world = World(5)
    world.put(KEY, b"old")
    victim = world.ring.replicas(KEY)[1]
    world.crash(victim)
    world.run(seconds=1)
    with pytest.raises(errors.UnavailableError, match="at level quorum it would succeed") as caught:
        world.put(KEY, b"new")
    assert caught.value.outcome == "not applied"
    assert caught.value.nodes == (victim,)
    assert world.get(KEY) == b"old"
    assert victim not in world.put(KEY, b"new", write="quorum").replicas


def test_a_power_cut_of_all_machines_loses_nothing_confirmed() -> None:
    world = World(5)
    versions = {f"key {i}": world.put(f"key {i}", bytes([i])).version for i in range(50)}
    for node in world.nodes:
        world.power_cut(node)
    for node in world.nodes:
        world.start(node)
    for key, version in versions.items():
        assert world.get_versioned(key, read="all").version == version


def test_what_was_not_confirmed_is_unknown_and_settles_with_the_next_write() -> None:
    world = World(3, disk=0.01)
    world.put(KEY, b"old")
    number = world.submit("put", KEY, b"new", via=world.ring.owner(KEY))
    world.run(seconds=0.002)
    world.power_cut(world.ring.replicas(KEY)[2])
    operation = world.wait(number)
    assert (operation.error, operation.outcome) == ("UNAVAILABLE", "unknown")
    assert operation.version is not None
    world.start(world.ring.replicas(KEY)[2])
    world.run(seconds=3)
    assert world.get(KEY) in (b"old", b"new")
    assert world.put(KEY, b"newer").version > operation.version
    assert world.get(KEY, read="all") == b"newer"


def test_a_clean_stop_makes_a_clean_start() -> None:
    world = World(3)
    world.put(KEY, b"value")
    world.stop("n2")
    assert world.state("n2") == "down"
    world.start("n2")
    assert [entry for entry in world.trace if entry.kind == "start"][-1].text.startswith("clean")
    assert world.replicas_holding(KEY)["n2"]


def test_a_paused_process_answers_late_writes_honestly() -> None:
    world = World(4, seed=3)
    node = without_replica(world)
    number = world.submit("put", KEY, b"value", via=node, timeout=0.1)
    world.run(seconds=0.000_6)  # its links are being opened
    world.pause(node)
    world.run(seconds=0.3)
    world.resume(node)
    assert world.wait(number).outcome == "not applied"
    world.run(seconds=1)
    assert holders(world) == set()


# ---- the network ----


def test_a_majority_goes_on_without_the_minority() -> None:
    world = World(3)
    world.put(KEY, b"old")
    world.partition({"n1"}, {"n2", "n3"})
    world.run(seconds=3)
    world.put(KEY, b"new", write="quorum", via="n2")
    assert world.get(KEY, read="quorum", via="n3") == b"new"
    with pytest.raises(errors.UnavailableError):
        world.put(KEY, b"other", write="quorum", via="n1")
    with pytest.raises(errors.Error):
        world.get(KEY, read="quorum", via="n1")
    assert world.get(KEY, via="n1") == b"old"  # level one: what it has
    world.heal()
    world.run(seconds=3)
    assert world.get(KEY, read="quorum", via="n1") == b"new"


def test_one_deaf_direction_is_enough_for_silence() -> None:
    world = World(3)
    world.put(KEY, b"value")
    world.partition({"n1"}, {"n2"}, one_way=True)
    with pytest.raises(errors.Error) as caught:
        world.put(KEY, b"new", via="n1", timeout=4)
    assert caught.value.outcome in ("not applied", "unknown")
    world.heal()
    world.run(seconds=5)
    world.put(KEY, b"newer", via="n1")


def test_a_read_of_all_does_not_end_with_fewer_answers() -> None:
    world = World(3)
    world.put(KEY, b"value")
    world.run(seconds=2)
    world.partition({"n1"}, {"n2", "n3"})
    with pytest.raises(errors.TimeoutError):
        world.get(KEY, read="all", via="n1", timeout=0.1)


def test_a_lossy_network_costs_time_and_nothing_else() -> None:
    world = World(5, seed=4, drop=0.02, duplicate=0.05, reorder=0.1, break_=0.001)
    confirmed = {}
    for i in range(300):
        try:
            confirmed[f"key {i % 30}"] = world.put(f"key {i % 30}", b"%d" % i, timeout=2).version
        except errors.Error as error:
            assert error.outcome in ("not applied", "unknown")
    assert len(confirmed) == 30
    for key, version in confirmed.items():
        for node in world.ring.replicas(key):
            held = world.replicas_holding(key)[node]
            assert held and held >= version


def round_trips(world: World, node: str, n: int = 200) -> list[float]:
    """The seconds of `n` reads that go from `node` to another and back."""
    key = next(
        key for key in (f"key {i}" for i in range(100)) if node not in world.ring.replicas(key)
    )
    world.put(key, b"value")
    world.get(key, via=node)  # opens the link
    return [
        operation.seconds or 0
        for operation in (world.wait(world.submit("get", key, via=node)) for _ in range(n))
    ]


@pytest.mark.parametrize(
    ("latency", "least", "median", "most"),
    [
        (0.01, 0.04, 0.041, 0.043),
        ((0.01, 0.03), 0.04, 0.08, 0.123),
        (LogNormal(0.01, 0.02), 0.015, 0.045, 0.2),
    ],
)
def test_messages_take_as_long_as_they_are_told(
    latency: Latency, least: float, median: float, most: float
) -> None:
    """A read by way of a node without the key takes four of them, and the nodes' own time."""
    seconds = sorted(round_trips(World(4, seed=2, latency=latency, disk=0.000_1), "n1"))
    assert least <= seconds[0] and seconds[-1] <= most
    assert 0.8 * median < seconds[len(seconds) // 2] < 1.2 * median


def test_a_slow_link_delays_one_direction_or_both() -> None:
    world = World(2, replication=2, seed=2)
    world.run(seconds=1)

    def seconds() -> float:
        began = world.time
        world.put(KEY, b"value", via="n1")
        return world.time - began

    assert seconds() < 0.01
    world.slow_link("n1", "n2", latency=0.1, one_way=True)
    assert 0.1 < seconds() < 0.11
    world.slow_link("n1", "n2", latency=0.1)
    assert 0.2 < seconds() < 0.21
    world.slow_link("n1", "n2")
    assert seconds() < 0.01


def test_a_thin_link_takes_so_many_bytes_a_second() -> None:
    world = World(2, replication=2, seed=2)
    world.run(seconds=1)
    world.slow_link("n1", "n2", bytes_per_second=1_000_000)
    began = world.time
    numbers = [world.submit("put", f"key {i}", bytes(100_000), via="n1") for i in range(10)]
    assert all(world.wait(number).error is None for number in numbers)
    assert 1.0 < world.time - began < 1.1
    world.heal()
    began = world.time
    world.put(KEY, bytes(100_000), via="n1")
    assert world.time - began < 0.01


# ---- clocks ----


def test_a_later_write_wins_whatever_the_clocks_say() -> None:
    world = World(3)
    world.skew("n1", 200)
    first = world.put(KEY, b"first", via="n1")
    world.skew("n1", -200)
    second = world.put(KEY, b"second", via="n2")
    third = world.put(KEY, b"third", via="n1")
    assert first.version < second.version < third.version
    assert world.get(KEY) == b"third"


def test_a_node_far_off_the_others_does_not_coordinate() -> None:
    world = World(3)
    world.put(KEY, b"value")
    world.skew("n1", 2000)
    for _ in range(8):  # clocks are compared while nodes talk
        world.get(KEY, read="all", via="n1")
        world.run(seconds=0.5)
    with pytest.raises(errors.ClockError) as caught:
        world.put(KEY, b"new", via="n1")
    assert caught.value.outcome == "not applied"
    world.put(KEY, b"new", via="n2")
    world.skew("n1", 0)
    for _ in range(8):
        world.get(KEY, read="all", via="n1")
        world.run(seconds=0.5)
    world.put(KEY, b"newer", via="n1")


# ---- disks ----


LARGE = bytes(300_000)
"""More than a log has room for ahead of its end."""


def test_a_full_disk_refuses_writes_and_recovers_by_itself() -> None:
    world = World(3)
    world.put(KEY, b"value")
    world.limit_disk("n2", 1)
    with pytest.raises(errors.Error):
        world.put(KEY, LARGE)
    world.run(seconds=1)
    with pytest.raises(errors.NoSpaceError) as caught:
        world.put(KEY, b"new")
    assert caught.value.outcome == "not applied"
    assert world.get(KEY) in (b"value", LARGE)
    world.limit_disk("n2", None)
    world.run(seconds=2)
    world.put(KEY, b"newer")
    assert world.get(KEY, read="all") == b"newer"


def test_a_disk_that_something_else_has_filled_gets_its_space_back() -> None:
    world = World(3)
    world.put(KEY, b"value")
    world.fill_disk("n2")
    with pytest.raises(errors.Error):
        world.put(KEY, LARGE)
    size = world.disk_bytes("n2")
    world.run(seconds=1)
    assert world.disk_bytes("n2") == size
    world.free_disk("n2")
    world.run(seconds=2)
    world.put(KEY, LARGE)
    assert world.disk_bytes("n2") > size


def test_a_slow_disk_holds_up_the_writes_that_need_it() -> None:
    world = World(3, seed=1)
    world.slow_disk("n2", latency=0.5)

    def median(level: Level) -> float:
        operations = [world.wait(world.submit("put", KEY, b"v", level=level)) for _ in range(21)]
        return sorted(operation.seconds or 0 for operation in operations)[10]

    assert median("all") > 0.2
    world.slow_disk("n2")
    world.run(seconds=2)
    assert median("all") < 0.01
    world.slow_disk("n2", bytes_per_second=1_000_000)
    began = world.time
    world.put(KEY, bytes(500_000))
    assert world.time - began > 0.5


def test_a_killed_process_loses_nothing_that_it_wrote_and_a_machine_may() -> None:
    """What was not synced is in the page cache, which outlives the process and not the machine."""
    lost = {World.crash: 0, World.power_cut: 0}
    for kill in lost:
        for seed in range(20):
            world = World(1, replication=1, seed=seed)
            world.run(seconds=1)
            world.slow_disk("n1", latency=1)
            world.submit("put", KEY, b"value")
            while not any("write file 0" in e.text for e in world.trace.filter("disk")):
                world.run(seconds=0.005)
            kill(world, "n1")
            world.start("n1")
            lost[kill] += not holders(world)
    assert lost[World.crash] == 0 < lost[World.power_cut] < 20


def test_each_durability_keeps_what_it_says() -> None:
    """One node, one confirmed write: what is there after the process, or the machine, has died."""
    kept: dict[tuple[Durability, str], int] = {}
    durabilities: tuple[Durability, ...] = ("always", "interval", "memory")
    for durability in durabilities:
        for seed in range(20):
            for kill in (World.crash, World.power_cut):
                world = World(1, replication=1, seed=seed, durability=durability, interval=10)
                world.put(KEY, b"value")
                kill(world, "n1")
                world.start("n1")
                name = (durability, kill.__name__)
                kept[name] = kept.get(name, 0) + len(holders(world))
    assert kept["always", "crash"] == kept["always", "power_cut"] == kept["interval", "crash"] == 20
    assert 0 < kept["interval", "power_cut"] < 20
    assert kept["memory", "crash"] == kept["memory", "power_cut"] == 0


def test_a_node_stops_when_its_disk_fails_to_sync() -> None:
    world = World(3)
    confirmed = world.put(KEY, b"value").version
    world.fail_syncs("n2")
    with pytest.raises(errors.Error) as caught:
        world.put(KEY, b"new")
    assert caught.value.outcome == "unknown"
    assert world.state("n2") == "down"
    world.start("n2")
    world.run(seconds=3)
    version = world.replicas_holding(KEY)["n2"]
    assert version and version >= confirmed
    world.put(KEY, b"newer")


@pytest.mark.parametrize("nodes", [3, 5])
def test_in_memory_a_value_is_gone_with_all_nodes_that_held_it(nodes: int) -> None:
    world = World(nodes, durability="memory")
    replicas = world.put(KEY, b"value").replicas
    world.run(seconds=1)
    for node in replicas[1:]:
        world.crash(node)
    for node in replicas[1:]:
        world.start(node)
    world.run(seconds=5)
    assert holders(world) == set(replicas)  # from the one that was left
    for node in replicas:
        world.crash(node)
    for node in replicas:
        world.start(node)
    world.run(seconds=5)
    with pytest.raises(errors.NotFoundError):
        world.get(KEY)


def test_an_unreadable_copy_is_made_up_for_by_the_others() -> None:
    world = World(3)
    world.put(KEY, b"value")
    world.run(seconds=1)
    owner = world.ring.owner(KEY)
    world.fail_reads(owner)
    result = world.get_versioned(KEY, via=owner)
    assert result.value == b"value"
    assert owner not in result.replicas


def lose_everything(world: World, node: str) -> None:
    world.power_cut(node)
    world.wipe(node)
    world.start(node)


def lose_the_log(world: World, node: str) -> None:
    world.power_cut(node)
    world.lose_file(node)
    world.start(node)


def lose_the_log_and_crash_again(world: World, node: str) -> None:
    lose_the_log(world, node)
    world.power_cut(node)
    world.start(node)


@pytest.mark.parametrize("lose", [lose_everything, lose_the_log, lose_the_log_and_crash_again])
def test_a_node_that_lost_its_data_is_believed_when_it_has_it_again(
    lose: Callable[[World, str], None],
) -> None:
    world = World(3)
    world.put(KEY, b"value")
    world.partition({"n1"}, {"n2", "n3"})
    lose(world, "n1")
    world.run(seconds=3)
    assert world.replicas_holding(KEY)["n1"] is None
    with pytest.raises(errors.UnavailableError):
        world.get(KEY, via="n1", timeout=3)
    world.heal()
    world.run(seconds=3)
    assert world.replicas_holding(KEY)["n1"] is not None
    assert world.converged()
    world.partition({"n1"}, {"n2", "n3"})
    assert world.get(KEY, via="n1") == b"value"
    with pytest.raises(errors.NotFoundError):
        world.get("no such key", via="n1")  # by its own word


def test_damage_behind_the_end_of_the_log_is_served_by_the_others() -> None:
    world = World(3, segment_bytes=65536)
    for i in range(200):
        world.put(f"key {i}", b"%d" % i + bytes(1000))
    world.power_cut("n1")
    for _ in range(20):
        world.flip("n1")
    world.start("n1")
    world.run(seconds=3)
    for i in range(200):
        assert world.get(f"key {i}", via="n1").startswith(b"%d" % i)


def test_what_a_disk_cannot_read_comes_back_from_another_replica() -> None:
    """A read that meets it is answered by another; a minute later the node has it anew."""
    world = World(3)
    keys = [key for i in range(600) if world.ring.owner(key := f"key {i}") == "n1"]
    values = {key: key.encode() + bytes(4000) for key in keys}
    for key, value in values.items():
        world.put(key, value)
    world.run(seconds=1)
    world.spoil("n1")

    def served_by_others() -> list[str]:
        asked = {key: world.get_versioned(key, via="n1") for key in values}
        assert {key: result.value for key, result in asked.items()} == values
        return [key for key, result in asked.items() if "n1" not in result.replicas]

    lost = served_by_others()
    assert 0 < len(lost) < 10
    world.run(seconds=100)
    assert world.converged()
    assert served_by_others() == []
    assert all(holders(world, key) == set(world.nodes) for key in lost)


# ---- the surface ----


def test_history_and_trace_tell_what_happened() -> None:
    world = World(3)
    world.put(KEY, b"value")
    with pytest.raises(errors.NotFoundError):
        world.get("other", via="n2")
    put, get = world.history
    assert (put.kind, put.key, put.value, put.error, put.outcome, put.via) == (
        *("put", b"key", b"value", None, "applied", None),
    )
    assert (get.kind, get.error, get.outcome, get.via) == ("get", "NOT_FOUND", None, "n2")
    assert put.answered is not None and put.invoked < put.answered <= get.invoked
    kinds = {entry.kind for entry in world.trace}
    assert {"start", "connect", "message", "disk", "invoke", "request", "reply"} <= kinds
    times = [entry.time for entry in world.trace]
    assert times == sorted(times)
    assert world.messages == sum(entry.kind == "message" for entry in world.trace)


def test_the_trace_can_be_searched() -> None:
    world = World(3)
    world.put(KEY, b"value")
    coordinator = world.trace.filter("request")[0].node
    sent = world.trace.filter("message", peer=coordinator, text="apply ")
    assert {entry.node for entry in sent} == others(world, coordinator or "")
    assert len(world.trace.filter(after=world.time)) < len(world.trace)
    assert world.trace.filter(before=world.time) == world.trace
    assert world.trace[-1] == world.trace[-2:][1]


def test_the_history_is_ready_for_a_table() -> None:
    """pandas.DataFrame takes objects that `dataclasses.asdict` makes rows of."""
    world = World(3)
    for i in range(3):
        world.put(f"key {i}", b"value")
    rows = [dataclasses.asdict(operation) for operation in world.history]
    assert [row["key"] for row in rows] == [b"key 0", b"key 1", b"key 2"]
    for row in rows:
        assert row["outcome"] == "applied"
        assert row["invoked"] + row["seconds"] == pytest.approx(row["answered"])


def test_replicas_that_differ_are_named() -> None:
    world = World(4, seed=1)
    world.put(KEY, b"old")
    behind = world.ring.replicas(KEY)[1]
    world.crash(behind)
    world.run(seconds=1)
    assert world.converged()  # what a dead node holds is on its disk
    new = world.put(KEY, b"new", write="quorum").version
    (difference,) = world.divergence()
    assert difference.key == KEY.encode() and difference.behind == (behind,)
    assert tuple(difference.held) == world.ring.replicas(KEY)
    world.wipe(behind)
    (difference,) = world.divergence()
    assert difference.held == {
        node: None if node == behind else Held(new, False) for node in world.ring.replicas(KEY)
    }
    world.start(behind)
    world.run(seconds=3)
    world.delete(KEY)
    assert world.converged() and world.divergence() == []


def test_looking_changes_nothing() -> None:
    """A world in which the replicas were compared goes the way of one in which they were not."""
    hashes = set()
    for look in (False, True):
        world = World(4, seed=1)
        world.power_cut("n2")
        for i in range(20):
            world.submit("put", f"key {i}", b"value", level="quorum")
        world.run(seconds=0.01)
        if look:
            assert all(isinstance(one, Difference) for one in world.divergence())
        world.start("n2")
        world.run(seconds=1)
        hashes.add(world.trace_hash)
    assert len(hashes) == 1


def test_what_does_not_exist_is_refused() -> None:
    world = World(3)
    with pytest.raises(errors.InvalidArgumentError, match="n9"):
        world.crash("n9")
    with pytest.raises(errors.InvalidArgumentError):
        World(2, replication=3)
    with pytest.raises(errors.InvalidArgumentError):
        World(3, seed=-1)
    with pytest.raises(errors.InvalidArgumentError):
        World(3, drop=1.5)
    with pytest.raises(errors.InvalidArgumentError):
        World(3, latency=(2, 1))
    with pytest.raises(errors.InvalidArgumentError):
        world.slow_link("n1", "n2", bytes_per_second=0)
    with pytest.raises(IndexError):
        world.wait(0)


def test_a_lost_node_is_not_waited_for() -> None:
    world = World(3)
    world.put(KEY, b"value")
    world.crash("n3")
    lose_everything(world, "n2")
    world.run(seconds=3)
    with pytest.raises(errors.BusyError, match=r"node n1 is being tried, .* ask again in a second"):
        world.declare_lost("n1", to="n2")
    world.run(seconds=1)
    with pytest.raises(errors.PreconditionError, match=r"node n1 can be reached, .* ask again in"):
        world.declare_lost("n1", to="n2")
    with pytest.raises(errors.PreconditionError, match="node n2 is this node itself"):
        world.declare_lost("n2", to="n2")
    world.crash("n1")
    with pytest.raises(errors.UnavailableError):
        world.get("nothing", via="n2")
    world.declare_lost("n3", to="n2")
    with pytest.raises(errors.NotFoundError):
        world.get("nothing", via="n2")
    with pytest.raises(errors.UnavailableError, match=r"n1 does not run.* start it first"):
        world.declare_lost("n3", to="n1")
    world.pause("n2")
    with pytest.raises(errors.UnavailableError, match=r"n2 is paused.* resume it first"):
        world.declare_lost("n3", to="n2")
    assert "declare_lost" in {entry.kind for entry in world.trace}


def test_a_refusal_counts_the_replicas_that_are_not_tried_yet() -> None:
    world = World(5)
    dead, *_ = world.ring.replicas(KEY)[1:]
    world.crash(dead)
    with pytest.raises(errors.UnavailableError) as refused:
        world.put(KEY, b"value")
    assert "needs 3 of 3 replicas, 1 to 2 can take it" in str(refused.value)
    assert str(refused.value).endswith("at level quorum it may succeed")
    world.run(seconds=1)
    with pytest.raises(errors.UnavailableError) as refused:
        world.put(KEY, b"value")
    assert "needs 3 of 3 replicas, 2 can take it" in str(refused.value)
    assert str(refused.value).endswith("at level quorum it would succeed")
    assert world.put(KEY, b"value", write="quorum").replicas


def test_replaced_stores_do_not_vouch_for_each_other() -> None:
    """A store that comes back empty after all others were replaced, and is cut off from them again
    before it has anything, is not taken for that of a new cluster."""
    for ms in range(1, 40):
        world = World(3, seed=ms)
        world.run(seconds=1)
        world.put(KEY, b"value")
        world.crash("n1")
        world.wipe("n1")
        world.run(seconds=1)
        for node in ("n2", "n3"):
            lose_everything(world, node)
            world.run(seconds=5)
        world.start("n1")
        world.run(seconds=ms / 1000)
        world.partition(["n1"], ["n2", "n3"])
        world.run(seconds=1)
        with contextlib.suppress(errors.UnavailableError):
            assert world.get(KEY, via="n1") == b"value"


def test_a_running_node_keeps_its_disk() -> None:
    world = World(3)
    for lose in (world.wipe, world.lose_file):
        with pytest.raises(errors.PreconditionError, match=r"n1 is running: .*crash\('n1'\)"):
            lose("n1")
    world.pause("n1")
    with pytest.raises(errors.PreconditionError, match="n1 is paused: wipe needs one that does"):
        world.wipe("n1")
    with pytest.raises(errors.PreconditionError, match=r"n1 is paused: .*resume\('n1'\)"):
        world.stop("n1")
    world.crash("n1")
    with pytest.raises(errors.PreconditionError, match=r"n1 is down: .*start\('n1'\)"):
        world.stop("n1")
    world.wipe("n1")


def test_zones_and_weights_are_those_of_the_ring() -> None:
    nodes = {"a": {"zone": "east"}, "b": {"zone": "east"}, "c": {"zone": "west", "weight": 2}}
    world = World(nodes, replication=2)
    for i in range(20):
        assert "c" in world.put(f"key {i}", b"").replicas
