"""Which addresses and hosts a download may reach, compared with Python's own lists of special addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np
import pytest

from geosieve.overhead.addresses import is_host_name, is_public

SPECIAL = (
    *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.255", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "100::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::ffff:0:8.8.8.8", "64:ff9b::10.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b:1::8.8.8.8", "2002:7f00:1::1", "2002:a00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "3fff::1"),
    *("4000::1", "2001:2::1", "2001:10::1"),
)
PUBLIC = ("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "223.255.255.255")
PUBLIC_6 = ("2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::8.8.8.8")


@pytest.mark.parametrize("text", SPECIAL)
def test_special_addresses_are_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", (*PUBLIC, *PUBLIC_6))
def test_others_are(text: str) -> None:
    assert is_public(ip_address(text))


def test_nothing_is_public_that_python_holds_for_special() -> None:
    rng = np.random.default_rng(1)
    four = [IPv4Address(int(number)) for number in rng.integers(0, 1 << 32, 20_000)]
    six = [IPv6Address((0x2000 << 112) + int.from_bytes(rng.bytes(15), "big")) for _ in range(5_000)]
    six += [IPv6Address(rng.bytes(16)) for _ in range(5_000)]
    refused = [address for address in (*four, *six) if not is_public(address)]
    allowed = [address for address in (*four, *six) if is_public(address)]
    assert all(a.is_global and not (a.is_multicast or a.is_reserved or a.is_link_local) for a in allowed)
    assert len(allowed) > 15_000 and len(refused) > 5_000


@pytest.mark.parametrize("host", ["live.staticflickr.com", "a.b", "xn--bcher-kva.example", "1.cdn.example", "a-1.b2"])
def test_names(host: str) -> None:
    assert is_host_name(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", "localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1"),
        *("127.0.0.0x1", "a.0x7f", "a.1", "[::1]", "::1", "fe80::1%eth0", "a..b", ".a.b", "a.b.", "a_b.c", "%31.b"),
        *("a.b\n", "ａ.b", "１２７.0.0.1", "-a.b", "a-.b", "A.b", "a.b/", f"{'a' * 64}.b", f"{'a.' * 127}bc"),
    ],
)
def test_addresses_in_any_notation_are_no_names(host: str) -> None:
    assert not is_host_name(host)
