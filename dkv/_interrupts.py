"""SIGTERM, and SIGHUP when a terminal is closed, end a program with processes of its own as Ctrl-C
does: by a KeyboardInterrupt in the main thread, so that `with` and `atexit` can clean up.

A program that has decided otherwise about a signal, or ignores it as under nohup, is left alone.
"""

import contextlib
import signal

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_users = 0


def hold() -> None:
    """Makes it so until `release` was called as often. Other threads than the main one cannot."""
    global _users
    _users += 1
    _change(signal.SIG_DFL, signal.default_int_handler)


def release() -> None:
    """Ends what `hold` has begun."""
    global _users
    _users -= 1
    if _users == 0:
        _change(signal.default_int_handler, signal.SIG_DFL)


def _change(was: object, becomes: "signal._HANDLER") -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) == was:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(number, becomes)
