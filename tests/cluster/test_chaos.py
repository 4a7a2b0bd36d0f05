"""Real processes under load and faults: nothing that was confirmed is lost, all replicas agree.

    DKV_CHAOS_SECONDS=600 DKV_CHAOS_SEED=7 pytest tests/cluster/test_chaos.py -s

`make test` runs it for a short time, `make chaos` for ten minutes. chaos/faults.py says what
breaks, chaos/load.py what must hold meanwhile; here is what must hold afterwards.
"""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter

from chaos import faults, load, views

import dkv
from dkv.errors import Error

SECONDS = float(os.environ.get("DKV_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("DKV_CHAOS_SEED", random.randrange(1_000_000)))
IS_LONG = SECONDS >= 60
NODES = ("n1", "n2", "n3", "n4", "n5")
CLIENTS = ("c1", "c2", "c3")
PLAN = faults.Plan(
    nodes=NODES,
    clients=CLIENTS,
    seconds=SECONDS,
    gap_s=4.0 if IS_LONG else 1.5,
    lasts_max_s=20.0 if IS_LONG else 3.0,
    wipe_every_s=60.0 if IS_LONG else 15.0,
)


def check_key(client, done, key, value):
    """`value`, which all replicas together gave for `key`, is the confirmed one or a newer one."""
    confirmed = done.confirmed.get(key)
    attempted = done.attempted.get(key, ())
    if confirmed and value == confirmed.value:
        return
    if value is None:
        if confirmed and None not in attempted:
            done.wrong.append(f"{key}: {confirmed.version} was confirmed and is missing")
    elif value not in attempted:
        done.wrong.append(f"{key}: {value[:40]!r} was never written last")
    elif confirmed:
        version = client.get_versioned(key, read="all").version
        if version < confirmed.version:
            done.wrong.append(f"{key}: {version} in place of {confirmed.version}")


def check_counts(client, done, keys):
    """Every node holds the records of those `keys` that the ring gives it, and no others."""
    expected = Counter(node for key in keys for node in client.ring.replicas(key))
    for node, status in client.status().items():
        if status is None or status.records != expected[node]:
            done.wrong.append(f"{node} should hold {expected[node]} records: {status}")


def check_everything(client, done):
    """What every node holds, before anything is read; then all values."""
    written = sorted({*done.confirmed, *done.attempted})
    before = {node: status.records for node, status in client.status().items()}
    values = client.get_many(written, read="all", timeout=60, errors="return")
    exist = list(done.confirmed)  # deleted ones, too, are records
    for key, value in zip(written, values, strict=True):
        if isinstance(value, Error):
            done.wrong.append(f"{key}: {value!r} at the end")
        else:
            check_key(client, done, key, value)
            if value is not None and key not in done.confirmed:
                exist.append(key)
    check_counts(client, done, exist)
    after = {node: status.records for node, status in client.status().items()}
    if before != after:
        done.wrong.append(f"reading has repaired something: {before} became {after}")


def verify(cluster):
    """The command says that all replicas are identical."""
    command = [sys.executable, "-m", "dkv", "verify", "--timeout", "60"]
    command += ["--connect", ",".join(cluster.addresses.values())]
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert said.returncode == 0, f"status {said.returncode}: {said.stdout}"
    print(said.stdout)


def seconds_to_converge(client):
    """Until all replicas are identical, and every node is believed again."""
    began = time.monotonic()
    while True:
        certificate = client.verify(timeout=10)
        if certificate.converged and not certificate.not_in_sync:
            return time.monotonic() - began
        assert time.monotonic() < began + faults.PATIENCE_S, certificate
        time.sleep(0.1)


def test_no_fault_loses_what_was_confirmed_and_all_replicas_agree_in_the_end(tmp_path):
    print(f"seed {SEED}, {SECONDS:g} s, logs in {tmp_path}")
    rand = random.Random(SEED)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(dkv.Cluster(NODES, 3, directory=tmp_path))
        relay = stack.enter_context(views.relayed(cluster, CLIENTS))
        control, *clients = (
            stack.enter_context(views.connect(cluster, relay, name)) for name in (None, *CLIENTS)
        )
        breaker = faults.Breaker(cluster, relay, control)
        done = load.Load(dict(zip(CLIENTS, clients, strict=True)), breaker.troubles)
        load.write_first(done)
        with load.running(done, rand):
            breaker.run(faults.schedule(rand, PLAN))
        took_s = seconds_to_converge(control)
        verify(cluster)
        check_everything(control, done)
    print(f"faults: {dict(breaker.counts)}\noperations: {dict(done.counts)}")
    print("the slowest gets judged:", *(what for _, what in done.slowest), sep="\n  ")
    print(f"all replicas identical {took_s:.1f} s after the last fault")
    wrong = "\n".join((breaker.wrong + done.wrong)[:20])
    assert not wrong, f"seed {SEED}, logs in {tmp_path}:\n{wrong}"
    assert done.counts["gets judged"] > 0
