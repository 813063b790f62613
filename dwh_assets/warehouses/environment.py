"""The warehouses that the environment names, and the variables by which it does.

A warehouse that costs money is never guessed from credentials that lie around: each has a variable of ours
that says where replicas go, and without it there is no such warehouse.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from dwh_assets.config import load_dotenv

MOTHERDUCK_DATABASE = "DWH_MOTHERDUCK_DATABASE"
SNOWFLAKE_DATABASE = "DWH_SNOWFLAKE_DATABASE"
BIGQUERY_PROJECT = "DWH_BIGQUERY_PROJECT"
BIGQUERY_LOCATION = "DWH_BIGQUERY_LOCATION"

# What Snowflake's connector is given, and the variable that its other tools read it from.
SNOWFLAKE_ARGUMENTS: Mapping[str, str] = {
    "account": "SNOWFLAKE_ACCOUNT",
    "user": "SNOWFLAKE_USER",
    "password": "SNOWFLAKE_PASSWORD",
    "private_key_path": "SNOWFLAKE_PRIVATE_KEY_PATH",
    "private_key_password": "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE",
    "authenticator": "SNOWFLAKE_AUTHENTICATOR",
    "role": "SNOWFLAKE_ROLE",
    "warehouse": "SNOWFLAKE_WAREHOUSE",
    "database": SNOWFLAKE_DATABASE,
}
# Where Snowflake answers, if it is not the account that says so.
SNOWFLAKE_ENDPOINT: Mapping[str, str] = {
    "host": "SNOWFLAKE_HOST",
    "port": "SNOWFLAKE_PORT",
    "protocol": "SNOWFLAKE_PROTOCOL",
}


def given(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the arguments whose variables are set, and the variables."""
    return {argument: name for argument, name in variables.items() if os.environ.get(name)}
