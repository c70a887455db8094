"""The instructions of a function body as LLVM IR text, one after the other; blocks and loops are ``llvm/text.py``'s.

Nothing here knows what is computed; nothing is folded or optimised. No fast-math flag is written unless asked for, and
never ``nnan`` or ``ninf``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from graphc.errors import InternalError
from graphc.llvm.locations import LOCATION
from graphc.llvm.module import Module
from graphc.llvm.values import Value, const, element, lanes, like, mangled, size_bytes, typed, vector

Combine = Callable[[Value, Value], Value]

_FLAGS = frozenset({"", "contract", "reassoc", "reassoc contract"})


class Instructions:
    """A function body to which instructions are added; temporaries are numbered in the order written.

    ``location`` (a line of the module's source, 0 for none) is attached to every instruction written while it is set.
    """

    __slots__ = ("_entry", "_labels", "_values", "block", "closed", "lines", "location", "module")

    def __init__(self, module: Module) -> None:
        self.module = module
        self.lines: list[str] = ["entry:"]
        self._entry: list[str] = []
        self.block = "entry"
        self.closed = False
        self.location = 0
        self._values = 0
        self._labels = 0

    def text(self) -> str:
        """The body as written so far."""
        return "\n".join([self.lines[0], *self._entry, *self.lines[1:]])

    def __len__(self) -> int:
        return len(self.lines)

    # Plumbing

    def line(self, text: str) -> None:
        """Write an instruction without a result.

        Raises: InternalError after a terminator.
        """
        if self.closed:
            raise InternalError(f"line: {text!r} follows the terminator of block {self.block}")
        self.lines.append(f"  {text}{LOCATION}{self.location}" if self.location else f"  {text}")

    def new(self, kind: str, text: str) -> Value:
        """Write an instruction with a result of type ``kind``."""
        value = Value(f"%v{self._values}", kind)
        self._values += 1
        self.line(f"{value.text} = {text}")
        return value

    def fresh(self, kind: str) -> Value:
        """A temporary that no instruction defines yet."""
        value = Value(f"%v{self._values}", kind)
        self._values += 1
        return value

    def comment(self, text: str) -> None:
        """Write a comment line."""
        self.lines.append("  ; " + text.replace("\n", " "))

    def const(self, kind: str, number: float) -> Value:
        """A constant; see ``const``."""
        return const(kind, number)

    # Arithmetic

    def op(self, name: str, a: Value, b: Value, flags: str = "") -> Value:
        """A two-operand instruction of one type; ``flags``: "", "contract", "reassoc" or "reassoc contract"."""
        if a.type != b.type:
            raise InternalError(f"{name}: operands of types {a.type} and {b.type}")
        if flags not in _FLAGS:
            raise InternalError(f"{name}: flags {flags!r} are not allowed")
        return self.new(a.type, f"{name} {flags + ' ' if flags else ''}{a.type} {a.text}, {b.text}")

    def fadd(self, a: Value, b: Value, flags: str = "") -> Value:
        """a + b of floats."""
        return self.op("fadd", a, b, flags)

    def fsub(self, a: Value, b: Value, flags: str = "") -> Value:
        """a - b of floats."""
        return self.op("fsub", a, b, flags)

    def fmul(self, a: Value, b: Value, flags: str = "") -> Value:
        """a * b of floats."""
        return self.op("fmul", a, b, flags)

    def fdiv(self, a: Value, b: Value, flags: str = "") -> Value:
        """a / b of floats."""
        return self.op("fdiv", a, b, flags)

    def fneg(self, a: Value) -> Value:
        """-a of a float."""
        return self.new(a.type, f"fneg {a.type} {a.text}")

    def add(self, a: Value, b: Value) -> Value:
        """a + b of integers, wrapping."""
        return self.op("add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """a - b of integers, wrapping."""
        return self.op("sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """a * b of integers, wrapping."""
        return self.op("mul", a, b)

    def sdiv(self, a: Value, b: Value) -> Value:
        """a / b of integers, towards zero; undefined for b = 0 and for the least number by -1."""
        return self.op("sdiv", a, b)

    def srem(self, a: Value, b: Value) -> Value:
        """The remainder of ``sdiv``."""
        return self.op("srem", a, b)

    def urem(self, a: Value, b: Value) -> Value:
        """The remainder of ``udiv``."""
        return self.op("urem", a, b)

    def and_(self, a: Value, b: Value) -> Value:
        """Bitwise and."""
        return self.op("and", a, b)

    def or_(self, a: Value, b: Value) -> Value:
        """Bitwise or."""
        return self.op("or", a, b)

    def xor(self, a: Value, b: Value) -> Value:
        """Bitwise exclusive or."""
        return self.op("xor", a, b)

    def not_(self, a: Value) -> Value:
        """Bitwise complement; of an i1, its negation."""
        return self.op("xor", a, const(a.type, -1 if element(a.type) != "i1" else True))

    def shl(self, a: Value, b: Value) -> Value:
        """Left shift."""
        return self.op("shl", a, b)

    def lshr(self, a: Value, b: Value) -> Value:
        """Right shift, zeros shifted in."""
        return self.op("lshr", a, b)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c rounded once. Without the instruction: floats by way of double (rounded twice), doubles by libm."""
        if not self.module.fma and element(a.type) == "float":
            wide = like(a.type, "double")
            x, y, z = (self.cast("fpext", v, wide) for v in (a, b, c))
            return self.cast("fptrunc", self.fadd(self.fmul(x, y), z), a.type)
        return self.intrinsic("llvm.fma", a.type, [a, b, c])

    def muladd(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c: fused where the target fuses, else a product and a sum. For accumulation."""
        return self.fma(a, b, c) if self.module.fma else self.fadd(self.fmul(a, b), c)

    def sqrt(self, a: Value) -> Value:
        """The square root, correctly rounded."""
        return self.intrinsic("llvm.sqrt", a.type, [a])

    def fabs(self, a: Value) -> Value:
        """The absolute value of a float."""
        return self.intrinsic("llvm.fabs", a.type, [a])

    def copysign(self, a: Value, sign: Value) -> Value:
        """The magnitude of ``a`` with the sign of ``sign``."""
        return self.intrinsic("llvm.copysign", a.type, [a, sign])

    # Comparison, selection, conversion

    def fcmp(self, predicate: str, a: Value, b: Value) -> Value:
        """An i1 (a lane each): LLVM's predicate ``oeq olt ole ogt oge une uno ord ...``."""
        return self.new(like(a.type, "i1"), f"fcmp {predicate} {a.type} {a.text}, {b.text}")

    def icmp(self, predicate: str, a: Value, b: Value) -> Value:
        """An i1 (a lane each): LLVM's predicate ``eq ne slt sle sgt sge ult ...``."""
        return self.new(like(a.type, "i1"), f"icmp {predicate} {a.type} {a.text}, {b.text}")

    def select(self, c: Value, a: Value, b: Value) -> Value:
        """``a`` where ``c``, else ``b``; a scalar condition may choose between vectors."""
        if a.type != b.type:
            raise InternalError(f"select: operands of types {a.type} and {b.type}")
        return self.new(a.type, f"select {typed([c, a, b])}")

    def cast(self, kind: str, v: Value, to: str) -> Value:
        """LLVM's conversion ``kind``: sitofp fptosi fptrunc fpext zext sext trunc bitcast uitofp ptrtoint ..."""
        return v if v.type == to else self.new(to, f"{kind} {v.type} {v.text} to {to}")

    def any(self, mask: Value) -> Value:
        """An i1: whether any lane of a mask is set."""
        return self._whole(mask, "ne", 0)

    def all(self, mask: Value) -> Value:
        """An i1: whether every lane of a mask is set."""
        return self._whole(mask, "eq", -1)

    def _whole(self, mask: Value, predicate: str, number: int) -> Value:
        if not lanes(mask.type):
            return mask
        bits = self.cast("bitcast", mask, f"i{lanes(mask.type)}")
        return self.icmp(predicate, bits, const(bits.type, number))

    # Calls

    def call(
        self, name: str, result: str, args: Sequence[Value], arg_attributes: Mapping[int, str] | None = None
    ) -> Value:
        """Call ``@name``; a void call gives an empty value."""
        listed = typed(args)
        if arg_attributes:
            words = ((v.type, arg_attributes.get(n, ""), v.text) for n, v in enumerate(args))
            listed = ", ".join(" ".join(w for w in each if w) for each in words)
        if result == "void":
            self.line(f"call void @{name}({listed})")
            return Value("", "void")
        return self.new(result, f"call {result} @{name}({listed})")

    def intrinsic(
        self,
        name: str,
        result: str,
        args: Sequence[Value],
        overloads: Sequence[str] | None = None,
        arg_attributes: Mapping[int, str] | None = None,
    ) -> Value:
        """Call an LLVM intrinsic and declare it.

        overloads: the types that its name carries, in order; by default the result's alone.
        """
        full = ".".join([name, *map(mangled, overloads if overloads is not None else [result])])
        if full not in self.module.declarations:
            self.module.declare(full, result, [v.type for v in args])
        return self.call(full, result, args, arg_attributes)

    # Memory

    def gep(self, pointer: Value, index: Value, kind: str) -> Value:
        """The address of element ``index`` of type ``kind``; a vector of indices gives a vector of addresses."""
        where = f"{pointer.type} {pointer.text}, {index.type} {index.text}"
        return self.new(like(index.type, "ptr"), f"getelementptr {kind}, {where}")

    def load(self, kind: str, pointer: Value, align: int = 0) -> Value:
        """What lies at ``pointer``; align 0 takes the element's size."""
        return self.new(kind, f"load {kind}, ptr {pointer.text}, align {align or size_bytes(element(kind))}")

    def store(self, v: Value, pointer: Value, align: int = 0) -> None:
        """Store ``v`` at ``pointer``; align 0 takes the element's size."""
        self.line(f"store {v.type} {v.text}, ptr {pointer.text}, align {align or size_bytes(element(v.type))}")

    def prefetch(self, pointer: Value, to_write: bool) -> None:
        """Ask for the line of ``pointer``, which may be no valid address; to_write: it will be written."""
        how = [const("i32", int(to_write)), const("i32", 3), const("i32", 1)]  # to be kept; data
        self.intrinsic("llvm.prefetch", "void", [pointer, *how], ["ptr"])

    def masked_load(self, kind: str, pointer: Value, mask: Value, otherwise: Value, align: int = 0) -> Value:
        """Consecutive elements; a lane without its mask bit touches no memory and gives ``otherwise``."""
        at = {0: f"align {align or size_bytes(element(kind))}"}
        return self.intrinsic("llvm.masked.load", kind, [pointer, mask, otherwise], [kind, "ptr"], at)

    def masked_store(self, v: Value, pointer: Value, mask: Value, align: int = 0) -> None:
        """Store the lanes whose mask bit is set."""
        at = {1: f"align {align or size_bytes(element(v.type))}"}
        self.intrinsic("llvm.masked.store", "void", [v, pointer, mask], [v.type, "ptr"], at)

    def gather(self, kind: str, pointers: Value, mask: Value, otherwise: Value, align: int = 0) -> Value:
        """An element from each address; a lane without its mask bit touches no memory and gives ``otherwise``."""
        at = {0: f"align {align or size_bytes(element(kind))}"}
        return self.intrinsic("llvm.masked.gather", kind, [pointers, mask, otherwise], [kind, pointers.type], at)

    def alloca(self, kind: str, count: int = 1, align: int = 64) -> Value:
        """A pointer to ``count`` elements in the function's frame, made on entry."""
        value = Value(f"%a{len(self._entry)}", "ptr")
        self._entry.append(f"  {value.text} = alloca [{count} x {kind}], align {align}")
        return value

    # Vectors

    def splat(self, scalar: Value, n_lanes: int) -> Value:
        """The scalar in every lane; n_lanes 0 gives it back."""
        if not n_lanes:
            return scalar
        if not scalar.text.startswith(("%", "@")):
            return Value(f"splat ({scalar.type} {scalar.text})", vector(scalar.type, n_lanes))
        kind = vector(scalar.type, n_lanes)
        first = self.insert(Value("poison", kind), scalar, const("i32", 0))
        zeros = "zeroinitializer"
        return self.new(kind, f"shufflevector {kind} {first.text}, {kind} poison, <{n_lanes} x i32> {zeros}")

    def extract(self, v: Value, lane: Value | int) -> Value:
        """One lane."""
        at = const("i32", lane) if isinstance(lane, int) else lane
        return self.new(element(v.type), f"extractelement {typed([v, at])}")

    def insert(self, v: Value, scalar: Value, lane: Value | int) -> Value:
        """The vector with one lane replaced."""
        at = const("i32", lane) if isinstance(lane, int) else lane
        return self.new(v.type, f"insertelement {typed([v, scalar, at])}")

    def shuffle(self, a: Value, b: Value | None, order: Sequence[int]) -> Value:
        """Lanes picked by number from ``a`` and then ``b``; -1 leaves a lane undefined."""
        other = b if b is not None else Value("poison", a.type)
        picks = ", ".join(f"i32 {n}" if n >= 0 else "i32 poison" for n in order)
        kind = vector(element(a.type), len(order))
        return self.new(kind, f"shufflevector {typed([a, other])}, <{len(order)} x i32> <{picks}>")

    def reduce(self, combine: str | Combine, v: Value) -> Value:
        """All lanes combined into a scalar by a fixed tree: the upper half onto the lower, until one is left.

        combine: a function of two values, or an instruction: fadd, fmul, add, mul, and, or, xor.

        Raises: InternalError unless the lanes are a power of two.
        """
        n = lanes(v.type)
        if n & (n - 1):
            raise InternalError(f"reduce: {n} lanes are not a power of two")
        join = combine if callable(combine) else partial(self.op, combine)
        while n > 1:
            half = n // 2
            if half == 1:
                return join(self.extract(v, 0), self.extract(v, 1))
            lower, upper = (self.shuffle(v, None, range(at, at + half)) for at in (0, half))
            v, n = join(lower, upper), half
        return self.extract(v, 0) if lanes(v.type) else v

    def lane_numbers(self, kind: str) -> Value:
        """The constant vector 0, 1, 2, ... of an integer type."""
        numbers = ", ".join(f"{element(kind)} {n}" for n in range(lanes(kind)))
        return Value(f"<{numbers}>" if lanes(kind) else "0", kind)

    def lane_mask(self, n_lanes: int, count: Value) -> Value:
        """A mask whose first ``count`` lanes are set; count: i64, any value."""
        kind = f"<{n_lanes} x i32>"
        few = self.intrinsic("llvm.smin", "i64", [count, const("i64", n_lanes)])
        few = self.intrinsic("llvm.smax", "i64", [few, const("i64", 0)])
        return self.icmp("slt", self.lane_numbers(kind), self.splat(self.cast("trunc", few, "i32"), n_lanes))
