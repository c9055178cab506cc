/** Counts what a client was shown of an answer: characters that were lost, and characters that came twice. */
import type { Session, SessionSnapshot } from "../../src/index.js";

export const WORDS = Array.from({ length: 60 }, (_, index) => `word${index + 1}`).join(" ");
/** What the echo agent answers to `WORDS`. */
export const ANSWER = `You said: ${WORDS}`;

export interface Count {
  readonly lost: number;
  readonly doubled: number;
}

/** Compares what is shown with what was said: each word of the answer is there once. */
export function count(shown: string, whole: string): Count {
  const [seen, wanted] = [tally(shown), tally(whole)];
  let [lost, doubled] = [0, 0];
  for (const [word, times] of wanted) lost += Math.max(0, times - (seen.get(word) ?? 0)) * word.length;
  for (const [word, times] of seen) doubled += Math.max(0, times - (wanted.get(word) ?? 0)) * word.length;
  // Each word once, and yet not the same text: then the order is wrong, which is as bad.
  return lost + doubled === 0 && shown.trim() !== whole ? { lost: whole.length, doubled: 0 } : { lost, doubled };
}

export function answerOf({ messages }: Pick<SessionSnapshot, "messages">): string {
  const answer = messages.findLast(({ role }) => role === "assistant");
  return answer?.parts.map(({ text = "" }) => text).join("") ?? "";
}

/** Resolves when the session's snapshot is as wanted; rejects after a limit, and says what it was instead. */
export function until(
  session: Session,
  what: string,
  isSo: (snapshot: SessionSnapshot) => boolean,
  limitMs = 20_000,
): Promise<SessionSnapshot> {
  return new Promise((resolve, reject) => {
    const look = (): void => {
      const snapshot = session.getSnapshot();
      if (!isSo(snapshot)) return;
      stop();
      clearTimeout(timer);
      resolve(snapshot);
    };
    const stop = session.subscribe(look);
    const timer = setTimeout(() => {
      stop();
      const { status, connection, error, lastSeq, outbox } = session.getSnapshot();
      reject(new Error(`not ${what} within ${limitMs} ms: ${JSON.stringify({ status, connection, error, lastSeq, outbox })}`));
    }, limitMs);
    look();
  });
}

function tally(text: string): Map<string, number> {
  const words = new Map<string, number>();
  for (const word of text.split(/\s+/u)) if (word !== "") words.set(word, (words.get(word) ?? 0) + 1);
  return words;
}
