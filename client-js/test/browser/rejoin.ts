/** The real server, started for one test: `REJOIN_BIN` names the program. */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

const START_LIMIT_MS = 20_000;
const READY = /^rejoin listening on (http:\/\/\S+)$/u;

export function rejoinBin(): string | undefined {
  return process.env["REJOIN_BIN"];
}

export class RejoinServer {
  readonly url: string;
  readonly #process: ChildProcess;

  private constructor(process: ChildProcess, url: string) {
    this.#process = process;
    this.url = url;
  }

  /** Starts it and waits until it says that it listens. Port 0 takes a free one. */
  static async start(databasePath: string, port = 0, more: readonly string[] = []): Promise<RejoinServer> {
    const bin = rejoinBin();
    if (!bin) throw new Error("REJOIN_BIN does not name the server's program.");
    const options = ["--listen", `127.0.0.1:${port}`, "--database-url", `sqlite:${databasePath}`];
    if (!more.includes("--echo-delay")) options.push("--echo-delay", "60ms");
    // The server would take that for an option of its own.
    const env = { ...process.env, REJOIN_BIN: undefined };
    const child = spawn(bin, ["serve", ...options, ...more], { stdio: ["ignore", "pipe", "inherit"], env });
    try {
      return new RejoinServer(child, await readyUrl(child));
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** Ends it and waits until it is gone. */
  async kill(signal: "SIGKILL" | "SIGTERM" = "SIGKILL"): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const gone = once(this.#process, "exit");
    this.#process.kill(signal);
    await gone;
  }
}

/** A token that `rejoin token` makes. */
export function mint(secret: string, ...args: readonly string[]): string {
  return execFileSync(rejoinBin() ?? "", ["token", "--auth", "jwt", "--jwt-secret", secret, ...args], { encoding: "utf8" }).trim();
}

function readyUrl(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("The server did not say that it listens.")), START_LIMIT_MS);
    const fail = (why: string): void => {
      clearTimeout(timer);
      reject(new Error(why));
    };
    child.once("error", (error) => fail(`The server could not be started: ${error.message}`));
    child.once("exit", (code) => fail(`The server ended before it listened (code ${code ?? "none"}).`));
    if (!child.stdout) return;
    createInterface({ input: child.stdout }).on("line", (line) => {
      const url = READY.exec(line)?.[1];
      if (url === undefined) return;
      clearTimeout(timer);
      resolve(url);
    });
  });
}
