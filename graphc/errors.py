"""Every exception that graphc raises.

A message names the operation, what was given, the rule that it breaks and, on a second line, the user's own source
line.
"""

from __future__ import annotations


class GraphcError(Exception):
    """Base of every error that a user of graphc can meet."""


class DefinitionError(GraphcError, ValueError):
    """A declaration that means nothing: a name used twice, an index bound by nothing, an unknown option."""


class ShapeError(GraphcError, ValueError):
    """Sizes, ranks or axes that do not fit."""


class DTypeError(GraphcError, TypeError):
    """A dtype that an operation or an input does not take."""


class IndexRangeError(GraphcError, IndexError):
    """An index, from the declaration or from data, outside the axis that it reads."""


class InputError(GraphcError, ValueError):
    """A call without an input, or with one that nobody declared."""


class UnknownNameError(InputError, KeyError):
    """A weight, state or hyper-parameter asked for by a name that does not exist."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would quote the message


class NotDifferentiable(GraphcError, ValueError):
    """A derivative that does not exist: through an integer, of a non-scalar, by something unused."""


class NonFiniteError(GraphcError, ArithmeticError):
    """A NaN or an infinity found by ``debug=True``.

    autopsy: what was found out about it (``graphc/inspect/autopsy.py``), which the message says too; None where
    nothing was.
    """

    autopsy: object = None


class FileFormatError(GraphcError, ValueError):
    """A file of weights that does not belong to this step."""


class FileAccessError(GraphcError, OSError):
    """A file that the system does not let graphc read or write."""


class UsageError(GraphcError, TypeError):
    """A call that a graphc object does not support, such as ``bool(tensor)``."""


class ExportError(GraphcError, ValueError):
    """A step that cannot be exported as asked."""


class InternalError(GraphcError, RuntimeError):
    """A fault of graphc itself, never of the user. Please report it."""
