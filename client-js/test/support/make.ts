/** Makes messages, turns, events and join replies as a server would, for tests. */
import type {
  CancelReason,
  JoinReply,
  KnownEvent,
  Message,
  Person,
  SessionInfo,
  Snapshot,
  Turn,
  TurnStatus,
} from "../../src/types.js";

type EventOf<Type extends KnownEvent["type"]> = Extract<KnownEvent, { readonly type: Type }>;

export const EPOCH = "e1";

const at = (seq: number): string => new Date(Date.UTC(2026, 10, 22, 10, 0, seq)).toISOString();

export function person(id: string): Person {
  return { id, name: { u1: "Ada", u2: "Ben" }[id] ?? id };
}

export function prompt(id: string, seq: number, text = "Hi", by = "u1"): Message {
  const parts = [{ kind: "text" as const, text }];
  return { id, seq, role: "user", author: person(by), turn_id: null, status: "complete", parts, created_at: at(seq) };
}

export function answer(turnId: string, seq: number, text?: string, status: Message["status"] = "streaming"): Message {
  const parts = text === undefined ? [] : [{ kind: "text" as const, text }];
  const author = { id: "agent:echo", name: "echo" };
  return { id: `r-${turnId}`, seq, role: "assistant", author, turn_id: turnId, status, parts, created_at: at(seq) };
}

export function turn(id: string, promptId: string, status: TurnStatus = "running", position: number | null = null): Turn {
  return {
    id,
    status,
    prompt_id: promptId,
    reply_id: `r-${id}`,
    agent: "echo",
    attempt: 1,
    retry_of: null,
    by: person("u1"),
    position,
    owner: status === "running" ? { node: "a", incarnation: "i", liveness: "alive" } : null,
    queued_at: at(0),
    started_at: status === "queued" ? null : at(0),
    ended_at: status === "queued" || status === "running" ? null : at(0),
    reason: null,
    error: null,
    usage: null,
  };
}

export function added(seq: number, message: Message): EventOf<"message_added"> {
  return { seq, type: "message_added", at: at(seq), by: message.author, turn_id: null, data: { message } };
}

export function queued(seq: number, of: Turn): EventOf<"turn_queued"> {
  return { seq, type: "turn_queued", at: at(seq), by: of.by, turn_id: of.id, data: { turn: of } };
}

export function started(seq: number, of: Turn): EventOf<"turn_started"> {
  return { seq, type: "turn_started", at: at(seq), by: of.by, turn_id: of.id, data: { turn: of } };
}

export function delta(seq: number, turnId: string, text: string): EventOf<"turn_delta"> {
  return { seq, type: "turn_delta", at: at(seq), by: null, turn_id: turnId, data: { part: 0, kind: "text", text } };
}

export function completed(seq: number, turnId: string, message: Message): EventOf<"turn_completed"> {
  const data = { message: { ...message, status: "complete" as const }, usage: null };
  return { seq, type: "turn_completed", at: at(seq), by: null, turn_id: turnId, data };
}

export function ended(
  seq: number,
  turnId: string,
  reason: CancelReason,
  message: Message | null,
): EventOf<"turn_cancelled"> {
  return { seq, type: "turn_cancelled", at: at(seq), by: null, turn_id: turnId, data: { reason, message } };
}

export function session(lastSeq: number, change: Partial<SessionInfo> = {}): SessionInfo {
  return {
    id: "s1",
    epoch: EPOCH,
    status: "idle",
    last_seq: lastSeq,
    title: null,
    metadata: {},
    max_running: 1,
    created_at: at(0),
    updated_at: at(lastSeq),
    ...change,
  };
}

/** A join reply with a snapshot. */
export function snapshot(
  lastSeq: number,
  change: Partial<Snapshot> & { readonly turns?: readonly Turn[]; readonly session?: Partial<SessionInfo> } = {},
): JoinReply {
  const { turns = [], session: info, ...rest } = change;
  const empty = { messages: [], ended: [], before: null, has_more: false };
  return {
    session: session(lastSeq, info),
    turns,
    replay: { mode: "snapshot", reason: "first_join", to: lastSeq, ...empty, ...rest },
    node: { name: "a", incarnation: "i" },
  };
}

/** A join reply that continues. */
export function replay(from: number, events: readonly KnownEvent[], turns: readonly Turn[] = []): JoinReply {
  const to = events.at(-1)?.seq ?? from;
  return { ...snapshot(to, { turns }), replay: { mode: "replay", from, to, events } };
}
