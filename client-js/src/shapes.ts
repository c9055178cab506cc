/**
 * The shapes around a session that are this client's own: what it shows, what it takes, what it needs.
 *
 * Types only; what travels on the wire is in `types.ts`.
 */
import type { Socket } from "phoenix";
import type { RejoinError } from "./errors.js";
import type { SessionState } from "./fold.js";
import type { Json, PresenceEntry } from "./types.js";

/**
 * - `idle`: not joined; `join()` leads out.
 * - `joining`: on the way there, or on the way back after a drop; leads to `joined` or `refused`.
 * - `joined`: events arrive.
 * - `refused`: the server said no, see `error`; `join()` tries again.
 * - `deleted`: somebody deleted the session; `join()` makes a new one.
 */
export type SessionStatus = "idle" | "joining" | "joined" | "refused" | "deleted";

/** Everything that is known of a session at one moment. Never changed in place. */
export interface SessionSnapshot {
  readonly status: SessionStatus;
  /** Why the last join was refused; null once a join went well. */
  readonly error: RejoinError | null;
  /** What is held of the log; null before the first join. */
  readonly state: SessionState | null;
  /** Who is here, and which agents work. As last heard while the connection is away. */
  readonly presence: readonly PresenceEntry[];
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

/** @internal What a session needs of its connection. */
export interface Host {
  readonly socket: Socket;
  readonly requestTimeoutMs: number;
  /** Connects unless that is done. */
  connect(): void;
  /** The server will close the connection, and asks to stay away for that long. */
  onDraining(reconnectAfterMs: number): void;
}
