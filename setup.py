"""Builds the native half of the package: `make -f csrc/build.mk all`, then copies the results.

csrc/build.mk is the one description of the C build; this file only says where its results belong:
dkv/_core.abi3.so, dkv/_net.abi3.so and dkv/bin/dkv-node. Everything else is in pyproject.toml.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError

ROOT = Path(__file__).resolve().parent
OUT = Path("build/release")


def check_requirements() -> None:
    """Ends with one sentence if a Debian package or Python's headers are missing."""
    missing = subprocess.run(
        [ROOT / "csrc/apt.sh", "missing", "build"], check=True, capture_output=True, text=True
    ).stdout.split()
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        missing.append("python3-dev")
    if missing:
        raise SetupError(
            "dkv needs Debian packages to compile; run: sudo apt-get install -y "
            + " ".join(missing)
        )


class BuildWithMake(build_ext):
    """Lets make build everything, then puts the files where setuptools expects them."""

    def run(self) -> None:
        check_requirements()
        jobs = len(os.sched_getaffinity(0))
        command = ["make", "-s", "--no-print-directory", "-f", "csrc/build.mk", f"-j{jobs}", "all"]
        command += [f"OUT={OUT}", f"PYTHON={sys.executable}"]
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            raise SetupError("the C part of dkv did not compile; the compiler's words stand above")
        super().run()
        package = Path("dkv") if self.inplace else Path(self.build_lib) / "dkv"
        copy(OUT / "bin/dkv-node", package / "bin/dkv-node")

    def build_extension(self, ext: Extension) -> None:
        name = ext.name.rpartition(".")[2]
        copy(OUT / f"py/{name}.abi3.so", Path(self.get_ext_fullpath(ext.name)))


def copy(source: Path, target: Path) -> None:
    """Replaces `target` in one step: a process that runs it keeps the file that it has open."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(target.name + ".new")
    shutil.copy2(ROOT / source, fresh)
    fresh.replace(target)


setup(
    ext_modules=[
        Extension("dkv._core", sources=[], py_limited_api=True),
        Extension("dkv._net", sources=[], py_limited_api=True),
    ],
    cmdclass={"build_ext": BuildWithMake},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
