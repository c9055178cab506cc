/**
 * The client: one connection, and the sessions on it.
 *
 * Wires the parts and knows who speaks. Invariants: one `Session` per id, one socket for all of them, one person.
 */
import { Connection } from "./connection.js";
import { RejoinError, asError } from "./errors.js";
import type { Persistence, SessionKeeper } from "./kept.js";
import type { Readable } from "./listeners.js";
import { SessionList, type ListOptions } from "./list.js";
import { quiet } from "./quiet.js";
import { Session, type Host } from "./session.js";
import { Sessions } from "./sessions.js";
import type { ConnectionSnapshot, SessionOptions, Transport } from "./shapes.js";
import { Tokens, type TokenSource } from "./tokens.js";
import type { Person } from "./types.js";

export interface RejoinOptions {
  /**
   * A JWT, or a function that gives the one of the moment, at once or later; it is asked before each connection and
   * again before a token runs out. It throws a `RejoinError("unauthorized")` where there is none for this user.
   */
  readonly token?: TokenSource;
  /** Who one is. With a token the server believes the token; `user.id` must then be the token's `sub`. */
  readonly user?: { readonly id?: string; readonly name?: string };
  /** Where what is held is kept across a refresh: see `rejoin-client/persist`. Nowhere unless given. */
  readonly persist?: Persistence;
  /**
   * How the bytes move. `auto`: a WebSocket, and long-polling where a network keeps those out. In Node before version
   * 22 give the class of the `ws` package.
   */
  readonly transport?: "auto" | "websocket" | "longpoll" | Transport;
  /** How long a request may go without an answer, over all repeats. 30 s unless given. What is sent has no limit. */
  readonly requestTimeoutMs?: number;
  /** How often a silent connection is probed. 20 s unless given; keep it below half of the server's limit. */
  readonly heartbeatIntervalMs?: number;
  /** The longest wait between two tries to connect. 10 s unless given. */
  readonly maxReconnectMs?: number;
}

/** A connection to a Rejoin server: `ws://` or `wss://` and the path of its socket, or the path alone in a page. */
export class Rejoin implements Readable<ConnectionSnapshot> {
  readonly #url: string;
  readonly #user: RejoinOptions["user"];
  readonly #tokens: Tokens;
  readonly #connection: Connection;
  readonly #persist: Persistence | undefined;
  readonly #requestTimeoutMs: number;
  readonly #sessions = new Sessions();
  #list: SessionList | null = null;

  constructor(url: string, options: RejoinOptions = {}) {
    this.#url = url;
    this.#user = options.user;
    this.#tokens = new Tokens(options.token, options.user?.id, (token) => void this.#renew(token));
    this.#persist = options.persist;
    this.#requestTimeoutMs = options.requestTimeoutMs ?? 30_000;
    this.#connection = new Connection({
      url,
      params: () => userParams(options.user),
      tokens: this.#tokens,
      transport: options.transport ?? "auto",
      heartbeatIntervalMs: options.heartbeatIntervalMs ?? 20_000,
      maxReconnectMs: options.maxReconnectMs ?? 10_000,
    });
    this.#connection.subscribe(() => this.#topics.forEach((topic) => topic.connectionChanged()));
    this.#connection.lost.add((code) => this.#sessions.all.forEach((session) => session.connectionLost(code)));
    this.#connection.suspended.add(() => this.#sessions.all.forEach((session) => session.flush()));
  }

  /** Whether there is a connection, and what keeps it from being there. The same object until something changes. */
  get connection(): ConnectionSnapshot {
    return this.#connection.getSnapshot();
  }

  /** Who one is here, as far as that is known: `user`, or what the token says. */
  get me(): Person | null {
    const { sub, name } = this.#tokens.claims;
    const id = sub ?? this.#user?.id;
    return id === undefined ? null : { id, name: name ?? this.#user?.name ?? id };
  }

  readonly getSnapshot = (): ConnectionSnapshot => this.#connection.getSnapshot();
  readonly getServerSnapshot = (): ConnectionSnapshot => this.#connection.getServerSnapshot();
  readonly subscribe = (listener: () => void): (() => void) => this.#connection.subscribe(listener);

  /** Connects, and connects again after each drop. Joining a session does so by itself. */
  connect(): void {
    this.#connection.connect();
  }

  /** Tries to connect now, where it would be tried later or was refused. */
  retryNow(): void {
    this.#connection.retryNow();
  }

  /**
   * The session of that id: the same object for as long as it is joined, listened to or held by anybody, or has
   * something unsent. The options count the first time.
   */
  session(id: string, options: SessionOptions = {}): Session {
    const known = this.#sessions.get(id);
    if (known) return known;
    const session = new Session(this.#host(), id, options);
    this.#sessions.add(session);
    return session;
  }

  /**
   * The live list of sessions: always the same object, as a connection has one list. For another prefix make another
   * `Rejoin`.
   */
  list(options: ListOptions = {}): SessionList {
    this.#list ??= new SessionList(this.#connection, this.#requestTimeoutMs, options);
    if (this.#list.prefix !== (options.prefix ?? "")) {
      throw new RejoinError("conflict", "One list has one prefix. Make a Rejoin for each.");
    }
    return this.#list;
  }

  /**
   * Another token, or another function that gives one: of this connection, at once for all sessions, and of the ones to
   * come. For another person make another `Rejoin`.
   */
  renewToken(token: TokenSource): Promise<void> {
    this.#tokens.replace(token);
    return quiet(async () => {
      if (!this.#connection.isOpen) {
        this.#connection.retryNow();
        return;
      }
      const current = this.#tokens.fetch();
      await this.#present(typeof current === "string" ? current : await current);
    });
  }

  /** Leaves all sessions and closes. What the sessions hold stays; `join()` leads back. */
  disconnect(): void {
    this.#topics.forEach((topic) => topic.leave());
    this.#connection.close();
  }

  /** Closes, and removes everything that was kept of this person: for signing out. */
  forget(): Promise<void> {
    this.disconnect();
    return quiet(async () => this.#persist?.forget(this.#url, this.#userId()));
  }

  /** Everything that is, or may be, joined on the connection. */
  get #topics(): readonly (Session | SessionList)[] {
    return [...this.#sessions.all, ...(this.#list ? [this.#list] : [])];
  }

  #host(): Host {
    return {
      connection: this.#connection,
      requestTimeoutMs: this.#requestTimeoutMs,
      me: () => this.me,
      sessions: this.#sessions,
      keeper: (sessionId) => this.#keeper(sessionId),
    };
  }

  #keeper(sessionId: string): SessionKeeper | null | Promise<SessionKeeper | null> {
    const persist = this.#persist;
    if (!persist) return null;
    const keeper = (): SessionKeeper => persist.keeper(this.#url, this.#userId(), sessionId);
    const isKnown = !this.#tokens.isUsed || this.me !== null;
    return isKnown ? keeper() : this.#tokens.first.then(keeper);
  }

  /** What this person's records lie under: another person at the same browser finds none of them. */
  #userId(): string {
    return this.me?.id ?? "";
  }

  async #renew(token: string): Promise<void> {
    try {
      await this.#present(token);
    } catch (error) {
      this.#connection.report(asError(error, "unauthorized"));
    }
  }

  /** Shows the token on the connection that there is; one without a joined topic is shown it when it is made anew. */
  async #present(token: string): Promise<void> {
    const live = this.#topics.find((topic) => topic.isLive);
    await live?.renewToken(token);
  }
}

function userParams(user: RejoinOptions["user"]): object {
  return {
    ...(user?.id === undefined ? {} : { user_id: user.id }),
    ...(user?.name === undefined ? {} : { name: user.name }),
  };
}
