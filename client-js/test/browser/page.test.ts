/** The demo page against a server that does as the test says: what it shows of every state of a session, and how it looks. */
import { describe, expect, it } from "vitest";
import { added, answer, completed, delta, ended, person, prompt, replay, snapshot, started, turn } from "../support/make.js";
import { violations } from "./axe.js";
import { screenshot } from "./chromium.js";
import { canBrowse, useDemo } from "./demo.js";
import { Refusal } from "./mock.js";

const AT = "2026-11-22T10:00:06.000Z";

describe.skipIf(!canBrowse)("the page", () => {
  const demo = useDemo();
  const by = (testid: string): ReturnType<typeof demo.by> => demo.by(testid);

  it("shows who is here, what streams and what waits", async () => {
    await demo.openBusy();
    expect(await by("person").allTextContents()).toEqual(["AAda (you)", "BBen", "CDChloé Diaz"]);
    expect(await by("agent").textContent()).toContain("echo");
    const streaming = demo.page.locator("[data-testid=message][data-status=streaming]");
    expect(await streaming.getByTestId("message-text").textContent()).toContain("January 1610");
    expect(await streaming.getByTestId("asked-by").textContent()).toBe("asked by Ada");
    expect(await streaming.getByTestId("node").textContent()).toBe("on a");
    expect(await by("queue-item").textContent()).toContain("And who saw them first?");
    await screenshot(demo.page, "busy");
    await demo.page.emulateMedia({ colorScheme: "dark" });
    await screenshot(demo.page, "busy-dark");
    await demo.page.setViewportSize({ width: 390, height: 780 });
    await screenshot(demo.page, "busy-dark-phone");
  });

  it("appends to the text that is shown", async () => {
    await demo.openBusy();
    const text = demo.page.locator("[data-status=streaming] .markdown p");
    const before = await text.evaluateHandle((element) => element.firstChild);
    demo.server.events(delta(6, "t1", " Four of them."));
    await demo.page.getByText("Four of them.").waitFor();
    expect(await text.evaluate((element, node) => element.firstChild === node, before)).toBe(true);
  });

  it("stops a turn and says who did", async () => {
    await demo.openBusy();
    demo.server.on("cancel", () => ({ outcome: "cancelled", status: "cancelled", reason: "user" }));
    await by("message").getByTestId("stop").first().click();
    const cut = answer("t1", 2, "Because in January 1610", "partial");
    demo.server.events({ ...ended(6, "t1", "user", cut), by: person("u2") });
    const status = demo.page.locator("[data-testid=turn-status][data-reason=user]");
    await status.getByText("interrupted — Stopped by Ben.").waitFor();
    expect(demo.sent("cancel")).toEqual([{ turn_id: "t1" }]);
  });

  it("says what it could not stop, and why", async () => {
    await demo.openBusy();
    demo.server.on("cancel", () => new Refusal("unauthorized", "Your token lets you stop your own answers only."));
    await by("message").getByTestId("stop").click();
    await by("turn-status").getByText("Your token lets you stop your own answers only.").waitFor();
    expect(await by("message").getByTestId("stop").isEnabled()).toBe(true);
  });

  it("offers a retry where the server went away, on the answer or on the question", async () => {
    await demo.openBusy();
    demo.server.events(
      ended(6, "t1", "owner_gone", answer("t1", 2, "Because in January 1610", "partial")),
      started(7, { ...turn("t2", "m2"), by: person("u2") }),
      ended(8, "t2", "shutdown", null),
    );
    const gone = demo.page.locator('[data-message-id="r-t1"]');
    await gone.getByText("interrupted — The server that was answering went away.").waitFor();
    const empty = demo.page.locator('[data-message-id="m2"]');
    await empty.getByText("The server was shut down before the answer was finished.").waitFor();
    await screenshot(demo.page, "interrupted");
    demo.server.on("retry", () => ({ turn_id: "t3", attempt: 2, duplicate: false }));
    await gone.getByTestId("retry").click();
    demo.server.events(started(9, { ...turn("t3", "m1"), attempt: 2, retry_of: "t1" }), delta(10, "t3", "Again: 1610."));
    await demo.page.getByText("echo is answering, attempt 2").waitFor();
    await gone.getByTestId("retry").waitFor({ state: "hidden" });
    expect(await gone.getByTestId("turn-status").textContent()).toContain("interrupted");
  });

  it("leads from an answer to its question, where that does not stand right above it", async () => {
    await demo.openBusy();
    const questions = demo.page.locator("[data-testid=answering]:not([hidden])");
    expect(await questions.count()).toBe(0);
    const [waited, again] = [{ ...turn("t2", "m2"), by: person("u2") }, { ...turn("t3", "m2"), attempt: 2, retry_of: "t2" }];
    demo.server.events(
      added(6, prompt("m3", 6, "Me too\n\n".repeat(40), "u3")),
      completed(7, "t1", answer("t1", 2, "Because everything moved.")),
      started(8, waited),
      delta(9, "t2", "Galileo. ".repeat(400)),
    );
    const words = "answering Ben: And who saw them first?";
    await questions.getByText(words).waitFor();
    demo.server.events(ended(10, "t2", "user", answer("t2", 8, "Galileo. ".repeat(400), "partial")), started(11, again));
    await expect.poll(() => questions.allTextContents()).toEqual([words, words]);
    const retried = demo.page.locator('[data-message-id="r-t3"]');
    expect(await retried.getByTestId("asked-by").textContent()).toBe("asked by Ada");
    expect(await violations(demo.page)).toEqual([]);
    await screenshot(demo.page, "answering");
    await retried.getByRole("button", { name: words }).focus();
    await demo.page.keyboard.press("Enter");
    const question = demo.page.locator('[data-message-id="m2"]');
    const isVisited = (): Promise<boolean> =>
      question.evaluate((element) => {
        const { top, bottom } = element.getBoundingClientRect();
        return element === document.activeElement && top > 0 && bottom < innerHeight;
      });
    expect(await isVisited()).toBe(true);
    demo.server.events(delta(12, "t3", "Simon Marius, too."));
    await demo.page.getByText("Simon Marius, too.").waitFor();
    expect(await isVisited()).toBe(true);
    await screenshot(demo.page, "answering-visited");
  });

  it("shows why a turn failed", async () => {
    await demo.openBusy();
    const error = { code: "timeout", message: "The agent was silent for 60 s.", retryable: true };
    const message = answer("t1", 2, "Because", "partial");
    demo.server.events({ seq: 6, type: "turn_failed", at: AT, by: null, turn_id: "t1", data: { error, message } });
    await demo.page.locator("[data-testid=turn-status][data-status=failed]").getByText("silent for 60 s").waitFor();
  });

  it("calls nothing stopped while the connection is away, and comes back where it was", async () => {
    await demo.openBusy();
    await demo.server.drop();
    await by("connection").getByText("Reconnecting…").waitFor();
    await by("banner").getByText("Answers go on without you, and no word of them is lost.").waitFor();
    await by("turn-status").filter({ hasText: "echo is answering" }).getByText("as last heard").waitFor();
    expect(await demo.page.locator("[data-testid=message][data-status=streaming]").count()).toBe(1);
    expect(await demo.page.getByText("interrupted").count()).toBe(0);
    expect(await by("stop").first().isVisible()).toBe(true);
    await screenshot(demo.page, "reconnecting");
    demo.server.on("phx_join", ({ last_seq }) => {
      expect(last_seq).toBe(5);
      return replay(5, [completed(9, "t1", answer("t1", 2, "Because in January 1610 everything moved."))]);
    });
    demo.server.up = true;
    await demo.page.getByText("everything moved.").waitFor();
    await by("connection").getByText("Connected").waitFor();
    await by("banner").waitFor({ state: "hidden" });
  });

  it("says when it tries again, and tries at once when it is asked to", async () => {
    // Without chance each pause is as long as it may be, and the next try is seconds away when it is asked for.
    await demo.context.addInitScript(() => (Math.random = () => 0.999));
    await demo.open();
    await demo.server.drop();
    await by("banner").getByText(/Next try in [4-9] s/u).waitFor();
    demo.server.on("phx_join", () => replay(0, []));
    demo.server.up = true;
    await by("banner-action").click();
    await by("connection").getByText("Connected").waitFor();
  });

  it("says that it is offline, keeps what is written, and sends it when the network is back", async () => {
    await demo.open();
    // What a browser does when its network goes: the connection ends, and it says so.
    await demo.context.setOffline(true);
    await demo.server.drop();
    await by("banner").getByText("You are offline.").waitFor();
    await by("composer").fill("Said in the tunnel");
    await by("composer").press("Enter");
    await by("unsent").getByText("waits for the connection").waitFor();
    expect(demo.sent("send")).toEqual([]);
    await screenshot(demo.page, "offline");
    demo.server.on("phx_join", () => replay(0, []));
    demo.server.up = true;
    await demo.context.setOffline(false);
    await expect.poll(() => demo.sent("send").map(({ text }) => text)).toEqual(["Said in the tunnel"]);
    await by("banner").waitFor({ state: "hidden" });
  });

  it("shows what is on its way, and sends it again under the same id", async () => {
    await demo.open();
    await by("composer").fill("Hello\nthere");
    await by("composer").press("Enter");
    await by("unsent").getByText("sending…").waitFor();
    await expect.poll(() => demo.sent("send")).toMatchObject([{ text: "Hello\nthere" }]);
    const id = String(demo.sent("send")[0]?.["id"]);
    await demo.server.drop();
    demo.server.on("send", () => ({ message_id: id, turn_id: "t1", seq: 1, duplicate: false }));
    demo.server.on("phx_join", () => replay(0, []));
    demo.server.up = true;
    await expect.poll(() => demo.sent("send").map((payload) => payload["id"])).toEqual([id, id]);
    demo.server.events(added(1, prompt(id, 1, "Hello\nthere")), started(2, turn("t1", id)));
    await by("unsent").waitFor({ state: "detached" });
    expect(await demo.page.locator(`[data-message-id="${id}"]`).count()).toBe(1);
  });

  it("keeps what was refused, to be sent again or not", async () => {
    await demo.open();
    demo.server.on("send", () => new Refusal("queue_full", "100 turns wait already."));
    await by("composer").fill("Hello");
    await by("send").click();
    await by("unsent").getByText("not sent — 100 turns wait already.").waitFor();
    await screenshot(demo.page, "refused");
    await by("send-again").click();
    await expect.poll(() => demo.sent("send").length).toBe(2);
    await by("discard").click();
    await by("unsent").waitFor({ state: "detached" });
    await by("welcome").waitFor();
  });

  it("shows at once after a refresh what it had, before there is a connection", async () => {
    await demo.openBusy();
    await by("message").nth(2).waitFor();
    demo.server.up = false;
    await demo.page.reload();
    await demo.page.getByText("January 1610").waitFor();
    expect(await by("message").count()).toBe(3);
    expect(await by("connection").textContent()).not.toBe("Connected");
  });

  it("shows markup as the text that it is, and Markdown as what it means", async () => {
    await demo.open();
    const markup = '<img src=x onerror="document.title=1"><b>bold</b>';
    demo.server.events(
      added(1, prompt("m1", 1, markup)),
      added(2, prompt("m2", 2, "**bold** [on](javascript:alert(1)) [off](https://example.com/)\n\n```sh\nls\n```")),
    );
    expect(await by("message-text").first().textContent()).toBe(markup);
    expect(await demo.page.locator("main img").count()).toBe(0);
    const second = by("message-text").nth(1);
    expect(await second.locator("strong").textContent()).toBe("bold");
    expect(await second.locator("a").evaluateAll((links) => links.map((link) => [link.getAttribute("href"), link.getAttribute("rel")])))
      .toEqual([["https://example.com/", "noopener noreferrer nofollow"]]);
  });

  it("copies code", async () => {
    await demo.context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await demo.open();
    // Only secure pages have a clipboard, and the mock's is none.
    await demo.page.evaluate(() => {
      const clipboard = { writeText: (text: string) => ((document.body.dataset["copied"] = text), Promise.resolve()) };
      Object.defineProperty(navigator, "clipboard", { value: clipboard });
    });
    demo.server.events(added(1, prompt("m1", 1, "```sh\nls -l\n```")));
    await demo.page.getByRole("button", { name: "Copy", exact: true }).click();
    await demo.page.getByRole("button", { name: "Copied" }).waitFor();
    expect(await demo.page.evaluate(() => document.body.dataset["copied"])).toBe("ls -l");
  });

  it("folds tool calls and thoughts behind a title", async () => {
    await demo.openBusy();
    const value = { name: "search", arguments: { query: "Galileo" } };
    const data = { part: 1, kind: "tool_call" as const, value };
    demo.server.events({ seq: 6, type: "turn_delta", at: AT, by: null, turn_id: "t1", data });
    await demo.page.getByText("Tool call: search").click();
    await demo.page.getByText('"query": "Galileo"').waitFor();
    await screenshot(demo.page, "tool-call");
  });

  it("names the session for everyone, and says why it may not", async () => {
    await demo.open();
    demo.server.on("update", () => ({}));
    await by("title").fill("Moons");
    await by("title").press("Enter");
    await expect.poll(() => demo.sent("update")).toEqual([{ title: "Moons" }]);
    const data = { title: "Moons of Jupiter", metadata: {}, max_running: 1 };
    demo.server.events({ seq: 1, type: "session_updated", at: AT, by: null, turn_id: null, data });
    await expect.poll(() => by("title").inputValue()).toBe("Moons of Jupiter");
    expect(await demo.page.title()).toBe("Moons of Jupiter · Rejoin");
    demo.server.on("update", () => new Refusal("unauthorized", "Your token may only read here."));
    await by("title").fill("Stars");
    await by("title").press("Enter");
    await demo.page.locator("#title-note").getByText("Your token may only read here.").waitFor();
    expect(await by("title").inputValue()).toBe("Moons of Jupiter");
  });

  it("brings older messages where they fit without being asked", async () => {
    demo.server.on("phx_join", () => snapshot(9, { messages: [prompt("m5", 9, "Newer")], before: 9, has_more: true }));
    demo.server.on("history", () => ({ messages: [prompt("m1", 1, "Older")], ended: [], before: 1, has_more: false }));
    await demo.open();
    await by("message").getByText("Older").waitFor();
    expect(await by("message-text").allTextContents()).toEqual(["Older", "Newer"]);
    expect(await demo.page.locator("#older").isHidden()).toBe(true);
  });

  it("brings older messages to who goes up, and leaves what they read where it is", async () => {
    const said = (from: number, to: number): ReturnType<typeof prompt>[] =>
      Array.from({ length: to - from + 1 }, (_, index) => prompt(`m${from + index}`, from + index, `Message ${from + index}`));
    demo.server.on("phx_join", () => snapshot(60, { messages: said(31, 60), before: 31, has_more: true }));
    demo.server.on("history", () => ({ messages: said(1, 30), ended: [], before: 1, has_more: false }));
    await demo.open();
    await by("message").getByText("Message 60").waitFor();
    expect(demo.sent("history")).toEqual([]);
    const read = by("message").getByText("Message 36", { exact: true });
    const place = (): Promise<number> => read.evaluate((element) => element.getBoundingClientRect().top);
    await demo.page.locator("#scroll").evaluate((element) => (element.scrollTop = 500));
    const before = await place();
    await demo.page.locator("#older").waitFor({ state: "hidden" });
    expect(Math.abs((await place()) - before)).toBeLessThan(2);
    expect(await by("message").count()).toBe(60);
    await demo.page.getByRole("button", { name: /Newest/u }).click();
    await expect.poll(() => demo.page.locator("#jump").isHidden()).toBe(true);
  });

  it("tells who types, until they have said it", async () => {
    await demo.open();
    demo.server.push("presence_state", { u2: { metas: [{ phx_ref: "1", name: "Ben" }] } });
    const says = (value: boolean | null): void =>
      demo.server.push("broadcast", { event: "typing", payload: { value }, by: person("u2") });
    says(true);
    await by("typing").getByText("Ben is typing…").waitFor();
    says(null);
    await expect.poll(() => by("typing").textContent()).toBe("");
    says(true);
    await by("typing").getByText("Ben is typing…").waitFor();
    demo.server.push("presence_diff", { joins: {}, leaves: { u2: { metas: [{ phx_ref: "1", name: "Ben" }] } } });
    await expect.poll(() => by("typing").textContent()).toBe("");
    await by("composer").pressSequentially("Hi");
    await expect.poll(() => demo.sent("broadcast")).toEqual([{ event: "typing", payload: { value: true } }]);
    demo.server.on("send", () => ({ message_id: "m1", turn_id: null, seq: 1, duplicate: false }));
    await by("composer").press("Enter");
    await expect.poll(() => demo.sent("broadcast").at(-1)).toEqual({ event: "typing", payload: { value: null } });
  });

  it("says why it may not join, and takes another token", async () => {
    demo.server.on("phx_join", () => new Refusal("unauthorized", "Your token does not open it."));
    await demo.page.goto("http://mock.test/?session=s1&name=Ada");
    await by("banner").getByText("This session is not open to you. Your token does not open it.").waitFor();
    await by("banner-action").click();
    await by("sign-in-why").getByText("Your token does not open it.").waitFor();
    await by("sign-in-token").fill("abc.def.ghi");
    demo.server.on("phx_join", () => snapshot(0));
    await by("sign-in-done").click();
    await by("connection").getByText("Connected").waitFor();
    expect(await demo.page.evaluate(() => sessionStorage.getItem("rejoin:token"))).toBe("abc.def.ghi");
  });

  it("says that a session was deleted, and makes another one of that name when it is asked to", async () => {
    await demo.openBusy();
    demo.server.push("deleted", { by: person("u2") });
    await by("banner").getByText("This session was deleted.").waitFor();
    demo.server.on("phx_join", () => snapshot(0, { session: { epoch: "e2" } }));
    await by("banner-action").click();
    await by("connection").getByText("Connected").waitFor();
    await by("welcome").waitFor();
  });
});
