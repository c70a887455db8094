"""How a network learns, step by step: forward pass, back propagation and update of a linear-ReLU-linear-softmax network
on handwritten digits, printed and drawn, every gradient checked against central differences element by element.

Writes network.svg and rates.svg beside itself, or to the folder given as argument.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import graphc as gc
from graphc.data import digits

QUICK = os.environ.get("GRAPHC_SAMPLE_QUICK") == "1"
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()

images, labels = digits()
order = np.random.default_rng(0).permutation(len(images))
train, held_out = order[:1400], order[1400:]
few = train[:8]

# The network, and its loss: the negative logarithm of the probability that the softmax gives to the right digit.
N = gc.dim("N")
x = gc.input("x", (N, 64))
y = gc.input("y", (N,), dtype="int32")
w1 = gc.param("w1", (64, 32), init=gc.init.he_normal())
b1 = gc.param("b1", (32,))
w2 = gc.param("w2", (32, 10), init=gc.init.glorot_uniform())
b2 = gc.param("b2", (10,))
z = x @ w1 + b1
hidden = gc.relu(z)
logits = hidden @ w2 + b2
loss = gc.mean(gc.cross_entropy(logits, y))

step = gc.compile(loss, gc.optim.sgd(lr=0.5))
weights = {name: array.copy() for name, array in step.params.items()}
data = {"x": images[few], "y": labels[few]}
told = gc.explain(loss, values={**data, **weights})
live = {row.name: row.live for row in told.rows if row.live is not None}
gc.draw(loss, folder / "network.svg", values={**data, **weights})

print("1. Forward pass: each value from those before it.\n")
for line in step.show("forward").splitlines():
    name = line.split(" ")[0]
    print(f"    {line}")
    print(f"        {live[name].value}")

print("\n2. Back propagation: from the loss back, each gradient is upstream times local, summed over those who read.\n")
for line in step.show("grad").splitlines():
    name = line.split(" ")[0].removeprefix("d_")
    print(f"    {line}")
    print(f"        {live[name].cotangent}")
    blocked = [entry for entry in live[name].saturated if entry[1]]
    for consumer, count, of in blocked:
        print(f"        {count} of {of} elements are blocked by {consumer}")

print("\n   The same as numbers: each element moved by 1e-5 both ways, and the loss's change measured (float64).\n")

# The network from each value on: what the loss is when that value is given.


def from_logits(v: gc.Tensor) -> gc.Tensor:
    return gc.mean(gc.cross_entropy(v, y))


def from_hidden(v: gc.Tensor) -> gc.Tensor:
    return from_logits(v @ w2 + b2)


def from_z(v: gc.Tensor) -> gc.Tensor:
    return from_hidden(gc.relu(v))


restarted: dict[str, tuple[gc.Tensor, Callable[[gc.Tensor], gc.Tensor]]] = {
    "logits": (logits, from_logits),
    "b2": (b2, lambda v: from_logits(hidden @ w2 + v)),
    "w2": (w2, lambda v: from_logits(hidden @ v + b2)),
    "hidden": (hidden, from_hidden),
    "z": (z, from_z),
    "b1": (b1, lambda v: from_z(x @ w1 + v)),
    "w1": (w1, lambda v: from_z(x @ v + b1)),
    "x": (x, lambda v: from_z(v @ w1 + b1)),
}
tensors = {name: tensor for name, (tensor, _) in restarted.items()}
found = gc.compile(dict(zip(tensors, gc.grad(loss, list(tensors.values())), strict=True)))(**data, **weights)
values = gc.compile({**tensors, "loss": loss})(**data, **weights)
worst = 0.0
for name, (tensor, rest) in restarted.items():
    moved = gc.input("moved", tensor.shape, dtype="float64")
    measured = gc.compile(rest(moved))
    known = {**data, **weights}
    given = {slot.name: known[slot.name] for slot in measured.program.slots if slot.name in known}
    start = np.asarray(values[name], np.float64)
    numeric = np.zeros_like(start)
    places = list(np.ndindex(start.shape))
    for place in places[:: 37 if QUICK else 1]:
        up, down = start.copy(), start.copy()
        up[place] += 1e-5
        down[place] -= 1e-5
        numeric[place] = (measured(**given, moved=up) - measured(**given, moved=down)) / 2e-5
    checked = np.zeros(start.shape, bool)
    for place in places[:: 37 if QUICK else 1]:
        checked[place] = True
    difference = float(np.abs(numeric - found[name])[checked].max() / np.abs(found[name]).max())
    worst = max(worst, difference)
    print(f"    d_{name:7} {checked.sum():5} elements, largest difference {difference:.1e} of the largest gradient")
assert worst < 1e-4, worst

print("\n3. Update: a step against the gradient.\n")
for line in step.show("update").splitlines():
    print(f"    {line}")
before = step(**data)
expected = weights["w1"] - np.float32(0.5) * found["w1"]
print(f"\n    loss on these {len(few)} images {before:.4f} -> {step.function(loss)(**data):.4f}")
print(f"    w1 moved by -lr * d_w1 to {np.abs(step.params['w1'] - expected).max():.1e}")

print("\n4. Again and again: one compiled step, and what the learning rate does to it.\n")
batches = {"x": images[train], "y": labels[train]}
predict = step.function(gc.argmax(logits, axis=1))
curves = {}
for rate in (0.001, 0.03, 0.5, 3.0):
    for name, array in weights.items():
        step.params[name] = array
    step.hyper["lr"] = rate
    history = step.fit(batches, epochs=3 if QUICK else 20, seed=0, progress=False)
    right = float((predict(x=images[held_out]) == labels[held_out]).mean())
    curves[f"lr {rate:g}"] = history.losses
    first, last = history.losses[0], history.losses[-1]
    print(f"    lr {rate:<6g} loss {first:8.4f} -> {last:8.4f}   held-out accuracy {right:.3f}")
gc.curves(curves, folder / "rates.svg")
programs = step.stats().compiles + step.stats().cache_hits
print(f"\n    {programs} program for all rates; pictures: network.svg, rates.svg")
