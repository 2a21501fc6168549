{{- /* What the node's agent is told and may do. */ -}}

{{- /* agent.yaml of one gateway; fleets[].agent.file adds to it, and has the last word. */ -}}
{{- define "penstock.agent" -}}
{{- $own := dict
  "gateway" (merge (dict "fleet" .fleet.file.name) .gateway)
  "root" .values.root
  "product" .fleet.file.product
  "channel" (default "stable" .fleet.file.channel)
  "trust" "/etc/penstock/trust.yaml"
  "temporal_address" (include "penstock.relay" (dict "fleet" .fleet "namespace" .namespace))
  "certificate" (printf "%s/identity/agent.pem" .values.root)
  "key" (printf "%s/identity/agent.key" .values.root)
  "authority" (printf "%s/identity/authority.pem" .values.root)
  "payload_keys" (printf "%s/identity/payload.keys" .values.root)
-}}
{{- mergeOverwrite $own (dig "agent" "file" dict .fleet) | toYaml -}}
{{- end -}}

{{- define "penstock.relay" -}}
{{- dig "agent" "relay" (printf "penstock-relay.%s.svc:7243" .namespace) .fleet -}}
{{- end -}}

{{- define "penstock.enrolment" -}}
{{- dig "agent" "enrolment" (printf "penstock-relay.%s.svc:7244" .namespace) .fleet -}}
{{- end -}}

{{- /* NET_ADMIN for nftables; DAC_OVERRIDE because ocserv gives its control socket to its own user. Nothing else. */ -}}
{{- define "penstock.agent.may" -}}
imagePullPolicy: IfNotPresent
securityContext:
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add: [NET_ADMIN, DAC_OVERRIDE]
{{- end -}}

{{- define "penstock.agent.mounts" -}}
- {name: root, mountPath: {{ . }}}
- {name: gateways, mountPath: /etc/penstock-gateways, readOnly: true}
- {name: files, mountPath: /etc/penstock, readOnly: true}
- {name: scratch, mountPath: /tmp}
{{- end -}}
