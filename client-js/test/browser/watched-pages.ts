/** Serves `watched.ts` to browsers, bundled, as a page at `/watched.html?name=` of whatever server stands behind. */
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import type { BrowserContext } from "playwright-core";

const PAGE = '<!doctype html><script type="module" src="watched.js"></script>';

export class WatchedPages {
  private constructor(readonly script: string) {}

  static async build(): Promise<WatchedPages> {
    const entry = fileURLToPath(new URL("watched.ts", import.meta.url));
    const options = { bundle: true, format: "esm", target: "es2022", minify: true, write: false } as const;
    const bundle = await build({ entryPoints: [entry], ...options });
    return new WatchedPages(bundle.outputFiles[0]?.text ?? "");
  }

  async serve(context: BrowserContext): Promise<void> {
    await context.route("**/watched.html*", (route) => route.fulfill({ contentType: "text/html", body: PAGE }));
    await context.route("**/watched.js", (route) => route.fulfill({ contentType: "text/javascript", body: this.script }));
  }
}
