"""PyTorch eager: autograd and the fused optimizers of torch.optim."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from peers import Foreign, Program
from torch_models import loss_of
from workloads import Optimizer, Workload

LABEL_DTYPE = "int64"


def env(threads: int, variant: str, dtype: str) -> dict[str, str]:
    return {}


def load(threads: int) -> dict[str, str]:
    import torch

    torch.set_num_threads(threads)
    return {"torch": torch.__version__}


def optimizer(params: list[Foreign], opt: Optimizer, fused: bool) -> Foreign:
    """The torch optimizer of a workload."""
    import torch

    if opt.kind == "sgd":
        return torch.optim.SGD(params, lr=opt.lr, momentum=opt.momentum, fused=fused)
    cls = torch.optim.AdamW if opt.kind == "adamw" else torch.optim.Adam
    return cls(
        params, lr=opt.lr, betas=(opt.b1, opt.b2), eps=opt.eps, weight_decay=opt.weight_decay, fused=fused
    )


class Eager:
    """The usual loop: loss, zero_grad, backward, step."""

    def __init__(self, workload: Workload) -> None:
        import torch

        self.torch = torch
        self.params = [torch.from_numpy(value).requires_grad_() for value in workload.parameters().values()]
        self.loss, self.batch = loss_of(workload, fused_rnn=True), workload.batch
        self.optimizer = optimizer(self.params, workload.optimizer, fused=True)

    def update(self, *batch: Foreign) -> Foreign:
        loss = self.loss(self.params, *batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss

    def step(self, *batch: NDArray[np.generic]) -> float:
        return float(self.update(*map(self.torch.from_numpy, batch)).item())

    def epoch(self, x: NDArray[np.generic], y: NDArray[np.generic]) -> NDArray[np.floating]:
        xs, ys = (self.torch.from_numpy(array).split(self.batch) for array in (x, y))
        losses = [self.update(*pair).detach() for pair in zip(xs, ys, strict=True)]
        return np.asarray(self.torch.stack(losses).numpy())


def build(workload: Workload, threads: int, variant: str) -> Program:
    return Eager(workload)
