/**
 * What somebody does at this moment and nobody needs later: typing, a cursor, a selection. `live(session, "typing")`.
 *
 * Sent to the others by `broadcast`, past the log, and not more often than is worth it. Invariants: what somebody shows
 * vanishes when it is cleared, when nothing was heard for a while, and when that person leaves; the last value of a
 * burst is always sent.
 */
import { Listeners, type Readable } from "./listeners.js";
import type { Session } from "./session.js";
import type { BroadcastMessage, Json, Person, PresenceEntry } from "./types.js";

export interface LiveOptions {
  /** A value that changes is sent at most so often. 100 ms unless given. */
  readonly everyMs?: number;
  /** What nothing was heard of for so long is over; the same value is sent again in half of that. 5 s unless given. */
  readonly expiresMs?: number;
}

/** What one other person shows. */
export interface LiveEntry<Value extends Json = Json> {
  readonly by: Person;
  readonly value: Value;
}

interface Held {
  readonly by: Person;
  readonly text: string;
  readonly timer: ReturnType<typeof setTimeout>;
}

const NOTHING: readonly never[] = [];
const known = new WeakMap<Session, Map<string, LiveState<never>>>();

/**
 * What each person in a session does at this moment, under a name of your choice. Always the same object for one name;
 * the options count the first time.
 */
export function live<Value extends Json = Json>(session: Session, name: string, options: LiveOptions = {}): LiveState<Value> {
  const named = known.get(session) ?? new Map<string, LiveState<never>>();
  known.set(session, named);
  const state = (named.get(name) as LiveState<Value> | undefined) ?? new LiveState<Value>(session, name, options);
  named.set(name, state as unknown as LiveState<never>);
  return state;
}

export class LiveState<Value extends Json = Json> implements Readable<readonly LiveEntry<Value>[]> {
  readonly name: string;
  readonly #session: Session;
  readonly #everyMs: number;
  readonly #expiresMs: number;
  readonly #changed = new Listeners<[]>();
  readonly #held = new Map<string, Held>();
  #entries: readonly LiveEntry<Value>[] = NOTHING;
  #people: readonly PresenceEntry[] = NOTHING;
  #next: string | null = null;
  #sent: string | null = null;
  #sentAt = -Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @internal Made by `live`. */
  constructor(session: Session, name: string, { everyMs = 100, expiresMs = 5_000 }: LiveOptions) {
    this.name = name;
    this.#session = session;
    this.#everyMs = everyMs;
    this.#expiresMs = expiresMs;
    const own = [session.on("broadcast", (message) => this.#received(message)), session.subscribe(() => this.#peopleChanged())];
    // Nobody looks yet: a session does not have to be there for that.
    for (const end of own) session.users.delete(end);
  }

  /** What the others show, by who came first. The same array until something changes. */
  readonly getSnapshot = (): readonly LiveEntry<Value>[] => this.#entries;
  readonly getServerSnapshot = (): readonly LiveEntry<Value>[] => NOTHING;
  readonly subscribe = (listener: () => void): (() => void) => {
    const [stop, release] = [this.#changed.add(listener), this.#session.subscribe(() => undefined)];
    return () => {
      stop();
      release();
    };
  };

  /** Shows a value to the others: call it as often as you like, with each key or move. */
  set(value: Value): void {
    this.#want(JSON.stringify(value));
  }

  /** Shows nothing any more. */
  clear(): void {
    if (this.#sent === null && this.#next === null) return;
    this.#want(null);
  }

  #received({ event, payload, by }: BroadcastMessage): void {
    if (event !== this.name || !by || by.id === this.#session.me?.id) return;
    const value = typeof payload === "object" && payload !== null && "value" in payload ? payload.value : null;
    const held = this.#held.get(by.id);
    clearTimeout(held?.timer);
    if (value === null) this.#drop(by.id);
    else this.#hold(by, JSON.stringify(value), held);
  }

  /** What those show who left is over. */
  #peopleChanged(): void {
    const { people } = this.#session.snapshot;
    if (people === this.#people) return;
    this.#people = people;
    const here = new Set(people.map(({ id }) => id));
    for (const [id, { timer }] of this.#held) {
      if (here.has(id)) continue;
      clearTimeout(timer);
      this.#drop(id);
    }
  }

  #hold(by: Person, text: string, before: Held | undefined): void {
    const timer = setTimeout(() => this.#drop(by.id), this.#expiresMs);
    this.#held.set(by.id, { by, text, timer });
    if (before?.text === text && before.by.name === by.name) return;
    const entry = { by, value: JSON.parse(text) as Value };
    const index = this.#entries.findIndex((other) => other.by.id === by.id);
    this.#entries = index < 0 ? [...this.#entries, entry] : this.#entries.with(index, entry);
    this.#changed.emit();
  }

  #drop(id: string): void {
    if (!this.#held.delete(id)) return;
    this.#entries = this.#entries.filter(({ by }) => by.id !== id);
    this.#changed.emit();
  }

  #want(text: string | null): void {
    this.#next = text;
    const since = performance.now() - this.#sentAt;
    // The same again only tells that it still is so; that it is over is told at once.
    const pause = text === this.#sent ? this.#expiresMs / 2 : text === null ? 0 : this.#everyMs;
    clearTimeout(this.#timer);
    if (since >= pause) this.#send();
    else if (text !== this.#sent) this.#timer = setTimeout(() => this.#send(), pause - since);
  }

  #send(): void {
    this.#sent = this.#next;
    this.#sentAt = performance.now();
    const value = this.#sent === null ? null : (JSON.parse(this.#sent) as Json);
    // Now, or not at all: without a connection it is told with the next change.
    this.#session.broadcast(this.name, { value }).catch(() => {
      this.#sentAt = -Infinity;
    });
  }
}
