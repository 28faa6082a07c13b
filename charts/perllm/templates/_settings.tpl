{{/*
Rules across settings of the operator, which it would refuse to start with. The schema knows those of single settings.
*/}}
{{- define "perllm.checkSettings" -}}
{{- include "perllm.checkTelemetry" .Values.config.telemetry -}}
{{- include "perllm.checkCosts" .Values.config.costs -}}
{{- with .Values.config.shadow -}}
{{- if and .match_labels (not .model) -}}
{{- fail "config.shadow.model must be set with config.shadow.match_labels" -}}
{{- end -}}
{{- $deadline := include "perllm.seconds" .deadline | int -}}
{{- if or (lt $deadline 1) (gt $deadline 86400) -}}
{{- fail (printf "config.shadow.deadline must be at least 1s and at most 24h, not %s" .deadline) -}}
{{- end -}}
{{- end -}}
{{- $ttl := .Values.config.tasks.default_ttl -}}
{{- if and (ne $ttl "never") (gt (include "perllm.seconds" $ttl | int) 2592000) -}}
{{- fail (printf "config.tasks.default_ttl must be at most 720h, or never, not %s" $ttl) -}}
{{- end -}}
{{- end }}

{{/* Whole seconds of a duration. */}}
{{- define "perllm.seconds" -}}
{{- $now := now -}}
{{- sub ($now | mustDateModify (printf "+%s" .) | unixEpoch | int64) ($now | unixEpoch | int64) -}}
{{- end }}

{{- define "perllm.checkTelemetry" -}}
{{- if ne (empty .username) (empty .password_file) -}}
{{- fail "config.telemetry.username and config.telemetry.password_file must be set together" -}}
{{- end -}}
{{- if and .username .token_file -}}
{{- fail "config.telemetry must have either token_file, or username and password_file" -}}
{{- end -}}
{{- $names := list -}}
{{- range $number, $meter := .meters -}}
{{- if not (or $meter.energy $meter.power) -}}
{{- fail (printf "config.telemetry.meters[%d] must have a query for energy, power, or both" $number) -}}
{{- end -}}
{{- $names = append $names $meter.name -}}
{{- end -}}
{{- if ne (len $names) (len (uniq $names)) -}}
{{- fail (printf "config.telemetry.meters must have each name only once, and they are %s" (join ", " $names)) -}}
{{- end -}}
{{- end }}

{{- define "perllm.checkCosts" -}}
{{- $costs := . -}}
{{- if not (or .weights.energy .weights.money .weights.carbon) -}}
{{- fail "one of config.costs.weights.energy, money and carbon must be above 0" -}}
{{- end -}}
{{- range list "money" "carbon" -}}
{{- $name := . -}}
{{- $tariffs := default list (get $costs $name) -}}
{{- if and (get $costs.weights $name) (not $tariffs) -}}
{{- fail (printf "config.costs.weights.%s needs config.costs.%s: at least one tariff" $name $name) -}}
{{- end -}}
{{- range $number, $tariff := $tariffs -}}
{{- if and $tariff.query $tariff.periods -}}
{{- fail (printf "config.costs.%s[%d] must have either periods or a query" $name $number) -}}
{{- end -}}
{{- end -}}
{{- with last $tariffs -}}
{{- if or .tiers .match_labels -}}
{{- fail (printf "the last tariff of config.costs.%s must have neither tiers nor match_labels, so that every node has one" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
