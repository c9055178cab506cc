/**
 * One session: joins its topic, folds what arrives, asks for things.
 *
 * Knows the topic's protocol and phoenix's Channel, not the socket's life. Invariants: an `events` push is applied iff
 * it continues what is held; whatever does not fit leads to a new join, first with the cursor, then without; the cursor
 * of a join is that of what is held when the join is sent. Losing the connection changes nothing that is held.
 */
import { Presence, type Channel } from "phoenix";
import { RejoinError, errorFrom } from "./errors.js";
import { addHistory, applyEvents, fromJoin, turnOf, type SessionState } from "./fold.js";
import { randomId } from "./ids.js";
import { Listeners } from "./listeners.js";
import { presenceEntry } from "./presence.js";
import { Requests } from "./requests.js";
import type { Host, SendOptions, SessionOptions, SessionSnapshot, SessionUpdate } from "./shapes.js";
import type {
  BroadcastMessage,
  CancelReply,
  EventsPush,
  HistoryReply,
  JoinReply,
  Json,
  Message,
  Part,
  PresenceEntry,
  RetryReply,
  SendReply,
  Turn,
} from "./types.js";

interface Deferred {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: RejoinError) => void;
}

/** Waits before joining anew, by how many such joins came to nothing one after another. */
const ANEW_AFTER_MS = [0, 1_000, 2_000, 5_000, 10_000] as const;

/** After so many joins with a cursor that came to nothing, the cursor itself is doubted. */
const TRUST_CURSOR_TIMES = 2;

export class Session {
  readonly id: string;
  readonly #host: Host;
  readonly #requests: Requests;
  readonly #options: SessionOptions;
  readonly #changed = new Listeners<[]>();
  readonly #broadcasts = new Listeners<[BroadcastMessage]>();
  readonly #missed = new Listeners<[number]>();

  #snapshot: SessionSnapshot = { status: "idle", error: null, state: null, presence: [] };
  #ownPresence: Readonly<Record<string, Json>> | undefined;
  /** The presence fields that went out with the join. */
  #joinedPresence: Readonly<Record<string, Json>> | undefined;
  #channel: Channel | null = null;
  #live = false;
  #trustCursor = true;
  #anewTimes = 0;
  #anewTimer: ReturnType<typeof setTimeout> | undefined;
  #joining: Deferred | null = null;
  #history: Promise<boolean> | null = null;
  /** Raised by each snapshot: what was asked about the state before it does not fit any more. */
  #generation = 0;

  /** @internal Made by `Rejoin.session`. */
  constructor(host: Host, id: string, options: SessionOptions) {
    this.#host = host;
    this.id = id;
    this.#requests = new Requests(host.requestTimeoutMs);
    this.#options = options;
    this.#ownPresence = options.presence;
  }

  /** Everything that is known now. The same object until something changes. */
  get snapshot(): SessionSnapshot {
    return this.#snapshot;
  }

  /** As `snapshot`; bound, for `useSyncExternalStore` and the like. */
  readonly getSnapshot = (): SessionSnapshot => this.#snapshot;

  /** What is held of the log; null before the first join. */
  get state(): SessionState | null {
    return this.#snapshot.state;
  }

  /** Who is here, and which agents work. */
  get presence(): readonly PresenceEntry[] {
    return this.#snapshot.presence;
  }

  /** Calls `listener` after each change; the function returned stops that. */
  readonly subscribe = (listener: () => void): (() => void) => this.#changed.add(listener);

  /** Calls `listener` with what others broadcast. */
  onBroadcast(listener: (message: BroadcastMessage) => void): () => void {
    return this.#broadcasts.add(listener);
  }

  /** Calls `listener` with the number of broadcasts that this connection was too slow for. Events are never missed. */
  onMissed(listener: (count: number) => void): () => void {
    return this.#missed.add(listener);
  }

  /**
   * Joins, and stays: after a drop the session joins again by itself, with what it missed. Resolves at the first
   * success, rejects if the server refuses for good. Calling it again while it lasts gives the same promise.
   */
  join(): Promise<void> {
    if (this.#joining) return this.#joining.promise;
    this.#joining = deferred();
    this.#set({ status: "joining", error: null });
    this.#host.connect();
    this.#connect();
    return this.#joining.promise;
  }

  /** Leaves. What is held stays, so that a later join brings only what was missed. Turns go on without you. */
  leave(): void {
    this.#end("idle", new RejoinError("left"));
  }

  /**
   * Says something. Resolves when it is durable; a lost connection in between is bridged by sending it again under the
   * same id. On an error that is `uncertain`, repeat it with the error's `id`.
   */
  async send(content: string | readonly Part[], options: SendOptions = {}): Promise<SendReply> {
    const id = options.id ?? randomId();
    const what = typeof content === "string" ? { text: content } : { parts: content };
    const payload = {
      id,
      ...what,
      ...(options.agent === undefined ? {} : { agent: options.agent }),
      ...(options.whenBusy === undefined ? {} : { when_busy: options.whenBusy }),
      ...(options.answer === undefined ? {} : { answer: options.answer }),
    };
    try {
      return (await this.#ask("send", payload)) as SendReply;
    } catch (error) {
      throw error instanceof RejoinError ? error.withId(id) : error;
    }
  }

  /** Stops a turn. Resolves when it has ended, with how. */
  async cancel(turnId: string): Promise<CancelReply> {
    return (await this.#ask("cancel", { turn_id: turnId })) as CancelReply;
  }

  /** Asks again what an ended turn was asked. While an attempt is under way, that one is the answer. */
  async retry(turnId: string): Promise<RetryReply> {
    return (await this.#ask("retry", { turn_id: turnId })) as RetryReply;
  }

  /** Loads older messages into the state. Resolves with whether there are still older ones. */
  history(limit?: number): Promise<boolean> {
    this.#history ??= this.#loadOlder(limit).finally(() => {
      this.#history = null;
    });
    return this.#history;
  }

  /** Changes title, metadata or how many turns may run at once. */
  async update(changes: SessionUpdate): Promise<void> {
    await this.#ask("update", changes);
  }

  /** Sends something to everyone else here, past the log: now, or not at all (`disconnected`). */
  async broadcast(event: string, payload: Json): Promise<void> {
    if (!this.#live) throw new RejoinError("disconnected", "There is no connection to broadcast on.");
    await this.#ask("broadcast", { event, payload }, false);
  }

  /** Replaces this connection's own presence fields, now and after each later join. */
  async setPresence(fields: Readonly<Record<string, Json>>): Promise<void> {
    this.#ownPresence = fields;
    if (this.#live) await this.#ask("presence", fields);
  }

  /** The turn of a message: see `turnOf` of the fold. */
  turnOf(message: Message): Turn | null {
    return this.state && turnOf(this.state, message);
  }

  /** @internal Renews the identity of the whole connection. */
  renewToken(token: string): Promise<unknown> {
    return this.#ask("access_token", { token });
  }

  /** @internal Whether a push would be sent at once. */
  get isLive(): boolean {
    return this.#live;
  }

  #ask(event: string, payload: object, repeat = true): Promise<unknown> {
    if (!this.#joining) {
      const text = `The session ${this.id} is not joined. Call join() first.`;
      return Promise.reject(new RejoinError("left", text));
    }
    return this.#requests.request(event, payload, repeat);
  }

  #connect(): void {
    const channel = this.#host.socket.channel(`session:${this.id}`, () => this.#joinParams());
    this.#channel = channel;
    const own =
      <Args extends unknown[]>(handler: (...args: Args) => void) =>
      (...args: Args): void => {
        if (this.#channel === channel) handler(...args);
      };
    // Before the join, or a presence that comes right behind its reply would find nobody.
    const presence = new Presence(channel);
    presence.onSync(own(() => this.#set({ presence: presence.list(presenceEntry) })));
    channel.on("events", own((push: EventsPush) => this.#onEvents(push)));
    channel.on("broadcast", own((message: BroadcastMessage) => this.#broadcasts.emit(message)));
    channel.on("missed", own(({ count }: { count: number }) => this.#missed.emit(count)));
    channel.on("draining", own((push: { reconnect_after_ms: number }) => this.#host.onDraining(push.reconnect_after_ms)));
    channel.on("deleted", own(() => this.#end("deleted", new RejoinError("not_found", "The session was deleted."))));
    channel.onError(own(() => this.#onLost()));
    channel.onClose(own(() => this.#joinAnew()));
    channel
      .join()
      .receive("ok", own((reply: JoinReply) => this.#onJoined(reply)))
      .receive("error", own((response: unknown) => this.#onRefused(errorFrom(response))));
  }

  /** Evaluated by phoenix each time that it sends the join. */
  #joinParams(): object {
    const { state } = this;
    this.#joinedPresence = this.#ownPresence;
    return {
      ...(state && this.#trustCursor ? { last_seq: state.lastSeq, epoch: state.epoch } : {}),
      ...(this.#options.create === undefined ? {} : { create: this.#options.create }),
      ...(this.#ownPresence === undefined ? {} : { presence: this.#ownPresence }),
    };
  }

  #onJoined(reply: JoinReply): void {
    const { replay, session } = reply;
    const held = this.state;
    if (replay.mode === "replay" && (replay.from !== held?.lastSeq || session.epoch !== held.epoch)) {
      // Its parameters were older than what is held: phoenix had built them before the last event came.
      this.#trustCursor = false;
      this.#joinAnew();
      return;
    }
    if (replay.mode === "snapshot") this.#generation += 1;
    this.#trustCursor = true;
    this.#live = true;
    this.#set({ status: "joined", error: null, state: fromJoin(held, reply) });
    this.#requests.open((event, payload) => this.#push(event, payload));
    if (this.#ownPresence !== this.#joinedPresence) this.#renewPresence();
    this.#joining?.resolve();
  }

  /** The fields changed while the join was under way. A refusal is told to the next `setPresence`. */
  #renewPresence(): void {
    this.#ask("presence", this.#ownPresence ?? {}).catch(() => undefined);
  }

  #push(event: string, payload: object): ReturnType<Channel["push"]> {
    if (!this.#channel) throw new RejoinError("disconnected");
    return this.#channel.push(event, payload);
  }

  #onEvents({ prev, events }: EventsPush): void {
    // While a join is under way its reply will bring these.
    if (!this.#live || !this.state) return;
    if (prev !== this.state.lastSeq) {
      this.#joinAnew();
      return;
    }
    this.#anewTimes = 0;
    this.#set({ state: applyEvents(this.state, events) });
  }

  /** The connection or the channel broke; phoenix joins again by itself. */
  #onLost(): void {
    this.#live = false;
    this.#requests.close();
    this.#set({ status: "joining" });
  }

  #onRefused(error: RejoinError): void {
    if (error.isFinal) this.#end("refused", error);
    else this.#set({ error });
  }

  /** Leaves and joins with the cursor of what is held, slower each time that this leads nowhere. */
  #joinAnew(): void {
    this.#onLost();
    this.#drop();
    const waitMs = ANEW_AFTER_MS[Math.min(this.#anewTimes, ANEW_AFTER_MS.length - 1)] ?? 0;
    this.#anewTimes += 1;
    if (this.#anewTimes > TRUST_CURSOR_TIMES) this.#trustCursor = false;
    this.#anewTimer = setTimeout(() => this.#connect(), waitMs);
  }

  #end(status: "idle" | "refused" | "deleted", error: RejoinError): void {
    if (!this.#joining) return;
    const joining = this.#joining;
    this.#joining = null;
    this.#live = false;
    this.#anewTimes = 0;
    this.#drop();
    this.#set({ status, error: status === "refused" ? error : null, presence: [] });
    this.#requests.fail(error);
    joining.reject(error);
  }

  /** Lets go of the channel. Its own callbacks are not heard from here on. */
  #drop(): void {
    clearTimeout(this.#anewTimer);
    const channel = this.#channel;
    this.#channel = null;
    channel?.leave();
  }

  async #loadOlder(limit?: number): Promise<boolean> {
    for (;;) {
      const { state } = this;
      if (!state?.hasMore || state.before === null) return false;
      const generation = this.#generation;
      const question = { before: state.before, ...(limit === undefined ? {} : { limit }) };
      const reply = (await this.#ask("history", question)) as HistoryReply;
      if (generation !== this.#generation || !this.state) continue;
      const next = addHistory(this.state, reply);
      this.#set({ state: next });
      return next.hasMore;
    }
  }

  #set(change: Partial<SessionSnapshot>): void {
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
