"""What the layout, style and type checkers say, and both compilers with all warnings as errors."""

import subprocess
import sys
import sysconfig

import pytest

import support


def check(*command):
    """Runs a checker in the project's directory; it must find nothing."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=support.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_c_code_is_laid_out_by_clang_format():
    files = support.project_files("csrc/*.[ch]", "node/*.[ch]", "tests/*.[ch]")
    check("clang-format", "--dry-run", "--Werror", *files)


def test_clang_tidy_finds_no_likely_bugs():
    gen = support.make("asan", "all") / "gen"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-DPy_LIMITED_API=0x030B0000", "-Icsrc", f"-I{gen}"]
    flags += ["-isystem", sysconfig.get_path("include")]
    files = support.project_files("csrc/*.c", "node/*.c")
    check(
        "clang-tidy",
        "--quiet",
        "--checks=-clang-analyzer-*",  # in addition to .clang-tidy
        *files,
        "--",
        *flags,
    )


def test_python_code_is_laid_out_by_ruff():
    check(sys.executable, "-m", "ruff", "format", "--check", "--diff", "--quiet", ".")


def test_ruff_finds_nothing():
    check(sys.executable, "-m", "ruff", "check", "--quiet", ".")


def test_types_are_complete_and_right():
    check(sys.executable, "-m", "mypy")


def test_the_stubs_of_the_extensions_describe_what_is_there():
    """The other modules hold their types themselves: they would be compared with themselves."""
    check(sys.executable, "-m", "mypy.stubtest", "dkv._core", "dkv._net")


def test_debian_packages_are_listed_with_a_reason():
    for line in (support.ROOT / "csrc/apt-packages.txt").read_text().splitlines():
        if not line.startswith("#"):
            kind, _, reason = line.split(None, 2)
            assert kind in ("build", "make", "demo", "test", "stages", "bench") and reason, line


@pytest.mark.parametrize("build", ["gcc", "asan"])
def test_compiles_without_warnings(build):
    try:
        failure = None
        support.make(build, "all", "ctests", "loads")
    except support.BuildError as error:
        failure = str(error)
    if failure:
        pytest.fail(failure, pytrace=False)
