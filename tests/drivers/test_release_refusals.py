"""What no host could run, and what nobody may read, never becomes a release."""

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.publishing.builder import ReleaseLabels, build_release
from orchestrator.publishing.private_keys import keys_in
from policies.model.errors import BadInput
from tests.fakes.trees import small_tree

SLEEP = Path("/bin/sleep")


def build(tree: Path, template: Path, platform: str = "linux/amd64") -> None:
    blobs = tree.parent / "blobs"
    build_release(tree, template, ReleaseLabels(product="gw", version="1", platform=platform), blobs)


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    return small_tree(tmp_path)


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def pem(file: Path) -> None:
    openssl("genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(file))


def with_passphrase(file: Path) -> None:
    openssl("genrsa", "-aes128", "-traditional", "-passout", "pass:secret", "-out", str(file), "2048")


def der(file: Path) -> None:
    openssl("genpkey", "-algorithm", "ed25519", "-outform", "der", "-out", str(file))


def encrypted_der(file: Path) -> None:
    pem(plain := file.with_suffix(".plain"))
    words = ["-topk8", "-in", str(plain), "-outform", "der", "-passout", "pass:secret", "-out"]
    openssl("pkcs8", *words, str(file))
    plain.unlink()


def openssh(file: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)]
    subprocess.run(command, check=True, capture_output=True)


def pkcs12(file: Path) -> None:
    certificate = file.with_suffix(".crt")
    openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=vpn",
        "-keyout",
        str(file),
        "-out",
        str(certificate),
    )
    words = ["-export", "-inkey", str(file), "-in", str(certificate), "-passout", "pass:secret", "-out"]
    openssl("pkcs12", *words, str(file))
    certificate.unlink()


@pytest.mark.parametrize("make", [pem, with_passphrase, der, encrypted_der, openssh, pkcs12])
def test_a_private_key_in_a_tree_is_named(small: tuple[Path, Path], make: Callable[[Path], None]) -> None:
    tree, template = small
    build(tree, template)
    if make is openssh and shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed: apt-get install openssh-client")
    (tree / "etc").mkdir()
    make(tree / "etc/server.pem")
    with pytest.raises(BadInput, match=r"secrets in etc/server\.pem \(.*(private key|PKCS#12)") as refused:
        build(tree, template)
    assert "BEGIN" not in str(refused.value)


def test_a_private_key_in_an_image_in_a_tree_is_named_with_its_place(
    small: tuple[Path, Path], tmp_path: Path
) -> None:
    tree, template = small
    pem(tmp_path / "server.key")
    layer, image = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w:gz") as archive:
        archive.add(tmp_path / "server.key", "etc/server.key")
    with tarfile.open(fileobj=image, mode="w") as archive:
        entry = tarfile.TarInfo("layer.tar.gz")
        entry.size = len(layer.getvalue())
        archive.addfile(entry, io.BytesIO(layer.getvalue()))
    (tree / "image.tar").write_bytes(image.getvalue())
    with pytest.raises(BadInput, match=r"image\.tar!layer\.tar\.gz!etc/server\.key \(private key\)"):
        build(tree, template)


def test_a_private_key_in_a_template_is_named(small: tuple[Path, Path], tmp_path: Path) -> None:
    tree, template = small
    pem(tmp_path / "server.key")
    template.write_text(template.read_text() + (tmp_path / "server.key").read_text())
    with pytest.raises(BadInput, match=r"ocserv\.conf\.template \(private key\)"):
        build(tree, template)


STATIC = (
    "-----BEGIN OpenVPN Static key V1-----\n"
    + "0123456789abcdef" * 2
    + "\n-----END OpenVPN Static key V1-----\n"
)
KEY = (
    "-----BEGIN PRIVATE KEY-----\n"
    + "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEH" * 2
    + "\n-----END PRIVATE KEY-----\n"
)
ENCODED = base64.b64encode(KEY.replace("PRIVATE", "EC PRIVATE").encode()).decode()
HASH = "$5$salt$" + "x" * 43


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (f"#\n# 2048 bit OpenVPN static key\n#\n{STATIC}", "OpenVPN Static key V1"),
        (f"<tls-crypt>\n{STATIC}</tls-crypt>\n", "OpenVPN Static key V1"),
        (STATIC.replace("Static key V1", "tls-crypt-v2 server key"), "OpenVPN tls-crypt-v2 server key"),
        (STATIC.replace("Static key V1", "tls-crypt-v2 client key"), "OpenVPN tls-crypt-v2 client key"),
        (STATIC.replace("Static key V1", "auth-token server key"), "OpenVPN auth-token server key"),
        ("<pkcs12>\nMIIKXwIBAzCCChUGCSqGSIb3DQEHAaCC\n</pkcs12>\n", "inline <pkcs12>"),
        ("  <auth-user-pass>\n# who\nana\nletmein\n</auth-user-pass>\n", "inline <auth-user-pass>"),
        (KEY.replace("\n", "\n    "), "private key"),
        ('{"private_key": "' + KEY.replace("\n", "\\n") + '"}', "private key"),
        (f"users:\n- name: ana\n  user:\n    client-key-data: {ENCODED}\n", "ec private key"),
        ("data:\n  tls.key: |\n    " + "\n    ".join(textwrap.wrap(ENCODED, 60)) + "\n", "ec private key"),
        ('{"ca": "' + base64.b64encode(STATIC.encode()).decode() + '"}', "OpenVPN Static key V1"),
        (KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"), "encrypted private key"),
        (KEY.replace("PRIVATE KEY", "PKCS12"), "pkcs12"),
        ("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nP2/56wAAA+0\n", "SSH2 private key"),
        ("AGE-SECRET-KEY-1" + "Q" * 58 + "\n", "age secret key"),
        ("[Interface]\nPrivateKey = " + "a" * 43 + "=\n", "WireGuard private key"),
        ('{"kty":"EC","crv":"P-256","d":"' + "a" * 43 + '"}', "JSON private key"),
        (f"probe:*:{HASH}\n", "hashes of passwords"),
        (f"# users\nana:staff,admins:{HASH}\n", "hashes of passwords"),
        ("ana:$2y$10$" + "a" * 53 + "\n", "hashes of passwords"),
    ],
)
def test_a_secret_of_every_kind_in_a_tree_or_a_template_is_named(content: str, kind: str) -> None:
    """Case 16: the shared key of tls-crypt was in a release that many read."""
    windows = content.replace("\n", "\r\n")
    for written in (content.encode(), windows.encode(), ("\ufeff" + windows).encode("utf-16-le")):
        assert list(keys_in(b"before\n" + written if written[:1] != b"\xff" else written, "f")) == [
            f"f ({kind})"
        ]


RADIUS = "eap-radius {\n servers {\n  a {\n   address = 192.0.2.1\n   secret = testing123\n  }\n }\n}\n"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("etc/strongswan.d/charon/eap-radius.conf", RADIUS, "strongSwan eap-radius.servers.a.secret"),
        ("etc/strongswan.conf", f"charon {{ plugins {{\n{RADIUS}}} }}\n", "eap-radius.servers.a.secret"),
        (
            "etc/strongswan.conf",
            "charon { plugins { ha {\n secret = s3cret\n} } }",
            "charon.plugins.ha.secret",
        ),
        (
            "etc/swanctl/swanctl.conf",
            'secrets {\n  eap-ana { secret = "let me in" }\n}\n',
            "secrets.eap-ana.secret",
        ),
        (
            "etc/swanctl/conf.d/users.conf",
            "secrets {\n eap-ana {\n  id = ana\n  secret = {s3cret\n }\n}\n",
            "secrets.eap-ana.secret",
        ),
        (
            "etc/swanctl/conf.d/users.conf",
            "secrets {\n eap-ana {\n  secret = vpn{s3cret 7\n }\n}\n",
            "secrets.eap-ana.secret",
        ),
        ("etc/swanctl/secrets.d/ana", "id = ana\nsecret = {s3cret\n", "strongSwan secret"),
        ("etc/swanctl/conf.d/psk.conf", "secrets { ike-1 { secret = 0x4665 } }", "secrets.ike-1.secret"),
        ("etc/swanctl/conf.d/token.conf", "secrets {\n token-1 {\n pin = 1234\n}\n}", "secrets.token-1.pin"),
        (
            "etc/strongswan.d/sql.conf",
            "sql {\n database = mysql://vpn:hidden@db/users\n}",
            "strongSwan sql.database",
        ),
        ("etc/ipsec.secrets", ': PSK "v+NkxY9LLZvwj4qCC2o"\n', "strongSwan PSK secret"),
        ("etc/ipsec.secrets", 'ana : EAP "letmein"\n', "strongSwan EAP secret"),
        ("etc/ipsec.secrets", ': RSA moon.key "passphrase"\n', "strongSwan RSA secret"),
        ("etc/radcli/servers", "radius.example\ttesting123\n", "shared key of RADIUS"),
    ],
)
def test_a_secret_of_one_daemons_own_files_in_a_tree_is_named_and_not_quoted(
    small: tuple[Path, Path], name: str, content: str, kind: str
) -> None:
    """Shared keys of RADIUS, of users and of peers were published with the tree."""
    tree, template = small
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text(f"# ours\n{content}")
    with pytest.raises(BadInput, match=re.escape(f"{name} (")) as refused:
        build(tree, template)
    assert kind in str(refused.value)
    assert not [
        word for word in ("testing123", "s3cret", "let me in", "hidden") if word in str(refused.value)
    ]


def test_settings_of_strongswan_that_name_their_secrets_or_have_none_are_published() -> None:
    for name, content in (
        ("etc/strongswan.d/charon/eap-radius.conf", RADIUS.replace("testing123", "$secret_radius")),
        ("etc/strongswan.d/charon/eap-radius.conf", RADIUS.replace("secret", "# secret")),
        ("etc/swanctl/swanctl.conf", "secrets {\n private-a { file = a.key }\n}\nconnections {\n}\n"),
        ("etc/ipsec.secrets", "# : PSK secret\n: RSA moon.key\n: RSA sun.key %prompt\ninclude *.inc\n"),
        (
            "etc/radcli/servers",
            "# Server Name or Client/Server pair\t\tKey\n#portmaster.example\thardlyasecret\n",
        ),
        ("usr/share/tool.js", "function f() {\n secret = made()\n}\n"),
    ):
        assert list(keys_in(content.encode(), name)) == [], content


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_a_secret_in_a_file_that_is_compressed_is_named(pack: Callable[[bytes], bytes]) -> None:
    """Case 16: a file in `etc` may be compressed, and be no archive."""
    assert list(keys_in(pack(STATIC.encode()), "ta.key.z")) == ["ta.key.z! (OpenVPN Static key V1)"]
    assert list(keys_in(pack(b"documentation"), "readme.z")) == []


def test_a_secret_in_a_zip_is_named_with_its_place() -> None:
    """Case 16: clients' profiles are handed out so."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clients/ana.ovpn", f"client\n<tls-crypt>\n{STATIC}</tls-crypt>\n")
    assert list(keys_in(packed.getvalue(), "c.zip")) == ["c.zip!clients/ana.ovpn (OpenVPN Static key V1)"]


def test_what_is_like_a_secret_and_none_is_published() -> None:
    """Case 16: examples of configurations, locked accounts, public keys."""
    for content in (
        "<key>\n# the key of the client\n</key>\n<tls-auth>\n[inline]\n</tls-auth>\n",
        "<plist>\n<key>CFBundleName</key>\n</plist>\n",
        "root:x:0:0:root:/root:/bin/bash\nana:*:!\n",
        "# probe:*:$5$SALT$HASH\nprobe:*:$5$SALT$HASH\n",
        '{"kty":"EC","crv":"P-256","x":"' + "a" * 43 + '"}',
        "PublicKey = " + "a" * 43 + "=\n",
        "-----BEGIN CERTIFICATE-----\n" + "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEH" * 2 + "\n",
    ):
        assert list(keys_in(content.encode(), "f")) == [], content


def test_the_shared_key_of_clients_in_a_template_makes_no_release(small: tuple[Path, Path]) -> None:
    """Case 16: as an inline private key is refused."""
    tree, template = small
    template.write_text(template.read_text() + f"<tls-crypt>\n{STATIC}</tls-crypt>\n")
    with pytest.raises(BadInput, match=r"ocserv\.conf\.template \(OpenVPN Static key V1\)"):
        build(tree, template)


def test_certificates_programs_and_words_about_keys_are_no_keys(tmp_path: Path) -> None:
    pkcs12(tmp_path / "server.key")
    words = ["-clcerts", "-nokeys", "-passin", "pass:secret", "-in", str(tmp_path / "server.key"), "-out"]
    openssl("pkcs12", *words, str(tmp_path / "server.crt"))
    openssl(
        "x509", "-in", str(tmp_path / "server.crt"), "-outform", "der", "-out", str(tmp_path / "server.der")
    )
    (tmp_path / "text").write_text(
        "begin it with -----BEGIN PRIVATE KEY-----\nand end it with another line\n"
    )
    harmless = ["server.crt", "server.der", "text"]
    assert [key for name in harmless for key in keys_in((tmp_path / name).read_bytes(), name)] == []
    assert list(keys_in(SLEEP.read_bytes(), "sleep")) == []


def test_a_daemon_that_nothing_carries_is_refused_with_those_that_there_are(small: tuple[Path, Path]) -> None:
    tree, template = small
    labels = ReleaseLabels(product="gw", version="1", daemon="opnvpn")
    said = "no daemon is called opnvpn; write --daemon with one of ocserv, openvpn, strongswan"
    with pytest.raises(BadInput, match=said):
        build_release(tree, template, labels, tree.parent / "blobs")


def test_a_tree_without_its_libraries_is_refused_with_their_names(small: tuple[Path, Path]) -> None:
    tree, template = small
    shutil.copyfile(SLEEP, tree / "usr/sbin/ocserv")
    with pytest.raises(BadInput, match=r"libc\.so\.6 \(needed by usr/sbin/ocserv\).*penstock release tree"):
        build(tree, template)


def test_a_module_without_its_libraries_is_refused(small: tuple[Path, Path]) -> None:
    tree, template = small
    shutil.copyfile(SLEEP, tree / "usr/lib/pam_mine.so")
    with pytest.raises(BadInput, match=r"needed by usr/lib/pam_mine\.so"):
        build(tree, template)


def test_a_script_without_what_runs_it_is_refused(small: tuple[Path, Path]) -> None:
    tree, template = small
    (tree / "bin/sh").unlink()
    with pytest.raises(BadInput, match=r"lacks /bin/sh \(needed by usr/sbin/ocserv\)"):
        build(tree, template)


def test_programs_for_another_processor_than_was_said_are_refused(small: tuple[Path, Path]) -> None:
    tree, template = small
    told = subprocess.run(["ldd", SLEEP], text=True, capture_output=True, check=True).stdout
    for path in [word for line in told.splitlines() for word in line.split() if word.startswith("/")]:
        (tree / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tree / path.lstrip("/"))
    shutil.copyfile(SLEEP, tree / "usr/sbin/ocserv")
    build(tree, template)
    with pytest.raises(BadInput, match=r"has programs for amd64, and the release is for linux/arm64"):
        build(tree, template, "linux/arm64")


def test_no_file_of_a_release_may_be_written_by_others_on_a_gateways_host(small: tuple[Path, Path]) -> None:
    tree, template = small
    (tree / "usr/sbin/ocserv").chmod(0o6777)
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/settings").write_text("shared")
    (tree / "etc/settings").chmod(0o666)
    labels = ReleaseLabels(product="gw", version="1")
    made = build_release(tree, template, labels, tree.parent / "blobs")
    root = next(one for one in json.loads(made.statement)["predicate"]["artifacts"] if one["files"])
    modes = {one["path"]: one["mode"] for one in root["files"]}
    assert (modes["usr/sbin/ocserv"], modes["etc/settings"]) == (0o755, 0o644)


def test_a_file_whose_name_is_not_utf_8_is_refused_by_its_name(small: tuple[Path, Path]) -> None:
    """Case 51: it ended as an error of penstock itself."""
    tree, template = small
    (Path(os.fsdecode(os.fsencode(tree) + b"/AC_Ra\xedz.crt"))).write_text("x")
    with pytest.raises(BadInput, match=r"'AC_Ra\\udcedz.crt' is not a name in UTF-8; rename the file"):
        build(tree, template)


def test_a_tree_of_too_many_files_is_refused_with_their_count_and_the_limit(small: tuple[Path, Path]) -> None:
    """Case 53: the limit was in bytes of a document that the reader never sees."""
    tree, template = small
    for number in range(600):
        (tree / f"zone-{number}").write_text("")
    with pytest.raises(
        BadInput, match=r"lists \d+ files in \d+ bytes; 65536 bytes are the most, .* some 400 files"
    ):
        build(tree, template)
