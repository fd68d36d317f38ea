"""``python -m quarterdeck.node``: this machine as a node of a Kubernetes cluster, its Pods as processes."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import signal
import sys
from pathlib import Path

import uvloop

from quarterdeck.errors import QuarterdeckError
from quarterdeck.kube.client import KubeClient, load_config
from quarterdeck.node.node import Node
from quarterdeck.node.runtime import NodeConfig


def parser() -> argparse.ArgumentParser:
    """The flags; where kubelet has one of the same meaning, its name."""
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.node", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="identity system:node:NAME, group system:nodes")
    parser.add_argument("--name", required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--pod-cidr", help="addresses of Pods; made local here (default: a free 10.244.N.0/24)")
    parser.add_argument("--node-ip", default="127.0.0.1", help="of the kubelet API and of hostNetwork Pods")
    parser.add_argument("--port", type=int, default=0, help="of the kubelet API (0: a free one)")
    parser.add_argument("--tls-cert-file", default="", help="serving certificate of the kubelet API; without: no API")
    parser.add_argument("--tls-private-key-file", default="")
    parser.add_argument("--client-ca-file", default="", help="who may call the kubelet API")
    parser.add_argument("--service-cidr", default="", help="relay Services' addresses, and give Pods their names")
    parser.add_argument("--api-address", help="what Pods are told, HOST:PORT (default: Service kubernetes)")
    parser.add_argument("--proxy-kubeconfig", type=Path, help="reads Services and EndpointSlices (system:kube-proxy)")
    text = "reads NetworkPolicies, Namespaces and Pods of all; without it NetworkPolicies are not applied here"
    parser.add_argument("--network-kubeconfig", type=Path, help=text)
    parser.add_argument("--node-labels", default="", help="NAME=VALUE, comma-separated")
    parser.add_argument("--max-pods", type=int, default=200)
    parser.add_argument("--sync-frequency", type=float, default=10.0, help="seconds between looks at volumes' sources")
    parser.add_argument("--allow-host-path", action="store_true")
    return parser


def node_config(given: argparse.Namespace) -> NodeConfig:
    """Raises ConfigError for a kubeconfig that cannot be used."""
    proxied = KubeClient(load_config(given.proxy_kubeconfig)) if given.proxy_kubeconfig else None
    network = KubeClient(load_config(given.network_kubeconfig)) if given.network_kubeconfig else None
    first = f"{ipaddress.ip_network(given.service_cidr)[1]}:443" if given.service_cidr else ""
    host, _, port = (given.api_address or first).rpartition(":")
    return NodeConfig(
        client=KubeClient(load_config(given.kubeconfig)),
        name=given.name,
        data_dir=given.data_dir,
        pod_cidr=given.pod_cidr,
        host_ip=given.node_ip,
        kubelet_port=given.port,
        kubelet_cert=given.tls_cert_file,
        kubelet_key=given.tls_private_key_file,
        client_ca=given.client_ca_file,
        allow_host_path=given.allow_host_path,
        labels=dict(pair.split("=", 1) for pair in given.node_labels.split(",") if pair),
        refresh=given.sync_frequency,
        max_pods=given.max_pods,
        api_address=(host, int(port)) if host else None,
        service_cidr=given.service_cidr,
        service_client=proxied,
        network_client=network,
    )


async def serve(config: NodeConfig) -> None:
    """Run until SIGTERM or SIGINT; Pods end with the node, and are started again by the next one."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    node = Node(config)
    try:
        await node.start()
        await ended.wait()
    finally:
        await node.stop()
        for client in (config.client, config.service_client, config.network_client):
            if client is not None:
                await client.close()


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        uvloop.run(serve(node_config(parser().parse_args(arguments))))
    except QuarterdeckError as error:
        print(f"node: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
