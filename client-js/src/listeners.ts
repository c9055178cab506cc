/** A set of listeners. One that throws neither stops the others nor the one who emits. */
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
