/**
 * Whether a topic is wanted here: joined by somebody, held by views, left.
 *
 * Knows no topic; tells its port when to open and to leave. Invariants: however often it is joined there is one
 * membership at a time, with one promise; the promise ends with it.
 */
import type { Connection } from "./connection.js";
import { RejoinError } from "./errors.js";
import { quiet } from "./quiet.js";

/** What is shown of a membership on the way to it, or where the connection is refused. */
export interface Standing {
  readonly status: "joining" | "refused";
  readonly error: RejoinError | null;
}

/** What a membership moves. */
export interface MembershipPort {
  /** What has to be there before the topic is opened; null where it is. */
  readonly ready: Promise<void> | null;
  /** How it stands: wanted from now on, or let in by nobody. */
  show(change: Standing): void;
  /** Opens the topic: once for each membership. */
  open(): void;
  /** Whether something is under way that is worth waiting for. */
  isBusy?(): boolean;
  leave(): void;
}

interface Deferred {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: RejoinError) => void;
}

const JOINING: Standing = { status: "joining", error: null };
/** Who lets go of a topic may want it again at once, as a view that is drawn anew does. */
const RELEASE_AFTER_MS = 1_000;
/** So long what is being sent is waited for when nobody looks any more. */
const LINGER_MS = 30_000;

export class Membership {
  readonly #connection: Connection;
  readonly #port: MembershipPort;
  #joining: Deferred | null = null;
  #isShutOut = false;
  #holders = 0;
  /** It was joined for good, and not only for as long as somebody holds it. */
  #stays = false;
  #releaseTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(connection: Connection, port: MembershipPort) {
    this.#connection = connection;
    this.#port = port;
  }

  get isWanted(): boolean {
    return this.#joining !== null;
  }

  /** Joins, whoever lets go of it. */
  stay(): Promise<void> {
    this.#stays = true;
    return this.join();
  }

  join(): Promise<void> {
    const isRefused = this.#connection.getSnapshot().status === "refused";
    if (this.#joining && !isRefused) return this.#joining.promise;
    const wasOpen = this.#joining !== null;
    const joining = deferred();
    this.#joining = joining;
    this.#isShutOut = false;
    this.#port.show(JOINING);
    this.#connection.connect();
    const open = (): void => {
      if (this.#joining === joining && !wasOpen) this.#port.open();
    };
    const { ready } = this.#port;
    if (ready) void ready.then(open);
    else open();
    return joining.promise;
  }

  hold(): () => void {
    this.#holders += 1;
    clearTimeout(this.#releaseTimer);
    void this.join();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#holders -= 1;
      if (this.#holders === 0 && !this.#stays) this.#releaseAt(performance.now() + LINGER_MS);
    };
  }

  /** It is joined, and what it shows is there. */
  reached(): void {
    this.#joining?.resolve();
  }

  /** It is wanted no more; false where it was not. */
  end(error: RejoinError): boolean {
    const joining = this.#joining;
    this.#joining = null;
    this.#stays = false;
    joining?.reject(error);
    return joining !== null;
  }

  /** The connection is as it was not before. Once it is let in again, the topic is joined again. */
  connectionChanged(): void {
    if (!this.#joining) return;
    const { status, error } = this.#connection.getSnapshot();
    if (status === "refused") {
      const refusal = error ?? new RejoinError("unauthorized");
      this.#isShutOut = true;
      this.#port.show({ status, error: refusal });
      this.#joining.reject(refusal);
    } else if (this.#isShutOut) {
      this.#isShutOut = false;
      this.#port.show(JOINING);
    }
  }

  #releaseAt(limitMs: number): void {
    this.#releaseTimer = setTimeout(() => {
      if (this.#port.isBusy?.() && performance.now() < limitMs) this.#releaseAt(limitMs);
      else this.#port.leave();
    }, RELEASE_AFTER_MS);
  }
}

function deferred(): Deferred {
  let resolve: () => void = () => undefined;
  let reject: (error: RejoinError) => void = () => undefined;
  // A join may fail long after the one who asked has stopped waiting; the snapshot says so too.
  const promise = quiet(
    () =>
      new Promise<void>((yes, no) => {
        resolve = yes;
        reject = no;
      }),
  );
  return { promise, resolve, reject };
}
