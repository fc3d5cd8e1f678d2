/** The drawing area: strokes by mouse, finger, pen or keyboard. */

export const SIDE = 280; // pixels of the ink, ten for each of MNIST's
const PEN = 22; // of them: about the width of the strokes in MNIST
const STEP = SIDE / 20; // of the keyboard
const MOVES = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
  Home: [-1, -1],
  PageUp: [1, -1],
  End: [-1, 1],
  PageDown: [1, 1],
};

export class Drawing {
  /** `onChange()` is called after each change, `say(text)` with what a screen reader shall say. */
  constructor(canvas, cursor, onChange, say) {
    Object.assign(this, { canvas, cursor, onChange, say });
    this.strokes = []; // lists of points [x, y], in pixels of the ink
    this.pointer = null; // that draws now
    this.keys = { x: SIDE / 2, y: SIDE / 2, isDown: false };
    const ink = document.createElement("canvas");
    ink.width = ink.height = SIDE;
    this.inkContext = ink.getContext("2d", { willReadFrequently: true });
    this.context = canvas.getContext("2d");
    this.listen();
  }

  get isEmpty() {
    return !this.strokes.length;
  }

  /** Return the ink: Uint8Array, SIDE x SIDE, 0 where there is none. */
  ink() {
    const { data } = this.inkContext.getImageData(0, 0, SIDE, SIDE);
    const ink = new Uint8Array(SIDE * SIDE);
    for (let i = 0; i < ink.length; i++) ink[i] = data[4 * i + 3];
    return ink;
  }

  clear() {
    this.replace([]);
  }

  undo() {
    this.replace(this.strokes.slice(0, -1));
  }

  replace(strokes) {
    this.strokes = strokes;
    this.lift();
    this.redraw();
    this.onChange();
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.pointerDown(event));
    canvas.addEventListener("pointermove", (event) => this.pointerMove(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => event.pointerId === this.pointer && this.lift());
    }
    canvas.addEventListener("keydown", (event) => this.keyDown(event));
    canvas.addEventListener("focus", () => this.showCursor());
    canvas.addEventListener("blur", () => this.lift());
    new ResizeObserver(() => this.redraw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  pointerDown(event) {
    if (this.pointer !== null || event.button !== 0) return;
    this.lift();
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.cursor.hidden = true;
    this.begin(this.place(event));
  }

  pointerMove(event) {
    if (event.pointerId !== this.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) this.extend(this.place(one));
    this.onChange();
  }

  /** End the stroke of the pointer, and lift the pen of the keyboard. */
  lift() {
    this.pointer = null;
    this.keys.isDown = false;
    this.showCursor();
  }

  keyDown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = MOVES[event.key];
    if (move) this.moveBy(...move);
    else if (event.key === " ") this.togglePen();
    else if (event.key === "Backspace") this.undo();
    else if (event.key === "Delete") this.clear();
    else return;
    event.preventDefault();
    this.showCursor();
  }

  moveBy(right, down) {
    const inside = (value) => Math.min(Math.max(value, PEN), SIDE - PEN);
    this.keys.x = inside(this.keys.x + right * STEP);
    this.keys.y = inside(this.keys.y + down * STEP);
    if (this.keys.isDown) {
      this.extend([this.keys.x, this.keys.y]);
      this.onChange();
    }
  }

  togglePen() {
    this.keys.isDown = !this.keys.isDown;
    this.say(this.keys.isDown ? "Pen down." : "Pen up.");
    if (this.keys.isDown) this.begin([this.keys.x, this.keys.y]);
  }

  /** Show where the pen of the keyboard is, while the area has the focus and no pointer draws. */
  showCursor() {
    const { cursor, keys, canvas } = this;
    cursor.hidden = !canvas.matches(":focus-visible") || this.pointer !== null;
    cursor.style.left = `${(100 * keys.x) / SIDE}%`;
    cursor.style.top = `${(100 * keys.y) / SIDE}%`;
    cursor.classList.toggle("down", keys.isDown);
  }

  begin(point) {
    this.strokes.push([point]);
    this.addLine(point, point);
    this.onChange();
  }

  extend(point) {
    const stroke = this.strokes.at(-1);
    this.addLine(stroke.at(-1), point);
    stroke.push(point);
  }

  place(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [((event.clientX - left) / width) * SIDE, ((event.clientY - top) / height) * SIDE];
  }

  redraw() {
    const { canvas, context, inkContext } = this;
    const pixels = Math.round(canvas.clientWidth * devicePixelRatio);
    if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
    context.setTransform(pixels / SIDE, 0, 0, pixels / SIDE, 0, 0);
    for (const one of [context, inkContext]) one.clearRect(0, 0, SIDE, SIDE);
    for (const stroke of this.strokes) {
      stroke.forEach((point, i) => this.addLine(stroke[Math.max(i - 1, 0)], point));
    }
  }

  addLine(from, to) {
    this.context.strokeStyle = getComputedStyle(this.canvas).color;
    for (const context of [this.context, this.inkContext]) {
      Object.assign(context, { lineWidth: PEN, lineCap: "round", lineJoin: "round" });
      context.beginPath();
      context.moveTo(...from);
      context.lineTo(to[0] + 0.01, to[1]); // of no length, a line might not be drawn
      context.stroke();
    }
  }
}
