"""Two networks as pages to click through: twelve dense layers, and a transformer block."""

import os
import sys
from pathlib import Path

import graphc as gc


def dense_layers(n_layers: int = 12) -> gc.Tensor:
    """The loss of a deep classifier."""
    x = gc.input("x", (gc.dim("N"), 64))
    y = gc.input("y", (gc.dim("N"),), dtype="int32")
    h = x
    for _ in range(n_layers - 1):
        h = gc.relu(gc.nn.dense(h, 64))
    logits = gc.nn.dense(h, 10)
    return gc.mean(gc.cross_entropy(logits, y))


def transformer_block(length: int = 16, width: int = 32, n_heads: int = 4) -> gc.Tensor:
    """The loss of one block: attention with several heads, then two dense layers, each with a way past it."""
    x = gc.input("x", (gc.dim("B"), length, width))
    t = gc.input("t", (gc.dim("B"), length, width))
    uniform = gc.init.glorot_uniform()
    query, key, value, out = (gc.param(f"{name}.w", (width, width), init=uniform) for name in ("q", "k", "v", "out"))

    def heads(a: gc.Tensor) -> gc.Tensor:
        return gc.transpose(gc.reshape(a, (a.shape[0], length, n_heads, width // n_heads)), (0, 2, 1, 3))

    centred = x - gc.mean(x, axis=-1, keepdims=True)
    norm = centred / gc.sqrt(gc.mean(centred * centred, axis=-1, keepdims=True) + 1e-5)
    q, k, v = heads(norm @ query), heads(norm @ key), heads(norm @ value)
    scores = q @ gc.transpose(k, (0, 1, 3, 2)) / (width // n_heads) ** 0.5
    attention = gc.softmax(scores, axis=-1)
    joined = gc.reshape(gc.transpose(attention @ v, (0, 2, 1, 3)), (x.shape[0], length, width))
    mixed = joined @ out + x
    up = gc.param("up.w", (width, 4 * width), init=gc.init.he_normal())
    down = gc.param("down.w", (4 * width, width), init=gc.init.he_normal())
    result = gc.gelu(mixed @ up) @ down + mixed
    return gc.mse(result, t)


def main(folder: str = "") -> None:
    """Write both pages into a folder, by default this one."""
    for name, loss in (("dense_layers", dense_layers()), ("transformer_block", transformer_block())):
        step = gc.compile(loss, gc.optim.adam(lr=0.001))
        path = Path(folder) / f"{name}.html"
        step.report(path)
        print(f"{path}: {os.path.getsize(path) / 1e6:.1f} MB; open it, and click a formula")


if __name__ == "__main__":
    main(*sys.argv[1:2])
