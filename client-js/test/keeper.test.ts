/** A storage that does not answer, or that is asked by a page that lives for a moment only. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { fromJoin } from "../src/fold.js";
import { Keeper } from "../src/keeper.js";
import type { StorageArea } from "../src/storage.js";
import { MemoryArea, later } from "./support/area.js";
import { prompt, snapshot } from "./support/make.js";

const entry = { id: "m1", at: "2026-11-22T10:00:00Z", order: 1, payload: { id: "m1", text: "Hi" }, error: null };
const state = (seq: number): ReturnType<typeof fromJoin> => fromJoin(null, snapshot(seq, { messages: [prompt(`m${seq}`, seq)] }));

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it("is waited for a few seconds, once, where it never answers", async () => {
  const never = (): Promise<never> => new Promise<never>(() => undefined);
  const area: StorageArea = { read: never, write: never, remove: never, keys: never };
  const keeper = new Keeper(area, "p:", "s1");
  const loading = keeper.load();
  keeper.save(entry);
  await vi.advanceTimersByTimeAsync(3_000);
  expect(await loading).toEqual({ state: null, entries: [] });
  expect(keeper.look("m1")).toBe("kept");
});

it("is given no more states once it has not answered", async () => {
  const area = new MemoryArea();
  const never = (): Promise<never> => new Promise<never>(() => undefined);
  const keeper = new Keeper({ ...later(area), read: never }, "p:", "s1");
  const loading = keeper.load();
  await vi.advanceTimersByTimeAsync(3_000);
  await loading;
  keeper.keep(state(1));
  keeper.save(entry);
  await vi.advanceTimersByTimeAsync(2_000);
  expect([...area.values.keys()]).toEqual(["p:o:s1/m1"]);
});

it("has the first state at once, and of those that follow the last of each second", () => {
  const area = new MemoryArea();
  const keeper = new Keeper(area, "p:", "s1");
  const kept = (): number => Number(/"lastSeq":(\d+)/u.exec(area.values.get("p:s:s1") ?? "")?.[1]);
  keeper.keep(state(1));
  expect(kept()).toBe(1);
  keeper.keep(state(2));
  keeper.keep(state(3));
  expect(kept()).toBe(1);
  vi.advanceTimersByTime(1_000);
  expect(kept()).toBe(3);
  vi.advanceTimersByTime(5_000);
  keeper.keep(state(4));
  expect(kept()).toBe(4);
});

it("forgets after a day that a message was taken back", async () => {
  const area = new MemoryArea();
  new Keeper(area, "p:", "s1").remove("m1", true);
  vi.setSystemTime(Date.now() + 23 * 3_600_000);
  await new Keeper(area, "p:", "s1").load();
  expect(area.values.size).toBe(1);
  vi.setSystemTime(Date.now() + 2 * 3_600_000);
  await new Keeper(area, "p:", "s1").load();
  expect(area.values.size).toBe(0);
});
