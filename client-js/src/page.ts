/**
 * What happens to the page that this runs in: its network, its visibility, its sleep. Outside of a browser nothing does.
 *
 * `hidden` and `suspend` may be the last that a page hears: what must survive has to be written then.
 */

export interface PageEvents {
  /** The browser has a network again, or says that it has none. */
  online(): void;
  offline(): void;
  /** The page is looked at again, or was woken from a freeze. */
  shown(): void;
  /** The page is not seen any more, or is about to be frozen. */
  hidden(): void;
  /** The page goes away, perhaps to be kept aside as it is. */
  suspend(): void;
  /** The page that was kept aside is back. */
  resume(): void;
}

/** Whether the browser says that there is a network; where nobody says anything, there is. */
export function isOnline(): boolean {
  return (globalThis as { navigator?: { onLine?: boolean } }).navigator?.onLine !== false;
}

/** Listens until the function returned is called. */
export function watchPage(events: PageEvents): () => void {
  if (typeof document === "undefined") return () => undefined;
  const until = new AbortController();
  const on = (target: EventTarget, name: string, listener: (event: Event) => void): void =>
    target.addEventListener(name, listener, { signal: until.signal });
  on(window, "online", () => events.online());
  on(window, "offline", () => events.offline());
  on(document, "visibilitychange", () => (document.visibilityState === "hidden" ? events.hidden() : events.shown()));
  on(document, "freeze", () => events.hidden());
  on(document, "resume", () => events.shown());
  on(window, "pagehide", () => events.suspend());
  on(window, "pageshow", (event) => {
    if ((event as PageTransitionEvent).persisted) events.resume();
  });
  return () => until.abort();
}
