import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Rejoin, RejoinError, type Session } from "../src/index.js";
import { MAX_PENDING } from "../src/requests.js";
import { endClient, joinFirst, startClient } from "./support/client.js";
import { added, prompt, replay, snapshot } from "./support/make.js";
import type { FakeServer } from "./support/server.js";

let server: FakeServer;
let rejoin: Rejoin;
let session: Session;

const sent = { message_id: "m1", turn_id: "t1", seq: 1, duplicate: false };

beforeEach(async () => {
  ({ server, rejoin } = startClient({ token: () => "tok-1" }));
  session = rejoin.session("s1");
  await joinFirst(server, session, snapshot(0));
});

afterEach(() => endClient(rejoin));

function reconnect(): void {
  server.connection.close();
  vi.advanceTimersByTime(500);
  server.connection.open();
  server.joined(replay(0, []));
}

describe("send", () => {
  it("gives the message an id of its own", async () => {
    const sending = session.send("Hello");
    const { payload } = server.last("send");
    expect(payload).toEqual({ id: expect.stringMatching(/^[0-9a-f]{32}$/u) as string, text: "Hello" });
    server.answer("send", sent);
    await expect(sending).resolves.toEqual(sent);
  });

  it("says everything that was asked for", () => {
    const parts = [{ kind: "text" as const, text: "Hello" }];
    void session.send(parts, { id: "x", agent: "echo", whenBusy: "interrupt", answer: false }).catch(() => undefined);
    const options = { agent: "echo", when_busy: "interrupt", answer: false };
    expect(server.last("send").payload).toEqual({ id: "x", parts, ...options });
  });

  it("rejects with the server's reason", async () => {
    const sending = session.send("Hello", { id: "x" });
    server.answer("send", { reason: "queue_full", message: "100 turns wait already." }, "error");
    const error: unknown = await sending.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(RejoinError);
    expect(error).toMatchObject({ reason: "queue_full", message: "100 turns wait already.", id: "x", uncertain: false });
  });

  it("bridges a lost connection under the same id", async () => {
    const sending = session.send("Hello", { id: "x" });
    reconnect();
    expect(server.last("send").payload).toEqual({ id: "x", text: "Hello" });
    server.answer("send", { ...sent, duplicate: true });
    await expect(sending).resolves.toMatchObject({ duplicate: true });
  });

  it("waits for a connection, in order", () => {
    server.connection.close();
    for (const id of ["x", "y"]) void session.send("Hello", { id }).catch(() => undefined);
    vi.advanceTimersByTime(500);
    server.connection.open();
    expect(server.connection.of("send")).toEqual([]);
    server.joined(replay(0, []));
    expect(server.connection.of("send").map((frame) => frame.payload["id"])).toEqual(["x", "y"]);
  });

  it("is taken by the next node when this one drains", async () => {
    const sending = session.send("Hello", { id: "x" });
    server.answer("send", { reason: "draining", message: "Closing." }, "error");
    reconnect();
    server.answer("send", sent);
    await expect(sending).resolves.toEqual(sent);
  });

  it("is repeated into silence for as long as it takes", async () => {
    const sending = session.send("Hello", { id: "x" });
    await vi.advanceTimersByTimeAsync(600_000);
    expect(session.snapshot.outbox).toMatchObject([{ id: "x", status: "sending" }]);
    server.answer("send", sent);
    await expect(sending).resolves.toEqual(sent);
  });
});

describe("the other requests", () => {
  it("are repeated into silence, and end", async () => {
    const outcome = expect(session.cancel("t1")).rejects.toMatchObject({ reason: "timeout", uncertain: true });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(server.connection.of("cancel")).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(20_000);
    await outcome;
  });

  it("end when there is no connection for too long", async () => {
    server.connection.close();
    const outcome = expect(session.cancel("t1")).rejects.toMatchObject({ reason: "timeout" });
    await vi.advanceTimersByTimeAsync(30_000);
    await outcome;
  });

  it("are bounded", async () => {
    server.connection.close();
    const asked = Array.from({ length: MAX_PENDING }, () => session.cancel("t1"));
    await expect(session.cancel("t1")).rejects.toMatchObject({ reason: "rate_limited" });
    session.leave();
    const outcomes = await Promise.allSettled(asked);
    expect(new Set(outcomes.map((outcome) => outcome.status))).toEqual(new Set(["rejected"]));
  });

  it("cancel and retry name their turn", async () => {
    const cancelling = session.cancel("t1");
    expect(server.last("cancel").payload).toEqual({ turn_id: "t1" });
    server.answer("cancel", { outcome: "already_ended", status: "completed", reason: null });
    await expect(cancelling).resolves.toMatchObject({ outcome: "already_ended" });
    const retrying = session.retry("t1");
    server.answer("retry", { turn_id: "t2", attempt: 2, duplicate: false });
    await expect(retrying).resolves.toMatchObject({ turn_id: "t2" });
  });

  it("update says only what changes", async () => {
    const updating = session.update({ title: null });
    expect(server.last("update").payload).toEqual({ title: null });
    server.answer("update", {});
    await updating;
  });

  it("a broadcast is never said twice, nor later", async () => {
    const saying = session.broadcast("typing", {});
    server.connection.close();
    await expect(saying).rejects.toMatchObject({ reason: "disconnected" });
    await expect(session.broadcast("typing", {})).rejects.toMatchObject({ reason: "disconnected" });
    vi.advanceTimersByTime(500);
    server.connection.open();
    server.joined(replay(0, []));
    expect(server.connection.of("broadcast")).toEqual([]);
  });

  it("a broadcast of others is heard, and what was missed is counted", () => {
    const heard: unknown[] = [];
    session.on("broadcast", (message) => heard.push(message.event));
    session.on("missed", (count) => heard.push(count));
    server.connection.broadcast("session:s1", "broadcast", { event: "typing", payload: {}, by: null });
    server.push("missed", { count: 3 });
    expect(heard).toEqual(["typing", 3]);
  });

  it("an identity is renewed in place and for later connections", async () => {
    const protocols = (): string | string[] | undefined => server.connection.protocols;
    expect(protocols()).toEqual(["phoenix", `base64url.bearer.phx.${btoa("tok-1").replaceAll("=", "")}`]);
    const renewing = rejoin.renewToken("tok-2");
    expect(server.last("access_token").payload).toEqual({ token: "tok-2" });
    server.answer("access_token", {});
    await renewing;
    reconnect();
    expect(protocols()).toEqual(["phoenix", `base64url.bearer.phx.${btoa("tok-2").replaceAll("=", "")}`]);
  });
});

describe("history", () => {
  const page = { messages: [prompt("m1", 1)], ended: [], before: 1, has_more: false };
  const trimmed = snapshot(9, { messages: [prompt("m5", 9)], before: 9, has_more: true, session: { epoch: "e2" } });

  function rejoinTrimmed(reply: object = trimmed): void {
    server.connection.close();
    vi.advanceTimersByTime(500);
    server.connection.open();
    server.joined(reply);
  }

  it("is not asked for where there is none", async () => {
    await expect(session.history()).resolves.toBe(false);
    expect(server.connection.of("history")).toEqual([]);
  });

  it("is added to what is held, one page at a time", async () => {
    rejoinTrimmed();
    const loading = [session.history(50), session.history(50)];
    expect(server.connection.of("history")).toHaveLength(1);
    expect(server.last("history").payload).toEqual({ before: 9, limit: 50 });
    server.answer("history", page);
    await expect(Promise.all(loading)).resolves.toEqual([false, false]);
    expect(session.snapshot.messages.map((message) => message.id)).toEqual(["m1", "m5"]);
  });

  it("of before a snapshot is asked for anew", async () => {
    rejoinTrimmed();
    const loading = session.history();
    rejoinTrimmed(snapshot(99, { messages: [prompt("m9", 90)], before: 90, has_more: true, session: { epoch: "e3" } }));
    server.answer("history", page);
    await vi.advanceTimersByTimeAsync(0);
    expect(server.last("history").payload).toEqual({ before: 90 });
    server.answer("history", { ...page, messages: [prompt("m8", 80)], before: 80, has_more: true });
    await expect(loading).resolves.toBe(true);
    expect(session.snapshot.messages.map((message) => message.id)).toEqual(["m8", "m9"]);
  });
});

describe("presence", () => {
  const meta = (ref: string, name: string): object => ({ phx_ref: ref, name, joined_at: "2026-11-22T10:00:00Z" });

  it("lists people and agents, by state and by diff", () => {
    server.push("presence_state", { u1: { metas: [meta("1", "Ada"), meta("2", "Ada")] } });
    const agent = { "agent:echo": { metas: [{ phx_ref: "3", status: "running", turn_id: "t1" }] } };
    server.connection.broadcast("session:s1", "presence_diff", { joins: agent, leaves: {} });
    expect([...session.snapshot.people, ...session.snapshot.agents].map(({ id, name, isAgent, metas }) => [id, name, isAgent, metas.length])).toEqual([
      ["u1", "Ada", false, 2],
      ["agent:echo", "echo", true, 1],
    ]);
    server.connection.broadcast("session:s1", "presence_diff", { joins: {}, leaves: agent });
    expect([...session.snapshot.people, ...session.snapshot.agents].map((entry) => entry.id)).toEqual(["u1"]);
  });

  it("that comes before its state counts", () => {
    const joins = { u2: { metas: [meta("9", "Ben")] } };
    server.connection.broadcast("session:s1", "presence_diff", { joins, leaves: {} });
    server.push("presence_state", { u1: { metas: [meta("1", "Ada")] } });
    expect([...session.snapshot.people, ...session.snapshot.agents].map((entry) => entry.name)).toEqual(["Ada", "Ben"]);
  });

  it("stays as last heard while the connection is away", () => {
    server.push("presence_state", { u1: { metas: [meta("1", "Ada")] } });
    server.connection.close();
    expect([...session.snapshot.people, ...session.snapshot.agents]).toHaveLength(1);
  });

  it("of one's own is told now and at each join", async () => {
    const telling = session.setPresence({ mood: "calm" });
    server.answer("presence", {});
    await telling;
    server.connection.close();
    vi.advanceTimersByTime(500);
    server.connection.open();
    expect(server.joinParams(1)).toMatchObject({ presence: { mood: "calm" } });
    await session.setPresence({ mood: "busy" });
    expect(server.connection.of("presence")).toEqual([]);
    server.joined(replay(0, []));
    expect(server.last("presence").payload).toEqual({ mood: "busy" });
  });
});

describe("errors", () => {
  it("have a text whatever the server says", async () => {
    for (const response of [{}, { reason: "join crashed" }, { reason: 7 }]) {
      const cancelling = session.cancel("t1");
      server.answer("cancel", response, "error");
      await expect(cancelling).rejects.toMatchObject({ message: expect.stringContaining("refused") as string });
    }
  });

  it("of one listener do not keep events from the state", () => {
    const thrown = vi.spyOn(globalThis, "queueMicrotask").mockImplementation(() => undefined);
    session.subscribe(() => {
      throw new Error("a listener's own");
    });
    server.push("events", { prev: 0, events: [added(1, prompt("m1", 1))] });
    expect(session.snapshot.lastSeq).toBe(1);
    expect(thrown).toHaveBeenCalled();
  });
});
