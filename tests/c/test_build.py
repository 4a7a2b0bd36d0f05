"""csrc/build.mk: what an interrupted build leaves behind is built anew."""

import os
import subprocess
from pathlib import Path

import pytest

import support

# Stands for the compiler: begins to write the program, and leaves it like that when it ends.
KILLED_LINKER = """#!/bin/sh
until [ "$1" = -o ]; do shift; done
echo half >"$2"
exit 1
"""


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-f", "csrc/build.mk", "OUT=build/gcc", *arguments]
    return subprocess.run(command, cwd=support.ROOT, text=True, capture_output=True)


@pytest.fixture
def killed_linker(tmp_path: Path) -> Path:
    path = tmp_path / "cc"
    path.write_text(KILLED_LINKER)
    path.chmod(0o755)
    return path


def test_a_link_that_was_killed_leaves_no_program(killed_linker: Path) -> None:
    target = "build/gcc/ctests/test_base"
    program = support.make("gcc", "ctests") / "ctests" / "test_base"
    program.unlink()
    done = make(f"CC={killed_linker}", target)
    assert done.returncode != 0 and not program.exists()
    done = make(*support.C_BUILDS["gcc"], target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert os.access(program, os.X_OK)
