/**
 * What was said and is not in the log yet.
 *
 * An entry is there from the moment it is said. It leaves when its message is in the log or when the person takes it
 * back, and never otherwise: what is refused stays, marked with the reason. Everything is sent under an id of its own
 * as often as needed, so that nothing can be said twice. Knows no channel. Invariant: an entry is written to storage
 * before it is sent; messages are sent in the order in which they were said, whatever the clock did meanwhile.
 */
import { fullJitter } from "./backoff.js";
import { RejoinError, asError } from "./errors.js";
import type { Found, SendPayload, SessionKeeper, StoredEntry } from "./kept.js";
import { quiet } from "./quiet.js";
import type { Requests } from "./requests.js";
import type { SendOptions } from "./shapes.js";
import type { Message, Part, Person, SendReply } from "./types.js";

/**
 * - `waiting`: goes out as soon as there is a connection.
 * - `sending`: on its way.
 * - `failed`: refused, see `error`; `resend` and `discard` lead out.
 */
export type PendingStatus = "waiting" | "sending" | "failed";

/** A message that is not in the log yet, in the shape of one, so that the same view can show both. */
export interface PendingMessage {
  readonly id: string;
  readonly role: "user";
  readonly author: Person | null;
  readonly turn_id: null;
  readonly parts: readonly Part[];
  readonly created_at: string;
  readonly status: PendingStatus;
  readonly error: RejoinError | null;
}

interface Entry {
  readonly payload: SendPayload;
  readonly at: string;
  /** Its place among the others. */
  order: number;
  view: PendingMessage;
  reply: SendReply | null;
  /** It came out of storage, where another window may have dealt with it. */
  readonly restored: boolean;
  /** Its message is in the log: it is not shown any more, only its answer is awaited. */
  arrived: boolean;
  /** A request is under way or waits for a connection. */
  asked: boolean;
  tries: number;
  timer: ReturnType<typeof setTimeout> | undefined;
  readonly waiters: { readonly resolve: (reply: SendReply) => void; readonly reject: (error: RejoinError) => void }[];
}

/** How entries are kept across a refresh. */
export type OutboxStore = Pick<SessionKeeper, "save" | "remove" | "look">;

const RETRY_CAP_MS = 15_000;

export class Outbox {
  readonly #requests: Requests;
  readonly #store: OutboxStore;
  readonly #author: () => Person | null;
  readonly #onChange: () => void;
  readonly #entries = new Map<string, Entry>();
  #lastOrder = 0;
  /** The last look at storage, where that takes time: whoever is to be sent next waits for it. */
  #looking: Promise<Found> | null = null;
  #views: readonly PendingMessage[] = [];

  constructor(requests: Requests, store: OutboxStore, author: () => Person | null, onChange: () => void) {
    this.#requests = requests;
    this.#store = store;
    this.#author = author;
    this.#onChange = onChange;
  }

  /** In the order in which they were said. The same array until something changes. */
  get messages(): readonly PendingMessage[] {
    return this.#views;
  }

  /** Whether something is still to be sent. */
  get isBusy(): boolean {
    return [...this.#entries.values()].some(({ view, reply }) => view.status !== "failed" && !reply);
  }

  /** Says something; resolves when it is durable. */
  add(payload: SendPayload): Promise<SendReply> {
    const known = this.#entries.get(payload.id);
    const entry = known ?? this.#make(payload, new Date().toISOString(), (this.#lastOrder += 1), null, false);
    // What became of it is shown by the entry itself; nobody has to wait for it.
    const sent = quiet(() => new Promise<SendReply>((resolve, reject) => entry.waiters.push({ resolve, reject })));
    if (known) this.retry(payload.id);
    else {
      this.#entries.set(payload.id, entry);
      this.#save(entry);
      this.#changed();
      void this.#send(entry);
    }
    return sent;
  }

  /** What was stored, put before what has been said since; that can only be stored now. Before the first `resume`. */
  restore(stored: readonly StoredEntry[]): void {
    const newer = [...this.#entries.values()];
    const older = stored.filter(({ id }) => !this.#entries.has(id)).sort((a, b) => a.order - b.order || (a.at < b.at ? -1 : 1));
    this.#entries.clear();
    for (const { payload, at, order, error } of older) {
      const failed = error && new RejoinError(error.reason, error.message, payload.id);
      this.#entries.set(payload.id, this.#make(payload, at, order, failed, true));
      this.#lastOrder = Math.max(this.#lastOrder, order);
    }
    for (const entry of newer) {
      entry.order = this.#lastOrder += 1;
      this.#entries.set(entry.payload.id, entry);
      this.#save(entry);
    }
    if (older.length > 0) this.#changed();
  }

  /** There is a connection: sends what waits for one. */
  resume(): void {
    for (const entry of [...this.#entries.values()]) if (entry.view.status === "waiting") void this.#send(entry);
  }

  /** Sends again what failed. */
  retry(id: string): void {
    const entry = this.#entries.get(id);
    if (entry?.view.status !== "failed") return;
    entry.tries = 0;
    this.#show(entry, { status: "waiting", error: null });
    this.#save(entry);
    void this.#send(entry);
  }

  /** Takes back what failed or has never been sent. False where it is too late: it may be in the log. */
  discard(id: string): boolean {
    const entry = this.#entries.get(id);
    if (!entry || entry.reply || (entry.view.status !== "failed" && entry.tries > 0)) return false;
    this.#takeBack(entry, true);
    return true;
  }

  /** Drops what is in the log. Tells nobody: whoever shows the log calls it first, and shows both together. */
  arrived(messages: readonly Message[], lastSeq: number): void {
    if (this.#entries.size === 0) return;
    const ids = new Set(messages.map((message) => message.id));
    for (const entry of [...this.#entries.values()]) {
      const { reply, payload, restored, view } = entry;
      const isThere = ids.has(payload.id);
      if (reply ? isThere || reply.seq <= lastSeq : isThere && (restored || view.status === "failed")) this.#drop(entry);
      else entry.arrived ||= isThere;
    }
    this.#list();
  }

  /** Marks everything that is still to be sent as failed. */
  fail(error: RejoinError): void {
    for (const entry of [...this.#entries.values()]) {
      if (entry.view.status !== "failed" && !entry.reply) this.#failed(entry, error);
    }
  }

  /** Only with a connection: until then another window may send it, or take it back. */
  async #send(entry: Entry): Promise<void> {
    if (entry.asked || entry.reply || !this.#requests.isOpen()) return;
    entry.asked = true;
    clearTimeout(entry.timer);
    const { id } = entry.payload;
    let found = this.#looking ? this.#looking.then(() => this.#store.look(id)) : this.#store.look(id);
    if (found instanceof Promise) {
      const looking = (this.#looking = found);
      found = await looking;
      if (this.#looking === looking) this.#looking = null;
    }
    if (found === "discarded" || (found === "gone" && entry.restored)) {
      this.#takeBack(entry);
      return;
    }
    // Meanwhile it may have been taken back, or the connection lost: then the next one sends it.
    if (!this.#entries.has(id) || !this.#requests.isOpen()) {
      entry.asked = false;
      return;
    }
    const onSending = (isSending: boolean): void => {
      if (isSending) entry.tries += 1;
      this.#show(entry, { status: isSending ? "sending" : "waiting" });
    };
    try {
      const options = { repeat: true, timeoutMs: null, onSending };
      this.#sent(entry, (await this.#requests.request("send", entry.payload, options)) as SendReply);
    } catch (thrown) {
      this.#refused(entry, asError(thrown, "unavailable"));
    }
  }

  #sent(entry: Entry, reply: SendReply): void {
    entry.asked = false;
    entry.reply = reply;
    this.#store.remove(entry.payload.id);
    this.#settle(entry, ({ resolve }) => resolve(reply));
    this.#onChange();
  }

  #refused(entry: Entry, error: RejoinError): void {
    entry.asked = false;
    if (!this.#entries.has(entry.payload.id)) return;
    if (error.reason === "left") this.#show(entry, { status: "waiting" });
    else if (error.isPassing && error.reason !== "disconnected") this.#later(entry, error);
    else this.#failed(entry, error);
  }

  #later(entry: Entry, error: RejoinError): void {
    this.#show(entry, { status: "waiting", error });
    const afterMs = 500 + fullJitter(entry.tries, RETRY_CAP_MS);
    entry.timer = setTimeout(() => void this.#send(entry), afterMs);
  }

  #failed(entry: Entry, error: RejoinError): void {
    clearTimeout(entry.timer);
    entry.arrived = false;
    const named = error.withId(entry.payload.id);
    this.#show(entry, { status: "failed", error: named });
    this.#save(entry);
    this.#settle(entry, ({ reject }) => reject(named));
  }

  #make(payload: SendPayload, at: string, order: number, error: RejoinError | null, restored: boolean): Entry {
    const view: PendingMessage = {
      id: payload.id,
      role: "user",
      author: this.#author(),
      turn_id: null,
      parts: payload.parts ?? [{ kind: "text", text: payload.text ?? "" }],
      created_at: at,
      status: error ? "failed" : "waiting",
      error,
    };
    return { payload, at, order, view, reply: null, restored, arrived: false, asked: false, tries: 0, timer: undefined, waiters: [] };
  }

  #settle(entry: Entry, settle: (waiter: Entry["waiters"][number]) => void): void {
    entry.waiters.splice(0).forEach(settle);
  }

  #save({ payload, at, order, view, reply }: Entry): void {
    if (reply) return;
    const error = view.status === "failed" && view.error;
    this.#store.save({ id: payload.id, at, order, payload, error: error ? { reason: error.reason, message: error.message } : null });
  }

  /** `isHere`: in this window, of which the others have to come to know. */
  #takeBack(entry: Entry, isHere?: boolean): void {
    this.#drop(entry, isHere);
    this.#changed();
    this.#settle(entry, ({ reject }) => reject(new RejoinError("discarded", undefined, entry.payload.id)));
  }

  #drop(entry: Entry, isDiscarded?: boolean): void {
    clearTimeout(entry.timer);
    this.#entries.delete(entry.payload.id);
    this.#store.remove(entry.payload.id, isDiscarded);
  }

  #show(entry: Entry, change: Partial<PendingMessage>): void {
    if (!this.#entries.has(entry.payload.id)) return;
    entry.view = { ...entry.view, ...change };
    this.#changed();
  }

  #changed(): void {
    this.#list();
    this.#onChange();
  }

  #list(): void {
    const views = [...this.#entries.values()].filter((entry) => !entry.arrived).map((entry) => entry.view);
    const isSame = views.length === this.#views.length && views.every((view, index) => view === this.#views[index]);
    if (!isSame) this.#views = views;
  }
}

/** What `send` puts on the wire. */
export function sendPayload(id: string, content: string | readonly Part[], options: SendOptions): SendPayload {
  return {
    id,
    ...(typeof content === "string" ? { text: content } : { parts: content }),
    // JSON leaves out what is undefined.
    agent: options.agent,
    when_busy: options.whenBusy,
    answer: options.answer,
  };
}
