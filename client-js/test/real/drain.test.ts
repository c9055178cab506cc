/** A server that stops while two hundred watch an answer: they come back, not all at once. Needs `REJOIN_BIN`. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { Rejoin, type Session, type Transport } from "../../src/index.js";
import { RejoinServer, rejoinBin } from "../browser/rejoin.js";
import { ANSWER, WORDS, answerOf, count, until } from "../support/recorder.js";

const CLIENTS = 200;

describe.skipIf(!rejoinBin())("a drain", () => {
  let folder: string;
  let server: RejoinServer;
  const clients: Rejoin[] = [];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "rejoin-drain-"));
    server = await RejoinServer.start(join(folder, "x.db"));
  });

  afterEach(async () => {
    for (const client of clients.splice(0)) client.disconnect();
    await server.kill();
    await rm(folder, { recursive: true, force: true });
  });

  /** Joins, and notes when each connection is tried. */
  async function watch(index: number, tries: number[]): Promise<Session> {
    class Noted extends WebSocket {
      constructor(url: string, protocols?: string | string[]) {
        super(url, protocols);
        tries.push(performance.now());
      }
    }
    const user = { id: `u${index}`, name: `User ${index}` };
    const client = new Rejoin(`ws://127.0.0.1:${server.port}/socket`, { user, transport: Noted as unknown as Transport });
    clients.push(client);
    const session = client.session("drained");
    await session.join();
    return session;
  }

  it("lets two hundred come back spread out, each with all of the answer", async () => {
    const tries: number[][] = Array.from({ length: CLIENTS }, () => []);
    const sessions = await Promise.all(tries.map((times, index) => watch(index, times)));
    const [first] = sessions;
    if (!first) throw new Error("nobody has joined");
    await first.send(WORDS);
    await Promise.all(sessions.map((session) => until(session, "midway", (s) => answerOf(s).length > 40)));

    // The answer ends before its server does; nobody is sent away before that without coming back to all of it.
    const begun = performance.now();
    const stopping = server.kill("SIGTERM");
    await stopping;
    server = await RejoinServer.start(join(folder, "x.db"), server.port);
    const isWhole = (session: Session): Promise<unknown> =>
      until(session, "back and idle", (s) => s.status === "joined" && s.info?.status === "idle", 40_000);
    await Promise.all(sessions.map(isWhole));

    const counts = sessions.map(({ snapshot }) => count(answerOf(snapshot), ANSWER));
    const lost = counts.reduce((sum, each) => sum + each.lost, 0);
    const doubled = counts.reduce((sum, each) => sum + each.doubled, 0);
    const firstTries = tries.map((times) => (times[1] ?? Infinity) - begun).sort((a, b) => a - b);
    const all = tries.flatMap((times) => times.slice(1)).sort((a, b) => a - b);
    const densest = Math.max(...all.map((at) => all.filter((other) => other >= at && other < at + 100).length));
    const [soonest = 0, last = 0] = [firstTries[0], firstTries.at(-1)];
    console.log(
      `drain: ${CLIENTS} clients, ${lost} characters lost, ${doubled} doubled; first tries from ${Math.round(soonest)} to ` +
        `${Math.round(last)} ms after SIGTERM; ${all.length} tries, at most ${densest} of them within 100 ms`,
    );
    expect({ lost, doubled }).toEqual({ lost: 0, doubled: 0 });
    expect(last).toBeLessThan(Infinity);
    // In step they would all come at once.
    expect(densest).toBeLessThan(CLIENTS / 2);
  });
});
