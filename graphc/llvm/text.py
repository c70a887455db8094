"""LLVM IR as text: a writer that fills one function body with instructions, blocks, loops and conditionals."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import InternalError
from graphc.llvm.instructions import Instructions
from graphc.llvm.locations import LOCATION
from graphc.llvm.module import Module
from graphc.llvm.values import Value, const, element, lanes, like, mangled, size_bytes, typed, vector
from graphc.structs import dataclass

__all__ = [
    "If", "Loop", "Module", "Value", "Writer",
    "const", "element", "lanes", "like", "mangled", "size_bytes", "typed", "vector",
]  # fmt: skip


@dataclass(slots=True)
class Loop:
    """An open loop: its index, the carried values inside it, and what closing needs."""

    index: Value
    carried: tuple[Value, ...]
    start: Value
    stop: Value
    step: Value
    initial: tuple[Value, ...]
    guard: str
    preheader: str
    body: str
    exit: str
    phi_at: int
    always: bool
    location: int = 0


@dataclass(slots=True)
class If:
    """An open conditional: its labels and whether ``else_`` was met."""

    otherwise: str
    end: str
    has_else: bool = False


class Writer(Instructions):
    """Writes one function body: blocks, and the loops and conditionals that are made of them."""

    __slots__ = ()

    def label(self, hint: str = "b") -> str:
        """A fresh label, not yet placed."""
        self._labels += 1
        return f"{hint}{self._labels}"

    def place(self, label: str) -> None:
        """Begin the block ``label``; an open block falls into it."""
        if not self.closed:
            self.br(label)
        self.lines.append(f"{label}:")
        self.block, self.closed = label, False

    def br(self, label: str) -> None:
        """Jump."""
        self.line(f"br label %{label}")
        self.closed = True

    def condbr(self, cond: Value, then: str, otherwise: str) -> None:
        """Jump to ``then`` if ``cond``, else to ``otherwise``."""
        self.line(f"br i1 {cond.text}, label %{then}, label %{otherwise}")
        self.closed = True

    def ret(self, value: Value | None = None) -> None:
        """Return from the function."""
        self.line(f"ret {value.type} {value.text}" if value is not None else "ret void")
        self.closed = True

    def phi(self, kind: str, incoming: Sequence[tuple[Value, str]]) -> Value:
        """The value by the block that was left; only at the head of a block."""
        return self.new(kind, "phi " + kind + " " + ", ".join(f"[ {v.text}, %{label} ]" for v, label in incoming))

    def loop(self, start: Value, stop: Value, step: Value, carried: Sequence[Value] = ()) -> Loop:
        """Open ``for index in range(start, stop, step)``, step > 0, with values carried from turn to turn.

        Tested at the bottom, behind a guard unless both bounds are constants that allow a first turn.

        >>> w = Writer(Module()); i64 = lambda n: const("i64", n)
        >>> outer = w.loop(i64(0), Value("%n", "i64"), i64(1), [const("float", 0)])
        >>> (total,) = w.end_loop(outer, [w.fadd(outer.carried[0], const("float", 1))])
        >>> total.type
        'float'
        """
        always = _is_number(start) and _is_number(stop) and int(start.text) < int(stop.text)
        preheader, body, exit_ = self.label("pre"), self.label("loop"), self.label("done")
        guard = self.block
        if not always:
            self.condbr(self.icmp("slt", start, stop), preheader, exit_)
        self.place(preheader)
        self.place(body)
        index = self.fresh(start.type)
        inside = tuple(self.fresh(v.type) for v in carried)
        # The phis' second operands are known when the loop closes: a line is kept for each.
        phi_at = len(self.lines)
        self.lines.extend([""] * (1 + len(inside)))
        values = (index, inside, start, stop, step, tuple(carried))
        return Loop(*values, guard, preheader, body, exit_, phi_at, always, self.location)

    def end_loop(self, loop: Loop, new_values: Sequence[Value] = ()) -> list[Value]:
        """Close the loop; the carried values after the last turn, or the initial ones if there was none."""
        if len(new_values) != len(loop.carried):
            raise InternalError(f"end_loop: {len(new_values)} values for {len(loop.carried)} carried")
        following = self.add(loop.index, loop.step)
        more = self.icmp("slt", following, loop.stop)
        latch = self.block
        self.condbr(more, loop.body, loop.exit)
        pairs = [(loop.index, loop.start, following), *zip(loop.carried, loop.initial, new_values, strict=True)]
        for n, (inside, first, later) in enumerate(pairs):
            self._loop_phi(loop, n, inside, first, later, latch)
        self.place(loop.exit)
        if loop.always:
            return list(new_values)
        both = zip(loop.initial, new_values, strict=True)
        return [self.phi(later.type, [(first, loop.guard), (later, latch)]) for first, later in both]

    def repeat(self, carried: Sequence[Value]) -> Loop:
        """Open a loop that ends when ``end_repeat`` says so, with values carried from turn to turn."""
        none = Value("", "i64")
        before, body, exit_ = self.block, self.label("repeat"), self.label("done")
        self.place(body)
        inside = tuple(self.fresh(v.type) for v in carried)
        phi_at = len(self.lines)
        self.lines.extend([""] * len(inside))
        values = (none, inside, none, none, none, tuple(carried))
        return Loop(*values, before, before, body, exit_, phi_at, True, self.location)

    def end_repeat(self, loop: Loop, new_values: Sequence[Value], again: Value) -> list[Value]:
        """Close a ``repeat``: another turn while the i1 ``again`` is set; the values after the last turn."""
        latch = self.block
        self.condbr(again, loop.body, loop.exit)
        for n, (inside, first, later) in enumerate(zip(loop.carried, loop.initial, new_values, strict=True)):
            self._loop_phi(loop, n, inside, first, later, latch)
        self.place(loop.exit)
        return list(new_values)

    def _loop_phi(self, loop: Loop, n: int, inside: Value, first: Value, later: Value, latch: str) -> None:
        if not inside.type == first.type == later.type:
            raise InternalError(f"end_loop: carried value of types {first.type} and {later.type}")
        ways = f"[ {first.text}, %{loop.preheader} ], [ {later.text}, %{latch} ]"
        where = f"{LOCATION}{loop.location}" if loop.location else ""
        self.lines[loop.phi_at + n] = f"  {inside.text} = phi {inside.type} {ways}{where}"

    def if_(self, cond: Value, expected: bool | None = None) -> If:
        """Open a conditional block; values leave it through memory, or by ``phi`` with the labels in ``block``."""
        then, branch = self.label("then"), If(self.label("else"), self.label("end"))
        weights = ""
        if expected is not None:
            likely = "i32 1, i32 2000" if not expected else "i32 2000, i32 1"
            weights = ", !prof " + self.module.meta('!{!"branch_weights", ' + likely + "}")
        self.line(f"br i1 {cond.text}, label %{then}, label %{branch.otherwise}{weights}")
        self.closed = True
        self.place(then)
        return branch

    def else_(self, branch: If) -> None:
        """Begin the other side."""
        if not self.closed:
            self.br(branch.end)
        branch.has_else = True
        self.place(branch.otherwise)

    def end_if(self, branch: If) -> None:
        """Close the conditional."""
        if not self.closed:
            self.br(branch.end)
        if not branch.has_else:
            self.place(branch.otherwise)
        self.place(branch.end)


def _is_number(v: Value) -> bool:
    return v.text.lstrip("-").isdigit()
