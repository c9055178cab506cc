/** How the library and the demo page are built; `build` and `check-bundle` share it. */
import { copyFile, mkdir, readFile, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

/** The folder of this package. */
export const root = fileURLToPath(new URL("..", import.meta.url));

/** The pages that the server embeds and serves, each in a folder of its own. */
export const PAGES = ["demo", "admin"];

/** What each of them is made of. */
export const PAGE_FILES = ["index.html", "app.js", "app.css"];

/** One of the pages, phoenix inside; the same input gives the same bytes. */
export async function bundlePage(page, folder) {
  await mkdir(folder, { recursive: true });
  const common = { absWorkingDir: root, bundle: true, minify: true, legalComments: "none", logLevel: "warning" };
  const target = ["es2022", "chrome110", "firefox115", "safari16.4"];
  // The page carries phoenix inside, so it carries its licence too.
  const licence = await readFile(`${root}/node_modules/phoenix/LICENSE.md`, "utf8");
  const banner = { js: `/*! Contains phoenix.\n${licence.trim()}\n*/` };
  await build({ ...common, target, banner, format: "esm", entryPoints: [`${page}/main.ts`], outfile: `${folder}/app.js` });
  await build({ ...common, target, entryPoints: [`${page}/style.css`], outfile: `${folder}/app.css` });
  await copyFile(`${root}/${page}/index.html`, `${folder}/index.html`);
}

/** The modules that the package exports. What two of them share lies in a module of its own. */
export const ENTRIES = ["index", "persist", "live", "react"];

/** The library, each export as one module; phoenix stays a dependency. */
export async function bundleLibrary(folder) {
  await rm(folder, { recursive: true, force: true });
  await build({
    absWorkingDir: root,
    bundle: true,
    format: "esm",
    target: "es2022",
    packages: "external",
    entryPoints: ENTRIES.map((name) => `src/${name}.ts`),
    outdir: folder,
    splitting: true,
    chunkNames: "shared-[hash]",
    sourcemap: "linked",
    sourcesContent: false,
    logLevel: "warning",
  });
}

/** How large each export is for a page that minifies and compresses it, in bytes; without what it imports. */
export async function sizes() {
  const common = { absWorkingDir: root, bundle: true, minify: true, format: "esm", target: "es2022", packages: "external" };
  const measured = ENTRIES.map(async (name) => {
    const { outputFiles } = await build({ ...common, entryPoints: [`src/${name}.ts`], write: false });
    return [name, gzipSync(outputFiles[0].contents, { level: 9 }).length];
  });
  return Object.fromEntries(await Promise.all(measured));
}
