"""How many transitions of Argo a run takes one after the other, counted in the compiled pipeline.

As read in KFP's compiler (backend/src/v2/compiler/argocompiler/dag.go): each graph of tasks has a pod that prepares it,
its driver, and so has each step, whose executor follows unless the cache has its result. A loop has a driver, and
another one for each pass. A driver starts when the tasks before it have succeeded, the exit task's when its group has
ended. Argo looks at a run every 10 s, so each pod on the longest way counts as that.
"""

from typing import Any

Document = dict[str, Any]
EXIT = "ALL_UPSTREAM_TASKS_COMPLETED"


def transitions(pipeline: Document, is_cached: bool) -> int:
    """Return the number of pods on the longest way of a run; `is_cached`: no step runs but those never cached."""
    return _of_graph(pipeline, pipeline["root"], is_cached)


def _of_graph(pipeline: Document, component: Document, is_cached: bool) -> int:
    tasks = component["dag"]["tasks"]
    ends: dict[str, int] = {}
    while len(ends) < len(tasks):
        ready = [name for name in tasks if name not in ends and ends.keys() >= _before(tasks[name])]
        for name in ready:
            started = max((ends[before] for before in _before(tasks[name])), default=0)
            ends[name] = started + _of_task(pipeline, tasks[name], is_cached)
    return 1 + max(ends.values())


def _before(task: Document) -> set[str]:
    return set(task.get("dependentTasks", []))


def _of_task(pipeline: Document, task: Document, is_cached: bool) -> int:
    component = pipeline["components"][task["componentRef"]["name"]]
    if "dag" in component:
        return _of_graph(pipeline, component, is_cached) + ("parameterIterator" in task)
    return 1 if is_cached and task["cachingOptions"].get("enableCache") else 2
