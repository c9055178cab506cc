/** Deleting a session in the demo page: it is asked whether that is meant, and said why it is not done. */
import { beforeEach, describe, expect, it } from "vitest";
import { violations } from "./axe.js";
import { screenshot } from "./chromium.js";
import { canBrowse, useDemo } from "./demo.js";

const AT = "2026-11-22T10:00:06.000Z";
const summary = (id: string, title: string): object => ({ id, title, status: "idle", last_seq: 5, running: [], updated_at: AT });

describe.skipIf(!canBrowse)("a session", () => {
  const demo = useDemo();
  const by = (testid: string): ReturnType<typeof demo.by> => demo.by(testid);
  const focused = (): Promise<string | null> => demo.page.evaluate(() => document.activeElement?.getAttribute("data-testid") ?? null);
  const shown = (): string | null => new URL(demo.page.url()).searchParams.get("session");

  beforeEach(() => {
    demo.server.on("list", () => ({ sessions: [summary("s1", "Moons"), summary("s2", "Stars")], has_more: false }));
    demo.server.status = 200;
  });

  it("is kept where it was not meant, and deleted where it was, by keyboard alone", async () => {
    await demo.openBusy();
    await by("delete").focus();
    await demo.page.keyboard.press("Enter");
    await by("deletion").getByText("goes for everybody").waitFor();
    expect(await focused()).toBe("deletion-keep");
    expect(await violations(demo.page)).toEqual([]);
    await screenshot(demo.page, "deletion");
    await demo.page.keyboard.press("Escape");
    await by("deletion").waitFor({ state: "hidden" });
    expect([await focused(), demo.server.asked]).toEqual(["delete", []]);
    await demo.page.keyboard.press("Enter");
    await demo.page.keyboard.press("Tab");
    expect(await focused()).toBe("deletion-confirm");
    await demo.page.keyboard.press("Enter");
    await by("welcome").waitFor();
    expect(demo.server.asked).toEqual([{ method: "DELETE", path: "/api/sessions/s1?user_id=u1&name=Ada", token: undefined }]);
    demo.server.pushList("session_removed", { id: "s1" });
    await expect.poll(() => by("session-link").allTextContents()).toEqual([expect.stringContaining("Stars")]);
    expect([shown(), await by("deletion").isVisible(), await by("delete").isVisible()]).toEqual([null, false, false]);
    expect(await focused()).toBe("composer");
  });

  it.each([
    [401, "The server does not take your token any more. Load this page anew with another token"],
    [403, "Ask somebody who has the admin right on it."],
    [404, "somebody else has deleted it. Choose another one in the list."],
    [429, "Wait a few seconds, and try again."],
    [503, "The server cannot delete it now. Wait a few seconds, and try again."],
    [null, "The server gave no answer. See whether you are online, and try again"],
  ])("that is not deleted (%s) stays, and it is said what to do", async (status, words) => {
    demo.server.status = status;
    await demo.openBusy();
    await by("delete").click();
    await by("deletion-confirm").click();
    await by("deletion-problem").getByText(words).waitFor();
    expect(await violations(demo.page)).toEqual([]);
    expect(await by("deletion-confirm").textContent()).toBe("Delete");
    await by("deletion-keep").click();
    expect([shown(), await by("message").count()]).toEqual(["s1", 3]);
    demo.server.status = 200;
    await by("delete").click();
    expect(await by("deletion-problem").isVisible()).toBe(false);
    await by("deletion-confirm").click();
    await by("welcome").waitFor();
  });

  it("is deleted with the token, where there is one", async () => {
    await demo.page.goto("http://mock.test/?session=s1&name=Ada#token=abc.def.ghi");
    await by("delete").click();
    await by("deletion-confirm").click();
    await expect.poll(() => demo.server.asked).toEqual([{ method: "DELETE", path: "/api/sessions/s1", token: "Bearer abc.def.ghi" }]);
  });

  it("is deleted on a phone, which shows the list then", async () => {
    await demo.page.setViewportSize({ width: 360, height: 720 });
    await demo.openBusy();
    const right = await by("delete").evaluate((element) => element.getBoundingClientRect().right);
    expect(right).toBeLessThanOrEqual(360);
    await screenshot(demo.page, "deletion-phone");
    await by("delete").click();
    expect(await violations(demo.page)).toEqual([]);
    expect(await demo.page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
    await by("deletion-confirm").click();
    await by("session-link").getByText("Stars").waitFor();
    expect(await by("new-session").evaluate((element) => element === document.activeElement)).toBe(true);
  });

  it("that was deleted is not asked about again", async () => {
    await demo.openBusy();
    demo.server.push("deleted", { by: null });
    await by("banner").getByText("This session was deleted.").waitFor();
    expect(await by("delete").isVisible()).toBe(false);
  });
});
