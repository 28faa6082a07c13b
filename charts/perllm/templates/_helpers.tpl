{{/* Name of all objects in the namespace of the release. Names of Services cannot contain dots. */}}
{{- define "perllm.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- $full := ternary $release (printf "%s-%s" $release $name) (contains $name $release) -}}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{/* Name of cluster-scoped objects, unique among releases of the same name in different namespaces. */}}
{{- define "perllm.clusterName" -}}
{{ .Release.Namespace }}:{{ include "perllm.fullname" . }}
{{- end }}

{{- define "perllm.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* In the label of the hook's pod, so that nothing takes it for a pod of the Deployment. */}}
{{- define "perllm.hookName" -}}
{{ include "perllm.name" . | trunc 53 | trimSuffix "-" }}-uninstall
{{- end }}

{{- define "perllm.agentServiceAccountName" -}}
{{ include "perllm.fullname" . }}-agent
{{- end }}

{{- define "perllm.agentSelectorLabels" -}}
app.kubernetes.io/name: {{ include "perllm.name" . | trunc 57 | trimSuffix "-" }}-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Namespace of the Leases of agents; empty if there are no agents. */}}
{{- define "perllm.agentLeaseNamespace" -}}
{{ default (ternary .Release.Namespace "" .Values.agent.enabled) .Values.config.agents.lease_namespace }}
{{- end }}

{{/* Namespaces of the pods of model servers, as a JSON list. */}}
{{- define "perllm.serverNamespaces" -}}
{{ default (list .Release.Namespace) .Values.agent.serverNamespaces | toJson }}
{{- end }}

{{- define "perllm.selectorLabels" -}}
app.kubernetes.io/name: {{ include "perllm.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "perllm.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "perllm.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: perllm
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
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
Lease whatever the number of replicas before and after a rollout or rollback.
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
{{- $old := lookup "apps/v1" "Deployment" .Release.Namespace (include "perllm.fullname" .) -}}
{{- if or (not $old) (lookup "coordination.k8s.io/v1" "Lease" .Release.Namespace (include "perllm.lease" .)) -}}
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
