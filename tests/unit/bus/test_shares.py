"""No owner exceeds its share, all together not the total, and what is given back can be taken again."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.clientinfo import ClientInfo, owner_of
from pushd.bus.grants import Grants, Identity
from pushd.bus.shares import Shares
from pushd.errors import Refused, TooMany, Unavailable
from pushd.server.net.addresses import ClientAddress

OWNERS = (None, "192.0.2.1", "user alice")


class SharesTests(SynchronousTestCase):
    def test_one_owner_gets_its_share_and_others_theirs(self) -> None:
        shares = Shares("bytes of bodies", "[limits] bodies", 100, 10)
        shares.take("a", 10)
        error = self.assertRaises(TooMany, shares.take, "a")
        self.assertEqual(
            error.detail, "a uses its share of bytes of bodies, 10: see [limits] bodies and [limits] share"
        )
        self.assertIsNotNone(error.retry_s)
        shares.take("b", 10)
        self.assertEqual(shares.used, 20)

    def test_all_together_get_what_there_is(self) -> None:
        shares = Shares("bytes of bodies", "[limits] bodies", 100, 10)
        shares.take(None, 100)
        error = self.assertRaises(Unavailable, shares.take, "a")
        self.assertEqual(error.detail, "all bytes of bodies are in use, 100: see [limits] bodies")

    def test_a_share_is_one_at_least(self) -> None:
        self.assertEqual(Shares("x", "y", 3, 10).most_per_owner, 1)

    def test_other_bounds_count_what_is_in_use(self) -> None:
        shares = Shares("x", "y", 100, 10)
        shares.take("a", 10)
        shares.limit(100, 5)
        self.assertRaises(TooMany, shares.take, "a")
        shares.give_back("a", 6)
        shares.take("a")

    @given(st.lists(st.tuples(st.sampled_from(OWNERS), st.integers(1, 8), st.booleans())))
    def test_any_order_of_taking_and_giving_back(self, steps: list[tuple[str | None, int, bool]]) -> None:
        shares = Shares("x", "y", 20, 30)
        held: list[tuple[str | None, int]] = []
        for owner, units, takes in steps:
            used = Counter[str | None]()
            for one, count in held:
                used[one] += count
            if takes:
                fits = used.total() + units <= 20 and (owner is None or used[owner] + units <= 6)
                try:
                    shares.take(owner, units)
                except Refused:
                    self.assertFalse(fits)
                else:
                    self.assertTrue(fits)
                    held.append((owner, units))
            elif held:
                shares.give_back(*held.pop())
        self.assertEqual(shares.used, sum(units for _, units in held))
        for owner in OWNERS[1:]:
            self.assertEqual(shares.used_by(owner), sum(units for one, units in held if one == owner))


class OwnerTests(SynchronousTestCase):
    def owner(self, address: str, user: str | None = None) -> str | None:
        return owner_of(ClientInfo(Identity(Grants.of([]), user), ClientAddress(address, 1)))

    def test_a_user_is_charged_before_its_address(self) -> None:
        self.assertEqual(self.owner("192.0.2.1", "alice"), "user alice")
        self.assertEqual(self.owner("127.0.0.1", "alice"), "user alice")

    def test_without_a_user_it_is_the_address_or_its_network(self) -> None:
        self.assertEqual(self.owner("192.0.2.1"), "192.0.2.1")
        self.assertEqual(self.owner("2001:db8::7"), "2001:db8::/64")

    def test_nobody_is_charged_for_this_machine(self) -> None:
        self.assertEqual([self.owner("127.0.0.1"), self.owner("::1"), self.owner("unix")], [None, None, None])
