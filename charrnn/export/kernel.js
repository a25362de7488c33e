// The two loops in which a network spends its time: y = W x, and tanh.
//
// Plain JavaScript computes one number at a time, WebAssembly four. The module has no imports but
// its memory and is written out here, instruction by instruction, so that the page needs no binary.

const [F32_STORE, I32_CONST, LOOP, END, BR_IF] = [0x38, 0x41, 0x03, 0x0b, 0x0d];
const [GET, SET, TEE, F32_ADD, I32_ADD, I32_SUB, I32_LT_U] = [0x20, 0x21, 0x22, 0x92, 0x6a, 0x6b, 0x49];
const [VOID, I32, V128, FUNCTION] = [0x40, 0x7f, 0x7b, 0x60];

/** LEB128, the integers of WebAssembly. */
const unsigned = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...unsigned(n >>> 7)]);
const vector = (items) => [...unsigned(items.length), ...items.flat()];
const get = (local) => [GET, local];
const set = (local) => [SET, local];
const integer = (n) => [I32_CONST, n]; // below 64
const advance = (local, by) => [...get(local), ...by, I32_ADD, ...set(local)];

const simd = (op, ...more) => [0xfd, ...unsigned(op), ...more];
const constant4 = (array) => {
  const bytes = new Uint8Array(array.buffer);
  return simd(0x0c, ...bytes, ...bytes, ...bytes, ...bytes);
};
const float4 = (value) => constant4(Float32Array.of(value));
const int4 = (value) => constant4(Int32Array.of(value));
const load4 = simd(0x00, 2, 0);
const store4 = simd(0x0b, 2, 0);
const lane = (k) => simd(0x1f, k);
const [add4, sub4, mul4, div4, min4, max4] = [0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9].map((op) => simd(op));
const [round4, toInt4, addInt4] = [0x6a, 0xf8, 0xae].map((op) => simd(op));
const shiftLeft4 = [...integer(23), ...simd(0xab)];

/** product(w, x, y, rows, stride): y = W x; rows and columns are multiples of four. */
function productBody() {
  const [W, X, Y, ROWS, STRIDE, AT, STOP, W1, W2, W3, SUM, , , , FACTOR] = Array(15).keys();
  const rows = [W, W1, W2, W3];
  const sum = (k) => [0, 1, 2, 3].flatMap((n) =>
    [...get(SUM + k), ...lane(n), ...(n ? [F32_ADD] : [])]);
  return [
    ...vector([[5, I32], [5, V128]]),
    LOOP, VOID, // over four rows at a time
    ...rows.flatMap((_, k) => [...float4(0), ...set(SUM + k)]),
    ...get(X), ...set(AT),
    ...get(X), ...get(STRIDE), I32_ADD, ...set(STOP),
    ...[1, 2, 3].flatMap((k) => [...get(rows[k - 1]), ...get(STRIDE), I32_ADD, ...set(rows[k])]),
    LOOP, VOID, // over four columns at a time
    ...get(AT), ...load4, ...set(FACTOR),
    ...rows.flatMap((row, k) =>
      [...get(SUM + k), ...get(FACTOR), ...get(row), ...load4, ...mul4, ...add4, ...set(SUM + k)]),
    ...[...rows, AT].flatMap((pointer) => advance(pointer, integer(16))),
    ...get(AT), ...get(STOP), I32_LT_U, BR_IF, 0,
    END,
    ...rows.flatMap((_, k) => [...get(Y), ...sum(k), F32_STORE, 2, 4 * k]),
    ...advance(Y, integer(16)),
    ...get(W3), ...set(W), // the rows lie one after the other
    ...get(ROWS), ...integer(4), I32_SUB, TEE, ROWS, BR_IF, 0,
    END, END,
  ];
}

/**
 * tanh(at, stop): in place; the bytes between are a multiple of sixteen.
 *
 * tanh a = 1 - 2 / (exp 2a + 1). The exponential is 2^n times the Taylor series of the rest.
 */
function tanhBody() {
  const [AT, STOP, T, N] = Array(4).keys();
  const ln2High = 0.693359375, ln2Low = Math.LN2 - 0.693359375;
  const series = [1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1];
  return [
    ...vector([[2, V128]]),
    LOOP, VOID,
    ...get(AT), // for the store
    ...float4(1), ...float4(2),
    ...get(AT), ...load4, ...float4(-15), ...max4, ...float4(15), ...min4, ...float4(2), ...mul4,
    ...set(T),
    ...get(T), ...float4(Math.LOG2E), ...mul4, ...round4, ...set(N),
    ...get(T), ...get(N), ...float4(ln2High), ...mul4, ...sub4,
    ...get(N), ...float4(ln2Low), ...mul4, ...sub4, ...set(T),
    ...float4(series[0]),
    ...series.slice(1).flatMap((c) => [...get(T), ...mul4, ...float4(c), ...add4]),
    ...get(N), ...toInt4, ...int4(127), ...addInt4, ...shiftLeft4, ...mul4,
    ...float4(1), ...add4, ...div4, ...sub4,
    ...store4,
    ...advance(AT, integer(16)),
    ...get(AT), ...get(STOP), I32_LT_U, BR_IF, 0,
    END, END,
  ];
}

/** Return the bytes of the module. */
function kernelModule() {
  const section = (id, bytes) => [id, ...unsigned(bytes.length), ...bytes];
  const name = (text) => vector(Array.from(text, (c) => [c.charCodeAt(0)]));
  const type = (n) => [FUNCTION, ...vector(Array(n).fill([I32])), 0];
  const code = (body) => [...unsigned(body.length), ...body];
  return new Uint8Array([
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, vector([type(5), type(2)])),
    ...section(2, vector([[...name("page"), ...name("memory"), 0x02, 0x00, 0]])),
    ...section(3, vector([[0], [1]])),
    ...section(7, vector([[...name("product"), 0x00, 0], [...name("tanh"), 0x00, 1]])),
    ...section(10, vector([code(productBody()), code(tanhBody())])),
  ]);
}

/** The same functions in plain JavaScript, for a browser without vector instructions. */
function plainKernel(memory) {
  const all = new Float32Array(memory.buffer);
  return {
    product(w, x, y, rows, stride) {
      const n = stride / 4;
      for (let row = 0, k = w / 4; row < rows; row++) {
        let sum = 0;
        for (let i = x / 4; i < x / 4 + n; i++) sum += all[k++] * all[i];
        all[y / 4 + row] = sum;
      }
    },
    tanh(at, stop) {
      for (let k = at / 4; k < stop / 4; k++) all[k] = Math.tanh(all[k]);
    },
  };
}

/** Return {product, tanh} on a memory. */
function makeKernel(memory) {
  const bytes = kernelModule();
  if (!WebAssembly.validate(bytes)) return plainKernel(memory);
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), { page: { memory } }).exports;
}
