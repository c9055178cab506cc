/**
 * What a session needs of a storage, so that it does not need the storage: types only.
 *
 * `rejoin-client/persist` fills them; whoever does not import it does not carry it.
 */
import type { SessionState } from "./fold.js";
import type { Part } from "./types.js";

/** Where clients keep what they hold: see `persistIn`. */
export interface Persistence {
  /** What keeps one session of one person on one server. */
  keeper(url: string, userId: string, sessionId: string): SessionKeeper;
  /** Removes everything that is kept of one person on one server. */
  forget(url: string, userId: string): Promise<void>;
}

/** Keeps one session: its state with the cursor in it, and each unsent message. Never throws, never rejects. */
export interface SessionKeeper {
  /** What is kept; at once where the storage answers at once. */
  load(): Kept | Promise<Kept>;
  /** Keeps this state, soon. */
  keep(state: SessionState): void;
  /** Writes now what is to be kept. */
  flush(): void;
  /** Drops the state; unsent messages stay. */
  forget(): void;
  /** Keeps an unsent message, at once. */
  save(entry: StoredEntry): void;
  remove(id: string): void;
  /** Whether another window has not sent it or taken it back meanwhile. */
  has(id: string): boolean | Promise<boolean>;
}

/** What was found of a session. */
export interface Kept {
  readonly state: SessionState | null;
  readonly entries: readonly StoredEntry[];
}

/** An unsent message as it is stored. */
export interface StoredEntry {
  readonly id: string;
  readonly at: string;
  readonly payload: SendPayload;
  readonly error: { readonly reason: string; readonly message: string } | null;
}

/** What goes out with a `send`. */
export interface SendPayload {
  readonly id: string;
  readonly text?: string;
  readonly parts?: readonly Part[];
  readonly agent?: string;
  readonly when_busy?: string;
  readonly answer?: boolean;
}
