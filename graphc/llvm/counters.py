"""Time inside a program: the machine's steady counter read behind its kernels, and a loop that times whole calls.

A counted program exports an array of words: when the counter was last read, then for each kernel whether it is wanted,
then for each kernel the turns since the reading before. A kernel that is not wanted leaves its time to the next wanted
one, so that short ones are timed together. Only the first member of a team counts; what it waits for the others counts
to the kernel before which it waits. The kernels themselves are those of a program that is not counted.
"""

from __future__ import annotations

from graphc.llvm.target import Target
from graphc.llvm.text import Module, Value, Writer, const

COUNTERS = "counters"
TIMED, NOW = "timed", "now"
WANTED_WORD = 1  # of kernel 0; the turns of kernel 0 lie behind the last such word
_AT = Value(f"@{COUNTERS}", "ptr")
_I64 = "i64"


def reading(triple: str) -> str:
    """The call that reads the machine's steady counter."""
    kind = "readsteadycounter" if triple.startswith(("aarch64", "arm64")) else "readcyclecounter"
    return f"call i64 @llvm.{kind}()"


def add_counters(module: Module, n_kernels: int) -> None:
    """Adds the words, all zero: no kernel is wanted."""
    kind = f"[{WANTED_WORD + 2 * n_kernels} x i64]"
    module.globals[COUNTERS] = f"@{COUNTERS} = global {kind} zeroinitializer, align 64"


def begin(w: Writer, first: Value) -> None:
    """Notes when the program begins, if the i1 ``first``."""
    branch = w.if_(first)
    w.store(w.new(_I64, reading(w.module.triple)), _AT)
    w.end_if(branch)


def count(w: Writer, first: Value, number: int, n_kernels: int) -> None:
    """Notes the turns since the last reading as those of a kernel, if it is wanted and the i1 ``first`` holds."""
    wanted = w.load(_I64, w.gep(_AT, const(_I64, WANTED_WORD + number), _I64))
    branch = w.if_(w.and_(first, w.icmp("ne", wanted, const(_I64, 0))))
    now = w.new(_I64, reading(w.module.triple))
    w.store(w.sub(now, w.load(_I64, _AT)), w.gep(_AT, const(_I64, WANTED_WORD + n_kernels + number), _I64))
    w.store(now, _AT)
    w.end_if(branch)


def timing_text(target: Target) -> str:
    """The module of ``now()`` and of ``timed(step, context, n, out, words, width)``.

    ``timed`` calls a step ``n`` times and writes a row of ``1 + width`` words for each call: its turns, then a copy of
    ``words``. It ends at a step that fails, with what that returned.
    """
    read = reading(target.triple)
    return f"""target triple = "{target.triple}"
define i64 @{NOW}() nounwind {{
  %now = {read}
  ret i64 %now
}}
define i32 @{TIMED}(ptr %step, ptr %context, i64 %n, ptr %out, ptr %words, i64 %width) nounwind {{
start:
  br label %turn
turn:
  %i = phi i64 [ 0, %start ], [ %next, %row ]
  %at = phi ptr [ %out, %start ], [ %after, %row ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %call, label %done
call:
  %from = {read}
  %status = call i32 %step(ptr %context)
  %to = {read}
  %took = sub i64 %to, %from
  store i64 %took, ptr %at
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %leave, label %copy
copy:
  %k = phi i64 [ 0, %call ], [ %k_next, %word ]
  %k_next = add i64 %k, 1
  %left = icmp slt i64 %k, %width
  br i1 %left, label %word, label %row
word:
  %source = getelementptr i64, ptr %words, i64 %k
  %place = getelementptr i64, ptr %at, i64 %k_next
  %value = load i64, ptr %source
  store i64 %value, ptr %place
  br label %copy
row:
  %next = add i64 %i, 1
  %after = getelementptr i64, ptr %at, i64 %k_next
  br label %turn
leave:
  ret i32 %status
done:
  ret i32 0
}}
"""
