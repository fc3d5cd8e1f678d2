"""The verbs that serve models: in a cluster, and on this machine."""

import argparse

from components.shared.model_server.options import add_options
from runner.verbs.options import Verb, add_store, percents, seconds


def _deploy(parser: argparse.ArgumentParser) -> None:
    parser.description = """Serve a version by KServe. A version that replaces another starts as a canary without
traffic; once it predicts of its kept test images what it predicted when it was registered, it gets the traffic in
steps, and is promoted. Whatever fails before leaves the old version serving.

Exit code: 0 it serves, 1 it does not: it is not ready, or fails the smoke test; 2 a mistake to fix."""
    parser.epilog = """examples:
  python pipeline.py deploy mnist --store s3://bucket/prefix
  python pipeline.py deploy mnist/7 --store s3://bucket/prefix --canary 10,50 --pause 300
  python pipeline.py deploy mnist --status
  python pipeline.py deploy mnist --rollback
"""
    parser.add_argument("address", metavar="NAME[/VERSION]", help="the model; without a version its champion")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--status", action="store_true", help="only show what serves")
    action.add_argument("--rollback", action="store_true", help="take the canary back, also from a deploy that runs")
    text = "percent of the traffic that the canary gets, one step after the other (10); 0 for none before all"
    parser.add_argument("--canary", type=percents, default=(10,), metavar="N[,N...]", help=text)
    text = "how long to watch each step (%(default)g)"
    parser.add_argument("--pause", type=seconds, default=60.0, metavar="SECONDS", help=text)
    text = "how long to wait for a version to be ready (%(default)g)"
    parser.add_argument("--timeout", type=seconds, default=600.0, metavar="SECONDS", help=text)
    parser.add_argument("--hold", action="store_true", help="stay at the last step; another deploy promotes it")
    text = "do not compare what it predicts, as for a version that keeps no test images"
    parser.add_argument("--no-smoke-test", action="store_true", help=text)
    text = "the namespace to serve in, if it is not that of the runs"
    parser.add_argument("--serving-namespace", metavar="NAME", help=text)
    text = "the ServingRuntime of a new service (kserve-tritonserver)"
    parser.add_argument("--runtime", metavar="NAME", help=text)
    text = "KServe's mode of a new service (knative where the cluster has it)"
    parser.add_argument("--mode", choices=("standard", "knative"), help=text)
    add_store(parser)


def _serve(parser: argparse.ArgumentParser) -> None:
    parser.description = """Serve a model by the Open Inference Protocol (v2), REST and gRPC, until Ctrl-C or SIGTERM;
requests in flight are still answered then. A new champion replaces the old one between two requests."""
    parser.epilog = """examples:
  python pipeline.py serve
  python pipeline.py serve --model mnist
  python pipeline.py serve --model mnist/3 --port 8080
  python pipeline.py serve --model runs/latest/package
"""
    text = "NAME (its champion), NAME/VERSION, its s3:// address, or a package's folder (default: the only model)"
    parser.add_argument("--model", metavar="MODEL", help=text)
    add_options(parser)
    add_store(parser)


VERBS = (
    Verb("deploy", "serving.deploy", _deploy, "serve a version by KServe, with a canary"),
    Verb("serve", "serving.serve", _serve, "serve a model by the v2 protocol on this machine"),
)
