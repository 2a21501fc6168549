{{- /*
What cannot work is refused here, before anything reaches a cluster: a sentence that says what is wrong, where, and
what to do. Each has a test. Every template that reads of fleets begins with it, for Helm renders them in no order.
*/ -}}

{{- define "penstock.checks" -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$" .Values.cluster) -}}
{{- fail "cluster has no name: give it the one that placement.cluster says in fleet.yaml" -}}
{{- end -}}
{{- if not .Values.fleets -}}
{{- fail "fleets is empty: name the fleets whose gateways this cluster runs" -}}
{{- end -}}
{{- if not (regexMatch "^/[^/]" .Values.root) -}}
{{- fail (printf "root %q is no folder of a node: write a path like /var/lib/penstock" .Values.root) -}}
{{- end -}}
{{- include "penstock.checks.image" (dict "name" "image" "image" .Values.image "of" "agents and drivers") -}}
{{- include "penstock.checks.exposure" .Values.gateway.exposure -}}
{{- if .Values.orchestrator.here -}}
{{- include "penstock.checks.image" (dict "name" "orchestrator.image" "image" .Values.orchestrator.image "of" "API, worker and relay") -}}
{{- if not .Values.orchestrator.page -}}
{{- fail "orchestrator.page is empty: say where people reach the API, like https://penstock.example" -}}
{{- end -}}
{{- end -}}
{{- $nodes := dict -}}
{{- $names := dict -}}
{{- $drivers := dict -}}
{{- range $fleet := .Values.fleets -}}
{{- if not (dig "file" "name" "" $fleet) -}}
{{- fail "fleets: one has no file with a name: put the whole of fleet.yaml below file" -}}
{{- end -}}
{{- $name := $fleet.file.name -}}
{{- if hasKey $names $name -}}
{{- fail (printf "fleets: %s is there twice; leave one out" $name) -}}
{{- end -}}
{{- $_ := set $names $name true -}}
{{- $users := (include "penstock.users" (dict "fleet" $fleet "namespace" $.Release.Namespace) | fromJson).users -}}
{{- if not $users -}}
{{- fail (printf "fleet %s: driver.here is false and driver.users is empty: nobody could give a node its slot; name who the driver is" $name) -}}
{{- end -}}
{{- range $users -}}
{{- if hasKey $drivers . -}}
{{- fail (printf "fleets %s and %s have the same driver %s: it may change the labels of one fleet, so give the other one its own" (get $drivers .) $name .) -}}
{{- end -}}
{{- $_ := set $drivers . $name -}}
{{- end -}}
{{- if not (dig "agent" "file" "probe" "" $fleet) -}}
{{- fail (printf "fleet %s: agent.file has no probe: say who logs in to see whether a new instance works (docs/reference/agent.md)" $name) -}}
{{- end -}}
{{- include "penstock.checks.repository" (dict "name" $name "repository" $fleet.repository) -}}
{{- include "penstock.checks.grace" (dict "name" $name "fleet" $fleet "values" $.Values) -}}
{{- include "penstock.checks.gateways" (dict "name" $name "fleet" $fleet "values" $.Values "nodes" $nodes) -}}
{{- end -}}
{{- end -}}

{{- define "penstock.checks.image" -}}
{{- if not .image -}}
{{- fail (printf "%s is empty: name the image of %s, REPOSITORY@sha256:..." .name .of) -}}
{{- end -}}
{{- if not (regexMatch "^[^@]+@sha256:[0-9a-f]{64}$" .image) -}}
{{- fail (printf "%s %q is not named by its digest: write REPOSITORY@sha256:..., a tag can be moved" .name .image) -}}
{{- end -}}
{{- end -}}

{{- /* Why not the others: docs/kubernetes.md has the table. */ -}}
{{- define "penstock.checks.exposure" -}}
{{- $why := dict
  "NodePort" "kube-proxy forgets the UDP of pods that are no longer ready, and moves live UDP to others"
  "LoadBalancer" "what stands behind it is a Service, whose UDP is moved under live sessions"
  "streamProxy" "gateways behind a proxy are no nodes, and users' addresses are lost"
-}}
{{- if ne . "hostNetwork" -}}
{{- fail (printf "gateway.exposure %s is not offered: %s; write hostNetwork, where users dial the node" . (default "there is no such exposure" (get $why .))) -}}
{{- end -}}
{{- end -}}

{{- define "penstock.checks.repository" -}}
{{- $last := last (splitList "/" (toString .repository)) -}}
{{- if not .repository -}}
{{- fail (printf "fleet %s has no repository: name where its releases' images come from, like registry.example/vpn/%s" .name .name) -}}
{{- end -}}
{{- if or (contains "@" .repository) (contains "://" .repository) (contains ":" $last) (contains "'" .repository) -}}
{{- fail (printf "fleet %s: repository %q has a tag, a digest or a scheme: write HOST/NAME alone, releases say the digest" .name .repository) -}}
{{- end -}}
{{- end -}}

{{- define "penstock.checks.grace" -}}
{{- $deadline := dig "file" "limits" "drain_deadline" "8h" .fleet -}}
{{- $drain := int64 (include "penstock.seconds" $deadline) -}}
{{- $grace := int64 (include "penstock.seconds" .values.gateway.grace) -}}
{{- if le $grace $drain -}}
{{- fail (printf "gateway.grace is %s and the drains of fleet %s may take %s: a pod would be killed with its users; make grace longer" .values.gateway.grace .name $deadline) -}}
{{- end -}}
{{- end -}}

{{- define "penstock.checks.gateways" -}}
{{- $name := .name -}}
{{- $nodes := .nodes -}}
{{- $gateways := (include "penstock.gateways" (dict "fleet" .fleet "cluster" .values.cluster) | fromJson).gateways -}}
{{- if not $gateways -}}
{{- fail (printf "fleet %s has no gateway with placement.cluster %s: leave it out, or say where its gateways are" $name .values.cluster) -}}
{{- end -}}
{{- $slots := (include "penstock.slots" (dict "fleet" .fleet "cluster" .values.cluster) | fromJson).slots -}}
{{- if lt (len $slots) 3 -}}
{{- fail (printf "fleet %s has %d slots: three or more are needed, or an urgent fix waits for the drains of the release before it" $name (len $slots)) -}}
{{- end -}}
{{- range $slot := $slots -}}
{{- if not (regexMatch "^[a-z0-9-]+$" (printf "%s%s" $name $slot)) -}}
{{- fail (printf "fleet %s, slot %s: a DaemonSet is called after both, so neither has a dot in it; give it another name" $name $slot) -}}
{{- end -}}
{{- if gt (len (printf "%s.%s" $name $slot)) 63 -}}
{{- fail (printf "fleet %s: the label penstock.dev/%s.%s is too long for a cluster: 63 characters behind the slash are the most" $name $name $slot) -}}
{{- end -}}
{{- if has $slot (list "epoch" "gateway" "ordered") -}}
{{- fail (printf "fleet %s: no slot can be called %s, which is the name of another label" $name $slot) -}}
{{- end -}}
{{- end -}}
{{- range $gateway := $gateways -}}
{{- if ne (default "host" $gateway.runtime) "kubernetes" -}}
{{- fail (printf "gateway %s of fleet %s has a placement and not `runtime: kubernetes`; write both or neither" $gateway.name $name) -}}
{{- end -}}
{{- $own := list -}}
{{- range $gateway.slots -}}
{{- $own = append $own .name -}}
{{- end -}}
{{- if ne (join " " (sortAlpha $own)) (join " " $slots) -}}
{{- fail (printf "gateway %s of fleet %s has the slots %s and others have %s: a slot is one DaemonSet for all, so give every gateway the same" $gateway.name $name (join ", " (sortAlpha $own)) (join ", " $slots)) -}}
{{- end -}}
{{- $node := $gateway.placement.node -}}
{{- if hasKey $nodes $node -}}
{{- fail (printf "gateways %s and %s are both on node %s: a gateway is a node, so give one of them another" (get $nodes $node) $gateway.name $node) -}}
{{- end -}}
{{- $_ := set $nodes $node $gateway.name -}}
{{- end -}}
{{- end -}}

{{- /* A duration of people's files, such as 90s or 1d12h, in seconds. */ -}}
{{- define "penstock.seconds" -}}
{{- if not (regexMatch "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$" (toString .)) -}}
{{- fail (printf "%q is no duration: write it like 90s, 30m or 8h" (toString .)) -}}
{{- end -}}
{{- $sum := 0 -}}
{{- range $unit, $seconds := dict "d" 86400 "h" 3600 "m" 60 "s" 1 -}}
{{- $sum = add $sum (mul $seconds (regexFind (printf "[0-9]+%s" $unit) (toString $) | trimSuffix $unit | int64)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}
