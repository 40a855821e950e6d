"""Where to listen, and what to tell others."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from ippmpi.controller.address import bind_address, check_free, public_address


@pytest.mark.parametrize(
    ("ip", "bound"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("lo", "127.0.0.1"), ("*", "*")]
)
def test_an_address_a_name_or_an_interface_can_be_given(ip: str, bound: str) -> None:
    assert bind_address(ip) == bound


def test_anything_else_is_an_error_that_names_the_interfaces() -> None:
    with pytest.raises(ValueError, match=r"cannot listen on 'no\.such\.invalid'.*\blo\b"):
        bind_address("no.such.invalid")


def test_a_bound_address_is_what_others_use_unless_a_location_is_given() -> None:
    assert public_address("10.1.2.3") == "10.1.2.3"
    assert public_address("10.1.2.3", "login1.site") == "login1.site"


def test_for_all_interfaces_there_is_some_address() -> None:
    ipaddress.ip_address(public_address("*"))


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port} of .*in use"):
            check_free("127.0.0.1", port)
    check_free("127.0.0.1", 0)


def test_an_address_of_another_host_is_an_error() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:0"):
        check_free("192.0.2.1", 0)
