"""Compiled code looked at from outside: a loss explained with live numbers or drawn, a step timed or checked."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from graphc.compiler import compiled_program
from graphc.diff.derivatives import one
from graphc.diff.reverse import backward
from graphc.dsl.handle import located
from graphc.dsl.init import initial
from graphc.dsl.tensor import Tensor, given_values
from graphc.errors import GraphcError, UsageError
from graphc.graph.graph import Array, Node, copy_node, rebuild
from graphc.inspect.bench import SIZE, BenchReport
from graphc.inspect.bench import bench as time_calls
from graphc.inspect.check import CheckReport, check_graph
from graphc.inspect.draw import Drawing, check_path, tensor_drawing
from graphc.inspect.explain import Explanation, Ledger, ledger_of
from graphc.kernels.cost import Cost
from graphc.kernels.layout import Results
from graphc.llvm.target import host
from graphc.pipeline import LOSS, Declared, Options, as_inputs, with_training
from graphc.probes import drawn_inputs
from graphc.runtime.program import Program as Loaded
from graphc.runtime.step import Function, TrainStep


def explain(loss: Tensor, values: Mapping[str, ArrayLike] | None = None) -> Explanation:
    """The chain rule from a scalar loss back to every floating leaf, one row a node.

    values: arrays for the inputs by name (weights not given have their initial values); rows then hold live numbers,
    computed by compiled code whose results are all the ledger's nodes.

    Raises: NotDifferentiable for a loss that is no floating scalar; what ``Tensor.eval`` raises for values.

    >>> import graphc as gc
    >>> x, y = gc.input("x", (3,)), gc.input("y", (3,))
    >>> print(gc.explain(gc.sum(x * y)).rows[-1].terms[0].product)
    d_x = d_multiply[i] * y[i]
    >>> print(gc.explain(gc.sum(x * y), values={"x": [1, 2, 3], "y": [0.5, 0, 2]}).rows[-2].live.cotangent)
    d_y (3,): 1 to 3, norm 3.742
    """
    try:
        ledger = ledger_of(loss)
        if values is None:
            return ledger.explained()
        given = given_values(ledger.leaves, values, "explain")
        ends = dict(ledger.graph.outputs)
        nodes = {f"{node.number}": node for node in ledger.shown_nodes()}
        found = _computed(ledger, nodes, given)
        note = _rounding_note(ends, found, _computed(ledger, ends, given))
        return ledger.explained(found, note)
    except GraphcError as error:
        raise located(error) from None


def draw(
    tensor: Tensor, path: str | os.PathLike[str] | None = None, *, values: Mapping[str, ArrayLike] | None = None
) -> Drawing:
    """A drawing of a tensor's graph: of a scalar loss forward pass and gradients side by side, mirror images.

    A network of dense layers is drawn as neurons and arcs too. path: an SVG file to write, or a PNG file (needs
    resvg-py). values: arrays for the inputs; edges then carry the range of the value, or of the gradient, that passes
    them, and arcs the weights.

    Raises: UsageError for another kind of file; FileAccessError where it cannot be written; what ``explain`` raises.

    >>> import graphc as gc
    >>> x, w = gc.input("x", (8, 3)), gc.param("w", (3, 2))
    >>> gc.draw(gc.sum(x @ w)).svg.count('class="neuron"')
    5
    """
    try:
        check_path("draw", path)
        told = explain(tensor, values) if values is not None else None
        leaves = ledger_of(tensor).leaves if values is not None else {}
        given = given_values(leaves, values, "draw") if values is not None else {}
        made = tensor_drawing(tensor, told, {n: a for n, a in given.items() if leaves[n].kind == "param"})
        if path is not None:
            made.save(path)
        return made
    except GraphcError as error:
        raise located(error) from None


def _computed(ledger: Ledger, outputs: Mapping[str, Node], given: Mapping[str, Array]) -> dict[Node, Array]:
    """The values of some of a ledger's nodes, by one compiled function that gives them all."""
    graph = ledger.graph
    graph.outputs = {f"output {name}": node for name, node in outputs.items()}
    results = Results("dict", "", tuple((name, f"output {name}") for name in outputs))
    declared = Declared(as_inputs(with_training(graph, True)), results, ledger.leaves)
    compiled, _ = compiled_program(declared, Options())
    function = Function(Loaded(compiled, host(), None, name="explain"))
    wanted = [slot.name for slot in function.program.slots] + list(function.hyper)
    made = function(**{name: given[name] for name in wanted})
    return {node: made[name] for name, node in outputs.items()}


def _rounding_note(ends: Mapping[str, Node], found: Mapping[Node, Array], alone: Mapping[Node, Array]) -> str:
    """What keeping every row does to the results that a step computes too: fusion rounds otherwise."""
    differences = []
    for name, node in ends.items():
        a, b = (np.asarray(values[node], np.float64) for values in (found, alone))
        if not np.array_equal(a, b, equal_nan=True):
            scale = float(np.max(np.abs(b), initial=0.0)) or 1.0
            differences.append(f"{name} by {float(np.nanmax(np.abs(a - b))) / scale:.1e} of its largest")
    if not differences:
        return "numbers of compiled code that keeps every row; loss and gradients have the bits of one that keeps none"
    return (
        "numbers of compiled code that keeps every row; with none kept, kernels are fused otherwise, and round so:\n  "
        + ", ".join(differences)
    )


def bench(step: TrainStep | Function, sizes: Mapping[str, int], seconds: float = 1.0) -> BenchReport:
    """Times a compiled step or function on drawn inputs, beside the roofline of this machine.

    sizes: of the run-time dimensions; one that is not there is 32. Weights and states are afterwards as before.

    Raises: UsageError for a size that the step has not, or below 1.
    """
    given = inputs_for(step, sizes)
    dims = step.program.dims_of([given[slot.name] for slot in step.program.slots], "bench")
    live = [step.params, step.state] if isinstance(step, TrainStep) else []
    kept = [{name: np.array(value) for name, value in arrays.items()} for arrays in live]

    def restore() -> None:
        for arrays, before in zip(live, kept, strict=True):
            for name, value in before.items():
                arrays[name] = value

    sheet, program = step.cost(), step.program
    assert isinstance(sheet, Cost)
    try:
        return time_calls(
            program.name, lambda: step(**given), restore, program.layout, sheet, dims, program.members(dims), seconds
        )
    finally:
        restore()


def inputs_for(step: TrainStep | Function, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Drawn inputs of a compiled step or function. sizes: as for ``bench``, whose errors it raises."""
    declared = step.origin
    if not isinstance(declared, Declared):
        raise UsageError("bench: a step or function that gc.compile made is needed")
    dims = dict.fromkeys(step.program.layout.dims, SIZE)
    for name, value in sizes.items():
        if name not in dims:
            raise UsageError(f"bench: size {name} given; the step has {', '.join(dims) or 'no run-time sizes'}")
        if value < 1:
            raise UsageError(f"bench: {name} = {value} given; sizes are at least 1")
        dims[name] = value
    return drawn_inputs(declared, [slot.name for slot in step.program.slots], dims)


def check(step: TrainStep | Function, seed: int = 0) -> CheckReport:
    """The report on a compiled step or function: values against the reference, derivatives against differences.

    Raises: UsageError for a function that was loaded rather than compiled here.
    """
    if not isinstance(step.origin, Declared):
        raise UsageError("check: a step or function made by gc.compile is needed")
    declared = step.origin
    source = rebuild(declared.graph, copy_node)[0]
    source.updates = {}
    gradients: dict[str, str] = {}
    if declared.loss is not None:
        loss = source.outputs[LOSS]
        leaves = {node.attr: node for node in source.nodes if node.kind == "param"}
        wanted = [leaves[name] for name in declared.trained]
        cotangents = backward(source, {loss: one(source, loss.dtype.name)}, wanted).cotangents
        for name, node in zip(declared.trained, cotangents, strict=True):
            if node is not None:
                gradients[name] = f"d_{name}"
                source.outputs[f"d_{name}"] = node
    plain_graph = as_inputs(source)
    leaves_named = {
        str(n.attr): declared.leaves[str(n.attr)] for n in plain_graph.live() if n.kind in ("input", "hyper")
    }
    results = Results("dict", "", tuple((name, name) for name in plain_graph.outputs))
    compiled, _ = compiled_program(Declared(plain_graph, results, leaves_named), Options(cache=False))
    function = Function(Loaded(compiled, host(), None, name="check"))

    def run_compiled(values: Mapping[str, Array]) -> Mapping[str, Array]:
        wanted_names = [slot.name for slot in function.program.slots] + list(function.hyper)
        result = function(**{name: values[name] for name in wanted_names})
        assert isinstance(result, dict)
        return result

    start = {
        name: initial(leaf, name, seed)
        for name, leaf in leaves_named.items()
        if leaf.kind in ("param", "state") and leaf.leaf.init is not None
    }
    start |= {
        name: np.asarray(leaf.leaf.default, leaf.dtype.numpy)
        for name, leaf in leaves_named.items()
        if leaf.kind == "hyper"
    }
    return check_graph(plain_graph, run_compiled, start, LOSS if gradients else "", gradients, seed)
