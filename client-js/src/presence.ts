/** Presence as a list: what phoenix's Presence keeps by key, with names to show. Pure. */
import type { PresenceEntry, PresenceMeta } from "./types.js";

const AGENT = "agent:";

/** One entry of the list; the name is that of the newest connection that has one. */
export function presenceEntry(key: string, { metas }: { metas: readonly PresenceMeta[] }): PresenceEntry {
  const isAgent = key.startsWith(AGENT);
  const named = metas.findLast((meta) => typeof meta.name === "string" && meta.name !== "");
  const name = named?.name ?? (isAgent ? key.slice(AGENT.length) : key);
  return { id: key, name, isAgent, metas: [...metas] };
}
