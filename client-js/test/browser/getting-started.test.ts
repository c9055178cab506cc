/**
 * Does what docs/getting-started.md says, word for word, in a fresh folder: its files, its commands, what they print, and
 * the page in a browser. Only ports differ, and what is installed is taken from where it is. Needs `REJOIN_BIN`.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Browser, Page } from "playwright-core";
import { chromiumPath, launch } from "./chromium.js";
import { rejoinBin } from "./rejoin.js";

const REPO = fileURLToPath(new URL("../../..", import.meta.url));
const LIMIT_MS = 30_000;

/** A fenced block: its language, the word behind it, what it holds. */
interface Block {
  readonly language: string;
  readonly word: string;
  readonly text: string;
}

function blocksOf(page: string): Block[] {
  const found = page.matchAll(/^```(\w+) ?(\S*)\n(.*?)^```$/gmsu);
  return [...found].map(([, language = "", word = "", text = ""]) => ({ language, word, text }));
}

/** A port that is free at this moment. */
async function freePort(): Promise<string> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("There is no port.");
  return String(address.port);
}

/** A shell whose output is kept, in a process group of its own. */
class Shell {
  readonly #process: ChildProcess;
  #output = "";

  constructor(folder: string, env: NodeJS.ProcessEnv) {
    this.#process = spawn("bash", [], { cwd: folder, env, detached: true, stdio: "pipe" });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => (this.#output += text));
    }
  }

  /** Types these lines. */
  type(text: string): void {
    this.#process.stdin?.write(`${text}\n`);
  }

  /** What came since the last time, once `ready` is in it. */
  async until(ready: string): Promise<string> {
    await expect.poll(() => this.#output, { timeout: LIMIT_MS }).toContain(ready);
    const output = this.#output;
    this.#output = "";
    return output;
  }

  /** What these lines print. */
  async run(text: string): Promise<string> {
    this.type(`${text}\necho done-with-it`);
    const output = await this.until("done-with-it\n");
    return output.replace("done-with-it\n", "");
  }

  async kill(): Promise<void> {
    const { pid, exitCode, signalCode } = this.#process;
    if (pid === undefined || exitCode !== null || signalCode !== null) return;
    const gone = once(this.#process, "exit");
    process.kill(-pid, "SIGKILL");
    await gone;
  }
}

describe.skipIf(!rejoinBin() || chromiumPath() === undefined)("docs/getting-started.md", () => {
  let browser: Browser;
  let folder: string;
  const shells: Shell[] = [];

  beforeAll(async () => {
    browser = await launch();
    folder = await mkdtemp(join(tmpdir(), "rejoin-started-"));
  });
  afterAll(async () => {
    await browser.close();
    await Promise.all(shells.map((shell) => shell.kill()));
    await rm(folder, { recursive: true, force: true });
  });

  function shell(place: string, env: NodeJS.ProcessEnv): Shell {
    const opened = new Shell(place, env);
    shells.push(opened);
    return opened;
  }

  /** What the steps of installing leave behind, from what is installed already. */
  async function install(chat: string): Promise<void> {
    const [modules, own] = [join(chat, "node_modules"), join(REPO, "client-js")];
    await mkdir(join(modules, ".bin"), { recursive: true });
    await cp(join(own, "package.json"), join(modules, "rejoin-client/package.json"));
    const [entryPoints, outdir] = [[join(own, "src/index.ts")], join(modules, "rejoin-client/dist")];
    await build({ entryPoints, outdir, bundle: true, format: "esm", packages: "external", logLevel: "warning" });
    await symlink(join(own, "node_modules/phoenix"), join(modules, "phoenix"));
    await symlink(join(own, "node_modules/.bin/esbuild"), join(modules, ".bin/esbuild"));
  }

  /** A window of its own, whose browser knows a name and a password if there are any. */
  async function visit(url: string, httpCredentials?: { username: string; password: string }): Promise<Page> {
    const context = await browser.newContext(httpCredentials === undefined ? {} : { httpCredentials });
    const page = await context.newPage();
    page.setDefaultTimeout(LIMIT_MS);
    await page.goto(url);
    return page;
  }

  it("is true from the first step to the last", { timeout: 120_000 }, async () => {
    const ports = new Map<string, string>();
    for (const port of ["4000", "8000", "9000"]) ports.set(port, await freePort());
    const here = (text: string): string =>
      text.replace(/\b(?:4000|8000|9000)\b/gu, (port) => ports.get(port) ?? port);
    const blocks = blocksOf(here(await readFile(join(REPO, "docs/getting-started.md"), "utf8")));
    const path = [dirname(resolve(rejoinBin() ?? "")), process.env["PATH"]].join(delimiter);
    const env = { PATH: path, HOME: folder, REPO };
    const [main, chat] = [shell(folder, env), join(folder, "my-chat")];
    const run = new Set<string>();
    for (const [index, { language, word, text }] of blocks.entries()) {
      const after = blocks[index + 1];
      const printed = after?.language === "text" ? after.text : "";
      if (language === "sh" && word === "terminal") {
        const terminal = shell(chat, env);
        terminal.type(text);
        await terminal.until(printed.trimEnd());
      } else if (language === "sh" && word === "setup") {
        if (text.includes("npm install")) await install(chat);
      } else if (language === "sh") {
        expect((await main.run(text)).trim()).toBe(printed.trim());
      } else if (word !== "") {
        await writeFile(join(chat, word), text);
      }
      run.add(word === "" ? language : word);
    }
    expect([...run].sort()).toEqual(
      ["index.html", "page.js", "rejoin.toml", "setup", "sh", "site.mjs", "terminal", "text", "users.json"],
    );

    const site = here("http://localhost:8000");
    const ada = await visit(site, { username: "ada", password: "a password of Ada's" });
    await ada.getByText("http: 1 2 3 4 5").waitFor();
    await ada.getByLabel("Message").fill("count to 3");
    await ada.getByRole("button", { name: "Send" }).click();
    const ben = await visit(site, { username: "ben", password: "a password of Ben's" });
    await ben.getByText("Ada: count to 3").waitFor();
    await ben.getByRole("status").getByText("open", { exact: true }).waitFor();
    await ben.getByText("http: 1 2 3", { exact: true }).waitFor();
    const eve = await visit(site, { username: "eve", password: "a password of Eve's" });
    await eve.getByText("this token does not open this session").waitFor();

    const operator = await visit(here("http://127.0.0.1:4000/admin"));
    await operator.getByLabel("Token").fill((await readFile(join(chat, "operator-token"), "utf8")).trim());
    await operator.keyboard.press("Enter");
    await operator.getByTestId("node").getByText("live", { exact: true }).waitFor();
  });
});
