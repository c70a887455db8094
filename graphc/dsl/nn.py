"""Layers, as ``gc.nn``: functions of a tensor that declare their own parameters.

A layer with a name calls its parameters ``name.w`` and ``name.b``; one without is named when the graph is built, in
graph order: ``dense_1.w``, ``dense_2.w``, ….
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from graphc.dsl import functions
from graphc.dsl.composite import log_softmax, softmax
from graphc.dsl.declare import Start, layer_param
from graphc.dsl.handle import Layer, whole_call
from graphc.dsl.init import glorot_uniform, he_normal, lecun_normal
from graphc.dsl.tensor import Tensor, TensorLike, as_tensor, fail
from graphc.errors import DefinitionError, DTypeError, ShapeError
from graphc.ops.record import text

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "relu": functions.relu,
        "leaky_relu": functions.leaky_relu,
        "elu": functions.elu,
        "selu": functions.selu,
        "gelu": functions.gelu,
        "silu": functions.silu,
        "sigmoid": functions.sigmoid,
        "tanh": functions.tanh,
        "softplus": functions.softplus,
        "softsign": functions.softsign,
        "hardtanh": functions.hardtanh,
        "softmax": softmax,
        "log_softmax": log_softmax,
    }
)

# Half of what enters these is cut off or nearly so, for which the variance of He et al. makes up.
RECTIFIERS = ("relu", "leaky_relu", "elu", "gelu", "silu")


@whole_call
def dense(
    x: TensorLike,
    units: int,
    activation: str | Activation | None = None,
    name: str | None = None,
    *,
    bias: bool = True,
    init: Start = None,
) -> Tensor:
    """``activation(x @ w + b)``, with the layer's own ``w: (features, units)`` and ``b: (units,)``.

    x: (..., features) floats, ``features`` known at declaration. activation: a name such as ``relu``, a function of a
    tensor, or None. init: of ``w``; by default ``he_normal`` before a rectifier, ``lecun_normal`` before ``selu``, else
    ``glorot_uniform``. ``b`` starts at 0.

    Raises: DTypeError for an x that is not floating; ShapeError for an x without axes or with a last size known only at
    run time; DefinitionError for units below 1, an activation that does not exist or a bad name.

    >>> from graphc.dsl.declare import input
    >>> dense(input("x", (5, 3)), 4, activation="relu", name="fc1").shape
    (5, 4)
    """
    tensor = as_tensor(x)
    features = _features(tensor)
    if isinstance(units, bool) or not isinstance(units, int) or units < 1:
        fail(DefinitionError(f"nn.dense: units={units!r} given; needs an integer of at least 1"))
    function = _activation("nn.dense", activation)
    layer = _layer("dense", name)
    start = _start(function) if init is None else init
    result = tensor @ layer_param(layer, "w", (features, units), start, tensor.dtype)
    if bias:
        result = result + layer_param(layer, "b", (units,), None, tensor.dtype)
    return result if function is None else function(result)


@whole_call
def mlp(
    x: TensorLike,
    sizes: Sequence[int],
    activation: str | Activation | None = "relu",
    final: str | Activation | None = None,
    name: str | None = None,
) -> Tensor:
    """Dense layers one behind the other, ``sizes`` units each: ``activation`` between them, ``final`` after the last.

    The layers of a named one are ``name.dense_1``, ``name.dense_2``, ….

    Raises: as ``dense``; DefinitionError where no sizes are given.

    >>> from graphc.dsl.declare import input
    >>> mlp(input("x", (5, 3)), [8, 8, 2]).shape
    (5, 2)
    """
    if not isinstance(sizes, Sequence) or not sizes:
        fail(DefinitionError(f"nn.mlp: sizes={sizes!r} given; needs a list of at least one number of units"))
    result = as_tensor(x)
    for k, units in enumerate(sizes, 1):
        inner = None if name is None else f"{name}.dense_{k}"
        result = dense(result, units, activation if k < len(sizes) else final, inner)
    return result


def _features(x: Tensor) -> int:
    if x.dtype.kind != "f":
        fail(DTypeError(f"nn.dense: {x.dtype} given; needs float32 or float64 (gc.cast converts)"))
    features = x.shape[-1] if x.shape else None
    if not isinstance(features, int):
        fail(ShapeError(f"nn.dense: shape {text(x.shape)} given; needs a last axis of a size known at declaration"))
    return features


def _activation(layer: str, activation: str | Activation | None) -> Activation | None:
    if activation is None or callable(activation):
        return activation
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        names = ", ".join(ACTIVATIONS)
        fail(DefinitionError(f"{layer}: activation={activation!r} given; needs a function or one of {names}"))
    return ACTIVATIONS[activation]


def _start(activation: Activation | None) -> Start:
    if any(activation is ACTIVATIONS[name] for name in RECTIFIERS):
        return he_normal()
    return lecun_normal() if activation is ACTIVATIONS["selu"] else glorot_uniform()


def _layer(kind: str, name: str | None) -> Layer | str:
    return Layer(kind) if name is None else name
