"""Gateway API (gateway.networking.k8s.io): its definitions as published, and typed forms of what we read of them.

The definitions are not ours: other implementations in a cluster share them. So they are taken as they are published
(:mod:`.upstream`), and the models here only read what an API server has validated by them; a test holds every field of
the models against the published schemas.
"""

GROUP = "gateway.networking.k8s.io"
CONTROLLER = "quarterdeck.dev/gateway-controller"
"""``spec.controllerName`` of the GatewayClasses that are ours."""
CLASS, AGENTGATEWAY_CLASS = "quarterdeck", "agentgateway"
