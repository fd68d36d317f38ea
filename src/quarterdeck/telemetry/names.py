"""Every metric and attribute name in one place.

Metrics carry agentgateway's names where it has them (reference/agentgateway_and_peers.md §3.1), plus the two series of
the seed's dashboards. Attributes follow OpenTelemetry's MCP and GenAI conventions.
"""

from __future__ import annotations

from typing import Final

# -- metrics
BUILD_INFO: Final = "agentgateway_build_info"
REQUESTS: Final = "agentgateway_requests_total"
REQUEST_DURATION: Final = "agentgateway_request_duration_seconds"
CONNECTIONS: Final = "agentgateway_downstream_connections_total"
HTTP_RETRIES: Final = "agentgateway_retries_total"
MIRRORS_DROPPED: Final = "quarterdeck_gateway_mirrors_dropped_total"
WORKERS: Final = "quarterdeck_gateway_workers"
WORKER_RESTARTS: Final = "quarterdeck_gateway_worker_restarts_total"
LISTENER_UP: Final = "quarterdeck_gateway_listener_up"
MCP_REQUESTS: Final = "agentgateway_mcp_requests_total"
TOKEN_USAGE: Final = "agentgateway_gen_ai_client_token_usage"  # noqa: S105 - tokens of a model, no credential
GEN_AI_DURATION: Final = "agentgateway_gen_ai_server_request_duration"
TOOL_CALLS: Final = "mcp_tool_call_total"
TOOL_CALL_ERRORS: Final = "mcp_tool_call_errors_total"
DENIED: Final = "quarterdeck_gateway_denied_total"
CONFIG_VERSION: Final = "quarterdeck_gateway_config_info"
CONFIG_REJECTED: Final = "quarterdeck_gateway_config_rejected_total"
CONTROL_PLANE_CONNECTED: Final = "quarterdeck_gateway_control_plane_connected"
LOOP_FAILURES: Final = "quarterdeck_loop_failures_total"
WATCH_BUGS: Final = "quarterdeck_watch_bugs_total"
BREAKER_STATE: Final = "quarterdeck_gateway_breaker_state"
BREAKER_OPENED: Final = "quarterdeck_gateway_breaker_opened_total"
BREAKER_REFUSED: Final = "quarterdeck_gateway_breaker_refused_total"
RATE_LIMITED: Final = "quarterdeck_gateway_rate_limited_total"
RETRIES: Final = "quarterdeck_gateway_retries_total"
AUDIT_RECORDS: Final = "quarterdeck_audit_records_total"
AUDIT_ERRORS: Final = "quarterdeck_audit_write_errors_total"
AUDIT_LOST: Final = "quarterdeck_audit_lost_total"
AUDIT_REFUSED: Final = "quarterdeck_audit_refused_calls_total"
AUDIT_BLOCKED: Final = "quarterdeck_audit_blocked"
AUDIT_EXPORTED: Final = "quarterdeck_audit_exported_total"
AUDIT_EXPORT_WAITING: Final = "quarterdeck_audit_export_waiting"
AUDIT_EXPORT_ERRORS: Final = "quarterdeck_audit_export_errors_total"
AUDIT_CHECKPOINT_ERRORS: Final = "quarterdeck_audit_checkpoint_errors_total"
REVOKED: Final = "quarterdeck_gateway_revocations"
QUARANTINED: Final = "quarterdeck_gateway_quarantined_tools"
TRIGGER_FIRINGS: Final = "quarterdeck_trigger_firings_total"
TRIGGER_REFUSED: Final = "quarterdeck_trigger_requests_refused_total"
HOOKS_HELD_BACK: Final = "quarterdeck_gateway_hooks_held_back_total"

# -- metrics of an agent host
AGENT_RUNS: Final = "quarterdeck_agent_runs_total"
AGENT_RUNS_ACTIVE: Final = "quarterdeck_agent_runs_active"
AGENT_RUN_DURATION: Final = "quarterdeck_agent_run_duration_seconds"
AGENT_STEP_DURATION: Final = "quarterdeck_agent_step_duration_seconds"
AGENT_FIRST_TOKEN: Final = "quarterdeck_agent_time_to_first_token_seconds"  # noqa: S105 - no credential
AGENT_TOKENS: Final = "quarterdeck_agent_tokens_total"
AGENT_COST: Final = "quarterdeck_agent_cost_total"
AGENT_SPANS: Final = "quarterdeck_agent_spans_exported_total"
AGENT_SPANS_DROPPED: Final = "quarterdeck_agent_spans_dropped_total"
AGENT_SPANS_WAITING: Final = "quarterdeck_agent_spans_waiting"

# -- metrics of the control plane about runs
RUNS: Final = "quarterdeck_runs_total"
RUN_DURATION: Final = "quarterdeck_run_duration_seconds"
RUN_STEP_DURATION: Final = "quarterdeck_run_step_duration_seconds"
RUN_FIRST_TOKEN: Final = "quarterdeck_run_time_to_first_token_seconds"  # noqa: S105
RUN_TOKENS: Final = "quarterdeck_run_tokens_total"
RUN_COST: Final = "quarterdeck_run_cost_total"

# -- span and log attributes
MCP_METHOD: Final = "mcp.method.name"
MCP_SESSION: Final = "mcp.session.id"
TOOL_NAME: Final = "gen_ai.tool.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
AGENT_ID: Final = "gen_ai.agent.id"
AGENT_NAME: Final = "gen_ai.agent.name"
CONVERSATION: Final = "gen_ai.conversation.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
ERROR_TYPE: Final = "error.type"
USER: Final = "user.id"
A2A_TASK: Final = "a2a.task.id"
RUN: Final = "quarterdeck.run.id"
RUN_OUTCOME: Final = "quarterdeck.run.outcome"
RUN_COST_SPENT: Final = "quarterdeck.run.cost"
STEP: Final = "quarterdeck.step"
GATEWAY: Final = "gateway"
LISTENER: Final = "listener"
ROUTE: Final = "route"
ROUTE_RULE: Final = "route_rule"
SOURCE_ADDRESS: Final = "src.addr"
SOURCE_IDENTITY: Final = "src.identity"
HTTP_METHOD: Final = "http.method"
HTTP_HOST: Final = "http.host"
HTTP_PATH: Final = "http.path"
HTTP_VERSION: Final = "http.version"
HTTP_STATUS: Final = "http.status"
TRACE_ID: Final = "trace.id"
SPAN_ID: Final = "span.id"
JWT_SUBJECT: Final = "jwt.sub"
PROTOCOL: Final = "protocol"
A2A_METHOD: Final = "a2a.method"
MCP_TARGET: Final = "mcp.target"
MCP_RESOURCE_TYPE: Final = "mcp.resource.type"
MCP_RESOURCE_URI: Final = "mcp.resource.uri"
PROMPT_NAME: Final = "gen_ai.prompt.name"
ERROR: Final = "error"
REASON: Final = "reason"
DURATION: Final = "duration"

# -- buckets, seconds unless said otherwise
DURATION_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MODEL_BUCKETS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
STEP_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
RUN_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
TOKEN_BUCKETS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
