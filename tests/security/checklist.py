"""The security checklist (protocols.md §5), line by line: what a gateway must do, or why the line is not its own.

The tests of line N are named ``test_sNN_…`` and attack a running gateway over sockets; ``test_checklist.py`` fails when
a line has neither a test nor a reason. Sources of the lines: MCP's security best practices of 2026-07-28, OWASP MCP Top
10 (2025), OWASP Agentic Top 10 (2026).
"""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    threat: str
    duty: str
    """What the gateway does about it; empty when nothing is the gateway's to do."""
    elsewhere: str = ""
    """What of the line is somebody else's, and whose."""


LINES: dict[int, Line] = {
    1: Line("token passthrough", "no backend sees the caller's token; one for another audience is 401"),
    2: Line(
        "confused deputy with a static client id",
        "the gateway gives out no codes and sets no cookies: who asks with the shared client id is sent on with the "
        "redirect_uri as it came, which the authorization server compares with the registered ones",
        "consent pages are the authorization server's; where the gateway signs in for users it asks first itself",
    ),
    3: Line("SSRF", "link-local and own addresses are refused however they are written; redirects are not followed"),
    4: Line("state-handle and session hijack", "random, sealed, bound to caller and route; never authentication"),
    5: Line("requestState tampering and replay", "altered, expired, used, another user's or another call's: refused"),
    6: Line("DNS rebinding", "foreign Origin and Host are 403; ports bind loopback unless told otherwise"),
    7: Line("header and body smuggling", "contradictions and duplicates are 400 (-32020); policy reads the body"),
    8: Line("tool poisoning", "nothing is served before it was approved; what is hidden in a definition is found"),
    9: Line("rug pull", "a definition that changed after its approval is neither listed nor called"),
    10: Line("tool shadowing", "no server can take a name of another's"),
    11: Line(
        "prompt injection in results",
        "sizes are bounded; a result is data: it cannot become a message, an event or a request of its own",
        "guardrails on texts come with those of models",
    ),
    12: Line("scope creep", "deny by default, decided per call; 403 asks for missing scopes and no others"),
    13: Line("missing authentication", "every path and method of a guarded port is 401 without a token"),
    14: Line("command injection", "stdio servers get their arguments as written, from no shell, and no secrets of ours",
             "the sandbox is the node's (tests/node); showing the command is the client's"),
    15: Line("stdio proxy RCE", "no port takes a command; web pages reach none of the operators' ports"),
    16: Line("malicious authorization URL", "metadata that leads to anything but http(s) is not passed on",
             "opening it without a shell is the client's"),
    17: Line("mix-up and issuer spoofing", "issuers are compared exactly, in tokens and in metadata"),
    18: Line("localhost redirect impersonation, trust in CIMD",
             "with a shared client, only addresses that can be a client's are taken at registration",
             "consent pages and the list of trusted client documents are the authorization server's"),
    19: Line("supply chain", "", "images and packages are the node's and the registry's (tests/oci, tests/node)"),
    20: Line("shadow servers", "only what is registered can be reached, by no spelling of a request"),
    21: Line("no audit", "one record per decision with who, what, rule and outcome; edits are found"),
    22: Line("secret leakage", "no secret in logs, records, dumps, metrics, errors"),
    23: Line("context over-sharing", "lists are private to their caller; no two callers share a session",
             "memory is the agents' (tests/agents)"),
    24: Line("cascading failure", "time limits, circuit breakers, no call back into the gateway, no loops of agents"),
    25: Line("insecure inter-agent communication",
             "agents need a token and a grant, the gateway names them; replay between its processes is refused",
             "tunnels and signed cards: not there yet"),
    26: Line("human trust, rogue agents", "the kill switch ends what is open within a second",
             "what an approval shows is tested with approvals"),
    27: Line("resource exhaustion", "bodies, heads, events, depth, pages and sessions are bounded; slow clients end"),
    28: Line("external $ref", "never fetched, passed on as they are"),
    29: Line("icon and UI content", "passed on unmodified, with its CSP; never fetched", "the sandbox is the client's"),
}  # fmt: skip
