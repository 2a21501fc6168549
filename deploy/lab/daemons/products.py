"""The products that a lab may have on its gateways."""

from collections.abc import Mapping

from deploy.lab.daemons.ocserv import LabOcserv
from deploy.lab.daemons.openvpn import LabOpenVpn
from deploy.lab.daemons.port import LabDaemon
from deploy.lab.daemons.strongswan import LabStrongSwan

DAEMONS: Mapping[str, LabDaemon] = {one.name: one for one in (LabOcserv(), LabOpenVpn(), LabStrongSwan())}
