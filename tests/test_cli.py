"""The command line: each command once with success and once with a mistake."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc import study
from graphc.cli import main
from graphc.inspect import check
from graphc.look import STAGES
from graphc.runtime.team import thread_count

STEP = """
import graphc as gc
N = gc.dim("N")
x = gc.input("x", (N, 6))
y = gc.input("y", (N,), dtype="int32")
w = gc.param("w", (6, 3), init=gc.init.he_normal())
step = gc.compile(gc.mean(gc.cross_entropy(gc.tanh(x @ w), y)), gc.optim.adam(lr=0.01))
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    """A script that holds a step."""
    path = tmp_path / "model.py"
    path.write_text(STEP)
    return str(path)


def test_demo_shows_the_maths_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--no-progress"]) == 0
    printed = capsys.readouterr().out
    for line in ("hidden = relu(z)", "d_logits = (softmax(logits) - onehot(y)) / N", "d_w1 = xᵀ · d_z"):
        assert line in printed
    found = re.search(r"^held-out accuracy (0\.\d{4}) \((\d+) of 397\)$", printed, re.MULTILINE)
    assert found is not None
    assert float(found[1]) >= 0.97


@pytest.mark.parametrize("stage", ["forward", "grad", "update", "kernels", "llvm", "asm", "rewrites", "memory"])
def test_show_prints_a_stage(stage: str, script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", script, "--stage", stage]) == 0
    assert capsys.readouterr().out.strip()


def test_check_passes_a_right_step(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{script}:step"]) == 0
    assert "3 passed, 0 failed" in capsys.readouterr().out


def test_bench_prints_time_and_floor(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", script, "--size", "N=64", "--seconds", "0.05"]) == 0
    printed = capsys.readouterr().out
    assert re.match(r"step with N = 64 on one thread: \d+ calls\ntime +[\d,.]+ us \(median", printed)
    line = r"^floor +([\d.,]+) us, by (bytes|operations); the step takes ([\d.,]+) times that$"
    found = re.search(line, printed, re.MULTILINE)
    assert found is not None
    assert float(found[1]) > 0


def test_check_takes_a_run_time_number_as_exact_as_it_is() -> None:
    x = gc.input("x", (3,), dtype="float64")
    large = gc.hyper("large", 1e300, dtype="float64")
    assert study.check(gc.compile(gc.sum(x * large * 1e-300))).passed


def test_bench_prints_each_kernel(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", script, "--size", "N=64", "--seconds", "0.05", "--kernels"]) == 0
    table = capsys.readouterr().out.partition("\n\n")[2]
    assert table.startswith("step with N = 64 on one thread: ")
    assert re.search(r"^k\d+ +~?[\d.]+ .* w, adam", table, re.MULTILINE)


def test_bench_counts_the_threads_that_share_a_call() -> None:
    if thread_count(2) < 2:
        pytest.skip("one core")
    x = gc.input("x", (gc.dim("N"), 64))
    step = gc.compile(gc.mean(gc.square(gc.nn.dense(x, 64))), gc.optim.sgd(lr=0.1), threads=2)
    for n, threads in ((1, 1), (4096, 2)):
        report = study.bench(step, {"N": n}, 0.01)
        assert report.threads == threads
        operations = report.operations / report.machine.operations_per_s
        assert report.floor == max(operations, report.n_bytes / report.machine.bytes_per_s) / threads


def test_bench_leaves_weights_as_they_were() -> None:
    x = gc.input("x", (gc.dim("N"), 3))
    step = gc.compile(gc.mean(gc.square(gc.nn.dense(x, 2))), gc.optim.adam(lr=0.1))
    before = {**{n: np.array(v) for n, v in step.params.items()}, **{n: np.array(v) for n, v in step.state.items()}}
    report = study.bench(step, {"N": 5}, 0.01)
    after = {**dict(step.params.items()), **dict(step.state.items())}
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])
    assert report.n_bytes >= 4 * 5 * 3
    assert report.floor > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "M=3"], "UsageError: bench: size M given; the step has N\n"),
        (["--size", "N=0"], "UsageError: bench: N = 0 given; sizes are at least 1\n"),
        (["--seconds", "0"], "UsageError: bench: 0.0 s given; needs a time above 0\n"),
    ],
)
def test_bench_refuses(options: list[str], message: str, script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", script, *options]) == 2
    assert capsys.readouterr().err == message


def test_bench_refuses_a_size_without_a_number(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", script, "--size", "N"])
    assert "'N' given; needs NAME=VALUE, such as N=64" in capsys.readouterr().err


def test_a_missing_name_is_told(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{script}:model"]) == 2
    assert capsys.readouterr().err == f"UsageError: {script}: model is no compiled step; there is step\n"


def test_a_missing_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "none.py")
    assert main(["show", path]) == 2
    assert capsys.readouterr().err == f"{path}: No such file or directory\n"


def test_an_unknown_stage_is_refused(script: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["show", script, "--stage", "nothing"])
    assert stopped.value.code == 2


def test_check_fails_a_wrong_gradient(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "STEP", 10.0)  # differences that coarse agree with no derivative
    assert main(["check", script]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_script_that_stops_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import graphc as gc\n\nstep = undefined + 1\n")
    assert main(["check", str(path)]) == 2
    expected = f"UsageError: {path}:3: the script stops with NameError: name 'undefined' is not defined\n"
    assert capsys.readouterr().err == expected


def test_a_script_imports_what_lies_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sizes_of_a_model.py").write_text("WIDTH = 6\n")
    path = tmp_path / "model.py"
    path.write_text("from sizes_of_a_model import WIDTH\n" + STEP.replace("6", "WIDTH"))
    before = list(sys.path)
    assert main(["show", str(path), "--stage", "grad"]) == 0
    assert "d_w = " in capsys.readouterr().out
    assert sys.path == before


def test_a_mistake_in_the_script_is_told_as_the_library_tells_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.py"
    path.write_text('import graphc as gc\nstep = gc.input("x", (2, 3)) @ gc.input("y", (4, 5))\n')
    assert main(["show", str(path)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("ShapeError: matmul: ")
    assert f"{path}:2" in printed


def test_without_an_epoch_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--epochs", "0"])
    assert stopped.value.code == 2
    assert "0 given; needs at least 1" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_mistake(script: str) -> None:
    command = f"{sys.executable} -W error -m graphc show {script} --stage asm | head -n 1"
    done = subprocess.run(
        command, shell=True, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_help_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["show", "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out.partition("stages, in the order")[2]
    assert [stage for stage in STAGES if not re.search(rf"^  (.*, )?{stage}\b", printed, re.MULTILINE)] == []


COMMANDS = ("demo", "show", "report", "check", "bench")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: graphc {command} ")
    assert command == "demo" or "FILE[:NAME]" in printed


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    listed = re.findall(r"^    (\w+) {2,}\w", printed, re.MULTILINE)
    assert set(listed) == set(COMMANDS)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"graphc {gc.__version__}\n"


MISTAKES: tuple[list[str], ...] = (["nothing"], [], ["show"], ["check", "x.py", "--seed", "one"], ["demo", "--slow"])


@pytest.mark.parametrize("arguments", MISTAKES)
def test_what_was_not_asked_right_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: graphc")


def on_terminal(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a standard stream look like a terminal with colours."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(getattr(sys, stream), "isatty", lambda: True, raising=False)


def test_a_terminal_has_colours(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal("stdout", monkeypatch)
    assert main(["check", script]) == 0
    assert capsys.readouterr().out.startswith("\x1b[32mok  \x1b[0m  compiled")
    monkeypatch.setattr(check, "STEP", 10.0)
    assert main(["check", script]) == 1
    assert "\x1b[1;31mFAIL\x1b[0m  derivative" in capsys.readouterr().out


def test_an_error_is_red_on_a_terminal(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal("stderr", monkeypatch)
    assert main(["check", f"{script}:model"]) == 2
    assert capsys.readouterr().err.startswith("\x1b[1;31mUsageError\x1b[0m: ")


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_are_turned_off(
    variable: str, value: str, script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal("stdout", monkeypatch)
    monkeypatch.setenv(variable, value)
    assert main(["check", script]) == 0
    assert "\x1b" not in capsys.readouterr().out
