"""The composite operations (``ops/composite.py``) as functions of tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from graphc.dsl import functions
from graphc.dsl.handle import Handle, located
from graphc.dsl.tensor import Tensor, as_tensor, fail
from graphc.errors import DefinitionError, GraphcError
from graphc.graph.formula import Formula, data_indices
from graphc.ops import composite as made
from graphc.ops import losses
from graphc.ops.composite import Ops

P = ParamSpec("P")


def _of_tensors(expand: Callable[Concatenate[Ops[Tensor], P], Tensor]) -> Callable[P, Tensor]:
    """The operation over ``functions``. Numbers and arrays become constants; its result carries the name."""
    name, whole = expand.__name__, inspect.signature(expand)
    signature = whole.replace(parameters=list(whole.parameters.values())[1:])
    single = [p.name for p in signature.parameters.values() if p.annotation == "T"]
    several = [p.name for p in signature.parameters.values() if p.annotation == "Sequence[T]"]

    def operation(*operands: P.args, **attrs: P.kwargs) -> Tensor:
        try:
            bound = signature.bind(*operands, **attrs)
            for parameter, value in bound.arguments.items():
                if parameter in single:
                    bound.arguments[parameter] = as_tensor(value, None, name)
                elif parameter in several:
                    bound.arguments[parameter] = _tensors(name, value)
            result = expand(functions, *bound.args, **bound.kwargs)
        except GraphcError as error:
            raise located(error) from None
        if all(result is not o for o in operands):
            result.op = name
            _name_what_indexes(result)
        return result

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = expand.__doc__
    operation.__signature__ = signature  # type: ignore[attr-defined]
    return operation


def _name_what_indexes(result: Tensor) -> None:
    """Gives the name of a composite operation to the values inside it that read at an index from data, since their
    checks name the operation that the user wrote."""
    found: dict[Handle, None] = {}
    stack: list[Handle] = [result]
    while stack:
        handle = stack.pop()
        if handle in found or handle.code is not result.code or handle.instruction != result.instruction:
            continue
        found[handle] = None
        stack.extend(handle.operands)
        if isinstance(handle.attr, Formula) and data_indices(handle.attr):
            handle.op = result.op


def _tensors(name: str, value: object) -> list[Tensor]:
    if isinstance(value, Tensor) or not isinstance(value, (list, tuple)):
        fail(DefinitionError(f"{name}: {type(value).__name__} given; needs a list of tensors"))
    return [as_tensor(v, None, name) for v in value]


mean = _of_tensors(made.mean)
var = _of_tensors(made.var)
std = _of_tensors(made.std)
norm = _of_tensors(made.norm)
softmax = _of_tensors(made.softmax)
log_softmax = _of_tensors(made.log_softmax)
cross_entropy = _of_tensors(losses.cross_entropy)
nll = _of_tensors(losses.nll)
mse = _of_tensors(losses.mse)
mae = _of_tensors(losses.mae)
huber = _of_tensors(losses.huber)
bce_with_logits = _of_tensors(losses.bce_with_logits)
hinge = _of_tensors(losses.hinge)
kl_div = _of_tensors(losses.kl_div)
cosine_similarity = _of_tensors(made.cosine_similarity)
stack = _of_tensors(made.stack)
tile = _of_tensors(made.tile)
repeat = _of_tensors(made.repeat)
