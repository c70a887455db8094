"""graphc: a symbolic computational-graph compiler."""

__version__ = "0.1.0"
