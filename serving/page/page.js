// The page, put together: what is asked, of which versions, and where the answers go.

import { answerCard, cannotExplain, element, hideReasons, percent, showOutcome, showReasons, tell } from "./answer.js";
import * as api from "./api.js";
import { setUpCamera } from "./camera.js";
import { curl, program } from "./code.js";
import { exampleAddress, pictureExamples, pictureFile, textExamples } from "./examples.js";
import { modelCard } from "./model.js";
import { addLine, markChosen, showSheet } from "./sheet.js";

const TYPING_PAUSE = 300;
const NOT_READY_PAUSE = 2000;

const at = (id) => document.getElementById(id);
const kinds = [...document.querySelectorAll("#kinds input")];

let models = {}; // by kind
let kind = null;
let asked = { items: [], addresses: [], chosen: 0 };
let outcomes = []; // for each version, for each item
let explaining = new Map(); // version → whether it can
let running = new AbortController();
let typing;
let loading;

// ---- what is there -------------------------------------------------------------------------------------------------

async function load() {
  try {
    models = Object.fromEntries((await api.models()).map((model) => [model.kind, model]));
  } catch (problem) {
    showProblem(problem);
    if (problem.status !== 401) loadLater();
    return;
  }
  tell(at("problem"), null);
  for (const radio of kinds) radio.closest("label").hidden = !models[radio.value];
  at("kinds").hidden = Object.keys(models).length < 2;
  await show(models[kind] ? kind : Object.keys(models)[0]);
  if (outcomes.flat().some(({ problem }) => problem)) await askAgain();
}

function loadLater() {
  clearTimeout(loading);
  loading = setTimeout(load, NOT_READY_PAUSE);
}

async function show(chosen) {
  if (chosen !== kind) forget();
  kind = chosen;
  for (const radio of kinds) radio.checked = radio.value === kind;
  at("image-input").hidden = kind !== "image";
  at("text-input").hidden = kind !== "text";
  const model = models[kind];
  if (!model.ready) {
    tell(at("problem"), `${model.name} is not ready: ${model.reason}.`);
    loadLater();
    return;
  }
  const proven = model.versions.filter(({ state }) => state === "proven").map(({ version }) => version);
  at("version").replaceChildren(new Option(`${model.serving} (in service)`, ""), ...proven.map((number) => new Option(number)));
  at("compare").replaceChildren(new Option("nothing", ""), ...proven.map((number) => new Option(number)));
  at("versions").hidden = proven.length < 2;
  await showModels();
}

/** The versions that are asked: "" is the one in service. */
function versions() {
  return [at("version").value, ...(at("compare").value ? [at("compare").value] : [])];
}

async function showModels() {
  const [name, asking] = [models[kind].name, versions()];
  try {
    const cards = await Promise.all(asking.map((version) => api.card(name, version)));
    if (name !== models[kind].name) return;
    at("about").classList.toggle("two", cards.length > 1);
    at("about").replaceChildren(...cards.map(modelCard));
    offerExamples(cards[0].contract.labels);
    explaining = new Map(cards.map(({ contract }, column) => [asking[column], Boolean(contract.explain)]));
  } catch (problem) {
    showProblem(problem);
  }
}

function offerExamples(labels) {
  const pictures = kind === "image" ? pictureExamples(labels) : [];
  const texts = kind === "text" ? textExamples(labels) : [];
  fill("image-examples", pictures, (button, label) => {
    button.append(element("img", { src: exampleAddress(label), alt: label }));
    button.addEventListener("click", async () => ask([await pictureFile(label)]));
  });
  fill("text-examples", texts, (button, text) => {
    button.textContent = text;
    button.addEventListener("click", () => {
      at("text").value = text;
      ask([text]);
    });
  });
}

function fill(id, things, furnish) {
  const items = things.map((thing) => {
    const [item, button] = [element("li"), element("button", { type: "button" })];
    furnish(button, thing);
    item.append(button);
    return item;
  });
  at(id).replaceChildren(...items);
  at(id).closest(".examples").hidden = things.length === 0;
}

// ---- asking --------------------------------------------------------------------------------------------------------

/** Nothing is asked. */
function forget() {
  drop();
  showSheet([], () => {});
  at("cards").classList.remove("two");
  at("cards").replaceChildren(element("p", { className: "panel empty", textContent: "The answer comes here." }));
  at("code").hidden = true;
}

function drop() {
  running.abort();
  for (const address of asked.addresses) URL.revokeObjectURL(address);
  asked = { items: [], addresses: [], chosen: 0 };
  outcomes = [];
}

/** Ask for answers to these files or texts. */
async function ask(items) {
  drop();
  asked = { items, addresses: kind === "image" ? items.map((file) => URL.createObjectURL(file)) : [], chosen: 0 };
  const answered = askAgain();
  // on a phone the answer is below what was clicked
  if (kind === "image" && at("answer").getBoundingClientRect().top > innerHeight / 2) at("answer").scrollIntoView();
  await answered;
}

async function askAgain() {
  if (!asked.items.length) return;
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const asking = versions();
  outcomes = asking.map(() => []);
  const pictures = asked.addresses.map((address, position) => ({ address, name: asked.items[position].name }));
  showSheet(pictures, choose);
  showCards();
  showCode();
  tell(at("problem"), null);
  try {
    await Promise.all(asking.map((version, column) => askVersion(version, column, signal)));
    if (signal.aborted) return;
    const said = outcomes.map(([{ answer, model, problem }]) =>
      problem ? problem.message : `${answer.label}, ${percent(answer.score)}, says version ${model.version}.`,
    );
    at("said").textContent = asked.items.length > 1 ? `${asked.items.length} pictures are classified.` : said.join(" ");
  } catch (error) {
    if (!signal.aborted) showProblem(error);
  }
}

async function askVersion(version, column, signal) {
  for await (const [position, outcome] of api.classify(kind, asked.items, { version, signal })) {
    if (signal.aborted) return;
    if (outcome.problem?.status === 401) throw outcome.problem;
    outcomes[column][position] = outcome;
    if (asked.addresses.length > 1) addLine(position, outcome);
    if (position === asked.chosen) fillCard(column);
  }
}

function choose(position) {
  asked.chosen = position;
  showCards();
}

// ---- answers -------------------------------------------------------------------------------------------------------

function showCards() {
  const asking = versions();
  const picture = asked.addresses[asked.chosen];
  markChosen(asked.chosen);
  at("cards").classList.toggle("two", asking.length > 1);
  const before = [...at("cards").children];
  at("cards").replaceChildren(
    ...asking.map((version, column) => {
      const title = [models[kind].name, `version ${version || models[kind].serving}`];
      const card = answerCard(title, picture, (wanted) => explain(column, version, wanted));
      // this version's last bars stay, faint, until the new ones come: nothing jumps while somebody types
      if (before[column]?.querySelector("h2")?.textContent === card.querySelector("h2").textContent) {
        card.querySelector(".bars").replaceChildren(...before[column].querySelector(".bars").children);
      }
      return card;
    }),
  );
  asking.forEach((_, column) => fillCard(column));
}

function fillCard(column) {
  const outcome = outcomes[column][asked.chosen];
  if (!outcome) return;
  const card = at("cards").children[column];
  showOutcome(card, outcome);
  if (outcome.model) card.querySelector("h2 span").textContent = `version ${outcome.model.version}`;
  if (explaining.get(versions()[column]) === false) cannotExplain(card);
}

async function explain(column, version, wanted) {
  const card = at("cards").children[column];
  hideReasons(card);
  tell(card.querySelector(".problem"), null);
  if (!wanted) return;
  const item = asked.items[asked.chosen];
  card.classList.add("waiting");
  const { signal } = running;
  try {
    for await (const [, outcome] of api.classify(kind, [item], { version, explain: true, signal })) {
      card.classList.remove("waiting");
      if (outcome.problem) {
        tell(card.querySelector(".problem"), outcome.problem.message);
        card.querySelector(".why").setAttribute("aria-pressed", "false");
        return;
      }
      showOutcome(card, outcome);
      if (card.querySelector(".why").getAttribute("aria-pressed") !== "true") return;
      showReasons(card, outcome.answer, item);
      at("said").textContent = card.querySelector(".reason").textContent;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

function showCode() {
  const done = { kind, items: asked.items, version: at("version").value, hasKey: api.hasKey() };
  at("curl").textContent = curl(done);
  at("python").textContent = program(done);
  at("code").hidden = false;
}

function showProblem(problem) {
  tell(at("problem"), problem.message);
  if (problem.status === 401) openKey(true);
}

function openKey(open) {
  at("key-form").hidden = !open;
  at("key-button").setAttribute("aria-expanded", open);
  if (open) at("key").focus();
}

// ---- what people do ------------------------------------------------------------------------------------------------

for (const radio of kinds) radio.addEventListener("change", () => show(radio.value));

async function take(files) {
  if (!files.length || !models.image) return;
  if (kind !== "image") await show("image");
  await ask(files);
}

at("files").addEventListener("change", () => {
  take([...at("files").files]);
  at("files").value = ""; // the same file may be chosen again
});
setUpCamera(take);

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragged");
});
addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragged"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragged");
  take([...event.dataTransfer.files]);
});
addEventListener("paste", async (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) return take(files);
  if (event.target.matches("textarea, input") || !models.text) return;
  const text = event.clipboardData.getData("text/plain");
  if (!text) return;
  if (kind !== "text") await show("text");
  at("text").value = text;
  await ask([text]);
});

at("text").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => (at("text").value.trim() ? ask([at("text").value]) : forget()), TYPING_PAUSE);
});

for (const id of ["version", "compare"]) {
  at(id).addEventListener("change", async () => {
    await showModels();
    await askAgain();
  });
}

for (const button of document.querySelectorAll("[data-copies]")) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    const block = at(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = "Copied";
    } catch {
      // browsers lend the clipboard over HTTPS only: marked, it is one key away
      getSelection().selectAllChildren(block);
      button.textContent = "Marked: press Ctrl+C";
    }
    setTimeout(() => (button.textContent = label), 2000);
  });
}

at("key-button").addEventListener("click", () => openKey(at("key-form").hidden));
at("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  api.useKey(at("key").value);
  openKey(false);
  await load();
});

load();
