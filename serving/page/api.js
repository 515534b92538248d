// The service, as the page sees it: its own origin, by relative addresses, so that it works behind a path, too.

const AT_ONCE = { items: 8, bytes: 16 * 1024 * 1024 };

let key = sessionStorage.getItem("sightread-key") ?? "";

export const hasKey = () => key !== "";

export function useKey(entered) {
  key = entered.trim();
  sessionStorage.setItem("sightread-key", key);
}

/** What the service says is wrong (RFC 9457), or that nobody answers. `message` is a sentence. */
export class Problem extends Error {
  constructor({ status = 0, detail }) {
    super(detail);
    this.status = status;
  }
}

async function ask(path, { signal, ...options } = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem({ detail: "The service cannot be reached. Is it still running?" });
  }
  if (response.ok) return response;
  const unsaid = { detail: `The service answered ${response.status} and did not say why.` };
  const document = await response.json().catch(() => unsaid);
  throw new Problem({ ...unsaid, ...document, status: response.status });
}

export async function models() {
  return (await (await ask("models")).json()).models;
}

export async function card(name, version) {
  const query = version ? `?version=${version}` : "";
  return await (await ask(`models/${encodeURIComponent(name)}${query}`)).json();
}

/**
 * Classify items of one kind: files, or texts. Yields [position, outcome] as the answers come; an outcome is
 * {answer, model, stages} or {problem}. Many files go in several requests: a roll of photos is larger than a body may be.
 */
export async function* classify(kind, items, { version, explain, signal }) {
  const query = new URLSearchParams({ top_k: 5, ...(version && { version }) });
  if (explain) query.set("explain", "true");
  if (explain && kind === "image") query.set("overlay", "true");
  let done = 0;
  for (const group of kind === "image" ? groups(items) : [items]) {
    let outcomes;
    try {
      const response = await ask(`classify-${kind}?${query}`, { method: "POST", signal, ...body(kind, group) });
      const { results, model, ...single } = await response.json();
      const stages = timing(response);
      outcomes = (results ?? [single]).map((answer) =>
        answer.problem ? { problem: new Problem(answer.problem) } : { answer, model, stages },
      );
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      outcomes = group.map(() => ({ problem }));
    }
    for (const outcome of outcomes) yield [done++, outcome];
  }
}

function body(kind, items) {
  if (kind === "text") {
    return { headers: { "Content-Type": "application/json" }, body: JSON.stringify({ text: items[0] }) };
  }
  const form = new FormData();
  for (const file of items) form.append("file", file, file.name || "picture");
  return { body: form };
}

function groups(files) {
  const found = [];
  let bytes = Infinity;
  for (const file of files) {
    if (bytes + file.size > AT_ONCE.bytes || found.at(-1).length === AT_ONCE.items) {
      found.push([]);
      bytes = 0;
    }
    found.at(-1).push(file);
    bytes += file.size;
  }
  return found;
}

/** The Server-Timing header → [[stage, milliseconds], …]. */
function timing(response) {
  const header = response.headers.get("Server-Timing") ?? "";
  return [...header.matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, stage, milliseconds]) => [stage, Number(milliseconds)]);
}
