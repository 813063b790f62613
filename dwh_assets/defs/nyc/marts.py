"""Tables computed from the flights."""

from __future__ import annotations

import duckdb
import pyarrow as pa

_CARRIER_DELAYS = """
    WITH observed AS (
        SELECT
            flights.*,
            coalesce(weather.precip > 0 OR weather.visib < 3 OR weather.wind_speed > 25, false) AS bad_weather
        FROM flights LEFT JOIN weather USING (origin, time_hour)
    )
    SELECT
        carrier,
        airlines.name AS airline,
        date_trunc('month', time_hour AT TIME ZONE 'UTC')::DATE AS month,
        count(*) AS flights,
        count(*) FILTER (dep_time IS NULL) AS cancelled,
        avg(dep_delay) AS mean_departure_delay,
        quantile_cont(dep_delay, 0.9) AS p90_departure_delay,
        avg(dep_delay) FILTER (bad_weather) AS mean_delay_bad_weather,
        avg(dep_delay) FILTER (NOT bad_weather) AS mean_delay_good_weather
    FROM observed LEFT JOIN airlines USING (carrier)
    GROUP BY ALL
    ORDER BY carrier, month
"""


def carrier_delays(
    flights: pa.RecordBatchReader, weather: pa.RecordBatchReader, airlines: pa.RecordBatchReader
) -> duckdb.DuckDBPyRelation:
    """Return each carrier's delays by month, in good and in bad weather at the origin."""
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    for name, rows in (("flights", flights), ("weather", weather), ("airlines", airlines)):
        connection.register(name, rows)
    return connection.sql(_CARRIER_DELAYS)
