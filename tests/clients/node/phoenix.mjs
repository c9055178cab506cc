/** The client of Phoenix itself, in the version that `config.version` names. */
import WebSocket from "ws";
import { config, fromHex, internal, obey, say, stepped, toHex } from "./lines.mjs";

const name = config.version === "1.8.16" ? "phoenix" : `phoenix-${config.version}`;
const { LongPoll, Presence, Socket } = await import(name);

/** What a browser keeps per tab; the client remembers there that a WebSocket never worked. */
class Storage {
  #items = new Map(Object.entries(config.storage ?? {}));
  getItem(key) {
    return this.#items.get(key) ?? null;
  }
  setItem(key, value) {
    this.#items.set(key, value);
    say("stored", { key, value });
  }
}

// Counts what long-poll sends: how many frames in which request.
const realFetch = globalThis.fetch;
globalThis.fetch = (url, options = {}) => {
  const { body, method } = options;
  const lines = typeof body === "string" ? body.split("\n").filter((line) => line !== "").length : 0;
  say("request", { method, lines });
  return realFetch(url, options);
};

function options() {
  const chosen = { transport: config.long_poll ? LongPoll : WebSocket, params: config.params ?? {} };
  const optional = {
    vsn: config.vsn,
    timeout: config.timeout_ms,
    heartbeatIntervalMs: config.heartbeat_ms,
    reconnectAfterMs: stepped(config.reconnect_ms),
    rejoinAfterMs: stepped(config.rejoin_ms),
    longPollFallbackMs: config.fallback_ms,
    sessionStorage: config.fallback_ms && new Storage(),
    authToken: config.auth_token,
  };
  for (const [key, value] of Object.entries(optional)) if (value !== undefined) chosen[key] = value;
  return chosen;
}

const socket = new Socket(config.url, options());
const channels = new Map();
const presences = new Map();

const transport = () => (socket.transport === LongPoll ? "longpoll" : "websocket");
socket.onOpen(() => say("open", { transport: transport() }));
socket.onClose((event) => say("closed", { code: event?.code ?? null }));
socket.onMessage(({ topic, event }) => {
  if (topic === "phoenix" && event === "phx_reply") say("heartbeat");
  return undefined;
});
socket.connect();

function tell(topic, event, payload) {
  if (payload instanceof ArrayBuffer) say("message", { topic, event, hex: toHex(payload) });
  else say("message", { topic, event, payload });
}

const bytesOr = (response) => (response instanceof ArrayBuffer ? { hex: toHex(response) } : { response });

function join({ topic, params, name = topic }) {
  const channel = socket.channel(topic, params ?? {});
  channel.onMessage = (event, payload) => {
    if (!internal(event) && !config.quiet) tell(topic, event, payload);
    return payload;
  };
  channel.onError((reason) => say("errored", { topic, name, reason: reason ?? null }));
  channel.onClose(() => say("left", { topic, name }));
  const presence = new Presence(channel);
  channels.set(name, channel);
  presences.set(name, presence);
  channel
    .join()
    .receive("ok", (response) => say("joined", { topic, name, ...bytesOr(response) }))
    .receive("error", (response) => say("refused", { topic, name, response }))
    .receive("timeout", () => say("join_timeout", { topic, name }));
}

function push({ topic, name = topic, event, payload, hex, times = 1 }) {
  const body = hex === undefined ? (payload ?? {}) : fromHex(hex);
  let waiting = times;
  for (let index = 0; index < times; index += 1) {
    const push = channels.get(name).push(event, body);
    const answered = (status) => (response) => {
      waiting -= 1;
      if (waiting === 0) say("reply", { status, ...bytesOr(response) });
    };
    for (const status of ["ok", "error", "timeout", "teapot"]) push.receive(status, answered(status));
  }
}

obey({
  join,
  push,
  leave: ({ topic, name = topic }) => void channels.get(name).leave(),
  presence({ topic, name = topic }) {
    const users = {};
    const refs = {};
    presences.get(name).list((key, { metas }) => {
      users[key] = metas.length;
      refs[key] = metas.map((meta) => meta.phx_ref).sort();
    });
    say("presence", { users, refs });
  },
  /** Writes a text past the library, as a broken client would. */
  raw: ({ text, pad = 0 }) => void socket.conn.send(text + " ".repeat(pad)),
  disconnect: () => void socket.disconnect(() => say("disconnected")),
  connect: () => void socket.connect(),
});
