"""The loss of every workload in PyTorch, for the eager peer and for ``reference.py``.

``loss_of(workload, fused_rnn)`` gives ``loss(params, *batch)`` with the parameters in the workload's order.
``fused_rnn`` takes torch.rnn_tanh and torch.lstm, fast in eager mode, in place of a loop over the steps.
"""

from __future__ import annotations

from collections.abc import Callable

from peers import Foreign
from workloads import Workload

Loss = Callable[..., Foreign]


def mlp(workload: Workload, fused_rnn: bool) -> Loss:
    import torch
    import torch.nn.functional as F

    activations: dict[str, Loss] = {
        "relu": torch.relu,
        "tanh": torch.tanh,
        "gelu": lambda z: F.gelu(z, approximate="tanh"),
    }
    n, activation = len(workload.layers) - 1, activations[workload.activation]

    def forward(params: list[Foreign], x: Foreign) -> Foreign:
        h = x
        for i in range(n):
            h = torch.addmm(params[2 * i + 1], h, params[2 * i])
            if i < n - 1:
                h = activation(h)
        return h

    if workload.loss == "ce":
        return lambda params, x, y: F.cross_entropy(forward(params, x), y)
    return lambda params, x, y=None: F.mse_loss(forward(params, x), x if y is None else y)


def custom_loss(workload: Workload, fused_rnn: bool) -> Loss:
    import torch

    def loss(params: list[Foreign], x: Foreign, target: Foreign) -> Foreign:
        z = torch.addmm(params[1], x, params[0])
        r = z[:, 0] - target
        a = torch.abs(r)
        huber = torch.where(a <= 1.0, 0.5 * r * r, a - 0.5)
        log_cosh = a + torch.log1p(torch.exp(-2.0 * a)) - 0.6931471805599453
        gate = torch.sigmoid(z[:, 1])
        return torch.mean(gate * huber + (1.0 - gate) * log_cosh)

    return loss


def lenet(workload: Workload, fused_rnn: bool) -> Loss:
    import torch
    import torch.nn.functional as F

    def loss(params: list[Foreign], x: Foreign, y: Foreign) -> Foreign:
        k0, c0, k1, c1, w0, b0, w1, b1, w2, b2 = params
        h = F.max_pool2d(torch.relu(F.conv2d(x, k0, c0, padding=2)), 2)
        h = F.max_pool2d(torch.relu(F.conv2d(h, k1, c1)), 2).flatten(1)
        h = torch.relu(torch.addmm(b0, h, w0))
        h = torch.relu(torch.addmm(b1, h, w1))
        return F.cross_entropy(torch.addmm(b2, h, w2), y)

    return loss


def rnn(workload: Workload, fused_rnn: bool) -> Loss:
    import torch
    import torch.nn.functional as F

    steps, vocabulary, hidden = (workload.sizes[name] for name in ("steps", "vocabulary", "hidden"))

    def states(x: Foreign, wxh: Foreign, whh: Foreign, bh: Foreign) -> Foreign:
        if fused_rnn:
            one_hot = F.one_hot(x, vocabulary).to(wxh.dtype)
            weights = [wxh.t(), whh.t(), bh, torch.zeros_like(bh)]
            start = one_hot.new_zeros(1, x.shape[0], hidden)
            return torch.rnn_tanh(one_hot, start, weights, True, 1, 0.0, True, False, True)[0]
        inputs = F.embedding(x.t(), wxh) + bh
        h, out = inputs.new_zeros(x.shape[0], hidden), []
        for t in range(steps):
            h = torch.tanh(torch.addmm(inputs[t], h, whh))
            out.append(h)
        return torch.stack(out, 1)

    def loss(params: list[Foreign], x: Foreign, y: Foreign) -> Foreign:
        wxh, whh, bh, why, by = params
        rows = states(x, wxh, whh, bh).reshape(-1, hidden)
        return F.cross_entropy(torch.addmm(by, rows, why), y.reshape(-1))

    return loss


def lstm(workload: Workload, fused_rnn: bool) -> Loss:
    import torch
    import torch.nn.functional as F

    steps, hidden = workload.sizes["steps"], workload.sizes["hidden"]

    def last_state(x: Foreign, wx: Foreign, wh: Foreign, b: Foreign) -> Foreign:
        rows, _, features = x.shape
        if fused_rnn:
            start, weights = x.new_zeros(1, rows, hidden), [wx.t(), wh.t(), b, torch.zeros_like(b)]
            return torch.lstm(x, (start, start), weights, True, 1, 0.0, True, False, True)[1][0]
        inputs = torch.addmm(b, x.transpose(0, 1).reshape(steps * rows, features), wx).view(steps, rows, 4 * hidden)
        h = c = x.new_zeros(rows, hidden)
        for t in range(steps):
            i, f, g, o = torch.addmm(inputs[t], h, wh).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h

    def loss(params: list[Foreign], x: Foreign, y: Foreign) -> Foreign:
        wx, wh, b, wo, bo = params
        return F.cross_entropy(torch.addmm(bo, last_state(x, wx, wh, b), wo), y)

    return loss


def transformer(workload: Workload, fused_rnn: bool) -> Loss:
    import torch
    import torch.nn.functional as F

    blocks, width, heads = (workload.sizes[name] for name in ("blocks", "width", "heads"))

    def block(h: Foreign, p: list[Foreign]) -> Foreign:
        g1, e1, w_qkv, b_qkv, w_o, b_o, g2, e2, w_f, b_f, w_p, b_p = p
        rows, steps, _ = h.shape
        z = F.layer_norm(h, (width,), g1, e1).view(rows * steps, width)
        qkv = torch.addmm(b_qkv, z, w_qkv).view(rows, steps, 3, heads, width // heads)
        q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(rows * steps, width)
        h = h + torch.addmm(b_o, mixed, w_o).view(rows, steps, width)
        z = F.layer_norm(h, (width,), g2, e2).view(rows * steps, width)
        z = F.gelu(torch.addmm(b_f, z, w_f), approximate="tanh")
        return h + torch.addmm(b_p, z, w_p).view(rows, steps, width)

    def loss(params: list[Foreign], x: Foreign, y: Foreign) -> Foreign:
        h = F.embedding(x, params[0]) + params[1]
        for i in range(blocks):
            h = block(h, params[2 + 12 * i : 14 + 12 * i])
        gain, shift, head = params[2 + 12 * blocks :]
        return F.cross_entropy(F.layer_norm(h, (width,), gain, shift).view(-1, width) @ head, y.reshape(-1))

    return loss


LOSSES = {"mlp": mlp, "custom_loss": custom_loss, "lenet": lenet, "rnn": rnn, "lstm": lstm, "transformer": transformer}


def loss_of(workload: Workload, fused_rnn: bool) -> Loss:
    """The loss function of a workload."""
    return LOSSES[workload.kind](workload, fused_rnn)
