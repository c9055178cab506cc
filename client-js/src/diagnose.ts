/**
 * Why no WebSocket opens: a browser does not tell a page, but long-polling asks the same door and reads the answer.
 */

/**
 * - `refused`: the server is there and does not let this client in.
 * - `reachable`: it would let it in over long-polling, so something between keeps WebSockets out.
 * - `away`: it is not there, or not now.
 */
export type Diagnosis = "refused" | "reachable" | "away";

const LIMIT_MS = 5_000;

/** Asks at `endpoint`, the address of the WebSocket with all its parameters. */
export async function diagnose(endpoint: string, token: string): Promise<Diagnosis> {
  try {
    const url = endpoint.replace(/^ws/u, "http").replace(/\/websocket(?=\?|$)/u, "/longpoll");
    const headers = { accept: "application/json", ...(token === "" ? {} : { "x-phoenix-authtoken": token }) };
    const response = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.timeout(LIMIT_MS) });
    const { status } = (await response.json()) as { status?: unknown };
    if (status === 403) return "refused";
    return status === 410 ? "reachable" : "away";
  } catch {
    return "away";
  }
}
