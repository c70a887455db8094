"""The LLVM text of a native way into a training step: it takes a call's arguments, checks them and runs the step.

``graphc_call`` is a function of CPython's vectorcall protocol, which calls of a step go to. It takes the keyword
arguments of a call whose arrays are all as native code wants them and of the same shapes as at the last call, and
hyper-parameters that are floats; it sets the addresses, runs the step and returns the loss as a float. Whatever it does
not expect goes to the Python method ``slow``, which knows every rule and every message; so does a step whose checks
fail, which has then written nothing.

The fields read are those of CPython's and NumPy's C API: type and tuple items; of an array data, rank, sizes, dtype and
flags. ``fastcall.usable`` compares them with what Python says.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph.dtypes import DType
from graphc.kernels.layout import Layout
from graphc.llvm.text import Module, Value, Writer, const
from graphc.structs import dataclass

SYMBOL = "graphc_call"
STATE_SYMBOL = "graphc_call_state"
SYMBOLS = (SYMBOL, STATE_SYMBOL)

WORDS = (
    "ready",         # 1: everything below holds
    "guard",         # address of the store's two words (``store.Guard``): both zero, or the call goes the slow way
    "context",       # address of the context, whose inputs' words are set here
    "releases",      # 1: let other threads run meanwhile
    "calls",         # calls made this way
    "owned_first",   # the addresses of weights and states: an input there must be copied
    "owned_last",
    "array_type",    # numpy.ndarray
    "float_type",    # float
    "slow",          # the Python function for everything else, whose first argument is the step
    "new_float",     # PyFloat_FromDouble
    "save_thread",   # PyEval_SaveThread
    "restore_thread",
    "new_method",    # PyMethod_New
    "vectorcall",    # PyObject_Vectorcall
    "release",       # Py_DecRef
    "hold",          # Py_IncRef
    "intern",        # PyUnicode_InternInPlace
)  # fmt: skip
AT = {name: n for n, name in enumerate(WORDS)}
_MOST_ARGUMENTS = 8
_NAMES = "graphc_call_names"  # the names of a call, interned; the interpreter's lock is held while they are used
_INTERN = "graphc_call_intern"

# Bytes into an object.
HEADER = object.__basicsize__  # of every object; an array's or a tuple's own fields follow
TYPE = HEADER - 8
SIZE, ITEMS = HEADER, HEADER + 8  # of a tuple
DATA, RANK, SIZES, DTYPE, FLAGS = HEADER, HEADER + 8, HEADER + 16, HEADER + 40, HEADER + 48
_READY_FLAGS = 0x101  # C_CONTIGUOUS, ALIGNED
_COUNT_MASK = 2**63 - 1  # above it, in the count of positional arguments, PY_VECTORCALL_ARGUMENTS_OFFSET


@dataclass(frozen=True, slots=True)
class FastInput:
    """An input: name, dtype, rank, and its word in the context."""

    name: str
    dtype: DType
    rank: int
    word: int


@dataclass(frozen=True, slots=True)
class FastHyper:
    """A run-time scalar that a call may override: name and dtype."""

    name: str
    dtype: DType


def fast_hypers(layout: Layout) -> tuple[FastHyper, ...]:
    """The run-time scalars that a fast call takes: the floats."""
    return tuple(FastHyper(b.name, b.dtype) for b in layout.buffers if b.role == "hyper" and b.dtype.kind == "f")


def fast_inputs(layout: Layout) -> tuple[FastInput, ...]:
    """The inputs that a fast call takes, none where the program has no fast way: too many inputs, or more to return."""
    inputs = tuple(
        FastInput(b.name, b.dtype, len(b.shape), layout.buffer_word(n))
        for n, b in enumerate(layout.buffers)
        if b.role == "input"
    )
    simple = layout.results.kind == "loss" and not layout.results.outputs
    return inputs if simple and len(inputs) + len(fast_hypers(layout)) <= _MOST_ARGUMENTS else ()


def input_word(inputs: Sequence[FastInput], number: int) -> int:
    """The first word of an input in the state: the address of its name, of its dtype, then its sizes."""
    return len(WORDS) + sum(2 + item.rank for item in inputs[:number])


def hyper_word(inputs: Sequence[FastInput], number: int) -> int:
    """The first word of a run-time scalar in the state: the address of its name, of its memory, and of its default."""
    return input_word(inputs, len(inputs)) + 3 * number


def module_text(layout: Layout, fma: bool = True) -> str:
    """The LLVM module that defines ``graphc_call``.

    >>> from graphc.graph.dtypes import float32
    >>> from graphc.kernels.layout import Buffer, Results
    >>> x, loss = Buffer("x", "input", float32, (2, 3)), Buffer("loss", "output", float32, (), 0)
    >>> text = module_text(Layout((), (x, loss), (4,), Results("loss", "loss")))
    >>> "define ptr @graphc_call(ptr %step, ptr %args, i64 %count, ptr %names)" in text
    True
    """
    module = Module("call", fma=fma)
    module.declare(layout.symbol, "i32", ["ptr"])
    module.globals[STATE_SYMBOL] = f"@{STATE_SYMBOL} = global ptr null, align 8"
    _define_intern(module)
    w = Writer(module)
    params = [Value("%step", "ptr"), Value("%args", "ptr"), Value("%count", "i64"), Value("%names", "ptr")]
    step, args, count, names = params
    slow = w.label("slow")
    state = w.load("ptr", Value(f"@{STATE_SYMBOL}", "ptr"))
    inputs = fast_inputs(layout)
    positional = w.and_(count, _i64(_COUNT_MASK))
    _require(w, slow, w.icmp("eq", _state(w, state, "ready"), _i64(1)), w.icmp("eq", positional, _i64(0)))
    _require(w, slow, w.icmp("ne", w.cast("ptrtoint", names, "i64"), _i64(0)))
    given = _field(w, names, SIZE)
    _require(w, slow, w.icmp("sge", given, _i64(len(inputs))))
    call = _Call(w, slow, state, args, names, given)
    hypers = fast_hypers(layout)
    found = call.places(inputs, len(hypers))
    data = [call.input(inputs, number, found[number]) for number in range(len(inputs))]
    places = found[len(inputs) :]
    call.no_others(len(inputs), places)
    guard = _state(w, state, "guard", "ptr")
    running = w.gep(guard, _i64(1), "i64")
    free = w.icmp("eq", w.or_(w.load("i64", guard), w.load("i64", running)), _i64(0))
    _require(w, slow, free)
    call.check_floats(places)
    w.store(_i64(1), running)
    call.override(inputs, hypers, places)
    context = _state(w, state, "context", "ptr")
    for item, address in zip(inputs, data, strict=True):
        w.store(address, w.gep(context, _i64(item.word), "i64"))
    status = _run(w, layout, state, context)
    call.restore(inputs, hypers, places)
    w.store(_i64(0), running)
    _require(w, slow, w.icmp("eq", status, const("i32", 0)))
    calls = w.gep(state, _i64(AT["calls"]), "i64")
    w.store(w.add(w.load("i64", calls), _i64(1)), calls)
    number = layout.index(layout.results.loss)
    where = w.load("ptr", w.gep(context, _i64(layout.buffer_word(number)), "i64"))
    loss = w.load("float" if layout.buffers[number].dtype.name == "float32" else "double", where)
    wide = w.cast("fpext", loss, "double")
    made = w.new("ptr", f"call ptr {_state(w, state, 'new_float', 'ptr').text}(double {wide.text})")
    w.ret(made)
    w.place(slow)
    call.go_slow(step, count)
    module.define(SYMBOL, "ptr", params, w)
    return module.text()


def _define_intern(module: Module) -> None:
    """The function that puts the names of a call, interned, into memory of its own. Those that matter are held by the
    step, so none is held there.
    """
    module.globals[_NAMES] = f"@{_NAMES} = internal global [{_MOST_ARGUMENTS} x ptr] zeroinitializer, align 8"
    w = Writer(module)
    names, given, state = params = [Value("%names", "ptr"), Value("%given", "i64"), Value("%state", "ptr")]
    hold, intern, release = (_state(w, state, name, "ptr").text for name in ("hold", "intern", "release"))
    loop = w.loop(_i64(0), given, _i64(1))
    name = w.load("ptr", w.gep(w.gep(names, _i64(ITEMS), "i8"), loop.index, "i64"))
    at = w.gep(Value(f"@{_NAMES}", "ptr"), loop.index, "i64")
    w.store(name, at)
    w.line(f"call void {hold}(ptr {name.text})")
    w.line(f"call void {intern}(ptr {at.text})")
    w.line(f"call void {release}(ptr {w.load('ptr', at).text})")
    w.end_loop(loop)
    w.ret()
    module.define(_INTERN, "void", params, w, "internal", "noinline cold")


def _i64(number: int) -> Value:
    return const("i64", number)


def _state(w: Writer, state: Value, name: str, kind: str = "i64") -> Value:
    return w.load(kind, w.gep(state, _i64(AT[name]), "i64"))


def _field(w: Writer, thing: Value, offset: int, kind: str = "i64") -> Value:
    return w.load(kind, w.gep(thing, _i64(offset), "i8"))


def _require(w: Writer, otherwise: str, *conditions: Value) -> None:
    together = conditions[0]
    for condition in conditions[1:]:
        together = w.and_(together, condition)
    further = w.label("ok")
    w.condbr(together, further, otherwise)
    w.place(further)


class _Call:
    """The arguments of one call, as they are read. ``given`` is how many names there are; all addresses are i64."""

    def __init__(self, w: Writer, slow: str, state: Value, args: Value, names: Value, given: Value) -> None:
        self.w, self.slow, self.state, self.args, self.names, self.given = w, slow, state, args, names, given

    def places(self, inputs: Sequence[FastInput], n_hypers: int) -> list[Value]:
        """Which argument each input is, then each scalar, -1 for none.

        Most calls name all inputs in the order of their declaration and nothing else, which is looked for first.
        """
        w = self.w
        usual = w.icmp("eq", self.given, _i64(len(inputs)))
        for number in range(len(inputs)):
            name = w.load("i64", w.gep(self.names, _i64(ITEMS + 8 * number), "i8"))
            wanted = w.load("i64", w.gep(self.state, _i64(input_word(inputs, number)), "i64"))
            usual = w.and_(usual, w.icmp("eq", name, wanted))
        branch = w.if_(w.icmp("eq", usual, const("i1", 0)), expected=False)
        words = [input_word(inputs, number) for number in range(len(inputs))]
        words += [hyper_word(inputs, number) for number in range(n_hypers)]
        searched = self.searched(words)
        before, after = branch.otherwise, w.block
        w.end_if(branch)
        listed = [_i64(number) for number in range(len(inputs))] + [_i64(-1)] * n_hypers
        return [w.phi("i64", [(one, before), (other, after)]) for one, other in zip(listed, searched, strict=True)]

    def searched(self, words: Sequence[int]) -> list[Value]:
        """Which argument has the name in each of these words, -1 for none.

        Names are interned, so addresses compare. Where one given is not among them it may be a text that is not
        interned (the key of a dict that was read from somewhere): then all are searched once more, interned.
        """
        w = self.w
        interned = Value(f"@{_NAMES}", "ptr")
        turn = w.repeat([w.gep(self.names, _i64(ITEMS), "i8"), _i64(0)])
        places = [self.place(word, turn.carried[0]) for word in words]
        known = self.n_known(places)
        few = w.icmp("sle", self.given, _i64(_MOST_ARGUMENTS))
        again = w.and_(w.and_(w.icmp("ne", known, self.given), few), w.icmp("eq", turn.carried[1], _i64(0)))
        branch = w.if_(again, expected=False)
        w.line(f"call void @{_INTERN}(ptr {self.names.text}, i64 {self.given.text}, ptr {self.state.text})")
        w.end_if(branch)
        w.end_repeat(turn, [interned, _i64(1)], again)
        return places

    def n_known(self, places: Sequence[Value]) -> Value:
        """How many of these places there are."""
        known: Value = _i64(0)
        for place in places:
            known = self.w.add(known, self.w.cast("zext", self.w.icmp("sge", place, _i64(0)), "i64"))
        return known

    def go_slow(self, step: Value, count: Value) -> None:
        """Return what the Python method gives."""
        w, state = self.w, self.state
        new, function = _state(w, state, "new_method", "ptr"), _state(w, state, "slow", "ptr")
        method = w.new("ptr", f"call ptr {new.text}(ptr {function.text}, ptr {step.text})")
        failed, made = w.label("failed"), w.label("made")
        w.condbr(w.icmp("eq", w.cast("ptrtoint", method, "i64"), _i64(0)), failed, made)
        w.place(failed)
        w.ret(method)  # null: the error is set
        w.place(made)
        vectorcall, release = _state(w, state, "vectorcall", "ptr"), _state(w, state, "release", "ptr")
        listed = f"ptr {method.text}, ptr {self.args.text}, i64 {count.text}, ptr {self.names.text}"
        result = w.new("ptr", f"call ptr {vectorcall.text}({listed})")
        w.line(f"call void {release.text}(ptr {method.text})")
        w.ret(result)

    def place(self, at: int, names: Value) -> Value:
        """Which of ``names`` is that in the state's word ``at``, -1 for none.

        A place beyond the names given is never read: the tuple's last name is looked at instead.
        """
        w = self.w
        wanted = w.load("i64", w.gep(self.state, _i64(at), "i64"))
        last = w.sub(self.given, _i64(1))
        place: Value = _i64(-1)
        for n in range(_MOST_ARGUMENTS):
            index = w.intrinsic("llvm.smin", "i64", [last, _i64(n)])
            name = w.load("i64", w.gep(names, index, "i64"))
            place = w.select(w.icmp("eq", name, wanted), index, place)
        return place

    def input(self, inputs: Sequence[FastInput], number: int, place: Value) -> Value:
        """The address of an input's data, after every check."""
        w, item, first = self.w, inputs[number], input_word(inputs, number)
        _require(w, self.slow, w.icmp("sge", place, _i64(0)))
        array = w.load("ptr", w.gep(self.args, place, "i64"))
        _require(w, self.slow, w.icmp("eq", _field(w, array, TYPE), _state(w, self.state, "array_type")))
        flags = w.and_(_field(w, array, FLAGS, "i32"), const("i32", _READY_FLAGS))
        conditions = [
            w.icmp("eq", _field(w, array, DTYPE), w.load("i64", w.gep(self.state, _i64(first + 1), "i64"))),
            w.icmp("eq", flags, const("i32", _READY_FLAGS)),
            w.icmp("eq", _field(w, array, RANK, "i32"), const("i32", item.rank)),
        ]
        _require(w, self.slow, *conditions)
        sizes = _field(w, array, SIZES, "ptr")
        for axis in range(item.rank):
            size = w.load("i64", w.gep(sizes, _i64(axis), "i64"))
            wanted = w.load("i64", w.gep(self.state, _i64(first + 2 + axis), "i64"))
            _require(w, self.slow, w.icmp("eq", size, wanted))
        data = _field(w, array, DATA)
        before = w.icmp("ult", data, _state(w, self.state, "owned_first"))
        _require(w, self.slow, w.or_(before, w.icmp("uge", data, _state(w, self.state, "owned_last"))))
        return data

    def no_others(self, n_inputs: int, places: Sequence[Value]) -> None:
        """Go the slow way unless every name given is an input's or a scalar's."""
        w = self.w
        known = w.add(_i64(n_inputs), self.n_known(places))
        _require(w, self.slow, w.icmp("eq", known, self.given))

    def check_floats(self, places: Sequence[Value]) -> None:
        """Go the slow way unless the scalars given are Python floats. One not given is taken for the first argument."""
        w = self.w
        for place in places:
            absent = w.icmp("slt", place, _i64(0))
            number = w.load("ptr", w.gep(self.args, w.select(absent, _i64(0), place), "i64"))
            is_float = w.icmp("eq", _field(w, number, TYPE), _state(w, self.state, "float_type"))
            _require(w, self.slow, w.or_(absent, is_float))

    def override(self, inputs: Sequence[FastInput], hypers: Sequence[FastHyper], places: Sequence[Value]) -> None:
        """Put the scalars given where the program reads them."""
        w = self.w
        for number, (item, place) in enumerate(zip(hypers, places, strict=True)):
            present = w.if_(w.icmp("sge", place, _i64(0)))
            value = _field(w, w.load("ptr", w.gep(self.args, place, "i64")), HEADER, "double")
            memory = w.load("ptr", w.gep(self.state, _i64(hyper_word(inputs, number) + 1), "i64"))
            w.store(w.cast("fptrunc", value, "float") if item.dtype.itemsize == 4 else value, memory)
            w.end_if(present)

    def restore(self, inputs: Sequence[FastInput], hypers: Sequence[FastHyper], places: Sequence[Value]) -> None:
        """Put the defaults back, bit for bit."""
        w = self.w
        for number, (item, place) in enumerate(zip(hypers, places, strict=True)):
            present = w.if_(w.icmp("sge", place, _i64(0)))
            first = hyper_word(inputs, number)
            memory = w.load("ptr", w.gep(self.state, _i64(first + 1), "i64"))
            kind = "i32" if item.dtype.itemsize == 4 else "i64"
            w.store(w.load(kind, w.gep(self.state, _i64(first + 2), "i64")), memory)
            w.end_if(present)


def _run(w: Writer, layout: Layout, state: Value, context: Value) -> Value:
    """The step's status; the interpreter lock is given away meanwhile where the step is long."""
    releasing = w.if_(w.icmp("ne", _state(w, state, "releases"), _i64(0)))
    thread = w.new("ptr", f"call ptr {_state(w, state, 'save_thread', 'ptr').text}()")
    long = w.call(layout.symbol, "i32", [context])
    w.line(f"call void {_state(w, state, 'restore_thread', 'ptr').text}(ptr {thread.text})")
    long_from = w.block
    w.else_(releasing)
    short = w.call(layout.symbol, "i32", [context])
    short_from = w.block
    w.end_if(releasing)
    return w.phi("i32", [(long, long_from), (short, short_from)])
