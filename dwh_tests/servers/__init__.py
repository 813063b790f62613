"""Real servers for tests: catalogs and object stores, each a process of this machine with its real protocol.

Each is a context manager that starts on a free port of the loopback interface, waits until it answers, and is
stopped by its process id::

    with IcebergRestServer() as server:
        catalog = load_catalog("test", **server.catalog_properties)

Tests use the fixtures of `dwh_tests.servers.fixtures`. What does not come with pip (jars, a Go binary, an npm
package) is fetched once into a cache: `python -m dwh_tests.servers.prepare`.
"""
