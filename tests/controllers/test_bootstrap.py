from __future__ import annotations

from quarterdeck.controllers.bootstrap import GatewayListeners, gateway
from quarterdeck.gateway.options import parse


def test_the_gateway_understands_the_flags_it_is_given() -> None:
    account, claim, deployment, service = gateway(GatewayListeners("http://127.0.0.1:8700", local="127.0.0.1:9001"))
    pod = deployment["spec"]["template"]["spec"]
    options = parse(pod["containers"][0]["args"])
    assert options.local == ("127.0.0.1", 9001)
    assert options.control_plane == "http://127.0.0.1:8700"
    assert pod["volumes"][1]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert service["spec"]["ports"][0]["targetPort"] == 9001
    assert (
        deployment["spec"]["selector"]["matchLabels"].items()
        <= deployment["spec"]["template"]["metadata"]["labels"].items()
    )
