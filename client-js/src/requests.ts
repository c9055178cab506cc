/**
 * Requests that outlive a connection.
 *
 * A request made while there is no joined channel waits for one. One that was under way when the connection broke is
 * sent again if repeating is harmless (it has an id, or asks for a state), is looked up where that tells whether it has
 * happened, and fails as `disconnected` otherwise. Knows nothing of what is asked. Invariant: every request ends, at
 * latest after its limit, and at most `MAX_PENDING` wait; only what is kept elsewhere (the outbox) has no limit.
 */
import { RejoinError, errorFrom } from "./errors.js";

/** The part of a phoenix push that is used here. */
export interface PushLike {
  receive(status: "ok" | "error" | "timeout", callback: (response: unknown) => void): PushLike;
}

/** Sends one push on the joined channel. */
export type Sender = (event: string, payload: object) => PushLike;

export interface RequestOptions {
  /**
   * What to do where it was sent and not answered: true repeats it, false gives up, and a function is asked first
   * whether it has happened: what it gives, unless that is undefined, is the answer.
   */
  readonly repeat: boolean | (() => unknown);
  /** Null: for as long as it takes. */
  readonly timeoutMs?: number | null;
  /** Told whether it is on its way or waits for a connection. */
  readonly onSending?: (isSending: boolean) => void;
}

/** More than that and a client is repeating itself. */
export const MAX_PENDING = 500;

/** A connection that breaks again and again under a large request most likely breaks because of it. */
const LARGE_CHARS = 64 * 1024;
const MAX_LOSSES = 3;

interface Pending {
  readonly event: string;
  readonly payload: object;
  readonly options: RequestOptions;
  readonly resolve: (response: unknown) => void;
  readonly reject: (error: RejoinError) => void;
  readonly timer: ReturnType<typeof setTimeout> | undefined;
  /** Counts how often it was sent: an answer to an earlier time is not taken for this one's silence. */
  tries: number;
  waiting: boolean;
  /** How often a connection broke while it was on its way; the last time, if it has not been sent since. */
  losses: number;
  lostNow: boolean;
}

export class Requests {
  readonly #timeoutMs: number;
  readonly #pending = new Set<Pending>();
  #sender: Sender | null = null;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** How many have no answer yet. */
  get size(): number {
    return this.#pending.size;
  }

  /** Whether there is a channel. */
  isOpen(): boolean {
    return this.#sender !== null;
  }

  /** Asks, now or once there is a channel; rejects with a `RejoinError`. */
  request(event: string, payload: object, options: RequestOptions): Promise<unknown> {
    if (this.#pending.size >= MAX_PENDING) {
      return Promise.reject(new RejoinError("rate_limited", "Too many requests wait. Wait for some."));
    }
    const limitMs = options.timeoutMs === undefined ? this.#timeoutMs : options.timeoutMs;
    return new Promise((resolve, reject) => {
      const expire = (): void => this.#fail(pending, new RejoinError("timeout"));
      const timer = limitMs === null ? undefined : setTimeout(expire, limitMs);
      const pending: Pending = { event, payload, options, resolve, reject, timer, tries: 0, waiting: true, losses: 0, lostNow: false };
      this.#pending.add(pending);
      if (this.#sender) this.#send(pending, this.#sender);
    });
  }

  /** There is a joined channel: sends what waits, in the order in which it was asked. */
  open(sender: Sender): void {
    this.close();
    this.#sender = sender;
    for (const pending of [...this.#pending]) if (pending.waiting) this.#send(pending, sender);
  }

  /** The channel is gone; what was under way will not be answered there any more. */
  close(): void {
    if (!this.#sender) return;
    this.#sender = null;
    for (const pending of [...this.#pending]) {
      pending.lostNow = !pending.waiting;
      if (pending.lostNow) this.#interrupted(pending);
    }
  }

  /** The connection was closed because of a message that is too large: the largest that was under way is to blame. */
  blameLargest(): void {
    const lost = [...this.#pending].filter((pending) => pending.lostNow);
    const [largest] = lost.sort((a, b) => size(b) - size(a));
    if (largest) this.#fail(largest, new RejoinError("too_large"));
  }

  /** Ends all of them with one error. */
  fail(error: RejoinError): void {
    this.#sender = null;
    for (const pending of [...this.#pending]) this.#fail(pending, error);
  }

  #interrupted(pending: Pending): void {
    pending.losses += 1;
    const isPoison = pending.losses >= MAX_LOSSES && size(pending) > LARGE_CHARS;
    if (pending.options.repeat === false || isPoison) this.#fail(pending, new RejoinError("disconnected"));
    else this.#wait(pending);
  }

  #wait(pending: Pending): void {
    pending.waiting = true;
    pending.options.onSending?.(false);
  }

  #send(pending: Pending, sender: Sender): void {
    const { repeat, onSending } = pending.options;
    const known: unknown = pending.tries > 0 && typeof repeat === "function" ? repeat() : undefined;
    if (known !== undefined) {
      this.#settle(pending, () => pending.resolve(known));
      return;
    }
    pending.waiting = false;
    pending.lostNow = false;
    pending.tries += 1;
    const current = pending.tries;
    onSending?.(true);
    sender(pending.event, pending.payload)
      .receive("ok", (response) => this.#settle(pending, () => pending.resolve(response)))
      .receive("error", (response) => this.#refused(pending, current, errorFrom(response)))
      .receive("timeout", () => this.#silent(pending, current));
  }

  #refused(pending: Pending, tried: number, error: RejoinError): void {
    if (pending.tries !== tried) return;
    // A node that is about to close refuses what the next one will take; nothing has happened.
    if (error.reason === "draining") this.#wait(pending);
    else this.#fail(pending, error);
  }

  #silent(pending: Pending, tried: number): void {
    if (pending.tries !== tried || pending.waiting || !this.#pending.has(pending)) return;
    if (pending.options.repeat === false) this.#fail(pending, new RejoinError("timeout"));
    else if (this.#sender) this.#send(pending, this.#sender);
    else this.#wait(pending);
  }

  #fail(pending: Pending, error: RejoinError): void {
    this.#settle(pending, () => pending.reject(error));
  }

  #settle(pending: Pending, settle: () => void): void {
    if (!this.#pending.delete(pending)) return;
    clearTimeout(pending.timer);
    settle();
  }
}

function size({ payload }: Pending): number {
  return JSON.stringify(payload).length;
}
