"""Commands that make releases, offline: a tree, its manifest, a channel's index, and signatures on both."""

import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import signers
from orchestrator.cli.output import say
from orchestrator.cli.words import seconds
from policies.model.errors import BadInput

Folder = Annotated[Path, typer.Option("--repository", help="folder that an HTTP server offers")]
Product = Annotated[str, typer.Option(help="what the release is a release of")]
Channel = Annotated[str, typer.Option(help="for which fleets")]
Serial = Annotated[int, typer.Option(min=1, help="unique and growing in its channel")]
DigestArgument = Annotated[str, typer.Argument(help="sha256:… of the manifest")]


def tree(
    into: Annotated[Path, typer.Argument(help="the folder to be made")],
    package: Annotated[
        list[str] | None,
        typer.Option(help="a Debian package, by name or as a .deb file; names bring all they depend on"),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="a root folder instead of packages, such as /"),
    ] = None,
    suite: Annotated[str, typer.Option(help="of Debian, for packages by name")] = "stable",
    mirror: Annotated[str | None, typer.Option(help="where from; this machine's own when left out")] = None,
    program: Annotated[
        list[str] | None, typer.Option(help="what runs, by its path; ocserv's three when left out")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="a file or folder that comes along, such as modules opened later")
    ] = None,
) -> None:
    """Make a daemon's root folder of Debian packages or of a folder: its programs and all that they load."""
    from orchestrator.publishing.debian import package_root  # noqa: PLC0415 - who plans waits for none of it
    from orchestrator.publishing.tree import PROGRAMS, collect  # noqa: PLC0415

    programs, more = program or PROGRAMS, also or ()
    match package, directory:
        case [_, *_], None:
            with package_root(package, suite, mirror) as (root, used):
                made = collect(root, into, programs, more)
            for one in used:
                sys.stderr.write(f"{one.name} {one.version} sha256:{one.sha256}\n")
        case None | [], Path():
            made = collect(directory, into, programs, more)
        case _:
            raise BadInput("say what the tree is made of: --package NAME or FILE.deb, or --directory FOLDER")
    say(f"{into}: {made.files} files, {made.size / 1e6:.1f} MB, {made.platform}")


def image(
    into: Annotated[Path, typer.Argument(help="the folder to be made, in the OCI layout")],
    tree: Annotated[
        Path, typer.Option(file_okay=False, help="root folder of the daemon; of --package it is made first")
    ],
    product: Product,
    version: Annotated[str, typer.Option(help="what people call it")],
    package: Annotated[
        list[str] | None,
        typer.Option(help="a Debian package, by name or as a .deb file; names bring all they depend on"),
    ] = None,
    suite: Annotated[str, typer.Option(help="of Debian, for packages by name")] = "stable",
    mirror: Annotated[str | None, typer.Option(help="where from; this machine's own when left out")] = None,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="configuration inside, for pods that mount none"),
    ] = None,
    shell: Annotated[
        str, typer.Option(help="the package of a static shell, by name or as a .deb file")
    ] = "busybox-static",
    daemon: Annotated[str, typer.Option(help="which daemon it is")] = "ocserv",
    platform: Annotated[str, typer.Option(help="what its programs run on")] = "linux/amd64",
) -> None:
    """Make a container image of a tree, or of packages and a configuration; print its digest."""
    from orchestrator.publishing.debian import package_root  # noqa: PLC0415 - who plans waits for none of it
    from orchestrator.publishing.image import (  # noqa: PLC0415
        ImageLabels,
        build_image,
        shell_in,
        write_layout,
    )
    from orchestrator.publishing.tree import collect  # noqa: PLC0415

    labels = ImageLabels(product, version, platform)
    with package_root([*(package or ()), shell], suite, mirror) as (root, used):
        if package:
            collect(root, tree)
        for one in used:
            sys.stderr.write(f"{one.name} {one.version} sha256:{one.sha256}\n")
        with tempfile.TemporaryDirectory(prefix="penstock-image-") as blobs:
            made = build_image(tree, shell_in(root), labels, Path(blobs), daemon=daemon, config=config)
            write_layout(made, into)
    typer.echo(made.digest)


def push(
    digest: Annotated[str, typer.Argument(help="sha256:… of the manifest, or of the channel's index")],
    repository: Folder,
    to: Annotated[str, typer.Option(help="oci://host/name; oci+http:// without TLS")],
    login: Annotated[
        str | None,
        typer.Option(metavar="REFERENCE", help="user and password: file:PATH, env:NAME or vault:…#…"),
    ] = None,
    authorities: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="PEM, instead of the system's")
    ] = None,
) -> None:
    """Push a signed release or index from a repository folder into a registry, its image with it."""
    from activities.drivers.credentials import Credentials  # noqa: PLC0415
    from orchestrator.publishing.registry import Registry  # noqa: PLC0415

    secret = Credentials(os.environ).resolve(login).get_secret_value() if login else None
    trusted = authorities.read_text() if authorities else None
    pushed = Registry.of(to, login=secret, authorities=trusted).push(repository, digest)
    for name in pushed:
        typer.echo(name)


def build(
    tree: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="root folder of the daemon")],
    repository: Folder,
    template: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="configuration template")],
    product: Product,
    version: Annotated[str, typer.Option(help="what people call it")],
    rollback_index: Annotated[int, typer.Option(min=1, help="the order of releases")],
    serial: Serial,
    channel: Channel = "stable",
    daemon: Annotated[str, typer.Option(help="which daemon it is")] = "ocserv",
    executable: Annotated[str, typer.Option(help="its program, below the root folder")] = "usr/sbin/ocserv",
    platform: Annotated[str, typer.Option(help="what its programs run on")] = "linux/amd64",
    follows_from: Annotated[
        int, typer.Option(min=0, help="least rollback index that it may follow; 0: also nothing")
    ] = 0,
    follows_to: Annotated[int | None, typer.Option(min=1, help="last one; any when left out")] = None,
    config_version: Annotated[int, typer.Option(min=1, help="of its template, and what it writes")] = 1,
    reads_config_from: Annotated[int | None, typer.Option(min=1, help="first version it reads")] = None,
    drain_at_most: Annotated[
        str, typer.Option(help="how long sessions of the release before may go on")
    ] = "8h",
    asks_approval_for: Annotated[
        list[str] | None, typer.Option(help="config or credentials: who changes it needs an approval")
    ] = None,
    changelog: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="what it changes, as people read it in plans: text"),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="of this tree, by `release image`: for clusters"),
    ] = None,
) -> None:
    """Describe a tree in a manifest and put it into a repository folder, unsigned; print its digest."""
    from orchestrator.publishing.builder import ReleaseLabels, build_release, read_changelog  # noqa: PLC0415
    from orchestrator.publishing.folder import publish  # noqa: PLC0415
    from orchestrator.publishing.image import read_layout  # noqa: PLC0415

    _for_everybody()
    labels = ReleaseLabels(
        product=product,
        version=version,
        channel=channel,
        rollback_index=rollback_index,
        serial=serial,
        daemon=daemon,
        executable=executable,
        platform=platform,
        follows=(follows_from, follows_to),
        config_version=config_version,
        reads_config=(reads_config_from or config_version, config_version),
        drain_at_most=timedelta(seconds=seconds(drain_at_most)),
        requires_approval_for=tuple(asks_approval_for or ()),
        changelog=read_changelog(changelog) if changelog else "",
    )
    building = repository / "blobs" / "building"
    built = build_release(tree, template, labels, building, image=read_layout(image) if image else None)
    digest = publish(repository, built.statement, [], built.blobs)
    shutil.rmtree(building)
    typer.echo(digest)


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

    _for_everybody()
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


def refresh(
    repository: Folder,
    product: Product,
    trust: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="trust.yaml of the hosts")],
    seen: Annotated[
        Path,
        typer.Option(file_okay=False, help="folder that remembers the last serial; not in the repository"),
    ],
    channel: Channel = "stable",
    within: Annotated[str, typer.Option(help="sign anew when the index ends so soon")] = "4d",
    days: Annotated[int, typer.Option(min=1, max=7, help="how long the new index is good")] = 7,
    openpgp_key: signers.OpenPgpKey = None,
    gpg_key: signers.GpgKey = None,
    cms_key: signers.CmsKey = None,
    pkcs11_key: signers.Pkcs11Key = None,
    cms_certificates: signers.CmsCertificates = None,
    sigstore_config: signers.SigstoreConfig = None,
    identity_token: signers.Token = None,
    passphrase_from: signers.PassphraseFrom = None,
) -> None:
    """Sign the channel's index anew when it is near its end, and offer it; a timer may run it daily."""
    from activities.drivers.trust_files import load_trust  # noqa: PLC0415
    from orchestrator.publishing.renewal import Channel as Offered  # noqa: PLC0415

    _for_everybody()
    signer = signers.signer_of(
        openpgp_key=openpgp_key,
        gpg_key=gpg_key,
        cms_key=cms_key,
        pkcs11_key=pkcs11_key,
        cms_certificates=cms_certificates,
        sigstore_config=sigstore_config,
        identity_token=identity_token,
        passphrase=passphrase_from,
    )
    offered = Offered(repository, product, channel, load_trust(trust), seen)
    soon = timedelta(seconds=seconds(within))
    done = offered.renew(signer, datetime.now(UTC), within=soon, days=days)
    did = "signed anew" if done.new else "not near its end"
    say(
        f"{product}/{channel}: {did}; serial {done.serial} is good until {done.expires_at:%Y-%m-%d %H:%M} UTC"
    )


def sign(
    digest: DigestArgument,
    repository: Folder,
    openpgp_key: signers.OpenPgpKey = None,
    gpg_key: signers.GpgKey = None,
    cms_key: signers.CmsKey = None,
    pkcs11_key: signers.Pkcs11Key = None,
    cms_certificates: signers.CmsCertificates = None,
    sigstore_config: signers.SigstoreConfig = None,
    identity_token: signers.Token = None,
    cms_time_stamp: signers.CmsTimeStamp = None,
    passphrase_from: signers.PassphraseFrom = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="take away every signature that is there, such as a bad one")
    ] = False,
) -> None:
    """Add one signature to a release or index in a repository folder, by one of several kinds of key."""
    from orchestrator.publishing.folder import add_signature, read_statement  # noqa: PLC0415

    _for_everybody()
    statement = read_statement(repository, digest)
    signer = signers.signer_of(
        openpgp_key=openpgp_key,
        gpg_key=gpg_key,
        cms_key=cms_key,
        pkcs11_key=pkcs11_key,
        cms_certificates=cms_certificates,
        cms_time_stamp=cms_time_stamp,
        sigstore_config=sigstore_config,
        identity_token=identity_token,
        passphrase=passphrase_from,
    )
    content = signer.sign(statement)
    add_signature(repository, digest, signer.kind, content, signer.time_stamp, replace=replace)
    typer.echo(f"signed {digest}")


def _for_everybody() -> None:
    """Have a repository's files read by the server that offers them, which is another user as a rule."""
    os.umask(0o022)
