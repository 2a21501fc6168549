{{- /*
Once: with the token that `penstock gateway enrol` printed, a certificate is got; another token in the Secret enrols anew.
`whose` is the token's key in the Secret as a shell says it, `who` what people type, `command` the commands' group, `secret` where
the token lies.
*/ -}}
{{- define "penstock.enrol" -}}
umask 077
mkdir -p "$ROOT"
token="/etc/penstock-enrolment/{{ .whose }}"
used="$ROOT/token.sha256"
if [ -s "$token" ]; then
  sum=$(sha256sum <"$token")
  if [ ! -s "$used" ] || [ "$sum" != "$(cat "$used")" ]; then
    penstock {{ .command }} enrol --config "{{ .config }}" --at "$ENROLMENT" <"$token"
    echo "$sum" >"$used"
  fi
fi
if [ ! -s "$ROOT/agent.pem" ]; then
  echo "{{ .whose }} has no certificate: put the token of 'penstock gateway enrol {{ .fleet }} {{ .who }}' under the key {{ .whose }} into the Secret {{ .secret }}" >&2
  exit 1
fi
{{- end -}}
