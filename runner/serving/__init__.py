"""The verb that serves versions by KServe."""
