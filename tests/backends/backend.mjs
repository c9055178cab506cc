// A backend that answers for Rejoin, with nothing but Node: a start for your own.
//
//   SECRET=… PORT=9000 node backend.mjs
//
// It proves who asks, streams server-sent events, and stops its work at once when nobody wants the answer any more.

import { createHmac, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";

const secret = process.env.SECRET;
if (!secret) throw new Error("set SECRET to the http-agent-secret of the server");

const MAX_BODY_BYTES = 16 * 1024 * 1024;
const MAX_AGE_MS = 5 * 60 * 1000;

/** The turns of the last minutes. Each is asked once: who asks again has only recorded the request. */
const asked = new Map();

/** Whether the server with our secret sent this. The comparison takes as long whatever is wrong. */
function isSigned(signature, body) {
  const expected = Buffer.from(createHmac("sha256", secret).update(body).digest("hex"));
  const given = Buffer.from(signature ?? "");
  return given.length === expected.length && timingSafeEqual(given, expected);
}

/** Whether a request, whose signature is right, is asked for the first time and just now. */
function isFresh({ turn, sent_at }) {
  const now = Date.now();
  for (const [id, at] of asked) if (now - at > 2 * MAX_AGE_MS) asked.delete(id);
  if (Math.abs(now - Date.parse(sent_at)) > MAX_AGE_MS || asked.has(turn.id)) return false;
  asked.set(turn.id, now);
  return true;
}

const textOf = (message) => message.parts.map((part) => (part.kind === "text" ? part.text : "")).join("");

/** The lines of an answer. `signal` says when to stop: hand it on to whatever you ask (fetch, a model, a database). */
async function* answer({ session, turn, messages }, signal) {
  const prompt = textOf(messages.at(-1));
  yield { kind: "reasoning", text: `${turn.by.name} asks in ${session.title ?? session.id}.` };
  const count = Number(/^count to (\d+)$/.exec(prompt)?.[1] ?? 0);
  const words = count ? Array.from({ length: count }, (_, n) => `${n + 1} `) : `You said: ${prompt}`.split(/(?<=\s)/);
  for (const word of words) {
    await pause(20, undefined, { signal });
    yield { kind: "text", text: word };
  }
  yield { kind: "done", usage: { words: words.length, messages: messages.length } };
}

async function bodyOf(request) {
  const pieces = [];
  let size = 0;
  for await (const piece of request) {
    size += piece.length;
    if (size > MAX_BODY_BYTES) return null;
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

function refuse(response, status, message) {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ error: { message } }));
}

async function serve(request, response) {
  if (request.method !== "POST") return refuse(response, 405, "only POST is answered here");
  const body = await bodyOf(request);
  if (!body) return refuse(response, 413, "the request is too large");
  if (!isSigned(request.headers["x-rejoin-signature"], body)) return refuse(response, 401, "the signature is wrong");
  const question = JSON.parse(body);
  if (!isFresh(question)) return refuse(response, 403, "the request is too old, or was answered before");

  const left = new AbortController();
  response.on("close", () => left.abort());
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  console.log(`asked ${question.turn.id}`);
  try {
    for await (const line of answer(question, left.signal)) {
      if (!response.write(`data: ${JSON.stringify(line)}\n\n`)) await once(response, "drain", { signal: left.signal });
    }
    response.end();
    console.log(`answered ${question.turn.id}`);
  } catch (error) {
    if (left.signal.aborted) return console.log(`left ${question.turn.id}`);
    console.error(error);
    response.end(`data: ${JSON.stringify({ kind: "error", code: "backend_error", message: "The backend failed." })}\n\n`);
  }
}

const server = createServer((request, response) => serve(request, response).catch(() => response.destroy()));
server.listen(Number(process.env.PORT ?? 9000), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
