"""Where many keys live: from a sequence of keys to an array of node indices."""

from collections.abc import Iterable

from dkv import _core

try:
    import numpy as np
    import numpy.typing as npt
except ImportError as error:
    raise ImportError("the nodes of many keys need NumPy: pip install numpy") from error


def locate(
    native: _core.Ring, keys: Iterable[str | bytes | bytearray | memoryview], places: int
) -> npt.NDArray[np.intp]:
    """One row for each key: the indices of its first `places` nodes."""
    if isinstance(keys, str | bytes | bytearray | memoryview):
        raise TypeError("keys must be several keys, not one")
    if isinstance(keys, np.ndarray) and keys.ndim != 1:
        raise ValueError(f"an array of keys must have one dimension, not {keys.ndim}")
    if isinstance(keys, np.ndarray) and keys.dtype.kind == "S" and keys.itemsize:
        out = np.empty((len(keys), places), np.intp)
        native.locate_fields(np.ascontiguousarray(keys).data, keys.itemsize, places, out.data)
        return out
    several = keys.tolist() if isinstance(keys, np.ndarray) else list(keys)
    out = np.empty((len(several), places), np.intp)
    native.locate(several, places, out.data)
    return out
