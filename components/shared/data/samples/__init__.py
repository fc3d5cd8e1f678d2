"""Pictures that come as samples, each with its split and label: WebDataset, Parquet, manifests, ImageNet."""
