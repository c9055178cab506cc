/**
 * What is stored of a session: one text that holds the content and the cursor that belongs to it.
 *
 * Invariant: a record is read whole or not at all. Whatever is damaged, of another version, another session or another
 * person is as good as nothing.
 */
import type { SessionState } from "./fold.js";
import type { Found, StoredEntry } from "./kept.js";
import type { Message, Turn } from "./types.js";

/** Raised when the shape changes; records of other versions are not read. */
export const RECORD_VERSION = 1;

/** What is kept of a long session: about this much text, and always the newest message. */
export const KEPT_CHARS = 400_000;
const KEPT_MESSAGES = 200;

interface StateRecord extends Omit<SessionState, "ended"> {
  readonly v: number;
  readonly ended: readonly Turn[];
}

/** Writes a state, without the oldest of its messages where they are too much: `history` brings them again. */
export function encodeState(state: SessionState, keptChars = KEPT_CHARS): string {
  const kept: string[] = [];
  let chars = 0;
  let index = state.messages.length;
  while (index > 0 && kept.length < KEPT_MESSAGES) {
    const text = JSON.stringify(state.messages[index - 1]);
    if (kept.length > 0 && chars + text.length > keptChars) break;
    kept.unshift(text);
    chars += text.length;
    index -= 1;
  }
  const isCut = index > 0;
  const before = isCut ? (state.messages[index]?.seq ?? null) : state.before;
  const ids = new Set(state.messages.slice(index).map((message) => message.id));
  const ended = [...state.ended.values()].filter((turn) => !isCut || ids.has(turn.prompt_id));
  const { session, turns, lastSeq, epoch } = state;
  const rest = JSON.stringify({ session, turns, ended, lastSeq, epoch, before, hasMore: isCut || state.hasMore });
  return `{"v":${RECORD_VERSION},"at":${Date.now()},"messages":[${kept.join()}],${rest.slice(1)}`;
}

/** Reads a state; null where the text is not one of this session. */
export function decodeState(text: string, sessionId: string): SessionState | null {
  const record = parse(text) as Partial<StateRecord> | null;
  if (record?.v !== RECORD_VERSION || record.session?.id !== sessionId) return null;
  const { session, messages, turns, ended, lastSeq, epoch, before, hasMore } = record;
  const isSound =
    isSeq(lastSeq) &&
    typeof epoch === "string" &&
    session.epoch === epoch &&
    isListOf(messages, isMessage) &&
    isListOf(turns, isTurn) &&
    isListOf(ended, isTurn) &&
    (before === null || isSeq(before)) &&
    typeof hasMore === "boolean";
  if (!isSound) return null;
  return { session, messages, turns, ended: new Map(ended.map((turn) => [turn.prompt_id, turn])), lastSeq, epoch, before, hasMore };
}

export function encodeEntry(entry: StoredEntry): string {
  return JSON.stringify({ v: RECORD_VERSION, ...entry });
}

export function decodeEntry(text: string): StoredEntry | null {
  const record = parse(text) as (Partial<StoredEntry> & { v?: unknown }) | null;
  if (record?.v !== RECORD_VERSION) return null;
  const { id, at, order, payload, error = null } = record;
  if (typeof id !== "string" || typeof at !== "string" || !isSeq(order) || payload?.id !== id) return null;
  const hasContent = typeof payload.text === "string" || isListOf(payload.parts, isObject);
  return hasContent ? { id, at, order, payload, error } : null;
}

/** What stands where an unsent message stood that was taken back: other windows may hold it still. */
export function encodeDiscarded(): string {
  return JSON.stringify({ v: RECORD_VERSION, discardedAt: Date.now() });
}

/** What a record tells of its unsent message; null where there is none. */
export function found(text: string | null): Found {
  if (text === null) return "gone";
  return discardedAt(text) === null ? "kept" : "discarded";
}

/** When an unsent message was taken back; null where it was not. */
export function discardedAt(text: string): number | null {
  const at = parse(text)?.["discardedAt"];
  return isSeq(at) ? at : null;
}

function parse(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function isSeq(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isListOf<T>(value: unknown, check: (item: unknown) => item is T): value is readonly T[] {
  return Array.isArray(value) && value.every(check);
}

function isMessage(value: unknown): value is Message {
  return isObject(value) && typeof value["id"] === "string" && isSeq(value["seq"]) && isListOf(value["parts"], isObject);
}

function isTurn(value: unknown): value is Turn {
  return isObject(value) && ["id", "status", "prompt_id", "reply_id"].every((key) => typeof value[key] === "string");
}
