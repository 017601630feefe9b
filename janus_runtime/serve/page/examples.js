// Words to begin with, which depend on what a model was trained on.

import { button, make } from "./parts.js";

// A server does not state that, but how large its model draws. Janus draws 384 pixels; models of this project's own, which know plain
// shapes and nothing else, draw 64.
const SHAPES_ONLY = 64;

const shapes = {
  knows:
    "This is a very small model. It knows circles, squares, triangles and crosses, small or large, in red, green, blue, yellow, orange and purple, " +
    "on white, grey or black: one thing, two things, or up to four alike.",
  prompts: ["a red circle", "a small blue square left of a green triangle", "three yellow crosses on black"],
  sees: "This is a very small model: it knows pictures of plain shapes, such as it draws. Draw one and choose “Ask about it”.",
  questions: ["What colour is the circle?", "How many things are there?", "Describe the picture."],
};
const anything = {
  knows: "",
  prompts: ["a red fox in the snow", "a lighthouse at night, oil painting", "a bowl of oranges on a wooden table"],
  sees: "Add a photo, then ask about it.",
  questions: ["What is in this photo?", "What is written there?", "Describe it in one sentence."],
};

/** What can be said of a model, as the server lists it: texts that help, prompts and questions that work. */
export function examplesOf(model) {
  return model.size && Number(model.size.split("x")[0]) <= SHAPES_ONLY ? shapes : anything;
}

/** Buttons that give `put` a text. */
export function offer(box, texts, put) {
  box.replaceChildren("Try ", ...texts.map((text) => button(text, () => put(text))));
}
