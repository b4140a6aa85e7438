// The server's page: one prompt, and what one model or two side by side write on from it.

const known = JSON.parse(find("known").textContent);
const tokenizers = Object.fromEntries(known.models.map(({ id, tokenizer }) => [id, openTokenizer(tokenizer)]));

/** The answer of the server to a request; an Error says what it refuses. */
async function request(body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (find("token")) headers.Authorization = `Bearer ${find("token").value}`;
  const response = await fetch("/v1/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (response.ok) return response;
  if (response.status === 401) find("token")?.focus();
  const { error } = await response.json();
  throw new Error(error.message);
}

/** The server-sent events of a response, each as an object. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The server has ended the answer half-way.");
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      const event = JSON.parse(line.slice("data: ".length));
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

/** A model's text. */
class Pane {
  constructor(element) {
    const part = (name) => element.querySelector(`.${name}`);
    this.model = part("model");
    this.speed = part("speed");
    this.shown = new Shown(part("text"), part("choices"), { takeOther: (ids) => this.begin(ids, ids.length) });
    this.running = null;
  }

  /** Write on from `prompt`, of which so many characters, or token numbers, are shown first. */
  async begin(prompt, given) {
    this.stop();
    const running = (this.running = new AbortController()), model = this.model.value;
    const counts = Array.isArray(prompt) ? (at) => at < given : (at, offset) => offset < given;
    this.shown.clear(tokenizers[model]);
    Object.assign(this, { since: null, written: 0, failed: null });
    tellButtons();
    try {
      for await (const { choices } of events(await request(this.body(prompt, model), running.signal))) {
        if (this.running === running) this.add(choices[0], counts);
      }
    } catch (error) {
      if (error.name !== "AbortError") find("problem").textContent = error.message;
    }
    if (this.running === running) this.running = null;
    tellButtons();
  }

  body(prompt, model) {
    return {
      model, prompt, stream: true, echo: true, logprobs: known.shown, return_token_ids: true,
      max_tokens: number("length"), temperature: number("temperature"), top_k: number("top-k"),
      top_p: number("top-p"), seed: number("seed"), window: find("window").value,
    };
  }

  add(choice, isGiven) {
    const { logprobs, token_ids, top_token_ids } = choice;
    token_ids.forEach((id, at) => {
      const logprob = logprobs.token_logprobs[at];
      const drawn = !isGiven(this.shown.tokens.length, logprobs.text_offset[at]);
      const bits = logprob === null ? null : -logprob / Math.LN2;
      const choices = top_token_ids[at]?.map(([other, each]) => [other, Math.exp(each)]) ?? null;
      this.shown.append({ id, drawn, bits, choices });
      this.written += drawn;
    });
    this.since ??= performance.now();
    const rate = (1000 * this.written) / (performance.now() - this.since);
    this.speed.textContent = `${this.shown.tokens.length} tokens${this.written > 99 ? `, ${Math.round(rate)} a second` : ""}`;
  }

  stop() {
    this.running?.abort();
    this.running = null;
  }
}

const panes = [...document.querySelectorAll(".pane")].map((element) => new Pane(element));
window.page = { panes };

function tellButtons() {
  find("pause").disabled = panes.every((pane) => !pane.running);
}

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!check()) return;
  if (find("token")) sessionStorage.setItem("token", find("token").value);
  const prompt = normalise(find("prompt").value);
  for (const pane of panes) pane.begin(prompt, [...prompt].length);
});
find("pause").addEventListener("click", () => {
  panes.forEach((pane) => pane.stop());
  tellButtons();
});
panes.forEach((pane, number) => {
  for (const { id } of known.models) pane.model.append(make("option", id, { value: id }));
  pane.model.selectedIndex = number;
});
if (find("token")) find("token").value = sessionStorage.getItem("token") ?? "";
addShortcuts();
addLegend();
