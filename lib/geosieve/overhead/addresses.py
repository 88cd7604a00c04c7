"""Which hosts and addresses a download may reach: public ones only.

An address from outside, such as a photo's URL or a redirect, must not lead into the network of the machine that asks.
So a host is a name and never a number, in whatever notation, and each address that the name stands for is looked up
in the lists of special addresses (IANA's registries for IPv4 and IPv6, RFC 6890).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

_SPECIAL_4 = tuple(
    IPv4Network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
_GLOBAL_6 = IPv6Network("2000::/3")
# Protocols (with Teredo), documentation, and 6to4, which leads to the IPv4 address inside.
_SPECIAL_6 = tuple(IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
_NAT64 = IPv6Network("64:ff9b::/96")

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label begins with a letter: no top-level domain is a number, but 127.1, 2130706433 and 0x7f.1 are addresses.
_NAME = re.compile(rf"(?=.{{1,253}}$)(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")


def is_host_name(host: str) -> bool:
    """Whether `host` is a name of at least two labels in lower-case ASCII, and no address in any notation."""
    return _NAME.fullmatch(host) is not None


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public Internet, so that a download may connect to it.

    An IPv6 address of a translator to IPv4 (64:ff9b::/96) counts as the IPv4 address inside it. 6to4, Teredo and
    IPv4-mapped addresses are refused, whatever they hold.
    """
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _SPECIAL_4)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_6 and not any(address in block for block in _SPECIAL_6)


def parsed(text: str) -> Address:
    """An address that a resolver has returned. ValueError if it is none."""
    return ip_address(text)
