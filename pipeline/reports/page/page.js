"use strict";
// The report's page: sortable table, before/after pictures, charts. It asks for nothing.

function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const given = [...body.rows];

  function sort(column) {
    const before = headings[column].getAttribute("aria-sort");
    const next = { none: "descending", descending: "ascending", ascending: "none" }[before];
    headings.forEach((heading) => heading.setAttribute("aria-sort", "none"));
    headings[column].setAttribute("aria-sort", next);
    const rows = next === "none" ? given : [...given].sort((a, b) => compare(a, b, column, next));
    body.append(...rows);
  }

  headings.forEach((heading, column) =>
    heading.querySelector("button").addEventListener("click", () => sort(column)));
}

// Rows without a value come last, whichever way the others are sorted.
function compare(a, b, column, direction) {
  const [x, y] = [a, b].map((row) => row.cells[column].dataset.value);
  if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
  const numbers = [x, y].map(Number);
  const ascending = numbers.some(Number.isNaN) ? x.localeCompare(y) : numbers[0] - numbers[1];
  return direction === "ascending" ? ascending : -ascending;
}

function comparable(figure) {
  const find = (selector) => figure.querySelector(selector);
  const stage = find(".stage"), divider = find(".divider");
  const [under, over] = [find(".under img"), find(".over img")];
  const layers = Object.fromEntries(
    [...figure.querySelectorAll("[data-layer]")].map((image) => [image.dataset.layer, image.src]));
  let split = 50, zoom = 1, x = 0, y = 0; // x, y: what is at the top left, in shares of the picture

  function show() {
    const room = 1 - 1 / zoom;
    x = Math.min(Math.max(x, 0), room);
    y = Math.min(Math.max(y, 0), room);
    stage.style.setProperty("--split", split);
    divider.setAttribute("aria-valuenow", Math.round(split));
    for (const image of [under, over]) {
      image.style.transform = `scale(${zoom}) translate(${-100 * x}%, ${-100 * y}%)`;
    }
    stage.classList.toggle("enlarged", zoom > 1);
    stage.tabIndex = zoom > 1 ? 0 : -1;
    stage.querySelector(".tag-left").hidden = split < 12;
    stage.querySelector(".tag-right").hidden = split > 88;
  }

  function choose() {
    const [left, right] = [find("select.left"), find("select.right")];
    under.src = layers[left.value];
    over.src = layers[right.value];
    find(".tag-left").textContent = left.selectedOptions[0].text;
    find(".tag-right").textContent = right.selectedOptions[0].text;
  }

  function divideAt(clientX) {
    const box = stage.getBoundingClientRect();
    split = Math.min(Math.max((100 * (clientX - box.left)) / box.width, 0), 100);
    show();
  }

  function enlarge(factor) {
    const [middleX, middleY] = [x + 0.5 / zoom, y + 0.5 / zoom];
    zoom = factor;
    [x, y] = [middleX - 0.5 / zoom, middleY - 0.5 / zoom];
    for (const button of figure.querySelectorAll("[data-zoom]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.zoom) === zoom));
    }
    show();
  }

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const dividing = event.target === divider || zoom === 1;
    let [lastX, lastY] = [event.clientX, event.clientY];
    const box = stage.getBoundingClientRect();
    stage.setPointerCapture(event.pointerId);
    if (dividing) divideAt(event.clientX);
    const move = (moved) => {
      if (dividing) return divideAt(moved.clientX);
      x -= (moved.clientX - lastX) / box.width / zoom;
      y -= (moved.clientY - lastY) / box.height / zoom;
      [lastX, lastY] = [moved.clientX, moved.clientY];
      show();
    };
    const end = () => {
      stage.removeEventListener("pointermove", move);
      stage.removeEventListener("pointerup", end);
      stage.removeEventListener("pointercancel", end);
    };
    stage.addEventListener("pointermove", move);
    stage.addEventListener("pointerup", end);
    stage.addEventListener("pointercancel", end);
  });

  divider.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 10 : 2;
    const next = { ArrowLeft: split - step, ArrowRight: split + step, Home: 0, End: 100 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    split = Math.min(Math.max(next, 0), 100);
    show();
  });

  stage.addEventListener("keydown", (event) => {
    const step = 0.1 / zoom;
    const move = {
      ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step],
    }[event.key];
    if (move === undefined || event.target !== stage) return;
    event.preventDefault();
    [x, y] = [x + move[0], y + move[1]];
    show();
  });

  for (const button of figure.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => enlarge(Number(button.dataset.zoom)));
  }
  for (const select of figure.querySelectorAll("select")) select.addEventListener("change", choose);
  find(".layers").hidden = true;
  find(".controls").hidden = stage.hidden = false;
  choose();
  show();
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const NARROWEST = 300, AXIS = 90, SETTLED_MS = 150;

function settings() {
  const [ink, faint, line] = ["--ink", "--faint", "--line"].map((name) =>
    getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return {
    background: "transparent",
    title: { color: ink },
    axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: faint, tickColor: faint },
    legend: { labelColor: ink, titleColor: ink },
    text: { color: ink },
  };
}

function merged(base, more) {
  const names = new Set([...Object.keys(base), ...Object.keys(more)]);
  return Object.fromEntries([...names].map((name) => {
    const nested = [base[name], more[name]].every((value) => value && typeof value === "object");
    return [name, nested ? merged(base[name], more[name]) : more[name] ?? base[name]];
  }));
}

// Draw a chart to fit its box: narrower where the window is, with the legend below.
function draw(place, given) {
  const spec = structuredClone(given);
  const room = place.parentElement.clientWidth;
  spec.config = merged(spec.config ?? {}, settings());
  delete spec.title; // it stands above the box
  if (typeof spec.width === "number" && room < spec.width + 200) {
    spec.config.legend = { ...spec.config.legend, orient: "bottom", columns: 1 };
    if (!place.dataset.fixed) spec.width = Math.max(NARROWEST - AXIS, room - 30);
    spec.autosize = { type: "fit-x", contains: "padding" };
  }
  return vegaEmbed(place, spec, { actions: false, renderer: "svg", ast: true, mode: "vega-lite" });
}

function drawable(place, given) {
  const details = place.closest("details");
  const save = details.querySelector(".save");
  save.href = place.querySelector("img").src;
  const look = () => `${place.parentElement.clientWidth} ${dark.matches}`;
  let drawing = false, shown = null, embedded = null, waiting;
  // One drawing at a time; what changed meanwhile is drawn after it.
  const again = async () => {
    if (drawing) return;
    drawing = true;
    while (details.open && shown !== look()) {
      shown = look();
      embedded?.finalize();
      embedded = await draw(place, given);
    }
    drawing = false;
  };
  details.addEventListener("toggle", again);
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(again, SETTLED_MS);
  });
  dark.addEventListener("change", again);
  again();
}

for (const table of document.querySelectorAll("#scores")) sortable(table);
for (const figure of document.querySelectorAll(".compare")) comparable(figure);
const others = document.querySelector("#others");
others?.addEventListener("change", () =>
  document.querySelector("#scores").classList.toggle("ours", !others.checked));
const specs = JSON.parse(document.querySelector("#specs")?.textContent ?? "{}");
for (const place of document.querySelectorAll("[data-chart]")) {
  drawable(place, specs[place.dataset.chart]);
}
