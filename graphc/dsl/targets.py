"""What ``gc.compile`` is asked for, checked before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphc.dsl.tensor import Tensor
from graphc.errors import DefinitionError, DTypeError, NotDifferentiable, ShapeError, UsageError
from graphc.ops.record import text

Optimizer = Callable[[list[Tensor], list[Tensor]], Mapping[Tensor, Tensor]]
Target = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


def outputs_of(what: str, target: object) -> tuple[dict[str, Tensor], str]:
    """The tensors to compute by name, and how they are given back: "tensor", "list" or "dict".

    Raises: UsageError for anything but a tensor, or a list or dict of at least one.
    """
    if isinstance(target, Tensor):
        return {"output": target}, "tensor"
    if isinstance(target, Mapping):
        found, kind = tensors(what, target), "dict"
    elif isinstance(target, (list, tuple)):
        found, kind = tensors(what, {f"output {k}": tensor for k, tensor in enumerate(target)}), "list"
    else:
        raise UsageError(f"{what}: {type(target).__name__} given; needs a tensor, a list or a dict of tensors")
    if not found:
        raise UsageError(f"{what}: nothing to compute given; needs at least one tensor")
    return found, kind


def tensors(what: str, given: object) -> dict[str, Tensor]:
    """A dict of tensors by name. Raises UsageError where it is none."""
    if not isinstance(given, Mapping):
        raise UsageError(f"{what}: {type(given).__name__} given; needs a dict of tensors by name")
    for name, tensor in given.items():
        if not isinstance(name, str):
            raise UsageError(f"{what}: {name!r} given as a name; needs a text")
        if not isinstance(tensor, Tensor):
            raise UsageError(f"{what}: {type(tensor).__name__} given for {name}; needs a tensor")
    return dict(given)


def check_loss(loss: object) -> Tensor:
    """The loss. Raises UsageError or NotDifferentiable unless it is a floating scalar."""
    if not isinstance(loss, Tensor):
        raise UsageError(f"compile: {type(loss).__name__} given with an optimizer; needs one scalar loss")
    if loss.dtype.kind != "f":
        raise NotDifferentiable(f"compile: a loss of {loss.dtype} given; needs a floating scalar")
    if loss.shape != ():
        raise NotDifferentiable(
            f"compile: a loss of shape {text(loss.shape)} given; needs a scalar: reduce it with gc.mean or gc.sum"
        )
    return loss


def check_seed(seed: object) -> None:
    """Raises UsageError unless it is an integer of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"compile: seed={seed!r} given; needs an integer of at least 0")


def check_threads(threads: object) -> None:
    """Raises UsageError unless it is None or an integer of at least 1."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise UsageError(f"compile: threads={threads!r} given; needs a number of at least 1, or None")


def trained(leaves: Mapping[str, Tensor], train: Sequence[Tensor] | None) -> dict[str, Tensor]:
    """The parameters to train by name, in graph order: all of ``leaves``, or those in ``train``.

    Raises: UsageError, NotDifferentiable where ``train`` holds anything but parameters that the loss depends on.
    """
    params = {name: t for name, t in leaves.items() if t.kind == "param"}
    if not params:
        raise NotDifferentiable("compile: a loss without parameters given; needs at least one gc.param to train")
    if train is None:
        return params
    if not isinstance(train, (list, tuple)):
        raise UsageError(f"compile: train={type(train).__name__} given; needs a list of parameters")
    if not train:
        raise UsageError("compile: train=[] given; needs at least one parameter")
    for tensor in train:
        if not isinstance(tensor, Tensor) or tensor.kind != "param":
            given = tensor.name or tensor.kind if isinstance(tensor, Tensor) else type(tensor).__name__
            raise UsageError(f"compile: train= with {given} given; needs a list of parameters")
        if not any(tensor is p for p in params.values()):
            raise NotDifferentiable(f"compile: train= with {tensor.name} given, on which the loss does not depend")
    return {name: p for name, p in params.items() if any(p is wanted for wanted in train)}


def optimizer_updates(optimizer: Optimizer, params: Sequence[Tensor], grads: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """What an optimizer makes of parameters and gradients. Raises UsageError where that is no optimizer's."""
    if not callable(optimizer):
        raise UsageError(
            f"compile: {type(optimizer).__name__} given as optimizer; needs a function such as gc.optim.sgd(lr=0.1)"
        )
    made = optimizer(list(params), list(grads))
    if not isinstance(made, Mapping):
        raise UsageError(
            f"compile: the optimizer gives {type(made).__name__}; "
            "needs a dict of new values, as that of gc.optim.sgd(lr=0.1)"
        )
    return dict(made)


def check_update(target: object, value: object) -> None:
    """Raises DefinitionError, UsageError, DTypeError or ShapeError unless ``value`` can become that of ``target``."""
    if not isinstance(target, Tensor) or target.kind not in ("param", "state"):
        given = target.name or "an expression" if isinstance(target, Tensor) else type(target).__name__
        raise DefinitionError(f"compile: an update of {given} given; needs a parameter or a state")
    if not isinstance(value, Tensor):
        raise UsageError(f"compile: {type(value).__name__} given as the update of {target.name}; needs a tensor")
    if target.dtype != value.dtype:
        raise DTypeError(f"compile: {value.dtype} given as the update of {target.name}; needs {target.dtype}")
    if target.shape != value.shape:
        raise ShapeError(
            f"compile: shape {text(value.shape)} given as the update of {target.name}; needs {text(target.shape)}"
        )
