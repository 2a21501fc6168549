{{- /*
Wait for the certificate, which an administrator has this pod request with a token on its standard input. No Secret has the token:
every pod of a DaemonSet mounts the same Secrets, so each node of a fleet could enrol as another one. `whose` is the pod's name for
the log as a shell reads it, `who` what administrators type, `command` the commands' group.
*/ -}}
{{- define "penstock.enrol" -}}
umask 077
mkdir -p "$ROOT"
if [ ! -s "$ROOT/agent.pem" ]; then
  echo "{{ .whose }} has no certificate: pipe the token of 'penstock gateway enrol {{ .fleet }} {{ .who }}' into 'kubectl exec -i POD -c enrol -- penstock {{ .command }} enrol --config {{ .config }} --at $ENROLMENT'" >&2
fi
until [ -s "$ROOT/agent.pem" ]; do sleep 1; done
{{- end -}}
