/**
 * Where one session is kept, as the session sees it: perhaps nowhere, perhaps known only later.
 *
 * Whose records they are may have to wait for the first token, and the storage may take its time; until then nothing is
 * kept, and `ready` says when that is over. What was found is told once.
 */
import type { Found, Kept, SessionKeeper, StoredEntry } from "./kept.js";

type MaybeLater<T> = T | Promise<T>;

export class Vault {
  /** Null where nothing is kept, or not yet. */
  keeper: SessionKeeper | null = null;
  #ready: Promise<void> | null = null;

  /** Takes up what an earlier page has kept: at once where that is possible. */
  open(keeper: MaybeLater<SessionKeeper | null>, found: (kept: Kept) => void): void {
    const load = (keeper: SessionKeeper | null): MaybeLater<void> => {
      this.keeper = keeper;
      const kept = keeper?.load();
      if (kept instanceof Promise) return kept.then(found);
      if (kept) found(kept);
    };
    const loading = keeper instanceof Promise ? keeper.then(load) : load(keeper);
    if (!(loading instanceof Promise)) return;
    this.#ready = loading
      .catch(() => found({ state: null, entries: [] }))
      .finally(() => {
        this.#ready = null;
      });
  }

  /** Ends when what was kept has been told; null once that is so. */
  get ready(): Promise<void> | null {
    return this.#ready;
  }

  save(entry: StoredEntry): void {
    this.keeper?.save(entry);
  }

  remove(id: string, isDiscarded?: boolean): void {
    this.keeper?.remove(id, isDiscarded);
  }

  look(id: string): MaybeLater<Found> {
    return this.keeper?.look(id) ?? "kept";
  }
}
