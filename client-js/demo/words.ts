/**
 * What the page says, and what can be done about it: from states to words. Pure.
 *
 * Two things are never mixed: whether this page is connected, and what became of a turn. A page that has lost its
 * connection says so in one place, and calls no turn stopped for it.
 */
import {
  turnOf,
  type ConnectionSnapshot,
  type ConnectionStatus,
  type Message,
  type PendingMessage,
  type SessionSnapshot,
  type SessionSummary,
  type Turn,
} from "../src/index.js";

/** What is said about the turn of a message, beside it. */
export interface TurnView {
  readonly turnId: string;
  readonly status: Turn["status"];
  /** The reason of a cancel, the code of a failure, or nothing. */
  readonly reason: string;
  readonly text: string;
  /** The node that answers, while one does. */
  readonly node: string;
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
  const base = { turnId: turn.id, status: turn.status, node: turn.owner?.node ?? "" };
  switch (turn.status) {
    case "running":
      return { ...base, reason: "", text: runningText(turn), action: "stop" };
    case "queued":
      return { ...base, reason: "", text: queuedText(turn), action: "none" };
    case "failed": {
      const text = turn.error?.message ?? "The agent failed.";
      return { ...base, reason: turn.error?.code ?? "", text: `failed — ${text}`, action: "retry" };
    }
    case "cancelled":
      return { ...base, reason: turn.reason ?? "", text: `interrupted — ${cancelText(turn)}`, action: "retry" };
    case "completed":
      return null;
  }
}

/** Cut, and not the newest attempt, or from before what is held: what it said stays, but it is not the one to retry. */
function replaced(message: Message): TurnView {
  return { turnId: message.turn_id ?? "", status: "cancelled", reason: "", text: "interrupted", node: "", action: "none" };
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

/** Who asked for this answer; nothing for what a person said. */
export function askedBy(state: Said, message: Message): string {
  return message.turn_id === null ? "" : (turnOf(state, message)?.by.name ?? "");
}

/** The question of an answer; null where no turn is held that tells, neither its own nor the one that retried it. */
export function questionOf({ turns, ended }: Said, { turn_id: id }: Message): string | null {
  if (id === null) return null;
  const isOf = (turn: Turn): boolean => turn.id === id || turn.retry_of === id;
  return (turns.find(isOf) ?? [...ended.values()].find(isOf))?.prompt_id ?? null;
}

/** What an answer is for, as it stands above it. */
export interface Answering {
  readonly text: string;
  /** Whose question it is, and its id; null where it is not held. */
  readonly by: string | null;
  readonly questionId: string | null;
}

/** Which question the message at `place` answers; null where that stands right above it, or is not known. */
export function answeringOf(messages: readonly Message[], place: number, questionId: string | null): Answering | null {
  const above = messages[place - 1];
  if (questionId === null || !above || above.id === questionId) return null;
  const question = messages.findLast(({ id }) => id === questionId);
  if (!question) return { text: "answering an earlier message", by: null, questionId: null };
  const by = question.author?.name ?? question.role;
  const words = titleFrom(plainText(question));
  return { text: words === "" ? `answering ${by}` : `answering ${by}: ${words}`, by, questionId };
}

/** What the connection element says. */
export function connectionText(state: ConnectionStatus, isJoining: boolean, joinedBefore: boolean): string {
  if (state === "closed") return "Disconnected";
  if (state === "refused") return "Not let in";
  if (state === "offline") return "Offline";
  if (state === "open") return isJoining ? "Joining…" : "Connected";
  return joinedBefore ? "Reconnecting…" : "Connecting…";
}

/** What stands above a session while something is in the way. */
export interface Notice {
  readonly tone: "away" | "bad";
  readonly text: string;
  /** When it is tried again: null while it is being tried, undefined where it is not. */
  readonly retryAt: number | null | undefined;
  readonly action: "retry" | "token" | "rejoin" | null;
}

const KEPT = "What you write is kept here, and sent once you are back.";

/** What is in the way, if anything, and what happens next. No answer ends by it, and it never says so. */
export function noticeOf(
  connection: ConnectionSnapshot,
  session: Pick<SessionSnapshot, "status" | "error">,
  wasOpen: boolean,
): Notice | null {
  const { status, error, failures, retryAt } = connection;
  if (status === "refused") return bad(error?.message ?? "The server lets nobody in.", "token");
  if (session.status === "refused") {
    const { reason, message = "The session cannot be opened." } = session.error ?? {};
    if (reason === "unauthorized") return bad(`This session is not open to you. ${message}`, "token");
    // What cannot be the id of a session will not be one the next time.
    return bad(message, reason === "invalid" ? null : "rejoin");
  }
  if (session.status === "deleted") return bad("This session was deleted.", "rejoin");
  if (status === "offline") return away(`You are offline. Answers go on without you. ${KEPT}`, undefined);
  if (status === "connecting" && wasOpen) return away(`Reconnecting. Answers go on without you, and no word of them is lost. ${KEPT}`, retryAt);
  if (status === "connecting" && failures > 0) return away(`The server cannot be reached. ${KEPT}`, retryAt);
  const passing = session.status === "joining" ? session.error : error;
  return passing ? away(passing.message, undefined) : null;
}

function away(text: string, retryAt: number | null | undefined): Notice {
  return { tone: "away", text, retryAt, action: retryAt === undefined ? null : "retry" };
}

function bad(text: string, action: Notice["action"]): Notice {
  return { tone: "bad", text, retryAt: undefined, action };
}

/** Why a session was not deleted, by the status of the answer (null: there was none), and what to do. */
export function refusedDeletion(status: number | null): string {
  switch (status) {
    case null:
      return "The server gave no answer. See whether you are online, and try again: deleting twice does no harm.";
    case 401:
      return "The server does not take your token any more. Load this page anew with another token, and try again.";
    case 403:
      return "You may not delete this session. Ask somebody who has the admin right on it.";
    case 404:
      return "This session is not there any more: somebody else has deleted it. Choose another one in the list.";
    case 429:
      return "You have asked for too much in a short time. Wait a few seconds, and try again.";
    default:
      return "The server cannot delete it now. Wait a few seconds, and try again.";
  }
}

/** When the next try is made, as it stands beside a notice. */
export function retryText(retryAt: number | null | undefined, nowMs: number): string {
  if (retryAt === undefined) return "";
  const seconds = retryAt === null ? 0 : Math.ceil((retryAt - nowMs) / 1_000);
  return seconds > 0 ? `Next try in ${seconds} s` : "Trying now…";
}

/** What a session is called. */
export function titleOf(session: { readonly title: string | null } | null): string {
  return session?.title ?? "Untitled session";
}

/** How a session in the list is doing. */
export function summaryText({ status, running, updated_at }: SessionSummary, nowMs: number): string {
  const [first, ...others] = running;
  if (first && others.length > 0) return `${running.length} answers are being written`;
  if (first) return `${first.agent} answers ${first.by.name}`;
  return status === "queued" ? "waiting for its turn" : agoText(Date.parse(updated_at), nowMs);
}

/** How long ago, as briefly as a list wants it. */
export function agoText(thenMs: number, nowMs: number): string {
  const minutes = Math.floor((nowMs - thenMs) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ago`;
  return new Date(thenMs).toLocaleDateString([], { day: "numeric", month: "short" });
}

/** A title for a session, out of the first thing that is said in it. */
export function titleFrom(text: string): string {
  const line = text.split("\n").find((part) => part.trim() !== "") ?? "";
  const words = line
    .replace(/^[\s#>*`-]+/u, "")
    .replace(/!?\[([^\]]*)\]\([^)]*\)/gu, "$1")
    .replace(/\*+|`+|~~|__/gu, "")
    .trim();
  return words.length > 60 ? `${words.slice(0, 60).replace(/\s+\S*$/u, "")}…` : words;
}

/** What becomes of something that is not in the log yet. */
export function pendingText({ status, error }: Pick<PendingMessage, "status" | "error">): string {
  if (status === "failed") return `not sent — ${error?.message ?? "The server refused it."}`;
  if (status === "sending") return "sending…";
  return error ? `waits, and is tried again — ${error.message}` : "waits for the connection";
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
