/**
 * The token of the moment: asked for before each connection, and renewed before it runs out.
 *
 * phoenix takes its token synchronously, so it is fetched first and kept here. Knows of a JWT only what its own holder
 * may know: who it is for and how long it lasts. Invariant: all tokens of one client are for one person.
 */
import { RejoinError, asError } from "./errors.js";
import { fullJitter } from "./backoff.js";

/** A JWT, or what gives the one of the moment. */
export type TokenSource = string | (() => string | Promise<string>);

/** What a token says of itself; nothing, where it is no JWT. */
export interface Claims {
  readonly sub?: string;
  readonly name?: string;
  readonly exp?: number;
  readonly iat?: number;
}

const FETCH_LIMIT_MS = 15_000;
const RENEW_CAP_MS = 30_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Reads a token without judging it. */
export function claimsOf(token: string): Claims {
  try {
    const [, payload = ""] = token.split(".");
    const bytes = Uint8Array.from(atob(payload.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
    // What is no object has no fields.
    return { ...(JSON.parse(new TextDecoder().decode(bytes)) as Claims) };
  } catch {
    return {};
  }
}

/**
 * How long to wait before a token is renewed: four fifths of what it has left, null where it does not say. A clock of
 * this machine that is plainly wrong is not asked: then the token is taken for as old as its arrival.
 */
export function renewAfterMs({ exp, iat }: Claims, nowMs: number): number | null {
  if (typeof exp !== "number") return null;
  const now = nowMs / 1_000;
  const wrongClock = typeof iat === "number" && (now < iat - 60 || now > exp);
  const left = wrongClock ? exp - iat : exp - now;
  return Math.max(1_000, left * 800);
}

export class Tokens {
  readonly #userId: string | undefined;
  readonly #onRenewed: (token: string) => void;
  #source: TokenSource | undefined;
  /** As phoenix asks for it: that of the last fetch. */
  current = "";
  claims: Claims = {};
  #fetching: Promise<string> | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  #tellFirst: (claims: Claims) => void = () => undefined;
  /** Resolves once there has been a token, with what the first one says. */
  readonly first: Promise<Claims>;

  /** `onRenewed` is told of each token that was fetched because the one before was about to run out. */
  constructor(source: TokenSource | undefined, userId: string | undefined, onRenewed: (token: string) => void) {
    this.#source = source;
    this.#userId = userId;
    this.#onRenewed = onRenewed;
    this.first = new Promise((resolve) => {
      this.#tellFirst = resolve;
    });
    if (typeof source === "string") this.claims = claimsOf(source);
  }

  get isUsed(): boolean {
    return this.#source !== undefined;
  }

  /** Whether asking again may bring another token. */
  get canRenew(): boolean {
    return typeof this.#source === "function";
  }

  /** Another source from now on. */
  replace(source: TokenSource): void {
    this.#source = source;
    this.#fetching = null;
  }

  /** Fetches the token of the moment. A source that answers at once is not waited for. */
  fetch(): string | Promise<string> {
    if (this.#fetching) return this.#fetching;
    const source = this.#source;
    const given = typeof source === "function" ? source() : (source ?? "");
    if (typeof given === "string") return this.#take(given);
    const fetching = within(given, FETCH_LIMIT_MS)
      .then((token) => (source === this.#source ? this.#take(token) : this.fetch()))
      .finally(() => {
        if (this.#fetching === fetching) this.#fetching = null;
      });
    this.#fetching = fetching;
    return fetching;
  }

  /** From now on the token is renewed in time, until `rest`. */
  watch(): void {
    this.#failures = 0;
    this.#plan(this.canRenew ? renewAfterMs(this.claims, Date.now()) : null);
  }

  rest(): void {
    clearTimeout(this.#timer);
  }

  #plan(afterMs: number | null): void {
    clearTimeout(this.#timer);
    if (afterMs === null) return;
    this.#timer = setTimeout(() => void this.#renew(), Math.min(afterMs, LONGEST_TIMER_MS));
  }

  async #renew(): Promise<void> {
    const before = this.current;
    try {
      const token = await this.fetch();
      this.#failures = token === before ? this.#failures + 1 : 0;
      if (token !== before) this.#onRenewed(token);
    } catch {
      // The connection lasts as long as the old token does; the next connection says what is wrong.
      this.#failures += 1;
    }
    const next = renewAfterMs(this.claims, Date.now());
    // A source that gives the old token once more, or none, is asked again, ever slower.
    this.#plan(next === null || this.#failures === 0 ? next : Math.max(next, 1_000 + fullJitter(this.#failures, RENEW_CAP_MS)));
  }

  #take(token: unknown): string {
    if (typeof token !== "string") throw new RejoinError("invalid", "The token function must give a string.");
    const claims = claimsOf(token);
    const sub = this.claims.sub ?? this.#userId;
    if (sub !== undefined && claims.sub !== undefined && claims.sub !== sub) {
      const text = `The token is for ${claims.sub}, and this client is ${sub}'s. Make a Rejoin for each.`;
      throw new RejoinError("unauthorized", text);
    }
    this.current = token;
    this.claims = claims;
    this.#tellFirst(claims);
    return token;
  }
}

async function within<T>(promise: Promise<T>, limitMs: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<never>((_, reject) => {
    const text = `The token function took over ${limitMs / 1_000} s.`;
    timer = setTimeout(() => reject(new RejoinError("timeout", text)), limitMs);
  });
  try {
    return await Promise.race([promise, limit]);
  } catch (error) {
    throw asError(error, "unavailable");
  } finally {
    clearTimeout(timer);
  }
}
