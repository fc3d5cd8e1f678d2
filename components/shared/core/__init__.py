"""What every layer stands on: errors, files, document schemas, the log, code digests, and the machine's resources."""
