"""From declared tensors to a training step or a function, by way of the disk; and looking into what was compiled.

The compiled program is kept on disk under a key of everything that decides it. A hit skips every stage of ``pipeline``,
and ``show`` builds them when asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from graphc.diff.derivatives import one
from graphc.diff.reverse import backward
from graphc.dsl.handle import located
from graphc.dsl.init import initial
from graphc.dsl.targets import (
    Optimizer,
    check_loss,
    check_seed,
    check_threads,
)
from graphc.dsl.tensor import Tensor, given_values
from graphc.errors import DefinitionError, GraphcError, InternalError, UsageError
from graphc.graph.formula import data_indices
from graphc.graph.graph import NAMED, Array, Node, Passage, copy_node, rebuild
from graphc.graph.text import to_text
from graphc.inspect.autopsy import Autopsy, autopsy
from graphc.inspect.bench import BenchReport
from graphc.inspect.bench import bench as time_calls
from graphc.inspect.check import CheckReport, check_graph, drawn
from graphc.inspect.draw import Drawing, check_path, tensor_drawing
from graphc.inspect.explain import Explanation, Ledger, ledger_of
from graphc.inspect.profile import Profile, copied
from graphc.inspect.profile import profile as profile_calls
from graphc.kernels.cost import Cost, cost
from graphc.kernels.form import FiniteCheck
from graphc.kernels.layout import Layout, Results
from graphc.kernels.lower import prepared
from graphc.kernels.told import told
from graphc.llvm.counters import COUNTERS
from graphc.llvm.emit import emit
from graphc.llvm.target import host
from graphc.look import report, rich, show
from graphc.pipeline import (
    LOSS,
    Declared,
    Options,
    as_inputs,
    declare_function,
    declare_step,
    every_value,
    means_infinity,
    stages,
    uncollected,
    with_declarations,
    with_training,
)
from graphc.runtime import cache as disk
from graphc.runtime.jit import compiler_version
from graphc.runtime.program import Compiled, Examine, compile_program
from graphc.runtime.program import Program as Loaded
from graphc.runtime.step import Function, Look, Tools, TrainStep
from graphc.runtime.store import Store, make_store
from graphc.runtime.team import thread_count

SIZE = 32  # a run-time size that nobody gave, where inputs are drawn


@overload
def compile(
    target: Tensor,
    optimizer: Optimizer,
    *,
    outputs: Mapping[str, Tensor] | None = None,
    updates: Mapping[Tensor, Tensor] | None = None,
    train: Sequence[Tensor] | None = None,
    seed: int = 0,
    record: bool = False,
    threads: int | None = None,
    fast_math: bool = True,
    assume_finite: bool = False,
    debug: bool = False,
    cache: bool = True,
) -> TrainStep: ...
@overload
def compile(
    target: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    optimizer: None = None,
    *,
    threads: int | None = None,
    fast_math: bool = True,
    assume_finite: bool = False,
    debug: bool = False,
    cache: bool = True,
) -> Function: ...
def compile(  # the array API's and JAX's word for it; the builtin is not used here
    target: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    optimizer: Optimizer | None = None,
    *,
    outputs: Mapping[str, Tensor] | None = None,
    updates: Mapping[Tensor, Tensor] | None = None,
    train: Sequence[Tensor] | None = None,
    seed: int = 0,
    record: bool = False,
    threads: int | None = None,
    fast_math: bool = True,
    assume_finite: bool = False,
    debug: bool = False,
    cache: bool = True,
) -> TrainStep | Function:
    """A training step of a loss under an optimizer, or without one a plain function.

    target: a scalar loss; without ``optimizer`` a tensor, or a list or dict of them, given back in the same form.
    outputs: further values that a step returns beside the loss. updates: ``{state or parameter: new value}`` beside the
    optimizer's. train: the parameters to train, by default all. seed: of initial values and shuffling. record: let
    ``fit`` keep norms of gradients and spreads of weights. threads: the most that a call may use, by default
    ``GRAPHC_THREADS`` or all cores; short calls use one. fast_math: allow rewrites that round otherwise.
    assume_finite: allow those that hold for finite numbers alone. debug: check every kernel's result. cache: keep the
    program on disk.

    Raises: NotDifferentiable, DefinitionError, ShapeError for what cannot be trained or updated so.

    >>> import graphc as gc
    >>> x = gc.input("x", (3,))
    >>> gc.compile(gc.sum(x * x))(x=[1.0, 2.0, 3.0])
    array(14., dtype=float32)
    """
    try:
        check_threads(threads)
        check_seed(seed)
        options = Options(fast_math, assume_finite, debug, cache, thread_count(threads))
        if optimizer is None and (outputs or updates or train is not None or record):
            raise UsageError(
                "compile: outputs=, updates=, train= or record= given without an optimizer; a plain function has none"
            )
        with uncollected():
            if optimizer is None:
                return compiled_function(target, options)
            loss = check_loss(target)
            declared = declare_step(loss, optimizer, outputs or {}, updates or {}, train, record)
            return compiled_step(loss, declared, seed, options)
    except InternalError:
        raise
    except GraphcError as error:
        raise located(error) from None


def compiled_function(target: object, options: Options) -> Function:
    """A plain function of a tensor, or of a list or dict of them."""
    declared = declare_function(target)
    compiled, hit = compiled_program(declared, options)
    loaded = Loaded(compiled, host(), None, name="function", debug=options.debug, examine=examiner(declared, options))
    return Function(loaded, compiles=0 if hit else 1, cache_hits=int(hit), look=look_into(declared, options))


def compiled_step(loss: Tensor, declared: Declared, seed: int, options: Options) -> TrainStep:
    """A training step with initial weights; ``loss`` is what it was declared of."""
    compiled, hit = compiled_program(declared, options)
    store = make_store((compiled.layout,), initial_values(declared, compiled.layout, seed))
    examine = examiner(declared, options)
    loaded = Loaded(compiled, host(), store, debug=options.debug, threads=options.threads, examine=examine)
    tools = Tools(
        function=lambda wanted: shared_function(wanted, store, options),
        forward=lambda: shared_function({LOSS: loss}, store, options),
    )
    look = look_into(declared, options)
    return TrainStep(loaded, tools, seed=seed, compiles=0 if hit else 1, cache_hits=int(hit), look=look)


def compiled_program(declared: Declared, options: Options) -> tuple[Compiled, bool]:
    """The machine code of a declared graph, and whether it came from the disk."""
    key = disk.cache_key(_key_parts(declared, options)) if options.cache else ""
    if options.cache:
        found = disk.lookup(key)
        if found is not None:
            return Compiled(with_declarations(found.layout, declared), found.object_code), True
    made = stages(declared, options)
    compiled = compile_program(made.llvm, made.layout, host())
    if options.cache:
        disk.keep(key, disk.Entry(made.layout, compiled.object_code, {}))
    return compiled, False


def _key_parts(declared: Declared, options: Options) -> list[str]:
    """All that an entry on the disk depends on; of where things were written, what its messages quote and no more."""
    target = host()
    return [
        to_text(declared.graph, origins=lambda node: options.debug or _is_checked(node)),
        repr(declared.results), " ".join(declared.trained), options.key(),
        disk.source_digest(), compiler_version(), target.triple, target.cpu, target.features,
    ]  # fmt: skip


def _is_checked(node: Node) -> bool:
    """Whether a node has indices from data, whose error names it and its line."""
    return node.kind == "formula" and bool(data_indices(node.formula))


def initial_values(declared: Declared, layout: Layout, seed: int) -> dict[str, Array]:
    """The first values of every parameter and state that has an initialiser; the others begin as zeros."""
    wanted = {b.name: declared.leaves[b.name] for b in layout.buffers if b.role in ("param", "state")}
    return {name: initial(leaf, name, seed) for name, leaf in wanted.items() if leaf.leaf.init is not None}


def shared_function(wanted: object, store: Store, options: Options) -> Function:
    """A forward-only function on a step's live weights."""
    try:
        declared = declare_function(wanted, what="step.function", shared=True)
        for node in declared.graph.nodes:
            if node.kind in ("param", "state") and str(node.attr) not in store.names():
                raise DefinitionError(f"step.function: {node.attr} given, no parameter or state of this step")
    except GraphcError as error:
        raise located(error) from None
    compiled, hit = compiled_program(declared, options)
    loaded = Loaded(
        compiled, host(), store, name="function", debug=options.debug, threads=options.threads,
        examine=examiner(declared, options),
    )  # fmt: skip
    return Function(loaded, compiles=0 if hit else 1, cache_hits=int(hit), look=look_into(declared, options))


# Looking


def look_into(declared: Declared, options: Options) -> Look:
    """How a program compiled from ``declared`` is looked into; nothing is built before it is asked for."""
    return Look(
        show=lambda stage: show(declared, options, stage),
        html=lambda: rich(declared, options),
        cost=lambda: cost(stages(declared, options).program),
        report=lambda title: report(declared, options, title),
        profile=lambda loaded, given, seconds: profiled(loaded, declared, options, given, seconds),
        origin=declared,
    )


def examiner(declared: Declared, options: Options) -> Examine | None:
    """What finds, after a check of ``debug=True`` failed, the first value that is no finite number."""
    if not options.debug:
        return None

    def examine(number: int, values: Mapping[str, Array]) -> Autopsy | None:
        """The report on the check of that number. values: of inputs, scalars, weights and states at the call."""
        made = stages(declared, options)
        layout, text, graph = every_value(made)
        store = make_store((layout,), {n: v for n, v in values.items() if n in {b.name for b in layout.buffers}})
        loaded = Loaded(compile_program(text, layout, host()), host(), store, name="debug")
        given = {name: values[name] for name in [*(slot.name for slot in loaded.slots), *loaded.hyper]}
        numbered = loaded.run(given, lambda context: {key: view.copy() for key, view in context.outputs})
        found = {node: numbered[str(node.number)] for node in graph.live() if str(node.number) in numbered}
        found |= {node: values[str(node.attr)] for node in graph.live() if node.kind in NAMED}
        failed = next(k for k in made.program.kernels if isinstance(k, FiniteCheck) and k.number == number)
        passages: list[Passage] = []
        prepared(graph, passages)
        ends = [node for node in graph.live() if _number(node, passages) in failed.nodes]
        sites = {name: leaf.site for name, leaf in declared.leaves.items()}
        return autopsy(graph, found, ends, sites, means_infinity(declared))

    return examine


def _number(node: Node, passages: Sequence[Passage]) -> int:
    """The number of what became of a node after some passages; -1 where nothing did."""
    for passage in passages:
        if node not in passage.new:
            return -1
        node = passage.new[node]
    return node.number


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


def profiled(
    loaded: Loaded, declared: Declared, options: Options, given: Mapping[str, object], seconds: float
) -> Profile:
    """Where the time of a call goes, kernel by kernel; on copies of the weights and states.

    given: inputs by name; without any they are drawn.
    """
    made = stages(declared, options)
    names = [slot.name for slot in loaded.slots]
    if names and not given:
        given = _drawn_inputs(declared, names, dict.fromkeys(made.layout.dims, SIZE))
    kept = copied({name: loaded.store[name] for name in loaded.store.names()} if loaded.store is not None else {})
    stores: list[Store] = []
    programs: list[Loaded] = []
    for counted in (False, True):
        text = emit(made.program, host(), counted) if counted else made.llvm
        store = make_store((made.layout,), kept) if loaded.store is not None else None
        symbols = (COUNTERS,) if counted else ()
        compiled = compile_program(text, made.layout, host())
        programs.append(Loaded(compiled, host(), store, name=loaded.name, threads=loaded.threads, symbols=symbols))
        stores += [store] if store is not None else []

    def restore() -> None:
        for store in stores:
            for name in store.names():
                store.write(name, kept[name])

    graph = prepared(made.rewritten.graph)
    rows = [
        (row, told(graph, made.program, kernel))
        for row, kernel in zip(cost(made.program).kernels, made.program.kernels, strict=True)
    ]
    return profile_calls(programs[0], programs[1], restore, dict(given) | _hypers_of(loaded, given), rows, seconds)


def _hypers_of(loaded: Loaded, given: Mapping[str, object]) -> dict[str, object]:
    """The run-time scalars that are not given, as they are set now."""
    return {name: value for name, value in loaded.hyper.items() if name not in given}


def _drawn_inputs(declared: Declared, names: Sequence[str], dims: Mapping[str, int]) -> dict[str, Array]:
    values = drawn(declared.graph, np.random.default_rng(0), dims)
    return {name: values[name] for name in names}


# Checking


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

    sheet = step.cost()
    assert isinstance(sheet, Cost)
    try:
        return time_calls(
            type(step).__name__, lambda: step(**given), restore, step.program.layout, sheet, dims, seconds
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
    return _drawn_inputs(declared, [slot.name for slot in step.program.slots], dims)


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
        name: np.asarray(leaf.leaf.default, np.float32) for name, leaf in leaves_named.items() if leaf.kind == "hyper"
    }
    return check_graph(plain_graph, run_compiled, start, LOSS if gradients else "", gradients, seed)
