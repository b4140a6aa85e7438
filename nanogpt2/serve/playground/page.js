// The page: prompt and controls in, coloured text out, as it is written.

const SLICE = 32; // ms of work before the browser may draw, which takes it some as well

/** Work in slices: what `step` does until it returns true, with room for the browser between. */
class Work {
  constructor() {
    this.channel = new MessageChannel();
    this.channel.port1.onmessage = ({ data }) => data === this.run && this.go();
    this.run = 0; // what was started last: messages of an earlier one come to nothing
    this.step = null;
  }

  start(step) {
    this.step = step;
    this.channel.port2.postMessage(++this.run);
  }

  stop() {
    this.step = null;
    this.run++;
  }

  go() {
    if (this.step(performance.now() + SLICE)) this.stop();
    else if (this.step) this.channel.port2.postMessage(this.run);
  }
}

function openModel() {
  const known = JSON.parse(find("known").textContent), packed = atob(find("weights").textContent);
  const bytes = new Uint8Array(packed.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = packed.charCodeAt(at);
  find("weights").remove();
  const tell = (model, why) => (find("engine").textContent = `Computed by ${model.name}${why}.`);
  if (location.hash === "#javascript") {
    const model = new Model(known, bytes);
    tell(model, ", as the address asks");
    return [known, model];
  }
  try {
    const model = new Model(known, bytes, openVectors);
    tell(model, "");
    return [known, model];
  } catch (error) {
    const model = new Model(known, bytes);
    tell(model, `, several times as slow: WebAssembly SIMD is not to be had here (${error.message})`);
    return [known, model];
  }
}

const [known, model] = openModel();
const tokenizer = openTokenizer(known.tokenizer);
const writer = new Reader(model), watcher = new Reader(model);
const writing = new Work(), watching = new Work();

const state = new Shown(find("text"), find("choices"), { takeOther: begin, picked: attend });
Object.assign(state, { begin: 0, left: 0, attention: null });
window.page = { ready: performance.now(), first: null, speed: null, state };

// --- Writing ---

const controls = () => ({ temperature: number("temperature"), topK: number("top-k"), topP: number("top-p") });
const windowed = () => find("window")?.value ?? "exact";

/** Read the tokens `ids` and go on from them. */
function begin(ids) {
  watching.stop();
  state.clear(tokenizer);
  Object.assign(state, { begin: Math.max(0, ids.length - model.block_size), attention: null });
  state.source = write(writer, ids, { seed: number("seed"), window: windowed(), controls });
  Object.assign(page, { clicked: performance.now(), first: null });
  goOn();
}

function goOn() {
  state.left = number("length");
  Object.assign(state, { written: 0, since: performance.now() });
  find("pause").disabled = false;
  find("pause").textContent = "Stop";
  writing.start(writeSome);
}

function writeSome(until) {
  do {
    const { value } = state.source.next();
    if (!value) continue;
    state.append(value);
    if (value.drawn) {
      state.left--;
      state.written++;
      if (page.first === null) {
        page.first = performance.now() - page.clicked;
        break; // let it be seen
      }
    }
  } while (state.left && performance.now() < until);
  const speed = (1000 * state.written) / (performance.now() - state.since);
  page.speed = speed;
  find("speed").textContent = `${state.tokens.length} tokens, ${Math.round(speed)} a second`;
  if (state.left) return false;
  rest();
  return true;
}

/** Wait for somebody to let it go on. */
function rest() {
  writing.stop();
  find("pause").textContent = "Continue";
}

// --- Attention ---

/** Show what the chosen token was drawn from, if that is asked for; it is computed anew. */
function attend() {
  const found = state.spans[state.chosen];
  watching.stop();
  clearAttention();
  if (find("colours").value !== "attention" || !found || found.first <= state.begin) return;
  const ids = state.tokens.slice(state.begin, found.first).map((token) => token.id);
  const source = attention(watcher, ids, windowed());
  watching.start((until) => {
    do {
      const { value, done } = source.next();
      if (!done) continue;
      state.attention = { first: state.begin + value.first, rows: value.rows };
      showAttention();
      return true;
    } while (performance.now() < until);
    return false;
  });
}

function clearAttention() {
  state.attention = null;
  for (const span of document.querySelectorAll("#text .seen")) {
    span.classList.remove("seen");
    span.style.removeProperty("--share");
  }
}

/** Colour the tokens by the mean of what the chosen layers and heads give to each. */
function showAttention() {
  if (!state.attention) return;
  const { first, rows } = state.attention, layer = find("layer").value, head = find("head").value;
  const asked = rows.filter((_, at) =>
    (!layer || Math.floor(at / model.n_head) === Number(layer)) && (!head || at % model.n_head === Number(head)));
  const shares = Array.from(asked[0], (_, at) => asked.reduce((sum, row) => sum + row[at], 0) / asked.length);
  const most = Math.max(...shares);
  for (const { span, first: from, end } of state.spans) {
    if (end <= first || from >= first + shares.length) continue;
    const share = shares.slice(Math.max(0, from - first), end - first).reduce((a, b) => a + b, 0);
    span.classList.add("seen");
    span.style.setProperty("--share", (0.65 * Math.min(1, share / most)).toFixed(3));
  }
}

// --- What people do ---

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!check()) return;
  const text = normalise(find("prompt").value);
  try {
    begin(text ? tokenizer.encode(text) : known.start);
  } catch (error) {
    if (!(error instanceof UnknownCharacter)) throw error;
    find("problem").textContent = error.message;
    find("prompt").focus();
  }
});
find("pause").addEventListener("click", () => {
  if (writing.step) rest();
  else if (check()) goOn();
});
addShortcuts();
find("colours").addEventListener("change", ({ target }) => {
  find("text").dataset.colours = target.value;
  for (const each of document.querySelectorAll(".attention")) each.hidden = target.value !== "attention";
  find("legend").hidden = target.value !== "surprise";
  attend();
});
for (const id of ["layer", "head"]) {
  find(id).append(make("option", "all", { value: "" }));
  for (let at = 0; at < (id === "layer" ? model.n_layer : model.n_head); at++) {
    find(id).append(make("option", at + 1, { value: at }));
  }
  find(id).addEventListener("change", showAttention);
}
find("text").dataset.colours = find("colours").value;
addLegend();
