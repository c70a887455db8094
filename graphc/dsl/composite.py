"""The composite operations (``ops/composite.py``) as functions of tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec

import numpy as np

from graphc.dsl import functions
from graphc.dsl.handle import located
from graphc.dsl.tensor import Tensor, as_tensor
from graphc.errors import GraphcError
from graphc.ops import composite as made
from graphc.ops import losses
from graphc.ops.composite import Ops

P = ParamSpec("P")


def _of_tensors(expand: Callable[Concatenate[Ops[Tensor], P], Tensor]) -> Callable[P, Tensor]:
    """The operation over ``functions``. Arrays among its operands become constants; its result carries its name."""

    def operation(*operands: P.args, **attrs: P.kwargs) -> Tensor:
        try:
            tensors = [as_tensor(o) if isinstance(o, (np.ndarray, np.generic)) else o for o in operands]
            result = expand(functions, *tensors, **attrs)  # type: ignore[arg-type]
        except GraphcError as error:
            raise located(error) from None
        if all(result is not o for o in operands):
            result.op = expand.__name__
        return result

    signature = inspect.signature(expand)
    operation.__name__ = operation.__qualname__ = expand.__name__
    operation.__doc__ = expand.__doc__
    operation.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return operation


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
