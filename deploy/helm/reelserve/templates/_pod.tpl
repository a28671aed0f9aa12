{{- /* Parts of the pod: what fetches the models, the server, their volumes. */ -}}

{{- define "reelserve.fetch" -}}
- name: fetch-models
  image: {{ .Values.models.fetch.image }}
  {{- with .Values.models.fetch.command }}
  command: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.models.fetch.args }}
  args: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.models.fetch.env }}
  env: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.models.fetch.envFrom }}
  envFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext: {{- include "reelserve.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: /models}
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "reelserve.arguments" -}}
{{- with .Values.server }}
- --drain-timeout={{ .drainTimeoutSeconds }}
- --ready-timeout={{ .readyTimeoutSeconds }}
{{- if .maxConnectionAgeSeconds }}
- --max-connection-age={{ .maxConnectionAgeSeconds }}
{{- end }}
- --log-format={{ .logFormat }}
{{- if .logPrompts }}
- --log-prompts
{{- end }}
{{- if .otlpEndpoint }}
- --otlp-endpoint={{ .otlpEndpoint }}
{{- end }}
{{- if .verify }}
- --verify
{{- end }}
{{- if .apiKeys.secret }}
- --api-keys=/etc/reelserve/keys/{{ .apiKeys.file }}
{{- end }}
{{- if .tls.secret }}
- --tls-cert=/etc/reelserve/tls/tls.crt
- --tls-key=/etc/reelserve/tls/tls.key
{{- end }}
{{- if .tls.clientCa }}
- --tls-client-ca=/etc/reelserve/tls/ca.crt
{{- end }}
{{- if .allowAnonymous }}
- --allow-anonymous
{{- end }}
{{- end }}
{{- if gt (int .Values.gpu.count) 1 }}
- --gpus={{ untilStep 0 (int .Values.gpu.count) 1 | join "," }}
{{- end }}
{{- with .Values.server.arguments }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "reelserve.server" -}}
- name: server
  image: {{ include "reelserve.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: {{- include "reelserve.arguments" . | nindent 4 }}
  {{- with .Values.server.env }}
  env: {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {name: grpc, containerPort: 8001}
    - {name: http, containerPort: 8000}
    - {name: metrics, containerPort: 8002}
  resources:
    requests:
      {{- toYaml .Values.resources.requests | nindent 6 }}
      {{- if .Values.gpu.count }}
      {{ .Values.gpu.resource }}: {{ .Values.gpu.count }}
      {{- end }}
    limits:
      {{- toYaml .Values.resources.limits | nindent 6 }}
      {{- if .Values.gpu.count }}
      {{ .Values.gpu.resource }}: {{ .Values.gpu.count }}
      {{- end }}
  securityContext: {{- include "reelserve.containerSecurity" . | nindent 4 }}
  # Port 8000 asks for no key and speaks no TLS, which probes cannot.
  startupProbe:
    httpGet: {path: /v2/health/ready, port: http}
    periodSeconds: 2
    # Until then the server itself has given up and said why.
    failureThreshold: {{ div (add .Values.server.readyTimeoutSeconds 60) 2 }}
  readinessProbe:
    httpGet: {path: /v2/health/ready, port: http}
    periodSeconds: 5
    failureThreshold: 1
  # The server starts Tritons and stages again by itself; this is for one that answers nothing.
  livenessProbe:
    httpGet: {path: /v2/health/live, port: http}
    periodSeconds: 20
    timeoutSeconds: 10
    failureThreshold: 6
  lifecycle:
    # New calls find another pod before this one begins to refuse them.
    preStop:
      exec:
        command: [sleep, "5"]
  volumeMounts:
    {{- if not .Values.models.inImage }}
    - name: models
      mountPath: /models
      readOnly: true
      {{- with .Values.models.claim.subPath }}
      subPath: {{ . }}
      {{- end }}
    {{- end }}
    - {name: shm, mountPath: /dev/shm}
    - {name: tmp, mountPath: /tmp}
    {{- if .Values.server.apiKeys.secret }}
    - {name: keys, mountPath: /etc/reelserve/keys, readOnly: true}
    {{- end }}
    {{- if .Values.server.tls.secret }}
    - {name: tls, mountPath: /etc/reelserve/tls, readOnly: true}
    {{- end }}
{{- end }}

{{- define "reelserve.volumes" -}}
{{- if .Values.models.claim.name }}
- name: models
  persistentVolumeClaim: {claimName: {{ .Values.models.claim.name }}, readOnly: true}
{{- else if .Values.models.fetch.image }}
- name: models
  emptyDir: {sizeLimit: {{ .Values.models.fetch.sizeLimit }}}
{{- end }}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.sharedMemory }}}
- name: tmp
  emptyDir: {sizeLimit: {{ .Values.temporary }}}
{{- with .Values.server.apiKeys.secret }}
- name: keys
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.server.tls.secret }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
