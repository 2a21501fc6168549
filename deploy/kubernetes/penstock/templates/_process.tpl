{{- /* A pod of one of the orchestrator's processes: `name`, `command`, `port` of its metrics, and the root context `top`. */ -}}

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
  {{- if and (eq $values.state.accessMode "ReadWriteOnce") (ne .name "api") }}
  # The state folder is a disk of one node: all three are where the API is.
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
        - {name: PENSTOCK_STATE, value: /var/lib/penstock-orchestrator}
        - {name: PENSTOCK_SOCKET, value: /run/penstock/penstock.sock}
        - {name: PENSTOCK_FLEET, value: /etc/penstock-fleets}
        - {name: PENSTOCK_PEOPLE, value: /etc/penstock/people.yaml}
        - {name: PENSTOCK_TRUST, value: /etc/penstock/trust.yaml}
        - {name: PENSTOCK_GATES, value: /etc/penstock/gates.yaml}
        - {name: PENSTOCK_LEDGER_URL, valueFrom: {secretKeyRef: {{ toJson $values.ledger }}}}
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
        - {name: state, mountPath: /var/lib/penstock-orchestrator}
        - {name: run, mountPath: /run/penstock}
        - {name: scratch, mountPath: /tmp}
        - {name: files, mountPath: /etc/penstock, readOnly: true}
        - {name: fleets, mountPath: /etc/penstock-fleets, readOnly: true}
        - {name: keys, mountPath: /etc/penstock-keys, readOnly: true}
        - {name: certificate, mountPath: /etc/penstock-certificate, readOnly: true}
  volumes:
    - {name: state, persistentVolumeClaim: {claimName: penstock-state}}
    - {name: run, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    - {name: scratch, emptyDir: {sizeLimit: 1Gi}}
    - {name: files, configMap: {name: penstock-files, defaultMode: 0444}}
    - {name: fleets, configMap: {name: penstock-fleets, defaultMode: 0444}}
    # Ours: immutable, and named with a number. Another key is another Secret, and the pods that name it are new ones.
    - {name: keys, secret: {secretName: {{ $values.keys }}, defaultMode: 0400}}
    # cert-manager's, or anybody's who renews it: read again when it changes.
    - {name: certificate, secret: {secretName: {{ $values.certificate }}, defaultMode: 0400}}
{{- end -}}
