import { readFileSync } from "node:fs";
import { setImmediate as macrotask } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Persistence, Rejoin, Session } from "../src/index.js";
import { persistIn } from "../src/persist.js";
import { MemoryArea } from "./support/area.js";
import { endClient, joinFirst, startClient } from "./support/client.js";
import { snapshot } from "./support/make.js";
import type { FakeServer } from "./support/server.js";

let server: FakeServer;
let rejoin: Rejoin;
let session: Session;
const unhandled: unknown[] = [];
const note = (reason: unknown): unknown => unhandled.push(reason);

const older = snapshot(9, { before: 5, has_more: true });
const refusal = { reason: "unauthorized", message: "You may not." };
const broken: Persistence = { ...persistIn(new MemoryArea()), forget: () => Promise.reject(new Error("The disk is full.")) };

beforeEach(() => {
  ({ server, rejoin } = startClient({ user: { id: "u1", name: "Ada" }, persist: broken }));
  session = rejoin.session("s1");
  unhandled.length = 0;
  process.on("unhandledRejection", note);
});

afterEach(() => {
  process.off("unhandledRejection", note);
  endClient(rejoin);
});

/** What is asked of the server, and refused by it. */
async function refused(event: string, ask: () => Promise<unknown>): Promise<Promise<unknown>[]> {
  await joinFirst(server, session, older);
  const asked = ask();
  server.answer(event, refusal, "error");
  return [asked];
}

type Failing = () => Promise<unknown>[] | Promise<Promise<unknown>[]>;

/** Each in the ways in which it fails. */
const METHODS: readonly (readonly [string, string, Failing])[] = [
  ["Rejoin.renewToken", "no token to be had", async () => {
    await joinFirst(server, session, snapshot(0));
    return [rejoin.renewToken(() => Promise.reject(new Error("Logged out.")))];
  }],
  ["Rejoin.renewToken", "a refusal", () => refused("access_token", () => rejoin.renewToken("abc"))],
  ["Rejoin.forget", "a storage that fails", () => [rejoin.forget()]],
  ["Session.join", "a refusal", () => {
    const joins = [session.join(), session.join()];
    server.connection.open();
    server.answer("phx_join", refusal, "error");
    return joins;
  }],
  ["Session.send", "an empty text", () => [session.send("")]],
  ["Session.send", "no parts", () => [session.send([])]],
  ["Session.send", "a refusal", () => refused("send", () => session.send("Hi"))],
  ["Session.send", "a session that was deleted", async () => {
    await joinFirst(server, session, snapshot(0));
    server.push("deleted", { by: null });
    return [session.send("Hi")];
  }],
  ["Session.cancel", "a refusal", () => refused("cancel", () => session.cancel("t1"))],
  ["Session.cancel", "no join", () => [session.cancel("t1")]],
  ["Session.retry", "a refusal", () => refused("retry", () => session.retry("t1"))],
  ["Session.retry", "no join", () => [session.retry("t1")]],
  ["Session.history", "a refusal", () => refused("history", () => session.history())],
  ["Session.history", "a session that is left", async () => {
    await joinFirst(server, session, older);
    const loads = [session.history(), session.history()];
    session.leave();
    return loads;
  }],
  ["Session.update", "a refusal", () => refused("update", () => session.update({ title: "Moons" }))],
  ["Session.update", "no join", () => [session.update({ title: "Moons" })]],
  ["Session.broadcast", "a refusal", () => refused("broadcast", () => session.broadcast("wave"))],
  ["Session.broadcast", "no connection", () => [session.broadcast("wave")]],
  ["Session.setPresence", "a refusal", () => refused("presence", () => session.setPresence({ mood: "calm" }))],
  ["SessionList.join", "a refusal", () => {
    const joins = [rejoin.list().join(), rejoin.list().join()];
    server.connection.open();
    server.answer("phx_join", refusal, "error");
    return joins;
  }],
  ["TurnReader.outcome", "no join", () => [session.turn("t1").outcome()]],
];

describe("a promise that nobody waits for", () => {
  it.each(METHODS)("%s is no unhandled rejection, and rejects for who does wait: %s", async (_name, _why, fail) => {
    const failed = await fail();
    await macrotask();
    await macrotask();
    expect(unhandled).toEqual([]);
    for (const promise of failed) await expect(promise).rejects.toBeInstanceOf(Error);
  });

  it("is looked at here for every method of the package that gives one", () => {
    const reference = readFileSync(new URL("../docs/api.md", import.meta.url), "utf8");
    const classes = [...reference.matchAll(/^(?:export )?declare class (\w+).*?^\}/gmsu)];
    const methods = classes.flatMap(([text, name]) => [...text.matchAll(/^ {4}(\w+)\(.*\): Promise</gmu)].map(([, method]) => `${name}.${method}`));
    expect(new Set(METHODS.map(([name]) => name))).toEqual(new Set(methods));
  });
});
