"""graphc: a symbolic computational-graph compiler.

Declare tensors and what follows from them, read the derivatives, compile forward, backward and update into one native
function, and train it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from graphc.compiler import compile
from graphc.diff.derivatives import (
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    vjp,
)
from graphc.dsl import init, nn, optim
from graphc.dsl.composite import (
    bce_with_logits,
    cosine_similarity,
    cross_entropy,
    hinge,
    huber,
    kl_div,
    log_softmax,
    mae,
    mean,
    mse,
    nll,
    norm,
    repeat,
    softmax,
    stack,
    std,
    tile,
    var,
)
from graphc.dsl.declare import (
    const,
    dim,
    elementwise,
    formula,
    hyper,
    input,
    param,
    state,
    step_count,
    stop_gradient,
    training,
    with_updates,
)
from graphc.dsl.functions import (
    abs,
    acos,
    acosh,
    add,
    all,
    any,
    argmax,
    argmin,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    broadcast_to,
    cast,
    ceil,
    clip,
    concat,
    cos,
    cosh,
    cumsum,
    diag,
    divide,
    einsum,
    elu,
    embedding,
    equal,
    erf,
    exp,
    exp2,
    expand_dims,
    expm1,
    flip,
    floor,
    floor_divide,
    gather,
    gelu,
    greater,
    greater_equal,
    hardtanh,
    hypot,
    index_add,
    isfinite,
    isinf,
    isnan,
    leaky_relu,
    less,
    less_equal,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    logsumexp,
    matmul,
    max,
    maximum,
    min,
    minimum,
    multiply,
    negative,
    not_equal,
    one_hot,
    outer,
    pad,
    permute_dims,
    positive,
    pow,
    prod,
    reciprocal,
    relu,
    remainder,
    reshape,
    roll,
    round,
    rsqrt,
    scatter_add,
    selu,
    sigmoid,
    sign,
    silu,
    sin,
    sinh,
    softplus,
    softsign,
    split,
    sqrt,
    square,
    squeeze,
    subtract,
    sum,
    take,
    tan,
    tanh,
    tensordot,
    trace,
    transpose,
    trunc,
    where,
)
from graphc.dsl.show import latex_of as latex
from graphc.dsl.show import mathml_of as mathml
from graphc.dsl.tensor import Tensor
from graphc.errors import (
    DefinitionError,
    DTypeError,
    ExportError,
    FileAccessError,
    FileFormatError,
    GraphcError,
    IndexRangeError,
    InputError,
    InternalError,
    NonFiniteError,
    NotDifferentiable,
    ShapeError,
    UnknownNameError,
    UsageError,
)
from graphc.graph.dtypes import boolean, float32, float64, int32, int64
from graphc.graph.sizes import Size
from graphc.graph.sym import sym
from graphc.runtime.step import Function, TrainStep

if TYPE_CHECKING:
    from graphc.inspect.draw import curves
    from graphc.study import draw, explain

_LAZY = {"curves": "graphc.inspect.draw", "draw": "graphc.study", "explain": "graphc.study"}

__version__ = "0.1.0"

__all__ = [
    "const", "dim", "elementwise", "formula", "hyper", "input", "param", "state", "step_count",
    "stop_gradient", "training", "with_updates", "init", "nn", "optim", "sym",
    "Tensor", "boolean", "float32", "float64", "int32", "int64",
    "abs", "acos", "acosh", "add", "all", "any", "argmax", "argmin", "asin", "asinh", "atan", "atan2",
    "atanh", "broadcast_to", "cast", "ceil", "clip", "concat", "cos", "cosh", "cumsum", "diag", "divide",
    "einsum", "elu", "embedding", "equal", "erf", "exp", "exp2", "expand_dims", "expm1", "flip", "floor",
    "floor_divide", "gather", "gelu", "greater", "greater_equal", "hardtanh", "hypot", "index_add",
    "isfinite", "isinf", "isnan", "leaky_relu", "less", "less_equal", "log", "log10", "log1p", "log2",
    "logaddexp", "logical_and", "logical_not", "logical_or", "logical_xor", "logsumexp", "matmul", "max",
    "maximum", "min", "minimum", "multiply", "negative", "not_equal", "one_hot", "outer", "pad",
    "permute_dims", "positive", "pow", "prod", "reciprocal", "relu", "remainder", "reshape", "roll", "round",
    "rsqrt", "scatter_add", "selu", "sigmoid", "sign", "silu", "sin", "sinh", "softplus", "softsign", "split",
    "sqrt", "square", "squeeze", "subtract", "sum", "take", "tan", "tanh", "tensordot", "trace", "transpose",
    "trunc", "where", "bce_with_logits", "cosine_similarity", "cross_entropy", "hinge", "huber", "kl_div",
    "log_softmax", "mae", "mean", "mse", "nll", "norm", "repeat", "softmax", "stack", "std", "tile", "var",
    "grad", "hessian", "hvp", "jacobian", "jvp", "vjp", "compile", "curves", "draw", "explain", "latex", "mathml",
    "Function", "TrainStep", "Size", "FileAccessError", "FileFormatError",
    "DefinitionError", "DTypeError", "ExportError", "GraphcError", "IndexRangeError", "InputError",
    "InternalError", "NonFiniteError", "NotDifferentiable", "ShapeError", "UnknownNameError", "UsageError",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """What is for looking only, imported when first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    found: object = getattr(import_module(_LAZY[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
