// Texts coloured by surprise: the card of a character that is pointed at, tapped, or reached with the
// arrow keys.

const LEVELS_PER_BIT = 2;
const TOP_BITS = 14;
const LARGEST = 50; // bits of odds that are written out

function make(tag, text, parent) {
  const element = document.createElement(tag);
  element.textContent = text;
  parent.append(element);
  return element;
}

/** Say how probable something of so many bits is. */
function odds(bits) {
  if (bits > LARGEST) return `1 in 2^${bits < 1e6 ? Math.round(bits) : bits.toPrecision(3)}`;
  const times = 2 ** bits;
  return times >= 10 ? `1 in ${Math.round(times).toLocaleString("en")}`
    : `${(100 / times).toFixed(times >= 2 ? 0 : 1)} %`;
}

const percent = (share) => `${(100 * share).toFixed(share >= 0.1 ? 0 : 1)}%`;

/**
 * Show cards for the characters of a text.
 *
 * @param heat the text
 * @param spans its characters, in their order; each knows its `number`; more may come
 * @param rowOf returns [name, bits, rank, expected] of the character of a number
 */
function showCards(heat, spans, rowOf) {
  const card = document.getElementById("card");
  const said = document.getElementById("said");
  let at = -1;

  function hide() {
    card.hidden = true;
    spans[at]?.classList.remove("at");
  }

  function place() {
    if (card.hidden) return;
    const [box, span] = [card.getBoundingClientRect(), spans[at].getBoundingClientRect()];
    if (span.bottom < 0 || span.top > innerHeight) {
      hide();
      return;
    }
    const isBelow = span.bottom + 8 + box.height < innerHeight;
    card.style.left = `${Math.max(8, Math.min(span.left, innerWidth - box.width - 8))}px`;
    card.style.top = `${isBelow ? span.bottom + 8 : span.top - box.height - 8}px`;
  }

  /** Show the card of a character and return it in words. */
  function show(number) {
    hide();
    at = number;
    spans[at].classList.add("at");
    const [name, bits, rank, expected] = rowOf(at);
    const line = `${bits.toFixed(2)} bits · ${odds(bits)} · rank ${rank}`;
    card.replaceChildren();
    make("h2", name, card);
    make("p", line, card);
    for (const [other, share] of expected) {
      const row = make("div", "", card);
      row.className = "row";
      make("b", other, row);
      make("i", "", row).style.width = `${100 * share}%`;
      make("span", percent(share), row);
    }
    card.hidden = false;
    place();
    const others = expected.map(([other, share]) => `${other} ${percent(share)}`).join(", ");
    return `${name}: ${line}${others && `; expected: ${others}`}`;
  }

  function pointed(event) {
    const span = event.target instanceof Element ? event.target.closest("span") : null;
    if (span?.number === undefined || !heat.contains(span)) hide();
    else show(span.number);
  }

  heat.tabIndex = 0;
  document.addEventListener("mouseover", pointed);
  document.addEventListener("click", pointed);
  document.addEventListener("scroll", place, { passive: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
  heat.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -spans.length, End: spans.length };
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey || !spans.length) {
      return;
    }
    event.preventDefault();
    const number = Math.max(0, Math.min(at + steps[event.key], spans.length - 1));
    spans[number].scrollIntoView({ block: "nearest" });
    said.textContent = show(number);
  });
}

const levelOf = (bits) => `l${Math.round(Math.min(bits, TOP_BITS) * LEVELS_PER_BIT)}`;

/** Add a character to a text, or its end, which has no text, in the colour of its surprise. */
function heatSpan(parent, text, bits) {
  const mark = text === "" ? "∎" : { "\n": "↵", "\t": "→" }[text];
  const span = make("span", mark ?? text, parent);
  span.className = levelOf(bits) + (mark ? " mark" : "");
  if (text === "\n" || text === "\t") parent.append(text);
  return span;
}
