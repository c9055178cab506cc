import { defineConfig } from "vitest/config";

/** Tests that start the real server, most of them with a real browser; one file at a time, since each starts its own. */
export default defineConfig({
  test: {
    include: ["test/real/**/*.test.ts", "test/browser/**/*.test.ts"],
    fileParallelism: false,
    testTimeout: 90_000,
    hookTimeout: 60_000,
  },
});
