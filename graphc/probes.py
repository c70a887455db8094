"""Running a compiled step to learn about it: where its time goes, and which value was the first NaN or infinity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.graph.graph import NAMED, Array, Node, Passage
from graphc.inspect.autopsy import Autopsy, autopsy
from graphc.inspect.bench import SIZE
from graphc.inspect.check import drawn
from graphc.inspect.profile import Profile
from graphc.inspect.profile import profile as profile_calls
from graphc.kernels.cost import cost
from graphc.kernels.form import FiniteCheck
from graphc.kernels.lower import prepared
from graphc.kernels.told import told
from graphc.llvm.counters import COUNTERS
from graphc.llvm.emit import emit
from graphc.llvm.target import host
from graphc.pipeline import Declared, Options, Stages, every_value, means_infinity, stages
from graphc.runtime.compiled import compile_program
from graphc.runtime.program import Program as Loaded
from graphc.runtime.store import Store, make_store


def profiled(
    loaded: Loaded, declared: Declared, options: Options, given: Mapping[str, object], seconds: float
) -> Profile:
    """Where the time of a call goes, kernel by kernel; on copies of the weights and states.

    given: inputs by name; without any they are drawn.
    """
    made = stages(declared, options)
    names = [slot.name for slot in loaded.slots]
    if names and not given:
        given = drawn_inputs(declared, names, dict.fromkeys(made.layout.dims, SIZE))
    kept = {name: np.array(loaded.store[name]) for name in loaded.store.names()} if loaded.store is not None else {}
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


def drawn_inputs(declared: Declared, names: Sequence[str], dims: Mapping[str, int]) -> dict[str, Array]:
    """Inputs of these names, drawn by a fixed seed for these run-time sizes."""
    values = drawn(declared.graph, np.random.default_rng(0), dims)
    return {name: values[name] for name in names}


def examined(
    declared: Declared, options: Options, number: int, values: Mapping[str, Array]
) -> Autopsy | None:
    """After the check of that number failed: the report on the first value that is no finite number.

    values: of inputs, scalars, weights and states at the call.
    """
    made = stages(declared, options)
    graph = made.rewritten.graph
    failed = next(k for k in made.program.kernels if isinstance(k, FiniteCheck) and k.number == number)
    passages: list[Passage] = []
    prepared(graph, passages)
    ends = [node for node in graph.live() if _number(node, passages) in failed.nodes]
    sites = {name: leaf.site for name, leaf in declared.leaves.items()}
    found = {node: values[str(node.attr)] for node in graph.live() if node.kind in NAMED}
    given = autopsy(graph, found, ends, sites, means_infinity(declared))
    if given is not None:  # nothing needs to be computed to see what came so
        return given
    computed = _values(made, ends, values)
    found |= {node: computed[str(node.number)] for node in graph.live() if str(node.number) in computed}
    return autopsy(graph, found, ends, sites, means_infinity(declared))


def _values(made: Stages, ends: Sequence[Node], values: Mapping[str, Array]) -> Mapping[str, Array]:
    """All values that ``ends`` are made of, by the numbers of their nodes."""
    layout, text = every_value(made, ends)
    known = {buffer.name for buffer in layout.buffers}
    store = make_store((layout,), {name: value for name, value in values.items() if name in known})
    loaded = Loaded(compile_program(text, layout, host()), host(), store, name="debug")
    given = {name: values[name] for name in [*(slot.name for slot in loaded.slots), *loaded.hyper]}
    return loaded.run(given, lambda context: {key: view.copy() for key, view in context.outputs})


def _number(node: Node, passages: Sequence[Passage]) -> int:
    """The number of what became of a node after some passages; -1 where nothing did."""
    for passage in passages:
        if node not in passage.new:
            return -1
        node = passage.new[node]
    return node.number
