"""Initialisers: how a parameter's first values are drawn.

Each is a function of shape and generator. The generator of a parameter is seeded by the seed and the parameter's name,
so what one draws does not depend on which others exist.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphc.dsl.handle import Handle, Initialiser
from graphc.errors import DefinitionError, ShapeError
from graphc.graph.sizes import Size

Array = NDArray[np.generic]
Variance = Callable[[int, int], float]
Drawing = Callable[[float, tuple[int, ...], np.random.Generator], Array]


def zeros() -> Initialiser:
    """All 0."""
    return constant(0.0)


def ones() -> Initialiser:
    """All 1."""
    return constant(1.0)


def constant(value: ArrayLike) -> Initialiser:
    """One value, or an array that broadcasts to the parameter's shape.

    >>> constant(0.5)((2,), np.random.default_rng(0))
    array([0.5, 0.5])
    """
    array = np.asarray(value)
    return lambda shape, rng: np.broadcast_to(array, shape)


def uniform(low: float = -0.05, high: float = 0.05) -> Initialiser:
    """Uniform between two bounds."""
    return lambda shape, rng: rng.uniform(low, high, shape)


def normal(mean: float = 0.0, std: float = 0.05) -> Initialiser:
    """Normal with the given mean and standard deviation."""
    return lambda shape, rng: mean + std * rng.standard_normal(shape)


def truncated_normal(mean: float = 0.0, std: float = 0.05) -> Initialiser:
    """Normal, drawn again where further than two standard deviations from the mean."""

    def draw(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        values = np.asarray(rng.standard_normal(shape))
        while (far := np.abs(values) > 2).any():
            values[far] = rng.standard_normal(int(far.sum()))
        return mean + std * values

    return draw


def glorot_uniform() -> Initialiser:
    """Uniform with variance 2 / (inputs + outputs).

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010,
    equation 16.
    """
    return _scaled(lambda fan_in, fan_out: 2 / (fan_in + fan_out), _uniform)


def glorot_normal() -> Initialiser:
    """Normal with variance 2 / (inputs + outputs); source as ``glorot_uniform``."""
    return _scaled(lambda fan_in, fan_out: 2 / (fan_in + fan_out), _normal)


def he_normal() -> Initialiser:
    """Normal with variance 2 / inputs.

    Source: He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", 2015, equation 10.
    """
    return _scaled(lambda fan_in, fan_out: 2 / fan_in, _normal)


def he_uniform() -> Initialiser:
    """Uniform with variance 2 / inputs; source as ``he_normal``."""
    return _scaled(lambda fan_in, fan_out: 2 / fan_in, _uniform)


def lecun_normal() -> Initialiser:
    """Normal with variance 1 / inputs.

    Source: LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, equation 16.
    """
    return _scaled(lambda fan_in, fan_out: 1 / fan_in, _normal)


def orthogonal(gain: float = 1.0) -> Initialiser:
    """A matrix with orthonormal rows or columns (axes behind the first are taken as one), times ``gain``.

    Source: Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", 2013, section 3.
    """

    def draw(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if len(shape) < 2:
            raise ShapeError(f"orthogonal: shape {shape} given; needs at least two axes")
        rows, columns = shape[0], math.prod(shape[1:])
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))
        return gain * (q if rows >= columns else q.T).reshape(shape)

    return draw


def initial(parameter: Handle, name: str, seed: int) -> Array:
    """The first values of a parameter or state called ``name``.

    Raises: DefinitionError where the initialiser gives another shape; ShapeError for a shape
    with run-time sizes.
    """
    sizes: list[int] = []
    for size in parameter.shape:
        if isinstance(size, Size):
            raise ShapeError(f"{parameter.kind} {name!r}: size {size} given; needs sizes known at declaration")
        sizes.append(size)
    shape = tuple(sizes)
    draw = parameter.leaf.init or zeros()
    values = np.asarray(draw(shape, generator(seed, name)))
    if values.shape != shape:
        raise DefinitionError(f"{parameter.kind} {name!r}: its initialiser gives shape {values.shape}; needs {shape}")
    return values.astype(parameter.dtype.numpy)


def generator(seed: int, name: str) -> np.random.Generator:
    """The generator of a parameter: the seed and the name decide it, in every process alike.

    >>> bool(generator(0, "w").integers(100) == generator(0, "w").integers(100))
    True
    """
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype="<u4")
    return np.random.default_rng([seed, *words.tolist()])


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of a weight: the last two axes, the axes before them counting as a window.

    >>> fans((784, 128)), fans((10,))
    ((784, 128), (10, 10))
    """
    if len(shape) < 2:
        size = shape[0] if shape else 1
        return size, size
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


def _uniform(variance: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    bound = math.sqrt(3 * variance)
    return np.asarray(rng.uniform(-bound, bound, shape))


def _normal(variance: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return np.asarray(math.sqrt(variance) * rng.standard_normal(shape))


def _scaled(variance: Variance, draw: Drawing) -> Initialiser:
    return lambda shape, rng: draw(variance(*fans(shape)), shape, rng)
