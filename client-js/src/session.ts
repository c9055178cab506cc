/**
 * One session: what is known of it, and what can be asked of it.
 *
 * Puts the parts together: the channel that folds, the requests that outlive a connection, the outbox, the storage.
 * Invariants: the snapshot changes only by what these parts report; there is at most one channel for a session.
 */
import { SessionChannel } from "./channel.js";
import type { Connection } from "./connection.js";
import { RejoinError } from "./errors.js";
import { turnOf, type SessionState } from "./fold.js";
import { randomId } from "./ids.js";
import type { Kept, SessionKeeper } from "./kept.js";
import { Emitter, Listeners, type Readable } from "./listeners.js";
import { Outbox, sendPayload, type OutboxStore } from "./outbox.js";
import { Requests } from "./requests.js";
import type { SendOptions, SessionEvents, SessionOptions, SessionSnapshot, SessionUpdate } from "./shapes.js";
import { emptySnapshot, ofPresence, ofState } from "./snapshot.js";
import { TurnReader } from "./turns.js";
import type { CancelReply, HistoryReply, Json, Message, Part, Person, RetryReply, SendReply, SessionEvent, Turn } from "./types.js";

/** @internal What a session needs of its client. */
export interface Host {
  readonly connection: Connection;
  readonly requestTimeoutMs: number;
  /** Who says what is said here, as far as that is known. */
  readonly me: () => Person | null;
  /** Where the session is kept; null where nothing is. It may have to wait until it is known who asks. */
  readonly keeper: (sessionId: string) => SessionKeeper | null | Promise<SessionKeeper | null>;
}

interface Deferred {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: RejoinError) => void;
}

/** Who lets go of a session may want it again at once, as a view that is drawn anew does. */
const RELEASE_AFTER_MS = 1_000;
/** So long what is being sent is waited for when nobody looks any more. */
const LINGER_MS = 30_000;

const NO_STORE: OutboxStore = { save: () => undefined, remove: () => undefined, has: () => true };

export class Session implements Readable<SessionSnapshot> {
  readonly id: string;
  readonly #host: Host;
  readonly #channel: SessionChannel;
  readonly #requests: Requests;
  readonly #outbox: Outbox;
  readonly #changed = new Listeners<[]>();
  readonly #events = new Emitter<SessionEvents>();
  #snapshot: SessionSnapshot;
  #applied: [SessionEvent, boolean][] = [];
  #keeper: SessionKeeper | null = null;
  #restoring: Promise<void> | null = null;
  /** What is held was confirmed by the server, not only found in storage. */
  #isConfirmed = false;
  #joining: Deferred | null = null;
  #history: Promise<boolean> | null = null;
  #holders = 0;
  #releaseTimer: ReturnType<typeof setTimeout> | undefined;

  /** @internal Made by `Rejoin.session`. */
  constructor(host: Host, id: string, options: SessionOptions) {
    this.#host = host;
    this.id = id;
    this.#snapshot = { ...emptySnapshot(id), connection: host.connection.getSnapshot().status };
    this.#requests = new Requests(host.requestTimeoutMs);
    this.#channel = this.#makeChannel(options);
    this.#outbox = new Outbox(this.#requests, this.#store(), host.me, () => this.#showOutbox());
    this.#restore();
  }

  /** Everything that is known now. The same object until something changes. */
  get snapshot(): SessionSnapshot {
    return this.#snapshot;
  }

  readonly getSnapshot = (): SessionSnapshot => this.#snapshot;
  readonly subscribe = (listener: () => void): (() => void) => this.#changed.add(listener);

  /** Calls `listener` for each event of that name, once the snapshot has it; the function returned stops that. */
  on<Name extends keyof SessionEvents>(name: Name, listener: (...args: SessionEvents[Name]) => void): () => void {
    return this.#events.on(name, listener);
  }

  /**
   * Joins, and stays: after a drop the session joins again by itself, with what it missed. Resolves at the first
   * success, rejects if the server refuses for good. Calling it again while it lasts gives the same promise.
   */
  join(): Promise<void> {
    const { connection } = this.#host;
    const isShutOut = connection.getSnapshot().status === "refused";
    if (this.#joining && !isShutOut) return this.#joining.promise;
    const wasOpen = this.#joining !== null;
    const joining = deferred();
    this.#joining = joining;
    this.#set({ status: "joining", error: null });
    connection.connect();
    const open = (): void => {
      if (this.#joining === joining && !wasOpen) this.#open();
    };
    if (this.#restoring) void this.#restoring.then(open);
    else open();
    return joining.promise;
  }

  /** Leaves. What is held stays, so that a later join brings only what was missed. Turns go on without you. */
  leave(): void {
    this.#end("idle", new RejoinError("left"));
  }

  /**
   * Joins for as long as somebody holds the session: call the function returned when it is not needed any more. What
   * is being sent is waited for before the session is left.
   */
  hold(): () => void {
    this.#holders += 1;
    clearTimeout(this.#releaseTimer);
    void this.join();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#holders -= 1;
      if (this.#holders === 0) this.#releaseAt(performance.now() + LINGER_MS);
    };
  }

  /**
   * Says something: at once in the outbox, and in the log as soon as there is a connection, under one id however often
   * it has to be sent. Resolves when it is durable, rejects when the server refuses it; it then stays in the outbox.
   */
  send(content: string | readonly Part[], options: SendOptions = {}): Promise<SendReply> {
    const isGone = this.#snapshot.status === "deleted";
    if (!isGone) void this.join();
    const sent = this.#outbox.add(sendPayload(options.id ?? randomId(), content, options));
    if (isGone) this.#outbox.fail(new RejoinError("not_found", "The session was deleted. Join it to make a new one."));
    return sent;
  }

  /** Sends again what was refused, under the same id. */
  resend(messageId: string): void {
    void this.join();
    this.#outbox.retry(messageId);
  }

  /** Takes back what was refused or has never left. False where it is too late: it may be in the log. */
  discard(messageId: string): boolean {
    return this.#outbox.discard(messageId);
  }

  /** Stops a turn. Resolves when it has ended, with how: it may have reached its own end first. */
  async cancel(turnId: string): Promise<CancelReply> {
    return (await this.#ask("cancel", { turn_id: turnId }, true)) as CancelReply;
  }

  /**
   * Asks again what an ended turn was asked. While an attempt is under way, that one is the answer, also where it is
   * this very retry whose first answer was lost.
   */
  async retry(turnId: string): Promise<RetryReply> {
    return (await this.#ask("retry", { turn_id: turnId }, () => this.#retryOf(turnId))) as RetryReply;
  }

  /** The turn of that id, to be read from its start to its end. */
  turn(turnId: string): TurnReader {
    return new TurnReader(this.#turnSource(), turnId);
  }

  /** The turn of a message: of an answer the one that wrote it, of a prompt the newest one that answers it. */
  turnOf(message: Message): Turn | null {
    return turnOf(this.#snapshot, message);
  }

  /** Loads older messages. Resolves with whether there are still older ones. */
  history(limit?: number): Promise<boolean> {
    this.#history ??= this.#loadOlder(limit).finally(() => {
      this.#history = null;
    });
    return this.#history;
  }

  /** Changes title, metadata or how many turns may run at once. */
  async update(changes: SessionUpdate): Promise<void> {
    await this.#ask("update", changes, true);
  }

  /** Sends something to everyone else here, past the log: now, or not at all (`disconnected`). */
  async broadcast(event: string, payload: Json = {}): Promise<void> {
    if (!this.#channel.isLive) throw new RejoinError("disconnected", "There is no connection to broadcast on.");
    await this.#ask("broadcast", { event, payload }, false);
  }

  /** Replaces this connection's own presence fields, now and after each later join. */
  async setPresence(fields: Readonly<Record<string, Json>>): Promise<void> {
    if (this.#channel.show(fields)) await this.#ask("presence", fields, true);
  }

  /** @internal Renews the identity of the whole connection. */
  renewToken(token: string): Promise<unknown> {
    return this.#ask("access_token", { token }, true);
  }

  /** @internal Whether a push would be sent at once. */
  get isLive(): boolean {
    return this.#channel.isLive;
  }

  /** @internal The connection is as it was not before. */
  connectionChanged(): void {
    const { status, error } = this.#host.connection.getSnapshot();
    this.#set({ connection: status });
    if (!this.#joining) return;
    // Once the connection is let in again, the session is joined again.
    if (status === "refused") {
      this.#set({ status: "refused", error });
      this.#joining.reject(error ?? new RejoinError("unauthorized"));
    } else if (this.#snapshot.status === "refused") this.#set({ status: "joining", error: null });
  }

  /** @internal The connection was closed with this code. */
  connectionLost(code: number | undefined): void {
    if (code === 1009) this.#requests.blameLargest();
  }

  /** @internal Writes to storage what is to be kept. */
  flush(): void {
    this.#keeper?.flush();
  }

  #open(): void {
    this.#channel.open();
    this.#outbox.resume();
  }

  #ask(event: string, payload: object, repeat: boolean | (() => unknown)): Promise<unknown> {
    if (!this.#joining) {
      const text = `The session ${this.id} is not joined. Call join() first.`;
      return Promise.reject(new RejoinError("left", text));
    }
    return this.#requests.request(event, payload, { repeat });
  }

  #makeChannel({ create, presence }: SessionOptions): SessionChannel {
    const socket = (): Connection["socket"] => this.#host.connection.socket;
    return new SessionChannel(socket, { topic: `session:${this.id}`, create, presence }, {
      joined: (reset) => this.#onJoined(reset),
      caughtUp: () => this.#onCaughtUp(),
      applied: (event, isReplayed) => this.#applied.push([event, isReplayed]),
      changed: () => this.#onChanged(),
      presence: (entries) => this.#set(ofPresence(entries)),
      broadcast: (message) => this.#events.emit("broadcast", message),
      missed: (count) => this.#events.emit("missed", count),
      draining: (afterMs) => this.#host.connection.drain(afterMs),
      lost: () => this.#onLost(),
      refused: (error) => this.#onRefused(error),
      deleted: () => this.#onDeleted(),
    });
  }

  #onJoined(reset: string | null): void {
    this.#isConfirmed = true;
    this.#set({ status: "joined", error: null, ...ofState(this.#channel.state, this.#snapshot) });
    if (reset !== null) this.#events.emit("reset", reset);
  }

  /** Only now is it known what became of what was under way when the connection broke. */
  #onCaughtUp(): void {
    this.#requests.open((event, payload) => this.#channel.push(event, payload));
    const fields = this.#channel.staleFields;
    // A refusal is told to the next `setPresence`.
    if (fields) this.#ask("presence", fields, true).catch(() => undefined);
    this.#joining?.resolve();
  }

  #onChanged(): void {
    const state = this.#channel.state;
    this.#set(ofState(state, this.#snapshot));
    if (state) {
      this.#outbox.arrived(state.messages, state.lastSeq);
      this.#keeper?.keep(state);
    }
    for (const [event, isReplayed] of this.#applied.splice(0)) this.#tell(event, isReplayed);
  }

  #tell(event: SessionEvent, isReplayed: boolean): void {
    const context = { isReplayed };
    this.#events.emit(event.type as "message_added", event as never, context);
    this.#events.emit("event", event, context);
  }

  #onLost(): void {
    this.#requests.close();
    this.#set({ status: "joining" });
  }

  #onRefused(error: RejoinError): void {
    if (error.isFinal) this.#end("refused", error);
    else this.#set({ error });
  }

  #onDeleted(): void {
    const error = new RejoinError("not_found", "The session was deleted.");
    this.#keeper?.forget();
    this.#end("deleted", error);
  }

  #end(status: "idle" | "refused" | "deleted", error: RejoinError): void {
    if (!this.#joining) return;
    const joining = this.#joining;
    this.#joining = null;
    this.#keeper?.flush();
    this.#channel.close();
    if (status === "refused") this.#onShutOut(error);
    this.#set({ status, error: status === "refused" ? error : null, people: [], agents: [] });
    this.#requests.fail(error);
    if (status !== "idle") this.#outbox.fail(error);
    joining.reject(error);
  }

  /** Who may not see a session is not shown what an earlier page has kept of it. */
  #onShutOut(error: RejoinError): void {
    if (error.reason !== "unauthorized" && error.reason !== "not_found") return;
    this.#keeper?.forget();
    if (this.#isConfirmed) return;
    this.#channel.forget();
    this.#set(ofState(null));
  }

  #releaseAt(limitMs: number): void {
    this.#releaseTimer = setTimeout(() => {
      if (this.#outbox.isBusy && performance.now() < limitMs) this.#releaseAt(limitMs);
      else this.leave();
    }, RELEASE_AFTER_MS);
  }

  /** The attempt that a retry has made already, or that makes one needless. */
  #retryOf(turnId: string): RetryReply | undefined {
    const { turns, ended } = this.#snapshot;
    const known = [...turns, ...ended.values()];
    const made = known.find((turn) => turn.retry_of === turnId);
    return made && { turn_id: made.id, attempt: made.attempt, duplicate: true };
  }

  async #loadOlder(limit?: number): Promise<boolean> {
    for (;;) {
      const { state, generation } = this.#channel;
      if (!state?.hasMore || state.before === null) return false;
      const question = { before: state.before, ...(limit === undefined ? {} : { limit }) };
      const reply = (await this.#ask("history", question, true)) as HistoryReply;
      if (!this.#channel.addHistory(reply, generation)) continue;
      this.#set(ofState(this.#channel.state, this.#snapshot));
      return this.#snapshot.hasMore;
    }
  }

  #turnSource(): ConstructorParameters<typeof TurnReader>[0] {
    const end = (): RejoinError | null => {
      if (this.#joining) return null;
      return this.#snapshot.error ?? new RejoinError(this.#snapshot.status === "deleted" ? "not_found" : "left");
    };
    const { subscribe } = this;
    const channel = this.#channel;
    return {
      get state(): SessionState | null {
        return channel.state;
      },
      get isCaughtUp(): boolean {
        return channel.isCaughtUp;
      },
      get end(): RejoinError | null {
        return end();
      },
      subscribe,
    };
  }

  #store(): OutboxStore {
    const keeper = (): OutboxStore => this.#keeper ?? NO_STORE;
    return { save: (entry) => keeper().save(entry), remove: (id) => keeper().remove(id), has: (id) => keeper().has(id) };
  }

  /** Takes up what an earlier page has kept: at once where that is possible, and before the first join in any case. */
  #restore(): void {
    const load = (keeper: SessionKeeper | null): void | Promise<void> => {
      this.#keeper = keeper;
      const kept = keeper?.load();
      if (kept instanceof Promise) return kept.then((found) => this.#onKept(found));
      if (kept) this.#onKept(kept);
    };
    const keeper = this.#host.keeper(this.id);
    const loading = keeper instanceof Promise ? keeper.then(load) : load(keeper);
    if (!(loading instanceof Promise)) return;
    this.#restoring = loading
      .catch(() => undefined)
      .finally(() => {
        this.#restoring = null;
      });
  }

  #onKept({ state, entries }: Kept): void {
    if (state) {
      this.#channel.restore(state);
      this.#set(ofState(this.#channel.state, this.#snapshot));
    }
    this.#outbox.restore(entries);
    if (state) this.#outbox.arrived(state.messages, state.lastSeq);
  }

  #showOutbox(): void {
    const { state } = this.#channel;
    if (this.#snapshot.outbox !== this.#outbox.messages) this.#set({ outbox: this.#outbox.messages });
    else if (state) this.#outbox.arrived(state.messages, state.lastSeq);
  }

  #set(change: Partial<SessionSnapshot>): void {
    const keys = Object.keys(change) as (keyof SessionSnapshot)[];
    if (keys.every((key) => change[key] === this.#snapshot[key])) return;
    this.#snapshot = { ...this.#snapshot, ...change };
    this.#changed.emit();
  }
}

function deferred(): Deferred {
  let resolve: () => void = () => undefined;
  let reject: (error: RejoinError) => void = () => undefined;
  const promise = new Promise<void>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  // A join may fail long after the one who asked has stopped waiting; the snapshot says so too.
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}
