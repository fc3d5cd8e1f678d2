"""How the pipeline is run: the command line, and KFP's local runner behind it."""
