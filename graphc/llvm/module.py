"""A module of LLVM IR as text: functions, declarations, constant data and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from graphc.errors import InternalError
from graphc.llvm.locations import add_source, located, unlocated
from graphc.llvm.values import Value, typed
from graphc.structs import dataclass, field


class Body(Protocol):
    """What a module asks of a function's body."""

    closed: bool

    def text(self) -> str:
        """Its blocks."""


@dataclass(slots=True)
class Module:
    """Functions, declarations, constant data and metadata that become one LLVM module.

    ``fma`` says whether the target has a fused multiply-add; without one ``Writer.fma`` goes by way of double.
    ``source``: the metadata of the file that locations are lines of, where they are wanted (``trace``).
    ``avx512``: whether it has AVX-512, whose instructions for exponents vector maths uses; results do not depend on it.
    """

    name: str = "graphc"
    triple: str = ""
    fma: bool = True
    avx512: bool = False
    functions: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)  # names of functions by what they do
    declarations: dict[str, str] = field(default_factory=dict)
    globals: dict[str, str] = field(default_factory=dict)
    metadata: list[str] = field(default_factory=list)
    source: str = ""
    named_metadata: list[str] = field(default_factory=list)

    def declare(self, name: str, result: str, params: Sequence[str], attributes: str = "") -> None:
        """Declare an outside function; a second time does nothing."""
        if name not in self.declarations and name not in self.functions:
            tail = f"nounwind {attributes}".rstrip()
            self.declarations[name] = f"declare {result} @{name}({', '.join(params)}) {tail}"

    def define(
        self,
        name: str,
        result: str,
        params: Sequence[Value],
        body: Body,
        linkage: str = "",
        attributes: str = "",
        param_attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Add a function whose parameters are named values (``Value("%x", "ptr")``) and whose body ``body`` holds.

        linkage: "" (exported), "internal" or "private". param_attributes: by parameter text, such as
        ``{"%x": "noalias nonnull align 64"}``. Every function is nounwind.

        Raises: InternalError when the name is taken or the body's last block is open.

        >>> from graphc.llvm.text import Writer
        >>> m = Module(); w = Writer(m); x = Value("%x", "float")
        >>> w.ret(w.fadd(x, x)); m.define("twice", "float", [x], w)
        >>> print(m.functions["twice"])
        define float @twice(float %x) nounwind {
        entry:
          %v0 = fadd float %x, %x
          ret float %v0
        }
        """
        if name in self.functions:
            raise InternalError(f"define: function {name} exists")
        if not body.closed:
            raise InternalError(f"define: the last block of {name} has no terminator")
        extra = param_attributes or {}
        listed = ", ".join(" ".join(t for t in (p.type, extra.get(p.text, ""), p.text) if t) for p in params)
        head = " ".join(t for t in ("define", linkage, result) if t)
        text, debug = located(name, body.text(), self.source, self.meta)
        tail = " ".join(t for t in ("nounwind", attributes, debug) if t)
        self.functions[name] = f"{head} @{name}({listed}) {tail} {{\n{text}\n}}"

    def share(
        self, name: str, result: str, params: Sequence[Value], body: Body, linkage: str = "", attributes: str = ""
    ) -> str:
        """Add a function unless there is one that differs from it by its name alone, or by what its instructions come
        from; the name of the one there is."""
        key = f"{result} {typed(params)} {linkage} {attributes}\n{unlocated(body.text())}"
        if key not in self.shared:
            self.shared[key] = name
            self.define(name, result, params, body, linkage, attributes)
        return self.shared[key]

    def trace(self, file: str) -> None:
        """From here on locations count: they become lines of ``file`` in the machine code's line table, which changes
        no instruction. A function has such lines if one of its instructions has a location.
        """
        self.source, named = add_source(file, self.meta)
        self.named_metadata += named

    def data(self, name: str, kind: str, items: Sequence[Value], align: int = 64) -> Value:
        """A pointer to a private constant array; the same name twice must be the same data."""
        text = ", ".join(f"{v.type} {v.text}" for v in items)
        line = f"@{name} = private unnamed_addr constant [{len(items)} x {kind}] [{text}], align {align}"
        return self._global(name, line)

    def bytes(self, name: str, content: bytes, align: int = 64) -> Value:
        """A pointer to private constant bytes."""
        text = "".join(chr(b) if 32 <= b < 127 and b not in (34, 92) else f"\\{b:02X}" for b in content)
        kind = f"[{len(content)} x i8]"
        return self._global(name, f'@{name} = private unnamed_addr constant {kind} c"{text}", align {align}')

    def _global(self, name: str, line: str) -> Value:
        if self.globals.setdefault(name, line) != line:
            raise InternalError(f"data: global {name} exists with other content")
        return Value(f"@{name}", "ptr")

    def meta(self, text: str) -> str:
        """The name of a new numbered metadata node, such as ``!7``."""
        self.metadata.append(text)
        return f"!{len(self.metadata) - 1}"

    def text(self) -> str:
        """The whole module; the same calls in the same order give the same text."""
        parts = [f'source_filename = "{self.name}"']
        if self.triple:
            parts.append(f'target triple = "{self.triple}"')
        parts.extend(self.globals.values())
        parts.extend(v for k, v in self.declarations.items() if k not in self.functions)
        parts.extend(self.functions.values())
        parts.extend(self.named_metadata)
        parts.extend(f"!{n} = {text}" for n, text in enumerate(self.metadata))
        return "\n".join(parts) + "\n"
