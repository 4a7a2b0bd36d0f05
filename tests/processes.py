"""Starting the program dkv-node itself, as an operator does, and reading its log."""

import contextlib
import socket
import subprocess
import time

from dkv import node_program

PATIENCE_S = 60  # for what takes well under a second on an idle machine


@contextlib.contextmanager
def free_ports(count):
    """Ports that nobody else is given: bound, but not listening."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            holder = stack.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            ports.append(holder.getsockname()[1])
        yield ports


class Running:
    """A dkv-node whose log goes to a file."""

    def __init__(self, log, *arguments, **options):
        self.log_file = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [node_program.path(), *arguments], stderr=stderr, **options
            )
        self.pid = self.process.pid

    @property
    def log(self):
        return self.log_file.read_text()

    def await_log(self, *texts):
        """Waits until the log holds all of `texts`; returns it."""
        self.await_that(lambda: all(text in self.log for text in texts), f"{texts} in the log")
        return self.log

    def await_that(self, holds, what):
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"never: {what}\n{self.log}"
            time.sleep(0.01)

    def stop(self, number):
        """Sends the signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
