"""The restricted profile of the Pod Security Standards."""

from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def breaches(pod: dict[str, Any]) -> set[str]:
    """Return the rules of the restricted profile of the Pod Security Standards that a pod breaks."""
    found = {name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)}
    found |= {"volumes" for volume in pod.get("volumes", []) if not (volume.keys() - {"name"}) <= VOLUMES}
    of_pod = pod.get("securityContext", {})
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in pod.get(kind, []):
            context = {**of_pod, **container.get("securityContext", {})}
            capabilities = context.get("capabilities", {})
            rules = {
                "privileged": not context.get("privileged"),
                "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
                "runAsNonRoot": context.get("runAsNonRoot") is True,
                "runAsUser": context.get("runAsUser") != 0,
                "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
                "drop": "ALL" in capabilities.get("drop", []),
                "add": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
                "procMount": context.get("procMount", "Default") == "Default",
                "sysctls": not context.get("sysctls"),
                "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
            }
            found |= {name for name, is_met in rules.items() if not is_met}
    return found
