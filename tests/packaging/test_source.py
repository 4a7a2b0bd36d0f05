"""What is built from: the source distribution, and `pip install .` where something is missing."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import dkv
import support


def run(*command: str | Path) -> str:
    return subprocess.run(
        command, cwd=support.ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def test_the_program_and_the_package_have_one_version() -> None:
    program = support.ROOT / "dkv/bin/dkv-node"
    assert dkv.__version__ in run(program, "--version")


def test_the_source_distribution_holds_all_that_is_built_from(tmp_path: Path) -> None:
    run(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", tmp_path)
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    sources = support.project_files("csrc/*", "node/*", "proto/*", "dkv/*", "tests/*", "Makefile")
    assert {str(path.relative_to(support.ROOT)) for path in sources} <= names
    assert not [name for name in names if name.endswith(".so")]


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A directory to be the whole PATH: it holds what setup.py itself calls, and no compiler."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("sh", "awk", "dirname"):
        found = shutil.which(name)
        assert found
        (directory / name).symlink_to(found)
    return directory


def last_words_of_pip(path: Path) -> str:
    """What `pip wheel .` (whose first half `pip install .` is) says from the error on."""
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, "--wheel-dir", path.parent / "wheels", "."],
        cwd=support.ROOT,
        env=os.environ | {"PATH": str(path), "COLUMNS": "500"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "error: dkv" in line]
    return line.partition("error: ")[2]


def test_missing_debian_packages_are_told_by_the_command_to_run(bare_path: Path) -> None:
    (bare_path / "dpkg-query").write_text("#!/bin/sh\nexit 1\n")
    (bare_path / "dpkg-query").chmod(0o755)
    sudo = "" if os.geteuid() == 0 else "sudo "
    assert last_words_of_pip(bare_path) == (
        "dkv needs Debian packages to compile; run: "
        f"{sudo}apt-get update && {sudo}apt-get install -y build-essential libgrpc-dev "
        "libprotobuf-c-dev libssl-dev libxxhash-dev libyaml-dev pkg-config protobuf-c-compiler"
    )


def test_another_system_is_told_what_it_lacks(bare_path: Path) -> None:
    assert last_words_of_pip(bare_path) == (
        "dkv does not compile here for want of: make, gcc, g++, pkg-config, protoc-c; it is made "
        "for Debian 12, where a wheel that needs none of this is built by: make wheel"
    )
