/**
 * A server that stops while two hundred pages watch an answer: they come back, not all at once, and each has all of it.
 * Each page is a frame with a world, a client and a connection of its own, twenty to a window. Needs `REJOIN_BIN`.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ANSWER, WORDS, count } from "../support/recorder.js";
import { chromiumPath, launch } from "./chromium.js";
import { RejoinServer, rejoinBin } from "./rejoin.js";
import { WatchedPages } from "./watched-pages.js";

const WINDOWS = 10;
const FRAMES = 20;
const PAGES = WINDOWS * FRAMES;
const LIMIT_MS = 60_000;

/** What one page has to tell when all is over. */
interface Told {
  readonly text: string;
  readonly jumps: readonly string[];
  /** When it tried to connect, in the machine's time. */
  readonly tries: readonly number[];
}

describe.skipIf(!rejoinBin() || chromiumPath() === undefined)("a drain", () => {
  let browser: Browser;
  let folder: string;
  let server: RejoinServer;

  beforeEach(async () => {
    browser = await launch();
    folder = await mkdtemp(join(tmpdir(), "rejoin-drain-"));
    server = await RejoinServer.start(join(folder, "x.db"), 0, ["--echo-delay", "120ms"]);
  });
  afterEach(async () => {
    await browser.close();
    await server.kill();
    await rm(folder, { recursive: true, force: true });
  });

  async function open(pages: WatchedPages, index: number): Promise<Page> {
    const page = await browser.newPage();
    page.setDefaultTimeout(LIMIT_MS);
    // A page of the server itself: from any other, this browser opens no connection to the machine it runs on.
    await page.goto(`${server.url}/healthz`);
    const names = Array.from({ length: FRAMES }, (_, at) => `u${index * FRAMES + at}`);
    await page.evaluate(fill, { names, script: pages.script });
    return page;
  }

  /** Waits until it is so in each frame of each window. */
  const until = (windows: readonly Page[], isSo: (frame: Window) => boolean): Promise<unknown> =>
    Promise.all(
      windows.map((page) =>
        page.waitForFunction(`Array.from(frames).every((frame) => frame.watched && (${String(isSo)})(frame))`, undefined, { polling: 200 }),
      ),
    );

  it("lets two hundred pages come back spread out, each with all of the answer", async () => {
    const pages = await WatchedPages.build();
    const windows = await Promise.all(Array.from({ length: WINDOWS }, (_, index) => open(pages, index)));
    await until(windows, ({ watched }) => watched.session.snapshot.status === "joined");
    await windows[0]?.evaluate((words) => void window.frames[0]?.watched.session.send(words), WORDS);
    await until(windows, ({ watched }) => watched.text().length > 40);

    // The answer ends before its server does; nobody is sent away before that without coming back to all of it.
    const begun = Date.now();
    await server.kill("SIGTERM");
    server = await RejoinServer.start(join(folder, "x.db"), server.port);
    await until(windows, ({ watched: { session, statuses } }) => {
      const { status, info } = session.snapshot;
      return statuses.length > 2 && status === "joined" && info?.status === "idle";
    });

    const told = (await Promise.all(windows.map((page) => page.evaluate(tell)))).flat();
    expect(told).toHaveLength(PAGES);
    expect(told.flatMap(({ jumps }) => jumps)).toEqual([]);
    expectWhole(told);
    expectSpread(told.map(({ tries }) => tries.filter((at) => at > begun).map((at) => at - begun)));
  });
});

/** Runs in a window: a page for each name. */
function fill({ names, script }: { readonly names: readonly string[]; readonly script: string }): void {
  for (const name of names) {
    const frame = document.createElement("iframe");
    frame.name = name;
    document.body.append(frame);
    const inside = frame.contentDocument ?? document;
    inside.body.append(Object.assign(inside.createElement("script"), { type: "module", text: script }));
  }
}

/** Runs in a window: what its pages have to tell. */
function tell(): Told[] {
  return Array.from({ length: frames.length }, (_, index) => {
    const { watched } = frames[index] as Window;
    return { text: watched.text(), jumps: watched.jumps, tries: watched.tries };
  });
}

function expectWhole(told: readonly Told[]): void {
  const counts = told.map(({ text }) => count(text, ANSWER));
  const lost = counts.reduce((sum, each) => sum + each.lost, 0);
  const doubled = counts.reduce((sum, each) => sum + each.doubled, 0);
  console.log(`a drain: ${told.length} pages, ${lost} characters lost, ${doubled} doubled`);
  expect({ lost, doubled }).toEqual({ lost: 0, doubled: 0 });
}

/** In step they would all come at once. */
function expectSpread(tries: readonly (readonly number[])[]): void {
  const firsts = tries.map(([first = Infinity]) => first).sort((a, b) => a - b);
  const all = tries.flat();
  const densest = Math.max(...all.map((at) => all.filter((other) => other >= at && other < at + 100).length));
  const at = (share: number): number => Math.round(firsts[Math.floor((firsts.length - 1) * share)] ?? Infinity);
  console.log(
    `a drain: first tries from ${at(0)} to ${at(1)} ms after SIGTERM (quartiles ${at(0.25)}, ${at(0.5)}, ${at(0.75)}); ` +
      `${all.length} tries, at most ${densest} of them within 100 ms`,
  );
  expect(firsts.at(-1)).toBeLessThan(Infinity);
  expect(densest).toBeLessThan(PAGES / 2);
}
