"""Schedules: the order of a nest's loops, which variable fills vector registers, and the register tile of a product."""

from __future__ import annotations

from graphc.graph.formula import Affine, Shape
from graphc.graph.primitives import cost_of
from graphc.graph.sizes import SizeLike, product
from graphc.kernels.form import LANES, NEAR, SOURCES, Access, Code, Flat, Nest, Schedule
from graphc.structs import replace

FAR_BYTES = 1024  # lines of a right operand nearer than this lie well as they are
FEW_TILES = 3  # of rows, which do not pay for a copy of the right operand
TURNING = 4  # register operations that turn one vector of a right operand
JOINING = 45  # register operations that join a register's worth of accumulators to one vector
MOST_DOTS = 8  # rows that run as dot products, each of which reads the right operand anew
PANEL_TURNING = 11  # register operations that turn a vector, store it in a panel and wait for it there
JOIN = 3  # register operations that join two accumulators: two shuffles and an addition
MOST_WIDE_DOTS = 48  # rows that run as dot products where all accumulators stay in registers
FEW_ROWS = 4  # that many or more fill the processor in tiles of few vectors
WIDE = 8  # vectors of a tile for fewer rows, whose right operand then streams from its cache in long pieces
HELD = 28  # registers of sums, rows and what turns them
WAITING = 4  # register operations for which a sum waits for its last term
SHORT_BODY = 4  # instructions
NOMINAL = 64  # what a run-time size counts for where a schedule weighs one loop against another


def schedule(nest: Nest, is_product: bool) -> Nest:
    """The nest with mergeable loops merged and its schedule chosen. is_product: whether it is a matrix
    product."""
    tiled = _tile(nest) if is_product else None
    if tiled is not None:
        return replace(nest, schedule=tiled)
    running = _running(nest)
    if running >= 0:
        others = [v for v in range(nest.n_out) if v != running]
        found = [v for v in others if nominal(nest.extents[v]) > 1]
        best = min(found, key=lambda v: (_cost(nest, v), -v), default=-1)
        order = tuple(v for v in others if v != best) + ((best,) if best >= 0 else ())
        return replace(nest, schedule=Schedule((*order, running), best, running=running))
    nest = _merged(nest)
    order = tuple(range(nest.n_out))
    if any(
        s.add for s in nest.stores
    ):  # only the last variable may walk through registers: others may meet an element twice
        return replace(nest, schedule=Schedule(order, nest.n_out - 1 if _adds_in_vector(nest) else -1))
    candidates = [v for v in range(nest.n_out) if nominal(nest.extents[v]) > 1]
    if nest.reduced:
        candidates.append(nest.reduced[-1])
    best = min(candidates, key=lambda v: (_cost(nest, v), -v), default=-1)
    rows = _rows_variable(nest)
    if best >= nest.n_out and rows >= 0:
        return replace(nest, schedule=_in_rows(nest, rows))
    if best >= nest.n_out or best < 0:
        return replace(nest, schedule=Schedule(order, best))
    return replace(nest, schedule=Schedule(tuple(v for v in order if v != best) + (best,), best))


def _running(nest: Nest) -> int:
    """The output variable that bounds the one reduced variable by the one guard, which is all that ties them; else -1.

    So each of its points admits what an earlier one did, and perhaps more.
    """
    if nest.inner or len(nest.reduced) != 1 or len(nest.guards) != 1:
        return -1
    if any(r.combine.startswith("arg") for r in nest.reductions):
        return -1
    guard, (summed,) = nest.guards[0], nest.reduced
    terms = dict(guard.expr.terms)
    if guard.kind != "ge" or guard.data is not None or len(terms) != 2 or abs(terms.get(summed, 0)) != 1:
        return -1
    (variable,) = (v for v in terms if v != summed)
    if terms[variable] != -terms[summed]:
        return -1
    inside = {i.attr for i in nest.body.instrs if i.op == "read"}
    moved = any(a.moves_with(variable) for k, a in enumerate(nest.loads) if k in inside)
    named = any(i.op == "index" and i.attr == variable for i in nest.body.instrs)
    return -1 if moved or named else variable


def nominal(size: SizeLike) -> int:
    """A number that stands for a size where loops are weighed."""
    return size if isinstance(size, int) else NOMINAL


def _cost(nest: Nest, variable: int) -> float:
    """What one output point costs, in register operations, with ``variable`` in vector registers.

    A strided access costs what a register full of single ones does, an unmoved one next to nothing; a register that is
    not filled costs as a full one; partial results of a reduced variable are joined, and what follows them runs alone.
    """
    lanes = 16
    extent = nominal(nest.extents[variable])
    share = -(-extent // lanes) / extent  # registers for one point
    inside = {i.attr for i in nest.body.instrs if i.op == "read"}
    turns = min(nominal(product(tuple(nest.extents[v] for v in nest.reduced))), NOMINAL) if nest.reductions else 0
    each = [a for k, a in enumerate(nest.loads) if k in inside] + [s.access for s in nest.inner]
    body = len(nest.body.instrs) + sum(_access_cost(a, variable, lanes) for a in each)
    outer = [a for k, a in enumerate(nest.loads) if k not in inside] + [s.access for s in nest.stores]
    rows = _rows_variable(nest) if variable >= nest.n_out else -1
    if rows >= 0:
        after = len(nest.post.instrs) + sum(_access_cost(a, rows, lanes) for a in outer)
        return turns * share * body + (JOINING + after) / lanes
    if variable >= nest.n_out:
        return turns * share * body + 8 * len(nest.reductions) + len(nest.post.instrs) + len(outer)
    return share * (turns * body + len(nest.post.instrs) + sum(_access_cost(a, variable, lanes) for a in outer))


def _rows_variable(nest: Nest) -> int:
    """The output variable whose points may be joined a vector at once, -1 for none: there are enough of them, and what
    one adds is short enough to be written for each lane."""
    if len(nest.reductions) != 1 or nest.inner or nest.guards or nest.reductions[0].combine.startswith("arg"):
        return -1
    own = [i for i in nest.body.instrs if i.op not in SOURCES]
    if len(own) > SHORT_BODY or any(cost_of(i.op) > 1 for i in own):
        return -1
    inside = {i.attr for i in nest.body.instrs if i.op == "read"}
    each = [a for k, a in enumerate(nest.loads) if k in inside]
    if any(a.data or a.guards for a in each) or any(i.op == "index" for i in nest.body.instrs):
        return -1
    lanes = LANES[nest.reductions[0].dtype.name]
    found = [v for v in range(nest.n_out) if nominal(nest.extents[v]) >= lanes and any(a.moves_with(v) for a in each)]
    return max(found, default=-1)


def _in_rows(nest: Nest, rows: int) -> Schedule:
    others = tuple(v for v in range(nest.n_out) if v != rows)
    return Schedule((*others, rows), nest.reduced[-1], rows=rows)


def _access_cost(access: Access, variable: int, lanes: int) -> float:
    stride = access.flat.stride(variable)
    if any(d.at.stride(variable) != 0 for d in access.data) or any(
        g.data is not None and g.data[1].stride(variable) != 0 for g in access.guards
    ):
        return float(lanes)
    if stride in (1, -1):
        return 1.0
    if isinstance(stride, int) and 1 < stride <= NEAR:
        return 2.0 * stride
    return 0.25 if stride == 0 else float(lanes)


def _adds_in_vector(nest: Nest) -> bool:
    """Whether every adding store has the last variable at stride 1, outside its indices from data."""
    last = nest.n_out - 1
    return last >= 0 and all(
        s.access.flat.stride(last) == 1 and not any(d.at.stride(last) != 0 for d in s.access.data)
        for s in nest.stores
        if s.add
    )


def _tile(nest: Nest) -> Schedule | None:
    """A register tile of at most 24 accumulators: an own axis of one operand (the right one) in vectors, one of the
    other's in rows. None where neither operand lies side by side along its own last axis or the summed index.
    """
    first, second = nest.loads[:2]
    lanes = LANES[nest.reductions[0].dtype.name]
    found: list[tuple[float, Schedule]] = []
    for left, right in ((first, second), (second, first)):
        columns = [v for v in range(nest.n_out) if right.moves_with(v) and not left.moves_with(v)]
        rows = [v for v in range(nest.n_out) if left.moves_with(v) and not right.moves_with(v)]
        column, row = columns[-1], max(rows, key=lambda v: (nominal(nest.extents[v]), v))
        turned = right.flat.stride(column) != 1
        if turned and (len(nest.reduced) != 1 or right.flat.stride(nest.n_out) != 1):
            continue
        tiled = _tiled(nest, left, right, column, row, turned)
        few = tiled.dots and pays_as_dots(nest.extents[row], nest.extents[nest.n_out], lanes)
        found.append((0 if few else _tile_cost(nest, left, right, column, row), tiled))
    return min(found, key=lambda f: (f[0], -f[1].vector))[1] if found else None


def _tile_cost(nest: Nest, left: Access, right: Access, column: int, row: int) -> float:
    """Register operations of one block of a product: its sums, the turning of the right operand, what follows."""
    lanes = LANES[nest.reductions[0].dtype.name]
    depth = nominal(product(tuple(nest.extents[v] for v in nest.reduced)))
    vectors, rows = -(-nominal(nest.extents[column]) // lanes), nominal(nest.extents[row])
    upright = _upright_cost(nest, left, right, column, row)
    if upright:
        return (depth * upright + vectors * lanes * TURNING) * -(-rows // lanes)
    turned = right.flat.stride(column) != 1
    if not isinstance(nest.extents[column], int):
        vectors += 1  # it may be small, and then most lanes would be empty
    outside = [a for a in nest.loads[2:] if a.moves_with(column)] + [s.access for s in nest.stores]
    after = sum(1 if a.flat.stride(column) in (0, 1) else 2 * lanes for a in outside)
    return depth * vectors * (rows + (TURNING if turned else 0)) + vectors * rows * after


def _tiled(nest: Nest, left: Access, right: Access, column: int, row: int, turned: bool) -> Schedule:
    n, m = nest.extents[column], nest.extents[row]
    lanes = LANES[nest.reductions[0].dtype.name]
    vectors = -(-n // lanes) if isinstance(n, int) else 3
    others = tuple(v for v in range(nest.n_out) if v not in (column, row))
    across = vectors if vectors <= 3 else 2 if vectors % 3 and vectors % 2 == 0 and vectors <= 32 else 3
    if isinstance(m, int) and m < FEW_ROWS:
        across = min(vectors, WIDE)
    down = _rows(m, 8 if across > 1 else 12)
    width = across * lanes
    panel: SizeLike = nest.extents[nest.n_out] * width if turned or _is_far(nest, right, down, m) else 0
    dots = _most_dots(nest, left) if turned else 0
    if isinstance(m, int):
        dots, panel = (dots, 0) if m <= dots else (0, panel)
    upright = panel == 0 and _upright_cost(nest, left, right, column, row) > 0
    return Schedule(others + (column, row), column, (down, across), row, panel, dots, upright)


def _upright_cost(nest: Nest, left: Access, right: Access, column: int, row: int) -> int:
    """Register operations of one term of the sums of as many rows as a register has lanes, with the rows in lanes; 0
    where that does not save any, or where the registers do not hold it."""
    n, m = nest.extents[column], nest.extents[row]
    lanes = LANES[nest.reductions[0].dtype.name]
    if not isinstance(n, int) or len(nest.reduced) != 1 or right.flat.stride(column) != 1:
        return 0
    if isinstance(m, int) and m < lanes:
        return 0
    depth, part = nest.extents[nest.n_out], lanes // 4
    if left.flat.stride(row) == 1:
        turning, held = 0, n + 2
    elif left.flat.stride(nest.n_out) == 1 and isinstance(depth, int) and depth >= part:
        turning, held = TURNING, n + 2 * part + 2
    else:
        return 0
    return max(n, WAITING) + turning if held <= HELD and n + turning < -(-n // lanes) * lanes else 0


def _most_dots(nest: Nest, left: Access) -> int:
    """The most rows whose dot products cost less than turning the right operand, if both lie along the sum."""
    return most_dots(nest.extents[nest.n_out]) if left.flat.stride(nest.n_out) == 1 else 0


def most_dots(depth: SizeLike) -> int:
    """The most rows for which dot products of that many terms cost less than turning the other operand."""
    return min(MOST_DOTS, TURNING * nominal(depth) // JOINING)


def most_wide_dots(depth: SizeLike, lanes: int) -> int:
    """The same where a register holds a vector of so many lanes, so that all accumulators stay in registers."""
    empty = -nominal(depth) % lanes  # of the last vector, which costs a masked load and a multiply-add all the same
    return min(MOST_WIDE_DOTS, PANEL_TURNING * nominal(depth) // (JOIN * (lanes - 1) + 2 * empty))


def pays_as_dots(few: SizeLike, depth: SizeLike, lanes: int) -> bool:
    """Whether a product of a few columns by many rows, where both lie along the sum, costs less as dot products than as
    tiles that hold the few columns in a vector."""
    if not isinstance(few, int) or few > most_dots(depth):
        return False
    return (nominal(depth) + JOINING) * few * (NOMINAL // lanes + 1) <= nominal(depth) * NOMINAL


def _is_far(nest: Nest, right: Access, down: int, rows: SizeLike) -> bool:
    """Whether lines of the right operand lie so far apart that they share few cache sets, each in its own page, and
    enough tiles use them to pay for a copy.
    """
    if len(nest.reduced) != 1:
        return False
    depth, step = nest.extents[nest.n_out], right.flat.stride(nest.n_out)
    size_bytes = 4 if LANES[nest.reductions[0].dtype.name] == 16 else 8
    far = not isinstance(step, int) or step * size_bytes >= FAR_BYTES
    many = not isinstance(rows, int) or rows >= FEW_TILES * down
    return far and many and (not isinstance(depth, int) or depth >= 16)


def _rows(extent: SizeLike, most: int) -> int:
    """Rows of a tile: a divisor of a static extent where a large one exists."""
    if not isinstance(extent, int):
        return 8
    if extent <= most:
        return extent
    return next((r for r in range(most, most // 2, -1) if extent % r == 0), min(8, most))


def _merged(nest: Nest) -> Nest:
    """The nest with neighbouring output variables merged where every access walks over both as over one."""
    variable = nest.n_out - 2
    while variable >= 0:
        if _mergeable(nest, variable):
            nest = _merge(nest, variable)
        variable -= 1
    return nest


def _mergeable(nest: Nest, first: int) -> bool:
    inner = first + 1
    named = {i.attr for code in (nest.body, nest.post) for i in code.instrs if i.op == "index"}
    if first in named or inner in named or nest.guards:
        return False
    for access in (*nest.loads, *(s.access for s in (*nest.inner, *nest.stores))):
        if access.guards or access.data:
            if any(access.moves_with(v) for v in (first, inner)):
                return False
            continue
        if access.flat.stride(first) != access.flat.stride(inner) * nest.extents[inner]:
            return False
    return True


def _merge(nest: Nest, first: int) -> Nest:
    def moved(variable: int) -> int:
        return variable if variable <= first else variable - 1

    def flat(f: Flat) -> Flat:
        return Flat(f.const, tuple((moved(v), s) for v, s in f.terms if v != first))

    def access(a: Access) -> Access:
        return replace(
            a,
            flat=flat(a.flat),
            data=tuple(replace(d, at=flat(d.at)) for d in a.data),
            guards=tuple(
                replace(
                    g,
                    expr=Affine(g.expr.const, tuple((moved(v), c) for v, c in g.expr.terms)),
                    data=None if g.data is None else (g.data[0], flat(g.data[1])),
                )
                for g in a.guards
            ),
        )

    def code(c: Code) -> Code:
        instrs = (
            replace(i, attr=moved(i.attr)) if i.op == "index" and isinstance(i.attr, int) else i for i in c.instrs
        )
        return replace(c, instrs=tuple(instrs))

    extents: Shape = nest.extents[:first] + (nest.extents[first] * nest.extents[first + 1],) + nest.extents[first + 2 :]
    return replace(
        nest,
        extents=extents,
        n_out=nest.n_out - 1,
        loads=tuple(access(a) for a in nest.loads),
        stores=tuple(replace(s, access=access(s.access)) for s in nest.stores),
        inner=tuple(replace(s, access=access(s.access)) for s in nest.inner),
        body=code(nest.body),
        post=code(nest.post),
    )
