/** What is said: shown at once, in the log once, never lost from sight. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Rejoin, Session } from "../src/index.js";
import { endClient, joinFirst, startClient } from "./support/client.js";
import { added, prompt, replay, snapshot } from "./support/make.js";
import type { FakeServer } from "./support/server.js";

const sent = { message_id: "m1", turn_id: "t1", seq: 1, duplicate: false };

let server: FakeServer;
let rejoin: Rejoin;
let session: Session;

beforeEach(async () => {
  ({ server, rejoin } = startClient({ user: { id: "u1", name: "Ada" } }));
  session = rejoin.session("s1");
  await joinFirst(server, session, snapshot(0));
});

afterEach(() => endClient(rejoin));

const outbox = (): string[] => session.snapshot.outbox.map(({ id, status }) => `${id} ${status}`);
const messages = (): string[] => session.snapshot.messages.map(({ id }) => id);

describe("a message", () => {
  it.each(["", []])("that says nothing is refused at once, and is in no outbox: %j", async (content) => {
    await expect(session.send(content)).rejects.toMatchObject({ reason: "invalid" });
    expect(outbox()).toEqual([]);
    expect(server.connection.of("send")).toEqual([]);
  });

  it("is shown at once, as its author's", () => {
    void session.send("Hi", { id: "m1" });
    expect(session.snapshot.outbox).toMatchObject([
      { id: "m1", role: "user", author: { id: "u1", name: "Ada" }, parts: [{ kind: "text", text: "Hi" }], status: "sending" },
    ]);
  });

  it.each(["reply first", "event first"])("moves into the log without being there twice or not at all: %s", async (order) => {
    const seen = new Set<number>();
    void session.send("Hi", { id: "m1" });
    session.subscribe(() => seen.add(messages().length + outbox().length));
    const steps = [
      (): void => server.answer("send", sent),
      (): void => server.push("events", { prev: 0, events: [added(1, prompt("m1", 1))] }),
    ];
    for (const step of order === "reply first" ? steps : steps.reverse()) {
      step();
      await vi.advanceTimersByTimeAsync(0);
    }
    expect([messages(), outbox()]).toEqual([["m1"], []]);
    expect([...seen]).toEqual([1]);
  });

  it("whose connection broke is sent again under its id, and waits meanwhile", async () => {
    const sending = session.send("Hi", { id: "m1" });
    server.connection.close();
    expect(outbox()).toEqual(["m1 waiting"]);
    vi.advanceTimersByTime(500);
    server.connection.open();
    server.joined(replay(0, [added(1, prompt("m1", 1))]));
    expect(messages()).toEqual(["m1"]);
    expect(server.last("send").payload).toEqual({ id: "m1", text: "Hi" });
    server.answer("send", { ...sent, duplicate: true });
    await expect(sending).resolves.toMatchObject({ duplicate: true });
    expect(outbox()).toEqual([]);
  });

  it.each(["unavailable", "rate_limited"])("that met %s is sent again by itself", async (reason) => {
    void session.send("Hi", { id: "m1" });
    server.answer("send", { reason, message: "Later." }, "error");
    await vi.advanceTimersByTimeAsync(0);
    expect(session.snapshot.outbox).toMatchObject([{ status: "waiting", error: { reason } }]);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(server.connection.of("send").map(({ payload }) => payload["id"])).toEqual(["m1", "m1"]);
  });

  it.each(["busy", "queue_full", "unauthorized", "conflict", "too_large", "invalid"])(
    "that was refused as %s stays, and is not sent again by itself",
    async (reason) => {
      const sending = session.send("Hi", { id: "m1" });
      server.answer("send", { reason, message: "No." }, "error");
      await expect(sending).rejects.toMatchObject({ reason, message: "No.", id: "m1" });
      await vi.advanceTimersByTimeAsync(60_000);
      expect(server.connection.of("send")).toHaveLength(1);
      expect(outbox()).toEqual(["m1 failed"]);
    },
  );

  it("that closed the connection with 1009 is the one to blame", async () => {
    const small = session.send("Hi", { id: "m1" });
    const large = session.send("x".repeat(1_000), { id: "m2" });
    server.connection.close(1009);
    await expect(large).rejects.toMatchObject({ reason: "too_large" });
    expect(outbox()).toEqual(["m1 waiting", "m2 failed"]);
    vi.advanceTimersByTime(500);
    server.connection.open();
    server.joined(replay(0, []));
    server.answer("send", sent);
    await small;
  });

  it("can be taken back while it has never left, and not later", async () => {
    server.connection.close();
    const sending = session.send("Hi", { id: "m1" });
    expect(session.discard("m1")).toBe(true);
    await expect(sending).rejects.toMatchObject({ reason: "discarded" });
    vi.advanceTimersByTime(500);
    server.connection.open();
    server.joined(replay(0, []));
    expect(server.connection.of("send")).toEqual([]);
    void session.send("Hi", { id: "m2" });
    expect(session.discard("m2")).toBe(false);
    expect(outbox()).toEqual(["m2 sending"]);
  });

  it("that is said once more under its id is one message with one answer", async () => {
    const both = [session.send("Hi", { id: "m1" }), session.send("Hi", { id: "m1" })];
    expect(server.connection.of("send")).toHaveLength(1);
    server.answer("send", sent);
    expect(await Promise.all(both)).toEqual([sent, sent]);
  });

  it("outlasts a session that was left, and goes out with the next join", async () => {
    server.connection.close();
    void session.send("Hi", { id: "m1" });
    session.leave();
    await vi.advanceTimersByTimeAsync(0);
    expect(outbox()).toEqual(["m1 waiting"]);
    const again = session.join();
    await vi.advanceTimersByTimeAsync(500);
    server.connection.open();
    server.joined(replay(0, []));
    await again;
    expect(server.last("send").payload).toMatchObject({ id: "m1" });
  });
});

describe("a view that holds the session", () => {
  it("keeps it joined until the last lets go, and what is being sent is waited for", async () => {
    session.leave();
    const [one, two] = [session.hold(), session.hold()];
    server.joined(replay(0, []));
    one();
    one();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(session.snapshot.status).toBe("joined");
    void session.send("Hi", { id: "m1" });
    two();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(session.snapshot.status).toBe("joined");
    server.answer("send", sent);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(session.snapshot.status).toBe("idle");
  });

  it("does not end what was joined without it", async () => {
    session.hold()();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(session.snapshot.status).toBe("joined");
    session.leave();
    session.hold()();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(session.snapshot.status).toBe("idle");
  });

  it("that is drawn anew at once leaves nothing", async () => {
    session.hold()();
    session.hold();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(server.connection.of("phx_leave")).toEqual([]);
    server.joinParams(1);
  });
});
