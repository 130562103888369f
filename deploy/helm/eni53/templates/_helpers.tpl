{{- define "eni53.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "eni53.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "eni53.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "eni53.selector" -}}
app.kubernetes.io/name: {{ include "eni53.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "eni53.labels" -}}
{{ include "eni53.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "eni53.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "eni53.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* In `default`, where another namespace's release may have one too. */}}
{{- define "eni53.eventsRole" -}}
{{- printf "%s-%s-events" (include "eni53.fullname" .) .Release.Namespace }}
{{- end }}

{{- define "eni53.loopback" -}}
{{- if has .Values.listen.address (list "127.0.0.1" "[::1]") }}true{{ end }}
{{- end }}

{{/* A probe. On loopback the kubelet, which is in the same network, must be told the address. */}}
{{- define "eni53.probe" -}}
httpGet:
  path: {{ .path }}
  port: metrics
  {{- if include "eni53.loopback" .root }}
  host: {{ .root.Values.listen.address | trimPrefix "[" | trimSuffix "]" | quote }}
  {{- end }}
{{- end }}
