"""The steps of the graph `bigdata`, whose data set no pod holds whole."""
