// Published folders in transformers.js; FOLDER as make_folder.py left it.
import assert from "node:assert/strict";
import { copyFileSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import test from "node:test";
import { pathToFileURL } from "node:url";
import { AutoTokenizer, Tensor, env, pipeline } from "@huggingface/transformers";
import { cosine } from "./vectors.mjs";

const folder = resolve(process.env.FOLDER);
env.allowRemoteModels = false;
env.localModelPath = folder;
// Node takes it for a module by this name only.
copyFileSync(new URL("../../../model_card/space/tasks.js", import.meta.url), `${folder}/tasks.mjs`);
const { TASKS } = await import(pathToFileURL(`${folder}/tasks.mjs`));
const expected = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8"));

for (const [model, vectors] of Object.entries(expected.vectors)) {
  for (const [dtype, precision] of [["fp32", "fp32"], ["q8", "int8"]]) {
    test(`vectors of ${model} in ${dtype}`, async () => {
      const extract = await pipeline("feature-extraction", model, { dtype });
      const found = (await extract(expected.sentences, { pooling: "mean" })).tolist();
      assert.equal(found.length, vectors.length);
      found.forEach((vector, index) => {
        const similar = cosine(vector, vectors[index]);
        assert.ok(similar > expected.least_cosine[precision], `${expected.sentences[index]}: ${similar}`);
      });
    });
  }
}

for (const [kind, ids] of Object.entries(expected.ids)) {
  test(`ids of a ${kind} tokenizer`, async () => {
    const tokenizer = await AutoTokenizer.from_pretrained(`tokenizers/${kind}`);
    assert.deepEqual(expected.texts.map((text) => tokenizer.encode(text)), ids);
  });
}

for (const [kind, ids] of Object.entries(expected.word_ids)) {
  test(`words of a tagger with a ${kind} tokenizer`, async () => {
    const tokenizer = await AutoTokenizer.from_pretrained(`tokenizers/${kind}`);
    let seen;
    const predict = async ({ input_ids }) => {
      seen = [...input_ids.data].map(Number);
      return { logits: { dims: [1, seen.length, 1], data: new Float32Array(seen.length) } };
    };
    const model = Object.assign(predict, { config: {} });
    // Without white space, too, each word is tokenised as one of its own.
    await TASKS["token-classification"](expected.words.join(" "), { tokenizer, model, Tensor });
    assert.deepEqual(seen, ids);
    await TASKS["token-classification"](expected.words.join(" ").replace(" ,", ","), { tokenizer, model, Tensor });
    assert.deepEqual(seen, ids);
  });
}
