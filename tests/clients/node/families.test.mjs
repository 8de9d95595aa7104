// A student of each family in transformers.js; FOLDER/families as make_families.py left it.
import assert from "node:assert/strict";
import { appendFileSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import test from "node:test";
import { env, pipeline } from "@huggingface/transformers";
import { cosine } from "./vectors.mjs";

const folder = resolve(process.env.FOLDER, "families");
env.allowRemoteModels = false;
env.localModelPath = folder;
const expected = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8"));

for (const [model, { sentences, vectors }] of Object.entries(expected.models)) {
  for (const [dtype, precision] of [["fp32", "fp32"], ["q8", "int8"]]) {
    test(`vectors of ${model} in ${dtype}`, async () => {
      const extract = await pipeline("feature-extraction", model, { dtype });
      const found = (await extract(sentences, { pooling: "mean" })).tolist();
      assert.equal(found.length, vectors.length);
      found.forEach((vector, index) => {
        const similar = cosine(vector, vectors[index]);
        assert.ok(similar > expected.least_cosine[precision], `${sentences[index]}: ${similar}`);
      });
      appendFileSync(`${folder}/opened.jsonl`, `${JSON.stringify({ model, client: "transformers.js" })}\n`);
    });
  }
}
