/**
 * The connection: one socket, and the sessions on it.
 *
 * Knows phoenix's Socket; nothing of what is in a session. Whether the connection is open says nothing about turns:
 * they go on at the server. Invariant: one `Session` per id, and one socket for all of them.
 */
import { LongPoll, Socket } from "phoenix";
import { Listeners } from "./listeners.js";
import { Session } from "./session.js";
import type { Host, SessionOptions } from "./shapes.js";

/** `closed`: not asked for. `connecting`: asked for and not there, also between two tries after a drop. */
export type ConnectionState = "connecting" | "open" | "closed";

/** A class like the browser's WebSocket. */
export type Transport = new (endpoint: string, protocols?: string | string[]) => object;

export interface RejoinOptions {
  /** A JWT, or what gives the one of the moment; asked at each connection. */
  readonly token?: string | (() => string);
  /** Who one is, on a server without tokens. */
  readonly user?: { readonly id?: string; readonly name?: string };
  /** How the bytes move; the platform's WebSocket unless something else is given. */
  readonly transport?: "websocket" | "longpoll" | Transport;
  /** How long a request may go without an answer, over all repeats. 30 s unless given. */
  readonly requestTimeoutMs?: number;
  /** How often a silent connection is probed. 20 s unless given; keep it below half of the server's limit. */
  readonly heartbeatIntervalMs?: number;
}

const RECONNECT_AFTER_MS = [10, 50, 100, 200, 500, 1_000, 2_000] as const;
const RECONNECT_AFTER_MAX_MS = 5_000;

/** A connection to a Rejoin server, `ws://` or `wss://` and the path of its socket (usually `/socket`). */
export class Rejoin {
  readonly #socket: Socket;
  readonly #sessions = new Map<string, Session>();
  readonly #changed = new Listeners<[ConnectionState]>();
  readonly #requestTimeoutMs: number;
  #connection: ConnectionState = "closed";
  #token: RejoinOptions["token"];
  /** What a server that is closing asked for; taken by the next reconnect. */
  #drainAfterMs: number | null = null;

  constructor(url: string, options: RejoinOptions = {}) {
    this.#requestTimeoutMs = options.requestTimeoutMs ?? 30_000;
    this.#token = options.token;
    this.#socket = new Socket(url, {
      params: () => userParams(options.user),
      heartbeatIntervalMs: options.heartbeatIntervalMs ?? 20_000,
      reconnectAfterMs: (tries) => this.#reconnectAfterMs(tries),
      ...transportOption(options.transport),
      // phoenix takes a function here as well, its type does not say so.
      ...(options.token === undefined ? {} : { authToken: (() => this.#currentToken()) as unknown as string }),
    });
    this.#socket.onOpen(() => {
      this.#drainAfterMs = null;
      this.#setConnection("open");
    });
    const lost = (): void => this.#setConnection(this.#connection === "closed" ? "closed" : "connecting");
    this.#socket.onClose(lost);
    this.#socket.onError(lost);
  }

  /** Whether there is a connection. What it says of turns: nothing. */
  get connection(): ConnectionState {
    return this.#connection;
  }

  /** Calls `listener` when the connection changes; the function returned stops that. */
  onConnection(listener: (state: ConnectionState) => void): () => void {
    return this.#changed.add(listener);
  }

  /** Connects, and connects again after each drop. Joining a session does so by itself. */
  connect(): void {
    if (this.#connection === "closed") this.#setConnection("connecting");
    this.#socket.connect();
  }

  /** The session of that id: always the same object. The options count the first time. */
  session(id: string, options: SessionOptions = {}): Session {
    const known = this.#sessions.get(id);
    if (known) return known;
    const session = new Session(this.#host(), id, options);
    this.#sessions.set(id, session);
    return session;
  }

  /** Renews the identity: of this connection, at once for all sessions, and of the ones to come. */
  async renewToken(token: string | (() => string)): Promise<void> {
    this.#token = token;
    const live = [...this.#sessions.values()].find((session) => session.isLive);
    await live?.renewToken(this.#currentToken());
  }

  /** Leaves all sessions and closes. What the sessions hold stays; `join()` leads back. */
  disconnect(): void {
    this.#sessions.forEach((session) => session.leave());
    this.#setConnection("closed");
    this.#socket.disconnect();
  }

  #host(): Host {
    return {
      socket: this.#socket,
      requestTimeoutMs: this.#requestTimeoutMs,
      connect: () => this.connect(),
      onDraining: (afterMs) => {
        this.#drainAfterMs = Math.max(0, afterMs);
      },
    };
  }

  #currentToken(): string {
    return typeof this.#token === "function" ? this.#token() : (this.#token ?? "");
  }

  /** A server that drains spreads its clients; without one, chance does: a restart finds them all waiting. */
  #reconnectAfterMs(tries: number): number {
    const drainAfterMs = this.#drainAfterMs;
    this.#drainAfterMs = null;
    const base = RECONNECT_AFTER_MS[tries - 1] ?? RECONNECT_AFTER_MAX_MS;
    return drainAfterMs ?? Math.round(base * (0.5 + Math.random()));
  }

  #setConnection(state: ConnectionState): void {
    if (state === this.#connection) return;
    this.#connection = state;
    this.#changed.emit(state);
  }
}

function userParams(user: RejoinOptions["user"]): object {
  return {
    ...(user?.id === undefined ? {} : { user_id: user.id }),
    ...(user?.name === undefined ? {} : { name: user.name }),
  };
}

function transportOption(transport: RejoinOptions["transport"]): { transport?: new (endpoint: string) => object } {
  if (transport === undefined || transport === "websocket") return {};
  return { transport: transport === "longpoll" ? LongPoll : transport };
}
