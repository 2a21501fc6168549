"""With what a statement is signed: the options that commands share, and which of them belong together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.passphrase import passphrase_from
from policies.model.errors import BadInput

if TYPE_CHECKING:
    from orchestrator.publishing.signing import Signer

OpenPgpKey = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="secret key, in a file")]
GpgKey = Annotated[
    str | None, typer.Option(metavar="FINGERPRINT", help="a key of gpg, by its agent or on its card")
]
CmsKey = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="private key, in PEM")]
Pkcs11Key = Annotated[
    str | None,
    typer.Option(
        metavar="URI", help="a key of a token: pkcs11:token=…;object=…?module-path=…; its PIN is asked"
    ),
]
CmsCertificates = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="the key's own first, then its chain")
]
CmsTimeStamp = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="time stamp of that signature (RFC 3161)")
]
SigstoreConfig = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="client trust config; the public instance when left out"),
]
Token = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="OIDC token, for Sigstore")]
PassphraseFrom = Annotated[
    str | None,
    typer.Option(
        metavar="REFERENCE",
        help="fd:N, credential:NAME (systemd), file:PATH or vault:…#…; the terminal when left out",
    ),
]


def signer_of(
    *,
    openpgp_key: Path | None = None,
    gpg_key: str | None = None,
    cms_key: Path | None = None,
    pkcs11_key: str | None = None,
    cms_certificates: Path | None = None,
    cms_time_stamp: Path | None = None,
    sigstore_config: Path | None = None,
    identity_token: Path | None = None,
    passphrase: str | None = None,
) -> "Signer":
    """Return the one signer that these options name.

    Raises:
        BadInput: they name none, or several.
    """
    from orchestrator.publishing import signing  # noqa: PLC0415 - who signs nothing waits for none of it

    word = passphrase_from(passphrase)
    stamp = cms_time_stamp.read_bytes() if cms_time_stamp else None
    match (openpgp_key, gpg_key, cms_key, pkcs11_key, cms_certificates, sigstore_config, identity_token):
        case (Path() as key, None, None, None, None, None, None):
            return signing.Signer("openpgp", lambda said: signing.sign_openpgp(said, key, word))
        case (None, str() as name, None, None, None, None, None):
            return signing.Signer("openpgp", lambda said: signing.sign_gpg(said, name))
        case (None, None, None, str() as uri, Path() as chain, None, None):
            from orchestrator.publishing.pkcs11 import sign_pkcs11  # noqa: PLC0415

            return signing.Signer("cms", lambda said: sign_pkcs11(said, uri, chain, word), stamp)
        case (None, None, Path() as key, None, Path() as chain, None, None):
            return signing.Signer("cms", lambda said: signing.sign_cms(said, key, chain, word), stamp)
        case (None, None, None, None, None, config, Path() as token):
            return signing.Signer("sigstore", lambda said: signing.sign_sigstore(said, config, token))
        case _:
            raise BadInput(
                "sign with one of: --openpgp-key, --gpg-key, --cms-key or --pkcs11-key and --cms-certificates"
                " with it, --identity-token with --sigstore-config or without"
            )
