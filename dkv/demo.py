"""The story of `make demo`: a cluster of real processes, real data, a killed node.

Five nodes, three copies. Every file of the Python standard library is stored under its path, one
node is killed, everything is read back and compared byte for byte, and the node comes back with its
data.
Whatever does not go as promised is said, and makes `run` return 1.
"""

import os
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from dkv.client import Client, Level
from dkv.cluster import Cluster
from dkv.errors import Error, InvalidArgumentError, UnavailableError

NODES = 5
REPLICATION = 3
VICTIM = "n3"
VALUE_MAX = 1 << 20
CHUNK_KEYS = 128
CHUNK_BYTES = 8 << 20
SINGLE_CALLS = 1000
INDENT = "   "
LARGEST_KEY = "a value of exactly 1 MiB"


def run(console: Console | None = None, files_max: int | None = None) -> int:
    """Tells the story on `console`; returns 0 if everything went as promised, else 1.

    `files_max` limits the number of files, for a quick run.
    """
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(file=console.file, width=100, highlight=False)
    started = time.monotonic()
    with Cluster(NODES, REPLICATION) as cluster, cluster.client(timeout=20) as client:
        story = Story(console, cluster, client, Library(files_max))
        story.tell(time.monotonic() - started)
    story.end(time.monotonic() - started)
    return 1 if story.broken else 0


class Library:
    """The values of the demo by key: the standard library's files, and one of the greatest size."""

    def __init__(self, files_max: int | None = None) -> None:
        root = Path(sysconfig.get_path("stdlib"))
        self.root = root
        self.files: dict[str, Path] = {}
        self.too_large: dict[str, Path] = {}
        self.sizes = {LARGEST_KEY: VALUE_MAX}
        for path in sorted(_files_below(root))[:files_max]:
            key, size = str(path.relative_to(root)), path.stat().st_size
            if size > VALUE_MAX:
                self.too_large[key] = path
            else:
                self.files[key] = path
                self.sizes[key] = size

    def value(self, key: str) -> bytes:
        """The bytes that belong to `key`."""
        if key == LARGEST_KEY:
            return bytes(range(256)) * (VALUE_MAX // 256)
        return self.files[key].read_bytes()

    def chunks(self) -> Iterator[list[str]]:
        """All keys, in portions for one call each."""
        chunk: list[str] = []
        chunk_bytes = 0
        for key, size in self.sizes.items():
            if chunk and (len(chunk) == CHUNK_KEYS or chunk_bytes + size > CHUNK_BYTES):
                yield chunk
                chunk, chunk_bytes = [], 0
            chunk.append(key)
            chunk_bytes += size
        yield chunk

    def sample(self, n: int) -> list[str]:
        """About `n` keys, spread evenly."""
        keys = list(self.sizes)
        return keys[:: max(1, len(keys) // n)][:n]


def _files_below(root: Path) -> Iterator[Path]:
    """Files of the library itself: packages that were installed besides are left out."""
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = [name for name in subdirectories if not name.endswith("-packages")]
        yield from (path for name in names if (path := Path(directory, name)).is_file())


class Story:
    """The chapters, in order, and what went wrong in them."""

    def __init__(
        self, console: Console, cluster: Cluster, client: Client, library: Library
    ) -> None:
        self.console = console
        self.cluster = cluster
        self.client = client
        self.stdlib = library
        self.broken: list[str] = []

    def tell(self, start_s: float) -> None:
        """Plays all chapters."""
        self.introduce(start_s)
        self.store_everything()
        self.refuse_what_is_too_large()
        self.show_where_values_are()
        self.kill_one_node()
        self.read_everything("one")
        self.time_single_gets()
        self.write_while_it_is_dead()
        self.bring_it_back()

    # ---- chapters ----

    def introduce(self, start_s: float) -> None:
        """The nodes."""
        self.title(f"{NODES} nodes on this machine, {REPLICATION} copies of every value")
        for node in self.cluster.nodes:
            self.say(f"{node}  {self.cluster.address(node)}  process {self.cluster.pid(node)}")
        self.say(f"All answer after {start_s:.2f} s.")

    def store_everything(self) -> None:
        """Puts in batches, then some one at a time."""
        sizes = self.stdlib.sizes
        self.title("Store the Python standard library")
        self.say(f"{len(sizes):,} values from {self.stdlib.root},")
        self.say(f"of {min(sizes.values())} to exactly {max(sizes.values()):,} bytes.")
        started = time.monotonic()
        for chunk in self.progress("storing"):
            self.client.put_many({key: self.stdlib.value(key) for key in chunk})
        self.say_rate("Stored", "puts", time.monotonic() - started)
        self.say(f"A put is confirmed when it is on the disks of all {REPLICATION} replicas.")
        sample = [(key, self.stdlib.value(key)) for key in self.stdlib.sample(SINGLE_CALLS)]
        self.say_latency("puts", [_timed(self.client.put, *pair) for pair in sample])

    def refuse_what_is_too_large(self) -> None:
        """Values above the limit."""
        reason = ""
        for key, path in self.stdlib.too_large.items():
            try:
                self.client.put(key, path.read_bytes())
                self.fail(f"{key} has more than {VALUE_MAX:,} bytes, but was stored")
            except InvalidArgumentError as error:
                self.say(f"Refused: {key}, {path.stat().st_size:,} bytes")
                reason = str(error)
        if reason:
            self.say(f"The last error said: {reason}")

    def show_where_values_are(self) -> None:
        """Keys of each node, compared with the ring."""
        self.title("Where the values are")
        ring = self.cluster.ring
        expected = Counter(node for key in self.stdlib.sizes for node in ring.replicas(key))
        shares = ring.replica_shares()
        table = Table(box=None, padding=(0, 3, 0, 0))
        table.add_column(f"{INDENT}node")
        for name in ("keys held", "share of all", "in theory"):
            table.add_column(name, justify="right")
        held_by = self.keys_held()
        for node, held in held_by.items():
            share = f"{held / len(self.stdlib.sizes):.1%}"
            table.add_row(f"{INDENT}{node}", f"{held:,}", share, f"{shares[node]:.1%}")
        self.console.print(table)
        if held_by == expected:
            self.say("Each node holds exactly the keys that the ring gives it.")
        else:
            self.fail(f"by the ring they should hold {dict(expected)}")

    def kill_one_node(self) -> None:
        """SIGKILL."""
        self.title(f"Kill {VICTIM}, and read everything back")
        pid = self.cluster.pid(VICTIM)
        self.cluster.kill(VICTIM)
        self.say(f"Process {pid} got SIGKILL and is gone.")

    def read_everything(self, level: Level) -> None:
        """Gets in batches, compared byte for byte."""
        wrong = 0
        started = time.monotonic()
        for chunk in self.progress("reading"):
            values = self.client.get_many(chunk, read=level)
            wrong += sum(
                value != self.stdlib.value(key) for key, value in zip(chunk, values, strict=True)
            )
        seconds = time.monotonic() - started
        if wrong:
            self.fail(f"{wrong:,} of {len(self.stdlib.sizes):,} values are missing or different")
        else:
            self.say(f"All {len(self.stdlib.sizes):,} values are there, identical byte for byte.")
        self.say_rate("Read and compared", "gets", seconds)

    def time_single_gets(self) -> None:
        """Gets one at a time."""
        sample = self.stdlib.sample(SINGLE_CALLS)
        self.say_latency("gets", [_timed(self.client.get, key) for key in sample])

    def write_while_it_is_dead(self) -> None:
        """Puts that need the dead node are refused; a majority suffices where that is wanted."""
        self.title(f"Write while {VICTIM} is dead")
        ring = self.cluster.ring
        key = next(key for key in self.stdlib.sizes if VICTIM in ring.replicas(key))
        self.say(f"{key} belongs to {', '.join(ring.replicas(key))}. Put it:")
        started = time.monotonic()
        try:
            self.client.put(key, self.stdlib.value(key))
            self.fail(f"a put of {key} succeeded although {VICTIM} is dead")
        except UnavailableError as error:
            self.say(f"Refused after {_ms(time.monotonic() - started)}, {error.outcome}: {error}.")
        refused = self.put_sample("all")
        for other, reason in refused.items():
            if VICTIM not in ring.replicas(other) or reason.outcome != "not applied":
                self.fail(f"the put of {other} ended with: {reason} ({reason.outcome})")
        share = ring.replica_shares()[VICTIM]
        self.say(f"That is {share:.0%} of all keys in theory: those that {VICTIM} holds.")
        self.say("A majority of the replicas will do, if you say so:")
        for other, reason in self.put_sample("quorum").items():
            self.fail(f"the put of {other} at level quorum ended with: {reason}")

    def put_sample(self, level: Level) -> dict[str, Error]:
        """Puts some values again, tells how many were refused, and returns their errors."""
        values = {key: self.stdlib.value(key) for key in self.stdlib.sample(SINGLE_CALLS)}
        results = self.client.put_many(values, write=level, errors="return")
        refused = {
            key: result
            for key, result in zip(values, results, strict=True)
            if isinstance(result, Error)
        }
        self.say(f'{len(values):,} puts with write="{level}": {len(refused):,} were refused.')
        return refused

    def bring_it_back(self) -> None:
        """A restart from the disk."""
        self.title(f"Start {VICTIM} again")
        started = time.monotonic()
        self.cluster.start(VICTIM)
        self.say(f"It answers after {_ms(time.monotonic() - started)}.")
        held = self.keys_held()[VICTIM]
        before = sum(VICTIM in self.cluster.ring.replicas(key) for key in self.stdlib.sizes)
        self.say(f"On its disk it found {held:,} keys; before it was killed it held {before:,}.")
        if held != before:
            self.fail(f"{VICTIM} has {held} keys after the restart instead of {before}")
        self.say('Now all three replicas of each key must answer with it (read="all"):')
        self.read_everything("all")

    # ---- means ----

    def keys_held(self) -> dict[str, int]:
        """How many keys each node has on its disk."""
        return {node: status.records for node, status in self.cluster.status().items() if status}

    def title(self, text: str) -> None:
        """Begins a chapter."""
        self.console.print(f"\n[bold]{text}[/bold]")

    def say(self, text: str) -> None:
        """Tells one sentence or so."""
        for line in wrap(text, self.console.width - len(INDENT)):
            self.console.print(Text(INDENT + line))

    def fail(self, text: str) -> None:
        """Tells of a broken promise."""
        self.broken.append(text)
        self.console.print(Text(f"{INDENT}BROKEN: {text}", style="bold red"))

    def say_rate(self, done: str, calls: str, seconds: float) -> None:
        """Tells how fast a pass over all values was."""
        n, size = len(self.stdlib.sizes), sum(self.stdlib.sizes.values()) / 1e6
        self.say(
            f"{done} {size:.1f} MB in {seconds:.1f} s: "
            f"{n / seconds:,.0f} {calls}/s, {size / seconds:.1f} MB/s."
        )

    def say_latency(self, calls: str, seconds: Sequence[float]) -> None:
        """Tells how long single calls took."""
        ordered = sorted(seconds)
        half, most = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
        self.say(f"{len(ordered):,} {calls} one at a time: p50 {_ms(half)}, p99 {_ms(most)}.")

    def progress(self, verb: str) -> Iterator[list[str]]:
        """The library's chunks, with a bar if somebody looks."""
        columns = (TextColumn(INDENT + "{task.description}"), BarColumn(), TaskProgressColumn())
        hidden = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=hidden) as bar:
            task = bar.add_task(verb, total=len(self.stdlib.sizes))
            for chunk in self.stdlib.chunks():
                yield chunk
                bar.advance(task, len(chunk))

    def end(self, seconds: float) -> None:
        """The verdict."""
        self.title("The end" if not self.broken else "Not as promised")
        self.say(f"All nodes are stopped and their data is removed. It took {seconds:.0f} s.")
        if self.broken:
            self.say(f"{len(self.broken)} promises were broken; see above.")


def _timed(call: Callable[..., object], *arguments: object) -> float:
    started = time.monotonic()
    call(*arguments)
    return time.monotonic() - started


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
