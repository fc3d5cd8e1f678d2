/** A version of the model, run by ONNX Runtime in this page: one thread, no shared memory. */

import * as ort from "../onnxruntime/ort.wasm.min.js";

const address = (path) => new URL(`../onnxruntime/${path}`, import.meta.url).href;

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = {
  mjs: address("ort-wasm-simd-threaded.js"),
  wasm: address("ort-wasm-simd-threaded.wasm"),
};

export class Network {
  constructor(version, session) {
    this.version = version;
    this.session = session;
    this.turn = Promise.resolve(); // the end of the run before: a session does one at a time
  }

  /** Load a version of demo.json, and run it once on an empty picture, whose feature maps are kept as `blank`. */
  static async open(version) {
    const response = await fetch(version.file);
    if (!response.ok) throw new Error(`${version.file} could not be loaded (status ${response.status})`);
    const program = new Uint8Array(await response.arrayBuffer());
    const network = new Network(version, await ort.InferenceSession.create(program, { executionProviders: ["wasm"] }));
    network.blank = (await network.run(new Uint8Array(version.side ** 2))).maps;
    return network;
  }

  /** Classify a picture (Uint8Array, side x side): its probabilities, and the maps of each layer in one array. */
  run(pixels) {
    const result = this.turn.then(async () => {
      const { side, layers } = this.version;
      const outputs = await this.session.run({ images: new ort.Tensor("uint8", pixels, [1, 1, side, side]) });
      return {
        probabilities: outputs.probabilities.data,
        maps: layers.map((layer) => outputs[layer.output].data),
      };
    });
    this.turn = result.catch(() => {});
    return result;
  }

  async close() {
    await this.turn;
    await this.session.release();
  }
}
