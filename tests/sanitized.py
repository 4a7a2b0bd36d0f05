"""Runs Python tests under the sanitizers: python tests/sanitized.py [arguments of pytest]

The extensions and dkv-node are built with the address and undefined-behaviour sanitizers, and stand
in a copy of the package, build/sanitized/package, that the tests import. What they complain of goes
to files, so that nothing is missed that a node says when a test no longer looks; these files are
shown in the end. Exit status 1 if there are any, or else that of pytest. Both sanitizers are
clang's, which share a library: gcc's are two, of which only one writes to the files.

Leaks are not looked for: CPython keeps memory until its end. Left out are tests of what the
sanitizers themselves change (memory in use, time), those that use no C, and the simulator's
campaigns, which the C tests run under sanitizers as well.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import support

TESTS = ["python", "cluster", "node", "sim", "ring", "store"]
LEFT_OUT = ["python/test_leaks.py", "python/test_types.py", "cluster/test_hundred_nodes.py"]
LEFT_OUT += ["cluster/test_relay.py", "sim/test_campaigns.py"]
LEFT_OUT += ["cluster/test_chaos.py", "cluster/test_demo.py", "node/test_installation.py"]
HOME = support.ROOT / "build" / "sanitized"


def make_package() -> Path:
    """A package that imports as dkv, with what was built for this; returns where it is."""
    built = support.make("shared-asan", "all")
    package = HOME / "package" / "dkv"
    shutil.rmtree(package, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__", "bin", "*.so")
    shutil.copytree(support.ROOT / "dkv", package, ignore=skip)
    (package / "bin").mkdir()
    (package / "bin" / "dkv-node").symlink_to(built / "bin" / "dkv-node")
    for extension in (built / "py").glob("*.so"):
        (package / extension.name).symlink_to(extension)
    return package.parent


def library() -> str:
    """Where the library of clang's sanitizers is."""
    command = ["clang", f"-print-file-name=libclang_rt.asan-{platform.machine()}.so"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def environment(package: Path, reports: Path) -> dict[str, str]:
    """What the tests and all that they start run in."""
    log = f"log_path={reports}/report"
    return os.environ | {
        "LD_PRELOAD": library(),
        "ASAN_OPTIONS": f"detect_leaks=0:{log}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{log}",
        "PYTHONPATH": str(package),
        "PYTHONSAFEPATH": "1",  # dkv is not to be found where the tests are started
    }


def main() -> int:
    """Builds, runs, shows; returns the exit status."""
    reports = HOME / "reports"
    package = make_package()
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    tests = [f"tests/{name}" for name in TESTS]
    if any(not argument.startswith("-") for argument in sys.argv[1:]):
        tests = []  # some are named
    left_out = [f"--ignore=tests/{name}" for name in LEFT_OUT]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += [*left_out, *sys.argv[1:], *tests]
    done = subprocess.run(command, cwd=support.ROOT, env=environment(package, reports))
    found = sorted(reports.iterdir())
    for report in found:
        print(f"---- {report}\n{report.read_text(errors='replace')}")
    return 1 if found else done.returncode


if __name__ == "__main__":
    sys.exit(main())
