/**
 * What a screen reader is told: what begins and what ends, never each piece of an answer.
 *
 * Only what happens now; what a page catches up with is there to be read.
 */
import type { Session, SessionEvent, Turn } from "../src/index.js";
import { byId } from "./dom.js";
import { plainText } from "./words.js";

const region = byId("announcer", HTMLElement);
const MAX_CHARS = 600;
const MAX_LINES = 4;

/** Says something when there is a pause. */
export function announce(text: string): void {
  // Each as an element of its own, or the same words twice in a row would be said once.
  const line = document.createElement("p");
  line.textContent = text;
  region.append(line);
  while (region.childElementCount > MAX_LINES) region.firstElementChild?.remove();
}

/** Announces what happens in a session, until the function returned is called. */
export function announceEvents(session: Session, userId: string): () => void {
  return session.on("event", (event, { isReplayed }) => {
    const words = isReplayed ? null : wordsOf(event, session, userId);
    if (words !== null) announce(words);
  });
}

function wordsOf(event: SessionEvent, session: Session, userId: string): string | null {
  if (event.type === "message_added") {
    const { message } = event.data as { message: Parameters<typeof plainText>[0] };
    return event.by && event.by.id !== userId ? `${event.by.name}: ${short(plainText(message))}` : null;
  }
  if (event.type === "turn_started") return `${(event.data as { turn: Turn }).turn.agent} is answering.`;
  if (event.type === "turn_completed") return `The answer: ${short(textOf(session, event.turn_id))}`;
  if (event.type === "turn_failed") return "The answer failed.";
  if (event.type === "turn_cancelled") return event.by ? `${event.by.name} stopped the answer.` : "The answer was interrupted.";
  return null;
}

function textOf(session: Session, turnId: string | null): string {
  const answer = session.snapshot.messages.findLast((message) => message.turn_id === turnId);
  return answer ? plainText(answer) : "";
}

function short(text: string): string {
  return text.length > MAX_CHARS ? `${text.slice(0, MAX_CHARS)} … and more` : text;
}
