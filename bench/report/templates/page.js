// The page itself: light and dark, tables that can be sorted, and what is shown in print.
"use strict";

const printing = matchMedia("print");

function addTheme() {
  const button = document.querySelector("#theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const say = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    say();
  });
  dark.addEventListener("change", say);
  say();
}

const NUMBER = /^[<>≥≤~]?\s*([+−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)\s*(k|M|G)?(?![\w])/i;
const UNITS = { k: 1e3, M: 1e6, G: 1e9 };

// The number that a cell's text begins with ("+0.051 ± 0.011", "2.9k", "<0.001"), or null.
function numberIn(text) {
  const found = NUMBER.exec(text);
  if (!found) return null;
  return Number(found[1].replaceAll(",", "").replace("−", "-")) * (UNITS[found[2]] ?? 1);
}

function textOf(row, column) {
  return row.cells[column].textContent.trim();
}

// Rows by their cells in a column; a column of numbers by value. What is not there ("–") comes last.
function sorted(rows, column, direction) {
  const there = rows.filter((row) => !["", "–"].includes(textOf(row, column)));
  const numeric = there.every((row) => numberIn(textOf(row, column)) !== null);
  const order = (a, b) => numeric
    ? numberIn(textOf(a, column)) - numberIn(textOf(b, column))
    : textOf(a, column).localeCompare(textOf(b, column), "en", { numeric: true });
  const sign = direction === "ascending" ? 1 : -1;
  return [...there.sort((a, b) => sign * order(a, b)), ...rows.filter((row) => !there.includes(row))];
}

// What a click on a header leads to: the best first for numbers, A first for texts, then the other way, then back.
function nextDirection(now, numeric) {
  const order = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
  return { [order[0]]: order[1], [order[1]]: "none" }[now] ?? order[0];
}

// Tables of one group show the same rows: all of them take the order of the one that is sorted.
function sortBy(header, tables) {
  const table = header.closest("table");
  const rows = [...table.tBodies[0].rows];
  const original = [...rows].sort((a, b) => a.dataset.row - b.dataset.row);
  const shown = rows.map((row) => textOf(row, header.cellIndex)).filter((text) => !["", "–"].includes(text));
  const numeric = shown.every((text) => numberIn(text) !== null);
  const direction = nextDirection(header.getAttribute("aria-sort"), numeric);
  const order = direction === "none" ? original : sorted(original, header.cellIndex, direction);
  const places = order.map((row) => row.dataset.row);
  for (const one of tables) {
    one.querySelectorAll("th[aria-sort]").forEach((th) => th.setAttribute("aria-sort", "none"));
    const byPlace = new Map([...one.tBodies[0].rows].map((row) => [row.dataset.row, row]));
    one.tBodies[0].append(...places.map((place) => byPlace.get(place)));
  }
  header.setAttribute("aria-sort", direction);
}

function addSorting() {
  const all = [...document.querySelectorAll("table")].filter((table) => table.tHead && table.tBodies[0].rows.length > 1);
  for (const table of all) {
    [...table.tBodies[0].rows].forEach((row, place) => { row.dataset.row = place; });
    const group = table.dataset.group;
    const together = () => (group ? all.filter((other) => other.dataset.group === group) : [table]);
    for (const header of table.tHead.rows[table.tHead.rows.length - 1].cells) {
      if (!header.textContent.trim()) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sortBy(header, together()));
    }
  }
}

// Boxes that scroll are reached with the keyboard.
function addScrolling() {
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
}

// In print everything is unfolded; afterwards it is as it was.
function addPrinting() {
  let opened = [];
  printing.addEventListener("change", () => {
    if (printing.matches) opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((details) => { details.open = printing.matches; });
  });
}

addTheme();
addSorting();
addScrolling();
addPrinting();
