/**
 * The one connection: when it is made, what its loss means, and when the next one is tried.
 *
 * phoenix's Socket carries it and rejoins its channels; when to connect is decided here alone, because phoenix would do
 * it by a fixed ladder and with the token of before. Knows no session. Invariants: at most one attempt is under way;
 * after a loss the Socket is at rest until the next attempt; what the server refuses is not tried again by itself.
 */
import { LongPoll, type Socket } from "phoenix";
import { fullJitter } from "./backoff.js";
import { diagnose } from "./diagnose.js";
import { RejoinError, asError } from "./errors.js";
import { Listeners, Store, type Readable } from "./listeners.js";
import { isOnline, watchPage } from "./page.js";
import type { ConnectionSnapshot, ConnectionStatus } from "./shapes.js";
import {
  firstTransport,
  makeSocket,
  ping,
  rememberLongPoll,
  showToken,
  type SocketOptions,
} from "./socket.js";

export interface ConnectionOptions extends SocketOptions {
  readonly maxReconnectMs: number;
}

/** A WebSocket that is neither open nor closed after this long counts as kept out. */
const OPEN_LIMIT_MS = 6_000;
/** An answer that does not come within this means that the connection is dead, where something hints at it. */
const PING_LIMIT_MS = 5_000;
/** A connection that lasted this long was a good one: the next loss begins to count anew. */
const STABLE_MS = 5_000;
/** So many connections in a row that the server ended for a broken rule, none of them stable, are enough. */
const MAX_POLICY_CLOSES = 5;
const POLICY = 1008;

/** As it is before anybody has asked for it. */
const UNKNOWN: ConnectionSnapshot = { status: "closed", error: null, failures: 0, retryAt: null, transport: "websocket" };

type Phase = "rest" | "token" | "opening" | "open";

export class Connection implements Readable<ConnectionSnapshot> {
  readonly #options: ConnectionOptions;
  readonly #store: Store<ConnectionSnapshot>;
  /** Told before anything else of a loss, with the code of its close. */
  readonly lost = new Listeners<[number | undefined]>();
  readonly suspended = new Listeners<[]>();
  #socket: Socket | null = null;
  #unwatch: (() => void) | null = null;
  #phase: Phase = "rest";
  /** Counts attempts: what belongs to an earlier one is not heard. */
  #attempt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pingTimer: ReturnType<typeof setTimeout> | undefined;
  #openedAt = 0;
  #everOpen = false;
  #policyCloses = 0;
  #tokenDoubted = false;
  /** What a server that is closing asked for; taken by the next try. */
  #drainAfterMs: number | null = null;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#store = new Store(UNKNOWN, { transport: firstTransport(options.transport) });
  }

  readonly getSnapshot = (): ConnectionSnapshot => this.#store.snapshot;
  readonly getServerSnapshot = (): ConnectionSnapshot => UNKNOWN;
  readonly subscribe = (listener: () => void): (() => void) => this.#store.subscribe(listener);

  get isOpen(): boolean {
    return this.#phase === "open";
  }

  /** Made when it is first wanted: a page that is rendered on a server makes none. */
  get socket(): Socket {
    return (this.#socket ??= this.#makeSocket());
  }

  /** Connects, and connects again after each loss. Where that is so already, nothing happens. */
  connect(): void {
    const { status } = this.#store.snapshot;
    if (status !== "closed" && status !== "refused") return;
    this.#unwatch ??= this.#watch();
    this.#policyCloses = 0;
    this.#tokenDoubted = false;
    this.#store.set({ failures: 0 });
    this.#try();
  }

  /** Tries now what would be tried later; with another token also what was refused. */
  retryNow(): void {
    if (this.#store.snapshot.status === "refused") this.connect();
    else if (this.#store.snapshot.status !== "closed" && this.#phase === "rest") this.#try();
  }

  /** Closes, until `connect`. */
  close(): void {
    this.#unwatch?.();
    this.#unwatch = null;
    this.#rest();
    this.#store.set({ status: "closed", error: null, failures: 0, retryAt: null });
  }

  /** The server will close the connection, and asks to stay away for that long. */
  drain(reconnectAfterMs: number): void {
    this.#drainAfterMs = Math.max(0, reconnectAfterMs);
  }

  /** The identity could not be renewed: the connection lasts as long as the old one does. */
  report(error: RejoinError): void {
    this.#store.set({ error });
  }

  #try(): void {
    clearTimeout(this.#timer);
    const attempt = ++this.#attempt;
    const current = (): boolean => attempt === this.#attempt;
    this.#phase = "token";
    this.#store.set({ status: this.#downStatus(), retryAt: null });
    const failed = (error: unknown): void => {
      if (current()) this.#noToken(asError(error, "unavailable"));
    };
    try {
      const token = this.#options.tokens.fetch();
      if (typeof token === "string") this.#open(attempt);
      else token.then(() => current() && this.#open(attempt), failed);
    } catch (error) {
      failed(error);
    }
  }

  #open(attempt: number): void {
    this.#phase = "opening";
    showToken(this.socket, this.#options.tokens);
    this.socket.connect();
    if (this.#store.snapshot.transport === "longpoll") return;
    this.#timer = setTimeout(() => {
      if (attempt === this.#attempt && this.#phase === "opening") this.#onLost(undefined);
    }, OPEN_LIMIT_MS);
  }

  #onOpen(): void {
    if (this.#phase !== "opening") return;
    clearTimeout(this.#timer);
    this.#phase = "open";
    this.#openedAt = performance.now();
    this.#everOpen = true;
    this.#drainAfterMs = null;
    this.#tokenDoubted = false;
    this.#options.tokens.watch();
    this.#store.set({ status: "open", error: null, retryAt: null });
  }

  /** The function that gives tokens failed: it is asked again later, unless it says that there is none for this user. */
  #noToken(error: RejoinError): void {
    this.#phase = "rest";
    if (error.isFinal) this.#refuse(error);
    else this.#later(error);
  }

  #onLost(code: number | undefined, reason?: string): void {
    if (this.#phase !== "open" && this.#phase !== "opening") return;
    const wasOpen = this.#phase === "open";
    const wasStable = wasOpen && performance.now() - this.#openedAt >= STABLE_MS;
    this.lost.emit(code);
    this.#rest();
    if (wasStable) {
      this.#policyCloses = 0;
      this.#store.set({ failures: 0 });
    }
    if (!wasOpen && code === POLICY && reason === "forbidden") this.#onRefused();
    else if (wasOpen && code === POLICY && ++this.#policyCloses >= MAX_POLICY_CLOSES) {
      this.#refuse(new RejoinError("rate_limited", "The server ends each connection for a broken rule. Log in again."));
    } else {
      this.#later(new RejoinError("disconnected", "There is no connection. It is tried again."));
      if (!wasOpen) void this.#ask();
    }
  }

  /** A WebSocket did not open: whether it never will is worth a question, but not at every try. */
  async #ask(): Promise<void> {
    const { failures, transport } = this.#store.snapshot;
    const isDue = (failures === 1 && !this.#everOpen) || failures % 4 === 2 || this.#tokenDoubted;
    if (transport === "longpoll" || !isDue) return;
    const attempt = this.#attempt;
    const answer = await diagnose(this.socket.endPointURL(), this.#options.tokens.current);
    const isIdle = this.#phase === "rest" || this.#phase === "opening";
    if (this.#store.snapshot.status === "closed" || !isIdle || this.#attempt > attempt + 1) return;
    if (answer === "refused") {
      this.#rest();
      this.#onRefused();
    } else if (answer === "reachable" && this.#options.transport === "auto") {
      this.#rest();
      this.#useLongPoll();
      this.#try();
    }
  }

  /** The server said no. A token may have been just too old: one that can be had anew is asked for once. */
  #onRefused(): void {
    const error = new RejoinError("unauthorized");
    if (this.#tokenDoubted || !this.#options.tokens.canRenew) {
      this.#refuse(error);
      return;
    }
    this.#tokenDoubted = true;
    this.#later(error);
  }

  #refuse(error: RejoinError): void {
    clearTimeout(this.#timer);
    this.#attempt += 1;
    this.#store.set({ status: "refused", error, retryAt: null });
  }

  #later(error: RejoinError): void {
    clearTimeout(this.#timer);
    const failures = this.#store.snapshot.failures + 1;
    const afterMs = this.#drainAfterMs ?? fullJitter(failures, this.#options.maxReconnectMs);
    this.#drainAfterMs = null;
    this.#timer = setTimeout(() => this.#try(), afterMs);
    this.#store.set({ status: this.#downStatus(), error, failures, retryAt: Date.now() + afterMs });
  }

  /** Ends what is under way, and leaves the Socket so that it does nothing by itself. */
  #rest(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#pingTimer);
    this.#attempt += 1;
    this.#phase = "rest";
    this.#options.tokens.rest();
    this.#socket?.disconnect();
  }

  #useLongPoll(): void {
    this.socket.replaceTransport(LongPoll);
    rememberLongPoll();
    this.#store.set({ transport: "longpoll" });
  }

  /** Asks the server for a sign of life, where something hints that the connection may be dead. */
  #ping(): void {
    if (this.#phase !== "open" || this.#store.snapshot.transport === "longpoll") return;
    const attempt = this.#attempt;
    clearTimeout(this.#pingTimer);
    const timer = setTimeout(() => {
      if (attempt === this.#attempt) this.#onLost(undefined);
    }, PING_LIMIT_MS);
    this.#pingTimer = timer;
    ping(this.socket, () => clearTimeout(timer));
  }

  #watch(): () => void {
    return watchPage({
      online: () => (this.#phase === "open" ? this.#ping() : this.#again()),
      offline: () => (this.#phase === "open" ? this.#ping() : this.#store.set({ status: this.#downStatus() })),
      shown: () => (this.#phase === "open" ? this.#ping() : this.retryNow()),
      hidden: () => this.suspended.emit(),
      suspend: () => this.#suspend(),
      resume: () => this.retryNow(),
    });
  }

  /** There is a network again: what failed before says nothing any more. */
  #again(): void {
    this.#store.set({ status: this.#downStatus(), failures: 0 });
    this.retryNow();
  }

  /** A page that is kept aside must hold no connection; whoever comes back to it connects anew. */
  #suspend(): void {
    this.suspended.emit();
    if (this.#store.snapshot.status === "closed" || this.#store.snapshot.status === "refused") return;
    if (this.#phase === "open") this.lost.emit(undefined);
    this.#rest();
    this.#store.set({ status: this.#downStatus() });
  }

  #downStatus(): ConnectionStatus {
    const { status } = this.#store.snapshot;
    if (status === "refused" && this.#phase === "rest") return status;
    return isOnline() ? "connecting" : "offline";
  }

  #makeSocket(): Socket {
    const socket = makeSocket(this.#options, this.#store.snapshot.transport, () => {
      const attempt = this.#attempt;
      queueMicrotask(() => attempt === this.#attempt && this.#onLost(undefined));
    });
    socket.onOpen(() => this.#onOpen());
    socket.onClose(({ code, reason }) => this.#onLost(code, reason));
    return socket;
  }
}
