"""Times peers on workloads, in turn, and prints tables.

    python run.py --peers graphc,numpy,torch,jax --workloads mlp_digits --threads 1,2 --json results.json

Every (peer, workload, threads) is a process of its own. All peers of a workload are started first (import, compile,
loss check), then timed in turn, in random order, for --rounds rounds: slow drift of the machine hits all alike. With
--lock FILE, every timed part holds an flock on FILE. Results are merged into the JSON file.
Peers whose packages do not go together run in one table all the same, each with a Python of its own:

    python run.py --peers graphc,pytensor --python pytensor=/path/to/its/venv/bin/python

A workload with a change is a workload: ``--workloads mlp_digits+b8``; ``--variants own,b8,f64`` makes such names.
A peer whose losses disagree with reference_losses.json is named as such and gets no time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import workloads

HERE = Path(__file__).parent
REFERENCE = HERE / "reference_losses.json"
# A core type or a thread count that the surroundings force on a BLAS would halve a peer's matrix products.
FORCING = ("OPENBLAS_", "GOTO_", "MKL_", "OMP_", "KMP_", "GOMP_", "BLIS_", "NUMEXPR_", "XLA_")
COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
Message = dict[str, Any]  # one line of JSON from a worker, or one entry of the results


@contextlib.contextmanager
def lock(path: str | None) -> Iterator[None]:
    """Holds an flock on a file, where one is named."""
    if not path:
        yield
        return
    import fcntl  # not on Windows, where a lock cannot be asked for

    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def busy_s() -> float:
    """CPU seconds that the whole machine has worked; 0 where Linux's /proc is missing."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    except OSError:
        return 0.0
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies, interpolated."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low = int(place)
    return ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (place - low)


class Worker:
    """One peer's process and what it has measured so far."""

    def __init__(self, peer: str, workload: str, threads: int, args: argparse.Namespace, log: TextIO) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith(FORCING)}
        env |= dict.fromkeys(COUNTS, str(threads))
        env["PYTHONPATH"] = os.pathsep.join([str(HERE.parent.parent), *filter(None, [env.get("PYTHONPATH")])])
        python = args.pythons.get(peer.partition(":")[0], sys.executable)
        command = [python, str(HERE / "worker.py"), "--peer", peer, "--workload", workload]
        command += ["--threads", str(threads), "--tolerance", str(args.tolerance), "--warmup-s", str(args.warmup_s)]
        self.peer, self.threads, self.error = peer, threads, ""
        self.rounds: list[list[float]] = []
        self.cpu_s = self.wall_s = self.other_s = 0.0
        self.dirty = 0
        self.last: Message = {}
        self.info: Message | None = None
        self.process: subprocess.Popen[str] | None = None
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=log, env=env, text=True, start_new_session=True
            )
        except OSError as reason:  # no such interpreter
            self.error = str(reason)
            return
        self.info = self.read(args.limit_s)

    def read(self, limit_s: float) -> Message | None:
        """The next message; None when the process died or took longer than ``limit_s``."""
        assert self.process is not None and self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], limit_s)
        if not ready:
            self.error = f"no answer in {limit_s:.0f} s"
            self.stop()
            return None
        line = self.process.stdout.readline()
        if not line:
            self.error = f"exit status {self.process.wait()}"
            return None
        message: Message = json.loads(line)
        return message

    def run(self, n: int, tries: int = 4) -> None:
        """Times one block of n calls. A block in which others took CPU is tried again; the cleanest one counts."""
        kept: Message = {}
        for _ in range(tries):
            before = busy_s()
            assert self.process is not None and self.process.stdin is not None
            self.process.stdin.write(json.dumps({"run": n}) + "\n")
            self.process.stdin.flush()
            got = self.read(60)
            if got is None:
                return
            got["other_s"] = max(0.0, busy_s() - before - got["cpu_s"])
            if not kept or got["other_s"] / got["wall_s"] < kept["other_s"] / kept["wall_s"]:
                kept = got
            alone = self.threads == 1 and got["cpu_s"] > 0.97 * got["wall_s"]
            if alone or got["other_s"] < 0.15 * got["wall_s"]:
                kept = got
                break
            time.sleep(0.3)
        else:
            self.dirty += 1
        self.rounds.append(kept["ns"])
        self.cpu_s += kept["cpu_s"]
        self.wall_s += kept["wall_s"]
        self.other_s += kept["other_s"]
        self.last = kept

    def result(self) -> Message:
        """What goes into the table and into the JSON file."""
        if self.error or self.info is None:
            return {"failed": self.error}
        if "ready" not in self.info:
            return self.info if "unsupported" in self.info else {"disagrees": self.info}
        ns = [value for values in self.rounds for value in values]
        quartiles = {f"{name}_us": percentile(ns, q) / 1e3 for name, q in (("median", 0.5), ("p10", 0.1), ("p90", 0.9))}
        return quartiles | {
            "round_medians_us": [percentile(values, 0.5) / 1e3 for values in self.rounds], "n": len(ns),
            "first_call_s": self.info["first_s"], "import_s": self.info["import_s"],
            "numpy_import_s": self.info["numpy_import_s"], "peak_rss_mb": self.last["rss_mb"],
            "rss_before_import_mb": self.info["rss_numpy_mb"], "child_peak_rss_mb": self.last["rss_children_mb"],
            "max_rel_loss_err": self.info["error"], "cpu_per_wall": self.cpu_s / self.wall_s,
            "other_cpu_per_wall": self.other_s / self.wall_s, "dirty_blocks": self.dirty,
            "versions": self.info["versions"], "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        }  # fmt: skip

    def stop(self) -> None:
        """Ends the process and whatever it started."""
        if self.process is None:
            return
        try:
            if self.process.stdin is not None:
                self.process.stdin.close()
            self.process.wait(3)
        except (OSError, subprocess.TimeoutExpired):
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def compare(name: str, threads: int, args: argparse.Namespace, log: TextIO) -> dict[str, Message]:
    """Times all peers on one workload; a result for each."""
    started: list[Worker] = []
    for peer in args.peers.split(","):
        log.write(f"--- {name} threads={threads} {peer}\n")
        log.flush()
        started.append(Worker(peer, name, threads, args, log))
    live = [worker for worker in started if worker.info and "ready" in worker.info]
    with lock(args.lock):
        for _ in range(args.rounds):
            for worker in random.sample(live, len(live)):
                if worker.info and not worker.error:
                    time.sleep(0.03)  # the threads of the peer before spin for a moment
                    worker.run(max(3, min(20_000, int(args.block_s / worker.info["call_s"]))))
    for worker in started:
        worker.stop()
    return {worker.peer: worker.result() for worker in started}


def table(name: str, threads: int, results: Mapping[str, Message]) -> str:
    """The results of one workload as text, fastest first."""
    lines = [f"\n{name}  threads={threads}"]
    timed = {peer: result for peer, result in results.items() if "median_us" in result}
    lines += [f"  {peer:24s} {result}" for peer, result in results.items() if peer not in timed]
    if timed:
        best = min(result["median_us"] for result in timed.values())
        head = ["median us", "p10", "p90", "x fastest", "first s", "import s", "RSS MB"]
        head += ["cpu", "other", "dirty", "loss err"]
        lines.append(f"  {'peer':24s}" + "".join(f"{title:>10s}" for title in head))
    for peer, r in sorted(timed.items(), key=lambda item: item[1]["median_us"]):
        lines.append(
            f"  {peer:24s}{r['median_us']:10.2f}{r['p10_us']:10.2f}{r['p90_us']:10.2f}{r['median_us'] / best:10.2f}"
            f"{r['first_call_s']:10.2f}{r['import_s']:10.2f}{r['peak_rss_mb']:10.0f}{r['cpu_per_wall']:10.2f}"
            f"{r['other_cpu_per_wall']:10.2f}{r['dirty_blocks']:10d}{r['max_rel_loss_err']:10.1e}"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", required=True, help="names with commas between; name:variant for a variant")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="a peer's own Python")
    parser.add_argument("--workloads", default=",".join(workloads.NAMES))
    parser.add_argument("--variants", default="own", help=f"of all workloads: own, {', '.join(workloads.VARIANTS)}")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--block-s", type=float, default=0.2)
    parser.add_argument("--warmup-s", type=float, default=0.5)
    parser.add_argument("--limit-s", type=float, default=100, help="for one start-up; a slower peer is dropped")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative, of the first five losses")
    parser.add_argument("--lock", default=os.environ.get("BENCH_LOCK"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir(), "peers_run.log"))
    args = parser.parse_args()
    args.pythons = dict[str, str]()
    for text in args.python:
        peer, equals, path = text.partition("=")
        if not equals:
            parser.error(f"--python {text}: needs PEER=PATH")
        args.pythons[peer] = path
    known = json.loads(REFERENCE.read_text(encoding="utf-8"))
    asked = [w if v == "own" else f"{w}+{v}" for v in args.variants.split(",") for w in args.workloads.split(",")]
    args.names = [name for name in asked if name in known]
    if missing := [name for name in asked if name not in known]:
        print(f"without reference losses, so left out (see reference.py): {', '.join(missing)}", file=sys.stderr)
    return args


def main() -> None:
    args = arguments()
    kept: Message = {"runs": {}}
    if args.json and args.json.exists():
        kept = json.loads(args.json.read_text(encoding="utf-8"))
    kept["machine"] = {
        "platform": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()
    }  # fmt: skip
    with args.log.open("a", encoding="utf-8") as log:
        for name in args.names:
            for threads in map(int, args.threads.split(",")):
                results = compare(name, threads, args, log)
                print(table(name, threads, results), flush=True)
                kept["runs"].setdefault(f"{name}/{threads}", {}).update(results)
                if args.json:
                    aside = args.json.with_suffix(".tmp")
                    aside.write_text(json.dumps(kept, indent=1), encoding="utf-8")
                    aside.replace(args.json)


if __name__ == "__main__":
    main()
