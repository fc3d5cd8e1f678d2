/** The probabilities as bars, the best class in large, and a sentence for screen readers once the drawing rests. */

const MOST_BARS = 12; // with more classes, only the most probable ones are shown
const REST_MILLISECONDS = 700;

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

export class Answer {
  constructor({ best, sure, bars, live }) {
    Object.assign(this, { best, sure, bars, live });
  }

  /** Make room for the classes of a version. */
  show(classes) {
    this.classes = classes;
    this.isSorted = classes.length > MOST_BARS;
    this.rows = Array.from({ length: this.isSorted ? 10 : classes.length }, () => bar());
    this.bars.replaceChildren(...this.rows.map((row) => row.item));
    this.bars.classList.toggle("named", classes.some((name) => name.length > 2));
    this.clear();
  }

  clear() {
    this.update(new Float32Array(this.classes.length));
    this.best.textContent = "–";
    this.best.classList.remove("long");
    this.sure.textContent = "draw something";
    clearTimeout(this.timer);
  }

  /** Show probabilities; `of` names the picture for screen readers. */
  update(probabilities, of = "") {
    const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
    const shown = this.isSorted ? order : [...probabilities.keys()];
    const [first, second] = order;
    this.rows.forEach(({ item, name, fill, share }, i) => {
      const probability = probabilities[shown[i]];
      name.textContent = name.title = this.classes[shown[i]];
      fill.style.transform = `scaleX(${probability})`;
      share.textContent = percent(probability);
      item.classList.toggle("best", probability > 0 && shown[i] === first);
    });
    this.best.textContent = this.classes[first];
    this.best.classList.toggle("long", this.classes[first].length > 3);
    this.sure.textContent = percent(probabilities[first]);
    const next = second === undefined ? "" : `; then ${this.classes[second]}, ${percent(probabilities[second])}`;
    this.announceLater(`${of}${this.classes[first]}, ${percent(probabilities[first])}${next}.`);
  }

  announceLater(text) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.say(text), REST_MILLISECONDS);
  }

  say(text) {
    this.live.textContent = text;
  }
}

function bar() {
  const [item, name, track, fill, share] = ["li", "span", "span", "i", "span"].map((tag) => document.createElement(tag));
  name.className = "name";
  track.className = "track";
  share.className = "share";
  track.append(fill);
  item.append(name, track, share);
  return { item, name, fill, share };
}
