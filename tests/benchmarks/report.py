"""Turns the JSON of ``run.py`` into tables on stdout; with roofline.json, the distance to the machine's limits too.

    python report.py results.json [roofline/roofline.json] > tables.md
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
    peak = roof["peak_gflops"] / (2 if workload.dtype == "float64" else 1)  # measured in float32: half as many lanes
    compute = workload.flops / peak / 1e3
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


def order(key: str) -> tuple[int, str]:
    """Workloads in the order of workloads.NAMES, each before its changed forms."""
    base, _, change = key.rpartition("/")[0].partition("+")
    return workloads.NAMES.index(base), change


def tables(runs: Mapping[str, Results], roofs: Mapping[str, Roof], peers: list[str], threads: str) -> str:
    """The tables of one thread count."""
    steps: list[list[str]] = []
    ratios: list[list[str]] = []
    floors: list[list[str]] = []
    firsts: list[list[str]] = []
    slower: list[str] = []
    rivals = [peer for peer in peers if peer not in NOT_A_RIVAL]
    for key in sorted((key for key in runs if key.endswith(f"/{threads}")), key=order):
        name, results = key.rpartition("/")[0], runs[key]
        done = timed(results)
        us = {peer: quietest_us(result) for peer, result in done.items()}
        best = min((us[p] for p in us if p not in NOT_A_RIVAL), default=float("inf"))
        steps.append([name, *(cell(peer, results, best) for peer in peers)])
        firsts.append([name, *(f"{done[p]['first_call_s']:.2f}" if p in done else "" for p in peers)])
        if "graphc" in us:
            leads = {peer: us[peer] / us["graphc"] for peer in rivals if peer in us}
            ratios.append([name, *(number(leads[p]) if p in leads else "" for p in rivals)])
            slower += [f"{name}: {lead:.2f} of {peer}" for peer, lead in leads.items() if lead < 1]
        if threads in roofs:
            floor, bound = floor_us(workloads.get(name), roofs[threads])
            distances = [f"{us[p] / floor:.1f}" if p in us else "" for p in peers]
            floors.append([name, f"{floor:.2f}", bound, *distances])
    cores = "1 core" if threads == "1" else f"{threads} cores"
    legend = "bold: the fastest that a user can pick beside graphc; †: the median over all rounds is >15% higher"
    shown = [f"### us per step, {cores} ({legend})\n", markdown(["workload", *peers], steps)]
    if ratios:
        shown += [f"### The peer's time over graphc's, {cores}\n", markdown(["workload", *rivals], ratios)]
        shown.append(f"Below 1: {'; '.join(slower) or 'none'}.\n")
    if floors:
        shown.append(f"### Floor and distance to it (step / floor), {cores}\n")
        shown.append(markdown(["workload", "floor us", "bound", *peers], floors))
    shown.append(f"### First call (build, compile, run), seconds, {cores}\n")
    return "\n".join([*shown, markdown(["workload", *peers], firsts)])


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
    runs: Mapping[str, Results] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["runs"]
    roofs: Mapping[str, Roof] = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")) if sys.argv[2:] else {}
    seen = dict.fromkeys(peer for done in map(timed, runs.values()) for peer in done)
    peers = [peer for peer in ORDER if peer in seen] + [peer for peer in seen if peer not in ORDER]
    for threads in sorted({key.rpartition("/")[2] for key in runs}, key=int):
        print(tables(runs, roofs, peers, threads))
    print(costs(runs, peers))


if __name__ == "__main__":
    main()
