/** Fails if the committed page is not what its sources make. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PAGE_FILES, bundlePage, root } from "./bundle.mjs";

const read = (path) => readFile(path).catch(() => null);
const fresh = await mkdtemp(join(tmpdir(), "rejoin-page-"));
try {
  await bundlePage(fresh);
  const stale = [];
  for (const file of PAGE_FILES) {
    const [committed, built] = [await read(join(root, "demo/dist", file)), await read(join(fresh, file))];
    if (!committed || !built?.equals(committed)) stale.push(`demo/dist/${file}`);
  }
  if (stale.length > 0) {
    console.error(`Not what the sources make: ${stale.join(", ")}. Run "npm run build" and commit demo/dist.`);
    process.exitCode = 1;
  } else {
    console.log("demo/dist is what the sources make.");
  }
} finally {
  await rm(fresh, { recursive: true, force: true });
}
