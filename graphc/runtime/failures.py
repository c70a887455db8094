"""What a failed check of a program is for the user: the error with its numbers, the user's line, and the autopsy."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

from graphc.errors import GraphcError, IndexRangeError, InternalError, NonFiniteError
from graphc.graph.sizes import evaluate
from graphc.kernels.layout import WORD_POSITION, WORD_VALUE, Layout


def failure(
    name: str,
    layout: Layout,
    words: Sequence[int],
    dims: Mapping[str, int],
    status: int,
    where: str,
    examined: Callable[[int], object],
    restored: bool,
) -> GraphcError:
    """The error that a program's result other than 0 stands for.

    name: the program's in messages. words, dims: of the context of the call. where: what to say behind the message.
    examined: the report on a failed check for finite numbers, by its number, if there is one. restored: whether weights
    and states were put back.
    """
    if not 0 < status <= len(layout.checks):
        return InternalError(f"{name}: the program returned {status}")
    check = layout.checks[status - 1]
    value: int | float = words[WORD_VALUE]
    if check.kind == "nonfinite":
        value = struct.unpack("<d", struct.pack("<q", value))[0]
    text = check.message
    for key, shown in (("value", value), ("position", words[WORD_POSITION]), ("bound", evaluate(check.bound, dims))):
        text = text.replace("{" + key + "}", str(shown))
    text += where + (f"\n  {check.source}" if check.source else "")
    if check.kind == "index":
        return IndexRangeError(text)
    found = examined(status - 1)
    if found is not None:
        first, _, rest = str(found).partition("\n")
        text = f"{first}{where}\n{rest}"
    if restored:
        text += "\n  weights and states are as before it"
    error = NonFiniteError(text)
    error.autopsy = found
    return error
