// Models of tasks in transformers.js; FOLDER as make_tasks.py left it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import test from "node:test";
import { env, pipeline } from "@huggingface/transformers";

const folder = `${resolve(process.env.FOLDER)}/tasks`;
env.allowRemoteModels = false;
env.localModelPath = folder;
const expected = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8"));

for (const [dtype, tolerance] of [["fp32", 1e-3], ["q8", 0.15]]) {
  for (const name of ["classifier", "several"]) {
    test(`${name} of the ${dtype} file`, async () => {
      const classify = await pipeline("text-classification", name, { dtype });
      for (const [index, text] of expected.texts.entries()) {
        const found = await classify(text, { top_k: null });
        for (const { label, score } of found) {
          assert.ok(Math.abs(score - expected[name][index][label]) < tolerance, `${text}: ${label} ${score}`);
        }
      }
    });
  }

  test(`tagger of the ${dtype} file`, async () => {
    const tag = await pipeline("token-classification", "tagger", { dtype });
    for (const [index, text] of expected.texts.entries()) {
      const found = await tag(text);
      assert.ok(found.every(({ entity }) => ["O", "B-PET"].includes(entity)));
      if (dtype === "fp32") {
        assert.deepEqual(found.map(({ word, entity }) => [word, entity]), expected.tagger[index]);
      }
    }
  });
}
