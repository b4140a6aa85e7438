// Read a GGUF file with llama.cpp: node export_llama.mjs FOLDER MODEL.gguf < job.json > answer.json
// FOLDER is where `npm install node-llama-cpp` was run. A job has `texts`, whose tokens and the
// text of these are answered, and `prompts`, lists of tokens, which go on greedily to `length`.
import {readFileSync} from "node:fs";
import {join} from "node:path";
import {pathToFileURL} from "node:url";

const [folder, file] = process.argv.slice(2);
const job = JSON.parse(readFileSync(0, "utf-8"));
const library = join(folder, "node_modules", "node-llama-cpp");
const {getLlama} = await import(pathToFileURL(join(library, "dist", "index.js")));
const {version} = JSON.parse(readFileSync(join(library, "package.json"), "utf-8"));

const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: file});
const cache = {experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"};
const context = await model.createContext({
    contextSize: job.length, threads: 1, flashAttention: false, ...cache
});

async function goOn(prompt) {
    const sequence = context.getSequence();
    const tokens = [...prompt];
    const options = {temperature: 0, yieldEogToken: true};
    for await (const token of sequence.evaluate(prompt, options)) {
        tokens.push(token);
        if (tokens.length >= job.length) break;
    }
    sequence.dispose();
    return tokens;
}

const texts = job.texts.map((text) => {
    const tokens = model.tokenize(text, false);
    return {tokens, text: model.detokenize(tokens, false)};
});
const greedy = [];
for (const prompt of job.prompts) greedy.push(await goOn(prompt));
process.stdout.write(JSON.stringify({library: `node-llama-cpp ${version}`, texts, greedy}));
await llama.dispose();
