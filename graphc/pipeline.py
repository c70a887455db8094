"""The stages in order: from declared tensors to a training step or a function.

    declared graph -> differentiated -> rewritten -> kernels -> LLVM -> machine code -> TrainStep

The compiled program is kept on disk under a key of everything that decides it; a hit skips all stages between, and
``show`` rebuilds them when asked.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from graphc.diff.derivatives import one
from graphc.diff.reverse import Backward, backward
from graphc.dsl.handle import Leaf, located
from graphc.dsl.init import initial
from graphc.dsl.intern import intern
from graphc.dsl.show import solved
from graphc.dsl.targets import (
    Optimizer,
    check_loss,
    check_seed,
    check_threads,
    check_update,
    optimizer_updates,
    outputs_of,
    tensors,
    trained,
)
from graphc.dsl.tensor import Tensor
from graphc.errors import DefinitionError, GraphcError, InternalError, NotDifferentiable, UsageError
from graphc.graph.dtypes import int64
from graphc.graph.formula import Formula, Read
from graphc.graph.graph import NAMED, Array, Graph, Node, Origin, copy_node, reachable, rebuild
from graphc.graph.scalar import trace
from graphc.graph.sizes import names as dims_of
from graphc.graph.sizes import parse_size
from graphc.graph.text import to_text
from graphc.graph.verify import verify
from graphc.inspect.check import CheckReport, check_graph
from graphc.inspect.explain import explained
from graphc.kernels import form
from graphc.kernels.cost import cost
from graphc.kernels.debug import with_finite_checks
from graphc.kernels.form import FiniteCheck, IndexCheck, Program
from graphc.kernels.layout import Buffer, Check, Layout, Results
from graphc.kernels.lower import lower
from graphc.kernels.memory import place
from graphc.kernels.show import memory_text, program_text
from graphc.llvm.emit import emit
from graphc.llvm.target import host
from graphc.notation.expressions import graph_lines, has_name
from graphc.notation.text import lines_text
from graphc.rewrite.phases import PHASES, Rewritten, run
from graphc.runtime import cache as disk
from graphc.runtime.jit import assembly, compiler_version
from graphc.runtime.program import Compiled, compile_program
from graphc.runtime.program import Program as Loaded
from graphc.runtime.step import Function, Look, Tools, TrainStep
from graphc.runtime.store import Store, make_store

LOSS = "loss"
STAGES = (
    "declared", "forward", "grad", "update", "ledger", "optimized", "rewrites", "kernels", "memory", "llvm", "asm"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What decides the program besides the graph."""

    fast_math: bool = True
    assume_finite: bool = False
    debug: bool = False
    cache: bool = True

    def key(self) -> str:
        """The options that decide the program, as text."""
        return f"fast_math={self.fast_math} assume_finite={self.assume_finite} debug={self.debug}"


@dataclass(frozen=True, slots=True)
class Declared:
    """What a user asked for, as one graph, before anything is derived.

    results: how a call gives it back. leaves: the handle of each input, parameter, state and hyper. trained: the
    parameters whose gradients the updates read, as leaves named by ``gradient_name``. differentiated: the loss, if
    there is one.
    """

    graph: Graph
    results: Results
    leaves: Mapping[str, Tensor]
    trained: tuple[str, ...] = ()
    loss: Node | None = None


@dataclass(frozen=True, slots=True)
class Stages:
    """Every form of one program, for ``show`` and ``cost``."""

    declared: Declared
    step: Graph
    backward: Backward | None
    derived: Graph
    rewritten: Rewritten
    program: Program
    layout: Layout
    llvm: str


# Declaring


def gradient_name(parameter: str) -> str:
    """The name of the leaf that stands for a parameter's gradient until it is derived; no user can declare it."""
    return f"gradient of {parameter}"


def declare_function(target: object, *, what: str = "compile", shared: bool = False) -> Declared:
    """The graph of a plain function. shared: whether parameters and states are a step's own, not arguments.

    what: the caller's name in messages.
    """
    outputs, kind = outputs_of(what, target)
    interned = intern(outputs)
    graph = interned.graph
    graph.updates = {}
    graph = _with_training(graph, False)
    if not shared:
        graph = _as_inputs(graph)
    results = Results(kind, "", tuple((name, name) for name in outputs))
    return Declared(graph, results, interned.leaves)


def declare_step(
    loss: Tensor,
    optimizer: Optimizer,
    outputs: Mapping[str, Tensor],
    updates: Mapping[Tensor, Tensor],
    train: Sequence[Tensor] | None,
) -> Declared:
    """The graph of a training step: loss, further outputs, and updates over leaves that stand for the gradients."""
    further = tensors("compile: outputs", outputs)
    named = {LOSS: loss, **{f"output {name}": tensor for name, tensor in further.items()}}
    first = intern(named)
    params = trained(first.leaves, train)
    for name, p in params.items():
        p.label = p.label or name  # a layer's parameter has its name from here on, and its slots theirs
    gradients = [Tensor("input", (), Leaf(gradient_name(name)), p.dtype, p.shape) for name, p in params.items()]
    changes = optimizer_updates(optimizer, list(params.values()), gradients)
    if not isinstance(updates, Mapping):
        raise UsageError(f"compile: updates: {type(updates).__name__} given; needs a dict of new values")
    for target, value in updates.items():
        check_update(target, value)
        if target in changes:
            raise DefinitionError(f"compile: two updates for {target.name} given, one by the optimizer")
        changes[target] = value
    everything: dict[str, Tensor] = dict(named)
    for number, (target, value) in enumerate(changes.items()):
        check_update(target, value)
        everything[f"target {number}"] = target
        everything[f"value {number}"] = value
    interned = intern(everything)
    graph = interned.graph
    for target, value in changes.items():
        if interned.node[target] in graph.updates:
            raise DefinitionError(f"compile: two updates for {target.name} given, one by with_updates")
        graph.updates[interned.node[target]] = interned.node[value]
    _count_steps(graph)
    graph.outputs = {name: interned.node[tensor] for name, tensor in named.items()}
    results = Results("loss", LOSS, tuple((name, f"output {name}") for name in outputs))
    graph = _with_training(graph, True)
    return Declared(graph, results, interned.leaves, tuple(params), graph.outputs[LOSS])


def _count_steps(graph: Graph) -> None:
    """The update that counts the step, an ordinary one."""
    count = graph.add("count", (), None, int64, ())
    body = trace(lambda n: n + 1, [int64])
    graph.updates[count] = graph.formula(Formula((), (), (), (Read(0, ()),), body), (count,))


def _with_training(graph: Graph, training: bool) -> Graph:
    """The graph with the leaf ``training`` decided."""

    def make(result: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
        return result.const(np.array(training)) if node.kind == "training" else copy_node(result, node, inputs)

    return rebuild(graph, make)[0]


def _as_inputs(graph: Graph) -> Graph:
    """The graph with parameters and states as arguments."""

    def make(result: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
        kind = "input" if node.kind in ("param", "state") else node.kind
        return result.add(kind, inputs, node.attr, node.dtype, node.shape)

    return rebuild(graph, make)[0]


# Deriving


def derive(declared: Declared) -> tuple[Graph, Backward | None, Graph]:
    """The whole step as one graph: forward, backward and update; the ledger and the graph that it speaks of."""
    if declared.loss is None:
        return declared.graph, None, declared.graph
    source = rebuild(declared.graph, copy_node)[0]
    loss = source.outputs[LOSS]
    leaves = {node.attr: node for node in source.nodes if node.kind == "param"}
    wanted = [leaves[name] for name in declared.trained]
    updates, source.updates = source.updates, {}
    found = backward(source, {loss: one(source, loss.dtype.name)}, wanted)
    for name, node in zip(declared.trained, found.cotangents, strict=True):
        if node is None:
            raise NotDifferentiable(f"compile: the loss does not depend on {name} in a differentiable way")
        source.note(node, [Origin(note=f"d_{name}")])
    step = Graph()
    new: dict[Node, Node] = {}
    gradient = {gradient_name(n): c for n, c in zip(declared.trained, found.cotangents, strict=True)}
    roots = [*source.outputs.values(), *[c for c in found.cotangents if c is not None]]
    late = [*updates.values(), *updates]
    for node in [*reachable(roots), *reachable(late)]:
        if node in new:
            continue
        stands_for = gradient.get(str(node.attr)) if node.kind == "input" else None
        if stands_for is not None:
            new[node] = new[stands_for]
            continue
        new[node] = copy_node(step, node, tuple(new[i] for i in node.inputs))
        step.note(new[node], source.origins.get(node, ()))
    step.outputs = {name: new[node] for name, node in source.outputs.items()}
    step.updates = {new[target]: new[value] for target, value in updates.items()}
    return step, found, source


@contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection meanwhile: graphs hold no cycles, and looking for some takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def stages(declared: Declared, options: Options) -> Stages:
    """All stages up to LLVM, each verified."""
    with uncollected():
        return _stages(declared, options)


def _stages(declared: Declared, options: Options) -> Stages:
    step, found, derived = derive(declared)
    verify(step)
    rewritten = run(step, PHASES, fast_math=options.fast_math, assume_finite=options.assume_finite)
    verify(rewritten.graph)
    program = _with_declared(lower(rewritten.graph), declared)
    if options.debug:
        program = with_finite_checks(program, rewritten.graph)
    program = place(program)
    layout = layout_of(program, declared)
    return Stages(declared, step, found, derived, rewritten, program, layout, emit(program, host()))


def _with_declared(program: Program, declared: Declared) -> Program:
    """The program with a buffer for every declared leaf, those included that rewriting found to decide nothing
    (``x**0``): what a user declared stays an argument, a weight or a hyper-parameter.
    """
    known = dict.fromkeys(b.name for b in program.buffers if b.role in NAMED)
    stand_ins = dict.fromkeys(gradient_name(name) for name in declared.trained)
    unread = [
        form.Buffer(str(node.attr), node.kind, node.dtype, node.shape)
        for node in declared.graph.live()
        if node.kind in NAMED and node.attr not in known and node.attr not in stand_ins
    ]
    new = dict.fromkeys(name for buffer in unread for size in buffer.shape for name in dims_of(size))
    dims = program.dims + tuple(name for name in new if name not in program.dims)
    return replace(program, dims=dims, buffers=program.buffers + tuple(unread))


def layout_of(program: Program, declared: Declared) -> Layout:
    """What the runtime must know of a program."""
    renamed = {buffer: name for name, buffer in program.outputs}
    buffers = []
    for k, buffer in enumerate(program.buffers):
        if buffer.role == "const":
            continue
        tensor = declared.leaves.get(buffer.name)
        source = str(tensor.site) if tensor is not None else ""
        default = tensor.leaf.default if tensor is not None and buffer.role == "hyper" else None
        name = renamed.get(k, buffer.name)
        buffers.append(Buffer(name, buffer.role, buffer.dtype, buffer.shape, program.slot[k], default, source))
    shown = {name: program.buffers[k].name for name, k in program.outputs}
    final = {name: renamed.get(k, shown[name]) for name, k in program.outputs}
    results = replace(
        declared.results,
        loss=final[declared.results.loss] if declared.results.loss else "",
        outputs=tuple((key, final[name]) for key, name in declared.results.outputs),
    )
    checks = [
        Check(
            k.message,
            k.bound if isinstance(k, IndexCheck) else 1,
            k.source,
            "index" if isinstance(k, IndexCheck) else "nonfinite",
        )
        for k in program.kernels
        if isinstance(k, (IndexCheck, FiniteCheck))
    ]
    numbers = [k.number for k in program.kernels if isinstance(k, (IndexCheck, FiniteCheck))]
    ordered = tuple(check for _, check in sorted(zip(numbers, checks, strict=True), key=lambda pair: pair[0]))
    _check_dims(program)
    nanoseconds = cost(program).picoseconds // 1000
    return Layout(program.dims, tuple(buffers), program.slots, results, ordered, nanoseconds, _batch_dim(program))


def _check_dims(program: Program) -> None:
    """Raises DefinitionError for a run-time size that no argument's shape gives."""
    given = {str(size) for b in program.buffers if b.role in ("input", "param", "state") for size in b.shape}
    for name in program.dims:
        if not any(name in dims_of(parse_size(size)) for size in sorted(given)):
            raise DefinitionError(
                f"compile: nothing given at a call has a size {name}; "
                "needs an input with it among those that the result reads"
            )


def _batch_dim(program: Program) -> str:
    for buffer in program.buffers:
        if buffer.role == "input" and buffer.shape and not isinstance(buffer.shape[0], int):
            found = dims_of(buffer.shape[0])
            if str(buffer.shape[0]) in found:
                return str(buffer.shape[0])
    return ""


# Compiling


@overload
def compile(
    target: Tensor,
    optimizer: Optimizer,
    *,
    outputs: Mapping[str, Tensor] | None = None,
    updates: Mapping[Tensor, Tensor] | None = None,
    train: Sequence[Tensor] | None = None,
    seed: int = 0,
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
    threads: int | None = None,
    fast_math: bool = True,
    assume_finite: bool = False,
    debug: bool = False,
    cache: bool = True,
) -> TrainStep | Function:
    """A training step of a loss under an optimizer, or without one a plain function.

    target: a scalar loss; without ``optimizer`` a tensor, or a list or dict of them, given back in the same form.
    outputs: further values that a step returns beside the loss. updates: ``{state or parameter: new value}`` beside the
    optimizer's. train: the parameters to train, by default all. seed: of initial values and shuffling. threads: the
    most that a call may use; today's programs run on one. fast_math: allow rewrites that round otherwise.
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
        options = Options(fast_math, assume_finite, debug, cache)
        if optimizer is not None:
            return compiled_step(check_loss(target), optimizer, outputs or {}, updates or {}, train, seed, options)
        if outputs or updates or train is not None:
            raise UsageError(
                "compile: outputs=, updates= or train= given without an optimizer; a plain function has none"
            )
        return compiled_function(target, options)
    except InternalError:
        raise
    except GraphcError as error:
        raise located(error) from None


def compiled_function(target: object, options: Options) -> Function:
    """A plain function of a tensor, or of a list or dict of them."""
    declared = declare_function(target)
    compiled, hit = compiled_program(declared, options)
    loaded = Loaded(compiled, host(), None, name="function", debug=options.debug)
    return Function(loaded, compiles=0 if hit else 1, cache_hits=int(hit), look=look_into(declared, options))


def compiled_step(
    loss: Tensor,
    optimizer: Optimizer,
    outputs: Mapping[str, Tensor],
    updates: Mapping[Tensor, Tensor],
    train: Sequence[Tensor] | None,
    seed: int,
    options: Options,
) -> TrainStep:
    """A training step with initial weights."""
    declared = declare_step(loss, optimizer, outputs, updates, train)
    compiled, hit = compiled_program(declared, options)
    store = make_store((compiled.layout,), initial_values(declared, compiled.layout, seed))
    loaded = Loaded(compiled, host(), store, name="step", debug=options.debug)
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
            return Compiled(found.layout, found.object_code), True
    made = stages(declared, options)
    compiled = compile_program(made.llvm, made.layout, host())
    if options.cache:
        disk.keep(key, disk.Entry(made.layout, compiled.object_code, {}))
    return compiled, False


def _key_parts(declared: Declared, options: Options) -> list[str]:
    target = host()
    defaults = sorted((n, t.leaf.default) for n, t in declared.leaves.items() if t.kind == "hyper")
    sources = [f"{name} {t.site}" for name, t in sorted(declared.leaves.items())]
    return [
        to_text(declared.graph), repr(declared.results), repr(defaults), "\n".join(sources), " ".join(declared.trained),
        options.key(), disk.source_digest(), compiler_version(), target.triple, target.cpu, target.features,
    ]  # fmt: skip


def initial_values(declared: Declared, layout: Layout, seed: int) -> dict[str, Array]:
    """The first values of every parameter and state; the count begins at 0."""
    wanted = [b.name for b in layout.buffers if b.role in ("param", "state")]
    return {name: initial(declared.leaves[name], name, seed) for name in wanted}


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
    loaded = Loaded(compiled, host(), store, name="function", debug=options.debug)
    return Function(loaded, compiles=0 if hit else 1, cache_hits=int(hit), look=look_into(declared, options))


# Looking


def look_into(declared: Declared, options: Options) -> Look:
    """How a program compiled from ``declared`` is looked into; nothing is built before it is asked for."""
    return Look(
        show=lambda stage: show(declared, options, stage),
        cost=lambda: cost(stages(declared, options).program),
        origin=declared,
    )


def show(declared: Declared, options: Options, stage: str = "") -> str:
    """The text of one stage of a program, or of all of them; the stages are built again.

    Raises: UsageError for an unknown stage.
    """
    if stage and stage not in STAGES:
        raise UsageError(f"show: stage {stage!r} given; needs one of {', '.join(STAGES)}")
    made = stages(declared, options)
    found: dict[str, Callable[[], str]] = {
        "declared": lambda: to_text(declared.graph),
        "forward": lambda: _maths(declared.graph, dict(declared.graph.outputs)),
        "grad": lambda: _gradients(made),
        "update": lambda: _updates(declared),
        "ledger": lambda: str(explained(made.derived, made.backward)) if made.backward else _NO_LOSS,
        "optimized": lambda: to_text(made.rewritten.graph),
        "rewrites": lambda: made.rewritten.text(),
        "kernels": lambda: program_text(made.program),
        "memory": lambda: memory_text(made.program),
        "llvm": lambda: made.llvm,
        "asm": lambda: assembly([made.llvm], host()),
    }
    if stage:
        return found[stage]()
    return "\n".join(f"== {name} ==\n{found[name]()}" for name in STAGES)


_NO_LOSS = "a plain function has no loss that was differentiated\n"


def _maths(graph: Graph, outputs: Mapping[str, Node]) -> str:
    """Some nodes of a graph as lines of maths."""
    return lines_text(graph_lines(graph, outputs)) + "\n"


def _gradients(made: Stages) -> str:
    """The derivatives by every trained parameter as maths, simplified by rules that keep every bit."""
    if made.backward is None:
        return _NO_LOSS
    found = zip(made.declared.trained, made.backward.cotangents, strict=True)
    graph = made.derived
    graph.outputs = {f"d_{name}": node for name, node in found if node is not None}
    graph.updates = {}
    named = frozenset(node for node in graph.live() if has_name(graph, node))
    return lines_text(graph_lines(solved(run(graph, PHASES, fast_math=False, protect=named).graph))) + "\n"


def _updates(declared: Declared) -> str:
    """The new values of parameters and states as maths, over gradients as ``d_`` and their names."""
    names = {gradient_name(name): f"d_{name}" for name in declared.trained}

    def make(result: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
        attr = names.get(str(node.attr), node.attr) if node.kind == "input" else node.attr
        return result.add(node.kind, inputs, attr, node.dtype, node.shape)

    graph = rebuild(declared.graph, make)[0]
    graph.outputs = {}
    return lines_text(graph_lines(graph)) + "\n"


# Checking


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
    plain_graph = _as_inputs(source)
    leaves_named = {str(n.attr): declared.leaves[str(n.attr)] for n in plain_graph.live() if n.kind in ("input", "hyper")}
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
