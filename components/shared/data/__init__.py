"""Raw data and prepared data sets: formats, decoding, splits, and the prepared data sets in the store."""
