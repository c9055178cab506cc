/**
 * The topic of one session: joins it, folds what arrives.
 *
 * Knows the topic's protocol; nothing of requests, storage or the connection's life. Invariants:
 * an `events` push is applied iff it continues what is held; whatever does not fit leads to a new join, first with the
 * cursor, then without; the cursor of a join is that of what is held when the join is sent. Losing the connection
 * changes nothing that is held.
 */
import type { Push, Socket } from "phoenix";
import type { RejoinError } from "./errors.js";
import { addHistory, applyEvents, fromJoin, stopTurns, type SessionState } from "./fold.js";
import { Topic } from "./topic.js";
import type { BroadcastMessage, EventsPush, HistoryReply, JoinReply, Json, PresenceEntry, SessionEvent } from "./types.js";

/** What the channel tells its session. */
export interface ChannelListener {
  /** Joined: everything up to the cut is held, or its pages are on their way. `reset`: all of it is new, and why. */
  readonly joined: (reset: string | null) => void;
  /** All pages are there: what is held is at least as new as the join. */
  readonly caughtUp: () => void;
  /** An event was applied; `isReplayed` if it happened before the join. */
  readonly applied: (event: SessionEvent, isReplayed: boolean) => void;
  /** What is held has changed: once for all events of a push. */
  readonly changed: () => void;
  readonly presence: (entries: readonly PresenceEntry[]) => void;
  readonly broadcast: (message: BroadcastMessage) => void;
  readonly missed: (count: number) => void;
  readonly draining: (reconnectAfterMs: number) => void;
  /** The connection or the channel broke; a join follows by itself. */
  readonly lost: () => void;
  readonly refused: (error: RejoinError) => void;
  readonly deleted: () => void;
}

export interface ChannelOptions {
  readonly topic: string;
  readonly create: boolean | undefined;
  readonly presence: Readonly<Record<string, Json>> | undefined;
}

/** Waits before joining anew, by how many such joins came to nothing one after another. */
const ANEW_AFTER_MS = [0, 1_000, 2_000, 5_000, 10_000] as const;

/** After so many joins with a cursor that came to nothing, the cursor itself is doubted. */
const TRUST_CURSOR_TIMES = 2;

export class SessionChannel {
  readonly #socket: () => Socket;
  readonly #options: ChannelOptions;
  readonly #listener: ChannelListener;
  readonly #topic: Topic<JoinReply>;
  #state: SessionState | null = null;
  #isLive = false;
  /** The end of the log at the time of the join. */
  #cut = 0;
  #generation = 0;
  #trustCursor = true;
  #anewTimes = 0;
  #anewTimer: ReturnType<typeof setTimeout> | undefined;
  /** The presence fields to show, and those that went out with the join. */
  #fields: Readonly<Record<string, Json>> | undefined;
  #sentFields: Readonly<Record<string, Json>> | undefined;

  constructor(socket: () => Socket, options: ChannelOptions, listener: ChannelListener) {
    this.#socket = socket;
    this.#options = options;
    this.#listener = listener;
    this.#fields = options.presence;
    this.#topic = new Topic<JoinReply>({
      name: options.topic,
      params: () => this.#joinParams(),
      joined: (reply) => this.#onJoined(reply),
      refused: listener.refused,
      lost: () => this.#onLost(),
      closed: () => this.#joinAnew(),
      draining: listener.draining,
      presence: listener.presence,
      pushes: {
        events: (push: EventsPush) => this.#onEvents(push),
        broadcast: listener.broadcast,
        missed: ({ count }: { readonly count: number }) => listener.missed(count),
        deleted: listener.deleted,
      },
    });
  }

  /** What is held; null before the first join. */
  get state(): SessionState | null {
    return this.#state;
  }

  /** Whether a push would be sent at once. */
  get isLive(): boolean {
    return this.#isLive;
  }

  /** Whether what is held is at least as new as the last join. */
  get isCaughtUp(): boolean {
    return this.#isLive && this.#state !== null && this.#state.lastSeq >= this.#cut;
  }

  /** Raised by each snapshot: what was asked about the state before it does not fit any more. */
  get generation(): number {
    return this.#generation;
  }

  /** What was kept from an earlier page. Only before the first join. */
  restore(state: SessionState): void {
    this.#state ??= state;
  }

  /** Drops what is held. */
  forget(): void {
    this.#state = null;
    this.#generation += 1;
  }

  /** Nothing goes on any more, and nobody will tell how it ended: what was being said is all there is. */
  stopTurns(): void {
    if (this.#state) this.#state = stopTurns(this.#state);
  }

  open(): void {
    this.#connect();
  }

  /** Leaves. What is held stays. */
  close(): void {
    this.#isLive = false;
    this.#anewTimes = 0;
    this.#drop();
  }

  push(event: string, payload: object): Push {
    return this.#topic.push(event, payload);
  }

  /** Adds older messages, unless what is held has been replaced since they were asked for. */
  addHistory(reply: HistoryReply, generation: number): boolean {
    if (generation !== this.#generation || !this.#state) return false;
    this.#state = addHistory(this.#state, reply);
    return true;
  }

  /** The presence fields of later joins; true where the current one has others. */
  show(fields: Readonly<Record<string, Json>>): boolean {
    this.#fields = fields;
    return this.#isLive;
  }

  /** The fields that changed while the join was under way; null where they did not. */
  get staleFields(): Readonly<Record<string, Json>> | null {
    return this.#fields === this.#sentFields ? null : (this.#fields ?? {});
  }

  #connect(): void {
    this.#topic.open(this.#socket());
  }

  /** Evaluated by phoenix each time that it sends the join. */
  #joinParams(): object {
    this.#sentFields = this.#fields;
    return {
      ...(this.#state && this.#trustCursor ? { last_seq: this.#state.lastSeq, epoch: this.#state.epoch } : {}),
      // JSON leaves out what is undefined.
      create: this.#options.create,
      presence: this.#fields,
    };
  }

  #onJoined(reply: JoinReply): void {
    const { replay, session } = reply;
    const held = this.#state;
    if (replay.mode === "replay" && (replay.from !== held?.lastSeq || session.epoch !== held.epoch)) {
      // Its parameters were older than what is held: phoenix had built them before the last event came.
      this.#trustCursor = false;
      this.#joinAnew();
      return;
    }
    if (replay.mode === "snapshot") this.#generation += 1;
    const next = this.#fold(() => fromJoin(held, reply));
    if (!next) return;
    this.#state = next;
    this.#trustCursor = true;
    this.#isLive = true;
    this.#cut = session.last_seq;
    this.#listener.joined(replay.mode === "snapshot" ? replay.reason : null);
    if (replay.mode === "replay") for (const event of replay.events) this.#listener.applied(event, true);
    this.#listener.changed();
    if (this.isCaughtUp) this.#listener.caughtUp();
  }

  #onEvents({ prev, events }: EventsPush): void {
    // While a join is under way its reply will bring these.
    const state = this.#state;
    if (!this.#isLive || !state) return;
    if (prev !== state.lastSeq) {
      this.#joinAnew();
      return;
    }
    this.#anewTimes = 0;
    const next = this.#fold(() => applyEvents(state, events));
    if (!next) return;
    this.#state = next;
    for (const event of events) this.#listener.applied(event, event.seq <= this.#cut);
    this.#listener.changed();
    if (state.lastSeq < this.#cut && next.lastSeq >= this.#cut) this.#listener.caughtUp();
  }

  /** What is held and cannot be continued (damaged where it was stored, say) is given up, and asked for as a whole. */
  #fold(next: () => SessionState): SessionState | null {
    try {
      return next();
    } catch {
      this.forget();
      this.#joinAnew();
      return null;
    }
  }

  /** The connection or the channel broke; phoenix joins again by itself. */
  #onLost(): void {
    this.#isLive = false;
    this.#listener.lost();
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

  /** Lets go of the channel. Its own callbacks are not heard from here on. */
  #drop(): void {
    clearTimeout(this.#anewTimer);
    this.#topic.drop();
  }
}
