/** The pictures of the test set that a version gets wrong, each a button that shows it to the network. */

import { percent } from "./answer.js";
import { paintGray } from "./maps.js";

export class Mistakes {
  /** `choose(pixels, name)` is called with the picture of a button. */
  constructor(list, note, choose) {
    Object.assign(this, { list, note, choose });
  }

  /** Show those of a version; their pixels are loaded from its own file. */
  async show(version) {
    this.note.textContent = describe(version);
    this.list.replaceChildren();
    if (!version.pictures) return;
    const response = await fetch(version.pictures);
    if (!response.ok) throw new Error(`${version.pictures} could not be loaded (status ${response.status})`);
    const pixels = new Uint8Array(await response.arrayBuffer());
    const size = version.side ** 2;
    const items = version.mistakes.map((mistake, i) =>
      this.item(mistake, version, pixels.subarray(i * size, (i + 1) * size)),
    );
    this.list.replaceChildren(...items);
  }

  /** Let no button be the chosen one. */
  release() {
    for (const button of this.list.querySelectorAll("[aria-pressed=true]")) button.setAttribute("aria-pressed", "false");
  }

  item({ number, truth, predicted, probability }, { classes, side }, pixels) {
    const [item, button, names, wrong] = ["li", "button", "span", "b"].map((tag) => document.createElement(tag));
    const name = `Test picture ${number.toLocaleString("en")}`;
    const text = `${name}: ${classes[truth]}, taken for ${classes[predicted]} (${percent(probability)})`;
    button.type = "button";
    button.title = text;
    button.setAttribute("aria-label", text);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      this.choose(pixels, name);
      button.setAttribute("aria-pressed", "true");
    });
    names.className = "names";
    wrong.textContent = classes[predicted];
    names.append(`${classes[truth]} → `, wrong);
    button.append(picture(pixels, side), names);
    item.append(button);
    return item;
  }
}

function describe({ wrong, mistakes, no_mistakes: reason }) {
  if (wrong === null) return reason;
  if (!wrong) return "It gets none of them wrong.";
  const count = wrong.toLocaleString("en");
  const which = mistakes.length < wrong ? `the ${mistakes.length} of ${count} of which it is surest` : count;
  return `The pictures that it gets wrong, ${which}: the right class → its answer. Choose one to send it through the network.`;
}

function picture(pixels, side) {
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  paintGray(canvas, pixels);
  return canvas;
}
