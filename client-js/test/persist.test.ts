/** A refresh: what is held and what was said outlive the page that held it. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Rejoin, type RejoinOptions, type Session } from "../src/index.js";
import { persistIn, type StorageArea } from "../src/persist.js";
import { MemoryArea, later } from "./support/area.js";
import { EPOCH, added, answer, completed, delta, prompt, replay, snapshot, started, turn } from "./support/make.js";
import { FakeServer } from "./support/server.js";

const running = turn("t1", "m1");
const begun = [added(1, prompt("m1", 1)), started(2, running)];
const sent = { message_id: "x", turn_id: null, seq: 5, duplicate: false };

let area: MemoryArea;
let server: FakeServer;
const open: Rejoin[] = [];

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(0.2);
  area = new MemoryArea();
  server = new FakeServer();
});

afterEach(() => {
  for (const rejoin of open.splice(0)) rejoin.disconnect();
  vi.useRealTimers();
});

/** A page that has just been loaded. */
function page(where: StorageArea = area, options: RejoinOptions = {}): Session {
  const common = { transport: server.transport, user: { id: "u1", name: "Ada" }, persist: persistIn(where) };
  const rejoin = new Rejoin("ws://server/socket", { ...common, ...options });
  open.push(rejoin);
  return rejoin.session("s1");
}

async function join(session: Session, reply: object = snapshot(0)): Promise<void> {
  const joining = session.join();
  await vi.advanceTimersByTimeAsync(0);
  server.connection.open();
  server.joined(reply);
  await joining;
}

/** The page goes away without a word, a second after the last change. */
async function vanish(): Promise<void> {
  await vi.advanceTimersByTimeAsync(1_000);
  server.connection.close();
  for (const rejoin of open.splice(0)) rejoin.disconnect();
}

const text = (session: Session): string | undefined => session.snapshot.messages.at(-1)?.parts[0]?.text;

/** A session of which an earlier page had "Hel" of an answer. */
async function halfAnAnswer(where: StorageArea = area): Promise<void> {
  const session = page(where);
  await join(session);
  server.push("events", { prev: 0, events: [...begun, delta(3, "t1", "Hel")] });
  await vanish();
}

describe("after a refresh", () => {
  it("what was held is there at once, and the join brings only what came since", async () => {
    await halfAnAnswer();
    const session = page();
    expect(session.snapshot).toMatchObject({ isReady: true, status: "idle", lastSeq: 3 });
    expect(text(session)).toBe("Hel");
    await join(session, replay(3, [delta(4, "t1", "lo")], [running]));
    expect(server.joinParams(1)).toEqual({ last_seq: 3, epoch: EPOCH });
    expect(text(session)).toBe("Hello");
  });

  it("a storage that takes its time is waited for before the join", async () => {
    const slow = later(area);
    await halfAnAnswer(slow);
    const session = page(slow);
    expect(session.snapshot.isReady).toBe(false);
    await join(session, replay(3, [], [running]));
    expect(server.joinParams(1)).toEqual({ last_seq: 3, epoch: EPOCH });
    expect(text(session)).toBe("Hel");
  });

  it("a snapshot replaces everything that was kept", async () => {
    await halfAnAnswer();
    const session = page();
    const reasons: string[] = [];
    session.on("reset", (reason) => reasons.push(reason));
    await join(session, snapshot(1, { messages: [prompt("n1", 1)], reason: "epoch_changed", session: { epoch: "e2" } }));
    expect(session.snapshot.messages.map(({ id }) => id)).toEqual(["n1"]);
    expect(session.snapshot.turns).toEqual([]);
    expect(reasons).toEqual(["epoch_changed"]);
    await vanish();
    expect(page().snapshot).toMatchObject({ lastSeq: 1, info: { epoch: "e2" } });
  });

  it("events that were caught up with are told apart from those that happen now", async () => {
    await halfAnAnswer();
    const session = page();
    const heard: [number, boolean][] = [];
    session.on("event", ({ seq }, { isReplayed }) => heard.push([seq, isReplayed]));
    await join(session, replay(3, [delta(4, "t1", "l")], [running]));
    server.push("events", { prev: 4, events: [delta(5, "t1", "o")] });
    expect(heard).toEqual([[4, true], [5, false]]);
  });

  it.each([
    ["another person", { user: { id: "u2", name: "Ben" } }],
    ["nobody", { user: {} }],
  ])("%s at the same browser is shown nothing", async (_who, options) => {
    await halfAnAnswer();
    expect(page(area, options).snapshot).toMatchObject({ isReady: false, messages: [] });
  });

  it("who may not see the session any more is not shown it, and it is kept no longer", async () => {
    await halfAnAnswer();
    const session = page();
    const joining = session.join();
    server.connection.open();
    server.answer("phx_join", { reason: "unauthorized", message: "Not yours." }, "error");
    await expect(joining).rejects.toMatchObject({ reason: "unauthorized" });
    expect(session.snapshot).toMatchObject({ isReady: false, messages: [] });
    expect(area.under(":s:")).toEqual([]);
  });

  it("a session that was deleted is kept no longer", async () => {
    const session = page();
    await join(session);
    server.push("events", { prev: 0, events: begun });
    server.push("deleted", { by: null });
    await vi.advanceTimersByTimeAsync(2_000);
    expect(area.under(":s:")).toEqual([]);
  });

  it("that is forgotten nothing is there", async () => {
    await halfAnAnswer();
    const rejoin = new Rejoin("ws://server/socket", { user: { id: "u1" }, persist: persistIn(area) });
    await rejoin.forget();
    expect(area.values.size).toBe(0);
  });

  it("whose tokens say who it is, what was held is found once the token is there", async () => {
    await halfAnAnswer();
    const jwt = `h.${btoa(JSON.stringify({ sub: "u1" }))}.s`;
    const session = page(area, { user: {}, token: () => Promise.resolve(jwt) });
    expect(session.snapshot.isReady).toBe(false);
    await join(session, replay(3, [], [running]));
    expect(text(session)).toBe("Hel");
  });
});

describe("content and cursor", () => {
  it("are one record, however often the page goes away", async () => {
    await halfAnAnswer();
    let seq = 3;
    for (const word of [" a", " b", " c", " d"]) {
      const session = page();
      await join(session, replay(seq, [], [running]));
      expect(server.joinParams(1)).toMatchObject({ last_seq: seq });
      server.push("events", { prev: seq, events: [delta((seq += 1), "t1", word)] });
      // Written now by one page, and not any more by the next: then the older record is whole, too.
      if (seq % 2 === 0) await vanish();
      else {
        server.connection.close();
        open.splice(0).forEach((rejoin) => rejoin.disconnect());
      }
    }
    const whole = page();
    await join(whole, replay(seq, [completed(seq + 1, "t1", answer("t1", 2, text(whole) ?? ""))]));
    expect(text(whole)).toBe("Hel a b c d");
  });

  it.each([
    ["no JSON", "{"],
    ["of another version", JSON.stringify({ v: 99 })],
    ["without its cursor", (text: string) => text.replace('"lastSeq":3', '"lastSeq":-1')],
    ["of another session", (text: string) => text.replaceAll('"s1"', '"s2"')],
    ["of another log", (text: string) => text.replace('"epoch":"e1"', '"epoch":"e9"')],
    ["with a message that is none", (text: string) => text.replace('"parts":[', '"parts":7,"x":[')],
  ])("that are %s are as good as nothing", async (_what, damage) => {
    await halfAnAnswer();
    const [key = ""] = area.keys("rejoin:");
    const whole = area.values.get(key) ?? "";
    area.values.set(key, typeof damage === "string" ? damage : damage(whole));
    expect(area.values.get(key)).not.toBe(whole);
    const session = page();
    expect(session.snapshot.isReady).toBe(false);
    await join(session);
    expect(server.joinParams(1)).toEqual({});
  });

  it("that the fold cannot continue are asked for as a whole", async () => {
    await halfAnAnswer();
    const [key = ""] = area.keys("rejoin:");
    const record = JSON.parse(area.values.get(key) ?? "") as { messages: unknown[] };
    record.messages = record.messages.map((message) => ({ ...(message as object), parts: [null] }));
    area.values.set(key, JSON.stringify(record));
    const session = page();
    await join(session, snapshot(0));
    expect(server.joinParams(1)).toEqual({});
  });

  it("stay out of a storage that fails, and nobody minds", async () => {
    area.isBroken = true;
    const session = page();
    await join(session);
    void session.send("Hi", { id: "x" });
    await vi.advanceTimersByTimeAsync(0);
    server.answer("send", sent);
    server.push("events", { prev: 0, events: begun });
    await vanish();
    expect(text(session)).toBeUndefined();
    expect(session.snapshot).toMatchObject({ status: "idle", lastSeq: 2 });
  });

  it("make room for themselves in a full storage: first other sessions go, then the oldest messages", async () => {
    const long = (id: string, seq: number): ReturnType<typeof prompt> => prompt(id, seq, "x".repeat(30_000));
    area.values.set("rejoin:ws%3A%2F%2Fserver%2Fsocket:u1:s:other", `{"v":1,"at":1,"x":"${"y".repeat(90_000)}"}`);
    area.limitChars = 100_000;
    const session = page();
    await join(session, snapshot(4, { messages: [1, 2, 3, 4].map((seq) => long(`m${seq}`, seq)) }));
    await vanish();
    const kept = page();
    expect(kept.snapshot.messages.map(({ id }) => id)).toEqual(["m4"]);
    expect(kept.snapshot.hasMore).toBe(true);
    expect(area.under(":s:other")).toEqual([]);
    void join(kept, replay(4, []));
    await vi.advanceTimersByTimeAsync(0);
    kept.history().catch(() => undefined);
    expect(server.last("history").payload).toEqual({ before: 4 });
  });
});

describe("what was said", () => {
  it("before the refresh goes out after it, once, under its own id and in its order", async () => {
    const first = page();
    void first.send("one", { id: "m1" });
    void first.send("two", { id: "m2" });
    expect(first.snapshot.outbox.map(({ status }) => status)).toEqual(["waiting", "waiting"]);
    open.splice(0);

    const session = page();
    expect(session.snapshot.outbox.map(({ id }) => id)).toEqual(["m1", "m2"]);
    await join(session);
    expect(server.connection.of("send").map(({ payload }) => payload)).toEqual([
      { id: "m1", text: "one" },
      { id: "m2", text: "two" },
    ]);
    for (const frame of server.connection.of("send")) server.connection.reply(frame, { ...sent, message_id: frame.payload["id"] });
    await vi.advanceTimersByTimeAsync(0);
    server.push("events", { prev: 0, events: [added(1, prompt("m1", 1)), added(2, prompt("m2", 2))] });
    await vi.advanceTimersByTimeAsync(0);
    expect(area.under(":o:")).toEqual([]);
    expect(page().snapshot.outbox).toEqual([]);
  });

  it("and sent by the page before, but not answered, is not shown twice", async () => {
    const first = page();
    await join(first);
    void first.send("Hi", { id: "m1" });
    await vanish();
    const session = page();
    await join(session, snapshot(1, { messages: [prompt("m1", 1)] }));
    await vi.advanceTimersByTimeAsync(0);
    expect(session.snapshot.outbox).toEqual([]);
    expect(session.snapshot.messages).toHaveLength(1);
    expect(area.under(":o:")).toEqual([]);
  });

  it("and taken back in another window does not go out from the one in which it was said", async () => {
    const session = page();
    const sending = session.send("Hi", { id: "m1" });
    void session.send("Ho", { id: "m2" });
    expect(page().discard("m1")).toBe(true);
    await join(session);
    await expect(sending).rejects.toMatchObject({ reason: "discarded", id: "m1" });
    expect(server.connection.of("send").map(({ payload }) => payload["id"])).toEqual(["m2"]);
    expect(session.snapshot.outbox).toMatchObject([{ id: "m2" }]);
  });

  it("and is gone from the storage is sent all the same by the page in which it was said", async () => {
    const session = page();
    void session.send("Hi", { id: "m1" });
    area.values.clear();
    await join(session);
    expect(server.connection.of("send").map(({ payload }) => payload["id"])).toEqual(["m1"]);
  });

  it("and sent by another window is not sent by the page that found it", async () => {
    void page().send("Hi", { id: "m1" });
    const session = page();
    area.values.clear();
    await join(session);
    expect(server.connection.of("send")).toEqual([]);
    expect(session.snapshot.outbox).toEqual([]);
  });

  it("goes out in the order in which it was said, also after a refresh and whatever the clock did", async () => {
    const first = page();
    for (const id of ["m3", "m1", "m2"]) void first.send(id, { id });
    vi.setSystemTime(Date.now() - 3_600_000);
    void first.send("m0", { id: "m0" });
    await vanish();
    const session = page();
    void session.send("m4", { id: "m4" });
    const said = ["m3", "m1", "m2", "m0", "m4"];
    expect(session.snapshot.outbox.map(({ id }) => id)).toEqual(said);
    await join(session);
    expect(server.connection.of("send").map(({ payload }) => payload["id"])).toEqual(said);
  });

  it("and refused stays with its reason, also after a refresh, until it is said again or taken back", async () => {
    const first = page();
    await join(first);
    const sending = first.send("Hi", { id: "m1" });
    server.answer("send", { reason: "queue_full", message: "100 turns wait." }, "error");
    await expect(sending).rejects.toMatchObject({ reason: "queue_full", id: "m1" });
    const failed = { id: "m1", status: "failed", error: { reason: "queue_full", message: "100 turns wait." } };
    expect(first.snapshot.outbox).toMatchObject([failed]);
    await vanish();

    const session = page();
    expect(session.snapshot.outbox).toMatchObject([failed]);
    await join(session);
    expect(server.connection.of("send")).toEqual([]);
    session.resend("m1");
    await vi.advanceTimersByTimeAsync(0);
    expect(session.snapshot.outbox).toMatchObject([{ id: "m1", status: "sending", error: null }]);
    server.answer("send", { reason: "queue_full", message: "100 turns wait." }, "error");
    await vi.advanceTimersByTimeAsync(0);
    expect(session.discard("m1")).toBe(true);
    expect(session.snapshot.outbox).toEqual([]);
    await vanish();
    expect(page().snapshot.outbox).toEqual([]);
  });
});
