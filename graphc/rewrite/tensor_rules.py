"""Rules on whole formulas: views composed into their readers, constants, scatters summed away, factors out of sums.

Each is a function of the pass and a formula with its operands, and gives what takes its place, or None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.graph.dtypes import int64
from graphc.graph.formula import (
    Affine,
    Formula,
    FromData,
    Guard,
    Index,
    Read,
    data_indices,
    plain,
    substitute,
    substitute_guard,
    var,
)
from graphc.graph.graph import ConstValue, Node
from graphc.graph.scalar import Body, BodyBuilder, Scalar, const_value
from graphc.graph.sizes import at_most, product
from graphc.reference.formulas import evaluate_formula
from graphc.rewrite.folding import is_rounded_once
from graphc.rewrite.formulas import (
    CONST,
    GROUND,
    JOIN,
    SCATTER,
    SUM,
    VIEW,
    Applied,
    Operands,
    index_scalars,
    is_ground,
    is_view,
    moved,
    used_variables,
    variables_of,
    with_variables,
)
from graphc.rewrite.solve import solve
from graphc.rewrite.work import TensorRule, Work
from graphc.structs import replace

MOST_FOLDED = 4096  # elements of a constant that folding may make
MOST_POINTS = 1 << 20  # points that folding may evaluate
GROUND_LIMIT = 8  # instructions of a body without reads that is written again in each reader


def view_through(work: Work, made: Applied) -> Applied | None:
    """Reads of a node that only reads another become reads of that other: a transpose goes into the product."""
    operands = Operands(made.inputs)
    reads = list(made.formula.reads)
    changed = False
    for k, read in enumerate(reads):
        view = made.inputs[read.operand]
        if not is_view(view) or view in work.protected:
            continue
        found = moved(read.index, view, operands)
        if found is not None:
            inner = found.reads[0]
            guards = tuple(dict.fromkeys(read.guards + found.guards + inner.guards))
            reads[k] = Read(inner.operand, inner.index, guards)
            changed = True
    return Applied(replace(made.formula, reads=tuple(reads)), tuple(operands.nodes)) if changed else None


def single_value(node: Node) -> float | int | bool | None:
    """The number that every element of a small constant is, or None."""
    if not isinstance(node.attr, ConstValue):
        return None
    array = node.attr.array()
    if not 1 <= array.size <= MOST_FOLDED:
        return None
    first = array.ravel()[0]
    same = array.tobytes() == np.full(array.shape, first).tobytes()
    return first.item() if same else None


def const_into_body(work: Work, made: Applied) -> Applied | None:
    """A read of a constant whose elements are one number is that number."""
    values: list[float | int | bool | None] = [None] * len(made.formula.reads)
    for k, read in enumerate(made.formula.reads):
        if not read.guards and all(isinstance(i, Affine) for i in read.index):
            values[k] = single_value(made.inputs[read.operand])
    if all(v is None for v in values):
        return None
    builder = BodyBuilder()
    table = [
        None if v is None else builder.const(v, made.inputs[r.operand].dtype)
        for v, r in zip(values, made.formula.reads, strict=True)
    ]
    body = builder.finish(builder.include(made.formula.body, table)[-1])
    return Applied(replace(made.formula, body=body), made.inputs)


def ground_into_body(work: Work, made: Applied) -> Applied | None:
    """A read of a node that is made of constants, sizes and index values alone is its body at that index."""
    builder = BodyBuilder()
    table: list[Scalar | None] = [None] * len(made.formula.reads)
    for k, read in enumerate(made.formula.reads):
        node = made.inputs[read.operand]
        if not is_ground(node) or node in work.protected or read.guards:
            continue
        index = [i for i in read.index if isinstance(i, Affine)]
        if len(index) == len(read.index) and len(node.formula.body.instrs) <= GROUND_LIMIT:
            table[k] = builder.include(node.formula.body, (), index_scalars(builder, index))[-1]
    if all(t is None for t in table):
        return None
    body = builder.finish(builder.include(made.formula.body, table)[-1])
    return Applied(replace(made.formula, body=body), made.inputs)


def fold(work: Work, made: Applied) -> Node | None:
    """The array that a formula of constants is, where it is small and its arithmetic is rounded in one way alone."""
    if not made.inputs or any(node.kind != "const" for node in made.inputs) or data_indices(made.formula):
        return None
    sizes = (*made.formula.extents, *made.formula.shape)
    numbers = [s for s in sizes if isinstance(s, int)]
    if len(numbers) < len(sizes) or math.prod(numbers[len(made.formula.extents) :]) > MOST_FOLDED:
        return None
    if math.prod(numbers[: len(made.formula.extents)]) > MOST_POINTS or not _folds_exactly(made.formula):
        return None
    arrays = [node.attr.array() for node in made.inputs if isinstance(node.attr, ConstValue)]
    value = evaluate_formula(made.formula, arrays, {})
    return work.graph.const(np.ascontiguousarray(value.astype(made.formula.dtype.numpy)))


def _folds_exactly(formula: Formula) -> bool:
    """Whether no order of additions and no approximated function decides the result's bits."""
    exact_join = formula.combine in ("none", "max", "min", "any", "all", "argmax", "argmin")
    exact_join = exact_join or formula.dtype.kind != "f"
    return exact_join and all(not i.args or is_rounded_once(i.op) for i in formula.body.instrs)


def gathered(work: Work, made: Applied) -> Applied | None:
    """A formula that scatters, written as one that gathers, where that takes no new condition."""
    formula = made.formula
    if formula.combine != "sum":
        return None
    solved = solve(formula)
    if not solved.is_plain() or len(solved.guards) > len(formula.guards):
        return None
    own = sum(len(r.guards) for r in formula.reads)
    return Applied(solved, made.inputs) if sum(len(r.guards) for r in solved.reads) <= own else None


def linear_in(body: Body, number: int) -> bool:
    """Whether a body is linear and homogeneous in a read: 0 where that is 0, and the sum of its terms for a sum.

    >>> from graphc.graph.dtypes import float32
    >>> from graphc.graph.scalar import trace
    >>> [linear_in(trace(f, [float32] * 2), 0) for f in (lambda a, b: -a * b, lambda a, b: a + b)]
    [True, False]
    """
    state: list[int] = []  # 0: the read does not occur; 1: linear; 2: anything else
    for instr in body.instrs:
        args = [state[a] for a in instr.args]
        if instr.op == "read":
            state.append(int(instr.attr == number))
        elif all(a == 0 for a in args):
            state.append(0)
        elif instr.op in ("neg", "cast") and instr.dtype.kind == "f":
            state.append(args[0])
        elif (instr.op == "mul" and sum(args) == 1) or (instr.op == "div" and args[1] == 0):
            state.append(max(args))
        elif instr.op in ("add", "sub") and args == [1, 1]:
            state.append(1)
        elif instr.op == "where" and args[0] == 0 and all(_is_linear(body, instr.args[k], args[k]) for k in (1, 2)):
            state.append(1)
        else:
            state.append(2)
    return state[-1] == 1


def _is_linear(body: Body, position: int, state: int) -> bool:
    instr = body.instrs[position]
    return state == 1 or (instr.op == "const" and const_value(instr) == 0)


def sum_through_scatter(work: Work, made: Applied) -> Applied | None:
    """A sum over what a scatter wrote is the sum over what the scatter read: the points that it left 0 add nothing."""
    f = made.formula
    for k, read in enumerate(f.reads):
        scatter = made.inputs[read.operand]
        if scatter.kind != "formula" or scatter.formula.is_plain() or scatter.formula.combine != "sum":
            continue
        index = [i.variable() for i in read.index if isinstance(i, Affine)]
        variables = [v for v in index if v is not None]
        if len(dict.fromkeys(variables)) < len(read.index) or read.guards or not linear_in(f.body, k):
            continue
        whole = all(f.extents[v] == size for v, size in zip(variables, scatter.shape, strict=True))
        if whole and any(v in f.reduced() for v in variables):
            done = _summed_over_source(work, made, k, variables, scatter)
            if done is not None:
                return done
    return None


def _summed_over_source(
    work: Work, made: Applied, number: int, variables: Sequence[int], scatter: Node
) -> Applied | None:
    """``made`` with read ``number`` replaced by the scatter's terms; ``variables``: those of the scatter's axes."""
    f, s = made.formula, scatter.formula
    n = len(s.extents)
    rest = [v for v in range(len(f.extents)) if v not in variables]
    extents = s.extents + tuple(f.extents[v] for v in rest)
    if not at_most(product(extents), product(f.extents)):
        return None
    operands = Operands(made.inputs)
    table: list[Index] = [var(0)] * len(f.extents)
    for k, v in enumerate(rest):
        table[v] = var(n + k)
    for v, w in zip(variables, s.write, strict=True):
        table[v] = w if isinstance(w, Affine) else replace(w, operand=operands.number(scatter.inputs[w.operand]))
    affine = [t if isinstance(t, Affine) else None for t in table]
    data = [v for v, t in enumerate(table) if t is not None and not isinstance(t, Affine)]
    if any(v in data for v in (*f.body.indices(), *_guarded(f))):
        return None
    reads = [_of_source(r, scatter, operands) for r in s.reads]
    places: dict[int, int] = {}
    for k, read in enumerate(f.reads):
        if k != number:
            over = _over(read, table, affine)
            if over is None:
                return None
            places[k] = len(reads)
            reads.append(over)
    guards = [_guard_of_source(g, scatter, operands) for g in s.guards]
    guards += [substitute_guard(g, affine) for g in f.guards]
    write = tuple(table[v] for v in range(len(f.shape)))
    mentioned = [i for r in reads for i in r.index] + list(write)
    if any(table[v] not in mentioned for v in data) and not work.may_drop_checks(scatter):
        return None
    builder = BodyBuilder()
    value = builder.include(s.body, ())[-1]
    types = [made.inputs[r.operand].dtype for r in f.reads]
    values = [value if k == number else builder.read(places[k], types[k]) for k in range(len(f.reads))]
    result = builder.include(f.body, values, index_scalars(builder, affine))[-1]
    formula = Formula(extents, write, f.shape, tuple(reads), builder.finish(result), "sum", tuple(guards))
    return Applied(formula, tuple(operands.nodes))


def _guarded(formula: Formula) -> tuple[int, ...]:
    """The variables that guards name, those of reads too, and those inside indices from data."""
    exprs: list[Affine] = []
    for guard in [*formula.guards, *(g for r in formula.reads for g in r.guards)]:
        exprs += [guard.expr, *(guard.data.index if guard.data else ())]
    for read in formula.reads:
        exprs += [e for i in read.index if isinstance(i, FromData) for e in i.index]
    return tuple(v for e in exprs for v, _ in e.terms)


def _of_source(read: Read, node: Node, operands: Operands) -> Read:
    """A read of ``node``'s formula with its operands numbered by ``operands``."""

    def number(old: int) -> int:
        return operands.number(node.inputs[old])

    index = tuple(i if isinstance(i, Affine) else replace(i, operand=number(i.operand)) for i in read.index)
    return Read(number(read.operand), index, tuple(_guard_of_source(g, node, operands) for g in read.guards))


def _guard_of_source(guard: Guard, node: Node, operands: Operands) -> Guard:
    if guard.data is None:
        return guard
    return replace(guard, data=replace(guard.data, operand=operands.number(node.inputs[guard.data.operand])))


def _over(read: Read, table: Sequence[Index], affine: Sequence[Affine | None]) -> Read | None:
    """A read over other variables, some of which are indices from data; None where one of those is not alone."""
    index: list[Index] = []
    for i in read.index:
        if isinstance(i, FromData):
            index.append(replace(i, index=tuple(substitute(e, affine) for e in i.index)))
            continue
        variable = i.variable()
        if variable is not None:
            index.append(table[variable])
        elif any(affine[v] is None for v, _ in i.terms):
            return None
        else:
            index.append(substitute(i, affine))
    return Read(read.operand, tuple(index), tuple(substitute_guard(g, affine) for g in read.guards))


def unused_sum_variables(work: Work, made: Applied) -> Applied | None:
    """A sum over a variable that nothing names is that variable's extent times the rest."""
    formula = made.formula
    if not formula.is_plain() or formula.combine not in ("sum", "max", "min", "any", "all"):
        return None
    used = used_variables(formula)
    idle = [v for v in formula.reduced() if v not in used]
    if not idle or (formula.combine != "sum" and formula.guards) or formula.dtype.kind == "b":
        return None
    times = product(tuple(formula.extents[v] for v in idle)) if formula.combine == "sum" else 1
    kept = [v for v in range(len(formula.extents)) if v not in idle]
    formula = with_variables(formula, kept)
    builder = BodyBuilder()
    value = builder.include(formula.body, ())[-1]
    factor = builder.cast(builder.size(times), value.dtype) if value.dtype != int64 else builder.size(times)
    body = builder.finish(value * factor)
    return Applied(replace(formula, body=body, combine=formula.combine if formula.reduced() else "none"), made.inputs)


def factors_of(body: Body) -> list[int]:
    """The positions of the factors whose product a body is, from left to right; one alone where it is no product."""
    result: list[int] = []
    stack = [len(body.instrs) - 1]
    while stack:
        at = stack.pop()
        instr = body.instrs[at]
        if instr.op == "mul":
            stack += [instr.args[1], instr.args[0]]
        else:
            result.append(at)
    return result


def variables_at(formula: Formula) -> list[tuple[int, ...]]:
    """For each instruction of the body the variables on which it depends."""
    result: list[tuple[int, ...]] = []
    for instr in formula.body.instrs:
        if instr.op == "read" and isinstance(instr.attr, int):
            found: tuple[int, ...] = variables_of(formula.reads[instr.attr])
        elif instr.op == "index" and isinstance(instr.attr, int):
            found = (instr.attr,)
        else:
            found = tuple(dict.fromkeys(v for a in instr.args for v in result[a]))
        result.append(found)
    return result


def with_sign_apart(formula: Formula) -> tuple[Formula, int]:
    """The formula with a negation at its body's root taken off, and the sign."""
    if formula.body.result.op != "neg":
        return formula, 1
    builder = BodyBuilder()
    values = builder.include(formula.body, ())
    return replace(formula, body=builder.finish(values[formula.body.result.args[0]])), -1


def factors_out_of_sum(work: Work, made: Applied) -> Applied | None:
    """Factors that do not depend on what is summed are multiplied once, with the sum."""
    if made.formula.guards:
        return None
    formula, sign = with_sign_apart(made.formula)
    if formula.dtype.kind != "f" or not formula.reduced():
        return None
    reduced = formula.reduced()
    depends = variables_at(formula)
    factors = factors_of(formula.body)
    outer = [at for at in factors if not any(v in reduced for v in depends[at])]
    inner = [at for at in factors if at not in outer]
    if not inner or (not outer and sign == 1):
        return None
    summed = work.part(Applied(replace(formula, body=_product_body(formula.body, inner)), made.inputs))
    builder = BodyBuilder()
    rank = len(formula.shape)
    values = builder.include(formula.body, ())
    total = builder.read(len(formula.reads), formula.dtype)
    for at in outer:
        total = values[at] * total
    body = builder.finish(-total if sign < 0 else total)
    reads = formula.reads + (Read(len(made.inputs), plain(rank)),)
    used = [k for k in range(len(reads)) if k in body.reads()]
    kept = tuple(r if k in used else Read(len(made.inputs), plain(rank)) for k, r in enumerate(reads))
    result = Formula(formula.shape, plain(rank), formula.shape, kept, body)
    return Applied(result, (*made.inputs, summed))


def _product_body(body: Body, factors: Sequence[int]) -> Body:
    builder = BodyBuilder()
    values = builder.include(body, ())
    result = values[factors[0]]
    for at in factors[1:]:
        result = result * values[at]
    return builder.finish(result)


CANONICAL_RULES = (
    TensorRule("gather-form", "exact", gathered, own=SCATTER),
    TensorRule("view-through", "exact", view_through, operands=VIEW),
    TensorRule("constant-into-body", "exact", const_into_body, operands=CONST),
    TensorRule("ground-into-body", "exact", ground_into_body, operands=GROUND),
    TensorRule("fold-node", "exact", fold, operands=CONST),
)

SIMPLE_RULES = (
    TensorRule("sum-through-scatter", "rounding", sum_through_scatter, own=SUM, operands=SCATTER),
    TensorRule("sum-of-broadcast", "rounding", unused_sum_variables, own=JOIN),
    TensorRule("factors-out-of-sum", "rounding", factors_out_of_sum, own=SUM),
)
