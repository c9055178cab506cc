/** Puts a session's snapshot together, so that what did not change keeps its identity. Pure. */
import type { SessionState } from "./fold.js";
import type { SessionSnapshot } from "./shapes.js";
import type { PresenceEntry, Turn } from "./types.js";

/** A session of which nothing is known yet. */
export function emptySnapshot(id: string): SessionSnapshot {
  return {
    id,
    status: "idle",
    connection: "closed",
    error: null,
    ...ofState(null),
    outbox: NONE,
    people: NONE,
    agents: NONE,
  };
}

type OfState = Pick<
  SessionSnapshot,
  "info" | "messages" | "turns" | "running" | "queue" | "ended" | "lastSeq" | "hasMore" | "isReady"
>;

const NONE: readonly never[] = [];
const NO_ENDED: ReadonlyMap<string, Turn> = new Map();

/** The part of a snapshot that is the fold's; `before` is where unchanged lists are taken from. */
export function ofState(state: SessionState | null, before?: OfState): OfState {
  if (!state) {
    const lists = { messages: NONE, turns: NONE, running: NONE, queue: NONE, ended: NO_ENDED };
    return { isReady: false, info: null, ...lists, lastSeq: 0, hasMore: false };
  }
  const { session: info, messages, turns, ended, lastSeq, hasMore } = state;
  const { running, queue } = before?.turns === turns ? before : byStatus(turns);
  return { isReady: true, info, messages, turns, running, queue, ended, lastSeq, hasMore };
}

/** The part that is presence's. */
export function ofPresence(entries: readonly PresenceEntry[]): Pick<SessionSnapshot, "people" | "agents"> {
  return { people: entries.filter((entry) => !entry.isAgent), agents: entries.filter((entry) => entry.isAgent) };
}

function byStatus(turns: readonly Turn[]): Pick<SessionSnapshot, "running" | "queue"> {
  return {
    running: turns.filter((turn) => turn.status === "running"),
    queue: turns.filter((turn) => turn.status === "queued"),
  };
}
