// The worker: it owns the network, so that the page can always be used. It answers one request at a
// time, {number, task, …}, with messages that carry the same number; a new request, or {task: "stop"},
// ends the old one.

const SLICE_MS = 24; // text is sent, and messages are read, this often
const ALTERNATIVES = 5;

let network = null;
let alphabet = null;
let current = 0;
let place = null; // where the text that can be continued ends: {state, writer}
let proposals = []; // the state after each continuation that was offered

const channel = new MessageChannel();

/** Let messages in. A timer would wait for four milliseconds. */
const pause = () => new Promise((resolve) => {
  channel.port1.onmessage = resolve;
  channel.port2.postMessage(null);
});

/** Return the numbers of an array of the page. */
function unpack(entry, bytes) {
  const [begin, end] = entry.bytes;
  const raw = bytes.slice(begin, end);
  if (entry.dtype === "float32") return new Float32Array(raw.buffer);
  if (entry.dtype === "float16") return Float32Array.from(new Uint16Array(raw.buffer), fromHalf);
  const scales = new Float32Array(raw.buffer.slice(0, 4 * entry.rows)); // int8, a scale each row
  const columns = (raw.length - 4 * entry.rows) / entry.rows;
  const quantised = new Int8Array(raw.buffer, 4 * entry.rows);
  return Float32Array.from(quantised, (q, k) => q * scales[Math.floor(k / columns)]);
}

/** Return the number that 16 bits stand for (IEEE 754 binary16; models have no infinities). */
function fromHalf(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  return exponent === 0 ? sign * fraction * 2 ** -24
    : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function load({ model, weights }) {
  const text = atob(weights);
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  const arrays = Object.fromEntries(
    Object.entries(model.arrays).map(([name, entry]) => [name, unpack(entry, bytes)]));
  network = new Network(model.network, arrays);
  alphabet = new Alphabet(model.vocabulary, model.normalize);
}

/** Read a text, a slice at a time; return the characters that the alphabet lacks. */
async function read(text, isCurrent) {
  const strange = new Set();
  let due = performance.now() + SLICE_MS;
  for (const { id, text: c } of alphabet.encode(text)) {
    if (id === UNK) strange.add(visible(c));
    else network.step(id);
    if (performance.now() > due) {
      await pause();
      if (!isCurrent()) return [];
      due = performance.now() + SLICE_MS;
    }
  }
  return [...strange];
}

/** Write on until the text ends or another request comes. */
async function write(writer, isCurrent, send) {
  while (writer.reason === null && isCurrent()) {
    let text = "";
    const due = performance.now() + SLICE_MS;
    while (performance.now() < due) {
      const c = writer.next();
      if (c === null) break;
      text += c;
    }
    place = { writer, state: network.save() };
    send({ text, written: writer.written });
    await pause();
  }
}

const tasks = {
  /** A new text. */
  async write({ prompt, settings }, isCurrent, send) {
    network.begin();
    const strange = await read(prompt, isCurrent);
    if (!isCurrent()) return;
    send({ strange });
    const writer = new Writer(network, alphabet, settings, 0);
    await write(writer, isCurrent, send);
    send({ reason: writer.reason });
  },

  /** More of the text that was written last. */
  async more({ length }, isCurrent, send) {
    network.restore(place.state);
    const { writer } = place;
    writer.settings = { ...writer.settings, length: writer.written + length };
    writer.reason = null;
    await write(writer, isCurrent, send);
    send({ reason: writer.reason });
  },

  /** Several samples, each from its beginning. */
  async list({ prompt, settings, from, count }, isCurrent, send) {
    network.begin();
    const strange = await read(prompt, isCurrent);
    if (!isCurrent()) return;
    send({ strange });
    const start = network.save();
    for (let index = from; index < from + count && isCurrent(); index++) {
      network.restore(start);
      const writer = new Writer(network, alphabet, settings, index);
      send({ item: "" });
      await write(writer, isCurrent, send);
      send({ ended: writer.reason });
    }
  },

  /** Continuations of a text, for a reader to choose from. */
  async propose({ text, settings, from, count }, isCurrent, send) {
    network.begin();
    const strange = await read(text, isCurrent);
    if (!isCurrent()) return;
    const start = network.save();
    proposals = new Set();
    for (let tries = 0; proposals.size < count && tries < 4 * count && isCurrent(); tries++) {
      network.restore(start);
      const writer = new Writer(network, alphabet, settings, from + tries);
      let proposal = "";
      for (let c = writer.next(); c !== null; c = writer.next()) proposal += c;
      if (proposal) proposals.add(proposal);
      await pause();
    }
    send({ strange, proposals: [...proposals], next: from + 4 * count });
  },

  /**
   * How surprising each character of a text is, as the page's cards have it; with `ends` also its
   * end. A character of a byte model is of several bytes.
   */
  async score({ text, ends }, isCurrent, send) {
    network.begin();
    const events = [...alphabet.encode(text), ...(ends ? [{ id: EOS, text: "" }] : [])];
    let characters = [];
    let due = performance.now() + SLICE_MS;
    for (const { id, text: c } of events) {
      const { bits, rank, expected } = surprise(network.logits, id, alphabet, ALTERNATIVES);
      const label = alphabet.label(id);
      if (c || id === EOS) {
        if (performance.now() > due) { // none that more bytes may follow
          send({ characters });
          characters = [];
          await pause();
          if (!isCurrent()) return;
          due = performance.now() + SLICE_MS;
        }
        const name = id === UNK ? `${visible(c)} (unknown)`
          : alphabet.isPart(id) ? `${visible(c)} ${label}` : label;
        characters.push({ text: c, card: [name, bits, `${rank}`, expected] });
      } else {
        const { card } = characters.at(-1);
        card[0] += ` ${label}`;
        card[1] += bits;
        card[2] += `, ${rank}`;
      }
      if (id !== EOS) network.step(id);
    }
    send({ characters });
  },
};

onmessage = async ({ data }) => {
  if (data.task === "load") {
    load(data);
    postMessage({ ready: true });
    return;
  }
  if (data.task === "stop") {
    current = 0;
    return;
  }
  current = data.number;
  const isCurrent = () => current === data.number;
  const send = (answer) => postMessage({ number: data.number, ...answer });
  try {
    await tasks[data.task](data, isCurrent, send);
    send({ done: true });
  } catch (error) {
    send({ error: error.message });
  }
};
