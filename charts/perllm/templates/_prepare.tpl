{{/*
Restores values that are missing, and renames those under config that are in camelCase: all other templates find every
section, with the operator's own names. Helm drops values that are null, even whole sections, and an upgrade with
--reuse-values lacks those that are new. Objects and lists that were removed from a section are meant to be empty.
*/}}
{{- define "perllm.prepare" -}}
{{- $tree := dict "values" .Values -}}
{{- range .Files.Get "files/defaults.yaml" | fromYamlArray -}}
{{- $path := splitList "." .path -}}
{{- $outer := $tree -}}
{{- range initial $path -}}
{{- $outer = get $outer . -}}
{{- end -}}
{{- $name := last $path -}}
{{- if not (get $outer $name) -}}
{{- $_ := set $outer $name (deepCopy .defaults) -}}
{{- end -}}
{{- $section := get $outer $name -}}
{{- if has "config" $path -}}
{{- include "perllm.renameKeys" (dict "section" $section "defaults" .defaults "path" (rest $path | join ".")) -}}
{{- end -}}
{{- range $key, $default := .defaults -}}
{{- if not (or (hasKey $section $key) (kindIs "map" $default) (kindIs "slice" $default)) -}}
{{- $_ := set $section $key $default -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Gives the keys of a section their names in the operator: pass (dict "section" . "defaults" . "path" text). */}}
{{- define "perllm.renameKeys" -}}
{{- range $key := keys .section | sortAlpha -}}
{{- $own := snakecase $key -}}
{{- if ne $own $key -}}
{{- $value := get $.section $key -}}
{{- $other := get $.section $own -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $.section $own -}}
{{- else if kindIs "map" $value -}}
{{- $_ := set $.section $own (mergeOverwrite (default dict $other) $value) -}}
{{- else if and (hasKey $.section $own) (ne (toJson $other) (toJson (get $.defaults $own))) -}}
{{- fail (printf "%s.%s and %s.%s are the same value: set one of them" $.path $own $.path $key) -}}
{{- else -}}
{{- $_ := set $.section $own $value -}}
{{- end -}}
{{- $_ := unset $.section $key -}}
{{- end -}}
{{- end -}}
{{- end }}
