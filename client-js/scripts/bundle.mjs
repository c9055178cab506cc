/** How the library and the demo page are built; `build` and `check-bundle` share it. */
import { copyFile, mkdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

/** The folder of this package. */
export const root = fileURLToPath(new URL("..", import.meta.url));

/** What the server embeds and serves. */
export const PAGE_FILES = ["index.html", "app.js", "app.css"];

/** The demo page, phoenix inside; the same input gives the same bytes. */
export async function bundlePage(folder) {
  await mkdir(folder, { recursive: true });
  const common = { absWorkingDir: root, bundle: true, minify: true, legalComments: "none", logLevel: "warning" };
  const target = ["es2022", "chrome110", "firefox115", "safari16.4"];
  // The page carries phoenix inside, so it carries its licence too.
  const licence = await readFile(`${root}/node_modules/phoenix/LICENSE.md`, "utf8");
  const banner = { js: `/*! Contains phoenix.\n${licence.trim()}\n*/` };
  await build({ ...common, target, banner, format: "esm", entryPoints: ["demo/main.ts"], outfile: `${folder}/app.js` });
  await build({ ...common, target, entryPoints: ["demo/style.css"], outfile: `${folder}/app.css` });
  await copyFile(`${root}/demo/index.html`, `${folder}/index.html`);
}

/** The modules that the package exports. None of them carries a part of another one. */
export const ENTRIES = ["index", "persist"];

/** The library, each export as one module; phoenix stays a dependency. */
export async function bundleLibrary(folder) {
  await build({
    absWorkingDir: root,
    bundle: true,
    format: "esm",
    target: "es2022",
    packages: "external",
    entryPoints: ENTRIES.map((name) => `src/${name}.ts`),
    outdir: folder,
    logLevel: "warning",
  });
}
