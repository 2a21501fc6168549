"""No release has a secret by which a gateway asks others who a user is, and usual files are published."""

import base64
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from activities.drivers.daemon.products import TEMPLATES
from orchestrator.publishing.builder import ReleaseLabels, build_release
from orchestrator.publishing.private_keys import keys_in
from policies.model.errors import BadInput
from tests.fakes.trees import SMALL_TEMPLATE, small_tree

SECRET = "Vpn-Shared-1"
FILES = {
    # radcli(3): `host:port:secret`, and any place of the file of `servers`
    "etc/radcli/radiusclient.conf": f"nas-identifier vpn\nauthserver 192.0.2.5:1812:{SECRET}\n",
    "etc/radcli/short.conf": f"authserver ad:1812:{SECRET}\n",
    "etc/radcli/v6.conf": f"acctserver [2001:db8::5]:1813:{SECRET}\n",
    "etc/radcli/several.conf": f"authserver one.example:1812, two.example::{SECRET}\n",
    "etc/ocserv/radius/servers": f"192.0.2.5\t{SECRET}\n",
    "etc/ocserv/radius.servers": f"radius.example/vpn {SECRET}\n",
    # pam_radius_auth(8): server[:port] secret [timeout]
    "etc/pam_radius_auth.conf": f"# server[:port] shared_secret timeout (s)\n192.0.2.5:1812 {SECRET} 3\n",
    # of LDAP: nslcd.conf(5), pam_ldap(5), sssd-ldap(5); of Duo: pam_duo(8)
    "etc/nslcd.conf": f"uri ldaps://ldap.example\nbinddn cn=vpn,dc=example\nbindpw {SECRET}\n",
    "etc/pam_ldap.secret": f"{SECRET}\n",
    "etc/sssd/sssd.conf": f"[domain/a]\nldap_default_bind_dn = cn=vpn\nldap_default_authtok = {SECRET}\n",
    "etc/security/pam_duo.conf": f"[duo]\nikey = DI1\nskey = {SECRET}\nhost = api-1.example\n",
    "etc/pam.d/ocserv": f"auth required pam_tacplus.so server=192.0.2.5 secret={SECRET} timeout=3\n",
    # plugins of OpenVPN for RADIUS and LDAP
    "etc/openvpn/radiusplugin.cnf": f"server\n{{\n\tname=192.0.2.5\n\tsharedsecret={SECRET}\n}}\n",
    "etc/openvpn/auth/ldap.conf": f"<LDAP>\n\tURL ldaps://ldap.example\n\tPassword {SECRET}\n</LDAP>\n",
    # users.oath of liboath, which pam_oath and ocserv's `otp=` read: the seed of every later code
    "etc/users.oath": "HOTP/T30 ana - 3132333435363738393031323334353637383930\n",
    # known by the names or forms of their secrets, whatever program reads them
    "etc/ppp/otp-secrets": "ana otp totp:sha1:base32:LJYHR64TUI7IL3RD:JBSW:xxx *\n",
    "etc/openvpn/otp-secrets": "ana otp totp-60-6:sha1:hex:31323334353637383930:1:xxx *\n",
    "etc/openvpn/okta_openvpn.ini": "[OktaAPI]\nToken: 00lB0Ed2ngJBSWaTaoSRuwDRX4TDIxDy\n",
    "etc/pam-mysql.conf": f"users.host = db\nusers.db_user = vpn\nusers.db_passwd = {SECRET}\n",
    "etc/pam_pgsql.conf": f"connect = dbname=auth user=vpn password={SECRET} host=db\nexpired = 1\n",
    "etc/pam_oauth2_device/config.json": f'{{"oauth": {{"client": {{"id": "vpn", "secret": "{SECRET}"}}}}}}',
    "opt/vpn/config.yaml": f"ldap:\n  - host: a.example\n    bind_password: '{SECRET}'  # of LDAP\n",
    "etc/tacplus_servers": f"secret={SECRET}\nserver=192.0.2.1\n",
    "etc/default/vpn-ldap": f"LDAP_URL=ldaps://x\nexport LDAP_BIND_PASSWORD={SECRET}\n",
    "etc/openvpn/sso.conf": f"url = ldaps://vpn:{SECRET}@ldap.example\n",
    "etc/openvpn/tell.conf": "to = https://hooks.slack.com/services/T00000000/B00000000/JBSWpQ9vTzXk2pQ9vTzXk2pQ\n",
    # passwords with blanks, in quotation marks
    "srv/vpn/.env": f'LDAP_BIND_PASSWORD="correct {SECRET} battery"\n',
    "etc/vpn/ldap.yaml": f'ldap:\n  bind_password: "correct horse {SECRET}"  # of LDAP\n',
    "etc/vpn/ldap.json": f'{{"a": 1, "bind_password": "correct horse {SECRET}"}}\n',
    "etc/vpn/ldap.conf": f"bind_password 'correct horse {SECRET}'\n",
    "etc/vpn/ldap.sh": f"#!/bin/sh\nexport LDAP_PASSWORD='correct horse {SECRET}'\nexec ldapwhoami\n",
    "etc/vpn/ldap.py": f'#!/usr/bin/python3\nconnect("vpn", password="correct horse {SECRET}")\n',
    "etc/vpn/tell.sh": f'#!/bin/sh\n/opt/tell --api-password "correct horse {SECRET}" hello\n',
    # radsecproxy.conf(5): blocks with two words on a line
    "etc/radsecproxy.conf": f"server a {{\n\ttype udp\n\tsecret\t{SECRET}\n}}\n",
    "etc/radsecproxy.d/plain.conf": "client b {\n\tSecret JBSW-verysecretkey\n}\n",
    "etc/radsecproxy.d/psk.conf": "server a {\n\tpskidentity gw\n\tpskkey JBSWsecretpresharedkey # x\n}\n",
    "etc/radsecproxy.d/tls.conf": 'tls default {\n\tCertificateKeyPassword "follow the JBSW rabbit"\n}\n',
    "etc/ppp/chap-secrets": f'# client server secret\nana * "{SECRET}" *\n',
    "root/.netrc": f"machine a.example login vpn password {SECRET}\n",
    "etc/openvpn/bind.conf": f"uri ldaps://a.example\nbind_password {SECRET}\n",
    "opt/vpn/verify": f"#!/bin/sh\nLDAP_PASSWORD='{SECRET}'\nexec ldapwhoami\n",
    # lists of passwords: OpenVPN's example checkpsw.sh, htpasswd(1), htdigest(1), FreeRADIUS
    "etc/openvpn/psw-file": f"# users\nanna {SECRET}\nben xk29dkDk2\n",
    "etc/openvpn/passwords.csv": f"anna,{SECRET}\n",
    "etc/openvpn/users.txt": f"anna {SECRET}\nben staff\n",
    "etc/openvpn/auth-user-pass.txt": f"vpn\n{SECRET}\n",
    "etc/openvpn/auth.txt": f"vpn17\n{SECRET}\n",
    "etc/openvpn/auth": f"vpn17\n{SECRET}",
    "etc/openvpn/auth.conf": f"vpn17\n{SECRET}\n",
    "etc/openvpn/client.auth": f"ana@corp.example\n{SECRET}\n",
    "etc/openvpn/login.txt": f"vpn17\n{SECRET}\n",
    "etc/openvpn/login.conf": f"# of the proxy\nvpn17\n{SECRET}\n",
    "etc/openvpn/up.txt": f"vpn17\n{SECRET}\n",
    "etc/openvpn/vpn.login": f"vpn17\n{SECRET}\n",
    "etc/openvpn/bind-password": f"{SECRET}\n",
    "etc/ocserv/htpasswd": f"anna:{SECRET}\n",
    "etc/freeradius/authorize": f'anna Cleartext-Password := "{SECRET}"\n',
    # scripts
    "opt/vpn/notice": f"#!/bin/sh\ncurl -s -H 'Authorization: Bearer {SECRET}' https://a.example/\n",
    "etc/openvpn/greet.sh": f"#!/bin/sh\ncurl -s \\\n  -u vpn:{SECRET} https://a.example/\n",
    "etc/openvpn/greet.py": f'#!/usr/bin/python3\nconnect(user="vpn", password="{SECRET}")\n',
    "etc/openvpn/greet.pl": f"use strict;\nmy $password = '{SECRET}';\n",
    "opt/vpn/greet.php": f"<?php\n$db = new Db();\n$db_password = '{SECRET}';\n",
    "etc/openvpn/check.sh": f"#!/bin/bash\nlocal -r PASS={SECRET}\n",
    "etc/openvpn/check2.sh": f'#!/bin/bash\nreadonly LDAP_PASSWORD="{SECRET}"\n',
    "etc/openvpn/copy.sh": f"#!/bin/sh\nsshpass -p '{SECRET}' scp /run/x a.example:\n",
    "etc/openvpn/find.sh": f"#!/bin/sh\nldapsearch -x -D cn=vpn -w {SECRET} uid=$1\n",
    "etc/openvpn/write.sh": f"#!/bin/sh\nmysql -u vpn -p{SECRET} -e 'select 1'\n",
    "etc/openvpn/sign.sh": f"#!/bin/sh\nopenssl pkcs12 -in a -passin pass:{SECRET}\n",
    "etc/openvpn/tell.sh": f"#!/bin/sh\n/opt/tell --api-token {SECRET} hello\n",
    "etc/openvpn/brace.conf": f"url = ldaps://a.example\nbind_password = {{{SECRET}\n",
    # a value that is itself NAME=VALUE: units of systemd, strings of a connection in scripts
    "etc/systemd/system/a.service.d/x.conf": f'[Service]\nEnvironment="LDAP_BIND_PASSWORD={SECRET}"\n',
    "etc/systemd/system/b.service": f"[Service]\nEnvironment=LDAP_BIND_PASSWORD={SECRET}\nExecStart=/x\n",
    "opt/vpn/c.service": f"[Service]\nEnvironment=A=1 'B=2' 'LDAP_PASSWORD={SECRET} x'\n",
    "etc/systemd/system/d.service": f"[Service]\nSetCredential=ldap-password:{SECRET}\n",
    "etc/openvpn/verify.py": f"#!/usr/bin/python3\nc = connect('host=db user=vpn password={SECRET}')\n",
    "etc/openvpn/verify.pl": f'my $db = DBI->connect("dbi:Pg:host=db;password={SECRET}", "x");\n',
    "opt/vpn/settings.json": f'{{"Database": "Server=db;User Id=vpn;Password={SECRET};"}}\n',
    "opt/vpn/pod.yaml": f"env:\n  - name: LDAP_BIND_PASSWORD\n    value: {SECRET}\n",
    "etc/bind/rndc.key": f'key "rndc" {{\n\tsecret "{SECRET}";\n}};\n',
    # files of programs in a home
    "root/.aws/credentials": f"[default]\naws_secret_access_key = {SECRET}\n",
    "root/.config/vpn/settings": f"db_password = {SECRET}\n",
    "root/.git-credentials": f"https://ana:{SECRET}@git.corp.example\n",
    "root/.pgpass": f"# of the ledger\ndb.corp.example:5432:vpn:vpn\\:auth:{SECRET}\n",
    "etc/openvpn/pgpass": f"*:*:*:vpnauth:{SECRET}\n",
    "root/.docker/config.json": '{"auths": {"registry.example": {\n"auth": "JBSWY3DPEHPK3PXP="}}}\n',
    "root/.npmrc": f"//registry.example/:_authToken={SECRET}\n",
    "etc/msmtprc": f"account vpn\nuser vpn\npassword {SECRET}\n",
    "etc/postfix/sasl_passwd": f"[smtp.example]:587 vpn:{SECRET}\n",
    "etc/exim4/passwd.client": f"# target:login:password\nsmtp.example:vpn:{SECRET}\n",
    # by their forms wherever no package has put them
    "opt/vpn/NOTES": f"The proxy is\nhttps://vpn:{SECRET}@proxy.example/ for all.\n",
    "srv/vpn/notice.txt": f"curl -H 'Authorization: Bearer {SECRET}' https://a.example/\n",
    "root/.google_authenticator": 'JBSWY3DPEHPK3PXPJBSWY3DPEE\n" TOTP_AUTH\n12345678\n',
}


def build(tree: Path, template: Path) -> None:
    build_release(tree, template, ReleaseLabels(product="gw", version="1"), tree.parent / "blobs")


@pytest.mark.parametrize("name", FILES)
def test_a_login_secret_in_a_tree_is_refused_by_its_file_and_line(tmp_path: Path, name: str) -> None:
    tree, template = small_tree(tmp_path)
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text(FILES[name])
    with pytest.raises(BadInput) as refused:
        build(tree, template)
    said = str(refused.value)
    number = next(
        at
        for at, line in enumerate(FILES[name].splitlines(), start=1)
        if SECRET in line or "3132" in line or "JBSW" in line
    )
    assert f"{name} (" in said
    assert f", line {number})" in said
    assert "template name each file as $credential_NAME, or each value as $secret_NAME" in said
    assert SECRET not in said


@pytest.mark.parametrize("name", FILES)
def test_a_login_secret_of_a_file_with_windows_line_ends_is_found(name: str) -> None:
    windows = FILES[name].replace("\n", "\r\n").encode()
    assert len(list(keys_in(windows, name))) == 1


HASH = "$8sFt66rZ$dPcCrl2dEbYRM8zFH/Uqu."


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("etc/openvpn/htpasswd", f"anna:$apr1{HASH}\n", "hashes of passwords"),
        ("etc/openvpn/list", "anna:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n", "hashes of passwords"),
        ("etc/openvpn/list", "anna:{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9gxyz0=\n", "hashes of passwords"),
        ("etc/openvpn/list", f"anna:vpn:{'0f' * 16}\n", "hashes of passwords"),
        ("etc/openvpn/htpasswd", "anna:rl.3StKT.4T8M\n", "passwords of users, line 1"),
    ],
)
def test_hashes_of_passwords_are_refused_however_they_were_made(name: str, content: str, kind: str) -> None:
    assert list(keys_in(content.encode(), name)) == [f"{name} ({kind})"]


BOT = "1234567890:AAEhBOweik6ad9rXQXMENQjcrGbqCr4Kbcd"
FORMS = [
    f"TOKEN={BOT}",
    f"curl -s https://api.telegram.org/bot{BOT}/sendMessage -d text=hi",
    "curl -d x https://discord.com/api/webhooks/123456789012345678/xK29dkDk2-xK29dkDk2xK29dkDk2xK29dkDk2",
    "curl -d x https://hooks.slack.com/services/T00000000/B00000000/xK29dkDk2xK29dkDk2xK29dk",
    "curl -d x https://example.webhook.office.com/webhookb2/0b1c2d3e-aaaa/IncomingWebhook/0b1c2d3e4f5a6b7c8d9e",
    "curl -H 'X-Gotify-Key: A1b2C3d4e5F6g7H' https://a.example/message",
    "curl 'https://a.example/message?token=A1b2C3d4e5F6g7H'",
    "APP=xapp-1-A0123456-0123456789-0b1c2d3e",
    "PUSH=sk_live_0b1c2d3e4f5a6b7c8d9e",
    "A=AKIAIOSFODNN7EXAMPLE",
    "B=SG.0b1c2d3e4f5a6b7c8d9e0b.0b1c2d3e4f5a6b7c8d9e0b1c2d3e4f5a6b7c8d9e0b1",
    "PASS=hunter2",
    "psk: hunter2hunter2",
    "SERVICE_KEY=0b1c2d3e4f5a6b7c",
]


@pytest.mark.parametrize("line", FORMS)
def test_a_token_in_a_script_is_refused_whatever_service_it_is_of(line: str) -> None:
    for name in ("etc/openvpn/tell.sh", "opt/vpn/tell"):
        script = f"#!/bin/sh\nset -eu\n{line}\n"
        found = list(keys_in(script.encode(), name))
        assert len(found) == 1
        assert found[0].endswith(", line 3)")


@pytest.mark.parametrize("line", [f"TOKEN={BOT}", "aws_access_key_id = AKIAIOSFODNN7EXAMPLA"])
def test_a_token_is_refused_in_every_text_file_that_no_package_brought(line: str) -> None:
    for name in ("opt/vpn/NOTES", "srv/x.txt", "root/.aws/credentials", "home/ana/.bash_history"):
        (found,) = keys_in(f"first\n{line}\n".encode(), name)
        assert found.endswith(", line 2)")
    assert list(keys_in(f"first\n{line}\n".encode(), "usr/lib/python3/dist-packages/x/text")) == []


@pytest.mark.parametrize(
    ("option", "file", "said"),
    [
        ("auth-user-pass /etc/openvpn/corp", f"vpn17\n{SECRET}\n", "password of auth-user-pass, line 2"),
        ("  auth-user-pass corp", "vpn17\r\n12345678\r\n", "password of auth-user-pass, line 2"),
        (
            'http-proxy-user-pass "corp"',
            "vpn17\ncorrect horse 9\n",
            "password of http-proxy-user-pass, line 2",
        ),
        ("http-proxy proxy.example 8080 corp basic", f"a\n{SECRET}\n", "password of http-proxy, line 2"),
        ("socks-proxy proxy.example 1080 corp", f"a\n\n{SECRET}\n", "password of socks-proxy, line 3"),
        ("askpass corp", f"{SECRET}\n", "password of askpass, line 1"),
        ("management 127.0.0.1 7505 corp", f"{SECRET}\n", "password of management, line 1"),
        ("exec openvpn --auth-user-pass corp", f"vpn17\n{SECRET}\n", "password of auth-user-pass, line 2"),
    ],
)
def test_a_file_that_an_option_of_openvpn_names_is_refused_whatever_it_is_called(
    tmp_path: Path, option: str, file: str, said: str
) -> None:
    tree, template = small_tree(tmp_path)
    (tree / "etc/openvpn").mkdir(parents=True, exist_ok=True)
    (tree / "etc/openvpn/corp").write_text(file)
    build(tree, template)
    (tree / "etc/openvpn/office.conf").write_text(f"client\n{option}\n")
    with pytest.raises(BadInput) as refused:
        build(tree, template)
    assert f"etc/openvpn/corp ({said})" in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "file"),
    [
        ("# auth-user-pass corp", f"vpn17\n{SECRET}\n"),
        ("auth-user-pass", f"vpn17\n{SECRET}\n"),
        ("auth-user-pass corp", "vpn17\n$secret_vpn\n"),
        ("auth-user-pass corp", "vpn17\n"),  # OpenVPN asks for the password
        ("auth-user-pass corp", ""),
        ("askpass /etc/penstock/credentials/corp", "remote vpn.example\n"),
        ("askpass $credential_corp", "remote vpn.example\n"),
        ("askpass corp", "#!/bin/sh\nexit\n"),
        ("askpass corp", "a\nb\nc\n"),
    ],
)
def test_a_file_without_a_password_is_published_though_an_option_may_name_it(
    tmp_path: Path, option: str, file: str
) -> None:
    tree, template = small_tree(tmp_path)
    (tree / "etc/openvpn").mkdir(parents=True, exist_ok=True)
    (tree / "etc/openvpn/corp").write_text(file)
    (tree / "etc/openvpn/office.conf").write_text(f"client\n{option}\n")
    build(tree, template)


def test_a_file_of_an_image_that_an_option_in_another_of_its_files_names_is_found() -> None:
    image = BytesIO()
    with tarfile.open(fileobj=image, mode="w") as archive:
        files = {
            "etc/openvpn/corp": f"a\n{SECRET}\n",
            "etc/openvpn/x.conf": "auth-user-pass /etc/openvpn/corp\n",
        }
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content.encode()))
    assert list(keys_in(image.getvalue(), "image.tar")) == [
        "image.tar!etc/openvpn/corp (password of auth-user-pass, line 2)"
    ]


PRINCIPAL = b"\0\x02\0\x07EXAMPLE\0\x04HTTP\0\x0bvpn.example\0\0\0\x01"
ENTRY = PRINCIPAL + b"\x6a\0\0\0\x01\0\x12\0\x20" + bytes(range(32))
KEYTAB = b"\x05\x02" + len(ENTRY).to_bytes(4, "big") + ENTRY


@pytest.mark.parametrize("removed", [b"", (-8).to_bytes(4, "big", signed=True) + bytes(8)])
def test_a_keytab_in_a_tree_is_refused_by_its_file(tmp_path: Path, removed: bytes) -> None:
    """`auth = "gssapi[keytab=FILE]"` of ocserv: the key of the service itself, by which tickets are read."""
    tree, template = small_tree(tmp_path)
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/key.tab").write_bytes(KEYTAB[:2] + removed + KEYTAB[2:])
    with pytest.raises(BadInput, match=r"etc/key\.tab \(keytab of Kerberos\)"):
        build(tree, template)


def test_a_login_secret_in_an_image_is_found_by_its_place_there() -> None:
    content, image = FILES["etc/nslcd.conf"].encode(), BytesIO()
    with tarfile.open(fileobj=image, mode="w") as archive:
        for name in ("etc/nslcd.conf", "usr/share/doc/nslcd/nslcd.conf"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    assert list(keys_in(image.getvalue(), "image.tar")) == [
        "image.tar!etc/nslcd.conf (password of LDAP, line 3)"
    ]


CERTIFICATE = f"-----BEGIN CERTIFICATE-----\n{'MIGHAgEAMBMGByqGSM49AgEG' * 4}\n-----END CERTIFICATE-----\n"
ENCODED_CERTIFICATE = base64.b64encode(CERTIFICATE.encode()).decode()
USUAL: dict[str, str | bytes] = {
    "etc/radcli/radiusclient.conf": "# authserver a:1812:secret\nauthserver \tlocalhost\n"
    "authserver a.example:1812\nacctserver 2001:470:1::5\nservers /etc/radcli/servers\n",
    "etc/radcli/servers": "# Server Name\tKey\n#portmaster.example\thardlyasecret\n",
    "etc/ocserv/servers": "192.0.2.5 $secret_radius\n",
    "etc/dns/servers": "nameserver 192.0.2.5\n192.0.2.1\n",
    "etc/pam_radius_auth.conf": "# server[:port]\tsecret\n127.0.0.1\tsecret             1\n"
    "#other-server    other-secret       3\n192.0.2.5 ${secret_radius} 3\n",
    "etc/nslcd.conf": "uid nslcd\n#binddn cn=vpn,dc=example\n#bindpw secret\nbindpw\nbase dc=example\n",
    "etc/nslcd2.conf": "bindpw $secret_ldap\n",
    "etc/sssd/sssd.conf": "ldap_default_authtok_type = password\n"
    "ldap_default_authtok =\n# ldap_default_authtok = x\n",
    "usr/share/sssd/sssd.api.d/sssd-ldap.conf": "ldap_default_authtok = str, None, false\n",
    "etc/security/pam_duo.conf": "[duo]\n; Duo integration key\nikey = \n"
    "; Duo secret key\nskey = \n; API host\nhost = \n",
    "etc/security/duo2.conf": 'ikey = DI1\nskey = "$secret_duo"\n',
    "etc/openvpn/radiusplugin.cnf": "server\n{\n\t# sharedsecret=testpw\n\tsharedsecret=$secret_radius\n}\n",
    "etc/openvpn/ldap.conf": "<LDAP>\n\t# Password\tSecretPassword\n\tTLSEnable yes\n</LDAP>\n",
    "etc/motd": "Password required\nHOTP and TOTP are supported\n",
    "etc/pam.d/ocserv": "auth required pam_unix.so nullok\n"
    "auth required pam_duo.so conf=/etc/penstock/credentials/duo\n"
    "# auth required pam_tacplus.so secret=x\nauth required pam_yubico.so id=1 key=$secret_yubico\n",
    "etc/users.oath": "# HOTP/T30 ana - 3132333435363738393031323334353637383930\n",
    "etc/services": "kpasswd\t\t464/tcp\nkpasswd 464/udp\n",
    "etc/ssh/sshd_config": "PasswordAuthentication no\nPermitEmptyPasswords no\n",
    "etc/ppp/chap-secrets": "# Secrets using CHAP\n# client\tserver\tsecret\t\tIP addresses\n",
    "opt/vpn/verify": '#!/bin/sh\npassword=$(cat "$1")\nTOKEN="$TOKEN"\nread -r secret <&3\n',
    "opt/vpn/web/locales/en.json": '{"password": "Passphrase"}',
    "etc/nsswitch.conf": "passwd: files\nshadow: files systemd\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\ntoken:x:999:999::/nonexistent:/usr/sbin/nologin\n",
    "etc/ssl/openssl.cnf": "challengePassword = A challenge password\nsecret = pass:insta # Use this\n",
    "etc/ocserv/settings.conf": "ban-points-wrong-password = 10\nserver-key = /etc/x\npassword_file = a.b\n",
    "etc/default/vpn": "# LDAP_BIND_PASSWORD=x1\nLDAP_BIND_PASSWORD=$secret_ldap\nTOKEN=$(cat /run/token)\n"
    "PASSWORD=${PASSWORD}\nUSE_PASSWORD=yes\nSESSION_KEY=VPN2_SESSION_ID\n",
    "etc/vpn/config.json": '{"secret": "${secret_oauth}", "key": "ctrl+c", "url": "https://a.example:8443/x@y"}',
    "etc/vpn/urls.conf": "ldap = ldaps://vpn:$secret_ldap@ldap.example\n"
    "doc = https://docs.example/webhooks/how-to-use-the-webhooks\n",
    "etc/pam.d/common-account": "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\n",
    # scripts whose secrets come from elsewhere, and files with names like those of passwords
    "etc/openvpn/up.sh": '#!/bin/sh\nset -eu\nip link set dev "$dev" mtu 1400\nkey=$1\n'
    'token=${2:-}\npassword="$(cat /run/x)"\nPASS=`cat /run/x`\n[ "$password" = "$3" ] || exit 1\n',
    "etc/openvpn/checkpsw.sh": '#!/bin/sh\nPASSFILE="/etc/openvpn/psw-file"\n[ -r "${PASSFILE}" ] || exit 1\n'
    "CORRECT_PASSWORD=`awk '!/^;/&&!/^#/&&$1==\"'${username}'\"{print $2;exit}' ${PASSFILE}`\n",
    "etc/openvpn/usage.sh": "#!/bin/sh\ncat <<EOF\n  --password PASSWORD  the password\n  --token-file FILE\n"
    "  --no-ask-password --no-pager\nEOF\nadduser --disabled-password --gecos x vpn2\n",
    "etc/openvpn/push.sh": '#!/bin/sh\ncurl -su "$USER:$PASS" -H "Authorization: Bearer $TOKEN" \\\n'
    '  "https://api.telegram.org/bot$TOKEN/sendMessage?chat_id=1234567890"\n'
    "docker run -u 1000:1000 -p 8080:80 x\ninstall -o vpn -g vpn2 x y\n",
    "etc/openvpn/ldap.sh": "#!/bin/sh\nldapsearch -x -y /run/secret -H ldaps://a.example\nmysql -p -u vpn2\n"
    "openssl req -passout env:PASS1 -newkey rsa:2048\nsshpass -f /run/x ssh a.example\n",
    "opt/vpn/auth.py": "#!/usr/bin/env python3\nimport os\npassword = os.environ['password1']\n"
    "token = make_token(16)\nkey = row2.key_of_user1\nsecret: str\nconnect(password=password1, user='x')\n",
    "opt/vpn/auth.pl": "my $password = $ENV{password1};\nmy $key = shift;\n$token = get_token2();\n",
    "etc/openvpn/client.conf": "client\nremote vpn2.example 1194\nauth-user-pass\nkey client1.key\n"
    "tls-auth ta1.key 1\npull-filter ignore route-ipv6\ncipher AES-256-GCM\n",
    # no passwords: labels, messages and statements with blanks; blocks of other programs; files called `up`
    "opt/vpn/web/text.json": '{"password": "Enter your password", "reset_password": "Forgot your password?"}',
    "etc/vpn/sql.conf": 'password_query = "SELECT password FROM users WHERE name = %u"\n'
    'password = "$secret_db"\n',
    "etc/vpn/join.sh": '#!/bin/sh\necho "user="$user" password="$password" host="$host"\n'
    'PASSWORD="$(cat /run/x y)"\nSECRET="Bearer $TOKEN x"\necho "the password \'is asked for\'"\n',
    "etc/vpn/join.py": '#!/usr/bin/python3\nd = "user=" + u + " password=" + p + " host=" + h\n'
    'SECRET_HELP = 1\nkey = "two words"\n',
    "etc/nginx/conf.d/vpn.conf": "server {\n\tlisten 443;\n\tsecret x1;\n}\n",
    "etc/radsecproxy2.conf": "# secret\tverysecret\nserver a {\n\tsecret $secret_radius\n\ttype tls\n}\n"
    "client b {\n\tpskkey ${secret_psk}\n}\n",
    "etc/vpn/two.conf": "listener x {\n\tsecret shared\n}\n",
    "etc/openvpn/up": "#!/bin/sh\nset -eu\n",
    "etc/openvpn/auth.cfg": "client\nproto=udp\n",
    "etc/openvpn/login": "vpn\n$secret_vpn\n",
    "etc/security/access-login.conf": "ana staff\nben staff\n",
    "etc/openvpn/ipp.txt": "anna,10.8.0.4\nben,10.8.0.8\n",
    "etc/openvpn/users.txt": "anna staff\nben admins2\n",
    "etc/ocserv/user-groups": "anna: staff\nben: Group2\n",
    "etc/pam.d/passwd": "@include common-password\n",
    "etc/pam.d/chpasswd": "password include common-password2\n",
    "etc/default/passwd": "#!/bin/sh\numask 022\n",
    "etc/security/passwd.conf": "path /etc/x\nlength 12\n",
    "etc/cron.daily/passwd": "#!/bin/sh\ncd / || exit 0\numask 022\n",
    "etc/ocserv/token": "$secret_token\n",
    "etc/openvpn/pass.txt": "# none\n",
    "etc/vpn/ansible.yaml": 'vpn_password: "{{ vault_password1 }}"\nother_password: {}\nsecret: {\n',
    "etc/vpn/sums": f"server.conf:{'0f' * 16}\n{'0f' * 16}  etc/passwd\n",
    "etc/cups/known": "X-Forwarded-For: 192.0.2.1\nAuthorization: Negotiate\nX-Key: name\n",
    "etc/vpn/ports.env": "PORT=1234567890:80\nIMAGE=registry.example/vpn:2024\nsg.example.com.eu1=1\n",
    # a value that is itself NAME=VALUE and no secret; texts and scripts that show how one is written
    "etc/systemd/system/vpn.service": '[Service]\nEnvironment="LDAP_PASSWORD=$secret_ldap" A=1\n'
    "Environment=TOKEN_FILE=/run/x LDAP_PASSWORD_FILE=/run/y KEY_LENGTH=2048\nPassEnvironment=LDAP_PASSWORD\n"
    "LoadCredential=ldap-password:/etc/penstock/credentials/ldap\nSetCredential=ldap-password:$secret_ldap\n",
    "etc/openvpn/query.py": "#!/usr/bin/python3\nq = 'UPDATE u SET password=? WHERE secret=:secret'\n"
    "c = connect('user=vpn password=%s' % pw)\nd = connect(f'user=vpn password={read(1)}')\n"
    'e = "&password=" + quote1(p) + "&x=1"\nprint("usage: x password=PASSWORD secret=secret")\n'
    "token=make1(x)  # don't log password=x1y2z3\nself.call(token=self.token1, key='a')\nf('token=' + x1)\n",
    "etc/openvpn/query.pl": 'connect("dbi:Pg:host=db;password=$password1");\nprint "password=@{[ask()]}";\n',
    "etc/openvpn/proxy.sh": '#!/bin/sh\nexport https_proxy="http://$USER:$PASS1@proxy.example"\n'
    'git clone "https://x:${TOKEN1}@git.example/a"\n',
    "opt/vpn/pod.yaml": "env:\n  - name: LDAP_PASSWORD\n    valueFrom: {secretKeyRef: {name: a, key: b}}\n"
    "  - name: LDAP_BIND_PASSWORD_FILE\n    value: /run/x1\n",
    "opt/vpn/README.md": "Dial `http://user:password@proxy.example`, `http://abc:xyz@a.example`.\n"
    "    openssl req -passout pass:sample\n    https://x:{token1}@a.example https://$USER:$PASSWORD1@a.example\n"
    "password: x1y2z3w4\nghs_pragma_section (x): Likewise.\nA seed is `totp:sha1:base32:SEED`.\n",
    "opt/vpn/copyright": "cvs://:pserver:anoncvs@sources.example:/cvs/src\n",
    "usr/lib/systemd/system/x.service": "[Service]\nEnvironment=TOKEN=x1y2z3w4v5u6\n",
    "root/.pgpass": "#host:port:db:user:password\ndb:5432:vpn:vpn:$secret_db\n",
    "root/.npmrc": "registry=https://registry.example\n//registry.example/:_authToken=${NPM_TOKEN}\n",
    "etc/kubernetes/k.conf": "users:\n- name: x\n  user:\n    client-key: /etc/x.key\n"
    f"clusters:\n- cluster:\n    certificate-authority-data: {ENCODED_CERTIFICATE}\n",
    "usr/lib/python3/dist-packages/x/config.json": '{"secret": "x1y2z3"}',
    "usr/lib/data.bin": b"\x05\x02\xff",
    "usr/lib/more.bin": b"\x05\x02\0\0\0\0" + bytes(20),
    "usr/lib/other.bin": b"\x05\x02\0\0\0\x08" + bytes(20),
    "usr/lib/long.bin": b"\x05\x02\x7f\xff\xff\xff" + bytes(20),
    "usr/share/doc/nslcd/examples/nslcd.conf": "bindpw secret\n",
    "usr/share/doc/openvpn-auth-radius/radiusplugin.cnf": "sharedsecret=testpw\n",
}


@pytest.mark.parametrize("name", USUAL)
def test_a_usual_file_without_a_login_secret_is_published(name: str) -> None:
    content = USUAL[name]
    written = content if isinstance(content, bytes) else content.encode()
    assert list(keys_in(written, name)) == []
    assert list(keys_in(written.replace(b"\n", b"\r\n"), name)) == []


OPENVPN = """port $port
dev $device
topology subnet
server $pool4 $netmask4
management $run/management.sock unix
key $credential_key
verb 4
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        # as Duo's own instructions for OpenVPN 2.4 and later have it: integration key, secret key, host
        (
            f"plugin /opt/duo/duo_openvpn.so 'DI1234567890ABCDEFGH {SECRET} api-1.example'",
            "argument 2 of plugin /opt/duo/duo_openvpn.so is a secret, write $secret_NAME there",
        ),
        (f"plugin duo_openvpn.so DI1 {SECRET} api-1.example", "argument 2 of plugin duo_openvpn.so"),
        (f"plugin /x/openvpn-plugin-auth-pam.so 'vpn login USERNAME pin {SECRET}'", "pin of plugin"),
        (f"plugin /x/ask.so url=ldaps://a.example bindpw={SECRET}", "bindpw of plugin /x/ask.so"),
        (f"client-connect '/x/greet --api-token {SECRET}'", "--api-token of client-connect /x/greet"),
        (
            f"setenv LDAP_BIND_PASSWORD {SECRET}",
            "setenv LDAP_BIND_PASSWORD has a secret, write `setenv LDAP_BIND_PASSWORD $secret_NAME`",
        ),
        (f"setenv-safe RADIUS_KEY {SECRET}", "setenv-safe RADIUS_KEY has a secret"),
        (f"setenv opt setenv DUO_SKEY {SECRET}", "setenv DUO_SKEY has a secret"),
        (
            f"setenv LDAP_URL ldaps://vpn:{SECRET}@ldap.example",
            "it has the password in an address, write $secret_NAME there",
        ),
        (
            f"auth-user-pass-verify '/x/check -u vpn:{SECRET} https://a.example' via-file",
            "-u of auth-user-pass",
        ),
        (
            "client-connect '/x/tell https://hooks.slack.com/services/T00000000/B00000000/Vpn-Shared-1Xk2pQ9'",
            "it has the address of a webhook, write $secret_NAME there",
        ),
        (f'push "setenv-safe VPN_PIN {SECRET}"', "setenv-safe VPN_PIN has a secret"),
    ],
)
def test_a_secret_on_a_line_of_an_openvpn_template_is_refused_by_its_line(line: str, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        TEMPLATES["openvpn"](f"{OPENVPN}{line}\n", "openvpn.conf.template")
    assert str(refused.value).startswith("openvpn.conf.template is no template of OpenVPN's")
    assert f"line 8: {said}" in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        "plugin /opt/duo/duo_openvpn.so 'DI1234567890ABCDEFGH $secret_duo api-1.example'",
        "plugin /usr/lib/openvpn/openvpn-plugin-auth-pam.so login",
        "plugin /x/openvpn-plugin-auth-pam.so 'vpn login USERNAME password PASSWORD pin OTP'",
        "plugin /x/radiusplugin.so $credential_radius",
        "plugin /x/ask.so url=ldaps://a.example bindpw=$secret_ldap token-file=/etc/penstock/x",
        "client-connect '/x/greet --api-token ${secret_api} --key /etc/penstock/credentials/key'",
        "setenv LDAP_BIND_PASSWORD $secret_ldap",
        "setenv RADIUS_KEY $credential_radius",
        "setenv LDAP_URL ldaps://vpn:$secret_ldap@ldap.example",
        "setenv LDAP_URL ldaps://ldap.example:636/dc=a@b",
        "client-connect '/x/tell https://hooks.slack.com/services/$secret_hook'",
        "auth-user-pass-verify '/x/check -u vpn:$secret_vpn' via-file",
        "auth-user-pass-verify '/x/check -u vpn' via-file",
        "auth-gen-token 3600\nauth-gen-token-secret $credential_tokens",
        "setenv KEY_SIZE 2048",
        "setenv PASSWORD_FILE /etc/penstock/credentials/x",
        "setenv PASSWORD_ATTRIBUTE userPassword",
        "setenv SSH_PUBLIC_KEY AAAA",
        "setenv BYPASS 1",
        "setenv USE_TOKEN yes",
        "setenv opt block-outside-dns",
        "# setenv LDAP_BIND_PASSWORD x",
        'push "route 10.99.0.0 255.255.255.0"',
    ],
)
def test_an_openvpn_template_that_names_its_secrets_or_has_none_is_taken(line: str) -> None:
    TEMPLATES["openvpn"](f"{OPENVPN}{line}\n", "openvpn.conf.template")


def test_a_password_in_an_address_of_an_ocserv_template_is_refused_by_its_line() -> None:
    template = f"{SMALL_TEMPLATE}proxy-url = https://vpn:{{}}@proxy.example/proxy.pac\n"
    TEMPLATES["ocserv"](template.format("$secret_proxy"), "ocserv.conf.template")
    with pytest.raises(BadInput, match="line 9: it has the password in an address, write ") as refused:
        TEMPLATES["ocserv"](template.format(SECRET), "ocserv.conf.template")
    assert SECRET not in str(refused.value)


@pytest.mark.timeout(60)  # it took many hours
@pytest.mark.parametrize("name", ["etc/app.conf", "etc/app.env", "etc/unit.service"])
def test_a_file_of_blanks_holds_nobody_up_and_hides_no_secret(name: str) -> None:
    blanks = b" \t" * 500_000
    assert list(keys_in(blanks, name)) == []
    text = b"first\n" + blanks + b"\n  API_PASSWORD=" + SECRET.encode() + b"\n"
    assert list(keys_in(text, name)) == [f"{name} (API_PASSWORD, line 3)"]
