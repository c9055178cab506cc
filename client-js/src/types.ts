/**
 * The shapes that travel between client and server, as they are on the wire.
 *
 * Names stay as the protocol writes them (snake_case). Everything is readonly: a state is never changed in place.
 * Fields that a newer server adds are carried along untouched.
 */

/** Who said or did something. */
export interface Person {
  readonly id: string;
  readonly name: string;
}

/** Any JSON value. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** What a part of a message holds. */
export type PartKind = "text" | "reasoning" | "tool_call" | "tool_result" | "data";

/** One piece of a message: text, a JSON value, or both. */
export interface Part {
  readonly kind: PartKind;
  readonly text?: string;
  readonly value?: Json;
}

export type Role = "user" | "assistant" | "system";

/** `streaming`: an answer that is being written. `partial`: an answer that was cut before its end. */
export type MessageStatus = "complete" | "streaming" | "partial";

/** What a person or an agent said. */
export interface Message {
  readonly id: string;
  /** The seq of the event that created it; messages are ordered by it. */
  readonly seq: number;
  readonly role: Role;
  readonly author: Person | null;
  /** The turn that made it, for an answer. */
  readonly turn_id: string | null;
  readonly status: MessageStatus;
  readonly parts: readonly Part[];
  readonly created_at: string;
}

export type TurnStatus = "queued" | "running" | "completed" | "failed" | "cancelled";

/** Why a turn was cancelled. */
export type CancelReason = "user" | "owner_gone" | "shutdown" | "superseded";

/** Why a turn failed. */
export interface TurnError {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
}

/** The node that answers. `unknown`: not seen moving for a while, and not judged to be gone. */
export interface Owner {
  readonly node: string;
  readonly incarnation: string;
  readonly liveness: "alive" | "unknown";
}

/** One answer of an agent, from its acceptance to its end. */
export interface Turn {
  readonly id: string;
  readonly status: TurnStatus;
  /** The message that it answers. */
  readonly prompt_id: string;
  /** The message that it writes. */
  readonly reply_id: string;
  readonly agent: string;
  /** 1, and one more for each retry of the prompt. */
  readonly attempt: number;
  readonly retry_of: string | null;
  /** Who asked. */
  readonly by: Person;
  /** Its place in the queue from 1, the next to run; null unless queued. */
  readonly position: number | null;
  readonly owner: Owner | null;
  readonly queued_at: string;
  readonly started_at: string | null;
  readonly ended_at: string | null;
  readonly reason: CancelReason | null;
  readonly error: TurnError | null;
  readonly usage: Json;
  /** Who stopped it, where this client saw the end as an event. */
  readonly ended_by?: Person | null;
}

/** The session itself. */
export interface SessionInfo {
  readonly id: string;
  /** The identity of the log; opaque. */
  readonly epoch: string;
  readonly status: "idle" | "queued" | "running";
  readonly last_seq: number;
  readonly title: string | null;
  readonly metadata: Readonly<Record<string, Json>>;
  /** How many turns may run at once. */
  readonly max_running: number;
  readonly created_at: string;
  readonly updated_at: string;
}

interface EventBase<Type extends string, Data> {
  readonly seq: number;
  /** In a replay, the seq of the first of several deltas that were merged into this one. */
  readonly first?: number;
  readonly type: Type;
  readonly at: string;
  readonly by: Person | null;
  readonly turn_id: string | null;
  readonly data: Data;
}

/** The data of a `turn_delta`. */
export interface Delta {
  readonly part: number;
  readonly kind: PartKind;
  /** Appended to the part's text. */
  readonly text?: string;
  /** Replaces the part's value. */
  readonly value?: Json;
}

/** The events that this version understands. */
export type KnownEvent =
  | EventBase<"message_added", { readonly message: Message }>
  | EventBase<"turn_queued", { readonly turn: Turn }>
  | EventBase<"turn_started", { readonly turn: Turn }>
  | EventBase<"turn_delta", Delta>
  | EventBase<"turn_completed", { readonly message: Message; readonly usage: Json }>
  | EventBase<"turn_failed", { readonly error: TurnError; readonly message: Message | null }>
  | EventBase<"turn_cancelled", { readonly reason: CancelReason; readonly message: Message | null }>
  | EventBase<"session_updated", Pick<SessionInfo, "title" | "metadata" | "max_running">>;

/** One record of a session's log; the type may be one that a newer server writes. */
export type SessionEvent = KnownEvent | EventBase<string, unknown>;

/** Continues what the client holds. */
export interface Replay {
  readonly mode: "replay";
  readonly from: number;
  /** The seq of the last event here; below the session's `last_seq` where pages follow. */
  readonly to: number;
  readonly events: readonly SessionEvent[];
}

/** Replaces what the client holds. */
export interface Snapshot {
  readonly mode: "snapshot";
  readonly reason: string;
  readonly to: number;
  readonly messages: readonly Message[];
  readonly ended: readonly Turn[];
  /** What to ask `history` with next. */
  readonly before: number | null;
  readonly has_more: boolean;
}

/** The reply to a join: one consistent cut of the session. */
export interface JoinReply {
  readonly session: SessionInfo;
  readonly turns: readonly Turn[];
  readonly replay: Replay | Snapshot;
  readonly node: { readonly name: string; readonly incarnation: string };
}

/** The server push `events`: applies to a client that holds everything up to `prev`. */
export interface EventsPush {
  readonly prev: number;
  readonly events: readonly SessionEvent[];
}

/** The reply to `send`. */
export interface SendReply {
  readonly message_id: string;
  readonly turn_id: string | null;
  readonly seq: number;
  /** It was there already: the same id was sent before. */
  readonly duplicate: boolean;
}

/** The reply to `cancel`: what really happened to the turn. */
export interface CancelReply {
  readonly outcome: "cancelled" | "already_ended";
  readonly status: TurnStatus;
  readonly reason: CancelReason | null;
}

/** The reply to `retry`. */
export interface RetryReply {
  readonly turn_id: string;
  readonly attempt: number;
  readonly duplicate: boolean;
}

/** The reply to `history`. */
export interface HistoryReply {
  readonly messages: readonly Message[];
  readonly ended: readonly Turn[];
  readonly before: number | null;
  readonly has_more: boolean;
}

/** A session as the live list shows it. */
export interface SessionSummary {
  readonly id: string;
  readonly title: string | null;
  readonly status: SessionInfo["status"];
  readonly last_seq: number;
  /** What runs in it at this moment. */
  readonly running: readonly {
    readonly turn_id: string;
    readonly agent: string;
    /** Who asked. */
    readonly by: Person;
    readonly liveness: Owner["liveness"];
  }[];
  readonly updated_at: string;
}

/** Something that another connection broadcast; not in the log. */
export interface BroadcastMessage {
  readonly event: string;
  readonly payload: Json;
  readonly by: Person | null;
}

/** One connection of a person, or one running turn of an agent. */
export interface PresenceMeta {
  readonly phx_ref: string;
  readonly name?: string;
  readonly joined_at?: string;
  readonly node?: string;
  readonly [field: string]: Json | undefined;
}

/** Somebody who is in the session: a person, or an agent at work (`agent:NAME`). */
export interface PresenceEntry {
  readonly id: string;
  readonly name: string;
  readonly isAgent: boolean;
  readonly metas: readonly PresenceMeta[];
}
