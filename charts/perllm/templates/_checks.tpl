{{/* Combinations that cannot work are rejected before anything is installed. */}}
{{- define "perllm.check" -}}
{{- include "perllm.checkImage" . -}}
{{- include "perllm.checkLabels" . -}}
{{- include "perllm.checkConfig" . -}}
{{- include "perllm.checkSettings" . -}}
{{- include "perllm.checkSchedulerArguments" . -}}
{{- include "perllm.checkSchedulerVersion" . -}}
{{- include "perllm.checkNetworkPolicy" . -}}
{{- include "perllm.checkMonitoring" . -}}
{{- include "perllm.checkCrds" . -}}
{{- include "perllm.checkNeighbours" . -}}
{{- end }}

{{- define "perllm.checkImage" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository must be set: the image of PerLLM is in no public registry yet. Build it with `make image IMAGE=registry.example.com/perllm/perllm`, push it, and install with `--set image.repository=registry.example.com/perllm/perllm`" -}}
{{- end -}}
{{- end }}

{{- define "perllm.checkLabels" -}}
{{- range $name := list "commonLabels" "podLabels" -}}
{{- range list "app.kubernetes.io/name" "app.kubernetes.io/instance" -}}
{{- if hasKey (default dict (get $.Values $name)) . -}}
{{- fail (printf "%s must not hold %s, by which pods are selected" $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "perllm.checkConfig" -}}
{{- $server := .Values.config.server -}}
{{- $ports := list (int $server.extender_port) (int $server.health_port) (int .Values.scheduler.port) -}}
{{- if has 0 $ports -}}
{{- fail "config.server.extender_port and config.server.health_port must not be 0: probes and kube-scheduler need a fixed port" -}}
{{- end -}}
{{- if ne (len (uniq $ports)) 3 -}}
{{- fail (printf "config.server.extender_port, config.server.health_port and scheduler.port must differ: all are in the same pod, and they are %v" $ports) -}}
{{- end -}}
{{- if include "perllm.isShadow" . -}}
{{- if or (ne (int .Values.replicaCount) 1) .Values.agent.enabled -}}
{{- fail "config.mode shadow needs replicaCount 1 and agent.enabled false: an operator that only watches has no Lease by which replicas take turns, and no tasks for agents" -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "^(localhost|127\\.|::1$)" $server.health_host -}}
{{- fail (printf "config.server.health_host must be an address that kubelet and Prometheus reach, such as 0.0.0.0 or ::, not %s" $server.health_host) -}}
{{- end -}}
{{- end }}

{{- define "perllm.checkSchedulerArguments" -}}
{{- range .Values.scheduler.extraArgs -}}
{{- if regexMatch "^--(config|kubeconfig|master|secure-port|leader-elect)" . -}}
{{- fail (printf "scheduler.extraArgs must not hold %s: the chart sets it, from replicaCount, config and scheduler.port" .) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "perllm.checkSchedulerVersion" -}}
{{- $wanted := regexFind "^v[0-9]+\\.[0-9]+\\.[0-9]+" .Values.scheduler.image.tag -}}
{{- if $wanted -}}
{{- $behind := sub (int (semver (include "perllm.kubernetesVersion" .)).Minor) (int (semver $wanted).Minor) -}}
{{- if or (lt $behind 0) (gt $behind 1) -}}
{{- fail (printf "scheduler.image.tag %s does not fit the cluster, which is %s: kube-scheduler may be one minor version older, but not newer; leave the tag empty for the cluster's own" .Values.scheduler.image.tag .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A rule without ports would allow all of them, to every address. */}}
{{- define "perllm.checkNetworkPolicy" -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.apiServer.ports) -}}
{{- fail "networkPolicy.apiServer.ports must not be empty: list the port of the Service kubernetes and those of its endpoints" -}}
{{- end -}}
{{- end }}

{{- define "perllm.checkMonitoring" -}}
{{- $wanted := list -}}
{{- if .Values.serviceMonitor.enabled }}{{ $wanted = append $wanted "serviceMonitor.enabled" }}{{ end -}}
{{- if .Values.prometheusRule.enabled }}{{ $wanted = append $wanted "prometheusRule.enabled" }}{{ end -}}
{{- $api := include "perllm.monitoringApi" . -}}
{{- if and $wanted (not (.Capabilities.APIVersions.Has $api)) -}}
{{- fail (printf "%s: the cluster does not serve %s; install the Prometheus operator first, or leave it off (helm template does not see the cluster: add --api-versions %s)" (join ", " $wanted) $api $api) -}}
{{- end -}}
{{- end }}

{{/* Those of a release that is gone are left to Helm, whose flag --take-ownership adopts them. */}}
{{- define "perllm.checkCrds" -}}
{{- if .Values.crds.enabled -}}
{{- $releases := list -}}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" "").items -}}
{{- $releases = append $releases (include "perllm.owner" .) -}}
{{- end -}}
{{- range $path, $_ := .Files.Glob "files/crds/*.yaml" -}}
{{- $name := ($.Files.Get $path | fromYaml).metadata.name -}}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name -}}
{{- $owner := include "perllm.owner" $there -}}
{{- if and $owner (has $owner $releases) (ne $owner (printf "%s/%s" $.Release.Namespace $.Release.Name)) -}}
{{- fail (printf "crds.enabled: %s belongs to release %s; set crds.enabled=false here" $name $owner) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Two operators in a cluster must not share tasks, pods or learned state. */}}
{{- define "perllm.checkNeighbours" -}}
{{- if .Values.rbac.create -}}
{{- $config := .Values.config -}}
{{- $self := printf "%s/%s" .Release.Namespace .Release.Name -}}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" "").items -}}
{{- $notes := default dict .metadata.annotations -}}
{{- $owner := include "perllm.owner" . -}}
{{- if and (hasKey $notes "perllm.io/scheduler-name") $owner (ne $owner $self) -}}
{{- if eq (get $notes "perllm.io/scheduler-name") $config.scheduler_name -}}
{{- fail (printf "config.scheduler_name: release %s serves the pods of %s already; choose another name" $owner $config.scheduler_name) -}}
{{- end -}}
{{- if eq (get $notes "perllm.io/instance") $config.instance -}}
{{- fail (printf "config.instance: release %s keeps its learned state under %q already; choose another instance" $owner $config.instance) -}}
{{- end -}}
{{- $theirs := compact (splitList "," (get $notes "perllm.io/namespaces")) -}}
{{- if or (not $theirs) (not $config.namespaces) -}}
{{- fail (printf "config.namespaces: release %s serves %s, this one %s; list the namespaces of each" $owner (join ", " (default (list "all namespaces") $theirs)) (join ", " (default (list "all namespaces") $config.namespaces))) -}}
{{- end -}}
{{- range $config.namespaces -}}
{{- if has . $theirs -}}
{{- fail (printf "config.namespaces: release %s serves namespace %s already" $owner .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Release that an object belongs to, as namespace/name; empty for none. */}}
{{- define "perllm.owner" -}}
{{- $notes := default dict (default dict .metadata).annotations -}}
{{- with get $notes "meta.helm.sh/release-name" -}}
{{ get $notes "meta.helm.sh/release-namespace" }}/{{ . }}
{{- end -}}
{{- end }}
