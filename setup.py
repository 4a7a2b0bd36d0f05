"""Builds the native half of the package: `make -f csrc/build.mk all`, then copies the results.

csrc/build.mk is the one description of the C build; this file only says where its results belong:
dkv/_core.abi3.so, dkv/_net.abi3.so and dkv/bin/dkv-node. Everything else is in pyproject.toml.

What is built to be given away has the licences of the libraries that are linked into it beside it,
in dkv/licenses.
"""

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError

ROOT = Path(__file__).resolve().parent
OUT = Path("build/release")


# What the packages of csrc/apt-packages.txt bring, where no dpkg can tell which are there.
PROGRAMS = ["make", "gcc", "g++", "pkg-config", "protoc-c"]
LIBRARIES = ["grpc", "libprotobuf-c", "libcrypto", "libssl", "libxxhash", "yaml-0.1"]
# Debian keeps their licences here; nothing is copied where it does not.
LICENSES = [
    Path(f"/usr/share/doc/{package}/copyright")
    for package in (
        *("libabsl-dev", "libc-ares-dev", "libgrpc-dev", "libprotobuf-c-dev", "libre2-dev"),
        *("libssl-dev", "libxxhash-dev", "libyaml-dev", "zlib1g-dev"),
    )
]


@functools.cache
def check_requirements() -> None:
    """Ends with one sentence if something that the C build needs is missing."""
    if shutil.which("dpkg-query") is None:
        check_tools()
        return
    missing = subprocess.run(
        [ROOT / "csrc/apt.sh", "missing", "build"], check=True, capture_output=True, text=True
    ).stdout.split()
    if not has_python_headers():
        missing.append("python3-dev")
    if missing:
        sudo = "" if os.geteuid() == 0 else "sudo "
        raise SetupError(
            "dkv needs Debian packages to compile; run: "
            f"{sudo}apt-get update && {sudo}apt-get install -y {' '.join(missing)}"
        )


def check_tools() -> None:
    """Looks for programs and libraries themselves, on a system that is not Debian."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if "pkg-config" not in missing:
        missing += [
            name
            for name in LIBRARIES
            if subprocess.run(["pkg-config", "--exists", name]).returncode != 0
        ]
    if not has_python_headers():
        missing.append("Python.h")
    if missing:
        raise SetupError(
            f"dkv does not compile here for want of: {', '.join(missing)}; it is made for "
            "Debian 12, where a wheel that needs none of this is built by: make wheel"
        )


def has_python_headers() -> bool:
    return (Path(sysconfig.get_path("include")) / "Python.h").exists()


class BuildIfPossible(build):
    """Looks before it does anything else, so that pip shows what is missing and little besides."""

    def run(self) -> None:
        check_requirements()
        super().run()


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
        if not self.inplace:
            for path in filter(Path.exists, LICENSES):
                copy(path, package / "licenses" / path.parent.name)

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
    cmdclass={"build": BuildIfPossible, "build_ext": BuildWithMake},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
