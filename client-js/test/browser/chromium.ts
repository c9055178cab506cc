/** Starts the machine's Chromium for tests: no sandbox, no network of its own, a profile that is thrown away. */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { chromium, type Browser, type Page } from "playwright-core";

const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** The browser's program: `CHROMIUM_BIN`, or where distributions put it. */
export function chromiumPath(): string | undefined {
  return process.env["CHROMIUM_BIN"] ?? PLACES.find((path) => existsSync(path));
}

export function launch(...more: string[]): Promise<Browser> {
  return start(more, []);
}

/** As `launch`, but a page that is left is kept aside as it is, for the way back. */
export function launchKeepingPages(): Promise<Browser> {
  return start([], ["--disable-back-forward-cache"]);
}

function start(more: readonly string[], ignoreDefaultArgs: string[]): Promise<Browser> {
  const executablePath = chromiumPath();
  if (executablePath === undefined) throw new Error("There is no Chromium. Install it, or name it in CHROMIUM_BIN.");
  return chromium.launch({
    executablePath,
    ignoreDefaultArgs,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...more,
    ],
  });
}

/** Keeps a picture where `SCREENSHOTS` names a folder. */
export async function screenshot(page: Page, name: string): Promise<void> {
  const folder = process.env["SCREENSHOTS"];
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`) });
}
