/** A storage for tests: a map, at once or a little later, that can be made to fail. */
import type { StorageArea } from "../../src/persist.js";

export class MemoryArea implements StorageArea {
  readonly values = new Map<string, string>();
  /** How much fits. */
  limitChars = Infinity;
  isBroken = false;

  read(key: string): string | null {
    this.#check();
    return this.values.get(key) ?? null;
  }

  write(key: string, value: string): void {
    this.#check();
    const others = [...this.values].reduce((sum, [other, text]) => (other === key ? sum : sum + text.length), 0);
    if (others + value.length > this.limitChars) throw new Error("full");
    this.values.set(key, value);
  }

  remove(key: string): void {
    this.#check();
    this.values.delete(key);
  }

  keys(prefix: string): readonly string[] {
    this.#check();
    return [...this.values.keys()].filter((key) => key.startsWith(prefix));
  }

  /** The texts under keys that contain this. */
  under(part: string): string[] {
    return [...this.values].filter(([key]) => key.includes(part)).map(([, text]) => text);
  }

  #check(): void {
    if (this.isBroken) throw new Error("broken");
  }
}

/** The same, answering later. */
export function later(area: MemoryArea): StorageArea {
  const soon = async <T>(act: () => T): Promise<T> => {
    await Promise.resolve();
    return act();
  };
  return {
    read: (key) => soon(() => area.read(key)),
    write: (key, value) => soon(() => area.write(key, value)),
    remove: (key) => soon(() => area.remove(key)),
    keys: (prefix) => soon(() => area.keys(prefix)),
  };
}
