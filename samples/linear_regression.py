"""A straight line through noisy points, by gradient descent, beside the least-squares solution."""

import numpy as np

import graphc as gc

rng = np.random.default_rng(0)
features = rng.uniform(-1, 1, (200, 3)).astype(np.float32)
targets = (features @ [2.0, -1.0, 0.5] + 3.0 + 0.1 * rng.standard_normal(200)).astype(np.float32)

N = gc.dim("N")
x = gc.input("x", (N, 3))
t = gc.input("t", (N,))
w = gc.param("w", (3,))
b = gc.param("b", ())
prediction = x @ w + b
loss = gc.mean((prediction - t) ** 2)

print("The derivatives, as they were derived:")
print(gc.grad(loss, w))

step = gc.compile(loss, gc.optim.sgd(lr=0.2))
for _ in range(300):
    value = step(x=features, t=targets)

exact = np.linalg.lstsq(np.column_stack([features, np.ones(200)]), targets, rcond=None)[0]
print(f"loss {value:.5f}")
print("gradient descent:", np.append(step.params["w"], step.params["b"]).round(4))
print("least squares:   ", exact.round(4))
