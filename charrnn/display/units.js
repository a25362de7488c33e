// A text coloured by one unit of a network, and the steps from unit to unit.

const page = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const article = document.querySelector("article");
const spans = Array.from(document.querySelectorAll(".text span"));
spans.forEach((span, number) => { span.number = number; });
const values = page.signals.map(
  (one) => Int8Array.from(atob(one.levels), (c) => (c.charCodeAt(0) << 24) >> 24));
const STEPS = 10;
const TOP = 127;
const state = { ...page.start };
let shown = [];
let at = -1;

/** Return the levels of the unit that is chosen, or their mean over all units, from -1 to 1. */
function levels() {
  const [n, all] = [spans.length, values[state.signal]];
  const first = (state.member * page.layers + state.layer) * page.units;
  if (state.unit !== null) {
    const begin = (first + state.unit) * n;
    return Array.from(all.subarray(begin, begin + n), (v) => v / TOP);
  }
  const sums = new Float64Array(n);
  for (let unit = 0; unit < page.units; unit += 1) {
    for (let k = 0; k < n; k += 1) sums[k] += all[(first + unit) * n + k];
  }
  return Array.from(sums, (sum) => sum / TOP / page.units);
}

/** Write a level as a value: of a gate from 0 to 1. */
const number = (level) => (page.signals[state.signal].is_gate ? (level + 1) / 2 : level)
  .toFixed(2).replace("-", "−");

function name() {
  const parts = [state.unit === null ? "mean of all units" : `unit ${state.unit}`];
  if (page.layers > 1) parts.push(`layer ${state.layer}`);
  if (page.members > 1) parts.push(`member ${state.member}`);
  return `${page.signals[state.signal].name}, ${parts.join(", ")}`;
}

function show() {
  shown = levels();
  spans.forEach((span, k) => {
    const mark = span.classList.contains("mark") ? " mark" : "";
    span.className = `d${Math.round(shown[k] * STEPS) + STEPS}${mark}${k === at ? " at" : ""}`;
  });
  find("signal").value = state.signal;
  find("member").value = state.member;
  find("layer").value = state.layer;
  find("unit").value = state.unit ?? "";
  find("mean").setAttribute("aria-pressed", String(state.unit === null));
  const range = `from ${number(Math.min(...shown))} to ${number(Math.max(...shown))}`;
  ["low", "middle", "high"].forEach((id, k) => { find(id).textContent = number(k - 1); });
  find("readout").textContent = `${name()}: ${range}`;
  find("said").textContent = `${name()}: ${range}`;
  document.querySelectorAll(".found button").forEach((button) => {
    const one = page.found[button.dataset.number];
    button.setAttribute("aria-pressed", String(state.signal === 0 && state.unit === one.unit
      && state.layer === one.layer && state.member === one.member));
  });
}

/** Go to another unit of all layers and members, around their ends. */
function step(by) {
  const all = page.members * page.layers * page.units;
  const flat = (state.member * page.layers + state.layer) * page.units + (state.unit ?? 0);
  const next = state.unit === null ? flat : (flat + by + all) % all;
  state.unit = next % page.units;
  state.layer = Math.floor(next / page.units) % page.layers;
  state.member = Math.floor(next / page.units / page.layers);
  show();
}

/** Say the value at a character, and mark it. */
function point(k) {
  spans[at]?.classList.remove("at");
  at = k;
  if (at < 0) return;
  spans[at].classList.add("at");
  const line = `${page.names[at]}: ${number(shown[at])}`;
  find("readout").textContent = `${name()} · after ${line}`;
  return line;
}

for (const key of ["signal", "member", "layer"]) {
  find(key).addEventListener("change", (event) => {
    state[key] = Number(event.target.value);
    show();
  });
}
find("unit").addEventListener("input", (event) => {
  const unit = Number(event.target.value);
  if (event.target.value !== "" && Number.isInteger(unit) && unit >= 0 && unit < page.units) {
    state.unit = unit;
    show();
  }
});
find("previous").addEventListener("click", () => step(-1));
find("next").addEventListener("click", () => step(1));
find("mean").addEventListener("click", () => {
  state.unit = state.unit === null ? 0 : null;
  show();
});
document.querySelectorAll(".found button").forEach((button) => {
  button.addEventListener("click", () => {
    Object.assign(state, page.found[button.dataset.number], { signal: 0 });
    show();
  });
});
for (const kind of ["mouseover", "click"]) {
  article.addEventListener(kind, (event) => {
    const span = event.target.closest("span");
    if (span?.number !== undefined) point(span.number);
  });
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const isText = article.contains(event.target);
  const isField = event.target.matches("input, select");
  const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -spans.length, End: spans.length };
  if (isField || !(event.key in steps)) return;
  if (isText) {
    event.preventDefault();
    const k = Math.max(0, Math.min(at + steps[event.key], spans.length - 1));
    spans[k].scrollIntoView({ block: "nearest" });
    find("said").textContent = point(k);
  } else if (event.key.startsWith("Arrow")) {
    event.preventDefault();
    step(steps[event.key]);
  }
});
show();
