"""The version of the package, and of the native programs: the C build reads it from here."""

__version__ = "0.1.0"
