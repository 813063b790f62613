"""Google BigQuery as a warehouse for replicas."""
