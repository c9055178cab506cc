/** The operators' page against the real server. Needs `REJOIN_BIN`. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Browser, BrowserContext, Locator, Page } from "playwright-core";
import { chromiumPath, launch, screenshot } from "./chromium.js";
import { RejoinServer, mint, rejoinBin } from "./rejoin.js";

const LIMIT_MS = 30_000;
const SECRET = "a secret of tests, thirty-two bytes or more";
const LONG = Array.from({ length: 2_000 }, (_, index) => `word${index + 1}`).join(" ");

describe.skipIf(!rejoinBin() || chromiumPath() === undefined)("the operators' page on the real server", () => {
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  let folder: string;
  let server: RejoinServer;

  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(() => browser.close());

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "rejoin-admin-"));
    context = await browser.newContext({ viewport: { width: 1200, height: 800 }, colorScheme: "light" });
    page = await context.newPage();
    page.setDefaultTimeout(LIMIT_MS);
  });
  afterEach(async () => {
    await context.close();
    await server.kill();
    await rm(folder, { recursive: true, force: true });
  });

  async function start(port = 0, ...more: readonly string[]): Promise<void> {
    server = await RejoinServer.start(join(folder, "x.db"), port, more);
  }

  const startWithTokens = (): Promise<void> => start(0, "--auth", "jwt", "--jwt-secret", SECRET);
  const by = (testid: string): Locator => page.getByTestId(testid);
  const turns = (table: string): Locator => by(table).getByTestId("turn");
  const live = (): Promise<void> => by("status").getByText("Live").waitFor();

  async function open(): Promise<void> {
    await page.goto(`${server.url}/admin`);
    await live();
  }

  /** Asks for a long answer. */
  async function send(session: string, text = LONG): Promise<string> {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify({ text });
    const response = await fetch(`${server.url}/api/sessions/${session}/messages`, { method: "POST", headers, body });
    expect(response.status).toBe(202);
    return ((await response.json()) as { turn_id: string }).turn_id;
  }

  async function give(token: string): Promise<void> {
    await page.getByLabel("Token").fill(token);
    await page.getByRole("button", { name: "Look" }).click();
  }

  const isTooWide = (): Promise<boolean> =>
    page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);

  it("shows the node, what runs and what waits, and cancels by the keyboard", async () => {
    await start();
    await open();
    await page.getByText("Nothing runs.").waitFor();
    const [running, waiting] = [await send("plans"), await send("plans", `later ${LONG}`)];
    const row = turns("running");
    await row.getByText("plans").waitFor();
    expect(await row.getAttribute("data-turn-id")).toBe(running);
    await row.getByText(/^[1-9] s$/u).waitFor();
    expect(await turns("queued").getAttribute("data-turn-id")).toBe(waiting);
    const node = page.getByRole("table", { name: "Nodes" }).getByTestId("node");
    await node.getByText("live", { exact: true }).waitFor();
    await node.getByText(/^\d+\.\d s ago of 6 s$/u).waitFor();
    await expect.poll(() => by("total-running").textContent()).toBe("1");
    expect(await by("total-queued").textContent()).toBe("1");
    await screenshot(page, "admin");

    await row.getByRole("button", { name: /^Cancel the turn of/u }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: /^Really cancel/u }).waitFor();
    await page.keyboard.press("Enter");
    // What waited takes its place, and the focus stays in the table.
    await expect.poll(() => turns("running").getAttribute("data-turn-id")).toBe(waiting);
    await by("said").getByText("cancelled").waitFor({ state: "attached" });
    await page.getByText("Nothing waits.").waitFor();
    await expect.poll(() => page.evaluate(() => document.activeElement?.closest("section")?.textContent)).toContain("Running");
    const { session, turns: left } = (await (await fetch(`${server.url}/api/sessions/plans`)).json()) as {
      session: { last_seq: number };
      turns: { id: string }[];
    };
    expect(left.map((turn) => turn.id)).not.toContain(running);
    expect(session.last_seq).toBeGreaterThan(3);
  });

  it("says that it is not connected, and shows what a killed node has lost", async () => {
    await start(0, "--exclusive-node-name");
    await open();
    const turn = await send("lost");
    await turns("running").getByText("lost").waitFor();
    const port = server.port;
    await server.kill();
    await by("status").getByText("Reconnecting…").waitFor();
    await by("note").getByText("not connected").waitFor();
    await start(port, "--exclusive-node-name");
    await live();
    const row = by("lost").getByTestId("lost-turn");
    await row.getByText("lost").waitFor();
    expect(await row.getAttribute("data-turn-id")).toBe(turn);
    await row.getByText(/ s ago$/u).waitFor();
    await page.getByText("Nothing runs.").waitFor();
    await expect.poll(() => by("note").isHidden()).toBe(true);
  });

  it("asks for a token where one is wanted, and says what is wrong with others", async () => {
    await startWithTokens();
    await page.goto(`${server.url}/admin`);
    await by("ask").waitFor();
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("token");
    await give("nonsense");
    await expect.poll(() => by("refused").textContent()).toMatch(/token/u);
    await give(mint(SECRET, "--sub", "ada", "--topics", '{"session:*":"admin"}'));
    await expect.poll(() => by("refused").textContent()).toMatch(/admin on the pattern \*/u);
    expect(await by("overview").isHidden()).toBe(true);
    await give(mint(SECRET, "--sub", "op", "--ttl", "2m"));
    await live();
    await by("expiry").getByText("Your token runs out in 1 min").waitFor();
    expect(await page.evaluate(() => [localStorage.length, sessionStorage.length, location.search])).toEqual([0, 1, ""]);
    await page.reload();
    await live();
  });

  it("goes on with another token, keeps the one it has where that is wrong, and forgets it when told", async () => {
    await startWithTokens();
    await page.goto(`${server.url}/admin`);
    await give(mint(SECRET, "--sub", "op", "--ttl", "2m"));
    await live();
    await by("renew").click();
    await give(mint("another secret of thirty-two bytes or more", "--sub", "op"));
    await expect.poll(() => by("refused").textContent()).toMatch(/token/u);
    expect(await by("overview").isVisible()).toBe(true);
    await give(mint(SECRET, "--sub", "someone-else"));
    await expect.poll(() => by("ask").isHidden()).toBe(true);
    await live();
    await expect.poll(() => by("expiry").isHidden()).toBe(true);
    await by("leave").click();
    await by("ask").waitFor();
    expect(await by("overview").isHidden()).toBe(true);
    expect(await page.evaluate(() => sessionStorage.length)).toBe(0);
  });

  it("asks again when its token has run out", async () => {
    await startWithTokens();
    await page.goto(`${server.url}/admin`);
    await give(mint(SECRET, "--sub", "op", "--ttl", "3s"));
    await live();
    await by("ask").waitFor();
    await expect.poll(() => by("refused").textContent()).toMatch(/token/u);
    expect(await by("overview").isHidden()).toBe(true);
  });

  it("says what to do where the server lets no page of its own connect", async () => {
    await start(0, "--allowed-origins", "https://app.example.com");
    await page.goto(`${server.url}/admin`);
    await by("note").getByText(`it must name ${server.url}.`).waitFor();
    await by("status").getByText("Not connected").waitFor();
    await page.evaluate(() => {
      const status = document.querySelector("[data-testid=status]") as HTMLElement;
      const said = (): void => void (document.body.dataset["said"] = `${document.body.dataset["said"] ?? ""}${status.innerText};`);
      new MutationObserver(said).observe(status, { childList: true, characterData: true, subtree: true });
    });
    // Each try begins after the one before has failed.
    for (let tries = 0; tries < 3; tries += 1) await page.waitForEvent("websocket");
    await by("status").getByText("Not connected").waitFor();
    expect(await page.evaluate(() => document.body.dataset["said"])).toBeUndefined();
  });

  it("fits a phone, by day and by night", async () => {
    await start();
    await send("a-session-with-a-rather-long-name-as-programs-make-them-0123456789abcdef");
    await open();
    await turns("running").first().waitFor();
    await page.setViewportSize({ width: 360, height: 740 });
    expect(await isTooWide()).toBe(false);
    expect(await page.getByRole("table", { name: "Running turns" }).getByRole("row").count()).toBe(2);
    await screenshot(page, "admin-phone");
    await page.emulateMedia({ colorScheme: "dark" });
    await screenshot(page, "admin-phone-dark");
    expect(await isTooWide()).toBe(false);
  });
});
