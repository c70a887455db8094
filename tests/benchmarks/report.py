"""Turns the JSON of ``run.py`` and roofline.json into tables on stdout.

    python report.py results.json roofline/roofline.json > tables.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import workloads

ORDER = ("graphc", "c_hand", "numpy", "torch", "jax", "jax:unroll", "pytensor", "pytensor:c")
NOT_A_RIVAL = ("graphc", "graphc:cached", "c_hand")
Results = Mapping[str, Mapping[str, Any]]  # of one workload: peer -> what run.py kept
Roof = Mapping[str, Any]  # of one thread count


def floor_us(workload: workloads.Workload, roof: Roof) -> tuple[float, str]:
    """The least time that the machine allows, and what bounds it.

    The larger of operations at peak rate and least bytes at the triad rate of the smallest working set that holds them.
    """
    compute = workload.flops / roof["peak_gflops"] / 1e3
    rates = sorted((int(kilobytes), rate) for kilobytes, rate in roof["triad_gbs"].items())
    rate = next((rate for kilobytes, rate in rates if kilobytes * 1024 >= workload.state_bytes), rates[-1][1])
    memory = workload.least_bytes / rate / 1e3
    return max(compute, memory), "flops" if compute >= memory else "bytes"


def quietest_us(result: Mapping[str, Any]) -> float:
    """The median step of the quietest round: now and then a whole round is slow for reasons from outside."""
    return float(min(result["round_medians_us"]))


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def timed(results: Results) -> dict[str, Mapping[str, Any]]:
    return {peer: result for peer, result in results.items() if "median_us" in result}


def cell(peer: str, results: Results, best: float) -> str:
    """One peer's time: bold when the fastest of the rivals, † when noisy, blank when the peer does not do it."""
    result = results.get(peer, {"unsupported": ""})
    if "median_us" not in result:
        return "" if "unsupported" in result else "fails"
    us = quietest_us(result)
    text = f"**{number(us)}**" if us == best and peer not in NOT_A_RIVAL else number(us)
    return text + ("†" if result["median_us"] > 1.15 * us else "")


def tables(runs: Mapping[str, Results], roofs: Mapping[str, Roof], peers: list[str], threads: str) -> str:
    """The tables of one thread count."""
    steps: list[list[str]] = []
    floors: list[list[str]] = []
    firsts: list[list[str]] = []
    for name in workloads.NAMES:
        results = runs.get(f"{name}/{threads}")
        if not results:
            continue
        done = timed(results)
        best = min((quietest_us(done[p]) for p in done if p not in NOT_A_RIVAL), default=float("inf"))
        lead = f"{best / quietest_us(done['graphc']):.2f}" if "graphc" in done else ""
        steps.append([name, *(cell(peer, results, best) for peer in peers), lead])
        floor, bound = floor_us(workloads.get(name), roofs[threads])
        distances = [f"{quietest_us(done[p]) / floor:.1f}" if p in done else "" for p in peers]
        floors.append([name, f"{floor:.2f}", bound, *distances])
        firsts.append([name, *(f"{done[p]['first_call_s']:.2f}" if p in done else "" for p in peers)])
    if not steps:
        return ""
    cores = "1 core" if threads == "1" else f"{threads} cores"
    legend = "bold: the fastest that a user can pick beside graphc; †: the median over all rounds is >15% higher"
    return "\n".join(
        [
            f"### us per step, {cores} ({legend})\n",
            markdown(["workload", *peers, "fastest / graphc"], steps),
            f"### Floor and distance to it (step / floor), {cores}\n",
            markdown(["workload", "floor us", "bound", *peers], floors),
            f"### First call (build, compile, run), seconds, {cores}\n",
            markdown(["workload", *peers], firsts),
        ]
    )


def costs(runs: Mapping[str, Results], peers: list[str]) -> str:
    """Import time, memory and accuracy of each peer over all its runs."""
    rows = []
    for peer in peers:
        found = [done[peer] for done in map(timed, runs.values()) if peer in done]
        imports, sizes = sorted(r["import_s"] for r in found), [r["peak_rss_mb"] for r in found]
        worst = max(r["max_rel_loss_err"] for r in found)
        median = imports[len(imports) // 2]
        rows.append([peer, f"{median:.2f}", f"{min(sizes):.0f}", f"{max(sizes):.0f}", f"{worst:.0e}", str(len(found))])
    head = ["peer", "import s (median, after NumPy)", "RSS min MB", "RSS max MB", "worst relative loss error", "runs"]
    return "### Import time, peak memory, losses\n\n" + markdown(head, rows)


def main() -> None:
    results, roofline = (Path(path) for path in sys.argv[1:3])
    runs: Mapping[str, Results] = json.loads(results.read_text(encoding="utf-8"))["runs"]
    roofs: Mapping[str, Roof] = json.loads(roofline.read_text(encoding="utf-8"))
    seen = dict.fromkeys(peer for done in map(timed, runs.values()) for peer in done)
    peers = [peer for peer in ORDER if peer in seen] + [peer for peer in seen if peer not in ORDER]
    for threads in ("1", "2"):
        print(tables(runs, roofs, peers, threads))
    print(costs(runs, peers))


if __name__ == "__main__":
    main()
