/**
 * Requests that outlive a connection.
 *
 * A request made while there is no joined channel waits for one. One that was under way when the connection broke is
 * sent again if repeating is harmless (it has an id, or asks for a state), and fails as `disconnected` if not. Knows
 * nothing of what is asked. Invariant: every request ends, at latest after `timeoutMs`, and at most `MAX_PENDING` wait.
 */
import { RejoinError, errorFrom } from "./errors.js";

/** The part of a phoenix push that is used here. */
export interface PushLike {
  receive(status: "ok" | "error" | "timeout", callback: (response: unknown) => void): PushLike;
}

/** Sends one push on the joined channel. */
export type Sender = (event: string, payload: object) => PushLike;

/** More than that and a client is repeating itself. */
export const MAX_PENDING = 500;

interface Pending {
  readonly event: string;
  readonly payload: object;
  readonly repeat: boolean;
  readonly resolve: (response: unknown) => void;
  readonly reject: (error: RejoinError) => void;
  readonly timer: ReturnType<typeof setTimeout>;
  /** Counts how often it was sent: an answer to an earlier time is not taken for this one's silence. */
  tries: number;
  waiting: boolean;
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

  /** Asks, now or once there is a channel; rejects with a `RejoinError`. */
  request(event: string, payload: object, repeat: boolean): Promise<unknown> {
    if (this.#pending.size >= MAX_PENDING) {
      return Promise.reject(new RejoinError("rate_limited", "Too many requests wait for an answer. Wait for some."));
    }
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#fail(pending, new RejoinError("timeout")), this.#timeoutMs);
      const pending: Pending = { event, payload, repeat, resolve, reject, timer, tries: 0, waiting: true };
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
      if (pending.waiting) continue;
      if (pending.repeat) pending.waiting = true;
      else this.#fail(pending, new RejoinError("disconnected"));
    }
  }

  /** Ends all of them with one error. */
  fail(error: RejoinError): void {
    this.#sender = null;
    for (const pending of [...this.#pending]) this.#fail(pending, error);
  }

  #send(pending: Pending, sender: Sender): void {
    pending.waiting = false;
    pending.tries += 1;
    const current = pending.tries;
    sender(pending.event, pending.payload)
      .receive("ok", (response) => this.#settle(pending, () => pending.resolve(response)))
      .receive("error", (response) => this.#refused(pending, current, errorFrom(response)))
      .receive("timeout", () => this.#silent(pending, current));
  }

  #refused(pending: Pending, tried: number, error: RejoinError): void {
    if (pending.tries !== tried) return;
    // A node that is about to close refuses what the next one will take; nothing has happened.
    if (error.reason === "draining") pending.waiting = true;
    else this.#fail(pending, error);
  }

  #silent(pending: Pending, tried: number): void {
    if (pending.tries !== tried || pending.waiting || !this.#pending.has(pending)) return;
    if (pending.repeat && this.#sender) this.#send(pending, this.#sender);
    else if (pending.repeat) pending.waiting = true;
    else this.#fail(pending, new RejoinError("timeout"));
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
