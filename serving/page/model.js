// How a version was made and how well it does, from its contract.

import { element, percent } from "./answer.js";

const template = document.getElementById("model");
const count = (number) => new Intl.NumberFormat("en").format(number);

export function modelCard({ name, version, contract }) {
  const { evaluation, provenance, calibration, input, labels, kind } = contract;
  const card = template.content.firstElementChild.cloneNode(true);
  const things = kind === "image" ? "pictures" : "texts";
  card.querySelector("h2").textContent = `${name}, version ${version}`;
  card.querySelector(".verdict").textContent =
    `Right on ${percent(evaluation.accuracy)} of ${count(evaluation.examples)} test ${things}.`;
  const facts = {
    "Learned from": provenance.data,
    "Tested on": evaluation.dataset,
    Made: `${new Intl.DateTimeFormat("en", { dateStyle: "long" }).format(new Date(provenance.trained_at))}, in ${span(provenance.training_seconds)}`,
    Reads: kind === "image" ? `pictures as ${input.width} × ${input.height} pixels` : `the first ${count(input.max_length)} words of a text`,
    Says: labels.length > 24 ? `${labels.slice(0, 24).join(", ")} and ${count(labels.length - 24)} more` : labels.join(", "),
    Percentages: `off by ${percent(calibration.expected_calibration_error_after)} on average`,
    Explains: contract.explain ? "its answers" : "nothing",
  };
  for (const [term, said] of Object.entries(facts)) {
    if (said) card.querySelector("dl").append(element("dt", { textContent: term }), element("dd", { textContent: said }));
  }
  return card;
}

function span(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} seconds`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} minutes` : `${(seconds / 3600).toFixed(1)} hours`;
}
