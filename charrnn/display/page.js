const rows = JSON.parse(document.getElementById("data").textContent);
const card = document.getElementById("card");
const said = document.getElementById("said");
const main = document.querySelector("main");
const spans = Array.from(document.querySelectorAll(".text span"));
const numbers = new Map(spans.map((span, k) => [span, k]));
let at = -1;
function make(tag, text, parent) {
  const element = document.createElement(tag);
  element.textContent = text;
  parent.appendChild(element);
  return element;
}
function odds(bits) {
  if (bits > 50) return "1 in 2^" + (bits < 1e6 ? Math.round(bits) : bits.toPrecision(3));
  const times = Math.pow(2, bits);
  return times >= 10 ? "1 in " + Math.round(times).toLocaleString("en")
    : (100 / times).toFixed(times >= 2 ? 0 : 1) + " %";
}
function percent(share) {
  return (100 * share).toFixed(share >= 0.1 ? 0 : 1) + "%";
}
function hide() {
  card.hidden = true;
  if (spans[at]) spans[at].classList.remove("at");
}
function place() {
  if (card.hidden) return;
  const box = card.getBoundingClientRect();
  const span = spans[at].getBoundingClientRect();
  if (span.bottom < 0 || span.top > innerHeight) { hide(); return; }
  const below = span.bottom + 8 + box.height;
  card.style.left = Math.max(8, Math.min(span.left, innerWidth - box.width - 8)) + "px";
  card.style.top = (below >= innerHeight ? span.top - box.height - 8 : span.bottom + 8) + "px";
}
function show(number) {
  hide();
  at = number;
  spans[at].classList.add("at");
  const [name, bits, rank, expected] = rows[at];
  const line = bits.toFixed(2) + " bits · " + odds(bits) + " · rank " + rank;
  card.replaceChildren();
  make("h2", name, card);
  make("p", line, card);
  for (const [other, share] of expected) {
    const row = make("div", "", card);
    row.className = "row";
    make("b", other, row);
    make("i", "", row).style.width = (100 * share) + "%";
    make("span", percent(share), row);
  }
  card.hidden = false;
  place();
  const others = expected.map(([other, share]) => other + " " + percent(share)).join(", ");
  return name + ": " + line + (others && "; expected: " + others);
}
function pointed(event) {
  const number = numbers.get(event.target);
  if (number === undefined) hide(); else show(number);
}
document.addEventListener("mouseover", pointed);
document.addEventListener("click", pointed);
document.addEventListener("scroll", place);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
document.querySelector("article").addEventListener("keydown", (event) => {
  const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -spans.length, End: spans.length };
  if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey || !spans.length) {
    return;
  }
  event.preventDefault();
  const number = Math.max(0, Math.min(at + steps[event.key], spans.length - 1));
  spans[number].scrollIntoView({ block: "nearest" });
  said.textContent = show(number);
});
for (const button of document.querySelectorAll(".switch button")) {
  button.addEventListener("click", () => {
    main.className = button.dataset.mode;
    document.querySelectorAll(".switch button").forEach(
      (other) => other.setAttribute("aria-pressed", String(other === button)));
  });
}
