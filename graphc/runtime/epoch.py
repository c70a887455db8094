"""The native epoch loop, as LLVM text made from a step's layout.

``i32 @graphc_epochs(ptr %run)`` trains for a given number of steps and returns to Python, which looks for signals
and draws the progress bar. ``run`` is an array of 8-byte words (``WORDS``, then three for each sliced input,
then three for each averaged output); what changes from call to call lies there too. It returns 0, or the status of the
step that failed, which has then not been counted.
"""

from __future__ import annotations

from graphc.graph.dtypes import DType
from graphc.graph.sizes import SizeLike, dim, names, product
from graphc.kernels.layout import Buffer, Layout
from graphc.llvm.text import Module, Value, Writer, const
from graphc.structs import dataclass

SYMBOL = "graphc_epochs"
SHUFFLE_SYMBOL = "graphc_shuffle"
SYMBOLS = (SYMBOL, SHUFFLE_SYMBOL)

WORDS = (
    "budget",        # steps to do in this call
    "done",          # steps done in this call
    "epoch",         # the current epoch
    "step",          # the current step in it
    "n_epochs",
    "n_full",        # steps of a whole batch in an epoch
    "n_steps",       # all steps in an epoch: n_full, and one more for a last short batch
    "rows",          # of a whole batch
    "tail_rows",     # of the last short batch
    "n_rows",        # of the data
    "order",         # address of the row numbers, int64, in the order of training; 0 takes the rows as they lie
    "shuffles",      # 1: shuffle ``order`` when an epoch begins
    "random",        # state of the generator
    "context",       # address of the step's context for a whole batch
    "tail_context",
    "step_losses",   # address of ``budget`` doubles
    "epoch_losses",  # address of ``n_epochs`` doubles
    "loss_sum",      # double: loss times rows, over the epoch so far
    "until",         # double: an epoch whose mean loss is no greater ends the training; NaN for none
    "stopped",       # set to 1 when it did
    "pauses",        # 1: return at the end of every epoch
)  # fmt: skip
INPUT_WORDS = ("data", "staging", "row_bytes")
OUTPUT_WORDS = ("width", "sums", "means")
_AT = {name: n for n, name in enumerate(WORDS)}

# Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, section 3: SplitMix64.
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


@dataclass(frozen=True, slots=True)
class Sliced:
    """An input of which a batch is rows: its buffer, and the bytes of a row, None where a dimension decides."""

    buffer: int
    row_bytes: int | None


@dataclass(frozen=True, slots=True)
class Averaged:
    """An output averaged over an epoch: its key, its buffer, and whether it has a row for each of the batch's.

    recorded: whether no call gives it back, and ``key`` is the parameter whose gradient's squared norm it is.
    """

    key: str
    buffer: int
    by_row: bool
    recorded: bool = False


def word(name: str) -> int:
    """The number of a word of ``WORDS``."""
    return _AT[name]


def input_word(number: int, name: str) -> int:
    """The number of a word of the sliced input ``number``."""
    return len(WORDS) + len(INPUT_WORDS) * number + INPUT_WORDS.index(name)


def output_word(n_inputs: int, number: int, name: str) -> int:
    """The number of a word of the averaged output ``number``."""
    return len(WORDS) + len(INPUT_WORDS) * n_inputs + len(OUTPUT_WORDS) * number + OUTPUT_WORDS.index(name)


def can_fit(layout: Layout) -> bool:
    """Whether the layout is a training step's whose inputs can be sliced into batches."""
    return layout.results.kind == "loss" and bool(sliced(layout)) and not unsliceable(layout)


def sliced(layout: Layout) -> tuple[Sliced, ...]:
    """The inputs whose first axis is the batch."""
    found = []
    for number, buffer in enumerate(layout.buffers):
        if layout.batch_dim and buffer.role == "input" and buffer.shape and buffer.shape[0] == dim(layout.batch_dim):
            row = product((buffer.dtype.itemsize, *buffer.shape[1:]))
            found.append(Sliced(number, row if isinstance(row, int) else None))
    return tuple(found)


def unsliceable(layout: Layout) -> str:
    """The first input that has the batch's dimension elsewhere than as its first axis; "" where none has."""
    for buffer in layout.buffers:
        if buffer.role == "input" and layout.batch_dim:
            rest = buffer.shape[1:] if buffer.shape and buffer.shape[0] == dim(layout.batch_dim) else buffer.shape
            if any(layout.batch_dim in names(size) for size in rest):
                return buffer.name
    return ""


def averaged(layout: Layout) -> tuple[Averaged, ...]:
    """The outputs beside the loss. One that has the batch as its first axis is averaged over that axis too."""
    found = []
    for key, name in layout.results.outputs:
        number = layout.index(name)
        shape = layout.buffers[number].shape
        by_row = bool(layout.batch_dim) and bool(shape) and shape[0] == dim(layout.batch_dim)
        if by_row or not any(layout.batch_dim in names(size) for size in shape):
            found.append(Averaged(key, number, by_row))
    found += [Averaged(key, layout.index(name), False, True) for key, name in layout.results.recorded]
    return tuple(found)


def averaged_shape(buffer: Buffer, by_row: bool) -> tuple[SizeLike, ...]:
    """The shape of an averaged output."""
    return buffer.shape[1:] if by_row else buffer.shape


def module_text(layout: Layout, fma: bool = True) -> str:
    """The LLVM module that defines the loop; it calls ``layout.symbol``.

    >>> from graphc.graph.dtypes import float32
    >>> from graphc.kernels.layout import Results
    >>> x, loss = Buffer("x", "input", float32, (dim("N"), 3)), Buffer("loss", "output", float32, (), 0)
    >>> layout = Layout(("N",), (x, loss), (4,), Results("loss", "loss"), batch_dim="N")
    >>> "define i32 @graphc_epochs(ptr %run)" in module_text(layout)
    True
    """
    module = Module("epochs", fma=fma)
    module.declare(layout.symbol, "i32", ["ptr"])
    _define_shuffle(module)
    _define_epochs(module, layout)
    return module.text()


def _i64(number: int) -> Value:
    return const("i64", number)


class _Run:
    """The words of ``run``, read and written by name."""

    def __init__(self, w: Writer, base: Value) -> None:
        self.w = w
        self.base = base

    def pointer(self, number: int) -> Value:
        return self.w.gep(self.base, _i64(number), "i64")

    def get(self, name: str, kind: str = "i64") -> Value:
        return self.w.load(kind, self.pointer(_AT[name]))

    def set(self, name: str, value: Value) -> None:
        self.w.store(value, self.pointer(_AT[name]))


def _define_epochs(module: Module, layout: Layout) -> None:
    """One turn is one step; everything that outlives a turn lies in ``run``, so a call can end after any turn."""
    w = Writer(module)
    base = Value("%run", "ptr")
    run = _Run(w, base)
    turn, body, failed, end = w.label("turn"), w.label("body"), w.label("failed"), w.label("end")
    run.set("done", _i64(0))
    w.place(turn)
    finished = w.icmp("sge", run.get("epoch"), run.get("n_epochs"))
    spent = w.icmp("sge", run.get("done"), run.get("budget"))
    w.condbr(w.or_(finished, spent), end, body)

    w.place(body)
    step = run.get("step")
    begins = w.and_(w.icmp("eq", step, _i64(0)), w.icmp("eq", run.get("shuffles"), _i64(1)))
    fresh = w.if_(begins)
    w.call(SHUFFLE_SYMBOL, "void", [run.get("order", "ptr"), _i64(0), run.get("n_rows"), run.pointer(_AT["random"])])
    w.end_if(fresh)
    whole = w.icmp("slt", step, run.get("n_full"))
    context = w.select(whole, run.get("context", "ptr"), run.get("tail_context", "ptr"))
    rows = w.select(whole, run.get("rows"), run.get("tail_rows"))
    first = w.mul(step, run.get("rows"))
    _feed(w, run, layout, context, first, rows)
    status = w.call(layout.symbol, "i32", [context])
    good = w.label("good")
    w.condbr(w.icmp("eq", status, const("i32", 0)), good, failed)

    w.place(good)
    _account(w, run, layout, context, rows)
    following = w.add(step, _i64(1))
    run.set("step", following)
    closing = w.if_(w.icmp("sge", following, run.get("n_steps")))
    ends = _close_epoch(w, run, layout)
    w.condbr(ends, end, closing.end)
    w.end_if(closing)
    w.br(turn)

    w.place(failed)
    w.ret(status)
    w.place(end)
    w.ret(const("i32", 0))
    module.define(SYMBOL, "i32", [base], w)


def _feed(w: Writer, run: _Run, layout: Layout, context: Value, first: Value, rows: Value) -> None:
    """Gather the batch's rows into the staging arrays, or point the context at the data itself."""
    order = run.get("order", "ptr")
    inputs = sliced(layout)
    data = [w.load("ptr", run.pointer(input_word(n, "data"))) for n in range(len(inputs))]
    sizes = [
        _i64(item.row_bytes) if item.row_bytes is not None else w.load("i64", run.pointer(input_word(n, "row_bytes")))
        for n, item in enumerate(inputs)
    ]
    targets = [w.gep(context, _i64(layout.buffer_word(item.buffer)), "i64") for item in inputs]
    straight = w.if_(w.icmp("eq", w.cast("ptrtoint", order, "i64"), _i64(0)))
    for pointer, size, target in zip(data, sizes, targets, strict=True):
        w.store(w.gep(pointer, w.mul(first, size), "i8"), target)
    w.else_(straight)
    staging = [w.load("ptr", run.pointer(input_word(n, "staging"))) for n in range(len(inputs))]
    for pointer, target in zip(staging, targets, strict=True):
        w.store(pointer, target)
    loop = w.loop(_i64(0), rows, _i64(1))
    row = w.load("i64", w.gep(order, w.add(first, loop.index), "i64"))
    for source, target, size in zip(data, staging, sizes, strict=True):
        to = w.gep(target, w.mul(loop.index, size), "i8")
        where = w.gep(source, w.mul(row, size), "i8")
        w.intrinsic("llvm.memcpy", "void", [to, where, size, const("i1", 0)], ["ptr", "ptr", "i64"])
    w.end_loop(loop)
    w.end_if(straight)


def _account(w: Writer, run: _Run, layout: Layout, context: Value, rows: Value) -> None:
    """Note the step's loss and add it, and the outputs, to the epoch's sums, weighted by rows."""
    number = layout.index(layout.results.loss)
    where = w.load("ptr", w.gep(context, _i64(layout.buffer_word(number)), "i64"))
    loss = _load_double(w, where, layout.buffers[number].dtype)
    done = run.get("done")
    w.store(loss, w.gep(run.get("step_losses", "ptr"), done, "double"))
    run.set("done", w.add(done, _i64(1)))
    weight = w.cast("sitofp", rows, "double")
    run.set("loss_sum", w.fadd(run.get("loss_sum", "double"), w.fmul(loss, weight)))
    n_inputs = len(sliced(layout))
    for n, item in enumerate(averaged(layout)):
        dtype = layout.buffers[item.buffer].dtype
        source = w.load("ptr", w.gep(context, _i64(layout.buffer_word(item.buffer)), "i64"))
        width = w.load("i64", run.pointer(output_word(n_inputs, n, "width")))
        sums = w.load("ptr", run.pointer(output_word(n_inputs, n, "sums")))
        outer = w.loop(_i64(0), rows if item.by_row else _i64(1), _i64(1))
        inner = w.loop(_i64(0), width, _i64(1))
        at = w.add(w.mul(outer.index, width), inner.index)
        value = _load_double(w, w.gep(source, at, _memory_type(dtype)), dtype)
        total = w.gep(sums, inner.index, "double")
        w.store(w.fadd(w.load("double", total), value if item.by_row else w.fmul(value, weight)), total)
        w.end_loop(inner)
        w.end_loop(outer)


def _close_epoch(w: Writer, run: _Run, layout: Layout) -> Value:
    """Store the epoch's means and begin the next; an i1 that says whether this call ends here."""
    epoch = run.get("epoch")
    n_rows = w.cast("sitofp", run.get("n_rows"), "double")
    mean = w.fdiv(run.get("loss_sum", "double"), n_rows)
    w.store(mean, w.gep(run.get("epoch_losses", "ptr"), epoch, "double"))
    run.set("loss_sum", const("double", 0.0))
    n_inputs = len(sliced(layout))
    for n in range(len(averaged(layout))):
        width = w.load("i64", run.pointer(output_word(n_inputs, n, "width")))
        sums = w.load("ptr", run.pointer(output_word(n_inputs, n, "sums")))
        means = w.load("ptr", run.pointer(output_word(n_inputs, n, "means")))
        loop = w.loop(_i64(0), width, _i64(1))
        total = w.gep(sums, loop.index, "double")
        target = w.gep(means, w.add(w.mul(epoch, width), loop.index), "double")
        w.store(w.fdiv(w.load("double", total), n_rows), target)
        w.store(const("double", 0.0), total)
        w.end_loop(loop)
    run.set("epoch", w.add(epoch, _i64(1)))
    run.set("step", _i64(0))
    good_enough = w.fcmp("ole", mean, run.get("until", "double"))
    run.set("stopped", w.cast("zext", good_enough, "i64"))
    return w.or_(good_enough, w.icmp("ne", run.get("pauses"), _i64(0)))


def _memory_type(dtype: DType) -> str:
    return {"float32": "float", "float64": "double", "int32": "i32", "int64": "i64", "bool": "i8"}[dtype.name]


def _load_double(w: Writer, pointer: Value, dtype: DType) -> Value:
    value = w.load(_memory_type(dtype), pointer)
    if dtype.kind == "f":
        return w.cast("fpext", value, "double")
    return w.cast("uitofp" if dtype.kind == "b" else "sitofp", value, "double")


def _define_shuffle(module: Module) -> None:
    """``shuffle(order, first, last, state)``: turns first to last of a Fisher-Yates shuffle of ``order``.

    Turn i exchanges element i with one of the elements 0 to i. The number below i + 1 is the high half of a product
    with 64 random bits, whose bias is below i / 2**64.
    Source: Knuth, TAOCP 2, 3.4.2 (shuffling), Lemire 2019, "Fast random integer generation in an interval", section 3.
    """
    w = Writer(module)
    order, state = Value("%order", "ptr"), Value("%state", "ptr")
    first, last = Value("%first", "i64"), Value("%last", "i64")
    loop = w.loop(first, last, _i64(1), [w.load("i64", state)])
    seed = w.add(loop.carried[0], _i64(_signed(_GOLDEN)))
    bits = seed
    for shift, factor in _MIX:
        bits = w.mul(w.xor(bits, w.lshr(bits, _i64(shift))), _i64(_signed(factor)))
    wide = w.mul(w.cast("zext", bits, "i128"), w.cast("zext", w.add(loop.index, _i64(1)), "i128"))
    pick = w.cast("trunc", w.lshr(wide, const("i128", 64)), "i64")
    here, there = w.gep(order, loop.index, "i64"), w.gep(order, pick, "i64")
    a, b = w.load("i64", here), w.load("i64", there)
    w.store(b, here)
    w.store(a, there)
    (after,) = w.end_loop(loop, [seed])
    w.store(after, state)
    w.ret()
    module.define(SHUFFLE_SYMBOL, "void", [order, first, last, state], w)


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >= 1 << 63 else bits
