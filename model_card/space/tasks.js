// What a model does with a text: one function for each task that the page can show.
//
// Each gets the text and { tokenizer, model, page, Tensor } and returns groups of bars, { bars: [{ title, rows }] } with rows
// { label, share } or { label, cosine }, or a text in parts, { spans: [{ text, label, share }] }. A Hint is for the
// visitor to read.

export class Hint extends Error {}

export const TASKS = {
  "fill-mask": fillMask,
  "sentence-similarity": nearestSentences,
  "text-classification": classify,
  "token-classification": tag,
};

const SHOWN = 5;
// As BERT splits a text before it looks for tokens: words, and each sign by itself.
const WORDS = /[\p{L}\p{M}\p{N}]+|[^\p{L}\p{M}\p{N}\s]/gu;

async function fillMask(text, { tokenizer, model, page }) {
  const inputs = tokenizer(text, { truncation: true });
  const mask = BigInt(tokenizer.mask_token_id);
  const places = [...inputs.input_ids.data].flatMap((id, place) => (id === mask ? [place] : []));
  if (!places.length) throw new Hint(page.words.noMask);
  const { logits } = await model(inputs);
  const bars = places.map((place, index) => ({
    title: places.length > 1 ? page.words.gap.replace("{number}", index + 1) : "",
    rows: likeliest(row(logits, place)).map(({ index: id, share }) => ({ label: tokenizer.decode([id]), share })),
  }));
  return { bars };
}

async function classify(text, { tokenizer, model }) {
  const { logits } = await model(tokenizer(text, { truncation: true }));
  const isOfSeveral = model.config.problem_type === "multi_label_classification";
  const found = isOfSeveral ? independent(logits.data) : likeliest(logits.data);
  const rows = found.map(({ index, share }) => ({ label: labelOf(model, index), share }));
  return { bars: [{ title: "", rows }] };
}

// The first token of a word carries its tag, as in fine-tuning.
async function tag(text, { tokenizer, model, Tensor }) {
  const words = [...text.matchAll(WORDS)];
  const plain = { add_special_tokens: false, return_tensor: false };
  // Byte-level tokens have the space before a word in them, and other tokenizers do not mind it: as in fine-tuning.
  const pieces = words.map(([word], index) => tokenizer(index ? ` ${word}` : word, plain).input_ids);
  const [start, end] = outerTokens(tokenizer);
  const kept = fitting(pieces, tokenizer.model_max_length - start.length - end.length);
  const ids = [...start, ...pieces.slice(0, kept).flat(), ...end];
  const { logits } = await model(batchOf(ids, Tensor));
  let place = start.length;
  const tagged = words.slice(0, kept).flatMap(([word], index) => {
    const [best] = pieces[index].length ? likeliest(row(logits, place)) : [];
    place += pieces[index].length;
    if (!best) return [];
    const begin = words[index].index;
    return [{ begin, end: begin + word.length, tag: labelOf(model, best.index), share: best.share }];
  });
  return { spans: spansOf(text, tagged) };
}

async function nearestSentences(text, { tokenizer, model, page, candidates }) {
  if (!candidates.length) throw new Hint(page.words.noCandidates);
  const { pooling, query: queryPrompt, document: prompt } = page.vectors;
  const embed = async (sentence) => pooled(await model(tokenizer(sentence, { truncation: true })), pooling);
  const query = await embed(queryPrompt + text);
  const rows = [];
  for (const label of candidates) rows.push({ label, cosine: cosine(query, await embed(prompt + label)) });
  rows.sort((a, b) => b.cosine - a.cosine);
  return { bars: [{ title: "", rows }] };
}

/** The tokens that a tokenizer puts before and behind a text. */
function outerTokens(tokenizer) {
  const bare = tokenizer("a", { add_special_tokens: false, return_tensor: false }).input_ids;
  const whole = tokenizer("a", { return_tensor: false }).input_ids;
  const before = whole.indexOf(bare[0]);
  return [whole.slice(0, before), whole.slice(before + bare.length)];
}

/** How many words have together at most so many tokens. */
function fitting(pieces, limit) {
  let total = 0;
  const over = pieces.findIndex((ids) => (total += ids.length) > limit);
  return over < 0 ? pieces.length : over;
}

function batchOf(ids, Tensor) {
  const tensor = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
  return { input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)) };
}

/** Words with tags become spans of the text; a B-, or another name, begins a new one. */
export function spansOf(text, tagged) {
  const spans = [];
  for (const word of tagged) {
    const [, begins, name] = word.tag.match(/^(?:([BI])-)?(.*)$/);
    const last = spans.at(-1);
    if (name === "O") spans.push(null);
    else if (last && last.label === name && begins !== "B") last.end = word.end;
    else spans.push({ label: name, begin: word.begin, end: word.end, share: word.share });
  }
  let place = 0;
  const parts = spans.filter(Boolean).flatMap(({ begin, end, label, share }) => {
    const before = text.slice(place, begin);
    place = end;
    return [{ text: before }, { text: text.slice(begin, end), label, share }];
  });
  return [...parts, { text: text.slice(place) }].filter((part) => part.text);
}

const labelOf = (model, index) => model.config.id2label?.[index] ?? `LABEL_${index}`;

/** Row `place` of an output (1, tokens, values). */
function row(tensor, place) {
  const width = tensor.dims.at(-1);
  return tensor.data.subarray(place * width, (place + 1) * width);
}

/** The largest of some logits, with their shares by softmax over all. */
export function likeliest(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  let sum = 0;
  const top = [];
  logits.forEach((logit, index) => {
    const value = Math.exp(logit - largest);
    sum += value;
    if (top.length === SHOWN && value <= top.at(-1).value) return;
    const place = top.findIndex((other) => other.value < value);
    top.splice(place < 0 ? top.length : place, 0, { index, value });
    top.length = Math.min(top.length, SHOWN);
  });
  return top.map(({ index, value }) => ({ index, share: value / sum }));
}

/** The most probable of classes of which a text can have several, each with its probability. */
function independent(logits) {
  const found = [...logits].map((logit, index) => ({ index, share: 1 / (1 + Math.exp(-logit)) }));
  return found.sort((a, b) => b.share - a.share).slice(0, SHOWN);
}

function pooled({ last_hidden_state: hidden }, pooling) {
  if (pooling === "cls") return row(hidden, 0);
  const [, tokens, width] = hidden.dims;
  const mean = new Float64Array(width);
  hidden.data.forEach((value, index) => (mean[index % width] += value / tokens));
  return mean;
}

function cosine(a, b) {
  const product = (x, y) => x.reduce((sum, value, index) => sum + value * y[index], 0);
  return product(a, b) / Math.sqrt(product(a, a) * product(b, b));
}
