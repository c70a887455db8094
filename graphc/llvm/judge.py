"""Whether a team of threads pays, as LLVM: what a call takes alone is known, and what calls together save is kept.

A core that another process holds makes a whole team wait, and so does a machine that moves a member to a core with
other caches. So ``step`` compares what each call takes together with what one takes alone.

What is saved goes to two accounts, in time: first ``CREDIT``, which holds that of a few calls and pays for calls that
are slower together; what it has no room for goes to ``RESERVE``, which holds more and pays for stalls: what a call
loses beyond ``STALL`` times what it takes alone. Such a call meets a pause of milliseconds, which a machine makes now
and then whoever runs. So one stall changes nothing, and a team that is slower call after call is found out after some
calls, whatever it saved before. Once an account is spent, so many calls run alone that what was lost is 1/``LOSS`` of
their time; a reserve then begins with some again.

Calls of a rest are timed, and now and then another one, to know what a call takes alone today. A shorter time is
believed at once, a longer one by an eighth, and no further than twice what was known: it may be a stall. The first call
after one that ran alone wakes the members: what it loses counts once a second one is slower too.
"""

from __future__ import annotations

from graphc.kernels.layout import WORD_ALONE, WORD_ALWAYS, WORD_CREDIT, WORD_RESERVE, WORD_REST
from graphc.llvm.counters import reading

LOSS = 32  # calls that run alone for each time of a call that was lost
STALL = 8  # times of a call beyond which a loss is a stall
MOST_CREDIT = 64  # times of a call that a team may lose, after it saved them
FIRST_RESERVE, MOST_RESERVE = 128, 512  # times of a call that it may lose in stalls, at first and after it saved them
PERIOD = 1024  # calls together after which one runs alone
SOON = 8  # such calls after the very first, which met cold memory
RESTS = "team_rests"
ALONE = "team_alone"
JUDGE = "team_judge"


def judge_texts(run: str, triple: str) -> dict[str, str]:
    """Functions by name. ``team_rests(context)``: whether this call runs alone and is timed. ``team_alone(context)``
    makes such a call of ``run`` and gives its status. ``team_judge(context, turns)`` notes what a call took together,
    and gives whether alone it is faster. The last two are left as they stand: LLVM takes longer than they ever run."""
    counter = reading(triple)
    words = {"alone": WORD_ALONE, "rest": WORD_REST, "credit": WORD_CREDIT, "reserve": WORD_RESERVE}
    places = "\n".join(f"  %{name}_at = getelementptr i64, ptr %ctx, i64 {n}" for name, n in words.items())
    values = places + "\n" + "\n".join(f"  %{name} = load i64, ptr %{name}_at" for name in words)
    rests = f"""define internal i1 @{RESTS}(ptr %ctx) nounwind {{
{values}
  %always_at = getelementptr i64, ptr %ctx, i64 {WORD_ALWAYS}
  %always = load i64, ptr %always_at
  %unknown = icmp eq i64 %alone, 0
  %resting = icmp sgt i64 %rest, 0
  %stale = icmp sle i64 %rest, -{PERIOD}
  %either = or i1 %resting, %stale
  %wants = or i1 %unknown, %either
  %unasked = icmp eq i64 %always, 0
  %measures = and i1 %wants, %unasked
  ret i1 %measures
}}"""
    alone = f"""define internal i32 @{ALONE}(ptr %ctx) nounwind noinline optnone {{
  %began = {counter}
  %status = call i32 @{run}(ptr %ctx, i64 0, i64 0, ptr null)
  %ended = {counter}
{values}
  %turns = sub i64 %ended, %began
  %took = call i64 @llvm.smax.i64(i64 %turns, i64 1)
  %unknown = icmp eq i64 %alone, 0
  %above = sub i64 %took, %alone
  %lower = icmp slt i64 %above, 0
  %at_once = or i1 %unknown, %lower
  %further = call i64 @llvm.smin.i64(i64 %above, i64 %alone)
  %eighth = ashr i64 %further, 3
  %raised = add i64 %alone, %eighth
  %estimate = select i1 %at_once, i64 %took, i64 %raised
  store i64 %estimate, ptr %alone_at
  %resting = icmp sgt i64 %rest, 0
  %fewer = sub i64 %rest, 1
  %later = select i1 %resting, i64 %fewer, i64 0
  %rest_then = select i1 %unknown, i64 {SOON - PERIOD}, i64 %later
  store i64 %rest_then, ptr %rest_at
  br i1 %unknown, label %first, label %end
first:
  store i64 0, ptr %credit_at
  %first_reserve = mul i64 %estimate, {FIRST_RESERVE}
  store i64 %first_reserve, ptr %reserve_at
  br label %end
end:
  ret i32 %status
}}"""
    judge = f"""define internal i1 @{JUDGE}(ptr %ctx, i64 %turns) nounwind noinline optnone {{
{values}
  %saved = sub i64 %alone, %turns
  %awake = icmp ne i64 %rest, 0
  %limit = mul i64 %alone, -{STALL}
  %within = call i64 @llvm.smax.i64(i64 %saved, i64 %limit)
  %stall = sub i64 %saved, %within
  %credit_sum = add i64 %credit, %within
  %most_credit = mul i64 %alone, {MOST_CREDIT}
  %credit_now = call i64 @llvm.smin.i64(i64 %credit_sum, i64 %most_credit)
  %no_room = sub i64 %credit_sum, %credit_now
  %moved = add i64 %stall, %no_room
  %reserve_sum = add i64 %reserve, %moved
  %most_reserve = mul i64 %alone, {MOST_RESERVE}
  %reserve_now = call i64 @llvm.smin.i64(i64 %reserve_sum, i64 %most_reserve)
  %below = icmp slt i64 %credit_now, 0
  %slower = icmp slt i64 %saved, 0
  %slower_awake = and i1 %slower, %awake
  %spent = and i1 %below, %slower_awake
  %stalled = icmp slt i64 %reserve_now, 0
  %first_reserve = mul i64 %alone, {FIRST_RESERVE}
  %credit_gone = sub i64 0, %credit_now
  %reserve_gone = sub i64 %first_reserve, %reserve_now
  %credit_lost = select i1 %spent, i64 %credit_gone, i64 0
  %reserve_lost = select i1 %stalled, i64 %reserve_gone, i64 0
  %lost = add i64 %credit_lost, %reserve_lost
  %weighed = mul i64 %lost, {LOSS}
  %calls = sdiv i64 %weighed, %alone
  %one_more = sub i64 %rest, 1
  %rests = or i1 %spent, %stalled
  %rest_then = select i1 %rests, i64 %calls, i64 %one_more
  %credit_then = select i1 %rests, i64 0, i64 %credit_now
  %reserve_then = select i1 %stalled, i64 %first_reserve, i64 %reserve_now
  store i64 %rest_then, ptr %rest_at
  store i64 %credit_then, ptr %credit_at
  store i64 %reserve_then, ptr %reserve_at
  ret i1 %slower
}}"""
    return {RESTS: rests, ALONE: alone, JUDGE: judge}
