"""Commands about releases: make, sign and offer them; verify, list and withdraw them; check old verdicts."""

import getpass
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.session import Session, in_session
from orchestrator.cli.show import Output, console, print_json
from orchestrator.exit_code import ExitCode
from policies.model.errors import BadInput

if TYPE_CHECKING:
    from policies.model.verification import Verification

app = typer.Typer(help="Make, sign, verify and withdraw releases.", no_args_is_help=True)
audit = typer.Typer(help="Check what was decided.", no_args_is_help=True)

OutputOption = Annotated[Output, typer.Option("--output", "-o", help="for people or for machines")]
Folder = Annotated[Path, typer.Option("--repository", help="folder that an HTTP server offers")]
Product = Annotated[str, typer.Option(help="what the release is a release of")]
Channel = Annotated[str, typer.Option(help="for which fleets")]
Serial = Annotated[int, typer.Option(min=1, help="unique and growing in its channel")]
DigestArgument = Annotated[str, typer.Argument(help="sha256:… of the manifest")]
KeyFile = Annotated[Path | None, typer.Option(exists=True, dir_okay=False)]


@app.command()
def build(
    tree: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="root folder of the daemon")],
    repository: Folder,
    template: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="configuration template")],
    product: Product,
    version: Annotated[str, typer.Option(help="what people call it")],
    rollback_index: Annotated[int, typer.Option(min=1, help="the order of releases")],
    serial: Serial,
    channel: Channel = "stable",
    daemon: str = "ocserv",
    executable: str = "usr/sbin/ocserv",
) -> None:
    """Describe a tree in a manifest and put it into a repository folder, unsigned; print its digest."""
    from orchestrator.publishing.builder import ReleaseLabels, build_release  # noqa: PLC0415
    from orchestrator.publishing.folder import publish  # noqa: PLC0415

    labels = ReleaseLabels(
        product=product,
        version=version,
        channel=channel,
        rollback_index=rollback_index,
        serial=serial,
        daemon=daemon,
        executable=executable,
    )
    built = build_release(tree, template, labels, repository / "blobs" / "building")
    digest = publish(repository, built.statement, [], built.blobs)
    for path in built.blobs.values():
        path.unlink()
    (repository / "blobs" / "building").rmdir()
    typer.echo(digest)


@app.command()
def index(
    repository: Folder,
    product: Product,
    serial: Serial,
    release: Annotated[list[str], typer.Option(help="digest of a release the channel offers")],
    channel: Channel = "stable",
    days: Annotated[int, typer.Option(min=1, max=7, help="how long the index is good")] = 7,
) -> None:
    """Make the channel's index, unsigned, and offer it; print its digest. Sign it like a release."""
    from orchestrator.publishing.builder import index_statement  # noqa: PLC0415
    from orchestrator.publishing.folder import offer, publish, read_statement  # noqa: PLC0415
    from policies.model.release import CurrentRelease  # noqa: PLC0415
    from policies.trust.statements import parse_release  # noqa: PLC0415

    current = [
        CurrentRelease(
            manifest_sha256=digest.removeprefix("sha256:"),
            rollback_index=parse_release(read_statement(repository, digest)).rollback_index,
        )
        for digest in release
    ]
    issued_at = datetime.now(UTC).replace(microsecond=0)
    statement = index_statement(product, channel, current, serial=serial, issued_at=issued_at, days=days)
    digest = publish(repository, statement, [], {})
    offer(repository, product, channel, digest)
    typer.echo(digest)


@app.command()
def sign(
    digest: DigestArgument,
    repository: Folder,
    openpgp_key: KeyFile = None,
    cms_key: KeyFile = None,
    cms_certificates: KeyFile = None,
    sigstore_config: KeyFile = None,
    identity_token: KeyFile = None,
    cms_time_stamp: KeyFile = None,
) -> None:
    """Add one signature to a release or index in a repository folder, by one of three kinds of key."""
    from orchestrator.publishing import signing as release_signing  # noqa: PLC0415
    from orchestrator.publishing.folder import add_signature, read_statement  # noqa: PLC0415

    statement = read_statement(repository, digest)
    token = cms_time_stamp.read_bytes() if cms_time_stamp else None
    match (openpgp_key, cms_key, cms_certificates, sigstore_config, identity_token):
        case (Path() as key, None, None, None, None):
            add_signature(repository, digest, "openpgp", release_signing.sign_openpgp(statement, key))
        case (None, Path() as key, Path() as certificates, None, None):
            signature = release_signing.sign_cms(statement, key, certificates)
            add_signature(repository, digest, "cms", signature, token)
        case (None, None, None, Path() as config, Path() as identity):
            signature = release_signing.sign_sigstore(statement, config, identity)
            add_signature(repository, digest, "sigstore", signature)
        case _:
            raise BadInput(
                "sign with one of: --openpgp-key, --cms-key and --cms-certificates, "
                "--sigstore-config and --identity-token"
            )
    typer.echo(f"signed {digest}")


@app.command()
def add(digest: DigestArgument) -> None:
    """Verify a release of the repository and have it in the ledger, ready to be planned."""

    async def run(session: Session) -> None:
        release = await session.add_release(digest)
        row = next(row for row in session.ledger.releases() if row.release == release)
        typer.echo(f"{release.product} {release.version} {release.digest}")
        for signer in row.signers:
            typer.echo(f"  signed by {signer}")

    in_session(run)


@app.command()
def verify(digest: DigestArgument) -> None:
    """Verify a release of the repository without adding it; say who signed and why that is enough."""

    async def run(session: Session) -> None:
        from activities.drivers.trust_files import compose_releases  # noqa: PLC0415
        from orchestrator.engine.client import enter_network_namespace  # noqa: PLC0415

        settings, fleet = session.settings, session.fleet
        enter_network_namespace(settings.network_namespace)
        releases = compose_releases(
            settings.store, settings.trust, product=fleet.product, channel=fleet.channel
        )
        admitted = await releases.admit(digest, settings.source)
        typer.echo(f"{admitted.reference.product} {admitted.reference.version}: {admitted.reason}")

    in_session(run)


@app.command()
def show(release: Annotated[str, typer.Argument(help="digest, its beginning, or version")]) -> None:
    """Print a release of the ledger for machines, withdrawn or not."""

    async def run(session: Session) -> None:
        rows = session.ledger.releases()
        digest = release if release.startswith("sha256:") else f"sha256:{release}"
        found = [
            row for row in rows if release == row.release.version or row.release.digest.startswith(digest)
        ]
        if len(found) != 1:
            raise BadInput(
                f"{len(found)} releases of the ledger are called {release}; see penstock release list"
            )
        print_json(found[0].model_dump(mode="json"))

    in_session(run)


@app.command("list")
def list_releases(output: OutputOption = Output.TABLE) -> None:
    """List the releases of the ledger, the newest first."""

    async def run(session: Session) -> None:
        from rich.table import Table  # noqa: PLC0415

        rows = session.ledger.releases()
        if output is Output.JSON:
            print_json([row.model_dump(mode="json") for row in rows])
            return
        table = Table("release", "digest", "signed by", "added", "")
        for row in rows:
            state = f"withdrawn: {row.yanked_reason}" if row.yanked_reason else ""
            name = f"{row.release.product} {row.release.version}"
            signers = "\n".join(signer.partition(" (")[0] for signer in row.signers)
            table.add_row(name, row.release.digest[:19], signers, f"{row.added_at:%Y-%m-%d %H:%M}", state)
        console().print(table if rows else "no releases yet; add one with penstock release add")

    in_session(run)


@app.command()
def yank(digest: DigestArgument, reason: Annotated[str, typer.Option(help="why, for the history")]) -> None:
    """Withdraw a release: it is not rolled out any more; gateways that run it are left alone."""

    async def run(session: Session) -> None:
        new = session.ledger.yank(digest, reason, getpass.getuser())
        typer.echo(f"{digest} is withdrawn" if new else f"{digest} was withdrawn before")

    in_session(run)


def verify_bundle(
    subject: Annotated[str, typer.Argument(metavar="FILE_OR_DIGEST", help="a file, or sha256:…")],
    bundle: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Sigstore bundle")],
    certificate_identity: Annotated[str, typer.Option(help="who must have signed")] = "",
    certificate_oidc_issuer: Annotated[str, typer.Option(help="who must vouch for the signer")] = "",
    trusted_root: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    key: Annotated[Path | None, typer.Option(help="not supported: a bundle needs a certificate")] = None,
    staging: Annotated[bool, typer.Option("--staging", help="trust the public staging instance")] = False,
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
        sha256, bundle.read_bytes(), identity=certificate_identity, issuer=certificate_oidc_issuer
    )
    sys.stdout.write("verified\n")


@audit.command()
def reverify(
    line: Annotated[int | None, typer.Option(min=1, help="only this line of the record")] = None,
) -> None:
    """Recompute verdicts about releases offline, from the stored evidence alone; exit 10 if one differs."""

    async def run(session: Session) -> ExitCode:
        from activities.drivers.trust_files import Trail, evidence_of, recompute  # noqa: PLC0415

        store = session.settings.store
        verifications = Trail(store / "audit.jsonl").read()
        chosen = list(enumerate(verifications, start=1))
        if line is not None and line > len(chosen):
            raise BadInput(f"the record has {len(chosen)} lines, not {line}")
        differences = 0
        for number, verification in chosen if line is None else chosen[line - 1 : line]:
            said = _compare(verification, recompute(verification, evidence_of(store)))
            differences += said.startswith("differs")
            typer.echo(f"{number} {verification.at:%Y-%m-%d %H:%M:%S} {verification.release[:19]} {said}")
        return ExitCode.DIFFERENCES if differences else ExitCode.DONE

    raise typer.Exit(in_session(run))


def _compare(verification: "Verification", code: str | None) -> str:
    """Return in a few words whether the verdict is the same today."""
    then = verification.verdict.code
    if code is None:
        return f"{then}, about the transfer: nothing to recompute"
    return f"{then}, same today" if code == then else f"differs: {then} then, {code} now"
