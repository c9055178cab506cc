/**
 * One topic on the connection, of which only the newest channel is heard.
 *
 * Wraps phoenix's Channel; knows no topic's protocol. Invariant: what belongs to a channel that was left reaches nobody.
 */
import { Presence, type Channel, type Push, type Socket } from "phoenix";
import { RejoinError, errorFrom } from "./errors.js";
import { presenceEntry } from "./presence.js";
import type { PresenceEntry } from "./types.js";

/** What is told of a topic. */
export interface TopicPort<Reply> {
  readonly name: string;
  /** The parameters of a join: asked for each time that one is sent. */
  readonly params: () => object;
  readonly joined: (reply: Reply) => void;
  readonly refused: (error: RejoinError) => void;
  /** The connection or the channel broke; phoenix joins again by itself. */
  readonly lost: () => void;
  /** The server closed it; nothing happens by itself. */
  readonly closed: () => void;
  readonly draining: (reconnectAfterMs: number) => void;
  /** Who is there; left out where nobody asks. */
  readonly presence?: (entries: readonly PresenceEntry[]) => void;
  /** The pushes that are understood, by name. */
  readonly pushes: Readonly<Record<string, (payload: never) => void>>;
}

export class Topic<Reply> {
  readonly #port: TopicPort<Reply>;
  #channel: Channel | null = null;

  constructor(port: TopicPort<Reply>) {
    this.#port = port;
  }

  open(socket: Socket): void {
    const port = this.#port;
    const channel = socket.channel(port.name, port.params);
    this.#channel = channel;
    const own =
      <Args extends unknown[]>(handler: (...args: Args) => void) =>
      (...args: Args): void => {
        if (this.#channel === channel) handler(...args);
      };
    // Before the join, or a presence that comes right behind its reply would find nobody.
    if (port.presence) {
      const presence = new Presence(channel);
      presence.onSync(own(() => port.presence?.(presence.list(presenceEntry))));
    }
    for (const [event, handler] of Object.entries(port.pushes)) channel.on(event, own(handler as (payload: unknown) => void));
    channel.on("draining", own((push: { reconnect_after_ms: number }) => port.draining(push.reconnect_after_ms)));
    channel.onError(own(port.lost));
    channel.onClose(own(port.closed));
    channel
      .join()
      .receive("ok", own(port.joined))
      .receive("error", own((response: unknown) => port.refused(errorFrom(response))));
  }

  push(event: string, payload: object): Push {
    if (!this.#channel) throw new RejoinError("disconnected");
    return this.#channel.push(event, payload);
  }

  /** Leaves. Its own callbacks are not heard from here on. */
  drop(): void {
    const channel = this.#channel;
    this.#channel = null;
    channel?.leave();
  }
}
