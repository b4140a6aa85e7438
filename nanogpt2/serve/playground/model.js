// The model: what nanogpt2/model/gpt.py computes, one token at a time over a key-value cache.
// All numbers lie in one array of floats, the heap, so that one product, of JavaScript or of
// WebAssembly (simd.js), serves for everything: a product of a matrix, rows `stride` floats apart,
// and a vector. Places in the heap are counted in floats; rows and columns come in eights, filled
// with 0.

// A share of attention below it counts as none: float32 would not see it, and processors take a
// hundred times as long for numbers that are nearly too small for it.
const LEAST = 1e-12;

// 2 sqrt(2 / pi): GELU's (1 + tanh(u)) / 2 is the logistic function of 2 u.
const GELU = 1.5957691216057308;

// What is computed here: of each setting the kinds, or null where it is a number; the names of
// weights; how their numbers are packed.
const SETTINGS = {
  block_size: null, n_layer: null, n_head: null, n_kv_head: null, n_embd: null,
  positions: ["learned", "rotary"], norm: ["layer", "rms"], qk_norm: [false, true],
  mlp: ["gelu", "relu2", "swiglu"], mlp_conv: null, tied_head: [false, true], logit_softcap: null,
};
const WEIGHTS = RegExp(
  "^((wte|wpe|lm_head)\\.weight|h\\.\\d+\\.mlp_conv|(ln_f|h\\.\\d+\\.(ln_[12]|attn\\.c_(attn|proj)|mlp\\.c_(fc|proj)))\\.(weight|bias))$");
const PACKED = ["f16", "i8"];

/** Throw an Error that names a part of a model which is not computed here. */
function checkParts({ config, tensors }) {
  for (const key of Object.keys(config)) oneOf("a setting of the model", key, Object.keys(SETTINGS));
  for (const [key, kinds] of Object.entries(SETTINGS)) {
    if (kinds) oneOf(key, config[key], kinds);
    else if (!Number.isFinite(config[key])) throw new Error(`${key}: found ${JSON.stringify(config[key])}; allowed: a number`);
  }
  for (const [name, { kind }] of Object.entries(tensors)) {
    if (!WEIGHTS.test(name)) throw new Error(`${name}: this page knows no such weights`);
    oneOf(`${name}: numbers`, kind, PACKED);
  }
}

const eights = (n) => (n + 7) & ~7;

/** y = W x in plain JavaScript, eight rows at a time, since each then reads x once. */
function makeProduct(heap) {
  return (w, stride, x, y, rows, cols) => {
    for (let r = 0; r < rows; r += 8, w += 8 * stride) {
      const w1 = w + stride, w2 = w1 + stride, w3 = w2 + stride;
      const w4 = w3 + stride, w5 = w4 + stride, w6 = w5 + stride, w7 = w6 + stride;
      let a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
      for (let i = 0; i < cols; i++) {
        const v = heap[x + i];
        a += heap[w + i] * v;
        b += heap[w1 + i] * v;
        c += heap[w2 + i] * v;
        d += heap[w3 + i] * v;
        e += heap[w4 + i] * v;
        f += heap[w5 + i] * v;
        g += heap[w6 + i] * v;
        h += heap[w7 + i] * v;
      }
      heap[y + r] = a;
      heap[y + r + 1] = b;
      heap[y + r + 2] = c;
      heap[y + r + 3] = d;
      heap[y + r + 4] = e;
      heap[y + r + 5] = f;
      heap[y + r + 6] = g;
      heap[y + r + 7] = h;
    }
  };
}

/** A heap of `size` floats and its product. */
function openFloats(size) {
  const heap = new Float32Array(size);
  return { heap, product: makeProduct(heap), name: "plain JavaScript" };
}

/** The number that 16 bits stand for (IEEE 754 half). */
function half(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24;
  return bits >> 15 ? -size : size;
}

/** Weights and shape. `known` is the page's description of them, `bytes` their packed numbers. */
class Model {
  static READERS = 2; // one writes, one looks back for attention

  constructor(known, bytes, openHeap = openFloats) {
    checkParts(known);
    Object.assign(this, known.config);
    this.n_tokens = known.n_tokens;
    this.head_size = this.n_embd / this.n_head;
    this.slides = this.positions !== "learned"; // a full window drops its oldest token
    this.weights = new Map();
    this.size = 8; // floats of the heap that are given away
    for (const [name, { rows, cols }] of Object.entries(known.tensors)) {
      const stride = eights(cols);
      this.weights.set(name, { at: this.take(eights(rows) * stride), rows, cols, stride });
    }
    const begin = this.size;
    new Reader(this); // there is no heap yet: it counts what a reader takes
    const reader = this.size - begin;
    this.size = begin;
    Object.assign(this, openHeap(begin + Model.READERS * reader));
    this.unpack(known.tensors, new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  }

  take(count) {
    const at = this.size;
    this.size += eights(count);
    return at;
  }

  /** Write the packed numbers into the heap: 16 bits, or 8 with a float32 scale for each row. */
  unpack(tensors, view) {
    for (const [name, { from, kind }] of Object.entries(tensors)) {
      const { at, rows, cols, stride } = this.weights.get(name);
      for (let r = 0; r < rows; r++) {
        const row = at + r * stride;
        if (kind === "f16") {
          const first = from + 2 * r * cols;
          for (let c = 0; c < cols; c++) this.heap[row + c] = half(view.getUint16(first + 2 * c, true));
        } else {
          const scale = view.getFloat32(from + 4 * r, true), first = from + 4 * rows + r * cols;
          for (let c = 0; c < cols; c++) this.heap[row + c] = scale * view.getInt8(first + c);
        }
      }
    }
  }
}

/** What a model has read: keys and values of the last block_size tokens. */
class Reader {
  constructor(model) {
    this.model = model;
    const { n_embd, n_layer, n_head, n_kv_head, head_size, block_size, mlp_conv } = model;
    const widths = [...model.weights.values()].map(({ rows }) => rows);
    this.slots = eights(block_size);
    this.wide = eights(head_size);
    for (const name of ["x", "normed", "mixed"]) this[name] = model.take(n_embd);
    for (const name of ["out", "hidden"]) this[name] = model.take(Math.max(...widths));
    this.query = model.take(this.wide);
    this.scores = model.take(n_head * this.slots);
    this.layers = Array.from({ length: n_layer }, () => ({
      keys: model.take(n_kv_head * this.slots * this.wide), // (head, slot, channel)
      values: model.take(n_kv_head * this.wide * this.slots), // (head, channel, slot)
      read: model.take(Math.max(1, mlp_conv) * n_embd), // what the last tokens gave the MLP
    }));
    this.frequencies = Float32Array.from({ length: head_size / 2 }, (_, i) =>
      10000 ** Math.fround((-2 * i) / head_size));
    this.cos = new Float64Array(head_size / 2);
    this.sin = new Float64Array(head_size / 2);
    this.reset();
  }

  reset() {
    this.position = 0;
  }

  /** Read one more token; return the logits after it, a view that the next call overwrites.
   *  `watch(layer, head, weights)` is told how much the token attends to each slot. */
  read(token, watch) {
    const { model, x, normed, out } = this, { heap, n_embd, n_layer } = model;
    if (!model.slides && this.position >= model.block_size) throw new Error("past block_size");
    const row = this.row("wte.weight", token), place = model.slides ? -1 : this.row("wpe.weight", this.position);
    for (let i = 0; i < n_embd; i++) heap[x + i] = heap[row + i] + (place < 0 ? 0 : heap[place + i]);
    this.findAngles();
    for (let layer = 0; layer < n_layer; layer++) {
      const name = `h.${layer}.`;
      this.norm(x, normed, name + "ln_1");
      this.attend(layer, watch);
      this.linear(this.mixed, out, name + "attn.c_proj");
      for (let i = 0; i < n_embd; i++) heap[x + i] += heap[out + i];
      this.norm(x, normed, name + "ln_2");
      if (model.mlp_conv) this.mix(layer);
      this.activate(this.linear(normed, this.hidden, name + "mlp.c_fc"));
      this.linear(this.hidden, out, name + "mlp.c_proj");
      for (let i = 0; i < n_embd; i++) heap[x + i] += heap[out + i];
    }
    this.position++;
    this.norm(x, normed, "ln_f");
    this.linear(normed, out, model.tied_head ? "wte" : "lm_head");
    const logits = heap.subarray(out, out + model.n_tokens), cap = model.logit_softcap;
    if (cap) for (let i = 0; i < logits.length; i++) logits[i] = cap * Math.tanh(logits[i] / cap);
    return logits;
  }

  row(name, number) {
    const { at, stride } = this.model.weights.get(name);
    return at + number * stride;
  }

  /** y = W x + b; return how many numbers y has. */
  linear(x, y, name) {
    const { heap, product, weights } = this.model;
    const { at, rows, cols, stride } = weights.get(name + ".weight"), bias = weights.get(name + ".bias");
    for (let i = cols; i < stride; i++) heap[x + i] = 0;
    product(at, stride, x, y, eights(rows), stride);
    if (bias) for (let i = 0; i < rows; i++) heap[y + i] += heap[bias.at + i];
    return rows;
  }

  /** Layer norm, or RMS norm, which is neither centred nor shifted. */
  norm(x, y, name) {
    const { heap, weights, norm, n_embd } = this.model;
    const gain = weights.get(name + ".weight").at, bias = weights.get(name + ".bias");
    let mean = 0, square = 0;
    if (norm === "layer") for (let i = 0; i < n_embd; i++) mean += heap[x + i] / n_embd;
    for (let i = 0; i < n_embd; i++) square += (heap[x + i] - mean) ** 2;
    const scale = 1 / Math.sqrt(square / n_embd + 1e-5);
    for (let i = 0; i < n_embd; i++) {
      heap[y + i] = (heap[x + i] - mean) * scale * heap[gain + i] + (bias ? heap[bias.at + i] : 0);
    }
  }

  /** Find the angles of the position that is read (RoPE). */
  findAngles() {
    this.frequencies.forEach((frequency, i) => {
      const angle = Math.fround(this.position * frequency);
      this.cos[i] = Math.cos(angle);
      this.sin[i] = Math.sin(angle);
    });
  }

  /** Turn a head by its position, and norm it where queries and keys are. */
  turn(at) {
    const { cos, sin, model: { heap, slides, qk_norm, head_size } } = this, middle = head_size / 2;
    if (slides) {
      for (let i = 0; i < middle; i++) {
        const a = heap[at + i], b = heap[at + middle + i];
        heap[at + i] = a * cos[i] - b * sin[i];
        heap[at + middle + i] = a * sin[i] + b * cos[i];
      }
    }
    if (qk_norm) {
      let square = 0;
      for (let i = 0; i < head_size; i++) square += heap[at + i] ** 2;
      const scale = 1 / Math.sqrt(square / head_size + 2 ** -7);
      for (let i = 0; i < head_size; i++) heap[at + i] *= scale;
    }
  }

  /** Attention from the token being read to all in the cache: from `normed` to `mixed`. */
  attend(layer, watch) {
    const { normed, out, mixed, query, scores, slots, wide, model } = this;
    const { heap, product, n_head, n_kv_head, head_size, block_size } = model;
    const { keys, values } = this.layers[layer], slot = this.position % block_size;
    const seen = Math.min(this.position + 1, block_size), root = 1 / Math.sqrt(head_size);
    this.linear(normed, out, `h.${layer}.attn.c_attn`);
    for (let head = 0; head < n_head + n_kv_head; head++) this.turn(out + head * head_size);
    for (let head = 0; head < n_kv_head; head++) {
      const k = out + (n_head + head) * head_size, v = k + n_kv_head * head_size;
      heap.copyWithin(keys + (head * slots + slot) * wide, k, k + head_size);
      for (let i = 0; i < head_size; i++) heap[values + (head * wide + i) * slots + slot] = heap[v + i];
    }
    for (let head = 0; head < n_head; head++) {
      const shared = Math.floor((head * n_kv_head) / n_head), weights = scores + head * slots;
      heap.copyWithin(query, out + head * head_size, out + (head + 1) * head_size);
      product(keys + shared * slots * wide, wide, query, weights, eights(seen), wide);
      let top = -Infinity, sum = 0;
      for (let t = 0; t < seen; t++) top = Math.max(top, heap[weights + t]);
      for (let t = 0; t < seen; t++) {
        const share = Math.exp((heap[weights + t] - top) * root);
        sum += heap[weights + t] = share < LEAST ? 0 : share;
      }
      for (let t = 0; t < seen; t++) heap[weights + t] /= sum;
      for (let t = seen; t < eights(seen); t++) heap[weights + t] = 0;
      // into `hidden`, for its last channels may be more than the head has
      product(values + shared * wide * slots, slots, weights, this.hidden, wide, eights(seen));
      heap.copyWithin(mixed + head * head_size, this.hidden, this.hidden + head_size);
      watch?.(layer, head, heap.subarray(weights, weights + seen));
    }
  }

  /** Add to `normed` a weighted sum of what the last tokens had there, its own among them. */
  mix(layer) {
    const { heap, mlp_conv: taps, n_embd } = this.model, { read } = this.layers[layer];
    heap.copyWithin(read + (this.position % taps) * n_embd, this.normed, this.normed + n_embd);
    for (let back = 0; back < Math.min(taps, this.position + 1); back++) {
      const factors = this.row(`h.${layer}.mlp_conv`, back), from = read + ((this.position - back) % taps) * n_embd;
      for (let i = 0; i < n_embd; i++) heap[this.normed + i] += heap[factors + i] * heap[from + i];
    }
  }

  /** The MLP's nonlinearity, over `count` numbers of `hidden`. */
  activate(count) {
    const { hidden, model: { heap, mlp } } = this;
    for (let i = 0; i < (mlp === "swiglu" ? count / 2 : count); i++) {
      const z = heap[hidden + i];
      if (mlp === "swiglu") heap[hidden + i] = (z / (1 + Math.exp(-z))) * heap[hidden + count / 2 + i];
      else if (mlp === "relu2") heap[hidden + i] = Math.max(z, 0) ** 2;
      else heap[hidden + i] = z / (1 + Math.exp(-GELU * (z + 0.044715 * z * z * z)));
    }
  }
}
