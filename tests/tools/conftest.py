from tests.client.conftest import fake_triton as fake_triton
