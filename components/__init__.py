"""The steps of the pipeline: `step_table.py` lists them in the order in which they run.

Step modules are ordinary Python and never import one another: only artifacts cross between steps.
`prediction/` has those of the graph `prediction`; `steps.py` holds their Kubeflow ports, `shared/` what several steps
need.
"""
