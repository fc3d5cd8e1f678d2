/** The picture that the network takes, and the feature maps of its layers, lit up by what differs from no ink. */

const WARM = [255, 184, 77]; // more than for an empty picture
const COOL = [98, 164, 255]; // less

export class MapsView {
  constructor(container) {
    this.container = container;
  }

  /** Make room for the picture and the layers of a version. */
  show({ side, layers }) {
    this.picture = tile(side, side);
    this.layers = layers.map((layer) => ({
      ...layer,
      tiles: Array.from({ length: layer.maps }, () => tile(layer.width, layer.height)),
    }));
    const first = figure("Input", `${side} × ${side}`, [this.picture], "one");
    const rest = this.layers.map(({ name, maps, height, width, tiles }, i) => {
      const kind = `${maps > 6 ? "" : "few"} ${name.startsWith("S") ? "small" : ""}`;
      return figure(name, `${maps} of ${height} × ${width}`, tiles, kind);
    });
    this.container.replaceChildren(first, ...rest);
  }

  /** Show a picture (Uint8Array) and its maps beside those of an empty picture. */
  draw(pixels, maps, blank) {
    paintGray(this.picture, pixels);
    this.layers.forEach((layer, i) => light(layer, maps[i], blank[i]));
  }
}

/** Paint the maps of a layer by their differences from an empty picture's, the largest of which is brightest. */
function light({ tiles, width, height }, values, blank) {
  let largest = 0;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i] - blank[i]));
  const brightness = 255 / (largest || 1);
  const size = width * height;
  tiles.forEach((canvas, map) =>
    paint(canvas, (data, i) => {
      const value = values[map * size + i] - blank[map * size + i];
      [data[4 * i], data[4 * i + 1], data[4 * i + 2]] = value > 0 ? WARM : COOL;
      data[4 * i + 3] = brightness * Math.abs(value);
    }),
  );
}

/** Paint a picture (Uint8Array) on a canvas of its size. */
export function paintGray(canvas, pixels) {
  paint(canvas, (data, i) => {
    data[4 * i] = data[4 * i + 1] = data[4 * i + 2] = pixels[i];
    data[4 * i + 3] = 255;
  });
}

function paint(canvas, setPixel) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < canvas.width * canvas.height; i++) setPixel(image.data, i);
  context.putImageData(image, 0, 0);
}

function tile(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

function figure(name, size, tiles, kind) {
  const element = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const small = document.createElement("small");
  small.textContent = size;
  caption.append(name, small);
  const grid = document.createElement("div");
  grid.className = `tiles ${kind}`;
  grid.setAttribute("role", "img");
  grid.setAttribute("aria-label", `${name}, ${size}`);
  grid.append(...tiles);
  element.append(caption, grid);
  return element;
}
