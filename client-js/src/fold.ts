/**
 * The fold: events in, state out. Pure; knows no connection and no clock.
 *
 * The server has the same function, and the vectors in `protocol/vectors/fold` hold both to it. Invariant: a state is
 * never changed in place, and a message leaves or changes only by an event of its own turn or by a snapshot. What did
 * not change keeps its identity, so that a view can compare by `===`; a delta copies one part, not one answer.
 */
import type {
  Delta,
  HistoryReply,
  JoinReply,
  KnownEvent,
  Message,
  Part,
  Person,
  SessionEvent,
  SessionInfo,
  Snapshot,
  Turn,
} from "./types.js";

/** What a client holds of a session. */
export interface SessionState {
  readonly session: SessionInfo;
  /** Ordered by seq. */
  readonly messages: readonly Message[];
  /** The running turns by start, then the queued ones in the order in which they will run. */
  readonly turns: readonly Turn[];
  /** By prompt id: its newest turn, if that has ended. */
  readonly ended: ReadonlyMap<string, Turn>;
  /** The seq of the last event in here; with `epoch` the cursor of the next join. */
  readonly lastSeq: number;
  readonly epoch: string;
  /** What to ask for older messages with. */
  readonly before: number | null;
  /** Whether there are older messages than those held. */
  readonly hasMore: boolean;
}

type Ended = Pick<Turn, "status"> & Partial<Pick<Turn, "reason" | "error" | "usage">>;

/**
 * Applies one event. An event of an unknown type only advances `lastSeq`; one that is in the state already changes
 * nothing.
 */
export function applyEvent(state: SessionState, event: SessionEvent): SessionState {
  if (event.seq <= state.lastSeq) return state;
  const next = applyKnown(state, event as KnownEvent);
  const session = { ...next.session, status: statusOf(next.turns), last_seq: event.seq, updated_at: event.at };
  return { ...next, session, lastSeq: event.seq };
}

/** Applies events in their order. */
export function applyEvents(state: SessionState, events: readonly SessionEvent[]): SessionState {
  return events.reduce(applyEvent, state);
}

/**
 * The state after a join. A snapshot replaces everything. A replay continues `state`, which must hold everything up to
 * `replay.from`; with null it continues an empty log.
 */
export function fromJoin(state: SessionState | null, reply: JoinReply): SessionState {
  const { session, turns, replay } = reply;
  if (replay.mode === "snapshot") return fromSnapshot(reply, replay);
  const held = state ?? emptyState(session, replay.from);
  const next = { ...applyEvents(held, replay.events), lastSeq: Math.max(held.lastSeq, replay.to) };
  // `session` and `turns` are those of the cut. While pages of the replay are still to come, the fold gets there.
  return replay.to < session.last_seq ? next : { ...next, session, turns };
}

/** The state where nothing goes on any more: an answer that was being written is all that was said of it. */
export function stopTurns(state: SessionState): SessionState {
  const stop = (message: Message): Message => (message.status === "streaming" ? { ...message, status: "partial" } : message);
  return { ...state, turns: [], messages: state.messages.map(stop) };
}

/** Adds older messages. What is held already stays as it is. */
export function addHistory(state: SessionState, reply: HistoryReply): SessionState {
  const held = new Set(state.messages.map((message) => message.id));
  const older = reply.messages.filter((message) => !held.has(message.id));
  const messages = [...older, ...state.messages].sort((a, b) => a.seq - b.seq);
  const open = new Set(state.turns.map((turn) => turn.prompt_id));
  const ended = new Map(reply.ended.filter((turn) => !open.has(turn.prompt_id)).map((turn) => [turn.prompt_id, turn]));
  state.ended.forEach((turn, promptId) => ended.set(promptId, turn));
  return { ...state, messages, ended, before: reply.before, hasMore: reply.has_more };
}

/**
 * The turn that a message belongs to: of an answer the one that writes or wrote it, of a prompt the newest one that
 * answers it. Null where there is none, or where it is not held (an answer that a later attempt has replaced).
 */
export function turnOf(state: Pick<SessionState, "turns" | "ended">, message: Message): Turn | null {
  const turnId = message.turn_id;
  const open = state.turns.find((turn) => (turnId === null ? turn.prompt_id === message.id : turn.id === turnId));
  if (open) return open;
  if (turnId === null) return state.ended.get(message.id) ?? null;
  for (const turn of state.ended.values()) if (turn.id === turnId) return turn;
  return null;
}

function fromSnapshot({ session, turns }: JoinReply, snapshot: Snapshot): SessionState {
  return {
    session,
    messages: [...snapshot.messages].sort((a, b) => a.seq - b.seq),
    turns,
    ended: new Map(snapshot.ended.map((turn) => [turn.prompt_id, turn])),
    lastSeq: snapshot.to,
    epoch: session.epoch,
    before: snapshot.before,
    hasMore: snapshot.has_more,
  };
}

function emptyState(session: SessionInfo, lastSeq: number): SessionState {
  const { epoch } = session;
  return { session, messages: [], turns: [], ended: new Map(), lastSeq, epoch, before: null, hasMore: false };
}

function applyKnown(state: SessionState, event: KnownEvent): SessionState {
  switch (event.type) {
    case "message_added":
      return { ...state, messages: put(state.messages, event.data.message) };
    case "turn_queued":
      return accept(state, event.data.turn, (turns) => enqueue(turns, event.data.turn));
    case "turn_started":
      return start(state, event.data.turn, event.seq, event.at);
    case "turn_delta":
      return stream(state, event.turn_id, event.data);
    case "turn_completed":
      return end(state, event, event.data.message, { status: "completed", usage: event.data.usage });
    case "turn_failed":
      return end(state, event, event.data.message, { status: "failed", error: event.data.error });
    case "turn_cancelled":
      return end(state, event, event.data.message, { status: "cancelled", reason: event.data.reason });
    case "session_updated": {
      const { title, metadata, max_running } = event.data;
      return { ...state, session: { ...state.session, title, metadata, max_running } };
    }
    default:
      return state;
  }
}

/** A turn waits or runs: whatever ended before for its prompt is not the newest any more. */
function accept(state: SessionState, turn: Turn, place: (others: readonly Turn[]) => readonly Turn[]): SessionState {
  const others = state.turns.filter((other) => other.id !== turn.id);
  const turns = renumber(place(others));
  if (!state.ended.has(turn.prompt_id)) return { ...state, turns };
  const ended = new Map(state.ended);
  ended.delete(turn.prompt_id);
  return { ...state, turns, ended };
}

/** At its position, which is the head of the queue for a turn that interrupts, or else at the end. */
function enqueue(turns: readonly Turn[], turn: Turn): readonly Turn[] {
  const running = turns.filter((other) => other.status === "running").length;
  const place = turn.position === null ? turns.length : Math.min(running + turn.position - 1, turns.length);
  return turns.toSpliced(place, 0, turn);
}

function start(state: SessionState, turn: Turn, seq: number, at: string): SessionState {
  const next = accept(state, turn, (turns) => {
    const running = turns.filter((other) => other.status === "running").length;
    return turns.toSpliced(running, 0, turn);
  });
  const answer: Message = {
    id: turn.reply_id,
    seq,
    role: "assistant",
    author: { id: `agent:${turn.agent}`, name: turn.agent },
    turn_id: turn.id,
    status: "streaming",
    parts: [],
    created_at: at,
  };
  return { ...next, messages: put(next.messages, answer) };
}

function stream(state: SessionState, turnId: string | null, delta: Delta): SessionState {
  const index = state.messages.findLastIndex((m) => m.turn_id === turnId && m.status === "streaming");
  const message = state.messages[index];
  if (turnId === null || !message) return state;
  return { ...state, messages: state.messages.with(index, { ...message, parts: grow(message.parts, delta) }) };
}

/** Text appends, a value replaces; a delta that would leave a hole starts the next part instead. */
function grow(parts: readonly Part[], delta: Delta): readonly Part[] {
  const index = Math.min(delta.part, parts.length);
  const old: Part = parts[index] ?? { kind: delta.kind };
  // Null is no value: it replaces nothing.
  const text = typeof delta.text === "string" ? { text: (old.text ?? "") + delta.text } : {};
  const value = delta.value === undefined || delta.value === null ? {} : { value: delta.value };
  return parts.toSpliced(index, 1, { ...old, ...text, ...value });
}

function end(
  state: SessionState,
  event: { readonly turn_id: string | null; readonly at: string; readonly by: Person | null },
  message: Message | null,
  how: Ended,
): SessionState {
  const turn = state.turns.find((other) => other.id === event.turn_id);
  const messages = message
    ? put(state.messages, message)
    : state.messages.filter((held) => held.turn_id === null || held.turn_id !== event.turn_id);
  if (!turn) return { ...state, messages };
  const over: Turn = { ...turn, ...how, position: null, owner: null, ended_at: event.at, ended_by: event.by };
  const turns = renumber(state.turns.filter((other) => other !== turn));
  return { ...state, messages, turns, ended: new Map(state.ended).set(turn.prompt_id, over) };
}

/** Replaces the message of that id, or puts it where its seq belongs: nearly always at the end. */
function put(messages: readonly Message[], message: Message): readonly Message[] {
  const held = messages.findLastIndex((other) => other.id === message.id);
  if (held >= 0) return messages.with(held, message);
  const before = messages.findLastIndex((other) => other.seq < message.seq);
  return messages.toSpliced(before + 1, 0, message);
}

/** Gives the queued turns their positions from 1. */
function renumber(turns: readonly Turn[]): readonly Turn[] {
  let position = 0;
  return turns.map((turn) => {
    if (turn.status !== "queued") return turn;
    position += 1;
    return turn.position === position ? turn : { ...turn, position };
  });
}

function statusOf(turns: readonly Turn[]): SessionInfo["status"] {
  if (turns.some((turn) => turn.status === "running")) return "running";
  return turns.length > 0 ? "queued" : "idle";
}
