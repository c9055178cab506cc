import { defineConfig } from "vitest/config";

/** Tests that start the real server and a real browser; one at a time, since each starts both. */
export default defineConfig({
  test: {
    include: ["test/browser/**/*.test.ts"],
    fileParallelism: false,
    testTimeout: 90_000,
    hookTimeout: 60_000,
  },
});
