"""A data set that many pods prepare: the list of its pictures, and what is done of them in the store."""
