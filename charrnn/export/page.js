// The page: what its controls do. The network lives in a worker.

const find = (id) => document.getElementById(id);
const model = JSON.parse(find("model").textContent);
const TABS = ["write", "list", "together", "score"];
const PROPOSAL = 80; // characters of a continuation
const CHOICES = 3;

// talking to the worker

let asked = 0;
let note = ""; // about the present request; it stays beside what else is said
let answer = () => {};
const source = new Blob([find("worker").textContent], { type: "text/javascript" });
const worker = new Worker(URL.createObjectURL(source));

/** Ask the worker for something; `onAnswer` gets each of its messages until the next request. */
function ask(task, request, onAnswer) {
  answer = onAnswer;
  note = "";
  worker.postMessage({ number: ++asked, task, ...request });
}

worker.onmessage = ({ data }) => {
  if (data.ready) begin();
  else if (data.number !== asked) return;
  else if (data.error) {
    say(data.error);
    rest();
  } else answer(data);
};
worker.onerror = (event) => say(`This browser cannot run the model: ${event.message}`);

// what all tabs share

function say(text) {
  find("status").textContent = `${note} ${text}`.trim();
}

const enable = (ids, isOn = true) => ids.forEach((id) => { find(id).disabled = !isOn; });

/** Return the settings, or null after saying which is wrong. */
function settings() {
  for (const input of find("settings").querySelectorAll("input")) {
    if (input.checkValidity()) continue;
    input.closest("details")?.setAttribute("open", "");
    input.reportValidity();
    return null;
  }
  const value = (id) => Number(find(id).value);
  return {
    temperature: value("temperature"), topK: value("topK"), topP: value("topP"),
    minP: value("minP"), length: value("length"), seed: find("seed").value,
  };
}

let lastSeed = null; // of the text before, unless it was typed again

/** A new text has a new seed, unless one was typed or is to be kept. */
function renewSeed() {
  const [seed, keep] = [find("seed"), find("keep")];
  if (seed.value === lastSeed && !keep.checked) {
    seed.value = crypto.getRandomValues(new Uint32Array(1))[0];
  }
  lastSeed = seed.value;
}
find("seed").addEventListener("input", () => { lastSeed = null; });

function tellStrange(strange) {
  if (strange?.length) {
    note = `The model has never seen ${strange.join(" ")}: left out.`;
    say("Writing …");
  }
}

const REASONS = {
  end: "The model ended the text.",
  length: "The length is reached.",
};

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page from a file may not be allowed to
    const area = make("textarea", text, document.body);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say("Copied.");
}

function save(text) {
  const link = make("a", "", document.body);
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  link.download = "text.txt";
  link.click();
  URL.revokeObjectURL(link.href);
  link.remove();
}

function busy(isBusy) {
  enable(["start", "ten", "ask", "measure"], !isBusy);
  enable(["stop", "stop-list"], isBusy);
}

/** Nothing is being done. */
function rest() {
  busy(false);
  const [text, items, draft] = [find("text"), find("items"), find("draft")];
  enable(["copy", "save"], text.textContent !== "");
  enable(["more"], text.dataset.open === "yes");
  enable(["copy-list", "save-list", "ten-more"], items.children.length > 0);
  enable(["copy-draft", "save-draft"], draft.value !== "");
}

/** What was written until then is still on its way. */
function stop() {
  worker.postMessage({ task: "stop" });
  say("Stopped.");
}

/** The request has been answered, or was stopped. */
function finish() {
  if (find("status").textContent.endsWith(" …")) say("");
  rest();
}

function show(name) {
  for (const tab of TABS) {
    const isShown = tab === name;
    find(tab).hidden = !isShown;
    find(`tab-${tab}`).setAttribute("aria-selected", isShown);
    find(`tab-${tab}`).tabIndex = isShown ? 0 : -1;
  }
  find("settings").hidden = name === "score";
}

function begin() {
  say("");
  enable(["settings"]);
  rest();
  for (const tab of TABS) find(`tab-${tab}`).addEventListener("click", () => show(tab));
}

document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const at = TABS.findIndex((tab) => find(`tab-${tab}`) === document.activeElement);
  if (!step || at < 0) return;
  const next = TABS[(at + step + TABS.length) % TABS.length];
  show(next);
  find(`tab-${next}`).focus();
});

find("temperature").addEventListener("input", ({ target }) => {
  target.nextElementSibling.textContent = Number(target.value).toFixed(2).replace(/0$/, "");
});

// a text

function following(paper) {
  const { scrollTop, clientHeight, scrollHeight } = paper;
  return scrollTop + clientHeight > scrollHeight - 40;
}

function append(paper, text, parent = paper) {
  const atEnd = following(paper);
  parent.append(text);
  if (atEnd) paper.scrollTop = paper.scrollHeight;
}

function onText(data) {
  const paper = find("text");
  tellStrange(data.strange);
  if (data.text) {
    append(paper, data.text);
    paper.dataset.open = "yes";
  }
  if (data.reason) {
    say(REASONS[data.reason]);
    paper.dataset.open = data.reason === "end" ? "no" : "yes";
  }
  if (data.done) finish();
}

find("start").addEventListener("click", () => {
  renewSeed();
  const chosen = settings();
  if (!chosen) return;
  const [paper, prompt] = [find("text"), find("prompt").value];
  paper.replaceChildren();
  make("b", prompt, paper);
  paper.dataset.open = "no";
  say("Writing …");
  busy(true);
  enable(["more"], false);
  ask("write", { prompt, settings: chosen }, onText);
});
find("more").addEventListener("click", () => {
  const chosen = settings();
  if (!chosen) return;
  say("Writing …");
  busy(true);
  enable(["more"], false);
  ask("more", { length: chosen.length }, onText);
});
find("stop").addEventListener("click", stop);
find("copy").addEventListener("click", () => copy(find("text").textContent));
find("save").addEventListener("click", () => save(`${find("text").textContent}\n`));

// a list

const itemTexts = () => Array.from(find("items").children, (item) => item.textContent);

function tenMore(from) {
  if (from === 0) renewSeed();
  const chosen = settings();
  if (!chosen) return;
  const [list, prompt] = [find("items"), find("beginnings").value];
  if (from === 0) list.replaceChildren();
  busy(true);
  enable(["ten-more"], false);
  say("Writing …");
  ask("list", { prompt, settings: chosen, from, count: 10 }, (data) => {
    tellStrange(data.strange);
    if ("item" in data) make("b", prompt, make("li", "", list));
    if (data.text) append(list, data.text, list.lastElementChild);
    if (data.ended === "length") list.lastElementChild.append("…");
    if (data.done) finish();
  });
}

find("ten").addEventListener("click", () => tenMore(0));
find("ten-more").addEventListener("click", () => tenMore(find("items").children.length));
find("stop-list").addEventListener("click", stop);
find("copy-list").addEventListener("click", () => copy(itemTexts().join("\n")));
find("save-list").addEventListener("click", () => save(`${itemTexts().join("\n")}\n`));

// writing together

const history = [];
let turn = 0;

function propose() {
  const chosen = settings();
  if (!chosen) return;
  const draft = find("draft");
  busy(true);
  say("Thinking …");
  const request = { text: draft.value, from: turn, count: CHOICES };
  ask("propose", { ...request, settings: { ...chosen, length: PROPOSAL } }, (data) => {
    tellStrange(data.strange);
    if (data.proposals) {
      turn = data.next;
      say(data.proposals.length ? "" : "The model would end here.");
      offer(data.proposals);
    }
    if (data.done) finish();
  });
}

function offer(proposals) {
  const choices = find("choices");
  choices.replaceChildren();
  for (const proposal of proposals) {
    const button = make("button", proposal, choices);
    button.type = "button";
    button.addEventListener("click", () => {
      history.push(find("draft").value);
      enable(["undo"]);
      find("draft").value += proposal;
      propose();
    });
  }
}

find("ask").addEventListener("click", propose);
find("draft").addEventListener("input", rest);
find("undo").addEventListener("click", () => {
  find("draft").value = history.pop();
  enable(["undo"], history.length > 0);
  find("choices").replaceChildren();
});
find("copy-draft").addEventListener("click", () => copy(find("draft").value));
find("save-draft").addEventListener("click", () => save(`${find("draft").value}\n`));

// scores

const rows = []; // [name, bits, ranks, expected] of each character, and of the end
const spans = [];

function showCharacter({ text, card }) {
  rows.push(card);
  const span = heatSpan(find("heat"), text, card[1]);
  span.number = spans.length;
  spans.push(span);
}

function showFigures() {
  const bits = rows.reduce((sum, row) => sum + row[1], 0);
  const mean = bits / rows.length;
  const per = model.documents ? "per character or end" : "per character";
  find("figures").textContent = rows.length === 0 ? "There is nothing to score."
    : `${mean.toFixed(3)} bits ${per}, perplexity ${(2 ** mean).toFixed(2)}, `
      + `${bits.toFixed(1)} bits in all`;
}

/** Score texts one after the other, each in a line of its own. */
function scoreAll([text, ...others]) {
  ask("score", { text, ends: model.documents }, (data) => {
    data.characters?.forEach(showCharacter);
    if (!data.done) return;
    if (others.length) {
      find("heat").append("\n");
      scoreAll(others);
      return;
    }
    showFigures();
    finish();
  });
}

find("measure").addEventListener("click", () => {
  find("heat").replaceChildren();
  rows.length = spans.length = 0;
  find("figures").textContent = "";
  find("legend").hidden = false;
  busy(true);
  say("Scoring …");
  const given = find("given").value;
  scoreAll(model.lines ? given.replace(/\n$/, "").split("\n") : [given]);
});
showCards(find("heat"), spans, (number) => rows[number]);

show(model.documents ? "list" : "write");
worker.postMessage({ task: "load", model, weights: find("weights").textContent });
