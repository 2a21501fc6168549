{{- /* What a fleet's driver is told and may do. */ -}}

{{- /* cluster.yaml; fleets[].driver.file adds to it, and has the last word. */ -}}
{{- define "penstock.driver" -}}
{{- $slots := dict -}}
{{- $fleet := .fleet -}}
{{- range (include "penstock.slots" (dict "fleet" .fleet "cluster" .values.cluster) | fromJson).slots -}}
{{- $_ := set $slots . (printf "%s-%s" $fleet.file.name .) -}}
{{- end -}}
{{- $own := dict
  "name" .values.cluster
  "fleet" .fleet.file.name
  "namespace" .namespace
  "slots" $slots
  "repository" .fleet.repository
  "root" .root
  "product" .fleet.file.product
  "channel" (default "stable" .fleet.file.channel)
  "trust" "/etc/penstock/trust.yaml"
  "temporal_address" (include "penstock.relay" (dict "fleet" .fleet "namespace" .namespace))
  "certificate" (printf "%s/identity/agent.pem" .root)
  "key" (printf "%s/identity/agent.key" .root)
  "authority" (printf "%s/identity/authority.pem" .root)
  "payload_keys" (printf "%s/identity/payload.keys" .root)
-}}
{{- mergeOverwrite $own (dig "driver" "file" dict .fleet) | toYaml -}}
{{- end -}}

{{- define "penstock.driver.may" -}}
imagePullPolicy: IfNotPresent
securityContext:
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "penstock.driver.mounts" -}}
- {name: root, mountPath: {{ . }}}
- {name: config, mountPath: /etc/penstock-cluster, readOnly: true}
- {name: files, mountPath: /etc/penstock, readOnly: true}
- {name: scratch, mountPath: /tmp}
{{- end -}}
