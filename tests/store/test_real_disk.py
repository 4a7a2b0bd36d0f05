"""The store on real files: killed, filled up, opened. The helper is tests/c/test_store_disk.c."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import support

KILLS = 50
KEYS = "2000"
INTERVAL_MS = "50"
# What is alive of so many keys, about 24 MiB, does not fit beside the ballast: so the disk becomes
# full however fast merge is.
FULL_KEYS = 20000
DISK_MIB = 80
BALLAST_MIB = 64


@pytest.fixture(scope="module")
def program() -> Path:
    return support.make("gcc", "ctests") / "ctests" / "test_store_disk"


def verify(program: Path, directory: Path, confirmed: Path) -> None:
    with confirmed.open("rb") as numbers:
        done = subprocess.run(
            [program, "verify", directory],
            stdin=numbers,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("durability", [(), (KEYS, INTERVAL_MS)], ids=["always", "interval"])
def test_no_confirmed_write_is_lost_by_kill_9(program, tmp_path, durability):
    """A writer is killed 50 times at random moments; each time all it had confirmed is there, if it
    was synced or if that was still to come."""
    confirmed = tmp_path / "confirmed"
    random.seed(20)
    for _ in range(KILLS):
        with confirmed.open("ab", buffering=0) as out:
            out.write(b"\n")  # a kill can cut a line at the end of a page
            command = [program, "write", tmp_path / "store", *durability]
            writer = subprocess.Popen(command, stdout=out)
        time.sleep(random.uniform(0.005, 0.15))
        writer.kill()
        writer.wait()
        verify(program, tmp_path / "store", confirmed)
    assert confirmed.stat().st_size > 0


FULL_DISK = """
set -e
mount -t tmpfs -o size={disk}m tmpfs "$2" || exit 77
head -c {ballast}M /dev/zero > "$2/ballast"
"$1" write "$2/store" {keys} > "$3" &
writer=$!
for i in $(seq 600); do grep -q full "$3" && break; sleep 0.05; done
grep -q full "$3" || {{ echo "the disk did not become full"; exit 1; }}
sleep 0.3
rm "$2/ballast"
before=$(wc -l < "$3")
for i in $(seq 600); do [ $(wc -l < "$3") -gt $((before + 500)) ] && break; sleep 0.05; done
after=$(wc -l < "$3")
[ $after -gt $((before + 500)) ] || {{ echo "no more confirmations: $before, $after"; exit 1; }}
kill -9 $writer
wait $writer || true
"$1" verify "$2/store" {keys} < "$3"
"""


def test_a_full_disk_refuses_and_recovers(program, tmp_path):
    """On a file system that really is full, writes are refused; with space they go on by
    themselves; nothing confirmed is lost."""
    if not shutil.which("unshare"):
        pytest.skip("no unshare(1) to mount a small file system with")
    (tmp_path / "disk").mkdir()
    script = FULL_DISK.format(disk=DISK_MIB, ballast=BALLAST_MIB, keys=FULL_KEYS)
    command = ["unshare", "--mount", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [*command, program.resolve(), tmp_path / "disk", tmp_path / "confirmed"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    if done.returncode == 77 or "unshare:" in done.stdout:
        pytest.skip(f"no small file system can be mounted here: {done.stdout.strip()}")
    assert done.returncode == 0, done.stdout


def test_opening_a_million_records(program, tmp_path):
    """Prints how long a store of a million records takes to open (seen with pytest -s)."""
    done = subprocess.run(
        [program, "opening", tmp_path / "store"], stdout=subprocess.PIPE, text=True, check=True
    )
    sys.stdout.write(done.stdout)
    assert "1000000 records" in done.stdout
