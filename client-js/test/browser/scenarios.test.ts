/**
 * What happens to a page, most of it in the middle of an answer, in a real browser on the real server: no character is lost, none
 * comes twice. Prints what it counted. Needs `REJOIN_BIN`.
 */
import { createHmac } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ANSWER, WORDS, count } from "../support/recorder.js";
import { chromiumPath, launchKeepingPages } from "./chromium.js";
import { Door } from "./door.js";
import { RejoinServer, rejoinBin } from "./rejoin.js";
import { WatchedPages } from "./watched-pages.js";

const LIMIT_MS = 30_000;
/** Far more than the longest pause between two tries. */
const LONG_MS = 600_000;
const SECRET = "a-secret-of-at-least-thirty-two-bytes";

interface Opening {
  /** Gives the page its tokens. */
  readonly mint?: () => string;
  /** What is done to the page before it is loaded; whether it is joined then is for the test to say. */
  readonly before?: (page: Page) => unknown;
  /** Where the page comes from: through the door unless given. */
  readonly origin?: string;
}

describe.skipIf(!rejoinBin() || chromiumPath() === undefined)("whatever happens to a page", () => {
  let browser: Browser;
  let watched: WatchedPages;
  let folder: string;
  let server: RejoinServer;
  let door: Door;
  const contexts: BrowserContext[] = [];

  beforeAll(async () => {
    browser = await launchKeepingPages();
    watched = await WatchedPages.build();
  });
  afterAll(() => browser.close());

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "rejoin-scenarios-"));
  });
  afterEach(async () => {
    await Promise.all(contexts.splice(0).map((context) => context.close()));
    await door.close();
    await server.kill();
    await rm(folder, { recursive: true, force: true });
  });

  async function start(...options: readonly string[]): Promise<void> {
    server = await RejoinServer.start(join(folder, "x.db"), 0, options);
    door = await Door.before(server.port);
  }

  async function restart(): Promise<void> {
    server = await RejoinServer.start(join(folder, "x.db"), server.port);
  }

  /** A window of its own, as another person would have it. */
  async function open(name: string, { mint, before, origin = door.url }: Opening = {}): Promise<Page> {
    const context = await browser.newContext();
    contexts.push(context);
    if (mint) await context.exposeFunction("mint", mint);
    await watched.serve(context);
    const page = await context.newPage();
    page.setDefaultTimeout(LIMIT_MS);
    await before?.(page);
    await page.goto(`${origin}/watched.html?name=${name}`);
    if (!before) await joined(page);
    return page;
  }

  const until = async (page: Page, isSo: () => boolean): Promise<void> => {
    await page.waitForFunction(isSo, undefined, { polling: 20 });
  };
  const joined = (page: Page): Promise<void> => until(page, () => "watched" in window && window.watched.session.snapshot.status === "joined");
  const away = (page: Page): Promise<void> => until(page, () => window.watched.rejoin.connection.status !== "open");
  const midway = (page: Page): Promise<void> =>
    until(page, () => window.watched.text().length > 30 && window.watched.session.snapshot.running.length === 1);
  const over = (page: Page): Promise<void> =>
    until(page, () => {
      const { status, info, outbox } = window.watched.session.snapshot;
      return status === "joined" && info?.status === "idle" && info.last_seq > 2 && outbox.length === 0;
    });
  const text = (page: Page): Promise<string> => page.evaluate(() => window.watched.text());
  const say = (page: Page, what: string): Promise<void> =>
    page.evaluate((words) => void window.watched.session.send(words), what);

  /** Counts, prints, and expects nothing to be wrong. */
  async function judge(what: string, ...pages: readonly Page[]): Promise<void> {
    for (const [index, page] of pages.entries()) {
      const { lost, doubled } = count(await text(page), ANSWER);
      const jumps = await page.evaluate(() => window.watched.jumps);
      console.log(`${what}${pages.length > 1 ? `, window ${index + 1}` : ""}: ${lost} characters lost, ${doubled} doubled`);
      expect({ lost, doubled, jumps }).toEqual({ lost: 0, doubled: 0, jumps: [] });
    }
  }

  it("two windows stream together", async () => {
    await start();
    const pages = [await open("Ada"), await open("Ben")] as const;
    await say(pages[0], WORDS);
    await Promise.all(pages.map(midway));
    await Promise.all(pages.map(over));
    await judge("two windows", ...pages);
    for (const page of pages) expect(await page.evaluate(() => window.watched.steps)).toBeGreaterThan(10);
  });

  it("a page is loaded ten times", async () => {
    await start("--echo-delay", "150ms");
    const page = await open("Ada");
    await say(page, WORDS);
    await midway(page);
    for (let times = 0; times < 10; times += 1) {
      const before = await text(page);
      await page.reload();
      await joined(page);
      const { first, resets } = await page.evaluate(() => ({ first: window.watched.first, resets: window.watched.resets }));
      // What was there is there before the server has said a word, and it says only what came since.
      expect(first.text.startsWith(before)).toBe(true);
      expect(resets).toEqual([]);
      expect(await page.evaluate(() => window.watched.session.snapshot.running.length)).toBe(1);
    }
    await over(page);
    await judge("ten refreshes", page);
  });

  it("the server is killed and comes back", async () => {
    await start();
    const page = await open("Ada");
    await say(page, WORDS);
    await midway(page);
    const before = await text(page);
    await server.kill("SIGKILL");
    await away(page);
    expect(await page.evaluate(() => window.watched.session.snapshot.running.length)).toBe(1);
    await restart();
    await over(page);
    const cut = await page.evaluate(() => [...window.watched.session.snapshot.ended.values()][0]);
    expect(cut).toMatchObject({ status: "cancelled", reason: "owner_gone" });
    expect((await text(page)).startsWith(before)).toBe(true);
    await page.evaluate((id) => window.watched.session.retry(id), cut?.id ?? "");
    await until(page, () => [...window.watched.session.snapshot.ended.values()][0]?.status === "completed");
    await judge("a killed server, and a retry", page);
  });

  it("the page is offline and back, and what was said meanwhile is in the log once", async () => {
    await start();
    const [page, ben] = [await open("Ada"), await open("Ben")];
    await say(page, WORDS);
    await midway(page);
    await page.context().setOffline(true);
    door.treatment = "swallow";
    await page.evaluate(() => window.dispatchEvent(new Event("offline")));
    await until(page, () => window.watched.rejoin.connection.status === "offline");
    await page.evaluate(() => void window.watched.session.send("said while offline", { id: "offline", answer: false }));
    expect(await page.evaluate(() => window.watched.session.snapshot.outbox.map(({ status }) => status))).toEqual(["waiting"]);
    expect(await page.evaluate(() => window.watched.session.snapshot.running.length)).toBe(1);
    door.treatment = "pass";
    await page.context().setOffline(false);
    await over(page);
    await judge("offline and back", page);
    const said = (): number => window.watched.session.snapshot.messages.filter(({ id }) => id === "offline").length;
    await until(ben, () => window.watched.session.snapshot.messages.some(({ id }) => id === "offline"));
    expect([await page.evaluate(said), await ben.evaluate(said)]).toEqual([1, 1]);
  });

  it.each(["alive", "cut meanwhile"])("the page is frozen and wakes up, its connection %s", async (connection) => {
    await start();
    const page = await open("Ada");
    const outside = await open("Ben", { origin: server.url });
    const devtools = await page.context().newCDPSession(page);
    await say(page, WORDS);
    await midway(page);
    await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
    if (connection !== "alive") door.cut();
    // Somebody whom the freeze and the cut do not touch has been shown 20 words more.
    const words = (): number => window.watched.text().split(" ").length;
    const before = await outside.evaluate(words);
    await expect.poll(() => outside.evaluate(words), { timeout: LIMIT_MS }).toBeGreaterThanOrEqual(before + 20);
    expect(await outside.evaluate(() => window.watched.session.snapshot.running.length)).toBe(1);
    await devtools.send("Page.setWebLifecycleState", { state: "active" });
    await over(page);
    await judge(`a frozen page, its connection ${connection}`, page, outside);
  });

  it.each(["404", "swallow"] as const)("the network keeps WebSockets out (%s)", async (treatment) => {
    await start();
    door.treatment = treatment;
    const page = await open("Ada");
    expect(await page.evaluate(() => window.watched.rejoin.connection.transport)).toBe("longpoll");
    await say(page, WORDS);
    await midway(page);
    await page.reload();
    await joined(page);
    await over(page);
    await judge(`long-polling (WebSockets: ${treatment})`, page);
    expect(await page.evaluate(() => window.watched.rejoin.connection.transport)).toBe("longpoll");
  });

  it("the page is left, kept aside by the browser, and come back to", async () => {
    await start();
    const page = await open("Ada");
    await say(page, WORDS);
    await midway(page);
    const before = await text(page);
    await page.evaluate(() => Object.assign(window, { isSamePage: true }));
    await page.goto(`${server.url}/healthz`);
    // Not `goBack`, which waits for a page to be loaded.
    await page.evaluate(() => void setTimeout(() => history.back()));
    await until(page, () => "isSamePage" in window);
    await joined(page);
    expect((await text(page)).startsWith(before)).toBe(true);
    await over(page);
    await judge("kept aside and come back to", page);
    expect(await page.evaluate(() => window.watched.resets)).toEqual(["first_join"]);
  });

  it("a token that the server does not take is not shown again and again, and a better one is taken", async () => {
    await start("--auth", "jwt", "--jwt-secret", SECRET);
    let token = jwt(60).replace(/.$/u, (last) => (last === "A" ? "B" : "A")).slice(0, -4);
    let [minted, asked] = [0, 0];
    const mint = (): string => {
      minted += 1;
      return token;
    };
    const before = async (made: Page): Promise<void> => {
      await made.clock.install();
      made.on("websocket", () => (asked += 1));
    };
    const page = await open("Ada", { mint, before });
    await until(page, () => "watched" in window && window.watched.rejoin.connection.status === "refused");
    const after = { minted, asked };
    await page.clock.runFor(LONG_MS);
    expect({ minted, asked }).toEqual(after);
    expect(asked).toBeLessThanOrEqual(4);
    token = jwt(60);
    await page.evaluate(() => window.watched.rejoin.retryNow());
    await joined(page);
  });

  it("its token runs out, again and again, on one connection", async () => {
    await start("--auth", "jwt", "--jwt-secret", SECRET, "--echo-delay", "150ms");
    const minted: number[] = [];
    const page = await open("Ada", {
      mint: () => {
        minted.push(Date.now());
        return jwt(4);
      },
    });
    await say(page, WORDS);
    await over(page);
    await judge(`a token of 4 s, renewed ${minted.length - 1} times`, page);
    expect(minted.length).toBeGreaterThan(2);
    expect(await page.evaluate(() => window.watched.statuses)).toEqual(["connecting", "open"]);
  });

  it("its token runs out and no newer one comes in time: the connection ends, and the next one has it", async () => {
    await start("--auth", "jwt", "--jwt-secret", SECRET, "--echo-delay", "100ms");
    let token = jwt(3);
    let asked = 0;
    const page = await open("Ada", { mint: () => token });
    page.on("websocket", () => (asked += 1));
    await say(page, WORDS);
    await midway(page);
    await away(page);
    token = jwt(60);
    await over(page);
    await judge("a token that ran out", page);
    expect(asked).toBeLessThan(8);
  });
});

/** A token as a login would make it. */
function jwt(seconds: number): string {
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const iat = Math.floor(Date.now() / 1_000);
  const claims = { sub: "ada", name: "Ada", iat, exp: iat + seconds, topics: { "session:*": "write" } };
  const head = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${head}.${createHmac("sha256", SECRET).update(head).digest("base64url")}`;
}
