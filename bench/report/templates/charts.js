// The charts of a contest, drawn by Observable Plot from the JSON of their section. Which methods are shown, and
// against what, holds for all charts of the page.
"use strict";

const chosen = { hidden: new Set(), axis: "steps" };

const SHORT = 26; // letters of a name within a chart
const short = (label) => (label.length > SHORT ? `${label.slice(0, SHORT - 1)}…` : label);
const digits = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toString());
const dotted = { strokeDasharray: "2 3", strokeOpacity: 0.6 };

// A line with its band and markers in the look of a method, or without markers in that of a term.
function lineMarks(rows, x, y, look, markers) {
  const options = { x, y, stroke: look.colour, strokeWidth: 1.8, strokeDasharray: look.dash };
  const marks = [Plot.line(rows, options)];
  if (markers) marks.push(Plot.dot(rows, dotOptions(x, y, look)));
  return marks;
}

function dotOptions(x, y, look) {
  return { x, y, fill: look.colour, symbol: look.symbol, rotate: look.turn, r: 3.6 };
}

function tip(rows, x, y, title) {
  return Plot.tip(rows, Plot.pointer({ x, y, title, fontSize: 12, pathFilter: "none", stroke: "currentColor" }));
}

function level(value, name) {
  const rule = Plot.ruleY([value], { strokeDasharray: "3 3", strokeOpacity: 0.55 });
  return [rule, Plot.text([name], { y: () => value, frameAnchor: "right", textAnchor: "end", dy: -7, fillOpacity: 0.7 })];
}

// Held-out scores of one reward against what was spent; ✕ where the pictures of a method begin to collapse.
function curve(data, shown, axis, figure) {
  const found = data.curves[figure.dataset.n];
  const marks = found.levels.flatMap((one) => level(one.value, one.name));
  const all = [];
  for (const method of shown) {
    const rows = found.points.filter((point) => data.methods[point.m] === method);
    const band = { x: axis, y1: (d) => d.mean - d.se, y2: (d) => d.mean + d.se, fill: method.colour, fillOpacity: 0.14 };
    marks.push(Plot.areaY(rows, band), ...lineMarks(rows, axis, "mean", method, true));
    for (const collapse of data.collapses.filter((one) => data.methods[one.m] === method)) {
      const at = rows.find((row) => row.steps >= collapse.steps) ?? rows.at(-1);
      const cross = { x: axis, y: "mean", symbol: "times", r: 8, stroke: method.colour, strokeWidth: 2.5 };
      marks.push(Plot.ruleX([collapse], { x: axis, stroke: method.colour, ...dotted }), Plot.dot([at], cross));
    }
    all.push(...rows);
  }
  const title = (d) => `${data.methods[d.m].label}\n${data.axes[axis]}: ${digits(d[axis])}\n${found.reward}: ${digits(d.mean)} ± ${digits(d.se)}`;
  marks.push(tip(all, axis, "mean", title));
  return { x: xOf(data, axis), y: { label: found.label, nice: true }, marks };
}

function xOf(data, axis) {
  return { label: data.axes[axis], tickFormat: axis === "steps" ? "d" : "~s", zero: true, nice: false };
}

// Gains over base in one reward with their intervals, a row per method.
function gains(data, shown, axis, figure) {
  const found = data.gains[figure.dataset.n];
  const rows = found.rows.filter((row) => shown.includes(data.methods[row.m]));
  const label = (d) => data.methods[d.m].label;
  const marks = [Plot.ruleX([0], { strokeDasharray: "3 3", strokeOpacity: 0.55 })];
  for (const row of rows) {
    const look = data.methods[row.m];
    if (row.low !== null) marks.push(Plot.ruleY([row], { x1: "low", x2: "high", y: label, stroke: look.colour, strokeWidth: 2.4 }));
    marks.push(Plot.dot([row], { ...dotOptions("mean", label, look), r: 4.5 }));
  }
  marks.push(Plot.text(rows, { y: label, text: (d) => short(label(d)), frameAnchor: "left", textAnchor: "start", dy: -11 }));
  marks.push(tip(rows, "mean", label, (d) => `${label(d)}\ngain: ${digits(d.mean)}\n95 %: ${digits(d.low)} to ${digits(d.high)}`));
  const domain = rows.map(label);
  return {
    height: 70 + 36 * Math.max(1, rows.length), marginLeft: 8, insetTop: 8,
    x: { label: "gain over base", ticks: 4 }, y: { axis: null, domain, padding: 0.4 }, marks,
  };
}

// Gain against a cost. On the front: no method gains as much for less. The others are pale.
function front(data, shown, axis, figure) {
  const key = figure.dataset.n === "cost" ? axis : figure.dataset.n;
  const rows = data.fronts[key].filter((row) => shown.includes(data.methods[row.m]));
  const best = rows.filter((row) => row.best);
  const marks = [Plot.ruleY([0], { strokeDasharray: "3 3", strokeOpacity: 0.55 })];
  marks.push(Plot.line(best, { x: "cost", y: "mean", curve: "step-after", strokeOpacity: 0.4, sort: "cost" }));
  for (const row of rows) {
    const look = data.methods[row.m];
    const opacity = row.best ? 1 : 0.35;
    if (row.low !== null) marks.push(Plot.ruleX([row], { x: "cost", y1: "low", y2: "high", stroke: look.colour, strokeWidth: 1.6, strokeOpacity: opacity }));
    marks.push(Plot.dot([row], { ...dotOptions("cost", "mean", look), r: 5.5, fillOpacity: opacity }));
  }
  const label = (d) => data.methods[d.m].label;
  const middle = (Math.min(...rows.map((row) => row.cost)) + Math.max(...rows.map((row) => row.cost))) / 2;
  for (const [side, textAnchor] of [[1, "start"], [-1, "end"]]) {
    const here = best.filter((row) => (row.cost <= middle) === (side === 1));
    const look = { dx: 8 * side, dy: -9, textAnchor, stroke: "var(--paper)", fill: "currentColor", strokeWidth: 4 };
    marks.push(Plot.text(here, { x: "cost", y: "mean", text: (d) => short(label(d)), ...look }));
  }
  const title = (d) => `${label(d)}\ngain: ${digits(d.mean)} (${digits(d.low)} to ${digits(d.high)})\n${data.costs[key]}: ${digits(d.cost)}`;
  marks.push(tip(rows, "cost", "mean", title));
  const x = { label: data.costs[key], tickFormat: "~s", ticks: 5 };
  return { insetLeft: 20, insetRight: 20, insetTop: 12, x, y: { label: `gain in ${data.reward}` }, marks };
}

// Mean reward of the training batches and its running mean.
function training(data, shown) {
  const marks = [];
  for (const method of shown) {
    const rows = data.training.filter((row) => data.methods[row.m] === method);
    marks.push(Plot.line(rows, { x: "step", y: "reward", stroke: method.colour, strokeWidth: 0.8, strokeOpacity: 0.35 }));
    marks.push(...lineMarks(rows, "step", "smooth", method, false));
  }
  const all = data.training.filter((row) => shown.includes(data.methods[row.m]));
  marks.push(tip(all, "step", "smooth", (d) => `${data.methods[d.m].label}\nstep ${d.step}: ${digits(d.smooth)}`));
  return { x: { label: data.axes.steps, tickFormat: "d" }, y: { label: `${data.reward} of the batch`, nice: true }, marks };
}

// Norm of each gradient term of one method; all methods on the same scales.
function norms(data, shown, axis, figure) {
  const own = data.norms.filter((row) => row.m === Number(figure.dataset.n));
  const marks = Object.entries(data.terms).flatMap(([term, look]) => lineMarks(own.filter((row) => row.term === term), "step", "norm", look, false));
  marks.push(tip(own, "step", "norm", (d) => `${d.term}, step ${d.step}: ${digits(d.norm)}`));
  const spans = (key) => [Math.min(...data.norms.map((row) => row[key])), Math.max(...data.norms.map((row) => row[key]))];
  const y = { type: "log", label: "norm", domain: spans("norm"), nice: true, ticks: 4, tickFormat: (v) => (Number.isInteger(Math.log10(v)) ? v.toExponential(0) : "") };
  return { height: 170, x: { label: data.axes.steps, domain: spans("step"), ticks: 4, tickFormat: "d" }, y, marks };
}

const KINDS = { curve, gains, front, training, norms };

function draw(figure) {
  const data = figure.section.data;
  const all = printing.matches;
  const shown = data.methods.filter((method) => all || !chosen.hidden.has(method.label));
  const method = figure.dataset.kind === "norms" ? data.methods[figure.dataset.n] : null;
  figure.hidden = method !== null && !shown.includes(method);
  const width = figure.box.clientWidth;
  if (figure.hidden || !width) return;
  const { height = figure.classList.contains("large") ? 340 : 260, ...options } = KINDS[figure.dataset.kind](data, shown, chosen.axis, figure);
  const style = { fontSize: "12px", background: "none", overflow: "visible" };
  const ariaLabel = figure.querySelector("h4, figcaption").textContent;
  const plot = Plot.plot({ width, height, style, ariaLabel, grid: true, marginRight: 16, marginLeft: 56, marginBottom: 42, ...options });
  plot.setAttribute("role", "img");
  figure.box.replaceChildren(plot);
}

const figures = [];
const redraw = () => figures.forEach(draw);

function addControls() {
  const boxes = [...document.querySelectorAll(".methods input[type=checkbox]")];
  const update = () => {
    boxes.forEach((box) => { box.checked = !chosen.hidden.has(box.value); });
    document.querySelectorAll("[data-method]").forEach((one) => { one.hidden = !printing.matches && chosen.hidden.has(one.dataset.method); });
    redraw();
  };
  const set = (box) => (box.checked ? chosen.hidden.delete(box.value) : chosen.hidden.add(box.value));
  boxes.forEach((box) => box.addEventListener("change", () => { set(box); update(); }));
  for (const button of document.querySelectorAll(".methods button")) {
    button.addEventListener("click", () => {
      const own = boxes.filter((box) => button.closest(".controls").contains(box));
      own.forEach((box) => { box.checked = button.value === "all"; set(box); });
      update();
    });
  }
  const radios = [...document.querySelectorAll(".axes input")];
  radios.forEach((radio) => radio.addEventListener("change", () => {
    chosen.axis = radio.value;
    radios.forEach((other) => { other.checked = other.value === chosen.axis; });
    redraw();
  }));
  printing.addEventListener("change", update);
}

for (const script of document.querySelectorAll("script.charts")) {
  const section = { data: JSON.parse(script.textContent) };
  for (const figure of script.closest("section").querySelectorAll("figure.chart")) {
    figures.push(Object.assign(figure, { section, box: figure.querySelector(".plot") }));
  }
}
addControls();
const widths = new ResizeObserver((entries) => entries.forEach((entry) => {
  const figure = entry.target.closest("figure");
  if (figure.drawn === entry.target.clientWidth) return;
  figure.drawn = entry.target.clientWidth;
  draw(figure);
}));
figures.forEach((figure) => widths.observe(figure.box));
