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
  if (gaveUp(node)) return "degraded";
  if (node.health === "healthy" && node.wanted && node.proven !== node.wanted) return "progressing";
  return WORDS[node.health] ? node.health : "unknown";
}

/** Whether what the node should run failed, whatever runs in its place. */
export function gaveUp(node) {
  const generation = node.status?.generation;
  return generation?.accepted === node.wanted && ["failed", "rolled-back"].includes(generation?.phase);
}

/** Worst first, then by name. */
export function byWorst(a, b) {
  return RANK[stateOf(a)] - RANK[stateOf(b)] || (a.id < b.id ? -1 : 1);
}

/** The first thing that is wrong with a node, or null. */
export function causeOf(node) {
  const failed = node.status?.apps?.find((app) => app.health === "degraded" && app.cause);
  return node.cause ?? node.status?.generation?.cause ?? node.status?.conditions?.[0] ?? failed?.cause ?? null;
}

const PHASES = {
  fetching: "fetching what it needs",
  preflight: "checking that it can work, before anything is touched",
  "waiting-for-window": "waiting for its maintenance window",
  "staging-os": "writing the new operating system",
  "switching-os": "restarting into the new operating system",
  "switching-kubernetes": "bringing k3s to the wanted version",
  "waiting-for-kubernetes": "waiting for Kubernetes",
  applying: "applying",
  verifying: "applied, waiting until everything is ready",
  failed: "failed",
  "rolling-back": "failed, going back to the last good generation",
  "rolled-back": "failed and rolled back",
};

/** One line about what a linked node does now. */
export function doing(node) {
  if (!node.wanted) return node.status ? "Nothing assigned yet" : "No report yet";
  if (node.proven === node.wanted) return null;
  if (node.accepted !== node.wanted) return `${node.wanted} sent, not accepted yet`;
  const generation = node.status?.generation;
  const phase = PHASES[generation?.phase];
  const held = generation?.pausedUntil && generation.phase === "waiting-for-window";
  const instead = insteadOf(node);
  const words = held ? "paused by a person at the box" : phase ? phase + done(generation.progress) : "accepted";
  return `${node.wanted}: ${words}${instead && generation?.phase === "rolled-back" ? `, ${instead} runs in its place` : ""}`;
}

/** The generation that runs although another one was accepted, or null. */
export function insteadOf(node) {
  const generation = node.status?.generation;
  return generation?.running && generation.running !== generation.accepted ? generation.running : null;
}

/** ` (3 of 12 objects)`, where that can be counted. */
export function done(progress) {
  if (!progress?.total) return "";
  const percent = Math.min(100, Math.floor((100 * progress.done) / progress.total));
  return progress.unit === "bytes" ? ` (${percent} %)` : ` (${progress.done} of ${progress.total} ${progress.unit})`;
}

/** The version of the image that the node runs; null where its operating system is not one of Holdfast's. */
export function osOf(node) {
  return node.status?.os?.version ?? null;
}

/** `2 of 3 apps ready`. */
export function appsLine(node) {
  const apps = node.status?.apps ?? [];
  if (apps.length === 0) return "No apps";
  const ready = apps.filter((app) => app.health === "healthy").length;
  return `${ready} of ${apps.length} ${apps.length === 1 ? "app" : "apps"} ready`;
}
