/**
 * A server inside the test: a transport for phoenix's own Socket, so that its joins, refs and timers are the real ones.
 * Nothing is answered by itself but heartbeats; the test says what the server does.
 */
import { expect } from "vitest";
import type { Transport } from "../../src/index.js";

export interface Frame {
  readonly joinRef: string | null;
  readonly ref: string | null;
  readonly topic: string;
  readonly event: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

/** One connection, from the server's side. */
export class Connection {
  readyState = 0;
  readonly frames: Frame[] = [];
  onopen: () => void = () => undefined;
  onerror: (error: unknown) => void = () => undefined;
  onmessage: (event: { data: string }) => void = () => undefined;
  onclose: (event: { code: number; reason: string }) => void = () => undefined;

  constructor(
    readonly url: string,
    readonly protocols: string | string[] | undefined,
  ) {}

  open(): void {
    this.readyState = 1;
    this.onopen();
  }

  /** The connection ends, by whomever. */
  close(code = 1006, reason = ""): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose({ code, reason });
  }

  send(text: string): void {
    const [joinRef, ref, topic, event, payload] = JSON.parse(text) as [string, string, string, string, Frame["payload"]];
    this.frames.push({ joinRef, ref, topic, event, payload });
    if (topic === "phoenix") this.reply({ joinRef: null, ref, topic, event, payload }, {});
  }

  /** Answers a frame. */
  reply(frame: Frame, response: object, status: "ok" | "error" = "ok"): void {
    this.#deliver([frame.joinRef, frame.ref, frame.topic, "phx_reply", { status, response }]);
  }

  /** A push on the channel that `join` joined. */
  push(join: Frame, event: string, payload: object): void {
    this.#deliver([join.joinRef, null, join.topic, event, payload]);
  }

  /** A broadcast as it is written once for everybody: without a join ref. */
  broadcast(topic: string, event: string, payload: object): void {
    this.#deliver([null, null, topic, event, payload]);
  }

  of(event: string): Frame[] {
    return this.frames.filter((frame) => frame.event === event);
  }

  #deliver(frame: readonly unknown[]): void {
    if (this.readyState === 1) this.onmessage({ data: JSON.stringify(frame) });
  }
}

export class FakeServer {
  readonly connections: Connection[] = [];
  readonly transport: Transport;

  constructor() {
    const connections = this.connections;
    this.transport = class extends Connection {
      constructor(url: string, protocols?: string | string[]) {
        super(url, protocols);
        connections.push(this);
      }
    };
  }

  /** The newest connection. */
  get connection(): Connection {
    const last = this.connections.at(-1);
    if (!last) throw new Error("nobody has connected");
    return last;
  }

  /** The newest frame of that event on the newest connection. */
  last(event: string): Frame {
    const frame = this.connection.of(event).at(-1);
    if (!frame) throw new Error(`no ${event} arrived; there was: ${this.connection.frames.map((f) => f.event).join()}`);
    return frame;
  }

  /** Answers the newest frame of that event. */
  answer(event: string, response: object, status: "ok" | "error" = "ok"): void {
    this.connection.reply(this.last(event), response, status);
  }

  /** Answers the newest join. */
  joined(reply: object): void {
    this.answer("phx_join", reply);
  }

  /** A push on the newest join. */
  push(event: string, payload: object): void {
    this.connection.push(this.last("phx_join"), event, payload);
  }

  /** Expects how many joins there were on the newest connection, and gives the newest one's parameters. */
  joinParams(count: number): Frame["payload"] {
    expect(this.connection.of("phx_join")).toHaveLength(count);
    return this.last("phx_join").payload;
  }
}
