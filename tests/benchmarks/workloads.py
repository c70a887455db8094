"""The workloads: shapes, seeded weights, seeded data, optimizer settings, counts of operations and bytes.

A ``Workload`` holds all that a peer needs; nothing here imports a framework. Weights and float data are C-contiguous
float32. A linear layer is ``y = x @ W + b`` with ``W`` of shape (in, out). Convolution weights are OIHW, images NCHW.

A name may be followed by changes: ``mlp_digits+b8`` has batches of 8, ``+f64`` is in float64, ``+prime`` has prime
numbers in place of its hidden widths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import DTypeLike, NDArray

Floats = NDArray[np.floating]
Array = NDArray[np.floating] | NDArray[np.int32]
Batch = tuple[Array, ...]

N_BATCHES = 16  # distinct batches, gone through in a circle
EPOCH_SAMPLES = 10_000  # mlp_tiny_epoch
TRANSCENDENTAL_FLOPS = 20  # charged for one exp, log or tanh
PRIMES = (61, 127, 257, 509)
VARIANTS = ("b1", "b8", "b512", "f64", "prime")  # the changes that the reference losses cover


@dataclass(frozen=True, slots=True)
class Change:
    """What the changes after a workload's name ask for."""

    batch: int | None = None
    prime: bool = False
    dtype: str = "float32"

    def rows(self, batch: int) -> int:
        """The batch size of a workload whose own is ``batch``."""
        return self.batch or batch

    def width(self, hidden: int) -> int:
        """A hidden width: itself or the nearest of PRIMES."""
        return min(PRIMES, key=lambda p: abs(p - hidden)) if self.prime else hidden

    def layers(self, *widths: int) -> tuple[int, ...]:
        """The widths of an mlp, of which the first and the last are the data's."""
        return (widths[0], *map(self.width, widths[1:-1]), widths[-1])


def changed(texts: list[str]) -> Change:
    """The change that texts like ``b8`` and ``f64`` ask for. Raises: ValueError for another text."""
    change = Change()
    for each in texts:
        if each[:1] == "b" and each[1:].isdecimal() and int(each[1:]):
            change = replace(change, batch=int(each[1:]))
        elif each == "f64":
            change = replace(change, dtype="float64")
        elif each == "prime":
            change = replace(change, prime=True)
        else:
            raise ValueError(f"{each!r} is no change: b and a batch size, f64 or prime")
    return change


@dataclass(frozen=True, slots=True)
class Optimizer:
    """One update rule, applied to every parameter.

    sgd:   v = momentum v + g;  p = p - lr v  (v = g without momentum)
    adam:  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g²;  p = p - lr (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps)
    adamw: p = p (1 - lr weight_decay), then adam; biases and norms too
    """

    kind: str
    lr: float
    momentum: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    @property
    def n_slots(self) -> int:
        """How many arrays of a parameter's shape the optimizer keeps beside it."""
        return (1 if self.momentum else 0) if self.kind == "sgd" else 2

    @property
    def flops(self) -> int:
        """Operations on one parameter in one step."""
        return {"sgd": 4 if self.momentum else 2, "adam": 14, "adamw": 15}[self.kind]


@dataclass(frozen=True, slots=True)
class Workload:
    """One model with its data, as every peer is given it."""

    name: str
    kind: str  # mlp, custom_loss, lenet, rnn, lstm or transformer
    batch: int
    optimizer: Optimizer
    initial: Mapping[str, Floats]  # in the order of the parameters
    batches: tuple[Batch, ...]  # what step() is given
    product_flops: float  # in matrix products and convolutions, forward and backward
    other_flops: float  # the rest, without the update
    layers: tuple[int, ...] = ()  # of an mlp: widths, input first
    activation: str = ""  # of an mlp: relu, tanh or gelu (its tanh form)
    loss: str = ""  # of an mlp: ce, mse, or mse_self (to the input)
    sizes: Mapping[str, int] = field(default_factory=dict)  # of the other kinds
    labels: tuple[int, ...] = ()  # which members of a batch are integers
    epoch: tuple[Array, Array] | None = None  # all samples, where a whole epoch is timed
    dtype: str = "float32"  # of weights and float data

    def parameters(self) -> dict[str, Floats]:
        """A fresh copy of the initial weights."""
        return {name: value.copy() for name, value in self.initial.items()}

    @property
    def n_parameters(self) -> int:
        return sum(value.size for value in self.initial.values())

    @property
    def flops(self) -> float:
        """Operations of one training step: forward, backward and update."""
        return self.product_flops + self.other_flops + self.n_parameters * self.optimizer.flops

    @property
    def batch_bytes(self) -> int:
        return sum(array.nbytes for array in self.batches[0])

    @property
    def state_bytes(self) -> int:
        """Weights, optimizer state and one batch."""
        return np.dtype(self.dtype).itemsize * self.n_parameters * (1 + self.optimizer.n_slots) + self.batch_bytes

    @property
    def least_bytes(self) -> int:
        """Least traffic of a step: the batch read, weights and state read and written once, all else kept in cache."""
        return 2 * self.state_bytes - self.batch_bytes

    def batches_as(self, label_dtype: DTypeLike) -> list[tuple[NDArray[np.generic], ...]]:
        """The batches with their integers in a peer's own type; done before anything is timed."""
        return [
            tuple(array.astype(label_dtype) if place in self.labels else array for place, array in enumerate(batch))
            for batch in self.batches
        ]


def normal(rng: Generator, *shape: int, scale: float) -> Floats:
    """Normal draws of standard deviation ``scale``, drawn in float64."""
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def scaled(rng: Generator, n_in: int, n_out: int, gain: float = 1.0) -> Floats:
    """A weight whose products have about ``gain`` times the size of their inputs."""
    drawn: Floats = (rng.standard_normal((n_in, n_out)) * gain / np.sqrt(n_in)).astype(np.float32)
    return drawn


def linear(rng: Generator, place: int, n_in: int, n_out: int, gain: float) -> dict[str, Floats]:
    """Weight and bias of layer ``place``."""
    return {f"W{place}": scaled(rng, n_in, n_out, gain), f"b{place}": normal(rng, n_out, scale=0.01)}


def mlp(
    name: str, batch: int, layers: tuple[int, ...], activation: str, loss: str, opt: Optimizer, epoch: bool = False
) -> Workload:
    """Linear layers with an activation between them."""
    rng, data = default_rng(1234), default_rng(99)
    pairs = list(pairwise(layers))
    initial: dict[str, Floats] = {}
    for place, (n_in, n_out) in enumerate(pairs):
        initial |= linear(rng, place, n_in, n_out, np.sqrt(2) if activation == "relu" else 1.0)
    n_out = layers[-1]

    def draw(n: int) -> Batch:
        x = data.standard_normal((n, layers[0])).astype(np.float32)
        if loss == "ce":
            return x, data.integers(0, n_out, n).astype(np.int32)
        if loss == "mse_self":
            return (x,)
        return x, np.tanh(x[:, :n_out] + 0.5 * x[:, 1 : 1 + n_out]).astype(np.float32)

    batches = tuple(draw(batch) for _ in range(N_BATCHES))
    samples = draw(EPOCH_SAMPLES) if epoch else ()
    tanh = TRANSCENDENTAL_FLOPS
    other = batch * sum(layers[1:-1]) * {"relu": 3, "tanh": tanh + 4, "gelu": tanh + 20}[activation]
    other += batch * n_out * (TRANSCENDENTAL_FLOPS + 8 if loss == "ce" else 5) + 2 * batch * sum(layers[1:])
    return Workload(
        name, "mlp", batch, opt, initial, batches,
        product_flops=sum(2.0 * batch * a * b * (2 if i == 0 else 3) for i, (a, b) in enumerate(pairs)),
        other_flops=other, layers=layers, activation=activation, loss=loss, labels=(1,) if loss == "ce" else (),
        epoch=(samples[0], samples[1]) if epoch else None,
    )  # fmt: skip


def custom_loss(change: Change) -> Workload:
    """A regression whose second output mixes two losses, row by row."""
    rng, data = default_rng(1234), default_rng(99)
    batch, features = change.rows(4096), 32
    initial = {"W": scaled(rng, features, 2), "b": np.zeros(2, np.float32)}
    true = data.standard_normal(features).astype(np.float32) / 4
    batches: list[Batch] = []
    for _ in range(N_BATCHES):
        x = data.standard_normal((batch, features)).astype(np.float32)
        batches.append((x, (x @ true + 1.5 * data.standard_normal(batch).astype(np.float32)).astype(np.float32)))
    return Workload(
        "custom_loss", "custom_loss", batch, Optimizer("sgd", 0.1), initial, tuple(batches),
        product_flops=2.0 * batch * features * 2 * 2, other_flops=batch * (40 + 3 * TRANSCENDENTAL_FLOPS),
        sizes={"features": features},
    )  # fmt: skip


def lenet(change: Change) -> Workload:
    """Two convolutions with pooling, three linear layers."""
    rng, data = default_rng(1234), default_rng(99)
    batch = change.rows(64)
    initial = {
        "K0": (rng.standard_normal((6, 1, 5, 5)) * np.sqrt(2 / 25)).astype(np.float32),
        "c0": np.zeros(6, np.float32),
        "K1": (rng.standard_normal((16, 6, 5, 5)) * np.sqrt(2 / 150)).astype(np.float32),
        "c1": np.zeros(16, np.float32),
    }
    for place, (n_in, n_out) in enumerate([(400, 120), (120, 84), (84, 10)]):
        initial |= linear(rng, place, n_in, n_out, np.sqrt(2))

    def draw() -> Batch:
        image = data.standard_normal((batch, 1, 28, 28)).astype(np.float32)
        return image, data.integers(0, 10, batch).astype(np.int32)

    products = 2.0 * batch * 28 * 28 * 6 * 25 * 2 + 2.0 * batch * 100 * 16 * 150 * 3
    products += 3 * 2.0 * batch * (400 * 120 + 120 * 84 + 84 * 10)
    return Workload(
        "lenet", "lenet", batch, Optimizer("sgd", 0.01, momentum=0.9), initial, tuple(draw() for _ in range(N_BATCHES)),
        product_flops=products, other_flops=batch * (4704 + 1600) * 8, labels=(1,),
    )  # fmt: skip


def token_batches(data: Generator, vocabulary: int, *shape: int) -> tuple[Batch, ...]:
    """Random tokens, each labelled with its image under one permutation: learnable, so a wrong update shows."""
    permuted = data.permutation(vocabulary).astype(np.int32)
    tokens = [data.integers(0, vocabulary, shape).astype(np.int32) for _ in range(N_BATCHES)]
    return tuple((x, permuted[x]) for x in tokens)


def rnn_char(change: Change) -> Workload:
    """A tanh recurrence over characters, a label at every step."""
    weight = partial(scaled, default_rng(1234))
    steps, batch, vocabulary, hidden = 50, change.rows(32), 64, change.width(128)

    initial = {
        "Wxh": weight(vocabulary, hidden), "Whh": weight(hidden, hidden), "bh": np.zeros(hidden, np.float32),
        "Why": weight(hidden, vocabulary), "by": np.zeros(vocabulary, np.float32),
    }  # fmt: skip
    rows = batch * steps
    other = rows * hidden * (TRANSCENDENTAL_FLOPS + 6) + rows * vocabulary * (TRANSCENDENTAL_FLOPS + 8)
    return Workload(
        "rnn_char", "rnn", batch, Optimizer("adam", 1e-3), initial,
        token_batches(default_rng(99), vocabulary, batch, steps),
        product_flops=6.0 * rows * hidden * (hidden + vocabulary), other_flops=other,
        sizes={"steps": steps, "vocabulary": vocabulary, "hidden": hidden}, labels=(0, 1),
    )  # fmt: skip


def lstm(change: Change) -> Workload:
    """An LSTM (gates in the order i f g o) with a label at the last step."""
    weight, data = partial(scaled, default_rng(1234)), default_rng(99)
    steps, batch, features, hidden, classes = 32, change.rows(32), 32, change.width(128), 10

    initial = {
        "Wx": weight(features, 4 * hidden), "Wh": weight(hidden, 4 * hidden), "b": np.zeros(4 * hidden, np.float32),
        "Wo": weight(hidden, classes), "bo": np.zeros(classes, np.float32),
    }  # fmt: skip
    inputs = [data.standard_normal((batch, steps, features)).astype(np.float32) for _ in range(N_BATCHES)]
    products = 2.0 * batch * steps * 4 * hidden * (2 * features + 3 * hidden) + 6.0 * batch * hidden * classes
    return Workload(
        "lstm", "lstm", batch, Optimizer("adam", 1e-3), initial,
        tuple((x, x[:, -1, :classes].argmax(1).astype(np.int32)) for x in inputs),
        product_flops=products, other_flops=batch * steps * hidden * (5 * TRANSCENDENTAL_FLOPS + 30),
        sizes={"steps": steps, "features": features, "hidden": hidden}, labels=(1,),
    )  # fmt: skip


def transformer_tiny(change: Change) -> Workload:
    """Two blocks of attention and a gelu layer, norms first, an untied head without bias."""
    rng = default_rng(1234)
    blocks, width, heads, steps, batch, vocabulary = 2, 64, 4, 64, change.rows(8), 65
    initial = {"wte": normal(rng, vocabulary, width, scale=0.02), "wpe": normal(rng, steps, width, scale=0.02)}
    layers = [("qkv", "ln1", width, 3 * width), ("o", "", width, width)]
    layers += [("f", "ln2", width, 4 * width), ("p", "", 4 * width, width)]
    for block in range(blocks):
        for name, norm, n_in, n_out in layers:
            if norm:
                initial[f"{norm}g{block}"] = np.ones(width, np.float32)
                initial[f"{norm}b{block}"] = np.zeros(width, np.float32)
            initial[f"W{name}{block}"] = normal(rng, n_in, n_out, scale=0.02)
            initial[f"b{name}{block}"] = np.zeros(n_out, np.float32)
    initial |= {"lnfg": np.ones(width, np.float32), "lnfb": np.zeros(width, np.float32)}
    initial |= {"Wh": normal(rng, width, vocabulary, scale=0.02)}
    rows = batch * steps
    products = blocks * (2.0 * rows * width * 12 * width + 4.0 * rows * steps * width) + 2.0 * rows * width * vocabulary
    other = rows * 4 * width * (TRANSCENDENTAL_FLOPS + 20) + rows * width * 40
    other += rows * heads * steps * (TRANSCENDENTAL_FLOPS + 10)
    return Workload(
        "transformer_tiny", "transformer", batch, Optimizer("adamw", 1e-3, weight_decay=0.01), initial,
        token_batches(default_rng(99), vocabulary, batch, steps),
        product_flops=3 * products, other_flops=blocks * other + rows * vocabulary * (TRANSCENDENTAL_FLOPS + 8),
        sizes={"blocks": blocks, "width": width, "heads": heads, "steps": steps, "vocabulary": vocabulary},
        labels=(0, 1),
    )  # fmt: skip


def mlp_of(
    name: str, batch: int, layers: tuple[int, ...], activation: str, loss: str, opt: Optimizer, epoch: bool = False
) -> Callable[[Change], Workload]:
    """The maker of an mlp."""
    return lambda change: mlp(name, change.rows(batch), change.layers(*layers), activation, loss, opt, epoch)


SGD, MOMENTUM = Optimizer("sgd", 0.1), Optimizer("sgd", 0.01, momentum=0.9)
TINY, DEEP = (8, 16, 16, 1), (784, 512, 256, 64, 256, 512, 784)
DECAY = Optimizer("adamw", 1e-3, weight_decay=0.01)

MAKERS: Mapping[str, Callable[[Change], Workload]] = {
    "logreg": mlp_of("logreg", 32, (64, 10), "relu", "ce", SGD),
    "mlp_tiny": mlp_of("mlp_tiny", 16, TINY, "tanh", "mse", Optimizer("sgd", 0.05)),
    "mlp_digits": mlp_of("mlp_digits", 32, (64, 128, 64, 10), "relu", "ce", MOMENTUM),
    "mlp_mnist": mlp_of("mlp_mnist", 64, (784, 256, 128, 10), "relu", "ce", Optimizer("adam", 1e-3)),
    "mlp_wide": mlp_of("mlp_wide", 256, (1024, 1024, 1024, 10), "relu", "ce", Optimizer("adam", 1e-4)),
    "autoencoder_deep": mlp_of("autoencoder_deep", 128, DEEP, "gelu", "mse_self", DECAY),
    "custom_loss": custom_loss,
    "lenet": lenet,
    "rnn_char": rnn_char,
    "lstm": lstm,
    "transformer_tiny": transformer_tiny,
    "mlp_tiny_epoch": mlp_of("mlp_tiny_epoch", 16, TINY, "tanh", "mse", Optimizer("sgd", 0.05), epoch=True),
}
NAMES = tuple(MAKERS)
NO_HIDDEN_WIDTHS = ("logreg", "custom_loss", "lenet", "transformer_tiny")  # or none that could be any number


def get(name: str) -> Workload:
    """The workload of that name with the changes after it. Raises: ValueError where there is no such workload."""
    base, *texts = name.split("+")
    if base not in MAKERS:
        raise ValueError(f"no workload {base!r}; there are {', '.join(NAMES)}")
    change = changed(texts)
    if change.prime and base in NO_HIDDEN_WIDTHS:
        raise ValueError(f"{base} has no hidden widths to change")

    def cast(array: Array) -> Array:
        return array.astype(change.dtype) if array.dtype.kind == "f" else array

    workload = MAKERS[base](change)
    return replace(
        workload,
        name=name,
        dtype=change.dtype,
        initial={key: value.astype(change.dtype) for key, value in workload.initial.items()},
        batches=tuple(tuple(map(cast, batch)) for batch in workload.batches),
        epoch=None if workload.epoch is None else (cast(workload.epoch[0]), cast(workload.epoch[1])),
    )


def variants() -> list[str]:
    """Every workload as it is and with each of VARIANTS that it can have."""
    found = []
    for name in NAMES:
        can = [v for v in VARIANTS if v != "prime" or name not in NO_HIDDEN_WIDTHS]
        found += [name, *(f"{name}+{v}" for v in can)]
    return found


if __name__ == "__main__":
    for each in map(get, NAMES):
        share = each.product_flops / each.flops
        print(f"{each.name:18s} {each.n_parameters:9d} parameters {each.flops:14.0f} flops, {share:5.1%} in products")
