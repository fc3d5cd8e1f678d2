"""A training on a data set that is larger than the disk: in which order it reads the images, and how they come."""
