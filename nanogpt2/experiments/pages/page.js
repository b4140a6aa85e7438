// What the report does beyond being read: charts, sorting, differences to a base, choices; and a
// live one asks its server for news. State is kept by the names of runs, which outlive an update.
"use strict";

const state = {
  hidden: new Set(), search: "", xLog: false, yLog: false, x: "iter", unit: "nats",
  grouped: true, withoutStart: true, base: null, chosen: null, test: false, sort: {},
};
let data; // as page.py gives it
const $ = (selector) => document.querySelector(selector);
const $$ = (selector) => [...document.querySelectorAll(selector)];

function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function labelled(text, control) {
  return make("label", {}, text + " ", control);
}

function choice(text, options, value, change) {
  const select = make("select", { onchange: () => change(select.value) });
  for (const [key, shown] of options) select.append(make("option", { value: key }, shown));
  select.value = value;
  return labelled(text, select);
}

function toggle(text, checked, change) {
  const box = make("input", { type: "checkbox", checked, onchange: () => change(box.checked) });
  return make("label", {}, box, " " + text);
}

function controls(id, ...children) {
  const place = document.getElementById(id);
  place.classList.add("controls");
  place.replaceChildren(...children);
}

const baseIndex = () => {
  const found = data.runs.findIndex((run) => run.name === state.base);
  return found < 0 ? data.base : found;
};

// --- Curves ---

// Returns what the chart can show: a group as one entry, or each run, with its series.
function entries() {
  const grouped = new Set(state.grouped ? data.groups.flatMap((group) => group.members) : []);
  const found = [];
  if (state.grouped) {
    for (const group of data.groups) {
      const runs = group.members.map((at) => data.runs[at]);
      const label = `${changed(runs[0], data.runs[baseIndex()]) || "as the base"}`;
      found.push({ key: `group ${runs.map((run) => run.name).join(" ")}`, run: runs[0], curve: group.curve,
        name: `${label} (${runs.length} seeds)`, words: runs.map((run) => run.name).join(" ") });
    }
  }
  data.runs.forEach((run, at) => {
    if (!grouped.has(at) && run.curve.iter?.length) {
      found.push({ key: run.name, run, curve: run.curve, name: run.name,
        words: changed(run, data.runs[data.base]) });
    }
  });
  return found;
}

function seriesOf(entry, number) {
  const { run, curve } = entry;
  const made = [];
  for (const [loss, split, what] of [["val_loss", "val", "validation"], ["train_loss", "train", "training"]]) {
    const scale = state.unit === "nats" ? 1 : 1 / (Math.LN2 * run.bytesPerToken[split]);
    if (!curve[loss] || !Number.isFinite(scale)) continue;
    const scaled = (name) => curve[name]?.map((value) => value * scale);
    const tokens = run.tokensPerStep && curve.iter.map((step) => step * run.tokensPerStep);
    if (state.x === "tokens" && !tokens) continue;
    made.push({ id: entry.key, name: entry.name, number, what, dashed: split === "train", tokens,
      x: state.x === "tokens" ? tokens : curve.iter, y: scaled(loss),
      low: scaled(`${loss}_low`), high: scaled(`${loss}_high`) });
  }
  return made;
}

function shownEntries(all) {
  const wanted = state.search.toLowerCase();
  return all.filter((entry) => !state.hidden.has(entry.key)
    && `${entry.name} ${entry.words}`.toLowerCase().includes(wanted));
}

async function drawCurves() {
  const all = entries();
  const shown = new Set(shownEntries(all).map((entry) => entry.key));
  drawLegend(all);
  const unit = state.unit === "nats" ? "nats per token" : "bits per byte";
  await charts.lines("curves-chart", all.flatMap(seriesOf), shown, {
    x: state.x === "tokens" ? "tokens" : "step", y: unit, unit, xLog: state.xLog, yLog: state.yLog, height: 440,
    withoutStart: state.withoutStart,
  });
}

function showCurves() {
  charts.show("curves-chart", new Set(shownEntries(entries()).map((entry) => entry.key)));
}

function drawLegend(all) {
  const wanted = state.search.toLowerCase();
  const rows = all.map((entry, number) => {
    const { color, sign } = charts.mark(number);
    const box = make("input", { type: "checkbox", checked: !state.hidden.has(entry.key) });
    box.onchange = () => {
      state.hidden[box.checked ? "delete" : "add"](entry.key);
      showCurves();
    };
    const last = entry.curve.val_loss?.at(-1);
    const row = make("label", {
      hidden: !`${entry.name} ${entry.words}`.toLowerCase().includes(wanted),
      onmouseenter: () => charts.highlight("curves-chart", entry.key),
      onmouseleave: () => charts.highlight("curves-chart", null),
    }, box, make("span", { className: "mark", ariaHidden: "true", style: `color: ${color}` }, sign),
    make("span", {}, entry.name), make("span", { className: "last" }, last?.toFixed(4) ?? ""));
    row.addEventListener("focusin", () => charts.highlight("curves-chart", entry.key));
    row.addEventListener("focusout", () => charts.highlight("curves-chart", null));
    return row;
  });
  const legend = $("#curves-legend");
  legend.setAttribute("role", "group");
  legend.setAttribute("aria-label", "which runs the chart shows");
  legend.replaceChildren(...rows);
}

function setUpCurves() {
  const redraw = (key) => (value) => { state[key] = value; drawCurves(); };
  const search = make("input", { type: "search", value: state.search, placeholder: "name or parameter" });
  search.oninput = () => { state.search = search.value; drawLegend(entries()); showCurves(); };
  const all = (hide) => () => {
    if (hide) shownEntries(entries()).forEach((entry) => state.hidden.add(entry.key));
    else state.hidden.clear();
    drawLegend(entries());
    showCurves();
  };
  const bits = data.runs.some((run) => run.bytesPerToken.val);
  controls("curves-controls",
    labelled("show", search),
    make("button", { type: "button", onclick: all(false) }, "all"),
    make("button", { type: "button", onclick: all(true) }, "none"),
    ...(data.groups.length ? [toggle(`means over seeds, ${Math.round(data.band * 100)}% bands`,
      state.grouped, redraw("grouped"))] : []),
    toggle("without the steep start", state.withoutStart, redraw("withoutStart")),
    toggle("log x", state.xLog, redraw("xLog")),
    toggle("log y", state.yLog, redraw("yLog")),
    choice("by", [["iter", "step"], ["tokens", "tokens"]], state.x, redraw("x")),
    ...(bits ? [choice("in", [["nats", "nats per token"], ["bits", "bits per byte"]], state.unit, redraw("unit"))] : []));
}

// --- Figures and differences ---

// Returns the parameters in which a run differs from the base, its seed apart.
function changed(run, base) {
  const keys = [...new Set([...Object.keys(base.params), ...Object.keys(run.params)])];
  const same = (key) => JSON.stringify(run.params[key] ?? null) === JSON.stringify(base.params[key] ?? null);
  const shown = (value) => (value === null || value === undefined ? "empty"
    : typeof value === "object" ? JSON.stringify(value) : String(value));
  const words = keys.filter((key) => !same(key) && key !== "seed")
    .map((key) => `${key} ${shown(run.params[key])}`);
  if (run.data && base.data && run.data !== base.data) words.push("other data");
  if (run.code && base.code && run.code !== base.code) words.push("other code");
  return words.join(", ");
}

// Returns why a figure of two runs does not compare, or nothing.
function apart(column, run, base) {
  const [one, other] = [run, base].map((each) => each.texts[column.split]);
  const split = column.split === "train" ? "val" : column.split;
  if (column.per && one && other && one !== other) return "other text";
  if (column.per === "tokens" && run.figures[`${split}.tokens`] !== base.figures[`${split}.tokens`]) {
    return "other tokens";
  }
  return "";
}

function shownFigure(column, value) {
  const scale = column.percent ? 100 : 1;
  const sign = value > 0 ? "+" : value < 0 ? "−" : "±";
  return sign + Math.abs(value * scale).toFixed(column.digits) + (column.percent ? "%" : "");
}

function compareFigures() {
  const base = data.runs[baseIndex()];
  for (const row of $$("#figures-table tbody tr")) {
    const run = data.runs[row.dataset.run];
    row.classList.toggle("base", run === base);
    row.querySelector(".changed").textContent = run === base ? "the base" : changed(run, base) || "–";
    for (const column of data.columns) {
      const cell = row.querySelector(`[data-key="${column.key}"]`);
      cell.querySelector(".difference")?.remove();
      cell.classList.toggle("test", column.split === "test");
      const value = run.figures[column.key], from = base.figures[column.key];
      if (run === base || value === undefined || from === undefined) continue;
      const why = apart(column, run, base);
      const difference = value - from;
      const better = column.better && difference && (difference < 0) === (column.better === "lower");
      const clear = column.noise !== null && Math.abs(difference) > column.noise;
      const verdict = why || !column.better || column.noise === null ? ""
        : clear ? (better ? "better" : "worse") : "within noise";
      cell.append(make("span", { className: `difference ${verdict}`, title: verdict },
        why || `${shownFigure(column, difference)}${verdict && difference ? ` ${verdict}` : ""}`));
    }
  }
  compareSeeds();
}

function compareSeeds() {
  const base = data.groups.find((group) => group.members.includes(baseIndex()));
  const figuresOf = (group, key) => new Map(group.members.map((at) => data.runs[at])
    .map((run) => [run.params.seed, run.figures[key]]));
  for (const row of $$("#seeds-table tbody tr")) {
    const group = data.groups[row.dataset.group];
    const first = data.runs[group.members[0]];
    row.classList.toggle("base", group === base);
    row.querySelector(".setting").textContent = changed(first, data.runs[baseIndex()]) || "as the base";
    for (const column of data.columns) {
      const cell = row.querySelector(`[data-key="${column.key}"]`);
      cell?.querySelector(".difference")?.remove();
      if (!cell || !base || group === base) continue;
      const why = apart(column, first, data.runs[base.members[0]]);
      const theirs = figuresOf(base, column.key);
      const differences = [...figuresOf(group, column.key)].filter(([seed]) => theirs.has(seed))
        .map(([seed, value]) => value - theirs.get(seed)).filter(Number.isFinite);
      let words = why;
      if (!why && differences.length < 2) words = "fewer than 2 seeds in common";
      let verdict = "";
      if (!words) {
        const n = differences.length;
        const mean = differences.reduce((sum, each) => sum + each, 0) / n;
        const spread = Math.sqrt(differences.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (n - 1));
        const margin = data.t[Math.min(n - 1, data.t.length) - 1] * spread / Math.sqrt(n);
        const lower = (mean < 0) === (column.better === "lower");
        verdict = Math.abs(mean) <= margin ? "" : lower ? "better" : "worse";
        words = differences.every((each) => each === 0) ? "the same" : `${shownFigure(column, mean)} (${shownFigure(column, mean - margin)} to`
          + ` ${shownFigure(column, mean + margin)}), ${verdict || "no difference shown"}`;
      }
      cell.append(make("span", { className: `difference ${verdict}` }, words));
    }
  }
}

function setUpFigures() {
  const options = data.runs.map((run) => [run.name, run.name]);
  const hasTest = data.columns.some((column) => column.split === "test");
  controls("figures-controls",
    choice("differences to", options, data.runs[baseIndex()].name, (name) => {
      state.base = name;
      compareFigures();
      drawCurves();
    }),
    ...(hasTest ? [toggle("test, which chooses nothing", state.test, (on) => { state.test = on; showTest(); })] : []));
  $$("#figures-table thead th").forEach((head, at) => {
    const column = data.columns[at - 3];
    head.classList.toggle("test", column?.split === "test");
  });
  showTest();
  compareFigures();
}

function showTest() {
  $("#figures-table").classList.toggle("no-test", !state.test);
}

// --- Sorting ---

function setUpSorting() {
  for (const table of $$("table:has(th[data-sort])")) {
    table.querySelectorAll("th[data-sort]").forEach((head, at) => {
      const button = make("button", { type: "button", onclick: () => {
        const before = state.sort[table.id];
        const descending = before?.at === at ? !before.descending : false;
        state.sort[table.id] = { at, descending };
        sort(table);
      } }, ...head.childNodes);
      head.replaceChildren(button);
    });
    if (state.sort[table.id]) sort(table);
  }
}

function sort(table) {
  const { at, descending } = state.sort[table.id];
  const key = (row) => {
    const cell = row.cells[at];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.classList.contains("number") ? null : cell.textContent;
  };
  const order = (one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === null || b === null) return (a === null) - (b === null); // what is not known comes last
    const compared = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return descending ? -compared : compared;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  table.querySelectorAll("th[data-sort]").forEach((head, place) => {
    if (place === at) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

// --- Chosen runs: by position, by token, samples ---

function chosenRuns() {
  return data.runs.map((run, at) => ({ run, at })).filter(({ run }) => state.chosen.has(run.name));
}

function chooseAtFirst() {
  const best = data.runs.map((run, at) => [run.figures["val.loss"] ?? Infinity, at]).sort((a, b) => a[0] - b[0])[0];
  return new Set([baseIndex(), best[1]].map((at) => data.runs[at].name));
}

async function drawChosen() {
  const chosen = chosenRuns();
  const named = new Set(chosen.map(({ at }) => String(at)));
  for (const article of $$("#samples article")) article.hidden = !named.has(article.dataset.run);
  const series = chosen.flatMap(({ run }, number) => ["val_loss", "test_loss"]
    .filter((key) => run.position[key] && (key === "val_loss" || state.test))
    .map((key) => ({ id: run.name, name: run.name, number, what: key === "val_loss" ? "validation" : "test",
      dashed: key !== "val_loss", x: run.position.position.map((place) => place + 1), y: run.position[key] })));
  if ($("#position-chart")) {
    await charts.lines("position-chart", series, state.chosen, {
      x: "position in the context", y: "nats per token", unit: "nats per token", xLog: true, height: 320 });
  }
  if ($("#tokens-chart")) {
    const labels = [...new Set(chosen.flatMap(({ run }) => run.tokens.map((row) => row[0])))].slice(0, 24);
    await charts.dots("tokens-chart", chosen.map(({ run }, number) => {
      const rows = run.tokens.filter((row) => labels.includes(row[0]));
      return { name: run.name, number, labels: rows.map((row) => row[0]),
        values: rows.map((row) => Number(row[1])), shares: rows.map((row) => Number(row[2])) };
    }), { x: "mean loss of the token, nats", y: "token", factors: labels.reverse(), height: 460 });
  }
  for (const name of ["loss-by-position", "loss-by-token", "samples"]) {
    const place = document.getElementById(name);
    let line = place.querySelector(".of");
    if (!line) place.querySelector("h2").after(line = make("p", { className: "of" }));
    line.replaceChildren("Of the runs ticked under Figures: ", ...chosen.flatMap(({ run }, number) => {
      const { color, sign } = charts.mark(number);
      return [make("span", { style: `color: ${color}`, ariaHidden: "true" }, sign), ` ${run.name}  `];
    }));
  }
}

function setUpChoice() {
  for (const box of $$("input.chosen")) {
    const { name } = data.runs[box.dataset.run];
    box.checked = state.chosen.has(name);
    box.onchange = () => { state.chosen[box.checked ? "add" : "delete"](name); drawChosen(); };
  }
}

// --- Copying, themes, paper ---

async function copy(button) {
  const text = button.nextElementSibling;
  getSelection().selectAllChildren(text); // it can be copied by hand where the browser refuses
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "copied";
  } catch {
    button.textContent = document.execCommand("copy") ? "copied" : "press Ctrl-C";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}

function setUpTheme() {
  const button = $("#theme");
  const name = () => { button.textContent = charts.isDark() ? "light" : "dark"; };
  button.setAttribute("aria-label", "switch between light and dark");
  button.onclick = () => {
    document.documentElement.dataset.theme = charts.isDark() ? "light" : "dark";
    name();
    draw();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { name(); draw(); });
  addEventListener("beforeprint", () => $$("details").forEach((each) => { each.open = true; }));
  name();
}

async function draw(then = () => {}) {
  await drawCurves();
  report.ready = performance.now();
  await then();
  await drawChosen();
  report.drawn = performance.now();
}

// --- Start, and news ---

const parsed = new Promise((done) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", done);
  else done();
});

function setUp() {
  data = JSON.parse($("#known").textContent);
  document.documentElement.classList.add("scripted");
  state.chosen ??= chooseAtFirst();
  setUpCurves();
  return draw(async () => {
    await parsed; // the rest of the page comes after the first chart
    setUpChoice();
    setUpFigures();
    setUpSorting();
    for (const button of $$("button.copy")) button.onclick = () => copy(button);
  });
}

const report = { state, charts, get data() { return data; }, ready: null, drawn: null };
window.report = report; // for whoever looks behind the page

async function followNews() {
  await parsed;
  const status = $("#status");
  const { dataset } = document.documentElement;
  for (;;) {
    try {
      const answer = await fetch(`/news?${dataset.live}`);
      const news = await answer.text();
      status.textContent = "live";
      if (news !== dataset.live) await update();
    } catch {
      status.textContent = "the report is no longer served; this is its last state";
      await new Promise((done) => { setTimeout(done, 2000); });
    }
  }
}

async function update() {
  const text = await (await fetch("/")).text();
  const news = new DOMParser().parseFromString(text, "text/html");
  const parts = ["#top", "#rest"].map((part) => [$(part), news.querySelector(part)]);
  if (parts.some(([, part]) => !part)) throw new Error("no runs any more");
  document.documentElement.dataset.live = news.documentElement.dataset.live;
  const open = new Set($$("details[open] > summary").map((each) => each.textContent));
  const scroll = [scrollX, scrollY];
  const height = $("main").offsetHeight;
  $("main").style.minHeight = `${height}px`; // the page does not jump while charts are drawn
  for (const [old, part] of parts) old.replaceChildren(...part.childNodes);
  $$("details > summary").forEach((each) => { each.parentElement.open = open.has(each.textContent); });
  await setUp();
  $("main").style.minHeight = "";
  scrollTo(...scroll);
}

setUpTheme();
setUp();
if ("live" in document.documentElement.dataset) followNews();
