/**
 * From ink to the picture that the network takes, as MNIST's pictures were made: scaled into a box of 20 x 20 pixels,
 * placed in 28 x 28 so that its centre of mass is in the middle, and then as the pipeline prepares those.
 */

export const MNIST_SIDE = 28;
const BOX_SIDE = 20;
const MIDDLE = 14; // the number, from 0, of the pixel at which each picture of MNIST has its centre of mass, within 0.5

/**
 * Return the picture (Uint8Array, size x size) of ink (Uint8Array, side x side, 0 where there is none); null if there
 * is no ink.
 */
export function prepare(ink, side, size) {
  const bounds = boundsOf(ink, side);
  return bounds && enlarge(centre(shrinkToBox(ink, side, bounds)), size);
}

/** Return the smallest box with all of the ink; its right and bottom are outside. */
function boundsOf(ink, side) {
  let [left, top, right, bottom] = [side, side, 0, 0];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      if (ink[y * side + x]) {
        left = Math.min(left, x);
        right = Math.max(right, x + 1);
        top = Math.min(top, y);
        bottom = y + 1;
      }
    }
  }
  return right ? { left, top, right, bottom } : null;
}

/** Scale the ink in its bounds so that the longer side fills the box, and keep the aspect ratio: rows of numbers. */
function shrinkToBox(ink, side, { left, top, right, bottom }) {
  const span = Math.max(right - left, bottom - top) / BOX_SIDE;
  const width = Math.ceil((right - left) / span - 1e-9);
  const height = Math.ceil((bottom - top) / span - 1e-9);
  const narrow = [];
  for (let y = top; y < bottom; y++) {
    narrow.push(averages(ink.subarray(y * side + left, y * side + right), span, width));
  }
  const columns = Array.from({ length: width }, (_, x) => averages(narrow.map((row) => row[x]), span, height));
  return Array.from({ length: height }, (_, y) => columns.map((column) => column[y]));
}

/** Return the averages of a line of numbers over `count` spans; past its end it is zero. */
function averages(line, span, count) {
  const sums = new Float64Array(line.length + 1);
  line.forEach((value, i) => (sums[i + 1] = sums[i] + value));
  const sumUpTo = (x) => {
    const whole = Math.floor(x);
    return whole < line.length ? sums[whole] + (x - whole) * line[whole] : sums[line.length];
  };
  return Array.from({ length: count }, (_, i) => (sumUpTo((i + 1) * span) - sumUpTo(i * span)) / span);
}

/** Place rows of numbers in a picture of MNIST's size, with the centre of mass in the middle. */
function centre(rows) {
  const picture = new Uint8Array(MNIST_SIDE * MNIST_SIDE);
  const columns = rows[0].map((_, x) => rows.map((row) => row[x]));
  const top = offset(rows);
  const left = offset(columns);
  rows.forEach((row, y) =>
    row.forEach((value, x) => (picture[(top + y) * MNIST_SIDE + left + x] = Math.round(value))),
  );
  return picture;
}

/** Return where the first of some lines has to be for their centre of mass to be in the middle, all of them inside. */
function offset(lines) {
  const masses = lines.map((line) => line.reduce((sum, value) => sum + value, 0));
  const mass = masses.reduce((sum, one) => sum + one, 0);
  const centreOfMass = masses.reduce((sum, one, i) => sum + one * i, 0) / mass;
  const wanted = Math.round(MIDDLE - centreOfMass);
  return Math.min(Math.max(wanted, 0), MNIST_SIDE - lines.length);
}

/** Enlarge a picture of MNIST's size by a whole factor, and centre it in zeros, as step preprocess does. */
function enlarge(picture, size) {
  const factor = Math.floor(size / MNIST_SIDE);
  const margin = Math.floor((size - MNIST_SIDE * factor) / 2);
  const result = new Uint8Array(size * size);
  for (let y = 0; y < MNIST_SIDE * factor; y++) {
    for (let x = 0; x < MNIST_SIDE * factor; x++) {
      const value = picture[Math.floor(y / factor) * MNIST_SIDE + Math.floor(x / factor)];
      result[(y + margin) * size + x + margin] = value;
    }
  }
  return result;
}
