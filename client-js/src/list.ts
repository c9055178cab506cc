/**
 * The live list of sessions: which there are, how they are doing.
 *
 * Knows the topic `sessions` and nothing of a session's log. Invariants: a join replaces the list, so that nothing that
 * was missed is believed; a summary that did not change is the same object; what is shown stays while the connection is
 * away.
 */
import type { Connection } from "./connection.js";
import { RejoinError } from "./errors.js";
import { Store, type Readable } from "./listeners.js";
import { Membership } from "./membership.js";
import { Requests } from "./requests.js";
import type { ConnectionStatus } from "./shapes.js";
import { Topic } from "./topic.js";
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

const EMPTY: ListSnapshot = {
  status: "idle",
  connection: "closed",
  error: null,
  isReady: false,
  sessions: [],
  hasMore: false,
};
/** The server closed the topic; it may open it again, or say why not. */
const REOPEN_AFTER_MS = 1_000;

export class SessionList implements Readable<ListSnapshot> {
  readonly prefix: string;
  readonly #connection: Connection;
  readonly #requests: Requests;
  readonly #membership: Membership;
  readonly #topic: Topic<ListReply>;
  readonly #store: Store<ListSnapshot>;
  #isLive = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @internal Made by `Rejoin.list`. */
  constructor(connection: Connection, requestTimeoutMs: number, { prefix = "" }: ListOptions) {
    this.prefix = prefix;
    this.#connection = connection;
    this.#requests = new Requests(requestTimeoutMs);
    this.#store = new Store(EMPTY, { connection: connection.getSnapshot().status });
    this.#membership = new Membership(connection, {
      ready: null,
      show: (change) => this.#store.set(change),
      open: () => this.#topic.open(connection.socket),
      leave: () => this.leave(),
    });
    this.#topic = new Topic<ListReply>({
      name: "sessions",
      params: () => ({ prefix: prefix || undefined }),
      joined: (reply) => this.#onJoined(reply),
      refused: (error) => this.#onRefused(error),
      lost: () => this.#onLost(),
      closed: () => this.#onClosed(),
      draining: (afterMs) => connection.drain(afterMs),
      pushes: {
        session_changed: (summary: SessionSummary) => this.#onChanged(summary),
        session_removed: ({ id }: { readonly id: string }) => this.#onRemoved(id),
      },
    });
  }

  /** The list now. The same object until something changes. */
  get snapshot(): ListSnapshot {
    return this.#store.snapshot;
  }

  readonly getSnapshot = (): ListSnapshot => this.#store.snapshot;
  readonly getServerSnapshot = (): ListSnapshot => EMPTY;
  readonly subscribe = (listener: () => void): (() => void) => this.#store.subscribe(listener);

  /** Joins, and stays. Resolves at the first success, rejects if the server refuses for good. */
  join(): Promise<void> {
    return this.#membership.stay();
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
    this.#store.set({ connection: this.#connection.getSnapshot().status });
    this.#membership.connectionChanged();
  }

  #onJoined({ sessions, has_more: hasMore }: ListReply): void {
    this.#isLive = true;
    this.#requests.open((event, payload) => this.#topic.push(event, payload));
    this.#store.set({ status: "joined", error: null, isReady: true, sessions: [...sessions].sort(newestFirst), hasMore });
    this.#membership.reached();
  }

  #onChanged(summary: SessionSummary): void {
    const others = this.#store.snapshot.sessions.filter(({ id }) => id !== summary.id);
    const place = others.findIndex((other) => newestFirst(summary, other) <= 0);
    this.#store.set({ sessions: others.toSpliced(place < 0 ? others.length : place, 0, summary) });
  }

  #onRemoved(removed: string): void {
    const { sessions } = this.#store.snapshot;
    if (sessions.some(({ id }) => id === removed)) this.#store.set({ sessions: sessions.filter(({ id }) => id !== removed) });
  }

  #onLost(): void {
    this.#isLive = false;
    this.#requests.close();
    this.#store.set({ status: "joining" });
  }

  #onClosed(): void {
    this.#onLost();
    this.#topic.drop();
    this.#timer = setTimeout(() => this.#topic.open(this.#connection.socket), REOPEN_AFTER_MS);
  }

  #onRefused(error: RejoinError): void {
    if (error.isFinal) this.#end("refused", error);
    else this.#store.set({ error });
  }

  #end(status: "idle" | "refused", error: RejoinError): void {
    if (!this.#membership.end(error)) return;
    clearTimeout(this.#timer);
    this.#isLive = false;
    this.#topic.drop();
    this.#requests.fail(error);
    this.#store.set({ status, error: status === "refused" ? error : null });
  }
}

function newestFirst(a: SessionSummary, b: SessionSummary): number {
  if (a.updated_at !== b.updated_at) return a.updated_at > b.updated_at ? -1 : 1;
  return a.id < b.id ? -1 : 1;
}
