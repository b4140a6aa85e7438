// The product of model.js for WebAssembly with 128-bit vectors: a module of one function, put
// together here, four rows at a time. Numbers of instructions:
// https://webassembly.github.io/spec/core/appendix/index-instructions.html

/** The bytes of a module with the function "product" over the memory page.memory. */
function assemble() {
  const [i32, v128] = [0x7f, 0x7b];
  const number = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...number(n >>> 7)]); // LEB128, unsigned
  const list = (items) => [...number(items.length), ...items.flat()];
  const section = (id, items) => [id, ...list(list(items))];
  const name = (text) => list([...text].map((each) => each.charCodeAt(0)));

  // parameters, in floats, then variables
  const [w, stride, x, y, rows, cols] = [0, 1, 2, 3, 4, 5];
  const [p, q, r, s, at, end, last] = [6, 7, 8, 9, 10, 11, 12], [a, b, c, d, v] = [13, 14, 15, 16, 17];

  const get = (local) => [0x20, local];
  const set = (local, ...value) => [...value.flat(), 0x21, local];
  const constant = (n) => [0x41, n]; // below 64
  const plus = (one, other) => [...one, ...other, 0x6a];
  const bytes = (local) => [...get(local), ...constant(2), 0x74]; // of so many floats
  const load = (local) => [...get(local), 0xfd, 0x00, 0x04, 0x00];
  const store = (local, value) => [...get(local), ...value, 0xfd, 0x0b, 0x04, 0x00];
  const zero = [0xfd, 0x0c, ...Array(16).fill(0)];
  const add = (one, other) => [...one, ...other, 0xfd, ...number(0xe4)];
  const times = (one, other) => [...one, ...other, 0xfd, ...number(0xe6)];
  const pick = (one, other, lanes) => // lanes 0 to 3 are of `one`, 4 to 7 of `other`
    [...get(one), ...get(other), 0xfd, 0x0d, ...lanes.flatMap((lane) => [0, 1, 2, 3].map((i) => 4 * lane + i))];
  const below = (one, other) => [...get(one), ...get(other), 0x49];
  const loop = (...body) => [0x03, 0x40, ...body.flat(), 0x0d, 0x00, 0x0b]; // again while the last is true
  const both = (one, other, lanes, others) => add(pick(one, other, lanes), pick(one, other, others));

  const code = [
    ...[w, stride, x, y, rows, cols].map((each) => set(each, bytes(each))),
    set(end, plus(get(x), get(cols))),
    set(last, plus(get(y), get(rows))),
    loop(
      ...[a, b, c, d].map((sum) => set(sum, zero)),
      set(p, get(w)), set(q, plus(get(p), get(stride))), set(r, plus(get(q), get(stride))), set(s, plus(get(r), get(stride))),
      set(at, get(x)),
      loop(
        set(v, load(at)),
        ...[[a, p], [b, q], [c, r], [d, s]].flatMap(([sum, row]) => [
          set(sum, add(get(sum), times(load(row), get(v)))),
          set(row, plus(get(row), constant(16))),
        ]),
        set(at, plus(get(at), constant(16))),
        below(at, end),
      ),
      set(a, both(a, b, [0, 4, 1, 5], [2, 6, 3, 7])), // halves of the sums of a and b, then of c and d
      set(c, both(c, d, [0, 4, 1, 5], [2, 6, 3, 7])),
      store(y, both(a, c, [0, 1, 4, 5], [2, 3, 6, 7])),
      set(w, plus(get(s), get(stride)), get(cols), [0x6b]), // s has gone over a row's columns
      set(y, plus(get(y), constant(16))),
      below(y, last),
    ),
    [0x0b],
  ].flat();
  const locals = list([[7, i32], [5, v128]]);
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [[0x60, ...list(Array(6).fill([i32])), 0]]), // the type of the function
    ...section(2, [[...name("page"), ...name("memory"), 0x02, 0x00, 1]]),
    ...section(3, [[0]]),
    ...section(7, [[...name("product"), 0x00, 0]]),
    ...section(10, [list([...locals, ...code].map((byte) => [byte]))]),
  ]);
}

/** A heap of `size` floats and its product; an error where the browser has no such WebAssembly. */
function openVectors(size) {
  const module = new WebAssembly.Module(assemble());
  const memory = new WebAssembly.Memory({ initial: Math.ceil(size / 16384) });
  const { product } = new WebAssembly.Instance(module, { page: { memory } }).exports;
  return { heap: new Float32Array(memory.buffer), product, name: "WebAssembly SIMD" };
}
