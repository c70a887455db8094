"""One module cut into several that hold its functions between them, for code generators that run side by side.

A function's machine code does not depend on what else its module holds, so the parts' is that of the whole. The text
is as ``llvm/module.py`` writes it: a line for a global, a declaration or a metadata node, and functions that end with
``}`` on a line of its own. Each part has the constants that it uses; a variable is the first's.
"""

from __future__ import annotations

import re

from graphc.structs import dataclass

_FUNCTION = re.compile(r"^define .*?^}\n", re.MULTILINE | re.DOTALL)
_HEAD = re.compile(r"define (?:internal |private )?([^@]*@([\w.]+)\(.*\)[^)]*) {\n")
_NAMED = re.compile(r"(?:@|declare [^@]*@)([\w.]+)")
_VARIABLE = re.compile(r"(@[\w.]+ =) global (\[[^]]*\]|\S+) .*")
_USED = re.compile(r"@([\w.]+)")
_DEBUG = re.compile(r" !dbg !\d+")


@dataclass(slots=True)
class _Part:
    """What one part defines, each with its text. size: their characters."""

    size: int
    defined: dict[str, str]


def cut(text: str, n_parts: int, first: int = 0) -> list[str]:
    """The module's text as at most that many modules, each function, longest first, in what is then the shortest.

    first: characters that will be added to the first part. What was internal can be called by the other parts, and by
    nobody else, since each program is a library of its own.

    >>> f = "define internal void @f() nounwind {\\n  ret void\\n}\\n"
    >>> print(cut(f + f.replace("@f", "@g").replace("ret", "call void @f()\\n  ret"), 2)[0])
    declare dso_local void @f() nounwind
    define dso_local void @g() nounwind {
      call void @f()
      ret void
    }
    <BLANKLINE>
    """
    if n_parts < 2:
        return [text]
    functions, outside = {}, {}
    for function in _FUNCTION.findall(text):
        if head := _HEAD.match(function):
            functions[head[2]] = f"define dso_local {function[head.start(1):]}"
            outside[head[2]] = f"declare dso_local {_DEBUG.sub('', head[1])}\n"
    variables, frame = {}, []  # frame: what every part has
    for line in _FUNCTION.sub("", text).splitlines(keepends=True):
        if not (named := _NAMED.match(line)):
            frame.append(line)
        elif found := _VARIABLE.match(line):
            variables[named[1]] = line
            outside[named[1]] = f"{found[1]} external global {found[2]}\n"
        else:
            outside[named[1]] = line
    parts = [_Part(first, variables), *(_Part(0, {}) for _ in range(1, n_parts))]
    for name, function in sorted(functions.items(), key=lambda pair: -len(pair[1])):
        shortest = min(parts, key=lambda part: part.size)
        shortest.defined[name] = function
        shortest.size += len(function)
    texts = []
    for part in parts:
        body = "".join(part.defined.values())
        used = [name for name in dict.fromkeys(_USED.findall(body)) if name not in part.defined]
        texts.append("".join([*frame, *(outside[name] for name in used if name in outside), body]))
    return texts
