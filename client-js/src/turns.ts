/**
 * One turn to be read from its start to its end, whenever one begins to read: live, after a refresh, after it is over.
 *
 * It reads what the session holds and waits for changes of it; it keeps nothing, so that a slow reader costs nothing.
 * Invariant: the pieces that were read, put together, are the text of the message.
 */
import { RejoinError } from "./errors.js";
import { turnOf, type SessionState } from "./fold.js";
import { quiet } from "./quiet.js";
import type { CancelReason, Json, Message, PartKind, Person, Turn, TurnError } from "./types.js";

/** How a turn ended. `message` is what there is of the answer; null if nothing was said, or if it is not held. */
export type TurnOutcome =
  | { readonly status: "completed"; readonly message: Message | null; readonly usage: Json }
  | { readonly status: "failed"; readonly message: Message | null; readonly error: TurnError | null }
  | {
      readonly status: "cancelled";
      readonly message: Message | null;
      readonly reason: CancelReason | null;
      readonly by: Person | null;
    };

/** A piece of an answer: `text` follows the part's text of before, `value` replaces the part's value. */
export interface TurnPiece {
  readonly part: number;
  readonly kind: PartKind;
  readonly text?: string;
  readonly value?: Json;
}

/** What a turn needs of its session. */
export interface TurnSource {
  readonly state: () => SessionState | null;
  /** Whether `state` is as new as the server was at the last join. */
  readonly isCaughtUp: () => boolean;
  /** Why nothing will come any more; null while something may. */
  readonly end: () => RejoinError | null;
  readonly subscribe: (listener: () => void) => () => void;
}

/** The answer to a send may come before the event that brings its turn; for so long a turn may be unknown. */
const UNKNOWN_LIMIT_MS = 5_000;

export class TurnReader implements AsyncIterable<string> {
  readonly id: string;
  readonly #source: TurnSource;

  /** @internal Made by `Session.turn`. */
  constructor(source: TurnSource, id: string) {
    this.#source = source;
    this.id = id;
  }

  /** The turn as it is held now; null where it is not held (of an answer that a later attempt has replaced, say). */
  get turn(): Turn | null {
    const state = this.#source.state();
    return state && find(state, this.id);
  }

  /** Its answer as it is held now. */
  get message(): Message | null {
    return messageOf(this.#source.state(), this.id);
  }

  /** The text of the answer in pieces, from its beginning; ends with the turn, however it ends. */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, TurnOutcome, undefined> {
    const pieces = this.pieces();
    for (;;) {
      const { done, value } = await pieces.next();
      if (done) return value;
      if (value.kind === "text" && value.text !== undefined) yield value.text;
    }
  }

  /** The answer in pieces of every kind, from its beginning; ends with the turn, and returns how it ended. */
  pieces(): AsyncGenerator<TurnPiece, TurnOutcome, undefined> {
    const read: string[] = [];
    const values: (Json | undefined)[] = [];
    return this.#follow(() => news(this.message, read, values));
  }

  /** Resolves with how the turn ended, at once if it has. */
  outcome(): Promise<TurnOutcome> {
    return quiet(async () => (await this.#follow(() => []).next()).value as TurnOutcome);
  }

  /** Gives what is new after each change, until the turn has ended. */
  async *#follow(fresh: () => Iterable<TurnPiece>): AsyncGenerator<TurnPiece, TurnOutcome, undefined> {
    const limitMs = performance.now() + UNKNOWN_LIMIT_MS;
    for (;;) {
      // Listened before looking: what changes while a piece is being used is looked at next.
      const change = this.#change();
      try {
        const outcome = this.#outcome(limitMs);
        yield* fresh();
        if (outcome) return outcome;
        await change.happened;
      } finally {
        change.stop();
      }
    }
  }

  #outcome(limitMs: number): TurnOutcome | null {
    const { turn, message } = this;
    if (turn && isOver(turn)) return outcomeOf(turn, message);
    const end = this.#source.end();
    if (end) throw end;
    if (turn || !this.#source.isCaughtUp() || message?.status === "streaming") return null;
    if (!message && performance.now() < limitMs) return null;
    if (!message) throw new RejoinError("not_found", `No turn ${this.id} here: load history().`);
    // The turn itself is known no more, its answer is.
    if (message.status === "complete") return { status: "completed", message, usage: null };
    return { status: "cancelled", message, reason: null, by: null };
  }

  /** The next change; where none comes it is looked again after a while. */
  #change(): { readonly happened: Promise<void>; readonly stop: () => void } {
    let stop = (): void => undefined;
    const happened = new Promise<void>((resolve) => {
      const unsubscribe = this.#source.subscribe(resolve);
      const timer = setTimeout(resolve, UNKNOWN_LIMIT_MS);
      stop = () => {
        clearTimeout(timer);
        unsubscribe();
      };
    });
    return { happened, stop };
  }
}

function find(state: SessionState, id: string): Turn | null {
  const open = state.turns.find((turn) => turn.id === id);
  if (open) return open;
  for (const turn of state.ended.values()) if (turn.id === id) return turn;
  const message = messageOf(state, id);
  return message && turnOf(state, message);
}

function messageOf(state: SessionState | null, turnId: string): Message | null {
  return state?.messages.findLast((message) => message.turn_id === turnId) ?? null;
}

function isOver({ status }: Turn): boolean {
  return status !== "queued" && status !== "running";
}

function outcomeOf(turn: Turn, message: Message | null): TurnOutcome {
  if (turn.status === "completed") return { status: "completed", message, usage: turn.usage };
  if (turn.status === "failed") return { status: "failed", message, error: turn.error };
  return { status: "cancelled", message, reason: turn.reason, by: turn.ended_by ?? null };
}

/** What of `message` has not been read yet; notes it as read. */
function* news(message: Message | null, read: string[], values: (Json | undefined)[]): Generator<TurnPiece> {
  for (const [index, { kind, text = "", value }] of (message?.parts ?? []).entries()) {
    const known = read[index] ?? "";
    if (!text.startsWith(known)) throw new RejoinError("reset");
    const more = text.slice(known.length);
    const isNew = value !== undefined && value !== values[index];
    read[index] = text;
    values[index] = value;
    if (more === "" && !isNew) continue;
    yield { part: index, kind, ...(more === "" ? {} : { text: more }), ...(isNew ? { value } : {}) };
  }
}
