import { describe, expect, it } from "vitest";
import { answeringOf, connectionText, hue, initials, plainText, questionOf, refusedDeletion, titleFrom, turnView, typingText } from "../demo/words.js";
import { applyEvents, fromJoin, type Message, type SessionState } from "../src/index.js";
import { added, answer, completed, ended, person, prompt, queued, snapshot, started, turn } from "./support/make.js";

const begun = applyEvents(fromJoin(null, snapshot(0)), [added(1, prompt("m1", 1)), started(2, turn("t1", "m1"))]);
const partial = answer("t1", 2, "Hel", "partial");

function views(state: SessionState): (string | undefined)[] {
  return state.messages.map((message) => turnView(state, message)?.text);
}

describe("what is said of the question of an answer", () => {
  const said = (state: SessionState): (string | undefined)[] =>
    state.messages.map((message, place) => answeringOf(state.messages, place, questionOf(state, message))?.text);
  const retry = { ...turn("t2", "m1"), attempt: 2, retry_of: "t1" };
  const between = applyEvents(begun, [
    added(3, prompt("m2", 3, "# And\nwho?", "u2")),
    completed(4, "t1", answer("t1", 2, "Hello")),
    added(5, prompt("m3", 5, "Me too", "u3")),
  ]);

  it("is nothing where that stands right above it", () => {
    expect(said(between)).toEqual([undefined, undefined, undefined, undefined]);
  });

  it("names who asked and the first words where others have said something meanwhile", () => {
    expect(said(applyEvents(between, [started(6, turn("t3", "m2"))])).at(-1)).toBe("answering Ben: And");
  });

  it("stands above a retry, and is known of the attempt that it takes the place of", () => {
    const retried = applyEvents(between, [ended(6, "t1", "user", partial), started(7, retry)]);
    expect(said(retried)).toEqual([undefined, undefined, undefined, undefined, "answering Ada: Hi"]);
    expect(retried.messages.map((message) => questionOf(retried, message))).toEqual([null, "m1", null, null, "m1"]);
  });

  it("says that the question is an earlier one where that is not held, unless it may stand right above", () => {
    const state = applyEvents(between, [started(6, retry)]);
    const held = { ...state, messages: state.messages.slice(1) };
    expect(said(held)).toEqual([undefined, undefined, undefined, "answering an earlier message"]);
  });

  it("does without words where the question has none, and is nothing where nobody knows it", () => {
    const silent = { ...prompt("m1", 1), parts: [{ kind: "data" as const, value: 1 }] };
    const [other, reply] = [prompt("m2", 3), answer("t1", 4, "Hello")];
    expect(answeringOf([silent, other, reply], 2, "m1")?.text).toBe("answering Ada");
    expect(answeringOf([silent, other, reply], 2, null)).toBeNull();
  });
});

describe("what is said of a session that was not deleted", () => {
  it.each([null, 401, 403, 404, 429, 500, 503])("says what to do (%s)", (status) => {
    expect(refusedDeletion(status)).toMatch(/again|Ask somebody|Choose another/u);
  });
});

describe("what is said of a turn", () => {
  it("stands beside the answer while it runs", () => {
    expect(views(begun)).toEqual([undefined, "echo is answering"]);
    const [, reply] = begun.messages as [Message, Message];
    expect(turnView(begun, reply)).toMatchObject({ action: "stop", turnId: "t1", status: "running" });
  });

  it("is nothing when the answer is complete", () => {
    expect(views(applyEvents(begun, [completed(3, "t1", answer("t1", 2, "Hello"))]))).toEqual([undefined, undefined]);
  });

  it.each([
    ["owner_gone", null, "interrupted — The server that was answering went away."],
    ["shutdown", null, "interrupted — The server was shut down before the answer was finished."],
    ["user", person("u2"), "interrupted — Stopped by Ben."],
    ["user", null, "interrupted — Stopped."],
    ["superseded", person("u2"), "interrupted — A newer message of Ben took its place."],
    ["superseded", null, "interrupted — A newer message took its place."],
  ] as const)("says why it was cut: %s", (reason, by, text) => {
    const cut = applyEvents(begun, [{ ...ended(3, "t1", reason, partial), by }]);
    expect(views(cut)).toEqual([undefined, text]);
    expect(turnView(cut, partial)).toMatchObject({ action: "retry", reason });
  });

  it("stands beside the question where there is no answer", () => {
    const empty = applyEvents(begun, [ended(3, "t1", "owner_gone", null)]);
    expect(views(empty)).toEqual(["interrupted — The server that was answering went away."]);
  });

  it("says what failed, in the server's words", () => {
    const error = { code: "timeout", message: "The agent was silent for 60 s.", retryable: true };
    const at = "2026-11-22T10:00:03.000Z";
    const data = { error, message: partial };
    const failed = applyEvents(begun, [{ seq: 3, type: "turn_failed", at, by: null, turn_id: "t1", data }]);
    expect(turnView(failed, partial)).toMatchObject({ reason: "timeout", action: "retry" });
    expect(views(failed)[1]).toBe("failed — The agent was silent for 60 s.");
  });

  it("says the place in the queue", () => {
    const waits = [
      added(3, prompt("m2", 3)),
      queued(4, turn("t2", "m2", "queued", 1)),
      added(5, prompt("m3", 5)),
      queued(6, turn("t3", "m3", "queued", 2)),
    ];
    expect(views(applyEvents(begun, waits)).slice(2)).toEqual(["waiting, next to run", "waiting, number 2 in the queue"]);
  });

  it("leaves an attempt that was followed by another without a button", () => {
    const retry = { ...turn("t2", "m1"), attempt: 2, retry_of: "t1" };
    const again = applyEvents(begun, [ended(3, "t1", "owner_gone", partial), started(4, retry)]);
    expect(views(again)).toEqual([undefined, "interrupted", "echo is answering, attempt 2"]);
    expect(turnView(again, partial)?.action).toBe("none");
  });

  it("waits for an owner that is quiet, and does not call it gone", () => {
    const quiet = { ...turn("t1", "m1"), owner: { node: "a", incarnation: "i", liveness: "unknown" as const } };
    const joined = fromJoin(null, snapshot(2, { messages: [prompt("m1", 1), answer("t1", 2)], turns: [quiet] }));
    expect(views(joined)[1]).toBe("echo is quiet — waiting for the server that answers");
  });
});

describe("other words", () => {
  it("tell the connection from the join", () => {
    expect(connectionText("open", false, true)).toBe("Connected");
    expect(connectionText("open", true, true)).toBe("Joining…");
    expect(connectionText("connecting", false, false)).toBe("Connecting…");
    expect(connectionText("connecting", false, true)).toBe("Reconnecting…");
    expect(connectionText("closed", false, true)).toBe("Disconnected");
  });

  it("name who is typing", () => {
    expect(typingText([])).toBe("");
    expect(typingText(["Ada"])).toBe("Ada is typing…");
    expect(typingText(["Ada", "Ben"])).toBe("Ada and Ben are typing…");
    expect(typingText(["Ada", "Ben", "Cleo"])).toBe("Several people are typing…");
  });

  it("make a title of what is said first", () => {
    const said = [
      "Hello",
      "\n\n# Launch plan\nand more",
      "**Launch plan**, in `weeks`",
      "- see [the guide](https://example.com/a_b) for snake_case",
      "word ".repeat(40),
      "***",
      "",
    ];
    expect(said.map(titleFrom)).toEqual([
      "Hello",
      "Launch plan",
      "Launch plan, in weeks",
      "see the guide for snake_case",
      `${"word ".repeat(12).trim()}…`,
      "",
      "",
    ]);
  });

  it("shorten names", () => {
    expect(["Ada", "ada lovelace", "Ada de Lovelace", "", "🚀 man"].map(initials)).toEqual(["A", "AL", "AD", "?", "🚀M"]);
  });

  it("give everyone a colour of their own", () => {
    const hues = ["u1", "u2", "u3", "guest-1", "guest-2"].map(hue);
    expect(new Set(hues).size).toBe(hues.length);
    expect(hues.every((value) => value >= 0 && value < 360)).toBe(true);
  });

  it("take the text of a message alone", () => {
    const parts = [{ kind: "reasoning" as const, text: "Hm." }, { kind: "text" as const, text: "Hello" }];
    expect(plainText({ ...partial, parts })).toBe("Hello");
  });
});
