/** How times and numbers are said. Pure. */
import type { NodeEntry } from "./overview.js";

/** A time in at most two units: `4 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. Less than nothing is nothing. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1_000));
  const [minutes, hours, days] = [Math.floor(seconds / 60), Math.floor(seconds / 3_600), Math.floor(seconds / 86_400)];
  if (days > 0) return two(days, "d", hours - days * 24, "h");
  if (hours > 0) return two(hours, "h", minutes - hours * 60, "min");
  if (minutes > 0) return two(minutes, "min", seconds - minutes * 60, "s");
  return `${seconds} s`;
}

function two(first: number, unit: string, second: number, smaller: string): string {
  return second === 0 ? `${first} ${unit}` : `${first} ${unit} ${second} ${smaller}`;
}

/** A rate: exact where it is small. */
export function rate(perSecond: number): string {
  if (perSecond >= 1_000) return `${(perSecond / 1_000).toFixed(1)}k`;
  return perSecond >= 10 || Number.isInteger(perSecond) ? String(Math.round(perSecond)) : perSecond.toFixed(1);
}

/** What is known of a node's lease: the share of it that has passed since the node moved. */
export function lease(node: NodeEntry): string {
  if (node.state === "dead") return node.seen_ms_ago === null ? "over" : `over, seen ${duration(node.seen_ms_ago)} ago`;
  if (node.seen_ms_ago === null) return "not seen yet";
  return `${(node.seen_ms_ago / 1_000).toFixed(1)} s ago of ${duration(node.lease_ttl_ms)}`;
}

/** Whether the node that tells hears the others. */
export function busInWords(bus: string): string {
  return bus === "alone" ? "no other nodes" : `bus ${bus}`;
}

/** Whether a node that should move has not done so for half its lease. */
export function isLate(node: NodeEntry): boolean {
  return node.state !== "dead" && (node.seen_ms_ago ?? 0) > node.lease_ttl_ms / 2;
}

/** The points of a line through `values`, the newest at the right end, as high as the highest of them. */
export function line(values: readonly number[], width: number, height: number): string {
  const highest = Math.max(...values, 1);
  const step = values.length > 1 ? width / (values.length - 1) : 0;
  const y = (value: number): string => (height - 1 - (value / highest) * (height - 2)).toFixed(1);
  return values.map((value, index) => `${(index * step).toFixed(1)},${y(value)}`).join(" ");
}
