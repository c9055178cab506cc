/**
 * Keeps one session in storage: its state as one record, and each unsent message as another.
 *
 * A failing storage is never an error to anybody: what cannot be read is not there, what cannot be written is not kept.
 * Invariants: writes to one storage take effect in their order; a state is written at most once a second, and at once
 * when the page may go away; a storage that does not answer is waited for a few seconds, once.
 */
import type { SessionState } from "./fold.js";
import type { Found, Kept, SessionKeeper, StoredEntry } from "./kept.js";
import { KEPT_CHARS, decodeEntry, decodeState, discardedAt, encodeDiscarded, encodeEntry, encodeState, found } from "./record.js";
import type { StorageArea } from "./storage.js";

const NOTHING: Kept = { state: null, entries: [] };
const WRITE_EVERY_MS = 1_000;
/** How many sessions of a person are kept; the ones not seen for longest go first. */
const MAX_RECORDS = 50;
const SMALL_CHARS = 50_000;
/** A storage that has not answered by then is done without. */
const ANSWER_WITHIN_MS = 3_000;
/** So long it is remembered that a message was taken back: no other window still wants to send it then. */
const DISCARDED_FOR_MS = 24 * 3_600_000;

/** Everything of this project begins so. */
const ROOT = "rejoin:";

/** Where the records of one person on one server begin. */
export function namespace(url: string, userId: string): string {
  return `${ROOT}${encodeURIComponent(url)}:${encodeURIComponent(userId)}:`;
}

/** Removes everything that is kept of one person. */
export async function forgetAll(area: StorageArea, prefix: string): Promise<void> {
  for (const key of await area.keys(prefix)) await area.remove(key);
}

export class Keeper implements SessionKeeper {
  readonly #area: StorageArea;
  readonly #prefix: string;
  readonly #sessionId: string;
  readonly #key: string;
  readonly #entryPrefix: string;
  #latest: SessionState | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #tail: Promise<void> | null = null;
  /** The storage has kept somebody waiting for too long. */
  #isDead = false;
  #hasPruned = false;

  constructor(area: StorageArea, prefix: string, sessionId: string) {
    this.#area = area;
    this.#prefix = prefix;
    this.#sessionId = sessionId;
    this.#key = `${prefix}s:${sessionId}`;
    // An id of a session holds no slash, so that no prefix of one is that of another.
    this.#entryPrefix = `${prefix}o:${sessionId}/`;
  }

  /** What is kept; at once where the storage answers at once. */
  load(): Kept | Promise<Kept> {
    try {
      const [text, keys] = [this.#area.read(this.#key), this.#area.keys(this.#entryPrefix)];
      if (text instanceof Promise || keys instanceof Promise) return this.#soon(this.#loadLater(text, keys), NOTHING);
      return this.#found(text, keys, keys.map((key) => this.#area.read(key) as string | null));
    } catch {
      return NOTHING;
    }
  }

  /** Keeps this state: at once if none was kept lately, else soon. A page may not live long. */
  keep(state: SessionState): void {
    this.#latest = state;
    if (this.#timer === undefined) this.#writeAndRest();
  }

  /** Writes now what is to be kept. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writeLatest();
  }

  #writeAndRest(): void {
    this.#timer = undefined;
    if (!this.#latest) return;
    this.#timer = setTimeout(() => this.#writeAndRest(), WRITE_EVERY_MS);
    this.#writeLatest();
  }

  #writeLatest(): void {
    const state = this.#latest;
    this.#latest = null;
    // Behind what is never answered states would only pile up.
    if (state && !this.#isDead) this.#run(() => this.#write(state));
  }

  /** Drops the state; unsent messages stay. */
  forget(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#latest = null;
    this.#run(() => this.#area.remove(this.#key));
  }

  save(entry: StoredEntry): void {
    this.#run(() => this.#area.write(this.#entryPrefix + entry.id, encodeEntry(entry)));
  }

  remove(id: string, isDiscarded = false): void {
    const key = this.#entryPrefix + id;
    this.#run(() => (isDiscarded ? this.#area.write(key, encodeDiscarded()) : this.#area.remove(key)));
  }

  /** Where the storage does not answer, the entry counts as there: sending it once more does no harm. */
  look(id: string): Found | Promise<Found> {
    if (this.#isDead) return "kept";
    const read = (): string | null | Promise<string | null> => this.#area.read(this.#entryPrefix + id);
    try {
      const text = this.#tail ? this.#tail.then(read) : read();
      return text instanceof Promise ? this.#soon(text.then(found), "kept").catch(() => "kept") : found(text);
    } catch {
      return "kept";
    }
  }

  async #soon<T>(answer: Promise<T>, otherwise: T): Promise<T> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const limit = new Promise<T>((resolve) => {
      const giveUp = (): void => {
        this.#isDead = true;
        resolve(otherwise);
      };
      timer = setTimeout(giveUp, ANSWER_WITHIN_MS);
    });
    return Promise.race([answer, limit]).finally(() => clearTimeout(timer));
  }

  async #loadLater(reading: string | null | Promise<string | null>, listing: readonly string[] | Promise<readonly string[]>): Promise<Kept> {
    try {
      const [text, keys] = await Promise.all([reading, listing]);
      return this.#found(text, keys, await Promise.all(keys.map(async (key) => this.#area.read(key))));
    } catch {
      return NOTHING;
    }
  }

  #found(text: string | null, keys: readonly string[], texts: readonly (string | null)[]): Kept {
    const state = text === null ? null : decodeState(text, this.#sessionId);
    if (text !== null && !state) this.forget();
    const entries: StoredEntry[] = [];
    texts.forEach((entry, index) => {
      const [key, decoded] = [keys[index], entry === null ? null : decodeEntry(entry)];
      if (decoded) entries.push(decoded);
      else if (key !== undefined && (discardedAt(entry ?? "") ?? Infinity) < Date.now() - DISCARDED_FOR_MS) {
        this.#run(() => this.#area.remove(key));
      }
    });
    return { state, entries };
  }

  /** One after another; at once where the storage does everything at once. */
  #run(action: () => void | Promise<void>): void {
    const swallow = (): void => undefined;
    if (this.#tail) {
      this.#tail = this.#tail.then(action).catch(swallow);
      return;
    }
    try {
      const doing = action();
      if (!(doing instanceof Promise)) return;
      const tail = doing.catch(swallow).finally(() => {
        if (this.#tail === tail) this.#tail = null;
      });
      this.#tail = tail;
    } catch {
      // Not kept, then.
    }
  }

  #write(state: SessionState): void | Promise<void> {
    try {
      const doing = this.#area.write(this.#key, encodeState(state));
      if (doing instanceof Promise) return doing.catch(() => this.#writeIntoFull(state)).then(() => this.#pruneOnce());
      this.#pruneOnce();
    } catch {
      return this.#writeIntoFull(state);
    }
  }

  /** The storage is full: without the other sessions, then with less of this one, then without it. */
  async #writeIntoFull(state: SessionState): Promise<void> {
    await this.#prune(0);
    for (const chars of [KEPT_CHARS, SMALL_CHARS]) {
      try {
        await this.#area.write(this.#key, encodeState(state, chars));
        return;
      } catch {
        // Less, then.
      }
    }
    // What stands there is of an earlier moment, and in the way of what is unsent.
    await this.#area.remove(this.#key);
  }

  #pruneOnce(): void {
    if (this.#hasPruned) return;
    this.#hasPruned = true;
    void this.#prune(MAX_RECORDS).catch(() => undefined);
  }

  /** Removes the oldest records of other sessions until so many are left. */
  async #prune(left: number): Promise<void> {
    const keys = (await this.#area.keys(`${this.#prefix}s:`)).filter((key) => key !== this.#key);
    if (keys.length <= left) return;
    const dated = await Promise.all(keys.map(async (key) => ({ key, at: writtenAt(await this.#area.read(key)) })));
    dated.sort((a, b) => a.at - b.at);
    for (const { key } of dated.slice(0, dated.length - left)) await this.#area.remove(key);
  }
}

/** When a record was written, without reading all of it. */
function writtenAt(text: string | null): number {
  return Number(/^\{"v":\d+,"at":(\d+)/u.exec(text ?? "")?.[1] ?? 0);
}
