// One start for page_speed.py: reads { folder, page, texts } from standard input, opens the page in a browser of
// its own and lets it predict each text. Prints { browser, first_s, milliseconds }.
import { readFileSync } from "node:fs";
import { launch, serve } from "../tests/clients/node/browser.mjs";

const order = JSON.parse(readFileSync(0, "utf8"));
const server = await serve(order.folder);
const browser = await launch();
try {
  const page = await browser.newPage();
  // When the page has shown something, by its own clock, which begins with the navigation.
  await page.evaluateOnNewDocument(() => {
    globalThis.shown = [];
    const note = () => {
      if (document.getElementById("results")?.ariaBusy === "false") globalThis.shown.push(performance.now());
    };
    new MutationObserver(note).observe(document, { subtree: true, attributes: true, attributeFilter: ["aria-busy"] });
  });
  await page.goto(`${server.url}/${order.page}/`);
  const settled = (count) =>
    page.waitForFunction((wanted) => globalThis.shown.length >= wanted, { timeout: 60_000 }, count);

  /** The milliseconds that the page says; an error where it shows no prediction. */
  async function latency() {
    const [problem, bars, said] = await page.evaluate(() => [
      document.getElementById("problem").textContent,
      document.querySelectorAll(".bars li").length,
      document.getElementById("latency").textContent,
    ]);
    if (problem || !bars) throw new Error(`${order.page}: no prediction: ${problem || said}`);
    return parseFloat(said.replace(/\s/g, "").replace(",", "."));
  }

  await settled(1);
  await latency();
  const first = await page.evaluate(() => globalThis.shown[0] / 1000);
  const milliseconds = {};
  let count = 1;
  for (const [kind, texts] of Object.entries(order.texts)) {
    milliseconds[kind] = [];
    for (const text of texts) {
      await page.evaluate((typed) => {
        document.getElementById("text").value = typed;
        document.getElementById("text").dispatchEvent(new Event("input", { bubbles: true }));
      }, text);
      await settled((count += 1));
      milliseconds[kind].push(await latency());
    }
  }
  console.log(JSON.stringify({ browser: await browser.version(), first_s: first, milliseconds }));
} finally {
  await browser.close();
  server.close();
}
