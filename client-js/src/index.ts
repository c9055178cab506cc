/** The client of Rejoin: `new Rejoin(url).session(id).join()`. */
export { RejoinError, type ErrorReason } from "./errors.js";
export { addHistory, applyEvent, applyEvents, fromJoin, turnOf, type SessionState } from "./fold.js";
export { randomId } from "./ids.js";
export type { Persistence, SessionKeeper } from "./kept.js";
export { SessionList, type ListOptions, type ListSnapshot, type ListStatus } from "./list.js";
export type { Readable } from "./listeners.js";
export type { PendingMessage, PendingStatus } from "./outbox.js";
export { Rejoin, type RejoinOptions } from "./rejoin.js";
export { Session } from "./session.js";
export type {
  ConnectionSnapshot,
  ConnectionStatus,
  EventContext,
  SendOptions,
  SessionEvents,
  SessionOptions,
  SessionSnapshot,
  SessionStatus,
  SessionUpdate,
  Transport,
  TransportName,
} from "./shapes.js";
export type { TokenSource } from "./tokens.js";
export { TurnReader, type TurnOutcome, type TurnPiece } from "./turns.js";
export type * from "./types.js";
