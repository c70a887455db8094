"""A loss of your own: a gated mixture of two robust losses. Nothing but its formula is written; all else is derived."""

import numpy as np

import graphc as gc

rng = np.random.default_rng(0)
features = rng.standard_normal((4096, 32)).astype(np.float32)
clean = features @ rng.standard_normal(32).astype(np.float32) / 4
targets = (clean + np.where(rng.random(4096) < 0.1, 5.0, 0.1) * rng.standard_normal(4096)).astype(np.float32)

N = gc.dim("N")
x = gc.input("x", (N, 32))
t = gc.input("t", (N,))
w = gc.param("w", (32, 2), init=gc.init.normal(std=0.1))
b = gc.param("b", (2,))

z = x @ w + b
residual = z[:, 0] - t
gate = gc.sigmoid(z[:, 1])
huber = gc.where(gc.abs(residual) <= 1, 0.5 * residual**2, gc.abs(residual) - 0.5)
log_cosh = gc.softplus(2 * residual) - residual - np.log(2.0)
loss = gc.mean(gate * huber + (1 - gate) * log_cosh)

print(gc.grad(loss, b))
step = gc.compile(loss, gc.optim.sgd(lr=0.5))
for _ in range(400):
    value = step(x=features, t=targets)
predict = step.function(z[:, 0])
error = np.abs(predict(x=features) - clean).mean()
print(f"loss {value:.4f}, mean error against the clean line {error:.4f}")
