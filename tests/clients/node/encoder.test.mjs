// A published encoder of sentences in transformers.js, by its id, from the Hub that HF_ENDPOINT names; FOLDER as
// make_folder.py left it.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, test } from "node:test";
import { env, pipeline } from "@huggingface/transformers";

const expected = JSON.parse(readFileSync(`${resolve(process.env.FOLDER)}/expected.json`, "utf8"));
env.remoteHost = `${process.env.HF_ENDPOINT}/`;
env.allowLocalModels = false;
env.cacheDir = mkdtempSync(join(tmpdir(), "transformers-js-"));
after(() => rmSync(env.cacheDir, { recursive: true }));

for (const [dtype, precision] of [["fp32", "fp32"], ["q8", "int8"]]) {
  test(`normalised vectors of the ${dtype} file`, async () => {
    const extract = await pipeline("feature-extraction", process.env.REPO_ID, { dtype });
    for (const [kind, vectors] of Object.entries(expected.prompted_vectors)) {
      const texts = expected.sentences.map((sentence) => expected.prompts[kind] + sentence);
      const found = (await extract(texts, { pooling: "mean", normalize: true })).tolist();
      assert.equal(found.length, vectors.length);
      found.forEach((vector, index) => {
        const dot = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);
        assert.ok(Math.abs(dot(vector, vector) - 1) < 1e-3, "it is not normalised");
        const similar = dot(vector, vectors[index]);
        assert.ok(similar > expected.least_cosine[precision], `${texts[index]}: ${similar}`);
      });
    }
  });
}
