/** `@supabase/realtime-js`: topics begin with `realtime:`, a push is a `broadcast`, in version 2 a frame of kind 3. */
import { RealtimeClient } from "@supabase/realtime-js";
import WebSocket from "ws";
import { config, obey, say, stepped } from "./lines.mjs";

const reconnectAfterMs = stepped(config.reconnect_ms);
const client = new RealtimeClient(config.url, {
  params: { apikey: "none", ...config.params },
  transport: WebSocket,
  vsn: config.vsn,
  heartbeatIntervalMs: config.heartbeat_ms,
  heartbeatCallback: (status) => {
    if (status === "ok") say("heartbeat");
  },
  ...(reconnectAfterMs && { reconnectAfterMs }),
});
const channels = new Map();

/** What the library calls the states of a subscription, in the words of the line protocol. */
const STATES = { SUBSCRIBED: "joined", CLOSED: "left", CHANNEL_ERROR: "errored", TIMED_OUT: "join_timeout" };

function join({ topic, params, name = "realtime" }) {
  const presence = { key: config.key ?? "", enabled: true };
  const channel = client.channel(topic, { config: { broadcast: { ack: true, self: false }, presence, ...params } });
  channel.on("broadcast", { event: "*" }, ({ event, payload }) => say("message", { topic, event, payload }));
  channels.set(topic, channel);
  channel.subscribe((status) => say(STATES[status], { topic, name, response: {} }));
}

obey({
  join,
  async push({ topic, event, payload }) {
    const status = await channels.get(topic).send({ type: "broadcast", event, payload });
    say("reply", { status, response: {} });
  },
  async track({ topic, payload }) {
    say("reply", { status: await channels.get(topic).track(payload), response: {} });
  },
  presence({ topic }) {
    const state = channels.get(topic).presenceState();
    say("presence", { users: Object.fromEntries(Object.entries(state).map(([key, metas]) => [key, metas.length])) });
  },
  leave: ({ topic }) => void channels.get(topic).unsubscribe(),
});
