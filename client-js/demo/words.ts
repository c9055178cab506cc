/**
 * What the page says, and what can be done about it: from states to words. Pure.
 *
 * Two things are never mixed: whether this page is connected, and what became of a turn. A page that has lost its
 * connection says so in one place, and calls no turn stopped for it.
 */
import { turnOf, type ConnectionStatus, type Message, type SessionSnapshot, type Turn } from "../src/index.js";

/** What is said about the turn of a message, beside it. */
export interface TurnView {
  readonly turnId: string;
  readonly status: Turn["status"];
  /** The reason of a cancel, the code of a failure, or nothing. */
  readonly reason: string;
  readonly text: string;
  readonly action: "stop" | "retry" | "none";
}

/** What of a session the words are about. */
type Said = Pick<SessionSnapshot, "messages" | "turns" | "ended">;

/** What is to be shown beside `message`, or null. The answer carries it; the prompt does where there is no answer. */
export function turnView(state: Said, message: Message): TurnView | null {
  const turn = turnOf(state, message);
  if (!turn) return message.status === "partial" ? replaced(message) : null;
  if (turn.status === "completed") return null;
  const isPrompt = message.turn_id === null;
  if (isPrompt && state.messages.some((other) => other.id === turn.reply_id)) return null;
  return viewOf(turn);
}

function viewOf(turn: Turn): TurnView | null {
  const base = { turnId: turn.id, status: turn.status };
  switch (turn.status) {
    case "running":
      return { ...base, reason: "", text: runningText(turn), action: "stop" };
    case "queued":
      return { ...base, reason: "", text: queuedText(turn), action: "none" };
    case "failed": {
      const text = turn.error?.message ?? "The agent failed.";
      return { ...base, reason: turn.error?.code ?? "", text: `interrupted — ${text}`, action: "retry" };
    }
    case "cancelled":
      return { ...base, reason: turn.reason ?? "", text: `interrupted — ${cancelText(turn)}`, action: "retry" };
    case "completed":
      return null;
  }
}

/** Cut, and not the newest attempt, or from before what is held: what it said stays, but it is not the one to retry. */
function replaced(message: Message): TurnView {
  return { turnId: message.turn_id ?? "", status: "cancelled", reason: "", text: "interrupted", action: "none" };
}

function runningText(turn: Turn): string {
  if (turn.owner?.liveness === "unknown") return `${turn.agent} is quiet — waiting for the server that answers`;
  return turn.attempt > 1 ? `${turn.agent} is answering, attempt ${turn.attempt}` : `${turn.agent} is answering`;
}

/** Place in the queue, as people say it. */
export function queuedText(turn: Turn): string {
  if (turn.position === null) return "waiting";
  return turn.position === 1 ? "waiting, next to run" : `waiting, number ${turn.position} in the queue`;
}

function cancelText(turn: Turn): string {
  switch (turn.reason) {
    case "owner_gone":
      return "The server that was answering went away.";
    case "shutdown":
      return "The server was shut down before the answer was finished.";
    case "superseded":
      return turn.ended_by ? `A newer message of ${turn.ended_by.name} took its place.` : "A newer message took its place.";
    case "user":
      return turn.ended_by ? `Stopped by ${turn.ended_by.name}.` : "Stopped.";
    case null:
      return "Cancelled.";
  }
}

/** What the connection element says. */
export function connectionText(state: ConnectionStatus, joined: boolean, joinedBefore: boolean): string {
  if (state === "closed") return "Disconnected";
  if (state === "refused") return "Not let in";
  if (state === "offline") return "Offline";
  if (state === "open") return joined ? "Connected" : "Joining…";
  return joinedBefore ? "Reconnecting…" : "Connecting…";
}

/** Who is typing, in one line; nothing for nobody. */
export function typingText(names: readonly string[]): string {
  if (names.length === 0) return "";
  if (names.length > 2) return "Several people are typing…";
  return `${names.join(" and ")} ${names.length === 1 ? "is" : "are"} typing…`;
}

/** Up to two letters for a round picture. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/u);
  const letters = words.slice(0, 2).map((word) => Array.from(word)[0] ?? "");
  return letters.join("").toUpperCase() || "?";
}

/** A hue for everyone, the same in every window; mixed well, so that ids that differ little look different. */
export function hue(id: string): number {
  let hash = 0x811c9dc5;
  for (const char of id) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return ((hash ^ (hash >>> 13)) >>> 0) % 360;
}

/** All plain text of a message. */
export function plainText(message: Pick<Message, "parts">): string {
  return message.parts.map((part) => (part.kind === "text" ? (part.text ?? "") : "")).join("");
}
