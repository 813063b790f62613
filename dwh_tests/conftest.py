"""What every test may ask for."""

pytest_plugins = ["dwh_tests.servers.fixtures", "dwh_tests.orchestration.fixtures"]
