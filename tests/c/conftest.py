"""Shows each test of the C executables (tests/c/test_*.c) as a pytest item.

An item runs `test_x NAME` in one of the builds of support.C_BUILDS, by default the strict gcc build
and the one under clang's address and undefined-behaviour sanitizers; where threads meet, under the
thread sanitizer too.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import support

TIMEOUT_S = 300
THREADED = {"test_bench", "test_client", "test_host", "test_rpc", "test_rpc_peers"}
THREADED |= {"test_client_threads"}


class CTestError(Exception):
    """A test of an executable failed; the text is what it printed."""


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".c" and file_path.name.startswith("test_"):
        return CFile.from_parent(parent, path=file_path)
    return None


class CFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        names = re.findall(r"CHECK_TEST\((\w+)\)", self.path.read_text())
        by_default = ["gcc", "asan", *(["tsan"] if self.path.stem in THREADED else [])]
        for build in self.config.getoption("c_build") or by_default:
            for name in names:
                yield CItem.from_parent(self, name=f"{name}[{build}]", build=build, test=name)


class CItem(pytest.Item):
    def __init__(self, *, build: str, test: str, **rest: object) -> None:
        super().__init__(**rest)
        self.build = build
        self.test = test

    def runtest(self) -> None:
        alone = f"build/{self.build}/ctests/{self.path.stem}"  # few are needed of this build
        target = alone if self.build == "tsan" else "ctests"
        program = support.make(self.build, target) / "ctests" / self.path.stem
        done = subprocess.run(
            [program.relative_to(support.ROOT), self.test],
            cwd=support.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
        if done.returncode != 0 or f"ok {self.test}" not in done.stdout.splitlines():
            raise CTestError(f"{done.stdout}exit status {done.returncode}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo, style: object = None) -> object:
        if isinstance(excinfo.value, CTestError | support.BuildError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.path.stem}: {self.name}"
