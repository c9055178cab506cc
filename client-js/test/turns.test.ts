/** One turn, read from its start to its end. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Rejoin, type Session, type TurnOutcome, type TurnPiece, type TurnReader } from "../src/index.js";
import { endClient, joinFirst, startClient } from "./support/client.js";
import { added, answer, completed, delta, ended, prompt, replay, snapshot, started, turn } from "./support/make.js";
import type { FakeServer } from "./support/server.js";

const running = turn("t1", "m1");
const begun = [added(1, prompt("m1", 1)), started(2, running)];

let server: FakeServer;
let rejoin: Rejoin;
let session: Session;

beforeEach(async () => {
  ({ server, rejoin } = startClient({ user: { id: "u1" } }));
  session = rejoin.session("s1");
  await join(snapshot(0));
  server.push("events", { prev: 0, events: begun });
});

afterEach(() => endClient(rejoin));

async function join(reply: object): Promise<void> {
  await joinFirst(server, session, reply);
}

/** Reads on its own and notes what it was given. */
function read(reader: TurnReader): { readonly texts: string[]; readonly over: Promise<TurnOutcome> } {
  const texts: string[] = [];
  const over = (async () => {
    const iterator = reader[Symbol.asyncIterator]();
    for (;;) {
      const { done, value } = await iterator.next();
      if (done) return value;
      texts.push(value);
    }
  })();
  over.catch(() => undefined);
  return { texts, over };
}

const soon = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

describe("a turn", () => {
  it("is read piece by piece, and says how it ended", async () => {
    const { texts, over } = read(session.turn("t1"));
    await soon();
    server.push("events", { prev: 2, events: [delta(3, "t1", "Hel")] });
    await soon();
    server.push("events", { prev: 3, events: [delta(4, "t1", "lo"), completed(5, "t1", answer("t1", 2, "Hello"))] });
    expect(await over).toMatchObject({ status: "completed", message: { parts: [{ text: "Hello" }] } });
    expect(texts).toEqual(["Hel", "lo"]);
  });

  it("is read whole by who comes in the middle, and by who comes after the end", async () => {
    server.push("events", { prev: 2, events: [delta(3, "t1", "Hel")] });
    const late = read(session.turn("t1"));
    await soon();
    server.push("events", { prev: 3, events: [completed(4, "t1", answer("t1", 2, "Hello"))] });
    await late.over;
    expect(late.texts.join("")).toBe("Hello");
    const after = read(session.turn("t1"));
    await after.over;
    expect(after.texts).toEqual(["Hello"]);
  });

  it("goes on over a lost connection, without a doubled or a lost character", async () => {
    const { texts, over } = read(session.turn("t1"));
    server.push("events", { prev: 2, events: [delta(3, "t1", "Hel")] });
    await soon();
    server.connection.close();
    await vi.advanceTimersByTimeAsync(500);
    server.connection.open();
    server.joined(replay(3, [delta(4, "t1", "lo "), completed(6, "t1", answer("t1", 2, "Hello there"))]));
    await over;
    expect(texts.join("")).toBe("Hello there");
  });

  it("that was stopped says by whom and why, and keeps what was said", async () => {
    const { texts, over } = read(session.turn("t1"));
    const partial = answer("t1", 2, "Hel", "partial");
    const stop = { ...ended(4, "t1", "user", partial), by: { id: "u2", name: "Ben" } };
    server.push("events", { prev: 2, events: [delta(3, "t1", "Hel"), stop] });
    expect(await over).toMatchObject({ status: "cancelled", reason: "user", by: { name: "Ben" }, message: { status: "partial" } });
    expect(texts).toEqual(["Hel"]);
  });

  it("gives values beside text", async () => {
    const pieces: TurnPiece[] = [];
    const over = (async () => {
      for await (const piece of session.turn("t1").pieces()) pieces.push(piece);
    })();
    await soon();
    const call = { part: 1, kind: "tool_call" as const, value: { name: "search" } };
    server.push("events", { prev: 2, events: [delta(3, "t1", "Hm"), { ...delta(4, "t1", ""), data: call }] });
    await soon();
    server.push("events", { prev: 4, events: [ended(5, "t1", "user", null)] });
    await over;
    expect(pieces).toEqual([{ part: 0, kind: "text", text: "Hm" }, call]);
  });

  it("whose log was replaced ends with an error instead of a mixture", async () => {
    const { over } = read(session.turn("t1"));
    server.push("events", { prev: 2, events: [delta(3, "t1", "Hel")] });
    await soon();
    server.connection.close();
    await vi.advanceTimersByTimeAsync(500);
    server.connection.open();
    const other = { messages: [prompt("m1", 1), answer("t1", 2, "Other")], turns: [running], session: { epoch: "e2" } };
    server.joined(snapshot(3, other));
    await expect(over).rejects.toMatchObject({ reason: "reset" });
  });

  it("of a session that was left, or that is not there, ends with an error", async () => {
    const { over } = read(session.turn("t1"));
    const nowhere = read(session.turn("t9"));
    await vi.advanceTimersByTimeAsync(10_000);
    await expect(nowhere.over).rejects.toMatchObject({ reason: "not_found" });
    session.leave();
    await expect(over).rejects.toMatchObject({ reason: "left" });
  });

  it("whose beginning comes after the answer to its send is waited for", async () => {
    const { texts, over } = read(session.turn("t2"));
    await vi.advanceTimersByTimeAsync(2_000);
    server.push("events", { prev: 2, events: [ended(3, "t1", "user", null), started(4, turn("t2", "m2"))] });
    server.push("events", { prev: 4, events: [completed(5, "t2", answer("t2", 4, "Hello"))] });
    expect(await over).toMatchObject({ status: "completed" });
    expect(texts).toEqual(["Hello"]);
  });
});
