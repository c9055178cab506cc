/** `phoenix-channels`: a client of Phoenix 1.2's time that speaks version 1 and knows no join refs. */
import phoenix from "phoenix-channels";
import { config, internal, obey, say, stepped } from "./lines.mjs";

const { Presence, Socket } = phoenix;
const reconnectAfterMs = stepped(config.reconnect_ms);
const socket = new Socket(config.url, {
  params: config.params ?? {},
  heartbeatIntervalMs: config.heartbeat_ms,
  ...(reconnectAfterMs && { reconnectAfterMs }),
});
const channels = new Map();
const states = new Map();

socket.onOpen(() => say("open"));
socket.onClose((event) => say("closed", { code: event?.code ?? null }));
socket.onMessage(({ topic, event }) => {
  if (topic === "phoenix" && event === "phx_reply") say("heartbeat");
});
socket.connect();

function join({ topic, params }) {
  const channel = socket.channel(topic, params ?? {});
  channel.onMessage = (event, payload) => {
    if (!internal(event)) say("message", { topic, event, payload });
    return payload;
  };
  channel.onError(() => say("errored", { topic }));
  channel.onClose(() => say("left", { topic }));
  states.set(topic, {});
  channel.on("presence_state", (state) => states.set(topic, Presence.syncState(states.get(topic), state)));
  channel.on("presence_diff", (diff) => states.set(topic, Presence.syncDiff(states.get(topic), diff)));
  channels.set(topic, channel);
  channel
    .join()
    .receive("ok", (response) => say("joined", { topic, response }))
    .receive("error", (response) => say("refused", { topic, response }));
}

obey({
  join,
  push({ topic, event, payload }) {
    const push = channels.get(topic).push(event, payload ?? {});
    for (const status of ["ok", "error", "timeout"]) {
      push.receive(status, (response) => say("reply", { status, response }));
    }
  },
  leave: ({ topic }) => void channels.get(topic).leave(),
  presence({ topic }) {
    const users = Object.fromEntries(Presence.list(states.get(topic), (key, { metas }) => [key, metas.length]));
    say("presence", { users });
  },
});
