/**
 * The page: what is drawn, or chosen among the test pictures, goes through the version that is chosen.
 *
 * After each prediction the document gets the event "prediction", whose `detail` has the version, the picture
 * (`pixels`, Uint8Array), the probabilities (Float32Array) and the maps.
 */

import { Answer } from "./answer.js";
import { Drawing, SIDE } from "./drawing.js";
import { MapsView } from "./maps.js";
import { Mistakes } from "./mistakes.js";
import { Network } from "./network.js";
import { prepare } from "./preparation.js";

const element = (id) => document.getElementById(id);
const answer = new Answer({ best: element("best"), sure: element("sure"), bars: element("bars"), live: element("live") });
const maps = new MapsView(element("layers"));
const mistakes = new Mistakes(element("mistakes"), element("mistakes-note"), choosePicture);
const drawing = new Drawing(element("pad"), element("cursor"), drawingChanged, (text) => answer.say(text));

let network = null; // of the version that is chosen, once it is loaded
let chosen = null; // a test picture that is shown in place of the drawing: { pixels, name }
let isStale = false; // whether something has changed since the last prediction began
let isPredicting = false; // or waits for the next frame, to predict then

function drawingChanged() {
  chosen = null;
  mistakes.release();
  changed();
}

function choosePicture(pixels, name) {
  if (!drawing.isEmpty) drawing.clear();
  mistakes.release();
  chosen = { pixels, name };
  element("answer").scrollIntoView({ block: "nearest" });
  changed();
}

/** Predict in the next frame, however much changes until then, and once more for what changes during that. */
function changed() {
  element("hint").hidden = !drawing.isEmpty;
  element("hint").textContent = chosen?.name ?? "Draw here";
  element("undo").disabled = element("clear").disabled = drawing.isEmpty && !chosen;
  isStale = true;
  if (isPredicting) return;
  isPredicting = true;
  requestAnimationFrame(async () => {
    isStale = false;
    await predict().catch(fail);
    isPredicting = false;
    if (isStale) changed();
  });
}

async function predict() {
  if (!network) return;
  performance.mark("prediction-starts");
  const current = network;
  const pixels = chosen?.pixels ?? prepare(drawing.ink(), SIDE, current.version.side);
  if (!pixels) {
    answer.clear();
    maps.draw(new Uint8Array(current.version.side ** 2), current.blank, current.blank);
    return;
  }
  const result = await current.run(pixels);
  if (current !== network) return;
  answer.update(result.probabilities, chosen ? `${chosen.name}: ` : "");
  maps.draw(pixels, result.maps, current.blank);
  performance.measure("prediction", "prediction-starts");
  const detail = { version: current.version.version, pixels, ...result };
  document.dispatchEvent(new CustomEvent("prediction", { detail }));
}

let opening = 0; // how many versions have been asked for: only the last one counts

async function open(page, version) {
  const number = ++opening;
  network?.close();
  network = null;
  tell(`Loading version ${version.version} …`);
  const opened = await Network.open(version);
  if (number !== opening) {
    opened.close();
    return;
  }
  answer.show(version.classes);
  maps.show(version);
  if (chosen) drawingChanged(); // a test picture of the other version
  network = opened;
  tell("");
  describe(page, version);
  await predict();
  await mistakes.show(version);
}

function describe(page, { version, accuracy, network: name, package_digest: digest, no_layers: reason }) {
  const colours = [coloured("warm", "more"), " or ", coloured("cool", "less"), " than it is without ink."];
  element("maps-note").replaceChildren(...(reason ? [reason] : ["Each point of a map is ", ...colours]));
  element("origin").textContent =
    `Version ${version} of ${page.name}: ${name}, ${(100 * accuracy).toFixed(2)} % on its test set, package ` +
    `${digest.slice(0, 12)}. It runs in ${page.runtime}, on one thread of your browser.`;
}

function coloured(kind, text) {
  const span = document.createElement("span");
  span.className = kind;
  span.textContent = text;
  return span;
}

/** Show in place of the answer what the page waits for, or the answer again. */
function tell(text, isFailure = false) {
  element("status").textContent = text;
  element("status").hidden = !text;
  element("status").classList.toggle("failed", isFailure);
  element("answer").hidden = Boolean(text);
}

function fail(error) {
  tell(`The model cannot be run here: ${error.message ?? error}`, true);
}

async function start() {
  const response = await fetch("demo.json");
  if (!response.ok) throw new Error(`demo.json could not be loaded (status ${response.status})`);
  const page = await response.json();
  const select = element("version");
  for (const version of page.versions) {
    const champion = version.is_champion ? ", champion" : "";
    const text = `${version.version}: ${version.network}, ${(100 * version.accuracy).toFixed(2)} %${champion}`;
    select.append(new Option(text, version.version, version.is_champion, version.is_champion));
  }
  const choose = () => page.versions.find((version) => String(version.version) === select.value);
  select.addEventListener("change", () => open(page, choose()).catch(fail));
  select.disabled = false;
  await open(page, choose());
}

element("undo").addEventListener("click", () => (chosen ? drawing.clear() : drawing.undo()));
element("clear").addEventListener("click", () => drawing.clear());
start().catch(fail);
