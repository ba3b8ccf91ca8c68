{{- /*
The Deployment of an operator. Takes root and component; arguments, volumes and mounts are given as text.
Nothing that it reads needs a restart when it changes, so no checksum of a Secret replaces its pods.
*/ -}}
{{- define "rimward.operator" -}}
{{- $values := get .root.Values .component -}}
{{- $own := dict "root" .root "component" .component -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "rimward.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "rimward.labels" $own | nindent 4 }}
spec:
  replicas: {{ $values.replicas }}
  selector:
    matchLabels:
      {{- include "rimward.selectorLabels" $own | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "rimward.podLabels" $own | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ .component }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "rimward.serviceAccountName" $own }}
      {{- with include "rimward.imagePullSecrets" .root }}
      {{- . | trim | nindent 6 }}
      {{- end }}
      {{- with include "rimward.priorityClassName" $own }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext:
        {{- toYaml $values.podSecurityContext | nindent 8 }}
      terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
      containers:
        - name: {{ .component }}
          image: {{ include "rimward.image" (dict "root" .root "image" $values.image) }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args:
            - {{ .component }}
            - --listen={{ include "rimward.listen" (dict "root" .root "port" 8080) }}
            {{- with .arguments }}
            {{- . | trim | nindent 12 }}
            {{- end }}
            {{- with $values.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          env:
            - name: POD_NAMESPACE
              valueFrom:
                fieldRef:
                  fieldPath: metadata.namespace
            - name: POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
            - name: RIMWARD_LOG
              value: {{ $values.log | quote }}
            {{- with $values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - name: probes
              containerPort: 8080
          livenessProbe:
            httpGet:
              path: /healthz
              port: probes
            {{- toYaml $values.livenessProbe | nindent 12 }}
          readinessProbe:
            httpGet:
              path: /readyz
              port: probes
            {{- toYaml $values.readinessProbe | nindent 12 }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            {{- include "rimward.containerSecurityContext" . | nindent 12 }}
          {{- with .mounts }}
          volumeMounts:
            {{- . | trim | nindent 12 }}
          {{- end }}
      {{- with .volumes }}
      volumes:
        {{- . | trim | nindent 8 }}
      {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- if $values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "rimward.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "rimward.labels" $own | nindent 4 }}
spec:
  maxUnavailable: {{ $values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "rimward.selectorLabels" $own | nindent 6 }}
{{- end }}
{{- end -}}

{{- /* The account of a component. Takes root, component and namespace. */ -}}
{{- define "rimward.account" -}}
{{- $account := (get .root.Values .component).serviceAccount -}}
{{- if $account.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "rimward.serviceAccountName" . }}
  namespace: {{ .namespace }}
  labels:
    {{- include "rimward.labels" . | nindent 4 }}
  {{- with $account.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- /* A namespace that holds more than this release's objects, so it stays. Takes root, component, name. */ -}}
{{- define "rimward.namespace" -}}
apiVersion: v1
kind: Namespace
metadata:
  name: {{ .name }}
  annotations:
    helm.sh/resource-policy: keep
  labels:
    {{- include "rimward.labels" . | nindent 4 }}
    {{- range $key, $value := .more }}
    {{ $key }}: {{ $value }}
    {{- end }}
{{- end -}}
