"""What a nest's writer does with memory: addresses, guards, loads and stores, scalar or a vector of points at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.graph.dtypes import DTYPES, DType
from graphc.graph.formula import Affine
from graphc.graph.sizes import SizeLike
from graphc.kernels.form import NEAR, Access, Buffer, Condition, Flat, Nest
from graphc.llvm.scalars import MEMORY, emit_cast, emit_primitive
from graphc.llvm.sizes import Sizes
from graphc.llvm.text import Value, Writer, const, lanes, like, vector
from graphc.ops.combiners import COMBINERS
from graphc.structs import dataclass, field

I64 = "i64"
Places = Mapping[tuple[str, int], int]  # the line of each part of a kernel in the listing; see ``kernels/show.py``
HEAD = ("head", 0)
CONTEXT = Value("%ctx", "ptr")
MEMBER, SHIFT = Value("%member", I64), Value("%shift", I64)  # of a team of 2**shift: parameters of each nest


@dataclass(slots=True)
class Env:
    """What is known at one place of the loops: index values (of the vector variable its first lane's), the tail's mask,
    values of instructions and the scalar part of each load's offset, by (program, position)."""

    index: dict[int, Value] = field(default_factory=dict)
    mask: Value | None = None
    values: dict[tuple[str, int], Value] = field(default_factory=dict)
    splats: dict[Value, Value] = field(default_factory=dict)

    def inner(self, **changes: object) -> Env:
        """A copy for a deeper level."""
        copied = Env(dict(self.index), self.mask, dict(self.values), dict(self.splats))
        for name, value in changes.items():
            setattr(copied, name, value)
        return copied


class Accesses:
    """The part of a nest's writer that knows memory. vector: the variable whose points share a register, -1 for none;
    lanes: how many do; order: the variables from the outermost loop inwards; pointers: the address of each buffer;
    places: the lines that instructions name as their source, where that is wanted."""

    w: Writer
    nest: Nest
    buffers: Sequence[Buffer]
    pointers: Mapping[int, Value]
    sizes: Sizes
    places: Places
    vector: int
    lanes: int
    order: tuple[int, ...]

    def at(self, part: str, number: int) -> int:
        """From here on instructions come from a part of the kernel; gives what they came from before, to be set again
        as the writer's ``location``."""
        before = self.w.location
        self.w.location = self.places.get((part, number), before)
        return before

    # Indices and guards

    def affine_scalar(self, expr: Affine, env: Env) -> Value:
        """An affine expression over variables whose values are scalars here."""
        w = self.w
        total = self.sizes.value(expr.const)
        for variable, coefficient in expr.terms:
            term = self.scaled(env.index[variable], coefficient)
            total = term if total.text == "0" else w.add(total, term)
        return total

    def scaled(self, value: Value, by: SizeLike) -> Value:
        """An index times a stride."""
        if by == 1:
            return value
        if isinstance(by, int) and not value.text.startswith("%"):
            return const(I64, int(value.text) * by)
        return self.w.mul(value, self.sizes.value(by))

    def condition(self, guards: Sequence[Condition], env: Env, wide: int) -> Value | None:
        """Whether all guards hold: an i1, or a mask where a guard depends on the vector variable. None for no
        guards.
        """
        w = self.w
        result: Value | None = None
        for guard in guards:
            moving = guard.expr.coefficient(self.vector) if self.vector >= 0 else 0
            by_data = guard.data is not None and self.vector >= 0 and guard.data[1].stride(self.vector) != 0
            value = self.affine_scalar(guard.expr, env)
            if guard.kind == "ge" and abs(moving) == 1:
                result = self._both(result, self._lanes_from(value, moving, wide))
                continue
            if moving or by_data:
                value = w.splat(value, wide)
                if moving:
                    value = w.add(value, w.mul(w.lane_numbers(value.type), const(value.type, moving)))
            if guard.kind == "ge":
                holds = w.icmp("sge", value, const(value.type, 0))
            elif guard.kind == "div":
                holds = w.icmp("eq", w.srem(value, const(value.type, guard.divisor)), const(value.type, 0))
            elif guard.data is None:
                holds = w.icmp("eq", value, const(value.type, 0))
            else:
                holds = w.icmp("eq", value, self._like(self.data(guard.data[0], guard.data[1], env), value))
            result = self._both(result, holds)
        return result

    def _both(self, a: Value | None, b: Value) -> Value:
        if a is None:
            return b
        if lanes(a.type) or lanes(b.type):
            a, b = self.widened(a), self.widened(b)
        return self.w.and_(a, b)

    def _lanes_from(self, first: Value, sign: int, wide: int) -> Value:
        """The lanes where ``first + sign * lane >= 0``: all from some lane on, or all up to one."""
        w = self.w
        if sign < 0:
            return w.lane_mask(wide, w.add(first, const(I64, 1)))
        return w.not_(w.lane_mask(wide, w.sub(const(I64, 0), first)))

    def widened(self, mask: Value) -> Value:
        """A condition as a mask of the nest's lanes."""
        return mask if lanes(mask.type) or not self.lanes else self.w.splat(mask, self.lanes)

    def _like(self, value: Value, other: Value) -> Value:
        return self.w.splat(value, lanes(other.type)) if lanes(other.type) and not lanes(value.type) else value

    # Memory

    def offset(self, flat: Flat, env: Env) -> Value:
        """The scalar part of an address: of the vector variable, its first lane's."""
        total = self.sizes.value(flat.const)
        for variable in self.order:
            stride = flat.stride(variable)
            if stride == 0 or variable not in env.index:
                continue
            term = self.scaled(env.index[variable], stride)
            if term.text == "0":
                continue
            if not term.text.startswith("%") and not total.text.startswith("%"):
                total = const(I64, int(term.text) + int(total.text))
            else:
                total = term if total.text == "0" else self.w.add(total, term)
        return total

    def spread(self, start: Value, stride: SizeLike) -> Value:
        """Offsets of all lanes, from the first one's."""
        w = self.w
        wide = w.splat(start, self.lanes)
        steps = w.lane_numbers(wide.type)
        return w.add(wide, steps if stride == 1 else w.mul(steps, w.splat(self.sizes.value(stride), self.lanes)))

    def data(self, buffer: int, flat: Flat, env: Env) -> Value:
        """An index from data, as i64, a vector where it differs from lane to lane."""
        dtype = self.buffers[buffer].dtype
        value = self.load(Access(buffer, flat), env)
        return emit_cast(self.w, value, dtype, DTYPES["int64"])

    def load(self, access: Access, env: Env) -> Value:
        """The element of an access, or a vector of them where it moves with the vector variable; 0 outside its
        guards.
        """
        w = self.w
        dtype = self.buffers[access.buffer].dtype
        pointer = self.pointers[access.buffer]
        kind = MEMORY[dtype.name]
        start = self.offset(access.flat, env)
        lane_data = False
        for term in access.data:
            value = self.data(term.buffer, term.at, env)
            moved = w.mul(value, self._like(self.sizes.value(term.stride), value)) if term.stride != 1 else value
            if lanes(moved.type):
                start = self.spread(start, access.flat.stride(self.vector)) if not lanes(start.type) else start
                lane_data = True
            elif lanes(start.type):
                moved = w.splat(moved, self.lanes)
            start = w.add(start, moved)
        condition = self.condition(access.guards, env, self.lanes)
        stride = access.flat.stride(self.vector) if self.vector >= 0 else 0
        wide = lane_data or stride != 0 or (condition is not None and bool(lanes(condition.type)))
        if not wide:
            return self._truth(self._scalar_load(kind, pointer, start, condition), dtype)
        mask = env.mask
        if condition is not None:
            mask = self.widened(condition) if mask is None else w.and_(mask, self.widened(condition))
        full = vector(kind, self.lanes)
        zero = const(full, 0)
        if stride == 1 and not lane_data:
            address = w.gep(pointer, start, kind)
            value = w.load(full, address) if mask is None else w.masked_load(full, address, mask, zero)
        elif stride == -1 and not lane_data:
            address = w.gep(pointer, w.sub(start, const(I64, self.lanes - 1)), kind)
            value = self._backwards(address, full, mask)
        elif isinstance(stride, int) and 1 < stride <= NEAR and not lane_data and mask is None:
            value = self._near(w.gep(pointer, start, kind), kind, stride)
        else:
            offsets = start if lanes(start.type) else self.spread(start, stride)
            every = mask if mask is not None else const(vector("i1", self.lanes), True)
            value = w.gather(full, w.gep(pointer, offsets, kind), every, zero)
        return self._truth(value, dtype)

    def _backwards(self, address: Value, full: str, mask: Value | None) -> Value:
        """A vector that lies in memory from its last lane to its first."""
        w = self.w
        order = range(self.lanes - 1, -1, -1)
        if mask is None:
            return w.shuffle(w.load(full, address), None, order)
        return w.shuffle(w.masked_load(full, address, w.shuffle(mask, None, order), const(full, 0)), None, order)

    def _near(self, address: Value, kind: str, stride: int) -> Value:
        """A vector of elements that lie ``stride`` apart: picked out of the vectors between its first and its last, the
        last of which is moved back to end with it, so that nothing beyond is read."""
        w, n = self.w, self.lanes
        full = vector(kind, n)
        starts = [n * k for k in range(stride - 1)] + [stride * (n - 1) + 1 - n]
        result: Value | None = None
        done = 0  # lanes that ``result`` has already
        for k, start in enumerate(starts):
            part = w.load(full, w.gep(address, const(I64, start), kind))
            end = n * stride if k == stride - 1 else start + n
            after = -(-end // stride)
            picks = [stride * lane - start for lane in range(done, after)]
            if result is None:
                result = w.shuffle(part, None, picks + [0] * (n - after))
            else:
                result = w.shuffle(result, part, [*range(done), *(n + i for i in picks), *[0] * (n - after)])
            done = after
        assert result is not None
        return result

    def _scalar_load(self, kind: str, pointer: Value, start: Value, condition: Value | None) -> Value:
        w = self.w
        if condition is None:
            return w.load(kind, w.gep(pointer, start, kind))
        value = w.load(kind, w.gep(pointer, w.select(condition, start, const(I64, 0)), kind))
        return w.select(condition, value, const(kind, 0))

    def _truth(self, value: Value, dtype: DType) -> Value:
        return self.w.icmp("ne", value, const(value.type, 0)) if dtype.kind == "b" else value

    def store(self, access: Access, value: Value, add: bool, env: Env, mask: Value | None) -> None:
        """Store a value, or add it to what is there; only under the mask and the access's guards."""
        w = self.w
        dtype = self.buffers[access.buffer].dtype
        kind = MEMORY[dtype.name]
        pointer = self.pointers[access.buffer]
        start = self.offset(access.flat, env)
        for term in access.data:
            moved = self.scaled(self.data(term.buffer, term.at, env), term.stride)
            start = w.add(start, moved)
        if dtype.kind == "b":
            value = w.cast("zext", value, like(value.type, "i8"))
        condition = self.condition(access.guards, env, self.lanes)
        stride = access.flat.stride(self.vector) if self.vector >= 0 else 0
        if stride == 0:
            opened = None if condition is None else w.if_(condition)
            address = w.gep(pointer, start, kind)
            if add:
                value = self.join("sum", w.load(kind, address), value)
            w.store(value, address)
            if opened is not None:
                w.end_if(opened)
            return
        value = value if lanes(value.type) else w.splat(value, self.lanes)
        if condition is not None:
            mask = self.widened(condition) if mask is None else w.and_(mask, self.widened(condition))
        if isinstance(stride, int) and 1 < stride <= NEAR and mask is None:
            self._store_near(value, w.gep(pointer, start, kind), kind, stride)
            return
        if stride != 1:
            addresses = w.gep(pointer, self.spread(start, stride), kind)
            every = mask if mask is not None else const(vector("i1", self.lanes), True)
            at = {1: f"align {dtype.itemsize}"}
            w.intrinsic("llvm.masked.scatter", "void", [value, addresses, every], [value.type, addresses.type], at)
            return
        address = w.gep(pointer, start, kind)
        if add:
            old = (
                w.load(value.type, address)
                if mask is None
                else w.masked_load(value.type, address, mask, const(value.type, 0))
            )
            value = self.join("sum", old, value)
        if mask is None:
            w.store(value, address)
        else:
            w.masked_store(value, address, mask)

    def _store_near(self, value: Value, address: Value, kind: str, stride: int) -> None:
        """Elements stored ``stride`` apart, by vectors under a mask that leaves out what lies between them."""
        w, n = self.w, self.lanes
        for k in range(stride):
            places = [n * k + i for i in range(n)]
            picks = [place // stride if place % stride == 0 else 0 for place in places]
            held = ", ".join(f"i1 {'true' if place % stride == 0 else 'false'}" for place in places)
            mask = Value(f"<{held}>", vector("i1", n))
            w.masked_store(w.shuffle(value, None, picks), w.gep(address, const(I64, n * k), kind), mask)

    def join(self, combine: str, a: Value, b: Value) -> Value:
        """Two partial results of a combiner as one."""
        return emit_primitive(self.w, COMBINERS[combine].joins, [a, b])
