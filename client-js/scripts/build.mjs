import { writeReference } from "./api.mjs";
import { PAGES, bundleLibrary, bundlePage, root } from "./bundle.mjs";

await bundleLibrary(`${root}/dist`);
for (const page of PAGES) await bundlePage(page, `${root}/${page}/dist`);
await writeReference();
