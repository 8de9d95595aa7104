// Loads the model of the page into the browser and shows what it says of the text that is typed.
import { Hint, TASKS } from "./tasks.js";

const element = (id) => document.getElementById(id);
const page = JSON.parse(element("page").textContent);
const PAUSE_MS = 120;
const MEGABYTE = 1e6;

function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** A number in the page's language. */
function number(value, digits = 1) {
  return value.toLocaleString(page.language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function showProblem(text) {
  element("problem").textContent = text;
  element("problem").hidden = false;
  element("progress").hidden = true;
  element("status").textContent = "";
}

const reasonOf = (error) => String(error?.message ?? error).split("\n")[0];

async function loadLibrary() {
  const [library, binary] = await Promise.all([
    import("@huggingface/transformers"),
    fetch(page.runtime.url, { integrity: page.runtime.integrity }).then((answer) => answer.arrayBuffer()),
  ]);
  const { env } = library;
  // One thread: more need headers that a static page does not have.
  Object.assign(env.backends.onnx.wasm, { wasmBinary: binary, wasmPaths: { wasm: page.runtime.url }, numThreads: 1 });
  env.useWasmCache = false;
  env.allowLocalModels = page.model.local;
  env.allowRemoteModels = !page.model.local;
  if (page.model.local) env.localModelPath = new URL(".", document.baseURI).href;
  else env.remoteHost = page.model.endpoint;
  return library;
}

async function readJson(path) {
  const answer = await fetch(`${page.model.base}/${path}`);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function loadTokenizer({ PreTrainedTokenizer }, report) {
  const files = ["tokenizer.json", "tokenizer_config.json"];
  // AutoTokenizer looks for them on the main branch first, whatever the revision.
  const read = await Promise.all(files.map(readJson));
  for (const file of files) report({ status: "progress", file, loaded: Infinity });
  return new PreTrainedTokenizer(...read);
}

async function loadModel(library) {
  const { files, id, name, revision } = page.model;
  const arrived = {};
  const total = Object.values(files).reduce((sum, bytes) => sum + bytes, 0);
  const report = ({ status, file, loaded }) => {
    if (status !== "progress" || !(file in files)) return;
    arrived[file] = Math.min(loaded, files[file]);
    const done = Object.values(arrived).reduce((sum, bytes) => sum + bytes, 0);
    element("progress").value = done / total;
    element("status").textContent = fill(page.words.loaded, {
      done: number(done / MEGABYTE),
      total: number(total / MEGABYTE),
    });
  };
  const options = { revision, progress_callback: report, dtype: "q8", device: "wasm", model_file_name: name };
  const [tokenizer, model] = await Promise.all([
    loadTokenizer(library, report),
    library.AutoModel.from_pretrained(id, options),
  ]);
  return { tokenizer, model, page, Tensor: library.Tensor, bytes: total };
}

async function load() {
  const begun = performance.now();
  const library = await loadLibrary().catch((error) => {
    showProblem(fill(page.words.noLibrary, { reason: reasonOf(error) }));
  });
  if (!library) return null;
  const { local, id, endpoint } = page.model;
  const place = local ? new URL(id, document.baseURI).href : `${endpoint}/${id}`;
  const loaded = await loadModel(library).catch((error) => {
    showProblem(fill(page.words.noModel, { place, reason: reasonOf(error) }));
  });
  if (!loaded) return null;
  element("progress").hidden = true;
  const seconds = number((performance.now() - begun) / 1000);
  element("status").textContent = fill(page.words.ready, { size: number(loaded.bytes / MEGABYTE), seconds });
  return loaded;
}

function node(name, attributes, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

function barsOf({ title, rows }) {
  const items = rows.map(({ label, share, cosine }) => {
    const bar = node("span", { className: "bar" });
    bar.style.width = `${100 * Math.max(0, share ?? cosine)}%`;
    const value = cosine === undefined ? `${number(100 * share)} %` : number(cosine, 2);
    return node("li", {}, bar, node("span", { className: "label" }, label), node("span", { className: "value" }, value));
  });
  return [...(title ? [node("h3", {}, title)] : []), node("ol", { className: "bars" }, ...items)];
}

function markedText(spans) {
  const parts = spans.map(({ text, label, share }) =>
    label ? node("mark", { title: `${number(100 * share)} %` }, text, node("b", {}, label)) : text,
  );
  const hint = spans.some(({ label }) => label) ? [] : [node("p", { className: "aside" }, page.words.outside)];
  return [node("p", { className: "spans" }, ...parts), ...hint];
}

const shown = ({ bars, spans }) => (bars ? bars.flatMap(barsOf) : markedText(spans));

async function predict(loaded) {
  const text = element("text").value.trim();
  if (!text) throw new Hint(page.words.noText);
  const lines = element("candidates")?.value.split("\n").map((line) => line.trim());
  const begun = performance.now();
  const result = await TASKS[page.task](text, { ...loaded, candidates: lines?.filter(Boolean) });
  const milliseconds = performance.now() - begun;
  const isCut = loaded.tokenizer(text).input_ids.dims.at(-1) > loaded.tokenizer.model_max_length;
  const note = isCut ? [node("p", { className: "aside" }, page.words.cut)] : [];
  return { nodes: [...shown(result), ...note], milliseconds };
}

/** Shows the prediction for the text as it is now; what is typed meanwhile is taken next. */
function runner(loaded) {
  let isRunning = false;
  let isWanted = false;
  return async function run() {
    isWanted = true;
    if (isRunning) return;
    isRunning = true;
    while (isWanted) {
      isWanted = false;
      element("results").ariaBusy = "true";
      try {
        const { nodes, milliseconds } = await predict(loaded);
        element("results").replaceChildren(...nodes);
        element("latency").textContent = fill(page.words.latency, { milliseconds: number(milliseconds) });
      } catch (error) {
        const said = error instanceof Hint ? error.message : fill(page.words.failed, { reason: reasonOf(error) });
        element("results").replaceChildren(node("p", { className: "aside" }, said));
        element("latency").textContent = "";
      }
      element("results").ariaBusy = "false";
    }
    isRunning = false;
  };
}

function listen(run) {
  let pause;
  element("form").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(run, PAUSE_MS);
  });
  element("form").addEventListener("submit", (event) => event.preventDefault());
  element("examples")?.addEventListener("click", ({ target }) => {
    if (!target.closest("button")) return;
    element("text").value = target.textContent;
    run();
  });
  element("mask")?.addEventListener("click", () => {
    const text = element("text");
    text.setRangeText(page.mask, text.selectionStart, text.selectionEnd, "end");
    text.focus();
    run();
  });
}

const loaded = await load();
if (loaded) {
  const run = runner(loaded);
  listen(run);
  await run();
} else {
  element("results").ariaBusy = "false";
}
