"""What ``gc.compile`` gives back: a training step, or a plain function."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from html import escape
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from graphc.errors import FileAccessError, InputError, UnknownNameError, UsageError
from graphc.graph.sizes import SizeLike
from graphc.runtime import fastcall, saving
from graphc.runtime.arguments import Array
from graphc.runtime.fit import FitOptions, train
from graphc.runtime.history import History
from graphc.runtime.program import Context, Program
from graphc.runtime.store import LiveArrays, Store
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the step was made: compiles, entries found in the cache, calls (steps of ``fit`` are calls), and the
    arena's present size in bytes."""

    compiles: int
    cache_hits: int
    calls: int
    arena_bytes: int


@dataclass(frozen=True, slots=True)
class Tools:
    """What only the compiler can do, handed in by it.

    function: the forward-only program of a tensor, or of a list or dict of them, on the step's own weights. forward:
    the same of the loss itself.
    """

    function: Callable[[object], Function]
    forward: Callable[[], Function]


@dataclass(frozen=True, slots=True)
class Look:
    """How a program is looked into, handed in by the compiler.

    show: the text of a stage. html: the maths of its passes, for a notebook. cost: the cost sheet. report: the page of
    HTML with that title, profile and account of the training. profile: of the program, of inputs by name, for so many
    seconds. origin: what it was compiled from, for the compiler's own checks.
    """

    show: Callable[[str], str]
    html: Callable[[], str]
    cost: Callable[[], object]
    report: Callable[[str, object, str], str]
    profile: Callable[[Program, Mapping[str, object], float], object]
    origin: object


class Hypers(MutableMapping[str, bool | int | float]):
    """The defaults of the run-time scalars: read them, set them."""

    __slots__ = ("_program",)

    def __init__(self, program: Program) -> None:
        self._program = program

    def __getitem__(self, name: str) -> bool | int | float:
        self._known(name)
        return self._program.hyper[name]

    def __setitem__(self, name: str, value: object) -> None:
        self._known(name)
        self._program.set_hyper(name, value)

    def __delitem__(self, name: str) -> None:
        raise UsageError(f"{self._program.name}.hyper: a hyper-parameter cannot be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._program.hyper)

    def __len__(self) -> int:
        return len(self._program.hyper)

    def __repr__(self) -> str:
        return repr(self._program.hyper)

    def _known(self, name: str) -> None:
        if name not in self._program.hyper:
            there = ", ".join(self._program.hyper) or "none"
            raise UnknownNameError(f"{self._program.name}.hyper: {name!r} given; there are {there}")


class _Compiled:
    """What steps and functions share."""

    def __init__(self, program: Program, compiles: int, cache_hits: int, look: Look | None) -> None:
        self._program = program
        self._compiles = compiles
        self._cache_hits = cache_hits
        self._look = look
        self._training: Callable[[], str] = str  # the last one's history as HTML, made when a report is asked for

    @property
    def program(self) -> Program:
        """The loaded program beneath, for tools and tests."""
        return self._program

    @property
    def origin(self) -> object:
        """What this was compiled from; None where it was not made by the compiler."""
        return self._look.origin if self._look is not None else None

    def show(self, stage: str = "") -> str:
        """The text of a stage: "declared", "forward", "grad", "update", "ledger", "optimized", "rewrites", "kernels",
        "memory", "llvm", "asm", "svg" (a drawing); "" for all but that.

        Raises: UsageError for another stage.
        """
        return self._looked().show(stage)

    def cost(self) -> object:
        """The cost sheet: operations, bytes and predicted time of each kernel, before running; ``print`` it."""
        return self._looked().cost()

    def report(self, path: str | os.PathLike[str], title: str = "", *, profile: object = None) -> None:
        """Writes a page of HTML, by itself and without need of a network, on which everything is linked: drawing,
        formulas, ledger, rewrites, kernels, memory, cost, LLVM and assembly. Click a formula, and its code lights up.

        After ``fit`` the page has its curves too. profile: what ``profile`` gave, for times beside the costs.

        Raises: UsageError for another kind of file, or a profile that is none; FileAccessError where it cannot be
        written.
        """
        if Path(path).suffix not in (".html", ".htm"):
            raise UsageError(f"{self._program.name}.report: {path} given; needs a file whose name ends in .html")
        text = self._looked().report(title or Path(path).stem, profile, self._training())
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise FileAccessError(f"{self._program.name}.report: {path} cannot be written: {error.strerror}") from error

    def profile(self, seconds: float = 1.0, /, **inputs: object) -> Any:  # a Profile of ``graphc/inspect/profile.py``
        """Where a call's time goes: each kernel timed inside it, beside the roofline, a table and a picture.

        seconds: how long to measure, about. inputs: as in a call; without any they are drawn, 32 for each run-time
        size. Weights and states stay as they are.

        Raises: what a call raises for its inputs.
        """
        return self._looked().profile(self._program, inputs, seconds)

    def _repr_html_(self) -> str:
        """What a notebook shows: the signature, and the maths of forward pass, gradients and update."""
        return f"<p><code>{escape(repr(self))}</code></p>{self._looked().html()}"

    def _looked(self) -> Look:
        if self._look is None:
            raise UsageError(f"{self._program.name}: not made by gc.compile; there is nothing to look into")
        return self._look

    @property
    def hyper(self) -> Hypers:
        """The defaults of the run-time scalars, such as ``lr``."""
        return Hypers(self._program)

    def stats(self) -> Stats:
        """Compiles, cache hits, calls and arena bytes; the functions of a step have their own."""
        return Stats(self._compiles, self._cache_hits, self._program.n_calls, self._program.arena_bytes())

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            f"{self._program.name}: machine code cannot be pickled or copied; "
            "save the weights with step.save(path) and compile again (the cache makes that quick)"
        )

    def _without_name(self, value: object) -> UsageError:
        names = ", ".join(f"{slot.name}=..." for slot in self._program.slots)
        return UsageError(
            f"{self._program.name}: {type(value).__name__} without a name given; inputs go by name: "
            f"{self._program.name}({names})"
        )

    def _inputs_text(self) -> str:
        return ", ".join(f"{s.name}: {s.dtype}{_dims_text(s.shape)}" for s in self._program.slots)


class Function(_Compiled):
    """A compiled function: call it by keyword, get arrays of your own.

    Its parameters are arguments like any other, or a step's live weights where ``step.function`` made it.
    """

    def __init__(
        self, program: Program, *, compiles: int = 1, cache_hits: int = 0, look: Look | None = None
    ) -> None:
        super().__init__(program, compiles, cache_hits, look)

    def __call__(self, /, *given: object, **inputs: object) -> Any:  # what was compiled decides; no type says so
        """The results for these inputs: an array, a list or a dict, as compiled."""
        if given:
            raise self._without_name(given[0])
        return self._program.run(inputs, _READERS[self._program.layout.results.kind])

    def __repr__(self) -> str:
        layout = self._program.layout
        outputs = [layout.buffers[layout.index(name)] for _, name in layout.results.outputs]
        made = ", ".join(f"{b.dtype}{_dims_text(b.shape)}" for b in outputs)
        return f"<graphc function ({self._inputs_text()}) -> {made}>"


class TrainStep(_Compiled):
    """A compiled training step: forward, backward and update as one native function."""

    def __new__(cls, *given: object, **named: object) -> TrainStep:
        made: TrainStep = super().__new__(fastcall.callable_type(cls))
        return made

    def __init__(
        self,
        program: Program,
        tools: Tools,
        *,
        compiles: int = 1,
        cache_hits: int = 0,
        seed: int = 0,
        look: Look | None = None,
    ) -> None:
        super().__init__(program, compiles, cache_hits, look)
        if program.store is None:
            raise UsageError("TrainStep: the program has no store")
        self._store: Store = program.store
        self._tools = tools
        self._seed = seed
        if type(self).__call__ is TrainStep.__call__:  # no subclass does more in a call
            program.make_fast(self, TrainStep.__call__)

    def __call__(self, /, *given: object, **inputs: object) -> Any:  # a float, or (float, dict of arrays)
        """Train one step on a batch: the loss before the update, with the further outputs where there are any.

        A hyper-parameter may be given beside the inputs, for this call.
        """
        if given:
            raise self._without_name(given[0])
        return self._program.run(inputs, _loss_and_outputs)

    @property
    def params(self) -> LiveArrays:
        """The live weights by name: read them, write them."""
        return LiveArrays("step.params", self._store, self._store.names("param"))

    @property
    def state(self) -> LiveArrays:
        """The live optimizer slots, states and step count by name."""
        return LiveArrays("step.state", self._store, self._store.names("state", "count"))

    def function(self, outputs: object) -> Function:
        """A forward-only function of a tensor, or a list or dict of tensors, that shares the live weights."""
        return self._tools.function(outputs)

    def fit(
        self,
        data: Mapping[str, object],
        batch_size: int = 32,
        epochs: int = 1,
        shuffle: bool = True,
        validation: Mapping[str, object] | None = None,
        until: float | None = None,
        progress: bool = True,
        seed: int | None = None,
    ) -> History:
        """Train for whole epochs inside native code: the losses by epoch and by step.

        data: an array for each input, sliced into batches along the first axis; the last one may be short. until: stop
        after an epoch whose mean loss a sample is no greater. validation: arrays on which the loss is taken after each
        epoch, without training. seed: of the shuffling; by default the step's own seed and its count of steps.

        Raises: what a call raises, naming epoch and step; weights are then as after the last whole step, as they are
        after Ctrl-C.
        """
        options = FitOptions(batch_size, epochs, shuffle, until, progress, self._shuffle_seed(seed))
        forward = self._tools.forward() if validation is not None else None
        history = train(self._program, data, options, validation, forward.program if forward else None)
        self._training = history._repr_html_
        return history

    def _shuffle_seed(self, seed: int | None) -> str:
        if seed is not None:
            if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
                raise InputError(f"step.fit: seed={seed!r} given; needs an integer or None")
            return f"given {seed}"
        counts = self._store.names("count")
        done = int(self._store[counts[0]]) if counts else self._program.n_calls
        return f"step {self._seed} {done}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights, optimizer slots, states and step count to a safetensors file, whole or not at all."""
        saving.save(self._store, path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read what ``save`` wrote; training goes on with the same bits. A file that does not fit changes nothing."""
        saving.load(self._store, path)

    def __repr__(self) -> str:
        n_weights = sum(a.size for a in self.params.values())
        return f"<graphc step ({self._inputs_text()}), {n_weights} weights in {len(self.params)} params>"


def _loss_and_outputs(context: Context) -> float | tuple[float, dict[str, Array]]:
    assert context.loss is not None  # the layout of a step has one
    loss: float = context.loss[0]
    return (loss, _copied(context)) if context.outputs else loss


def _first(context: Context) -> Array:
    return context.outputs[0][1].copy()


def _listed(context: Context) -> list[Array]:
    return [view.copy() for _, view in context.outputs]


def _copied(context: Context) -> dict[str, Array]:
    return {key: view.copy() for key, view in context.outputs}


def _dims_text(shape: tuple[SizeLike, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


_READERS: dict[str, Callable[[Context], Array | list[Array] | dict[str, Array]]] = {
    "tensor": _first, "list": _listed, "dict": _copied,
}  # fmt: skip
