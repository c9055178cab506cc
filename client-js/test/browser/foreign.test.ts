/**
 * Pages of other sites in a real browser, with a server on the same machine that needs no token: whatever such a page
 * makes the browser send, it reads nothing and changes nothing. Needs `REJOIN_BIN`.
 */
import { createServer, type Server } from "node:http";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { chromiumPath, launch } from "./chromium.js";
import { RejoinServer, rejoinBin } from "./rejoin.js";

const LIMIT_MS = 20_000;

/** What a page is shown of a request. */
type Shown = { status: number; text: string } | "nothing";

describe.skipIf(!rejoinBin() || chromiumPath() === undefined)("a page of another site", () => {
  let browser: Browser;
  let context: BrowserContext;
  let folder: string;
  let server: RejoinServer;
  let site: Server;
  let page: Page;

  beforeAll(async () => {
    // Names of a site lead where its owner says, also to this machine.
    browser = await launch("--host-resolver-rules=MAP *.test 127.0.0.1");
    site = createServer((_request, response) => {
      response.setHeader("content-type", "text/html");
      response.end("<!doctype html><title>elsewhere</title>");
    }).listen(0, "127.0.0.1");
    await once(site, "listening");
  });
  afterAll(async () => {
    site.close();
    await browser.close();
  });

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "rejoin-foreign-"));
    server = await RejoinServer.start(join(folder, "x.db"));
    context = await browser.newContext();
    page = await context.newPage();
    page.setDefaultTimeout(LIMIT_MS);
    const made = await own("/api/sessions", { method: "POST", body: { id: "private", title: "Secret plans" } });
    expect(made.status).toBe(201);
  });
  afterEach(async () => {
    await context.close();
    await server.kill();
    await rm(folder, { recursive: true, force: true });
  });

  /** A request of a program on this machine. */
  async function own(path: string, asked: { method: string; body?: unknown }): Promise<Response> {
    return fetch(server.url + path, {
      method: asked.method,
      headers: { "content-type": "application/json" },
      ...(asked.body === undefined ? {} : { body: JSON.stringify(asked.body) }),
    });
  }

  const visit = (host: string): Promise<unknown> => page.goto(`http://${host}:${(site.address() as AddressInfo).port}/`);

  /** What the page is shown of a request to the server. */
  const ask = (url: string, init: RequestInit = {}): Promise<Shown> =>
    page.evaluate(
      async ([to, how]) => {
        try {
          const answer = await fetch(to, how);
          return answer.type === "opaque" ? "nothing" : { status: answer.status, text: await answer.text() };
        } catch {
          return "nothing";
        }
      },
      [url, init] as const,
    );

  const session = async (): Promise<unknown> => (await own("/api/sessions/private", { method: "GET" })).json();
  const sessions = async (): Promise<number> => {
    const list = (await (await own("/api/sessions", { method: "GET" })).json()) as { sessions: unknown[] };
    return list.sessions.length;
  };

  it("of this machine is no such page: what it asks is done and shown", async () => {
    await visit("127.0.0.1");
    expect(await ask(`${server.url}/api/sessions/private`)).toMatchObject({ status: 200 });
    expect(await ask(`${server.url}/api/sessions/private`, { method: "DELETE" })).toMatchObject({ status: 200 });
    expect(await ask(`${server.url}/api/sessions/private`)).toMatchObject({ status: 404 });
  });

  it("reads nothing, whatever it asks", async () => {
    await visit("evil.test");
    for (const path of ["/api/sessions", "/api/sessions/private", "/api/nodes", "/readyz", "/metrics", "/nothing"]) {
      expect(await ask(server.url + path)).toBe("nothing");
      expect(await ask(server.url + path, { mode: "no-cors" })).toBe("nothing");
      expect(await ask(server.url + path, { headers: { authorization: "Bearer x" } })).toBe("nothing");
    }
  });

  it("writes nothing, by scripts, beacons and forms", async () => {
    await visit("evil.test");
    const before = await session();
    const body = JSON.stringify({ id: "m", text: "driven" });
    const messages = `${server.url}/api/sessions/private/messages`;
    for (const type of ["application/json", "text/plain", "application/x-www-form-urlencoded"]) {
      for (const mode of ["cors", "no-cors"] as const) {
        expect(await ask(messages, { method: "POST", mode, headers: { "content-type": type }, body })).toBe("nothing");
      }
    }
    for (const method of ["PATCH", "DELETE"]) {
      const headers = { "content-type": "application/json" };
      expect(await ask(`${server.url}/api/sessions/private`, { method, headers, body: "{}" })).toBe("nothing");
    }
    await page.evaluate(
      ([to, text]) => {
        navigator.sendBeacon(to, new Blob([text], { type: "text/plain" }));
      },
      [messages, body] as const,
    );
    // A form whose text is JSON, as far as a form can make it, and which opens its answer as a page.
    const answered = page.waitForResponse((response) => response.url() === messages);
    await page.evaluate((to) => {
      const form = document.createElement("form");
      Object.assign(form, { method: "post", action: to, enctype: "text/plain" });
      const field = document.createElement("input");
      Object.assign(field, { name: '{"text":"driven","x":"', value: '"}' });
      form.append(field);
      document.body.append(form);
      form.submit();
    }, messages);
    expect((await answered).status()).toBeGreaterThanOrEqual(400);
    expect(await session()).toEqual(before);
    expect(await sessions()).toBe(1);
  });

  it("does not pass for the server's own under a name that leads here", async () => {
    const before = await session();
    // Page and server are of one origin now, so that the browser keeps nothing back: only the server can.
    const rebound = `http://evil.test:${new URL(server.url).port}`;
    await page.goto(`${rebound}/healthz`);
    const headers = { "content-type": "application/json" };
    const messages = `${rebound}/api/sessions/private/messages`;
    for (const [url, init] of [
      [`${rebound}/api/sessions`, {}],
      [`${rebound}/api/sessions/private`, { method: "DELETE" }],
      [messages, { method: "POST", headers, body: JSON.stringify({ text: "driven" }) }],
    ] as const) {
      const shown = await ask(url, init);
      expect(shown).toMatchObject({ status: 403 });
      expect(JSON.stringify(shown)).not.toContain("Secret");
    }
    expect(await session()).toEqual(before);
  });
});
