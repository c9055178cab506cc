import { describe, expect, it, vi } from "vitest";
import { Tokens, claimsOf, renewAfterMs } from "../src/tokens.js";

const NOW = 1_800_000_000;
const jwt = (claims: object): string => `h.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.s`;

describe("a token", () => {
  it("says who it is for, in any script", () => {
    expect(claimsOf(jwt({ sub: "u1", name: "Ада 🦉" }))).toEqual({ sub: "u1", name: "Ада 🦉" });
  });

  it.each(["", "opaque", "a.b.c", `a.${btoa("7")}.c`, `a.${btoa("null")}.c`])("that is no JWT (%j) says nothing", (token) => {
    expect(claimsOf(token)).toEqual({});
  });

  it.each([
    ["with 100 s left", { exp: NOW + 100 }, 80_000],
    ["that says nothing of an end", {}, null],
    ["that has run out, as far as this clock is right", { exp: NOW - 5 }, 1_000],
    ["of a clock an hour ahead of this one", { iat: NOW + 3_600, exp: NOW + 3_700 }, 80_000],
    ["of a clock an hour behind this one", { iat: NOW - 3_600, exp: NOW - 3_500 }, 80_000],
  ])("%s is renewed in time", (_what, claims, expected) => {
    expect(renewAfterMs(claims, NOW * 1_000)).toBe(expected);
  });
});

describe("a source", () => {
  it("is asked once by all who ask at the same time", async () => {
    const source = vi.fn(() => Promise.resolve("a"));
    const tokens = new Tokens(source, undefined, () => undefined);
    expect(await Promise.all([tokens.fetch(), tokens.fetch()])).toEqual(["a", "a"]);
    expect(source).toHaveBeenCalledTimes(1);
    expect(tokens.current).toBe("a");
  });

  it("that gives somebody else's token is not believed", async () => {
    const given = [jwt({ sub: "u1" }), jwt({ sub: "u2" })];
    const tokens = new Tokens(() => Promise.resolve(given.shift() ?? ""), undefined, () => undefined);
    await tokens.fetch();
    await expect(tokens.fetch()).rejects.toMatchObject({ reason: "unauthorized" });
    expect(tokens.claims.sub).toBe("u1");
  });

  it("that gives something else than a token is told so", async () => {
    const tokens = new Tokens((() => undefined) as unknown as () => string, undefined, () => undefined);
    await expect(tokens.fetch()).rejects.toThrow("must give a string");
  });

  it("that never answers is not waited for for ever", async () => {
    vi.useFakeTimers();
    const tokens = new Tokens(() => new Promise<string>(() => undefined), undefined, () => undefined);
    const fetching = expect(tokens.fetch()).rejects.toMatchObject({ reason: "timeout" });
    await vi.advanceTimersByTimeAsync(20_000);
    await fetching;
    vi.useRealTimers();
  });

  it("that was replaced while it was asked does not count any more", async () => {
    let answer: (token: string) => void = () => undefined;
    const tokens = new Tokens(() => new Promise<string>((resolve) => (answer = resolve)), undefined, () => undefined);
    const fetching = tokens.fetch();
    tokens.replace("new");
    answer("old");
    expect(await fetching).toBe("new");
    expect(tokens.current).toBe("new");
  });

  it("that gives the old token once more is asked ever slower", async () => {
    vi.useFakeTimers();
    vi.spyOn(Math, "random").mockReturnValue(1);
    const token = jwt({ exp: Date.now() / 1_000 + 10 });
    const source = vi.fn(() => token);
    const renewed = vi.fn();
    const tokens = new Tokens(source, undefined, renewed);
    void tokens.fetch();
    tokens.watch();
    await vi.advanceTimersByTimeAsync(300_000);
    expect(renewed).not.toHaveBeenCalled();
    expect(source.mock.calls.length).toBeGreaterThan(5);
    expect(source.mock.calls.length).toBeLessThan(25);
    tokens.rest();
    vi.useRealTimers();
  });
});
