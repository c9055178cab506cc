/** Sets of listeners, and what they listen to. One that throws neither stops the others nor the one who emits. */

export class Listeners<Args extends unknown[]> {
  readonly #listeners = new Set<(...args: Args) => void>();

  /** Adds a listener; the function returned removes it. */
  add(listener: (...args: Args) => void): () => void {
    const own = (...args: Args): void => listener(...args);
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  /** Calls every listener that is there now. */
  emit(...args: Args): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(...args);
      } catch (error) {
        // Thrown anew outside, where it is reported as any uncaught error is.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/** Listeners by name, each with the arguments that `Events` gives it. */
export class Emitter<Events extends Record<keyof Events, unknown[]>> {
  readonly #named = new Map<keyof Events, Listeners<never>>();

  on<Name extends keyof Events>(name: Name, listener: (...args: Events[Name]) => void): () => void {
    const known = this.#named.get(name) as Listeners<Events[Name]> | undefined;
    const listeners = known ?? new Listeners<Events[Name]>();
    this.#named.set(name, listeners as unknown as Listeners<never>);
    return listeners.add(listener);
  }

  emit<Name extends keyof Events>(name: Name, ...args: Events[Name]): void {
    (this.#named.get(name) as Listeners<Events[Name]> | undefined)?.emit(...args);
  }
}

/** Something that can be read at any time and tells when it has changed: what `useSyncExternalStore` wants. */
export interface Readable<Snapshot> {
  /** Everything as it is now: the same object until something changes. Bound. */
  readonly getSnapshot: () => Snapshot;
  /** Calls `listener` after each change; the function returned stops that. Bound. */
  readonly subscribe: (listener: () => void) => () => void;
  /** What a page shows that is rendered on a server: nothing is known yet. Always the same object. Bound. */
  readonly getServerSnapshot: () => Snapshot;
}

/** One snapshot that changes field by field: the same object until a field is another one. */
export class Store<Snapshot extends object> {
  /** As it was before anything was known. */
  readonly initial: Snapshot;
  readonly #changed = new Listeners<[]>();
  #snapshot: Snapshot;

  constructor(initial: Snapshot, change: Partial<Snapshot>) {
    this.initial = initial;
    this.#snapshot = { ...initial, ...change };
  }

  get snapshot(): Snapshot {
    return this.#snapshot;
  }

  subscribe(listener: () => void): () => void {
    return this.#changed.add(listener);
  }

  set(change: Partial<Snapshot>): void {
    const keys = Object.keys(change) as (keyof Snapshot)[];
    if (keys.every((key) => change[key] === this.#snapshot[key])) return;
    this.#snapshot = { ...this.#snapshot, ...change };
    this.#changed.emit();
  }
}
