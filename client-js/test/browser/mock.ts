/**
 * A server for the page alone: its files and its socket, answered inside the browser's own process.
 *
 * It says what the test says; joins, sends and heartbeats are recorded, and answered where the test gave an answer.
 */
import { readFile } from "node:fs/promises";
import type { BrowserContext, Route, WebSocketRoute } from "playwright-core";
import type { JoinReply, SessionEvent } from "../../src/index.js";

const TYPES: Readonly<Record<string, string>> = {
  "index.html": "text/html",
  "app.js": "text/javascript",
  "app.css": "text/css",
};

/** As the server sends it with the page. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const LIST = "sessions";

type Payload = Readonly<Record<string, unknown>>;
type Answer = (payload: Payload) => object;

/** An answer with status `error`. */
export class Refusal {
  constructor(
    readonly reason: string,
    readonly message: string,
  ) {}
}

export class MockServer {
  static readonly url = "http://mock.test";
  /** What the page sent to its session. */
  readonly frames: { readonly event: string; readonly payload: Payload }[] = [];
  /** What the page asked over HTTP. */
  readonly asked: { readonly method: string; readonly path: string; readonly token: string | undefined }[] = [];
  /** What that is answered with; null breaks the connection. */
  status: number | null = 404;
  readonly #answers = new Map<string, Answer>();
  #socket: WebSocketRoute | null = null;
  #join: { readonly ref: string; readonly topic: string } | null = null;
  #lastSeq = 0;
  /** While false, connections are closed as soon as they are made. */
  up = true;

  async serve(context: BrowserContext): Promise<void> {
    await context.route(`${MockServer.url}/**`, async (route) => {
      const { pathname } = new URL(route.request().url());
      if (pathname.startsWith("/api/")) return this.#onRequest(route);
      const file = pathname.slice(1) || "index.html";
      const contentType = TYPES[file];
      if (contentType === undefined) return route.fulfill({ status: 404 });
      const body = await readFile(new URL(`../../demo/dist/${file}`, import.meta.url));
      return route.fulfill({ body, contentType, headers: { "content-security-policy": POLICY } });
    });
    await context.routeWebSocket(/\/socket\/websocket/u, (socket) => this.#accept(socket));
  }

  /** How a push or join of that event is answered from now on. */
  on(event: string, answer: Answer): void {
    this.#answers.set(event, answer);
  }

  /** Events that continue what the page holds. */
  events(...events: readonly SessionEvent[]): void {
    this.push("events", { prev: this.#lastSeq, events });
    this.#lastSeq = events.at(-1)?.seq ?? this.#lastSeq;
  }

  push(event: string, payload: object): void {
    if (this.#join) this.#send([this.#join.ref, null, this.#join.topic, event, payload]);
  }

  /** A push on the list of sessions. */
  pushList(event: string, payload: object): void {
    this.#send([null, null, LIST, event, payload]);
  }

  /** The connection breaks. */
  async drop(): Promise<void> {
    this.up = false;
    await this.#socket?.close({ code: 1012 });
  }

  async #onRequest(route: Route): Promise<void> {
    const request = route.request();
    const { pathname, search } = new URL(request.url());
    this.asked.push({ method: request.method(), path: pathname + search, token: request.headers()["authorization"] });
    await (this.status === null ? route.abort("connectionreset") : route.fulfill({ status: this.status, json: {} }));
  }

  #accept(socket: WebSocketRoute): void {
    if (!this.up) {
      void socket.close({ code: 1013 });
      return;
    }
    this.#socket = socket;
    socket.onMessage((text) => this.#onFrame(String(text)));
  }

  #onFrame(text: string): void {
    const [joinRef, ref, topic, event, payload] = JSON.parse(text) as [string, string, string, string, Payload];
    if (topic === LIST) {
      this.#onList(joinRef, ref, event);
      return;
    }
    this.frames.push({ event, payload });
    const answer = event === "heartbeat" ? (): object => ({}) : this.#answers.get(event);
    if (!answer) return;
    const response = answer(payload);
    const status = response instanceof Refusal ? "error" : "ok";
    if (event === "phx_join" && status === "ok") {
      this.#join = { ref, topic };
      this.#lastSeq = (response as JoinReply).replay.to;
    }
    this.#send([joinRef, ref, topic, "phx_reply", { status, response }]);
  }

  /** The list is answered by what `on("list", …)` says, and is empty otherwise. */
  #onList(joinRef: string, ref: string, event: string): void {
    if (event !== "phx_join") return;
    const response = this.#answers.get("list")?.({}) ?? { sessions: [], has_more: false };
    const status = response instanceof Refusal ? "error" : "ok";
    this.#send([joinRef, ref, LIST, "phx_reply", { status, response }]);
  }

  #send(frame: readonly unknown[]): void {
    this.#socket?.send(JSON.stringify(frame));
  }
}
