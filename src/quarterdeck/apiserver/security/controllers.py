"""What the platform's own processes may do: one least-privilege policy for each identity, as data.

``system:kube-controller-manager`` runs the built-in workload controllers. Its garbage collector and its namespace
controller work on kinds nobody knows beforehand, so their verbs are on everything, as in Kubernetes' own policy.
"""

from __future__ import annotations

from .bootstrap import ControllerPolicy
from .rules import Rule

_READ = ("get", "list", "watch")
_APPLY = ("create", "patch")
_EVENTS = Rule(("create", "patch"), ("", "events.k8s.io"), ("events",))
_GATEWAYS = ("gateway.networking.k8s.io", "gateway.kgateway.dev", "agentgateway.dev")
_OIDC = Rule(("get",), urls=("/.well-known/openid-configuration", "/openid/v1/jwks"))

KUBE_CONTROLLER_MANAGER = ControllerPolicy(
    "system:kube-controller-manager",
    rules=(
        # garbage collector and namespace controller
        Rule((*_READ, "patch", "delete", "deletecollection"), ("*",), ("*",)),
        Rule(("update",), ("",), ("namespaces/finalize", "namespaces/status")),
        # what the workload controllers make
        Rule(("create",), ("",), ("pods", "pods/binding", "endpoints", "serviceaccounts", "configmaps")),
        Rule(("create",), ("apps",), ("replicasets",)),
        Rule(("create",), ("batch",), ("jobs",)),
        Rule(("create",), ("discovery.k8s.io",), ("endpointslices",)),
        # what they replace
        Rule(("update",), ("",), ("endpoints", "pods/status", "nodes/status")),
        Rule(("update",), ("apps",), ("deployments/status", "replicasets/status")),
        Rule(("update",), ("batch",), ("jobs/status", "cronjobs/status")),
        Rule(("update",), ("discovery.k8s.io",), ("endpointslices",)),
        Rule(("update",), ("policy",), ("poddisruptionbudgets/status",)),
        Rule(("update",), ("autoscaling",), ("horizontalpodautoscalers/status",)),
        Rule(("get",), urls=("/api", "/api/*", "/apis", "/apis/*")),
        _EVENTS,
    ),
)

QUARTERDECK_CONTROLLER = ControllerPolicy(
    "quarterdeck-controller",
    rules=(
        Rule(_READ, ("kagent.dev", "quarterdeck.dev"), ("*",)),
        Rule(("patch",), ("kagent.dev", "quarterdeck.dev"), ("*/status",)),
        # copies of approvals and of runs
        Rule((*_APPLY, "delete"), ("quarterdeck.dev",), ("approvals", "runs")),
        # what an Agent, MCPServer or ModelConfig consists of; deleted by the garbage collector through its owner
        Rule((*_READ, *_APPLY), ("",), ("services", "secrets", "configmaps", "serviceaccounts")),
        Rule((*_READ, *_APPLY), ("apps",), ("deployments",)),
        # a canary's go while their owner stays
        Rule(("delete",), ("",), ("services", "secrets")),
        Rule(("delete",), ("apps",), ("deployments",)),
        Rule((*_READ, *_APPLY, "delete"), ("apps",), ("controllerrevisions",)),
        Rule((*_READ, *_APPLY, "delete"), ("networking.k8s.io",), ("networkpolicies",)),
        Rule(_READ, ("",), ("namespaces", "pods", "endpoints", "resourcequotas")),
        Rule(_READ, ("apps",), ("replicasets",)),
        Rule(_READ, ("discovery.k8s.io",), ("endpointslices",)),
        Rule(_READ, ("autoscaling",), ("horizontalpodautoscalers",)),
        # Gateways: a Deployment and Service each, or a Service that leads to the shared gateway
        Rule(_READ, _GATEWAYS, ("*",)),
        Rule(("patch",), _GATEWAYS, ("*/status",)),
        Rule(("create",), ("gateway.networking.k8s.io",), ("gatewayclasses",)),
        Rule((*_APPLY, "delete"), ("discovery.k8s.io",), ("endpointslices",)),
        # whether another controller of these kinds may write elsewhere than in its own namespace
        Rule(("create",), ("authorization.k8s.io",), ("subjectaccessreviews",)),
        # what the ServiceAccounts of triggers may do, and the Events that fire some
        Rule(("create",), ("authorization.k8s.io",), ("localsubjectaccessreviews",)),
        Rule(("list", "watch"), ("",), ("events",)),
        _EVENTS,
        _OIDC,
    ),
)

QUARTERDECK_SERVER = ControllerPolicy(
    "quarterdeck-server",
    rules=(
        Rule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
        Rule(("create",), ("authorization.k8s.io",), ("subjectaccessreviews",)),
    ),
)

QUARTERDECK_NETWORK = ControllerPolicy(
    "quarterdeck-network",  # the node's firewall, which has to know everybody's Pods
    rules=(
        Rule(_READ, ("networking.k8s.io",), ("networkpolicies",)),
        Rule(_READ, ("",), ("namespaces", "pods")),
    ),
)

PLATFORM = (KUBE_CONTROLLER_MANAGER, QUARTERDECK_CONTROLLER, QUARTERDECK_SERVER, QUARTERDECK_NETWORK)
