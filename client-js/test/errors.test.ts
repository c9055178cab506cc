import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { RejoinError, type ErrorReason } from "../src/index.js";
import { errorFrom } from "../src/errors.js";

const codes = JSON.parse(readFileSync(new URL("../../protocol/codes.json", import.meta.url), "utf8")) as {
  readonly reasons: Readonly<Record<string, string>>;
};

/** What follows from each reason: it may have happened, it is worth repeating, the same join would be refused again. */
const REASONS: Readonly<Record<ErrorReason, "uncertain" | "passing" | "final" | "of the moment">> = {
  invalid: "final",
  unauthorized: "final",
  not_found: "final",
  conflict: "final",
  too_large: "final",
  busy: "of the moment",
  queue_full: "of the moment",
  rate_limited: "passing",
  draining: "passing",
  unavailable: "uncertain",
  timeout: "uncertain",
  disconnected: "uncertain",
  left: "of the moment",
  discarded: "of the moment",
  reset: "of the moment",
};

describe("an error", () => {
  it("has a type for each reason of the protocol", () => {
    expect(Object.keys(REASONS)).toEqual(expect.arrayContaining(Object.keys(codes.reasons)));
  });

  it.each(Object.entries(REASONS))("%s is %s, and says what to do or what the server said", (reason, what) => {
    const error = new RejoinError(reason);
    expect([error.uncertain, error.isFinal]).toEqual([what === "uncertain", what === "final"]);
    expect(error.isPassing).toBe(what === "uncertain" || what === "passing");
    expect(error.message).not.toBe("");
    expect(errorFrom({ reason, message: "As the server says." })).toMatchObject({ reason, message: "As the server says." });
  });

  it.each([null, 7, "x", {}, { reason: 7 }, { reason: "" }])("is made of whatever came: %j", (response) => {
    expect(errorFrom(response)).toMatchObject({ reason: "unavailable", uncertain: true });
  });
});
