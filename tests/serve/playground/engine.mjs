// node engine.mjs < JOBS: what the scripts of pages compute, without a browser. JOBS is JSON, a list
// of { page, ask: [{ text | ids, count, seed, controls, window, plain }] }; so is the answer, a list
// of lists.
import { readFileSync } from "node:fs";

function open(path) {
  const html = readFileSync(path, "utf8");
  const part = (id) => html.match(new RegExp(`<script[^>]* id="${id}">([^]*?)</script>`))[1];
  const scripts = [...html.matchAll(/<script>([^]*?)<\/script>/g)].map((found) => found[1]).slice(0, -2); // not what is shown
  const names = "{ Model, Reader, openVectors, openFloats, openTokenizer, normalise, write, attention, uniforms }";
  const engine = new Function(`"use strict";\n${scripts.join("\n")}\nreturn ${names};`)();
  const known = JSON.parse(part("known")), bytes = Uint8Array.from(Buffer.from(part("weights"), "base64"));
  const tokenizer = engine.openTokenizer(known.tokenizer), models = {};
  return { engine, tokenizer, start: known.start, model: (plain) =>
    (models[plain] ??= new engine.Model(known, bytes, plain ? engine.openFloats : engine.openVectors)) };
}

function answer(page, { text, ids, count = 0, seed = 0, controls = { temperature: 0 }, window = "exact", plain = false }) {
  const { engine, tokenizer } = page, model = page.model(plain), reader = (model.reader ??= new engine.Reader(model));
  const prompt = ids ?? tokenizer.encode(engine.normalise(text)), records = [];
  const source = engine.write(reader, prompt, { seed, window, controls: () => controls });
  const began = performance.now();
  while (records.length < prompt.length + count) {
    const { value } = source.next();
    if (value) records.push(value);
  }
  const seconds = (performance.now() - began) / 1000;
  const watcher = (model.watcher ??= new engine.Reader(model)), all = records.map(({ id }) => id);
  const skipped = Math.max(0, prompt.length - model.block_size);
  const looked = engine.attention(watcher, all.slice(skipped), window);
  let step = looked.next();
  while (!step.done) step = looked.next();
  watcher.reset();
  let logits = null;
  for (const id of prompt.slice(-model.block_size)) logits = watcher.read(id);
  const stream = tokenizer.stream();
  return {
    ids: prompt, tokens: all.slice(prompt.length), bits: records.map(({ bits }) => bits), seconds,
    choices: records.at(-1).choices, text: all.map(stream).join(""), logits: Array.from(logits), name: model.name,
    attention: { first: step.value.first, rows: step.value.rows.map((row) => Array.from(row)) },
  };
}

const jobs = JSON.parse(readFileSync(0, "utf8"));
const answers = jobs.map(({ page, ask }) => {
  let opened = null;
  return ask.map((each) => {
    try {
      return answer((opened ??= open(page)), each);
    } catch (error) {
      return { error: error.message };
    }
  });
});
process.stdout.write(JSON.stringify(answers));
