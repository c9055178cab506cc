/**
 * phoenix's Socket, set up so that it does only what it is told: it carries, and never connects by itself.
 *
 * Knows what of phoenix its types leave out, and over what the bytes move.
 */
import { LongPoll, Socket } from "phoenix";
import { fullJitter } from "./backoff.js";
import type { Transport, TransportName } from "./shapes.js";
import type { Tokens } from "./tokens.js";

export interface SocketOptions {
  readonly url: string;
  readonly params: () => object;
  readonly tokens: Tokens;
  readonly transport: "auto" | TransportName | Transport;
  readonly heartbeatIntervalMs: number;
}

const MEMORY = "rejoin:longpoll";
/** phoenix must never connect by itself. */
const NEVER_MS = 2 ** 31 - 1;
const REJOIN_CAP_MS = 10_000;

/** The parts of the Socket that its types leave out. */
interface SocketInside {
  authToken?: (() => string) | undefined;
  ping(callback: (rttMs: number) => void): boolean;
}

/** `dead` is called where phoenix has found a connection dead by itself. */
export function makeSocket(options: SocketOptions, name: TransportName, dead: () => void): Socket {
  const { url, params, transport, heartbeatIntervalMs } = options;
  const given = typeof transport === "function" ? { transport } : {};
  return new Socket(url, {
    params,
    heartbeatIntervalMs,
    ...(name === "longpoll" ? { transport: LongPoll } : given),
    rejoinAfterMs: (tries) => 200 + fullJitter(tries + 1, REJOIN_CAP_MS),
    reconnectAfterMs: () => {
      dead();
      return NEVER_MS;
    },
  });
}

/** The next connection brings the token of the moment, if there are tokens. */
export function showToken(socket: Socket, tokens: Tokens): void {
  (socket as unknown as SocketInside).authToken = tokens.isUsed ? () => tokens.current : undefined;
}

/** Calls back once the server has answered. */
export function ping(socket: Socket, answered: () => void): void {
  (socket as unknown as SocketInside).ping(answered);
}

/** What to begin with: a WebSocket, unless it is known that none will open. */
export function firstTransport(transport: SocketOptions["transport"]): TransportName {
  const isHopeless = transport === "auto" && (typeof WebSocket === "undefined" || isLongPollRemembered());
  return transport === "longpoll" || isHopeless ? "longpoll" : "websocket";
}

/** For this tab, as long as it lives: a network that keeps WebSockets out does so after a refresh, too. */
export function rememberLongPoll(): void {
  try {
    sessionStorage.setItem(MEMORY, "1");
  } catch {
    // Then each page finds it out for itself.
  }
}

function isLongPollRemembered(): boolean {
  try {
    // Where there is none, that throws as well.
    return sessionStorage.getItem(MEMORY) !== null;
  } catch {
    return false;
  }
}
