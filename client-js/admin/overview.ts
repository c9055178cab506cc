/** What the server tells operators, and how its pushes become the whole. Pure. */

/** One life of a node. */
export interface NodeEntry {
  readonly name: string;
  readonly incarnation: string;
  readonly state: "live" | "draining" | "dead";
  readonly lease_ttl_ms: number;
  /** By the clock of the node that tells; null for one that it has never seen moving. */
  readonly seen_ms_ago: number | null;
  readonly connections: number;
  readonly running_turns: number;
  /** Null while the node has told nothing for a while. */
  readonly rates: Rates | null;
}

export interface Rates {
  readonly channels: number;
  readonly deliveries_per_second: number;
  readonly events_per_second: number;
  readonly joins_per_second: number;
}

/** A turn and its session. */
export interface TurnEntry {
  readonly session: string;
  readonly title: string | null;
  readonly turn: {
    readonly id: string;
    readonly status: string;
    readonly agent: string;
    readonly by: { readonly id: string; readonly name: string };
    readonly position: number | null;
    readonly owner: { readonly node: string; readonly incarnation: string; readonly liveness: string } | null;
    readonly queued_at: string;
    readonly started_at: string | null;
    readonly ended_at: string | null;
  };
}

export interface Overview {
  /** The server's clock when it told this. */
  readonly at: string;
  readonly server: { readonly node: { readonly name: string }; readonly bus: string; readonly version: string };
  readonly nodes: readonly NodeEntry[];
  /** Of all nodes, shown or not. */
  readonly queued: { readonly count: number; readonly oldest: string | null };
  /** The running ones first. */
  readonly turns: readonly TurnEntry[];
  readonly lost: readonly TurnEntry[];
}

/** A push: the parts that have changed. */
export type Change = Pick<Overview, "at"> & Partial<Overview>;

/** What is held after a push. */
export function merge(before: Overview, change: Change): Overview {
  return { ...before, ...change };
}

/** Sums over the nodes that are not dead. */
export function totals(overview: Overview): {
  readonly nodes: number;
  readonly connections: number;
  readonly running: number;
  readonly events: number;
  readonly deliveries: number;
} {
  const there = overview.nodes.filter((node) => node.state !== "dead");
  const sum = (of: (node: NodeEntry) => number): number => there.reduce((all, node) => all + of(node), 0);
  return {
    nodes: there.length,
    connections: sum((node) => node.connections),
    // A dead node's turns run until somebody has ended them.
    running: overview.nodes.reduce((all, node) => all + node.running_turns, 0),
    events: sum((node) => node.rates?.events_per_second ?? 0),
    deliveries: sum((node) => node.rates?.deliveries_per_second ?? 0),
  };
}
