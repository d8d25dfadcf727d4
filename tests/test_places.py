"""Places for associations: whoever has many leaves some to others."""

from thoracle.receive.associations import Places


def test_an_address_and_an_ae_title_at_it_leave_places_to_others() -> None:
    places = Places(50)
    entered = sum(places.enter(f"a{number}", "10.0.0.1") for number in range(60))
    assert entered == 45
    assert places.enter("b", "10.0.0.2")
    called = sum(places.call(f"a{number}", "10.0.0.1", "CR1") for number in range(45))
    assert called == 40
    assert places.call("a44", "10.0.0.1", "CR2")
    assert places.call("b", "10.0.0.2", "CR1")  # another address has another caller of this name


def test_a_place_is_given_back_once() -> None:
    places = Places(1)
    assert places.enter("a", "10.0.0.1")
    assert not places.enter("b", "10.0.0.1")
    places.leave("a")
    places.leave("a")
    assert places.enter("b", "10.0.0.1")
    assert not places.enter("c", "10.0.0.1")
