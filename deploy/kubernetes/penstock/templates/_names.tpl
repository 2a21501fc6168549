{{- /*
Names that templates share. Fleets, gateways and slots are taken from fleet.yaml as people wrote it (fleets[].file),
so that no second list of them can differ.
*/ -}}

{{- /* The gateways of a fleet that this cluster runs, as a JSON object with the list `gateways`. */ -}}
{{- define "penstock.gateways" -}}
{{- $placed := list -}}
{{- range .fleet.file.gateways -}}
{{- if eq (dig "placement" "cluster" "" .) $.cluster -}}
{{- $placed = append $placed . -}}
{{- end -}}
{{- end -}}
{{- dict "gateways" $placed | toJson -}}
{{- end -}}

{{- /* The slots that every gateway of the fleet here has, as a JSON object with the list `slots`. */ -}}
{{- define "penstock.slots" -}}
{{- $slots := list -}}
{{- range (include "penstock.gateways" . | fromJson).gateways -}}
{{- range .slots -}}
{{- $slots = append $slots .name -}}
{{- end -}}
{{- end -}}
{{- dict "slots" ($slots | uniq | sortAlpha) | toJson -}}
{{- end -}}

{{- /* The names of all DaemonSets that are slots, as a JSON object with the list `names`. */ -}}
{{- define "penstock.sets" -}}
{{- $names := list -}}
{{- range $fleet := .Values.fleets -}}
{{- range (include "penstock.slots" (dict "fleet" $fleet "cluster" $.Values.cluster) | fromJson).slots -}}
{{- $names = append $names (printf "%s-%s" $fleet.file.name .) -}}
{{- end -}}
{{- end -}}
{{- dict "names" $names | toJson -}}
{{- end -}}

{{- /* Under which names the API server knows a fleet's driver, as a JSON object with the list `users`. */ -}}
{{- define "penstock.users" -}}
{{- $users := dig "driver" "users" list .fleet -}}
{{- if dig "driver" "here" true .fleet -}}
{{- $users = prepend $users (printf "system:serviceaccount:%s:%s-cluster" .namespace .fleet.file.name) -}}
{{- end -}}
{{- dict "users" $users | toJson -}}
{{- end -}}

{{- /* The same of all fleets, as a list of CEL. */ -}}
{{- define "penstock.drivers" -}}
{{- $all := list -}}
{{- range .Values.fleets -}}
{{- $all = concat $all (include "penstock.users" (dict "fleet" . "namespace" $.Release.Namespace) | fromJson).users -}}
{{- end -}}
{{- include "penstock.strings" $all -}}
{{- end -}}

{{- /* A map of CEL: what labels of nodes each driver may change begins with. */ -}}
{{- define "penstock.prefixes" -}}
{{- $entries := list -}}
{{- range $fleet := .Values.fleets -}}
{{- range (include "penstock.users" (dict "fleet" $fleet "namespace" $.Release.Namespace) | fromJson).users -}}
{{- $entries = append $entries (printf "%s: %s" (squote .) (squote (printf "penstock.dev/%s." $fleet.file.name))) -}}
{{- end -}}
{{- end -}}
{{- printf "{%s}" (join ", " $entries) -}}
{{- end -}}

{{- /* A list of strings as CEL writes it. */ -}}
{{- define "penstock.strings" -}}
{{- $quoted := list -}}
{{- range . -}}
{{- $quoted = append $quoted (squote .) -}}
{{- end -}}
{{- printf "[%s]" (join ", " $quoted) -}}
{{- end -}}

{{- /* Whether who asks is one of the named administrators, in CEL. */ -}}
{{- define "penstock.administrator" -}}
request.userInfo.username in {{ include "penstock.strings" .Values.administrators.users }}
|| (has(request.userInfo.groups) && request.userInfo.groups.exists(group, group in {{ include "penstock.strings" .Values.administrators.groups }}))
{{- end -}}

{{- /* Whether who asks is a part of the cluster itself, in CEL. */ -}}
{{- define "penstock.controller" -}}
request.userInfo.username in {{ include "penstock.strings" .Values.controllers.users }}
|| (has(request.userInfo.groups) && request.userInfo.groups.exists(group, group in {{ include "penstock.strings" .Values.controllers.groups }}))
{{- end -}}

{{- /* Labels of every object of this chart. None of them has a version: a slot's template must not change with it. */ -}}
{{- define "penstock.labels" -}}
app.kubernetes.io/part-of: penstock
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* Whom a fleet's rights are given to: its driver here, and those that run elsewhere. */ -}}
{{- define "penstock.subjects" -}}
{{- if dig "driver" "here" true .fleet }}
- {kind: ServiceAccount, name: {{ .fleet.file.name }}-cluster, namespace: {{ .namespace }}}
{{- end }}
{{- range dig "driver" "users" list .fleet }}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: {{ quote . }}}
{{- end }}
{{- end -}}

{{- /* Host and port at which Prometheus scrapes a gateway: its instance label, as fleet.yaml has it. */ -}}
{{- define "penstock.target" -}}
{{- $address := first .addresses -}}
{{- range reverse .addresses -}}
{{- if not (contains ":" .) -}}
{{- $address = . -}}
{{- end -}}
{{- end -}}
{{- $address = default $address .management -}}
{{- $port := default 9500 .metrics_port | int -}}
{{- contains ":" $address | ternary (printf "[%s]:%d" $address $port) (printf "%s:%d" $address $port) -}}
{{- end -}}
