"""What the steps of a run left in stores: in that of KFP's artifacts, and in the run's own."""
