"""What the steps of the graph `prediction` share: the model that is chosen once, the pods' shares, and the store."""
