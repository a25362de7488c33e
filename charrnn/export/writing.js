// From logits to text: the alphabet, the random numbers, the filters. The rules, their order and the
// numbers are those of charrnn/vocab.py, charrnn/rng.py and charrnn/sampling/, so that a seed writes
// the same text here and there.

const UNK = 0;
const EOS = 1;
const FIRST = 2; // the id of the first character

// Random numbers: SplitMix64, a counter passed through a mixing function.

const WORD = (1n << 64n) - 1n;
const GAMMA = 0x9e3779b97f4a7c15n;

function mix(z) {
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & WORD;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & WORD;
  return z ^ (z >> 31n);
}

/** Return the start of the counter of sample `index` of a seed (a BigInt of any size). */
function streamKey(seed, index) {
  let key = 0n;
  do {
    key = (mix(key ^ (seed & WORD)) + GAMMA) & WORD;
    seed >>= 64n;
  } while (seed !== 0n && seed !== -1n);
  return mix((key + BigInt(index) * GAMMA) & WORD);
}

/** Return number `position` of a stream, in [0, 1). */
function uniform(key, position) {
  return Number(mix((key + (BigInt(position) + 1n) * GAMMA) & WORD) >> 11n) * 2 ** -53;
}

// The alphabet.

class Alphabet {
  /**
   * @param record {unit, characters}; a byte is written as the character of its number
   * @param form Unicode form of the texts that the model has read: none, nfc, nfkc
   */
  constructor(record, form) {
    this.form = form === "none" ? null : form.toUpperCase();
    this.bytes = record.unit === "byte";
    this.characters = Array.from(record.characters);
    this.ids = new Map(this.characters.map((c, k) => [c, k + FIRST]));
    this.size = this.characters.length + FIRST;
  }

  /** Return what a text is read as: one {id, text} for each id; UNK for what is not in it. */
  encode(text) {
    if (this.form) text = text.normalize(this.form);
    if (!this.bytes) return Array.from(text, (c) => ({ id: this.ids.get(c) ?? UNK, text: c }));
    const encoder = new TextEncoder();
    return Array.from(text, (c) => Array.from(encoder.encode(c), (byte, k) =>
      ({ id: byte + FIRST, text: k ? "" : c }))).flat();
  }

  /** Return whether an id is only a part of a character. */
  isPart(id) {
    return this.bytes && id - FIRST >= 0x80;
  }

  /** Return the name of an id. */
  label(id) {
    if (id === EOS) return "the end";
    if (id === UNK) return "unknown";
    const c = this.characters[id - FIRST];
    if (this.isPart(id)) return `byte ${(id - FIRST).toString(16).toUpperCase()}`;
    return { "\n": "line end", " ": "space", "\t": "tab" }[c] ?? visible(c);
  }

  decoder() {
    return this.bytes ? new ByteDecoder() : new Decoder(this.characters);
  }
}

/** Show a character that has no picture of its own, or that would change how others stand. */
function visible(c) {
  return /^[\p{C}\p{Z}]$/u.test(c) && c !== " "
    ? `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}` : c;
}

class Decoder {
  constructor(characters) {
    this.characters = characters;
  }

  /** Return the text that an id completes. */
  feed(id) {
    return this.characters[id - FIRST];
  }

  allows() {
    return true;
  }
}

/** UTF-8 byte by byte, with the bytes that may follow (RFC 3629). */
class ByteDecoder {
  constructor() {
    this.open = [];
  }

  feed(id) {
    this.open.push(id - FIRST);
    const [first] = this.open;
    const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (this.open.length < length) return "";
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(this.open));
    this.open = [];
    return text;
  }

  allows(id) {
    if (this.open.length === 0) {
      const byte = id - FIRST;
      return id === EOS || byte < 0x80 || (byte >= 0xc2 && byte < 0xf5);
    }
    const least = { 0xe0: 0xa0, 0xf0: 0x90 };
    const most = { 0xed: 0x9f, 0xf4: 0x8f };
    const isSecond = this.open.length === 1;
    const low = (isSecond && least[this.open[0]]) || 0x80;
    const high = (isSecond && most[this.open[0]]) || 0xbf;
    return id !== EOS && id - FIRST >= low && id - FIRST <= high;
  }
}

// The next character.

/** Sort ids by falling logit; of equal ones the lower id first. */
const ranked = (p) => Array.from(p.keys()).sort((a, b) => p[b] - p[a] || a - b);

/** Keep the k largest. */
function topK(p, k) {
  if (k <= 0 || k >= p.length) return;
  for (const id of ranked(p).slice(k)) p[id] = -Infinity;
}

/** Keep the fewest most probable ids whose probabilities sum to at least q. */
function topP(p, q) {
  if (q >= 1) return;
  const top = p.reduce((a, b) => Math.max(a, b));
  const total = p.reduce((sum, a) => sum + Math.exp(a - top), 0);
  let before = 0;
  for (const [place, id] of ranked(p).entries()) {
    const share = Math.exp(p[id] - top) / total;
    if (place > 0 && before >= q) p[id] = -Infinity;
    before += share;
  }
}

/** Keep the ids at least q times as probable as the most probable one. */
function minP(p, q) {
  if (q <= 0) return;
  const least = p.reduce((a, b) => Math.max(a, b)) + Math.log(q);
  for (let id = 0; id < p.length; id++) if (p[id] < least) p[id] = -Infinity;
}

const LEAST = 1e-200; // a lower temperature draws what this one does

/** Return the next id. Forbidden ids, temperature, top-k, top-p, min-p, one uniform number. */
function pick(logits, decoder, settings, number) {
  const p = Float64Array.from(logits);
  p[UNK] = -Infinity;
  for (let id = EOS; id < p.length; id++) if (!decoder.allows(id)) p[id] = -Infinity;
  const top = p.reduce((a, b) => Math.max(a, b));
  if (!Number.isFinite(top)) throw new Error("The model gives no probabilities: its weights overflow.");
  if (settings.temperature === 0) return p.indexOf(top);
  const divisor = Math.max(settings.temperature, LEAST);
  for (let id = 0; id < p.length; id++) p[id] = (p[id] - top) / divisor;
  topK(p, settings.topK);
  topP(p, settings.topP);
  minP(p, settings.minP);
  let sum = 0;
  for (let id = 0; id < p.length; id++) p[id] = sum += Math.exp(p[id]);
  const chosen = p.findIndex((cumulative) => cumulative > number * sum);
  return chosen >= 0 ? chosen : ranked(logits)[0];
}

/** Writes one text; `next` returns a character, or null at the end. */
class Writer {
  /**
   * @param network stands where the text begins
   * @param settings {temperature, topK, topP, minP, length, seed}
   * @param index which sample of the seed
   */
  constructor(network, alphabet, settings, index) {
    Object.assign(this, { network, alphabet, settings });
    this.decoder = alphabet.decoder();
    this.key = streamKey(BigInt(settings.seed), index);
    this.drawn = 0;
    this.written = 0;
    this.reason = null;
  }

  next() {
    while (this.reason === null) {
      const number = uniform(this.key, this.drawn++);
      const id = pick(this.network.logits, this.decoder, this.settings, number);
      if (id === EOS) {
        this.reason = "end";
        break;
      }
      this.network.step(id);
      const text = this.decoder.feed(id);
      if (text) {
        if (++this.written === this.settings.length) this.reason = "length";
        return text;
      }
    }
    return null;
  }
}

// Probabilities.

/** Return log-probabilities, in nats. */
function logSoftmax(logits) {
  const top = logits.reduce((a, b) => Math.max(a, b));
  const total = logits.reduce((sum, a) => sum + Math.exp(a - top), 0);
  return Float64Array.from(logits, (a) => a - top - Math.log(total));
}

/** Return how surprising an id is, its rank, and what was likeliest. */
function surprise(logits, id, alphabet, count) {
  const logp = logSoftmax(logits);
  return {
    bits: -logp[id] / Math.LN2,
    rank: 1 + logp.reduce((n, other) => n + (other > logp[id] ? 1 : 0), 0),
    expected: ranked(logp).slice(0, count).map((k) => [alphabet.label(k), Math.exp(logp[k])]),
  };
}
