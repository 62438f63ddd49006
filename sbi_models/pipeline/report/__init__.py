"""What a run shows: console output, JSON, tables and figures of posteriors, and the HTML report."""
