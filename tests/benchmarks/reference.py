"""Writes reference_losses.json: the first five losses of every workload, by PyTorch in float64.

    python reference.py                      # all workloads, as they are and with each change of workloads.VARIANTS
    python reference.py mlp_digits+b8+f64    # adds these

Needed again only when a workload changes. Every peer's float32 losses are compared with these.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import workloads
from peers_torch import optimizer
from torch_models import loss_of

FILE = Path(__file__).with_name("reference_losses.json")
N_LOSSES = 5


def losses(workload: workloads.Workload) -> list[float]:
    """The losses of the first five steps."""
    import torch

    params = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in workload.initial.values()]
    loss_fn, update = loss_of(workload, fused_rnn=False), optimizer(params, workload.optimizer, fused=False)
    batches = workload.batches
    if workload.epoch:
        n = workload.batch
        x, y = workload.epoch
        batches = tuple((x[i * n : (i + 1) * n], y[i * n : (i + 1) * n]) for i in range(N_LOSSES))
    found = []
    for batch in batches[:N_LOSSES]:
        tensors = [torch.tensor(a, dtype=torch.int64 if a.dtype.kind == "i" else torch.float64) for a in batch]
        loss = loss_fn(params, *tensors)
        update.zero_grad()
        loss.backward()
        update.step()
        found.append(float(loss.item()))
    return found


def main() -> None:
    kept = json.loads(FILE.read_text(encoding="utf-8")) if sys.argv[1:] else {}
    kept |= {name: losses(workloads.get(name)) for name in sys.argv[1:] or workloads.variants()}
    lines = (f"{json.dumps(name)}: {json.dumps(found)}" for name, found in kept.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
