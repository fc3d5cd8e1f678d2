"""Which files of a data set are its pictures, and of which split and class each of them is."""
