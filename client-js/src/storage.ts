/**
 * Where a page keeps what it holds, so that a refresh shows it at once.
 *
 * One small interface, and the browser's three places in it. A place may fail at any time (full, forbidden, damaged);
 * whoever uses it treats that as an empty one.
 */

/** Texts by key. A value is written whole or not at all. */
export interface StorageArea {
  read(key: string): string | null | Promise<string | null>;
  write(key: string, value: string): void | Promise<void>;
  remove(key: string): void | Promise<void>;
  /** All keys that begin so. */
  keys(prefix: string): readonly string[] | Promise<readonly string[]>;
}

/** `sessionStorage`: this tab. `localStorage`, `indexedDB`: all tabs, also tomorrow; the latter holds far more. */
export type StorageName = "sessionStorage" | "localStorage" | "indexedDB";

/** The place of that name; null where this browser has none. */
export function storageArea(name: StorageName): StorageArea | null {
  try {
    if (name === "indexedDB") return typeof indexedDB === "undefined" ? null : idbArea(indexedDB);
    // Reading the property alone may throw, where a page may not store anything.
    const storage = globalThis[name] as Storage | undefined;
    return storage ? webArea(storage) : null;
  } catch {
    return null;
  }
}

function webArea(storage: Storage): StorageArea {
  return {
    read: (key) => storage.getItem(key),
    write: (key, value) => storage.setItem(key, value),
    remove: (key) => storage.removeItem(key),
    keys: (prefix) => Array.from({ length: storage.length }, (_, index) => storage.key(index) ?? "").filter((key) => key.startsWith(prefix)),
  };
}

const DATABASE = "rejoin";
const STORE = "kept";

function idbArea(factory: IDBFactory): StorageArea {
  let opening: Promise<IDBDatabase> | null = null;
  const open = (): Promise<IDBDatabase> => {
    opening ??= new Promise<IDBDatabase>((resolve, reject) => {
      const request = factory.open(DATABASE, 1);
      request.onupgradeneeded = () => void request.result.createObjectStore(STORE);
      request.onblocked = () => reject(new Error("Another window keeps the database from opening."));
      request.onerror = () => reject(request.error ?? new Error("The database does not open."));
      request.onsuccess = () => {
        // The next use opens it again: another window wants to change it, or the browser has cleared it.
        request.result.onversionchange = () => request.result.close();
        request.result.onclose = () => (opening = null);
        resolve(request.result);
      };
    });
    opening.catch(() => (opening = null));
    return opening;
  };
  const run = async <T>(mode: IDBTransactionMode, ask: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> => {
    const database = await open();
    return new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = ask(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error ?? new Error("The database took nothing."));
    });
  };
  return {
    read: async (key) => ((await run("readonly", (store) => store.get(key))) as string | undefined) ?? null,
    write: async (key, value) => {
      await run("readwrite", (store) => store.put(value, key));
    },
    remove: async (key) => {
      await run("readwrite", (store) => store.delete(key));
    },
    keys: async (prefix) => {
      const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
      return (await run("readonly", (store) => store.getAllKeys(range))) as string[];
    },
  };
}
