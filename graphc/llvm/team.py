"""A team of threads as LLVM: the program's entry that calls it, the wait of its members, and a member's life.

A team is an array of words, each alone on its cache line. The caller of ``step`` is member 0. It notes the job, adds
one to ``turn`` and does its share; the others look at ``turn``, for a while in a loop and then asleep, do theirs and
add one to ``left``. Members wait for each other by adding to ``arrived`` until it holds all of them as often as they
have waited. Who finds the team at work already does the whole job alone.

Whether a team pays is measured too, by ``llvm/judge.py``. The bits are the same either way.
"""

from __future__ import annotations

from graphc.kernels.layout import WORD_ALWAYS, WORD_FAILED, WORD_TEAM
from graphc.llvm.counters import reading
from graphc.llvm.judge import ALONE, JUDGE, RESTS, judge_texts
from graphc.llvm.target import Target
from graphc.llvm.text import Module

LINE_WORDS = 8  # words of a cache line
BUSY, TURN, ARRIVED, LEFT, ASLEEP, STOP, SHIFT, JOB_CONTEXT, JOB_RUN, PRESENT, SET_APART = range(11)  # lines
MASK = 11  # the cores that members may use, in bits, on two lines
MEMBERS = 13  # a line a member, itself included: the number of its thread, and of the core that it was last on
SPINS = 4000  # looks at ``turn`` before a member goes to sleep: some 50 microseconds
PATIENCE = 128  # looks at a word that others add to before a member offers its core: it may be what they need
WAIT = "team_wait"
UNTIL = "team_until"
WORKER = "team_worker"
APART = "team_apart"
_FUTEX = {"x86_64": 202, "aarch64": 98}  # Linux's numbers of system calls
_GETTID = {"x86_64": 186, "aarch64": 178}
_SETAFFINITY = {"x86_64": 203, "aarch64": 122}


def can_have_team(target: Target) -> bool:
    """Whether members can sleep and be woken there: on Linux, on the architectures whose system calls are known."""
    return "linux" in target.triple and target.triple.split("-")[0] in _FUTEX


def futex(triple: str) -> int:
    """The number of the system call by which members sleep and are woken."""
    return _FUTEX[triple.split("-")[0]]


def _at(line: int) -> str:
    return f"getelementptr i8, ptr %team, i64 {8 * LINE_WORDS * line}"


def _pause(triple: str) -> str:
    """An instruction that tells the core that this is a waiting loop."""
    return {"x86_64": "call void @llvm.x86.sse2.pause()", "aarch64": "call void @llvm.aarch64.hint(i32 1)"}[
        triple.split("-")[0]
    ]


def add_entry(module: Module, run: str) -> None:
    """Adds the exported ``step``, which runs ``run(context, member, shift, team)`` by the context's team, and the wait
    that ``run`` calls. ``shift``: the logarithm of the number of members."""
    if not any(part in module.triple for part in _FUTEX):
        empty = f"define internal void @{WAIT}(ptr %team, i64 %shift, i64 %n) nounwind"
        module.functions[WAIT] = f"{empty} {{\n  ret void\n}}"
        module.functions["step"] = "\n".join(
            [
                "define i32 @step(ptr %ctx) nounwind {",
                f"  %failed = getelementptr i64, ptr %ctx, i64 {WORD_FAILED}",
                "  store i64 0, ptr %failed",
                f"  %status = call i32 @{run}(ptr %ctx, i64 0, i64 0, ptr null)",
                "  ret i32 %status",
                "}",
            ]
        )
        return
    counter = reading(module.triple)
    module.declare("llvm.smin.i64", "i64", ["i64", "i64"])
    module.declare("llvm.smax.i64", "i64", ["i64", "i64"])
    module.declare("sched_yield", "i32", [])
    module.declare("syscall", "i64", ["i64", "..."])
    number = futex(module.triple)
    module.functions[UNTIL] = f"""define internal void @{UNTIL}(ptr %word, i64 %wanted) nounwind noinline {{
  br label %look
look:
  %turns = phi i64 [ 0, %0 ], [ %next, %wait ], [ 0, %yield ]
  %now = load atomic i64, ptr %word acquire, align 8
  %there = icmp uge i64 %now, %wanted
  br i1 %there, label %done, label %wait
wait:
  {_pause(module.triple)}
  %next = add i64 %turns, 1
  %long = icmp ugt i64 %next, {PATIENCE}
  br i1 %long, label %yield, label %look
yield:
  %ignored = call i32 @sched_yield()
  br label %look
done:
  ret void
}}"""
    module.functions[WAIT] = f"""define internal void @{WAIT}(ptr %team, i64 %shift, i64 %n) nounwind noinline {{
  %arrived = {_at(ARRIVED)}
  %old = atomicrmw add ptr %arrived, i64 1 acq_rel
  %all = shl i64 %n, %shift
  tail call void @{UNTIL}(ptr %arrived, i64 %all)
  ret void
}}"""
    module.functions |= judge_texts(run, module.triple)
    module.functions["step"] = f"""define i32 @step(ptr %ctx) nounwind {{
  %failed = getelementptr i64, ptr %ctx, i64 {WORD_FAILED}
  store i64 0, ptr %failed
  %word = getelementptr i64, ptr %ctx, i64 {WORD_TEAM}
  %team = load ptr, ptr %word
  %none = icmp eq ptr %team, null
  br i1 %none, label %alone, label %ask
alone:
  %status = call i32 @{run}(ptr %ctx, i64 0, i64 0, ptr null)
  ret i32 %status
ask:
  %shift_at = {_at(SHIFT)}
  %shift = load i64, ptr %shift_at
  %single = icmp eq i64 %shift, 0
  br i1 %single, label %alone, label %policy
policy:
  %measures = call i1 @{RESTS}(ptr %ctx)
  br i1 %measures, label %measure, label %take
measure:
  %found = call i32 @{ALONE}(ptr %ctx)
  ret i32 %found
take:
  %busy = {_at(BUSY)}
  %took = cmpxchg ptr %busy, i64 0, i64 1 acquire monotonic
  %mine = extractvalue {{ i64, i1 }} %took, 1
  br i1 %mine, label %together, label %alone
together:
  %start = {counter}
  %arrived = {_at(ARRIVED)}
  store atomic i64 0, ptr %arrived monotonic, align 8
  %left = {_at(LEFT)}
  store atomic i64 0, ptr %left monotonic, align 8
  %job_context = {_at(JOB_CONTEXT)}
  store ptr %ctx, ptr %job_context
  %job_run = {_at(JOB_RUN)}
  store ptr @{run}, ptr %job_run
  %turn = {_at(TURN)}
  %before = atomicrmw add ptr %turn, i64 1 seq_cst
  %asleep_at = {_at(ASLEEP)}
  %asleep = load atomic i64, ptr %asleep_at seq_cst, align 8
  %some = icmp ne i64 %asleep, 0
  br i1 %some, label %wake, label %work
wake:
  %set_apart_at = {_at(SET_APART)}
  %set_apart = load ptr, ptr %set_apart_at
  call void %set_apart(ptr %team)
  %woken = call i64 (i64, ...) @syscall(i64 {number}, ptr %turn, i32 129, i32 2147483647, ptr null, ptr null, i32 0)
  br label %work
work:
  %result = call i32 @{run}(ptr %ctx, i64 0, i64 %shift, ptr %team)
  %size = shl i64 1, %shift
  %others = sub i64 %size, 1
  call void @{UNTIL}(ptr %left, i64 %others)
  store atomic i64 0, ptr %busy release, align 8
  %always_at = getelementptr i64, ptr %ctx, i64 {WORD_ALWAYS}
  %always = load i64, ptr %always_at
  %unasked = icmp eq i64 %always, 0
  br i1 %unasked, label %judge, label %leave
judge:
  %stop = {counter}
  %turns = sub i64 %stop, %start
  %slower = call i1 @{JUDGE}(ptr %ctx, i64 %turns)
  br i1 %slower, label %slow, label %leave
slow:
  %apart_at = {_at(SET_APART)}
  %apart = load ptr, ptr %apart_at
  call void %apart(ptr %team)
  br label %leave
leave:
  ret i32 %result
}}"""


def n_words(size: int) -> int:
    """The length of the array of a team with so many members."""
    return (MEMBERS + size) * LINE_WORDS


def worker_text(target: Target) -> str:
    """The module of ``team_worker(team, member)``, which a thread runs until ``STOP`` is set, and of
    ``team_apart(team)``, which keeps members off the caller's core.

    The latter is for those who are on it: a kernel may wake a thread where its waker runs, in a virtual machine even if
    another core is idle, and the two would wait for each other in turns of the scheduler.
    """
    arch, number = target.triple.split("-")[0], futex(target.triple)
    return f"""target triple = "{target.triple}"
declare i64 @syscall(i64, ...)
declare i32 @sched_getcpu()
define void @{APART}(ptr %team) nounwind {{
  %mask = alloca [{2 * LINE_WORDS} x i64], align 16
  %cpu = call i32 @sched_getcpu()
  %here = sext i32 %cpu to i64
  %low = icmp sge i64 %here, 0
  %high = icmp slt i64 %here, {64 * 2 * LINE_WORDS}
  %known = and i1 %low, %high
  br i1 %known, label %prepare, label %end
prepare:
  %allowed = {_at(MASK)}
  call void @llvm.memcpy.p0.p0.i64(ptr %mask, ptr %allowed, i64 {16 * LINE_WORDS}, i1 false)
  %place = lshr i64 %here, 6
  %word = getelementptr i64, ptr %mask, i64 %place
  %bit = and i64 %here, 63
  %own = shl i64 1, %bit
  %others = xor i64 %own, -1
  %before = load i64, ptr %word
  %left = and i64 %before, %others
  store i64 %left, ptr %word
  %shift_at = {_at(SHIFT)}
  %shift = load i64, ptr %shift_at
  %size = shl i64 1, %shift
  br label %look
look:
  %member = phi i64 [ 1, %prepare ], [ %following, %next ]
  %more = icmp slt i64 %member, %size
  br i1 %more, label %one, label %end
one:
  %line = mul i64 %member, {LINE_WORDS}
  %first = getelementptr i64, ptr %team, i64 {MEMBERS * LINE_WORDS}
  %thread_at = getelementptr i64, ptr %first, i64 %line
  %core_at = getelementptr i64, ptr %thread_at, i64 1
  %core = load atomic i64, ptr %core_at monotonic, align 8
  %meets = icmp eq i64 %core, %here
  br i1 %meets, label %move, label %next
move:
  %thread = load i64, ptr %thread_at
  %done = call i64 (i64, ...) @syscall(i64 {_SETAFFINITY[arch]}, i64 %thread, i64 {16 * LINE_WORDS}, ptr %mask)
  br label %next
next:
  %following = add i64 %member, 1
  br label %look
end:
  ret void
}}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define void @{WORKER}(ptr %team, i64 %member) nounwind {{
  %turn = {_at(TURN)}
  %asleep = {_at(ASLEEP)}
  %left = {_at(LEFT)}
  %stop_at = {_at(STOP)}
  %shift_at = {_at(SHIFT)}
  %job_context = {_at(JOB_CONTEXT)}
  %job_run = {_at(JOB_RUN)}
  %present = {_at(PRESENT)}
  %line = mul i64 %member, {LINE_WORDS}
  %first = getelementptr i64, ptr %team, i64 {MEMBERS * LINE_WORDS}
  %thread_at = getelementptr i64, ptr %first, i64 %line
  %core_at = getelementptr i64, ptr %thread_at, i64 1
  %thread = call i64 (i64, ...) @syscall(i64 {_GETTID[arch]})
  store i64 %thread, ptr %thread_at
  %core = call i32 @sched_getcpu()
  %core_long = sext i32 %core to i64
  store atomic i64 %core_long, ptr %core_at monotonic, align 8
  %entered = atomicrmw add ptr %present, i64 1 release
  br label %rest
rest:
  %seen = phi i64 [ 0, %0 ], [ %now, %work ]
  br label %look
look:
  %turns = phi i64 [ 0, %rest ], [ %next, %wait ], [ 0, %awake ]
  %now = load atomic i64, ptr %turn acquire, align 8
  %called = icmp ne i64 %now, %seen
  br i1 %called, label %job, label %wait
wait:
  {_pause(target.triple)}
  %next = add i64 %turns, 1
  %long = icmp ugt i64 %next, {SPINS}
  br i1 %long, label %sleep, label %look
sleep:
  %more = atomicrmw add ptr %asleep, i64 1 seq_cst
  %low = trunc i64 %seen to i32
  %slept = call i64 (i64, ...) @syscall(i64 {number}, ptr %turn, i32 128, i32 %low, ptr null, ptr null, i32 0)
  br label %awake
awake:
  %fewer = atomicrmw sub ptr %asleep, i64 1 seq_cst
  br label %look
job:
  %stop = load atomic i64, ptr %stop_at acquire, align 8
  %stops = icmp ne i64 %stop, 0
  br i1 %stops, label %end, label %work
work:
  %ctx = load ptr, ptr %job_context
  %run = load ptr, ptr %job_run
  %shift = load i64, ptr %shift_at
  %status = call i32 %run(ptr %ctx, i64 %member, i64 %shift, ptr %team)
  %gone = atomicrmw add ptr %left, i64 1 release
  %core_now = call i32 @sched_getcpu()
  %core_now_long = sext i32 %core_now to i64
  store atomic i64 %core_now_long, ptr %core_at monotonic, align 8
  br label %rest
end:
  ret void
}}
"""
