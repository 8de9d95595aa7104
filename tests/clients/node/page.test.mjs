// The demo pages in a headless Chromium; FOLDER as make_folder.py and make_pages.py left it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { browserPath, launch, serve, typeOf } from "./browser.mjs";

const pages = join(resolve(process.env.FOLDER), "pages");
const expected = JSON.parse(readFileSync(join(pages, "expected.json"), "utf8"));
const modules = resolve("tests/clients/node/node_modules");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const skip = browserPath() ? false : "no Chromium is installed, and CHROME names none";
const SECRET = "никому";

describe("demo pages", { skip }, () => {
  let server;
  let browser;
  before(async () => {
    [server, browser] = await Promise.all([serve(pages), launch()]);
  });
  after(async () => {
    await browser.close();
    server.close();
  });

  /** Opens a page and waits for its first prediction or problem; what it asks for and complains of is in its lists. */
  async function open(name, { answer, viewport = { width: 900, height: 900 }, theme = "light" } = {}) {
    // A profile of its own: the library keeps the models that it has loaded.
    const page = await (await browser.createBrowserContext()).newPage();
    page.setDefaultTimeout(300_000);
    const found = { page, requests: [], complaints: [] };
    await page.setViewport(viewport);
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
    await page.setRequestInterception(true);
    page.on("request", (request) => {
      found.requests.push(request);
      const special = answer?.(request);
      if (special) request.respond(special);
      else request.continue();
    });
    page.on("console", (message) => found.complaints.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => found.complaints.push(error.message));
    await page.goto(`${server.url}/${name}/`);
    await settled(page);
    return found;
  }

  const settled = (page) => page.waitForFunction(() => document.getElementById("results").ariaBusy === "false");
  const textOf = (page, selector) => page.$eval(selector, (element) => element.textContent);
  const problem = (page) => page.$eval("#problem", (element) => (element.hidden ? "" : element.textContent));
  const bars = (page) =>
    page.$$eval(".bars li", (items) =>
      items.map((item) => [".label", ".value"].map((part) => item.querySelector(part).textContent)),
    );

  /** Puts a text into the field in the place of another, and waits for what the page says of it. */
  async function type(page, text) {
    await page.evaluate(() => (document.getElementById("results").ariaBusy = "true"));
    await page.focus("#text");
    await page.keyboard.down("Control");
    await page.keyboard.press("a");
    await page.keyboard.up("Control");
    await page.keyboard.sendCharacter(text);
    await settled(page);
  }

  for (const task of ["fill-mask", "sentence-similarity", "text-classification"]) {
    test(`${task} says what PyTorch says`, async () => {
      const { page, complaints } = await open(task);
      const found = await bars(page);
      const labels = (rows) => rows.map(([label]) => label).sort();
      // Random weights: int8 may exchange what is about as likely.
      if (task === "fill-mask") assert.equal(found[0][0], expected[task][0][0]);
      else assert.deepEqual(labels(found), labels(expected[task]));
      const shown = found.map(([, text]) => parseFloat(text.replace(",", ".")));
      assert.deepEqual(shown, shown.toSorted((a, b) => b - a));
      const values = new Map(expected[task]);
      for (const [label, text] of found.filter(([label]) => values.has(label))) {
        const value = parseFloat(text.replace(",", ".")) / (text.endsWith("%") ? 100 : 1);
        assert.ok(Math.abs(value - values.get(label)) < 0.02, `${label}: ${text}, ${values.get(label)}`);
      }
      assert.deepEqual(complaints, []);
    });
  }

  test("token-classification marks what was tagged in fine-tuning", async () => {
    const { page, complaints } = await open("token-classification");
    const spans = () =>
      page.$$eval("mark", (marks) => marks.map((mark) => [mark.firstChild.data, mark.querySelector("b").textContent]));
    assert.deepEqual(await spans(), expected["token-classification"]);
    assert.equal(await textOf(page, ".spans"), "Анна ПетроваPER живёт в МосквеLOC.");
    await type(page, "Он живёт.");
    assert.deepEqual(await spans(), []);
    assert.deepEqual(complaints, []);
  });

  test("what is typed is read, and shown as text", async () => {
    const { page, complaints } = await open("fill-mask");
    const before = await bars(page);
    await type(page, "Спасибо, [MASK].");
    assert.notDeepEqual(await bars(page), before);
    await type(page, "[MASK] и [MASK]");
    assert.deepEqual(await page.$$eval("#results h3", (all) => all.map((one) => one.textContent)), ["Пропуск 1", "Пропуск 2"]);
    await type(page, "<img src=x onerror=alert(1)>");
    assert.equal(await textOf(page, "#results"), "Поставьте [MASK] на место пропущенного слова.");
    await type(page, " ");
    assert.equal(await textOf(page, "#results"), "Введите текст или выберите пример.");
    await type(page, `[MASK] ${"да ".repeat(100)}`);
    assert.match(await textOf(page, "#results"), /Текст длиннее, чем читает модель/);
    assert.deepEqual(complaints, []);
    const classes = await open("text-classification");
    await type(classes.page, "<b>Как хорошо!</b>");
    assert.deepEqual((await bars(classes.page)).map(([label]) => label).sort(), ["<b>радость</b>", "грусть"]);
    assert.equal(await classes.page.$("#results b"), null);
  });

  test("a keyboard is enough", async () => {
    const { page } = await open("text-classification");
    await page.focus("#text");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    await page.evaluate(() => (document.getElementById("results").ariaBusy = "true"));
    await page.keyboard.press("Enter");
    await settled(page);
    assert.equal(await page.$eval("#text", (field) => field.value), "Всё плохо.");
    assert.equal((await bars(page))[0][0], "грусть");
    const masks = await open("fill-mask");
    await type(masks.page, "Да, ");
    await masks.page.keyboard.press("Tab");
    await masks.page.keyboard.press("Enter");
    assert.equal(await masks.page.$eval("#text", (field) => field.value), "Да, [MASK]");
  });

  for (const task of Object.keys(expected)) {
    for (const theme of ["light", "dark"]) {
      test(`${task} can be read by everybody, ${theme}`, async () => {
        const { page } = await open(task, { theme, viewport: { width: 360, height: 740 } });
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() =>
          globalThis.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }),
        );
        assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), []);
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "it scrolls sideways");
        assert.equal(await page.evaluate(() => document.documentElement.lang), task === "sentence-similarity" ? "en" : "ru");
      });
    }
  }

  test("no text leaves the page, nor any request the machine", async () => {
    const { page, requests } = await open("fill-mask");
    await type(page, `${SECRET} [MASK]`);
    assert.ok(requests.every((request) => request.url().startsWith(`${server.url}/`)));
    const sent = requests.map((request) => `${decodeURIComponent(request.url())} ${request.postData() ?? ""}`);
    assert.ok(sent.every((text) => !text.includes(SECRET)));
    const refused = await page.evaluate(async () => {
      const addresses = ["https://example.com/?text", `${location.origin.replace("127.0.0.1", "localhost")}/`];
      const answers = await Promise.allSettled(addresses.map((address) => fetch(address)));
      return answers.map((answer) => answer.status);
    });
    assert.deepEqual(refused, ["rejected", "rejected"]);
  });

  test("a page without its model says so", async () => {
    const answer = (request) => request.url().endsWith(".onnx") && { status: 404, body: "" };
    const { page } = await open("fill-mask", { answer });
    assert.match(await problem(page), /^Модель не загружается из http:\/\/127\.0\.0\.1:\d+\/fill-mask\/model \(.+\)/);
  });

  /** Answers as the CDN and the public Hub do. */
  function elsewhere(request, spoiled = "") {
    const url = new URL(request.url());
    const [, file] =
      url.host === "cdn.jsdelivr.net" ? url.pathname.match(/^\/npm\/((?:@[^/]+\/)?[^/@]+)@[^/]+(\/.+)$/).slice(0, 3) : [];
    const path = file
      ? join(modules, file, url.pathname.split(/@[^/@]+\/dist\//).pop().replace(/^/, "dist/"))
      : url.host === "huggingface.co" && join(pages, "fill-mask/model", url.pathname.split("/").slice(5).join("/"));
    if (!path) return undefined;
    const body = readFileSync(path);
    if (spoiled && path.endsWith(spoiled)) body[body.length - 1] ^= 1;
    return { status: 200, body, contentType: typeOf(path), headers: { "Access-Control-Allow-Origin": "*" } };
  }

  test("model and library come from elsewhere, each at its version", async () => {
    const { page, requests, complaints } = await open("hub", { answer: elsewhere });
    assert.equal(await problem(page), "");
    assert.equal((await bars(page))[0][0], expected["fill-mask"][0][0]);
    const asked = requests.map((request) => request.url()).filter((url) => !url.startsWith(server.url));
    assert.equal(asked.filter((url) => url.startsWith("https://cdn.jsdelivr.net/npm/")).length, 3);
    const files = asked.filter((url) => url.startsWith("https://huggingface.co/me/tiny/resolve/0123456789abcdef"));
    assert.equal(files.length + 3, asked.length);
    assert.deepEqual(complaints, []);
  });

  for (const file of ["transformers.web.min.js", "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"]) {
    test(`another ${file} than was tested is not run`, async () => {
      const { page } = await open("hub", { answer: (request) => elsewhere(request, file) });
      assert.match(await problem(page), /^Не загружается библиотека/);
    });
  }

  test("a page of tiny-5k is small", async () => {
    const { page, requests } = await open("tiny-5k");
    const urls = requests.map((request) => request.url()).filter((url) => !url.includes("/library/"));
    const sizes = await Promise.all(urls.map(async (url) => (await (await fetch(url)).arrayBuffer()).byteLength));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    assert.ok(bytes > 3e6 && bytes < 6e6, `${bytes} bytes`);
    assert.match(await textOf(page, "#status"), /^Готово: \d,\d МБ/);
  });
});
