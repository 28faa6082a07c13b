{{/* The same as `perllm scheduler-config` prints; a test holds that. */}}
{{- define "perllm.schedulerConfiguration" -}}
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection:
  leaderElect: true
  leaseDuration: 5s
  renewDeadline: 4s
  retryPeriod: 500ms
  resourceLock: leases
  resourceName: {{ include "perllm.lease" . | quote }}
  resourceNamespace: {{ include "perllm.namespace" . | quote }}
enableProfiling: false
percentageOfNodesToScore: 100
podInitialBackoffSeconds: 1
podMaxBackoffSeconds: 2
profiles:
  - schedulerName: {{ .Values.config.scheduler_name | quote }}
    plugins:
      score:
        disabled:
          - name: "*"
extenders:
  - urlPrefix: "http://127.0.0.1:{{ .Values.config.server.extender_port }}"
    filterVerb: filter
    prioritizeVerb: prioritize
    bindVerb: bind
    weight: 200
    enableHTTPS: false
    httpTimeout: 5s
    nodeCacheCapable: true
    ignorable: false
{{- end }}
