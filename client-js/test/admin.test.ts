import { describe, expect, it } from "vitest";
import { merge, totals, type NodeEntry, type Overview } from "../admin/overview.js";
import { expiryOf } from "../admin/token.js";
import { busInWords, duration, isLate, lease, line, rate } from "../admin/words.js";

function node(change: Partial<NodeEntry> = {}): NodeEntry {
  const rates = { channels: 4, deliveries_per_second: 10, events_per_second: 2.5, joins_per_second: 0 };
  const base = { name: "a", incarnation: "i", state: "live", lease_ttl_ms: 6_000, seen_ms_ago: 400 } as const;
  return { ...base, connections: 3, running_turns: 1, rates, ...change };
}

const overview: Overview = {
  at: "2026-11-22T10:00:00.000Z",
  server: { node: { name: "a" }, bus: "connected", version: "0.1.0" },
  nodes: [node(), node({ state: "draining", rates: null }), node({ state: "dead", connections: 9, running_turns: 2 })],
  queued: { count: 0, oldest: null },
  turns: [],
  lost: [],
};

describe("words of the operators' page", () => {
  it("says times in at most two units", () => {
    const cases = [
      [-5, "0 s"],
      [999, "0 s"],
      [59_999, "59 s"],
      [60_000, "1 min"],
      [200_000, "3 min 20 s"],
      [7_500_000, "2 h 5 min"],
      [3_600_000, "1 h"],
      [90_061_000, "1 d 1 h"],
    ] as const;
    for (const [ms, text] of cases) expect(duration(ms)).toBe(text);
  });

  it("says rates exactly where they are small", () => {
    const cases = [
      [0, "0"],
      [0.4, "0.4"],
      [3, "3"],
      [9.96, "10.0"],
      [12.6, "13"],
      [12_345, "12.3k"],
    ] as const;
    for (const [perSecond, text] of cases) expect(rate(perSecond)).toBe(text);
  });

  it("says how much of a lease has passed, and when that is late", () => {
    expect(lease(node())).toBe("0.4 s ago of 6 s");
    expect(lease(node({ seen_ms_ago: null }))).toBe("not seen yet");
    expect(lease(node({ state: "dead", seen_ms_ago: null }))).toBe("over");
    expect(lease(node({ state: "dead", seen_ms_ago: 65_000 }))).toBe("over, seen 1 min 5 s ago");
    expect([node(), node({ seen_ms_ago: 3_001 }), node({ seen_ms_ago: 9_000, state: "dead" })].map(isLate)).toEqual([
      false,
      true,
      false,
    ]);
  });

  it("says whether other nodes are heard", () => {
    expect(["alone", "connected", "away"].map(busInWords)).toEqual(["no other nodes", "bus connected", "bus away"]);
  });

  it("draws a line that fits", () => {
    expect(line([], 100, 20)).toBe("");
    expect(line([0, 5, 10], 100, 20)).toBe("0.0,19.0 50.0,10.0 100.0,1.0");
  });
});

describe("a token", () => {
  const token = (claims: object): string => `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.c2ln`;

  it("says when it runs out, whatever letters its name has", () => {
    expect(expiryOf(token({ sub: "ada", name: "Zoë ÿ??>>", exp: 1_700_000_000 }))).toBe(1_700_000_000_000);
  });

  it("may say nothing of it, or be none", () => {
    expect([token({ sub: "ada" }), token({ exp: "soon" }), "", "a.b.c", "x"].map(expiryOf)).toEqual(Array(5).fill(null));
  });
});

describe("what operators hold", () => {
  it("is the parts that have changed over those that have not", () => {
    const turns = [] as const;
    const now = merge(overview, { at: "2026-11-22T10:00:01.000Z", queued: { count: 2, oldest: null }, turns });
    expect(now.queued.count).toBe(2);
    expect(now.nodes).toBe(overview.nodes);
    expect(now.at).toBe("2026-11-22T10:00:01.000Z");
  });

  it("sums what is there, and counts the turns of the dead until they are ended", () => {
    expect(totals(overview)).toEqual({ nodes: 2, connections: 6, running: 4, events: 2.5, deliveries: 10 });
  });
});
