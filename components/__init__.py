"""The steps of the pipeline, in the order in which they run, and what each hands on.

resolve     source URI and all parameters -> the data's version, on which all caching hangs
download    source URI -> raw files, verified (`raw.json` and a few large files)
preprocess  raw files -> prepared dataset (`dataset.json` and uint8 shards)
train       prepared dataset -> model (`model.json`, `model.safetensors`, `history.json`)
evaluate    model + test split -> `evaluation.json`, predictions, metrics, report, verdict
export      model + test split -> package (`package.json`, `model.onnx`, `model.pt2`), and `measurements.json`
register    package + predictions + test split -> a version in the store, its champion if better (`registration.json`)
finish      how the run ended -> `record.json`, whatever happened

Step modules are ordinary Python and never import one another: only artifacts cross between steps.
`steps.py` holds their Kubeflow ports; `shared/` what several steps need.
"""
