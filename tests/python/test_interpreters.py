"""More than one Python interpreter, or more than one import, in a process."""

import subprocess
import sys

import dkv

SUB = """
import sys
import dkv
try:
    import _interpreters as interpreters  # from Python 3.13 on
    create = lambda: interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    create = interpreters.create

work = f'''
import dkv
with dkv.connect({sys.argv[1]!r}) as client:
    client.put("sub", b"value")
    try:
        client.get("absent")
    except dkv.errors.NotFoundError as error:
        assert type(error) is dkv.errors.NotFoundError
left_open = dkv.connect({sys.argv[1]!r})
assert dkv.sim.World(1, 1).put("key", b"value").replicas == ("n1",)
'''
with dkv.connect(sys.argv[1]) as client:
    for _ in range(5):
        interpreter = create()
        failed = interpreters.run_string(interpreter, work)
        assert not failed, failed
        interpreters.destroy(interpreter)
    try:
        client.get("absent")
    except dkv.errors.NotFoundError:
        print(client.get("sub"))
"""

TWICE = """
import sys
import dkv as first
client = first.connect(sys.argv[1])
for name in [name for name in sys.modules if name.partition(".")[0] == "dkv"]:
    del sys.modules[name]
import dkv as second
assert first is not second
for module, each in ((first, client), (second, second.connect(sys.argv[1]))):
    each.put("twice", b"value")
    try:
        each.get("absent")
    except module.errors.NotFoundError:
        print(each.get("twice"))
"""


def run_python(code: str, *args: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60
    )
    return done.stdout, done.stderr


def test_other_interpreters_in_the_process_may_use_dkv(cluster3: dkv.Cluster) -> None:
    """Those that share one lock; an isolated one is refused when it imports dkv."""
    assert run_python(SUB, cluster3.address("n1")) == ("b'value'\n", "")


def test_a_second_import_does_not_disturb_the_first(cluster3: dkv.Cluster) -> None:
    assert run_python(TWICE, cluster3.address("n1")) == ("b'value'\nb'value'\n", "")
