"""Operations of your own: an elementwise one from its formula, a tensor one from its index formula."""

import numpy as np

import graphc as gc

swish = gc.elementwise("swish", lambda x, beta: x / (1 + gc.sym.exp(-beta * x)))
bilinear = gc.formula("bilinear", "out[n,o] = sum(i,j) x[n,i] * w[o,i,j] * z[n,j]")

rng = np.random.default_rng(0)
left = rng.standard_normal((512, 4)).astype(np.float32)
right = rng.standard_normal((512, 3)).astype(np.float32)
targets = np.tanh(np.einsum("ni,oij,nj->no", left, rng.standard_normal((2, 4, 3)), right)).astype(np.float32)

N = gc.dim("N")
x = gc.input("x", (N, 4))
z = gc.input("z", (N, 3))
t = gc.input("t", (N, 2))
w = gc.param("w", (2, 4, 3), init=gc.init.normal(std=0.3))
beta = gc.param("beta", (), init=gc.init.ones())
v = gc.param("v", (2, 2), init=gc.init.normal(std=0.5))
mixed = bilinear(x, w, z)
output = swish(mixed, beta) @ v
loss = gc.mse(output, t)

print("Derived from the formulas:")
print(gc.grad(loss, w))
step = gc.compile(loss, gc.optim.adam(lr=0.02))
first = step(x=left, z=right, t=targets)
for _ in range(500):
    last = step(x=left, z=right, t=targets)
print(f"loss {first:.4f} -> {last:.4f}; beta became {float(step.params['beta']):.3f}")
assert last < first

far = gc.input("far", (3,))
slope = gc.compile(gc.grad(gc.sum(swish(far, 1.0)), far))
print("swish's derivative at -100, 0 and 100:", slope(far=np.array([-100, 0, 100], np.float32)))
