import { readFileSync, readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { addHistory, applyEvent, applyEvents, fromJoin, turnOf, type SessionState } from "../src/fold.js";
import type { JoinReply, Message, SessionEvent } from "../src/types.js";
import { added, answer, delta, ended, person, prompt, snapshot, started, turn } from "./support/make.js";

interface Vector {
  readonly name: string;
  readonly steps: readonly ({ readonly join: JoinReply } | { readonly events: readonly SessionEvent[] })[];
  readonly expect: {
    readonly last_seq: number;
    readonly messages: readonly Message[];
    readonly turns: readonly string[];
    readonly ended: Readonly<Record<string, string>>;
  };
}

const folder = new URL("../../protocol/vectors/fold/", import.meta.url);
const vectors = readdirSync(folder)
  .filter((file) => file.endsWith(".json"))
  .map((file) => JSON.parse(readFileSync(new URL(file, folder), "utf8")) as Vector);

/** Freezes all of it, so that changing it in place throws. */
function freeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    Object.values(value).forEach(freeze);
  }
  return value;
}

function run(steps: Vector["steps"]): SessionState {
  let state: SessionState | null = null;
  for (const step of steps) {
    if ("join" in step) state = freeze(fromJoin(state, freeze(step.join)));
    else if (state) for (const event of step.events) state = freeze(applyEvent(state, freeze(event)));
  }
  if (!state) throw new Error("a vector begins with a join");
  return state;
}

describe("the vectors", () => {
  it("are there", () => expect(vectors.length).toBeGreaterThan(30));

  it.each(vectors.map((vector) => [vector.name, vector] as const))("%s", (_name, vector) => {
    const state = run(vector.steps);
    expect(state.lastSeq).toBe(vector.expect.last_seq);
    expect(state.messages).toEqual(vector.expect.messages);
    expect(state.turns.map((t) => t.id)).toEqual(vector.expect.turns);
    expect(Object.fromEntries([...state.ended].map(([promptId, t]) => [promptId, t.id]))).toEqual(vector.expect.ended);
    const queued = state.turns.filter((t) => t.status === "queued");
    expect(queued.map((t) => t.position)).toEqual(queued.map((_, index) => index + 1));
  });
});

describe("the fold", () => {
  const begun = applyEvents(fromJoin(null, snapshot(0)), [added(1, prompt("m1", 1)), started(2, turn("t1", "m1"))]);

  it("derives the session's fields", () => {
    expect(begun.session).toMatchObject({ status: "running", last_seq: 2 });
    const over = applyEvent(begun, ended(3, "t1", "owner_gone", null));
    expect(over.session).toMatchObject({ status: "idle", last_seq: 3 });
  });

  it("tells how and by whom a turn ended", () => {
    const over = applyEvent(begun, { ...ended(3, "t1", "user", null), by: person("u2") });
    const last = over.ended.get("m1");
    expect(last).toMatchObject({ status: "cancelled", reason: "user", ended_by: person("u2"), owner: null });
    expect(last?.ended_at).toBe(ended(3, "t1", "user", null).at);
  });

  it("keeps the identity of what did not change", () => {
    const next = applyEvent(begun, delta(3, "t1", "Hello"));
    expect(next.messages[0]).toBe(begun.messages[0]);
    expect(next.messages[1]).not.toBe(begun.messages[1]);
    expect(next.turns).toBe(begun.turns);
    expect(next.ended).toBe(begun.ended);
  });

  it("applies no event twice", () => {
    const next = applyEvent(begun, delta(3, "t1", "Hello"));
    expect(applyEvent(next, delta(3, "t1", "Hello"))).toBe(next);
  });

  it("takes the turns of the cut, with what no event tells", () => {
    const unknown = { ...turn("t1", "m1"), owner: { node: "a", incarnation: "i", liveness: "unknown" as const } };
    const reply = snapshot(2, { turns: [unknown] });
    const rejoined = fromJoin(begun, { ...reply, replay: { mode: "replay", from: 2, to: 2, events: [] } });
    expect(rejoined.turns[0]?.owner?.liveness).toBe("unknown");
    expect(rejoined.messages).toBe(begun.messages);
  });

  it("streams a long answer in time that follows the deltas", () => {
    const count = 20_000;
    let state = begun;
    for (let seq = 3; seq < 3 + count; seq += 1) state = applyEvent(state, delta(seq, "t1", "0123456789"));
    expect(state.messages[1]?.parts[0]?.text?.length).toBe(10 * count);
  });
});

describe("history", () => {
  const held = fromJoin(null, snapshot(10, { messages: [prompt("m3", 9)], before: 9, has_more: true }));
  const older = { messages: [prompt("m1", 1), prompt("m2", 5)], ended: [turn("t1", "m1", "completed")] };

  it("adds older messages in their order", () => {
    const state = addHistory(held, { ...older, before: 1, has_more: false });
    expect(state.messages.map((message) => message.id)).toEqual(["m1", "m2", "m3"]);
    expect(state).toMatchObject({ before: 1, hasMore: false });
    expect(state.ended.get("m1")?.id).toBe("t1");
  });

  it("never replaces a message that is held", () => {
    const other = { ...prompt("m3", 9), parts: [{ kind: "text" as const, text: "something else" }] };
    const state = addHistory(held, { messages: [other], ended: [], before: 9, has_more: true });
    expect(state.messages[0]).toBe(held.messages[0]);
  });

  it("does not end a prompt that has a turn under way", () => {
    const running = applyEvents(held, [started(11, turn("t2", "m1"))]);
    const state = addHistory(running, { ...older, before: 1, has_more: false });
    expect(state.ended.has("m1")).toBe(false);
  });
});

describe("turnOf", () => {
  it("finds the turn of a prompt and of an answer, running and ended", () => {
    const begun = applyEvents(fromJoin(null, snapshot(0)), [added(1, prompt("m1", 1)), started(2, turn("t1", "m1"))]);
    const [ask, reply] = begun.messages as [Message, Message];
    expect(turnOf(begun, ask)?.id).toBe("t1");
    expect(turnOf(begun, reply)?.status).toBe("running");
    const over = applyEvent(begun, ended(3, "t1", "user", { ...answer("t1", 2), status: "partial" }));
    expect(turnOf(over, ask)?.status).toBe("cancelled");
    expect(turnOf(over, reply)?.status).toBe("cancelled");
  });

  it("gives an answer that was retried no turn, and the prompt the new one", () => {
    let state = applyEvents(fromJoin(null, snapshot(0)), [added(1, prompt("m1", 1)), started(2, turn("t1", "m1"))]);
    state = applyEvent(state, ended(3, "t1", "owner_gone", { ...answer("t1", 2), status: "partial" }));
    state = applyEvent(state, started(4, { ...turn("t2", "m1"), attempt: 2, retry_of: "t1" }));
    expect(state.messages.map((message) => turnOf(state, message)?.id)).toEqual(["t2", undefined, "t2"]);
  });
});
