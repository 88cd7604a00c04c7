"""Services that all jobs share: configuration, errors, files, logs, reports and the Spark session."""
