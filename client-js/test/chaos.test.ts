/** Whatever happens, in whatever order: what is held becomes what the log says, and what was said is in it once. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Rejoin, type Session } from "../src/index.js";
import { persistIn } from "../src/persist.js";
import { MemoryArea, later } from "./support/area.js";
import { Model } from "./support/model.js";
import { FakeServer } from "./support/server.js";

const SEEDS = 150;
const STEPS = 60;

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** Numbers from 0 to 1 that are the same for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed * 2_654_435_761;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

class Run {
  readonly random: () => number;
  readonly #server = new FakeServer();
  readonly #model = new Model(this.#server);
  readonly #area = new MemoryArea();
  readonly #isSlow: boolean;
  readonly #said: string[] = [];
  readonly trail: string[] = [];
  #rejoin: Rejoin;
  #session: Session;

  constructor(seed: number) {
    this.random = randomOf(seed);
    this.#isSlow = seed % 3 === 0;
    [this.#rejoin, this.#session] = this.#load();
  }

  get model(): Model {
    return this.#model;
  }

  get session(): Session {
    return this.#session;
  }

  get said(): readonly string[] {
    return this.#said;
  }

  async step(): Promise<void> {
    const acts: readonly (readonly [string, number, () => void])[] = [
      ["say", 3, () => this.#say()],
      ["other", 2, () => this.#model.say()],
      ["answer", 10, () => this.#model.answer(this.random() < 0.2, this.random() < 0.3)],
      ["drop", 2, () => this.#model.drop()],
      ["refresh", 2, () => this.#refresh()],
      ["lose answer", 1, () => (this.#model.losesAnswer = true)],
      ["lose question", 1, () => (this.#model.losesQuestion = true)],
      ["lose event", 1, () => (this.#model.losesEvent = true)],
      ["snapshot", 1, () => (this.#model.nextJoin = "snapshot")],
      ["pages", 2, () => (this.#model.nextJoin = "pages")],
      ["leave", 1, () => this.#session.leave()],
      ["wait", 2, () => undefined],
    ];
    let point = this.random() * acts.reduce((sum, [, weight]) => sum + weight, 0);
    const [name, , act] = acts.find(([, weight]) => (point -= weight) < 0) ?? acts[0] ?? ["", 0, () => undefined];
    this.trail.push(name);
    act();
    if (name === "leave") void this.#session.join();
    await this.#pass(Math.round(this.random() ** 3 * 3_000));
  }

  /** The network is good again, and time passes. */
  async settle(): Promise<void> {
    this.#model.losesAnswer = this.#model.losesQuestion = this.#model.losesEvent = false;
    // The end of an event that was lost is seen with the next one.
    this.#model.say();
    for (let times = 0; times < 60; times += 1) await this.#pass(1_000);
  }

  end(): void {
    this.#rejoin.disconnect();
  }

  async #pass(ms: number): Promise<void> {
    for (const part of [0, ms, 0]) {
      this.#model.work();
      await vi.advanceTimersByTimeAsync(part);
      this.#check();
    }
  }

  /** Never, at no moment: a message that is there twice, or both in the log and in the outbox. */
  #check(): void {
    const { messages, outbox } = this.#session.snapshot;
    const ids = [...messages, ...outbox].map(({ id }) => id);
    if (new Set(ids).size !== ids.length) throw new Error(`shown twice: ${ids.join()}`);
  }

  #say(): void {
    const id = `said-${this.#said.length}`;
    this.#said.push(id);
    void this.#session.send(`text of ${id}`, { id });
  }

  /** The page goes away, with or without a last word to its storage. */
  #refresh(): void {
    if (this.random() < 0.5) this.#session.flush();
    const connection = this.#server.connections.at(-1);
    this.#model.drop();
    connection?.close();
    this.#rejoin.disconnect();
    [this.#rejoin, this.#session] = this.#load();
  }

  #load(): [Rejoin, Session] {
    const persist = persistIn(this.#isSlow ? later(this.#area) : this.#area);
    const rejoin = new Rejoin("ws://server/socket", { transport: this.#server.transport, user: { id: "u1" }, persist });
    const session = rejoin.session("s1");
    void session.join();
    return [rejoin, session];
  }
}

describe("a client", () => {
  it.each(Array.from({ length: SEEDS }, (_, index) => index + 1))("ends where the log is (seed %i)", async (seed) => {
    vi.spyOn(Math, "random").mockImplementation(randomOf(seed + 1_000_000));
    const run = new Run(seed);
    try {
      for (let times = 0; times < STEPS; times += 1) await run.step();
      await run.settle();
    } catch (error) {
      throw new Error(`after ${run.trail.join()}`, { cause: error });
    }
    const { snapshot } = run.session;
    const { state, seq } = run.model;
    expect(snapshot.status, run.trail.join()).toBe("joined");
    expect(snapshot.lastSeq, run.trail.join()).toBe(seq);
    expect(snapshot.outbox, run.trail.join()).toEqual([]);
    expect(snapshot.messages, run.trail.join()).toEqual(state.messages);
    expect(snapshot.turns).toEqual(state.turns);
    const mine = snapshot.messages.filter(({ id }) => id.startsWith("said-")).map(({ id }) => id);
    expect([...mine].sort(), run.trail.join()).toEqual([...run.said].sort());
    run.end();
  });
});
