// Writing: the draw of nanogpt2/decode/draw.py, and the windows of nanogpt2/sample/generate.py.

/** Uniform numbers in [0, 1) as numpy's Philox(key=seed) gives them: Salmon et al. 2011, "Parallel
 *  Random Numbers: As Easy as 1, 2, 3". So a seed writes what it writes in Python. */
function uniforms(seed) {
  const low = (1n << 64n) - 1n, [first, second] = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
  let count = 0n, left = [];
  return () => {
    if (!left.length) {
      let [a, b, c, d] = [++count, 0n, 0n, 0n], key = BigInt(seed), other = 0n;
      for (let round = 0; round < 10; round++) {
        const p = first * a, q = second * c;
        [a, b, c, d] = [(q >> 64n) ^ b ^ key, q & low, (p >> 64n) ^ d ^ other, p & low];
        key = (key + 0x9e3779b97f4a7c15n) & low;
        other = (other + 0xbb67ae8584caa73bn) & low;
      }
      left = [a, b, c, d];
    }
    return Number(left.shift() >> 11n) * 2 ** -53;
  };
}

/** Probabilities of logits; a temperature below 1 sharpens them. */
function softmax(logits, temperature = 1) {
  const likely = new Float64Array(logits.length), cold = Math.max(temperature, 1e-30);
  let top = -Infinity, sum = 0;
  for (let at = 0; at < likely.length; at++) top = Math.max(top, logits[at]);
  for (let at = 0; at < likely.length; at++) sum += likely[at] = Math.exp((logits[at] - top) / cold);
  for (let at = 0; at < likely.length; at++) likely[at] /= sum;
  return likely;
}

/** The numbers of the `count` largest values, the largest first; of equal ones the first. */
function largest(values, count) {
  const found = [];
  for (let at = 0; at < values.length; at++) {
    if (found.length === count && values[at] <= values[found.at(-1)]) continue;
    let place = found.length;
    while (place && values[found[place - 1]] < values[at]) place--;
    found.splice(place, 0, at);
    if (found.length > count) found.pop();
  }
  return found;
}

/** One token of logits: temperature, then top-k, then top-p. */
function draw(logits, uniform, { temperature = 1, topK = 0, topP = 1 } = {}) {
  if (temperature === 0) return largest(logits, 1)[0];
  const likely = softmax(logits, temperature);
  if (topK && topK < likely.length) {
    const least = Float64Array.from(likely).sort()[likely.length - topK];
    for (let at = 0; at < likely.length; at++) if (likely[at] < least) likely[at] = 0;
  }
  if (topP < 1) keepShare(likely, topP);
  let sum = 0, cumulated = 0;
  for (const each of likely) sum += each;
  const at = likely.findIndex((each) => (cumulated += each) > uniform * sum);
  return at < 0 ? likely.length - 1 : at;
}

/** Set to 0 what is less likely than those that make up the share `topP` together. */
function keepShare(likely, topP) {
  const order = Array.from(likely.keys()).sort((one, other) => likely[other] - likely[one]);
  const bar = topP * likely.reduce((sum, each) => sum + each);
  let before = 0;
  order.forEach((at, place) => {
    const here = likely[at];
    if (place && before >= bar) likely[at] = 0; // the most likely stays
    before += here;
  });
}

/** How many of the last tokens are read anew past block_size. */
const readAnew = (block_size, window) =>
  oneOf("window", window, ["exact", "half"]) === "exact" ? block_size : Math.max(1, block_size >> 1);

/** Read `ids`, then write token after token; a generator that ends only where nobody asks on.
 *  It yields null while it only reads, and for each token { id, drawn, bits, choices }: its
 *  surprise, and the most likely tokens there with their probabilities, null for the first.
 *  `controls()` is asked at each draw. Past block_size a model with learned positions reads its
 *  window anew: the last block_size tokens for each one, or half of them where window is "half". */
function* write(reader, ids, { seed = 0, window = "exact", controls = () => ({}), shown = 8 } = {}) {
  const { block_size, slides } = reader.model, uniform = uniforms(seed), history = [...ids];
  const anew = readAnew(block_size, window);
  let logits = null;
  function* again(size) {
    reader.reset();
    for (const token of history.slice(-size)) {
      logits = reader.read(token);
      yield null;
    }
  }
  const told = (id, drawn) => {
    if (!logits) return { id, drawn, bits: null, choices: null };
    const likely = softmax(logits), best = largest(likely, shown);
    return { id, drawn, bits: -Math.log2(likely[id]), choices: best.map((each) => [each, likely[each]]) };
  };
  reader.reset();
  const skipped = Math.max(0, history.length - block_size);
  for (const id of history.slice(0, skipped)) yield told(id, false);
  for (const id of history.slice(skipped)) {
    const record = told(id, false);
    logits = reader.read(id);
    yield record;
  }
  for (;;) {
    const id = draw(logits, uniform(), controls());
    const record = told(id, true);
    history.push(id);
    yield record;
    if (slides || reader.position < block_size) logits = reader.read(id);
    else yield* again(anew);
  }
}

/** How much the last of `ids` attended to each when it was read, in the window that `write` has by
 *  then. A generator that yields null while it reads, and returns { first, rows }: for each layer
 *  and head the shares of the last tokens, the first of which is `ids[first]`. */
function* attention(reader, ids, window = "exact") {
  const { block_size, slides, n_head, n_layer } = reader.model;
  let start = 0;
  if (!slides && ids.length > block_size) {
    const size = readAnew(block_size, window);
    const room = block_size - size + 1; // tokens between one reading anew and the next
    start = ids.length - size - ((ids.length - block_size - 1) % room);
  }
  const rows = Array.from({ length: n_layer * n_head });
  reader.reset();
  for (let at = start; at < ids.length; at++) {
    const last = at === ids.length - 1;
    reader.read(ids[at], last ? (layer, head, weights) => (rows[layer * n_head + head] = weights.slice()) : undefined);
    yield null;
  }
  const first = ids.length - rows[0].length;
  if (!slides) return { first, rows };
  // token t lies in slot t modulo block_size
  const turn = (row) => row.map((_, at) => row[(first + at) % block_size]);
  return { first, rows: rows.map(turn) };
}
