// Examples to click. Each says which label it is for: a model that does not know the label is not offered it.

const PICTURES = ["airplane", "automobile", "ship", "cat", "frog"];
const TEXTS = [
  ["positive", "A warm, funny film: the cast enjoys every minute, and so did I."],
  ["negative", "Two hours that nobody gives me back. The plot is a mess and the jokes are tired."],
  ["positive", "I expected nothing and was surprised: not a single dull scene."],
  ["negative", "Great actors, beautiful pictures, and still I could not wait for it to end."],
];

export const pictureExamples = (labels) => PICTURES.filter((label) => labels.includes(label));
export const textExamples = (labels) => TEXTS.filter(([label]) => labels.includes(label)).map(([, text]) => text);

export async function pictureFile(label) {
  const response = await fetch(exampleAddress(label));
  return new File([await response.blob()], `${label}.jpg`, { type: "image/jpeg" });
}

export const exampleAddress = (label) => `page/examples/${label}.jpg`;
