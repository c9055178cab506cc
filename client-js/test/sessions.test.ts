/** Which sessions a client keeps: seen by what is still there when the machine has collected what nobody holds. */
import { setImmediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Rejoin, Session } from "../src/index.js";
import { live } from "../src/live.js";
import { endClient, startClient } from "./support/client.js";
import { added, prompt, snapshot } from "./support/make.js";
import type { FakeServer } from "./support/server.js";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

let server: FakeServer;
let rejoin: Rejoin;

beforeEach(() => {
  ({ server, rejoin } = startClient({ user: { id: "u1", name: "Ada" } }));
  rejoin.connect();
  server.connection.open();
});

afterEach(() => endClient(rejoin));

/** Joins a session, does something with it, and leaves it: nothing holds it here afterwards. */
function visit(id: string, use: (session: Session) => void = () => undefined): WeakRef<Session> {
  const session = rejoin.session(id);
  void session.join();
  server.joined(snapshot(0));
  server.push("events", { prev: 0, events: [added(1, prompt("m1", 1, id))] });
  use(session);
  leave(session);
  return new WeakRef(session);
}

function leave(session: Session): void {
  session.leave();
  server.answer("phx_leave", {});
}

function visitOthers(): WeakRef<Session>[] {
  return Array.from({ length: 100 }, (_, index) => visit(`other-${index}`));
}

/** How many are still there. */
async function left(sessions: readonly WeakRef<Session>[]): Promise<number> {
  // What was looked at stays for as long as the job lasts that did.
  await setImmediate();
  collect();
  return sessions.filter((session) => session.deref()).length;
}

describe("of the sessions that were opened and left", () => {
  it("only the last ones are kept, with what they hold", async () => {
    const visited = visitOthers();
    expect(await left(visited)).toBe(20);
    expect(rejoin.session("other-99").snapshot.messages.map(({ parts }) => parts[0]?.text)).toEqual(["other-99"]);
    expect(rejoin.session("other-0").snapshot.messages).toEqual([]);
  });

  it("one that is used again is among the last ones", async () => {
    const visited = visitOthers().slice(0, -1);
    visit("other-85");
    const more = Array.from({ length: 10 }, (_, index) => visit(`more-${index}`));
    expect(await left(more)).toBe(10);
    expect(await left(visited.slice(85, 86))).toBe(1);
    expect(await left(visited.slice(86, 90))).toBe(0);
  });

  it("one that somebody holds stays the one of its id, and is joined once", async () => {
    const held = rejoin.session("held");
    await left(visitOthers());
    expect(rejoin.session("held")).toBe(held);
    void held.join();
    void rejoin.session("held").join();
    expect(server.connection.of("phx_join").filter(({ topic }) => topic === "session:held")).toHaveLength(1);
    server.joined(snapshot(0));
    expect(held.snapshot.status).toBe("joined");
    server.connection.close();
    expect(held.snapshot.connection).toBe("connecting");
  });

  it("one that was live is not kept for that", async () => {
    const visited = visit("typed", (session) => live(session, "typing"));
    visitOthers();
    expect(await left([visited])).toBe(0);
  });
});

describe("a session that nobody holds is kept", () => {
  it.each<[string, (session: Session) => void]>([
    ["while somebody listens to it", (session) => session.subscribe(() => undefined)],
    ["while somebody listens to its events", (session) => session.on("event", () => undefined)],
    ["while somebody looks at what is live in it", (session) => live(session, "typing").subscribe(() => undefined)],
    ["while something that was said in it is not in the log", (session) => void session.send("unsent")],
  ])("%s", async (_, use) => {
    const visited = visit("used", use);
    visitOthers();
    expect(await left([visited])).toBe(1);
  });

  it("while it is joined", async () => {
    const join = (): WeakRef<Session> => {
      const session = rejoin.session("joined");
      void session.join();
      server.joined(snapshot(0));
      return new WeakRef(session);
    };
    const joined = join();
    visitOthers();
    expect(await left([joined])).toBe(1);
    expect(joined.deref()?.snapshot.status).toBe("joined");
  });

  it("until nobody listens to it any more", async () => {
    const visited = visit("used", (session) => session.subscribe(() => undefined)());
    visitOthers();
    expect(await left([visited])).toBe(0);
  });
});
