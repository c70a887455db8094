"""Mistakes in declarations: each raises at once, with a message, compared whole, that ends with the user's line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc

N, M = gc.dim("N"), gc.dim("M")
x = gc.input("x", (3, 4))
v = gc.input("v", (4,))
n = gc.input("n", (N, 4))
k = gc.input("k", (3,), dtype="int32")
b = gc.input("b", (3, 4), dtype="bool")
cube = gc.input("cube", (2, 3, 4))
w = gc.param("w", (4, 2))
s = gc.state("s", (2,))
swish = gc.elementwise("swish", lambda x, beta: x / (1 + gc.sym.exp(-beta * x)))
bilinear = gc.formula("bilinear", "out[n,o] = sum(i) x[n,i] * w[i,o]")

Mistake = tuple[Callable[[], object], type[gc.GraphcError], str]

MISTAKES: dict[str, Mistake] = {
    "number_range": (
        lambda: k + 2**40,
        gc.DTypeError,
        "add: 1099511627776 given; int32 holds integers from -2147483648 to 2147483647",
    ),
    "number_huge": (
        lambda: x * 10**20,
        gc.DTypeError,
        "multiply: 100000000000000000000 given; int64 holds integers from -9223372036854775808 to 9223372036854775807",
    ),
    "const_range": (
        lambda: gc.const([0, -(2**40)], dtype="int32"),
        gc.DTypeError,
        "const: -1099511627776 given; int32 holds integers from -2147483648 to 2147483647",
    ),
    "stack_bare": (
        lambda: gc.stack(x),  # type: ignore[arg-type]
        gc.DefinitionError,
        "stack: Tensor given; needs a list of tensors",
    ),
    "mean_text": (
        lambda: gc.mean("x"),  # type: ignore[arg-type]
        gc.DTypeError,
        "mean: str given; needs a tensor, numbers or an array of them",
    ),
    "mse_shapes": (
        lambda: gc.mse(x, gc.const(np.zeros(3))),
        gc.ShapeError,
        "subtract: (3, 4) and (3,) do not broadcast; needs 4 == 3, or one of them 1",
    ),
    "name_empty": (
        lambda: gc.input("", (3,)),
        gc.DefinitionError,
        "input: name '' given; needs identifiers, joined by dots",
    ),
    "name_spaces": (
        lambda: gc.input("my x", (3,)),
        gc.DefinitionError,
        "input: name 'my x' given; needs identifiers, joined by dots",
    ),
    "name_number": (
        lambda: gc.param(3, (3,)),  # type: ignore[arg-type]
        gc.DefinitionError,
        "param: name 3 given; needs identifiers, joined by dots",
    ),
    "name_digit": (
        lambda: gc.state("1x"),
        gc.DefinitionError,
        "state: name '1x' given; needs identifiers, joined by dots",
    ),
    "dim_name": (
        lambda: gc.dim("2N"),
        gc.DefinitionError,
        "dim: name '2N' given; needs an identifier such as 'N'",
    ),
    "size_zero": (
        lambda: gc.input("x", (3, 0)),
        gc.ShapeError,
        "input 'x': shape (3, 0) given; sizes must be at least 1",
    ),
    "size_negative": (
        lambda: gc.input("x", (-1, 3)),
        gc.ShapeError,
        "input 'x': shape (-1, 3) given; sizes must be at least 1",
    ),
    "size_float": (
        lambda: gc.input("x", (3, 2.5)),  # type: ignore[arg-type]
        gc.DTypeError,
        "input 'x': size 2.5 given; needs an integer or a gc.dim",
    ),
    "size_bool": (
        lambda: gc.input("x", (True,)),
        gc.DTypeError,
        "input 'x': size True given; needs an integer or a gc.dim",
    ),
    "size_text": (
        lambda: gc.input("x", ("N",)),  # type: ignore[arg-type]
        gc.DTypeError,
        "input 'x': size 'N' given; needs an integer or a gc.dim",
    ),
    "param_dim": (
        lambda: gc.param("w", (N, 3)),
        gc.ShapeError,
        "param 'w': size N given; needs sizes known at declaration",
    ),
    "state_dim": (
        lambda: gc.state("s", (N,)),
        gc.ShapeError,
        "state 's': size N given; needs sizes known at declaration",
    ),
    "param_int": (
        lambda: gc.param("w", (3,), dtype="int32"),
        gc.DTypeError,
        "param 'w': int32 given; needs float32 or float64 (gc.state holds other types)",
    ),
    "dtype_unknown": (
        lambda: gc.input("x", (3,), dtype="float16"),
        gc.DTypeError,
        "input 'x': float16 given; needs one of float32, float64, int32, int64, bool",
    ),
    "dtype_nonsense": (
        lambda: gc.input("x", (3,), dtype="number"),
        gc.DTypeError,
        "input 'x': number given; needs one of float32, float64, int32, int64, bool",
    ),
    "dtype_complex": (
        lambda: gc.input("x", (3,), dtype=complex),
        gc.DTypeError,
        "input 'x': complex128 given; needs one of float32, float64, int32, int64, bool",
    ),
    "first_values_shape": (
        lambda: gc.param("w", (3,), init=[1.0, 2.0]),
        gc.DefinitionError,
        "param 'w': first values of shape (2,) given; needs (3,)",
    ),
    "first_values_type": (
        lambda: gc.param("w", (3,), init=["a", "b", "c"]),
        gc.DTypeError,
        "param 'w': first values of type <U1 given; needs numbers",
    ),
    "hyper_default": (
        lambda: gc.hyper("lr", "fast"),  # type: ignore[arg-type]
        gc.DTypeError,
        "hyper 'lr': default 'fast' given; needs a number",
    ),
    "hyper_bool": (
        lambda: gc.hyper("lr", True),
        gc.DTypeError,
        "hyper 'lr': default True given; needs a number",
    ),
    "hyper_dtype": (
        lambda: gc.hyper("lr", 1, dtype="int32"),
        gc.DTypeError,
        "hyper 'lr': dtype int32 given; needs a floating type",
    ),
    "const_complex": (
        lambda: gc.const(1j),
        gc.DTypeError,
        "const: complex given; needs a tensor, numbers or an array of them",
    ),
    "const_text": (
        lambda: gc.const("one"),
        gc.DTypeError,
        "const: str given; needs a tensor, numbers or an array of them",
    ),
    "const_ragged": (
        lambda: gc.const([[1.0, 2.0], [3.0]]),
        gc.ShapeError,
        "const: rows of different lengths given; needs an array",
    ),
    "const_empty": (
        lambda: gc.const([]),
        gc.ShapeError,
        "const: shape (0,) given; needs at least one element",
    ),
    "const_half": (
        lambda: gc.const(np.zeros(3, np.float16)),
        gc.DTypeError,
        "const: float16 given; needs one of float32, float64, int32, int64, bool (gc.const converts to one)",
    ),
    "add_shapes": (
        lambda: x + gc.input("z", (3, 5)),
        gc.ShapeError,
        "add: (3, 4) and (3, 5) do not broadcast; needs 4 == 5, or one of them 1",
    ),
    "add_dims": (
        lambda: n + gc.input("z", (M, 4)),
        gc.ShapeError,
        "add: (N, 4) and (M, 4) do not broadcast; needs N == M, or one of them 1",
    ),
    "add_none": (
        lambda: x + None,  # type: ignore[operator]
        gc.DTypeError,
        "add: NoneType given; needs a tensor, numbers or an array of them",
    ),
    "add_text": (
        lambda: x + "1",  # type: ignore[operator]
        gc.DTypeError,
        "add: str given; needs a tensor, numbers or an array of them",
    ),
    "matmul_inner": (
        lambda: x @ gc.input("z", (3, 4)),
        gc.ShapeError,
        "matmul: inner sizes differ: (3, 4) by (3, 4); needs 4 == 3",
    ),
    "matmul_scalar": (
        lambda: x @ 2.0,
        gc.ShapeError,
        "matmul: shape () given; needs at least 1 axis",
    ),
    "matmul_bool": (
        lambda: x @ b.T,
        gc.DTypeError,
        "matmul: bool given; needs numbers",
    ),
    "matmul_batch": (
        lambda: cube @ gc.input("z", (3, 4, 5)),
        gc.ShapeError,
        "matmul: (2,) and (3,) do not broadcast; needs 2 == 3, or one of them 1",
    ),
    "T_vector": (
        lambda: v.T,
        gc.ShapeError,
        "T: shape (4,) given; needs two axes (mT transposes the last two)",
    ),
    "mT_vector": (
        lambda: v.mT,
        gc.ShapeError,
        "mT: shape (4,) given; needs at least two axes",
    ),
    "sum_axis": (
        lambda: gc.sum(x, axis=2),
        gc.ShapeError,
        "sum: axis 2 given; needs -2 <= axis < 2",
    ),
    "sum_axis_float": (
        lambda: gc.sum(x, axis=1.0),  # type: ignore[arg-type]
        gc.DTypeError,
        "sum: axis 1.0 given; needs an integer",
    ),
    "sum_axis_twice": (
        lambda: gc.sum(x, axis=(0, -2)),
        gc.ShapeError,
        "sum: axis (0, -2) given; needs each axis once",
    ),
    "max_bool": (
        lambda: gc.max(b),
        gc.DTypeError,
        "max: bool given; needs numbers",
    ),
    "mean_axis": (
        lambda: gc.mean(x, axis=-3),
        gc.ShapeError,
        "mean: axis -3 given; needs -2 <= axis < 2",
    ),
    "var_correction": (
        lambda: gc.var(v, correction=4),
        gc.ShapeError,
        "var: 4 elements with correction 4 given; needs more elements than the correction",
    ),
    "var_fraction": (
        lambda: gc.var(n, axis=0, correction=0.5),
        gc.DTypeError,
        "var: correction 0.5 with a size known only at run time given; needs an integer",
    ),
    "norm_order": (
        lambda: gc.norm(x, ord=3),
        gc.DefinitionError,
        "norm: ord=3 given; needs 1, 2 or infinity",
    ),
    "argmax_axes": (
        lambda: gc.argmax(x, axis=(0, 1)),  # type: ignore[arg-type]
        gc.DTypeError,
        "argmax: axis (0, 1) given; needs an integer",
    ),
    "cumsum_axis": (
        lambda: gc.cumsum(x),
        gc.ShapeError,
        "cumsum: 2 axes and no axis given; needs an axis",
    ),
    "reshape_size": (
        lambda: gc.reshape(x, (5, 2)),
        gc.ShapeError,
        "reshape: (3, 4) to (5, 2) given; needs as many elements: 12 == 10",
    ),
    "reshape_two": (
        lambda: gc.reshape(x, (-1, -1)),
        gc.ShapeError,
        "reshape: (3, 4) to (-1, -1) given; only one size may be -1",
    ),
    "reshape_dim": (
        lambda: gc.reshape(n, (3, -1)),
        gc.ShapeError,
        "reshape: (N, 4) to (3, -1) given; 4*N elements do not divide by 3",
    ),
    "reshape_float": (
        lambda: gc.reshape(x, (3.0, 4)),  # type: ignore[arg-type]
        gc.DTypeError,
        "reshape: size 3.0 given; needs an integer or a gc.dim",
    ),
    "reshape_divide": (
        lambda: gc.reshape(x, (5, -1)),
        gc.ShapeError,
        "reshape: (3, 4) to (5, -1) given; 12 elements do not divide by 5",
    ),
    "permute_dims": (
        lambda: gc.permute_dims(x, (0, 0)),
        gc.ShapeError,
        "permute_dims: axes (0, 0) given; needs each of the 2 axes of (3, 4) once",
    ),
    "permute_short": (
        lambda: gc.permute_dims(cube, (0, 1)),
        gc.ShapeError,
        "permute_dims: axes (0, 1) given; needs each of the 3 axes of (2, 3, 4) once",
    ),
    "expand_dims": (
        lambda: gc.expand_dims(x, 4),
        gc.ShapeError,
        "expand_dims: axis 4 given; needs -3 <= axis < 3",
    ),
    "squeeze": (
        lambda: gc.squeeze(x, axis=0),
        gc.ShapeError,
        "squeeze: axis 0 of (3, 4) given; needs an axis of size 1",
    ),
    "broadcast_to": (
        lambda: gc.broadcast_to(x, (3, 5)),
        gc.ShapeError,
        "broadcast_to: (3, 4) to (3, 5) given; each size needs to be 1 or the same",
    ),
    "concat_none": (
        lambda: gc.concat([]),
        gc.DefinitionError,
        "concat: no list of tensors given; needs at least one tensor in a list",
    ),
    "concat_bare": (
        lambda: gc.concat(x),  # type: ignore[arg-type]
        gc.DefinitionError,
        "concat: no list of tensors given; needs at least one tensor in a list",
    ),
    "concat_sizes": (
        lambda: gc.concat([x, cube]),
        gc.ShapeError,
        "concat: (3, 4) and (2, 3, 4) along axis 0 given; all other sizes need to agree",
    ),
    "concat_other": (
        lambda: gc.concat([x, gc.input("z", (3, 5))], axis=0),
        gc.ShapeError,
        "concat: (3, 4) and (3, 5) along axis 0 given; all other sizes need to agree",
    ),
    "stack_shapes": (
        lambda: gc.stack([x, v]),
        gc.ShapeError,
        "stack: (3, 4) and (4,) given; needs one shape",
    ),
    "stack_none": (
        lambda: gc.stack([]),
        gc.DefinitionError,
        "stack: no tensors given; needs at least one in a list",
    ),
    "split_uneven": (
        lambda: gc.split(x, 3, axis=1),
        gc.ShapeError,
        "split: 3 parts of an axis of size 4 given; needs parts that divide it",
    ),
    "split_dim": (
        lambda: gc.split(n, 2),
        gc.ShapeError,
        "split: 2 parts of an axis of size N given; needs parts that divide it",
    ),
    "split_places": (
        lambda: gc.split(x, [3, 2], axis=1),
        gc.ShapeError,
        "slice: [3:2] of an axis of size 4 given; it has no elements",
    ),
    "pad_widths": (
        lambda: gc.pad(x, (1, -1)),
        gc.ShapeError,
        "pad: widths (1, -1) given; needs (before, after) of at least 0 for each of 2 axes",
    ),
    "pad_value": (
        lambda: gc.pad(k, 1, value=0.5),
        gc.DTypeError,
        "pad: value 0.5 for int32 given; needs an integer",
    ),
    "pad_tensor": (
        lambda: gc.pad(x, 1, value=gc.const(1.0)),  # type: ignore[arg-type]
        gc.DTypeError,
        "pad: a tensor given as value; needs a number",
    ),
    "roll_dim": (
        lambda: gc.roll(n, 2, axis=0),
        gc.ShapeError,
        "roll: shift 2 of an axis of size N given; a size known only at run time takes -1, 0 or 1",
    ),
    "roll_float": (
        lambda: gc.roll(x, 1.5, axis=0),  # type: ignore[arg-type]
        gc.DTypeError,
        "roll: shift 1.5 given; needs an integer",
    ),
    "tile": (
        lambda: gc.tile(x, 0),
        gc.ShapeError,
        "tile: repetitions 0 given; needs integers of at least 1",
    ),
    "repeat": (
        lambda: gc.repeat(x, 1.5),  # type: ignore[arg-type]
        gc.ShapeError,
        "repeat: repetitions 1.5 given; needs an integer of at least 1",
    ),
    "flip_axis": (
        lambda: gc.flip(x, axis=5),
        gc.ShapeError,
        "flip: axis 5 given; needs -2 <= axis < 2",
    ),
    "index_range": (
        lambda: x[3],
        gc.IndexRangeError,
        "slice: index 3 of axis 0 given; needs -3 <= index < 3",
    ),
    "index_negative": (
        lambda: x[0, -5],
        gc.IndexRangeError,
        "slice: index -5 of axis 1 given; needs -4 <= index < 4",
    ),
    "index_dim": (
        lambda: n[2],
        gc.IndexRangeError,
        "slice: index 2 of axis 0 given; needs -N <= index < N for every run-time size",
    ),
    "index_many": (
        lambda: x[0, 0, 0],
        gc.ShapeError,
        "slice: 3 indices given for shape (3, 4); needs at most 2",
    ),
    "index_ellipses": (
        lambda: x[..., ...],
        gc.ShapeError,
        "slice: '...' given twice; needs it once at most",
    ),
    "index_float": (
        lambda: x[1.0],
        gc.DTypeError,
        "slice: index 1.0 given; needs integers, slices, None, '...' or one integer tensor",
    ),
    "index_mask": (
        lambda: x[b],
        gc.DTypeError,
        "take: indices of type bool given; needs int32 or int64",
    ),
    "index_floats": (
        lambda: x[v],
        gc.DTypeError,
        "take: indices of type float32 given; needs int32 or int64",
    ),
    "index_two": (
        lambda: cube[gc.const([0]), gc.const([1])],
        gc.ShapeError,
        "slice: two index tensors given; needs one at most (gc.gather reads element by element)",
    ),
    "slice_empty": (
        lambda: x[2:1],
        gc.ShapeError,
        "slice: [2:1] of an axis of size 3 given; it has no elements",
    ),
    "slice_step": (
        lambda: x[::0],
        gc.DTypeError,
        "slice: step 0 given; needs an integer other than 0",
    ),
    "slice_float": (
        lambda: x[0.5:],
        gc.DTypeError,
        "slice: bound 0.5 given; needs an integer or a size",
    ),
    "slice_dim": (
        lambda: n[1:3],
        gc.ShapeError,
        "slice: [1:3] of an axis of size N given; needs bounds inside it for every run-time size",
    ),
    "bool": (
        lambda: bool(x == 1),
        gc.UsageError,
        "bool: a tensor's value is not known while the graph is declared; use gc.where for a choice",
    ),
    "if_chain": (
        lambda: 0 < v[0] < 1,
        gc.UsageError,
        "bool: a tensor's value is not known while the graph is declared; use gc.where for a choice",
    ),
    "float": (
        lambda: float(gc.sum(x)),
        gc.UsageError,
        "float: a tensor's value is not known while the graph is declared; .eval() computes it",
    ),
    "int": (
        lambda: int(gc.sum(x)),
        gc.UsageError,
        "int: a tensor's value is not known while the graph is declared; .eval() computes it",
    ),
    "range": (
        lambda: range(gc.sum(k)),
        gc.UsageError,
        "index: a tensor's value is not known while the graph is declared; gc.take reads at tensors",
    ),
    "numpy": (
        lambda: np.asarray(x),
        gc.UsageError,
        "NumPy: a tensor is an expression, not an array; .eval() computes its value",
    ),
    "len_dim": (
        lambda: len(n),
        gc.UsageError,
        "len: the first axis has size N, known only at run time; use .shape[0]",
    ),
    "len_scalar": (
        lambda: len(gc.sum(x)),
        gc.UsageError,
        "len: a tensor without axes has no length",
    ),
    "iter_dim": (
        lambda: list(n),
        gc.UsageError,
        "iteration: shape (N, 4) given; needs a first axis of known size",
    ),
    "and_float": (
        lambda: x & b,
        gc.DTypeError,
        "&: float32 given; needs bool (gc.logical_and and its like take numbers)",
    ),
    "invert": (
        lambda: ~x,
        gc.DTypeError,
        "~: float32 given; needs bool (gc.logical_and and its like take numbers)",
    ),
    "einsum_letters": (
        lambda: gc.einsum("iJ->i", x),
        gc.DefinitionError,
        "einsum: 'iJ->i' given; needs lower-case letters, commas, '...' and '->'",
    ),
    "einsum_count": (
        lambda: gc.einsum("ij,jk->ik", x),
        gc.DefinitionError,
        "einsum: 'ij,jk->ik' names 2 operands; 1 given",
    ),
    "einsum_rank": (
        lambda: gc.einsum("ijk->i", x),
        gc.ShapeError,
        "einsum: 'ijk->i' gives 3 indices to an operand with 2 axes",
    ),
    "einsum_sizes": (
        lambda: gc.einsum("ij,jk->ik", x, x),
        gc.ShapeError,
        "einsum: index 'j' of 'ij,jk->ik' has sizes 4 and 3; needs one size",
    ),
    "einsum_result": (
        lambda: gc.einsum("ij->iz", x),
        gc.DefinitionError,
        "einsum: 'ij->iz' given; each index of the result must occur on the left, once on the right",
    ),
    "einsum_none": (
        lambda: gc.einsum(x),  # type: ignore[arg-type]
        gc.DefinitionError,
        "einsum: <x: float32(3, 4) input> given; needs index letters, then at least one tensor",
    ),
    "tensordot_axes": (
        lambda: gc.tensordot(x, x, axes=3),
        gc.ShapeError,
        "tensordot: axes=3 given; needs 0 <= axes <= 2",
    ),
    "tensordot_sizes": (
        lambda: gc.tensordot(x, x, axes=1),
        gc.ShapeError,
        "tensordot: axis 1 of (3, 4) with axis 0 of (3, 4) given; needs 4 == 3",
    ),
    "tensordot_pairs": (
        lambda: gc.tensordot(x, x, axes=((0,), (0, 1))),
        gc.ShapeError,
        "tensordot: axes=((0,), (0, 1)) given; needs as many axes of each operand, each once",
    ),
    "outer": (
        lambda: gc.outer(x, v),
        gc.ShapeError,
        "outer: (3, 4) and (4,) given; needs two vectors",
    ),
    "trace": (
        lambda: gc.trace(v),
        gc.ShapeError,
        "trace: shape (4,) given; needs at least 2 axes",
    ),
    "trace_offset": (
        lambda: gc.trace(x, offset=7),
        gc.ShapeError,
        "trace: offset 7 given; (3, 4) has no such diagonal",
    ),
    "diag_dims": (
        lambda: gc.diag(gc.input("z", (N, M))),
        gc.ShapeError,
        "diag: sizes N and M given; which is smaller is known only at run time",
    ),
    "take_float": (
        lambda: gc.take(x, v),
        gc.DTypeError,
        "take: indices of type float32 given; needs int32 or int64",
    ),
    "take_axis": (
        lambda: gc.take(x, k, axis=2),
        gc.ShapeError,
        "take: axis 2 given; needs -2 <= axis < 2",
    ),
    "gather_shape": (
        lambda: gc.gather(x, gc.const([[0, 1]])),
        gc.ShapeError,
        "gather: (3, 4) at indices (1, 2) along axis 1 given; all other sizes need to agree",
    ),
    "one_hot_float": (
        lambda: gc.one_hot(v, 3),
        gc.DTypeError,
        "one_hot: indices of type float32 given; needs int32 or int64",
    ),
    "one_hot_size": (
        lambda: gc.one_hot(k, 0),
        gc.ShapeError,
        "one_hot: size 0 given; needs an integer of at least 1",
    ),
    "scatter_shape": (
        lambda: gc.scatter_add(x, k, v),
        gc.ShapeError,
        "scatter_add: (4,) at indices (3,) into (3, 4) along axis 0 given; indices and source need one shape, and all "
        "sizes but the axis's those of the target",
    ),
    "index_add_shape": (
        lambda: gc.index_add(x, k, v),
        gc.ShapeError,
        "index_add: source (4,) at indices (3,) into (3, 4) along axis 0 given; needs a source of (3, 4)",
    ),
    "cast": (
        lambda: gc.cast(x, "float128"),
        gc.DTypeError,
        "cast: float128 given; needs one of float32, float64, int32, int64, bool",
    ),
    "where_shape": (
        lambda: gc.where(b, v, gc.input("z", (3,))),
        gc.ShapeError,
        "where: (3, 4) and (4,) and (3,) do not broadcast; needs 4 == 3, or one of them 1",
    ),
    "pow_negative": (
        lambda: k**-1,
        gc.DTypeError,
        "pow: int32 to the power -1 given; needs an exponent of at least 0, or floats",
    ),
    "gelu": (
        lambda: gc.gelu(x, approximate="erf"),
        gc.DTypeError,
        "gelu: approximate='erf' given; needs 'none' or 'tanh'",
    ),
    "cross_entropy_type": (
        lambda: gc.cross_entropy(x, b),
        gc.DTypeError,
        "cross_entropy: classes of type bool given; needs int32 or int64",
    ),
    "cross_entropy_shape": (
        lambda: gc.cross_entropy(x, gc.const([0, 1])),
        gc.ShapeError,
        "cross_entropy: classes of shape (2,) for (3, 4) with classes along axis 1 given; needs (3,)",
    ),
    "cross_entropy_probabilities": (
        lambda: gc.cross_entropy(x, v),
        gc.ShapeError,
        "cross_entropy: probabilities of shape (4,) for logits (3, 4) given; needs one shape, and no ignore_index",
    ),
    "cross_entropy_smoothing": (
        lambda: gc.cross_entropy(x, k, label_smoothing=2.0),
        gc.DefinitionError,
        "cross_entropy: label_smoothing=2.0 given; needs 0 to 1",
    ),
    "nll_float": (
        lambda: gc.nll(x, v),
        gc.DTypeError,
        "nll: classes of type float32 given; needs int32 or int64",
    ),
    "reduction": (
        lambda: gc.mse(x, x, reduction="average"),
        gc.DefinitionError,
        "mse: reduction='average' given; needs 'mean', 'sum' or 'none'",
    ),
    "stop_gradient": (
        lambda: gc.stop_gradient("x"),  # type: ignore[arg-type]
        gc.DTypeError,
        "stop_gradient: str given; needs a tensor, numbers or an array of them",
    ),
    "named": (
        lambda: x.named(""),
        gc.DTypeError,
        "named: '' given; needs a text",
    ),
    "named_leaf": (
        lambda: x.named("z"),
        gc.UsageError,
        "named: input 'x' has its name from its declaration",
    ),
    "updates_target": (
        lambda: gc.with_updates(gc.sum(x), {x: x}),
        gc.DefinitionError,
        "with_updates: <x: float32(3, 4) input> given; needs a gc.state or a gc.param",
    ),
    "updates_shape": (
        lambda: gc.with_updates(gc.sum(x), {s: v}),
        gc.ShapeError,
        "with_updates: (4,) given for s; needs (2,)",
    ),
    "updates_type": (
        lambda: gc.with_updates(gc.sum(x), {s: gc.cast(s, "float64")}),
        gc.DTypeError,
        "with_updates: float64 given for s; needs float32",
    ),
    "elementwise_name": (
        lambda: gc.elementwise("my op", lambda x: x),
        gc.DefinitionError,
        "elementwise: name 'my op' given; needs identifiers, joined by dots",
    ),
    "elementwise_function": (
        lambda: gc.elementwise("double", "2*x"),  # type: ignore[arg-type]
        gc.DefinitionError,
        "elementwise 'double': str given; needs a function of scalars",
    ),
    "elementwise_count": (
        lambda: swish(x),
        gc.DTypeError,
        "swish: its formula raised TypeError: <lambda>() missing 1 required positional argument: 'beta'",
    ),
    "elementwise_shapes": (
        lambda: swish(x, gc.input("z", (3,))),
        gc.ShapeError,
        "swish: (3, 4) and (3,) do not broadcast; needs 4 == 3, or one of them 1",
    ),
    "elementwise_none": (
        lambda: swish(),
        gc.DefinitionError,
        "swish: nothing given; needs at least one tensor",
    ),
    "elementwise_raises": (
        lambda: gc.elementwise("bad", lambda x: x.exp())(x),
        gc.DTypeError,
        "bad: its formula raised AttributeError: 'Symbol' object has no attribute 'exp'",
    ),
    "elementwise_result": (
        lambda: gc.elementwise("bad", lambda x: "x")(x),
        gc.DTypeError,
        "bad: its formula gives a str; needs a scalar",
    ),
    "elementwise_bool": (
        lambda: gc.elementwise("bad", lambda x: x if x > 0 else -x)(x),
        gc.DTypeError,
        "elementwise: a formula's value is not known while it is written; use gc.sym.where for a choice",
    ),
    "elementwise_arity": (
        lambda: gc.elementwise("bad", lambda x: gc.sym.exp(x, x))(x),
        gc.DTypeError,
        "sym.exp: 2 operands given; takes 1",
    ),
    "elementwise_math": (
        lambda: gc.elementwise("bad", lambda x: math.exp(x))(x),
        gc.DTypeError,
        "bad: its formula raised TypeError: Cannot convert expression to float",
    ),
    "formula_name": (
        lambda: gc.formula("", "y[i] = x[i]"),
        gc.DefinitionError,
        "formula: name '' given; needs identifiers, joined by dots",
    ),
    "formula_text": (
        lambda: gc.formula("f", "y[i] = x[i"),
        gc.DefinitionError,
        "formula: ']' expected, the end found, at character 11 of 'y[i] = x[i'",
    ),
    "formula_unbound": (
        lambda: gc.formula("f", "y[i] = x[i, j]")(x),
        gc.DefinitionError,
        "formula: j is bound by nothing in 'y[i] = x[i, j]'; an index stands in out[…] or in the reduction, a "
        "dimension in an operand's shape, and an operand without axes is written j[]",
    ),
    "formula_reduction": (
        lambda: gc.formula("f", "y[i] = mean(j) x[i, j]"),
        gc.DefinitionError,
        "formula: 'x' was not expected, at character 16 of 'y[i] = mean(j) x[i, j]'",
    ),
    "formula_function": (
        lambda: gc.formula("f", "y[i, j] = foo(x[i, j])")(x),
        gc.DefinitionError,
        "formula: foo is no scalar function, in 'y[i, j] = foo(x[i, j])'",
    ),
    "formula_count": (
        lambda: bilinear(x),
        gc.DefinitionError,
        "bilinear: 1 by position given; needs x, w, each once",
    ),
    "formula_names": (
        lambda: bilinear(x, w, z=w),
        gc.DefinitionError,
        "bilinear: 2 by position and z by name given; needs x, w, each once",
    ),
    "formula_sizes": (
        lambda: bilinear(x, x),
        gc.ShapeError,
        "formula: index i has different ranges, 4 in x[n, i] and 3 in w[i, o], in 'out[n,o] = sum(i) x[n,i] * w[i,o]'",
    ),
    "formula_rank": (
        lambda: bilinear(v, w),
        gc.ShapeError,
        "formula: x is read at 2 indices; it has 1 axes, shape (4,), in 'out[n,o] = sum(i) x[n,i] * w[i,o]'",
    ),
    "dense_type": (
        lambda: gc.nn.dense(k, 3),
        gc.DTypeError,
        "nn.dense: int32 given; needs float32 or float64 (gc.cast converts)",
    ),
    "dense_scalar": (
        lambda: gc.nn.dense(gc.sum(x), 3),
        gc.ShapeError,
        "nn.dense: shape () given; needs a last axis of a size known at declaration",
    ),
    "dense_dim": (
        lambda: gc.nn.dense(gc.input("z", (3, N)), 3),
        gc.ShapeError,
        "nn.dense: shape (3, N) given; needs a last axis of a size known at declaration",
    ),
    "dense_units": (
        lambda: gc.nn.dense(x, 0),
        gc.DefinitionError,
        "nn.dense: units=0 given; needs an integer of at least 1",
    ),
    "dense_activation": (
        lambda: gc.nn.dense(x, 3, activation="rleu"),
        gc.DefinitionError,
        "nn.dense: activation='rleu' given; needs a function or one of relu, leaky_relu, elu, selu, gelu, "
        "silu, sigmoid, tanh, softplus, softsign, hardtanh, softmax, log_softmax",
    ),
    "dense_name": (
        lambda: gc.nn.dense(x, 3, name="fc 1"),
        gc.DefinitionError,
        "param: name 'fc 1.w' given; needs identifiers, joined by dots",
    ),
    "mlp_sizes": (
        lambda: gc.nn.mlp(x, []),
        gc.DefinitionError,
        "nn.mlp: sizes=[] given; needs a list of at least one number of units",
    ),
    "mlp_number": (
        lambda: gc.nn.mlp(x, 3),  # type: ignore[arg-type]
        gc.DefinitionError,
        "nn.mlp: sizes=3 given; needs a list of at least one number of units",
    ),
    "sgd_nesterov": (
        lambda: gc.optim.sgd(nesterov=True),
        gc.DefinitionError,
        "optim.sgd: nesterov=True without momentum given; needs momentum > 0",
    ),
    "sgd_momentum": (
        lambda: gc.optim.sgd(momentum=-1),
        gc.DefinitionError,
        "optim.sgd: momentum -1 given; needs 0.0 <= momentum <= 1.0",
    ),
    "adam_beta": (
        lambda: gc.optim.adam(beta1=1.5),
        gc.DefinitionError,
        "optim.adam: beta1 1.5 given; needs 0.0 <= beta1 <= 1.0",
    ),
    "clip_norm": (
        lambda: gc.optim.clip_by_global_norm(gc.optim.sgd(), 0),
        gc.DefinitionError,
        "optim.clip_by_global_norm: max_norm 0 given; needs a number above 0",
    ),
    "grad_vector": (
        lambda: gc.grad(x, w),
        gc.NotDifferentiable,
        "grad: a loss of shape (3, 4) given; needs a scalar: reduce it with gc.mean or gc.sum",
    ),
    "grad_unused": (
        lambda: gc.grad(gc.sum(x), w),
        gc.NotDifferentiable,
        "grad: the result does not depend on w; unused='zero' gives zeros",
    ),
    "grad_int": (
        lambda: gc.grad(gc.sum(k), x),
        gc.NotDifferentiable,
        "grad: a tensor of int64 given; only floats carry derivatives",
    ),
    "grad_wrt_int": (
        lambda: gc.grad(gc.sum(x), k),
        gc.NotDifferentiable,
        "grad: a tensor of int32 given; only floats carry derivatives",
    ),
    "grad_option": (
        lambda: gc.grad(gc.sum(x), x, unused="none"),
        gc.NotDifferentiable,
        "grad: unused='none' given; needs 'raise' or 'zero'",
    ),
    "vjp_shape": (
        lambda: gc.vjp(x, x, v),
        gc.ShapeError,
        "vjp: a cotangent of shape (4,) given; needs (3, 4)",
    ),
    "vjp_count": (
        lambda: gc.vjp([x], [x], [x, x]),
        gc.ShapeError,
        "vjp: 2 cotangents for 1 outputs given; needs one each",
    ),
    "jvp_shape": (
        lambda: gc.jvp(x, x, v),
        gc.ShapeError,
        "jvp: a tangent of shape (4,) given; needs (3, 4)",
    ),
    "grad_list": (
        lambda: gc.grad(gc.sum(x), "x"),  # type: ignore[arg-type]
        gc.UsageError,
        "grad: str given; needs tensors",
    ),
    "eval_missing": (
        lambda: gc.sum(x).eval(),
        gc.InputError,
        "eval: input 'x' is missing; it has shape (3, 4)",
    ),
    "eval_unknown": (
        lambda: gc.sum(x).eval(x=np.zeros((3, 4)), y=1),
        gc.InputError,
        "eval: 'y' given; the tensor has x",
    ),
    "eval_shape": (
        lambda: gc.sum(x).eval(x=np.zeros((4, 3))),
        gc.ShapeError,
        "x: shape (4, 3) given; needs (3, 4)",
    ),
    "eval_type": (
        lambda: gc.sum(k).eval(k=[0.5, 1, 2]),
        gc.DTypeError,
        "eval: k of type float64 given; needs int32",
    ),
    "eval_dims": (
        lambda: gc.sum(n + gc.input("m", (N, 1))).eval(n=np.zeros((2, 4)), m=np.zeros((3, 1))),
        gc.ShapeError,
        "m: shape (3, 1) given; needs (N, 1) where N = 2",
    ),
    "eval_size": (
        lambda: gc.grad(gc.sum(n), n).eval(),
        gc.InputError,
        "size N is in the shape of no value given; needs an input whose shape has N",
    ),
    "eval_index": (
        lambda: x[k].eval(x=np.zeros((3, 4)), k=[0, 3, 1]),
        gc.IndexRangeError,
        "take: index 3 at position 1 of k given; needs 0 <= index < 3",
    ),
    "eval_text": (
        lambda: gc.sum(x).eval(x="a"),
        gc.DTypeError,
        "eval: x of type <U1 given; needs float32",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named(name: str) -> None:
    mistake, kind, message = MISTAKES[name]
    with pytest.raises(kind) as caught:
        mistake()
    assert type(caught.value) is kind
    first, place = str(caught.value).split("\n")
    assert first == message
    line = inspect.getsource(mistake).strip()
    assert place == f"  {__file__}:{mistake.__code__.co_firstlineno}: {line}"


def test_mistakes_are_distinct() -> None:
    messages = [message for _, _, message in MISTAKES.values()]
    assert len(dict.fromkeys(messages)) >= 150


def test_a_tensor_is_not_assigned_to() -> None:
    with pytest.raises(gc.UsageError, match="a tensor never changes"):
        x[0] = 1.0


def test_a_graph_is_unharmed_by_a_mistake() -> None:
    y = x * 2.0
    with pytest.raises(gc.ShapeError):
        y @ y
    np.testing.assert_array_equal(gc.sum(y).eval(x=np.ones((3, 4))), 24)


def test_one_name_declared_twice_names_both_lines() -> None:
    first = gc.input("a", (3,))
    second = gc.input("a", (3,))
    with pytest.raises(gc.DefinitionError) as caught:
        (first + second).eval(a=np.zeros(3))
    message, *places = str(caught.value).split("\n")
    assert message == "input: the name 'a' is declared twice; needs a name of its own"
    assert [place.split(": ", 1)[1] for place in places] == [
        'first = gc.input("a", (3,))',
        'second = gc.input("a", (3,))',
    ]
