/**
 * The shapes that are this client's own: what a connection and a session show, what they take, what they tell.
 *
 * Types only; what travels on the wire is in `types.ts`.
 */
import type { RejoinError } from "./errors.js";
import type { PendingMessage } from "./outbox.js";
import type {
  BroadcastMessage,
  Json,
  KnownEvent,
  Message,
  PresenceEntry,
  SessionEvent,
  SessionInfo,
  Turn,
} from "./types.js";

/** A class like the browser's WebSocket. */
export type Transport = new (endpoint: string, protocols?: string | string[]) => object;

export type TransportName = "websocket" | "longpoll";

/**
 * - `closed`: not asked for.
 * - `connecting`: asked for and not there, also between two tries after a loss.
 * - `offline`: the same, and the browser says that there is no network.
 * - `open`: there.
 * - `refused`: the server does not let this client in, see `error`; `connect()` or another token leads out.
 */
export type ConnectionStatus = "closed" | "connecting" | "offline" | "open" | "refused";

/** Everything that is known of the connection at one moment. What it says of turns: nothing. */
export interface ConnectionSnapshot {
  readonly status: ConnectionStatus;
  /** Why the last try failed or the connection was lost; null once it is open. */
  readonly error: RejoinError | null;
  /** How many tries in a row came to nothing. */
  readonly failures: number;
  /** When the next try is made, in milliseconds since 1970; null where none is planned. */
  readonly retryAt: number | null;
  readonly transport: TransportName;
}

/**
 * - `idle`: not joined; `join()` leads out.
 * - `joining`: on the way there, or on the way back after a drop; leads to `joined` or `refused`.
 * - `joined`: events arrive.
 * - `refused`: the server said no, see `error`; `join()` tries again.
 * - `deleted`: somebody deleted the session; `join()` makes a new one.
 */
export type SessionStatus = "idle" | "joining" | "joined" | "refused" | "deleted";

/**
 * Everything that is known of a session at one moment. Never changed in place; a list or an item that did not change is
 * the same object as before.
 *
 * `connection` and `status` say whether this client is in touch, `turns` and `ended` what becomes of answers: a
 * connection that is lost stops no turn.
 */
export interface SessionSnapshot {
  readonly id: string;
  readonly status: SessionStatus;
  readonly connection: ConnectionStatus;
  /** Why the last join was refused; null once a join went well. */
  readonly error: RejoinError | null;
  /** Whether anything is held: from an earlier page, or from the server. */
  readonly isReady: boolean;
  /** Title, metadata and the like; null while nothing is held. */
  readonly info: SessionInfo | null;
  /** By seq: what was said, and the answers, also those that are being written. */
  readonly messages: readonly Message[];
  /** What was said here and is not in the log yet, in its order. Show it behind `messages`. */
  readonly outbox: readonly PendingMessage[];
  /** The running turns by start, then the queued ones in the order in which they will run. */
  readonly turns: readonly Turn[];
  readonly running: readonly Turn[];
  readonly queue: readonly Turn[];
  /** By prompt id: its newest turn, if that has ended. */
  readonly ended: ReadonlyMap<string, Turn>;
  /** Who is here. As last heard while the connection is away. */
  readonly people: readonly PresenceEntry[];
  /** Which agents are at work. */
  readonly agents: readonly PresenceEntry[];
  /** The seq of the last event that is in here. */
  readonly lastSeq: number;
  /** Whether `history()` has older messages. */
  readonly hasMore: boolean;
}

/** How to send. */
export interface SendOptions {
  /** The message's id; one is made where none is given. Sending the same again changes nothing. */
  readonly id?: string;
  readonly agent?: string;
  /** What to do while as many turns run as may: wait (default), be refused as `busy`, or cut one's own turns. */
  readonly whenBusy?: "queue" | "reject" | "interrupt";
  /** False: only add the message, ask for no answer. */
  readonly answer?: boolean;
}

/** What `update` may change; `title: null` clears. */
export interface SessionUpdate {
  readonly title?: string | null;
  readonly metadata?: Readonly<Record<string, Json>>;
  readonly max_running?: number;
}

/** How to join. */
export interface SessionOptions {
  /** False: refuse as `not_found` instead of making a session that does not exist. */
  readonly create?: boolean;
  /** This connection's own presence fields. */
  readonly presence?: Readonly<Record<string, Json>>;
}

/** What is known of an event beside itself. */
export interface EventContext {
  /** It happened before the join and was caught up with: no reason for a sound. */
  readonly isReplayed: boolean;
}

type LogEvents = { [Event in KnownEvent as Event["type"]]: [event: Event, context: EventContext] };

/** What `Session.on` tells, by name. The state has it already when it is told. */
export interface SessionEvents extends LogEvents {
  /** Every event of the log, also of types that this version does not know. */
  event: [event: SessionEvent, context: EventContext];
  /** What others broadcast. */
  broadcast: [message: BroadcastMessage];
  /** So many broadcasts did not fit through this connection. Events are never missed. */
  missed: [count: number];
  /** Everything that is held was replaced, and why (`first_join`, `trimmed`, …). No events tell what is new. */
  reset: [reason: string];
}
