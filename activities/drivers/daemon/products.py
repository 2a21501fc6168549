"""The products that gateways run, each with its driver; which runtime carries which."""

from collections.abc import Callable, Mapping, Sequence

from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.ocserv.template import accounts_in as ocserv_accounts_in
from activities.drivers.daemon.ocserv.template import require_template as require_ocserv_template
from activities.drivers.daemon.ocserv.user_files import addresses_in as ocserv_addresses_in
from activities.drivers.daemon.ocserv.user_files import user_files_in as ocserv_user_files_in
from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.daemon.openvpn.template import accounts_in as openvpn_accounts_in
from activities.drivers.daemon.openvpn.template import require_template as require_openvpn_template
from activities.drivers.daemon.openvpn.user_files import addresses_in as openvpn_addresses_in
from activities.drivers.daemon.openvpn.user_files import user_files_in as openvpn_user_files_in
from activities.drivers.daemon.port import Daemon, UserFile
from activities.drivers.daemon.strongswan.daemon import StrongSwan
from activities.drivers.daemon.strongswan.secrets import secret_in as strongswan_secret_in
from activities.drivers.daemon.strongswan.template import require_template as require_strongswan_template
from activities.drivers.daemon.template import Accounts

NOBODY = Exempt()
DAEMONS: Mapping[str, Callable[[ProbeLogin | None, Exempt], Daemon]] = {
    Ocserv.product: Ocserv,
    OpenVpn.product: OpenVpn,
    StrongSwan.product: StrongSwan,
}
TEMPLATES: Mapping[str, Callable[[str, str], None]] = {
    Ocserv.product: require_ocserv_template,
    OpenVpn.product: require_openvpn_template,
    StrongSwan.product: require_strongswan_template,
}
"""What refuses a template of a daemon that its driver could not use."""
ACCOUNTS: Mapping[str, Callable[[str], Accounts]] = {
    Ocserv.product: ocserv_accounts_in,
    OpenVpn.product: openvpn_accounts_in,
}
"""What says as whom a template has its daemon run, where its configuration says so."""
USER_FILES: Mapping[str, tuple[Callable[[str], Sequence[UserFile]], Callable[[str], Sequence[str]]]] = {
    Ocserv.product: (ocserv_user_files_in, ocserv_addresses_in),
    OpenVpn.product: (openvpn_user_files_in, openvpn_addresses_in),
}
"""What finds the files that a template names for some users, and what finds addresses in one of them."""
SECRETS: Sequence[Callable[[str, str], str | None]] = (strongswan_secret_in,)
"""What finds, by a file's name and text, a secret of a kind that only one daemon has."""


def daemon_of(kind: str, login: ProbeLogin | None = None, exempt: Exempt = NOBODY) -> Daemon:
    """Return the driver of the daemon that a gateway runs, with who probes it and who is exempt there."""
    return DAEMONS[kind](login, exempt)
