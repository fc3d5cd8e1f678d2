"""Training by several processes: the process group, one machine, and a TrainJob of many."""
