"""What all layers use: errors, files, document schemas, the log, code digests, and the machine's resources."""
