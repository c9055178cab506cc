/** What `work` promises, to whoever waits for it; where nobody does, its failure is no unhandled rejection. */
export function quiet<T>(work: () => Promise<T>): Promise<T> {
  const promise = work();
  promise.catch(() => undefined);
  return promise;
}
