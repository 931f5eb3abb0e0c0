// How a node is, in one word, one line and an order: the one place where the page decides that.

/** All states, worst first, with the word that people read. */
export const STATES = [
  ["degraded", "Degraded"],
  ["offline", "Offline"],
  ["unknown", "Unknown"],
  ["progressing", "Progressing"],
  ["healthy", "Healthy"],
];

export const WORDS = Object.fromEntries(STATES);
const RANK = Object.fromEntries(STATES.map(([state], index) => [state, index]));

/** State of a node: without a link nothing is known of now, so that comes first. */
export function stateOf(node) {
  if (!node.online) return "offline";
  if (node.health === "healthy" && node.wanted && node.proven !== node.wanted) return "progressing";
  return WORDS[node.health] ? node.health : "unknown";
}

/** Worst first, then by name. */
export function byWorst(a, b) {
  return RANK[stateOf(a)] - RANK[stateOf(b)] || (a.id < b.id ? -1 : 1);
}

/** The first thing that is wrong with a node, or null. */
export function causeOf(node) {
  return node.cause ?? node.status?.generation?.cause ?? node.status?.conditions?.[0] ?? null;
}

const PHASES = {
  fetching: "fetching what it needs",
  "waiting-for-kubernetes": "waiting for Kubernetes",
  applying: "applying",
  verifying: "applied, waiting until everything is ready",
  failed: "failed",
};

/** One line about what a linked node does now. */
export function doing(node) {
  if (!node.wanted) return node.status ? "Nothing assigned yet" : "No report yet";
  if (node.proven === node.wanted) return null;
  if (node.accepted !== node.wanted) return `${node.wanted} sent, not accepted yet`;
  const phase = PHASES[node.status?.generation?.phase];
  return phase ? `${node.wanted}: ${phase}` : `${node.wanted} accepted`;
}

/** `2 of 3 apps ready`. */
export function appsLine(node) {
  const apps = node.status?.apps ?? [];
  if (apps.length === 0) return "No apps";
  const ready = apps.filter((app) => app.health === "healthy").length;
  return `${ready} of ${apps.length} ${apps.length === 1 ? "app" : "apps"} ready`;
}
