/** The demo page against a server that does as the test says: what it shows of every state, and how it looks. */
import { existsSync } from "node:fs";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Browser, BrowserContext, Locator, Page } from "playwright-core";
import { added, answer, completed, delta, ended, person, prompt, queued, replay, snapshot, started, turn } from "../support/make.js";
import { chromiumPath, launch, screenshot } from "./chromium.js";
import { MockServer, Refusal } from "./mock.js";

const LIMIT_MS = 10_000;

describe.skipIf(chromiumPath() === undefined || !existsSync(chromiumPath() ?? ""))("the page", () => {
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  let server: MockServer;

  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(() => browser.close());

  beforeEach(async () => {
    context = await browser.newContext({ viewport: { width: 1100, height: 760 }, colorScheme: "light" });
    server = new MockServer();
    await server.serve(context);
    await context.addInitScript(() => sessionStorage.setItem("rejoin:user", "u1"));
    page = await context.newPage();
    page.setDefaultTimeout(LIMIT_MS);
    server.on("phx_join", () => snapshot(0));
    server.on("broadcast", () => ({}));
  });
  afterEach(() => context.close());

  const by = (testid: string): Locator => page.getByTestId(testid);

  async function open(): Promise<void> {
    await page.goto(`${MockServer.url}/?session=s1&name=Ada`);
    await by("connection").getByText("Connected").waitFor();
  }

  /** One question that is being answered, and somebody else who waits. */
  async function openBusy(): Promise<void> {
    await open();
    server.push("presence_state", {
      u2: { metas: [{ phx_ref: "1", name: "Ben" }] },
      u1: { metas: [{ phx_ref: "4", name: "Ada" }] },
      u3: { metas: [{ phx_ref: "3", name: "Chloé Diaz" }] },
      "agent:echo": { metas: [{ phx_ref: "2", status: "running", turn_id: "t1" }] },
    });
    const wait = { ...turn("t2", "m2", "queued", 1), by: person("u2") };
    const asked = "Why do the moons of Jupiter matter for the history of science?";
    server.events(
      added(1, prompt("m1", 1, asked)),
      started(2, turn("t1", "m1")),
      delta(3, "t1", "Because in January 1610 they showed, night after night, that not everything circles the Earth."),
      added(4, prompt("m2", 4, "And who saw them first?", "u2")),
      queued(5, wait),
    );
    await by("stop").first().waitFor();
  }

  it("welcomes, and puts a session into the address", async () => {
    await page.goto(MockServer.url);
    await by("welcome").waitFor();
    expect(new URL(page.url()).searchParams.get("session")).toMatch(/^[0-9a-f]{10}$/u);
    await screenshot(page, "welcome");
  });

  it("shows who is here, what streams and what waits", async () => {
    await openBusy();
    expect(await by("person").allTextContents()).toEqual(["AAda (you)", "BBen", "CDChloé Diaz"]);
    expect(await by("agent").textContent()).toContain("echo");
    const streaming = page.locator('[data-testid=message][data-status=streaming]');
    expect(await streaming.getByTestId("message-text").textContent()).toContain("January 1610");
    expect(await by("queue-item").textContent()).toContain("And who saw them first?");
    await screenshot(page, "busy");
    await page.emulateMedia({ colorScheme: "dark" });
    await screenshot(page, "busy-dark");
    await page.setViewportSize({ width: 390, height: 780 });
    await screenshot(page, "busy-dark-phone");
  });

  it("appends to the text that is shown", async () => {
    await openBusy();
    const text = page.locator("[data-status=streaming] .text");
    const before = await text.evaluateHandle((element) => element.firstChild);
    server.events(delta(6, "t1", " Four of them."));
    await page.getByText("Four of them.").waitFor();
    expect(await text.evaluate((element, node) => element.firstChild === node, before)).toBe(true);
  });

  it("stops a turn and says who did", async () => {
    await openBusy();
    server.on("cancel", () => ({ outcome: "cancelled", status: "cancelled", reason: "user" }));
    await by("message").getByTestId("stop").first().click();
    const cut = answer("t1", 2, "Because in January 1610", "partial");
    server.events({ ...ended(6, "t1", "user", cut), by: person("u2") });
    const status = page.locator('[data-testid=turn-status][data-reason=user]');
    expect(await status.textContent()).toContain("interrupted — Stopped by Ben.");
    expect(server.frames.filter((frame) => frame.event === "cancel").map((frame) => frame.payload)).toEqual([
      { turn_id: "t1" },
    ]);
  });

  it("offers a retry where the server went away, on the answer or on the question", async () => {
    await openBusy();
    server.events(
      ended(6, "t1", "owner_gone", answer("t1", 2, "Because in January 1610", "partial")),
      started(7, { ...turn("t2", "m2"), by: person("u2") }),
      ended(8, "t2", "shutdown", null),
    );
    const gone = page.locator('[data-message-id="r-t1"]');
    await gone.getByText("interrupted — The server that was answering went away.").waitFor();
    const empty = page.locator('[data-message-id="m2"]');
    await empty.getByText("The server was shut down before the answer was finished.").waitFor();
    await screenshot(page, "interrupted");
    server.on("retry", () => ({ turn_id: "t3", attempt: 2, duplicate: false }));
    await gone.getByTestId("retry").click();
    server.events(started(9, { ...turn("t3", "m1"), attempt: 2, retry_of: "t1" }), delta(10, "t3", "Again: 1610."));
    await page.getByText("echo is answering, attempt 2").waitFor();
    await gone.getByTestId("retry").waitFor({ state: "hidden" });
    expect(await gone.getByTestId("turn-status").textContent()).toContain("interrupted");
  });

  it("shows why a turn failed", async () => {
    await openBusy();
    const error = { code: "timeout", message: "The agent was silent for 60 s.", retryable: true };
    const message = answer("t1", 2, "Because", "partial");
    const at = "2026-11-22T10:00:06.000Z";
    server.events({ seq: 6, type: "turn_failed", at, by: null, turn_id: "t1", data: { error, message } });
    await page.locator("[data-testid=turn-status][data-status=failed]").getByText("silent for 60 s").waitFor();
  });

  it("calls nothing stopped while the connection is away, and comes back where it was", async () => {
    await openBusy();
    await server.drop();
    await by("connection").getByText("Reconnecting…").waitFor();
    expect(await page.locator('[data-testid=message][data-status=streaming]').count()).toBe(1);
    expect(await page.getByText("interrupted").count()).toBe(0);
    expect(await by("stop").first().isVisible()).toBe(true);
    await screenshot(page, "reconnecting");
    server.on("phx_join", ({ last_seq }) => {
      expect(last_seq).toBe(5);
      return replay(5, [completed(9, "t1", answer("t1", 2, "Because in January 1610 everything moved."))]);
    });
    server.up = true;
    await page.getByText("everything moved.").waitFor();
    await by("connection").getByText("Connected").waitFor();
  });

  it("shows what is on its way, and sends it again under the same id", async () => {
    await open();
    await by("composer").fill("Hello\nthere");
    await by("composer").press("Enter");
    await by("unsent").getByText("sending…").waitFor();
    await expect.poll(() => server.frames.find((frame) => frame.event === "send")?.payload).toMatchObject({ text: "Hello\nthere" });
    const id = String(server.frames.find((frame) => frame.event === "send")?.payload["id"]);
    await server.drop();
    server.on("send", () => ({ message_id: id, turn_id: "t1", seq: 1, duplicate: false }));
    server.on("phx_join", () => replay(0, []));
    server.up = true;
    await expect.poll(() => server.frames.filter((frame) => frame.event === "send").length).toBe(2);
    expect(server.frames.filter((frame) => frame.event === "send").map((frame) => frame.payload["id"])).toEqual([id, id]);
    server.events(added(1, prompt(id, 1, "Hello\nthere")), started(2, turn("t1", id)));
    await by("unsent").waitFor({ state: "detached" });
    expect(await page.locator(`[data-message-id="${id}"]`).count()).toBe(1);
  });

  it("shows markup as the text that it is", async () => {
    await open();
    const markup = '<img src=x onerror="document.title=1"><b>bold</b>';
    server.events(added(1, prompt("m1", 1, markup)));
    expect(await by("message-text").textContent()).toBe(markup);
    expect(await page.locator("main img").count()).toBe(0);
  });

  it("folds tool calls and thoughts behind a title", async () => {
    await openBusy();
    const at = "2026-11-22T10:00:06.000Z";
    const value = { name: "search", arguments: { query: "Galileo" } };
    const data = { part: 1, kind: "tool_call" as const, value };
    server.events({ seq: 6, type: "turn_delta", at, by: null, turn_id: "t1", data });
    await page.getByText("Tool call: search").click();
    await page.getByText('"query": "Galileo"').waitFor();
    await screenshot(page, "tool-call");
  });

  it("names the session for everyone", async () => {
    await open();
    server.on("update", () => ({}));
    await by("title").fill("Moons");
    await by("title").press("Enter");
    await expect.poll(() => server.frames.find((frame) => frame.event === "update")?.payload).toEqual({ title: "Moons" });
    const data = { title: "Moons of Jupiter", metadata: {}, max_running: 1 };
    server.events({ seq: 1, type: "session_updated", at: "2026-11-22T10:00:01.000Z", by: null, turn_id: null, data });
    await expect.poll(() => by("title").inputValue()).toBe("Moons of Jupiter");
    expect(await page.title()).toBe("Moons of Jupiter · Rejoin");
  });

  it("brings older messages", async () => {
    server.on("phx_join", () => snapshot(9, { messages: [prompt("m5", 9, "Newer")], before: 9, has_more: true }));
    server.on("history", () => ({ messages: [prompt("m1", 1, "Older")], ended: [], before: 1, has_more: false }));
    await open();
    await by("older").click();
    await by("older").waitFor({ state: "hidden" });
    expect(await by("message-text").allTextContents()).toEqual(["Older", "Newer"]);
  });

  it("tells who types, until they have said it", async () => {
    await open();
    const says = (event: string): void => server.push("broadcast", { event, payload: {}, by: person("u2") });
    says("typing");
    await by("typing").getByText("Ben is typing…").waitFor();
    says("typed");
    await expect.poll(() => by("typing").textContent()).toBe("");
    await by("composer").pressSequentially("Hi");
    await expect.poll(() => server.frames.filter((frame) => frame.event === "broadcast").length).toBe(1);
  });

  it("says why it may not join", async () => {
    server.on("phx_join", () => new Refusal("unauthorized", "You may not read this session."));
    await page.goto(`${MockServer.url}/?session=s1`);
    await by("banner").getByText("You may not read this session.").waitFor();
  });

  it("keeps what was refused, to be sent again or not", async () => {
    await open();
    server.on("send", () => new Refusal("queue_full", "100 turns wait already."));
    await by("composer").fill("Hello");
    await by("send").click();
    await by("unsent").getByText("100 turns wait already.").waitFor();
    await screenshot(page, "refused");
    await by("discard").click();
    await by("unsent").waitFor({ state: "detached" });
    await by("welcome").waitFor();
  });

  it("works by keyboard alone", async () => {
    await openBusy();
    server.on("cancel", () => ({ outcome: "cancelled", status: "cancelled", reason: "user" }));
    const stop = by("stop").first();
    for (let presses = 0; presses < 20 && !(await stop.evaluate((element) => element === document.activeElement)); presses += 1) {
      await page.keyboard.press("Shift+Tab");
    }
    await page.keyboard.press("Enter");
    await expect.poll(() => server.frames.some((frame) => frame.event === "cancel")).toBe(true);
  });
});
