/** The line protocol between a client program and the test that drives it; ../README.md describes it. */
import { createInterface } from "node:readline";

const begun = performance.now();

/** What the program was started with. */
export const config = JSON.parse(process.argv[2] ?? "{}");

/** Tells the driver what happened. */
export function say(at, fields = {}) {
  process.stdout.write(`${JSON.stringify({ at, ms: Math.round(performance.now() - begun), ...fields })}\n`);
}

/** Carries out commands in the order in which they come; the end of the input ends the program. */
export function obey(commands) {
  const input = createInterface({ input: process.stdin });
  let last = Promise.resolve();
  input.on("line", (line) => {
    const { do: name, ...fields } = JSON.parse(line);
    last = last.then(() => {
      if (name === "quit") process.exit(0);
      return commands[name](fields);
    });
    last.catch((error) => {
      console.error(error);
      process.exit(1);
    });
  });
  input.on("close", () => process.exit(0));
}

/** Bytes as the protocol writes them, and back. */
export const toHex = (buffer) => Buffer.from(buffer).toString("hex");
export const fromHex = (hex) => Uint8Array.from(Buffer.from(hex, "hex")).buffer;

/** Whether an event is the library's own. */
export const internal = (event) => event.startsWith("phx_") || event.startsWith("chan_reply_");

/** A stepped delay out of a list, its last entry for ever; `undefined` leaves the library's own. */
export function stepped(list) {
  return list && ((tries) => list[Math.min(tries, list.length) - 1]);
}
