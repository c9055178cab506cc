import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Rejoin, Session } from "../src/index.js";
import { live, type LiveState } from "../src/live.js";
import { endClient, joinFirst, startClient } from "./support/client.js";
import { snapshot } from "./support/make.js";
import type { FakeServer } from "./support/server.js";

interface Point {
  readonly [axis: string]: number;
}

let server: FakeServer;
let rejoin: Rejoin;
let session: Session;
let cursor: LiveState<Point>;
const ben = { id: "u2", name: "Ben" };

beforeEach(async () => {
  ({ server, rejoin } = startClient({ user: { id: "u1" } }));
  session = rejoin.session("s1");
  cursor = live<Point>(session, "cursor");
  await joinFirst(server, session, snapshot(0));
  server.push("presence_state", { u2: { metas: [{ phx_ref: "r2", name: "Ben" }] } });
});

afterEach(() => endClient(rejoin));

const shown = (): unknown[] => server.connection.of("broadcast").map(({ payload }) => payload["payload"]);
const hear = (value: unknown, by = ben): void => server.push("broadcast", { event: "cursor", payload: { value }, by });

describe("one's own", () => {
  it("moves are told at once, then not more often than is worth it, and the last one always", () => {
    for (let x = 0; x < 100; x += 1) {
      cursor.set({ x });
      vi.advanceTimersByTime(10);
    }
    vi.advanceTimersByTime(1_000);
    expect(shown().length).toBeLessThanOrEqual(11);
    expect(shown()[0]).toEqual({ value: { x: 0 } });
    expect(shown().at(-1)).toEqual({ value: { x: 99 } });
  });

  it("value that stays the same is only told so that it does not expire", () => {
    const typing = live(session, "typing");
    for (let ms = 0; ms < 10_000; ms += 100) {
      typing.set(true);
      vi.advanceTimersByTime(100);
    }
    expect(shown()).toHaveLength(4);
  });

  it("end is told at once, and once", () => {
    cursor.set({ x: 1 });
    cursor.clear();
    cursor.clear();
    vi.advanceTimersByTime(1_000);
    expect(shown()).toEqual([{ value: { x: 1 } }, { value: null }]);
  });

  it("value that found no connection is told with the next key", async () => {
    server.connection.close();
    const typing = live(session, "typing");
    typing.set(true);
    await vi.advanceTimersByTimeAsync(600);
    server.connection.open();
    server.joined(snapshot(0));
    typing.set(true);
    expect(shown()).toEqual([{ value: true }]);
  });
});

describe("the others'", () => {
  it("values are shown with who shows them, the same array until something changes", () => {
    hear({ x: 1 });
    expect(cursor.getSnapshot()).toEqual([{ by: ben, value: { x: 1 } }]);
    const before = cursor.getSnapshot();
    hear({ x: 1 });
    expect(cursor.getSnapshot()).toBe(before);
    hear({ x: 2 });
    expect(cursor.getSnapshot()).toEqual([{ by: ben, value: { x: 2 } }]);
  });

  it.each([
    ["are cleared", (): void => hear(null)],
    ["were not heard of for a while", (): void => void vi.advanceTimersByTime(5_001)],
    ["leave", (): void => server.push("presence_diff", { joins: {}, leaves: { u2: { metas: [{ phx_ref: "r2" }] } } })],
  ])("values are gone when they %s", (_when, act) => {
    const changes = vi.fn();
    hear({ x: 1 });
    cursor.subscribe(changes);
    act();
    expect(cursor.getSnapshot()).toEqual([]);
    expect(changes).toHaveBeenCalledTimes(1);
  });

  it("other window of the same person is not somebody else", () => {
    hear({ x: 1 }, { id: "u1", name: "Ada" });
    expect(cursor.getSnapshot()).toEqual([]);
  });

  it("other names are none of its business", () => {
    server.push("broadcast", { event: "typing", payload: { value: true }, by: ben });
    expect(cursor.getSnapshot()).toEqual([]);
    expect(live(session, "cursor")).toBe(cursor);
  });
});
