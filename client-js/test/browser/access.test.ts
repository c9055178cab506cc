/** The demo page for those who see it otherwise, have no mouse, or hold it in one hand. */
import { describe, expect, it } from "vitest";
import { added, answer, ended, prompt, started, turn } from "../support/make.js";
import { violations } from "./axe.js";
import { canBrowse, useDemo } from "./demo.js";
import { MockServer } from "./mock.js";

const SUMMARY = { id: "s1", title: "Moons", status: "running", last_seq: 5, updated_at: "2026-11-22T10:00:06.000Z" };
const RUNNING = [{ turn_id: "t1", agent: "echo", by: { id: "u1", name: "Ada" }, liveness: "alive" }];

describe.skipIf(!canBrowse)("the page", () => {
  const demo = useDemo();
  const by = (testid: string): ReturnType<typeof demo.by> => demo.by(testid);

  it.each(["light", "dark"] as const)("has nothing that axe objects to, %s: a list, a session, a stream, no connection", async (colorScheme) => {
    await demo.page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    demo.server.on("list", () => ({ sessions: [{ ...SUMMARY, running: RUNNING }], has_more: true }));
    await demo.page.goto(`${MockServer.url}/?name=Ada`);
    await by("session-link").waitFor();
    expect(await violations(demo.page)).toEqual([]);
    await demo.openBusy();
    demo.server.events(added(6, prompt("m3", 6, "# Plan\n\n- [x] a\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```sh\nls\n```\n\n> `q`")));
    await by("message").nth(3).waitFor();
    expect(await violations(demo.page)).toEqual([]);
    demo.server.events(ended(7, "t1", "owner_gone", answer("t1", 2, "Because", "partial")));
    await by("retry").waitFor();
    await demo.server.drop();
    await by("banner").waitFor();
    expect(await violations(demo.page)).toEqual([]);
  });

  it("can be used from the first question to a retry without a mouse", async () => {
    await demo.context.addInitScript(() => sessionStorage.removeItem("rejoin:name"));
    await demo.page.goto(MockServer.url);
    await by("sign-in").waitFor();
    await demo.page.keyboard.type("Ada");
    await demo.page.keyboard.press("Enter");
    await by("connection").getByText("Connected").waitFor();
    await demo.page.keyboard.press("Alt+n");
    demo.server.on("send", ({ id }) => ({ message_id: id, turn_id: "t1", seq: 1, duplicate: false }));
    demo.server.on("cancel", () => ({ outcome: "cancelled", status: "cancelled", reason: "user" }));
    demo.server.on("retry", () => ({ turn_id: "t2", attempt: 2, duplicate: false }));
    await demo.page.keyboard.type("Why?");
    await demo.page.keyboard.press("Enter");
    await expect.poll(() => demo.sent("send").map(({ text }) => text)).toEqual(["Why?"]);
    const id = String(demo.sent("send")[0]?.["id"]);
    demo.server.events(added(1, prompt(id, 1, "Why?")), started(2, turn("t1", id)));
    await by("stop").waitFor();
    await demo.page.keyboard.press("Alt+s");
    await expect.poll(() => demo.sent("cancel")).toEqual([{ turn_id: "t1" }]);
    demo.server.events(ended(3, "t1", "user", null));
    await by("retry").waitFor();
    await demo.page.keyboard.press("Alt+r");
    await expect.poll(() => demo.sent("retry")).toEqual([{ turn_id: "t1" }]);
  });

  it("leads back from what is being written to Stop and to the queue, by Shift and Tab", async () => {
    await demo.openBusy();
    demo.server.on("cancel", () => ({ outcome: "cancelled", status: "cancelled", reason: "user" }));
    await by("composer").focus();
    const focused = (): Promise<string | null> => demo.page.evaluate(() => document.activeElement?.getAttribute("data-testid") ?? null);
    const passed: (string | null)[] = [];
    // What has no name of its own is passed; beyond the messages there is nothing to be stopped.
    while (passed.at(-1) !== "stop" && passed.length < 10) {
      await demo.page.keyboard.press("Shift+Tab");
      passed.push(await focused());
    }
    expect(passed).toContain("queue");
    expect(passed.at(-1)).toBe("stop");
    await demo.page.keyboard.press("Enter");
    await expect.poll(() => demo.sent("cancel")).toEqual([{ turn_id: "t1" }]);
  });

  it("fits a phone, and its list is a drawer", async () => {
    await demo.page.setViewportSize({ width: 360, height: 720 });
    await demo.openBusy();
    demo.server.events(added(6, prompt("m3", 6, `${"long".repeat(60)}\n\n\`\`\`\n${"wide ".repeat(60)}\n\`\`\``)));
    await by("message").nth(3).waitFor();
    const overflow = (): Promise<number> => demo.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    expect(await overflow()).toBeLessThanOrEqual(0);
    expect(await by("new-session").isVisible()).toBe(false);
    await by("menu").click();
    await by("new-session").waitFor();
    expect(await by("new-session").evaluate((element) => element === document.activeElement)).toBe(true);
    await demo.page.keyboard.press("Escape");
    expect(await by("menu").evaluate((element) => element === document.activeElement)).toBe(true);
    expect(await overflow()).toBeLessThanOrEqual(0);
  });
});
