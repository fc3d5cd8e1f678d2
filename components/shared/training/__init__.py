"""The training engine: one loop for every network, on the CPU, one GPU, and several GPUs of one or many nodes."""
