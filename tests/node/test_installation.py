"""What an installation consists of besides the program: manual, unit of systemd, container file."""

import re
import shutil
import subprocess

import pytest

import support
from dkv import node_program

NODE = support.ROOT / "node"
MANUAL = NODE / "dkv-node.8"


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"there is no {program} here")


def manual_text():
    done = run("groff", "-mandoc", "-Tascii", "-P-cbou", MANUAL)
    assert done.returncode == 0
    return done.stdout


# ---- the manual page ----


@needs("groff")
def test_the_manual_is_formatted_without_warnings():
    done = run("groff", "-mandoc", "-Tutf8", "-ww", "-z", MANUAL)
    assert (done.returncode, done.stderr) == (0, "")


@needs("man")
def test_man_shows_the_manual_without_warnings():
    done = run("man", "--warnings=w", "-l", MANUAL)
    assert (done.returncode, done.stderr) == (0, "")
    assert "dkv-node" in done.stdout


@needs("groff")
def test_manual_and_help_know_the_same_options_keys_and_statuses():
    shown, written = run(node_program.path(), "--help").stdout, manual_text()
    options = set(re.findall(r"--[a-z-]+", shown))
    assert options == set(re.findall(r"--[a-z-]+", written))
    keys = set()
    for name in ("config.c",):
        tables = re.findall(r"_fields\[\] = \{\n(.*?)\n\};", (NODE / name).read_text(), re.DOTALL)
        keys |= {key for table in tables for key in re.findall(r'\{"([a-z_]+)"', table)}
    assert {"cluster", "durability", "write_memory", "idle_ms", "zone"} <= keys
    for key in keys:
        assert re.search(rf"\b{key}\b", written), f"the manual does not explain {key}"
        assert re.search(rf"\b{key}\b", shown), f"--help does not show {key}"
    for status in range(6):
        assert re.search(rf"^ +{status}  ", shown, re.MULTILINE) or f"{status}  " in shown
        assert re.search(rf"^ +{status} +[A-Z]", written, re.MULTILINE)


def test_lines_of_help_fit_a_terminal():
    assert max(map(len, run(node_program.path(), "--help").stdout.splitlines())) <= 100


# ---- the example ----


def check_elsewhere(text, directory):
    """Has the configuration checked, with its data in a directory that this machine has."""
    config = directory / "dkv.yaml"
    config.write_text(re.sub("^data: [^ #\n]*", f"data: {directory}/n1", text, flags=re.MULTILINE))
    return run(node_program.path(), "--config", config, "--insecure", "--check")


def test_the_example_configuration_is_right(tmp_path):
    done = check_elsewhere((NODE / "dkv.yaml").read_text(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "node n1 of cluster example, N = 3, 3 nodes" in done.stdout


def test_the_configuration_in_help_is_right(tmp_path):
    shown = run(node_program.path(), "--help").stdout
    examples = re.findall(r"(?:^  .*\n)+", shown.partition("The configuration")[2], re.MULTILINE)
    text = "".join(line[2:] + "\n" for e in examples[:2] for line in e.splitlines())
    done = check_elsewhere(text, tmp_path)
    assert done.returncode == 0, done.stderr + text


# ---- systemd ----


@needs("systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path):
    unit = (NODE / "dkv-node.service").read_text()
    assert "/usr/local/bin/dkv-node" in unit
    copy = tmp_path / "dkv-node.service"
    copy.write_text(unit.replace("/usr/local/bin/dkv-node", str(node_program.path())))
    done = run("systemd-analyze", "verify", "--man=no", copy)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# ---- containers ----


def container_steps():
    text = re.sub(r"^#.*\n", "", (NODE / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def test_the_container_file_copies_what_there_is_and_drops_root():
    steps = container_steps()
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"}
    assert {word for word, _ in steps} <= known | {"ENTRYPOINT"}
    for word, rest in steps:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (support.ROOT / source).exists(), source
    words = [word for word, _ in steps]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert [rest for word, rest in steps if word == "USER"] == ["dkv"]


def test_what_the_container_installs_is_what_the_program_is_linked_with():
    """Libraries that Debian's slim image does not hold come from packages that the file names."""
    in_image = ("linux-vdso", "libc", "libm", "ld-linux-x86-64", "libgcc_s")
    packages = {"libssl": "libssl3", "libcrypto": "libssl3", "libatomic": "libatomic1"}
    linked = run("ldd", node_program.path()).stdout
    installed = " ".join(rest for _, rest in container_steps())
    for line in linked.splitlines():
        name = line.split()[0].rpartition("/")[2].partition(".so")[0]
        assert name in in_image or packages[name] in installed, line
