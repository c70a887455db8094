"""Debug locations: lines of a source that instructions name, as LLVM's metadata.

While a function is written, an instruction carries its line's number alone; which function it is in is known when the
function is defined.
"""

from __future__ import annotations

import re
from collections.abc import Callable

LOCATION = ", !dbg line "  # before a line's number, until the function is defined


def add_source(file: str, meta: Callable[[str], str]) -> tuple[str, list[str]]:
    """The metadata of a source file, its compile unit being the next, and the named metadata that a module needs.

    meta: adds metadata and gives its name.
    """
    source = meta(f'!DIFile(filename: "{file}", directory: "")')
    kind = f'file: {source}, producer: "graphc", emissionKind: LineTablesOnly'
    unit = meta(f"distinct !DICompileUnit(language: DW_LANG_C99, {kind})")
    version = meta('!{i32 2, !"Debug Info Version", i32 3}')
    return source, [f"!llvm.dbg.cu = !{{{unit}}}", f"!llvm.module.flags = !{{{version}}}"]


def unlocated(body: str) -> str:
    """A function's body without locations."""
    return re.sub(f"{re.escape(LOCATION)}[0-9]+", "", body) if LOCATION in body else body


def located(name: str, body: str, source: str, meta: Callable[[str], str]) -> tuple[str, str]:
    """A function's body with its locations resolved, and its own attachment; as they are where none are wanted (no
    ``source``) or there are none."""
    if not source or LOCATION not in body:
        return body, ""
    unit = f"!{int(source[1:]) + 1}"
    kind = meta("!DISubroutineType(types: !{})")
    what = f'name: "{name}", file: {source}, type: {kind}, unit: {unit}, spFlags: DISPFlagDefinition'
    scope = meta(f"distinct !DISubprogram({what})")
    known: dict[str, str] = {}

    def resolved(found: re.Match[str]) -> str:
        if found[1] not in known:
            known[found[1]] = meta(f"!DILocation(line: {found[1]}, scope: {scope})")
        return f", !dbg {known[found[1]]}"

    return re.sub(f"{re.escape(LOCATION)}([0-9]+)", resolved, body), f"!dbg {scope}"
