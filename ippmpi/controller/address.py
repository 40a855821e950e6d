"""At which address the controller listens, and by which one others reach it."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct

_SIOCGIFADDR = 0x8915
_TEST_NET = ("192.0.2.1", 9)  # RFC 5737: belongs to nobody; a UDP "connection" sends nothing


def bind_address(ip: str) -> str:
    """Return *ip* (an address, a host name, an interface, or ``*``) as what ZeroMQ binds to.

    Raises:
        ValueError: it is neither an interface nor an address of this host.
    """
    if ip == "*":
        return ip
    address = _interface_address(ip)
    if address:
        return address
    try:
        return str(socket.getaddrinfo(ip, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        have = ", ".join(name for _, name in socket.if_nameindex())
        raise ValueError(
            f"cannot listen on {ip!r}: neither an address ({error}) nor an interface of "
            f"{socket.gethostname()} (it has {have})"
        ) from None


def public_address(bound: str, location: str = "") -> str:
    """Return the address that others connect to: *location* if given, else *bound*, else for ``*`` what fits best."""
    if location:
        return location
    if bound not in ("*", "0.0.0.0"):
        return bound
    for address in (_of_own_name(), _of_default_route(), *_of_interfaces()):
        if address and not ipaddress.ip_address(address).is_loopback:
            return address
    return "127.0.0.1"


def _of_own_name() -> str:
    """Return the address that this host's name stands for, as far as it is really ours."""
    with contextlib.suppress(OSError):
        address = socket.gethostbyname(socket.gethostname())
        if address in _of_interfaces():
            return address
    return ""


def _of_default_route() -> str:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_TEST_NET)
        return str(probe.getsockname()[0])
    return ""


def _of_interfaces() -> list[str]:
    return [a for a in (_interface_address(name) for _, name in socket.if_nameindex()) if a]


def _interface_address(name: str) -> str:
    """Return the IPv4 address of an interface, "" if there is no such interface or it has none."""
    if not 0 < len(name) < 16 or ("." in name.strip(".") and name.replace(".", "").isdigit()):
        return ""
    import fcntl  # Linux's ioctl; elsewhere interfaces cannot be named, addresses can

    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        found = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()))
        return socket.inet_ntoa(found[20:24])
    return ""


def check_free(address: str, port: int) -> None:
    """Make sure that *port* of *address* can be listened on; raise OSError saying why not."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("" if address == "*" else address, port))
        except OSError as error:
            text = f"cannot listen on {address}:{port} of {socket.gethostname()}: {error.strerror}"
            raise OSError(error.errno, text) from None
