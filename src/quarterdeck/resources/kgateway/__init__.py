"""Kinds of kgateway (gateway.kgateway.dev, October 2025) and agentgateway (agentgateway.dev): backends and policies.

What is enforced is typed here; of the rest the schemas keep what was written, and the controllers say that it has no
effect, or refuse the object where leaving it out would weaken security. Facts: reference/agentgateway_and_peers.md §4.
"""

KGATEWAY = "gateway.kgateway.dev"
AGENTGATEWAY = "agentgateway.dev"
SEED_GROUP = "gateway.networking.k8s.io"
"""What the seed's chapter 5 writes as group of a kgateway Backend in targetRefs."""
CATEGORIES = ("quarterdeck",)
