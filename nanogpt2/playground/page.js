// The page: prompt and controls in, coloured text out, as it is written. Texts enter the document
// as text alone.

const SLICE = 32; // ms of work before the browser may draw, which takes it some as well
const BITS = [0.5, 1, 2, 3, 4, 6, 8]; // of surprise, at which the next colour begins

const find = (id) => document.getElementById(id);
const make = (name, text = "", parts = {}) => Object.assign(document.createElement(name), { textContent: text }, parts);
const level = (bits) => (bits === null ? 0 : BITS.filter((bar) => bits >= bar).length);
const visible = (text) => text.replace(/[\0- ]/g, (each) =>
  ({ " ": "\u2423", "\n": "\u21b5" })[each] ?? String.fromCharCode(0x2400 + each.charCodeAt()));

const valid = {}; // the last value of each control that is one: it may be half typed while the text goes on
const number = (id) => (find(id).validity.valid ? (valid[id] = Number(find(id).value)) : valid[id]);

// What goes wrong, such as memory that runs out, is seen, and not only in the browser's console.
window.addEventListener("error", ({ message }) => (find("problem").textContent = message));

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

// What is shown: the tokens with their records, and spans, each of one token or of a few that make
// a character together.
const state = { tokens: [], spans: [], open: null, begin: 0, chosen: -1, pinned: false, left: 0, attention: null };
window.page = { ready: performance.now(), first: null, speed: null, state };

// --- Writing ---

const controls = () => ({ temperature: number("temperature"), topK: number("top-k"), topP: number("top-p") });
const windowed = () => find("window")?.value ?? "exact";

/** Say what is wrong with the controls, and whether nothing is. */
function check() {
  const wrong = [...document.querySelectorAll("#form input")].filter((input) => !input.checkValidity());
  const names = wrong.map((input) => `${input.labels[0].textContent.trim()}: ${input.validationMessage}`);
  find("problem").textContent = names.join(" ");
  wrong[0]?.focus();
  return !wrong.length;
}

/** Read the tokens `ids` and go on from them. */
function begin(ids) {
  watching.stop();
  find("text").replaceChildren(make("div"));
  Object.assign(state, { tokens: [], spans: [], chosen: -1, pinned: false, open: null, attention: null });
  state.begin = Math.max(0, ids.length - model.block_size);
  state.stream = tokenizer.stream();
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
  let last = null;
  do {
    const { value } = state.source.next();
    if (!value) continue;
    last = append(value);
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

/** Show one more token. */
function append(record) {
  state.tokens.push(record);
  const text = state.stream(record.id), at = state.tokens.length - 1;
  state.open ??= at;
  if (!text) return; // a character's first bytes
  const records = state.tokens.slice(state.open), span = make("span", text);
  const bits = records.reduce((sum, each) => sum + (each.bits ?? 0), 0);
  span.className = `s${level(bits)}${record.drawn ? "" : " given"}${text.endsWith("\n") ? " break" : ""}`;
  span.at = state.spans.push({ span, first: state.open, end: at + 1 }) - 1;
  state.open = null;
  find("text").lastChild.append(span);
  if (text.endsWith("\n")) find("text").append(make("div"));
}

// --- What was thought at a place ---

const percent = (share) => `${(100 * share).toFixed(share < 0.001 ? 3 : 1)}%`;

function label(id) {
  const text = tokenizer.stream()(id);
  if (!tokenizer.bytes || (text && !text.includes("\ufffd"))) return visible(text);
  return tokenizer.bytes[id].map((byte) => `<${byte.toString(16).padStart(2, "0")}>`).join("");
}

/** Choose the span `at`, or none with -1. */
function choose(at, pinned = state.pinned) {
  state.spans[state.chosen]?.span.classList.remove("chosen");
  Object.assign(state, { chosen: at, pinned });
  const found = state.spans[at];
  if (!found) return;
  found.span.classList.add("chosen");
  const parts = [];
  for (let token = found.first; token < found.end; token++) parts.push(...tellOf(token));
  find("choices").replaceChildren(...parts);
}

function tellOf(at) {
  const { id, bits, choices } = state.tokens[at];
  const head = make("h3", `\u201c${label(id)}\u201d, token ${at + 1}`);
  if (!choices) return [head, make("p", "The model read nothing before it here.")];
  const told = `${percent(2 ** -bits)} likely: ${bits.toFixed(2)} bits of surprise. What it expected here:`;
  const list = make("ol");
  for (const [other, share] of choices) {
    const button = make("button", "", { type: "button", title: "write on with this one instead" });
    const bar = make("meter", "", { value: share, ariaHidden: "true" });
    button.append(make("b", label(other)), ` ${percent(share)} `, bar);
    button.onclick = () => check() && begin([...state.tokens.slice(0, at).map((token) => token.id), other]);
    const item = make("li");
    if (other === id) item.className = "taken";
    item.append(button);
    list.append(item);
  }
  return [head, make("p", told), list];
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

function pick(at) {
  choose(at, at >= 0);
  attend();
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
find("other").addEventListener("click", () => {
  find("seed").value = Math.floor(Math.random() * 1e6);
  find("form").requestSubmit(find("write"));
});
find("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("form").requestSubmit(find("write"));
});
find("text").addEventListener("pointerover", ({ target, pointerType }) => {
  if (pointerType === "mouse" && target.at !== undefined && !state.pinned) choose(target.at);
});
find("text").addEventListener("click", ({ target }) => {
  if (target.at !== undefined) pick(state.pinned && target.at === state.chosen ? -1 : target.at);
});
find("text").addEventListener("keydown", (event) => {
  const last = state.spans.length - 1, at = state.chosen;
  const places = { ArrowLeft: Math.max(0, at - 1), ArrowRight: Math.min(last, at + 1), Home: 0, End: last, Escape: -1 };
  if (!(event.key in places) || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  pick(places[event.key]);
  state.spans[state.chosen]?.span.scrollIntoView({ block: "nearest" });
});
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
[0, ...BITS].forEach((bits, at) => find("legend").append(make("span", `${bits}${at === BITS.length ? "+ bits" : ""}`, { className: `s${at}` })));
