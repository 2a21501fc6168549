{{- /*
A pod of one of the orchestrator's processes: `name`, `port` of its metrics, `env`, `ports`, `keys` of the Secret that it gets,
`mounts` and `volumes` of its own, `files` whether it reads what people write, and the root context `top`.
*/ -}}

{{- define "penstock.process" -}}
{{- $values := .top.Values.orchestrator -}}
metadata:
  labels:
    penstock.dev/process: {{ .name }}
    penstock.dev/of: orchestrator
  annotations:
    {{- /* Kubernetes starts no process anew when these change; the name of what it mounts does. */}}
    penstock.dev/settings: {{ toJson $values.settings | sha256sum | trunc 10 }}
spec:
  automountServiceAccountToken: false
  # A Service called penstock-relay would otherwise bring variables PENSTOCK_RELAY_..., which settings refuse.
  enableServiceLinks: false
  terminationGracePeriodSeconds: 90
  # Root of the container without any capability: files with keys have to be their reader's alone, and Kubernetes mounts
  # Secrets as root's.
  securityContext:
    runAsUser: 0
    runAsGroup: 0
    seccompProfile: {type: RuntimeDefault}
  {{- with .top.Values.gateway.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and (eq $values.state.accessMode "ReadWriteOnce") (eq .name "worker") }}
  # The worker's disk is a disk of one node, and the API reads evidence on it: both are on one node.
  affinity:
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector: {matchLabels: {penstock.dev/process: api}}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ $values.image }}
      imagePullPolicy: IfNotPresent
      command: [penstock, {{ .name }}]
      securityContext:
        privileged: false
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      env:
        - {name: PENSTOCK_LOG, value: json}
        - {name: PENSTOCK_STATE, value: /var/lib/penstock-{{ .name }}}
        {{- if .files }}
        - {name: PENSTOCK_FLEET, value: /etc/penstock-fleets}
        - {name: PENSTOCK_PEOPLE, value: /etc/penstock/people.yaml}
        - {name: PENSTOCK_TRUST, value: /etc/penstock/trust.yaml}
        - {name: PENSTOCK_GATES, value: /etc/penstock/gates.yaml}
        {{- if and (hasKey .top.Values.files "notices.yaml") (not (hasKey $values.settings "notices")) }}
        - {name: PENSTOCK_NOTICES, value: /etc/penstock/notices.yaml}
        {{- end }}
        - {name: PENSTOCK_SNAPSHOTS, value: /var/lib/penstock-evidence/snapshots}
        - {name: PENSTOCK_AUDIT_CHECKPOINTS, value: /var/lib/penstock-evidence/audit-checkpoints.jsonl}
        {{- end }}
        # By a role of its own: each process has one of the Secret's addresses.
        - {name: PENSTOCK_LEDGER_URL, valueFrom: {secretKeyRef: {name: {{ $values.ledger }}, key: {{ .name }}}}}
        - {name: PENSTOCK_PAYLOAD_KEYS, value: /etc/penstock-keys/payload.keys}
        - {name: PENSTOCK_METRICS_TOKEN, value: /etc/penstock-keys/metrics.token}
        - {name: PENSTOCK_METRICS_CERTIFICATE, value: /etc/penstock-certificate/tls.crt}
        - {name: PENSTOCK_METRICS_KEY, value: /etc/penstock-certificate/tls.key}
        - {name: PENSTOCK_{{ upper .name }}_METRICS_ADDRESS, value: "0.0.0.0:{{ .port }}"}
        {{- range .env }}
        - {{ toJson . }}
        {{- end }}
        {{- range $name, $value := $values.settings }}
        - {name: PENSTOCK_{{ upper $name }}, value: {{ toString $value | quote }}}
        {{- end }}
      ports:
        - {name: metrics, containerPort: {{ .port }}}
        {{- range .ports }}
        - {{ toJson . }}
        {{- end }}
      startupProbe:
        httpGet: {path: /healthz, port: metrics, scheme: HTTPS}
        periodSeconds: 2
        failureThreshold: 300
      livenessProbe:
        httpGet: {path: /healthz, port: metrics, scheme: HTTPS}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      # Without the engine or the ledger it is not ready. It need not be started anew: it goes on when they are back.
      readinessProbe:
        httpGet: {path: /readyz, port: metrics, scheme: HTTPS}
        periodSeconds: 5
        timeoutSeconds: 5
      {{- with $values.resources }}
      resources: {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        {{- range .mounts }}
        - {{ toJson . }}
        {{- end }}
        - {name: scratch, mountPath: /tmp}
        {{- if .files }}
        - {name: files, mountPath: /etc/penstock, readOnly: true}
        - {name: fleets, mountPath: /etc/penstock-fleets, readOnly: true}
        {{- end }}
        - {name: keys, mountPath: /etc/penstock-keys, readOnly: true}
        - {name: certificate, mountPath: /etc/penstock-certificate, readOnly: true}
  volumes:
    {{- range .volumes }}
    - {{ toJson . }}
    {{- end }}
    - {name: scratch, emptyDir: {sizeLimit: 1Gi}}
    {{- if .files }}
    # Projected, since every user may replace files in the folder of a plain ConfigMap (mode 0777).
    - {name: files, projected: {defaultMode: 0444, sources: [{configMap: {name: penstock-files}}]}}
    - {name: fleets, projected: {defaultMode: 0444, sources: [{configMap: {name: penstock-fleets}}]}}
    {{- end }}
    # Ours: immutable, and named with a number. Another key is another Secret, and the pods that name it are new ones.
    # The API gets payload keys of its own out of it, which seal nothing for a gateway.
    - name: keys
      secret:
        secretName: {{ $values.keys }}
        defaultMode: 0400
        items:
          - {key: {{ .keys }}, path: payload.keys}
          - {key: metrics.token, path: metrics.token}
    # cert-manager's, or anybody's who renews it: read again when it changes.
    - {name: certificate, secret: {secretName: {{ $values.certificate }}, defaultMode: 0400}}
{{- end -}}
