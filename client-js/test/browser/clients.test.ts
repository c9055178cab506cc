/**
 * The client of Phoenix as its package ships it for pages, in a real browser, on the page of the real server: it knows
 * nothing of this project. Needs `REJOIN_BIN`, and `npm ci` in tests/clients/node for the older version.
 */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { chromiumPath, launch } from "./chromium.js";
import { Door } from "./door.js";
import { RejoinServer, rejoinBin } from "./rejoin.js";

const LIMIT_MS = 20_000;
const BUNDLE = "priv/static/phoenix.min.js";
const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const versions = {
  "1.8.16": here(`../../node_modules/phoenix/${BUNDLE}`),
  "1.8.9": here(`../../../tests/clients/node/node_modules/phoenix-1.8.9/${BUNDLE}`),
};

/** Runs in the page, after the bundle: one socket, one channel, and a list of all that happened. */
const HELPER = `
window.happened = [];
const tell = (what, more) => happened.push({ what, ...more });
window.begin = (user, { poll, ...options }) => {
  const transport = poll ? Phoenix.LongPoll : WebSocket;
  const settings = { params: { user_id: user, name: user }, rejoinAfterMs: () => 50, ...options, transport };
  window.socket = new Phoenix.Socket("/socket", settings);
  socket.onOpen(() => tell("open", { over: socket.transport === Phoenix.LongPoll ? "longpoll" : "websocket" }));
  socket.onClose((event) => tell("closed", { code: event.code }));
  socket.connect();
  window.channel = socket.channel("room:page");
  channel.onMessage = (event, payload) => (event === "hi" && tell("hi", payload), payload);
  channel.onClose(() => tell("left"));
  window.presence = new Phoenix.Presence(channel);
  channel.join().receive("ok", () => tell("joined"));
};
window.push = (words) =>
  new Promise((resolve, reject) => channel.push("hi", { words }).receive("ok", resolve).receive("error", reject));
`;

interface Happened {
  readonly what: string;
  readonly words?: string;
  readonly over?: string;
  readonly code?: number;
}

describe.skipIf(!rejoinBin() || chromiumPath() === undefined).each(Object.entries(versions))(
  "phoenix %s in a page",
  (_version, bundle) => {
    let browser: Browser;
    let folder: string;
    let server: RejoinServer;
    let door: Door;
    const contexts: BrowserContext[] = [];

    beforeAll(async () => {
      if (!existsSync(bundle)) throw new Error(`There is no ${bundle}: run npm ci in tests/clients/node first.`);
      browser = await launch();
    });
    afterAll(() => browser.close());

    beforeEach(async () => {
      folder = await mkdtemp(join(tmpdir(), "rejoin-clients-"));
      server = await RejoinServer.start(join(folder, "x.db"));
      door = await Door.before(server.port);
    });
    afterEach(async () => {
      await Promise.all(contexts.splice(0).map((context) => context.close()));
      await door.close();
      await server.kill();
      await rm(folder, { recursive: true, force: true });
    });

    /** A window on the server's page with the client in it. */
    async function open(url: string): Promise<Page> {
      const context = await browser.newContext();
      contexts.push(context);
      const script = `${await readFile(bundle, "utf8")}\n${HELPER}`;
      const answer = { body: script, contentType: "text/javascript" };
      await context.route("**/phoenix-client.js", (route) => route.fulfill(answer));
      const page = await context.newPage();
      page.setDefaultTimeout(LIMIT_MS);
      await page.goto(url);
      await page.addScriptTag({ url: "/phoenix-client.js" });
      return page;
    }

    const begin = (page: Page, user: string, options: object = {}): Promise<unknown> =>
      page.evaluate(`begin(${JSON.stringify(user)}, ${JSON.stringify(options)})`);
    const happened = (page: Page, what: string): Promise<Happened[]> =>
      page.evaluate(`happened.filter((one) => one.what === ${JSON.stringify(what)})`);
    const users = (page: Page): Promise<unknown> =>
      page.evaluate("Object.fromEntries(presence.list((key, { metas }) => [key, metas.length]))");
    const until = <T>(read: () => Promise<T>): ReturnType<typeof expect.poll<T>> =>
      expect.poll(read, { timeout: LIMIT_MS });
    const times = async (page: Page, what: string, count: number): Promise<Happened | undefined> => {
      await until(async () => (await happened(page, what)).length).toBe(count);
      return (await happened(page, what)).at(-1);
    };

    /** The first of what may happen often: every attempt to connect that fails is closed, too. */
    const first = async (page: Page, what: string): Promise<Happened | undefined> => {
      await until(async () => (await happened(page, what)).length).toBeGreaterThan(0);
      return (await happened(page, what))[0];
    };

    async function talk(from: Page, to: Page, words: string): Promise<void> {
      expect(await from.evaluate(`push(${JSON.stringify(words)})`)).toEqual({});
      await until(async () => (await happened(to, "hi")).map((hi) => hi.words)).toContain(words);
    }

    it("talks, sees who is here, and is back after the server was killed", async () => {
      const [ada, ben] = [await open(server.url), await open(server.url)];
      await begin(ada, "ada");
      await begin(ben, "ben");
      await times(ada, "joined", 1);
      await times(ben, "joined", 1);
      expect((await times(ada, "open", 1))?.over).toBe("websocket");
      await talk(ada, ben, "good evening");
      await talk(ben, ada, "good evening, Ada");
      await until(() => users(ada)).toEqual({ ada: 1, ben: 1 });

      const { port } = server;
      await server.kill("SIGKILL");
      expect((await first(ada, "closed"))?.code).toBe(1006);
      server = await RejoinServer.start(join(folder, "x.db"), port);
      await times(ada, "joined", 2);
      await times(ben, "joined", 2);
      await talk(ben, ada, "there you are");
      await until(() => users(ben)).toEqual({ ada: 1, ben: 1 });
      await ada.evaluate("void channel.leave()");
      await times(ada, "left", 1);
      await until(() => users(ben)).toEqual({ ben: 1 });
    });

    it("polls: a hundred frames a request at most, and a new session for one that is gone", async () => {
      const page = await open(server.url);
      const posts: number[] = [];
      page.on("request", (request) => {
        if (request.method() === "POST") posts.push((request.postData() ?? "").split("\n").filter(Boolean).length);
      });
      await begin(page, "ada", { poll: true });
      await times(page, "joined", 1);
      posts.length = 0;
      await page.evaluate("Promise.all(Array.from({ length: 150 }, (_, index) => push(String(index))))");
      expect(posts).toEqual([100, 50]);

      // The next poll names a session that the server does not know, as if its own had gone.
      let lost = false;
      await page.route("**/socket/longpoll*", (route) => {
        const url = route.request().url();
        if (lost || route.request().method() !== "GET" || !url.includes("token=")) return route.continue();
        lost = true;
        return route.continue({ url: url.replace(/token=[^&]*/u, "token=gone") });
      });
      // It ends the poll that is waiting, if there is one; its answer may be in the session that is left then.
      await page.evaluate('void push("anybody?")');
      expect((await first(page, "closed"))?.code).toBe(3410);
      await times(page, "joined", 2);
      expect(await page.evaluate('push("back again")')).toEqual({});
    });

    const treatments = ["404", "swallow"] as const;
    it.each(treatments)("polls where WebSockets are answered with: %s; and the tab remembers", async (treatment) => {
      door.treatment = treatment;
      const page = await open(door.url);
      await begin(page, "ada", { longPollFallbackMs: 500 });
      await times(page, "joined", 1);
      expect((await times(page, "open", 1))?.over).toBe("longpoll");
      expect(await page.evaluate('push("over HTTP")')).toEqual({});
      expect(await page.evaluate('sessionStorage.getItem("phx:fallback:LongPoll")')).toBe("true");

      door.treatment = "pass";
      await page.reload();
      await page.addScriptTag({ url: "/phoenix-client.js" });
      await begin(page, "ada", { longPollFallbackMs: 500 });
      await times(page, "joined", 1);
      expect((await times(page, "open", 1))?.over).toBe("longpoll");
    });

    it("keeps its WebSocket where there is one", async () => {
      const page = await open(door.url);
      await begin(page, "ada", { longPollFallbackMs: 2500 });
      await times(page, "joined", 1);
      expect((await times(page, "open", 1))?.over).toBe("websocket");
      expect(await page.evaluate('sessionStorage.getItem("phx:fallback:LongPoll")')).toBe(null);
    });
  },
);
