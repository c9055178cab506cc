// @vitest-environment happy-dom
/** The browser's three places, and one of one's own: each keeps a session and what is unsent. */
import { IDBFactory, IDBKeyRange } from "fake-indexeddb";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fromJoin } from "../src/fold.js";
import type { StoredEntry } from "../src/kept.js";
import { persistIn, type StorageArea, type StorageName } from "../src/persist.js";
import { RECORD_VERSION } from "../src/record.js";
import { MemoryArea, later } from "./support/area.js";
import { prompt, snapshot } from "./support/make.js";

const state = fromJoin(null, snapshot(1, { messages: [prompt("m1", 1)] }));
const entry = (id: string): StoredEntry => ({ id, at: "2026-11-22T10:00:00Z", order: 1, payload: { id, text: "Hi" }, error: null });

beforeEach(() => {
  vi.stubGlobal("indexedDB", new IDBFactory());
  vi.stubGlobal("IDBKeyRange", IDBKeyRange);
  localStorage.clear();
  sessionStorage.clear();
});
afterEach(() => vi.unstubAllGlobals());

const places: [string, () => StorageName | StorageArea][] = [
  ["sessionStorage", () => "sessionStorage"],
  ["localStorage", () => "localStorage"],
  ["indexedDB", () => "indexedDB"],
  ["a place of one's own", () => new MemoryArea()],
  ["a slow place of one's own", () => later(new MemoryArea())],
];

describe.each(places)("%s", (_name, place) => {
  it("keeps a session and what is unsent, each by itself, until it is forgotten", async () => {
    const persist = persistIn(place());
    const keeper = persist.keeper("/socket", "u1", "s1");
    keeper.keep(state);
    keeper.flush();
    for (const id of ["a", "b", "c"]) keeper.save(entry(id));
    keeper.remove("b", false);
    keeper.remove("c", true);
    const other = persist.keeper("/socket", "u1", "s1");
    expect(await Promise.all(["a", "b", "c"].map(async (id) => keeper.look(id)))).toEqual(["kept", "gone", "discarded"]);
    expect(await other.look("c")).toBe("discarded");
    const kept = await persist.keeper("/socket", "u1", "s1").load();
    expect(kept.state).toEqual(state);
    expect(kept.entries.map(({ id }) => id)).toEqual(["a"]);

    const others = ["s", "s1x", "s1/"].map(async (id) => persist.keeper("/socket", "u1", id).load());
    for (const found of await Promise.all(others)) expect(found).toEqual({ state: null, entries: [] });
    await persist.forget("/socket", "u2");
    expect((await persist.keeper("/socket", "u1", "s1").load()).state).not.toBeNull();
    await persist.forget("/socket", "u1");
    expect(await persist.keeper("/socket", "u1", "s1").load()).toEqual({ state: null, entries: [] });
  });

  it("drops the session and keeps what is unsent", async () => {
    const persist = persistIn(place());
    const keeper = persist.keeper("/socket", "u1", "s1");
    keeper.keep(state);
    keeper.flush();
    keeper.save(entry("a"));
    keeper.forget();
    expect(await keeper.look("a")).toBe("kept");
    expect(await persist.keeper("/socket", "u1", "s1").load()).toMatchObject({ state: null, entries: [{ id: "a" }] });
  });
});

describe("a browser", () => {
  it("without the place keeps nothing and fails nowhere", async () => {
    vi.stubGlobal("indexedDB", undefined);
    const keeper = persistIn("indexedDB").keeper("/socket", "u1", "s1");
    keeper.keep(state);
    keeper.flush();
    keeper.save(entry("a"));
    expect(await keeper.load()).toEqual({ state: null, entries: [] });
  });

  it("that forbids the place keeps nothing and fails nowhere", async () => {
    vi.spyOn(globalThis, "localStorage", "get").mockImplementation(() => {
      throw new DOMException("The operation is insecure.", "SecurityError");
    });
    expect(await persistIn("localStorage").keeper("/socket", "u1", "s1").load()).toEqual({ state: null, entries: [] });
  });

  it("whose database does not open keeps nothing and fails nowhere", async () => {
    const broken = { open: () => { throw new Error("no disk"); } };
    vi.stubGlobal("indexedDB", broken);
    const keeper = persistIn("indexedDB").keeper("/socket", "u1", "s1");
    keeper.save(entry("a"));
    expect(await keeper.load()).toEqual({ state: null, entries: [] });
  });

  it("keeps the fifty sessions that were seen last", async () => {
    const area = new MemoryArea();
    const persist = persistIn(area);
    for (let index = 0; index < 60; index += 1) {
      area.values.set(`rejoin:%2Fsocket:u1:s:old${index}`, `{"v":${RECORD_VERSION},"at":${index},"messages":[]}`);
    }
    const keeper = persist.keeper("/socket", "u1", "s1");
    keeper.keep(state);
    keeper.flush();
    await expect.poll(() => area.keys("rejoin:").length).toBe(51);
    expect(area.values.has("rejoin:%2Fsocket:u1:s:old9")).toBe(false);
    expect(area.values.has("rejoin:%2Fsocket:u1:s:old10")).toBe(true);
    expect((await keeper.load()).state).not.toBeNull();
  });
});
