"""Two classes by logistic regression, trained until the loss is good enough."""

import os

import numpy as np

import graphc as gc

QUICK = os.environ.get("GRAPHC_SAMPLE_QUICK") == "1"

rng = np.random.default_rng(0)
points = np.concatenate([rng.normal(-1, 1, (300, 2)), rng.normal(1, 1, (300, 2))]).astype(np.float32)
classes = np.repeat([0.0, 1.0], 300).astype(np.float32)

N = gc.dim("N")
x = gc.input("x", (N, 2))
t = gc.input("t", (N,))
w = gc.param("w", (2,))
b = gc.param("b", ())
score = x @ w + b
loss = gc.bce_with_logits(score, t)

step = gc.compile(loss, gc.optim.nesterov(lr=0.1))
history = step.fit({"x": points, "t": classes}, epochs=5 if QUICK else 100, until=0.2, progress=False)
print(f"stopped after {len(history.losses)} epochs at loss {history.losses[-1]:.4f}")

classify = step.function(gc.sigmoid(score))
right = (classify(x=points) > 0.5) == (classes > 0.5)
print(f"accuracy {right.mean():.3f}")
