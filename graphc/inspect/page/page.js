"use strict";
// One page: what was declared, what became of it, and the machine code, all linked. No network, no libraries.
//
// Everything meets in the lines of the kernels' listing: a value has lines, a range of code has lines, a kernel is
// lines. A selection is a set of values and a set of lines; every pane shows what of it belongs to them.

const data = JSON.parse(document.getElementById("data").textContent);
const { values, listing, served, instead, kernels, rewrites, formulas, ledger, memory } = data;
const byName = new Map();
const twins = new Map(); // a declared value and what it became in the derived graph, both ways
values.forEach((value, at) => {
  byName.set(value.name, [...(byName.get(value.name) || []), at]);
  if (value.twin >= 0) { twins.set(at, [...(twins.get(at) || []), value.twin]); twins.set(value.twin, [...(twins.get(value.twin) || []), at]); }
});

const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const safe = (text) => String(text).replace(/[&<>"]/g, (c) => escapes[c]);
const union = (lists) => new Set(lists.flatMap((list) => [...list]));
const meets = (list, set) => list.some((item) => set.has(item));

// Selection

const nothing = { kind: "", id: -1, title: "", values: new Set(), lines: new Set(), rewrites: new Set() };
let selected = nothing;

const ofValues = (list) => ({
  values: new Set(list),
  lines: union(list.map((v) => values[v].lines)),
  rewrites: union(list.map((v) => values[v].removed)),
});
const ofLines = (list) => ({
  values: union(list.map((line) => served[line - 1])),
  lines: new Set(list),
  rewrites: new Set(),
});
const withTwins = (list) => [...union(list.map((v) => [v, ...(twins.get(v) || [])]))];
const codeKinds = { asm: data.asm, llvm: data.llvm };

const chosen = {
  value: (id) => ({ title: values[id].name, name: values[id].name, ...ofValues(withTwins([id])) }),
  formula: (id) => ({ title: formulas[id].name, name: formulas[id].name, ...ofValues(withTwins(formulas[id].values)) }),
  line: (id) => ({ title: `line ${id}`, ...ofLines([id]) }),
  kernel: (id) => ({ title: kernels[id].name, ...ofLines(linesOf(id)) }),
  asm: (id) => ({ title: `assembly of ${data.asm.spans[id][2]}`, ...ofLines(data.asm.spans[id][3]) }),
  llvm: (id) => ({ title: `LLVM of ${data.llvm.spans[id][2]}`, ...ofLines(data.llvm.spans[id][3]) }),
  ledger: (id) => ({ title: ledger[id].name, name: ledger[id].name, ...ofValues(withTwins(ledger[id].values)) }),
  memory: (id) => ({ title: memory[id].name, ...ofLines(memory[id].lines) }),
  rewrite: (id) => {
    const gone = values.flatMap((value, at) => (value.removed.includes(id) ? [at] : []));
    return { title: rewrites[id].rule, ...ofValues(gone), rewrites: new Set([id]) };
  },
};

const namesOf = (lines) => {
  const names = [...new Set(lines.flatMap((line) => served[line - 1].map((v) => values[v].name)))];
  return names.slice(0, 8).join(", ") + (names.length > 8 ? ` and ${names.length - 8} more` : "");
};
const linesOf = (kernel) => listing.flatMap((line, at) => (line.kernel === kernel && line.serves ? [at + 1] : []));

function select(kind, id, push = true) {
  selected = kind ? { kind, id, ...chosen[kind](id) } : nothing;
  const lines = [...selected.lines];
  selected.code = union(lines.map((line) => instead[line] || [line]));
  selected.kernels = new Set(lines.map((line) => listing[line - 1].kernel));
  selected.names = new Set([...selected.values].map((v) => values[v].name));
  const named = selected.name ? [selected.name] : [...selected.names];
  selected.partners = new Set(named.flatMap((name) =>
    name.startsWith("d_") ? [name.slice(2)] : [`d_${name}`]).filter((name) => byName.has(name)));
  if (push) history.replaceState(null, "", kind ? `#${kind}-${id}` : location.pathname + location.search);
  show();
}

// Panes: each makes its HTML once, when it is first looked at, and tells which of its parts belong to a selection

const isOn = {
  formula: (id) => formulas[id].values.some((v) => selected.values.has(v)),
  value: (id) => selected.values.has(id),
  line: (id) => selected.lines.has(id),
  kernel: (id) => selected.kernels.has(id),
  asm: (id) => selected.kind === "asm" ? selected.id === id || sameSpan(data.asm, id) : meets(data.asm.spans[id][3], selected.code),
  llvm: (id) => meets(data.llvm.spans[id][3], selected.lines),
  ledger: (id) => ledger[id].values.some((v) => selected.values.has(v)),
  memory: (id) => meets(memory[id].lines, selected.lines),
  rewrite: (id) => selected.rewrites.has(id),
};
const sameSpan = (code, id) => meets(code.spans[id][3], selected.lines);
const partners = {
  formula: (id) => formulas[id].section !== "Update" && selected.partners.has(formulas[id].name),
  value: (id) => selected.partners.has(values[id].name),
  ledger: (id) => ledger[id].values.some((v) => selected.partners.has(values[v].name)),
};

const go = (kind, id) => `data-go="${kind}" data-id="${id}" tabindex="0"`;
const row = (kind, id, cells, style = "") =>
  `<tr ${go(kind, id)} class="${style}">${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
const table = (heads, rows) => `<table><thead><tr>${heads.map((h) => `<th>${h}</th>`).join("")}</tr></thead><tbody>${rows.join("")}</tbody></table>`;

function code(kind) {
  const { different, spans } = codeKinds[kind];
  const lines = codeKinds[kind].lines.map((n) => different[n]);
  const blocks = [];
  let block = "", at = 1, next = 0;
  const flush = () => { if (block) blocks.push(`<div class="fn">${block}</div>`); block = ""; };
  const isHead = (line) => /^define |^[A-Za-z_][\w.$]*:/.test(line);
  while (at < lines.length) {
    if (next < spans.length && spans[next][0] === at) {
      const [start, end] = spans[next];
      block += `<span ${go(kind, next)}>${safe(lines.slice(start - 1, end - 1).join("\n"))}</span>`;
      at = end; next += 1;
    } else {
      const stop = next < spans.length ? spans[next][0] : lines.length;
      let from = at;
      while (at < stop) {
        if (isHead(lines[at - 1]) && at > from) { block += plain(lines, from, at); from = at; }
        if (isHead(lines[at - 1])) flush();
        at += 1;
      }
      block += plain(lines, from, at);
    }
  }
  flush();
  return `<div class="code">${blocks.join("")}</div>`;
}
const plain = (lines, from, to) => to > from ? `<span class="plain">${safe(lines.slice(from - 1, to - 1).join("\n"))}</span>` : "";

const timed = kernels.some((kernel) => kernel.measured !== null) ? "measured" : "predicted";
const most = Math.max(...kernels.map((kernel) => kernel[timed]), 1);
const ns = (time) => `${time < 10 ? time.toFixed(1) : Math.round(time).toLocaleString("en")} ns`;
const bar = (time) => `<span class="time"><span class="bar" style="width:${(6 * time / most).toFixed(2)}em"></span>${ns(time)}</span>`;
const panes = [
  { column: "left", name: "Formulas", kinds: ["formula", "value"], html: () => {
    const sections = ["Forward pass", "Back propagation", "Update"].map((title) => {
      const own = formulas.flatMap((f, at) => f.section === title ? [`<div class="formula" ${go("formula", at)}>${f.mathml}</div>`] : []);
      return own.length ? `<h2>${title}</h2>${own.join("")}` : "";
    });
    const all = ["declared", "derived"].map((stage) => `<h2>Every ${stage} value</h2>` + table(
      ["", "name", "formula", "type"],
      values.flatMap((v, at) => v.stage === stage ? [row("value", at, [`%${v.number}`, safe(v.name), safe(v.text), safe(v.type)], v.became < 0 ? "gone" : "")] : [])));
    return sections.join("") + all.join("");
  } },
  { column: "left", name: "Drawing", kinds: ["drawing"], html: () => data.drawing },
  { column: "left", name: "Ledger", kinds: ["ledger"], html: () => ledger.length ? ledger.map((r, at) =>
    `<div class="entry" ${go("ledger", at)}>${safe(r.text)}</div>`).join("") : "<p>Nothing was differentiated.</p>" },
  { column: "left", name: "Rewrites", kinds: ["rewrite"], html: () => table(["phase", "passes", "nodes", "operations"],
    data.phases.map((p) => `<tr>${p.map((cell) => `<td>${safe(cell)}</td>`).join("")}</tr>`)) + "<h2>In order</h2>" +
    rewrites.map((r, at) => `<div class="entry" ${go("rewrite", at)}><b>${safe(r.rule)}</b> <i>${safe(r.phase)}, ${r.label}${r.place ? ", at " + safe(r.place) : ""}</i>\n${safe(r.before)}\n= ${safe(r.after)}\n<i>${safe(r.why)}</i></div>`).join("") },
  { column: "middle", name: "Kernels", kinds: ["line"], html: () => `<div class="code">${listing.map((line, at) =>
    line.kernel < 0 ? '<span class="plain"> </span>' : `<span ${go("line", at + 1)}><span class="number">${at + 1}</span>${safe(line.text)}</span>`).join("")}</div>` },
  { column: "middle", name: "Cost", kinds: ["kernel"], html: () => `<p>${safe(data.cost)}</p>` + table(
    ["kernel", "pass", "operations", "bytes", `${timed}${data.sizes}`, ...(timed === "measured" ? ["floor"] : [])],
    kernels.map((k, at) => row("kernel", at, [safe(k.name), safe(k.pass), safe(k.operations), safe(k.bytes), bar(k[timed]),
      ...(timed === "measured" ? [`<span class="time">${ns(k.floor)}</span>`] : [])]))) },
  { column: "middle", name: "Memory", kinds: ["memory"], html: () => table(["where", "name", "type", "kernels"],
    memory.map((m, at) => row("memory", at, [safe(m.where), safe(m.name), safe(m.type), safe(m.lives)]))) },
  ...(data.training ? [{ column: "middle", name: "Training", kinds: [], html: () => data.training }] : []),
  { column: "right", name: "Assembly", kinds: ["asm"], html: () => code("asm") },
  { column: "right", name: "LLVM", kinds: ["llvm"], html: () => code("llvm") },
];
const sizes = { formula: formulas.length, value: values.length, line: listing.length, kernel: kernels.length, ledger: ledger.length, memory: memory.length, rewrite: rewrites.length, asm: data.asm.spans.length, llvm: data.llvm.spans.length };

function build() {
  for (const column of ["left", "middle", "right"]) {
    const own = panes.filter((pane) => pane.column === column);
    const place = document.getElementById(column);
    const bar = document.createElement("div");
    bar.className = "tabs";
    bar.setAttribute("role", "tablist");
    place.append(bar);
    for (const pane of own) {
      pane.tab = document.createElement("button");
      pane.tab.setAttribute("role", "tab");
      pane.tab.innerHTML = `${pane.name}<span class="count" hidden></span>`;
      pane.tab.title = `${panes.indexOf(pane) + 1}`;
      pane.tab.addEventListener("click", () => open(pane));
      bar.append(pane.tab);
      pane.element = document.createElement("div");
      pane.element.className = "pane";
      pane.element.setAttribute("role", "tabpanel");
      pane.element.setAttribute("aria-label", pane.name);
      pane.element.hidden = true;
      place.append(pane.element);
    }
    open(own[0]);
  }
}

function open(pane) {
  for (const other of panes.filter((p) => p.column === pane.column)) {
    other.element.hidden = other !== pane;
    other.tab.setAttribute("aria-selected", String(other === pane));
  }
  if (!pane.parts) {
    pane.element.innerHTML = pane.html();
    pane.parts = [...pane.element.querySelectorAll("[data-go]")];
    if (pane.kinds[0] === "drawing") pane.parts = [...pane.element.querySelectorAll("g[data-name]")];
  }
  light(pane);
}

function stateOf(part) {
  const name = part.dataset.name;
  if (name !== undefined) return selected.names.has(name) ? "on" : selected.partners.has(name) ? "grad" : "";
  const kind = part.dataset.go, id = Number(part.dataset.id);
  return isOn[kind](id) ? "on" : partners[kind] && partners[kind](id) ? "grad" : "";
}

function light(pane) {
  pane.lit = [];
  pane.at = -1;
  for (const part of pane.parts) {
    const state = selected.kind ? stateOf(part) : "";
    part.classList.toggle("on", state === "on");
    part.classList.toggle("grad", state === "grad");
    part.classList.remove("here");
    if (state === "on") pane.lit.push(part);
  }
  const exact = pane.lit.find((part) => part.dataset.go === selected.kind && Number(part.dataset.id) === selected.id);
  if (exact) { exact.classList.add("here"); pane.at = pane.lit.indexOf(exact); }
  if (pane.lit.length && !pane.element.contains(document.activeElement)) reveal(pane, exact || pane.lit[0]);
}

// Scrolls the pane alone, never the page; twice, since what was not yet laid out has an estimated height.
function reveal(pane, part, again = true) {
  const inside = pane.element.getBoundingClientRect(), own = part.getBoundingClientRect();
  if (own.top >= inside.top + 20 && own.bottom <= inside.bottom - 20) return;
  pane.element.scrollTop += own.top - inside.top - (inside.height - Math.min(own.height, inside.height)) / 2;
  if (own.left < inside.left || own.left > inside.right) pane.element.scrollLeft += own.left - inside.left - 40;
  if (again) requestAnimationFrame(() => reveal(pane, part, false));
}

function countOf(pane) {
  if (!selected.kind) return 0;
  if (pane.kinds[0] === "drawing") return pane.lit ? pane.lit.length : 0;
  let found = 0;
  for (const kind of pane.kinds) {
    const first = kind === "line" ? 1 : 0;
    for (let id = first; id < sizes[kind] + first; id++) found += isOn[kind](id) ? 1 : 0;
  }
  return found;
}

function show() {
  for (const pane of panes) {
    if (!pane.element.hidden) light(pane);
    const badge = pane.tab.querySelector(".count"), n = countOf(pane);
    badge.textContent = n;
    badge.hidden = !n;
  }
  document.getElementById("detail").innerHTML = selected.kind ? detail() : idle;
}

const idle = '<p class="quiet">Click a formula, a kernel\'s line, an instruction, a rewrite: all that belongs to it lights up. <kbd>?</kbd> lists the keys.</p>';
const link = (kind, id, text) => `<a data-go="${kind}" data-id="${id}" tabindex="0">${safe(text)}</a>`;

function detail() {
  const list = [...selected.values].map((v) => values[v]);
  const value = selected.kind === "value" ? values[selected.id] : list[0];
  const parts = [];
  const names = [...selected.names].slice(0, 12);
  const many = selected.names.size > 12 ? ` and ${selected.names.size - 12} more` : "";
  if (["value", "formula", "ledger"].includes(selected.kind) && value) {
    parts.push(`<p><code><b>${safe(value.name)}</b>: ${safe(value.type)} = ${safe(value.text)}</code> <span class="quiet">${safe(value.source)}</span></p>`);
  } else {
    const said = selected.kind === "line" ? listing[selected.id - 1].text.trim() : "";
    parts.push(`<p><b>${safe(selected.title)}</b> <code>${safe(said)}</code> serves ${names.map((n) => link("value", byName.get(n)[0], n)).join(", ") || "nothing by itself"}${many}</p>`);
  }
  for (const gone of list.filter((v) => v.removed.length || v.reason).slice(0, 3)) {
    const by = gone.removed.map((r) => link("rewrite", r, `${rewrites[r].rule} (${rewrites[r].label})`)).join(", ");
    parts.push(`<p>${gone.stage} %${gone.number} ${safe(gone.name)} has no code of its own: ${by ? "removed by " + by : safe(gone.reason)}${gone.lines.length ? "; what is lit does its work" : ""}</p>`);
  }
  const at = [...selected.kernels].filter((k) => k >= 0).map((k) => `${link("kernel", k, kernels[k].name)} (${safe(kernels[k].operations)} operations)`).join(", ");
  const instructions = data.asm.spans.filter((s) => meets(s[3], selected.code)).reduce((n, s) => n + s[1] - s[0], 0);
  const shared = [...selected.lines].some((line) => served[line - 1].length > 1) ? ", some of which serve others too" : "";
  const became = [...new Set(list.filter((v) => v.became >= 0).map((v) => `%${v.became}`))].slice(0, 8).join(" ");
  const isGradient = (selected.name || names[0] || "").startsWith("d_");
  const other = [...selected.partners].slice(0, 6).map((n) => link("value", byName.get(n)[0], n)).join(", ");
  parts.push(`<p>${at ? `kernel ${at}, ` : ""}${instructions} lines of assembly${shared}${became ? `; ${became} of the rewritten graph` : ""}${other ? `; ${isGradient ? "gradient of" : "gradient:"} ${other}` : ""}</p>`);
  return parts.join("");
}

// Search

const searched = [
  ...formulas.map((f, at) => ({ kind: "formula", id: at, text: f.text })),
  ...values.map((v, at) => ({ kind: "value", id: at, text: `${v.name}: ${v.type} = ${v.text}` })),
  ...kernels.map((k, at) => ({ kind: "kernel", id: at, text: k.name })),
  ...listing.flatMap((l, at) => l.kernel >= 0 ? [{ kind: "line", id: at + 1, text: l.text.trim() }] : []),
  ...rewrites.map((r, at) => ({ kind: "rewrite", id: at, text: `${r.rule}: ${r.before}  =  ${r.after}` })),
];
const box = document.getElementById("search"), found = document.getElementById("found");
let hits = [], hit = 0;

function search() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const score = (s) => { const t = s.text.toLowerCase(); return t.startsWith(words[0]) ? 0 : new RegExp(`\\b${words[0].replace(/[^\w]/g, "\\$&")}\\b`).test(t) ? 1 : 2; };
  hits = words.length ? searched.filter((s) => words.every((w) => s.text.toLowerCase().includes(w))) : [];
  hits = hits.map((s, at) => [score(s), at, s]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).slice(0, 60).map((h) => h[2]);
  hit = 0;
  listHits();
}
function listHits() {
  found.hidden = !box.value.trim();
  found.innerHTML = hits.map((h, at) => `<li data-hit="${at}" aria-selected="${at === hit}"><small>${h.kind}</small>${safe(h.text)}</li>`).join("") || "<li>nothing found</li>";
  const current = found.children[hit];
  if (current) current.scrollIntoView({ block: "nearest" });
}
function take(at) {
  if (!hits[at]) return;
  const { kind, id } = hits[at];
  found.hidden = true;
  box.blur();
  const pane = panes.find((p) => p.kinds.includes(kind));
  select(kind, id);
  if (pane.element.hidden) { open(pane); show(); }
}
box.addEventListener("input", search);
box.addEventListener("blur", () => setTimeout(() => { found.hidden = true; }, 150));
found.addEventListener("mousedown", (event) => {
  const item = event.target.closest("[data-hit]");
  if (item) { event.preventDefault(); take(Number(item.dataset.hit)); }
});

// Mouse and keys

function follow(target) {
  const part = target.closest("[data-go]");
  if (part) { select(part.dataset.go, Number(part.dataset.id)); return true; }
  const drawn = target.closest("g[data-name]");
  if (drawn && byName.has(drawn.dataset.name)) { select("value", byName.get(drawn.dataset.name)[0]); return true; }
  return false;
}
document.addEventListener("click", (event) => follow(event.target));

const sourcesOf = { asm: (id) => data.asm.spans[id][3], llvm: (id) => data.llvm.spans[id][3], line: (id) => [id] };
document.addEventListener("mouseover", (event) => { // code says whom it serves before it is clicked
  const part = event.target.closest("[data-go]");
  const lines = part && !part.title && sourcesOf[part.dataset.go];
  if (!lines) return;
  const own = lines(Number(part.dataset.id));
  part.title = `${own.map((l) => listing[l - 1].text.trim()).slice(0, 4).join("\n")}\n${namesOf(own)}`;
});

function step(by) {
  const pane = panes.find((p) => p.name === "Formulas");
  const all = pane.parts;
  const now = all.findIndex((p) => p.dataset.go === selected.kind && Number(p.dataset.id) === selected.id);
  const part = all[Math.min(Math.max(now + by, 0), all.length - 1)];
  if (document.activeElement) document.activeElement.blur();
  select(part.dataset.go, Number(part.dataset.id));
}
function range(by) {
  const pane = panes.find((p) => p.column === "right" && !p.element.hidden);
  if (!pane.lit.length) return;
  if (pane.at >= 0) pane.lit[pane.at].classList.remove("here");
  pane.at = (pane.at + by + pane.lit.length) % pane.lit.length;
  pane.lit[pane.at].classList.add("here");
  reveal(pane, pane.lit[pane.at]);
}
const help = document.getElementById("help");
document.getElementById("help-button").addEventListener("click", () => help.showModal());

const keys = {
  "/": () => { box.focus(); box.select(); },
  "?": () => help.showModal(),
  j: () => step(1), k: () => step(-1), n: () => range(1), p: () => range(-1),
  g: () => { const [name] = selected.partners || []; if (name) select("value", byName.get(name)[0]); },
  Escape: () => select("", -1),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === box) {
    if (event.key === "Escape") { box.blur(); }
    else if (event.key === "Enter") take(hit);
    else if (event.key === "ArrowDown") { hit = Math.min(hit + 1, hits.length - 1); listHits(); event.preventDefault(); }
    else if (event.key === "ArrowUp") { hit = Math.max(hit - 1, 0); listHits(); event.preventDefault(); }
    return;
  }
  if (help.open) return;
  if (event.key === "Enter" && follow(event.target)) return;
  if (/^[1-9]$/.test(event.key) && panes[event.key - 1]) { open(panes[event.key - 1]); show(); return; }
  if (keys[event.key]) { keys[event.key](); event.preventDefault(); }
});

document.getElementById("about").textContent = data.about;
build();
const wanted = location.hash.match(/^#([a-z]+)-(\d+)$/);
if (wanted && chosen[wanted[1]] && Number(wanted[2]) < sizes[wanted[1]] + 1) select(wanted[1], Number(wanted[2]), false);
else show();
