"""What is known of a study: instances, analyses, results, the reading worklist, verdicts."""
