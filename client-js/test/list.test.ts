import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Rejoin, type SessionList, type SessionSummary } from "../src/index.js";
import { endClient, startClient } from "./support/client.js";
import type { FakeServer } from "./support/server.js";

let server: FakeServer;
let rejoin: Rejoin;
let list: SessionList;

beforeEach(() => {
  ({ server, rejoin } = startClient({ user: { id: "u1" } }));
  list = rejoin.list();
});

afterEach(() => endClient(rejoin));

function summary(id: string, minute: number, change: Partial<SessionSummary> = {}): SessionSummary {
  const at = `2026-11-22T10:${String(minute).padStart(2, "0")}:00.000Z`;
  return { id, title: null, status: "idle", last_seq: minute, running: [], updated_at: at, ...change };
}

async function join(sessions: readonly SessionSummary[]): Promise<void> {
  const joining = list.join();
  server.connection.open();
  server.joined({ sessions, has_more: false });
  await joining;
}

const ids = (): string[] => list.snapshot.sessions.map(({ id }) => id);

describe("the list", () => {
  it("has the last changed first, and follows each change", async () => {
    await join([summary("b", 2), summary("a", 1)]);
    const [, kept] = list.snapshot.sessions;
    server.push("session_changed", summary("c", 3, { title: "New" }));
    expect(ids()).toEqual(["c", "b", "a"]);
    expect(list.snapshot.sessions[2]).toBe(kept);
    server.push("session_changed", summary("a", 4, { status: "running" }));
    expect(ids()).toEqual(["a", "c", "b"]);
    expect(list.snapshot.sessions[0]?.status).toBe("running");
    server.push("session_removed", { id: "c" });
    expect(ids()).toEqual(["a", "b"]);
  });

  it("stays while the connection is away, and is replaced by the next join", async () => {
    await join([summary("a", 1)]);
    server.connection.close();
    expect(list.snapshot).toMatchObject({ status: "joining", connection: "connecting", isReady: true });
    expect(ids()).toEqual(["a"]);
    await vi.advanceTimersByTimeAsync(500);
    server.connection.open();
    server.joined({ sessions: [summary("b", 2)], has_more: true });
    expect(list.snapshot).toMatchObject({ status: "joined", hasMore: true });
    expect(ids()).toEqual(["b"]);
  });

  it("that may not be seen says so and asks no more", async () => {
    const joining = list.join();
    server.connection.open();
    server.answer("phx_join", { reason: "unauthorized", message: "No list for you." }, "error");
    await expect(joining).rejects.toMatchObject({ reason: "unauthorized" });
    expect(list.snapshot).toMatchObject({ status: "refused", error: { message: "No list for you." } });
    vi.advanceTimersByTime(60_000);
    server.joinParams(1);
  });

  it("that the server closed is asked for again", async () => {
    await join([]);
    server.push("phx_close", {});
    vi.advanceTimersByTime(1_000);
    server.joinParams(2);
  });

  it("is one for a connection, with one prefix", () => {
    expect(rejoin.list()).toBe(list);
    expect(() => rejoin.list({ prefix: "team-" })).toThrow("Make a Rejoin for each");
  });

  it("asks for its prefix", () => {
    rejoin.disconnect();
    rejoin = new Rejoin("ws://server/socket", { transport: server.transport });
    rejoin.list({ prefix: "team-" }).hold();
    server.connection.open();
    expect(server.joinParams(1)).toEqual({ prefix: "team-" });
  });

  it("waits out a drain that only it hears of, and shows the connection a newer token", async () => {
    await join([]);
    rejoin.renewToken("new").catch(() => undefined);
    await vi.advanceTimersByTimeAsync(0);
    expect(server.last("access_token")).toMatchObject({ topic: "sessions", payload: { token: "new" } });
    server.push("draining", { reconnect_after_ms: 4_000 });
    server.connection.close(1012);
    vi.advanceTimersByTime(3_999);
    expect(server.connections).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(server.connections).toHaveLength(2);
  });

  it("is left when nobody looks any more", () => {
    const letGo = list.hold();
    server.connection.open();
    server.joined({ sessions: [], has_more: false });
    letGo();
    vi.advanceTimersByTime(2_000);
    expect(server.connection.of("phx_leave")).toHaveLength(1);
    expect(list.snapshot.status).toBe("idle");
  });

  it("stays where it was joined, whoever lets go of it", async () => {
    await join([]);
    list.hold()();
    vi.advanceTimersByTime(2_000);
    expect(server.connection.of("phx_leave")).toEqual([]);
    expect(list.snapshot.status).toBe("joined");
  });
});
