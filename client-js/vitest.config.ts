import { defineConfig } from "vitest/config";

/** Tests that need nothing but this package. */
export default defineConfig({
  test: {
    include: ["test/**/*.test.{ts,tsx}"],
    exclude: ["test/browser/**", "test/real/**", "node_modules/**"],
    restoreMocks: true,
  },
});
