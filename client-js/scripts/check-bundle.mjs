/** Fails if the committed pages are not what their sources make. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PAGES, PAGE_FILES, bundlePage, root } from "./bundle.mjs";

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
  if (stale.length > 0) {
    console.error(`Not what the sources make: ${stale.join(", ")}. Run "npm run build" and commit the folders dist.`);
    process.exitCode = 1;
  } else {
    console.log("The pages in dist are what the sources make.");
  }
} finally {
  await rm(fresh, { recursive: true, force: true });
}
