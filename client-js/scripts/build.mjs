import { bundleLibrary, bundlePage, root } from "./bundle.mjs";

await bundleLibrary(`${root}/dist`);
await bundlePage(`${root}/demo/dist`);
