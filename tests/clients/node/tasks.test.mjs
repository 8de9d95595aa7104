// Models of tasks in transformers.js; FOLDER as make_tasks.py left it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import test from "node:test";
import { AutoModelForSequenceClassification, AutoTokenizer, env, pipeline, softmax } from "@huggingface/transformers";

const folder = `${resolve(process.env.FOLDER)}/tasks`;
env.allowRemoteModels = false;
env.localModelPath = folder;
const expected = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8"));

for (const [dtype, tolerance] of [["fp32", 1e-3], ["q8", 0.15]]) {
  for (const name of ["nouns", "several"]) {
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

  test(`tags of the ${dtype} file`, async () => {
    const tag = await pipeline("token-classification", "tags", { dtype });
    for (const [index, text] of expected.texts.entries()) {
      const found = await tag(text);
      assert.ok(found.every(({ entity }) => ["O", "B-PET"].includes(entity)));
      if (dtype === "fp32") {
        assert.deepEqual(found.map(({ word, entity }) => [word, entity]), expected.tags[index]);
      }
    }
  });

  // The pipeline takes no pairs, and puts a softmax behind a score.
  for (const name of ["pairs", "scores"]) {
    test(`${name} of the ${dtype} file`, async () => {
      const tokenizer = await AutoTokenizer.from_pretrained(name);
      const model = await AutoModelForSequenceClassification.from_pretrained(name, { dtype });
      const [texts, others] = [0, 1].map((side) => expected.couples.map((couple) => couple[side]));
      const { logits } = await model(tokenizer(texts, { text_pair: others, padding: true, truncation: true }));
      for (const [index, row] of logits.tolist().entries()) {
        const found = name === "scores" ? row : softmax(row);
        for (const [place, value] of found.entries()) {
          const wanted = expected[name][index][model.config.id2label[place]];
          assert.ok(Math.abs(value - wanted) < tolerance, `${texts[index]}, ${others[index]}: ${value}, not ${wanted}`);
        }
      }
    });
  }
}
