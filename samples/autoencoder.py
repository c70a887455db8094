"""An autoencoder: digits squeezed through eight numbers and drawn again."""

import os

import numpy as np

import graphc as gc
from graphc.data import digits

QUICK = os.environ.get("GRAPHC_SAMPLE_QUICK") == "1"

images, _ = digits()

N = gc.dim("N")
x = gc.input("x", (N, 64))
code = gc.nn.mlp(x, [48, 8], activation="tanh", name="encoder")
picture = gc.sigmoid(gc.nn.mlp(code, [48, 64], activation="tanh", name="decoder"))
loss = gc.mse(picture, x)

step = gc.compile(loss, gc.optim.adamw(lr=3e-3, weight_decay=1e-4))
history = step.fit({"x": images}, epochs=5 if QUICK else 150, progress=False)
print(f"mean squared error {history.losses[0]:.4f} -> {history.losses[-1]:.4f} in {history.seconds:.2f} s")

encode = step.function(code)
draw = step.function(picture)
print("the eight numbers of the first digit:", encode(x=images[:1])[0].round(2))
for row in (draw(x=images[:1])[0].reshape(8, 8) * 9).round().astype(int):
    print("  " + "".join(" .:-=+*#%@"[v] for v in row))
print(f"variance explained {1 - history.losses[-1] / np.var(images):.2f}")
