"""Derivatives as a user asks for them: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

from graphc.diff.forward import forward
from graphc.diff.reverse import Backward, backward
from graphc.dsl.intern import Interned, intern, to_tensors
from graphc.dsl.tensor import Tensor, fail
from graphc.errors import NotDifferentiable, ShapeError, UsageError
from graphc.graph.dtypes import DTYPES
from graphc.graph.formula import Formula, Shape, plain
from graphc.graph.graph import Graph, Node
from graphc.graph.scalar import BodyBuilder
from graphc.notation.expressions import has_name
from graphc.ops.record import text
from graphc.rewrite.phases import BEFORE_DERIVATIVES, PHASES, run


@overload
def grad(loss: Tensor, wrt: Tensor, *, unused: str = "raise") -> Tensor: ...
@overload
def grad(loss: Tensor, wrt: Sequence[Tensor], *, unused: str = "raise") -> list[Tensor]: ...
def grad(loss: Tensor, wrt: Tensor | Sequence[Tensor], *, unused: str = "raise") -> Tensor | list[Tensor]:
    """The derivative of a scalar by a tensor, or by each of several: tensors like any other, of the shapes of ``wrt``.

    wrt: floating tensors, parameters or any expression that the loss was interned from (that very handle).
    unused: what to do where the loss does not depend on one: ``raise``, or ``zero`` for zeros.

    Raises: NotDifferentiable for a loss that is no floating scalar, a ``wrt`` that is not floating or not used.

    >>> import graphc as gc
    >>> x = gc.input("x", (3,))
    >>> gc.grad(gc.sum(x * x), x).eval(x=[1.0, 2.0, 3.0])
    array([2., 4., 6.], dtype=float32)
    """
    wanted = _list("grad", wrt)
    _check_float("grad", loss)
    _check_scalar("grad", loss)
    found = vjp_of("grad", [loss], wanted, None, unused)
    return found[0] if isinstance(wrt, Tensor) else found


def vjp(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    cotangents: Tensor | Sequence[Tensor],
    *,
    unused: str = "zero",
) -> list[Tensor]:
    """The vector-Jacobian product: one cotangent an input, given one an output of its shape.

    Raises: ShapeError where a cotangent has another shape than its output; NotDifferentiable as ``grad``.
    """
    outs, given = _list("vjp", outputs), _list("vjp", cotangents)
    if len(outs) != len(given):
        fail(ShapeError(f"vjp: {len(given)} cotangents for {len(outs)} outputs given; needs one each"))
    for out, ct in zip(outs, given, strict=True):
        _same_shape("vjp", "cotangent", out, ct)
    return vjp_of("vjp", outs, _list("vjp", inputs), given, unused)


def jvp(
    outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor], tangents: Tensor | Sequence[Tensor]
) -> list[Tensor]:
    """The Jacobian-vector product: one tangent an output, given one an input of its shape.

    Raises: ShapeError where a tangent has another shape than its input; NotDifferentiable for what is not floating.
    """
    outs, wanted, given = _list("jvp", outputs), _list("jvp", inputs), _list("jvp", tangents)
    if len(wanted) != len(given):
        fail(ShapeError(f"jvp: {len(given)} tangents for {len(wanted)} inputs given; needs one each"))
    for tensor, tangent in zip(wanted, given, strict=True):
        _same_shape("jvp", "tangent", tensor, tangent)
        _check_float("jvp", tensor)
    interned = _stable(outs + given, wanted)
    graph = interned.graph
    starts = {interned.node[x]: interned.node[t] for x, t in zip(wanted, given, strict=True)}
    moved = forward(graph, [interned.node[o] for o in outs], starts)
    nodes = [
        zeros(graph, o.dtype.name, interned.node[o].shape) if m is None else m for o, m in zip(outs, moved, strict=True)
    ]
    return _finished(interned, nodes)


def hvp(loss: Tensor, wrt: Tensor, vector: Tensor) -> Tensor:
    """The Hessian of a scalar times a vector of the shape of ``wrt``: forward mode over reverse mode."""
    for tensor in _list("hvp", [loss, wrt, vector]):
        _check_float("hvp", tensor)
    _check_scalar("hvp", loss)
    _same_shape("hvp", "vector", wrt, vector)
    return jvp(grad(loss, wrt), wrt, vector)[0]


def jacobian(output: Tensor, wrt: Tensor) -> Tensor:
    """All derivatives of ``output`` by ``wrt``; shape: that of the output followed by that of ``wrt``."""
    _check_float("jacobian", output)
    _check_float("jacobian", wrt)
    interned = _stable([output], [wrt])
    graph, node = interned.graph, interned.node[output]
    seed = _identity(graph, node)
    found = backward(graph, {node: seed}, [interned.node[wrt]], lead=node.shape).cotangents[0]
    if found is None:
        fail(_unused("jacobian", wrt))
    return _finished(interned, [found])[0]


def hessian(loss: Tensor, wrt: Tensor) -> Tensor:
    """All second derivatives of a scalar; shape: that of ``wrt`` twice."""
    for tensor in _list("hessian", [loss, wrt]):
        _check_float("hessian", tensor)
    _check_scalar("hessian", loss)
    return jacobian(grad(loss, wrt), wrt)


def vjp_of(
    what: str, outputs: list[Tensor], wanted: list[Tensor], cotangents: list[Tensor] | None, unused: str
) -> list[Tensor]:
    """The cotangents of ``wanted``; those of the outputs are ones where none are given."""
    if unused not in ("raise", "zero"):
        fail(NotDifferentiable(f"{what}: unused={unused!r} given; needs 'raise' or 'zero'"))
    for tensor in [*outputs, *wanted]:
        _check_float(what, tensor)
    interned = _stable(outputs + (cotangents or []), wanted)
    found = _backward(interned, outputs, wanted, cotangents).cotangents
    nodes: list[Node] = []
    for tensor, node in zip(wanted, found, strict=True):
        if node is None and unused == "raise":
            fail(_unused(what, tensor))
        nodes.append(zeros(interned.graph, tensor.dtype.name, tensor.shape) if node is None else node)
    return _finished(interned, nodes)


def _backward(
    interned: Interned, outputs: list[Tensor], wanted: list[Tensor], cotangents: list[Tensor] | None
) -> Backward:
    graph = interned.graph
    seeds: dict[Node, Node] = {}
    for k, output in enumerate(outputs):
        node = interned.node[output]
        seeds[node] = one(graph, output.dtype.name) if cotangents is None else interned.node[cotangents[k]]
    return backward(graph, seeds, [interned.node[t] for t in wanted])


def _stable(tensors: list[Tensor], wanted: list[Tensor]) -> Interned:
    """The graph of ``tensors`` and ``wanted`` in its stable forms: the derivative of log(1 + exp(x)), written as three
    operations, would be NaN at 1000, that of a softplus is 1.
    """
    interned = intern(_outputs(tensors + wanted), wanted)
    made = run(interned.graph, BEFORE_DERIVATIVES, protect=frozenset(interned.node[t] for t in wanted))
    node = {t: new for t, old in interned.node.items() if isinstance(new := made.replaced.get(old), Node)}
    return Interned(made.graph, node, interned.leaves, interned.unread)


def one(graph: Graph, dtype: str) -> Node:
    """A scalar 1, the seed of a loss."""
    return graph.const(np.ones((), dtype))


def zeros(graph: Graph, dtype: str, shape: Shape) -> Node:
    """Zeros of a shape."""
    builder = BodyBuilder()
    body = builder.finish(builder.const(0.0, DTYPES[dtype]))
    return graph.formula(Formula(shape, plain(len(shape)), shape, (), body), ())


def _identity(graph: Graph, node: Node) -> Node:
    """1 where the index of the row is that of the element: ``out[i.., i..] = 1``."""
    builder = BodyBuilder()
    body = builder.finish(builder.const(1.0, node.dtype))
    index = plain(len(node.shape))
    return graph.formula(Formula(node.shape, index + index, node.shape * 2, (), body, "sum"), ())


def _finished(interned: Interned, nodes: list[Node]) -> list[Tensor]:
    """The nodes as tensors, simplified by rules that keep every bit; what the user named stays what it is."""
    graph = interned.graph
    graph.outputs = {f"{k}": node for k, node in enumerate(nodes)}
    graph.updates = {}
    handles = {node: handle for handle, node in interned.node.items()}
    named = frozenset(node for node in graph.live() if has_name(graph, node))
    made = run(graph, PHASES, fast_math=False, protect=named)
    known: dict[Node, Tensor] = {}
    for old, new in made.replaced.items():
        if old in handles and isinstance(new, Node):
            known.setdefault(new, handles[old])
    results = to_tensors(made.graph, [made.graph.outputs[f"{k}"] for k in range(len(nodes))], known)
    over = (*interned.leaves.values(), *interned.unread.values())
    return [_of_all(tensor, over, known.values()) for tensor in results]


def _of_all(tensor: Tensor, over: tuple[Tensor, ...], declared: Iterable[Tensor]) -> Tensor:
    """A derivative that takes values for all that its function reads, those included that it does not read itself."""
    if any(tensor is other for other in declared):
        if all(leaf is tensor for leaf in over):
            return tensor
        tensor = Tensor("updates", (tensor,), None, tensor.dtype, tensor.shape, tensor.op, label=tensor.name)
    tensor.over = over
    return tensor


def _outputs(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {f"{k}": tensor for k, tensor in enumerate(tensors)}


def _list(what: str, value: Tensor | Sequence[Tensor]) -> list[Tensor]:
    given: Sequence[object] = value if isinstance(value, (list, tuple)) else [value]
    found: list[Tensor] = []
    for tensor in given:
        if not isinstance(tensor, Tensor):
            fail(UsageError(f"{what}: {type(tensor).__name__} given; needs tensors"))
        found.append(tensor)
    return found


def _check_float(what: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        fail(UsageError(f"{what}: {type(tensor).__name__} given; needs tensors"))
    if tensor.dtype.kind != "f":
        fail(NotDifferentiable(f"{what}: a tensor of {tensor.dtype} given; only floats carry derivatives"))


def _check_scalar(what: str, loss: Tensor) -> None:
    if loss.shape != ():
        rule = "needs a scalar: reduce it with gc.mean or gc.sum"
        fail(NotDifferentiable(f"{what}: a loss of shape {_shape(loss)} given; {rule}"))


def _same_shape(what: str, role: str, tensor: Tensor, given: Tensor) -> None:
    if tensor.shape != given.shape:
        fail(ShapeError(f"{what}: a {role} of shape {_shape(given)} given; needs {_shape(tensor)}"))


def _unused(what: str, tensor: Tensor) -> NotDifferentiable:
    name = tensor.name or "the tensor given"
    return NotDifferentiable(f"{what}: the result does not depend on {name}; unused='zero' gives zeros")


def _shape(tensor: Tensor) -> str:
    return text(tensor.shape)
