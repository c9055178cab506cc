/** The package as it is published, used the ways its README says, on the real server. Needs `REJOIN_BIN`. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { transform } from "esbuild";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { build } from "vite";
import { chromiumPath, launch } from "../browser/chromium.js";
import { RejoinServer, rejoinBin } from "../browser/rejoin.js";
import { serveFiles, type Files } from "../support/files.js";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../../", import.meta.url));
/** What a user installs beside it. */
const BESIDE = ["phoenix", "react", "react-dom", "scheduler", "@types/react", "@types/react-dom", "@types/node", "undici-types", "csstype"];
const LIMIT_MS = 20_000;

describe.skipIf(!rejoinBin())("the package", () => {
  let project: string;
  let packed: string[];
  let readme: string;
  let server: RejoinServer;
  let files: Files;

  beforeAll(async () => {
    project = await mkdtemp(join(tmpdir(), "rejoin-package-"));
    const { stdout } = await run("npm", ["pack", "--json", "--silent", "--pack-destination", project], { cwd: root });
    const [pack] = JSON.parse(stdout.slice(stdout.indexOf("[\n"))) as [{ filename: string; files: { path: string }[] }];
    packed = pack.files.map(({ path }) => path);
    await mkdir(join(project, "node_modules/@types"), { recursive: true });
    await run("tar", ["xzf", pack.filename], { cwd: project });
    await run("mv", ["package", "node_modules/rejoin-client"], { cwd: project });
    for (const name of BESIDE) await symlink(join(root, "node_modules", name), join(project, "node_modules", name));
    await writeFile(join(project, "package.json"), JSON.stringify({ type: "module" }));
    readme = await readFile(join(root, "README.md"), "utf8");
    files = await serveFiles(project);
    server = await RejoinServer.start(join(project, "x.db"), 0, ["--allowed-origins", files.url]);
  });

  afterAll(async () => {
    await server.kill();
    await files.close();
    await rm(project, { recursive: true, force: true });
  });

  /** The first block of that language behind a heading of the README, or of another text. */
  function block(heading: string, language: string, text = readme): string {
    const [, behind = ""] = text.split(`\n## ${heading}\n`);
    const code = behind.split(`\n\`\`\`${language}\n`)[1]?.split("\n```")[0];
    if (code === undefined) throw new Error(`The README has no ${language} behind "${heading}".`);
    return code;
  }

  /** The same code for the server of this test. */
  function here(code: string): string {
    const socket = `"ws://127.0.0.1:${server.port}/socket"`;
    return code.replace('"ws://127.0.0.1:4000/socket"', socket).replace('Rejoin("/socket")', `Rejoin(${socket})`);
  }

  it("holds the library, its sources and its documents, and nothing else", () => {
    const folders = new Set(packed.map((path) => path.split("/")[0]));
    expect([...folders].sort()).toEqual(["LICENSE", "README.md", "dist", "docs", "package.json", "src"]);
    for (const name of ["index", "persist", "live", "react"]) {
      expect(packed).toEqual(expect.arrayContaining([`dist/${name}.js`, `dist/${name}.js.map`, `dist/${name}.d.ts`]));
    }
  });

  it("runs the five minutes of the README in Node", async () => {
    const { code } = await transform(here(block("Five minutes", "ts")), { loader: "ts", format: "esm" });
    await writeFile(join(project, "example.js"), code);
    const { stdout, stderr } = await run("node", ["example.js"], { cwd: project, timeout: LIMIT_MS });
    const lines = stdout.trimEnd().split("\n");
    expect(stderr).toBe("");
    expect(lines.pop()).toBe("completed");
    expect(lines.join("").trim()).toBe("You said: What should we do first?");
  });

  it.each([
    ["bundler", "ESNext"],
    ["nodenext", "nodenext"],
  ])("has types that hold for moduleResolution %s, with all declarations checked", async (moduleResolution, module) => {
    await mkdir(join(project, "src"), { recursive: true });
    await writeFile(join(project, "src/main.tsx"), block("In React", "tsx"));
    const page = block("Five minutes", "ts").replace(/\nrejoin\.disconnect\(\);/u, "");
    await writeFile(join(project, "src/node.ts"), page);
    const front = await readFile(join(root, "../README.md"), "utf8");
    await writeFile(join(project, "src/project.ts"), block("Five minutes with the client", "ts", front));
    const login = `import { Rejoin, RejoinError } from "rejoin-client";\n${block("Tokens", "ts")}\nrejoin.connect();`;
    await writeFile(join(project, "src/login.ts"), login);
    const typing = `import { Rejoin } from "rejoin-client";\nimport { live } from "rejoin-client/live";
const typing = live<boolean>(new Rejoin("/socket").session("s1"), "typing");
typing.set(true);
export const names: string[] = typing.getSnapshot().map(({ by, value }) => (value ? by.name : ""));
// @ts-expect-error: the value of this one is a boolean
typing.set("yes");`;
    await writeFile(join(project, "src/typing.ts"), typing);
    const strict = { strict: true, exactOptionalPropertyTypes: true, skipLibCheck: false, noEmit: true };
    const options = { ...strict, module, moduleResolution, target: "ES2023", jsx: "react-jsx", types: ["node"] };
    const compilerOptions = { ...options, lib: ["ES2023", "DOM", "DOM.Iterable"] };
    await writeFile(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["src"] }));
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    const result = await run("node", [tsc, "-p", "."], { cwd: project }).catch((error: unknown) => error as { stdout: string });
    expect(result.stdout).toBe("");
  });

  describe.skipIf(chromiumPath() === undefined)("in a page", () => {
    let browser: Browser;
    let page: Page;

    beforeAll(async () => {
      browser = await launch();
      page = await browser.newPage();
    });
    afterAll(() => browser.close());

    it("needs no tool but an import map", async () => {
      await writeFile(join(project, "plain.html"), `<!doctype html><body>${here(block("Without any tool", "html"))}`);
      await page.goto(`${files.url}/plain.html`);
      await page.getByText("You said: Hello").waitFor({ timeout: LIMIT_MS });
    });

    it("is built by Vite, with the React of the README", async () => {
      await mkdir(join(project, "src"), { recursive: true });
      await writeFile(join(project, "src/main.tsx"), here(block("In React", "tsx")).replace('id="planning"', 'id="vite"'));
      const html = '<!doctype html><div id="root"></div><script type="module" src="/src/main.tsx"></script>';
      await writeFile(join(project, "index.html"), html);
      await build({ root: project, base: "/dist/", logLevel: "error", configFile: false });
      await page.goto(`${files.url}/dist/index.html`);
      await page.locator("input").fill("Hi");
      await page.locator("input").press("Enter");
      await page.getByText("echo: You said: Hi").waitFor({ timeout: LIMIT_MS });
      await page.reload();
      await page.getByText("echo: You said: Hi").waitFor({ timeout: LIMIT_MS });
      await expect.poll(() => page.getByText("Ada: Hi").count()).toBe(1);
    });
  });
});
