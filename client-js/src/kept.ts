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
  /** Removes one: it is in the log; or, if `isDiscarded`, it was taken back, which other windows must come to know. */
  remove(id: string, isDiscarded?: boolean): void;
  /** What has become of one meanwhile: another window may have sent it, or taken it back. */
  look(id: string): Found | Promise<Found>;
}

/** What has become of an unsent message: it is `kept`, it was `discarded` by somebody, or nothing is known of it. */
export type Found = "kept" | "discarded" | "gone";

/** What was found of a session. */
export interface Kept {
  readonly state: SessionState | null;
  readonly entries: readonly StoredEntry[];
}

/** An unsent message as it is stored. */
export interface StoredEntry {
  readonly id: string;
  readonly at: string;
  /** Its place among the others of its session. */
  readonly order: number;
  readonly payload: SendPayload;
  readonly error: { readonly reason: string; readonly message: string } | null;
}

/** What goes out with a `send`. */
export interface SendPayload {
  readonly id: string;
  readonly text?: string;
  readonly parts?: readonly Part[];
  readonly agent?: string | undefined;
  readonly when_busy?: string | undefined;
  readonly answer?: boolean | undefined;
}
