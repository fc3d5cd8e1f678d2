"""The command line's verbs: what each takes, and the module that does it."""
