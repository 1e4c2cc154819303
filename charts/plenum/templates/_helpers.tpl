{{/* Labels of one component: (dict "root" $ "component" "gateway"). */}}
{{- define "plenum.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: plenum
{{ include "plenum.selector" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "plenum.selector" -}}
app.kubernetes.io/name: plenum
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "image" .Values.images.operator) */}}
{{- define "plenum.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Every namespace that pools may run pods in, as a JSON list. */}}
{{- define "plenum.poolNamespaces" -}}
{{ prepend .Values.poolNamespaces .Release.Namespace | uniq | toJson }}
{{- end }}

{{- define "plenum.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "plenum.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What a Pod of the operator has in common: (dict "root" $ "values" .Values.gateway "component" "gateway"). */}}
{{- define "plenum.podDefaults" -}}
securityContext:
  {{- include "plenum.podSecurityContext" . | nindent 2 }}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "plenum.selector" . | nindent 8 }}
{{- end }}

{{/* The host of the public URL, without scheme and port. */}}
{{- define "plenum.publicHost" -}}
{{ regexReplaceAll ":[0-9]+$" (urlParse .Values.gateway.publicURL).host "" }}
{{- end }}

{{/* The same as a flag's value. */}}
{{- define "plenum.workerNamespaces" -}}
{{ include "plenum.poolNamespaces" . | fromJsonArray | join "," }}
{{- end }}
