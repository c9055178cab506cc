/** A client whose server says what a test says, on a clock and with a chance that the test moves. */
import { vi } from "vitest";
import { Rejoin, type RejoinOptions, type Session } from "../../src/index.js";
import { FakeServer } from "./server.js";

export interface Client {
  readonly server: FakeServer;
  readonly rejoin: Rejoin;
}

/** Begins with a client that has not connected yet; to be ended by `endClient`. */
export function startClient(options: RejoinOptions): Client {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(0.2);
  const server = new FakeServer();
  return { server, rejoin: new Rejoin("ws://server/socket", { transport: server.transport, ...options }) };
}

/** Joins the first session of a client, which connects it, and has the server answer with `reply`. */
export async function joinFirst(server: FakeServer, session: Session, reply: object): Promise<void> {
  const joining = session.join();
  server.connection.open();
  server.joined(reply);
  await joining;
}

export function endClient(rejoin: Rejoin): void {
  rejoin.disconnect();
  vi.useRealTimers();
}
