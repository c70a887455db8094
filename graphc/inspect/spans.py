"""LLVM and assembly with the lines of the kernels' listing that their debug locations name."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence

from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive lines of a text, from ``start`` up to but without ``end``, counted from 1, of one function, that come
    from the same lines of the listing. sources: one, none for what serves the call itself, several in a function that
    several kernels share, such as vector maths.
    """

    start: int
    end: int
    function: str
    sources: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """A text, LLVM's or assembly, with its spans in order."""

    text: str
    spans: tuple[Span, ...]

    def of(self, lines: Iterable[int]) -> list[Span]:
        """The spans that come from some lines of the listing."""
        wanted = frozenset(lines)
        return [span for span in self.spans if not wanted.isdisjoint(span.sources)]


_DBG = re.compile(r"!dbg !(\d+)")
_LOCATION = re.compile(r"^!(\d+) = !DILocation\(line: (\d+),", re.MULTILINE)
_DEFINE = re.compile(r"define .*?@([\w.$-]+)\(")
_CALL = re.compile(r"call [^@]*@([\w.$-]+)\(")


def llvm_code(traced: str, plain: str) -> tuple[Code, dict[str, tuple[int, ...]]]:
    """The plain text with the lines of the listing that the traced one names; and for every function of the module the
    lines of those that call it.

    Both have the same lines, but for the locations and what stands behind the last function.
    """
    lines = {m[1]: int(m[2]) for m in _LOCATION.finditer(traced)}
    calls: dict[str, dict[int | str, None]] = {}  # of a function: lines, or functions without lines of their own
    function = ""
    found: list[tuple[str, int]] = []
    shown = plain.splitlines()
    for text in traced.splitlines()[: len(shown)]:
        start = _DEFINE.match(text)
        function = start[1] if start else "" if text == "}" else function
        named = _DBG.search(text) if not start else None
        line = lines.get(named[1], 0) if named else 0
        found.append((function, line))
        called = _CALL.search(text)
        if called:
            calls.setdefault(called[1], {})[line or function] = None
    callers = {name: _resolved(name, calls) for name in dict.fromkeys(f for f, _ in found if f)}
    own = {name for name, line in found if line}
    rows = [(f, (line,) if line else callers.get(f, ()) if f not in own else ()) for f, line in found]
    return Code(plain, _spans(rows)), callers


def _resolved(name: str, calls: Mapping[str, Mapping[int | str, None]]) -> tuple[int, ...]:
    """The lines from which a function is called, by way of others where these have none."""
    found: dict[int, None] = {}
    seen, stack = {name: None}, [name]
    while stack:
        for caller in calls.get(stack.pop(), {}):
            if isinstance(caller, int):
                found[caller] = None
            elif caller not in seen:
                seen[caller] = None
                stack.append(caller)
    return tuple(sorted(found))


def asm_code(assembly: str, callers: Mapping[str, tuple[int, ...]]) -> Code:
    """Assembly with its line table, as text without that, and where its lines come from. callers: of every function."""
    rows: list[tuple[str, tuple[int, ...]]] = []
    kept: list[str] = []
    function, line, debug = "", 0, False
    own = _with_lines(assembly, callers)
    for text in assembly.splitlines():
        word = text.split(maxsplit=1)[0] if text.strip() else ""
        if word in (".section", ".text", ".data", ".rodata"):
            debug = ".debug_" in text or "__DWARF" in text
        if debug or not word or word.startswith((".loc", ".file", ".cfi_", ".Ltmp", ".Lfunc_", ".Lsec_end")):
            line = int(text.split()[2]) if word == ".loc" else line
            continue
        if word in (".size", ".ident"):
            function = ""
        elif word.endswith(":") and _function(word, callers):
            function, line = _function(word, callers), 0
        is_code = bool(function) and not word.startswith(".") and not word.endswith(":")
        shared = callers.get(function, ()) if function not in own else ()
        rows.append((function, ((line,) if line else shared) if is_code else ()))
        kept.append(text)
    return Code("\n".join(kept) + "\n", _spans(rows))


def _function(label: str, known: Container[str]) -> str:
    """The function that a label begins, empty for a place inside one; macOS writes ``_`` before it."""
    name = label.rstrip(":")
    return name if name in known else name[1:] if name.startswith("_") and name[1:] in known else ""


def _with_lines(assembly: str, known: Container[str]) -> dict[str, None]:
    """The functions that have lines of their own."""
    found: dict[str, None] = {}
    function = ""
    for text in assembly.splitlines():
        if text.startswith("\t.loc"):
            found[function] = None
        elif text and not text[0].isspace() and ":" in text:
            function = _function(text.split(":")[0], known) or function
    return found


def _spans(rows: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[Span, ...]:
    spans: list[Span] = []
    start = 1
    for number, row in enumerate(rows, 1):
        if number == len(rows) or rows[number] != row:
            if row[1]:
                spans.append(Span(start, number + 1, *row))
            start = number + 1
    return tuple(spans)
