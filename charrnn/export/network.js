// The network: ids in, logits out. The equations are those of charrnn/engine/cells.py.
//
// Shapes: M ensemble members, L layers, H hidden units, G gates, V ids. Every vector is padded with
// zeros to a multiple of four numbers, because the kernel works on four.

const padded = (n) => Math.ceil(n / 4) * 4;
const GATES = { lstm: 4, "peephole-lstm": 4, gru: 3, "gru-simple": 2, rnn: 1 };

/**
 * One memory for all arrays. The size is known before: to grow it would end the views on it.
 */
class Memory {
  constructor(floats) {
    this.memory = new WebAssembly.Memory({ initial: Math.ceil((4 * floats) / 65536) + 1 });
    this.used = 0;
  }

  /** Return a view of n floats, zeros, that begins at a multiple of sixteen bytes. */
  take(n) {
    const view = new Float32Array(this.memory.buffer, this.used, padded(n));
    this.used += 4 * padded(n);
    return view;
  }
}

/** A model of M networks; `step` reads an id and leaves the logits of the next in `logits`. */
class Network {
  /**
   * @param config {cell, nonlinearity, layers, hidden, members, vocab}
   * @param arrays name -> Float32Array, members first, as in the model file
   */
  constructor(config, arrays) {
    Object.assign(this, config);
    this.arrays = arrays;
    this.gates = GATES[this.cell];
    this.width = padded(this.hidden);
    const { members, layers, width, gates } = this;
    const rows = gates * width;
    const inner = layers - 1;
    const memory = new Memory(
      members * layers * rows * width + members * inner * rows * width +
      padded(this.vocab) * members * width + members * layers * (2 * width + 4 * rows) +
      padded(this.vocab) * 2 + members * width + 64);
    this.kernel = makeKernel(memory.memory);
    this.cells = Array.from({ length: members }, (_, m) =>
      Array.from({ length: layers }, (_, k) => this.makeCell(memory, m, k)));
    this.output = this.makeOutput(memory);
    this.tables = Array.from({ length: members }, () => new Map());
    this.logits = new Float32Array(this.vocab);
  }

  /** Return one member's share of an array. */
  member(name, m) {
    const array = this.arrays[name];
    const size = array.length / this.members;
    return array.subarray(m * size, (m + 1) * size);
  }

  /**
   * Copy gate rows [G·H, n] into a padded matrix at a column. The sigmoid is computed as
   * ½ tanh(½ a) + ½; the ½ inside is multiplied into the rows of the gates.
   */
  copyGates(matrix, stride, column, array, n) {
    for (let row = 0; row < this.gates * this.hidden; row++) {
      const [gate, unit] = [Math.floor(row / this.hidden), row % this.hidden];
      const factor = this.isSigmoid(gate) ? 0.5 : 1;
      const at = (gate * this.width + unit) * stride + column;
      for (let i = 0; i < n; i++) matrix[at + i] = factor * array[row * n + i];
    }
  }

  /** Gates in the order of the file: i, f, g, o of the LSTMs; r, z, n of the GRU, z, n without r. */
  isSigmoid(gate) {
    if (this.gates === 4) return gate !== 2;
    return this.cell !== "rnn" && gate < this.gates - 1;
  }

  /** Peepholes [3H] of i, f, o in three padded vectors, with the ½ of their gates. */
  copyPeepholes(m, k) {
    const array = this.member(`layers.${k}.peephole`, m);
    return [0, 1, 2].map((gate) => {
      const vector = new Float32Array(this.width);
      for (let i = 0; i < this.hidden; i++) vector[i] = 0.5 * array[gate * this.hidden + i];
      return vector;
    });
  }

  makeCell(memory, m, k) {
    const { hidden, width, gates } = this;
    const rows = gates * width;
    const named = (name) => this.member(`layers.${k}.${name}`, m);
    const [outer, inner] = [memory.take(rows), memory.take(rows)];
    this.copyGates(outer, 1, 0, named("bias_ih"), 1);
    this.copyGates(inner, 1, 0, named("bias_hh"), 1);
    const apart = this.cell === "gru"; // its new gate keeps the two products apart
    const input = k === 0 ? 0 : width;
    const columns = apart ? width : input + width;
    const recurrent = memory.take(rows * columns);
    this.copyGates(recurrent, columns, columns - width, named("weight_hh"), hidden);
    let projection = null;
    if (k > 0) {
      projection = apart ? memory.take(rows * width) : recurrent;
      this.copyGates(projection, apart ? width : columns, 0, named("weight_ih"), hidden);
    }
    const xh = memory.take(input + width);
    return {
      outer, inner, recurrent, projection, columns, xh,
      x: xh.subarray(0, input),
      h: xh.subarray(input),
      c: new Float32Array(width),
      peepholes: this.cell === "peephole-lstm" ? this.copyPeepholes(m, k) : null,
      sums: memory.take(rows),
      inputs: memory.take(rows),
    };
  }

  /** The mean of the members' logits is one product with all their weights side by side. */
  makeOutput(memory) {
    const { members, width, hidden, vocab } = this;
    const stride = members * width;
    const [weight, h, y] = [
      memory.take(padded(vocab) * stride), memory.take(stride), memory.take(vocab)];
    const bias = new Float64Array(vocab);
    for (let m = 0; m < members; m++) {
      const [w, b] = [this.member("output.weight", m), this.member("output.bias", m)];
      for (let id = 0; id < vocab; id++) {
        bias[id] += b[id] / members;
        for (let i = 0; i < hidden; i++) {
          weight[id * stride + m * width + i] = w[id * hidden + i] / members;
        }
      }
    }
    return { weight, h, y, bias, stride };
  }

  /** Return the first layer's W x of an id, which depends on nothing else. */
  firstInput(m, id) {
    const table = this.tables[m];
    if (!table.has(id)) table.set(id, this.projectId(m, id));
    return table.get(id);
  }

  projectId(m, id) {
    const weight = this.member("layers.0.weight_ih", m);
    const n = weight.length / (this.gates * this.hidden);
    let column = null;
    if ("embedding.weight" in this.arrays) {
      const vector = this.member("embedding.weight", m).subarray(id * n, (id + 1) * n);
      column = (row) => vector.reduce((sum, e, i) => sum + e * weight[row * n + i], 0);
    } else {
      column = (row) => weight[row * n + id];
    }
    const products = Float32Array.from({ length: this.gates * this.hidden }, (_, row) => column(row));
    const result = new Float32Array(this.gates * this.width);
    this.copyGates(result, 1, 0, products, 1);
    return result;
  }

  /** Begin a text: EOS read from a zero state. */
  begin() {
    for (const cell of this.cells.flat()) {
      cell.xh.fill(0);
      cell.c.fill(0);
    }
    this.step(EOS);
  }

  /** Return a copy of the state and the logits; `restore` takes it. */
  save() {
    const cells = this.cells.flat();
    return {
      h: cells.map((cell) => cell.h.slice()),
      c: cells.map((cell) => cell.c.slice()),
      logits: this.logits.slice(),
    };
  }

  restore(saved) {
    this.cells.flat().forEach((cell, k) => {
      cell.h.set(saved.h[k]);
      cell.c.set(saved.c[k]);
    });
    this.logits.set(saved.logits);
  }

  step(id) {
    const { kernel, output, width, members, logits } = this;
    for (let m = 0; m < members; m++) {
      const cells = this.cells[m];
      this.advance(cells[0], this.firstInput(m, id));
      let below = cells[0].h;
      for (let k = 1; k < cells.length; k++) {
        cells[k].x.set(below);
        this.advance(cells[k], null);
        below = cells[k].h;
      }
      output.h.set(below, m * width);
    }
    kernel.product(output.weight.byteOffset, output.h.byteOffset, output.y.byteOffset,
      padded(this.vocab), 4 * output.stride);
    for (let id = 0; id < this.vocab; id++) logits[id] = output.y[id] + output.bias[id];
  }

  /** One step of one layer; z is the input product, or null where a matrix gives it. */
  advance(cell, z) {
    const rows = this.gates * this.width;
    this.kernel.product(cell.recurrent.byteOffset,
      (this.cell === "gru" ? cell.h : cell.xh).byteOffset,
      cell.sums.byteOffset, rows, 4 * cell.columns);
    if (this.cell === "gru") {
      if (z === null) {
        this.kernel.product(cell.projection.byteOffset, cell.x.byteOffset,
          cell.inputs.byteOffset, rows, 4 * this.width);
      } else {
        cell.inputs.set(z);
      }
      this.advanceGru(cell);
      return;
    }
    const { sums, outer, inner } = cell;
    for (let k = 0; k < rows; k++) sums[k] += outer[k] + inner[k];
    if (z !== null) for (let k = 0; k < rows; k++) sums[k] += z[k];
    if (this.cell === "lstm") this.advanceLstm(cell);
    else if (this.cell === "peephole-lstm") this.advancePeepholeLstm(cell);
    else if (this.cell === "gru-simple") this.advanceSimpleGru(cell);
    else this.advanceRnn(cell);
  }

  tanh(array) {
    this.kernel.tanh(array.byteOffset, array.byteOffset + array.byteLength);
  }

  /** c' = σ(f) c + σ(i) tanh(g); h' = σ(o) tanh(c'). */
  advanceLstm({ sums, inputs, h, c }) {
    const n = this.width;
    this.tanh(sums);
    for (let k = 0; k < n; k++) {
      c[k] = (0.5 * sums[n + k] + 0.5) * c[k] + (0.5 * sums[k] + 0.5) * sums[2 * n + k];
    }
    const squashed = inputs.subarray(0, n);
    squashed.set(c);
    this.tanh(squashed);
    for (let k = 0; k < n; k++) h[k] = (0.5 * sums[3 * n + k] + 0.5) * squashed[k];
  }

  /** The same, but i and f see c, and o sees c'. */
  advancePeepholeLstm({ sums, inputs, h, c, peepholes: [seeI, seeF, seeO] }) {
    const n = this.width;
    for (let k = 0; k < n; k++) {
      sums[k] += seeI[k] * c[k];
      sums[n + k] += seeF[k] * c[k];
    }
    this.tanh(sums.subarray(0, 3 * n));
    for (let k = 0; k < n; k++) {
      c[k] = (0.5 * sums[n + k] + 0.5) * c[k] + (0.5 * sums[k] + 0.5) * sums[2 * n + k];
    }
    const both = inputs.subarray(0, 2 * n);
    both.set(c);
    for (let k = 0; k < n; k++) both[n + k] = sums[3 * n + k] + seeO[k] * c[k];
    this.tanh(both);
    for (let k = 0; k < n; k++) h[k] = (0.5 * both[n + k] + 0.5) * both[k];
  }

  /** n = tanh(W x + b + σ(r) (U h + b')); h' = n + σ(z) (h - n). */
  advanceGru({ sums, inputs, outer, inner, h }) {
    const n = this.width;
    const [gates, fresh] = [sums.subarray(0, 2 * n), inputs.subarray(2 * n)];
    for (let k = 0; k < 2 * n; k++) gates[k] += inputs[k] + outer[k] + inner[k];
    this.tanh(gates);
    for (let k = 0; k < n; k++) {
      const at = 2 * n + k;
      fresh[k] += outer[at] + (0.5 * gates[k] + 0.5) * (sums[at] + inner[at]);
    }
    this.tanh(fresh);
    for (let k = 0; k < n; k++) h[k] = fresh[k] + (0.5 * gates[n + k] + 0.5) * (h[k] - fresh[k]);
  }

  /** n = tanh(W x + U h + b); h' = n + σ(z) (h - n). */
  advanceSimpleGru({ sums, h }) {
    const n = this.width;
    this.tanh(sums);
    for (let k = 0; k < n; k++) h[k] = sums[n + k] + (0.5 * sums[k] + 0.5) * (h[k] - sums[n + k]);
  }

  /** h' = φ(W x + U h + b). */
  advanceRnn({ sums, h }) {
    if (this.nonlinearity === "relu") {
      for (let k = 0; k < this.width; k++) h[k] = Math.max(sums[k], 0);
    } else {
      this.tanh(sums);
      h.set(sums);
    }
  }
}
