"""Sums of products: split into pairwise products, and chains of products taken in the cheapest order.

A sum of products of tensors is taken apart into factors, each with the variables that it depends on. Contracting two of
them costs as many multiplications as there are points over both; what neither the result nor another factor needs is
summed at once. A size known only at run time counts as NOMINAL.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.graph.formula import Affine, Formula, FromData, Read, Shape, plain, substitute_read, var
from graphc.graph.graph import Node
from graphc.graph.scalar import Body, BodyBuilder, Scalar
from graphc.rewrite.formulas import SUM, Applied, Operands
from graphc.rewrite.tensor_rules import factors_of, variables_at
from graphc.rewrite.work import TensorRule, Work
from graphc.structs import dataclass, replace

NOMINAL = 64
MOST_FACTORS = 24
MOST_EXHAUSTIVE = 6  # factors up to which every order is tried; more are contracted greedily


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor of a sum of products: a body over reads of ``inputs``, and the variables of the whole that move it."""

    body: Body
    reads: tuple[Read, ...]
    inputs: tuple[Node, ...]
    variables: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum over ``extents`` of a product of factors; the first ``rank`` variables are the result's."""

    extents: Shape
    rank: int
    factors: tuple[Factor, ...]

    def points(self, variables: Sequence[int]) -> int:
        """How many points some of the variables have."""
        sizes = [self.extents[v] for v in dict.fromkeys(variables)]
        return math.prod(s if isinstance(s, int) else NOMINAL for s in sizes)


Order = int | tuple["Order", "Order"]


def parted(made: Applied) -> Sum | None:
    """The factors of a plain sum of products without conditions, or None."""
    f = made.formula
    if f.combine != "sum" or not f.is_plain() or f.guards or f.dtype.kind != "f":
        return None
    places = factors_of(f.body)
    if len(places) > MOST_FACTORS:
        return None
    depends = variables_at(f)
    builder = BodyBuilder()
    values = builder.include(f.body, ())
    factors = []
    for at in places:
        body = builder.finish(values[at])
        reads = tuple(f.reads[k] for k in body.reads())
        table: list[Scalar | None] = [None] * len(f.reads)
        own = BodyBuilder()
        for new, old in enumerate(body.reads()):
            table[old] = own.read(new, made.inputs[f.reads[old].operand].dtype)
        renumbered = own.finish(own.include(body, table)[-1])
        factors.append(Factor(renumbered, reads, made.inputs, tuple(sorted(depends[at]))))
    return Sum(f.extents, len(f.shape), tuple(factors))


def contraction(total: Sum, own: Sequence[int], rest: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Of a product's variables those that it keeps: the result's, and those of the factors that are left."""
    needed = dict.fromkeys([*range(total.rank), *(v for r in rest for v in r)])
    return tuple(sorted(v for v in dict.fromkeys(own) if v in needed))


def cheapest(total: Sum) -> tuple[int, Order]:
    """The least cost of contracting all factors two at a time, and the order that has it."""
    factors = [f.variables for f in total.factors]
    n = len(factors)
    if n > MOST_EXHAUSTIVE:
        return _greedy(total)
    whole = (1 << n) - 1
    best: dict[int, tuple[int, Order]] = {1 << k: (0, k) for k in range(n)}
    kept = {m: _kept(total, factors, m) for m in range(1, whole + 1)}
    for mask in range(1, whole + 1):
        if mask in best:
            continue
        low = mask & -mask
        part = (mask - 1) & mask
        while part:
            other = mask ^ part
            if part & low:  # each pair of parts once, in the order of their first factors
                cost = best[part][0] + best[other][0] + total.points(kept[part] + kept[other])
                if mask not in best or cost < best[mask][0]:
                    best[mask] = (cost, (best[part][1], best[other][1]))
            part = (part - 1) & mask
    return best[whole]


def _kept(total: Sum, factors: Sequence[tuple[int, ...]], mask: int) -> tuple[int, ...]:
    """The variables of the product of the factors in ``mask``, after what nobody else needs is summed."""
    own = [v for k, f in enumerate(factors) if mask >> k & 1 for v in f]
    if mask & (mask - 1) == 0:
        return tuple(own)
    return contraction(total, own, [f for k, f in enumerate(factors) if not mask >> k & 1])


def _greedy(total: Sum) -> tuple[int, Order]:
    left: list[tuple[tuple[int, ...], Order]] = [(f.variables, k) for k, f in enumerate(total.factors)]
    cost = 0
    while len(left) > 1:
        pairs = [(total.points(left[a][0] + left[b][0]), a, b) for a in range(len(left)) for b in range(a)]
        price, a, b = min(pairs)
        rest = [v for k, (v, _) in enumerate(left) if k not in (a, b)]
        merged = contraction(total, left[b][0] + left[a][0], rest)
        order: Order = (left[b][1], left[a][1])
        left = [item for k, item in enumerate(left) if k not in (a, b)] + [(merged, order)]
        cost += price
    return cost, left[0][1]


def multiplied(total: Sum, left: Factor, right: Factor, kept: Sequence[int]) -> Applied:
    """The formula of the product of two factors over the variables ``kept``, the others summed."""
    summed = [v for v in dict.fromkeys([*left.variables, *right.variables]) if v not in kept]
    return product_of([left, right], [*kept, *summed], len(kept), total.extents)


def product_of(factors: Sequence[Factor], variables: Sequence[int], rank: int, extents: Shape) -> Applied:
    """The formula of a product of factors over ``variables``, the first ``rank`` of which are the result's."""
    place = {v: k for k, v in enumerate(variables)}
    table = [var(place.get(v, 0)) for v in range(len(extents))]
    operands = Operands()
    reads: list[Read] = []
    builder = BodyBuilder()
    value: Scalar | None = None
    for factor in factors:
        own: list[Scalar | None] = []
        for read in factor.reads:
            reads.append(_over(read, factor.inputs, operands, table))
            own.append(builder.read(len(reads) - 1, factor.inputs[read.operand].dtype))
        indices = [builder.index(place.get(v, 0)) for v in range(len(extents))]
        term = builder.include(factor.body, own, indices)[-1]
        value = term if value is None else value * term
    assert value is not None
    sizes = tuple(extents[v] for v in variables)
    combine = "sum" if len(variables) > rank else "none"
    formula = Formula(sizes, plain(rank), sizes[:rank], tuple(reads), builder.finish(value), combine)
    return Applied(formula, tuple(operands.nodes))


def _over(read: Read, inputs: Sequence[Node], operands: Operands, table: Sequence[Affine]) -> Read:
    """A read over other variables, its operands numbered by ``operands``."""
    moved_read = substitute_read(read, table)

    def data(d: FromData) -> FromData:
        return replace(d, operand=operands.number(inputs[d.operand]))

    index = tuple(data(i) if isinstance(i, FromData) else i for i in moved_read.index)
    guards = tuple(replace(g, data=data(g.data)) if g.data else g for g in moved_read.guards)
    return Read(operands.number(inputs[read.operand]), index, guards)


def split_product(work: Work, made: Applied) -> Applied | None:
    """More than two factors are multiplied two at a time in the cheapest order, where that costs less than all at once.
    """
    total = parted(made)
    if total is None or len(total.factors) < 3:
        return None
    cost, order = cheapest(total)
    every = [v for f in total.factors for v in f.variables]
    if cost >= total.points(every) * (len(total.factors) - 1) or isinstance(order, int):
        return None
    left, right = (_contracted(work, total, part) for part in order)
    wanted = [v for v in range(total.rank, len(total.extents)) if v in left.variables or v in right.variables]
    return product_of([left, right], [*range(total.rank), *wanted], total.rank, total.extents)


def _contracted(work: Work, total: Sum, order: Order) -> Factor:
    """The factor that a part of an order of contractions gives, each of them a node."""
    stack: list[tuple[Order, bool]] = [(order, False)]
    done: list[Factor] = []
    while stack:
        part, ready = stack.pop()
        if isinstance(part, int):
            done.append(total.factors[part])
        elif not ready:
            stack += [(part, True), (part[1], False), (part[0], False)]
        else:
            right, left = done.pop(), done.pop()
            inside = _leaves(part)
            rest = [f.variables for k, f in enumerate(total.factors) if k not in inside]
            kept = contraction(total, left.variables + right.variables, rest)
            node = work.part(multiplied(total, left, right, kept))
            body = _one_read(node)
            done.append(Factor(body, (Read(0, tuple(var(v) for v in kept)),), (node,), kept))
    return done[0]


def _one_read(node: Node) -> Body:
    builder = BodyBuilder()
    return builder.finish(builder.read(0, node.dtype))


def _leaves(order: Order) -> tuple[int, ...]:
    found: list[int] = []
    stack = [order]
    while stack:
        part = stack.pop()
        if isinstance(part, int):
            found.append(part)
        else:
            stack += part
    return tuple(found)


def reordered_chain(work: Work, made: Applied) -> Applied | None:
    """A product that reads another product which nobody else needs is taken in the order that costs least."""
    total = parted(made)
    if total is None or len(total.factors) != 2:
        return None
    for k, factor in enumerate(total.factors):
        number = factor.body.is_read()
        node = factor.inputs[factor.reads[0].operand] if number is not None else None
        inner = parted(Applied(node.formula, node.inputs)) if node is not None and node.kind == "formula" else None
        if node is None or inner is None or len(inner.factors) != 2 or not work.is_single(node):
            continue
        read = factor.reads[0]
        at = [i.variable() for i in read.index if isinstance(i, Affine)]
        variables = [v for v in at if v is not None]
        if read.guards or len(dict.fromkeys(variables)) < len(read.index):
            continue
        flat = _flattened(total, k, inner, variables)
        now = total.points(range(len(total.extents))) + inner.points(range(len(inner.extents)))
        if cheapest(flat)[0] < now:
            return product_of(flat.factors, range(len(flat.extents)), flat.rank, flat.extents)
    return None


def _flattened(total: Sum, number: int, inner: Sum, variables: Sequence[int]) -> Sum:
    """The sum with factor ``number`` replaced by its own factors; ``variables``: where its result is read."""
    n = len(total.extents)
    place = [*variables, *range(n, n + len(inner.extents) - inner.rank)]
    table = [var(v) for v in place]
    factors: list[Factor] = []
    for k, factor in enumerate(total.factors):
        if k != number:
            factors.append(factor)
            continue
        for f in inner.factors:
            builder = BodyBuilder()
            body = builder.finish(builder.include(f.body, (), [builder.index(v) for v in place])[-1])
            reads = tuple(substitute_read(r, table) for r in f.reads)
            factors.append(Factor(body, reads, f.inputs, tuple(sorted(place[v] for v in f.variables))))
    return Sum(total.extents + inner.extents[inner.rank :], total.rank, tuple(factors))


def factor_to_node(work: Work, made: Applied) -> Applied | None:
    """A factor of a matrix product that is more than a read becomes a node: the product is then one of two tensors."""
    total = parted(made)
    if total is None or len(total.factors) != 2 or all(f.body.is_read() is not None for f in total.factors):
        return None
    left, right = total.factors
    shared = [v for v in left.variables if v in right.variables and v >= total.rank]
    ours = [v for v in left.variables if v < total.rank and v not in right.variables]
    theirs = [v for v in right.variables if v < total.rank and v not in left.variables]
    if not shared or not ours or not theirs:
        return None
    factors = []
    for f in total.factors:
        if f.body.is_read() is None:
            node = work.part(product_of([f], f.variables, len(f.variables), total.extents))
            f = Factor(_one_read(node), (Read(0, tuple(var(v) for v in f.variables)),), (node,), f.variables)
        factors.append(f)
    return product_of(factors, range(len(total.extents)), total.rank, total.extents)


PRODUCT_RULES = (
    TensorRule("product-chain", "rounding", reordered_chain, own=SUM),
    TensorRule("split-product", "rounding", split_product, own=SUM),
    TensorRule("factor-to-node", "exact", factor_to_node, own=SUM),
)
