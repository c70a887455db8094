"""Scalar instructions as LLVM: those that a primitive's record states, vector maths, and conversions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from graphc.errors import InternalError
from graphc.graph.dtypes import DType
from graphc.graph.primitives import PRIMITIVES
from graphc.llvm.text import Value, Writer, const, element, like
from graphc.llvm.vecmath import VECTOR_MATHS, call_out_of_line

TYPES = {"float32": "float", "float64": "double", "int32": "i32", "int64": "i64", "bool": "i1"}
MEMORY = {"float32": "float", "float64": "double", "int32": "i32", "int64": "i64", "bool": "i8"}
INLINE_LINES = 400  # a function longer than this calls its vector maths instead of holding it


def is_float(v: Value) -> bool:
    """Whether a value's elements are floats."""
    return element(v.type) in ("float", "double")


def emit_primitive(w: Writer, name: str, args: Sequence[Value]) -> Value:
    """A primitive on values of one type, but for a condition in front.

    Raises: InternalError for a name without code for that type.
    """
    record = PRIMITIVES.get(name)
    floats = is_float(args[-1])
    if record is not None:
        stated = record.floats if floats else record.booleans if element(args[-1].type) == "i1" else record.integers
        if stated:
            return _written(w, _parsed(stated), args)
    code = VECTOR_MATHS.get(name)
    if code is not None and floats:
        return call_out_of_line(w, name, list(args)) if len(w) > INLINE_LINES else code.floats(w, *args)
    if code is None or code.integers is None:
        raise InternalError(f"emit: no code for primitive {name} of {args[-1].type}")
    return code.integers(w, *args)


# A parsed instruction: its name (with a comparison's predicate) and operands. An operand is the number of an argument,
# a constant, or an instruction.
Step = int | float | tuple[str, tuple["Step", ...]]


@cache
def _parsed(text: str) -> Step:
    """An instruction in prefix form, as records state them."""
    tokens = re.findall(r"[()]|[^\s()]+", text)
    step, rest = _operand(tokens) if len(tokens) == 1 else _instruction(tokens)
    if rest:
        raise InternalError(f"emit: {rest[0]} is left of {text!r}")
    return step


def _instruction(tokens: list[str]) -> tuple[Step, list[str]]:
    name, rest = tokens[0], tokens[1:]
    if name in ("fcmp", "icmp"):
        name, rest = f"{name} {rest[0]}", rest[1:]
    operands: list[Step] = []
    while rest and rest[0] != ")":
        operand, rest = _operand(rest)
        operands.append(operand)
    return (name, tuple(operands)), rest


def _operand(tokens: list[str]) -> tuple[Step, list[str]]:
    if tokens[0] == "(":
        step, rest = _instruction(tokens[1:])
        return step, rest[1:]
    return ("abc".index(tokens[0]) if tokens[0] in "abc" else float(tokens[0])), tokens[1:]


def _written(w: Writer, step: Step, args: Sequence[Value]) -> Value:
    if isinstance(step, int):
        return args[step]
    if isinstance(step, float):
        return const(args[-1].type, step)
    name, operands = step
    values = [_written(w, operand, args) for operand in operands]
    kind, _, predicate = name.partition(" ")
    if kind == "fcmp":
        return w.fcmp(predicate, *values)
    if kind == "icmp":
        return w.icmp(predicate, *values)
    if kind == "select":
        return w.select(*values)
    if kind == "fneg":
        return w.fneg(*values)
    if kind.startswith("llvm."):
        return w.intrinsic(kind, values[0].type, values)
    return w.op(kind, values[0], values[1])


def emit_cast(w: Writer, v: Value, source: DType, target: DType) -> Value:
    """A value of ``source`` converted to ``target``: floats to integers towards zero, saturating; anything to bool by
    != 0.
    """
    to = like(v.type, TYPES[target.name])
    if source == target:
        return v
    if target.kind == "b":
        zero = const(v.type, 0)
        return w.fcmp("une", v, zero) if source.kind == "f" else w.icmp("ne", v, zero)
    if source.kind == "b":
        return w.cast("uitofp" if target.kind == "f" else "zext", v, to)
    if source.kind == "f" and target.kind == "f":
        return w.cast("fpext" if target.itemsize > source.itemsize else "fptrunc", v, to)
    if source.kind == "f":
        return w.intrinsic("llvm.fptosi.sat", to, [v], [to, v.type])
    if target.kind == "f":
        return w.cast("sitofp", v, to)
    return w.cast("sext" if target.itemsize > source.itemsize else "trunc", v, to)
