/**
 * What can go wrong with a request, as one typed error.
 *
 * `reason` is the server's own word where the server answered, and one of `timeout`, `disconnected`, `left`,
 * `discarded`, `reset` where this client ended it. `uncertain` says whether it may have happened nevertheless: then
 * repeat it with the same id.
 */

/** The reasons that the server gives, and those of this client. */
export type ErrorReason =
  | "invalid"
  | "unauthorized"
  | "not_found"
  | "busy"
  | "queue_full"
  | "conflict"
  | "too_large"
  | "rate_limited"
  | "draining"
  | "unavailable"
  | "timeout"
  | "disconnected"
  | "left"
  | "discarded"
  | "reset";

const UNCERTAIN: readonly string[] = ["unavailable", "timeout", "disconnected"] satisfies ErrorReason[];

/** Nothing was done, and the same may go well a little later. */
const PASSING: readonly string[] = ["rate_limited", "draining"] satisfies ErrorReason[];

/** Joins refused for one of these are not tried again by themselves: nothing would change. */
const FINAL: readonly string[] = ["invalid", "unauthorized", "not_found", "conflict", "too_large", "unmatched topic"];

const OWN_TEXTS: Readonly<Record<string, string>> = {
  timeout: "No answer came in time. Try again: with the same id nothing happens twice.",
  disconnected: "The connection was lost. Try again: with the same id nothing happens twice.",
  left: "The session is not joined. Join it again.",
  discarded: "The message was taken back.",
  reset: "The log was replaced. Read it anew.",
  too_large: "The message is too large. Shorten it.",
  unauthorized: "The server does not let this page in: log in again, or add its origin to allowed-origins.",
};

/** A request that was refused, or that got no answer. */
export class RejoinError extends Error {
  override readonly name = "RejoinError";
  /** A word for programs; a server may know more words than `ErrorReason`. */
  readonly reason: ErrorReason | (string & {});
  /** The id of the message, where the request was a `send`: send it again with this id. */
  readonly id: string | undefined;

  constructor(reason: ErrorReason | (string & {}), message?: string, id?: string) {
    super(message ?? OWN_TEXTS[reason] ?? `The server refused: ${reason}.`);
    this.reason = reason;
    this.id = id;
  }

  /** Whether it may have happened although there is no answer that says so. */
  get uncertain(): boolean {
    return UNCERTAIN.includes(this.reason);
  }

  /** @internal Whether the same request is worth repeating by itself. */
  get isPassing(): boolean {
    return PASSING.includes(this.reason) || this.uncertain;
  }

  /** Whether the same join would be refused again. */
  get isFinal(): boolean {
    return FINAL.includes(this.reason);
  }

  /** The same error, naming the message that was to be sent. */
  withId(id: string): RejoinError {
    return new RejoinError(this.reason, this.message, id);
  }
}

/** Makes an error of whatever a server answered with status `error`. */
export function errorFrom(response: unknown): RejoinError {
  const { reason, message } = Object(response) as { reason?: unknown; message?: unknown };
  const word = typeof reason === "string" && reason !== "" ? reason : "unavailable";
  return new RejoinError(word, typeof message === "string" && message !== "" ? message : undefined);
}

/** Makes an error of whatever was thrown. */
export function asError(thrown: unknown, reason: ErrorReason): RejoinError {
  if (thrown instanceof RejoinError) return thrown;
  return new RejoinError(reason, thrown instanceof Error ? thrown.message : String(thrown));
}
