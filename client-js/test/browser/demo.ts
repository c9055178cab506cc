/** The demo page in a browser, on a server that says what the test says: opened anew for each test. */
import { existsSync } from "node:fs";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import type { Browser, BrowserContext, Locator, Page } from "playwright-core";
import { added, delta, person, prompt, queued, snapshot, started, turn } from "../support/make.js";
import { chromiumPath, launch } from "./chromium.js";
import { MockServer } from "./mock.js";

const LIMIT_MS = 10_000;

export const canBrowse = existsSync(chromiumPath() ?? "");

export class Demo {
  page!: Page;
  server!: MockServer;
  context!: BrowserContext;
  /** What the page's policy forbade, and what was thrown: nothing. */
  readonly complaints: string[] = [];

  by(testid: string): Locator {
    return this.page.getByTestId(testid);
  }

  async open(): Promise<void> {
    await this.page.goto(`${MockServer.url}/?session=s1&name=Ada`);
    await this.by("connection").getByText("Connected").waitFor();
  }

  /** One question that is being answered, and somebody else who waits. */
  async openBusy(): Promise<void> {
    await this.open();
    this.server.push("presence_state", {
      u2: { metas: [{ phx_ref: "1", name: "Ben" }] },
      u1: { metas: [{ phx_ref: "4", name: "Ada" }] },
      u3: { metas: [{ phx_ref: "3", name: "Chloé Diaz" }] },
      "agent:echo": { metas: [{ phx_ref: "2", status: "running", turn_id: "t1" }] },
    });
    const wait = { ...turn("t2", "m2", "queued", 1), by: person("u2") };
    const asked = "Why do the moons of Jupiter matter for the history of science?";
    this.server.events(
      added(1, prompt("m1", 1, asked)),
      started(2, turn("t1", "m1")),
      delta(3, "t1", "Because in January 1610 they showed, night after night, that not everything circles the Earth."),
      added(4, prompt("m2", 4, "And who saw them first?", "u2")),
      queued(5, wait),
    );
    await this.by("stop").first().waitFor();
  }

  /** What was sent to the session under that name. */
  sent(event: string): Readonly<Record<string, unknown>>[] {
    return this.server.frames.filter((frame) => frame.event === event).map(({ payload }) => payload);
  }
}

/** Call it in a `describe`. */
export function useDemo(): Demo {
  const demo = new Demo();
  let browser: Browser;
  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(() => browser.close());

  beforeEach(async () => {
    demo.complaints.length = 0;
    demo.context = await browser.newContext({ viewport: { width: 1100, height: 760 }, colorScheme: "light" });
    demo.server = new MockServer();
    await demo.server.serve(demo.context);
    await demo.context.addInitScript(() => sessionStorage.setItem("rejoin:user", "u1"));
    demo.page = await demo.context.newPage();
    demo.page.setDefaultTimeout(LIMIT_MS);
    demo.page.on("pageerror", (error) => demo.complaints.push(String(error)));
    demo.page.on("console", (message) => {
      if (message.text().includes("Content Security Policy")) demo.complaints.push(message.text());
    });
    demo.server.on("phx_join", () => snapshot(0));
    demo.server.on("broadcast", () => ({}));
  });
  afterEach(async () => {
    await demo.context.close();
    expect(demo.complaints).toEqual([]);
  });
  return demo;
}
