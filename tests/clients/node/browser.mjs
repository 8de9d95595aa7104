// A headless Chromium, and a web server on 127.0.0.1 for what it opens.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import puppeteer from "puppeteer-core";

const NAMES = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** The path of the browser that CHROME names or that is installed; undefined where there is none. */
export function browserPath() {
  if (process.env.CHROME) return process.env.CHROME;
  for (const name of NAMES) {
    try {
      return execFileSync("which", [name], { stdio: ["ignore", "pipe", "ignore"] }).toString().trim();
    } catch {
      continue;
    }
  }
}

export function typeOf(path) {
  return TYPES[extname(path)] ?? "application/octet-stream";
}

/** Serves a folder on a free port; close() ends it. */
export async function serve(folder) {
  const server = createServer((request, response) => {
    const asked = normalize(decodeURIComponent(new URL(request.url, "http://server").pathname));
    const path = asked.endsWith("/") ? `${asked}index.html` : asked;
    try {
      const body = readFileSync(join(folder, path));
      response.writeHead(200, { "Content-Type": typeOf(path), "Content-Length": body.length }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

/** A browser that finds no host but 127.0.0.1. */
export function launch() {
  return puppeteer.launch({
    executablePath: browserPath(),
    headless: "shell",
    timeout: 300_000,
    // Chromium refuses to start its sandbox as root, which containers are.
    args: ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
  });
}
