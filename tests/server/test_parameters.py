from reelserve.server.parameters import Parameters


def test_parameters_are_empty_when_the_config_has_none():
    assert Parameters({}).integer("anything", 4) == 4
