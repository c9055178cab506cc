// @vitest-environment happy-dom
/** When the client connects, and when it does not; the page around it is happy-dom's. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Rejoin, RejoinError, type RejoinOptions } from "../src/index.js";
import { persistIn } from "../src/persist.js";
import { MemoryArea } from "./support/area.js";
import { added, prompt, snapshot } from "./support/make.js";
import { FakeServer } from "./support/server.js";

let server: FakeServer;
let rejoin: Rejoin;
let random: { mockReturnValue(value: number): unknown };

beforeEach(() => {
  vi.useFakeTimers();
  random = vi.spyOn(Math, "random").mockReturnValue(1);
  server = new FakeServer();
  sessionStorage.clear();
  vi.stubGlobal("fetch", vi.fn(() => Promise.reject(new Error("away"))));
});

afterEach(() => {
  rejoin.disconnect();
  vi.unstubAllGlobals();
  vi.useRealTimers();
  setOnline(true);
});

function make(options: RejoinOptions = {}): Rejoin {
  rejoin = new Rejoin("ws://server/socket", { transport: server.transport, user: { id: "u1" }, ...options });
  return rejoin;
}

function setOnline(isOnline: boolean): void {
  Object.defineProperty(navigator, "onLine", { value: isOnline, configurable: true });
}

function setVisible(state: "visible" | "hidden"): void {
  Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}

function go(name: "online" | "offline"): void {
  setOnline(name === "online");
  window.dispatchEvent(new Event(name));
}

/** The page is put aside, and comes back out of the cache. */
function pageShow(persisted: boolean): Event {
  return Object.assign(new Event("pageshow"), { persisted });
}

const soon = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

/** Waits until the next connection is tried, and gives how long that took. */
function nextTry(limitMs = 60_000): number {
  const before = server.connections.length;
  for (let ms = 0; ms <= limitMs; ms += 10) {
    if (server.connections.length > before) return ms;
    vi.advanceTimersByTime(10);
  }
  throw new Error(`no try within ${limitMs} ms`);
}

describe("after a loss", () => {
  it("the tries are spread over a time that doubles up to a limit", () => {
    make({ maxReconnectMs: 3_000 }).connect();
    const waits = Array.from({ length: 5 }, () => {
      server.connection.close();
      return nextTry();
    });
    expect(waits).toEqual([500, 1_000, 2_000, 3_000, 3_000]);
    random.mockReturnValue(0);
    server.connection.close();
    expect(nextTry()).toBeLessThanOrEqual(10);
  });

  it("it is said when the next try is made, and why the last one failed", () => {
    make().connect();
    server.connection.close();
    expect(rejoin.connection).toMatchObject({ status: "connecting", failures: 1, retryAt: Date.now() + 500 });
    expect(rejoin.connection.error?.reason).toBe("disconnected");
    rejoin.retryNow();
    expect(server.connections).toHaveLength(2);
    server.connection.open();
    expect(rejoin.connection).toMatchObject({ status: "open", error: null, retryAt: null });
  });

  it("of a good connection the tries begin anew, of one that broke at once they do not", () => {
    make().connect();
    server.connection.open();
    server.connection.close();
    expect(nextTry()).toBe(500);
    server.connection.open();
    server.connection.close();
    expect(nextTry()).toBe(1_000);
    server.connection.open();
    vi.advanceTimersByTime(6_000);
    server.connection.close();
    expect(nextTry()).toBe(500);
  });

  it("a draining server says for how long to stay away, and is left alone so long", async () => {
    void make().session("s1").join();
    server.connection.open();
    server.joined(snapshot(0));
    server.push("draining", { reconnect_after_ms: 7_300 });
    server.connection.close(1012);
    expect(nextTry()).toBe(7_300);
    await soon();
  });

  it("that the server does not notice the heartbeat does", () => {
    make({ heartbeatIntervalMs: 1_000 }).connect();
    server.connection.open();
    server.connection.send = () => undefined;
    expect(nextTry(10_000)).toBeGreaterThan(1_000);
  });

  it("a WebSocket that neither opens nor closes is given up", () => {
    make().connect();
    expect(nextTry()).toBeGreaterThanOrEqual(6_000);
    expect(nextTry()).toBeGreaterThanOrEqual(6_000);
  });
});

describe("one connection", () => {
  it("carries all sessions and the list", async () => {
    make();
    void rejoin.session("a").join();
    void rejoin.session("b").join();
    void rejoin.list().join();
    rejoin.connect();
    server.connection.open();
    await soon();
    expect(server.connections).toHaveLength(1);
    expect(server.connection.of("phx_join").map(({ topic }) => topic)).toEqual(["session:a", "session:b", "sessions"]);
  });

  it("is not made before it is wanted", () => {
    make().session("a");
    vi.advanceTimersByTime(60_000);
    expect(server.connections).toEqual([]);
    expect(rejoin.connection.status).toBe("closed");
  });

  it("joins all sessions again after a loss, each once", async () => {
    make();
    for (const id of ["a", "b"]) void rejoin.session(id).join();
    server.connection.open();
    for (const frame of server.connection.of("phx_join")) server.connection.reply(frame, snapshot(0));
    server.connection.close();
    nextTry();
    server.connection.open();
    await soon();
    expect(server.connection.of("phx_join").map(({ topic }) => topic)).toEqual(["session:a", "session:b"]);
  });
});

describe("a server that refuses", () => {
  /** What long-polling is told at the same door. */
  function answers(status: number): void {
    vi.stubGlobal("fetch", vi.fn(() => Promise.resolve(new Response(JSON.stringify({ status })))));
  }

  it("a token is not asked again and again", async () => {
    answers(403);
    make({ token: "bad" });
    const joining = rejoin.session("s1").join();
    server.connection.close();
    await expect(joining).rejects.toMatchObject({ reason: "unauthorized" });
    expect(rejoin.connection).toMatchObject({ status: "refused", error: { reason: "unauthorized" } });
    expect(rejoin.session("s1").snapshot).toMatchObject({ status: "refused", connection: "refused" });
    await vi.advanceTimersByTimeAsync(600_000);
    expect(server.connections).toHaveLength(1);
  });

  it("a token that may have been just too old is asked for once more", async () => {
    answers(403);
    const token = vi.fn(() => "old");
    make({ token }).connect();
    server.connection.close();
    await soon();
    expect(rejoin.connection.status).toBe("connecting");
    await vi.advanceTimersByTimeAsync(1_000);
    expect(token).toHaveBeenCalledTimes(2);
    await vi.advanceTimersByTimeAsync(1_000);
    for (let times = 0; times < 4; times += 1) {
      if (server.connection.readyState === 0) server.connection.close();
      await vi.advanceTimersByTimeAsync(10_000);
    }
    expect(rejoin.connection.status).toBe("refused");
    const { length } = server.connections;
    await vi.advanceTimersByTimeAsync(600_000);
    expect(server.connections).toHaveLength(length);
  });

  it("is asked again with another token, and the session is joined", async () => {
    answers(403);
    make({ token: "bad" });
    const session = rejoin.session("s1");
    session.join().catch(() => undefined);
    server.connection.close();
    await soon();
    expect(session.snapshot.status).toBe("refused");
    void rejoin.renewToken("good");
    await soon();
    expect(server.connection.protocols).toEqual(["phoenix", `base64url.bearer.phx.${btoa("good").replaceAll("=", "")}`]);
    server.connection.open();
    server.joined(snapshot(0));
    expect(session.snapshot).toMatchObject({ status: "joined", error: null, connection: "open" });
  });

  it("connection after connection for a broken rule is left alone after a few", async () => {
    make().connect();
    for (let times = 0; times < 5; times += 1) {
      server.connection.open();
      server.connection.close(1008);
      if (times < 4) nextTry();
    }
    expect(rejoin.connection).toMatchObject({ status: "refused", error: { reason: "rate_limited" } });
    await vi.advanceTimersByTimeAsync(600_000);
    expect(server.connections).toHaveLength(5);
    rejoin.connect();
    expect(server.connections).toHaveLength(6);
  });

  it("that is only away is tried as long as it takes", async () => {
    make().connect();
    for (let times = 0; times < 30; times += 1) {
      server.connection.close();
      await vi.advanceTimersByTimeAsync(10_000);
    }
    expect(server.connections.length).toBeGreaterThan(30);
  });
});

describe("a token function", () => {
  it("is asked before each connection, and waited for", async () => {
    let count = 0;
    make({ token: () => Promise.resolve(`token-${(count += 1)}`) }).connect();
    expect(server.connections).toEqual([]);
    await soon();
    const shown = (): string => atob(String(server.connection.protocols?.[1]).split(".").at(-1) ?? "");
    expect(shown()).toBe("token-1");
    server.connection.open();
    server.connection.close();
    await vi.advanceTimersByTimeAsync(500);
    expect(shown()).toBe("token-2");
  });

  it("that fails is asked again later; one that says that there is none is not", async () => {
    const token = vi.fn(() => Promise.reject(new Error("the login is away")));
    make({ token }).connect();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(token.mock.calls.length).toBeGreaterThan(2);
    expect(rejoin.connection.error?.message).toBe("the login is away");
    token.mockImplementation(() => Promise.reject(new RejoinError("unauthorized", "Log in.")));
    await vi.advanceTimersByTimeAsync(20_000);
    expect(rejoin.connection).toMatchObject({ status: "refused", error: { message: "Log in." } });
    expect(server.connections).toEqual([]);
  });

  it("is asked before the token runs out, and the new one is shown in place", async () => {
    const jwt = (n: number): string => {
      const now = Date.now() / 1_000;
      return `h.${btoa(JSON.stringify({ sub: "u1", iat: now, exp: now + 100, n }))}.s`;
    };
    let count = 0;
    make({ token: () => jwt((count += 1)) });
    const joining = rejoin.session("s1").join();
    server.connection.open();
    server.joined(snapshot(0));
    await joining;
    await vi.advanceTimersByTimeAsync(79_000);
    expect(server.connection.of("access_token")).toEqual([]);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(count).toBe(2);
    expect(server.last("access_token").payload["token"]).toContain(".");
    expect(server.connections).toHaveLength(1);
    server.answer("access_token", { reason: "unauthorized", message: "Another sub." }, "error");
    await soon();
    expect(rejoin.connection).toMatchObject({ status: "open", error: { message: "Another sub." } });
  });
});

describe("the page", () => {
  beforeEach(() => {
    make().connect();
  });

  it("that comes online is connected at once", () => {
    for (let times = 0; times < 6; times += 1) {
      server.connection.close();
      if (times < 5) nextTry();
    }
    go("offline");
    expect(rejoin.connection.status).toBe("offline");
    const { length } = server.connections;
    go("online");
    expect(server.connections).toHaveLength(length + 1);
    expect(rejoin.connection).toMatchObject({ status: "connecting", failures: 0 });
  });

  it("that is shown again is connected at once", () => {
    server.connection.close();
    setVisible("hidden");
    setVisible("visible");
    expect(server.connections).toHaveLength(2);
  });

  it.each(["online", "offline", "shown"])("that is %s asks whether the connection is still alive", (what) => {
    server.connection.open();
    server.connection.send = () => undefined;
    if (what === "shown") setVisible("visible");
    else go(what as "online");
    vi.advanceTimersByTime(4_900);
    expect(rejoin.connection.status).toBe("open");
    vi.advanceTimersByTime(200);
    expect(rejoin.connection.status).not.toBe("open");
    setOnline(true);
    expect(nextTry(1_000)).toBeLessThanOrEqual(500);
  });

  it("that is kept aside holds no connection, and has one again when it is back", () => {
    server.connection.open();
    window.dispatchEvent(new Event("pagehide"));
    expect(server.connections[0]?.readyState).toBe(3);
    vi.advanceTimersByTime(60_000);
    expect(server.connections).toHaveLength(1);
    window.dispatchEvent(pageShow(false));
    expect(server.connections).toHaveLength(1);
    window.dispatchEvent(pageShow(true));
    expect(server.connections).toHaveLength(2);
  });

  it("that goes away writes at once what is to be kept", async () => {
    const area = new MemoryArea();
    make({ persist: persistIn(area) });
    const joining = rejoin.session("s1").join();
    server.connection.open();
    server.joined(snapshot(0));
    await joining;
    server.push("events", { prev: 0, events: [added(1, prompt("m1", 1))] });
    expect(area.under(":s:s1")[0]).toContain('"lastSeq":0');
    window.dispatchEvent(new Event("pagehide"));
    expect(area.under(":s:s1")[0]).toContain('"lastSeq":1');
  });

  it("is not listened to any more once the client is closed", () => {
    rejoin.disconnect();
    go("online");
    setVisible("visible");
    window.dispatchEvent(pageShow(true));
    vi.advanceTimersByTime(60_000);
    expect(server.connections).toHaveLength(1);
  });
});
