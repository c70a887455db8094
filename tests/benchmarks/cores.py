"""What two cores do at once: whether figures for two threads mean anything now.

    python cores.py [--seconds 20]

A line every half second. The first number is how long a word takes from one core to the other and back: less than
100 ns where they share a cache, some 300 where they do not. The second is the rate of multiply-adds of each of two
cores at work at once over that of one at work alone: 1 where each is its own, a half where they are threads of one. In
a virtual machine both change from second to second.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import threading
import time
from collections.abc import Callable

from graphc.llvm.target import host
from graphc.runtime.jit import compile_objects, load

TURNS, STEPS = 20_000, 200_000
CHAINS = 10  # sums at once, so that none waits for its last addition


def text(triple: str) -> str:
    """``bounce(word, me, n)``: n times, waits for the word to be 2 k + me and adds one. ``work(out, n)``: n steps of
    multiply-adds in registers."""
    kind, one, other = "<16 x float>", "splat (float 0x3FEFF7CEE0000000)", "splat (float 0x3F50624DE0000000)"
    sums = "\n".join(f"  %s{k} = phi {kind} [ splat (float 0.5), %0 ], [ %t{k}, %turn ]" for k in range(CHAINS))
    call = f"call {kind} @llvm.fma.v16f32"
    adds = "\n".join(f"  %t{k} = {call}({kind} %s{k}, {kind} {one}, {kind} {other})" for k in range(CHAINS))
    stores = "\n".join(
        f"  %p{k} = getelementptr {kind}, ptr %out, i64 {k}\n  store {kind} %t{k}, ptr %p{k}, align 4"
        for k in range(CHAINS)
    )
    return f"""target triple = "{triple}"
declare {kind} @llvm.fma.v16f32({kind}, {kind}, {kind})
define void @bounce(ptr %word, i64 %me, i64 %n) nounwind {{
  br label %turn
turn:
  %k = phi i64 [ 0, %0 ], [ %k_next, %mine ]
  %twice = shl i64 %k, 1
  %wanted = add i64 %twice, %me
  br label %look
look:
  %now = load atomic i64, ptr %word acquire, align 8
  %there = icmp eq i64 %now, %wanted
  br i1 %there, label %mine, label %look
mine:
  %after = add i64 %wanted, 1
  store atomic i64 %after, ptr %word release, align 8
  %k_next = add i64 %k, 1
  %more = icmp slt i64 %k_next, %n
  br i1 %more, label %turn, label %end
end:
  ret void
}}
define void @work(ptr %out, i64 %n) nounwind {{
  br label %turn
turn:
  %k = phi i64 [ 0, %0 ], [ %k_next, %turn ]
{sums}
{adds}
  %k_next = add i64 %k, 1
  %more = icmp slt i64 %k_next, %n
  br i1 %more, label %turn, label %end
end:
{stores}
  ret void
}}
"""


class Cores:
    """Two of the cores that this process may use."""

    def __init__(self) -> None:
        self.numbers = sorted(os.sched_getaffinity(0))[:2]
        target = host()
        self.native = load(compile_objects([text(target.triple)], target), ["bounce", "work"], target)
        self.bounce = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
            self.native.addresses["bounce"]
        )
        self.work = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(self.native.addresses["work"])

    def seconds(self, do: Callable[[int], object], members: range) -> list[float]:
        """What each member takes for ``do(member)``, all on cores of their own and at once."""
        taken = [0.0] * len(members)
        ready = threading.Barrier(len(members))

        def run(place: int, member: int) -> None:
            os.sched_setaffinity(0, {self.numbers[member]})  # of this thread alone
            ready.wait()
            start = time.perf_counter()
            do(member)
            taken[place] = time.perf_counter() - start

        threads = [threading.Thread(target=run, args=pair) for pair in enumerate(members)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return taken

    def state(self) -> tuple[float, float]:
        """Nanoseconds of a word's way there and back, and the rate that is left to the slower of two at once."""
        word = (ctypes.c_int64 * 1)()
        there_and_back = max(self.seconds(lambda k: self.bounce(ctypes.addressof(word), k, TURNS), range(2)))
        outs = [(ctypes.c_float * (16 * CHAINS))() for _ in range(2)]

        def multiply(member: int) -> None:
            self.work(ctypes.addressof(outs[member]), STEPS)

        alone = min(self.seconds(multiply, range(k, k + 1))[0] for k in range(2))
        return there_and_back / TURNS * 1e9, alone / max(self.seconds(multiply, range(2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    asked = parser.parse_args()
    cores, end = Cores(), time.monotonic() + asked.seconds
    while time.monotonic() < end:
        nanoseconds, rate = cores.state()
        print(f"there and back {nanoseconds:4.0f} ns, at once {rate:4.2f} of the rate alone", flush=True)
        time.sleep(0.5)


if __name__ == "__main__":
    main()
