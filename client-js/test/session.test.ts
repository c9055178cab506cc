import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Rejoin, RejoinError, type Session } from "../src/index.js";
import { endClient, joinFirst, startClient } from "./support/client.js";
import { EPOCH, added, completed, answer, delta, prompt, replay, snapshot, started, turn } from "./support/make.js";
import type { FakeServer } from "./support/server.js";

let server: FakeServer;
let rejoin: Rejoin;
let session: Session;

const running = turn("t1", "m1");
const begun = [added(1, prompt("m1", 1)), started(2, running)];

beforeEach(() => {
  ({ server, rejoin } = startClient({ user: { id: "u1", name: "Ada" } }));
  session = rejoin.session("s1");
});

afterEach(() => endClient(rejoin));

async function join(reply: object = snapshot(0)): Promise<void> {
  await joinFirst(server, session, reply);
}

/** The connection breaks and comes back; the join that phoenix sends then is not answered yet. */
function reconnect(): void {
  const before = server.connections.length;
  server.connection.close();
  vi.advanceTimersByTime(500);
  expect(server.connections).toHaveLength(before + 1);
  server.connection.open();
}

const text = (): string | undefined => session.snapshot.messages.at(-1)?.parts[0]?.text;

describe("join", () => {
  it("says who one is", async () => {
    await join();
    expect(new URL(server.connection.url).searchParams.get("user_id")).toBe("u1");
    expect(new URL(server.connection.url).searchParams.get("name")).toBe("Ada");
  });

  it("has no cursor the first time", async () => {
    await join();
    expect(server.joinParams(1)).toEqual({});
    expect(session.snapshot).toMatchObject({ status: "joined", error: null });
  });

  it("is one join however often it is asked for", async () => {
    const joins = [session.join(), session.join()];
    server.connection.open();
    server.joined(snapshot(0));
    await Promise.all([...joins, session.join()]);
    server.joinParams(1);
    expect(rejoin.session("s1")).toBe(session);
  });

  it("gives up where the server says no for good", async () => {
    const joining = session.join();
    server.connection.open();
    server.answer("phx_join", { reason: "unauthorized", message: "You may not read this." }, "error");
    await expect(joining).rejects.toMatchObject({ reason: "unauthorized", message: "You may not read this." });
    expect(session.snapshot.status).toBe("refused");
    vi.advanceTimersByTime(60_000);
    server.joinParams(1);
    const again = session.join();
    server.joined(snapshot(0));
    await again;
    expect(session.snapshot).toMatchObject({ status: "joined", error: null });
  });

  it("tries again where the server cannot answer now", async () => {
    const joining = session.join();
    server.connection.open();
    server.answer("phx_join", { reason: "unavailable", message: "The store is away." }, "error");
    expect(session.snapshot.error?.reason).toBe("unavailable");
    vi.advanceTimersByTime(1_000);
    server.joinParams(2);
    server.joined(snapshot(0));
    await joining;
    expect(session.snapshot.error).toBeNull();
  });

  it("passes options on", async () => {
    session = rejoin.session("s2", { create: false, presence: { mood: "calm" } });
    await join();
    expect(server.joinParams(1)).toEqual({ create: false, presence: { mood: "calm" } });
  });
});

describe("events", () => {
  it("are applied where they continue what is held", async () => {
    await join();
    server.push("events", { prev: 0, events: begun });
    server.push("events", { prev: 2, events: [delta(3, "t1", "Hel")] });
    server.push("events", { prev: 3, events: [delta(4, "t1", "lo")] });
    expect(text()).toBe("Hello");
    expect(session.snapshot.lastSeq).toBe(4);
  });

  it("that do not continue lead to a new join with the cursor", async () => {
    await join();
    server.push("events", { prev: 0, events: begun });
    server.push("events", { prev: 3, events: [delta(4, "t1", "lo")] });
    expect(text()).toBeUndefined();
    vi.advanceTimersByTime(0);
    expect(server.joinParams(2)).toEqual({ last_seq: 2, epoch: EPOCH });
    expect(server.connection.of("phx_leave")).toHaveLength(1);
    server.joined(replay(2, [delta(3, "t1", "Hel"), delta(4, "t1", "lo")], [running]));
    expect(text()).toBe("Hello");
  });

  it("of a join that is not answered yet are left to its reply", async () => {
    await join();
    server.push("events", { prev: 0, events: begun });
    reconnect();
    server.connection.broadcast("session:s1", "events", { prev: 2, events: [delta(3, "t1", "Hel")] });
    expect(session.snapshot.lastSeq).toBe(2);
    server.joined(replay(2, [delta(3, "t1", "Hel")], [running]));
    expect(text()).toBe("Hel");
  });

  it("of a channel that was left are not heard", async () => {
    await join();
    const first = server.last("phx_join");
    server.push("events", { prev: 5, events: [] });
    vi.advanceTimersByTime(0);
    server.joined(replay(0, []));
    server.connection.push(first, "events", { prev: 0, events: begun });
    expect(session.snapshot.messages).toEqual([]);
  });

  it("that never fit are asked for slower and slower, and then without the cursor", async () => {
    await join();
    for (const [times, wait] of [0, 1_000, 2_000].entries()) {
      server.push("events", { prev: 99, events: [] });
      vi.advanceTimersByTime(Math.max(0, wait - 1));
      if (wait > 0) server.joinParams(times + 1);
      vi.advanceTimersByTime(1);
      const params = server.joinParams(times + 2);
      expect("last_seq" in params).toBe(times < 2);
      server.joined(times < 2 ? replay(0, []) : snapshot(0));
    }
  });

  it("of an unknown type are passed over", async () => {
    await join();
    const unknown = { seq: 1, type: "poll_opened", at: "2026-11-22T10:00:00Z", by: null, turn_id: null, data: {} };
    server.push("events", { prev: 0, events: [unknown] });
    expect(session.snapshot.lastSeq).toBe(1);
    server.joinParams(1);
  });
});

describe("a rejoin", () => {
  it("asks for what came after what is held now", async () => {
    await join();
    server.push("events", { prev: 0, events: begun });
    server.push("events", { prev: 2, events: [delta(3, "t1", "Hel")] });
    reconnect();
    expect(server.joinParams(1)).toEqual({ last_seq: 3, epoch: EPOCH });
    const shown = session.snapshot.messages;
    server.joined(replay(3, [completed(9, "t1", answer("t1", 2, "Hello there"))]));
    expect(shown).toHaveLength(2);
    expect(text()).toBe("Hello there");
    expect(session.snapshot.turns).toEqual([]);
  });

  it("keeps everything while the connection is away", async () => {
    await join(snapshot(2, { messages: [prompt("m1", 1), answer("t1", 2, "Hel")], turns: [running] }));
    const { messages, turns } = session.snapshot;
    server.connection.close();
    expect(session.snapshot.status).toBe("joining");
    expect(rejoin.connection.status).toBe("connecting");
    expect(session.snapshot.messages).toBe(messages);
    expect(session.snapshot.turns).toBe(turns);
    expect(session.snapshot.messages[1]?.status).toBe("streaming");
  });

  it("takes a snapshot for the whole", async () => {
    await join(snapshot(2, { messages: [prompt("m1", 1), answer("t1", 2)], turns: [running] }));
    reconnect();
    const other = { messages: [prompt("n1", 1)], reason: "epoch_changed", session: { epoch: "e2" } };
    server.joined(snapshot(1, other));
    expect(session.snapshot.messages.map((message) => message.id)).toEqual(["n1"]);
    reconnect();
    expect(server.joinParams(1)).toEqual({ last_seq: 1, epoch: "e2" });
  });

  it.each([
    ["begins elsewhere than what is held", replay(1, begun.slice(1), [running])],
    ["is of another log", { ...replay(2, [], [running]), session: { ...snapshot(2).session, epoch: "e2" } }],
  ])("whose replay %s is done anew without a cursor", async (_name, reply) => {
    await join();
    server.push("events", { prev: 0, events: begun });
    reconnect();
    server.joined(reply);
    expect(session.snapshot.status).toBe("joining");
    vi.advanceTimersByTime(0);
    expect(server.joinParams(2)).toEqual({});
    server.joined(snapshot(2, { messages: [prompt("m1", 1), answer("t1", 2)], turns: [running] }));
    expect(session.snapshot.messages).toHaveLength(2);
    reconnect();
    expect(server.joinParams(1)).toEqual({ last_seq: 2, epoch: EPOCH });
  });

  it("is continued by the pages that follow", async () => {
    await join();
    reconnect();
    const first = { ...replay(0, begun), session: snapshot(4).session };
    server.joined(first);
    expect(session.snapshot).toMatchObject({ lastSeq: 2 });
    server.push("events", { prev: 2, events: [completed(4, "t1", answer("t1", 2, "Hello"))] });
    expect(session.snapshot).toMatchObject({ lastSeq: 4, turns: [] });
    server.joinParams(1);
  });

  it("follows a channel that crashed", async () => {
    await join();
    server.push("events", { prev: 0, events: begun });
    server.push("phx_error", {});
    expect(session.snapshot.status).toBe("joining");
    vi.advanceTimersByTime(1_000);
    expect(server.joinParams(2)).toEqual({ last_seq: 2, epoch: EPOCH });
    server.joined(replay(2, [], [running]));
    expect(session.snapshot.status).toBe("joined");
  });

  it("follows a channel that the server closed", async () => {
    await join();
    server.push("phx_close", {});
    vi.advanceTimersByTime(0);
    server.joinParams(2);
  });
});

describe("a drain", () => {
  it("is waited out, once", async () => {
    await join();
    server.push("draining", { reconnect_after_ms: 3_000 });
    server.connection.close(1012);
    vi.advanceTimersByTime(2_999);
    expect(server.connections).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(server.connections).toHaveLength(2);
    server.connection.close();
    vi.advanceTimersByTime(1_000);
    expect(server.connections.length).toBeGreaterThan(2);
  });
});

describe("the end", () => {
  it("comes when the session is deleted", async () => {
    await join();
    const waiting = session.send("Hi");
    server.push("deleted", { by: { id: "u2", name: "Ben" } });
    await expect(waiting).rejects.toMatchObject({ reason: "not_found" });
    expect(session.snapshot.status).toBe("deleted");
    server.push("phx_close", {});
    vi.advanceTimersByTime(60_000);
    server.joinParams(1);
  });

  it("of a deleted session leaves nothing running, and says why nothing can be asked", async () => {
    await join();
    server.push("events", { prev: 0, events: [...begun, delta(3, "t1", "Hel")] });
    const over = session.turn("t1").outcome();
    server.push("deleted", { by: null });
    expect(session.snapshot).toMatchObject({ status: "deleted", running: [], turns: [] });
    expect(session.snapshot.messages.at(-1)).toMatchObject({ status: "partial", parts: [{ kind: "text", text: "Hel" }] });
    const deleted = { reason: "not_found", message: "The session was deleted. Join it to make a new one." };
    await expect(over).rejects.toMatchObject(deleted);
    await expect(session.cancel("t1")).rejects.toMatchObject(deleted);
  });

  it("comes when one leaves, and what is held stays for the next join", async () => {
    await join();
    server.push("events", { prev: 0, events: begun });
    session.leave();
    expect(session.snapshot.status).toBe("idle");
    expect(server.connection.of("phx_leave")).toHaveLength(1);
    await expect(session.cancel("t1")).rejects.toMatchObject({ reason: "left" });
    const again = session.join();
    expect(server.joinParams(2)).toEqual({ last_seq: 2, epoch: EPOCH });
    server.joined(replay(2, [], [running]));
    await again;
  });

  it("closes the connection for good, until it is wanted again", async () => {
    await join();
    rejoin.disconnect();
    expect(rejoin.connection.status).toBe("closed");
    vi.advanceTimersByTime(60_000);
    expect(server.connections).toHaveLength(1);
    const again = session.join();
    expect(rejoin.connection.status).toBe("connecting");
    server.connection.open();
    server.joined(snapshot(0));
    await again;
  });

  it("of a join that is left is told to who waits", async () => {
    const joining = session.join();
    session.leave();
    await expect(joining).rejects.toBeInstanceOf(RejoinError);
  });
});

describe("listeners", () => {
  it("hear each change and then no more", async () => {
    const seen: number[] = [];
    const stop = session.subscribe(() => seen.push(session.snapshot.lastSeq));
    await join();
    server.push("events", { prev: 0, events: begun });
    expect(seen.at(-1)).toBe(2);
    const snapshotBefore = session.getSnapshot();
    expect(session.getSnapshot()).toBe(snapshotBefore);
    stop();
    const { length } = seen;
    server.push("events", { prev: 2, events: [delta(3, "t1", "Hel")] });
    expect(seen).toHaveLength(length);
    expect(session.getSnapshot()).not.toBe(snapshotBefore);
  });

  it("of the connection hear it apart from the session", async () => {
    const states: string[] = [];
    rejoin.subscribe(() => {
      if (states.at(-1) !== rejoin.connection.status) states.push(rejoin.connection.status);
    });
    await join();
    reconnect();
    rejoin.disconnect();
    expect(states).toEqual(["connecting", "open", "connecting", "open", "closed"]);
  });
});
