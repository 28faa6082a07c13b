{{/* Name of all objects in the namespace of the release. Names of Services contain no dots and begin with a letter. */}}
{{- define "perllm.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- $full := printf "%s-%s" $release $name -}}
{{- if regexMatch "^[0-9]" $release -}}
{{- $full = printf "%s-%s" $name $release -}}
{{- else if contains $name $release -}}
{{- $full = $release -}}
{{- end -}}
{{- regexReplaceAll "-+$" (default $full .Values.fullnameOverride | trunc 50) "" -}}
{{- end }}

{{/* Namespace of all objects that have one. */}}
{{- define "perllm.namespace" -}}
{{ default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* Name of cluster-scoped objects, unique among releases of the same name in different namespaces. */}}
{{- define "perllm.clusterName" -}}
{{ include "perllm.namespace" . }}:{{ include "perllm.fullname" . }}
{{- end }}

{{- define "perllm.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* In the label of the hook's pod, so that nothing takes it for a pod of the Deployment. */}}
{{- define "perllm.hookName" -}}
{{ include "perllm.name" . | trunc 53 | trimSuffix "-" }}-uninstall
{{- end }}

{{/* The same for the pod of `helm test`. */}}
{{- define "perllm.testName" -}}
{{ include "perllm.name" . | trunc 58 | trimSuffix "-" }}-test
{{- end }}

{{- define "perllm.agentServiceAccountName" -}}
{{ include "perllm.fullname" . }}-agent
{{- end }}

{{- define "perllm.agentSelectorLabels" -}}
app.kubernetes.io/name: "{{ include "perllm.name" . | trunc 57 | trimSuffix "-" }}-agent"
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Namespace of the Leases of agents; empty if there are no agents. */}}
{{- define "perllm.agentLeaseNamespace" -}}
{{ default (ternary (include "perllm.namespace" .) "" .Values.agent.enabled) .Values.config.agents.lease_namespace }}
{{- end }}

{{/* Namespaces of the pods of model servers, as a JSON list. */}}
{{- define "perllm.serverNamespaces" -}}
{{ default (list (include "perllm.namespace" .)) .Values.agent.serverNamespaces | toJson }}
{{- end }}

{{- define "perllm.selectorLabels" -}}
app.kubernetes.io/name: {{ include "perllm.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "perllm.labels" -}}
{{- $standard := include "perllm.selectorLabels" . | fromYaml -}}
{{- $_ := set $standard "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- $_ := set $standard "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $standard "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $standard "app.kubernetes.io/part-of" "perllm" -}}
{{- include "perllm.merged" (list .Values.commonLabels $standard) -}}
{{- end }}

{{/*
Labels or annotations: those of the values, then the chart's own with other keys; pass (list values own). Each key is there
once, since kustomize, and so Flux, rejects a key that is there twice.
*/}}
{{- define "perllm.merged" -}}
{{- merge (dict) (default dict (first .)) (last .) | toYaml -}}
{{- end }}

{{/* Subject of a binding: pass (dict "root" . "account" name). */}}
{{- define "perllm.subject" -}}
- kind: ServiceAccount
  name: {{ .account | quote }}
  namespace: {{ include "perllm.namespace" .root | quote }}
{{- end }}

{{- define "perllm.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "perllm.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ required "serviceAccount.name must be set when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{- define "perllm.schedulerServiceAccountName" -}}
{{- if .Values.scheduler.serviceAccount.create -}}
{{ include "perllm.fullname" . }}-scheduler
{{- else -}}
{{ include "perllm.serviceAccountName" . }}
{{- end -}}
{{- end }}

{{/*
Lease by which pods elect the active one. A single pod follows it as well, so that old and new pods contend for the same
Lease regardless of the number of replicas before and after a rollout or rollback.
*/}}
{{- define "perllm.lease" -}}
{{ default (include "perllm.fullname" .) .Values.config.leader_lease }}
{{- end }}

{{/* Whether the operator only watches: it has no kube-scheduler, no Lease and one replica, and may change nothing. */}}
{{- define "perllm.isShadow" -}}
{{- if eq .Values.config.mode "shadow" -}}
true
{{- end -}}
{{- end }}

{{/* Whether new and existing pods follow the same Lease; empty in an upgrade that introduces or renames it. */}}
{{- define "perllm.followsLease" -}}
{{- $old := lookup "apps/v1" "Deployment" (include "perllm.namespace" .) (include "perllm.fullname" .) -}}
{{- if or (not $old) (lookup "coordination.k8s.io/v1" "Lease" (include "perllm.namespace" .) (include "perllm.lease" .)) -}}
true
{{- end -}}
{{- end }}

{{- define "perllm.operatorImage" -}}
{{ include "perllm.image" (dict "image" .Values.image "tag" .Chart.AppVersion "registry" .Values.global.imageRegistry) }}
{{- end }}

{{- define "perllm.schedulerImage" -}}
{{- $tag := include "perllm.kubernetesVersion" . -}}
{{ include "perllm.image" (dict "image" .Values.scheduler.image "tag" $tag "registry" .Values.global.imageRegistry) }}
{{- end }}

{{/* Image reference: pass (dict "image" image "tag" default-tag "registry" global.imageRegistry). */}}
{{- define "perllm.image" -}}
{{- $repository := .image.repository -}}
{{- if .registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .registry) (regexReplaceAll "^(localhost|[^/]*[.:][^/]*)/" $repository "") -}}
{{- end -}}
{{- if .image.digest -}}
{{ $repository }}@{{ .image.digest }}
{{- else -}}
{{ $repository }}:{{ default .tag .image.tag }}
{{- end -}}
{{- end }}

{{/*
Version of the cluster without its vendor's suffix: v1.37.2-gke.100 runs kube-scheduler v1.37.2. Argo CD passes no patch
version; .0 is used then.
*/}}
{{- define "perllm.kubernetesVersion" -}}
{{- $version := semver .Capabilities.KubeVersion.Version -}}
v{{ $version.Major }}.{{ $version.Minor }}.{{ $version.Patch }}
{{- end }}

{{- define "perllm.monitoringApi" -}}monitoring.coreos.com/v1{{- end }}

{{/* Port of the pods of Prometheus, derived from the URL unless set. */}}
{{- define "perllm.prometheusPort" -}}
{{- $url := urlParse .Values.config.telemetry.url -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- if .Values.networkPolicy.prometheus.port -}}
{{ .Values.networkPolicy.prometheus.port }}
{{- else -}}
{{ default (ternary "443" "80" (eq $url.scheme "https")) $port }}
{{- end -}}
{{- end }}

{{/* Probes of a container: pass (dict "probes" values "get" (dict "port" . "scheme" .) "live" path "ready" path). */}}
{{- define "perllm.probes" -}}
{{- $paths := dict "startup" .live "liveness" .live "readiness" .ready -}}
{{- range $kind := list "startup" "liveness" "readiness" }}
{{- with get $.probes $kind }}
{{ $kind }}Probe:
  {{- merge (dict) . (dict "httpGet" (merge (dict "path" (get $paths $kind)) $.get)) | toYaml | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* DNS of a pod: pass (dict "values" .Values "policy" default). */}}
{{- define "perllm.dns" -}}
{{- with default .policy .values.dnsPolicy }}
dnsPolicy: {{ . | quote }}
{{- end }}
{{- with .values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The token of the pod's account, for one container only; by default kubelet would mount it in all of them. */}}
{{- define "perllm.projectedToken" -}}
projected:
  sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: 3607
    - configMap:
        name: kube-root-ca.crt
        items:
          - {key: ca.crt, path: ca.crt}
    - downwardAPI:
        items:
          - path: namespace
            fieldRef:
              fieldPath: metadata.namespace
{{- end }}
