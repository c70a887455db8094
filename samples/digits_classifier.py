"""Handwritten digits: a linear-ReLU-linear-softmax network, trained natively and judged on images it has not seen."""

import os

import numpy as np

import graphc as gc
from graphc.data import digits

QUICK = os.environ.get("GRAPHC_SAMPLE_QUICK") == "1"

images, labels = digits()
order = np.random.default_rng(0).permutation(len(images))
train, held_out = order[:1400], order[1400:]

N = gc.dim("N")
x = gc.input("x", (N, 64))
y = gc.input("y", (N,), dtype="int32")
hidden = gc.nn.dense(x, 128, activation="relu", name="fc1")
logits = gc.nn.dense(hidden, 10, name="fc2")
loss = gc.mean(gc.cross_entropy(logits, y))
correct = gc.mean(gc.cast(gc.argmax(logits, axis=1) == y, "float32"))

step = gc.compile(loss, gc.optim.adam(lr=2e-3), outputs={"accuracy": correct})
history = step.fit(
    {"x": images[train], "y": labels[train]},
    epochs=3 if QUICK else 60,
    validation={"x": images[held_out], "y": labels[held_out]},
    progress=False,
)
print(f"training loss {history.losses[0]:.4f} -> {history.losses[-1]:.4f} in {history.seconds:.2f} s")

predict = step.function(gc.argmax(logits, axis=1))
right = predict(x=images[held_out]) == labels[held_out]
print(f"held-out accuracy {right.mean():.4f} ({right.sum()} of {right.size})")
