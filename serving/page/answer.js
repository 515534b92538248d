// One answer of one version: the bars, and what it rests on.

const template = document.getElementById("card");

export const percent = (share) =>
  new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(share);

/**
 * A card, empty at first.
 *
 * @param title what stands above, such as `cnn` and `version 2`
 * @param picture address of the picture, or null for a text
 * @param why called with whether an explanation is wanted now
 */
export function answerCard([name, version], picture, why) {
  const card = template.content.firstElementChild.cloneNode(true);
  const heading = card.querySelector("h2");
  heading.append(name, " ", element("span", { textContent: version }));
  const button = card.querySelector(".why");
  button.addEventListener("click", () => {
    const wanted = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", wanted);
    why(wanted);
  });
  if (picture) showPicture(card.querySelector("figure"), picture);
  card.classList.add("waiting");
  return card;
}

function showPicture(figure, address) {
  const image = figure.querySelector(".picture");
  image.addEventListener("error", () => {
    figure.replaceChildren(element("figcaption", { className: "note", textContent: "This browser cannot show it." }));
  });
  image.src = address;
  image.alt = "The picture";
  figure.hidden = false;
}

export function showOutcome(card, { answer, problem, stages }) {
  card.classList.remove("waiting");
  tell(card.querySelector(".problem"), problem?.message);
  card.querySelector(".why").hidden = Boolean(problem);
  if (problem) {
    card.querySelector(".bars").replaceChildren();
    return;
  }
  card.querySelector(".bars").replaceChildren(...answer.predictions.map(bar));
  card.querySelector(".truncated").hidden = !answer.truncated;
  card.querySelector(".stages").textContent = stages
    .map(([stage, milliseconds]) => `${STAGES[stage] ?? stage} ${milliseconds.toFixed(1)} ms`.replaceAll(" ", "\u00a0"))
    .join(" · ");
}

const STAGES = { total: "in all", explain_queue: "queue to explain" };

function bar({ label, score }) {
  const item = element("li");
  const share = element("span", { className: "bar", ariaHidden: "true" });
  share.style.setProperty("--share", percent(score));
  item.append(element("span", { textContent: label }), element("span", { textContent: percent(score) }), share);
  return item;
}

/** This version can explain nothing: the button says so. */
export function cannotExplain(card) {
  card.querySelector(".why").disabled = true;
  tell(card.querySelector(".no-why"), "This version gives no explanations.");
}

export function hideReasons(card) {
  card.querySelector(".reasons").hidden = true;
  const heat = card.querySelector(".heat");
  if (heat) heat.hidden = true;
}

/** What the answer rests on: heat over the picture, or colours under the words of `text`, and a sentence. */
export function showReasons(card, { explanation, truncated }, text) {
  card.querySelector(".reasons").hidden = false;
  if (explanation.tokens) {
    const spans = merged(explanation.tokens);
    const words = card.querySelector(".words");
    words.hidden = false;
    words.tabIndex = 0; // a long one scrolls
    words.replaceChildren(...coloured(text, spans, truncated));
    card.querySelector(".reason").replaceChildren(...aboutWords(text, spans, explanation.label));
    return;
  }
  const heat = card.querySelector(".heat");
  if (heat) {
    heat.src = `data:image/png;base64,${explanation.overlay}`;
    for (const [side, share] of Object.entries(explanation.area)) heat.style[side] = `${100 * share}%`;
    heat.hidden = false;
  }
  card.querySelector(".reason").replaceChildren(...aboutPicture(explanation));
}

/** Several tokens can come from one character: they count together. */
function merged(tokens) {
  const spans = [];
  for (const { start, end, attribution } of tokens) {
    const last = spans.at(-1);
    if (last && start < last.end) {
      last.attribution += attribution;
      last.end = Math.max(last.end, end);
    } else if (end > start) spans.push({ start, end, attribution });
  }
  return spans;
}

function coloured(text, spans, truncated) {
  const characters = Array.from(text); // by code points, as the offsets count
  const most = Math.max(...spans.map(({ attribution }) => Math.abs(attribution)), Number.MIN_VALUE);
  const nodes = [];
  let at = 0;
  for (const { start, end, attribution } of spans) {
    nodes.push(characters.slice(at, start).join(""));
    const mark = element("mark", {
      className: attribution > 0 ? "for" : "against",
      textContent: characters.slice(start, end).join(""),
      title: signed(attribution),
    });
    mark.style.setProperty("--strength", (0.5 * Math.abs(attribution)) / most);
    nodes.push(mark);
    at = end;
  }
  const rest = characters.slice(at).join("");
  nodes.push(truncated ? element("span", { className: "unread", textContent: rest }) : rest);
  return nodes;
}

function aboutWords(text, spans, label) {
  const characters = Array.from(text);
  const named = ({ start, end, attribution }) => `“${characters.slice(start, end).join("")}” (${signed(attribution)})`;
  const strongest = (sign) =>
    spans
      .filter(({ attribution }) => sign * attribution > 0.005)
      .sort((one, other) => sign * (other.attribution - one.attribution))
      .slice(0, 3)
      .map(named);
  const [pro, contra] = [strongest(1), strongest(-1)];
  return [
    swatch("for"),
    pro.length ? ` For ${label} speaks most ${listed(pro)}. ` : ` Nothing speaks for ${label} much. `,
    swatch("against"),
    contra.length ? ` Against it ${listed(contra)}.` : " Nothing speaks against it much.",
  ];
}

function aboutPicture({ attribution, label }) {
  let [sum, across, down] = [Number.MIN_VALUE, 0, 0];
  attribution.forEach((row, y) =>
    row.forEach((added, x) => {
      if (added <= 0) return;
      sum += added;
      across += (added * (x + 0.5)) / row.length;
      down += (added * (y + 0.5)) / attribution.length;
    }),
  );
  const third = (share, words) => words[share < 0.42 ? 0 : share > 0.58 ? 2 : 1];
  const where = [third(down / sum, ["upper", "", "lower"]), third(across / sum, ["left", "", "right"])];
  const place = where.filter(Boolean).join(" ");
  const middle = place ? `the ${place} part` : "the middle";
  return [
    swatch("for"),
    ` What is orange speaks for ${label}, `,
    swatch("against"),
    ` what is blue against it. The orange centres on ${middle}.`,
  ];
}

const swatch = (side) => element("span", { className: `swatch ${side}`, ariaHidden: "true" });
const signed = (number) => (number > 0 ? "+" : "−") + Math.abs(number).toFixed(2);
const listed = (words) => new Intl.ListFormat("en").format(words);

export function tell(paragraph, sentence) {
  paragraph.textContent = sentence ?? "";
  paragraph.hidden = !sentence;
}

export function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}
