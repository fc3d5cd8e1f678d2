"""The steps of the pipeline, in the order in which they run, and what each hands on.

resolve     source URI and all parameters -> the data's version, on which all caching hangs
download    source URI -> raw files, verified (`raw.json` and a few large files)
preprocess  raw files -> prepared dataset (`dataset.json` and uint8 shards)
train       prepared dataset -> model (`model.json`, `model.safetensors`, `history.json`)
plan        settings of a sweep -> its trials, checked; in the graph `sweep`, this and the next two take train's place
trial       prepared dataset and one setting -> model, as train makes it, and `trial.json`
compare     models of all trials -> the best by validation accuracy, `comparison.json`, report
train_distributed
            prepared dataset in the store -> model, as train makes it, by a job of many nodes; graph `distributed`
evaluate    model + test split -> `evaluation.json`, predictions, metrics, report, verdict
export      model + test split -> package (`package.json`, `model.onnx`, `model.pt2`), and `measurements.json`
register    package + predictions + test split -> a version in the store, its champion if better (`registration.json`)
finish      how the run ended -> `record.json`, whatever happened

Step modules are ordinary Python and never import one another: only artifacts cross between steps.
`steps.py` holds their Kubeflow ports; `shared/` what several steps need.
"""
