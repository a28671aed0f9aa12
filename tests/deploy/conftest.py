import pytest

from tests.deploy.podman import IMAGE, build, skip_without_podman


@pytest.fixture(scope="session")
def image():
    """The server's image, built once."""
    skip_without_podman()
    build()
    return IMAGE
