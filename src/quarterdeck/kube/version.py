"""The Kubernetes release that is spoken; one for all parts: a kubelet is never newer than its API server."""

KUBERNETES_VERSION = "v1.36.3"
SERVER_VERSION = f"{KUBERNETES_VERSION}+quarterdeck"
"""As ``/version`` and the Node show it."""
