"""The command that verifies a single Sigstore bundle offline; it asks no API."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from policies.model.errors import BadInput


def verify_bundle(
    subject: Annotated[str, typer.Argument(metavar="FILE_OR_DIGEST", help="a file, or sha256:…")],
    bundle: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Sigstore bundle")],
    certificate_identity: Annotated[str, typer.Option(help="who must have signed")] = "",
    certificate_oidc_issuer: Annotated[str, typer.Option(help="who must vouch for the signer")] = "",
    trusted_root: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="instead of the public instance's own")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="not supported: a bundle needs a certificate")] = None,
    staging: Annotated[bool, typer.Option("--staging", help="trust the public staging instance")] = False,
    source_repository: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Require a run of this repository. Default: the workflow's own."),
    ] = None,
) -> None:
    """Verify one Sigstore bundle offline; exit 0 only if it holds."""
    if key is not None:
        raise BadInput(
            "--key is not supported: bundles by managed keys prove no identity; use OpenPGP or CMS"
        )
    if not certificate_identity or not certificate_oidc_issuer:
        raise BadInput("--certificate-identity and --certificate-oidc-issuer say who must have signed")
    import hashlib  # noqa: PLC0415

    from activities.drivers.signature.sigstore import SigstoreVerifier, public_root  # noqa: PLC0415

    if re.fullmatch(r"sha256:[0-9a-f]{64}", subject) and not Path(subject).exists():
        sha256 = subject.removeprefix("sha256:")
    else:
        try:
            with Path(subject).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BadInput(f"{subject} cannot be read: {error}") from error
    root = trusted_root.read_bytes() if trusted_root else public_root(staging=staging)
    verifier = SigstoreVerifier({"root": root})
    verifier.verify_blob(
        sha256,
        bundle.read_bytes(),
        identity=certificate_identity,
        issuer=certificate_oidc_issuer,
        source_repository=source_repository,
    )
    sys.stdout.write("verified\n")
