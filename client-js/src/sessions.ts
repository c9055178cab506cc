/**
 * The sessions of a client: which object stands for which id.
 *
 * One that is in use is kept, and so are the few last ones that were; any other stays only for as long as somebody else
 * holds it, so that a page may open thousands in a day. Invariant: there are never two objects of one id to be had.
 */
import type { Session } from "./session.js";

/** So many that are not in use are kept with what they hold: people go back and forth. */
const KEPT_UNUSED = 20;

export class Sessions {
  readonly #known = new Map<string, WeakRef<Session>>();
  /** Those used last come last. */
  readonly #kept = new Set<Session>();

  get(id: string): Session | undefined {
    return this.#known.get(id)?.deref();
  }

  /** All that somebody may be looking at. */
  get all(): readonly Session[] {
    return [...this.#known.values()].flatMap((known) => known.deref() ?? []);
  }

  /** A new one, in place of what is not in use any more. */
  add(session: Session): void {
    this.keep(session);
    const unused = [...this.#kept].filter(({ isUsed }) => !isUsed);
    unused.slice(0, -KEPT_UNUSED).forEach((old) => this.#kept.delete(old));
    this.#known.forEach((known, id) => known.deref() ?? this.#known.delete(id));
    this.#known.set(session.id, new WeakRef(session));
  }

  /** It is about to be used. */
  keep(session: Session): void {
    this.#kept.delete(session);
    this.#kept.add(session);
  }
}
