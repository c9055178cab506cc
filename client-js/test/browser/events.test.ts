/** A browser's own `EventSource` on the real server: it comes back by itself, and nothing is missing. Needs `REJOIN_BIN`. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { chromiumPath, launch } from "./chromium.js";
import { RejoinServer, rejoinBin } from "./rejoin.js";

const LIMIT_MS = 30_000;
const WORDS = Array.from({ length: 60 }, (_, index) => `word${index + 1}`).join(" ");
const CLOSED = 2;

interface Seen {
  name: string;
  id: string;
  data: string;
}

interface Listening {
  source: EventSource;
  seen: Seen[];
}

interface Joined {
  session: { epoch: string };
  replay: { mode: string; from?: number; to: number; events?: { type: string }[] };
}

interface Events {
  prev: number;
  events: { seq: number; type: string; data: { message?: { parts: { text?: string }[] } } }[];
}

describe.skipIf(!rejoinBin() || chromiumPath() === undefined)("an EventSource on the real server", () => {
  let browser: Browser;
  let context: BrowserContext;
  let folder: string;
  let server: RejoinServer;
  let page: Page;

  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(() => browser.close());

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "rejoin-events-"));
    server = await RejoinServer.start(join(folder, "x.db"));
    context = await browser.newContext();
    page = await context.newPage();
    page.setDefaultTimeout(LIMIT_MS);
    // A page of the server's own that does nothing by itself.
    await page.goto(`${server.url}/healthz`);
  });
  afterEach(async () => {
    await context.close();
    await server.kill();
    await rm(folder, { recursive: true, force: true });
  });

  const listen = (session: string): Promise<void> =>
    page.evaluate((path) => {
      const listening: Listening = { source: new EventSource(path), seen: [] };
      for (const name of ["joined", "events", "deleted"]) {
        listening.source.addEventListener(name, (event) => {
          listening.seen.push({ name, id: event.lastEventId, data: event.data as string });
        });
      }
      (globalThis as unknown as { listening: Listening }).listening = listening;
    }, `/api/sessions/${session}/events?user_id=eve`);

  const seen = (): Promise<Seen[]> =>
    page.evaluate(() => (globalThis as unknown as { listening: Listening }).listening.seen);

  const readyState = (): Promise<number> =>
    page.evaluate(() => (globalThis as unknown as { listening: Listening }).listening.source.readyState);

  async function say(session: string, text: string): Promise<void> {
    const answer = await fetch(`${server.url}/api/sessions/${session}/messages?user_id=ada`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ text }),
    });
    expect(answer.status).toBe(202);
  }

  /** Goes over all that was sent as a client has to, and fails on a gap: how it began anew, and the types of events. */
  function followed(all: Seen[]): { modes: string[]; types: string[]; answers: string[] } {
    const [modes, types, answers]: [string[], string[], string[]] = [[], [], []];
    let [held, epoch] = [0, ""];
    for (const { name, id, data } of all) {
      if (name === "joined") {
        const { session, replay } = JSON.parse(data) as Joined;
        if (replay.mode === "replay") expect(replay.from).toBe(held);
        modes.push(replay.mode);
        types.push(...(replay.events ?? []).map(({ type }) => type));
        [held, epoch] = [replay.to, session.epoch];
      } else {
        const { prev, events } = JSON.parse(data) as Events;
        expect(prev).toBe(held);
        held = events.at(-1)?.seq ?? held;
        types.push(...events.map(({ type }) => type));
        for (const { type, data: of } of events) {
          if (type === "turn_completed") answers.push(of.message?.parts.map(({ text }) => text ?? "").join("") ?? "");
        }
      }
      expect(id).toBe(`${epoch}:${held}`);
    }
    return { modes, types, answers };
  }

  async function until(what: (all: Seen[]) => boolean): Promise<Seen[]> {
    await expect.poll(async () => what(await seen()), { timeout: LIMIT_MS }).toBe(true);
    return seen();
  }

  const has = (all: Seen[], type: string): number => all.filter(({ data }) => data.includes(`"type":"${type}"`)).length;

  it("is shown an answer while it streams", async () => {
    await say("s", "first");
    await listen("s");
    await say("s", WORDS);
    const all = await until((now) => has(now, "turn_completed") === 2);
    const { modes, answers } = followed(all);
    expect(modes).toEqual(["snapshot"]);
    expect(answers.at(-1)?.trim()).toBe(`You said: ${WORDS}`);
    expect(has(all, "turn_delta")).toBeGreaterThan(10);
  });

  it.each(["SIGKILL", "SIGTERM"] as const)("comes back after a %s and misses nothing", async (signal) => {
    await say("s", WORDS);
    await listen("s");
    await until((all) => has(all, "turn_delta") > 5);
    const { port } = server;
    await server.kill(signal);
    server = await RejoinServer.start(join(folder, "x.db"), port);
    await until((all) => all.filter(({ name }) => name === "joined").length >= 2);
    await say("s", "and on it goes");
    const all = await until((now) => now.some(({ data }) => data.includes("You said: and on it goes")));
    const { modes, types } = followed(all);
    expect(modes.slice(1).every((mode) => mode === "replay")).toBe(true);
    expect(types).toContain(signal === "SIGKILL" ? "turn_cancelled" : "turn_completed");
  });

  it("stays away from a session that is not there", async () => {
    await listen("nobody");
    await expect.poll(readyState, { timeout: LIMIT_MS }).toBe(CLOSED);
    expect(await seen()).toEqual([]);
  });
});
