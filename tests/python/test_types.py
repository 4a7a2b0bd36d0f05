"""What a type checker says of programs that use dkv."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import support

SAMPLES = Path(__file__).with_name("samples")


@pytest.fixture(scope="module")
def report() -> list[str]:
    """What mypy finds in the samples, run as by a user: without this project's settings."""
    cache = support.ROOT / ".mypy_cache/samples"
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", cache]
    done = subprocess.run(
        [*command, "--show-error-codes", "--no-pretty", "uses.py", "wrong_uses.py"],
        cwd=SAMPLES,
        env=os.environ | {"MYPYPATH": str(support.ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def test_a_program_that_uses_everything_is_accepted(report: list[str]) -> None:
    assert not [line for line in report if not line.startswith("wrong_uses.py:")]


def test_mistakes_are_found_where_they_are(report: list[str]) -> None:
    lines = (SAMPLES / "wrong_uses.py").read_text().splitlines()
    expected = {
        (number, line.rpartition("  # ")[2])
        for number, line in enumerate(lines, 1)
        if "  # " in line
    }
    found = {
        (int(words[1]), words[2])
        for line in report
        if (words := re.match(r"wrong_uses\.py:(\d+): .*\[([\w-]+)\]$", line))
    }
    assert found == expected


def test_the_program_that_uses_everything_runs(tmp_path: Path) -> None:
    program = [sys.executable, SAMPLES / "uses.py", tmp_path]
    subprocess.run(program, stdout=subprocess.DEVNULL, timeout=120, check=True)
