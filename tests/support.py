"""What several tests share: where things are, and how they are built."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The ways in which C tests and fuzz targets are built: arguments of csrc/build.mk.
C_BUILDS = {
    "gcc": ["CC=gcc", "WERROR=1"],
    "asan": ["CC=clang", "WERROR=1", "SAN=address,undefined"],
    "tsan": ["CC=clang", "WERROR=1", "SAN=thread"],
    "shared-asan": ["CC=clang", "WERROR=1", "SAN=address,undefined", "LDFLAGS=-shared-libasan"],
    "fuzz": ["CC=clang", "WERROR=1", "SAN=address,undefined,fuzzer-no-link", "OPT=-O1 -g"],
}


class BuildError(Exception):
    """make failed; the text is what it printed."""


_built: dict[tuple[str, ...], bool] = {}


def make(build: str, *targets: str) -> Path:
    """Builds `targets` in the way named `build`, once per test run; returns the directory.

    Raises `BuildError`: the first time with what make printed, later in one line.
    """
    if (build, *targets) not in _built:
        command = ["make", "-f", "csrc/build.mk", f"-j{len(os.sched_getaffinity(0))}"]
        command += [f"OUT=build/{build}", f"PYTHON={sys.executable}", *C_BUILDS[build], *targets]
        done = subprocess.run(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        _built[build, *targets] = done.returncode == 0
        if done.returncode != 0:
            raise BuildError(f"{' '.join(command)}\n{done.stdout}")
    if not _built[build, *targets]:
        raise BuildError(f"the build {build!r} failed before")
    return ROOT / "build" / build


def project_files(*patterns: str) -> list[Path]:
    """The project's own files, committed or about to be: what .gitignore hides is left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]
