"""The report: its data, and the page in a real browser where one is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_links import MODELS

import graphc as gc
from graphc.cli import main
from graphc.look import report
from graphc.pipeline import Declared, Options

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
STEP = """
import graphc as gc
x = gc.input("x", (gc.dim("N"), 6))
w = gc.param("w", (6, 3))
step = gc.compile(gc.mean(gc.tanh(x @ w)), gc.optim.sgd(lr=0.01))
"""


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    assert isinstance(data, dict)
    return data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small classifier."""
    path = tmp_path_factory.mktemp("report") / "mlp.html"
    MODELS["mlp"]().report(path)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_everything_on_the_page_is_linked(name: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    MODELS[name]().report(path, title="a <page>")
    text = path.read_text(encoding="utf-8")
    assert "<title>a &lt;page&gt;</title>" in text
    assert not re.search(r'(src|href)="|@import|url\(', text.split('id="data"')[0])  # nothing comes from elsewhere
    data = data_of(text)
    n_values, n_lines = len(data["values"]), len(data["listing"])
    assert len(data["served"]) == n_lines
    assert all(0 <= v < n_values for found in data["served"] for v in found)
    for kind in ("asm", "llvm"):
        code = [data[kind]["different"][n] for n in data[kind]["lines"]]
        assert len(set(data[kind]["different"])) == len(data[kind]["different"])
        assert any("ret" in line for line in code)
        last = 0
        for start, end, _, sources in data[kind]["spans"]:
            assert last < start < end <= len(code) + 1
            last = end - 1
            assert all(1 <= source <= n_lines for source in sources)
    for formula in data["formulas"]:  # every line of maths leads somewhere
        lines = {line for v in formula["values"] for line in data["values"][v]["lines"]}
        assert lines, formula["text"]
    for row in data["ledger"]:
        assert len(row["values"]) == 1, row
    assert {k["name"] for k in data["kernels"]} and data["drawing"].startswith("<svg")
    assert all(r["label"] in ("exact", "rounding", "finite") and r["why"] for r in data["rewrites"])


def test_formulas_of_a_step_hold_what_stands_in_them() -> None:
    step = MODELS["mlp"]()
    assert isinstance(step.origin, Declared)
    data = data_of(report(step.origin, Options(), "mlp"))
    by_text = {f["text"]: f for f in data["formulas"]}
    z = by_text["z = x · w1 + b1"]
    names = {data["values"][v]["name"] for v in z["values"]}
    assert names == {"z", "matmul"}
    gradient = by_text["d_w1 = xᵀ · d_z"]
    assert {data["values"][v]["name"] for v in gradient["values"]} >= {"d_w1"}
    update = next(f for f in data["formulas"] if f["section"] == "Update" and f["name"] == "w1")
    assert any(data["values"][v]["stage"] == "declared" for v in update["values"])


SCRIPT = """
<script>
window.addEventListener("load", () => {
  const said = {};
  const one = (css) => document.querySelector(css);
  const texts = (css) => [...document.querySelectorAll(css)].map((e) => e.textContent);
  const key = (name) => document.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  try {
    said.ready = performance.now();
    one(".formula").click();
    said.formula = texts(".formula.on");
    said.kernel = texts("#middle .code .on");
    said.asm = texts("#right .code .on").join("\\n");
    said.gradient = texts(".formula.grad");
    said.detail = one("#detail").textContent;
    said.hash = location.hash;
    said.seen = [...document.querySelectorAll("#middle .code .on")].some((e) => {
      const own = e.getBoundingClientRect(), pane = e.closest(".pane").getBoundingClientRect();
      return own.top >= pane.top && own.bottom <= pane.bottom;
    });
    said.scrolled = window.scrollY;
    said.counts = texts(".tabs .count:not([hidden])").length;
    key("9"); said.llvm = texts("#right .pane:not([hidden]) .on").join("\\n");
    key("2"); said.drawn = [...document.querySelectorAll("svg .on")].map((e) => e.dataset.name);
    said.drawnGradient = [...document.querySelectorAll("svg .grad")].map((e) => e.dataset.name);
    one('svg g[data-name="hidden"]').dispatchEvent(new MouseEvent("click", { bubbles: true }));
    key("1"); said.fromDrawing = texts(".formula.on");
    key("3"); said.ledger = texts("#left .pane:not([hidden]) .entry.on").length;
    key("6"); said.cost = texts("tr.on td:first-child");
    key("7"); said.memory = texts("tr.on td:nth-child(2)");
    key("8"); key("5"); key("1");
    const spans = [...document.querySelectorAll("#right .code [data-go=asm]")];
    spans.find((e) => /vfmadd|mulps|fmla/.test(e.textContent)).click();
    said.back = texts(".formula.on"); said.backKernel = texts("#middle .code .on");
    key("n"); said.here = texts("#right .here").length;
    key("Escape"); said.cleared = texts(".pane:not([hidden]) .on").length;
    key("j"); key("j"); said.second = texts(".formula.here");
    key("g"); said.toGradient = one("#detail").textContent;
    key("/"); said.focus = document.activeElement.id;
    const box = one("#search"); box.value = "hidden relu"; box.dispatchEvent(new Event("input"));
    said.hits = texts("#found li").slice(0, 3);
    box.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
    said.searched = texts(".formula.on");
    key("4"); one(".entry[data-go=rewrite]").click(); said.rewrite = one("#detail").textContent;
    key("?"); said.help = one("#help").open;
  } catch (error) { said.error = String(error.stack || error); }
  const out = document.createElement("pre");
  out.id = "said"; out.textContent = JSON.stringify(said);
  document.body.append(out);
});
window.addEventListener("error", (event) => { document.title = "error: " + event.message; });
</script>
"""


def browsed(page: Path, folder: Path, script: str, *options: str) -> tuple[str, str]:
    """The page's document after a script ran in it, and what the browser logged."""
    assert BROWSER is not None
    path = folder / "browsed.html"
    text = page.read_text(encoding="utf-8")
    path.write_text(text.replace("</body>", script + "</body>"), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
               "--enable-logging=stderr", "--window-size=1600,1000", *options, "--dump-dom", path.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout, done.stderr


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_clicking_through_the_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    document, logged = browsed(page, tmp_path, SCRIPT)
    assert "CONSOLE" not in logged and "<title>mlp</title>" in document
    found = re.search(r'<pre id="said">(.*?)</pre>', document, re.DOTALL)
    assert found is not None, document[-2000:]
    said = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert "error" not in said, said["error"]
    # A formula: its kernel, LLVM, assembly, gradient, drawing, cost.
    assert any("z" in text for text in said["formula"]) and said["hash"] == "#formula-0"
    assert any("sum(acc0" in line for line in said["kernel"])
    assert re.search(r"vfmadd|mulps|fmla", said["asm"])
    assert re.search(r"fmul|llvm\.fma|fadd", said["llvm"])
    assert said["gradient"] and "gradient: d_z" in said["detail"]
    assert said["drawn"] == ["z"] and said["drawnGradient"] == ["d_z"]
    assert said["counts"] >= 6 and said["seen"] and said["scrolled"] == 0
    # And the other way round.
    assert any("relu" in text for text in said["fromDrawing"])
    assert said["ledger"] >= 1 and said["cost"] and "hidden" in " ".join(said["memory"])
    assert said["back"] and any("acc0" in line for line in said["backKernel"])
    assert said["here"] == 1 and said["cleared"] == 0
    assert len(said["second"]) == 1 and "relu" in said["second"][0] and "d_hidden" in said["toGradient"]
    assert said["focus"] == "search" and said["hits"][0].startswith("formulahidden = relu(z)")
    assert any("relu" in text for text in said["searched"])
    assert said["rewrite"] and said["help"] is True


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_selection_is_in_the_address(page: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("location.hash.match", '"#formula-1".match'))
    document, logged = browsed(copy, tmp_path, "")
    assert "CONSOLE" not in logged
    assert re.search(r'class="formula on here"[^>]*data-id="1"', document)


def test_report_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, out = tmp_path / "model.py", tmp_path / "page.html"
    script.write_text(STEP)
    assert main(["report", f"{script}:step", "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out} written\n"
    assert "<title>model</title>" in out.read_text(encoding="utf-8")
    assert main(["report", str(script), "-o", str(tmp_path / "page.txt")]) == 2
    wanted = f"UsageError: step.report: {tmp_path / 'page.txt'} given; needs a file whose name ends in .html\n"
    assert capsys.readouterr().err == wanted
    assert main(["report", str(script), "-o", str(tmp_path / "none" / "page.html")]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_training_and_measured_times_are_on_the_page(tmp_path: Path) -> None:
    x = gc.input("x", (gc.dim("N"), 6))
    w = gc.param("w", (6, 3), init=gc.init.he_normal())
    step = gc.compile(gc.mean(gc.square(gc.tanh(x @ w) - 1)), gc.optim.sgd(lr=0.1), record=True)
    path = tmp_path / "page.html"
    step.report(path)
    data = data_of(path.read_text(encoding="utf-8"))
    assert data["training"] == "" and all(k["measured"] is None for k in data["kernels"])
    assert {k["pass"] for k in data["kernels"]} >= {"forward", "backward, update"}
    step.fit({"x": np.ones((64, 6), np.float32)}, epochs=3, progress=False)
    profile = step.profile(0.02, x=np.ones((5, 6), np.float32))
    step.report(path, profile=profile)
    data = data_of(path.read_text(encoding="utf-8"))
    assert "3 epochs" in data["training"] and "Norms of the gradients" in data["training"]
    assert data["sizes"] == " for N = 5" and "a call takes" in data["cost"]
    for kernel, timed in zip(data["kernels"], profile.kernels, strict=True):
        assert kernel["measured"] == timed.seconds * 1e9 and kernel["floor"] == timed.floor * 1e9
    other = gc.compile(gc.sum(x))
    with pytest.raises(gc.UsageError, match=r"report: profile: Profile of 5 kernels given; needs what"):
        other.report(path, profile=profile)


def test_the_demo_writes_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "digits.html"
    assert main(["demo", "--no-progress", "--epochs", "1", "--report", str(out)]) == 0
    assert f"{out} written" in capsys.readouterr().out
    data = data_of(out.read_text(encoding="utf-8"))
    assert "hidden = relu(z)" in [f["text"] for f in data["formulas"]]


def test_a_ledger_says_what_took_a_cotangents_place() -> None:
    x, w = gc.input("x", (5, 4)), gc.param("w", (4, 3))
    told = gc.explain(gc.mean(gc.relu(x @ w) * 1))
    said = [row.became for row in told.rows]
    assert any(re.fullmatch(r"%\d+ of the rewritten graph", text) for text in said)
    assert any(re.match(r"removed by [a-z-]+ \(\w+\)", text) for text in said)
    assert all(said)
