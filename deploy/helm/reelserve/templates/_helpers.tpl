{{- define "reelserve.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "reelserve.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "reelserve.labels" -}}
{{ include "reelserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "reelserve.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* Restricted Pod Security, and the user of the image. */ -}}
{{- define "reelserve.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "reelserve.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* What would start and then refuse, or never start, is refused here. */ -}}
{{- define "reelserve.check" -}}
{{- with .Values }}
{{- if not (or .server.apiKeys.secret (and .server.tls.secret .server.tls.clientCa) .server.allowAnonymous) }}
{{- fail "nothing says who may call: set server.apiKeys.secret, server.tls.secret with server.tls.clientCa, or server.allowAnonymous" }}
{{- end }}
{{- if and .server.allowAnonymous .server.apiKeys.secret }}
{{- fail "server.allowAnonymous is true and server.apiKeys.secret is set; it must be one of them" }}
{{- end }}
{{- if and .server.tls.clientCa (not .server.tls.secret) }}
{{- fail "server.tls.clientCa is true and server.tls.secret is empty; its ca.crt is needed" }}
{{- end }}
{{- $sources := list }}
{{- if .models.claim.name }}{{ $sources = append $sources "models.claim.name" }}{{ end }}
{{- if .models.fetch.image }}{{ $sources = append $sources "models.fetch.image" }}{{ end }}
{{- if .models.inImage }}{{ $sources = append $sources "models.inImage" }}{{ end }}
{{- if ne (len $sources) 1 }}
{{- fail (printf "the model repository comes from [%s]; it must be one of models.claim.name, models.fetch.image and models.inImage" (join ", " $sources)) }}
{{- end }}
{{- if gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas is %d; it must be at most maxReplicas, %d" (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) }}
{{- end }}
{{- end }}
{{- end }}
