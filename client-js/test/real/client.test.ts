/** The client as a Node program uses it, on the real server. Needs `REJOIN_BIN`. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { Rejoin, type RejoinOptions, type Session, type Transport } from "../../src/index.js";
import { live } from "../../src/live.js";
import { persistIn } from "../../src/persist.js";
import { RejoinServer, rejoinBin } from "../browser/rejoin.js";
import { MemoryArea } from "../support/area.js";
import { ANSWER, WORDS, answerOf, count, until } from "../support/recorder.js";

const NOTHING = { lost: 0, doubled: 0 };

/** A network that leads nowhere. */
class Nowhere {
  close(): void {
    // There is nothing to close.
  }
}

describe.skipIf(!rejoinBin())("on the real server", () => {
  let folder: string;
  let server: RejoinServer;
  const open: Rejoin[] = [];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "rejoin-client-"));
    server = await RejoinServer.start(join(folder, "x.db"));
  });

  afterEach(async () => {
    for (const rejoin of open.splice(0)) rejoin.disconnect();
    await server.kill();
    await rm(folder, { recursive: true, force: true });
  });

  function client(name: string, options: RejoinOptions = {}): Rejoin {
    const transport = WebSocket as unknown as Transport;
    const url = `${server.url.replace("http", "ws")}/socket`;
    const rejoin = new Rejoin(url, { user: { id: name.toLowerCase(), name }, transport, ...options });
    open.push(rejoin);
    return rejoin;
  }

  async function session(name: string, options: RejoinOptions = {}): Promise<Session> {
    const session = client(name, options).session("s1");
    await session.join();
    return session;
  }

  /** Waits until some of the answer is there. */
  const midway = (session: Session): Promise<unknown> =>
    until(session, "midway", (snapshot) => answerOf(snapshot).length > 40 && snapshot.running.length === 1);
  const idle = (session: Session): Promise<unknown> =>
    until(session, "idle", (s) => s.status === "joined" && s.info?.status === "idle" && s.outbox.length === 0);

  it("two people see each other and the same answer, and a reader gets all of it", async () => {
    const [ada, ben] = [await session("Ada"), await session("Ben")];
    await until(ada, "with Ben", ({ people }) => people.some(({ name }) => name === "Ben"));
    const { turn_id } = await ada.send(WORDS);
    let read = "";
    for await (const text of ben.turn(turn_id ?? "")) read += text;
    await idle(ada);
    expect(count(read, ANSWER)).toEqual(NOTHING);
    expect(count(answerOf(ada.snapshot), ANSWER)).toEqual(NOTHING);
    expect(ada.snapshot.messages).toEqual(ben.snapshot.messages);
  });

  it("a page that is loaded ten times during an answer loses nothing and doubles nothing", async () => {
    const area = new MemoryArea();
    const asks = await session("Ada", { persist: persistIn(area) });
    await asks.send(WORDS);
    let shown = asks;
    for (let times = 0; times < 10; times += 1) {
      const before = shown.snapshot.lastSeq;
      await until(shown, "further", ({ lastSeq, turns }) => lastSeq > before + 1 || turns.length === 0);
      shown.flush();
      open.pop()?.disconnect();
      shown = client("Ada", { persist: persistIn(area) }).session("s1");
      expect(shown.snapshot.isReady).toBe(true);
      const resets: string[] = [];
      shown.on("reset", (reason) => resets.push(reason));
      await shown.join();
      expect(resets).toEqual([]);
    }
    await idle(shown);
    expect(count(answerOf(shown.snapshot), ANSWER)).toEqual(NOTHING);
    expect(shown.snapshot.messages).toHaveLength(2);
  });

  it("what was said while the server was killed is in the log once, and the cut answer says why", async () => {
    const ada = await session("Ada");
    await ada.send(WORDS);
    await midway(ada);
    const { port } = server;
    await server.kill("SIGKILL");
    await until(ada, "away", ({ status }) => status === "joining");
    expect(ada.snapshot.running).toHaveLength(1);
    const waiting = ada.send("and then?", { id: "second" });
    server = await RejoinServer.start(join(folder, "x.db"), port);
    await waiting;
    await idle(ada);
    const { messages, ended } = ada.snapshot;
    expect(messages.filter(({ id }) => id === "second")).toHaveLength(1);
    const cut = messages.find(({ status }) => status === "partial");
    expect(ANSWER.startsWith(cut?.parts[0]?.text ?? "-")).toBe(true);
    expect([...ended.values()].map(({ reason }) => reason)).toContain("owner_gone");
  });

  it("two windows with one storage say what one of them could not, once", async () => {
    const area = new MemoryArea();
    const dead = client("Ada", { persist: persistIn(area), transport: Nowhere }).session("s1");
    void dead.send("said once", { id: "shared", answer: false });
    const [one, two] = await Promise.all([
      session("Ada", { persist: persistIn(area) }),
      session("Ada", { persist: persistIn(area) }),
    ]);
    for (const window of [one, two]) {
      const { messages } = await until(window, "said", (s) => s.messages.length > 0 && s.outbox.length === 0);
      expect(messages.map(({ id }) => id)).toEqual(["shared"]);
    }
    expect(area.under(":o:")).toEqual([]);
  });

  it("a drain is waited out as the server asks, and everything is back", async () => {
    const ada = await session("Ada");
    await ada.send("Hi");
    await idle(ada);
    const held = ada.snapshot.messages;
    const { port } = server;
    await server.kill("SIGTERM");
    server = await RejoinServer.start(join(folder, "x.db"), port);
    await until(ada, "back", ({ status }) => status === "joined");
    expect(ada.snapshot.messages).toEqual(held);
  });

  it("cancel and retry say what really happened", async () => {
    const ada = await session("Ada");
    const { turn_id } = await ada.send(WORDS);
    await midway(ada);
    expect(await ada.cancel(turn_id ?? "")).toEqual({ outcome: "cancelled", status: "cancelled", reason: "user" });
    expect(await ada.cancel(turn_id ?? "")).toEqual({ outcome: "already_ended", status: "cancelled", reason: "user" });
    const retry = await ada.retry(turn_id ?? "");
    expect(retry).toMatchObject({ attempt: 2, duplicate: false });
    expect(await ada.retry(turn_id ?? "")).toEqual({ ...retry, duplicate: true });
    expect(await ada.turn(retry.turn_id).outcome()).toMatchObject({ status: "completed" });
    expect(count(answerOf(ada.snapshot), ANSWER)).toEqual(NOTHING);
  });

  it("a refusal stays in the outbox with the server's reason", async () => {
    const ada = await session("Ada");
    await ada.send(WORDS);
    await expect(ada.send("now", { whenBusy: "reject" })).rejects.toMatchObject({ reason: "busy" });
    expect(ada.snapshot.outbox).toMatchObject([{ status: "failed", error: { reason: "busy" } }]);
    const [refused] = ada.snapshot.outbox;
    expect(ada.discard(refused?.id ?? "")).toBe(true);
    await expect(ada.send("other", { id: ada.snapshot.messages[0]?.id ?? "" })).rejects.toMatchObject({ reason: "conflict" });
  });

  it("the list is live", async () => {
    const list = client("Ben").list();
    await list.join();
    expect(list.snapshot.sessions).toEqual([]);
    const ada = await session("Ada");
    await ada.update({ title: "Plans" });
    await ada.send(WORDS);
    await expect.poll(() => list.snapshot.sessions[0]).toMatchObject({ id: "s1", title: "Plans", status: "running" });
    await idle(ada);
    await expect.poll(() => list.snapshot.sessions[0]?.status).toBe("idle");
  });

  it("typing is seen by the others and not by oneself, and is over when one leaves", async () => {
    const [ada, ben] = [await session("Ada"), await session("Ben")];
    await until(ben, "with Ada", ({ people }) => people.some(({ id }) => id === "ada"));
    live(ada, "typing").set(true);
    await expect.poll(() => live(ben, "typing").getSnapshot()).toMatchObject([{ by: { name: "Ada" }, value: true }]);
    expect(live(ada, "typing").getSnapshot()).toEqual([]);
    ada.leave();
    await expect.poll(() => live(ben, "typing").getSnapshot()).toEqual([]);
  });

  it("older messages come by history, each once", async () => {
    const ada = await session("Ada");
    for (let index = 0; index < 110; index += 1) await ada.send(`note ${index}`, { answer: false });
    const ben = await session("Ben");
    expect(ben.snapshot.messages).toHaveLength(100);
    expect(ben.snapshot.hasMore).toBe(true);
    expect(await ben.history()).toBe(false);
    await until(ada, "all of them", ({ messages }) => messages.length === 110);
    expect(ben.snapshot.messages).toEqual(ada.snapshot.messages);
  });

  it("long-polling does the same", async () => {
    const ada = await session("Ada", { transport: "longpoll" });
    await ada.send(WORDS);
    await idle(ada);
    expect(count(answerOf(ada.snapshot), ANSWER)).toEqual(NOTHING);
  });
});
