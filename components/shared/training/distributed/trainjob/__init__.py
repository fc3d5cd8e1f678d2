"""TrainJobs of Kubeflow Trainer 2: their manifest, and how they run in a cluster or on this machine."""
