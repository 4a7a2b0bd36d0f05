"""The program dkv-node as an operator meets it: options, configuration, start, stop, status."""

import re
import signal
import socket
import subprocess
import time

import pytest

import dkv
from dkv import __version__, node_program

GOOD = """\
cluster: demo
replication: 2
node: n1
data: n1
nodes:
  n1: {address: "127.0.0.1:%(port)d", host: m1, zone: z1, weight: 2}
  n2: {address: "127.0.0.1:1"}
timing: {attempt_ms: 30, idle_ms: 1000}
"""


def run(*arguments):
    """Runs dkv-node to its end."""
    return subprocess.run(
        [node_program.path(), *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def port(ports):
    return ports[0]


@pytest.fixture
def config(tmp_path, port):
    """A configuration of a node whose cluster has another node, which is not there."""
    path = tmp_path / "n1.yaml"
    path.write_text(GOOD % {"port": port})
    return path


@pytest.fixture
def start(request):
    """Starts dkv-node and waits until it says that it listens; kills it at the end."""
    processes = []

    def start(*arguments):
        process = subprocess.Popen(
            [node_program.path(), *arguments], stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        process.first_line = process.stderr.readline()
        assert "listening" in process.first_line, process.first_line + process.stderr.read()
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def await_listening(port):
    for _ in range(2000):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    pytest.fail("the node does not listen")


def stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    process.wait(20)
    return process.returncode, process.stderr.read()


# ---- options ----


def test_version_and_help_go_to_standard_output():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"dkv-node {__version__}\n")
    done = run("--help")
    assert done.returncode == 0 and not done.stderr
    for word in ("--config", "--check", "--insecure", "--log-level", "replication:", "Exit status"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--config is missing"),
        (["--config"], "--config"),
        (["--nonsense"], "--nonsense"),
        (["--config", "x", "y"], "what is this for: y"),
        (["--config", "x", "--log-level", "loud"], 'error, warn, info or debug, not "loud"'),
        (["--config", "x", "--log-format", "xml"], 'text or json, not "xml"'),
    ],
)
def test_wrong_options_are_status_2(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and not done.stdout
    assert words in done.stderr


# ---- configuration ----


def test_check_reads_the_configuration_and_starts_nothing(config, tmp_path):
    done = run("--config", config, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("node n1 of cluster demo", "N = 2", "2 nodes", str(tmp_path / "n1")):
        assert words in done.stdout
    assert "made by the first start" in done.stdout
    assert not (tmp_path / "n1").exists()


def test_check_ends_as_a_start_would_that_needs_a_word_more(config):
    config.write_text(config.read_text().replace("127.0.0.1", "192.0.2.1"))
    done = run("--config", config, "--check")
    assert done.returncode == run("--config", config).returncode == 2
    assert "192.0.2.1:" in done.stderr and "needs --insecure" in done.stderr
    done = run("--config", config, "--check", "--insecure")
    assert (done.returncode, done.stderr) == (0, "")


# What is replaced in the good file, by what, the line that is named, and what is said.
BAD = [
    ("cluster: demo", "cluster: de mo", 1, "cluster", "A-Z a-z 0-9"),
    ("cluster: demo", "cluster: [demo]", 1, "cluster", "single value"),
    ("cluster: demo", "", 2, "cluster", "missing"),
    ("replication: 2", "replication: 0", 2, "replication", "1 to 5"),
    ("replication: 2", "replication: 6", 2, "replication", "1 to 5"),
    ("replication: 2", "replication: two", 2, "replication", "1 to 5"),
    ("replication: 2", "replication: 3", 2, "replication", "at least 3 nodes"),
    ("replication: 2", "replication: 2\nreplication: 2", 3, "replication", "twice"),
    ("node: n1", "node: n7", 3, "node", '"n7" is not one of the nodes'),
    ("data: n1", "data: ''", 4, "data", "missing"),
    ("data: n1", "date: n1", 4, "date", "allowed are cluster, replication, node, data"),
    ("data: n1", "data: d\nlisten: {}", 5, "listen", "single value"),
    ("weight: 2", "weight: 17", 6, "weight", "1 to 16"),
    ("weight: 2", "weight: -1", 6, "weight", "1 to 16"),
    ("weight: 2", "wait: 2", 6, "wait", "allowed are address, host, zone, weight"),
    ("host: m1", "host: m/1", 6, "host", "A-Z a-z 0-9"),
    ("zone: z1", "zone: 'z 1'", 6, "zone", "A-Z a-z 0-9"),
    ('n2: {address: "127.0.0.1:1"}', "n2: {}", 7, "address", "missing"),
    ('n2: {address: "127.0.0.1:1"}', "n2: 127.0.0.1:1", 7, "n2", "key: value"),
    ('"127.0.0.1:1"', '"127.0.0.1"', 7, "address", "host:port"),
    ('"127.0.0.1:1"', '"127.0.0.1:70000"', 7, "address", "host:port"),
    ('n2: {address: "127.0.0.1:1"}', 'n/2: {address: "a:1"}', 7, "n/2", "A-Z a-z 0-9"),
    ('n2: {address: "127.0.0.1:1"}', 'n1: {address: "a:1"}', 7, "n1", "twice"),
    ("attempt_ms: 30", "attempt_ms: 0", 8, "attempt_ms", "1 to 600000"),
    ("attempt_ms: 30", "attempt: 30", 8, "attempt", "allowed are attempt_ms"),
    ("timing: {", "timing: {]", 8, "YAML", ""),
    ("cluster: demo", "cluster: demo: x", 1, "YAML", ""),
    ("data: n1", "data: n1\nlisten: here", 5, "listen", '"host:port"'),
    ("data: n1", "data: n1\nlisten: 127.0.0.1:0", 5, "listen", "from 1 to 65535"),
    ("data: n1", "data: n1\ndurability: often", 5, "durability", "always, memory or {interval:"),
    ("data: n1", "data: n1\ndurability: [memory]", 5, "durability", "single value"),
    ("data: n1", "data: n1\ndurability: {interval: 0}", 5, "interval", "from 1 to 60000"),
    ("data: n1", "data: n1\ndurability: {every: 5}", 5, "every", "allowed are interval"),
    ("data: n1", "data: n1\ndurability: {}", 5, "durability", "interval is missing"),
    ("data: n1", "data: n1\nlimits: 5", 5, "limits", "key: value"),
    ("data: n1", "data: n1\nlimits: {memory: 5}", 5, "memory", "allowed are requests, request_m"),
    ("data: n1", "data: n1\nlimits: {requests: 15}", 5, "requests", "from 16 to 65536"),
    ("data: n1", "data: n1\nlimits: {requests: 65537}", 5, "requests", "from 16 to 65536"),
    ("data: n1", "data: n1\nlimits: {segment: 64 MB}", 5, "segment", "B, KiB, MiB or GiB"),
    ("data: n1", "data: n1\nlimits: {segment: 1}", 5, "segment", "from 4 MiB to 1024 MiB"),
    ("data: n1", "data: n1\nlimits: {segment: 2 GiB}", 5, "segment", "from 4 MiB to 1024 MiB"),
    ("data: n1", "data: n1\nlimits: {scrub: 1 KiB}", 5, "scrub", "from 1 MiB to 1024 MiB"),
    ("data: n1", "data: n1\nlimits: {request_memory: 7 MiB}", 5, "request_memory", "from 8 MiB"),
    ("data: n1", "data: n1\nlimits: {receive_memory: ''}", 5, "receive_memory", "from 32 MiB"),
    ("data: n1", "data: n1\nlimits: {cache_memory: 0 B}", 5, "cache_memory", "from 1 MiB"),
    ("data: n1", "data: n1\nlimits: {write_memory: 99 TiB}", 5, "write_memory", "from 8 MiB"),
]


MISSPELT = {"date: n1", "data: n1\ndurability: {every: 5}"}


@pytest.mark.parametrize(("old", "new", "line", "key", "words"), BAD)
def test_what_is_wrong_is_told_by_file_line_and_key(config, old, new, line, key, words):
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new, 1))
    done = run("--config", config, "--check")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"dkv-node: {config}:{line}: "), done.stderr
    first, *rest = done.stderr.splitlines()
    assert key in first and words in first
    # A key that is misspelt is missing, too. No error is the consequence of another one otherwise.
    assert all("is missing" in each for each in rest) and len(rest) == (new in MISSPELT)


def test_all_that_is_wrong_is_told_at_once(config):
    text = GOOD % {"port": 7001}
    for old, new in [
        ("cluster: demo", "cluster: de mo"),
        ("replication: 2", "replication: nine"),
        ("data: n1", "limits: {requests: 1, scrub: fast, dust: 1}"),
        ("host: m1, zone: z1, weight: 2", "host: m/1, zone: 'z 1', weight: 0"),
        ('{address: "127.0.0.1:1"}', "{weight: 1}"),
        ("attempt_ms: 30, idle_ms: 1000", "attempt_ms: soon, silence_ms: 0"),
    ]:
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    done = run("--config", config, "--check")
    assert done.returncode == 2 and not done.stdout
    expected = [
        (1, 'cluster: "de mo"'),
        (2, 'replication: "nine"'),
        (4, 'requests: "1"'),
        (4, 'scrub: "fast"'),
        (4, "limits: unknown key dust"),
        (6, 'host: "m/1"'),
        (6, 'zone: "z 1"'),
        (6, 'weight: "0"'),
        (7, "node n2: the key address is missing"),
        (8, 'attempt_ms: "soon"'),
        (8, 'silence_ms: "0"'),
        (1, "configuration: the key data is missing"),
    ]
    said = done.stderr.splitlines()
    assert len(said) == len(expected), done.stderr
    for line, (number, words) in zip(said, expected, strict=True):
        assert line.startswith(f"dkv-node: {config}:{number}: {words}"), line
    assert run("--config", config).stderr == done.stderr  # a start says the same


def test_a_wrong_address_is_not_blamed_on_the_fields_after_it(config):
    config.write_text(
        config.read_text().replace('"127.0.0.1:1"}', '"nowhere", zone: z2, host: m2}')
    )
    done = run("--config", config, "--check")
    assert done.stderr.count("\n") == 1 and 'address: "nowhere"' in done.stderr


def test_no_more_than_twenty_errors_are_told(config):
    more = "".join(f"  m{i}: {{address: here}}\n" for i in range(30))
    config.write_text((GOOD % {"port": 7001}).replace("timing", more + "timing"))
    done = run("--config", config, "--check")
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 21
    assert all('address: "here"' in line for line in lines[:20]) and "more may be" in lines[20]


@pytest.mark.parametrize(
    ("timing", "line", "words"),
    [
        ("{ping_ms: 2000, silence_ms: 1000}", 8, "ping_ms (2000) must be less than silence_ms (1"),
        ("{ping_ms: 1000, silence_ms: 1000}", 8, "ping_ms (1000) must be less than silence_ms (1"),
        ("{ping_ms: 1500}", 8, "less than silence_ms (1500, the default)"),
        ("{silence_ms: 250}", 8, "ping_ms (250, the default) must be less"),
        ("\n  idle_ms: 9\n  silence_ms: 9\n  ping_ms: 9", 11, "ping_ms (9) must be less"),
    ],
)
def test_a_peer_is_pinged_before_it_is_taken_for_dead(config, timing, line, words):
    text = config.read_text()
    config.write_text(text.replace("{attempt_ms: 30, idle_ms: 1000}", timing))
    done = run("--config", config, "--check")
    assert done.returncode == 2
    assert done.stderr.startswith(f"dkv-node: {config}:{line}: timing: ") and words in done.stderr
    config.write_text(text.replace("{attempt_ms: 30, ", "{ping_ms: 9, silence_ms: 10, "))
    assert run("--config", config, "--check").returncode == 0


def test_two_nodes_cannot_have_one_address(config, port):
    config.write_text(config.read_text().replace("127.0.0.1:1", f"127.0.0.1:{port}", 2))
    done = run("--config", config, "--check")
    assert done.returncode == 2 and "n2 has the address of n1" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"- a\n- b\n", "key: value"), (b"\xff\xfe\x00", ""), (b"a: \x00", "")],
)
def test_files_that_are_no_configuration_are_refused(tmp_path, content, words):
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    done = run("--config", path, "--check")
    assert done.returncode == 2 and str(path) in done.stderr and words in done.stderr


def test_a_missing_file_is_named(tmp_path):
    done = run("--config", tmp_path / "none.yaml")
    assert done.returncode == 2
    assert "none.yaml: cannot be read: No such file" in done.stderr


# ---- starting and stopping ----


def test_the_first_line_says_where_and_what(start, config, port):
    process = start("--config", config)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info  n1: listening on 127\.0\.0\.1:"
        rf"{port}, node n1 of cluster demo, N = 2, 2 nodes, durability always, "
        r"store [0-9a-f]{16}: "
        r"0 records \(new\)\n",
        process.first_line,
    )
    socket.create_connection(("127.0.0.1", port), 5).close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(start, config, number):
    status, log = stop(start("--config", config), number)
    assert status == 0
    assert "stopping" in log and log.endswith("stopped\n")


def test_a_start_tells_how_the_last_run_ended(start, config):
    first = start("--config", config)
    store = re.search("store [0-9a-f]{16}", first.first_line)[0]
    stop(first)
    second = start("--config", config)
    assert store in second.first_line and "(clean start)" in second.first_line
    second.kill()
    second.wait()
    third = start("--config", config)
    assert store in third.first_line and "(recovered)" in third.first_line


def test_the_log_level_hides_what_matters_less(config, port):
    process = subprocess.Popen(
        [node_program.path(), "--config", config, "--log-level", "error"],
        stderr=subprocess.PIPE,
        text=True,
    )
    await_listening(port)
    assert stop(process) == (0, "")
    process.stderr.close()


def test_a_directory_in_use_is_status_3(start, config, tmp_path, ports):
    start("--config", config)
    config.write_text(GOOD % {"port": ports[1]})
    done = run("--config", config)
    assert done.returncode == 3
    assert str(tmp_path / "n1") in done.stderr and "another process" in done.stderr


def test_the_directory_of_another_node_is_status_3(start, config, tmp_path):
    stop(start("--config", config))
    config.write_text(config.read_text().replace("node: n1", "node: n2"))
    done = run("--config", config)
    assert done.returncode == 3 and str(tmp_path / "n1") in done.stderr


def test_a_directory_that_cannot_be_made_is_named(config, tmp_path):
    config.write_text(config.read_text().replace("data: n1", "data: absent/n1"))
    done = run("--config", config)
    assert done.returncode == 2 and str(tmp_path / "absent/n1") in done.stderr


# ---- looking at the data directory ----


def listing(directory):
    """Everything below the directory, with what a change would change."""
    return {
        path: (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        for path in [directory, *directory.rglob("*")]
        for status in [path.stat()]
    }


def look(config, directory, *arguments):
    """Runs --check, which must change nothing."""
    before = listing(directory)
    done = run("--config", config, *arguments, "--check")
    assert listing(directory) == before
    return done


def agrees_with_a_start(config, done):
    """What --check says is what the start says, without its time and level."""
    started = run("--config", config)
    assert done.returncode == started.returncode != 0
    assert done.stderr.startswith("dkv-node: ") and done.stderr.count("\n") == 1
    assert done.stderr.removeprefix("dkv-node: ") in started.stderr
    assert "node n" in done.stdout  # the configuration itself is right


def test_check_accepts_a_directory_of_this_node_and_an_empty_one(start, config, tmp_path):
    (tmp_path / "n1").mkdir()
    done = look(config, tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and "first start" not in done.stdout
    stop(start("--config", config))
    done = look(config, tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and "first start" not in done.stdout
    start("--config", config)  # and it is free


def test_check_tells_a_directory_in_use(start, config, tmp_path, ports):
    start("--config", config)
    config.write_text(GOOD % {"port": ports[1]})
    done = run("--config", config, "--check")
    agrees_with_a_start(config, done)
    assert done.returncode == 3 and "is this node running already?" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("node: n1", "node: n2", "of another cluster or node than n2 of demo"),
        ("cluster: demo", "cluster: other", "of another cluster or node than n1 of other"),
        ("data: n1", "data: n1\ndurability: memory", "holds a store on disk"),
    ],
)
def test_check_tells_a_directory_of_somebody_else(start, config, tmp_path, ports, old, new, words):
    stop(start("--config", config))
    text = config.read_text().replace(old, new)
    config.write_text(text.replace('"127.0.0.1:1"', f'"127.0.0.1:{ports[1]}"'))
    done = look(config, tmp_path)
    agrees_with_a_start(config, done)
    assert done.returncode == 3 and words in done.stderr


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("absent/n1", "its parent directory does not exist"),
        ("n1.yaml", "is a file and no directory"),
        ("n1.yaml/n1", "is a file and no directory"),
    ],
)
def test_check_tells_a_directory_that_cannot_be_made(config, tmp_path, data, words):
    config.write_text(config.read_text().replace("data: n1", f"data: {data}"))
    done = look(config, tmp_path)
    agrees_with_a_start(config, done)
    assert done.returncode == 2 and str(tmp_path / data) in done.stderr and words in done.stderr


def test_a_busy_port_is_status_5(config, port):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        done = run("--config", config)
    assert done.returncode == 5 and f"127.0.0.1:{port}" in done.stderr


def test_data_is_not_used_under_another_map_which_is_status_3(start, tmp_path, port):
    config = tmp_path / "n1.yaml"
    text = (
        "cluster: demo\nreplication: 1\nnode: n1\ndata: n1\n"
        f'nodes:\n  n1: {{address: "127.0.0.1:{port}"}}\n'
    )
    config.write_text(text)
    process = start("--config", str(config))
    with dkv.connect(f"127.0.0.1:{port}") as client:
        client.put("key", b"value")
    stop(process)
    more = '  n2: {address: "127.0.0.1:1"}\n'
    config.write_text(text + more)
    done = run("--config", str(config))
    assert done.returncode == 3
    assert str(tmp_path / "n1") in done.stderr and "another cluster map" in done.stderr
    agrees_with_a_start(config, look(config, tmp_path))
    config.write_text(text)
    start("--config", str(config))
    with dkv.connect(f"127.0.0.1:{port}") as client:
        assert client.get("key") == b"value"


def test_other_addresses_than_loopback_need_the_word_insecure(start, config, port):
    config.write_text(f"listen: 0.0.0.0:{port}\n" + config.read_text())
    done = run("--config", config)
    assert done.returncode == 2
    assert f"0.0.0.0:{port}" in done.stderr and "--insecure" in done.stderr
    assert "listening on 0.0.0.0" in start("--config", config, "--insecure").first_line
