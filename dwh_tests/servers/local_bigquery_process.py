"""local-bigquery with a service for tokens: what `LocalBigQuery` runs, in an environment of its own.

A client with a service account's key asks its `token_uri` for a token before it asks BigQuery for anything.
The emulator takes whatever it is given.
"""

from local_bigquery import app  # type: ignore[import-not-found]
from local_bigquery.cli import main  # type: ignore[import-not-found]


@app.post("/token")
def token() -> dict[str, object]:
    """What Google's own service answers."""
    return {"access_token": "any", "expires_in": 3600, "token_type": "Bearer"}


if __name__ == "__main__":
    main()
