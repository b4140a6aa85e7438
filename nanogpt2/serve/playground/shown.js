// A text that is shown as it is written, coloured by surprise, and what was thought at each place.
// Texts enter the document as text alone.

const BITS = [0.5, 1, 2, 3, 4, 6, 8]; // of surprise, at which the next colour begins

const find = (id) => document.getElementById(id);
const make = (name, text = "", parts = {}) => Object.assign(document.createElement(name), { textContent: text }, parts);
const level = (bits) => (bits === null ? 0 : BITS.filter((bar) => bits >= bar).length);
const visible = (text) => text.replace(/[\0- ]/g, (each) =>
  ({ " ": "\u2423", "\n": "\u21b5" })[each] ?? String.fromCharCode(0x2400 + each.charCodeAt()));
const percent = (share) => `${(100 * share).toFixed(share < 0.001 ? 3 : 1)}%`;

const valid = {}; // the last value of each control that is one: it may be half typed while the text goes on
const number = (id) => (find(id).validity.valid ? (valid[id] = Number(find(id).value)) : valid[id]);

// What goes wrong, such as memory that runs out, is seen, and not only in the browser's console.
window.addEventListener("error", ({ message }) => (find("problem").textContent = message));

/** Say what is wrong with the controls, and whether nothing is. */
function check() {
  const wrong = [...document.querySelectorAll("#form input")].filter((input) => !input.checkValidity());
  const names = wrong.map((input) => `${input.labels[0].textContent.trim()}: ${input.validationMessage}`);
  find("problem").textContent = names.join(" ");
  wrong[0]?.focus();
  return !wrong.length;
}

/** Let Ctrl-Enter in the prompt write, and "Another seed" write with another. */
function addShortcuts() {
  find("other").addEventListener("click", () => {
    find("seed").value = Math.floor(Math.random() * 1e6);
    find("form").requestSubmit(find("write"));
  });
  find("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("form").requestSubmit(find("write"));
  });
}

/** The legend of the colours. */
function addLegend() {
  [0, ...BITS].forEach((bits, at) =>
    find("legend").append(make("span", `${bits}${at === BITS.length ? "+ bits" : ""}`, { className: `s${at}` })));
}

/** The tokens with their records { id, drawn, bits, choices }, and spans, each of one token or of a
 *  few that make a character together. `takeOther(ids)` is called where somebody chooses another
 *  token at a place, and `picked()` where somebody chooses a place. */
class Shown {
  constructor(text, choices, { takeOther, picked = () => {} }) {
    Object.assign(this, { text, choices, takeOther, picked });
    this.clear(null);
    text.addEventListener("pointerover", ({ target, pointerType }) => {
      if (pointerType === "mouse" && target.at !== undefined && !this.pinned) this.choose(target.at);
    });
    text.addEventListener("click", ({ target }) => {
      if (target.at !== undefined) this.pick(this.pinned && target.at === this.chosen ? -1 : target.at);
    });
    text.addEventListener("keydown", (event) => this.go(event));
  }

  /** Begin anew, with texts of the tokens of `tokenizer`. */
  clear(tokenizer) {
    this.text.replaceChildren(make("div"));
    Object.assign(this, { tokens: [], spans: [], open: null, chosen: -1, pinned: false, tokenizer });
    this.stream = tokenizer?.stream();
  }

  /** Show one more token. */
  append(record) {
    this.tokens.push(record);
    const text = this.stream(record.id), at = this.tokens.length - 1;
    this.open ??= at;
    if (!text) return; // a character's first bytes
    const records = this.tokens.slice(this.open), span = make("span", text);
    const bits = records.reduce((sum, each) => sum + (each.bits ?? 0), 0);
    span.className = `s${level(bits)}${record.drawn ? "" : " given"}${text.endsWith("\n") ? " break" : ""}`;
    span.at = this.spans.push({ span, first: this.open, end: at + 1 }) - 1;
    this.open = null;
    this.text.lastChild.append(span);
    if (text.endsWith("\n")) this.text.append(make("div"));
  }

  label(id) {
    const text = this.tokenizer.stream()(id);
    if (!this.tokenizer.bytes || (text && !text.includes("\ufffd"))) return visible(text);
    return this.tokenizer.bytes[id].map((byte) => `<${byte.toString(16).padStart(2, "0")}>`).join("");
  }

  /** Choose the span `at`, or none with -1. */
  choose(at, pinned = this.pinned) {
    this.spans[this.chosen]?.span.classList.remove("chosen");
    Object.assign(this, { chosen: at, pinned });
    const found = this.spans[at];
    if (!found) return;
    found.span.classList.add("chosen");
    const parts = [];
    for (let token = found.first; token < found.end; token++) parts.push(...this.tellOf(token));
    this.choices.replaceChildren(...parts);
  }

  tellOf(at) {
    const { id, bits, choices } = this.tokens[at];
    const head = make("h3", `\u201c${this.label(id)}\u201d, token ${at + 1}`);
    if (!choices) return [head, make("p", "The model read nothing before it here.")];
    const told = `${percent(2 ** -bits)} likely: ${bits.toFixed(2)} bits of surprise. What it expected here:`;
    const list = make("ol");
    for (const [other, share] of choices) {
      const button = make("button", "", { type: "button", title: "write on with this one instead" });
      const bar = make("meter", "", { value: share, ariaHidden: "true" });
      button.append(make("b", this.label(other)), ` ${percent(share)} `, bar);
      button.onclick = () => check() && this.takeOther([...this.tokens.slice(0, at).map((token) => token.id), other]);
      const item = make("li");
      if (other === id) item.className = "taken";
      item.append(button);
      list.append(item);
    }
    return [head, make("p", told), list];
  }

  pick(at) {
    this.choose(at, at >= 0);
    this.picked();
  }

  /** Go through the text by keys. */
  go(event) {
    const last = this.spans.length - 1, at = this.chosen;
    const places = { ArrowLeft: Math.max(0, at - 1), ArrowRight: Math.min(last, at + 1), Home: 0, End: last, Escape: -1 };
    if (!(event.key in places) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.pick(places[event.key]);
    this.spans[this.chosen]?.span.scrollIntoView({ block: "nearest" });
  }
}
