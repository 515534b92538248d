// The contact sheet: several pictures at once, and what each version says of them.

import { element, percent } from "./answer.js";

const sheet = document.getElementById("sheet");

/** Shows the pictures; `choose` is called with the position of the one that is clicked. */
export function showSheet(pictures, choose) {
  sheet.hidden = pictures.length < 2;
  sheet.replaceChildren(
    ...pictures.map(({ name, address }, position) => {
      const button = element("button", { type: "button" });
      const image = element("img", { src: address, alt: "" });
      button.append(image, element("span", { className: "name", textContent: name }));
      button.addEventListener("click", () => choose(position));
      const item = element("li");
      item.append(button);
      return item;
    }),
  );
}

export function markChosen(position) {
  [...sheet.children].forEach((item, at) => item.firstChild.setAttribute("aria-current", at === position));
}

/** What one version says of one picture, on a line of its own. */
export function addLine(position, { answer, problem }) {
  const line = element("span", { className: problem ? "line bad" : "line" });
  if (problem) line.textContent = problem.message;
  else line.append(element("span", { textContent: answer.label }), element("span", { textContent: percent(answer.score) }));
  sheet.children[position].firstChild.append(line);
}
