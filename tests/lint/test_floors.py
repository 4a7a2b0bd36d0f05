"""The structure of the C code: who may include whom, and what the core may not touch."""

import re

import support

FLOORS = {
    "csrc/base": 0,
    "csrc/ring": 1,
    "csrc/model": 1,
    "csrc/member": 2,
    "csrc/wire": 2,
    "csrc/store": 2,
    "csrc/replica": 3,
    "csrc/node": 4,
    "csrc/sim": 5,
    "csrc/rpc": 5,
    "csrc/host": 6,
    "csrc/client": 6,
    "csrc/py": 7,
    "node": 7,
}
# File, header, and why it is allowed all the same.
EXCEPTIONS = {
    (
        "csrc/model/request.h",
        "ring/cluster_map.h",
    ): "DKV_REPLICATION_MAX, the size of a set of replicas",
    ("csrc/base/hash.c", "pthread.h"): "a hash context for each thread, freed when the thread ends",
}
# The floors below that of the real world: time, randomness, messages and disk jobs are handed in.
WORLDLESS = [folder for folder, floor in FLOORS.items() if floor <= 4] + ["csrc/sim"]
WORLDLY_HEADER = re.compile(
    r"(time|pthread|threads|signal|fcntl|unistd|poll|netdb|semaphore|aio)\.h$"
    r"|sys/(?!types\.h)|netinet/|arpa/|linux/|grpc"
)
WORLDLY_CALL = re.compile(
    r"\b(clock_gettime|gettimeofday|time|nanosleep|usleep|fopen|getrandom|rand|random)\s*\(",
)
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def c_files():
    for path in support.project_files("csrc/*.c", "csrc/*.h", "node/*.c", "node/*.h"):
        name = str(path.relative_to(support.ROOT))
        folder = "node" if name.startswith("node/") else "/".join(name.split("/")[:2])
        yield name, folder, path.read_text()


def without_comments(text):
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(\\.|[^"\\\n])*"', " ", text, flags=re.DOTALL)


def test_a_file_includes_only_lower_floors_and_its_own_folder():
    wrong = []
    for name, folder, text in c_files():
        assert folder in FLOORS, f"{name}: a folder without a floor"
        for quote, header in INCLUDE.findall(text):
            generated = "/" not in header or header.endswith(".pb-c.h")
            if quote == "<" or generated or (name, header) in EXCEPTIONS:
                continue
            other = "csrc/" + header.split("/")[0]
            if other not in FLOORS:
                other = header.split("/")[0]
            if other != folder and FLOORS.get(other, 99) >= FLOORS[folder]:
                wrong.append(f"{name} (floor {FLOORS[folder]}) includes {header}")
    assert not wrong, "\n".join(wrong)


def test_the_core_touches_no_clock_thread_socket_or_file():
    wrong = []
    for name, folder, text in c_files():
        if folder not in WORLDLESS:
            continue
        wrong += [
            f"{name} includes <{header}>"
            for quote, header in INCLUDE.findall(text)
            if quote == "<" and WORLDLY_HEADER.search(header) and (name, header) not in EXCEPTIONS
        ]
        wrong += [f"{name} calls {call}" for call in WORLDLY_CALL.findall(without_comments(text))]
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_still_needed():
    included = {
        (name, header) for name, _, text in c_files() for _, header in INCLUDE.findall(text)
    }
    assert set(EXCEPTIONS) <= included
