"""Raw data and prepared data sets: formats, decoding, splits, and the data sets that the store keeps."""
