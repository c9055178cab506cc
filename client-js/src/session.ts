/**
 * One session: what is known of it, and what can be asked of it.
 *
 * Puts the parts together: the channel that folds, the requests that outlive a connection, the outbox, the storage.
 * Invariants: the snapshot changes only by what these parts report; there is at most one channel for a session.
 */
import { SessionChannel } from "./channel.js";
import type { Connection } from "./connection.js";
import { RejoinError } from "./errors.js";
import { turnOf } from "./fold.js";
import { randomId } from "./ids.js";
import type { Kept, SessionKeeper } from "./kept.js";
import { Emitter, Store, type Readable } from "./listeners.js";
import { Membership } from "./membership.js";
import { Outbox, sendPayload } from "./outbox.js";
import { quiet } from "./quiet.js";
import { Requests } from "./requests.js";
import type { SendOptions, SessionEvents, SessionOptions, SessionSnapshot, SessionUpdate } from "./shapes.js";
import type { Sessions } from "./sessions.js";
import { emptySnapshot, ofPresence, ofState } from "./snapshot.js";
import { TurnReader, type TurnSource } from "./turns.js";
import { Vault } from "./vault.js";
import type {
  CancelReply,
  HistoryReply,
  Json,
  Message,
  Part,
  Person,
  RetryReply,
  SendReply,
  SessionEvent,
  Turn,
} from "./types.js";

/** @internal What a session needs of its client. */
export interface Host {
  readonly connection: Connection;
  readonly requestTimeoutMs: number;
  /** Who says what is said here, as far as that is known. */
  readonly me: () => Person | null;
  /** Told when a session is about to be used: it is not let go of before `isUsed` says that it may be. */
  readonly sessions: Sessions;
  /** Where the session is kept; null where nothing is. It may have to wait until it is known who asks. */
  readonly keeper: (sessionId: string) => SessionKeeper | null | Promise<SessionKeeper | null>;
}

export class Session implements Readable<SessionSnapshot> {
  readonly id: string;
  readonly #host: Host;
  readonly #channel: SessionChannel;
  readonly #requests: Requests;
  readonly #outbox: Outbox;
  readonly #vault = new Vault();
  readonly #membership: Membership;
  readonly #store: Store<SessionSnapshot>;
  readonly #events = new Emitter<SessionEvents>();
  /** @internal Those for whom it has to be there, by what ends their listening. */
  readonly users = new Set<() => void>();
  #applied: [SessionEvent, boolean][] = [];
  /** What is held was confirmed by the server, not only found in storage. */
  #isConfirmed = false;
  #history: Promise<boolean> | null = null;
  /** Why the last membership ended. */
  #ended = new RejoinError("left");

  /** @internal Made by `Rejoin.session`. */
  constructor(host: Host, id: string, options: SessionOptions) {
    this.#host = host;
    this.id = id;
    this.#store = new Store(emptySnapshot(id), { connection: host.connection.getSnapshot().status });
    this.#requests = new Requests(host.requestTimeoutMs);
    this.#channel = this.#makeChannel(options);
    this.#outbox = new Outbox(this.#requests, this.#vault, host.me, () => this.#show());
    const vault = this.#vault;
    this.#membership = new Membership(host.connection, {
      get ready(): Promise<void> | null {
        return vault.ready;
      },
      show: (change) => {
        host.sessions.keep(this);
        this.#store.set(change);
      },
      open: () => this.#channel.open(),
      isBusy: () => this.#outbox.isBusy,
      leave: () => this.leave(),
    });
    this.#vault.open(host.keeper(id), (kept) => this.#onKept(kept));
  }

  /** Everything that is known now. The same object until something changes. */
  get snapshot(): SessionSnapshot {
    return this.#store.snapshot;
  }

  readonly getSnapshot = (): SessionSnapshot => this.#store.snapshot;
  readonly getServerSnapshot = (): SessionSnapshot => this.#store.initial;
  readonly subscribe = (listener: () => void): (() => void) => this.#used(this.#store.subscribe(listener));

  /** Who one is here, as far as that is known. */
  get me(): Person | null {
    return this.#host.me();
  }

  /** Calls `listener` for each event of that name, once the snapshot has it; the function returned stops that. */
  on<Name extends keyof SessionEvents>(name: Name, listener: (...args: SessionEvents[Name]) => void): () => void {
    return this.#used(this.#events.on(name, listener));
  }

  /**
   * Joins, and stays: after a drop the session joins again by itself, with what it missed. Resolves at the first
   * success, rejects if the server refuses for good. Calling it again while it lasts gives the same promise.
   */
  join(): Promise<void> {
    return this.#membership.stay();
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
    return this.#membership.hold();
  }

  /**
   * Says something: at once in the outbox, and in the log as soon as there is a connection, under one id however often
   * it has to be sent. Resolves when it is durable, rejects when the server refuses it; it then stays in the outbox.
   * Joins the session for that if it is not joined, and connects, also after `leave` or `disconnect`.
   */
  send(content: string | readonly Part[], options: SendOptions = {}): Promise<SendReply> {
    if (content.length === 0) return refused(new RejoinError("invalid", "Nothing to send. Write something."));
    const isGone = this.#store.snapshot.status === "deleted";
    if (!isGone) void this.#membership.join();
    const sent = this.#outbox.add(sendPayload(options.id ?? randomId(), content, options));
    if (isGone) this.#outbox.fail(this.#ended);
    return sent;
  }

  /** Sends again what was refused, under the same id. */
  resend(messageId: string): void {
    void this.#membership.join();
    this.#outbox.retry(messageId);
  }

  /** Takes back what was refused or has never left. False where it is too late: it may be in the log. */
  discard(messageId: string): boolean {
    return this.#outbox.discard(messageId);
  }

  /** Stops a turn. Resolves when it has ended, with how: it may have reached its own end first. */
  cancel(turnId: string): Promise<CancelReply> {
    return this.#ask("cancel", { turn_id: turnId }, true);
  }

  /**
   * Asks again what an ended turn was asked. While an attempt is under way, that one is the answer, also where it is
   * this very retry whose first answer was lost.
   */
  retry(turnId: string): Promise<RetryReply> {
    return this.#ask("retry", { turn_id: turnId }, () => this.#retryOf(turnId));
  }

  /** The turn of that id, to be read from its start to its end. */
  turn(turnId: string): TurnReader {
    return new TurnReader(this.#turnSource(), turnId);
  }

  /** The turn of a message: of an answer the one that wrote it, of a prompt the newest one that answers it. */
  turnOf(message: Message): Turn | null {
    return turnOf(this.#store.snapshot, message);
  }

  /** Loads older messages. Resolves with whether there are still older ones. */
  history(limit?: number): Promise<boolean> {
    return (this.#history ??= quiet(() =>
      this.#loadOlder(limit).finally(() => {
        this.#history = null;
      }),
    ));
  }

  /** Changes title, metadata or how many turns may run at once. */
  update(changes: SessionUpdate): Promise<void> {
    return quiet(async () => {
      await this.#ask("update", changes, true);
    });
  }

  /** Sends something to everyone else here, past the log: now, or not at all (`disconnected`). */
  broadcast(event: string, payload: Json = {}): Promise<void> {
    return quiet(async () => {
      if (!this.#channel.isLive) throw new RejoinError("disconnected", "There is no connection. It is tried again.");
      await this.#ask("broadcast", { event, payload }, false);
    });
  }

  /** Replaces this connection's own presence fields, now and after each later join. */
  setPresence(fields: Readonly<Record<string, Json>>): Promise<void> {
    return quiet(async () => {
      if (this.#channel.show(fields)) await this.#ask("presence", fields, true);
    });
  }

  /** @internal Renews the identity of the whole connection. */
  renewToken(token: string): Promise<unknown> {
    return this.#ask("access_token", { token }, true);
  }

  /** @internal Whether a push would be sent at once. */
  get isLive(): boolean {
    return this.#channel.isLive;
  }

  /** @internal Whether it has to be there though nobody may hold it. */
  get isUsed(): boolean {
    return this.#membership.isWanted || this.users.size > 0 || this.#outbox.messages.length > 0;
  }

  /** @internal The connection is as it was not before. */
  connectionChanged(): void {
    this.#store.set({ connection: this.#host.connection.getSnapshot().status });
    this.#membership.connectionChanged();
  }

  /** @internal The connection was closed with this code. */
  connectionLost(code: number | undefined): void {
    if (code === 1009) this.#requests.blameLargest();
  }

  /** @internal Writes to storage what is to be kept. */
  flush(): void {
    this.#vault.keeper?.flush();
  }

  #used(stop: () => void): () => void {
    const end = (): void => {
      this.users.delete(end);
      stop();
    };
    this.users.add(end);
    this.#host.sessions.keep(this);
    return end;
  }

  #ask<Reply>(event: string, payload: object, repeat: boolean | (() => unknown)): Promise<Reply> {
    const over = this.#over;
    return over ? refused(over) : quiet(() => this.#requests.request(event, payload, { repeat }) as Promise<Reply>);
  }

  /** Why nothing can be asked and nothing will come; null while something may. */
  get #over(): RejoinError | null {
    return this.#membership.isWanted ? null : this.#ended;
  }

  #makeChannel({ create, presence }: SessionOptions): SessionChannel {
    const socket = (): Connection["socket"] => this.#host.connection.socket;
    return new SessionChannel(socket, { topic: `session:${this.id}`, create, presence }, {
      joined: (reset) => this.#onJoined(reset),
      caughtUp: () => this.#onCaughtUp(),
      applied: (event, isReplayed) => this.#applied.push([event, isReplayed]),
      changed: () => this.#onChanged(),
      presence: (entries) => this.#store.set(ofPresence(entries)),
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
    this.#show({ status: "joined", error: null });
    if (reset !== null) this.#events.emit("reset", reset);
  }

  /** Only now is it known what became of what was under way when the connection broke. */
  #onCaughtUp(): void {
    this.#requests.open((event, payload) => this.#channel.push(event, payload));
    this.#outbox.resume();
    const fields = this.#channel.staleFields;
    // A refusal is told to the next `setPresence`.
    if (fields) void this.#ask("presence", fields, true);
    this.#membership.reached();
  }

  #onChanged(): void {
    this.#show();
    const { state } = this.#channel;
    if (state) this.#vault.keeper?.keep(state);
    for (const [event, isReplayed] of this.#applied.splice(0)) this.#tell(event, isReplayed);
  }

  #tell(event: SessionEvent, isReplayed: boolean): void {
    const context = { isReplayed };
    this.#events.emit(event.type as "message_added", event as never, context);
    this.#events.emit("event", event, context);
  }

  #onLost(): void {
    this.#requests.close();
    this.#store.set({ status: "joining" });
  }

  #onRefused(error: RejoinError): void {
    if (error.isFinal) this.#end("refused", error);
    else this.#store.set({ error });
  }

  #onDeleted(): void {
    const error = new RejoinError("not_found", "The session was deleted. Join it to make a new one.");
    this.#vault.keeper?.forget();
    this.#channel.stopTurns();
    this.#end("deleted", error);
    this.#show();
  }

  #end(status: "idle" | "refused" | "deleted", error: RejoinError): void {
    if (!this.#membership.end(error)) return;
    this.#ended = error;
    this.#vault.keeper?.flush();
    this.#channel.close();
    if (status === "refused") this.#onShutOut(error);
    this.#store.set({ status, error: status === "refused" ? error : null, people: [], agents: [] });
    this.#requests.fail(error);
    if (status !== "idle") this.#outbox.fail(error);
  }

  /** Who may not see a session is not shown what an earlier page has kept of it. */
  #onShutOut(error: RejoinError): void {
    if (error.reason !== "unauthorized" && error.reason !== "not_found") return;
    this.#vault.keeper?.forget();
    if (this.#isConfirmed) return;
    this.#channel.forget();
    this.#store.set(ofState(null));
  }

  /** The attempt that a retry has made already, or that makes one needless. */
  #retryOf(turnId: string): RetryReply | undefined {
    const { turns, ended } = this.#store.snapshot;
    const known = [...turns, ...ended.values()];
    const made = known.find((turn) => turn.retry_of === turnId);
    return made && { turn_id: made.id, attempt: made.attempt, duplicate: true };
  }

  async #loadOlder(limit?: number): Promise<boolean> {
    for (;;) {
      const { state, generation } = this.#channel;
      if (!state?.hasMore || state.before === null) return false;
      const question = { before: state.before, limit };
      const reply = await this.#ask<HistoryReply>("history", question, true);
      if (!this.#channel.addHistory(reply, generation)) continue;
      this.#show();
      return this.#store.snapshot.hasMore;
    }
  }

  #turnSource(): TurnSource {
    const channel = this.#channel;
    return {
      state: () => channel.state,
      isCaughtUp: () => channel.isCaughtUp,
      end: () => this.#over,
      subscribe: this.subscribe,
    };
  }

  #onKept({ state, entries }: Kept): void {
    if (state) this.#channel.restore(state);
    this.#outbox.restore(entries);
    this.#show();
  }

  /** Shows what is held and what is not in the log yet in one change: no message is ever in both, or in neither. */
  #show(change: Partial<SessionSnapshot> = {}): void {
    const { state } = this.#channel;
    if (state) this.#outbox.arrived(state.messages, state.lastSeq);
    this.#store.set({ ...change, ...ofState(state, this.#store.snapshot), outbox: this.#outbox.messages });
  }
}

function refused(error: RejoinError): Promise<never> {
  return quiet(() => Promise.reject(error));
}
