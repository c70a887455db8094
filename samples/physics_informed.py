"""A physics-informed fit: a network that solves u'' = -u with u(0) = 0 and u'(0) = 1, whose solution is the sine.

The loss holds the network's second derivative by its input, and training differentiates that once more by the weights.
"""

import os

import numpy as np

import graphc as gc

QUICK = os.environ.get("GRAPHC_SAMPLE_QUICK") == "1"

N = gc.dim("N")
t = gc.input("t", (N, 1))
w1 = gc.param("w1", (1, 32), init=gc.init.normal(std=1.0))
b1 = gc.param("b1", (32,), init=gc.init.uniform(-2.0, 2.0))
w2 = gc.param("w2", (32, 1), init=gc.init.glorot_normal())


def network(time: gc.Tensor) -> gc.Tensor:
    """t + t² · net(t) meets both conditions at 0 for every weight."""
    return time + time**2 * (gc.tanh(time @ w1 + b1) @ w2)


u = network(t)
du = gc.grad(gc.sum(u), t)
ddu = gc.grad(gc.sum(du), t)
loss = gc.mean((ddu + u) ** 2)

print("u' as it was derived:")
print(du)

step = gc.compile(loss, gc.optim.adam(lr=3e-3))
rng = np.random.default_rng(0)
for k in range(300 if QUICK else 6000):
    value = step(t=rng.uniform(0, 3, (64, 1)).astype(np.float32), lr=3e-3 if k < 4000 else 3e-4)
times = np.linspace(0, 3, 7, dtype=np.float32)[:, None]
solved = step.function(u)(t=times)
print(f"residual {value:.2e}")
for moment, found in zip(times[:, 0], solved[:, 0], strict=True):
    print(f"  u({moment:.1f}) = {found:+.4f}   sin = {np.sin(moment):+.4f}")
print(f"largest error {np.abs(solved - np.sin(times)).max():.4f}")
