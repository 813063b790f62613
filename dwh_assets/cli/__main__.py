"""`python -m dwh_assets.cli` is `dwh`."""

from dwh_assets.cli.main import main

main()
