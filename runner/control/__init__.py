"""What is done with runs that exist: stop, retry, rerun, archive and delete them, and look at them in KFP's UI."""
