"""By what address a client is known."""

import pytest

from serving.http.connections import client_without_mapping
from serving.http.guard import place_of


@pytest.mark.parametrize(
    ("client", "known"),
    [
        (("::ffff:10.1.2.3", 4000), ("10.1.2.3", 4000)),
        (("10.1.2.3", 4000), ("10.1.2.3", 4000)),
        (("2001:db8::1", 4000), ("2001:db8::1", 4000)),
        (("::ffff:0:0:1", 4000), ("::ffff:0:0:1", 4000)),
        (None, None),
    ],
)
def test_who_asks_an_ipv6_socket_over_ipv4_is_known_by_the_ipv4_address(
    client: tuple[str, int] | None, known: tuple[str, int] | None
) -> None:
    assert client_without_mapping(client) == known


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_all_addresses_of_an_ipv6_network_share_one_allowance(address: str, place: str) -> None:
    assert place_of(address) == place
