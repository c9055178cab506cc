/** The page against the real server: what a person does to it in the first five minutes. Needs `REJOIN_BIN`. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Browser, BrowserContext, Locator, Page } from "playwright-core";
import { chromiumPath, launch, screenshot } from "./chromium.js";
import { RejoinServer, rejoinBin } from "./rejoin.js";

const LIMIT_MS = 30_000;
const WORDS = Array.from({ length: 60 }, (_, index) => `word${index + 1}`).join(" ");
const ANSWER = `You said: ${WORDS}`;

describe.skipIf(!rejoinBin() || chromiumPath() === undefined)("the page on the real server", () => {
  let browser: Browser;
  let folder: string;
  let server: RejoinServer;
  const contexts: BrowserContext[] = [];

  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(() => browser.close());

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "rejoin-page-"));
    server = await RejoinServer.start(join(folder, "x.db"));
  });
  afterEach(async () => {
    await Promise.all(contexts.splice(0).map((context) => context.close()));
    await server.kill();
    await rm(folder, { recursive: true, force: true });
  });

  /** A window of its own, as another person would have it. */
  async function open(name: string): Promise<Page> {
    const context = await browser.newContext({ viewport: { width: 900, height: 720 } });
    contexts.push(context);
    const page = await context.newPage();
    page.setDefaultTimeout(LIMIT_MS);
    await page.goto(`${server.url}/?session=first-minutes&name=${name}`);
    await connected(page);
    return page;
  }

  const connected = (page: Page): Promise<void> => page.getByTestId("connection").getByText("Connected").waitFor();
  const answers = (page: Page): Locator => page.locator('[data-testid=message][data-role=assistant]');
  const text = (message: Locator): Promise<string | null> => message.getByTestId("message-text").textContent();

  async function say(page: Page, what: string): Promise<void> {
    await page.getByTestId("composer").fill(what);
    await page.getByTestId("send").click();
  }

  /** The text of the answer once some of it is there and it is still being written. */
  async function midway(page: Page, index = 0): Promise<string> {
    const answer = answers(page).nth(index);
    await expect.poll(async () => (await text(answer))?.length ?? 0, { timeout: LIMIT_MS }).toBeGreaterThan(40);
    expect(await answer.getAttribute("data-status")).toBe("streaming");
    return (await text(answer)) ?? "";
  }

  async function complete(page: Page, index: number, whole: string): Promise<void> {
    const answer = answers(page).nth(index);
    await expect.poll(() => answer.getAttribute("data-status"), { timeout: LIMIT_MS }).toBe("complete");
    expect((await text(answer))?.trim()).toBe(whole);
  }

  it("streams the same to two windows, which see each other", async () => {
    const [ada, ben] = [await open("Ada"), await open("Ben")];
    for (const page of [ada, ben]) {
      await page.getByTestId("people").getByText("Ada").waitFor();
      await page.getByTestId("people").getByText("Ben").waitFor();
    }
    await say(ada, WORDS);
    await Promise.all([midway(ada), midway(ben)]);
    await ben.getByTestId("agent").waitFor();
    await screenshot(ben, "server-two-windows");
    await Promise.all([complete(ada, 0, ANSWER), complete(ben, 0, ANSWER)]);
    await ben.getByTestId("agent").waitFor({ state: "detached" });
    await ada.close();
    await ben.getByTestId("people").getByText("Ada").waitFor({ state: "detached" });
  });

  it("shows to the others who is typing, for as long as they are", async () => {
    const [ada, ben] = [await open("Ada"), await open("Ben")];
    await ben.getByTestId("people").getByText("Ada").waitFor();
    const shown = ben.getByTestId("typing");
    const write = async (): Promise<void> => {
      await ada.getByTestId("composer").pressSequentially("Hm");
      await shown.getByText("Ada is typing…").waitFor();
    };
    // By itself it would be over only 5 s after the last key.
    const isOver = (): Promise<unknown> => expect.poll(() => shown.textContent(), { timeout: 3_000 }).toBe("");
    await write();
    expect(await ada.getByTestId("typing").textContent()).toBe("");
    await ada.getByTestId("composer").fill("");
    await isOver();
    await write();
    await ada.getByTestId("composer").press("Enter");
    await isOver();
    await ben.getByTestId("message").getByText("Hm", { exact: true }).waitFor();
    await write();
    await ada.close();
    await isOver();
  });

  it("welcomes with a window for somebody else, who takes part in what is begun here", async () => {
    const ada = await open("Ada");
    const welcome = ada.getByTestId("welcome");
    await welcome.getByRole("heading", { name: "A session that survives." }).waitFor();
    const [other] = await Promise.all([ada.context().waitForEvent("page"), ada.getByTestId("second-window").click()]);
    await connected(other);
    await ada.getByTestId("person").nth(1).waitFor();
    expect(await other.getByTestId("me").textContent()).not.toBe("Ada");
    await say(ada, "Hello");
    await welcome.waitFor({ state: "hidden" });
    await complete(other, 0, "You said: Hello");
    await other.getByTestId("welcome").waitFor({ state: "hidden" });
  });

  it("is deleted for everybody, and for good", async () => {
    const [ada, ben] = [await open("Ada"), await open("Ben")];
    await say(ada, WORDS);
    await Promise.all([midway(ada), midway(ben)]);
    await ada.getByTestId("delete").click();
    await ada.getByTestId("deletion-confirm").click();
    await ada.getByTestId("welcome").waitFor();
    await ben.getByTestId("banner").getByText("This session was deleted.").waitFor();
    for (const page of [ada, ben]) await page.getByTestId("session-link").waitFor({ state: "detached" });
    await ben.getByTestId("banner-action").click();
    await ben.getByTestId("welcome").waitFor();
    expect(await ben.getByTestId("message").count()).toBe(0);
  });

  it("loses nothing by a refresh in the middle of an answer", async () => {
    const page = await open("Ada");
    await say(page, WORDS);
    const before = await midway(page);
    await page.reload();
    await connected(page);
    await answers(page).first().waitFor();
    expect((await text(answers(page).first()))?.startsWith(before)).toBe(true);
    expect(await page.getByText("interrupted").count()).toBe(0);
    await complete(page, 0, ANSWER);
    expect(await page.getByTestId("message").count()).toBe(2);
  });

  it("stops an answer, keeps what was said, and tells who stopped it", async () => {
    const page = await open("Ada");
    await say(page, WORDS);
    const before = await midway(page);
    await page.getByTestId("stop").click();
    await page.locator('[data-testid=turn-status][data-reason=user]').getByText("Stopped by Ada").waitFor();
    const answer = answers(page).first();
    expect(await answer.getAttribute("data-status")).toBe("partial");
    expect((await text(answer))?.startsWith(before)).toBe(true);
  });

  it("survives a server that is killed in the middle of an answer", async () => {
    const page = await open("Ada");
    await say(page, WORDS);
    const before = await midway(page);
    const { port } = server;
    await server.kill("SIGKILL");
    await page.getByTestId("connection").getByText("Reconnecting…").waitFor();
    expect(await page.getByText("interrupted").count()).toBe(0);
    expect(await text(answers(page).first())).toContain(before);

    server = await RejoinServer.start(join(folder, "x.db"), port);
    await connected(page);
    const status = page.locator('[data-testid=turn-status][data-reason=owner_gone]');
    await status.getByText("interrupted — The server that was answering went away.").waitFor();
    expect((await text(answers(page).first()))?.startsWith(before)).toBe(true);
    await screenshot(page, "server-killed");

    await status.getByTestId("retry").click();
    await complete(page, 1, ANSWER);
    expect((await text(answers(page).first()))?.startsWith(before)).toBe(true);
    await say(page, "and on it goes");
    await complete(page, 2, "You said: and on it goes");
    await screenshot(page, "server-retried");
    await page.reload();
    await connected(page);
    await expect.poll(() => page.getByTestId("message").count()).toBe(5);
  });
});
