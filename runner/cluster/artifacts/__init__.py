"""What the steps of a run left in the store of KFP's artifacts."""
