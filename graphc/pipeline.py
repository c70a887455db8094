"""The stages in order, from declared tensors to LLVM: the table of contents.

    declare -> derive -> rewrite -> lower -> place -> emit

``compiler.py`` goes on from there to machine code, and skips all of it where the disk has the result.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from graphc.diff.derivatives import one
from graphc.diff.reverse import Backward, backward
from graphc.dsl.handle import Leaf
from graphc.dsl.intern import intern, leaves_of
from graphc.dsl.targets import (
    Optimizer,
    check_update,
    optimizer_updates,
    outputs_of,
    tensors,
    trained,
)
from graphc.dsl.tensor import Tensor
from graphc.errors import DefinitionError, NotDifferentiable, UsageError
from graphc.graph.dtypes import int64
from graphc.graph.formula import Formula, Read, plain
from graphc.graph.graph import LEAVES, NAMED, Graph, Node, Origin, Passage, copy_node, reachable, rebuild
from graphc.graph.scalar import trace
from graphc.graph.sizes import names as dims_of
from graphc.graph.sizes import parse_size
from graphc.graph.verify import verify
from graphc.kernels import form
from graphc.kernels.cost import cost
from graphc.kernels.debug import states_infinity, with_finite_checks
from graphc.kernels.form import FiniteCheck, IndexCheck, Program
from graphc.kernels.layout import Buffer, Check, Layout, Results
from graphc.kernels.lower import index_users, lower, prepared
from graphc.kernels.memory import place
from graphc.kernels.show import source_lines
from graphc.llvm.emit import emit
from graphc.llvm.target import host
from graphc.rewrite.phases import BEFORE_DERIVATIVES, PHASES, Rewritten, run
from graphc.structs import dataclass, replace

LOSS = "loss"


@dataclass(frozen=True, slots=True)
class Options:
    """What decides the program besides the graph; ``cache`` and ``threads`` decide how it is kept and called."""

    fast_math: bool = True
    assume_finite: bool = False
    debug: bool = False
    cache: bool = True
    threads: int = 1

    def key(self) -> str:
        """The options that decide the program, as text."""
        return f"fast_math={self.fast_math} assume_finite={self.assume_finite} debug={self.debug}"


@dataclass(frozen=True, slots=True)
class Declared:
    """What a user asked for, as one graph, before anything is derived.

    results: how a call gives it back. leaves: the handle of each input, parameter, state and hyper. trained: the
    parameters whose gradients the updates read, as leaves named by ``gradient_name``. loss: what is differentiated, if
    anything is. unread: arguments that a call may give though the graph does not read them.
    """

    graph: Graph
    results: Results
    leaves: Mapping[str, Tensor]
    trained: tuple[str, ...] = ()
    loss: Node | None = None
    unread: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Stages:
    """Every form of one program, for ``show`` and ``cost``.

    derived: the graph that was differentiated, in stable forms; stable: how it came to those, if it was. passages: all
    that lead from the declared graph to the one whose nodes the kernels name, where they are wanted.
    """

    declared: Declared
    step: Graph
    backward: Backward | None
    derived: Graph
    stable: Rewritten | None
    rewritten: Rewritten
    program: Program
    layout: Layout
    passages: tuple[Passage, ...] = ()

    @property
    def llvm(self) -> str:
        """The program as LLVM, written when it is asked for, each time; of traced stages with the listing's lines."""
        return emit(self.program, host(), lines=source_lines(self.program) if self.passages else None)


@dataclass(frozen=True, slots=True)
class Derived:
    """A step as one graph: forward, backward and update. backward: the ledger, if something was differentiated; source:
    the graph that it speaks of; stable: how that came from the declared one."""

    step: Graph
    backward: Backward | None
    source: Graph
    stable: Rewritten | None


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
    own = {name: f"output {name}" if name in interned.leaves else name for name in outputs}
    graph.outputs = {own[name]: node for name, node in graph.outputs.items()}
    graph = with_training(graph, False)
    if not shared:
        graph = as_inputs(graph)
    results = Results(kind, "", tuple(own.items()))
    unread = tuple(leaf for leaf in interned.unread.values() if leaf.kind == "input" or not shared)
    return Declared(graph, results, interned.leaves, unread=unread)


def declare_step(
    loss: Tensor,
    optimizer: Optimizer,
    outputs: Mapping[str, Tensor],
    updates: Mapping[Tensor, Tensor],
    train: Sequence[Tensor] | None,
    record: bool = False,
) -> Declared:
    """The graph of a training step: loss, further outputs, and updates over leaves that stand for the gradients.

    record: whether the gradients' norms are results too.
    """
    further = tensors("compile: outputs", outputs)
    named = {LOSS: loss, **{f"output {name}": tensor for name, tensor in further.items()}}
    params = trained(leaves_of(named), train)
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
    norms = tuple((name, f"squared norm of d_{name}") for name in params) if record else ()
    results = Results("loss", LOSS, tuple((name, f"output {name}") for name in outputs), norms)
    graph = with_training(graph, True)
    unread = tuple(leaf for leaf in interned.unread.values() if leaf.kind == "input")
    return Declared(graph, results, interned.leaves, tuple(params), graph.outputs[LOSS], unread)


def _count_steps(graph: Graph) -> None:
    """The update that counts the step, an ordinary one."""
    count = graph.add("count", (), None, int64, ())
    body = trace(lambda n: n + 1, [int64])
    graph.updates[count] = graph.formula(Formula((), (), (), (Read(0, ()),), body), (count,))


def with_training(graph: Graph, training: bool) -> Graph:
    """The graph with the leaf ``training`` decided."""
    if not any(node.kind == "training" for node in graph.nodes):
        return graph

    def make(result: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
        return result.const(np.array(training)) if node.kind == "training" else copy_node(result, node, inputs)

    return rebuild(graph, make)[0]


def as_inputs(graph: Graph) -> Graph:
    """The graph with parameters and states as arguments."""

    def make(result: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
        kind = "input" if node.kind in ("param", "state") else node.kind
        return result.add(kind, inputs, node.attr, node.dtype, node.shape)

    return rebuild(graph, make)[0]


# Deriving


def derive(declared: Declared, fast_math: bool = True, passages: list[Passage] | None = None) -> Derived:
    """The whole step as one graph.

    What is differentiated has its stable forms already; without ``fast_math`` those alone that keep every bit.
    """
    if declared.loss is None:
        return Derived(declared.graph, None, declared.graph, None)
    stable = run(declared.graph, BEFORE_DERIVATIVES, fast_math=fast_math, passages=passages)
    source = stable.graph
    loss = source.outputs[LOSS]
    leaves = {node.attr: node for node in source.nodes if node.kind == "param"}
    for name in declared.trained:
        if name not in leaves:
            raise NotDifferentiable(f"compile: the loss does not depend on {name} in a differentiable way")
    wanted = [leaves[name] for name in declared.trained]
    updates, source.updates = source.updates, {}
    found = backward(source, {loss: one(source, loss.dtype.name)}, wanted)
    for name, node in zip(declared.trained, found.cotangents, strict=True):
        if node is None:
            raise NotDifferentiable(f"compile: the loss does not depend on {name} in a differentiable way")
        source.note(node, [Origin(note=f"d_{name}")])
    step = Graph()
    new: dict[Node, Node] = {}
    gradient = {gradient_name(n): c for n, c in zip(declared.trained, found.cotangents, strict=True) if c is not None}
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
    for parameter, output in declared.results.recorded:
        step.outputs[output] = _squared_norm(step, new[gradient[gradient_name(parameter)]])
    step.updates = {new[target]: new[value] for target, value in updates.items()}
    if passages is not None:
        passages.append(Passage("derived", source, step, new, tuple(step.nodes)))
    return Derived(step, found, source, stable)


def _squared_norm(graph: Graph, node: Node) -> Node:
    """The sum of a node's squares."""
    index = plain(len(node.shape))
    body = trace(lambda x: x * x, [node.dtype])
    return graph.formula(Formula(node.shape, (), (), (Read(0, index),), body, "sum" if index else "none"), (node,))


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


@uncollected()
def stages(declared: Declared, options: Options, traced: bool = False) -> Stages:
    """All stages, each verified; LLVM is written by the last when it is asked for.

    traced: also every passage between graphs, and LLVM whose instructions name lines of the kernels' listing.
    """
    passages: list[Passage] | None = [] if traced else None
    derived = derive(declared, options.fast_math, passages)
    step = derived.step
    verify(step)
    rewritten = run(
        step, PHASES, fast_math=options.fast_math, assume_finite=options.assume_finite, passages=passages
    )
    verify(rewritten.graph)
    program = _with_declared(lower(rewritten.graph, index_users(step), passages), declared)
    if options.debug:
        program = with_finite_checks(program, prepared(rewritten.graph), means_infinity(declared))
    program = place(program)
    layout = layout_of(program, declared)
    known = tuple(passages or ())
    return Stages(declared, step, derived.backward, derived.source, derived.stable, rewritten, program, layout, known)


def means_infinity(declared: Declared) -> bool:
    """Whether the user's graph states an infinite constant: infinities are then no fault, but NaN is."""
    return any(states_infinity(node) for node in declared.graph.live())


def every_value(made: Stages, wanted: Sequence[Node]) -> tuple[Layout, str]:
    """The program that gives back every value that some nodes of the rewritten graph are made of and that is no leaf:
    layout and LLVM. The results' keys are the nodes' numbers."""
    graph, new = rebuild(made.rewritten.graph, copy_node)
    graph.updates = {}
    graph.outputs = {f"value {old.number}": new[old] for old in reachable(wanted) if old.kind not in LEAVES}
    results = Results("dict", "", tuple((name.split(" ")[1], name) for name in graph.outputs))
    declared = Declared(graph, results, made.declared.leaves)
    program = place(_with_declared(lower(graph, index_users(made.step)), declared))
    return layout_of(program, declared), emit(program, host())


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
        name = renamed.get(k, buffer.name)
        buffers.append(Buffer(name, buffer.role, buffer.dtype, buffer.shape, program.slot[k]))
    shown = {name: program.buffers[k].name for name, k in program.outputs}
    final = {name: renamed.get(k, shown[name]) for name, k in program.outputs}
    results = replace(
        declared.results,
        loss=final[declared.results.loss] if declared.results.loss else "",
        outputs=tuple((key, final[name]) for key, name in declared.results.outputs),
        recorded=tuple((key, final[name]) for key, name in declared.results.recorded),
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
    cost_ns, batch_dim = cost(program).picoseconds // 1000, _batch_dim(program)
    made = Layout(program.dims, tuple(buffers), program.arena, results, ordered, cost_ns, batch_dim)
    return with_declarations(made, declared)


def with_declarations(layout: Layout, declared: Declared) -> Layout:
    """The layout with what decides no code: where each leaf was declared, the defaults of hyper-parameters, and what
    may be given though it is not read."""
    buffers = []
    for buffer in layout.buffers:
        leaf = declared.leaves.get(buffer.name) if buffer.role in NAMED else None
        if leaf is not None:
            default = leaf.leaf.default if buffer.role == "hyper" else None
            buffer = replace(buffer, default=default, source=str(leaf.site))
        buffers.append(buffer)
    unread = [Buffer(leaf.name, "input", leaf.dtype, leaf.shape, source=str(leaf.site)) for leaf in declared.unread]
    return replace(layout, buffers=tuple(buffers), unread=tuple(unread))


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
