/**
 * The way to the server: the topic `admin` over a socket, and a token where one is asked for.
 *
 * A refused handshake tells a page nothing, so whether a token is right is asked over HTTP: before the first connection,
 * whenever one fails, and before another token takes the place of one that may still do.
 */
import { Socket, type Channel } from "phoenix";
import type { Change, Overview, TurnEntry } from "./overview.js";
import { keepToken, keptToken } from "./token.js";

const AGAIN_MS = 2_000;
const CANCEL_MS = 10_000;
const ANSWER_MS = 10_000;
/** So many failures in a row are no accident. */
const BARRED = 3;

/** `barred`: the server answers, and lets this page not connect all the same. */
export type Status = "connecting" | "live" | "away" | "barred";

export interface Listener {
  status(status: Status): void;
  /** Nothing can be shown without another token; `why` says what was wrong with the last one, if there was one. */
  ask(why: string | null): void;
  everything(overview: Overview): void;
  change(change: Change): void;
}

/** What became of a cancel, in words; `done` if the turn runs no more. */
export interface Cancelled {
  readonly done: boolean;
  readonly text: string;
}

interface Refused {
  readonly reason: string;
  readonly message: string;
}

interface Outcome {
  readonly outcome: "cancelled" | "already_ended";
  readonly status: string;
}

/** What the server says of a token: that it will do, why it will not, or nothing. */
type Verdict = { readonly kind: "admitted" | "silent" } | { readonly kind: "refused"; readonly why: string };

export class Connection {
  readonly #listener: Listener;
  #socket: Socket | null = null;
  #channel: Channel | null = null;
  #probing = false;
  /** Connections that failed, one after the other, although the server would have answered. */
  #failed = 0;

  constructor(listener: Listener) {
    this.#listener = listener;
  }

  /** Connects, with the token that is kept if there is one. */
  async open(): Promise<void> {
    this.#listener.status("connecting");
    if ((await this.#admitted()) && this.#socket === null) this.#connect();
  }

  /** Connects with this token from now on, if the server takes it: nothing, or what is wrong with it. */
  async use(given: string): Promise<string | null> {
    const verdict = await ask(given);
    if (verdict.kind === "refused") return verdict.why;
    if (verdict.kind === "silent") return "The server does not answer. Try again in a moment.";
    keepToken(given);
    this.#close();
    this.#connect();
    return null;
  }

  /** Disconnects, and forgets the token. */
  forget(): void {
    this.#refused(null);
  }

  /** Cancels a turn. */
  cancel(entry: TurnEntry): Promise<Cancelled> {
    const channel = this.#channel;
    if (channel === null) return Promise.resolve({ done: false, text: "Not connected: try again in a moment." });
    return new Promise((resolve) => {
      channel
        .push("cancel", { session: entry.session, turn_id: entry.turn.id }, CANCEL_MS)
        .receive("ok", ({ outcome, status }: Outcome) => {
          resolve({ done: true, text: outcome === "cancelled" ? "cancelled" : `it had already ended (${status})` });
        })
        .receive("error", ({ message }: Refused) => resolve({ done: false, text: message }))
        .receive("timeout", () => resolve({ done: false, text: "No answer: look whether it still runs." }));
    });
  }

  /** Whether the server lets this page look. Tries until it answers; a refusal asks for another token. */
  async #admitted(): Promise<boolean> {
    for (;;) {
      const known = keptToken();
      const verdict = await ask(known);
      // Another token may have taken its place meanwhile.
      if (known === keptToken()) {
        if (verdict.kind === "admitted") return true;
        if (verdict.kind === "refused") {
          this.#refused(known === null ? null : verdict.why);
          return false;
        }
        this.#failed = 0;
        this.#away();
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      if (this.#socket?.isConnected() === true) return true;
    }
  }

  #refused(why: string | null): void {
    this.#close();
    keepToken(null);
    this.#listener.ask(why);
  }

  #close(): void {
    const socket = this.#socket;
    this.#socket = this.#channel = null;
    socket?.disconnect();
  }

  #connect(): void {
    const known = keptToken();
    const params = { user_id: operatorId(), name: "Operator" };
    const socket = new Socket("/socket", known === null ? { params } : { authToken: known });
    const channel = socket.channel("admin");
    this.#socket = socket;
    this.#channel = channel;
    const current = (): boolean => this.#socket === socket;
    const away = (): void => {
      if (current()) this.#away();
    };
    socket.onOpen(() => {
      this.#failed = 0;
    });
    socket.onError(() => void (current() && this.#probe()));
    socket.onClose(away);
    channel.onError(away);
    channel.on("overview", (change: Change) => {
      if (current()) this.#listener.change(change);
    });
    channel
      .join()
      .receive("ok", (overview: Overview) => {
        if (!current()) return;
        this.#listener.status("live");
        this.#listener.everything(overview);
      })
      .receive("error", ({ reason, message }: Refused) => {
        if (current() && reason === "unauthorized") this.#refused(message);
      });
    socket.connect();
  }

  async #probe(): Promise<void> {
    if (this.#probing) return;
    this.#probing = true;
    try {
      if (!(await this.#admitted()) || this.#socket?.isConnected() === true) return;
      this.#failed += 1;
      this.#away();
    } finally {
      this.#probing = false;
    }
  }

  /** There is no connection. Why stays said from one failed attempt to the next. */
  #away(): void {
    this.#listener.status(this.#failed < BARRED ? "away" : "barred");
  }
}

/** Asks the server for something that only operators are given. */
async function ask(token: string | null): Promise<Verdict> {
  const headers: Record<string, string> = token === null ? {} : { Authorization: `Bearer ${token}` };
  const signal = AbortSignal.timeout(ANSWER_MS);
  const response = await fetch("/api/nodes", { headers, cache: "no-store", signal }).catch(() => null);
  if (response?.ok === true) return { kind: "admitted" };
  if (response?.status !== 401 && response?.status !== 403) return { kind: "silent" };
  const { detail } = (await response.json().catch(() => ({}))) as { detail?: string };
  return { kind: "refused", why: detail ?? "The server refuses this token. Use one with the right admin on *." };
}

/** Who cancels where no token says it: the same for as long as the page stays. */
let operator: string | null = null;
function operatorId(): string {
  operator ??= `operator-${Math.random().toString(36).slice(2, 10)}`;
  return operator;
}
