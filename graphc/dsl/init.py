"""Initial values of parameters, as ``gc.init``: each function gives an initialiser, a function of a shape and a generator.

Values are drawn by NumPy generators seeded by the step's seed and the parameter's name, so they do not depend on the order
or number of other parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphc.dsl.handle import Handle
from graphc.errors import DefinitionError, ShapeError

Array = NDArray[np.float64]
Draw = Callable[[tuple[int, ...], np.random.Generator], Array]


@dataclass(frozen=True, slots=True)
class Init:
    """An initialiser: its name with arguments, as printed, and how it draws float64 values of a shape."""

    name: str
    draw: Draw

    def __repr__(self) -> str:
        return f"gc.init.{self.name}"

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Values of a shape.

        >>> zeros()((2,), generator(0, "b"))
        array([0., 0.])
        """
        return self.draw(shape, rng)


def generator(seed: int, name: str) -> np.random.Generator:
    """A generator that depends on a seed and a name alone."""
    digest = hashlib.sha256(f"{seed}\n{name}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def zeros() -> Init:
    """All 0."""
    return Init("zeros()", lambda shape, rng: np.zeros(shape))


def ones() -> Init:
    """All 1."""
    return Init("ones()", lambda shape, rng: np.ones(shape))


def constant(value: float) -> Init:
    """All ``value``, a number or an array of the parameter's shape."""
    return Init(f"constant({value!r})", lambda shape, rng: np.broadcast_to(np.asarray(value, dtype=np.float64), shape).copy())


def uniform(low: float = -0.05, high: float = 0.05) -> Init:
    """Uniform in [low, high). Raises DefinitionError where low > high."""
    if low > high:
        raise DefinitionError(f"init.uniform: low {low}, high {high} given; needs low <= high")
    return Init(f"uniform({low}, {high})", lambda shape, rng: rng.uniform(low, high, shape))


def normal(mean: float = 0.0, std: float = 0.05) -> Init:
    """Normal. Raises DefinitionError for a negative ``std``."""
    _positive("normal", std)
    return Init(f"normal({mean}, {std})", lambda shape, rng: rng.normal(mean, std, shape))


def truncated_normal(mean: float = 0.0, std: float = 0.05) -> Init:
    """Normal, drawn again where farther than two standard deviations from the mean."""
    _positive("truncated_normal", std)

    def draw(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        values = rng.standard_normal(shape)
        outside = np.abs(values) > 2
        while outside.any():
            values[outside] = rng.standard_normal(int(outside.sum()))
            outside = np.abs(values) > 2
        return mean + std * values

    return Init(f"truncated_normal({mean}, {std})", draw)


def glorot_uniform() -> Init:
    """Uniform in ±sqrt(6 / (fan_in + fan_out)). Source: Glorot and Bengio 2010, equation 16."""
    return _uniform_by("glorot_uniform()", lambda i, o: 6 / (i + o))


def glorot_normal() -> Init:
    """Normal of variance 2 / (fan_in + fan_out). Source: Glorot and Bengio 2010, equation 12."""
    return _normal_by("glorot_normal()", lambda i, o: 2 / (i + o))


def he_uniform() -> Init:
    """Uniform in ±sqrt(6 / fan_in), for ReLU. Source: He et al. 2015, equation 10."""
    return _uniform_by("he_uniform()", lambda i, o: 6 / i)


def he_normal() -> Init:
    """Normal of variance 2 / fan_in, for ReLU. Source: He et al. 2015, equation 10."""
    return _normal_by("he_normal()", lambda i, o: 2 / i)


def lecun_normal() -> Init:
    """Normal of variance 1 / fan_in. Source: LeCun et al. 1998, section 4.6."""
    return _normal_by("lecun_normal()", lambda i, o: 1 / i)


def lecun_uniform() -> Init:
    """Uniform in ±sqrt(3 / fan_in). Source: LeCun et al. 1998, section 4.6."""
    return _uniform_by("lecun_uniform()", lambda i, o: 3 / i)


def orthogonal(gain: float = 1.0) -> Init:
    """A matrix with orthonormal rows or columns, times ``gain``; further axes are flattened into the second.

    Source: Saxe, McClelland and Ganguli 2014, section 3.
    """

    def draw(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if len(shape) < 2:
            raise DefinitionError(f"init.orthogonal: shape {shape} given; needs at least two axes")
        rows, columns = shape[0], int(np.prod(shape[1:]))
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))
        return gain * (q if rows >= columns else q.T).reshape(shape)

    return Init(f"orthogonal({gain})", draw)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """fan_in and fan_out of a weight: of a matrix (in, out) its sizes; of a kernel (out, in, ...) those times its window.

    >>> fans((64, 128)), fans((16, 3, 5, 5))
    ((64, 128), (75, 400))
    """
    if len(shape) < 2:
        size = max(int(np.prod(shape)), 1)
        return size, size
    if len(shape) == 2:
        return max(shape[0], 1), max(shape[1], 1)
    window = int(np.prod(shape[2:]))
    return shape[1] * window, shape[0] * window


def _uniform_by(name: str, square: Callable[[int, int], float]) -> Init:
    def draw(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        limit = np.sqrt(square(*fans(shape)))
        return rng.uniform(-limit, limit, shape)

    return Init(name, draw)


def _normal_by(name: str, variance: Callable[[int, int], float]) -> Init:
    return Init(name, lambda shape, rng: rng.standard_normal(shape) * np.sqrt(variance(*fans(shape))))


def _positive(name: str, std: float) -> None:
    if std < 0:
        raise DefinitionError(f"init.{name}: std {std} given; needs std >= 0")


def initial(leaf: Handle, name: str, seed: int) -> NDArray[np.generic]:
    """The first value of a parameter or state (zeros where it has no initialiser), in its type.

    Raises: ShapeError for a size known only at run time, or where the initialiser gives another shape.
    """
    if not all(isinstance(size, int) for size in leaf.shape):
        raise ShapeError(f"{leaf.kind} {name}: shape {leaf.shape} has a size known only at run time; needs numbers")
    shape = tuple(int(size) for size in leaf.shape)
    init = leaf.leaf.init
    if init is None:
        return np.zeros(shape, leaf.dtype.numpy)
    values = np.asarray(init(shape, generator(seed, name)))
    if values.shape != shape:
        raise ShapeError(f"{leaf.kind} {name}: its initialiser gives shape {values.shape}; needs {shape}")
    return values.astype(leaf.dtype.numpy)
