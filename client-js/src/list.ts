/**
 * The live list of sessions: which there are, how they are doing.
 *
 * Knows the topic `sessions` and nothing of a session's log. Invariants: a join replaces the list, so that nothing that
 * was missed is believed; a summary that did not change is the same object; what is shown stays while the connection is
 * away.
 */
import type { Channel } from "phoenix";
import type { Connection, ConnectionStatus } from "./connection.js";
import { RejoinError, errorFrom } from "./errors.js";
import { Listeners, type Readable } from "./listeners.js";
import { Membership } from "./membership.js";
import { Requests } from "./requests.js";
import type { SessionSummary } from "./types.js";

/** As `SessionStatus`, without what only a session can be. */
export type ListStatus = "idle" | "joining" | "joined" | "refused";

/** The list at one moment. */
export interface ListSnapshot {
  readonly status: ListStatus;
  readonly connection: ConnectionStatus;
  /** Why the list was refused; null once a join went well. */
  readonly error: RejoinError | null;
  /** Whether the server has answered once. */
  readonly isReady: boolean;
  /** The last changed first. */
  readonly sessions: readonly SessionSummary[];
  /** Whether there are older ones than these: `GET /api/sessions` has them. */
  readonly hasMore: boolean;
}

export interface ListOptions {
  /** Only sessions whose id begins so. */
  readonly prefix?: string;
}

interface ListReply {
  readonly sessions: readonly SessionSummary[];
  readonly has_more: boolean;
}

const TOPIC = "sessions";
/** The server closed the topic; it may open it again, or say why not. */
const REOPEN_AFTER_MS = 1_000;

export class SessionList implements Readable<ListSnapshot> {
  readonly prefix: string;
  readonly #connection: Connection;
  readonly #requests: Requests;
  readonly #membership: Membership;
  readonly #changed = new Listeners<[]>();
  #snapshot: ListSnapshot;
  #channel: Channel | null = null;
  #isLive = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @internal Made by `Rejoin.list`. */
  constructor(connection: Connection, requestTimeoutMs: number, { prefix = "" }: ListOptions) {
    this.prefix = prefix;
    this.#connection = connection;
    this.#requests = new Requests(requestTimeoutMs);
    this.#snapshot = { ...emptyList(), connection: connection.getSnapshot().status };
    this.#membership = new Membership(connection, {
      ready: null,
      wanted: () => this.#set({ status: "joining", error: null }),
      open: () => this.#open(),
      shutOut: (error) => this.#set(error ? { status: "refused", error } : { status: "joining", error: null }),
      isBusy: () => false,
      leave: () => this.leave(),
    });
  }

  /** The list now. The same object until something changes. */
  get snapshot(): ListSnapshot {
    return this.#snapshot;
  }

  readonly getSnapshot = (): ListSnapshot => this.#snapshot;
  readonly subscribe = (listener: () => void): (() => void) => this.#changed.add(listener);

  /** Joins, and stays. Resolves at the first success, rejects if the server refuses for good. */
  join(): Promise<void> {
    return this.#membership.join();
  }

  /** Joins for as long as somebody holds: call the function returned when it is not needed any more. */
  hold(): () => void {
    return this.#membership.hold();
  }

  /** Leaves. What is shown stays as it is, and is replaced by a later join. */
  leave(): void {
    this.#end("idle", new RejoinError("left"));
  }

  /** @internal Renews the identity of the whole connection. */
  renewToken(token: string): Promise<unknown> {
    return this.#requests.request("access_token", { token }, { repeat: true });
  }

  /** @internal Whether a push would be sent at once. */
  get isLive(): boolean {
    return this.#isLive;
  }

  /** @internal The connection is as it was not before. */
  connectionChanged(): void {
    this.#set({ connection: this.#connection.getSnapshot().status });
    this.#membership.connectionChanged();
  }

  #open(): void {
    const channel = this.#connection.socket.channel(TOPIC, this.prefix === "" ? {} : { prefix: this.prefix });
    this.#channel = channel;
    const own =
      <Args extends unknown[]>(handler: (...args: Args) => void) =>
      (...args: Args): void => {
        if (this.#channel === channel) handler(...args);
      };
    channel.on("session_changed", own((summary: SessionSummary) => this.#onChanged(summary)));
    channel.on("session_removed", own(({ id }: { id: string }) => this.#onRemoved(id)));
    channel.on("draining", own((push: { reconnect_after_ms: number }) => this.#connection.drain(push.reconnect_after_ms)));
    channel.onError(own(() => this.#onLost()));
    channel.onClose(own(() => this.#onClosed()));
    channel
      .join()
      .receive("ok", own((reply: ListReply) => this.#onJoined(channel, reply)))
      .receive("error", own((response: unknown) => this.#onRefused(errorFrom(response))));
  }

  #onJoined(channel: Channel, { sessions, has_more: hasMore }: ListReply): void {
    this.#isLive = true;
    this.#requests.open((event, payload) => channel.push(event, payload));
    this.#set({ status: "joined", error: null, isReady: true, sessions: [...sessions].sort(newestFirst), hasMore });
    this.#membership.reached();
  }

  #onChanged(summary: SessionSummary): void {
    const others = this.#snapshot.sessions.filter(({ id }) => id !== summary.id);
    const place = others.findIndex((other) => newestFirst(summary, other) <= 0);
    this.#set({ sessions: others.toSpliced(place < 0 ? others.length : place, 0, summary) });
  }

  #onRemoved(removed: string): void {
    const { sessions } = this.#snapshot;
    if (sessions.some(({ id }) => id === removed)) this.#set({ sessions: sessions.filter(({ id }) => id !== removed) });
  }

  #onLost(): void {
    this.#isLive = false;
    this.#requests.close();
    this.#set({ status: "joining" });
  }

  #onClosed(): void {
    this.#onLost();
    this.#channel = null;
    this.#timer = setTimeout(() => this.#open(), REOPEN_AFTER_MS);
  }

  #onRefused(error: RejoinError): void {
    if (error.isFinal) this.#end("refused", error);
    else this.#set({ error });
  }

  #end(status: "idle" | "refused", error: RejoinError): void {
    if (!this.#membership.end(error)) return;
    clearTimeout(this.#timer);
    this.#isLive = false;
    const channel = this.#channel;
    this.#channel = null;
    channel?.leave();
    this.#requests.fail(error);
    this.#set({ status, error: status === "refused" ? error : null });
  }

  #set(change: Partial<ListSnapshot>): void {
    const keys = Object.keys(change) as (keyof ListSnapshot)[];
    if (keys.every((key) => change[key] === this.#snapshot[key])) return;
    this.#snapshot = { ...this.#snapshot, ...change };
    this.#changed.emit();
  }
}

function emptyList(): ListSnapshot {
  return { status: "idle", connection: "closed", error: null, isReady: false, sessions: [], hasMore: false };
}

function newestFirst(a: SessionSummary, b: SessionSummary): number {
  if (a.updated_at !== b.updated_at) return a.updated_at > b.updated_at ? -1 : 1;
  return a.id < b.id ? -1 : 1;
}
