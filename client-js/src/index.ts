/** The client of Rejoin: `new Rejoin(url).session(id).join()`. */
export { RejoinError, type ErrorReason } from "./errors.js";
export { addHistory, applyEvent, applyEvents, fromJoin, turnOf, type SessionState } from "./fold.js";
export { randomId } from "./ids.js";
export { Rejoin, type ConnectionState, type RejoinOptions, type Transport } from "./rejoin.js";
export { Session } from "./session.js";
export type { SendOptions, SessionOptions, SessionSnapshot, SessionStatus, SessionUpdate } from "./shapes.js";
export type * from "./types.js";
