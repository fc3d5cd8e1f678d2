"""The library of the steps, in layers: core, storage, data and models, parameters, training, evaluation, registry."""
