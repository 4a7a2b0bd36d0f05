"""Time limits of operations, which callers give in seconds."""

from dkv.errors import InvalidArgumentError

TIMEOUT_MAX_S = 60.0


def milliseconds(timeout: float) -> int:
    """`timeout` in milliseconds, if it is one that an operation can have."""
    try:
        if 0.001 <= timeout <= TIMEOUT_MAX_S:
            return round(timeout * 1000)
    except TypeError:
        raise TypeError(f"a timeout must be a number of seconds, not {timeout!r}") from None
    # A whole number may have more digits than Python is willing to print.
    shown = repr(timeout) if abs(timeout) < 1e300 or timeout != timeout else "one beyond bounds"
    raise InvalidArgumentError(
        f"a timeout must be 0.001 to {TIMEOUT_MAX_S:.0f} seconds, not {shown}"
    )
