"""The tests of dwh_assets, laid out like the package itself."""
