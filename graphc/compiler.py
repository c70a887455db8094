"""From declared tensors to a training step or a function, by way of the disk.

The compiled program is kept on disk under a key of everything that decides it. A hit skips every stage of ``pipeline``,
and ``show`` builds them when asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import overload

from graphc.dsl.handle import located
from graphc.dsl.init import initial
from graphc.dsl.targets import (
    Optimizer,
    check_loss,
    check_seed,
    check_threads,
)
from graphc.dsl.tensor import Tensor
from graphc.errors import DefinitionError, GraphcError, InternalError, UsageError
from graphc.graph.formula import data_indices
from graphc.graph.graph import Array, Node
from graphc.graph.text import to_text
from graphc.kernels.cost import cost
from graphc.kernels.layout import Layout
from graphc.llvm.target import host
from graphc.pipeline import (
    LOSS,
    Declared,
    Options,
    declare_function,
    declare_step,
    stages,
    uncollected,
    with_declarations,
)
from graphc.runtime import cache as disk
from graphc.runtime.compiled import Compiled, compile_program
from graphc.runtime.jit import compiler_version
from graphc.runtime.program import Examine
from graphc.runtime.program import Program as Loaded
from graphc.runtime.step import Function, Look, Tools, TrainStep
from graphc.runtime.store import Store, make_store
from graphc.runtime.team import thread_count


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
    loaded = Loaded(compiled, host(), None, name="function", debug=options.debug, examine=_examiner(declared, options))
    return Function(loaded, compiles=0 if hit else 1, cache_hits=int(hit), look=look_into(declared, options))


def compiled_step(loss: Tensor, declared: Declared, seed: int, options: Options) -> TrainStep:
    """A training step with initial weights; ``loss`` is what it was declared of."""
    compiled, hit = compiled_program(declared, options)
    store = make_store((compiled.layout,), initial_values(declared, compiled.layout, seed))
    examine = _examiner(declared, options)
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
            return Compiled(with_declarations(found.layout, declared), found.objects), True
    made = stages(declared, options)
    compiled = compile_program(made.llvm, made.layout, host())
    if options.cache:
        disk.keep(key, disk.Entry(made.layout, compiled.objects, {}))
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
        examine=_examiner(declared, options),
    )  # fmt: skip
    return Function(loaded, compiles=0 if hit else 1, cache_hits=int(hit), look=look_into(declared, options))


# Looking


def look_into(declared: Declared, options: Options) -> Look:
    """How a program compiled from ``declared`` is looked into; nothing is built before it is asked for."""
    return Look(
        show=lambda stage: _look().show(declared, options, stage),
        html=lambda: _look().rich(declared, options),
        cost=cache(lambda: cost(stages(declared, options).program)),
        report=lambda title, profile, training: _look().report(declared, options, title, profile, training),
        profile=lambda loaded, given, seconds: _probes().profiled(loaded, declared, options, given, seconds),
        origin=declared,
    )


def _examiner(declared: Declared, options: Options) -> Examine | None:
    """What looks for the first value that is no finite number, after a check of ``debug=True`` failed."""
    if not options.debug:
        return None
    return lambda number, values: _probes().examined(declared, options, number, values)


def _look() -> ModuleType:
    """Imported when first needed: with what it imports, a tenth of graphc's import."""
    from graphc import look

    return look


def _probes() -> ModuleType:
    from graphc import probes

    return probes
