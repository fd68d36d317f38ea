{{/* Generated from quarterdeck.controllers.rbac; do not edit. */}}

{{- define "quarterdeck.rules.watched" -}}
- {"apiGroups": ["kagent.dev"], "resources": ["agents", "mcpservers", "modelconfigs", "modelproviderconfigs", "remotemcpservers"], "verbs": ["list", "watch"]}
- {"apiGroups": ["kagent.dev"], "resources": ["agents/scale", "agents/status", "mcpservers/scale", "mcpservers/status", "modelconfigs/status", "modelproviderconfigs/status", "remotemcpservers/status"], "verbs": ["patch"]}
- {"apiGroups": ["kagent.dev"], "resources": ["agents/finalizers", "mcpservers/finalizers", "modelconfigs/finalizers"], "verbs": ["update"]}
- {"apiGroups": ["quarterdeck.dev"], "resources": ["approvalpolicies", "triggers", "virtualservers"], "verbs": ["list", "watch"]}
- {"apiGroups": ["quarterdeck.dev"], "resources": ["approvalpolicies/status", "approvals/status", "runs/status", "triggers/status", "virtualservers/status"], "verbs": ["patch"]}
- {"apiGroups": ["quarterdeck.dev"], "resources": ["approvals", "runs"], "verbs": ["list"]}
- {"apiGroups": ["quarterdeck.dev"], "resources": ["approvals", "runs"], "verbs": ["create", "delete", "patch"]}
- {"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]}
- {"apiGroups": ["apps"], "resources": ["controllerrevisions", "deployments"], "verbs": ["create", "delete", "get", "list", "patch", "watch"]}
- {"apiGroups": [""], "resources": ["services"], "verbs": ["create", "delete", "list", "patch", "watch"]}
- {"apiGroups": [""], "resources": ["configmaps", "serviceaccounts"], "verbs": ["create", "list", "patch", "watch"]}
- {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
- {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete", "get", "list", "patch", "watch"]}
- {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["create", "delete", "list", "patch", "watch"]}
- {"apiGroups": [""], "resources": ["events", "pods", "resourcequotas"], "verbs": ["list", "watch"]}
- {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["list", "watch"]}
- {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
- {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list", "watch"]}
- {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}
{{- end -}}

{{- define "quarterdeck.rules.own" -}}
- {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}
- {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "update"], "resourceNames": ["quarterdeck-controller"]}
- {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}
- {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["quarterdeck-access-token", "quarterdeck-gateway-key", "quarterdeck-webhook"]}
- {"apiGroups": [""], "resources": ["secrets"], "verbs": ["patch"], "resourceNames": ["quarterdeck-webhook"]}
- {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"], "resourceNames": ["quarterdeck-controller"]}
{{- end -}}

{{- define "quarterdeck.rules.defaultNamespace" -}}
- {"apiGroups": ["kagent.dev"], "resources": ["modelconfigs"], "verbs": ["create", "patch"]}
- {"apiGroups": ["kagent.dev"], "resources": ["modelconfigs"], "verbs": ["delete", "get"], "resourceNames": ["default-model-config"]}
{{- end -}}

{{- define "quarterdeck.rules.cluster" -}}
- {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create", "get", "list", "watch"]}
- {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
- {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]}
- {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["get", "patch"], "resourceNames": ["agents.kagent.dev", "modelconfigs.kagent.dev"]}
- {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["gatewayclasses"], "verbs": ["create", "list", "watch"]}
- {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["gatewayclasses/status", "gateways/status", "grpcroutes/status", "httproutes/status"], "verbs": ["patch"]}
- {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["gateways", "grpcroutes", "httproutes", "referencegrants"], "verbs": ["list", "watch"]}
- {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["gateways/finalizers"], "verbs": ["update"]}
- {"apiGroups": ["gateway.kgateway.dev"], "resources": ["backends", "trafficpolicies"], "verbs": ["list", "watch"]}
- {"apiGroups": ["gateway.kgateway.dev"], "resources": ["backends/status", "trafficpolicies/status"], "verbs": ["patch"]}
- {"apiGroups": ["agentgateway.dev"], "resources": ["agentgatewaybackends", "agentgatewaypolicies"], "verbs": ["list", "watch"]}
- {"apiGroups": ["agentgateway.dev"], "resources": ["agentgatewaybackends/status", "agentgatewaypolicies/status"], "verbs": ["patch"]}
- {"nonResourceURLs": ["/.well-known/openid-configuration", "/openid/v1/jwks"], "verbs": ["get"]}
{{- end -}}

{{- define "quarterdeck.rules.namespaced" -}}
- {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}
- {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["gateways", "grpcroutes", "httproutes", "referencegrants"], "verbs": ["list", "watch"]}
- {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["gateways/status", "grpcroutes/status", "httproutes/status"], "verbs": ["patch"]}
- {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["gateways/finalizers"], "verbs": ["update"]}
- {"apiGroups": ["gateway.kgateway.dev"], "resources": ["backends", "trafficpolicies"], "verbs": ["list", "watch"]}
- {"apiGroups": ["gateway.kgateway.dev"], "resources": ["backends/status", "trafficpolicies/status"], "verbs": ["patch"]}
- {"apiGroups": ["agentgateway.dev"], "resources": ["agentgatewaybackends", "agentgatewaypolicies"], "verbs": ["list", "watch"]}
- {"apiGroups": ["agentgateway.dev"], "resources": ["agentgatewaybackends/status", "agentgatewaypolicies/status"], "verbs": ["patch"]}
{{- end -}}
