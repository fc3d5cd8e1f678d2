"""A server of an exported package by the Open Inference Protocol (v2), REST and gRPC, on the CPU."""
