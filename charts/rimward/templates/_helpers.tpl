{{- define "rimward.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* First part of object names: the release's name, and the chart's where the release does not say it. */ -}}
{{- define "rimward.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "rimward.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "rimward.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* What pods are found by; never changes. Takes root and component. */ -}}
{{- define "rimward.selectorLabels" -}}
app.kubernetes.io/name: {{ include "rimward.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* Labels of an object. Takes root and component. */ -}}
{{- define "rimward.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_") }}
{{ include "rimward.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: rimward
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Labels of a pod: nothing that a new version of the chart alone changes, else it would replace every pod. */ -}}
{{- define "rimward.podLabels" -}}
{{ include "rimward.selectorLabels" . }}
app.kubernetes.io/part-of: rimward
{{- with merge (dict) (get .root.Values .component).podLabels .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "rimward.serviceAccountName" -}}
{{- $account := (get .root.Values .component).serviceAccount -}}
{{- $account.name | default (printf "%s-%s" (include "rimward.fullname" .root) .component) -}}
{{- end -}}

{{- /* An image's reference. Takes root and the image's values. */ -}}
{{- define "rimward.image" -}}
{{- $registry := trimSuffix "/" .root.Values.image.registry -}}
{{- if .image.digest -}}
{{- printf "%s/%s@%s" $registry .image.repository .image.digest | quote -}}
{{- else -}}
{{- printf "%s/%s:%s" $registry .image.repository (.root.Values.image.tag | default .root.Chart.AppVersion) | quote -}}
{{- end -}}
{{- end -}}

{{- define "rimward.imagePullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ if kindIs "string" . }}{{ . }}{{ else }}{{ .name }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "rimward.priorityClassName" -}}
{{- $own := .root.Values.priorityClass.name | default (include "rimward.fullname" .root) -}}
{{- (get .root.Values .component).priorityClassName | default (ternary $own "" .root.Values.priorityClass.create) -}}
{{- end -}}

{{- /* ADDRESS:PORT to listen on. Takes root and port. */ -}}
{{- define "rimward.listen" -}}
{{- $address := .root.Values.listenAddress -}}
{{- if contains ":" $address -}}[{{ $address }}]{{- else -}}{{ $address }}{{- end -}}:{{ int .port }}
{{- end -}}

{{- /* Security context of a container at PodSecurity's level restricted. */ -}}
{{- define "rimward.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
