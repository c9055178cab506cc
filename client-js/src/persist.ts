/** Keeps what a page holds across a refresh: `new Rejoin(url, { persist: persistIn("sessionStorage") })`. */
import { Keeper, forgetAll, namespace } from "./keeper.js";
import type { Persistence, SessionKeeper } from "./kept.js";
import { storageArea, type StorageArea, type StorageName } from "./storage.js";

export type { Found, Kept, Persistence, SendPayload, SessionKeeper, StoredEntry } from "./kept.js";
export type { StorageArea, StorageName } from "./storage.js";

const NOTHING = { state: null, entries: [] };
const NO_KEEPER: SessionKeeper = {
  load: () => NOTHING,
  keep: () => undefined,
  flush: () => undefined,
  forget: () => undefined,
  save: () => undefined,
  remove: () => undefined,
  look: () => "kept",
};

/**
 * Keeps sessions and unsent messages in a storage of the browser, or in one of your own. `sessionStorage` is that of
 * the tab; `localStorage` and `indexedDB` are there for all tabs and after a restart, and the latter holds far more.
 * Where the browser has no such storage, nothing is kept.
 */
export function persistIn(where: StorageName | StorageArea): Persistence {
  const area = typeof where === "string" ? storageArea(where) : where;
  return {
    keeper: (url, userId, sessionId) => (area ? new Keeper(area, namespace(url, userId), sessionId) : NO_KEEPER),
    forget: async (url, userId) => {
      if (area) await forgetAll(area, namespace(url, userId)).catch(() => undefined);
    },
  };
}
