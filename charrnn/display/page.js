const rows = JSON.parse(document.getElementById("data").textContent);
const card = document.getElementById("card");
const main = document.querySelector("main");
const spans = Array.from(document.querySelectorAll(".text span"));
const numbers = new Map(spans.map((span, k) => [span, k]));
function make(tag, text, parent) {
  const element = document.createElement(tag);
  element.textContent = text;
  parent.appendChild(element);
  return element;
}
function odds(bits) {
  const times = Math.pow(2, bits);
  return times >= 10 ? "1 in " + Math.round(times).toLocaleString("en")
    : (100 / times).toFixed(times >= 2 ? 0 : 1) + " %";
}
function show(event) {
  const number = numbers.get(event.target);
  if (number === undefined) { card.hidden = true; return; }
  const [name, bits, rank, expected] = rows[number];
  card.replaceChildren();
  make("h2", name, card);
  make("p", bits.toFixed(2) + " bits · " + odds(bits) + " · rank " + rank, card);
  for (const [other, share] of expected) {
    const row = make("div", "", card);
    row.className = "row";
    make("b", other, row);
    make("i", "", row).style.width = (100 * share) + "%";
    make("span", (100 * share).toFixed(share >= 0.1 ? 0 : 1) + "%", row);
  }
  card.hidden = false;
  const box = card.getBoundingClientRect();
  const at = event.target.getBoundingClientRect();
  const below = at.bottom + 8 + box.height;
  card.style.left = Math.max(8, Math.min(at.left, innerWidth - box.width - 8)) + "px";
  card.style.top = (below >= innerHeight ? at.top - box.height - 8 : at.bottom + 8) + "px";
}
document.addEventListener("mouseover", show);
document.addEventListener("click", show);
document.addEventListener("scroll", () => { card.hidden = true; });
for (const button of document.querySelectorAll(".switch button")) {
  button.addEventListener("click", () => {
    main.className = button.dataset.mode;
    document.querySelectorAll(".switch button").forEach(
      (other) => other.classList.toggle("on", other === button));
  });
}
