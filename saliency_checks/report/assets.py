"""Style and script of the HTML report; the page reads without the script, which only filters and opens."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --sheet: #fff; --ink: #1c1e21; --soft: #62676e; --line: #dcdcd6;
  --tint: #f1f1ec; --pass: #12683c; --fail: #a5201a; --open: #7d5400; --skip: #5c6168; --accent: #2454a6;
  --pass-tint: #e0f2e7; --fail-tint: #fbe3e0; --open-tint: #faefcf; --good: #1a7f4b18; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --sheet: #1d2024; --ink: #e7e8ea; --soft: #a0a6ae;
  --line: #363b42; --tint: #262a2f; --pass: #5fca8f; --fail: #ff8a7f; --open: #e7b94a; --skip: #8b919a;
  --accent: #8fb4f5; --pass-tint: #17352a; --fail-tint: #45201d; --open-tint: #3a2f14; --good: #5fca8f1c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main, header, footer { max-width: 84rem; margin: auto; padding: 0 1.25rem; }
header { padding-top: 1.75rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; } h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
h4 { font-size: .95rem; margin: 1.25rem 0 .35rem; }
p { margin: .35rem 0; max-width: 46rem; } .soft { color: var(--soft); } small { font-size: .82rem; }
a { color: var(--accent); } [hidden] { display: none !important; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 3px; }
.counts { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0; padding: 0; list-style: none; }
.counts button, .counts span { font: inherit; border: 1px solid var(--line); border-radius: 2rem; padding: .2rem .8rem;
  background: var(--sheet); color: var(--ink); } .counts b { font-size: 1.05rem; }
.js .counts button { cursor: pointer; } .counts [aria-pressed=true] { border-color: var(--accent);
  box-shadow: inset 0 0 0 1px var(--accent); }
.warning { border-left: 4px solid var(--open); background: var(--open-tint); padding: .5rem .8rem; }
#filters { display: none; } .js #filters { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: end;
  margin: 1rem 0 .75rem; }
#filters label { display: grid; font-size: .8rem; color: var(--soft); } #filters input, #filters select,
#filters button { font: inherit; font-size: .95rem; padding: .3rem .5rem; border: 1px solid var(--line);
  border-radius: 5px; background: var(--sheet); color: var(--ink); min-width: 9rem; } #filters button { min-width: 0; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; background: var(--sheet); }
table { border-collapse: collapse; }
.wide table { border-collapse: separate; border-spacing: 0; min-width: 100%; }
th { font-weight: 600; text-align: left; font-size: .85rem; } .matrix th, .matrix td { padding: .3rem .35rem;
  border-bottom: 1px solid var(--line); vertical-align: top; } .matrix thead th { vertical-align: bottom;
  line-height: 1.2; min-width: 5.6rem; font-size: .78rem; } .matrix tr:last-child > * { border-bottom: 0; }
.matrix tbody th, .matrix thead th:first-child { position: sticky; left: 0; background: var(--sheet); z-index: 1;
  padding-left: .8rem; overflow-wrap: anywhere; min-width: 7rem; max-width: 13rem; }
.matrix tfoot { color: var(--soft); font-size: .85rem; } .matrix tfoot th { font-weight: 400; position: sticky; left: 0;
  background: var(--sheet); padding-left: .8rem; }
.chips { display: flex; flex-wrap: wrap; gap: 3px; } .chip { text-decoration: none; color: inherit; display: block;
  width: 14px; height: 14px; border-radius: 3px; overflow: hidden; } .chip > * { display: none; }
.chip.lead { flex: 1 0 100%; width: auto; height: auto; padding: .12rem .4rem; border-radius: 5px; display: grid;
  grid-template-columns: auto auto; justify-content: space-between; gap: 0 .35rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; font-size: .84rem; } .chip.lead > * { display: inline; }
.chip:hover { filter: brightness(.94); }
.chip .was { grid-column: 1 / -1; font-size: .74rem; opacity: .85; }
.pass { --mine: var(--pass); --ground: var(--pass-tint); } .fail, .error, .xpass { --mine: var(--fail);
  --ground: var(--fail-tint); } .inconclusive, .xfail { --mine: var(--open); --ground: var(--open-tint); }
.skip, .reported { --mine: var(--skip); --ground: var(--tint); }
.chip { background: var(--mine); } .chip.lead, .badge { background: var(--ground); color: var(--mine);
  font-weight: 600; } .badge { padding: .05rem .5rem; border-radius: 4px; font-size: .82rem; white-space: nowrap; }
.chip.fail.lead, .chip.error.lead, .chip.xpass.lead { box-shadow: inset 0 0 0 1.5px var(--mine); }
.card { border: 1px solid var(--line); border-radius: 8px; background: var(--sheet); margin: .4rem 0; }
.card > summary { padding: .5rem .8rem; cursor: pointer; display: flex; flex-wrap: wrap; gap: .2rem .7rem;
  align-items: baseline; } .card > summary::before { content: "\\25b8"; color: var(--soft); }
.card[open] > summary::before { content: "\\25be"; } .body { padding: 0 1rem 1rem; }
.rows { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr max-content; gap: 0 .8rem;
  align-items: start; margin: .8rem 0; } .rows .names, .rows .numbers { list-style: none; margin: 0; padding: 0;
  font-size: .88rem; font-variant-numeric: tabular-nums; } .rows li { height: 30px; line-height: 30px;
  white-space: nowrap; overflow: hidden; text-overflow: ellipsis; max-width: 14rem; }
svg { display: block; overflow: visible; } svg text { font: 11.5px system-ui, sans-serif; fill: var(--soft); }
.tick { text-anchor: middle; } .mark { text-anchor: end; } .good { fill: var(--good); }
.bound { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 3 3; } .control { stroke: var(--soft);
  stroke-width: 2; opacity: .55; } .bar line { stroke: var(--mine); stroke-width: 4; stroke-linecap: round;
  opacity: .5; } .bar circle { fill: var(--mine); } .before line { stroke: var(--soft); stroke-width: 2; }
.before circle { fill: var(--sheet); stroke: var(--soft); stroke-width: 2; }
.chart { width: calc(100% - 60px); margin: 12px 16px 26px 44px; } .field { fill: var(--tint); }
.chart svg { overflow: visible; }
.curve { fill: none; stroke-width: 2.2; vector-effect: non-scaling-stroke; } .curve.a { stroke: var(--accent); }
.curve.b { stroke: var(--open); } .curve.other { stroke: var(--skip); opacity: .35; stroke-width: 1.2; }
.curve.was { stroke: var(--soft); stroke-dasharray: 4 3; } .dot.was, .key.was { fill: var(--soft); color: var(--soft); }
.dot.a { fill: var(--accent); } .dot.b { fill: var(--open); } .band.a { fill: var(--accent); opacity: .18; }
.level { fill: none; stroke: var(--ink); stroke-dasharray: 3 3; stroke-width: 1.2; opacity: .6;
  vector-effect: non-scaling-stroke; } .key { font-size: .84rem; margin-right: 1rem; } .key::before {
  content: ""; display: inline-block; width: 1.1rem; border-top: 3px solid; vertical-align: middle;
  margin-right: .35rem; } .key.a { color: var(--accent); } .key.b { color: var(--open); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem 1.5rem; }
figure { margin: .5rem 0; } figcaption { font-size: .88rem; display: flex; flex-wrap: wrap; gap: .2rem .6rem;
  align-items: baseline; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 1rem; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .9rem; margin: .4rem 0;
  font-size: .9rem; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.images { display: flex; flex-wrap: wrap; gap: .8rem 1.2rem; } .pair { display: grid; grid-template-columns: auto auto;
  gap: 4px; } .pair figcaption { grid-column: 1 / -1; font-size: .8rem; color: var(--soft); }
.picture { position: relative; line-height: 0; } .picture img { width: 7rem; height: 7rem; object-fit: contain;
  image-rendering: pixelated; background: #8884; border-radius: 3px; } .picture svg { position: absolute; inset: 0;
  width: 100%; height: 100%; } .cause { fill: none; stroke: #000; stroke-width: 3; } .cause + .cause { stroke: #ffd400;
  stroke-width: 1.6; }
pre, code { font: .84rem/1.45 ui-monospace, monospace; } pre { background: var(--tint); padding: .6rem .8rem;
  border-radius: 6px; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0; }
.numbers-table td, .numbers-table th { padding: .15rem .6rem; font-variant-numeric: tabular-nums; }
.changes td, .changes th { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
.changes td { white-space: nowrap; } .changes td:last-child { white-space: normal; min-width: 15rem; }
.worse { color: var(--fail); font-weight: 600; } .better { color: var(--pass); font-weight: 600; }
dialog { border: 1px solid var(--line); border-radius: 10px; background: var(--sheet); color: var(--ink); padding: 0;
  width: min(60rem, 96vw); max-height: 92vh; } dialog::backdrop { background: #0008; }
dialog > form { position: sticky; top: 0; background: var(--sheet); z-index: 2; display: flex; gap: .6rem;
  padding: .7rem 1rem; border-bottom: 1px solid var(--line); align-items: center; } dialog h2 { margin: 0; flex: 1;
  font-size: 1.05rem; overflow-wrap: anywhere; } dialog button { font: inherit; padding: .25rem .7rem;
  border: 1px solid var(--line); border-radius: 5px; background: var(--tint); color: inherit; cursor: pointer; }
footer { padding-top: 2rem; padding-bottom: 3rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 40rem) { main, header, footer { padding-left: .8rem; padding-right: .8rem; }
  dialog { width: 100vw; max-width: 100vw; max-height: 100dvh; height: 100dvh; border: 0; border-radius: 0; }
  dialog > form { flex-wrap: wrap; } dialog h2 { flex: 1 0 100%; } dialog pre { font-size: .74rem; }
  .rows { grid-template-columns: minmax(0, 5.5rem) 1fr max-content; gap: 0 .5rem; }
  .rows .numbers li { font-size: .8rem; }
  #filters label { flex: 1 1 40%; } #filters input, #filters select { min-width: 0; width: 100%; }
  .matrix tbody th, .matrix thead th:first-child { min-width: 6rem; max-width: 7.5rem; padding-left: .5rem; }
  .picture img { width: 5.6rem; height: 5.6rem; } .numbers .interval { display: none; } }
@media print { #filters, dialog { display: none !important; } .card > .body { display: block; } }
"""

SCRIPT = """
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  document.documentElement.classList.add("js");
  const form = one("#filters"), panel = one("#panel"), red = ["fail", "error", "xpass", "inconclusive"];
  const wanted = () => Object.fromEntries(new FormData(form));
  const fits = (data, want) => data.method.toLowerCase().includes(want.method.trim().toLowerCase())
    && (!want.check || data.check === want.check) && (!want.subject || data.subject === want.subject)
    && (!want.status || data.status === want.status || (want.status === "red" && red.includes(data.status))
        || (want.status === "changed" && data.changed));
  function apply() {
    const want = wanted();
    for (const item of all("[data-status]")) item.hidden = !fits(item.dataset, want);
    for (const cell of all(".chips")) {
      const shown = all(".chip:not([hidden])", cell);
      for (const chip of all(".chip", cell)) chip.classList.toggle("lead", chip === shown[0]);
    }
    for (const row of all(".matrix tbody tr")) row.hidden = !one(".chip:not([hidden])", row);
    all(".matrix thead th[data-column]").forEach((head) => {
      const column = all(`[data-column="${head.dataset.column}"]`);
      const used = column.some((cell) => one(".chip:not([hidden])", cell));
      for (const cell of column) cell.hidden = !used;
    });
    for (const card of all(".card")) card.hidden = !one("section[data-status]:not([hidden])", card);
    for (const group of all("[data-group]")) group.hidden = !one(".card:not([hidden])", group);
    for (const button of all(".counts button")) {
      button.setAttribute("aria-pressed", String(button.value === want.status));
    }
    one("#shown").textContent = `${all(".chip:not([hidden])").length} of ${all(".chip").length} verdicts`;
  }
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of all(".counts button")) button.addEventListener("click", () => {
    form.elements.status.value = form.elements.status.value === button.value ? "" : button.value;
    apply();
  });
  let open = null;
  function show(chip) {
    const card = document.getElementById(chip.getAttribute("href").slice(1)).closest(".card");
    const body = one(".body", card).cloneNode(true);
    for (const item of all("[id]", body)) item.removeAttribute("id");
    one("h2", panel).textContent = card.dataset.title;
    one("#content").replaceChildren(body);
    if (!panel.open) panel.showModal();
    panel.scrollTop = 0;
    open = chip;
  }
  const leads = () => all(".chip.lead:not([hidden])").filter((chip) => !chip.closest("[hidden]"));
  function step(by) {
    const list = leads();
    const at = list.findIndex((chip) => chip.closest(".chips") === open.closest(".chips"));
    if (list.length) show(list[(at + by + list.length) % list.length]);
  }
  document.addEventListener("click", (event) => {
    const chip = event.target.closest("a.chip");
    if (!chip || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(chip);
  });
  one("#previous").addEventListener("click", () => step(-1));
  one("#next").addEventListener("click", () => step(1));
  panel.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  panel.addEventListener("close", () => open && open.focus());
  panel.addEventListener("click", (event) => event.target === panel && panel.close());
})();
"""
