// What the page just did, as a command and as a program.

const shell = (word) => `'${word.replaceAll("'", `'\\''`)}'`;
// a JSON string is a Python string, too
const python = JSON.stringify;

export function curl({ kind, items, version, hasKey }) {
  const parts = ["curl"];
  if (kind === "text") parts.push(`-d ${shell(JSON.stringify({ text: items[0] }))}`);
  else if (items.length > 1) parts.push(...items.map((file) => `-F file=@${shell(file.name)}`));
  else parts.push(`--data-binary @${shell(items[0].name)}`, `-H ${shell(`Content-Type: ${mediaType(items[0])}`)}`);
  if (hasKey) parts.push('-H "Authorization: Bearer $SIGHTREAD_KEY"');
  parts.push(shell(address(kind, version)));
  return parts.join(" \\\n  ");
}

export function program({ kind, items, version, hasKey }) {
  const sent =
    kind === "text"
      ? `json={"text": ${python(items[0])}}`
      : `files=[("file", open(name, "rb")) for name in [${items.map((file) => python(file.name)).join(", ")}]]`;
  return [
    ...(hasKey ? ["import os", ""] : []),
    "import httpx",
    "",
    "response = httpx.post(",
    `    ${python(address(kind, version))},`,
    `    ${sent},`,
    ...(hasKey ? ['    headers={"Authorization": f"Bearer {os.environ[\'SIGHTREAD_KEY\']}"},'] : []),
    ")",
    "response.raise_for_status()",
    "print(response.json())",
  ].join("\n");
}

function address(kind, version) {
  const url = new URL(`classify-${kind}`, document.baseURI);
  if (version) url.searchParams.set("version", version);
  return url.href;
}

const mediaType = (file) => (file.type.startsWith("image/") ? file.type : "application/octet-stream");
