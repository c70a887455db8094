"""Mistakes after the declaration: each message compared whole; and bad calls that leave a step as it was.

``test_declare_errors.py`` holds those made while a graph is declared.
"""

from __future__ import annotations

import inspect
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import graphc as gc

Array = NDArray[np.generic]
CALLS = 100_000 if os.environ.get("GRAPHC_NIGHTLY") == "1" else 2_000

N, M = gc.dim("N"), gc.dim("M")
x = gc.input("x", (N, 4))
y = gc.input("y", (N,), dtype="int32")
w = gc.param("w", (4, 5), init=gc.init.glorot_uniform())
b = gc.param("b", (5,))
z = x @ w + b
loss = gc.mean(gc.cross_entropy(z, y))
u = gc.param("u", (2,))
s = gc.state("s", (2,))
sgd = gc.optim.sgd(lr=0.1, momentum=0.9)
step = gc.compile(loss, sgd)
predict = step.function(z)
ratio = gc.compile(gc.sum(gc.input("a", (M,)) * gc.input("c", (2 * M + 1,))[:M]))

X, Y = np.zeros((3, 4), np.float32), np.zeros(3, np.int32)
DECLARED = {
    "x": "x = gc.input(",
    "y": "y = gc.input(",
    "loss": "loss = gc.mean(",
    "sgd": "step = gc.compile(",
    "ratio": "ratio = gc.compile(",
}
HERE = "here"

# The mistake, its error, the first line of the message, and the user's line that it names: the mistake's own, that of a
# declaration, or none.
Mistake = tuple[Callable[[], object], type[gc.GraphcError], str, str]


class Unreadable:
    """An object whose values cannot be had."""

    def __array__(self, *_: object, **__: object) -> Array:
        raise RuntimeError("not today")


def call(**changes: object) -> object:
    """A call that is right but for ``changes``."""
    return step(**{"x": X, "y": Y, **changes})


def fit(data: dict[str, object] | None = None, **options: object) -> object:
    """A training that is right but for these arrays and options."""
    arguments: dict[str, object] = {"progress": False, "shuffle": False, "batch_size": 1, **options}
    return step.fit({"x": X, "y": Y, **(data or {})}, **arguments)  # type: ignore[arg-type]


MISTAKES: dict[str, Mistake] = {
    "grad_number": (
        lambda: gc.grad(3.0, w),  # type: ignore[call-overload]
        gc.UsageError,
        "grad: float given; needs tensors",
        HERE,
    ),
    "grad_text": (
        lambda: gc.grad(loss, "w"),  # type: ignore[arg-type]
        gc.UsageError,
        "grad: str given; needs tensors",
        HERE,
    ),
    "grad_none": (
        lambda: gc.grad(loss, None),  # type: ignore[call-overload]
        gc.UsageError,
        "grad: NoneType given; needs tensors",
        HERE,
    ),
    "grad_stopped": (
        lambda: gc.grad(gc.sum(gc.stop_gradient(w)), w),
        gc.NotDifferentiable,
        "grad: the result does not depend on w; unused='zero' gives zeros",
        HERE,
    ),
    "vjp_none": (
        lambda: gc.vjp(z, w, None),  # type: ignore[arg-type]
        gc.UsageError,
        "vjp: NoneType given; needs tensors",
        HERE,
    ),
    "jvp_numbers": (
        lambda: gc.jvp(loss, [w, b], [1.0, 2.0]),  # type: ignore[list-item]
        gc.UsageError,
        "jvp: float given; needs tensors",
        HERE,
    ),
    "hvp_vector": (
        lambda: gc.hvp(loss, w, b),
        gc.ShapeError,
        "hvp: a vector of shape (5,) given; needs (4, 5)",
        HERE,
    ),
    "jacobian_int": (
        lambda: gc.jacobian(y, x),
        gc.NotDifferentiable,
        "jacobian: a tensor of int32 given; only floats carry derivatives",
        HERE,
    ),
    "hessian_of_rows": (
        lambda: gc.hessian(z, w),
        gc.NotDifferentiable,
        "hessian: a loss of shape (N, 5) given; needs a scalar: reduce it with gc.mean or gc.sum",
        HERE,
    ),
    "explain_rows": (
        lambda: gc.explain(z),
        gc.NotDifferentiable,
        "explain: a loss of float32 (N, 5) given; needs a floating scalar",
        HERE,
    ),
    "explain_number": (
        lambda: gc.explain(3),  # type: ignore[arg-type]
        gc.UsageError,
        "explain: int given; needs a scalar loss",
        HERE,
    ),
    "compile_none": (
        lambda: gc.compile(None),  # type: ignore[call-overload]
        gc.UsageError,
        "compile: NoneType given; needs a tensor, a list or a dict of tensors",
        HERE,
    ),
    "compile_nothing": (
        lambda: gc.compile([]),
        gc.UsageError,
        "compile: nothing to compute given; needs at least one tensor",
        HERE,
    ),
    "compile_number": (
        lambda: gc.compile([loss, 3]),  # type: ignore[list-item]
        gc.UsageError,
        "compile: int given for output 1; needs a tensor",
        HERE,
    ),
    "compile_name": (
        lambda: gc.compile({3: loss}),  # type: ignore[dict-item]
        gc.UsageError,
        "compile: 3 given as a name; needs a text",
        HERE,
    ),
    "compile_rows": (
        lambda: gc.compile(z, sgd),
        gc.NotDifferentiable,
        "compile: a loss of shape (N, 5) given; needs a scalar: reduce it with gc.mean or gc.sum",
        HERE,
    ),
    "compile_integer": (
        lambda: gc.compile(gc.sum(y), sgd),
        gc.NotDifferentiable,
        "compile: a loss of int64 given; needs a floating scalar",
        HERE,
    ),
    "compile_list": (
        lambda: gc.compile([loss], sgd),  # type: ignore[call-overload]
        gc.UsageError,
        "compile: list given with an optimizer; needs one scalar loss",
        HERE,
    ),
    "compile_untrained": (
        lambda: gc.compile(gc.sum(x), sgd),
        gc.NotDifferentiable,
        "compile: a loss without parameters given; needs at least one gc.param to train",
        HERE,
    ),
    "compile_stopped": (
        lambda: gc.compile(gc.sum(gc.stop_gradient(w)), sgd),
        gc.NotDifferentiable,
        "compile: the loss does not depend on w in a differentiable way",
        HERE,
    ),
    "compile_size": (
        lambda: gc.compile(gc.sum(gc.broadcast_to(gc.const(1.0), (M,)))),
        gc.DefinitionError,
        "compile: nothing given at a call has a size M; needs an input with it among those that the result reads",
        HERE,
    ),
    "train_input": (
        lambda: gc.compile(loss, sgd, train=[x]),
        gc.UsageError,
        "compile: train= with x given; needs a list of parameters",
        HERE,
    ),
    "train_number": (
        lambda: gc.compile(loss, sgd, train=[1]),  # type: ignore[list-item]
        gc.UsageError,
        "compile: train= with int given; needs a list of parameters",
        HERE,
    ),
    "train_other": (
        lambda: gc.compile(loss, sgd, train=[u]),
        gc.NotDifferentiable,
        "compile: train= with u given, on which the loss does not depend",
        HERE,
    ),
    "train_none": (
        lambda: gc.compile(loss, sgd, train=[]),
        gc.UsageError,
        "compile: train=[] given; needs at least one parameter",
        HERE,
    ),
    "train_bare": (
        lambda: gc.compile(loss, sgd, train=w),  # type: ignore[call-overload]
        gc.UsageError,
        "compile: train=Tensor given; needs a list of parameters",
        HERE,
    ),
    "outputs_plain": (
        lambda: gc.compile(loss, outputs={"z": z}),  # type: ignore[call-overload]
        gc.UsageError,
        "compile: outputs=, updates=, train= or record= given without an optimizer; a plain function has none",
        HERE,
    ),
    "outputs_list": (
        lambda: gc.compile(loss, sgd, outputs=[z]),  # type: ignore[call-overload]
        gc.UsageError,
        "compile: outputs: list given; needs a dict of tensors by name",
        HERE,
    ),
    "outputs_number": (
        lambda: gc.compile(loss, sgd, outputs={"z": 3}),  # type: ignore[dict-item]
        gc.UsageError,
        "compile: outputs: int given for z; needs a tensor",
        HERE,
    ),
    "updates_list": (
        lambda: gc.compile(loss, sgd, updates=[s]),  # type: ignore[call-overload]
        gc.UsageError,
        "compile: updates: list given; needs a dict of new values",
        HERE,
    ),
    "updates_twice": (
        lambda: gc.compile(loss, sgd, updates={w: w}),
        gc.DefinitionError,
        "compile: two updates for w given, one by the optimizer",
        HERE,
    ),
    "updates_input": (
        lambda: gc.compile(loss, sgd, updates={x: x}),
        gc.DefinitionError,
        "compile: an update of x given; needs a parameter or a state",
        HERE,
    ),
    "updates_expression": (
        lambda: gc.compile(loss, sgd, updates={x + 1: x}),
        gc.DefinitionError,
        "compile: an update of an expression given; needs a parameter or a state",
        HERE,
    ),
    "updates_name": (
        lambda: gc.compile(loss, sgd, updates={"s": s}),  # type: ignore[dict-item]
        gc.DefinitionError,
        "compile: an update of str given; needs a parameter or a state",
        HERE,
    ),
    "updates_shape": (
        lambda: gc.compile(loss, sgd, updates={s: b}),
        gc.ShapeError,
        "compile: shape (5,) given as the update of s; needs (2,)",
        HERE,
    ),
    "updates_type": (
        lambda: gc.compile(loss, sgd, updates={s: gc.cast(s, "float64")}),
        gc.DTypeError,
        "compile: float64 given as the update of s; needs float32",
        HERE,
    ),
    "updates_number": (
        lambda: gc.compile(loss, sgd, updates={s: 3.0}),  # type: ignore[dict-item]
        gc.UsageError,
        "compile: float given as the update of s; needs a tensor",
        HERE,
    ),
    "optimizer_text": (
        lambda: gc.compile(loss, "sgd"),  # type: ignore[call-overload]
        gc.UsageError,
        "compile: str given as optimizer; needs a function such as gc.optim.sgd(lr=0.1)",
        HERE,
    ),
    "optimizer_not_made": (
        lambda: gc.compile(loss, gc.optim.sgd),  # type: ignore[arg-type]
        gc.DTypeError,
        "optim.sgd: lr of type list given; needs a number or a floating scalar",
        HERE,
    ),
    "optimizer_list": (
        lambda: gc.compile(loss, lambda params, grads: [1]),  # type: ignore[arg-type, return-value]
        gc.UsageError,
        "compile: the optimizer gives list; needs a dict of new values, as that of gc.optim.sgd(lr=0.1)",
        HERE,
    ),
    "lr_text": (
        lambda: gc.optim.sgd(lr="fast"),  # type: ignore[arg-type]
        gc.DTypeError,
        "optim.sgd: lr of type str given; needs a number or a floating scalar",
        HERE,
    ),
    "lr_vector": (
        lambda: gc.optim.adam(lr=u),
        gc.DTypeError,
        "optim.adam: lr of type float32(2,) given; needs a number or a floating scalar",
        HERE,
    ),
    "threads": (
        lambda: gc.compile(loss, threads=0),
        gc.UsageError,
        "compile: threads=0 given; needs a number of at least 1, or None",
        HERE,
    ),
    "seed_text": (
        lambda: gc.compile(loss, sgd, seed="a"),  # type: ignore[call-overload]
        gc.UsageError,
        "compile: seed='a' given; needs an integer of at least 0",
        HERE,
    ),
    "seed_negative": (
        lambda: gc.compile(loss, sgd, seed=-1),
        gc.UsageError,
        "compile: seed=-1 given; needs an integer of at least 0",
        HERE,
    ),
    "function_text": (
        lambda: step.function("z"),
        gc.UsageError,
        "step.function: str given; needs a tensor, a list or a dict of tensors",
        HERE,
    ),
    "function_foreign": (
        lambda: step.function(gc.sum(u)),
        gc.DefinitionError,
        "step.function: u given, no parameter or state of this step",
        HERE,
    ),
    "show_stage": (
        lambda: step.show("machine"),
        gc.UsageError,
        "show: stage 'machine' given; needs one of declared, forward, grad, update, ledger, optimized, "
        "rewrites, kernels, memory, llvm, asm, svg",
        "",
    ),
    "pickled": (
        lambda: pickle.dumps(step),
        gc.UsageError,
        "step: machine code cannot be pickled or copied; "
        "save the weights with step.save(path) and compile again (the cache makes that quick)",
        "",
    ),
    "missing": (
        lambda: step(x=X),
        gc.InputError,
        "step: input 'y' is missing; needs int32[N]",
        "y",
    ),
    "missing_misspelt": (
        lambda: step(x=X, labels=Y),
        gc.InputError,
        "step: input 'y' is missing; needs int32[N]; 'labels' given is no input",
        "y",
    ),
    "unknown": (
        lambda: call(labels=Y),
        gc.InputError,
        "step: 'labels' given is no input; needs x, y, lr",
        "",
    ),
    "without_names": (
        lambda: step(X, Y),
        gc.UsageError,
        "step: ndarray without a name given; inputs go by name: step(x=..., y=...)",
        "",
    ),
    "function_without_names": (
        lambda: predict(X),
        gc.UsageError,
        "function: ndarray without a name given; inputs go by name: function(x=...)",
        "",
    ),
    "function_missing": (
        lambda: predict(),
        gc.InputError,
        "function: input 'x' is missing; needs float32[N, 4]",
        "x",
    ),
    "rank": (
        lambda: call(x=X[0]),
        gc.ShapeError,
        "step: input 'x' of shape (4,): has rank 1, needs rank 2; declared (N, 4)",
        "x",
    ),
    "size": (
        lambda: call(x=np.zeros((3, 5), np.float32)),
        gc.ShapeError,
        "step: input 'x' of shape (3, 5): axis 1 has size 5, needs 4; declared (N, 4)",
        "x",
    ),
    "batches_differ": (
        lambda: call(y=np.zeros(4, np.int32)),
        gc.ShapeError,
        "step: input 'y' of shape (4,): axis 0 has size 4, needs N = 3 (N = 3 by input 'x'); declared (N,)",
        "y",
    ),
    "batch_of_zero": (
        lambda: call(x=X[:0], y=Y[:0]),
        gc.ShapeError,
        "step: input 'x' of shape (0, 4): has no elements: every size is at least 1; declared (N, 4)",
        "x",
    ),
    "size_of_no_dim": (
        lambda: ratio(a=np.ones(3), c=np.ones(8)),
        gc.ShapeError,
        "function: input 'c' of shape (8,): axis 0 has size 8, needs 2*M + 1 = 7 (M = 3 by input 'a'); "
        "declared (2*M + 1,)",
        "ratio",
    ),
    "size_of_other_dim": (
        lambda: ratio(a=np.ones(3), c=np.ones(9)),
        gc.ShapeError,
        "function: input 'c' of shape (9,): axis 0 has size 9, needs 2*M + 1 = 7 (M = 3 by input 'a'); "
        "declared (2*M + 1,)",
        "ratio",
    ),
    "complex_numbers": (
        lambda: call(x=X.astype(complex)),
        gc.DTypeError,
        "step: input 'x': complex128 given; needs float32: a float takes floats, integers and booleans",
        "x",
    ),
    "text": (
        lambda: call(x="abc"),
        gc.DTypeError,
        "step: input 'x': 'abc' given; needs float32: a float takes floats, integers and booleans",
        "x",
    ),
    "octets": (
        lambda: call(x=b"abc"),
        gc.DTypeError,
        "step: input 'x': b'abc' given; needs float32: a float takes floats, integers and booleans",
        "x",
    ),
    "none": (
        lambda: call(x=None),
        gc.DTypeError,
        "step: input 'x': None given; needs float32: a float takes floats, integers and booleans",
        "x",
    ),
    "objects": (
        lambda: call(x=np.full((3, 4), None)),
        gc.DTypeError,
        "step: input 'x': object given; needs float32: a float takes floats, integers and booleans",
        "x",
    ),
    "texts": (
        lambda: call(x=np.full((3, 4), "a")),
        gc.DTypeError,
        "step: input 'x': <U1 given; needs float32: a float takes floats, integers and booleans",
        "x",
    ),
    "dates": (
        lambda: call(x=np.zeros((3, 4), "datetime64[s]")),
        gc.DTypeError,
        "step: input 'x': datetime64[s] given; needs float32: a float takes floats, integers and booleans",
        "x",
    ),
    "records": (
        lambda: call(x=np.zeros((3, 4), [("a", "f4")])),
        gc.DTypeError,
        "step: input 'x': [('a', '<f4')] given; needs float32: a float takes floats, integers and booleans",
        "x",
    ),
    "masked": (
        lambda: call(x=np.ma.zeros((3, 4))),
        gc.DTypeError,
        "step: input 'x': a masked array given; needs float32: a float takes floats, integers and booleans",
        "x",
    ),
    "unreadable": (
        lambda: call(x=Unreadable()),
        gc.DTypeError,
        "step: input 'x': Unreadable given, which is not an array: not today; needs float32",
        "x",
    ),
    "a_set": (
        lambda: call(x={1, 2}),
        gc.DTypeError,
        "step: input 'x': object given; needs float32: a float takes floats, integers and booleans",
        "x",
    ),
    "float_labels": (
        lambda: call(y=np.zeros(3, np.float32)),
        gc.DTypeError,
        "step: input 'y': float32 given; needs int32: an integer takes integers and booleans",
        "y",
    ),
    "label_high": (
        lambda: call(y=np.array([0, 5, 0])),
        gc.IndexRangeError,
        "cross_entropy: index 5 at position 1 of y given; needs 0 <= index < 5",
        "loss",
    ),
    "label_negative": (
        lambda: call(y=np.array([0, 0, -1])),
        gc.IndexRangeError,
        "cross_entropy: index -1 at position 2 of y given; needs 0 <= index < 5",
        "loss",
    ),
    "label_wide": (
        lambda: call(y=np.array([0, 2**40, 0])),
        gc.DTypeError,
        "step: input 'y': 1099511627776 given; needs int32, from -2147483648 to 2147483647",
        "y",
    ),
    "label_unsigned": (
        lambda: call(y=np.array([0, 0, 2**63], np.uint64)),
        gc.DTypeError,
        "step: input 'y': 9223372036854775808 given; needs int32, from -2147483648 to 2147483647",
        "y",
    ),
    "rate_text": (
        lambda: call(lr="fast"),
        gc.DTypeError,
        "step: 'lr': 'fast' given; needs float32: a float takes floats, integers and booleans",
        "sgd",
    ),
    "rate_none": (
        lambda: call(lr=None),
        gc.DTypeError,
        "step: 'lr': None given; needs float32: a float takes floats, integers and booleans",
        "sgd",
    ),
    "rate_vector": (
        lambda: call(lr=np.zeros(2)),
        gc.ShapeError,
        "step: 'lr' of shape (2,) given; needs a single number",
        "sgd",
    ),
    "rate_complex": (
        lambda: call(lr=1j),
        gc.DTypeError,
        "step: 'lr': complex128 given; needs float32: a float takes floats, integers and booleans",
        "sgd",
    ),
    "params_unknown": (
        lambda: step.params["v"],
        gc.UnknownNameError,
        "step.params: 'v' given; there are w, b",
        "",
    ),
    "params_shape": (
        lambda: step.params.update(w=np.zeros(3)),
        gc.ShapeError,
        "step.params['w']: shape (3,) given; needs (4, 5)",
        "",
    ),
    "params_complex": (
        lambda: step.params.update(b=np.zeros(5, complex)),
        gc.DTypeError,
        "step.params['b']: complex128 given; needs float32: a float takes floats, integers and booleans",
        "",
    ),
    "params_deleted": (
        lambda: step.params.pop("w"),
        gc.UsageError,
        "step.params: an array cannot be removed",
        "",
    ),
    "state_unknown": (
        lambda: step.state["w"],
        gc.UnknownNameError,
        "step.state: 'w' given; there are sgd.v.w, sgd.v.b, count",
        "",
    ),
    "count_fraction": (
        lambda: step.state.update(count=1.5),  # type: ignore[call-overload]
        gc.DTypeError,
        "step.state['count']: float64 given; needs int64: an integer takes integers and booleans",
        "",
    ),
    "hyper_unknown": (
        lambda: step.hyper["rate"],
        gc.UnknownNameError,
        "step.hyper: 'rate' given; there are lr",
        "",
    ),
    "hyper_text": (
        lambda: step.hyper.update(lr="a"),  # type: ignore[call-overload]
        gc.DTypeError,
        "step.hyper: 'lr': 'a' given; needs float32: a float takes floats, integers and booleans",
        "sgd",
    ),
    "hyper_deleted": (
        lambda: step.hyper.pop("lr"),
        gc.UsageError,
        "step.hyper: a hyper-parameter cannot be removed",
        "",
    ),
    "fit_list": (
        lambda: step.fit([X, Y]),  # type: ignore[arg-type]
        gc.InputError,
        "step.fit: list given; needs a dict with an array for each input",
        "",
    ),
    "fit_missing": (
        lambda: step.fit({"x": X}),
        gc.InputError,
        "step.fit: input 'y' is missing; needs int32[N]",
        "y",
    ),
    "fit_unknown": (
        lambda: fit({"labels": Y}),
        gc.InputError,
        "step.fit: 'labels' given is no input; needs x, y",
        "",
    ),
    "fit_rows": (
        lambda: fit({"y": Y[:2]}),
        gc.ShapeError,
        "step.fit: input 'y' of shape (2,): axis 0 has size 2, needs N = 3 (N = 3 by input 'x'); declared (N,)",
        "y",
    ),
    "fit_empty": (
        lambda: fit({"x": X[:0], "y": Y[:0]}),
        gc.ShapeError,
        "step.fit: input 'x' of shape (0, 4): has no elements: every size is at least 1; declared (N, 4)",
        "x",
    ),
    "fit_rank": (
        lambda: fit({"x": X[0]}),
        gc.ShapeError,
        "step.fit: input 'x' of shape (4,): has rank 1, needs rank 2; declared (N, 4)",
        "x",
    ),
    "fit_complex": (
        lambda: fit({"x": X.astype(complex)}),
        gc.DTypeError,
        "step.fit: input 'x': complex128 given; needs float32: a float takes floats, integers and booleans",
        "x",
    ),
    "fit_label": (
        lambda: fit({"y": np.array([0, 0, 7])}),
        gc.IndexRangeError,
        "cross_entropy: index 7 at position 0 of y given; needs 0 <= index < 5 (step.fit: epoch 1 of 1, step 3 of 3)",
        "loss",
    ),
    "fit_batch_zero": (
        lambda: fit(batch_size=0),
        gc.InputError,
        "step.fit: batch_size=0 given; needs an integer of at least 1",
        "",
    ),
    "fit_batch_float": (
        lambda: fit(batch_size=2.5),
        gc.InputError,
        "step.fit: batch_size=2.5 given; needs an integer of at least 1",
        "",
    ),
    "fit_batch_text": (
        lambda: fit(batch_size="32"),
        gc.InputError,
        "step.fit: batch_size='32' given; needs an integer of at least 1",
        "",
    ),
    "fit_epochs": (
        lambda: fit(epochs=-1),
        gc.InputError,
        "step.fit: epochs=-1 given; needs an integer of at least 0",
        "",
    ),
    "fit_until": (
        lambda: fit(until="low"),
        gc.InputError,
        "step.fit: until='low' given; needs a number or None",
        "",
    ),
    "fit_seed": (
        lambda: fit(seed="a"),
        gc.InputError,
        "step.fit: seed='a' given; needs an integer or None",
        "",
    ),
    "fit_shuffle": (
        lambda: fit(shuffle="yes"),
        gc.InputError,
        "step.fit: shuffle='yes' given; needs True or False",
        "",
    ),
    "fit_progress": (
        lambda: fit(progress=1),
        gc.InputError,
        "step.fit: progress=1 given; needs True or False",
        "",
    ),
    "fit_validation_list": (
        lambda: fit(validation=[1]),
        gc.InputError,
        "step.fit: validation: list given; needs a dict with an array for each input",
        "",
    ),
    "fit_validation_missing": (
        lambda: fit(validation={"x": X}),
        gc.InputError,
        "step.fit: validation: input 'y' is missing; needs int32[N]",
        "y",
    ),
    "fit_validation_unknown": (
        lambda: fit(validation={"x": X, "y": Y, "labels": Y}),
        gc.InputError,
        "step.fit: validation: 'labels' given is no input; needs x, y",
        "",
    ),
    "fit_validation_shape": (
        lambda: fit(validation={"x": X[:, :2], "y": Y}),
        gc.ShapeError,
        "step.fit: validation: input 'x' of shape (3, 2): axis 1 has size 2, needs 4; declared (N, 4)",
        "x",
    ),
    "save_number": (
        lambda: step.save(3),  # type: ignore[arg-type]
        gc.UsageError,
        "step.save: 3 given; needs the path of a file",
        "",
    ),
    "save_nowhere": (
        lambda: step.save("no/such/folder/w.safetensors"),
        gc.FileAccessError,
        "step.save: cannot write 'no/such/folder/w.safetensors': No such file or directory",
        "",
    ),
    "save_folder": (
        lambda: step.save(os.curdir),
        gc.UsageError,
        "step.save: '.' given; needs the path of a file",
        "",
    ),
    "load_none": (
        lambda: step.load(None),  # type: ignore[arg-type]
        gc.UsageError,
        "step.load: None given; needs the path of a file",
        "",
    ),
    "load_missing": (
        lambda: step.load("missing.safetensors"),
        gc.FileAccessError,
        "step.load: 'missing.safetensors': cannot be read: No such file or directory",
        "",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named(name: str) -> None:
    mistake, kind, message, place = MISTAKES[name]
    with pytest.raises(gc.GraphcError) as caught:
        mistake()
    assert type(caught.value) is kind
    first, *lines = str(caught.value).split("\n")
    assert first == message
    if place == HERE:
        line = inspect.getsource(mistake).strip()
        assert lines == [f"  {__file__}:{mistake.__code__.co_firstlineno}: {line}"]
    elif place:
        (line,) = lines
        assert line.startswith(f"  {__file__}:")
        assert line.split(": ", 1)[1].startswith(DECLARED[place])
    else:
        assert lines == []


def test_mistakes_are_distinct() -> None:
    messages = [message for _, _, message, _ in MISTAKES.values()]
    print(f"{len(messages)} mistakes, {len(dict.fromkeys(messages))} messages")
    assert len(dict.fromkeys(messages)) >= 100


def test_a_file_that_is_no_steps(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(gc.FileFormatError) as caught:
        step.load(path)
    assert str(caught.value).startswith(f"step.load: {str(path)!r}: is no file that step.save wrote: SafetensorError: ")
    other = gc.compile(gc.sum(gc.square(u)), gc.optim.sgd(lr=0.1))
    other.save(path)
    with pytest.raises(gc.FileFormatError) as caught:
        step.load(path)
    assert str(caught.value) == (
        f"step.load: {str(path)!r}: lacks w, b, sgd.v.w, sgd.v.b and holds u besides; "
        "needs w, b, sgd.v.w, sgd.v.b, count"
    )


# Bad calls leave everything as it was


def malformed(rng: np.random.Generator, good: dict[str, object], rows: int) -> dict[str, object]:
    """The arguments of a good call with one thing wrong that no rule of conversion allows."""
    bad = dict(good)
    name = "xy"[int(rng.integers(2))]
    right = np.shape(np.asarray(good[name]))
    match int(rng.integers(9)):
        case 0:
            del bad[name]
        case 1:
            bad[str(rng.choice(["X", "labels", "batch_size", "w", "count", "", "x "]))] = bad[name]
        case 2:
            shape = tuple(int(n) for n in rng.integers(0, 6, int(rng.integers(0, 5))))
            bad[name] = np.zeros(shape if shape != right else (*shape, 1), np.int32)
        case 3:
            kinds = [complex, object, "U3", "S2", "datetime64[s]", "timedelta64[ms]", [("a", "f4")], np.clongdouble]
            bad[name] = np.zeros(right, kinds[int(rng.integers(len(kinds)))])  # type: ignore[call-overload]
        case 4:
            labels = np.array(good["y"], np.int64)
            labels[int(rng.integers(rows))] = rng.choice([-1, 5, 6, 2**31 - 1, -(2**31), 2**31, -(2**63), 2**63 - 1])
            bad["y"] = labels
        case 5:
            things = [None, "x", b"x", {1}, {"a": 1}, [[1], [1, 2]], Unreadable(), x, object(), ..., slice(2), len, 1j]
            bad[name] = things[int(rng.integers(len(things)))]
        case 6:
            rates = [None, "1", np.zeros(1), [0.1, 0.2], 1j, Unreadable(), x]
            bad["lr"] = rates[int(rng.integers(len(rates)))]
        case 7:
            bad["y"] = np.asarray(good["y"]).astype(rng.choice(["f4", "f8", "f2"]))
        case _:
            bad["x"] = np.ma.masked_array(np.asarray(good["x"])) if rows % 2 else np.asarray(good["x"]).T
            bad["x"] = bad["x"] if rows != 4 else None  # a transposed square fits
    return bad


def good_batch(rng: np.random.Generator) -> tuple[dict[str, object], int]:
    """A batch of a random size, in one of the forms that a call takes, with a learning rate or not."""
    rows = int(rng.integers(1, 40))
    values = rng.standard_normal((rows, 4))
    labels = rng.integers(0, 5, rows)
    forms = [values.astype(np.float32), values, values.tolist(), np.asfortranarray(values, np.float32)]
    batch: dict[str, object] = {"x": forms[int(rng.integers(len(forms)))]}
    batch["y"] = labels.astype(np.int32) if rng.random() < 0.5 else labels
    if rng.random() < 0.3:
        batch["lr"] = float(rng.random())
    return batch, rows


def bad_calls(target: gc.TrainStep, rng: np.random.Generator) -> None:
    """One malformed use of a step, of any kind."""
    good, rows = good_batch(rng)
    bad = malformed(rng, good, rows)
    with pytest.raises(gc.GraphcError):
        match int(rng.integers(12)):
            case 0:
                bad = {name: value for name, value in bad.items() if name != "lr"}
                same = all(bad.get(name) is good[name] for name in ("x", "y")) and len(bad) == 2
                # All rows in one batch, so that the first step is the bad one.
                target.fit(bad, batch_size=rows, epochs=-1 if same else 1, shuffle=False, progress=False)
            case 1:
                target.params["w"] = rng.standard_normal((5, 4))
            case 2:
                target.state["count"] = 0.5
            case 3:
                target(*good.values())
            case _:
                target(**bad)


def test_random_malformed_calls_change_nothing() -> None:
    rng = np.random.default_rng(11)
    battered = gc.compile(loss, gc.optim.adam(lr=0.05), seed=3)
    twin = gc.compile(loss, gc.optim.adam(lr=0.05), seed=3)
    good_calls = 0
    for number in range(CALLS):
        bad_calls(battered, rng)
        if number % 20 == 0:
            good, _ = good_batch(rng)
            assert battered(**good) == twin(**good)
            good_calls += 1
    assert battered.state["count"] == twin.state["count"] == good_calls
    for name in twin.params:
        assert battered.params[name].tobytes() == twin.params[name].tobytes()
    for name in twin.state:
        assert battered.state[name].tobytes() == twin.state[name].tobytes()
    assert dict(battered.hyper) == dict(twin.hyper)


# Indices computed inside the graph


def lookup(seed: int = 0) -> gc.TrainStep:
    """A step that reads rows of a table at indices that it computes from floats."""
    at = gc.input("at", (N,))
    table = gc.param("table", (7, 3), init=gc.init.normal())
    place = gc.cast(gc.floor(at * 10.0), "int32")
    return gc.compile(gc.mean(gc.square(gc.take(table, place, axis=0))), gc.optim.sgd(lr=0.1, momentum=0.9), seed=seed)


@pytest.mark.parametrize("value", [0.7, -0.01, 1e9, -1e30, np.inf, -np.inf])
def test_a_computed_index_out_of_range_is_caught(value: float) -> None:
    trained, twin = lookup(), lookup()
    good = np.linspace(0.0, 0.69, 50).astype(np.float32)
    assert trained(at=good) == twin(at=good)
    for place in (0, 17, 49):
        bad = good.copy()
        bad[place] = value
        message = rf"take: index -?\d+ at position {place} of place given; needs 0 <= index < 7"
        with pytest.raises(gc.IndexRangeError, match=message):
            trained(at=bad)
        with pytest.raises(gc.IndexRangeError, match=f"epoch 1 of 2, step {place // 10 + 1} of 5"):
            lookup().fit({"at": bad}, batch_size=10, epochs=2, shuffle=False, progress=False)
    assert trained.state["count"] == 1
    assert trained(at=good) == twin(at=good)
    assert trained.params["table"].tobytes() == twin.params["table"].tobytes()


def test_a_computed_index_that_is_no_number_reads_nothing_outside() -> None:
    trained = lookup()
    before = trained.params["table"].tobytes()
    try:
        value = trained(at=np.array([np.nan], np.float32))
    except gc.IndexRangeError:
        assert trained.params["table"].tobytes() == before
    else:
        assert np.isfinite(value)
