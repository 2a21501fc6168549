"""A daemon that a fourth product could be: users' TCP lines, with all that a gateway needs to know of it.

It is what "Add a daemon" of CONTRIBUTING.md asks for and no more: a driver, a release made of its program,
and people. A real process runs in each slot. Who says `hello NAME` has a session until the line ends.
"""

import asyncio
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from activities.drivers.daemon.control import connected
from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.plain import PlainDaemon
from activities.drivers.daemon.port import CONFIG, Daemon, Environment, Secret, Session
from activities.drivers.daemon.template import filled, secret_of
from activities.drivers.programs import run
from policies.model.errors import Refused, Unavailable
from policies.model.instance import Probe
from policies.model.release_tests import Measurement
from policies.model.settings import Setting
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_lab import GatewayLab, TreeAdmission

SOCKET, FILE, PROGRAM = "line.sock", "line.conf", "usr/sbin/lined"
SOURCE = r"""
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
struct { struct sockaddr_in who; char name[64]; } known[64];
int main(int count, char **said) {
    char control[100] = "", line[256]; int port = 0;
    FILE *config = fopen(said[count - 1], "r");
    if (!config || fscanf(config, "port %d control %99s", &port, control) != 2) return puts("no port"), 2;
    if (count > 2) return 0;
    struct sockaddr_in here = {AF_INET, htons(port)};
    struct sockaddr_un asked = {AF_UNIX};
    struct pollfd all[64] = {{socket(AF_INET, SOCK_STREAM, 0), 1}, {socket(AF_UNIX, SOCK_STREAM, 0), 1}};
    int yes = 1, used = 2; strcpy(asked.sun_path, control); unlink(control);
    setsockopt(all[0].fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(all[0].fd, (void *)&here, sizeof here) || listen(all[0].fd, 9)) return perror("port"), 1;
    if (bind(all[1].fd, (void *)&asked, sizeof asked) || listen(all[1].fd, 9)) return perror("control"), 1;
    for (setvbuf(stdout, 0, _IOLBF, 0); poll(all, used, -1) >= 0;)
        for (int i = 0; i < used; i++) {
            if (!all[i].revents) continue;
            socklen_t size = sizeof here;
            if (i == 0 && used < 64) {
                all[used].fd = accept(all[0].fd, (void *)&known[used].who, &size);
                all[used].revents = 0; known[used].name[0] = 0; all[used++].events = 1; continue;
            }
            int fd = i == 1 ? accept(all[1].fd, 0, 0) : all[i].fd;
            ssize_t got = read(fd, line, sizeof line - 1); line[got > 0 ? got : 0] = 0;
            if (i == 1) {
                for (int j = 2; j < used; j++) {
                    char *name = known[j].name, *where = inet_ntoa(known[j].who.sin_addr);
                    if (*name) dprintf(fd, "%d %s %s\n", all[j].fd, name, where);
                    if (!strncmp(line, "end ", 4) && atoi(line + 4) == all[j].fd) shutdown(all[j].fd, 2);
                }
                dprintf(fd, "pid %d\n", getpid()); close(fd);
            } else if (got <= 0) {
                close(fd); used--; all[i] = all[used]; known[i] = known[used]; i--;
            } else if (sscanf(line, "hello %63s", known[i].name) == 1) {
                printf("login %s\n", known[i].name); dprintf(fd, "welcome\n");
            } else dprintf(fd, "pong\n");
        }
}
"""


class LineDaemon(PlainDaemon):
    """The driver."""

    product, probe_needs, config_file = "line", (), FILE

    def __init__(self, login: ProbeLogin | None = None, exempt: Exempt = Exempt()) -> None:  # noqa: B008
        self._user = login.user if login else "probe"

    def render(
        self, environment: Environment, template: Path, credentials: Mapping[str, Secret],
        into: Path, settings: Sequence[Setting] = (),
    ) -> None:  # fmt: skip
        (into / FILE).write_text(filled(environment, template, secret_of(credentials, template))[0])

    def command(self) -> list[str]:
        return [f"/{PROGRAM}", f"{CONFIG}/{FILE}"]

    async def check(self, environment: Environment) -> None:
        if (said := await run(environment.inside(f"/{PROGRAM}", "test", f"{CONFIG}/{FILE}"))).status:
            raise Refused(f"line refuses the config of slot {environment.slot.name}: {said.out}")

    async def main_process(self, environment: Environment) -> int | None:
        said = await self._ask(environment, "list")
        return int(said[-1].split()[1]) if said else None

    async def ready(self, environment: Environment) -> bool:
        return await self._ask(environment, "list") is not None

    async def sessions(self, environment: Environment) -> tuple[Session, ...] | None:
        if (said := await self._ask(environment, "list")) is None:
            return None
        rows = [line.split() for line in said[:-1]]
        return tuple(
            Session(id=id_, remote_address=address, vpn_address="", since=datetime.now(UTC), transport="tcp")
            for id_, name, address in rows if name != self._user
        )  # fmt: skip

    async def end(self, environment: Environment, sessions: tuple[Session, ...]) -> int:
        for session in sessions:
            if await self._ask(environment, f"end {session.id}") is None:
                raise Unavailable("line does not answer")
        return len(sessions)

    def names_in(self, log: str) -> frozenset[str]:
        return frozenset(re.findall(r"^login (\S+)", log, re.MULTILINE))

    def target(self, environment: Environment) -> str:
        return str(environment.gateway.addresses[0])

    async def probe(self, environment: Environment) -> Probe:
        said = await self._says(environment, f"hello {self._user}"), await self._says(environment, "ping")
        stage = "ping" if said == ("welcome", "pong") else "tcp"
        return Probe(passed=stage == "ping", stage=stage, reason=f"it said {said}", pings_sent=1)

    async def inspect(self, environment: Environment, *asked: object) -> tuple[Measurement, ...]:
        return (Measurement(test="login", measured=2, said=(await self.probe(environment)).reason),)

    async def _says(self, environment: Environment, words: str) -> str:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                where = str(environment.gateway.addresses[0]), environment.slot.port
                return (await _exchange(await asyncio.open_connection(*where), words, 1))[0]
        return ""

    async def _ask(self, environment: Environment, words: str) -> list[str] | None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                return await _exchange(await connected(environment.run, SOCKET), words, None)
        return None


async def _exchange(
    opened: tuple[asyncio.StreamReader, asyncio.StreamWriter], words: str, lines: int | None
) -> list[str]:
    reader, writer = opened
    try:
        writer.write(f"{words}\n".encode())
        said = await (reader.readline() if lines else reader.read())
        return said.decode().splitlines() or [""]
    finally:
        writer.close()


class LineAdmission(TreeAdmission):
    product, executable, made_of = "line", PROGRAM, Path("line.conf.template")

    def __init__(self, folder: Path) -> None:
        (folder / "made").mkdir(exist_ok=True)
        self.made_of = folder / "made/line.conf.template"
        self.made_of.write_text(f"port $port control $run/{SOCKET}\n")
        super().__init__(folder)

    def collect(self) -> None:
        (self.tree / PROGRAM).parent.mkdir(parents=True)
        command = ["cc", "-static", "-Os", "-x", "c", "-o", str(self.tree / PROGRAM), "-"]
        subprocess.run(command, input=SOURCE, text=True, check=True)


class LineClient(Client):
    def __init__(self, site: str, folder: Path, number: int) -> None:
        self.name, self.number, self.log, self.pings = site, number, folder / f"client-{number}.log", None
        script = f"exec 3<>/dev/tcp/10.77.0.1/443; echo hello user{number} >&3; exec cat <&3"
        with self.log.open("wb") as log:
            command = ["ip", "netns", "exec", site, "bash", "-c", script]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    async def up(self) -> "LineClient":
        await self.until("welcome")
        return self


class LineLab(GatewayLab):
    credentials: Mapping[str, str] = {}

    def client(self, number: int, **_: object) -> LineClient:
        self.people.append(client := LineClient(f"{self.prefix}c{number}", self.folder, number))
        return client

    def _made_admission(self) -> TreeAdmission:
        return LineAdmission(self.folder)

    def _made_daemon(self) -> Daemon:
        return LineDaemon(self.login)
