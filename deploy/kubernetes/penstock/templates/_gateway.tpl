{{- /* What runs in a gateway's pod beside the daemon: static busybox and the release's own occtl. */ -}}

{{- /*
The image is the driver's field. Until it has set one, nobody has the image that stands there. From then on this chart
says nothing of it (Helm 4 applies on the server, where two who say the same field own it both) or says what is there
(Helm 3 takes a field away that the chart no longer has).
*/ -}}
{{- define "penstock.image" -}}
{{- $none := printf "%s@sha256:%s" .repository (repeat 64 "0") -}}
{{- $image := $none -}}
{{- range dig "spec" "template" "spec" "containers" list .there -}}
{{- if and (eq .name "gateway") (hasPrefix (printf "%s@" $.repository) .image) -}}
{{- $image = .image -}}
{{- end -}}
{{- end -}}
{{- if or (eq $image $none) (hasPrefix "v3" .helm) -}}
image: {{ $image }}
{{- end -}}
{{- end -}}

{{- /* The daemon's start. A file of the node keeps what it says: logs of pods are read by people who may not know users. */ -}}
{{- define "penstock.daemon" -}}
exec /usr/sbin/ocserv -f -d 3 -c /etc/penstock/ocserv.conf >>/var/log/penstock 2>&1
{{- end -}}

{{- define "penstock.answers" -}}
busybox timeout 5 occtl -s /run/penstock/occtl.sock show status >/dev/null 2>&1
{{- end -}}

{{- define "penstock.lives" -}}
busybox timeout 5 occtl -s /run/penstock/occtl.sock show status >/dev/null 2>&1 || busybox pidof ocserv-worker >/dev/null
{{- end -}}

{{- define "penstock.latch" -}}
while if users=$(busybox timeout 5 occtl -s /run/penstock/occtl.sock -j show users 2>/dev/null);
then case $users in *Username*) true ;; *) false ;; esac; else busybox pidof ocserv-worker >/dev/null; fi;
do busybox sleep 1; done
{{- end -}}

{{- /* A command line for busybox's shell, which every image of a release has. */ -}}
{{- define "penstock.shell" -}}
{{- list "busybox" "sh" "-c" (. | replace "\n" " ") | toRawJson -}}
{{- end -}}
