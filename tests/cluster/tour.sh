#!/usr/bin/env bash
# Quarterdeck on a real Kubernetes control plane, from installation to removal, as docs/operate.md describes it.
# Prints each step and ends with an exit code other than 0 at the first difference. Needs what tests/cluster/build.py
# builds (Go), and PostgreSQL for two controllers (Debian: postgresql); without it, one controller on SQLite.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:$PATH"

step() { printf '\n── %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }
fail() { printf 'DIFFERENT: %s\n' "$*" >&2; exit 1; }
# same WHAT EXPECTED COMMAND…: the command's output, within a minute
same() {
  local what=$1 expected=$2 got=; shift 2
  for _ in $(seq 120); do
    got=$("$@" 2>&1) && [ "$got" = "$expected" ] && { printf '  %s: %s\n' "$what" "$got"; return; }
    sleep 0.5
  done
  fail "$what is '$got', not '$expected'"
}
condition() { kubectl get "$1" -n "$2" -o "jsonpath={.status.conditions[?(@.type==\"$3\")].status} {.status.conditions[?(@.type==\"$3\")].reason}"; }
status() { kubectl get "$1" -n "$2" -o "jsonpath={.status.conditions[?(@.type==\"$3\")].status}"; }

step "0. A control plane, a node, helm"
coproc PLANE { exec .venv/bin/python tests/cluster/tour_plane.py; }
trap 'status=$?; eval "exec ${PLANE[1]}>&-"; wait "$PLANE_PID" 2>/dev/null || true; exit $status' EXIT
while IFS= read -r line <&"${PLANE[0]}"; do
  [ "$line" = "# ready" ] && break
  eval "$line"
done
[ "${line:-}" = "# ready" ] || fail "the control plane did not start"
run kubectl get nodes

step "1. Install"
run "$HELM" install quarterdeck-crds charts/quarterdeck-crds -n quarterdeck-system --create-namespace --wait
values=(--set gateway.admin=off)
if [ -n "$DATABASE_URL" ]; then
  run kubectl create secret generic database -n quarterdeck-system --from-literal=url="$DATABASE_URL"
  values+=(--set database.secretName=database)
fi
run "$HELM" install quarterdeck charts/quarterdeck -n quarterdeck-system --wait --timeout 120s "${values[@]}"
run kubectl get deployments -n quarterdeck-system
QUARTERDECK_GATEWAY_URL=http://$(kubectl get service quarterdeck-gateway -n quarterdeck-system -o jsonpath='{.spec.clusterIP}'):8701
QUARTERDECK_TOKEN=$(kubectl get secret quarterdeck-access-token -n quarterdeck-system -o jsonpath='{.data.token}' | base64 -d)
export QUARTERDECK_GATEWAY_URL QUARTERDECK_TOKEN

step "2. The seed's manifests, unchanged"
run kubectl create namespace mcp
run kubectl apply -f examples/seed/
run kubectl wait --for=condition=Ready mcpserver/datetime-agent-mcp agent/datetime-agent -n kagent --timeout=120s
same "ModelConfig without its Secret" "False ModelConfigReconcileFailed" condition modelconfig/gemini-model-config kagent Accepted
same "MCPServer whose image needs an engine" "False ImageNotRunnable" condition mcpserver/github-mcp-server mcp Ready
same "its Secret" "False" status mcpserver/github-mcp-server mcp ResolvedRefs
for server in agw-mcp-servers kagent-tool-server; do
  same "RemoteMCPServer $server, which nobody serves" "False" status remotemcpserver/$server kagent Accepted
  kubectl get remotemcpserver/$server -n kagent -o yaml | grep -q sseReadTimeout || fail "$server does not name what it ignores"
done
same "Agent whose tools are missing" "True" status agent/aire-agent kagent Ready
same "what it names" "False" status agent/aire-agent kagent ResolvedRefs
same "Agent whose server is missing" "False" status agent/k8s-agent default Accepted
run kubectl get agents,mcpservers,remotemcpservers,modelconfigs -A

step "3. A question through the gateway"
answer=$(qd agent invoke datetime-agent -n kagent "What time is it?" 2>&1) || fail "$answer"
printf '%s\n' "$answer"
grep -q "get_time" <<<"$answer" || fail "the agent called no tool"

step "4. Scale the agent, as a Deployment is scaled"
run kubectl scale agent datetime-agent --replicas=3 -n kagent
run qd rollout status agent/datetime-agent -n kagent --timeout=120s
same "ready Pods" 3 kubectl get deployment datetime-agent -n kagent -o 'jsonpath={.status.readyReplicas}'
run kubectl scale agent datetime-agent --replicas=1 -n kagent

step "5. A HorizontalPodAutoscaler on the agent"
run kubectl patch agent datetime-agent -n kagent --type=merge -p '{"spec":{"declarative":{"deployment":{"resources":{"requests":{"cpu":"10m"}}}}}}'
run kubectl autoscale agent datetime-agent -n kagent --min=2 --max=3 --cpu=80%
same "replicas the autoscaler asks of the Agent" 2 kubectl get agent datetime-agent -n kagent -o 'jsonpath={.spec.replicas}'
same "ready Pods" 2 kubectl get deployment datetime-agent -n kagent -o 'jsonpath={.status.readyReplicas}'
run kubectl get hpa -n kagent
run kubectl delete hpa datetime-agent -n kagent
run kubectl scale agent datetime-agent --replicas=1 -n kagent

step "6. Change, look back, undo"
before=$(kubectl get agent datetime-agent -n kagent -o 'jsonpath={.spec.declarative.systemMessage}')
run kubectl patch agent datetime-agent -n kagent --type=merge -p '{"spec":{"declarative":{"systemMessage":"You answer in French."}}}'
run qd rollout status agent/datetime-agent -n kagent --timeout=120s
run qd rollout history agent/datetime-agent -n kagent
run qd rollout undo agent/datetime-agent -n kagent
same "the prompt of before" "$before" kubectl get agent datetime-agent -n kagent -o 'jsonpath={.spec.declarative.systemMessage}'
run qd rollout status agent/datetime-agent -n kagent --timeout=120s

step "7. A canary, given up"
run kubectl patch agent datetime-agent -n kagent --type=merge -p '{"spec":{"rollout":{"strategy":"Canary","steps":[{"weight":20},{"weight":60}]}}}'
run kubectl wait --for=condition=Ready agent/datetime-agent -n kagent --timeout=60s
run kubectl patch agent datetime-agent -n kagent --type=merge -p '{"spec":{"declarative":{"systemMessage":"A canary."}}}'
same "phase" Paused kubectl get agent datetime-agent -n kagent -o 'jsonpath={.status.rollout.phase}'
same "Deployment of the canary, ready" 1 kubectl get deployment datetime-agent-canary -n kagent -o 'jsonpath={.status.readyReplicas}'
run qd rollout abort agent/datetime-agent -n kagent
same "phase" Aborted kubectl get agent datetime-agent -n kagent -o 'jsonpath={.status.rollout.phase}'
same "Deployments of the canary left" "" kubectl get deployment -n kagent -l kagent=datetime-agent-canary -o name

step "   A canary that fails its calls gives up by itself"
kubectl apply -f - <<'YAML'
apiVersion: v1
kind: Secret
metadata: {name: nowhere, namespace: kagent}
stringData: {KEY: x}
---
apiVersion: kagent.dev/v1alpha2
kind: ModelConfig
metadata: {name: nowhere, namespace: kagent}
spec: {provider: OpenAI, model: gone, apiKeySecret: nowhere, apiKeySecretKey: KEY, openAI: {baseUrl: "http://127.0.0.1:9/v1"}}
YAML
run kubectl patch agent datetime-agent -n kagent --type=merge -p '{"spec":{"rollout":{"steps":[{"weight":50}],"analysis":{"maxErrorRate":0.2,"minRequests":3}},"declarative":{"modelConfig":"nowhere"}}}'
same "phase" Paused kubectl get agent datetime-agent -n kagent -o 'jsonpath={.status.rollout.phase}'
same "Deployment of the canary, ready" 1 kubectl get deployment datetime-agent-canary -n kagent -o 'jsonpath={.status.readyReplicas}'
asked=0 failed=0
until [ "$(kubectl get agent datetime-agent -n kagent -o 'jsonpath={.status.rollout.phase}')" = Aborted ]; do
  [ "$asked" -lt 60 ] || fail "the canary is not given up after $asked questions, $failed of them failed"
  asked=$((asked + 1))
  qd agent invoke datetime-agent -n kagent "What time is it?" >/dev/null 2>&1 || failed=$((failed + 1))
done
printf '  given up after %s questions, %s of them failed\n' "$asked" "$failed"
kubectl get agent datetime-agent -n kagent -o 'jsonpath={.status.rollout.message}{"\n"}'
same "Deployments of the canary left" "" kubectl get deployment -n kagent -l kagent=datetime-agent-canary -o name
run qd agent invoke datetime-agent -n kagent "What time is it?"
run kubectl patch agent datetime-agent -n kagent --type=merge -p '{"spec":{"declarative":{"modelConfig":"default-model-config"}}}'
run kubectl get events -n kagent --field-selector involvedObject.kind=Agent,involvedObject.name=datetime-agent -o custom-columns=REASON:.reason,MESSAGE:.message

step "8. The leading controller is killed"
[ -n "$DATABASE_URL" ] || printf '  (one controller only: PostgreSQL is not installed here; the Pod made anew takes over)\n'
leader() { kubectl get lease quarterdeck-controller -n quarterdeck-system -o 'jsonpath={.spec.holderIdentity}'; }
first=$(leader)
run kubectl delete pod "${first%_*}" -n quarterdeck-system --grace-period=0 --force
began=$SECONDS
while second=$(leader); [ -z "$second" ] || [ "$second" = "$first" ]; do
  [ $((SECONDS - began)) -lt 30 ] || fail "no other controller leads after 30 s"
  sleep 0.5
done
printf '  %s leads after %s s\n' "$second" "$((SECONDS - began))"
run kubectl label agent datetime-agent -n kagent tour=on
run kubectl scale agent datetime-agent --replicas=2 -n kagent
same "ready Pods, by the new leader" 2 kubectl get deployment datetime-agent -n kagent -o 'jsonpath={.status.readyReplicas}'

step "9. Remove"
run "$HELM" uninstall quarterdeck -n quarterdeck-system --wait
run "$HELM" uninstall quarterdeck-crds -n quarterdeck-system
same "agents that outlive the charts" "agent.kagent.dev/datetime-agent" kubectl get agent datetime-agent -n kagent -o name
run kubectl delete agents,mcpservers,remotemcpservers,modelconfigs --all -A --timeout=60s
same "Deployments left in kagent" "" kubectl get deployments -n kagent -o name
same "Services left in kagent" "" kubectl get services -n kagent -o name

printf '\nAll as stated.\n'
