"""What is called without end holds no more and more: neither memory nor files nor threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dkv

# DKV_LEAK_CALLS=1000000 for the long form: a few minutes.
CALLS = int(os.environ.get("DKV_LEAK_CALLS", "60000"))
PROGRAM = Path(__file__).with_name("calls_without_end.py")


def test_calls_that_succeed_and_fail_leave_nothing_behind(cluster3: dkv.Cluster) -> None:
    """With one node dead, so that writes are refused; the first two of six rounds are the warm-up.

    Python's objects are counted to the piece. gRPC's own tables may grow a little.
    """
    seeds = [cluster3.address("n1"), cluster3.address("n2")]
    cluster3.kill("n3")
    done = subprocess.run(
        [sys.executable, PROGRAM, str(CALLS), *seeds], stdout=subprocess.PIPE, text=True, check=True
    )
    cluster3.start("n3")
    _, warm, *_, last = (json.loads(line) for line in done.stdout.splitlines())
    assert last["objects"] - warm["objects"] < 50
    assert last["malloc"] - warm["malloc"] < 300_000
    assert last["files"] - warm["files"] <= 3
    assert last["threads"] - warm["threads"] <= 3
