/** Fails if the committed pages or docs/api.md are not what the sources make, or if an export has grown too large. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isReferenceFresh } from "./api.mjs";
import { PAGES, PAGE_FILES, bundlePage, root, sizes } from "./bundle.mjs";

const read = (path) => readFile(path).catch(() => null);
const fresh = await mkdtemp(join(tmpdir(), "rejoin-page-"));
try {
  const stale = [];
  for (const page of PAGES) {
    await bundlePage(page, join(fresh, page));
    for (const file of PAGE_FILES) {
      const committed = await read(join(root, page, "dist", file));
      const built = await read(join(fresh, page, file));
      if (!committed || !built?.equals(committed)) stale.push(`${page}/dist/${file}`);
    }
  }
  if (!(await isReferenceFresh())) stale.push("docs/api.md");
  if (stale.length > 0) {
    console.error(`Not what the sources make: ${stale.join(", ")}. Run "npm run build" and commit them.`);
    process.exitCode = 1;
  } else {
    console.log("The pages in dist and docs/api.md are what the sources make.");
  }
} finally {
  await rm(fresh, { recursive: true, force: true });
}

/** What a page may have to carry of each export, minified and compressed. */
const LIMITS = { index: 12_000, persist: 3_000, live: 1_000, react: 3_000 };

for (const [name, size] of Object.entries(await sizes())) {
  const limit = LIMITS[name];
  console.log(`${name}: ${size} of ${limit} bytes, minified and gzipped`);
  if (size <= limit) continue;
  console.error(`${name} is ${size - limit} bytes too large: take something out, or raise its limit here and say why.`);
  process.exitCode = 1;
}
